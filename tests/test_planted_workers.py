"""Planted errors: a wrong sign, count, comparison or constant in what workers do makes a check fail.

The workers are threads here. What starts and ends threads and processes is tested with real ones, in
test_parallel_workers.py: an error in it would leave some behind, or hang."""

import threading

import pytest
from planted import REST, load, survivors
from test_parallel_workers import (
    ARRAYS,
    BAD_CALLS,
    BAD_LOADING,
    BAD_RUNS,
    BAD_TRAINING,
    MISMATCHES,
    UNITS,
    asks_for_memory,
    broadcasts,
    compares_ends,
    counts_steps,
    delays_messages,
    ends_early,
    exchanges,
    follows,
    halves_are_a_whole,
    has_defaults,
    joins_by_name,
    keeps_what_is_read,
    keeps_what_is_read_within_a_plan,
    loads_ahead,
    looks_for_modules,
    mixes,
    notices_mismatch,
    notices_replicas,
    plan_covers_rounds,
    raises_in_place,
    reads_messages,
    refuses_calls,
    refuses_loading,
    refuses_other_arrays,
    refuses_runs,
    refuses_training,
    sums_alike,
    takes_arrays,
    takes_losses,
    trains_alike,
    trains_in_its_mode,
    waits_for_all,
    warns_of_too_many,
)

from dlopt_course import parallel
from dlopt_course.optim import adamw, sgd


def sums(module):
    for workers, shape in ((1, (3,)), (2, (1,)), (3, (5, 7))):
        for algorithm in parallel.ALGORITHMS:
            sums_alike(module, workers, shape, algorithm)
    sums_alike(module, 5, (9,), "halving_doubling")
    keeps_what_is_read(module)
    keeps_what_is_read_within_a_plan(module)
    halves_are_a_whole(module, 3, 7)
    halves_are_a_whole(module, 3, 2)
    broadcasts(module, 3)
    waits_for_all(module, 3)
    mixes(module, 3, False)
    delays_messages(module, 3)


def mistakes(module):
    for x in ARRAYS:
        takes_arrays(module, x)
    for row in BAD_CALLS:
        refuses_calls(module, *row)
    for first, others in MISMATCHES.values():
        notices_mismatch(module, first, others, 2)
    compares_ends(module)


def communicates(module):
    module._START = 5.0
    has_defaults(module)
    for unit in UNITS:
        with pytest.MonkeyPatch.context() as patch:
            unit(module, patch)
    exchanges(module)
    mistakes(module)
    sums(module)


def plans(module):
    for workers, size in ((1, 3), (2, 7), (3, 2), (5, 13)):
        for algorithm in (*parallel.ALGORITHMS, "ring_reduce_scatter"):
            plan_covers_rounds(module, algorithm, workers, size)
    delays_messages(module, 3)


def runs(module):
    has_defaults(module)
    with pytest.MonkeyPatch.context() as patch:
        follows(module, patch)
    with pytest.MonkeyPatch.context() as patch:
        warns_of_too_many(module, patch)
    for row in BAD_RUNS:
        refuses_runs(module, *row)
    compares_ends(module)
    sums_alike(module, 2, (3,), "ring")
    with pytest.raises(module.WorkerError) as caught:
        module.run_workers(lambda comm: [][1], 2, processes=False)
    what = f"worker {caught.value.rank} raised IndexError: list index out of range\n\nTraceback"
    assert str(caught.value).startswith(what)


def trains(module):
    has_defaults(module)
    for part in (notices_replicas, asks_for_memory):
        with pytest.MonkeyPatch.context() as patch:
            part(module, patch)
    trains_in_its_mode(module)
    joins_by_name(module, 0)
    takes_losses(module)
    for workers, stage in ((1, 0), (3, 0), (3, 1), (2, 3)):
        trains_alike(module, workers, stage, adamw(0.01))
    trains_alike(module, 5, 0, sgd(0.1), batch_size=3)
    counts_steps(module)
    for row in BAD_TRAINING:
        refuses_training(module, *row)
    refuses_other_arrays(module)


