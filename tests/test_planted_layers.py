"""Planted errors in the layers: a wrong sign, factor, constant or limit in any function makes a check fail."""

import inspect
import re

import numpy as np
import pytest
import torch
from planted import REST, load, survivors
from test_layers import (
    BAD,
    CASES,
    GOOD,
    NUMPY_ONLY,
    RECURRENT,
    agree,
    ends,
    goes_on,
    has_two_modes,
    is_torchs_network,
    keeps_float16,
    passes_far_numbers,
    passes_unusual_numbers,
    refuses,
    refuses_dy,
    refuses_networks,
    statistics_run,
    takes_indices,
    takes_layers_with_more_results,
)

from dlopt_course import layers

GROUPS = {  # functions that are checked together
    "activations": "_elementwise _where relu leaky_relu elu _sigmoid sigmoid tanh silu softplus _normal_cdf gelu",
    "linear": "flatten linear _shaped _check_linear",
    "windows": "_pair _outputs _framed _unframed _views conv2d _folded _check_conv2d max_pool2d avg_pool2d _check_pool",
    "norms": "_check_batch_norm _check_layer_norm _moments _standardised _standardised_back batch_norm _moved "
    "layer_norm",
    "embedding": "embedding _check_embedding",
    "recurrent": "_check_recurrent _two_states _unrolled _parameters_back rnn _rnn_back lstm _lstm_gates _lstm_back "
    "gru _gru_gates _gru_back",
    "attention": "_check_attention _allowed attention",
    "sequential": "sequential _chained _layer_arguments _signature _has_modes _has_gradient _are_indices _taken "
    "_call _split",
    "checks": "_check _check_plain _check_numpy _given _check_shape _check_dy",
}
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names.split()}


def layers_of(module, which):
    "Outputs, gradients and refusals of the layers of a group, or of all."
    wanted = lambda layer: which in (GROUP_OF[layer], "checks")  # noqa: E731
    for case in CASES:
        if wanted(case.layer):
            agree(case, module=module)
            agree(case, "float32", module=module)
        if wanted(case.layer) and case.layer not in NUMPY_ONLY:
            agree(case, make=torch.tensor, module=module)
    for name, *rest in BAD:
        if wanted(name):
            refuses(module, name, *rest)
    for name in filter(wanted, GOOD):
        refuses_dy(module, name)


def norms(module):
    for momentum in (0.1, 1):
        for shape in ((6, 3), (2, 3, 4, 5)):
            statistics_run(module, shape, momentum, np.array)


def recurrent(module):
    for case in RECURRENT:
        ends(module, case)
    for name in ("rnn", "lstm", "gru"):
        goes_on(module, name, 1)


def sequential(module):
    is_torchs_network(module)
    takes_indices(module)
    takes_layers_with_more_results(module)
    has_two_modes(module)
    refuses_networks(module)


def activations(module):
    passes_far_numbers(module)
    passes_unusual_numbers(module)


MORE = {"activations": activations, "windows": passes_unusual_numbers, "embedding": keeps_float16}
MORE |= {"norms": norms, "recurrent": recurrent, "sequential": sequential}


def battery(which):
    "The checks of a group."

    def run(module):
        with np.errstate(all="ignore"):
            layers_of(module, which)
            if which in MORE:
                MORE[which](module)

    return run


@pytest.mark.parametrize("which", GROUPS)
def test_the_battery_passes_as_it_is(which):
    battery(which)(load(layers))


EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    ("conv2d", "1  ->  2  in  -1"): REST,
    ("conv2d", "1  ->  2  in  -1  (2)"): REST,
    ("embedding", "1  ->  2  in  -1"): REST,
    ("_parameters_back", "1  ->  2  in  -1"): REST,
    ("_lstm_back", "1  ->  2  in  -1  (2)"): REST,
    ("_lstm_back", "1  ->  2  in  -1  (3)"): REST,
    ("_gru_back", "1  ->  2  in  -1  (2)"): REST,
    ("_gru_back", "1  ->  2  in  -1  (3)"): REST,
    ("elu", "0.0  ->  1.0  in  xp.minimum(x, 0.0)  (2)"): "only keeps exp from overflow where it is not used",
    ("_shaped", "2  ->  3  in  x.ndim == len(shape) == 2"): "saves time only",
    ("gru", "0  ->  1  in  H[0]"): "the state has one length at all times",
    ("_check", "x.dtype == dtype  ->  x.dtype != dtype"): "the slow way of checking decides alike",
}


@pytest.mark.parametrize("name", GROUP_OF)
def test_planted_errors_are_caught(name):
    assert survivors(layers, name, battery(GROUP_OF[name])) == {what for f, what in EQUIVALENT if f == name}


def test_every_layer_and_what_it_is_made_of_is_tried():
    assert {case.layer for case in CASES} | {"sequential"} <= set(GROUP_OF)
    cells = "".join(map(inspect.getsource, (getattr(layers, name) for name in GROUP_OF)))
    used = {name for name in vars(layers) if name.startswith("_") and re.search(rf"\b{name}\(", cells)}
    assert used <= set(GROUP_OF)
