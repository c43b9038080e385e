"""Checks of the exercises of lesson 2. Each looks for the likely mistakes first, so that the message names them."""

import math
from fractions import Fraction
from itertools import count

import numpy as np
import scipy.optimize
import scipy.signal
import torch

from dlopt_course.app.exercises.judge import array, close, number, quietly, rule_out
from dlopt_course.core import expect
from dlopt_course.optim import Rule, add_decayed_weights, chain, scale_by_learning_rate, scale_by_momentum


def _numbers(result, *what: str) -> list[float]:
    "As many numbers as there are names, from a tuple."
    good = isinstance(result, (tuple, list)) or (isinstance(result, np.ndarray) and result.ndim > 0)
    good = good and len(result) == len(what)
    expect(good, f"return {len(what)} numbers, {' and '.join(what)}, got {result!r:.60}")
    return [number(value, name) for value, name in zip(result, what, strict=True)]


def _whole(value, what: str) -> int:
    "The value as an int, if it is a whole number."
    value = number(value, what)
    expect(value == round(value), f"{what} should be a whole number, got {value:.6g}; round it up")
    return round(value)


def best(answer) -> None:
    "Exercise 1. With one or two curvatures some mistakes are right, so four come first."
    for curvatures in ([2.0, 0.5, 8.0, 5.0], [1.0, 0.04], [4.0, 4.0], [0.3]):
        given = np.array(curvatures)
        rate, factor = _numbers(quietly(answer, given), "the rate", "the factor")
        expect(given.tolist() == curvatures, "the array that came in was changed; sort a copy, or do not sort at all")
        if len(curvatures) == 4:
            _rule_out_best(given, rate, factor)
        best_rate, least = _least_factor(given)
        told = f"for curvatures {curvatures} the"
        expect(close(rate, best_rate), f"{told} rate is {rate:.6g}, should be {best_rate:.6g}")
        expect(close(factor, least), f"the rate is right; {told} factor is {factor:.6g}, should be {least:.6g}")


def _least_factor(curvatures) -> np.ndarray:
    "The rate and the least rho with |1 - rate c| <= rho for each curvature c, as a linear programme."
    upper = np.stack([np.append(-curvatures, curvatures), np.full(2 * len(curvatures), -1.0)], axis=1)
    return scipy.optimize.linprog([0, 1], upper, np.repeat([-1.0, 1.0], len(curvatures))).x


def _rule_out_best(curvatures, rate, factor) -> None:
    "Known mistakes of exercise 1."
    low, high = min(curvatures), max(curvatures)
    best_rate, least = _least_factor(curvatures)
    rule_out([rate, factor], {"the other way round: first the rate, then the factor": [least, best_rate]})
    rates = {
        "1 / L is the safe step of the descent lemma; go further, until both ends are equally slow": 1 / high,
        "2 / L is the edge: there the steepest direction does not shrink at all": 2 / high,
        "the mean of all curvatures does not matter, only the least and the largest do": 1 / curvatures.mean(),
        "this takes the first and the last curvature; the array need not be in order": 2 / curvatures[[0, -1]].sum(),
        "half of the best: solve 1 - rate * least = rate * largest - 1": 1 / (low + high),
        "that is the best rate of momentum, with square roots": 4 / (math.sqrt(low) + math.sqrt(high)) ** 2,
    }
    rule_out(rate, rates)
    rule_out(factor, _wrong_factors(high / low))


def _wrong_factors(kappa) -> dict:
    "Known mistakes of exercise 1 when the rate is right."
    return {
        "the rate is right; the factor is a size, so not negative": -_rate_of(kappa),
        "the rate is right; 1 - 1 / kappa is the factor of the rate 1 / L": 1 - 1 / kappa,
        "the rate is right; this is the factor of the best momentum": _rate_of(math.sqrt(kappa)),
        "the rate is right; this is the factor of the loss, the square of the error's": _rate_of(kappa) ** 2,
        "the rate is right; the factor is asked for, not the condition number": kappa,
    }


def _rate_of(k):
    "(k - 1) / (k + 1), exact for fractions."
    return (k - 1) / (k + 1)


_KAPPAS, _SHRINKS = (9, 100, 4, 36), (1000, 50, 10**6, 200)  # kappa is square, so that both rates are fractions
_METHODS = "the steps of gradient descent", "the steps of momentum"


