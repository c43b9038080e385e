"""Reading the lessons as the tests need them."""

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
LABEL = re.compile(r"^.*\$\$\s*\(([\w-]+)\)\s*$", re.MULTILINE)


def read(path: Path) -> nbformat.NotebookNode:
    "A notebook, of the lessons or as it was run."
    return nbformat.read(path, 4)


def labels(notebook: nbformat.NotebookNode) -> list[str]:
    "Labels of the displayed equations, as in `$$ … $$ (label)`."
    return [label for c in notebook.cells if c.cell_type == "markdown" for label in LABEL.findall(c.source)]


def tagged(notebook: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    "The cells that carry a tag, in order."
    return [c for c in notebook.cells if tag in c.metadata.get("tags", [])]


def source(notebook: nbformat.NotebookNode, name: str) -> str:
    "The source of the cell with that id."
    return next(c.source for c in notebook.cells if c.id == name)
