"""Train the course's network on any number of processes and machines:

    torchrun --standalone --nproc-per-node 2 -m dlopt_course.app.distributed --sharding fsdp2

Each process, a worker, runs this file from beginning to end. Its rank alone tells it which part of a batch is its own.
"""

import gc
import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
import torch.distributed as dist
import typer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.elastic.multiprocessing.errors import record
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from dlopt_course.core import check_count, check_in, check_number, write_atomic
from dlopt_course.data import Dataset, load_digits, split
from dlopt_course.layers import MLP

PARENT = os.getppid()  # torchrun, if it started this process


@dataclass(frozen=True)
class Training:
    "All that the result depends on: the number of workers, their devices and the sharding do not belong to it."

    data: str = "digits"  # or "synthetic"
    hidden: tuple = (64,)  # units of each hidden layer
    batch_size: int = 128  # samples of a step, all workers together
    lr: float = 1e-2  # learning rate of AdamW
    seed: int = 0  # of the split, the first parameters and the order of the samples
    dtype: str = "float32"  # or "float64"

    def __post_init__(self):
        check_in("data", self.data, ("digits", "synthetic"))
        check_in("dtype", self.dtype, ("float32", "float64"))
        for name, value in {"hidden": min(self.hidden, default=1), "batch-size": self.batch_size}.items():
            check_count(name, value)
        check_number("lr", self.lr, lambda v: v > 0, "greater than 0")


# The workers


def join(device: str, timeout: float) -> torch.device:
    "Meet the other workers; returns the device of this one. Without torchrun this process is the only worker."
    check_in("device", device, ("auto", "cpu", "cuda"))
    check_number("timeout", timeout, lambda v: 0 < v <= 1e8, "greater than 0, and at most 1e8")
    check_restarts()
    gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    here = torch.device("cuda", own_gpu()) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(here)
    alone = {} if "WORLD_SIZE" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(seconds=timeout), **alone)
    return here


def leave() -> None:
    "Part from the others. What uses the group must be gone: as its last holder it may wait for it for ever."
    gc.collect()  # DDP and FSDP2 hold themselves (pytorch/pytorch#56297)
    dist.destroy_process_group()


def check_restarts() -> None:
    "Raise where workers that torchrun starts again would find the addresses of those that are gone, and wait for them."
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if shared and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)):
        raise ValueError(
            "--max-restarts must be 0 unless torchrun has TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment and "
            "--rdzv-backend c10d or --standalone among its options (pytorch/pytorch#135712)"
        )


def own_gpu() -> int:
    "The GPU of this worker: each on a machine has one of its own."
    local, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if local >= gpus:
        raise ValueError(f"every worker needs a GPU of its own, this machine has {gpus}: start at most that many on it")
    return local


def check_parent() -> None:
    "End this worker if torchrun, which started it, was killed: nobody could stop it otherwise."
    if dist.is_torchelastic_launched() and os.getppid() != PARENT:
        raise SystemExit("torchrun is gone, its workers end too")


def make_network(sizes: tuple, seed: int, dtype: str) -> nn.Sequential:
    "The course's MLP in torch: the same names, shapes and first numbers."
    layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    network = nn.Sequential(*layers[:-1]).to(getattr(torch, dtype))
    params = MLP(sizes).init(np.random.default_rng(seed), dtype)
    network.load_state_dict({name: torch.from_numpy(p) for name, p in params.items()})
    return network


def spread(network: nn.Sequential, sharding: str, device: torch.device) -> nn.Module:
    "The network on all workers: a copy on each (DDP), or a share of each parameter on each (FSDP2)."
    check_in("sharding", sharding, ("ddp", "fsdp2"))
    network.to(device)
    if sharding == "ddp":
        return DistributedDataParallel(network)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in network:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)  # gathered when it is used, and given up at once
    return fully_shard(network, mesh=mesh)


# The data


def load(training: Training) -> tuple[Dataset, Dataset]:
    "Training and test part."
    rng = np.random.default_rng(training.seed)
    if training.data == "digits":
        return split(load_digits(scaled=True, dtype=training.dtype), rng=rng)
    x = rng.standard_normal((8192, 64)).astype(training.dtype)
    y = (x @ rng.standard_normal((64, 10)).astype(training.dtype)).argmax(axis=1)
    return split(Dataset(x, y, class_names=tuple("0123456789")), rng=rng)