def loading(module):
    "In a thread of its own: a loader that ends without a word would hold up its consumer for ever."
    failed = []
    thread = threading.Thread(target=_loading, args=(module, failed), daemon=True)
    thread.start()
    thread.join(5)
    assert (thread.is_alive(), failed) == (False, [])


def _loading(module, failed):
    try:
        loads(module)
    except BaseException as error:
        failed.append(error)


def loads(module):
    module._PATIENCE = 1.0
    has_defaults(module)
    for depth in (1, 3):
        loads_ahead(module, depth)
    raises_in_place(module)
    ends_early(module)
    for row in BAD_LOADING:
        refuses_loading(module, *row)


def tells(module):
    reads_messages(module)
    with pytest.MonkeyPatch.context() as patch:
        looks_for_modules(module, patch)


BATTERIES = {
    "_Step": plans,
    "_Plan": plans,
    "_Shared": communicates,
    "_shared_ends": communicates,
    "_check_ends": runs,
    "_Stopped": runs,
    "_pickled": tells,
    "_unpickled": tells,
    "_module_path": tells,
    "TrainingResult": trains,
    "_Training": trains,
    "_check_mean": trains,
    "_check_not_random": trains,
    "Communicator": communicates,
    "_broadcast_rounds": sums,
    "_flat_numbers": mistakes,
    "_plan_of": plans,
    "_latest": plans,
    "_arrivals": plans,
    "WorkerError": runs,
    "run_workers": runs,
    "_check_run": runs,
    "_warn_of_oversubscription": runs,
    "_results": runs,
    "_hung": runs,
    "_outcome": runs,
    "train_data_parallel": trains,
    "_training_data": trains,
    "_check_training": trains,
    "_check_whole": trains,
    "_train": trains,
    "_order_of": trains,
    "_part_gradient": trains,
    "_replicated": trains,
    "_parts_like": trains,
    "_sharded": trains,
    "prefetch": loading,
    "_prefetched": loading,
    "_load": loading,
}
EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    ("Communicator", "0  ->  1  in  (None, 0)"): "where the numbers that stand for calls begin, on all workers",
    ("Communicator", "1  ->  2  in  (1, 0, 0)"): "from where rounds are counted, on all workers",
    ("Communicator", "1  ->  2  in  base + plan.rounds + 1"): "a round that nobody has a part in, on all workers",
    ("Communicator", "1  ->  2  in  self._base + 1"): "a round that nobody has a part in, on all workers",
    (
        "Communicator",
        "_VALUE + 2 * (self._exchanges % 2)  ->  _VALUE - 2 * (self._exchanges % 2)",
    ): "another free place, on all workers",
    ("Communicator", "self._exchanges + 1  ->  self._exchanges - 1"): "even and odd take turns all the same",
    ("Communicator", "self._calls + 1  ->  self._calls - 1"): "even and odd take turns all the same",
    ("Communicator", "0  ->  1  in  self._said[0]"): "writes the text even where it stands there already",
    ("_Shared", "1  ->  2  in  self.counts[self.workers * _ROW] = 1"): "a flag",
    ("_Shared", "1  ->  2  in  -1"): REST,
    ("_flat_numbers", "1  ->  2  in  -1"): REST,
    ("_train", "1  ->  2  in  -1"): REST,
    (
        "_part_gradient",
        "0.0  ->  1.0  in  (0.0, {name: np.zeros_like(p) for name, p in params.items()})",
    ): "is multiplied by the number of samples, none",
    ("_latest", "0  ->  1  in  found.get(target, 0)"): "the rounds in which something was sent count from 1",
}


STARTS_AND_ENDS = {"_new_memory", "_cores", "_Threads", "_stack_of", "_Processes", "_python", "_open_standard_files"}
STARTS_AND_ENDS |= {"_has_ended", "_process_main", "_work", "_tell", "_end_with", "_watch"}  # tested with real ones


@pytest.mark.parametrize("battery", set(BATTERIES.values()), ids=lambda f: f.__name__)
def test_the_batteries_pass_as_it_is(battery):
    battery(load(parallel))


@pytest.mark.parametrize("name", BATTERIES)
def test_planted_errors_are_caught(name):
    expected = {what for function, what in EQUIVALENT if function == name}
    assert survivors(parallel, name, BATTERIES[name]) == expected
