"""The lasso at one duality gap, for one penalty and for paths, and RidgeCV, against scikit-learn and celer."""

import warnings
from collections.abc import Callable
from time import perf_counter

import celer
import numpy as np
from sklearn import linear_model as peer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import ConvergenceWarning

from benchmarks.measure import Comparison, compare_all, duration, threads, wait_until_idle
from dlopt_course import linear as ours
from dlopt_course.core import num_threads

CODE = ("dlopt_course/linear.py", "dlopt_course/core.py")
PACKAGES = ("numpy", "scipy", "numba", "scikit-learn", "celer")
SHAPES = [(2000, 500), (1000, 5000), (10000, 1000), (200, 20000)]
REAL = {"diabetes": load_diabetes, "breast cancer": load_breast_cancer}
PENALTIES = {"0.1 alpha_max": [0.1], "0.01 alpha_max": [0.01], "path of 100": np.geomspace(1, 1e-3, 100)}
TARGETS = (1e-4, 1e-9)
MOST = 5_000  # iterations that everybody may take; scikit-learn's default is 1000
SECONDS = 4.0  # that all rounds of a case should take together
ALPHAS = np.geomspace(1e-3, 1e3, 100)  # of RidgeCV

ABOUT = f"""\
`lasso_path` for one penalty, and for 100 from alpha_max to 0.001 alpha_max, on correlated Gaussian designs (each column
has correlation 0.7 with the next; p / 20 true coefficients, at most 100; noise of a third of the signal's size) and on
two real data sets, centred. All stop at the same duality gap, a share of the objective at w = 0, within {MOST:,}
iterations, and get X as they like it best: in Fortran's order, not copied. scikit-learn screens by the gap, and may use
the Gram matrix: the better of its two ways is compared. The gap that each has reached is computed afterwards, outside
the timing, by one function that is none of theirs and with one dual point for all. Forms take turns; where one call of
each takes more than {SECONDS:g} s together, that call is the sample. Above 1, a ratio means that ours is ahead;
quartiles are in brackets. *RidgeCV* fits 100 penalties by leave-one-out, with an intercept, on the same data."""


