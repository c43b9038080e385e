"""Checks of the exercises of lesson 9. Each looks for the likely mistakes first, so that the message names them."""

import math
import weakref
from itertools import islice

import numpy as np
import torch

from dlopt_course.app.exercises.judge import array, close, number, quietly, rule_out
from dlopt_course.core import expect

_LENGTHS = ((3, 9, 1), (2, 2), (7,), (0, 0), (4, 1, 1, 1, 5))  # words of each sentence of each batch


def accumulate(answer) -> None:
    "Exercise 1."
    rng = np.random.default_rng(9)
    batches = [_sentences(lengths, rng) for lengths in _LENGTHS]
    for given in (batches[:3], batches, batches[::-1]):
        kept, model = [(x.copy(), y.copy()) for x, y in given], _Model(given)
        got = quietly(answer, given, model.gradient)
        same = all(np.array_equal(a, b) for pair in zip(given, kept, strict=True) for a, b in zip(*pair, strict=True))
        expect(same, "a batch was changed: it belongs to the caller")
        _judge_gradient(_by_name(got, model), model)
        told = (
            f"right, but gradient_of was called {model.calls} times for {len(given)} batches: once for each is enough"
        )
        expect(model.calls <= len(given), told)
        told = f"right, but {model.most} gradients were held at once: add each to the sum and let go of it"
        expect(model.most <= 2, told)


def _sentences(lengths, rng) -> tuple:
    "Inputs and classes of sentences of these lengths, filled up to the longest (or to one place)."
    places = np.arange(max(1, *lengths) if len(lengths) > 1 else lengths[0])
    y = np.where(places < np.array(lengths)[:, None], rng.integers(0, 4, (len(lengths), len(places))), -100)
    return rng.normal(size=(*y.shape, 3)), y


class _Model:
    "Four logits for each word; its gradients by torch, and how many of them are held at once."

    def __init__(self, batches):
        self.batches, self.calls, self.most, self.made = batches, 0, 0, []

    def gradient(self, x, y) -> dict:
        "What the learner calls."
        known = any(x is a and y is b for a, b in self.batches)
        expect(known, "give gradient_of a batch as it is: all of them together do not fit into memory")
        self.calls += 1
        grads = _torch_gradient([(x, y)])
        held = sum(any(one() is not None for one in dictionary) for dictionary in self.made)
        self.made.append([weakref.ref(g) for g in grads.values()])
        self.most = max(self.most, held)
        return grads


def _torch_gradient(batches) -> dict:
    "Of the mean loss over all words of all batches, by torch."
    params = {"weight": torch.linspace(-1, 1, 12).reshape(3, 4).double(), "bias": torch.linspace(0, 1, 4).double()}
    leaves = {name: p.requires_grad_() for name, p in params.items()}
    x = torch.tensor(np.concatenate([x.reshape(-1, 3) for x, _ in batches]))
    y = torch.tensor(np.concatenate([y.ravel() for _, y in batches]))
    z, words = x @ leaves["weight"] + leaves["bias"], torch.sum(y != -100).double()
    torch.nn.functional.cross_entropy(z, y, ignore_index=-100, reduction="sum").backward()
    return {name: (p.grad / words).numpy().copy() for name, p in leaves.items()}  # NaN where there are none


def _by_name(got, model) -> np.ndarray:
    "All numbers of the gradient that was returned."
    expect(isinstance(got, dict) and set(got) == {"weight", "bias"}, "return a dict with the names of gradient_of")
    flat = [
        array(got[name], shape, f"the gradient {name!r}").ravel()
        for name, shape in (("weight", (3, 4)), ("bias", (4,)))
    ]
    told = "NaN: a batch without words has no mean, and 0 times NaN is NaN too. Leave such a batch out"
    expect(not any(np.isnan(x).any() for x in flat), told)
    return np.concatenate(flat)


