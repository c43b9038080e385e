"""Geometry of images: against SciPy, PyTorch, torchvision, OpenCV, kornia, Keras and NumPy, pixel by pixel."""

import os
import subprocess
import sys

import cv2
import kornia
import numpy as np
import pytest
import scipy.ndimage
import torch
from backends import BACKENDS, each_backend

from benchmarks.peers import keras_image, torchvision_v2
from dlopt_course import augment
from dlopt_course.augment import affine_matrix, resize, warp

MODES = ("nearest", "reflect", "mirror", "wrap", "grid-wrap", "constant", "grid-constant")
DTYPES = ("uint8", "uint16", "float32", "float64")
HIGH = {"uint8": 255, "uint16": 65535}
CLOSE = {"uint8": 0.5001, "uint16": 0.5001, "float32": 3e-7, "float64": 1e-11}  # integers: rounded to the nearest
SHAPES = [(2, 5, 7, 3), (1, 1, 1, 1), (1, 1, 6, 3), (2, 4, 1, 2), (1, 2, 2, 3)]
each_mode = pytest.mark.parametrize("mode", MODES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def pictures(shape, dtype="float64", seed=0):
    "Random images."
    x = np.random.default_rng(seed).random(shape)
    return (x * HIGH[dtype]).round().astype(dtype) if dtype in HIGH else x.astype(dtype)


def scattered(n, seed, size=2.0):
    "Random matrices: they turn, mirror, shear, zoom, and look far outside."
    m = np.random.default_rng(seed).normal(size=(n, 3, 3)) * size
    m[:, :2, 2] *= 3
    m[:, 2] = 0, 0, 1
    return m


def half_way(n, seed):
    "Matrices that send pixels exactly onto borders, centres and half way between."
    rng, m = np.random.default_rng(seed), np.zeros((n, 3, 3))
    m[:, :2, :2], m[:, :2, 2], m[:, 2, 2] = rng.integers(-4, 5, (n, 2, 2)) / 2, rng.integers(-30, 31, (n, 2)) / 2, 1
    return m


def by_scipy(images, matrices, order, mode, cval, size):
    "scipy.ndimage.affine_transform, channel by channel, in float64."
    out = np.empty((len(images), *size, images.shape[3]))
    for i, m in enumerate(np.broadcast_to(matrices, (len(images), 3, 3))):
        for k in range(images.shape[3]):
            options = {"order": order, "mode": mode, "cval": cval, "output_shape": size}
            x = images[i, :, :, k].astype(np.float64)
            out[i, :, :, k] = scipy.ndimage.affine_transform(x, m[[1, 0]][:, [1, 0]], m[[1, 0], 2], **options)
    return out


def agrees(ours, reference, dtype, atol=None):
    "Of the dtype, and within its tolerance; integers are rounded to the nearest."
    ours = np.asarray(ours)
    assert ours.dtype == dtype
    assert ours.shape == reference.shape
    exact = np.clip(reference, 0, HIGH[dtype]) if dtype in HIGH else reference
    np.testing.assert_allclose(ours.astype(np.float64), exact, rtol=0, atol=CLOSE[dtype] if atol is None else atol)


def equals_scipy(module, shape, dtype, mode, order, matrices, size, make=np.asarray):
    images, cval = pictures(shape, dtype), 7 if dtype in HIGH else 0.3
    found = module.warp(make(images), matrices, order=order, fill_mode=mode, cval=cval, output_size=size)
    exact = dtype in HIGH and order == 0
    agrees(found, by_scipy(images, matrices, order, mode, cval, size), dtype, 0 if exact else None)


@each_mode
@each_dtype
@pytest.mark.parametrize("order", [0, 1])
def test_warp_is_scipys(mode, dtype, order):
    for seed, shape in enumerate(SHAPES):
        for size in ((6, 8), (1, 3)):
            equals_scipy(augment, shape, dtype, mode, order, scattered(shape[0], seed), size)
            equals_scipy(augment, shape, dtype, mode, order, scattered(shape[0], seed, 200.0), size)
            equals_scipy(augment, shape, dtype, mode, order, half_way(shape[0], seed), size)


@each_mode
@pytest.mark.parametrize("backend", ["torch", "strict"])
@pytest.mark.parametrize("order", [0, 1])
def test_the_readable_form_is_scipys(mode, backend, order):
    for seed, shape in enumerate(SHAPES):
        for dtype in ("uint8", "float32", "float64"):
            for matrices in (scattered(shape[0], seed), half_way(shape[0], seed)):
                equals_scipy(augment, shape, dtype, mode, order, matrices, (6, 8), BACKENDS[backend])


@each_backend
def test_the_library_and_the_dtype_stay(backend):
    for dtype in ("uint8", "float32", "float64"):
        images = BACKENDS[backend](pictures((2, 5, 6, 3), dtype))
        for f in FUNCTIONS.values():
            found = f(images)
            assert type(found) is type(images)
            assert found.dtype == images.dtype
            if backend == "cuda":
                assert found.device == images.device


FUNCTIONS = {
    "rotate": lambda x: augment.rotate(x, 20),
    "shift": lambda x: augment.shift(x, 1.5, -1),
    "zoom": lambda x: augment.zoom(x, 1.3),
    "shear": lambda x: augment.shear(x, 10),
    "hflip": lambda x: augment.hflip(x),
    "vflip": lambda x: augment.vflip(x),
    "crop": lambda x: augment.crop(x, 1, 2, 3, 4),
    "random_crop": lambda x: augment.random_crop(x, (5, 6), np.random.default_rng(0), padding=2, cval=1),
    "random_resized_crop": lambda x: augment.random_resized_crop(x, (4, 3), np.random.default_rng(0)),
    "smaller": lambda x: augment.resize(x, (3, 2)),
    "larger": lambda x: augment.resize(x, (9, 8)),
    "no antialias": lambda x: augment.resize(x, (3, 8), antialias=False),
    "nearest": lambda x: augment.resize(x, (3, 8), order=0),
    "to_nchw": lambda x: augment.to_nchw(x),
    "to_nhwc": lambda x: augment.to_nhwc(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_compiled_form_is_the_readable_one(name):
    for channels in (1, 3, 4):
        for dtype in ("uint8", "float32", "float64"):
            images = pictures((3, 5, 6, channels), dtype)
            readable = np.asarray(FUNCTIONS[name](torch.from_numpy(images)))
            agrees(FUNCTIONS[name](images), readable.astype(np.float64), dtype, 1 if dtype == "uint8" else None)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_views_and_read_only_arrays_work_and_nothing_is_changed(name):
    images = pictures((3, 5, 6, 3), "uint8")
    before, expected = images.copy(), FUNCTIONS[name](images)
    wide = np.repeat(images, 2, axis=2)[:, :, ::2]
    readonly = images.copy()
    readonly.flags.writeable = False
    turned = np.ascontiguousarray(images.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    for x in (wide, readonly, turned):
        np.testing.assert_array_equal(FUNCTIONS[name](x), expected)
    found = FUNCTIONS[name](images)
    assert not np.shares_memory(found, images)
    found[...] = 0
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_blocks_and_threads_change_nothing(threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    images, m = pictures((7, 21, 33, 3), "uint8"), scattered(7, 0, 0.7)
    monkeypatch.setattr(augment, "_BLOCK", 21 * 33 * 3 * 2)
    for mode in MODES:
        found = warp(images, m, fill_mode=mode, cval=5)
        one_by_one = [warp(images[i : i + 1], m[i], fill_mode=mode, cval=5) for i in range(7)]
        np.testing.assert_array_equal(found, np.concatenate(one_by_one))
    for f in FUNCTIONS.values():
        f(images)


def test_a_large_image_is_done_row_by_row_rightly():
    for width in (511, 513, 1030):  # around the number of pixels that are worked on together
        equals_scipy(
            augment, (1, 3, width, 3), "float32", "reflect", 1, affine_matrix((3, width), rotation=3), (3, width)
        )


def test_gradients_flow_through_the_readable_form():
    x = torch.rand(1, 4, 5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: augment.rotate(x, 25.0, fill_mode="reflect"), (x,))


# What the matrices mean


def test_signs_as_seen():
    images = np.zeros((1, 5, 5, 1))
    images[0, 2, 4] = 1  # to the right of the centre
    assert augment.rotate(images, 90)[0, 0, 2, 0] == pytest.approx(1)  # counter-clockwise: at the top
    assert augment.shift(images, -1, 2)[0, 4, 3, 0] == 1  # to the left and down
    images = np.zeros((1, 5, 5, 1))
    images[0, 0, 2] = 1
    assert augment.shear(images, 45)[0, 0, 4, 0] == pytest.approx(1)  # the top leans to the right
    images = np.zeros((1, 5, 5, 1))
    images[0, 2, 3] = 1
    assert augment.zoom(images, 2)[0, 2, 4, 0] == 1


def quarter_turns_are_rot90(module):
    for shape in ((2, 5, 5, 3), (1, 4, 4, 1)):
        images = pictures(shape)
        for k in range(5):
            expected = np.rot90(images, k, axes=(1, 2))
            for order in (0, 1):
                for mode in MODES:
                    turned = module.rotate(images, 90 * k, order=order, fill_mode=mode)
                    np.testing.assert_array_equal(turned, expected)


def turns_exactly(module):
    "No entry is 6e-17 where it should be 0."
    for k, (c, s) in enumerate(((1, 0), (0, 1), (-1, 0), (0, -1), (1, 0))):
        for angle in (90 * k, 90.0 * (k - 4)):
            assert module.affine_matrix((3, 3), rotation=angle)[:2, :2].tolist() == [[c, -s], [s, c]]
    many = module.affine_matrix((3, 3), rotation=np.array([30.0, 90, 150]))[:, :2, 0]
    np.testing.assert_allclose(many, [[3**0.5 / 2, 0.5], [0, 1], [-(3**0.5) / 2, 0.5]], rtol=1e-15)


def test_quarter_turns_are_rot90():
    quarter_turns_are_rot90(augment)
    turns_exactly(augment)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("mode", ["constant", "wrap"])
def test_what_lies_on_the_edge_is_decided_as_by_scipy(mode, order):
    images, angles = pictures((1, 5, 9, 1)), np.random.default_rng(0).uniform(-20, 20, 300)
    for theta in angles:  # Keras's centre is on the last row: a rounding decides whether it is inside
        m = augment.from_keras({"theta": theta}, (5, 9), keras_compat=True)
        expected = by_scipy(images, m[None], order, mode, -9.0, (5, 9))
        np.testing.assert_allclose(
            augment.warp(images, m, order=order, fill_mode=mode, cval=-9.0), expected, atol=1e-12
        )


def by_steps(size, rotation, shift, zoom, shear):
    "The same matrix from its definition: forward steps, multiplied and inverted."
    h, w = size
    x, y, r, (sx, sy) = (w - 1) / 2, (h - 1) / 2, np.deg2rad(rotation), np.tan(np.deg2rad(shear))
    centre = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
    turn = np.array([[np.cos(r), np.sin(r), 0], [-np.sin(r), np.cos(r), 0], [0, 0, 1]])
    lean = np.array([[1, 0, 0], [-sy, 1, 0], [0, 0, 1]]) @ np.array([[1, -sx, 0], [0, 1, 0], [0, 0, 1]])
    move = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]])
    return np.linalg.inv(move @ centre @ turn @ lean @ np.diag([*zoom, 1]) @ np.linalg.inv(centre))


def composes(module):
    rng = np.random.default_rng(0)
    rows = [
        (rng.uniform(-180, 180), *rng.uniform(-9, 9, (1, 2)), rng.uniform(0.3, 3, 2), rng.uniform(-60, 60, 2))
        for _ in range(4)
    ]
    expected = np.stack([by_steps((5, 8), *row) for row in rows])
    for row, one in zip(rows, expected, strict=True):
        angle, move, factors, lean = row
        options = {"rotation": angle, "shift": tuple(move), "zoom": tuple(factors), "shear": tuple(lean)}
        np.testing.assert_allclose(module.affine_matrix((5, 8), **options), one, atol=1e-12)
    angle, move, factors, lean = (np.array(x) for x in zip(*rows, strict=True))
    options = {"rotation": angle, "shift": tuple(move.T), "zoom": tuple(factors.T), "shear": tuple(lean.T)}
    np.testing.assert_allclose(module.affine_matrix((5, 8), **options), expected, atol=1e-12)
    both = module.affine_matrix((5, 8), zoom=2, shear=10, shift=(np.array([1, 2]), 3))
    np.testing.assert_allclose(both[1], by_steps((5, 8), 0, (2, 3), (2, 2), (10, 0)), atol=1e-12)
    np.testing.assert_array_equal(module.affine_matrix((5, 8)), np.eye(3))


def test_affine_matrix_is_its_definition():
    composes(augment)


# Peers


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("nearest", "border"), ("grid-constant", "zeros"), ("reflect", "reflection"), ("mirror", "reflection")],
)
@pytest.mark.parametrize("order", [0, 1])
def test_warp_is_grid_sample(corners, ours, theirs, order):
    if theirs == "reflection" and corners != (ours == "mirror"):
        pytest.skip("PyTorch reflects at the centres of the last pixels if corners are aligned, else at their edges")
    images, m = pictures((3, 6, 7, 3)), scattered(3, 1, 1.0)
    row, column = np.mgrid[:5, :8]
    points = np.stack([column, row, np.ones_like(row)], axis=-1) @ np.swapaxes(m[:, None], -1, -2)
    size = np.array([7, 6])
    grid = points[..., :2] / (size - 1) * 2 - 1 if corners else (2 * points[..., :2] + 1) / size - 1
    options = {"mode": ("nearest", "bilinear")[order], "padding_mode": theirs, "align_corners": corners}
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    expected = torch.nn.functional.grid_sample(x, torch.from_numpy(grid), **options).numpy().transpose(0, 2, 3, 1)
    found = warp(images, m, order=order, fill_mode=ours, output_size=(5, 8))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("size", [(6, 6), (5, 8)])
