"""Short formats against torch's bits, loss scaling against torch.amp, master weights, recomputed layers."""

import weakref
from functools import partial

import numpy as np
import pytest
import torch
from backends import no_gpu

from dlopt_course import gpu
from dlopt_course.core import to_numpy
from dlopt_course.gpu import BFLOAT16, FLOAT8_E5M2, FLOAT16, FLOAT32, TF32
from dlopt_course.layers import MLP, batch_norm, embedding, linear, relu, sequential, tanh
from dlopt_course.optim import Optimizer, adam, chain, clip_grad_norm, muon, sgd
from dlopt_course.regularize import dropout

TORCHS = {"BFLOAT16": torch.bfloat16, "FLOAT16": torch.float16, "FLOAT8_E5M2": torch.float8_e5m2}
WHOLE = {8: (np.uint8, torch.uint8), 16: (np.uint16, torch.uint16)}
FINFO = {"FLOAT32": torch.float32, **TORCHS}


def has_torchs_numbers(module, name):
    "What a format says of itself."
    form, info = getattr(module, name), torch.finfo(FINFO[name])
    assert (form.bits, form.largest, form.epsilon) == (info.bits, info.max, info.eps)
    assert form.smallest_normal == info.smallest_normal
    one = torch.ones(1, dtype={32: torch.int32, **{n: whole for n, (_, whole) in WHOLE.items()}}[info.bits])
    assert form.smallest == one.view(FINFO[name]).to(torch.float64).item()


def hard_points(name):
    "Every value of the format, every midpoint, where it overflows, and one step of float32 to either side of all."
    n = torch.finfo(TORCHS[name]).bits
    bits = torch.from_numpy(np.arange(2**n, dtype=WHOLE[n][0]))
    values = bits.view(TORCHS[name]).to(torch.float32).numpy()
    finite = np.unique(values[np.isfinite(values)]).astype(np.float64)
    edge = finite[-1] + (finite[-1] - finite[-2]) / 2
    middle = np.concatenate([(finite[1:] + finite[:-1]) / 2, [-edge, edge]]).astype(np.float32)
    points = np.concatenate([values, middle])
    with np.errstate(invalid="ignore"):  # NaN
        sides = [np.nextafter(points, np.float32(far)) for far in (-np.inf, np.inf)]
    rest = [1e-45, -1e-45, 3e38, -3e38, np.finfo(np.float32).max, np.pi]
    return np.concatenate([points, *sides, np.float32(rest)]).astype(np.float32)


POINTS = {name: hard_points(name) for name in TORCHS}


def equals_torchs_bits(module, name, every=1):
    form, points = getattr(module, name), POINTS[name][::every]
    n, number = form.bits, ~np.isnan(points)
    theirs = torch.from_numpy(points).to(TORCHS[name])
    ours = module.to_bits(points, form)
    assert ours.dtype == WHOLE[n][0]
    np.testing.assert_array_equal(ours[number], theirs.view(WHOLE[n][1]).numpy()[number])
    back, wanted = module.from_bits(ours, form), theirs.to(torch.float32).numpy()
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, wanted)  # NaN where torch has one
    np.testing.assert_array_equal(np.signbit(back), np.signbit(points))
    np.testing.assert_array_equal(module.round_to(points, form), wanted)


def reads_torchs_bits(module, name):
    "Every pattern of bits, NaN's too."
    form, n = getattr(module, name), torch.finfo(TORCHS[name]).bits
    bits = np.arange(2**n, dtype=WHOLE[n][0])
    values = module.from_bits(bits, form)
    np.testing.assert_array_equal(values, torch.from_numpy(bits).view(TORCHS[name]).to(torch.float32).numpy())
    again, number = module.to_bits(values, form), ~np.isnan(values)
    np.testing.assert_array_equal(again[number], bits[number])
    first = np.array([0x7F800001, 0xFF800001], np.uint32).view(np.float32)  # the NaN next to infinity
    assert np.isnan(module.from_bits(module.to_bits(first, form), form)).all()
    quiet = 1 << form.fraction_bits - 1
    np.testing.assert_array_equal(again[~number], bits[~number] | quiet)  # the sign and digits of a NaN stay


