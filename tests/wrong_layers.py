"""Wrong answers to the exercises of lesson 4, and what the learner is told."""

import numpy as np
import scipy.linalg


def shares(x, axis=-1, top=True):
    grown = np.exp(x - x.max() if top else x)
    return grown / grown.sum(axis=axis, keepdims=axis is not None)


def stable(x):
    grown = np.exp(x - x.max(axis=-1, keepdims=True))
    return grown / grown.sum(axis=-1, keepdims=True)


def softmax(back=None, forward=stable):
    "A softmax with a mistake."

    def answer(x):
        y = forward(x)
        return y, lambda dy: (back or softmax_back)(y, dy)

    return answer


def softmax_back(y, dy):
    return y * (dy - (y * dy).sum(axis=-1, keepdims=True))


def softmax_in_place(x):
    x -= x.max(axis=-1, keepdims=True)
    return softmax()(x)


def norm(axis=1, mean=1.0, along=1.0, of_g=None, last=1.0, size=None, deviation=False, power=1):
    "The gradient of layer norm with a mistake."

    def answer(x, dy, weight, eps):
        s = (size or (lambda x, eps: np.sqrt(x.var(axis=axis, keepdims=True) + eps)))(x, eps)
        centred = x - x.mean(axis=axis, keepdims=True)
        u, g = centred / s, weight * dy if of_g is None else of_g * dy
        part = (centred if deviation else u) * (g * (centred if deviation else u)).mean(axis=axis, keepdims=True)
        slope = (g - mean * g.mean(axis=axis, keepdims=True) - along * part) / s**power
        return slope * (weight if last is None else last)

    return answer


def root(extra=0.0, inside=1.0, ddof=0):
    "A wrong size."
    return lambda x, eps: np.sqrt(x.var(axis=1, keepdims=True, ddof=ddof) + inside * eps) + extra * eps


def sums(x, dy, weight, eps):
    s = root()(x, eps)
    u, g = (x - x.mean(axis=1, keepdims=True)) / s, weight * dy
    return (g - g.sum(axis=1, keepdims=True) - u * (g * u).sum(axis=1, keepdims=True)) / s


def norm_in_place(x, dy, weight, eps):
    right = norm()(x, dy, weight, eps)
    x -= x.mean(axis=1, keepdims=True)
    return right


def put_back(dy, w, stride, length, step=None, weights=None, add=True):
    "The adjoint with a mistake."
    dx = np.zeros(length)
    weights = w if weights is None else weights
    for j, slope in enumerate(dy):
        start = (stride if step is None else step) * j
        place = dx[start : start + len(w)]
        place[:] = slope * weights[: len(place)] + (place if add else 0)
    return dx


def adjoint(**mistakes):
    return lambda dy, w, stride, length: put_back(dy, w, stride, length, **{k: v(w) for k, v in mistakes.items()})


def adjoint_in_place(dy, w, stride, length):
    right = put_back(dy, w, stride, length)
    dy *= 0
    return right


def svd(build):
    return lambda weight: build(*np.linalg.svd(weight))


def tame_in_place(weight):
    weight[:] = scipy.linalg.polar(weight)[0]
    return weight


def dense(slope=lambda y, z: 1 - y**2, bias=lambda dz: dz.sum(axis=0), forward=np.tanh, results=3):
    "A linear layer with tanh, with a mistake."

    def answer(x, weight, b):
        z = x @ weight.T + b
        y = forward(z)

        def pullback(dy):
            dz = dy * slope(y, z)
            return (dz @ weight, dz.T @ x, bias(dz))[:results]

        return y, pullback

    return answer


def transposed(x, weight, bias):
    y, back = dense()(x, weight, bias)

    def pullback(dy):
        dx, dweight, dbias = back(dy)
        return dx, dweight.T, dbias

    return y, pullback


def residual(of_x=lambda dx, dy: dx + dy, of_params=lambda g, dy: g, output=lambda x, y: x + y, as_tuple=True):
    "A residual block with a mistake."

    def answer(layer):
        def block(x, *params):
            y, back = layer(x, *params)

            def pullback(dy):
                grads = back(dy)
                dx, *others = grads if isinstance(grads, tuple) else (grads,)
                found = of_x(dx, dy), *(of_params(g, dy) for g in others)
                return found if as_tuple or others else found[0]

            return output(x, y), pullback

        return block

    return answer


def to_all(g, dy):
    return g + dy if g.ndim == 2 else g


def bptt(w, x, dy, state="before", of_dw=None, late=False, forget=False, last=False):
    "Back-propagation through time with a mistake."
    before, after, h = np.zeros(len(x)), np.zeros(len(x)), 0.0
    for t in range(len(x)):
        before[t], h = h, w * h + x[t]
        after[t] = h
    dw, dh, dx = 0.0, 0.0, np.zeros(len(x))
    for t in reversed(range(len(x))):
        dh = (0.0 if last and t < len(x) - 1 else dy[t]) + (0.0 if forget else dh)
        dx[t] = w * dh if late else dh
        dw += (dh if of_dw is None else of_dw[t]) * {"before": before, "after": after, "input": x}[state][t]
        dh = w * dh
    return dw, dx