def steps(answer) -> None:
    "Exercise 2."
    pairs = [_numbers(quietly(answer, float(k), float(s)), *_METHODS) for k, s in zip(_KAPPAS, _SHRINKS, strict=True)]
    got = [[_whole(pair[i], name) for pair in pairs] for i, name in enumerate(_METHODS)]
    numbers = _KAPPAS, [math.isqrt(kappa) for kappa in _KAPPAS]
    right = [_counted(k) for k in numbers]
    rule_out(got, {"the other way round: gradient descent first": right[::-1]})
    rule_out(got[0], {"gradient descent has kappa itself; only momentum has its root": right[1]})
    rule_out(got[1], {"momentum has the square root of kappa where gradient descent has kappa": right[0]})
    for name, k, ours, good in zip(_METHODS, numbers, got, right, strict=True):
        rule_out(ours, {f"{name}: {message}": value for message, value in _wrong_counts(k).items()})
        for case in zip(_KAPPAS, _SHRINKS, ours, good, strict=True):
            told = f"{name}, " + "for kappa = {} and shrink = {}: got {}, should be {}".format(*case)
            expect(case[2] == case[3], told)


def _counted(numbers) -> list[int]:
    "Steps at the rate (k - 1) / (k + 1), counted one by one in exact fractions."
    rates = [_rate_of(Fraction(k)) for k in numbers]
    return [next(t for t in count() if rate**t * s <= 1) for rate, s in zip(rates, _SHRINKS, strict=True)]


def _wrong_counts(numbers) -> dict:
    "Known mistakes of exercise 2, where k is kappa or its root."
    k, logarithm = np.array(numbers), np.log(_SHRINKS)
    exact = logarithm / -np.log(_rate_of(k))
    return {
        "rounded down; after so few the error is still too large": np.floor(exact),
        "rounded to the nearest; where that is down the error is still too large": np.round(exact),
        "log10 of one, natural logarithm of the other; take the same for both": np.ceil(exact / math.log(10)),
        "1 - 1/k is not the best rate; that is (k - 1) / (k + 1)": np.ceil(logarithm / -np.log(1 - 1 / k)),
        "k/2 log(shrink) is the approximation for large k; take the logarithm of the rate": np.ceil(k / 2 * logarithm),
        "the loss shrinks by the square of the rate (so does momentum's beta); the error by the rate": np.ceil(
            exact / 2
        ),
    }


def _slope(point):
    "A gradient that is not linear."
    return np.array([0.1, 1.0, 3.0]) * point + np.sin(point)


_THETA, _LR, _BETA = np.array([2.0, -1.5, 0.7]), 0.1, 0.8


def nesterov(answer) -> None:
    "Exercise 3."
    theta = _THETA.copy()
    one = array(answer(_slope, theta, _LR, _BETA, 1), theta.shape, "theta after one step")
    expect(np.array_equal(theta, _THETA), "the theta that came in was changed: write theta = theta + v, not theta += v")
    first = _LR * _slope(_THETA)
    mistakes = {
        "uphill: the new velocity is beta v *minus* the learning rate times the gradient": _THETA + first,
        "this is the velocity; return theta": -first,
        "the gradient counts in full, not by 1 - beta; that is the average form": _THETA - (1 - _BETA) * first,
        "this is the look-ahead point theta + beta v, which libraries keep; return theta": _nesterov_by_torch(1)[0],
        "one step too many": _nesterov_by_torch(2)[1],
    }
    rule_out(one, mistakes)
    told = f"got {one.round(4).tolist()}, should be {(_THETA - first).round(4).tolist()}"
    expect(close(one, _THETA - first), f"without velocity the first step is plain gradient descent: {told}")
    _judge_nesterov(array(answer(_slope, theta, _LR, _BETA, 7), theta.shape, "theta after seven steps"))


def _judge_nesterov(got) -> None:
    "What is left to say of exercise 3 when the first step is right."
    mistakes = {
        "the first step is right; then the gradient is taken at theta, which is the heavy ball": _coast(0.0),
        "the gradient is taken at theta + v; one coasts by the damped velocity, beta v": _coast(1.0),
        "it looks back, not ahead: where theta moves by minus v, one coasts to theta - beta v": _coast(-_BETA),
        "the velocity is forgotten: this is plain gradient descent": _coast(0.0, beta=0.0),
        "this coasts twice: the new v holds beta times the old one already": _coast(_BETA, twice=_BETA),
    }
    rule_out(got, mistakes)
    right = _nesterov_by_torch(7)[1]
    told = f"got {got.round(4).tolist()}, should be {right.round(4).tolist()}"
    expect(close(got, right), f"the first step is right; after seven steps {told}")


