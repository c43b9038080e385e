"""The six estimators in the place of scikit-learn's: numbers, attributes, checks, errors, and in its other tools."""

import inspect
import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
from sklearn import linear_model
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from dlopt_course import linear
from dlopt_course.core import assert_close

NAMES = ["Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV"]
each_estimator = pytest.mark.parametrize("name", NAMES)
pytestmark = pytest.mark.usefixtures("one_thread")
PENALTY = {"Ridge": {"alpha": 1.0}, "Lasso": {"alpha": 0.05}, "ElasticNet": {"alpha": 0.05, "l1_ratio": 0.4}}
WEIGHTS = np.random.default_rng(1).uniform(0.1, 3.0, 100)
TIGHT = {"tol": 1e-13, "max_iter": 100_000}


def pair(name, **options):
    "Ours and scikit-learn's, with the same options."
    return getattr(linear, name)(**options), getattr(linear_model, name)(**options)


def tight(name):
    "Options with which iterative solvers go on until the end."
    return {} if name == "RidgeCV" else TIGHT | ({"solver": "svd"} if name == "Ridge" else {})


def problem(n=40, p=8, targets=0, kind="independent", seed=0):
    rng = np.random.default_rng([seed, n, p])
    X = rng.standard_normal((n, p)) + 1
    if kind == "correlated":
        X = X @ np.triu(np.ones((p, p))) / p**0.5
    if kind == "constant":
        X[:, 0] = 3.0
    if kind == "scales":
        X *= np.logspace(-8, 8, p)[rng.permutation(p)]
    if kind == "sparse":
        X *= rng.random((n, p)) < 0.4
    signal = X[:, : 3 if p > 3 else 1].mean(axis=1) / np.abs(X[:, :3]).max()
    return X, signal.reshape(-1, *[1] * (targets > 0)) + rng.standard_normal((n, *[targets] * (targets > 0))) + 2


def same(ours, theirs, names, rtol=1e-8, atol=1e-8):
    "The attributes have one type, shape, dtype and, up to rounding, value."
    for name in names:
        a, b = getattr(ours, name), getattr(theirs, name)
        assert type(a) is type(b) or isinstance(a, float), name
        assert_close(a, b, rtol=rtol, atol=atol, name=name)


# scikit-learn's own checks


@each_estimator
@pytest.mark.filterwarnings("ignore")
def test_fails_no_check_that_scikit_learns_own_class_passes(name):
    def passed(estimator):
        found = check_estimator(estimator, on_fail=None, on_skip=None)
        return {r["check_name"] for r in found if r["status"] == "passed"}, {r["check_name"] for r in found}

    (ours, _), (theirs, run) = (passed(estimator) for estimator in pair(name))
    assert not theirs - ours
    assert len(theirs) > 50
    assert len(run) > 55


@each_estimator
def test_parameters_have_the_names_defaults_and_order_of_scikit_learn(name):
    ours, theirs = pair(name)
    assert inspect.signature(type(ours)) == inspect.signature(type(theirs))
    assert inspect.signature(type(ours).fit) == inspect.signature(type(theirs).fit)
    assert ours.get_params() == theirs.get_params()
    assert type(ours)._parameter_constraints.keys() == type(theirs)._parameter_constraints.keys()
    tags, reference = ours.__sklearn_tags__(), theirs.__sklearn_tags__()
    reference.array_api_support = tags.array_api_support  # NumPy and SciPy only
    assert tags == reference
    assert repr(ours) == repr(theirs)


@each_estimator
def test_attributes_are_those_of_scikit_learn(name):
    X, y = problem()
    ours, theirs = (m.fit(pd.DataFrame(X, columns=list("abcdefgh")), y) for m in pair(name))
    assert {k for k in vars(ours) if k.endswith("_")} == {k for k in vars(theirs) if k.endswith("_")}
    assert list(ours.feature_names_in_) == list("abcdefgh")
    assert ours.n_features_in_ == 8
    with pytest.raises(ValueError, match="feature names"):
        ours.predict(pd.DataFrame(X, columns=list("bacdefgh")))


