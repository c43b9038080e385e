"""Execute the lessons that have changed, some at a time, and collect their claims."""

import contextlib
import hashlib
import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from dlopt_course.app.doctor import requirements
from dlopt_course.app.ledger import claims_of, counted
from dlopt_course.app.progress import Progress
from dlopt_course.core import Settings, num_threads, settings, write_atomic

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Outcome:
    "What became of one lesson."

    lesson: str
    seconds: float = 0.0  # of wall time, when it was last executed
    cached: bool = False  # nothing had changed, so it was not executed
    claims: list[dict] = field(default_factory=list)
    error: str | None = None  # traceback and cell, when it failed

    @property
    def max_rel(self) -> float:
        "Largest relative difference of the claims against other libraries; 0 if there is none."
        return max((c["max_rel"] for c in self.claims if counted(c) and c["max_rel"] is not None), default=0.0)


def surroundings(course: Settings) -> dict:
    "What the results of every lesson depend on: the package's code, the settings, the device, the versions."
    shown = ["*.py", "app/exercises/*.py", "app/widgets/*", "app/recordings.py", "app/recorded/*"]
    code = sorted(file for pattern in shown for file in PACKAGE.glob(pattern) if file.is_file())
    names = sorted(r.name for r in requirements()[1])
    return {
        "package": {str(f.relative_to(PACKAGE)): hashlib.sha256(f.read_bytes()).hexdigest() for f in code},
        "settings": {k: str(v) for k, v in asdict(course).items()},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in names},
        "device": device_name(course.device),
    }


def lesson_key(notebook: nbformat.NotebookNode, around: dict) -> str:
    "Changes when the lesson's code cells or its surroundings do."
    cells = [(c.id, c.source, c.metadata.get("tags")) for c in notebook.cells if c.cell_type == "code"]
    parts = around | {"cells": cells}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def device_name(device: str) -> str:
    "The GPU's name, or that of the processor's architecture."
    if device == "cpu":
        return platform.machine()
    import torch  # slow to load, and only needed here

    return torch.cuda.get_device_name()


def reuse(source: nbformat.NotebookNode, executed: Path, key: str) -> nbformat.NotebookNode | None:
    "The lesson with the outputs of its last execution, or None if that is out of date."
    try:
        old = nbformat.read(executed, 4)
    except (OSError, ValueError, nbformat.validator.NotebookValidationError):
        return None
    if old.metadata.get("dlopt", {}).get("key") != key:
        return None
    outputs = {c.id: c for c in old.cells if c.cell_type == "code"}
    for cell in source.cells:  # only the prose can differ
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = outputs[cell.id].outputs, outputs[cell.id].execution_count
    source.metadata = old.metadata
    return source


def is_exclusive(path: Path) -> bool:
    "Whether a lesson measures time, and therefore runs alone (a cell is tagged `exclusive`)."
    return any("exclusive" in c.metadata.get("tags", []) for c in nbformat.read(path, 4).cells)


class Runner:
    "Runs lessons in kernels of their own; `stop` ends the kernels that are at work."

    def __init__(self, out: Path, course: Settings, progress: Progress):
        self.out, self.course, self.progress = out, course, progress
        self.around = surroundings(course)
        self.clients: dict[str, NotebookClient] = {}
        self.at: dict[str, nbformat.NotebookNode] = {}  # the cell that each lesson is at
        self.stopped = threading.Event()

    def lesson(self, path: Path, threads: int) -> Outcome:
        "Execute one lesson, or reuse what is there; write the executed notebook only when it is complete."
        notebook = nbformat.read(path, 4)
        key = lesson_key(notebook, self.around)
        if done := reuse(notebook, self.out / path.name, key):
            self.save(path, done)
            return Outcome(path.stem, done.metadata["dlopt"]["seconds"], True, claims_of(path.stem, done))
        start = time.perf_counter()
        if error := self.execute(path, notebook, threads):
            return Outcome(path.stem, time.perf_counter() - start, error=error)
        seconds = round(time.perf_counter() - start, 2)
        made = {"device": self.around["device"], "date": date.today().isoformat()}
        notebook.metadata["dlopt"] = {"key": key, "seconds": seconds} | made
        self.save(path, notebook)
        return Outcome(path.stem, seconds, claims=claims_of(path.stem, notebook))

    def save(self, path: Path, notebook: nbformat.NotebookNode) -> None:
        "Write an executed notebook, unless the very same one is there already."
        text, target = nbformat.writes(notebook), self.out / path.name
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            write_atomic(target, text)

    def execute(self, path: Path, notebook: nbformat.NotebookNode, threads: int) -> str | None:
        "Run all cells in place; the error with its cell, or None."
        client = self.client(path, notebook)
        if self.stopped.is_set():
            return "stopped"
        self.clients[path.stem] = client
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        try:
            client.execute(env=env)
        except CellExecutionError as e:
            return f"{path.name}, {self.where(path)}\n\n{e.traceback}"
        except (CellTimeoutError, DeadKernelError) as e:
            return f"{path.name}, {self.where(path)}\n\n{e}"
        finally:
            del self.clients[path.stem]
        return None

    def client(self, path: Path, notebook: nbformat.NotebookNode) -> NotebookClient:
        "A client with a kernel of this Python, not of a user's own kernelspec, that reports its progress."
        client = NotebookClient(
            notebook,
            timeout=int(20 * self.course.time_budget) + 60,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
            extra_arguments=["--log-level=ERROR"],  # else each kernel warns that localhost is not encrypted
            on_cell_start=self.reporter(path, notebook),
            record_timing=False,  # the same cells give the same file
        )
        client.create_kernel_manager()
        own = [str(Path(sys.prefix) / "share/jupyter/kernels")]
        client.km.kernel_spec_manager = KernelSpecManager(kernel_dirs=own)
        return client

    def reporter(self, path: Path, notebook: nbformat.NotebookNode) -> Callable:
        "What is called as a cell begins."
        numbers = {c.id: n for n, c in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1)}

        def begin(cell, cell_index):
            if cell.id in numbers:
                self.at[path.stem] = cell
                self.progress.at(path.stem, numbers[cell.id], len(numbers))

        return begin

    def where(self, path: Path) -> str:
        "The cell that was running, with its code."
        cell = self.at[path.stem]
        return f"cell {cell.id}:\n\n" + "\n".join(f"    {line}" for line in cell.source.splitlines())

    def batch(self, paths: list[Path], workers: int) -> Iterator[Outcome]:
        "Run lessons side by side, with the threads of this machine divided among them."
        threads = max(1, num_threads() // workers)
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(self.lesson, p, threads) for p in paths]
            try:
                yield from (f.result() for f in as_completed(futures))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.stop()
                raise

    def stop(self) -> None:
        "End every kernel and what it started."
        self.stopped.set()
        for client in list(self.clients.values()):
            with contextlib.suppress(AttributeError, ProcessLookupError):  # not started yet, or gone already
                os.killpg(client.km.provisioner.pid, signal.SIGKILL)


def run(paths: list[Path], out: Path, progress: Progress) -> Iterator[Outcome]:
    "Run the lessons, `settings().workers` at a time, those that measure alone; yields outcomes as they come."
    course = settings()
    runner = Runner(out, course, progress)
    alone = [p for p in paths if is_exclusive(p)]
    try:
        yield from runner.batch([p for p in paths if p not in alone], course.workers)
        yield from runner.batch(alone, 1)
    finally:
        progress.close()
