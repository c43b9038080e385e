"""Planted errors: a wrong factor, sign, axis or limit in ridge and in the estimators makes a check fail."""

import inspect
import warnings
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
import torch
from planted import REST, definitions, load, survivors
from sklearn import linear_model
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupKFold
from sklearn.utils._param_validation import Interval
from test_linear_ridge import BAD, exact_ridge, peer, problem

from dlopt_course import linear
from dlopt_course.core import assert_close

pytestmark = pytest.mark.usefixtures("one_thread")
FUNCTIONS = ["_check_design", "_strengths", "_plus_alpha", "_normal", "_factor", "_cholesky", "_directions", "_svd"]
FUNCTIONS += [
    "_dual",
    "_order",
    "_each_penalty",
    "_ridge",
    "ridge_solve",
    "_left_out",
    "RidgePath",
    "_beside",
    "ridge_path",
]
SHARED = ["_Centred", "_weights", "_times_rows", "_means", "_centred", "_LinearModel"]
OF_RIDGE = ["_iterate", "_lsqr", "_conjugate_gradient", "_direct", "_positive_ridge", "Ridge"]
OF_RIDGE_CV = [
    "_LeftOut",
    "_through_svd",
    "_through_gram",
    "_through_covariance",
    "_leave_one_out",
    "_Predicted",
    "RidgeCV",
]
OF_LASSO = ["_share_weights", "_shift", "_checked_gram", "_usable_gram", "ElasticNet", "Lasso"]
OF_CV = ["_grid", "_fold_errors", "_PathCV", "LassoCV", "ElasticNetCV"]
ESTIMATORS = {  # definition: the estimators that show its errors
    **dict.fromkeys(SHARED, ("Ridge", "Lasso")),
    **dict.fromkeys(OF_RIDGE, ("Ridge",)),
    **dict.fromkeys(OF_RIDGE_CV, ("RidgeCV",)),
    **dict.fromkeys(OF_LASSO, ("Lasso", "ElasticNet")),
    **dict.fromkeys(OF_CV, ("LassoCV", "ElasticNetCV")),
}
SHAPES = [(9, 4), (4, 9), (5, 5), (4, 1)]
WEIGHTS = np.random.default_rng(1).uniform(0.1, 3.0, 20)


def refits(X, y, alpha, fit_intercept):
    "Leave-one-out errors, by leaving one out."
    found = np.empty_like(y)
    for i in range(len(X)):
        rest = np.arange(len(X)) != i
        fit = linear_model.Ridge(alpha=alpha, fit_intercept=fit_intercept, solver="svd").fit(X[rest], y[rest])
        found[i] = y[i] - fit.predict(X[i : i + 1])[0]
    return found


# The pure functions


def solutions():
    "Problems with what ridge_solve has to find."
    for n, p in SHAPES:
        X, Y = problem(n, p, targets=2)
        for y, alpha in ((Y[:, 0], 0.3), (Y, 2.0), (Y, [0.1, 5.0])):
            for solver in ("auto", "normal", "cholesky", "svd", "dual"):
                yield X, y, alpha, solver, peer(X, y, alpha), 1e-9
    for (n, p), alpha in (((12, 5), 1e-6), ((5, 8), 1e3), ((3, 30), 1e3), ((12, 5), 1.0)):
        X, y = problem(n, p, kind="scales")
        yield X, y, alpha, "auto", exact_ridge(X, y, alpha), 1e-8
    for spread in (1e-3, 1e-4, 1e-6):  # refined, and left to the SVD
        X, _ = problem(12, 4)
        X[:, 3] = X[:, 2] + spread * X[:, 3]
        for x, y in ((X, X @ np.ones(4)), (X.T.copy(), np.arange(1.0, 5))):
            for solver in ("auto", "cholesky", "dual"):
                yield x, y, 1e-9, solver, exact_ridge(x, y, 1e-9), 1e-13 / spread
    X, y = problem(9, 4, kind="duplicated")
    for solver in ("auto", "cholesky", "svd", "dual"):
        for scale in (1e-20, 1.0, 1e6):
            for alpha in (0.0, 1e-24 * scale**2):
                yield scale * X, y, alpha, solver, np.linalg.pinv(scale * X) @ y, 1e-9
                yield scale * X.T, y[:4], alpha, solver, np.linalg.pinv(scale * X.T) @ y[:4], 1e-9


