"""Checks of the exercises of lesson 7. Each looks for the likely mistakes first, so that the message names them."""

import math
from inspect import signature

import numpy as np
import sklearn.linear_model
import torch

from dlopt_course.app.exercises.judge import array, close, number, quietly, rule_out
from dlopt_course.core import expect


def dropout(answer) -> None:
    "Exercise 1."
    x = np.random.default_rng(7).uniform(1, 2, (200, 100))

    def output(p, seed, training):
        given = x.copy()
        y = quietly(answer, given, p, np.random.default_rng(seed), training)
        expect(np.array_equal(x, given), "x should not be changed: it belongs to the caller")
        return array(y, x.shape, "the output in training" if training else "the output for prediction")

    for p in (0.2, 0.7, 0.0):
        _judge_prediction(output(p, 1, False), x, p)
        _judge_training(output(p, 1, True) / x, p)
    draws = [output(0.5, seed, True) for seed in (1, 1, 2)]
    drawn = np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])
    expect(drawn, "draw from the rng that is given: one seed should give one result, another seed another")


def _judge_prediction(y, x, p) -> None:
    "What may be wrong where training is False."
    if p:
        expect(np.all(y != 0), "training is False, and still numbers are dropped: predictions should be certain")
        told = "this scales for prediction by 1 - p. In training you are to divide by it, then nothing is left to do"
        mistakes = {told: x * (1 - p), "this divides by 1 - p for prediction: that belongs to training": x / (1 - p)}
        rule_out(y, mistakes)
    expect(np.array_equal(y, x), "for prediction the output should be x")


def _judge_training(ratio, p) -> None:
    "What may be wrong where training is True; ratio is the output over x."
    expect(np.isfinite(ratio).all(), f"p = {p}: the output should be finite")
    kept = ratio != 0
    for axis, what in ((1, "samples"), (0, "columns")) if p else ():
        whole = np.any(np.all(kept, axis=axis)) or np.any(np.all(~kept, axis=axis))
        expect(not whole, f"whole {what} are dropped or kept; each number should have its own luck")
    told = f"p = {p}: {kept.mean():.0%} of the numbers are kept; p is the probability to be dropped"
    expect(abs(kept.mean() - (1 - p)) < 0.02, f"{told}, so it should be {1 - p:.0%}")
    _judge_scale(ratio[kept], p)


def _judge_scale(ratio, p) -> None:
    "What may be wrong about the numbers that are kept."
    mistakes = {
        "what is kept should be larger, to make up for what is lost: the mean of the output should be x": 1.0,
        "this multiplies by 1 - p; divide by it, so that the mean of the output is x": 1 - p,
        "this divides by p; the share that is left is 1 - p": 1 / p if p else 0.0,
    }
    rule_out(ratio, {m: np.full(ratio.shape, v) for m, v in mistakes.items() if p})
    right = np.full(ratio.shape, 1 / (1 - p))
    expect(close(ratio, right), f"p = {p}: what is kept should be multiplied by {1 / (1 - p):.4g}, got {ratio[0]:.4g}")


def adamw(answer) -> None:
    "Exercise 2."
    rng, lr, decay = np.random.default_rng(8), 0.05, 0.4
    w, m, v = rng.normal(size=6), np.zeros(6), np.zeros(6)
    theirs = torch.tensor(w, requires_grad=True)
    descent = torch.optim.AdamW([theirs], lr=lr, weight_decay=decay)
    for t in range(1, 31):
        theirs.grad = torch.tensor(g := rng.normal(size=6))
        descent.step()
        got, right = _step_of(answer, w, g, m, v, t, lr, decay), theirs.detach().numpy()
        _judge_adamw(got, w, g, m, v, t, lr, decay)
        expect(close(got[0], right), f"step {t}: w[0] is {got[0][0]:.6g}, AdamW gives {right[0]:.6g}")
        w, m, v = got


def _step_of(answer, w, g, m, v, *numbers) -> list:
    "What the answer makes of one step: three arrays."
    given = [a.copy() for a in (w, g, m, v)]
    got = answer(*given, *numbers)
    expect(all(map(np.array_equal, given, (w, g, m, v))), "an array that was given was changed in place")
    got = _several(got, 3, "return three arrays, w, m and v")
    return [array(a, (6,), name) for a, name in zip(got, ("w", "m", "v"), strict=True)]


def _several(got, count, told) -> list:
    "The parts of an answer: any tuple, list or array of so many; else the message."
    expect(isinstance(got, (tuple, list, np.ndarray)) and np.ndim(got) != 0 and len(got) == count, told)
    return list(got)


