"""The data sets: bundled ones against scikit-learn, small files in the true formats, broken files, the network."""

import gzip
import hashlib
import io
import os
import socket
import struct
import tarfile
import threading
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from hypothesis import given, settings, strategies

from dlopt_course import data
from dlopt_course.data import DataUnavailable, RemoteFile, WrongDownload

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = (
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)


# ---------- small files in the true formats, made without the package


def idx(array, code=0x08, order=">"):
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(order)).tobytes()


def garments(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), rng.integers(0, 10, n, dtype=np.uint8)


def write_mnist(folder, n_train=5, n_test=3, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    parts = {}
    for (images, labels), n in zip(
        ((TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)), (n_train, n_test), strict=True
    ):
        x, y = parts[images] = garments(n, seed=n)
        for name, array in ((images, x), (labels, y)):
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / name).write_bytes(idx(array))
    return parts[TRAIN_IMAGES], parts[TEST_IMAGES]


def photos(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, n)


def records(x, y):
    """The binary layout, written plane by plane."""
    rows = []
    for image, label in zip(x, y, strict=True):
        rows.append(bytes([label]) + b"".join(image[:, :, k].tobytes() for k in range(3)))
    return b"".join(rows)


def tar(members, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def cifar_members(per_file=2):
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    batches = {name: photos(per_file, seed) for seed, name in enumerate(names)}
    return [("cifar-10-batches-bin/" + name, records(*batch)) for name, batch in batches.items()], batches


def outcome(load, *arguments):
    """The result and None, or None and the message of the ValueError."""
    try:
        return load(*arguments), None
    except ValueError as error:
        return None, str(error)


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*"))


# ---------- bundled data sets


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "wine"])
def test_classes_equal_sklearn(name):
    ours, theirs = getattr(data, f"load_{name}")(), getattr(sklearn.datasets, f"load_{name}")()
    np.testing.assert_array_equal(ours.x, theirs.data)
    np.testing.assert_array_equal(ours.y, theirs.target)
    assert ours.x.dtype == np.float64
    assert ours.y.dtype == np.int64
    assert ours.feature_names == tuple(theirs.feature_names)
    assert ours.class_names == tuple(map(str, theirs.target_names))
    assert len(ours) == len(theirs.target)


@pytest.mark.parametrize("scaled", [False, True])
def test_diabetes_equals_sklearn(scaled):
    ours, theirs = data.load_diabetes(scaled=scaled), sklearn.datasets.load_diabetes(scaled=scaled)
    np.testing.assert_array_equal(ours.x, theirs.data)
    np.testing.assert_array_equal(ours.y, theirs.target)
    assert ours.class_names == ()
    assert (ours.y.min(), ours.y.max()) == (25, 346)


def test_float32_and_scaling():
    for load in (data.load_digits, data.load_diabetes, data.load_breast_cancer, data.load_wine):
        assert load(dtype=np.float32).x.dtype == np.float32
    assert data.load_diabetes(dtype=np.float32).y.dtype == np.float32
    for dtype in (np.float32, np.float64):
        scaled = data.load_digits(dtype=dtype, scaled=True)
        assert scaled.x.dtype == dtype
        assert (scaled.x.min(), scaled.x.max()) == (0, 1)


def test_integer_dtype_is_refused():
    with pytest.raises(TypeError, match="dtype must be floating point.*got int64"):
        data.load_wine(dtype=np.int64)


def test_photos():
    found = data.load_photos()
    for photo, reference in zip(found, sklearn.datasets.load_sample_images().images, strict=True):
        assert photo.shape == (427, 640, 3)
        assert photo.dtype == np.uint8
        np.testing.assert_array_equal(photo, reference)
    assert found.china is found[0]


def test_body_mass_index_is_the_best_single_column():
    """The lesson says so."""
    d = data.load_diabetes()
    r2 = [np.corrcoef(column, d.y)[0, 1] ** 2 for column in d.x.T]
    assert d.feature_names[int(np.argmax(r2))] == "bmi"
    assert 0.3 < max(r2) < 0.36


