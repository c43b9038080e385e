"""Planted errors in the lasso's solvers: a wrong sign, factor, limit or order makes a check fail."""

import re
import warnings
from inspect import getsource, signature

import numpy as np
import pytest
import scipy.sparse as sp
from planted import definitions, load, mutants, survivors
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import enet_path as sklearn_enet_path

from dlopt_course import linear
from dlopt_course.core import assert_close

OURS = [
    "soft_threshold",
    "alpha_max",
    "_gap",
    "duality_gap",
    "_smooth_part",
    "_until_gap",
    "ista",
    "fista",
    "_coordinate_descent",
    "_penalty_grid",
    "_check_regression",
    "_pace",
]
rng = np.random.default_rng(0)
X, W = rng.standard_normal((12, 5)), np.array([1.5, 0.0, -1.0, 0.0, 0.3])
Y = X @ W + 0.3 * rng.standard_normal(12)
SETTINGS = [  # alpha, l1_ratio
    (0.2, 1.0),
    (0.1, 0.5),
]


def solved(alphas, **options):
    "scikit-learn's coefficients."
    return sklearn_enet_path(X, Y, alphas=alphas, tol=1e-15, max_iter=10**5, precompute=False, **options)[1]


SOLUTIONS = {case: solved([case[0]], l1_ratio=case[1])[:, 0] for case in SETTINGS}
Z = np.array([-2.0, -0.5, 0.0, 0.5, 3.0])


def augmented_gap(w, alpha, l1_ratio, positive=False):
    "The gap of the lasso with sqrt(l2) I below X, with the best of many scalings of the residual."
    n, k = X.shape
    l1, l2 = n * alpha * l1_ratio, n * alpha * (1 - l1_ratio)
    A, b = np.vstack([X, np.sqrt(l2) * np.eye(k)]), np.concatenate([Y, np.zeros(k)])
    r = b - A @ w
    slopes = A.T @ r if positive else np.abs(A.T @ r)
    best = min(max(r @ b / (r @ r), 0), l1 / max(slopes.max(), 1e-300))
    return (r @ r / 2 + l1 * np.abs(w).sum() - (b @ b - (b - best * r) @ (b - best * r)) / 2) / n


GAPS = [
    (w, *case, positive, augmented_gap(w, *case, positive))
    for case in SETTINGS
    for w in (W, np.abs(W), 0 * W, 10 * W)
    for positive in ((False, True) if (w >= 0).all() else (False,))
]
STEEPEST = {case: np.linalg.norm(X, 2) ** 2 / 12 + case[0] * (1 - case[1]) for case in SETTINGS}


def battery(module):
    "The functions that have a closed form, iterates of the solvers, and their results."
    assert_close(module.soft_threshold(Z, 1.0), np.array([-1.0, 0, 0, 0, 2.0]))
    assert_close(module.soft_threshold(Z, np.array([0.0, 0.25, 1, 0, 1])), np.array([-2.0, -0.25, 0, 0.5, 2.0]))
    slopes = X.T @ Y / 12
    assert module.alpha_max(X, Y, l1_ratio=0.5) == pytest.approx(2 * np.abs(slopes).max(), rel=1e-12)
    assert module.alpha_max(X, -Y, positive=True) == pytest.approx((-slopes).max(), rel=1e-12)
    assert module.alpha_max(X[:, :1], -Y * np.sign(slopes[0]), positive=True) == 0
    for w, alpha, l1_ratio, positive, expected in GAPS:
        found = module.duality_gap(X, Y, w, alpha, l1_ratio=l1_ratio, positive=positive)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert module._gap((0.0, 0.0, 2.0, 0.0), 0.0, 3.0, 0.0) == 6.0
    assert module._gap((4.0, 4.0, 0.0, 0.0), -1.0, 3.0, 0.0) == 0.0
    assert module._gap((0.5, 0.5, 0.0, 0.0), 1.0, 0.5, 0.0) == 0.0625
    assert module._gap((1.0, -1.0, 0.0, 0.0), 1.0, 0.5, 0.0) == 0.5
    for case, best in SOLUTIONS.items():
        solvers(module, case, best)
    grids(module)
    refusals(module)


