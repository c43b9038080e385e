"""Planted errors: a wrong sign, factor, limit or index in any function of the geometry makes a check fail."""

import re

import numpy as np
import pytest
import torch
from planted import load, survivors
from test_augment_warp import (
    BAD,
    DTYPES,
    MODES,
    PADDED,
    boxes_move,
    by_scipy,
    centres_rightly,
    composes,
    converts_to_keras_and_back,
    converts_to_torchvision_and_back,
    crops_are_slices,
    dots_move,
    half_way,
    masks_move,
    pictures,
    quarter_turns_are_rot90,
    random_crops_are_windows,
    refuses,
    resizes_as_torch,
    resizes_boxes,
    resizes_each_box,
    scattered,
    takes_the_middle,
    turns_exactly,
)

from dlopt_course import augment

KERNELS = ("_places", "_mean_of_four", "_pick", "_mirror_rows", "_mirror_words", "_windows", "_resample")


@pytest.fixture(autouse=True)
def one(one_thread):
    "Planted errors are looked for in what is computed."


def by_python(module):
    "The kernels run by Python: compiling each mutant would take seconds."
    for name in KERNELS:
        setattr(module, name, getattr(module, name).__wrapped__)
    return module


CASES = []  # images, matrices, order, mode, size, what SciPy makes of them
for seed, (shape, size) in enumerate(
    (((1, 3, 4, 3), (3, 5)), ((1, 1, 2, 1), (2, 2)), ((1, 2, 1, 2), (2, 3)), ((2, 2, 3, 3), (2, 2)))
):
    for mode in MODES:
        for order in (0, 1):
            for m in (scattered(shape[0], seed, 0.6), half_way(shape[0], seed)):
                x = pictures(shape, seed=seed)
                CASES.append((x, m, order, mode, size, by_scipy(x, m, order, mode, 0.3, size)))


BEYOND = np.array([[1.0, 0, 2.25], [0, 1, -1.75], [0, 0, 1]])  # a part of the image, and of what is beside it
AT_ONE_END = [  # coordinates of which only the last, the first, or those of some rows are outside
    [[1, 0, 0.75], [0, 1, 0]],
    [[-1, 0, 3.75], [0, 1, 0]],
    [[-1, 0, 2.25], [0, 1, 0]],
    [[1, -0.25, 0.5], [0, 1, 0]],
    [[1, 0, 0], [0, -1, 2.75]],
]
for mode in MODES:
    for order in (0, 1):
        near = [np.eye(3) + s * (BEYOND - np.eye(3)) for s in (1, -1, 2.4, -2.4)]
        for m in near + [np.array([*rows, [0, 0, 1]]) for rows in AT_ONE_END]:
            x = pictures((1, 3, 4, 1))
            CASES.append((x, m[None], order, mode, (3, 4), by_scipy(x, m, order, mode, 0.3, (3, 4))))


def warps(module):
    "Each form against SciPy, in all modes."
    by_python(module)
    refuse(module)
    assert [np.dtype(module._wide(np.dtype(d))) for d in DTYPES] == [np.float32, np.float64, np.float32, np.float64]
    for x, m, order, mode, size, expected in CASES:
        for module._BLOCK in (2**17, 30)[: len(x)]:  # values: together, or each for itself
            found = module.warp(x, m, order=order, fill_mode=mode, cval=0.3, output_size=size)
            np.testing.assert_allclose(found, expected, atol=1e-11)
    module._BLOCK = 2**17
    x = pictures((1, 3, 4, 1))
    np.testing.assert_allclose(
        module.warp(x, BEYOND, fill_mode="constant"), by_scipy(x, BEYOND, 1, "constant", 0, (3, 4))
    )
    x, inside = pictures((1, 40, 40, 1)), np.array([[0.5, 0.1, 9.3], [-0.1, 0.5, 12.7], [0, 0, 1]])
    np.testing.assert_allclose(module.warp(x, inside), by_scipy(x, inside, 1, "nearest", 0, (40, 40)), atol=1e-12)
    for dtype, most in (("uint8", 255), ("uint16", 65535), ("float32", 1)):
        x = pictures((2, 3, 4, 3), dtype)
        for order, mode, cval in (
            (1, "nearest", 0),
            (1, "grid-constant", 1e6),
            (1, "constant", -4),
            (0, "constant", 2.5),
        ):
            found = module.warp(x, BEYOND, order=order, fill_mode=mode, cval=cval)
            edge = np.floor(min(max(cval, 0), most) + 0.5) if most > 1 else cval
            expected = by_scipy(x, BEYOND, order, mode, edge, (3, 4))
            assert found.dtype == dtype
            np.testing.assert_allclose(found, np.floor(expected + 0.5) if most > 1 else expected, rtol=1e-6, atol=1e-6)
            wide = np.empty((2, 3, 4, 3))
            module._warp_into(x, BEYOND[None], wide, order, mode, 0.25)
            np.testing.assert_allclose(
                wide, by_scipy(x, BEYOND, order, mode, 0.25 if order else wide[0, 0, -1, 0], (3, 4)), atol=1e-9
            )


