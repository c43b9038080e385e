"""`python -m benchmarks.gpu [NAME…]`: all of lesson 10's measurements on one GPU in under 8 minutes, as one recording.

On a CPU, `--device cpu --quick` runs the same code with tiny sizes: that tries the program, its times mean nothing.
Needs torch, NumPy, array-api-compat, numba and typer; torchvision too for some references of the course's functions.
"""

import gc
import json
import math
import platform
import re
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
import typer
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks import gpu_functions
from dlopt_course import gpu as course
from dlopt_course.app import recordings
from dlopt_course.core import write_atomic
from dlopt_course.optim import Optimizer, adamw

ROOT = Path(__file__).parents[1]
MINUTES = 7.5  # after which nothing is begun
WAIT = 6  # minutes after which no further function of the course is compiled
SAMPLES = 50  # at most, of each case
SHORT = ("ceilings", "timing", "precision", "adamw", "copies", "functions")  # for a lesson: less than a minute
CEILINGS = {  # measured on such devices before: a recording should come within 5% of them
    "NVIDIA H100 80GB HBM3": {"copy": 3.0, "matmul": 798.0},
    "NVIDIA H200": {"copy": 4.3, "matmul": 769.0},
}


class Setup(NamedTuple):
    "Where and how things are measured, and what later experiments know from earlier ones."

    device: torch.device
    name: str  # of the device
    quick: bool  # tiny sizes
    started: float  # perf_counter() at the start
    known: dict  # "copy": bytes/s, "matmul": operations/s, as they were measured here
    live: bool = False  # in a lesson: nothing is compiled, functions are compared and not timed

    def size(self, full: int, tiny: int) -> int:
        "The size to take."
        return tiny if self.quick else full

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def is_over(self, minutes: float) -> bool:
        "Whether so many minutes have passed since the start."
        return perf_counter() - self.started > 60 * minutes

    def target(self, figure: str, text: str, **bounds) -> dict:
        "What a figure of a row should be (`least`, `most`); nothing where the sizes are tiny or there is no GPU."
        return {"figure": figure, "text": text} | bounds if self.on_gpu and not self.quick else {}


class Times(NamedTuple):
    "What is known of a case when its figures are worked out."

    seconds: float  # median of a call
    first: float  # seconds of the first call, which compiles
    peak: int  # most bytes that torch held during a call, 0 on a CPU


# Measuring


def wait(setup: Setup) -> None:
    "Returns when the device has nothing left to do."
    if setup.on_gpu:
        torch.cuda.synchronize()


def timed(setup: Setup, f: Callable) -> tuple[list[float], float]:
    "Samples of a call's seconds after a warm-up, and the seconds of the very first call."
    start = perf_counter()
    f()
    wait(setup)
    first = perf_counter() - start
    one = float(course.time_calls(f, repeats=1, warmup=setup.size(3, 1), device=setup.device)[0])
    repeats = setup.size(min(SAMPLES, max(5, int(1 / max(one, 1e-6)))), 3)
    return [float(s) for s in course.time_calls(f, repeats=repeats, warmup=1, device=setup.device)], first


def row_of(case: str, samples: list = (), figures: dict | None = None, **more) -> dict:
    "A line of an experiment, as recordings.ROW asks for it."
    samples = [float(s) for s in samples]
    empty = {"others": {}, "target": {}, "error": ""}
    quartiles = recordings.quartiles(samples)
    return {"case": case, "samples": samples, "quartiles": quartiles, "figures": figures or {}} | empty | more


def measured(
    setup: Setup,
    case: str,  # what is measured
    make: Callable,  # returns what is to be called; what it makes is freed before the next case
    figures: Callable = lambda times: {},  # from Times to figures by name
    target: dict | None = None,  # see Setup.target
) -> dict:  # a row; an error is in it, and nothing else is lost
    "Makes, times, works out the figures."
    try:
        f = make()
        if setup.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        samples, first = timed(setup, f)
        peak = torch.cuda.max_memory_allocated() if setup.on_gpu else 0
        return row_of(case, samples, figures(Times(median(samples), first, peak)), target=target or {})
    except Exception as e:  # whatever it is, the other rows are wanted
        return row_of(case, target=target or {}, error=describe(e))
    finally:
        f = None
        release(setup)


