"""Two cores for one training: two threads, two processes of ours, two of torch's DDP; predicted, then measured."""

import os
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np

from benchmarks.measure import Comparison, threads, wait_until_idle
from dlopt_course.layers import MLP
from dlopt_course.losses import cross_entropy, value_and_grad
from dlopt_course.optim import Optimizer, adam
from dlopt_course.parallel import Communicator, _part_gradient, _replicated, _Training, partition, run_workers

CODE = tuple(f"dlopt_course/{name}.py" for name in ("parallel", "layers", "losses", "optim", "core"))
MODEL = MLP((784, 512, 512, 10))
SIZES = (64, 128, 256, 512, 1024, 2048)
FORMS = ("one_thread", "two_threads", "two_processes", "ddp")
ROUNDS = 30
both = value_and_grad(cross_entropy)

ABOUT = """\
A training step of a network 784-512-512-10 in float32 with Adam, on normal numbers, on one core and in three ways on
two: matrix products and Adam on two threads of one process; the step of `train_data_parallel` in two processes with one
thread each, the gradients added up by the ring in shared memory; torch's DistributedDataParallel with gloo and fused
Adam in two processes with one thread each. The batch is that of all together. Numbers are speeds relative to one thread
of ours: above 1 two cores pay. *Predicted* is the speed of two processes from measurements of other things: a step on
one thread takes a + b B for B samples, and adding up the gradients takes c; two processes take a + b B / 2 + c."""

NOTES = [
    "Target: none; whichever way wins is kept.",
    "All were called in turns in the same two processes; while one process computes alone, the other one sleeps.",
    "On two cores threads share one copy of the parameters and send nothing; processes pay once they do not fit in one "
    "machine, or where the work cannot be threaded.",
]


def sampled(sizes: tuple, rounds: int) -> list[dict]:
    "For each batch size the seconds of a step of each form in each round, and of adding up the gradients alone."
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # two threads each, of which one computes when both do
        samples, _ = run_workers(work, 2, sizes, rounds, Path(folder) / "store", threads=2, timeout=300)
    return samples


def work(comm: Communicator, sizes: tuple, rounds: int, store: Path) -> list[dict]:
    "What each of the two processes does."
    import torch.distributed as dist

    if Path("/sys/class/net/lo").exists():
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=comm.rank, world_size=comm.size)
    try:
        return [of_one_size(comm, size, rounds) for size in sizes]
    finally:
        dist.destroy_process_group()


def of_one_size(comm: Communicator, size: int, rounds: int) -> dict:
    "All forms in turns, each round beginning with the next."
    forms = steps(comm, size)
    seconds = {name: [] for name in forms}
    for i in range(-1, rounds):  # what compiles or allocates does so in the first round, which does not count
        names = list(forms)[i % len(forms) :] + list(forms)[: i % len(forms)]
        for name in names:
            taken = _seconds(comm, *forms[name], 1 if i < 0 else max(1, 256 // size))
            seconds[name] += [taken] * (i >= 0)
    return {"batch": size, **seconds}


def _seconds(comm: Communicator, step: Callable, cores: int, together: bool, calls: int) -> float:
    "Seconds of a step, begun together; those of one process are done by the first, while the other one sleeps."
    step = step if together or comm.rank == 0 else lambda: None
    sleep(0.05)  # threads of BLAS that have no more to do were seen to spin
    with threads(cores):
        step()  # wakes the threads
        comm.barrier()
        begin = perf_counter()
        for _ in range(calls):
            step()
        seconds = perf_counter() - begin
        comm.barrier()
    return seconds / calls


def data(size: int) -> list[tuple]:
    "Five batches, gone through again and again."
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((size, 784), dtype=np.float32), rng.integers(0, 10, size)) for _ in range(5)]


def steps(comm: Communicator, size: int) -> dict[str, tuple]:
    "For each form its step, its threads, and whether both processes take part."
    mine = partition(size, comm.size)[comm.rank]
    alone, together = (in_one(data(size)) for _ in range(2))
    shares = [(x[mine], y[mine]) for x, y in data(size)]
    forms = {"one_thread": (alone, 1, False), "two_threads": (together, 2, False)}
    forms |= {"two_processes": (in_two(comm, size), 1, True), "ddp": (by_ddp(shares), 1, True)}
    gradient = np.zeros(sum(p.size for p in start().values()), np.float32)
    return forms | {"all_reduce": (lambda: comm.all_reduce(gradient), 1, True)}


