"""Layers: outputs and every gradient against torch, by dtype, backend and layout; extremes, bad input, properties."""

import inspect
from dataclasses import dataclass, field
from functools import cache, partial

import array_api_strict
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backends import BACKENDS, no_gpu
from hypothesis import given, settings
from hypothesis import strategies as st

from dlopt_course import layers
from dlopt_course.core import assert_close, numerical_grad, to_numpy
from dlopt_course.losses import softmax

TOLERANCE = {"float64": (1e-9, 1e-13), "float32": (2e-5, 4e-6)}  # relative to each number, and to the largest
NUMPY_ONLY = {"conv2d", "max_pool2d", "avg_pool2d", "embedding", "rnn", "lstm", "gru"}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)
rng = np.random.default_rng(40)


def normal(*shape):
    return rng.normal(size=shape)


# The references


def by_batch_norm(x, weight, bias, running_mean=None, running_var=None, training=True, **options):
    stats = [None if v is None else v.detach().clone() for v in (running_mean, running_var)]
    return F.batch_norm(x, *stats, weight, bias, training, **options)


def by_layer_norm(x, weight, bias, **options):
    return F.layer_norm(x, weight.shape, weight, bias, **options)


def by_module(kind, x, *arrays, nonlinearity="tanh", states=0):
    "torch's recurrent layer on given parameters, and on a state if there is one."
    extra = {"nonlinearity": nonlinearity} if kind == "RNN" else {}
    hidden = arrays[1].shape[1]
    module = getattr(torch.nn, kind)(x.shape[2], hidden, batch_first=True, dtype=x.dtype, **extra)
    names = [name for name, _ in module.named_parameters()]
    start = tuple(s[None] for s in arrays[4:])
    start = (start if kind == "LSTM" else start[0],) if start else ()
    return torch.func.functional_call(module, dict(zip(names, arrays[:4], strict=True)), (x, *start))[0]


def recurrent(name):
    "Our recurrent layer with the states as arguments of their own, and torch's."

    def ours(module, x, *arrays, **options):
        state = () if len(arrays) == 4 else (arrays[4:],) if name == "lstm" else (arrays[4],)
        return getattr(module, name)(x, *arrays[:4], *state, **options)

    return ours, partial(by_module, name.upper())


def masked_attention(query, key, value, mask=None, is_causal=False):
    "torch's attention; it does not take both, so the causal mask is made here."
    if mask is not None and is_causal:
        mask, is_causal = mask & torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril(), False
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=is_causal)


# The cases


@dataclass
class Case:
    "A layer, the arrays it is differentiated by in float64, whole numbers before them, options; what torch says."

    name: str
    arrays: tuple
    options: dict = field(default_factory=dict)
    smooth: bool = True  # whether finite differences can be taken

    @property
    def layer(self):
        return self.name.split(",")[0]

    def call(self, arrays, options, module=layers):
        "The outputs of our layer."
        if self.layer in ("rnn", "lstm", "gru"):
            return recurrent(self.layer)[0](module, *arrays, **options)
        return getattr(module, self.layer)(*arrays, **options)

    def given(self, dtype="float64", make=np.array):
        "Fresh arrays and options."
        cast = lambda a: make(a.astype(dtype) if a.dtype.kind == "f" else a.copy())  # noqa: E731
        options = {k: cast(v) if isinstance(v, np.ndarray) else v for k, v in self.options.items()}
        return [cast(a) for a in self.arrays], options

    @property
    def dy(self):
        "What the pullback is asked about: the same for every form of a case."
        return np.random.default_rng(41).normal(size=reference(self.name)[0].shape)


def by_torch(case, *tensors, **options):
    "What torch computes."
    special = {
        "batch_norm": by_batch_norm,
        "layer_norm": by_layer_norm,
        "attention": masked_attention,
        "flatten": partial(torch.flatten, start_dim=1),
        **{name: recurrent(name)[1] for name in ("rnn", "lstm", "gru")},
    }
    return special.get(case.layer, getattr(F, case.layer, None))(*tensors, **options)


@cache
def reference(name):
    "torch's output and, for the case's dy, its gradients, in float64."
    case = BY_NAME[name]
    arrays, options = case.given(make=torch.tensor)
    inputs = [a.requires_grad_() for a in arrays if a.is_floating_point()]
    arrays = [a if a.is_floating_point() else a.long() for a in arrays]
    y = by_torch(case, *arrays, **options)
    dy = torch.tensor(np.random.default_rng(41).normal(size=y.shape))
    return [x.detach().numpy() for x in (y, *torch.autograd.grad(y, inputs, dy))]


cube = normal(3, 2, 5) * 2
away = cube + np.sign(cube)  # no number near a corner at 0
far = np.array([1e4, -1e4, 800.0, -800.0, 90.0, -90.0, 40.0, -40.0, 20.5, 20.0, 5.0, -5.0, 0.5])
inputs = {"": away, ", at 0": np.array([0.0, -0.0, 1.0]), ", far": far, ", one": np.array([[0.7]])}
ACTIVATIONS = [
    ("relu", {}),
    ("leaky_relu", {}),
    ("leaky_relu", {"negative_slope": 0.3}),
    ("leaky_relu", {"negative_slope": -2}),
    ("elu", {}),
    ("elu", {"alpha": 0.3}),
    ("gelu", {}),
    ("gelu", {"approximate": "tanh"}),
    ("silu", {}),
    ("sigmoid", {}),
    ("tanh", {}),
    ("softplus", {}),
    ("softplus", {"beta": 2.5, "threshold": 3}),
    ("softplus", {"beta": 0.5, "threshold": -1.0}),
]


def named(name, arrays, note="", smooth=True, **options):
    "A case called by its layer, a note and its options."
    shown = (f"{k} {v.shape if isinstance(v, np.ndarray) else v}" for k, v in options.items())
    return Case(", ".join([name, *filter(None, [note.strip(", ")]), *shown]), arrays, options, smooth)


def image(*shape):
    "Numbers that differ by 0.1 at least: the largest of a window stays the largest when one of them moves a little."
    return rng.permutation(np.prod(shape)).reshape(shape) / 10 - np.prod(shape) / 20


def convolution(n, c, h, w, outputs, kernel, bias=True, **options):
    arrays = normal(n, c, h, w), normal(outputs, c, *kernel), *([normal(outputs)] * bias)
    return named("conv2d", arrays, f"{(n, c, h, w)} {(outputs, *kernel)}{'' if bias else ' no bias'}", **options)


def through_time(name, n, time, inputs, hidden, state=False, **options):
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[name]
    shapes = [
        (n, time, inputs),
        (gates * hidden, inputs),
        (gates * hidden, hidden),
        (gates * hidden,),
        (gates * hidden,),
    ]
    shapes += [(n, hidden)] * (state * (1 + (name == "lstm")))
    note = f"{(n, time, inputs, hidden)}{' state' if state else ''}"
    smooth = options.get("nonlinearity") != "relu"
    return named(name, tuple(normal(*s) for s in shapes), note, smooth, **options)