def rounds_as_numpy(module):
    "From float64 in one rounding: to float32, and to float16."
    x = np.ldexp(np.random.default_rng(1).standard_normal(4000), np.arange(4000) % 300 - 160)
    x = np.concatenate([x, [0.0, -0.0, np.inf, -np.inf, np.nan, 1e308, 1 + 2**-11 + 2**-40, 2**-24, 2**-25, 65520]])
    with np.errstate(over="ignore"):
        for form, dtype in ((module.FLOAT32, np.float32), (module.FLOAT16, np.float16)):
            ours = module.round_to(x, form)
            assert ours.dtype == np.float64
            np.testing.assert_array_equal(ours, x.astype(dtype).astype(np.float64))
            np.testing.assert_array_equal(np.signbit(ours), np.signbit(x))
    x = x[(np.abs(x) > 2.0**-100) & (np.abs(x) < 2.0**100)].astype(np.float32)
    bits = x.view(np.uint32)  # TensorFloat-32: the last 13 digits rounded away
    wanted = (bits + 0xFFF + (bits >> 13 & 1)).astype(np.uint32) >> 13 << 13
    np.testing.assert_array_equal(module.round_to(x, module.TF32), wanted.view(np.float32))
    np.testing.assert_array_equal(module.to_bits(x, module.TF32), wanted >> 13)
    assert module.to_bits(x, module.TF32).dtype == np.uint32


def has_formats_of_any_size(module):
    "Four bits: 0, 0.5, 1, 1.5, 2 and 3, and their signs. Seventeen need four bytes."
    tiny = module.FloatFormat(2, 1)
    assert (tiny.bits, tiny.smallest, tiny.smallest_normal, tiny.largest) == (4, 0.5, 1, 3)
    x = np.array([0.2, 0.25, 0.26, 0.75, 1.25, -1.75, 2.5, 3.4, 3.5, -9])
    np.testing.assert_array_equal(module.round_to(x, tiny), [0, 0, 0.5, 1, 1, -2, 2, 3, np.inf, -np.inf])
    np.testing.assert_array_equal(module.to_bits(np.float32(x), tiny), [0, 0, 1, 2, 2, 0b1100, 4, 5, 6, 0b1110])
    long = module.FloatFormat(8, 8)
    bits = module.to_bits(np.float32([-1.5]), long)
    assert (bits.dtype, bits[0]) == (np.uint32, 1 << 16 | 127 << 8 | 1 << 7)
    assert module.from_bits(bits, long) == -1.5
    with pytest.raises(TypeError, match="of 17 bits or more, got uint16"):
        module.from_bits(np.ones(1, np.uint16), long)


def takes_any_layout(module):
    x = np.float32(np.random.default_rng(2).standard_normal((4, 6)))
    for y in (x.T, x[::2, ::-1], x[0, 0:1], np.float32(1.3)[...]):
        y = np.asarray(y)
        before = y.copy()
        y.flags.writeable = False
        bits = module.to_bits(y, module.FLOAT16)
        assert bits.shape == y.shape
        np.testing.assert_array_equal(bits, y.astype(np.float16).view(np.uint16))
        np.testing.assert_array_equal(module.round_to(y, module.FLOAT16), y.astype(np.float16))
        np.testing.assert_array_equal(module.from_bits(bits, module.FLOAT16), y.astype(np.float16))
        np.testing.assert_array_equal(y, before)


