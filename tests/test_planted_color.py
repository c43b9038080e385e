"""Planted errors in colours, erasing, mixing, policies, streams and the data set: each makes a check fail."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from planted import REST, definitions, load, survivors
from test_augment_color import (
    BAD,
    CASES,
    HIGH,
    RANGED,
    adds_normal_noise,
    equalizes_as_pillow,
    equals_reference,
    keeps_a_range,
    near,
    noise_of_a_sample_is_its_own,
    noise_of_large_images,
    photo,
    refuses,
    refuses_bright,
    refuses_endless,
    shifts_channels,
    takes_a_number_for_each_image,
    turns_red_to_green,
    white_and_black_stay,
)
from test_augment_policies import (
    BAD_DATA,
    BAD_ERASING,
    BAD_MIXING,
    BAD_POLICIES,
    BAD_STREAMS,
    BOXES,
    ERASING,
    cuts_out,
    does_not_depend_on_the_batch,
    does_what_the_table_says,
    draws_as_many_numbers_as_said,
    draws_as_numpy,
    erases_as_torchvision,
    gives_samples,
    goes_into_cross_entropy,
    goes_on_from_its_state,
    has_torchvisions_space,
    mixes_as_torchvision,
    moves_masks_with_images,
    names_the_sample,
    operates_as_torchvision,
    pastes_as_torchvision,
    refuses_data,
    refuses_epochs_and_samples,
    refuses_erasing,
    refuses_mixing,
    refuses_policies,
    refuses_sizes,
    refuses_streams,
    refuses_what_is_not_finite,
    takes_arrays_of_several_libraries,
    takes_torch_data_sets,
)

from dlopt_course import augment


def by_python(module):
    """The module with its kernels run by Python, in which an error is planted faster than compiled; warps apart.

    There are none for uint16 and float64: so the readable forms, which are for other libraries, are tried as well."""
    module._KERNELS = {dtype: module._KERNELS[dtype] for dtype in "Bf"}
    for name in BATTERIES:
        if hasattr(vars(module)[name], "__wrapped__"):
            setattr(module, name, vars(module)[name].__wrapped__)
    module.warp, module.warp_masks = augment.warp, augment.warp_masks
    return module


def one(*names):
    "The battery of some operations: every dtype and number of channels, and bad input."

    def battery(module):
        module = by_python(module)
        cases = [(name, *values) for name, *values in CASES if name in names]
        for dtype in ("float32", "uint8", "float64"):
            for channels in (3, 1):
                for case in cases:
                    equals_reference(module, *case, dtype=dtype, channels=channels)
            takes_a_number_for_each_image(module, dtype, names)
            keeps_a_range(module, names)
        refuses_bright(module, [name for name in names if name in {case[0] for case in RANGED}])
        refuses_endless(module, [name for name in names if name in ("autocontrast", "equalize")])
        for row in BAD:
            if row[0] in names:
                refuses(module, *row)

    return battery


def all_colors(module):
    "What all operations share."
    module = by_python(module)
    for name in ("adjust_brightness", "grayscale", "adjust_contrast"):
        one(name)(module)
    shifts_channels(module, "float64")
    shifts_channels(module, "uint8")
    adjusts_in_blocks(module)
    x = photo("float64", 3, (3, 3)) / 2
    np.testing.assert_array_equal(module.adjust_brightness(x, 3.0, high=0.5), np.minimum(3 * x, 0.5))
    for fast in (photo(), photo("float32"), photo()[:1, :1, :1, :1]):
        assert module._fast(fast)
    for other in (photo("uint16"), photo()[0], photo()[:0], "cat"):
        assert not module._fast(other)
    refuses(module, "autocontrast", photo()[0], (), {}, "image")
    keeps_other_channels(module)


def adjusts_in_blocks(module):
    "Images one by one, on threads; an image larger than a block; read-only and backward ones."
    x = photo("float32")
    expected = module.adjust_brightness(x, 0.5)
    x.setflags(write=False)
    seen = []
    module._by_images(lambda rows: seen.append((rows.start, rows.stop)), x, 2 * x[0].size)
    assert sorted(seen) == [(0, 2), (2, 4)]
    seen.clear()
    module._by_images(lambda rows: seen.append((rows.start, rows.stop)), x, x[0].size - 1)
    assert sorted(seen) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    seen.clear()
    module._by_images(lambda rows: seen.append((rows.start, rows.stop)), x, 4 * x[0].size)
    assert seen == [(0, 4)]
    assert module._plain(x).flags.writeable
    backward = module._plain(x[:, ::-1])
    assert backward.flags.c_contiguous
    np.testing.assert_array_equal(backward, x[:, ::-1])
    own = x.copy()
    assert module._plain(own) is own
    np.testing.assert_array_equal(module.adjust_brightness(x, 0.5), expected)


def keeps_other_channels(module):
    "Two channels: by the readable form."
    x = photo("uint8", 2)
    np.testing.assert_array_equal(module.autocontrast(x)[..., :1], module.autocontrast(x[..., :1]))
    with pytest.raises(ValueError, match="1 or 3 channels"):
        module.adjust_contrast(x, 1.0)


def shifts(module):
    module = by_python(module)
    one("channel_shift", "adjust_brightness")(module)
    for dtype in ("float32", "uint8", "float64"):
        shifts_channels(module, dtype)


def bits(module):
    one("posterize", "solarize")(module)
    for dtype in ("float32", "float64"):
        x = photo(dtype) - 0.5
        np.testing.assert_array_equal(module.posterize(x, 3), module.posterize(np.maximum(x, 0), 3))
    for name, value in (("posterize", 11), ("posterize", 16), ("solarize", 5000.0)):
        equals_reference(module, name, *((value,) if name == "posterize" else (value / 65535,)), dtype="uint16")


def contrast(module):
    one("autocontrast", "adjust_contrast", "adjust_brightness")(module)
    keeps_other_channels(module)
    equals_reference(module, "autocontrast", dtype="uint8", size=(30, 29))
    equals_reference(module, "autocontrast", dtype="float32", size=(30, 29))
    equals_reference(module, "adjust_contrast", 1.4, dtype="float32", size=(30, 29))


def stretching(module):
    shifts(module)
    contrast(module)


def greys(module):
    one("grayscale", "adjust_saturation", "adjust_contrast")(module)
    white_and_black_stay(module)
    x = 3 * photo("float32") - 1
    assert (module.grayscale(x, channels=1) < 0).any()
    assert module.grayscale(x[..., :1], channels=3).shape[3] == 3


def hues(module):
    one("adjust_hue")(module)
    turns_red_to_green(module)
    white_and_black_stay(module)


def sharpness(module):
    one("adjust_sharpness")(module)
    for size in ((3, 3), (2, 5), (5, 2), (3, 4), (4, 3)):
        for dtype in ("uint8", "float64"):
            equals_reference(module, "adjust_sharpness", 0.4, dtype=dtype, size=size)


def equalizing(module):
    equalizes_as_pillow(by_python(module))
    keeps_a_range(module, ("equalize",))
    x = np.random.default_rng(0).permutation(256).astype(np.uint8).reshape(1, 16, 16, 1)  # 255 pixels are a step
    np.testing.assert_array_equal(module.equalize(x), x)
    np.testing.assert_allclose(module.equalize(x / 255) * 255, x, rtol=1e-12)
    few = np.minimum(np.arange(300) % 200, 155).astype(np.uint8).reshape(1, 15, 20, 1)
    few[few == 155] = np.where(np.arange((few == 155).sum()) < 45, 155, 3)  # 255 pixels are below the largest value
    exact = np.asarray(ImageOps.equalize(Image.fromarray(few[0, ..., 0])))[None, ..., None]
    assert (exact != few).any()
    np.testing.assert_array_equal(module.equalize(few), exact)
    y = np.tile(x, (1, 1, 3, 1))
    y[0, :, 16:, 0] //= 3
    expected = module.equalize(y)
    np.testing.assert_array_equal(np.rint(module.equalize(y / 255) * 255), expected)
    far = np.where(y == 255, 2.0, np.where(y == 0, -1.0, y / 255))
    far[far > 1] = 1.0009
    np.testing.assert_array_equal(np.rint(module.equalize(far) * 255), expected)
    one("equalize")(module)


def noise(module):
    adds_normal_noise(by_python(module))
    noise_of_a_sample_is_its_own(module)
    noise_of_large_images(module)
    noise_elsewhere(module)
    one("add_noise")(module)


def noise_elsewhere(module):
    "On another library; numbers that are cut off, too."
    for dtype in ("uint8", "float64"):
        x, high = photo(dtype), HIGH[dtype]
        expected = module.add_noise(x, 0.3 * high, np.random.default_rng(2))
        found = module.add_noise(torch.asarray(x), 0.3 * high, np.random.default_rng(2)).numpy()
        near(found, expected / high, dtype, rounding=1e-3)


def erasing(module):
    module = by_python(module)
    for options in ERASING:
        erases_as_torchvision(module, options)
    cuts_out(module)
    for row in BAD_ERASING:
        refuses_erasing(module, *row)
    refuses_what_is_not_finite(module)
    draws_as_many_numbers_as_said(module)


def erasing_elsewhere(module):
    "On another library."
    x = photo("float32", 3, (9, 8))
    for name, options in (("random_erasing", {"probability": 1.0, "value": [1, 2, 3]}), ("cutout", {"size": 3})):
        expected = getattr(module, name)(x, np.random.default_rng(2), **options)
        found = getattr(module, name)(torch.asarray(x), np.random.default_rng(2), **options)
        np.testing.assert_array_equal(found.numpy(), expected)


def erasing_everywhere(module):
    erasing(module)
    erasing_elsewhere(module)


def mixing(module):
    module = by_python(module)
    for dtype in ("float32", "uint8", "float64"):
        mixes_as_torchvision(module, dtype, 0.7)
    for u in BOXES:
        pastes_as_torchvision(module, "uint8", np.array(u))
    mixes_as_torchvision(module, "float64", 1.0)
    goes_into_cross_entropy(module, "float64")
    for row in BAD_MIXING:
        refuses_mixing(module, *row)
    draws_as_many_numbers_as_said(module)
    x, labels = photo("float64", 3, (30, 30)), np.array([0, 1, 2, 0])
    for mix in (module.mixup, module.cutmix):
        expected = mix(x, labels, np.random.default_rng(3), classes=3)
        found = mix(torch.asarray(x), torch.asarray(labels), np.random.default_rng(3), classes=3)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-12)
        alone = mix(x, labels, np.random.default_rng(3), classes=3, alpha=1.0)
        np.testing.assert_array_equal(alone[0], expected[0])


def draws(module):
    has_torchvisions_space(by_python(module), (17, 23), 31)
    has_torchvisions_space(module, (20, 30), 2)
    for row in BAD_POLICIES:
        refuses_policies(module, *row)
    does_what_the_table_says(module)


def operations(module):
    module = by_python(module)
    for name in module._NAMES:
        operates_as_torchvision(module, "TrivialAugmentWide", name, "float32", strengths=(0, 7, 16, 29))
    does_what_the_table_says(module)
    for row in BAD_POLICIES:
        refuses_policies(module, *row)
    x = np.full((2, 3, 3, 1), [[[[2.0]]], [[[0.5]]]])
    with pytest.raises(ValueError, match="must not exceed high"):  # whichever image an operation is for
        module.apply_operations(x, ([["Identity"], ["Brightness"]], [[0.0], [0.1]]))
    x = np.full((1, 3, 3, 1), 0.5)
    many = photo("float64", 3, (9, 8))
    found = module.rand_augment(torch.asarray(many), np.random.default_rng(4))
    np.testing.assert_allclose(found.numpy(), module.rand_augment(many, np.random.default_rng(4)), atol=1e-12)
    far = ([["TranslateX"]], [[9.0]])
    np.testing.assert_array_equal(module.apply_operations(x, far), 0 * x)
    does_not_depend_on_the_batch(module)


def streams(module):
    for seed, epoch in ((0, 1), (5, 0), (2**64 - 1, 2**63)):
        draws_as_numpy(module, seed, epoch)
    goes_on_from_its_state(module)
    refuses_sizes(module)
    for row in BAD_STREAMS:
        refuses_streams(module, *row)


def data_set(module):
    module = by_python(module)
    gives_samples(module)
    moves_masks_with_images(module)
    takes_torch_data_sets(module)
    takes_arrays_of_several_libraries(module)
    names_the_sample(module)
    refuses_epochs_and_samples(module)
    for row in BAD_DATA:
        refuses_data(module, *row)


GROUPS = {
    all_colors: "_fast _top _checked _high _each_image _wide _recolor _compiled _plain _by_images",
    stretching: "_stretch _stretch_colors _stretched",
    shifts: "adjust_brightness channel_shift",
    contrast: "adjust_contrast _contrasted _channel_sums _channel_means _fit_ends autocontrast _contrast_stretched",
    greys: "_greys _saturate adjust_saturation grayscale _to_grey",
    hues: "_turn_hue _hue_turned adjust_hue",
    sharpness: "_sharpen _sharpened adjust_sharpness",
    bits: "_cut_bits posterize _keep_bits _bits_cut _flip_bright solarize",
    equalizing: "_equalized equalize _even",
    noise: "_add_normals _noisy add_noise",
    erasing_everywhere: "_range _fill_value _erase _random_boxes random_erasing cutout",
    mixing: "_soft_targets _beta _before _mix mixup _mixed cutmix _cutmix_box _pasted",
    draws: "Operations _grid _magnitudes _drawn draw_rand_augment draw_trivial_augment",
    operations: "_policy_matrices _check_operations _one_each apply_operations rand_augment trivial_augment",
    streams: "SampleStreams _word _checked_indices _uniforms",
    data_set: "AugmentedDataset _check_data _one_array _row _columns _stacked",
}
BATTERIES = {name: battery for battery, names in GROUPS.items() for name in names.split()}
KERNELS = [
    "_stretch",
    "_stretch_colors",
    "_to_grey",
    "_saturate",
    "_turn_hue",
    "_sharpen",
    "_cut_bits",
    "_keep_bits",
    "_flip_bright",
    "_equalized",
    "_mix",
]
FORMS = "the readable form, which gives the same"
SCRATCH = "how much room there is for sums that are added up in the end"
BLOCKS = "how the images are cut into blocks"
UNUSED = "numbers that nothing reads"
EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    ("_recolor", "1  ->  2  in  -1"): REST,
    ("_recolor", "2  ->  3  in  len(columns) + 2"): UNUSED,
    ("channel_shift", "1  ->  2  in  -1"): REST,
    ("_channel_sums", "1  ->  2  in  -1"): REST,
    ("_fit_ends", "1  ->  2  in  -1"): REST,
    ("_mix", "1  ->  2  in  -1  (3)"): REST,
    ("_stretched", "3  ->  4  in  {1: _stretch, 3: _stretch_colors}"): FORMS,
    ("_stretched", "np.ndim(x) == 2  ->  np.ndim(x) != 2"): "numbers for each channel that are the same for all",
    ("_stretched", "x - centre  ->  x + centre"): "the readable form is only called with a centre of 0",
    ("adjust_contrast", "not _fast(images)  ->  _fast(images)"): FORMS,
    ("autocontrast", "3  ->  4  in  (1, 3)"): FORMS,
    ("autocontrast", "not _fast(images)  ->  _fast(images)"): FORMS,
    ("autocontrast", "2  ->  3  in  (2, 64 * c)"): UNUSED,
    ("autocontrast", "64  ->  65  in  64 * c"): SCRATCH,
    ("autocontrast", "64 * c  ->  c"): SCRATCH,
    ("_channel_means", "32  ->  33  in  32 * c"): SCRATCH,
    ("_channel_means", "32 * c  ->  c"): SCRATCH,
    ("_sharpen", "end - c  ->  end + c"): "the loop ends with the shortest part",
    ("_sharpen", "end - c  ->  end + c  (2)"): "the loop ends with the shortest part",
    ("_sharpen", "width - c  ->  width + c"): "the loop ends with the shortest part",
    ("adjust_sharpness", "1  ->  2  in  1:3"): "two rows have no inside either way",
    ("equalize", "16  ->  17  in  2 ** 16"): BLOCKS,
    ("equalize", "2  ->  3  in  2 ** 16"): BLOCKS,
    ("equalize", "2 ** 16  ->  2"): BLOCKS,
    ("_even", "256  ->  257  in  (images.shape[3], 256)"): UNUSED,
    ("_add_normals", "0  ->  1  in  key=0"): "the seed takes its place",
    ("_add_normals", "13  ->  14  in  2 ** 13"): BLOCKS,
    ("_add_normals", "2  ->  3  in  2 ** 13"): BLOCKS,
    ("_add_normals", "2 ** 13  ->  2"): BLOCKS,
    ("_noisy", "15  ->  16  in  2 ** 15"): BLOCKS,
    ("_noisy", "2  ->  3  in  2 ** 15"): BLOCKS,
    ("_noisy", "2 ** 15  ->  2"): BLOCKS,
    ("_noisy", "1  ->  2  in  -1"): REST,
    ("_turn_hue", "hue + shift + three  ->  hue + shift - three"): "half the circle one way or the other",
    ("_contrast_stretched", "0  ->  1  in  0 * most"): "only keeps 0 / 0 away where the result is not taken",
    ("_contrast_stretched", "0 * most  ->  0"): "only keeps 0 / 0 away where the result is not taken",
    ("_contrast_stretched", "0 * most  ->  0 / most"): "only keeps 0 / 0 away where the result is not taken",
    ("_contrast_stretched", "0 * most  ->  most"): "only keeps 0 / 0 away where the result is not taken",
    ("_contrast_stretched", "high + 0 * most  ->  high - 0 * most"): "only keeps 0 / 0 away",
    ("_random_boxes", "20  ->  21  in  1:20:2"): "every other number up to 19",
    ("_random_boxes", "21  ->  22  in  2:21:2"): "every other number up to 20",
    ("_pasted", "top >= bottom or left >= right  ->  top >= bottom and left >= right"): "an empty box is put in",
    ("draw_trivial_augment", "2  ->  3  in  :2"): UNUSED,
    ("draw_rand_augment", "1  ->  2  in  bins - 1"): "the words of an error",
    ("draw_rand_augment", "bins - 1  ->  bins + 1"): "the words of an error",
    ("SampleStreams", "4  ->  5  in  (self.position // 4, 4)"): "NumPy's buffer is empty from 4 on",
    ("AugmentedDataset", "0  ->  1  in  columns[0]"): "targets are a list where images are",
    ("AugmentedDataset", "0  ->  1  in  self.data[0]"): "there are as many targets as images",
    ("AugmentedDataset", "1  ->  2  in  torch.zeros(1, dtype=torch.int64)"): UNUSED,
    ("_check_data", "0  ->  1  in  x.shape[0] if x.ndim else 0"): "the words of an error",
} | {(name, f"1  ->  2  in  -1{again}"): REST for name in KERNELS for again in ("", "  (2)")}


@pytest.mark.parametrize("battery", GROUPS, ids=lambda f: f.__name__)
def test_the_batteries_pass_as_it_is(battery, one_thread):
    battery(load(augment))


@pytest.mark.parametrize("name", BATTERIES)
def test_planted_errors_are_caught(name, one_thread):
    found = survivors(augment, name, BATTERIES[name])
    assert found == {what for function, what in EQUIVALENT if function == name}


def test_every_function_has_a_battery():
    assert set(BATTERIES) <= set(definitions(augment))
    assert {function for function, _ in EQUIVALENT} <= set(BATTERIES)