look = rng.random((2, 3, 4, 5)) < 0.5
look[..., 1] = True
CASES = [
    *(named(n, (x,), note, note in ("", ", one"), **o) for n, o in ACTIVATIONS for note, x in inputs.items()),
    named("flatten", (cube,)),
    named("flatten", (cube[0],), "two axes"),
    named("flatten", (normal(1, 1, 1, 2),), "four axes"),
    named("linear", (normal(4, 3), normal(5, 3), normal(5))),
    named("linear", (normal(4, 3), normal(5, 3)), "no bias"),
    named("linear", (normal(2, 3, 4), normal(5, 4), normal(5)), "three axes"),
    named("linear", (normal(3), normal(2, 3), normal(2)), "one axis"),
    named("linear", (normal(1, 1), normal(1, 1), normal(1)), "ones"),
    convolution(2, 3, 5, 6, 4, (3, 3)),
    convolution(2, 3, 5, 6, 4, (3, 3), padding=1),
    convolution(2, 2, 5, 4, 3, (3, 2), bias=False),
    convolution(1, 1, 1, 1, 1, (1, 1)),
    convolution(1, 1, 4, 5, 2, (1, 1), stride=2),
    convolution(2, 1, 7, 9, 1, (2, 2), stride=3),
    convolution(1, 2, 7, 6, 2, (3, 2), stride=(2, 1), padding=(0, 2)),
    convolution(1, 2, 7, 8, 3, (2, 3), stride=(1, 3), padding=[2, 1], dilation=(3, 2)),
    convolution(2, 2, 5, 5, 2, (3, 3), padding=2, dilation=2, stride=2),
    convolution(1, 1, 5, 5, 2, (5, 5)),
    convolution(1, 2, 3, 3, 2, (4, 4), padding=1),
    convolution(2, 1, 6, 3, 2, (2, 1), padding=np.int64(1), bias=False),
]
for pool, extra in (("max_pool2d", [{}]), ("avg_pool2d", [{}, {"count_include_pad": False}])):
    for more in extra:
        CASES += [
            named(pool, (image(2, 2, 4, 6),), kernel_size=2, **more),
            named(pool, (image(3, 3, 7, 5),), "odd", kernel_size=2, **more),
            named(pool, (image(2, 1, 7, 6),), kernel_size=3, stride=1, padding=1, **more),
            named(pool, (image(1, 2, 7, 8),), kernel_size=(2, 3), stride=(3, 1), padding=(1, 0), **more),
            named(pool, (image(1, 2, 9, 7),), kernel_size=2, stride=3, padding=[0, 1], **more),
            named(pool, (image(1, 1, 1, 1),), kernel_size=1, **more),
            named(pool, (image(1, 2, 3, 4),), "all at once", kernel_size=(3, 4), **more),
            named(pool, (image(2, 2, 2, 3),), "padded", kernel_size=4, padding=2, stride=2, **more),
        ]
CASES += [
    named("max_pool2d", (rng.integers(0, 2, (2, 2, 6, 6)).astype(float),), "ties", False, kernel_size=3, stride=2),
    named("max_pool2d", (np.zeros((1, 1, 4, 4)),), "all tied", False, kernel_size=2, stride=1, padding=1),
    named("max_pool2d", (-np.ones((1, 2, 4, 4)) - image(1, 2, 4, 4) ** 2,), "negative", kernel_size=2, padding=1),
    named("batch_norm", (normal(5, 3) * 2 + 1, normal(3), normal(3))),
    named("batch_norm", (normal(2, 3, 4, 5) - 4, normal(3), normal(3)), "images"),
    named("batch_norm", (normal(1, 2, 3, 2), normal(2), normal(2)), "one image"),
    named("batch_norm", (normal(4, 1), normal(1), normal(1)), "one channel"),
    named("batch_norm", (normal(5, 3), normal(3), normal(3)), eps=0.1, momentum=1),
    named("batch_norm", (normal(5, 3), normal(3), normal(3)), running_mean=normal(3), running_var=rng.random(3)),
    *(
        named(
            "batch_norm",
            (x, normal(2), normal(2)),
            note,
            running_mean=normal(2),
            running_var=rng.random(2),
            training=False,
        )
        for note, x in {"still, one sample": normal(1, 2), "still, images": normal(2, 2, 3, 1)}.items()
    ),
    named("layer_norm", (normal(4, 6) * 3 - 1, normal(6), normal(6))),
    named("layer_norm", (normal(2, 3, 4), normal(3, 4), normal(3, 4)), "two axes"),
    named("layer_norm", (normal(2, 3, 4), normal(2, 3, 4), normal(2, 3, 4)), "all axes"),
    named("layer_norm", (normal(5), normal(5), normal(5)), "one sample"),
    named("layer_norm", (normal(2, 3, 4), normal(4), normal(4)), eps=0.2),
    named("embedding", (rng.integers(0, 5, (3, 4)), normal(5, 2))),
    named("embedding", (np.array([2, 2, 2, 0], np.uint8), normal(4, 3)), "small integers"),
    named("embedding", (np.array(1), normal(2, 3)), "one index"),
    *(through_time(name, 3, 4, 2, 3) for name in ("rnn", "lstm", "gru")),
    *(through_time(name, 2, 3, 3, 4, state=True) for name in ("rnn", "lstm", "gru")),
    *(through_time(name, 1, 1, 1, 1, state=True) for name in ("rnn", "lstm", "gru")),
    through_time("rnn", 2, 3, 2, 3, nonlinearity="relu"),
    through_time("rnn", 2, 3, 2, 3, state=True, nonlinearity="relu"),
    named("attention", (normal(4, 3), normal(5, 3), normal(5, 2))),
    named("attention", (normal(2, 3, 4, 2), normal(2, 3, 5, 2), normal(2, 3, 5, 3)), "heads"),
    named("attention", (normal(1, 1), normal(1, 1), normal(1, 1)), "ones"),
    named("attention", (normal(2, 4, 3), normal(2, 4, 3), normal(2, 4, 2)), is_causal=True),
    named("attention", (normal(3, 2), normal(5, 2), normal(5, 2)), "fewer queries", is_causal=True),
    named("attention", (normal(5, 2), normal(3, 2), normal(3, 2)), "more queries", is_causal=True),
    named("attention", (normal(2, 3, 4, 2), normal(2, 3, 5, 2), normal(2, 3, 5, 3)), mask=look),
    named("attention", (normal(2, 3, 4, 2), normal(2, 3, 5, 2), normal(2, 3, 5, 3)), mask=look[0, 0]),
    named("attention", (normal(2, 3, 4, 2), normal(2, 3, 5, 2), normal(2, 3, 5, 3)), mask=look[:, :1, :1]),
    named("attention", (normal(2, 4, 2), normal(2, 4, 2), normal(2, 4, 3)), mask=np.tri(4) > 0, is_causal=True),
    named("attention", (normal(4, 2), normal(4, 2), normal(4, 3)), mask=np.array([1, 0, 1, 1]) > 0, is_causal=True),
]
BY_NAME = {c.name: c for c in CASES}
each_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
SWEEP = [
    pytest.param(c, b, d, marks=[no_gpu] * (b == "cuda"), id=f"{c.name}-{b}-{d}")
    for c in CASES
    for b in BACKENDS
    for d in TOLERANCE
    if b == "numpy" or c.layer not in NUMPY_ONLY
    if b != "strict" or (d == "float64" and (c.layer != "gelu" or "approximate" in c.options))
]


def flat(grads):
    "The arrays that a pullback returned, in order."
    return [g for one in grads for g in flat(one)] if isinstance(grads, tuple) else [grads]


def same(a, b):
    return all(np.array_equal(to_numpy(x), to_numpy(y)) for x, y in zip(a, b, strict=True))


def agree(case, dtype="float64", make=np.array, module=layers, give=np.array):
    "Outputs and gradients are torch's, of the input's dtype, library and device; no input changes; twice is once."
    arrays, options = case.given(dtype, make)
    dy = give(case.dy.astype(dtype)) if give is not np.array else make(case.dy.astype(dtype))
    kept = [to_numpy(a).copy() for a in (*arrays, dy)]
    y, pullback, *_ = case.call(arrays, options, module)
    found, again = flat(pullback(dy)), flat(pullback(dy))
    for i, (ours, theirs) in enumerate(zip((y, *found), reference(case.name), strict=True)):
        rtol, atol = TOLERANCE[dtype]
        theirs = np.asarray(theirs, dtype)
        assert_close(ours, theirs, rtol, atol * np.abs(theirs).max(), name=f"{case.name}: {['y', *'abcdefg'][i]}")
        assert getattr(ours, "device", "cpu") == getattr(dy, "device", "cpu")
        assert isinstance(ours, (type(dy), np.floating))
    assert same(found, again)
    assert same((*arrays, dy), kept), "an input was changed"