ONE = np.ones(1, np.float32)
BAD_FORMATS = [  # function, its arguments, the error, what it says
    ("round_to", lambda m: (ONE, (8, 7)), TypeError, r"format must be a FloatFormat, such as BFLOAT16, got \(8, 7\)"),
    ("round_to", lambda m: (ONE, m.FloatFormat(9, 7)), ValueError, "2 to 8 exponent bits and 1 to 23 fraction bits"),
    ("round_to", lambda m: (ONE, m.FloatFormat(1, 7)), ValueError, "2 to 8 exponent bits"),
    ("round_to", lambda m: (ONE, m.FloatFormat(8, 24)), ValueError, "1 to 23 fraction bits, got FloatFormat"),
    (
        "round_to",
        lambda m: (ONE, m.FloatFormat(8, 0)),
        ValueError,
        "format.fraction_bits must be a whole number",
    ),
    ("round_to", lambda m: ([1.0], m.BFLOAT16), TypeError, "x must be a NumPy array"),
    ("round_to", lambda m: (np.ones(1, int), m.BFLOAT16), TypeError, "x must be floating point"),
    (
        "round_to",
        lambda m: (np.ones(1, np.float16), m.BFLOAT16),
        TypeError,
        "x must be float32 or float64, got float16",
    ),
    ("round_to", lambda m: (np.ones(0), m.BFLOAT16), ValueError, "x must not be empty"),
    ("to_bits", lambda m: (np.ones(1), m.BFLOAT16), TypeError, "x must be a NumPy array of float32, got float64"),
    ("to_bits", lambda m: (1.0, m.BFLOAT16), TypeError, "x must be a NumPy array of float32, got float"),
    ("to_bits", lambda m: (ONE[:0], m.BFLOAT16), ValueError, "x must not be empty"),
    ("to_bits", lambda m: (ONE, m.FLOAT32), ValueError, "1 to 22 fraction bits"),
    ("from_bits", lambda m: (ONE, m.BFLOAT16), TypeError, "unsigned integers of 16 bits or more, got float32"),
    ("from_bits", lambda m: (np.ones(1, np.uint8), m.BFLOAT16), TypeError, "of 16 bits or more, got uint8"),
    ("from_bits", lambda m: (np.ones(0, np.uint16), m.BFLOAT16), ValueError, "bits must be one or more numbers below"),
    ("from_bits", lambda m: (np.uint32([1, 2**16]), m.BFLOAT16), ValueError, r"numbers below 2\^16, the format's"),
    ("round_to", lambda m: (np.ones(1, np.longdouble), m.BFLOAT16), TypeError, "x must be float32 or float64"),
    ("from_bits", lambda m: ([1], m.BFLOAT16), TypeError, "bits must be a NumPy array of unsigned integers of 16 bits"),
    ("from_bits", lambda m: (np.ones(1, np.uint32), m.FLOAT32), ValueError, "1 to 22 fraction bits"),
]


def refuses_formats(module, function, arguments, error, message):
    with pytest.raises(error, match=message):
        getattr(module, function)(*arguments(module))


@pytest.mark.parametrize("name", FINFO)
def test_formats_have_torchs_numbers(name):
    has_torchs_numbers(gpu, name)


@pytest.mark.parametrize("name", TORCHS)
def test_every_hard_point_is_rounded_as_torch_does(name):
    equals_torchs_bits(gpu, name)


@pytest.mark.parametrize("name", TORCHS)
def test_every_pattern_of_bits_is_read_as_torch_does(name):
    reads_torchs_bits(gpu, name)


@no_gpu
@pytest.mark.parametrize("name", ["BFLOAT16", "FLOAT16"])
def test_a_gpu_rounds_the_same(name):
    points = POINTS[name][~np.isnan(POINTS[name])]
    theirs = torch.from_numpy(points).cuda().to(TORCHS[name]).view(torch.uint16).cpu().numpy()
    np.testing.assert_array_equal(gpu.to_bits(points, getattr(gpu, name)), theirs)


def test_rounding_equals_numpys():
    rounds_as_numpy(gpu)
    has_formats_of_any_size(gpu)
    takes_any_layout(gpu)


@pytest.mark.parametrize("row", BAD_FORMATS, ids=lambda row: row[3][:40])
def test_bad_formats_are_refused(row):
    refuses_formats(gpu, *row)


def test_constants():
    forms = TF32, BFLOAT16, FLOAT16, FLOAT8_E5M2, FLOAT32
    assert [form.bits for form in forms] == [19, 16, 16, 8, 32]
    assert BFLOAT16.bias == FLOAT32.bias == 127


def scales_as_torch(module, seed, initial=1024.0, **options):
    "Random steps, some of which overflow: scale, steps and what is skipped as torch.amp.GradScaler's."
    rng = np.random.default_rng(seed)
    names = {"growth": "growth_factor", "backoff": "backoff_factor", "interval": "growth_interval"}
    theirs = torch.amp.GradScaler("cpu", init_scale=initial, **{names[k]: v for k, v in options.items()})
    ours, p = module.LossScaler(initial, **options), torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([p], lr=0.5)
    theirs.scale(torch.ones(()))  # makes its state
    for _ in range(60):
        grad = torch.from_numpy(rng.standard_normal(3).astype(np.float16))
        grad[rng.integers(3)] *= rng.choice([1, 1, 1, 1, np.inf, np.nan])
        before = p.detach().clone()
        p.grad = grad.float()
        theirs.step(optimizer)
        theirs.update()
        found = ours.unscale({"a": np.ones(2, np.float16), "p": grad.numpy()})
        moved = before if found is None else before - 0.5 * torch.from_numpy(found["p"])
        ours.update(found is not None)
        np.testing.assert_allclose(moved.numpy(), p.detach().numpy(), rtol=1e-6)
        assert (ours.scale, ours.good_steps) == (theirs.get_scale(), theirs._get_growth_tracker())