def test_rotate_and_affine_are_torchvisions(size):
    F, bilinear = torchvision_v2().functional, torchvision_v2().InterpolationMode.BILINEAR
    images = pictures((2, *size, 3))
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    found = augment.rotate(images, 33, fill_mode="grid-constant")
    np.testing.assert_allclose(augment.to_nchw(found), F.rotate(x, 33, interpolation=bilinear), atol=1e-5)
    for angle, translate, scale, shear in ((20, (2, -1), 1.2, (10, 0)), (-70, (0, 1), 0.7, (-15, 25))):
        m = augment.from_torchvision(angle, translate, scale, shear, size)
        expected = F.affine(x, angle, list(translate), scale, list(shear), interpolation=bilinear)
        np.testing.assert_allclose(augment.to_nchw(warp(images, m, fill_mode="grid-constant")), expected, atol=1e-5)


def test_rotate_is_kornias():
    images = pictures((2, 9, 7, 3))
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    expected = kornia.geometry.rotate(x, torch.tensor([25.0, -40.0], dtype=torch.float64))
    found = augment.rotate(images, np.array([25.0, -40.0]), fill_mode="grid-constant")
    np.testing.assert_allclose(augment.to_nchw(found), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("nearest", cv2.BORDER_REPLICATE),
        ("reflect", cv2.BORDER_REFLECT),
        ("mirror", cv2.BORDER_REFLECT_101),
        ("grid-constant", cv2.BORDER_CONSTANT),
    ],
)
def test_warp_is_opencvs(ours, theirs):
    images, m = pictures((2, 9, 12, 3), "float32"), affine_matrix((9, 12), rotation=np.array([20.0, -50.0]), zoom=0.9)
    for image, matrix, found in zip(images, m, warp(images, m, fill_mode=ours), strict=True):
        options = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": theirs}
        np.testing.assert_allclose(found, cv2.warpAffine(image, matrix[:2], (12, 9), **options), atol=1e-4)