SOLUTIONS = list(solutions())
PATHS = [
    (X, y, intercept, [refits(X, y, alpha, intercept) for alpha in (1e-3, 2.0)])
    for X, y in (problem(n, p, targets=2) for n, p in SHAPES)
    for intercept in (False, True)
]
TRACES = [np.trace(X @ np.linalg.solve(X.T @ X + 2.0 * np.eye(X.shape[1]), X.T)) for X, _, _, _ in PATHS]
FREE = problem(4, 9)
FREE_LEFT = refits(*FREE, 1e-12, False), refits(*FREE, 1e-12, True)


def of_functions(module):
    "ridge_solve and ridge_path against the answers, on NumPy and torch, and the errors that bad input has to raise."
    for X, y, alpha, solver, expected, rtol in SOLUTIONS:
        assert_close(module.ridge_solve(X, y, alpha, solver=solver), expected, rtol=rtol, atol=1e-14)
    for X, y, alpha, solver, expected, _ in SOLUTIONS[:15]:
        w = module.ridge_solve(torch.asarray(X), torch.asarray(y), alpha, solver=solver)
        assert_close(w, expected, rtol=1e-9)
    for (X, y, intercept, left), trace in zip(PATHS, TRACES, strict=True):
        path = module.ridge_path(X, y, [1e-3, 2.0], fit_intercept=intercept)
        assert_close(path.leave_one_out, np.stack(left, axis=-1), rtol=1e-6)
        fit = linear_model.Ridge(alpha=2.0, fit_intercept=intercept, solver="svd").fit(X, y)
        assert_close(path.coefs[..., 1], fit.coef_.T, rtol=1e-9)
        assert_close(path.alphas, np.array([1e-3, 2.0]))
        if not intercept:
            assert path.degrees_of_freedom[1] == pytest.approx(trace, rel=1e-10)
            assert module.ridge_path(X - X.mean(0), y, [2.0], fit_intercept=True).degrees_of_freedom[
                0
            ] == pytest.approx(1 + module.ridge_path(X - X.mean(0), y, [2.0]).degrees_of_freedom[0], rel=1e-12)
    for spread, names in ((1e-3, ("cholesky", "dual")), (1e-4, ("cholesky", "dual")), (1e-6, ("svd", "svd"))):
        X, _ = problem(12, 4)
        X[:, 3] = X[:, 2] + spread * X[:, 3]
        assert module._ridge(X, np.ones((12, 1)), [0.0], "auto")[1] == names[0]
        assert module._ridge(X.T, np.ones((4, 1)), [0.0], "dual")[1] == names[1]
    assert module._ridge(np.ones((3, 5)), np.ones((3, 1)), [1.0], "auto")[1] == "dual"
    of_edges(module)


def of_edges(module):
    for intercept, left in zip((False, True), FREE_LEFT, strict=True):
        path = module.ridge_path(*FREE, [0.0], fit_intercept=intercept)
        assert_close(path.leave_one_out[:, 0], left, rtol=1e-6)
    X, y = problem(9, 4, kind="duplicated")
    for x, z, rank in ((X, y, 2), (X.T, y[:4], 1)):
        for scale in (1e-10, 1e6):
            path = module.ridge_path(scale * x, z, [0.0], fit_intercept=True)
            assert_close(path.coefs[:, 0], np.linalg.pinv(scale * (x - x.mean(0)), 1e-12) @ (z - z.mean()), rtol=1e-8)
            assert path.degrees_of_freedom[0] == pytest.approx(1 + rank, rel=1e-10)
    for X in (np.zeros((3, 2)), np.ones((3, 2))):
        for intercept in (False, True):
            path = module.ridge_path(X, np.array([1.0, 2.0, 4.0]), [0.0, 1.0], fit_intercept=intercept)
            assert np.isfinite(path.leave_one_out).all()
            assert path.coefs[0, 1] == pytest.approx(0.0 if intercept else 7 / 7 * X[0, 0], abs=1e-12)
    assert module.ridge_path(np.ones((2, 1)), np.ones(2), 1.0, fit_intercept=True).coefs.shape == (1, 1)
    for X, y, alpha, options, error, message in BAD:
        with pytest.raises(error, match=message):
            module.ridge_solve(X, y, alpha, **options)
    with pytest.raises(ValueError, match="2 rows or more"):
        module.ridge_path(np.ones((1, 2)), np.ones(1), [1.0], fit_intercept=True)


