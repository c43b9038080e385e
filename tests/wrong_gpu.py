"""Wrong answers to the exercises of lesson 10, and what the learner is told."""

import math
import time

import numpy as np
import torch


def timed(warm=3, calls=1000, before=True, after=True, each=False, divide=None):
    "The timing with something changed."

    def answer(f, device):
        for _ in range(warm):
            f()
        if before:
            device.synchronize()
        start = device.clock()
        for _ in range(calls):
            f()
            if each:
                device.synchronize()
        if after:
            device.synchronize()
        return (device.clock() - start) / (divide or calls)

    return answer


def shortest(f, device):
    seconds = []
    for _ in range(20):
        start = device.clock()
        f()
        device.synchronize()
        seconds.append(device.clock() - start)
    return min(seconds)


def nothing_timed(f, device):
    f()
    device.synchronize()
    return -(device.clock() - device.clock())


def backwards(f, device):
    return -timed()(f, device)


def end_only(f, device):
    for _ in range(100):
        f()
    device.synchronize()
    return device.clock() / 100


def real_clock(f, device):
    start = time.perf_counter()
    f()
    device.synchronize()
    return time.perf_counter() - start


def without_end(f, device):
    while device.clock() >= 0:
        f()


def waits_for_ever(f, device):
    while True:
        device.synchronize()


def watches_for_ever(f, device):
    start = device.clock()
    while device.clock() < start + 10:
        pass
    return 1.0


def rounded(add, nan=0x7FC0, shift=16):
    "The bits by add(u), on whole numbers of any size."

    def answer(x):
        u = x.view(np.uint32).astype(np.int64)
        short = (u + add(u)) >> shift
        return np.where(np.isnan(x), short if nan is None else nan, short).astype(np.uint16)

    return answer


def nearest_even(u):
    return 0x7FFF + (u >> 16 & 1)


def but(change):
    "The right bits, with something changed: change(x, bits)."
    return lambda x: change(x, rounded(nearest_even)(x))


def formula(x):
    u = x.view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def no_infinity(x, short):
    return np.where((short & 0x7F80) == 0x7F80, 0x7FC0, short).astype(np.uint16)


def saturated(x, short):
    big = np.isfinite(x) & ((short & 0x7FFF) == 0x7F80)
    return np.where(big, short - 1, short).astype(np.uint16)


def flushed(x, short):
    return np.where(np.abs(x) < 2.0**-126, short & 0x8000, short).astype(np.uint16)


def one_wrong(x, short):
    return np.where(x == np.float32(1.0), 0x3F81, short).astype(np.uint16)


def in_place_bits(x):
    short = formula(x)
    x[:] = 0
    return short


def step(skip=True, unscale=None, clip=None, lr=0.1, back=0.5, interval=4, reset=0, grow=2, out=np.float32, first=None):
    "The step with something changed."

    def answer(w, g, scale, good):
        if skip and not np.isfinite(g).all():
            return w, scale * back, reset if reset is not None else good + 1
        g = first(g) if first else g
        wide = unscale(g, scale) if unscale else g.astype(np.float32) / np.float32(scale)
        wide = clip(wide, g, scale) if clip else wide / max(1.0, np.linalg.norm(wide.astype(float)))
        good += 1
        new = (w - lr * wide.astype(np.float32)).astype(out)
        return new, (scale * grow if good == interval else scale), 0 if good == interval else good

    return answer


def no_clip(wide, g, scale):
    return wide


def clip_scaled(g, scale):
    wide = g.astype(np.float32)
    return wide / max(1.0, np.linalg.norm(wide.astype(float))) / scale


def norm_in_float16(wide, g, scale):
    return wide / max(1.0, np.sqrt(np.sum(g**2)) / scale)


def only_infinities(w, g, scale, good):
    return step(skip=bool(np.isinf(g).any()))(w, g, scale, good)


def step_after_doubling(w, g, scale, good):
    new, scaled, count = step()(w, g, scale, good)
    return (step(unscale=lambda g, _: g.astype(np.float32) / scaled)(w, g, scale, good)[0], scaled, count)


def replaced(w, g, scale, good):
    new = step(first=np.nan_to_num)(w, np.nan_to_num(g), scale, good)[0]
    return (new, *step()(w, g, scale, good)[1:])


def nan_weights(w, g, scale, good):
    new = (w - g.astype(np.float32)) if not np.isfinite(g).all() else step()(w, g, scale, good)[0]
    return (new, *step()(w, g, scale, good)[1:])


