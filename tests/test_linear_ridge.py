"""Ridge, its path and leave-one-out against scikit-learn, refits and exact arithmetic; every library; bad input."""

import math

import mpmath
import numpy as np
import pytest
import scipy.sparse as sp
from backends import BACKENDS, each_backend
from sklearn import linear_model
from sklearn.exceptions import ConvergenceWarning

from dlopt_course import linear
from dlopt_course.core import assert_close, to_numpy
from dlopt_course.linear import Ridge, RidgeCV, ridge_path, ridge_solve

each_shape = pytest.mark.parametrize("shape", [(30, 8), (8, 30), (12, 12), (3, 1), (2, 9)], ids=str)
SOLVERS = ["auto", "normal", "cholesky", "svd", "dual"]
pytestmark = pytest.mark.usefixtures("one_thread")


def problem(n, p, targets=0, seed=0, kind="independent"):
    "X and y of a linear model; columns correlated, duplicated, constant, of other scales or mostly 0."
    rng = np.random.default_rng([seed, n, p])
    X = rng.standard_normal((n, p))
    if kind == "correlated":
        X = X @ np.triu(np.ones((p, p))) / p**0.5
    if kind == "duplicated":
        X[:, p // 2 :] = X[:, : p - p // 2]
    if kind == "constant":
        X[:, 0] = 3.0
    if kind == "scales":
        X *= np.logspace(-8, 8, p)[rng.permutation(p)]
    if kind == "sparse":
        X *= rng.random((n, p)) < 0.4
    return X + (kind in ("independent", "correlated")), rng.standard_normal((n, *[targets] * (targets > 0))) + 2


KINDS = ["independent", "correlated", "duplicated", "constant", "sparse"]


def peer(X, y, alpha):
    "scikit-learn's coefficients as (p,) or (p, targets)."
    coef = linear_model.Ridge(alpha=alpha, fit_intercept=False, solver="svd").fit(X, y).coef_
    return coef.T.reshape(X.shape[1], *y.shape[1:])


def exact_ridge(X, y, alpha, digits=60):
    "Ridge in arithmetic of 60 digits."
    with mpmath.workdps(digits):
        A = mpmath.matrix(X.tolist())
        G = A.T * A + mpmath.mpf(alpha) * mpmath.eye(X.shape[1])
        return np.array([float(v) for v in mpmath.lu_solve(G, A.T * mpmath.matrix(y.tolist()))])


# The pure functions


@each_backend
@each_shape
@pytest.mark.parametrize("solver", SOLVERS)
def test_equals_scikit_learn(backend, shape, solver):
    make, (X, Y) = BACKENDS[backend], problem(*shape, targets=3)
    for y, alpha in ((Y[:, 0], 0.3), (Y, 7.0), (Y, [0.1, 1.0, 0.1]), (Y[:, :1], [2.0])):
        w = ridge_solve(make(X), make(y), alpha, solver=solver)
        assert type(w) is type(make(X))
        assert_close(w, peer(X, y, alpha), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_gradient_is_0(kind, solver):
    for shape in ((40, 7), (7, 40)):
        X, y = problem(*shape, targets=2, kind=kind)
        for alpha in (1e-3, 1.0, 1e4):
            w = ridge_solve(X, y, alpha, solver=solver)
            assert np.abs(X.T @ (y - X @ w) - alpha * w).max() < 1e-9 * np.abs(X.T @ y).max()


@pytest.mark.parametrize("solver", SOLVERS)
def test_known_solution_of_orthonormal_columns(solver):
    Q = np.linalg.qr(problem(20, 6)[0])[0]
    w = np.arange(1.0, 7)
    assert_close(ridge_solve(Q, Q @ w, 0.5, solver=solver), w / 1.5, rtol=1e-12)
    assert_close(ridge_solve(Q, Q @ w, 0.0, solver="svd"), w, rtol=1e-12)


@pytest.mark.parametrize("solver", ["auto", "cholesky", "svd", "dual"])
@pytest.mark.parametrize("kind", ["independent", "duplicated"])
def test_least_squares_of_the_smallest_norm_without_a_penalty(solver, kind):
    for shape in ((30, 8), (8, 30), (1, 1), (5, 5)):
        X, y = problem(*shape, kind=kind if min(shape) > 1 else "independent")
        assert_close(ridge_solve(X, y, 0.0, solver=solver), np.linalg.pinv(X, rcond=1e-13) @ y, rtol=1e-8, atol=1e-10)
    assert not ridge_solve(np.zeros((4, 3)), np.ones(4), 0.0, solver=solver).any()


@pytest.mark.parametrize("shape", [(20, 9), (9, 9), (6, 11)], ids=str)
@pytest.mark.parametrize("alpha", [1e-6, 1.0, 1e3])
def test_scales_from_1e_8_to_1e8_in_exact_arithmetic(shape, alpha):
    X, y = problem(*shape, kind="scales")
    exact = exact_ridge(X, y, alpha)
    assert_close(ridge_solve(X, y, alpha), exact, rtol=1e-8)


def test_nearly_dependent_columns_in_exact_arithmetic():
    "As many digits as the problem has, by normal equations or, where they lose too many, by the SVD."
    for spread in (1e-2, 1e-4, 1e-6):
        X, y = problem(30, 6)
        X[:, 5] = X[:, 4] + spread * X[:, 5]
        for alpha in (1e-12, 1e-6):
            condition = np.linalg.cond(X.T @ X + alpha * np.eye(6))
            for solver in ("auto", "cholesky", "svd"):
                error = ridge_solve(X, y, alpha, solver=solver) / exact_ridge(X, y, alpha) - 1
                assert np.abs(error).max() < 10 * condition * np.finfo(float).eps


@each_backend
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_and_library_stay(backend, dtype):
    X, y = (x.astype(dtype) for x in problem(30, 8, targets=2))
    make = BACKENDS[backend]
    for solver in SOLVERS:
        w = ridge_solve(make(X), make(y), 0.5, solver=solver)
        assert w.dtype == make(X).dtype
        assert str(w.device) == str(make(X).device)
        assert_close(
            w, peer(X.astype(float), y.astype(float), 0.5).astype(dtype), rtol=2e-4 if dtype == "float32" else 1e-9
        )
    for part in ridge_path(make(X), make(y), [0.1, 1.0], fit_intercept=True):
        assert part.dtype == make(X).dtype


def test_any_layout_and_nothing_is_changed():
    X, Y = problem(30, 8, targets=2)
    layouts = [np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2], X[::-1][::-1], X.copy()]
    layouts[3].flags.writeable = False
    for x in layouts:
        before = x.copy()
        for solver in SOLVERS:
            assert_close(ridge_solve(x, Y, 0.3, solver=solver), peer(X, Y, 0.3), rtol=1e-10)
        assert_close(
            ridge_path(x, Y, [0.3], fit_intercept=True).coefs, ridge_path(X, Y, [0.3], fit_intercept=True).coefs
        )
        assert (x == before).all()


@each_backend
@each_shape
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_path_equals_a_fit_at_each_alpha(backend, shape, fit_intercept):
    make, (X, Y), alphas = BACKENDS[backend], problem(*shape, targets=2), [10.0, 1e-3, 1.0]
    for y in (Y[:, 0], Y):
        path = ridge_path(make(X), make(y), alphas, fit_intercept=fit_intercept)
        assert_close(path.alphas, np.array(alphas))
        assert tuple(path.coefs.shape) == (shape[1], *y.shape[1:], 3)
        for k, alpha in enumerate(alphas):
            fit = linear_model.Ridge(alpha=alpha, fit_intercept=fit_intercept, solver="svd").fit(X, y)
            assert_close(to_numpy(path.coefs)[..., k], fit.coef_.T, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (12, 12)], ids=str)
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_degrees_of_freedom_are_the_trace(shape, fit_intercept):
    X, _ = problem(*shape)
    n = len(X)
    for alpha in (1e-2, 1.0, 100.0):
        fit = linear_model.Ridge(alpha=alpha, fit_intercept=fit_intercept, solver="svd")
        H = fit.fit(X, np.eye(n)).predict(X)  # the fit of each unit vector
        found = ridge_path(X, np.ones(n), [alpha], fit_intercept=fit_intercept).degrees_of_freedom
        assert_close(found, np.array([np.trace(H)]), rtol=1e-10)


