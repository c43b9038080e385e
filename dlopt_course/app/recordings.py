"""Measurements that were recorded on a GPU, each with its origin, for readers who have none.

`python -m benchmarks.gpu` writes a recording. A lesson shows what was measured live in this process, else the newest
recording, else that there is none yet.
"""

import importlib
import json
import math
import re
from dataclasses import dataclass
from datetime import date
from html import escape
from numbers import Real
from pathlib import Path
from statistics import quantiles

FOLDER = Path(__file__).with_name("recorded")
HEAD = {  # what a recording says of itself, and of which type
    "kind": str,
    "format": int,
    "date": str,
    "live": bool,  # measured in this process, never in a file
    "quick": bool,  # with tiny sizes, to try the program; its times mean nothing
    "command": str,
    "device": dict,
    "machine": str,
    "versions": dict,
    "code": str,
    "commit": str,
    "seconds": float,
    "experiments": list,
}
DEVICE = {"type": str, "name": str, "driver": str, "cuda": str, "capability": str, "memory": int, "processors": int}
EXPERIMENT = {"name": str, "title": str, "about": str, "seconds": float, "error": str, "rows": list}
ROW = {"case": str, "samples": list, "quartiles": list, "others": dict, "figures": dict, "target": dict, "error": str}
FORMAT = 1
_LIVE = {}  # by kind, what was measured in this process


@dataclass(frozen=True)
class Table:
    "Lines to show, and a caption that says where they come from; without lines the caption says why."

    title: str
    columns: tuple  # of text
    rows: tuple  # of tuples of text, as long as the columns
    caption: str

    def __str__(self) -> str:
        "Lines of text, the columns one under the other."
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join([self.title, *(text if self.rows else []), self.caption])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        caption = re.sub(
            "`(.+?)`", r"<code>\1</code>", f"{escape(self.title[:1].upper() + self.title[1:])}. {escape(self.caption)}"
        )
        if not self.rows:
            return f"<p>{caption}</p>"
        head = "".join(f'<th scope="col">{escape(c)}</th>' for c in self.columns)
        body = ["".join(f"<td>{escape(c)}</td>" for c in line) for line in self.rows]
        lines = "".join(f"<tr>{line}</tr>" for line in body)
        return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


# Finding


def load_newest(
    kind: str,  # such as "gpu": how the names of the files begin
    folder: Path | None = None,  # where they are; default: the package's own
) -> dict | None:  # the recording of the latest date, None where there is none
    "Reads and checks `<kind>-<date>-<device>.json`. Raises ValueError where the file is not a recording."
    files = sorted((folder or FOLDER).glob(f"{kind}-????-??-??-*.json"), key=lambda p: p.name)
    return load(files[-1]) if files else None