def solvers(module, case, best):
    "ISTA, FISTA and coordinate descent: the first iterates by their definitions, and the last."
    alpha, l1_ratio = case
    for name in ("ista", "fista"):
        solver, iterates = getattr(module, name), []
        defaults = {k: v.default for k, v in signature(solver).parameters.items()}
        assert (defaults["tol"], defaults["max_iter"]) == (1e-4, 10_000)
        with pytest.warns(ConvergenceWarning, match=re.escape(f"asked for was {1e-14 * (Y @ Y) / 12:.3e}")):
            short = solver(X, Y, alpha, l1_ratio=l1_ratio, tol=1e-14, max_iter=7, callback=patience(iterates))
        assert short.n_iter == len(iterates) == 7
        gap = linear.duality_gap(X, Y, short.coef, alpha, l1_ratio=l1_ratio)
        assert short.dual_gap == pytest.approx(gap, rel=1e-9)
        for ours, reference in zip(
            iterates, descent(alpha, l1_ratio, 1 / STEEPEST[case], name == "fista"), strict=True
        ):
            assert_close(ours, reference, rtol=1e-9, atol=1e-12)
        found = solver(X, Y, alpha, l1_ratio=l1_ratio, tol=1e-13, max_iter=1000, callback=patience([]))
        assert_close(found.coef, best, rtol=1e-5, atol=1e-7)
        assert found.n_iter % 10 == 0
        assert found.dual_gap <= 1e-13 * (Y @ Y) / 12
        again = solver(X, Y, alpha, l1_ratio=l1_ratio, w=best, tol=1e-9, max_iter=1000, callback=patience([]))
        assert_close(again.coef, best, rtol=1e-4, atol=1e-5)
        assert again.n_iter == 10
        row, steps = X[:1] / 10, []  # one row: the slope is far below 1
        solver(row, Y[:1], 1e-3, tol=10.0, max_iter=1, callback=patience(steps))
        assert_close(steps[0], linear.soft_threshold(row[0] * Y[0], 1e-3) / (row[0] @ row[0]), rtol=1e-12)
    w = module._coordinate_descent(X, Y, alpha, l1_ratio, np.zeros(5), 60)
    assert_close(w, best, rtol=1e-5, atol=1e-7)
    one, two = (module._coordinate_descent(X, Y, alpha, l1_ratio, np.ones(5), k) for k in (1, 2))
    assert_close(module._coordinate_descent(X, Y, alpha, l1_ratio, one, 1), two, rtol=1e-9)
    assert np.abs(one - two).max() > 1e-3
    zeros = np.hstack([X, np.zeros((12, 1))])
    zeros[0] = 0  # a column with one zero is no column of zeros
    assert module._coordinate_descent(zeros, Y, alpha, l1_ratio, np.zeros(6), 60)[5] == 0
    assert module._coordinate_descent(zeros, Y, alpha, l1_ratio, np.zeros(6), 60)[0] > 0.5


def patience(iterates):
    "A callback that collects, and has had enough after 2000 calls: a planted error may make a loop endless."

    def callback(w):
        iterates.append(w)
        assert len(iterates) < 2000

    return callback


def descent(alpha, l1_ratio, step, fast, k=7):
    "The first iterates, written anew."
    w = before = np.zeros(5)
    t = t_before = 1.0
    found = []
    for _ in range(k):
        t_next = (1 + np.sqrt(1 + 4 * t**2)) / 2
        ahead = w + fast * (t_before - 1) / t * (w - before)
        grad = X.T @ (X @ ahead - Y) / 12 + alpha * (1 - l1_ratio) * ahead
        z = ahead - step * grad
        before, w = w, np.sign(z) * np.maximum(np.abs(z) - step * alpha * l1_ratio, 0)
        t_before, t = t, t_next
        found.append(w)
    return found