def _judge_gradient(got, model) -> None:
    "The likely mistakes of exercise 1."
    full = [(x, y) for x, y in model.batches if np.any(y != -100)]
    right = np.concatenate([g.ravel() for g in _torch_gradient(full).values()])
    expect(np.isfinite(got).all(), "the gradient should be finite")
    if not close(got, right):
        rule_out(got, _wrong_gradients(full, right, len(model.batches)))
    where = int(np.argmax(np.abs(got - right)))
    told = f"number {where} of the gradient is {got[where]:.6g}, that of all words together has {right[where]:.6g}"
    expect(close(got, right), told)


def _wrong_gradients(full, right, batches) -> dict:
    "What comes of the likely mistakes, by the message."
    g = np.array([np.concatenate([a.ravel() for a in _torch_gradient([pair]).values()]) for pair in full])
    words = np.array([np.sum(y != -100) for _, y in full])
    wrong = {m: np.array([count(y) for _, y in full]) for m, count in _WRONG_COUNTS.items()}
    wrong = {m: counts @ g / np.sum(counts) for m, counts in wrong.items()} | {
        "this is still the mean of the means: a batch with one word counts as much as one with 20": g.mean(axis=0),
        "the mean of the means, over all batches": g.sum(axis=0) / batches,
        "the gradients are added and not divided by anything": g.sum(axis=0),
        "divide the sum by the number of words": right * words.sum(),
        "weighted by words, but divided by the number of batches": right * words.sum() / batches,
        "this divides by the words of the last batch": right * words.sum() / words[-1],
        "that is the gradient of the last batch only": g[-1],
        "that is the gradient of the first batch only": g[0],
    }
    return {message: value for message, value in wrong.items() if not close(value, right)}


_WRONG_COUNTS = {
    "this weighs each batch by its sentences; the mean goes over words": len,
    "this counts the filled-up places too: they have no loss": np.size,
    "class 0 is a class like any other; only -100 is no word": lambda y: np.sum(y > 0),
    "count what is not -100; -100 is not 0, and class 0 is a word": np.count_nonzero,
    "this weighs each batch by its longest sentence": lambda y: y.shape[1],
}


def gather(answer) -> None:
    "Exercise 2."
    for workers, size in ((2, 6), (3, 3), (4, 12), (4, 10), (5, 3), (7, 40), (1, 4)):
        parts = np.array_split(np.arange(size), workers)
        told = f"{workers} workers, {size} numbers: "
        plan = _plan(answer(workers, size), workers, told)
        has = np.zeros((workers, size), dtype=bool)  # which numbers of each worker are the sum
        for rank, part in enumerate(parts):
            has[rank, part] = True
        sent, messages = np.zeros(workers, dtype=int), 0
        for k, step in enumerate(plan):
            _judge_round(step, has, f"{told}round {k}: ")
            _send(step, has)
            np.add.at(sent, step[0], step[3] - step[2])
            messages += np.count_nonzero(step[3] > step[2])
        _judge_gathered(has, len(plan), parts, told)
        _judge_traffic(sent, messages, plan, parts, told)


def _plan(rounds, workers, told) -> list:
    "The rounds as (source, target, start, stop, add), if there are not absurdly many, and that is what they are."
    expect(np.iterable(rounds), f"{told}yield a Round for each round, or return a list of them, got {rounds!r:.50}")
    plan = list(islice(rounds, workers**2 + 5))
    expect(len(plan) < workers**2 + 5, f"{told}your rounds do not end: workers - 1 of them are enough")
    return [_fields(step, f"{told}round {k}: ") for k, step in enumerate(plan)]


def _fields(step, told) -> tuple:
    "A Round's four arrays of whole numbers, of one length, and `add`."
    good = isinstance(step, tuple) and len(step) == 5
    expect(good, f"{told}should be a Round(source, target, start, stop, add), got {step!r:.50}")
    columns = [np.atleast_1d(np.asarray(x)) for x in step[:4]]
    good = all(x.ndim == 1 and x.dtype.kind in "iu" and len(x) == len(columns[0]) for x in columns)
    expect(good, f"{told}source, target, start and stop should be arrays of whole numbers, one for each message")
    return *columns, bool(step[4])


