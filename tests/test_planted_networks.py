"""Planted errors in the models and in `fit`: a wrong sign, constant or limit in any function makes a check fail."""

import io
import re
import tempfile
from contextlib import redirect_stderr
from pathlib import Path
from types import SimpleNamespace

import pytest
import test_networks as checks
from planted import load, survivors

from dlopt_course import layers

GROUPS = {  # functions that are checked together
    "models": "_counts _uniform _weight_and_bias _check_params MLP _cnn_layers CNN RNN",
    "fit": "_located _blocks _is_same _apply_of _modes_of _epochs_left _loss_of _optimizer_of _is_pair _holds_arrays "
    "_inputs_and_targets _rehearse _from_arrays _repeated _from_iterator _check_batch _batches_of _step _train "
    "_validate fit _check_stopping _ready",
    "checkpoint": "_path_of _checksum _contents _setting _save _loaded _check_fits _tidied _cut_out _resumed",
    "progress": "_in_terminal _bar",
}
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names.split()}
NAMES = ("CNN", "MLP", "RNN", "fit", "relu", "tanh", "linear", "batch_norm", "sequential")


def models():
    for model, shape in checks.made_models().values():
        checks.test_outputs_and_gradients_are_torchs(model, shape)
        checks.test_init_has_torchs_names_shapes_and_bounds(model, shape)
        checks.test_models_say_which_parameters_they_need(model, shape)
        checks.test_float32_stays_float32(model, shape)
        checks.test_models_can_be_copied(model, shape)
    for wrong in checks.WRONG_MODELS:
        checks.test_impossible_models(*wrong)
    checks.test_init_refuses_what_cannot_draw()
    checks.test_models_are_values()
    checks.test_activations_that_cannot_be_hashed()


def fitted(folder):
    checks.test_history_is_what_happened()
    checks.test_validation_in_several_blocks()
    checks.test_a_regression_has_no_accuracy()
    checks.test_a_dataset_a_pair_and_a_list_are_the_same()
    checks.test_a_generator_of_the_same_batches_is_the_same()
    checks.test_steps_per_epoch_and_epochs_say_how_many_batches_are_drawn()
    checks.test_two_batches_in_a_list_are_batches()
    checks.test_a_generator_that_ends_early(3)
    checks.test_batches_in_a_list_begin_anew_when_they_end(list)
    for given in (0, 1):
        checks.test_batches_that_do_not_begin_anew(given)
    checks.test_what_is_no_batch_is_not_the_end()
    checks.test_batch_norm_and_a_function_as_model()
    checks.test_dropout_is_for_training_only()
    checks.test_any_function_with_a_training_argument_is_told()
    checks.test_training_stops_where_the_validation_loss_does_not_fall()
    checks.test_what_cannot_say_when_to_stop()
    for n in (1, 2, 256, 257, 513):
        checks.test_no_block_is_a_single_sample(n)
    checks.test_a_loss_with_options()
    checks.test_one_sample_and_large_batches()
    checks.test_a_rule_is_made_an_optimizer()
    checks.test_torch_parameters_that_want_gradients()
    checks.test_torch_inputs_that_want_gradients()
    for case in checks.WRONG:
        checks.test_bad_arguments_change_nothing(case)
    checks.test_a_loss_that_is_not_finite_names_its_step()
    checks.test_an_infinite_loss_names_its_step()
    checks.test_a_training_that_diverges_says_when()
    checks.test_what_stops_the_training_has_the_history(ValueError("bad"))
    checks.test_errors_keep_their_class()
    checks.test_a_validation_that_fails_is_named()
    checks.test_many_targets_are_looked_at()
    checks.test_without_options_there_is_one_epoch_of_batches_of_32()
    checks.test_a_generator_that_is_too_short_to_go_on(new(folder))
    checks.test_goes_on_bit_for_bit("momentum", "generator", 6, new(folder))
    checks.test_batches_in_a_list_go_on(new(folder))


