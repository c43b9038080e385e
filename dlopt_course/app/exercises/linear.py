"""Checks of the exercises of lesson 6. Each looks for the likely mistakes first, so that the message names them."""

import numpy as np
from sklearn import linear_model

from dlopt_course.app.exercises.judge import array, close, number, quietly, rule_out
from dlopt_course.core import expect


def _data(rows: int, columns: int, seed: int):
    "Columns of different lengths and means, correlated, and a target far from 0."
    rng = np.random.default_rng(seed)
    mix = np.eye(columns) + 0.4 * rng.normal(size=(columns, columns))
    X = rng.normal(size=(rows, columns)) @ mix * np.linspace(0.5, 2, columns) + rng.normal(size=columns)
    return X, X @ rng.normal(size=columns) + rng.normal(size=rows) + 7


def _unchanged(answer, *given):
    "The answer's result; what it was given must be as before."
    kept = [np.copy(a) for a in given]
    result = quietly(answer, *given)
    for a, before in zip(given, kept, strict=True):
        expect(np.array_equal(a, before), "the arrays that were given should not be changed")
    return result


def threshold(answer) -> None:
    "Exercise 1."
    c = np.array([[-3.0, -1.0, -0.4], [0.0, 0.3, 2.5]])
    for l1, l2 in ((1.0, 0.5), (0.5, 0.0), (0.0, 2.0), (0.3, 3.0)):
        got = array(_unchanged(lambda v, l1=l1, l2=l2: answer(v, l1, l2), c), c.shape, "the result")
        soft = np.sign(c) * np.maximum(np.abs(c) - l1, 0)
        right = soft / (1 + l2)
        mistakes = _wrong_thresholds(c, l1, l2, soft)
        rule_out(got, {m: v for m, v in mistakes.items() if not close(v, right)})
        where = np.unravel_index(np.argmax(np.abs(got - right)), c.shape)
        told = f"c = {c[where]:g}, l1 = {l1:g}, l2 = {l2:g} gives {got[where]:.4g}, should be {right[where]:.4g}"
        expect(close(got, right), told)


def _wrong_thresholds(c, l1, l2, soft) -> dict:
    "What the likely mistakes of exercise 1 give, by message."
    first = c / (1 + l2)
    late = np.sign(c) * np.maximum(np.abs(first) - l1, 0)
    return {
        "that is the lasso: the square has a slope, too": soft,
        "that is ridge: nothing is ever exactly 0": first,
        "weights up to l1 vanish, but the others have to lose l1 as well": np.where(np.abs(c) > l1, first, 0),
        "divided first, then thresholded: the slope w - c + l1 + l2 w vanishes at another w": late,
        "the sign is lost: negative c give negative weights": np.abs(soft) / (1 + l2),
        "negative c should not all give 0; treat them as the mirror image": np.maximum(c - l1, 0) / (1 + l2),
        "the slope of l2 / 2 w^2 is l2 w, not 2 l2 w": soft / (1 + 2 * l2),
        "the slope of l2 / 2 w^2 is l2 w: the 1/2 cancels": soft / (1 + l2 / 2),
        "l2 is a factor, not a second threshold: divide by 1 + l2": np.sign(c) * np.maximum(np.abs(c) - l1 - l2, 0),
        "c - l1 without the max: beyond 0 the sign turns": (c - l1 * np.sign(c)) / (1 + l2),
    }


def alpha(answer) -> None:
    "Exercise 2."
    for rows, columns, seed in ((30, 4, 1), (8, 20, 2)):
        X, y = _data(rows, columns, seed)
        y = -y  # the largest slope is a negative one
        got = number(_unchanged(answer, X, y), "alpha_max")
        right = np.abs(X.T @ (y - y.mean())).max() / rows
        rule_out(got, {m: v for m, v in _wrong_alphas(X, y, right).items() if not close(v, right)})
        some = np.count_nonzero(linear_model.Lasso(alpha=max(got, 1e-3) * 0.999).fit(X, y).coef_)
        told = f"got {got:.5g}; a little below it {some} weights are not 0, and the first should enter at {right:.5g}"
        expect(close(got, right), told)


