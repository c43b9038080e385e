"""Wrong answers to the exercises of lesson 6, and what the learner is told."""

import numpy as np


def soft(c, l1):
    return np.sign(c) * np.maximum(np.abs(c) - l1, 0)


def in_place_threshold(c, l1, l2):
    c[:] = soft(c, l1) / (1 + l2)
    return c


def centred(X, y):
    return X - X.mean(axis=0), y - y.mean()


def solve(X, y, alpha):
    return np.linalg.solve(X.T @ X + alpha * np.eye(X.shape[1]), X.T @ y)


def longer(X, y, alpha):
    w = solve(np.column_stack([X, np.ones(len(X))]), y, alpha)
    return w[:-1], w[-1]


def ridge(X, y, alpha, b=lambda X, y, w: y.mean() - X.mean(axis=0) @ w):
    w = solve(*centred(X, y), alpha)
    return w, b(X, y, w)


def only_y(X, y, alpha):
    w = solve(X, y - y.mean(), alpha)
    return w, y.mean() - X.mean(axis=0) @ w


def scaled(X, y, alpha):
    A, t = centred(X, y)
    w = solve(A / A.std(axis=0), t, alpha)
    return w, y.mean() - X.mean(axis=0) @ w


def left_out(change):
    "change(errors, leverages without the intercept's part, n)"

    def answer(X, y, alpha):
        A, t = centred(X, y)
        H = A @ np.linalg.solve(A.T @ A + alpha * np.eye(A.shape[1]), A.T)
        return change(t - H @ t, np.diag(H), len(y))

    return answer


def no_intercept(X, y, alpha, more=0.0):
    H = X @ np.linalg.solve(X.T @ X + alpha * np.eye(X.shape[1]), X.T)
    return (y - H @ y) / (1 - np.diag(H) - more)


def violation(change):
    "change(slopes, w, alpha), of which the largest is returned"
    return lambda X, y, w, alpha: np.max(change(X.T @ (y - X @ w) / len(y), w, alpha))


def over(s, a):
    return np.maximum(np.abs(s) - a, 0)


def under(s, a):
    return np.abs(np.abs(s) - a)


def equal(s, w, a):
    return np.abs(s - a * np.sign(w))


def right_violations(s, w, a):
    return np.where(w != 0, equal(s, w, a), over(s, a))


def sweep(stale=False, forget=False, by=lambda x: x @ x / len(x), share=lambda c, a: max(c - a, 0), n=len, clip=False):
    def answer(X, y, w, alpha):
        old, w = w, w.copy()
        for j, x in enumerate(X.T):
            v = old if stale else w
            w[j] = share(x @ (y - X @ v + (0 if forget else x * v[j])) / n(y), alpha) / by(x)
        return np.maximum(w, 0) if clip else w

    return answer


def in_place_sweep(X, y, w, alpha):
    w[:] = sweep()(X, y, w, alpha)
    return w


def twice(X, y, w, alpha):
    return sweep()(X, y, sweep()(X, y, w, alpha), alpha)


def late(X, y, w, alpha):
    w = w.copy()
    for j, x in enumerate(X.T):
        w[j] = max(x @ (y - X @ w + x * w[j]) / (x @ x) - alpha, 0)
    return w


def slopes(X, y):
    return X.T @ (y - y.mean())


