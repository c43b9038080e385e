"""Wrong answers to the exercises of lesson 9, and what the learner is told."""

import math

import numpy as np

from dlopt_course.parallel import Round, all_gather, mean_gradient, partition, reduce_scatter, rounds

FILLED = -100


def words(y):
    return np.count_nonzero(y != FILLED)


def weighted(count, divide=sum, start=0):
    "The gradients times count(y), added, over divide(counts)."

    def answer(batches, gradient_of):
        counts = [count(y) for _, y in batches if words(y)]
        pairs = [pair for pair in batches if words(pair[1])]
        grads = [gradient_of(x, y) for x, y in pairs]
        return {
            name: sum(c * g[name] for c, g in zip(counts, grads, strict=True)) / divide(counts) for name in grads[0]
        }

    return answer


def accumulated(skip, put=lambda name: name):
    "Right but for empty batches: skip(y) says which are left out."

    def answer(batches, gradient_of):
        total, count = {}, 0
        for x, y in batches:
            if not skip(y):
                for name, g in gradient_of(x, y).items():
                    total[put(name)] = total.get(put(name), 0.0) + words(y) * g
                count += words(y)
        return {name: t / count for name, t in total.items()}

    return answer


def one_batch(at):
    return lambda batches, gradient_of: gradient_of(*[pair for pair in batches if words(pair[1])][at])


def all_held(batches, gradient_of):
    grads = [gradient_of(x, y) for x, y in batches]
    return mean_gradient(grads, [words(y) for _, y in batches])


def twice(batches, gradient_of):
    for x, y in batches:
        gradient_of(x, y)
    return accumulated(lambda y: not words(y))(batches, gradient_of)


def joined(batches, gradient_of):
    x, y = batches[0]
    return gradient_of(np.concatenate([x, x]), np.concatenate([y, y]))


def fills(batches, gradient_of):
    for _, y in batches:
        y[y == FILLED] = 0
    return accumulated(lambda y: False)(batches, gradient_of)


def flat(batches, gradient_of):
    return {name: g.ravel()[:3] for name, g in accumulated(lambda y: not words(y))(batches, gradient_of).items()}


def ring(part=lambda k, rank: rank - k, to=1, add=False, more=0, cut=partition):
    "The all-gather with something changed."

    def answer(workers, size):
        parts, rank = cut(size, workers), np.arange(workers)
        start, stop = (np.array([getattr(p, end) for p in parts]) for end in ("start", "stop"))
        for k in range(workers - 1 + more):
            which = part(k, rank) % workers
            yield Round(rank, (rank + to) % workers, start[which], stop[which], add)

    return answer


def changed(change):
    "The right rounds, each with something changed."
    return lambda workers, size: [change(step, workers, size) for step in ring()(workers, size)]