def _judge_adamw(got, w, g, m, v, t, lr, decay) -> None:
    "The likely mistakes of exercise 2."
    a, b, move, size = _adam(g, m, v, t, lr)
    spoiled, shrunk = _adam(g + decay * w, m, v, t, lr)[0], (1 - lr * decay) * w
    rule_out(got[1], {"the decay is in the gradient, and so in m and v: that is Adam with L2": spoiled})
    mistakes = {
        "there is no decay at all": w + move,
        "the weights shrink by lr * decay a step: multiply the decay by lr": (1 - decay) * w + move,
        "this shrinks the weights after Adam's move; AdamW shrinks the old ones": (1 - lr * decay) * (w + move),
        "this shrinks by decay alone, and after Adam's move: lr * decay, and before": (1 - decay) * (w + move),
        "the decay makes the weights grow: the sign": (1 + lr * decay) * w + move,
        "this divides the decay by the size of the gradients, as Adam with L2 does": w + move - lr * decay * w / size,
        "the corrections for the zero start of m and v are missing": shrunk - lr * a / (np.sqrt(b) + 1e-8),
        "descend: Adam's move has the wrong sign": shrunk - move,
    }
    rule_out(got[0], mistakes)
    expect(close(got[1], a) and close(got[2], b), "m should be 0.9 m + 0.1 g, and v 0.999 v + 0.001 g^2")


def _adam(g, m, v, t, lr) -> tuple:
    "Both means after a gradient, Adam's move, and the size that it is divided by."
    a, b = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    size = np.sqrt(b / (1 - 0.999**t)) + 1e-8
    return a, b, -lr * (a / (1 - 0.9**t)) / size, size


def noise(answer) -> None:
    "Exercise 3."
    rng = np.random.default_rng(9)
    for shape, alpha in (((20, 4), 3.0), ((5, 8), 0.5), ((30, 3), 0.0)):
        X, y = rng.normal(size=shape), rng.normal(size=shape[0])
        kept = X.copy(), y.copy()
        got = array(answer(X, y, alpha), shape[1:], "the weights")
        expect(np.array_equal(X, kept[0]) and np.array_equal(y, kept[1]), "X and y should not be changed")
        right = _ridge(X, y, alpha)
        rule_out(got, _wrong_ridges(X, y, alpha) if alpha else {})
        where = int(np.argmax(np.abs(got - right)))
        expect(
            close(got, right, 1e-8), f"w[{where}] is {got[where]:.6g}, ridge has {right[where]:.6g}, alpha = {alpha}"
        )


def _ridge(X, y, alpha):
    "What the exercise asks for, by scikit-learn; least squares where alpha is 0."
    if not alpha:
        return np.linalg.lstsq(X, y)[0]
    return sklearn.linear_model.Ridge(alpha=alpha, fit_intercept=False, solver="svd").fit(X, y).coef_


def _wrong_ridges(X, y, alpha) -> dict:
    "What comes of the likely mistakes of exercise 3."
    n, p = X.shape
    penalties = {
        "this is plain least squares: the new rows are missing, or all 0": 0.0,
        "rows of alpha add alpha squared: the sum of squares squares them, so take the root": alpha**2,
        "rows of 1 add a penalty of 1, whatever alpha is": 1.0,
        "this penalty is n times too large: the new rows stand once each, they are not averaged": n * alpha,
        "this penalty is n times too small: |y - Xw|^2 is a sum": alpha / n,
    }
    extra = np.vstack([X, math.sqrt(alpha) * np.eye(p)]), np.concatenate([y, np.ones(p)])
    told = "the targets of the new rows should be 0, so that they pull the weights to 0"
    return {m: _ridge(X, y, a) for m, a in penalties.items()} | {told: np.linalg.lstsq(*extra)[0]}


def steps(answer) -> None:
    "Exercise 4."
    for alpha, lr, eigenvalue in ((2.0, 0.01, 5.0), (0.1, 0.5, 1.0), (30.0, 1e-3, 1e-3), (1.0, 0.09, 10.0)):
        got = number(quietly(answer, alpha, lr, eigenvalue), "the number of steps")
        left, rest = alpha / (alpha + eigenvalue), math.log1p(-lr * eigenvalue)
        right = math.log(left) / rest
        mistakes = {
            "that is 1 / (lr alpha), which is right for small eigenvalues only": 1 / (lr * alpha),
            "that is the share that ridge reaches in the logarithm; take what is left to go": math.log(1 - left) / rest,
            "that is for very small steps, exp(-lr eigenvalue t); exactly, please": -math.log(left) / (lr * eigenvalue),
            "the sign: steps should be positive, and both logarithms are below 0": -right,
            "the wrong way round: the logarithm of the factor of one step belongs below": 1 / right,
        }
        rule_out(got, {m: v for m, v in mistakes.items() if not close(v, right, 1e-6)}, 1e-7)
        told = f"alpha {alpha}, lr {lr}, eigenvalue {eigenvalue}: after {got:.5g} steps gradient descent has reached"
        reached = 1 - math.exp(min(got * rest, 50))
        expect(close(got, right, 1e-6), f"{told} {reached:.4f}, ridge {1 - left:.4f}")