@pytest.mark.parametrize(("case", "backend", "dtype"), SWEEP)
def test_agrees_with_torch(case, backend, dtype):
    agree(case, dtype, BACKENDS[backend])


def test_every_layer_is_swept():
    public = {n for n in layers.__all__ if n.islower()} - {"sequential", "fit"}
    assert {c.layer for c in CASES} == public


def strided(x):
    "The same numbers, every other one of a larger array, backwards."
    wide = np.full([2 * n for n in x.shape], 7, x.dtype)[(..., *[slice(None, None, -2)] * x.ndim)]
    wide[...] = x
    return wide


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "strided": strided,
    "read-only": read_only,
    "Fortran": partial(np.array, order="F"),
    "samples last": lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0) if x.ndim else x.copy(),
}


@each_case
def test_any_memory_layout(case):
    for layout in LAYOUTS.values():
        agree(case, make=layout)
        agree(case, give=layout)


SMALL = [c for c in CASES if c.smooth and sum(a.size for a in c.arrays) < 140]


@pytest.mark.parametrize("case", SMALL, ids=lambda c: c.name)
def test_agrees_with_finite_differences(case):
    arrays, options = case.given()
    floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    for i, grad in zip(floats, flat(case.call(arrays, options)[1](case.dy)), strict=True):

        def along(a, i=i):
            return np.sum(case.dy * case.call([*arrays[:i], a, *arrays[i + 1 :]], options)[0])

        at = numerical_grad(along, arrays[i], scale=0.05, levels=5)
        assert_close(grad, at.grad, rtol=1e-6, atol=1e-9 * np.abs(at.grad).max() + 3 * at.error, name=f"argument {i}")


def test_every_smooth_layer_is_differentiated():
    assert {c.layer for c in SMALL} == {c.layer for c in CASES}


# Extremes

FAR = [c for c in CASES if c.layer not in ("embedding", "flatten") and ", far" not in c.name]


@pytest.mark.parametrize("case", FAR, ids=lambda c: c.name)
def test_extreme_inputs_give_no_warning_and_no_nan(case):
    for dtype in TOLERANCE:
        (x, *arrays), options = case.given(dtype)
        x *= 1e4 / max(1, np.abs(x).max())
        y, pullback, *_ = case.call([x, *(3 * a for a in arrays)], options)
        assert all(np.isfinite(v).all() for v in (y, *flat(pullback(np.ones_like(y)))))


@pytest.mark.parametrize(("name", "options"), ACTIVATIONS)
@each_dtype
def test_activations_at_very_large_numbers(name, options, dtype):
    x = np.array([1e4, -1e4], dtype)
    y, pullback = getattr(layers, name)(x, **options)
    expected = getattr(F, name)(torch.tensor(x, dtype=torch.float64), **options).numpy()
    assert_close(y, expected.astype(dtype), rtol=1e-6, atol=1e-12)
    assert np.isfinite(pullback(np.ones_like(x))).all()


@pytest.mark.parametrize("name", dict(ACTIVATIONS))
def test_nan_stays_visible(name):
    assert np.isnan(getattr(layers, name)(np.array([1.0, np.nan]))[0]).tolist() == [False, True]


@pytest.mark.parametrize("name", dict(ACTIVATIONS))
def test_an_array_without_axes(name):
    y, pullback = getattr(layers, name)(np.array(0.5))
    assert_close(y, getattr(F, name)(torch.tensor(0.5, dtype=torch.float64)).numpy(), rtol=1e-12)
    assert np.shape(pullback(np.array(1.0))) == ()


def passes_far_numbers(module):
    "Float16 up to its ends and float32 far to the left: slopes are torch's in float64, nothing overflows."
    for x, name, options in [
        (np.array([1e4, -1e4, 6e4, -6e4, 300, -300, 3, -3], "f2"), "gelu", {"approximate": "tanh"}),
        (np.array([1e4, -1e4, 6e4, -6e4, 300, -300, 3, -3], "f2"), "gelu", {}),
        (np.linspace(-10, -60, 11).astype("f4"), "elu", {}),
        (np.linspace(-10, -60, 11), "elu", {"alpha": 0.3}),
    ]:
        with np.errstate(all="raise", under="ignore"):
            y, pullback = getattr(module, name)(x, **options)
            slopes = pullback(np.ones_like(y))
        t = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        z = getattr(F, name)(t, **options)
        (slope,) = torch.autograd.grad(z.sum(), t)
        tolerance = {"rtol": 5e-3, "atol": 5e-3} if x.dtype == "f2" else {"rtol": 8 * np.finfo(x.dtype).eps}
        assert_close(y.astype(float), z.detach().numpy(), **tolerance)
        assert_close(slopes.astype(float), slope.numpy(), **tolerance)
        assert y.dtype == slopes.dtype == x.dtype


def test_slopes_far_from_0():
    passes_far_numbers(layers)


UNUSUAL = {  # layer, options: x, dy
    ("relu", ()): (np.array([1.0, -1.0, 0.0, np.nan, 2.0]), np.array([np.inf, np.inf, np.nan, 3.0, -np.inf])),
    ("leaky_relu", ()): (np.array([1.0, -1.0, 0.0, np.nan, 2.0]), np.array([np.inf, -np.inf, 2.0, 3.0, np.nan])),
    ("elu", ()): (np.array([1.0, -1.0, 0.0, np.nan, 2.0]), np.array([np.inf, -np.inf, 2.0, 3.0, np.nan])),
    ("max_pool2d", (2,)): (
        np.array([[[[1.0, 2, np.nan, 7], [3, 3, 8, 1], [np.inf, 1, -np.inf, 0], [2, 2, 2, -5]]]]),
        np.array([[[[np.inf, 2.0], [-np.inf, np.nan]]]]),
    ),
    ("max_pool2d", (3, 1, 1)): (
        np.array([[[[1.0, 2, 5], [4, 3, 8], [9, 1, np.nan]]]]),
        np.array([[[[np.inf, 2.0, 4.0], [1.0, 3.0, 8.0], [7.0, 5.0, 6.0]]]]),
    ),
}


def passes_unusual_numbers(module):
    "Infinities and NaN in x and dy go the way they go in torch."
    for (name, options), (x, dy) in UNUSUAL.items():
        for dtype in ("f2", "f4", "f8", "g"):
            y, pullback = getattr(module, name)(x.astype(dtype), *options)
            t = torch.tensor(x, requires_grad=True)
            z = getattr(F, name)(t, *options)
            (dx,) = torch.autograd.grad(z, t, torch.tensor(dy))
            np.testing.assert_allclose(y.astype(float), z.detach(), rtol=1e-3)
            np.testing.assert_allclose(pullback(dy.astype(dtype)).astype(float), dx, rtol=1e-3)
            assert pullback(dy.astype(dtype)).dtype == dtype


def test_infinities_and_nan_go_as_in_torch():
    passes_unusual_numbers(layers)


def test_a_nan_of_several_takes_the_gradient_of_its_window():
    x = np.array([[[[1.0, np.nan], [np.nan, 2.0]]]])
    assert layers.max_pool2d(x, 2)[1](np.full((1, 1, 1, 1), 3.0)).ravel().tolist() == [0, 3, 0, 0]


def test_nan_wins_its_window():
    x = np.zeros((1, 1, 2, 4))
    x[0, 0, 1, 1] = np.nan
    assert np.isnan(layers.max_pool2d(x, 2)[0]).ravel().tolist() == [True, False]


def keeps_float16(module):
    "The gradient of an embedding is of the dtype of its weight."
    y, pullback = module.embedding(np.array([[0, 2], [2, 2]]), np.ones((3, 2), "f2"))
    dweight = pullback(y)
    assert dweight.dtype == np.float16
    assert dweight.tolist() == [[1, 1], [0, 0], [3, 3]]


