"""Planted errors in the optimisers: a wrong sign, factor, constant or limit in any function makes a check fail."""

import inspect
import math

import numpy as np
import pytest
import torch
from planted import REST, definitions, load, survivors
from test_optim import (
    BAD_AVERAGES,
    BAD_GRADS,
    BAD_MATRICES,
    BAD_PARAMS,
    BAD_RATES,
    BAD_SETTINGS,
    BAD_STATES,
    BY_NAME,
    CLIP_GRADS,
    MATRICES,
    OPTIONS,
    PROBLEMS,
    SCHULZ,
    copies,
    flat,
    fortran,
    grads_but,
    identical,
    nothing_changes,
    polynomial,
    reference,
    schedule,
    spoil,
)
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from dlopt_course import optim
from dlopt_course.core import assert_close, to_numpy

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 8
BLOCK = 64
NAMES = [n for rule in OPTIONS for n in (rule, f"{rule}, many options") if n in BY_NAME]
NAMES += ["sgd, momentum, dampening", "adam, weight_decay", "adam, betas, amsgrad", "rmsprop, alpha, centered"]
NAMES += ["adam, decoupled_weight_decay, weight_decay", "nadam, weight_decay", "radam, betas, weight_decay"]
NAMES += [n for n in BY_NAME if n.startswith("muon, ") and n.count(",") == 1] + ["muon, nesterov, adjust_lr_fn"]


def start_of(name, count=None):
    "Where a case starts; its first arrays only."
    return {k: p.copy() for k, p in list(PROBLEMS[BY_NAME[name].problem][0].items())[:count]}


def grads_of(name):
    return PROBLEMS[BY_NAME[name].problem][1][:STEPS]


def rule_of(module, name):
    "The rule of a case, made by a module."
    return getattr(module, name.split(",")[0])(**BY_NAME[name].options)


def equal(path, name, start):
    "Whether the numbers are torch's after every step, relative to how far each has moved."
    theirs = reference(name)[: len(path), : path[0].size]
    moved, largest = (np.abs(x).max(0) for x in (theirs - flat(start.values()), theirs))
    atol = np.broadcast_to(1e-10 * moved + 1e-14 * (largest + np.abs(flat(start.values()))), theirs.shape)
    assert_close(np.stack(path), theirs, rtol=0, atol=atol, name=name)


def agrees(module, name, make=np.array, rule=None, compiled=False):
    "A rule by Optimizer; the gradients are overwritten after each step."
    start = start_of(name)
    params = {k: make(p) for k, p in start.items()}
    optimizer, path = module.Optimizer(params, rule or rule_of(module, name), compiled=compiled), []
    for grads in grads_of(name):
        given = {k: make(g) for k, g in grads.items()}
        optimizer.step(given)
        spoil(given)
        path.append(flat(params.values()))
    equal(path, name, start)


def agrees_by_hand(module, name, rule):
    "A rule by init and update, on the array of all sizes or on a tall and a wide matrix."
    start = start_of(name, 2 if name.startswith("muon") else 1)
    params, states, path = start, {k: rule.init(p) for k, p in start.items()}, []
    for grads in grads_of(name):
        both = {k: rule.update(grads[k], states[k], p) for k, p in params.items()}
        states, params = {k: s for k, (_, s) in both.items()}, {k: p + both[k][0] for k, p in params.items()}
        path.append(flat(params.values()))
    equal(path, name, start)


def by_links(module, name):
    "A rule from its links and their defaults."
    if name in ("sgd", "adamw"):
        return getattr(module, name)()
    decay, lr = (inspect.signature(OPTIONS[name][0]).parameters[k].default for k in ("weight_decay", "lr"))
    shrink = [module.add_decayed_weights(decay)] * (decay != 0)
    return module.chain(getattr(module, f"scale_by_{name}")(), *shrink, module.scale_by_learning_rate(lr))