def test_repr_is_one_line():
    assert repr(data.load_wine()) == "Dataset(x: (178, 13) float64 in [0.13, 1680], y: 3 classes)"
    assert "numbers in [25, 346]" in repr(data.load_diabetes())


# ---------- split and standardize


def test_split_partitions_and_stratifies():
    d = data.load_wine()
    train, test = data.split(d, 0.25, rng=np.random.default_rng(0))
    together = np.concatenate([np.column_stack([part.x, part.y]) for part in (train, test)])
    original = np.column_stack([d.x, d.y])
    assert not np.array_equal(together, original)
    np.testing.assert_array_equal(together[np.lexsort(together.T)], original[np.lexsort(original.T)])
    assert len(test) == 45
    expected = np.bincount(d.y) / 4
    assert np.all(np.abs(np.bincount(test.y) - expected) <= 1)
    assert train.class_names == d.class_names


def test_split_depends_on_the_generator_alone():
    d = data.load_wine()
    np.random.seed(1)  # noqa: NPY002 the global state must not matter
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    a, b, c = (data.split(d, rng=np.random.default_rng(seed))[1].x for seed in (3, 3, 4))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    rng = np.random.default_rng(3)
    assert not np.array_equal(data.split(d, rng=rng)[1].x, data.split(d, rng=rng)[1].x)


def test_split_of_numbers_and_images():
    train, test = data.split(data.load_diabetes(), 0.5, rng=np.random.default_rng(0))
    assert len(train) == len(test) == 221
    images = data.Dataset(np.zeros((8, 28, 28), np.uint8), np.repeat([0, 1], 4), (), ("a", "b"))
    train, test = data.split(images, 0.25, rng=np.random.default_rng(0))
    assert train.x.shape == (6, 28, 28)
    assert sorted(test.y) == [0, 1]
    _, plain = data.split(images, 0.25, rng=np.random.default_rng(0), stratified=False)
    assert len(plain) == 2


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_split_names_a_bad_fraction(fraction):
    with pytest.raises(ValueError, match="fraction must be between 0 and 1"):
        data.split(data.load_wine(), fraction, rng=np.random.default_rng(0))


def test_split_bad_arguments():
    with pytest.raises(TypeError, match=r"rng must be a numpy.random.Generator, got int"):
        data.split(data.load_wine(), rng=0)
    with pytest.raises(TypeError, match="fraction must be a number, got str"):
        data.split(data.load_wine(), "0.5", rng=np.random.default_rng(0))
    alone = data.Dataset(np.zeros((4, 1)), np.array([0, 0, 0, 1]), (), ("a", "b"))
    with pytest.raises(ValueError, match=r"data of 4 samples cannot be split with fraction 0.5"):
        data.split(alone, 0.5, rng=np.random.default_rng(0))


