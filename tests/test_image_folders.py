"""Folders of images: what is found, what is reported, and pixels against Keras, Pillow and PyTorch."""

import io
import os
import pickle
import struct
import threading
import warnings
import zlib
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from benchmarks.peers import keras_image
from dlopt_course import data

# a damaged TIFF or EXIF block may make Pillow warn before it raises; where warnings are errors both are one
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (23, 31, 3), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((62, 46), Image.BICUBIC))


# ---------- images in all formats


def saved(image, form, **options):
    out = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(out, form, **options)
    return out.getvalue()


def exif(orientation):
    block = Image.Exif()
    block[274] = orientation
    return block


def animation():
    frames = [Image.fromarray(np.roll(NOISE, 7 * i)).quantize(32) for i in range(3)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def plain_ppm(array):
    return f"P3\n# by hand\n{array.shape[1]} {array.shape[0]}\n255\n{' '.join(map(str, array.ravel()))}\n".encode()


def deep_pgm(gray):
    return b"P5 %d %d 65535\n" % gray.shape[::-1] + gray.astype(">u2").tobytes()


FORMATS = {  # name -> content; every one a good image of NOISE
    "png": saved(NOISE, "PNG"),
    "gray.png": saved(NOISE[..., 0], "PNG"),
    "jpg": saved(NOISE, "JPEG", quality=90),
    "gray.jpeg": saved(NOISE[..., 0], "JPEG", quality=90),
    "progressive.jpg": saved(NOISE, "JPEG", progressive=True),
    "restarts.jpg": saved(NOISE, "JPEG", restart_marker_blocks=1),
    "bmp": saved(NOISE, "BMP"),
    "palette.bmp": saved(Image.fromarray(NOISE).quantize(16), "BMP"),
    "gif": saved(Image.fromarray(NOISE).quantize(64), "GIF"),
    "tif": saved(NOISE, "TIFF"),
    "lzw.tiff": saved(NOISE, "TIFF", compression="tiff_lzw"),
    "deflate.tiff": saved(NOISE, "TIFF", compression="tiff_adobe_deflate"),
    "webp": saved(NOISE, "WEBP"),
    "lossless.webp": saved(NOISE, "WEBP", lossless=True),
    "ppm": saved(NOISE, "PPM"),
    "plain.ppm": plain_ppm(NOISE),
}
ALL = (*data.IMAGE_EXTENSIONS, ".gif", ".webp")


@cache
def odd():
    "Images that are good, but not what one thinks of first: name -> content."
    image, gray = Image.fromarray(NOISE), Image.fromarray(NOISE[..., 1])
    deep = RNG.integers(0, 65536, (23, 31)).astype(np.uint16)
    alpha = Image.merge("RGBA", (*image.split(), gray))
    palette = image.quantize(16)
    found = {
        "rgba.png": saved(alpha, "PNG"),
        "la.png": saved(Image.merge("LA", (gray, image.getchannel(0))), "PNG"),
        "p.png": saved(palette, "PNG"),
        "p-clear.png": saved(palette, "PNG", transparency=3),
        "p-alpha.png": saved(palette, "PNG", transparency=bytes(range(0, 160, 10))),
        "rgb-clear.png": saved(image, "PNG", transparency=tuple(map(int, NOISE[0, 0]))),
        "l-clear.png": saved(gray, "PNG", transparency=7),
        "one-bit.png": saved(image.convert("1"), "PNG"),
        "one-bit.tif": saved(image.convert("1"), "TIFF", compression="group4"),
        "deep.png": saved(deep, "PNG"),
        "deep.tif": saved(deep, "TIFF"),
        "deep-big.tif": saved(Image.frombytes("I;16B", (31, 23), deep.astype(">u2").tobytes()), "TIFF"),
        "deep.ppm": deep_pgm(deep),
        "cmyk.jpg": saved(image.convert("CMYK"), "JPEG"),
        "cmyk.tif": saved(image.convert("CMYK"), "TIFF"),
        "lab.tif": saved(Image.frombytes("LAB", (31, 23), NOISE.tobytes()), "TIFF"),
        "ycbcr.tif": saved(image.convert("YCbCr"), "TIFF", compression="jpeg"),
        "mpo.jpg": saved(image, "MPO", save_all=True, append_images=[image]),
        "animated.gif": animation(),
        "animated.webp": saved(image, "WEBP", save_all=True, append_images=[gray.convert("RGB")], lossless=True),
        "animated.png": saved(image, "PNG", save_all=True, append_images=[gray.convert("RGB")]),
        "tail.jpg": FORMATS["jpg"] + b"left by a camera",
        "png-called.jpg": FORMATS["png"],
        "jpeg-called.png": FORMATS["jpg"],
        "webp-called.bmp": FORMATS["webp"],
        "LOUD.JPG": FORMATS["jpg"],
        "with space.and.dots.png": FORMATS["png"],
        "line\nbreak\t.png": FORMATS["png"],
        "umlaut-ä-漢字-🐈.png": FORMATS["png"],
        os.fsdecode(b"no-utf8-\xff\xfe.png"): FORMATS["png"],
        "-rf *.png": FORMATS["png"],
        "damaged-exif.jpg": saved(image, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"),
        "no-exif.jpg": saved(image, "JPEG", exif=b"Exif\0\0nothing of the kind"),
        "orientation-9.jpg": saved(image, "JPEG", exif=exif(9)),
    }
    for n in range(1, 9):
        found[f"turned-{n}.jpg"] = saved(SMOOTH, "JPEG", exif=exif(n))
        found[f"turned-{n}.png"] = saved(SMOOTH, "PNG", exif=exif(n))
        found[f"turned-{n}.webp"] = saved(SMOOTH, "WEBP", exif=exif(n))
        found[f"turned-{n}.tif"] = saved(SMOOTH, "TIFF", tiffinfo={274: n})
    for name in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"):
        found[f"pixel-{name}.{'tif' if name == 'TIFF' else name.lower()}"] = saved(NOISE[:1, :1], name)
    return found


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of_size(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def replaced(content, at, form, *values):
    new = struct.pack(form, *values)
    return content[:at] + new + content[at + len(new) :]


def tiff_of_size(width, height):
    content = FORMATS["tif"]
    info = Image.open(io.BytesIO(content)).tag_v2
    start = info._offset if hasattr(info, "_offset") else struct.unpack_from("<I", content, 4)[0]
    for entry in range(struct.unpack_from("<H", content, start)[0]):
        at = start + 2 + 12 * entry
        tag = struct.unpack_from("<H", content, at)[0]
        if tag in (256, 257):
            content = replaced(content, at, "<HHII", tag, 4, 1, width if tag == 256 else height)
    return content


def jpeg_of_size(width, height):
    content = FORMATS["jpg"]
    return replaced(content, content.index(b"\xff\xc0") + 5, ">HH", height, width)


def of_size(width, height):
    "Headers that claim a size, in each format that can claim it."
    return {
        "png": png_of_size(width, height),
        "jpg": jpeg_of_size(width % 65536, height % 65536),
        "bmp": replaced(FORMATS["bmp"], 18, "<ii", width, height),
        "gif": replaced(FORMATS["gif"], 6, "<HH", width % 65536, height % 65536),
        "tif": tiff_of_size(width, height),
        "ppm": b"P6 %d %d 255\n" % (width, height) + bytes(60),
    }


def webp_of_size(width, height):
    "An animation on a canvas of that size; each side minus 1 has 24 bits."
    content = odd()["animated.webp"]
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return content[:24] + sides + content[30:]


FOREIGN = {
    "empty.jpg": b"",
    "one-byte.png": b"\x89",
    "zeros.jpg": bytes(5000),
    "text.jpg": b"This is not an image.\n" * 20,
    "python.ppm": b"Python is a language, and P5 a format.",
    "bmw.bmp": b"BMW builds cars, and this is a text.",
    "page.jpg": b"<!DOCTYPE html><title>404 Not Found</title>",
    "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
    "archive.png": b"PK\x03\x04" + bytes(100),
    "script.jpg": b"#!/bin/sh\nrm -rf /\n",
    "paper.jpg": b"%PDF-1.7\n" + bytes(100),
    "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "icon.png": saved(NOISE[:16, :16], "ICO"),
    "photoshop.tif": b"8BPS\0\1" + bytes(100),
    "vector.png": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "thumbs.jpg": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100),
    "random.jpg": RNG.bytes(500),
}
UNSUPPORTED = {
    "float.tif": saved(RNG.random((5, 6)).astype(np.float32), "TIFF"),
    "whole.tif": saved(RNG.integers(0, 2**31, (5, 6)).astype(np.int32), "TIFF"),
    "float.ppm": b"Pf\n6 5\n-1.0\n" + bytes(120),
}


def places(length):
    "Where a file is cut off."
    return sorted({0, 1, 5, length - 1, length - 2, length - 12, *(length * k // 8 for k in range(1, 8))})


@cache
def damaged():
    "Files that are cut off, and files with a flipped bit: name -> content."
    found = {}
    for name, content in FORMATS.items():
        extension = "." + name.rpartition(".")[2]
        for at in places(len(content)):
            found[f"cut-{name.replace('.', '-')}-{at}{extension}"] = content[:at]
        for at in (0, 3, 7, 12, 16, 18, 20, 22, 26, 40, 90, 162, len(content) // 2, len(content) - 2):
            flipped = bytearray(content)
            flipped[at] ^= 1 << at % 8
            found[f"flip-{name.replace('.', '-')}-{at}{extension}"] = bytes(flipped)
    return found


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def two_classes(folder):
    "Three cats and two dogs."
    write(folder / "cats", {"b.png": FORMATS["png"], "a.jpg": FORMATS["jpg"], "c.bmp": FORMATS["bmp"]})
    write(folder / "dogs", {"2.ppm": FORMATS["ppm"], "1.tif": FORMATS["tif"]})
    return folder


def within(seconds, work):
    "The result of `work()`, or a failure if it hangs."
    results = []

    def run():
        try:
            results.append((work(), None))
        except BaseException as error:
            results.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, "it hangs"
    if results[0][1] is not None:
        raise results[0][1]
    return results[0][0]


def fault(data, work, *arguments, **options):
    "The ImageFolderError that is raised."
    with pytest.raises(data.ImageFolderError) as caught:
        work(*arguments, **options)
    return caught.value


def kinds(error):
    return {os.path.basename(p.path): p.kind for p in error.problems}


# ---------- pixels as Pillow itself has them


def by_pillow(content, mode="RGB"):
    "The first picture of a file, turned as its note says, or None where Pillow cannot."
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            turned = ImageOps.exif_transpose(image)
            if turned.mode in ("I;16", "I;16B", "I"):
                gray = np.rint(np.asarray(turned) / 257).astype(np.uint8)
                turned = Image.fromarray(gray)
            elif turned.mode == "P":
                turned = turned.convert("RGBA")
            elif turned.mode == "LAB":
                turned = turned.convert("RGB")
            return np.asarray(turned.convert(mode)).reshape(*turned.size[::-1], -1)
    except Exception:
        return None


MODES = {"rgb": "RGB", "rgba": "RGBA", "grayscale": "L"}


def reads_odd_files(data, folder, names=None):
    write(folder, {name: odd()[name] for name in names or odd()})
    for name in names or odd():
        if name == "p-alpha.png":  # Pillow would warn, and so would Keras
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                data.read_image(folder / name)
        content = saved(NOISE, "JPEG") if "exif" in name else odd()[name]  # a damaged note on orientation is no note
        for mode, key in MODES.items():
            ours = data.read_image(folder / name, color_mode=mode)
            assert ours.dtype == np.uint8
            np.testing.assert_array_equal(ours, by_pillow(content, key), err_msg=f"{name} {mode}")


def test_odd_images_are_read_as_they_are(tmp_path):
    reads_odd_files(data, tmp_path / "odd" / "class")
    for check in ("quick", "full"):
        found = data.find_images(tmp_path / "odd", extensions=ALL, check=check)
        assert len(found) == len(odd())


@pytest.mark.parametrize("n", range(1, 9))
def test_every_orientation_is_upright(n, tmp_path):
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[n]
    stored = Image.fromarray(SMOOTH) if back is None else Image.fromarray(SMOOTH).transpose(back)
    (tmp_path / "x.png").write_bytes(saved(stored, "PNG", exif=exif(n)))
    np.testing.assert_array_equal(data.read_image(tmp_path / "x.png"), SMOOTH)


# ---------- at least two hundred damaged files


def tells_good_from_bad(data, folder, files, check):
    "Each file is either left out with a reason, or read as Pillow reads it; a cut one only if nothing is missing."
    write(folder / "class", files | {"good.png": FORMATS["png"]})
    try:
        data.find_images(folder, extensions=ALL, check=check)
        problems = {}
    except data.ImageFolderError as error:
        problems = {os.path.basename(p.path): p for p in error.problems}
    assert not problems.keys() - files.keys()
    for name, content in files.items():
        expected = by_pillow(content)
        if name in problems:
            assert problems[name].kind in ("foreign", "damaged", "gigantic", "unsupported", "unreadable")
            assert problems[name].reason
            assert expected is None or name.startswith(("flip-", "cut-")) or name in FOREIGN | UNSUPPORTED, name
            continue
        if expected is None:  # what the quick look cannot see is seen when the file is read
            assert check == "quick"
            assert not name.startswith("cut-"), name
            assert kinds(fault(data, data.read_image, folder / "class" / name))[name] == "damaged"
            continue
        np.testing.assert_array_equal(data.read_image(folder / "class" / name), expected, err_msg=name)
        if name.startswith("cut-") and "plain" not in name:  # the last number of a text may be 8, where 81 was cut
            original = FORMATS[name.split("-", 1)[1].rsplit("-", 1)[0].replace("-", ".")]
            np.testing.assert_array_equal(expected, by_pillow(original), err_msg=name)
    return problems


@pytest.mark.parametrize("check", ["quick", "full"])
def test_damaged_files_are_named(check, tmp_path):
    files = damaged() | FOREIGN | UNSUPPORTED
    assert len(damaged()) > 200
    problems = within(120, lambda: tells_good_from_bad(data, tmp_path, files, check))
    assert all(problems[name].kind == "foreign" for name in FOREIGN)
    assert all(problems[name].kind == "unsupported" for name in UNSUPPORTED)
    cut = {name for name in damaged() if name.startswith("cut-")}
    harmless = {name for name in cut if name not in problems}
    assert len(harmless) <= 16, sorted(harmless)  # padding, or a mark of the end that nobody needs
    assert all(problems[name].kind in ("foreign", "damaged") for name in cut - harmless)


def reads_or_refuses(data, folder, files):
    "Without a look at the folder before: the pixels that Pillow has, or an error where Pillow has one."
    write(folder, files)
    for name, content in files.items():
        expected = by_pillow(content)
        if expected is None:
            assert kinds(fault(data, data.read_image, folder / name)).keys() == {name}, name
            with pytest.raises(data.ImageFolderError):
                data.read_images([folder / name], (9, 9))
        else:
            np.testing.assert_array_equal(data.read_image(folder / name), expected, err_msg=name)


def bad_pixels(step=1):
    "Images with one wrong bit among their packed pixels; of a PNG, a checksum tells: name -> content."
    whole = {"rgb": NOISE, "gray": NOISE[..., 0], "palette": Image.fromarray(NOISE).quantize(16)}
    found = {}
    for kind, image in whole.items():
        content = saved(image, "PNG")
        first, last = content.index(b"IDAT") + 6, content.index(b"IEND") - 12
        for at in range(first, last, max(1, (last - first) * step // 60)):
            found[f"{kind}-{at}.png"] = replaced(content, at, "B", content[at] ^ 4)
    return found


def test_damaged_files_are_refused_by_the_reader_too(tmp_path):
    files = {name: content for name, content in damaged().items() if not name.startswith("cut-plain")}
    assert {by_pillow(content) is None for content in bad_pixels().values()} == {True}
    reads_or_refuses(data, tmp_path, files | bad_pixels())


# ---------- gigantic and empty images, kinds of pixels, pipes


@pytest.mark.parametrize("factor", [1.2, 3])  # Pillow warns of the one, and raises at the other
def test_gigantic_images_are_not_unpacked(factor, tmp_path, recwarn):
    side = int((factor * Image.MAX_IMAGE_PIXELS) ** 0.5)
    files = {f"big.{form}": content for form, content in of_size(side, side).items()} | {
        "big.webp": webp_of_size(side, side)
    }
    write(tmp_path / "class", files)
    error = within(60, lambda: fault(data, data.find_images, tmp_path, extensions=ALL))
    assert kinds(error) == dict.fromkeys(files, "gigantic")
    assert f"{side} x {side} pixels; the limit is {Image.MAX_IMAGE_PIXELS}" in str(error)
    for name in files:
        assert kinds(fault(data, data.read_image, tmp_path / "class" / name)) == {name: "gigantic"}
    assert not recwarn


def test_pillows_limit_can_be_changed(tmp_path, monkeypatch):
    two_classes(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 23 * 31 - 1)
    assert set(kinds(fault(data, data.find_images, tmp_path)).values()) == {"gigantic"}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 23 * 31)
    assert len(data.find_images(tmp_path)) == 5
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert len(data.find_images(tmp_path)) == 5


def test_images_without_pixels_are_damaged(tmp_path):
    files = {f"{width}.{form}": c for width, height in ((0, 5), (5, 0)) for form, c in of_size(width, height).items()}
    del files["0.gif"], files["5.gif"]  # its picture has a size of its own
    write(tmp_path / "class", files)
    assert kinds(fault(data, data.find_images, tmp_path, extensions=ALL)) == dict.fromkeys(files, "damaged")


def test_pipes_directories_and_devices(tmp_path):
    two_classes(tmp_path)
    os.mkfifo(tmp_path / "cats" / "pipe.jpg")
    (tmp_path / "cats" / "device.png").symlink_to("/dev/zero")
    (tmp_path / "cats" / "refused.png").symlink_to("/proc/self/mem")  # the system gives no byte of it
    write(tmp_path / "cats" / "folder.png", {"inside.png": FORMATS["png"]})
    error = within(20, lambda: fault(data, data.find_images, tmp_path, follow_links=True))
    assert kinds(error) == {"pipe.jpg": "foreign", "device.png": "foreign", "refused.png": "unreadable"}
    for name in kinds(error):
        within(20, lambda name=name: fault(data, data.read_image, tmp_path / "cats" / name))
    with pytest.warns(UserWarning, match="3 problems"):
        found = data.find_images(tmp_path, follow_links=True, on_error="skip")
    assert "cats/folder.png/inside.png" in found.filenames
    assert kinds(fault(data, data.read_image, tmp_path / "cats")) == {"cats": "unreadable"}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_no_permission(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cats" / "a.jpg").chmod(0)
    (tmp_path / "dogs").chmod(0)
    try:
        error = fault(data, data.find_images, tmp_path)
    finally:
        (tmp_path / "dogs").chmod(0o700)
    assert kinds(error) == {"a.jpg": "unreadable", "dogs": "unreadable"}


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    two_classes(tmp_path)
    list_folder = os.scandir

    def refuse(path):
        if str(path).endswith("dogs"):
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert kinds(fault(data, data.find_images, tmp_path)) == {"dogs": "unreadable"}


# ---------- what is in a folder


def finds(data, folder):
    two_classes(folder)
    found = data.find_images(folder)
    assert found.classes == ("cats", "dogs")
    assert found.filenames == ["cats/a.jpg", "cats/b.png", "cats/c.bmp", "dogs/1.tif", "dogs/2.ppm"]
    assert found.labels.tolist() == [0, 0, 0, 1, 1]
    assert found.labels.dtype == np.int32
    assert found.class_indices == {"cats": 0, "dogs": 1}
    assert found.filepaths == [os.path.join(folder, name) for name in found.filenames]
    assert (len(found), found.skipped, found.ignored, found.directory) == (5, (), {}, str(folder))
    assert repr(found) == f"ImageFolder('{folder}': 3 cats, 2 dogs)"
    swapped = data.find_images(str(folder), classes=["dogs", "cats"])
    assert swapped.filenames == found.filenames[3:] + found.filenames[:3]
    assert swapped.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.find_images(folder, classes=("dogs",)).filenames == found.filenames[3:]
    assert data.find_images(folder, num_classes=2, check=None).filenames == found.filenames
    assert data.find_images(folder, extensions=(".BMP", ".tif")).filenames == ["cats/c.bmp", "dogs/1.tif"]
    assert found != data.find_images(folder)
    with pytest.raises(AttributeError):
        found.classes = ()
    write(folder / "cats", {"d.png": b""})
    assert len(data.find_images(folder, check=None)) == 6


def lists_as_keras(data, folder):
    "Keras's order, as a test below finds it: folders by their whole path, hidden ones too, endings without a dot."
    found = data.find_images(messy(folder), keras_compat=True)
    assert found.classes == (".class", "cats", "dogs", "empty", "linked")
    assert data.find_images(folder, classes=[], keras_compat=True).filenames == found.filenames
    whole = data.find_images(folder, classes=["."], keras_compat=True)  # a folder of pictures of no class
    assert (whole.classes, set(whole.labels.tolist())) == ((".",), {0})
    nested = ["a-b", "a", "a/b", "z"]
    inside = [f"cats/{name}/{n}" for name in sorted(nested) for n in (".h.png", "1.jpeg", "x.PNG")]
    own = [f"cats/{n}" for n in ("10.png", "9.png", "a.jpg", "b.png", "c.bmp", "nodotpng")]
    assert [n for n in found.filenames if n.startswith("cats/")] == own + inside
    assert [n for n in found.filenames if n.startswith("linked/")][:2] == ["linked/.h.png", "linked/1.jpeg"]


def test_compatible_order(tmp_path):
    lists_as_keras(data, tmp_path)


def test_classes_and_files_in_order(tmp_path):
    finds(data, tmp_path)


def ignores_what_is_hidden(data, folder):
    two_classes(folder)
    write(folder / ".git", {"x.png": FORMATS["png"]})
    for name in ("__MACOSX", "lost+found"):
        write(folder / name, {"a.jpg": b"no image"})
    write(folder / "cats" / ".thumbnails", {"a.jpg": b"no image"})
    write(folder / "cats" / "@eaDir", {"a.jpg": b"no image"})
    write(folder / "dogs", {"._2.png": b"no image", "Thumbs.db": b"", "list": b"", "b.TXT": b"", "c.txt": b""})
    write(folder, {"stray.png": b"no image"})
    found = data.find_images(folder)
    assert len(found) == 5
    assert found.ignored == {"hidden": 3, ".db": 1, "": 1, ".txt": 2}
    assert data.find_images(folder, classes=[".git"]).filenames == [".git/x.png"]


def test_hidden_folders_are_no_class(tmp_path):
    ignores_what_is_hidden(data, tmp_path)


def messy(folder):
    "Nested folders, names that sort oddly, hidden ones, links to files and folders inside."
    two_classes(folder)
    for name in ("cats/z", "cats/a/b", "cats/a-b", "cats/a", "dogs/.hidden", ".class", "empty"):
        write(
            folder / name, {"x.PNG": FORMATS["png"], "1.jpeg": FORMATS["jpg"], ".h.png": FORMATS["png"], "y.txt": b""}
        )
    for path in (folder / "empty").iterdir():
        path.unlink()
    write(folder / "cats", {"nodotpng": FORMATS["png"], "10.png": FORMATS["png"], "9.png": FORMATS["png"]})
    (folder / "dogs" / "alias.png").symlink_to("../cats/b.png")
    (folder / "dogs" / "linked").symlink_to("../cats/z")
    (folder / "linked").symlink_to("cats/a")
    return folder


@pytest.fixture(scope="module")
def keras():
    return keras_image()


@pytest.mark.parametrize("follow_links", [False, True])
@pytest.mark.parametrize("classes", [None, ["dogs", "cats", "nowhere"]])
def test_compatible_mode_lists_what_keras_lists(keras, follow_links, classes, tmp_path, capsys):
    messy(tmp_path)
    for start, stop, subset in ((0, 1, None), (0, 0.4, "validation"), (0.4, 1, "training")):
        generator = keras.ImageDataGenerator(validation_split=0.4)
        options = {"classes": classes, "follow_links": follow_links}
        theirs = generator.flow_from_directory(tmp_path, class_mode="sparse", subset=subset, **options)
        ours = data.find_images(tmp_path, keras_compat=True, **options).part(start, stop)
        assert ours.filenames == theirs.filenames
        assert ours.filepaths == theirs.filepaths
        assert ours.class_indices == theirs.class_indices
        np.testing.assert_array_equal(ours.labels, theirs.classes)
        assert ours.labels.dtype == theirs.classes.dtype


def test_order_is_keras_order(keras, tmp_path, capsys):
    messy(tmp_path)
    theirs = keras.ImageDataGenerator().flow_from_directory(tmp_path, classes=["cats", "dogs"])
    named = [n for n in theirs.filenames if n.lower().endswith(data.IMAGE_EXTENSIONS)]
    ours = data.find_images(tmp_path, classes=["cats", "dogs"])
    assert ours.filenames == [n for n in named if "/." not in n]


def follows_links(data, folder):
    inside, outside = two_classes(folder / "in"), write(folder / "out", {"o.png": FORMATS["png"]})
    (inside / "cats" / "file-in.png").symlink_to("../dogs/2.ppm")
    (inside / "cats" / "folder-in").symlink_to("../dogs")
    (inside / "cats" / "nested").mkdir()
    (inside / "cats" / "nested" / "up").symlink_to("../..")
    (inside / "cats" / "nested" / "self").symlink_to(".")
    (inside / "birds").symlink_to("cats")
    plain = [f"{c}/{n}" for c in ("birds", "cats") for n in ("a.jpg", "b.png", "c.bmp", "file-in.png")]
    plain += ["dogs/1.tif", "dogs/2.ppm"]
    assert data.find_images(inside).filenames == plain
    assert data.find_images(inside).ignored == {"linked folder": 6}
    deep = [f"{c}/folder-in/{n}" for c in ("birds", "cats") for n in ("1.tif", "2.ppm")]
    assert sorted(data.find_images(inside, follow_links=True).filenames) == sorted(plain + deep)
    (inside / "cats" / "same").symlink_to("../dogs")  # the first name is taken
    assert sorted(data.find_images(inside, follow_links=True).filenames) == sorted(plain + deep)
    (inside / "dogs" / "file.png").symlink_to(outside / "o.png")
    (inside / "dogs" / "folder").symlink_to(outside)
    (inside / "dogs" / "notes.txt").symlink_to("/etc/hostname")
    (inside / "fish").symlink_to(outside)
    error = fault(data, data.find_images, inside)
    assert kinds(error) == {"file.png": "link", "folder": "link", "fish": "link"}
    assert f"dogs/file.png: leads to {os.path.realpath(outside)}/o.png" in str(error)
    assert "fish/o.png" in data.find_images(inside, follow_links=True).filenames
    assert "dogs/folder/o.png" in data.find_images(inside, follow_links=True).filenames
    (inside / "dogs" / "nowhere.png").symlink_to("gone")
    (inside / "dogs" / "circle.png").symlink_to("circle.png")
    error = fault(data, data.find_images, inside, follow_links=True)
    assert kinds(error) == {"nowhere.png": "unreadable", "circle.png": "unreadable"}


def test_links(tmp_path):
    within(60, lambda: follows_links(data, tmp_path))


def test_a_web_of_links_ends(tmp_path):
    for i in range(9):  # to enter a folder once for every way to it would take 9! steps
        write(tmp_path / "class" / f"d{i}", {"x.png": FORMATS["png"]})
        for k in range(9):
            (tmp_path / "class" / f"d{i}" / f"to{k}").symlink_to(f"../d{k}")
    assert len(within(20, lambda: data.find_images(tmp_path, follow_links=True))) == 9


# ---------- errors


def reports_everything_at_once(data, folder):
    two_classes(folder)
    write(folder / "dogs", {f"cut{i}.jpg": FORMATS["jpg"][:-9] for i in range(7)} | {"page.png": FOREIGN["page.jpg"]})
    write(folder / "birds", {"a.gif": FORMATS["gif"], "b.gif": b"", "c": b""})
    (folder / "birds" / "away.png").symlink_to("/etc/passwd")
    (folder / "fish").mkdir()
    error = fault(data, data.find_images, folder, num_classes=2)
    assert isinstance(error, ValueError)
    assert {kind: len(found) for kind, found in error.by_kind.items()} == {
        "classes": 2,
        "link": 1,
        "foreign": 1,
        "damaged": 7,
    }
    assert len(error.problems) == 11
    lines = str(error).splitlines()
    assert lines[0] == f"{folder}: 11 problems"
    assert lines[2] == "    .: has 4 classes (birds, cats, dogs, fish); expected 2"
    assert lines[3] == "    fish: no image in it; ignored: 0"
    assert lines[-2].startswith("    dogs/cut4.jpg: image file is truncated")
    assert lines[-1] == "    and 2 more"
    assert error.problems[0] == data.ImageProblem("classes", str(folder), lines[2].split(": ", 1)[1])
    copy = pickle.loads(pickle.dumps(error)) if data.__name__ in __import__("sys").modules else error
    assert (str(copy), copy.problems) == (str(error), error.problems)
    (folder / "birds" / "away.png").unlink()
    error = fault(data, data.find_images, folder, classes=["cats", "birds", "nowhere"])
    assert [p.reason for p in error.problems] == [
        "no image in it; ignored: 1 x no extension, 2 x .gif",
        "there is no such folder",
    ]


def test_everything_is_reported_at_once(tmp_path):
    reports_everything_at_once(data, tmp_path)


def skips(data, folder):
    two_classes(folder)
    write(folder / "dogs", {"0.png": b"", "3.jpg": FORMATS["jpg"][:-9]})
    (folder / "cats" / "away.png").symlink_to("/etc/passwd")
    with pytest.warns(UserWarning, match="left out by on_error='skip'; 5 images are left.*3 problems") as caught:
        found = data.find_images(folder, on_error="skip")
    assert caught[0].filename == __file__
    assert found.filenames == ["cats/a.jpg", "cats/b.png", "cats/c.bmp", "dogs/1.tif", "dogs/2.ppm"]
    assert found.labels.tolist() == [0, 0, 0, 1, 1]
    assert [(p.kind, os.path.basename(p.path)) for p in found.skipped] == [
        ("link", "away.png"),
        ("foreign", "0.png"),
        ("damaged", "3.jpg"),
    ]
    for name in ("1.tif", "2.ppm"):
        (folder / "dogs" / name).write_bytes(b"")
    error = fault(data, data.find_images, folder, on_error="skip")
    assert [p.reason for p in error.by_kind["classes"]] == ["no good image is left in it"]
    assert len(error.problems) == 6


def test_skip_leaves_out_files_and_says_so(tmp_path):
    skips(data, tmp_path)


def refuses_folders(data, folder):
    with pytest.raises(FileNotFoundError, match="directory .*nowhere does not exist"):
        data.find_images(folder / "nowhere")
    (folder / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="file is a file; expected a folder"):
        data.find_images(folder / "file")
    (folder / "empty").mkdir()
    for on_error in ("raise", "skip"):
        error = fault(data, data.find_images, folder / "empty", on_error=on_error)
        assert str(error).endswith(".: holds no folder; each class is a folder of images")
        assert str(error).startswith(f"{folder / 'empty'}: 1 problem\n")
    two_classes(folder / "two")
    for options, kind, message in (
        ({"on_error": "ignore"}, ValueError, "on_error must be one of 'raise', 'skip', got 'ignore'"),
        ({"check": "none"}, ValueError, "check must be one of 'quick', 'full', None"),
        ({"classes": []}, ValueError, "classes must be different names"),
        ({"classes": ["cats", "cats"]}, ValueError, "classes must be different names"),
        ({"classes": ["../two"]}, ValueError, "classes must be different names"),
        ({"classes": [".."]}, ValueError, "classes must be different names"),
        ({"classes": ["."]}, ValueError, "classes must be different names"),
        ({"classes": [""]}, ValueError, "classes must be different names"),
        ({"classes": ["a\0"]}, ValueError, "classes must be different names"),
        ({"classes": "cats"}, TypeError, "classes must be a list of names of folders, got 'cats'"),
        ({"classes": [1]}, TypeError, "classes must be a list"),
        ({"classes": 3}, TypeError, "classes must be a list"),
        ({"extensions": ".png"}, TypeError, "extensions must be a tuple"),
        ({"extensions": (1,)}, TypeError, "extensions must be a tuple"),
        ({"extensions": ()}, ValueError, "extensions must be endings"),
        ({"extensions": ("png",)}, ValueError, "extensions must be endings"),
        ({"extensions": (".",)}, ValueError, "extensions must be endings"),
        ({"extensions": (".z",)}, data.ImageFolderError, "no image in it"),
        ({"num_classes": 0}, ValueError, "num_classes must be a whole number from 1"),
        ({"num_classes": 3}, data.ImageFolderError, "has 2 classes"),
    ):
        with pytest.raises(kind, match=message):
            data.find_images(folder / "two", **options)
    for directory in (None, b"/tmp", 3):
        with pytest.raises(TypeError, match="directory must be a path"):
            data.find_images(directory)


def test_bad_arguments_and_folders(tmp_path):
    refuses_folders(data, tmp_path)


def test_names_are_shown_so_that_they_can_be_printed(tmp_path):
    names = ["line\nbreak.png", os.fsdecode(b"byte-\xff.png"), "esc\x1b[31m.png"]
    write(tmp_path / "class", dict.fromkeys(names, b"") | {"good.png": FORMATS["png"]})
    error = fault(data, data.find_images, tmp_path)
    str(error).encode()
    assert all(line.isprintable() for line in str(error).splitlines())
    assert len(str(error).splitlines()) == 5


# ---------- reading: pixels


INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")


def keras_pixels(path, color_mode, size, interpolation, keep):
    from keras.utils import img_to_array, load_img

    options = {"target_size": size, "interpolation": interpolation, "keep_aspect_ratio": keep}
    return img_to_array(load_img(path, color_mode=color_mode, **options), dtype="float32")


@pytest.mark.parametrize("name", [n for n in sorted(odd()) if n.isprintable()] + ["float.tif", "whole.tif"])
@pytest.mark.filterwarnings("ignore:Palette images")
def test_compatible_mode_has_keras_pixels(keras, name, tmp_path):
    path = write(tmp_path, {name: (odd() | UNSUPPORTED)[name]}) / name
    for color_mode in MODES:
        for size, keep in ((None, False), ((9, 14), False), ((9, 14), True), ((40, 11), True)):
            for interpolation in INTERPOLATIONS if name in ("rgba.png", "turned-6.jpg") else ("nearest", "bilinear"):
                options = {"color_mode": color_mode, "size": size, "interpolation": interpolation}
                try:
                    theirs = keras_pixels(path, color_mode, size, interpolation, keep)
                except Exception:  # Keras cannot: a box without pixels, or a conversion that Pillow does not have
                    continue
                ours = data.read_image(path, keep_aspect_ratio=keep, keras_compat=True, **options)
                np.testing.assert_array_equal(ours, theirs, err_msg=f"{options} {keep}", strict=True)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_right_mode_is_pillows_antialiased_resize(interpolation, tmp_path):
    reads_resized(data, tmp_path, interpolation)


def reads_resized(data, folder, interpolation):
    images = {
        "turned-6.jpg": odd()["turned-6.jpg"],
        "turned-2.tif": odd()["turned-2.tif"],
        "rgba.png": odd()["rgba.png"],
    }
    write(folder, images)
    for name, content in images.items():
        for mode, key in MODES.items():
            upright = Image.fromarray(by_pillow(content, key).squeeze())
            for height, width in ((9, 14), (40, 17), upright.size[::-1]):
                expected = np.asarray(upright.resize((width, height), Image.Resampling[interpolation.upper()]))
                options = {"color_mode": mode, "interpolation": interpolation, "size": (height, width)}
                ours = data.read_image(str(folder / name), draft=False, **options)
                np.testing.assert_array_equal(ours, expected.reshape(height, width, -1), err_msg=f"{name} {options}")
                wide = data.read_image(folder / name, dtype=np.uint16, **options)
                np.testing.assert_array_equal(wide, ours * np.uint16(257), strict=True)


def test_antialiasing_is_pytorchs(tmp_path):
    (tmp_path / "x.png").write_bytes(saved(SMOOTH, "PNG"))
    tensor = torch.tensor(SMOOTH).permute(2, 0, 1)[None].double()
    for size in ((13, 20), (46, 31), (60, 90)):
        theirs = torch.nn.functional.interpolate(tensor, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        ours = data.read_image(tmp_path / "x.png", size=size)
        assert np.abs(ours - theirs.numpy()).max() <= 1  # Pillow rounds twice
        near = torch.nn.functional.interpolate(tensor, size, mode="nearest-exact")[0].permute(1, 2, 0)
        np.testing.assert_array_equal(data.read_image(tmp_path / "x.png", size=size, interpolation="nearest"), near)


def keeps_the_middle(data, folder):
    ramp = np.repeat(np.linspace(0, 255, 60).round().astype(np.uint8)[None, :], 20, 0)
    (folder / "wide.png").write_bytes(saved(ramp, "PNG"))
    (folder / "high.png").write_bytes(saved(np.ascontiguousarray(ramp.T), "PNG"))
    image = Image.fromarray(ramp)
    for size, box in (
        ((10, 10), (20, 0, 40, 20)),
        ((4, 6), (15, 0, 45, 20)),
        ((9, 5), (30 - 50 / 9, 0, 30 + 50 / 9, 20)),
    ):
        expected = np.asarray(image.resize(size[::-1], Image.BILINEAR, box))
        options = {"color_mode": "grayscale", "keep_aspect_ratio": True}
        np.testing.assert_array_equal(data.read_image(folder / "wide.png", size=size, **options)[..., 0], expected)
        high = data.read_image(folder / "high.png", size=size[::-1], **options)[..., 0]
        np.testing.assert_allclose(high, expected.T, atol=1)


def test_aspect_ratio_is_kept_by_the_middle(tmp_path):
    keeps_the_middle(data, tmp_path)


def scales_sixteen_bits(data, folder):
    values = np.array([[0, 128, 129, 257, 1000], [32767, 32768, 65278, 65535, 40000]], np.uint16)
    big = Image.frombytes("I;16B", (5, 2), values.astype(">u2").tobytes())
    twelve = replaced_bits(saved(values, "TIFF"), values)
    files = {"a.png": saved(values, "PNG"), "a.tif": saved(values, "TIFF"), "b.tif": saved(big, "TIFF")}
    write(folder, files | {"a.ppm": deep_pgm(values), "twelve.tif": twelve})
    for name in (*files, "a.ppm"):
        np.testing.assert_array_equal(
            data.read_image(folder / name, color_mode="grayscale", dtype="uint16")[..., 0], values
        )
        eight = data.read_image(folder / name, color_mode="grayscale")[..., 0]
        np.testing.assert_array_equal(eight, [[0, 0, 1, 1, 4], [127, 128, 254, 255, 156]])
        rgba = data.read_image(folder / name, color_mode="rgba", dtype=np.uint16)
        np.testing.assert_array_equal(rgba, np.stack([values] * 3 + [np.full_like(values, 65535)], -1))
        np.testing.assert_array_equal(data.read_image(folder / name), np.stack([eight] * 3, -1))
    as_keras = {"keras_compat": True, "color_mode": "grayscale"}
    expected = values[..., None].astype(np.float32)
    np.testing.assert_array_equal(data.read_image(folder / "a.png", **as_keras), expected, strict=True)
    write(folder, {"colour.png": FORMATS["png"]})
    expected = by_pillow(FORMATS["png"], "L").astype(np.float32)
    np.testing.assert_array_equal(data.read_image(folder / "colour.png", **as_keras), expected, strict=True)
    twelve = data.read_image(folder / "twelve.tif", color_mode="grayscale")[..., 0]
    np.testing.assert_array_equal(twelve, np.rint((values >> 4) * (255 / 4095)))
    sharp = data.read_image(
        folder / "a.png", color_mode="grayscale", dtype=np.uint16, size=(2, 4), interpolation="lanczos"
    )
    exact = Image.fromarray(values.astype(np.float32)).resize((4, 2), Image.LANCZOS)
    np.testing.assert_allclose(sharp[..., 0], np.asarray(exact).clip(0, 65535), atol=0.51)


def replaced_bits(content, values):
    "A TIFF of 16 bits a pixel, written again with 12: three bytes for two pixels, each row filled up to whole bytes."
    rows = b""
    for row in values >> 4:
        bits = "".join(f"{v:012b}" for v in row)
        bits += "0" * (-len(bits) % 8)
        rows += bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    tags = [(256, 4, values.shape[1]), (257, 4, values.shape[0]), (258, 3, 12), (259, 3, 1), (262, 3, 1)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, values.shape[0]), (279, 4, len(rows))]
    entries = b"".join(struct.pack("<HHII", tag, form, 1, value) for tag, form, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(rows)) + rows + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    scales_sixteen_bits(data, tmp_path)


def drafts(data, folder, photos=(0, 1), turns=(1, 3, 6)):
    "A JPEG unpacked at a fraction of its size differs from one unpacked whole by about a level or less on average."
    for photo in [data.load_photos()[i] for i in photos]:
        for turn in turns:
            (folder / "x.jpg").write_bytes(saved(photo, "JPEG", quality=90, exif=exif(turn)))
            for size in ((50, 80), (53, 71), (25, 160), (106, 160)):
                for keep in (False, True):
                    options = {"size": size, "keep_aspect_ratio": keep}
                    whole = data.read_image(folder / "x.jpg", draft=False, **options)
                    drafted = data.read_image(folder / "x.jpg", **options)
                    difference = np.abs(whole.astype(int) - drafted)
                    assert difference.mean() < 1.2, (turn, options, difference.mean())
                    assert difference.max() <= 24, (turn, options, difference.max())
    sizes = [(426 // 3, 640 // 3), (107, 161)]  # less than four times too large: unpacked whole
    (folder / "x.jpg").write_bytes(saved(photo, "JPEG"))
    for size in sizes:
        same = data.read_image(folder / "x.jpg", size=size, draft=False)
        np.testing.assert_array_equal(data.read_image(folder / "x.jpg", size=size), same)
    picked = data.read_image(folder / "x.jpg", size=(50, 80), interpolation="nearest")
    whole = Image.open(folder / "x.jpg").resize((80, 50), Image.NEAREST)
    np.testing.assert_array_equal(picked, whole)


def test_drafts_are_close(tmp_path):
    drafts(data, tmp_path)


def drafts_large_files(data, folder):
    from PIL import JpegImagePlugin

    sizes, load = [], JpegImagePlugin.JpegImageFile.load
    large = np.repeat(np.repeat(NOISE, 16, 0), 16, 1)  # lies on its side: upright it is 496 high and 368 wide
    (folder / "x.jpg").write_bytes(saved(large, "JPEG", exif=exif(6)))
    with mock.patch.object(JpegImagePlugin.JpegImageFile, "load", lambda self: sizes.append(self.size) or load(self)):
        for size, part in (((125, 93), 1), ((124, 92), 2), ((62, 46), 4), ((31, 46), 4), ((31, 23), 8), ((3, 3), 8)):
            sizes.clear()
            data.read_image(folder / "x.jpg", size=size)
            data.read_images([folder / "x.jpg"], size)
            assert set(sizes) == {(496 // part, 368 // part)}, size
            sizes.clear()
            data.read_image(folder / "x.jpg", size=size, draft=False)
            data.read_images([folder / "x.jpg"], size, draft=False)
            assert set(sizes) == {(496, 368)}, size


def test_a_draft_is_taken_of_large_files(tmp_path):
    drafts_large_files(data, tmp_path)


def reads_batches(data, folder):
    found = data.find_images(two_classes(folder))
    batch = data.read_images(found.filepaths, (7, 9))
    assert (batch.images.shape, batch.images.dtype, batch.problems) == ((5, 7, 9, 3), np.uint8, ())
    assert batch.rows.tolist() == [0, 1, 2, 3, 4]
    for options in (
        {},
        {"color_mode": "grayscale"},
        {"color_mode": "rgba"},
        {"keras_compat": True, "interpolation": "nearest"},
        {"dtype": np.uint16},
    ):
        batch = data.read_images([Path(p) for p in found.filepaths], (7, 9), **options)
        expected = np.stack([data.read_image(path, size=(7, 9), **options) for path in found.filepaths])
        np.testing.assert_array_equal(batch.images, expected, strict=True)
    (folder / "cats" / "b.png").unlink()
    (folder / "dogs" / "1.tif").write_bytes(FORMATS["tif"][:-30])
    error = fault(data, data.read_images, found.filepaths, (7, 9))
    assert kinds(error) == {"b.png": "unreadable", "1.tif": "damaged"}
    assert error.directory == str(folder)
    with pytest.warns(UserWarning, match="left out by on_error='skip'; 3 images are left.*2 problems") as caught:
        batch = data.read_images(found.filepaths, (7, 9), on_error="skip")
    assert caught[0].filename == __file__
    assert batch.rows.tolist() == [0, 2, 4]
    assert [(p.kind, p.path) for p in batch.problems] == [
        ("unreadable", found.filepaths[1]),
        ("damaged", found.filepaths[3]),
    ]
    np.testing.assert_array_equal(batch.images[1], data.read_image(found.filepaths[2], size=(7, 9)))
    error = fault(data, data.read_image, found.filepaths[1])
    assert str(error).endswith("b.png: No such file or directory")


def test_batches(tmp_path):
    reads_batches(data, tmp_path)


def refuses_options(data, path):
    for options, kind, message in (
        ({"color_mode": "RGB"}, ValueError, "color_mode must be one of 'grayscale', 'rgb', 'rgba', got 'RGB'"),
        ({"interpolation": "linear"}, ValueError, "interpolation must be one of 'nearest'"),
        ({"size": 7}, ValueError, "size must be \\(height, width\\), got 7"),
        ({"size": "77"}, ValueError, "size must be"),
        ({"size": (7, 7, 3)}, ValueError, "size must be"),
        ({"size": (0, 7)}, ValueError, "size\\[0\\] must be a whole number from 1, got 0"),
        ({"size": (7, 2.5)}, ValueError, "size\\[1\\] must be"),
        ({"dtype": np.float32}, TypeError, "dtype must be uint8 or uint16, got float32"),
    ):
        with pytest.raises(kind, match=message):
            data.read_image(path, **options)
        with pytest.raises(kind, match=message):
            data.read_images([path], **{"size": (3, 3)} | options)
    with pytest.raises(ValueError, match="at least one path and a size, got 0 paths"):
        data.read_images([], (3, 3))
    with pytest.raises(ValueError, match="at least one path and a size, got 1 paths and size None"):
        data.read_images([path], None)
    with pytest.raises(ValueError, match="on_error must be one of"):
        data.read_images([path], (3, 3), on_error=None)
    for bad in (None, 3):
        with pytest.raises(TypeError):
            data.read_image(bad)


def test_bad_options(tmp_path):
    (tmp_path / "x.png").write_bytes(FORMATS["png"])
    refuses_options(data, tmp_path / "x.png")


def splits_classes(data, folder):
    write(folder / "a", dict.fromkeys([f"{i}.png" for i in range(7)], FORMATS["png"]))
    write(folder / "b", dict.fromkeys([f"{i}.png" for i in range(3)], FORMATS["png"]))
    found = data.find_images(folder)
    first, rest = found.part(0, 0.4), found.part(0.4, 1)
    assert first.filenames == ["a/0.png", "a/1.png", "b/0.png"]
    assert first.labels.tolist() == [0, 0, 1]
    assert rest.filenames == [f"a/{i}.png" for i in range(2, 7)] + ["b/1.png", "b/2.png"]
    assert (found.take([8, 0]).filenames, found.take(found.labels == 1).filenames) == (
        ["b/1.png", "a/0.png"],
        ["b/0.png", "b/1.png", "b/2.png"],
    )


def test_parts(tmp_path):
    splits_classes(data, tmp_path)


def keeps_keras_middle(data, folder):
    "The part that Keras cuts out, by its own whole numbers; one pixel where Keras has none and fails."
    image = Image.fromarray(NOISE)  # 31 wide, 23 high
    (folder / "x.png").write_bytes(FORMATS["png"])
    boxes = {
        (10, 10): (4, 0, 27, 23),
        (9, 5): (9, 0, 21, 23),
        (5, 9): (0, 3, 31, 20),
        (90, 1): (15, 0, 16, 23),
        (1, 90): (0, 11, 31, 12),
    }
    for size, box in boxes.items():
        ours = data.read_image(folder / "x.png", size=size, keep_aspect_ratio=True, keras_compat=True)
        expected = np.asarray(image.resize(size[::-1], Image.BILINEAR, box), np.float32)
        np.testing.assert_array_equal(ours, expected, strict=True)


def test_kerass_middle(tmp_path):
    keeps_keras_middle(data, tmp_path)


def looks_quickly(data, folder):
    "The quick look needs the head and the end of a JPEG alone, unless it is progressive; and of a PNG the checksums."
    body = np.tile(NOISE, (9, 9, 1))
    for progressive in (False, True):
        content = saved(body, "JPEG", progressive=progressive)
        wrong = b"\xff\xc4\x00\x15\x00" + 16 * b"\xff" + b"\x00\x00"  # a table that cannot be
        head, late = content.index(b"\xff\xc4"), content.rindex(b"\xff\xd9")
        files = {
            "early.jpg": content[:head] + wrong + content[head:],
            "late.jpg": content[:late] + wrong + content[late:],
            "open.jpg": content[:-2],
            "good.jpg": content,
        }
        home = folder / f"progressive-{progressive}"
        write(home / "class", files)
        seen = set(kinds(fault(data, data.find_images, home)))
        full = set(kinds(fault(data, data.find_images, home, check="full")))
        assert seen == {"early.jpg", "open.jpg"} | ({"late.jpg"} if progressive else set())
        assert full == {"early.jpg", "late.jpg", "open.jpg"}
    files = {"good.png": FORMATS["png"], "short.png": png_of_size(9, 9)}  # right checksums of too few pixels
    write(folder / "png" / "class", files)
    assert len(data.find_images(folder / "png")) == 2
    assert kinds(fault(data, data.find_images, folder / "png", check="full")) == {"short.png": "damaged"}


def test_quick_look(tmp_path):
    looks_quickly(data, tmp_path)