def rules(module):
    "Every rule in both forms, in several layouts, with a rate that depends on the step and behind clipping."
    for name in NAMES:
        agrees_by_hand(module, name, rule_of(module, name))
    for name in OPTIONS:
        agrees_by_hand(module, name, by_links(module, name))
    for name in ("adam, weight_decay", "adamw", "adamw, lr", "adam, betas, amsgrad", "adam, maximize"):
        agrees(module, name, compiled=True)
    for name in ("sgd, many options", "nadam", "muon", "adam, many options", "adam, weight_decay", "adamw"):
        agrees(module, name)
    for name in ("sgd, many options", "adam"):
        agrees(module, name, fortran, compiled=True)
    for name in ("sgd", "adamw"):
        agrees(module, name, torch.tensor)
    for name, options in (("sgd", {"momentum": 0.9}), ("adam", {"weight_decay": 0.1})):
        rate = lambda step: 0.2 * schedule(step)  # noqa: E731
        agrees(module, f"{name}, lr of the step", rule=getattr(module, name)(lr=rate, **options))
    clip, adamw = module.clip_grad_norm, module.adamw(lr=0.1, eps=1e-3)
    agrees(module, "adamw after clipping, norm 1", rule=module.chain(clip(1.0), adamw))
    both = module.chain(module.clip_grad_value(0.2), clip(1.0))
    agrees(module, "adamw after clipping, both", fortran, module.chain(both, adamw))


CLIPPED = {}
for which in ("usual", "small", "zero", "mixed dtypes", "one array"):
    for limit in (1e-9, 0.5, 1e3):
        for norm_type in (None, 1, 2.0, 3, math.inf):
            tensors = [torch.zeros(g.shape, dtype=getattr(torch, g.dtype.name)) for g in CLIP_GRADS[which].values()]
            for p, g in zip(tensors, CLIP_GRADS[which].values(), strict=True):
                p.grad = torch.tensor(g)
            clip_grad_norm_(tensors, limit, norm_type) if norm_type else clip_grad_value_(tensors, limit)
            CLIPPED[which, limit, norm_type] = [p.grad.numpy() for p in tensors]
SCHULZ_CASES = [
    (m, o, polynomial(m, *({"coefficients": (3.4445, -4.775, 2.0315), "steps": 5, "eps": 1e-7} | o).values()))
    for m in MATRICES.values()
    for o in SCHULZ
]