def warps_readably(module):
    for x, m, order, mode, size, expected in CASES:
        found = module.warp(torch.from_numpy(x), m, order=order, fill_mode=mode, cval=0.3, output_size=size)
        np.testing.assert_allclose(found, expected, atol=1e-11)
    x = torch.from_numpy(pictures((1, 4, 4, 1), "uint8"))
    found = module.warp(x, np.diag([1, 1, 1.0]), fill_mode="constant", output_size=(5, 4), cval=300)
    assert found[0, 4, 0, 0] == 255
    assert (found[:, :4] == x).all()
    assert not module.warp(x * 0, BEYOND).any()
    turned = module.warp(x, BEYOND)
    expected = by_scipy(x.numpy(), BEYOND, 1, "nearest", 0, (4, 4))
    np.testing.assert_array_equal(turned, np.floor(expected + 0.5))
    wide = torch.from_numpy(pictures((1, 4, 4, 1), "float32"))
    assert module.warp(wide, BEYOND).dtype == torch.float32
    refuse(module)


def folds(module):
    warps_readably(module)
    crops(module)


def refuse(module):
    for row in BAD:
        refuses(module, *row)


def blocks(module):
    "How many images are worked on together."
    module._BLOCK = 100
    for threads, n, values, block, expected in (
        (3, 4, 25, None, 4),
        (3, 5, 25, None, 2),
        (1, 5, 25, None, 4),
        (1, 3, 200, None, 1),
        (3, 7, 200, 1000, 3),
        (3, 1, 99, None, 1),
    ):
        module.num_threads = lambda threads=threads: threads
        assert module._rows_together(n, values, block) == expected
    seen = []
    kernel = lambda x, y, out: seen.append((len(x), len(y), len(out)))  # noqa: E731
    out = np.zeros((6, 2))
    assert module._on_blocks(kernel, np.zeros((6, 3)), out, np.zeros(6), block=9) is out
    assert seen == [(2, 2, 2)] * 3


def matrices(module):
    composes(module)
    turns_exactly(module)
    refuse(module)


def moves(module):
    by_python(module)
    quarter_turns_are_rot90(module)
    x = np.zeros((1, 5, 5, 1))
    x[0, 1, 3] = 1
    assert module.shift(x, -1, 2)[0, 3, 2, 0] == 1
    assert module.zoom(x, 2)[0, 0, 4, 0] == pytest.approx(1)
    assert module.shear(x, 45)[0, 1, 4, 0] == pytest.approx(1)