def _coast(look: float, beta: float = _BETA, twice: float = 0.0) -> np.ndarray:
    "Seven steps with the gradient at theta + look v, for wrong answers."
    theta, v = _THETA, 0 * _THETA
    for _ in range(7):
        before, v = v, beta * v - _LR * _slope(theta + look * v)
        theta = theta + twice * before + v
    return theta


def _nesterov_by_torch(steps: int) -> tuple:
    "torch's parameter, which is the look-ahead point, and the theta behind it."
    ahead = torch.tensor(_THETA, requires_grad=True)
    engine = torch.optim.SGD([ahead], _LR, momentum=_BETA, nesterov=True)
    for _ in range(steps):
        ahead.grad = torch.tensor(_slope(ahead.detach().numpy()))
        engine.step()
    point, velocity = ahead.detach().numpy(), -_LR * engine.state[ahead]["momentum_buffer"].numpy()
    return point, point - _BETA * velocity


_SIZES = np.array([1e-5, 1.0, -3e-7, 200.0, 0.0, -1e-3])  # of gradients


def bug(answer) -> None:
    "Exercise 4: the first step by its direction, (param - new param) / lr, then four steps of torch."
    given = {"param": np.ones(6), "grad": _SIZES.copy(), "m": np.zeros(6), "v": np.zeros(6)}
    before = {name: x.copy() for name, x in given.items()}
    param, m, _ = _three(quietly(answer, *given.values(), 1), 1)
    for name, x in given.items():
        kept = np.array_equal(x, before[name])
        expect(kept, f"the {name} that came in was changed; make a new array, as in m = beta1 * m + …, not m *= beta1")
    expect(np.all(np.isfinite(param)), "not finite where the gradient is 0: eps has to prevent 0 / 0")
    rule_out((1 - param) / 1e-3, _wrong_directions(_SIZES))
    rule_out(m, {"return m and v as they are kept; m_hat and v_hat are for this step alone": _SIZES})
    for options in ({}, {"lr": 0.1, "beta1": 0.5, "beta2": 0.9, "eps": 1e-3}):
        _judge_bug(answer, options)


def _three(result, t: int) -> list[np.ndarray]:
    "The new param, m and v of step t."
    good = isinstance(result, tuple) and len(result) == 3
    expect(good, f"return three things, the new param, m and v, got {result!r:.60}")
    return [array(x, (6,), f"{name} after step {t}") for name, x in zip(("param", "m", "v"), result, strict=True)]


def _wrong_directions(g) -> dict:
    "Known mistakes of exercise 4, as what they make of a first gradient; 1 - beta is 0.1 and 0.001."
    size = np.abs(g)
    return {
        "still as given: both mistakes are there": g / np.sqrt(g**2 / 100 + 1e-8),
        "one of two found: eps is outside the root, but v is still corrected by beta1": g / (size / 10 + 1e-8),
        "one of two found: v is corrected by beta2, but eps is still inside the root": g / np.sqrt(g**2 + 1e-8),
        "eps is added before v is corrected, so the correction enlarges it": g / (size + 1e-8 / math.sqrt(0.001)),
        "uphill: a step goes against the gradient": -g / (size + 1e-8),
        "m is corrected by beta2 now; that one was right": 100 * g / (size + 1e-8),
        "m is not corrected any more": g / 10 / (size + 1e-8),
        "v is not corrected any more": g / (size * math.sqrt(0.001) + 1e-8),
        "neither m nor v is corrected any more": g / 10 / (size * math.sqrt(0.001) + 1e-8),
        "the root of v_hat is missing": g / (g**2 + 1e-8),
        "t is counted from 1 already; add nothing": g / 1.9 / (size / math.sqrt(1.999) + 1e-8),
    }


def _judge_bug(answer, options) -> None:
    "What is left to say of exercise 4 when no known mistake was made."
    before = (np.zeros(6),) * 3
    for t, (grad, after) in enumerate(_adam_by_torch(**options), 1):
        param, m, v = before
        got = _three(quietly(answer, param.copy(), grad.copy(), m.copy(), v.copy(), t, **options), t)
        for name, a, b in zip(("param", "m", "v"), got, after, strict=True):
            i, told = np.argmax(np.abs(a - b)), f"{name} is wrong after step {t} with {options or 'the defaults'}"
            told = f"{told}: where the gradient is {grad[i]:g} it is {a[i]:.6g}, should be {b[i]:.6g}"
            expect(close(a, b), f"{told}; there were two mistakes, no more")
        before = after


