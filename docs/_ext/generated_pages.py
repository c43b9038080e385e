"""Writes the pages that are made from data: the learning path, the reference, the ledger and the benchmarks.

Everything happens in the assembled source folder, before Sphinx looks for documents.
"""

import importlib
import inspect
import json
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
from docments_hook import as_rst
from docutils.nodes import make_id
from nbdev_reader import exported_module
from sphinx.errors import ExtensionError

EQUATION = re.compile(r"\$\$\s*\(([\w:-]+)\)|^:label:\s*(\S+)", re.MULTILINE)
TARGET = re.compile(r"^\(([\w:-]+)\)=", re.MULTILINE)
REFERENCE = ["api/index", "claims", "benchmarks", "conventions", "distributed", "changelog"]


def setup(app):
    """Called by Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}


@dataclass(frozen=True)
class Lesson:
    """What the pages say about a lesson."""

    name: str
    title: str
    summary: str
    module: str | None
    seconds: float | None
    prose: str

    @property
    def number(self) -> int:
        """1 for 01_losses; 0 for the tools that lessons use."""
        return int(self.name.split("_")[0])


def write_pages(app) -> None:
    """Write every generated page."""
    source = Path(app.srcdir)
    lessons = [read_lesson(p) for p in sorted(source.glob("[0-9]*_*.ipynb"))]
    claims = json.loads((source / "_data/claims.json").read_text(encoding="utf-8"))
    benchmarks = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(source.glob("_data/benchmarks/*.json"))]
    write_index(source / "index.ipynb", lessons, claims)
    (source / "claims.md").write_text(claims_page(lessons, claims), encoding="utf-8")
    (source / "benchmarks.md").write_text(benchmarks_page(benchmarks), encoding="utf-8")
    write_reference(source / "api", lessons)
    (source / "_static/exported.css").write_text(exported_css(lessons), encoding="utf-8")


def read_lesson(path: Path) -> Lesson:
    """Title, summary (the quotation under the title), module and measured time of a lesson."""
    notebook = nbformat.read(path, 4)
    prose = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    title = re.search(r"^# +(.+)", prose, re.MULTILINE)
    summary = re.search(r"(?:^> ?.*\n?)+", prose, re.MULTILINE)
    return Lesson(
        name=path.stem,
        title=title[1].strip() if title else path.stem,
        summary=" ".join(re.sub(r"^> ?", "", summary[0], flags=re.MULTILINE).split()) if summary else "",
        module=exported_module(notebook),
        seconds=notebook.metadata.get("dlopt", {}).get("seconds"),
        prose=prose,
    )


# The front page


def write_index(path: Path, lessons: list[Lesson], claims: list[dict]) -> None:
    """Put the learning path where the front page asks for it, and the table of contents at its end."""
    front = nbformat.read(path, 4)
    for cell in front.cells:
        cell.source = cell.source.replace("<!-- lessons -->", cards([x for x in lessons if x.number], claims))
        cell.source = cell.source.replace("<!-- tools -->", cards([x for x in lessons if not x.number], claims))
    front.cells.append(nbformat.v4.new_markdown_cell(contents(lessons)))
    nbformat.write(front, path)


def contents(lessons: list[Lesson]) -> str:
    """The site's table of contents. Only lessons are numbered, so that chapter 1 is the notebook 01."""
    parts = {
        "Lessons": [x.name for x in lessons if x.number],
        "Tools": [x.name for x in lessons if not x.number],
        "Reference": REFERENCE,
    }
    trees = []
    for caption, documents in parts.items():
        numbered = ":numbered: 1\n" if caption == "Lessons" else ""
        if documents:
            trees.append("\n".join([f"```{{toctree}}\n:hidden:\n:caption: {caption}\n{numbered}", *documents, "```"]))
    return "\n\n".join(trees)