@each_backend
@pytest.mark.parametrize("shape", [(15, 4), (6, 14), (7, 7), (2, 3)], ids=str)
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_leave_one_out_equals_refits(backend, shape, fit_intercept):
    make, (X, Y), alphas = BACKENDS[backend], problem(*shape, targets=2), [1e-6, 0.1, 10.0]
    for y in (Y[:, 0], Y):
        found = ridge_path(make(X), make(y), alphas, fit_intercept=fit_intercept).leave_one_out
        expected = np.empty((*y.shape, 3))
        for i in range(len(X)):
            rest = np.arange(len(X)) != i
            for k, alpha in enumerate(alphas):
                fit = linear_model.Ridge(alpha=alpha, fit_intercept=fit_intercept, solver="svd").fit(X[rest], y[rest])
                expected[i, ..., k] = y[i] - fit.predict(X[i : i + 1])[0]
        assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_leave_one_out_without_a_penalty():
    for (n, p), intercept in (((15, 4), False), ((15, 4), True), ((6, 14), False), ((6, 14), True)):
        X, y = problem(n, p)
        path = ridge_path(X, y, [0.0], fit_intercept=intercept)
        for i in range(n):
            rest = np.arange(n) != i
            fit = linear_model.LinearRegression(fit_intercept=intercept).fit(X[rest], y[rest])
            assert path.leave_one_out[i, 0] == pytest.approx(y[i] - fit.predict(X[i : i + 1])[0], rel=1e-7)


