"""A learner's own copy of the lessons, with the solutions taken out.

Nothing of the learner's is ever overwritten. A file counts as the learner's as soon as one byte differs from what was
written here (`.dlopt.json` remembers that), so a notebook that was only run keeps its outputs too. When such a lesson
has a newer version, that is put beside it, `01_losses.new.ipynb`, once. A file that is missing is written again: to
begin a lesson afresh, rename or delete your copy and start again.
"""

import json
import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

from rich.console import Group
from rich.text import Text

from dlopt_course import __version__
from dlopt_course.app.lessons import companion, find_lessons, lessons_folder, package, root
from dlopt_course.core import write_atomic

MANIFEST = ".dlopt.json"
ASSETS = {".csv", ".gif", ".jpg", ".json", ".npz", ".png", ".svg"}
DIRECTIVE = re.compile(r"\s*#\s*\|\s*(\S*)")
CHECK = re.compile(r"check\(\"")
OUTCOMES = {  # what happened to a file, in words
    "new": "written",
    "restored": "was missing, written again",
    "updated": "newer version written",
    "current": "up to date",
    "kept": "yours, kept",
    "beside": "yours, kept; the newer version is beside it",
    "blocked": "yours, kept; for the newer version, move the .new file away and start again",
    "retired": "no longer part of the course, kept",
}


@dataclass(frozen=True)
class Copied:
    """What happened to one file of the learner's folder."""

    name: str  # relative to the folder
    outcome: str  # a key of OUTCOMES
    beside: str | None = None  # the file that holds the newer version

    def __str__(self) -> str:
        return f"{self.name}: {OUTCOMES[self.outcome]}{f' ({self.beside})' if self.beside else ''}"


@dataclass(frozen=True)
class Report:
    """What `start` did, file by file in reading order; a rich console prints what needs a look, the rest as counts."""

    folder: Path
    files: list[Copied]

    def __rich__(self) -> Group:
        quiet = {outcome: sum(c.outcome == outcome for c in self.files) for outcome in ("new", "current")}
        counts = [f"{n} file{'s' if n > 1 else ''} {OUTCOMES[outcome]}" for outcome, n in quiet.items() if n]
        lines = [str(copied) for copied in self.files if copied.outcome not in quiet]
        head = f"{self.folder}: {', '.join(counts)}" if counts else f"{self.folder}:"
        return Group(Text(head), *(Text(f"  {line}") for line in lines))


def start(folder: Path | str) -> Report:
    """Copies the lessons and the settings to `folder` and reports what happened to each file.

    Raises ValueError for a folder that cannot be a learner's, and OSError for one that cannot be written.
    """
    folder = _checked(Path(folder).expanduser().resolve())
    contents = learners_files()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = _read_manifest(folder)
        report = [_place(folder, name, content, known) for name, content in contents.items()]
        write_atomic(folder / MANIFEST, _manifest(known))
    except OSError as e:
        raise OSError(f"{folder} cannot be written: {e.strerror or e}. Choose another folder, or make room.") from e
    retired = [n for n in known if n not in contents and not _is_beside(n) and (folder / n).exists()]
    return Report(folder, report + [Copied(name, "retired") for name in retired])


def learners_files() -> dict[str, bytes]:
    """All files of a learner's folder by relative name, in reading order: lessons, what lies beside them, settings."""
    lessons = {p.name: learners_notebook(p.read_text(encoding="utf-8")).encode() for p in find_lessons()}
    return lessons | {name: p.read_bytes() for name, p in _assets()} | {"settings.ini": _settings()}


def learners_notebook(text: str) -> str:
    """A lesson as a learner gets it: no solutions, no hidden cells, no nbdev directives, no outputs."""
    notebook = json.loads(text)
    cells = [_learners_cell(cell) for cell in notebook["cells"] if not _is_removed(cell)]
    notebook["cells"] = [cell for cell in cells if "".join(cell["source"]).strip()]
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"  # as Jupyter writes it


def _is_removed(cell: dict) -> bool:
    """Whether a cell is a solution or serves the course's tools alone."""
    directives = {found[1] for line in _header(cell) if (found := DIRECTIVE.match(line))}
    return "solution" in cell["metadata"].get("tags", []) or bool(directives & {"hide", "default_exp"})


