"""ImageDataGenerator: in compat mode against the live Keras, draw by draw; the right way against SciPy and NumPy."""

import itertools
import subprocess
import sys
import tracemalloc
import warnings
from functools import cache, partial
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from benchmarks.peers import keras_image
from dlopt_course import augment
from dlopt_course.augment import ImageDataGenerator
from dlopt_course.core import assert_close
from dlopt_course.layers import MLP, fit
from dlopt_course.losses import cross_entropy
from dlopt_course.optim import sgd

pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # of Keras, for SciPy's old names
rng = np.random.default_rng(6)
CLASSIC = {"rotation_range": 20, "width_shift_range": 0.2, "height_shift_range": 0.2, "horizontal_flip": True}
ALL = {
    "rotation_range": 30,
    "width_shift_range": 0.2,
    "height_shift_range": 0.3,
    "shear_range": 20,
    "zoom_range": 0.3,
    "channel_shift_range": 40.0,
    "brightness_range": (0.5, 1.5),
    "horizontal_flip": True,
    "vertical_flip": True,
}
PIXELS = rng.uniform(0, 255, (13, 7, 12, 3)).astype(np.float32)
BYTES = PIXELS.astype(np.uint8)
LABELS = np.arange(13) % 3


def pair(module, **options):
    "Keras's generator, and ours like it."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras says what an option implies
        return keras_image().ImageDataGenerator(**options), module.ImageDataGenerator(**options, keras_compat=True)


# ---------------------------------------------------------------- as Keras does it

DRAWN = [  # options whose draws differ in kind
    {},
    ALL,
    {"rotation_range": 20},
    {"width_shift_range": 0.2},
    {"height_shift_range": 0.2},
    {"width_shift_range": 1.5, "height_shift_range": 2.0},
    {"width_shift_range": 3, "height_shift_range": 4},
    {"width_shift_range": 1, "height_shift_range": 1},
    {"width_shift_range": [0.1, -0.2, 0.4], "height_shift_range": (1, 3)},
    {"height_shift_range": [0.1, 0.25], "width_shift_range": [2]},
    {"height_shift_range": [0.5, 3], "width_shift_range": [1.5]},
    {"shear_range": 10.0},
    {"zoom_range": 0.2},
    {"zoom_range": [0.5, 0.75], "horizontal_flip": True},
    {"zoom_range": (1, 1), "vertical_flip": True},
    {"channel_shift_range": 3.0, "horizontal_flip": True},
    {"brightness_range": [0.1, 0.9], "channel_shift_range": 1},
    {"rotation_range": -20, "shear_range": -3.0, "channel_shift_range": -20.0},  # what only Keras takes
    {"width_shift_range": -0.2, "height_shift_range": -3},
    {"zoom_range": 1.5, "width_shift_range": []},
    {"zoom_range": [1.2, 0.8], "brightness_range": [1.2, -0.8]},
    {"zoom_range": [0, -1], "horizontal_flip": 1, "vertical_flip": 0},
    {"zoom_range": -0.5, "horizontal_flip": 1.0, "zca_epsilon": -1.0},
]


@cache
def keras_draws(which, seed):
    return pair(augment, **DRAWN[which])[0].get_random_transform((7, 12, 3), seed)


def draws_as_keras(module, seeds=range(4)):
    "Every parameter, exactly, from one image's stream and for a batch."
    for which, options in enumerate(DRAWN):
        ours = module.ImageDataGenerator(**options, keras_compat=True)
        for seed in seeds:
            assert ours.get_random_transform((7, 12, 3), seed) == keras_draws(which, seed)
        random = np.random.RandomState(1)
        for n in (1, 3):
            table = module._keras_table(ours, np.random.RandomState(1), n, (7, 12))
            random = np.random.RandomState(1)
            rows = [module._keras_drawn(ours, random, (7, 12)) for _ in range(n)]
            assert [{k: v if v is None else v[i] for k, v in table.items()} for i in range(n)] == rows


def test_draws_equal_keras():
    draws_as_keras(augment, range(40))


PARAMETERS = [
    {"theta": 20.0},
    {"theta": -130.5},
    {"tx": 1.25},
    {"ty": -2},
    {"shear": 12.5},
    {"zx": 0.7},
    {"zy": 1.4},
    {"flip_horizontal": True},
    {"flip_vertical": 1},
    {"channel_shift_intensity": -31.5},
    {"brightness": 0.7},
    {"brightness": 1.6},
    {"theta": 33.0, "tx": 0.5, "ty": 1.5, "shear": -9.0, "zx": 0.8, "zy": 1.3, "flip_horizontal": 1, "brightness": 1.2},
    {"theta": 5.0, "zx": 1.2, "flip_vertical": True, "channel_shift_intensity": 20.0, "brightness": 0.9},
    {},
]
SHAPES = [(9, 9, 3), (7, 12, 3), (12, 7, 1), (6, 8, 4)]
BORDERS = ["nearest", "reflect", "wrap", "constant"]


@cache
def keras_image_of(shape, dtype, order, border, which):
    x = (np.random.default_rng(1).uniform(-20 if dtype == "float64" else 0, 255, shape)).astype(dtype)
    options = {"fill_mode": border, "cval": 7.0, "interpolation_order": order}
    return x, pair(augment, **options)[0].apply_transform(x, PARAMETERS[which])


def transforms_as_keras(module, shapes=SHAPES[1:3], orders=(1,), borders=BORDERS[:1], dtypes=("float32",)):
    """SciPy adds four products, we move from one pixel to the next, both in float64: a difference of 1e-13. It decides
    where the result lies in the middle between two float32, so one unit in their last place may differ."""
    for shape, order, border, dtype in itertools.product(shapes, orders, borders, dtypes):
        options = {"fill_mode": border, "cval": 7.0, "interpolation_order": order}
        ours = module.ImageDataGenerator(**options, keras_compat=True)
        for which, parameters in enumerate(PARAMETERS):
            x, expected = keras_image_of(shape, dtype, order, border, which)
            before, found = x.copy(), ours.apply_transform(x, parameters)
            np.testing.assert_array_equal(x, before)
            assert found.dtype == expected.dtype or dtype == "float64"
            close = {"rtol": 1e-6, "atol": 1e-10} if dtype == "float64" else {"rtol": 1.2e-7 * (dtype == "float32")}
            assert_close(found, expected.astype(found.dtype), **close, name=f"{shape} {border} {parameters}")


@pytest.mark.parametrize(
    ("order", "dtype"), [(0, "float32"), *((1, d) for d in ("float32", "uint8", "uint16", "float64"))]
)
def test_transforms_equal_keras(order, dtype):
    shapes = SHAPES if dtype == "float32" else SHAPES[1:2]
    transforms_as_keras(augment, shapes, [order], BORDERS, [dtype])


def test_borders_of_scipy_equal_keras():
    transforms_as_keras(augment, borders=("mirror", "grid-wrap", "grid-constant"))


WHOLE = [  # integers, and a value outside of the image, which some of them cannot hold
    (dtype, order, cval)
    for dtype, order in (
        ("int8", 1),
        ("uint8", 0),
        ("uint8", 1),
        ("uint16", 1),
        ("int32", 1),
        ("int64", 1),
        ("bool", 1),
    )
    for cval in ((-4.5, 70000.0) if dtype.startswith("u") else (-4.5,))
]


@cache
def keras_whole(dtype, order, cval):
    x = (PIXELS[0] - 128 if dtype.startswith("i") else PIXELS[0] if dtype != "bool" else PIXELS[0] > 128).astype(dtype)
    keras = pair(augment, fill_mode="constant", cval=cval, interpolation_order=order)[0]
    return x, [keras.apply_transform(x, p) for p in PARAMETERS[:10]]


def transforms_integers_as_keras(module):
    "Rounded as SciPy does; and what comes out of a change of colour is a float."
    for dtype, order, cval in WHOLE:
        x, expected = keras_whole(dtype, order, cval)
        ours = module.ImageDataGenerator(fill_mode="constant", cval=cval, interpolation_order=order, keras_compat=True)
        for parameters, image in zip(PARAMETERS, expected, strict=False):
            found = ours.apply_transform(x, parameters)
            assert found.dtype == image.dtype
            np.testing.assert_array_equal(found, image, err_msg=f"{dtype} {order} {cval} {parameters}")
    assert module.ImageDataGenerator(keras_compat=True).random_transform(PIXELS[0].astype("f2")).dtype == np.float16


def test_integers_equal_keras():
    transforms_integers_as_keras(augment)


def test_random_transforms_equal_keras():
    for border, shape in itertools.product(BORDERS, SHAPES[:2]):
        keras, ours = pair(augment, **ALL, fill_mode=border, cval=99.0)
        x = rng.uniform(0, 255, shape).astype(np.float32)
        for seed in range(10):
            np.testing.assert_array_equal(ours.random_transform(x, seed), keras.random_transform(x, seed))


STANDARDS = [
    {},
    {"samplewise_center": True},
    {"samplewise_std_normalization": True, "rescale": 1 / 255},
    {"featurewise_center": True},
    {"featurewise_std_normalization": True, "rescale": 1 / 255},
    {"zca_whitening": True, "zca_epsilon": 1e-2},
    {"zca_whitening": True, "featurewise_std_normalization": True},
    {"preprocessing_function": lambda x: x**2, "rescale": 0.5, "samplewise_center": True, "featurewise_center": True},
]
SOME = BYTES[:, :4, :5]


def fitted(generator, augmented):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        generator.fit(SOME, augment=augmented, rounds=2, seed=3)
    return generator


@cache
def keras_standard(which, augmented):
    generator = fitted(pair(augment, **ALL, **STANDARDS[which])[0], augmented)
    one, several = (generator.standardize(x.astype(np.float32)) for x in (SOME[0], SOME[:4]))
    return generator, one, several


