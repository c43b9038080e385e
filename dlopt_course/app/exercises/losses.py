"""Checks of the exercises of lesson 1. Each looks for the likely mistakes first, so that the message names them."""

import numpy as np
import scipy.special
import torch
import torch.nn.functional as F

from dlopt_course.app.exercises.judge import close, quietly, rule_out
from dlopt_course.core import expect


def logsumexp(answer) -> None:
    "Exercise 1."
    x = np.array([0.5, -1.0, 2.0])
    expect(np.ndim(quietly(answer, x)) == 0, "the result should be one number: sum over the whole vector")
    got = quietly(answer, x)
    expect(not close(got, np.sum(np.exp(x))), "this is the sum of exponentials; its logarithm is missing")
    expect(close(got, scipy.special.logsumexp(x)), f"wrong for ordinary logits: for {x.tolist()} got {got:.6g}")
    got = quietly(answer, x + 1000)
    expect(np.isfinite(got), "right for ordinary logits, wrong when a logit is 1000: subtract the maximum first")
    expect(close(got, scipy.special.logsumexp(x) + 1000), "the maximum was subtracted, but not added again")
    got = quietly(answer, x - 1000)
    expect(close(got, scipy.special.logsumexp(x) - 1000), "wrong when all logits are near -1000")
    got = quietly(answer, np.array([0.0, -np.inf]))
    expect(close(got, 0.0), "a term of -inf should add nothing")
    got = quietly(answer, np.array([-np.inf, -np.inf]))
    expect(np.isneginf(got), f"when all terms are -inf the sum is 0 and the result -inf; got {got} (inf - inf is NaN)")


def bce(answer) -> None:
    "Exercise 2."
    z, y = np.array([-3.0, -0.5, 0.0, 2.0]), np.array([0.0, 1.0, 1.0, 0.0])
    right = F.binary_cross_entropy_with_logits(torch.tensor(z), torch.tensor(y), reduction="none").numpy()
    got = np.asarray(quietly(answer, z, y))
    expect(got.shape == z.shape, f"one loss for each logit is wanted, shape {z.shape}, got {got.shape}")
    rule_out(got, {"the sign is wrong: a loss is *minus* the log-likelihood, never negative": -right})
    wanted = f"for z = {z.tolist()}, y = {y.tolist()} got {got.round(4).tolist()}, should be {right.round(4).tolist()}"
    expect(close(got, right), f"wrong for ordinary logits: {wanted}")
    got = quietly(answer, np.array([1e5, -1e5, 1e5, -1e5]), np.array([0.0, 1.0, 1.0, 0.0]))
    expect(np.all(np.isfinite(got)), "right for ordinary logits, not finite at 100000: no exponential may exceed 1")
    wanted = f"got {np.asarray(got).tolist()}, should be 1e5, 1e5, 0, 0; do not clip"
    expect(close(got, [1e5, 1e5, 0, 0]), f"wrong at logits of 100000: {wanted}")
    got = quietly(answer, np.array([40.0]), np.array([1.0]))
    expect(got[0] > 0, "at z = 40, y = 1 the loss is 4e-18, not 0: use log1p for the logarithm of 1 + something small")


def smoothed(answer) -> None:
    "Exercise 3."
    z, y = np.random.default_rng(1).normal(0, 2, (6, 4)), np.array([0, 1, 2, 3, 1, 1])
    p, onehot = scipy.special.softmax(z, axis=1), np.eye(4)[y]
    right = torch.func.grad(F.cross_entropy)(torch.tensor(z), torch.tensor(y), label_smoothing=0.2).numpy()
    got = np.asarray(quietly(answer, z, y, 0.2))
    expect(got.shape == z.shape, f"the gradient has the shape of the logits, {z.shape}, got {got.shape}")
    mistakes = {
        "this is the gradient of the sum; the mean divides by the number of rows": 6 * right,
        "divided by the number of elements; the mean is over the rows": right / 4,
        "the sign is wrong: prediction minus truth": -right,
        "the labels are not smoothed: q = (1 - epsilon) onehot + epsilon / k": (p - onehot) / 6,
        "epsilon is spread over all k classes, the true one too": (p - np.where(onehot == 1, 0.8, 0.2 / 3)) / 6,
    }
    rule_out(got, mistakes)
    _judge_smoothed(got, right, quietly(answer, z + 1000, y, 0.2))


