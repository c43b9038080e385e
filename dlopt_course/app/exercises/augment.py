"""Checks of the exercises of lesson 8. Each looks for the likely mistakes first, so that the message names them."""

import math
import random
from itertools import combinations

import numpy as np
import torch
from scipy import ndimage

from dlopt_course.app.exercises.judge import array, close, number, quietly, rule_out
from dlopt_course.core import expect


def _judge(got, right, mistakes: dict, told: str = "") -> None:
    "Fails with the message of the known mistake that gives the same, unless that is right here."
    rule_out(got, {told + m: v for m, v in mistakes.items() if not close(v, right)})


def _several(got, count: int, told: str) -> tuple:
    "The parts of an answer: a tuple or list of so many; else the message."
    expect(isinstance(got, (tuple, list)) and len(got) == count, told)
    return tuple(got)


def _line(scale_x, at_x, scale_y, at_y) -> np.ndarray:
    "The matrix that reads column scale_x x + at_x and row scale_y y + at_y."
    return np.array([[scale_x, 0, at_x], [0, scale_y, at_y], [0, 0, 1.0]])


def crop(answer) -> None:
    "Exercise 1."
    for top, left, height, width, size in (
        (4, 7, 5, 9, (10, 6)),
        (3, 5, 4, 6, (4, 6)),
        (2, 1, 8, 12, (4, 6)),
        (1, 0, 7, 3, (3, 8)),
    ):
        got = array(answer(top, left, height, width, size), (3, 3), "the matrix")
        told = f"box at row {top}, column {left}, {height} x {width}, to {size[0]} x {size[1]}: "
        right = _crop(top, left, height, width, size)
        _judge(got, right, _wrong_crops(top, left, height, width, size), told)
        _say_where(got, right, (size[1] - 1, size[0] - 1), told)


def _crop(top, left, height, width, size) -> np.ndarray:
    "What exercise 1 asks for."
    x, y = width / size[1], height / size[0]
    return _line(x, left + (x - 1) / 2, y, top + (y - 1) / 2)


def _say_where(got, right, last, told) -> None:
    "Fails with the place at which the first or the last pixel is read."
    for point in ((0, 0), last):
        reads, wanted = (m @ (*point, 1.0) for m in (got, right))
        at = f"output pixel (x, y) = {point} is read at ({reads[0]:.4g}, {reads[1]:.4g})"
        expect(close(reads[:2], wanted[:2]), f"{told}{at}, should be ({wanted[0]:.4g}, {wanted[1]:.4g})")
    expect(close(got, right), f"{told}the last row should be 0, 0, 1, and the rest only scale and shift")


def _wrong_crops(top, left, height, width, size) -> dict:
    "The likely mistakes of exercise 1 in the order of things."
    turned = _crop(left, top, width, height, size[::-1])
    right = _crop(top, left, height, width, size)
    return {
        "x and y are swapped: x counts columns and comes first, so left belongs into the first row": turned,
        "left and top are swapped: x counts columns": _crop(left, top, height, width, size),
        "size is (h, w), rows first": _crop(top, left, height, width, size[::-1]),
        "the shift has the wrong sign: output column 0 is read at column left": _crop(-top, -left, height, width, size),
        "that is the matrix from input to output; warp asks where an output pixel comes from": np.linalg.inv(right),
        "transposed: points are columns (x, y, 1), so the shift stands in the last column": right.T,
        "the shift is missing": np.diag(np.diag(right)),
        "the fractions are cut off: NumPy keeps a matrix of integers one of integers": np.trunc(right),
        "keep the fractions: warp reads between pixels": np.round(right),
        **_wrong_halves(top, left, width / size[1], height / size[0]),
        **_wrong_scales(top, left, height, width, size),
    }