def _wrong_alphas(X, y, right) -> dict:
    "What the likely mistakes of exercise 2 give, by message."
    (rows, columns), slopes = X.shape, X.T @ (y - y.mean())
    return {
        "the intercept takes the mean of y first: the residual at w = 0 is not y": np.abs(X.T @ y).max() / rows,
        "the objective divides the squared error by 2n: so do divide the slope by n": rows * right,
        "the factor 1/2 cancels when the square is differentiated": right / 2,
        "a column may matter with either sign: take absolute values": slopes.max() / rows,
        "that is the mean over the columns; the first column to enter decides": np.abs(slopes).mean() / rows,
        "that is the smallest; just below it all columns would be in": np.abs(slopes).min() / rows,
        "that divides by the number of columns, not of samples": rows * right / columns,
    }


def _pair(value, columns):
    "The weights and the intercept that an answer returned."
    expect(isinstance(value, tuple) and len(value) == 2, f"return the pair (w, b), got {type(value).__name__}")
    return array(value[0], (columns,), "w"), number(value[1], "b")


def _solve(X, y, penalty):
    "Ridge without intercept by its equations; the penalty is a number, or one for each column."
    return np.linalg.solve(X.T @ X + penalty * np.eye(X.shape[1]), X.T @ y)


def unpenalised(answer) -> None:
    "Exercise 3."
    for rows, columns, strength in ((25, 3, 4.0), (40, 6, 100.0), (4, 9, 1.0)):
        X, y = _data(rows, columns, columns)
        w, b = _pair(_unchanged(lambda A, t, s=strength: answer(A, t, s), X, y), columns)
        peer = linear_model.Ridge(alpha=strength, solver="svd").fit(X, y)
        _say_what_intercept(w, b, X, y, strength)
        expect(close(w, peer.coef_, 1e-7), f"the weights are off by up to {np.abs(w - peer.coef_).max():.3g}")
        expect(close(b, peer.intercept_, 1e-7), f"b is {b:.5g}, should be {peer.intercept_:.5g}")


def _say_what_intercept(w, b, X, y, strength) -> None:
    "The likely mistakes of exercise 3."
    centre, mean = X.mean(axis=0), y.mean()
    rule_out(w, _wrong_weights(X, y, X - centre, y - mean, strength))
    if close(w, _solve(X - centre, y - mean, strength), 1e-7):
        mistakes = {
            "b is right only if the columns have mean 0; these have not": mean,
            "the sign: b = mean(y) - mean(x) w": mean + centre @ w,
            "b is 0: add the means again": 0.0,
        }
        rule_out(b, mistakes)


def _wrong_weights(X, y, centred, target, strength) -> dict:
    "The weights that the likely mistakes of exercise 3 give, by message."
    return {
        "still as given: alpha penalises the intercept, too": _solve(np.c_[X, np.ones(len(X))], y, strength)[:-1],
        "y is centred but not X: both, or neither": _solve(X, target, strength),
        "there is no intercept in this fit at all: centre before you solve": _solve(X, y, strength),
        "Ridge has no 1/n: the penalty is alpha, not n alpha": _solve(centred, target, strength * len(X)),
        "columns are to be centred, not scaled": _solve(centred / X.std(axis=0), target, strength),
    }


def loo(answer) -> None:
    "Exercise 4."
    for rows, columns, strength in ((20, 3, 2.0), (30, 7, 50.0), (12, 2, 0.0)):
        X, y = _data(rows, columns, rows)
        got = array(_unchanged(lambda A, t, s=strength: answer(A, t, s), X, y), (rows,), "the result")
        rule_out(got, _wrong_errors(X - X.mean(axis=0), y - y.mean(), strength) | _wrong_means(X, y, strength))
        right = _by_refitting(X, y, strength)
        where = int(np.argmax(np.abs(got - right)))
        told = f"sample {where}: {got[where]:.5g}, but a fit without it is off by {right[where]:.5g}"
        expect(close(got, right, 1e-7), told)


