"""The classic pipeline, images in and augmented batches out: our ImageDataGenerator against Keras's."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from benchmarks.measure import Comparison, compare_all, peak_memory, threads, wait_until_idle
from benchmarks.peers import keras_image
from dlopt_course.augment import ImageDataGenerator
from dlopt_course.core import num_threads
from dlopt_course.data import load_photos

keras = keras_image()
CODE = ("dlopt_course/augment.py", "dlopt_course/data.py", "dlopt_course/core.py", "benchmarks/peers.py")
PACKAGES = ("numpy", "numba", "keras", "scipy", "pillow")
SIZES, BATCH, ROUNDS, FILES, TARGET = (32, 128, 224), 32, 7, 2000, (128, 128)
CLASSIC = {"rotation_range": 20, "width_shift_range": 0.2, "height_shift_range": 0.2, "horizontal_flip": True}
FORMS = {"right": {}, "compatible": {"keras_compat": True}}

ABOUT = """\
Batches of 32 images with the classic settings, rotation by up to 20 degrees, shifts by up to a fifth of the width and
the height, horizontal flips, from `flow(images)` on 256 images in memory, and from `flow_from_directory` on 2,000 JPEG
files of 250 x 250 pixels in two classes, resized to 128 x 128. Both sides give float32 batches (n, h, w, c) with their
labels. *Right* is our default; *compatible* is `keras_compat=True`, which gives Keras's own batches, pixel by pixel.
A ratio is Keras's time over ours, with quartiles; above 1 ours is ahead. Memory is what Python and NumPy held at most
while a batch was made, beyond what was there before, over the size of the batch that came out."""

NOTES = [
    "Target: 10 times Keras's images per second at each size, on two threads.",
    "Keras's generator is serial: its two threads are NumPy's and PyTorch's, which it hardly uses.",
    "From a folder, our right way resizes with antialiasing, Keras and the compatible way take the nearest pixel. The "
    "check of the folder before the first batch is not in these times; its own line gives it as a share of an epoch.",
    "What is compared was measured together, in turns, when other programs left the processor alone; the share these "
    "had is in the raw data, with every sample.",
]


def images(side: int, dtype: str, number: int = 256) -> np.ndarray:
    "Cuts from two photographs, (number, side, side, 3), from 0 to 255."
    rng, photos = np.random.default_rng(side), load_photos()
    at = [(rng.integers(0, 427 - side), rng.integers(0, 640 - side)) for _ in range(number)]
    return np.stack([photos[i % 2][a : a + side, b : b + side] for i, (a, b) in enumerate(at)]).astype(dtype)


def write_folder(folder: Path, number: int = FILES) -> None:
    "JPEG files of 250 x 250 pixels in two classes."
    for i, image in enumerate(images(250, "uint8", number)):
        path = folder / ("china", "flower")[i % 2] / f"{i:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path, quality=90)


def from_memory(side: int, dtype: str) -> dict[str, Callable]:
    "The next batch of each."
    x = images(side, dtype)
    options = {"y": np.arange(len(x)) % 2, "batch_size": BATCH, "seed": 0}
    peer = keras.ImageDataGenerator(**CLASSIC).flow(x, **options)
    ours = {f: ImageDataGenerator(**CLASSIC, **o).flow(x, **options) for f, o in FORMS.items()}
    return {form: flow.__next__ for form, flow in ours.items()} | {"keras": peer.__next__}


def from_folder(folder: Path) -> dict[str, Callable]:
    "The next batch of each."
    options = {"target_size": TARGET, "batch_size": BATCH, "seed": 0}
    peer = keras.ImageDataGenerator(**CLASSIC).flow_from_directory(folder, **options)
    ours = {f: ImageDataGenerator(**CLASSIC, **o).flow_from_directory(folder, **options) for f, o in FORMS.items()}
    return {form: flow.__next__ for form, flow in ours.items()} | {"keras": peer.__next__}


def checked(folder: Path) -> Callable:
    "What happens before the first batch: every file of the folder is looked at."
    return lambda: ImageDataGenerator().flow_from_directory(folder, target_size=TARGET)


def measured(source: str, side: int, dtype: str, calls: dict, cores: int, rounds: int) -> dict:
    "The samples of one line, in turns."
    busy = wait_until_idle()
    with threads(cores):
        seconds = compare_all(calls, rounds)
    memory = {name: _memory(call) for name, call in calls.items()}
    head = {"source": source, "side": side, "dtype": dtype, "threads": cores, "busy": busy}
    return head | {"seconds": seconds, "memory": memory}


def _memory(call: Callable) -> float:
    "Most bytes held while a batch is made, over the bytes of its images."
    size = call()[0].nbytes
    return peak_memory(call) / size


def row(s: dict) -> list:
    "A line of the table."
    seconds = s["seconds"]
    ratios = [str(Comparison(seconds[form], seconds["keras"])) for form in FORMS]
    rates = [f"{BATCH / np.median(seconds[name]):,.0f}" for name in (*FORMS, "keras")]
    memory = [f"{s['memory'][name]:.1f}" for name in (*FORMS, "keras")]
    head = [s["source"], f"{s['side']} x {s['side']}", s["dtype"], s["threads"]]
    return head + ratios + [" / ".join(rates), " / ".join(memory)]


def run(rounds: int = ROUNDS) -> dict:
    "Measure every size and the folder, with one thread and with all."
    cores = sorted({1, num_threads()})
    asked = [(side, dtype, n) for side in SIZES for dtype in ("uint8", "float32") for n in cores]
    samples = [measured("memory", side, d, from_memory(side, d), n, rounds) for side, d, n in asked]
    with TemporaryDirectory() as folder:
        write_folder(Path(folder))
        calls = from_folder(Path(folder))
        samples += [measured("folder", TARGET[0], "JPEG", calls, n, rounds) for n in cores]
        with threads(max(cores)):
            check = compare_all({"check": checked(Path(folder))}, 3)["check"]
    columns = ["From", "Size", "Images", "Threads", *(f"Keras / {form}" for form in FORMS)]
    columns += ["Images/s: right / compatible / Keras", "Memory, batches: right / compatible / Keras"]
    epoch = float(np.median(samples[-1]["seconds"]["right"])) * FILES / BATCH
    told = f"The check of the 2,000 files takes {np.median(check) / epoch:.0%} of the time of an epoch, on all threads."
    result = {"title": "Augmentation: the classic pipeline", "about": ABOUT, "columns": columns}
    return result | {
        "notes": [*NOTES, told],
        "rows": [row(s) for s in samples],
        "raw": {"samples": samples, "check": check},
    }