def test_embedding_in_float16():
    keeps_float16(layers)


def test_numpy_scalars_as_options_keep_float32():
    x, ones = normal(4, 3).astype("f4"), np.ones(3, "f4")
    half = np.float64(0.5)
    results = [
        layers.leaky_relu(x, half),
        layers.elu(x, half),
        layers.softplus(x, half, half),
        layers.layer_norm(x, ones, ones, half),
        layers.batch_norm(x, ones, ones, momentum=half, eps=half),
    ]
    for y, pullback, *stats in results:
        assert all(v.dtype == np.float32 for v in (y, *flat(pullback(y)), *flat(tuple(stats))))


# What is remembered: nothing, but what a caller hands on


def statistics_run(module, shape, momentum, make):
    "Three batches in training and one after it: outputs and running statistics are torch's."
    theirs = {2: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[len(shape)](3, momentum=momentum, dtype=torch.float64)
    weight, bias = (make(np.asarray(p.detach())) for p in (theirs.weight, theirs.bias))
    stats = None, None
    for _ in range(3):
        x = normal(*shape) * 3 + 2
        before = [None if v is None else to_numpy(v).copy() for v in stats]
        y, _, new = module.batch_norm(make(x), weight, bias, *stats, momentum=momentum)
        assert_close(y, theirs(torch.tensor(x)).detach(), rtol=1e-9, atol=1e-12)
        assert all(b is None or np.array_equal(to_numpy(v), b) for v, b in zip(stats, before, strict=True))
        stats = new
        for ours, running in zip(stats, (theirs.running_mean, theirs.running_var), strict=True):
            assert_close(ours, running, rtol=1e-12)
    theirs.eval()
    x = normal(*shape)
    y, _, after = module.batch_norm(make(x), weight, bias, *stats, training=False, momentum=momentum)
    assert_close(y, theirs(torch.tensor(x)).detach(), rtol=1e-9, atol=1e-12)
    assert after[0] is stats[0]
    assert after[1] is stats[1]


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize("momentum", [0.1, 0.7, 0, 1])
@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_running_statistics(shape, momentum, make):
    statistics_run(layers, shape, momentum, make)


def goes_on(module, name, cut):
    "A sequence in two parts gives what it gives in one; its state is a copy, and gets a gradient."
    x, *weights = BY_NAME[f"{name}, (3, 4, 2, 3)"].arrays
    layer = getattr(module, name)
    whole, _, last = layer(x, *weights)
    first, _, state = layer(x[:, :cut], *weights)
    kept = [s.copy() for s in flat(state)]
    second, pullback, final = layer(x[:, cut:], *weights, state)
    assert_close(np.concatenate([first, second], axis=1), whole, rtol=1e-13)
    for ours, expected in zip(flat(final), flat(last), strict=True):
        assert_close(ours, expected, rtol=1e-13)
    assert_close(flat(last)[0], whole[:, -1], rtol=0)
    *_, dstate = pullback(np.ones_like(second))
    assert [d.shape for d in flat(dstate)] == [s.shape for s in flat(state)]
    assert isinstance(dstate, tuple) == (name == "lstm")
    assert same(flat(state), kept)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("cut", [1, 3])
def test_a_sequence_goes_on_from_its_state(name, cut):
    goes_on(layers, name, cut)


RECURRENT = [c for c in CASES if c.layer in ("rnn", "lstm", "gru")]


@cache
def last_by_torch(name):
    "The state that torch's recurrent layer returns."
    (x, *arrays), options = BY_NAME[name].given(make=torch.tensor)
    kind = BY_NAME[name].layer.upper()
    module = getattr(torch.nn, kind)(x.shape[2], arrays[1].shape[1], batch_first=True, **options).double()
    parameters = dict(zip((n for n, _ in module.named_parameters()), arrays, strict=False))
    start = tuple(s[None] for s in arrays[4:])
    start = (start if kind == "LSTM" else start[0],) if start else ()
    _, last = torch.func.functional_call(module, parameters, (x, *start))
    return [s[0].detach().numpy() for s in (last if kind == "LSTM" else (last,))]


def ends(module, case):
    "The last states are torch's."
    for ours, theirs in zip(flat(case.call(*case.given(), module)[2]), last_by_torch(case.name), strict=True):
        assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("case", RECURRENT, ids=lambda c: c.name)
def test_the_last_states_are_torchs(case):
    ends(layers, case)


def test_gradients_of_the_two_biases_are_two_arrays():
    for case in RECURRENT:
        y, pullback, _ = case.call(*case.given())
        grads = flat(pullback(np.ones_like(y)))
        assert not any(np.shares_memory(a, b) for i, a in enumerate(grads) for b in grads[:i])


@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_a_causal_query_sees_nothing_later(make):
    arrays = [normal(2, 5, 3) for _ in range(3)]
    later = [np.where(np.arange(5)[:, None] >= 3, normal(2, 5, 3), a) for a in arrays]
    y, pullback = layers.attention(*map(make, arrays), is_causal=True)
    z, _ = layers.attention(*map(make, later), is_causal=True)
    assert_close(to_numpy(z)[:, :3], to_numpy(y)[:, :3], rtol=1e-13)
    assert not np.allclose(to_numpy(z)[:, 3:], to_numpy(y)[:, 3:])
    dy = np.zeros((2, 5, 3))
    dy[:, :3] = 1
    assert all((to_numpy(g)[:, 3:] == 0).all() for g in pullback(make(dy)))


def test_a_masked_key_has_no_say():
    q, k, v = normal(3, 2), normal(4, 2), normal(4, 2)
    mask = np.array([True, False, True, True])
    y, pullback = layers.attention(q, k, v, mask=mask)
    assert_close(y, layers.attention(q, k[mask], v[mask])[0], rtol=1e-13)
    assert all((g[1] == 0).all() for g in pullback(np.ones_like(y))[1:])


# Adjoints


@st.composite
def geometries(draw):
    "A convolution that fits: sizes, kernel, stride, padding, dilation."
    pair = lambda low, high: (draw(st.integers(low, high)), draw(st.integers(low, high)))  # noqa: E731
    kernel, stride, padding, dilation = pair(1, 3), pair(1, 4), pair(0, 2), pair(1, 3)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = [max(1, s - 2 * p) + draw(st.integers(0, 4)) for s, p in zip(spans, padding, strict=True)]
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), *size)
    return shape, draw(st.integers(1, 3)), kernel, {"stride": stride, "padding": padding, "dilation": dilation}


def dot(a, b):
    return float(np.sum(a * b))


quick = settings(max_examples=60, deadline=None)  # the machine may be slow; the properties do not depend on it


@quick
@given(geometries(), st.integers(0, 99))
def test_convolution_of_any_geometry(geometry, seed):
    shape, outputs, kernel, options = geometry
    draw = np.random.default_rng(seed).normal
    x, weight = draw(size=shape), draw(size=(outputs, shape[1], *kernel))
    y, pullback = layers.conv2d(x, weight, **options)
    assert_close(y, F.conv2d(torch.tensor(x), torch.tensor(weight), **options), rtol=1e-9, atol=1e-12)
    dy = draw(size=y.shape)
    dx, dweight = pullback(dy)
    assert_close(dot(dx, x), dot(dy, y), rtol=1e-9, atol=1e-10)  # <K^T dy, x> = <dy, K x>, in x and in the weights
    assert_close(dot(dweight, weight), dot(dy, y), rtol=1e-9, atol=1e-10)
    other = draw(size=shape)
    assert_close(dot(dx, other), dot(dy, layers.conv2d(other, weight, **options)[0]), rtol=1e-9, atol=1e-10)