# Converters


PARAMETERS = [
    {"theta": 20, "tx": 1.5, "ty": -2, "shear": 10, "zx": 0.9, "zy": 1.2},
    {"theta": -100, "shear": -30, "zx": 1.5, "zy": 0.8},
    {"ty": 2.25, "flip_horizontal": True},
    {"zx": 0.5, "tx": 1.0},
    {"theta": 12, "tx": 1, "zy": 0.7, "flip_vertical": True, "brightness": None, "channel_shift_intensity": None},
]


@pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")  # Keras's
@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("size", [(8, 8), (5, 9)])
def test_from_keras_is_keras(parameters, size):
    generator = keras_image().ImageDataGenerator(fill_mode="reflect", dtype="float64")
    images = pictures((1, *size, 3))
    expected = generator.apply_transform(images[0], parameters)
    m = augment.from_keras(parameters, size, keras_compat=True)
    np.testing.assert_allclose(warp(images, m, fill_mode="reflect")[0], expected, atol=1e-10)
    right = augment.from_keras(parameters, size)
    assert np.allclose(m, right) == (size[0] == size[1] or not (parameters.get("theta") or "zx" in parameters))


def converts_to_keras_and_back(module):
    for parameters in PARAMETERS:
        for compat in (False, True):
            m = module.from_keras(parameters, (5, 9), keras_compat=compat)
            back = module.to_keras(m, (5, 9), keras_compat=compat)
            assert compat or back == module.to_keras(m, (5, 9))
            assert all(type(x) is (bool if "flip" in name else float) for name, x in back.items())
            np.testing.assert_allclose(module.from_keras(back, (5, 9), keras_compat=compat), m, atol=1e-12)
            if "flip_vertical" not in parameters:
                for name, value in parameters.items():
                    assert back[name] == pytest.approx(value, abs=1e-9)
    many = {"theta": np.array([5.0, 10.0]), "tx": 1.0, "flip_horizontal": np.array([True, False])}
    m = module.from_keras(many, (5, 9))
    for i, one in enumerate(m):
        np.testing.assert_allclose(
            one, module.from_keras({k: np.ravel(v)[i % np.size(v)] for k, v in many.items()}, (5, 9))
        )


