"""Planted errors: a wrong sign, factor, constant or limit in any function of a lesson makes a check fail."""

import numpy as np
import pytest
from planted import REST, definitions, load, mutants, survivors
from scipy import special
from test_losses import BAD_CALLS, reference

from dlopt_course import losses
from dlopt_course.core import assert_close

pytestmark = pytest.mark.usefixtures("one_thread")

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
no_seventh = np.where(np.arange(20) == 7, 0, per_class)
every = {"weight": per_class, "label_smoothing": 0.2, "ignore_index": -100}

GOOD = [  # loss, prediction, target, options: what torch says of them is computed once
    ("mse", x, y, {}),
    ("mae", x, y, {}),
    ("huber", x, y, {}),
    ("huber", x, y, {"delta": 0.4}),
    ("binary_cross_entropy_with_logits", x, halves, {}),
    ("binary_cross_entropy_with_logits", far, far_labels, {}),
    ("binary_cross_entropy_with_logits", x, halves, {"weight": np.abs(x[:, :1])}),
    ("binary_cross_entropy_with_logits", x, halves, {"weight": np.abs(y) + 0.1, "pos_weight": np.array([2.0, 0.5])}),
    ("cross_entropy", scores, classes, {}),
    ("cross_entropy", scores, classes, {"weight": per_class}),
    ("cross_entropy", scores, classes, {"label_smoothing": 0.2}),
    ("cross_entropy", scores[:, :9], classes % 9, {}),
    ("cross_entropy", scores, some, {"ignore_index": -100}),
    ("cross_entropy", scores, some, every),
    ("cross_entropy", scores, classes, {"weight": no_seventh}),
    ("cross_entropy", scores, classes, {"ignore_index": 7}),
    ("cross_entropy", np.zeros((3, 1)), np.array([0, 0, -100]), {"ignore_index": -100}),
    ("cross_entropy", scores, shares, {}),
    ("cross_entropy", scores, shares, {"weight": per_class, "label_smoothing": 0.2}),
    ("cross_entropy", far_rows, np.array([1, 1]), {}),
    ("cross_entropy", far_rows, np.eye(3)[[1, 1]], {}),
    ("cross_entropy", np.tile(far_rows, 7), np.array([1, 20]), {}),
    ("cross_entropy", np.array([[0, 1000.0, 5], [1, 2, 3]]), np.array([1, 0]), {}),
    ("cross_entropy", np.array([[-1000.0, -1001, -1002], [0, 1, 2]]), np.array([0, 1]), {"label_smoothing": 0.2}),
    ("kl_divergence", log_q, shares, {}),
    ("focal_loss", x, labels, {}),
    ("focal_loss", x, labels, {"alpha": None, "gamma": 0.5}),
    ("focal_loss", far, far_labels, {}),
    ("hinge", np.where(labels.cumsum(0) == 2, 0, x), signs, {}),
]
SOFT = {"logsumexp": special.logsumexp, "log_softmax": special.log_softmax, "softmax": special.softmax}
LINES = np.array([[[1.0, -2, 0.5], [-np.inf, 3, -np.inf]], [[1e5, -1e5, 0], [-4.0, -5, -6]]])


def expected(name, prediction, target, options, reduction):
    "What torch says: value, gradient."
    return reference(getattr(losses, name), prediction, target, **options, reduction=reduction)


ANSWERS = [(case, r, expected(*case, r)) for case in GOOD for r in ("none", "mean", "sum")]


def battery(module):
    "Losses and gradients against torch, the soft functions against SciPy, and the errors that bad input has to raise."
    module._BLOCK = 64  # a few rows: every case has several blocks
    for case, reduction, answer in ANSWERS:
        agrees(module, *case, reduction, answer)
    for name, by_scipy in SOFT.items():
        for axis in (-1, 0):
            assert_close(getattr(module, name)(LINES, axis=axis), by_scipy(LINES, axis=axis), rtol=1e-12)
        assert_close(getattr(module, name)(LINES), by_scipy(LINES, axis=-1), rtol=1e-12)
    assert_close(module.logsumexp(LINES, keepdims=True), special.logsumexp(LINES, axis=-1, keepdims=True), rtol=1e-12)
    masks_classes(module)
    for param in BAD_CALLS:
        refuses(module, *param.values)
    with pytest.raises(ValueError, match="loss must be"):
        module.value_and_grad(losses.mse)  # of the same name, but not this module's


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