# Lasso and elastic net: the numbers


KINDS = ["independent", "correlated", "constant", "sparse"]


def objective(model, X, y):
    "What a fitted Lasso or ElasticNet has made small."
    w, share = model.coef_, model.l1_ratio
    penalty = model.alpha * (share * np.abs(w).sum() + (1 - share) / 2 * (w @ w))
    return np.mean((y - model.predict(X)) ** 2) / 2 + penalty


each_penalty = pytest.mark.parametrize("name", ["Lasso", "ElasticNet"])


@each_penalty
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("positive", [False, True])
def test_lasso_equals_scikit_learn(name, kind, fit_intercept, positive):
    for n, p in ((40, 8), (15, 24)):
        X, Y = problem(n, p, targets=2, kind=kind)
        options = PENALTY[name] | TIGHT | {"fit_intercept": fit_intercept, "positive": positive}
        for y in (Y[:, 0], Y[:, :1], Y):
            for weights in (None, WEIGHTS[:n]) if y.ndim == 1 else (None,):
                ours, theirs = (m.fit(X, y, sample_weight=weights) for m in pair(name, **options))
                same(ours, theirs, ["coef_"], rtol=1e-6, atol=1e-6)
                same(ours, theirs, ["intercept_"], rtol=1e-6, atol=1e-6)
                assert type(ours.dual_gap_) is type(theirs.dual_gap_)
                assert np.shape(ours.dual_gap_) == np.shape(theirs.dual_gap_)
                assert np.max(ours.dual_gap_) <= 1e-13 * np.max(np.mean(y**2, axis=0)) * 1.01
                assert np.shape(ours.n_iter_) == np.shape(theirs.n_iter_)
                assert type(ours.n_iter_) is type(theirs.n_iter_)


@each_penalty
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.filterwarnings("ignore:.*converge:sklearn.exceptions.ConvergenceWarning")
def test_columns_of_scales_from_1e_8_to_1e8(name, positive):
    "Rounding of the largest columns leaves a gap, to both; the fits agree, and ours is not the worse."
    for n, p in ((40, 8), (15, 24)):
        X, y = problem(n, p, kind="scales")
        ours, theirs = (m.fit(X, y) for m in pair(name, **PENALTY[name] | TIGHT, positive=positive))
        assert_close(ours.predict(X), theirs.predict(X), rtol=1e-4)
        assert objective(ours, X, y) <= objective(theirs, X, y) * (1 + 1e-8)


@each_penalty
@pytest.mark.parametrize("make", [sp.csr_array, sp.csc_matrix, sp.coo_array])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_sparse_lasso_equals_dense(name, make, fit_intercept):
    for n, p in ((40, 8), (15, 24)):
        X, y = problem(n, p, kind="sparse")
        for weights in (None, WEIGHTS[:n]):
            options = PENALTY[name] | TIGHT | {"fit_intercept": fit_intercept}
            ours = getattr(linear, name)(**options).fit(make(X), y, weights)
            theirs = getattr(linear_model, name)(**options).fit(X, y, weights)
            same(ours, theirs, ["coef_", "intercept_"], rtol=1e-6, atol=1e-6)
            assert type(ours.sparse_coef_) is type(theirs.sparse_coef_)
            assert (ours.sparse_coef_.toarray() == ours.coef_).all()
            assert_close(ours.predict(make(X)), ours.predict(X), rtol=1e-12)


@each_penalty
def test_duplicated_columns_have_one_objective_and_a_gap_of_0(name):
    X, y = problem(30, 6)
    X = np.hstack([X, X])
    X, y = X - X.mean(0), y - y.mean()
    ours, theirs = (m.fit(X, y) for m in pair(name, **PENALTY[name] | TIGHT))
    assert objective(ours, X, y) == pytest.approx(objective(theirs, X, y), rel=1e-12)
    assert 0 <= ours.dual_gap_ <= 1e-13 * np.mean(y**2)


