"""Optimisers: every rule, option and way of execution against torch.optim; saved states, bad input, properties."""

import inspect
import itertools
import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from types import SimpleNamespace
from typing import NamedTuple

import array_api_strict
import numpy as np
import pytest
import torch
from backends import no_gpu
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lion_pytorch import Lion
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from dlopt_course import optim
from dlopt_course.core import assert_close, to_numpy
from dlopt_course.optim import (
    Optimizer,
    Rule,
    adadelta,
    adagrad,
    adam,
    adamw,
    add_decayed_weights,
    chain,
    clip_grad_norm,
    clip_grad_value,
    ema,
    lion,
    muon,
    nadam,
    newton_schulz,
    radam,
    rmsprop,
    scale_by_adadelta,
    scale_by_adagrad,
    scale_by_adam,
    scale_by_learning_rate,
    scale_by_lion,
    scale_by_momentum,
    scale_by_muon,
    scale_by_nadam,
    scale_by_radam,
    scale_by_rmsprop,
    sgd,
)

STEPS = 200
ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24}
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}  # of how far a number has moved, beside one rounding in each step
each_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])


# The problems: where the parameters start, and the gradient of every step. All numbers exist in float32 too.


def as_float32(**named):
    "The numbers that float32 has, in float64."
    return {name: np.asarray(x).astype("f4").astype("f8") for name, x in named.items()}


def of_all_sizes():
    "Gradients from 1e-8 to 1e4 and exact zeros; parameters that start at 0 show the moves alone."
    rng, sizes = np.random.default_rng(2), 10.0 ** np.arange(-8, 5)[:, None]
    start = rng.normal(size=(13, 4)) * [0, 1, 0, 1] * sizes ** [0, 0, 0, 1]
    noise = rng.normal(size=(STEPS, 13, 4)) * sizes
    noise[:, :, 2] = rng.normal(size=(STEPS, 13)) * 10.0 ** rng.uniform(-8, 4, (STEPS, 13))  # other sizes at each step
    noise[:, :, 3] *= rng.random((STEPS, 13)) < 0.3
    cube, number, one = rng.normal(size=(STEPS, 2, 3, 2)), 0.1 * rng.normal(size=STEPS), rng.normal(size=(STEPS, 1))
    first = as_float32(sizes=start, number=0.5, one=[-2.0], cube=cube[0] / 3, still=[1.0, -2, 0])
    every = as_float32(sizes=noise, number=number, one=1e-8 * one, cube=cube, still=np.zeros((STEPS, 3)))
    return first, [{name: x[i, ...] for name, x in every.items()} for i in range(STEPS)]


def of_matrices():
    "Tall, wide and square ones, thin ones, and one whose gradient is 0."
    rng = np.random.default_rng(3)
    shapes = {"tall": (9, 4), "wide": (3, 8), "square": (5, 5), "row": (1, 6), "column": (6, 1), "still": (2, 3)}
    sizes = {"tall": 1.0, "wide": 1e4, "square": 1e-3, "row": 1e-6, "column": 10.0, "still": 0.0}
    first = as_float32(**{name: rng.normal(size=shape) for name, shape in shapes.items()})
    steps = range(STEPS)
    return first, [as_float32(**{k: sizes[k] * rng.normal(size=s) for k, s in shapes.items()}) for _ in steps]


def far_from_zero():
    "For L2 penalties: once a parameter is near 0, Adam and its kin throw it to and fro, and any rounding is amplified."
    rng, (start, every) = np.random.default_rng(4), PROBLEMS["all sizes"]
    return as_float32(
        **{k: rng.uniform(1e3, 2e3, x.shape) * rng.choice([-1, 1], x.shape) for k, x in start.items()}
    ), every


PROBLEMS = {"all sizes": of_all_sizes(), "matrices": of_matrices()}
PROBLEMS["far from 0"] = far_from_zero()


# The cases: each rule with its defaults, each option alone and each pair of options


@dataclass
class Case:
    "A rule, torch's optimizer, and the options that both are given."

    name: str
    ours: Callable  # options -> Rule
    theirs: Callable  # parameters, options -> what has .step()
    options: dict = field(default_factory=dict)

    @property
    def problem(self):
        "Where it is run."
        if self.name.startswith("muon"):
            return "matrices"
        coupled = self.options.get("weight_decay") and not self.name.startswith(("adamw", "lion"))
        return "far from 0" if coupled and not self.options.get("decoupled_weight_decay") else "all sizes"


def polynomial(matrix, coefficients, steps, eps):
    "Newton and Schulz by another path: the scalar polynomial, applied to the singular values."
    a, b, c = coefficients
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    s = s / max(np.sqrt(np.sum(s**2)), eps)
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return u @ np.diag(s) @ vt


class ExactMuon(torch.optim.Muon):
    "torch's Muon in float64: its iteration in bfloat16 is replaced by the polynomial of the singular values."

    def step(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "torch.optim._muon._zeropower_via_newtonschulz",
                lambda grad, *options: torch.from_numpy(polynomial(grad.numpy(), *options)),
            )
            super().step()


def negated(make):
    "The optimizer on the other sign of the gradient, for a package without `maximize`."

    def build(params, maximize=False, **options):
        optimizer = make(params, **options)

        def step():
            for p in params:
                p.grad = -p.grad if maximize else p.grad
            optimizer.step()

        return SimpleNamespace(step=step)

    return build


COMMON = {"lr": 0.1, "weight_decay": 0.1, "maximize": True}
BETAS, DECOUPLED = {"betas": (0.5, 0.9)}, {"decoupled_weight_decay": True}
MUON = {"lr": 0.1, "weight_decay": 0.0, "momentum": 0.6, "nesterov": False, "adjust_lr_fn": "match_rms_adamw"}
MUON |= {"ns_coefficients": (1.5, -0.5, 0.0), "eps": 2.0, "ns_steps": 3}
OPTIONS = {  # ours, torch's, and another value than the default for each option
    "sgd": (sgd, torch.optim.SGD, {"momentum": 0.9, "dampening": 0.3, "nesterov": True, **COMMON}),
    "adagrad": (
        adagrad,
        torch.optim.Adagrad,
        {"lr_decay": 0.05, "initial_accumulator_value": 0.2, "eps": 1e-4, **COMMON},
    ),
    "rmsprop": (rmsprop, torch.optim.RMSprop, {"alpha": 0.8, "eps": 1e-4, "momentum": 0.8, "centered": True, **COMMON}),
    "adadelta": (adadelta, torch.optim.Adadelta, {"rho": 0.7, "eps": 1e-4, **COMMON}),
    "adam": (adam, torch.optim.Adam, {**BETAS, "eps": 1e-4, "amsgrad": True, **DECOUPLED, **COMMON}),
    "adamw": (adamw, torch.optim.AdamW, {**BETAS, "eps": 1e-4, "amsgrad": True, **COMMON}),
    "nadam": (nadam, torch.optim.NAdam, {**BETAS, "eps": 1e-4, "momentum_decay": 0.02, **DECOUPLED, **COMMON}),
    "radam": (radam, torch.optim.RAdam, {**BETAS, "eps": 1e-4, **DECOUPLED, **COMMON}),
    "lion": (lion, negated(Lion), {**BETAS, **COMMON}),
    "muon": (muon, ExactMuon, MUON),
}


def chosen(options):
    "No option, each alone, each pair."
    for count in range(3):
        for names in itertools.combinations(options, count):
            yield {name: options[name] for name in names}


def accepts(make, options):
    "Whether an optimizer can be made with these options."
    try:
        make(options)
    except ValueError:
        return False
    return True


def rejected(name, options):
    "Whether torch takes no such combination."
    matrix = torch.ones(2, 2)
    return not accepts(lambda o: OPTIONS[name][1]([matrix], **o), options)


GRID = [(name, o) for name, (_, _, options) in OPTIONS.items() for o in chosen(options)]
REJECTED = [pair for pair in GRID if rejected(*pair)]


def schedule(step):
    "Rises, falls, and is 0 at times."
    return abs(math.sin(0.1 * step)) * (step % 7 != 3)


def scheduled(make):
    "torch's optimizer with the same factor by LambdaLR."

    def build(params, lr, **options):
        optimizer = make(params, lr=lr, **options)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return SimpleNamespace(step=lambda: (optimizer.step(), scheduler.step()))

    return build


def with_schedule(rule, lr, **options):
    return rule(lr=lambda step: lr * schedule(step), **options)


