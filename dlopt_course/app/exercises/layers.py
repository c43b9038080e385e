"""Checks of the exercises of lesson 4. Each looks for the likely mistakes first, so that the message names them."""

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F

from dlopt_course.app.exercises.judge import array, close, number, quietly, rule_out
from dlopt_course.core import expect


def _autograd(f, *arrays, dy=None) -> tuple:
    "torch's output of a function, and its gradient of sum(dy * output) for each array; dy is drawn if not given."
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = f(*leaves)
    dy = _draw(y.shape, 99) if dy is None else dy
    grads = torch.autograd.grad(y, leaves, torch.tensor(dy), allow_unused=True)
    return y.detach().numpy(), [g.numpy() for g in grads], dy


def _draw(shape, seed: int, size: float = 1.0) -> np.ndarray:
    "Normal numbers."
    return size * np.random.default_rng(seed).normal(size=shape)


def _layer(result, shape: tuple) -> tuple:
    "Output and pullback of a layer, if it returned these two."
    good = isinstance(result, tuple) and len(result) == 2 and callable(result[1])
    expect(good, f"return two things, the output and the pullback, a function, got {result!r:.60}")
    return array(result[0], shape, "the output"), result[1]


def _unchanged(arrays, before) -> None:
    "Fails if an argument was changed."
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(arrays, before, strict=True))
    expect(same, "an array that came in was changed; make a new one, as in x = x - m, not x -= m")


def _told(got, right) -> str:
    "The worst place of an array, or a number."
    got, right = np.asarray(got), np.asarray(right)
    i = np.unravel_index(np.argmax(np.abs(got - right)), got.shape)
    where = f"at index {list(map(int, i))} " if i else ""
    return f"{where}it is {got[i]:.6g}, should be {right[i]:.6g}"


def _judge(got, right, mistakes: dict, told: str) -> None:
    "Fails with the message of the known mistake that gives the same; or with the worst place, if it is another one."
    rule_out(got, {message: value for message, value in mistakes.items() if not close(value, right)})
    expect(close(got, right), f"{told}: {_told(got, right)}")


def softmax(answer) -> None:
    "Exercise 1."
    for shape, size in (((3, 4), 1.0), ((5,), 2.0), ((2, 3, 4), 1.0), ((2, 3), 1000.0)):
        x = _draw(shape, 1, size)
        right, (slope,), dy = _autograd(lambda x: torch.softmax(x, -1), x)
        given = x.copy()
        result = quietly(answer, given)
        y, pullback = _layer(result, shape)
        expect(np.isfinite(y).all(), "not finite for scores of ±1000: subtract the largest score of each row first")
        _judge(y, right, _wrong_shares(x, right), f"the shares are wrong for shape {shape}")
        _judge_softmax(quietly(pullback, dy), y, dy, slope)
        _unchanged([given], [x])


def _wrong_shares(x, shares) -> dict:
    "Known mistakes of exercise 1 in the output."
    return {
        "softmax over the whole array; each row of the last axis sums to 1 by itself": _softmax_over(x, None),
        "softmax down the first axis; it runs along the last one": _softmax_over(x, 0),
        "these are logarithms of the shares": np.log(np.maximum(shares, 1e-300)),
    }


def _softmax_over(x, axis) -> np.ndarray:
    "Softmax along another axis."
    flat = torch.tensor(x.reshape(-1) if axis is None else x)
    return torch.softmax(flat, 0).numpy().reshape(x.shape)


def _judge_softmax(dx, y, dy, slope) -> None:
    "The pullback of exercise 1."
    expect(not isinstance(dx, tuple), "the pullback has one argument to return a slope for: the bare array, no tuple")
    dx = array(dx, y.shape, "what the pullback returns")
    along = (y * dy).sum(axis=-1, keepdims=True)
    of_dy = dy.sum(axis=-1, keepdims=True)
    mistakes = {
        "each share depends on all scores of its row; y (1 - y) is the diagonal only": dy * (y * (1 - y)),
        "the sum of y * dy over the row is missing: what one share gains, the others lose": dy * y,
        "a factor y is missing in front": dy - along,
        "the sum is of y * dy; this one is of dy alone": y * (dy - of_dy),
        "the sum of y * dy goes over each row, not over the whole array": y * (dy - (y * dy).sum()),
        "the sum is subtracted": y * (dy + along),
    }
    _judge(dx, slope, mistakes, f"the slope is wrong for shape {y.shape}")