def _judge_round(step, has, told) -> None:
    "What may be wrong with the messages of a round, before they are sent."
    source, target, start, stop, add = step
    workers, size = has.shape
    for ranks, what in ((source, "sends"), (target, "gets")):
        wrong = ranks[(ranks < 0) | (ranks >= workers)]
        cyclic = f"count modulo {workers}, after the last comes worker 0"
        expect(not wrong.size, f"{told}there is no worker {wrong[:1]}: {cyclic}")
        many = np.bincount(ranks, minlength=1)
        expect(many.max() < 2, f"{told}worker {many.argmax()} {what} {many.max()} messages; one at a time")
    good = np.all((start >= 0) & (start <= stop) & (stop <= size))
    expect(good, f"{told}numbers from {start.tolist()} to {stop.tolist()} are sent; there are those from 0 to {size}")
    expect(not add or not len(source), f"{told}add should be False: the sums are complete, nothing is added any more")
    for message in zip(source, target, start, stop, strict=True):
        _judge_message(*message, has, told)


def _judge_message(source, target, start, stop, has, told) -> None:
    "What may be wrong with one message."
    expect(source != target, f"{told}worker {source} sends to itself")
    lacks = start < stop and not has[source, start:stop].all()
    order = "; it begins with its own part, and then sends on what it has just got"
    expect(
        not lacks,
        f"{told}worker {source} sends the numbers {start} to {stop - 1}, but does not have all of them yet{order}",
    )


def _send(step, has) -> None:
    "A round, at the same time: what stood there before is what is sent."
    before = has.copy()
    for source, target, start, stop in zip(*step[:4], strict=True):
        has[target, start:stop] = before[source, start:stop]


def _judge_gathered(has, rounds, parts, told) -> None:
    "Whether everybody has everything."
    lacking = [rank for rank, row in enumerate(has) if not row.all()]
    if lacking:
        found = sum(part.size > 0 and has[lacking[0], part].all() for part in parts)
        told += f"after your {rounds} rounds worker {lacking[0]} has {found} of {len(parts)} parts"
        expect(False, f"{told}; it takes P - 1 = {len(parts) - 1} rounds")


def _judge_traffic(sent, messages, plan, parts, told) -> None:
    "Whether a right result has cost too much, or has come another way than by a ring."
    workers, size, told = len(parts), sum(p.size for p in parts), f"{told}everybody has everything, but "
    enough = [size - parts[(rank + 1) % workers].size for rank in range(workers)]  # all but what the next one has
    most, nbytes = int(np.argmax(sent - enough)), 8 * sent
    cost = f"worker {most} sends {nbytes[most]} bytes, and {8 * enough[most]} are enough"
    expect(np.sum(sent) <= np.sum(enough), f"{told}{cost}: everything but the part that the next worker has already")
    expect(messages <= workers * (workers - 1), f"{told}{messages} messages are too many: send each part in one")
    used = sum(bool(np.any(step[3] > step[2])) for step in plan)
    expect(
        used < max(workers, 2), f"{told}in {used} rounds, and {workers - 1} are enough: all can send at the same time"
    )
    for source, target in ((a, b) for step in plan for a, b in zip(*step[:2], strict=True)):
        far = f"worker {source} sends to worker {target}; in this ring each sends to the next one only"
        expect(target == (source + 1) % workers, f"{told}{far}")


_CASES = (  # batch, seconds of a sample, bytes, latency, bandwidth
    (4096, 5e-3, 248e6, 20e-6, 10e9),
    (4000, 0.05, 1e5, 1e-3, 1e9),
    (30000, 2e-3, 4e7, 3e-5, 3e9),
    (256, 1e-3, 2e9, 1e-5, 5e9),
)