@each_penalty
def test_optimality_without_a_reference(name):
    for n, p in ((40, 8), (15, 24)):
        X, y = problem(n, p, kind="correlated")
        model = getattr(linear, name)(**PENALTY[name] | TIGHT).fit(X, y)
        w, r = model.coef_, y - model.predict(X)
        slopes = X.T @ r / n - model.alpha * (1 - model.l1_ratio) * w
        assert abs(r.sum()) < 1e-10
        assert np.abs(slopes[w != 0] - model.alpha * model.l1_ratio * np.sign(w[w != 0])).max() < 1e-6
        assert (np.abs(slopes[w == 0]) <= model.alpha * model.l1_ratio + 1e-7).all()
        assert np.count_nonzero(w)


@each_penalty
def test_float32_stays(name):
    X, y = (x.astype(np.float32) for x in problem())
    for x in (X, sp.csc_array(X)):
        ours, theirs = (m.fit(x, y) for m in pair(name, **PENALTY[name], tol=1e-6))
        same(ours, theirs, ["coef_", "intercept_"], rtol=1e-2, atol=2e-3)
        assert ours.dual_gap_.dtype == theirs.dual_gap_.dtype == np.float32


@each_penalty
def test_warm_start_begins_where_the_last_fit_ended(name):
    X, y = problem(60, 30, kind="correlated")
    options = PENALTY[name] | TIGHT
    model = getattr(linear, name)(warm_start=True, **options).fit(X, y)
    cold, coef = model.n_iter_, model.coef_.copy()
    again = model.fit(X, y)
    assert again.n_iter_ < cold
    assert_close(again.coef_, coef, rtol=1e-6, atol=1e-9)
    lower = model.set_params(alpha=0.02).fit(X, y).coef_
    assert_close(lower, getattr(linear, name)(**options | {"alpha": 0.02}).fit(X, y).coef_, rtol=1e-5, atol=1e-7)


@each_penalty
def test_not_converged_is_a_warning_with_the_gap(name):
    X, y = problem(60, 30, kind="correlated")
    model = getattr(linear, name)(alpha=1e-4, max_iter=1, tol=1e-12)
    with pytest.warns(ConvergenceWarning, match="gap") as caught:
        model.fit(X, y)
    assert f"{model.dual_gap_:.2e}"[:3] in str(caught[0].message)
    with pytest.warns(UserWarning, match="alpha is 0"):
        getattr(linear, name)(alpha=0, max_iter=100_000).fit(X, y)


@each_penalty
def test_precompute(name):
    X, y = problem()
    X, y = X - X.mean(0), y - y.mean()
    expected = getattr(linear, name)(**PENALTY[name] | TIGHT).fit(X, y).coef_
    for gram in (True, X.T @ X, (X.T @ X).tolist()):
        model = getattr(linear, name)(precompute=gram, **PENALTY[name] | TIGHT).fit(X, y)
        assert_close(model.coef_, expected, rtol=1e-7, atol=1e-9)
    for wrong in (2 * X.T @ X, np.eye(3)):
        with pytest.raises(ValueError, match="precompute must be"):
            getattr(linear, name)(precompute=wrong).fit(X, y)
    with pytest.warns(UserWarning, match="before it was centred"):
        getattr(linear, name)(precompute=X.T @ X).fit(X + 1, y)


def test_copy_x():
    X, y = problem()
    before = X.copy()
    for name in ("Lasso", "LassoCV", "ElasticNetCV"):
        getattr(linear, name)().fit(X, y, WEIGHTS[:40])
        assert (before == X).all()
    X.flags.writeable = False
    linear.Lasso(copy_X=False).fit(X, y)
    assert (before == X).all()


# Cross-validation


