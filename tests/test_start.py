"""A learner's copy: nothing of theirs is lost, no solution is given away, and a wheel is enough to make one."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from dlopt_course.app import lessons, start
from dlopt_course.app.lessons import find_lessons, lessons_folder, module_of, root
from dlopt_course.core import settings


def cell(source: str, kind: str = "code", **metadata) -> dict:
    "A notebook cell as Jupyter stores it."
    made = {"cell_type": kind, "id": str(abs(hash(source)))[:8], "metadata": metadata}
    made["source"] = source.splitlines(keepends=True)
    return made | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def notebook(*cells: dict) -> str:
    "A notebook's text."
    metadata = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def write(folder: Path, name: str, *sources: str) -> None:
    "A lesson of a few code cells."
    (folder / f"{name}.ipynb").write_text(notebook(*map(cell, sources)), encoding="utf-8")


@pytest.fixture
def course(tmp_path, monkeypatch) -> Path:
    "A small course in a folder of its own, as an installed package has it."
    package = tmp_path / "site-packages" / "dlopt_course"
    (package / "lessons").mkdir(parents=True)
    (package / "settings.ini").write_text("[course]\nseed = 1\n")
    for name, module in (
        ("02_gradient_descent", "optim"),
        ("10_gpu", "gpu"),
        ("01_losses", "losses"),
        ("00_core", "core"),
    ):
        write(package / "lessons", name, f"#| default_exp {module}", "1 + 1")
    write(package / "lessons", "index", "'welcome'")
    monkeypatch.setattr(lessons.dlopt_course, "__file__", str(package / "__init__.py"))
    return package / "lessons"


def outcomes(folder: Path) -> dict[str, str]:
    "What a start did, by file."
    return {copied.name: copied.outcome for copied in start.start(folder).files}


def sources(path: Path) -> list[str]:
    "The cells of a notebook."
    return ["".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"]]


# finding lessons


def test_the_checkout_is_found_from_the_package_not_from_its_stale_copy():
    here = Path(__file__).resolve().parents[1]
    assert root() == here
    assert lessons_folder() == here / "nbs"


def test_an_installed_package_uses_the_lessons_it_carries(course):
    assert root() is None
    assert lessons_folder() == course


def test_lessons_are_in_reading_order_and_nothing_else_is_a_lesson(course):
    for stray in ("Untitled", "01_losses.new", "scratch"):
        write(course, stray, "1")
    found = [p.stem for p in find_lessons()]
    assert found == ["index", "00_core", "01_losses", "02_gradient_descent", "10_gpu"]


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["01_losses"], ["01_losses"]),
        (["01_losses.ipynb"], ["01_losses"]),
        (["nbs/01_losses.ipynb"], ["01_losses"]),
        (["1"], ["01_losses"]),
        (["01"], ["01_losses"]),
        (["losses"], ["01_losses"]),
        (["optim"], ["02_gradient_descent"]),
        (["gradient_descent"], ["02_gradient_descent"]),
        (["index"], ["index"]),
        (["10", "1", "losses"], ["01_losses", "10_gpu"]),
        (["0"], ["00_core"]),
    ],
)
def test_a_lesson_answers_to_its_name_number_title_and_module(course, names, stems):
    assert [p.stem for p in find_lessons(names)] == stems


@pytest.mark.parametrize("name", ["loss", "3", "", "LOSSES", "../secret"])
def test_an_unknown_lesson_is_an_error_that_lists_the_lessons(course, name):
    with pytest.raises(ValueError, match=r"no lesson is called .*; there are index, 00_core, 01_losses"):
        find_lessons(["losses", name])


def test_a_package_without_lessons_says_so(course):
    for lesson in course.glob("*.ipynb"):
        lesson.unlink()
    with pytest.raises(FileNotFoundError, match="no lessons in"):
        find_lessons()


def test_the_modules_of_this_course_are_known():
    assert module_of(find_lessons(["core"])[0]) == "core"


# what a learner gets


def test_solutions_hidden_cells_and_directives_are_taken_out():
    text = notebook(
        cell("# Losses", "markdown"),
        cell("#| default_exp losses"),
        cell("#|hide\nimport nbdev"),
        cell("#| export\n\ndef f():  #| not a directive\n    return 1"),
        cell("# | echo: false\n# | fig-cap: A plot\nplot()"),
        cell("# a comment\n#| export is mentioned here\n1"),
        cell("raise NotImplementedError", tags=["raises-exception"]),
        cell("<details>why</details>", "markdown", tags=["solution"]),
        cell("answer = 42", tags=["solution", "hide-input"]),
        cell("#| export"),
    )
    made = json.loads(start.learners_notebook(text))
    assert ["".join(c["source"]) for c in made["cells"]] == [
        "# Losses",
        "def f():  #| not a directive\n    return 1",
        "plot()",
        "# a comment\n#| export is mentioned here\n1",
        "raise NotImplementedError",
    ]
    assert made["cells"][-1]["metadata"]["tags"] == ["raises-exception"]
    assert made["metadata"] == json.loads(text)["metadata"]


def test_code_without_directives_is_left_as_it_is():
    text = notebook(cell("\n\nx = 1\n"), cell("#| in markdown", "markdown"))
    made = json.loads(start.learners_notebook(text))
    assert ["".join(c["source"]) for c in made["cells"]] == ["\n\nx = 1\n", "#| in markdown"]


def test_outputs_are_not_handed_on():
    shown = cell("1") | {"outputs": [{"output_type": "stream", "name": "stdout", "text": "42"}], "execution_count": 3}
    made = json.loads(start.learners_notebook(notebook(shown)))["cells"][0]
    assert made["outputs"] == []
    assert made["execution_count"] is None


def test_the_copy_is_byte_for_byte_what_jupyter_writes_on_saving():
    nbformat = pytest.importorskip("nbformat")
    for lesson in find_lessons():
        text = start.learners_notebook(lesson.read_text(encoding="utf-8"))
        assert nbformat.writes(nbformat.reads(text, as_version=4)) + "\n" == text


def test_no_solution_is_in_a_real_copy(tmp_path):
    start.start(tmp_path)
    for lesson in find_lessons():
        taken = [c for c in json.loads(lesson.read_text())["cells"] if "solution" in c["metadata"].get("tags", [])]
        copied = "\n".join(sources(tmp_path / lesson.name))
        assert not any("".join(c["source"]) in copied for c in taken)
        assert "#| " not in copied


def test_every_code_cell_of_a_real_copy_compiles(tmp_path):
    from IPython.core.inputtransformer2 import TransformerManager

    start.start(tmp_path)
    for lesson in tmp_path.glob("*.ipynb"):
        for c in json.loads(lesson.read_text(encoding="utf-8"))["cells"]:
            if c["cell_type"] == "code":
                compile(TransformerManager().transform_cell("".join(c["source"])), lesson.name, "exec", 1 << 13)


def test_pictures_come_along_and_everything_hidden_stays(course, tmp_path):
    for name in ("images/a.png", ".ipynb_checkpoints/b.png", "_proc/c.png", "llms.txt", "helper.py"):
        (course / name).parent.mkdir(exist_ok=True)
        (course / name).write_bytes(b"x")
    start.start(tmp_path / "mine")
    found = {p.relative_to(tmp_path / "mine").as_posix() for p in (tmp_path / "mine").rglob("*") if p.is_file()}
    numbered = {"00_core", "01_losses", "02_gradient_descent", "10_gpu", "index"}
    assert found == {f"{n}.ipynb" for n in numbered} | {"images/a.png", "settings.ini", ".dlopt.json"}


# starting again


def test_a_second_start_changes_nothing(course, tmp_path):
    assert set(outcomes(tmp_path / "mine").values()) == {"new"}
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "mine").glob("*.i*")}
    assert set(outcomes(tmp_path / "mine").values()) == {"current"}
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before}


def test_a_newer_lesson_replaces_an_untouched_copy(course, tmp_path):
    outcomes(tmp_path)
    write(course, "01_losses", "2 + 2")
    assert outcomes(tmp_path)["01_losses.ipynb"] == "updated"
    assert sources(tmp_path / "01_losses.ipynb") == ["2 + 2"]


def test_a_changed_copy_is_kept_and_the_newer_lesson_put_beside_it_once(course, tmp_path):
    outcomes(tmp_path)
    mine = tmp_path / "01_losses.ipynb"
    mine.write_text("mine")
    assert outcomes(tmp_path)["01_losses.ipynb"] == "kept"
    write(course, "01_losses", "2 + 2")
    assert outcomes(tmp_path)["01_losses.ipynb"] == "beside"
    assert mine.read_text() == "mine"
    beside = tmp_path / "01_losses.new.ipynb"
    assert sources(beside) == ["2 + 2"]
    beside.unlink()  # not wanted: it does not come back
    assert outcomes(tmp_path)["01_losses.ipynb"] == "kept"
    assert not beside.exists()


def test_a_notebook_that_was_only_run_keeps_its_outputs(course, tmp_path):
    outcomes(tmp_path)
    mine = tmp_path / "01_losses.ipynb"
    ran = json.loads(mine.read_text())
    ran["cells"][0]["execution_count"] = 1
    mine.write_text(json.dumps(ran))
    write(course, "01_losses", "2 + 2")
    assert outcomes(tmp_path)["01_losses.ipynb"] == "beside"
    assert json.loads(mine.read_text()) == ran


def test_the_newer_lesson_may_take_the_place_of_the_old_one(course, tmp_path):
    outcomes(tmp_path)
    (tmp_path / "01_losses.ipynb").write_text("mine")
    write(course, "01_losses", "2 + 2")
    outcomes(tmp_path)
    os.replace(tmp_path / "01_losses.new.ipynb", tmp_path / "01_losses.ipynb")
    write(course, "01_losses", "3 + 3")  # the second newer version finds an untouched first one
    assert outcomes(tmp_path)["01_losses.ipynb"] == "updated"
    assert sources(tmp_path / "01_losses.ipynb") == ["3 + 3"]


def test_a_newer_version_beside_is_replaced_only_while_untouched(course, tmp_path):
    outcomes(tmp_path)
    (tmp_path / "01_losses.ipynb").write_text("mine")
    for source in ("2 + 2", "3 + 3"):
        write(course, "01_losses", source)
        assert outcomes(tmp_path)["01_losses.ipynb"] == "beside"
    beside = tmp_path / "01_losses.new.ipynb"
    assert sources(beside) == ["3 + 3"]
    beside.write_text("mine too")
    write(course, "01_losses", "4 + 4")
    assert outcomes(tmp_path)["01_losses.ipynb"] == "blocked"
    assert beside.read_text() == "mine too"


def test_a_lesson_that_is_missing_is_written_again(course, tmp_path):
    outcomes(tmp_path)
    (tmp_path / "01_losses.ipynb").rename(tmp_path / "my losses.ipynb")
    found = outcomes(tmp_path)
    assert found["01_losses.ipynb"] == "restored"
    assert found["00_core.ipynb"] == "current"


def test_files_of_others_are_never_overwritten(course, tmp_path):
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "01_losses.ipynb").write_text("somebody's")
    (tmp_path / "settings.ini").write_text("[other]\n")
    found = outcomes(tmp_path)
    assert found["01_losses.ipynb"] == found["settings.ini"] == "beside"
    assert found["00_core.ipynb"] == "new"
    contents = [(tmp_path / n).read_text() for n in ("notes.txt", "01_losses.ipynb", "settings.ini")]
    assert contents == ["notes", "somebody's", "[other]\n"]
    assert (tmp_path / "settings.new.ini").exists()


def test_a_folder_in_a_lessons_place_is_left_alone(course, tmp_path):
    (tmp_path / "01_losses.ipynb").mkdir()
    assert outcomes(tmp_path)["01_losses.ipynb"] == "beside"
    assert (tmp_path / "01_losses.ipynb").is_dir()


def test_a_link_to_a_file_that_is_gone_is_left_alone(course, tmp_path):
    (tmp_path / "01_losses.ipynb").symlink_to(tmp_path / "elsewhere.ipynb")
    assert outcomes(tmp_path)["01_losses.ipynb"] == "beside"
    assert (tmp_path / "01_losses.ipynb").is_symlink()


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"files": 3}', '{"files": null}', "\xff"])
def test_without_its_manifest_every_changed_file_is_the_learners(course, tmp_path, damaged):
    outcomes(tmp_path)
    (tmp_path / "01_losses.ipynb").write_text("mine")
    (tmp_path / start.MANIFEST).write_text(damaged, encoding="latin-1")
    write(course, "00_core", "2 + 2")
    found = outcomes(tmp_path)
    assert found["00_core.ipynb"] == found["01_losses.ipynb"] == "beside"
    assert found["10_gpu.ipynb"] == "current"
    assert (tmp_path / "01_losses.ipynb").read_text() == "mine"


def test_a_lesson_that_left_the_course_is_kept_and_told(course, tmp_path):
    outcomes(tmp_path)
    (course / "10_gpu.ipynb").unlink()
    assert outcomes(tmp_path)["10_gpu.ipynb"] == "retired"
    assert (tmp_path / "10_gpu.ipynb").exists()


def test_an_interrupted_start_goes_on(course, tmp_path, monkeypatch):
    real, calls = start.write_atomic, []

    def full_after_two(path, data):
        calls.append(path)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(start, "write_atomic", full_after_two)
    with pytest.raises(OSError, match="cannot be written: No space left on device.*make room"):
        start.start(tmp_path / "mine")
    monkeypatch.setattr(start, "write_atomic", real)
    assert sorted(outcomes(tmp_path / "mine").values()) == ["current"] * 2 + ["new"] * 4
    assert not [p for p in (tmp_path / "mine").iterdir() if p.suffix not in (".ipynb", ".ini", ".json")]


# folders that cannot be a learner's


def test_a_file_in_the_folders_place_is_an_error(tmp_path):
    (tmp_path / "mine").write_text("a file")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        start.start(tmp_path / "mine")
    with pytest.raises(OSError, match="cannot be written: Not a directory"):
        start.start(tmp_path / "mine" / "inner")


def test_the_courses_own_folders_are_refused():
    before = sorted(root().iterdir())
    for folder in (lessons_folder(), lessons_folder() / "mine", lessons.package() / "mine", root()):
        with pytest.raises(ValueError, match="name a folder of your own"):
            start.start(folder)
    assert sorted(root().iterdir()) == before


def test_a_folder_that_cannot_be_written_is_a_clear_error(course, tmp_path, monkeypatch):
    def refuse(path, data):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(start, "write_atomic", refuse)
    with pytest.raises(OSError, match="mine cannot be written: Permission denied. Choose another folder"):
        start.start(tmp_path / "mine")


# the report


def test_the_report_names_what_needs_a_look_and_counts_the_rest(course, tmp_path):
    start.start(tmp_path)
    (tmp_path / "01_losses.ipynb").write_text("mine")
    write(course, "01_losses", "2 + 2")
    console = Console(file=io.StringIO(), width=200)
    console.print(start.start(tmp_path))
    shown = console.file.getvalue()
    assert "5 files up to date" in shown
    assert "01_losses.ipynb: yours, kept; the newer version is beside it (01_losses.new.ipynb)" in shown
    assert len(shown.splitlines()) == 2


def test_every_outcome_has_its_words(course, tmp_path):
    assert all(str(start.Copied("a", outcome)) == f"a: {words}" for outcome, words in start.OUTCOMES.items())


# from a wheel

from_wheel = pytest.mark.xdist_group("wheel")  # one worker builds it, once


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    "The package installed from a wheel into a folder of its own."
    made, target = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("target")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(made)]
    subprocess.run(build, cwd=root(), check=True, capture_output=True, timeout=120)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, *map(str, made.glob("*.whl"))], check=True, capture_output=True, timeout=120)
    return target


def run_installed(installed: Path, cwd: Path, code: str) -> str:
    "What a program prints that imports the installed package, away from the checkout."
    env = {k: v for k, v in os.environ.items() if not k.startswith("DLOPT_")} | {"PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@from_wheel
def test_an_installed_wheel_starts_a_learners_folder(installed, tmp_path):
    run_installed(installed, tmp_path, "from dlopt_course.app.start import start; start('mine')")
    copied = sorted((tmp_path / "mine").glob("*.ipynb"))
    assert [p.name for p in copied] == sorted(p.name for p in find_lessons())
    tags = [c["metadata"].get("tags", []) for p in copied for c in json.loads(p.read_text())["cells"]]
    assert not any("solution" in t for t in tags)
    assert (tmp_path / "mine" / "settings.ini").read_bytes() == (root() / "settings.ini").read_bytes()
    assert settings(tmp_path / "mine").data_folder == tmp_path / "mine" / "data"


@from_wheel
def test_an_installed_wheel_uses_its_own_files(installed, tmp_path):
    code = """