def crops(module):
    by_python(module)
    shapes = ((2, 3, 17, 3), (1, 2, 5, 3), (1, 2, 17, 2), (2, 3, 8, 3), (1, 2, 8, 2), (1, 2, 8, 4), (1, 1, 16, 3))
    for shape, dtype in [((2, 2, 8, 3), "float32"), *((shape, "uint8") for shape in shapes)]:
        x = pictures(shape, dtype)
        for y in (x, torch.from_numpy(x)):
            np.testing.assert_array_equal(module.hflip(y), x[:, :, ::-1])
            np.testing.assert_array_equal(module.vflip(y), x[:, ::-1])
        np.testing.assert_array_equal(module.to_nchw(x), x.transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(module.to_nhwc(x), x.transpose(0, 2, 3, 1))
        assert module.to_nchw(x).flags.c_contiguous
    same = torch.from_numpy(x)
    assert module.to_nchw(same).data_ptr() != same.data_ptr()
    pad = module.random_crop(x, (3, 18), np.random.default_rng(0), padding=1)
    np.testing.assert_array_equal(pad, np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
    assert module.random_crop(x, x.shape[1:3], np.random.default_rng(0)).tolist() == x.tolist()
    for make in (np.asarray, torch.asarray):
        crops_are_slices(module, make)
        for mode in (*PADDED, "grid-constant"):
            random_crops_are_windows(module, mode, make)
    x = pictures((1, 8, 8, 3), "uint8")
    np.testing.assert_array_equal(module.resize(x, (4, 4), order=0), x[:, 1::2, 1::2])
    readonly = np.broadcast_to(x, x.shape)
    np.testing.assert_array_equal(module.hflip(readonly), x[:, :, ::-1])
    wrapped = module.random_crop(
        np.arange(4.0).reshape(1, 1, 4, 1), (1, 10), np.random.default_rng(0), padding=(3, 0), fill_mode="wrap"
    )
    assert wrapped.ravel().tolist() == [3, 1, 2, 0, 1, 2, 3, 1, 2, 3] or wrapped.ravel().tolist()[3:7] == [0, 1, 2, 3]
    refuse(module)


def sizes(module):
    by_python(module)
    refuse(module)
    takes_the_middle(module)
    for shape, size in (
        ((1, 4, 5, 3), (2, 3)),
        ((1, 2, 3, 3), (5, 4)),
        ((1, 4, 2, 2), (2, 5)),
        ((1, 4, 3, 2), (6, 5)),
        ((1, 20, 2, 3), (4, 2)),
        ((1, 2, 20, 3), (2, 4)),
        ((1, 1, 1, 1), (2, 2)),
    ):
        for antialias in (True, False):
            for dtype in ("uint8", "float32", "float64") if size == (5, 4) else ("float64",):
                resizes_as_torch(module, shape, size, dtype, antialias)
            resizes_as_torch(module, shape, size, "float64", antialias, torch.asarray)
    x = pictures((1, 6, 6, 1))
    np.testing.assert_array_equal(module.resize(x, (2, 2)), module.resize(x, (2, 2), antialias=True))
    assert abs(module.resize(x, (2, 2)) - module.resize(x, (2, 2), antialias=False)).max() > 0.01
    exact = pictures((1, 4, 4, 1), "uint16")
    assert abs(module.resize(exact, (4, 4)).astype(int) - exact).max() == 0
    resizes_each_box(module, (2, 3))
    resizes_each_box(module, (6, 7))
    resizes_boxes(module)
    resizes_boxes(module, torch.asarray)


def points(module):
    by_python(module)
    dots_move(module)
    dots_move(module, torch.asarray)
    boxes_move(module)
    refuse(module)


def masks(module):
    by_python(module)
    masks_move(module, "int32")
    masks_move(module, "bool", torch.asarray)
    with pytest.raises(ValueError, match="cval must be whole, from 0 to 1, got 2"):
        module.warp_masks(np.ones((1, 2, 2), bool), np.eye(3), cval=2)
    assert module.warp_masks(np.array([[[2**62 + 1, 3]]]), np.eye(3)).tolist() == [[[2**62 + 1, 3]]]
    refuse(module)


def converters(module):
    converts_to_keras_and_back(module)
    centres_rightly(module)
    converts_to_torchvision_and_back(module)
    np.testing.assert_allclose(  # a recorded matrix: theta, tx, shear, zx, zy, flip
        module.from_keras(
            {"theta": 90, "tx": 1, "ty": 2, "shear": 30, "zx": 2, "zy": 3, "flip_horizontal": True}, (3, 5)
        ),
        np.array([[0, -2.598076, 2.598076], [-2, -1.5, 7.5], [0, 0, 1]]),
        atol=1e-6,
    )
    upside_down = module.from_keras({"flip_vertical": np.array([True, False])}, (3, 5))
    np.testing.assert_allclose(upside_down, [[[1, 0, 0], [0, -1, 2], [0, 0, 1]], np.eye(3)])
    forward = np.linalg.inv(module.from_torchvision(90, (1, 2), 2, (0, 0), (3, 5)))
    np.testing.assert_allclose(forward @ [3, 1, 1], [2 + 1 - 0, 1 + 2 + 2, 1], atol=1e-12)  # clockwise
    refuse(module)


BATTERIES = {
    warps: [
        "_places",
        "_mean_of_four",
        "_pick",
        "_ready",
        "_interpolated",
        "_nearest",
        "_found_places",
        "_wide",
        "_warp_into",
        "_warp_block",
        "warp",
        "_fitting",
        "_check_matrix",
    ],
    warps_readably: ["_taps", "_warp_array", "_as_dtype"],
    folds: ["_fold"],
    blocks: ["_rows_together", "_on_blocks"],
    matrices: [
        "affine_matrix",
        "_cosine_and_sine",
        "_matrices",
        "_shape",
        "_check_size",
        "_numbers",
        "_pair",
        "_check_images",
        "_dtype_name",
    ],
    moves: ["rotate", "shift", "zoom", "shear", "_size"],
    crops: [
        "hflip",
        "vflip",
        "_mirror_rows",
        "_mirror_words",
        "_windows",
        "_bits",
        "_plain",
        "_corners",
        "_take",
        "crop",
        "_border_index",
        "random_crop",
        "_check_padding",
        "to_nchw",
        "to_nhwc",
        "_moved",
    ],
    sizes: [
        "_tent",
        "_resize_array",
        "resize",
        "_resample",
        "_resized",
        "random_resized_crop",
        "_box_range",
        "_crop_boxes",
    ],
    points: ["_check_boxes", "transform_points", "transform_boxes"],
    masks: ["warp_masks"],
    converters: [
        "from_keras",
        "to_keras",
        "_keras_parameters",
        "_keras_centre",
        "from_torchvision",
        "to_torchvision",
        "_one_matrix",
    ],
}
INSIDE = "coordinates inside are left alone by the rule for those outside: the same, more slowly"
CORNER = "one of the two coordinates beside the image is enough, and a margin's weight is 1"
TOGETHER = "only how many are worked on at a time"
HUGE = "only images of 2^32 values get there"
WRITTEN_OUT = "any number of channels is done alike, three only faster"
ROOM = "only how much room there is"
ALIKE = "all the zeros are the same"
SLOWER = "another run of columns is copied at once, the rest pixel by pixel: the same, more slowly"
HIDDEN = "what is put where nothing is seen"
EQUIVALENT = {  # function: planted change, and why nobody could see it
    "_places": {
        "-1.0  ->  1.0": CORNER,
        "0  ->  1  in  high[0]  (2)": CORNER,
        "1.0  ->  2.0  in  high[0] + 1.0": CORNER,
        "high[0] + 1.0  ->  high[0] - 1.0": CORNER,
        "0.0  ->  1.0  in  (0.0, last)": INSIDE,
        "0.0  ->  1.0  in  c[x] < 0.0  (2)": INSIDE,
        "0.0  ->  1.0  in  c[x] >= 0.0": INSIDE,
        "0.0  ->  1.0  in  smallest >= 0.0": INSIDE,
        "True  ->  False  in  (min(together, height - top), True)": INSIDE,
        "1  ->  2  in  max(1, 512 // width)": TOGETHER,
        "512  ->  513  in  512 // width": TOGETHER,
        "2  ->  3  in  (2, together * width)": ROOM,
        "1.0  ->  2.0  in  high += 1.0": "wrapped coordinates end there anyway",
    },
    "_mean_of_four": {"3  ->  4  in  channels == 3": WRITTEN_OUT},
    "_pick": {"3  ->  4  in  channels == 3": WRITTEN_OUT},
    "_nearest": {
        "0  ->  1  in  _ready(images, images.dtype, 0, cval)": "the first four modes are copied alike",
    },
    "_found_places": dict.fromkeys(
        ("0  ->  1  in  (shape[0], shape[1], 0)", "0  ->  1  in  shape[0]", "1  ->  2  in  shape[1]"), ROOM
    ),
    "_check_matrix": {
        "1000000000000.0  ->  1000000000001.0  in  np.abs(m).max() <= 1000000000000.0": "any large one would do"
    },
    "_taps": {"1  ->  2  in  n - 1  (4)": "the last pixel is its own mirror image"},
    "_dtype_name": {"1  ->  2  in  str(dtype).rsplit('.', 1)": "the last part is taken"},
    "hflip": {"sys.byteorder == 'little'  ->  sys.byteorder != 'little'": "the other kernel gives the same"},
    "_plain": {
        "images.flags.c_contiguous and images.flags.writeable  ->  "
        "images.flags.c_contiguous or images.flags.writeable": "Python does what numba would have to compile anew"
    },
    "_take": {
        "0  ->  1  in  np.where(seen, index, 0)": HIDDEN,
        "0  ->  1  in  xp, images, rows, columns, cval=0": HIDDEN,
    },
    "_on_blocks": dict.fromkeys(
        (
            "0  ->  1  in  images[0]",
            "0  ->  1  in  out[0]",
            "2  ->  3  in  2 ** 21",
            "2 ** 21  ->  2",
            "21  ->  22  in  2 ** 21",
        ),
        TOGETHER,
    ),
    "_windows": dict.fromkeys(
        (
            "0  ->  1  in  (0, 0, 0)",
            "0  ->  1  in  (0, 0, 0)  (3)",
            "0  ->  1  in  columns[i, b] == 0",
            "0  ->  1  in  columns[i, start] >= 0",
            "b - start  ->  b + start",
            "b - start > end - first  ->  b - start < end - first",
            "columns[i, b] == 0  ->  columns[i, b] != 0",
            "end - first  ->  end + first",
            "width + 1  ->  width - 1",
        ),
        SLOWER,
    ),
    "_resample": {
        "1  ->  2  in  (2, 1, 1)": ROOM,
        "1  ->  2  in  (2, 1, 1)  (2)": ROOM,
        "2  ->  3  in  (2, 1, 1)": ROOM,
        "1  ->  2  in  1 if rows_first else h": ROOM,
        "1  ->  2  in  max(1, -(-h // height), -(-w // width))": ROOM,
        "2  ->  3  in  (2, max(height, width))": ROOM,
        "2  ->  3  in  (2, max(height, width))  (2)": ROOM,
        "2  ->  3  in  (2, max(height, width), most)": ROOM,
        "2  ->  3  in  2 * max(1, -(-h // height), -(-w // width))": ROOM,
        "3  ->  4  in  3 + 2 * max(1, -(-h // height), -(-w // width))": ROOM,
        "3  ->  4  in  channels == 3": WRITTEN_OUT,
    },
    "_resized": {"1  ->  2  in  np.zeros(1, wide)": ROOM},
    "_crop_boxes": {"20  ->  21  in  1:20:2": "every second number below 20 is every second one below 21"},
    "warp_masks": {
        "0  ->  1  in  found < 0": "the first pixel is number 0 either way",
        "0  ->  1  in  np.where(found < 0, 0, found)": HIDDEN,
        "1  ->  2  in  (n, h, w, 1)": "the first channel is taken",
        "1.0  ->  2.0  in  -1.0": "any negative number says that nothing is seen",
    },
    "_warp_block": dict.fromkeys(
        (
            "(h + 2) * (w + 2)  ->  (h + 2) / (w + 2)",
            "(h + 2) * (w + 2)  ->  h + 2",
            "(h + 2) * (w + 2)  ->  w + 2",
            "(h + 2) * (w + 2) * c  ->  (h + 2) * (w + 2)",
            "(h + 2) * (w + 2) * c  ->  (h + 2) * (w + 2) / c",
            "(h + 2) * (w + 2) * c  ->  c",
            "1  ->  2  in  1:3",
            "1  ->  2  in  2 ** 32 - 1",
            "2  ->  3  in  2 ** 32",
            "2  ->  3  in  h + 2",
            "2  ->  3  in  w + 2",
            "2 ** 32 - 1  ->  2 ** 32 + 1",
            "3  ->  4  in  1:3",
            "32  ->  33  in  2 ** 32",
            "h + 2  ->  h - 2",
            "w + 2  ->  w - 2",
        ),
        HUGE,
    ),
    "_warp_into": dict.fromkeys(("1  ->  2  in  n > 1", "n > 1  ->  n < 1"), "found for each block anew: more slowly"),
}


@pytest.mark.parametrize("battery", BATTERIES, ids=lambda f: f.__name__)
def test_the_batteries_pass_as_it_is(battery):
    battery(load(augment))


@pytest.mark.parametrize(("battery", "name"), [(b, name) for b, names in BATTERIES.items() for name in names])
def test_planted_errors_are_caught(battery, name):
    found = {
        what for what in survivors(augment, name, battery) if not re.fullmatch(r"1  ->  2  in  -1(  \(\d+\))?", what)
    }
    assert found == set(EQUIVALENT.get(name, {}))  # -1 -> -2: NumPy takes any negative number for the length left over
