"""Planted errors: a wrong sign, factor, option or branch anywhere in ImageDataGenerator makes a check fail."""

import tempfile
from functools import cache
from pathlib import Path

import pytest
from planted import definitions, load, survivors
from test_augment_generator import (
    FLOWS,
    SHAPES,
    calls_own_methods,
    calls_own_methods_as_keras,
    computes_in_float64,
    does_not_depend_on_the_batch,
    draws_as_keras,
    draws_its_parameters,
    fits_transformed,
    flows_as_keras,
    folders_as_keras,
    gives_targets,
    goes_by_number_too,
    has_kerass_defaults,
    keeps_ranges,
    made_folder,
    makes_its_images,
    misses_statistics,
    moves_masks,
    odd_images_as_keras,
    prepares_as_keras,
    reads_folders,
    refuses_flows,
    refuses_folders,
    refuses_options,
    refuses_to_save,
    refuses_transforms,
    saves_as_keras,
    skips_files,
    splits,
    standardizes,
    standardizes_as_keras,
    takes_every_dtype,
    transforms_as_keras,
    transforms_folders_as_arrays,
    transforms_integers_as_keras,
)

from dlopt_course import augment

pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning", "ignore:.*has_ext")


@cache
def folder():
    "One folder of images for all planted errors."
    return made_folder(Path(tempfile.mkdtemp()))


def compiled(module):
    "The module with the kernels that are compiled already, which have planted errors of their own."
    for name in ("_warp_into", "_warp_block", "warp_masks"):
        setattr(module, name, getattr(augment, name))
    return module


def options(module):
    refuses_options(compiled(module))
    draws_its_parameters(module)
    draws_as_keras(module)
    transforms_as_keras(module, borders=["mirror", "grid-wrap", "grid-constant"], shapes=SHAPES[1:2])
    flows_as_keras(module, [8, 9])


def draws(module):
    compiled(module)
    draws_its_parameters(module)


def keras_draws(module):
    draws_as_keras(module)


def renders(module):
    makes_its_images(compiled(module))
    does_not_depend_on_the_batch(module)
    splits(module)
    flows_as_keras(module, [0])
    takes_every_dtype(module)


def ranges(module):
    keeps_ranges(compiled(module))
    makes_its_images(module)
    takes_every_dtype(module)


def keras_renders(module):
    transforms_integers_as_keras(compiled(module))
    transforms_as_keras(compiled(module), dtypes=("float32", "uint8"))
    flows_as_keras(module, [0])
    odd_images_as_keras(module)


def pillow(module):
    odd_images_as_keras(compiled(module))
    saving(module)


def statistics(module):
    standardizes(compiled(module))
    misses_statistics(module)
    makes_its_images(module, which=[10])
    fits_transformed(module)
    standardizes_as_keras(module)
    prepares_as_keras(module)


def batches(module):
    goes_by_number_too(compiled(module))
    flows_as_keras(module)


def arrays(module):
    refuses_flows(compiled(module))
    keeps_ranges(module)
    gives_targets(module)
    splits(module)
    moves_masks(module)
    calls_own_methods(module)
    flows_as_keras(module, range(2, len(FLOWS)))


def folders(module):
    refuses_folders(compiled(module), folder())
    skips_files(module, tempfile.mkdtemp())
    transforms_folders_as_arrays(module, folder())
    reads_folders(module, folder())
    folders_as_keras(module, folder())


def subclasses(module):
    calls_own_methods(compiled(module))
    calls_own_methods_as_keras(module, folder())
    moves_masks(module)
    does_not_depend_on_the_batch(module)


def everything(module):
    refuses_transforms(compiled(module))
    has_kerass_defaults(module)
    computes_in_float64(module)
    for battery in (options, renders, keras_renders, statistics, arrays, batches, folders, saving, subclasses):
        battery(module)


def iterators(module):
    saving(module)
    skips_files(module, tempfile.mkdtemp())
    calls_own_methods_as_keras(module, folder())
    goes_by_number_too(module)
    flows_as_keras(module, [0, 1, 2, 3])
    splits(module)
    draws_its_parameters(module)
    reads_folders(module, folder())


def keras_statistics(module):
    misses_statistics(compiled(module))
    standardizes_as_keras(module)
    calls_own_methods_as_keras(module, folder())


def saving(module):
    refuses_to_save(compiled(module), folder(), Path(tempfile.mkdtemp()))
    saves_as_keras(module, folder(), tempfile.mkdtemp())