def test_standardize_uses_the_training_part_alone():
    train, test = data.split(data.load_wine(), rng=np.random.default_rng(0))
    a, b = data.standardize(train, test)
    np.testing.assert_allclose(a.x.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(a.x.std(axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose(b.x, (test.x - train.x.mean(axis=0)) / train.x.std(axis=0), rtol=1e-12)
    assert data.standardize(data.load_wine(dtype=np.float32))[0].x.dtype == np.float32


# ---------- IDX


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("code", "dtype"),
    [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")],
)
def test_idx_every_type(tmp_path, code, dtype, packed):
    array = (np.arange(24).reshape(2, 3, 4) * 5 - (0 if dtype == "u1" else 60)).astype(dtype)
    content = idx(array, code)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if packed else content)
    found = data.read_idx(path)
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array)


def test_idx_first_bytes_decide_not_the_name(tmp_path):
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    (tmp_path / "a.gz").write_bytes(idx(array))
    (tmp_path / "b").write_bytes(gzip.compress(idx(array)))
    for name in ("a.gz", "b"):
        np.testing.assert_array_equal(data.read_idx(tmp_path / name), array)


def test_idx_cut_anywhere_is_an_error(tmp_path):
    content = idx(garments(2)[0][:, :5, :5])
    path = tmp_path / "images"
    for stop in range(len(content)):
        path.write_bytes(content[:stop])
        with pytest.raises(ValueError, match="images: .*(is empty|starts with|ends after|is cut off).*expected"):
            data.read_idx(path)


def test_packed_idx_cut_anywhere_is_an_error(tmp_path):
    content = gzip.compress(idx(garments(2)[0][:, :5, :5]))
    path = tmp_path / "images.gz"
    for stop in range(len(content)):
        path.write_bytes(content[:stop])
        with pytest.raises(ValueError, match=r"images\.gz: (damaged gzip|is empty|starts with)"):
            data.read_idx(path)


@settings(max_examples=300, deadline=None)
@given(strategies.data())
def test_packed_idx_with_a_changed_byte_is_never_a_wrong_array(tmp_path_factory, draw):
    array = garments(2)[0][:, :5, :5]
    content = bytearray(gzip.compress(idx(array), mtime=0))
    position = draw.draw(strategies.integers(0, len(content) - 1))
    content[position] ^= draw.draw(strategies.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed.gz"
    path.write_bytes(content)
    found, error = outcome(data.read_idx, path)
    if error:
        assert "changed.gz" in error
    else:
        np.testing.assert_array_equal(found, array)  # only bytes that carry no data, such as the time of packing


@settings(max_examples=300, deadline=None)
@given(strategies.binary(max_size=64), strategies.booleans())
def test_any_bytes_give_an_array_or_a_value_error(content, header):
    content = b"\0\0\x08" + content if header else content
    found, error = outcome(data.decode_idx, content)
    if error:
        assert "expected" in error
    else:
        assert 4 + 4 * found.ndim + found.nbytes == len(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\x80\x04\x95pickle", "starts with"),
        (b"\0\0\x07\x01\0\0\0\x01a", "starts with"),
        (b"\0\0\x08\x00", "1 to 8 axes"),
        (b"\0\0\x08\xff" + b"\0\0\0\x01" * 255 + b"a", "1 to 8 axes"),
        (b"\0\0\x08\x01\0\0\0\0", r"empty array of shape \(0,\)"),
        (b"\0\0\x08\x01\0\0\0\x02abc", "trailing bytes: 11 bytes; expected 10"),
        (b"\0\0\x08\x01\0\0\0\x04abc", "is cut off: 11 bytes; expected 12"),
        (b"\0\0\x0e\x08" + b"\xff" * 32 + b"x", "is cut off: 37 bytes"),
    ],
)
def test_idx_foreign_content(content, message):
    with pytest.raises(ValueError, match=rf"^somefile: .*{message}"):
        data.decode_idx(content, "somefile")


def test_gzip_trailing_bytes_and_bombs(tmp_path):
    path = tmp_path / "images.gz"
    good = idx(np.arange(8, dtype=np.uint8))
    path.write_bytes(gzip.compress(good) + b"garbage")
    with pytest.raises(ValueError, match=r"images\.gz: damaged gzip"):
        data.read_idx(path)
    path.write_bytes(gzip.compress(good) + gzip.compress(b"more"))
    with pytest.raises(ValueError, match="trailing bytes"):
        data.read_idx(path)
    bomb = gzip.compress(struct.pack(">HBBI", 0, 8, 1, 2**30) + bytes(2**22))
    assert len(bomb) < 2**14
    path.write_bytes(bomb)
    with pytest.raises(ValueError, match="holds more than 100000 bytes"):
        data.read_idx(path, limit=100_000)
    with pytest.raises(ValueError, match="is cut off"):
        data.read_idx(path)


def test_a_bomb_is_not_unpacked_beyond_the_limit(tmp_path):
    (tmp_path / "bomb").write_bytes(gzip.compress(bytes(2**24)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="holds more than 100000 bytes"):
            data.read_idx(tmp_path / "bomb", limit=100_000)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_idx_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        data.read_idx(tmp_path / "nothing")


# ---------- MNIST from a folder


@pytest.mark.parametrize("load", [data.load_mnist, data.load_fashion_mnist])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_from_a_folder(tmp_path, load, packed):
    expected = write_mnist(tmp_path, packed=packed)
    for part, (x, y) in zip(("train", "test"), expected, strict=True):
        found = load(part, folder=str(tmp_path), download=False)
        np.testing.assert_array_equal(found.x, x)
        np.testing.assert_array_equal(found.y, y)
        assert (found.x.dtype, found.y.dtype) == (np.uint8, np.int64)
        assert len(found.class_names) == 10


def test_mnist_from_the_data_folder_of_the_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("DLOPT_DATA_FOLDER", str(tmp_path))
    (x, _), _ = write_mnist(tmp_path / "mnist")
    np.testing.assert_array_equal(data.load_mnist(download=False).x, x)
    (x, _), _ = write_mnist(tmp_path / "fashion-mnist", n_train=4)
    np.testing.assert_array_equal(data.load_fashion_mnist(download=False).x, x)


def test_mnist_wrong_part():
    with pytest.raises(ValueError, match="part must be one of 'train', 'test', got 'valid'"):
        data.load_mnist("valid")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (TRAIN_LABELS, np.zeros(4, np.uint8), "train-labels.*4 labels; expected 5, one for each image"),
        (
            TRAIN_LABELS,
            np.array([0, 1, 10, 3, 4], np.uint8),
            "train-labels.*label 10 at index 2; expected labels from 0 to 9",
        ),
        (TRAIN_LABELS, np.zeros((5, 1), np.uint8), r"train-labels.*holds uint8 \(5, 1\); expected labels"),
        (TRAIN_IMAGES, np.zeros((5, 27, 28), np.uint8), r"train-images.*holds uint8 \(5, 27, 28\); expected images"),
        (TRAIN_IMAGES, np.zeros(5, np.uint8), r"train-images.*holds uint8 \(5,\); expected images"),
    ],
)
def test_mnist_files_that_do_not_fit(tmp_path, name, array, message):
    write_mnist(tmp_path, packed=False)
    (tmp_path / name).write_bytes(idx(array))
    with pytest.raises(ValueError, match=message):
        data.load_mnist(folder=tmp_path, download=False)


