"""Wrong answers to the exercises of lesson 3, and what the learner is told."""

import math

import numpy as np

from dlopt_course.schedules import cosine_annealing_lr, sequential


def late(schedules, milestones):
    return sequential(schedules, [m + 1 for m in milestones])


def late_start(schedules, milestones):
    starts = [0, *milestones]

    def factor(step):
        number = max(sum(start < step for start in starts) - 1, 0)
        return schedules[number](step - starts[number])

    return factor


def from_zero(schedules, milestones):
    return lambda step: schedules[sum(m <= step for m in milestones)](step)


def without_single(schedules, milestones):
    return sequential(schedules, milestones) if milestones else lambda step: 1.0


def up_hold_down(step, warmup, begin, total):
    return max(0.0, min(step / warmup, 1.0, (total - step) / (total - begin)))


def half_cosine(position, period):
    return (1 + np.cos(np.pi * position / period)) / 2


WRONG = [
    ("schedules-floor", lambda c, s, v: 2 * c * v / s**2, "approximation for small rates"),
    ("schedules-floor", lambda c, s, v: c * v / s**2, "half of what is allowed"),
    ("schedules-floor", lambda c, s, v: v * s**2 / (c * (2 - v * c)), "solve for the rate"),
    ("schedules-floor", lambda c, s, v: 2 * c * v / (s + c**2 * v), "has the floor"),
    ("schedules-floor", lambda c, s, v: 1000.0, "has the floor inf"),
    ("schedules-floor", lambda c, s, v: None, "one finite number"),
    ("schedules-gamma", lambda n, last: last ** (1 / n), "one step late"),
    ("schedules-gamma", lambda n, last: math.log(last) / (n - 1), "logarithm of gamma"),
    ("schedules-gamma", lambda n, last: last ** (-1 / (n - 1)), "the factor grows"),
    ("schedules-gamma", lambda n, last: 1 - (1 - last) / (n - 1), "the factor at the last step is"),
    ("schedules-sequence", from_zero, "counts from its own milestone"),
    ("schedules-sequence", late_start, "one step late"),
    ("schedules-sequence", late, "the factor at step 30 is 1, should be 0.5"),
    ("schedules-sequence", lambda s, m: sequential(s, m)(5), "a function of the step"),
    ("schedules-sequence", without_single, "no milestone should be that schedule"),
    ("schedules-wsd", lambda t, n, w, d: up_hold_down(t + 1, w, n - d + 1, n + 1), "one step early"),
    ("schedules-wsd", lambda t, n, w, d: up_hold_down(t, w, d, n), "not the step at which it begins"),
    ("schedules-wsd", lambda t, n, w, d: min(t / w, 1.0, (n - t) / d), "never negative"),
    ("schedules-wsd", lambda t, n, w, d: min(t / w, 1.0), "halfway down"),
    ("schedules-wsd", lambda t, n, w, d: max(0.0, min(1.0, (n - t) / d)), "halfway through a warm-up"),
    ("schedules-wsd", lambda t, n, w, d: t / w, "between warm-up and decay"),
    ("schedules-wsd", lambda t, n, w, d: (t == n) + up_hold_down(t, w, n - d, n), "the factor at step 100 is 1"),
    ("schedules-restart", lambda t, n: half_cosine(t % (n + 1), n), "still as given"),
    ("schedules-restart", lambda t, n: half_cosine(t % n, n - 1), "squeezed"),
    ("schedules-restart", lambda t, n: half_cosine(t, n), "a jump back to 1"),
    ("schedules-restart", lambda t, n: 1 - (t % n) / n, "the factor at step 1 is 0.75"),
    ("schedules-design", lambda t: 0.36, "no constant rate can do it"),
    ("schedules-design", lambda t: 3.0, "diverges"),
    ("schedules-design", lambda t: 1.0 - t / 200, "never negative"),
    ("schedules-design", lambda t: 1 / (t + 1), "flat direction has not arrived"),
    ("schedules-design", lambda t: min(1.0, (300 - t) / 100), "the flat direction has arrived"),
    ("schedules-design", lambda t: 1.0 - t / 600, "noise of the steep direction is left"),
    ("schedules-design", lambda t: 0.8 * cosine_annealing_lr(300)(t), "close, wanted"),
    ("schedules-design", lambda t: np.array([0.1]), "one finite number"),
]  # fmt: skip
