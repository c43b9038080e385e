"""Checks of the exercises of lesson 10. Each looks for the likely mistakes first, so that the message names them."""

import math
import weakref
from collections import Counter

import numpy as np
import torch

from dlopt_course.app.exercises.judge import array, close, number, quietly, rule_out
from dlopt_course.core import CheckFailed, expect


class PretendedGPU:
    "A queue with a virtual clock: launches cost the CPU's time, the work is done later, and nothing really waits."

    def __init__(self, work: float):
        self.work, self.now, self.done = work, 0.0, 0.0  # of the CPU's clock; when the queue will be empty
        self.calls, self.waits, self.reads = 0, 0, []  # a read: what was called and was waiting then

    def launch(self) -> None:
        "Puts a kernel into the queue; the first one has to be compiled, the next two are slow."
        self.calls += 1
        if self.calls > 10_000:
            raise CheckFailed("f was called more than 10,000 times")
        self.now += 1.5 if self.calls == 1 else 5e-6
        work = self.work * (200 if self.calls in (2, 3) else 1)
        self.done = max(self.now, self.done) + work

    def synchronize(self) -> None:
        "Waits until the queue is empty."
        self.waits += 1
        self._endless(self.waits)
        self.now = max(self.now, self.done) + 20e-6

    def clock(self) -> float:
        "Seconds."
        self.reads.append((self.calls, self.done > self.now + 1e-12))
        self._endless(len(self.reads))
        self.now += 1e-7
        return self.now

    def _endless(self, count):
        if count > 100_000:
            raise CheckFailed("you wait, or look at the clock, for ever: here time passes by calls only")


def timing(answer) -> None:
    "Exercise 1."
    for work in (12e-6, 1e-6, 7e-5, 4e-2):
        device, right = PretendedGPU(work), max(work, 5e-6)
        got = number(answer(device.launch, device), "the seconds of a call")
        told = f"a kernel of {work * 1e6:g} µs: got {got * 1e6:.6g} µs a call, in a long row it is {right * 1e6:g}"
        expect(device.calls, "f is not called at all")
        expect(device.reads, "look at device.clock(): nobody's real clock knows what a pretended GPU does")
        if abs(got / right - 1) > 0.03:
            _judge_calls(got, device, told)
            _judge_waits(device, told)
            expect(False, f"{told}: more than 3 percent off")


def _judge_calls(got, device, told) -> None:
    "What may be wrong with the calls that are timed, or with what is made of them."
    first, last = device.reads[0][0], device.reads[-1][0]
    expect(got > 0, f"{told}: the end of the time less its beginning")
    expect(len(device.reads) > 1, f"{told}: read the clock twice, before and after")
    expect(last > first, f"{told}: nothing is called between the two looks at the clock")
    expect(first > 0, f"{told}: the first call, in which something is compiled, is in the time")
    expect(first > 2, f"{told}: the clock starts after {first} calls, and the first three are slow")


def _judge_waits(device, told) -> None:
    "What may be wrong with how it is waited for."
    first, last = device.reads[0], device.reads[-1]
    timed = last[0] - first[0]
    expect(not last[1], f"{told}: kernels are still in the queue when the clock is read at the end: synchronise before")
    expect(not first[1], f"{told}: kernels are still in the queue when the clock is started: synchronise before, too")
    each = timed > 1 and device.waits >= timed
    expect(not each, f"{told}: you wait after each call, and each wait costs 20 µs of its own: wait once, after all")
    few = timed * max(device.work, 5e-6) < 20e-6 / 0.03
    expect(not few, f"{told}: the wait itself takes 20 µs; {timed} calls are too few to make it small")
    expect(False, f"{told}: {timed} calls were timed; divide by their number, and by nothing else")


def bits(answer) -> None:
    "Exercise 2."
    x = _hard_numbers()
    for given in (x[:1200].reshape(40, 30), x, x[::-3]):
        kept = given.copy()
        got = quietly(answer, given)
        expect(np.array_equal(given.view(np.uint32), kept.view(np.uint32)), "x should not be changed")
        array(got, given.shape, "the bits")
        expect(got.dtype == np.uint16, f"the bits should have the dtype uint16, got {got.dtype}")
        nan = np.isnan(given)
        _judge_bits(got[~nan].astype(int), given[~nan])
        _judge_nan(got[nan].astype(int), given[nan])


