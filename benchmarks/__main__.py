"""`python -m benchmarks [NAME…] [--again]`: measures what has no result for this machine, these versions, this code."""

import importlib
import json
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

import benchmarks
from benchmarks.measure import ROOT, origin
from dlopt_course.core import write_atomic

RESULTS = Path(__file__).parent / "results"
SAME = ("machine", "versions", "code")  # where these agree, a new measurement would be of the same thing
KEYS = ("title", "about", "command", "date", *SAME, "commit", "columns", "rows", "notes", "raw")


def names() -> list[str]:
    "The benchmarks: modules of this package with a `run` function."
    modules = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in ("__main__", "measure")]
    return [name for name in modules if hasattr(load(name), "run")]


def load(name: str) -> ModuleType:
    "The module of a benchmark."
    return importlib.import_module(f"benchmarks.{name}")


def origin_of(name: str) -> dict:
    "The origin of what a benchmark would measure now; its module may say which files and packages matter."
    module = load(name)
    code, packages = getattr(module, "CODE", ("dlopt_course/*.py",)), getattr(module, "PACKAGES", ("numpy", "torch"))
    return origin(name, code, packages)


def is_current(path: Path, now: dict) -> bool:
    "Whether the file of results is complete, and from the same machine, versions and code as the origin `now`."
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(key in found for key in KEYS) and all(found[key] == now[key] for key in SAME)


def measure(name: str, folder: Path = RESULTS, again: bool = False) -> bool:
    "Run one benchmark unless its result is current; whether it was run."
    path, now = folder / f"{name}.json", origin_of(name)
    if not again and is_current(path, now):
        return False
    result = now | load(name).run()
    write_atomic(path, json.dumps({key: result[key] for key in KEYS}, indent=1, ensure_ascii=False) + "\n")
    return True


def main(
    chosen: Annotated[list[str] | None, typer.Argument(metavar="NAME…", help="Which; all without a name.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure even where there is a result.")] = False,
) -> None:
    "Measure against the peers; what has been measured on this machine, with these versions and this code, is kept."
    if unknown := set(chosen or ()) - set(names()):
        raise typer.BadParameter(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    for name in chosen or names():
        done = measure(name, again=again)
        typer.echo(f"{name}: {'measured' if done else 'kept'}, {(RESULTS / name).relative_to(ROOT)}.json")


if __name__ == "__main__":
    typer.run(main)