def grids(module):
    "Penalties of a path."
    top = np.abs(X.T @ Y).max() / 12
    assert_close(module._penalty_grid(X, Y, 4, 0.001, 0.5, False), 2 * top * np.array([1, 0.1, 0.01, 0.001]))
    top = (-(X.T @ Y)).max() / 12
    assert_close(module._penalty_grid(X, -Y, 2, 0.5, 1.0, True), top * np.array([1, 0.5]))
    assert_close(module._penalty_grid(X, 0 * Y, 2, 0.5, 1.0, False), np.full(2, 1e-15))
    assert_close(module._penalty_grid(X, Y, [0.1, 3.0, 0.0], 0.5, 0.0, False), np.array([3.0, 0.1, 0.0]))
    for alphas in ([], [[1.0]], [-1.0, 1.0], 0, 2.5):
        with pytest.raises(ValueError, match="alphas"):
            module._penalty_grid(X, Y, alphas, 0.1, 1.0, False)
    with pytest.raises(ValueError, match="alphas must be given"):
        module._penalty_grid(X, Y, 3, 0.1, 0, False)
    falling = [8.0, 6.0, 5.0, 5.0, 7.0]
    assert [module._pace(falling, k) for k in range(5)] == [0, 0, 0.5, 0, 0]
    assert module._pace([9.0, 8.0, 4.0, 2.0], 3) == 0.5


def refusals(module):
    "Bad arguments raise."
    for f, arguments in (
        (module.alpha_max, (Y, Y)),
        (module.alpha_max, (X, Y[1:])),
        (module.alpha_max, (X, X)),
        (module.alpha_max, (X, np.where(Y > 0, np.nan, Y))),
        (module.duality_gap, (X, Y, W[1:], 1.0)),
        (module.duality_gap, (X, Y, W, 0.0)),
        (module.ista, (X, Y, -1.0)),
    ):
        with pytest.raises(ValueError, match="must be|must have"):
            f(*arguments)
    for l1_ratio in (0, 1.5):
        with pytest.raises(ValueError, match="l1_ratio"):
            module.alpha_max(X, Y, l1_ratio=l1_ratio)
        with pytest.raises(ValueError, match="l1_ratio"):
            module.duality_gap(X, Y, W, 1.0, l1_ratio=l1_ratio)
    with pytest.raises(ValueError, match="w must be 0 or more"):
        module.duality_gap(X, Y, W, 1.0, positive=True)
    with pytest.raises(ValueError, match="threshold"):
        module.soft_threshold(Z, -1e-9)
    assert module.soft_threshold(Z, 0).tolist() == Z.tolist()


def quiet(module):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        battery(module)


def test_the_battery_passes_as_it_is():
    quiet(load(linear))


EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    (
        "_gap",
        "0.0  ->  1.0  in  min(max(ry / ball, 0.0), bound) if ball > 0 else 0.0",
    ): "a residual of 0 is 0 in any multiple",
    (
        "_smooth_part",
        "1.0  ->  2.0  in  1 / steepest if steepest > 0 else 1.0",
    ): "without a slope a step of any length goes nowhere",
    ("_until_gap", "xp.sum(w)  ->  xp.mean(w)"): "both are NaN where a coefficient is",
}


@pytest.mark.parametrize("name", OURS)
def test_planted_errors_are_caught(name):
    assert survivors(linear, name, quiet) == {what for function, what in EQUIVALENT if function == name}


# The engine, its kernel run by Python

WIDE = rng.standard_normal((6, 60))
SPARSE = sp.csc_array(np.where(np.abs(WIDE) < 0.5, 0, WIDE))
SHIFT = np.linspace(0.5, 1.5, 6), 0.3 * rng.standard_normal(60)
FAR = SPARSE.toarray() - np.outer(*SHIFT)
PATH = np.array([0.5, 0.2, 0.1, 0.05, 0.03])


