"""Single operations on batches of images: ours against torchvision v2, torch's grid_sample, kornia and OpenCV."""

from collections.abc import Callable
from functools import partial
from statistics import median

import cv2
import kornia
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measure import Comparison, compare_all, threads, wait_until_idle
from benchmarks.peers import torchvision_v2
from dlopt_course import augment
from dlopt_course.core import num_threads
from dlopt_course.data import load_photos

v2 = torchvision_v2()
V = v2.functional
CODE = ("dlopt_course/augment.py", "dlopt_course/core.py", "benchmarks/peers.py")
PACKAGES = ("numpy", "numba", "torch", "torchvision", "kornia", "opencv-python-headless")
SIZES, BATCH, ROUNDS = (32, 128, 224), 32, 5
PEERS = ("torchvision", "grid_sample", "kornia")  # the target: ahead of each of them

ABOUT = """\
A batch of 32 images of three channels, cut from scikit-learn's two photographs; uint8 from 0 to 255, float32 from 0 to
1. Ours takes and returns (n, h, w, c), the layout in which images are read; torchvision, torch and kornia have theirs,
(n, c, h, w), and OpenCV one image (h, w, c) at a time. Each operation does the same work on every side, shown equal by
a test. Where every image has its own angle, box or operation, torchvision is called image by image, because it draws
once for a call; where one number serves the batch, it gets the batch. grid_sample includes affine_grid. A cell is the
time of the fastest of torchvision, grid_sample and kornia over ours, with quartiles, and which of them it was; above 1
ours is ahead. OpenCV's ratio, where it has the operation, stands in a line of its own."""

NOTES = [
    "Target: ahead of torchvision and kornia everywhere, level with OpenCV's warp at 32 x 32.",
    "A dash: no peer has the operation for this dtype. kornia and grid_sample take floats only.",
    "Flips and crops copy, on both sides.",
    "All calls of a cell were measured together, in turns, when other programs left the processor alone; the share "
    "these had is in the raw data, with every sample.",
]


class Case:
    "A batch in every peer's layout, and numbers for each image."

    def __init__(self, side: int, dtype: str):
        self.side, self.dtype, rng = side, dtype, np.random.default_rng(side)
        photos = load_photos()
        at = [(rng.integers(0, 427 - side), rng.integers(0, 640 - side)) for _ in range(BATCH)]
        x = np.stack([photos[i % 2][a : a + side, b : b + side] for i, (a, b) in enumerate(at)])
        self.x = x if dtype == "uint8" else (x / 255).astype(np.float32)
        self.t = torch.from_numpy(np.ascontiguousarray(self.x.transpose(0, 3, 1, 2)))
        self.angles = rng.uniform(-20, 20, BATCH)
        self.shifts = np.rint(rng.uniform(-0.2, 0.2, (BATCH, 2)) * side)
        self.rng, self.is_float = rng, dtype == "float32"

    def theta(self, matrices: np.ndarray) -> torch.Tensor:
        "Our matrices in grid_sample's coordinates, which go from -1 to 1 over the image's edges."
        to_pixels = np.array(
            [[self.side / 2, 0, (self.side - 1) / 2], [0, self.side / 2, (self.side - 1) / 2], [0, 0, 1]]
        )
        return torch.from_numpy((np.linalg.inv(to_pixels) @ matrices @ to_pixels)[:, :2].astype(np.float32))

    def each(self, f: Callable, *arguments) -> Callable:
        "A peer's function called image by image, with one argument of each list."
        return lambda: torch.stack([f(image, *one) for image, *one in zip(self.t, *arguments, strict=True)])


def sampled(case: Case, matrices: np.ndarray):
    "grid_sample on our matrices, outside zero."
    grid = F.affine_grid(case.theta(matrices), case.t.shape, align_corners=False)
    return F.grid_sample(case.t, grid, align_corners=False)


def warped(case: Case, matrices: np.ndarray):
    "OpenCV's warpAffine, image by image, into one batch."
    out, flags = np.empty_like(case.x), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for image, matrix, result in zip(case.x, matrices[:, :2], out, strict=True):
        cv2.warpAffine(image, matrix, (case.side, case.side), dst=result, flags=flags)
    return out


def rotate(case: Case) -> dict:
    "An angle for each image."

    def matrices():
        return augment.affine_matrix((case.side, case.side), rotation=case.angles)

    turn = partial(V.rotate, interpolation=v2.InterpolationMode.BILINEAR)
    calls = {
        "ours": lambda: augment.rotate(case.x, case.angles, fill_mode="grid-constant"),
        "torchvision": case.each(turn, case.angles.tolist()),
        "OpenCV": lambda: warped(case, matrices()),
    }
    if case.is_float:
        angles = torch.from_numpy(case.angles.astype(np.float32))
        calls["grid_sample"] = lambda: sampled(case, matrices())
        calls["kornia"] = lambda: kornia.geometry.rotate(case.t, angles)
    return calls