def test_to_keras_is_the_inverse():
    converts_to_keras_and_back(augment)


def centres_rightly(module):
    "A dot at the centre of an oblong image stays there; Keras loses it."
    for size in ((5, 9), (9, 5)):
        middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2, 1])
        np.testing.assert_allclose(module.from_keras({"theta": 30}, size) @ middle, middle, atol=1e-12)
        keras_centre = np.array([(size[0] - 1) / 2, (size[1] - 1) / 2, 1])
        turn = module.from_keras({"theta": 30}, size, keras_compat=True)
        np.testing.assert_allclose(turn @ keras_centre, keras_centre, atol=1e-12)
        assert abs(turn @ middle - middle).max() > 1


def test_the_centre_is_the_images():
    centres_rightly(augment)


def converts_to_torchvision_and_back(module):
    for case in (
        (20, (2.0, -1.0), 1.2, (10.0, 0.0)),
        (-70, (0, 1), 0.7, (-15, 25)),
        (5, (0, 0), 1, (3, -20)),
        (170, (1, 2), 2, 0),
        (175, (0, 0), 1, (0, -20)),
        (-175, (0, 0), 1, (0, 20)),
    ):
        m = module.from_torchvision(*case, (5, 9))
        back = module.to_torchvision(m, (5, 9))
        np.testing.assert_allclose(module.from_torchvision(**back, size=(5, 9)), m, atol=1e-10)
        assert abs(back["angle"]) <= 180
        assert back["scale"] == pytest.approx(case[2])
        assert back["translate"] == pytest.approx(case[1], abs=1e-9)
        assert abs(back["angle"]) <= abs(case[0]) + 1e-6
    assert module.to_torchvision(module.affine_matrix((5, 9), rotation=30), (5, 9))["shear"] == pytest.approx(
        (0, 0), abs=1e-5
    )


def test_to_torchvision_is_the_inverse():
    converts_to_torchvision_and_back(augment)


@pytest.mark.parametrize("options", [{"zoom": (0.5, 1.0)}, {"zoom": (-1.0, 1.0)}])
def test_torchvision_cannot_do_everything(options):
    m = np.diag([1 / options["zoom"][0], 1.0, 1.0])
    with pytest.raises(ValueError, match="matrix must be a zoom in both directions"):
        augment.to_torchvision(m, (4, 4))


# Flips, crops, sizes


@each_dtype
def test_flips_are_numpys(dtype):
    for shape in ((2, 3, 4, 3), (1, 2, 16, 3), (2, 3, 33, 3), (1, 1, 1, 1), (1, 4, 21, 2), (1, 2, 4, 4)):
        images = pictures(shape, dtype)
        np.testing.assert_array_equal(augment.hflip(images), images[:, :, ::-1])
        np.testing.assert_array_equal(augment.vflip(images), images[:, ::-1])


def crops_are_slices(module, make=np.asarray):
    images = pictures((3, 6, 8, 2), "uint8")
    np.testing.assert_array_equal(module.crop(make(images), 1, 2, 4, 5), images[:, 1:5, 2:7])
    top, left = np.array([0, 2, 1]), np.array([3, 0, 2])
    found = module.crop(make(images), top, left, 4, 5)
    np.testing.assert_array_equal(
        found, np.stack([x[t : t + 4, s : s + 5] for x, t, s in zip(images, top, left, strict=True)])
    )
    np.testing.assert_array_equal(module.crop(make(images), 0, 0, 6, 8), images)


@pytest.mark.parametrize("backend", ["numpy", "torch", "strict"])
def test_crops_are_slices(backend):
    crops_are_slices(augment, BACKENDS[backend])


PADDED = {"nearest": "edge", "reflect": "symmetric", "mirror": "reflect", "grid-wrap": "wrap", "constant": "constant"}


def random_crops_are_windows(module, mode, make=np.asarray):
    images, kind = pictures((6, 5, 7, 3), "uint8"), PADDED.get(mode, "constant")
    value = {"constant_values": 200} if kind == "constant" else {}
    padded = np.pad(images, ((0, 0), (3, 3), (4, 4), (0, 0)), mode=kind, **value)
    rng = np.random.default_rng
    whole = module.random_crop(make(images), (11, 15), rng(0), padding=(4, 3), fill_mode=mode, cval=199.6)
    np.testing.assert_array_equal(whole, padded)
    found = module.random_crop(make(images), (6, 4), rng(0), padding=(4, 3), fill_mode=mode, cval=199.6)
    for i, (a, b) in enumerate(rng(0).random((6, 2))):
        top, left = int(a * 6), int(b * 12)
        np.testing.assert_array_equal(np.asarray(found)[i], padded[i, top : top + 6, left : left + 4])


@pytest.mark.parametrize("mode", [*PADDED, "grid-constant"])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_random_crops_are_windows_of_numpys_pad(mode, backend):
    random_crops_are_windows(augment, mode, BACKENDS[backend])


def test_random_crops_are_torchvisions():
    F = torchvision_v2().functional
    images = pictures((1, 5, 6, 3))
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    for mode, name in (("nearest", "edge"), ("reflect", "symmetric"), ("mirror", "reflect"), ("constant", "constant")):
        padded = F.pad(x, [2, 2, 2, 2], padding_mode=name).numpy().transpose(0, 2, 3, 1)
        found = augment.random_crop(images, (9, 10), np.random.default_rng(0), padding=2, fill_mode=mode)
        np.testing.assert_array_equal(found, padded)