def cards(lessons: list[Lesson], claims: list[dict]) -> str:
    """One card for each lesson."""
    grid = [":::::{grid} 1 1 2 2", ":gutter: 3", ":class-container: path", ""]
    for x in lessons:
        count = sum(c["lesson"] == x.name and c["against"] != "internal" for c in claims)
        facts = [f"{count} claim{'s' * (count > 1)}" * bool(count), f"runs in {x.seconds:.0f} s" if x.seconds else ""]
        number = f"{x.number} · " if x.number else ""
        grid += [f"::::{{grid-item-card}} {number}{x.title}", f":link: {x.name}", ":link-type: doc", "", x.summary, ""]
        grid += [":::{card-footer}", " · ".join(filter(None, facts)), ":::", "::::"]
    return "\n".join([*grid, ":::::"])


def exported_css(lessons: list[Lesson]) -> str:
    """The discreet mark on the cells that become the library."""
    rule = '.tag_exported-{0} > .cell_input::before {{ content: "dlopt_course.{0}"; }}\n'
    return "".join(rule.format(x.module) for x in lessons if x.module)


# The ledger


def claims_page(lessons: list[Lesson], claims: list[dict]) -> str:
    """The ledger as a table."""
    places = labels(lessons)
    if orphans := sorted({f"{c['lesson']}: {c['label']}" for c in claims if c["label"] not in places}):
        raise ExtensionError(f"claims whose label no equation has: {', '.join(orphans)}")
    titles = {x.name: x.title.split(":")[0] for x in lessons}
    counted = sum(c["against"] != "internal" for c in claims)
    head = ["Lesson", "Result", "Against", "Largest absolute", "Largest relative", "Tolerance"]
    lines = table(head, [claim_row(c, places[c["label"]], titles) for c in claims])
    text = (Path(__file__).parents[1] / "_snippets/claims.md").read_text(encoding="utf-8")
    return text.format(counted=counted, internal=len(claims) - counted, table="\n".join(lines))


def labels(lessons: list[Lesson]) -> dict[str, tuple[str, bool]]:
    """Where each label is, and whether it is an equation's."""
    found = {label: (x.name, False) for x in lessons for label in TARGET.findall(x.prose)}
    return found | {a or b: (x.name, True) for x in lessons for a, b in EQUATION.findall(x.prose)}


def claim_row(claim: dict, place: tuple[str, bool], titles: dict[str, str]) -> list[str]:
    """One row of the ledger."""
    against = "internal, not counted" if claim["against"] == "internal" else claim["against"]
    numbers = [scientific(claim["max_abs"]), scientific(claim["max_rel"])]
    if claim["kind"] == "bound":
        numbers = [f"value {claim['max_abs']:.4g}", "–"]
    lesson = f"[{titles[claim['lesson']]}]({claim['lesson']}.ipynb)"
    return [lesson, result_link(claim["label"], *place), plain(against), *numbers, plain(claim["tolerance"])]


def result_link(label: str, document: str, is_equation: bool) -> str:
    """The number and the name of a result, both links to it."""
    if not is_equation:
        return f"[{label}](#{label})"
    anchor = make_id(f"equation-{label}")
    return f'{{eq}}`{label}` <a href="{document}.html#{anchor}">{label}</a>'


def scientific(value: float | None) -> str:
    """A difference in two digits."""
    return "–" if value is None else f"{value:.1e}" if value else "0"


# The benchmarks


def benchmarks_page(benchmarks: list[dict]) -> str:
    """Every recorded benchmark with its origin."""
    head = (Path(__file__).parents[1] / "_snippets/benchmarks.md").read_text(encoding="utf-8")
    none = "No benchmark has been recorded yet: `make bench` runs them."
    return "\n\n".join([head.strip(), *map(benchmark, benchmarks)] if benchmarks else [head.strip(), none]) + "\n"


