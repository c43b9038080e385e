"""Schedules against torch.optim.lr_scheduler over grids of settings and beyond the end; bad input; saved state."""

import itertools
import math

import numpy as np
import pytest
import schedulefree
import torch
from torch.optim import lr_scheduler as torch_schedules

from dlopt_course import schedules
from dlopt_course.core import assert_close
from dlopt_course.optim import Optimizer, adamw, chain, clip_grad_norm, sgd
from dlopt_course.schedules import (
    ReduceLROnPlateau,
    constant,
    cosine_annealing_lr,
    cosine_annealing_warm_restarts,
    exponential_lr,
    linear_warmup,
    multistep_lr,
    one_cycle_lr,
    polynomial_lr,
    product,
    schedule_free_average,
    schedule_free_sgd,
    sequential,
    step_lr,
    warmup_stable_decay,
)

STEPS = 260
TORCH = {  # a schedule's torch class; eta_min is absolute there, and the base rate 1
    "constant": torch_schedules.ConstantLR,
    "step_lr": torch_schedules.StepLR,
    "multistep_lr": torch_schedules.MultiStepLR,
    "exponential_lr": torch_schedules.ExponentialLR,
    "polynomial_lr": torch_schedules.PolynomialLR,
    "cosine_annealing_lr": torch_schedules.CosineAnnealingLR,
    "cosine_annealing_warm_restarts": torch_schedules.CosineAnnealingWarmRestarts,
    "linear_warmup": torch_schedules.LinearLR,
}
SETTINGS = [
    *(("constant", {"factor": f, "total_iters": n}) for f, n in itertools.product((1.0, 0.3, 1e-3), (1, 5, 300))),
    *(("step_lr", {"step_size": n, "gamma": g}) for n, g in itertools.product((1, 7, 50), (0.1, 0.9, 0.0, 1.01))),
    ("step_lr", {"step_size": 30}),
    *(("multistep_lr", {"milestones": m}) for m in ([10], [3, 4, 100], [0, 50], [])),
    ("multistep_lr", {"milestones": (20, 40), "gamma": 0.5}),
    *(("exponential_lr", {"gamma": g}) for g in (0.99, 0.9, 1.0, 0.0, 1.01)),
    ("polynomial_lr", {}),
    *(("polynomial_lr", {"total_iters": n, "power": p}) for n, p in itertools.product((1, 90, 400), (1, 2.0, 0.5, 0))),
    *(("cosine_annealing_lr", {"T_max": n, "eta_min": e}) for n, e in itertools.product((1, 2, 10, 37, 500), (0, 0.1))),
    ("cosine_annealing_lr", {"T_max": 60}),
    *(
        ("cosine_annealing_warm_restarts", {"T_0": n, "T_mult": m, "eta_min": e})
        for n, m, e in itertools.product((1, 10, 33, 300), (1, 2, 3), (0, 0.2))
    ),
    ("linear_warmup", {}),
    *(
        ("linear_warmup", {"start_factor": s, "end_factor": e, "total_iters": n})
        for s, e, n in itertools.product((0.01, 0.5, 1.0), (0.0, 0.7, 1.0), (1, 40, 300))
    ),
]
ONE_CYCLE = [
    {"total_steps": 100},
    {"total_steps": 1},
    {"total_steps": 2},
    *(
        {"total_steps": n, "pct_start": p, "anneal_strategy": a, "three_phase": three}
        for n, p, a, three in itertools.product(
            (7, 200), (0.0, 0.05, 0.3, 0.45, 0.8, 1.0), ("cos", "linear"), (False, True)
        )
    ),
    {"total_steps": 80, "div_factor": 5.0, "final_div_factor": 10.0},
    {"total_steps": 80, "div_factor": 0.5, "final_div_factor": 0.5, "three_phase": True},
]


def dummy(lr=1.0):
    "An optimizer of nothing, for torch's schedulers to set the rate of."
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)


def torch_rates(make, steps=STEPS, lr=1.0):
    "The learning rate at each step under the scheduler that `make(optimizer)` returns."
    optimizer = dummy(lr)
    scheduler, rates = make(optimizer), []
    while True:
        rates.append(float(optimizer.param_groups[0]["lr"]))
        if len(rates) == steps:
            return np.array(rates)
        optimizer.step()
        scheduler.step()


def ours(schedule, steps=STEPS):
    return np.array([schedule(step) for step in range(steps)])


