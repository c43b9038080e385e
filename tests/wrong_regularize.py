"""Wrong answers to the exercises of lesson 7, and what the learner is told."""

import math

import numpy as np


def dropped(kept, scale, predicted=lambda x, p: x):
    "Dropout by kept(x, p, rng) and scale(p), and what it returns for prediction."

    def answer(x, p, rng, training):
        return np.where(kept(x, p, rng), x * scale(p), 0.0) if training else predicted(x, p)

    return answer


def right_mask(x, p, rng):
    return rng.random(x.shape) >= p


def inverse(p):
    return 1 / (1 - p)


def as_given(x, p, rng, training):
    return x * (rng.random(len(x))[:, None] < p)


def in_place(x, p, rng, training):
    if training:
        x *= (rng.random(x.shape) >= p) / (1 - p)
    return x


def own_seed(x, p, rng, training):
    return dropped(right_mask, inverse)(x, p, np.random.default_rng(0), training)


def adam_with_l2(w, g, m, v, t, lr, decay):
    return adamw(w, g + decay * w, m, v, t, lr, decay, lambda w, move, lr, decay, size: w + move)


def adamw(w, g, m, v, t, lr, decay, put, corrected=True):
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    first, second = (1 - 0.9**t, 1 - 0.999**t) if corrected else (1, 1)
    size = np.sqrt(v / second) + 1e-8
    return put(w, -lr * (m / first) / size, lr, decay, size), m, v


def stepped(put, corrected=True):
    return lambda w, g, m, v, t, lr, decay: adamw(w, g, m, v, t, lr, decay, put, corrected)


def right_step(w, move, lr, decay, size):
    return (1 - lr * decay) * w + move


def adamw_in_place(w, g, m, v, t, lr, decay):
    w[:], m[:], v[:] = stepped(right_step)(w, g, m, v, t, lr, decay)
    return w, m, v


def adamw_without_means(w, g, m, v, t, lr, decay):
    return stepped(right_step)(w, g, m, v, t, lr, decay)[0], m, v


def ridge_by(rows, target=0.0):
    def answer(X, y, alpha):
        extra = rows(*X.shape, alpha)
        both = np.vstack([X, extra]), np.concatenate([y, np.full(len(extra), target)])
        return np.linalg.lstsq(*both)[0]

    return answer


def left(alpha, eigenvalue):
    return math.log(alpha / (alpha + eigenvalue))


def pair(gap, loss):
    return lambda k, e: (gap(k, e), loss(k, e))


def right_gap(k, e):
    return math.log((1 - e) * (k - 1) / e)


def right_loss(k, e):
    return -(1 - e) * math.log(1 - e) - e * math.log(e / (k - 1))