def workers(answer) -> None:
    "Exercise 3."
    got = []
    for case in _CASES:
        pair = answer(*case)
        expect(isinstance(pair, (tuple, list, np.ndarray)) and np.size(pair) == 2, "return two numbers of workers")
        got.append([_whole(x, f"the {name} number") for x, name in zip(pair, ("first", "second"), strict=True)])
    got, right = np.array(got), np.array([_tried(*case) for case in _CASES])
    rule_out(got, {"the two numbers are swapped": right[:, ::-1]})
    rule_out(got[:, 0], _wrong_firsts(right[:, 0]))
    for case, (first, _), (needed, _) in zip(_CASES, got, right, strict=True):
        seconds = "with {} workers calculating takes {:.6g} ms, messages {:.6g} ms".format(first, *_both(first, *case))
        expect(first == needed, f"{_told(case)}: {seconds}; from {needed} workers on messages take longer")
    rule_out(got[:, 1], _wrong_bests(right))
    for case, (_, best), (_, needed) in zip(_CASES, got, right, strict=True):
        steps = [f"with {P} workers a step takes {sum(_both(P, *case)):.8g} ms" for P in (best, needed)]
        expect(best == needed, f"{_told(case)}: {', '.join(steps)}")


def _told(case) -> str:
    return "batch {}, {} s a sample, {:g} bytes, latency {} s, bandwidth {:g}".format(*case)


def _both(P, batch, sample_seconds, nbytes, latency, bandwidth) -> tuple:
    "Milliseconds of calculating and of a ring's messages."
    return 1e3 * batch * sample_seconds / P, 2e3 * (P - 1) * (latency + nbytes / bandwidth / P)


def _tried(*case, seconds=_both) -> tuple:
    "Both numbers, by trying; the first is 1 where messages never take longer."
    P = np.arange(1.0, 100_001)
    computing, messages = seconds(P, *case)
    return int(P[np.argmax(messages > computing)]), int(P[np.argmin(computing + messages)])


def _whole(value, what) -> int:
    "A number of workers."
    value = number(value, what)
    expect(value == int(value), f"{what} should be a whole number of workers, got {value:.6g}")
    expect(value >= 1, f"{what} should be at least one worker, got {value:.6g}")
    return int(value)


_WRONG_SECONDS = {  # calculating and messages with a likely mistake, of P, batch, c, bytes, alpha, beta
    "the batch is cut: each worker has a P-th of the work": lambda P, B, c, n, a, b: (
        B * c,
        2 * (P - 1) * (a + n * b / P),
    ),
    "the whole batch has to be calculated, not one sample": lambda P, B, c, n, a, b: (
        c / P,
        2 * (P - 1) * (a + n * b / P),
    ),
    "a ring has two halves: 2 (P - 1) rounds": lambda P, B, c, n, a, b: (B * c / P, (P - 1) * (a + n * b / P)),
    "there are 2 (P - 1) rounds, not 2 P": lambda P, B, c, n, a, b: (B * c / P, 2 * P * (a + n * b / P)),
    "in a round of the ring a worker sends a P-th of the bytes": lambda P, B, c, n, a, b: (
        B * c / P,
        2 * (P - 1) * (a + n * b),
    ),
    "the bytes are missing": lambda P, B, c, n, a, b: (B * c / P, 2 * (P - 1) * a),
    "the latency is missing": lambda P, B, c, n, a, b: (B * c / P, 2 * (P - 1) * n * b / P),
    "the latency is paid in every round": lambda P, B, c, n, a, b: (B * c / P, a + 2 * (P - 1) * n * b / P),
    "beta is one over the bandwidth": lambda P, B, c, n, a, b: (B * c / P, 2 * (P - 1) * (a + n / b / P)),
}