def _adam_by_torch(lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8) -> list[tuple]:
    "Four steps by torch: each gradient, and (param, m, v) after it."
    param = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    engine, done = torch.optim.Adam([param], lr, (beta1, beta2), eps), []
    for factor in (1.0, -2.0, 0.5, 3.0):
        param.grad = torch.tensor(factor * _SIZES)
        engine.step()
        kept = engine.state[param]
        after = tuple(x.detach().numpy().copy() for x in (param, kept["exp_avg"], kept["exp_avg_sq"]))
        done.append((factor * _SIZES, after))
    return done


_RUNS = [(1.2, 1.0, 5.0, 0.29), (0.5, 0.4, 30.0, 0.7), (0.1, 2.0, 9.0, 0.022)]  # lr, curvature, variance, target
_EDGES = [(1.0, 1.0, 4.0, 0.5), (0.1, 1.0, 1.0, 10.0), (0.5, 1.0, 0.0, 1.0)]  # exactly met; by one example; no noise


def batch(answer) -> None:
    "Exercise 5."
    rule_out([_whole(quietly(answer, *run), "the batch size") for run in _RUNS], _wrong_batches(*np.transpose(_RUNS)))
    for run in _RUNS + _EDGES:
        size = _whole(quietly(answer, *run), "the batch size")
        told = "for lr = {}, curvature = {}, variance = {}, target = {}".format(*run)
        expect(size >= 1, f"{told}: got {size}, but a batch has at least one example")
        smallest = next(b for b in count(1) if _settles_at(b, *run[:3]) <= run[3])
        reached = f"got {size}, where the error settles at {float(_settles_at(size, *run[:3])):.4g}"
        expect(size == smallest, f"{told}: {reached}; the smallest batch that does it is {smallest}")


def _settles_at(size, *run) -> Fraction:
    "Where e2 = (1 - lr curvature)^2 e2 + lr^2 variance / size, solved exactly."
    lr, curvature, variance = map(Fraction, run)
    return lr**2 * variance / size / (1 - (1 - lr * curvature) ** 2)


def _wrong_batches(lr, curvature, variance, target) -> dict:
    "Known mistakes of exercise 5."
    left = 2 - lr * curvature
    size = lr * variance / (curvature * left) / target
    sizes = {
        "that is the approximation for small rates; keep 2 - lr curvature": size * left / 2,
        "the factor is 2 - lr curvature, not 1 - lr curvature": size * left / (left - 1),
        "the floor is divided by the curvature, too": size * curvature,
        "the target is the mean square error, not the loss": size * curvature / 2,
        "the target is a mean square error already; do not square it": size / target,
        "this compares the root of the floor; the target is a mean square error": np.sqrt(size / target),
        "the variance is s^2 already; do not square it": size * variance,
    }
    return _roundings(size) | {message: np.ceil(wrong) for message, wrong in sizes.items()}


def _roundings(size) -> dict:
    "Known mistakes of exercise 5 when the size is right."
    return {
        "rounded down: with so few examples the error settles above the target": np.floor(size),
        "rounded to the nearest; where that is down the error settles above the target": np.round(size),
    }


_GRADS = {"weight": np.array([[3.0, 0.0], [0.0, -4.0]]), "bias": np.array([12.0])}  # norms 5 and 12, together 13


def _flat(grads: dict) -> np.ndarray:
    "All arrays in one."
    return np.concatenate([np.ravel(g) for g in grads.values()])


def _clipped(answer, grads: dict, max_norm: float) -> np.ndarray:
    "The answer in one array, if it is a new dict of the same names and shapes, and the old one is as it was."
    given = {name: g.copy() for name, g in grads.items()}
    result = quietly(answer, given, max_norm)
    expect(isinstance(result, dict), f"return a dict of arrays, got {result!r:.60}")
    expect(result is not given, "return a new dict, not the one that came in")
    same = given.keys() == grads.keys() and all(np.array_equal(given[name], g) for name, g in grads.items())
    expect(same, "the gradients that came in were changed: make new arrays, as factor * g does")
    expect(result.keys() == grads.keys(), f"keep the names, {list(grads)}; got {list(result)}")
    return _flat({name: array(result[name], g.shape, f"the array {name!r}") for name, g in grads.items()})


