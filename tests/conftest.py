"""What several test files share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from playwright.sync_api import sync_playwright

from dlopt_course.app.doctor import find_browser

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs/_ext"))  # the site's extensions are tested like any other code


QUIET = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-sync", *QUIET]


@pytest.fixture(scope="module")  # Playwright keeps an event loop, which must not outlive the file that needs it
def browser():
    """Chromium, or a skip; a failure where the checks must run."""
    chromium = find_browser()
    if not chromium:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


def run_lessons() -> None:
    """Run the lessons that have changed."""
    command = [sys.executable, "-m", "dlopt_course.app.cli", "run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def executed() -> Path:
    """The folder of the lessons as they were run."""
    (ROOT / "_build").mkdir(exist_ok=True)
    with FileLock(ROOT / "_build/run.lock"):
        run_lessons()  # each process of pytest-xdist comes here; the first one does the work
    return ROOT / "_build/executed"


@pytest.fixture(scope="session")
def site(executed) -> Path:
    """The built site, made from the lessons as they are now; quick when nothing has changed."""
    from dlopt_course.app.site import build_site

    with FileLock(ROOT / "_build/site.lock"):
        return build_site(ROOT)


@pytest.fixture
def one_thread(monkeypatch) -> None:
    """For tests of what is computed, not of threads: starting them takes longer."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def one_torch_thread():
    """The same for torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