def layernorm(answer) -> None:
    "Exercise 2."
    for shape, eps in (((4, 5), 0.5), ((1, 7), 1e-5), ((3, 2), 0.1)):
        x, weight = _draw(shape, 2) + 3, _draw(shape[1:], 3)
        _, (right, _), dy = _autograd(lambda x, w, e=eps: F.layer_norm(x, w.shape, w, eps=e), x, weight)
        given = x.copy(), dy.copy(), weight.copy()
        dx = array(quietly(answer, *given, eps), shape, "the slope of x")
        mistakes = _wrong_formulas(x, dy, weight, eps) | _wrong_sizes(x, weight * dy, eps)
        _judge(dx, right, mistakes, f"for shape {shape} and eps {eps} the slope is wrong")
        _unchanged(given, (x, dy, weight))


def _norm_slope(x, g, s, axis=1, mean=1.0, along=1.0) -> np.ndarray:
    "The gradient of layer norm with parts that may be wrong."
    u = (x - x.mean(axis=axis, keepdims=True)) / s
    part = (g * u).mean(axis=axis, keepdims=True)
    return (g - mean * g.mean(axis=axis, keepdims=True) - along * u * part) / s


def _size(x, eps, axis=1, ddof=0) -> np.ndarray:
    return np.sqrt(x.var(axis=axis, keepdims=True, ddof=ddof) + eps)


def _wrong_formulas(x, dy, w, eps) -> dict:
    "Known mistakes of exercise 2 with the right sizes."
    g, s, n = w * dy, _size(x, eps), x.shape[1]
    return {
        "mean and size were taken as constants; they move with x, too": g / s,
        "the mean of g is missing: moving x moves the mean": _norm_slope(x, g, s, mean=0),
        "the part along x_hat is missing: moving x moves the size": _norm_slope(x, g, s, along=0),
        "the part along x_hat is subtracted": _norm_slope(x, g, s, along=-1),
        "the weight is missing: the slope of x_hat is g = weight * dy": _norm_slope(x, dy, s),
        "the weight comes first, g = weight * dy; the means are of g": w * _norm_slope(x, dy, s),
        "sums where means should be": _norm_slope(x, g, s, mean=n, along=n),
        "x_hat is divided by s already, x - mean is not": _norm_slope(x, g, s, along=s * s),
    }


def _wrong_sizes(x, g, eps) -> dict:
    "Known mistakes of exercise 2 in what is divided by."
    s = _size(x, eps)
    return {
        "eps is missing": _norm_slope(x, g, _size(x, 0.0)),
        "eps is added to the variance, inside the root": _norm_slope(x, g, _size(x, 0.0) + eps),
        "the division by s is missing": s * _norm_slope(x, g, s),
        "divided by the variance; it is the standard deviation s": _norm_slope(x, g, s) / s,
        "the variance is divided by the number of features, not by one less": _norm_slope(x, g, _size(x, eps, ddof=1)),
        "along axis 0, which is batch norm; each row is one example": _norm_slope(x, g, _size(x, eps, 0), 0),
        "over the whole array; each row is normalised by itself": _norm_slope(x, g, _size(x, eps, None), None),
    }


def adjoint(answer) -> None:
    "Exercise 3."
    for length, taps, stride in ((8, 3, 2), (6, 2, 1), (9, 2, 4), (7, 5, 3), (4, 4, 1)):
        w, x = _draw(taps, 4), np.zeros(length)
        _, (right,), dy = _autograd(lambda x, w=w, s=stride: _conv(x, w, s), x)
        given = dy.copy(), w.copy()
        dx = array(quietly(answer, *given, stride, length), (length,), "the slope of x")
        told = f"for {taps} weights, stride {stride} and length {length} the slope is wrong"
        _judge(dx, right, _wrong_adjoints(dy, w, stride, length), told)
        _unchanged(given, (dy, w))


def _conv(x, w, stride):
    "The convolution of exercise 3 by torch."
    return F.conv1d(x[None, None], torch.tensor(w)[None, None], stride=stride)[0, 0]


def _put_back(dy, w, step, length, add=True) -> np.ndarray:
    "Slopes put back, in steps of another length, or each one over the one before."
    dx = np.zeros(length)
    for j, slope in enumerate(dy):
        place = dx[step * j : step * j + len(w)]
        place[:] = slope * w[: len(place)] + (place if add else 0)
    return dx


def _wrong_adjoints(dy, w, stride, length) -> dict:
    "Known mistakes of exercise 3."
    turned = "the weights are turned round; x[stride * j + k] was multiplied by w[k], so it gets w[k] back"
    return {
        turned: _put_back(dy, w[::-1], stride, length),
        "the stride is missing: output j looked at x[stride * j], not at x[j]": _put_back(dy, w, 1, length),
        "the outputs are not len(w) apart, but `stride`": _put_back(dy, w, len(w), length),
        "where outputs overlap, their slopes add up: += in place of =": _put_back(dy, w, stride, length, add=False),
        "each slope goes back with its weight; the weights are missing": _put_back(dy, np.ones_like(w), stride, length),
        "the slope is turned round: output 0 looked at the start of x": _put_back(dy, w, stride, length)[::-1],
    }