def _learners_cell(cell: dict) -> dict:
    """The cell without outputs and without the directives above its code.

    An exercise's check may fail without stopping "Run All Cells": its answer is still to be written.
    """
    if cell["cell_type"] != "code":
        return cell
    lines = "".join(cell["source"]).splitlines(keepends=True)[len(_header(cell)) :]
    tags = cell["metadata"].get("tags", []) + ["raises-exception"] * any(CHECK.match(line) for line in lines)
    metadata = cell["metadata"] | ({"tags": tags} if tags else {})
    return cell | {"source": lines, "metadata": metadata, "outputs": [], "execution_count": None}


def _header(cell: dict) -> list[str]:
    """The directives and blank lines above a code cell's first line of code."""
    lines = "".join(cell["source"]).splitlines() if cell["cell_type"] == "code" else []
    directive = [bool(DIRECTIVE.match(line)) for line in lines]
    last = next((i for i, (d, line) in enumerate(zip(directive, lines, strict=True)) if not d and line.strip()), None)
    return lines[:last] if any(directive[:last]) else []


def _assets() -> list[tuple[str, Path]]:
    """Pictures and data that lie beside the lessons, nothing hidden."""
    home = lessons_folder()
    files = sorted(p for p in home.rglob("*") if p.is_file() and p.suffix in ASSETS)
    names = [(p.relative_to(home), p) for p in files]
    return [(name.as_posix(), p) for name, p in names if not any(part[0] in "._" for part in name.parts)]


def _settings() -> bytes:
    """The course's settings as they are shipped, comments included."""
    return companion("settings.ini").read_bytes()


def _checked(folder: Path) -> Path:
    """`folder`, if it can be a learner's."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder")
    for taken in (lessons_folder(), package()):
        if folder.is_relative_to(taken):
            raise ValueError(f"{folder} belongs to the course itself; name a folder of your own, such as my-course")
    if folder == root():
        raise ValueError(f"{folder} is the course's checkout; name a folder of your own, such as my-course")
    return folder


def _place(folder: Path, name: str, content: bytes, known: dict[str, str]) -> Copied:
    """Writes one file where that loses nothing; `known` is kept up to date."""
    found, latest = _digest(folder / name), sha256(content).hexdigest()
    if found not in (None, latest, known.get(name), known.get(_beside(name))):
        return _place_beside(folder, name, content, known)
    outcome = "current" if found == latest else "updated" if found else "restored" if name in known else "new"
    if found != latest:
        write_atomic(folder / name, content)
    known[name] = latest
    return Copied(name, outcome)


def _place_beside(folder: Path, name: str, content: bytes, known: dict[str, str]) -> Copied:
    """Keeps the learner's file and offers a version that they have not been given yet beside it."""
    beside, latest = _beside(name), sha256(content).hexdigest()
    if latest in (known.get(name), known.get(beside)):
        return Copied(name, "kept")
    if _digest(folder / beside) not in (None, latest, known.get(beside)):
        return Copied(name, "blocked")
    write_atomic(folder / beside, content)
    known[beside] = latest
    return Copied(name, "beside", beside)


def _beside(name: str) -> str:
    """Where the newer version of a file goes: 01_losses.ipynb, 01_losses.new.ipynb."""
    path = PurePosixPath(name)
    return str(path.with_suffix(f".new{path.suffix}"))


def _is_beside(name: str) -> bool:
    """Whether a name is that of a newer version."""
    return PurePosixPath(name).stem.endswith(".new")


def _digest(path: Path) -> str | None:
    """SHA-256 of a file, None where there is none; what is no file has a digest that nothing equals."""
    if not os.path.lexists(path):
        return None
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else "not a file"


def _read_manifest(folder: Path) -> dict[str, str]:
    """What was written here, by name. A damaged manifest counts as empty: then every file is the learner's."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _manifest(known: dict[str, str]) -> bytes:
    """The manifest as it is stored."""
    return (json.dumps({"version": __version__, "files": known}, indent=1, sort_keys=True) + "\n").encode()
