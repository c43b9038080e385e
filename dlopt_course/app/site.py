"""Build the documentation site from the lessons as they were run, and show it."""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

from dlopt_course.app.doctor import installed_version
from dlopt_course.app.lessons import lessons_in, package

TOOLS = ["sphinx", "myst-nb", "sphinx-book-theme", "sphinx-codeautolink", "sphinx-copybutton", "sphinx-design"]
TOOLS += ["sphinx-mathjax-offline", "sphinxext-opengraph", "fastcore"]


def build_site(
    root: Path,  # the checkout
    out: Path | None = None,  # where the site goes; default: _site in `root`
) -> Path:  # `out`
    """Build the site unless nothing has changed. The old one stays until the new one is complete.

    Raises FileNotFoundError where something is missing that the site is made of, ValueError where Sphinx objects.
    """
    out = Path(out or root / "_site")
    check_sources(root)
    key = site_key(root)
    if read_key(out) == key:
        return out
    build = root / "_build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="site-", dir=build) as scratch:
        source, new = Path(scratch, "source"), Path(scratch, "html")
        assemble(root, source)
        run_sphinx(source, Path(scratch, "doctrees"), new)
        replace_downloads(root, new)
        (new / ".key").write_text(key, encoding="utf-8")
        swap(new, out, Path(scratch, "old"))
    return out


def check_sources(root: Path) -> None:
    """Raise FileNotFoundError unless everything that the site is made of is there."""
    if not (root / "docs/conf.py").is_file():
        raise FileNotFoundError(
            f"no docs/conf.py in {root}: the site is built from a checkout, not from an installed wheel"
        )
    if missing := [tool for tool in TOOLS if installed_version(tool) is None]:
        raise FileNotFoundError(f"{', '.join(missing)} not installed: pip install 'dlopt_course[site]'")
    if not (root / "nbs/index.ipynb").is_file():
        raise FileNotFoundError(f"no nbs/index.ipynb in {root}: it is the front page")
    if waiting := [p.stem for p in sources(root) if not executed(root, p).is_file()]:
        raise FileNotFoundError(f"not run yet: {', '.join(waiting)}. Run `dlopt run` first, the site shows its results")
    if not (root / "_build/claims.json").is_file():
        raise FileNotFoundError("no _build/claims.json. Run `dlopt run` first: it collects the claims")


def sources(root: Path) -> list[Path]:
    """The notebooks that make pages: the front page and the lessons."""
    return lessons_in(root / "nbs")


def executed(root: Path, notebook: Path) -> Path:
    """Where `dlopt run` leaves a notebook."""
    return root / "_build/executed" / notebook.name


def inputs(root: Path) -> Iterator[Path]:
    """Every file that the site depends on."""
    yield from (p for p in root.glob("docs/**/*") if "__pycache__" not in p.parts)
    yield from (p for p in package().glob("**/*.py"))
    yield from sources(root)
    yield from (executed(root, p) for p in sources(root))
    yield from (root / "_build/claims.json", *root.glob("benchmarks/results/*.json"), root / "CHANGELOG.md")


def site_key(root: Path) -> str:
    """Changes when anything does that the site is made of."""
    digest = hashlib.sha256()
    for path in sorted({p for p in inputs(root) if p.is_file()}):
        digest.update(f"{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    digest.update(json.dumps([platform.python_version(), *((tool, version(tool)) for tool in TOOLS)]).encode())
    return digest.hexdigest()


def read_key(out: Path) -> str | None:
    """The key of the site that is there, None where there is none."""
    return (out / ".key").read_text(encoding="utf-8") if (out / ".key").is_file() else None


def assemble(root: Path, source: Path) -> None:
    """Collect in one folder what Sphinx reads."""
    shutil.copytree(root / "docs", source, ignore=shutil.ignore_patterns("__pycache__"))
    for notebook in sources(root):
        shutil.copy(executed(root, notebook), source)
    (source / "_data/benchmarks").mkdir(parents=True)
    shutil.copy(root / "_build/claims.json", source / "_data")
    for result in root.glob("benchmarks/results/*.json"):
        shutil.copy(result, source / "_data/benchmarks")
    changes = root / "CHANGELOG.md"
    text = changes.read_text(encoding="utf-8") if changes.is_file() else ""
    (source / "changelog.md").write_text(text or "# Changelog\n\nNothing has been released yet.\n", encoding="utf-8")


def run_sphinx(source: Path, doctrees: Path, out: Path) -> None:
    """Build the HTML in a process of its own; any warning is an error."""
    options = ["-b", "html", "-W", "--keep-going", "--no-color", "-q", "-j", "2", "-d", str(doctrees)]
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8")
    if done.returncode:
        raise ValueError(f"the site could not be built:\n{done.stdout.strip().replace(f'{source}/', '')}")


def replace_downloads(root: Path, site: Path) -> None:
    """What the download button of a page gives is the lesson's source, without outputs."""
    for notebook in sources(root):
        shutil.copy(notebook, site / "_sources" / notebook.name)


def swap(new: Path, out: Path, old: Path) -> None:
    """Put the new site where the old one was; if that is interrupted, the old one goes back."""
    try:
        if out.exists():
            shutil.move(out, old)
        shutil.move(new, out)
    except BaseException:
        if old.exists() and not out.exists():
            shutil.move(old, out)
        raise


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *args):
        """Say nothing."""


def make_server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server for `folder` that only this machine can reach; port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(QuietHandler, directory=str(folder)))


def serve(folder: Path, port: int = 0) -> None:
    """Show the site at a local address until Ctrl-C."""
    with make_server(folder, port) as server:
        print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C to stop)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