def time(**mistakes):
    return lambda w, x, dy: bptt(w, x, dy, **mistakes)


def forwards(w, x, dy):
    dh, dx = 0.0, np.zeros(len(x))
    for t in range(len(x)):
        dh = dx[t] = dy[t] + w * dh
    return bptt(w, x, dy)[0], dx


def last_step_only(w, x, dy):
    dw, dx = bptt(w, x, dy)
    before = bptt(w, x, 0 * dy + (np.arange(len(x)) == len(x) - 1), of_dw=(np.arange(len(x)) == len(x) - 1) * 1.0)[0]
    return dx[-1] * before, dx


def time_in_place(w, x, dy):
    right = bptt(w, x, dy)
    dy[:] = right[1]
    return right


WRONG = [
    ("layers-softmax", softmax(forward=lambda x: shares(x, top=False)), "not finite for scores of ±1000"),
    ("layers-softmax", softmax(forward=lambda x: shares(x, axis=None)), "over the whole array"),
    ("layers-softmax", softmax(forward=lambda x: shares(x, axis=0)), "down the first axis"),
    ("layers-softmax", softmax(forward=lambda x: np.log(stable(x))), "logarithms of the shares"),
    ("layers-softmax", softmax(forward=lambda x: stable(x) ** 2), "shares are wrong for shape"),
    ("layers-softmax", softmax(lambda y, dy: dy * y * (1 - y)), "is the diagonal only"),
    ("layers-softmax", softmax(lambda y, dy: dy * y), r"sum of y \* dy over the row is missing"),
    ("layers-softmax", softmax(lambda y, dy: dy - (y * dy).sum(-1, keepdims=True)), "a factor y is missing"),
    ("layers-softmax", softmax(lambda y, dy: y * (dy - dy.sum(-1, keepdims=True))), "this one is of dy alone"),
    ("layers-softmax", softmax(lambda y, dy: y * (dy - (y * dy).sum())), "not over the whole array"),
    ("layers-softmax", softmax(lambda y, dy: y * (dy + (y * dy).sum(-1, keepdims=True))), "is subtracted"),
    ("layers-softmax", softmax(lambda y, dy: (softmax_back(y, dy),)), "the bare array, no tuple"),
    ("layers-softmax", softmax(lambda y, dy: 2 * softmax_back(y, dy)), "the slope is wrong for shape"),
    ("layers-softmax", stable, "return two things"),
    ("layers-softmax", softmax_in_place, "that came in was changed"),
    ("layers-layernorm", norm(mean=0, along=0), "taken as constants"),
    ("layers-layernorm", norm(mean=0), "the mean of g is missing"),
    ("layers-layernorm", norm(along=0), "the part along x_hat is missing"),
    ("layers-layernorm", norm(along=-1), "is subtracted"),
    ("layers-layernorm", norm(of_g=1.0), "the weight is missing"),
    ("layers-layernorm", norm(of_g=1.0, last=None), "the weight comes first"),
    ("layers-layernorm", norm(size=root(inside=0)), "eps is missing"),
    ("layers-layernorm", norm(size=root(inside=0, extra=1)), "inside the root"),
    ("layers-layernorm", norm(power=0), "the division by s is missing"),
    ("layers-layernorm", norm(power=2), "divided by the variance"),
    ("layers-layernorm", norm(size=root(ddof=1)), "not by one less"),
    ("layers-layernorm", sums, "sums where means should be"),
    ("layers-layernorm", norm(axis=0), "which is batch norm"),
    ("layers-layernorm", norm(axis=None), "each row is normalised by itself"),
    ("layers-layernorm", norm(deviation=True), "x - mean is not"),
    ("layers-layernorm", norm(last=2.0), "the slope is wrong"),
    ("layers-layernorm", lambda x, dy, weight, eps: norm()(x, dy, weight, eps)[0], "should be an array of shape"),
    ("layers-layernorm", norm_in_place, "that came in was changed"),
    ("layers-adjoint", adjoint(weights=lambda w: w[::-1]), "turned round; x"),
    ("layers-adjoint", adjoint(step=lambda w: 1), "the stride is missing"),
    ("layers-adjoint", adjoint(step=len), "not len.w. apart"),
    ("layers-adjoint", adjoint(add=lambda w: False), "their slopes add up"),
    ("layers-adjoint", adjoint(weights=np.ones_like), "the weights are missing"),
    ("layers-adjoint", lambda dy, w, s, n: put_back(dy, w, s, n)[::-1], "the slope is turned round"),
    ("layers-adjoint", lambda dy, w, s, n: put_back(dy, w, s, s * (len(dy) - 1) + len(w)), "array of shape .8,"),
    ("layers-adjoint", lambda dy, w, s, n: 2 * put_back(dy, w, s, n), "the slope is wrong"),
    ("layers-adjoint", adjoint_in_place, "that came in was changed"),
    ("layers-tame", lambda w: w / np.abs(np.linalg.eigvals(w)).max(), "divided by the spectral radius"),
    ("layers-tame", lambda w: w / np.linalg.norm(w, 2), "divided by the largest singular value"),
    ("layers-tame", lambda w: w / np.linalg.norm(w), "divided by its length"),
    ("layers-tame", lambda w: np.linalg.qr(w)[0], "the Q of a QR"),
    ("layers-tame", svd(lambda u, s, vt: u @ vt.T), "transposed already"),
    ("layers-tame", svd(lambda u, s, vt: vt @ u), "wrong order"),
    ("layers-tame", svd(lambda u, s, vt: (u @ vt).T), "this is the inverse"),
    ("layers-tame", svd(lambda u, s, vt: u), "not the nearest such matrix: its distance"),
    ("layers-tame", svd(lambda u, s, vt: u * np.sqrt(s) @ vt), "not orthogonal: its singular values"),
    ("layers-tame", np.copy, "nothing has changed"),
    ("layers-tame", lambda w: np.eye(len(w)), "the identity"),
    ("layers-tame", np.linalg.svd, "should be an array of shape"),
    ("layers-tame", tame_in_place, "that came in was changed"),
    ("layers-bug", dense(slope=lambda y, z: 1 - z**2), "one mistake is left: the derivative of tanh"),
    ("layers-bug", dense(slope=lambda y, z: 1), "derivative of tanh is gone"),
    ("layers-bug", dense(slope=lambda y, z: y * (1 - y)), "derivative of the sigmoid"),
    ("layers-bug", dense(bias=lambda dz: dz[0]), "every example moves the bias"),
    ("layers-bug", dense(bias=lambda dz: dz.mean(axis=0)), "not their mean"),
    ("layers-bug", dense(bias=lambda dz: dz), "the slope of bias should be an array"),
    ("layers-bug", dense(bias=lambda dz: -dz.sum(axis=0)), "the slope of bias is wrong"),
    ("layers-bug", dense(forward=np.arctan), "the output was right"),
    ("layers-bug", dense(results=2), "slopes of x, weight and bias"),
    ("layers-bug", transposed, "the slope of weight should be an array"),
    ("layers-residual", residual(output=lambda x, y: y), "x itself is missing"),
    ("layers-residual", residual(of_x=lambda dx, dy: dx), "x reaches the output by itself"),
    ("layers-residual", residual(of_x=lambda dx, dy: dy), "only the direct way is left"),
    ("layers-residual", residual(of_x=lambda dx, dy: dx * dy), "they do not multiply"),
    ("layers-residual", residual(of_x=lambda dx, dy: dx + 1), "has the slope dy, not 1"),
    ("layers-residual", residual(of_x=lambda dx, dy: dx + 2 * dy), "the direct way counts once"),
    ("layers-residual", residual(of_x=lambda dx, dy: dx - dy), "slope of x of a layer without parameters is wrong"),
    ("layers-residual", residual(of_params=to_all), "the weight is not on the direct way"),
    ("layers-residual", residual(of_params=lambda g, dy: 2 * g), "the slope of the weight is wrong"),
    ("layers-residual", residual(as_tuple=False), "should return a tuple of 1"),
    ("layers-residual", lambda layer: layer(np.ones((2, 3))), "return a function"),
    ("layers-time", time(forget=True), "dx: the slopes dy alone"),
    ("layers-time", time(last=True), "each dy.t. joins on the way"),
    ("layers-time", time(late=True), "once too often"),
    ("layers-time", forwards, "this walks forward"),
    ("layers-time", time(state="after"), "dx is right; dw: .* takes the one after it"),
    ("layers-time", time(state="input"), "this takes the input"),
    ("layers-time", lambda w, x, dy: bptt(w, x, dy, of_dw=dy), "not dy.t. alone"),
    ("layers-time", last_step_only, "add up over all of them"),
    ("layers-time", lambda w, x, dy: (2 * bptt(w, x, dy)[0], bptt(w, x, dy)[1]), "dx is right; dw is wrong"),
    ("layers-time", lambda w, x, dy: (bptt(w, x, dy)[0], 2 * bptt(w, x, dy)[1]), "dx is wrong for w"),
    ("layers-time", lambda w, x, dy: bptt(w, x, dy)[1], "return two things"),
    ("layers-time", time_in_place, "that came in was changed"),
]  # fmt: skip