def test_mnist_of_floats_is_refused(tmp_path):
    write_mnist(tmp_path, packed=False)
    (tmp_path / TRAIN_IMAGES).write_bytes(idx(np.zeros((5, 28, 28), np.float32), 0x0D))
    with pytest.raises(ValueError, match="holds float32"):
        data.load_mnist(folder=tmp_path, download=False)


# ---------- CIFAR-10 from a folder


def check_cifar(folder, batches, per_file=2):
    train = data.load_cifar10("train", folder=folder, download=False, per_file=per_file)
    test = data.load_cifar10("test", folder=folder, download=False, per_file=per_file)
    np.testing.assert_array_equal(train.x, np.concatenate([batches[f"data_batch_{i}.bin"][0] for i in range(1, 6)]))
    np.testing.assert_array_equal(train.y, np.concatenate([batches[f"data_batch_{i}.bin"][1] for i in range(1, 6)]))
    np.testing.assert_array_equal(test.x, batches["test_batch.bin"][0])
    np.testing.assert_array_equal(test.y, batches["test_batch.bin"][1])
    assert (train.x.dtype, train.y.dtype) == (np.uint8, np.int64)
    assert train.x.flags.c_contiguous


def test_cifar_from_archive_and_unpacked(tmp_path):
    members, batches = cifar_members()
    for name, mode in (("packed/cifar-10-binary.tar.gz", "w:gz"), ("plain/cifar-10-binary.tar", "w")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(tar(members, mode))
        check_cifar((tmp_path / name).parent, batches)
        assert tree((tmp_path / name).parent) == [Path(name).name], "nothing may be extracted"
    for inner in ("cifar-10-batches-bin", "."):
        folder = tmp_path / ("with" if inner != "." else "without")
        (folder / inner).mkdir(parents=True)
        for name, content in members:
            (folder / inner / Path(name).name).write_bytes(content)
        check_cifar(folder, batches)


def test_cifar_of_full_size_has_the_published_count(tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073 * 10_000))
    found = data.load_cifar10("test", folder=tmp_path, download=False)
    assert found.x.shape == (10_000, 32, 32, 3)
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073 * 9_999))  # cut between two records
    with pytest.raises(ValueError, match="test_batch.bin: 30726927 bytes; expected 30730000: 10000 records of 3073"):
        data.load_cifar10("test", folder=tmp_path, download=False)


