"""Penalties, dropout, noise, norms, soft targets and early stopping against torch, SciPy, scikit-learn; bad input."""

import io
import math
from functools import partial

import array_api_strict
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backends import BACKENDS, each_backend
from scipy import optimize, stats
from sklearn.neural_network import MLPRegressor

from dlopt_course import regularize
from dlopt_course.core import assert_close, numerical_grad, to_numpy
from dlopt_course.layers import MLP, fit, linear, relu, sequential
from dlopt_course.losses import cross_entropy, mse
from dlopt_course.optim import Optimizer, adam, add_decayed_weights, chain, scale_by_learning_rate
from dlopt_course.regularize import EarlyStopping, dropout, gaussian_noise, label_smoothing_targets, max_norm

TOLERANCE = {"float64": {"rtol": 1e-12, "atol": 1e-15}, "float32": {"rtol": 1e-5, "atol": 1e-7}}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)
rng = np.random.default_rng(70)
W = np.concatenate([rng.normal(size=9), [0.0, -0.0, 0.3, -0.3, 1e-8, -1e8]]).reshape(3, 5)
PENALTIES = [  # name, options, the penalty of a number, written without our code
    ("l1_penalty", {"alpha": 0.7}, lambda v: 0.7 * abs(v)),
    ("l1_penalty", {"alpha": 0}, lambda v: 0 * v),
    ("l2_penalty", {"alpha": 0.7}, lambda v: 0.35 * v**2),
    ("l2_penalty", {"alpha": 3}, lambda v: 1.5 * v**2),
    ("elastic_net_penalty", {"alpha": 0.7, "l1_ratio": 0.25}, lambda v: 0.175 * abs(v) + 0.2625 * v**2),
    ("elastic_net_penalty", {"alpha": 2, "l1_ratio": 0}, lambda v: 1.0 * v**2),
    ("elastic_net_penalty", {"alpha": 2.0, "l1_ratio": 1}, lambda v: 2.0 * abs(v)),
]
each_penalty = pytest.mark.parametrize(
    ("name", "options", "of_number"), [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in PENALTIES]
)
LAYERS = {"dropout": {"p": 0.4}, "gaussian_noise": {"std": 0.4}}
each_layer = pytest.mark.parametrize(("name", "options"), LAYERS.items())


class Replay(np.random.Generator):
    "A generator that gives the numbers it was made with."

    def __new__(cls, numbers):
        return super().__new__(cls, np.random.PCG64())

    def __init__(self, numbers):
        super().__init__(np.random.PCG64())
        self.numbers = numbers

    def random(self, size):
        assert size == self.numbers.shape
        return self.numbers

    standard_normal = random


# ---------------------------------------------------------------- penalties


def equals_torch(module, name, options, of_number, w=W, make=np.asarray, **tolerance):
    "Value and gradient against torch's automatic ones, in which sign(0) is 0."
    w, leaf = make(w), torch.tensor(w, dtype=torch.float64, requires_grad=True)
    value = of_number(leaf).sum()
    value.backward()
    expected = [to_numpy(v).astype(to_numpy(w).dtype) for v in (value, leaf.grad)]
    assert_close(getattr(module, name)(w, **options), expected[0], **tolerance)
    assert_close(getattr(module, f"{name}_grad")(w, **options), expected[1], **tolerance)


@each_penalty
@each_backend
@each_dtype
def test_penalties_equal_torch(name, options, of_number, backend, dtype):
    def make(x):
        return BACKENDS[backend](x.astype(dtype))

    for w in (W, W[0], np.array(0.3), W[:1, :1]):
        equals_torch(regularize, name, options, of_number, w, make, **TOLERANCE[dtype])


@each_penalty
def test_gradient_equals_finite_differences(name, options, of_number):
    w = rng.normal(size=(2, 3))
    found = numerical_grad(lambda v: getattr(regularize, name)(v, **options), w, scale=0.1)
    assert_close(getattr(regularize, f"{name}_grad")(w, **options), found.grad, rtol=1e-7, atol=found.error + 1e-12)


@each_penalty
@pytest.mark.parametrize("backend", ["numpy", "torch", "strict"])
def test_a_dict_of_arrays_is_their_sum(name, options, of_number, backend):
    w = {"0.weight": BACKENDS[backend](W), "2.weight": BACKENDS[backend](W[0, :3]), "scale": BACKENDS[backend](W[0, 0])}
    total, grads, near = (getattr(regularize, name + form) for form in ("", "_grad", "_prox"))
    assert_close(total(w, **options), sum(total(x, **options) for x in w.values()), rtol=1e-14)
    for f in (partial(grads, **options), partial(near, **options, step=0.3)):
        made = f(w)
        assert list(made) == list(w)
        for key, x in w.items():
            assert_close(made[key], f(x), rtol=0)


def is_proximal(module, name, options, of_number, step, w=W):
    "The map against a minimum that SciPy finds for each number."
    found = getattr(module, f"{name}_prox")(w, **options, step=step)
    assert found.shape == w.shape
    for v, ours in zip(w.ravel(), found.ravel(), strict=True):
        objective = lambda u: (u - v) ** 2 / 2 + step * of_number(u)  # noqa: E731, B023
        best = optimize.minimize_scalar(objective, (0.0, v or 1.0), method="golden", tol=1e-12)
        assert objective(ours) <= best.fun + 1e-12 * abs(best.fun)
        assert ours == pytest.approx(best.x, rel=1e-7, abs=3e-7)


@each_penalty
@pytest.mark.parametrize("step", [0, 0.1, 1, 25.0])
def test_proximal_maps_equal_scipys_minimum(name, options, of_number, step):
    is_proximal(regularize, name, options, of_number, step)


def conjugate_prox(v, l1, l2, step):
    "The proximal map of f* / step for f = l1 |.| + l2 |.|^2 / 2, whose conjugate is max(|u| - l1, 0)^2 / (2 l2)."
    if l2 == 0:
        return np.clip(v, -l1, l1)
    outside = np.sign(v) * (np.abs(v) * step * l2 + l1) / (1 + step * l2)
    return np.where(np.abs(v) <= l1, v, outside)