def standardizes_as_keras(module):
    "Statistics bit for bit; a sample's mean is summed in another order than Keras's strided image."
    for which, augmented in [(w, False) for w in range(len(STANDARDS))] + [(w, True) for w in (3, 4)]:
        keras, one, several = keras_standard(which, augmented)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours = module.ImageDataGenerator(**ALL, **STANDARDS[which], keras_compat=True)
        ours = fitted(ours, augmented)
        for name in ("mean", "std", "zca_whitening_matrix"):
            statistic = getattr(keras, name)
            if statistic is None:
                assert getattr(ours, name) is None
            else:
                assert_close(getattr(ours, name), statistic, rtol=1e-6, atol=1e-6 * np.abs(statistic).max())
        for x, expected in ((SOME[0], one), (SOME[:4], several)):  # Keras's whitening gives float64
            found, expected = ours.standardize(x.astype(np.float32)), expected.astype(np.float32)
            assert_close(found, expected, rtol=1e-5, atol=2e-5 * np.abs(expected).max())


def test_statistics_equal_keras():
    standardizes_as_keras(augment)


FLOWS = [  # options of the generator, arguments of flow
    ({}, {"y": LABELS, "seed": 5}),
    ({}, {"seed": 5, "shuffle": False, "batch_size": 13}),
    ({}, {"y": LABELS, "seed": 0, "sample_weight": np.arange(13.0), "batch_size": 5}),
    ({"validation_split": 0.3}, {"y": LABELS, "seed": 1, "subset": "training", "batch_size": 4}),
    ({"validation_split": 0.4}, {"y": LABELS, "seed": 1, "subset": "validation", "batch_size": 4, "shuffle": False}),
    ({"validation_split": 0.3}, {"y": LABELS, "sample_weight": np.arange(13.0), "seed": 2, "subset": "training"}),
    ({"validation_split": 0.1}, {"y": LABELS, "seed": 2, "subset": "training", "ignore_class_split": True}),
    ({"width_shift_range": [1, 2], "zoom_range": 0}, {"seed": 2, "batch_size": 6}),
    ({}, {"seed": 5, "shuffle": 1}),
    ({}, {"seed": 5, "shuffle": 0, "batch_size": 13}),
]


def batches(iterator):
    "Batches in turn over several epochs, by number, and after the end of an epoch."
    found = [next(iterator) for _ in range(2 * len(iterator) + 1)]
    found += [iterator[i] for i in (len(iterator) - 1, 0)]
    iterator.on_epoch_end()
    found += [iterator[0], next(iterator)]
    iterator.reset()
    return [*found, next(iterator)]


@cache
def keras_batches(which):
    options, arguments = FLOWS[which]
    iterator = pair(augment, **ALL | options)[0].flow(BYTES, **{"batch_size": 4} | arguments)
    return batches(iterator), len(iterator), iterator.n


def flat(batch):
    return [batch] if isinstance(batch, np.ndarray) else list(batch)


def flows_as_keras(module, which=None):
    "Every image, label and weight, bit for bit, and in what order."
    for i in which or range(len(FLOWS)):
        options, arguments = FLOWS[i]
        expected, length, n = keras_batches(i)
        ours = module.ImageDataGenerator(**ALL | options, keras_compat=True)
        iterator = ours.flow(BYTES, **{"batch_size": 4} | arguments)
        assert (len(iterator), iterator.n) == (length, n)
        for ours, keras in zip(batches(iterator), expected, strict=True):
            for a, b in zip(flat(ours), flat(keras), strict=True):
                assert (a.dtype, a.shape) == (b.dtype, b.shape)
                np.testing.assert_array_equal(a, b)


def test_flows_equal_keras():
    flows_as_keras(augment)


def test_other_arrays_come_along_as_in_keras():
    others = [np.arange(26).reshape(13, 2), np.arange(13.0)]
    for misc in (others, others[0]):
        keras, ours = (g.flow((BYTES, misc), LABELS, batch_size=5, seed=4) for g in pair(augment, **CLASSIC))
        for _ in range(4):
            (x, y), (kx, ky) = next(ours), next(keras)
            assert (y == ky).all()
            for a, b in zip(x, kx, strict=True):
                np.testing.assert_array_equal(a, b)


PREPARE = [lambda x: x / 127.5 - np.float64(1), lambda x: x.mean(2, keepdims=True), lambda x: np.float32(3), np.round]


@cache
def keras_prepared(which):
    options = {"preprocessing_function": PREPARE[which], "samplewise_std_normalization": True, "rescale": 1 / 3}
    x = np.concatenate([PIXELS[:4] / 255, np.full_like(PIXELS[:1], 0.25)])
    keras = pair(augment, **options)[0]
    return options, x, next(keras.flow(x, shuffle=False)), keras.standardize(x[0].copy())


def prepares_as_keras(module):
    "In the dtype of what the function returns, spread over the channels."
    for which in range(len(PREPARE)):
        options, x, batch, one = keras_prepared(which)
        ours = module.ImageDataGenerator(**options, keras_compat=True)
        found = next(ours.flow(x, shuffle=False))
        assert found.dtype == np.float32
        assert_close(found, batch, rtol=2e-6, atol=1e-6)
        assert_close(
            ours.standardize(x[0]).astype("f8"), np.broadcast_to(one, x[0].shape).astype("f8"), rtol=2e-6, atol=1e-6
        )
    whole = module.ImageDataGenerator(
        preprocessing_function=lambda x: x.astype(np.uint8), rescale=0.5, keras_compat=True
    )
    np.testing.assert_array_equal(next(whole.flow(BYTES, shuffle=False)), BYTES / np.float32(2))
    for function in (lambda x: x[:2], lambda x: x[..., :2], lambda x: x[None], np.ravel):
        with pytest.raises(ValueError, match=r"preprocessing_function must keep the shape \(7, 12, 3\), got"):
            module.ImageDataGenerator(preprocessing_function=function, keras_compat=True).standardize(PIXELS[0])
    with pytest.raises(ValueError, match=r"preprocessing_function must keep the shape \(7, 12, 3\), got \(7, 12, 1\)"):
        module.ImageDataGenerator(preprocessing_function=PREPARE[1]).standardize(PIXELS[0])


def test_preprocessing_equals_keras():
    prepares_as_keras(augment)


DTYPES = ("bool", "int8", "int32", "int64", "uint8", "uint16", "uint32", "float16", ">f4", "float64")


@cache
def keras_of_dtype(dtype):
    x, options = BYTES.astype(dtype), {"featurewise_std_normalization": True} | CLASSIC
    keras = pair(augment, **options)[0]
    keras.fit(x)
    return next(keras.flow(x, batch_size=5, seed=1)), keras.mean, keras.std


def takes_every_dtype(module):
    "Arrays of other real numbers are as their float32, in flow and in fit, right or as Keras."
    for dtype in DTYPES:
        x, plain = BYTES.astype(dtype), BYTES.astype(dtype).astype(np.float32)
        options = {"featurewise_std_normalization": True} | CLASSIC
        ours = module.ImageDataGenerator(**options, keras_compat=True)
        ours.fit(x)
        batch, mean, std = keras_of_dtype(dtype)
        for found, expected in ((ours.mean, mean), (ours.std, std), (next(ours.flow(x, batch_size=5, seed=1)), batch)):
            assert found.dtype == np.float32
            assert_close(found, expected, rtol=1e-5, atol=1e-5)
        found = []
        for images in (x, plain):
            right = module.ImageDataGenerator(**options, brightness_range=(0.5, 3))
            right.fit(images)
            found.append((right.mean, next(right.flow(images, batch_size=5, seed=1))))
        if dtype != "uint16":  # which reaches to 65535
            for ours, expected in zip(*found, strict=True):
                assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    for wrong in (BYTES.astype(complex), BYTES.astype(str), BYTES.astype(object)):
        for compat in (False, True):
            for method in ("flow", "fit"):
                with pytest.raises(TypeError, match="x must be an array of real numbers, got"):
                    getattr(module.ImageDataGenerator(keras_compat=compat), method)(wrong)
    with pytest.raises(TypeError, match="x must be of dtype uint8, uint16, float32, float64, got int64"):
        module.ImageDataGenerator().apply_transform(BYTES[0].astype(int), {})


def test_every_dtype():
    takes_every_dtype(augment)


def test_other_dtypes_are_not_copied():
    images = np.zeros((2000, 32, 32, 3), np.int64)
    for compat in (False, True):
        flow = ImageDataGenerator(**CLASSIC, keras_compat=compat).flow(images, batch_size=16, seed=1)
        next(flow)  # compiles
        tracemalloc.start()
        try:
            next(flow)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 20 * 16 * 32 * 32 * 3 * 4  # bytes of a batch of float32; the data set is 2000 of 24 kB


def own(base, *names, calls=None):
    "A subclass with methods of its own, which change something that can be seen."
    calls = [] if calls is None else calls

    class Own(base):
        if "get_random_transform" in names:

            def get_random_transform(self, img_shape, seed=None):
                calls.append("get_random_transform")
                drawn = dict(super().get_random_transform(img_shape, seed))
                drawn |= {"noise": drawn["theta"] + 3}
                return drawn | {"theta": 180.0} if drawn["theta"] > 0 else drawn | {"mark": "none"}

        if "apply_transform" in names:

            def apply_transform(self, x, transform_parameters):
                calls.append("apply_transform")
                return super().apply_transform(x, transform_parameters) + transform_parameters.get("noise", 5)

        if "random_transform" in names:

            def random_transform(self, x, seed=None):
                calls.append("random_transform")
                return super().random_transform(x, seed) * 2

        if "standardize" in names:

            def standardize(self, x):
                calls.append("standardize")
                x = super().standardize(x)
                return x - x.min()

    return Own


OWN = [
    ("standardize",),
    ("apply_transform",),
    ("get_random_transform",),
    ("random_transform",),
    ("get_random_transform", "apply_transform", "random_transform", "standardize"),
]
OWN_OPTIONS = ALL | {"rescale": 0.5, "samplewise_center": True, "featurewise_center": True}