def _wrong_firsts(right) -> dict:
    "The likely mistakes of the first number of exercise 3, in all cases."
    wrong = {
        message: [_tried(*case[:4], 1 / case[4], seconds=seconds)[0] for case in _CASES]
        for message, seconds in _WRONG_SECONDS.items()
    }
    late = "that is the last number with which messages are shorter; the first with which they are longer, please"
    return wrong | {late: right - 1}


def _wrong_bests(right) -> dict:
    "The likely mistakes of the second number of exercise 3, in all cases."
    roots = [math.sqrt(case[0] * case[1] / 2 / case[3]) for case in _CASES]
    where = "that is the first number again: a step may still get shorter there, or may have got longer long before"
    by_root = "the part of the bytes is missing: 2 (P - 1) / P grows with P too"
    wrong = {"that is the most workers, not the fastest": [case[0] for case in _CASES], where: right[:, 0]}
    return wrong | {by_root: np.round(roots), f"{by_root} (and the root is not rounded)": np.floor(roots)}


_MEASURED = (  # small, its |g|^2, big, its |g|^2, fewest steps, most steps
    (4, 100.0, 64, 7.0, 1000, 1700),
    (1, 28.5, 4, 19.125, 50, 1000),
    (16, 3e-3, 1024, 1.1e-3, 20000, 23000),
)


def batch(answer) -> None:
    "Exercise 4."
    for case in _MEASURED:
        small, b_small, big, b_big, fewest, most = case
        norm, trace = np.linalg.solve([[1, 1 / small], [1, 1 / big]], [b_small, b_big])
        got = quietly(answer, *case)
        expect(isinstance(got, (tuple, list, np.ndarray)) and np.size(got) == 3, "return three numbers")
        told = "my_batch({}): ".format(", ".join(f"{x:g}" for x in case))
        names = "the noise scale", "the batch", "the samples"
        got = [number(x, f"{told}{name}") for x, name in zip(got, names, strict=True)]
        _judge_noise(got[0], norm, trace, case, told)
        right = math.ceil(trace / norm / (most / fewest - 1))
        _judge_batch(got[1], right, trace / norm, case, told)
        _judge_samples(got[2], right, trace / norm, case, told)


def _judge_noise(got, norm, trace, case, told) -> None:
    "The likely mistakes of the first number of exercise 4."
    (small, b_small, _, b_big, _, _), right = case, trace / norm
    mistakes = {
        "upside down: the trace over the squared gradient": norm / trace,
        "that is the trace; divide it by the squared gradient": trace,
        "that is the squared gradient": norm,
        "the big batch's gradient is not the exact one: it has a part of the noise too": trace / b_big,
        "of small batches |g|^2 is mostly noise: take out the noise to get the gradient": trace / b_small,
        "the noise of a batch is the trace over its size: multiply": (b_small - b_big) / norm,
        "the big batches have noise too: their |g|^2 is not the squared gradient": (b_small - b_big) * small / b_big,
        "that is just the ratio of what was measured": b_small / b_big,
        "the sign: the noise scale cannot be negative": -right,
        "no root: the noise scale is a ratio of squares": math.sqrt(right),
    }
    rule_out(got, {f"{told}the noise scale: {m}": v for m, v in mistakes.items() if not close(v, right)})
    expect(close(got, right), f"{told}the noise scale is {got:.6g}, should be {right:.6g}")


def _judge_batch(got, right, noise, case, told) -> None:
    "The likely mistakes of the second number of exercise 4."
    ratio = case[5] / case[4]
    exact = noise / (ratio - 1)
    mistakes = {
        "round up: with one sample fewer the target is reached too late": math.floor(exact),
        "a whole number of samples, rounded up": exact,
        "the wrong way round: more time allows a smaller batch": math.ceil(noise * (ratio - 1)),
        "S / S_min is 1 + noise / B: the 1 is missing": math.ceil(noise / ratio),
        "the wrong way round, and the 1 is missing": math.ceil(noise * ratio),
        "that is the noise scale itself, which needs twice the fewest steps, whatever the deadline": round(noise),
        "one more than needed": right + 1,
    }
    rule_out(got, {f"{told}the batch: {m}": v for m, v in mistakes.items() if v != right})
    steps = f"{case[4] * (1 + noise / got):.6g} steps" if got > 0 else "no end of steps"
    expect(got == right, f"{told}a batch of {got:g} needs {steps}; the smallest within {case[5]} steps is {right}")