def equal_cut(size, workers):
    step = -(-size // workers)
    return [slice(min(i * step, size), min((i + 1) * step, size)) for i in range(workers)]


def all_of_it(step, workers, size):
    return step._replace(start=np.zeros(workers, dtype=int), stop=np.full(workers, size))


def one_by_one(workers, size):
    for step in ring()(workers, size):
        for message in zip(*step[:4], strict=True):
            yield Round(*(np.array([x]) for x in message), False)


def in_halves(workers, size):
    for source, target, start, stop, _ in ring()(workers, size):
        middle = (start + stop) // 2
        yield Round(source, target, start, middle, False)
        yield Round(source, target, middle, stop, False)


def directly(workers, size):
    parts, rank = partition(size, workers), np.arange(workers)
    start, stop = (np.array([getattr(p, end) for p in parts]) for end in ("start", "stop"))
    for k in range(1, workers):
        yield Round(rank, (rank + k) % workers, start, stop, False)


def all_at_once(workers, size):
    r = np.arange(workers)
    source, target = (x[r[:, None] != r] for x in np.meshgrid(r, r, indexing="ij"))
    bounds = np.array([p.start for p in partition(size, workers)] + [size])
    return [Round(source, target, bounds[source], bounds[source + 1], False)]


def endless(workers, size):
    while True:
        yield from ring()(workers, size)
        yield from ring()(2, 2)


def whole_ring(workers, size):
    return rounds("ring", workers, size)


def through_first(workers, size):
    "Everybody sends its part to worker 0, which sends all to everybody."
    parts, zero = partition(size, workers), np.array([0])
    for rank in range(1, workers):
        yield Round(np.array([rank]), zero, np.array([parts[rank].start]), np.array([parts[rank].stop]), False)
    for rank in range(1, workers):
        yield Round(zero, np.array([rank]), zero, np.array([size]), False)


def tried(calculating, messages, pick=lambda P, c, m: (P[np.argmax(m > c)], P[np.argmin(c + m)])):
    "The two numbers by trying, from the seconds of both."

    def answer(batch, sample_seconds, nbytes, latency, bandwidth):
        P = np.arange(1, 100_001)
        case = batch, sample_seconds, nbytes, latency, 1 / bandwidth
        return tuple(int(x) for x in pick(P, calculating(P, *case), messages(P, *case)))

    return answer


def work(P, batch, c, n, alpha, beta):
    return batch * c / P


def sent(P, batch, c, n, alpha, beta):
    return 2 * (P - 1) * (alpha + beta * n / P)


def by_root(batch, c, n, alpha, bandwidth):
    first, _ = tried(work, sent)(batch, c, n, alpha, bandwidth)
    return first, round(math.sqrt(batch * c / 2 / alpha))


def scaled(noise=lambda s, bs, b, bb: None, batch=math.ceil, samples=None):
    "The three numbers, with something changed: noise(…), batch(exact), samples(S_min, noise, B, most)."

    def answer(small, b_small, big, b_big, fewest, most):
        trace = (b_small - b_big) / (1 / small - 1 / big)
        right = trace / (b_big - trace / big)
        changed = noise(small, b_small, big, b_big)
        scale = right if changed is None else changed
        size = batch(right / (most / fewest - 1))
        return scale, size, samples(fewest, right, size, most) if samples else (fewest * (1 + right / size) * size)

    return answer


def trace_of(s, bs, b, bb):
    return (bs - bb) / (1 / s - 1 / b)


def sized(size):
    "The batch by size(noise, most / fewest)."

    def answer(small, b_small, big, b_big, fewest, most):
        trace = trace_of(small, b_small, big, b_big)
        noise = trace / (b_big - trace / big)
        return noise, size(noise, most / fewest), 0.0

    return answer


def adam_step(w, m, v, t, lr):
    return w - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


def zero_step(total=None, move=adam_step, m_of=None, v_of=None, keep=None, back=None):
    "The step of stage 1, with something changed."

    def answer(params, grads, states, t, lr):
        parts, new, kept = partition(params[0].size, len(params)), [], []
        sums = reduce_scatter(grads)[0] if total is None else [total(grads, r)[part] for r, part in enumerate(parts)]
        for r, (part, state) in enumerate(zip(parts, states, strict=True)):
            old_m, old_v = state.get("m", 0.0), state.get("v", 0.0)
            m = m_of(old_m, sums[r]) if m_of else 0.9 * old_m + 0.1 * sums[r]
            v = v_of(old_v, grads, part) if v_of else 0.999 * old_v + 0.001 * sums[r] ** 2
            new.append(move(params[r][part], m, v, t, lr))
            kept.append(keep(m, v, part, len(params[r])) if keep else {"m": m, "v": v})
        return back(new, params, parts) if back else all_gather(new)[0], kept

    return answer


def whole_state(params, grads, states, t, lr):
    new, kept = [], []
    for w, state in zip(params, states, strict=True):
        m = 0.9 * state.get("m", 0.0) + 0.1 * sum(grads)
        v = 0.999 * state.get("v", 0.0) + 0.001 * sum(grads) ** 2
        new.append(adam_step(w, m, v, t, lr))
        kept.append({"m": m, "v": v})
    return new, kept


def as_slices(m, v, part, size):
    whole = np.zeros((2, size))
    whole[:, part] = m, v
    return {"m": whole[0][part], "v": whole[1][part]}


def own_part_only(new, params, parts):
    wholes = [p.copy() for p in params]
    for whole, part, mine in zip(wholes, parts, new, strict=True):
        whole[part] = mine
    return wholes


def others_zero(new, params, parts):
    return own_part_only(new, [np.zeros_like(p) for p in params], parts)


def in_place(params, grads, states, t, lr):
    new, kept = zero_step()(params, grads, states, t, lr)
    for old, whole in zip(params, new, strict=True):
        old[:] = whole
    return params, kept


WRONG = [
    ("parallel-accumulate", weighted(lambda y: 1), "still the mean of the means"),
    ("parallel-accumulate", weighted(len), "weighs each batch by its sentences"),
    ("parallel-accumulate", weighted(lambda y: y.size), "filled-up places"),
    ("parallel-accumulate", weighted(lambda y: np.sum(y > 0)), "class 0 is a class"),
    ("parallel-accumulate", weighted(np.count_nonzero), "-100 is not 0"),
    ("parallel-accumulate", weighted(lambda y: y.shape[1]), "longest sentence"),
    ("parallel-accumulate", weighted(lambda y: 1, lambda counts: 1), "not divided by anything"),
    ("parallel-accumulate", weighted(words, lambda counts: 1), "divide the sum by the number of words"),
    ("parallel-accumulate", weighted(words, len), "divided by the number of batches"),
    ("parallel-accumulate", weighted(words, lambda counts: counts[-1]), "words of the last batch"),
    ("parallel-accumulate", weighted(words, lambda counts: 2 * sum(counts)), "that of all words together has"),
    ("parallel-accumulate", one_batch(-1), "last batch only"),
    ("parallel-accumulate", one_batch(0), "first batch only"),
    ("parallel-accumulate", accumulated(lambda y: False), "NaN: a batch without words"),
    ("parallel-accumulate", accumulated(lambda y: not words(y), str.upper), "names of gradient_of"),
    ("parallel-accumulate", lambda batches, gradient_of: None, "return a dict"),
    ("parallel-accumulate", flat, "should be an array of shape"),
    ("parallel-accumulate", fills, "batch was changed"),
    ("parallel-accumulate", joined, "do not fit into memory"),
    ("parallel-accumulate", twice, "was called 6 times for 3 batches"),
    ("parallel-accumulate", all_held, "gradients were held at once"),
    ("parallel-gather", lambda workers, size: None, "yield a Round"),
    ("parallel-gather", lambda workers, size: [(0, 1)] * (workers - 1), "should be a Round"),
    ("parallel-gather", lambda workers, size: [], "has 1 of 2 parts; it takes P - 1 = 1"),
    ("parallel-gather", ring(more=-1), "it takes P - 1"),
    ("parallel-gather", changed(lambda s, w, n: s._replace(target=s.source + 1)), "no worker .*count modulo 2"),
    ("parallel-gather", changed(lambda s, w, n: s._replace(stop=s.stop + 1)), "those from 0 to"),
    ("parallel-gather", changed(lambda s, w, n: s._replace(start=s.start + 0.5)), "whole numbers"),
    ("parallel-gather", changed(lambda s, w, n: s._replace(target=s.source)), "sends to itself"),
    ("parallel-gather", ring(add=True), "add should be False"),
    ("parallel-gather", whole_ring, "add should be False"),
    ("parallel-gather", ring(part=lambda k, rank: rank - k - 1), "does not have all of them yet"),
    ("parallel-gather", ring(part=lambda k, rank: rank + k), "does not have all of them yet"),
    ("parallel-gather", ring(part=lambda k, rank: rank), "has 2 of 3 parts"),
    ("parallel-gather", ring(cut=equal_cut), "does not have all of them yet"),
    ("parallel-gather", changed(all_of_it), "does not have all of them yet"),
    ("parallel-gather", endless, "do not end"),
    ("parallel-gather", ring(more=1), "sends 48 bytes, and 24 are enough"),
    ("parallel-gather", through_first, "everybody has everything, but worker 0 sends 48 bytes, and 24"),
    ("parallel-gather", one_by_one, "in 2 rounds, and 1 are enough"),
    ("parallel-gather", in_halves, "4 messages are too many"),
    ("parallel-gather", directly, "each sends to the next one only"),
    ("parallel-gather", ring(lambda k, rank: rank + k, to=-1), "each sends to the next one only"),
    ("parallel-gather", all_at_once, "worker 0 sends 2 messages; one at a time"),
    ("parallel-gather", changed(lambda s, w, n: s._replace(target=0 * s.target)), "sends to itself|gets 2 messages"),
    ("parallel-workers", lambda *case: 8, "return two numbers"),
    ("parallel-workers", lambda *case: (8.5, 2), "whole number of workers"),
    ("parallel-workers", lambda *case: (0, 2), "at least one worker"),
    ("parallel-workers", lambda *case: (math.inf, 2), "finite"),
    ("parallel-workers", lambda *case: tried(work, sent)(*case)[::-1], "swapped"),
    ("parallel-workers", tried(lambda P, b, c, *_: b * c + 0 * P, sent), "batch is cut"),
    ("parallel-workers", tried(lambda P, b, c, *_: c / P, sent), "not one sample"),
    ("parallel-workers", tried(work, lambda *a: sent(*a) / 2), "two halves"),
    ("parallel-workers", tried(work, lambda P, b, c, n, al, be: 2 * (P - 1) * (al + be * n)), "P-th of the bytes"),
    ("parallel-workers", tried(work, lambda P, b, c, n, al, be: 2 * (P - 1) * al), "bytes are missing"),
    ("parallel-workers", tried(work, lambda P, b, c, n, al, be: 2 * (P - 1) * be * n / P), "latency is missing"),
    ("parallel-workers", tried(work, lambda P, b, c, n, al, be: al + 2 * (P - 1) * be * n / P), "in every round"),
    (
        "parallel-workers",
        tried(work, lambda P, b, c, n, al, be: 2 * (P - 1) * (al + n / be / P)),
        "one over the bandwidth",
    ),
    (
        "parallel-workers",
        tried(work, sent, lambda P, c, m: (P[m < c][-1], 1)),
        "last number with which messages are shorter",
    ),
    ("parallel-workers", tried(work, sent, lambda P, c, m: (P[m > 3 * c][0], 1)), "calculating takes .* ms, messages"),
    (
        "parallel-workers",
        tried(work, sent, lambda P, c, m: [P[np.argmax(m > c)]] * 2),
        "that is the first number again",
    ),
    ("parallel-workers", by_root, "part of the bytes is missing"),
    ("parallel-workers", lambda b, *case: (tried(work, sent)(b, *case)[0], b), "not the fastest"),
    ("parallel-workers", tried(work, sent, lambda P, c, m: (P[m > c][0], P[np.argmin(c + m)] + 1)), "a step takes"),
    ("parallel-batch", lambda *case: 3.0, "return three numbers"),
    ("parallel-batch", lambda *case: (math.nan, 1, 1), "finite"),
    ("parallel-batch", scaled(lambda s, bs, b, bb: 1 / scaled()(s, bs, b, bb, 1, 2)[0]), "upside down"),
    ("parallel-batch", scaled(trace_of), "divide it by the squared gradient"),
    ("parallel-batch", scaled(lambda s, bs, b, bb: bb - trace_of(s, bs, b, bb) / b), "that is the squared gradient"),
    ("parallel-batch", scaled(lambda s, bs, b, bb: trace_of(s, bs, b, bb) / bb), "not the exact one"),
    ("parallel-batch", scaled(lambda s, bs, b, bb: trace_of(s, bs, b, bb) / bs), "mostly noise"),
    ("parallel-batch", scaled(lambda s, bs, b, bb: (bs - bb) / (bb - trace_of(s, bs, b, bb) / b)), "over its size"),
    ("parallel-batch", scaled(lambda s, bs, b, bb: (bs - bb) * s / bb), "the big batches have noise too"),
    ("parallel-batch", scaled(lambda s, bs, b, bb: bs / bb), "ratio of what was measured"),
    ("parallel-batch", scaled(lambda s, bs, b, bb: -scaled()(s, bs, b, bb, 1, 2)[0]), "the sign"),
    ("parallel-batch", scaled(lambda s, bs, b, bb: scaled()(s, bs, b, bb, 1, 2)[0] ** 0.5), "no root"),
    ("parallel-batch", scaled(lambda s, bs, b, bb: 1.0), "the noise scale is 1, should be"),
    ("parallel-batch", scaled(batch=math.floor), "round up"),
    ("parallel-batch", scaled(batch=float), "a whole number of samples"),
    ("parallel-batch", sized(lambda noise, ratio: math.ceil(noise * (ratio - 1))), "more time allows"),
    ("parallel-batch", sized(lambda noise, ratio: math.ceil(noise / ratio)), "the 1 is missing"),
    ("parallel-batch", sized(lambda noise, ratio: math.ceil(noise * ratio)), "and the 1 is missing"),
    ("parallel-batch", sized(lambda noise, ratio: round(noise)), "whatever the deadline"),
    ("parallel-batch", scaled(batch=lambda exact: math.floor(exact) + 2), "one more than needed"),
    ("parallel-batch", sized(lambda noise, ratio: 7), "a batch of 7 needs"),
    ("parallel-batch", sized(lambda noise, ratio: -7), "no end of steps"),
    ("parallel-batch", scaled(samples=lambda f, noise, B, most: most * B), "fewer than most_steps"),
    ("parallel-batch", scaled(samples=lambda f, noise, B, most: f * noise), "fewest samples that any batch needs"),
    ("parallel-batch", scaled(samples=lambda f, noise, B, most: f * B), "not enough with a finite batch"),
    ("parallel-batch", scaled(samples=lambda f, noise, B, most: f * (1 + noise / B)), "that is S, the steps"),
    ("parallel-batch", scaled(samples=lambda f, noise, B, most: 1.0), "the samples are 1, should be"),
    ("parallel-shard", lambda params, grads, states, t, lr: params, "return two lists"),
    ("parallel-shard", lambda params, grads, states, t, lr: (params, states), 'a dict with "m" and "v"'),
    ("parallel-shard", in_place, "changed in place"),
    ("parallel-shard", whole_state, "holds m of shape .12,.; its part has 4"),
    ("parallel-shard", zero_step(keep=as_slices), "holds 192 bytes of state, and 64 are enough"),
    ("parallel-shard", zero_step(keep=lambda m, v, part, n: {"m": m, "v": v, "g": m.copy()}), "holds 96 bytes"),
    ("parallel-shard", zero_step(lambda grads, r: grads[r]), "its own share only"),
    ("parallel-shard", zero_step(lambda grads, r: sum(grads) / len(grads)), "mean of the shares"),
    ("parallel-shard", zero_step(m_of=lambda m, g: 0.1 * m + 0.9 * g), "weights swapped"),
    ("parallel-shard", zero_step(m_of=lambda m, g: 0.9 * m + g), "the 0.1 is missing"),
    ("parallel-shard", zero_step(m_of=lambda m, g: 0.1 * g), "forgets the old one"),
    ("parallel-shard", zero_step(m_of=lambda m, g: 0.8 * m + 0.2 * g), "m is .* should be"),
    (
        "parallel-shard",
        zero_step(v_of=lambda v, grads, p: 0.999 * v + 0.001 * sum(g[p] ** 2 for g in grads)),
        "square the sum",
    ),
    ("parallel-shard", zero_step(v_of=lambda v, grads, p: 0.99 * v + 0.01 * sum(grads)[p] ** 2), "v is .* should be"),
    ("parallel-shard", zero_step(back=own_part_only), "old parameters elsewhere"),
    ("parallel-shard", zero_step(back=others_zero), "0 outside its own part"),
    ("parallel-shard", zero_step(back=lambda new, params, parts: new), "should be an array of shape"),
    ("parallel-shard", zero_step(move=lambda w, m, v, t, lr: adam_step(w, m, v, t, -lr)), "uphill"),
    (
        "parallel-shard",
        zero_step(move=lambda w, m, v, t, lr: w - lr * m / (np.sqrt(v) + 1e-8)),
        "without the corrections",
    ),
    ("parallel-shard", zero_step(move=lambda w, m, v, t, lr: adam_step(w, m, v, t + 1, lr)), "do not add one"),
    ("parallel-shard", zero_step(move=lambda w, m, v, t, lr: adam_step(0 * w, m, v, t, lr)), "returns the step"),
    ("parallel-shard", zero_step(move=lambda w, m, v, t, lr: w), "from before the step|old parameters"),
    ("parallel-shard", zero_step(move=lambda w, m, v, t, lr: adam_step(w, m, v, t, lr / 2)), "as number .* Adam has"),
]