def obeys_moreau(module, alpha, l1_ratio, step, w=W):
    "w = prox of f + step times the prox of f* / step at w / step: what is kept and what is taken away."
    l1, l2 = alpha * l1_ratio, alpha * (1 - l1_ratio)
    taken = step * conjugate_prox(w / step, l1, l2, step)
    forms = [module.elastic_net_penalty_prox(w, alpha, l1_ratio, step)]
    forms += [module.l1_penalty_prox(w, alpha, step)] * (l1_ratio == 1)
    forms += [module.l2_penalty_prox(w, alpha, step)] * (l1_ratio == 0)
    for kept in forms:
        assert_close(kept + taken, w, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("alpha", [0.01, 1, 30])
@pytest.mark.parametrize("l1_ratio", [0, 0.3, 1])
@pytest.mark.parametrize("step", [1e-3, 0.5, 4])
def test_proximal_maps_obey_moreaus_identity(alpha, l1_ratio, step):
    obeys_moreau(regularize, alpha, l1_ratio, step)


@each_backend
@each_dtype
def test_proximal_maps_of_every_library(backend, dtype):
    w = BACKENDS[backend](W.astype(dtype))
    for name, options, _ in PENALTIES:
        near = getattr(regularize, f"{name}_prox")
        assert_close(near(w, **options, step=0.2), near(W, **options, step=0.2).astype(dtype), **TOLERANCE[dtype])


def test_proximal_steps_reach_zero_and_gradient_steps_do_not():
    "One number, pulled to 0: the sub-gradient swings about it, the proximal map stays there."
    by_gradient = by_prox = np.array([0.55])
    for _ in range(20):
        by_gradient = by_gradient - 0.1 * regularize.l1_penalty_grad(by_gradient, 1.0)
        by_prox = regularize.l1_penalty_prox(by_prox, 1.0, 0.1)
    assert by_prox == 0
    assert abs(by_gradient) == pytest.approx(0.05)


def test_l2_is_the_first_link_of_a_chain():
    grad = rng.normal(size=W.shape)
    rule = chain(add_decayed_weights(0.3), scale_by_learning_rate(0.1))
    move, _ = rule.update(grad, rule.init(W), W)
    assert_close(move, -0.1 * (grad + regularize.l2_penalty_grad(W, 0.3)), rtol=1e-14)


BAD_PENALTIES = [  # w, option, value, error, message
    (W, "alpha", -1, ValueError, "alpha must be 0 or more, got -1"),
    (W, "alpha", math.nan, ValueError, "alpha must be 0 or more, got nan"),
    (W, "alpha", math.inf, ValueError, "alpha must be 0 or more, got inf"),
    (W, "alpha", "1", TypeError, "alpha must be a number, got str"),
    (W, "alpha", True, TypeError, "alpha must be a number, got bool"),
    (W, "l1_ratio", 1.1, ValueError, r"l1_ratio must be in \[0, 1\], got 1.1"),
    (W, "l1_ratio", -0.1, ValueError, r"l1_ratio must be in \[0, 1\], got -0.1"),
    (W, "l1_ratio", None, TypeError, "l1_ratio must be a number, got NoneType"),
    (W, "step", -0.1, ValueError, "step must be 0 or more, got -0.1"),
    (W, "step", W, TypeError, "step must be a number, got ndarray"),
    ({}, None, None, ValueError, "w must be an array or a dict of arrays by name, with at least one, got {}"),
    ([1.0], None, None, TypeError, "w must be an array .*, got list"),
    (None, None, None, TypeError, "w must be an array .*, got NoneType"),
    (np.ones(3, int), None, None, TypeError, "w must be floating point, got int64"),
    (np.ones((0, 3)), None, None, ValueError, r"w must not be empty, got shape \(0, 3\)"),
    ({"a": W, "b": [1.0]}, None, None, TypeError, r"w\['b'\] must be an array .*, got list"),
    ({"a": W, "b": torch.ones(3)}, None, None, TypeError, r"w\['b'\] must be of the library of w\['a'\]"),
    ({"a": W, "b": W.astype("f4")}, None, None, TypeError, r"w\['b'\] must have the dtype of w\['a'\]"),
    (np.array([1, math.nan]), None, None, ValueError, r"w must be finite, got nan at index \[1\]"),
    ({"a": W, "b": np.array([math.nan])}, None, None, ValueError, r"w\['b'\] must be finite, got nan at index \[0\]"),
]
TAKES = {"l1_penalty": ["alpha"], "l2_penalty": ["alpha"], "elastic_net_penalty": ["alpha", "l1_ratio"]}


def refuses_penalties(module, w, option, value, error, message):
    for name, options in TAKES.items():
        for form in ("", "_grad", "_prox"):
            takes = [*options, "step"] if form == "_prox" else options
            if option is None or option in takes:
                given = dict.fromkeys(takes, 0.5) | ({} if option is None else {option: value})
                with pytest.raises(error, match=message):
                    getattr(module, name + form)(w, **given)


@pytest.mark.parametrize("row", BAD_PENALTIES, ids=lambda row: f"{row[1]}-{row[2]!s:.10}-{row[4]:.20}")
def test_bad_penalties_are_refused(row):
    refuses_penalties(regularize, *row)


def test_an_infinite_weight_has_an_infinite_penalty():
    w = np.array([1.0, -math.inf])
    assert regularize.l1_penalty(w, 0.1) == regularize.l2_penalty(w, 0.1) == math.inf


# ---------------------------------------------------------------- dropout and noise


def equals_torchs_dropout(module, x, p, make=torch.tensor):
    "Output and slope on the mask that torch drew: what is kept, and by what it is multiplied."
    leaf = torch.tensor(x, requires_grad=True)
    torch_rng = torch.get_rng_state()
    try:
        torch.manual_seed(5)
        theirs = F.dropout(leaf, p)
        torch.manual_seed(5)
        kept = F.dropout(torch.ones_like(leaf), p).numpy() != 0
    finally:
        torch.set_rng_state(torch_rng)
    dy = rng.normal(size=x.shape).astype(x.dtype)
    theirs.backward(torch.tensor(dy))
    y, pullback = module.dropout(make(x), p, Replay(np.where(kept, p, np.nextafter(p, -1))))
    assert_close(y, to_numpy(theirs), rtol=1e-6 if x.dtype == np.float32 else 1e-15)
    assert_close(pullback(make(dy)), to_numpy(leaf.grad), rtol=1e-6 if x.dtype == np.float32 else 1e-15)


@pytest.mark.parametrize("p", [0, 0.1, 0.5, 0.9, 1.0])
@each_backend
@each_dtype
def test_dropout_equals_torchs_on_one_mask(p, backend, dtype):
    equals_torchs_dropout(regularize, rng.normal(size=(6, 3, 4)).astype(dtype), p, BACKENDS[backend])


def drops_by_chance(module, p, n=40_000):
    "The number kept is binomial, wherever one looks and whatever the neighbour; mean and variance follow."
    y, _ = module.dropout(np.full((n // 100, 100), 3.0), p, np.random.default_rng(12))
    kept = y != 0
    assert_close(y[kept], np.full(kept.sum(), 3 / (1 - p)), rtol=1e-15)
    both = kept[:, 1:] & kept[:, :-1]
    pairs = both[:, ::2]  # that do not overlap
    for count, size, share in (
        (kept.sum(), n, 1 - p),
        (kept[:, 7].sum(), n // 100, 1 - p),
        (kept[3].sum(), 100, 1 - p),
        (pairs.sum(), pairs.size, (1 - p) ** 2),
    ):
        assert stats.binomtest(int(count), size, share).pvalue > 1e-6
    spread = 3 * math.sqrt(p / (1 - p))  # of one number about its mean, which is x
    assert abs(y.mean() - 3) < 5 * spread / math.sqrt(n)
    fourth = 81 * (p * (1 - p) * (p**3 + (1 - p) ** 3)) / (1 - p) ** 4
    assert abs(np.mean((y - 3) ** 2) - spread**2) < 5 * math.sqrt((fourth - spread**4) / n) + 1e-12


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.8])
def test_dropout_keeps_the_mean(p):
    drops_by_chance(regularize, p)


def test_torchs_dropout_has_that_mean_and_variance():
    "The bounds of `drops_by_chance` are those of torch's too, so they are not ours alone."

    class Torch:
        @staticmethod
        def dropout(x, p, rng):
            with torch.random.fork_rng():
                torch.manual_seed(1)
                return F.dropout(torch.tensor(x), p).numpy(), None

    for p in (0.05, 0.3, 0.5, 0.8):
        drops_by_chance(Torch, p)


def test_one_seed_gives_one_mask_for_all_and_nested_masks_over_p():
    x = np.ones((30, 20))
    masks = []
    for p in (0.0, 0.2, 0.5, 0.51, 1.0):
        made = [
            to_numpy(dropout(make(x.astype(dtype)), p, np.random.default_rng(3))[0]) != 0
            for make in (np.asarray, torch.asarray, array_api_strict.asarray)
            for dtype in ("float64", "float32", "float16")
            if not (make is array_api_strict.asarray and dtype == "float16")
        ]
        assert all(np.array_equal(mask, made[0]) for mask in made)
        masks.append(made[0])
    assert masks[0].all()
    assert not masks[-1].any()
    for more, fewer in zip(masks, masks[1:], strict=False):
        assert not (fewer & ~more).any()


def drops_what_is_infinite(module):
    "A dropped unit is 0 whatever it held; where all are dropped, all are."
    x = np.array([math.inf, math.nan, 1.0, -math.inf])
    for make in (np.asarray, torch.asarray):
        y, pullback = module.dropout(make(x), 1.0, np.random.default_rng(0))
        np.testing.assert_array_equal(to_numpy(y), np.zeros(4))
        np.testing.assert_array_equal(to_numpy(pullback(make(x))), np.zeros(4))
    y, _ = module.dropout(x, 0.5, Replay(np.array([0.2, 0.2, 0.7, 0.7])))
    np.testing.assert_array_equal(y, [0, 0, 2, -math.inf])


def test_a_dropped_number_is_zero_even_if_it_was_infinite():
    drops_what_is_infinite(regularize)


def adds_gaussian_noise(module, std=0.3):
    "The noise is Gaussian with that standard deviation, and the slope passes."
    x = rng.normal(size=(200, 50))
    y, pullback = module.gaussian_noise(x, std, np.random.default_rng(1))
    assert stats.kstest((y - x).ravel(), stats.norm(0, std).cdf).pvalue > 1e-6
    assert abs(np.corrcoef((y - x).ravel(), x.ravel())[0, 1]) < 5 / math.sqrt(x.size)
    assert pullback(x) is x
    numbers = rng.normal(size=(3, 4))
    y, _ = module.gaussian_noise(x[:3, :4], std, Replay(numbers))
    assert_close(y, x[:3, :4] + std * numbers, rtol=1e-15)
    np.testing.assert_array_equal(module.gaussian_noise(x, 0, np.random.default_rng(1))[0], x)


def test_gaussian_noise_has_its_law():
    adds_gaussian_noise(regularize)


@each_backend
@each_dtype
def test_noise_of_every_library_is_the_same(backend, dtype):
    x = rng.normal(size=(5, 4))
    make = lambda v: BACKENDS[backend](v.astype(dtype))  # noqa: E731
    y, pullback = gaussian_noise(make(x), 0.3, np.random.default_rng(2))
    noise = 0.3 * np.random.default_rng(2).standard_normal((5, 4))
    assert_close(y, x.astype(dtype) + noise.astype(dtype), **TOLERANCE[dtype])
    assert_close(pullback(make(x)), x.astype(dtype), rtol=0)


def nothing_happens_in_prediction(module, name, options, make):
    x, dy, generator = make(W), make(W + 1), np.random.default_rng(4)
    y, pullback = getattr(module, name)(x, rng=generator, training=False, **options)
    assert_close(y, W, rtol=0)
    assert_close(pullback(dy), W + 1, rtol=0)
    assert generator.bit_generator.state == np.random.default_rng(4).bit_generator.state


@each_layer
@each_backend
def test_nothing_happens_in_prediction(name, options, backend):
    nothing_happens_in_prediction(regularize, name, options, BACKENDS[backend])


@each_layer
def test_pullback_equals_finite_differences(name, options):
    x, dy = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    layer = lambda v: getattr(regularize, name)(v, rng=np.random.default_rng(6), **options)  # noqa: E731
    found = numerical_grad(lambda v: np.sum(dy * layer(v)[0]), x)
    _, pullback = layer(x)
    for _ in range(2):  # it may be called again
        assert_close(pullback(dy), found.grad, rtol=1e-7, atol=found.error + 1e-12)


@each_layer
@pytest.mark.parametrize("form", ["transposed", "strided", "read-only", "number"])
def test_layouts_give_the_same_and_nothing_is_changed(name, options, form):
    whole = rng.normal(size=(6, 8))
    x = {"transposed": whole.T, "strided": whole[::2, ::-3], "read-only": whole, "number": np.array(1.5)}[form]
    x.flags.writeable = form != "read-only"
    before, layer = whole.copy(), partial(getattr(regularize, name), **options)
    (y, pullback), (other, _) = (layer(v, rng=np.random.default_rng(1)) for v in (x, np.ascontiguousarray(x)))
    np.testing.assert_array_equal(y, other.reshape(x.shape))
    dy = np.array(x)
    pullback(dy)
    np.testing.assert_array_equal(dy, x)
    np.testing.assert_array_equal(whole, before)


BAD_LAYERS = [  # layer, argument, value, error, message
    ("dropout", "p", -0.1, ValueError, r"p must be in \[0, 1\], got -0.1"),
    ("dropout", "p", 1.1, ValueError, r"p must be in \[0, 1\], got 1.1"),
    ("dropout", "p", math.nan, ValueError, r"p must be in \[0, 1\], got nan"),
    ("dropout", "p", "half", TypeError, "p must be a number, got str"),
    ("dropout", "p", True, TypeError, "p must be a number, got bool"),
    ("gaussian_noise", "std", -1, ValueError, "std must be 0 or more, got -1"),
    ("gaussian_noise", "std", math.inf, ValueError, "std must be 0 or more, got inf"),
    ("gaussian_noise", "std", None, TypeError, "std must be a number, got NoneType"),
    *(
        (layer, name, value, error, message)
        for layer in LAYERS
        for name, value, error, message in (
            ("rng", 0, TypeError, "rng must be a numpy.random.Generator, got int"),
            ("rng", None, TypeError, "rng must be a numpy.random.Generator, got NoneType"),
            ("rng", np.random, TypeError, "rng must be a numpy.random.Generator, got module"),
            ("x", [1.0], TypeError, "x must be an array .*, got list"),
            ("x", np.ones(3, int), TypeError, "x must be floating point, got int64"),
            ("x", np.ones((3, 0)), ValueError, r"x must not be empty, got shape \(3, 0\)"),
            ("x", np.ma.ones(3), TypeError, "x must not be a masked array"),
        )
    ),
]


def refuses_layers(module, layer, name, value, error, message):
    generator = np.random.default_rng(0)
    for training in (True, False):
        given = {"x": W, "rng": generator, "training": training} | LAYERS[layer] | {name: value}
        with pytest.raises(error, match=message):
            getattr(module, layer)(**given)
    assert generator.bit_generator.state == np.random.default_rng(0).bit_generator.state


@pytest.mark.parametrize("row", BAD_LAYERS, ids=lambda row: f"{row[0]}-{row[1]}-{row[4]:.30}")
def test_bad_layers_are_refused_and_nothing_is_drawn(row):
    refuses_layers(regularize, *row)


def refuses_slopes(module):
    for layer, options in LAYERS.items():
        for training in (True, False):
            _, pullback = getattr(module, layer)(W, rng=np.random.default_rng(0), training=training, **options)
            with pytest.raises(ValueError, match=r"dy must have the shape of y, \(3, 5\), got \(5,\)"):
                pullback(W[0])
            with pytest.raises(TypeError, match="dy must have the dtype of y, float64, got float32"):
                pullback(W.astype("f4"))


def test_slopes_must_fit():
    refuses_slopes(regularize)


# ---------------------------------------------------------------- a network with dropout


def network(generator, training):
    return sequential(linear, relu, partial(dropout, p=0.5, rng=generator, training=training), linear)


def start():
    made = MLP((4, 16, 3)).init(np.random.default_rng(0))
    return {name.replace("2.", "3."): p for name, p in made.items()}  # dropout stands between


def clusters(n, seed):
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 3, n)
    return generator.normal(size=(n, 4)) + 1.5 * np.eye(4)[y], y


def test_a_network_with_dropout_equals_torchs():
    "Forward and backward through linear, ReLU, dropout, linear on one mask."
    x, y = clusters(10, 1)
    params, kept = start(), np.random.default_rng(3).random((10, 16)) >= 0.5
    leaves = {name: torch.tensor(p, requires_grad=True) for name, p in params.items()}
    hidden = F.relu(F.linear(torch.tensor(x), leaves["0.weight"], leaves["0.bias"])) * torch.tensor(kept) * 2
    F.cross_entropy(F.linear(hidden, leaves["3.weight"], leaves["3.bias"]), torch.tensor(y)).backward()
    out, pullback = network(np.random.default_rng(3), True)(params, x)
    leaf = torch.tensor(out, requires_grad=True)
    F.cross_entropy(leaf, torch.tensor(y)).backward()
    grads, _ = pullback(leaf.grad.numpy())
    for name, p in leaves.items():
        assert_close(grads[name], p.grad, rtol=1e-9, atol=1e-15)


def trained(epochs, path):
    generator, params = np.random.default_rng(1), start()
    model, data = network(generator, True), clusters(60, 1)
    fit(model, params, data, cross_entropy, adam(lr=0.01), rng=generator, epochs=epochs, checkpoint=path)
    return params


def test_training_with_dropout_goes_on_bit_for_bit(tmp_path):
    "The generator is the one of `fit`, whose state is in the checkpoint."
    whole = trained(4, tmp_path / "whole.npz")
    trained(2, tmp_path / "parts.npz")
    parts = trained(4, tmp_path / "parts.npz")
    for name, p in whole.items():
        np.testing.assert_array_equal(parts[name], p)


def test_early_stopping_around_fit():
    generator, params, held = np.random.default_rng(1), start(), clusters(200, 2)
    optimizer, stop, seen = Optimizer(params, adam(lr=0.05)), EarlyStopping(patience=4), []
    for _ in range(100):
        fit(network(generator, True), params, clusters(20, 1), cross_entropy, optimizer, rng=generator)
        seen.append(cross_entropy(network(generator, False)(params, held[0])[0], held[1]))
        if stop.update(seen[-1], params):
            break
    assert len(seen) == stop.best_step + 5 < 100
    stop.restore(params)
    assert cross_entropy(network(generator, False)(params, held[0])[0], held[1]) == min(seen) == stop.best
    fit(network(generator, True), params, clusters(20, 1), cross_entropy, optimizer, rng=generator)  # still moves them


# ---------------------------------------------------------------- norms


def equals_renorm(module, w, max_value, make=np.asarray, rtol=1e-12, atol=0.0):
    "torch.renorm, but for the 1e-7 that it adds to a norm before it divides by it."
    found = module.max_norm(make(w), max_value, tuple(range(1, w.ndim)))
    theirs = torch.renorm(torch.tensor(w, dtype=torch.float64), 2, 0, max_value)
    norms = torch.linalg.vector_norm(torch.tensor(w, dtype=torch.float64).flatten(1), dim=1)
    undone = torch.where(norms > max_value, 1 + 1e-7 / norms, 1.0).reshape(-1, *[1] * (w.ndim - 1))
    assert_close(found, (theirs * undone).numpy().astype(w.dtype), rtol=rtol, atol=atol)


@pytest.mark.parametrize("shape", [(6, 5), (1, 1), (4, 3, 3, 3), (7, 2, 5)])
@pytest.mark.parametrize("max_value", [1e-3, 0.7, 2, 100.0])
@each_backend
@each_dtype
def test_max_norm_equals_torchs_renorm(shape, max_value, backend, dtype):
    w = rng.normal(size=shape).astype(dtype)
    equals_renorm(regularize, w, max_value, BACKENDS[backend], rtol=1e-12 if dtype == "float64" else 1e-5)


def test_max_norm_as_torch_computes_it():
    "From a norm of 1 on, what torch adds changes less than 1e-7 of a weight."
    w = 3 * rng.normal(size=(50, 20))
    for max_value in (1, 3.0, 10):
        assert_close(max_norm(w, max_value), torch.renorm(torch.tensor(w), 2, 0, max_value), rtol=1e-7)


def limits_rows(module):
    "Rows within the limit are untouched, the others are as long as it; along other axes, and for zeros."
    w = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [-6.0, 8.0], [0.0, 1.0]])
    found = module.max_norm(w, 1.0)
    assert_close(found, np.array([[0.6, 0.8], [0.3, 0.4], [0, 0], [-0.6, 0.8], [0, 1.0]]), rtol=1e-15)
    np.testing.assert_array_equal(found[[1, 2, 4]], w[[1, 2, 4]])
    assert_close(module.max_norm(w, 1.0, -1), found, rtol=0)
    assert_close(module.max_norm(w.T, 1.0, 0), found.T, rtol=1e-15)
    assert_close(module.max_norm(w, 1.0, (0, 1)), w / np.sqrt(np.sum(w * w)), rtol=1e-14)
    assert_close(module.max_norm(w, 1.0, np.int64(1)), found, rtol=0)
    huge = np.array([[-3e200, -4e200, 0.0], [-1e-200, 0.0, 0.0], [-4.0, 3.0, 0.0]])
    assert_close(module.max_norm(huge, 1.0)[:, :2], np.array([[-0.6, -0.8], [-1e-200, 0.0], [-0.8, 0.6]]), rtol=1e-14)
    assert_close(module.max_norm(1e200 * w, 1e200), 1e200 * found, rtol=1e-14)
    assert_close(module.max_norm(1e-200 * w, 1e-200), 1e-200 * found, rtol=1e-14)


