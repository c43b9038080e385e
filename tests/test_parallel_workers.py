"""Workers that are real processes, or threads: the same sums, the same training, and nothing left whatever happens."""

import gc
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import array_api_strict
import numpy as np
import psutil
import pytest

from benchmarks import all_reduce, data_parallel
from dlopt_course import parallel
from dlopt_course.core import num_threads
from dlopt_course.layers import MLP, fit, linear, sequential
from dlopt_course.losses import cross_entropy, mse, value_and_grad
from dlopt_course.optim import Optimizer, adamw, clip_grad_norm, muon, sgd
from dlopt_course.regularize import dropout

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(0)
many_on_few_cores = pytest.mark.filterwarnings("ignore:.*cores")
both_kinds = pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])


def left_behind() -> tuple:
    "Processes, open files and maps of the workers' memory that this process has."
    me = psutil.Process()
    maps = Path("/proc/self/maps")
    memory = maps.read_text(encoding="utf-8").count("memfd:dlopt") if maps.exists() else 0
    return len(me.children(recursive=True)), me.num_fds(), memory


@pytest.fixture
def nothing_left():
    "Whatever a test does, its workers leave nothing."
    gc.collect()
    before = left_behind()
    yield
    until = time.monotonic() + 10
    while (after := left_behind()) != before and time.monotonic() < until:
        gc.collect()
        time.sleep(0.05)  # a thread that was left to end by itself
    assert after == before


def vectors(workers: int, shape, dtype=np.float64) -> list:
    "An array for each rank."
    rng = np.random.default_rng(1)
    return [rng.normal(size=shape).astype(dtype) for _ in range(workers)]


# Sums


def sums_alike(module, workers: int, shape, algorithm, dtype=np.float64, **options):
    "Every worker gets the bits that the same plan gives in one process; what it sent is counted."
    arrays = vectors(workers, shape, dtype)
    kept = [x.copy() for x in arrays]

    def work(comm):
        assert (comm.size, comm.traffic[:3]) == (workers, (0, 0, 0))
        found = [comm.all_reduce(arrays[comm.rank], algorithm) for _ in range(3)]
        return found, comm.traffic

    reference, traffic = parallel.all_reduce(kept, algorithm)
    results = module.run_workers(work, workers, processes=False, timeout=5, **options)
    assert sum(cost.messages for _, cost in results) == 3 * traffic.messages
    for rank, (found, cost) in enumerate(results):
        for x in found:
            assert (x.shape, x.dtype) == (reference[0].shape, dtype)
            np.testing.assert_array_equal(x, reference[0])
        assert (cost.sent, cost.received) == (3 * traffic.sent[rank], 3 * traffic.received[rank])
        assert cost.messages <= cost.rounds <= 3 * traffic.rounds
    for x, y in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("algorithm", parallel.ALGORITHMS)
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5, 8])
def test_workers_get_what_one_process_gets(workers, algorithm):
    for shape in ((1,), (3,), (5, 7), (2, 1, 50)):
        sums_alike(parallel, workers, shape, algorithm)
    sums_alike(parallel, workers, (33,), algorithm, np.float32)


def halves_are_a_whole(module, workers: int, n: int):
    "Reduce-scatter gives the parts of the sum, all-gather joins them; parts may be empty."
    arrays = vectors(workers, n)

    def work(comm):
        part = comm.reduce_scatter(arrays[comm.rank])
        return part, comm.all_gather(part), comm.all_reduce(arrays[comm.rank]), comm.traffic

    found = module.run_workers(work, workers, processes=False, timeout=5)
    parts, _ = parallel.reduce_scatter([x.copy() for x in arrays])
    for rank, (part, whole, total, traffic) in enumerate(found):
        np.testing.assert_array_equal(part, parts[rank])
        np.testing.assert_array_equal(whole, np.concatenate(parts))
        np.testing.assert_array_equal(total, whole)
        part[:], whole[:], total[:] = 0, 0, 0  # they belong to the worker
        assert traffic.sent % 16 == 0


@pytest.mark.parametrize(("workers", "n"), [(1, 4), (2, 1), (3, 10), (4, 3), (5, 21)])
def test_the_halves_of_the_ring(workers, n):
    halves_are_a_whole(parallel, workers, n)


def broadcasts(module, workers: int):
    "Everybody gets the array of the source, whoever that is, and nobody's own is changed."

    def work(comm):
        mine = np.full((2, 3), comm.rank)
        found = [comm.broadcast(mine, source) for source in range(workers)]
        assert (mine == comm.rank).all()
        return [*found, comm.broadcast(mine)]

    for found in module.run_workers(work, workers, processes=False, timeout=5):
        assert [x.tolist() for x in found] == [[[source] * 3] * 2 for source in (*range(workers), 0)]


def keeps_what_is_read(module):
    "Who is ahead does not overwrite what another has still to read."

    def work(comm):
        for i in range(4):
            time.sleep(0.01 * comm.rank)
            assert comm.broadcast(np.full(3, i), 0).tolist() == [i] * 3

    module.run_workers(work, 2, processes=False, timeout=5)


def keeps_what_is_read_within_a_plan(module):
    "Rank 0 sends to 1, then gets from 2: it must not be overwritten before 1, who comes late, has read it."

    def plan(workers, size):
        for source, target in ((0, 1), (2, 0)):
            yield parallel.Round(*(np.array([i]) for i in (source, target, 0, size)), False)

    def work(comm):
        found = []
        for i in range(3):
            time.sleep(0.01 * (comm.rank == 1))
            found.append(comm.all_reduce(np.array([10.0 * i + comm.rank]), plan).item())
            comm.barrier()
        return found

    assert module.run_workers(work, 3, processes=False, timeout=5) == [[2, 12, 22], [0, 10, 20], [2, 12, 22]]


def test_what_is_sent_is_kept_until_it_is_read():
    keeps_what_is_read(parallel)
    keeps_what_is_read_within_a_plan(parallel)


@pytest.mark.parametrize("workers", [1, 2, 3, 6])
def test_a_broadcast_reaches_all(workers):
    broadcasts(parallel, workers)


def waits_for_all(module, workers: int):
    "Nobody leaves a barrier before all have come."
    log = []

    def work(comm):
        for i in range(3):
            if comm.rank == i:
                time.sleep(0.02)
            log.append(i)
            comm.barrier()
            assert log.count(i) == workers

    module.run_workers(work, workers, processes=False, timeout=5)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_barrier_waits_for_all(workers):
    waits_for_all(parallel, workers)


def mixes(module, workers: int, processes: bool):
    "Any order of calls, with arrays of changing size; one worker is sometimes late."
    sizes = [1, 50, 3, 1000, 7]

    def work(comm):
        found = []
        for i, n in enumerate(sizes * 3):
            if i % workers == comm.rank:
                time.sleep(0.002)
            x = np.arange(n) * (comm.rank + 1.0)
            y = comm.all_reduce(x, ("ring", "tree", "naive", "halving_doubling")[i % 4])
            z = comm.all_gather(comm.reduce_scatter(x))
            comm.barrier()
            found.append((y == z).all() and (comm.broadcast(x, i % workers) == np.arange(n) * (i % workers + 1)).all())
        return all(found)

    assert all(module.run_workers(work, workers, processes=processes, timeout=30))


@many_on_few_cores
@both_kinds
def test_calls_can_be_mixed(processes):
    mixes(parallel, 2 if processes else 3, processes)


ARRAYS = [
    np.arange(6)[::2],
    np.arange(6.0).reshape(2, 3).T,
    np.float16([[1], [2]]),
    np.array(2.0),
    np.array([1j, 2]),
    np.broadcast_to(3.0, (4,)),
]