SCALERS = [
    {"interval": 3},
    {"interval": 1, "growth": 4.0, "backoff": 0.125},
    {"interval": 1, "initial": 2.0**125, "backoff": 0.25},  # stops growing where float32 ends
    {"interval": 5, "growth": 1.5},
]


def scaler_keeps_its_kind(module):
    fresh = module.LossScaler()
    assert (fresh.scale, fresh.growth, fresh.backoff, fresh.interval) == (65536.0, 2.0, 0.5, 2000)
    scaler = module.LossScaler(4.0, interval=7)
    grads = {"a": torch.tensor([2.0, 6.0], dtype=torch.bfloat16), "b": torch.ones(1, dtype=torch.float64)}
    found = scaler.unscale(grads)
    assert all(g.dtype == torch.float32 for g in found.values())
    assert (found["a"].tolist(), found["b"].tolist()) == ([0.5, 1.5], [0.25])
    tiny = scaler.unscale({"a": np.array([2.0**-24], np.float16)})["a"]  # below what float16 has
    assert (tiny.dtype, tiny[0]) == (np.float32, 2.0**-26)
    assert scaler.unscale({"a": np.ones(1, np.float32), "b": np.array([np.nan], np.float32)}) is None
    assert scaler.unscale({"b": torch.tensor([float("inf")]), "a": torch.ones(1)}) is None


def scaler_goes_on_from_its_state(module):
    scaler = module.LossScaler(2.0, interval=3)
    scaler.update(True)
    scaler.update(True)
    state = scaler.state_dict()
    assert {name: (x.shape, float(x)) for name, x in state.items()} == {"scale": ((), 2.0), "good_steps": ((), 2.0)}
    other = module.LossScaler(8.0, interval=3)
    other.load_state_dict(state)
    assert (other.scale, other.good_steps) == (2.0, 2)
    other.update(True)
    assert (other.scale, other.good_steps) == (4.0, 0)
    for bad, error in (
        ({}, TypeError),
        ([], TypeError),
        ({"scale": 1.0}, TypeError),
        (state | {"scale": np.asarray(0.0)}, ValueError),
        (state | {"scale": np.asarray("a")}, TypeError),
        (state | {"good_steps": np.asarray(-1)}, ValueError),
        (state | {"good_steps": np.asarray(0.5)}, ValueError),
    ):
        with pytest.raises(error, match="^state"):
            other.load_state_dict(bad)
        assert (other.scale, other.good_steps) == (4.0, 0)
    other.load_state_dict({"good_steps": np.asarray(0), "scale": np.asarray(0.5)})
    assert (other.scale, other.good_steps, module.LossScaler(0.5).scale) == (0.5, 0, 0.5)


BAD_SCALERS = [
    ({"initial": 0}, "initial must be greater than 0"),
    ({"growth": 1}, "growth must be greater than 1"),
    ({"backoff": 1}, "backoff must be between 0 and 1"),
    ({"backoff": 0}, "backoff must be between 0 and 1"),
    ({"interval": 0}, "interval must be a whole number from 1"),
]


def refuses_scalers(module, options, message):
    with pytest.raises(ValueError, match=message):
        module.LossScaler(**options)


def refuses_gradients(module):
    scaler = module.LossScaler()
    for bad in ({}, [np.ones(1)], None):
        with pytest.raises(TypeError, match="grads must be a dict of arrays by name, with at least one"):
            scaler.unscale(bad)
    with pytest.raises(TypeError, match=r"grads\['a'\] must be floating point"):
        scaler.unscale({"a": np.ones(1, int)})
    with pytest.raises(ValueError, match=r"grads\['a'\] must not be empty"):
        scaler.unscale({"a": np.ones(0)})


@pytest.mark.parametrize("options", SCALERS, ids=str)
@pytest.mark.parametrize("seed", [1, 2])
def test_loss_scaler_is_torchs(options, seed):
    scales_as_torch(gpu, seed, **options)


def test_loss_scaler():
    scaler_keeps_its_kind(gpu)
    scaler_goes_on_from_its_state(gpu)
    refuses_gradients(gpu)