def torch_one_cycle(options):
    "Torch's rates for one-cycle; it raises beyond the end, where the last one stays."
    n = options["total_steps"]
    rates = torch_rates(lambda o: torch_schedules.OneCycleLR(o, max_lr=1.0, **options), n)
    return np.concatenate([rates, np.full(STEPS - n, rates[-1])])


def torch_sequence(optimizer, parts, milestones):
    "Torch's SequentialLR of classes with options."
    return torch_schedules.SequentialLR(optimizer, [TORCH[n](optimizer, **o) for n, o in parts], milestones)


def check(schedule, reference):
    assert_close(ours(schedule), reference, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("name", "options"), SETTINGS, ids=str)
def test_equals_torch(name, options):
    check(getattr(schedules, name)(**options), torch_rates(lambda o: TORCH[name](o, **options)))


@pytest.mark.parametrize("options", ONE_CYCLE, ids=str)
def test_one_cycle_equals_torch_and_then_keeps_its_last_value(options):
    check(one_cycle_lr(**options), torch_one_cycle(options))


def test_one_cycle_where_torch_divides_by_zero():
    assert one_cycle_lr(10, pct_start=0.1)(0) == 1.0  # the way up has no length
    assert one_cycle_lr(1, pct_start=1.0)(0) == 1.0


def test_arguments_have_the_order_of_torch():
    assert multistep_lr([5], 0.5)(5) == 0.5
    check(cosine_annealing_lr(10, 0.1), torch_rates(lambda o: torch_schedules.CosineAnnealingLR(o, 10, 0.1)))
    check(linear_warmup(0.1, 0.9, 10), torch_rates(lambda o: torch_schedules.LinearLR(o, 0.1, 0.9, 10)))
    wanted = torch_rates(lambda o: torch_schedules.CosineAnnealingWarmRestarts(o, 10, 2, 0.1))
    check(cosine_annealing_warm_restarts(10, 2, 0.1), wanted)


SEQUENCES = [
    ([("linear_warmup", {"total_iters": 20}), ("cosine_annealing_lr", {"T_max": 100})], [20]),
    ([("linear_warmup", {"total_iters": 20}), ("cosine_annealing_lr", {"T_max": 100, "eta_min": 0.1})], [10]),
    ([("constant", {"factor": 0.1, "total_iters": 20}), ("exponential_lr", {"gamma": 0.9})], [20]),
    ([("exponential_lr", {"gamma": 0.9}), ("step_lr", {"step_size": 30}), ("polynomial_lr", {})], [7, 200]),
    ([("cosine_annealing_warm_restarts", {"T_0": 10}), ("multistep_lr", {"milestones": [0, 9]})], [33]),
    ([("step_lr", {"step_size": 3}), ("cosine_annealing_warm_restarts", {"T_0": 10, "T_mult": 2})], [50]),
    ([("exponential_lr", {"gamma": 0.9}), ("linear_warmup", {"total_iters": 9})], [0]),
    ([("polynomial_lr", {"total_iters": 50, "power": 2})], []),
]


@pytest.mark.parametrize(("parts", "milestones"), SEQUENCES, ids=str)
def test_sequential_equals_torch(parts, milestones):
    schedule = sequential([getattr(schedules, name)(**options) for name, options in parts], milestones)
    check(schedule, torch_rates(lambda o: torch_sequence(o, parts, milestones)))


def test_sequential_of_sequentials_is_one_long_sequence():
    first = sequential([exponential_lr(0.9), step_lr(5, 0.5)], [20])
    last = sequential([linear_warmup(0.1, total_iters=10), cosine_annealing_lr(50)], [10])
    nested = sequential([first, sequential([last], [])], [60])
    parts = [
        ("exponential_lr", {"gamma": 0.9}),
        ("step_lr", {"step_size": 5, "gamma": 0.5}),
        ("linear_warmup", {"start_factor": 0.1, "total_iters": 10}),
        ("cosine_annealing_lr", {"T_max": 50}),
    ]
    check(nested, torch_rates(lambda o: torch_sequence(o, parts, [20, 60, 70])))


def test_product_equals_torchs_chained_scheduler():
    def chained(o):
        parts = [
            torch_schedules.LinearLR(o, 0.1, total_iters=30),
            torch_schedules.ExponentialLR(o, 0.99),
            torch_schedules.StepLR(o, 100, 0.5),
        ]
        return torch_schedules.ChainedScheduler(parts)

    parts = linear_warmup(0.1, total_iters=30), exponential_lr(0.99), step_lr(100, 0.5)
    check(product(0.3, *parts), torch_rates(chained, lr=0.3))
    assert product(2, 0.25)(7) == 0.5