BAD = [  # X, y, alpha, options, error, message
    (np.ones(3), np.ones(3), 1, {}, ValueError, "X must have the shape"),
    (np.ones((3, 2)), np.ones(4), 1, {}, ValueError, "y must have the 3 rows of X"),
    (np.ones((3, 2)), np.ones((3, 1, 1)), 1, {}, ValueError, "y must have the 3 rows of X"),
    (np.ones((3, 2)), np.ones(3, np.float32), 1, {}, TypeError, "y must have the dtype of X"),
    (np.ones((3, 2), int), np.ones(3), 1, {}, TypeError, "X must be floating point"),
    ([[1.0]], np.ones(1), 1, {}, TypeError, "X must be an array"),
    (np.ones((0, 2)), np.ones(0), 1, {}, ValueError, "X must not be empty"),
    (np.ones((3, 0)), np.ones(3), 1, {}, ValueError, "X must not be empty"),
    (np.full((3, 2), np.nan), np.ones(3), 1, {}, ValueError, "X must be finite"),
    (np.full((3, 2), np.inf), np.ones(3), 1, {}, ValueError, "X must be finite"),
    (np.ones((3, 2)), np.array([1, np.inf, 1]), 1, {}, ValueError, "y must be finite"),
    (np.ones((3, 2)), np.ones(3), -1, {}, ValueError, "must be 0 or more, got -1"),
    (np.ones((3, 2)), np.ones(3), math.nan, {}, ValueError, "must be 0 or more"),
    (np.ones((3, 2)), np.ones(3), "1", {}, TypeError, "must be a number"),
    (np.ones((3, 2)), np.ones(3), True, {}, TypeError, "must be a number"),
    (np.ones((3, 2)), np.ones((3, 2)), [1, 2, 3], {}, ValueError, "one for each of 2 targets"),
    (np.ones((3, 2)), np.ones(3), [[1.0]], {}, ValueError, "one for each of 1 targets"),
    (np.ones((3, 2)), np.ones(3), [], {}, ValueError, "one for each of 1 targets"),
    (np.ones((3, 2)), np.ones(3), 1, {"solver": "lu"}, ValueError, "solver must be one of 'auto', 'normal'"),
]