def affine(case: Case) -> dict:
    "Rotation, shift by whole pixels and zoom, for each image."
    zoom = np.linspace(0.8, 1.2, BATCH)

    def matrices():
        size, shift = (case.side, case.side), tuple(case.shifts.T)
        return augment.affine_matrix(size, rotation=case.angles, shift=shift, zoom=zoom)

    def of_torchvision(image, angle, shift, scale):
        return V.affine(image, -angle, shift, scale, [0.0], interpolation=v2.InterpolationMode.BILINEAR)

    shifts = [list(map(int, s)) for s in case.shifts]
    calls = {
        "ours": lambda: augment.warp(case.x, matrices(), fill_mode="grid-constant"),
        "torchvision": case.each(of_torchvision, case.angles.tolist(), shifts, zoom.tolist()),
        "OpenCV": lambda: warped(case, matrices()),
    }
    if case.is_float:
        forward = torch.from_numpy(np.linalg.inv(matrices())[:, :2].astype(np.float32))
        side = (case.side, case.side)
        calls["grid_sample"] = lambda: sampled(case, matrices())
        calls["kornia"] = lambda: kornia.geometry.warp_affine(case.t, forward, side, align_corners=True)
    return calls


def hflip(case: Case) -> dict:
    "The whole batch."
    calls = {"ours": lambda: augment.hflip(case.x), "torchvision": lambda: V.horizontal_flip(case.t)}
    calls["OpenCV"] = lambda: [cv2.flip(image, 1) for image in case.x]
    return calls | ({"kornia": lambda: kornia.geometry.hflip(case.t)} if case.is_float else {})


def vflip(case: Case) -> dict:
    "The whole batch."
    calls = {"ours": lambda: augment.vflip(case.x), "torchvision": lambda: V.vertical_flip(case.t)}
    calls["OpenCV"] = lambda: [cv2.flip(image, 0) for image in case.x]
    return calls | ({"kornia": lambda: kornia.geometry.vflip(case.t)} if case.is_float else {})


def random_crop(case: Case) -> dict:
    "Four pixels of zeros around each image, then a crop of its size."
    size = (case.side, case.side)
    calls = {
        "ours": lambda: augment.random_crop(case.x, size, case.rng, padding=4, fill_mode="grid-constant"),
        "torchvision": case.each(v2.RandomCrop(size, padding=4)),
    }
    if case.is_float:
        crop = kornia.augmentation.RandomCrop(size, padding=4, p=1.0, cropping_mode="slice")
        calls["kornia"] = lambda: crop(case.t)
    return calls