def benchmark(b: dict) -> str:
    """One benchmark: what it is about, its table, its notes and where the numbers come from."""
    versions = ", ".join(f"{name} {version}" for name, version in b["versions"].items())
    origin = f"`{b['command']}`, {b['date']}, {plain(b['machine'])}; {versions}; commit {b['commit']}"
    notes = [f"- {note}" for note in b.get("notes", [])]
    rows = [[plain(cell) for cell in row] for row in b["rows"]]
    head = [plain(c) for c in b["columns"]]
    lines = [f"## {b['title']}", "", b["about"], "", "{.benchmark}", *table(head, rows), "", *notes]
    return "\n".join([*lines, "", "{.origin}", origin])


# The reference


def write_reference(folder: Path, lessons: list[Lesson]) -> None:
    """One page for each module, in the order of the lessons, and an index."""
    folder.mkdir(exist_ok=True)
    modules = [x for x in [*filter(lambda x: x.number, lessons), *filter(lambda x: not x.number, lessons)] if x.module]
    index = (Path(__file__).parents[1] / "_snippets/api.md").read_text(encoding="utf-8")
    rows = [[f"[{x.module}]({x.module}.rst)", *module_facts(x)] for x in modules]
    tree = "\n".join(["```{toctree}", ":hidden:", "", *(x.module for x in modules), "```"]) if modules else ""
    lines = "\n".join(table(["Module", "What it has", "Lesson"], rows))
    (folder / "index.md").write_text(f"{index}\n{lines}\n\n{tree}\n", encoding="utf-8")
    for x in modules:
        (folder / f"{x.module}.rst").write_text(module_page(x), encoding="utf-8")


def module_facts(lesson: Lesson) -> list[str]:
    """What a module is about, and its lesson."""
    module = importlib.import_module(f"dlopt_course.{lesson.module}")
    return [plain(first_line(module)), f"[{lesson.title.split(':')[0]}](../{lesson.name}.ipynb)"]


def module_page(lesson: Lesson) -> str:
    """The reference of one module: a list of its public names, then an entry for each."""
    name = f"dlopt_course.{lesson.module}"
    module = importlib.import_module(name)
    public = list(module.__all__)
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", "", f"Derived in :doc:`/{lesson.name}`.", ""]
    lines += [".. list-table::", "   :class: names", "   :widths: auto", ""]
    for member in public:
        lines += [f"   * - :py:obj:`{member}`", f"     - {as_rst(first_line(getattr(module, member)))}"]
    entries = [line for member in public for line in entry(name, member, getattr(module, member))]
    return "\n".join([*lines, "", *entries, ""])


def entry(module: str, name: str, obj) -> list[str]:
    """The autodoc directive for a public name."""
    if inspect.isclass(obj):
        kind = "exception" if issubclass(obj, BaseException) else "class"
        methods = [m for m, v in vars(obj).items() if not m.startswith("_") and is_method(v)]
        own = [f"   :members: {', '.join(methods)}"] if methods else []
        return [f".. auto{kind}:: {module}.{name}", *own, ""]
    return [f".. auto{'function' if inspect.isroutine(obj) else 'data'}:: {module}.{name}", ""]


def is_method(value) -> bool:
    """Whether a class's attribute is something to call or to compute, not a field."""
    return inspect.isfunction(value) or isinstance(value, (property, classmethod, staticmethod))


def first_line(obj) -> str:
    """The first line of an object's own docstring; for a constant, its value."""
    if not (inspect.ismodule(obj) or inspect.isclass(obj) or inspect.isroutine(obj)):
        return repr(obj) if len(repr(obj)) < 60 else type(obj).__name__
    return (inspect.getdoc(obj) or "").split("\n")[0]


# Markdown


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]


def plain(cell) -> str:
    """A value as text of a table cell: no character of it is markup, but for `code`."""
    parts = re.split(r"(`[^`]+`)", str(cell))
    return "".join(p if i % 2 else re.sub(r"([\\|*_<>\[\]#${}])", r"\\\1", p) for i, p in enumerate(parts))