def _hard_numbers() -> np.ndarray:
    "All middles between neighbours of bfloat16, the numbers beside them, and what is no number."
    upper = np.arange(2**16, dtype=np.uint32) << 16
    rng = np.random.default_rng(10)
    lower = np.array([0, 0x7FFF, 0x8000, 0x8001], dtype=np.uint32)
    u = (upper[:, None] + lower).ravel()
    special = np.array(
        [0x7F800000, 0xFF800000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7F7FFFFF, 0x3F808000],
        np.uint32,
    )
    return np.concatenate([special, rng.permutation(u)]).view(np.float32)


_WRONG_BITS = {  # of the 32 bits as whole numbers
    "this cuts the lower half off; round to the nearest": lambda u: u >> 16,
    "what lies in the middle always goes up; it goes to the even neighbour": lambda u: (u + 0x8000) >> 16,
    "what lies in the middle always goes down; it goes to the even neighbour": lambda u: (u + 0x7FFF) >> 16,
    "what lies in the middle goes to the odd neighbour": lambda u: (u + 0x8000 - (u >> 16 & 1)) >> 16,
    "this always rounds up, away from 0": lambda u: (u + 0xFFFF) >> 16,
    "these are the lower 16 bits; bfloat16 is the upper half": lambda u: u,
}


def _judge_bits(got, x) -> None:
    "The likely mistakes about numbers."
    right = torch.tensor(x).bfloat16().view(torch.int16).numpy().astype(int) & 0xFFFF
    u = x.view(np.uint32).astype(np.int64)
    tiny = (u & 0x7F800000) == 0
    plain = np.isfinite(x) & ~tiny & ((right & 0x7F80) != 0x7F80)
    rule_out(got[plain], {message: (wrong(u) & 0xFFFF)[plain] for message, wrong in _WRONG_BITS.items()})
    _judge_range(got, right, x, tiny)


def _judge_range(got, right, x, tiny) -> None:
    "The likely mistakes about signs, large and small numbers; then any."
    wrong = got != right
    signs = np.array_equal(got & 0x7FFF, right & 0x7FFF)
    expect(not (signs and wrong.any()), "the sign is wrong, or lost: it is the highest bit, and stays")
    infinite = np.isinf(x)
    expect(not wrong[infinite].any(), "infinity should stay infinity: its exponent is all ones, its fraction is 0")
    large = ~infinite & ((right & 0x7FFF) == 0x7F80)
    told = "numbers nearer to 2^128 than to the largest bfloat16 become infinity: let the carry go into the exponent"
    expect(not wrong[large].any(), told)
    expect(not wrong[tiny].any(), "0 or subnormal numbers are wrong: the formula is right for them as it stands")
    if wrong.any():
        i = int(np.argmax(wrong))
        told = f"float32 {x.view(np.uint32)[i]:08X} ({x[i]:g}) gives {got[i]:04X}, should be {right[i]:04X}"
        expect(False, told)


def _judge_nan(got, x) -> None:
    "Every NaN should stay one."
    wrong = (got & 0x7F80 != 0x7F80) | (got & 0x7F == 0)
    if wrong.any():
        i = int(np.argmax(wrong))
        became = torch.tensor(got[i].astype(np.int16)).view(torch.bfloat16).item()
        told = f"the NaN with the bits {x.view(np.uint32)[i]:08X} becomes {got[i]:04X}, which is {became:g}"
        expect(False, f"{told}: the carry or the cut spoils it")


_SIZES = (1e-3, 1e-7, 0.05, 0.2, 1e-5, 30.0, math.nan, 1.0, 1.0, 0.02, 1e-3, 1e-6, 1e-5, 0.3, 0.1)  # of gradients


def scaled(answer) -> None:
    "Exercise 3: fifteen steps, each from where torch is."
    rng, weight = np.random.default_rng(11), torch.nn.Parameter(torch.zeros(50))
    engine, scaler = torch.optim.SGD([weight], 0.1), torch.amp.GradScaler("cpu", init_scale=2.0**15, growth_interval=4)
    scaler.scale(torch.zeros(()))
    good = 0
    for size in _SIZES:
        g, w = _gradient(size, scaler.get_scale(), rng)
        finite, before = bool(np.isfinite(g).all()), (scaler.get_scale(), good)
        good = (good + 1) % 4 if finite else 0
        right = _step_by_torch(weight, engine, scaler, w, g)
        got = _step_of(answer, w, g, *before)
        _judge_counts(got[1:], before, (scaler.get_scale(), good), finite)
        _judge_step(got[0], w, g, before[0], right, scaler.get_scale() > before[0])