BATTERIES = {
    **dict.fromkeys(
        ("_not_below_0", "_switch", "_shift_range", "_interval", "_zoom_range", "_brightness_range"), options
    ),
    **dict.fromkeys(
        ("_optional", "_function", "_one_of", "_channels_last", "_float_type", "_checked_options"), options
    ),
    **dict.fromkeys(("_any_number", "_truth", "_keras_shift_range", "_keras_zoom_range"), options),
    **dict.fromkeys(("_shifts", "_parameters"), draws),
    **dict.fromkeys(("_Columns", "_keras_shift", "_keras_drawn", "_keras_table"), keras_draws),
    **dict.fromkeys(("_geometry", "_render", "_block"), renders),  # _block_rows decides how much is done at a time
    **dict.fromkeys(("_value_range", "_recolour"), ranges),
    "_keras_pillow": pillow,
    **dict.fromkeys(
        ("_keras_rounded", "_keras_warp", "_keras_brightness", "_keras_block", "_keras_apply"), keras_renders
    ),
    **dict.fromkeys(
        ("_fitted", "_standardize_samples", "_standardize_features", "_preprocessed", "_prepared"), statistics
    ),
    **dict.fromkeys(("_fit", "_moments", "_whitening", "_check_seen", "_of_shape"), statistics),
    **dict.fromkeys(
        ("_own", "_transforms_itself", "_Now", "_serving", "_now", "_own_table", "_own_column"), subclasses
    ),
    **dict.fromkeys(("_own_transformed", "_own_standardized"), subclasses),
    "_real_images": renders,
    **dict.fromkeys(("_as_batch", "_table_of", "_finished", "_checked_table", "ImageDataGenerator"), everything),
    **dict.fromkeys(("_made", "_also", "_keras_dataset", "_seed_of", "_part_of", "_shared"), everything),
    "_Iterator": iterators,
    **dict.fromkeys(("_keras_fit", "_keras_round"), keras_statistics),
    "_check_saving": saving,
    **dict.fromkeys(
        ("_lengths", "_check_class_split", "_checked_masks", "_images_and_others", "_array_sources"), arrays
    ),
    **dict.fromkeys(("NumpyArrayIterator",), arrays),
    **dict.fromkeys(("_checked_reading", "_found", "DirectoryIterator"), folders),
}
SPEED = "how much is done at a time, or by whom, changes no number"
WARNING = "which line a warning points to"
LENGTH = "NumPy takes any negative number for the length that is left over"
TRIED = "any image of so many channels will do"
EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    ("_checked_options", "4  ->  5  in  stacklevel=4"): WARNING,
    ("_fitted", "4  ->  5  in  stacklevel=4"): WARNING,
    (
        "_keras_shift",
        "random.choice(spread) * random.choice([-1, 1])  ->  random.choice(spread) / random.choice([-1, 1])",
    ): ("to divide by a sign is to multiply by it"),
    ("_keras_table", "spread and (not isinstance(spread, float))  ->  spread or not isinstance(spread, float)"): SPEED,
    ("_geometry", "8  ->  9  in  6 if g.keras_compat else 8"): "the matrix does not depend on the channel shift",
    ("_render", "1  ->  2  in  :1"): SPEED,
    ("_render", "False  ->  True  in  copy=False"): SPEED,
    ("_block", "matrices == np.eye(3)  ->  matrices != np.eye(3)"): SPEED,
    ("_keras_pillow", "1  ->  2  in  x.max() or 1"): "0 divided by it is 0",
    ("_standardize_samples", "-2  ->  2"): "of four axes the third is the last but one",
    ("_standardize_features", "1  ->  2  in  -1"): LENGTH,
    ("_prepared", "1  ->  2  in  max(rounds, 1)"): "the same images twice have the same mean and deviation",
    ("_prepared", "256  ->  257  in  -len(images) // 256"): SPEED,
    ("_moments", "0.0  ->  1.0  in  (0, 0.0, 0.0)"): "a mean of no numbers has no weight",
    ("_fit", "1  ->  2  in  -1"): LENGTH,
    ("_fit", "1  ->  2  in  -1  (2)"): LENGTH,
    ("_keras_fit", "1  ->  2  in  -1"): LENGTH,
    ("_keras_fit", "1  ->  2  in  -1  (2)"): LENGTH,
    ("_keras_shift_range", "0  ->  1  in  value < 0"): "a float from 0 to 1 is itself either way, and 0 no shift",
    ("_check_seen", "0  ->  1  in  getattr(g, name) if getattr(g, name) is not None else 0"): "only the shape is used",
    ("_real_images", "0  ->  1  in  np.uint8(0)"): "only shape and dtype are looked at",
    ("_keras_round", "3  ->  4  in  1:3"): "of the size only height and width are used",
    ("_keras_round", "3  ->  4  in  :3"): "for a standardize of its own the same, image by image",
    ("_transforms_itself", "3  ->  4  in  bool(g.keras_compat):3"): "the same, image by image",
    ("_table_of", "2  ->  3  in  :2"): "of the size only height and width are used",
    ("_finished", "False  ->  True  in  copy=False"): SPEED,
    ("_check_saving", "1  ->  2  in  (1, 1, channels)"): TRIED,
    ("_check_saving", "1  ->  2  in  (1, 1, channels)  (2)"): TRIED,
    ("_check_saving", "True  ->  False  in  _keras_pillow(np.zeros((1, 1, channels)), True)"): TRIED,
    ("_whitening", "1  ->  2  in  -1"): LENGTH,
    (
        "_seed_of",
        "1  ->  2  in  np.random.SeedSequence().generate_state(1)",
    ): "the first word of entropy, or the first of two",
    ("_part_of", "1  ->  2  in  (0, 1)"): "there is nothing after the last sample",
    ("_part_of", "1  ->  2  in  (split, 1)"): "there is nothing after the last sample",
    ("ImageDataGenerator", "-2  ->  2"): "of four axes the third is the last but one",
    ("_Iterator", "2  ->  3  in  :2"): "of the size only height and width are used",
}


@pytest.mark.parametrize("battery", sorted(set(BATTERIES.values()), key=str), ids=lambda f: f.__name__)
def test_the_batteries_pass_as_it_is(battery):
    battery(load(augment))


@pytest.mark.parametrize("name", BATTERIES)
def test_planted_errors_are_caught(name):
    assert survivors(augment, name, BATTERIES[name]) == {what for function, what in EQUIVALENT if function == name}


def test_equivalent_changes_are_of_functions_that_exist():
    assert {function for function, _ in EQUIVALENT} | BATTERIES.keys() <= set(definitions(augment))