def _wrong_errors(X, y, strength) -> dict:
    "What the likely mistakes of exercise 4 give, by message, from centred data."
    H = X @ np.linalg.solve(X.T @ X + strength * np.eye(X.shape[1]), X.T)
    errors, leverage = y - H @ y, np.diag(H) + 1 / len(y)
    return {
        "these are the errors of the one fit: divide by 1 - h": errors,
        "the intercept is left out with each sample, too: it adds 1/n to h": errors / (1 - np.diag(H)),
        "multiplied where it has to be divided": errors * (1 - leverage),
        "divide by 1 - h once, not twice": errors / (1 - leverage) ** 2,
        "that is generalised cross-validation: each sample has its own h": errors / (1 - leverage.mean()),
        "the sign: target minus prediction": -errors / (1 - leverage),
    }


def _left_out(X, y, strength, more=0.0) -> np.ndarray:
    "The formula of exercise 4 for a fit without intercept; `more` is added to each leverage."
    H = X @ np.linalg.solve(X.T @ X + strength * np.eye(X.shape[1]), X.T)
    return (y - H @ y) / (1 - np.diag(H) - more)


def _wrong_means(X, y, strength) -> dict:
    "What exercise 4 gives where the intercept is forgotten, by message."
    n, centred = len(y), X - X.mean(axis=0)
    return {
        "there is no intercept in this fit at all: centre before you solve": _left_out(X, y, strength),
        "1/n is added to h, but the columns and y were not centred": _left_out(X, y, strength, 1 / n),
        "the mean of y belongs to the fit: the intercept predicts it": _left_out(centred, y, strength, 1 / n),
        "y is centred but not X: both, or neither": _left_out(X, y - y.mean(), strength, 1 / n),
    }


def _by_refitting(X, y, strength) -> np.ndarray:
    "Errors on each sample of fits to the others."
    errors = []
    for i in range(len(y)):
        rest = np.arange(len(y)) != i
        A, t = X[rest] - X[rest].mean(axis=0), y[rest] - y[rest].mean()
        errors.append(y[i] - y[rest].mean() - (X[i] - X[rest].mean(axis=0)) @ _solve(A, t, strength))
    return np.array(errors)


def _tried(X, y, strength) -> list:
    "Pairs of weights and a penalty: the solution, weights that are none, and nothing where nothing is the solution."
    rng = np.random.default_rng(4)
    w = linear_model.Lasso(alpha=strength, fit_intercept=False, tol=1e-14, max_iter=10**5).fit(X, y).coef_
    wrong = [np.zeros(6), 0.9 * w, w + 0.1 * (w == 0), -w, rng.normal(size=6), rng.normal(size=6) * (w != 0)]
    return [(v, strength) for v in (w, *wrong)] + [(np.zeros(6), 4 * strength)]


def violation(answer) -> None:
    "Exercise 5."
    X, y = _data(40, 6, 3)
    tried = _tried(X, y, 0.3 * np.abs(X.T @ y).max() / 40)
    ask = [_unchanged(lambda A, t, v, s=strength: answer(A, t, v, s), X, y, w) for w, strength in tried]
    got = np.array([number(value, "the violation") for value in ask])
    cases = [_violations(X.T @ (y - X @ w) / 40, w, strength) for w, strength in tried]
    rule_out(got, {message: [case[message] for case in cases] for message in cases[0] if message != "right"}, 1e-8)
    for (w, strength), value, case in zip(tried, got, cases, strict=True):
        what = "the solution" if w is tried[0][0] else f"w = {np.round(w, 3).tolist()}, alpha = {strength:.3g}"
        expect(close(value, case["right"], 1e-8), f"for {what} got {value:.5g}, should be {case['right']:.5g}")


