"""`python -m benchmarks [NAME…] [--again]`: measures what has no result yet for this machine, these versions, this code."""

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Annotated

import typer

import benchmarks
from benchmarks.measure import ROOT, origin
from dlopt_course.core import write_atomic

RESULTS = Path(__file__).parent / "results"
KEYS = ("title", "about", "command", "date", "machine", "versions", "commit", "columns", "rows", "notes", "raw")
SAME = ("machine", "versions", "commit")


def names() -> list[str]:
    "The benchmarks: modules of this package with a `run` function."
    modules = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in ("__main__", "measure")]
    return [name for name in modules if hasattr(importlib.import_module(f"benchmarks.{name}"), "run")]


def is_current(
    path: Path,  # a file of results
    now: dict,  # the origin that a new measurement would have
) -> bool:
    "Whether the file is complete and says what a new measurement would: same machine, versions and committed code."
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    known = "+changes" not in now["commit"] and now["commit"] != "unknown"  # else the code may be another one
    return known and all(k in found for k in KEYS) and all(found[k] == now[k] for k in SAME)


def measure(name: str, folder: Path = RESULTS, again: bool = False) -> bool:
    "Run one benchmark unless its result is current; whether it was run."
    path, now = folder / f"{name}.json", origin(name)
    if not again and is_current(path, now):
        return False
    result = now | importlib.import_module(f"benchmarks.{name}").run()
    write_atomic(path, json.dumps({k: result[k] for k in KEYS}, indent=1, ensure_ascii=False) + "\n")
    return True


def main(
    chosen: Annotated[list[str] | None, typer.Argument(metavar="NAME…", help="Which; all without a name.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure even where there is a result.")] = False,
) -> None:
    "Measure against the peers; what has been measured on this machine, with these versions and this code, is kept."
    if unknown := set(chosen or ()) - set(names()):
        raise typer.BadParameter(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    for name in chosen or names():
        typer.echo(f"{name}: measuring", nl=False)
        done = measure(name, again=again)
        typer.echo(f"\r{name}: {'done' if done else 'kept'}, {(RESULTS / name).relative_to(ROOT)}.json")


if __name__ == "__main__":
    typer.run(main)