@pytest.mark.parametrize("row", BAD_SCALERS, ids=str)
def test_bad_scalers_are_refused(row):
    refuses_scalers(gpu, *row)


SHORT = {
    "float16": lambda x: np.asarray(x, np.float16),
    "torch.float16": lambda x: torch.as_tensor(x, dtype=torch.float16),
    "torch.bfloat16": lambda x: torch.as_tensor(x, dtype=torch.bfloat16),
}


def numbers(x):
    return np.array(to_numpy(x), np.float32)


def is_the_rounded_master(module, kind, rule, scale=None, steps=20):
    "Parameters are those of float32 training, rounded, after every step."
    rng, short = np.random.default_rng(3), SHORT[kind]
    params = {"w": short(rng.standard_normal((3, 4))), "b": short(rng.standard_normal(3))}
    full = {name: numbers(p) for name, p in params.items()}
    scaler = None if scale is None else module.LossScaler(scale)
    optimizer = Optimizer(params, module.with_master_weights(rule, scaler))
    wanted = Optimizer(full, rule)
    for _ in range(steps):
        grads = {name: short(rng.standard_normal(p.shape)) for name, p in params.items()}
        optimizer.step(grads)
        wanted.step({name: numbers(g) / (scale or 1) for name, g in grads.items()})
        for name, p in params.items():
            np.testing.assert_array_equal(numbers(p), numbers(short(full[name])))
    again = Optimizer({name: short(numbers(p)) for name, p in params.items()}, module.with_master_weights(rule, scaler))
    again.load_state_dict(optimizer.state_dict())
    for one in (optimizer, again):
        one.step(grads)
    for name, p in params.items():
        np.testing.assert_array_equal(numbers(again.params[name]), numbers(p))


def small_steps_add_up(module):
    "Half a step of bfloat16 below 1 is 2^-9: less is lost, unless there is a float32 copy."
    one, grad = torch.ones(1, dtype=torch.bfloat16), torch.full((1,), 2.0**-10, dtype=torch.bfloat16)
    alone, kept = Optimizer({"w": one.clone()}, sgd(lr=1.0)), None
    kept = Optimizer({"w": one.clone()}, module.with_master_weights(sgd(lr=1.0)))
    for _ in range(64):
        alone.step({"w": grad})
        kept.step({"w": grad})
    assert alone.params["w"].item() == 1
    assert kept.params["w"].item() == 1 - 64 * 2**-10


def shrinks_exactly(module):
    "A parameter that moves far in one step is the rounded copy all the same."
    for kind, short in SHORT.items():
        params, far = {"w": short([1000.0])}, np.float32(1000 - 2**-10 * 3)
        Optimizer(params, module.with_master_weights(sgd(lr=1.0))).step({"w": short([999.5])})
        wanted = numbers(short(np.float32(1000) - numbers(short([999.5]))))
        np.testing.assert_array_equal(numbers(params["w"]), wanted, err_msg=kind)
        assert far > wanted[0]


def comes_back_from_beyond(module):
    "A master beyond the largest number of the format is right again later; one that is infinite itself shows it."
    half = 65504.0, 32.0  # the largest number, and the step before it
    for kind, (most, step) in {
        "float16": half,
        "torch.float16": half,
        "torch.bfloat16": (2.0**128 - 2.0**120, 2.0**120),
    }.items():
        start = SHORT[kind]([most, -most])
        optimizer = Optimizer({"w": start}, module.with_master_weights(sgd(lr=1.0)))
        signs = np.float32([1, -1])
        with np.errstate(over="ignore"):
            optimizer.step({"w": SHORT[kind](-0.75 * step * signs)})
            np.testing.assert_array_equal(numbers(start), most * signs, err_msg=kind)
            optimizer.step({"w": SHORT[kind](0.5 * most * signs)})
            np.testing.assert_allclose(numbers(start), 0.5 * most * signs, rtol=1e-2, err_msg=kind)
            rule = module.with_master_weights(sgd(lr=1.0))
            move, _ = rule.update(SHORT[kind](-np.inf * signs), rule.init(start), start)
        np.testing.assert_array_equal(numbers(move), np.inf * signs, err_msg=kind)


