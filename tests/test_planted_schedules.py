"""Planted errors: a wrong sign, factor, constant or limit in any schedule makes a check fail."""

import itertools
import math

import numpy as np
import pytest
import schedulefree
import torch
from planted import definitions, load, survivors
from test_schedules import (
    BAD,
    ONE_CYCLE,
    SEQUENCES,
    SETTINGS,
    TORCH,
    dummy,
    plateau_metrics,
    torch_one_cycle,
    torch_rates,
    torch_schedules,
    torch_sequence,
)

from dlopt_course import schedules
from dlopt_course.core import assert_close
from dlopt_course.optim import Optimizer

STEPS = 90
SOME = SETTINGS[::3] + [(name, {}) for name in ("polynomial_lr", "linear_warmup")]
SOME += [("step_lr", {"step_size": 30}), ("multistep_lr", {"milestones": [10]}), ("cosine_annealing_lr", {"T_max": 60})]
SOME += [("cosine_annealing_warm_restarts", {"T_0": 10}), ("linear_warmup", {"total_iters": 10})]
ANSWERS = [(name, options, torch_rates(lambda o, n=name, p=options: TORCH[n](o, **p), STEPS)) for name, options in SOME]
CYCLES = [(options, torch_one_cycle(options)[::3]) for options in ONE_CYCLE]
SEQUENCE_ANSWERS = [(*parts, torch_rates(lambda o, p=parts: torch_sequence(o, *p))) for parts in SEQUENCES]
PLATEAUS = [
    dict(zip(("mode", "threshold_mode", "cooldown", "min_lr", "threshold", "factor", "eps"), values, strict=True))
    for values in itertools.product(
        ("min", "max"), ("rel", "abs"), (0, 3), (0.0, 0.05), (0.0, 0.5), (0.5,), (1e-8, 0.1)
    )
]
LEAST = [  # the smallest and largest values that are allowed
    ("constant", {"factor": 0, "total_iters": 1}),
    ("step_lr", {"step_size": 1, "gamma": 0}),
    ("multistep_lr", {"milestones": [0, 1], "gamma": 0}),
    ("exponential_lr", {"gamma": 0}),
    ("polynomial_lr", {"total_iters": 1, "power": 0}),
    ("cosine_annealing_lr", {"T_max": 1, "eta_min": 1}),
    ("cosine_annealing_warm_restarts", {"T_0": 1, "T_mult": 1, "eta_min": 0}),
    ("linear_warmup", {"start_factor": 0, "end_factor": 1, "total_iters": 1}),
    ("warmup_stable_decay", {"total_steps": 1, "warmup_steps": 0, "decay_steps": 1, "start_factor": 1, "eta_min": 0}),
    ("warmup_stable_decay", {"total_steps": 2, "warmup_steps": 1, "decay_steps": 1}),
    ("one_cycle_lr", {"total_steps": 1, "pct_start": 0, "div_factor": 0.5, "final_div_factor": 0.5}),
    ("ReduceLROnPlateau", {"factor": 0, "patience": 0, "threshold": 0, "cooldown": 0, "min_lr": 1, "eps": 0}),
    ("schedule_free_sgd", {"lr": 0.1, "momentum": 0, "weight_decay": 0, "warmup_steps": 0}),
]
FREE = [{}, {"lr": 0.5, "warmup_steps": 20, "momentum": 0.8, "weight_decay": 0.1}]


def plateau_path(options):
    "Torch's rates along a metric, all of them compared by `plateaus`."
    optimizer = dummy()
    reference, rates = torch_schedules.ReduceLROnPlateau(optimizer, **options), []
    for metric in plateau_metrics(3, options.get("mode", "min")):
        reference.step(metric)
        rates.append(optimizer.param_groups[0]["lr"])
    return options, rates


PLATEAU_ANSWERS = [plateau_path(options) for options in [{}, {"patience": 0}, *PLATEAUS[::3], *PLATEAUS[1::5]]]


def package_path(options):
    "What the package of the authors of schedule-free SGD computes on a quadratic: y and, at the end, x."
    w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    package, path = schedulefree.SGDScheduleFree([w], **options), []
    package.train()
    for _ in range(40):
        w.grad = w.detach() * torch.tensor([0.5, 1.0])
        package.step()
        path.append(w.detach().clone().numpy())
    package.eval()
    return options, np.array(path), w.detach().numpy()


FREE_ANSWERS = [package_path(options) for options in FREE]


def battery(module):
    "Every schedule against torch, the variants against theirs, and the errors that bad input has to raise."
    for name, options, rates in ANSWERS:
        agrees(getattr(module, name)(**options), rates)
    for options, rates in CYCLES:
        agrees(every_third(module.one_cycle_lr(**options)), rates)
    for parts, milestones, rates in SEQUENCE_ANSWERS:
        agrees(module.sequential([getattr(module, name)(**options) for name, options in parts], milestones), rates)
    products_and_constants(module)
    warmup_stable_decays(module)
    plateaus(module)
    schedule_free(module)
    refusals(module)


def agrees(schedule, rates):
    "The factor at every step."
    assert_close(np.array([schedule(step) for step in range(len(rates))]), np.array(rates), rtol=1e-12, atol=1e-14)


def every_third(schedule):
    return lambda step: schedule(3 * step)