def release(setup: Setup) -> None:
    "Frees what no one holds on a GPU, so that each case finds the whole memory."
    if setup.on_gpu:
        gc.collect()
        torch.cuda.empty_cache()


def describe(e: BaseException) -> str:
    "The beginning of an error's message in one line, and the place of it."
    where = traceback.extract_tb(e.__traceback__)
    place = f" ({Path(where[-1].filename).name}:{where[-1].lineno})" if where else ""
    return f"{type(e).__name__}: {' '.join(str(e).split())[:200]}{place}"


def speedup(rows: list, times: Times) -> dict:
    "How much faster than the first row; nothing where that failed."
    return {"speed-up": rows[0]["quartiles"][1] / times.seconds} if rows and rows[0]["quartiles"] else {}


def of_peak(setup: Setup, operations: float, seconds: float, dtype: str) -> dict:
    "Share of the device's dense peak. An unknown device is named so; a share above 1 is an error."
    try:
        peak = course.find_device(setup.name).peaks[dtype]
    except (KeyError, ValueError):
        return {"of dense peak": "unknown device"}
    return {"of dense peak": course.fraction_of_peak(operations, seconds, peak)}


def normal(setup: Setup, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    "Standard normal numbers on the device."
    return torch.randn(shape, device=setup.device, dtype=dtype)


def compiled(setup: Setup, f: Callable, **options) -> Callable:
    "f under torch.compile, from scratch; the quick run only traces it: generating code takes long on a CPU."
    torch.compiler.reset()
    return torch.compile(f, backend="eager") if setup.quick else torch.compile(f, **options)


@contextmanager
def matmul_precision(setting: str):
    "Inside, float32 matrix products are exact ('highest') or may use TF32 ('high')."
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def surroundings(setup: Setup):
    "Exact float32; one thread for tiny sizes; no word about the course's caches, which torch.compile traces through."
    before = torch.get_num_threads()
    torch.set_num_threads(1 if setup.quick else before)
    try:
        with matmul_precision("highest"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
            yield
    finally:
        torch.set_num_threads(before)


# Models


class Block(nn.Module):
    "A block of a transformer: causal attention and a network of two layers, each after a norm and beside a shortcut."

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        n, time, width = x.shape
        parts = self.inputs(self.before(x)).view(n, time, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(y.transpose(1, 2).reshape(n, time, width))
        return x + self.down(F.gelu(self.up(self.after(x)), approximate="tanh"))


class Transformer(nn.Module):
    "A language model of GPT-2's kind, the output layer sharing the embedding; returns the loss."

    def __init__(self, tokens: int, context: int, layers: int, heads: int, width: int, checkpointing: bool = False):
        super().__init__()
        self.checkpointing = checkpointing
        self.tokens, self.places = nn.Embedding(tokens, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, x, target):
        y = self.tokens(x) + self.places(torch.arange(x.shape[1], device=x.device))
        for block in self.blocks:
            y = checkpoint(block, y, use_reentrant=False) if self.checkpointing else block(y)
        scores = F.linear(self.norm(y), self.tokens.weight)
        return F.cross_entropy(scores.flatten(0, 1), target.flatten())


class Sizes(NamedTuple):
    "Of a transformer and its batch."

    tokens: int
    context: int
    layers: int
    heads: int
    width: int
    batch: int


TINY = Sizes(64, 16, 2, 2, 32, 2)
SMALL = Sizes(1024, 128, 4, 4, 256, 8)
GPT2 = Sizes(50304, 1024, 12, 12, 768, 16)  # 124 million parameters; the vocabulary is filled up to 64 x 786


def transformer(setup: Setup, sizes: Sizes, **options) -> tuple[nn.Module, tuple]:
    "The model on the device, and a batch of random tokens with their targets."
    with setup.device:
        model = Transformer(*sizes[:5], **options)
    ids = torch.randint(sizes.tokens, (sizes.batch, sizes.context + 1), device=setup.device)
    return model, (ids[:, :-1].contiguous(), ids[:, 1:].contiguous())


def shapes_of(sizes: Sizes) -> list[tuple]:
    "The shapes of a transformer's parameters, without making their numbers."
    with torch.device("meta"):
        return [tuple(p.shape) for p in Transformer(*sizes[:5]).parameters()]


def wide(setup: Setup, width: int, layers: int = 4, dtype: torch.dtype = torch.float32) -> nn.Module:
    "Square linear layers with ReLU: almost nothing but matrix products."
    with setup.device:
        return nn.Sequential(*[part for _ in range(layers) for part in (nn.Linear(width, width), nn.ReLU())]).to(dtype)


def training_step(setup: Setup, model: Callable, params: list, batch: tuple, autocast: torch.dtype | None) -> Callable:
    "Forward, backward and fused AdamW, as a function without arguments that can also be captured in a CUDA graph."
    optimizer = torch.optim.AdamW(params, lr=1e-4, fused=True, capturable=setup.on_gpu)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(setup.device.type, autocast) if autocast else nullcontext():
            loss = model(*batch)
        loss.backward()
        optimizer.step()

    return step


def captured(setup: Setup, f: Callable) -> Callable:
    "f as a CUDA graph: warmed up on a side stream, captured once, then replayed. On a CPU f itself."
    if not setup.on_gpu:
        return f
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            f()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        f()
    return graph.replay


# The experiments: each a function of the setup that fills a list of rows, so that an error leaves those before it


def ceilings(setup: Setup, rows: list) -> None:
    "A copy within the device's memory, bytes read and written counted, and products of square matrices."
    before = CEILINGS.get(setup.name, {})
    rows.append(copy_ceiling(setup, before.get("copy")))
    cases = [
        ("bfloat16, random numbers", torch.bfloat16, "highest", "bfloat16", torch.randn),
        ("bfloat16, zeros", torch.bfloat16, "highest", "bfloat16", torch.zeros),
        ("float16, random numbers", torch.float16, "highest", "float16", torch.randn),
        ("float32 as TF32, random numbers", torch.float32, "high", "tf32", torch.randn),
        ("float32, random numbers", torch.float32, "highest", "float32", torch.randn),
    ]
    for number, (case, dtype, setting, peak, draw) in enumerate(cases):
        with matmul_precision(setting):
            rows.append(product_ceiling(setup, case, dtype, peak, draw, None if number else before.get("matmul")))


def copy_ceiling(setup: Setup, expected: float | None) -> dict:
    "A row: one array copied onto another, each 1 GiB."
    numbers = setup.size(2**28, 2**12)

    def make():
        x, y = normal(setup, numbers), normal(setup, numbers)
        return lambda: y.copy_(x)

    def figures(times):
        setup.known["copy"] = 2 * 4 * numbers / times.seconds
        return {"TB/s": setup.known["copy"] / 1e12}

    target = {} if expected is None else setup.target("TB/s", f"{expected} TB/s, within 5%", least=0.95 * expected)
    return measured(setup, "copy, float32", make, figures, target)


def product_ceiling(setup, case: str, dtype, peak: str, draw: Callable, expected: float | None) -> dict:
    "A row: the product of two square matrices."
    n = setup.size(8192, 32)

    def make():
        x, y = (draw(n, n, device=setup.device).to(dtype) for _ in range(2))
        return lambda: x @ y

    def figures(times):
        operations = 2 * n**3
        if case.startswith("bfloat16, random"):
            setup.known["matmul"] = operations / times.seconds
        return {"TFLOP/s": operations / times.seconds / 1e12} | of_peak(setup, operations, times.seconds, peak)

    text = f"{expected} TFLOP/s, within 5%"
    target = {} if expected is None else setup.target("TFLOP/s", text, least=0.95 * expected)
    return measured(setup, f"matrix product, {case}", make, figures, target)


def timing(setup: Setup, rows: list) -> None:
    "One matrix product, timed in wrong ways and in a right one."
    n, times = setup.size(4096, 32), setup.size(20, 3)
    x, y = (normal(setup, n, n, dtype=torch.bfloat16) for _ in range(2))

    def clock(waits: bool) -> float:
        start = perf_counter()
        x @ y
        if waits:
            wait(setup)
        return perf_counter() - start

    def add(case, samples):
        rows.append(row_of(case, samples, {"TFLOP/s": 2 * n**3 / median(samples) / 1e12}))

    wait(setup)
    add("the first call, waited for", [clock(True)])
    add("wrong: the clock is read without waiting", [clock(False) for _ in range(times)])
    wait(setup)
    add("the clock is read after waiting, each call alone", [clock(True) for _ in range(times)])
    add("right: events on the device, after a warm-up", timed(setup, lambda: x @ y)[0])


def launch(setup: Setup, rows: list) -> None:
    "What it costs to start a kernel, and what compilation and CUDA graphs save a small model, and a large one."
    launches = setup.size(1000, 10)

    def additions():
        x = torch.zeros(1, device=setup.device)
        return lambda: [x.add_(1) for _ in range(launches)]

    def each(times):
        return {"each kernel, µs": 1e6 * times.seconds / launches}

    rows.append(measured(setup, f"{launches} tiny kernels, one by one", additions, each))
    rows.append(measured(setup, f"{launches} tiny kernels, one graph", lambda: captured(setup, additions()), each))
    rows += small_transformer(setup) + wide_network(setup)


def small_transformer(setup: Setup) -> list[dict]:
    "Rows: a training step of a small transformer, which waits for launches more than for arithmetic."
    rows = []

    def step(wrap=lambda model: model, finish=lambda step: step):
        model, batch = transformer(setup, setup.size(SMALL, TINY))
        model.to(torch.bfloat16)
        return finish(training_step(setup, wrap(model), list(model.parameters()), batch, None))

    def in_graph(f):
        return captured(setup, f)

    def by_compiling(**options):
        return lambda model: compiled(setup, model, **options)

    def add(case, make, least=None):
        target = setup.target("speed-up", f"{least} times faster or more", least=least) if least else {}
        figures = lambda t: speedup(rows, t) | {"first call, s": t.first}  # noqa: E731
        rows.append(measured(setup, f"small transformer, {case}", make, figures, target))

    add("eager", step)
    add("eager, in a CUDA graph", lambda: step(finish=in_graph))
    add("compiled", lambda: step(by_compiling()), 2.5)
    add("compiled, mode reduce-overhead", lambda: step(by_compiling(mode="reduce-overhead")))
    add("compiled, in a CUDA graph", lambda: step(by_compiling(), in_graph), 3.5)
    return rows


def wide_network(setup: Setup) -> list[dict]:
    "Rows: forward and backward of a network that is nothing but large products: compilation should not help."
    rows, width = [], setup.size(8192, 32)

    def step(wrap=lambda model: model):
        model, x = wide(setup, width, dtype=torch.bfloat16), normal(setup, width, width, dtype=torch.bfloat16)
        return forward_backward(wrap(model), x)

    for case, wrap in (("eager", lambda model: model), ("compiled", lambda model: compiled(setup, model))):
        figures = lambda t: speedup(rows, t) | {"first call, s": t.first}  # noqa: E731
        rows.append(measured(setup, f"wide layers, {case}", lambda wrap=wrap: step(wrap), figures))
    return rows


def forward_backward(model: Callable, x: torch.Tensor) -> Callable:
    "One pass forward and one backward; gradients are made anew, as a training step does."

    def step():
        model.zero_grad(set_to_none=True)
        model(x).mean().backward()

    return step


def precision(setup: Setup, rows: list) -> None:
    "Forward and backward of wide layers in four precisions; the error is |y - y64| / |y64| of the output."
    width = setup.size(4096, 32)
    model, x = wide(setup, width), normal(setup, width, width)
    with torch.no_grad():
        exact = wide(setup, width, dtype=torch.float64).eval()
        exact.load_state_dict(model.state_dict())
        exact = exact(x[: setup.size(64, 8)].double())

    def step(dtype):
        def f():
            with torch.autocast(setup.device.type, dtype) if dtype else nullcontext():
                loss = model(x).float().mean()
            model.zero_grad(set_to_none=True)
            loss.backward()

        return f

    def error(dtype):
        with torch.no_grad(), torch.autocast(setup.device.type, dtype) if dtype else nullcontext():
            found = model(x[: len(exact)]).double()
        return {"relative error": float((found - exact).norm() / exact.norm())}

    def add(case, setting, dtype):
        operations = 3 * 4 * 2 * width**3 - 2 * width**3  # the first layer's input needs no gradient
        target = setup.target("speed-up", "2.5 times faster or more", least=2.5) if rows and case != "float16" else {}
        with matmul_precision(setting):
            figures = lambda t: speedup(rows, t) | {"TFLOP/s": operations / t.seconds / 1e12} | error(dtype)  # noqa: E731
            rows.append(measured(setup, case, lambda: step(dtype), figures, target))

    add("float32", "highest", None)
    add("TF32", "high", None)
    add("bfloat16", "highest", torch.bfloat16)
    add("float16", "highest", torch.float16)


def adamw_forms(setup: Setup, rows: list) -> None:
    "AdamW on the parameters of GPT-2 in float32; at least 28 bytes a parameter are moved."
    shapes = shapes_of(setup.size(GPT2, TINY))
    numbers = sum(math.prod(s) for s in shapes)

    def params():
        made = [normal(setup, *s).requires_grad_() for s in shapes]
        for p in made:
            p.grad = normal(setup, *p.shape)
        return made

    def figures(times):
        rate = 28 * numbers / times.seconds
        share = {"of copy": rate / setup.known["copy"]} if "copy" in setup.known else {}
        return {"GB/s at 28 bytes": rate / 1e9} | share

    for case, options in ADAMW.items():
        target = setup.target("of copy", "80% of the copy or more", least=0.8) if case == "fused" else {}
        make = lambda options=options: torch.optim.AdamW(params(), **options).step  # noqa: E731
        rows.append(measured(setup, f"torch, {case}", make, figures, target))
    rows.append(measured(setup, "ours, as written", lambda: our_adamw(params()), figures))
    if not setup.live:
        rows.append(measured(setup, "ours, rule compiled", lambda: our_adamw(params(), setup), figures))


ADAMW = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def our_adamw(params: list, setup: Setup | None = None) -> Callable:
    "A step of our Optimizer, or, with a setup, of the bare rule under torch.compile."
    arrays = {str(i): p.detach() for i, p in enumerate(params)}
    grads = {str(i): p.grad for i, p in enumerate(params)}
    if setup is None:
        optimizer = Optimizer(arrays, adamw())
        return lambda: optimizer.step(grads)
    rule = adamw()
    update, states = compiled(setup, rule.update), {name: rule.init(p) for name, p in arrays.items()}

    def step():
        for name, p in arrays.items():
            move, states[name] = update(grads[name], states[name], p)
            p.add_(move)

    return step


def checkpointing(setup: Setup, rows: list) -> None:
    "Forward and backward of a transformer of GPT-2's size, every block computed anew in the backward pass or not."
    sizes = setup.size(GPT2._replace(batch=8), TINY)

    def step(kept: bool):
        model, batch = transformer(setup, sizes, checkpointing=not kept)

        def f():
            model.zero_grad(set_to_none=True)
            with torch.autocast(setup.device.type, torch.bfloat16):
                loss = model(*batch)
            loss.backward()

        return f

    def figures(times):
        ratio = speedup(rows, times)
        longer = {"slower by": 1 / ratio["speed-up"] - 1} if ratio else {}
        return longer | ({"peak memory, GB": times.peak / 1e9} if times.peak else {})

    target = setup.target("slower by", "a third or less", most=1 / 3)
    rows.append(measured(setup, "all activations kept", lambda: step(True), figures))
    rows.append(measured(setup, "one for each block kept", lambda: step(False), figures, target))


def copies(setup: Setup, rows: list) -> None:
    "Batches from the host's memory, each used in two matrix products: copied first, or while the one before is used."
    n, width, number = setup.size(4096, 16), setup.size(8192, 32), setup.size(8, 3)
    host = [normal(setup, n, width, dtype=torch.bfloat16).cpu() for _ in range(number)]
    pinned = [x.pin_memory() for x in host] if setup.on_gpu else host
    weight = normal(setup, width, width, dtype=torch.bfloat16)
    there = [x.to(setup.device) for x in host[:1]] * number
    megabytes = sum(x.nbytes for x in host) / 1e6

    def use(x):
        return (x @ weight) @ weight

    def rate(times):
        return {"GB/s": megabytes / 1e3 / times.seconds}

    def add(case, f, figures=lambda times: speedup(rows, times), target=None):
        rows.append(measured(setup, case, lambda: f, figures, target))

    target = setup.target("speed-up", "1.4 times faster or more", least=1.4)
    add("pageable memory", lambda: [use(x.to(setup.device)) for x in host])
    add("pinned memory, non_blocking", lambda: [use(x.to(setup.device, non_blocking=True)) for x in pinned])
    add("pinned, copied on a side stream", overlapped(setup, pinned, use), target=target)
    add("the products alone", lambda: [use(x) for x in there])
    add("the copies alone, pageable", lambda: [x.to(setup.device) for x in host], rate)
    add("the copies alone, pinned", lambda: [x.to(setup.device, non_blocking=True) for x in pinned], rate)


def overlapped(setup: Setup, pinned: list, use: Callable) -> Callable:
    "Each batch is copied on a side stream while the one before it is used."
    side = torch.cuda.Stream() if setup.on_gpu else None

    def fetch(x):
        with torch.cuda.stream(side) if side else nullcontext():
            return x.to(setup.device, non_blocking=True)

    def arrived(x):
        if side:
            torch.cuda.current_stream().wait_stream(side)
            x.record_stream(torch.cuda.current_stream())
        return x

    def step():
        if side:
            side.wait_stream(torch.cuda.current_stream())
        following = fetch(pinned[0])
        for _, later in pairwise([*pinned, None]):
            x = arrived(following)
            following = fetch(later) if later is not None else None
            use(x)

    return step


def gpt2_step(setup: Setup, rows: list) -> None:
    "A training step of GPT-2 (124 million parameters): bfloat16, torch's attention, fused AdamW; eager, then compiled."
    sizes = setup.size(GPT2, TINY)
    numbers = sum(math.prod(s) for s in shapes_of(sizes)) - sizes.context * sizes.width  # places are looked up
    tokens = sizes.batch * sizes.context
    operations = course.transformer_operations(numbers, sizes.layers, sizes.width, sizes.context, tokens=tokens)

    def step(compiles):
        model, batch = transformer(setup, sizes)
        run = compiled(setup, model) if compiles else model
        return training_step(setup, run, list(model.parameters()), batch, torch.bfloat16)

    def figures(times):
        share = {"of measured product": operations / times.seconds / setup.known["matmul"]}
        return (
            speedup(rows, times)
            | {"tokens/s": tokens / times.seconds, "TFLOP/s": operations / times.seconds / 1e12}
            | of_peak(setup, operations, times.seconds, "bfloat16")
            | (share if "matmul" in setup.known else {})
            | ({"peak memory, GB": times.peak / 1e9} if times.peak else {})
            | {"first call, s": times.first}
        )

    target = setup.target("of dense peak", "40% of the dense peak or more", least=0.4)
    with matmul_precision("high"):
        rows.append(measured(setup, "eager", lambda: step(False), figures))
        rows.append(measured(setup, "compiled", lambda: step(True), figures, target))


def functions(setup: Setup, rows: list) -> None:
    """Every array-API function of the course against torch's on this device: the largest difference relative to the
    largest number of the result. Some are timed, forward and backward, in float32: ours as written, ours under
    torch.compile, torch's own, in thousands of millions of input numbers a second."""
    for function in gpu_functions.FUNCTIONS:
        if not (setup.live and function.against == gpu_functions.INTERNAL):
            rows.append(one_function(setup, function))
        release(setup)


def one_function(setup: Setup, function: gpu_functions.Function) -> dict:
    "A row: differences in float64 and float32, and where the function is timed the seconds of ours and of torch's."
    figures = {"against": function.against}
    try:
        for dtype in (torch.float64, torch.float32):
            name = str(dtype).removeprefix("torch.")
            figures[f"difference, {name}"] = gpu_functions.difference(function, setup.device, dtype)
    except gpu_functions.Missing as e:
        return row_of(function.name, figures=figures | {"against": str(e)})
    except Exception as e:  # the other functions are wanted
        return row_of(function.name, figures=figures, error=describe(e))
    return (
        speeds(setup, function, figures) if function.rows and not setup.live else row_of(function.name, figures=figures)
    )


def speeds(setup: Setup, function: gpu_functions.Function, figures: dict) -> dict:
    "The row of a function that is timed: ours as written, under torch.compile, and torch's own."
    given = function.given(setup.device, torch.float32, setup.size(function.rows, 0))
    ours = function.timed or function.ours
    forms = {"ours": lambda: ours, "torch": lambda: function.theirs, "compiled": lambda: compiled(setup, ours)}
    if setup.is_over(WAIT) or (setup.quick and function.name not in TRACED):
        del forms["compiled"]
    found = {form: measured(setup, function.name, partial(bound, make, given)) for form, make in forms.items()}
    numbers = sum(t.numel() for t in given)
    rates = {f"{form}, 10⁹/s": rate(one, numbers) for form, one in found.items()}
    others = {form: one["samples"] for form, one in found.items() if form != "ours"}
    return found["ours"] | {"figures": figures | rates, "others": others}


TRACED = ("losses.mse", "layers.gelu")  # by the quick run


def bound(make: Callable, given: list) -> Callable:
    "What `make` returns, as a function without arguments."
    f = make()
    return lambda: f(*given)


def rate(row: dict, numbers: int) -> float | str:
    "Thousands of millions of numbers a second, those of the inputs; or what failed."
    return numbers / row["quartiles"][1] / 1e9 if row["quartiles"] else f"failed: {row['error'][:100]}"


class Experiment(NamedTuple):
    "Its title, and the function that fills its rows."

    title: str
    fill: Callable


EXPERIMENTS = {
    "ceilings": Experiment("What the device reaches: copy and matrix product", ceilings),
    "timing": Experiment("Ways to time a matrix product", timing),
    "precision": Experiment("Precision: wide layers, forward and backward", precision),
    "adamw": Experiment("AdamW on the 124 million parameters of GPT-2", adamw_forms),
    "copies": Experiment("From the host to the device", copies),
    "checkpointing": Experiment("Activation checkpointing", checkpointing),
    "launch": Experiment("Launches, compilation, CUDA graphs", launch),
    "step": Experiment("A training step of GPT-2", gpt2_step),
    "functions": Experiment("The course's functions", functions),
}


# Recording


def perform(setup: Setup, name: str) -> dict:
    "One experiment, as recordings.EXPERIMENT asks for it; its error is recorded, and the rows before it stay."
    one, rows, error, start = EXPERIMENTS[name], [], "", perf_counter()
    devices = [torch.cuda.current_device()] if setup.on_gpu else []
    try:
        if setup.is_over(MINUTES):
            raise TimeoutError(f"not begun: {MINUTES} minutes were over")
        with torch.random.fork_rng(devices), surroundings(setup):
            torch.manual_seed(0)
            one.fill(setup, rows)
    except Exception as e:  # the other experiments are wanted
        error = describe(e)
    release(setup)
    seconds = perf_counter() - start
    about = " ".join(one.fill.__doc__.split())
    return {"name": name, "title": one.title, "about": about, "seconds": seconds, "error": error, "rows": rows}


def record(
    names: tuple[str, ...],  # of experiments
    device: str,  # "cuda" or "cpu"
    *,
    quick: bool = False,  # tiny sizes
    live: bool = False,  # for a lesson: nothing is known of commit and code
    save: Callable = lambda recording: None,  # called after each experiment with what there is so far
) -> dict:  # a recording, as recordings.check_recording asks for it
    "Performs the experiments one after the other."
    setup = Setup(torch.device(device), device_name(device), quick, perf_counter(), {}, live)
    recording = head(setup, names, live) | {"seconds": 0.0, "experiments": []}
    for name in names:
        recording["experiments"].append(perform(setup, name))
        recording["seconds"] = perf_counter() - setup.started
        save(recording)
    return recording


def head(setup: Setup, names: tuple[str, ...], live: bool) -> dict:
    "What a recording says of itself, but for its length and its experiments."
    some = names if set(names) != set(EXPERIMENTS) else ()
    options = (*some, *(() if setup.on_gpu else ("--device", "cpu")), *(("--quick",) if setup.quick else ()))
    return {
        "kind": "gpu",
        "format": recordings.FORMAT,
        "date": date.today().isoformat(),
        "live": live,
        "quick": setup.quick,
        "command": " ".join(("python -m benchmarks.gpu", *options)),
        "device": about_device(setup),
        "versions": versions(),
    } | source(live)


def device_name(device: str) -> str:
    "The GPU's name, or the processor's architecture."
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {platform.machine()}"


def about_device(setup: Setup) -> dict:
    "As recordings.DEVICE asks for it; empty and 0 on a CPU."
    if not setup.on_gpu:
        none = {"driver": "", "cuda": "", "capability": "", "memory": 0, "processors": 0}
        return {"type": "cpu", "name": setup.name} | none
    found = torch.cuda.get_device_properties()
    return {
        "type": "cuda",
        "name": setup.name,
        "driver": driver(),
        "cuda": str(torch.version.cuda),
        "capability": f"{found.major}.{found.minor}",
        "memory": int(found.total_memory),
        "processors": int(found.multi_processor_count),
    }


def driver() -> str:
    "The version of NVIDIA's driver; empty where nvidia-smi does not say."
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return (found.strip().splitlines() or [""])[0]


def versions() -> dict:
    "Of Python and of the packages that matter, those that are there."
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("numpy", "triton", "torchvision"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def source(live: bool) -> dict:
    "The machine, the code and its commit."
    if live:
        return {"machine": platform.machine(), "code": "this", "commit": "this"}
    from benchmarks.measure import commit, fingerprint, machine  # needs a package that lessons do not have

    return {"machine": machine(), "code": fingerprint("dlopt_course/*.py", "benchmarks/gpu*.py"), "commit": commit()}


def file_name(recording: dict) -> str:
    "gpu-<date>-<device>.json"
    device = re.sub(r"[^a-z0-9]+", "-", recording["device"]["name"].lower()).strip("-")
    return f"{recording['kind']}-{recording['date']}-{device}.json"


def main(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME…", help="Which; all without a name.")] = None,
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, to try the program.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where the recording goes.")] = None,
) -> None:
    "Measure on one GPU and write a recording; the file is written anew after each experiment."
    if unknown := set(names or ()) - set(EXPERIMENTS):
        allowed = ", ".join(EXPERIMENTS)
        raise typer.BadParameter(f"no experiment is called {', '.join(sorted(unknown))}; there are {allowed}")
    if device not in ("cuda", "cpu") or (device == "cuda" and not torch.cuda.is_available()):
        raise typer.BadParameter(f"device must be cpu, or cuda where torch finds a GPU, got {device}")
    real = device == "cuda" and not quick
    folder = folder or (recordings.FOLDER if real else ROOT / "_build/recordings")
    folder.mkdir(parents=True, exist_ok=True)

    def save(recording):
        recordings.check_recording(recording)
        write_atomic(folder / file_name(recording), json.dumps(recording, indent=1, ensure_ascii=False) + "\n")
        last = recording["experiments"][-1]
        typer.echo(f"\n{recordings.table(recording, last['name'])}\n({last['seconds']:.0f} s)")

    recording = record(tuple(names or EXPERIMENTS), device, quick=quick, save=save)
    failed = [e["name"] for e in recording["experiments"] if e["error"] or any(r["error"] for r in e["rows"])]
    typer.echo(
        f"\n{folder / file_name(recording)}: {recording['seconds']:.0f} s; failed: {', '.join(failed) or 'none'}"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