def refuses_rules(module):
    with pytest.raises(TypeError, match="rule must be a Rule, such as adam"):
        module.with_master_weights(adam)
    with pytest.raises(ValueError, match="rule must not need all arrays at once"):
        module.with_master_weights(chain(clip_grad_norm(1.0), sgd()))
    with pytest.raises(TypeError, match="scaler must be a LossScaler or None, got str"):
        module.with_master_weights(sgd(), "8")
    with pytest.raises(TypeError, match="param must be of 32 bits or less, as its master is float32, got float64"):
        module.with_master_weights(sgd()).init(np.ones(2))
    assert module.with_master_weights(sgd()).init(np.ones(2, np.float32))["master"].dtype == np.float32
    assert module.with_master_weights(muon()).scope == "array"
    params = {"w": np.ones(4, np.float16)}
    clipped = Optimizer(params, chain(clip_grad_norm(1.0), module.with_master_weights(sgd(lr=1.0))))
    clipped.step({"w": np.full(4, 10, np.float16)})
    np.testing.assert_allclose(params["w"], 0.5, rtol=1e-3)


@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize(
    "rule", [sgd(lr=0.1), sgd(lr=0.1, momentum=0.9), adam(lr=0.01)], ids=["sgd", "momentum", "adam"]
)
def test_parameters_are_the_rounded_master(kind, rule):
    is_the_rounded_master(gpu, kind, rule)


def test_master_weights():
    is_the_rounded_master(gpu, "float16", sgd(lr=0.1), scale=8.0)
    small_steps_add_up(gpu)
    shrinks_exactly(gpu)
    comes_back_from_beyond(gpu)
    refuses_rules(gpu)


def counted(layer, calls, alive):
    "The layer; its calls are counted, and how many of its pullbacks are held at the same time at most."

    def run(x, **params):
        y, pullback = layer(x, **params)[:2]
        calls["forward"] = calls.get("forward", 0) + 1

        def held(dy):  # a new object for each call
            return pullback(dy)

        alive.add(held)
        calls["most"] = max(calls.get("most", 0), len(alive))
        return y, held

    return run


def with_its_arguments(layer, calls, alive):
    "So that `sequential` sees which arguments the layer has."
    run = counted(layer, calls, alive)
    if layer in (linear, batch_norm):
        return lambda x, weight, bias: run(x, weight=weight, bias=bias)
    return lambda x: run(x)


DEEP = (*(linear, batch_norm, tanh) * 3, linear)


def deep_network(seed, width=5):
    rng = np.random.default_rng(seed)
    params = {}
    for i, layer in enumerate(DEEP):
        if layer in (linear, batch_norm):
            shape = (width, width) if layer is linear else (width,)
            params |= {f"{i}.weight": rng.standard_normal(shape), f"{i}.bias": rng.standard_normal(width)}
    return params, rng.standard_normal((7, width)), rng.standard_normal((7, width))


