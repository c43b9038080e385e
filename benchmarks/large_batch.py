"""Larger batches on digits: how far the learning rate scales with them, and whether the noise scale told so."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from statistics import mean, median

import numpy as np

from benchmarks.measure import threads
from dlopt_course.core import num_threads
from dlopt_course.data import load_digits
from dlopt_course.layers import MLP
from dlopt_course.losses import cross_entropy, cross_entropy_grad
from dlopt_course.optim import Optimizer, sgd

MODULES = ("core", "data", "layers", "losses", "optim", "parallel")
CODE, PACKAGES = tuple(f"dlopt_course/{name}.py" for name in MODULES), ("numpy", "scikit-learn")
BATCHES = (16, 32, 64, 128, 256, 512, 1024)
SEEDS = range(100, 105)  # of the split, the start and the order; the base rate was chosen on others
BASE_BATCH, BASE_RATE, MOMENTUM = 16, 0.1, 0.9  # the best of 0.0125, 0.025, … 0.4 at this batch
TRAIN, EPOCHS, WARM_UP = 1280, 30, 5  # samples, passes over them, and passes of the warm-up
TARGET, RATES = 0.1, tuple(0.05 * 2.0**i for i in range(6))  # training loss to be reached, rates that are tried
STEPS = 600  # at which a run that does not reach it is given up: at the best rate it takes a third of that
DIVERGED = 10.0  # a loss at which a run is given up at once; it begins at log 10 = 2.3
LOOKS = (0, 10, 20, 40, 80, 160, 320, 640, 1280, 2300)  # steps of the base run at which the noise scale is measured
MODEL = MLP((64, 64, 10))

ABOUT = f"""\
A network with 64 hidden units learns {TRAIN} of scikit-learn's handwritten digits by momentum SGD, {EPOCHS} passes
whatever the batch. The rate is {BASE_RATE} at batch {BASE_BATCH}, the best of six there, and proportional to the batch
beyond (Goyal et al. 2017): at once, or after {WARM_UP} passes in which it grows from {BASE_RATE}. Losses are those of
the training digits in the end, over {len(SEEDS)} seeds: the median, the least and the largest. Then the fewest steps
to a training loss of {TARGET} by the best of {len(RATES)} rates, and what the gradient noise scale of the base run says
about both (McCandlish, Kaplan, Amodei et al. 2018), from the steps at batch {BASE_BATCH} alone. This is no comparison
of speed."""

NOTES = [
    "The noise scale grows along training, as digits that are learned give no more gradient: in the end it is far "
    "above all batches, or cannot be told from infinite. What it says of a rate and of steps is for the way to the "
    "target, not for the 30 passes.",
    "It is the simple noise scale, which leaves the curvature out. The theory is one of the best step at each point of "
    "SGD without momentum; the runs have momentum and one rate all along.",
    "Best rates are from a grid of factors of two and were chosen on the seeds that are shown. A run that has not "
    f"reached the target after {STEPS} steps counts as {STEPS}.",
]


def parts(seed: int) -> tuple:
    "Training and test digits: x, y, x, y."
    digits = load_digits(scaled=True)
    order = np.random.default_rng(seed).permutation(len(digits.x))
    return digits.x[order[:TRAIN]], digits.y[order[:TRAIN]], digits.x[order[TRAIN:]], digits.y[order[TRAIN:]]


def batches(size: int, seed: int) -> Iterator[np.ndarray]:
    "Rows of batches without end: one shuffled pass after the other, and batches run on from one into the next."
    rng, left = np.random.default_rng((seed, 1)), np.empty(0, dtype=int)
    while True:
        while len(left) < size:
            left = np.concatenate([left, rng.permutation(TRAIN)])
        yield left[:size]
        left = left[size:]


def loss_and_grads(params: dict, x: np.ndarray, y: np.ndarray) -> tuple[float, dict]:
    "The mean loss and its gradients by name."
    logits, pullback = MODEL.apply(params, x)
    return float(cross_entropy(logits, y)), pullback(cross_entropy_grad(logits, y))[0]


def training(size: int, rate, seed: int) -> Iterator[dict]:
    "The parameters before each step, without end; `rate` is a number or a function of the step."
    x, y, *_ = parts(seed)
    params = MODEL.init(np.random.default_rng(seed))
    optimizer = Optimizer(params, sgd(rate, momentum=MOMENTUM))
    for rows in batches(size, seed):
        yield params
        optimizer.step(loss_and_grads(params, x[rows], y[rows])[1])


def scaled(size: int, warm_up: int, seed: int) -> tuple[float, float]:
    "Training loss and share of test digits right in the end, the rate proportional to the batch; (None, 0) diverged."
    from dlopt_course.parallel import scale_learning_rate

    x, y, test_x, test_y = parts(seed)
    top, steps, grow = scale_learning_rate(BASE_RATE, size, BASE_BATCH), EPOCHS * TRAIN // size, warm_up * TRAIN / size
    rate = lambda step: top if step >= grow else BASE_RATE + (top - BASE_RATE) * step / grow  # noqa: E731
    try:
        with np.errstate(over="raise", invalid="raise"):
            *_, params = (p for p, _ in zip(training(size, rate, seed), range(steps + 1), strict=False))
            loss = loss_and_grads(params, x, y)[0]
            return finite(loss), float((MODEL.apply(params, test_x)[0].argmax(axis=1) == test_y).mean())
    except (FloatingPointError, ValueError):  # the gradients overflow
        return None, 0.0


def steps_needed(size: int, rate: float, seed: int) -> int:
    "Steps until the loss of all training digits is at the target; STEPS if it never is."
    x, y, *_ = parts(seed)
    try:
        with np.errstate(over="raise", invalid="raise"):
            for step, params in zip(range(STEPS), training(size, rate, seed), strict=False):
                loss = float(cross_entropy(MODEL.apply(params, x)[0], y))
                if loss <= TARGET:
                    return step
                if loss > DIVERGED:
                    break
    except (FloatingPointError, ValueError):
        pass
    return STEPS


def noise(seed: int, looks: tuple = LOOKS) -> list[dict]:
    "The noise scale of all training digits along the base run, from the gradient of each."
    from dlopt_course.parallel import noise_scale

    x, y, *_ = parts(seed)
    found = []
    for step, params in zip(range(max(looks) + 1), training(BASE_BATCH, BASE_RATE, seed), strict=False):
        if step in looks:
            each = (loss_and_grads(params, x[i : i + 1], y[i : i + 1])[1] for i in range(TRAIN))
            rows = np.stack([np.concatenate([g.ravel() for g in grads.values()]) for grads in each])
            scale, (low, high), norm, trace = noise_scale(rows)
            look = {"step": step, "loss": loss_and_grads(params, x, y)[0], "squared_norm": norm, "trace": trace}
            found.append(look | {name: finite(v) for name, v in (("scale", scale), ("low", low), ("high", high))})
    return found


def finite(x: float) -> float | None:
    "The number, or None where it is infinite: JSON knows no infinity."
    return x if np.isfinite(x) else None


def on_one_thread(work, *case):
    "work(*case); the processes side by side have a core each."
    with threads(1):
        return work(*case)


def all_of(work, cases: list[tuple]) -> dict:
    "work(*case) of each case, by case, on all cores."
    with ProcessPoolExecutor(num_threads(), get_context("spawn")) as pool:
        return dict(zip(cases, pool.map(partial(on_one_thread, work), *zip(*cases, strict=True)), strict=True))


def until_target(looks: list[dict]) -> list[dict]:
    "The looks until the loss is at the target."
    k = next((i for i, look in enumerate(looks) if look["loss"] <= TARGET), len(looks) - 1)
    return looks[: k + 1]


def mean_scale(looks: list[dict]) -> float:
    "The mean of the noise scale over the steps until the target, by trapezoids between the looks."
    steps, scales = ([look[name] for look in until_target(looks)] for name in ("step", "scale"))
    return float(np.trapezoid(scales, steps) / (steps[-1] - steps[0]))


def fitted(steps: dict[int, float]) -> tuple[float, float]:
    "S_min and B_noise of steps = S_min (1 + B_noise / B), by least squares of relative errors."
    from scipy.optimize import nnls

    sizes, needed = np.array(list(steps)), np.array(list(steps.values()))
    least, product = nnls(np.stack([1 / needed, 1 / (sizes * needed)], axis=1), np.ones(len(needed)))[0]
    return float(least), float(product / least)


def middle(losses: list[float | None]) -> float:
    "The median; a run that diverged is above all others."
    return median(np.inf if x is None else x for x in losses)


def number(x: float | None) -> str:
    "Two digits, and a word for what is no number."
    return "diverged" if x is None or not np.isfinite(x) else f"{x:.2g}"


def spread(values: list[float | None]) -> str:
    "'0.0005 (0.0003 to 0.0008)': the median, the least and the largest."
    known = sorted(np.inf if x is None else x for x in values)
    return f"{number(middle(values))} ({number(known[0])} to {number(known[-1])})"


def holds_until(cases: list[dict], name: str) -> int:
    "The largest batch up to which each median loss is at most twice that of the smallest batch."
    good = [middle(c[name]) <= 2 * middle(cases[0][name]) for c in cases]
    return [c["batch"] for c in cases][: (good + [False]).index(False)][-1]


def verdict(cases: list[dict], raw: dict) -> list[str]:
    "What came out, in words."
    at_once, warm = (holds_until(cases, name) for name in ("at_once", "warm_up"))
    scales = [look["scale"] for one in raw["noise"] for look in until_target(one["looks"])]
    errors = [c["predicted_steps"] / mean(c["steps"]) - 1 for c in cases[1:]]
    notes = [
        f"Linear scaling holds (median loss at most twice that of batch {cases[0]['batch']}) up to batch {at_once} at "
        f"once and up to {warm} after a warm-up.",
        f"The noise scale of the base run until the target: mean over the steps and {len(raw['seeds'])} seeds "
        f"{raw['noise_scale']:.0f} samples, single looks from {min(scales):.0f} to {max(scales):.0f}. The steps that "
        f"were needed are fitted best by a noise scale of {raw['fitted_noise_scale']:.0f}; those that the measured one "
        f"says are off by {min(errors):+.0%} to {max(errors):+.0%}.".replace("-", "−"),
    ]
    if broken := [c for c in cases if c["batch"] > at_once]:
        c = broken[0]
        notes.append(
            f"At batch {c['batch']}, the first at which it breaks at once, the linear rate is "
            f"{c['rate'] / c['predicted_rate']:.1f} times that of the noise scale and {c['rate'] / c['best_rate']:.1f} "
            f"times the best; a warm-up turns the loss of {number(middle(c['at_once']))} into "
            f"{number(middle(c['warm_up']))}, against {number(middle(cases[0]['warm_up']))} at batch "
            f"{cases[0]['batch']}."
        )
    return notes + NOTES


def run(sizes: tuple = BATCHES, seeds: range = SEEDS, rates: tuple = RATES, looks: tuple = LOOKS) -> dict:
    "Scale the rate, tune the rate, measure the noise."
    from dlopt_course.parallel import best_learning_rate, steps_to_target

    ends = all_of(scaled, [(b, warm, s) for b in sizes for warm in (0, WARM_UP) for s in seeds])
    needed = all_of(steps_needed, [(b, r, s) for b in sizes for r in rates for s in seeds])
    along = {s: found for (s, _), found in all_of(noise, [(s, looks) for s in seeds]).items()}
    scale, cases = mean(mean_scale(found) for found in along.values()), []
    for b in sizes:
        steps = {r: [needed[b, r, s] for s in seeds] for r in rates}
        best = min(rates, key=lambda r: mean(steps[r]))
        cases.append({"batch": b, "rate": BASE_RATE * b / BASE_BATCH, "best_rate": best, "steps": steps[best]})
        cases[-1] |= {"steps_by_rate": {f"{r:g}": mean(x) for r, x in steps.items()}}
        for name, warm in (("at_once", 0), ("warm_up", WARM_UP)):
            loss, right = zip(*(ends[b, warm, s] for s in seeds), strict=True)
            cases[-1] |= {name: loss, f"{name}_right": right}
    least, crossed = fitted({c["batch"]: mean(c["steps"]) for c in cases})
    first = cases[0]
    for c in cases:
        told = steps_to_target(np.array([first["batch"], c["batch"]]), 1.0, scale)
        c["predicted_steps"] = float(mean(first["steps"]) * told[1] / told[0])
        told = best_learning_rate(np.array([first["batch"], c["batch"]]), 1.0, scale)
        c["predicted_rate"] = float(BASE_RATE * told[1] / told[0])
    raw = {"seeds": list(seeds), "noise_scale": scale, "fitted_noise_scale": crossed, "fitted_least_steps": least}
    raw |= {"samples": cases, "noise": [{"seed": s, "looks": found} for s, found in along.items()]}
    columns = ["Batch", "Rate", "Loss, at once", "Loss, warm-up", "Test digits right, warm-up"]
    columns += ["Best rate to the target", "Noise scale says", "Steps to the target", "Noise scale says"]
    return {"title": "How far the learning rate scales with the batch", "about": ABOUT, "columns": columns} | {
        "rows": [row(c) for c in cases], "notes": verdict(cases, raw), "raw": raw
    }  # fmt: skip


def row(c: dict) -> list:
    "A case as the table shows it."
    losses = [spread(c[name]) for name in ("at_once", "warm_up")]
    rates = [f"{c['best_rate']:g}", number(c["predicted_rate"])]
    steps = [f"{mean(c['steps']):.0f}", f"{c['predicted_steps']:.0f}"]
    return [c["batch"], f"{c['rate']:g}", *losses, f"{mean(c['warm_up_right']):.3f}", *rates, *steps]