@quick
@given(geometries(), st.integers(0, 99), st.booleans())
def test_pooling_of_any_geometry(geometry, seed, include):
    (n, c, h, w), _, kernel, options = geometry
    size, draw = (n, c, h + 2, w + 2), np.random.default_rng(seed).normal  # room for the kernel without dilation
    stride, padding = options["stride"], tuple(min(p, k // 2) for p, k in zip(options["padding"], kernel, strict=True))
    x, other = draw(size=size), draw(size=size)
    for pool, theirs, more in (
        (layers.avg_pool2d, F.avg_pool2d, {"count_include_pad": include}),
        (layers.max_pool2d, F.max_pool2d, {}),
    ):
        y, pullback = pool(x, kernel, stride, padding, **more)
        assert_close(y, theirs(torch.tensor(x), kernel, stride, padding, **more), rtol=1e-9, atol=1e-12)
        dy = draw(size=y.shape)
        assert_close(dot(pullback(dy), x), dot(dy, y), rtol=1e-9, atol=1e-10)
    y, pullback = layers.avg_pool2d(x, kernel, stride, padding, include)
    dy = draw(size=y.shape)
    moved = layers.avg_pool2d(other, kernel, stride, padding, include)[0]
    assert_close(dot(pullback(dy), other), dot(dy, moved), rtol=1e-9, atol=1e-10)


@quick
@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 99))
def test_embedding_is_linear_in_its_weight(count, rows, seed):
    draw = np.random.default_rng(seed)
    indices, weight = draw.integers(0, rows, count), draw.normal(size=(rows, 3))
    y, pullback = layers.embedding(indices, weight)
    dy = draw.normal(size=y.shape)
    assert_close(dot(pullback(dy), weight), dot(dy, y), rtol=1e-9, atol=1e-11)


# sequential


def scaled(x, factor, shift=None):
    "A layer of a user: factor * x [+ shift]."
    y = factor * x if shift is None else factor * x + shift
    return y, lambda dy: (factor * dy, np.sum(dy * x, axis=0)) + (() if shift is None else (dy.sum(axis=0),))


def torchs_network():
    "A network of several kinds of layers, an input, and what torch makes of them."
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3, padding=1, bias=False),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(12, 4),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Linear(4, 2),
    ).double()
    x, dy = torch.tensor(normal(3, 2, 4, 4), requires_grad=True), normal(3, 2)
    y = net(x)
    y.backward(torch.tensor(dy))
    params = dict(net.named_parameters())
    arrays = ({k: p.detach().numpy().copy() for k, p in params.items()}, x.detach().numpy(), dy)
    return *arrays, [v.numpy() for v in (y.detach(), x.grad, *(p.grad for p in params.values()))]


NETWORK = torchs_network()


def is_torchs_network(module):
    "Output and gradients of a network by sequential are torch's, as often as one asks."
    net = module.sequential(
        partial(module.conv2d, padding=1),
        module.relu,
        partial(module.max_pool2d, kernel_size=2),
        module.flatten,
        module.linear,
        partial(module.leaky_relu, negative_slope=0.2),
        module.linear,
    )
    params, x, dy, theirs = NETWORK
    y, pullback = net(params, x)
    for _ in range(2):
        grads, dx = pullback(dy)
        assert list(grads) == list(params)
        for ours, expected in zip((y, dx, *grads.values()), theirs, strict=True):
            assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def test_sequential_is_torchs():
    is_torchs_network(layers)


def test_sequential_on_torch_tensors():
    net = layers.sequential(layers.linear, layers.tanh, layers.layer_norm)
    params = {"0.weight": normal(4, 3), "0.bias": normal(4), "2.weight": normal(4), "2.bias": normal(4)}
    x, dy = normal(5, 3), normal(5, 4)
    y, pullback = net(params, x)
    z, back = net({k: torch.tensor(p) for k, p in params.items()}, torch.tensor(x))
    assert_close(z, y, rtol=1e-12)
    (grads, dx), (others, dz) = pullback(dy), back(torch.tensor(dy))
    assert_close(dz, dx, rtol=1e-9, atol=1e-13)
    assert all(np.allclose(others[k], g, rtol=1e-9) for k, g in grads.items())


def takes_indices(module):
    "A network whose first layer takes indices and whose last is the user's own."
    net = module.sequential(module.embedding, module.flatten, scaled)
    indices = np.array([[0, 2], [2, 2]])
    params = {"2.factor": np.array([1.0, 2, 3, 4]), "0.weight": np.arange(6.0).reshape(3, 2)}
    y, pullback = net(params, indices)
    assert_close(y, params["0.weight"][indices].reshape(2, 4) * [1.0, 2, 3, 4])
    grads, dx = pullback(np.ones_like(y))
    assert dx is None
    assert list(grads) == ["2.factor", "0.weight"]
    assert_close(grads["2.factor"], params["0.weight"][indices].reshape(2, 4).sum(0))
    assert_close(grads["0.weight"], np.array([[1.0, 2], [0, 0], [7, 10]]))


def test_sequential_of_indices_and_of_a_users_layer():
    takes_indices(layers)


def takes_layers_with_more_results(module):
    "Running statistics and states are left aside."
    net = module.sequential(module.rnn, module.flatten, module.batch_norm)
    x, *weights = BY_NAME["rnn, (3, 4, 2, 3)"].arrays
    params = {f"0.{k}": w for k, w in zip(WEIGHTS, weights, strict=True)}
    params |= {"2.weight": np.arange(12.0), "2.bias": np.ones(12)}
    y, pullback = net(params, x)
    h = module.rnn(x, *weights)[0].reshape(3, 12)
    assert_close(y, module.batch_norm(h, params["2.weight"], params["2.bias"])[0])
    assert list(pullback(np.ones_like(y))[0]) == list(params)


def test_sequential_of_batch_norm_and_of_recurrent_layers():
    takes_layers_with_more_results(layers)


def has_two_modes(module):
    "`training` goes to layers that have it, unless a partial has decided; batch norm also needs statistics."
    x, params = np.arange(12.0).reshape(3, 4) ** 2, {"0.weight": np.ones(4), "0.bias": np.zeros(4)}
    stats = {"running_mean": np.full(4, 2.0), "running_var": np.full(4, 3.0)}
    by_batch, by_stats = module.batch_norm(x, *params.values())[0], (x - 2) / np.sqrt(3 + 1e-5)
    for options, expected in (  # of a partial; in training, later
        ({}, (by_batch, by_batch)),
        (stats, (by_batch, by_stats)),
        (stats | {"training": True}, (by_batch, by_batch)),
        (stats | {"training": False}, (by_stats, by_stats)),
    ):
        net = module.sequential(partial(module.batch_norm, **options))
        for training, y in zip((True, False), expected, strict=True):
            assert_close(net(params, x, training=training)[0], y, rtol=1e-12, atol=1e-12)
        assert_close(net(params, x)[0], expected[0], rtol=1e-12, atol=1e-12)
    told = module.sequential(lambda x, training=None: (x + training, lambda dy: dy), module.relu)
    assert [told({}, x, training)[0][0, 0] for training in (True, False)] == [1.0, 0.0]


def test_sequential_has_two_modes():
    has_two_modes(layers)