def takes_arrays(module, x):
    "Views, single numbers, whole and complex numbers."
    (found, _) = module.run_workers(lambda comm: comm.all_reduce(x, "tree"), 2, processes=False, timeout=5)
    np.testing.assert_array_equal(found, x + x)
    assert (found.shape, found.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("x", ARRAYS, ids=lambda x: f"{x.dtype} {x.shape}")
def test_arrays_of_any_kind(x):
    takes_arrays(parallel, x)


def test_an_array_in_a_file(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(5.0))
    takes_arrays(parallel, np.load(tmp_path / "x.npy", mmap_mode="r"))


BAD_CALLS = [
    (lambda comm: comm.all_reduce([1.0, 2.0]), "TypeError: x must be a NumPy array of numbers, got list"),
    (lambda comm: comm.all_reduce(np.array(["a"])), "TypeError: x must be a NumPy array of numbers, got an array of <"),
    (lambda comm: comm.all_reduce(np.ma.ones(3)), "TypeError: x must be a NumPy array of numbers, got MaskedArray"),
    (lambda comm: comm.all_reduce(np.ones(3, ">f8")), "TypeError: x must be a NumPy array of numbers, got an array of"),
    (lambda comm: comm.all_reduce(np.ones((0, 3))), "ValueError: x must not be empty, got shape (0, 3)"),
    (lambda comm: comm.reduce_scatter(np.ones(0)), "ValueError: x must not be empty, got shape (0,)"),
    (lambda comm: comm.all_gather(np.ones(0)), "ValueError: part must not be empty on all workers"),
    (lambda comm: comm.all_gather(np.ones(3 - comm.rank)[:2]), ""),
    (
        lambda comm: comm.all_gather(np.ones(2 + comm.rank)),
        "ValueError: part must have the lengths that partition gives",
    ),
    (lambda comm: comm.all_reduce(np.ones(3), "rings"), "ValueError: algorithm must be one of"),
    (lambda comm: comm.all_reduce(np.ones(3), "ring_all_gather"), "ValueError: algorithm must be one of"),
    (lambda comm: comm.all_reduce(np.ones(3), ["ring"]), "ValueError: algorithm must be one of"),
    (lambda comm: comm.broadcast(np.ones(3), [1, 1.0][comm.rank]), ""),
    (lambda comm: comm.broadcast(np.ones(3), 0.5), "ValueError: source must be a whole number from 0, got 0.5"),
    (lambda comm: comm.broadcast(np.ones(3), 2), "ValueError: source must be one of 0, 1, got 2"),
    (
        lambda comm: comm.all_reduce(np.ones(8193)),
        "ValueError: x must fit into a worker's shared memory, got 65544 bytes, but capacity=65536",
    ),
]


def refuses_calls(module, work, message):
    "The error of a worker that calls something impossible, or no error where there is no message."
    if not message:
        module.run_workers(work, 2, processes=False, timeout=5, capacity=2**16)
        return
    with pytest.raises(module.WorkerError) as caught:
        module.run_workers(work, 2, processes=False, timeout=5, capacity=2**16)
    assert f"worker {caught.value.rank} raised {message}" in str(caught.value)


@pytest.mark.parametrize("row", BAD_CALLS, ids=lambda row: row[1][:40])
def test_what_workers_must_not_call(row):
    refuses_calls(parallel, *row)


MISMATCHES = {  # what the workers call: rank 0, the others
    "other lengths": (lambda c: c.all_reduce(np.ones(3)), lambda c: c.all_reduce(np.ones(4))),
    "other shapes": (lambda c: c.all_reduce(np.ones((2, 3))), lambda c: c.all_reduce(np.ones((3, 2)))),
    "other dtypes": (lambda c: c.all_reduce(np.ones(3)), lambda c: c.all_reduce(np.ones(3, int))),
    "other algorithms": (lambda c: c.all_reduce(np.ones(3), "tree"), lambda c: c.all_reduce(np.ones(3))),
    "other calls": (lambda c: c.all_reduce(np.ones(3)), lambda c: c.barrier()),
    "other sources": (lambda c: c.broadcast(np.ones(3), 0), lambda c: c.broadcast(np.ones(3), 1)),
    "gather and barrier": (lambda c: c.all_gather(np.ones(1)), lambda c: c.barrier()),
    "one returns": (lambda c: stops(), lambda c: c.all_reduce(np.ones(3))),
    "one returns before a barrier": (lambda c: stops(), lambda c: c.barrier()),
}


class Stop(Exception):
    "Makes a worker return."


def stops():
    raise Stop


def notices_mismatch(module, first, others, workers: int):
    "Workers that do not call the same get an error, not each other's numbers, and do not wait for the timeout."

    def work(comm):
        for _ in range(3):
            comm.all_reduce(np.ones(3))
        with suppress(Stop):
            calls(comm)

    def calls(comm):
        (others if comm.rank else first)(comm)
        comm.all_reduce(np.ones(3))

    with pytest.raises(module.WorkerError, match="must call the same|has returned, and takes no part in"):
        module.run_workers(work, workers, processes=False, timeout=5)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("name", MISMATCHES)
def test_workers_that_do_not_call_the_same_are_told(name, workers):
    notices_mismatch(parallel, *MISMATCHES[name], workers)


def compares_ends(module):
    "Who only sends, or waits for nobody, is told in the end."
    for work, first, other in (
        (lambda comm: comm.broadcast(np.ones(3), comm.rank), "broadcast from 0", "broadcast from 1"),
        (lambda comm: comm.rank and comm.broadcast(np.ones(3), 1), "", "broadcast from 1"),
    ):
        with pytest.raises(module.WorkerError) as caught:
            module.run_workers(work, 2, processes=False, timeout=5)
        tail = " of float64, shape (3,)"
        ends = [repr(f"{text}{tail}" * bool(text)) for text in (first, other)]
        told = "worker 1 has returned after other calls than worker 0; their last ones: "
        assert str(caught.value) == told + f"worker 0 {ends[0]}, worker 1 {ends[1]}"


def test_calls_that_nobody_waits_for_are_compared_in_the_end():
    compares_ends(parallel)


# What one worker does in a plan


def plan_covers_rounds(module, algorithm, workers: int, size: int):
    "All workers' parts together are the rounds; nobody overwrites what another has still to read."
    whole = list(parallel.rounds(algorithm, workers, size))
    plans = [module._plan_of(whole, rank, 8) for rank in range(workers)]
    network = SimpleNamespace(seconds=lambda source, target, nbytes: 100 * source + 10 * target + nbytes)
    slow = [module._plan_of(whole, rank, 8, network) for rank in range(workers)]
    gets = [
        (s.at, source, rank, p.start, p.stop, add)
        for rank, plan in enumerate(plans)
        for s in plan.steps
        for source, p, add in s.gets
    ]
    messages = [(at, *m, r.add) for at, r in enumerate(whole) for m in zip(*(x.tolist() for x in r[:4]), strict=True)]
    assert sorted(gets) == sorted(messages)
    for rank, plan in enumerate(plans):
        mine = [m for m in messages if rank in m[1:3]]
        assert [s.at for s in plan.steps] == sorted({m[0] for m in mine})
        assert [plan.first, *(s.after for s in plan.steps)] == [*(s.at for s in plan.steps), len(whole)]
        assert plan.rounds == len(whole)
        sent, got = ([m for m in mine if m[k] == rank] for k in (1, 2))
        bytes_of = [8 * sum(m[4] - m[3] for m in some) for some in (sent, got)]
        assert plan.traffic == (*bytes_of, len(sent), len(plan.steps))
        assert sorted(plan.left) == sorted({m[2]: m[0] + 1 for m in sent}.items())
        for step in plan.steps:
            over = {
                m[2]: m[0] + 1
                for m in sent
                for _, p, _ in step.gets
                if m[0] < step.at and m[3] < p.stop and p.start < m[4]
            }
            assert sorted(step.free) == sorted(over.items())
            assert step.arrivals == []
        for step in slow[rank].steps:
            here = [(s, t, b - a) for at, s, t, a, b, _ in mine if at == step.at]
            assert sorted(step.arrivals) == sorted((s, 100 * s + 10 * t + 8 * n) for s, t, n in here)
    constant = module._plan_of(whole, 0, 8, SimpleNamespace(seconds=lambda *message: 0.5))
    assert {seconds for step in constant.steps for _, seconds in step.arrivals} <= {0.5}


@pytest.mark.parametrize("algorithm", [*parallel.ALGORITHMS, "ring_reduce_scatter", "ring_all_gather"])
@pytest.mark.parametrize(("workers", "size"), [(1, 3), (2, 1), (2, 7), (3, 2), (5, 13), (8, 64)])
def test_the_parts_of_a_plan_are_the_plan(algorithm, workers, size):
    plan_covers_rounds(parallel, algorithm, workers, size)


def delays_messages(module, workers: int):
    "No message is read before it can have arrived, and nobody sends the next one before."
    shift = lambda source, target, nbytes: 0.001 + 0.0005 * source + nbytes / 8 * 1e-4  # noqa: E731
    network, n = SimpleNamespace(seconds=shift), 3 * workers

    def work(comm):
        time.sleep(0.01 * comm.rank)
        comm.barrier()
        begin = time.monotonic()
        comm.all_reduce(np.ones(n))
        end = time.monotonic()
        comm.broadcast(np.ones(1), workers - 1)
        return begin, end

    times = np.array(module.run_workers(work, workers, processes=False, timeout=5, network=network))
    plan = parallel.rounds("ring", workers, n)
    done = parallel.simulate_rounds(plan, workers, 8, network_like(shift), start=times[:, 0])
    assert (times[:, 1] >= done).all()
    return (times[:, 1] - done).max()


def network_like(seconds):
    "A Network with other delays."

    class Delays(parallel.Network):
        pass

    Delays.seconds = lambda self, source, target, nbytes: seconds(source, target, nbytes)
    return Delays(0.0, 0.0)


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_an_emulated_network_delays_messages(workers):
    delays_messages(parallel, workers)


# Waiting, by a clock of its own


class Waiting:
    "Three workers' memory, the communicator of rank 1, and a clock that goes on only while it sleeps."

    def __init__(self, module, patch, looks=4, network=None):
        self.shared = module._Shared(bytearray(module._shared_ends(3, 100)[-1]), 3, 100)
        self.comm = module.Communicator(self.shared, 1, network, looks)
        self.module, self.now, self.naps, self.until = module, 100.0, [], 70
        patch.setattr(module, "monotonic", lambda: self.now)
        patch.setattr(module, "sleep", self.sleep)

    def sleep(self, seconds):
        assert len(self.naps) < 200
        assert self.shared.column(self.module._WAITS) == [0, 3, 0]
        self.naps.append(seconds)
        self.now += seconds
        if len(self.naps) == self.until:
            self.put(self.module._COUNT, 2, 7)

    def put(self, what, worker, value):
        self.shared.counts[worker * self.module._ROW + what] = value


def looks_and_sleeps(module, patch):
    "It looks so often, then sleeps a tenth of the time that it has waited, from 20 µs to 2 ms."
    here = Waiting(module, patch)
    assert here.shared.column(module._STARTED) == [0, 1, 0]
    assert here.comm._wait(2, 7) is None
    expected, waited = [], 0.0
    for _ in range(70):
        expected.append(min(max(waited / 10, 2e-5), 2e-3))
        waited += expected[-1]
    np.testing.assert_allclose(here.naps, expected)
    assert (min(expected), max(expected)) == (2e-5, 2e-3)
    assert here.shared.column(module._WAITS) == [0, 0, 0]
    for count_seen in (7, 8, 1000):
        here.put(module._COUNT, 2, count_seen)
        here.comm._wait(2, 7)
    assert len(here.naps) == 70
    for worker in range(3):
        here.comm._wait(worker, 0)
    assert len(here.naps) == 70


def looks_first(module, patch):
    "What comes while it looks is seen without sleeping; it looks as often as it was told, and no more."
    for looks, naps in ((0, 1), (3, 1), (4, 0), (9, 0)):  # it looks twice besides
        here = Waiting(module, patch, looks)
        here.comm._counts = Counts(here.shared.counts, 2 * module._ROW, 5)
        here.until = 1
        here.comm._wait(2, 7)
        assert len(here.naps) == naps, looks


class Counts:
    "Counters of which one is 7 from the sixth look on, or once it is set."

    def __init__(self, counts, place, after):
        self.counts, self.place, self.left = counts, place, after

    def __getitem__(self, place):
        assert self.left > -1000
        self.left -= place == self.place
        return 7 if place == self.place and self.left < 0 else self.counts[place]

    def __setitem__(self, place, value):
        self.counts[place] = value


def stops_waiting(module, patch):
    "Where the run is stopped, or the other worker has returned without coming so far."
    here = Waiting(module, patch, 0)
    module.Communicator(here.shared, 2)._end()
    assert here.shared.column(module._ENDED) == [0, 0, 1]
    here.comm._call("this")
    with pytest.raises(RuntimeError, match="worker 2 has returned, and takes no part in this$"):
        here.comm._wait(2, 7)
    here.put(module._ENDED, 2, 0)
    here.shared.stop()
    with pytest.raises(module._Stopped):
        here.comm._wait(2, 7)
    assert here.naps == []
    here.put(module._COUNT, 2, 7)
    here.comm._wait(2, 7)


def says_what_it_calls(module, patch):
    "In words, and as a number that depends on all calls before; the numbers of two calls stand side by side."
    one, two = Waiting(module, patch), Waiting(module, patch)
    long = "x" * (module._LETTERS + 9)
    found = [[here.comm._call(text) for text in ("a", "a", "b", long)] for here in (one, two)]
    assert found[0] == found[1]
    assert len(set(found[0])) == 4
    assert [one.shared.column(module._TAG + k) for k in (0, 1)] == [[0, found[0][3], 0], [0, found[0][2], 0]]
    assert one.shared.text(1) == long[: module._LETTERS]
    assert one.shared.text(2) == one.shared.text(0) == ""
    one.comm._call("short")
    assert one.shared.text(1) == "short"
    other = module.Communicator(one.shared, 2)
    other._call("word")
    assert (one.shared.text(2), one.shared.text(1)) == ("word", "short")
    bytes_of_others = [bytes(one.shared.bytes[8 * w * module._ROW :][: 8 * module._ROW]).strip(b"\0") for w in (0, 3)]
    assert bytes_of_others == [b"", b""]


def exchanges(module):
    "The values of all, twice in places of their own, so that who is ahead overwrites nothing."

    def work(comm):
        found = [comm._exchange(10 * i + comm.rank, "this", "") for i in range(3)]
        row = comm.rank * module._ROW
        comm.barrier()
        kept = [comm._shared.counts[row + module._VALUE + k] for k in range(5)]
        return found, kept

    for rank, (found, kept) in enumerate(module.run_workers(work, 3, processes=False, timeout=5)):
        assert found == [[10 * i, 10 * i + 1, 10 * i + 2] for i in range(3)]
        assert (kept[0], kept[2], kept[4]) == (20 + rank, 0, 0)
        assert kept[1] != kept[3]


def times_are_kept(module, patch):
    "When a worker came to a round is at the round's place; messages are waited for until they have arrived."
    here = Waiting(module, patch, 0, SimpleNamespace())
    places = len(here.shared.times) // 3
    here.comm._publish(5)
    here.now = 105.0
    here.comm._publish(places + 7)
    times = np.array(here.shared.times).reshape(3, places)
    assert np.argwhere(times).tolist() == [[1, 5], [1, 7]]
    assert (times[1, 5], times[1, 7]) == (100, 105)
    assert here.shared.column(module._COUNT) == [0, places + 7, 0]
    here.shared.times[0 * places + 7], here.shared.times[2 * places + 7] = 107.0, 101.0
    naps = []
    patch.setattr(module, "sleep", naps.append)
    step = module._Step(4, 5, [], [], [(0, 0.5), (1, 2.25)])
    here.comm._travel(step, places + 3)
    here.comm._travel(step._replace(arrivals=[(2, 0.5)]), places + 3)
    here.now = 107.75
    here.comm._travel(step, places + 3)
    other = module.Communicator(here.shared, 2, SimpleNamespace())
    here.shared.times[2 * places + 7] = 108.0
    other._travel(step._replace(arrivals=[(0, 1.0)]), places + 3)
    here.comm._travel(step._replace(arrivals=[(2, 1.0)]), places + 3)
    assert naps == [2.5, 0.5, 0.0, 1.25, 1.25]
    other._publish(places + 9)
    assert (here.shared.times[2 * places + 9], here.shared.times[places + 9]) == (107.75, 0)


def limits_rounds(module, patch):
    "As many rounds as there are places for times, for one call and the next."
    here = Waiting(module, patch)
    places = len(here.shared.times) // 3
    one = parallel.Round(np.array([0]), np.array([1]), np.array([0]), np.array([1]), True)
    for n in (places // 2 - 1, 1):
        assert here.comm._plan(lambda workers, size, n=n: iter([one] * n), 2, np.dtype(float)).rounds == n
    with pytest.raises(ValueError, match=f"algorithm must have less than {places // 2} rounds, got {places // 2}"):
        here.comm._plan(lambda workers, size: iter([one] * (places // 2)), 2, np.dtype(float))
    before = here.comm._plan("ring", 2, np.dtype(float))
    assert here.comm._plan("ring", 2, np.dtype(float)) is before
    assert here.comm._plan("ring", 2, np.dtype("f4")).traffic[0] * 2 == before.traffic[0]


def lays_out_memory(module, patch):
    "In whole pages: rows of 512 bytes, one more than workers; 4096 times and a vector of each worker."
    page = 2**16
    assert module._shared_ends(1, 1) == (page, page + 2**15, page + 2**15 + page)
    assert module._shared_ends(127, page) == (page, page + 127 * 2**15, page + 127 * (2**15 + page))
    assert module._shared_ends(128, page + 1) == (2 * page, 2 * page + 2**22, 2 * page + 2**22 + 128 * 2 * page)
    shared = module._Shared(bytearray(module._shared_ends(2, page + 1)[-1]), 2, page + 1)
    assert (shared.vectors.shape, len(shared.times), len(shared.counts)) == ((2, 2 * page), 2**13, 2**13)


UNITS = [
    lays_out_memory,
    looks_and_sleeps,
    looks_first,
    stops_waiting,
    says_what_it_calls,
    times_are_kept,
    limits_rounds,
]


@pytest.mark.parametrize("unit", UNITS, ids=lambda f: f.__name__)
def test_how_a_worker_waits(unit, monkeypatch):
    unit(parallel, monkeypatch)


def test_numbers_are_exchanged():
    exchanges(parallel)


def has_defaults(module):
    "As documented."

    def of(f):
        return {n: p.default for n, p in inspect.signature(f).parameters.items() if p.default is not p.empty}

    common = {"processes": True, "threads": 1, "timeout": 60.0, "network": None}
    assert of(module.run_workers) == common | {"capacity": 2**26}
    training = {"epochs": 1, "steps": None, "seed": 0, "stage": 0, "algorithm": "ring"}
    assert of(module.train_data_parallel) == training | common
    assert of(module.prefetch) == {"depth": 2}
    assert of(module.Communicator) == {"network": None, "spins": 0}
    assert of(module.Communicator.broadcast) == {"source": 0}


def test_the_defaults():
    has_defaults(parallel)


# What goes wrong


@many_on_few_cores
@both_kinds
def test_a_worker_that_raises_ends_the_run_with_its_own_traceback(processes, nothing_left):
    def work(comm):
        if comm.rank == 1:
            raise KeyError("mine")
        comm.all_reduce(np.ones(3))

    with pytest.raises(parallel.WorkerError, match="worker 1 raised KeyError: 'mine'") as caught:
        parallel.run_workers(work, 3, processes=processes)
    assert caught.value.rank == 1
    assert 'raise KeyError("mine")' in caught.value.traceback
    assert caught.value.traceback in str(caught.value)


@many_on_few_cores
@pytest.mark.parametrize(
    ("die", "how"),
    [
        (lambda: os._exit(3), "with exit code 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "by signal SIGKILL"),
    ],
    ids=["exit", "SIGKILL"],
)
def test_a_worker_that_dies_ends_the_run(die, how, nothing_left):
    def work(comm):
        comm.all_reduce(np.ones(3))
        if comm.rank == 1:
            die()
        comm.all_reduce(np.ones(3))

    with pytest.raises(parallel.WorkerError, match=f"worker 1 died: it ended {how}") as caught:
        parallel.run_workers(work, 2)
    assert caught.value.rank == 1


@many_on_few_cores
@both_kinds
def test_a_worker_that_hangs_is_named_and_says_where(processes, nothing_left, tmp_path):
    end = tmp_path / "end"

    def work(comm):
        comm.all_reduce(np.ones(3))
        while comm.rank == 1 and not end.exists():
            time.sleep(0.1)  # it hangs here
        comm.all_reduce(np.ones(3))

    with pytest.raises(parallel.WorkerError, match=r"worker 1 hangs: .* waiting for others: \[0, 2\]") as caught:
        parallel.run_workers(work, 3, processes=processes, timeout=3)
    end.touch()  # a thread cannot be ended from outside
    assert caught.value.rank == 1
    assert "time.sleep(0.1)  # it hangs here" in caught.value.traceback


def test_what_a_worker_has_started_ends_with_it(nothing_left):
    def work(comm):
        child = os.fork()
        if not child:
            time.sleep(100)
        comm.barrier()
        return child

    for pid in parallel.run_workers(work, 2):
        assert gone([pid])


def test_a_worker_that_is_killed_is_noticed_though_its_child_lives_on(nothing_left, tmp_path):
    def work(comm):
        child = os.fork()
        if not child:
            time.sleep(100)
        (tmp_path / "pid").write_text(str(child))
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(parallel.WorkerError, match="worker 0 died: it ended by signal SIGKILL"):
        parallel.run_workers(work, 1, timeout=5)
    assert gone([int((tmp_path / "pid").read_text(encoding="utf-8"))])


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
@pytest.mark.parametrize("capacity", [2**60, 2**63])
def test_more_memory_than_there_can_be(processes, capacity, nothing_left):
    with pytest.raises(ValueError, match="capacity must be less, all workers' memory of"):
        parallel.run_workers(print, 1, processes=processes, capacity=capacity)


def test_threads_that_were_begun_end_when_the_others_cannot_begin(nothing_left):
    group = parallel._Threads(lambda comm: comm.barrier(), (), 2, 10, None)

    def start():
        raise KeyboardInterrupt

    group.threads[1].start = start
    with pytest.raises(KeyboardInterrupt), group:
        pass
    assert not group.threads[0].is_alive()


def unreadable():
    "Is made of its message alone when it is read, as any exception."

    class Unreadable(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} {two}")

    return Unreadable(1, 2)


def reads_messages(module):
    "What cannot be read is an error of the worker."
    assert module._unpickled(module._pickled("x", ("returned", 3))) == ("returned", 3)
    kind, what, text = module._unpickled(module._pickled("x", unreadable()))
    assert (kind, what.partition(":")[0]) == ("unreadable", "returned what cannot be read here")
    assert "TypeError: " in what
    assert "__init__() missing 1 required" in what
    assert text.startswith("Traceback")


def test_what_cannot_be_read_is_the_workers_error(nothing_left):
    reads_messages(parallel)
    kind = type(unreadable())
    with pytest.raises(parallel.WorkerError, match="worker 0 returned what cannot be read here: TypeError") as caught:
        parallel.run_workers(lambda comm: kind(1, 2), 1)
    assert caught.value.rank == 0


def looks_for_modules(module, patch):
    "As here; where the package is comes first if it is not among them."
    patch.setattr(sys, "path", ["", Path("a"), str(ROOT)])
    assert module._module_path() == ["", "a", str(ROOT)]
    patch.setattr(sys, "path", ["", Path("a")])
    assert module._module_path() == [str(ROOT), "", "a"]


def test_workers_find_the_course_wherever_it_was_left(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        looks_for_modules(parallel, patch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *(p for p in sys.path if p not in ("", str(ROOT))), tmp_path])
    (path,) = parallel.run_workers(lambda comm: sys.path, 1)
    assert (path[:2], path[-1]) == ([str(ROOT), ""], str(tmp_path))


def test_workers_of_a_program_whose_standard_files_are_closed():
    code = (
        "import sys; from dlopt_course.parallel import run_workers; sys.exit(run_workers(lambda c: c.rank + 7, 1)[0])"
    )
    with python("sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code) as done:
        done.communicate(timeout=60)
    assert done.returncode == 7


def test_results_of_any_size_and_kind_come_back(capfd, nothing_left):
    class Mine:
        def __init__(self, rank):
            self.rank, self.big = rank, np.full(400_000, rank)

    def work(comm, *args):
        print("hello from", comm.rank, flush=False)
        return Mine(comm.rank), args

    found = parallel.run_workers(work, 2, {"a": 1}, np.ones(3))
    assert [(mine.rank, mine.big.sum()) for mine, _ in found] == [(0, 0), (1, 400_000)]
    assert [type(mine) for mine, _ in found] == [Mine] * 2
    for _, args in found:
        assert args[0] == {"a": 1}
        np.testing.assert_array_equal(args[1], np.ones(3))
    assert sorted(capfd.readouterr().out.split("\n")) == ["", "hello from 0", "hello from 1"]


def test_what_cannot_be_sent_is_said(nothing_left):
    lock = threading.Lock()
    with pytest.raises(TypeError, match="work, with its arguments, must be something that can be sent"):
        parallel.run_workers(lambda comm: lock, 1)
    with pytest.raises(parallel.WorkerError, match="what work returns must be something that can be sent"):
        parallel.run_workers(lambda comm: threading.Lock(), 1)
    with pytest.raises(parallel.WorkerError, match="raised SystemExit: 4"):
        parallel.run_workers(lambda comm: sys.exit(4), 1)


def test_each_process_has_its_threads():
    from threadpoolctl import threadpool_info

    def work(comm):
        blas = {x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"}
        limits = {os.environ[f"{name}_NUM_THREADS"] for name in ("OMP", "NUMBA")}
        return num_threads(), blas, limits, sys.stdin.read()

    before = dict(os.environ)
    assert parallel.run_workers(work, 1, threads=1) == [(1, {1}, {"1"}, "")]
    assert parallel.run_workers(work, 1, threads=2, network=parallel.Network(0.0, 0.0))[0][::2] == (2, {"2"})
    assert dict(os.environ) == before


def warns_of_too_many(module, monkeypatch):
    "More threads than cores are warned of: what, and what to do."
    monkeypatch.setattr(module, "_cores", lambda: 3)
    run = {"run": lambda: module._warn_of_oversubscription(2, 2)}
    with pytest.warns(RuntimeWarning, match="2 workers x 2 threads = 4 threads on 3 cores .* at most 3") as caught:
        exec(compile("run()", "who called", "exec"), run)
    assert [w.filename for w in caught] == ["who called"]
    monkeypatch.setattr(module, "_cores", lambda: 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.run_workers(lambda comm: None, 2, processes=False, timeout=0.9)
    monkeypatch.setattr(module, "_cores", lambda: 3)
    module._warn_of_oversubscription(3, 1)
    module._warn_of_oversubscription(1, 3)


def test_too_many_threads_are_warned_of_once(monkeypatch):
    warns_of_too_many(parallel, monkeypatch)
    assert parallel._cores() >= 1
    monkeypatch.setattr(parallel, "_cores", lambda: 1)
    with pytest.warns(RuntimeWarning, match="on 1 cores") as caught:
        parallel.run_workers(lambda comm: None, 1, threads=2)
    assert [Path(w.filename).name for w in caught] == [Path(__file__).name]
    parallel.run_workers(lambda comm: None, 2, processes=False)
    parallel.run_workers(lambda comm: None, 1, threads=2, network=parallel.Network(0.0, 0.0))


BAD_RUNS = [
    (TypeError, "work must be a function work(comm, *args), got int", (3, 2), {}),
    (ValueError, "workers must be a whole number from 1, got 0", (print, 0), {}),
    (ValueError, "threads must be a whole number from 1, got 0.5", (print, 1), {"threads": 0.5}),
    (ValueError, "timeout must be greater than 0, got 0", (print, 1), {"timeout": 0}),
    (ValueError, "capacity must be a whole number from 1, got 0", (print, 1), {"capacity": 0}),
    (TypeError, "network must be a Network, a TwoLevelNetwork or None, got int", (print, 1), {"network": 5}),
]


def refuses_runs(module, kind, message, args, options):
    with pytest.raises(kind) as caught:
        module.run_workers(*args, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("row", BAD_RUNS, ids=lambda row: row[1][:20])
def test_what_cannot_be_run(row):
    refuses_runs(parallel, *row)


def gone(pids: list) -> bool:
    "Whether all processes end within ten seconds."
    until = time.monotonic() + 10
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(psutil.pid_exists, pids))


SCRIPT = """
import os, re, signal, sys, time
from pathlib import Path
from dlopt_course.parallel import run_workers

class Own:
    def __init__(self, rank): self.rank = rank

def work(comm, folder):
    (folder / f"{comm.rank}.part").write_text(str(os.getpid()))
    (folder / f"{comm.rank}.part").rename(folder / f"{comm.rank}.pid")
    comm.barrier()
    WAIT
    return Own(comm.rank)

def hold(comm, folder):
    child = os.fork()
    if not child:
        time.sleep(100)
    (folder / f"child {comm.rank}.part").write_text(str(child))
    (folder / f"child {comm.rank}.part").rename(folder / f"child {comm.rank}.pid")
    if comm.rank:
        os.kill(os.getpid(), signal.SIGSTOP)
    re.match("(a+)+b", "a" * 60)  # takes years, and holds the interpreter's lock

found = run_workers(work, 2, Path(sys.argv[1]), network=None)
print([own.rank for own in found])
"""


def python(*arguments) -> subprocess.Popen:
    "Another Python in which the course can be imported."
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*arguments], env=env, **pipes)


@pytest.mark.parametrize("as_file", [False, True], ids=["-c", "script without guard"])
def test_runs_from_the_command_line_and_from_a_script_without_guard(as_file, tmp_path):
    code = SCRIPT.replace("WAIT", "pass")
    (tmp_path / "script.py").write_text(code, encoding="utf-8")
    with python(sys.executable, *([tmp_path / "script.py"] if as_file else ["-c", code]), tmp_path) as done:
        out, err = done.communicate(timeout=60)
    assert (out, err, done.returncode) == ("[0, 1]\n", "", 0)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_workers_end_when_the_program_is_interrupted_or_killed(how, tmp_path):
    pids, err = interrupted(how, "time.sleep(100)", tmp_path, ["0", "1"])
    assert gone(pids)
    assert ("KeyboardInterrupt" in err) == (how == signal.SIGINT)
    assert "resource_tracker" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process that holds the interpreter's lock")
def test_workers_that_hold_the_lock_or_are_stopped_end_too_with_what_they_started(tmp_path):
    pids, _ = interrupted(signal.SIGKILL, "hold(comm, folder)", tmp_path, ["0", "1", "child 0", "child 1"])
    try:
        assert gone(pids)
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def interrupted(how, waits: str, folder, names: list) -> tuple:
    "The processes of a program that got a signal when all of them had told their numbers; what it printed as errors."
    with python(sys.executable, "-c", SCRIPT.replace("WAIT", waits), folder) as program:
        files = [folder / f"{name}.pid" for name in names]
        until = time.monotonic() + 60
        while not all(f.exists() for f in files) and time.monotonic() < until:
            time.sleep(0.02)
        pids = [int(f.read_text(encoding="utf-8")) for f in files]
        assert all(map(psutil.pid_exists, pids))
        time.sleep(0.2 * ("hold" in waits))
        program.send_signal(how)
        program.wait(60)
        err = "" if how == signal.SIGKILL else program.communicate(timeout=60)[1]
        return pids, err


# The parts of a run that wait, with workers that do not exist


class Group:
    "Workers that have said beforehand what becomes of them; time goes by when they are asked."

    def __init__(self, *events, started=(1, 1), waits=(0, 0), counts=None):
        self.events, self.columns = list(events), {"started": started, "waits": waits}
        self.shared = SimpleNamespace(workers=len(started), column=self.column)
        self.columns["last"] = [0] * len(started)
        self.counts, self.now = counts or (lambda polls: (0, 0)), 0.0
        self.polls = 0

    def column(self, what):
        columns = {parallel._STARTED: "started", parallel._WAITS: "waits", parallel._LAST: "last"}
        return list(self.columns[columns[what]]) if what in columns else list(self.counts(self.polls))

    def poll(self, seconds):
        assert self.polls < 10_000
        self.now, self.polls = self.now + seconds, self.polls + 1
        return self.events.pop(0) if self.events else []

    def stack(self, rank):
        return f"stack of {rank}"


def follows(module, monkeypatch):
    "Results in the order of ranks; errors of the first that fails; the clock starts anew with every progress."

    def ends(group, timeout=2.0):
        monkeypatch.setattr(module, "monotonic", lambda: group.now)
        with pytest.raises(module.WorkerError) as caught:
            module._results(group, timeout)
        return caught.value.rank, str(caught.value), round(group.now, 2)

    one, two = (1, ("returned", "b")), (0, ("returned", "a"))
    assert module._results(Group([one], [], [two]), 1e9) == ["a", "b"]
    rank, text, _ = ends(Group([one], [(0, ("raised", "raised X: y", "its traceback"))]))
    assert (rank, text) == (0, "worker 0 raised X: y\n\nits traceback")
    assert ends(Group([(1, ("died", "died: so"))]))[:2] == (1, "worker 1 died: so")
    rank, text, now = ends(Group())
    assert (rank, now) == (0, pytest.approx(2.075, abs=0.03))
    assert text == "worker 0 hangs: no worker has come further for 2.0 s\n\nstack of 0"
    rank, text, _ = ends(Group(waits=(2, 0)))
    assert (rank, "s; waiting for others: [0]\n" in text) == (1, True)
    assert ends(Group(waits=(2, 1)))[0] == 0
    assert ends(Group([one], waits=(2, 0)))[0] == 0  # who has returned does not hang
    assert ends(Group(counts=lambda polls: (min(polls, 60), 0)))[2] == pytest.approx(60 * 0.05 + 2.05, abs=0.11)
    assert ends(Group([], [], [one]))[2] == pytest.approx(2.2, abs=0.11)
    assert ends(Group(started=(1, 0)))[2] == pytest.approx(module._START, abs=0.2)
    assert ends(Group(started=(1, 0)), 200.0)[2] == pytest.approx(200, abs=0.2)


def test_what_a_run_makes_of_its_workers(monkeypatch):
    follows(parallel, monkeypatch)


# Training

DIGITS = RNG.normal(size=(50, 5)), RNG.integers(0, 3, 50)
MODEL = MLP((5, 6, 3))
START = MODEL.init(np.random.default_rng(1))


def in_one(rule, batch_size: int, epochs: int, seed: int, data=DIGITS, loss=cross_entropy, model=MODEL, start=START):
    "The same training without workers: each batch in one piece."
    params, losses = {name: p.copy() for name, p in start.items()}, []
    optimizer, (x, y) = Optimizer(params, rule), data
    function, options = (loss.func, loss.keywords) if isinstance(loss, partial) else (loss, {})
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(x))
        for rows in np.split(order, range(batch_size, len(x), batch_size)):
            prediction, pullback = model.apply(params, x[rows])
            value, slope = value_and_grad(function)(prediction, y[rows], **options)
            optimizer.step(pullback(slope)[0])
            losses.append(value)
    return params, losses


def trains_alike(module, workers: int, stage: int, rule, processes=False, algorithm="ring", batch_size=13):
    "Parameters and losses of 24 steps as in one process, to 1e-12; the last batch of an epoch is smaller."
    start = {name: p.copy() for name, p in START.items()}
    options = {"processes": processes, "algorithm": algorithm, "stage": stage, "timeout": 20}
    begin = time.perf_counter()
    found = module.train_data_parallel(
        MODEL, start, DIGITS, cross_entropy, rule, workers=workers, batch_size=batch_size, epochs=6, seed=5, **options
    )
    assert found.seconds.sum() < time.perf_counter() - begin
    params, losses = in_one(rule, batch_size, 6, 5)
    for name, p in params.items():
        np.testing.assert_allclose(found.params[name], p, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(start[name], START[name])
    np.testing.assert_allclose(found.losses, losses, rtol=1e-12)
    assert found.seconds.shape == found.losses.shape == (len(losses),)
    assert (found.seconds > 0).all()
    if algorithm == "ring":
        numbers = sum(p.size for p in START.values()) + 2 * (stage == 0)  # with the loss and the samples
        assert found.sent.sum() == 2 * (workers - 1) * numbers * 8 * len(losses)  # stage 3 gathers once a step
    return found


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_workers_train_as_one(workers, stage):
    for rule in (sgd(0.1, momentum=0.9), adamw(0.01)):
        trains_alike(parallel, workers, stage, rule)


def test_more_workers_than_samples_and_other_algorithms():
    trains_alike(parallel, 5, 0, adamw(0.01), batch_size=3)
    trains_alike(parallel, 5, 3, adamw(0.01), batch_size=3)
    for algorithm in parallel.ALGORITHMS:
        trains_alike(parallel, 3, 0, sgd(0.1), algorithm=algorithm)


def test_rules_that_see_whole_arrays_train_in_stage_0():
    start = {"0.weight": START["0.weight"]}
    model = SimpleNamespace(apply=lambda params, x: linear_apply(params, x))
    data = DIGITS[0], RNG.normal(size=(50, 6))
    rule = muon(0.1)
    found = parallel.train_data_parallel(
        model, start, data, mse, rule, workers=2, batch_size=20, steps=4, processes=False
    )
    params, losses = in_one(rule, 20, 2, 0, data, mse, model, start)
    assert len(found.losses) == 4
    np.testing.assert_allclose(found.losses, losses[:4], rtol=1e-10)


def linear_apply(params, x):
    w = params["0.weight"]
    return x @ w.T, lambda dy: ({"0.weight": dy.T @ x}, dy @ w)


def test_processes_train_as_one():
    found = trains_alike(parallel, 2, 0, adamw(0.01), processes=True)
    again = trains_alike(parallel, 2, 0, adamw(0.01))
    for name, p in found.params.items():
        np.testing.assert_array_equal(p, again.params[name])  # threads and processes do the same


def test_float32_stays():
    start = {name: p.astype(np.float32) for name, p in START.items()}
    data = DIGITS[0].astype(np.float32), DIGITS[1]
    for stage in (0, 3):
        found = parallel.train_data_parallel(
            MODEL, start, data, cross_entropy, sgd(0.1), workers=2, batch_size=9, steps=3, stage=stage, processes=False
        )
        assert {p.dtype for p in found.params.values()} == {np.dtype(np.float32)}


def counts_steps(module):
    "The rows of each batch: all once in an epoch, in an order of the seed and the epoch, at most so many steps."
    for steps, lengths in ((5, [4, 4, 2, 4, 4]), (100, [4, 4, 2] * 2), (6, [4, 4, 2] * 2), (3, [4, 4, 2]), (2, [4, 4])):
        rows = list(module._order_of(10, 4, 7, 2, steps))
        assert [len(r) for r in rows] == lengths
        orders = [np.random.default_rng((7, epoch)).permutation(10) for epoch in (0, 1)]
        np.testing.assert_array_equal(np.concatenate(rows), np.concatenate(orders)[: sum(lengths)])
    assert [len(r) for r in module._order_of(9, 4, 7, 2, 4)] == [4, 4, 1, 4]


def test_the_order_of_batches():
    counts_steps(parallel)


def notices_replicas(module, patch):
    "Workers that end with different parameters are an error."

    def skips(comm, work, gradient):
        step, finish = replicated(comm, work, gradient)
        return step, lambda losses: ({name: p + comm.rank for name, p in finish(losses)[0].items()}, losses)

    replicated = module._replicated
    patch.setattr(module, "_replicated", skips)
    with pytest.raises(RuntimeError, match="not synchronised"):
        trains_alike(module, 2, 0, sgd(0.1))


def trains_in_its_mode(module):
    "A model that has modes is in that for training."

    def apply(params, x, training=False):
        assert training
        return linear_apply(params, x)

    start, data = {"0.weight": START["0.weight"]}, (DIGITS[0], RNG.normal(size=(50, 6)))
    module.train_data_parallel(apply, start, data, mse, sgd(0.1), workers=1, batch_size=50, steps=1, processes=False)


def joins_by_name(module, stage: int):
    "A pullback goes backward, and may return the last layer first; gradients of another form are refused."

    def wrong(params, x):
        y, pullback = MODEL.apply(params, x)
        return y, lambda dy: (pullback(dy)[0] | {"0.bias": np.ones((6, 1))}, None)

    square = MLP((5, 5, 5))
    start = square.init(np.random.default_rng(2))
    data = DIGITS[0], RNG.normal(size=(50, 5))

    def backwards(params, x):
        y, pullback = square.apply(params, x)
        return y, lambda dy: (dict(reversed(pullback(dy)[0].items())), None)

    options = {"workers": 2, "batch_size": 20, "epochs": 2, "seed": 5, "stage": stage, "processes": False}
    found = module.train_data_parallel(backwards, start, data, mse, adamw(0.01), **options)
    params, _ = in_one(adamw(0.01), 20, 2, 5, data, mse, square, start)
    for name, p in params.items():
        np.testing.assert_allclose(found.params[name], p, rtol=1e-12)
    with pytest.raises(module.WorkerError, match=r"grads\['0.bias'\] must have the shape of params\['0.bias'\]"):
        module.train_data_parallel(wrong, START, DIGITS, cross_entropy, adamw(0.01), **options)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_gradients_are_joined_by_name(stage):
    joins_by_name(parallel, stage)


def asks_for_memory(module, patch):
    "For the gradient with loss and count, and for the losses."
    asked, run = [], module.run_workers
    patch.setattr(
        module, "run_workers", lambda *args, capacity, **options: asked.append(capacity) or run(*args, **options)
    )
    trains_alike(module, 1, 0, sgd(0.1))
    assert asked == [8 * (24 + sum(p.size + 2 for p in START.values()))]


def test_replicas_that_differ_are_noticed(monkeypatch):
    notices_replicas(parallel, monkeypatch)


def test_models_with_modes_and_memory(monkeypatch):
    trains_in_its_mode(parallel)
    asks_for_memory(parallel, monkeypatch)


def test_a_loss_that_is_not_finite_is_the_workers_error():
    x = DIGITS[0].copy()
    with pytest.raises(parallel.WorkerError, match="FloatingPointError: the loss must be finite, got"):
        parallel.train_data_parallel(
            MODEL,
            START,
            (1e200 * x, RNG.normal(size=(50, 3))),
            mse,
            sgd(1.0),
            workers=2,
            batch_size=50,
            processes=False,
        )


GOOD_TRAINING = {
    "model": MODEL,
    "params": START,
    "data": DIGITS,
    "loss": cross_entropy,
    "rule": sgd(0.1),
    "workers": 2,
    "batch_size": 9,
    "processes": False,
    "steps": 1,
}
BAD_TRAINING = [
    (TypeError, "params must be a dict of arrays by name", {"params": [1]}),
    (TypeError, "params['a'] must be floating point", {"params": {"a": np.arange(3)}}),
    (TypeError, "params['b'] must have the dtype of params['a']", {"params": {"a": np.ones(3), "b": np.ones(3, "f4")}}),
    (TypeError, "model must have apply", {"model": 3}),
    (TypeError, "loss must be a loss", {"loss": 3}),
    (TypeError, "data must be a Dataset or a pair", {"data": 3}),
    (ValueError, "data must hold as many x as y", {"data": (DIGITS[0], DIGITS[1][:3])}),
    (TypeError, "rule must be a Rule, such as sgd(lr=0.1), got float", {"rule": 0.1}),
    (ValueError, "rule must see single elements in stage 1", {"rule": clip_grad_norm(1.0), "stage": 1}),
    (ValueError, "stage must be one of 0, 1, 2, 3, got 4", {"stage": 4}),
    (ValueError, "algorithm must be one of", {"algorithm": "ring_reduce_scatter"}),
    (
        ValueError,
        "all samples count the same, got one with weight",
        {"loss": partial(cross_entropy, weight=np.ones(3))},
    ),
    (
        ValueError,
        "all samples count the same, got one with ignore_index",
        {"loss": partial(cross_entropy, ignore_index=0)},
    ),
    (
        ValueError,
        "model must have no random layers, got one that holds a numpy.random.Generator",
        {"model": sequential(linear, partial(dropout, rng=RNG))},
    ),
    (ValueError, "batch_size must be a whole number from 1, got 0", {"batch_size": 0}),
    (ValueError, "batch_size must be a whole number from 1, got 8.5", {"batch_size": 8.5}),
    (ValueError, "workers must be a whole number from 1, got 0", {"workers": 0}),
    (ValueError, "seed must be a whole number from 0, got -1", {"seed": -1}),
    (ValueError, "epochs must be a whole number from 1, got 0", {"epochs": 0, "steps": None}),
    (ValueError, "steps must be a whole number from 1, got 0", {"steps": 0}),
]


def refuses_training(module, kind, message, changed):
    given = GOOD_TRAINING | changed
    args = [given.pop(name) for name in ("model", "params", "data", "loss", "rule")]
    with pytest.raises(kind) as caught:
        module.train_data_parallel(*args, **given)
    assert message in str(caught.value)


def takes_losses(module):
    "Options with which all samples count the same, or that are not set."
    x, y = DIGITS
    options = GOOD_TRAINING | {"rule": sgd(0.1), "batch_size": 13.0, "steps": 8.0, "seed": 0.0, "workers": 2.0}
    for loss, target in (
        (partial(cross_entropy, label_smoothing=0.1, weight=None, ignore_index=None), y),
        (partial(cross_entropy, weight=np.array([1.0, 2.0, 5.0])), np.eye(3)[y]),  # divided by the samples
    ):
        given = options | {"loss": loss, "data": (x, target)}
        args = [given.pop(name) for name in ("model", "params", "data", "loss", "rule")]
        found = module.train_data_parallel(*args, **given)
        params, _ = in_one(sgd(0.1), 13, 2, 0, (x, target), loss)
        for name, p in params.items():
            np.testing.assert_allclose(found.params[name], p, rtol=1e-12)


def test_losses_with_options():
    takes_losses(parallel)


def refuses_other_arrays(module):
    other = {name: array_api_strict.asarray(p) for name, p in START.items()}
    refuses_training(module, TypeError, "params must be NumPy arrays, got Array", {"params": other})
    both = tuple(map(array_api_strict.asarray, DIGITS))
    refuses_training(module, TypeError, "data must be NumPy arrays, got Array and Array", {"data": both})


@pytest.mark.parametrize("row", BAD_TRAINING, ids=lambda row: row[1][:25])
def test_what_cannot_be_trained(row):
    refuses_training(parallel, *row)


def test_other_arrays_are_refused():
    refuses_other_arrays(parallel)


# Loading ahead


def loaders() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


def eventually(condition) -> bool:
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.001)
    return condition()


def loads_ahead(module, depth: int):
    "The same batches in order, and never more than `depth` of them made while one is used."
    made = []

    def source():
        for i in range(12):
            made.append(i)
            yield i

    batches = module.prefetch(source(), depth)
    assert not made
    for i in range(12):
        assert next(batches) == i
        assert all(thread.daemon for thread in threading.enumerate() if thread.name == "prefetch")
        ahead = min(i + 1 + depth, 12)
        assert eventually(lambda ahead=ahead: len(made) >= ahead)
        time.sleep(0.002)
        assert len(made) == ahead
    assert next(batches, None) is None
    assert loaders() == 0
    assert list(module.prefetch([])) == []
    assert list(module.prefetch(iter("abc"))) == list("abc")


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_batches_are_made_ahead_in_order(depth):
    loads_ahead(parallel, depth)


def test_the_default_is_two_ahead():
    batches = parallel.prefetch(range(100))
    assert next(batches) == 0
    batches.close()
    assert loaders() == 0


def raises_in_place(module):
    "What the source raises comes after the batches before it, with the place where it was raised."

    def source():
        yield 1
        yield 2
        raise KeyError("the third")

    batches = module.prefetch(source())
    assert [next(batches), next(batches)] == [1, 2]
    with pytest.raises(KeyError, match="the third") as caught:
        next(batches)
    assert "source" in [frame.name for frame in caught.traceback]
    assert next(batches, None) is None
    assert loaders() == 0


def test_errors_of_the_source_are_raised_in_their_place():
    raises_in_place(parallel)


def ends_early(module):
    "Closed, left by break or by an exception: the thread ends, and the source is closed."
    closed = []

    def source():
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    batches = module.prefetch(source())
    assert [next(batches), next(batches)] == [0, 1]
    batches.close()
    assert (loaders(), len(closed)) == (0, 1)
    for _ in module.prefetch(source()):
        break
    assert (loaders(), len(closed)) == (0, 2)

    def fails():
        for batch in module.prefetch(source()):
            1 / batch

    with pytest.raises(ZeroDivisionError):
        fails()
    assert (loaders(), len(closed)) == (0, 3)


def test_the_thread_ends_when_the_consumer_stops():
    ends_early(parallel)


def test_a_source_that_never_returns_does_not_hold_up_its_consumer(monkeypatch):
    monkeypatch.setattr(parallel, "_PATIENCE", 0.05)
    free = threading.Event()

    def source():
        yield 1
        free.wait()

    batches = parallel.prefetch(source())
    assert next(batches) == 1
    batches.close()
    free.set()
    assert eventually(lambda: loaders() == 0)


def test_fit_takes_prefetched_batches():
    x, y = DIGITS
    batches = [(x[i : i + 10], y[i : i + 10]) for i in range(0, 50, 10)]
    found = []
    for data in (batches, parallel.prefetch(b for _ in range(3) for b in batches)):
        params = {name: p.copy() for name, p in START.items()}
        fit(MODEL, params, data, cross_entropy, adamw(0.01), epochs=3, steps_per_epoch=5)
        found.append(params)
    for name, p in found[0].items():
        np.testing.assert_array_equal(p, found[1][name])
    assert eventually(lambda: loaders() == 0)


BAD_LOADING = [
    (TypeError, "batches must be iterable, got int", (3,)),
    (ValueError, "depth must be a whole number from 1, got 0", ([], 0)),
]


def refuses_loading(module, kind, message, args):
    with pytest.raises(kind) as caught:
        module.prefetch(*args)
    assert str(caught.value) == message


@pytest.mark.parametrize("row", BAD_LOADING, ids=lambda row: row[1])
def test_what_cannot_be_loaded(row):
    refuses_loading(parallel, *row)


# The benchmarks


def test_what_the_benchmark_of_all_reduce_records(monkeypatch):
    def sampled(sizes, rounds):
        line = {"ours": lambda n: 2e-6 + 1e-9 * n, "gloo": lambda n: 4e-6 + 2e-9 * n}
        return [{"bytes": n} | {name: [f(n), 3 * f(n), 2 * f(n)] for name, f in line.items()} for n in sizes]

    monkeypatch.setattr(all_reduce, "sampled", sampled)
    monkeypatch.setattr(all_reduce, "wait_until_idle", lambda: 0.0)
    result = all_reduce.run()
    assert [row[0] for row in result["rows"]][::11] == ["4 KiB", "8 MiB"]
    for row, size in zip(result["rows"], all_reduce.SIZES, strict=True):
        assert len(row) == len(result["columns"])
        assert [row[3], row[6]] == ["2.00 (2.00 to 2.00)", "held out" * (size in all_reduce.HELD_OUT)]
        assert {cell[1:] for cell in row[4:6]} == {"0%"}
    assert result["notes"][-2:] == [
        "Fitted to ours: alpha 1 µs, 1 / beta 1.0 GB/s.",
        "Fitted to gloo: alpha 2 µs, 1 / beta 0.5 GB/s.",
    ]


def test_what_the_benchmark_of_data_parallel_training_records(monkeypatch):
    def sampled(sizes, rounds):
        times = {"one_thread": lambda b: 1.0 + b, "two_threads": lambda b: 1.0 + b / 2, "all_reduce": lambda b: 100.0}
        times |= {"two_processes": lambda b: 101.0 + b / 2, "ddp": lambda b: 2 * (101 + b / 2)}
        return [{"batch": b} | {name: [f(b)] * rounds for name, f in times.items()} for b in sizes]

    monkeypatch.setattr(data_parallel, "sampled", sampled)
    monkeypatch.setattr(data_parallel, "wait_until_idle", lambda: 0.0)
    result = data_parallel.run((100, 400), 3)
    assert result["notes"][-1].endswith("from a batch of 200 on; measured, they first do at 400.")
    for row, b in zip(result["rows"], (100, 400), strict=True):
        assert len(row) == len(result["columns"])
        speed = (1 + b) / (101 + b / 2)
        assert row[4] == f"{speed:.2f}"
        assert [row[3], row[6]] == [f"{speed:.2f} ({speed:.2f} to {speed:.2f})", "2.00 (2.00 to 2.00)"]


def test_the_benchmarks_steps_are_the_same(monkeypatch):
    monkeypatch.setattr(data_parallel, "MODEL", MLP((784, 4, 10)))
    one = data_parallel.in_one(data_parallel.data(6))
    losses = [one() for _ in range(7)]

    def work(comm):
        step = data_parallel.in_two(comm, 6)
        return [step() for _ in range(7)]

    for found in parallel.run_workers(work, 2, processes=False):
        np.testing.assert_allclose(found, losses, rtol=1e-5)


def test_the_recordings_are_whole():
    samples = {}
    for module in (all_reduce, data_parallel):
        path = ROOT / f"benchmarks/results/{module.__name__.rpartition('.')[2]}.json"
        samples[module] = json.loads(path.read_text(encoding="utf-8"))["raw"]["samples"]
    assert [s["bytes"] for s in samples[all_reduce]] == all_reduce.SIZES
    assert tuple(s["batch"] for s in samples[data_parallel]) == data_parallel.SIZES
    for s in samples[data_parallel]:
        assert set(s) == {"batch", "all_reduce", *data_parallel.FORMS}
        assert len({len(s[name]) for name in data_parallel.FORMS}) == 1