def counts_on(w, g, scale, good):
    new, scaled, counted = step()(w, g, scale, good)
    return new, scaled, 4 if good == 3 and counted == 0 and np.isfinite(g).all() else counted


def no_count(w, g, scale, good):
    new, scaled, counted = step()(w, g, scale, good)
    return new, scaled, good if counted else counted


def step_in_place(w, g, scale, good):
    w[:], scale, good = step()(w, g, scale, good)
    return w, scale, good


def ran(segment, h):
    pullbacks = []
    for layer in segment:
        h, pullback = layer(h)
        pullbacks.append(pullback)
    return pullbacks


def checkpointed(length=None, free=True, keep=False, backward=reversed):
    "Checkpointing in segments of length(L)."

    def answer(layers, x, dy):
        n = length(len(layers)) if length else round(math.sqrt(len(layers)))
        segments = [layers[i : i + n] for i in range(0, len(layers), n)]
        inputs, kept = [], []
        for segment in segments:
            inputs.append(x)
            for layer in segment:
                x, _ = layer(x)
                kept += [x] if keep else []
        pullbacks = []
        for segment, h in zip(backward(segments), backward(inputs), strict=True):
            if free:
                pullbacks = []
            pullbacks = ran(segment, h)
            for pullback in reversed(pullbacks):
                dy = pullback(dy)
        return dy

    return answer


def keeps_all(layers, x, dy):
    pullbacks = []
    for layer in layers:
        x, pullback = layer(x)
        pullbacks.append(pullback)
    for pullback in reversed(pullbacks):
        dy = pullback(dy)
    return dy


def always_from_the_start(layers, x, dy):
    for i in reversed(range(len(layers))):
        h = x
        for layer in layers[: i + 1]:
            h, pullback = layer(h)
        dy = pullback(dy)
    return dy


def last_segment_only(layers, x, dy):
    n = round(math.sqrt(len(layers)))
    for layer in layers[:-n]:
        x, _ = layer(x)
    return keeps_all(layers[-n:], x, dy)


def back_twice(layers, x, dy):
    for layer in layers:
        x, pullback = layer(x)
        dy = pullback(pullback(dy))
    return dy


def forwards(layers, x, dy):
    for layer in layers:
        x, pullback = layer(x)
        dy = pullback(dy)
    return 2 * dy


def x_in_place(layers, x, dy):
    dy *= 2
    return dy


def limits(
    operations=2, moved=(1, 1, 1), rounded=math.ceil, s=None, none=math.inf, each=lambda s: 24 + 2 * s, all_of=None
):
    "Both numbers with something changed."

    def answer(inputs, outputs, peak, bandwidth, itemsize):
        (x, w, y), size = moved, s or itemsize
        gain = operations * inputs * outputs / peak - size * (x * inputs + y * outputs) / bandwidth
        batch = size * w * inputs * outputs / bandwidth / gain
        seconds = each(itemsize) * inputs * outputs / bandwidth
        seconds = seconds if all_of is None else all_of(seconds, inputs, outputs, bandwidth)
        return rounded(batch) if gain > 0 else (rounded(batch) if none is None else none), seconds

    return answer


