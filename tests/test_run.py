"""Running lessons: what is kept, what is run again, what happens when one fails or is stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from lessons import ROOT

CLAIM = 'from dlopt_course.core import claim\nclaim("{0}", 2.0, 2.0, against="closed form")'


@pytest.fixture
def checkout(tmp_path) -> Path:
    "A small course: the package, its settings, and two lessons."
    for name in ("dlopt_course", "pyproject.toml", "settings.ini", "constraints.txt"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    write(tmp_path, "01_first", "x = 1", CLAIM.format("first"))
    write(tmp_path, "02_second", CLAIM.format("second"), "x = 3")
    return tmp_path


def write(checkout: Path, name: str, *cells: str, tags: tuple = ()) -> None:
    "A lesson of code cells below a title."
    code = [nbformat.v4.new_code_cell(c, id=f"cell-{i}", metadata={"tags": list(tags)}) for i, c in enumerate(cells)]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title", id="title"), *code])
    (checkout / "nbs").mkdir(exist_ok=True)
    nbformat.write(notebook, checkout / "nbs" / f"{name}.ipynb")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "dlopt_course.app.cli", *words]


def environment(checkout: Path, **more: str) -> dict[str, str]:
    quiet = {"COLUMNS": "200", "NO_COLOR": "1", "DLOPT_DEVICE": "cpu"}  # cpu: no need to load torch
    return os.environ | {"PYTHONPATH": str(checkout)} | quiet | more


def dlopt(checkout: Path, *words: str, **more: str) -> subprocess.CompletedProcess:
    env = environment(checkout, **more)
    return subprocess.run(command(*words), cwd=checkout, env=env, capture_output=True, text=True)


def executed(checkout: Path) -> list[str]:
    return sorted(p.name for p in (checkout / "_build/executed").iterdir())


def test_run_shows_progress_and_ends_with_a_table(checkout):
    done = dlopt(checkout, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "01_first: cell 1 of 2, 0 s" in lines
    assert [line.split()[0] for line in lines[-3:]] == ["lesson", "01_first", "02_second"]
    assert [line.split()[2:] for line in lines[-2:]] == [["1", "0.0e+00"]] * 2
    assert executed(checkout) == ["01_first.ipynb", "02_second.ipynb"]
    ledger = json.loads((checkout / "_build/claims.json").read_text())
    rows = [(r["lesson"], r["label"], r["max_rel"]) for r in ledger]
    assert rows == [("01_first", "first", 0), ("02_second", "second", 0)]


def remarks(done: subprocess.CompletedProcess) -> list[str]:
    "What the table says about each lesson."
    return ["unchanged" if line.endswith("unchanged") else "run" for line in done.stdout.splitlines()[-2:]]


def test_only_what_has_changed_is_run_again(checkout):
    dlopt(checkout, "run")
    before = (checkout / "_build/executed/01_first.ipynb").stat().st_mtime_ns
    assert remarks(dlopt(checkout, "run")) == ["unchanged", "unchanged"]
    write(checkout, "02_second", CLAIM.format("other"), "x = 3")
    assert remarks(dlopt(checkout, "run")) == ["unchanged", "run"]
    assert (checkout / "_build/executed/01_first.ipynb").stat().st_mtime_ns == before
    assert remarks(dlopt(checkout, "run", DLOPT_SEED="1")) == ["run", "run"]
    with (checkout / "dlopt_course/core.py").open("a") as module:
        module.write("\n# a change\n")
    assert remarks(dlopt(checkout, "run", DLOPT_SEED="1")) == ["run", "run"]


def test_new_prose_is_taken_over_without_running(checkout):
    dlopt(checkout, "run")
    path = checkout / "nbs/01_first.ipynb"
    path.write_text(path.read_text().replace("# Title", "# Better title"))
    assert remarks(dlopt(checkout, "run")) == ["unchanged", "unchanged"]
    shown = nbformat.read(checkout / "_build/executed/01_first.ipynb", 4)
    assert shown.cells[0].source == "# Better title"
    assert shown.cells[2].outputs


def test_a_failing_lesson_shows_its_cell_and_the_others_still_run(checkout):
    write(checkout, "01_first", "x = 1", "y = 1 / 0")
    done = dlopt(checkout, "run")
    assert done.returncode == 1
    assert "01_first.ipynb, cell cell-1:" in done.stdout
    assert "    y = 1 / 0" in done.stdout
    assert "ZeroDivisionError" in done.stdout
    assert "failed" in done.stdout.splitlines()[-2]
    assert executed(checkout) == ["02_second.ipynb"]
    assert [r["label"] for r in json.loads((checkout / "_build/claims.json").read_text())] == ["second"]


def test_a_false_claim_fails_its_lesson(checkout):
    write(checkout, "01_first", CLAIM.format("first").replace("2.0,", "2.1,", 1))
    done = dlopt(checkout, "run", "first")
    assert done.returncode == 1
    assert "first: 1 of 1 elements differ" in done.stdout


def test_a_kernel_that_dies_is_a_failed_lesson(checkout):
    write(checkout, "01_first", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    done = dlopt(checkout, "run")
    assert done.returncode == 1
    assert "Kernel died" in done.stdout
    assert executed(checkout) == ["02_second.ipynb"]


def test_a_damaged_result_is_made_again(checkout):
    dlopt(checkout, "run")
    (checkout / "_build/executed/01_first.ipynb").write_text('{"cells": [')
    assert remarks(dlopt(checkout, "run")) == ["run", "unchanged"]


def test_an_exclusive_lesson_runs_after_the_others(checkout):
    stamp = "import time, pathlib\npathlib.Path('{}').write_text(str(time.time()))\ntime.sleep({})"
    write(checkout, "01_first", stamp.format("first", 0), tags=("exclusive",))
    write(checkout, "02_second", stamp.format("second", 1))
    assert dlopt(checkout, "run").returncode == 0
    first, second = (float((checkout / "nbs" / name).read_text()) for name in ("first", "second"))
    assert first >= second + 1


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_stopping_leaves_nothing_half_done_and_the_next_run_goes_on(checkout, stop):
    sleep = "import pathlib, os, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep({})"
    write(checkout, "02_second", sleep.format(60), CLAIM.format("second"))
    env = environment(checkout)
    process = subprocess.Popen(command("run"), cwd=checkout, env=env, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: (checkout / "nbs/pid").exists() and (checkout / "_build/executed/01_first.ipynb").exists())
    process.send_signal(stop)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130, out
    assert "the same command goes on from there" in out
    kernel = int((checkout / "nbs/pid").read_text())
    wait_for(lambda: not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE)
    assert executed(checkout) == ["01_first.ipynb"]
    write(checkout, "02_second", sleep.format(0), CLAIM.format("second"))
    assert remarks(dlopt(checkout, "run")) == ["unchanged", "run"]


def wait_for(condition, seconds: float = 60) -> None:
    "Wait until a condition holds."
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_lessons_are_chosen_by_number_or_name(checkout):
    assert dlopt(checkout, "run", "2").returncode == 0
    assert executed(checkout) == ["02_second.ipynb"]
    done = dlopt(checkout, "run", "third")
    assert done.returncode == 2
    assert done.stderr.startswith("dlopt: no lesson is called 'third'; there are 01_first, 02_second")
    assert "Traceback" not in done.stderr


def test_a_bad_setting_stops_before_anything_is_run(checkout):
    done = dlopt(checkout, "run", DLOPT_SEED="-1")
    assert done.returncode == 2
    assert "DLOPT_SEED: seed must be a whole number, 0 or more, got '-1'" in done.stderr
    assert not (checkout / "_build/executed").exists()


def test_over_budget_is_marked(checkout):
    for remark in ("over its 0.01 s", "over its 0.01 s, unchanged"):
        assert dlopt(checkout, "run", "1", DLOPT_TIME_BUDGET="0.01").stdout.rstrip().endswith(remark)


def test_claims_can_be_chosen(checkout):
    nothing = dlopt(checkout, "claims")
    assert nothing.returncode == 2
    assert "`dlopt run`" in nothing.stderr
    write(checkout, "02_second", CLAIM.format("second").replace("closed form", "torch.optim.Adam"))
    fast = CLAIM.format("fast").replace("closed form", "internal").replace("2.0,", "2.00000001,", 1)
    write(checkout, "03_third", fast)
    assert dlopt(checkout, "run").returncode == 0
    last = dlopt(checkout, "claims").stdout.splitlines()[-1]
    assert last == "2 claims against other libraries and closed forms, 1 internal"
    assert "second" not in dlopt(checkout, "claims", "--lesson", "1").stdout
    adam = dlopt(checkout, "claims", "--against", "adam").stdout
    assert "second" in adam
    assert "first" not in adam
    assert "03_third" in dlopt(checkout, "claims", "--worst", "1").stdout.splitlines()[1]


def test_every_command_has_help(checkout):
    shown = dlopt(checkout, "--help").stdout
    for name in ("doctor", "run", "lab", "site", "claims", "start"):
        assert name in shown
        done = dlopt(checkout, name, "--help")
        assert done.returncode == 0
        assert "Usage" in done.stdout