def tame(answer) -> None:
    "Exercise 4."
    for n, size, seed in ((4, 3.0, 5), (6, 0.1, 6), (3, 1.0, 7)):
        weight = _draw((n, n), seed, size)
        given = weight.copy()
        got = array(quietly(answer, given), (n, n), "the matrix")
        _unchanged([given], [weight])
        rule_out(got, _wrong_matrices(weight))
        sizes = np.linalg.svd(got, compute_uv=False) if np.isfinite(got).all() else np.array([np.nan])
        told = f"its singular values are {sizes.round(4).tolist()}, should all be 1"
        expect(close(sizes, np.ones(n)), f"the matrix is not orthogonal: {told}")
        nearest = scipy.linalg.polar(weight)[0]
        far, least = np.linalg.norm(got - weight), np.linalg.norm(nearest - weight)
        told = f"its distance is {far:.6g}, the least is {least:.6g}"
        expect(close(got, nearest), f"orthogonal, but not the nearest such matrix: {told}")


def _wrong_matrices(w) -> dict:
    "Known mistakes of exercise 4."
    u, s, vt = np.linalg.svd(w)
    radius = np.abs(np.linalg.eigvals(w)).max()
    return {
        "divided by the spectral radius: slopes along other directions still vanish": w / radius,
        "divided by the largest singular value: slopes along other directions still vanish": w / s[0],
        "divided by its length; that does not make it orthogonal": w / np.linalg.norm(w),
        "this is the Q of a QR decomposition: orthogonal, but another matrix is nearer": np.linalg.qr(w)[0],
        "np.linalg.svd returns the third factor transposed already": u @ vt.T,
        "the factors are in the wrong order: W = U S V^T, and S should go": vt @ u,
        "this is the inverse of the nearest one; transpose it": (u @ vt).T,
        "nothing has changed": w,
        "the identity is orthogonal, but rarely the nearest such matrix": np.eye(len(w)),
    }


def bug(answer) -> None:
    "Exercise 5."
    for n, inputs, outputs in ((4, 3, 2), (1, 2, 5), (7, 1, 1)):
        arrays = _draw((n, inputs), 8), _draw((outputs, inputs), 9), _draw(outputs, 10)
        right, slopes, dy = _autograd(lambda x, w, b: torch.tanh(x @ w.T + b), *arrays)
        given = [a.copy() for a in arrays]
        y, pullback = _layer(answer(*given), (n, outputs))
        expect(close(y, right), f"the output was right, tanh(x @ weight.T + bias); now {_told(y, right)}")
        result = quietly(pullback, dy)
        good = isinstance(result, tuple) and len(result) == 3
        expect(good, f"the pullback should return the slopes of x, weight and bias, got {result!r:.60}")
        shapes = zip(("x", "weight", "bias"), result, arrays, strict=True)
        grads = [array(g, a.shape, f"the slope of {name}") for name, g, a in shapes]
        _judge_bug(grads, slopes, arrays, dy)
        _unchanged(given, arrays)


def _judge_bug(grads, right, arrays, dy) -> None:
    "The slopes of exercise 5, the likely mistakes first."
    x, w, b = arrays
    z = x @ w.T + b
    y, names = np.tanh(z), ("x", "weight", "bias")
    dz = dy * (1 - y**2)
    wrong = dy * (1 - z**2)
    rule_out(grads[0], {"one mistake is left: the derivative of tanh is 1 - y^2, with the output": wrong @ w})
    rule_out(grads[0], {"the derivative of tanh is gone: dz = dy * (1 - y^2)": dy @ w})
    rule_out(grads[0], {"that is the derivative of the sigmoid; tanh's is 1 - y^2": (dy * y * (1 - y)) @ w})
    if len(x) > 1:
        mistakes = {"one mistake is left: every example moves the bias, so add up all rows of dz": dz[0]}
        mistakes |= {"the sum over the examples, not their mean: the loss has taken its mean already": dz.mean(axis=0)}
        rule_out(grads[2], mistakes)
    for name, got, good in zip(names, grads, right, strict=True):
        expect(close(got, good), f"the slope of {name} is wrong for {len(x)} examples: {_told(got, good)}")


def _square(x):
    "A layer without parameters."
    return x * x, lambda dy: 2 * x * dy


def _affine(x, weight, bias):
    "A layer with two parameters."
    return x @ weight.T + bias, lambda dy: (dy @ weight, dy.T @ x, dy.sum(axis=0))


