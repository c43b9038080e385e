"""Means with unequal counts, all-reduce by four algorithms, its counted traffic, sharded optimizers; bad input."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from backends import BACKENDS, each_backend

from dlopt_course import optim, parallel
from dlopt_course.core import assert_close, to_numpy

SUMS = ("naive", "tree", "ring", "halving_doubling")
HALVES = ("ring_reduce_scatter", "ring_all_gather")
WORKERS = [*range(1, 18), 33]
SIZES = [1, 2, 7, 16, 37]
each_number = pytest.mark.parametrize("workers", WORKERS)
each_sum = pytest.mark.parametrize("algorithm", SUMS)


def drawn(workers, *shape, seed=90):
    "An array for each rank."
    return list(np.random.default_rng([seed, workers]).normal(size=(workers, *shape)))


# ---------------------------------------------------------------- parts and means


def cuts_as_numpy(module, n, parts):
    "Against numpy.array_split."
    cuts = module.partition(n, parts)
    assert [type(cut.stop) for cut in cuts] == [int] * parts  # for JSON and for torch
    for cut, reference in zip(cuts, np.array_split(np.arange(n), parts), strict=True):
        assert np.array_equal(np.arange(n)[cut], reference)
        assert cut.stop - cut.start == len(reference)


@each_number
def test_parts_equal_numpys(workers):
    for n in [0, *SIZES, workers, workers + 1, 5 * workers - 1]:
        cuts_as_numpy(parallel, n, workers)


def by_torch(weight, bias, x, y):
    "Gradients of the mean cross-entropy of some samples by torch; those of no samples are NaN."
    leaves = [torch.tensor(v, requires_grad=True) for v in (weight, bias)]
    torch.nn.functional.cross_entropy(torch.tensor(x) @ leaves[0] + leaves[1], torch.tensor(y)).backward()
    return {"weight": leaves[0].grad, "bias": leaves[1].grad}


def equals_the_full_batch(module, counts, make=np.asarray, single=False):
    "The mean of the parts' gradients against torch's on all samples at once."
    rng, n = np.random.default_rng(91), sum(counts)
    x, y, weight, bias = rng.normal(size=(n, 4)), rng.integers(0, 3, n), rng.normal(size=(4, 3)), rng.normal(size=3)
    ends = np.cumsum([0, *counts])
    parts = [by_torch(weight, bias, x[a:b], y[a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    parts = [{name: make(g.numpy()) for name, g in part.items()} for part in parts]
    full = by_torch(weight, bias, x, y)
    if single:
        mean = {"weight": module.mean_gradient([part["weight"] for part in parts], np.array(counts))}
    else:
        mean = module.mean_gradient(parts, counts)
        assert list(mean) == ["weight", "bias"]
    for name, g in mean.items():
        assert type(g) is type(parts[0][name])
        assert_close(g, full[name], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("counts", [(5,), (4, 4), (1, 9), (3, 0, 7), (0, 0, 1), (100, 1, 1, 17)], ids=str)
@pytest.mark.parametrize("single", [False, True], ids=["dict", "array"])
@each_backend
def test_the_weighted_mean_is_the_gradient_of_the_full_batch(counts, single, backend):
    equals_the_full_batch(parallel, counts, BACKENDS[backend], single)


def test_the_mean_of_single_numbers_is_an_array():
    mean = parallel.mean_gradient([np.array(1.0, np.float32), np.array(4.0, np.float32)], [2, 1])
    assert (type(mean), mean.shape, mean.dtype, float(mean)) == (np.ndarray, (), np.float32, 2.0)


def test_the_mean_of_the_means_is_not():
    g = [np.array([1.0]), np.array([5.0])]
    assert parallel.mean_gradient(g, [1, 3]) == [4.0] != np.mean(g)


def test_the_mean_keeps_the_dtype_of_each_and_changes_nothing():
    parts = [{"a": np.float32([[1, 2]]), "b": np.float64(3.0) * np.ones(())} for _ in range(2)]
    for part in parts:
        part["a"].flags.writeable = False
    mean = parallel.mean_gradient(parts, [3, 5])
    assert (mean["a"].dtype, mean["b"].dtype) == (np.float32, np.float64)
    assert not np.shares_memory(mean["a"], parts[0]["a"])
    assert not np.shares_memory(parallel.mean_gradient([parts[0]["a"]], [1]), parts[0]["a"])


# ---------------------------------------------------------------- plans


def is_a_plan(module, algorithm, workers, size):
    "What every reader of a plan relies on: one port each way, no empty message, nothing sent and got in one round."
    for step in module.rounds(algorithm, workers, size):
        assert isinstance(step, module.Round)
        assert type(step.add) is bool
        source, target, start, stop = step[:4]
        assert source.shape == target.shape == start.shape == stop.shape == (len(source),)
        assert len(source) > 0
        assert all(x.dtype.kind == "i" for x in step[:4])
        assert len(set(source.tolist())) == len(source) == len(set(target.tolist()))
        assert np.all((source >= 0) & (source < workers) & (target >= 0) & (target < workers) & (source != target))
        assert np.all((start >= 0) & (start < stop) & (stop <= size))
        got = {t: (a, b) for t, a, b in zip(target, start, stop, strict=True)}
        for s, a, b in zip(source, start, stop, strict=True):
            c, d = got.get(s, (0, 0))
            assert b <= c or d <= a


@each_number
@pytest.mark.parametrize("algorithm", SUMS + HALVES)
def test_plans_keep_the_rules(workers, algorithm):
    for size in SIZES:
        is_a_plan(parallel, algorithm, workers, size)


def adds_and_replaces(module, algorithm, workers, size):
    "Each number is added workers - 1 times and replaced as often: no sum can do with less."
    moved = {True: 0, False: 0}
    for step in module.rounds(algorithm, workers, size):
        moved[step.add] += int(np.sum(step.stop - step.start))
    assert moved == {True: (workers - 1) * size, False: (workers - 1) * size}


@each_number
@each_sum
def test_no_number_travels_in_vain(workers, algorithm):
    for size in SIZES:
        adds_and_replaces(parallel, algorithm, workers, size)


def test_the_ring_by_hand():
    steps = [(s.start.tolist(), s.stop.tolist(), s.add) for s in parallel.rounds("ring", 3, 7)]  # parts 0:3, 3:5, 5:7
    assert steps == [
        ([5, 0, 3], [7, 3, 5], True),  # part r - 1
        ([3, 5, 0], [5, 7, 3], True),  # part r - 2
        ([0, 3, 5], [3, 5, 7], False),  # part r
        ([5, 0, 3], [7, 3, 5], False),  # part r - 1
    ]
    assert all(np.array_equal(s.target, [1, 2, 0]) for s in parallel.rounds("ring", 3, 7))


def test_a_plan_of_ones_own():
    def star(workers, size):
        nothing = np.array([], int)
        yield parallel.Round(nothing, nothing, nothing, nothing, True)
        yield from parallel.rounds("naive", workers, size)

    results, traffic = parallel.all_reduce(drawn(4, 5), star)
    assert_close(results[3], sum(drawn(4, 5)), rtol=1e-12)
    assert traffic.rounds == 6


# ---------------------------------------------------------------- sums


def sums(module, algorithm, workers, shape, make=np.asarray, dtype="float64"):
    "Every rank has NumPy's sum, the same bits, in an array of its own; the inputs are as they were."
    arrays = [x.astype(dtype) for x in drawn(workers, *shape)]
    given = [make(x.copy()) for x in arrays]
    results, traffic = module.all_reduce(given, algorithm)
    assert type(traffic) is module.Traffic
    assert len(results) == workers
    tolerance = {"rtol": 0, "atol": 1e-13 if dtype == "float64" else 1e-5}
    for x, before, after in zip(arrays, given, results, strict=True):
        assert np.array_equal(to_numpy(before), x)
        assert type(after) is type(before)
        assert_close(after, np.sum(arrays, axis=0, dtype=dtype), **tolerance)
        assert to_numpy(after).tobytes() == to_numpy(results[0]).tobytes()
    if make is np.asarray:
        assert not any(np.shares_memory(a, b) for a in results for b in given)
    return traffic


@each_number
@each_sum
def test_all_reduce_is_the_sum(workers, algorithm):
    for size in SIZES:
        sums(parallel, algorithm, workers, (size,))


@each_sum
@each_backend
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_all_reduce_of_any_shape_and_library(algorithm, backend, dtype):
    for shape in ((), (1,), (3, 5), (2, 3, 1, 2)):
        traffic = sums(parallel, algorithm, 5, shape, BACKENDS[backend], dtype)
        assert traffic.sent.sum() == 2 * 4 * np.prod(shape, dtype=int) * np.dtype(dtype).itemsize


def test_read_only_and_strided_arrays():
    arrays = [np.broadcast_to(x, (3, 4)) for x in drawn(3, 4)]
    assert_close(parallel.all_reduce(arrays)[0][1], sum(arrays), rtol=1e-12)
    parts, _ = parallel.reduce_scatter([x.T for x in arrays])
    assert_close(np.concatenate(parts), sum(arrays).T.ravel(), rtol=1e-12)


def test_infinities_pass():
    assert np.isinf(parallel.all_reduce([np.array([np.inf]), np.array([1.0])])[0][1])
    assert np.isnan(parallel.all_reduce([np.array([np.nan]), np.array([1.0])], "tree")[0][0])


def halves(module, workers, size, make=np.asarray):
    "Both halves of the ring, against NumPy; their traffic is half of it each."
    arrays = drawn(workers, size)
    given = [make(x.copy()) for x in arrays]
    parts, scattered = module.reduce_scatter(given)
    expected = np.array_split(np.sum(arrays, axis=0), workers)
    for part, reference in zip(parts, expected, strict=True):
        assert type(part) is type(given[0])
        assert part.shape == reference.shape
        np.testing.assert_allclose(to_numpy(part), reference, rtol=0, atol=1e-13)
    wholes, gathered = module.all_gather(parts)
    for whole in wholes:
        assert type(whole) is type(given[0])
        assert np.array_equal(to_numpy(whole), np.concatenate([to_numpy(part) for part in parts]))
    assert all(np.array_equal(to_numpy(a), b) for a, b in zip(given, arrays, strict=True))
    if make is np.asarray:
        assert all(held(part, {}) == part.nbytes for part in parts)  # no view that keeps the whole alive
    lengths = 8 * np.array([len(part) for part in expected])
    assert np.array_equal(scattered.sent, 8 * size - lengths)
    assert np.array_equal(gathered.sent, 8 * size - np.roll(lengths, -1))


@each_number
def test_the_halves_of_the_ring(workers):
    for size in SIZES:
        halves(parallel, workers, size)


@each_backend
def test_the_halves_in_any_library(backend):
    halves(parallel, 4, 6, BACKENDS[backend])
    halves(parallel, 4, 3, BACKENDS[backend])


# ---------------------------------------------------------------- traffic


def ring_traffic(module, workers, size, itemsize):
    "Closed form, exact for unequal parts: all but two parts are sent by each."
    part = np.array([len(x) for x in np.array_split(np.arange(size), workers)])
    found = module.count_traffic(module.rounds("ring", workers, size), workers, itemsize)
    after, before = np.roll(part, -1), np.roll(part, 1)
    assert np.array_equal(found.sent, itemsize * (2 * size - part - after))
    assert np.array_equal(found.received, itemsize * (2 * size - part - before))
    full = int(np.sum(part > 0))
    steps = 2 * (workers - 1)
    assert (found.messages, found.rounds) == (steps * full, steps)
    assert found.sent.sum() == found.received.sum() == 2 * (workers - 1) * size * itemsize
    if size % workers == 0:
        assert np.all(found.sent * workers == 2 * (workers - 1) * size * itemsize)


def other_traffic(module, workers, size, itemsize):
    "Closed forms of the others."
    levels, down, n = (workers - 1).bit_length(), workers.bit_length() - 1, size * itemsize
    count = {a: module.count_traffic(module.rounds(a, workers, size), workers, itemsize) for a in SUMS}
    naive = np.full(workers, n * (workers > 1))
    naive[0] = (workers - 1) * n
    assert np.array_equal(count["naive"].sent, naive)
    assert np.array_equal(count["naive"].received, naive)
    assert count["naive"][2:] == (2 * (workers - 1), 2 * (workers - 1))
    assert (count["tree"].sent[0], count["tree"].received[0]) == (levels * n, levels * n)
    assert count["tree"][2:] == (2 * (workers - 1), 2 * levels)
    extra = workers - 2**down
    halving = count["halving_doubling"]
    assert halving.rounds == 2 * down + 2 * (extra > 0)
    if size >= 2**down:
        assert halving.messages == 2 * down * 2**down + 2 * extra
    if size % 2**down == 0:
        assert np.all(halving.sent[extra : 2**down] * 2**down == 2 * (2**down - 1) * n)
        assert np.all(halving.sent[2**down :] == n)
    for found in count.values():
        assert found.sent.dtype == np.int64
        assert found.sent.shape == found.received.shape == (workers,)
        assert workers * found.sent.max() >= 2 * (workers - 1) * n  # the bound that no algorithm can beat


@each_number
def test_traffic_equals_its_closed_form(workers):
    for size in [*SIZES, 2 * workers, 32]:
        ring_traffic(parallel, workers, size, 8)
        other_traffic(parallel, workers, size, 4)


def test_counting_a_thousand_workers():
    ring_traffic(parallel, 1024, 5000, 4)
    other_traffic(parallel, 1000, 4096, 4)


def test_counted_is_what_a_run_sends():
    for algorithm in SUMS:
        _, found = parallel.all_reduce(drawn(6, 10), algorithm)
        counted = parallel.count_traffic(parallel.rounds(algorithm, 6, 10), 6, 8)
        assert all(np.array_equal(a, b) for a, b in zip(found, counted, strict=True))
    assert parallel.all_reduce(drawn(6, 10))[1][2:] == (60, 10)  # the ring, if nothing else is said


# ---------------------------------------------------------------- sharding


class Ranks:
    "Ranks on threads that meet in each collective; who waits in vain is told so."

    def __init__(self, size):
        self.size, self.slots, self.meeting = size, [None] * size, threading.Barrier(size, timeout=20)

    def all_of(self, rank, x):
        "What every rank brought."
        self.slots[rank] = x.copy()
        self.meeting.wait()
        brought = list(self.slots)
        self.meeting.wait()
        return brought

    def run(self, work):
        "work(comm) on each rank; the first error that a rank had itself is raised."
        with ThreadPoolExecutor(self.size) as pool:
            done = list(pool.map(partial(self._one, work), range(self.size)))
        errors = [x for x in done if isinstance(x, Exception)]
        if errors:
            raise min(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError))
        return done

    def _one(self, work, rank):
        try:
            return work(Comm(self, rank))
        except Exception as e:
            self.meeting.abort()
            return e


class Comm:
    "The part of a Communicator that sharding needs, on NumPy's sum."

    def __init__(self, ranks, rank):
        self.ranks, self.rank, self.size, self.sent = ranks, rank, ranks.size, 0.0

    def reduce_scatter(self, x):
        self.sent += x.nbytes * (self.size - 1) / self.size
        return np.array_split(np.sum(self.ranks.all_of(self.rank, x), axis=0), self.size)[self.rank].copy()

    def all_gather(self, part):
        whole = np.concatenate(self.ranks.all_of(self.rank, part))
        self.sent += whole.nbytes * (self.size - 1) / self.size
        return whole


SHAPES = {"0.weight": (2, 3), "0.bias": (3,), "scale": (), "2.weight": (1, 4)}  # 14 numbers
RULES = {  # name, our rule, torch's
    "sgd": (partial(optim.sgd, lr=0.1), partial(torch.optim.SGD, lr=0.1)),
    "nesterov": (
        partial(optim.sgd, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    ),
    "adam": (partial(optim.adam, lr=0.05), partial(torch.optim.Adam, lr=0.05)),
    "adamw": (partial(optim.adamw, lr=0.05, weight_decay=0.1), partial(torch.optim.AdamW, lr=0.05, weight_decay=0.1)),
    "rmsprop": (partial(optim.rmsprop, centered=True), partial(torch.optim.RMSprop, centered=True)),
}


def start():
    rng = np.random.default_rng(92)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def gradients(rank, step):
    "What one rank adds to the gradient."
    rng = np.random.default_rng([93, rank, step])
    return {name: np.asarray(rng.normal(size=shape)) for name, shape in SHAPES.items()}


def by_torch_unsharded(make, workers, steps):
    "torch's optimizer on whole parameters and summed gradients."
    leaves = {name: torch.tensor(p, requires_grad=True) for name, p in start().items()}
    optimizer = make(list(leaves.values()))
    for step in range(steps):
        shares = [gradients(rank, step) for rank in range(workers)]
        for name, p in leaves.items():
            p.grad = torch.tensor(np.sum([share[name] for share in shares], axis=0))
        optimizer.step()
    return {name: to_numpy(p) for name, p in leaves.items()}


def in_an_order(arrays, i):
    "The same arrays, sometimes from the last to the first, as a backward pass makes them."
    return arrays if i % 2 else dict(reversed(arrays.items()))


def sharded(module, rule, stage, steps, comm):
    "The parameters of a rank after so many steps, and its memory."
    given = in_an_order(start(), comm.rank)
    optimizer = module.ShardedOptimizer(comm, given, rule, stage=stage)
    for step in range(steps):
        optimizer.step(in_an_order(gradients(comm.rank, step), step))
    memory = optimizer.memory
    params = {name: p.copy() for name, p in optimizer.gather().items()}
    assert list(params) == list(optimizer.params) == list(given)
    assert all(np.array_equal(given[name], p) for name, p in start().items())  # what was passed has not moved
    return params, memory


def equals_unsharded(module, name, workers, stage, steps=25):
    "Every rank ends with torch's parameters, bit for bit the same as the others."
    ours, theirs = RULES[name]
    results = Ranks(workers).run(partial(sharded, module, ours(), stage, steps))
    expected = by_torch_unsharded(theirs, workers, steps)
    for params, _ in results:
        for key, p in params.items():
            assert_close(p, expected[key], rtol=1e-12, atol=1e-12)
            assert p.tobytes() == results[0][0][key].tobytes()


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 14, 17])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_sharded_equals_torch_unsharded(workers, stage):
    for name in RULES:
        equals_unsharded(parallel, name, workers, stage)


def test_sharded_equals_our_optimizer_with_compiled_and_large_parts():
    shape, steps = (520, 1100), 3  # two parts, each above the size from which Adam is compiled
    grads = [np.random.default_rng([94, i]).normal(size=shape) for i in range(2)]
    whole = {"w": np.ones(shape)}
    single = optim.Optimizer(whole, optim.adamw())

    def train(comm):
        optimizer = parallel.ShardedOptimizer(comm, {"w": np.ones(shape)}, optim.adamw(), stage=2)
        for _ in range(steps):
            optimizer.step({"w": grads[comm.rank]})
        return optimizer.params

    results = Ranks(2).run(train)
    for _ in range(steps):
        single.step({"w": grads[0] + grads[1]})
    assert_close(results[0]["w"], whole["w"], rtol=1e-12)
    assert np.array_equal(results[0]["w"], results[1]["w"])


def held(x, seen):
    "Bytes of all arrays that an object keeps alive, each memory counted once; views of one number are not."
    if isinstance(x, Comm) or id(x) in seen:
        return 0
    seen[id(x)] = x
    if isinstance(x, np.ndarray):
        return held(x.base, seen) if x.base is not None else x.nbytes * (x.ndim > 0)
    if isinstance(x, (dict, list, tuple)):
        return sum(held(one, seen) for one in (x.values() if isinstance(x, dict) else x))
    return held(vars(x), seen) if hasattr(x, "__dict__") and not callable(x) else 0


def keeps_its_ledger(module, workers, stage):
    "The bytes of the ledger are those that are kept alive, and the ones of the closed form."

    def work(comm):
        optimizer = module.ShardedOptimizer(comm, start(), optim.adam(), stage=stage)
        found = [optimizer.memory]
        assert sum(found[0].values()) == held(optimizer, {})
        for step in range(2):
            optimizer.gather()
            found.append(optimizer.memory)
            assert sum(found[-1].values()) == held(optimizer, {})
            assert {n: p.shape for n, p in optimizer.params.items()} == SHAPES
            optimizer.step(gradients(comm.rank, step))
            assert (optimizer.params == {}) == (stage == 3)
        found.append(optimizer.memory)
        assert sum(found[-1].values()) == held(optimizer, {})
        optimizer.gather()
        optimizer.free()
        assert optimizer.memory == found[-1]
        return found

    part = [len(x) for x in np.array_split(np.arange(14), workers)]
    found = Ranks(workers).run(work)
    for rank, (begun, first, second, after) in enumerate(found):
        params = 8 * part[rank] if stage == 3 else 8 * 14
        grads = 8 * part[rank] if stage >= 2 else 8 * 14
        state = 16 * part[rank]
        assert begun == {"parameters": params, "gradients": 0, "state": state}
        gathered = params + 8 * 14 * (stage == 3)
        assert first == {"parameters": gathered, "gradients": 0, "state": state}
        assert second == {"parameters": gathered, "gradients": grads, "state": state}
        assert after == {"parameters": params, "gradients": grads, "state": state}
    largest = module.zero_memory(14, workers, stage, parameter_bytes=8, gradient_bytes=8, state_bytes=16)
    assert found[0][-1] == largest


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_ledger_is_what_is_held(workers, stage):
    keeps_its_ledger(parallel, workers, stage)


def sends_what_is_said(module, workers, stage):
    "Bytes sent in a step of which stage 3 gathers twice, once before each pass."

    def work(comm):
        optimizer = module.ShardedOptimizer(comm, start(), optim.adam(), stage=stage)
        before = comm.sent
        optimizer.gather()  # forward
        optimizer.free()
        optimizer.gather()  # backward
        optimizer.gather()  # is there already
        optimizer.step(gradients(comm.rank, 0))
        return comm.sent - before

    expected = module.zero_traffic(14, workers, stage, parameter_bytes=8, gradient_bytes=8)
    assert Ranks(workers).run(work) == pytest.approx([expected] * workers, rel=1e-12)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_step_sends_what_is_said(workers, stage):
    sends_what_is_said(parallel, workers, stage)


@pytest.mark.parametrize("workers", [1, 3, 16])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_sharded_by_real_messages(workers, stage):
    "By the Communicator instead of NumPy's sum, some parts empty: the same parameters, and the bytes that are said."
    rule, theirs = RULES["adamw"][0](), by_torch_unsharded(RULES["adamw"][1], workers, 5)

    def work(comm):
        return sharded(parallel, rule, stage, 5, comm)[0], comm.traffic.sent

    results = parallel.run_workers(work, workers, processes=False)
    for params, _ in results:
        for key, p in params.items():
            assert_close(p, theirs[key], rtol=1e-12, atol=1e-12)
    gathers = 1 if stage == 3 else 5  # in stage 3 only at the end
    assert sum(sent for _, sent in results) == (5 + gathers) * (workers - 1) * 14 * 8


def equals_the_paper(module):
    "7.5 billion parameters on 64 workers: 120, 31.4, 16.6 and 1.9 GB (Rajbhandari et al. 2020, figure 1)."
    for stage, published in enumerate((120, 31.4, 16.6, 1.9)):
        found = module.zero_memory(7_500_000_000, 64, stage)
        assert list(found) == ["parameters", "gradients", "state"]
        assert round(sum(found.values()) / 1e9, 1) == published
    by_hand = {"parameters": 10, "gradients": 3 * 4, "state": 4 * 5}  # the larger part of 10 has 4 numbers
    assert module.zero_memory(10, 3, 2, parameter_bytes=1, gradient_bytes=3, state_bytes=5) == by_hand
    n = 2 * 7_500_000_000 * 63 / 64
    assert [module.zero_traffic(7_500_000_000, 64, stage) for stage in range(4)] == [2 * n, 2 * n, 2 * n, 3 * n]
    mixed = [module.zero_traffic(8, 4, stage, parameter_bytes=1, gradient_bytes=10) for stage in range(4)]
    assert mixed == [120, 66, 66, 72]
    assert module.zero_traffic(5, 1, 3) == 0
    nothing = {"parameter_bytes": 0, "gradient_bytes": 0}
    assert sum(module.zero_memory(5, 2, 1, state_bytes=0, **nothing).values()) == 0
    assert module.zero_traffic(5, 2, 1, **nothing) == 0


def test_memory_and_traffic_equal_the_paper():
    equals_the_paper(parallel)


def test_joined_parameters_of_stage_1_keep_their_arrays():
    "A model may keep what `params` gave it: the same memory moves."

    def work(comm):
        optimizer = parallel.ShardedOptimizer(comm, start(), optim.sgd(lr=0.1))
        params = optimizer.params
        optimizer.step(gradients(comm.rank, 0))
        return all(np.array_equal(p, optimizer.params[name]) for name, p in params.items())

    assert Ranks(2).run(work) == [True, True]


def test_float32_and_arrays_in_any_layout():
    def work(comm):
        params = {"w": np.asfortranarray(np.ones((3, 2), np.float32))}
        params["w"].flags.writeable = False
        optimizer = parallel.ShardedOptimizer(comm, params, optim.sgd(lr=1.0), stage=3)
        optimizer.step({"w": np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]})
        return optimizer.gather()["w"]

    for w in Ranks(2).run(work):
        assert_close(w, np.float32([[1, -3], [-7, -11], [-15, -19]]), rtol=0)


# ---------------------------------------------------------------- bad input

X = np.ones((2, 3))
D = {"w": X}
BAD = [  # function, arguments, error, what it says
    ("partition", (-1, 2), ValueError, "n must be a whole number from 0"),
    ("partition", (3, 0), ValueError, "parts must be a whole number from 1"),
    ("partition", (3, 1.5), ValueError, "parts must be"),
    ("partition", ("3", 1), TypeError, "n must be a number, got str"),
    ("mean_gradient", ([], []), TypeError, "gradients must be a list"),
    ("mean_gradient", (X, [1]), TypeError, "gradients must be a list"),
    ("mean_gradient", ([X], 3), TypeError, "counts must be a list"),
    ("mean_gradient", ([X], [-1]), ValueError, r"counts\[0\] must be a whole number from 0"),
    ("mean_gradient", ([X, X], [1]), ValueError, r"counts must be one for each gradient, 2, .* got \[1\]"),
    ("mean_gradient", ([X], [1, 2]), ValueError, "counts must be one for each gradient, 1"),
    ("mean_gradient", ([X, X], [0, 0]), ValueError, "not all 0"),
    ("mean_gradient", ([X, X[:1]], [1, 1]), ValueError, r"gradients\[1\] must have the shape of gradients\[0\]"),
    ("mean_gradient", ([X, D], [1, 1]), TypeError, r"gradients\[1\] must be an array"),
    ("mean_gradient", ([D, X], [1, 1]), TypeError, r"gradients\[1\] must be a dict"),
    ("mean_gradient", ([{}], [1]), TypeError, r"gradients\[0\] must be a dict .* at least one"),
    ("mean_gradient", ([D, {"v": X}], [1, 1]), ValueError, r"gradients\[1\] must have the names"),
    ("mean_gradient", ([D, {"w": X[:1]}], [1, 1]), ValueError, r"gradients\[1\]\['w'\] must have the shape"),
    ("mean_gradient", ([{"w": X.astype(int)}], [1]), TypeError, r"gradients\[0\]\['w'\] must be floating point"),
    ("mean_gradient", ([X[:0]], [1]), ValueError, "must not be empty"),
    ("rounds", ("star", 2, 3), ValueError, "algorithm must be one of 'naive', 'tree', 'ring', 'halving_doubling'"),
    ("rounds", ("ring", 0, 3), ValueError, "workers must be"),
    ("rounds", ("ring", 2, 0), ValueError, "size must be"),
    ("count_traffic", ((), 0, 8), ValueError, "workers must be"),
    ("count_traffic", ((), 1, 0), ValueError, "itemsize must be"),
    ("all_reduce", ([],), TypeError, "arrays must be a list"),
    ("all_reduce", (X,), TypeError, "arrays must be a list"),
    ("all_reduce", ([X, [1.0]],), TypeError, r"arrays\[1\] must be an array"),
    ("all_reduce", ([X, X.astype(np.float32)],), TypeError, r"arrays\[1\] must have the dtype"),
    ("all_reduce", ([X, torch.ones(2, 3)],), TypeError, r"arrays\[1\] must be of the library"),
    ("all_reduce", ([X, X[:1]],), ValueError, r"arrays\[1\] must have the shape"),
    ("all_reduce", ([X.astype(int)],), TypeError, r"arrays\[0\] must be floating point"),
    ("all_reduce", ([X[:0]],), ValueError, "must not be empty"),
    ("all_reduce", ([X], "star"), ValueError, "algorithm must be one of"),
    (
        "all_reduce",
        ([X], "ring_all_gather"),
        ValueError,
        "algorithm must be one of .*'halving_doubling', got 'ring_all_",
    ),
    ("all_reduce", ([X], ["ring"]), ValueError, "algorithm must be one of"),
    ("reduce_scatter", (X,), TypeError, "arrays must be a list"),
    ("reduce_scatter", ([X, X[:1]],), ValueError, r"arrays\[1\] must have the shape"),
    ("all_gather", ([],), TypeError, "parts must be a list"),
    ("all_gather", (X,), TypeError, "parts must be a list"),
    ("all_gather", ([X],), ValueError, r"parts must be flat, got the shapes \[\(2, 3\)\]"),
    ("all_gather", ([X[0], X[0, :1]],), ValueError, r"parts must have the lengths that partition gives, got \[3, 1\]"),
    ("all_gather", ([X[0, :1], X[0, :2]],), ValueError, "parts must have the lengths"),
    ("all_gather", ([X[0, :0]],), ValueError, "must not be empty"),
    ("all_gather", ([X[0], X[0].astype(np.float32)],), TypeError, r"parts\[1\] must have the dtype"),
    ("all_gather", ([X[0], torch.ones(3)],), TypeError, r"parts\[1\] must be of the library"),
    ("all_gather", ([[1.0]],), TypeError, r"parts\[0\] must be an array"),
    ("zero_memory", (0, 2, 1), ValueError, "parameters must be"),
    ("zero_memory", (5, 0, 1), ValueError, "workers must be"),
    ("zero_memory", (5, 2, 1), ValueError, "state_bytes must be 0 or more, got -1", {"state_bytes": -1}),
    ("zero_memory", (5, 2, 1), TypeError, "parameter_bytes must be a number", {"parameter_bytes": "a"}),
    ("zero_memory", (5, 2, 1), ValueError, "gradient_bytes must be 0 or more", {"gradient_bytes": -1}),
    ("zero_traffic", (5, 2, 1), ValueError, "gradient_bytes must be 0 or more", {"gradient_bytes": -1}),
    ("zero_traffic", (5, 2, 1), ValueError, "parameter_bytes must be 0 or more", {"parameter_bytes": -1}),
    ("zero_memory", (5, 2, 4), ValueError, "stage must be one of 0, 1, 2, 3"),
    ("zero_traffic", (0, 2, 1), ValueError, "parameters must be"),
    ("zero_traffic", (5, 0, 1), ValueError, "workers must be"),
    ("zero_traffic", (5, 2, -1), ValueError, "stage must be one of 0, 1, 2, 3"),
]
ALONE = Comm(Ranks(1), 0)
BAD_SHARDING = [  # arguments, options, error, what it says
    ((None, D, optim.sgd()), {}, TypeError, "comm must be a Communicator, got NoneType"),
    ((ALONE, X, optim.sgd()), {}, TypeError, "params must be a dict"),
    ((ALONE, {}, optim.sgd()), {}, TypeError, "params must be a dict"),
    ((ALONE, {"w": X.astype(int)}, optim.sgd()), {}, TypeError, r"params\['w'\] must be floating point"),
    ((ALONE, {"w": X, "v": np.float32([1])}, optim.sgd()), {}, TypeError, r"params\['v'\] must have the dtype"),
    ((ALONE, {"w": torch.ones(2)}, optim.sgd()), {}, TypeError, "params must be NumPy arrays, got Tensor"),
    ((ALONE, D, "sgd"), {}, TypeError, "rule must be a Rule"),
    ((ALONE, D, optim.muon(lr=0.1)), {}, ValueError, "rule must see single elements, .* sees a whole array"),
    ((ALONE, D, optim.chain(optim.clip_grad_norm(1.0), optim.sgd())), {}, ValueError, "one that sees all arrays"),
    ((ALONE, D, optim.sgd()), {"stage": 0}, ValueError, "stage must be one of 1, 2, 3"),
]


def refuses(module, name, arguments, error, message, options=None):
    with pytest.raises(error, match=message):
        getattr(module, name)(*arguments, **(options or {}))


@pytest.mark.parametrize("row", BAD, ids=[f"{r[0]}-{r[3][:40]}" for r in BAD])
def test_bad_input(row):
    refuses(parallel, *row)


def refuses_to_shard(module, arguments, options, error, message):
    with pytest.raises(error, match=message):
        module.ShardedOptimizer(*arguments, **options)


@pytest.mark.parametrize(("arguments", "options", "error", "message"), BAD_SHARDING, ids=[r[3] for r in BAD_SHARDING])
def test_bad_sharding(arguments, options, error, message):
    refuses_to_shard(parallel, arguments, options, error, message)


def refuses_gradients(module):
    "Nothing has changed after a step that raised."
    optimizer = module.ShardedOptimizer(ALONE, D, optim.adam(lr=1.0))
    for grads, error, message in (
        ({"w": X[:1]}, ValueError, r"grads\['w'\] must have the shape"),
        ({"v": X}, ValueError, "grads must have the names of params"),
        (X, TypeError, "grads must be a dict"),
        ({"w": X.astype(np.float32)}, TypeError, r"grads\['w'\] must have the dtype"),
        ({"w": X * np.nan}, ValueError, r"grads\['w'\] must be finite, got nan"),
    ):
        with pytest.raises(error, match=message):
            optimizer.step(grads)
        assert np.array_equal(optimizer.params["w"], X)
    optimizer.step(D)
    assert_close(optimizer.params["w"], X - 1, rtol=0, atol=1e-7)


def test_bad_gradients_of_a_sharded_step():
    refuses_gradients(parallel)