def test_max_norm_limits_rows():
    limits_rows(regularize)


def test_max_norm_is_outside_the_graph():
    "It is applied after a step: torch's parameters need no torch.no_grad for it."
    w = torch.nn.Parameter(torch.ones(2, 3))
    limited = max_norm(w, 1.0)
    assert not limited.requires_grad
    w.data[...] = limited
    assert_close(torch.linalg.vector_norm(w, dim=1), torch.ones(2), rtol=1e-6)


def test_max_norm_keeps_float16_in_range():
    w = np.full((1, 4), 200, np.float16)  # its square is beyond float16
    assert_close(max_norm(w, 3.0), np.full((1, 4), 1.5, np.float16), rtol=2e-3)


BAD_NORMS = [
    ("max_value", 0, ValueError, "max_value must be greater than 0, got 0"),
    ("max_value", -1.0, ValueError, "max_value must be greater than 0, got -1.0"),
    ("max_value", math.inf, ValueError, "max_value must be greater than 0, got inf"),
    ("max_value", None, TypeError, "max_value must be a number, got NoneType"),
    ("axis", 2, ValueError, "axis must be one axis of w, which has 2, or different ones, got 2"),
    ("axis", -3, ValueError, "axis must be one axis of w, which has 2, or different ones, got -3"),
    ("axis", (1, -1), ValueError, r"axis must be one axis of w, .*, got \(1, -1\)"),
    ("axis", (0, 2), ValueError, r"axis must be one axis of w, .*, got \(0, 2\)"),
    ("axis", (), TypeError, r"axis must be a whole number or a tuple of them, got \(\)"),
    ("axis", None, TypeError, "axis must be a whole number or a tuple of them, got None"),
    ("axis", 1.0, TypeError, "axis must be a whole number or a tuple of them, got 1.0"),
    ("axis", True, TypeError, "axis must be a whole number or a tuple of them, got True"),
    ("axis", (0, "1"), TypeError, "axis must be a whole number or a tuple of them"),
    ("w", [[1.0]], TypeError, "w must be an array .*, got list"),
    ("w", np.ones((2, 2), int), TypeError, "w must be floating point, got int64"),
    ("w", np.ones((0, 2)), ValueError, r"w must not be empty, got shape \(0, 2\)"),
    ("w", np.ones(3), ValueError, "axis must be one axis of w, which has 1, or different ones, got 1"),
    ("w", np.array([[1, 1.0], [1, math.nan]]), ValueError, r"w must be finite, got nan at index \[1, 1\]"),
]