def clip(answer) -> None:
    "Exercise 6. The norm is a whole number, so that the right factor is known."
    old, got = _flat(_GRADS), _clipped(answer, _GRADS, 3.25)
    rule_out(got, _wrong_clips(old))
    told = f"{old.tolist()} has norm 13 and was clipped to norm 3.25: got {got.round(4).tolist()}"
    expect(close(got, old / 4), f"{told}, should be {(old / 4).tolist()}")
    for max_norm in (13.0, 26.0):
        got = _clipped(answer, _GRADS, max_norm)
        rule_out(got, {"short gradients were made longer: the factor is never above 1": 2 * old})
        expect(close(got, old), f"gradients of norm 13 should stay as they are at max_norm {max_norm}, got {got}")
    _judge_zeros(answer)
    _judge_clip(answer)


def _wrong_clips(old) -> dict:
    "Known mistakes of exercise 6: what they make of gradients of norm 13 that should be 13 / 4."
    return {
        "nothing was clipped": old,
        "each array was clipped by itself: take one norm over all arrays": old * 3.25 / np.array([5, 5, 5, 5, 12]),
        "each number was cut by itself, which turns the direction; multiply all by one factor": old.clip(-3.25, 3.25),
        "this divides by the squared norm; the root is missing": old * 3.25 / 169,
        "the norms of the arrays were added; add their squares and take the root": old * 3.25 / 17,
        "this takes the sum of the sizes for the norm; add squares and take the root": old * 3.25 / 19,
        "this takes the largest number for the norm; add squares and take the root": old * 3.25 / 12,
        "this takes the mean of the squares; a norm is the root of their sum": old * 3.25 / 13 * math.sqrt(5),
        "the norm became 1, not max_norm: multiply by max_norm / norm": old / 13,
        "leave out the 1e-6: the norm should be max_norm exactly": old * 3.25 / (13 + 1e-6),
    }


def _judge_zeros(answer) -> None:
    "Exercise 6 when there is nothing to clip; Python's numbers raise where NumPy's give NaN."
    try:
        got = _clipped(answer, {name: 0 * g for name, g in _GRADS.items()}, 1.0)
    except ZeroDivisionError:
        got = np.array(np.nan)
    expect(np.all(np.isfinite(got)), "not finite where all gradients are 0: their norm is 0, do not divide by it")
    expect(not np.any(got), f"gradients that are all 0 should stay so, got {got.tolist()}")


def _judge_clip(answer) -> None:
    "Exercise 6 on other shapes, one array 0, against torch, which adds 1e-6 to the norm."
    rng = np.random.default_rng(3)
    grads = {"a": rng.normal(size=(2, 3, 4)), "b": np.zeros(5), "c": rng.normal(size=7) * 100}
    tensors = [torch.zeros(g.shape, dtype=torch.float64) for g in grads.values()]
    for tensor, g in zip(tensors, grads.values(), strict=True):
        tensor.grad = torch.tensor(g)
    torch.nn.utils.clip_grad_norm_(tensors, 10.0)
    right = np.concatenate([tensor.grad.numpy().ravel() for tensor in tensors])
    got = _clipped(answer, grads, 10.0)
    expect(np.all(np.isfinite(got)), "not finite where one array is 0 and others are not")
    expect(close(got, right, 1e-6), "right for two arrays, not equal to torch's for three of other shapes")


_START = np.array([3.0, -2.0, 0.5, 2.0])
_LINKS = {  # some for wrong answers only
    "momentum": scale_by_momentum(0.9),
    "nesterov": scale_by_momentum(0.9, nesterov=True),
    "sign": Rule(lambda param: {}, lambda grad, state, param: (np.sign(grad), state)),
    "minus": Rule(lambda param: {}, lambda grad, state, param: (-grad, state)),
    "decay": add_decayed_weights(0.5),
    "rate": scale_by_learning_rate(0.1),
}
_WRONG_CHAINS = {
    "the sign comes before the momentum: take the sign of the velocity": "sign momentum decay rate",
    "the sign swallows the decay, which comes before it; put the decay after": "momentum decay sign rate",
    "the decay enters the velocity, an L2 penalty; decoupled, it comes after the sign": "decay momentum sign rate",
    "the weights are not decayed": "momentum sign rate",
    "the decay comes after the learning rate, where nothing multiplies it by -lr": "momentum sign rate decay",
    "this is the sign of the gradient; the momentum is missing": "sign decay rate",
    "the sign is missing: this is gradient descent with momentum": "momentum decay rate",
    "uphill: the move should be against the sign, and make weights smaller": "momentum sign decay rate minus",
    "uphill: the last link turns the sign already; the decay is right": "momentum minus sign decay rate",
    "the learning rate is missing": "momentum sign decay minus",
    "this looks ahead as Nesterov does; take the sign of the velocity itself": "nesterov sign decay rate",
}


