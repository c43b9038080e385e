"""Checks of the exercises of lesson 5. Each looks for the likely mistakes first, so that the message names them."""

import math

import numpy as np
import torch

from dlopt_course.app.exercises.judge import close, number, rule_out
from dlopt_course.core import expect


def _array(value, shape: tuple, what: str) -> np.ndarray:
    "The value, if it is an array of finite numbers of this shape."
    good = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    expect(good, f"{what} should be a NumPy array of real numbers, got {type(value).__name__}")
    expect(value.shape == shape, f"{what} should have shape {shape}, got {value.shape}")
    expect(np.isfinite(value).all(), f"{what} should be finite, got {value[~np.isfinite(value)][:1]}")
    return value


_SHAPES = {"0.weight": (5, 64), "0.bias": (5,), "2.weight": (10, 5), "2.bias": (10,)}


def _gradients_of_torch(x, y) -> dict:
    "The gradients of the network of zeros, by autograd."
    model = torch.nn.Sequential(torch.nn.Linear(64, 5), torch.nn.ReLU(), torch.nn.Linear(5, 10)).double()
    for p in model.parameters():
        torch.nn.init.zeros_(p)
    torch.nn.functional.cross_entropy(model(torch.tensor(x)), torch.tensor(y)).backward()
    return {name: p.grad.numpy() for name, p in model.named_parameters()}


def zero(answer) -> None:
    "Exercise 1."
    rng = np.random.default_rng(5)
    for n in (40, 7):
        x, y = rng.normal(size=(n, 64)), rng.integers(0, 9, n)  # no 9: a class without samples
        got, right = answer(x, y), _gradients_of_torch(x, y)
        expect(isinstance(got, dict), f"return a dict of arrays by name, got {type(got).__name__}")
        expect(set(got) == set(_SHAPES), f"the names should be {', '.join(_SHAPES)}, got {', '.join(map(str, got))}")
        for name, shape in _SHAPES.items():
            _array(got[name], shape, f"the gradient of {name}")
        _judge_zero(got, right["2.bias"], n)


def _judge_zero(got, bias, n) -> None:
    "What is right and wrong about the four gradients of exercise 1."
    told = "the hidden units are all 0, so what would multiply the slopes of the logits is 0"
    expect(not got["2.weight"].any(), f"2.weight has no gradient: {told}")
    told = "the slopes come down through 2.weight, which is 0"
    for name in ("0.weight", "0.bias"):
        expect(not got[name].any(), f"{name} has no gradient: {told}")
    mistakes = {
        "one gradient is not 0: that of the last bias. Nothing multiplies it": np.zeros(10),
        "2.bias: the sign; the gradient is softmax minus one-hot": -bias,
        "2.bias: that is the sum over the samples, the loss is their mean": n * bias,
        "2.bias: that is only one-hot; softmax of ten zeros is 0.1 each": bias - 0.1,
    }
    rule_out(got["2.bias"], mistakes)
    where = int(np.argmax(np.abs(got["2.bias"] - bias)))
    told = f"2.bias[{where}] is {got['2.bias'][where]:.4g}, should be {bias[where]:.4g}"
    expect(close(got["2.bias"], bias), told)


_ACTIVATIONS = {  # by name: the function and its gain, by SciPy's adaptive quadrature
    "ReLU": (lambda z: np.maximum(z, 0), 1.414214),
    "leaky ReLU with slope 0.5": (lambda z: np.where(z > 0, z, 0.5 * z), 1.264911),
    "the identity": (lambda z: 1.0 * z, 1.0),
    "tanh": (np.tanh, 1.592537),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), 1.846229),
    "GELU, tanh form": (lambda z: z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2, 1.533581),
}


