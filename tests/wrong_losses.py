"""Wrong answers to the exercises of lesson 1, and what the learner is told."""

import numpy as np
import scipy.special


def naive_lse(x):
    return np.log(np.sum(np.exp(x)))


def naive_softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def one_lse(x):
    return np.max(x) + np.log(np.sum(np.exp(x - np.max(x))))


def softplus(z):
    return np.logaddexp(0, z)


def smoothed(z, y, target, rows=1.0):
    return (scipy.special.softmax(z, axis=1) - target) / rows


def nll(z, y):
    return -scipy.special.log_softmax(z, axis=1)[np.arange(len(y)), y]


def naive_nll(z, y):
    return -np.log(naive_softmax(z)[np.arange(len(y)), y])


def onehot(z, y, epsilon=0.0):
    return (1 - epsilon) * np.eye(z.shape[1])[y] + epsilon / z.shape[1]


def stingy(z, y, epsilon):
    return np.where(onehot(z, y) == 1, 1 - epsilon, epsilon / (z.shape[1] - 1))


def inside(e, d):
    return np.abs(e) <= d


WRONG = [
    ("losses-logsumexp", naive_lse, "1000: subtract the maximum"),
    ("losses-logsumexp", one_lse, r"\(inf - inf is NaN\)"),
    ("losses-logsumexp", lambda x: np.log(np.sum(np.exp(x - x.max()))), "wrong for ordinary logits"),
    ("losses-logsumexp", lambda x: np.sum(np.exp(x)), "logarithm is missing"),
    ("losses-logsumexp", lambda x: x, "one number"),
    ("losses-bce", lambda z, y: y * np.log(1 + np.exp(-z)) + (1 - y) * np.log(1 + np.exp(z)), "not finite"),
    ("losses-bce", lambda z, y: y * z - softplus(z), "sign is wrong"),
    ("losses-bce", lambda z, y: np.maximum(z, 0) - z * y + np.log(1 + np.exp(-np.abs(z))), "log1p"),
    ("losses-bce", lambda z, y: np.mean(softplus(z) - y * z), "one loss for each logit"),
    ("losses-bce", lambda z, y: softplus(z), "ordinary logits"),
    ("losses-smoothed", lambda z, y, e: smoothed(z, y, onehot(z, y, e)), "gradient of the sum"),
    ("losses-smoothed", lambda z, y, e: smoothed(z, y, onehot(z, y), len(y)), "not smoothed"),
    ("losses-smoothed", lambda z, y, e: smoothed(z, y, onehot(z, y) + e / 4, len(y)), "sum to 0"),
    ("losses-smoothed", lambda z, y, e: (naive_softmax(z) - onehot(z, y, e)) / len(y), "stable softmax"),
    ("losses-smoothed", lambda z, y, e: -smoothed(z, y, onehot(z, y, e), len(y)), "sign"),
    ("losses-smoothed", lambda z, y, e: smoothed(z, y, onehot(z, y, e), z.size), "over the rows"),
    ("losses-smoothed", lambda z, y, e: smoothed(z, y, stingy(z, y, e), len(y)), "true one too"),
    ("losses-weighted", lambda z, y, w: np.sum(w[y] * naive_nll(z, y)) / w[y].sum(), "stable log-softmax"),
    ("losses-weighted", lambda z, y, w: np.mean(w[y] / w.mean() * nll(z, y)), "mean 1"),
    ("losses-weighted", lambda z, y, w: np.mean(w[y] * nll(z, y)), "number of rows"),
    ("losses-weighted", lambda z, y, w: np.sum(w[y] * nll(z, y)) / w.sum(), "all classes"),
    ("losses-weighted", lambda z, y, w: np.mean(nll(z, y)), "no effect"),
    ("losses-counts", lambda z, y: (np.exp(z) - y * z, y - np.exp(z)), "log-likelihood"),
    ("losses-counts", lambda z, y: (np.exp(z) - y * z, 1 - y / np.exp(z)), "not by lambda"),
    ("losses-counts", lambda z, y: (z - y * np.log(z), 1 - y / z), r"lambda = exp\(z\)"),
    ("losses-counts", lambda z, y: np.exp(z) - y * z, "return two things"),
    ("losses-huber", lambda e, d: np.where(inside(e, d), e**2 / 2, d * np.abs(e)), "as given"),
    ("losses-huber", lambda e, d: np.where(inside(e, d), e**2 / 2, d * np.abs(e) - 1), "jumps"),
    ("losses-huber", lambda e, d: np.where(inside(e, d), e**2 / 2, d * (e - d / 2)), "never negative"),
    ("losses-huber", lambda e, d: np.where(inside(e, d), e**2, d * (2 * np.abs(e) - d)), r"e\*\*2 / 2"),
    ("losses-huber", lambda e, d: np.where(inside(e, d), e**2 / 2, np.abs(e) + d**2 / 2 - d), "slope"),
]  # fmt: skip
