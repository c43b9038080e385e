"""Planted errors: a wrong sign, factor, threshold or count in any function of the lesson makes a check fail."""

from unittest import mock

import pytest
import test_gpu_cost as cost
import test_gpu_precision as precision
from planted import definitions, load, survivors

from dlopt_course import gpu
from dlopt_course.optim import sgd


def formats(module):
    for name in precision.FINFO:
        precision.has_torchs_numbers(module, name)
    for name in precision.TORCHS:
        precision.equals_torchs_bits(module, name, every=1 if name == "FLOAT8_E5M2" else 7)
        precision.reads_torchs_bits(module, name)
    precision.rounds_as_numpy(module)
    precision.has_formats_of_any_size(module)
    precision.takes_any_layout(module)
    for row in precision.BAD_FORMATS:
        precision.refuses_formats(module, *row)


def scaling(module):
    for options in precision.SCALERS:
        precision.scales_as_torch(module, 1, **options)
    precision.scaler_keeps_its_kind(module)
    precision.scaler_goes_on_from_its_state(module)
    precision.refuses_gradients(module)
    for row in precision.BAD_SCALERS:
        precision.refuses_scalers(module, *row)


def masters(module):
    for kind in precision.SHORT:
        precision.is_the_rounded_master(module, kind, sgd(lr=0.1, momentum=0.9), scale=8.0, steps=4)
        precision.is_the_rounded_master(module, kind, sgd(lr=0.1), steps=2)
    precision.small_steps_add_up(module)
    precision.shrinks_exactly(module)
    precision.comes_back_from_beyond(module)
    precision.refuses_rules(module)


def checkpointing(module):
    for segments in (None, 1, 4, 10):
        precision.gives_the_same_gradients(module, segments)
    precision.draws_the_same_numbers(module)
    precision.refuses_hidden_randomness(module)
    precision.sees_how_far_it_is_off(module)
    precision.cuts_by_the_root(module)
    precision.takes_indices_and_tensors(module)
    precision.refuses_layers(module)


def bad_costs(module, *names):
    for row in cost.BAD_COSTS:
        if not names or row[0][0] in names:
            cost.refuses_costs(module, *row)


def products(module):
    for row in cost.PRODUCTS:
        cost.has_torchs_products(module, *row)
    cost.counts_the_rest(module)
    bad_costs(module, "linear", "conv2d")


def attention(module):
    cost.counts_the_rest(module)
    cost.has_torchs_attention(module)
    bad_costs(module, "attention", "embedding")


def elementwise(module):
    for name in cost.ELEMENTWISE:
        cost.counts_the_formula(module, name)
    cost.counts_norms(module)
    cost.counts_pooling(module)
    bad_costs(module, "layer_norm", "batch_norm", "max_pool2d", "avg_pool2d")


def recurrent(module):
    for name in cost.STEP:
        cost.has_recurrent_products(module, name)
    bad_costs(module, "lstm")


def rules(module):
    cost.adamw_moves_28_bytes(module)
    for name in cost.RULES:
        cost.counts_the_rule(module, name)
    cost.counts_muon(module)
    bad_costs(module, "muon", "adam")


def costs(module):
    cost.adds_costs(module)
    bad_costs(module)
    for battery in (products, attention, elementwise, recurrent, rules):
        battery(module)


def predictions(module):
    cost.counts_a_transformer(module)
    cost.knows_devices(module)
    cost.draws_the_roof(module)
    cost.predicts_seconds(module)
    cost.shares_the_peak(module)


def timing(module):
    with mock.patch.object(module, "is_array_api_obj", lambda x: hasattr(x, "device")):
        cost.times_a_gpu(module)
        cost.times_a_gpu(module, device="cuda")
    cost.times_a_cpu(module)
    cost.sees_where_results_are(module)
    cost.refuses_timings(module)


BATTERIES = {
    **dict.fromkeys(("FloatFormat", "_check_format", "round_to", "to_bits", "_rounded_bits", "from_bits"), formats),
    **dict.fromkeys(("LossScaler", "_floats"), scaling),
    **dict.fromkeys(("with_master_weights", "_begin_master", "_move_master"), masters),
    **dict.fromkeys(("checkpointed", "_apply_segments", "_Segment", "_check_repeated"), checkpointing),
    **dict.fromkeys(("Device", "find_device", "roofline", "_peak", "predict_seconds"), predictions),
    **dict.fromkeys(("fraction_of_peak", "transformer_operations"), predictions),
    **dict.fromkeys(("_linear_cost", "_conv2d_cost", "_product_cost"), products),
    **dict.fromkeys(("_attention_cost", "_embedding_cost"), attention),
    **dict.fromkeys(("_elementwise_cost", "_norm_cost", "_batch_norm_cost"), elementwise),
    **dict.fromkeys(("_layer_norm_cost", "_max_pool2d_cost", "_avg_pool2d_cost"), elementwise),
    **dict.fromkeys(("_rule_cost", "_muon_cost"), rules),
    "_recurrent_cost": recurrent,
    **dict.fromkeys(("time_calls", "_clock_seconds", "_event_seconds", "_device_of"), timing),
}
EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    (
        "_attention_cost",
        "False  ->  True  in  _check_attention(query, key, value, None, False)",
    ): "only the shapes are looked at, the mask is thrown away",
    (
        "_layer_norm_cost",
        "1e-05  ->  1.00001  in  _check_layer_norm(x, weight, bias, 1e-05)",
    ): "any positive number passes the check",
    (
        "_rounded_bits",
        "25  ->  26  in  np.minimum(23 - format.fraction_bits - np.minimum(above, 0), 25)",
    ): "a significand of 24 bits is rounded to 0 by both",
    ("_stand_in", "0  ->  1  in  np.float32(0)"): "only the shape is looked at",
}


@pytest.mark.parametrize(
    "battery", sorted({*BATTERIES.values(), costs}, key=lambda f: f.__name__), ids=lambda f: f.__name__
)
def test_the_batteries_pass_as_it_is(battery):
    battery(load(gpu))


@pytest.mark.parametrize("name", definitions(gpu))
def test_planted_errors_are_caught(name):
    assert survivors(gpu, name, BATTERIES.get(name, costs)) == {
        what for function, what in EQUIVALENT if function == name
    }


def test_equivalent_changes_are_of_functions_that_exist():
    assert {function for function, _ in EQUIVALENT} | BATTERIES.keys() <= set(definitions(gpu))