def after(clip, make):
    "torch's optimizer behind torch's clipping."

    def build(params, **options):
        optimizer = make(params, **options)
        return SimpleNamespace(step=lambda: (clip(params), optimizer.step()))

    return build


CLIPPED = {  # ours, torch's, which stands before adamw
    "norm 1": (clip_grad_norm(1.0), lambda p: clip_grad_norm_(p, 1.0)),
    "norm 1e9": (clip_grad_norm(1e9), lambda p: clip_grad_norm_(p, 1e9)),
    "1-norm": (clip_grad_norm(3.0, 1), lambda p: clip_grad_norm_(p, 3.0, 1)),
    "3-norm": (clip_grad_norm(3.0, 3), lambda p: clip_grad_norm_(p, 3.0, 3)),
    "largest": (clip_grad_norm(0.5, math.inf), lambda p: clip_grad_norm_(p, 0.5, math.inf)),
    "value": (clip_grad_value(0.2), lambda p: clip_grad_value_(p, 0.2)),
    "both": (
        chain(clip_grad_value(0.2), clip_grad_norm(1.0)),
        lambda p: (clip_grad_value_(p, 0.2), clip_grad_norm_(p, 1.0)),
    ),
}

CASES = [
    Case(", ".join([name, *options]), *OPTIONS[name][:2], options)
    for name, options in GRID
    if not rejected(name, options)
]
CASES += [
    Case(
        f"{name} after clipping, {kind}", partial(lambda ours, **o: chain(ours, adamw(**o)), ours), after(clip, make), o
    )
    for kind, (ours, clip) in CLIPPED.items()
    for name, make, o in [("adamw", torch.optim.AdamW, {"lr": 0.1, "eps": 1e-3})]
]
CASES += [
    Case(f"{name}, lr of the step", partial(with_schedule, rule), scheduled(make), o | {"lr": 0.2})
    for name, rule, make, o in [
        ("sgd", sgd, torch.optim.SGD, {"momentum": 0.9}),
        ("adam", adam, torch.optim.Adam, {"weight_decay": 0.1}),
        ("adamw", adamw, torch.optim.AdamW, {}),
        ("adagrad", adagrad, torch.optim.Adagrad, {"lr_decay": 0.1}),
    ]
]
CASES += [
    Case(f"{name}, many options", *OPTIONS[name][:2], {k: v for k, v in options.items() if k not in left_out})
    for name, (_, _, options) in OPTIONS.items()
    if name != "muon"
    for left_out in [{"sgd": ["dampening"], "adam": ["amsgrad", "maximize"], "rmsprop": ["weight_decay"]}.get(name, [])]
]
BY_NAME = {case.name: case for case in CASES}
GIVEN = ["adam, lr, weight_decay", "adamw, betas, lr", "muon, nesterov, adjust_lr_fn"]
CLIPPINGS = [f"adamw after clipping, {kind}" for kind in ("norm 1", "both")]
ENDS = (", many options", ", lr of the step")
REPRESENTATIVE = [c for c in CASES if c.name in (*OPTIONS, *GIVEN, *CLIPPINGS) or c.name.endswith(ENDS)]


# The references


@contextmanager
def double_precision():
    "torch's scalars in float64, such as NAdam's product."
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def flat(params):
    "All numbers in one row."
    return np.concatenate([np.ravel(to_numpy(p)) for p in params])


@cache
def reference(name):
    "Every number after every step, as torch has it in float64."
    case = BY_NAME[name]
    start, every = PROBLEMS[case.problem]
    params = [torch.tensor(p) for p in start.values()]
    with double_precision():
        optimizer, path = case.theirs(params, **case.options), []
        for grads in every:
            for p, g in zip(params, grads.values(), strict=True):
                p.grad = torch.tensor(g)
            optimizer.step()
            path.append(flat(params))
    return np.stack(path)


# The ways of execution


def every_second(x):
    "The same numbers, each second one in memory."
    return np.repeat(x, 2, axis=0)[::2] if np.ndim(x) else np.array(x)


def read_only(x):
    x = np.array(x)
    x.flags.writeable = False
    return x


def with_graph(x):
    return torch.nn.Parameter(torch.tensor(x))


def in_cuda(x):
    return torch.tensor(x, device="cuda")


def fortran(x):
    return np.array(x, order="F")


class Way(NamedTuple):
    "How parameters and gradients come, and what the optimizer may use."

    param: Callable = np.array
    grad: Callable = np.array
    block: int | None = None
    threads: str = "1"
    compiled: bool | None = None


WAYS = {
    "plain": Way(),
    "blocks": Way(block=8),
    "one block each": Way(block=1),
    "compiled": Way(compiled=True),
    "compiled blocks": Way(block=8, compiled=True),
    "not compiled": Way(compiled=False),
    "two threads": Way(block=8, threads="2"),
    "two threads, compiled": Way(block=8, threads="2", compiled=True),
    "Fortran": Way(fortran, fortran, block=8, compiled=True),
    "Fortran gradients": Way(grad=fortran, block=8, compiled=True),
    "every second": Way(every_second, every_second, block=8),
    "read-only gradients": Way(grad=read_only, block=8),
    "read-only gradients, compiled": Way(grad=read_only, block=8, compiled=True),
    "torch": Way(torch.tensor, torch.tensor),
    "torch, threads": Way(torch.tensor, torch.tensor, block=8, threads="2", compiled=True),
    "torch parameters": Way(with_graph, torch.tensor),
    "torch parameters and graphs": Way(with_graph, lambda x: 1 * with_graph(x)),
    "strict": Way(array_api_strict.asarray, array_api_strict.asarray),
    "cuda": Way(in_cuda, in_cuda),
}
each_way = pytest.mark.parametrize("way", [pytest.param(w, marks=[no_gpu] * (w == "cuda")) for w in WAYS])


@pytest.fixture(autouse=True, scope="module")
def _torch_on_one_thread():
    "Its threads wait for each other longer than these small arrays take."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def use(monkeypatch):
    "Sets size of blocks and number of threads."

    def set_up(way):
        monkeypatch.setenv("OMP_NUM_THREADS", way.threads)
        if way.block:
            monkeypatch.setattr(optim, "_BLOCK", way.block)
        return way

    return set_up


def made(way, values, dtype="float64", of="param"):
    "Arrays as a way wants them."
    return {name: getattr(way, of)(x.astype(dtype)) for name, x in values.items()}


def spoil(grads):
    "Overwrites gradients after a step, as the next backward pass of torch does: none may be remembered as it is."
    for g in grads.values():
        g = g.detach() if isinstance(g, torch.Tensor) else g
        if not isinstance(g, np.ndarray) or g.flags.writeable:
            g[...] = math.nan


def walk(case, way, dtype, steps=STEPS):
    "Every number after every step, by Optimizer; the arrays that were given are the ones that move."
    start, every = PROBLEMS[case.problem]
    params = made(way, start, dtype)
    kinds = {k: (type(p), p.dtype, getattr(p, "device", "cpu"), tuple(p.shape)) for k, p in params.items()}
    optimizer, path = Optimizer(params, case.ours(**case.options), compiled=way.compiled), []
    for grads in every[:steps]:
        passed = made(way, grads, dtype, "grad")
        assert optimizer.step(passed) is None
        path.append(flat(params.values()))
        changed = [k for k, g in grads.items() if not np.array_equal(to_numpy(passed[k]), g.astype(dtype))]
        assert not changed, "a gradient was changed"
        spoil(passed)
    assert kinds == {k: (type(p), p.dtype, getattr(p, "device", "cpu"), tuple(p.shape)) for k, p in params.items()}
    assert not any(p.grad_fn or not p.requires_grad for p in params.values() if isinstance(p, torch.nn.Parameter))
    return np.stack(path)


def walk_by_hand(case, dtype, make, steps):
    "The same by `init` and `update`, which change nothing in place."
    start, every = PROBLEMS[case.problem]
    rule, path = case.ours(**case.options), []
    rule = rule if rule.scope == "all" else chain(clip_grad_norm(1e30), rule)  # which makes it a rule of dicts
    params = {k: make(p.astype(dtype)) for k, p in start.items()}
    state = rule.init(params)
    for grads in every[:steps]:
        moves, state = rule.update({k: make(g.astype(dtype)) for k, g in grads.items()}, state, params)
        params = {k: p + moves[k] for k, p in params.items()}
        path.append(flat(params.values()))
    return np.stack(path)