@cache
def keras_own(names, root):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras = own(keras_image().ImageDataGenerator, *names)(**OWN_OPTIONS)
        keras.fit(BYTES, augment=True, rounds=2, seed=3)
        one = batches(keras.flow(BYTES, LABELS, batch_size=5, seed=1))
        return keras.mean, one, next(keras.flow_from_directory(root, **folder_options(0)))


def calls_own_methods_as_keras(module, root):
    "A subclass gives the same batches and statistics as the same subclass of Keras's."
    for names in OWN:
        mean, expected, files = keras_own(names, root)
        ours = own(module.ImageDataGenerator, *names)(**OWN_OPTIONS, keras_compat=True)
        ours.fit(BYTES, augment=True, rounds=2, seed=3)
        assert_close(ours.mean, mean, rtol=1e-6)
        found = batches(ours.flow(BYTES, LABELS, batch_size=5, seed=1))
        found.append(next(ours.flow_from_directory(root, **folder_options(0))))
        for (x, y), (kx, ky) in zip(found, [*expected, files], strict=True):
            assert_close(x, kx, rtol=1e-5, atol=1e-4)
            np.testing.assert_array_equal(y, ky)


def test_subclasses_equal_keras(folder):
    calls_own_methods_as_keras(augment, folder)


def calls_own_methods(module):
    "In the right mode too: what changes nothing gives the same batch, and each sample has its own stream."
    images, options = PIXELS * 1.5, ALL | {"preprocessing_function": np.sqrt, "rescale": 0.5}
    base = module.ImageDataGenerator
    expected = [next(base(**options).flow(images, LABELS, seed=s)) for s in (1, 2)]
    for name in ("apply_transform", "get_random_transform", "random_transform", "standardize"):

        def same(self, *arguments, name=name):
            return getattr(base, name)(self, *arguments)

        ours = type("Same", (base,), {name: same})(**options)
        for seed, (x, y) in zip((1, 2), expected, strict=True):
            flow = ours.flow(images, LABELS, batch_size=4, seed=seed)
            found = [next(flow) for _ in range(4)]
            np.testing.assert_array_equal(np.concatenate([b[1] for b in found]), y)
            assert_close(np.concatenate([b[0] for b in found]), x, rtol=1e-5, atol=1e-3)
            assert flow.parameters["index"].shape == (1,)
            assert ("theta" in flow.parameters) == (name != "random_transform")
    calls = []
    every = own(base, *OWN[4], calls=calls)(rotation_range=30, validation_split=0.3)
    flow = every.flow(images, seed=1, subset="training", batch_size=20)
    assert next(flow).min() == 0
    assert sorted(set(calls)) == sorted(OWN[4])
    assert [calls.count(name) for name in OWN[4]] == [10] * 4
    next(every.flow(images, seed=1, subset="validation"))
    assert [calls.count(name) for name in OWN[4]] == [10, 10, 10, 13]
    drawing = own(base, "get_random_transform")(rotation_range=30)
    flow = drawing.flow(BYTES, masks=BYTES[..., 0] // 100, seed=1, batch_size=13)
    x, m = next(flow)
    table = flow.parameters
    assert set(table["theta"][table["theta"] > 0]) == {180.0}
    assert table["brightness"] is None
    assert (np.equal(table["mark"], None) == (table["theta"] == 180)).all()
    turned = np.flatnonzero(table["theta"] == 180)
    assert 0 < len(turned) < 13
    assert_close(x[turned], BYTES[table["index"][turned], ::-1, ::-1].astype(np.float32), rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(m[turned], BYTES[table["index"][turned], ::-1, ::-1, 0] // 100)
    for name in ("apply_transform", "random_transform"):
        with pytest.raises(
            TypeError, match="masks cannot follow the apply_transform or random_transform of a subclass"
        ):
            own(base, name)().flow(BYTES, masks=BYTES[..., 0])
        cut = type("Cut", (base,), {name: lambda self, x, *more: x[1:]})()
        with pytest.raises(ValueError, match=rf"{name} must keep the shape \(7, 12, 3\), got \(6, 12, 3\)"):
            next(cut.flow(BYTES))
    replaced = base()
    replaced.standardize = lambda x: x * 0
    assert next(replaced.flow(BYTES)).max() == 0
    centred = own(base, "apply_transform")(featurewise_center=True)
    centred.fit(BYTES, augment=True, seed=1)
    assert_close(centred.mean, BYTES.mean((0, 1, 2), dtype="f4").reshape(1, 1, -1) + 5, rtol=1e-5)
    last = own(base, "standardize")(featurewise_center=True)
    last.fit(BYTES)
    assert_close(last.mean, BYTES.mean((0, 1, 2), dtype="f4").reshape(1, 1, -1), rtol=1e-5)
    with pytest.raises(ValueError, match="a name in transform_parameters must be one of .* got 'noise'"):
        last.apply_transform(PIXELS[0], {"noise": 1.0})
    outer, inner = own(base, "apply_transform")(**CLASSIC), base(**CLASSIC)
    with module._serving(outer, module.SampleStreams(1, 0, [4]), (0.0, 1.0)):
        drawn = outer.get_random_transform((7, 12, 3))
        assert inner.get_random_transform((7, 12, 3)) != drawn
        assert outer.get_random_transform((7, 12, 3), 1) != drawn
    flow = base(**CLASSIC).flow(BYTES, seed=1, shuffle=False)
    next(flow)
    assert drawn["theta"] == flow.parameters["theta"][4]


def test_subclasses():
    calls_own_methods(augment)


@pytest.mark.parametrize("which", range(1, len(STANDARDS)))
def test_standardised_flows_equal_keras(which):
    keras, _, _ = keras_standard(which, False)
    ours = fitted(pair(augment, **ALL, **STANDARDS[which])[1], False)
    for (a, _), (b, _), _ in zip(*(g.flow(SOME, LABELS, 5, seed=2) for g in (ours, keras)), range(4), strict=False):
        assert_close(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


ODD = {  # images that Keras stretches before it makes them brighter, and others
    "large": PIXELS[:3] * 1000,
    "negative": PIXELS[:3] - 100,
    "just too large": PIXELS[:3] * np.float32(255.5) / PIXELS[:3].max((1, 2, 3), keepdims=True),
    "just too small": PIXELS[:3] - PIXELS[:3].min((1, 2, 3), keepdims=True) - np.float32(0.5),
    "small": PIXELS[:3].astype(np.float64) / 255,
    "of one colour": np.full((3, 4, 5, 3), 300.0),
    "gray": PIXELS[:3, ..., :1],
    "with opacity": np.concatenate([PIXELS[:3], PIXELS[3:6, ..., :1]], axis=-1),
}


@cache
def keras_odd(name):
    return next(pair(augment, **ALL)[0].flow(ODD[name], seed=2))


@cache
def keras_brighter(name):
    return pair(augment)[0].apply_transform(ODD[name][0], {"brightness": 0.8})


def odd_images_as_keras(module):
    for name, x in ODD.items():
        ours = module.ImageDataGenerator(**ALL, keras_compat=True).flow(x, seed=2)
        np.testing.assert_array_equal(next(ours), keras_odd(name), err_msg=name)
    infinite = PIXELS[:2].copy()
    infinite[0, 3, 4] = np.inf
    still = module.ImageDataGenerator(keras_compat=True).apply_transform(infinite, {"theta": np.array([0.0, 30.0])})
    np.testing.assert_array_equal(still[0], infinite[0])
    turned = module.ImageDataGenerator(keras_compat=True).apply_transform(PIXELS[1], {"theta": 30.0})
    np.testing.assert_array_equal(still[1], turned)
    for name in ("just too large", "just too small", "gray"):
        found = module.ImageDataGenerator(keras_compat=True).apply_transform(ODD[name][0], {"brightness": 0.8})
        np.testing.assert_array_equal(found, keras_brighter(name))
    for channels in (2, 5):
        bright = module.ImageDataGenerator(brightness_range=(1, 2), keras_compat=True)
        with pytest.raises(ValueError, match=f"images must have 1, 3 or 4 channels for Pillow, got {channels}"):
            bright.random_transform(np.ones((4, 4, channels), np.float32))


def test_odd_images_equal_keras():
    odd_images_as_keras(augment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Three classes and a hidden folder, of images of several sizes, PNG and JPEG."
    return made_folder(tmp_path_factory.mktemp("images"))


def made_folder(root):
    draw = np.random.default_rng(4)
    for name, count in (("cats", 7), ("dogs", 5), (".hidden", 2), ("ant", 4)):
        (root / name / "deep").mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = draw.integers(0, 256, (*draw.integers(5, 20, 2), 3)).astype(np.uint8)
            suffix = ("png", "jpg")[i % 2]
            Image.fromarray(pixels).save(root / name / ("deep" if i == 2 else "") / f"{i}.{suffix}")
    (root / "notes.txt").write_text("no image")
    return root


FOLDERS = [
    {"class_mode": "categorical"},
    {"class_mode": "sparse", "color_mode": "grayscale", "interpolation": "bilinear"},
    {"class_mode": "binary", "color_mode": "rgba", "interpolation": "bicubic", "keep_aspect_ratio": True},
    {"class_mode": "input", "subset": "training", "interpolation": "lanczos"},
    {"class_mode": None, "subset": "validation", "interpolation": "box", "shuffle": False},
    {"class_mode": "sparse", "classes": ["dogs", "ant"], "interpolation": "hamming", "batch_size": 20},
    {"class_mode": "sparse", "classes": ["dogs", "nobody"]},
    {"class_mode": None, "classes": ["."], "keep_aspect_ratio": 1},
    {"class_mode": "sparse", "classes": []},
]


def folder_options(which):
    return {"target_size": (9, 13), "batch_size": 4, "seed": 3} | FOLDERS[which]


@cache
def keras_folder(root, which):
    keras = pair(augment, **ALL, rescale=1 / 255, validation_split=0.3)[0]
    iterator = keras.flow_from_directory(root, **folder_options(which))
    names = ("class_indices", "filenames", "filepaths", "samples", "num_classes", "image_shape")
    return batches(iterator), {name: getattr(iterator, name) for name in names}, iterator.classes


def folders_as_keras(module, root, which=None):
    "What Keras makes of a folder, hidden folders included: files, labels and pixels."
    for i in which or range(len(FOLDERS)):
        expected, attributes, classes = keras_folder(root, i)
        ours = module.ImageDataGenerator(**ALL, rescale=1 / 255, validation_split=0.3, keras_compat=True)
        iterator = ours.flow_from_directory(root, **folder_options(i))
        assert {name: getattr(iterator, name) for name in attributes} == attributes
        np.testing.assert_array_equal(iterator.classes, classes)
        for ours, keras in zip(batches(iterator), expected, strict=True):
            for a, b in zip(flat(ours), flat(keras), strict=True):
                assert (a.dtype, a.shape) == (b.dtype, b.shape)
                np.testing.assert_array_equal(a, b)


def test_folders_equal_keras(folder, capsys):
    folders_as_keras(augment, folder)


def refuses_to_save(module, root, tmp):
    "What could not be written later is refused at once."
    generator, two = module.ImageDataGenerator(), np.repeat(BYTES, 2, -1)
    for images, options, kind, message in (
        (
            BYTES,
            {"save_to_dir": tmp / "nowhere"},
            FileNotFoundError,
            "save_to_dir must be a folder that exists, got .*nowhere",
        ),
        (BYTES, {"save_format": "xyz"}, ValueError, "save_format must be a suffix that Pillow can write, .*got 'xyz'"),
        (BYTES, {"save_format": "psd"}, ValueError, "save_format must be a suffix that Pillow can write, .*got 'psd'"),
        (two[..., :2], {}, ValueError, "save_format='png' cannot hold images of 2 channels: .* got 2"),
        (
            two[..., :4],
            {"save_format": "jpg"},
            ValueError,
            "save_format='jpg' cannot hold images of 4 channels: .*RGBA",
        ),
    ):
        with pytest.raises(kind, match=message):
            generator.flow(images, **{"save_to_dir": tmp} | options)
    with pytest.raises(ValueError, match="save_format='jpg' cannot hold images of 4 channels"):
        generator.flow_from_directory(root, color_mode="rgba", save_to_dir=tmp, save_format="jpg")
    for images, suffix in ((two[..., :4], "PNG"), (BYTES[..., :1], "jpeg")):
        next(generator.flow(images, save_to_dir=str(tmp), save_format=suffix, save_prefix="y", batch_size=2))
        assert len(list(Path(tmp).glob(f"y*.{suffix}"))) == 2
    assert generator.flow(BYTES, save_to_dir="", save_format="xyz").n == 13


def test_saving_is_checked_at_once(folder, tmp_path):
    refuses_to_save(augment, folder, tmp_path)


def saves_as_keras(module, root, tmp):
    "Names and pixels of the images that are written to be looked at."
    for kind, (name, generator) in itertools.product(
        ("flow", "folder"), zip(("keras", "ours"), pair(module, **CLASSIC), strict=True)
    ):
        place = Path(tmp, kind, name)
        place.mkdir(parents=True)
        options = {"save_to_dir": place, "save_prefix": "x", "seed": 1, "batch_size": 5}
        one = (
            generator.flow(BYTES, **options)
            if kind == "flow"
            else generator.flow_from_directory(root, (6, 7), **options)
        )
        next(one), next(one)
    for kind in ("flow", "folder"):
        keras, ours = (sorted(Path(tmp, kind, name).iterdir()) for name in ("keras", "ours"))
        assert [p.name for p in keras] == [p.name for p in ours]
        assert len(keras) == 10
        for a, b in zip(ours, keras, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(a)), np.asarray(Image.open(b)))


def test_saved_images_equal_keras(folder, tmp_path):
    saves_as_keras(augment, folder, tmp_path)


def misses_statistics(module):
    "Keras warns and goes on; the right way is an error."
    for options in ({"featurewise_center": True}, {"zca_whitening": True}, {"featurewise_std_normalization": True}):
        generator = module.ImageDataGenerator(**options, keras_compat=True)
        with pytest.warns(UserWarning, match="call fit"):
            assert_close(generator.standardize(PIXELS[0]), PIXELS[0], rtol=0)
        with pytest.raises(ValueError, match=r"call fit\(images\) first"):
            module.ImageDataGenerator(**options).standardize(PIXELS[0])
    for compat in (False, True):
        white = module.ImageDataGenerator(zca_whitening=True, keras_compat=compat)
        white.fit(PIXELS[:, :3, :3])
        with pytest.raises(ValueError, match=r"x must have the h w c = 27 numbers that fit saw, got 108"):
            next(white.flow(PIXELS[:, :6, :6]))
        gray = module.ImageDataGenerator(featurewise_std_normalization=True, keras_compat=compat)
        gray.fit(PIXELS)
        for x in (PIXELS[..., :1], PIXELS[..., :2]):
            with pytest.raises(ValueError, match=r"x must have the channels that fit saw, of a mean \(1, 1, 3\), got"):
                next(gray.flow(x))
        gray.mean, gray.std = 3.0, np.arange(3)
        assert next(gray.flow(PIXELS)).shape == PIXELS.shape
        for gray.mean, gray.std in ((3, np.ones((1, 1, 1, 3))), (3, np.ones((1, 7, 3))), (3, np.ones(2))):
            with pytest.raises(ValueError, match="x must have the channels that fit saw, of a std"):
                next(gray.flow(PIXELS))


def test_missing_statistics():
    misses_statistics(augment)


# ---------------------------------------------------------------- the right way

FILL = {"nearest": "nearest", "reflect": "reflect", "wrap": "grid-wrap", "constant": "grid-constant"}
RIGHT = [
    {},
    CLASSIC,
    {"rotation_range": 40, "fill_mode": "reflect", "vertical_flip": True},
    {"width_shift_range": 2.5, "height_shift_range": 4, "fill_mode": "wrap"},
    {"width_shift_range": [1, 3], "height_shift_range": [0.1], "fill_mode": "constant", "cval": 9.0},
    {"width_shift_range": [1.5], "height_shift_range": [0.5, -2]},
    {"shear_range": 20, "zoom_range": (0.5, 1.5), "interpolation_order": 0},
    {"zoom_range": 0.4, "channel_shift_range": 30, "brightness_range": (0.4, 1.6)},
    {"brightness_range": (0.2, 3), "rescale": 1 / 255},
    {"channel_shift_range": 120.0},
    {"channel_shift_range": 0.5, "samplewise_std_normalization": True},
]


def uniforms(seed, epoch, index):
    "The stream of a sample, by NumPy itself."
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, index, 0, 0])).random(10)


def expected_parameters(o, seed, epoch, index, size):
    "One transform from a sample's stream, written anew: u[0] the angle, u[1] the shift along the width, …"
    u, (h, w) = uniforms(seed, epoch, index), size

    def moved(spread, length, v):
        if isinstance(spread, list):
            spread = spread + [-s for s in spread]
            return spread[int(v * len(spread))] * (length if max(map(abs, spread)) < 1 else 1)
        if isinstance(spread, int):
            return int(v * (2 * spread - 1)) - spread + 1
        return (2 * v - 1) * spread * (length if spread < 1 else 1)

    zoom = o.get("zoom_range", 0.0)
    low, high = zoom if isinstance(zoom, tuple) else (1 - zoom, 1 + zoom)
    bright, shift = o.get("brightness_range"), o.get("channel_shift_range")
    return {
        "theta": (2 * u[0] - 1) * o.get("rotation_range", 0),
        "tx": moved(o.get("width_shift_range", 0.0), w, u[1]),
        "ty": moved(o.get("height_shift_range", 0.0), h, u[2]),
        "shear": (2 * u[3] - 1) * o.get("shear_range", 0),
        "zx": low + (high - low) * u[4],
        "zy": low + (high - low) * u[5],
        "flip_horizontal": bool(u[6] < 0.5) and o.get("horizontal_flip", False),
        "flip_vertical": bool(u[7] < 0.5) and o.get("vertical_flip", False),
        "channel_shift_intensity": (2 * u[8] - 1) * shift if shift else None,
        "brightness": bright[0] + (bright[1] - bright[0]) * u[9] if bright else None,
    }


def expected_image(o, x, p, limits=(0, 255)):
    "The transform of one image by SciPy, about the true centre: angle, shift, shear, zoom, flips, then colours."
    (h, w, c), order = x.shape, o.get("interpolation_order", 1)
    t, s, centre = np.deg2rad(p["theta"]), np.deg2rad(p["shear"]), np.array([(h - 1) / 2, (w - 1) / 2])
    turn = np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])  # rows first: (y, x)
    lean = np.array([[np.cos(s), 0], [-np.sin(s), 1]])
    linear_part = turn @ lean @ np.diag([p["zy"], p["zx"]])
    offset = centre + turn @ [p["ty"], p["tx"]] - linear_part @ centre
    mode = FILL[o.get("fill_mode", "nearest")]
    options = {"offset": offset, "order": order, "mode": mode, "cval": o.get("cval", 0.0)}
    planes = [ndimage.affine_transform(x[..., k].astype(np.float64), linear_part, **options) for k in range(c)]
    y = np.stack(planes, axis=-1)
    y = y[:, ::-1] if p["flip_horizontal"] else y
    y = y[::-1] if p["flip_vertical"] else y
    low, high = limits
    if p["channel_shift_intensity"] is not None:
        y = np.clip(y + p["channel_shift_intensity"], low, high)
    if p["brightness"] is not None:
        y = np.clip(low + p["brightness"] * (y - low), low, high)
    y = y * o.get("rescale", 1)
    return (y - y.mean()) / (y.std() + 1e-6) if o.get("samplewise_std_normalization") else y


