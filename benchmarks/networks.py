"""Training steps of an MLP, a CNN and an LSTM: forward, loss, backward and Adam, ours against torch eager."""

from collections.abc import Callable
from itertools import cycle
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measure import Comparison, compare_all, threads, wait_until_idle
from benchmarks.optim import PEERS
from dlopt_course.core import num_threads
from dlopt_course.data import load_digits
from dlopt_course.layers import CNN, MLP, RNN
from dlopt_course.losses import cross_entropy, value_and_grad
from dlopt_course.optim import Optimizer, adam

CODE = tuple(f"dlopt_course/{name}.py" for name in ("layers", "losses", "optim", "core")) + ("benchmarks/optim.py",)
CASES = {  # model, shape of a sample, samples in a step
    "MLP 64-32-10": (MLP((64, 32, 10)), (64,), (32, 256)),
    "MLP 100-64-10": (MLP((100, 64, 10)), (100,), (32, 256)),
    "CNN 1x8x8": (CNN((16, 32), 10, (1, 8, 8)), (1, 8, 8), (64,)),
    "CNN 3x32x32": (CNN((16, 32), 10, (3, 32, 32)), (3, 32, 32), (64,)),
    "LSTM 8 rows of 8": (RNN(8, 64, 10), (8, 8), (64,)),
}
BATCHES = 10  # gone through again and again
ROUNDS = 30
PHASES = ("forward", "loss", "backward", "Adam")
loss_and_grad = value_and_grad(cross_entropy)

ABOUT = """\
One step of training: forward, cross-entropy, backward, Adam with its defaults; float32. The MLPs have one hidden layer
with ReLU; the CNNs two blocks, a 3x3 convolution with 16 or 32 channels, ReLU and max-pooling, then a linear layer;
the LSTM has 64 units and reads a digit row by row. Inputs are the handwritten digits, or normal numbers where the
shape is another. Ours is NumPy: `model.apply`, `value_and_grad(cross_entropy)`, the pullback,
`Optimizer(params, adam()).step(grads)`. The peer is torch eager, its modules, `F.cross_entropy`, `backward` and
`torch.optim.Adam`, with the for-loop, its default on a CPU, with `foreach=True` and with `fused=True`, and with as many
threads. A ratio above 1 means that ours is ahead; quartiles are in brackets.
The last columns say where our time goes."""

NOTES = [
    "Target: the MLPs are ahead of torch with its default; the CNNs and the LSTM reach 0.5 or more.",
    "Both sides go through the same batches in the same order, again and again, from the same first parameters.",
    "Ours makes two checks that torch does not make, that the loss and every gradient are finite, and computes the "
    "gradient of the inputs, which torch leaves out.",
    "Lines with the same case and threads were measured together, when other programs left the processor alone; the "
    "share they had is in the raw data.",
]


def batches(shape: tuple, size: int) -> list[tuple]:
    "Inputs (size, *shape) and classes (size,): digits, or normal numbers where these do not fit."
    number, rng = BATCHES * size, np.random.default_rng(0)
    if np.prod(shape) == 64:
        digits = load_digits(dtype=np.float32, scaled=True)
        rows = np.arange(number) % len(digits)
        x, y = digits.x[rows].reshape(-1, *shape), digits.y[rows]
    else:
        x, y = rng.standard_normal((number, *shape), dtype=np.float32), rng.integers(0, 10, number)
    return [(x[i : i + size], y[i : i + size]) for i in range(0, number, size)]


def start(model) -> dict[str, np.ndarray]:
    "The first parameters."
    return model.init(np.random.default_rng(0), np.float32)


def by_numpy(model, params: dict, data: list[tuple], clock: Callable = lambda: 0.0) -> Callable:
    "Our step as a function without arguments that returns the loss, and the times by `clock` around each phase."
    optimizer, data = Optimizer(params, adam()), cycle(data)

    def step():
        x, target = next(data)
        times = [clock()]
        y, pullback = model.apply(params, x)
        times.append(clock())
        loss, slope = loss_and_grad(y, target)
        times.append(clock())
        grads, _ = pullback(slope)
        times.append(clock())
        optimizer.step(grads)
        return loss, [*times, clock()]

    return step