def agrees(path, case, dtype):
    "Equal to torch at every step, relative to how far each number has moved on its way."
    expected, start = reference(case.name)[: len(path)], flat(PROBLEMS[case.problem][0].values())
    moved, largest = np.abs(expected - start).max(0), np.maximum(np.abs(expected).max(0), np.abs(start))
    atol = TOLERANCE[dtype] * moved + STEPS * ROUNDING[dtype] * largest
    atol = np.broadcast_to(atol, expected.shape)
    assert_close(path, expected.astype(dtype), rtol=0, atol=atol, name=f"{case.name}, {dtype}")


@each_dtype
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_agrees_with_torch(case, dtype):
    agrees(walk(case, WAYS["plain"], dtype), case, dtype)


@pytest.mark.parametrize(("name", "options"), REJECTED, ids=lambda x: x if isinstance(x, str) else ", ".join(x))
def test_rejects_what_torch_rejects(name, options):
    with pytest.raises(ValueError, match="nesterov needs momentum > 0 and dampening 0, got"):
        OPTIONS[name][0](**options)


@pytest.mark.parametrize("name", OPTIONS)
def test_names_order_and_defaults_are_those_of_torch(name):
    ours, theirs, _ = OPTIONS[name]
    theirs = {"lion": Lion, "muon": torch.optim.Muon}.get(name, theirs)
    ours, theirs = (inspect.signature(f).parameters for f in (ours, theirs))
    assert {k: p.default for k, p in ours.items() if k != "maximize"}.items() <= {
        k: p.default for k, p in theirs.items()
    }.items()
    positional = [k for k, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [k for k in theirs if k in positional]


@each_way
@each_dtype
@pytest.mark.parametrize("case", REPRESENTATIVE, ids=lambda c: c.name)
def test_agrees_in_every_way_of_execution(case, way, dtype, use):
    agrees(walk(case, use(WAYS[way]), dtype, 15), case, dtype)


@each_dtype
@pytest.mark.parametrize("make", [np.array, torch.tensor, array_api_strict.asarray], ids=lambda f: f.__module__)
@pytest.mark.parametrize("case", REPRESENTATIVE, ids=lambda c: c.name)
def test_agrees_by_hand(case, make, dtype):
    agrees(walk_by_hand(case, dtype, make, 15), case, dtype)


@pytest.mark.parametrize("name", ["adam", "adam, many options", "adamw", "sgd, many options", "rmsprop"])
@each_dtype
def test_large_arrays(name, dtype, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    case, rng = BY_NAME[name], np.random.default_rng(5)
    shapes = {"small": (3,), "large": (3, 2**17 + 1), "medium": (2**15 + 1,), "0-d": ()}
    params, *grads = (as_float32(**{k: rng.normal(size=s) for k, s in shapes.items()}) for _ in range(4))
    theirs = [torch.tensor(p) for p in params.values()]
    ours = {k: p.astype(dtype) for k, p in params.items()}
    optimizers = case.theirs(theirs, **case.options), Optimizer(ours, case.ours(**case.options))
    for each in grads:
        for p, g in zip(theirs, each.values(), strict=True):
            p.grad = torch.tensor(g)
        optimizers[0].step()
        optimizers[1].step({k: g.astype(dtype) for k, g in each.items()})
    for p, (key, x) in zip(theirs, ours.items(), strict=True):
        moved = float((p - torch.tensor(params[key])).abs().max())
        atol = TOLERANCE[dtype] * moved + 9 * ROUNDING[dtype] * float(p.abs().max())
        assert_close(x, p.numpy().astype(dtype), rtol=0, atol=atol, name=key)


@pytest.mark.parametrize("noise", [1.0, 1e-2, 1e-4])
@each_dtype
def test_centered_rmsprop_loses_digits_as_the_gradient_becomes_constant(noise, dtype):
    rng, options = np.random.default_rng(6), {"centered": True, "alpha": 0.9}
    every = as_float32(g=1 + noise * rng.normal(size=(STEPS, 50)))["g"]
    theirs, ours = torch.zeros(50, dtype=torch.float64), {"w": np.zeros(50, dtype)}
    reference, optimizer = torch.optim.RMSprop([theirs], **options), Optimizer(ours, rmsprop(**options))
    for g in every[: STEPS if noise**2 > 100 * ROUNDING[dtype] else 1]:  # further on, nothing is left of v - m^2
        theirs.grad = torch.tensor(g)
        reference.step()
        optimizer.step({"w": g.astype(dtype)})
    amplified = 10 * ROUNDING[dtype] / noise**2  # v and m^2 are near 1, their difference is near noise^2
    assert_close(ours["w"], theirs.numpy().astype(dtype), rtol=TOLERANCE[dtype] + amplified, name="centered")


@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constant_gradients_keep_centered_rmsprop_finite(make, dtype):
    params, grads = {"w": make(np.zeros(50, dtype))}, {"w": make(np.linspace(0.1, 3, 50).astype(dtype))}
    optimizer = Optimizer(params, rmsprop(alpha=0.9, centered=True))
    for _ in range(400):
        optimizer.step(grads)  # v - m^2 is 0 but for rounding
    assert np.isfinite(to_numpy(params["w"])).all()


# Muon and Newton-Schulz

MATRICES = {
    "tall": np.random.default_rng(7).normal(size=(9, 4)),
    "wide": np.random.default_rng(8).normal(size=(3, 8)) * 1e4,
    "square": np.random.default_rng(9).normal(size=(6, 6)) * 1e-8,
    "one row": np.array([[3.0, -4.0]]),
    "one column": np.array([[3.0], [-4.0]]),
    "one number": np.array([[-2.0]]),
    "rank one": np.outer([1.0, 2, 3], [1.0, -1]),
    "zeros": np.zeros((2, 3)),
}
SCHULZ = [{}, {"steps": 0}, {"steps": 1}, {"steps": 9}, {"coefficients": (1.5, -0.5, 0.0)}, {"eps": 10.0}]


@pytest.mark.parametrize("options", SCHULZ, ids=str)
@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("make", [np.array, torch.tensor, array_api_strict.asarray], ids=["numpy", "torch", "strict"])
@each_dtype
def test_newton_schulz_is_a_polynomial_of_the_singular_values(make, name, options, dtype):
    matrix = make(MATRICES[name].astype(dtype))
    expected = {"coefficients": (3.4445, -4.775, 2.0315), "steps": 5, "eps": 1e-7} | options
    expected = polynomial(MATRICES[name].astype(dtype).astype("f8"), **expected)
    ours = newton_schulz(matrix, **options)
    largest = np.max(np.abs(expected))
    assert_close(ours, expected.astype(dtype), rtol=0, atol={"float64": 1e-10, "float32": 2e-4}[dtype] * largest)
    assert isinstance(ours, type(matrix))


@pytest.mark.parametrize("shape", [(12, 4), (4, 12), (6, 6)], ids=str)
@pytest.mark.parametrize(
    "options", [{}, *({k: MUON[k]} for k in ("nesterov", "adjust_lr_fn", "momentum", "lr"))], ids=str
)
@each_dtype
def test_muon_agrees_with_torch_in_bfloat16(shape, options, dtype):
    rng = np.random.default_rng(10)
    u, _, vt = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
    base = u @ np.diag(np.linspace(1, 0.5, min(shape))) @ vt  # bfloat16 loses small singular values beside large ones
    theirs, ours = torch.zeros(shape, dtype=getattr(torch, dtype)), {"w": np.zeros(shape, dtype)}
    reference, optimizer = torch.optim.Muon([theirs], **options), Optimizer(ours, muon(**options))
    for _ in range(STEPS):
        g = (10 ** rng.uniform(-3, 3) * (base + 0.02 * rng.normal(size=shape))).astype(dtype)
        theirs.grad = torch.tensor(g)
        reference.step()
        optimizer.step({"w": g})
        assert np.linalg.norm(ours["w"] - theirs.numpy()) <= 3e-2 * np.linalg.norm(theirs.numpy())


# Closed forms


def descend(rule, start, gradient, steps):
    "Where a rule goes from one number."
    params, path = {"x": np.array([start])}, []
    optimizer = Optimizer(params, rule)
    for _ in range(steps):
        optimizer.step({"x": gradient(params["x"])})
        path.append(params["x"][0])
    return np.array(path)


def test_lion_on_a_parabola():
    t = np.arange(1, 91)
    assert_close(descend(lion(lr=0.01), 1.0, lambda x: 4 * x, 90), 1 - 0.01 * t, rtol=1e-12)
    assert_close(descend(lion(lr=0.01), -1.0, lambda x: 4 * x, 90), 0.01 * t - 1, rtol=1e-12)
    decayed = (1 + 1 / 0.5) * (1 - 0.01 * 0.5) ** t - 1 / 0.5  # x = (1 - lr decay) x - lr, as long as x > 0
    assert_close(descend(lion(lr=0.01, weight_decay=0.5), 1.0, lambda x: x, 81), decayed[:81], rtol=1e-12)
    ringing = descend(lion(lr=0.3, betas=(0.0, 0.0)), 1.0, lambda x: x, 7)  # the sign alone: past 0, and to and fro
    assert_close(ringing, np.array([0.7, 0.4, 0.1, -0.2, 0.1, -0.2, 0.1]), rtol=1e-12)


def test_gradient_descent_on_a_parabola():
    t = np.arange(1, STEPS + 1)
    assert_close(descend(sgd(lr=0.1), 2.0, lambda x: 3 * x, STEPS), 2 * 0.7**t, rtol=1e-12)
    assert_close(descend(sgd(lr=0.1, weight_decay=2.0), 2.0, lambda x: 3 * x, STEPS), 2 * 0.5**t, rtol=1e-12)
    assert_close(descend(sgd(lr=0.1, maximize=True), 2.0, lambda x: 3 * x, STEPS), 2 * 1.3**t, rtol=1e-12)
    assert_close(descend(sgd(lr=lambda step: 1 / (step + 2)), 2.0, lambda x: x, STEPS), 2 / (t + 1), rtol=1e-12)


def test_pieces_that_torch_has_in_no_optimizer():
    p, g = {"w": np.array([2.0, -1.0])}, {"w": np.array([1.0, 3.0])}
    Optimizer(p, add_decayed_weights(0.5)).step(g)
    assert_close(p["w"], np.array([2 + 1 + 1.0, -1 + 3 - 0.5]))
    Optimizer(p, scale_by_learning_rate(0.5)).step(g)
    assert_close(p["w"], np.array([3.5, 0.0]))


# Clipping

clip_rng = np.random.default_rng(11)
LIKE = {"w": clip_rng.normal(size=(3, 4)), "number": np.array(-2.0), "one": np.array([0.5])}
CLIP_GRADS = {
    "usual": LIKE,
    "large": {k: 1e4 * x for k, x in LIKE.items()},
    "small": {k: 1e-8 * x for k, x in LIKE.items()},
    "zero": {k: 0 * x for k, x in LIKE.items()},
    "float32": {k: x.astype("f4") for k, x in LIKE.items()},
    "mixed dtypes": LIKE | {"w": LIKE["w"].astype("f4")},
    "one array": {"w": LIKE["w"]},
}
each_library = pytest.mark.parametrize(
    "make", [np.array, torch.tensor, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)


def clipped_alike(rule, clip, grads, make):
    "The rule's moves are torch's clipped gradients; the gradients that were given stay."
    tensors = [torch.zeros(g.shape, dtype=getattr(torch, g.dtype.name)) for g in grads.values()]
    for p, g in zip(tensors, grads.values(), strict=True):
        p.grad = torch.tensor(g)
    clip(tensors)
    passed = {k: make(g) for k, g in grads.items()}
    rule = rule if rule.scope == "all" else chain(rule, clip_grad_norm(1e30))
    moves, _ = rule.update(passed, rule.init(passed), passed)
    rtol = 1e-12 if all(g.dtype == np.float64 for g in grads.values()) else 1e-6
    for p, (k, g) in zip(tensors, grads.items(), strict=True):
        assert_close(moves[k], p.grad, rtol=rtol, name=k)
        assert np.array_equal(to_numpy(passed[k]), g)


@each_library
@pytest.mark.parametrize("which", CLIP_GRADS)
@pytest.mark.parametrize("norm_type", [1, 2, 3, 2.0, math.inf, 1.5])
def test_clip_grad_norm_agrees_with_torch(norm_type, which, make):
    for limit in (0.0, 1e-9, 0.5, 2.0, 1e3, 1e12):
        rule = clip_grad_norm(limit, norm_type)
        clipped_alike(rule, lambda p, limit=limit: clip_grad_norm_(p, limit, norm_type), CLIP_GRADS[which], make)


@each_library
@pytest.mark.parametrize("which", CLIP_GRADS)
def test_clip_grad_value_agrees_with_torch(which, make):
    for limit in (0.0, 1e-9, 0.5, 1e3):
        rule = clip_grad_value(limit)
        clipped_alike(rule, lambda p, limit=limit: clip_grad_value_(p, limit), CLIP_GRADS[which], make)


def test_gradients_at_the_limit_are_shrunk_as_by_torch():
    grads = {"w": np.array([3.0, -4.0])}  # norm 5: 5 / (5 + 1e-6) is below 1
    clipped_alike(clip_grad_norm(5.0), lambda p: clip_grad_norm_(p, 5.0), grads, np.array)


# Averages of weights


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
@each_library
@each_dtype
def test_ema_agrees_with_torch(decay, make, dtype):
    model = torch.nn.Linear(3, 2).to(getattr(torch, dtype))
    rng, averaged = np.random.default_rng(12), AveragedModel(model, avg_fn=get_ema_avg_fn(decay))
    averaged.update_parameters(model)  # the first update copies
    ours = {k: make(to_numpy(p).copy()) for k, p in model.named_parameters()}
    for _ in range(STEPS):
        with torch.no_grad():
            for p in model.parameters():
                p += torch.tensor(rng.normal(size=p.shape).astype(dtype))
        averaged.update_parameters(model)
        before = {k: to_numpy(v).copy() for k, v in ours.items()}
        old, ours = ours, ema(ours, {k: make(to_numpy(p)) for k, p in model.named_parameters()}, decay)
        assert all(np.array_equal(to_numpy(v), before[k]) for k, v in old.items())
    for k, p in averaged.module.named_parameters():
        assert_close(
            ours[k], p, rtol=0, atol=float(p.detach().abs().max()) * {"float64": 1e-12, "float32": 1e-5}[dtype], name=k
        )


def test_ema_takes_parameters_of_a_model():
    model = torch.nn.Linear(3, 2)
    average = {k: p.detach().clone() for k, p in model.named_parameters()}
    for _ in range(3):
        average = ema(average, dict(model.named_parameters()))
    assert not any(p.requires_grad for p in average.values()), "each average holds the graph of all before"


def test_ema_keeps_shapes_and_dtypes():
    average = {"number": np.array(1.0), "w": np.ones(3, "f4")}
    for decay in (0.5, np.float64(0.5)):
        result = ema(average, {k: 3 * np.asarray(x) for k, x in average.items()}, decay)
        assert {k: (x.dtype, x.shape) for k, x in result.items()} == {k: (x.dtype, x.shape) for k, x in average.items()}
        assert_close(result["w"], np.full(3, 2, "f4"))


# Saved states


def copies(params):
    "The numbers as they are now."
    return {k: to_numpy(p).copy() for k, p in params.items()}


def identical(a, b):
    "Bit for bit."
    a, b = ({k: to_numpy(x) for k, x in each.items()} for each in (a, b))
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and a[k].tobytes() == b[k].tobytes() for k in a)


def through_file(optimizer, path):
    "The state as it comes from a file."
    np.savez(path, **{k: to_numpy(x) for k, x in optimizer.state_dict().items()})
    with np.load(path) as file:
        return dict(file)


def by_dict(optimizer, path):
    return optimizer.state_dict()


SAVED_WAYS = ["plain", "blocks", "compiled", "compiled blocks", "two threads, compiled", "Fortran", "every second"]
SAVED_WAYS += ["torch", "torch parameters", "strict", pytest.param("cuda", marks=no_gpu)]


@pytest.mark.parametrize("way", SAVED_WAYS)
@pytest.mark.parametrize("save", [through_file, by_dict])
@pytest.mark.parametrize("case", REPRESENTATIVE, ids=lambda c: c.name)
def test_a_restored_state_goes_on_bit_for_bit(case, way, save, use, tmp_path):
    way, (start, every) = use(WAYS[way]), PROBLEMS[case.problem]
    straight, halted = made(way, start), made(way, start)
    whole, first = (Optimizer(p, case.ours(**case.options), compiled=way.compiled) for p in (straight, halted))
    for grads in every[:12]:
        whole.step(made(way, grads, of="grad"))
    for grads in every[:5]:
        first.step(made(way, grads, of="grad"))
    saved = save(first, tmp_path / "state.npz")
    resumed = made(way, {k: to_numpy(p) for k, p in halted.items()})
    second, as_saved = Optimizer(resumed, case.ours(**case.options), compiled=way.compiled), copies(saved)
    second.load_state_dict(saved)
    assert identical(second.state_dict(), as_saved)
    first.step(made(way, every[7], of="grad"))  # neither may change what was saved
    for grads in every[5:12]:
        second.step(made(way, grads, of="grad"))
    assert identical(resumed, straight)
    assert identical(second.state_dict(), whole.state_dict())
    assert identical(saved, as_saved)


def test_a_restored_state_keeps_its_own_precision():
    "Also where it is finer than the parameters', and small arrays are joined."
    kept = Rule(
        lambda p: {"sum": np.zeros(p.shape, np.float32)},
        lambda g, state, p: (-g, {"sum": state["sum"] + np.float32(1e-4) * g.astype(np.float32)}),
    )

    def started():
        return Optimizer({"a": np.ones(3, np.float16), "b": np.ones((2, 2), np.float16)}, kept)

    first, second = started(), started()
    for _ in range(3):
        first.step({"a": np.full(3, 0.3, np.float16), "b": np.full((2, 2), 0.7, np.float16)})
    second.load_state_dict(first.state_dict())
    assert {x.dtype for x in second.state_dict().values()} == {np.dtype(np.float32)}
    assert identical(second.state_dict(), first.state_dict())


@pytest.mark.parametrize("case", REPRESENTATIVE, ids=lambda c: c.name)
def test_a_state_does_not_depend_on_blocks(case, use):
    start, every = PROBLEMS[case.problem]
    states = []
    for name in ("plain", "blocks", "one block each", "Fortran"):
        way = use(WAYS[name])
        optimizer = Optimizer(made(way, start), case.ours(**case.options), compiled=False)
        for grads in every[:3]:
            optimizer.step(made(way, grads, of="grad"))
        states.append(optimizer.state_dict())
        other = Optimizer(made(WAYS["plain"], start), case.ours(**case.options))
        other.load_state_dict(states[-1])
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        for k, x in state.items():
            assert_close(x, states[0][k], rtol=1e-12, atol=1e-300, name=k)


def test_names_of_a_state():
    params = {"w": np.ones((2, 3)), "b": np.ones(3)}
    state = Optimizer(params, adamw()).state_dict()
    moments = {f"{name}/0.{key}" for name in params for key in ("step", "m", "v")}
    assert {k for k in state if k.split("/")[1][0] == "0"} == moments
    assert state["w/0.m"].shape == (2, 3)
    assert all(isinstance(x, np.ndarray) for x in state.values())


def test_names_of_parameters_do_not_collide_in_a_state():
    params = {"a": np.ones(2), "a.1": np.zeros(2)}
    nested = chain(scale_by_adam(), chain(scale_by_learning_rate(0.1)))
    optimizer = Optimizer(params, nested)
    optimizer.step({"a": np.ones(2), "a.1": np.ones(2)})
    flat_rule = Optimizer(copies(params), chain(scale_by_adam(), scale_by_learning_rate(0.1)))
    assert len(optimizer.state_dict()) == len(flat_rule.state_dict())


def a_state(**changes):
    "The state of an optimizer of `w`, with other entries."
    state = Optimizer({"w": np.ones((2, 3))}, adam()).state_dict()
    return {k: x for k, x in (state | {"w/0." + k: x for k, x in changes.items()}).items() if x is not ...}


BAD_STATES = [
    (a_state(m=...), ValueError, r"state must have the names \['w/0.step', 'w/0.m'"),
    (a_state(other=np.ones(3)), ValueError, "state must have the names .*got .*other"),
    ({}, ValueError, "state must have the names"),
    (a_state(m=np.ones((3, 2))), ValueError, r"state\['w/0.m'\] must be float64 of shape \(2, 3\), got .*\(3, 2\)"),
    (a_state(m=np.ones(6)), ValueError, r"state\['w/0.m'\] must be float64 of shape \(2, 3\), got .*\(6,\)"),
    (a_state(v=np.ones((2, 3), "f4")), ValueError, r"state\['w/0.v'\] must be float64 .*got float32"),
    (a_state(step=np.array(1.0)), ValueError, r"state\['w/0.step'\] must be int64 .*got float64"),
    (a_state(step=np.ones(3, int)), ValueError, r"state\['w/0.step'\] must be .*got .*\(3,\)"),
    (a_state(m=[[1.0] * 3] * 2), TypeError, r"state\['w/0.m'\] must be .*got list"),
    (a_state(m=None), TypeError, r"state\['w/0.m'\] must be .*got NoneType"),
    ([1, 2], TypeError, "state must be .*got list"),
    (None, TypeError, "state must be .*got NoneType"),
]


@pytest.mark.parametrize(("state", "error", "message"), BAD_STATES)
def test_bad_states_change_nothing(state, error, message):
    params = {"w": np.ones((2, 3))}
    optimizer = Optimizer(params, adam())
    optimizer.step({"w": np.full((2, 3), 2.0)})
    before = optimizer.state_dict()
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(state)
    assert identical(optimizer.state_dict(), before)


# Bad input: hyperparameters

FACTORIES = [sgd, adagrad, rmsprop, adadelta, adam, adamw, nadam, radam, lion, muon]
FACTORIES += [scale_by_adagrad, scale_by_rmsprop, scale_by_adadelta, scale_by_adam, scale_by_nadam, scale_by_radam]
FACTORIES += [scale_by_lion, scale_by_muon, scale_by_momentum, scale_by_learning_rate, add_decayed_weights]
FACTORIES += [clip_grad_norm, clip_grad_value]
WITH = {  # what has to be given besides; what else is wrong, or allowed
    (scale_by_momentum, "dampening"): {"momentum": 0.9},
    (clip_grad_norm, "norm_type"): {"max_norm": 1.0},
}
FRACTIONS = ("momentum", "alpha", "rho")
PAIRS = [(0.9,), (0.9, 0.99, 0.999), 0.9, None, "ab", np.array([0.9, 0.99])]
NOT_NUMBERS = [True, "0.1", None, 1j, [0.1], np.array([0.1])]
NOT_ALLOWED = {"norm_type": [-1, math.nan, -math.inf, 0], "dampening": [math.nan, math.inf, -math.inf, 1.5]}
NEGATIVE = [-1e-9, math.nan, math.inf, -math.inf, np.float32(-1)]


def bad_settings():
    "Every factory with each of its numbers as it must not be."
    for make in FACTORIES:
        for name in inspect.signature(make).parameters:
            others = WITH.get((make, name), {})
            if name == "betas":
                yield from ((make, {"betas": bad}, (TypeError, ValueError), "^betas") for bad in PAIRS)
                for bad in [*NEGATIVE, 1.0, 1.5]:
                    yield make, {"betas": (bad, 0.9)}, ValueError, r"^betas\[0\] must be in \[0, 1\), got"
                    yield make, {"betas": (0.9, bad)}, ValueError, r"^betas\[1\] must be in \[0, 1\), got"
                for bad in NOT_NUMBERS:
                    yield make, {"betas": (bad, 0.9)}, TypeError, r"^betas\[0\] must be a number, got"
                    yield make, {"betas": (0.9, bad)}, TypeError, r"^betas\[1\] must be a number, got"
            elif name == "ns_coefficients":
                for bad in [(1.0, 2.0), (1.0, 2.0, 3.0, 4.0), 1.0, None, "abc", (1.0, math.nan, 2.0), (1.0, None, 2.0)]:
                    yield make, {name: bad}, (TypeError, ValueError), "^ns_coefficients"
            elif name == "adjust_lr_fn":
                yield (
                    make,
                    {name: "adamw"},
                    ValueError,
                    "^adjust_lr_fn must be one of None, 'original', 'match_rms_adamw'",
                )
            elif name not in ("nesterov", "maximize", "amsgrad", "centered", "decoupled_weight_decay"):
                wrong = (
                    NOT_ALLOWED.get(name, NEGATIVE) + [1.0, 1.5] * (name in FRACTIONS) + [2.5] * (name == "ns_steps")
                )
                yield from ((make, others | {name: bad}, ValueError, f"^{name} must be .*got") for bad in wrong)
                yield from ((make, others | {name: bad}, TypeError, f"^{name} must be .*got") for bad in NOT_NUMBERS)


BAD_SETTINGS = list(bad_settings())


@pytest.mark.parametrize(
    ("make", "options", "error", "message"), BAD_SETTINGS, ids=[f"{m.__name__}-{o!r}" for m, o, _, _ in BAD_SETTINGS]
)
def test_bad_hyperparameters_are_named(make, options, error, message):
    error = (TypeError, ValueError) if "ns_steps" in options else error
    with pytest.raises(error, match=message):
        make(**options)


BAD_MATRICES = [
    ({"matrix": [[1.0]]}, TypeError, "^matrix must be an array .*got list"),
    ({"matrix": np.ones((2, 2), int)}, TypeError, "^matrix must be floating point, got int64"),
    ({"matrix": np.ones(3)}, ValueError, r"^matrix must have two axes, got shape \(3,\)"),
    ({"matrix": np.ones((2, 2, 2))}, ValueError, "^matrix must have two axes"),
    ({"matrix": np.ones((0, 2))}, ValueError, "^matrix must not be empty"),
    ({"matrix": np.full((2, 2), np.nan)}, ValueError, "^matrix must be finite"),
    ({"steps": -1}, ValueError, "^steps must be"),
    ({"steps": 1.5}, (TypeError, ValueError), "^steps must be"),
    ({"eps": -1.0}, ValueError, "^eps must be"),
    ({"eps": math.nan}, ValueError, "^eps must be"),
    ({"coefficients": (1.0, 2.0)}, (TypeError, ValueError), "^coefficients must be"),
    ({"coefficients": None}, TypeError, "^coefficients must be"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_MATRICES)
def test_bad_input_of_newton_schulz(options, error, message):
    with pytest.raises(error, match=message):
        newton_schulz(**{"matrix": np.ones((2, 2))} | options)


W = {"w": np.ones(3)}
BAD_AVERAGES = [
    ((W, W, 1.0), ValueError, r"^decay must be in \[0, 1\), got 1.0"),
    ((W, W, -0.1), ValueError, "^decay must be"),
    ((W, W, math.nan), ValueError, "^decay must be"),
    ((W, W, "0.9"), TypeError, "^decay must be a number, got str"),
    ((W, [np.ones(3)], 0.9), TypeError, "^params must be a dict of arrays by name, .*got"),
    (([np.ones(3)], W, 0.9), TypeError, "^average must be a dict of arrays by name, .*got"),
    (({}, {}, 0.9), (TypeError, ValueError), "must be a dict of arrays by name, with at least one, got {}"),
    ((W, {"v": np.ones(3)}, 0.9), ValueError, r"^params must have the names of average, \['w'\], got \['v'\]"),
    ((W, {"w": np.ones(4)}, 0.9), ValueError, r"^params\['w'\] must have the shape of average\['w'\]"),
    ((W, {"w": np.ones(3, "f4")}, 0.9), TypeError, r"^params\['w'\] must have the dtype of average\['w'\]"),
    ((W, {"w": torch.ones(3)}, 0.9), TypeError, r"^params\['w'\] must be of the library of average\['w'\]"),
]


@pytest.mark.parametrize(("args", "error", "message"), BAD_AVERAGES)
def test_bad_input_of_ema(args, error, message):
    with pytest.raises(error, match=message):
        ema(*args)


@pytest.mark.parametrize(
    "rules", [(), (adam,), ([adam()],), (adam(), None), ("adam",)], ids=["none", "factory", "list", "None", "name"]
)
def test_chain_takes_rules_only(rules):
    with pytest.raises(TypeError, match="^rules must be one or more of Rule, got"):
        chain(*rules)


EXACT = [np.float64, np.float32, np.float16]


@pytest.mark.parametrize("number", EXACT, ids=lambda f: f.__name__)
@pytest.mark.parametrize("make", [np.array, torch.tensor, array_api_strict.asarray], ids=["numpy", "torch", "strict"])
@pytest.mark.parametrize("name", OPTIONS)
def test_numpy_scalars_as_hyperparameters_keep_float32(name, make, number):
    problem = "matrices" if name == "muon" else "all sizes"
    start, every = PROBLEMS[problem]
    options = {k: v for k, v in BY_NAME.get(f"{name}, many options", BY_NAME[name]).options.items() if k != "maximize"}
    scalars = {k: number(v) if isinstance(v, float) else v for k, v in options.items()}
    scalars |= {"betas": tuple(map(number, options["betas"]))} if "betas" in options else {}
    plain = {k: float(v) if isinstance(v, number) else v for k, v in scalars.items()}
    plain |= {"betas": tuple(map(float, scalars["betas"]))} if "betas" in options else {}
    results = []
    for given_options in (scalars, plain):
        params = {k: make(p.astype("f4")) for k, p in start.items()}
        optimizer = Optimizer(params, OPTIONS[name][0](**given_options))
        for grads in every[:3]:
            optimizer.step({k: make(g.astype("f4")) for k, g in grads.items()})
        assert {str(to_numpy(x).dtype) for x in optimizer.state_dict().values() if to_numpy(x).ndim} <= {"float32"}
        results.append(params)
    assert identical(*results)


# Bad input: parameters and gradients

BAD_PARAMS = [
    ({}, (TypeError, ValueError), "^params must be a dict of arrays by name, with at least one, got {}"),
    ([np.ones(3)], TypeError, "^params must be a dict of arrays by name"),
    (np.ones(3), TypeError, "^params must be a dict of arrays by name"),
    (None, TypeError, "^params must be a dict of arrays by name"),
    (torch.nn.Linear(2, 2).parameters(), TypeError, "^params must be a dict of arrays by name"),
    ({"w": [1.0]}, TypeError, r"^params\['w'\] must be an array .*got list"),
    ({"w": 1.0}, TypeError, r"^params\['w'\] must be an array .*got float"),
    ({"w": None}, TypeError, r"^params\['w'\] must be an array .*got NoneType"),
    ({"b": np.ones(2), "w": np.ones(3, int)}, TypeError, r"^params\['w'\] must be floating point, got int64"),
    ({"w": np.ones(3, bool)}, TypeError, r"^params\['w'\] must be floating point, got bool"),
    ({"w": np.ones(3, complex)}, TypeError, r"^params\['w'\] must be floating point, got complex128"),
    ({"w": torch.ones(3, dtype=torch.int64)}, TypeError, r"^params\['w'\] must be floating point, got torch.int64"),
    ({"b": np.ones(2), "w": np.ones((3, 0))}, ValueError, r"^params\['w'\] must not be empty, got shape \(3, 0\)"),
    ({"b": np.ones(2), "w": read_only(np.ones(3))}, ValueError, r"^params\['w'\] must be writeable"),
    ({"w": np.float64(1)}, (TypeError, ValueError), r"^params\['w'\] must be"),
    ({"v": W["w"], "w": W["w"]}, ValueError, "^params must be different arrays, got one under two names"),
    ({"v": W["w"], "w": W["w"][1:]}, ValueError, "^params must be different arrays"),
    ({0: np.ones(3)}, TypeError, "^params must be a dict of arrays by name"),
]


@pytest.mark.parametrize(("params", "error", "message"), BAD_PARAMS)
@pytest.mark.parametrize("rule", [adam(), chain(clip_grad_norm(1.0), sgd(momentum=0.9))], ids=["adam", "clipped"])
def test_bad_parameters_are_named(params, error, message, rule):
    with pytest.raises(error, match=message):
        Optimizer(params, rule)


@pytest.mark.parametrize("rule", [adam, torch.optim.Adam, None, "adam", 0.1])
def test_optimizer_takes_a_rule(rule):
    with pytest.raises(TypeError, match="^rule must be a Rule, such as sgd"):
        Optimizer({"w": np.ones(3)}, rule)


@pytest.mark.parametrize("rule", [muon(), chain(clip_grad_norm(1.0), muon()), chain(muon(), clip_grad_norm(1.0))])
@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2)])
def test_muon_names_the_parameter_that_is_no_matrix(rule, shape):
    with pytest.raises(ValueError, match=r"^params\['b'\].*muon moves matrices, got shape .*give the others to adamw"):
        Optimizer({"w": np.ones((3, 3)), "b": np.ones(shape)}, rule)


