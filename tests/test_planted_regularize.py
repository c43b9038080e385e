"""Planted errors: a wrong sign, factor, threshold or count in any function of the lesson makes a check fail."""

import numpy as np
import pytest
import torch
from planted import definitions, load, survivors
from test_regularize import (
    BAD_LABELS,
    BAD_LAYERS,
    BAD_NORMS,
    BAD_PENALTIES,
    BY_HAND,
    PENALTIES,
    W,
    adds_gaussian_noise,
    decides,
    decides_as_torch,
    drops_by_chance,
    drops_what_is_infinite,
    equals_renorm,
    equals_smoothing,
    equals_torch,
    equals_torchs_dropout,
    goes_on_from_its_state,
    is_proximal,
    limits_rows,
    nothing_happens_in_prediction,
    obeys_moreau,
    refuses_labels,
    refuses_layers,
    refuses_norms,
    refuses_penalties,
    refuses_slopes,
    refuses_states,
    refuses_stopping,
)

from dlopt_course import regularize

SOME = W[1:, 2:]  # 0 and far numbers among them


def penalties(module):
    for name, options, of_number in PENALTIES:
        equals_torch(module, name, options, of_number, SOME, rtol=1e-12)
        is_proximal(module, name, options, of_number, 0.3, SOME)
        w = {"a": SOME, "b": SOME[0]}
        assert list(getattr(module, f"{name}_grad")(w, **options)) == ["a", "b"]
        total = getattr(module, name)(w, **options)
        assert total == pytest.approx(sum(getattr(module, name)(x, **options) for x in w.values()))
    for l1_ratio in (0, 0.3, 1):
        obeys_moreau(module, 2.0, l1_ratio, 0.5)
    for row in BAD_PENALTIES:
        refuses_penalties(module, *row)


def layers(module):
    x = np.random.default_rng(1).normal(size=(4, 6))
    for p in (0, 0.3, 1.0):
        equals_torchs_dropout(module, x, p, np.asarray)
        equals_torchs_dropout(module, x, p, torch.asarray)
    drops_by_chance(module, 0.3)
    drops_what_is_infinite(module)
    adds_gaussian_noise(module)
    for name, options in (("dropout", {"p": 0.4}), ("gaussian_noise", {"std": 0.4})):
        nothing_happens_in_prediction(module, name, options, np.asarray)
    for row in BAD_LAYERS:
        refuses_layers(module, *row)
    refuses_slopes(module)


def targets(module):
    for k, epsilon in ((3, 0.1), (4, 1), (1, 0.3)):
        equals_smoothing(module, k, epsilon, rtol=1e-12)
    assert module.label_smoothing_targets(np.array([0, 200], np.uint8), 300, 0.1).shape == (2, 300)
    for row in BAD_LABELS:
        refuses_labels(module, *row)


def norms(module):
    for shape in ((6, 5), (4, 3, 3, 3)):
        equals_renorm(module, np.random.default_rng(2).normal(size=shape), 0.7)
    limits_rows(module)
    for row in BAD_NORMS:
        refuses_norms(module, *row)


def stopping(module):
    for row in BY_HAND:
        decides(module, *row)
        goes_on_from_its_state(module, *row[:2])
    for seed in range(10):
        decides_as_torch(module, seed)
    refuses_stopping(module)
    fresh = module.EarlyStopping(2)
    assert (fresh.patience, fresh.min_delta, fresh.mode) == (2, 0.0, "min")
    assert (fresh.best, fresh.best_step, fresh.step, fresh.wait) == (float("inf"), None, 0, 0)
    assert module.EarlyStopping(2, mode="max").best == float("-inf")
    refuses_states(module, fresh)


BATTERIES = {
    "dropout": layers,
    "gaussian_noise": layers,
    "label_smoothing_targets": targets,
    "_check_labels": targets,
    "max_norm": norms,
    "_check_axis": norms,
    "EarlyStopping": stopping,
    "_number": stopping,
    "_checked_state": stopping,
}
EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    (
        "dropout",
        "0.0  ->  1.0  in  1 / (1 - p) if p < 1 else 0.0",
    ): "all are dropped, whatever they are multiplied by",
    (
        "EarlyStopping",
        "1  ->  2  in  -1",
    ): "any negative number in a saved state says that there is no best check yet",
}


@pytest.mark.parametrize("battery", [penalties, layers, targets, norms, stopping], ids=lambda f: f.__name__)
def test_the_batteries_pass_as_it_is(battery):
    battery(load(regularize))


@pytest.mark.parametrize("name", definitions(regularize))
def test_planted_errors_are_caught(name):
    battery = BATTERIES.get(name, penalties)
    assert survivors(regularize, name, battery) == {what for function, what in EQUIVALENT if function == name}


def test_equivalent_changes_are_of_functions_that_exist():
    assert {function for function, _ in EQUIVALENT} | BATTERIES.keys() <= set(definitions(regularize))