def refuses_norms(module, name, value, error, message):
    with pytest.raises(error, match=message):
        module.max_norm(**{"w": W, "max_value": 1.0, "axis": 1} | {name: value})


@pytest.mark.parametrize("row", BAD_NORMS, ids=lambda row: f"{row[0]}-{row[3]:.30}-{row[1]!s:.10}")
def test_bad_norms_are_refused(row):
    refuses_norms(regularize, *row)


# ---------------------------------------------------------------- label smoothing


def equals_smoothing(module, k, epsilon, make=np.asarray, dtype=np.float64, **tolerance):
    "Loss and gradient on soft targets equal torch's with its option; the rows are distributions."
    labels, logits = rng.integers(0, k, 12), rng.normal(size=(12, k)).astype(dtype)
    targets = module.label_smoothing_targets(make(labels), k, epsilon, dtype)
    leaf = torch.tensor(logits, requires_grad=True)
    theirs = F.cross_entropy(leaf, torch.tensor(labels), label_smoothing=epsilon)
    theirs.backward()
    soft = torch.tensor(logits, requires_grad=True)
    F.cross_entropy(soft, torch.tensor(to_numpy(targets))).backward()
    assert_close(cross_entropy(make(logits), targets), to_numpy(theirs), **tolerance)
    assert_close(soft.grad, leaf.grad, **tolerance)
    one_hot = np.eye(k, dtype=dtype)[labels]
    assert_close(targets, ((1 - epsilon) * one_hot + epsilon / k).astype(dtype), **tolerance)