def _wrong_halves(top, left, x, y) -> dict:
    "The likely mistakes of exercise 1 in the half pixels."
    told = "the areas do not match: the area starts half a pixel before the first centre, in both images"
    return {
        told: _line(x, left, y, top),
        "the half pixel has the wrong sign": _line(x, left - (x - 1) / 2, y, top - (y - 1) / 2),
        "half a pixel of the input has to be taken off again": _line(x, left + x / 2, y, top + y / 2),
        "half a pixel of the output is missing: add it before you scale": _line(x, left - 1 / 2, y, top - 1 / 2),
        "half a pixel of the input is to be taken off, not added": _line(x, left + (x + 1) / 2, y, top + (y + 1) / 2),
    }


def _wrong_scales(top, left, height, width, size) -> dict:
    "The likely mistakes of exercise 1 in the scale."
    x, y = width / size[1], height / size[0]
    ends = (width - 1) / (size[1] - 1), (height - 1) / (size[0] - 1)
    inverse = _line(1 / x, left + (1 / x - 1) / 2, 1 / y, top + (1 / y - 1) / 2)
    scaled = _line(x, x * left + (x - 1) / 2, y, y * top + (y - 1) / 2)
    return {
        "this resizes nothing: the box should fill the output": _line(1, left, 1, top),
        "the scale is the wrong way round: box over output": inverse,
        "the centres of the corner pixels meet here; their outer edges should": _line(ends[0], left, ends[1], top),
        "the shift is scaled, too: left and top are pixels of the input": scaled,
    }


def _program(moves, mode: str):
    "A program that moves the content by moves(size) @ (width_shift, height_shift), to the right and down."

    def program(image, width_shift=0.0, height_shift=0.0):
        image = np.array(image, dtype=float)
        expect(image.ndim == 2, f"a program takes one image of shape (height, width), got {image.shape}")
        right, down = np.array(moves(*image.shape), dtype=float) @ (width_shift, height_shift)
        return ndimage.shift(image, (down, right), order=1, mode=mode)

    return program


_MOVES = {
    "one that does what its names say": lambda h, w: [[w, 0], [0, h]],
    "that of the images above": lambda h, w: [[0, -h], [-w, 0]],
    "one with other signs": lambda h, w: [[-w, 0], [0, h]],
    "one with fractions of the other side": lambda h, w: [[h, 0], [0, -w]],
    "one with swapped axes": lambda h, w: [[0, w], [h, 0]],
    "one that moves along a diagonal": lambda h, w: [[w, -h], [w, h]],
}

unknown_program = _program(_MOVES["that of the images above"], "nearest")


def moves(answer) -> None:
    "Exercise 2."
    for i, (what, of_size) in enumerate(_MOVES.items()):
        size = ((20, 40), (40, 60), (60, 20))[i % 3]
        program = _program(of_size, ("nearest", "grid-wrap", "constant")[i % 3])
        got = array(answer(program, size), (2, 2), "A")
        right = np.array(of_size(*size), dtype=float)
        told = f"a program ({what}), size {size}: "
        _judge(got, right, _wrong_moves(right, size), told)
        for j, name in enumerate(("width_shift", "height_shift")):
            said, seen = (f"({m[0, j] / 10:.4g}, {m[1, j] / 10:.4g})" for m in (got, right))
            expect(
                close(got[:, j], right[:, j], 1e-6), f"{told}{name} = 0.1 moves by {seen}, right and down, not {said}"
            )


def _wrong_moves(right, size) -> dict:
    "The likely mistakes of exercise 2."
    h, w = size
    return {
        "which way it moved is lost: keep the signs": np.abs(right),
        "that is what its names say; look at its images": np.diag([w, h]),
        "that is what the program above does; this is another one": [[0, -h], [-w, 0]],
        "rows and columns are swapped: the first row of A is about moves to the right": right[::-1],
        "the columns of A are swapped: the first one belongs to width_shift": right[:, ::-1],
        "transposed: the columns of A belong to the shifts, its rows to right and down": right.T,
        "the signs: count from the old place to the new one, to the right and down": -right,
        "pixels are not divided by the shift": right * 0.1,
        "that is in fractions of the sides; A is in pixels": right / [[w], [h]],
    }