def batches(training: Training, samples: int, epochs: int) -> Iterator[np.ndarray]:
    "The samples of each step, in an order that depends on seed and epoch, and not on the workers."
    for epoch in range(epochs):
        order = np.random.default_rng((training.seed, epoch)).permutation(samples)
        yield from (order[i : i + training.batch_size] for i in range(0, samples, training.batch_size))


def own(rows: np.ndarray) -> np.ndarray:
    "The part of this worker; parts may differ by one sample, and be empty."
    return np.array_split(rows, dist.get_world_size())[dist.get_rank()]


# The training


class Worker(NamedTuple):
    "What a worker holds."

    network: nn.Sequential  # its parameters are copies (DDP) or shares (FSDP2) of the whole
    model: nn.Module  # what is called: it exchanges parameters and gradients with the others
    optimizer: torch.optim.Optimizer
    part: tuple  # inputs and classes to train on, all of them
    test: tuple  # and those to test with


def start(training: Training, sharding: str, device: torch.device) -> Worker:
    "A worker at the beginning of the training."
    part, test = (tuple(torch.from_numpy(a).to(device) for a in (d.x, d.y)) for d in load(training))
    network = make_network((part[0].shape[1], *training.hidden, 10), training.seed, training.dtype)
    model = spread(network, sharding, device)
    return Worker(network, model, torch.optim.AdamW(network.parameters(), lr=training.lr), part, test)


def step(worker: Worker, rows: np.ndarray) -> torch.Tensor:
    "One step on the batch `rows`; returns this worker's share of its loss."
    x, y = (a[own(rows)] for a in worker.part)
    loss = cross_entropy(worker.model(x), y, reduction="sum") / len(rows)  # of the whole batch: parts are unequal
    worker.optimizer.zero_grad()
    (loss * dist.get_world_size()).backward()  # DDP and FSDP2 divide the sum over the workers by their number
    worker.optimizer.step()
    return loss.detach()


