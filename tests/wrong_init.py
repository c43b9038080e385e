"""Wrong answers to the exercises of lesson 5, and what the learner is told."""

import math

import numpy as np

from dlopt_course.init import orthogonal

Z = np.linspace(-8, 8, 4001)
MASSES = np.exp(-(Z**2) / 2) / np.sum(np.exp(-(Z**2) / 2))


def zero_gradients(x, y, **changed):
    right = 0.1 - np.bincount(y, minlength=10) / len(y)
    return {
        "0.weight": np.zeros((5, 64)),
        "0.bias": np.zeros(5),
        "2.weight": np.zeros((10, 5)),
        "2.bias": right,
    } | changed


def with_bias(change):
    return lambda x, y: zero_gradients(x, y, **{"2.bias": change(0.1 - np.bincount(y, minlength=10) / len(y), len(y))})


def with_other(name, shape):
    return lambda x, y: zero_gradients(x, y, **{name: np.full(shape, 0.1)})


def gain_of(reduce):
    return lambda activation: reduce(activation(Z))


def mean(values):
    return MASSES @ values


def he_by(std):
    return lambda shape, rng: rng.normal(0.0, std(shape), shape)


def kernel(shape):
    return math.prod(shape[2:])


he_right = he_by(lambda shape: math.sqrt(2 / math.prod(shape[1:])))


def unfixed(outputs, inputs, rng):
    q = np.linalg.qr(rng.normal(size=(max(outputs, inputs), min(outputs, inputs))))[0]
    return q if outputs >= inputs else q.T


def only_one_sign(outputs, inputs, rng):
    return (
        orthogonal((outputs, inputs), rng)
        if outputs < inputs
        else rng.choice([-1.0, 1.0]) * unfixed(outputs, inputs, rng)
    )


def narrow(outputs, inputs, rng):
    return orthogonal((max(outputs, inputs), min(outputs, inputs)), rng)


def rows_normed(outputs, inputs, rng):
    w = rng.normal(size=(outputs, inputs))
    return w / np.linalg.norm(w, axis=1, keepdims=True)


def scaled_by(size, send_up=lambda new, old: new):
    "Layer by layer: divides by size(outputs), sends up what the new or the old matrix makes."

    def answer(weights, x):
        done = []
        for w in weights:
            done.append(w / size(x @ w.T))
            x = np.tanh(x @ send_up(done[-1], w).T)
        return done

    return answer


def root_mean_square(z):
    return np.sqrt(np.mean(z**2))


def in_place(weights, x):
    for w in weights:
        w /= root_mean_square(x @ w.T)
        x = np.tanh(x @ w.T)
    return weights


def by_rows(weights, x):
    done = []
    for w in weights:
        done.append(w / np.sqrt(np.mean((x @ w.T) ** 2, axis=0))[:, None])
        x = np.tanh(x @ done[-1].T)
    return done


