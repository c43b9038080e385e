"""Starts of weights against torch.nn.init over shapes, gains, modes and dtypes; bad input; what the generator gives."""

import itertools
import math

import numpy as np
import pytest
import scipy
import torch

from dlopt_course import init
from dlopt_course.core import assert_close
from dlopt_course.init import (
    calculate_gain,
    fans,
    kaiming_normal,
    kaiming_uniform,
    lecun_normal,
    orthogonal,
    xavier_normal,
    xavier_uniform,
)

SHAPES = [(1, 1), (7, 7), (100, 64), (3, 50), (50, 3), (8, 3, 5), (8, 3, 5, 3), (2, 4, 3, 3, 3), (1, 9), (9, 1)]
NAMES = ["linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
NAMES += ["sigmoid", "tanh", "relu", "leaky_relu", "selu"]
DRAWS = {  # function: whether it is uniform
    "xavier_normal": False,
    "xavier_uniform": True,
    "kaiming_normal": False,
    "kaiming_uniform": True,
    "lecun_normal": False,
    "orthogonal": None,
}
OPTIONS = {
    "xavier_normal": [{}, {"gain": 5 / 3}, {"gain": 0}],
    "xavier_uniform": [{}, {"gain": 5 / 3}, {"gain": 0.0}],
    "kaiming_normal": [
        {},
        {"a": 0.3},
        {"a": -2},
        *({"a": 0.5, "mode": m, "nonlinearity": n} for m, n in itertools.product(("fan_in", "fan_out"), NAMES)),
    ],
    "lecun_normal": [{}],
}
OPTIONS["kaiming_uniform"] = [*OPTIONS["kaiming_normal"], {"a": 5**0.5}]
EACH = [(name, options) for name in OPTIONS for options in OPTIONS[name]]


def torch_scale(name, shape, options):
    "The number by which torch multiplies its plain draws; lecun_normal is kaiming_normal_ for linear layers."
    if name == "lecun_normal":
        name, options = "kaiming_normal", {"nonlinearity": "linear"}
    made, plain = (torch.empty(shape, dtype=torch.float64) for _ in range(2))
    getattr(torch.nn.init, f"{name}_")(made, **options, generator=torch.Generator().manual_seed(3))
    if DRAWS[name]:
        plain.uniform_(-1, 1, generator=torch.Generator().manual_seed(3))
    else:
        plain.normal_(generator=torch.Generator().manual_seed(3))
    return (made.norm() / plain.norm()).item()


def plain_draws(name, shape):
    rng = np.random.default_rng(5)
    return rng.uniform(-1, 1, shape) if DRAWS[name] else rng.standard_normal(shape)


@pytest.mark.parametrize(("name", "options"), EACH, ids=str)
def test_equals_torchs_number_times_plain_draws(name, options):
    for shape in SHAPES:
        made = getattr(init, name)(shape, np.random.default_rng(5), **options)
        assert_close(made, torch_scale(name, shape, options) * plain_draws(name, shape), rtol=1e-12)


def test_arguments_have_the_order_and_the_defaults_of_torch():
    made = kaiming_uniform((4, 9), np.random.default_rng(5), 0.3, "fan_out", "leaky_relu", np.float32)
    options = {"a": 0.3, "mode": "fan_out"}
    expected = torch_scale("kaiming_uniform", (4, 9), options) * plain_draws("kaiming_uniform", (4, 9))
    assert_close(made, expected.astype(np.float32), rtol=1e-6)
    made = xavier_normal((4, 9), np.random.default_rng(5), 2.0, np.float32)
    expected = torch_scale("xavier_normal", (4, 9), {"gain": 2.0}) * plain_draws("xavier_normal", (4, 9))
    assert_close(made, expected.astype(np.float32), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gains_equal_torchs(name):
    for param in (None, 0, 0.0, 0.3, -1.5, 100):
        ours = calculate_gain(name, param)
        assert isinstance(ours, float)
        assert ours == pytest.approx(torch.nn.init.calculate_gain(name, param), rel=1e-15)
    assert calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name), rel=1e-15)


def test_gain_of_a_slope_beyond_all_bounds():
    assert calculate_gain("leaky_relu", 1e300) == pytest.approx(math.sqrt(2) * 1e-300)


@pytest.mark.parametrize("shape", SHAPES)
def test_fans_equal_torchs(shape):
    weight = torch.empty(shape, dtype=torch.float64)
    assert fans(shape) == torch.nn.init._calculate_fan_in_and_fan_out(weight)
    assert fans([*shape]) == fans(weight.shape) == fans(tuple(map(np.int64, shape)))
    assert all(type(fan) is int for fan in fans(tuple(map(np.int64, shape))))


