"""The ledger of claims: what was compared with what, and how far apart it was."""

import json
from collections.abc import Iterable
from pathlib import Path

import nbformat
from rich.table import Table

from dlopt_course.core import CLAIM_MIME, write_atomic

LIBRARIES = {
    "torch": "PyTorch",
    "sklearn": "scikit-learn",
    "scipy": "SciPy",
    "keras": "Keras",
    "torchvision": "torchvision",
    "finite": "finite differences",
}


def counted(claim: dict) -> bool:
    "Whether a row compares with something outside this course."
    return claim["against"] != "internal"


def claims_of(lesson: str, notebook: nbformat.NotebookNode) -> list[dict]:
    "The rows that a lesson's claims add to the ledger, in order."
    outputs = (o for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
    found = (o["data"][CLAIM_MIME] for o in outputs if CLAIM_MIME in o.get("data", {}))
    return [{"lesson": lesson, **row} for row in found]


def write_ledger(lessons: list[Path], executed: Path) -> Path:
    "Collect the claims of every lesson that has been executed into claims.json; returns its path."
    done = [p for p in lessons if (executed / p.name).exists()]
    rows = [row for p in done for row in claims_of(p.stem, nbformat.read(executed / p.name, 4))]
    ledger = executed.parent / "claims.json"
    write_atomic(ledger, json.dumps(rows, indent=1) + "\n")
    return ledger


def read_ledger(build: Path) -> list[dict]:
    "The rows of the ledger, in reading order."
    ledger = build / "claims.json"
    if not ledger.exists():
        raise ValueError("no claims yet: `dlopt run` runs the lessons that make them")
    return json.loads(ledger.read_text(encoding="utf-8"))


def table(rows: list[dict]) -> Table:
    "The rows for a terminal."
    shown = Table("lesson", "claim", "against", "largest absolute", "relative", "allowed", box=None, pad_edge=False)
    for r in rows:
        numbers = [f"{r[k]:.1e}" if r[k] is not None else "–" for k in ("max_abs", "max_rel")]
        shown.add_row(r["lesson"], r["label"], r["against"], *numbers, r["tolerance"])
    return shown


def library(against: str) -> str:
    "The family that a reference belongs to."
    return LIBRARIES.get(against.lower().replace(",", ".").split(".")[0].split()[0], "closed forms")


def summary(rows: list[dict]) -> Iterable[str]:
    "A line of a Markdown table for each lesson, and their sum: the claims against others, and against whom."
    rows = [r for r in rows if counted(r)]
    lessons = list(dict.fromkeys(r["lesson"] for r in rows))
    for lesson in [*lessons, "all"]:
        own = [r for r in rows if lesson in (r["lesson"], "all")]
        others = sorted({library(r["against"]) for r in own}, key=str.lower)
        yield f"| {lesson} | {len(own)} | {', '.join(others)} |"