def test_cifar_batch_cut_or_foreign():
    content = records(*photos(2))
    for stop in (*range(0, len(content), 97), 3073, len(content) - 1):
        with pytest.raises(ValueError, match="expected 6146: 2 records of 3073"):
            data.decode_cifar10(content[:stop], count=2)
    with pytest.raises(ValueError, match="6147 bytes"):
        data.decode_cifar10(content + b"!", count=2)
    with pytest.raises(ValueError, match="a web page"):
        data.decode_cifar10(b"<html>", count=2)
    with pytest.raises(ValueError, match="batch: label 77 at index 1; expected labels from 0 to 9"):
        data.decode_cifar10(content[:3073] + bytes([77]) + content[3074:], count=2, name="batch")
    for count in (0, -1, 1.5):
        with pytest.raises(ValueError, match="count must be a whole number from 1"):
            data.decode_cifar10(b"", count=count)
    with pytest.raises(ValueError, match="per_file must be a whole number from 1"):
        data.load_cifar10(per_file=0)


def load_archive(folder, content, part="train"):
    (folder / "cifar-10-binary.tar.gz").write_bytes(content)
    return data.load_cifar10(part, folder=folder, download=False, per_file=1)


def test_cifar_archive_cut_anywhere_is_an_error(tmp_path):
    content = tar(cifar_members(1)[0])
    for stop in (*range(0, len(content), 101), *range(len(content) - 40, len(content))):
        with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz: (damaged gzip|not a tar archive)"):
            load_archive(tmp_path, content[:stop])


def test_plain_archive_cut_anywhere_is_an_error_or_complete(tmp_path):
    members, batches = cifar_members(1)
    content = tar(members, "w")
    complete = content.rindex(members[-1][1]) + 3073
    x = np.concatenate([batches[f"data_batch_{i}.bin"][0] for i in range(1, 6)])
    for stop in range(0, len(content), 211):
        found, error = outcome(load_archive, tmp_path, content[:stop])
        if error:
            assert "cifar-10-binary.tar.gz" in error
            assert stop < complete + 512, "only the padding after the last member may be missing"
        else:
            np.testing.assert_array_equal(found.x, x)


@settings(max_examples=100, deadline=None)
@given(strategies.data())
def test_archive_with_a_changed_byte_is_never_a_wrong_array(tmp_path_factory, draw):
    members, batches = cifar_members(1)
    content = bytearray(tar(members))
    position = draw.draw(strategies.integers(0, len(content) - 1))
    content[position] ^= draw.draw(strategies.integers(1, 255))
    folder = tmp_path_factory.getbasetemp()
    found, error = outcome(load_archive, folder, bytes(content), "test")
    if error:
        assert "cifar-10-binary.tar.gz" in error
    else:
        np.testing.assert_array_equal(found.x, batches["test_batch.bin"][0])


@settings(max_examples=200, deadline=None)
@given(strategies.integers(0, 511), strategies.integers(1, 255), strategies.booleans())
def test_changed_tar_header_gives_the_data_or_a_value_error(tmp_path_factory, position, flip, forged):
    members, batches = cifar_members(1)
    content = bytearray(tar(members, "w"))
    content[position] ^= flip  # in the header of the first member
    if forged:  # with a checksum that fits
        content[148:156] = b"%06o\0 " % (sum(content[:148]) + sum(content[156:512]) + 8 * 32)
    found, error = outcome(load_archive, tmp_path_factory.getbasetemp(), bytes(content))
    if error:
        assert "cifar-10-binary.tar.gz" in error
    else:
        np.testing.assert_array_equal(found.x[:1], batches["data_batch_1.bin"][0])