def start() -> dict[str, np.ndarray]:
    "The first parameters."
    return MODEL.init(np.random.default_rng(0), np.float32)


def in_one(batches: list[tuple]) -> Callable:
    "A step of ours without any other process; returns the loss."
    params, batches = start(), cycle(batches)
    optimizer = Optimizer(params, adam())

    def step():
        x, y = next(batches)
        prediction, pullback = MODEL.apply(params, x)
        loss, slope = both(prediction, y)
        optimizer.step(pullback(slope)[0])
        return float(loss)

    return step


def in_two(comm: Communicator, size: int) -> Callable:
    "The step of `train_data_parallel`; returns the loss of the whole batch."
    x, y = (np.concatenate(part) for part in zip(*data(size), strict=True))
    job = _Training(MODEL, start(), x, y, cross_entropy, adam(), size, 0, 0, "ring")
    step, _ = _replicated(comm, job, partial(_part_gradient, MODEL.apply, both))
    batches = cycle(np.split(np.arange(len(x)), 5))

    def one():
        rows = next(batches)
        return step(rows[partition(size, comm.size)[comm.rank]], size)

    return one


def by_ddp(shares: list[tuple]) -> Callable:
    "torch's step on this process's part of each batch; returns the loss of that part."
    import torch
    import torch.nn.functional as F
    from torch.nn.parallel import DistributedDataParallel

    a, b, c, d = MODEL.sizes
    nn = torch.nn
    network = nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d))
    network.load_state_dict({name: torch.from_numpy(p) for name, p in start().items()})
    network = DistributedDataParallel(network)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    batches = cycle([(torch.from_numpy(x), torch.from_numpy(y)) for x, y in shares])

    def step():
        x, y = next(batches)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def predicted(samples: list[dict]) -> tuple[dict[int, float], float]:
    "Speed of two processes against one thread for each batch, and the batch from which they pay, from a, b and c."
    sizes = np.array([s["batch"] for s in samples], dtype=float)
    times = np.array([median(s["one_thread"]) for s in samples])
    columns = np.stack([np.ones_like(sizes), sizes], axis=1) / times[:, None]
    a, b = np.linalg.lstsq(columns, np.ones_like(times), rcond=None)[0]  # relative errors count
    c = median(x for s in samples for x in s["all_reduce"])
    speeds = {s["batch"]: (a + b * s["batch"]) / (a + b * s["batch"] / 2 + c) for s in samples}
    return {size: float(speed) for size, speed in speeds.items()}, float(2 * c / b)


def row(s: dict, speed: float) -> list:
    "A line of the table."
    found = [str(Comparison(s[name], s["one_thread"])) for name in FORMS[1:]]
    rate = f"{1 / median(s['one_thread']):,.0f}"
    return [s["batch"], rate, *found[:2], f"{speed:.2f}", found[2], str(Comparison(s["two_processes"], s["ddp"]))]


def run(sizes: tuple = SIZES, rounds: int = ROUNDS) -> dict:
    "Measure every batch size."
    busy = wait_until_idle()
    samples = sampled(sizes, rounds)
    speeds, pays = predicted(samples)
    columns = ["Batch", "One thread, steps/s", "Two threads", "Two processes", "Predicted", "DDP", "DDP / processes"]
    result = {"title": "Threads, processes and DDP on two cores", "about": ABOUT, "columns": columns}
    measured = [s["batch"] for s in samples if Comparison(s["two_processes"], s["one_thread"]).quartiles[1] > 1]
    first = f"at {min(measured)}" if measured else "at none of these"
    notes = [*NOTES, f"Two processes should pay from a batch of {pays:,.0f} on; measured, they first do {first}."]
    rows = [row(s, speeds[s["batch"]]) for s in samples]
    raw = {"samples": samples, "predicted": speeds, "pays_from": pays, "busy": busy}
    return result | {"rows": rows, "notes": notes, "raw": raw}