@pytest.mark.parametrize(("k", "epsilon"), [(3, 0.1), (10, 0.0), (10, 1), (1, 0.3), (2, 0.5)])
@each_backend
@each_dtype
def test_soft_targets_equal_torchs_label_smoothing(k, epsilon, backend, dtype):
    equals_smoothing(regularize, k, epsilon, BACKENDS[backend], np.dtype(dtype), **TOLERANCE[dtype])


def test_soft_targets_of_small_integers_and_dtypes():
    labels = np.array([0, 255, 7], np.uint8)
    wide = label_smoothing_targets(labels, 300, 0.1)
    assert wide.shape == (3, 300)
    assert_close(wide[1, 255], np.float64(0.9 + 0.1 / 300), rtol=1e-15)
    for dtype in (np.float16, np.float32, "float64", np.longdouble):
        assert label_smoothing_targets(labels, 300, np.float64(0.1), dtype).dtype == np.dtype(dtype)
    assert label_smoothing_targets(torch.tensor([1]), 2, 0.1, np.float16).dtype == torch.float16


BAD_LABELS = [
    ("labels", np.array([0, 3]), ValueError, "labels must hold classes from 0 to 2, got 3"),
    ("labels", np.array([0, -1]), ValueError, "labels must hold classes from 0 to 2, got -1"),
    ("labels", torch.tensor([0, -100]), ValueError, "labels must hold classes from 0 to 2, got -100"),
    ("labels", np.array([0.0]), TypeError, "labels must be whole numbers, class indices, got float64"),
    ("labels", np.array([True]), TypeError, "labels must be whole numbers, class indices, got bool"),
    ("labels", [0, 1], TypeError, "labels must be an array .*, got list"),
    ("labels", np.array([[0]]), ValueError, r"labels must have shape \(n,\), at least one, got \(1, 1\)"),
    ("labels", np.array(0), ValueError, r"labels must have shape \(n,\), at least one, got \(\)"),
    ("labels", np.array([], int), ValueError, r"labels must have shape \(n,\), at least one, got \(0,\)"),
    ("classes", 0, ValueError, "classes must be a whole number from 1, got 0"),
    ("classes", 2.5, ValueError, "classes must be a whole number from 1, got 2.5"),
    ("classes", None, TypeError, "classes must be a number, got NoneType"),
    ("epsilon", 1.1, ValueError, r"epsilon must be in \[0, 1\], got 1.1"),
    ("epsilon", -0.1, ValueError, r"epsilon must be in \[0, 1\], got -0.1"),
    ("epsilon", "0", TypeError, "epsilon must be a number, got str"),
    ("dtype", int, TypeError, "dtype must be a floating-point type of NumPy"),
    ("dtype", None, TypeError, "dtype must be a floating-point type of NumPy"),
]