two = {"0.weight": np.ones((2, 3)), "2.weight": np.ones((1, 2)), "2.bias": np.ones(1)}
BAD_NETWORKS = [
    ({"0.weight": two["0.weight"]}, ValueError, r"^params must have 2\.weight, got 0\.weight$"),
    ({}, ValueError, r"^params must have 0\.weight, 2\.weight, got none$"),
    (two | {"1.weight": np.ones(2)}, ValueError, r"^params must be of .*2\.bias, got 1\.weight too$"),
    (two | {"weight": np.ones(2), 3: np.ones(2)}, ValueError, r"^params must be of 0\.weight, .*, got weight, 3 too$"),
    ([np.ones(2)], TypeError, "^params must be a dict of arrays by name, got list"),
    (two | {"0.weight": np.ones((2, 4))}, ValueError, r"(?s)^weight must have shape \(outputs, 3\), got .*in layer 0"),
    (two | {"2.weight": [1.0]}, TypeError, r"^params must be arrays .*got 2\.weight \(list\); options .* functools\."),
    (two | {"2.bias": np.float64(1)}, TypeError, r"^params must be arrays .*got 2\.bias \(float64\)"),
    (two | {"2.bias": None}, TypeError, r"^params must be arrays .*got 2\.bias \(NoneType\)"),
    (two | {"2.weight": torch.ones(1, 2)}, TypeError, r"(?s)^weight must be of the library of x.*in layer 2"),
]
OPTIONS = [  # layer, options that somebody put into params, what is named
    ("leaky_relu", {"0.negative_slope": 0.5}, r"0\.negative_slope \(float\)"),
    ("max_pool2d", {"0.kernel_size": 2}, r"0\.kernel_size \(int\)"),
    ("gelu", {"0.approximate": "tanh"}, r"0\.approximate \(str\)"),
    ("batch_norm", {"0.running_mean": np.ones(2)}, r"0\.running_mean \(ndarray\)"),
    ("batch_norm", {"0.running_var": np.ones(2)}, r"0\.running_var \(ndarray\)"),
]
NO_LAYERS = [  # what returns no pullback, what is named
    (np.tanh, "layer 1 must return .y, pullback., got ndarray"),
    (lambda x: np.maximum(x, 0), "layer 1 must return .y, pullback., got ndarray"),
    (softmax, "layer 1 must return .y, pullback., got ndarray"),
    (lambda x: (x, x), "layer 1 must return .y, pullback., got tuple"),
    (lambda x: (x, x, abs), "layer 1 must return .y, pullback., got tuple"),
    (lambda x: (), "layer 1 must return .y, pullback., got tuple"),
    (lambda x: (x,), "layer 1 must return .y, pullback., got tuple"),
    (lambda x: [x, abs], "layer 1 must return .y, pullback., got list"),
    (lambda x: None, "layer 1 must return .y, pullback., got NoneType"),
]


def refuses_networks(module):
    "What is no network, and parameters that do not fit one."
    for params, error, message in BAD_NETWORKS:
        with pytest.raises(error, match=message):
            module.sequential(module.linear, module.relu, module.linear)(params, np.ones((4, 3)))
    for bad in [(), (3,), (module.relu, None)]:
        with pytest.raises(TypeError, match=r"^layers must be one or more functions \(x, \*params\)"):
            module.sequential(*bad)
    with pytest.raises(ValueError, match="^params must be of no name, got 0.weight too$"):
        module.sequential(module.relu)({"0.weight": np.ones(2)}, np.ones((4, 3)))
    for name, options, what in OPTIONS:
        needed = {"0.weight": np.ones(2), "0.bias": np.ones(2)} if name == "batch_norm" else {}
        with pytest.raises(TypeError, match=rf"^params must be arrays .*got {what}; .* go in by functools\.partial"):
            module.sequential(getattr(module, name))(needed | options, np.ones((3, 2)))
    for layer, message in NO_LAYERS:
        with pytest.raises(TypeError, match=f"^{message}$"):
            module.sequential(module.relu, layer)({}, np.ones((2, 3)))
    with pytest.raises(TypeError, match=r"^layer 1 must be a function \(x, \*params\).*built-in method relu"):
        module.sequential(module.relu, torch.relu)
    refuses_arguments_without_a_gradient(module)


def refuses_arguments_without_a_gradient(module):
    "A mask; and a layer that forgot its parameter, which must not pass for one that took indices."
    x = np.ones((2, 2))
    params = {"0.key": x, "0.value": x, "0.mask": x > 0}
    forgot = lambda x, shift: (x + shift, lambda dy: dy)  # noqa: E731
    embedded = module.sequential(module.embedding, forgot)
    for net, taken, inputs in [
        (module.sequential(module.attention), params, x),
        (module.sequential(forgot), {"0.shift": x}, x),
        (embedded, {"0.weight": x, "1.shift": x}, np.array([1, 0])),
    ]:
        y, pullback = net(taken, inputs)
        with pytest.raises(ValueError, match="^params must be those that have a gradient"):
            pullback(y)
    with pytest.raises(ValueError, match="^params must be those that have a gradient, 3 with the input, got shift$"):
        module.sequential(lambda x, shift: (x + shift, lambda dy: (dy, dy, dy)))({"0.shift": x}, x)[1](x)
    y, pullback = module.sequential(lambda x: (1.0 * x, lambda dy: dy))({}, np.array([1, 0]))
    assert pullback(y)[1] is y  # a layer of whole numbers may return something for them


def test_sequential_names_what_is_wrong():
    refuses_networks(layers)


# Bad input