def border(answer) -> None:
    "Exercise 3."
    for angle, size in ((30, (5, 9)), (-20, (9, 5)), (45, (32, 32)), (120, (21, 41)), (200, (60, 31)), (0, (4, 7))):
        got = number(quietly(answer, angle, size), "the zoom")
        told = f"{angle} degrees, size {size}: "
        right = _least_zoom(angle, size)
        _judge(got, right, _wrong_zooms(angle, size) | _wrong_sides(angle, size), told)
        if got < right:
            reads = right / max(got, 1e-9)
            expect(close(got, right), f"{told}with zoom {got:.5g} a corner is read {reads:.4g} times too far out")
        expect(close(got, right), f"{told}no border shows with {got:.5g}, but {right:.5g} is enough")


def _parts(angle, size) -> tuple:
    "Size of cosine and sine, and how far the centres of the pixels reach to the side and down."
    return abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle))), (size[1] - 1) / 2, (size[0] - 1) / 2


def _least_zoom(angle, size) -> float:
    "What exercise 3 asks for."
    cos, sin, a, b = _parts(angle, size)
    return cos + sin * max(a / b, b / a)


def _wrong_zooms(angle, size) -> dict:
    "The likely mistakes of exercise 3 in the turn."
    cos, sin, a, b = _parts(angle, size)
    ratio, right = max(a / b, b / a), _least_zoom(angle, size)
    signed = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return {
        "NumPy's cos and sin take radians": abs(math.cos(angle)) + abs(math.sin(angle)) * ratio,
        "the farthest corner is another one for another angle: take absolute values": signed[0] + signed[1] * ratio,
        "of the two products, none may be subtracted: another corner is farther out": cos - sin * ratio,
        "that is the share that is seen; the zoom is 1 over it": 1 / right,
        "that is enough for any angle; this angle needs less": math.hypot(a, b) / min(a, b),
        "that is the side of the turned image's frame over the old one's, for squares only": cos + sin,
        "the zoom works along both axes: no square or root": right**2,
    }


def _wrong_sides(angle, size) -> dict:
    "The likely mistakes of exercise 3 in the sides."
    cos, sin, a, b = _parts(angle, size)
    h, w = size
    return {
        "the columns fit, the rows do not: both sides have to": cos + sin * b / a,
        "the rows fit, the columns do not: both sides have to": cos + sin * a / b,
        "pixels are read between centres, and w pixels have w - 1 steps between them": cos + sin * max(w / h, h / w),
        "the half sides are (w - 1) / 2 and (h - 1) / 2, not w / 2 - 1 and h / 2 - 1": cos
        + sin * max((w - 2) / (h - 2), (h - 2) / (w - 2)),
    }


def sources(answer) -> None:
    "Exercise 4."
    for seen, step in ((0.1, 3), (0.3, 2), (0.4, 4), (0.25, 7), (0.17, 1), (0.45, 8)):
        got = quietly(answer, seen, step)
        good = isinstance(got, (list, tuple, np.ndarray)) and np.ndim(got) == 1 and len(got) > 0
        expect(good, f"return an array of frequencies, got {got!r:.60}")
        got = array(np.asarray(got), (len(got),), "the frequencies")
        whole = np.arange(step + 1)
        right = np.unique(np.concatenate([whole + seen, whole - seen]) / step)
        right = right[(right >= 0) & (right <= 0.5)]
        told = f"seen as {seen}, step {step}: "
        _judge(got, right, _wrong_sources(seen, step, right), told)
        _judge_each_source(got, right, seen, step, told)