@pytest.mark.parametrize("size", [-512, -1024, -3073, -4096, 2**62, 2**80])
@pytest.mark.parametrize("member", [0, 1])
def test_forged_size_in_a_tar_header_ends(tmp_path, size, member):
    """Sizes below 0 lead a reader in circles; sizes beyond memory must not be allocated."""
    members, _ = cifar_members(1)
    content = bytearray(tar(members, "w"))
    header = content[(start := member * 4096) : start + 512]
    header[124:136] = (b"\xff" if size < 0 else b"\x80") + (size % 256**11).to_bytes(11, "big")
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    content[start : start + 512] = header
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz: (has no file|not a tar archive)"):
        load_archive(tmp_path, bytes(content))


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>login</html>", gzip.compress(b"<html>login</html>" * 100, mtime=0), gzip.compress(b"", mtime=0)],
)
def test_foreign_archive(tmp_path, content):
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz: "):
        load_archive(tmp_path, content)


def test_archive_members_are_found_by_exact_name_and_size(tmp_path):
    members, _ = cifar_members(1)
    for wrong in (members[:4] + members[5:], [(f"../{n}", c) for n, c in members], [(n, c + b"!") for n, c in members]):
        with pytest.raises(ValueError, match=r"has no file cifar-10-batches-bin/data_batch_\d.bin.* of 3073 bytes"):
            load_archive(tmp_path, tar(wrong))


def test_archive_is_never_extracted(tmp_path):
    members, batches = cifar_members(1)
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    evil = [
        ("../../escaped", b"x"),
        (str(tmp_path / "absolute"), b"x"),
        ("cifar-10-batches-bin/../../../escaped", b"x"),
    ]
    found = load_archive(inside, tar(evil + members), "test")
    np.testing.assert_array_equal(found.x, batches["test_batch.bin"][0])
    assert tree(tmp_path) == ["a", "a/b", "a/b/cifar-10-binary.tar.gz"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("size", [0, 3073])
@pytest.mark.parametrize("target", ["cifar-10-batches-bin/data_batch_1.bin", "data_batch_1.bin", "/etc/hostname"])
def test_links_in_an_archive_are_not_followed(tmp_path, kind, size, target):
    members, _ = cifar_members(1)
    out = io.BytesIO(tar(members[:1], "w"))
    with tarfile.open(fileobj=out, mode="a") as archive:
        link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        link.type, link.linkname, link.size = kind, target, size
        archive.addfile(link)
    with pytest.raises(ValueError, match="has no file"):
        load_archive(tmp_path, out.getvalue(), "test")


def test_archive_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "_unpacked", lambda path, limit=100_000, unpacked=data._unpacked: unpacked(path, limit))
    with pytest.raises(ValueError, match="holds more than 100000 bytes"):
        load_archive(tmp_path, gzip.compress(bytes(2**22)))