f2, f3, f4 = np.ones((3, 4)), np.ones((2, 3, 4)), np.ones((2, 3, 6, 6))
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
cells = {c: dict(zip(WEIGHTS, BY_NAME[f"{c}, (3, 4, 2, 3)"].arrays[1:], strict=True)) for c in ("rnn", "lstm", "gru")}
GOOD = {  # for each layer valid arguments: array arguments first, as many as ARRAYS says
    **{name: {"x": f2} for name, _ in ACTIVATIONS},
    "flatten": {"x": f2},
    "linear": {"x": f2, "weight": np.ones((5, 4)), "bias": np.ones(5)},
    "conv2d": {"x": f4, "weight": np.ones((2, 3, 3, 3)), "bias": np.ones(2)},
    "max_pool2d": {"x": f4, "kernel_size": 2},
    "avg_pool2d": {"x": f4, "kernel_size": 2},
    "batch_norm": {"x": f2, "weight": np.ones(4), "bias": np.ones(4)}
    | {k: np.ones(4) for k in ("running_mean", "running_var")},
    "layer_norm": {"x": f3, "weight": np.ones((3, 4)), "bias": np.ones((3, 4))},
    "embedding": {"indices": np.array([[0, 2]]), "weight": np.ones((3, 4))},
    **{name: {"x": np.ones((5, 4, 2))} | weights | {"state": np.ones((5, 3))} for name, weights in cells.items()},
    "attention": {"query": np.ones((2, 4, 3)), "key": np.ones((2, 5, 3)), "value": np.ones((2, 5, 2))},
}
GOOD["lstm"]["state"] = (np.ones((5, 3)), np.ones((5, 3)))
BAD = [  # layer, wrong arguments, error, message
    ("leaky_relu", {"negative_slope": "a"}, TypeError, "^negative_slope must be a number, got str"),
    ("leaky_relu", {"negative_slope": np.inf}, ValueError, "^negative_slope must be finite, got inf"),
    ("elu", {"alpha": None}, TypeError, "^alpha must be a number, got NoneType"),
    ("elu", {"alpha": np.nan}, ValueError, "^alpha must be finite, got nan"),
    ("gelu", {"approximate": "exact"}, ValueError, "^approximate must be one of 'none', 'tanh', got 'exact'"),
    ("gelu", {"x": array_api_strict.ones(3)}, TypeError, "^x must be a NumPy array or a torch tensor .*, got Array"),
    ("softplus", {"beta": 0}, ValueError, "^beta must be greater than 0, got 0"),
    ("softplus", {"beta": True}, TypeError, "^beta must be a number, got bool"),
    ("softplus", {"threshold": np.nan}, ValueError, "^threshold must be finite, got nan"),
    ("flatten", {"x": np.ones(3)}, ValueError, r"^x must have two axes or more.*got shape \(3,\)"),
    ("linear", {"x": np.array(1.0)}, ValueError, r"^x must have one axis or more.*got shape \(\)"),
    ("linear", {"weight": np.ones((5, 3))}, ValueError, r"^weight must have shape \(outputs, 4\), got \(5, 3\)"),
    ("linear", {"weight": np.ones(4)}, ValueError, r"^weight must have shape \(outputs, 4\), got \(4,\)"),
    ("linear", {"bias": np.ones(4)}, ValueError, r"^bias must have shape \(5\), got \(4,\)"),
    ("linear", {"bias": np.ones((1, 5))}, ValueError, r"^bias must have shape \(5\), got \(1, 5\)"),
    ("linear", {"weight": None}, TypeError, "^weight must be an array"),
    ("conv2d", {"x": f3}, ValueError, r"^x must have shape \(n, channels, height, width\), got \(2, 3, 4\)"),
    (
        "conv2d",
        {"weight": np.ones((2, 4, 3, 3))},
        ValueError,
        r"^weight must have shape \(outputs, 3, .*got \(2, 4, 3, 3\)",
    ),
    ("conv2d", {"weight": np.ones((2, 3, 3))}, ValueError, r"^weight must have shape \(outputs, 3, kernel height"),
    ("conv2d", {"bias": np.ones(3)}, ValueError, r"^bias must have shape \(2\), got \(3,\)"),
    ("conv2d", {"weight": None}, TypeError, "^weight must be a NumPy array"),
    ("conv2d", {"stride": 0}, ValueError, "^stride must be 1 or more, got 0"),
    ("conv2d", {"stride": (1, 0)}, ValueError, r"^stride must be 1 or more, got \(1, 0\)"),
    ("conv2d", {"stride": 1.5}, TypeError, "^stride must be a whole number or a pair of them, got 1.5"),
    ("conv2d", {"stride": (1, 2, 3)}, TypeError, "^stride must be a whole number or a pair"),
    ("conv2d", {"stride": None}, TypeError, "^stride must be a whole number or a pair of them, got None"),
    ("conv2d", {"padding": -1}, ValueError, "^padding must be 0 or more, got -1"),
    ("conv2d", {"padding": "same"}, TypeError, "^padding must be a whole number or a pair of them, got 'same'"),
    ("conv2d", {"padding": (True, 1)}, TypeError, "^padding must be a whole number"),
    ("conv2d", {"dilation": 0}, ValueError, "^dilation must be 1 or more, got 0"),
    ("conv2d", {"dilation": (1.0, 1)}, TypeError, "^dilation must be a whole number"),
    (
        "conv2d",
        {"x": f4[:, :, :2]},
        ValueError,
        r"^x with its padding is 2 high and 6 wide.*3 and 3; got shape \(2, 3, 2, 6\)",
    ),
    ("conv2d", {"dilation": (1, 3)}, ValueError, "^x with its padding is 6 high and 6 wide.* 3 and 7"),
    *(
        (pool, *bad)
        for pool in ("max_pool2d", "avg_pool2d")
        for bad in [
            ({"x": f3}, ValueError, r"^x must have shape \(n, channels, height, width\), got \(2, 3, 4\)"),
            ({"kernel_size": 0}, ValueError, "^kernel_size must be 1 or more, got 0"),
            ({"kernel_size": None}, TypeError, "^kernel_size must be a whole number or a pair"),
            ({"kernel_size": (2,)}, TypeError, r"^kernel_size must be a whole number or a pair of them, got \(2,\)"),
            ({"kernel_size": (2, 7)}, ValueError, "^x with its padding is 6 high and 6 wide.* 2 and 7"),
            ({"stride": 0}, ValueError, "^stride must be 1 or more, got 0"),
            ({"stride": 2.0}, TypeError, "^stride must be a whole number"),
            ({"padding": -1}, ValueError, "^padding must be 0 or more, got -1"),
            ({"padding": 2}, ValueError, r"^padding must be at most half of kernel_size, \(2, 2\), got \(2, 2\)"),
            ({"padding": (0, 1), "kernel_size": (2, 1)}, ValueError, "^padding must be at most half"),
            ({"padding": 0.5}, TypeError, "^padding must be a whole number"),
        ]
    ),
    ("batch_norm", {"x": f3}, ValueError, r"^x must have shape \(n, channels\) or .*, got \(2, 3, 4\)"),
    ("batch_norm", {"weight": np.ones(3)}, ValueError, r"^weight must have shape \(4\), got \(3,\)"),
    ("batch_norm", {"bias": np.ones((4, 1))}, ValueError, r"^bias must have shape \(4\), got \(4, 1\)"),
    ("batch_norm", {"running_mean": np.ones(3)}, ValueError, r"^running_mean must have shape \(4\), got \(3,\)"),
    ("batch_norm", {"running_var": np.ones(1)}, ValueError, r"^running_var must have shape \(4\), got \(1,\)"),
    ("batch_norm", {"running_mean": None}, ValueError, "^running_mean must be given if .*got None"),
    ("batch_norm", {"running_var": None}, ValueError, "^running_var must be given if .*got None"),
    *(
        (
            "batch_norm",
            {"running_mean": None, "running_var": None, "training": False, "x": x},
            ValueError,
            "^running_mean must be given",
        )
        for x in (f2, f2[:1])
    ),
    ("batch_norm", {"x": f2[:1]}, ValueError, r"^x must hold more than one number of each channel.*\(1, 4\)"),
    ("batch_norm", {"x": np.ones((1, 4, 1, 1))}, ValueError, r"^x must hold more than one number of each channel"),
    ("batch_norm", {"momentum": 1.1}, ValueError, "^momentum must be from 0 to 1, got 1.1"),
    ("batch_norm", {"momentum": -0.1}, ValueError, "^momentum must be from 0 to 1, got -0.1"),
    ("batch_norm", {"momentum": None}, TypeError, "^momentum must be a number"),
    ("batch_norm", {"eps": 0.0}, ValueError, "^eps must be greater than 0, got 0.0"),
    ("batch_norm", {"eps": "1"}, TypeError, "^eps must be a number, got str"),
    (
        "layer_norm",
        {"weight": np.ones(3)},
        ValueError,
        r"^weight must have the last axes of x, \(2, 3, 4\), got shape \(3,\)",
    ),
    ("layer_norm", {"weight": np.ones((1, 2, 3, 4))}, ValueError, "^weight must have the last axes of x"),
    ("layer_norm", {"weight": np.array(1.0)}, ValueError, r"^weight must have the last axes of x.*got shape \(\)"),
    ("layer_norm", {"bias": np.ones(4)}, ValueError, r"^bias must have the shape of weight, \(3, 4\), got \(4,\)"),
    ("layer_norm", {"eps": 0}, ValueError, "^eps must be greater than 0, got 0"),
    ("layer_norm", {"eps": None}, TypeError, "^eps must be a number"),
    ("embedding", {"indices": np.array([0, 3])}, ValueError, "^indices must hold rows of weight, 0 to 2, got 3"),
    ("embedding", {"indices": np.array([-1, 0])}, ValueError, "^indices must hold rows of weight, 0 to 2, got -1"),
    (
        "embedding",
        {"indices": np.array([1.0])},
        TypeError,
        "^indices must be a NumPy array of whole numbers, got float64",
    ),
    (
        "embedding",
        {"indices": np.array([True])},
        TypeError,
        "^indices must be a NumPy array of whole numbers, got bool",
    ),
    ("embedding", {"indices": [1]}, TypeError, "^indices must be a NumPy array of whole numbers, got list"),
    (
        "embedding",
        {"indices": torch.tensor([1])},
        TypeError,
        "^indices must be a NumPy array of whole numbers, got torch.int64",
    ),
    ("embedding", {"indices": np.ma.array([1])}, TypeError, "^indices must not be a masked array"),
    ("embedding", {"indices": np.array([1], ">i8")}, TypeError, "^indices must have the byte order .*got >i8"),
    ("embedding", {"indices": np.array([], int)}, ValueError, r"^indices must not be empty, got shape \(0,\)"),
    ("embedding", {"weight": np.ones(3)}, ValueError, r"^weight must have shape \(rows, features\), got \(3,\)"),
    *(
        (name, *bad)
        for name, gates in (("rnn", 1), ("lstm", 4), ("gru", 3))
        for bad in [
            ({"x": f2}, ValueError, r"^x must have shape \(n, time, inputs\), got \(3, 4\)"),
            (
                {"weight_ih": np.ones((gates * 3, 5))},
                ValueError,
                rf"^weight_ih must have shape \({gates * 3}, 2\), got",
            ),
            ({"weight_ih": np.ones((gates * 3 + 1, 2))}, ValueError, rf"^weight_ih must have shape \({gates * 3}, 2\)"),
            (
                {"weight_hh": np.ones(3)},
                ValueError,
                rf"^weight_hh must have shape \({gates} \* hidden, hidden\), got \(3,\)",
            ),
            (
                {"weight_hh": np.ones((gates * 3 + 1, 3))},
                ValueError,
                rf"^weight_hh must have shape \({gates * 3}, 3\), got",
            ),
            ({"bias_ih": np.ones(7)}, ValueError, rf"^bias_ih must have shape \({gates * 3}\), got \(7,\)"),
            ({"bias_hh": np.ones((gates * 3, 1))}, ValueError, rf"^bias_hh must have shape \({gates * 3}\), got"),
        ]
    ),
    *(
        (name, {"state": np.ones((3, 5))}, ValueError, r"^state must have shape \(5, 3\), got \(3, 5\)")
        for name in ("rnn", "gru")
    ),
    *(
        (name, {"state": np.ones((1, 5, 3))}, ValueError, r"^state must have shape \(5, 3\), got")
        for name in ("rnn", "gru")
    ),
    *((name, {"state": (np.ones((5, 3)),)}, TypeError, "^state must be a NumPy array") for name in ("rnn", "gru")),
    ("lstm", {"state": np.ones((2, 5, 3))}, TypeError, r"^state must be a pair \(h, c\) of arrays, got ndarray"),
    ("lstm", {"state": (np.ones((5, 3)),)}, TypeError, r"^state must be a pair \(h, c\) of arrays, got tuple"),
    ("lstm", {"state": (np.ones((5, 3)), np.ones(3))}, ValueError, r"^state\[1\] must have shape \(5, 3\), got \(3,\)"),
    (
        "lstm",
        {"state": [np.ones((5, 2)), np.ones((5, 3))]},
        ValueError,
        r"^state\[0\] must have shape \(5, 3\), got \(5, 2\)",
    ),
    ("lstm", {"state": (None, np.ones((5, 3)))}, TypeError, r"^state\[0\] must be a NumPy array"),
    ("lstm", {"state": (np.ones((5, 3)), [1.0])}, TypeError, r"^state\[1\] must be a NumPy array"),
    ("rnn", {"nonlinearity": "sigmoid"}, ValueError, "^nonlinearity must be one of 'tanh', 'relu', got 'sigmoid'"),
    ("attention", {"query": np.ones(3)}, ValueError, r"^query must have shape \(…, queries, features\), got \(3,\)"),
    ("attention", {"query": np.ones((4, 3))}, ValueError, r"^key must have shape \(keys, 3\), got \(2, 5, 3\)"),
    ("attention", {"key": np.ones((2, 5, 4))}, ValueError, r"^key must have shape \(2, keys, 3\), got \(2, 5, 4\)"),
    ("attention", {"key": np.ones((1, 5, 3))}, ValueError, r"^key must have shape \(2, keys, 3\), got \(1, 5, 3\)"),
    ("attention", {"value": np.ones((2, 4, 2))}, ValueError, r"^value must have shape \(2, 5, value features\), got"),
    (
        "attention",
        {"mask": np.ones((4, 5))},
        TypeError,
        "^mask must be boolean, True where a query may look, got float64",
    ),
    ("attention", {"mask": np.ma.array(np.ones((4, 5)) > 0)}, TypeError, "^mask must not be a masked array"),
    ("attention", {"mask": [[True]]}, TypeError, "^mask must be an array"),
    ("attention", {"mask": torch.ones(4, 5) > 0}, TypeError, "^mask must be of the library of query"),
    (
        "attention",
        {"mask": np.ones((5, 4)) > 0},
        ValueError,
        r"^mask must broadcast to \(2, 4, 5\), got shape \(5, 4\)",
    ),
    ("attention", {"mask": np.ones((1, 2, 4, 5)) > 0}, ValueError, r"^mask must broadcast to \(2, 4, 5\)"),
    ("attention", {"mask": np.array(True)}, ValueError, r"^mask must broadcast to \(2, 4, 5\), got shape \(\)"),
    ("attention", {"mask": np.arange(4)[:, None] > 0}, ValueError, "^mask must let every query look at one key"),
    ("attention", {"mask": np.arange(5) > 0, "is_causal": True}, ValueError, "^mask must let every query look at one"),
]
for name, arguments in GOOD.items():
    first = next(iter(arguments))
    for key, x in arguments.items():
        if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
            continue
        kind = "a NumPy array" if name in NUMPY_ONLY else "an array"
        BAD += [
            (name, {key: x.tolist()}, TypeError, f"^{key} must be {kind}.*got list"),
            (name, {key: x.astype(int)}, TypeError, f"^{key} must be floating point, got int64"),
            (name, {key: x[:0]}, ValueError, f"^{key} must not be empty, got shape"),
        ]
        if key != first or name == "embedding":
            BAD += [(name, {key: torch.tensor(x)}, TypeError, f"^{key} must be (of the library of|a NumPy array)")]
        if key != first and name != "embedding":
            BAD += [
                (name, {key: x.astype("f4")}, TypeError, f"^{key} must have the dtype of {first}, float64, got float32")
            ]
        BAD += [
            (name, {key: np.ma.array(x)}, TypeError, f"^{key} must not be a masked array"),
            (name, {key: x.astype(">f8")}, TypeError, f"^{key} must have the byte order of this machine, got >f8"),
        ]
    if name in NUMPY_ONLY - {"embedding"}:
        BAD += [(name, {"x": torch.tensor(arguments["x"])}, TypeError, f"^x must be a NumPy array.*{name}.*got Tensor")]


