"""The lasso's solvers against scikit-learn, KKT conditions, known solutions and the duality gap; torch; bad input."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from backends import BACKENDS, each_backend
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet
from sklearn.linear_model import enet_path as sklearn_enet_path
from sklearn.linear_model import lasso_path as sklearn_lasso_path

from dlopt_course import linear
from dlopt_course.linear import (
    alpha_max,
    duality_gap,
    enet_path,
    fista,
    ista,
    lasso_path,
    lasso_solve,
    soft_threshold,
)

each_ratio = pytest.mark.parametrize("l1_ratio", [1.0, 0.5, 0.05])
each_sign = pytest.mark.parametrize("positive", [False, True])


SIZES = {"tall": (100, 20), "wide": (30, 80), "square": (60, 60), "one row": (1, 5), "one column": (20, 1)}


def problem(name: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    "A design and targets; the names say what is special about the design."
    rng = np.random.default_rng(seed)
    n, p = SIZES.get(name, (90, 60))
    X = rng.standard_normal((n, p))
    if name == "correlated":
        X = 0.3 * X + rng.standard_normal((n, 1))
    if name == "zeros":
        X[:, ::3] = 0
    if name == "constant":
        X[:, 7] = 2.5
    if name == "scales":
        X *= 10.0 ** rng.uniform(-8, 8, p)
    y = X[:, :5] @ (rng.standard_normal(X[:, :5].shape[1]) / np.abs(X[:, :5]).max(0, initial=1e-9))
    return X, y + 0.3 * rng.standard_normal(n)


NAMES = ["tall", "wide", "square", "correlated", "zeros", "constant", "scales", "one row", "one column"]


def objective(X, y, w, alpha, l1_ratio=1.0):
    "The objective, term by term."
    penalty = l1_ratio * np.abs(w).sum() + (1 - l1_ratio) / 2 * (w @ w)
    return ((y - X @ w) ** 2).sum() / (2 * len(y)) + alpha * penalty


def broken(X, y, w, alpha, l1_ratio=1.0, positive=False):
    "By how much the optimality conditions are broken, in units of the L1 penalty."
    slope = X.T @ (y - X @ w) / len(y) - alpha * (1 - l1_ratio) * w
    l1 = alpha * l1_ratio
    at_zero = np.maximum(slope if positive else np.abs(slope), l1) - l1
    return float(np.max(np.where(w == 0, at_zero, np.abs(slope - l1 * np.sign(w))))) / l1


def sklearn_path(X, y, alphas, **options):
    "scikit-learn's coefficients as exactly as it can."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return sklearn_enet_path(X, y, alphas=alphas, tol=1e-15, max_iter=200_000, precompute=False, **options)[1]


# The small functions


@each_backend
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_soft_threshold_keeps_library_and_dtype(backend, dtype):
    x = BACKENDS[backend](np.array([[-3.0, -1.0, -0.5], [0.0, 1.0, 2.5]], dtype=dtype))
    out = soft_threshold(x, 1.0)
    assert (type(out), out.dtype) == (type(x), x.dtype)
    np.testing.assert_array_equal(np.asarray(linear.to_numpy(out)), np.array([[-2, 0, 0], [0, 0, 1.5]], dtype=dtype))
    each = soft_threshold(x, BACKENDS[backend](np.array([0.0, 0.5, 3.0], dtype=dtype)))
    np.testing.assert_array_equal(
        np.asarray(linear.to_numpy(each)), np.array([[-3, -0.5, 0], [0, 0.5, 0]], dtype=dtype)
    )


@settings(deadline=None, max_examples=60)
@given(arrays(float, 5, elements=st.floats(-1e6, 1e6)), st.floats(0, 1e6))
def test_soft_threshold_is_the_proximal_map(x, t):
    z = soft_threshold(x, t)
    cost = (z - x) ** 2 / 2 + t * np.abs(z)
    for other in (z + 1e-3, z - 1e-3, 0 * z, x):
        assert np.all(cost <= (other - x) ** 2 / 2 + t * np.abs(other) + 1e-9 * (1 + cost))
    np.testing.assert_array_equal(soft_threshold(-x, t), -z)


@each_sign
@pytest.mark.parametrize("l1_ratio", [1.0, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_alpha_max_is_the_first_penalty_that_makes_all_zero(name, l1_ratio, positive):
    X, y = problem(name)
    top = alpha_max(X, y, l1_ratio=l1_ratio, positive=positive)
    if top == 0:  # no column goes with y
        assert positive
        return
    options = {"l1_ratio": l1_ratio, "positive": positive, "tol": 1e-13}
    assert not lasso_solve(X, y, top * (1 + 1e-9), **options).coef.any()
    assert lasso_solve(X, y, top * 0.999, **options).coef.any()


@each_ratio
@each_sign
@pytest.mark.parametrize("name", ["tall", "wide", "square"])
def test_gap_is_an_upper_bound_of_the_excess(name, l1_ratio, positive):
    X, y = problem(name)
    alpha = 0.1 * alpha_max(X, y, l1_ratio=l1_ratio, positive=positive)
    options = {"l1_ratio": l1_ratio, "positive": positive}
    best = lasso_solve(X, y, alpha, tol=1e-14, **options).coef
    least = objective(X, y, best, alpha, l1_ratio)
    assert duality_gap(X, y, best, alpha, **options) <= 1e-13 * (y @ y) / len(y)
    rng = np.random.default_rng(1)
    for size in (1e-3, 0.1, 1.0):
        w = best + size * rng.standard_normal(len(best))
        w = np.maximum(w, 0) if positive else w
        excess = objective(X, y, w, alpha, l1_ratio) - least
        assert 0 < excess <= duality_gap(X, y, w, alpha, **options)


@each_ratio
def test_gap_by_augmented_rows(l1_ratio):
    "The elastic net is a lasso with sqrt(l2) I below X; its gap there, with the best scaling found by a search."
    X, y = problem("tall")
    n, alpha = len(y), 0.3
    w = np.random.default_rng(2).standard_normal(X.shape[1])
    l1, l2 = n * alpha * l1_ratio, n * alpha * (1 - l1_ratio)
    A, b = np.vstack([X, np.sqrt(l2) * np.eye(len(w))]), np.concatenate([y, np.zeros(len(w))])
    r = b - A @ w
    bound = l1 / np.abs(A.T @ r).max()
    scales = np.linspace(0, bound, 20001)
    gaps = r @ r / 2 + l1 * np.abs(w).sum() + ((b[:, None] - np.outer(r, scales)) ** 2).sum(0) / 2 - b @ b / 2
    assert duality_gap(X, y, w, alpha, l1_ratio=l1_ratio) * n == pytest.approx(gaps.min(), rel=1e-6)


@each_backend
def test_gap_and_alpha_max_on_every_library(backend):
    X, y = problem("tall")
    w = np.random.default_rng(2).standard_normal(X.shape[1])
    make = BACKENDS[backend]
    for options in ({}, {"l1_ratio": 0.5}):
        found = duality_gap(make(X), make(y), make(w), 0.2, **options)
        assert isinstance(found, float)
        assert found == pytest.approx(duality_gap(X, y, w, 0.2, **options), rel=1e-10)
        assert alpha_max(make(X), make(y), **options) == pytest.approx(alpha_max(X, y, **options), rel=1e-12)


# ISTA and FISTA


@each_backend
@pytest.mark.parametrize("solver", [ista, fista])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_proximal_gradient_finds_the_minimum_on_every_library(solver, l1_ratio, backend):
    X, y = problem("tall")
    alpha, make = 0.1 * alpha_max(X, y, l1_ratio=l1_ratio), BACKENDS[backend]
    seen = []
    found = solver(make(X), make(y), alpha, l1_ratio=l1_ratio, tol=1e-12, callback=seen.append)
    assert type(found.coef) is type(make(X))
    assert len(seen) == found.n_iter
    expected = sklearn_path(X, y, [alpha], l1_ratio=l1_ratio)[:, 0]
    np.testing.assert_allclose(linear.to_numpy(found.coef), expected, atol=1e-6)
    assert found.dual_gap <= 1e-12 * (y @ y) / len(y)


def test_ista_and_fista_obey_their_rates():
    X, y = problem("correlated")
    alpha = 0.02 * alpha_max(X, y)
    best = lasso_solve(X, y, alpha, tol=1e-14).coef
    least, steepest = objective(X, y, best, alpha), np.linalg.norm(X, 2) ** 2 / len(y)
    for solver, bound in ((ista, lambda k: 1 / (2 * k)), (fista, lambda k: 2 / (k + 1) ** 2)):
        excess = []
        with pytest.warns(ConvergenceWarning):
            solver(X, y, alpha, tol=0, max_iter=300, callback=lambda w, e=excess: e.append(objective(X, y, w, alpha)))
        for k, value in enumerate(excess, 1):
            assert value - least <= steepest * (best @ best) * bound(k) * (1 + 1e-9) + 1e-12
        if solver is ista:
            assert all(np.diff(excess) <= 1e-12)


@pytest.mark.parametrize("solver", [ista, fista])
def test_proximal_gradient_goes_on_from_w_and_says_when_it_is_not_there(solver):
    X, y = problem("tall")
    best = lasso_solve(X, y, 0.1, tol=1e-14).coef
    kept = best.copy()
    assert solver(X, y, 0.1, w=best, tol=1e-10).n_iter <= 10
    np.testing.assert_array_equal(best, kept)
    with pytest.warns(ConvergenceWarning, match=r"the duality gap is .*, asked for was"):
        found = solver(X, y, 0.1, tol=1e-12, max_iter=3)
    assert found.n_iter == 3
    assert found.dual_gap == pytest.approx(duality_gap(X, y, found.coef, 0.1))


def test_coordinate_descent_reads_as_the_compiled_one_runs():
    for name in ("tall", "wide", "zeros"):
        X, y = problem(name)
        alpha, ratio = 0.1 * alpha_max(X, y), 0.7
        n, w = len(y), np.zeros(X.shape[1])
        G, c = X.T @ X, X.T @ y
        g = c.copy()
        linear._sweeps(G, c, g, w, n * alpha * ratio, n * alpha * (1 - ratio), False, y @ y, 0.0, 7)
        slow = linear._coordinate_descent(X, y, alpha, ratio, np.zeros(len(w)), 7)
        np.testing.assert_allclose(w, slow, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(g, c - G @ w, atol=1e-9 * np.abs(c).max())


@each_sign
@pytest.mark.parametrize(("l1", "l2"), [(3.0, 0.0), (3.0, 2.0), (0.0, 2.0), (0.0, 0.0)])
def test_the_kernel_knows_the_gap_of_its_pool(l1, l2, positive):
    X, y = problem("tall")
    rng = np.random.default_rng(3)
    w = np.abs(rng.standard_normal(X.shape[1])) * (rng.random(X.shape[1]) < 0.5)
    G, c, g = X.T @ X, X.T @ y, X.T @ (y - X @ w)
    found = linear._sweeps(G, c, g, w.copy(), l1, l2, positive, y @ y, np.inf, 0)[0]
    fit = linear._Fit(X, y, None, positive, False)
    fit.begin(w)
    assert found == pytest.approx(fit.gap(l1, l2), rel=1e-9)
    if l1:
        alpha = (l1 + l2) / len(y)
        expected = duality_gap(X, y, w, alpha, l1_ratio=l1 / (l1 + l2), positive=positive)
        assert found / len(y) == pytest.approx(expected, rel=1e-9)


# The engine


@each_ratio
@each_sign
@pytest.mark.parametrize("name", NAMES)
def test_solutions_are_scikit_learns(name, l1_ratio, positive):
    X, y = problem(name)
    top = alpha_max(X, y, l1_ratio=l1_ratio, positive=positive)
    if top == 0:
        return
    alphas, options = top * np.array([0.5, 0.1, 0.01]), {"l1_ratio": l1_ratio, "positive": positive}
    expected = sklearn_path(X, y, alphas, **options)
    null = objective(X, y, 0 * X[0], 0)
    size = np.sqrt((X**2).sum(0))[:, None]  # a coefficient's share in the prediction: scales differ by 10^16
    _, coefs, gaps = enet_path(X, y, alphas=alphas, tol=1e-14, max_iter=10_000, **options)
    np.testing.assert_allclose(coefs * size, expected * size, atol=2e-6 * np.linalg.norm(y))
    for k, alpha in enumerate(alphas):
        one = lasso_solve(X, y, alpha, tol=1e-14, **options)
        for w, gap in ((coefs[:, k], gaps[k]), (one.coef, one.dual_gap)):
            assert gap <= 2e-14 * null
            assert duality_gap(X, y, w, alpha, **options) <= 1e-13 * null
            assert (
                objective(X, y, w, alpha, l1_ratio) <= objective(X, y, expected[:, k], alpha, l1_ratio) + 1e-12 * null
            )
            if name != "scales":
                assert broken(X, y, w, alpha, **options) < 1e-5


@pytest.mark.parametrize("name", ["tall", "wide", "correlated"])
def test_tight_solutions_agree_to_many_digits(name):
    X, y = problem(name)
    alpha = 0.05 * alpha_max(X, y)
    ours = lasso_solve(X, y, alpha, tol=1e-15).coef
    np.testing.assert_allclose(ours, sklearn_path(X, y, [alpha], l1_ratio=1.0)[:, 0], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("load", [load_diabetes, load_breast_cancer])
def test_paths_of_real_data(load):
    X, y = load(return_X_y=True)
    X, y = (X - X.mean(0)) / X.std(0), y - y.mean()
    for tol in (1e-4, 1e-10):
        alphas, coefs, gaps, sweeps = lasso_path(X, y, tol=tol, return_n_iter=True)
        assert coefs.shape == (X.shape[1], 100)
        assert len(sweeps) == len(gaps) == 100
        np.testing.assert_allclose(alphas, np.geomspace(1, 1e-3, 100) * alpha_max(X, y), rtol=1e-12)
        for k in range(0, 100, 9):
            assert duality_gap(X, y, coefs[:, k], alphas[k]) <= 1.001 * tol * (y @ y) / len(y)
    theirs = sklearn_lasso_path(X, y, alphas=alphas[::20], tol=1e-12, max_iter=200_000)[1]
    np.testing.assert_allclose(coefs[:, ::20], theirs, atol=1e-3 * np.abs(theirs).max())


@each_sign
def test_duplicated_columns_have_the_objective_of_one(positive):
    X, y = problem("tall")
    twice, alpha = np.hstack([X, X, X[:, ::-1]]), 0.05 * alpha_max(X, y)
    one, many = (lasso_solve(A, y, alpha, tol=1e-13, positive=positive) for A in (X, twice))
    assert objective(twice, y, many.coef, alpha) == pytest.approx(objective(X, y, one.coef, alpha), rel=1e-11)
    assert many.n_iter < 500
    both = lasso_solve(twice, y, alpha, tol=1e-14, l1_ratio=0.5, positive=positive).coef
    np.testing.assert_allclose(both[:20], both[20:40], atol=1e-7)  # the elastic net shares alike


def test_more_columns_in_use_than_rows_do_not_slow_it_down():
    rng = np.random.default_rng(4)
    X, y = rng.standard_normal((40, 400)), rng.standard_normal(40)
    coefs, gaps, sweeps = enet_path(X, y, l1_ratio=1.0, tol=1e-10, return_n_iter=True, max_iter=1000)[1:]
    assert max(sweeps) < 500
    assert (np.count_nonzero(coefs, axis=0) <= 40).all()


@pytest.mark.parametrize("alpha", [0.3, 1.2])
@each_ratio
@each_sign
def test_orthogonal_design_has_the_closed_form(alpha, l1_ratio, positive):
    rng = np.random.default_rng(5)
    Q = np.linalg.qr(rng.standard_normal((50, 8)))[0] * np.sqrt(50)
    y = Q @ np.linspace(-3, 3, 8) + rng.standard_normal(50)
    z = Q.T @ y / 50
    expected = soft_threshold(z, alpha * l1_ratio) / (1 + alpha * (1 - l1_ratio))
    expected = np.maximum(expected, 0) if positive else expected
    found = lasso_solve(Q, y, alpha, l1_ratio=l1_ratio, positive=positive, tol=1e-15).coef
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("shape", [(80, 30), (30, 80)])
def test_solution_made_from_a_dual_certificate(shape):
    "Choose the residual and a support; scale columns so that KKT holds; then y = Xw + r has the solution w."
    rng, (n, p) = np.random.default_rng(6), shape
    alpha, r, k = 0.7, rng.standard_normal(shape[0]), 10
    X = rng.standard_normal(shape)
    sign = rng.choice([-1.0, 1.0], p)
    wanted = n * alpha * np.where(np.arange(p) < k, sign, sign * rng.uniform(0, 0.95, p))
    X += np.outer(r, (wanted - X.T @ r) / (r @ r))
    w = np.where(np.arange(p) < k, sign * rng.uniform(0.5, 2, p), 0.0)
    found = lasso_solve(X, X @ w + r, alpha, tol=1e-15)
    np.testing.assert_allclose(found.coef, w, atol=1e-8)
    assert np.count_nonzero(found.coef) == k


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.floats(0.001, 0.99), st.booleans())
def test_any_small_problem_is_solved(seed, n, p, share, positive):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) * 10.0 ** rng.integers(-3, 4, p)
    X[:, rng.random(p) < 0.2] = X[:, [0]]
    y = rng.standard_normal(n)
    top = alpha_max(X, y, positive=positive)
    if top > 0:
        found = lasso_solve(X, y, share * top, tol=1e-10, positive=positive)
        assert duality_gap(X, y, found.coef, share * top, positive=positive) <= 1.01e-10 * (y @ y) / n
        assert not positive or (found.coef >= 0).all()


@each_sign
@each_ratio
def test_sparse_data_centred_or_not(l1_ratio, positive):
    rng = np.random.default_rng(7)
    dense = sp.random(60, 90, 0.2, random_state=1).toarray()
    dense[:, 3], dense[:, 4] = 1.5, 0  # the first is 0 once it is centred
    S = sp.csc_array(dense)
    y = rng.standard_normal(60)
    weights = np.sqrt(rng.uniform(0.5, 2, 60))
    alphas = np.array([0.03, 0.01, 0.003])
    options = {"l1_ratio": l1_ratio, "positive": positive, "tol": 1e-11, "max_iter": 10_000}
    dense = enet_path(S.toarray(), y, alphas=alphas, **options)[1]
    for format in ("csc", "csr", "coo"):
        np.testing.assert_allclose(enet_path(S.asformat(format), y, alphas=alphas, **options)[1], dense, atol=1e-5)
    for s, m in ((np.ones(60), S.toarray().mean(0)), (weights, np.asarray(rng.standard_normal(90)))):
        X = S.toarray() - np.outer(s, m)
        expected = linear._fit_path(X, y, alphas, **options)[0]
        found, gaps, _ = linear._fit_path(S, y, alphas, shift=(s, m), **options)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        for k, alpha in enumerate(alphas):
            assert duality_gap(X, y, found[:, k], alpha, l1_ratio=l1_ratio, positive=positive) <= 1.1e-11 * (y @ y) / 60


def test_all_columns_by_their_gram_matrix_sparse_or_dense():
    X, y = problem("tall")
    S, shift = sp.csc_array(np.where(np.abs(X) < 0.7, 0, X)), (np.ones(100), np.full(20, 0.1))
    alphas = np.geomspace(0.5, 1e-3, 30)
    options = {"l1_ratio": 1.0, "positive": False, "tol": 1e-12, "max_iter": 1000}
    ours = linear._fit_path(S, y, alphas, shift=shift, **options)[0]
    np.testing.assert_allclose(ours, linear._fit_path(S.toarray() - 0.1, y, alphas, **options)[0], atol=1e-7)
    rows = np.vstack([linear._fit_path(X, y, [a], **options)[0][:, 0] for a in alphas]).T
    for gram in (None, X.T @ X):
        np.testing.assert_allclose(linear._fit_path(X, y, alphas, gram=gram, **options)[0], rows, atol=1e-6)
    given = enet_path(X, y, alphas=alphas[:3], l1_ratio=1.0, precompute=X.T @ X, Xy=X.T @ y, tol=1e-12)[1]
    np.testing.assert_allclose(given, rows[:, :3], atol=1e-6)


@pytest.mark.parametrize("name", ["tall", "wide"])
def test_float32_stays_float32_and_is_nearly_as_good(name):
    X, y = (a.astype(np.float32) for a in problem(name))
    wide = X.astype(np.float64), y.astype(np.float64)
    alpha = 0.1 * alpha_max(*wide)
    found = lasso_solve(X, y, alpha, tol=1e-7)
    assert found.coef.dtype == np.float32
    assert duality_gap(*wide, found.coef.astype(float), alpha) <= 2e-6 * (wide[1] @ wide[1]) / len(y)
    np.testing.assert_allclose(found.coef, lasso_solve(*wide, alpha, tol=1e-12).coef, atol=1e-3)
    assert enet_path(X, y)[1].dtype == np.float32


def test_memory_order_does_not_matter_and_input_is_not_changed():
    X, y = problem("wide")
    expected = lasso_solve(X, y, 0.05, tol=1e-12).coef
    doubled = np.zeros((60, 160))
    doubled[::2, ::2] = X
    for A in (np.asfortranarray(X), doubled[::2, ::2], X[::-1][::-1], X.tolist()):
        np.testing.assert_allclose(lasso_solve(A, y, 0.05, tol=1e-12).coef, expected, atol=1e-9)
    kept = X.copy(), y.copy(), expected.copy()
    for a in (X, y, expected):
        a.setflags(write=False)
    lasso_solve(X, y, 0.05, w=expected)
    lasso_path(X, y, coef_init=expected)
    for now, before in zip((X, y, expected), kept, strict=True):
        np.testing.assert_array_equal(now, before)


def test_a_good_start_needs_no_sweep():
    X, y = problem("wide")
    first = lasso_solve(X, y, 0.05, tol=1e-8)
    again = lasso_solve(X, y, 0.05, tol=1e-8, w=first.coef)
    assert again.n_iter == 0
    np.testing.assert_array_equal(again.coef, first.coef)
    assert lasso_solve(X, y, 0.05, tol=1e-8, w=-10 * first.coef, positive=True).coef.min() == 0


def test_nothing_to_explain():
    X, _ = problem("tall")
    assert not lasso_solve(X, np.zeros(100), 0.1).coef.any()
    assert lasso_solve(X, np.zeros(100), 0.1)[1:] == (0.0, 0)
    assert not lasso_solve(np.zeros((4, 3)), np.arange(4.0), 0.1).coef.any()
    alphas, coefs, _ = lasso_path(X, np.zeros(100), alphas=4)
    np.testing.assert_array_equal(alphas, np.full(4, np.finfo(float).resolution))
    assert not coefs.any()


@each_sign
@pytest.mark.parametrize("name", ["tall", "correlated"])
def test_without_an_l1_part_it_is_ridge_or_least_squares(name, positive):
    X, y = problem(name)
    from scipy.optimize import nnls

    for l2 in (2.0, 0.0):
        found = lasso_solve(X, y, l2 / len(y) if l2 else 0.0, l1_ratio=0.0, tol=1e-14, positive=positive).coef
        A, b = np.vstack([X, np.sqrt(l2) * np.eye(X.shape[1])]), np.concatenate([y, np.zeros(X.shape[1])])
        expected = nnls(A, b)[0] if positive else np.linalg.lstsq(A, b)[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_gap_reached_is_in_the_warning():
    X, y = problem("wide")
    with pytest.warns(ConvergenceWarning, match="not converged: the duality gap is") as caught:
        found = lasso_solve(X, y, 1e-4, tol=1e-14, max_iter=2)
    assert f"{found.dual_gap:.3e}" in str(caught[0].message)
    assert found.n_iter == 2
    with pytest.warns(ConvergenceWarning):
        found = lasso_solve(X, y, 0.01, tol=0.0, max_iter=10_000)
    assert found.n_iter < 200  # it stops where precision ends
    assert found.dual_gap <= 1e-13 * (y @ y)


# Paths


@pytest.mark.parametrize("options", [{}, {"alphas": 7, "eps": 0.1}, {"alphas": [0.01, 0.3, 0.1]}, {"positive": True}])
def test_paths_take_and_return_what_scikit_learns_do(options):
    X, y = problem("tall")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for ours, theirs in ((lasso_path, sklearn_lasso_path), (enet_path, sklearn_enet_path)):
            a, b = (f(X, y, tol=1e-12, return_n_iter=True, max_iter=10_000, **options) for f in (ours, theirs))
            assert len(a) == len(b) == 4
            np.testing.assert_allclose(a[0], b[0], rtol=1e-12)
            np.testing.assert_allclose(a[1], b[1], atol=1e-5)
            assert a[2].shape == b[2].shape
            assert len(a[3]) == len(b[3])
            assert len(ours(X, y, **options)) == 3


def test_paths_have_scikit_learns_parameters():
    from inspect import signature

    for ours, theirs in ((lasso_path, sklearn_lasso_path), (enet_path, sklearn_enet_path)):
        a, b = (signature(f).parameters for f in (ours, theirs))
        assert list(a) == list(b)
        assert {k for k in a if a[k].default != b[k].default} == {"alphas"}  # 100, theirs from version 1.11 on
        assert {k: v.kind for k, v in a.items()} == {k: v.kind for k, v in b.items()}
    X, y = problem("tall")
    expected = lasso_path(X, y, alphas=5)[1]
    for options in ({"n_alphas": 5}, {"alphas": 5, "check_input": False, "selection": "random", "random_state": 1}):
        np.testing.assert_array_equal(lasso_path(X, y, **options)[1], expected)
    assert lasso_path(X, y, alphas=[0.1], n_alphas=5)[0].tolist() == [0.1]
    np.testing.assert_array_equal(lasso_path(X, y, alphas=5, precompute=True)[1], expected)
    for default in ("warn", None):
        assert len(lasso_path(X, y, alphas=default)[0]) == 100


def test_a_path_may_go_up_or_stand_still():
    X, y = problem("wide")
    options = {"l1_ratio": 1.0, "positive": False, "tol": 1e-12, "max_iter": 10_000}
    alphas = [0.02, 0.02, 0.1, 0.05, 0.01, 0.3]
    coefs = linear._fit_path(X, y, alphas, **options)[0]
    for k, alpha in enumerate(alphas):
        np.testing.assert_allclose(coefs[:, k], lasso_solve(X, y, alpha, tol=1e-13).coef, atol=1e-5)


def test_the_estimator_of_scikit_learn_has_the_same_objective():
    X, y = problem("tall")
    theirs = ElasticNet(alpha=0.1, l1_ratio=0.4, fit_intercept=False, tol=1e-14, max_iter=10**5).fit(X, y)
    ours = lasso_solve(X, y, 0.1, l1_ratio=0.4, tol=1e-14)
    np.testing.assert_allclose(ours.coef, theirs.coef_, rtol=1e-7, atol=1e-9)


def test_import_does_not_load_the_compiler():
    code = "import sys, dlopt_course.linear; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Bad input

X, Y = problem("tall")
W = np.zeros(20)
NAN = np.where(np.arange(100) == 3, np.nan, Y)
BAD = [  # call, error, message
    (lambda: soft_threshold(X, -1.0), ValueError, "threshold must be 0 or more"),
    (lambda: soft_threshold([1.0], 1.0), TypeError, "x must be an array"),
    (lambda: soft_threshold(np.zeros(0), 1.0), ValueError, "x must not be empty"),
    (lambda: soft_threshold(np.arange(3), 1.0), TypeError, "x must be floating point"),
    (lambda: soft_threshold(X, "1"), TypeError, "threshold must be a number"),
    (lambda: alpha_max(X, Y, l1_ratio=0), ValueError, "l1_ratio must be in"),
    (lambda: alpha_max(Y, Y), ValueError, r"X must have the shape \(n, p\)"),
    (lambda: alpha_max(X, Y[1:]), ValueError, r"y must have the shape \(100,\)"),
    (lambda: alpha_max(X, NAN), ValueError, "y must be finite"),
    (lambda: alpha_max(X, torch.asarray(Y)), TypeError, "y must be of the library of X"),
    (lambda: alpha_max(X, Y.astype(np.float32)), TypeError, "y must have the dtype of X"),
    (lambda: duality_gap(X, Y, W, 0), ValueError, "alpha must be greater than 0"),
    (lambda: duality_gap(X, Y, W, 1.0, l1_ratio=0), ValueError, "l1_ratio must be in"),
    (lambda: duality_gap(X, Y, W[1:], 1.0), ValueError, r"w must have the shape \(20,\)"),
    (lambda: duality_gap(X, Y, W - 1, 1.0, positive=True), ValueError, "w must be 0 or more where positive"),
    (lambda: duality_gap(X, NAN, W, 1.0), ValueError, "y must be finite"),
    (lambda: ista(X, Y, -1.0), ValueError, "alpha must be"),
    (lambda: ista(X, Y, 1.0, l1_ratio=2), ValueError, "l1_ratio must be in"),
    (lambda: ista(X, Y, 1.0, tol=-1), ValueError, "tol must be 0 or more"),
    (lambda: fista(X, Y, 1.0, max_iter=0), ValueError, "max_iter must be a whole number from 1"),
    (lambda: fista(X, Y, 1.0, w=W[1:]), ValueError, "w must have the shape"),
    (lambda: fista(X, NAN, 1.0), ValueError, "y must be finite"),
    (lambda: lasso_solve(X, Y, -0.1), ValueError, "alpha must be 0 or more"),
    (lambda: lasso_solve(X, Y, 0.1, l1_ratio=-1), ValueError, "l1_ratio must be in"),
    (lambda: lasso_solve(X, Y, 0.1, w=W[1:]), ValueError, r"w must have the shape \(20,\)"),
    (lambda: lasso_solve(X, Y, 0.1, tol="a"), TypeError, "tol must be a number"),
    (lambda: lasso_solve(X, Y, 0.1, max_iter=2.5), ValueError, "max_iter must be a whole number"),
    (lambda: lasso_solve(X, NAN, 0.1), ValueError, "NaN"),
    (lambda: lasso_solve(X, Y[1:], 0.1), ValueError, "inconsistent numbers of samples"),
    (lambda: lasso_solve(X, X, 0.1), ValueError, r"y must have the shape \(n,\)"),
    (lambda: lasso_solve(np.zeros((0, 3)), np.zeros(0), 0.1), ValueError, "0 sample"),
    (lambda: lasso_path(X, Y, alphas=[-1.0]), ValueError, "alphas must be"),
    (lambda: lasso_path(X, Y, alphas=[]), ValueError, "alphas must be"),
    (lambda: lasso_path(X, Y, alphas=0), ValueError, "alphas must be a whole number from 1"),
    (lambda: enet_path(X, Y, l1_ratio=0), ValueError, "alphas must be given where l1_ratio is 0"),
    (lambda: lasso_path(X, Y, precompute=np.eye(20)), ValueError, r"precompute must be X'X, got 0.0 at \(10, 11\)"),
    (lambda: lasso_path(X, Y, precompute="yes"), ValueError, "precompute must be one of True, False, 'auto'"),
    (lambda: lasso_path(X, Y, selection="greedy"), ValueError, "selection must be one of 'cyclic', 'random'"),
    (lambda: lasso_path(X, Y, eps=0), ValueError, "eps must be greater than 0, got 0"),
    (lambda: lasso_path(X, Y, alphas="all"), TypeError, "alphas must be a number, got str"),
    (
        lambda: lasso_path(X, Y, precompute=np.eye(3)),
        ValueError,
        r"precompute must be .* the shape \(20, 20\), got shape \(3, 3\)",
    ),
    (lambda: lasso_path(X, Y, coef_init=W[1:]), ValueError, "coef_init must have the shape"),
    (lambda: lasso_path(X, Y, Xy=W[1:]), ValueError, "Xy must have the shape"),
    (lambda: lasso_path(X, Y, maxiter=3), ValueError, "params must be tol, max_iter"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=range(len(BAD)))
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


STALLED = {  # where support and signs take many turns: rows, columns, correlation, penalty as a share of alpha_max
    "nearly dependent": (80, 20, 0.999999, 1e-5),
    "few rows": (3, 300, 0.5, 1e-3),
    "two rows": (2, 49, 0.9, 1e-4),
    "wide, correlated": (80, 300, 0.999, 1e-3),
}


@pytest.mark.parametrize("case", STALLED)
@pytest.mark.parametrize("seed", range(3))
def test_newton_steps_do_not_go_in_circles(case, seed):
    n, p, correlation, share = STALLED[case]
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    for j in range(1, p):
        X[:, j] = correlation * X[:, j - 1] + np.sqrt(1 - correlation**2) * X[:, j]
    y = X @ rng.normal(size=p) + rng.normal(size=n)
    found = lasso_solve(X, y, share * alpha_max(X, y), tol=1e-8, max_iter=1500)
    assert found.dual_gap <= 1e-8 * (y @ y) / n


@pytest.mark.parametrize("tol", [1e-4, 1e-10])
def test_the_gap_is_that_of_the_coefficients_that_are_returned(tol):
    X, y = (a.astype(np.float32) for a in problem("tall"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if tol < 1e-6 else "error", ConvergenceWarning)
        found = lasso_solve(X, y, 0.01, tol=tol)
    assert found.coef.dtype == np.float32
    exact = duality_gap(*(a.astype(float) for a in (X, y, found.coef)), 0.01)
    assert found.dual_gap == pytest.approx(exact, rel=1e-6)
    if tol < 1e-6:
        with pytest.warns(ConvergenceWarning, match="not converged: the duality gap is"):
            lasso_solve(X, y, 0.01, tol=tol)
