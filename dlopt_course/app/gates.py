"""Every engine of lesson 9 trains one network from the same start: how far apart do they end?

    torchrun --standalone --nproc-per-node 2 -m dlopt_course.app.gates

PyTorch's engines run on the workers of torchrun, the course's own on rank 0. Planted errors must be noticed.
"""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.distributed as dist
import typer
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn.functional import cross_entropy as torch_cross_entropy

from dlopt_course.app.distributed import (
    Training,
    Worker,
    batches,
    contents,
    join,
    leave,
    load,
    make_network,
    own,
    start,
    step,
)
from dlopt_course.core import assert_close, write_atomic
from dlopt_course.layers import MLP
from dlopt_course.losses import cross_entropy
from dlopt_course.optim import adamw
from dlopt_course.parallel import train_data_parallel

LIMIT = 1e-12
EPOCHS = 8  # of three steps each
TRAINING = Training(hidden=(32,), batch_size=673, dtype="float64")  # 673, 673 and 1 of 1347 samples
REFERENCE = "PyTorch, one process, full batch"


def gate(engine: str, params: dict, reference: dict) -> float:
    "The largest difference between two ends of a training; raises AssertionError above the limit."
    if params.keys() != reference.keys():
        raise AssertionError(f"{engine} has {', '.join(params)}, the reference {', '.join(reference)}")
    for name, x in params.items():
        assert_close(x, reference[name], rtol=0, atol=LIMIT, name=f"{name} of {engine}")
    return difference(params, reference)


def difference(params: dict, reference: dict) -> float:
    "The largest difference of any number."
    return max(float(np.abs(x - reference[name]).max()) for name, x in params.items())


# The engines: each returns its parameters after the last step


def in_one_process() -> dict:
    "Nothing is spread: PyTorch's loss of the whole batch, its gradient, its step."
    data, _ = load(TRAINING)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    network = make_network((x.shape[1], *TRAINING.hidden, 10), TRAINING.seed, TRAINING.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=TRAINING.lr)
    for rows in batches(TRAINING, len(x), EPOCHS):
        optimizer.zero_grad()
        torch_cross_entropy(network(x[rows]), y[rows]).backward()
        optimizer.step()
    return {name: p.detach().numpy() for name, p in network.named_parameters()}


def spread_by_torch(sharding: str, device: torch.device, step: Callable = step) -> dict:
    "PyTorch's engines, on all workers of torchrun."
    worker = start(TRAINING, sharding, device)
    for rows in batches(TRAINING, len(worker.part[0]), EPOCHS):
        step(worker, rows)
    return {k.removeprefix("params/"): x for k, x in contents(worker).items() if k.startswith("params/")}


def spread_by_course(workers: int, **options) -> dict:
    "Lesson 9's data parallel training, on threads of this process or processes of its own."
    data, _ = load(TRAINING)
    model = MLP((data.x.shape[1], *TRAINING.hidden, 10))
    params = model.init(np.random.default_rng(TRAINING.seed))
    options = {"workers": workers, "batch_size": TRAINING.batch_size, "epochs": EPOCHS, "seed": TRAINING.seed} | options
    return train_data_parallel(model, params, data, cross_entropy, adamw(TRAINING.lr), **options).params


# Planted errors, as they really happen


def mean_of_means(worker: Worker, rows: np.ndarray) -> None:
    "Each worker divides by the size of its own part."
    x, y = (a[own(rows)] for a in worker.part)
    loss = torch_cross_entropy(worker.model(x), y, reduction="sum") / max(len(y), 1)
    worker.optimizer.zero_grad()
    loss.backward()
    worker.optimizer.step()


def missing_synchronisation(worker: Worker, rows: np.ndarray) -> None:
    "Each worker steps by its own gradient."
    with worker.model.no_sync():
        step(worker, rows)