WRONG = [
    ("init-zero", with_bias(lambda b, n: 0 * b), "one gradient is not 0"),
    ("init-zero", with_bias(lambda b, n: -b), "the sign"),
    ("init-zero", with_bias(lambda b, n: n * b), "the sum over the samples"),
    ("init-zero", with_bias(lambda b, n: b - 0.1), "only one-hot"),
    ("init-zero", with_bias(lambda b, n: b + 0.01), r"2.bias\[3\] is -0.065, should be"),
    ("init-zero", with_bias(lambda b, n: b[:9]), r"2.bias should have shape \(10,\), got \(9,\)"),
    ("init-zero", with_bias(lambda b, n: [*b]), "2.bias should be a NumPy array"),
    ("init-zero", with_other("2.weight", (10, 5)), "the hidden units are all 0"),
    ("init-zero", with_other("0.weight", (5, 64)), "0.weight has no gradient: the slopes come down"),
    ("init-zero", with_other("0.bias", (5,)), "0.bias has no gradient"),
    ("init-zero", lambda x, y: {"2.bias": np.zeros(10)}, "the names should be"),
    ("init-zero", lambda x, y: None, "return a dict"),
    ("init-gain", gain_of(lambda y: mean(y**2)), "the mean square itself"),
    ("init-gain", gain_of(lambda y: 1 / mean(y**2)), "take the root"),
    ("init-gain", gain_of(lambda y: mean(y**2) ** 0.5), "the wrong way round"),
    ("init-gain", gain_of(lambda y: (mean(y**2) - mean(y) ** 2) ** -0.5), "do not subtract the mean"),
    ("init-gain", gain_of(lambda y: 1 / mean(np.abs(y))), "root of its mean square"),
    ("init-gain", lambda f: np.mean(f(np.linspace(-9, 9, 18_001)) ** 2) ** -0.5, "all z count alike"),
    ("init-gain", lambda f: 2**0.5, "the gain of leaky ReLU with slope 0.5 is 1.4142, should be 1.2649"),
    ("init-gain", lambda f: np.inf, "one finite number"),
    ("init-he", he_by(lambda s: 2 / s[0]), "still as given"),
    ("init-he", he_by(lambda s: 2 / math.prod(s[1:])), "takes the standard deviation"),
    ("init-he", he_by(lambda s: math.sqrt(2 / s[0])), "the first axis counts the outputs"),
    ("init-he", he_by(lambda s: math.sqrt(2 / (s[0] * kernel(s)))), "the first axis counts the outputs"),
    ("init-he", he_by(lambda s: math.sqrt(1 / math.prod(s[1:]))), "the start of LeCun"),
    ("init-he", he_by(lambda s: math.sqrt(2 / s[1])), "under the whole kernel"),
    ("init-he", he_by(lambda s: math.sqrt(4 / sum(s))), "the standard deviation is"),
    ("init-he", lambda s, rng: he_right(s, rng) + 0.1 / math.sqrt(math.prod(s[1:])), "the mean should be 0"),
    ("init-he", lambda s, rng: he_right(s, np.random.default_rng(0)), "draw from the rng"),
    ("init-he", lambda s, rng: 0.1, "should be a NumPy array"),
    ("init-residual", lambda n, g: g ** (1 / n) - 1, "alpha squared"),
    ("init-residual", lambda n, g: g ** (1 / n), "the factor of a block"),
    ("init-residual", lambda n, g: math.sqrt(math.log(g) / n), "that is for very many blocks"),
    ("init-residual", lambda n, g: math.sqrt((g - 1) / n), "they multiply"),
    ("init-residual", lambda n, g: 1 / n, "grow by 1.02"),
    ("init-residual", lambda n, g: -math.sqrt(g ** (1 / n) - 1), "greater than 0"),
    ("init-residual", lambda n, g: None, "one finite number"),
    ("init-orthogonal", unfixed, "multiply each column of Q"),
    ("init-orthogonal", only_one_sign, "mostly agree or differ in sign"),
    ("init-orthogonal", rows_normed, "the columns should be orthonormal"),
    ("init-orthogonal", narrow, r"should have shape \(3, 7\), got \(7, 3\)"),
    ("init-orthogonal", lambda m, n, rng: 2 * orthogonal((m, n), rng), "off by up to 3"),
    ("init-data", scaled_by(lambda z: np.mean(z**2)), "take its root"),
    ("init-data", scaled_by(np.std), "do not subtract the mean"),
    ("init-data", scaled_by(root_mean_square, lambda new, old: old), "send the new ones up"),
    ("init-data", scaled_by(lambda z: 2 * root_mean_square(z)), "in layer 0 the outputs have mean square 0.25"),
    ("init-data", scaled_by(lambda z: 1.0), "is as it was given"),
    ("init-data", scaled_by(lambda z: root_mean_square(np.tanh(z))), "after the tanh"),
    ("init-data", in_place, "should not be changed"),
    ("init-data", by_rows, "times one positive number"),
    ("init-data", lambda weights, x: [-w for w in weights], "times one positive number"),
    ("init-data", lambda weights, x: weights[:2], "as many matrices as were given"),
]  # fmt: skip