def refuses_labels(module, name, value, error, message):
    given = {"labels": np.array([0, 2]), "classes": 3, "epsilon": 0.1, "dtype": np.float64}
    with pytest.raises(error, match=message):
        module.label_smoothing_targets(**given | {name: value})


@pytest.mark.parametrize("row", BAD_LABELS, ids=lambda row: f"{row[0]}-{row[3]:.40}-{row[1]!s:.10}")
def test_bad_labels_are_refused(row):
    refuses_labels(regularize, *row)


# ---------------------------------------------------------------- early stopping

BY_HAND = [  # options, the values, at which check it stops (None: never), the best check
    ({"patience": 1}, [3, 2, 2], 2, 1),  # as good is no better
    ({"patience": 2}, [3, 2, 4, 1, 5, 6], 5, 3),  # in a row: the count starts anew at check 3
    ({"patience": 3}, [3, 2, 4, 1, 5, 6], None, 3),
    ({"patience": 2, "mode": "max"}, [0.1, 0.5, 0.4, 0.3], 3, 1),
    ({"patience": 2, "min_delta": 0.5}, [4, 3.5, 3.75], 2, 0),  # better by exactly min_delta is not better
    ({"patience": 3, "min_delta": 0.5}, [4, 3.75, 3.25, 3], None, 2),  # small gains add up: best stays 4 until then
    ({"patience": 2, "min_delta": 0.5, "mode": "max"}, [1, 1.5, 1.25, 1.5], 2, 0),
    ({"patience": 2}, [math.nan, 2, math.nan, math.nan], 3, 1),
    ({"patience": 2}, [math.nan, math.nan], 1, None),
    ({"patience": 2}, [math.inf, math.inf], 1, None),  # nothing can be restored
    ({"patience": 2}, [math.inf, 5, math.inf, 4], None, 3),
    ({"patience": 1}, [5, -math.inf, -math.inf], 2, 1),
    ({"patience": 2, "mode": "max"}, [-math.inf, math.inf, math.inf, 3], 3, 1),
]