def load(
    file: Path,  # a recording
) -> dict:  # what it holds
    "Reads one recording. Raises ValueError naming the file and what is wrong with it."
    try:
        recording = json.loads(file.read_text(encoding="utf-8"))
        check_recording(recording)
    except (
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as e:  # of what is no recording at all
        raise ValueError(f"{file.name} is not a recording: {e}") from None
    return recording


def measure_here(
    *names: str,  # of experiments; default: the short ones, which take less than a minute on a GPU
    device: str | None = None,  # "cuda" or "cpu"; default: a GPU if torch finds one
    quick: bool = False,  # with tiny sizes
) -> dict | None:  # a live recording that `show` uses from now on; None where nothing can be measured
    "Measures in this process; needs a GPU or a device that is named, and the checkout, which has the experiments."
    import torch  # slow to load, and only needed here

    if device is None and not torch.cuda.is_available():
        return None
    try:
        experiments = importlib.import_module("benchmarks.gpu")
    except ModuleNotFoundError as e:
        if (e.name or "").split(".")[0] != "benchmarks":
            raise
        return None
    recording = experiments.record(names or experiments.SHORT, device or "cuda", quick=quick, live=True)
    _LIVE[recording["kind"]] = recording
    return recording


# Showing


def origin(
    recording: dict | None,  # what `load_newest` or `measure_here` returned
) -> str:  # one or two sentences
    "Where the numbers come from: no number is shown without it."
    if recording is None:
        return "No recording yet: nobody has run `python -m benchmarks.gpu` on a GPU for this course."
    device, versions = recording["device"], recording["versions"]
    parts = [f"driver {device['driver']}" if device["driver"] else "", f"torch {versions['torch']}"]
    about = f"{device['name']} ({', '.join(p for p in parts if p)})"
    tiny = " With tiny sizes, to try the program: the times mean nothing." if recording["quick"] else ""
    if recording["live"]:
        return f"Measured here, on {recording['date']} on {about}.{tiny}"
    return f"Recorded on {recording['date']} on {about} by `{recording['command']}`, not run here.{tiny}"


def experiment(
    recording: dict | None,  # what `load_newest` or `measure_here` returned
    name: str,  # of the experiment
) -> dict | None:  # as it is in the recording; None where it is not
    "One experiment of a recording."
    found = [e for e in (recording or {"experiments": []})["experiments"] if e["name"] == name]
    return found[0] if found else None


def table(
    recording: dict | None,  # what `load_newest` or `measure_here` returned
    name: str,  # of the experiment
) -> Table:
    "The lines of one experiment. What is missing or has failed gives a table without lines that says so."
    found = experiment(recording, name)
    if found is None:
        missing = "" if recording is None else f"It has no experiment called {name!r}. "
        return Table(name, (), (), missing + origin(recording))
    if not found["rows"]:
        return Table(found["title"], (), (), f"This experiment failed: {found['error']}. {origin(recording)}")
    names = list(dict.fromkeys(figure for row in found["rows"] for figure in row["figures"]))
    targets = any(row["target"] for row in found["rows"])
    columns = ("", "median", "quartiles", *names, *(("target",) if targets else ()))
    failed = f"It stopped early: {found['error']}. " if found["error"] else ""
    rows = tuple(_line(row, names)[: len(columns)] for row in found["rows"])
    return Table(found["title"], columns, rows, failed + origin(recording))


def show(
    kind: str,  # such as "gpu"
    name: str,  # of the experiment
) -> Table:
    "One experiment as it was measured in this process, else from the newest recording."
    live = _LIVE.get(kind)
    return table(live if experiment(live, name) else load_newest(kind), name)


def _line(row: dict, names: list) -> tuple:
    "A row of an experiment as text: case, median, quartiles, figures, target."
    low, middle, high = row["quartiles"] or (None,) * 3
    median = row["error"] and f"failed: {row['error']}" or (duration(middle) if middle is not None else "")
    around = f"{duration(low)} to {duration(high)}" if middle is not None else ""
    figures = [_number(row["figures"].get(name, "")) for name in names]
    return (row["case"], median, around, *figures, _target(row))


def _target(row: dict) -> str:
    "What was aimed at and whether it was reached; empty where nothing was."
    if not row["target"]:
        return ""
    return f"{row['target']['text']}: {'reached' if reached(row) else 'missed'}"


def reached(row: dict) -> bool:
    "Whether the figure of a row is where its target wants it; not where it is missing."
    target, figure = row["target"], row["figures"].get(row["target"]["figure"])
    return isinstance(figure, Real) and target.get("least", -math.inf) <= figure <= target.get("most", math.inf)


def duration(
    seconds: float,
) -> str:  # three digits with a unit
    "1.23e-05 -> '12.3 µs'."
    unit, factor = next((u, f) for u, f in (("s", 1), ("ms", 1e3), ("µs", 1e6)) if seconds * f >= 1 or f == 1e6)
    return f"{float(f'{seconds * factor:.3g}'):g} {unit}"


def _number(value) -> str:
    "Three digits of a number; text as it is."
    return f"{value:.3g}" if isinstance(value, Real) else str(value)


# Checking


def check_recording(
    recording: dict,  # read from a file, or just measured
) -> None:
    "Raises ValueError naming what is missing or wrong."
    _check_keys("the recording", recording, HEAD)
    date.fromisoformat(recording["date"])
    _check_keys("device", recording["device"], DEVICE)
    if recording["format"] != FORMAT:
        raise ValueError(f"format must be {FORMAT}, got {recording['format']}")
    if not {"python", "torch", "numpy"} <= set(recording["versions"]):
        raise ValueError(f"versions must name python, torch and numpy, got {sorted(recording['versions'])}")
    for one in recording["experiments"]:
        _check_keys("an experiment", one, EXPERIMENT)
        if not one["rows"] and not one["error"]:
            raise ValueError(f"{one['name']}: an experiment must have rows or an error")
        for row in one["rows"]:
            _check_row(f"{one['name']}: {row.get('case')}", row)


def _check_keys(where: str, found: dict, wanted: dict) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{where} must be a dict, got {found!r:.50}")
    if set(found) != set(wanted):
        raise ValueError(f"{where} must have the keys {', '.join(wanted)}, got {', '.join(map(str, found))}")
    for key, kind in wanted.items():
        if not isinstance(found[key], kind):
            raise ValueError(f"{where}: {key} must be of type {kind.__name__}, got {found[key]!r:.50}")


def _check_row(where: str, row: dict) -> None:
    "Samples are seconds, the quartiles are theirs, figures are finite numbers or text, the target is of a figure."
    _check_keys(where, row, ROW)
    for name, samples in {"samples": row["samples"], **row["others"]}.items():
        if not all(isinstance(s, float) and 0 <= s < math.inf for s in samples):
            raise ValueError(f"{where}: {name} must be seconds, 0 or more")
    if row["quartiles"] != quartiles(row["samples"]):
        raise ValueError(f"{where}: quartiles must be those of the samples, got {row['quartiles']}")
    for name, value in row["figures"].items():
        if not isinstance(value, str) and not (isinstance(value, Real) and math.isfinite(value)):
            raise ValueError(f"{where}: {name} must be a finite number or text, got {value!r}")
    if row["target"] and not {"figure", "text"} <= set(row["target"]):
        raise ValueError(f"{where}: target must have figure and text, got {row['target']}")


def quartiles(
    samples: list[float],  # seconds
) -> list[float]:  # first quartile, median, third quartile; empty where there are no samples
    "The quartiles, by interpolation between the samples."
    return quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else samples * 3
