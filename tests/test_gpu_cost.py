"""Counted operations and bytes, devices, the roofline, and timing by a device's own clock (a pretended one)."""

import math
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backends import no_gpu
from scipy import special
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count

from dlopt_course import gpu, layers, optim
from dlopt_course.losses import softmax


def counted_by_torch(f, *shapes, backward=False, device="cpu"):
    "Operations in matrix products, convolutions and attention, as torch counts them: of f, or of its gradients."
    arrays = [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]
    with FlopCounterMode(display=False) as forward:
        y = f(*arrays)
    if not backward:
        return forward.get_total_flops()
    with FlopCounterMode(display=False) as back:
        y.sum().backward()
    return back.get_total_flops()


PRODUCTS = [  # name, shapes, options, the same in torch
    ("linear", ((6, 4), (5, 4)), {}, F.linear),
    ("linear", ((2, 3, 4), (5, 4)), {}, F.linear),
    ("conv2d", ((2, 3, 9, 8), (4, 3, 3, 2)), {}, F.conv2d),
    ("conv2d", ((2, 3, 9, 8), (4, 3, 3, 3)), {"stride": 2, "padding": (1, 0), "dilation": (1, 2)}, F.conv2d),
]


def has_torchs_products(module, name, shapes, options, theirs):
    "And the bias adds one operation to each output, and to each dy that is summed."
    outputs = theirs(*(torch.ones(s) for s in shapes), **options).numel()
    for backward in (False, True):
        count = module.cost_of(name, *shapes, backward=backward, **options).operations
        assert count == counted_by_torch(lambda *a: theirs(*a, **options), *shapes, backward=backward)
        biased = module.cost_of(name, *shapes, (shapes[1][0],), backward=backward, **options).operations
        assert biased == count + outputs


def has_torchs_attention(module):
    "(batch, heads, tokens, features): products from torch, the rest from `counts_the_formula`."
    q, k, v = (2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)
    scores, y = 2 * 3 * 5 * 7, 2 * 3 * 5 * 4
    plain = lambda q, k, v: (q @ k.mT).softmax(-1) @ v  # noqa: E731
    for fused in (False, True):
        forward = module.cost_of("attention", q, k, v, fused=fused).operations
        assert forward == counted_by_torch(plain, q, k, v) + 6 * scores
    back = module.cost_of("attention", q, k, v, backward=True).operations
    assert back == counted_by_torch(plain, q, k, v, backward=True) + 5 * scores
    theirs = sdpa_backward_flop_count(q, q, k, v)  # as FlopCounterMode counts the fused kernel of a GPU
    fused = module.cost_of("attention", q, k, v, backward=True, fused=True).operations
    assert fused == theirs + 6 * scores + 2 * y


class Tally:
    "Operations on arrays of at least `size` numbers; what is done once a row or a channel is less."

    def __init__(self, size):
        self.size, self.count = size, 0

    def numbers(self, value):
        return Counted(np.asarray(value, np.float64), self)

    def done(self, value, size=None):
        size = value.size if size is None else size
        self.count += size if size >= self.size else 0
        return Counted(value, self)


def value_of(x):
    return x.value if isinstance(x, Counted) else x


class Counted:
    "An array whose every operation is counted, one for each number of the result; a sum counts its terms."

    def __init__(self, value, tally):
        self.value, self.tally = value, tally

    def apply(self, f, *others):
        return self.tally.done(np.asarray(f(self.value, *map(value_of, others))))

    __array_ufunc__ = None  # an array on the left lets this one compute

    def __getattr__(self, name):  # exp, tanh, sqrt, sign, …
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda: self.apply(getattr(np, name))

    def sum(self, axis=-1):
        return self.tally.done(self.value.sum(axis=axis, keepdims=True), self.value.size)

    def max(self, axis=-1):
        return self.tally.done(self.value.max(axis=axis, keepdims=True), self.value.size)

    def where(self, a, b):
        return self.apply(lambda on, x, y: np.where(on, x, y), a, b)


def _operator(name, f):
    setattr(Counted, name, lambda self, *others: self.apply(f, *others))


for _name, _f in {
    "__add__": lambda a, b: a + b,
    "__radd__": lambda a, b: b + a,
    "__sub__": lambda a, b: a - b,
    "__rsub__": lambda a, b: b - a,
    "__mul__": lambda a, b: a * b,
    "__rmul__": lambda a, b: b * a,
    "__truediv__": lambda a, b: a / b,
    "__rtruediv__": lambda a, b: b / a,
    "__neg__": lambda a: -a,
    "__gt__": lambda a, b: a > b,
    "cdf": special.ndtr,
    "maximum": np.maximum,
}.items():
    _operator(_name, _f)

A, B = math.sqrt(2 / math.pi), 0.044715


def sigmoid(x):
    return 1 / (1 + (-x).exp())


def smooth_step(x):
    "x squared, the tanh and the share of GELU's approximation: eight operations."
    square = x * x
    t = (A * (x + B * (square * x))).tanh()
    return square, t, (1 + t) * 0.5