from dlopt_course.app import lessons
from dlopt_course.core import settings
print(lessons.root(), lessons.lessons_folder(), sep='\\n')
print(lessons.companion('constraints.txt').is_file(), settings('.').data_folder, sep='\\n')
"""
    printed = run_installed(installed, tmp_path, code).splitlines()
    assert printed == ["None", str(installed / "dlopt_course" / "lessons"), "True", str(tmp_path / "data")]


@from_wheel
def test_a_learners_copy_runs_without_a_checkout(installed, tmp_path):
    run_installed(installed, tmp_path, "from dlopt_course.app.start import start; start('.')")
    code = """
import sys, nbclient, nbformat
notebook = nbformat.read('00_core.ipynb', 4)
notebook.cells.append(nbformat.v4.new_code_cell("import dlopt_course; print(dlopt_course.__file__)"))
nbclient.NotebookClient(notebook, timeout=100, kernel_name='python3').execute()
print(notebook.cells[-1].outputs[0].text)
"""
    assert run_installed(installed, tmp_path, code).strip().startswith(str(installed))


@from_wheel
def test_an_installed_wheel_can_be_examined(installed, tmp_path):
    code = """
from dlopt_course.app.doctor import examine, exit_status
findings = examine()
print(exit_status(findings), [f.name for f in findings if f.name in ('torch', 'lessons', 'browser')])
"""
    assert run_installed(installed, tmp_path, code) == "0 ['torch', 'lessons']\n"