class Replay(np.random.Generator):
    "A generator whose Gaussian numbers are torch's."

    def standard_normal(self, size):
        generator = torch.Generator().manual_seed(11)
        return torch.empty(size, dtype=torch.float64).normal_(generator=generator).numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gain", [1, 2**0.5, 0.0])
def test_orthogonal_equals_torchs_on_the_same_gaussian_numbers(shape, gain):
    theirs = torch.empty(shape, dtype=torch.float64)
    torch.nn.init.orthogonal_(theirs, gain, generator=torch.Generator().manual_seed(11))
    assert_close(orthogonal(shape, Replay(np.random.PCG64()), gain), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_is_orthogonal(shape):
    weight = orthogonal(shape, np.random.default_rng(1), 1.5).reshape(shape[0], -1)
    values = scipy.linalg.svdvals(weight)
    assert_close(values, np.full(min(weight.shape), 1.5), rtol=1e-12)


def test_orthogonal_is_fair():
    rng = np.random.default_rng(2)
    for shape in ((4, 4), (6, 4), (4, 6)):
        made = np.array([orthogonal(shape, rng) for _ in range(2000)])
        longer = max(shape)  # a unit vector of this length: its coordinates have this law
        law = scipy.stats.beta((longer - 1) / 2, (longer - 1) / 2).cdf
        for i, j in ((0, 0), (3, 3), (1, 2)):
            assert scipy.stats.kstest((1 + made[:, i, j]) / 2, law).pvalue > 1e-6
    rng = np.random.default_rng(3)
    traces = np.array([np.trace(orthogonal((5, 5), rng)) for _ in range(4000)])
    assert abs(traces.mean()) < 5 / math.sqrt(4000)
    assert np.mean(traces**2) == pytest.approx(1, abs=6 * math.sqrt(2 / 4000))


@pytest.mark.parametrize(("name", "uniform"), DRAWS.items())
def test_distribution_and_independence(name, uniform):
    made = getattr(init, name)((60, 40), np.random.default_rng(4))
    if uniform is None:
        return
    scale = torch_scale(name, (60, 40), {})
    law = scipy.stats.uniform(-1, 2).cdf if uniform else scipy.stats.norm.cdf
    assert scipy.stats.kstest(made.ravel() / scale, law).pvalue > 1e-6
    assert np.abs(np.corrcoef(made)[np.triu_indices(60, 1)]).max() < 0.8


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.longdouble, "float32", np.dtype("f4")], ids=str
)
def test_dtype_shape_and_reproducibility(name, dtype):
    draw = getattr(init, name)
    for shape in ((6, 4), (4, 6), (3, 2, 3), [5, 2]):
        made = draw(shape, np.random.default_rng(8), dtype=dtype)
        assert made.dtype == np.dtype(dtype)
        assert made.shape == tuple(shape)
        assert made.flags.c_contiguous
        assert made.flags.writeable
        assert made.base is None or made.base.flags.writeable
        again = draw(shape, np.random.default_rng(8))
        np.testing.assert_array_equal(made, again.astype(dtype))  # one seed, one network
    assert draw((6, 4), np.random.default_rng(9)).dtype == np.float64


@pytest.mark.parametrize("name", DRAWS)
def test_draws_go_on(name):
    draw, rng = getattr(init, name), np.random.default_rng(8)
    first, second = draw((6, 4), rng), draw((6, 4), rng)
    assert not np.array_equal(first, second)


