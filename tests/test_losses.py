"""Losses: every form, backend, dtype and option against references of other hands; extremes, bad input, properties."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backends import BACKENDS, each_backend
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special
from sklearn import metrics

from dlopt_course import losses
from dlopt_course.core import assert_close, numerical_grad, to_numpy
from dlopt_course.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    focal_loss,
    hinge,
    huber,
    kl_divergence,
    log_softmax,
    logsumexp,
    mae,
    mse,
    softmax,
    value_and_grad,
)

bce = binary_cross_entropy_with_logits
LOSSES = [mse, mae, huber, bce, cross_entropy, kl_divergence, focal_loss, hinge]
TOLERANCE = {"float64": {"rtol": 1e-12, "atol": 1e-15}, "float32": {"rtol": 2e-5, "atol": 2e-7}}
each_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])
each_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def gradient_of(loss):
    "The exported gradient of a loss."
    return getattr(losses, f"{loss.__name__}_grad")


# The references


def kl_reference(log_prediction, target, reduction):
    "torch's KL, summed over each row; its batchmean is our mean."
    rows = F.kl_div(log_prediction, target, reduction="none").sum(-1)
    return {"none": rows, "sum": rows.sum(), "mean": F.kl_div(log_prediction, target, reduction="batchmean")}[reduction]


def focal_reference(logits, target, reduction, alpha=0.25, gamma=2.0):
    "As torchvision.ops.sigmoid_focal_loss documents it; alpha None is its -1."
    p, surprise = torch.sigmoid(logits), F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    loss = surprise * (1 - (p * target + (1 - p) * (1 - target))) ** gamma
    if alpha is not None:
        loss = (alpha * target + (1 - alpha) * (1 - target)) * loss
    return {"none": loss, "sum": loss.sum(), "mean": loss.mean()}[reduction]


def hinge_reference(prediction, target, reduction):
    "max(0, 1 - margin), differentiated by torch."
    loss = F.relu(1 - target * prediction)
    return {"none": loss, "sum": loss.sum(), "mean": loss.mean()}[reduction]


REFERENCE = {
    mse: F.mse_loss,
    mae: F.l1_loss,
    huber: F.huber_loss,
    bce: F.binary_cross_entropy_with_logits,
    cross_entropy: F.cross_entropy,
    kl_divergence: kl_reference,
    focal_loss: focal_reference,
    hinge: hinge_reference,
}


def reference(loss, prediction, target, **options):
    "Value and gradient from torch in float64; `none` gives the gradient of the sum."
    x, y = (torch.asarray(np.array(a)) for a in (prediction, target))
    x, y = x.double().requires_grad_(), y.double() if y.is_floating_point() else y.long()
    given = {k: torch.asarray(v).double() if isinstance(v, np.ndarray) else v for k, v in options.items()}
    value = REFERENCE[loss](x, y, **given)
    return value.detach().numpy(), torch.autograd.grad(value.sum(), x)[0].numpy()


# One helper, one line for each case


@dataclass
class Case:
    "A loss, its two arrays in float64 and its options."

    name: str
    loss: object
    prediction: np.ndarray
    target: np.ndarray
    options: dict = field(default_factory=dict)

    def given(self, dtype):
        "The arrays and options in one dtype; class indices stay integers."
        floats = {k: v.astype(dtype) if isinstance(v, np.ndarray) else v for k, v in self.options.items()}
        target = self.target.astype(dtype) if self.target.dtype.kind == "f" else self.target
        return (self.prediction.astype(dtype), target), floats


def agree(case, backend="numpy", dtype="float64", reduction="mean"):
    "Shape, dtype, value and gradient equal torch's, in both forms; of the input's backend and device; input unchanged."
    make, (pair, options) = BACKENDS[backend], case.given(dtype)
    expected = [np.asarray(x, dtype) for x in reference(case.loss, *pair, **options, reduction=reduction)]
    args = [make(x.copy()) for x in pair]
    options = {k: make(v.copy()) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    options["reduction"] = reduction
    separate = case.loss(*args, **options), gradient_of(case.loss)(*args, **options)
    for form, results in {"separate": separate, "together": value_and_grad(case.loss)(*args, **options)}.items():
        for what, ours, theirs in zip(("value", "gradient"), results, expected, strict=True):
            assert_close(ours, theirs, **TOLERANCE[dtype], name=f"{case.name}, {form}: {what}")
            assert getattr(ours, "device", "cpu") == getattr(args[0], "device", "cpu")
            assert isinstance(ours, (type(args[0]), np.floating))
    assert all(np.array_equal(to_numpy(a), x) for a, x in zip(args, pair, strict=True)), "an input was changed"


rng = np.random.default_rng(20)
N, K = 9, 5
x, y = rng.normal(size=(2, N, 3)) * 2
y[0] = x[0]  # errors of 0, where mae has a corner
labels = (rng.random((N, 3)) < 0.5).astype(float)
soft_labels = np.concatenate([labels[:4], rng.random((N - 4, 3)), np.zeros((1, 3))])[:N]
logits, signs = rng.normal(size=(N, 3)) * 3, 2 * labels - 1
margin_one = np.where(np.arange(N)[:, None] == 2, signs, logits)  # scores at the corner of the hinge
scores, classes = rng.normal(size=(N, K)) * 3, rng.integers(0, K, N)
shares = rng.dirichlet(np.ones(K), N)
shares[0], shares[1] = np.eye(K)[1], [0.5, 0.5, 0, 0, 0]
log_q = np.log(rng.dirichlet(np.ones(K), N))
per_class, per_element, per_column = rng.random(K) + 0.5, rng.random((N, 3)), rng.random(3) + 0.5
some_ignored = np.where(np.arange(N) % 3 == 1, -100, classes)
huge = np.array([[1e5, -1e5, 0.0], [-1e5, -1e5, 1e5], [1e5, 1e5, 1e5], [3.0, -1e5, 2.0]])
huge_labels, huge_signs = (huge > 0).astype(float)[:, ::-1].copy(), np.sign(huge + 1)[:, ::-1].copy()
masked = np.where(np.arange(K) == 4, -np.inf, scores)
open_classes, open_shares = classes % 4, np.pad(rng.dirichlet(np.ones(4), N), ((0, 0), (0, 1)))
wide, wide_classes = rng.normal(size=(4, 3000)) * 5, rng.integers(0, 3000, 4)
weighted, smooth, ignoring = {"weight": per_class}, {"label_smoothing": 0.2}, {"ignore_index": -100}

CASES = [
    Case("mse", mse, x, y),
    Case("mse, one number", mse, x[0, :1], y[1, :1]),
    Case("mse, three axes", mse, x[None], y[None]),
    Case("mse, errors of 1e5", mse, huge, -huge),
    Case("mae", mae, x, y),
    Case("mae, no axes", mae, np.array(2.0), np.array(0.5)),
    Case("mae, errors of 1e5", mae, huge, -huge),
    Case("huber", huber, x, y),
    Case("huber, small delta", huber, x, y, {"delta": 0.3}),
    Case("huber, large delta", huber, x, y, {"delta": 50.0}),
    Case("huber, whole delta", huber, x, y, {"delta": 2}),
    Case("huber, errors of delta", huber, np.array([1.0, -1.0]), np.zeros(2)),
    Case("huber, errors of 1e5", huber, huge, -huge),
    Case("bce", bce, logits, labels),
    Case("bce, soft labels", bce, logits, soft_labels),
    Case("bce, weight", bce, logits, soft_labels, {"weight": per_element}),
    Case("bce, weight of columns", bce, logits, soft_labels, {"weight": per_column}),
    Case("bce, pos_weight", bce, logits, soft_labels, {"pos_weight": per_column}),
    Case("bce, both weights", bce, logits, soft_labels, {"weight": per_element, "pos_weight": per_column}),
    Case("bce, logits of 1e5", bce, huge, huge_labels),
    Case("bce, logits of 1e5, right", bce, huge, (huge > 0).astype(float)),
    Case("bce, one sample", bce, logits[:1], labels[:1]),
    Case("cross_entropy", cross_entropy, scores, classes),
    Case("cross_entropy, weight", cross_entropy, scores, classes, weighted),
    Case("cross_entropy, smoothing", cross_entropy, scores, classes, smooth),
    Case("cross_entropy, all smooth", cross_entropy, scores, classes, {"label_smoothing": 1}),
    Case("cross_entropy, ignore", cross_entropy, scores, some_ignored, ignoring),
    Case("cross_entropy, ignore a class", cross_entropy, scores, classes, {"ignore_index": int(classes[0])}),
    Case("cross_entropy, weight+smooth", cross_entropy, scores, classes, weighted | smooth),
    Case("cross_entropy, weight+ignore", cross_entropy, scores, some_ignored, weighted | ignoring),
    Case("cross_entropy, smooth+ignore", cross_entropy, scores, some_ignored, smooth | ignoring),
    Case("cross_entropy, all options", cross_entropy, scores, some_ignored, weighted | smooth | ignoring),
    Case("cross_entropy, int32", cross_entropy, scores, classes.astype(np.int32)),
    Case("cross_entropy, shares", cross_entropy, scores, shares),
    Case("cross_entropy, shares, weight", cross_entropy, scores, shares, weighted),
    Case("cross_entropy, shares, smooth", cross_entropy, scores, shares, smooth),
    Case("cross_entropy, shares, both", cross_entropy, scores, shares, weighted | smooth),
    Case("cross_entropy, logits of 1e5", cross_entropy, huge, np.array([1, 2, 0, 1])),
    Case("cross_entropy, shares, logits of 1e5", cross_entropy, huge, np.eye(3)[[1, 2, 0, 1]]),
    Case("cross_entropy, one sample", cross_entropy, scores[:1], classes[:1]),
    Case("cross_entropy, one class", cross_entropy, scores[:, :1], classes * 0),
    Case("cross_entropy, one of one", cross_entropy, scores[:1, :1], classes[:1] * 0),
    Case("cross_entropy, shares, one class", cross_entropy, scores[:, :1], np.ones((N, 1))),
    Case("cross_entropy, 3000 classes", cross_entropy, wide, wide_classes),
    Case("cross_entropy, -inf elsewhere", cross_entropy, masked, open_classes),
    Case("kl", kl_divergence, log_q, shares),
    Case("kl, one row", kl_divergence, log_q[:1], shares[:1]),
    Case("kl, one class", kl_divergence, log_q[:, :1], np.ones((N, 1))),
    Case("kl, log q of -1e5", kl_divergence, -np.abs(huge), huge_labels),
    Case("focal", focal_loss, logits, labels),
    Case("focal, no alpha", focal_loss, logits, labels, {"alpha": None}),
    Case("focal, alpha 0.6, gamma 1.5", focal_loss, logits, labels, {"alpha": 0.6, "gamma": 1.5}),
    Case("focal, gamma 0", focal_loss, logits, labels, {"gamma": 0}),
    Case("focal, one sample", focal_loss, logits[:1], labels[:1]),
    Case("focal, logits of 1e5", focal_loss, huge, huge_labels),
    Case("hinge", hinge, logits, signs),
    Case("hinge, margins of 1", hinge, margin_one, signs),
    Case("hinge, scores of 1e5", hinge, huge, huge_signs),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


@each_case
@each_backend
@each_dtype
@each_reduction
def test_agrees_with_torch(case, backend, dtype, reduction):
    agree(case, backend, dtype, reduction)


def test_every_loss_is_swept():
    public = {n for n in losses.__all__ if f"{n}_grad" in losses.__all__}
    assert {loss.__name__ for loss in LOSSES} == public == {c.loss.__name__ for c in CASES}


# Other references: scikit-learn, SciPy, finite differences, closed forms

SOFT = {
    "logsumexp": (logsumexp, torch.logsumexp, special.logsumexp),
    "log_softmax": (log_softmax, torch.log_softmax, special.log_softmax),
    "softmax": (softmax, torch.softmax, special.softmax),
}
cube = rng.normal(size=(2, 3, 4)) * 3
SOFT_ATOL = {"float64": 1e-14, "float32": 1e-6}  # the difference of two numbers of about 10
gaps = np.where(rng.random((2, 3, 4)) < 0.3, -np.inf, cube)
gaps[..., 0] = gaps[0] = cube[0, 0, 0]  # no line of -inf only
far = np.array([[1e5, -1e5, 0.0], [1e5, 1e5, 1e5 - 1]])
SOFT_INPUTS = {"cube": cube, "gaps": gaps, "far": far, "one": cube[:1, :1, :1], "line": cube[0, 0], "back": cube[::-1]}


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("which", SOFT_INPUTS)
@pytest.mark.parametrize("axis", [0, -1])
@each_backend
@each_dtype
def test_soft_functions(name, which, axis, backend, dtype):
    ours, by_torch, by_scipy = SOFT[name]
    x = SOFT_INPUTS[which].astype(dtype)
    result = ours(BACKENDS[backend](x.copy()), axis=axis)
    for theirs in (by_torch(torch.asarray(x.astype("f8")), axis), by_scipy(x.astype("f8"), axis=axis)):
        assert_close(result, np.asarray(theirs, dtype), rtol=TOLERANCE[dtype]["rtol"], atol=SOFT_ATOL[dtype], name=name)


@each_backend
def test_logsumexp_keeps_dims(backend):
    x = BACKENDS[backend](cube)
    assert_close(logsumexp(x, axis=1, keepdims=True), special.logsumexp(cube, axis=1, keepdims=True), rtol=1e-12)
    assert tuple(logsumexp(x, axis=1).shape) == (2, 4)


@each_backend
@each_dtype
def test_logsumexp_at_infinity(backend, dtype):
    rows = np.array([[-np.inf, -np.inf], [np.inf, 0], [-np.inf, np.inf], [np.nan, 0], [-np.inf, 3]], dtype)
    assert_close(logsumexp(BACKENDS[backend](rows))[:3], np.array([-np.inf, np.inf, np.inf], dtype))
    assert np.isnan(to_numpy(logsumexp(BACKENDS[backend](rows))[3]))
    assert_close(logsumexp(BACKENDS[backend](rows[4:])), np.array([3], dtype))


LEARN = [
    (mse, (x, y), lambda p, t: metrics.mean_squared_error(t, p)),
    (mae, (x, y), lambda p, t: metrics.mean_absolute_error(t, p)),
    (cross_entropy, (scores, classes), lambda p, t: metrics.log_loss(t, special.softmax(p, -1), labels=range(K))),
    (bce, (logits[:, 0], labels[:, 0]), lambda p, t: metrics.log_loss(t, special.expit(p))),
    (hinge, (logits[:, 0], signs[:, 0]), lambda p, t: metrics.hinge_loss(t, p)),
]


@pytest.mark.parametrize(("loss", "pair", "peer"), LEARN, ids=lambda v: getattr(v, "__name__", ""))
def test_agrees_with_scikit_learn(loss, pair, peer):
    assert_close(loss(*pair), np.float64(peer(*pair)), rtol=1e-12)


def test_agrees_with_scipy():
    per_row, log_p = special.rel_entr(shares, np.exp(log_q)).sum(-1), special.log_softmax(scores, axis=-1)
    assert_close(kl_divergence(log_q, shares, reduction="none"), per_row, rtol=1e-11)
    assert_close(huber(x, y, delta=0.7, reduction="none"), special.huber(0.7, x - y), rtol=1e-12)
    surprise = kl_divergence(log_p, shares) + special.entr(shares).sum() / N  # cross-entropy is KL plus entropy
    assert_close(surprise, cross_entropy(scores, shares), rtol=1e-12)


SMOOTH = [c for c in CASES if np.max(np.abs(c.prediction)) < 1e3 and "mae" not in c.name and c.prediction.size < 100]
SMOOTH = [c for c in SMOOTH if "of delta" not in c.name and "of 1" not in c.name]  # corners have no derivative


@pytest.mark.parametrize("case", SMOOTH, ids=lambda c: c.name)
@each_reduction
def test_agrees_with_finite_differences(case, reduction):
    options = case.options | {"reduction": reduction}
    at = numerical_grad(lambda p: np.sum(case.loss(p, case.target, **options)), case.prediction, scale=0.05)
    ours = gradient_of(case.loss)(case.prediction, case.target, **options)
    assert_close(ours, at.grad, rtol=1e-7, atol=1e-11 + 3 * at.error)


a, b = np.array([1.0, -3.0]), np.array([0.0, 0.0])
CLOSED = {
    "mse": (mse(a, b), 5.0),
    "mae": (mae(a, b), 2.0),
    "huber": (huber(a, b, reduction="sum"), 0.5 + 2.5),
    "bce, half": (bce(b, np.array([0.0, 1.0])), np.log(2)),
    "bce, far": (bce(np.array([-1e5, 1e5]), np.array([1.0, 0.0]), reduction="sum"), 2e5),
    "bce, right": (bce(np.array([-800.0, 800.0]), np.array([0.0, 1.0])), 0.0),
    "cross-entropy, even": (cross_entropy(np.zeros((2, 7)), np.array([3, 6])), np.log(7)),
    "cross-entropy, far": (cross_entropy(np.array([[1e5, -1e5]]), np.array([1])), 2e5),
    "kl, certain": (kl_divergence(np.log(np.array([[0.25, 0.75]])), np.array([[1.0, 0.0]])), np.log(4)),
    "kl, -inf unused": (kl_divergence(np.array([[0.0, -np.inf]]), np.array([[1.0, 0.0]])), 0.0),
    "kl, impossible": (kl_divergence(np.array([[0.0, -np.inf]]), np.array([[0.5, 0.5]])), np.inf),
    "focal, half": (focal_loss(b, np.array([0.0, 1.0]), reduction="sum"), np.log(2) / 4),
    "focal, far": (focal_loss(np.array([1e5]), np.zeros(1), gamma=0.5), 0.75e5),
    "hinge": (hinge(np.array([2.0, 0.5, -1.0]), np.ones(3), reduction="sum"), 2.5),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name):
    ours, expected = CLOSED[name]
    assert_close(ours, np.float64(expected), rtol=1e-14)


# Inputs as they come: layout, blocks, threads, graphs of gradients

LAYOUTS = {
    "fortran": np.asfortranarray,
    "every second": lambda v: np.repeat(v, 2, axis=0)[::2],
    "backwards": lambda v: v[::-1].copy()[::-1],
    "a column of": lambda v: np.stack([v, v], -1)[..., 0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", [c for c in CASES if c.prediction.ndim], ids=lambda c: c.name)
def test_layout_does_not_matter(case, layout):
    lay, (pair, options) = LAYOUTS[layout], case.given("float64")
    strange = [lay(v) for v in pair]
    for v in strange:
        v.flags.writeable = False
    for f in (case.loss, gradient_of(case.loss), value_and_grad(case.loss)):
        for ours, plain in zip(as_tuple(f(*strange, **options)), as_tuple(f(*pair, **options)), strict=True):
            assert_close(ours, plain, **TOLERANCE["float64"])


def as_tuple(result):
    "Value and gradient, or the one thing."
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("case", [c for c in CASES if c.loss is cross_entropy], ids=lambda c: c.name)
@pytest.mark.parametrize("threads", ["1", "2", "5"])
@pytest.mark.parametrize("block", [1, 12, 40])
def test_blocks_and_threads_do_not_matter(case, threads, block, monkeypatch):
    monkeypatch.setattr(losses, "_BLOCK", block)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    agree(case)
    agree(case, reduction="none")


def test_many_blocks_at_full_size():
    z, t = rng.normal(size=(1500, 700)), rng.integers(0, 700, 1500)
    agree(Case("1500 x 700", cross_entropy, z, t))
    agree(Case("1500 x 700", cross_entropy, z, t), dtype="float32")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_tensors_that_require_grad(case):
    pair, options = case.given("float64")
    x, t = (torch.asarray(v.copy()) for v in pair)
    options = {k: torch.asarray(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    value = case.loss(x.requires_grad_(), t, **options)
    assert_close(value, reference(case.loss, *pair, **case.options, reduction="mean")[0], **TOLERANCE["float64"])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("k", [5, 300])
def test_indices_of_any_integer_dtype(dtype, k):
    z, t = rng.normal(size=(N, k)), classes.astype(dtype)
    agree(Case(dtype, cross_entropy, z, t))
    if dtype in ("int8", "uint8", "int16", "int32", "int64"):
        agree(Case(dtype, cross_entropy, z, t), "torch")


def test_small_dtypes_can_be_ignored():
    t = np.where(np.arange(N) == 2, 255, classes).astype(np.uint8)
    for backend in ("numpy", "torch"):
        agree(Case("uint8", cross_entropy, scores, t, {"ignore_index": 255}), backend)


def test_ignored_samples_may_be_masked():
    z, t = scores.copy(), np.where(np.arange(N) == 2, -100, 1 + classes % 4)
    z[2, 0] = -np.inf
    for backend in ("numpy", "torch", "strict"):
        agree(Case("ignored", cross_entropy, z, t, {"ignore_index": -100}), backend)


def test_classes_without_weight_may_be_masked():
    weight = np.array([1.0, 1, 1, 1, 0])
    expected = cross_entropy(scores[:, :4], open_classes, reduction="none")
    for f in (cross_entropy, lambda *a, **o: value_and_grad(cross_entropy)(*a, **o)[0]):
        reached = np.where(np.arange(K) == 4, -np.inf, scores)
        assert_close(f(reached, open_classes, weight=weight, reduction="none"), expected, rtol=1e-12)
        assert np.all(np.isfinite(f(reached, open_classes, weight=weight, label_smoothing=0.1, reduction="none")))


# Bad input: the error names the argument

nan, n3, i3 = np.array([1.0, np.nan, 3.0]), np.ones(3), np.array([0, 1, 2])
eye, flat = np.eye(3), np.full((3, 3), 1 / 3)
BAD_PAIRS = [  # for every loss that compares element by element
    ((n3, np.ones(4)), {}, ValueError, "target must have the shape of"),
    ((n3, n3[:, None]), {}, ValueError, "target must have the shape of"),
    ((n3, n3.astype("f4")), {}, TypeError, "target must have the dtype of"),
    ((i3, n3), {}, TypeError, "must be floating point, got int64"),
    ((n3 > 0, n3), {}, TypeError, "must be floating point, got bool"),
    ((n3 + 0j, n3), {}, TypeError, "must be floating point, got complex128"),
    ((n3, i3), {}, TypeError, "target must be floating point, got int64"),
    (([1.0, 2.0, 3.0], n3), {}, TypeError, "must be an array .*, got list"),
    ((n3, [1.0, 2.0, 3.0]), {}, TypeError, "target must be an array .*, got list"),
    ((1.0, n3), {}, TypeError, "must be an array .*, got float"),
    ((n3, None), {}, TypeError, "target must be an array .*, got NoneType"),
    ((n3, torch.ones(3, dtype=torch.float64)), {}, TypeError, "target"),
    ((torch.ones(3, dtype=torch.float64), n3), {}, TypeError, "target"),
    ((n3[:0], n3[:0]), {}, ValueError, "must not be empty"),
    ((np.ones((3, 0)), np.ones((3, 0))), {}, ValueError, "must not be empty"),
    ((nan, n3), {}, ValueError, "must be finite, got nan at index"),
    ((n3, n3), {"reduction": "average"}, ValueError, "reduction must be one of 'mean', 'sum', 'none', got 'average'"),
    ((n3, n3), {"reduction": None}, ValueError, "reduction must be one of"),
]
BAD_CLASSES = [
    ((eye, np.array([0, 1, 3])), {}, ValueError, "target must hold classes from 0 to 2, got 3"),
    ((eye, np.array([0, 1, -1])), {}, ValueError, "target must hold classes from 0 to 2, got -1$"),
    ((eye, np.array([0, 1, -100])), {}, ValueError, "got -100; to leave those out, pass ignore_index=-100$"),
    ((eye, np.array([0, 5, -100])), {"ignore_index": -100}, ValueError, "target must hold classes from 0 to 2, got 5"),
    ((eye, np.full(3, -100)), {"ignore_index": -100}, ValueError, "target must not be all -100"),
    ((eye, np.full(3, 1)), {"ignore_index": 1, "reduction": "sum"}, ValueError, "target must not be all 1"),
    ((eye, i3[:2]), {}, ValueError, r"target must have shape \(3,\)"),
    ((eye, i3[:, None]), {}, ValueError, r"target must have shape \(3,\)"),
    ((eye, flat[:2]), {}, ValueError, "target must have the shape of logits"),
    ((eye, flat.astype("f4")), {}, TypeError, "target must have the dtype of logits"),
    ((eye, -flat), {}, ValueError, "target must hold probabilities, 0 or more, got -0.333"),
    ((eye, flat - eye), {}, ValueError, "target must hold probabilities, 0 or more, got -0.666"),
    ((eye, flat * np.nan), {}, ValueError, "target must hold probabilities, 0 or more, got nan"),
    ((eye, i3 > 0), {}, TypeError, "target must be floating point, got bool"),
    ((eye, [0, 1, 2]), {}, TypeError, "target must be .*, got list"),
    ((eye, torch.asarray([0, 1, 2])), {}, TypeError, "target must be"),
    ((torch.eye(3), i3), {}, TypeError, "target must be"),
    ((eye.tolist(), i3), {}, TypeError, "logits must be an array .*, got list"),
    ((eye.astype(int), i3), {}, TypeError, "logits must be floating point"),
    ((eye * np.nan, i3), {}, ValueError, r"logits must be finite, got nan at index \[0, 0\]"),
    ((np.ones(3), i3), {}, ValueError, r"logits must have shape \(n, k\)"),
    ((np.ones((3, 2, 2)), i3), {}, ValueError, r"logits must have shape \(n, k\)"),
    ((eye[:0], i3[:0]), {}, ValueError, "logits must not be empty"),
    ((eye[:, :0], i3), {}, ValueError, "logits must not be empty"),
    ((eye, i3), {"reduction": "batchmean"}, ValueError, "reduction must be one of"),
    ((eye, i3), {"weight": np.ones(4)}, ValueError, r"weight must have shape \(3,\)"),
    ((eye, i3), {"weight": np.ones((3, 1))}, ValueError, r"weight must have shape \(3,\)"),
    ((eye, i3), {"weight": [1.0, 1.0, 1.0]}, TypeError, "weight must be an array"),
    ((eye, i3), {"weight": np.ones(3, "f4")}, TypeError, "weight must have the dtype of logits"),
    ((eye, i3), {"weight": i3}, TypeError, "weight must be floating point"),
    ((eye, i3), {"weight": nan}, ValueError, "weight must hold finite numbers"),
    ((eye, i3), {"weight": -n3}, ValueError, "weight must hold finite numbers, 0 or more"),
    ((eye, i3), {"weight": np.zeros(3)}, ValueError, "weight must not be 0"),
    ((eye, i3 * 0), {"weight": eye[1]}, ValueError, "weight must not be 0"),
    ((eye, i3), {"label_smoothing": 1.1}, ValueError, "label_smoothing must be from 0 to 1, got 1.1"),
    ((eye, i3), {"label_smoothing": -0.1}, ValueError, "label_smoothing must be from 0 to 1, got -0.1"),
    ((eye, i3), {"label_smoothing": np.nan}, ValueError, "label_smoothing must be from 0 to 1, got nan"),
    ((eye, i3), {"label_smoothing": "0.1"}, TypeError, "label_smoothing must be a number, got str"),
    ((eye, i3), {"label_smoothing": True}, TypeError, "label_smoothing must be a number, got bool"),
    ((eye, flat), {"ignore_index": 1}, ValueError, "ignore_index is for class indices"),
    ((eye, i3), {"ignore_index": 1.5}, TypeError, "ignore_index must be"),
    ((eye, i3), {"ignore_index": "a"}, TypeError, "ignore_index must be"),
]
BAD_BINARY = [
    ((n3, n3 * 1.5), {}, ValueError, "target must hold probabilities, from 0 to 1"),
    ((n3, i3 / 1.5), {}, ValueError, "target must hold probabilities, from 0 to 1"),
    ((eye, eye), {"weight": np.ones((2, 3))}, ValueError, "weight must"),
    ((n3, -n3), {}, ValueError, "target must hold probabilities, from 0 to 1"),
    ((n3, nan), {}, ValueError, "target"),
    ((n3, n3), {"weight": np.ones(4)}, ValueError, "weight must"),
    ((n3, n3), {"weight": np.ones((2, 3))}, ValueError, "weight must"),
    ((n3, n3), {"pos_weight": np.ones(4)}, ValueError, "pos_weight must"),
    ((n3, n3), {"pos_weight": np.ones((2, 3))}, ValueError, "pos_weight must"),
    ((n3, n3), {"weight": 2.0}, TypeError, "weight must be an array"),
    ((n3, n3), {"pos_weight": n3.astype("f4")}, TypeError, "pos_weight must have the dtype of logits"),
    ((n3, n3), {"weight": nan}, ValueError, "weight must hold finite"),
    ((n3, n3), {"pos_weight": nan}, ValueError, "pos_weight must hold finite"),
    ((n3, n3), {"weight": np.array([1, np.inf, 1])}, ValueError, "weight must hold finite numbers, 0 or more, got inf"),
    ((n3, n3), {"pos_weight": -n3}, ValueError, "pos_weight must hold finite numbers, 0 or more, got -1.0"),
]
BAD_HUBER = [
    ((n3, n3), {"delta": 0}, ValueError, "delta must be greater than 0, got 0"),
    ((n3, n3), {"delta": -1.0}, ValueError, "delta must be greater than 0, got -1.0"),
    ((n3, n3), {"delta": np.nan}, ValueError, "delta must be greater than 0, got nan"),
    ((n3, n3), {"delta": np.inf}, ValueError, "delta must be greater than 0, got inf"),
    ((n3, n3), {"delta": "1"}, TypeError, "delta must be a number, got str"),
    ((n3, n3), {"delta": n3}, TypeError, "delta must be a number, got ndarray"),
]
BAD_FOCAL = [
    ((n3, n3 / 2), {}, ValueError, "target must hold the labels 0 and 1 only"),
    ((n3, i3 / 2), {}, ValueError, "target must hold the labels 0 and 1 only"),
    ((n3, -n3), {}, ValueError, "target must hold the labels 0 and 1 only"),
    ((n3, nan), {}, ValueError, "target"),
    ((n3, n3), {"gamma": -0.5}, ValueError, "gamma must be 0 or more, got -0.5"),
    ((n3, n3), {"gamma": "2"}, TypeError, "gamma must be a number, got str"),
    ((n3, n3), {"alpha": 1.5}, ValueError, "alpha must be .*from 0 to 1, got 1.5"),
    ((n3, n3), {"alpha": -1}, ValueError, "alpha must be .*from 0 to 1, got -1"),
    ((n3, n3), {"alpha": np.nan}, ValueError, "alpha must be"),
    ((n3, n3), {"alpha": "balanced"}, TypeError, "alpha must be a number, got str"),
]
BAD_KL = [
    ((n3, n3), {}, ValueError, r"log_prediction must have shape \(n, k\)"),
    ((-eye, -flat), {}, ValueError, "target must hold probabilities, 0 or more, got -0.333"),
    ((-eye, flat - eye), {}, ValueError, "target must hold probabilities, 0 or more, got -0.666"),
    ((-eye, flat * np.nan), {}, ValueError, "target must hold probabilities, 0 or more, got nan"),
    ((-eye, flat[:2]), {}, ValueError, "target must have the shape of log_prediction"),
    ((-eye, flat.astype("f4")), {}, TypeError, "target must have the dtype of log_prediction"),
    ((-eye, i3), {}, TypeError, "target must be floating point"),
    ((eye.tolist(), flat), {}, TypeError, "log_prediction must be an array"),
    ((-eye[:0], flat[:0]), {}, ValueError, "log_prediction must not be empty"),
    ((-eye, flat), {"reduction": "batchmean"}, ValueError, "reduction must be one of"),
]
BAD_SIGNS = [
    ((n3, n3 * 0), {}, ValueError, "target must hold the labels -1 and 1 only"),
    ((n3, i3 - 1.0), {}, ValueError, "target must hold the labels -1 and 1 only"),
    ((n3, n3 * 2), {}, ValueError, "target must hold the labels -1 and 1 only"),
    ((n3, nan), {}, ValueError, "target"),
]
BAD_TARGET = [((n3, nan), {}, ValueError, r"target must be finite, got nan at index \[1\]")]
BAD = {
    mse: BAD_PAIRS + BAD_TARGET,
    mae: BAD_PAIRS + BAD_TARGET,
    huber: BAD_PAIRS + BAD_TARGET + BAD_HUBER,
    bce: BAD_PAIRS + BAD_BINARY,
    focal_loss: BAD_PAIRS + BAD_FOCAL,
    hinge: BAD_PAIRS + BAD_SIGNS,
    cross_entropy: BAD_CLASSES,
    kl_divergence: BAD_KL,
}
BAD_CALLS = [pytest.param(f, *case, id=f"{f.__name__}-{i}") for f, cases in BAD.items() for i, case in enumerate(cases)]


@pytest.mark.parametrize("form", ["value", "gradient", "both"])
@pytest.mark.parametrize(("loss", "pair", "options", "error", "message"), BAD_CALLS)
def test_bad_input_names_the_argument(form, loss, pair, options, error, message):
    f = {"value": loss, "gradient": gradient_of(loss), "both": value_and_grad(loss)}[form]
    with pytest.raises(error, match=message):
        f(*pair, **options)


def test_bad_log_prediction():
    for f in (kl_divergence, value_and_grad(kl_divergence)):  # the gradient does not depend on it
        with pytest.raises(ValueError, match="log_prediction must be finite"):
            f(eye * np.nan, flat)


@pytest.mark.parametrize("f", [logsumexp, log_softmax, softmax])
def test_bad_input_of_soft_functions(f):
    for bad in ([1.0, 2.0], 1.0, None):
        with pytest.raises(TypeError, match="x must be an array"):
            f(bad)
    with pytest.raises(TypeError, match="x must be floating point"):
        f(i3)
    with pytest.raises(ValueError, match="x must not be empty"):
        f(n3[:0])


def test_a_function_of_the_same_name_is_not_taken_for_a_loss():
    def mse(prediction, target):
        return 42.0

    with pytest.raises(ValueError, match="loss must be a loss of this module"):
        value_and_grad(mse)


@pytest.mark.parametrize("f", [cross_entropy, gradient_of(cross_entropy)])
def test_numpy_scalars_as_options_keep_float32(f):
    assert f(eye.astype("f4"), i3, label_smoothing=np.float64(0.1)).dtype == np.float32
    assert value_and_grad(cross_entropy)(eye.astype("f4"), i3, label_smoothing=np.float64(0.1))[1].dtype == np.float32
    focal = value_and_grad(focal_loss)(n3.astype("f4"), n3.astype("f4"), alpha=np.float64(0.5), gamma=np.float64(2))
    assert [v.dtype for v in focal] == [np.float32] * 2


def test_half_precision_is_averaged_without_overflow():
    ones = np.ones(100_000, np.float16)
    assert mse(ones, 0 * ones) == 1
    half = torch.ones(8, dtype=torch.bfloat16)
    assert mse(half, 0 * half).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="prediction must be finite, got nan"):
        mse(half * torch.nan, half)


@pytest.mark.parametrize("bad", [softmax, len, 3, "mse", lambda p, t: p])
def test_value_and_grad_takes_losses_only(bad):
    with pytest.raises(ValueError, match="loss must be a loss of this module"):
        value_and_grad(bad)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("f", [cross_entropy, gradient_of(cross_entropy), value_and_grad(cross_entropy)])
def test_infinite_logits_are_refused(f):
    with pytest.raises(ValueError, match="logits must be finite, got inf at index"):
        f(np.array([[0.0, np.inf]]), np.array([0]))


# Properties

sizes = st.tuples(st.integers(1, 5), st.integers(1, 6))
numbers = st.floats(-50, 50, width=32)


@st.composite
def tables(draw, count=1):
    "Arrays of one shape, and a class for each row."
    shape = draw(sizes)
    target = draw(arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)))
    return *(draw(arrays(np.float64, shape, elements=numbers)) for _ in range(count)), target


quick = settings(max_examples=60, deadline=None)  # the machine may be slow; the properties do not depend on it


@quick
@given(tables(), st.floats(-1e3, 1e3))
def test_shifting_the_logits_changes_nothing(table, shift):
    z, t = table
    assert_close(softmax(z + shift), softmax(z), rtol=1e-9, atol=1e-12)
    assert_close(cross_entropy(z + shift, t), cross_entropy(z, t), rtol=1e-9, atol=1e-10)
    assert_close(logsumexp(z + shift), logsumexp(z) + shift, rtol=1e-9, atol=1e-10)


@quick
@given(tables())
def test_softmax_is_a_distribution_and_cross_entropy_its_surprise(table):
    z, t = table
    p = softmax(z)
    assert np.all(p >= 0)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(np.exp(log_softmax(z)), p, rtol=1e-10)
    surprise = -np.log(p[np.arange(len(t)), t])
    np.testing.assert_allclose(cross_entropy(z, t, reduction="none"), surprise, rtol=1e-8, atol=1e-12)


@quick
@given(tables(), st.floats(0, 1), st.sampled_from(["mean", "sum", "none"]))
def test_rows_of_the_gradient_sum_to_zero(table, smoothing, reduction):
    z, t = table
    _, grad = value_and_grad(cross_entropy)(z, t, label_smoothing=smoothing, reduction=reduction)
    np.testing.assert_allclose(grad.sum(-1), 0, atol=1e-14)


def as_targets(loss, raw, t):
    "Valid targets for a loss, from any numbers."
    if loss in (bce, focal_loss):
        return (raw > 0).astype(float)
    if loss is hinge:
        return np.where(raw > 0, 1.0, -1.0)
    return {cross_entropy: t, kl_divergence: softmax(raw)}.get(loss, raw)


CONVEX = [loss for loss in LOSSES if loss is not focal_loss]


@pytest.mark.parametrize("loss", CONVEX)
@quick
@given(tables(3), st.floats(0, 1))
def test_convex_along_lines(loss, table, share):
    a, b, raw, t = table
    target = as_targets(loss, raw, t)
    fa, fb = loss(a, target), loss(b, target)
    assert loss(share * a + (1 - share) * b, target) <= share * fa + (1 - share) * fb + 1e-9 * (1 + abs(fa) + abs(fb))


@pytest.mark.parametrize("loss", CONVEX)
@quick
@given(tables(3), st.sampled_from(["mean", "sum"]))
def test_gradient_is_below_the_loss(loss, table, reduction):
    a, b, raw, t = table
    target = as_targets(loss, raw, t)
    (fa, slope), fb = value_and_grad(loss)(a, target, reduction=reduction), loss(b, target, reduction=reduction)
    assert fb >= fa + np.sum(slope * (b - a)) - 1e-9 * (1 + abs(fa) + abs(fb) + np.sum(np.abs(slope * (b - a))))


def test_focal_loss_is_not_convex():
    left, middle, right = focal_loss(np.array([-8.0, -6.0, -4.0]), np.ones(3), reduction="none")
    assert middle > (left + right) / 2  # which is why it is missing above


@quick
@given(tables(2))
def test_kl_is_never_negative(table):
    z, raw, _ = table
    assert np.all(kl_divergence(log_softmax(z), softmax(raw), reduction="none") >= -1e-12)
    np.testing.assert_allclose(kl_divergence(log_softmax(z), softmax(z)), 0, atol=1e-12)


@quick
@given(tables(2), st.floats(0.01, 100))
def test_huber_is_between(table, delta):
    p, t, _ = table
    value, half_squares = huber(p, t, delta=delta, reduction="none"), mse(p, t, reduction="none") / 2
    lines = delta * mae(p, t, reduction="none")
    assert np.all(value <= half_squares * (1 + 1e-12))
    assert np.all(value <= lines * (1 + 1e-12))
    assert np.all(value >= lines - delta**2 / 2 - 1e-12 * (1 + lines + delta**2))
    assert np.all(np.abs(gradient_of(huber)(p, t, delta=delta, reduction="none")) <= delta)


@quick
@given(tables(2))
def test_focal_without_focus_is_cross_entropy(table):
    z, raw, _ = table
    target = as_targets(bce, raw, None)
    assert_close(focal_loss(z, target, alpha=None, gamma=0), bce(z, target), rtol=1e-12)
    assert np.all(focal_loss(z, target, alpha=None, reduction="none") <= bce(z, target, reduction="none"))