def masks_classes(module):
    "A class of weight 0 may have the logit -inf: as if it were a very small number."
    hidden, small = (np.where(no_seventh == 0, v, scores) for v in (-np.inf, -1e3))
    options = {"weight": no_seventh, "label_smoothing": 0.2}
    for f in (
        module.cross_entropy,
        module.cross_entropy_grad,
        lambda *a, **o: module.value_and_grad(module.cross_entropy)(*a, **o)[0],
    ):
        assert_close(f(hidden, classes % 7, **options), f(small, classes % 7, **options), rtol=1e-12)


def refuses(module, loss, pair, options, error, message):
    "Bad input raises the right error in each form; the message names the argument."
    loss, grad = getattr(module, loss.__name__), getattr(module, f"{loss.__name__}_grad")
    for f in (loss, grad, module.value_and_grad(loss)):
        with pytest.raises(error, match=message):
            f(*pair, **options)


def test_the_battery_passes_as_it_is():
    battery(load(losses))


TWO_AXES = "the arrays have two axes: the last is the second"
UNUSED = "what stands there is multiplied by 0 or not chosen"
NO_SHIFT = "with the shift or without, the results agree; the bound decides on speed"
EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    ("cross_entropy", "-1  ->  1"): TWO_AXES,
    ("cross_entropy_grad", "-1  ->  1"): TWO_AXES,
    ("_cross_entropy_both", "-1  ->  1"): TWO_AXES,
    ("_cross_entropy_both", "-1  ->  1  (2)"): TWO_AXES,
    ("_cross_entropy_both", "-1  ->  1  (3)"): TWO_AXES,
    ("_cross_entropy_both", "-1  ->  1  (4)"): TWO_AXES,
    ("kl_divergence", "-1  ->  1"): TWO_AXES,
    ("cross_entropy", "0.0  ->  1.0  in  xp.where(q == 0, 0.0, log_softmax(logits))"): UNUSED,
    ("_cross_entropy_both", "0.0  ->  1.0  in  xp.where(q == 0, 0.0, xp.log(mass) - shifted)"): UNUSED,
    ("_index_block", "0  ->  1  in  np.where(hit == 0, 0, logits.reshape(-1)[true] - top)"): UNUSED,
    ("_index_block", "0  ->  1  in  np.where(spread == 0, 0, (logits.T - top).T)"): UNUSED,
    ("kl_divergence", "1.0  ->  2.0  in  xp.where(present, target, 1.0)"): UNUSED,
    ("kl_divergence", "0.0  ->  1.0  in  xp.where(present, log_prediction, 0.0)"): UNUSED,
    (
        "kl_divergence",
        "0.0  ->  1.0  in  xp.where(present, log_target - xp.where(present, log_prediction, 0.0), 0.0)",
    ): UNUSED,
    ("logsumexp", "0.0  ->  1.0  in  xp.where(xp.isfinite(top), top, 0.0)"): "infinite either way",
    ("_exponentials", "-8  ->  8"): NO_SHIFT,
    ("_exponentials", "8  ->  9  in  -8"): NO_SHIFT,
    ("_exponentials", "8  ->  9  in  logits.max() <= 8"): NO_SHIFT,
    ("_row_max", "16  ->  17  in  x.shape[1] <= 16"): "both ways give the maximum, one is faster",
    ("_row_max", "x.shape[1] <= 16  ->  x.shape[1] >= 16"): "both ways give the maximum, one is faster",
    ("_blocked", "1  ->  2  in  max(1, _BLOCK // k)"): "another size of block, the same result",
    ("_index_block", "1  ->  2  in  -1  (2)"): REST,
    ("_index_block", "1  ->  2  in  -1"): REST,
    ("_row_weights", "False  ->  True  in  copy=False"): "a copy costs time only",
}


@pytest.mark.parametrize("name", definitions(losses))
def test_planted_errors_are_caught(name):
    assert survivors(losses, name, battery) == {what for function, what in EQUIVALENT if function == name}


def test_equivalent_changes_are_of_functions_that_exist():
    assert {function for function, _ in EQUIVALENT} <= set(definitions(losses))


def test_planting_finds_every_kind_of_error():
    source = "def f(x: int | None = 3):\n    if not x > 0:\n        raise ValueError(x + 1)\n    return np.abs(-2 * x)"
    assert [m.what for m in mutants(source, "f")] == [
        "3  ->  4  in  x: int | None=3",
        "not x > 0  ->  x > 0",
        "x > 0  ->  x < 0",
        "0  ->  1  in  x > 0",
        "np.abs(-2 * x)  ->  -2 * x",
        "-2 * x  ->  -2 / x",
        "-2 * x  ->  -2",
        "-2 * x  ->  x",
        "-2  ->  2",
        "2  ->  3  in  -2",
    ]
