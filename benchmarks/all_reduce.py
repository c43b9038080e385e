"""Adding up an array over two processes: our ring over shared memory against torch's gloo; a line through both."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from benchmarks.measure import Comparison, duration, threads, wait_until_idle
from dlopt_course.parallel import Communicator, Network, all_reduce_seconds, fit_network, run_workers

CODE = ("dlopt_course/parallel.py", "dlopt_course/core.py")
SIZES = [2**k for k in range(12, 24)]  # bytes: 4 KiB to 8 MiB
HELD_OUT = SIZES[1::3]  # on which the lines are not fitted
ROUNDS = 40

ABOUT = """\
The sum of a float32 array over two processes, each with one thread. *Ours* is `Communicator.all_reduce` of the lesson
on parallel training: a ring that is carried out by copying and adding in shared memory, its messages told by counters
that the other process looks at. The peer is `torch.distributed.all_reduce` with gloo, over the machine's own network.
Both are called in turns in the same two processes. A ratio above 1 means that ours is ahead; quartiles are in brackets.
The *model* is 2 alpha + n beta, fitted to the least time of each size; the sizes marked *held out* were not fitted."""

NOTES = [
    "Target: the model is within 30% at the sizes that were held out.",
    "Ours returns a new array, as a pure function does; gloo overwrites the one that it was given.",
    "Gloo also works between machines; shared memory does not.",
    "The least time is what the model describes: what disturbs a measurement only adds to it.",
]


def sampled(sizes: list[int], rounds: int) -> list[dict]:
    "For each size the seconds of a call in each round, of ours and gloo's."
    with tempfile.TemporaryDirectory() as folder:
        ours, _ = run_workers(work, 2, sizes, rounds, Path(folder) / "store", timeout=120)
    return ours


def work(comm: Communicator, sizes: list[int], rounds: int, store: Path) -> list[dict]:
    "What each of the two processes does."
    import torch
    import torch.distributed as dist

    if Path("/sys/class/net/lo").exists():
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=comm.rank, world_size=comm.size)
    try:
        with threads(1):
            return [of_one_size(comm, torch, dist, size, rounds) for size in sizes]
    finally:
        dist.destroy_process_group()


def of_one_size(comm: Communicator, torch, dist, size: int, rounds: int) -> dict:
    "Both in turns, each sample of many calls; first they must agree."
    x = np.random.default_rng(comm.rank).standard_normal(size // 4, dtype=np.float32)
    tensor = torch.from_numpy(x.copy())
    dist.all_reduce(tensor)
    np.testing.assert_array_equal(comm.all_reduce(x), tensor.numpy())
    tensor.zero_()  # what is added again and again must not overflow
    calls = max(1, min(200, 2**20 // size))
    forms = {"ours": lambda: comm.all_reduce(x), "gloo": lambda: dist.all_reduce(tensor)}
    seconds = {name: [] for name in forms}
    for i in range(rounds):
        for name in list(forms)[:: 1 if i % 2 else -1]:
            seconds[name].append(_seconds(comm, forms[name], calls))
    return {"bytes": size, **seconds}


def _seconds(comm: Communicator, f: Callable, calls: int) -> float:
    "Seconds of a call, begun together."
    comm.barrier()
    begin = perf_counter()
    for _ in range(calls):
        f()
    return (perf_counter() - begin) / calls


def fitted(samples: list[dict], name: str) -> Network:
    "The line through the least times of the sizes that are not held out: a ring of two sends each byte once."
    some = [s for s in samples if s["bytes"] not in HELD_OUT]
    return fit_network([s["bytes"] for s in some], [min(s[name]) for s in some], rounds=2)


def row(s: dict, networks: dict[str, Network]) -> list:
    "A line of the table."
    size = f"{s['bytes'] // 1024} KiB" if s["bytes"] < 2**20 else f"{s['bytes'] // 2**20} MiB"
    model = {name: all_reduce_seconds("ring", 2, s["bytes"], network) for name, network in networks.items()}
    found = [f"{seconds / min(s[name]) - 1:+.0%}" for name, seconds in model.items()]
    times = [duration(median(s[name])) for name in networks]
    return [size, *times, str(Comparison(s["ours"], s["gloo"])), *found, "held out" if s["bytes"] in HELD_OUT else ""]


def note(name: str, network: Network) -> str:
    "The fitted line in words."
    speed = f"{1e-9 / network.seconds_per_byte:.1f} GB/s" if network.seconds_per_byte else "no limit"
    return f"Fitted to {name}: alpha {duration(network.latency)}, 1 / beta {speed}."


def run(sizes: list[int] = SIZES, rounds: int = ROUNDS) -> dict:
    "Measure all sizes."
    busy = wait_until_idle()
    samples = sampled(sizes, rounds)
    networks = {name: fitted(samples, name) for name in ("ours", "gloo")}
    columns = ["Array", "Ours", "gloo", "gloo / ours", "Model of ours", "Model of gloo", ""]
    result = {"title": "All-reduce between two processes", "about": ABOUT, "columns": columns}
    notes = [*NOTES, *(note(name, network) for name, network in networks.items())]
    raw = {"samples": samples, "held_out": HELD_OUT, "busy": busy, "networks": dict(networks)}
    return result | {"rows": [row(s, networks) for s in samples], "notes": notes, "raw": raw}