@pytest.mark.parametrize("warmup", [0, 1, 40])
@pytest.mark.parametrize("decay", [1, 60, 160])
@pytest.mark.parametrize("low", [0.0, 0.1])
def test_warmup_stable_decay_is_a_line_a_constant_and_a_line(warmup, decay, low):
    def pieces(o):
        up = [torch_schedules.LinearLR(o, 0.25, total_iters=warmup)] if warmup else []
        hold = [torch_schedules.ConstantLR(o, 1.0)]
        down = [torch_schedules.LinearLR(o, 1.0, low, total_iters=decay)]
        return torch_schedules.SequentialLR(o, up + hold + down, [warmup] * bool(warmup) + [200 - decay])

    check(warmup_stable_decay(200, warmup, decay, start_factor=0.25, eta_min=low), torch_rates(pieces))


def test_warmup_stable_decay_as_published():
    wsd = warmup_stable_decay(100, 10, 20, decay_type="1-sqrt")
    n = np.arange(STEPS)
    with np.errstate(invalid="ignore"):
        cooling = 1 - np.sqrt((n - 80) / 20)  # Hägele et al. 2024
    check(wsd, np.where(n < 10, n / 10, np.where(n <= 80, 1.0, np.where(n <= 100, cooling, 0.0))))
    lower = warmup_stable_decay(100, 10, 20, decay_type="1-sqrt", eta_min=0.2)
    check(lower, np.where(n < 10, n / 10, 0.2 + 0.8 * ours(wsd)))


def test_constant_stays():
    assert set(ours(constant())) == {1.0}
    assert set(ours(constant(0.3))) == {0.3}


def test_steps_may_be_numpy_integers_and_far_away():
    schedule = cosine_annealing_lr(10, 0.1)
    assert schedule(np.int64(3)) == schedule(3) == schedule(np.uint8(3))
    assert schedule(20 * 10**12) == 1.0
    assert cosine_annealing_warm_restarts(10)(10**15) == 1.0
    assert cosine_annealing_warm_restarts(10, 2)(10 * (2**60 - 1)) == 1.0
    for name, options in SETTINGS:
        if options.get("gamma", 0) <= 1:
            assert isinstance(getattr(schedules, name)(**options)(10**9), float)


MODES = list(itertools.product(("min", "max"), ("rel", "abs"), (0, 2), (0, 3), (0.0, 0.05), (0.0, 1e-4, 0.5)))


def plateau_metrics(seed, mode, steps=240):
    "A metric that improves, stalls, gets worse, and is infinite once."
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0.02, 0.3, steps) * (rng.random(steps) < 0.5)) + rng.normal(0, 0.02, steps)
    walk[50] = -np.inf
    return walk if mode == "max" else -walk


@pytest.mark.parametrize("settings", MODES, ids=str)
def test_plateau_equals_torch_also_after_a_restart(settings):
    names = ("mode", "threshold_mode", "patience", "cooldown", "min_lr", "threshold")
    for factor, eps in ((0.5, 1e-8), (0.7, 0.05), (0.0, 1e-8)):
        options = dict(zip(names, settings, strict=True)) | {"factor": factor, "eps": eps}
        optimizer, mine = dummy(), ReduceLROnPlateau(**options)
        reference = torch_schedules.ReduceLROnPlateau(optimizer, **options)
        for step, metric in enumerate(plateau_metrics(len(str(options)), options["mode"])):
            assert mine(step) == optimizer.param_groups[0]["lr"]
            assert mine.num_bad_epochs == reference.num_bad_epochs
            reference.step(metric)
            mine.step(metric)
            if step == 100:
                state, mine = mine.state_dict(), ReduceLROnPlateau(**options)
                mine.load_state_dict(state)