def stale_shard(worker: Worker, rows: np.ndarray) -> None:
    "The last worker loses its steps."
    before = [p.detach().clone() for p in worker.network.parameters()]
    step(worker, rows)
    if dist.get_rank() == dist.get_world_size() - 1:
        for p, old in zip(worker.network.parameters(), before, strict=True):
            p.detach().copy_(old)


# The table


def engines(device: torch.device) -> dict[str, Callable]:
    "What is to agree, by name. PyTorch's engines need all workers, the others rank 0 alone."
    workers = dist.get_world_size()
    found = {
        f"PyTorch DDP, {workers} workers": partial(spread_by_torch, "ddp", device),
        f"PyTorch FSDP2, {workers} workers": partial(spread_by_torch, "fsdp2", device),
    }
    for count in (1, 2, 4):
        found[f"NumPy, {count} worker{'s' * (count > 1)}"] = partial(spread_by_course, count, processes=False)
    for stage in (1, 2, 3):
        found[f"NumPy, ZeRO stage {stage}, 2 workers"] = partial(spread_by_course, 2, stage=stage, processes=False)
    return found | {"NumPy, 2 processes": partial(spread_by_course, 2)}


def planted(device: torch.device) -> dict[str, Callable]:
    "What is to be noticed, by name."
    return {
        "a mean of means (DDP)": partial(spread_by_torch, "ddp", device, mean_of_means),
        "a missing synchronisation (DDP)": partial(spread_by_torch, "ddp", device, missing_synchronisation),
        "a stale shard (FSDP2)": partial(spread_by_torch, "fsdp2", device, stale_shard),
    }


def ends(wanted: dict[str, Callable]) -> dict[str, dict]:
    "The parameters with which each engine ends."
    first = dist.get_rank() == 0
    return {name: train() for name, train in wanted.items() if first or "NumPy" not in name}


def noticed(error: str, params: dict, reference: dict) -> float:
    "The largest difference that a planted error makes; raises AssertionError where the gate lets it pass."
    try:
        gate(error, params, reference)
    except AssertionError:
        return difference(params, reference)
    raise AssertionError(f"{error} was not noticed")


def arrays(found: dict[str, dict]) -> dict[str, np.ndarray]:
    "All parameters in one dict, as `engine/parameter`."
    return {f"{engine}/{name}": x for engine, params in found.items() for name, x in params.items()}


@record
def main(
    device: Annotated[str, typer.Option(help="Of PyTorch's engines: cpu, cuda or auto.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="An .npz file for the parameters of all engines.")] = None,
) -> None:
    "Show how far the engines end from one process that has the full batch, and that planted errors are noticed."
    here = join(device, timeout=600)
    good, bad = ends(engines(here)), ends(planted(here)) if dist.get_world_size() > 1 else {}
    if dist.get_rank() == 0:
        reference = in_one_process()
        for name, params in good.items():
            print(f"{name:36} {gate(name, params, reference):.1e}  equal", flush=True)
        for name, params in bad.items():
            print(f"{name:36} {noticed(name, params, reference):.1e}  noticed", flush=True)
        if out:
            file = io.BytesIO()
            np.savez(file, **arrays({REFERENCE: reference} | good | bad))
            write_atomic(out, file.getvalue())
    leave()


# From a notebook or a test


def launch(
    module: str,  # what python -m runs
    *options: str,  # what it is given
    workers: int = 2,  # processes on this machine
    timeout: float = 600.0,  # seconds after which all are ended
) -> str:  # what was printed
    "Run a module by torchrun on this machine. Raises RuntimeError with the workers' own words where it fails."
    torchrun = "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)
    command = [sys.executable, "-m", *torchrun, "-m", module, *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={"OMP_NUM_THREADS": "1"} | os.environ, **pipes) as process:
        try:
            printed, complaints = process.communicate(timeout=timeout)
        finally:
            process.terminate()  # torchrun then ends its workers; killed, it could not
    if process.returncode:
        raise RuntimeError(f"{module} failed:\n{complaints}")
    return printed


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
