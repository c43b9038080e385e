"""Planted errors: whatever is changed in the functions for image folders, a check notices it."""

import inspect
import os
import tempfile
from pathlib import Path

import pytest
from planted import REST, definitions, load, survivors
from test_image_folders import (
    ALL,
    FOREIGN,
    FORMATS,
    UNSUPPORTED,
    Image,
    bad_pixels,
    damaged,
    drafts,
    drafts_large_files,
    fault,
    finds,
    follows_links,
    ignores_what_is_hidden,
    keeps_keras_middle,
    keeps_the_middle,
    kinds,
    lists_as_keras,
    looks_quickly,
    of_size,
    reads_batches,
    reads_odd_files,
    reads_or_refuses,
    reads_resized,
    refuses_folders,
    refuses_options,
    reports_everything_at_once,
    scales_sixteen_bits,
    skips,
    splits_classes,
    tells_good_from_bad,
    within,
    write,
)

from dlopt_course import data

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")
SOME_DAMAGED = {name: content for name, content in sorted(damaged().items()) if name.split("-")[1] in ("jpg", "png")}
SOME_ODD = ["la.png", "p-alpha.png", "lab.tif", "deep.ppm", "deep-big.tif", "damaged-exif.jpg", "png-called.jpg"]
SOME_ODD += [f"turned-{n}.{form}" for n in range(1, 9) for form in ("jpg", "png")] + ["turned-6.tif", "mpo.jpg"]


def in_folders(*checks):
    "A battery of checks that get the module and an empty folder."

    def battery(module):
        with tempfile.TemporaryDirectory() as home:
            for number, check in enumerate(checks):
                (Path(home) / str(number)).mkdir()
                check(module, Path(home) / str(number))

    return battery


def names_what_is_bad(module, folder):
    tells_good_from_bad(module, folder / "quick", SOME_DAMAGED | FOREIGN | UNSUPPORTED, "quick")
    tells_good_from_bad(module, folder / "full", SOME_DAMAGED, "full")
    side = int((1.2 * Image.MAX_IMAGE_PIXELS) ** 0.5)
    files = {f"big.{form}": content for form, content in of_size(side, side).items()}
    write(folder / "big" / "class", files)
    assert kinds(fault(module, module.find_images, folder / "big", extensions=ALL)) == dict.fromkeys(files, "gigantic")
    os.mkfifo(folder / "pipe.jpg")
    assert kinds(within(3, lambda: fault(module, module.read_image, folder / "pipe.jpg"))) == {"pipe.jpg": "foreign"}


def reads_odd(module, folder):
    reads_odd_files(module, folder, SOME_ODD)
    for interpolation in ("nearest", "bilinear"):
        reads_resized(module, folder, interpolation)


FOLDERS = in_folders(
    finds,
    splits_classes,
    ignores_what_is_hidden,
    follows_links,
    lists_as_keras,
    reports_everything_at_once,
    skips,
    refuses_folders,
)
CHECKS = in_folders(looks_quickly, reports_everything_at_once, reads_batches, names_what_is_bad, reads_odd)
PIXELS = in_folders(
    keeps_the_middle,  # what takes long comes last
    keeps_keras_middle,
    lambda module, folder: refuses_options(module, write(folder, {"x.png": FORMATS["png"]}) / "x.png"),
    lambda module, folder: reads_or_refuses(module, folder, bad_pixels(9)),
    scales_sixteen_bits,
    reads_batches,
    drafts_large_files,
    reads_odd,
    lambda module, folder: drafts(module, folder, (1,), (1, 6)),
)
BATTERIES = {
    **dict.fromkeys(["ImageFolder", "ImageFolderError", "_shown", "_listed", "_hidden", "_inside", "_Scan"], FOLDERS),
    **dict.fromkeys(["_class_names", "_class_problem", "_class_problems", "_check_directory", "_without"], FOLDERS),
    **dict.fromkeys(["_check_classes", "_check_extensions", "_in_class", "_as_folder", "_warn_of"], FOLDERS),
    **dict.fromkeys(["find_images", "_problems_of"], FOLDERS),
    **dict.fromkeys(["_reader", "_without_waiting", "_check_header", "_format_of", "_opened", "_bad_of"], CHECKS),
    **dict.fromkeys(["_cut_jpeg", "_problem_of"], CHECKS),
    **dict.fromkeys(["_Reading", "_check_reading", "_converted", "_middle", "_resized", "_turn_of", "_turned"], PIXELS),
    **dict.fromkeys(["_deep", "_drafted", "_colours", "_pixels", "_read", "read_image", "_read_into"], PIXELS),
    **dict.fromkeys(["read_images", "_common"], PIXELS),
}
SAMPLE = "two looks of nearly one length tell the same"
EQUIVALENT = {  # function, planted change: why it changes nothing that anybody could see
    ("ImageFolder", "False  ->  True  in  repr=False"): "a class that has a __repr__ keeps it",
    (
        "_problems_of",
        "16  ->  17  in  over_blocks(lambda rows: [_problem_of(path, check) for path in paths[rows]], len(paths), 16)",
    ): "how many files a thread takes at once",
    ("_without_waiting", "0  ->  1  in  getattr(os, 'O_NONBLOCK', 0)"): "only where pipes are no files, as on Windows",
    ("_format_of", "16  ->  17  in  file.read(16)"): SAMPLE,
    ("_cut_jpeg", "1024  ->  1025  in  start + 1024"): SAMPLE,
    ("_problem_of", "1  ->  2  in  (1, 1)"): "an eighth is the smallest part that JPEG has",
    ("_problem_of", "1  ->  2  in  (1, 1)  (2)"): "an eighth is the smallest part that JPEG has",
    (
        "_converted",
        "image.mode == 'P' and 'transparency' in image.info  ->  image.mode == 'P' or 'transparency' in image.info",
    ): "by RGBA all modes come to the same colours, only later",
    ("_deep", "16  ->  17  in  (16,)"): "a TIFF file without that number has one bit",
    ("_pixels", "1  ->  2  in  -1  (2)"): REST,
    ("_pixels", "1  ->  2  in  -1  (3)"): REST,
}


@pytest.mark.parametrize("battery", [FOLDERS, CHECKS, PIXELS], ids=["folders", "checks", "pixels"])
def test_the_batteries_pass_as_it_is(battery):
    battery(load(data))


@pytest.mark.parametrize("name", BATTERIES)
def test_planted_errors_are_caught(name):
    assert survivors(data, name, BATTERIES[name]) == {what for function, what in EQUIVALENT if function == name}


def test_every_function_for_folders_has_a_battery():
    source = inspect.getsource(data)
    first = source.index("class ImageProblem")
    of_folders = {n for n in definitions(data) if any(f"\n{k} {n}" in source[first - 1 :] for k in ("def", "class"))}
    without_computation = {"ImageProblem", "ImageBatch", "_Bad", "_Found"}
    assert of_folders - without_computation == BATTERIES.keys()
    assert {function for function, _ in EQUIVALENT} <= BATTERIES.keys()