def outcome(stop, values):
    "At which check it says stop for the first time."
    said = [stop.update(value, {"w": np.array([float(i)])}) for i, value in enumerate(values)]
    assert all(type(word) is bool for word in said)
    return said.index(True) if True in said else None


def decides(module, options, values, stops, best):
    stop = module.EarlyStopping(**options)
    assert outcome(stop, values) == stops
    assert stop.best_step == best
    assert stop.step == len(values)
    assert stop.wait == len(values) - 1 - (-1 if best is None else best)
    if best is not None:
        assert stop.best == values[best]
        params = {"w": np.array([-1.0])}
        stop.restore(params)
        assert params["w"] == best


@pytest.mark.parametrize("row", BY_HAND, ids=str)
def test_decisions_by_hand(row):
    decides(regularize, *row)


def decides_as_torch(module, seed):
    "torch's ReduceLROnPlateau cuts the rate when we stop: it counts as we do, but says `more than` where we say `at`."
    generator = np.random.default_rng(seed)
    patience, min_delta, mode = int(generator.integers(1, 5)), generator.integers(0, 3) / 4, ["min", "max"][seed % 2]
    values = np.cumsum(generator.integers(-4, 5, 40)) / 4
    values[generator.random(40) < 0.1] = math.nan
    stop = module.EarlyStopping(patience, min_delta, mode)
    sgd = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    options = {"threshold": min_delta, "threshold_mode": "abs", "patience": patience - 1}
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, mode, **options)
    for value in values:
        plateau.step(value)
        assert stop.update(value, {"w": np.zeros(1)}) == (sgd.param_groups[0]["lr"] < 1)
        assert stop.best == plateau.best
        if sgd.param_groups[0]["lr"] < 1:
            return


@pytest.mark.parametrize("seed", range(60))
def test_decisions_equal_torchs_plateau(seed):
    decides_as_torch(regularize, seed)


@pytest.mark.parametrize("patience", [1, 3])
@pytest.mark.parametrize("held", [False, True])
def test_decisions_equal_scikit_learns(patience, held):
    "Its network stops at the check after n_iter_no_change: patience is one more. By training loss, or by held R^2."
    generator = np.random.default_rng(3)
    x = generator.normal(size=(80, 3))
    options = {
        "tol": 0,
        "n_iter_no_change": patience,
        "early_stopping": held,
        "max_iter": 500,
        "hidden_layer_sizes": (8,),
    }
    model = MLPRegressor(learning_rate_init=0.05, random_state=1, **options)
    model.fit(x, x[:, 0] + generator.normal(size=80))
    values = model.validation_scores_ if held else model.loss_curve_
    stop = EarlyStopping(patience + 1, mode="max" if held else "min")
    assert outcome(stop, values) == len(values) - 1 == model.n_iter_ - 1
    assert stop.best == (model.best_validation_score_ if held else model.best_loss_)


@each_backend
def test_the_best_parameters_come_back(backend):
    make = BACKENDS[backend]
    params, stop = {"0.weight": make(W.copy()), "scale": make(np.array(2.0))}, EarlyStopping(2)
    for value in (3.0, 1.0, 2.0):
        for p in params.values():
            p[...] = make(np.full(p.shape, value))
        stop.update(make(np.array(value)), params)
    kept = dict(params)
    stop.restore(params)
    assert all(params[name] is p for name, p in kept.items())  # in place
    assert_close(params["0.weight"], np.ones((3, 5)), rtol=0)
    assert_close(params["scale"], np.array(1.0), rtol=0)
    params["0.weight"][...] = make(np.zeros((3, 5)))  # what is kept shares no memory with what was restored
    stop.restore(params)
    assert_close(params["0.weight"], np.ones((3, 5)), rtol=0)


def saved(state):
    "The state after a journey through a file."
    file = io.BytesIO()
    np.savez(file, **state)
    return np.load(io.BytesIO(file.getvalue()), allow_pickle=False)


def goes_on_from_its_state(module, options, values, make=np.asarray):
    "Cut anywhere, saved and loaded, it decides and restores as one that was never cut."
    for cut in range(len(values) + 1):
        whole, first, second = (module.EarlyStopping(**options) for _ in range(3))
        said = [], []
        for i, value in enumerate(values):
            if i == cut:
                second.load_state_dict(saved(first.state_dict()))
            params = {"w": make(np.array([float(i), 0.5]))}
            said[0].append(whole.update(value, params))
            said[1].append((first if i < cut else second).update(value, params))
        if cut == len(values):
            second.load_state_dict(dict(saved(first.state_dict())))
        assert said[0] == said[1]
        assert second.stopped is said[0][-1]
        for name in ("best", "best_step", "step", "wait"):
            assert getattr(second, name) == getattr(whole, name)
            assert type(getattr(second, name)) is type(getattr(whole, name))
        if whole.best_step is not None:
            ours, theirs = {"w": make(np.zeros(2))}, {"w": make(np.zeros(2))}
            second.restore(ours)
            whole.restore(theirs)
            assert_close(ours["w"], theirs["w"], rtol=0)
            assert ours["w"][0] == whole.best_step


@each_backend
@pytest.mark.parametrize("row", BY_HAND[::3], ids=str)
def test_state_goes_on(row, backend):
    goes_on_from_its_state(regularize, *row[:2], BACKENDS[backend])


def test_state_of_bfloat16():
    stop, other = EarlyStopping(2), EarlyStopping(2)
    params = {"w": torch.tensor([1.5, 2.5], dtype=torch.bfloat16)}
    stop.update(1.0, params)
    other.load_state_dict(saved(stop.state_dict()))
    params["w"][...] = 0
    other.restore(params)
    assert params["w"].tolist() == [1.5, 2.5]


