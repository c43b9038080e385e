"""One step of Adam and AdamW on arrays of all sizes: plain, blocked, threaded and compiled, against torch's three."""

from collections.abc import Callable
from itertools import product
from threading import Thread

import numpy as np
import torch

from benchmarks.measure import (
    Comparison,
    compare_all,
    duration,
    in_new_processes,
    peak_memory,
    threads,
    wait_until_idle,
)
from dlopt_course.core import num_threads
from dlopt_course.optim import _BLOCK, Optimizer, Rule, adam, adamw

CODE = ("dlopt_course/optim.py", "dlopt_course/core.py")
PACKAGES = ("numpy", "torch", "numba")
RULES = {"Adam": (adam, torch.optim.Adam), "AdamW": (adamw, torch.optim.AdamW)}
ROUNDS = {(1, 10**4): 40, (1, 10**6): 30, (1, 10**7): 12, (1, 10**8): 5, (1000, 1000): 30}  # arrays, numbers in each
SIZES = {"Adam": list(ROUNDS), "AdamW": [(1, 10**6), (1, 10**7), (1000, 1000)]}
STATE = 8  # bytes of Adam's state for each number: two means in float32
MIB = 2**20

ABOUT = f"""\
One step of Adam and of AdamW on float32 parameters: one array of {10**4:,} to {10**8:,} numbers, and 1,000 arrays of
1,000. *Plain* is the readable rule that the lesson derives, applied to whole arrays. The other forms are
`Optimizer(params, rule).step(grads)`: *blocked* is NumPy on blocks that stay in the cache, on one thread; *threaded*
is the same on all threads; *compiled* is a numba loop on all threads. They first check that every gradient is finite.
torch does not, so *compiled, unchecked*, which leaves the check out, is what does the same work as torch. The peers
are torch's for-loop (`foreach=False`, its default on a CPU), `foreach=True` and `fused=True`, with as many threads.
Forms and peers take turns and share parameters and gradients; the state is their own. A ratio above 1 means that ours
is ahead; quartiles are in brackets."""

NOTES = [
    "Target: blocked and threaded NumPy is ahead of the for-loop and of foreach at every size; compiled is level with "
    "fused (0.95 or more) from 1,000,000 numbers up.",
    f"Target: memory beyond parameters, gradients and state is one block of {_BLOCK:,} numbers for each thread, "
    f"{_BLOCK * 4 / MIB:g} MiB.",
    "Memory is the peak that Python and NumPy allocated to make an optimizer and do its first step in a new process, "
    "without the state: buffers that are kept for the next step count. torch's cannot be seen this way.",
    "Lines with the same rule, size and threads were measured together, when other programs left the processor alone; "
    "the share they had is in the raw data.",
]


def plain(params: dict, grads: dict, rule: Rule) -> Callable:
    "The readable rule on whole arrays, as a function without arguments that does one step."
    states = {name: rule.init(p) for name, p in params.items()}

    def step():
        for name, p in params.items():
            move, states[name] = rule.update(grads[name], states[name], p)
            p += move

    return step


def by_optimizer(**options) -> Callable:
    "A form: what makes such a function of an `Optimizer` with these options."

    def form(params: dict, grads: dict, rule: Rule) -> Callable:
        optimizer = Optimizer(params, rule, **options)
        return lambda: optimizer.step(grads)

    return form


FORMS = {
    "plain": plain,
    "blocked": by_optimizer(compiled=False),
    "threaded": by_optimizer(compiled=False),
    "compiled": by_optimizer(compiled=True),
    "compiled, unchecked": by_optimizer(compiled=True, check_finite=False),
}
ON_ONE_THREAD = ("plain", "blocked")
PEERS = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def by_torch(params: dict, grads: dict, make: Callable, options: dict) -> Callable:
    "One step of torch's optimizer, on the same memory."
    tensors = [torch.from_numpy(p).requires_grad_() for p in params.values()]
    for tensor, grad in zip(tensors, grads.values(), strict=True):
        tensor.grad = torch.from_numpy(grad)
    return make(tensors, **options).step


