"""Planted errors: a wrong factor, root, axis or limit in any start of weights makes a check fail."""

import numpy as np
import pytest
import torch
from planted import definitions, load, survivors
from test_init import BAD_SHAPES, EACH, NAMES, REFUSED, SHAPES, Replay, plain_draws, torch_scale

from dlopt_course import init
from dlopt_course.core import assert_close

SOME = [(7, 7), (3, 50), (50, 3), (8, 3, 5, 3)]
ANSWERS = [  # function, shape, options, what torch's number times plain draws is
    (name, shape, options, torch_scale(name, shape, options) * plain_draws(name, shape))
    for number, (name, options) in enumerate(EACH)
    for shape in (SOME[number % 4], SOME[(number + 1) % 4])
]
FANS = [(shape, torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))) for shape in SHAPES]
GAINS = [(name, p, torch.nn.init.calculate_gain(name, p)) for name in NAMES for p in (None, 0, 0.3, -2.0)]
ROTATIONS = [
    torch.nn.init.orthogonal_(torch.empty(s, dtype=torch.float64), g, generator=torch.Generator().manual_seed(11))
    for s, g in ((s, g) for s in SOME for g in (1.0, 1.5))
]


def battery(module):
    "Every start against torch, with the defaults and without, and the errors that bad input has to raise."
    for shape, pair in FANS:
        assert module.fans(shape) == pair
    for name, param, gain in GAINS:
        assert module.calculate_gain(name, param) == pytest.approx(gain, rel=1e-14)
    for name, shape, options, expected in ANSWERS:
        assert_close(getattr(module, name)(shape, np.random.default_rng(5), **options), expected, rtol=1e-12)
    rotations = iter(ROTATIONS)
    for shape in SOME:
        made = module.orthogonal(shape, Replay(np.random.PCG64()))
        assert_close(made, next(rotations), rtol=1e-9, atol=1e-12)
        made = module.orthogonal(shape, Replay(np.random.PCG64()), 1.5)
        assert_close(made, next(rotations), rtol=1e-9, atol=1e-12)
    for name in dict(EACH) | {"orthogonal": {}}:
        made = getattr(module, name)((1, 1), np.random.default_rng(5), dtype=np.float32)
        assert made.dtype == np.float32
        assert made.shape == (1, 1)
        assert getattr(module, name)((2, 3), np.random.default_rng(5)).dtype == np.float64
    refusals(module)


def refusals(module):
    "Bad arguments raise the right error; the least that is allowed does not."
    for shape, error, message in BAD_SHAPES:
        with pytest.raises(error, match=message):
            module.fans(shape)
    for name, option, value, error, message in REFUSED:
        with pytest.raises(error, match=message):
            getattr(module, name)((3, 4), **{"rng": np.random.default_rng(0)} | {option: value})
    with pytest.raises(ValueError, match="param must be a finite number"):
        module.calculate_gain("leaky_relu", float("nan"))
    assert not module.orthogonal((2, 3), np.random.default_rng(0), 0).any()


def test_the_battery_passes_as_it_is():
    battery(load(init))


EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    (
        "_normal",
        "False  ->  True  in  copy=False",
    ): "one more copy, of the same numbers",
    (
        "_uniform",
        "False  ->  True  in  copy=False",
    ): "one more copy, of the same numbers",
    (
        "orthogonal",
        "gain * q * np.copysign(1.0, np.diag(r))  ->  gain * q / np.copysign(1.0, np.diag(r))",
    ): "to divide by a sign is to multiply by it",
}


@pytest.mark.parametrize("name", definitions(init))
def test_planted_errors_are_caught(name):
    assert survivors(init, name, battery) == {what for function, what in EQUIVALENT if function == name}


def test_equivalent_changes_are_of_functions_that_exist():
    assert {function for function, _ in EQUIVALENT} <= set(definitions(init))