class Recurrent(torch.nn.Module):
    "An LSTM whose last output goes into a linear layer."

    def __init__(self, model: RNN):
        super().__init__()
        self.rnn = torch.nn.LSTM(model.inputs, model.hidden, batch_first=True)
        self.linear = torch.nn.Linear(model.hidden, model.outputs)

    def forward(self, x):
        return self.linear(self.rnn(x)[0][:, -1])


def modules(model) -> torch.nn.Module:
    "The same network in torch."
    if isinstance(model, RNN):
        return Recurrent(model)
    if isinstance(model, MLP):
        (a, b, c), nn = model.sizes, torch.nn
        return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c))
    parts, before, side = [], model.image[0], model.image[1]
    for after in model.channels:
        parts += [torch.nn.Conv2d(before, after, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        before, side = after, side // 2
    return torch.nn.Sequential(*parts, torch.nn.Flatten(), torch.nn.Linear(before * side**2, model.classes))


def by_torch(model, params: dict, data: list[tuple], **options) -> Callable:
    "torch's step, in place on the same arrays."
    network = modules(model)
    network.load_state_dict({name: torch.from_numpy(p) for name, p in params.items()}, assign=True)
    optimizer = torch.optim.Adam(network.parameters(), **options)
    data = cycle([(torch.from_numpy(x), torch.from_numpy(target)) for x, target in data])

    def step():
        x, target = next(data)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), target)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def steps(model, params: dict[str, dict], data: list[tuple]) -> dict[str, Callable]:
    "Our step and the peers' by name, each moving the parameters that it is given under its name."
    ours = by_numpy(model, params["ours"], data)
    return {"ours": lambda: ours()[0]} | {
        peer: by_torch(model, params[peer], data, **options) for peer, options in PEERS.items()
    }


def shares(model, data: list[tuple], calls: int) -> dict[str, float]:
    "The part of a step's time that each phase takes: medians, divided by their sum."
    step = by_numpy(model, start(model), data, perf_counter)
    step()
    seconds = np.median([np.diff(step()[1]) for _ in range(calls)], axis=0)
    return dict(zip(PHASES, (seconds / seconds.sum()).tolist(), strict=True))


def sampled(case: str, size: int, cores: int, rounds: int) -> dict:
    "The samples of one case, ours and the peers', measured in turns."
    model, shape, _ = CASES[case]
    data = batches(shape, size)
    functions = steps(model, {name: start(model) for name in ("ours", *PEERS)}, data)
    busy = wait_until_idle()
    with threads(cores):
        seconds, parts = compare_all(functions, rounds), shares(model, data, rounds)
    return {"case": case, "batch": size, "threads": cores, "busy": busy, "seconds": seconds, "shares": parts}


def row(s: dict) -> list:
    "A line of the table."
    seconds, rate = s["seconds"], f"{1 / np.median(s['seconds']['ours']):,.0f}"
    ratios = [str(Comparison(seconds["ours"], seconds[peer])) for peer in PEERS]
    return [s["case"], s["batch"], s["threads"], rate, *ratios, *(f"{s['shares'][p]:.0%}" for p in PHASES)]


def run(rounds: int = ROUNDS) -> dict:
    "Measure every case with one thread and with all."
    asked = [(case, size, cores) for case in CASES for size in CASES[case][2] for cores in sorted({1, num_threads()})]
    samples = [sampled(*one, rounds) for one in asked]
    columns = ["Network", "Batch", "Threads", "Ours, steps/s", *(f"{peer} / ours" for peer in PEERS), *PHASES]
    result = {"title": "Training steps of networks", "about": ABOUT, "columns": columns, "notes": NOTES}
    return result | {"rows": [row(s) for s in samples], "raw": {"samples": samples}}