def _wrong_sources(seen, step, right) -> dict:
    "The likely mistakes of exercise 4."
    up, down = (np.arange(step + 1) + seen) / step, (np.arange(step + 1) - seen) / step
    both = np.sort(np.concatenate([up, down]))
    return {
        "waves that run backwards look the same: a whole number of periods minus what is seen, too": up[up <= 0.5],
        "a whole number of periods plus what is seen is possible, too": down[(down >= 0) & (down <= 0.5)],
        "that is the slowest; faster ones are folded upon it": [right[0]],
        "these are all right, but not sorted": np.concatenate([up[up <= 0.5], down[(down >= 0) & (down <= 0.5)]]),
        "frequencies are to be at least 0": both[both <= 0.5],
        "frequencies are to be at most 1/2": both[(both >= 0) & (both <= 1)],
        "these are periods per new pixel; divide by step": right * step,
    }


def _judge_each_source(got, right, seen, step, told) -> None:
    "Whether each frequency looks like the one that is seen, and none is missing."
    looks = np.abs(step * got - np.round(step * got))
    for f, look in zip(got, looks, strict=True):
        expect(abs(look - seen) < 1e-9, f"{told}{f:.5g} is in your list, and would be seen as {look:.5g}")
        expect(0 <= f <= 0.5, f"{told}{f:.5g} is in your list, which is not between 0 and 1/2")
    missing = [f for f in right if np.abs(got - f).min() > 1e-9]
    expect(not missing, f"{told}{len(missing)} are missing, among them {missing[:1]}")
    expect(len(got) == len(right), f"{told}there are {len(right)}, each once, and your list has {len(got)}")
    expect(close(got, right), f"{told}these are all right, but not sorted")


def streams(answer) -> None:
    "Exercise 5."
    indices = np.arange(12)
    angles = _angles(answer, 3, 2, indices)
    _judge_independence(answer, angles, indices)
    batches = {(s, e): _angles(answer, s, e, np.arange(200)) for s in (3, 4, 5) for e in range(5)}
    _judge_difference(batches)
    _judge_large_indices(answer, batches)
    every = np.concatenate(list(batches.values()))
    fits = np.all((every >= -20) & (every < 20))
    expect(fits, f"angles should be in [-20, 20), got {every.min():.4g} … {every.max():.4g}")
    expect(np.any(every < 0), "no angle is negative: the range starts at -20")
    spread = np.sqrt(np.mean(every**2))
    told = f"angles should fill [-20, 20) evenly: a root mean square of {20 / math.sqrt(3):.4g}, not {spread:.4g}"
    expect(abs(spread - 20 / math.sqrt(3)) < 1, told)


def _angles(answer, seed, epoch, indices) -> np.ndarray:
    "The answer's angles of one batch; the global generators must stay as they are."
    before, given = _global_states(), indices.copy()
    result = answer(seed, epoch, given)
    untouched = _comparable(*before) == _comparable(*_global_states())
    np.random.set_state(before[0])  # noqa: NPY002
    random.setstate(before[1])
    torch.set_rng_state(before[2])
    expect(np.array_equal(given, indices), "the indices should not be changed")
    expect(untouched, "this draws from, or seeds, a global generator, which belongs to the caller")
    return array(result, indices.shape, "the angles")


def _global_states() -> tuple:
    "The states of NumPy's, Python's and PyTorch's global generators."
    return np.random.get_state(legacy=False), random.getstate(), torch.get_rng_state()  # noqa: NPY002


def _comparable(numpy_state, python_state, torch_state) -> tuple:
    "The three states in a form in which == means equal."
    words = numpy_state["state"]
    return words["key"].tobytes(), words["pos"], numpy_state["has_gauss"], python_state, torch_state.numpy().tobytes()


