"""Reads an executed lesson for myst-nb: nbdev's `#|` directives become tags, exports and solutions are marked."""

import re
from html import escape

import nbformat
from code_links import preface
from docutils.nodes import make_id
from sphinx.util.logging import getLogger

from dlopt_course.core import CLAIM_MIME

LOGGER = getLogger(__name__)
DIRECTIVE = re.compile(r"#\s*\|\s*([\w-]+)\s*:?\s*(.*)")
EXPORTS = {"export", "exports", "exporti"}
TAGS = {
    "hide": "remove-cell",
    "include: false": "remove-cell",
    "echo: false": "remove-input",
    "output: false": "remove-output",
    "code-fold": "hide-input",
    "code-fold: true": "hide-input",
}


def read(text: str) -> nbformat.NotebookNode:
    """The notebook as the site shows it."""
    notebook = nbformat.reads(text, as_version=4)
    notebook.metadata.setdefault("language_info", {"name": "python", "pygments_lexer": "ipython3"})
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    module = exported_module(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            show_code(cell, module)
            link_claims(cell, prose)
        elif "solution" in cell.metadata.get("tags", []):
            cell.source = f"`````{{dropdown}} Solution\n{cell.source}\n`````"
    if module:
        notebook.metadata["exports"] = module
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(preface(module)))
    notebook.cells = [c for c in notebook.cells if c.source and "remove-cell" not in c.metadata.get("tags", [])]
    return notebook


def split_directives(source: str) -> tuple[dict[str, str], str]:
    """The directives at the head of a cell, and the code below them."""
    found, lines = {}, source.splitlines()
    while lines and (line := DIRECTIVE.fullmatch(lines[0].strip())):
        found[line[1]] = line[2].strip()
        del lines[0]
    return found, "\n".join(lines).strip("\n")


def exported_module(notebook: nbformat.NotebookNode) -> str | None:
    """The module that the lesson exports to."""
    heads = (split_directives(c.source)[0] for c in notebook.cells if c.cell_type == "code")
    return next((head["default_exp"] for head in heads if "default_exp" in head), None)


def show_code(cell: nbformat.NotebookNode, module: str | None) -> None:
    """Strip the directives from a code cell and note in its metadata what they ask for."""
    directives, cell.source = split_directives(cell.source)
    tags = cell.metadata.setdefault("tags", [])
    written = (f"{key}: {value}" if value else key for key, value in directives.items())
    tags += [TAGS[directive] for directive in written if directive in TAGS]
    if EXPORTS & directives.keys() and module:
        tags.append(f"exported-{module}")
    cell.metadata.setdefault("mystnb", {}).update(presentation(directives))
    if "solution" in tags:
        tags.append("hide-cell")
        cell.metadata["mystnb"] |= {"code_prompt_show": "Solution", "code_prompt_hide": "Solution"}
    if has_figure(cell) and "remove-cell" not in tags and "fig-alt" not in directives:
        LOGGER.warning("cell %s shows a figure and has no alt text: begin it with `#| fig-alt: …`", cell.id)


def presentation(directives: dict[str, str]) -> dict:
    """What myst-nb has to know about a figure or a folded cell."""
    words = {key: value.strip("\"'") for key, value in directives.items()}
    found = {"image": {"alt": words["fig-alt"]}} if "fig-alt" in words else {}
    if "fig-cap" in words:
        found["figure"] = {"caption": words["fig-cap"]}
    if "code-summary" in words:
        found |= {"code_prompt_show": words["code-summary"], "code_prompt_hide": words["code-summary"]}
    return found


def has_figure(cell: nbformat.NotebookNode) -> bool:
    """Whether a code cell made an image."""
    return any(mime.startswith("image/") for output in cell.outputs for mime in output.get("data", {}))


def link_claims(cell: nbformat.NotebookNode, prose: str) -> None:
    """Show a claim as one line that leads to its equation."""
    for output in cell.outputs:
        if claim := output.get("data", {}).pop(CLAIM_MIME, None):
            label, line = claim["label"], escape(output["data"]["text/plain"])
            if f"({label})" in prose:
                link = f'<a href="#{make_id(f"equation-{label}")}">{escape(label)}</a>'
                line = line.replace(escape(label), link, 1)
            output["data"]["text/html"] = f'<p class="claim">{line}</p>'