def gelu_tanh_back(x, dy):
    square, t, p = smooth_step(x)
    return dy * (p + (A / 2) * (x * (1 - t * t) * (1 + 3 * B * square)))


def silu_back(x, dy):
    s = sigmoid(x)
    return dy * (s * (1 + x * (1 - s)))


def elu_back(x, dy):
    return dy * (x > 0).where(1.0, 0.7 * x.exp())


def softplus(x):
    z = 1.3 * x
    return (z > 2).where(x, z.exp().log1p() / 1.3)


def softplus_back(x, dy):
    z = 1.3 * x
    return dy * (z > 2).where(1.0, sigmoid(z))


def softmax_formula(x):
    grown = (x - x.max()).exp()
    return grown / grown.sum()


def through_softmax(y, dy):
    return y * (dy - (dy * y).sum())


ELEMENTWISE = {  # options; forward from x; back from x (or y, where named so) and dy
    "relu": ({}, lambda x: x.maximum(0), lambda x, dy: (x > 0).where(dy, 0)),
    "leaky_relu": ({}, lambda x: x.maximum(0.01 * x), lambda x, dy: (x > 0).where(dy, 0.01 * dy)),
    "sigmoid": ({}, sigmoid, lambda y, dy: dy * (y * (1 - y))),
    "tanh": ({}, lambda x: x.tanh(), lambda y, dy: dy * (1 - y * y)),
    "gelu": (
        {},
        lambda x: x * x.cdf(),
        lambda x, dy: dy * (x.cdf() + (2 * math.pi) ** -0.5 * (x * (-0.5 * (x * x)).exp())),
    ),
    "gelu_tanh": ({"approximate": "tanh"}, lambda x: x * smooth_step(x)[2], gelu_tanh_back),
    "silu": ({}, lambda x: x * sigmoid(x), silu_back),
    "elu": ({"alpha": 0.7}, lambda x: (x > 0).where(x, 0.7 * x.expm1()), elu_back),
    "softplus": ({"beta": 1.3, "threshold": 2.0}, softplus, softplus_back),
    "softmax": ({}, softmax_formula, through_softmax),
}


def layer_of(name):
    "The layer, and its gradient where it is a plain function."
    if name != "softmax":
        return getattr(layers, name.removesuffix("_tanh"))

    def layer(x):
        y = softmax(x)
        p = torch.tensor(x, requires_grad=True)
        return y, lambda dy: torch.autograd.grad(torch.softmax(p, -1), p, torch.tensor(dy))[0].numpy()

    return layer


def counts_the_formula(module, name):
    "A formula that gives what the layer gives takes as many operations as the table says."
    options, forward, back = ELEMENTWISE[name]
    x, dy = np.random.default_rng(1).standard_normal((2, 5, 6))
    y, pullback = layer_of(name)(x, **options)
    tally = Tally(x.size)
    np.testing.assert_allclose(forward(tally.numbers(x)).value, y, rtol=1e-12)
    cost = module.cost_of(name, x.shape)
    assert cost == (tally.count, 4 * x.size, 4 * x.size)
    tally = Tally(x.size)
    given = y if back.__code__.co_varnames[0] == "y" else x
    np.testing.assert_allclose(back(tally.numbers(given), tally.numbers(dy)).value, pullback(dy), rtol=1e-12)
    assert module.cost_of(name, x.shape, backward=True) == (tally.count, 8 * x.size, 4 * x.size)


def counts_norms(module):
    "Standardised, and back, over the samples of each channel and over the features of each sample."
    rng = np.random.default_rng(2)
    for name, axis in (("batch_norm", 0), ("layer_norm", -1)):
        x, dy, (weight, bias) = rng.standard_normal((5, 6)), rng.standard_normal((5, 6)), rng.standard_normal((2, 6))
        y, pullback = getattr(layers, name)(x, weight, bias)[:2]
        tally, count = Tally(x.size), x.shape[axis]
        X, dY = tally.numbers(x), tally.numbers(dy)
        away = X - X.sum(axis) / count
        deviation = ((away * away).sum(axis) / count + 1e-5).sqrt()
        np.testing.assert_allclose((weight * (away / deviation) + bias).value, y, rtol=1e-12)
        groups = x.size // count
        assert module.cost_of(name, (5, 6), (6,), (6,)) == (tally.count, 4 * (30 + 12), 4 * (30 + 2 * groups))
        mean, tally.count = X.value.mean(axis, keepdims=True), 0
        u, du = (X - mean) / deviation, weight * dY
        dweight, dbias = (dY * u).sum(0), dY.sum(0)
        dx = (du - du.sum(axis) / count - u * ((du * u).sum(axis) / count)) / deviation
        for ours, theirs in zip((dx, dweight, dbias), pullback(dy), strict=True):
            np.testing.assert_allclose(ours.value.reshape(theirs.shape), theirs, rtol=1e-9, atol=1e-12)
        back = module.cost_of(name, (5, 6), (6,), (6,), backward=True)
        assert back == (tally.count, 4 * (60 + 6 + 2 * groups), 4 * (30 + 12))
    image = module.cost_of("batch_norm", (2, 3, 4, 5), (3,), (3,))
    assert image == (7 * 120, 4 * 126, 4 * 126)