# The estimators

DATA = [(problem(n, p, targets=2, kind="sparse"), WEIGHTS[:n]) for n, p in ((12, 4), (5, 9), (5, 5))]
for (X, Y), _ in DATA:
    X.flags.writeable = Y.flags.writeable = False  # or an error that writes into them would be in all that follow
OPTIONS = {  # estimator: options to fit it with
    "Ridge": [
        {"alpha": 0.3, "solver": "svd"},
        {"alpha": 0.3, "solver": "svd", "fit_intercept": False},
    ],
    "RidgeCV": [
        {"alphas": [0.1, 1.0, 10.0], "store_cv_results": True},
        {"alphas": [0.1, 1.0, 10.0], "store_cv_results": True, "fit_intercept": False, "gcv_mode": "svd"},
        {"alphas": [0.1, 1.0, 10.0], "gcv_mode": "svd"},
        {"alphas": [0.1, 1.0, 10.0], "fit_intercept": False},
        {"alphas": [0.1, 1.0, 10.0], "store_cv_results": True, "scoring": "r2"},
        {"alphas": [0.1, 1.0], "cv": 3, "scoring": "neg_mean_squared_error"},
    ],
    "Lasso": [{"alpha": 0.05}, {"alpha": 0.05, "fit_intercept": False, "positive": True}],
    "ElasticNet": [{"alpha": 0.05, "l1_ratio": 0.3}],
    "LassoCV": [{"alphas": 4, "cv": 3, "eps": 0.1}, {"alphas": [0.1, 0.3], "cv": 3, "fit_intercept": False}],
    "ElasticNetCV": [
        {"alphas": 3, "cv": 3, "l1_ratio": [0.3, 0.9], "eps": 0.1},
        {"alphas": [0.1, 0.3], "cv": 3, "l1_ratio": [0.3, 0.9], "positive": True},
    ],
}
FOUND = ["coef_", "intercept_", "alpha_", "best_score_", "cv_results_", "alphas_", "mse_path_", "l1_ratio_"]
TIGHT = {"tol": 1e-13, "max_iter": 100_000}


def references():
    "scikit-learn's estimators, fitted."
    for name, options in ((k, o) for k, several in OPTIONS.items() for o in several):
        more = {} if name.startswith("Ridge") else TIGHT
        for (X, Y), weights in DATA[: 1 if "cv" in options else 3]:
            for y in (Y[:, 0],) if "cv" in options or more else (Y[:, 0], Y):
                for sw in (None, weights):
                    yield name, options | more, X, y, sw, getattr(linear_model, name)(**options, **more).fit(X, y, sw)


REFERENCES = list(references())
OURS = linear._fit_path