def _judge_independence(answer, angles, indices) -> None:
    "Whether the angle of a sample depends on who asks for it, and with which others."
    again = _angles(answer, 3, 2, indices)
    expect(close(again, angles), "asked twice, it gives other angles: it goes on drawing, and a worker would, too")
    expect(not close(angles, np.full(12, angles[0])), "all samples of a batch have the same angle")
    workers = [_angles(answer, 3, 2, indices[i::2]) for i in (0, 1)]
    expect(not close(*workers), "two workers with every other sample draw the same angles: use each sample's index")
    told = "two workers with every other sample do not get what one gets"
    expect(all(close(w, angles[i::2]) for i, w in enumerate(workers)), f"{told}: other samples of the batch matter")
    turned = _angles(answer, 3, 2, indices[::-1].copy())
    expect(close(turned, angles[::-1]), "the angle of a sample depends on its place in the batch")
    alone = np.concatenate([_angles(answer, 3, 2, indices[i : i + 1]) for i in range(12)])
    expect(close(alone, angles), "a sample that is asked for alone gets another angle")


def _judge_difference(batches) -> None:
    "Whether other seeds, epochs and samples have other, unrelated angles."
    known = {
        ((3, 0), (3, 1)): "each epoch has the same angles: nothing is new after the first one",
        ((3, 1), (4, 1)): "each seed has the same angles",
        ((3, 2), (4, 1)): "seed 3 in epoch 2 is seed 4 in epoch 1: do not add them",
        ((3, 4), (4, 3)): "seed 3 in epoch 4 is seed 4 in epoch 3: which number is which is lost",
        ((3, 0), (4, 0)): "epoch 0 is the same for all seeds: do not multiply them",
    }
    for (a, b), told in known.items():
        expect(not close(batches[a], batches[b]), told)
    for a, b in combinations(batches, 2):
        _judge_pair(batches[a], batches[b], f"seed {a[0]}, epoch {a[1]} and seed {b[0]}, epoch {b[1]}")


def _judge_pair(a, b, told) -> None:
    "Whether two batches are unrelated, a sample by itself or beside its neighbour."
    shared = np.isin(np.round(a, 9), np.round(b, 9)).sum()
    expect(shared < 3, f"{told} share {shared} of 200 angles: the index is added, and moved along")
    for name, left, right in (("", a, b), (" of neighbouring samples", a[1:], a[:-1])):
        together = abs(np.corrcoef(left, right)[0, 1])
        expect(together < 0.4, f"{told}: the angles{name} are related, their correlation is {together:.2f}")


def _judge_large_indices(answer, batches) -> None:
    "Whether a sample far back gets the angle of one of the first samples of another epoch or seed."
    far = np.array([base**k for base in (2, 10) for k in range(8, 31) if base**k < 2**31])
    angles = _angles(answer, 3, 0, far)
    for other, (seed, epoch) in ((batches[3, 1], (3, 1)), (batches[4, 0], (4, 0))):
        same = np.flatnonzero(np.abs(angles - other[0]) < 1e-9)
        told = f"is that of sample 0 with seed {seed} in epoch {epoch}: the numbers run into each other"
        expect(not same.size, f"the angle of sample {far[same[:1]]} with seed 3 in epoch 0 {told}")


_DIGITS = """
###  .#.  ###  ###  #.#  ###  ###  ###  ###  ###
#.#  .#.  ..#  ..#  #.#  #..  #..  ..#  #.#  #.#
#.#  .#.  ###  ###  ###  ###  ###  ..#  ###  ###
#.#  .#.  #..  ..#  ..#  ..#  #.#  ..#  #.#  ..#
###  .#.  ###  ###  ..#  ###  ###  ..#  ###  ###
"""
_ROWS = [line.split() for line in _DIGITS.split("\n")[1:-1]]
digit_images = np.array([[[p == "#" for p in row[d]] for row in _ROWS] for d in range(10)], dtype=float)