def grads_but(**changes):
    "Good gradients of w (2, 3) and b (3,), with some changed or left out."
    return {k: x for k, x in ({"w": np.ones((2, 3)), "b": np.ones(3)} | changes).items() if x is not ...}


BAD_GRADS = [
    ([np.ones((2, 3)), np.ones(3)], TypeError, "^grads must be a dict of arrays by name"),
    ({}, (TypeError, ValueError), "^grads must be a dict of arrays by name, with at least one, got {}"),
    (None, TypeError, "^grads must be a dict of arrays by name"),
    (grads_but(b=...), ValueError, r"^grads must have the names of params, \['w', 'b'\], got \['w'\]"),
    (grads_but(c=np.ones(3)), ValueError, "^grads must have the names of params, .*'c'"),
    (grads_but(b=np.ones(4)), ValueError, r"^grads\['b'\] must have the shape of params\['b'\], \(3,\), got \(4,\)"),
    (grads_but(b=np.ones((3, 1))), ValueError, r"^grads\['b'\] must have the shape of params\['b'\]"),
    (grads_but(b=np.array(1.0)), ValueError, r"^grads\['b'\] must have the shape of params\['b'\]"),
    (grads_but(w=np.ones((3, 2))), ValueError, r"^grads\['w'\] must have the shape of params\['w'\]"),
    (
        grads_but(w=np.ones((2, 3), "f4")),
        TypeError,
        r"^grads\['w'\] must have the dtype of params\['w'\], float64, got float32",
    ),
    (grads_but(w=np.ones((2, 3), int)), TypeError, r"^grads\['w'\] must be floating point, got int64"),
    (grads_but(w=[[1.0] * 3] * 2), TypeError, r"^grads\['w'\] must be an array .*got list"),
    (grads_but(b=None), TypeError, r"^grads\['b'\] must be an array .*got NoneType"),
    (
        grads_but(b=torch.ones(3, dtype=torch.float64)),
        TypeError,
        r"^grads\['b'\] must be of the library of params\['b'\]",
    ),
]