def gives_the_same_gradients(module, segments):
    "Bit for bit, twice, and with fewer pullbacks held for one more forward."
    params, x, dy = deep_network(1)
    y, pullback = sequential(*DEEP)(params, x)
    grads, dx = pullback(dy)
    calls, alive = {}, weakref.WeakSet()
    layers = [with_its_arguments(layer, calls, alive) for layer in DEEP]
    ours, back = module.checkpointed(*layers, segments=segments)(params, x)
    assert len(alive) == 0
    np.testing.assert_array_equal(ours, y)
    for count in (2, 3):
        again, also = back(dy)
        assert list(again) == list(grads)
        for name, grad in grads.items():
            np.testing.assert_array_equal(again[name], grad)
        np.testing.assert_array_equal(also, dx)
        assert calls["forward"] == count * len(DEEP)
    pieces = segments or 3
    assert calls["most"] == -(-len(DEEP) // pieces)


def draws_the_same_numbers(module):
    "Dropout, whose generators serve several layers, here and in the next segment."
    params, x, dy = deep_network(2)
    params = {f"{'037'.index(name[0]) * 3}{name[1:]}": p for name, p in params.items() if name[0] in "03"}
    params = {name.replace("3.", "2.", 1): p for name, p in params.items()}
    results, states = [], []
    for build in (sequential, partial(module.checkpointed, segments=3)):
        rng, other = np.random.default_rng(4), np.random.default_rng(5)
        drop = partial(dropout, p=0.4, rng=rng)
        apply = build(linear, drop, linear, partial(dropout, p=0.2, rng=other), drop, drop)
        first, pullback = apply(params, x)
        apply(params, x)  # moves the generators on
        grads, dx = pullback(dy)
        results.append([first, dx, *grads.values(), apply(params, x, training=False)[0], apply(params, x)[0]])
        states.append([g.bit_generator.state for g in (rng, other)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    assert states[0] == states[1]


def refuses_hidden_randomness(module):
    rng, x = np.random.default_rng(6), np.ones((4, 5))
    apply = module.checkpointed(lambda x: dropout(x, 0.5, rng), tanh, segments=2)
    _, pullback = apply({}, x)
    with pytest.raises(ValueError, match="layers must give the same when run again, but those from 0 on did not"):
        pullback(x)
    nothing, nan = np.zeros((4, 5)), np.where(np.eye(4, 5), np.nan, 1.0)
    for fine in (nothing, nan):
        np.testing.assert_array_equal(module.checkpointed(relu)({}, fine)[1](x)[1], ~(fine <= 0))


def sees_how_far_it_is_off(module):
    "Rounding is let pass, in numbers of any size; more is not, in either direction."
    for size in (1e-6, 1.0, 1e6):
        y = size * np.array([0.0, 1.0, -2.0])
        for off, allowed in ((1e-4, True), (-1e-4, True), (1e-2, False), (-1e-2, False)):
            results = iter([y, y + size * np.array([off, 0, 0])])
            apply = module.checkpointed(lambda x, results=results: (next(results), lambda dy: dy))
            _, pullback = apply({}, y)
            if allowed:
                pullback(y)
                continue
            with pytest.raises(ValueError, match="layers must give the same"):
                pullback(y)


def cuts_by_the_root(module):
    for count, pieces in ((1, 1), (2, 1), (3, 2), (9, 3), (12, 3), (13, 4)):
        calls, alive = {}, weakref.WeakSet()
        apply = module.checkpointed(*(with_its_arguments(relu, calls, alive) for _ in range(count)))
        apply({}, np.ones((1, 1)))[1](np.ones((1, 1)))
        assert calls["most"] == -(-count // pieces)


def takes_indices_and_tensors(module):
    weight = np.random.default_rng(7).standard_normal((4, 3))
    params, x = {"0.weight": weight, "1.weight": weight[:2]}, np.array([0, 3, 3])
    y, pullback = module.checkpointed(embedding, linear, segments=2)(params, x)
    wanted, back = sequential(embedding, linear)(params, x)
    np.testing.assert_array_equal(y, wanted)
    assert pullback(y)[1] is None
    np.testing.assert_array_equal(pullback(y)[0]["0.weight"], back(y)[0]["0.weight"])
    model = MLP((3, 4, 2))
    params = {name: torch.from_numpy(p) for name, p in model.init(np.random.default_rng(8)).items()}
    x = torch.ones(5, 3, dtype=torch.float64)
    y, pullback = module.checkpointed(linear, relu, linear)(params, x)
    grads, dx = pullback(y)
    wanted, wanted_dx = model.apply(params, x)[1](y)
    assert torch.equal(dx, wanted_dx)
    assert all(torch.equal(grads[name], wanted[name]) for name in wanted)


def refuses_layers(module):
    params, x, _ = deep_network(1)
    with pytest.raises(ValueError, match="segments must be at most 2, the number of layers, got 3"):
        module.checkpointed(relu, tanh, segments=3)
    with pytest.raises(ValueError, match="segments must be a whole number from 1"):
        module.checkpointed(relu, segments=0)
    with pytest.raises(TypeError, match="rng must be"):
        module.checkpointed(partial(dropout, rng=3))
    with pytest.raises(TypeError, match="layers must be one or more functions"):
        module.checkpointed()
    with pytest.raises(ValueError, match=r"params must have 9\.weight"):
        module.checkpointed(*DEEP)({k: v for k, v in params.items() if k != "9.weight"}, x)
    with pytest.raises(ValueError, match="weight must have shape") as caught:
        module.checkpointed(*DEEP)(params | {"3.weight": np.ones((5, 4))}, x)
    assert caught.value.__notes__[-1] == "of the segment that begins with layer 3"


@pytest.mark.parametrize("segments", [None, 1, 2, 3, 4, 10])
def test_checkpointing_changes_no_gradient(segments):
    gives_the_same_gradients(gpu, segments)


def test_checkpointing():
    draws_the_same_numbers(gpu)
    refuses_hidden_randomness(gpu)
    sees_how_far_it_is_off(gpu)
    cuts_by_the_root(gpu)
    takes_indices_and_tensors(gpu)
    refuses_layers(gpu)