def test_all_crops_are_equally_likely():
    images = np.broadcast_to(np.arange(12.0).reshape(1, 3, 4, 1), (6000, 3, 4, 1))
    found = augment.random_crop(images, (2, 2), np.random.default_rng(0))[:, 0, 0, 0]
    counts = np.array([(found == corner).sum() for corner in (0, 1, 2, 4, 5, 6)])
    assert counts.sum() == 6000
    assert abs(counts - 1000).max() < 6 * np.sqrt(6000 * 5 / 36)


def resizes_as_torch(module, shape, size, dtype, antialias, make=np.asarray):
    images = pictures(shape, dtype)
    x = torch.from_numpy(images.astype(np.float64).transpose(0, 3, 1, 2).copy())
    options = {"mode": "bilinear", "antialias": antialias, "align_corners": False}
    expected = torch.nn.functional.interpolate(x, size, **options).numpy().transpose(0, 2, 3, 1)
    found = module.resize(make(images), size, antialias=antialias)
    agrees(found, expected, dtype, 1e-6 if dtype == "float32" else None)
    x = torch.from_numpy(images.astype(np.float64).transpose(0, 3, 1, 2).copy())
    expected = torch.nn.functional.interpolate(x, size, mode="nearest-exact").numpy().transpose(0, 2, 3, 1)
    agrees(module.resize(make(images), size, order=0), expected, dtype, 0)


@pytest.mark.parametrize("shape", [(2, 7, 9, 3), (1, 1, 1, 1), (1, 1, 5, 3), (2, 12, 5, 2)])
@pytest.mark.parametrize("antialias", [True, False])
def test_resize_is_torchs(shape, antialias):
    for size in ((7, 9), (3, 4), (14, 5), (2, 20), (30, 31), (1, 1)):
        for dtype in DTYPES:
            resizes_as_torch(augment, shape, size, dtype, antialias)
        resizes_as_torch(augment, shape, size, "float64", antialias, torch.asarray)


def test_resized_bytes_are_nearer_than_torchs():
    images = pictures((4, 40, 33, 3), "uint8")
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    exact = torch.nn.functional.interpolate(x.double(), (17, 15), mode="bilinear", antialias=True).numpy()
    theirs = torch.nn.functional.interpolate(x, (17, 15), mode="bilinear", antialias=True).numpy()
    ours = augment.to_nchw(resize(images, (17, 15)))
    assert abs(ours - exact).max() <= 0.5001
    assert abs(ours.astype(int) - theirs).max() <= 1


def resizes_each_box(module, size):
    "Boxes that differ in one thing at a time."
    boxes = [[0, 0, 4, 4], [0, 0, 4, 4], [0, 1, 4, 3], [1, 0, 3, 3], [1, 2, 4, 3], [1, 1, 4, 2], [0, 1, 4, 3]]
    images, F = pictures((7, 5, 6, 3)), torchvision_v2().functional
    found = module._resized(images, boxes, size, True)
    for i, box in enumerate(boxes):
        x = torch.from_numpy(images[i : i + 1].transpose(0, 3, 1, 2).copy())
        expected = F.resized_crop(x, *box, list(size), antialias=True).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(found[i], expected[0], atol=1e-12)


@pytest.mark.parametrize("size", [(2, 3), (6, 7)])
def test_each_box_has_its_own_weights(size):
    resizes_each_box(augment, size)


def resizes_boxes(module, make=np.asarray):
    "random_resized_crop is torchvision's resized_crop of its boxes, which fit, and are of the sizes asked for."
    images, F = pictures((6, 12, 15, 3)), torchvision_v2().functional
    draws = np.random.default_rng(3).random((6, 22))
    boxes = module._crop_boxes(images.shape, draws, (0.08, 1.0), (3 / 4, 4 / 3))
    found = module.random_resized_crop(make(images), (5, 4), np.random.default_rng(3))
    for i, (top, left, h, w) in enumerate(boxes.tolist()):
        assert 0 <= top <= 12 - h
        assert 0 <= left <= 15 - w
        assert 0.5 < w / h < 2
        x = torch.from_numpy(images[i : i + 1].transpose(0, 3, 1, 2).copy())
        expected = F.resized_crop(x, top, left, h, w, [5, 4], antialias=True).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(np.asarray(found)[i], expected[0], atol=1e-12)
    u, area = draws[0], 12 * 15
    side = np.sqrt(area * (0.08 + 0.92 * u[0])), np.sqrt(3 / 4 * (16 / 9) ** u[1])
    assert boxes[0, 2:].tolist() == [round(side[0] / side[1]), round(side[0] * side[1])]
    assert boxes[0, :2].tolist() == [int(u[20] * (13 - boxes[0, 2])), int(u[21] * (16 - boxes[0, 3]))]


def test_random_resized_crop_is_torchvisions():
    resizes_boxes(augment)
    resizes_boxes(augment, torch.asarray)


