"""Checks of the exercises of lesson 3. Each looks for the likely mistakes first, so that the message names them."""

import math

import numpy as np
import torch
from torch.optim import lr_scheduler

from dlopt_course.app.exercises.judge import close, number, rule_out
from dlopt_course.core import expect


def _same_at_every_step(got, right, where: str = "") -> None:
    "The first step at which two schedules differ, if there is one."
    for step, (a, b) in enumerate(zip(got, right, strict=True)):
        expect(close(a, b), f"{where}the factor at step {step} is {a:.4g}, should be {b:.4g}")


def _torch_rates(make, steps: int) -> list[float]:
    "The rates of a scheduler of torch over an optimizer of nothing."
    dummy = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule, rates = make(dummy), []
    for _ in range(steps):
        rates.append(dummy.param_groups[0]["lr"])
        dummy.step()
        schedule.step()
    return rates


def floor(answer) -> None:
    "Exercise 1."
    for curvature, noise, target in ((0.2, 3.0, 0.4), (5.0, 0.1, 0.001), (1.0, 1.0, 0.05)):
        got = number(answer(curvature, noise, target), "the rate")
        small = 2 * curvature * target / noise**2
        mistakes = {
            "that is the approximation for small rates; keep the term with curvature squared": small,
            "`target` is the mean squared distance V, not the loss": 4 * target / (noise**2 + 2 * curvature * target),
            "half of what is allowed: for small rates the floor is rate * noise^2 / (2 curvature)": small / 2,
            "this is the floor of the rate `target`; solve for the rate": _floor(target, curvature, noise),
        }
        rule_out(got, mistakes)
        told = f"with curvature {curvature} and noise {noise} the rate {got:.4g} has the floor"
        reached = _floor(got, curvature, noise)
        expect(close(reached, target), f"{told} {reached:.4g}, wanted {target}")


def _floor(rate, curvature, noise) -> float:
    "Where a constant rate hangs; infinite where it diverges."
    left = 2 - rate * curvature
    return rate * noise**2 / (curvature * left) if left > 0 else math.inf


def gamma(answer) -> None:
    "Exercise 2."
    for steps, last in ((101, 0.01), (11, 0.5), (2, 0.1)):
        got = number(answer(steps, last), "gamma")
        rule_out(got, {"that is the logarithm of gamma: take its exponential": math.log(last) / (steps - 1)})
        late = "one step late: steps are counted from 0, so the last one has the number steps - 1"
        rule_out(got, {late: last ** (1 / steps)})
        told = f"for {steps} steps the factor at the last step is {got ** (steps - 1):.4g}, wanted {last}"
        expect(got <= 1, f"{told}: the factor grows; gamma should be below 1")
        expect(close(got ** (steps - 1), last), told)