def engine(module):
    "Paths of the engine of a module: dense and sparse, both signs, both penalties, by rows and by the Gram matrix."
    module._sweeps, module._substitute = module._sweeps.__wrapped__, module._substitute.__wrapped__
    for A, y, shift, dense in ((X, Y, None, X), (SPARSE, Y[:6], SHIFT, FAR), (WIDE, Y[:6], None, WIDE)):
        for l1_ratio, positive in ((1.0, False), (0.5, True)):
            options = {"l1_ratio": l1_ratio, "positive": positive, "tol": 1e-13, "max_iter": 500}
            coefs, gaps, sweeps = module._fit_path(A, y, PATH, shift=shift, **options)
            for k, alpha in enumerate(PATH):
                limit = 2e-13 * (y @ y) / len(y)
                assert gaps[k] <= limit
                found = linear.duality_gap(dense, y, coefs[:, k], alpha, l1_ratio=l1_ratio, positive=positive)
                assert found <= limit
            assert max(sweeps) < 100
    start = module._fit_path(X, Y, [0.1], l1_ratio=1.0, positive=False, tol=1e-4, max_iter=500, coef_init=coefs_of(0.1))
    assert start[2] == [0]
    for scale in (0.1, 10.0):  # a loose tolerance is kept, and made use of
        options = {"l1_ratio": 1.0, "positive": False, "tol": 0.01, "max_iter": 500}
        gap = module._fit_path(X, scale * Y, [0.02 * scale], **options)[1][0] / (scale**2 * Y @ Y / 12)
        assert 1e-4 < gap <= 0.01
        limit = 0.01 * scale**2 * (Y @ Y) / 12
        with pytest.warns(ConvergenceWarning, match=re.escape(f"asked for was {limit:.3e}")):
            module._fit_path(X, scale * Y, [0.02 * scale], **options | {"max_iter": 1})
    kernel(module)


def kernel(module):
    "The gap that the kernel reports before it does anything."
    G, c, g = X.T @ X, X.T @ Y, X.T @ (Y - X @ np.abs(W))
    for alpha, l1_ratio, positive in ((0.2, 1.0, False), (0.2, 0.4, True), (0.2, 0.4, False)):
        l1, l2 = 12 * alpha * l1_ratio, 12 * alpha * (1 - l1_ratio)
        found = module._sweeps(G, c, g.copy(), np.abs(W), l1, l2, positive, Y @ Y, 0.0, 0)
        expected = linear.duality_gap(X, Y, np.abs(W), alpha, l1_ratio=l1_ratio, positive=positive)
        assert found[0] / 12 == pytest.approx(expected, rel=1e-9)
        assert found[1] == 0


def coefs_of(alpha):
    return solved([alpha], l1_ratio=1.0)[:, 0]


def test_the_engine_passes_as_it_is():
    engine(load(linear))


WRONG = [  # definition, what the planted error begins with: errors that change results, not only speed
    ("_sweeps", "g[j] + square * old"),
    ("_sweeps", "g[j] - l2 * w[j]"),
    ("_sweeps", "max(at - l1, 0.0) / (square + l2)"),
    ("_sweeps", "min(at + l1, 0.0) / (square + l2)"),
    ("_sweeps", "w[j] - old"),
    ("_sweeps", "yy - wc"),
    ("_Fit", "self.c - self.G[:len(self.w), :len(self.w)] @ self.w"),
    ("_Fit", "self.y - self.data.combine(self.w)"),
    ("_Sparse", "self.X.T @ r - self.m * (self.s @ r)"),
    ("_Sparse", "self.X[:, self.pool] @ w - self.s * (self.m[self.pool] @ w)"),
    ("_fit_path", "n * alpha"),
    ("_fit_path", "tol * fit.yy"),
]


@pytest.mark.parametrize(("name", "what"), WRONG, ids=[f"{n}: {w[:30]}" for n, w in WRONG])
def test_errors_planted_in_the_engine_are_caught(name, what):
    found = [m for m in mutants(getsource(linear), name) if m.what.startswith(f"{what}  ->")]
    assert found
    for mutant in found:
        with pytest.raises((Exception, pytest.fail.Exception)):
            engine(load(linear, mutant))


def test_all_of_the_lassos_functions_are_listed():
    assert set(OURS) <= set(definitions(linear))