def one_box(h, w, u, scale, ratio):
    "torchvision's rule, with our numbers."
    for k in range(10):
        area, shape = (
            h * w * (scale[0] + u[2 * k] * (scale[1] - scale[0])),
            ratio[0] * (ratio[1] / ratio[0]) ** u[2 * k + 1],
        )
        width, height = round(np.sqrt(area * shape)), round(np.sqrt(area / shape))
        if 0 < width <= w and 0 < height <= h:
            return [int(u[20] * (h - height + 1)), int(u[21] * (w - width + 1)), height, width]
    shape = min(max(w / h, ratio[0]), ratio[1])
    width, height = (w, round(w / shape)) if w / h < ratio[0] else (round(h * shape), h) if w / h > ratio[1] else (w, h)
    return [(h - height) // 2, (w - width) // 2, height, width]


def takes_the_middle(module):
    "Where no box fits: torchvision's choice, the largest of the nearest shape."
    rng = np.random.default_rng(0)
    for h, w in ((4, 40), (40, 4), (9, 10), (1, 1), (3, 2)):
        for scale, ratio in (
            ((0.08, 1.0), (3 / 4, 4 / 3)),
            ((0.9, 1.0), (0.5, 1.2)),
            ((1.0, 1.0), (0.75, 1.3)),
            ((1e-3, 2e-3), (0.3, 9.0)),
        ):
            draws = rng.random((12, 22))
            expected = [one_box(h, w, u, scale, ratio) for u in draws]
            assert module._crop_boxes((12, h, w, 1), draws, scale, ratio).tolist() == expected


def test_the_middle_where_no_box_fits():
    takes_the_middle(augment)


# Points, boxes, masks


def dots_move(module, make=np.asarray):
    "Key points go where warp moves the pixels drawn at them."
    images, points = np.zeros((3, 21, 25, 1)), np.array([[[6.0, 8.0]], [[15.0, 12.0]], [[12.0, 5.0]]])
    for i, (x, y) in enumerate(points[:, 0].astype(int)):
        images[i, y, x] = 1
    m = module.affine_matrix((21, 25), rotation=np.array([20.0, -35.0, 5.0]), shift=(2.0, 1.0), shear=8.0)
    found, moved = module.warp(images, m), module.transform_points(make(points), m)
    shifted = np.asarray(module.transform_points(make(points + 0.5), m, origin="corner")) - 0.5
    row, column = np.mgrid[:21, :25]
    for image, place, again in zip(found, np.asarray(moved), shifted, strict=True):
        mass = image[:, :, 0] / image.sum()
        np.testing.assert_allclose(place[0], [(mass * column).sum(), (mass * row).sum()], atol=0.3)
        np.testing.assert_allclose(again, place, atol=1e-12)
    back = np.concatenate([np.asarray(moved), np.ones((3, 1, 1))], axis=-1) @ np.swapaxes(m, 1, 2)
    np.testing.assert_allclose(back[..., :2], points, atol=1e-10)
    one = module.transform_points(make(points[0]), m[0])
    np.testing.assert_allclose(one, np.asarray(moved)[0], atol=1e-12)
    np.testing.assert_allclose(module.transform_points(make(points), m[0])[0, ...], one, atol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "torch", "strict"])
def test_key_points_move_with_the_pixels(backend):
    dots_move(augment, BACKENDS[backend])


def boxes_move(module, make=np.asarray):
    "Quarter turns and shifts of drawn rectangles: exact boxes, cut off at the border, or gone."
    size, boxes = (10, 14), np.array([[1.5, 2.5, 5.5, 4.5], [9.5, 6.5, 12.5, 8.5]])
    for matrix in (
        module.affine_matrix(size, shift=(3, 2)),
        module.affine_matrix(size, shift=(-4, 4)),
        np.array([[0.0, 1, 2], [-1, 0, 11], [0, 0, 1]]),
        np.array([[-1.0, 0, 13], [0, 1, 0], [0, 0, 1]]),
    ):
        found, left = module.transform_boxes(make(boxes), matrix, size)
        corner, also = module.transform_boxes(make(boxes + 0.5), matrix, size, origin="corner")
        np.testing.assert_allclose(np.asarray(corner) - 0.5, np.asarray(found))
        assert np.asarray(also).tolist() == np.asarray(left).tolist()
        for box, place, seen in zip(boxes, np.asarray(found), np.asarray(left), strict=True):
            image = np.zeros((1, *size, 1))
            x1, y1, x2, y2 = (box + 0.5).astype(int)
            image[0, y1:y2, x1:x2] = 1
            rows, columns = np.nonzero(module.warp(image, matrix, fill_mode="constant", order=0)[0, :, :, 0])
            assert seen == (len(rows) > 0)
            if seen:
                expected = [columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5]
                np.testing.assert_allclose(place, expected)
    turned, _ = module.transform_boxes(
        make(np.array([[[3.0, 3.0, 6.0, 5.0]]])), module.affine_matrix(size, rotation=[*np.ones(1)] and 30.0), size
    )
    corners = module.transform_points(
        np.array([[3.0, 3], [6, 3], [3, 5], [6, 5]]), module.affine_matrix(size, rotation=30.0)
    )
    np.testing.assert_allclose(np.asarray(turned)[0, 0], [*corners.min(0), *corners.max(0)])


@pytest.mark.parametrize("backend", ["numpy", "torch", "strict"])
def test_boxes_move_with_the_pixels(backend):
    boxes_move(augment, BACKENDS[backend])


def masks_move(module, dtype, make=np.asarray):
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2 if dtype == "bool" else 100, (3, 6, 7)).astype(dtype)
    m = scattered(3, 3, 1.0)
    for mode in MODES:
        found = module.warp_masks(make(masks), m, fill_mode=mode, cval=1, output_size=(5, 9))
        expected = by_scipy(masks[..., None].astype(float), m, 0, mode, 1, (5, 9))[..., 0]
        np.testing.assert_array_equal(np.asarray(found), expected.astype(dtype))
        assert np.asarray(found).dtype == dtype
    assert module.warp_masks(make(masks), m[0]).shape == masks.shape
    assert not np.asarray(
        module.warp_masks(make(masks), np.eye(3) + [[0, 0, 99], [0] * 3, [0] * 3], fill_mode="constant")
    ).any()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "int64"])
@pytest.mark.parametrize("backend", ["numpy", "torch", "strict"])
def test_masks_move_with_the_pixels(dtype, backend):
    masks_move(augment, dtype, BACKENDS[backend])


def test_large_labels_stay_exact():
    masks = np.array([[[2**62 + 1, 3]]])
    assert augment.warp_masks(masks, np.eye(3)).tolist() == masks.tolist()