def test_torch_parameters_need_no_no_grad():
    layer = torch.nn.Linear(2, 1)
    stop, params = EarlyStopping(1), dict(layer.named_parameters())
    before = layer.weight.detach().clone()
    stop.update(1.0, params)
    layer.weight.data[...] = 7
    stop.restore(params)
    assert_close(layer.weight, before, rtol=0)
    assert not stop.best_params["weight"].requires_grad


BAD_OPTIONS = [
    ("patience", 0, ValueError, "patience must be a whole number from 1, got 0"),
    ("patience", 1.5, ValueError, "patience must be a whole number from 1, got 1.5"),
    ("patience", None, TypeError, "patience must be a number, got NoneType"),
    ("min_delta", -0.1, ValueError, "min_delta must be 0 or more, got -0.1"),
    ("min_delta", math.inf, ValueError, "min_delta must be 0 or more, got inf"),
    ("min_delta", "0", TypeError, "min_delta must be a number, got str"),
    ("mode", "auto", ValueError, "mode must be one of 'min', 'max', got 'auto'"),
]
GOOD = {"w": np.ones(2)}
LOCKED = np.ones(2)
LOCKED.flags.writeable = False
BAD_CHECKS = [
    ("1", GOOD, TypeError, "value must be a number, got str"),
    (None, GOOD, TypeError, "value must be a number, got NoneType"),
    (True, GOOD, TypeError, "value must be a number, got bool"),
    (np.True_, GOOD, TypeError, "value must be a number, got bool"),
    ([1.0], GOOD, TypeError, "value must be a number, got list"),
    (np.ones(1), GOOD, TypeError, "value must be a number, got ndarray"),
    (1j, GOOD, TypeError, "value must be a number, got complex"),
    (1.0, {}, TypeError, "params must be a dict of arrays by name, with at least one, got {}"),
    (1.0, [np.ones(2)], TypeError, "params must be a dict of arrays by name"),
    (1.0, {"w": [1.0]}, TypeError, r"params\['w'\] must be an array"),
    (1.0, {"w": np.ones(2, int)}, TypeError, r"params\['w'\] must be floating point, got int64"),
    (1.0, {"w": LOCKED}, ValueError, r"params\['w'\] must be writeable"),
]
BAD_RESTORES = [
    ({"v": np.ones(2)}, ValueError, r"params must have the names of the best, \['w'\], got \['v'\]"),
    (GOOD | {"v": np.ones(2)}, ValueError, "params must have the names of the best"),
    ({"w": np.ones(3)}, ValueError, r"params\['w'\] must have the shape of the best\['w'\], \(2,\), got \(3,\)"),
    ({"w": np.ones(2, "f4")}, TypeError, r"params\['w'\] must have the dtype of the best\['w'\], float64, got float32"),
    ({}, TypeError, "params must be a dict of arrays by name, with at least one, got {}"),
    ({"w": LOCKED}, ValueError, r"params\['w'\] must be writeable"),
]


def after(stop):
    "What it remembers, to be compared."
    return {name: x.tolist() for name, x in stop.state_dict().items()}


def refuses_stopping(module):
    for name, value, error, message in BAD_OPTIONS:
        with pytest.raises(error, match=message):
            module.EarlyStopping(**{"patience": 2} | {name: value})
    stop = module.EarlyStopping(2)
    with pytest.raises(ValueError, match="restore must come after an update that was an improvement, got none yet"):
        stop.restore({"w": np.ones(2)})
    stop.update(2.0, {"w": np.zeros(2)})
    before = after(stop)
    for value, params, error, message in BAD_CHECKS:
        with pytest.raises(error, match=message):
            stop.update(value, params)
    for params, error, message in BAD_RESTORES:
        with pytest.raises(error, match=message):
            stop.restore(params)
    assert after(stop) == before
    assert all((p == 1).all() for params, *_ in BAD_RESTORES for p in params.values())
    refuses_states(module, stop)


def refuses_states(module, stop):
    good, before = stop.state_dict(), after(stop)
    for state, error, message in (
        ([1], TypeError, "state must be a dict of arrays by name, got list"),
        ({}, ValueError, "state must have best, best_step, step, wait, got nothing"),
        ({k: v for k, v in good.items() if k != "wait"}, ValueError, "state must have wait, got best, best_step, step"),
        (good | {"lr": np.array(1)}, ValueError, "state must be that of an EarlyStopping, got lr too"),
        (good | {"step": np.ones(2)}, ValueError, r"state\['step'\] must be a number, got float64 of shape \(2,\)"),
        (good | {"best": np.array("x")}, ValueError, r"state\['best'\] must be a number, got <U1 of shape \(\)"),
        (good | {"wait": np.array(True)}, ValueError, r"state\['wait'\] must be a number, got bool of shape \(\)"),
    ):
        with pytest.raises(error, match=message):
            stop.load_state_dict(state)
        assert after(stop) == before


def test_bad_stopping_is_refused_and_nothing_is_changed():
    refuses_stopping(regularize)


def test_states_are_copies():
    stop = EarlyStopping(2)
    params = {"w": np.zeros(2)}
    stop.update(1.0, params)
    params["w"] += 1
    state = stop.state_dict()
    state["best_params/w"] += 5
    assert not stop.best_params["w"].any()
    state = stop.state_dict()
    stop.load_state_dict(state)
    state["best_params/w"] += 5
    assert not stop.best_params["w"].any()


def test_noise_on_the_inputs_is_a_penalty_on_average():
    "Bishop 1995 for a linear model: E|y - (X + N) w|^2 / n = |y - X w|^2 / n + std^2 |w|^2."
    x, w, y = rng.normal(size=(50, 4)), rng.normal(size=4), rng.normal(size=50)
    generator, draws = np.random.default_rng(9), 4000
    losses = [mse(gaussian_noise(x, 0.5, generator)[0] @ w, y) for _ in range(draws)]
    expected = mse(x @ w, y) + 2 * regularize.l2_penalty(w, 0.25)
    assert abs(np.mean(losses) - expected) < 5 * np.std(losses) / math.sqrt(draws)