BAD_SHAPES = [
    (5, TypeError, "shape must be a tuple of whole numbers, got 5"),
    (np.array([3, 4]), TypeError, "shape must be a tuple of whole numbers"),
    ("34", TypeError, "shape must be a tuple of whole numbers, got '34'"),
    (None, TypeError, "shape must be a tuple of whole numbers, got None"),
    ((), ValueError, r"shape must be \(outputs, inputs\) or longer, got \(\)"),
    ((5,), ValueError, r"shape must be \(outputs, inputs\) or longer, got \(5,\)"),
    ((0, 3), ValueError, r"shape\[0\] must be 1 or more, got 0"),
    ((3, 0), ValueError, r"shape\[1\] must be 1 or more, got 0"),
    ((3, 2, -1), ValueError, r"shape\[2\] must be 1 or more, got -1"),
    ((3, 2.0), TypeError, r"shape\[1\] must be a whole number, got 2.0"),
    ((True, 2), TypeError, r"shape\[0\] must be a whole number, got True"),
    ((3, math.nan), TypeError, r"shape\[1\] must be a whole number, got nan"),
]
BAD = [  # option, value, error, message
    ("rng", 0, TypeError, "rng must be a numpy.random.Generator, got int"),
    ("rng", None, TypeError, "rng must be a numpy.random.Generator, got NoneType"),
    ("rng", np.random.RandomState(0), TypeError, "rng must be a numpy.random.Generator, got RandomState"),
    ("rng", np.random, TypeError, "rng must be a numpy.random.Generator, got module"),
    ("dtype", int, TypeError, "dtype must be a floating-point type of NumPy, .*got <class 'int'>"),
    ("dtype", np.complex64, TypeError, "dtype must be a floating-point type"),
    ("dtype", "float63", TypeError, "dtype must be a floating-point type of NumPy, .*got 'float63'"),
    ("dtype", torch.float32, TypeError, "dtype must be a floating-point type of NumPy, .*got torch.float32"),
    ("gain", -0.1, ValueError, "gain must be 0 or more, got -0.1"),
    ("gain", math.nan, ValueError, "gain must be 0 or more, got nan"),
    ("gain", math.inf, ValueError, "gain must be 0 or more, got inf"),
    ("gain", "relu", TypeError, "gain must be a number, got str"),
    ("gain", True, TypeError, "gain must be a number, got bool"),
    ("a", math.nan, ValueError, "a must be a finite number, got nan"),
    ("a", math.inf, ValueError, "a must be a finite number, got inf"),
    ("a", None, TypeError, "a must be a number, got NoneType"),
    ("mode", "fan_avg", ValueError, "mode must be one of 'fan_in', 'fan_out', got 'fan_avg'"),
    ("mode", None, ValueError, "mode must be one of 'fan_in', 'fan_out', got None"),
    ("nonlinearity", "gelu", ValueError, "nonlinearity must be one of 'linear', .*'selu'.*, got 'gelu'"),
    ("nonlinearity", None, ValueError, "nonlinearity must be one of"),
]
TAKES = {
    "rng": set(DRAWS),
    "dtype": set(DRAWS),
    "gain": {"xavier_normal", "xavier_uniform", "orthogonal"},
    **dict.fromkeys(("a", "mode", "nonlinearity"), {"kaiming_normal", "kaiming_uniform"}),
}
REFUSED = [(name, *row) for row in BAD for name in sorted(TAKES[row[0]])]


@pytest.mark.parametrize("row", BAD_SHAPES, ids=lambda row: str(row[0]))
def test_bad_shapes_are_refused(row):
    shape, error, message = row
    with pytest.raises(error, match=message):
        fans(shape)
    for name in DRAWS:
        with pytest.raises(error, match=message):
            getattr(init, name)(shape, np.random.default_rng(0))


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: f"{row[0]}-{row[1]}-{row[2]!s:.30}")
def test_bad_options_are_refused_and_nothing_is_drawn(row):
    name, option, value, error, message = row
    rng = np.random.default_rng(0)
    with pytest.raises(error, match=message):
        getattr(init, name)((3, 4), **{"rng": rng} | {option: value})
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_bad_gains_are_refused():
    with pytest.raises(ValueError, match="nonlinearity must be one of .*, got 'swish'"):
        calculate_gain("swish")
    for param, error in ((math.nan, ValueError), (math.inf, ValueError), ("0.1", TypeError), (True, TypeError)):
        with pytest.raises(error, match="param must be a"):
            calculate_gain("leaky_relu", param)


def test_lecun_starts_selu_at_its_fixed_point():
    rng = np.random.default_rng(6)
    x = torch.tensor(rng.normal(size=(200, 300)))
    for _ in range(20):
        x = torch.selu(x @ torch.tensor(lecun_normal((300, 300), rng)).T)
    assert abs(x.mean().item()) < 0.1
    assert x.square().mean().item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("draw", [xavier_uniform, kaiming_uniform])
def test_uniform_draws_reach_their_bounds_and_stay_within(draw):
    made, bound = draw((300, 300), np.random.default_rng(7)), math.sqrt(6 / 600 if draw is xavier_uniform else 6 / 300)
    assert np.abs(made).max() <= bound
    assert np.abs(made).max() > 0.999 * bound


def test_kaiming_keeps_the_mean_square_of_a_deep_network():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(8, 1000))
    for _ in range(10):
        x = np.maximum(x @ kaiming_normal((1000, 1000), rng).T, 0)
    assert np.mean(x**2) == pytest.approx(1, rel=0.6)
