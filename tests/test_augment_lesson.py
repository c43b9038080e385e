"""The literals of lesson 8: of Keras and torchvision against the live libraries, of digits against the recording."""

import json
import re
from functools import partial

import numpy as np
import pytest
from lessons import ROOT, read, source

from benchmarks.peers import keras_image, torchvision_v2
from dlopt_course.augment import rotate

pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # of Keras, for SciPy's old names
LESSON = read(ROOT / "nbs/08_augmentation.ipynb")
cell = partial(source, LESSON)


@pytest.fixture(scope="module")
def recorded() -> dict:
    "All that the cells with recorded numbers define."
    names = {"np": np}
    for name in ("question-recorded", "recorded-keras"):
        exec(cell(name), names)
    return names


@pytest.fixture(scope="module")
def keras():
    return keras_image()


def applied(keras, image, parameters, **options):
    "What Keras makes of an image (h, w)."
    return keras.ImageDataGenerator(**options).apply_transform(image[..., None].astype(float), parameters)[..., 0]


def test_the_version_that_the_lesson_names(keras):
    import keras as package

    sources = "\n".join(c.source for c in LESSON.cells)
    assert set(re.findall(r"[Kk]eras (\d+\.[\d.]*\d)", sources)) == {package.__version__}


def test_the_white_pixel_of_the_beginning(recorded, keras):
    live = applied(keras, recorded["one_pixel"], {"theta": 30})
    np.testing.assert_allclose(live, recorded["keras_turned"], rtol=0, atol=6e-6)


def test_a_width_shift_that_moves_rows(recorded, keras):
    small = recorded["small"]
    generator = keras.ImageDataGenerator(width_shift_range=[1])
    drawn = [generator.get_random_transform((*small.shape, 1), seed=seed) for seed in range(8)]
    assert {(p["tx"], int(p["ty"])) for p in drawn} == {(0, 1), (0, -1)}
    np.testing.assert_array_equal(applied(keras, small, {"ty": 1}), recorded["keras_shifted"])


def test_images(recorded, keras):
    small = recorded["small"]
    assert len(recorded["keras_images"]) == 5
    for parameters, of_square, of_wide in recorded["keras_images"]:
        for image, literal in ((small[:, :3], of_square), (small, of_wide)):
            live = applied(keras, image, parameters).ravel()
            np.testing.assert_allclose(live, literal, rtol=0, atol=5.1e-7, err_msg=str(parameters))


def test_fill_modes(recorded, keras):
    assert set(recorded["keras_rows"]) == {"nearest", "reflect", "wrap", "constant"}
    for mode, literal in recorded["keras_rows"].items():
        live = applied(keras, np.arange(5.0)[None].repeat(3, 0), {"tx": 2}, fill_mode=mode, cval=-1.0)[1]
        np.testing.assert_allclose(live, literal, rtol=1e-15)


def test_drawn_parameters_and_batches(recorded, keras):
    generator = keras.ImageDataGenerator(**recorded["classic"])
    for seed, literal in recorded["keras_parameters"].items():
        drawn = generator.get_random_transform((20, 40, 3), seed=seed)
        assert tuple(drawn[name] for name in ("theta", "tx", "ty")) == literal
    flow = generator.flow(recorded["four_images"], batch_size=2, seed=3)
    for literal in recorded["keras_batches"]:
        np.testing.assert_allclose(next(flow).reshape(2, 15), literal, rtol=0, atol=5.1e-4)


def test_the_matrix_of_torchvision():
    torchvision_v2()
    import torchvision
    from torchvision.transforms.functional import _get_inverse_affine_matrix

    source = cell("torchvision-claims")
    call = re.search(r"_get_inverse_affine_matrix\((.+)\)", source)[1]
    assert call == "[0, 0], 30, [3, -2], 1.25, [10, -5]"
    live = _get_inverse_affine_matrix([0.0, 0.0], 30.0, [3.0, -2.0], 1.25, [10.0, -5.0])
    assert f"torchvision {torchvision.__version__.partition('+')[0]}" in source
    lines = "\n".join(line for line in source.splitlines() if re.match(r"recorded \+?= ", line))
    names = {}
    exec(lines, names)
    np.testing.assert_allclose(live, names["recorded"], rtol=1e-14)


@pytest.fixture(scope="module")
def digits() -> dict:
    "The shares of right digits in the lesson: of each augmentation an array (sizes, seeds)."
    names = {}
    exec(cell("digits-recorded"), names)
    return {name: np.array(rights) / 797 for name, rights in names["recorded_digits"].items()}