@pytest.mark.parametrize("weights", [None, WEIGHTS[:40]], ids=["plain", "weighted"])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_lasso_cv_equals_scikit_learn(weights, positive, fit_intercept):
    X, y = problem(kind="sparse")
    options = TIGHT | {"positive": positive, "fit_intercept": fit_intercept}
    attributes = ["alpha_", "alphas_", "mse_path_", "coef_", "intercept_", "dual_gap_"]
    for name, more in (
        ("LassoCV", {"alphas": 8}),
        ("LassoCV", {"alphas": [0.01, 0.5, 0.1], "cv": 3}),
        ("ElasticNetCV", {"alphas": 5, "eps": 1e-2}),
        ("ElasticNetCV", {"alphas": [0.1, 0.01], "l1_ratio": [0.2, 0.7], "cv": KFold(4, shuffle=True, random_state=0)}),
        ("ElasticNetCV", {"alphas": 4, "l1_ratio": [0.2, 0.7, 1.0]}),
    ):
        theirs = getattr(linear_model, name)(**options | more).fit(X, y, weights)
        for x in (X, sp.csr_array(X)):
            ours = getattr(linear, name)(**options | more).fit(x, y, weights)
            same(ours, theirs, attributes + ["l1_ratio_"] * (name == "ElasticNetCV"), rtol=1e-6, atol=1e-6)


def test_threads_change_nothing():
    X, y = problem()
    one, two = (linear.LassoCV(n_jobs=jobs, alphas=10).fit(X, y) for jobs in (None, 2))
    assert (one.mse_path_ == two.mse_path_).all()
    assert (one.coef_ == two.coef_).all()


def test_real_data_with_the_defaults():
    X, y = load_diabetes(return_X_y=True)
    for name in ("LassoCV", "RidgeCV"):
        ours, theirs = (m.fit(X, y) for m in pair(name))
        assert ours.alpha_ == pytest.approx(theirs.alpha_, rel=1e-9)
        assert ours.score(X, y) == pytest.approx(theirs.score(X, y), abs=1e-3)
    for name in ("Ridge", "Lasso"):
        ours, theirs = (m.fit(X, y) for m in pair(name, alpha=0.1))
        assert_close(ours.coef_, theirs.coef_, rtol=1e-3, atol=0.5)  # of 500; Lasso's tolerance is 1e-4


# In scikit-learn's tools


@each_estimator
def test_clone_set_params_and_pickle(name):
    X, y = problem()
    model = getattr(linear, name)(fit_intercept=False).fit(X, y)
    assert clone(model).get_params() == model.get_params()
    assert not hasattr(clone(model), "coef_")
    assert (pickle.loads(pickle.dumps(model)).predict(X) == model.predict(X)).all()
    assert model.set_params(fit_intercept=True).fit(X, y).intercept_ != 0
    assert model.score(X, y) == pytest.approx(sklearn.metrics.r2_score(y, model.predict(X)))


@each_estimator
def test_grid_search_in_a_pipeline_has_the_same_winner_and_scores(name):
    X, y = problem(60, 8)
    grid = {f"{name.lower()}__fit_intercept": [True, False]}
    if not name.endswith("CV"):
        grid[f"{name.lower()}__alpha"] = [0.01, 0.1, 1.0]
    found = [
        GridSearchCV(make_pipeline(StandardScaler(), m.set_params(**tight(name))), grid, cv=3).fit(X, y)
        for m in pair(name)
    ]
    assert found[0].best_params_ == found[1].best_params_
    assert_close(found[0].cv_results_["mean_test_score"], found[1].cv_results_["mean_test_score"], rtol=1e-7)
    ours, theirs = (cross_val_predict(f.best_estimator_, X, y, cv=3) for f in found)
    assert_close(ours, theirs, rtol=1e-6)


def test_metadata_is_routed_as_in_scikit_learn():
    X, y = problem()
    groups = np.arange(40) % 5
    with sklearn.config_context(enable_metadata_routing=True):
        for name in ("LassoCV", "ElasticNetCV"):
            for m in pair(name):
                assert str(m.get_metadata_routing()._serialize()).count("groups") == 0
            ours, theirs = (m.fit(X, y, groups=groups) for m in pair(name, cv=GroupKFold(4), alphas=5, **TIGHT))
            same(ours, theirs, ["alpha_", "coef_"], rtol=1e-6)
        ours, theirs = (m.fit(X, y, sample_weight=WEIGHTS[:40]) for m in pair("RidgeCV"))
        same(ours, theirs, ["alpha_", "best_score_", "coef_"])
        scorer = sklearn.metrics.get_scorer("r2").set_score_request(sample_weight=True)
        ours, theirs = (m.fit(X, y, sample_weight=WEIGHTS[:40]) for m in pair("RidgeCV", scoring=scorer))
        same(ours, theirs, ["alpha_", "best_score_", "coef_"])
        for name in ("Ridge", "Lasso", "ElasticNet"):
            ours, theirs = (m.set_fit_request(sample_weight=True) for m in pair(name))
            assert ours.get_metadata_routing()._serialize() == theirs.get_metadata_routing()._serialize()


