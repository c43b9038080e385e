"""The rules of the house, held against every lesson, module and test."""

import ast
import json
import re
import shutil
import subprocess
import sys
from inspect import Parameter, signature
from pathlib import Path

import pytest
from fastcore.docments import docments
from lessons import NOTEBOOKS, ROOT, labels, read

import dlopt_course

MODULES = [p for p in sorted((ROOT / "dlopt_course").glob("*.py")) if not p.name.startswith("_")]
PROGRAM = sorted(p for folder in ("dlopt_course", "tests", "benchmarks", "docs") for p in (ROOT / folder).rglob("*.py"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
each_module = pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)


def ledger(lesson: str) -> list[dict]:
    "The rows that a lesson has in the ledger."
    rows = json.loads((ROOT / "_build/claims.json").read_text(encoding="utf-8"))
    return [r for r in rows if r["lesson"] == lesson]


@each_notebook
def test_every_label_has_a_claim_and_every_claim_a_label(path, executed):
    of_equations, of_claims = labels(read(path)), {r["label"] for r in ledger(path.stem)}
    assert len(set(of_equations)) == len(of_equations), "a label stands twice"
    assert set(of_equations) == of_claims


def test_labels_are_unique_across_lessons():
    found = [label for p in NOTEBOOKS for label in labels(read(p))]
    assert len(found) == len(set(found)) > 15


def test_every_result_has_a_reference_of_somebody_else(executed):
    rows = [r for p in NOTEBOOKS for r in ledger(p.stem)]
    outside = {r["label"] for r in rows if r["against"] != "internal"}
    assert {r["label"] for r in rows} == outside
    assert not [r for r in rows if "dlopt" in r["against"]]


@each_notebook
def test_committed_without_outputs(path):
    assert not [c.id for c in read(path).cells if c.cell_type == "code" and (c.outputs or c.execution_count)]


@each_notebook
def test_cells_have_readable_ids_that_stay(path):
    assert not [c.id for c in read(path).cells if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", c.id)]


@each_notebook
def test_opens_with_a_title_and_one_sentence(path):
    assert re.match(r"# .+\n\n> .+", read(path).cells[0].source)


@each_notebook
def test_every_picture_has_alt_text_and_a_message(path, executed):
    cells = read(executed / path.name).cells
    for number, cell in enumerate(cells):
        if cell.cell_type == "code" and any("image/png" in o.get("data", {}) for o in cell.outputs):
            assert re.search(r"^#\| fig-alt: .{40,}", cell.source, re.MULTILINE), f"{cell.id}: no alt text"
            after = cells[number + 1]
            assert after.cell_type == "markdown", f"{cell.id}: no message under the plot"
            assert "**" in after.source, f"{after.id}: the message of the plot should be one bold sentence"


@each_notebook
def test_labelled_axes(path):
    for cell in read(path).cells:
        if cell.cell_type == "code" and "plt.subplots" in cell.source and "imshow" not in cell.source:
            assert "xlabel" in cell.source, cell.id
            assert "ylabel" in cell.source, cell.id


def generated(folder: Path) -> dict[str, str]:
    "The modules that nbdev writes, by name."
    written = (p for p in folder.glob("*.py") if p.name != "__init__.py")
    return {p.name: p.read_text(encoding="utf-8") for p in written}


def test_modules_are_what_the_notebooks_export(tmp_path):
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (tmp_path / "dlopt_course").mkdir()
    for name in ("pyproject.toml", "README.md", "dlopt_course/__init__.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    for command in ("nbdev-export", "nbdev-clean"):
        subprocess.run([Path(sys.executable).with_name(command)], cwd=tmp_path, check=True, capture_output=True)
    assert generated(tmp_path / "dlopt_course") == generated(ROOT / "dlopt_course")
    for path in NOTEBOOKS:
        assert (tmp_path / "nbs" / path.name).read_text() == path.read_text(), f"{path.name}: run nbdev-clean"


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def functions(path: Path) -> list[ast.FunctionDef]:
    "Every function and method of a file."
    return [f for f in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(f, ast.FunctionDef)]


def body_lines(function: ast.FunctionDef) -> int:
    "Lines of a function's body without its docstring."
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", [p for p in PROGRAM if "dlopt_course" in p.parts], ids=lambda p: p.stem)
def test_functions_are_short_enough_to_hold_in_the_eye(path):
    kernels = [f.name for f in functions(path) if any("njit" in ast.unparse(d) for d in f.decorator_list)]
    assert not [f"{f.name}: {body_lines(f)}" for f in functions(path) if body_lines(f) > 15 and f.name not in kernels]


@each_module
def test_public_functions_say_what_they_take_and_return(path):
    module = __import__(f"dlopt_course.{path.stem}", fromlist=["*"])
    for name in module.__all__:
        thing = getattr(module, name)
        if getattr(thing, "__module__", None) != module.__name__ or not callable(thing):
            continue  # a constant
        assert thing.__doc__, f"{name} has no docstring"
        assert len(thing.__doc__.strip().splitlines()) <= 4, f"{name}: at most four lines"
        if not isinstance(thing, type):
            single = [k for k, p in signature(thing).parameters.items() if p.kind is not Parameter.VAR_KEYWORD]
            silent = [k for k, v in docments(thing).items() if not v and k in single]
            assert not silent, f"{name}: say what {silent} mean"


def test_no_star_imports():
    assert not [p for p in PROGRAM if re.search(r"^from .* import \*", p.read_text(encoding="utf-8"), re.MULTILINE)]


def test_version_is_in_the_changelog():
    assert f"## {dlopt_course.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
