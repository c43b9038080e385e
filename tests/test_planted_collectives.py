"""Planted errors in parts, means, plans, traffic and sharding: each makes a check fail."""

import numpy as np
import pytest
import test_planted_models
import test_planted_workers
from planted import REST, definitions, load, survivors
from test_parallel_collectives import (
    ALONE,
    BAD,
    BAD_SHARDING,
    HALVES,
    SUMS,
    adds_and_replaces,
    cuts_as_numpy,
    equals_the_full_batch,
    equals_the_paper,
    equals_unsharded,
    halves,
    is_a_plan,
    keeps_its_ledger,
    other_traffic,
    refuses,
    refuses_gradients,
    refuses_to_shard,
    ring_traffic,
    sends_what_is_said,
    sums,
)

from dlopt_course import parallel
from dlopt_course.optim import sgd


def refuses_all(module, *names):
    for row in BAD:
        if row[0] in names:
            refuses(module, *row)


def parts(module):
    for n, many in ((0, 1), (1, 3), (7, 3), (12, 4)):
        cuts_as_numpy(module, n, many)
    refuses_all(module, "partition")


def means(module):
    for counts in ((5,), (4, 4), (3, 0, 7)):
        equals_the_full_batch(module, counts)
        equals_the_full_batch(module, counts, single=True)
    refuses_all(module, "mean_gradient", "all_reduce")


def plans(module):
    for workers, size in ((1, 3), (2, 1), (3, 7), (4, 8), (6, 16), (7, 3), (13, 9)):
        for algorithm in SUMS:
            is_a_plan(module, algorithm, workers, size)
            adds_and_replaces(module, algorithm, workers, size)
            sums(module, algorithm, workers, (size,))
        for algorithm in HALVES:
            is_a_plan(module, algorithm, workers, size)
        halves(module, workers, size)
        ring_traffic(module, workers, size, 4)
        other_traffic(module, workers, size, 4)
    sums(module, "ring", 3, (2, 3), dtype="float32")
    refuses_all(module, "rounds", "count_traffic", "all_reduce", "reduce_scatter", "all_gather")
    nothing = np.array([], int)
    empty = module.Round(nothing, nothing, nothing, nothing, True)
    assert not list(module.rounds(lambda workers, size: [empty], 2, 2))


def ledgers(module):
    equals_the_paper(module)
    refuses_all(module, "zero_memory", "zero_traffic")


def sharding(module):
    refuses_gradients(module)
    assert module.ShardedOptimizer(ALONE, {"w": np.ones(2)}, sgd()).stage == 1
    for row in BAD_SHARDING:
        refuses_to_shard(module, *row)
    for stage in (1, 2, 3):
        for workers in (2, 16):
            keeps_its_ledger(module, workers, stage)
        sends_what_is_said(module, 2, stage)
        equals_unsharded(module, "adamw", 3, stage, steps=4)


BATTERIES = {
    "partition": parts,
    "_begin": parts,
    "mean_gradient": means,
    "_check_counts": means,
    "_named_gradients": means,
    "_check_ranks": means,
    "Round": plans,
    "_whole": plans,
    "_and_back": plans,
    "_naive_reduce": plans,
    "_tree_reduce": plans,
    "_ring_round": plans,
    "_ring_reduce_scatter": plans,
    "_ring_all_gather": plans,
    "_ring": plans,
    "_halving_reduce": plans,
    "rounds": plans,
    "_without_empty": plans,
    "Traffic": plans,
    "count_traffic": plans,
    "_carry_out": plans,
    "_flat_copy": plans,
    "_collective": plans,
    "all_reduce": plans,
    "reduce_scatter": plans,
    "all_gather": plans,
    "_check_parts": plans,
    "zero_memory": ledgers,
    "zero_traffic": ledgers,
    "ShardedOptimizer": sharding,
    "_joined_vector": sharding,
    "_check_sharded": sharding,
    "_check_rule": sharding,
    "_check_algorithm": plans,
    "_check_zero": ledgers,
}
EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    ("_tree_reduce", "workers - 1  ->  workers + 1"): "one level more than there are ranks sends nothing",
    ("_flat_copy", "1  ->  2  in  -1"): REST,
    ("_joined_vector", "1  ->  2  in  -1"): REST,
}


@pytest.mark.parametrize("battery", [parts, means, plans, ledgers, sharding], ids=lambda f: f.__name__)
def test_the_batteries_pass_as_it_is(battery):
    battery(load(parallel))


@pytest.mark.parametrize("name", BATTERIES)
def test_planted_errors_are_caught(name):
    found = survivors(parallel, name, BATTERIES[name])
    assert found == {what for function, what in EQUIVALENT if function == name}


def test_equivalent_changes_are_of_functions_that_exist():
    assert {function for function, _ in EQUIVALENT} <= BATTERIES.keys()


def test_all_of_the_module_is_looked_at():
    "Here, or in the two other files of planted errors, or with real processes."
    others = test_planted_workers.BATTERIES.keys() | test_planted_models.OF.keys()
    assert BATTERIES.keys() | others | test_planted_workers.STARTS_AND_ENDS == set(definitions(parallel))