def of_estimators(module, names=tuple(OPTIONS)):
    "The estimators against scikit-learn's, dense and sparse, and what only some options reach."
    module._fit_path = OURS  # whose kernels are compiled
    for name in names:
        ours, theirs = getattr(module, name), getattr(linear_model, name)
        assert ours().get_params() == theirs().get_params()
        assert intervals(ours) == intervals(theirs)
        assert ours().__sklearn_tags__().target_tags == theirs().__sklearn_tags__().target_tags
        assert ours().__sklearn_tags__().input_tags == theirs().__sklearn_tags__().input_tags
        with pytest.raises(ValueError, match="0 or more, got -1"):
            ours().fit(*problem(12, 4), np.where(np.arange(12) == 3, -1.0, 1.0))
        assert inspect.signature(ours.fit) == inspect.signature(theirs.fit)
        X, y = DATA[0][0][0], DATA[0][0][1][:, 0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert (ours().fit(X, y.astype(object)).coef_ == ours().fit(X, y).coef_).all() or "CV" in name
        if "copy_X" in ours().get_params():
            ours(copy_X=False).fit(X, y)
    for name, options, X, y, sw, reference in REFERENCES:
        if name in names:
            for x in [X] + [sp.csr_array(X)] * (options.get("solver") != "svd" and "gcv_mode" not in options):
                same(getattr(module, name)(**options).fit(x, y, sw), reference, X)
    for name, rest in {"Ridge": of_ridge, "RidgeCV": of_ridge_cv, "Lasso": of_lasso, "LassoCV": of_cv}.items():
        if name in names:
            rest(module)


def intervals(cls):
    "The numbers that each parameter may have, in words."
    return {
        name: [str(x) for x in kinds if isinstance(x, Interval)] for name, kinds in cls._parameter_constraints.items()
    }


def same(model, reference, X):
    for attribute in FOUND:
        assert hasattr(model, attribute) == hasattr(reference, attribute), attribute
        if hasattr(model, attribute):
            ours, theirs = getattr(model, attribute), getattr(reference, attribute)
            assert np.shape(ours) == np.shape(theirs)
            assert_close(np.asarray(ours, float), np.asarray(theirs, float), rtol=1e-6, atol=1e-8)
    assert_close(model.predict(X), reference.predict(X), rtol=1e-6)


RIDGES = [
    (X, Y, sw, linear_model.Ridge(alpha=[0.3, 2.0], fit_intercept=intercept, solver="svd").fit(X, Y, sw))
    for (X, Y), sw in ((DATA[0][0], None), DATA[1])
    for intercept in (True, False)
]


def of_ridge(module):
    for X, Y, sw, expected in RIDGES:
        for solver in ("auto", "lsqr", "sparse_cg", "sag"):
            model = module.Ridge([0.3, 2.0], fit_intercept=expected.fit_intercept, solver=solver, tol=1e-13)
            same(model.fit(sp.csr_array(X), Y, sw), expected, X)
            assert model.solver_ == (solver if solver in ("lsqr", "sparse_cg") else "cholesky")
            same(model.fit(X, Y, sw), expected, X)
            assert model.solver_ == "cholesky"
            assert (model.n_iter_ is None) == (solver in ("auto", "sparse_cg"))
    X = sp.csr_array(DATA[0][0][0])
    for name in ("lsqr", "sparse_cg"):
        with pytest.warns(ConvergenceWarning, match=f"{name} did not reach"):
            module.Ridge(1e-9, solver=name, max_iter=2, tol=1e-12).fit(X, DATA[0][0][1])
    for solver in ("auto", "svd", "cholesky"):
        for intercept in (True, False):
            both = (m.Ridge(solver=solver, fit_intercept=intercept).__sklearn_tags__() for m in (module, linear_model))
            assert len({tags.input_tags.sparse for tags in both}) == 1
    for options in ({"solver": "lbfgs"}, {"solver": "svd", "positive": True}):
        with pytest.raises(ValueError, match="not 'lbfgs' where not"):
            module.Ridge(**options).fit(*DATA[0][0])
    refused(module.Ridge, (({"solver": "lbfgs"}, X), ({"solver": "svd", "positive": True}, X)))
    refused(module.Ridge, (({"solver": name}, X) for name in ("svd", "cholesky", "saga")))
    with pytest.raises(TypeError, match="needs a dense X"):
        module.Ridge(solver="svd", fit_intercept=False).fit(X, DATA[0][0][1])
    assert module.Ridge(solver="cholesky", fit_intercept=False).fit(X, DATA[0][0][1]).solver_ == "cholesky"
    for alpha in (0.0, 0.5, 30.0):
        X, y = problem(40, 12)
        for x in [X] + [sp.csr_array(X)] * (alpha > 0):
            w = module.Ridge(alpha, positive=True, fit_intercept=False).fit(x, y).coef_
            slopes = X.T @ (y - X @ w) - alpha * w
            assert 0 < np.count_nonzero(w) < 12
            assert (w >= 0).all()
            assert np.abs(slopes[w > 0]).max() < 1e-10
            assert (slopes[w == 0] <= 1e-10).all()


def refused(estimator, cases):
    for options, X in cases:
        with pytest.raises(ValueError, match="solver must"):
            estimator(**options).fit(X, np.arange(float(X.shape[0])))


def exact_errors(X, y):
    "Squared leave-one-out errors at alpha = 1, in arithmetic of 60 digits."
    errors = []
    for i in range(len(y)):
        A, b = np.delete(X, i, 0), np.delete(y, i)
        w = exact_ridge(A - A.mean(0), b - b.mean(), 1.0)
        errors.append((y[i] - b.mean() - (X[i] - A.mean(0)) @ w) ** 2)
    return np.array(errors)


SCALES = [
    (X, y, exact_ridge(X - X.mean(0), y - y.mean(), 1.0), exact_errors(X, y))
    for X, y in (problem(n, p, kind="scales") for n, p in ((5, 9), (12, 4)))
]


def of_ridge_cv(module):
    X, Y = problem(12, 4, targets=2)
    for each in ({}, {"scoring": "r2"}):
        options = {"alphas": [0.1, 1.0, 10.0], "alpha_per_target": True, "store_cv_results": True, **each}
        same(module.RidgeCV(**options).fit(X, Y), linear_model.RidgeCV(**options).fit(X, Y), X)
        module._AT_ONCE = 50
        same(module.RidgeCV(**options).fit(X, Y), linear_model.RidgeCV(**options).fit(X, Y), X)
    same(module.RidgeCV(cv=3).fit(X, Y), linear_model.RidgeCV(cv=3).fit(X, Y), X)
    for options, message in (
        ({"alphas": [0.0, 1.0]}, "alphas must be greater than 0"),
        ({"cv": 3, "store_cv_results": True}, "store_cv_results must be False"),
        ({"cv": 3, "alpha_per_target": True}, "alpha_per_target must be False"),
    ):
        with pytest.raises(ValueError, match=message):
            module.RidgeCV(**options).fit(X, Y)
    with pytest.warns(FutureWarning, match="needs a dense X"):
        module.RidgeCV(gcv_mode="svd").fit(sp.csr_array(X), Y)
    for X, y, w, errors in SCALES:
        model = module.RidgeCV([1.0], store_cv_results=True).fit(X, y)
        assert_close(model.coef_, w, rtol=1e-8)
        assert_close(model.cv_results_[:, 0], errors, rtol=1e-6)
    for (x, z), alpha, squared in ((SCALES[1][:2], 1.0, False), (problem(12, 4), 1e-9, True)):
        data = module._Centred(x, z[:, None], np.ones(12), np.zeros(4))
        assert (module._leave_one_out(data, [alpha], None, False).top is not None) == squared
    with sklearn.config_context(enable_metadata_routing=True):
        ours, theirs = (m.RidgeCV().fit(X / X.std(0), y, sample_weight=WEIGHTS[:12]) for m in (module, linear_model))
        assert ours.best_score_ == pytest.approx(theirs.best_score_, rel=1e-9)
        ours, theirs = (
            m.RidgeCV(cv=3).fit(X / X.std(0), y, sample_weight=WEIGHTS[:12]) for m in (module, linear_model)
        )
        assert ours.best_score_ == pytest.approx(theirs.best_score_, rel=1e-9)
    with pytest.raises(ValueError, match="1 sample"):
        module.RidgeCV().fit(X[:1], y[:1])
    assert module.RidgeCV().fit(X[:2], y[:2]).alpha_ in (0.1, 1.0, 10.0)
    assert module.RidgeCV().fit(X.astype(np.float32), y).coef_.dtype == np.float32


def of_lasso(module):
    (X, Y), weights = DATA[0]
    model = module.Lasso(0.05, warm_start=True, **TIGHT).fit(X, Y[:, 0])
    first = model.n_iter_
    assert model.fit(X, Y[:, 0]).n_iter_ < first
    assert isinstance(first, int)
    assert (model.sparse_coef_.toarray() == model.coef_).all()
    both = module.ElasticNet(0.05, **TIGHT).fit(X, Y)
    same(both, linear_model.ElasticNet(0.05, **TIGHT).fit(X, Y), X)
    assert both.dual_gap_.shape == (2,)
    with pytest.warns(UserWarning, match="alpha is 0"):
        module.Lasso(0).fit(X, Y[:, 0])
    with pytest.raises(ValueError, match="must be smaller"):
        module.Lasso().fit(X * 1e200, Y[:, 0] * 1e200)
    with pytest.warns(UserWarning, match="before it was centred"):
        module.Lasso(precompute=X.T @ X).fit(X, Y[:, 0])
    X, y = X - X.mean(0), Y[:, 0] - Y[:, 0].mean()
    with pytest.warns(ConvergenceWarning):
        module.Lasso(1e-4, max_iter=1, tol=1e-15).fit(X, y)
    assert module.ElasticNet(0.05, max_iter=None).fit(X, y).coef_.any()
    module.Lasso(precompute=X[:, :1].T @ X[:, :1]).fit(X[:, :1], y)
    for gram in (2 * X.T @ X, np.eye(3), X.T @ X + 0.1, X.T @ X * (1 + 1e-5)):
        with pytest.raises(ValueError, match="precompute must be"):
            module.Lasso(precompute=gram).fit(X, y)
    for x, rtol in ((X, 1e-6), (X.astype(np.float32), 1e-3)):
        assert_close(module.Lasso(0.05, precompute=x.T @ x).fit(x, y).coef_.astype(float), model.coef_, rtol, 1e-3)
    with pytest.raises(ValueError, match="precompute must be"):
        module.Lasso(precompute=2 * X.T @ X).fit(X.astype(np.float32), y)
    weights = np.where(np.arange(12) < 9, 2.0, 0.0)
    assert_close(
        module.Lasso(0.05, **TIGHT).fit(X, y, weights).coef_, module.Lasso(0.05, **TIGHT).fit(X[:9], y[:9]).coef_
    )


def of_cv(module):
    (X, Y), _ = DATA[0]
    for y in (Y[:, 0], 0 * Y[:, 0] + 2):
        for positive in (False, True):
            options = {"alphas": 3, "cv": 3, "positive": positive}
            ours, theirs = (m.LassoCV(**options).fit(X, -y if positive else y) for m in (module, linear_model))
            assert_close(ours.alphas_, theirs.alphas_, rtol=1e-9)
    ours, theirs = (m.LassoCV(alphas=3, cv=3, fit_intercept=False).fit(X, Y[:, 0]) for m in (module, linear_model))
    assert_close(ours.alphas_, theirs.alphas_, rtol=1e-9)
    with pytest.raises(ValueError, match="alphas must be given where l1_ratio is 0"):
        module.ElasticNetCV(l1_ratio=0).fit(X, Y[:, 0])
    with pytest.raises(ValueError, match="one column, got shape"):
        module.LassoCV().fit(X, Y)
    with pytest.warns(sklearn.exceptions.DataConversionWarning):
        module.LassoCV(alphas=2).fit(X, Y[:, :1])
    with sklearn.config_context(enable_metadata_routing=True):
        module.LassoCV(cv=GroupKFold(3), alphas=2).fit(X, Y[:, 0], groups=np.arange(12) % 3)


def of_both(module):
    of_functions(module)
    of_estimators(module, ("RidgeCV",))


CHECKS = [(name, of_both if name == "_beside" else of_functions) for name in FUNCTIONS]
CHECKS += [(name, partial(of_estimators, names=names)) for name, names in ESTIMATORS.items()]


@pytest.mark.parametrize("battery", [of_functions, of_estimators])
@pytest.mark.filterwarnings("ignore")  # scikit-learn warns of columns of other scales
def test_the_batteries_pass_as_it_is(battery):
    battery(load(linear))


def test_every_definition_is_of_one_of_us():
    assert set(FUNCTIONS) | set(ESTIMATORS) <= set(definitions(linear))


EQUIVALENT = {  # why it changes nothing: function, planted change
    "any sign or factor does": [
        ("_check_design", "0 * xp.sum(X) + 0 * xp.sum(y)  ->  0 * xp.sum(X) - 0 * xp.sum(y)"),
        ("_check_design", "xp.sum(X)  ->  xp.mean(X)"),
        ("_check_design", "xp.sum(y)  ->  xp.mean(y)"),
        ("_left_out", "xp.min(squares)  ->  xp.max(squares)"),
        ("_beside", "1.1  ->  2.1  in  1.1 * xp.linalg.matrix_norm(X)"),
        ("ridge_path", "0 * X[:, 0] + n ** (-0.5)  ->  0 * X[:, 0] - n ** (-0.5)"),
        ("_through_gram", "1.0  ->  2.0  in  np.linalg.norm(K) or 1.0"),
        ("_through_gram", "1.1  ->  2.1  in  1.1 * (np.linalg.norm(K) or 1.0)"),
        ("_through_gram", "1.1 * (np.linalg.norm(K) or 1.0)  ->  np.linalg.norm(K) or 1.0"),
    ],
    "the same for the arguments it can have": [
        ("_plus_alpha", "0  ->  1  in  A.shape[0]"),
        (
            "_share_weights",
            "sample_weight is None or isinstance(sample_weight, Number)"
            "  ->  sample_weight is None and isinstance(sample_weight, Number)",
        ),
        ("_checked_gram", "1  ->  2  in  p // 2 + 1"),
        ("_checked_gram", "1  ->  2  in  p - 1"),
        ("_checked_gram", "2  ->  3  in  p // 2  (2)"),
        ("_checked_gram", "(X[:, [i]].T @ X[:, [j]]).sum()  ->  (X[:, [i]].T @ X[:, [j]]).mean()"),
        ("ElasticNet", "np.isfinite(coefs).all()  ->  np.isfinite(coefs).any()"),
        ("ElasticNet", "np.isfinite(gaps).all()  ->  np.isfinite(gaps).any()"),
        ("_fold_errors", "False  ->  True  in  _centred(seen, y[train], kept, model.fit_intercept, False)"),
    ],
    "time, memory, or problems larger than any here": [
        ("_factor", "False  ->  True  in  check_finite=False"),
        ("_factor", "False  ->  True  in  check_finite=False  (2)"),
        ("_directions", "False  ->  True  in  full_matrices=False"),
        ("_order", "10  ->  11  in  10 * n"),
        ("_order", "10 * n  ->  10"),
        ("_order", "['cholesky'] * (p <= 10 * n)  ->  ['cholesky']"),
        ("_centred", "False  ->  True  in  copy = False"),
        ("_centred", "False  ->  True  in  copy=False"),
        ("_direct", "0  ->  1  in  data.X.shape[0]"),
        ("_direct", "data.X.shape[0] < data.X.shape[1]  ->  data.X.shape[0] > data.X.shape[1]"),
        ("_positive_ridge", "100000  ->  100001  in  max_iter or 100000"),
        ("Ridge", "4096  ->  4097  in  min(data.X.shape) <= 4096"),
        ("Ridge", "self.solver == 'auto'  ->  self.solver != 'auto'"),
        ("_covariance_errors", "2048  ->  2049  in  i + 2048"),
        ("_covariance_errors", "2048  ->  2049  in  range(0, len(found), 2048)"),
        ("_leave_one_out", "0  ->  1  in  data.X.shape[0]"),
        ("_leave_one_out", "data.X.shape[0] <= data.X.shape[1]  ->  data.X.shape[0] >= data.X.shape[1]"),
        ("RidgeCV", "0  ->  1  in  :0"),
        ("RidgeCV", "1  ->  2  in  max(_AT_ONCE // data.Y.size, 1)"),
        ("ElasticNet", "1000  ->  1001  in  self.max_iter or 1000"),
        ("_PathCV", "False  ->  True  in  copy=False"),
        (
            "_PathCV",
            "False  ->  True  in  {'alpha': self.alpha_, 'l1_ratio': self._share, 'precompute': False}",
        ),
        ("_PathCV", "False  ->  True  in  {'dtype': [np.float64, np.float32], 'copy': False}"),
    ],
    "rounding only": [
        ("_cholesky", "0.0001  ->  1.0001  in  left < 0.0001"),
        ("_directions", "max(X.shape) * xp.finfo(X.dtype).eps  ->  xp.finfo(X.dtype).eps"),
        ("_dual", "0.0001  ->  1.0001  in  left < 0.0001"),
        ("_positive_ridge", "1e-10  ->  1.0000000001  in  min(tol, 1e-10)"),
        ("_through_gram", "0.0  ->  1.0  in  initial=0.0"),
        (
            "_through_gram",
            "c + inverse(Y - X @ (X.T @ c) - alpha * c)  ->  c - inverse(Y - X @ (X.T @ c) - alpha * c)",
        ),
        (
            "_through_covariance",
            "w + inverse(X.T @ (Y - X @ w) - alpha * w)  ->  w - inverse(X.T @ (Y - X @ w) - alpha * w)",
        ),
        ("_leave_one_out", "10000.0  ->  10001.0  in  10000.0 * np.finfo(np.float64).eps"),
        ("_leave_one_out", "10000.0 * np.finfo(np.float64).eps  ->  np.finfo(np.float64).eps"),
    ],
    REST: [
        ("ridge_path", "1  ->  2  in  -1"),
        ("_centred", "1  ->  2  in  -1"),
        ("RidgeCV", "1  ->  2  in  -1  (5)"),
        ("_PathCV", "1  ->  2  in  -1"),
    ],
    "centred columns and residuals sum to 0, so that means of the other side do not matter": [
        ("_Centred", "X.T @ r - np.multiply.outer(m, s @ r)  ->  X.T @ r + np.multiply.outer(m, s @ r)"),
        ("_centred", "1  ->  2  in  1:"),
        ("_centred", "y - y_mean  ->  y + y_mean"),
    ],
    "what is checked again, or further down, or only of sizes that no test has": [
        ("_LinearModel", "False  ->  True  in  reset=False"),
        ("Ridge", "True  ->  False  in  prefer_skip_nested_validation=True"),
        ("Ridge", "True  ->  False  in  y_numeric=True"),
        ("RidgeCV", "True  ->  False  in  allow_none=True"),
        ("RidgeCV", "True  ->  False  in  prefer_skip_nested_validation=True"),
        (
            "RidgeCV",
            "True"
            "  ->  False  in  {'accept_sparse': ['csr', 'csc'], 'dtype': np.float64, "
            "'multi_output': True, 'y_numeric': True}  (2)",
        ),
        (
            "ElasticNet",
            "False"
            "  ->  True  in  {'dtype': [np.float64, np.float32], 'force_writeable': not self.copy_X, "
            "'accept_large_sparse': False}",
        ),
        ("ElasticNet", "True  ->  False  in  prefer_skip_nested_validation=True"),
        ("ElasticNet", "True  ->  False  in  y_numeric=True"),
        ("_PathCV", "False  ->  True  in  check_input=False"),
        (
            "_PathCV",
            "False"
            "  ->  True  in  {'accept_sparse': 'csc', 'accept_large_sparse': False, 'force_writeable': "
            "not self.copy_X, **kinds}",
        ),
        ("_PathCV", "True  ->  False  in  prefer_skip_nested_validation=True"),
    ],
    "which line a warning names": [
        ("_iterate", "5  ->  6  in  stacklevel=5"),
        ("_leave_one_out", "5  ->  6  in  stacklevel=5"),
        ("_usable_gram", "4  ->  5  in  stacklevel=4"),
        ("ElasticNet", "2  ->  3  in  stacklevel=2"),
    ],
    "the estimators check it before; test_linear_solvers gives it to the paths": [
        ("_checked_gram", "True  ->  False  in  (True, False, 'auto')"),
    ],
    "the support was found exactly, and its coefficients are positive": [
        ("_positive_ridge", "(part >= 0).all()  ->  (part >= 0).any()"),
        ("_positive_ridge", "0  ->  1  in  part >= 0"),
        ("_positive_ridge", "part >= 0  ->  part <= 0"),
        (
            "_positive_ridge",
            "part is not None and (part >= 0).all()  ->  part is not None or (part >= 0).all()",
        ),
    ],
}
SPARED = {pair for several in EQUIVALENT.values() for pair in several}


def test_equivalent_changes_are_of_functions_that_exist():
    assert {function for function, _ in SPARED} <= set(definitions(linear))


@pytest.mark.parametrize(("name", "battery"), CHECKS, ids=lambda x: x if isinstance(x, str) else "")
@pytest.mark.filterwarnings("ignore")
def test_planted_errors_are_caught(name, battery):
    assert survivors(linear, name, battery) == {what for function, what in SPARED if function == name}