def _gradient(size, scale, rng) -> tuple:
    "That of the scaled loss in float16, with a NaN if its size is NaN; and weights that are no larger than a step."
    g = rng.normal(size=50) * (0.1 if math.isnan(size) else size) * scale
    w = rng.normal(size=50) * 0.1 * (min(size, 0.1) if size > 0 else 1.0)
    with np.errstate(over="ignore"):
        short = g.astype(np.float16)
    short[7] = np.nan if math.isnan(size) else short[7]
    return short, w.astype(np.float32)


def _step_by_torch(weight, engine, scaler, w, g) -> np.ndarray:
    "The weights after torch's own step from w."
    weight.data = torch.tensor(w)
    weight.grad = torch.tensor(g).float()
    scaler.unscale_(engine)
    torch.nn.utils.clip_grad_norm_([weight], 1.0)
    scaler.step(engine)
    scaler.update()
    return weight.detach().numpy().copy()


def _step_of(answer, w, g, scale, good) -> tuple:
    "What the answer makes of one step."
    given = w.copy(), g.copy()
    got = quietly(answer, *given, scale, good)
    same = np.array_equal(given[0], w) and np.array_equal(given[1], g, equal_nan=True)
    expect(same, "w or g was changed in place")
    expect(isinstance(got, (tuple, list)) and len(got) == 3, "return three things: w, scale and good")
    new = array(got[0], w.shape, "w")
    expect(got[0].dtype == np.float32, f"w should stay float32, got {got[0].dtype}")
    return new, number(got[1], "the scale"), number(got[2], "the number of good steps")


def _judge_counts(got, before, right, finite) -> None:
    "The likely mistakes about the scale and the number of good steps; all three are pairs of both."
    told = "scale {:g}, {} good steps before, the gradient is {}: ".format(
        *before, "finite" if finite else "not finite"
    )
    if not finite:
        expect(got[0] != before[0], f"{told}the scale should be halved, or the next step overflows again")
        expect(got[0] < before[0], f"{told}the scale should get smaller, not larger")
        expect(got[1] == 0, f"{told}counting begins again, got {got[1]:g}")
    elif right[0] == before[0]:
        early = got[0] == 2 * before[0]
        expect(not early, f"{told}the scale is doubled too early: after four good steps in a row, this one counted")
    else:
        expect(got[0] != before[0], f"{told}this is the fourth good step in a row, so the scale should be doubled")
        expect(got[1] != 4, f"{told}after doubling counting begins again at 0, got 4")
    expect(got[0] == right[0], f"{told}the scale should be {right[0]:g} now, got {got[0]:g}")
    expect(got[1] == right[1], f"{told}good should be {right[1]} now, got {got[1]:g}")


def _judge_step(got, w, g, scale, right, doubled) -> None:
    "The likely mistakes about the weights."
    if not np.isfinite(g).all():
        _judge_skipped(got, w)
        return
    told = "the weights are not finite, though the gradient is: did something overflow in float16?"
    expect(np.isfinite(got).all(), told)
    unit = np.abs(right).max()  # steps may be as small as 1e-8
    moves = dict(_WRONG_MOVES)
    if doubled:
        moves["the doubled scale is for the next step"] = lambda g, scale: _clipped(_wide(g, 2 * scale))
    with np.errstate(all="ignore"):
        wrong = {message: (w - 0.1 * move(g, scale)) / unit for message, move in moves.items()}
    rule_out(got / unit, {m: v for m, v in wrong.items() if not close(v, right / unit, 1e-4)}, 1e-5)
    where = int(np.argmax(np.abs(got - right)))
    told = f"scale {scale:g}: w[{where}] is {got[where]:.7g}, should be {right[where]:.7g}"
    expect(close(got / unit, right / unit, 1e-5), told)


def _judge_skipped(got, w) -> None:
    "Whether a step was skipped."
    expect(np.isfinite(got).all(), "the weights are not finite: skip a step where the gradient has infinity or NaN")
    told = "the gradient has infinity or NaN: skip the whole step, do not just replace such numbers"
    expect(np.array_equal(got, w), told)


def _wide(g, scale=1.0) -> np.ndarray:
    return g.astype(np.float64) / scale


def _clipped(g) -> np.ndarray:
    return g / max(1.0, float(np.linalg.norm(g)))