# Bad input

X, Y = problem()
ALL = ["Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV"]
PLAIN, CROSS = ["Ridge", "Lasso", "ElasticNet"], ["LassoCV", "ElasticNetCV"]
HOLED = np.where(np.arange(40) == 3, np.nan, Y)
BAD = [  # estimators, options, X, y, keywords of fit
    (ALL, {}, np.where(X > 3, np.nan, X), Y, {}),
    (ALL, {}, np.where(X > 3, np.inf, X), Y, {}),
    (ALL, {}, X, HOLED, {}),
    (ALL, {}, X, Y[:-1], {}),
    (ALL, {}, X[:, 0], Y, {}),
    (ALL, {}, X[:0], Y[:0], {}),
    (ALL, {}, X[:, :0], Y, {}),
    (ALL, {}, X[None], Y, {}),
    (ALL, {}, [["a", "b"]] * 40, Y, {}),
    (ALL, {}, X + 1j, Y, {}),
    (ALL, {}, X, None, {}),
    (ALL, {}, X, Y, {"sample_weight": WEIGHTS[:39]}),
    (ALL, {}, X, Y, {"sample_weight": np.full(40, np.nan)}),
    (ALL, {}, X, Y, {"sample_weight": WEIGHTS[:40, None]}),
    (ALL, {"fit_intercept": "yes"}, X, Y, {}),
    (PLAIN, {"alpha": -1}, X, Y, {}),
    (PLAIN, {"alpha": "1"}, X, Y, {}),
    (PLAIN, {"alpha": np.nan}, X, Y, {}),
    (["Lasso", "ElasticNet"], {"alpha": [1.0]}, X, Y, {}),
    (["Ridge"], {"alpha": [1.0, 2.0]}, X, Y, {}),
    (["Ridge"], {"alpha": [1.0, 2.0, 3.0]}, X, np.stack([Y, Y], axis=1), {}),
    (["Ridge"], {"solver": "lu"}, X, Y, {}),
    (["Ridge"], {"solver": "lbfgs"}, X, Y, {}),
    (["Ridge"], {"solver": "svd", "positive": True}, X, Y, {}),
    (["Ridge"], {"solver": "svd"}, sp.csr_array(X), Y, {}),
    (["Ridge"], {"solver": "cholesky"}, sp.csr_array(X), Y, {}),
    (["Ridge"], {"solver": "saga"}, sp.csr_array(X), Y, {}),
    (["Ridge"], {"solver": "svd", "fit_intercept": False}, sp.csr_array(X), Y, {}),
    (["Ridge", *CROSS, "Lasso"], {"tol": -1}, X, Y, {}),
    (["Ridge", *CROSS, "Lasso"], {"max_iter": 0}, X, Y, {}),
    (["Ridge", *CROSS, "Lasso"], {"positive": 2}, X, Y, {}),
    (["ElasticNet", "ElasticNetCV"], {"l1_ratio": 1.5}, X, Y, {}),
    (["ElasticNet", "ElasticNetCV"], {"l1_ratio": "a"}, X, Y, {}),
    (["ElasticNetCV"], {"l1_ratio": 0}, X, Y, {}),
    ([*CROSS, "Lasso"], {"selection": "best"}, X, Y, {}),
    ([*CROSS, "Lasso"], {"precompute": "yes"}, X, Y, {}),
    (CROSS, {"eps": 0}, X, Y, {}),
    (CROSS, {"alphas": 0}, X, Y, {}),
    ([*CROSS, "RidgeCV"], {"alphas": [1.0, -1.0]}, X, Y, {}),
    ([*CROSS, "RidgeCV"], {"alphas": [1.0, "a"]}, X, Y, {}),
    ([*CROSS, "RidgeCV"], {"cv": 1}, X, Y, {}),
    ([*CROSS, "RidgeCV"], {"cv": "five"}, X, Y, {}),
    (CROSS, {"n_jobs": 1.5}, X, Y, {}),
    (CROSS, {}, X, np.stack([Y, Y], axis=1), {}),
    (CROSS, {}, X[:3], Y[:3], {}),
    ([*CROSS, "RidgeCV"], {}, X, Y, {"groups": np.arange(40)}),
    (["RidgeCV"], {"alphas": [0.0, 1.0]}, X, Y, {}),
    (["RidgeCV"], {"scoring": "best"}, X, Y, {}),
    (["RidgeCV"], {"gcv_mode": "qr"}, X, Y, {}),
    (["RidgeCV"], {"cv": 3, "store_cv_results": True}, X, Y, {}),
    (["RidgeCV"], {"cv": 3, "alpha_per_target": True}, X, Y, {}),
]
CASES = [(name, *rest) for names, *rest in BAD for name in names]


