"""Erasing, mixing, policies, streams of random numbers and the data set: against torchvision, NumPy and by counting."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch
from backends import BACKENDS, each_backend
from scipy import stats
from test_augment_color import HIGH, as_unit, from_torch, near, photo, to_torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from benchmarks.peers import torchvision_v2
from dlopt_course import augment
from dlopt_course.core import to_numpy
from dlopt_course.losses import cross_entropy

CHANCE = 1e-6  # how often a true statement about draws would fail, were the seed not fixed


def uniform_distance(n):
    "What Kolmogorov's distance of n draws exceeds with that chance (Dvoretzky, Kiefer, Wolfowitz and Massart)."
    return math.sqrt(math.log(2 / CHANCE) / 2 / n)


def share_off(n):
    "What a share of n draws is off by with that chance (Hoeffding)."
    return math.sqrt(math.log(2 / CHANCE) / 2 / n)


# Streams

INDICES = [0, 7, 3, 2**40]


def numpys_own(seed, epoch, index, k):
    philox = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=[0, index, 0, 0])
    return np.random.Generator(philox).random(k)


def draws_as_numpy(module, seed, epoch):
    "Row i is a stream of NumPy's Philox, in whatever pieces it is drawn."
    expected = np.stack([numpys_own(seed, epoch, i, 23) for i in INDICES])
    streams = module.SampleStreams(seed, epoch, np.array(INDICES))
    parts = [streams.random((4, k)) for k in (3, 6, 1, 4, 0, 9)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), expected)
    assert streams.position == 23
    cube = module.SampleStreams(seed, epoch, INDICES).random((4, 5, 2))
    np.testing.assert_array_equal(cube.reshape(4, 10), expected[:, :10])
    np.testing.assert_array_equal(
        module.SampleStreams(seed, epoch, INDICES, position=6).random((4, 5)), expected[:, 6:11]
    )
    np.testing.assert_array_equal(module.SampleStreams(seed, epoch, [7]).random((1, 4)), expected[1:2, :4])
    assert module.SampleStreams(seed, epoch, [7]).random((1,)).shape == (1,)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (1, 0), (0, 1), (12345, 678), (2**64 - 1, 2**64 - 1)])
def test_draws_as_numpy(seed, epoch):
    draws_as_numpy(augment, seed, epoch)


def test_philox_is_the_published_one():
    "The known answer of Random123 (kat_vectors, philox4x64 10) for a counter and a key of zeros."
    philox = np.random.Philox(key=0, counter=np.full(4, 2**64 - 1, np.uint64))  # NumPy counts before it draws
    words = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox.random_raw(4).tolist() == words


def goes_on_from_its_state(module):
    streams = module.SampleStreams(3, 4, [5, 6])
    streams.random((2, 3))
    text = json.dumps(streams.state)
    again = module.SampleStreams(**json.loads(text))
    repeated = eval(repr(streams), {"SampleStreams": module.SampleStreams})  # what is logged is what is run
    rest = streams.random((2, 6))
    np.testing.assert_array_equal(again.random((2, 6)), rest)
    np.testing.assert_array_equal(repeated.random((2, 6)), rest)
    assert json.loads(text) == {"seed": 3, "epoch": 4, "indices": [5, 6], "position": 3}
    indices = np.array([1, 2])
    held = module.SampleStreams(0, 0, indices)
    indices[0] = 9
    np.testing.assert_array_equal(held.random((2, 2)), module.SampleStreams(0, 0, [1, 2]).random((2, 2)))


def test_goes_on_from_its_state():
    goes_on_from_its_state(augment)
    copy = pickle.loads(pickle.dumps(augment.SampleStreams(1, 2, [3])))
    np.testing.assert_array_equal(copy.random((1, 5)), augment.SampleStreams(1, 2, [3]).random((1, 5)))


def test_streams_are_uniform_and_unlike_each_other():
    "Neighbouring seeds, epochs and samples, in one heap and against each other."
    n = 4000
    for rows in (
        augment.SampleStreams(0, 0, np.arange(n)).random((n, 5)),
        np.concatenate([augment.SampleStreams(0, e, [0]).random((1, 5)) for e in range(n)]),
        np.concatenate([augment.SampleStreams(s, 0, [0]).random((1, 5)) for s in range(n)]),
    ):
        for column in rows.T:
            assert stats.kstest(column, "uniform").statistic < uniform_distance(n)
        for a, b in ((rows[:, 0], rows[:, 1]), (rows[:-1, 0], rows[1:, 0])):
            assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(len(a))


BAD_STREAMS = [
    ((-1, 0, [0]), {}, "seed must be a whole number from 0"),
    ((2**64, 0, [0]), {}, "seed must be less than 2\\^64"),
    ((1.5, 0, [0]), {}, "seed must be a whole number"),
    ((0, -1, [0]), {}, "epoch must be a whole number from 0"),
    (("0", 0, [0]), {}, "seed must be a number"),
    ((0, 0, [[0]]), {}, "indices must be integers of shape"),
    ((0, 0, [0.5]), {}, "indices must be integers of shape"),
    ((0, 0, np.zeros(0, int)), {}, "indices must be one or more"),
    ((0, 0, [3, -1]), {}, "indices must be one or more, each 0 or more"),
    ((0, 0, [0]), {"position": -1}, "position must be a whole number from 0"),
]


def refuses_streams(module, arguments, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        module.SampleStreams(*arguments, **options)


@pytest.mark.parametrize(("arguments", "options", "message"), BAD_STREAMS)
def test_refuses_streams(arguments, options, message):
    refuses_streams(augment, arguments, options, message)


def refuses_sizes(module):
    for size in ((3, 2), 3, (1, 2)):
        with pytest.raises(ValueError, match="size must begin with the number of samples, 2, got"):
            module.SampleStreams(0, 0, [0, 1]).random(size)
    with pytest.raises(ValueError, match="each of the 3 images, got 2"):
        module._uniforms(module.SampleStreams(0, 0, [0, 1]), 3, 1)
    with pytest.raises(TypeError, match="Generator or SampleStreams, got RandomState"):
        module._uniforms(np.random.RandomState(0), 3, 1)  # noqa: NPY002
    found = module._uniforms(np.random.default_rng(1), 3, 2)
    np.testing.assert_array_equal(found, np.random.default_rng(1).random((3, 2)))


def test_refuses_sizes():
    refuses_sizes(augment)


# Erasing


def streams_like(module, rows):
    "A SampleStreams whose next numbers are these."
    streams = module.SampleStreams(0, 0, np.arange(len(rows)))
    streams.random = lambda size: np.broadcast_to(rows, size)
    return streams


def tried(u, size, scale, ratio):
    "torchvision's loop, in its words: ten tries, the first shape that is smaller than the image, then its place."
    (h, w), area = size, size[0] * size[1]
    for k in range(10):
        erase = area * (scale[0] + (scale[1] - scale[0]) * u[1 + 2 * k])
        aspect = math.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * u[2 + 2 * k])
        a, b = round(math.sqrt(erase * aspect)), round(math.sqrt(erase / aspect))
        if a < h and b < w:
            return int(u[21] * (h - a + 1)), int(u[22] * (w - b + 1)), a, b
    return None


def erases_as_torchvision(module, options=None, size=(9, 12), n=16):
    "The rectangle of each row of numbers, erased by torchvision's function."
    options = options or {}
    scale, ratio = options.get("scale", (0.02, 0.33)), options.get("ratio", (0.3, 3.3))
    probability, value = options.get("probability", 0.5), options.get("value", 0)
    u, x = np.random.default_rng(2).random((n, 23)), np.resize(photo("uint8", 3, size), (n, *size, 3))
    expected = x.copy()
    for i in range(n):
        box = tried(u[i], size, scale, ratio)
        if box and u[i, 0] < probability:
            v = torch.asarray(np.atleast_1d(np.uint8(value)))[:, None, None]
            expected[i : i + 1] = from_torch(torchvision_v2().functional.erase(to_torch(x[i : i + 1]), *box, v))
    found = module.random_erasing(x, np.random.default_rng(2), **options)
    np.testing.assert_array_equal(found, expected)
    floats = module.random_erasing(x / 255, np.random.default_rng(2), **options | {"value": np.array(value) / 255})
    np.testing.assert_allclose(floats * 255, expected, atol=1e-9)


ERASING = [
    {},
    {"probability": 1.0, "value": 7},
    {"probability": 1.0, "value": [1, 2, 3], "scale": (0.4, 1.0), "ratio": (0.1, 10.0)},
    {"probability": 1.0, "scale": (1.0, 1.0)},
    {"probability": 0.0},
]


@pytest.mark.parametrize("options", ERASING, ids=str)
def test_erases_as_torchvision(options):
    erases_as_torchvision(augment, options)


def test_erasing_is_distributed_as_torchvisions():
    "Share of images that lose something, area and aspect: two samples, Kolmogorov and Smirnov."
    n, size = 3000, (32, 32)
    x = np.ones((n, *size, 1), np.uint8)
    ours = augment.random_erasing(x, np.random.default_rng(0))[..., 0] == 0
    torch.manual_seed(0)
    transform = torchvision_v2().RandomErasing()
    theirs = np.stack([transform(torch.ones((1, *size), dtype=torch.uint8))[0].numpy() for _ in range(n)]) == 0
    areas = [mask.sum(axis=(1, 2)) for mask in (ours, theirs)]
    heights = [mask.any(axis=2).sum(axis=1) for mask in (ours, theirs)]
    tops = [mask.any(axis=2).argmax(axis=1) for mask in (ours, theirs)]
    for a, b in (areas, heights, tops):
        assert stats.ks_2samp(a, b).statistic < 2 * uniform_distance(n)  # each is that near to the truth
    assert abs((areas[0] > 0).mean() - 0.5) < share_off(n)


def refuses_what_is_not_finite(module):
    with pytest.raises(ValueError, match="value must be finite, got"):
        module.random_erasing(photo("float32"), np.random.default_rng(0), value=[1.0, math.nan, 2.0])


def test_refuses_what_is_not_finite():
    refuses_what_is_not_finite(augment)


def cuts_out(module):
    "A square around the pixel (row, column), cut off where the image ends."
    x = photo("uint8", 3, (6, 9))
    u = np.array([[0.0, 0.0], [0.5, 0.5], [0.99, 0.99], [0.34, 0.0]])
    expected = x.copy()
    expected[0, :2, :2], expected[1, 2:5, 3:6], expected[2, 4:, 7:], expected[3, 1:4, :2] = 9, 9, 9, 9
    np.testing.assert_array_equal(module.cutout(x, streams_like(module, u), 3, value=9), expected)
    even = x.copy()
    even[0, :1, :1], even[1, 2:4, 3:5], even[2, 4:, 7:], even[3, 1:3, :1] = 0, 0, 0, 0
    np.testing.assert_array_equal(module.cutout(x, streams_like(module, u), 2), even)


def test_cuts_out():
    cuts_out(augment)


BAD_ERASING = [
    ("random_erasing", {"probability": 1.1}, "probability must be from 0 to 1"),
    ("random_erasing", {"probability": -0.1}, "probability must be from 0 to 1"),
    ("random_erasing", {"scale": (0.5, 0.1)}, "scale must be in order"),
    ("random_erasing", {"scale": (0.5, 1.1)}, "scale\\[1\\] must be from 0 to 1"),
    ("random_erasing", {"scale": 0.5}, "scale must be a pair"),
    ("random_erasing", {"scale": (0.1, 0.2, 0.3)}, "scale must be a pair"),
    ("random_erasing", {"ratio": (0.0, 1.0)}, "ratio\\[0\\] must be greater than 0"),
    ("random_erasing", {"value": 256}, "value must be whole, from 0 to 255"),
    ("random_erasing", {"value": -1}, "value must be whole, from 0 to 255"),
    ("random_erasing", {"value": 0.5}, "value must be whole"),
    ("random_erasing", {"value": [1, 2]}, "value must be a number or 3 of them"),
    ("random_erasing", {"value": [1, 300, 2]}, "value must be whole, from 0 to 255"),
    ("random_erasing", {"value": [1, math.nan, 2]}, "value must be whole"),
    ("random_erasing", {"value": "random"}, "value must be a number or 3 of them"),
    ("cutout", {"size": 0}, "size must be a whole number from 1"),
    ("cutout", {"size": 2, "value": math.nan}, "value must be whole"),
]


def refuses_erasing(module, name, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(module, name)(photo(), np.random.default_rng(0), **options)
    with pytest.raises(ValueError, match="image\\[None\\]"):
        getattr(module, name)(photo()[0], np.random.default_rng(0), **options)


@pytest.mark.parametrize(("name", "options", "message"), BAD_ERASING)
def test_refuses_erasing(name, options, message):
    refuses_erasing(augment, name, options, message)


# Mixing

LABELS = np.array([2, 0, 1, 2])


def mixes_as_torchvision(module, dtype, alpha):
    "torchvision's transform with our weight."
    x, u = photo(dtype), 0.3
    weight = float(stats.beta(alpha, alpha).ppf(u))
    v2, params = torchvision_v2(), {"lam": weight, "batch_size": 4}
    labels = torch.asarray(LABELS)
    transform = v2.MixUp(num_classes=3)
    exact = from_torch(transform.transform(to_torch(as_unit(x)), params | {"labels": labels}))
    rows = np.array([[u], [0.9], [0.1], [0.5]])
    found, targets = module.mixup(x, LABELS, streams_like(module, rows), alpha=alpha, classes=3)
    near(found, exact, dtype)
    soft = transform.transform(labels, params | {"labels": labels}).numpy()
    assert targets.dtype == (dtype if dtype.startswith("f") else "float32")
    np.testing.assert_allclose(targets, soft, atol=1e-6)
    given = np.eye(3)[LABELS]
    again = module.mixup(x, given, streams_like(module, rows), alpha=alpha)[1]
    assert again.dtype == np.float64
    np.testing.assert_allclose(again, soft, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("dtype", list(HIGH))
def test_mixes_as_torchvision(dtype, alpha):
    mixes_as_torchvision(augment, dtype, alpha)


def pastes_as_torchvision(module, dtype, u, size=(7, 10)):
    "torchvision's transform with our box, which is the one that it would make of our numbers."
    x, (h, w) = photo(dtype, 3, size), size
    weight, at_x, at_y = float(stats.beta(0.7, 0.7).ppf(u[0])), int(u[2] * w), int(u[1] * h)
    half = 0.5 * math.sqrt(1 - weight)
    x1, x2 = max(at_x - int(half * w), 0), min(at_x + int(half * w), w)
    y1, y2 = max(at_y - int(half * h), 0), min(at_y + int(half * h), h)
    kept = 1 - (x2 - x1) * (y2 - y1) / (w * h)
    labels, transform = torch.asarray(LABELS), torchvision_v2().CutMix(num_classes=3)
    params = {"box": (x1, y1, x2, y2), "lam_adjusted": kept, "batch_size": 4, "labels": labels}
    rows = np.stack([u, *np.random.default_rng(0).random((3, 3))])
    found, targets = module.cutmix(x, LABELS, streams_like(module, rows), alpha=0.7, classes=3)
    np.testing.assert_array_equal(
        to_numpy(found), from_torch(transform.transform(to_torch(as_unit(x)), params)) * HIGH[dtype]
    )
    np.testing.assert_allclose(targets, transform.transform(labels, params).numpy(), atol=1e-6)
    assert not np.shares_memory(found, x)


BOXES = [[0.3, 0.5, 0.5], [0.6, 0.0, 0.99], [0.4, 0.99, 0.0], [0.0, 0.5, 0.5], [0.999999, 0.5, 0.5], [0.2, 0.1, 0.1]]


@pytest.mark.parametrize("u", BOXES, ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_pastes_as_torchvision(dtype, u):
    pastes_as_torchvision(augment, dtype, np.array(u))


def test_weights_are_from_beta():
    n, pixel = 3000, np.arange(2.0).reshape(2, 1, 1, 1)
    for alpha in (0.2, 1.0):
        rng = np.random.default_rng(4)
        weights = [augment.mixup(pixel, np.array([0, 1]), rng, alpha=alpha, classes=2)[1][0, 0] for _ in range(n)]
        assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).statistic < uniform_distance(n)
    kept = [augment.cutmix(np.zeros((2, 64, 64, 1)), np.array([0, 1]), rng, classes=2)[1][0, 0] for _ in range(n)]
    centre, half = np.random.default_rng(9).random((2, 200_000)), np.sqrt(np.random.default_rng(8).random(200_000)) / 2
    sides = [np.minimum(c + half, 1) - np.maximum(c - half, 0) for c in centre]
    expected = 1 - (sides[0] * sides[1]).mean()  # of a continuous box; a pixel is 1/64
    assert abs(np.mean(kept) - expected) < share_off(n) + 2 / 64


def goes_into_cross_entropy(module, dtype):
    x, logits = photo(dtype), np.random.default_rng(0).normal(size=(4, 3)).astype(dtype)
    for mix in (module.mixup, module.cutmix):
        _, targets = mix(x, LABELS, np.random.default_rng(1), classes=3)
        expected = torch.nn.functional.cross_entropy(torch.asarray(logits), torch.asarray(targets))
        assert float(cross_entropy(logits, targets)) == pytest.approx(float(expected), rel=1e-5)
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_goes_into_cross_entropy(dtype):
    goes_into_cross_entropy(augment, dtype)


BAD_MIXING = [
    (LABELS, {}, "classes must be given"),
    (LABELS[:3], {"classes": 3}, "targets must have shape \\(4,\\) or \\(4, k\\), got \\(3,\\)"),
    (LABELS.reshape(4, 1, 1), {"classes": 3}, "targets must have shape"),
    (LABELS, {"classes": 2}, "classes from 0 to 1"),
    (LABELS.astype(float), {"classes": 3}, "whole numbers"),
    (np.eye(3, dtype=int)[LABELS], {}, "floating-point probabilities"),
    (np.eye(3)[LABELS], {"classes": 4}, "classes must be 3"),
    (LABELS, {"classes": 3, "alpha": 0.0}, "alpha must be greater than 0"),
    (torch.asarray(LABELS), {"classes": 3}, "targets must be of the library of images"),
]


def refuses_mixing(module, targets, options, message):
    for mix in (module.mixup, module.cutmix):
        with pytest.raises((ValueError, TypeError), match=message):
            mix(photo(), targets, np.random.default_rng(0), **options)
        with pytest.raises(ValueError, match="image\\[None\\]"):
            mix(photo()[0], targets, np.random.default_rng(0), **options)


@pytest.mark.parametrize(("targets", "options", "message"), BAD_MIXING)
def test_refuses_mixing(targets, options, message):
    refuses_mixing(augment, targets, options, message)


# Policies


def has_torchvisions_space(module, size, bins):
    "Names in their order, every magnitude bit for bit, and which ones have a sign."
    v2, rng = torchvision_v2(), np.random.default_rng(0)
    n = len(module._NAMES)
    which, ones = (np.arange(n) + 0.5) / n, np.ones(n)
    for cls in (v2.RandAugment, v2.TrivialAugmentWide):
        space = cls._AUGMENTATION_SPACE
        for k in range(bins):
            for sign in (0.5, 0.6):
                numbers = np.stack([which, sign * ones, (k + 0.5) / bins * ones], axis=1)
                if cls is v2.RandAugment:
                    streams = streams_like(module, np.concatenate([numbers[:, :2], numbers[::-1, :2]], axis=1))
                    found = module.draw_rand_augment(size, n, streams, magnitude=k, bins=bins)
                    np.testing.assert_array_equal(found.names[::-1, 1], found.names[:, 0])
                else:
                    found = module.draw_trivial_augment(n, streams_like(module, numbers), bins=bins)
                assert found.names[:, 0].tolist() == list(space)
                for m, (magnitudes, signed) in zip(found.magnitudes[:, 0], space.values(), strict=True):
                    strength = magnitudes(bins, *size)
                    expected = 0.0 if strength is None else float(strength[k])
                    assert m == (-expected if signed and sign <= 0.5 else expected)
    table = module.draw_rand_augment(size, 5, rng)
    expected = module.draw_rand_augment(size, 5, np.random.default_rng(0), num_ops=2, magnitude=9, bins=31)
    np.testing.assert_array_equal(table.magnitudes, expected.magnitudes)
    table = module.draw_trivial_augment(5, np.random.default_rng(0))
    expected = module.draw_trivial_augment(5, np.random.default_rng(0), bins=31)
    np.testing.assert_array_equal(table.magnitudes, expected.magnitudes)
    assert table.names.shape == (5, 1)


@pytest.mark.parametrize(("size", "bins"), [((17, 23), 31), ((32, 32), 10), ((224, 200), 31)])
def test_has_torchvisions_space(size, bins):
    has_torchvisions_space(augment, size, bins)


def at_a_tie(matrix, size):
    "Where the nearest pixel is a matter of rounding: half-way between two, or between the image and what is outside."
    y, x = np.indices(size)
    places = np.einsum("ij,jhw->ihw", matrix[:2], np.stack([x, y, np.ones(size)]))
    return (np.abs((places + 0.5) - np.round(places + 0.5)) < 1e-3).any(axis=0)


LIMITS = {"Identity": (0, 0), "Posterize": (0, 0), "Solarize": (0, 0), "Equalize": (0, 1e-7), "Warp": (0, 0)}


def operates_as_torchvision(module, cls, name, dtype, strengths=range(31), size=(11, 13)):
    "Each strength with both signs."
    policy = getattr(torchvision_v2(), cls)()
    grid, signed = policy._AUGMENTATION_SPACE[name]
    grid = grid(31, *size)
    x, t = photo(dtype, 3, size, 1), to_torch(photo(dtype, 3, size, 1))
    integers, floats = (
        LIMITS["Warp" if name in module._SIGNED[:5] else name]
        if name in LIMITS or name in module._SIGNED[:5]
        else (2, 1.1e-4)
    )
    for k in strengths:
        for sign in (1, -1) if signed else (1,):
            m = 0.0 if grid is None else sign * float(grid[k])
            theirs = policy._apply_image_or_video_transform(
                t, name, m, interpolation=policy.interpolation, fill=policy._fill
            )
            found = module.apply_operations(x, (np.array([[name]]), np.array([[m]])))
            assert found.dtype == x.dtype
            different = np.abs(found.astype(np.float64) - from_torch(theirs)) > (
                integers if dtype == "uint8" else floats
            )
            if name in module._SIGNED[:5]:
                tie = at_a_tie(module._policy_matrices(np.array([name]), np.array([m]), size)[0], size)
                different &= ~tie[None, :, :, None]
                assert tie.mean() < 0.3
            assert not different.any(), f"{name} {m}"


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("name", augment._NAMES)
@pytest.mark.parametrize("cls", ["RandAugment", "TrivialAugmentWide"])
def test_operates_as_torchvision(cls, name, dtype):
    operates_as_torchvision(augment, cls, name, dtype)


def does_what_the_table_says(module, dtype="uint8"):
    "Each image its own operations, in their order, as one image at a time."
    n, size = 40, (9, 8)
    x = np.resize(photo(dtype, 3, size), (n, *size, 3))
    table = module.draw_rand_augment(size, n, np.random.default_rng(3), num_ops=3)
    found = module.apply_operations(x, table)
    for i in range(n):
        one = x[i : i + 1]
        for name, m in zip(table.names[i], table.magnitudes[i], strict=True):
            one = module.apply_operations(one, ([[name]], [[m]]))
        np.testing.assert_array_equal(found[i : i + 1], one)
    np.testing.assert_array_equal(module.rand_augment(x, np.random.default_rng(3), num_ops=3), found)
    strong = module.draw_rand_augment(size, n, np.random.default_rng(3), magnitude=30)
    found = module.rand_augment(x, np.random.default_rng(3), magnitude=30, order=1, cval=3.0)
    np.testing.assert_array_equal(found, module.apply_operations(x, strong, order=1, cval=3.0))
    trivial = module.draw_trivial_augment(n, np.random.default_rng(3))
    found = module.trivial_augment(x, np.random.default_rng(3), fill_mode="reflect")
    np.testing.assert_array_equal(found, module.apply_operations(x, trivial, fill_mode="reflect"))
    unit = x / 255
    found = module.apply_operations(unit * 255, table, high=255.0)
    np.testing.assert_allclose(found, 255 * module.apply_operations(unit, table), atol=1e-9)


def test_does_what_the_table_says():
    does_what_the_table_says(augment)


def test_draws_every_operation_as_often():
    n = 20_000
    table = augment.draw_trivial_augment(n, np.random.default_rng(11))
    for name in augment._NAMES:
        assert abs((table.names == name).mean() - 1 / 14) < share_off(n)
    signed = np.isin(table.names, augment._SIGNED) & (table.magnitudes != 0)
    assert abs((table.magnitudes[signed] < 0).mean() - 0.5) < share_off(signed.sum())
    turns = np.abs(table.magnitudes[table.names == "Rotate"])
    assert stats.kstest(turns / 4.5, stats.randint(0, 31).cdf).statistic < uniform_distance(len(turns))


BAD_POLICIES = [
    (lambda m: m.draw_rand_augment((5, 5), 0, np.random.default_rng(0)), "n must be a whole number from 1"),
    (lambda m: m.draw_rand_augment(5, 1, np.random.default_rng(0)), "size must be a pair"),
    (lambda m: m.draw_rand_augment((5, 5), 1, np.random.default_rng(0), num_ops=0), "num_ops must be a whole number"),
    (lambda m: m.draw_rand_augment((5, 5), 1, np.random.default_rng(0), magnitude=31), "magnitude must be a whole"),
    (lambda m: m.draw_rand_augment((5, 5), 1, np.random.default_rng(0), magnitude=-1), "magnitude must be a whole"),
    (lambda m: m.draw_rand_augment((5, 5), 1, np.random.default_rng(0), magnitude=2.5), "magnitude must be a whole"),
    (lambda m: m.draw_rand_augment((5, 5), 1, np.random.default_rng(0), bins=1, magnitude=0), "bins must be"),
    (lambda m: m.draw_trivial_augment(1, np.random.default_rng(0), bins=1), "bins must be a whole number from 2"),
    (lambda m: m.draw_trivial_augment(0, np.random.default_rng(0)), "n must be a whole number from 1"),
    (lambda m: m.trivial_augment(photo(channels=4), np.random.default_rng(0)), "1 or 3 channels"),
    (
        lambda m: m.apply_operations(photo(channels=4), ([["Identity"]] * 4, [[0.0]] * 4)),
        "1 or 3 channels",
    ),
    (lambda m: m.rand_augment(photo()[0], np.random.default_rng(0)), "image\\[None\\]"),
    (lambda m: m.trivial_augment(photo()[0], np.random.default_rng(0)), "image\\[None\\]"),
    (lambda m: m.apply_operations(photo(), ([["Identity"]], [[0.0]])), "operations must be names and magnitudes"),
    (lambda m: m.apply_operations(photo(), (["Identity"] * 4, [0.0] * 4)), "operations must be names and magnitudes"),
    *(
        (
            lambda m, name=name: m.apply_operations(photo("float32") * 255, ([["Rotate", name]] * 4, [[1.0, 0.0]] * 4)),
            "images must not exceed high, got values up to .*: floats go to 1 unless high= says otherwise",
        )
        for name in augment._NAMES[6:]
    ),
    (lambda m: m.rand_augment(photo("float64") * 255, np.random.default_rng(0)), "images must not exceed high"),
    (lambda m: m.trivial_augment(photo("float32") * 255, np.random.default_rng(0)), "images must not exceed high"),
    (lambda m: m.apply_operations(photo(), ([["Rotat"]] * 4, [[0.0]] * 4)), "operations must be among .* got 'Rotat'"),
]


def refuses_policies(module, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(module)


@pytest.mark.parametrize(("call", "message"), BAD_POLICIES)
def test_refuses_policies(call, message):
    refuses_policies(augment, call, message)


# All of them on every library, and for every sample its own numbers


def randomly(module, name, x, rng):
    "One of the random functions, by name."
    options = {"cutout": (3,), "add_noise": (0.1 * HIGH[str(x.dtype).rsplit(".", 1)[-1]],)}
    if name == "add_noise":
        return module.add_noise(x, *options[name], rng)
    return getattr(module, name)(x, rng, *options.get(name, ()))


RANDOM = ("random_erasing", "cutout", "rand_augment", "trivial_augment", "add_noise")


@each_backend
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_every_library_gives_the_same(backend, dtype):
    x = np.resize(photo(dtype, 3, (9, 8)), (25, 9, 8, 3))
    moved = BACKENDS[backend](x)
    for name in RANDOM:
        found = randomly(augment, name, moved, augment.SampleStreams(1, 2, np.arange(25)))
        assert (type(found), found.dtype) == (type(moved), moved.dtype)
        expected = randomly(augment, name, x, augment.SampleStreams(1, 2, np.arange(25)))
        near(to_numpy(found), as_unit(expected), dtype, rounding=1.0)
    for mix in (augment.mixup, augment.cutmix):
        labels = np.arange(25) % 4
        images, targets = mix(moved, BACKENDS[backend](labels), np.random.default_rng(3), classes=4)
        expected = mix(x, labels, np.random.default_rng(3), classes=4)
        near(to_numpy(images), as_unit(expected[0]), dtype, rounding=1.0)
        np.testing.assert_allclose(to_numpy(targets), expected[1], rtol=1e-6)


def does_not_depend_on_the_batch(module):
    x = np.resize(photo("uint8", 3, (9, 8)), (12, 9, 8, 3))
    for name in RANDOM:
        whole = randomly(module, name, x, module.SampleStreams(5, 1, np.arange(12)))
        assert (whole != x).any()
        for rows in ([4], [11, 0, 7], list(range(1, 12))):
            part = randomly(module, name, x[rows], module.SampleStreams(5, 1, rows))
            np.testing.assert_array_equal(part, whole[rows])


def draws_as_many_numbers_as_said(module):
    "The columns that the docstrings name, whatever is done with them."
    x, counts = photo("uint8", 3, (9, 8)), dict(zip(RANDOM, (23, 2, 4, 3, 1), strict=True))
    for name, count in counts.items():
        rng = module.SampleStreams(0, 0, np.arange(4))
        randomly(module, name, x, rng)
        assert rng.position == count
    for mix, count in ((module.mixup, 1), (module.cutmix, 3)):
        rng = module.SampleStreams(0, 0, np.arange(4))
        mix(x, LABELS, rng, classes=3)
        assert rng.position == count


def test_draws_as_many_numbers_as_said():
    draws_as_many_numbers_as_said(augment)


def test_does_not_depend_on_the_batch():
    does_not_depend_on_the_batch(augment)


def test_nothing_is_changed_and_nobodys_seed_is_touched():
    x = photo("uint8", 3, (9, 8))
    before, state = x.copy(), np.random.get_state()[1].copy()  # noqa: NPY002
    x.setflags(write=False)
    for name in RANDOM:
        randomly(augment, name, x, np.random.default_rng(0))
        randomly(augment, name, x[:, ::-1, ::2], np.random.default_rng(0))
    for mix in (augment.mixup, augment.cutmix):
        mix(x, LABELS, np.random.default_rng(0), classes=3)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


# The data set

N = 13
PICTURES = np.resize(photo("uint8", 3, (6, 7)), (N, 6, 7, 3))
TARGETS = np.arange(N)
MASKS = (PICTURES[..., 0] > 100).astype(np.int64)


def noisy(images, rng):
    return augment.add_noise(augment.random_erasing(images, rng, probability=0.8), 20.0, rng)


def turned(images, masks, rng):
    "The same turn for an image and its mask."
    angle = 90 * rng.random((len(images), 1))[:, 0]
    size = images.shape[1:3]
    matrix = augment.affine_matrix(size, rotation=angle)
    return augment.warp(images, matrix), augment.warp_masks(masks, matrix)


def broken(images, rng):
    if (rng.indices == 5).any():
        raise ZeroDivisionError("no such colour")
    return images


def all_samples(loader):
    "Images (and masks) in the order of their targets, which are their numbers."
    batches = [[to_numpy(part) for part in batch] for batch in loader]
    columns = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    order = np.argsort(columns[1])
    return [c[order] for c in columns]


def expected_epoch(seed, epoch):
    return noisy(PICTURES, augment.SampleStreams(seed, epoch, np.arange(N)))


LOADERS = [
    {"batch_size": 4},
    {"batch_size": 1, "shuffle": True},
    {"batch_size": N, "shuffle": True},
    {"batch_size": 5, "shuffle": True, "num_workers": 1},
    {"batch_size": 3, "shuffle": True, "num_workers": 2, "persistent_workers": True},
]


@pytest.mark.parametrize("options", LOADERS, ids=str)
def test_every_loader_gives_the_same(options):
    data = augment.AugmentedDataset((PICTURES, TARGETS), noisy, seed=3)
    loader = DataLoader(data, **options)
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        images, targets = all_samples(loader)
        np.testing.assert_array_equal(targets, TARGETS)
        np.testing.assert_array_equal(images, expected_epoch(3, epoch))
    assert (expected_epoch(3, 1) != expected_epoch(3, 0)).any()


def test_works_with_spawned_workers():
    data = augment.AugmentedDataset((PICTURES, TARGETS), noisy, seed=3)
    loader = DataLoader(data, batch_size=5, num_workers=1, persistent_workers=True, multiprocessing_context="spawn")
    for epoch in (0, 2):
        data.set_epoch(epoch)
        np.testing.assert_array_equal(all_samples(loader)[0], expected_epoch(3, epoch))


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda data: pickle.loads(pickle.dumps(data))])
def test_a_copy_reaches_its_workers(copied):
    data = copied(augment.AugmentedDataset((PICTURES, TARGETS), noisy, seed=3))
    loader = DataLoader(data, batch_size=5, num_workers=1, persistent_workers=True)
    for epoch in (0, 2):
        data.set_epoch(epoch)
        np.testing.assert_array_equal(all_samples(loader)[0], expected_epoch(3, epoch))


def test_a_sample_drawn_twice_is_one_picture_unless_the_data_hold_it_twice():
    twice = [4, 4, 1, 4]
    data = augment.AugmentedDataset((PICTURES, TARGETS), noisy, seed=3)
    images, _ = next(iter(DataLoader(data, batch_size=4, sampler=twice)))
    assert (images[0] == images[1]).all()
    assert (images[0] == images[3]).all()
    rows = Subset(TensorDataset(torch.asarray(PICTURES), torch.asarray(TARGETS)), twice)
    images, targets = next(iter(DataLoader(augment.AugmentedDataset(rows, noisy, seed=3), batch_size=4)))
    assert targets.tolist() == twice
    assert (images[0] != images[1]).any()
    assert (images[1] != images[3]).any()


def gives_samples(module):
    "Without a loader: by index, from the end, as an iterator."
    data = module.AugmentedDataset((PICTURES, TARGETS), noisy, seed=1)
    expected = expected_epoch(1, 0)
    assert len(data) == N
    assert data.epoch == 0
    for index in (0, 4, N - 1, -1, -N, np.int64(3)):
        image, target = data[index]
        np.testing.assert_array_equal(image, expected[index])
        assert target == TARGETS[index]
    for index in (N, -N - 1):
        with pytest.raises(IndexError, match=f"index must be from -{N} to {N - 1}, got {index}"):
            data[index]
    assert len(list(data)) == N
    data.set_epoch(0)
    data.set_epoch(4)
    assert data.epoch == 4
    other = copy.deepcopy(data)
    other.set_epoch(5)
    assert (data.epoch, other.epoch, other._epoch.is_shared()) == (4, 5, True)
    np.testing.assert_array_equal(data[2][0], expected_epoch(1, 4)[2])
    batch = data.__getitems__([2, 7])
    np.testing.assert_array_equal(np.stack([image for image, _ in batch]), expected_epoch(1, 4)[[2, 7]])


def test_gives_samples():
    gives_samples(augment)


def moves_masks_with_images(module):
    data = module.AugmentedDataset((PICTURES, TARGETS, MASKS), turned, seed=1)
    images, masks = turned(PICTURES, MASKS, module.SampleStreams(1, 0, np.arange(N)))
    assert (masks != MASKS).any()
    for i in (0, 5):
        image, target, mask = data[i]
        np.testing.assert_array_equal(image, images[i])
        np.testing.assert_array_equal(mask, masks[i])
        assert target == i


def test_moves_masks_with_images():
    moves_masks_with_images(augment)
    data = augment.AugmentedDataset((PICTURES, TARGETS, MASKS), turned, seed=1)
    for part, found in zip(all_samples(DataLoader(data, batch_size=4, num_workers=1)), range(3), strict=True):
        np.testing.assert_array_equal(part, np.stack([data[i][found] for i in range(N)]))


class Pictures(torch.utils.data.Dataset):
    "A map-style data set whose images have several sizes."

    def __init__(self, sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        h, w = self.sizes[index]
        return PICTURES[index, :h, :w], index


def takes_torch_data_sets(module):
    expected = expected_epoch(1, 0)
    tensors = module.AugmentedDataset(TensorDataset(torch.asarray(PICTURES), torch.asarray(TARGETS)), noisy, seed=1)
    found = tensors.__getitems__([3, 1])
    assert isinstance(found[0][0], torch.Tensor)
    np.testing.assert_array_equal(torch.stack([image for image, _ in found]).numpy(), expected[[3, 1]])
    assert [int(target) for _, target in found] == [3, 1]
    one_size = module.AugmentedDataset(Pictures([(6, 7)] * N), noisy, seed=1)
    np.testing.assert_array_equal(np.stack([image for image, _ in one_size.__getitems__([0, 2])]), expected[[0, 2]])
    np.testing.assert_array_equal(tensors[3][0].numpy(), expected[3])
    parts = [torch.asarray(x) for x in (PICTURES, TARGETS, MASKS)]
    masked = module.AugmentedDataset(TensorDataset(*parts), lambda x, masks, rng: (x, masks), seed=1)
    np.testing.assert_array_equal(masked[4][2].numpy(), MASKS[4])
    several = module.AugmentedDataset(Pictures([(6, 7), (3, 4), (6, 7)]), noisy, seed=1)
    found = several.__getitems__([0, 1, 2])
    assert [image.shape for image, _ in found] == [(6, 7, 3), (3, 4, 3), (6, 7, 3)]
    assert [target for _, target in found] == [0, 1, 2]
    for i in (0, 2):
        np.testing.assert_array_equal(found[i][0], expected[i])
    np.testing.assert_array_equal(several[1][0], found[1][0])


def takes_arrays_of_several_libraries(module):
    "Each of images, targets and masks NumPy's or PyTorch's, or a list."
    expected = module.AugmentedDataset((PICTURES, TARGETS, MASKS), turned, seed=1).__getitems__([3, 1])
    for targets in (torch.asarray(TARGETS), TARGETS.tolist(), tuple(TARGETS.tolist()), TARGETS.astype(float).tolist()):
        for masks in (MASKS, torch.asarray(MASKS)):
            mixed = module.AugmentedDataset((PICTURES, targets, masks), turned, seed=1)
            assert len(mixed) == N
            for found, same in zip(mixed.__getitems__([3, 1]), expected, strict=True):
                for a, b in zip(found, same, strict=True):
                    np.testing.assert_array_equal(np.asarray(a), b)
    tensors = module.AugmentedDataset((torch.asarray(PICTURES), TARGETS.tolist()), noisy, seed=1)
    np.testing.assert_array_equal(tensors[4][0].numpy(), expected_epoch(1, 0)[4])
    images, targets = next(iter(DataLoader(tensors, batch_size=5)))
    assert images.shape == (5, *PICTURES.shape[1:])
    assert targets.tolist() == TARGETS[:5].tolist()


def test_takes_arrays_of_several_libraries():
    takes_arrays_of_several_libraries(augment)


def test_takes_torch_data_sets():
    takes_torch_data_sets(augment)
    loader = DataLoader(augment.AugmentedDataset(Pictures([(6, 7)] * N), noisy, seed=1), batch_size=3, num_workers=2)
    np.testing.assert_array_equal(all_samples(loader)[0], expected_epoch(1, 0))


def names_the_sample(module):
    data = module.AugmentedDataset((PICTURES, TARGETS), broken, seed=1)
    data.set_epoch(2)
    message = "transform failed for sample 5 in epoch 2: ZeroDivisionError: no such colour"
    for indices in ([5], [3, 5, 8]):
        with pytest.raises(RuntimeError, match=message):
            data.__getitems__(indices)
    assert len(data.__getitems__([3, 8])) == 2
    short = module.AugmentedDataset((PICTURES, TARGETS), lambda images, rng: images[1:], seed=1)
    with pytest.raises(RuntimeError, match="sample 3 in epoch 0: ValueError: transform must return images, one for"):
        short.__getitems__([3, 4])
    both = module.AugmentedDataset((PICTURES, TARGETS, MASKS), lambda images, masks, rng: (images,), seed=1)
    with pytest.raises(RuntimeError, match="transform must return images and masks, one for each"):
        both[0]
    picky = module.AugmentedDataset(
        (PICTURES, TARGETS), lambda images, rng: images if len(images) < 2 else 1 / 0, seed=1
    )
    with pytest.raises(RuntimeError, match="transform failed for sample 3, 4 in epoch 0: ZeroDivisionError"):
        picky.__getitems__([3, 4])


def test_names_the_sample():
    names_the_sample(augment)
    data = augment.AugmentedDataset((PICTURES, TARGETS), broken, seed=1)
    with pytest.raises(RuntimeError, match="transform failed for sample 5 in epoch 0"):
        list(DataLoader(data, batch_size=4, num_workers=1))


BAD_DATA = [
    ((PICTURES,), {}, "data must be \\(images, targets\\) or .*, got 1 arrays"),
    ((PICTURES, TARGETS, MASKS, MASKS), {}, "got 4 arrays"),
    ((PICTURES, TARGETS[1:]), {}, "data must have one length, got 13 images, 12 targets"),
    ((PICTURES, TARGETS, MASKS[1:]), {}, "data must have one length, got 13 images, 13 targets, 12 masks"),
    ((PICTURES[0], TARGETS), {}, "image\\[None\\]"),
    ((PICTURES, list(TARGETS)[1:]), {}, "data must have one length, got 13 images, 12 targets"),
    ((PICTURES, ["cat"] * 13), {}, "targets must be numbers, got <U3"),
    ((PICTURES, 5), {}, "targets must be an array"),
    ((list(PICTURES), TARGETS), {}, "images must be an array"),
    ((PICTURES, TARGETS, "masks"), {}, "masks must be an array"),
    (PICTURES, {}, "data must be arrays \\(images, targets\\) or a torch Dataset, got ndarray"),
    ("photos", {}, "got str"),
    ({1, 2}, {}, "got set"),
    (Pictures([]), {}, "at least one sample"),
    ((PICTURES, TARGETS), {"transform": None}, "transform must be a function"),
    ((PICTURES, TARGETS), {"seed": -1}, "seed must be a whole number from 0"),
]


def refuses_data(module, data, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        module.AugmentedDataset(data, **{"transform": noisy, "seed": 0} | options)


@pytest.mark.parametrize(("data", "options", "message"), BAD_DATA)
def test_refuses_data(data, options, message):
    refuses_data(augment, data, options, message)


def refuses_epochs_and_samples(module):
    data = module.AugmentedDataset((PICTURES, TARGETS), noisy, seed=0)
    for epoch in (-1, 0.5, "1"):
        with pytest.raises((ValueError, TypeError), match="epoch must be"):
            data.set_epoch(epoch)
    with pytest.raises(TypeError, match="integer"):
        data[1.0]
    bare = module.AugmentedDataset(TensorDataset(torch.asarray(PICTURES)), noisy, seed=0)
    with pytest.raises(ValueError, match="data must have samples \\(image, target\\) .*, got 1 parts"):
        bare[0]


def test_refuses_epochs_and_samples():
    refuses_epochs_and_samples(augment)