def draws_its_parameters(module, seed=3):
    "The table of every batch, and one transform by itself, from the stream of (seed, epoch, sample)."
    for o in RIGHT:
        iterator = module.ImageDataGenerator(**o).flow(BYTES, batch_size=5, seed=seed)
        seen = []
        for number in range(6):
            next(iterator)
            table = iterator.parameters
            assert set(table["epoch"]) == {number // 3}
            seen.append(table["index"].tolist())
            for row, index in enumerate(table["index"]):
                expected = expected_parameters(o, seed, number // 3, index, (7, 12))
                assert {k: v if v is None else v[row] for k, v in table.items() if k in expected} == pytest.approx(
                    expected
                )
        assert [sorted(sum(seen[i : i + 3], [])) for i in (0, 3)] == [list(range(13))] * 2
        assert seen[:3] != seen[3:]
        found = module.ImageDataGenerator(**o).get_random_transform((7, 12, 3), seed)
        assert found == pytest.approx(expected_parameters(o, seed, 0, 0, (7, 12)))


def test_parameters_come_from_the_sample_alone():
    draws_its_parameters(augment)


def makes_its_images(module, images=BYTES, limits=(0, 255), which=None, replays=True):
    "Every batch equals SciPy's transform of its images under the table, and so does apply_transform."
    for i in which or range(len(RIGHT)):
        o = RIGHT[i]
        generator = module.ImageDataGenerator(**o)
        iterator = generator.flow(images, LABELS, batch_size=9, seed=1)
        before = images.copy()
        for _ in range(2):
            x, y = next(iterator)
            table = iterator.parameters
            assert x.dtype == np.float32
            assert x.shape == (len(y), *images.shape[1:])
            np.testing.assert_array_equal(y, LABELS[table["index"]])
            rows = [{k: v if v is None else v[j] for k, v in table.items()} for j in range(len(x))]
            expected = [expected_image(o, images[p["index"]], p, limits) for p in rows]
            scale = max(np.abs(expected).max(), 1)
            assert_close(x, np.array(expected, np.float32), rtol=1e-5, atol=3e-5 * scale)
            if replays and not {"rescale", "samplewise_std_normalization"} & o.keys():
                chosen = images[table["index"]]
                replayed = generator.apply_transform(chosen, table)
                assert replayed.dtype == images.dtype
                slack = 0.5 + 1e-3 if images.dtype.kind == "u" else 3e-5 * scale
                assert_close(replayed.astype(np.float32), x, rtol=1e-5, atol=slack)
                one = generator.apply_transform(chosen[0], rows[0])
                np.testing.assert_array_equal(one, replayed[0])
        np.testing.assert_array_equal(images, before)


def computes_in_float64(module):
    "A float64 image is transformed to 1e-12."
    x = PIXELS[0].astype(np.float64)
    p = {"theta": 20.0, "tx": 1.5, "ty": -0.5, "shear": 5.0, "zx": 1.2, "zy": 0.9, "flip_horizontal": 1}
    found = module.ImageDataGenerator().apply_transform(x, p)
    o = {"flip_vertical": 0, "channel_shift_intensity": None, "brightness": None}
    assert_close(found, expected_image({}, x, p | o), rtol=1e-10)


def test_images_equal_scipy():
    makes_its_images(augment)
    computes_in_float64(augment)


def keeps_ranges(module):
    "Colours change within the range of the dtype, of the data, or as given."
    for dtype, high in (("uint16", 65535), ("float32", 1.0), ("float64", 255.0), ("float32", 900.0), ("float32", 1.5)):
        images = (PIXELS / 255 * high).astype(dtype)
        images[0, 0, 0, 0] = high
        makes_its_images(
            module, images, (0, max(high, 255) if high > 1 else 1), [1, 7, 8, 10], replays=high in (1, 255)
        )
    negative = (PIXELS / 255 - 0.5).astype(np.float32)
    makes_its_images(module, negative, (negative.min(), 1.0), [7, 9, 10], replays=False)
    bright = module.ImageDataGenerator(brightness_range=(3, 3), high=300.0)
    assert next(bright.flow(PIXELS, seed=1)).max() == bright.random_transform(PIXELS[0], seed=1).max() == 300
    assert next(module.ImageDataGenerator(brightness_range=(3, 3), high=99).flow(BYTES)).max() == 99
    for value in (np.nan, np.inf, -np.inf):
        images = PIXELS.copy()
        images[3, 0, 0, 0] = value
        for harmless in ({"rotation_range": 5}, {"keras_compat": True, "channel_shift_range": 5}):
            assert module.ImageDataGenerator(**harmless).flow(images).n == 13  # nothing asks for the range
        with pytest.raises(ValueError, match="x must be finite, got values from"):
            bright.flow(images)


def test_every_range_is_kept():
    keeps_ranges(augment)


def test_width_means_width():
    column = np.zeros((1, 9, 15, 1), np.uint8)
    column[:, :, 7] = 255
    for options, moves in (({"width_shift_range": 3}, True), ({"height_shift_range": 3}, False)):
        iterator = ImageDataGenerator(**options).flow(np.repeat(column, 30, 0), seed=1, batch_size=30)
        found = next(iterator)
        assert {int(x[4, :, 0].argmax()) for x in found} == ({5, 6, 7, 8, 9} if moves else {7})


def test_non_square_images_turn_about_their_centre():
    image = np.zeros((21, 41, 1), np.float32)
    image[10, 20] = 255
    for angle in (30, 77.5, -120):
        assert ImageDataGenerator().apply_transform(image, {"theta": angle})[10, 20, 0] == pytest.approx(255)
        assert ImageDataGenerator(keras_compat=True).apply_transform(image, {"theta": angle})[10, 20, 0] < 1


def does_not_depend_on_the_batch(module):
    "A sample's image is the same whatever the batch size, the order, or how the batch is asked for."
    generator = module.ImageDataGenerator(**CLASSIC)

    def epoch(k, **options):
        iterator, found = generator.flow(BYTES, seed=2, **options), {}
        for _ in range(k * len(iterator)):
            next(iterator)
        for _ in range(len(iterator)):
            x = next(iterator)
            found |= dict(zip(iterator.parameters["index"].tolist(), x, strict=True))
        return np.array([found[i] for i in range(13)])

    for k in (0, 2):
        first = epoch(k, batch_size=5)
        for options in ({"batch_size": 1}, {"batch_size": 13}, {"batch_size": 5, "shuffle": False}):
            np.testing.assert_array_equal(epoch(k, **options), first)
    assert not np.array_equal(epoch(0, batch_size=5), epoch(1, batch_size=5))


def test_samples_do_not_depend_on_the_batch(monkeypatch):
    does_not_depend_on_the_batch(augment)
    one = next(ImageDataGenerator(**CLASSIC).flow(BYTES, seed=2))
    for threads in "13":
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        np.testing.assert_array_equal(next(ImageDataGenerator(**CLASSIC).flow(BYTES, seed=2)), one)


def goes_by_number_too(module):
    "Batch i of the epoch, in any order; `on_epoch_end` begins the next one, and so does `reset` in its middle."
    generator = module.ImageDataGenerator(**CLASSIC)
    iterator, again = (generator.flow(BYTES, LABELS, batch_size=5, seed=2) for _ in range(2))
    assert (len(iterator), iterator.n, iterator.samples, iterator.batch_size, iterator.seed) == (3, 13, 13, 5, 2)
    assert iter(iterator) is iterator
    assert iterator.image_shape == (7, 12, 3)
    assert iterator.shuffle is True
    for epoch in range(2):
        inorder = [next(iterator) for _ in range(3)]
        for i in (2, 0, 1):
            for a, b in zip(again[i], inorder[i], strict=True):
                np.testing.assert_array_equal(a, b)
        assert (again.epoch, iterator.epoch) == (epoch, epoch + 1)
        again.on_epoch_end()
    first = next(again)
    assert (again.epoch, again.batch_index) == (2, 1)
    for _ in range(2):  # the second time nothing has begun
        again.reset()
        assert (again.epoch, again.batch_index) == (3, 0)
    assert not np.array_equal(next(again)[0], first[0])
    again.epoch, again.batch_index = 2, 0
    for a, b in zip(next(again), first, strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.total_batches_seen == 9
    assert repr(again) == "<NumpyArrayIterator of 13 samples>"
    for wrong in (3, -1):
        with pytest.raises(IndexError, match="from 0 to 2"):
            iterator[wrong]
    one, other = (generator.flow(BYTES) for _ in range(2))
    assert one.seed != other.seed
    assert not np.array_equal(one[0], other[0])
    np.testing.assert_array_equal(generator.flow(BYTES, seed=one.seed)[0], one[0])


def test_batches_by_number():
    goes_by_number_too(augment)


def test_nobodys_global_seed_is_touched():
    for compat in (False, True):
        generator = ImageDataGenerator(**CLASSIC, keras_compat=compat)
        np.random.seed(7)  # noqa: NPY002
        (
            next(generator.flow(BYTES, seed=3)),
            generator.random_transform(BYTES[0]),
            generator.random_transform(BYTES[0], 5),
        )
        assert np.random.random() == np.random.RandomState(7).random_sample()  # noqa: NPY002


def moves_masks(module):
    "Masks move with their images, labels stay labels; by one iterator, or by two with one seed."
    squares = np.zeros((13, 16, 20), np.uint8)
    squares[:, 4:12, 5:15] = 200
    images, options = squares[..., None], CLASSIC | {"zoom_range": 0.2, "fill_mode": "constant"}
    for masks in (squares.astype(np.int64) // 100, images // 100):
        iterator = module.ImageDataGenerator(**options).flow(images, masks=masks, seed=4, mask_cval=7)
        labels = module.ImageDataGenerator(**options | {"cval": 7}, interpolation_order=0).flow(images // 100, seed=4)
        for _ in range(2):
            x, m = next(iterator)
            assert m.dtype == masks.dtype
            assert m.shape == masks.shape
            assert set(np.unique(m)) == {0, 2, 7}
            np.testing.assert_array_equal(m.reshape(x.shape), next(labels))
            apart = np.abs(x - 100.0 * (m.reshape(x.shape) == 2))  # 200 within, 0 outside, and the edge between them
            assert (apart > 101).sum() == 0
    plain = module.ImageDataGenerator(validation_split=0.3, rotation_range=90)
    x, m = next(plain.flow(images, masks=squares, subset="validation", shuffle=False))
    np.testing.assert_array_equal(m, squares[:3])


def test_masks_move_with_their_images():
    moves_masks(augment)


def gives_targets(module):
    "What a batch holds, in which order."
    generator, masks, weights = module.ImageDataGenerator(), BYTES[..., 0] // 100, np.arange(13.0)
    flow = partial(generator.flow, BYTES, shuffle=False, batch_size=6)
    x, y, m, w = BYTES[:6].astype(np.float32), LABELS[:6], masks[:6], weights[:6]

    def same(found, expected):
        if isinstance(expected, (tuple, list)):
            assert type(found) is type(expected)
            for a, b in zip(found, expected, strict=True):
                same(a, b)
        else:
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)

    same(next(flow()), x)
    same(next(flow(LABELS)), (x, y))
    same(next(flow(LABELS, sample_weight=weights)), (x, y, w))
    same(next(flow(masks=masks)), (x, m))
    same(next(flow(masks=masks, sample_weight=weights)), (x, m, w))
    same(next(flow(LABELS, masks=masks, sample_weight=weights)), (x, (y, m), w))
    same(next(generator.flow((BYTES, weights), LABELS, 6, False)), ([x, w], y))
    same(next(generator.flow([BYTES, [weights, masks]], None, 6, False)), [x, w, m])


def test_what_a_batch_holds():
    gives_targets(augment)


def splits(module):
    "The first share is for validation and is not transformed; weights, masks and others are split too."
    generator = module.ImageDataGenerator(**ALL, validation_split=0.3, rescale=0.5)
    weights = np.arange(13.0)
    for subset, kept in (("validation", slice(0, 3)), ("training", slice(3, 13)), (None, slice(0, 13))):
        flow = generator.flow((BYTES, weights), LABELS, sample_weight=weights, subset=subset, shuffle=False, seed=1)
        (x, other), y, w = next(flow)
        np.testing.assert_array_equal(y, LABELS[kept])
        np.testing.assert_array_equal(w, weights[kept])
        np.testing.assert_array_equal(other, weights[kept])
        assert np.array_equal(x, BYTES[kept] * np.float32(0.5)) == (subset == "validation")
        assert (flow.parameters is None) == (subset == "validation")
        assert flow.n == len(y)


def test_validation_is_not_transformed():
    splits(augment)


def standardizes(module):
    "The statistics of what a batch holds before they are used: means 0, deviations 1, pixels without correlation."
    images = np.random.default_rng(1).integers(0, 256, (300, 4, 5, 3)).astype(np.uint8)
    scaled = images / 255 - 0.25
    options = {"preprocessing_function": lambda x: x - 63.75, "rescale": 1 / 255, "featurewise_std_normalization": True}
    generator = module.ImageDataGenerator(**options)
    assert generator.featurewise_center
    assert generator.fit(images) is None
    assert generator.mean.shape == generator.std.shape == (1, 1, 3)
    assert generator.mean.dtype == np.float32
    assert_close(generator.mean[0, 0], scaled.mean((0, 1, 2)).astype(np.float32), rtol=1e-5)
    assert_close(generator.std[0, 0], scaled.std((0, 1, 2)).astype(np.float32), rtol=1e-5)
    expected = ((scaled - scaled.mean((0, 1, 2))) / (scaled.std((0, 1, 2)) + 1e-6)).astype(np.float32)
    assert_close(generator.flow(images, shuffle=False, batch_size=300)[0], expected, rtol=1e-4, atol=1e-5)
    before = images.copy()
    assert_close(generator.standardize(images), expected, rtol=1e-4, atol=1e-5)
    assert_close(generator.standardize(images[0]), expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(images, before)
    white = module.ImageDataGenerator(zca_whitening=True, dtype="float64")
    white.fit(images)
    flat = white.flow(images, batch_size=300)[0].reshape(300, -1)
    assert flat.dtype == np.float64
    assert white.mean is not None
    assert white.std is None
    assert_close(flat.T @ flat / 300, np.eye(60), rtol=0, atol=1e-6)
    assert (white.zca_whitening_matrix == white.zca_whitening_matrix.T).all() or np.allclose(
        white.zca_whitening_matrix, white.zca_whitening_matrix.T
    )
    gray = module.ImageDataGenerator(featurewise_std_normalization=True)
    gray.fit(images[..., :1])
    assert_close(gray.std[0, 0], images[..., :1].std((0, 1, 2)).astype(np.float32), rtol=1e-5)
    faint = np.array([0.0, 2e-6], np.float32).reshape(1, 2, 1)
    found = module.ImageDataGenerator(samplewise_std_normalization=True).standardize(faint)
    assert_close(found.ravel(), np.array([-0.5, 0.5], np.float32), rtol=1e-3)
    samples = module.ImageDataGenerator(samplewise_std_normalization=True).standardize(images)
    assert_close(samples.mean((1, 2, 3)), np.zeros(300, np.float32), rtol=0, atol=1e-5)
    assert_close(samples.std((1, 2, 3)), np.ones(300, np.float32), rtol=1e-5)


def test_standardised_batches():
    standardizes(augment)


def fits_transformed(module):
    "With augment=True the statistics are those of an epoch of `flow` with the same seed, for each round."
    moves = {"rotation_range": 90, "width_shift_range": 0.3, "height_shift_range": 0.3, "fill_mode": "constant"}
    generator = module.ImageDataGenerator(featurewise_std_normalization=True, **moves)
    generator.fit(BYTES, augment=True, rounds=2, seed=5)
    plain = module.ImageDataGenerator(**moves).flow(BYTES, seed=5, shuffle=False)
    seen = np.concatenate([next(plain) for _ in range(2)]).astype(np.float64)
    assert_close(generator.mean[0, 0], seen.mean((0, 1, 2)).astype(np.float32), rtol=1e-6)
    assert_close(generator.std[0, 0], seen.std((0, 1, 2)).astype(np.float32), rtol=1e-6)
    generator.fit(BYTES, rounds=2, seed=5)
    assert_close(generator.mean[0, 0], BYTES.mean((0, 1, 2)).astype(np.float32), rtol=1e-6)


def test_statistics_of_transformed_images():
    fits_transformed(augment)


def test_images_that_are_read_only_or_lie_elsewhere(tmp_path):
    expected = ImageDataGenerator(**CLASSIC).flow(BYTES, seed=1)[0]
    frozen = BYTES.copy()
    frozen.flags.writeable = False
    np.save(tmp_path / "x.npy", BYTES)
    strided = np.repeat(np.repeat(BYTES, 2, 0), 2, 2)[::2, :, ::2]
    for x in (frozen, strided, np.load(tmp_path / "x.npy", mmap_mode="r"), np.asfortranarray(BYTES)):
        np.testing.assert_array_equal(ImageDataGenerator(**CLASSIC).flow(x, seed=1)[0], expected)


def test_memory_is_a_batch_and_not_the_data_set():
    images = np.zeros((2000, 32, 32, 3), np.uint8)
    tracemalloc.start()
    try:
        iterator = ImageDataGenerator(**CLASSIC, rescale=1 / 255).flow(images, batch_size=16, seed=1)
        next(iterator)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 16 * 32 * 32 * 3 * 4  # bytes of a batch of float32


# ---------------------------------------------------------------- folders


def reads_folders(module, root):
    "Hidden folders are no class; labels by `class_mode`; every class is split; files are read when needed."
    generator = module.ImageDataGenerator(validation_split=0.3, rotation_range=30)
    plain = module.ImageDataGenerator()
    flow = partial(plain.flow_from_directory, root, (9, 13), shuffle=False, batch_size=32)
    one = flow()
    assert one.class_indices == {"ant": 0, "cats": 1, "dogs": 2}
    assert (one.n, one.num_classes, len(one)) == (16, 3, 1)
    assert one.image_shape == (9, 13, 3)
    assert one.filenames[0] == "ant/0.png"
    assert Path(one.filepaths[0]).is_file()
    labels = np.repeat([0, 1, 2], [4, 7, 5])
    np.testing.assert_array_equal(one.classes, labels)
    np.testing.assert_array_equal(one.labels, labels)
    x, y = next(one)
    assert x.dtype == y.dtype == np.float32
    assert x.shape == (16, 9, 13, 3)
    np.testing.assert_array_equal(y, np.eye(3, dtype=np.float32)[labels])
    with Image.open(one.filepaths[9]) as file:
        small = np.asarray(file.convert("RGB").resize((13, 9), Image.Resampling.BILINEAR), np.float32)
    np.testing.assert_array_equal(x[9], small)
    sparse = next(flow(class_mode="sparse"))[1]
    assert sparse.dtype == np.int64
    assert (sparse == labels).all()
    binary = next(flow(class_mode="binary", classes=["dogs", "ant"]))[1]
    assert binary.dtype == np.float32
    assert binary.tolist() == [0] * 5 + [1] * 4
    same, copy = next(flow(class_mode="input"))
    assert np.array_equal(same, copy)
    assert not np.shares_memory(same, copy)
    np.testing.assert_array_equal(next(flow(class_mode=None)), x)
    for mode, channels in (("grayscale", 1), ("rgba", 4)):
        assert next(flow(class_mode=None, color_mode=mode)).shape == (16, 9, 13, channels)
    nearest = next(flow(class_mode=None, interpolation="nearest"))
    assert not np.array_equal(nearest, x)
    valid, rest = (generator.flow_from_directory(root, (9, 13), subset=s, seed=1) for s in ("validation", "training"))
    assert (valid.n, rest.n) == (1 + 2 + 1, 12)
    assert not set(valid.filenames) & set(rest.filenames)
    np.testing.assert_array_equal(
        next(valid)[0].sum(),
        plain.flow_from_directory(root, (9, 13), batch_size=16, shuffle=False)[0][0][[0, 4, 5, 11]].sum(),
    )
    assert valid.parameters is None
    assert next(rest)
    assert len(rest.parameters["theta"]) == 12


def test_folders(folder):
    reads_folders(augment, folder)


def transforms_folders_as_arrays(module, root):
    options = {"target_size": (9, 13), "class_mode": None, "batch_size": 16}
    images = module.ImageDataGenerator().flow_from_directory(root, shuffle=False, **options)[0]
    for high in (None, 280.0):
        colours = ALL | {"channel_shift_range": 100.0, "brightness_range": (0.5, 3), "high": high}
        expected = module.ImageDataGenerator(**colours).flow(images, batch_size=16, seed=3)
        found = module.ImageDataGenerator(**colours).flow_from_directory(root, seed=3, **options)
        for _ in range(2):
            assert_close(next(found), next(expected), rtol=1e-6, atol=1e-4)


def test_a_folder_of_transformed_images_is_that_of_arrays(folder):
    transforms_folders_as_arrays(augment, folder)


def skips_files(module, root):
    "Files that break after they were looked at are named, or left out with their labels."
    generator = module.ImageDataGenerator(**CLASSIC, validation_split=0.5)
    for subset, _left, bad in (("training", 8, "2.png"), ("validation", 7, "0.png")):
        place = made_folder(Path(root, subset))
        made = partial(generator.flow_from_directory, place, (9, 13), shuffle=False, batch_size=32, subset=subset)
        raising, skipping = made(), made(on_error="skip")
        path = next(Path(p) for p in raising.filepaths if p.endswith(f"dogs/deep/{bad}") or p.endswith(f"dogs/{bad}"))
        path.write_bytes(b"broken")
        with pytest.raises(ValueError, match=bad):
            next(raising)
        single = made(on_error="skip", batch_size=1, check=None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert len([next(single) for _ in range(2 * single.n - 1)]) == 2 * single.n - 1
            assert single.epoch == 2
            broken = single.filepaths.index(str(path))
            np.testing.assert_array_equal(single[broken][0], single[(broken + 1) % single.n][0])
        assert [p.path for p in single.skipped] == [str(path)]  # once, however often
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x, y = next(skipping)
        assert len(x) == len(y)
        assert len(x) == raising.n - 1
        assert [p.path for p in skipping.skipped] == [str(path)]
        if subset == "training":
            at = [str(path) == p for p in skipping.filepaths].index(True)
            assert len(skipping.parameters["theta"]) == len(x)
            assert at not in skipping.parameters["index"]
            np.testing.assert_array_equal(y.argmax(1), np.delete(skipping.classes, at))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        everything = made(on_error="skip")
        for name in everything.filepaths:
            Path(name).write_bytes(b"broken")
        with pytest.raises(ValueError, match="must hold an image that can be read, got none in a whole epoch"):
            next(everything)


def test_files_that_break_later_are_skipped_or_named(tmp_path):
    skips_files(augment, tmp_path)


# ---------------------------------------------------------------- training


def test_the_classic_program_trains_by_our_fit(folder):
    train = ImageDataGenerator(**CLASSIC, rescale=1 / 255).flow_from_directory(
        folder, (6, 6), class_mode="sparse", batch_size=8, seed=1
    )
    model = MLP((6 * 6 * 3, 3))
    params = model.init(np.random.default_rng(0), np.float32)
    options = {"steps_per_epoch": len(train), "epochs": 3}
    history = fit(lambda p, x: model.apply(p, x.reshape(len(x), -1)), params, train, cross_entropy, sgd(0.1), **options)
    assert len(history.step_loss) == 6
    assert train.epoch == 3


def test_the_classic_program_trains_by_kerass_fit(folder):
    keras_image()
    import keras

    generator = ImageDataGenerator(**CLASSIC, rescale=1 / 255, validation_split=0.3)
    for compat in (False, True):
        generator = ImageDataGenerator(**CLASSIC, rescale=1 / 255, validation_split=0.3, keras_compat=compat)
        options = {"target_size": (6, 6), "class_mode": "sparse", "batch_size": 4, "seed": 1}
        train = generator.flow_from_directory(folder, subset="training", **options)
        valid = generator.flow_from_directory(folder, subset="validation", **options)
        assert isinstance(train, keras.utils.PyDataset)
        assert isinstance(train, augment.DirectoryIterator)
        model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01), loss)
        for more in ({}, {"steps_per_epoch": len(train), "validation_steps": 1}):
            done = model.fit(train, epochs=2, validation_data=valid, verbose=0, **more)
            assert len(done.history["loss"]) == len(done.history["val_loss"]) == 2
        train.workers = 2
        model.fit(train, epochs=1, verbose=0)
        assert float(model.evaluate(valid, verbose=0)) > 0


def test_an_iterator_that_is_older_than_keras_says_so(monkeypatch):
    keras_image()
    import keras

    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "keras")
        old = ImageDataGenerator().flow(BYTES, LABELS)
        assert repr(old) == "<NumpyArrayIterator of 13 samples>"
    model = keras.Sequential([keras.Input((7, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="13 samples, made before `import keras`: make it again"):
        model.fit(old, verbose=0)
    new = ImageDataGenerator().flow(BYTES, LABELS)
    assert repr(new) == "<NumpyArrayIterator of 13 samples>"
    model.fit(new, verbose=0)


def test_without_keras_there_is_no_keras():
    code = (
        "import sys, numpy as np; from dlopt_course.augment import ImageDataGenerator as G; "
        "it = G(rotation_range=20).flow(np.zeros((4, 5, 6, 3), np.uint8)); next(it); "
        "print(type(it).__mro__[1].__name__, 'keras' in sys.modules, 'torch' in sys.modules, 'PIL' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.split()[:2] == ["_Iterator", "False"], done.stderr


# ---------------------------------------------------------------- bad input

NAN = float("nan")
BAD_OPTIONS = [  # options, what the error says
    ({"rotation_range": -1}, ValueError, "rotation_range must be 0 or more, got -1"),
    ({"rotation_range": "20"}, TypeError, "rotation_range must be a number, got str"),
    ({"rotation_range": NAN}, ValueError, "rotation_range must be 0 or more, got nan"),
    ({"width_shift_range": "0.2"}, TypeError, "width_shift_range must be a number .* or a list"),
    ({"width_shift_range": True}, TypeError, "width_shift_range must be a number"),
    ({"width_shift_range": []}, TypeError, "width_shift_range must be a number .* or a list"),
    ({"width_shift_range": -0.2}, ValueError, "width_shift_range must be 0 or more, got -0.2"),
    ({"height_shift_range": [0.1, "a"]}, TypeError, r"height_shift_range\[1\] must be a number, got str"),
    ({"height_shift_range": 1}, ValueError, "height_shift_range=1 means whole pixels between -1 and 1, so only 0"),
    ({"brightness_range": 0.5}, TypeError, r"brightness_range must be a pair \(low, high\), got 0.5"),
    ({"brightness_range": (0.5, 1, 2)}, TypeError, "brightness_range must be a pair"),
    ({"brightness_range": (1.5, 0.5)}, ValueError, "brightness_range must be a pair .* with low <= high"),
    ({"brightness_range": (-0.5, 0.5)}, ValueError, r"brightness_range\[0\] must be 0 or more, got -0.5"),
    ({"shear_range": -3}, ValueError, "shear_range must be 0 or more"),
    ({"zoom_range": (0.5, 1, 2)}, TypeError, "zoom_range must be a pair"),
    ({"zoom_range": 1.5}, ValueError, "zoom_range must be from 0 to 1, or a pair .* got 1.5"),
    ({"zoom_range": -0.5}, ValueError, "zoom_range must be from 0 to 1"),
    ({"zoom_range": (0.0, 1.0)}, ValueError, r"zoom_range\[0\] must be greater than 0, got 0.0"),
    ({"zoom_range": (1.5, 0.5)}, ValueError, "zoom_range must be a pair .* with low <= high"),
    ({"zoom_range": "0.5"}, TypeError, "zoom_range must be a pair"),
    ({"channel_shift_range": -1.0}, ValueError, "channel_shift_range must be 0 or more"),
    (
        {"fill_mode": "edge"},
        ValueError,
        "fill_mode must be one of 'nearest', 'reflect', 'wrap', 'constant', got 'edge'",
    ),
    ({"cval": None}, TypeError, "cval must be a number"),
    ({"horizontal_flip": 0.5}, TypeError, "horizontal_flip must be True or False, got 0.5"),
    ({"vertical_flip": "yes"}, TypeError, "vertical_flip must be True or False"),
    ({"rescale": "1/255"}, TypeError, "rescale must be a number, got str"),
    ({"preprocessing_function": 3}, TypeError, "preprocessing_function must be a function"),
    ({"data_format": "channels_first"}, ValueError, "data_format must be 'channels_last' or None; to_nchw"),
    ({"validation_split": 1.0}, ValueError, "validation_split must be 0, or between 0 and 1, got 1.0"),
    ({"validation_split": -0.1}, ValueError, "validation_split must be 0, or between 0 and 1, got -0.1"),
    ({"interpolation_order": 2}, ValueError, "interpolation_order must be one of 0, 1, got 2"),
    ({"dtype": "uint8"}, ValueError, "dtype must be float32 or float64, got 'uint8'"),
    ({"high": 0}, ValueError, "high must be greater than 0"),
    ({"featurewise_center": 1}, TypeError, "featurewise_center must be True or False, got 1"),
    ({"samplewise_center": None}, TypeError, "samplewise_center must be True or False"),
    ({"zca_epsilon": -1e-6}, ValueError, "zca_epsilon must be 0 or more"),
    ({"keras_compat": "yes"}, TypeError, "keras_compat must be True or False"),
    ({"keras_compat": 1}, TypeError, "keras_compat must be True or False"),
    ({"horizontal_flip": 1}, TypeError, "horizontal_flip must be True or False"),
    ({"fill_mode": "mirror"}, ValueError, "fill_mode must be one of"),
    ({"keras_compat": True, "rotation_range": NAN}, ValueError, "rotation_range must be finite, got nan"),
    ({"keras_compat": True, "width_shift_range": -np.inf}, ValueError, "width_shift_range must be finite"),
    ({"keras_compat": True, "width_shift_range": np.array([])}, TypeError, "width_shift_range must be a number"),
    ({"keras_compat": True, "zoom_range": NAN}, ValueError, "zoom_range must be finite"),
    ({"keras_compat": True, "zoom_range": (1, 2, 3)}, TypeError, "zoom_range must be a pair"),
    ({"keras_compat": True, "brightness_range": (NAN, 1)}, ValueError, r"brightness_range\[0\] must be finite"),
    ({"keras_compat": True, "vertical_flip": "yes"}, TypeError, "vertical_flip must be True or False"),
    (
        {"keras_compat": True, "fill_mode": "edge"},
        ValueError,
        "fill_mode must be one of .* 'grid-constant', got 'edge'",
    ),
]
BAD_FLOWS = [  # options, arguments of flow, what the error says
    ({}, {"x": BYTES[0]}, ValueError, r"x must be \(n, h, w, c\), one image as image\[None\]"),
    ({}, {"x": BYTES.astype(complex)}, TypeError, "x must be an array of real numbers, got complex128"),
    ({}, {"x": BYTES[:0]}, ValueError, "x must not be empty"),
    ({}, {"x": (BYTES, LABELS, LABELS)}, ValueError, "x must be images, or a pair .* got 3 things"),
    ({}, {"x": (BYTES, LABELS[:5])}, ValueError, r"x\[1\]\[0\] must have the 13 samples of x, got shape \(5,\)"),
    ({}, {"x": BYTES, "y": LABELS[:5]}, ValueError, r"y must have the 13 samples of x, got shape \(5,\)"),
    ({}, {"x": BYTES, "y": 3}, ValueError, r"y must have the 13 samples of x, got shape \(\)"),
    ({}, {"x": BYTES, "y": LABELS, "sample_weight": [1.0]}, ValueError, "sample_weight must have the 13 samples"),
    ({}, {"x": BYTES, "sample_weight": LABELS}, ValueError, "sample_weight belongs to targets"),
    ({}, {"x": BYTES, "batch_size": 0}, ValueError, "batch_size must be a whole number from 1, got 0"),
    ({}, {"x": BYTES, "shuffle": 1}, TypeError, "shuffle must be True or False, got 1"),
    ({}, {"x": BYTES, "seed": -1}, ValueError, "seed must be a whole number from 0, got -1"),
    ({}, {"x": BYTES, "seed": "a"}, TypeError, "seed must be a number, got str"),
    ({}, {"x": BYTES, "subset": "training"}, ValueError, "subset='training' needs .* validation_split"),
    ({"validation_split": 0.3}, {"x": BYTES, "subset": "test"}, ValueError, "subset must be one of .* got 'test'"),
    (
        {"validation_split": 0.01},
        {"x": BYTES, "subset": "validation"},
        ValueError,
        "'validation' must hold at least one",
    ),
    (
        {"validation_split": 0.3},
        {"x": BYTES, "y": np.arange(13) // 5, "subset": "training"},
        ValueError,
        "subset must leave every class in both parts",
    ),
    ({}, {"x": BYTES, "masks": PIXELS[..., 0]}, ValueError, r"masks must be integer labels .* got float32"),
    ({}, {"x": BYTES, "masks": BYTES}, ValueError, r"masks must be integer labels \(n, h, w\) or"),
    ({}, {"x": BYTES, "masks": BYTES[:, :5, :, 0]}, ValueError, r"masks must have the size of x, \(13, 7, 12\)"),
    ({"brightness_range": (1, 2)}, {"x": PIXELS * np.float32(NAN)}, ValueError, "x must be finite"),
]
BAD_FOLDERS = [
    ({"target_size": 5}, TypeError, "target_size must be a pair"),
    ({"target_size": (0, 5)}, ValueError, r"target_size\[0\] must be a whole number from 1"),
    ({"color_mode": "bgr"}, ValueError, "color_mode must be one of 'rgb', 'rgba', 'grayscale', got 'bgr'"),
    ({"class_mode": "multi"}, ValueError, "class_mode must be one of 'categorical'.* got 'multi'"),
    ({"class_mode": "binary"}, ValueError, "(?s)class.* 3"),
    ({"interpolation": "cubic"}, ValueError, "interpolation must be one of 'nearest', 'bilinear'.* got 'cubic'"),
    ({"keep_aspect_ratio": 1}, TypeError, "keep_aspect_ratio must be True or False"),
    ({"on_error": "ignore"}, ValueError, "on_error must be one of 'raise', 'skip'"),
    ({"classes": ["cats", "nobody"]}, ValueError, "nobody"),
    ({"subset": "training"}, ValueError, "needs .* validation_split"),
]


def refuses_options(module):
    for options, kind, message in BAD_OPTIONS:
        with pytest.raises(kind, match=message):
            module.ImageDataGenerator(**options)
    implied = module.ImageDataGenerator(samplewise_std_normalization=True, dtype=np.float64)
    assert implied.samplewise_center
    assert not implied.featurewise_center
    assert implied.dtype == np.float64
    assert not module.ImageDataGenerator().samplewise_center
    assert module.ImageDataGenerator().dtype == np.float32
    for name in ("zca_whitening", "featurewise_std_normalization"):
        implied = module.ImageDataGenerator(**{name: True})
        assert implied.featurewise_center
        assert getattr(implied, name)
        assert not implied.samplewise_center
    with pytest.warns(UserWarning, match="zca_whitening replaces featurewise_std_normalization"):
        both = module.ImageDataGenerator(zca_whitening=True, featurewise_std_normalization=True)
    assert both.featurewise_center
    assert not both.featurewise_std_normalization


def refuses_flows(module):
    for options, arguments, kind, message in BAD_FLOWS:
        with pytest.raises(kind, match=message):
            module.ImageDataGenerator(**options).flow(**arguments)


def refuses_folders(module, root):
    for arguments, kind, message in BAD_FOLDERS:
        with pytest.raises(kind, match=message):
            module.ImageDataGenerator().flow_from_directory(root, **arguments)
    for compat in (False, True):
        few = module.ImageDataGenerator(validation_split=0.05, keras_compat=compat)
        with pytest.raises(ValueError, match="subset='validation' of directory .* must hold a file, got none"):
            few.flow_from_directory(root, subset="validation")
    with pytest.raises(ValueError, match="^directory .*deep must hold a file, got none"):
        few.flow_from_directory(root / "ant" / "deep")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        module.ImageDataGenerator().flow_from_directory(root / "nowhere")


def refuses_transforms(module):
    generator = module.ImageDataGenerator()
    for parameters, kind, message in (
        ({"rotation": 5}, ValueError, "a name in transform_parameters must be one of .* got 'rotation'"),
        ([5], TypeError, "transform_parameters must be a dict by name, got list"),
        ({"theta": "a"}, ValueError, r"transform_parameters\['theta'\] must be a number or 1 of them"),
        ({"theta": [1.0, 2.0]}, ValueError, r"transform_parameters\['theta'\] must be a number or 1 of them"),
        *(
            ({name: None}, ValueError, rf"transform_parameters\['{name}'\] must be a number")
            for name in ("theta", "zy", "flip_vertical")
        ),
    ):
        with pytest.raises(kind, match=message):
            generator.apply_transform(PIXELS[0], parameters)
    with pytest.raises(ValueError, match=r"must keep the shape \(7, 12, 3\), got \(\)"):
        module.ImageDataGenerator(preprocessing_function=np.mean).standardize(PIXELS[0])
    with pytest.raises(ValueError, match="rounds must be a whole number from 1"):
        generator.fit(PIXELS, rounds=0)
    with pytest.raises(ValueError, match=r"x must be \(n, h, w, c\)"):
        generator.fit(PIXELS[0])


def test_bad_input_is_refused(folder):
    refuses_options(augment)
    refuses_flows(augment)
    refuses_folders(augment, folder)
    refuses_transforms(augment)


@cache
def kerass_defaults(method):
    parameters = signature(getattr(keras_image().ImageDataGenerator, method)).parameters
    return {name: p.default for name, p in parameters.items()}


def has_kerass_defaults(module):
    "All of Keras's options in Keras's order with Keras's defaults, but for the way to resize; and ours."
    ours = {"__init__": [None, False], "flow": [None, 0], "flow_from_directory": ["raise", "quick"]}
    for method in ("__init__", "flow", "flow_from_directory", "fit", "random_transform", "get_random_transform"):
        theirs = kerass_defaults(method)
        mine = {k: p.default for k, p in signature(getattr(module.ImageDataGenerator, method)).parameters.items()}
        assert list(mine)[: len(theirs)] == list(theirs)
        different = {name for name, default in theirs.items() if default != mine[name]}
        assert different == ({"interpolation"} if method == "flow_from_directory" else set())
        assert list(mine.values())[len(theirs) :] == ours.get(method, [])


def test_every_option_of_keras_is_one_of_ours_with_the_same_default():
    has_kerass_defaults(augment)
