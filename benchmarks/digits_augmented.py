"""What each augmentation buys, and costs, with few digits and with many: the recording of lesson 8."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from statistics import mean

import numpy as np

from benchmarks.measure import threads
from dlopt_course.augment import ImageDataGenerator, SampleStreams, cutmix, mixup, random_erasing, to_nchw
from dlopt_course.core import num_threads
from dlopt_course.data import Dataset, load_digits
from dlopt_course.layers import CNN, fit
from dlopt_course.losses import cross_entropy
from dlopt_course.optim import adam
from dlopt_course.schedules import cosine_annealing_lr

MODULES = ("augment", "core", "data", "layers", "losses", "optim", "schedules")
CODE, PACKAGES = tuple(f"dlopt_course/{name}.py" for name in MODULES), ("numpy", "scikit-learn", "numba")
SIZES = (50, 100, 300, 1000)  # training images
SEEDS = range(100, 105)  # of the split, the start, the order and the augmentation; the settings were tried on others
STEPS, BATCH = 1200, 25  # the same for all: 600 passes over 50 images, 30 over 1000
MODEL = CNN((16, 32), 10, (1, 8, 8))


def erased(images, labels, rng):
    "Random erasing with torchvision's defaults."
    return random_erasing(images, rng), labels


# Parameters of ImageDataGenerator, and what is done with the batch after it.
ROWS = {
    "none": ({}, None),
    "rotation 20": ({"rotation_range": 20}, None),
    "shift 1 pixel": ({"width_shift_range": 1.0, "height_shift_range": 1.0}, None),
    "shift 0.2": ({"width_shift_range": 0.2, "height_shift_range": 0.2}, None),
    "zoom 0.2": ({"zoom_range": 0.2}, None),
    "shear 20": ({"shear_range": 20}, None),
    "horizontal flip": ({"horizontal_flip": True}, None),
    "vertical flip": ({"vertical_flip": True}, None),
    "random erasing": ({}, erased),
    "mixup": ({}, partial(mixup, alpha=0.2, classes=10)),
    "cutmix": ({}, partial(cutmix, alpha=1.0, classes=10)),
    "classic": (
        {"rotation_range": 20, "width_shift_range": 0.2, "height_shift_range": 0.2, "horizontal_flip": True},
        None,
    ),
    "small moves": (
        {"rotation_range": 10, "width_shift_range": 0.1, "height_shift_range": 0.1, "zoom_range": 0.1}
        | {"shear_range": 10},
        None,
    ),
}

ABOUT = f"""\
A convolutional network learns 50 to 1000 of scikit-learn's handwritten digits of 8 x 8 pixels, and is tested on 797
others. A row is an augmentation, drawn anew for every image in every epoch; a seed has its own split, start and
order, and they are the same in every row. All are trained for {STEPS} steps of {BATCH} images by Adam, from a rate of
0.01 down to 0 along a cosine: {STEPS * BATCH // 50} passes over 50 images, {STEPS * BATCH // 1000} over 1000. A cell
is the mean share of test digits that are right, in percent, over {len(SEEDS)} seeds, then the mean gain over no
augmentation in the same seed, with the least and the largest of the {len(SEEDS)} gains. This is no comparison of
speed: it is the recording of which lesson 8 runs one point."""

NOTES = [
    "Rotation and shear are in degrees to either side; 0.2 of 8 pixels are 1.6. Outside the image the nearest pixel "
    "is repeated, as is the generator's default. Random erasing, mixup (alpha 0.2) and cutmix (alpha 1) have "
    "torchvision's defaults but for mixup's alpha. Classic: rotation 20, both shifts 0.2, horizontal flip. Small "
    "moves: rotation 10, both shifts 0.1, zoom 0.1, shear 10.",
    "Small moves were set after a look at about ten settings, at 100 images and with other seeds; they are not the "
    "best that can be found, and those seeds split the same 1797 digits.",
    "Digits are a hard case for augmentation: they fill their 8 rows and are centred already, so that a test digit is"
    " never shifted, and a flipped one is another sign, or none.",
    "All splits are of one pool of digits, so the spread is that of splits of it, of starts and of draws.",
]


def parts(size: int, seed: int) -> tuple[Dataset, Dataset]:
    "So many digits to train on, the same in each larger set of this seed, and 797 to test on; images (n, 8, 8, 1)."
    digits = load_digits(dtype=np.float32, scaled=True)
    order = np.random.default_rng(seed).permutation(len(digits))
    both = (digits.take(rows) for rows in (order[:size], order[max(SIZES) :]))
    return tuple(Dataset(part.x.reshape(-1, 8, 8, 1), part.y) for part in both)


def batches(train: Dataset, settings: dict, after: Callable | None, seed: int) -> Iterator:
    "Augmented batches without end, channels first."
    flow = ImageDataGenerator(**settings).flow(train.x, train.y, batch_size=BATCH, seed=seed)
    for images, labels in flow:
        if after:  # its own seed: the generator's draws are of the stream of this one
            rng = SampleStreams(seed + 1000, flow.parameters["epoch"][0], flow.parameters["index"])
            images, labels = after(images, labels, rng)
        yield to_nchw(images), labels


def accuracy(name: str, size: int, seed: int, steps: int = STEPS) -> float:
    "Share of the test digits that are right after training with the augmentation of this name."
    train, test = parts(size, seed)
    params, rate = MODEL.init(np.random.default_rng(seed), np.float32), cosine_annealing_lr(steps)
    data, rule = batches(train, *ROWS[name], seed), adam(lambda step: 0.01 * rate(step))
    fit(MODEL, params, data, cross_entropy, rule, steps_per_epoch=steps, progress=False)
    logits, _ = MODEL.apply(params, to_nchw(test.x))
    return float((logits.argmax(axis=1) == test.y).mean())


def on_one_thread(*case) -> float:
    "The accuracy of a case; the processes side by side have a core each."
    with threads(1):
        return accuracy(*case)


def all_of(cases: list[tuple]) -> list[float]:
    "The accuracies of the cases, in order, on all cores."
    with ProcessPoolExecutor(num_threads(), get_context("spawn")) as pool:
        return list(pool.map(on_one_thread, *zip(*cases, strict=True)))


def cell(shares: list[float], without: list[float]) -> str:
    "'92.7: +2.4 (+0.9 to +3.8)': mean, mean gain, least and largest gain, in percent."
    gains = [100 * (a - b) for a, b in zip(shares, without, strict=True)]
    middle, low, high = (f"{round(v, 1) + 0.0:+.1f}" for v in (mean(gains), min(gains), max(gains)))  # and no -0.0
    gain = "" if shares is without else f": {middle} ({low} to {high})"
    return f"{100 * mean(shares):.1f}{gain}".replace("-", "−")


def run(sizes: tuple = SIZES, seeds: range = SEEDS, steps: int = STEPS) -> dict:
    "Train with every augmentation on every size."
    cases = [(name, size, seed, steps) for name in ROWS for size in sizes for seed in seeds]
    found = dict(zip(cases, all_of(cases), strict=True))
    shares = {(name, size): [found[name, size, seed, steps] for seed in seeds] for name in ROWS for size in sizes}
    rows = [[name, *(cell(shares[name, size], shares["none", size]) for size in sizes)] for name in ROWS]
    samples = [{"augmentation": name, "images": size, "accuracy": mine} for (name, size), mine in shares.items()]
    columns = ["Augmentation", *(f"{size} images" for size in sizes)]
    result = {"title": "What each augmentation buys on digits", "about": ABOUT, "columns": columns, "rows": rows}
    return result | {"notes": NOTES, "raw": {"seeds": list(seeds), "steps": steps, "samples": samples}}