_WRONG_MOVES = {  # of the scaled gradient and the scale
    "the gradient still carries the scale: divide by it": lambda g, scale: _wide(g),
    "this clips the scaled gradient: divide by the scale first": lambda g, scale: _clipped(_wide(g)) / scale,
    "every gradient gets the norm 1: divide by the scale, then shorten only what is longer": lambda g, scale: _clipped(
        _wide(g)
    ),
    "divided twice by the scale": lambda g, scale: _clipped(_wide(g, scale**2)),
    "the gradient is not clipped": _wide,
    "this clips each number; clip the norm of all": lambda g, scale: np.clip(_wide(g, scale), -1, 1),
    "divide in float32: in float16 small numbers get lost": lambda g, scale: _clipped(_wide(g / np.float16(scale))),
    "no step at all, though the gradient is finite: did the norm overflow in float16?": lambda g, scale: 0 * _wide(g),
    "uphill: subtract": lambda g, scale: -_clipped(_wide(g, scale)),
    "the rate is 0.1": lambda g, scale: 10 * _clipped(_wide(g, scale)),
}


class _Layers:
    "Layers x + 0.1 sin(A x + b) that count their calls, and the arrays that they made and somebody still holds."

    def __init__(self, count):
        rng = np.random.default_rng(count)
        self.made, self.most, self.calls, self.back = [], 0, Counter(), Counter()
        self.numbers = list(zip(rng.normal(size=(count, 5, 5)), rng.normal(size=(count, 5)), strict=True))

    def layer(self, i, x) -> tuple:
        "y, and the pullback, which holds x."
        a, b = self.numbers[i]
        self.calls[i] += 1
        y = x + 0.1 * np.sin(a @ x + b)
        self.made.append(weakref.ref(y))
        self._count()

        def pullback(dy):
            self._count()
            self.back[i] += 1
            return dy + 0.1 * a.T @ (np.cos(a @ x + b) * dy)

        return y, pullback

    def _count(self):
        self.made = [one for one in self.made if one() is not None]
        self.most = max(self.most, len(self.made))

    def right(self, x, dy) -> np.ndarray:
        "The gradient by torch."
        start = h = torch.tensor(x, requires_grad=True)
        for a, b in self.numbers:
            h = h + 0.1 * torch.sin(torch.tensor(a) @ h + torch.tensor(b))
        h.backward(torch.tensor(dy))
        return start.grad.numpy()


def checkpoint(answer) -> None:
    "Exercise 4."
    for count in (16, 36, 50, 100):
        counted, rng = _Layers(count), np.random.default_rng(count)
        x, dy = rng.normal(size=(2, 5))
        layers = [lambda h, i=i, all_of_them=counted: all_of_them.layer(i, h) for i in range(count)]
        given = x.copy(), dy.copy()
        got = array(answer(layers, *given), x.shape, "the gradient")
        expect(np.array_equal(given[0], x) and np.array_equal(given[1], dy), "x or dy was changed in place")
        _judge_gradient(got, counted, x, dy, f"{count} layers: ")
        _judge_memory(counted, count, f"{count} layers: the gradient is right, but ")


def _judge_gradient(got, counted, x, dy, told) -> None:
    "Whether the gradient is right, and if not what was left out."
    right, count = counted.right(x, dy), len(counted.numbers)
    if close(got, right):
        return
    missing = [i for i in range(count) if not counted.back[i]]
    expect(not missing, f"{told}layer {missing[:1]} and {len(missing) - 1} more were never gone back through")
    again = [i for i in range(count) if counted.back[i] > 1]
    expect(not again, f"{told}layer {again[:1]} was gone back through {max(counted.back.values())} times")
    expect(
        False,
        f"{told}the gradient is {got.tolist()}, should be {right.tolist()}; were segments and layers taken backwards?",
    )


def _judge_memory(counted, count, told) -> None:
    "Whether too much was held, or calculated."
    calls, limit = sum(counted.calls.values()), 2 * math.sqrt(count) + 3
    each = max(counted.calls.values())
    expect(
        calls <= 2 * count, f"{told}layers were called {calls} times, one of them {each} times; {2 * count} are enough"
    )
    held = f"{told}{counted.most} arrays were held at once; at most {limit:.1f} are allowed"
    all_kept = calls == count and counted.most > limit
    expect(not all_kept, f"{held}. Keep the inputs of the segments only, and calculate the rest again")
    hint = "about sqrt(L) segments, and let go of a segment's pullbacks before the next one is run again"
    expect(counted.most <= limit, f"{held}: {hint}")