def test_the_figures_about_digits(digits):
    text, none = cell("digits-message") + cell("digits-live-message"), digits["none"]
    gain = {name: 100 * (rights - none) for name, rights in digits.items()}
    mean = {name: np.round(gains.mean(axis=1), 1) for name, gains in gain.items()}
    flips = [f"{min(-mean[name]):.1f} to {max(-mean[name]):.1f}" for name in ("horizontal flip", "vertical flip")]
    small, mixed, classic = mean["small moves"], mean["mixup"], -mean["classic"]
    assert gain["small moves"].min() > 0 > max(gain["horizontal flip"].max(), gain["vertical flip"].max())
    assert gain["mixup"].min() >= 0
    first = {name: round(abs(gains[1, 0])) for name, gains in gain.items()}
    for words in (
        f"100 images ({100 * digits['small moves'][1].mean():.1f} percent right)",
        f"what 300 do without ({100 * none[2].mean():.1f})",
        f"{small[0]:.1f} percent with 50 images, {small[3]:.1f} with 1000",
        f"{flips[0]} percent are lost by horizontal flips, {flips[1]} by vertical ones",
        f"costs up to {-mean['shift 0.2'].min():.1f} percent;",
        f"with turns and flips on top it is {classic.min():.0f} to {classic.max():.0f},",
        f"buys {mixed[0]:.1f}, {mixed[1]:.1f}, {mixed[2]:.1f} and {mixed[3]:.1f} percent",
        f"worth {mean['shift 1 pixel'][0]:.0f} percent with 50 or 100",
        f"small moves gain {first['small moves']} percent, the flip loses {first['horizontal flip']}",
        f"the classic settings lose {first['classic']}",
    ):
        assert words in text


def test_a_wave_of_four_pixels_there_and_back():
    rows, columns = np.indices((101, 101)) - 50
    middle = np.hypot(rows, columns) < 40
    for angle, phase in ((20.0, 0.0), (45.0, 0.0), (45.0, 1.0)):
        wave = np.cos(np.pi / 2 * columns + phase)[None, ..., None]
        back = rotate(rotate(wave, angle), -angle)
        left = np.sum((back * wave)[0, middle]) / np.sum(wave[0, middle] ** 2)
        assert 0.6 < left < 0.72, (angle, phase, left)  # two thirds, says the lesson


def test_no_backslash_is_doubled():
    for c in LESSON.cells:
        if c.cell_type == "markdown":
            assert not re.search(r"\\\\[a-zA-Z,]", c.source), c.id


def test_the_recording_of_digits():
    names = {}
    exec(cell("digits-recorded"), names)
    recording = json.loads((ROOT / "benchmarks/results/digits_augmented.json").read_text(encoding="utf-8"))
    raw = recording["raw"]
    assert raw["seeds"] == [100, 101, 102, 103, 104]
    assert len(raw["samples"]) == len(names["recorded_digits"]) * len(names["recorded_sizes"])
    for row in raw["samples"]:
        column = names["recorded_sizes"].index(row["images"])
        rights = names["recorded_digits"][row["augmentation"]][column]
        np.testing.assert_allclose(np.array(rights) / 797, row["accuracy"], rtol=1e-12)


def ratios(name: str, peer: str, ours: str = "ours", **of_sample) -> list[float]:
    "The medians of peer / ours in the samples of a recording, by side."
    samples = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))["raw"]["samples"]
    chosen = [s for s in samples if all(s[key] == value for key, value in of_sample.items())]
    pairs = [(s["side"], s["seconds"][ours], s["seconds"][peer]) for s in chosen]
    return [float(np.median(np.divide(theirs, mine))) for _, mine, theirs in sorted(pairs)]


def test_the_ratios_of_speed_are_those_recorded():
    text = cell("cost")
    for peer, said in (("OpenCV", "0.7 to 1.2"), ("torchvision", "2.0 to 6.4")):
        found = ratios("augment", peer, operation="affine", threads=1)
        assert f"{min(found):.1f} to {max(found):.1f}" == said
        assert f"{said} times as fast as {peer}" in text
    pipeline = ratios("generator", "keras", "right", source="memory", dtype="uint8", threads=1)
    assert (
        "{:.1f} times as fast as Keras's generator with 32x32 pixels, {:.1f} with 128x128 and {:.1f} with".format(
            *pipeline
        )
        in text
    )
    (folder,) = ratios("generator", "keras", "right", source="folder", threads=1)
    assert f"files: {folder:.1f} times as fast as Keras's" in text
    mirrored = [
        r
        for d in ("uint8", "float32")
        for r in ratios("augment", "torchvision", operation="horizontal flip", dtype=d, threads=1)
    ]
    assert "mirrors up to three times faster" in text
    assert 3 <= round(1 / min(mirrored), 1) < 3.3
