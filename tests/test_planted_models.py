"""Planted errors: a wrong sign, factor or count in any model of time and of batch size makes a check fail."""

import pytest
from planted import load, survivors
from test_parallel_models import BAD, BATTERIES, refuses

from dlopt_course import parallel

OF = {  # the checks that look at a function
    "_at_least_zero": "forms",
    "_above_zero": "plans",
    "_real_array": "laws buckets",
    "_check_network": "forms",
    "amdahl": "laws",
    "gustafson": "laws",
    "Network": "networks",
    "TwoLevelNetwork": "networks",
    "_two_level_seconds": "forms",
    "_messages": "forms",
    "all_reduce_seconds": "forms",
    "fit_network": "fits",
    "simulate_rounds": "rounds",
    "_starts": "rounds",
    "hierarchical_rounds": "levels",
    "_part": "levels",
    "expected_maximum": "maximum",
    "StepTimes": "steps",
    "_step_times": "steps",
    "simulate_step": "steps",
    "_computing": "steps",
    "gradient_buckets": "buckets",
    "_limit": "buckets",
    "Timeline": "buckets",
    "overlap_timeline": "buckets",
    "NoiseScale": "noise",
    "noise_scale": "noise",
    "_moments": "noise",
    "_ratio_interval": "noise",
    "steps_to_target": "plans",
    "best_learning_rate": "plans",
    "scale_learning_rate": "plans",
    "Plans": "plans",
    "choose_workers": "plans",
    "_counts": "plans",
}
EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    (
        "fit_network",
        "columns.max(axis=0)  ->  columns.min(axis=0)",
    ): "any size will do to bring the two columns to one scale",
    (
        "noise_scale",
        "squares.sum()  ->  squares.mean()",
    ): "the same number is taken from each row's value, and the covariance sees differences only",
}


def battery(name):
    "The checks of a function: the refusals of bad input first, as they are quick."

    def run(module):
        for row in BAD:
            if row[0] == name or name.startswith("_"):
                refuses(module, *row)
        for kind in OF[name].split():
            for check in BATTERIES[kind]:
                check(module)

    return run


@pytest.mark.parametrize("name", OF)
def test_planted_errors_are_caught(name):
    battery(name)(load(parallel))
    assert survivors(parallel, name, battery(name)) == {what for function, what in EQUIVALENT if function == name}


def test_equivalent_changes_are_of_functions_that_are_looked_at():
    assert {function for function, _ in EQUIVALENT} <= set(OF)