def resumed(folder):
    for data, at in (("arrays", 0), ("arrays", 6), ("generator", 6)):
        checks.test_goes_on_bit_for_bit("momentum", data, at, new(folder))
    checks.test_early_stopping_goes_on_from_a_checkpoint(3, new(folder))
    checks.test_the_same_objects_can_be_given_again(5, new(folder))
    checks.test_more_epochs_can_be_asked_for(new(folder))
    checks.test_no_checkpoint_before_the_first_epoch_is_done(new(folder))
    checks.test_what_a_killed_process_left_is_removed(new(folder))
    checks.test_a_checkpoint_that_cannot_be_written_stops_before_the_first_step(new(folder))
    checks.test_going_on_in_another_process_with_any_activation(new(folder))
    checks.test_a_finished_run_draws_no_batch(new(folder))
    checks.test_every_generator_goes_on("MT19937", new(folder))
    checks.test_a_checkpoint_holds_no_pickle(new(folder))
    for case in checks.OTHER:
        checks.test_a_checkpoint_of_another_training(case, new(folder))
    checks.test_a_checkpoint_of_another_loss(new(folder))
    for case in ("checkpoint", "no name of a checkpoint", "folder"):
        checks.test_bad_arguments_change_nothing(case)
    for spoil in checks.SPOILED.values():
        checks.test_a_damaged_checkpoint(spoil, new(folder))
    checks.test_a_foreign_generator_state_changes_nothing(new(folder))
    checks.test_pickled_objects_are_not_loaded(new(folder))


def new(folder: str) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def shown(module) -> None:
    "What a terminal gets while the clock goes on by 0.03 s at each look."
    clock = SimpleNamespace(now=0.0)

    def tick():
        clock.now += 0.03
        return clock.now

    module.perf_counter = tick
    with redirect_stderr(screen := io.StringIO()), pytest.MonkeyPatch.context() as patch:
        for name, value in {"TTY_COMPATIBLE": "1", "FORCE_COLOR": "1", "COLUMNS": "100", "TERM": "xterm"}.items():
            patch.setenv(name, value)
        losses = checks.Training().fit(epochs=12).step_loss
        texts = screen.getvalue()
        checks.Training().fit(epochs=12, progress=False)
        assert screen.getvalue() == texts
    frames = re.findall(r"91m(━*).*?epoch (\d+) of 12, loss ([\d.]+)", texts)
    assert {int(epoch) for _, epoch, _ in frames} == set(range(5, 13))  # half a second is waited for
    for bar, epoch, loss in frames:  # 24 characters for 48 steps
        assert 2 * (int(epoch) - 1) <= len(bar) <= 2 * int(epoch)
        assert loss in [f"{losses[done - 1]:.3g}" for done in (2 * len(bar), 2 * len(bar) + 1)]
    assert texts.count("of 12") == 9  # not at every step
    assert "━" * 24 in texts
    assert "━" * 25 not in texts
    assert texts.endswith("\x1b[2K")
    with redirect_stderr(screen := io.StringIO()):
        checks.Training().fit(epochs=12)
    assert screen.getvalue() == ""


def battery(group):
    "The checks of a group."

    def run(module):
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
            for name in NAMES:
                patch.setattr(checks, name, getattr(module, name))
            patch.setattr(checks, "layers", module)
            if group == "models":
                models()
            elif group == "checkpoint":
                resumed(folder)
            else:
                shown(module)
            if group == "fit":
                fitted(folder)

    return run


@pytest.mark.parametrize("group", GROUPS)
def test_the_battery_passes_as_it_is(group):
    battery(group)(load(layers))


EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    ("_setting", "0  ->  1  in  run.validation[0]"): "there are as many targets as inputs",
    ("_tidied", "True  ->  False  in  missing_ok=True"): "only if two processes tidy up at once",
    ("_in_terminal", "False  ->  True  in  auto_refresh=False"): "a thread draws the same bar ten times a second",
    ("_from_iterator", "0  ->  1  in  maxlen=0"): "the last batch that is passed over is kept a moment longer",
    ("_validate", "-1  ->  1"): "cross-entropy takes two axes",
}


@pytest.mark.parametrize("name", GROUP_OF)
def test_planted_errors_are_caught(name):
    assert survivors(layers, name, battery(GROUP_OF[name])) == {what for f, what in EQUIVALENT if f == name}