def labels(answer) -> None:
    "Exercise 6."
    got = answer()
    expect(isinstance(got, dict), f"return a dict of lists, got {got!r:.60}")
    right = {name: _seen(images) for name, images in _moved(digit_images).items()}
    rows = {name: _row(got, name) for name in right}
    swapped = rows["hflip"] == right["vflip"] and rows["vflip"] == right["hflip"]
    expect(not swapped, "the two flips are swapped: hflip changes left and right")
    same = rows["half turn"] in (right["hflip"], right["vflip"])
    expect(not same, "half turn: that is a flip; a half turn is both flips, one after the other")
    for name in right:
        for digit, (said, seen) in enumerate(zip(rows[name], right[name], strict=True)):
            _judge_label(name, digit, said, seen)


def _row(table, name) -> list:
    "The ten entries of one transform."
    expect(name in table, f"the table has no entry {name!r}")
    row = list(table[name]) if isinstance(table[name], (list, tuple, np.ndarray)) else []
    expect(len(row) == 10, f"{name}: ten entries, please, for the digits 0 to 9; got {table[name]!r:.60}")
    return row


def _moved(images) -> dict:
    "The images after each of the three transforms of exercise 6."
    half_turn = images[:, ::-1, ::-1]
    return {"hflip": images[:, :, ::-1], "vflip": images[:, ::-1], "half turn": half_turn}


def _seen(images) -> list:
    "The digit that each image shows, or None."
    same = [[d for d in range(10) if np.array_equal(p, digit_images[d])] for p in images]
    return [found[0] if found else None for found in same]


def _judge_label(name, digit, said, seen) -> None:
    "One entry of the table of exercise 6."
    if seen == digit:
        expect(said == seen, f"{name}: {digit} looks as before, so its label stays")
    elif seen is None:
        told = f"{name}: {digit} becomes no digit at all, so the entry is None"
        expect(said is None, f"{told}; to train on it with a label is to train on noise")
    else:
        learnt = f"with its old label the network learns that a {seen} is a {digit}"
        expect(said is not None and said == seen, f"{name}: {digit} becomes a {seen}; {learnt}")


def cutmix(answer) -> None:
    "Exercise 7."
    rng = np.random.default_rng(8)
    for (h, w), (x, y), lam in (
        ((8, 12), (6, 4), 0.7),
        ((9, 5), (2, 6), 0.3),
        ((8, 12), (1, 7), 0.4),
        ((6, 6), (0, 0), 0.0),
        ((7, 9), (8, 1), 0.1),
        ((6, 8), (3, 3), 1.0),
    ):
        a, b = rng.integers(0, 100, (h, w, 3), "uint8"), rng.integers(100, 256, (h, w, 3), "uint8")
        targets = np.array([0.0, 1.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.25, 0.75])
        got = _cutmix_of(answer, a, b, *targets, x, y, lam)
        told = f"{h} x {w}, x = {x}, y = {y}, lam = {lam:g}: "
        _judge_image(got[0], a, b, x, y, lam, told)
        _judge_target(got[1], *targets, (h, w), x, y, lam, told)


def _cutmix_of(answer, a, b, *rest) -> tuple:
    "Picture and target of an answer, with arrays that must stay as they are."
    given = [np.copy(v) for v in (a, b, *rest[:2])]
    result = quietly(answer, *given, *rest[2:])
    same = all(map(np.array_equal, given, (a, b, *rest[:2])))
    expect(same, "an array that was given was changed in place; copy it first")
    image, target = _several(result, 2, "return two things, the image and the target")
    array(image, a.shape, "the image")
    expect(image.dtype == a.dtype, f"the image should keep the dtype {a.dtype}, got {image.dtype}")
    return image, array(target, (4,), "the target")


def _paste(a, b, x, y, reach) -> np.ndarray:
    "The image with that box, (columns, rows) to each side."
    rows, columns = np.arange(a.shape[0]), np.arange(a.shape[1])
    inside = ((rows >= y - reach[1]) & (rows < y + reach[1]))[:, None] & (columns >= x - reach[0])
    return np.where((inside & (columns < x + reach[0]))[:, :, None], b, a)


