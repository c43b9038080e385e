"""How things are measured here: in turns with the peer, as ratios, with every sample kept and an origin."""

import hashlib
import os
import platform
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from statistics import quantiles
from time import perf_counter, sleep

import torch
from threadpoolctl import threadpool_limits

from dlopt_course.core import num_threads

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Comparison:
    "Seconds of each round, the calls of a round taken together and divided by their number."

    ours: list[float]
    peer: list[float]

    @property
    def ratios(self) -> list[float]:
        "peer / ours round by round: above 1 where ours is ahead."
        return [b / a for a, b in zip(self.ours, self.peer, strict=True)]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        "First quartile, median and third quartile of the ratios."
        return tuple(quantiles(self.ratios, n=4, method="inclusive")) if len(self.ours) > 1 else (self.ratios[0],) * 3

    def __str__(self) -> str:
        "1.52 (1.48 to 1.60): the median and the quartiles around it."
        low, middle, high = self.quartiles
        return f"{middle:.2f} ({low:.2f} to {high:.2f})"

    def raw(self) -> dict:
        "Every sample, for the file of results."
        return {"seconds": self.ours, "peer_seconds": self.peer}


def compare(
    ours: Callable,  # called without arguments
    peer: Callable,  # does the same work
    rounds: int,  # pairs of samples
    at_least: float = 0.02,  # seconds that one sample should take; short calls are repeated
    clock: Callable = perf_counter,
) -> Comparison:
    "Samples both in turns, first one then the other first, so that what slows the machine slows both."
    return Comparison(*compare_all({"ours": ours, "peer": peer}, rounds, at_least, clock).values())


def compare_all(
    functions: dict[str, Callable],  # by name, called without arguments; all do the same work
    rounds: int,  # samples of each
    at_least: float = 0.02,  # seconds that one sample should take; short calls are repeated
    clock: Callable = perf_counter,
) -> dict[str, list[float]]:  # by name, the seconds of a call in each round
    "Samples all in turns, each round beginning with the next of them."
    calls = {name: _calls(f, at_least, clock) for name, f in functions.items()}  # this also warms up
    samples, names = {name: [] for name in functions}, list(functions)
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(_sample(functions[name], calls[name], clock))
    return samples


def _sample(f: Callable, calls: int, clock: Callable) -> float:
    "Seconds of one call, from `calls` calls, after a moment in which the other side's threads stop spinning."
    sleep(0.01)  # OpenMP's, which torch uses, were seen to spin for 5 ms
    start = clock()
    for _ in range(calls):
        f()
    return (clock() - start) / calls


def _calls(f: Callable, at_least: float, clock: Callable) -> int:
    "How many calls take `at_least` seconds, found by doubling after a first call that does not count."
    f()
    return next(n for n in (2**i for i in count()) if n * _sample(f, n, clock) >= at_least)


def peak_memory(
    f: Callable,  # called without arguments; its result is kept until the peak is read
    returned: Callable = lambda result: 0,  # bytes of the result that do not count
    first: bool = False,  # look at the first call: what it allocates once and keeps counts too
) -> int:  # bytes
    "Most memory that Python and NumPy held during a call, beyond what was there before and what `returned` says."
    if not first:
        f()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = f()
        return tracemalloc.get_traced_memory()[1] - before - returned(result)
    finally:
        tracemalloc.stop()


def in_new_processes(
    f: Callable,  # a function of a module
    arguments: list[tuple],  # of each call
) -> list:  # the results in order
    "Calls f(*arguments), each call in a process of its own: it finds no buffer that another one has kept."

    def call(of_one):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            return process.submit(f, *of_one).result()

    with ThreadPoolExecutor(num_threads()) as pool:
        return list(pool.map(call, arguments))


def busy_share(seconds: float = 0.5) -> float:
    "Share of the cores' time that others took while we slept so long; 0 where there is no /proc/stat to ask."
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    before = _ticks(stat)
    sleep(seconds)
    idle, total = (b - a for a, b in zip(before, _ticks(stat), strict=True))
    return 1 - idle / max(total, 1)


def _ticks(stat: Path) -> tuple[int, int]:
    "Idle and all ticks of all cores since the start."
    ticks = [int(x) for x in stat.read_text(encoding="utf-8").split("\n")[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def wait_until_idle(
    at_most: int = 60,  # looks, of half a second each
    allowed: float = 0.1,  # share of the cores' time that others may have
    look: Callable = busy_share,
) -> float:  # the share at the last look, for the record
    "Returns when others leave the cores alone, or at the last look: threads that wait for a core measure the others."
    shares = (look() for _ in range(at_most))
    share = next(shares)
    while share > allowed and (later := next(shares, None)) is not None:
        share = later
    return share


@contextmanager
def threads(
    n: int,  # how many, for our code, NumPy's matrix products and torch
) -> Iterator[None]:
    "Inside, `num_threads()` is n, and BLAS and torch have as many."
    before, setting = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(n)
    torch.set_num_threads(n)
    try:
        with threadpool_limits(n, "blas"):
            yield
    finally:
        torch.set_num_threads(before)
        os.environ.pop("OMP_NUM_THREADS")
        if setting is not None:
            os.environ["OMP_NUM_THREADS"] = setting


def origin(
    name: str,  # of the benchmark
    code: tuple[str, ...] = (),  # patterns of the files that are measured, from the root
    packages: tuple[str, ...] = ("numpy", "torch"),  # whose versions matter
) -> dict:
    "Command, date, machine, versions, code and commit: what has to be known to measure the same again."
    return {
        "command": f"python -m benchmarks {name}",
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "code": fingerprint(*code, f"benchmarks/{name}.py", "benchmarks/measure.py"),
        "commit": commit(),
    }


def fingerprint(*patterns: str, root: Path = ROOT) -> str:
    "Twelve digits that change with the files' contents: unlike a commit, known before it is made."
    files = sorted({f for pattern in patterns for f in root.glob(pattern)})
    return hashlib.sha256(b"\0".join(f.read_bytes() for f in files)).hexdigest()[:12]


def machine() -> str:
    "The processor's model and the cores that are used; no name of a host."
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return (
        f"{models[0] if models else platform.processor() or platform.machine()}, {num_threads()} cores, {sys.platform}"
    )


def commit(root: Path = ROOT) -> str:
    "The short hash of the code, with +changes where files differ from it; 'unknown' outside a repository."
    code = ["dlopt_course", "benchmarks", ":!benchmarks/results"]
    try:
        changed = _git(root, "status", "--porcelain", "--", *code)
        return _git(root, "log", "-1", "--format=%h", "--", *code) + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def duration(
    seconds: float,
) -> str:  # three digits with a unit
    "1.23e-05 -> '12.3 µs'."
    unit, factor = next((u, f) for u, f in (("s", 1), ("ms", 1e3), ("µs", 1e6)) if seconds * f >= 1 or f == 1e6)
    return f"{float(f'{seconds * factor:.3g}'):g} {unit}"