WRONG = [
    ("regularize-dropout", as_given, "predictions should be certain"),
    ("regularize-dropout", dropped(right_mask, inverse, lambda x, p: x * (1 - p)), "scales for prediction"),
    ("regularize-dropout", dropped(right_mask, inverse, lambda x, p: x / (1 - p)), "belongs to training"),
    ("regularize-dropout", dropped(right_mask, inverse, lambda x, p: x + 1), "should be x"),
    ("regularize-dropout", dropped(lambda x, p, rng: rng.random(x.shape) < p, inverse), "probability to be dropped"),
    ("regularize-dropout", dropped(lambda x, p, rng: rng.random((len(x), 1)) >= p, inverse), "whole samples"),
    ("regularize-dropout", dropped(lambda x, p, rng: rng.random(x.shape[1]) >= p, inverse), "whole columns"),
    ("regularize-dropout", dropped(right_mask, lambda p: 1.0), "make up for what is lost"),
    ("regularize-dropout", dropped(right_mask, lambda p: 1 - p), "multiplies by 1 - p"),
    ("regularize-dropout", dropped(right_mask, lambda p: 1 / p if p else 1.0), "divides by p"),
    ("regularize-dropout", dropped(right_mask, lambda p: 1 + p), "should be multiplied by 1.25"),
    ("regularize-dropout", in_place, "belongs to the caller"),
    ("regularize-dropout", own_seed, "rng that is given"),
    ("regularize-dropout", lambda x, p, rng, training: x[0], "should be an array of shape"),
    ("regularize-adamw", adam_with_l2, "that is Adam with L2"),
    ("regularize-adamw", stepped(lambda w, move, lr, decay, size: w + move), "no decay at all"),
    ("regularize-adamw", stepped(lambda w, move, lr, decay, size: (1 - decay) * w + move), "multiply the decay by lr"),
    ("regularize-adamw", stepped(lambda w, move, lr, decay, size: (1 - lr * decay) * (w + move)), "the old ones"),
    ("regularize-adamw", stepped(lambda w, move, lr, decay, size: (1 - decay) * (w + move)), "by decay alone"),
    ("regularize-adamw", stepped(lambda w, move, lr, decay, size: (1 + lr * decay) * w + move), "the sign"),
    (
        "regularize-adamw",
        stepped(lambda w, move, lr, decay, size: w + move - lr * decay * w / size),
        "size of the grad",
    ),
    ("regularize-adamw", stepped(right_step, corrected=False), "zero start"),
    ("regularize-adamw", stepped(lambda w, move, lr, decay, size: right_step(w, -move, lr, decay, size)), "wrong sign"),
    ("regularize-adamw", stepped(lambda w, move, lr, decay, size: 0.9 * w), "AdamW gives"),
    ("regularize-adamw", adamw_in_place, "changed in place"),
    ("regularize-adamw", adamw_without_means, "m should be"),
    ("regularize-adamw", lambda w, g, m, v, t, lr, decay: w, "three arrays"),
    ("regularize-noise", lambda X, y, alpha: np.linalg.lstsq(X, y)[0], "plain least squares"),
    ("regularize-noise", ridge_by(lambda n, p, alpha: alpha * np.eye(p)), "take the root"),
    ("regularize-noise", ridge_by(lambda n, p, alpha: np.eye(p)), "rows of 1"),
    ("regularize-noise", ridge_by(lambda n, p, alpha: math.sqrt(alpha) * np.eye(p), 1.0), "should be 0"),
    ("regularize-noise", ridge_by(lambda n, p, alpha: math.sqrt(n * alpha) * np.eye(p)), "too large"),
    ("regularize-noise", ridge_by(lambda n, p, alpha: math.sqrt(alpha / n) * np.eye(p)), "too small"),
    ("regularize-noise", ridge_by(lambda n, p, alpha: np.full((p, p), math.sqrt(alpha))), "ridge has"),
    ("regularize-noise", lambda X, y, alpha: y, "the weights should be an array"),
    ("regularize-steps", lambda a, lr, e: 1 / (lr * a), "small eigenvalues only"),
    ("regularize-steps", lambda a, lr, e: math.log(e / (a + e)) / math.log1p(-lr * e), "what is left"),
    ("regularize-steps", lambda a, lr, e: -left(a, e) / (lr * e), "very small steps"),
    ("regularize-steps", lambda a, lr, e: -left(a, e) / math.log1p(-lr * e), "the sign"),
    ("regularize-steps", lambda a, lr, e: math.log1p(-lr * e) / left(a, e), "wrong way round"),
    ("regularize-steps", lambda a, lr, e: 100.0, "gradient descent has reached"),
    ("regularize-steps", lambda a, lr, e: None, "one finite number"),
    ("regularize-smoothing", lambda k, e: right_gap(k, e), "two numbers"),
    ("regularize-smoothing", pair(lambda k, e: math.log(1 + k * (1 - e) / e), right_loss), "part 6"),
    ("regularize-smoothing", pair(lambda k, e: (1 - e) * (k - 1) / e, right_loss), "a logit is a logarithm"),
    ("regularize-smoothing", pair(lambda k, e: 1 - e - e / (k - 1), right_loss), "two probabilities"),
    ("regularize-smoothing", pair(lambda k, e: -right_gap(k, e), right_loss), "true minus other"),
    ("regularize-smoothing", pair(lambda k, e: math.log((1 - e) / e), right_loss), "gets less"),
    ("regularize-smoothing", pair(lambda k, e: math.log((1 - e) * k / e), right_loss), "not k"),
    ("regularize-smoothing", pair(lambda k, e: 1.0, right_loss), "the gap is 1"),
    ("regularize-smoothing", pair(right_gap, lambda k, e: -math.log(1 - e)), "probability only"),
    ("regularize-smoothing", pair(right_gap, lambda k, e: -(1 - e) * math.log(1 - e)), "have a part"),
    ("regularize-smoothing", pair(right_gap, lambda k, e: -right_loss(k, e)), "the sign"),
    ("regularize-smoothing", pair(right_gap, lambda k, e: 0.0), "the loss is 0"),
    (
        "regularize-smoothing",
        pair(right_gap, lambda k, e: -(1 - e) * math.log(1 - e) - e / (k - 1) * math.log(e / (k - 1))),
        "not one",
    ),
    ("regularize-norm", lambda factor: factor, "two factors"),
    ("regularize-norm", lambda factor: (factor, factor**0.5), "smaller decay"),
    ("regularize-norm", lambda factor: (1.0, factor**0.5), "cannot stay"),
    ("regularize-norm", lambda factor: (factor**-0.5, factor**0.5), "no root"),
    ("regularize-norm", lambda factor: (factor**-2, factor**0.5), "squared"),
    ("regularize-norm", lambda factor: (3.0, 1.0), "should be 10"),
    ("regularize-norm", lambda factor: (1 / factor, factor), "one more root"),
    ("regularize-norm", lambda factor: (1 / factor, factor**2), "fourth root"),
    ("regularize-norm", lambda factor: (1 / factor, factor**0.25), "changed too"),
    ("regularize-norm", lambda factor: (1 / factor, factor**-0.5), "not shorter"),
    ("regularize-norm", lambda factor: (1 / factor, 1.0), "does not stay"),
    ("regularize-norm", lambda factor: (1 / factor, 7.0), "the length's is 7"),
    ("regularize-norm", lambda factor, more: (1, 1), "one argument"),
]