_PARTS = [lambda t: 0.1 + 0.9 * min(t, 10) / 10, lambda t: 0.5 ** (t // 20), lambda t: 0.9**t]
_STARTS = [0, 10, 60]


def _sequence_of_torch(optimizer):
    "The same parts in torch."
    parts = [
        lr_scheduler.LinearLR(optimizer, 0.1, total_iters=10),
        lr_scheduler.StepLR(optimizer, 20, 0.5),
        lr_scheduler.ExponentialLR(optimizer, 0.9),
    ]
    return lr_scheduler.SequentialLR(optimizer, parts, _STARTS[1:])


def sequence(answer) -> None:
    "Exercise 3."
    schedule = answer(list(_PARTS), _STARTS[1:])
    expect(callable(schedule), f"return a schedule, a function of the step, not {schedule!r:.40}")
    got = [number(schedule(step), f"the factor at step {step}") for step in range(80)]
    part = [sum(start <= t for start in _STARTS) - 1 for t in range(80)]
    late = [max(sum(start < t for start in _STARTS) - 1, 0) for t in range(80)]
    mistakes = {
        "each schedule counts from its own milestone; yours were asked for the step itself": [
            _PARTS[k](t) for t, k in enumerate(part)
        ],
        "one step late: at its milestone the next schedule has begun": [
            _PARTS[k](t - _STARTS[k]) for t, k in enumerate(late)
        ],
    }
    rule_out(got, mistakes)
    _judge_sequence(got, schedule, answer([_PARTS[2]], []))


def _judge_sequence(got, schedule, single) -> None:
    "What is left to say of exercise 3; `single` has one part and no milestone."
    again = [number(schedule(step), f"the factor at step {step}") for step in reversed(range(80))]
    told = "asked for the steps backwards it gives other factors: a schedule should depend on the step alone"
    expect(close(again[::-1], got), told)
    _same_at_every_step(got, _torch_rates(_sequence_of_torch, 80), "with milestones 10 and 60 ")
    expect(close(single(3), 0.9**3), "one schedule and no milestone should be that schedule")


def wsd(answer) -> None:
    "Exercise 4."
    steps = range(160)
    got = [number(answer(t, 100, 10, 40), f"the factor at step {t}") for t in steps]
    expect(not close(got[5], 0.6), "the warm-up is one step early: the factor is 0 at step 0, and 1 at step `warmup`")
    expect(close(got[5], 0.5), f"halfway through a warm-up of 10 steps the factor should be 0.5, got {got[5]:.4g}")
    expect(close(got[30], 1), f"between warm-up and decay the factor should be 1, got {got[30]:.4g} at step 30")
    begins = "`decay` is how many steps the way down takes, at the end; it is not the step at which it begins"
    expect(not close(got[50], 5 / 6), begins)
    expect(close(got[80], 0.5), f"halfway down, at step 80 of 100 with decay 40, it should be 0.5, got {got[80]:.4g}")
    expect(got[150] >= 0, f"beyond the end the line goes on: {got[150]:.4g} at step 150; a rate is never negative")
    _same_at_every_step(got, np.interp(steps, [0, 10, 60, 100], [0, 1, 1, 0]))


def restart(answer) -> None:
    "Exercise 5."
    for period in (4, 7):
        steps = np.arange(3 * period)
        got = [number(answer(int(t), period), f"the factor at step {t}") for t in steps]

        def wave(position, length):
            return (1 + np.cos(np.pi * position / length)) / 2

        mistakes = {
            "still as given: the factor at step `period` should be 1, a new cycle": wave(steps % (period + 1), period),
            "squeezed: within a cycle the factor should not quite reach 0": wave(steps % period, period - 1),
            "without the remainder it rises again slowly; a restart is a jump back to 1": wave(steps, period),
        }
        rule_out(got, mistakes)
        right = _torch_rates(lambda o, n=period: lr_scheduler.CosineAnnealingWarmRestarts(o, n), 3 * period)
        _same_at_every_step(got, right, f"with period {period} ")


_CURVATURES, _NOISE, _START, _BUDGET, _TARGET = np.array([1.0, 0.02]), 0.5, 100.0, 300, 0.032


def design(answer) -> None:
    "Exercise 6: the expected loss by the recursion of the lesson."
    rates = np.array([number(answer(step), f"the learning rate at step {step}") for step in range(_BUDGET)])
    expect(np.all(rates >= 0), f"a learning rate is never negative: {rates.min():.4g} at step {rates.argmin()}")
    squares = np.full(2, _START)
    with np.errstate(over="ignore", invalid="ignore"):
        for rate in rates:
            squares = (1 - rate * _CURVATURES) ** 2 * squares + rate**2 * _NOISE**2
    steep, flat = 0.5 * _CURVATURES * squares
    expect(steep + flat < 100, "this diverges: rates above 2 / curvature = 2 throw the steep direction")
    if not steep + flat <= _TARGET:
        _say_what_is_missing(rates, steep, flat)


def _say_what_is_missing(rates, steep, flat) -> None:
    "Advice on a schedule that misses the target of exercise 6."
    told = f"expected loss {steep + flat:.4g}, {steep:.4g} in the steep direction and {flat:.4g} in the flat one"
    expect(np.ptp(rates) > 0, f"{told}: no constant rate can do it; take large steps first, small ones last")
    expect(steep + flat > 1.1 * _TARGET, f"{told}: close, wanted {_TARGET}; try other base rates")
    left = 0.5 * _CURVATURES[1] * _START * np.prod((1 - _CURVATURES[1] * rates) ** 2)  # of the flat start
    arrived = 4 * left <= flat - left
    expect(flat < steep or arrived, f"{told}: the flat direction has not arrived; larger steps, or for longer")
    noise = f"{told}: the flat direction has arrived, {flat - left:.3g} of its loss is noise"
    expect(flat < steep, f"{noise}; smaller steps, or begin to fall sooner")
    expect(False, f"{told}: the noise of the steep direction is left; fall to nearly 0 at the end")


CHECKS = {"floor": floor, "gamma": gamma, "sequence": sequence, "wsd": wsd, "restart": restart, "design": design}
