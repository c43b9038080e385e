"""A training step of a small network, gradients and Adam: written out in NumPy against torch eager."""

from collections.abc import Callable
from itertools import cycle

import numpy as np

from benchmarks import networks
from benchmarks.measure import compare_all, threads, wait_until_idle
from benchmarks.optim import PEERS, times
from dlopt_course.core import num_threads
from dlopt_course.data import load_digits
from dlopt_course.layers import MLP
from dlopt_course.losses import cross_entropy, value_and_grad
from dlopt_course.optim import Optimizer, adam

CODE = (*networks.CODE, "benchmarks/networks.py")
HIDDEN, BATCH = 32, 32
NETWORK = MLP((64, HIDDEN, 10))
ROUNDS = 40
loss_and_grad = value_and_grad(cross_entropy)

ABOUT = f"""\
One step of training on the handwritten digits: 64 pixels, {HIDDEN} hidden units with ReLU, 10 classes, cross-entropy,
{BATCH} digits a step, float32, Adam with its defaults. Ours is NumPy: the gradients are written out, and
`Optimizer(params, adam()).step(grads)` moves the parameters. *Unchecked* leaves out its check that every gradient is
finite, which torch does not make. The peer is torch eager, `nn.Sequential`, `F.cross_entropy`, `backward` and
`torch.optim.Adam`, with the for-loop, its default on a CPU, with `foreach=True` and with `fused=True`, and with as many
threads. A ratio above 1 means that ours is ahead; quartiles are in brackets."""

NOTES = [
    "Target: ahead of torch eager.",
    "Both sides go through the same batches in the same order, again and again.",
    "Arrays of this size take less time than the calls that work on them: what is compared is the cost of calls.",
    "Lines with the same threads were measured together, when other programs left the processor alone; the share they "
    "had is in the raw data.",
]


def start() -> dict[str, np.ndarray]:
    "Parameters by torch's names."
    rng, params = np.random.default_rng(0), {}
    for layer, shape in {"0": (HIDDEN, 64), "2": (10, HIDDEN)}.items():
        params[f"{layer}.weight"] = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[1]))
        params[f"{layer}.bias"] = np.zeros(shape[0], np.float32)
    return params


def batches() -> list[tuple]:
    "All digits, cut into pixels (batch, 64) and classes (batch,)."
    digits = load_digits(dtype=np.float32, scaled=True)
    starts = range(0, len(digits.x) - BATCH + 1, BATCH)
    return [(digits.x[i : i + BATCH], digits.y[i : i + BATCH]) for i in starts]


def by_numpy(params: dict, **options) -> Callable:
    "Our step as a function without arguments that returns the loss."
    optimizer, data = Optimizer(params, adam(), **options), cycle(batches())
    w1, b1, w2, b2 = params.values()

    def step():
        x, target = next(data)
        hidden = np.maximum(x @ w1.T + b1, 0)
        loss, out = loss_and_grad(hidden @ w2.T + b2, target)
        inner = (out @ w2) * (hidden > 0)
        grads = inner.T @ x, inner.sum(0), out.T @ hidden, out.sum(0)
        optimizer.step(dict(zip(params, grads, strict=True)))
        return loss

    return step


FORMS = {"NumPy": {}, "NumPy, unchecked": {"check_finite": False}}


def steps(params: dict[str, dict]) -> dict[str, Callable]:
    "Our forms and the peers by name, each moving the parameters that it is given under its name."
    ours = {form: by_numpy(params[form], **options) for form, options in FORMS.items()}
    return ours | {
        peer: networks.by_torch(NETWORK, params[peer], batches(), **options) for peer, options in PEERS.items()
    }


def run(rounds: int = ROUNDS) -> dict:
    "Measure both forms with one thread and with all."
    samples = []
    for cores in sorted({1, num_threads()}):
        functions = steps({name: start() for name in (*FORMS, *PEERS)})
        busy = wait_until_idle()
        with threads(cores):
            samples.append({"threads": cores, "busy": busy, "seconds": compare_all(functions, rounds)})
    columns = ["Form", "Threads", "Ours", *(f"{peer} / ours" for peer in PEERS)]
    rows = [[form, s["threads"], *times(s["seconds"], form)] for s in samples for form in FORMS]
    result = {"title": "A training step of a small network", "about": ABOUT, "columns": columns, "rows": rows}
    return result | {"notes": NOTES, "raw": {"samples": samples}}