def unrolled(name, x, weight_ih, weight_hh, bias_ih, bias_hh):
    "The products of a recurrent layer, step by step, in torch; a step of cells is not counted by it."
    h = torch.zeros(len(x), weight_hh.shape[1])
    for t in range(x.shape[1]):
        a = F.linear(x[:, t], weight_ih) + F.linear(h, weight_hh)
        h = sum(a.chunk(len(weight_hh) // weight_hh.shape[1], dim=1))
    return h


GATES = {"rnn": 1, "lstm": 4, "gru": 3}
KEPT = {"rnn": 0, "lstm": 5, "gru": 4}


def has_recurrent_products(module, name):
    "Those of torch; the first step's product with a state of zeros, whose gradient torch leaves out, is counted too."
    n, steps, inputs, hidden, gates = 2, 3, 5, 4, GATES[name]
    shapes = (
        (n, steps, inputs),
        (gates * hidden, inputs),
        (gates * hidden, hidden),
        (gates * hidden,),
        (gates * hidden,),
    )
    forward, back = (module.cost_of(name, *shapes, backward=b) for b in (False, True))
    units, matrices = n * steps * hidden, gates * hidden * (inputs + hidden)
    products = counted_by_torch(lambda *a: unrolled(name, *a), *shapes)
    assert forward.operations == products + units * STEPS[name][0]
    first = 2 * n * gates * hidden * hidden  # dh of the zeros
    assert back.operations - units * STEPS[name][1] == 2 * products
    assert counted_by_torch(lambda *a: unrolled(name, *a), *shapes, backward=True) == 2 * products - first
    biases = 2 * gates * hidden
    assert forward[1:] == (4 * (30 + matrices + biases), 4 * units * (1 + KEPT[name]))
    assert back[1:] == (4 * (30 + matrices + units * (2 + KEPT[name])), 4 * (30 + matrices + biases))


def step_of(name):
    "One step forward and back, written out; operations for each unit. Gives what the layer gives, the test says."
    rng = np.random.default_rng(3)
    gates, units = GATES[name], 5
    x, h, c, dy, dh = rng.standard_normal((5, 1, units))
    wi, wh, bi, bh = (rng.standard_normal((gates, 1, units)) for _ in range(4))
    tally = Tally(units)
    number = tally.numbers
    from_x = [number(a) + b for a, b in zip(wi, bi, strict=True)]
    from_h = [number(a) + b for a, b in zip(wh, bh, strict=True)]
    back, y = STEP[name](from_x, from_h, number(h), number(c))
    forward, tally.count = tally.count // units, 0
    grads = back(number(dy) + number(dh))
    for grad in (*grads[0], *grads[1]):
        grad.sum(0)
    return forward, tally.count // units, y, grads, (wi, wh, bi, bh, h, c, dy, dh)


def rnn_cell(from_x, from_h, h, c):
    y = (from_x[0] + from_h[0]).tanh()
    return lambda dh: [[dh * (1 - y * y)]] * 2, y


def lstm_cell(from_x, from_h, h, c):
    a = [p + q for p, q in zip(from_x, from_h, strict=True)]
    i, f, g, o = sigmoid(a[0]), sigmoid(a[1]), a[2].tanh(), sigmoid(a[3])
    cell = f * c + i * g

    def back(dh):
        t = cell.tanh()
        dc = dh * (o * (1 - t * t)) + 0.0  # from the step after
        _before = dc * f
        grads = [dc * g * (i * (1 - i)), dc * c * (f * (1 - f)), dc * i * (1 - g * g), dh * t * (o * (1 - o))]
        return [grads] * 2

    return back, o * cell.tanh()


def gru_cell(from_x, from_h, h, c):
    r, z = (sigmoid(from_x[k] + from_h[k]) for k in (0, 1))
    n = (from_x[2] + r * from_h[2]).tanh()
    y = (1 - z) * n + z * h

    def back(dh):
        rest = 1 - z
        dn = dh * (rest * (1 - n * n))
        dz, dr = dh * ((h - n) * (z * rest)), dn * from_h[2] * (r * (1 - r))
        _before = dh * z + 0.0  # what comes through the weights
        return [[dr, dz, dn], [dr, dz, dn * r]]

    return back, y


STEP = {"rnn": rnn_cell, "lstm": lstm_cell, "gru": gru_cell}
STEPS = {name: step_of(name)[:2] for name in STEP}


@pytest.mark.parametrize("name", STEP)
def test_a_step_written_out_is_that_of_the_layer(name):
    "With weights of the unit matrix, for which products are known."
    *_, y, grads, (wi, wh, bi, bh, h, c, dy, dh) = step_of(name)
    units = y.value.shape[-1]
    eye = np.eye(units)
    weight_hh = np.concatenate([np.diag(w[0] / h[0]) for w in wh])
    state = (h, c) if name == "lstm" else h
    x = np.ones((1, 1, units))
    weight_ih = np.concatenate([w[0][:, None] * eye for w in wi])
    ours, pullback, _ = getattr(layers, name)(x, weight_ih, weight_hh, bi.ravel(), bh.ravel(), state)
    np.testing.assert_allclose(ours[:, 0], y.value, rtol=1e-12)
    _, _, _, dbias_ih, dbias_hh, _ = pullback((dy + dh)[:, None])
    np.testing.assert_allclose(dbias_ih, np.concatenate([g.value[0] for g in grads[0]]), rtol=1e-10)
    np.testing.assert_allclose(dbias_hh, np.concatenate([g.value[0] for g in grads[1]]), rtol=1e-10)


def counts_pooling(module):
    "By hand: 2 images, 3 channels, 4x4 outputs of 2x3 windows, and of 3x3 windows that overlap."
    x, y = 2 * 3 * 8 * 12, 2 * 3 * 4 * 4
    shape = (2, 3, 8, 12)
    assert module.cost_of("max_pool2d", shape, kernel_size=(2, 3)) == (6 * y, 4 * x, 4 * y)
    assert module.cost_of("max_pool2d", shape, kernel_size=(2, 3), backward=True) == (12 * y, 4 * (x + 2 * y), 4 * x)
    assert module.cost_of("avg_pool2d", shape, kernel_size=(2, 3)) == (7 * y, 4 * x, 4 * y)
    assert module.cost_of("avg_pool2d", shape, kernel_size=(2, 3), backward=True) == (7 * y, 4 * y, 4 * x)
    overlapping = {"kernel_size": 3, "stride": 2, "padding": 1}
    outputs = 2 * 3 * 4 * 6
    assert module.cost_of("max_pool2d", shape, **overlapping).operations == 9 * outputs
    assert module.cost_of("avg_pool2d", shape, **overlapping).operations == 10 * outputs


def counts_the_rest(module):
    assert module.cost_of("flatten", (2, 3, 4)) == module.cost_of("flatten", (2, 3, 4), backward=True) == (0, 0, 0)
    assert module.cost_of("flatten", (2, 3)).intensity == 0
    rows, table = 6 * 5, 40 * 5
    assert module.cost_of("embedding", (2, 3), (40, 5), itemsize=2) == (0, 2 * rows + 8 * 6, 2 * rows)
    back = module.cost_of("embedding", (2, 3), (40, 5), itemsize=2, backward=True)
    assert back == (rows, 2 * rows + 8 * 6, 2 * table)
    assert module.cost_of("linear", (6, 4), (5, 4), (5,), itemsize=2)[1:] == (2 * (24 + 20 + 5), 2 * 30)
    assert module.cost_of("linear", (6, 4), (5, 4), (5,), backward=True)[1:] == (4 * (30 + 24 + 20), 4 * (24 + 20 + 5))
    q, k, v = (3, 5, 4), (3, 7, 4), (3, 7, 6)
    inputs, y, scores = 60 + 84 + 126, 90, 105
    assert module.cost_of("attention", q, k, v)[1:] == (4 * inputs, 4 * (y + scores))
    assert module.cost_of("attention", q, k, v, fused=True)[1:] == (4 * inputs, 4 * (y + 15))
    assert module.cost_of("attention", q, k, v, backward=True)[1:] == (4 * (inputs + y + scores), 4 * inputs)
    fused = module.cost_of("attention", q, k, v, backward=True, fused=True)
    assert fused[1:] == (4 * (inputs + 2 * y + 15), 4 * inputs)
    product = 2 * scores * (4 + 6)
    assert fused.operations == 2 * product + 2 * scores * 4 + 6 * scores + 2 * y


def adam_moments(g, m, v):
    return 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * (g * g)


T, LR = 4, 0.01  # the step after three
ROOT = math.sqrt(1 - 0.999**T)


def adam_formula(p, g, m, v):
    m, v = adam_moments(g, m, v)
    return p - LR * ROOT / (1 - 0.9**T) * m / (v.sqrt() + 1e-8 * ROOT)


def adadelta_formula(p, g, v, u):
    v = 0.9 * v + 0.1 * (g * g)
    move = (u + 1e-6).sqrt() / (v + 1e-6).sqrt() * g
    _after = 0.9 * u + 0.1 * (move * move)
    return p - LR * move


def nadam_formula(p, g, m, v):
    m, v = adam_moments(g, m, v)
    factors = [0.9 * (1 - 0.5 * 0.96 ** (s * 4e-3)) for s in range(1, T + 2)]
    now, product = factors[T - 1], math.prod(factors[:T])
    a, b = LR * ROOT * (1 - now) / (1 - product), LR * ROOT * factors[T] / (1 - product * factors[T])
    return p - (a * g + b * m) / (v.sqrt() + 1e-8 * ROOT)


def lion_formula(p, g, m):
    move = p - LR * (0.9 * m + 0.1 * g).sign()
    _after = 0.99 * m + 0.01 * g
    return move


def rmsprop_formula(p, g, v):
    return p - LR * g / ((0.99 * v + 0.01 * (g * g)).sqrt() + 1e-8)


def nesterov_formula(p, g, b):
    b = 0.9 * b + g
    return p - LR * (g + 0.9 * b)


def radam_formula(p, g, m, v):
    "At a step from which on it divides by the root."
    t, longest = 20, 2 / 0.001 - 1
    length = longest - 2 * t * 0.999**t / (1 - 0.999**t)
    short = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    m, v = adam_moments(g, m, v)
    return p - LR * math.sqrt(short * (1 - 0.999**t)) / (1 - 0.9**t) * m / (v.sqrt() + 1e-8)


RULES = {  # the rule, its formula from parameter, gradient and what it remembers, and the step
    "sgd": (optim.sgd(LR), lambda p, g: p - LR * g, T),
    "momentum": (optim.sgd(LR, momentum=0.9), lambda p, g, b: p - LR * (0.9 * b + g), T),
    "nesterov": (optim.sgd(LR, momentum=0.9, nesterov=True), nesterov_formula, T),
    "adagrad": (optim.adagrad(LR), lambda p, g, s: p - LR * g / ((s + g * g).sqrt() + 1e-10), T),
    "rmsprop": (optim.rmsprop(LR), rmsprop_formula, T),
    "adam": (optim.adam(LR), adam_formula, T),
    "adamw": (optim.adamw(LR), lambda p, g, m, v: adam_formula((1 - LR * 0.01) * p, g, m, v), T),
    "adadelta": (optim.adadelta(LR), adadelta_formula, T),
    "nadam": (optim.nadam(LR), nadam_formula, T),
    "radam": (optim.radam(LR), radam_formula, 20),
    "lion": (optim.lion(LR), lion_formula, T),
}


def counts_the_rule(module, name):
    "The formula moves as the rule does, from what the rule has remembered, in as many operations as the table says."
    rule, formula, step = RULES[name]
    rng = np.random.default_rng(5)
    p, state = rng.standard_normal(6), None
    state = rule.init(p)
    for _ in range(step):
        g, before, old = rng.standard_normal(6), state, p
        move, state = rule.update(g, state, p)
        p = p + move
    kept = [x for part in before for x in part.values() if np.ndim(x)]
    tally = Tally(6)
    after = formula(*map(tally.numbers, (old, g, *kept)))
    np.testing.assert_allclose(after.value, p, rtol=1e-10)
    arrays = len(kept)
    assert module.cost_of(name, (2, 3)) == (tally.count, 4 * 6 * (2 + arrays), 4 * 6 * (1 + arrays))


def counts_muon(module):
    for shape in ((6, 4), (4, 6)):
        x = torch.ones(shape, dtype=torch.float64)
        with FlopCounterMode(display=False) as flops:
            optim.newton_schulz(x)
        cost = module.cost_of("muon", shape)
        elementwise = 5 * (3 * 16 + 2 * 24) + 24 * (6 + 3 + 3)
        assert cost == (flops.get_total_flops() + elementwise, 3 * 96, 2 * 96)


def adamw_moves_28_bytes(module):
    "A parameter in float32: four numbers read, three written."
    cost = module.cost_of("adamw", (1000,))
    assert (cost.bytes, cost.intensity) == (28_000, 13 / 28)
    assert module.cost_of("adamw", ()).bytes == 28


class Block(torch.nn.Module):
    "A transformer's block without what is no product."

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(x)))