def _judge_samples(got, size, noise, case, told) -> None:
    "The likely mistakes of the third number of exercise 4."
    right = case[4] * (1 + noise / size) * size
    mistakes = {
        "with a batch that was rounded up the steps are fewer than most_steps": case[5] * size,
        "that is S_min times the noise scale, the fewest samples that any batch needs": case[4] * noise,
        "S_min steps are not enough with a finite batch": case[4] * size,
        "that is S, the steps; times the batch": case[4] * (1 + noise / size),
    }
    rule_out(got, {f"{told}the samples: {m}": v for m, v in mistakes.items() if not close(v, right)})
    expect(close(got, right), f"{told}the samples are {got:.8g}, should be {right:.8g}")


def shard(answer) -> None:
    "Exercise 5."
    for workers, size in ((3, 12), (4, 10), (1, 5), (5, 3)):
        rng, told = np.random.default_rng(workers), f"{workers} workers, {size} numbers"
        theirs = torch.tensor(rng.normal(size=size), requires_grad=True)
        engine = torch.optim.Adam([theirs], lr=0.05)
        params = [theirs.detach().numpy().copy() for _ in range(workers)]
        states, parts = [{} for _ in range(workers)], np.array_split(np.arange(size), workers)
        for t in range(1, 6):
            grads = [rng.normal(size=size) for _ in range(workers)]
            right = _adam_by_torch(engine, theirs, sum(grads))
            new, kept = _sharded_step(answer, params, grads, states, t)
            _judge_states(kept, states, grads, right[1:], parts, f"{told}, step {t}: ")
            _judge_params(new, params[0], right, parts, t, f"{told}, step {t}: ")
            params, states = new, kept


def _adam_by_torch(engine, theirs, grad) -> tuple:
    "The parameters after a step, m and v."
    theirs.grad = torch.tensor(grad)
    engine.step()
    state = engine.state[theirs]
    return tuple(x.detach().numpy().copy() for x in (theirs, state["exp_avg"], state["exp_avg_sq"]))


def _sharded_step(answer, params, grads, states, t) -> tuple:
    "What the answer makes of one step; what it was given must stay."
    given = [*params, *grads, *(state[key] for state in states for key in ("m", "v") if state)]
    before = [np.copy(x) for x in given]
    got = quietly(answer, list(params), list(grads), [dict(state) for state in states], t, 0.05)
    expect(all(map(np.array_equal, given, before)), "an array that was given was changed in place")
    good = isinstance(got, (tuple, list)) and len(got) == 2 and all(isinstance(x, (tuple, list)) for x in got)
    told = "return two lists, params and states, each with one entry for each worker"
    expect(good and all(len(x) == len(params) for x in got), told)
    good = all(isinstance(s, dict) and {"m", "v"} <= set(s) for s in got[1])
    expect(good, 'each state should be a dict with "m" and "v"')
    new = [array(p, params[0].shape, f"the parameters of worker {r}") for r, p in enumerate(got[0])]
    return new, list(got[1])


def _held(state) -> int:
    "Bytes of the arrays of a state; a view keeps the whole array that it shows a part of."
    owners = {}
    for x in state.values():
        while isinstance(getattr(x, "base", None), np.ndarray):
            x = x.base
        owners[id(x)] = x.nbytes if isinstance(x, np.ndarray) else 0
    return sum(owners.values())