def _judge_smoothed(got, right, far) -> None:
    "What is left to say of exercise 3 when no known mistake was made; `far` is for logits around 1000."
    expect(close(got.sum(axis=1), np.zeros(6)), "each row of the gradient should sum to 0; does your q sum to 1?")
    expect(close(got, right), "not equal to torch's gradient; compare one row by hand")
    expect(close(far, right, 1e-7), "right for ordinary logits, wrong when a logit is 1000: use a stable softmax")


def weighted(answer) -> None:
    "Exercise 4."
    z, w = np.random.default_rng(2).normal(0, 2, (8, 3)), np.array([0.5, 2.0, 5.0])
    y = np.array([0, 0, 0, 0, 1, 1, 2, 0])
    losses = F.cross_entropy(torch.tensor(z), torch.tensor(y), reduction="none").numpy()
    right = F.cross_entropy(torch.tensor(z), torch.tensor(y), weight=torch.tensor(w)).item()
    got = quietly(answer, z, y, w)
    mistakes = {
        "divided by the number of rows, not by the sum of the weights used": np.mean(w[y] * losses),
        "divided by the weights of all classes; each *row* counts": np.sum(w[y] * losses) / w.sum(),
        "weights scaled to mean 1 over the classes; divide by those of the rows": np.mean(w[y] * losses) / w.mean(),
        "the weights have no effect": losses.mean(),
    }
    rule_out(got, mistakes)
    expect(close(got, right), f"should be the one number {right:.6f}, got {got}")
    stable = close(quietly(answer, z + 1000, y, w), right, 1e-7)
    expect(stable, "right for ordinary logits, wrong when a logit is 1000: use a stable log-softmax")


def counts(answer) -> None:
    "Exercise 5."
    z, y = np.array([-1.0, 0.5, 1.5, 3.0]), np.array([0.0, 2.0, 1.0, 30.0])
    result = quietly(answer, z, y)
    expect(isinstance(result, tuple) and len(result) == 2, "return two things: the losses and their slopes")
    loss, slope = (np.asarray(r) for r in result)
    right = F.poisson_nll_loss(torch.tensor(z), torch.tensor(y), log_input=True, reduction="none").numpy()
    constant, right_slope = scipy.special.gammaln(y + 1), np.exp(z) - y
    expect(loss.shape == z.shape, f"one loss for each element is wanted, shape {z.shape}, got {loss.shape}")
    expect(np.all(np.isfinite(loss)), "not finite for z = -1: z is the log of the rate, put lambda = exp(z)")
    expect(not (close(loss, -right) or close(loss, -right - constant)), "the loss is *minus* the log-likelihood")
    expect(
        close(loss, right) or close(loss, right + constant), "the loss is not exp(z) - y z (plus log y!, if you like)"
    )
    expect(not close(slope, -right_slope), "this is the slope of the log-likelihood; the loss is minus that")
    expect(close(slope, right_slope), "the loss is right, its slope not: differentiate by z, not by lambda")


def huber(answer) -> None:
    "Exercise 6."
    e = np.array([-5.0, -2.5, -1.0, 0.0, 1.9, 2.1, 7.0])
    right = F.huber_loss(torch.tensor(e), torch.zeros(7, dtype=torch.float64), delta=2.0, reduction="none").numpy()
    got = np.asarray(quietly(answer, e, 2.0))
    expect(got.shape == e.shape, f"one loss for each error is wanted, shape {e.shape}, got {got.shape}")
    as_given = np.where(np.abs(e) <= 2, e**2 / 2, 2 * np.abs(e))
    expect(not close(got, as_given), "still the function as given: plot it, and look at |e| = delta")
    expect(np.all(got >= 0), "a loss of an error is never negative; where is the absolute value?")
    expect(close(got[2:5], right[2:5]), "the parabola inside delta should be e**2 / 2")
    jump = abs(quietly(answer, np.array([2.0 + 1e-9]), 2.0)[0] - quietly(answer, np.array([2.0]), 2.0)[0])
    expect(jump < 1e-6, f"the loss jumps by {jump:.3g} at |e| = delta: the line must start where the parabola ends")
    expect(close(got, right), "the line has the wrong slope: it should continue the parabola's, which is delta there")


CHECKS = {
    "logsumexp": logsumexp,
    "bce": bce,
    "smoothed": smoothed,
    "weighted": weighted,
    "counts": counts,
    "huber": huber,
}