def gain(answer) -> None:
    "Exercise 2."
    z = np.linspace(-9, 9, 18_001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    for name, (activation, right) in _ACTIVATIONS.items():
        got = number(answer(activation), f"the gain of {name}")
        y = activation(z)
        square = density @ y**2
        if not close(got, right, 3e-3):
            _say_what_gain(got, y, density, square, name)
            expect(False, f"the gain of {name} is {got:.5g}, should be {right:.4f}")


def _say_what_gain(got, y, density, square, name) -> None:
    "The likely mistakes of exercise 2."
    mistakes = {
        "this is the mean square itself; the gain makes up for it": square,
        "this divides by the mean square: the gain multiplies weights, so take the root": 1 / square,
        "the wrong way round: what the activation takes away has to be given back": math.sqrt(square),
        "the variance is not the mean square: do not subtract the mean (part 2)": (square - (density @ y) ** 2) ** -0.5,
        "the mean of |activation| is not the root of its mean square": 1 / (density @ np.abs(y)),
        "the masses should add up to 1: divide by the root of 2 pi, or by their sum": (2.50663 * square) ** -0.5,
        "all z count alike here; weigh them by the normal density": np.mean(y**2) ** -0.5,
    }
    right = square**-0.5
    for message, value in mistakes.items():
        apart = not close(value, right, 3e-3)
        expect(not (apart and close(got, value, 3e-3)), f"{name}: {message}")


def he(answer) -> None:
    "Exercise 3."
    for shape in ((400, 100), (50, 900), (64, 16, 5, 3)):
        weight = _array(answer(shape, np.random.default_rng(3)), shape, "the weights")
        spread, right = float(weight.std()), math.sqrt(2 / math.prod(shape[1:]))
        mistakes = {m: s / right for m, s in _wrong_spreads(*shape).items() if abs(s / right - 1) > 0.1}
        rule_out(spread / right, mistakes, 0.03)
        told = f"shape {shape}: the standard deviation is {spread:.4g}, should be {right:.4g}"
        expect(abs(spread / right - 1) < 0.03, told)
        expect(abs(weight.mean()) < 0.03 * right, f"shape {shape}: the mean should be 0, got {weight.mean():.3g}")
    fresh = [answer((3, 4), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    drawn = close(fresh[0], fresh[1]) and not close(fresh[0], fresh[2])
    expect(drawn, "draw from the rng that is given: one seed should give one result, another seed another")


def _wrong_spreads(outputs, inputs, *kernel) -> dict:
    "The standard deviations that come of the likely mistakes of exercise 3."
    fan_in, fan_out = inputs * math.prod(kernel), outputs * math.prod(kernel)
    return {
        "still as given: it is more than one thing that is wrong": 2 / outputs,
        "rng.normal takes the standard deviation, and 2 / fan_in is the variance": 2 / fan_in,
        "the first axis counts the outputs; a sum runs over the inputs": math.sqrt(2 / outputs),
        "that is fan_out: an output adds up the inputs": math.sqrt(2 / fan_out),
        "that is the start of LeCun; ReLU takes away half of the mean square": math.sqrt(1 / fan_in),
        "a convolution adds up all inputs under the whole kernel": math.sqrt(2 / inputs),
    }


def residual(answer) -> None:
    "Exercise 4."
    for depth, growth in ((50, math.e), (10, 2.0), (1, 5.0), (3, 1.331)):
        got = number(answer(depth, growth), "alpha")
        mistakes = {
            "that is alpha squared: the mean square grows by 1 + alpha^2 a block": growth ** (1 / depth) - 1,
            "that is the factor of a block; solve 1 + alpha^2 = factor for alpha": growth ** (1 / depth),
            "that is for very many blocks, log(growth) / depth; exactly, please": math.sqrt(math.log(growth) / depth),
            "growth over depth adds up the blocks; they multiply": math.sqrt((growth - 1) / depth),
        }
        right = math.sqrt(growth ** (1 / depth) - 1)
        rule_out(got, {m: v for m, v in mistakes.items() if not close(v, right)})
        reached = (1 + got**2) ** depth
        expect(got > 0, f"alpha should be greater than 0, got {got:.4g}")
        expect(
            close(reached, growth), f"{depth} blocks with alpha {got:.4g} grow by {reached:.4g}, wanted {growth:.4g}"
        )


def orthogonal(answer) -> None:
    "Exercise 5."
    for outputs, inputs in ((4, 4), (7, 3), (3, 7)):
        w = _array(answer(outputs, inputs, np.random.default_rng(1)), (outputs, inputs), "the matrix")
        gram, what = (w @ w.T, "rows") if outputs < inputs else (w.T @ w, "columns")
        told = f"{outputs}x{inputs}: the {what} should be orthonormal; their inner products are off by up to"
        gap = np.abs(gram - np.eye(len(gram))).max()
        expect(gap < 1e-9, f"{told} {gap:.2g}")
    rng = np.random.default_rng(2)
    for outputs, inputs in ((4, 4), (5, 3), (3, 5)):
        draws = np.array([answer(outputs, inputs, rng) for _ in range(2000)])
        _expect_fair(draws, f"of 2000 {outputs}x{inputs} matrices, the element")


def _expect_fair(draws, told) -> None:
    "Raises unless every element is as often negative as positive, and no pattern of two signs is preferred."
    negative = np.mean(draws < 0, axis=0)
    i, j = np.unravel_index(np.argmax(np.abs(negative - 0.5)), negative.shape)
    advice = "QR of a Gaussian matrix fixes signs by convention: multiply each column of Q by the sign of R's diagonal"
    expect(abs(negative[i, j] - 0.5) < 0.07, f"{told} [{i}, {j}] is negative in {negative[i, j]:.0%}; {advice}")
    together = np.mean(np.sign(draws) * np.sign(draws[:, :1, :1]), axis=0)
    together[0, 0] = 0.0
    worst = np.abs(together).max()
    expect(worst < 0.13, f"{told}s are fair one by one, but two of them mostly agree or differ in sign; {advice}")


def data(answer) -> None:
    "Exercise 6."
    rng = np.random.default_rng(4)
    x = 3 * rng.normal(size=(60, 8)) + 1
    for scale in (1.0, 1e4, 1e-4):
        weights = [scale * rng.normal(size=shape) for shape in ((20, 8), (30, 20), (10, 30), (10, 10))]
        kept = [w.copy() for w in weights]
        got = answer(weights, x)
        expect(isinstance(got, (list, tuple)) and len(got) == 4, "return a list with as many matrices as were given")
        expect(all(map(np.array_equal, weights, kept)), "the weights that were given should not be changed")
        for i, (w, given) in enumerate(zip(got, weights, strict=True)):
            _array(w, given.shape, f"matrix {i}")
            ratio = w / given
            one = close(ratio / ratio[0, 0], np.ones_like(ratio)) and ratio[0, 0] > 0
            expect(one, f"matrix {i} should be the given one times one positive number")
        _judge_data(got, weights, x)


def _judge_data(got, weights, x) -> None:
    "Looks at the sizes in each layer, and says what a wrong one comes from."
    h = old = x
    for i, (w, given) in enumerate(zip(got, weights, strict=True)):
        z, before, fresh = h @ w.T, old @ given.T, h @ given.T
        size, ratio, root = np.mean(z**2), w[0, 0] / given[0, 0], math.sqrt(np.mean(before**2))
        mistakes = {
            "this divides by the mean square: take its root": 1 / np.mean(fresh**2),
            "the variance is not the mean square: do not subtract the mean": 1 / fresh.std(),
            "this divides by the size after the tanh, not before": np.mean(np.tanh(fresh) ** 2) ** -0.5,
            "the outputs below have changed with their matrices: send the new ones up, not the old": 1 / root,
        }
        if not close(size, 1, 1e-6):
            expect(ratio != 1, f"matrix {i} is as it was given, its outputs have mean square {size:.3g}")
            rule_out(1.0, {message: value / ratio for message, value in mistakes.items()})
            expect(False, f"in layer {i} the outputs have mean square {size:.4g}, should be 1")
        h, old = np.tanh(z), np.tanh(before)


CHECKS = {"zero": zero, "gain": gain, "he": he, "residual": residual, "orthogonal": orthogonal, "data": data}
