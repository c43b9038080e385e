"""What this processor reaches: copies, matrix products, bfloat16, and when torch.compile has paid for itself."""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import nn

from benchmarks.measure import Comparison, compare_all, duration, in_new_processes, threads, wait_until_idle
from dlopt_course.core import num_threads

CODE = ()  # nothing of the course is measured
PACKAGES = ("numpy", "torch")
NUMBERS = 2**26  # in the array that is copied: 256 MiB of float32, more than any cache
SIZES = (256, 1024, 2048)  # of the square matrices
ROUNDS = 15

ABOUT = """\
The two ceilings of a roofline, measured on this processor: a copy of 256 MiB (bytes read and bytes written are
counted), and products of square matrices in float32 and in bfloat16, by torch, with one thread and with all. Then
what `torch.compile` costs and saves: the first call in a new process with an empty cache, and calls after that, eager
and compiled in turns. Break-even is the seconds of the first call, less those of an eager first call, divided by the
seconds that each later call saves."""

NOTES = [
    "Target: bfloat16 is 5 times faster than float32 or more where the processor has AMX (amx_bf16); elsewhere it may "
    "be slower, which is kept.",
    "Target: compiled LayerNorm and GELU are 2 times faster or more.",
    "Lines with the same size and threads were measured together; quartiles are in brackets.",
]


def bfloat16_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    "What the processor has for products of bfloat16: 'amx_bf16', 'avx512_bf16' or 'none'."
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    flags = {flag for line in text.splitlines() if line.startswith("flags") for flag in line.split()}
    return next((unit for unit in ("amx_bf16", "avx512_bf16") if unit in flags), "none")


def copy(numbers: int) -> Callable:
    "A copy from one array onto another."
    x, y = torch.ones(numbers), torch.zeros(numbers)
    return lambda: y.copy_(x)


def product(size: int, dtype: torch.dtype) -> Callable:
    "The product of two square matrices of random numbers."
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(size, size, generator=generator).to(dtype) for _ in range(2))
    return lambda: x @ y


def memory(numbers: int, cores: int, rounds: int) -> dict:
    "Samples of the copy."
    with threads(cores):
        seconds = compare_all({"copy": copy(numbers)}, rounds)["copy"]
    rate = 2 * 4 * numbers / median(seconds) / 1e9
    return {"threads": cores, "gigabytes_per_second": rate, "seconds": seconds}


def products(size: int, cores: int, rounds: int) -> list[dict]:
    "Samples of the product in both formats, measured in turns."
    functions = {name: product(size, getattr(torch, name)) for name in ("float32", "bfloat16")}
    with threads(cores):
        samples = compare_all(functions, rounds)
    return [
        {"threads": cores, "dtype": dtype, "size": size, "gigaflops": 2e-9 * size**3 / median(s), "seconds": s}
        for dtype, s in samples.items()
    ]


def norm_and_gelu(rows: int, width: int, wrap: Callable) -> Callable:
    "LayerNorm and GELU of many rows: little arithmetic for each number that is moved."
    layers, x = wrap(nn.Sequential(nn.LayerNorm(width), nn.GELU())), torch.ones(rows, width)
    return torch.no_grad()(lambda: layers(x))


def training_step(rows: int, width: int, wrap: Callable) -> Callable:
    "Forward and backward of a network of three layers, mostly matrix products."
    parts = nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    layers, x = wrap(nn.Sequential(*parts)), torch.ones(rows, width)

    def step():
        layers.zero_grad(set_to_none=True)
        layers(x).square().mean().backward()

    return step


PROGRAMS = {
    "LayerNorm and GELU, 4096 x 1024": (norm_and_gelu, 4096, 1024),
    "three linear layers, forward and backward, 256 x 512": (training_step, 256, 512),
}


def compilation(make: Callable, rows: int, width: int, rounds: int, backend: str = "inductor") -> dict:
    "Seconds of the first calls, and samples of later ones; to be called in a new process."
    with tempfile.TemporaryDirectory() as empty:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty
        eager = make(rows, width, lambda layers: layers)
        compiled = make(rows, width, partial(torch.compile, backend=backend))
        first, cold = (timed_once(f) for f in (eager, compiled))
        samples = compare_all({"eager": eager, "compiled": compiled}, rounds)
    saved = median(samples["eager"]) - median(samples["compiled"])
    calls = (cold - first) / saved if saved > 0 else None
    return {"cold_seconds": cold, "first_eager_seconds": first, **samples, "calls_to_break_even": calls}


def timed_once(f: Callable) -> float:
    "Seconds of one call."
    start = perf_counter()
    f()
    return perf_counter() - start


def rows_of(raw: dict) -> list[list]:
    "The table."
    rows = [
        ["copy, read and written", "", m["threads"], f"{m['gigabytes_per_second']:.1f} GB/s", ""] for m in raw["memory"]
    ]
    for single, half in zip(raw["matmul"][::2], raw["matmul"][1::2], strict=True):
        for one in (single, half):
            ratio = Comparison(half["seconds"], single["seconds"]) if one is half else ""
            what, size = f"matrix product, {one['dtype']}", f"{one['size']} x {one['size']}"
            rows.append([what, size, one["threads"], f"{one['gigaflops']:.0f} GFLOP/s", f"{ratio}"])
    for one in raw["compile"]:
        calls, times = one["calls_to_break_even"], f"{Comparison(one['compiled'], one['eager'])}"
        pays = "never breaks even" if calls is None else f"breaks even after {calls:,.0f} calls"
        cold = f"first call {duration(one['cold_seconds'])}, {pays}"
        rows.append([f"torch.compile: {one['name']}", "", one["threads"], cold, times])
    return rows


def run(rounds: int = ROUNDS, numbers: int = NUMBERS, sizes: tuple = SIZES, backend: str = "inductor") -> dict:
    "Measure the ceilings with one thread and with all, and what compiling costs and saves."
    cores, busy = sorted({1, num_threads()}), wait_until_idle()
    cases = [(make, rows, width, rounds, backend) for make, rows, width in PROGRAMS.values()]
    found = [in_new_processes(compilation, [case])[0] for case in cases]  # one after the other
    raw = {
        "bfloat16": bfloat16_units(),
        "busy": busy,
        "memory": [memory(numbers, n, rounds) for n in cores],
        "matmul": [one for size in sizes for n in cores for one in products(size, n, rounds)],
        "compile": [{"name": name, "threads": num_threads()} | one for name, one in zip(PROGRAMS, found, strict=True)],
    }
    columns = ["What", "Size", "Threads", "Reached", "Ahead of float32, or of eager"]
    about = f"{ABOUT} For products of bfloat16 this processor has: {raw['bfloat16']}."
    result = {"title": "Limits of this processor", "about": about, "columns": columns, "notes": NOTES}
    return result | {"rows": rows_of(raw), "raw": raw}
