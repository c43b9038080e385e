"""Every command of the README does what it says, in a fresh copy of the repository."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from lessons import ROOT

from benchmarks.__main__ import origin_of
from dlopt_course.app.ledger import read_ledger, summary
from dlopt_course.core import settings

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line.split("  #")[0].strip() for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
ENDING = {  # commands that end by themselves, in the order in which a reader would use them: what they print
    "make help": r"course +run every lesson that has changed",
    "make course": r"(?s)01_losses +\d+\.\d +\d+ .*The site is in .*/_site.*-m webbrowser \S+/_site/index.html",
    ".venv/bin/dlopt doctor": r"Python",
    ".venv/bin/dlopt run losses": r"01_losses +\d+\.\d +\d+ .*unchanged",
    ".venv/bin/dlopt claims --worst 5": r"claims against other libraries and closed forms",
    ".venv/bin/dlopt start my-course": r"written",
    "make bench": r"(?s)\A(?!.*: measured).*losses: kept, benchmarks/results/losses.json",
}
SERVING = {"make site": "Optimising and tuning", "make lab": "JupyterLab"}  # serve pages until Ctrl-C
RUN_HERE = "01_losses.ipynb"  # the others come executed: running them all once more would take minutes


@pytest.fixture(scope="module")
def clone(tmp_path_factory, executed) -> Path:
    "What a fresh clone holds, with the environment that make would set up there and all lessons but one executed."
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / part).symlink_to(Path(sys.prefix, part))
    for stamp in ("course", "dev"):
        (folder / ".venv" / stamp).touch()
    done = shutil.copytree(executed, folder / "_build/executed")
    (done / RUN_HERE).unlink()
    for result in (folder / "benchmarks/results").glob("*.json"):  # else `make bench` measures for minutes
        found = json.loads(result.read_text(encoding="utf-8")) | origin_of(result.stem)
        result.write_text(json.dumps(found), encoding="utf-8")
    return folder


def free_port() -> int:
    "A port that nothing listens on."
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(clone: Path) -> dict[str, str]:
    "The clone's package instead of the one that is installed; JupyterLab without a browser."
    config = clone / "_build/jupyter"
    config.mkdir(parents=True, exist_ok=True)
    allow = f"c.ServerApp.allow_root = True\nc.ServerApp.open_browser = False\nc.ServerApp.port = {free_port()}\n"
    (config / "jupyter_server_config.py").write_text(allow)
    own = {"PYTHONPATH": str(clone), "JUPYTER_CONFIG_DIR": str(config), "COLUMNS": "200", "NO_COLOR": "1"}
    same = {"DLOPT_DATA_FOLDER": str(settings().data_folder)}  # a setting, so that executed lessons stay current
    return os.environ | own | same | {"PYTHONUNBUFFERED": "1"}


def test_every_command_of_the_readme_is_run():
    assert set(COMMANDS) == {*ENDING, *SERVING, "make test"}  # the last one runs this test


def test_commands_that_end(clone):
    for command, printed in ENDING.items():
        done = subprocess.run(command.split(), cwd=clone, env=environment(clone), capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert re.search(printed, done.stdout), f"{command}\n{done.stdout}"
        if command == "make course":
            assert done.stdout.count("unchanged") == len(list((clone / "nbs").glob("*.ipynb"))) - 1
    site = (clone / "_site/index.html").stat().st_mtime_ns
    again = subprocess.run(["make", "course"], cwd=clone, env=environment(clone), capture_output=True, text=True)
    assert again.stdout.count("unchanged") == len(list((clone / "nbs").glob("*.ipynb")))
    assert (clone / "_site/index.html").stat().st_mtime_ns == site
    serving(clone)


def serving(clone: Path) -> None:
    "Commands that serve: one page is asked for, then Ctrl-C."
    for command, title in SERVING.items():
        process = subprocess.Popen(
            command.split(),
            cwd=clone,
            env=environment(clone),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            address = wait_for_address(process)
            assert title in ask(address)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(1)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert (clone / "my-course/01_losses.ipynb").exists()


def wait_for_address(process: subprocess.Popen) -> str:
    "The first local address that a server prints."
    printed = ""
    for line in process.stdout:
        printed += line
        if found := re.search(r"http://(127\.0\.0\.1|localhost):\d+\S*", line):
            return found[0]
    raise AssertionError(printed)


def ask(address: str) -> str:
    "The page at a local address; servers print it a moment before they listen."
    for _ in range(60):
        try:
            with urllib.request.urlopen(address, timeout=30) as page:
                return page.read().decode()
        except urllib.error.URLError:
            time.sleep(0.5)
    raise AssertionError(f"nothing answers at {address}")


def test_make_test_runs_the_whole_suite():
    shown = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True).stdout
    assert ".venv/bin/pytest" in shown
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_the_python_of_the_readme_runs():
    space = {}
    for code in (block for kind, block in BLOCKS if kind == "python"):
        exec(code, space)
    assert space["gradient"].shape == (1, 3)
    assert np.allclose(space["params"]["weight"], -0.001)
    assert space["history"].validation_accuracy[-1] > 0.9


def test_the_readme_counts_the_claims_of_the_ledger(executed):
    table = re.search(r"<!-- ledger.*?-->\n(.*?)\n<!-- end of ledger -->", README, re.DOTALL)[1].splitlines()
    assert table[2:] == list(summary(read_ledger(executed.parent))), "update it by `dlopt claims --summary`"


def test_the_readme_shows_a_picture_that_is_there():
    pictures = re.findall(r"!\[(.+?)\]\((.+?)\)", README)
    assert len(pictures) == 1
    assert (ROOT / pictures[0][1]).stat().st_size < 400_000