def counts_a_transformer(module):
    "All matrix products of three blocks and the layer after, exactly."
    n, context, width, classes = 2, 6, 8, 10
    model = torch.nn.Sequential(*(Block(width, 2) for _ in range(3)), torch.nn.Linear(width, classes))
    parameters = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    x = torch.randn(n, context, width, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        y = model(x)
    with FlopCounterMode(display=False) as back:
        y.sum().backward()
    given = parameters, 3, width, context
    ours = module.transformer_operations(*given, tokens=n * context, backward=False)
    assert ours == forward.get_total_flops()
    both = module.transformer_operations(*given, tokens=n * context)
    assert both == forward.get_total_flops() + back.get_total_flops()
    assert module.transformer_operations(*given) * n * context == both
    with pytest.raises(ValueError, match="context must be a whole number from 1"):
        module.transformer_operations(*given[:3], 0)


def adds_costs(module):
    one, two = module.Cost(10, 4, 2), module.Cost(5, 2, 8)
    assert one + two == (15, 6, 10)
    assert 3 * one == one * 3 == (30, 12, 6)
    assert isinstance(one + two, module.Cost)
    assert isinstance(3 * one, module.Cost)
    assert isinstance(np.int64(3) * one, module.Cost)
    assert (np.int64(3) * one, 0 * one, 1 * one) == (3 * one, (0, 0, 0), one)
    with pytest.raises(TypeError, match="times must be a number, got Cost"):
        one * two
    with pytest.raises(ValueError, match="times must be a whole number from 0, got -1"):
        -1 * one
    assert (one.bytes, one.intensity) == (6, 10 / 6)
    relu, tanh = module.cost_of("relu", (100,)), module.cost_of("tanh", (100,), backward=True)
    assert module.fused(relu, relu, relu) == (300, 400, 400)
    assert module.fused(relu, tanh) == (400, 800, 400)  # dy is another array
    assert module.fused(one) == one
    with pytest.raises(ValueError, match="costs must be of steps that read what the one before has written"):
        module.fused(two, module.Cost(1, 7, 0))
    for bad in ((), (one, (1, 2, 3))):
        with pytest.raises(TypeError, match="costs must be one or more of Cost"):
            module.fused(*bad)


BAD_COSTS = [
    (("linea",), {}, ValueError, "name must be one of 'relu'"),
    (("linear", (2, 3)), {}, TypeError, "shapes and options must be those that linear takes: missing .* 'weight'"),
    (("linear", (2, 3), (4, 3)), {"stride": 1}, TypeError, "that linear takes: got an unexpected keyword"),
    (("relu", [2, 3]), {}, TypeError, r"shapes must be tuples, such as \(32, 100\), got \[2, 3\]"),
    (("relu", (2, 0)), {}, ValueError, "each length in shapes must be a whole number from 1, got 0"),
    (("relu", (2, "a")), {}, TypeError, "each length in shapes must be a number"),
    (("relu", (2,)), {"itemsize": 0}, ValueError, "itemsize must be a whole number from 1"),
    (("adam", (2,)), {"backward": True}, ValueError, "backward must be False for adam, an update rule"),
    (("muon", (2,)), {"backward": True}, ValueError, "backward must be False for muon"),
    (("muon", (2,)), {}, ValueError, r"param must have shape \(rows, columns\)"),
    (("linear", (2, 3), (4, 5)), {}, ValueError, r"weight must have shape \(outputs, 3\)"),
    (("conv2d", (2, 3, 4, 4), (5, 2, 3, 3)), {}, ValueError, r"weight must have shape \(outputs, 3"),
    (("max_pool2d", (2, 3, 4, 4)), {}, TypeError, "missing a required argument: 'kernel_size'"),
    (("avg_pool2d", (2, 3, 4)), {"kernel_size": 2}, ValueError, "x must have shape"),
    (("max_pool2d", (2, 3, 4)), {"kernel_size": 2}, ValueError, "x must have shape"),
    (("attention", (2, 3), (4, 5), (4, 5)), {}, ValueError, "key must have shape"),
    (("layer_norm", (2, 3), (2,), (2,)), {}, ValueError, "weight must have the last axes of x"),
    (("batch_norm", (2, 3), (3,), (2,)), {}, ValueError, r"bias must have shape \(3\)"),
    (("batch_norm", (2, 3), (2,), (3,)), {}, ValueError, r"weight must have shape \(3\)"),
    (("lstm", (2, 3, 4), (8, 4), (8, 3), (8,), (8,)), {}, ValueError, "weight_hh must have shape"),
    (("embedding", (2,), (3,)), {}, ValueError, r"weight must have shape \(rows, features\)"),
]


def refuses_costs(module, arguments, options, error, message):
    with pytest.raises(error, match=message):
        module.cost_of(*arguments, **options)


H100 = "NVIDIA H100 80GB HBM3"


def knows_devices(module):
    device = module.find_device(H100)
    assert (device.name, device.memory, device.bandwidth) == ("H100 SXM", 80e9, 3.35e12)
    assert (device.peaks["bfloat16"], device.peaks["tf32"], device.peaks["float32"]) == (989.4e12, 494.7e12, 66.9e12)
    assert device.launch == module.Device("made up", 1.0, 1.0, {}, "nobody").launch == 5e-6
    assert module.find_device("NVIDIA H200").bandwidth == 4.8e12
    assert module.find_device("NVIDIA H100 PCIe").peaks["bfloat16"] == 756e12
    assert module.find_device("NVIDIA A100-SXM4-80GB").peaks["bfloat16"] == 312e12
    for unknown in ("NVIDIA H100", "NVIDIA H100 NVL", f"{H100} MIG 1g.10gb", "NVIDIA GeForce RTX 5090", "cpu"):
        with pytest.raises(ValueError, match=f"name must be one of .*'{H100}'.*, got '{unknown}'"):
            module.find_device(unknown)
    with pytest.raises(TypeError, match="name must be the name that"):
        module.find_device(None)


@pytest.mark.parametrize("name", gpu.DEVICES)
def test_figures_of_devices_are_dense_and_plausible(name):
    "Shorter numbers are as fast or faster; at full speed an H100 can do hundreds of operations a byte."
    device = gpu.DEVICES[name]
    order = [device.peaks[k] for k in ("float32", "tf32", "float16", "float8") if k in device.peaks]
    assert order == sorted(order)
    assert device.peaks.get("bfloat16", device.peaks["float16"]) == device.peaks["float16"]
    assert 1e11 < device.bandwidth < 1e13
    assert 1e10 < device.memory < 1e12
    assert 50 < device.peaks["float16"] / device.bandwidth < 500
    assert device.source.startswith("NVIDIA ")
    assert device.launch > 0


def draws_the_roof(module):
    assert module.roofline(10, 500.0, 20.0) == 200
    np.testing.assert_array_equal(module.roofline(np.array([0, 25, 26]), 500.0, 20.0), [0, 500, 500])
    for bad in (-1, np.nan, np.array([1, -2.0])):
        with pytest.raises(ValueError, match="intensity must hold numbers, 0 or more"):
            module.roofline(bad, 1.0, 1.0)
    for options in ({"peak": 0, "bandwidth": 1.0}, {"peak": 1.0, "bandwidth": 0}):
        with pytest.raises(ValueError, match="must be greater than 0"):
            module.roofline(1, **options)


def predicts_seconds(module):
    device = module.Device("made up", 1e9, 100.0, {"float32": 1000.0, "bfloat16": 4000.0}, "nobody", launch=2.0)
    cost = module.Cost(8000, 100, 200)
    assert module.predict_seconds(cost, device) == 8
    assert module.predict_seconds(cost, device, "bfloat16") == 3
    assert module.predict_seconds(cost, device, "bfloat16", launches=5) == 10
    assert module.predict_seconds(module.Cost(0, 0, 0), device) == 2
    with pytest.raises(ValueError, match="dtype must be one of 'float32', 'bfloat16', got 'float16'"):
        module.predict_seconds(cost, device, "float16")
    with pytest.raises(TypeError, match="device must be a Device"):
        module.predict_seconds(cost, H100)
    with pytest.raises(TypeError, match="cost must be a Cost"):
        module.predict_seconds(8000, device)
    with pytest.raises(ValueError, match="launches must be a whole number from 1"):
        module.predict_seconds(cost, device, launches=0)


def shares_the_peak(module):
    assert module.fraction_of_peak(400e12, 1.0, 989e12) == pytest.approx(400 / 989)
    assert module.fraction_of_peak(10, 2, 5) == 1
    assert module.fraction_of_peak(0, 2, 5) == 0
    seconds, peaks = np.random.default_rng(1).uniform(1, 2, (2, 300))
    assert {module.fraction_of_peak(s * p, s, p) > 1 - 1e-12 for s, p in zip(seconds, peaks, strict=True)} == {True}
    assert max(module.fraction_of_peak(s * p, s, p) for s, p in zip(seconds, peaks, strict=True)) == 1
    with pytest.raises(ValueError, match="100% of the peak"):
        module.fraction_of_peak(1 + 1e-9, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"seconds must be 1.05 or more for 1.05e\+15 .* got 1, 105% of the peak"):
        module.fraction_of_peak(1.05e15, 1.0, 1e15)
    for bad in ((-1, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(ValueError, match="must be"):
            module.fraction_of_peak(*bad)


class PretendedGPU:
    "A queue of work with a clock of its own; nothing in it happens before `synchronize`."

    def __init__(self):
        self.clock, self.queue, self.devices, self.waits = 0.0, [], [], 0

    def launch(self, seconds):
        self.queue.append(lambda: setattr(self, "clock", self.clock + seconds))
        return SimpleNamespace(device="cuda:0")

    def synchronize(self):
        self.waits += 1
        for work in self.queue:
            work()
        self.queue.clear()

    def Event(self, *, enable_timing):  # noqa: N802: torch's name
        assert enable_timing
        return PretendedEvent(self)

    @contextmanager
    def device(self, device):
        self.devices.append(str(device))
        yield


class PretendedEvent:
    def __init__(self, gpu):
        self.gpu, self.time = gpu, None

    def record(self):
        assert self.gpu.waits == 1, "the warm-up must be over first"
        self.gpu.queue.append(lambda: setattr(self, "time", self.gpu.clock))

    def elapsed_time(self, other):
        return 1000 * (other.time - self.time)  # fails where one has not happened


def times_a_gpu(module, **device):
    "Each call by its own seconds, after a warm-up that is slower, on the device that was asked for."
    there, seconds = PretendedGPU(), iter([50.0, 40.0, 1.0, 2.0, 4.0])
    fakes = {name: getattr(there, name) for name in ("Event", "synchronize", "device")}
    with mock.patch.multiple(torch.cuda, **fakes, is_available=lambda: True):
        took = module.time_calls(lambda: there.launch(next(seconds)), repeats=3, warmup=2, **device)
    np.testing.assert_allclose(took, [1, 2, 4])
    assert there.devices == [str(device.get("device", "cuda:0"))]
    assert there.waits == 2


def times_a_cpu(module):
    ticks = iter([1.0, 3.5, 10.0, 10.25])
    calls = []
    np.testing.assert_array_equal(module._clock_seconds(lambda: calls.append(1), 2, lambda: next(ticks)), [2.5, 0.25])
    assert len(calls) == 2
    for device in ({}, {"device": "cpu"}, {"device": torch.device("cpu", 0)}):
        calls.clear()
        took = module.time_calls(lambda: calls.append(1), repeats=4, warmup=2, **device)
        assert (len(calls), took.shape, took.dtype) == (6, (4,), np.float64)
        assert (took >= 0).all()
    calls.clear()
    assert module.time_calls(lambda: calls.append(1)).shape == (20,)
    assert len(calls) == 23


def sees_where_results_are(module):
    here, there = np.ones(1), torch.ones(1, device="meta")
    for result, device in ((here, "cpu"), ((1, here), "cpu"), ({"a": here, "b": there}, "meta"), ([there], "meta")):
        assert module._device_of(result) == device
    assert module._device_of(None) == "cpu"
    with mock.patch.object(torch.cuda, "is_initialized", return_value=True):
        assert module._device_of(here) == "cpu"
        with pytest.raises(ValueError, match="device must be given, as a GPU is in use"):
            module._device_of(None)
    with mock.patch.dict("sys.modules", {"torch": None}):
        del module.sys.modules["torch"]
        assert module._device_of(None) == "cpu"


def refuses_timings(module):
    with pytest.raises(TypeError, match="f must be a function without arguments"):
        module.time_calls(1)
    with pytest.raises(ValueError, match="repeats must be a whole number from 1"):
        module.time_calls(int, repeats=0)
    with pytest.raises(ValueError, match="warmup must be a whole number from 1"):
        module.time_calls(int, warmup=0)
    with pytest.raises(ValueError, match="device must be one of 'cpu', 'cuda', got 'mps'"):
        module.time_calls(int, device="mps")
    with pytest.raises(ValueError, match="device must be one of 'cpu', 'cuda', got 'meta'"):
        module.time_calls(lambda: torch.ones(1, device="meta"))
    with (
        mock.patch.object(torch.cuda, "is_available", return_value=False),
        pytest.raises(ValueError, match="device must be one that torch finds here, got 'cuda:1'"),
    ):
        module.time_calls(int, device="cuda:1")


@pytest.mark.parametrize("row", PRODUCTS, ids=lambda row: f"{row[0]} {row[2]}")
def test_products_are_torchs(row):
    has_torchs_products(gpu, *row)


@pytest.mark.parametrize("name", STEP)
def test_recurrent_products_are_torchs(name):
    has_recurrent_products(gpu, name)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_operations_are_those_of_the_formula(name):
    counts_the_formula(gpu, name)


@pytest.mark.parametrize("name", RULES)
def test_operations_are_those_of_the_rule(name):
    counts_the_rule(gpu, name)


def test_costs():
    has_torchs_attention(gpu)
    counts_norms(gpu)
    counts_pooling(gpu)
    counts_the_rest(gpu)
    counts_muon(gpu)
    adamw_moves_28_bytes(gpu)
    counts_a_transformer(gpu)
    adds_costs(gpu)


def test_every_layer_and_rule_has_its_cost():
    known = set(gpu._counters())
    models = {"MLP", "CNN", "RNN", "History", "fit", "sequential"}
    assert set(layers.__all__) - models <= known
    rules = {name for name in optim.__all__ if name.islower() and not name.startswith(("scale_by", "clip", "add_"))}
    assert rules - {"chain", "ema", "newton_schulz"} <= known


@pytest.mark.parametrize("row", BAD_COSTS, ids=lambda row: f"{row[0]} {row[1]}")
def test_bad_costs_are_refused(row):
    refuses_costs(gpu, *row)


def test_devices_and_predictions():
    knows_devices(gpu)
    draws_the_roof(gpu)
    predicts_seconds(gpu)
    shares_the_peak(gpu)


@pytest.mark.parametrize("device", [{}, {"device": "cuda"}, {"device": torch.device("cuda:0")}], ids=str)
def test_timing_a_gpu(device):
    with mock.patch.object(gpu, "is_array_api_obj", lambda x: hasattr(x, "device")):
        times_a_gpu(gpu, **device)


def test_timing():
    times_a_cpu(gpu)
    sees_where_results_are(gpu)
    refuses_timings(gpu)


@no_gpu
def test_a_real_gpu_is_waited_for():
    "A product of large matrices takes longer than its launch."
    x = torch.randn(4096, 4096, device="cuda")
    took = gpu.time_calls(lambda: x @ x, repeats=5)
    assert (took > 2 * 4096**3 / 1e15).all()