def nothing_changes(optimizer, params, grads, error, message):
    "A step raises; parameters and state stay bit for bit."
    before, state = copies(params), optimizer.state_dict()
    with pytest.raises(error, match=message):
        optimizer.step(grads)
    assert identical(params, before)
    assert identical(optimizer.state_dict(), state)


@pytest.mark.parametrize(("grads", "error", "message"), BAD_GRADS)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("rule", [adam(), chain(clip_grad_norm(1.0), sgd(momentum=0.9))], ids=["adam", "clipped"])
def test_bad_gradients_are_named_and_change_nothing(grads, error, message, rule, compiled):
    params = {"w": np.ones((2, 3)), "b": np.ones(3)}
    optimizer = Optimizer(params, rule, compiled=compiled)
    optimizer.step(grads_but())
    nothing_changes(optimizer, params, grads, error, message)


STEADY = {
    "sgd": sgd(lr=0.1, momentum=0.9),
    "adam": adam(lr=0.1, weight_decay=0.1),
    "clipped": chain(clip_grad_norm(1.0), adamw(lr=0.1)),
    "clipped last": chain(scale_by_adam(), clip_grad_norm(1.0), scale_by_learning_rate(0.1)),
}
each_steady = pytest.mark.parametrize("rule", STEADY.values(), ids=STEADY)
on_host = pytest.mark.parametrize("way", [w for w in WAYS if w != "cuda"])