def _violations(slopes, w, strength) -> dict:
    "The largest violation, and by message what the likely mistakes of exercise 5 give."
    wanted, over = strength * np.sign(w), np.abs(slopes) - strength
    equal, free = np.abs(slopes - wanted), np.maximum(over, 0)
    right, below = np.where(w != 0, equal, free), np.where(w != 0, equal, np.abs(over))
    unscaled = np.where(w != 0, np.abs(40 * slopes - wanted), np.maximum(np.abs(40 * slopes) - strength, 0))
    return {
        "right": right.max(),
        "a slope below alpha is no violation where the weight is 0: take nothing below 0": below.max(),
        "a slope below alpha is no violation, not a negative one: 0 is the least": np.where(w != 0, equal, over).max(),
        "the objective divides by n, so the slopes do, too": unscaled.max(),
        "where w is 0 the slope may be anything from -alpha to alpha": equal.max(),
        "where w is not 0 the slope must *equal* alpha times its sign; here a smaller one passes": free.max(),
        "the sign of the weight is ignored": np.where(w != 0, abs(over), free).max(),
        "the sign: x r / n is minus the gradient": np.where(w != 0, np.abs(slopes + wanted), free).max(),
        "the largest violation is asked for, not the mean": right.mean(),
    }


def sweep(answer) -> None:
    "Exercise 6."
    for rows, columns, seed in ((30, 4, 5), (10, 15, 6)):
        X, y = _data(rows, columns, seed)
        start = np.maximum(np.random.default_rng(seed).normal(size=columns), 0)
        strength = 0.1 * np.abs(X.T @ y).max() / rows
        for w in (np.zeros(columns), start):
            got = array(_unchanged(lambda A, t, v, s=strength: answer(A, t, v, s), X, y, w), w.shape, "the weights")
            right = _swept(X, y, w, strength)
            if not close(got, right, 1e-8):
                _say_what_sweep(got, X, y, w, strength)
                j = int(np.flatnonzero(~np.isclose(got, right))[0])
                expect(False, f"weight {j} is the first that is off: {got[j]:.5g}, should be {right[j]:.5g}")


def _swept(X, y, w, strength, **change) -> np.ndarray:
    "One sweep, or one with a mistake."
    old, w, n = w, w.copy(), len(y)
    for j, column in enumerate(X.T):
        others = old if change.get("stale") else w
        explain = y - X @ others + (0 if change.get("forget") else others[j] * column)
        c = column @ explain / (1 if change.get("sum") else n)
        square = 1.0 if change.get("unit") else column @ column / (1 if change.get("sum") else n)
        signed = np.sign(c) * max(abs(c) - strength, 0) if change.get("signed") else max(c - strength, 0)
        w[j] = max(c / square - strength, 0) if change.get("late") else signed / square
    return w


def _say_what_sweep(got, X, y, w, strength) -> None:
    "The likely mistakes of exercise 6."
    right = _swept(X, y, w, strength)
    mistakes = {
        "negative weights are not allowed here: the threshold is max(c - alpha, 0)": {"signed": True},
        "each column should see the weights that changed before it, not those of the start": {"stale": True},
        "what column j has to explain includes what it explains now: add x_j w_j to the residual": {"forget": True},
        "divide by x_j x_j / n: the columns have different lengths": {"unit": True},
        "the slopes are divided by n, alpha is not: so n alpha if you leave the n out": {"sum": True},
        "threshold first, then divide": {"late": True},
    }
    values = {message: _swept(X, y, w, strength, **change) for message, change in mistakes.items()}
    values["clipped after an ordinary sweep: a weight must not be negative in between either"] = np.maximum(
        _swept(X, y, w, strength, signed=True), 0
    )
    values["that is two sweeps"] = _swept(X, y, right, strength)
    rule_out(got, {m: v for m, v in values.items() if not close(v, right)})


CHECKS = {
    "threshold": threshold,
    "alpha": alpha,
    "unpenalised": unpenalised,
    "loo": loo,
    "violation": violation,
    "sweep": sweep,
}