def smoothing(answer) -> None:
    "Exercise 5."
    for classes, epsilon in ((10, 0.1), (4, 0.3), (1000, 0.05), (2, 0.2)):
        got = _several(answer(classes, epsilon), 2, "return two numbers, the gap and the loss")
        gap, loss = number(got[0], "the gap"), number(got[1], "the loss")
        true, other = 1 - epsilon, epsilon / (classes - 1)
        told = f"{classes} classes, epsilon {epsilon}:"
        _judge_gap(gap, true, other, classes, epsilon, told)
        _judge_floor(loss, true, other, epsilon, told)


def _judge_floor(loss, true, other, epsilon, told) -> None:
    "The likely mistakes of the second number of exercise 5."
    floor = -true * math.log(true) - epsilon * math.log(other)
    mistakes = {
        "there are k - 1 other classes, not one": -true * math.log(true) - other * math.log(other),
        "the other classes have a part in it": -true * math.log(true),
        "that is -log of the true class's probability only": -math.log(true),
        "the sign": -floor,
    }
    rule_out(loss, {f"{told} the loss: {m}": v for m, v in mistakes.items() if not close(v, floor)})
    expect(close(loss, floor), f"{told} the loss is {loss:.6g}, should be {floor:.6g}")


def _judge_gap(gap, true, other, classes, epsilon, told) -> None:
    "The likely mistakes of the first number of exercise 5."
    right = math.log(true / other)
    mistakes = {
        "that is the gap of part 6, where the true class gets a share of epsilon too": math.log(
            1 + classes * true / epsilon
        ),
        "that is the ratio of the probabilities; a logit is a logarithm": true / other,
        "the gap of two probabilities is not that of the logits": true - other,
        "the wrong way round: true minus other": -right,
        "epsilon is spread over k - 1 classes: each of them gets less": math.log(true / epsilon),
        "the others are k - 1, not k": math.log(true * classes / epsilon),
    }
    rule_out(gap, {f"{told} {m}": v for m, v in mistakes.items() if not close(v, right)})
    expect(close(gap, right), f"{told} the gap is {gap:.6g}, should be {right:.6g}")


def norm(answer) -> None:
    "Exercise 6."
    expect(len(signature(answer).parameters) == 1, "my_pace takes one argument, the factor")
    for factor in (0.1, 4.0, 2.5):
        got = _several(answer(factor), 2, "return two factors, of the decay and of the length")
        decay, length = number(got[0], "the factor of the decay"), number(got[1], "the factor of the length")
        mistakes = {
            "the angle depends on the product of rate and decay: a larger rate needs a smaller decay": factor,
            "the decay cannot stay as it is: the product of rate and decay would change": 1.0,
            "the product enters the angle as a whole; no root of one of the two": factor**-0.5,
            "it is rate times decay that has to stay, not rate times decay squared, or so": factor**-2.0,
        }
        rule_out(decay, mistakes)
        expect(close(decay, 1 / factor), f"factor {factor}: the decay's is {decay:.5g}, should be {1 / factor:.5g}")
        _judge_length(length, factor)


def _judge_length(length, factor) -> None:
    "The likely mistakes of the second number of exercise 6."
    mistakes = {
        "the length: that is |w|^2, take one more root": factor,
        "the length: that is |w|^4, take the fourth root": factor**2,
        "the length: the decay has changed too, not only the rate": factor**0.25,
        "the length: larger steps make the weights longer, not shorter": factor**-0.5,
        "the length does not stay: |w|^4 is in proportion to the rate over the decay": 1.0,
    }
    rule_out(length, mistakes)
    expect(close(length, factor**0.5), f"factor {factor}: the length's is {length:.5g}, should be {factor**0.5:.5g}")


CHECKS = {"dropout": dropout, "adamw": adamw, "noise": noise, "steps": steps, "smoothing": smoothing, "norm": norm}