@on_host
@each_steady
def test_a_gradient_that_is_not_finite_changes_nothing(way, rule, use):
    way, (start, every) = use(WAYS[way]), PROBLEMS["all sizes"]
    params, undisturbed = made(way, start), made(way, start)
    optimizer, other = (
        Optimizer(params, rule, compiled=way.compiled),
        Optimizer(undisturbed, rule, compiled=way.compiled),
    )
    for i, (name, bad) in enumerate(itertools.product(start, (math.nan, math.inf, -math.inf))):
        for index in {(0,) * start[name].ndim, tuple(n - 1 for n in start[name].shape)}:
            grads = {k: g.copy() for k, g in every[i].items()}
            grads[name][index] = bad
            where = rf"^grads\['{name}'\] must be finite, got {bad} at index \[{', '.join(map(str, index))}\]$"
            nothing_changes(optimizer, params, made(way, grads, of="grad"), ValueError, where)
        for o in (optimizer, other):
            o.step(made(way, every[i], of="grad"))
    assert identical(params, undisturbed)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("at", [0, 2**17, 2**18 + 4])
@each_steady
def test_large_gradients_that_are_not_finite_change_nothing(rule, at, threads, compiled, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    params = {"b": np.ones(3, "f4"), "w": np.ones(2**18 + 5, "f4")}
    optimizer = Optimizer(params, rule, compiled=compiled)
    good = {k: np.ones_like(p) for k, p in params.items()}
    optimizer.step(good)
    grads = {k: g.copy() for k, g in good.items()}
    grads["w"][at] = math.inf
    nothing_changes(optimizer, params, grads, ValueError, rf"^grads\['w'\] must be finite, got inf at index \[{at}\]$")


class Failed(Exception):
    "What a function of the step raises."


def fails(step):
    if step == 2:
        raise Failed("no rate today")
    return 0.1


BAD_RATES = [
    (lambda step: math.nan if step == 2 else 0.1, ValueError, r"^lr\(2\) must be 0 or more, got nan"),
    (lambda step: math.inf if step == 2 else 0.1, ValueError, r"^lr\(2\) must be 0 or more, got inf"),
    (lambda step: 0.2 - 0.15 * step, ValueError, r"^lr\(2\) must be 0 or more, got -0.09"),
    (lambda step: "0.1" if step == 2 else 0.1, TypeError, r"^lr\(2\) must be a number, got str"),
    (lambda step: None if step == 2 else 0.1, TypeError, r"^lr\(2\) must be a number, got NoneType"),
    (fails, Failed, "no rate today"),
]
DECIDED = {
    "sgd": lambda lr: sgd(lr=lr, momentum=0.9),
    "adam": lambda lr: adam(lr=lr),
    "adamw": lambda lr: adamw(lr=lr),
    "clipped": lambda lr: chain(clip_grad_norm(1.0), adamw(lr=lr)),
    "clipped last": lambda lr: chain(scale_by_momentum(0.9), clip_grad_norm(1.0), scale_by_learning_rate(lr)),
}


@on_host
@pytest.mark.parametrize(("lr", "error", "message"), BAD_RATES, ids=[m[-8:] for _, _, m in BAD_RATES])
@pytest.mark.parametrize("make", DECIDED.values(), ids=DECIDED)
def test_a_rate_that_cannot_be_changes_nothing(make, lr, error, message, way, use):
    way, (start, every) = use(WAYS[way]), PROBLEMS["all sizes"]
    params = made(way, start)
    optimizer = Optimizer(params, make(lr), compiled=way.compiled)
    for grads in every[:2]:
        optimizer.step(made(way, grads, of="grad"))
    nothing_changes(optimizer, params, made(way, every[2], of="grad"), error, message)


@pytest.mark.parametrize("way", ["plain", "blocks", "torch", "two threads, compiled", "every second"])
@pytest.mark.parametrize("make", DECIDED.values(), ids=DECIDED)
def test_the_rate_counts_steps_from_zero_and_no_others(make, way, use):
    way, (start, every), asked = use(WAYS[way]), PROBLEMS["all sizes"], []
    optimizer = Optimizer(made(way, start), make(lambda step: asked.append(step) or 0.1), compiled=way.compiled)
    for i in range(3):
        optimizer.step(made(way, every[i], of="grad"))
        assert set(asked) == set(range(i + 1))
    assert {type(step) for step in asked} == {int}


@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize(("dtype", "size"), [("float64", 1e308), ("float32", 1e38)])
def test_gradients_whose_sum_overflows_are_finite(make, dtype, size):
    params, grads = {"w": make(np.zeros(9, dtype))}, {"w": make(np.full(9, size, dtype))}
    Optimizer(params, sgd(lr=1e-4)).step(grads)
    assert_close(params["w"], np.full(9, -1e-4 * size, dtype), rtol=1e-6)
    Optimizer(params, chain(clip_grad_norm(1.0, math.inf), sgd(lr=1e-4))).step(grads)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "adagrad", "radam", "adam, many options"])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_whose_square_overflows_move_nothing_as_in_torch(name, compiled):
    case = BY_NAME[name]
    theirs, ours = torch.ones(4, dtype=torch.float64), {"w": np.ones(4)}
    theirs.grad = torch.tensor([1e200, -1e200, 1.0, 0.0], dtype=torch.float64)
    case.theirs([theirs], **case.options).step()
    Optimizer(ours, case.ours(**case.options), compiled=compiled).step({"w": theirs.grad.numpy()})
    assert_close(ours["w"], theirs, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("way", ["plain", "blocks", "compiled blocks", "torch", "strict", "two threads"])
@pytest.mark.parametrize("name", ["sgd, many options", "adam", "adamw", "rmsprop"])
def test_without_the_check_what_is_not_finite_goes_through_as_in_torch(name, way, use):
    case, way = BY_NAME[name], use(WAYS[way])
    start, every = PROBLEMS[case.problem]
    theirs = [torch.tensor(p) for p in start.values()]
    ours, reference = made(way, start), case.theirs(theirs, **case.options)
    optimizer = Optimizer(ours, case.ours(**case.options), check_finite=False, compiled=way.compiled)
    for i in range(3):
        grads = {k: g.copy() for k, g in every[i].items()}
        grads["sizes"][5, 1:3], grads["number"][()] = [math.nan, math.inf], math.nan
        for p, g in zip(theirs, grads.values(), strict=True):
            p.grad = torch.tensor(g)
        reference.step()
        optimizer.step(made(way, grads, of="grad"))
    passed, expected = flat(ours.values()), flat(theirs)
    assert np.array_equal(np.isnan(passed), np.isnan(expected))
    assert np.isnan(expected).sum() in (2, 3)
    number = np.isfinite(expected)
    assert_close(passed[number], expected[number], rtol=1e-10, atol=1e-12)


# Rules of one's own

OWN = {
    "towards the start": Rule(lambda p: {"start": p}, lambda g, s, p: (0.1 * (s["start"] - p) - 0.1 * g, s)),
    "the last gradient": Rule(lambda p: {"last": 0 * p}, lambda g, s, p: (-0.1 * (g + s["last"]), {"last": g})),
}


@each_way
@pytest.mark.parametrize("rule", OWN.values(), ids=OWN)
def test_a_rule_of_ones_own_may_remember_what_it_is_given(rule, way, use):
    way, (start, every) = use(WAYS[way]), PROBLEMS["all sizes"]
    params, expected = made(way, start), {k: p.copy() for k, p in start.items()}
    optimizer, states = Optimizer(params, rule, compiled=way.compiled), {k: rule.init(p) for k, p in expected.items()}
    for grads in every[:5]:
        passed = made(way, grads, of="grad")
        optimizer.step(passed)
        spoil(passed)
        for k, g in grads.items():
            move, states[k] = rule.update(g, states[k], expected[k])
            expected[k] = expected[k] + move
    assert_close(flat(params.values()), flat(expected.values()), rtol=1e-12, atol=1e-20)


# Properties

quick = settings(max_examples=60, deadline=None, derandomize=True)
numbers = st.floats(-100, 100, width=32)
vectors = arrays(np.float64, (4, 5), elements=numbers)  # gradients of four steps
LINKS = {
    "momentum": scale_by_momentum(0.9, nesterov=True),
    "adam": scale_by_adam(),
    "rmsprop": scale_by_rmsprop(centered=True),
    "decay": add_decayed_weights(0.1),
    "adagrad": scale_by_adagrad(0.1),
    "adadelta": scale_by_adadelta(),
    "nadam": scale_by_nadam(),
    "radam": scale_by_radam(),
    "lion": scale_by_lion(),
    "clip value": clip_grad_value(0.5),
    "clip norm": clip_grad_norm(0.7),
    "rate": scale_by_learning_rate(lambda step: 0.1 / (1 + step)),
}
links = st.sampled_from(sorted(LINKS)).map(LINKS.get)


def travel(rule, grads, start=0.0):
    "Where two parameters go, a row for each step."
    params = {"w": np.full(3, float(start)), "v": np.full(2, float(start))}
    optimizer, path = Optimizer(params, rule), []
    for g in grads:
        optimizer.step({"w": g[:3].copy(), "v": g[3:].copy()})
        path.append(flat(params.values()))
    return np.array(path)


@quick
@given(links, links, links, vectors)
def test_chain_is_associative(a, b, c, grads):
    expected = travel(chain(a, b, c), grads, 0.5)
    assert np.array_equal(travel(chain(a, chain(b, c)), grads, 0.5), expected)
    assert np.array_equal(travel(chain(chain(a, b), c), grads, 0.5), expected)


@quick
@given(links, vectors)
def test_a_chain_of_one_is_its_link(link, grads):
    assert np.array_equal(travel(chain(link), grads, 0.5), travel(link, grads, 0.5))


@quick
@given(vectors, st.integers(-20, 20), st.sampled_from([adam, nadam, adagrad, rmsprop, lion]))
def test_the_scale_of_the_gradient_does_not_matter_without_eps(grads, power, rule):
    grads = np.where(grads == 0, 1.0, grads)
    rule = rule(lr=0.1) if rule is lion else rule(lr=0.1, eps=0.0)
    np.testing.assert_allclose(travel(rule, grads * 2.0**power), travel(rule, grads), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", 10.0 ** np.arange(-6, 5))
@pytest.mark.parametrize("make", [adam, adamw])
def test_the_first_move_of_adam_is_the_rate(size, make):
    for sign in (1, -1):
        moved = travel(make(lr=0.01), np.full((1, 5), sign * size))[0]
        assert_close(moved, np.full(5, -0.01 * sign * size / (size + 1e-8)), rtol=1e-10)


@quick
@given(vectors, st.floats(0.001, 0.5), st.floats(0.0, 1.0))
def test_adamw_is_adam_on_a_parameter_that_shrinks(grads, lr, decay):
    moves = np.diff(travel(adam(lr=lr), grads), axis=0, prepend=0)  # of the gradients alone, not of the parameter
    expected = [np.full(5, 2.0)]
    for move in moves:
        expected.append((1 - lr * decay) * expected[-1] + move)
    np.testing.assert_allclose(
        travel(adamw(lr=lr, weight_decay=decay), grads, 2.0), expected[1:], rtol=1e-10, atol=1e-12
    )


@quick
@given(vectors, st.floats(0.001, 0.5), st.floats(0.0, 1.0))
def test_the_order_in_the_chain_is_l2_or_decoupled(grads, lr, decay):
    scale, shrink, rate = scale_by_adam(), add_decayed_weights(decay), scale_by_learning_rate(lr)
    coupled, decoupled = (travel(chain(*c, rate), grads, 2.0) for c in ((shrink, scale), (scale, shrink)))
    np.testing.assert_allclose(travel(adam(lr=lr, weight_decay=decay), grads, 2.0), coupled, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(travel(adamw(lr=lr, weight_decay=decay), grads, 2.0), decoupled, rtol=1e-10, atol=1e-12)


@quick
@given(
    vectors, vectors, numbers, numbers, st.sampled_from([{}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.5}])
)
def test_sgd_is_linear_in_the_gradients(a, b, s, t, options):
    rule = sgd(lr=0.1, **options)
    expected = s * travel(rule, a) + t * travel(rule, b)
    np.testing.assert_allclose(travel(rule, s * a + t * b), expected, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("name", [n for n in OPTIONS if n != "muon"])
def test_climbing_is_descending_the_negative(name):
    grads = np.random.default_rng(13).normal(size=(9, 5))
    rule = OPTIONS[name][0]
    assert_close(travel(rule(maximize=True), grads, 1.0), travel(rule(), -grads, 1.0), rtol=1e-12)


@quick
@given(vectors, st.floats(1e-3, 1e3), st.sampled_from([1, 2, 3, math.inf]))
def test_clipping_keeps_the_direction_and_the_limit(grads, limit, norm_type):
    for g in grads:
        rule = clip_grad_norm(limit, norm_type)
        moves, _ = rule.update({"w": g[:3], "v": g[3:]}, rule.init({"w": g[:3], "v": g[3:]}), {})
        clipped = flat(moves.values())
        assert np.linalg.norm(clipped, norm_type) <= limit * (1 + 1e-12)
        np.testing.assert_allclose(
            clipped * np.linalg.norm(g, norm_type), g * np.linalg.norm(clipped, norm_type), atol=1e-9
        )


@quick
@given(arrays(np.float64, (3, 4), elements=st.floats(-9, 9, width=32)), st.integers(0, 10**6))
def test_newton_schulz_turns_with_its_matrix(matrix, seed):
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    np.testing.assert_allclose(newton_schulz(turn @ matrix), turn @ newton_schulz(matrix), atol=1e-9)
    np.testing.assert_allclose(newton_schulz(matrix.T), newton_schulz(matrix).T, atol=1e-12)


@quick
@given(vectors, st.floats(0, 0.999))
def test_an_average_lies_between(values, decay):
    average = {"w": values[0]}
    for v in values[1:]:
        average = ema(average, {"w": v}, decay)
    assert np.all(average["w"] >= values.min(0) - 1e-9)
    assert np.all(average["w"] <= values.max(0) + 1e-9)


def test_everything_public_is_tested():
    here = inspect.getsource(inspect.getmodule(test_everything_public_is_tested))
    assert all(here.count(name) > 1 for name in optim.__all__)
