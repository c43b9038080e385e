"""Where the lessons are, and which of them a name means."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import dlopt_course

NUMBERED = re.compile(r"(\d+)_(\w+)")
DEFAULT_EXP = re.compile(r"^\s*#\s*\|\s*default_exp\s+(\S+)", re.MULTILINE)


def package() -> Path:
    """The folder of the imported package: in a checkout or in an installed wheel."""
    return Path(dlopt_course.__file__).resolve().parent


def root() -> Path | None:
    """The checkout's folder, or None where the package is installed from a wheel."""
    checkout = package().parent
    return checkout if (checkout / "nbs").is_dir() and (checkout / "pyproject.toml").is_file() else None


def lessons_folder() -> Path:
    """The checkout's nbs, else the lessons that the wheel carries."""
    checkout = root()
    return checkout / "nbs" if checkout else package() / "lessons"


def companion(name: str) -> Path:
    """A file of the checkout that the wheel carries beside its modules: settings.ini or constraints.txt."""
    return (root() or package()) / name


def find_lessons(names: Iterable[str] = ()) -> list[Path]:
    """The lessons in reading order: all of them, or those that a file name, number, title or module selects.

    Raises ValueError for a name that no lesson has, and FileNotFoundError where there are no lessons at all.
    """
    lessons = lessons_in(lessons_folder())
    if not lessons:
        raise FileNotFoundError(f"no lessons in {lessons_folder()}: install the package again")
    if not (wanted := [str(name) for name in names]):
        return lessons
    known = {lesson: _names(lesson) for lesson in lessons}
    for name in wanted:
        if not any(_plain(name) in answers for answers in known.values()):
            raise ValueError(f"no lesson is called {name!r}; there are {', '.join(p.stem for p in lessons)}")
    return [p for p, answers in known.items() if answers & {_plain(name) for name in wanted}]


def lessons_in(folder: Path) -> list[Path]:
    """All lessons of a folder in reading order."""
    return sorted((p for p in folder.glob("*.ipynb") if _is_lesson(p.stem)), key=_reading_order)


def _is_lesson(stem: str) -> bool:
    """Whether a notebook is a lesson, rather than something that was left beside them."""
    return stem == "index" or NUMBERED.fullmatch(stem) is not None


def _reading_order(lesson: Path) -> tuple[int, str]:
    """The index first, then by number, then by name."""
    numbered = NUMBERED.fullmatch(lesson.stem)
    return (int(numbered[1]) if numbered else -1, lesson.stem)


def _plain(name: str) -> str:
    """A name as it is looked up: without folder, ending and leading zeros."""
    stem = re.split(r"[/\\]", name.strip())[-1].removesuffix(".ipynb")
    return str(int(stem)) if stem.isdecimal() else stem


def _names(lesson: Path) -> set[str]:
    """Everything that a lesson answers to: its file's name, number and title, and the module that it exports."""
    numbered = NUMBERED.fullmatch(lesson.stem)
    names = {lesson.stem, *((str(int(numbered[1])), numbered[2]) if numbered else ())}
    return names | ({module} if (module := module_of(lesson)) else set())


def module_of(lesson: Path) -> str | None:
    """The module that a lesson exports to, None where it exports nothing."""
    cells = json.loads(lesson.read_text(encoding="utf-8"))["cells"]
    sources = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return next((found[1] for source in sources if (found := DEFAULT_EXP.search(source))), None)
