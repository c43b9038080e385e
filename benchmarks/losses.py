"""Softmax cross-entropy, value and gradient: ours in blocks on threads, and the plain form, against torch."""

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measure import compare, duration, peak_memory, threads, wait_until_idle
from dlopt_course.core import num_threads
from dlopt_course.losses import _BLOCK, cross_entropy, cross_entropy_grad, value_and_grad

CODE = ("dlopt_course/losses.py", "dlopt_course/core.py")
SIZES = {(256, 10): 40, (4096, 1000): 20, (65536, 1000): 7}  # shape of the logits: rounds
MIB = 2**20
together = value_and_grad(cross_entropy)

ABOUT = """\
Value and gradient of softmax cross-entropy for float32 logits and class indices. The peer is torch: forward and
backward, with as many threads. *Blocks* is `value_and_grad(cross_entropy)` on NumPy arrays: one pass over blocks that
stay in the cache, on all threads. Logits are standard normal; ten times as large, they need a shift by the row's
maximum first, which costs two more passes (torch always does it). *Plain* is the readable form that the lesson
derives, `cross_entropy` and then `cross_entropy_grad`, on NumPy arrays and, the same code, on torch tensors. A ratio
above 1 means that ours is ahead."""

NOTES = [
    f"Target: blocks are ahead at each size, and beyond the gradient that they return need at most one block "
    f"({_BLOCK * 4 // MIB} MiB) for each thread.",
    "Memory is the peak that NumPy allocated beyond inputs and returned gradient; torch's cannot be seen this way.",
    "Each line was measured when other programs left the processor alone; the share they had is in the raw data.",
    "The plain form writes every intermediate result, n x k numbers, to memory: that is what blocks avoid.",
]


def by_torch(logits: np.ndarray, target: np.ndarray):
    "torch's forward and backward as a function without arguments."
    z, t = torch.asarray(logits).clone().requires_grad_(), torch.asarray(target)

    def step():
        z.grad = None
        value = F.cross_entropy(z, t)
        value.backward()
        return value, z.grad

    return step


def forms(logits: np.ndarray, target: np.ndarray) -> dict:
    "What is measured, by name: functions without arguments that return value and gradient."
    z, t, wide = torch.asarray(logits), torch.asarray(target), 10 * logits
    return {
        "blocks": lambda: together(logits, target),
        "blocks, logits x 10": lambda: together(wide, target),
        "plain, NumPy": lambda: (cross_entropy(logits, target), cross_entropy_grad(logits, target)),
        "plain, torch": lambda: (cross_entropy(z, t), cross_entropy_grad(z, t)),
    }


def row(shape, cores: int, name: str, ours, peer, rounds: int) -> tuple[list, dict]:
    "One line of the table, and its samples."
    busy = wait_until_idle()
    with threads(cores):
        result = compare(ours, peer, rounds if "blocks" in name else max(3, rounds // 4))
        memory = None if "torch" in name else peak_memory(ours, lambda both: both[1].nbytes)
    low, middle, high = result.quartiles
    cells = ["{} x {}".format(*shape), name, cores, duration(np.median(result.ours)), duration(np.median(result.peer))]
    cells += [f"{middle:.2f}", f"{low:.2f} to {high:.2f}", "" if memory is None else f"{memory / MIB:.2f} MiB"]
    return cells, {"shape": list(shape), "form": name, "threads": cores, "memory": memory, "busy": busy, **result.raw()}


def run() -> dict:
    "Measure every size, form and number of threads."
    rng, rows, raw = np.random.default_rng(0), [], []
    for shape, rounds in SIZES.items():
        logits, target = rng.standard_normal(shape, dtype=np.float32), rng.integers(0, shape[1], shape[0])
        peer = by_torch(logits, target)
        for cores in sorted({1, num_threads()}):
            for name, ours in forms(logits, target).items():
                cells, samples = row(shape, cores, name, ours, peer, rounds)
                rows.append(cells)
                raw.append(samples)
    columns = ["Logits", "Form", "Threads", "Ours", "torch", "torch / ours", "Quartiles", "Memory"]
    title = "Softmax cross-entropy, value and gradient"
    return {"title": title, "about": ABOUT, "columns": columns, "rows": rows, "notes": NOTES, "raw": {"samples": raw}}