def test_layouts():
    images = pictures((2, 3, 4, 5))
    np.testing.assert_array_equal(augment.to_nchw(images), images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(augment.to_nhwc(augment.to_nchw(images)), images)
    assert augment.to_nchw(images).flags.c_contiguous


# Bad input

X, EYE, RNG = np.zeros((2, 4, 5, 3)), np.eye(3), np.random.default_rng(0)
BAD = [  # what is called, the error, what its message says
    (lambda m: m.warp([[1]], EYE), TypeError, "images must be an array"),
    (
        lambda m: m.warp(X.astype(int), EYE),
        TypeError,
        "images must be of dtype uint8, uint16, float32, float64, got int64",
    ),
    (lambda m: m.warp(X[0], EYE), ValueError, r"images must be \(n, h, w, c\), one image as image\[None\]"),
    (lambda m: m.warp(X[:0], EYE), ValueError, "images must not be empty"),
    (lambda m: m.warp(X, np.eye(2)), TypeError, "matrix must be numbers of shape"),
    (lambda m: m.warp(X, np.eye(3, dtype=bool)), TypeError, "matrix must be numbers of shape"),
    (lambda m: m.warp(X, np.zeros((1, 1, 3, 3))), TypeError, "matrix must be numbers of shape"),
    (lambda m: m.warp(X, np.tile(EYE, (3, 1, 1))), ValueError, "matrix must be one, or one for each of 2 images"),
    (lambda m: m.warp(np.ones((3, 2, 2, 1)), np.tile(EYE, (2, 1, 1))), ValueError, "one for each of 3 images"),
    (lambda m: m.rotate(X, [1, 2]), TypeError, r"rotation must be a number or an array \(n,\) of them, got \[1, 2\]"),
    (lambda m: m.random_crop(X, (1, 1), RNG, padding=(1, 2, 3, 4)), ValueError, "padding must be a number, or"),
    (lambda m: m.warp(X, EYE * np.nan), ValueError, "matrix must be finite"),
    (lambda m: m.warp(X, EYE * [[-1e13], [1], [1]]), ValueError, "matrix must be finite, at most 1e12"),
    (lambda m: m.warp(X, np.diag([1, 1, 2])), ValueError, r"last row"),
    (
        lambda m: m.affine_matrix((3, 3), rotation=np.array([np.nan, 1])),
        ValueError,
        "rotation must be a finite number, got nan",
    ),
    (lambda m: m.warp(X, np.zeros((0, 3, 3))), TypeError, "matrix must be numbers of shape"),
    (lambda m: m.to_torchvision(np.diag([2.0, 1, 1]), (3, 3)), ValueError, "matrix must be a zoom in both directions"),
    (lambda m: m.to_torchvision(np.diag([-1.0, 1, 1]), (3, 3)), ValueError, "matrix must be a zoom in both directions"),
    (
        lambda m: m.transform_points(np.zeros((2, 1, 2)), np.stack([EYE, np.diag([1.0, 0, 1])])),
        ValueError,
        "must have an inverse",
    ),
    (lambda m: m.warp(X, EYE + 1), ValueError, r"last row \(0, 0, 1\)"),
    (lambda m: m.warp(X, EYE * [[1e300, 1, 1]]), ValueError, "matrix must be finite"),
    (lambda m: m.warp(X, EYE, order=2), ValueError, "order must be one of 0, 1, got 2"),
    (lambda m: m.warp(X, EYE, fill_mode="edge"), ValueError, "fill_mode must be one of 'nearest'"),
    (lambda m: m.warp(X, EYE, cval=np.inf), ValueError, "cval must be"),
    (lambda m: m.warp(X, EYE, output_size=(3, 0)), ValueError, r"output_size\[1\] must be"),
    (lambda m: m.warp(X, EYE, output_size=3), TypeError, "output_size must be a pair"),
    (lambda m: m.affine_matrix((0, 3)), ValueError, r"size\[0\] must be a whole number from 1"),
    (lambda m: m.affine_matrix((3, 3, 3)), TypeError, "size must be a pair"),
    (lambda m: m.affine_matrix((3, 3), zoom=0), ValueError, r"zoom\[0\] must be greater than 0, got 0"),
    (
        lambda m: m.affine_matrix((3, 3), zoom=np.array([1.0, -1])),
        ValueError,
        r"zoom\[0\] must be greater than 0, got -1",
    ),
    (lambda m: m.affine_matrix((3, 3), shear=90), ValueError, r"shear\[0\] must be between -90 and 90"),
    (lambda m: m.affine_matrix((3, 3), shear=-90), ValueError, r"shear\[0\] must be between -90 and 90"),
    (lambda m: m.affine_matrix((3, 3), shift=2), TypeError, "shift must be a pair"),
    (lambda m: m.affine_matrix((3, 3), shift=(1, 2, 3)), TypeError, "shift must be a pair"),
    (lambda m: m.affine_matrix((3, 3), rotation="1"), TypeError, "rotation must be a number"),
    (lambda m: m.affine_matrix((3, 3), rotation=np.nan), ValueError, "rotation must be a finite number"),
    (
        lambda m: m.affine_matrix((3, 3), rotation=np.zeros((2, 2))),
        TypeError,
        r"rotation must be a number or an array \(n,\)",
    ),
    (
        lambda m: m.affine_matrix((3, 3), rotation=np.zeros(0)),
        TypeError,
        r"rotation must be a number or an array \(n,\)",
    ),
    (lambda m: m.affine_matrix((3, 3), rotation=np.array(["a"])), TypeError, "rotation must be a number"),
    (lambda m: m.affine_matrix((3, 3), rotation=np.zeros(2), zoom=np.ones(3)), ValueError, "equally many, got 2 and 3"),
    (lambda m: m.rotate(X, np.zeros(3)), ValueError, "one for each of 2 images"),
    (lambda m: m.rotate(X[0], 3), ValueError, "images must be"),
    (lambda m: m.hflip(X[0]), ValueError, "images must be"),
    (lambda m: m.vflip(X[0]), ValueError, "images must be"),
    (lambda m: m.to_nchw(X[0]), ValueError, "images must be"),
    (lambda m: m.crop(X, 1, 0, 4, 5), ValueError, "top must be whole, from 0 to 0, got 1"),
    (lambda m: m.crop(X, 0, -1, 4, 4), ValueError, "left must be whole, from 0 to 1, got -1"),
    (lambda m: m.crop(X, 0, 0.5, 4, 4), ValueError, "left must be whole, from 0 to 1, got 0.5"),
    (lambda m: m.crop(X, np.zeros(3, int), 0, 3, 3), ValueError, "top must be one number, or one for each of 2 images"),
    (lambda m: m.crop(X, 0, 0, 5, 5), ValueError, "height and width must be at most those of the images, 4 and 5"),
    (lambda m: m.crop(X, 0, 0, 4, 6), ValueError, "height and width must be at most those of the images, 4 and 5"),
    (lambda m: m.crop(X, 0, 0, 0, 5), ValueError, "height must be a whole number from 1"),
    (lambda m: m.random_crop(X, (7, 5), RNG, padding=1), ValueError, r"at most that of the padded images, \(6, 7\)"),
    (lambda m: m.random_crop(X, (6, 8), RNG, padding=1), ValueError, r"at most that of the padded images, \(6, 7\)"),
    (lambda m: m.random_crop(X, (4, 5), RNG, padding=-1), ValueError, "padding must be a whole number from 0"),
    (lambda m: m.random_crop(X, (4, 5), 0), TypeError, "rng must be"),
    (lambda m: m.random_crop(X, (4, 5), RNG, fill_mode="edge"), ValueError, "fill_mode must be one of"),
    (lambda m: m.random_crop(X, (4, 5), RNG, cval=np.nan), ValueError, "cval must be finite"),
    (lambda m: m.random_resized_crop(X, (4, 5), RNG, scale=(0.0, 1)), ValueError, r"scale\[0\] must be greater than 0"),
    (
        lambda m: m.random_resized_crop(X, (4, 5), RNG, scale=(0.5, 0.1)),
        ValueError,
        r"scale must be \(least, largest\)",
    ),
    (lambda m: m.random_resized_crop(X, (4, 5), RNG, ratio=2), TypeError, "ratio must be a pair"),
    (lambda m: m.resize(X, (4, 0)), ValueError, r"size\[1\] must be"),
    (lambda m: m.resize(X, (4, 4), order=3), ValueError, "order must be one of 0, 1, got 3"),
    (lambda m: m.transform_points(np.zeros((3, 3)), EYE), ValueError, r"points must be \(k, 2\)"),
    (lambda m: m.transform_points(np.zeros(2), EYE), ValueError, r"points must be \(k, 2\)"),
    (lambda m: m.transform_points(np.zeros((3, 2), int), EYE), TypeError, "points must be floating point"),
    (lambda m: m.transform_points(np.full((3, 2), np.nan), EYE), ValueError, "points must be finite"),
    (
        lambda m: m.transform_points(np.zeros((3, 2)), EYE, origin="top"),
        ValueError,
        "origin must be one of 'centre', 'corner'",
    ),
    (lambda m: m.transform_points(np.zeros((3, 2)), np.diag([1.0, 0, 1])), ValueError, "matrix must have an inverse"),
    (
        lambda m: m.transform_points(np.zeros((3, 2)), np.tile(EYE, (3, 1, 1))),
        ValueError,
        r"points must be \(n, k, 2\)",
    ),
    (
        lambda m: m.transform_points(np.zeros((2, 3, 2)), np.tile(EYE, (3, 1, 1))),
        ValueError,
        r"points must be \(n, k, 2\)",
    ),
    (lambda m: m.transform_boxes(np.zeros((3, 2)), EYE, (4, 4)), ValueError, r"boxes must be \(k, 4\)"),
    (lambda m: m.transform_boxes(np.array([[2.0, 0, 1, 1]]), EYE, (4, 4)), ValueError, "boxes must hold x1 <= x2"),
    (lambda m: m.transform_boxes(np.array([[0.0, 2, 1, 1]]), EYE, (4, 4)), ValueError, "boxes must hold x1 <= x2"),
    (lambda m: m.transform_boxes(np.array([[[2.0, 0, 1, 1]]]), EYE, (4, 4)), ValueError, "boxes must hold x1 <= x2"),
    (lambda m: m.warp_masks(X[..., 0], EYE), TypeError, "masks must be integers or booleans"),
    (lambda m: m.warp_masks(np.zeros((2, 3), int), EYE), ValueError, r"masks must be \(n, h, w\)"),
    (lambda m: m.warp_masks(np.zeros((2, 0, 3), int), EYE), ValueError, r"masks must be \(n, h, w\)"),
    (
        lambda m: m.warp_masks(np.zeros((2, 3, 3), int), EYE, cval=0.5),
        ValueError,
        "cval must be whole, from -9223372036854775808 to 9",
    ),
    (lambda m: m.from_keras([1], (3, 3)), TypeError, "parameters must be a dict"),
    (lambda m: m.from_keras({"angle": 1}, (3, 3)), ValueError, "parameters' names must be one of 'theta'"),
    (lambda m: m.from_keras({"theta": np.nan}, (3, 3)), ValueError, r"parameters\['theta'\] must be a finite number"),
    (lambda m: m.from_keras({"theta": "1"}, (3, 3)), TypeError, r"parameters\['theta'\] must be a number"),
    (lambda m: m.to_keras(np.diag([1.0, 0, 1]), (3, 3)), ValueError, "matrix must be one"),
    (lambda m: m.to_keras(np.tile(EYE, (2, 1, 1)), (3, 3)), ValueError, "matrix must be one"),
]


def refuses(module, call, error, message):
    with pytest.raises(error, match=message):
        call(module)


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=lambda x: x if isinstance(x, str) else "")
def test_bad_input_is_refused(call, error, message):
    refuses(augment, call, error, message)


def test_numba_is_not_loaded_before_it_is_needed():
    code = "import sys, dlopt_course.augment; assert not {'numba', 'PIL', 'torch'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