def products_and_constants(module):
    "Numbers and schedules multiply; a constant stays."
    agrees(module.product(0.5, module.constant(0.3), module.exponential_lr(0.9)), 0.15 * 0.9 ** np.arange(20))
    agrees(module.product(0, module.constant()), np.zeros(3))
    agrees(module.constant(), np.ones(20))
    assert module.one_cycle_lr(10, pct_start=0.1)(0) == 1.0
    assert module.one_cycle_lr(10, pct_start=0.0, three_phase=True, anneal_strategy="linear")(9) < 0.04


def warmup_stable_decays(module):
    "The published forms, with the defaults and without."
    n = np.arange(60)
    agrees(module.warmup_stable_decay(50), np.where(n < 50, 1.0, 0.0))
    line = np.where(n < 10, 0.1 + 0.9 * n / 10, np.clip(0.2 + 0.8 * (50 - n) / 20, 0.2, 1))
    agrees(module.warmup_stable_decay(50, 10, 20, start_factor=0.1, eta_min=0.2), line)
    root = np.where(n < 10, n / 10, 1 - np.sqrt(np.clip((n - 30) / 20, 0, 1)))
    agrees(module.warmup_stable_decay(50, 10, 20, decay_type="1-sqrt"), root)


def plateaus(module):
    "Along torch's, and from a saved state."
    for options, rates in PLATEAU_ANSWERS:
        plateau, path = module.ReduceLROnPlateau(**options), []
        for step, metric in enumerate(plateau_metrics(3, options.get("mode", "min"))):
            plateau.step(metric)
            path.append(plateau(0))
            if step % 7 == 0:
                state, plateau = plateau.state_dict(), module.ReduceLROnPlateau(**options)
                plateau.load_state_dict({name: np.asarray(value) for name, value in state.items()})
                assert plateau.state_dict() == state
                assert [type(v) for v in plateau.state_dict().values()] == [float, float, int, int]
        assert_close(np.array(path), np.array(rates), rtol=1e-12)
    fresh = {"current": 1.0, "best": -math.inf, "num_bad_epochs": 0, "cooldown_counter": 0}
    assert module.ReduceLROnPlateau("max").state_dict() == fresh


def schedule_free(module):
    "Against the package."
    for options, path, average in FREE_ANSWERS:
        params = {"w": np.array([1.0, -2.0]), "v": np.ones((2, 3))}
        optimizer = Optimizer(params, module.schedule_free_sgd(**options))
        for y in path:
            optimizer.step({"w": params["w"] * np.array([0.5, 1.0]), "v": params["v"]})
            assert_close(params["w"], y, rtol=1e-10, atol=1e-13)
        found = module.schedule_free_average(optimizer)
        assert_close(found["w"], average, rtol=1e-10, atol=1e-13)
        assert found["v"].shape == (2, 3)
    param = np.ones(3)
    state = module.schedule_free_sgd().init(param)
    param += 1  # whoever moves it in place must not move the averages
    assert_close(state["z"], np.ones(3))
    assert_close(state["x"], np.ones(3))


def refusals(module):
    "Bad arguments, steps, metrics and states raise the right error; the least and the most that is allowed do not."
    for name, options in LEAST:
        getattr(module, name)(**options)
    for param in BAD:
        name, options, error, message = param.values
        with pytest.raises(error, match=message):
            getattr(module, name)(**options)
    for step, error in ((-1, ValueError), (1.0, TypeError), (True, TypeError)):
        for schedule in (module.constant(), module.ReduceLROnPlateau()):
            with pytest.raises(error, match="step must"):
                schedule(step)
    for factors, error in (((), ValueError), ((-1,), ValueError), (("x",), TypeError)):
        with pytest.raises(error, match="factors"):
            module.product(*factors)
    states(module)
    with pytest.raises(ValueError, match="optimizer must have"):
        module.schedule_free_average(Optimizer({"w": np.ones(3)}, module.Rule(lambda p: {"y": p}, None)))


def states(module):
    "What a plateau refuses to be told."
    plateau = module.ReduceLROnPlateau()
    before = plateau.state_dict()
    for metric, error in ((math.nan, ValueError), (np.ones(2), TypeError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error, match="metric must"):
            plateau.step(metric)
    for change in ({"more": 1}, {"best": math.nan}, {"current": 2.0}, {"num_bad_epochs": -1}, {"cooldown_counter": -1}):
        with pytest.raises(ValueError, match=r"state(\[.*\])? must"):
            plateau.load_state_dict(before | change)
    assert plateau.state_dict() == before
    plateau.load_state_dict(before | {"current": 1.0, "num_bad_epochs": 0})


def test_the_battery_passes_as_it_is():
    battery(load(schedules))


EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    (
        "schedule_free_sgd",
        "0  ->  1  in  lr: float=1.0, momentum: float=0.9, weight_decay: float=0.0, warmup_steps: int=0",
    ): "a warm-up of one step is none",
}


@pytest.mark.parametrize("name", definitions(schedules))
def test_planted_errors_are_caught(name):
    assert survivors(schedules, name, battery) == {what for function, what in EQUIVALENT if function == name}


def test_equivalent_changes_are_of_functions_that_exist():
    assert {function for function, _ in EQUIVALENT} <= set(definitions(schedules))