def _reach(size, lam) -> tuple:
    "Columns and rows to each side."
    return tuple(int(math.sqrt(1 - lam) * n / 2) for n in size[::-1])


def _judge_image(got, a, b, x, y, lam, told) -> None:
    "The likely mistakes in the image of exercise 7."
    reach = _reach(a.shape[:2], lam)
    right = _paste(a, b, x, y, reach)
    by_slices = a.copy()
    box = slice(y - reach[1], y + reach[1]), slice(x - reach[0], x + reach[0])
    by_slices[box] = b[box]
    mistakes = {
        "a negative start of a slice counts from the end, and pastes nothing: clamp it at 0": by_slices,
        "a is pasted into b": np.where(right == a, b, a),
        "this mixes the images as MixUp does; CutMix pastes": (lam * a + (1 - lam) * b).astype(a.dtype),
        "x + reach is the first column that is out": _with_end(a, b, x, y, reach),
    }
    _judge(got, right, mistakes | _wrong_boxes(a, b, x, y, lam, reach), told)
    expect(close(got, right), f"{told}{np.any(got != right, axis=2).sum()} pixels come from the wrong image")


def _wrong_boxes(a, b, x, y, lam, reach) -> dict:
    "The likely mistakes in the box of exercise 7."
    sides = a.shape[1::-1]
    reaches = {
        "the reach to the side comes from w, that down from h": reach[::-1],
        "the box has twice that side: half of it lies on each side of the centre": [2 * r for r in reach],
        "sides of 1 - lam give an area of its square: take the root": [int((1 - lam) * n / 2) for n in sides],
        "the root of lam is the box that stays; that of 1 - lam is pasted": _reach(a.shape[:2], 1 - lam),
        "cut the reach off to whole pixels, int(...); do not round it": [
            round(math.sqrt(1 - lam) * n / 2) for n in sides
        ],
    }
    places = {
        "x and y are swapped: x is the column": _paste(a, b, y, x, reach),
        "x, y is the box's centre, not its corner": _paste(a, b, x + reach[0], y + reach[1], reach),
    }
    return {m: _paste(a, b, x, y, r) for m, r in reaches.items()} | places


def _with_end(a, b, x, y, reach) -> np.ndarray:
    "The box with one row and one column more."
    right = _paste(a, b, x, y, reach)
    for dx, dy in ((0, 1), (1, 0), (1, 1)):
        right = _paste(right, b, x + dx, y + dy, reach)
    return right


def _judge_target(got, first, second, size, x, y, lam, told) -> None:
    "The likely mistakes in the target of exercise 7."
    (h, w), (side, down) = size, _reach(size, lam)
    pasted = (min(x + side, w) - max(x - side, 0)) * (min(y + down, h) - max(y - down, 0)) / (h * w)
    mistakes = {
        "lam is what was asked for; the box lost what stuck out and the fractions of pixels": 1 - lam,
        "the shares are swapped: the box is b's": 1 - pasted,
        "the shares are lam's, and swapped: the box is b's": lam,
        "the box was cut off at the edge, so less was pasted than that": 4 * side * down / (h * w),
        "that is a's target; a part of the image is b's": 0.0,
        "that is b's target; a part of the image is a's": 1.0,
        "halves, whatever the box is": 0.5,
    }
    right = (1 - pasted) * first + pasted * second
    _judge(got, right, {m: (1 - s) * first + s * second for m, s in mistakes.items()}, f"{told}the target: ")
    expect(close(got.sum(), 1), f"{told}the target: probabilities sum to 1, these to {got.sum():.6g}")
    expect(close(got, right), f"{told}the target is {np.round(got, 4)}, should be {np.round(right, 4)}")


CHECKS = {
    "matrix": crop,
    "keras": moves,
    "fill": border,
    "alias": sources,
    "streams": streams,
    "permutation": labels,
    "mixup": cutmix,
}