def refuses(module, name, wrong, error, message):
    with pytest.raises(error, match=message):
        getattr(module, name)(**GOOD[name] | wrong)


@pytest.mark.parametrize(("name", "wrong", "error", "message"), BAD)
def test_bad_input_names_the_argument(name, wrong, error, message):
    refuses(layers, name, wrong, error, message)


def bad_dy(y):
    "Gradients that do not fit an output."
    return [
        (y[:-1] if len(y) > 1 else np.concatenate([y, y]), ValueError, r"^dy must have the shape of y, \("),
        (y[None], ValueError, r"^dy must have the shape of y, \("),
        (y.astype("f4"), TypeError, "^dy must have the dtype of y, float64, got float32"),
        (y.astype(">f8"), TypeError, "^dy must have the byte order of this machine"),
        (np.ma.array(y), TypeError, "^dy must not be a masked array"),
        (y.tolist(), TypeError, "^dy must be an array"),
        (torch.tensor(np.array(y)), TypeError, "^dy must be of the library of y"),
        (None, TypeError, "^dy must be an array"),
    ]


def refuses_dy(module, name):
    y, pullback, *_ = getattr(module, name)(**GOOD[name])
    for dy, error, message in bad_dy(y):
        with pytest.raises(error, match=message):
            pullback(dy)


@pytest.mark.parametrize("name", GOOD)
def test_a_bad_gradient_is_refused(name):
    refuses_dy(layers, name)


def test_every_argument_has_a_bad_value():
    refused = {(name, key) for name, wrong, *_ in BAD for key in wrong}
    for name in GOOD:
        for key in inspect.signature(getattr(layers, name)).parameters:
            assert (name, key) in refused or key in ("count_include_pad", "training", "is_causal"), f"{name}: {key}"