def train(training: Training, epochs: int, worker: Worker, checkpoint: Path | None, every: int) -> None:
    "Train from the checkpoint, if there is one, to the end of the last epoch."
    samples, shares = len(worker.part[0]), []
    per_epoch, first = -(-samples // training.batch_size), resume(checkpoint, training, worker)
    for done, rows in islice(enumerate(batches(training, samples, epochs), 1), first, None):
        check_parent()
        shares.append(step(worker, rows))
        if done % per_epoch == 0:
            loss = total(shares) / len(shares)
            say(f"epoch {done // per_epoch}: loss {loss:.4f}")
            shares.clear()
        if done % every == 0 or done == per_epoch * epochs:
            save(checkpoint, training, done, worker)
    right = accuracy(worker)
    say(f"{right:.2%} of {len(worker.test[0])} test samples right")


def total(shares: list[torch.Tensor]) -> float:
    "The sum of the shares of all workers; all must ask for it."
    x = torch.stack(shares).sum()
    dist.all_reduce(x)
    return x.item()


def accuracy(worker: Worker) -> float:
    "The share of the test samples that are classified right; all workers must ask for it."
    x, y = (a[own(np.arange(len(a)))] for a in worker.test)
    with torch.no_grad():
        return total([(worker.model(x).argmax(dim=1) == y).sum()]) / len(worker.test[0])


def say(text: str) -> None:
    "Print it once, not on every worker."
    if dist.get_rank() == 0:
        print(text, flush=True)


# The checkpoint: whole arrays in one .npz file, written by rank 0, so that any number of workers can go on from it


def save(path: Path | None, training: Training, done: int, worker: Worker) -> None:
    "Write all that is needed to go on, completely or not at all."
    if path is None:
        return
    arrays = contents(worker)
    if dist.get_rank() > 0:
        return
    if bad := [name for name, x in arrays.items() if not np.isfinite(x).all()]:
        raise FloatingPointError(f"not finite after step {done}: {', '.join(bad)}; {path} stays as it was")
    file, about = io.BytesIO(), json.dumps({"done": done, "training": asdict(training)})
    np.savez(file, about=about, **arrays)
    write_atomic(path, file.getvalue())


def contents(worker: Worker) -> dict[str, np.ndarray]:
    "Parameters and the optimizer's state, whole; all workers must ask for it."
    found = {}
    for name, param in worker.network.named_parameters():
        found[f"params/{name}"] = param.detach()
        found |= {f"optimizer/{name}/{key}": x for key, x in worker.optimizer.state[param].items()}
    return {name: whole(x).cpu().numpy() for name, x in found.items()}


def whole(x: torch.Tensor) -> torch.Tensor:
    "A tensor whose shares are on many workers, in one piece."
    return x.full_tensor() if isinstance(x, DTensor) else x


def share(x: np.ndarray, param: torch.Tensor) -> torch.Tensor:
    "What this worker holds of an array, if it is cut as the parameter is; numbers are not cut."
    if x.ndim == 0:
        return torch.from_numpy(x)
    x = torch.from_numpy(x).to(param.device)
    return distribute_tensor(x, param.device_mesh, param.placements) if isinstance(param, DTensor) else x


def resume(path: Path | None, training: Training, worker: Worker) -> int:
    "Put back what was saved, if there is a file; returns how many steps are done."
    found = [read(path, training) if path and dist.get_rank() == 0 else None]
    dist.broadcast_object_list(found)  # only the machine of rank 0 needs the file
    if found[0] is None:
        return 0
    done, arrays = found[0]
    for name, param in worker.network.named_parameters():
        prefix = f"optimizer/{name}/"
        state = {key.removeprefix(prefix): x for key, x in arrays.items() if key.startswith(prefix)}
        worker.optimizer.state[param] = {key: share(x, param) for key, x in state.items()}
        param.detach().copy_(share(arrays[f"params/{name}"], param))
    say(f"going on after step {done} of {path}")
    return done


def read(path: Path, training: Training) -> tuple[int, dict] | None:
    "Steps done and arrays of a checkpoint, None if there is none; raises ValueError where it does not belong here."
    for rest in path.parent.glob(f".{path.name}.*.part"):  # of a worker that was killed while it wrote
        rest.unlink()
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            arrays = dict(file)
        about = json.loads(str(arrays.pop("about")))
        done, was = about["done"], about["training"]
    except (ValueError, TypeError, KeyError, EOFError, IsADirectoryError, BadZipFile) as error:
        raise ValueError(f"{path} must be a checkpoint of this program, or not exist: {error}") from None
    asked = json.loads(json.dumps(asdict(training)))
    if other := [f"{name} {was.get(name)!r}, now {value!r}" for name, value in asked.items() if was.get(name) != value]:
        raise ValueError(f"{path} is of another training: {'; '.join(other)}. Ask for the same, or for another file")
    return done, arrays


# The command


@record  # what a worker raises is what torchrun shows at the end
def main(
    sharding: Annotated[str, typer.Option(help="ddp: a copy of the network on each worker; fsdp2: a share.")] = "ddp",
    epochs: Annotated[int, typer.Option(help="How often all samples are gone through.", min=1)] = 5,
    batch_size: Annotated[int, typer.Option(help="Samples of a step, of all workers together.")] = 128,
    lr: Annotated[float, typer.Option(help="Learning rate of AdamW.")] = 1e-2,
    hidden: Annotated[list[int], typer.Option(help="Units of a hidden layer; give it again for another.")] = [64],  # noqa: B006
    data: Annotated[str, typer.Option(help="digits or synthetic.")] = "digits",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    seed: Annotated[int, typer.Option(help="Of split, first parameters and order.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is a GPU.")] = "auto",
    checkpoint: Annotated[Path | None, typer.Option(help="An .npz file; if it exists, training goes on.")] = None,
    save_every: Annotated[int, typer.Option(help="Steps between two checkpoints.", min=1)] = 100,
    timeout: Annotated[float, typer.Option(help="Seconds that a worker waits for another.")] = 600.0,
) -> None:
    "Train a small network on all workers that torchrun started, or here alone."
    training = Training(data, tuple(hidden), batch_size, lr, seed, dtype)
    train(training, epochs, start(training, sharding, join(device, timeout)), checkpoint, save_every)
    leave()


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
