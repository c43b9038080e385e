"""The benchmarks of augmentation: every side does the same work, and the tables say what was measured."""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import augment, generator, measure

# Keras asks SciPy for a name that has moved.
pytestmark = pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")
RANDOM = ("random crop", "random resized crop", "random erasing", "mixup", "trivial augment", "rand augment")
# Differences over the range. kornia's resize blurs by a Gaussian before it takes pixels, its posterize cuts elsewhere.
ALLOWED = {("resize to half", "kornia"): 0.2, ("posterize", "kornia"): 0.005}


def images(result) -> np.ndarray:
    "What a call returned, as (n, h, w, c)."
    if isinstance(result, tuple):
        result = result[0]
    if isinstance(result, torch.Tensor):
        return result.numpy().transpose(0, 2, 3, 1)
    return np.asarray(result)


@pytest.fixture
def calm(monkeypatch):
    "Measures quickly, and waits for nobody."
    for module in (augment, generator):
        monkeypatch.setattr(module, "wait_until_idle", lambda: 0.0)
        monkeypatch.setattr(module, "compare_all", lambda f, n, at_least=0.0: measure.compare_all(f, 3, at_least=0))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("name", augment.OPERATIONS)
def test_every_side_does_the_same_work(name, dtype):
    case = augment.Case(32, dtype)
    before, tensor = case.x.copy(), case.t.clone()
    found = {peer: images(call()) for peer, call in augment.OPERATIONS[name](case).items()}
    for peer, result in found.items():
        assert result.shape == found["ours"].shape, peer
        assert result.dtype == case.x.dtype, peer
        allowed = ALLOWED.get((name, peer), 2 / 255 if dtype == "uint8" else 2e-4)
        far = np.abs(result.astype(float) - found["ours"]).max() / (255 if dtype == "uint8" else 1)
        assert name in RANDOM or far <= allowed, peer
        assert (
            name in RANDOM or np.abs(result - before[:, : result.shape[1], : result.shape[2]].astype(float)).max() > 0
        )
    np.testing.assert_array_equal(case.x, before)  # no side works on what it is given
    assert torch.equal(case.t, tensor)
    assert len(found) > 1 or (name, dtype) == ("mixup", "uint8")


def test_the_fastest_peer_is_named(calm):
    samples = [augment.measured("vertical flip", side, "float32", 1, 3) for side in (8, 16, 24)]
    for s in samples:
        s["seconds"] = {"ours": [1.0] * 3, "torchvision": [3.0] * 3, "kornia": [2.0] * 3, "OpenCV": [0.5] * 3}
    table = augment.rows(samples)
    assert [row[:3] for row in table] == [["vertical flip", "float32", 1]] * 2
    assert table[0][3:6] == ["2.00 (2.00 to 2.00) kornia"] * 3
    assert table[1][3:6] == ["0.50 (0.50 to 0.50) OpenCV"] * 3
    assert table[0][6] == "32 / 32 / 32"
    assert augment.cell({"seconds": {}}, augment.PEERS) == "–"


def test_single_operations_are_recorded(calm, monkeypatch):
    monkeypatch.setattr(augment, "OPERATIONS", {"mixup": augment.mixup, "rotate": augment.rotate})
    monkeypatch.setattr(augment, "SIZES", (8, 16))
    result = augment.run(3)
    assert {len(row) for row in result["rows"]} == {len(result["columns"])}
    assert {(s["operation"], s["dtype"], s["side"]) for s in result["raw"]["samples"]} == {
        (o, d, s) for o in ("mixup", "rotate") for d in ("uint8", "float32") for s in (8, 16)
    }
    assert not [row for row in result["rows"] if row[:2] == ["mixup", "uint8"]]  # nobody to compare with


def test_the_pipelines_give_the_same_batches():
    calls = generator.from_memory(32, "uint8")
    for _ in range(9):  # into the second epoch
        (x, y), (right, _), (peer, labels) = calls["compatible"](), calls["right"](), calls["keras"]()
        assert x.shape == right.shape == peer.shape == (32, 32, 32, 3)
        assert x.dtype == right.dtype == peer.dtype == np.float32
        np.testing.assert_array_equal(x, peer)
        np.testing.assert_array_equal(y, labels)


def test_the_pipelines_are_recorded(calm, monkeypatch):
    write = generator.write_folder
    monkeypatch.setattr(generator, "write_folder", lambda folder: write(folder, 40))
    monkeypatch.setattr(generator, "SIZES", (16,))
    result = generator.run(3)
    assert {len(row) for row in result["rows"]} == {len(result["columns"])}
    assert {(s["source"], s["side"], s["dtype"]) for s in result["raw"]["samples"]} == {
        ("memory", 16, "uint8"),
        ("memory", 16, "float32"),
        ("folder", 128, "JPEG"),
    }
    assert all(0 < s["memory"]["right"] < 10 for s in result["raw"]["samples"])
    assert result["notes"][-1].startswith("The check of the 2,000 files takes")


def test_the_folder_holds_jpeg_files_of_two_classes(tmp_path):
    generator.write_folder(tmp_path, 6)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert [f.parent.name for f in files] == ["china"] * 3 + ["flower"] * 3
    with Image.open(files[0]) as image:
        assert (image.size, image.mode, image.format) == ((250, 250), "RGB", "JPEG")