def arrays(number: int, size: int) -> tuple[dict, dict]:
    "Parameters and gradients by name, standard normal."
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(number)]
    return tuple({name: rng.standard_normal(size, dtype=np.float32) for name in names} for _ in range(2))


def steps(rule: str, forms: tuple, params: dict, grads: dict) -> dict[str, Callable]:
    "The steps of some forms and of all peers, by name."
    ours, torchs = RULES[rule]
    return {form: FORMS[form](params, grads, ours()) for form in forms} | {
        peer: by_torch(params, grads, torchs, options) for peer, options in PEERS.items()
    }


def cores_of(form: str) -> int:
    "How many threads a form is measured with."
    return 1 if form in ON_ONE_THREAD else num_threads()


def memory(
    rule: str,  # its name in RULES
    form: str,  # its name in FORMS
    cores: int,  # threads
    number: int,  # of arrays
    size: int,  # of each
) -> int:  # bytes
    "What making an optimizer and its first step allocate beyond the state; to be called in a new process."

    def whole(params, grads):
        step = FORMS[form](params, grads, RULES[rule][0]())
        step()
        return step

    with threads(cores):
        loads = Thread(target=whole, args=arrays(1, 1))  # loads compiled code; a thread's buffers go when it ends
        loads.start()
        loads.join()
        params, grads = arrays(number, size)
        return peak_memory(lambda: whole(params, grads), lambda step: STATE * number * size, first=True)


def memories(rounds: dict) -> dict[tuple, int]:
    "The memory of every rule, form and size, by rule, form, threads, number of arrays and their size."
    shapes = [(rule, shape) for rule in RULES for shape in SIZES[rule] if shape in rounds]
    cases = [(rule, form, cores_of(form), *shape) for rule, shape in shapes for form in FORMS]
    return dict(zip(cases, in_new_processes(memory, cases), strict=True))


def sampled(rule: str, shape: tuple, forms: tuple, rounds: int) -> dict:
    "The samples of some forms, which have the same threads, and of all peers, measured in turns."
    functions, cores = steps(rule, forms, *arrays(*shape)), cores_of(forms[0])
    busy = wait_until_idle()
    with threads(cores):
        seconds = compare_all(functions, rounds)
    return {"rule": rule, "arrays": list(shape), "threads": cores, "busy": busy, "seconds": seconds}


def rows(samples: dict) -> list[list]:
    "The lines of the table from one set of samples."
    number, size = samples["arrays"]
    case = [samples["rule"], f"{number:,} x {size:,}" if number > 1 else f"{size:,}"]
    return [
        [*case, form, samples["threads"], *times(samples["seconds"], form), f"{beyond / MIB:.2f} MiB"]
        for form, beyond in samples["memory"].items()
    ]


def times(seconds: dict, form: str) -> list[str]:
    "Our time, and the ratio to it of each peer's."
    ratios = [str(Comparison(seconds[form], seconds[peer])) for peer in PEERS]
    return [duration(np.median(seconds[form])), *ratios]


def run(rounds: dict = ROUNDS) -> dict:
    "Measure every rule, size and form."
    samples, found = [], memories(rounds)
    together = [ON_ONE_THREAD, tuple(form for form in FORMS if form not in ON_ONE_THREAD)]
    for rule in RULES:
        for shape, forms in product([shape for shape in SIZES[rule] if shape in rounds], together):
            memory_of = {form: found[rule, form, cores_of(form), *shape] for form in forms}
            samples.append(sampled(rule, shape, forms, rounds[shape]) | {"memory": memory_of})
    columns = ["Rule", "Numbers", "Form", "Threads", "Ours", *(f"{peer} / ours" for peer in PEERS), "Memory"]
    result = {"title": "One step of Adam and AdamW", "about": ABOUT, "columns": columns, "notes": NOTES}
    return result | {"rows": [row for s in samples for row in rows(s)], "raw": {"samples": samples}}