_DEVICES = (  # inputs, outputs, peak, bandwidth, itemsize
    (1000, 3000, 1979e12, 3.35e12, 1),
    (768, 3072, 989e12, 3.35e12, 2),
    (256, 256, 989e12, 3.35e12, 2),
    (4096, 4096, 989e12, 3.35e12, 2),
    (512, 512, 67e12, 3.35e12, 4),
)


def limits(answer) -> None:
    "Exercise 5."
    for case in _DEVICES:
        got = quietly(answer, *case)
        expect(
            isinstance(got, (tuple, list, np.ndarray)) and np.size(got) == 2, "return two numbers, batch and seconds"
        )
        told = "my_limits({}): ".format(", ".join(f"{x:g}" for x in case))
        _judge_batch(got[0], case, told)
        _judge_seconds(number(got[1], f"{told}the seconds"), case, told)


def _smallest(
    inputs, outputs, peak, bandwidth, itemsize, *, operations=2.0, moved=(1, 1, 1), rounded=math.ceil
) -> float:
    "The batch, with an operation's count and what is moved of inputs, weights and outputs."
    x, w, y = (itemsize * part for part in moved)
    gain = operations * inputs * outputs / peak - (x * inputs + y * outputs) / bandwidth
    return rounded(w * inputs * outputs / bandwidth / gain) if gain > 0 else math.inf


_WRONG_BATCHES = {
    "a whole number, rounded up": {"rounded": float},
    "round up: with one sample fewer bytes still take longer": {"rounded": math.floor},
    "a multiplication and an addition are two operations": {"operations": 1.0},
    "these are the operations of forward and backward": {"operations": 6.0},
    "inputs and outputs are moved too, not only the weights": {"moved": (0, 1, 0)},
    "the outputs are written: they are missing": {"moved": (1, 1, 0)},
    "the inputs are read: they are missing": {"moved": (0, 1, 1)},
    "each number has itemsize bytes": {"itemsize": 1},
}


def _judge_batch(got, case, told) -> None:
    "The likely mistakes of the first number of exercise 5."
    right = _smallest(*case)
    if right == math.inf:
        negative = isinstance(got, (int, float, np.number)) and got < 0
        expect(not negative, f"{told}the batch is negative: where bytes take longer for any batch, it is math.inf")
        expect(got == math.inf, f"{told}bytes take longer for any batch: the first number is math.inf, got {got!r:.40}")
        return
    expect(got != math.inf, f"{told}there is such a batch: {right}")
    names = "inputs", "outputs", "peak", "bandwidth", "itemsize"
    wrong = {m: _smallest(**(dict(zip(names, case, strict=True)) | change)) for m, change in _WRONG_BATCHES.items()}
    got = number(got, f"{told}the batch")
    rule_out(got, {f"{told}{m}": v for m, v in wrong.items() if v != right and v != math.inf})
    expect(got == right, f"{told}the smallest batch is {right}, got {got:g}")


_WRONG_BYTES = {  # of AdamW for each weight, of itemsize
    "28 bytes a weight are for float32 without masters": lambda s: 28,
    "the old short weight need not be read": lambda s: 24 + 3 * s,
    "the gradient is read and the short weight written: one of them is missing": lambda s: 24 + s,
    "the gradient is read and the short weight written: both are missing": lambda s: 24,
    "m, v and the master are written too": lambda s: 12 + 2 * s,
    "m, v and the master have 4 bytes, whatever itemsize": lambda s: 8 * s,
    "all of it in itemsize bytes, and without masters": lambda s: 7 * s,
    "the master is read and written too": lambda s: 16 + 2 * s,
}


def _judge_seconds(got, case, told) -> None:
    "The likely mistakes of the second number of exercise 5."
    inputs, outputs, _, bandwidth, s = case
    each, right = got * bandwidth / inputs / outputs, 24 + 2 * s
    wrong = {message: count(s) for message, count in _WRONG_BYTES.items()} | {
        "that is for one weight; there are inputs times outputs": right / inputs / outputs,
        "divide the bytes by the bandwidth": right * bandwidth,
    }
    rule_out(each / right, {f"{told}the seconds: {m}": v / right for m, v in wrong.items() if v != right})
    expect(close(each / right, 1.0), f"{told}you move {each:.6g} bytes for each weight, should be {right}")


CHECKS = {"timing": timing, "bits": bits, "scaled": scaled, "checkpoint": checkpoint, "limits": limits}