@pytest.mark.parametrize(("X", "y", "alpha", "options", "error", "message"), BAD)
def test_bad_input_is_named(X, y, alpha, options, error, message):
    with pytest.raises(error, match=message):
        ridge_solve(X, y, alpha, **options)
    if not options and "targets" not in message:
        with pytest.raises(error, match=message):
            ridge_path(X, y, [alpha])


def test_a_path_needs_alphas_and_a_second_row():
    for alphas in ([], [[1.0]]):
        with pytest.raises(ValueError, match="alphas must be numbers"):
            ridge_path(np.ones((3, 2)), np.ones(3), alphas)
    with pytest.raises(ValueError, match="2 rows or more"):
        ridge_path(np.ones((1, 2)), np.ones(1), [1.0], fit_intercept=True)
    assert_close(ridge_path(np.ones((1, 2)), np.full(1, 3.0), 1.0).leave_one_out, np.full((1, 1), 3.0))


# The estimators


def same(ours, theirs, names, rtol=1e-9, atol=1e-11):
    "The attributes have one shape, dtype and, up to rounding, value."
    for name in names:
        a, b = getattr(ours, name), getattr(theirs, name)
        assert np.shape(a) == np.shape(b), name
        assert_close(a, b, rtol=rtol, atol=atol, name=name)


WEIGHTS = np.random.default_rng(1).uniform(0.1, 3.0, 100)
each_intercept = pytest.mark.parametrize("fit_intercept", [True, False])
each_weight = pytest.mark.parametrize("weights", [None, "some", 2.0])


def weights_for(n, weights):
    return WEIGHTS[:n] if weights == "some" else weights


@pytest.mark.parametrize("kind", KINDS)
@each_intercept
@each_weight
def test_ridge_equals_scikit_learn(kind, fit_intercept, weights):
    for n, p in ((30, 7), (7, 30)):
        X, Y = problem(n, p, targets=3, kind=kind)
        for y, alpha in ((Y[:, 0], 0.3), (Y[:, :1], 5.0), (Y, 0.7), (Y, [0.1, 2.0, 0.1])):
            sw = weights_for(n, weights)
            reference = linear_model.Ridge(alpha=alpha, fit_intercept=fit_intercept, solver="svd").fit(X, y, sw)
            for solver in ("auto", "svd", "cholesky", "lsqr", "sparse_cg", "sag", "saga"):
                model = Ridge(alpha=alpha, fit_intercept=fit_intercept, solver=solver).fit(X, y, sw)
                same(model, reference, ["coef_", "intercept_"])
                assert model.solver_ == ("svd" if solver == "svd" else "cholesky")
            assert_close(model.predict(X), reference.predict(X), rtol=1e-9)


@each_intercept
@each_weight
@pytest.mark.parametrize("make", [sp.csr_array, sp.csc_matrix, sp.coo_array])
def test_sparse_ridge_equals_dense(make, fit_intercept, weights):
    for n, p in ((30, 7), (7, 30)):
        X, Y = problem(n, p, targets=2, kind="sparse")
        sw = weights_for(n, weights)
        reference = linear_model.Ridge(alpha=0.5, fit_intercept=fit_intercept, solver="svd").fit(X, Y, sw)
        for solver in ("auto", "lsqr", "sparse_cg", "sag"):
            model = Ridge(alpha=0.5, fit_intercept=fit_intercept, solver=solver, tol=1e-13).fit(make(X), Y, sw)
            same(model, reference, ["coef_", "intercept_"], rtol=1e-8, atol=1e-9)
            assert model.solver_ == (solver if solver in ("lsqr", "sparse_cg") else "cholesky")