def gaussian(n: int, p: int, seed: int = 0, correlation: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    "A centred design in which neighbours are correlated, and targets."
    rng = np.random.default_rng(seed)
    X = np.asfortranarray(rng.standard_normal((n, p)))
    for j in range(1, p):
        X[:, j] = correlation * X[:, j - 1] + np.sqrt(1 - correlation**2) * X[:, j]
    w = np.zeros(p)
    w[rng.choice(p, min(100, p // 20), replace=False)] = rng.standard_normal(min(100, p // 20))
    signal = X @ w
    return centred(X, signal + rng.standard_normal(n) * signal.std() / 3)


def centred(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "Both with mean 0, X in Fortran's order."
    return np.asfortranarray(X - X.mean(0)), y - y.mean()


def data(name: str | tuple) -> tuple[np.ndarray, np.ndarray]:
    "A real data set with standardised columns, or a Gaussian design of that shape."
    if not isinstance(name, str):
        return gaussian(*name)
    X, y = REAL[name](return_X_y=True)
    return centred(X / X.std(0), y.astype(float))


def relative_gaps(X: np.ndarray, y: np.ndarray, alphas: np.ndarray, found: dict[str, np.ndarray]) -> dict[str, float]:
    """For each form, its largest gap over all penalties, in units of the objective at 0.

    One dual point serves all forms, the best that the residual of any of them gives: celer, which extrapolates its dual
    points, would otherwise seem further away than it is.
    """
    values = {form: primal_dual(X, y, alphas, coefs) for form, coefs in found.items()}
    best = np.max([dual for _, dual in values.values()], axis=0)
    return {form: float(np.max(primal - best) / (y @ y / 2)) for form, (primal, _) in values.items()}


def primal_dual(X: np.ndarray, y: np.ndarray, alphas: np.ndarray, coefs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "For each penalty, n times the objective, and the dual objective at the best multiple of the residual."
    R, l1 = y[:, None] - X @ coefs, len(y) * np.asarray(alphas)
    bound = l1 / np.abs(X.T @ R).max(0)
    squares, products = (R * R).sum(0), y @ R
    scale = np.clip(products / squares, -bound, bound)
    return squares / 2 + l1 * np.abs(coefs).sum(0), scale * products - scale**2 * squares / 2


def quietly(f: Callable) -> Callable:
    "The function without warnings: who has not converged shows it by the gap."

    def call():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return f()

    return call


def forms(X: np.ndarray, y: np.ndarray, alphas: np.ndarray, target: float) -> dict[str, Callable]:
    "Functions that return alphas and coefs at that gap, by name. tol is relative to |y|^2, twice the objective at 0."
    options = {"alphas": alphas, "tol": target / 2 * 0.999, "max_iter": MOST}
    plain = {"precompute": False, "copy_X": False}
    found = {
        "ours": lambda: ours.lasso_path(X, y, **options),
        "scikit-learn": lambda: peer.lasso_path(X, y, **options, **plain),
        "celer": lambda: celer.celer_path(X, y, "lasso", alphas=alphas, tol=target / 2 * 0.999, max_iter=200),
    }
    if len(y) > X.shape[1]:
        found["scikit-learn, Gram"] = lambda: peer.lasso_path(X, y, **options, precompute=True, copy_X=False)
    return {name: quietly(f) for name, f in found.items()}


def sampled(name: str | tuple, penalties: str, target: float, seconds: float = SECONDS) -> dict:
    "The samples of one case, and the gaps that were reached."
    X, y = data(name)
    alphas = np.array(PENALTIES[penalties]) * np.abs(X.T @ y).max() / len(y)
    ended, times, busy = measured(forms(X, y, alphas, target), seconds)
    gaps = relative_gaps(X, y, alphas, {form: found[1] for form, found in ended.items()})
    case = {"data": str(name), "penalties": penalties, "target": target, "gaps": gaps}
    case |= {"nonzero": int(np.count_nonzero(ended["ours"][1][:, -1]))}
    return case | {"threads": num_threads(), "busy": busy, "seconds": times}


def measured(functions: dict[str, Callable], seconds: float) -> tuple[dict, dict, float]:
    "Results, samples and the others' share: three to fifteen rounds, or the first calls where those take too long."
    busy, ended, first = wait_until_idle(), {}, {}
    for name, f in functions.items():
        start = perf_counter()
        ended[name] = f()
        first[name] = [perf_counter() - start]
    once = sum(x[0] for x in first.values())
    rounds = int(np.clip(seconds / once, 3, 15))
    return ended, first if once > seconds else compare_all(functions, rounds), busy


def best_peer(case: dict) -> str:
    "The faster of scikit-learn's ways among those that reached the gap, or among all where none did."
    ways = [form for form in case["seconds"] if form.startswith("scikit-learn")]
    there = [form for form in ways if case["gaps"][form] <= case["target"]]
    return min(there or ways, key=lambda form: np.median(case["seconds"][form]))


def row(case: dict) -> list:
    "A line of the table."
    way = best_peer(case)
    cells = [reached(case, form) for form in (way, "celer")]
    ours = case["seconds"]["ours"]
    what = [case["data"].strip("()").replace(", ", " x "), case["penalties"], f"{case['target']:.0e}", case["nonzero"]]
    return [*what, duration(np.median(ours)), f"{case['gaps']['ours']:.0e}", *cells]


def reached(case: dict, form: str) -> str:
    "The ratio of times, and how far a form got that did not reach the gap."
    ratio = str(Comparison(case["seconds"]["ours"], case["seconds"][form]))
    gap = case["gaps"][form]
    return ratio if gap <= case["target"] else f"not reached: {gap:.0e} after {ratio}"


def ridge(name: str | tuple, seconds: float = SECONDS) -> dict:
    "The samples of RidgeCV."
    X, y = data(name)
    functions = {
        "ours": lambda: ours.RidgeCV(alphas=ALPHAS).fit(X, y),
        "scikit-learn": lambda: peer.RidgeCV(alphas=ALPHAS).fit(X, y),
    }
    ended, times, busy = measured(functions, seconds)
    chosen = {form: float(model.alpha_) for form, model in ended.items()}
    return {"data": str(name), "threads": num_threads(), "busy": busy, "chosen": chosen, "seconds": times}


def ridge_row(case: dict) -> list:
    "A line of the table."
    times = case["seconds"]
    ratio = str(Comparison(times["ours"], times["scikit-learn"]))
    what = [case["data"].strip("()").replace(", ", " x "), "RidgeCV, 100", "-", "-"]
    return [*what, duration(np.median(times["ours"])), "-", ratio, "-"]


def notes(cases: list[dict], ridges: list[dict]) -> list[str]:
    "What the table says together."
    ratios, missed = [], []
    for case in cases:
        way = best_peer(case)
        if case["gaps"][way] > case["target"]:
            missed.append(case)
        else:
            ratios.append(Comparison(case["seconds"]["ours"], case["seconds"][way]).quartiles[1])
    celers = [Comparison(c["seconds"]["ours"], c["seconds"]["celer"]).quartiles[1] for c in cases]
    celers = [r for r, c in zip(celers, cases, strict=True) if c["gaps"]["celer"] <= c["target"]]
    of_ridge = [Comparison(c["seconds"]["ours"], c["seconds"]["scikit-learn"]).quartiles[1] for c in ridges]
    return [
        f"scikit-learn / ours, geometric mean over the {len(ratios)} lasso lines in which it reached the gap: "
        f"{mean(ratios):.2f}; smallest {min(ratios, default=np.nan):.2f}. Target: above 1 each, 2 in the mean.",
        f"In {len(missed)} lines scikit-learn did not reach the gap in {MOST:,} iterations; those are not counted.",
        f"celer / ours, geometric mean over the {len(celers)} lines in which it reached the gap: {mean(celers):.2f}.",
        f"RidgeCV: geometric mean {mean(of_ridge):.2f}, smallest {min(of_ridge, default=np.nan):.2f}.",
        "Every gap of ours was checked: "
        + ("all are at the target." if all(c["gaps"]["ours"] <= c["target"] for c in cases) else "SOME ARE NOT."),
    ]


def mean(ratios: list[float]) -> float:
    "The geometric mean."
    return float(np.exp(np.mean(np.log(ratios)))) if ratios else np.nan


def run(names: tuple = (*SHAPES, *REAL), penalties: tuple = tuple(PENALTIES), seconds: float = SECONDS) -> dict:
    "Measure every case."
    with threads(num_threads()):
        ours.lasso_path(*gaussian(20, 9), alphas=3)  # compiles
        cases = [sampled(name, what, target, seconds) for name in names for what in penalties for target in TARGETS]
        ridges = [ridge(name, seconds) for name in names]
    columns = ["Data", "Penalty", "Gap asked", "Nonzero", "Ours", "Gap", "scikit-learn / ours", "celer / ours"]
    result = {"title": "Lasso paths and ridge at an equal duality gap", "about": ABOUT, "columns": columns}
    rows = [*map(row, cases), *map(ridge_row, ridges)]
    return result | {"notes": notes(cases, ridges), "rows": rows, "raw": {"cases": cases, "ridges": ridges}}