# ---------- the network, which here is this machine alone


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        kind, content = self.server.answers.get(self.path, ("missing", b""))
        self.server.asked.append(self.path)
        if kind == "hang":
            self.server.released.wait(10)
            return
        self.send_response(404 if kind == "missing" else 200)
        if kind != "endless":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        try:
            if kind == "endless":
                while not self.server.released.is_set():
                    self.wfile.write(bytes(2**16))
            self.wfile.write(content[: len(content) // 2] if kind in ("cut", "stall") else content)
            if kind == "stall":
                self.server.released.wait(10)
        except OSError:
            pass  # the client has gone

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.answers, running.asked, running.released = {}, [], threading.Event()
        running.address = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def closed_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    return f"http://127.0.0.1:{port}"


CONTENT = b"the right bytes" * 100


def remote(*addresses, content=CONTENT, name="file.gz"):
    return RemoteFile(name, len(content), hashlib.sha256(content).hexdigest(), tuple(f"{a}/{name}" for a in addresses))


def test_fetch(tmp_path, server, capsys):
    server.answers["/file.gz"] = ("good", CONTENT)
    path = data.fetch(remote(server.address), tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert tree(tmp_path) == ["new", "new/folder", "new/folder/file.gz"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()
    assert "1,500 bytes" in capsys.readouterr().err


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_fetch_tries_the_next_address(tmp_path, server, closed_port):
    server.answers["/file.gz"] = ("good", CONTENT)
    wrong = server.address + "/other"
    server.answers["/other/file.gz"] = ("good", b"something else")
    path = data.fetch(remote(closed_port, wrong, server.address), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["/other/file.gz", "/file.gz"]


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("good", CONTENT[:-1] + b"?", "sha256 .*expected"),
        ("good", b"<html>login</html>", "delivered 18 bytes; expected 1500"),
        ("good", CONTENT + b"!", "delivered more than 1500 bytes; expected 1500"),
        ("good", b"", "delivered 0 bytes"),
        ("cut", CONTENT, "delivered 750 bytes; expected 1500"),
        ("endless", b"", "delivered more than 1500 bytes"),
    ],
)
def test_a_wrong_download_leaves_nothing(tmp_path, server, kind, content, message):
    server.answers["/file.gz"] = (kind, content)
    with pytest.raises(WrongDownload, match=message) as caught:
        data.fetch(remote(server.address), tmp_path / "folder")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, DataUnavailable)
    assert server.address in str(caught.value)
    assert tree(tmp_path) == []


def test_a_wrong_download_keeps_the_file_that_was_there(tmp_path, server):
    (tmp_path / "file.gz").write_bytes(b"old")
    server.answers["/file.gz"] = ("good", b"wrong")
    with pytest.raises(WrongDownload):
        data.fetch(remote(server.address), tmp_path)
    assert (tmp_path / "file.gz").read_bytes() == b"old"
    assert tree(tmp_path) == ["file.gz"]


@pytest.mark.parametrize("kind", ["hang", "stall", "missing"])
def test_silence_and_absence(tmp_path, server, kind):
    server.answers["/file.gz"] = (kind, CONTENT)
    if kind == "missing":
        server.answers.clear()
    with pytest.raises(DataUnavailable, match="404" if kind == "missing" else "timed out") as caught:
        data.fetch(remote(server.address), tmp_path / "folder", timeout=5 if kind == "missing" else 0.2)
    assert not isinstance(caught.value, WrongDownload)
    assert tree(tmp_path) == []


def test_an_answer_that_is_no_http(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"what?\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DataUnavailable, match="what"):
            data.fetch(remote(f"http://127.0.0.1:{listener.getsockname()[1]}"), tmp_path / "folder", timeout=5)
        thread.join()
    assert tree(tmp_path) == []


def test_an_interruption_leaves_nothing(tmp_path, server, monkeypatch):
    server.answers["/file.gz"] = ("good", CONTENT)

    def interrupt(*args):
        raise KeyboardInterrupt

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, interrupt)
            with pytest.raises(KeyboardInterrupt):
                data.fetch(remote(server.address), tmp_path)
        assert tree(tmp_path) == []


def test_a_full_disk_is_not_blamed_on_the_network(tmp_path, server, monkeypatch):
    server.answers["/file.gz"] = ("good", CONTENT)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        data.fetch(remote(server.address), tmp_path)
    assert not isinstance(caught.value, DataUnavailable)
    assert tree(tmp_path) == []


@pytest.mark.parametrize("timeout", [0, -1, float("inf")])
def test_bad_timeout(tmp_path, timeout):
    with pytest.raises(ValueError, match="timeout must be greater than 0"):
        data.fetch(remote("http://127.0.0.1"), tmp_path, timeout=timeout)


def redirected(collection, address):
    """The collection with its files at `address`, and the files that `write_mnist` makes as the published ones."""
    return collection._replace(files=tuple(f._replace(addresses=(f"{address}/{f.name}",)) for f in collection.files))


def serve_folder(server, folder, collection):
    files = []
    for file in redirected(collection, server.address).files:
        content = (folder / file.name).read_bytes()
        server.answers[f"/{file.name}"] = ("good", content)
        files.append(file._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest()))
    return collection._replace(files=tuple(files))


def test_mnist_is_fetched_once(tmp_path, server, monkeypatch):
    (x, y), _ = write_mnist(tmp_path / "origin")
    monkeypatch.setattr(data, "_MNIST", serve_folder(server, tmp_path / "origin", data._MNIST))
    for _ in range(2):
        found = data.load_mnist(folder=tmp_path / "folder")
        np.testing.assert_array_equal(found.x, x)
        np.testing.assert_array_equal(found.y, y)
        assert server.asked == [f"/{TRAIN_IMAGES}.gz", f"/{TRAIN_LABELS}.gz"]
    assert tree(tmp_path / "folder") == [f"{TRAIN_IMAGES}.gz", f"{TRAIN_LABELS}.gz"]


def test_only_what_is_missing_is_fetched(tmp_path, server, monkeypatch):
    (x, _), _ = write_mnist(tmp_path / "origin")
    monkeypatch.setattr(data, "_MNIST", serve_folder(server, tmp_path / "origin", data._MNIST))
    write_mnist(tmp_path / "folder", packed=False)
    (tmp_path / "folder" / TRAIN_LABELS).unlink()
    np.testing.assert_array_equal(data.load_mnist(folder=tmp_path / "folder").x, x)
    assert server.asked == [f"/{TRAIN_LABELS}.gz"]


def test_cifar_is_fetched_once(tmp_path, server, monkeypatch):
    members, batches = cifar_members()
    (tmp_path / "origin").mkdir()
    (tmp_path / "origin" / "cifar-10-binary.tar.gz").write_bytes(tar(members))
    monkeypatch.setattr(data, "_CIFAR10", serve_folder(server, tmp_path / "origin", data._CIFAR10))
    data.load_cifar10("test", folder=tmp_path / "folder", per_file=2)
    check_cifar(tmp_path / "folder", batches)
    assert server.asked == ["/cifar-10-binary.tar.gz"]
    assert tree(tmp_path / "folder") == ["cifar-10-binary.tar.gz"]


@pytest.mark.parametrize(
    ("load", "name", "stand_in"),
    [
        (data.load_mnist, "_MNIST", "load_digits()"),
        (data.load_fashion_mnist, "_FASHION_MNIST", "load_digits()"),
        (data.load_cifar10, "_CIFAR10", "load_photos()"),
    ],
)
@pytest.mark.parametrize("download", [False, True])
def test_offline_says_what_to_do(tmp_path, closed_port, monkeypatch, load, name, stand_in, download):
    collection = redirected(getattr(data, name), closed_port)
    monkeypatch.setattr(data, name, collection)
    folder = tmp_path / "folder"
    with pytest.raises(DataUnavailable) as caught:
        load("test", folder=folder, download=download)
    message = str(caught.value)
    for file in collection.files[-2:]:
        assert f"{file.addresses[0]}  ({file.size:,} bytes, sha256 {file.sha256})" in message
    assert f"into {folder}, as downloaded or unpacked" in message
    assert stand_in in message
    assert ("refused" in message) == download
    assert ("download=False" in message) != download
    assert isinstance(caught.value, OSError)
    assert tree(tmp_path) == []


def test_wrong_download_says_what_to_do_too(tmp_path, server, monkeypatch):
    monkeypatch.setattr(data, "_MNIST", redirected(data._MNIST, server.address))
    server.answers[f"/{TEST_IMAGES}.gz"] = ("good", b"<html>login</html>")
    with pytest.raises(WrongDownload, match="(?s)delivered 18 bytes; expected 1648877.*On a machine that is online"):
        data.load_mnist("test", folder=tmp_path / "folder")
    assert tree(tmp_path) == []


def test_published_files_are_complete():
    for collection, number in ((data._MNIST, 4), (data._FASHION_MNIST, 4), (data._CIFAR10, 1)):
        assert len(collection.files) == number
        assert len({f.sha256 for f in collection.files}) == number
        assert len(collection.class_names) == 10
        for file in collection.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert len(file.addresses) >= 2
            assert all(a.startswith("http") and a.endswith("/" + file.name) for a in file.addresses)