def test_a_large_sparse_x_is_never_made_dense():
    "Dense, it would take 80 GB."
    X = sp.random_array((100_000, 100_000), density=2e-6, format="csr", rng=np.random.default_rng(0))
    y = X @ np.ones(100_000) + 1
    for solver in ("auto", "sag"):
        model = Ridge(solver=solver, tol=1e-10).fit(X, y)
        assert model.solver_ == {"auto": "sparse_cg", "sag": "lsqr"}[solver]
        r = y - X @ model.coef_ - model.intercept_
        assert abs(r.sum()) < 1e-3
        assert np.abs(X.T @ r - model.coef_).max() < 1e-6


@each_intercept
@each_weight
def test_positive_ridge_equals_scikit_learn(fit_intercept, weights):
    for n, p in ((30, 7), (7, 30)):
        X, Y = problem(n, p, targets=2, kind="sparse")
        sw, options = weights_for(n, weights), {"positive": True, "fit_intercept": fit_intercept}
        reference = linear_model.Ridge(alpha=0.5, tol=1e-13, **options).fit(X, Y, sw)
        for x in (X, sp.csr_array(X)):
            model = Ridge(alpha=0.5, **options).fit(x, Y, sw)
            same(model, reference, ["coef_", "intercept_"], rtol=1e-4, atol=1e-5)  # scikit-learn's L-BFGS stops early
            assert model.solver_ == "lbfgs"
            assert (model.coef_ >= 0).all()


def test_positive_ridge_has_no_slope_left():
    for alpha in (0.0, 0.1, 10.0):
        X, y = problem(40, 12)
        w = Ridge(alpha=alpha, positive=True, fit_intercept=False).fit(X, y).coef_
        slopes = X.T @ (y - X @ w) - alpha * w
        assert np.abs(slopes[w > 0]).max() < 1e-10
        assert (slopes[w == 0] <= 1e-10).all()
        assert 0 < np.count_nonzero(w) < 12


def test_ridge_takes_the_scales_of_the_columns_as_they_are():
    X, y = problem(25, 9, kind="scales")
    for alpha in (1e-3, 1.0):
        assert_close(Ridge(alpha, fit_intercept=False).fit(X, y).coef_, exact_ridge(X, y, alpha), rtol=1e-8)
        centred = Ridge(alpha).fit(X, y).coef_
        assert_close(centred, exact_ridge(X - X.mean(0), y - y.mean(), alpha), rtol=1e-8)


def test_ridge_in_float32():
    X, y = (x.astype(np.float32) for x in problem(30, 7))
    reference = linear_model.Ridge().fit(X, y)
    for x in (X, sp.csr_array(X)):
        same(Ridge().fit(x, y), reference, ["coef_", "intercept_"], rtol=1e-4)


def test_n_iter_is_an_array_for_the_solvers_that_count():
    X, Y = problem(30, 7, targets=2)
    for solver in ("auto", "svd", "cholesky", "sparse_cg", "lsqr", "sag", "saga"):
        ours, theirs = Ridge(solver=solver).fit(X, Y).n_iter_, linear_model.Ridge(solver=solver).fit(X, Y).n_iter_
        assert (ours is None) == (theirs is None)
        assert np.shape(ours) == np.shape(theirs)


def test_iterative_solvers_warn_where_they_do_not_arrive():
    X, y = problem(60, 30, kind="sparse")
    for solver in ("lsqr", "sparse_cg"):
        with pytest.warns(ConvergenceWarning, match=f"{solver} did not reach tol=1e-12"):
            Ridge(solver=solver, max_iter=2, tol=1e-12, alpha=1e-3).fit(sp.csr_array(X), y)


def test_copy_x():
    X, y = problem(30, 7)
    before = X.copy()
    coef = Ridge(solver="svd").fit(X, y, WEIGHTS[:30]).coef_
    RidgeCV().fit(X, y, WEIGHTS[:30])
    assert (before == X).all()
    X.flags.writeable = False
    Ridge(copy_X=False).fit(X, y)
    assert (before == X).all()
    assert_close(Ridge(copy_X=False, solver="svd").fit(X.copy(), y, WEIGHTS[:30]).coef_, coef, rtol=1e-12)


ATTRIBUTES = ["alpha_", "best_score_", "coef_", "intercept_"]