def signum(answer) -> None:
    "Exercise 7."
    rule = answer(0.1, 0.9, 0.5)
    expect(hasattr(rule, "update"), f"return a Rule, which is what chain(…) makes, got {rule!r:.60}")
    for link in rule.parts or (rule,):
        _expect_link(link)
    rule, grads = answer(0.1, 0.9, 0.5), _few_grads()
    got = _follow(rule, grads)
    for message, names in _WRONG_CHAINS.items():
        rule_out(got, {message: _follow(chain(*map(_LINKS.get, names.split())), grads)})
    _judge_signum(got, _signum_by_torch(grads, 0.1, 0.9, 0.5), "lr = 0.1, momentum = 0.9, weight_decay = 0.5")
    again = "the second time it moves otherwise: what a rule remembers belongs into its state, which init makes"
    expect(close(_follow(rule, grads), got), again)
    plain = _follow(answer(0.2, 0.0, 0.0), grads)
    _judge_signum(plain, _signum_by_torch(grads, 0.2, 0.0, 0.0), "lr = 0.2, momentum = 0, weight_decay = 0")


def _few_grads() -> np.ndarray:
    "Eight gradients of four weights; those of the last weight are 0."
    return np.random.default_rng(4).normal(size=(8, 4)) * np.array([1.0, 5.0, 0.01, 0.0])


def _expect_link(link) -> None:
    "Fails unless a rule has the form of a rule, and changes nothing."
    param, grad = np.array([1.0, -2.0, 3.0]), np.array([0.5, 0.0, -4.0])
    state = link.init(param)
    expect(isinstance(state, dict), f"init(param) should return a dict, {{}} where nothing is kept, got {state!r:.60}")
    result = link.update(grad, state, param)
    good = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
    expect(good, f"update(grad, state, param) should return two things, direction and state, got {result!r:.60}")
    array(result[0], (3,), "the direction that update returns")
    same = param.tolist() == [1.0, -2.0, 3.0] and grad.tolist() == [0.5, 0.0, -4.0]
    expect(same, "update changed the gradient or the parameter; return a new array")


def _follow(rule, grads) -> np.ndarray:
    "All points that a rule visits."
    point, state, points = _START, rule.init(_START), []
    for grad in grads:
        move, state = rule.update(grad.copy(), state, point.copy())
        point = point + move
        points.append(point)
    return np.array(points)


def _signum_by_torch(grads, lr, momentum, decay) -> np.ndarray:
    "Velocities by SciPy's recursive filter; their signs go to torch's SGD, where an L2 penalty is decoupled decay."
    signs = np.sign(scipy.signal.lfilter([1.0], [1.0, -momentum], grads, axis=0))
    point = torch.tensor(_START, requires_grad=True)
    engine, points = torch.optim.SGD([point], lr, weight_decay=decay), []
    for sign in signs:
        point.grad = torch.tensor(sign)
        engine.step()
        points.append(point.detach().numpy().copy())
    return np.array(points)


def _judge_signum(got, right, where: str) -> None:
    "What is left to say of exercise 7: the first step that is wrong."
    still = "a weight whose gradients are 0 moves by its decay alone: the sign of 0 is 0"
    expect(close(got[:, 3], right[:, 3]) or not close(got[:, :3], right[:, :3]), still)
    for step, (a, b) in enumerate(zip(got, right, strict=True)):
        told = f"got {a.round(4).tolist()}, should be {b.round(4).tolist()}"
        expect(close(a, b), f"for {where} the weights after step {step + 1} are wrong: {told}")


CHECKS = {
    "best": best,
    "steps": steps,
    "nesterov": nesterov,
    "bug": bug,
    "batch": batch,
    "clip": clip,
    "signum": signum,
}