def transforms(module):
    "Clipping against torch, Newton and Schulz against singular values, averages against their formula."
    for (which, limit, norm_type), expected in CLIPPED.items():
        rule = module.clip_grad_norm(limit, norm_type) if norm_type else module.clip_grad_value(limit)
        moves, grads = {}, CLIP_GRADS[which]
        if norm_type:
            moves, _ = rule.update(grads, rule.init(grads), grads)
        else:
            moves = {k: rule.update(g, rule.init(g), g)[0] for k, g in grads.items()}
        for ours, theirs in zip(moves.values(), expected, strict=True):
            assert_close(ours, theirs, rtol=1e-12 if which != "mixed dtypes" else 1e-6)
    moves, _ = module.clip_grad_norm(1.0).update({"w": np.array([3.0, 4.0])}, {}, {})
    assert_close(moves["w"], np.array([3.0, 4.0]) / 5.000001, rtol=1e-12)
    for matrix, options, expected in SCHULZ_CASES:
        assert_close(module.newton_schulz(matrix, **options), expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    assert_close(module.ema({"w": np.array([2.0])}, {"w": np.array([4.0])}, 0.25)["w"], np.array([3.5]))
    assert_close(module.ema({"w": np.array([2.0])}, {"w": np.array([4.0])})["w"], np.array([2.002]))


def refuses(module, make, args, options, error, message):
    with pytest.raises(error, match=message):
        getattr(module, make)(*args, **options)


BAD_CALLS = [(make.__name__, (), *case) for make, *case in BAD_SETTINGS]
BAD_CALLS += [("newton_schulz", (), {"matrix": np.ones((2, 2))} | o, *case) for o, *case in BAD_MATRICES]
BAD_CALLS += [("ema", args, {}, *case) for args, *case in BAD_AVERAGES]
BAD_CALLS += [("chain", args, {}, TypeError, "^rules must be one or more") for args in [(), (3,), (optim.adam,)]]
BAD_CALLS += [
    ("sgd", (), {"nesterov": True} | o, ValueError, "^nesterov") for o in ({}, {"momentum": 0.9, "dampening": 0.1})
]
BAD_CALLS += [("Optimizer", ({"w": np.ones(3)}, 3), {}, TypeError, "^rule must be a Rule")]


def is_refused(*case):
    "Whether the module as it is refuses this: what it does not refuse yet fails in test_optim."
    try:
        refuses(optim, *case)
    except (Exception, pytest.fail.Exception):
        return False
    return True


BAD_CALLS = [case for case in BAD_CALLS if is_refused(*case)]
REFUSED_PARAMS = [(p, *case) for p, *case in BAD_PARAMS if is_refused("Optimizer", (p, optim.adam()), {}, *case)]


def refusals(module):
    "Bad input raises the right error, and nothing changes."
    for case in BAD_CALLS:
        refuses(module, *case)
    for params, error, message in REFUSED_PARAMS:
        refuses(module, "Optimizer", (params, module.adam()), {}, error, message)
    with pytest.raises(ValueError, match=r"^params\['b'\].*muon moves matrices"):
        module.Optimizer({"w": np.ones((3, 3)), "b": np.ones(3)}, module.muon())
    for compiled in (False, True):
        params = {"w": np.ones((2, 3)), "b": np.ones(3)}
        optimizer = module.Optimizer(params, module.adam(), compiled=compiled)
        optimizer.step(grads_but())
        for grads, error, message in BAD_GRADS:
            nothing_changes(optimizer, params, grads, error, message)
    for lr, error, message in BAD_RATES:
        for make in (lambda lr: module.sgd(lr=lr, momentum=0.5), lambda lr: module.adam(lr=lr)):
            params = {"w": np.ones((2, 3)), "b": np.ones(BLOCK + 3), "f": fortran(np.ones((2, 2)))}
            optimizer, grads = module.Optimizer(params, make(lr)), {k: p.copy() for k, p in params.items()}
            optimizer.step(grads)
            optimizer.step(grads)
            nothing_changes(optimizer, params, grads, error, message)
    for state, error, message in BAD_STATES:
        optimizer = module.Optimizer({"w": np.ones((2, 3))}, module.adam())
        before = optimizer.state_dict()
        if isinstance(state, dict) and all(isinstance(x, np.ndarray) for x in state.values()):
            with pytest.raises(error, match=message):
                optimizer.load_state_dict(state)
            assert identical(optimizer.state_dict(), before)


SHAPES = {
    "w": (2, 3),
    "long": (3 * BLOCK + 5,),
    "b": (3,),
    "c": (2, 2),
    "d": (BLOCK - 1,),
    "number": (),
    "edge": (BLOCK,),
}
rng = np.random.default_rng(14)
PARAMS = {"single": rng.normal(size=3).astype("f4"), "other": rng.normal(size=2).astype("f4")}  # small ones are joined
PARAMS |= {k: rng.normal(size=s) for k, s in SHAPES.items()} | {f"s{i}": rng.normal(size=4) for i in range(7)}
PARAMS |= {"f": fortran(rng.normal(size=(4, 5)))}
GRADS = [{k: rng.normal(size=p.shape).astype(p.dtype) for k, p in PARAMS.items()} for _ in range(4)]


def same_params():
    return {k: p.copy(order="K") for k, p in PARAMS.items()}


def kept(module):
    "Arrays that only interleave are apart; a state of torch comes back from NumPy; constant gradients have no spread."
    both = np.ones(6)
    module.Optimizer({"even": both[::2], "odd": both[1::2]}, module.sgd())
    optimizer = module.Optimizer({"w": torch.ones(3, dtype=torch.float64)}, module.adam())
    optimizer.step({"w": torch.ones(3, dtype=torch.float64)})
    saved = {k: to_numpy(x).copy() for k, x in optimizer.state_dict().items()}
    copied = copies(saved)
    optimizer.load_state_dict(saved)
    optimizer.step({"w": torch.ones(3, dtype=torch.float64)})
    assert identical(saved, copied)
    optimizer.load_state_dict(saved)
    saved["w/0.m"][:] = 7.0
    assert (to_numpy(optimizer.state_dict()["w/0.m"]) < 1).all()
    assert isinstance(optimizer.state_dict()["w/0.m"], torch.Tensor)
    back = module.Rule(lambda p: {"start": p}, lambda g, s, p: (0.1 * (s["start"] - p) - 0.1 * g, s))
    optimizer = module.Optimizer({"w": (w := torch.ones(3))}, back)
    for _ in range(2):
        optimizer.step({"w": torch.ones(3)})
    assert_close(w, torch.full((3,), 0.81), rtol=1e-6)
    optimizer = module.Optimizer({"w": (w := np.ones(50))}, module.rmsprop(alpha=0.9, centered=True))
    for _ in range(400):
        optimizer.step({"w": np.linspace(0.1, 1.7, 50)})
    assert np.isfinite(w).all()


def not_finite(module):
    "One number that is not finite, anywhere, is named and changes nothing; large finite ones are taken."
    clipped = module.chain(module.clip_grad_norm(1.0), module.sgd(momentum=0.9))
    for rule, compiled in ((module.adam(), False), (module.adam(), True), (clipped, False)):
        params = same_params()
        optimizer = module.Optimizer(params, rule, compiled=compiled)
        for name, p in PARAMS.items() if rule.in_place else [("long", PARAMS["long"])]:
            for index in {(0,) * p.ndim, tuple(n - 1 for n in p.shape)}:
                grads = {k: g.copy() for k, g in GRADS[0].items()}
                grads[name][index] = math.inf if name == "long" else math.nan
                where = rf"^grads\['{name}'\] must be finite, got (inf|nan) at index \[{', '.join(map(str, index))}\]$"
                nothing_changes(optimizer, params, grads, ValueError, where)
    params = {"w": np.zeros(3)}
    module.Optimizer(params, module.sgd(lr=1e-4)).step({"w": np.full(3, 1e308)})
    assert_close(params["w"], np.full(3, -1e304))
    module.Optimizer(params, module.sgd(), check_finite=False).step({"w": np.array([math.nan, 0, 0])})
    assert np.isnan(params["w"]).tolist() == [True, False, False]


def moved_by_torch():
    "Where torch's AdamW takes PARAMS."
    tensors = [torch.tensor(p) for p in PARAMS.values()]
    optimizer = torch.optim.AdamW(tensors, lr=0.1)
    for grads in GRADS:
        for p, g in zip(tensors, grads.values(), strict=True):
            p.grad = torch.tensor(g)
        optimizer.step()
    return [p.numpy() for p in tensors]


MOVED = moved_by_torch()
KEPT = {  # the links of a rule that remember something, and what
    "sgd": "0.step",
    "rmsprop": "0.v 1.step",
    "adagrad": "0.step 0.s 1.step",
    "adadelta": "0.v 0.u 1.step",
    "adam": "0.step 0.m 0.v 1.step",
    "adamw": "0.step 0.m 0.v 2.step",
    "lion": "0.m 1.step",
    "nadam": "0.step 0.m 0.v 0.product 1.step",
}


def resumes(module, make, compiled):
    "Restored, the trajectory goes on bit for bit, and what was saved stays."
    straight, halted = same_params(), same_params()
    whole, first = (module.Optimizer(p, make(), compiled=compiled) for p in (straight, halted))
    for grads in GRADS:
        whole.step(grads)
    first.step(GRADS[0])
    saved = first.state_dict()
    kept, resumed = copies(saved), {k: p.copy(order="K") for k, p in halted.items()}
    first.step(GRADS[3])
    second = module.Optimizer(resumed, make(), compiled=compiled)
    second.load_state_dict(saved)
    assert identical(second.state_dict(), kept)
    for grads in GRADS[1:]:
        second.step(grads)
    assert identical(resumed, straight)
    assert identical(second.state_dict(), whole.state_dict())
    assert identical(saved, kept)
    assert {int(x) for k, x in whole.state_dict().items() if k.endswith(".step")} == {len(GRADS)}
    return straight


def states(module):
    "A state has its names, shapes and copies."
    clipped = lambda: module.chain(module.clip_grad_norm(1.0), module.adamw(lr=0.1))  # noqa: E731
    late = lambda: module.chain(module.scale_by_adam(), module.clip_grad_norm(1.0), module.sgd())  # noqa: E731
    for compiled in (False, True):
        for ours, theirs in zip(resumes(module, lambda: module.adamw(lr=0.1), compiled).values(), MOVED, strict=True):
            assert_close(ours, theirs, rtol=1e-10 if theirs.dtype == np.float64 else 1e-5)
    for make in (module.nadam, lambda: module.sgd(momentum=0.9), clipped, late):
        resumes(module, make, False)
    for name, links in KEPT.items():
        assert set(module.Optimizer({"w": np.ones(3)}, getattr(module, name)()).state_dict()) == {
            f"w/{k}" for k in links.split()
        }
    both = module.Optimizer({"w": np.ones(3)}, late()).state_dict()
    assert {k for k in both if not k.startswith("before//")} == {"w/0.step"}
    assert len(module.Optimizer({"w": np.ones(3)}, clipped()).state_dict()) == 4
    assert not any(k.startswith("before") for k in module.Optimizer({"w": np.ones(3)}, clipped()).state_dict())
    state = module.Optimizer(same_params(), module.adam()).state_dict()
    assert {k: x.shape for k, x in state.items() if k.endswith(".m")} == {
        f"{k}/0.m": p.shape for k, p in PARAMS.items()
    }
    module._scratch("tried", 8, np.float64)
    assert module._scratch("tried", 4, np.float32).dtype == np.float32


def compiling(module):
    "The compiled loop is asked for from a number of elements up, or where it is wanted, and for two dtypes only."
    module._COMPILE_FROM = 20
    for size, dtype, compiled, expected in (
        (19, "f8", None, False),
        (20, "f8", None, True),
        (21, "f4", None, True),
        (21, "f8", False, False),
        (3, "f4", True, True),
        (21, "f2", True, False),
    ):
        asked, params = [], {"w": np.ones(size, dtype)}
        module._compiled = lambda loop, asked=asked: asked.append(loop) or loop
        module.Optimizer(params, module.adam(eps=0.1), compiled=compiled).step({"w": np.ones(size, dtype)})
        assert bool(asked) == expected


def battery(module):
    "Everything above, on small blocks; the compiled loop in plain Python."
    module._BLOCK = BLOCK
    module._compiled = lambda loop: loop
    module.num_threads = lambda: 2  # parts for two threads, which one does: starting a second takes longer
    with np.errstate(all="ignore"):
        for check in (rules, transforms, states, kept, not_finite, refusals, compiling):
            check(module)


def test_the_battery_passes_as_it_is():
    battery(load(optim))


PARTS = "how large the parts are that threads share, not what is done with them"
THREADS = "whether threads are used, not what they do"
GROUPS = "which small arrays are joined decides on speed, not on numbers"
EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    ("Optimizer", "1  ->  2  in  -1"): REST,
    ("_shares", "-(-size // num_threads())  ->  -size // num_threads()"): PARTS,
    ("_shares", "-size  ->  size"): PARTS,
    ("_adam_block", "1  ->  2  in  shrink != 1"): "to multiply by 1 costs time only",
    ("Optimizer", "len(checks) > len(self._groups)  ->  len(checks) < len(self._groups)"): THREADS,
    ("Optimizer", "len(moves) > len(self._groups)  ->  len(moves) < len(self._groups)"): THREADS,
    (
        "Optimizer",
        "len(moves) > len(self._groups) or len(checks) > len(self._groups)  ->  "
        "len(moves) > len(self._groups) and len(checks) > len(self._groups)",
    ): THREADS,
    ("_Group", "0  ->  1  in  self.names[0]  (2)"): "the arrays of a group have one dtype",
    ("_Group", "1  ->  2  in  -1"): REST,
    ("_Group", "1  ->  2  in  -1  (3)"): REST,
    ("_Group", "1  ->  2  in  -1  (4)"): REST,
    (
        "_split",
        "1  ->  2  in  -1",
    ): "a rule of scope all has such a link, any other rule is one link here: both numbers leave it as it is",
    ("_compiled", "True  ->  False  in  cache=True"): "how it is compiled, not what",
    ("_compiled", "True  ->  False  in  nogil=True"): "how it is compiled, not what",
    ("_groups", "1  ->  2  in  -1"): REST,
    ("_groups", "4  ->  5  in  _BLOCK // 4"): GROUPS,
    ("_groups", "p.size > _BLOCK // 4  ->  p.size < _BLOCK // 4"): GROUPS,
    ("_joined", "1  ->  2  in  -1"): REST,
    ("_joined", "end + p.size  ->  end - p.size"): GROUPS,
    ("_joined", "4  ->  5  in  _BLOCK // 4"): GROUPS,
    ("_joined", "end + p.size > _BLOCK // 4  ->  end + p.size < _BLOCK // 4"): GROUPS,
    ("_joined", "names and end + p.size > _BLOCK // 4  ->  names or end + p.size > _BLOCK // 4"): GROUPS,
    (
        "_begun",
        "is_numpy_array(x) and np.may_share_memory(x, param)  ->  is_numpy_array(x) or np.may_share_memory(x, param)",
    ): "one copy more",
    (
        "_like",
        "is_numpy_array(x) and (not is_numpy_array(old))  ->  is_numpy_array(x) or not is_numpy_array(old)",
    ): "a NumPy array is copied either way",
    ("newton_schulz", "0  ->  1  in  matrix.shape[0]"): "either way round, the polynomial is the same; one is faster",
    (
        "newton_schulz",
        "matrix.shape[0] > matrix.shape[1]  ->  matrix.shape[0] < matrix.shape[1]",
    ): "either way round, the polynomial is the same; one is faster",
    (
        "scale_by_rmsprop",
        "alpha * state['m'] + (1 - alpha) * grad  ->  alpha * state['m'] - (1 - alpha) * grad",
    ): "only the square of the mean is used",
}


@pytest.mark.parametrize("name", definitions(optim))
def test_planted_errors_are_caught(name):
    assert survivors(optim, name, battery) == {what for function, what in EQUIVALENT if function == name}


def test_equivalent_changes_are_of_functions_that_exist():
    assert {function for function, _ in EQUIVALENT} <= set(definitions(optim))