WRONG = [
    ("gpu-timing", lambda f, device: None, "finite number"),
    ("gpu-timing", lambda f, device: 1e-5, "not called at all"),
    ("gpu-timing", real_clock, "look at device.clock"),
    ("gpu-timing", end_only, "read the clock twice"),
    ("gpu-timing", backwards, "less its beginning"),
    ("gpu-timing", nothing_timed, "nothing is called between"),
    ("gpu-timing", timed(warm=0), "first call, in which something is compiled"),
    ("gpu-timing", timed(warm=1), "starts after 1 calls"),
    ("gpu-timing", timed(after=False), "when the clock is read at the end"),
    ("gpu-timing", timed(before=False), "when the clock is started"),
    ("gpu-timing", timed(before=False, after=False), "when the clock is read at the end"),
    ("gpu-timing", timed(each=True), "you wait after each call"),
    ("gpu-timing", timed(calls=1), "1 calls are too few"),
    ("gpu-timing", timed(calls=30), "30 calls are too few"),
    ("gpu-timing", timed(divide=1), "divide by their number"),
    ("gpu-timing", timed(divide=1003, calls=1100), "divide by their number"),
    ("gpu-timing", timed(divide=1), "divide by their number"),
    ("gpu-timing", shortest, "the first call, in which"),
    ("gpu-timing", timed(calls=20_000), "more than 10,000 times"),
    ("gpu-timing", without_end, "more than 10,000 times"),
    ("gpu-timing", waits_for_ever, "for ever"),
    ("gpu-timing", watches_for_ever, "for ever"),
    ("gpu-bits", lambda x: formula(x).tolist(), "should be an array"),
    ("gpu-bits", lambda x: formula(x).ravel(), "of shape"),
    ("gpu-bits", lambda x: formula(x).astype(np.uint32), "dtype uint16"),
    ("gpu-bits", lambda x: torch.tensor(x.copy()).bfloat16().float().numpy(), "dtype uint16"),
    ("gpu-bits", in_place_bits, "x should not be changed"),
    ("gpu-bits", rounded(lambda u: 0), "cuts the lower half off"),
    ("gpu-bits", rounded(lambda u: 0x8000), "always goes up"),
    ("gpu-bits", rounded(lambda u: 0x7FFF), "always goes down"),
    ("gpu-bits", rounded(lambda u: 0x8000 - (u >> 16 & 1)), "to the odd neighbour"),
    ("gpu-bits", rounded(lambda u: 0x7FFF + (u & 1)), "always goes down"),
    ("gpu-bits", rounded(lambda u: 0xFFFF), "away from 0"),
    ("gpu-bits", rounded(lambda u: 0, shift=0), "lower 16 bits"),
    ("gpu-bits", but(lambda x, short: short & 0x7FFF), "sign is wrong, or lost"),
    ("gpu-bits", but(no_infinity), "infinity should stay infinity"),
    ("gpu-bits", but(saturated), "let the carry go into the exponent"),
    ("gpu-bits", but(flushed), "subnormal numbers are wrong"),
    ("gpu-bits", but(one_wrong), "float32 3F80.* gives 3F81, should be 3F80"),
    ("gpu-bits", formula, "NaN with the bits 7F800001 becomes 7F80, which is inf"),
    ("gpu-bits", rounded(nearest_even, nan=0), "NaN with the bits .* becomes 0000, which is 0"),
    ("gpu-bits", lambda x: np.where(x != x, x.view(np.uint32) >> 16, formula(x)).astype(np.uint16), "which is inf"),
    ("gpu-scaled", lambda w, g, scale, good: w, "return three things"),
    ("gpu-scaled", lambda w, g, scale, good: (w[:3], scale, good), "of shape"),
    ("gpu-scaled", lambda w, g, scale, good: (w, None, good), "the scale should be one finite"),
    ("gpu-scaled", step(out=np.float16), "stay float32"),
    ("gpu-scaled", step(out=np.float64), "stay float32"),
    ("gpu-scaled", step_in_place, "changed in place"),
    ("gpu-scaled", step(unscale=lambda g, scale: g.astype(np.float32), clip=no_clip), "still carries the scale"),
    ("gpu-scaled", step(unscale=clip_scaled, clip=no_clip), "clips the scaled gradient: divide"),
    ("gpu-scaled", step(unscale=lambda g, scale: g.astype(np.float32)), "every gradient gets the norm 1"),
    ("gpu-scaled", step(unscale=lambda g, scale: g.astype(np.float32) / scale**2), "divided twice"),
    ("gpu-scaled", step(clip=no_clip), "not clipped"),
    ("gpu-scaled", step(clip=lambda wide, g, scale: np.clip(wide, -1, 1)), "clips each number|not clipped"),
    ("gpu-scaled", step(clip=lambda wide, g, scale: wide / np.linalg.norm(wide)), "every gradient gets the norm 1"),
    ("gpu-scaled", step(unscale=lambda g, scale: g / np.float16(scale)), "divide in float32"),
    ("gpu-scaled", step(clip=norm_in_float16), "did the norm overflow"),
    ("gpu-scaled", step_after_doubling, "for the next step"),
    ("gpu-scaled", step(unscale=lambda g, scale: 0 * g.astype(np.float32)), "no step at all"),
    ("gpu-scaled", step(lr=-0.1), "uphill"),
    ("gpu-scaled", step(lr=1.0), "rate is 0.1"),
    ("gpu-scaled", step(lr=0.05), r"w\[.* should be"),
    ("gpu-scaled", step(skip=False), "halved"),
    ("gpu-scaled", step(back=1.0), "should be halved"),
    ("gpu-scaled", step(back=2.0), "smaller, not larger"),
    ("gpu-scaled", step(back=0.25), "scale should be 32768 now, got 16384"),
    ("gpu-scaled", step(reset=None), "counting begins again, got"),
    ("gpu-scaled", step(interval=3), "doubled too early"),
    ("gpu-scaled", step(interval=5), "fourth good step"),
    ("gpu-scaled", step(grow=4), "scale should be 65536 now, got 131072"),
    ("gpu-scaled", counts_on, "begins again at 0, got 4"),
    ("gpu-scaled", no_count, "good should be 1 now, got 0"),
    ("gpu-scaled", only_infinities, "is not finite: the scale should be halved"),
    ("gpu-scaled", replaced, "skip the whole step"),
    ("gpu-scaled", nan_weights, "skip a step where"),
    ("gpu-checkpoint", lambda layers, x, dy: None, "should be an array"),
    ("gpu-checkpoint", lambda layers, x, dy: dy, "layer .0. and 15 more were never gone back through"),
    ("gpu-checkpoint", last_segment_only, "layer .0. and 11 more were never"),
    ("gpu-checkpoint", back_twice, "layer .0. was gone back through 2 times"),
    ("gpu-checkpoint", forwards, "taken backwards"),
    ("gpu-checkpoint", checkpointed(backward=list), "taken backwards"),
    ("gpu-checkpoint", x_in_place, "changed in place"),
    ("gpu-checkpoint", keeps_all, "16 arrays were held at once; .* calculate the rest again"),
    ("gpu-checkpoint", checkpointed(keep=True), "arrays were held at once"),
    ("gpu-checkpoint", always_from_the_start, "136 times, one of them 16 times; 32 are enough"),
    ("gpu-checkpoint", checkpointed(length=lambda n: n), "at most 11.0 are allowed"),
    ("gpu-checkpoint", checkpointed(length=lambda n: 1), "at most 11.0 are allowed"),
    ("gpu-checkpoint", checkpointed(length=lambda n: n // 2), "about sqrt"),
    ("gpu-checkpoint", checkpointed(free=False), "before the next one is run again"),
    ("gpu-limits", lambda *case: 3.0, "return two numbers"),
    ("gpu-limits", limits(rounded=float), "a whole number, rounded up"),
    ("gpu-limits", limits(rounded=math.floor), "round up"),
    ("gpu-limits", limits(operations=1), "two operations"),
    ("gpu-limits", limits(operations=6), "forward and backward"),
    ("gpu-limits", limits(moved=(0, 1, 0)), "not only the weights"),
    ("gpu-limits", limits(moved=(1, 1, 0)), "outputs are written"),
    ("gpu-limits", limits(moved=(0, 1, 1)), "inputs are read"),
    ("gpu-limits", limits(s=1), "itemsize bytes"),
    ("gpu-limits", limits(none=None), "negative"),
    ("gpu-limits", limits(none=math.nan), "math.inf, got nan"),
    ("gpu-limits", lambda *case: (math.inf, 1.0), "there is such a batch"),
    ("gpu-limits", lambda *case: (None, 1.0), "finite number"),
    ("gpu-limits", limits(rounded=lambda b: math.ceil(b) + 7), "the smallest batch is 488, got 495"),
    ("gpu-limits", limits(each=lambda s: 28), "float32 without masters"),
    ("gpu-limits", limits(each=lambda s: 24 + 3 * s), "need not be read"),
    ("gpu-limits", limits(each=lambda s: 24 + s), "one of them is missing"),
    ("gpu-limits", limits(each=lambda s: 24), "both are missing"),
    ("gpu-limits", limits(each=lambda s: 12 + 2 * s), "written too"),
    ("gpu-limits", limits(each=lambda s: 8 * s), "4 bytes, whatever"),
    ("gpu-limits", limits(each=lambda s: 7 * s), "in itemsize bytes, and without masters"),
    ("gpu-limits", limits(each=lambda s: 16 + 2 * s), "master is read and written"),
    ("gpu-limits", limits(all_of=lambda t, i, o, b: t / i / o), "for one weight"),
    ("gpu-limits", limits(all_of=lambda t, i, o, b: t * b), "divide the bytes by the bandwidth"),
    ("gpu-limits", limits(each=lambda s: 100), "you move 100 bytes for each weight, should be 26"),
]
