"""Wrong answers to the exercises of lesson 8, and what the learner is told."""

import math
import random

import numpy as np
import torch


def line(scale_x, at_x, scale_y, at_y):
    return np.array([[scale_x, 0, at_x], [0, scale_y, at_y], [0, 0, 1.0]])


def crop(top, left, height, width, size):
    x, y = width / size[1], height / size[0]
    return line(x, left + (x - 1) / 2, y, top + (y - 1) / 2)


def cropped(put):
    "A crop by put(scale, first pixel) on each axis: its shift."

    def answer(top, left, height, width, size):
        x, y = width / size[1], height / size[0]
        return line(x, put(x, left), y, put(y, top))

    return answer


def made_of(change):
    return lambda *given: change(crop(*given))


def whole_numbers(top, left, height, width, size):
    matrix = np.eye(3, dtype=int)
    matrix[:] = crop(top, left, height, width, size)
    return matrix


def corners_meet(top, left, height, width, size):
    return line((width - 1) / (size[1] - 1), left, (height - 1) / (size[0] - 1), top)


def upside_down(top, left, height, width, size):
    return crop(top, left, height * (size[0] / height) ** 2, width * (size[1] / width) ** 2, size)


def looked(change=lambda moves: moves, shift=0.1, start=(0, 0), rows_first=False):
    "The moves of a program by its image of one white pixel, with something changed."

    def answer(program, size):
        image = np.zeros(size)
        image[size[0] // 2, size[1] // 2] = 1.0
        moves = np.zeros((2, 2))
        for i, shifts in enumerate([(shift, 0.0), (0.0, shift)]):
            row, column = np.unravel_index(np.argmax(program(image, *shifts)), size)
            moves[:, i] = column - size[1] // 2 + start[1], row - size[0] // 2 + start[0]
        return change(moves / shift)

    return answer


def one_hot_batch(program, size):
    return program(np.zeros((1, *size, 3)), 0.1, 0.0)


def zoomed(side, angle_in=math.radians, absolute=abs, put=lambda z: z):
    "The zoom by the ratio of the sides that side(h, w) gives."

    def answer(angle, size):
        cos, sin = absolute(math.cos(angle_in(angle))), absolute(math.sin(angle_in(angle)))
        return put(cos + sin * side(*size))

    return answer


def between_centres(h, w):
    return max((h - 1) / (w - 1), (w - 1) / (h - 1))


def sources(seen, step, signs=(1, -1), low=0.0, high=0.5, order=sorted):
    "The frequencies (m ± seen) / step between two limits."
    every = [(m + sign * seen) / step for sign in signs for m in range(step + 1)]
    return np.array(order([f for f in every if low <= f <= high]))


def sourced(**changes):
    return lambda seen, step: sources(seen, step, **changes)


def drawn(numbers, draw=lambda rng: rng.uniform(-20, 20)):
    "One generator a sample, with numbers(seed, epoch, index) as its seed."
    return lambda s, e, indices: np.array([draw(np.random.default_rng(numbers(s, e, int(i)))) for i in indices])


def all_three(s, e, i):
    return [s, e, i]


one_for_all = np.random.default_rng(0)


def goes_on(seed, epoch, indices):
    return one_for_all.uniform(-20, 20, len(indices))


def by_batch(seed, epoch, indices):
    return np.random.default_rng([seed, epoch]).uniform(-20, 20, len(indices))


def by_first(seed, epoch, indices):
    return np.random.default_rng([seed, epoch, int(indices[0])]).uniform(-20, 20, len(indices))


def by_smallest(seed, epoch, indices):
    angles = np.random.default_rng([seed, epoch, int(min(indices))]).uniform(-20, 20, max(indices) + 1)
    return angles[indices]


def by_sum_of_batch(seed, epoch, indices):
    return drawn(lambda s, e, i: [s, e, i, int(sum(indices))])(seed, epoch, indices)


def by_size_of_batch(seed, epoch, indices):
    return drawn(lambda s, e, i: [s, e, i, len(indices) < 2])(seed, epoch, indices)


def by_place(seed, epoch, indices):
    return drawn(lambda s, e, i: [s, e, i, int(indices[0] > indices[-1])])(seed, epoch, indices)


def same_for_all(seed, epoch, indices):
    return np.full(len(indices), np.random.default_rng([seed, epoch]).uniform(-20, 20))


def numpy_seed(seed, epoch, indices):
    np.random.seed(seed)  # noqa: NPY002
    return drawn(all_three)(seed, epoch, indices)


def python_seed(seed, epoch, indices):
    return np.array([random.Random(f"{seed} {epoch} {i}").uniform(-20, 20) + 0 * random.random() for i in indices])


def torch_seed(seed, epoch, indices):
    torch.manual_seed(seed)
    return drawn(all_three)(seed, epoch, indices)


def changed_indices(seed, epoch, indices):
    indices += 1
    return drawn(all_three)(seed, epoch, indices)


TABLE = {
    "hflip": [0, 1, 5, None, None, 2, None, None, 8, None],
    "vflip": [0, 1, 5, 3, None, 2, None, None, 8, None],
    "half turn": [0, 1, 2, None, None, 5, 9, None, 8, 6],
}


def table(**changes):
    "The right table, with some rows changed; half_turn for the last one."
    return lambda: TABLE | {name.replace("_", " "): row for name, row in changes.items()}


def entry(name, digit, said):
    return table(**{name: [said if d == digit else v for d, v in enumerate(TABLE[name.replace("_", " ")])]})


def box_of(a, x, y, lam, size=lambda lam, n: int(math.sqrt(1 - lam) * n / 2), more=0):
    "The box as slices, clamped."
    down, right = size(lam, a.shape[0]), size(lam, a.shape[1])
    return slice(max(y - down, 0), max(y + down + more, 0)), slice(max(x - right, 0), max(x + right + more, 0))


def pasted(box=box_of, share=lambda s, lam: s, put=lambda image, a, b: image):
    "CutMix by box(a, x, y, lam), a share of b from the pasted one, and a last change of the image."

    def answer(a, b, target_a, target_b, x, y, lam):
        where, image = np.zeros(a.shape[:2], dtype=bool), a.copy()
        where[box(a, x, y, lam)] = True
        image[where] = b[where]
        s = share(where.mean(), lam)
        return put(image, a, b), (1 - s) * target_a + s * target_b

    return answer


def unclamped(a, x, y, lam):
    down, right = (int(math.sqrt(1 - lam) * n / 2) for n in a.shape[:2])
    return slice(y - down, y + down), slice(x - right, x + right)


def sides_swapped(a, x, y, lam):
    return box_of(np.zeros(a.shape[1::-1]), x, y, lam)


def from_corner(a, x, y, lam):
    down, right = (int(math.sqrt(1 - lam) * n / 2) for n in a.shape[:2])
    return slice(y, y + 2 * down), slice(x, x + 2 * right)


def by_size(size, more=0):
    return pasted(lambda a, x, y, lam: box_of(a, x, y, lam, size, more))


def whole_box(a, b, target_a, target_b, x, y, lam):
    image = pasted()(a, b, target_a, target_b, x, y, lam)[0]
    share = np.prod([2 * int(math.sqrt(1 - lam) * n / 2) / n for n in a.shape[:2]])
    return image, (1 - share) * target_a + share * target_b


def in_place(a, b, target_a, target_b, x, y, lam):
    box = box_of(a, x, y, lam)
    a[box] = b[box]
    return a, target_a


def as_mixup(a, b, target_a, target_b, x, y, lam):
    return (lam * a + (1 - lam) * b).astype("uint8"), lam * target_a + (1 - lam) * target_b


def overflowing(a, b, target_a, target_b, x, y, lam):
    image = pasted()(a, b, target_a, target_b, x, y, lam)[0]
    return image + b, target_a  # uint8 wraps around at 256


WRONG = [
    ("augment-matrix", lambda top, left, *rest: crop(top, left, *rest).tolist(), "the matrix should be an array"),
    ("augment-matrix", made_of(lambda m: m[:2]), "of shape"),
    ("augment-matrix", made_of(lambda m: m[[1, 0, 2]][:, [1, 0, 2]]), "x and y are swapped"),
    ("augment-matrix", lambda top, left, *rest: crop(left, top, *rest), "left and top are swapped"),
    ("augment-matrix", lambda t, left, h, w, size: crop(t, left, h, w, size[::-1]), "size is"),
    ("augment-matrix", cropped(lambda s, at: -at + (s - 1) / 2), "wrong sign"),
    ("augment-matrix", made_of(np.linalg.inv), "from input to output"),
    ("augment-matrix", made_of(np.transpose), "transposed"),
    ("augment-matrix", made_of(lambda m: np.diag(np.diag(m))), "shift is missing"),
    ("augment-matrix", whole_numbers, "fractions are cut off"),
    ("augment-matrix", made_of(np.round), "keep the fractions"),
    ("augment-matrix", cropped(lambda s, at: at), "areas do not match"),
    ("augment-matrix", cropped(lambda s, at: at - (s - 1) / 2), "half pixel has the wrong sign"),
    ("augment-matrix", cropped(lambda s, at: at + s / 2), "taken off again"),
    ("augment-matrix", cropped(lambda s, at: at - 1 / 2), "half a pixel of the output is missing"),
    ("augment-matrix", cropped(lambda s, at: at + (s + 1) / 2), "not added"),
    ("augment-matrix", lambda top, left, h, w, size: line(1, left, 1, top), "resizes nothing"),
    ("augment-matrix", upside_down, "wrong way round"),
    ("augment-matrix", corners_meet, "outer edges"),
    ("augment-matrix", cropped(lambda s, at: s * at + (s - 1) / 2), "shift is scaled"),
    ("augment-matrix", cropped(lambda s, at: at + 3), "output pixel .* is read at"),
    ("augment-matrix", made_of(lambda m: m * [1, 1, 1] + [[0, 0, 0], [0, 0, 0], [0.1, 0, 0]]), "last row"),
    ("augment-keras", lambda program, size: np.diag(size[::-1]), "look at its images"),
    ("augment-keras", lambda program, size: np.array([[0, -size[0]], [-size[1], 0]]), "another one"),
    ("augment-keras", looked(lambda m: m[::-1]), "rows and columns are swapped"),
    ("augment-keras", looked(lambda m: m[:, ::-1]), "columns of A are swapped"),
    ("augment-keras", looked(lambda m: -m), "from the old place to the new one"),
    ("augment-keras", looked(lambda m: m * 0.1), "not divided"),
    ("augment-keras", looked(np.abs), "which way it moved"),
    ("augment-keras", looked(start=(0.5, 0.5)), "width_shift = 0.1 moves by"),
    ("augment-keras", looked(shift=0.4), "width_shift = 0.1 moves by|height_shift = 0.1 moves by"),
    ("augment-keras", looked(lambda m: m.T), "transposed|look"),
    ("augment-keras", lambda program, size: looked()(program, size) / [[size[1]], [size[0]]], "in fractions"),
    ("augment-keras", one_hot_batch, "takes one image"),
    ("augment-keras", lambda program, size: (0, 0), "A should be an array"),
    ("augment-fill", zoomed(between_centres, angle_in=float), "radians"),
    ("augment-fill", zoomed(between_centres, absolute=float), "absolute values"),
    ("augment-fill", zoomed(lambda h, w: -between_centres(h, w)), "none may be subtracted"),
    ("augment-fill", zoomed(between_centres, put=lambda z: 1 / z), "1 over it"),
    ("augment-fill", lambda angle, size: math.hypot(size[0] - 1, size[1] - 1) / (min(size) - 1), "for any angle"),
    ("augment-fill", zoomed(lambda h, w: 1), "for squares only"),
    ("augment-fill", zoomed(between_centres, put=lambda z: z**2), "no square"),
    ("augment-fill", zoomed(lambda h, w: (h - 1) / (w - 1)), "the rows do not"),
    ("augment-fill", zoomed(lambda h, w: (w - 1) / (h - 1)), "the columns do not"),
    ("augment-fill", zoomed(lambda h, w: max(h / w, w / h)), "w - 1 steps"),
    ("augment-fill", zoomed(lambda h, w: max((h - 2) / (w - 2), (w - 2) / (h - 2))), "the half sides are"),
    ("augment-fill", lambda angle, size: 1.0, "times too far out"),
    ("augment-fill", lambda angle, size: 100.0, "is enough"),
    ("augment-fill", lambda angle, size: (1.0, 1.0), "one finite number"),
    ("augment-alias", sourced(signs=(1,)), "run backwards"),
    ("augment-alias", sourced(signs=(-1,)), "plus what is seen"),
    ("augment-alias", lambda seen, step: [seen / step], "that is the slowest"),
    ("augment-alias", sourced(order=list), "not sorted"),
    ("augment-alias", sourced(order=lambda f: sorted(f)[::-1]), "not sorted"),
    ("augment-alias", sourced(low=-1.0), "at least 0"),
    ("augment-alias", sourced(high=1.0), "at most 1/2"),
    ("augment-alias", sourced(high=2.0), "not between 0 and 1/2"),
    ("augment-alias", lambda seen, step: sources(seen, step) * step, "per new pixel"),
    ("augment-alias", lambda seen, step: seen + np.arange(step) / step, "would be seen as"),
    ("augment-alias", lambda seen, step: sources(seen, step)[1:], "missing"),
    ("augment-alias", lambda seen, step: np.repeat(sources(seen, step), 2), "each once"),
    ("augment-alias", lambda seen, step: 0.1, "an array of frequencies"),
    ("augment-alias", lambda seen, step: np.array([]), "an array of frequencies"),
    ("augment-streams", goes_on, "asked twice"),
    ("augment-streams", same_for_all, "same angle"),
    ("augment-streams", by_batch, "two workers with every other sample draw the same"),
    ("augment-streams", by_first, "other samples of the batch matter"),
    ("augment-streams", by_smallest, "other samples of the batch matter"),
    ("augment-streams", by_sum_of_batch, "other samples of the batch matter"),
    ("augment-streams", by_place, "place in the batch"),
    ("augment-streams", by_size_of_batch, "asked for alone"),
    ("augment-streams", numpy_seed, "global generator"),
    ("augment-streams", python_seed, "global generator"),
    ("augment-streams", torch_seed, "global generator"),
    ("augment-streams", changed_indices, "indices should not be changed"),
    ("augment-streams", drawn(lambda s, e, i: [s, i]), "each epoch has the same"),
    ("augment-streams", drawn(lambda s, e, i: [e, i]), "each seed has the same"),
    ("augment-streams", drawn(lambda s, e, i: [s + e, i]), "do not add"),
    ("augment-streams", drawn(lambda s, e, i: [min(s, e), max(s, e), i]), "which number is which"),
    ("augment-streams", drawn(lambda s, e, i: [s * e, i]), "do not multiply|which number is which"),
    ("augment-streams", drawn(lambda s, e, i: s + e + i), "do not add"),
    ("augment-streams", drawn(lambda s, e, i: [s, e + i]), "moved along"),
    ("augment-streams", drawn(lambda s, e, i: 1000 * s + 100 * e + i), "moved along"),
    ("augment-streams", drawn(lambda s, e, i: 10**8 * s + 10**4 * e + i), "run into each other"),
    ("augment-streams", drawn(lambda s, e, i: (s << 32) + (e << 16) + i), "run into each other"),
    ("augment-streams", drawn(all_three, lambda rng: rng.uniform(0, 20)), "no angle is negative"),
    ("augment-streams", drawn(all_three, lambda rng: rng.uniform(-30, 30)), "should be in"),
    ("augment-streams", drawn(all_three, lambda rng: np.clip(rng.normal(0, 5), -20, 19)), "evenly"),
    ("augment-streams", lambda s, e, i: 3.0, "the angles should be an array"),
    ("augment-streams", lambda s, e, i: drawn(all_three)(s, e, i)[:, None], "of shape"),
    ("augment-permutation", lambda: [], "a dict"),
    ("augment-permutation", lambda: {"hflip": TABLE["hflip"], "vflip": TABLE["vflip"]}, "no entry 'half turn'"),
    ("augment-permutation", table(hflip=[0, 1, 8]), "ten entries"),
    ("augment-permutation", table(vflip=7), "ten entries"),
    ("augment-permutation", table(hflip=TABLE["vflip"], vflip=TABLE["hflip"]), "flips are swapped"),
    ("augment-permutation", table(half_turn=TABLE["vflip"]), "half turn is both flips"),
    ("augment-permutation", table(hflip=list(range(10))), "2 becomes a 5; with its old label"),
    ("augment-permutation", entry("half_turn", 6, 6), "network learns that a 9 is a 6"),
    ("augment-permutation", entry("half_turn", 6, None), "6 becomes a 9"),
    ("augment-permutation", entry("half_turn", 7, 7), "train on noise"),
    ("augment-permutation", entry("hflip", 3, 3), "no digit at all"),
    ("augment-permutation", entry("vflip", 3, None), "3 looks as before"),
    ("augment-permutation", entry("hflip", 0, 8), "0 looks as before"),
    ("augment-mixup", in_place, "changed in place"),
    ("augment-mixup", as_mixup, "as MixUp does"),
    ("augment-mixup", pasted(unclamped), "counts from the end"),
    ("augment-mixup", pasted(lambda a, x, y, lam: box_of(a, y, x, lam)), "x and y are swapped"),
    ("augment-mixup", pasted(sides_swapped), "comes from w"),
    ("augment-mixup", pasted(put=lambda image, a, b: np.where(image == a, b, a)), "a is pasted into b"),
    ("augment-mixup", by_size(lambda lam, n: int(math.sqrt(1 - lam) * n)), "twice that side|half of it"),
    ("augment-mixup", by_size(lambda lam, n: int((1 - lam) * n / 2)), "take the root"),
    ("augment-mixup", by_size(lambda lam, n: int(math.sqrt(lam) * n / 2)), "root of lam"),
    ("augment-mixup", by_size(lambda lam, n: round(math.sqrt(1 - lam) * n / 2)), "do not round"),
    ("augment-mixup", by_size(lambda lam, n: int(math.sqrt(1 - lam) * n / 2), 1), "first column that is out"),
    ("augment-mixup", pasted(from_corner), "not its corner"),
    ("augment-mixup", pasted(put=lambda image, a, b: np.zeros_like(a)), "wrong image"),
    ("augment-mixup", pasted(put=lambda image, a, b: image / 1.0), "keep the dtype uint8"),
    ("augment-mixup", overflowing, "wrong image"),
    ("augment-mixup", pasted(put=lambda image, a, b: image[..., 0]), "image should be an array"),
    ("augment-mixup", pasted(share=lambda s, lam: 1 - lam), "what was asked for"),
    ("augment-mixup", pasted(share=lambda s, lam: 1 - s), "shares are swapped"),
    ("augment-mixup", pasted(share=lambda s, lam: lam), "lam's, and swapped"),
    ("augment-mixup", pasted(share=lambda s, lam: 0.0), "that is a's target"),
    ("augment-mixup", pasted(share=lambda s, lam: 1.0), "that is b's target"),
    ("augment-mixup", pasted(share=lambda s, lam: 0.5), "halves"),
    ("augment-mixup", pasted(share=lambda s, lam: 0.31), "target is"),
    ("augment-mixup", whole_box, "less was pasted"),
    ("augment-mixup", lambda a, b, ta, tb, x, y, lam: (pasted()(a, b, ta, tb, x, y, lam)[0], ta + tb), "sum to 1"),
    ("augment-mixup", lambda a, b, ta, tb, x, y, lam: a, "two things"),
]