def test_plateau_has_the_defaults_of_torch():
    optimizer, mine = dummy(), ReduceLROnPlateau()
    reference = torch_schedules.ReduceLROnPlateau(optimizer)
    for step in range(100):
        assert mine(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        reference.step(1.0)
        mine.step(1.0)
    assert mine(0) < 1e-7


def test_plateau_in_units_of_the_base_rate():
    optimizer, options = dummy(0.2), {"patience": 0, "factor": 0.5}
    mine = ReduceLROnPlateau(**options, min_lr=0.1, eps=0.01)
    reference = torch_schedules.ReduceLROnPlateau(optimizer, **options, min_lr=0.02, eps=0.002)
    for step in range(9):
        assert 0.2 * mine(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        reference.step(1.0)
        mine.step(1.0)
    assert mine(0) == 0.1


def test_plateau_is_saved_by_numpy_and_takes_metrics_of_any_library(tmp_path):
    plateau = ReduceLROnPlateau(patience=0, factor=0.5)
    for metric in (torch.tensor(1.0, dtype=torch.bfloat16), np.float32(1), np.array(2), 1):
        plateau.step(metric)
    np.savez(tmp_path / "plateau.npz", **plateau.state_dict())
    fresh = ReduceLROnPlateau(patience=0, factor=0.5)
    fresh.load_state_dict(np.load(tmp_path / "plateau.npz"))
    assert (
        fresh.state_dict()
        == plateau.state_dict()
        == {"current": 0.125, "best": 1.0, "num_bad_epochs": 0, "cooldown_counter": 0}
    )
    assert [type(v) for v in fresh.state_dict().values()] == [float, float, int, int]


def test_plateau_works_within_other_schedules():
    plateau = ReduceLROnPlateau(patience=0, factor=0.5)
    rate = product(0.1, sequential([linear_warmup(0.5, total_iters=2), plateau], [2]))
    assert [rate(s) for s in (0, 2)] == [0.05, 0.1]
    plateau.step(1.0)
    plateau.step(1.0)
    assert rate(3) == 0.05


def bad(name, options, message, error=ValueError):
    return pytest.param(name, options, error, message, id=f"{name}, {message}")  # options may hold addresses


WHOLE = [  # schedule, argument that must be whole, smallest, other arguments
    ("constant", "total_iters", 1, {}),
    ("step_lr", "step_size", 1, {}),
    ("polynomial_lr", "total_iters", 1, {}),
    ("cosine_annealing_lr", "T_max", 1, {}),
    ("cosine_annealing_warm_restarts", "T_0", 1, {}),
    ("cosine_annealing_warm_restarts", "T_mult", 1, {"T_0": 5}),
    ("linear_warmup", "total_iters", 1, {}),
    ("one_cycle_lr", "total_steps", 1, {}),
    ("warmup_stable_decay", "total_steps", 1, {}),
    ("warmup_stable_decay", "warmup_steps", 0, {"total_steps": 9}),
    ("warmup_stable_decay", "decay_steps", 1, {"total_steps": 9}),
    ("ReduceLROnPlateau", "patience", 0, {}),
    ("ReduceLROnPlateau", "cooldown", 0, {}),
    ("schedule_free_sgd", "warmup_steps", 0, {}),
]
REAL = [  # schedule, argument, what is out of bounds, other arguments
    ("constant", "factor", [-0.1], {}),
    ("step_lr", "gamma", [-0.1], {"step_size": 5}),
    ("multistep_lr", "gamma", [-0.1], {"milestones": [5]}),
    ("exponential_lr", "gamma", [-0.1], {}),
    ("polynomial_lr", "power", [-1], {}),
    ("cosine_annealing_lr", "eta_min", [-0.1, 1.1], {"T_max": 5}),
    ("cosine_annealing_warm_restarts", "eta_min", [-0.1, 1.1], {"T_0": 5}),
    ("linear_warmup", "start_factor", [-0.1, 1.1], {}),
    ("linear_warmup", "end_factor", [-0.1, 1.1], {}),
    ("one_cycle_lr", "pct_start", [-0.1, 1.1], {"total_steps": 5}),
    ("one_cycle_lr", "div_factor", [0, -1], {"total_steps": 5}),
    ("one_cycle_lr", "final_div_factor", [0, -1], {"total_steps": 5}),
    ("warmup_stable_decay", "start_factor", [-0.1, 1.1], {"total_steps": 5}),
    ("warmup_stable_decay", "eta_min", [-0.1, 1.1], {"total_steps": 5}),
    ("ReduceLROnPlateau", "factor", [-0.1, 1.0], {}),
    ("ReduceLROnPlateau", "threshold", [-0.1], {}),
    ("ReduceLROnPlateau", "min_lr", [-0.1, 1.1], {}),
    ("ReduceLROnPlateau", "eps", [-0.1], {}),
    ("schedule_free_sgd", "lr", [0, -1], {}),
    ("schedule_free_sgd", "momentum", [-0.1, 1.0], {}),
    ("schedule_free_sgd", "weight_decay", [-0.1], {}),
]
BAD = [
    *(bad(f, o | {a: low - 1}, f"{a} must be {low} or more, got {low - 1}") for f, a, low, o in WHOLE),
    *(bad(f, o | {a: v}, f"{a} must be a whole number", TypeError) for f, a, _, o in WHOLE for v in (2.0, True, "3")),
    *(bad(f, o | {a: v}, f"{a} must be .*, got {v}$") for f, a, values, o in REAL for v in (*values, math.nan)),
    *(bad(f, o | {a: "x"}, f"{a} must be a number, got str", TypeError) for f, a, _, o in REAL),
    bad("warmup_stable_decay", {"total_steps": 9, "warmup_steps": 5, "decay_steps": 5}, "decay_steps must be at most"),
    bad("warmup_stable_decay", {"total_steps": 9, "decay_type": "cos"}, "decay_type must be one of"),
    bad("one_cycle_lr", {"total_steps": 9, "anneal_strategy": "cosine"}, "anneal_strategy must be one of"),
    bad("ReduceLROnPlateau", {"mode": "lower"}, "mode must be one of 'min', 'max', got 'lower'"),
    bad("ReduceLROnPlateau", {"threshold_mode": "x"}, "threshold_mode must be one of 'rel', 'abs'"),
    bad("multistep_lr", {"milestones": [5, 5]}, r"milestones must increase, got \[5, 5\]"),
    bad("multistep_lr", {"milestones": [5, 3]}, "milestones must increase"),
    bad("multistep_lr", {"milestones": [-1]}, r"milestones\[0\] must be 0 or more, got -1"),
    bad("multistep_lr", {"milestones": [1, 2.0]}, r"milestones\[1\] must be a whole number, got 2.0", TypeError),
    bad("multistep_lr", {"milestones": 5}, "milestones must be a list of whole numbers, got 5", TypeError),
    bad("sequential", {"schedules": [], "milestones": []}, "schedules must be a list", TypeError),
    bad("sequential", {"schedules": [0.1], "milestones": []}, "schedules must be a list", TypeError),
    bad("sequential", {"schedules": constant(), "milestones": []}, "schedules must be a list", TypeError),
    bad("sequential", {"schedules": [constant()], "milestones": [3]}, "milestones must be one fewer .* 0, got 1"),
    bad("sequential", {"schedules": [constant()] * 3, "milestones": [3, 2]}, "milestones must increase"),
]


@pytest.mark.parametrize(("name", "options", "error", "message"), BAD)
def test_bad_arguments_are_refused(name, options, error, message):
    with pytest.raises(error, match=message):
        getattr(schedules, name)(**options)


def test_products_refuse_what_is_no_factor():
    with pytest.raises(ValueError, match="factors must be one or more"):
        product()
    with pytest.raises(ValueError, match=r"factors\[1\] must be 0 or more, got -1"):
        product(constant(), -1)
    with pytest.raises(TypeError, match=r"factors\[0\] must be a number, got str"):
        product("0.1")


EACH = [
    constant(),
    product(0.1, constant()),
    product(0.1),
    step_lr(3),
    multistep_lr([3]),
    exponential_lr(0.9),
    polynomial_lr(),
    cosine_annealing_lr(3),
    cosine_annealing_warm_restarts(3),
    linear_warmup(),
    sequential([constant()], []),
    warmup_stable_decay(9),
    one_cycle_lr(9),
    ReduceLROnPlateau(),
]


@pytest.mark.parametrize("number", range(len(EACH)))
def test_bad_steps_are_refused(number):
    for step, error in ((-1, ValueError), (1.0, TypeError), (True, TypeError), (None, TypeError)):
        with pytest.raises(error, match=f"step must be .*, got {step}"):
            EACH[number](step)


def test_bad_metrics_and_states_change_nothing():
    plateau = ReduceLROnPlateau(patience=0)
    plateau.step(1.0)
    before = plateau.state_dict()
    for metric, error in ((math.nan, ValueError), (np.ones(2), TypeError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error, match="metric must"):
            plateau.step(metric)
    wrong = [{}, before | {"more": 1}, before | {"best": math.nan}, before | {"current": 2.0}]
    for state in [*wrong, before | {"num_bad_epochs": -1}, before | {"cooldown_counter": -1}]:
        with pytest.raises(ValueError, match=r"state(\[.*\])? must"):
            plateau.load_state_dict(state)
    assert plateau.state_dict() == before


def quadratic(seed=0, size=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=size), np.geomspace(0.1, 2, size), rng.normal(size=(STEPS, size))


@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_a_trajectory_equals_torchs_optimizer_with_its_scheduler(rule):
    start, curvature, noise = quadratic()
    options = {"momentum": 0.9} if rule == "sgd" else {"weight_decay": 0.1}
    params, theirs = {"w": start.copy()}, torch.tensor(start, requires_grad=True)
    made = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[rule]([theirs], lr=0.1, **options)
    parts = [("linear_warmup", {"start_factor": 0.1, "total_iters": 20}), ("cosine_annealing_lr", {"T_max": 100})]
    scheduler = torch_sequence(made, parts, [20])
    schedule = sequential([linear_warmup(0.1, total_iters=20), cosine_annealing_lr(100)], [20])
    ours = Optimizer(params, {"sgd": sgd, "adamw": adamw}[rule](lr=product(0.1, schedule), **options))
    for step in range(STEPS):
        theirs.grad = torch.tensor(curvature) * theirs.detach() + torch.tensor(noise[step])
        ours.step({"w": curvature * params["w"] + noise[step]})
        made.step()
        scheduler.step()
        assert_close(params["w"], theirs, rtol=1e-9, atol=1e-13)


FREE = [
    {},
    {"lr": 0.3, "momentum": 0.5},
    {"lr": 0.1, "weight_decay": 0.2},
    {"lr": 0.5, "warmup_steps": 50},
    {"lr": 0.5, "warmup_steps": 1, "momentum": 0.98, "weight_decay": 0.01},
]


@pytest.mark.parametrize("options", FREE, ids=str)
def test_schedule_free_equals_its_authors_package(options):
    start, curvature, noise = quadratic(1)
    params, theirs = {"w": start.copy()}, torch.tensor(start, requires_grad=True)
    package = schedulefree.SGDScheduleFree([theirs], **options)
    package.train()
    ours = Optimizer(params, schedule_free_sgd(**options))
    for step in range(STEPS):
        theirs.grad = torch.tensor(curvature) * theirs.detach() + torch.tensor(noise[step])
        ours.step({"w": curvature * params["w"] + noise[step]})
        package.step()
        assert_close(params["w"], theirs, rtol=1e-9, atol=1e-12)
        if step % 20 == 0:
            package.eval()
            assert_close(schedule_free_average(ours)["w"], theirs, rtol=1e-9, atol=1e-12)
            package.train()


def test_schedule_free_without_momentum_averages_plain_descent():
    start, curvature, noise = quadratic(2)
    params, z, path = {"w": start.copy()}, start.copy(), []
    ours = Optimizer(params, schedule_free_sgd(0.1, momentum=0.0))
    for row in noise:
        grad = curvature * z + row
        ours.step({"w": grad})
        z = z - 0.1 * grad
        path.append(z)
    assert_close(params["w"], z, rtol=1e-9)
    assert_close(schedule_free_average(ours)["w"], np.mean(path, axis=0), rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, torch.float32])
def test_schedule_free_on_many_arrays_saved_and_restored(dtype):
    def run(params, rule, steps, state=None):
        optimizer = Optimizer(params, rule)
        if state:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            optimizer.step({name: 0.5 * p + 1 for name, p in params.items()})
        return optimizer

    make = (lambda *s: torch.ones(s, dtype=dtype)) if isinstance(dtype, torch.dtype) else lambda *s: np.ones(s, dtype)
    whole, halves = ({"a": make(3, 2), "a.b": make(4), "a.0": make(70_000)} for _ in range(2))
    rule = chain(clip_grad_norm(1.0), schedule_free_sgd(0.5, warmup_steps=7))
    once = run(whole, rule, 20)
    half = run(halves, rule, 10)
    again = run(halves, rule, 10, half.state_dict())
    for name in whole:
        assert_close(halves[name], whole[name], rtol=0)
        assert_close(schedule_free_average(again)[name], schedule_free_average(once)[name], rtol=0)
        assert schedule_free_average(once)[name].shape == whole[name].shape


def test_schedule_free_bad_input():
    optimizer = Optimizer({"w": np.ones(3)}, sgd(lr=0.1))
    with pytest.raises(ValueError, match="optimizer must have the rule schedule_free_sgd"):
        schedule_free_average(optimizer)
    with pytest.raises(TypeError, match="param must be floating point"):
        schedule_free_sgd().init(np.ones(3, dtype=int))