def _judge_states(kept, old, grads, right, parts, told) -> None:
    "What may be wrong with what the workers keep of Adam."
    for rank, (state, part) in enumerate(zip(kept, parts, strict=True)):
        m, v = (np.asarray(state[key]) for key in ("m", "v"))
        where = f"{told}worker {rank} "
        whole = f"holds m of shape {m.shape}; its part has {part.size} numbers, and only these should be kept"
        expect(m.shape == v.shape == part.shape, f"{where}{whole}")
        held, need = _held(state), 16 * part.size
        told_bytes = f"holds {held} bytes of state, and {need} are enough"
        expect(
            held <= need, f"{where}{told_bytes}: m and v of its part (a slice keeps the whole array, a copy does not)"
        )
        if part.size:
            _judge_means(
                m, v, old[rank], [g[part] for g in grads], [x[part] for x in right], rank, f"{told}worker {rank}: "
            )


def _judge_means(m, v, old, shares, right, rank, told) -> None:
    "The likely mistakes in m and v of one part; the shares are those of its gradient."
    m_old, v_old = (np.asarray(old.get(key, 0.0)) for key in ("m", "v"))
    mean = sum(shares) / len(shares)
    mistakes = {
        "m is that of its own share only: the gradient is the sum of all shares": 0.9 * m_old + 0.1 * shares[rank],
        "m is that of the mean of the shares: the gradient is their sum": 0.9 * m_old + 0.1 * mean,
        "m has the weights swapped: 0.9 of the old one, 0.1 of the gradient": 0.1 * m_old + 0.9 * sum(shares),
        "m should be 0.9 m + 0.1 g: the 0.1 is missing": 0.9 * m_old + sum(shares),
        "m forgets the old one: take it from the state": 0.1 * sum(shares),
    }
    rule_out(m, {f"{told}{text}": value for text, value in mistakes.items() if not close(value, right[0])})
    expect(close(m, right[0]), f"{told}m is {m.round(6).tolist()}, should be {right[0].round(6).tolist()}")
    apart = f"{told}v adds up squares of the shares; square the sum"
    squares = 0.999 * v_old + 0.001 * sum(g**2 for g in shares)
    rule_out(v, {} if close(squares, right[1]) else {apart: squares})
    expect(close(v, right[1]), f"{told}v is {v.round(8).tolist()}, should be {right[1].round(8).tolist()}")


def _judge_params(new, before, right, parts, t, told) -> None:
    "The likely mistakes in the parameters."
    after, m, v = right
    for rank, (got, part) in enumerate(zip(new, parts, strict=True)):
        where, others = f"{told}worker {rank} ", np.setdiff1d(np.arange(len(after)), part)
        stale = others.size and part.size and np.array_equal(got[others], before[others])
        expect(not stale, f"{where}has its own new part, and the old parameters elsewhere: all-gather the new parts")
        only = others.size and not np.any(got[others])
        expect(not only, f"{where}has 0 outside its own part: all-gather the new parts")
        _judge_whole(got, before, after, m, v, t, where)


def _judge_whole(got, before, after, m, v, t, told) -> None:
    "The likely mistakes in one worker's parameters; m and v are right."
    corrected = 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    later = 0.05 * (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
    mistakes = {
        "moves uphill: subtract the step": before + corrected,
        "moves without the corrections 1 - beta^t": before - 0.05 * m / (np.sqrt(v) + 1e-8),
        "counts t from 1 already: do not add one": before - later,
        "returns the step, not the parameters": -corrected,
        "has the parameters from before the step": before,
    }
    rule_out(got, {f"{told}{text}": value for text, value in mistakes.items() if not close(value, after)})
    where = int(np.argmax(np.abs(got - after)))
    expect(close(got, after), f"{told}has {got[where]:.8g} as number {where}, Adam has {after[where]:.8g}")


CHECKS = {"accumulate": accumulate, "gather": gather, "workers": workers, "batch": batch, "shard": shard}