def resize(case: Case) -> dict:
    "To half the side, without aliasing."
    half = (case.side // 2, case.side // 2)
    calls = {
        "ours": lambda: augment.resize(case.x, half),
        "torchvision": lambda: V.resize(case.t, list(half), antialias=True),
    }
    if case.is_float:
        calls["kornia"] = lambda: kornia.geometry.resize(case.t, half, antialias=True)
    return calls


def random_resized_crop(case: Case) -> dict:
    "A box for each image, resized to the size of the image without aliasing."
    size = (case.side, case.side)
    calls = {
        "ours": lambda: augment.random_resized_crop(case.x, size, case.rng),
        "torchvision": case.each(v2.RandomResizedCrop(size, antialias=True)),
    }
    if case.is_float:
        crop = kornia.augmentation.RandomResizedCrop(size, p=1.0, cropping_mode="resample")
        calls["kornia"] = lambda: crop(case.t)
    return calls


def one_number(ours: str, theirs: str, of_kornia: str | None, value=None, kornia_value=None) -> Callable:
    "The case of an operation whose number is one for the batch."

    def make(case: Case) -> dict:
        at = [] if value is None else [value(case) if callable(value) else value]
        calls = {"ours": lambda: getattr(augment, ours)(case.x, *at)}
        calls["torchvision"] = lambda: getattr(V, theirs)(case.t, *at)
        if of_kornia and case.is_float:
            other = at if kornia_value is None else [kornia_value]
            calls["kornia"] = lambda: getattr(kornia.enhance, of_kornia)(case.t, *other)
        return calls

    return make


def grayscale(case: Case) -> dict:
    "Three equal channels."
    calls = {"ours": lambda: augment.grayscale(case.x)}
    calls["torchvision"] = lambda: V.rgb_to_grayscale(case.t, num_output_channels=3).contiguous()  # else it is a view
    if case.is_float:
        calls["kornia"] = lambda: kornia.color.rgb_to_grayscale(case.t).expand(-1, 3, -1, -1).contiguous()
    return calls


def random_erasing(case: Case) -> dict:
    "A box of zeros in each image."
    calls = {
        "ours": lambda: augment.random_erasing(case.x, case.rng, probability=1.0),
        "torchvision": case.each(v2.RandomErasing(p=1.0)),
    }
    return calls | ({"kornia": partial(kornia.augmentation.RandomErasing(p=1.0), case.t)} if case.is_float else {})


def mixup(case: Case) -> dict:
    "Images and one-hot targets of ten classes, one share for the batch."
    labels = np.arange(BATCH) % 10
    of_torch, targets = v2.MixUp(num_classes=10), torch.from_numpy(labels)
    if not case.is_float:
        return {}  # torchvision refuses integers
    return {
        "ours": lambda: augment.mixup(case.x, labels, case.rng, classes=10),
        "torchvision": lambda: of_torch(case.t, targets),
    }


def trivial_augment(case: Case) -> dict:
    "An operation for each image."
    policy = v2.TrivialAugmentWide()
    return {"ours": lambda: augment.trivial_augment(case.x, case.rng), "torchvision": case.each(policy)}


def rand_augment(case: Case) -> dict:
    "Two operations of magnitude 9 of 31 for each image."
    policy = v2.RandAugment()
    return {"ours": lambda: augment.rand_augment(case.x, case.rng), "torchvision": case.each(policy)}


def _middle(case: Case):
    return 0.5 if case.is_float else 128


OPERATIONS = {
    "rotate": rotate,
    "affine": affine,
    "horizontal flip": hflip,
    "vertical flip": vflip,
    "random crop": random_crop,
    "resize to half": resize,
    "random resized crop": random_resized_crop,
    "brightness": one_number("adjust_brightness", "adjust_brightness", "adjust_brightness_accumulative", 1.3),
    "contrast": one_number("adjust_contrast", "adjust_contrast", "adjust_contrast_with_mean_subtraction", 1.3),
    "saturation": one_number("adjust_saturation", "adjust_saturation", "adjust_saturation_with_gray_subtraction", 1.3),
    "hue": one_number("adjust_hue", "adjust_hue", "adjust_hue", 0.1, 0.6283185),
    "sharpness": one_number("adjust_sharpness", "adjust_sharpness", "sharpness", 1.5),
    "grayscale": grayscale,
    "posterize": one_number("posterize", "posterize", "posterize", 4),
    "solarize": one_number("solarize", "solarize", "solarize", _middle),
    "autocontrast": one_number("autocontrast", "autocontrast", "normalize_min_max"),
    "equalize": one_number("equalize", "equalize", "equalize"),
    "random erasing": random_erasing,
    "mixup": mixup,
    "trivial augment": trivial_augment,
    "rand augment": rand_augment,
}


def measured(name: str, side: int, dtype: str, cores: int, rounds: int) -> dict:
    "The samples of one operation, ours and the peers', in turns."
    calls = OPERATIONS[name](Case(side, dtype))
    busy = wait_until_idle()
    cv2.setNumThreads(cores)
    with threads(cores):
        seconds = compare_all(calls, rounds, at_least=0.01) if calls else {}
    return {"operation": name, "side": side, "dtype": dtype, "threads": cores, "busy": busy, "seconds": seconds}


def against(sample: dict, peers: tuple[str, ...]) -> tuple[str, Comparison] | None:
    "The fastest of these peers, and ours beside it."
    seconds = sample["seconds"]
    found = [peer for peer in peers if peer in seconds]
    fastest = min(found, key=lambda peer: median(seconds[peer]), default=None)
    return fastest and (fastest, Comparison(seconds["ours"], seconds[fastest]))


def cell(sample: dict, peers: tuple[str, ...]) -> str:
    "The ratio, and to whom."
    found = against(sample, peers)
    return "–" if found is None else f"{found[1]} {found[0]}"


def rows(samples: list[dict]) -> list[list]:
    "Lines of the table: one for an operation, dtype and number of threads, and one for OpenCV's where it has it."
    table, width = [], len(SIZES)
    for i in range(0, len(samples), width):
        line = samples[i : i + width]
        for peers in (PEERS, ("OpenCV",)):
            if any(against(s, peers) for s in line):
                head = [line[0][key] for key in ("operation", "dtype", "threads")]
                rate = [f"{BATCH / median(s['seconds']['ours']):,.0f}" for s in line]
                table.append(head + [cell(s, peers) for s in line] + [" / ".join(rate)])
    return table


def run(rounds: int = ROUNDS) -> dict:
    "Measure every operation at every size."
    cores = sorted({1, num_threads()})
    asked = [(o, s, d, c) for o in OPERATIONS for d in ("uint8", "float32") for c in cores for s in SIZES]
    samples = [measured(*one, rounds) for one in asked]
    sides = [f"{s} x {s}, peer / ours" for s in SIZES]
    columns = ["Operation", "Images", "Threads", *sides, "Ours, images/s"]
    result = {"title": "Augmentation: single operations", "about": ABOUT, "columns": columns, "notes": NOTES}
    return result | {"rows": rows(samples), "raw": {"samples": samples}}