@each_intercept
@each_weight
@pytest.mark.parametrize("scoring", [None, "r2", "neg_mean_absolute_error"])
@pytest.mark.parametrize("gcv_mode", ["auto", "svd"])
def test_ridge_cv_equals_scikit_learn(fit_intercept, weights, scoring, gcv_mode):
    if weights == 2.0 and scoring:
        pytest.skip("scikit-learn hands the number to the scorer, which fails")
    options = {
        "alphas": np.logspace(-2, 3, 6),
        "fit_intercept": fit_intercept,
        "gcv_mode": gcv_mode,
        "scoring": scoring,
    }
    for n, p in ((20, 6), (6, 20), (9, 9)):
        X, Y = problem(n, p, targets=3, kind="sparse")
        for y, each in ((Y[:, 0], False), (Y, False), (Y, True), (Y[:, :1], False)):
            more = options | {"alpha_per_target": each, "store_cv_results": True}
            sw = weights_for(n, weights)
            reference = linear_model.RidgeCV(**more).fit(X, y, sw)
            for x in [X] + [sp.csr_array(X)] * (gcv_mode == "auto"):
                same(RidgeCV(**more).fit(x, y, sw), reference, [*ATTRIBUTES, "cv_results_"], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", [*KINDS, "scales"])
def test_ridge_cv_leaves_each_row_out(kind):
    "Against fits without each row; also where columns have all scales, and squares of X lose the small ones."
    for n, p in ((12, 4), (5, 11)):
        X, y = problem(n, p, kind=kind)
        model = RidgeCV(alphas=[0.1, 10.0], store_cv_results=True).fit(X, y)
        for i in range(n):
            rest = np.arange(n) != i
            for k, alpha in enumerate((0.1, 10.0)):
                error = y[i] - Ridge(alpha).fit(X[rest], y[rest]).predict(X[i : i + 1])[0]
                assert model.cv_results_[i, k] == pytest.approx(error**2, rel=1e-5, abs=1e-9)
        assert_close(model.coef_, Ridge(model.alpha_).fit(X, y).coef_, rtol=1e-6, atol=1e-12)


def test_ridge_cv_on_other_folds():
    X, Y = problem(30, 6, targets=2)
    for y, weights in ((Y[:, 0], None), (Y, None), (Y[:, 0], WEIGHTS[:30])):
        ours, theirs = (m.RidgeCV(cv=4, alphas=[0, 1, 10]).fit(X, y, weights) for m in (_ours, linear_model))
        same(ours, theirs, ATTRIBUTES)


class _ours:
    RidgeCV = RidgeCV


def test_many_alphas_are_worked_on_in_parts(monkeypatch):
    X, y = problem(30, 6)
    alphas, model = np.logspace(-3, 3, 40), RidgeCV(store_cv_results=True)
    monkeypatch.setattr(linear, "_AT_ONCE", 200)
    whole = model.set_params(alphas=alphas).fit(X, y)
    single = [RidgeCV(alphas=[a], store_cv_results=True).fit(X, y).cv_results_[:, 0] for a in alphas]
    assert_close(whole.cv_results_, np.stack(single, axis=1), rtol=1e-10)
    assert whole.alpha_ == alphas[np.argmin(whole.cv_results_.mean(0))]


def test_ridge_cv_is_computed_in_float64_and_returned_in_float32():
    X, y = (x.astype(np.float32) for x in problem(30, 7))
    ours, theirs = (m.RidgeCV(store_cv_results=True).fit(X, y) for m in (_ours, linear_model))
    same(ours, theirs, ["alpha_", "coef_", "intercept_", "cv_results_"], rtol=1e-6)


def test_rows_of_weight_0_count_for_nothing():
    X, y = problem(30, 6)
    weights = np.where(np.arange(30) < 25, 1.0, 0.0)
    for make in (Ridge, lambda: RidgeCV(scoring="neg_mean_squared_error")):
        assert_close(make().fit(X, y, weights).coef_, make().fit(X[:25], y[:25]).coef_, rtol=1e-10)