def error_of(model, X, y, keywords):
    try:
        model.fit(X, y, **keywords)
    except Exception as e:
        return e
    return None


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda i: f"{CASES[i][0]}-{i}")
@pytest.mark.filterwarnings("ignore")
def test_bad_input_raises_what_scikit_learn_raises(number):
    name, options, x, y, keywords = CASES[number]
    ours, theirs = (error_of(m, x, y, keywords) for m in pair(name, **options))
    assert isinstance(theirs, (ValueError, TypeError)), "scikit-learn takes this"
    kind = TypeError if isinstance(theirs, TypeError) and not isinstance(theirs, ValueError) else ValueError
    assert isinstance(ours, kind), (ours, theirs)
    assert len(str(ours)) > 20


@each_estimator
def test_negative_weights_are_refused(name):
    "scikit-learn returns NaN, or goes on until max_iter."
    with pytest.raises(ValueError, match="sample_weight must hold numbers that are 0 or more, got -1"):
        getattr(linear, name)().fit(X, Y, sample_weight=np.full(40, -1.0))


@each_estimator
def test_prediction_needs_a_fit_and_as_many_columns(name):
    model = getattr(linear, name)()
    with pytest.raises(sklearn.exceptions.NotFittedError):
        model.predict(X)
    with pytest.raises(ValueError, match="7 features, but"):
        model.fit(X, Y).predict(X[:, :7])


def test_messages_name_the_argument_and_what_is_allowed():
    for model, message in (
        (linear.Ridge(alpha=[1.0, 2.0]), "alpha must be a number, or one for each of 1 targets"),
        (linear.Ridge(solver="lbfgs"), "solver must be 'auto' or 'lbfgs' where positive"),
        (linear.RidgeCV(alphas=[0.0]), "alphas must be greater than 0"),
        (linear.RidgeCV(cv=3, store_cv_results=True), "store_cv_results must be False where cv"),
        (linear.LassoCV(alphas=[-1.0]), "alphas must be 0 or more, got -1.0"),
        (linear.ElasticNetCV(l1_ratio=0), "alphas must be given where l1_ratio is 0"),
        (linear.ElasticNetCV(l1_ratio=[0.5, 2.0]), r"l1_ratio must be in \[0, 1\], got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(X, Y)
    with pytest.raises(ValueError, match="y must have one column"):
        linear.LassoCV().fit(X, np.stack([Y, Y], axis=1))


@pytest.mark.filterwarnings("ignore")
def test_numbers_too_large_to_square():
    "scikit-learn's Lasso returns 0 here."
    for name in ("Lasso", "ElasticNet"):
        with pytest.raises(ValueError, match="X and y must be smaller"):
            getattr(linear, name)().fit(X * 1e200, Y * 1e200)
    assert_close(linear.Ridge().fit(X * 1e200, Y * 1e200).coef_, linear.Ridge(1e-9).fit(X, Y).coef_, rtol=1e-6)
