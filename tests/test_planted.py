"""Planted errors: a wrong sign, factor, constant or limit in any function of a lesson makes a check fail."""

import inspect

import numpy as np
import pytest
from planted import load, survivors
from scipy import special
from test_losses import BAD_CALLS, reference

from dlopt_course import losses
from dlopt_course.core import assert_close

rng = np.random.default_rng(3)
x, y = rng.normal(size=(2, 6, 2)) * 2
y[0] = x[0]  # where mae has its corner
labels = np.array([[0.0, 1], [1, 0], [1, 1], [0, 0], [0, 1], [1, 0]])
halves, signs = np.where(labels == 1, 0.7, 0.2), 2 * labels - 1
scores, classes = rng.normal(size=(6, 20)) * 3, np.array([3, 0, 19, 7, 7, 1])
shares = rng.dirichlet(np.ones(20), 6)
shares[0] = np.eye(20)[4]
log_q = np.log(rng.dirichlet(np.ones(20), 6))
far, far_labels = np.array([1e5, -1e5, 1e5, -1e5]), np.array([0.0, 1, 1, 0])
far_rows = np.array([[1e5, -1e5, 0], [-1e5, 1e5, -1e5]])
per_class, some = rng.random(20) + 0.5, np.where(classes == 7, -100, classes)
every = {"weight": per_class, "label_smoothing": 0.2, "ignore_index": -100}

GOOD = [  # loss, prediction, target, options: what torch says of them is computed once
    ("mse", x, y, {}),
    ("mae", x, y, {}),
    ("huber", x, y, {}),
    ("huber", x, y, {"delta": 0.4}),
    ("binary_cross_entropy_with_logits", x, halves, {}),
    ("binary_cross_entropy_with_logits", far, far_labels, {}),
    ("binary_cross_entropy_with_logits", x, halves, {"weight": np.abs(y) + 0.1, "pos_weight": np.array([2.0, 0.5])}),
    ("cross_entropy", scores, classes, {}),
    ("cross_entropy", scores, classes, {"weight": per_class}),
    ("cross_entropy", scores, classes, {"label_smoothing": 0.2}),
    ("cross_entropy", scores[:, :9], classes % 9, {}),
    ("cross_entropy", scores, some, {"ignore_index": -100}),
    ("cross_entropy", scores, some, every),
    ("cross_entropy", scores, shares, {}),
    ("cross_entropy", scores, shares, {"weight": per_class, "label_smoothing": 0.2}),
    ("cross_entropy", far_rows, np.array([1, 1]), {}),
    ("cross_entropy", far_rows, np.eye(3)[[1, 1]], {}),
    ("kl_divergence", log_q, shares, {}),
    ("focal_loss", x, labels, {}),
    ("focal_loss", x, labels, {"alpha": None, "gamma": 1.5}),
    ("focal_loss", far, far_labels, {}),
    ("hinge", x, signs, {}),
]
SOFT = {"logsumexp": special.logsumexp, "log_softmax": special.log_softmax, "softmax": special.softmax}
LINES = np.array([[[1.0, -2, 0.5], [-np.inf, 3, -np.inf]], [[1e5, -1e5, 0], [-4.0, -5, -6]]])


def expected(name, prediction, target, options, reduction):
    "What torch says: value, gradient."
    return reference(getattr(losses, name), prediction, target, **options, reduction=reduction)


ANSWERS = [(case, r, expected(*case, r)) for case in GOOD for r in ("none", "mean", "sum")]


def battery(module):
    "Losses and gradients against torch, the soft functions against SciPy, and the errors that bad input has to raise."
    module.BLOCK = 64  # a few rows: every case has several blocks
    for case, reduction, answer in ANSWERS:
        agrees(module, *case, reduction, answer)
    for name, by_scipy in SOFT.items():
        for axis in (-1, 0):
            assert_close(getattr(module, name)(LINES, axis=axis), by_scipy(LINES, axis=axis), rtol=1e-12)
    assert_close(module.logsumexp(LINES, keepdims=True), special.logsumexp(LINES, axis=-1, keepdims=True), rtol=1e-12)
    for param in BAD_CALLS:
        refuses(module, *param.values)


def agrees(module, name, prediction, target, options, reduction, answer):
    "Value and gradient, alone and together."
    loss, options = getattr(module, name), options | {"reduction": reduction}
    grad = getattr(module, f"{name}_grad")(prediction, target, **options)
    for value, slope in (
        (loss(prediction, target, **options), grad),
        module.value_and_grad(loss)(prediction, target, **options),
    ):
        assert_close(value, answer[0], rtol=1e-12, atol=1e-14)
        assert_close(slope, answer[1], rtol=1e-12, atol=1e-14)


def refuses(module, loss, pair, options, error, message):
    "Bad input raises the right error; the message names the argument."
    with pytest.raises(error, match=message):
        getattr(module, loss.__name__)(*pair, **options)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads are not what is tested, and starting them takes longer


def test_the_battery_passes_as_it_is():
    battery(load(losses))


def functions(module):
    "The functions that a module defines, private ones too."
    return [n for n, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__]


EQUIVALENT = {}


@pytest.mark.parametrize("name", functions(losses))
def test_planted_errors_are_caught(name):
    assert survivors(losses, name, battery) == set(EQUIVALENT.get(name, ()))