def residual(answer) -> None:
    "Exercise 6."
    x, w, b = _draw((3, 3), 11), _draw((3, 3), 12), _draw(3, 13)
    cases = {
        "of a layer without parameters": (_square, lambda x: x + x * x, (x,)),
        "of a linear layer": (_affine, lambda x, w, b: x + x @ w.T + b, (x, w, b)),
    }
    for name, (layer, there, arrays) in cases.items():
        right, slopes, dy = _autograd(there, *arrays)
        given = [a.copy() for a in arrays]
        block = answer(layer)
        expect(callable(block), f"return a function (x, *params) -> (y, pullback), got {block!r:.60}")
        y, pullback = _layer(block(*given), x.shape)
        rule_out(y, {f"the output {name}: x itself is missing, y = x + f(x)": right - x})
        expect(close(y, right), f"the output {name} is wrong: {_told(y, right)}")
        _judge_residual(pullback(dy), slopes, dy, name)
        _unchanged(given, arrays)


def _judge_residual(result, right, dy, name) -> None:
    "The pullback of exercise 6."
    good = isinstance(result, tuple) and len(result) == len(right)
    expect(good, f"the pullback {name} should return a tuple of {len(right)}, got {result!r:.60}")
    dx = array(result[0], dy.shape, f"the slope of x {name}")
    mistakes = _wrong_ways(right[0] - dy, dy)
    mistakes = {f"{name}: {message}": value for message, value in mistakes.items()}
    _judge(dx, right[0], mistakes, f"the slope of x {name} is wrong")
    for got, good, what in zip(result[1:], right[1:], ("weight", "bias"), strict=False):
        mistakes = {"the weight is not on the direct way: its slope gets nothing added": good + dy}
        got = array(got, good.shape, f"the slope of the {what}")
        _judge(got, good, mistakes if what == "weight" else {}, f"the slope of the {what} is wrong")


def _wrong_ways(through, dy) -> dict:
    "Known mistakes of exercise 6 in the slope of x, from what comes through the layer."
    return {
        "x reaches the output by itself, too: add dy": through,
        "only the direct way is left: add what the layer's pullback returns for x": dy,
        "the two ways add up, they do not multiply": through * dy,
        "the direct way has the slope dy, not 1": through + 1,
        "the direct way counts once": through + 2 * dy,
    }


def time(answer) -> None:
    "Exercise 7."
    for w, steps, only_last in ((-1.3, 6, False), (0.5, 4, True), (2.0, 1, False), (0.0, 3, False)):
        x, dy = _draw(steps, 14), _draw(steps, 15)
        dy = dy * (np.arange(steps) == steps - 1) if only_last else dy
        given = x.copy(), dy.copy()
        result = quietly(answer, w, *given)
        good = isinstance(result, tuple) and len(result) == 2
        expect(good, f"return two things, dw and dx, got {result!r:.60}")
        got = number(result[0], "dw"), array(result[1], (steps,), "dx")
        _, right, _ = _autograd(_scan, np.array(w), x, dy=dy)
        _judge_time(got, right, w, x, dy)
        _unchanged(given, (x, dy))


def _scan(w, x):
    "The states of exercise 7."
    states = [w * 0 + x[0]]
    for one in x[1:]:
        states.append(w * states[-1] + one)
    return torch.stack(states)


def _judge_time(got, right, w, x, dy) -> None:
    "Exercise 7: first the slopes of the inputs, then that of the weight."
    (dw, dx), slopes = got, right[1]
    _judge(dx, slopes, _wrong_slopes(w, dy, slopes), f"dx is wrong for w = {w} and {len(x)} steps")
    states = _scan(torch.tensor(w, dtype=torch.float64), torch.tensor(x)).numpy()
    before = np.append(0.0, states[:-1])
    mistakes = {
        "dx is right; dw: w multiplies the state *before* the step; this takes the one after it": slopes @ states,
        "dx is right; dw: w multiplies the state before the step; this takes the input": slopes @ x,
        "dx is right; dw: each state's whole slope counts, not dy[t] alone": dy @ before,
        "dx is right; dw: the weight is used at every step: add up over all of them": slopes[-1] * before[-1],
    }
    _judge(dw, right[0], mistakes, f"dx is right; dw is wrong for w = {w}")


def _wrong_slopes(w, dy, slopes) -> dict:
    "Known mistakes of exercise 7 in dx."
    last = dy[-1] * float(w) ** np.arange(len(dy))[::-1]
    forwards = _scan(torch.tensor(w, dtype=torch.float64), torch.tensor(dy)).numpy()
    return {
        "dx: the slopes dy alone: what comes back from the next step, w times its slope, is missing": dy,
        "dx: the slope of the last state alone is carried back; each dy[t] joins on the way": last,
        "dx: multiplied by w once too often: x[t] enters its state with factor 1": w * slopes,
        "dx: this walks forward; the slopes come from the last step": forwards,
    }


CHECKS = {
    "softmax": softmax,
    "layernorm": layernorm,
    "adjoint": adjoint,
    "tame": tame,
    "bug": bug,
    "residual": residual,
    "time": time,
}