WRONG = [
    ("linear-threshold", lambda c, l1, l2: soft(c, l1), "that is the lasso"),
    ("linear-threshold", lambda c, l1, l2: c / (1 + l2), "that is ridge"),
    ("linear-threshold", lambda c, l1, l2: np.where(np.abs(c) > l1, c, 0) / (1 + l2), "have to lose l1 as well"),
    ("linear-threshold", lambda c, l1, l2: soft(c / (1 + l2), l1), "divided first"),
    ("linear-threshold", lambda c, l1, l2: np.abs(soft(c, l1)) / (1 + l2), "the sign is lost"),
    ("linear-threshold", lambda c, l1, l2: np.maximum(c - l1, 0) / (1 + l2), "the mirror image"),
    ("linear-threshold", lambda c, l1, l2: soft(c, l1) / (1 + 2 * l2), "not 2 l2 w"),
    ("linear-threshold", lambda c, l1, l2: soft(c, l1) / (1 + l2 / 2), "the 1/2 cancels"),
    ("linear-threshold", lambda c, l1, l2: soft(c, l1 + l2), "not a second threshold"),
    ("linear-threshold", lambda c, l1, l2: (c - l1 * np.sign(c)) / (1 + l2), "without the max"),
    ("linear-threshold", lambda c, l1, l2: soft(c, 2 * l1) / (1 + l2), "gives 0.3333, should be 1"),
    ("linear-threshold", lambda c, l1, l2: 0.0, r"array of shape \(2, 3\)"),
    ("linear-threshold", in_place_threshold, "should not be changed"),
    ("linear-alpha", lambda X, y: np.abs(X.T @ y).max() / len(y), "takes the mean of y first"),
    ("linear-alpha", lambda X, y: np.abs(slopes(X, y)).max(), "divide the slope by n"),
    ("linear-alpha", lambda X, y: np.abs(slopes(X, y)).max() / len(y) / 2, "the factor 1/2 cancels"),
    ("linear-alpha", lambda X, y: slopes(X, y).max() / len(y), "either sign"),
    ("linear-alpha", lambda X, y: np.abs(slopes(X, y)).mean() / len(y), "the first column to enter decides"),
    ("linear-alpha", lambda X, y: np.abs(slopes(X, y)).min() / len(y), "that is the smallest"),
    ("linear-alpha", lambda X, y: np.abs(slopes(X, y)).max() / X.shape[1], "the number of columns"),
    ("linear-alpha", lambda X, y: 0.9 * np.abs(slopes(X, y)).max() / len(y), "a little below it"),
    ("linear-alpha", lambda X, y: np.abs(slopes(X, y)) / len(y), "one finite number"),
    ("linear-unpenalised", longer, "still as given"),
    ("linear-unpenalised", only_y, "y is centred but not X"),
    ("linear-unpenalised", lambda X, y, a: (solve(X, y, a), 0.0), "no intercept in this fit"),
    ("linear-unpenalised", lambda X, y, a: ridge(X, y, a * len(y)), "Ridge has no 1/n"),
    ("linear-unpenalised", scaled, "not scaled"),
    ("linear-unpenalised", lambda X, y, a: ridge(X, y, a, lambda X, y, w: y.mean()), "have mean 0; these have not"),
    ("linear-unpenalised", lambda X, y, a: ridge(X, y, a, lambda X, y, w: y.mean() + X.mean(axis=0) @ w), "the sign"),
    ("linear-unpenalised", lambda X, y, a: ridge(X, y, a, lambda X, y, w: 0.0), "add the means again"),
    ("linear-unpenalised", lambda X, y, a: ridge(X, y, 2 * a), "the weights are off by up to"),
    ("linear-unpenalised", lambda X, y, a: ridge(X, y, a, lambda X, y, w: 1.0), "b is 1, should be"),
    ("linear-unpenalised", lambda X, y, a: np.append(*ridge(X, y, a)), r"return the pair \(w, b\)"),
    ("linear-loo", left_out(lambda e, h, n: e), "the errors of the one fit"),
    ("linear-loo", left_out(lambda e, h, n: e / (1 - h)), "it adds 1/n to h"),
    ("linear-loo", left_out(lambda e, h, n: e * (1 - h - 1 / n)), "has to be divided"),
    ("linear-loo", left_out(lambda e, h, n: e / (1 - h - 1 / n) ** 2), "not twice"),
    ("linear-loo", left_out(lambda e, h, n: e / (1 - h.mean() - 1 / n)), "generalised cross-validation"),
    ("linear-loo", left_out(lambda e, h, n: -e / (1 - h - 1 / n)), "target minus prediction"),
    ("linear-loo", lambda X, y, a: no_intercept(X, y, a), "no intercept in this fit"),
    ("linear-loo", lambda X, y, a: no_intercept(X, y, a, 1 / len(y)), "were not centred"),
    ("linear-loo", lambda X, y, a: no_intercept(X - X.mean(axis=0), y, a, 1 / len(y)), "the mean of y belongs"),
    ("linear-loo", lambda X, y, a: no_intercept(X, y - y.mean(), a, 1 / len(y)), "y is centred but not X"),
    ("linear-loo", left_out(lambda e, h, n: 2 * e / (1 - h - 1 / n)), "but a fit without it is off by"),
    ("linear-loo", left_out(lambda e, h, n: np.mean(e)), r"array of shape \(20,\)"),
    ("linear-violation", violation(lambda s, w, a: np.where(w != 0, equal(s, w, a), under(s, a))), "nothing below 0"),
    ("linear-violation", violation(lambda s, w, a: np.where(w != 0, equal(s, w, a), np.abs(s) - a)), "0 is the least"),
    ("linear-violation", lambda X, y, w, a: np.max(right_violations(X.T @ (y - X @ w), w, a)), "divides by n"),
    ("linear-violation", violation(equal), "anything from -alpha to alpha"),
    ("linear-violation", violation(lambda s, w, a: over(s, a)), "a smaller one passes"),
    ("linear-violation", violation(lambda s, w, a: np.where(w != 0, under(s, a), over(s, a))), "sign of the weight is"),
    ("linear-violation", violation(lambda s, w, a: np.where(w != 0, equal(s, -w, a), over(s, a))), "the gradient"),
    ("linear-violation", violation(lambda s, w, a: np.mean(right_violations(s, w, a))), "not the mean"),
    ("linear-violation", violation(lambda s, w, a: 2 * right_violations(s, w, a)), r"for w = \[0.0, 0.0"),
    ("linear-violation", violation(lambda s, w, a: [np.inf]), "one finite number"),
    ("linear-sweep", sweep(share=lambda c, a: soft(c, a)), "negative weights are not allowed"),
    ("linear-sweep", sweep(stale=True), "changed before it"),
    ("linear-sweep", sweep(forget=True), "add x_j w_j to the residual"),
    ("linear-sweep", sweep(by=lambda x: 1.0), "different lengths"),
    ("linear-sweep", sweep(by=lambda x: x @ x, n=lambda y: 1), "n alpha if you leave the n out"),
    ("linear-sweep", late, "threshold first"),
    ("linear-sweep", sweep(share=lambda c, a: soft(c, a), clip=True), "clipped after"),
    ("linear-sweep", twice, "two sweeps"),
    ("linear-sweep", sweep(share=lambda c, a: max(c - 3 * a, 0)), "is the first that is off"),
    ("linear-sweep", in_place_sweep, "should not be changed"),
    ("linear-sweep", lambda X, y, w, a: None, r"array of shape \(4,\)"),
]  # fmt: skip
