"""Every array-API function of the course with inputs and its counterpart in torch: for equality, some also for speed.

Each entry gives the same tensors to ours and to torch's; both return the same arrays: values, then gradients.
"""

from collections.abc import Callable
from functools import partial
from math import cos, pi, radians, sin, sqrt, tan
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from dlopt_course import augment, layers, linear, losses, optim, regularize
from dlopt_course.core import assert_close, differences, to_numpy
from dlopt_course.optim import Optimizer, chain

RTOL = {torch.float64: 1e-9, torch.float32: 1e-4}  # of the largest number of the reference
STEPS = 4  # of each optimizer
FEW, MANY = 5, 1024  # the inner size of the arrays, for equality and for speed
INTERNAL = "internal: the same function of NumPy arrays"


class Missing(Exception):
    "A reference needs a package that is not installed."


class Function(NamedTuple):
    "What is compared, and with what."

    name: str  # "losses.mse": module and function
    covers: tuple  # the names of that module's functions which the comparison calls
    make: Callable  # (rng, rows) -> NumPy arrays in float64 or of integers
    ours: Callable  # of tensors; returns arrays
    theirs: Callable  # of the same tensors; returns the same arrays
    against: str  # what theirs is
    rows: int = 0  # of the arrays that are timed; 0: it is not timed
    times: float = 1.0  # how much wider the tolerance is than RTOL
    timed: Callable | None = None  # what is timed, where ours does more than theirs

    def given(self, device: torch.device, dtype: torch.dtype, rows: int = 0) -> list[torch.Tensor]:
        "The inputs as tensors: floats in the dtype, integers as they are."
        arrays = self.make(np.random.default_rng(0), rows or FEW + 1)
        tensors = [torch.from_numpy(np.array(a)) for a in arrays]
        return [t.to(device, dtype) if t.is_floating_point() else t.to(device) for t in tensors]


def difference(
    function: Function,
    device: torch.device,
    dtype: torch.dtype,  # float64 or float32
) -> float:  # the largest difference, relative to the largest number of the reference
    "Asserts that ours equals the reference on the device, and stays there, in the dtype."
    inputs = function.given(device, dtype)
    kept = [t.clone() for t in inputs]
    ours, theirs = (_listed(f(*inputs)) for f in (function.ours, function.theirs))
    worst = 0.0
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        name = f"{function.name}, result {i}"
        if isinstance(a, torch.Tensor) and (a.device.type, a.dtype) != (inputs[0].device.type, _dtype(b, dtype)):
            raise AssertionError(f"{name}: is {a.dtype} on {a.device}")
        a, b = to_numpy(a), np.asarray(to_numpy(b), to_numpy(a).dtype)
        rtol = RTOL[dtype] * function.times
        assert_close(a, b, rtol=rtol, atol=rtol * float(np.max(np.abs(b), initial=0)), name=name)
        worst = max(worst, differences(a, b)[1])
    if not all(torch.equal(a, b) for a, b in zip(inputs, kept, strict=True)):
        raise AssertionError(f"{function.name}: an input was changed")
    return float(worst)


def _dtype(reference, dtype: torch.dtype) -> torch.dtype:
    "Floats are of the inputs' dtype; others of the reference's."
    floats = not isinstance(reference, torch.Tensor) or reference.is_floating_point()
    return dtype if floats else reference.dtype


def _listed(results) -> list:
    "All arrays that a function returned, in order, whatever they were nested in; None is left out."
    if isinstance(results, (tuple, list)):
        return [x for one in results for x in _listed(one)]
    return [x for one in results.values() for x in _listed(one)] if isinstance(results, dict) else [results]


def normal(*shapes: tuple | str) -> Callable:
    "Makes standard normal arrays; in a shape 'n' are the rows, 'm' the inner size."

    def make(rng, n):
        return [rng.standard_normal(_sizes(shape, n)) for shape in shapes]

    return make


def _sizes(shape: tuple, n: int) -> tuple:
    return tuple({"n": n, "m": MANY if n > 100 else FEW}.get(s, s) for s in shape)


def with_grads(f: Callable, count: int | None = None) -> Callable:
    "f's value and, by autograd, the gradients by its first `count` floating-point arguments; the last one is dy."

    def both(*given):
        *inputs, dy = given
        leaves = [x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs]
        y = f(*leaves)
        by = [x for x in leaves if x.requires_grad][:count]
        return [y.detach(), *torch.autograd.grad(y, by, dy)]

    return both


# Losses


def loss(name: str, make: Callable, reference: Callable, rows: int = 0, against: str = "", **options) -> Function:
    "Value and gradient, in both of our forms."
    value, grad = getattr(losses, name), getattr(losses, f"{name}_grad")
    both = losses.value_and_grad(value)

    def ours(prediction, target):
        return [*both(prediction, target, **options), grad(prediction, target, **options)]

    def theirs(prediction, target):
        leaf = prediction.detach().requires_grad_()
        y = reference(leaf, target)
        (slope,) = torch.autograd.grad(y, leaf)
        return [y.detach(), slope, slope]

    covers = (name, f"{name}_grad", "value_and_grad")
    against = against or f"torch.nn.functional.{reference.__name__}, autograd"
    timed = partial(both, **options)
    return Function(f"losses.{name}", covers, make, ours, theirs, against, rows, timed=timed)


def with_labels(kind: str) -> Callable:
    "Scores and labels: 'classes' (n,), or of each score 'bits' 0 and 1, or 'signs' -1 and 1."

    def make(rng, n):
        scores = rng.standard_normal(_sizes(("n", "m"), n))
        if kind == "classes":
            return scores, rng.integers(0, scores.shape[1], n)
        bits = (rng.random(scores.shape) < 0.5).astype(float)
        return scores, 2 * bits - 1 if kind == "signs" else bits

    return make


def shares(rng, n):
    "Log-probabilities and probabilities of rows."
    a, b = (np.exp(rng.standard_normal(_sizes(("n", "m"), n))) for _ in range(2))
    return np.log(a / a.sum(1, keepdims=True)), b / b.sum(1, keepdims=True)


def focal(scores, labels):
    "From torch's cross-entropy of each element, after Lin et al. 2017."
    each = F.binary_cross_entropy_with_logits(scores, labels, reduction="none")
    return ((0.25 * labels + 0.75 * (1 - labels)) * (1 - torch.exp(-each)) ** 2 * each).mean()


def hinge(scores, signs):
    return torch.relu(1 - signs * scores).mean()


def batchmean(log_q, p):
    return F.kl_div(log_q, p, reduction="batchmean")


def soft(name: str, **options) -> Function:
    "A function of rows of scores, without a gradient of its own."
    ours, theirs = getattr(losses, name), getattr(torch, name)
    make, against = normal(("n", "m")), f"torch.{name}"
    return Function(f"losses.{name}", (name,), make, ours, lambda x: theirs(x, dim=-1), against, **options)


pairs = normal(("n", "m"), ("n", "m"))
ROWS = 2**14  # of 1,024 numbers: 64 MiB in float32, more than the cache of any GPU
LOSSES = [
    loss("mse", pairs, F.mse_loss, ROWS),
    loss("mae", pairs, F.l1_loss),
    loss("huber", pairs, F.huber_loss, ROWS),
    loss("binary_cross_entropy_with_logits", with_labels("bits"), F.binary_cross_entropy_with_logits, ROWS),
    loss("cross_entropy", with_labels("classes"), F.cross_entropy, ROWS),
    loss("kl_divergence", shares, batchmean, against="torch.nn.functional.kl_div, autograd"),
    loss("focal_loss", with_labels("bits"), focal, against="torch's cross-entropy of each element, autograd"),
    loss("hinge", with_labels("signs"), hinge, against="torch.relu, autograd"),
    soft("logsumexp"),
    soft("log_softmax", rows=ROWS),
    soft("softmax", rows=ROWS),
]


# Layers


def layer(name: str, shapes: tuple, reference: Callable, rows: int = 0, against: str = "", **options) -> Function:
    "Output and all gradients; the last array is dy."

    def ours(*given):
        *inputs, dy = given
        y, pullback, *_ = getattr(layers, name)(*inputs, **options)
        return [y, pullback(dy)]

    against = against or f"torch.nn.functional.{reference.__name__}, autograd"
    return Function(f"layers.{name}", (name,), normal(*shapes), ours, with_grads(reference), against, rows)


def activation(name: str, reference: Callable | None = None, rows: int = 0) -> Function:
    "A function of each number."
    reference = reference or getattr(F, name, None) or getattr(torch, name)
    return layer(name, (("n", "m"), ("n", "m")), reference, rows, f"torch's {reference.__name__}, autograd")


def by_layer_norm(x, weight, bias):
    return F.layer_norm(x, weight.shape, weight, bias)


def by_batch_norm(x, weight, bias):
    return F.batch_norm(x, None, None, weight, bias, training=True)


def network(x, w0, b0, w1, b1):
    return F.linear(torch.relu(F.linear(x, w0, b0)), w1, b1)


def our_network(*given):
    x, *arrays, dy = given
    params = dict(zip(("0.weight", "0.bias", "2.weight", "2.bias"), arrays, strict=True))
    y, pullback = layers.MLP((x.shape[1], arrays[0].shape[0], arrays[2].shape[0])).apply(params, x)
    grads, dx = pullback(dy)
    return [y, dx, *(grads[name] for name in params)]


attended = tuple(("n", 4, "m", 16) for _ in range(4))  # query, key, value, dy: as many steps as the inner size
LAYERS = [
    layer("linear", (("n", "m"), ("m", "m"), ("m",), ("n", "m")), F.linear, ROWS),
    *(activation(name) for name in ("leaky_relu", "sigmoid", "tanh", "elu", "softplus")),
    *(activation(name, rows=ROWS) for name in ("relu", "gelu", "silu")),
    layer("flatten", (("n", 2, "m"), ("n", 5 * 2)), partial(torch.flatten, start_dim=1), against="torch.flatten"),
    layer("layer_norm", (("n", "m"), ("m",), ("m",), ("n", "m")), by_layer_norm, ROWS, "torch's layer_norm, autograd"),
    layer("batch_norm", (("n", "m"), ("m",), ("m",), ("n", "m")), by_batch_norm, ROWS, "torch's batch_norm, autograd"),
    layer("attention", attended, F.scaled_dot_product_attention, 128, is_causal=False),
    Function(
        "layers.MLP",
        ("MLP", "sequential"),
        normal(("n", "m"), ("m", "m"), ("m",), ("m", "m"), ("m",), ("n", "m")),
        our_network,
        with_grads(network),
        "torch's linear and relu, autograd",
        ROWS,
    ),
]


# Update rules


def moved(make: Callable) -> Callable:
    "The parameter after a step for each gradient, by torch's optimizer."

    def theirs(param, *grads):
        p = param.clone().requires_grad_()
        optimizer = make([p])
        for g in grads:
            p.grad = g.clone()
            optimizer.step()
        return p.detach()

    return theirs


def we_move(rule: optim.Rule) -> Callable:
    "The parameter after a step for each gradient, by our Optimizer."

    def ours(param, *grads):
        params = {"w": param.clone()}
        optimizer = Optimizer(params, rule)
        for g in grads:
            optimizer.step({"w": g})
        return params["w"]

    return ours


def by_rule(rule: optim.Rule) -> Callable:
    "The same by the bare rule, as the lesson derives it: this is what is timed, and what torch.compile can trace."

    def ours(param, *grads):
        state = rule.init(param)
        for g in grads:
            move, state = rule.update(g, state, param)
            param = param + move
        return param

    return ours


def rule(name: str, reference: Callable, *links: str, rows: int = 0, against: str = "", **options) -> Function:
    "A rule with its defaults and some options, over several steps."
    covers = (name, *links, "Rule", "Optimizer", "chain", "scale_by_learning_rate")
    make = normal(*[("n", "m")] * (1 + STEPS))
    ours, theirs = getattr(optim, name)(**options), moved(partial(reference, **options))
    against = against or f"torch.optim.{reference.__name__}"
    return Function(f"optim.{name}", covers, make, we_move(ours), theirs, against, rows, timed=by_rule(ours))


def by_lion(param, *grads, lr=0.1, betas=(0.9, 0.99), weight_decay=0.1):
    "Algorithm 2 of Chen et al. 2023."
    p, m = param.clone(), torch.zeros_like(param)
    for g in grads:
        direction = torch.sign(torch.lerp(g, m, betas[0]))
        p = p - lr * (direction + weight_decay * p)
        m = torch.lerp(g, m, betas[1])
    return p


def polynomial(matrix, a=3.4445, b=-4.775, c=2.0315, steps=5):
    "What the iteration of Newton and Schulz does to the singular values, by torch's decomposition."
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    s = s / torch.linalg.vector_norm(s)
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ vt


def by_muon(param, *grads, lr=0.1, weight_decay=0.1, momentum=0.95):
    "torch.optim.Muon's update, which does the iteration in bfloat16, with the exact polynomial."
    p, m = param.clone(), torch.zeros_like(param)
    scale = sqrt(max(1.0, param.shape[0] / param.shape[1]))
    for g in grads:
        m = torch.lerp(g, m, momentum)
        p = p - lr * weight_decay * p - lr * scale * polynomial(torch.lerp(g, m, momentum))
    return p


def clipped(clip: Callable, limit: float) -> Callable:
    "Gradients clipped by torch, then its SGD."

    def theirs(param, *grads):
        p = param.clone().requires_grad_()
        for g in grads:
            p.grad = g.clone()
            clip([p], limit)
            torch.optim.SGD([p], lr=0.1).step()
        return p.detach()

    return theirs


steps = normal(*[("n", "m")] * (1 + STEPS))
by_grad_norm, by_grad_value = torch.nn.utils.clip_grad_norm_, torch.nn.utils.clip_grad_value_
RULES = [
    rule("sgd", torch.optim.SGD, "add_decayed_weights", rows=ROWS, lr=0.1, weight_decay=0.1),
    rule("sgd", torch.optim.SGD, "scale_by_momentum", rows=ROWS, lr=0.1, momentum=0.9, nesterov=True),
    rule("adagrad", torch.optim.Adagrad, "scale_by_adagrad", lr=0.1),
    rule("rmsprop", torch.optim.RMSprop, "scale_by_rmsprop", lr=0.1, momentum=0.9, centered=True),
    rule("adadelta", torch.optim.Adadelta, "scale_by_adadelta"),
    rule("adam", torch.optim.Adam, "scale_by_adam", rows=ROWS, lr=0.1),
    rule("adamw", torch.optim.AdamW, "scale_by_adam", rows=ROWS, lr=0.1),
    rule("nadam", torch.optim.NAdam, "scale_by_nadam", lr=0.1)._replace(times=10),  # torch keeps a product in float32
    rule("radam", torch.optim.RAdam, "scale_by_radam", lr=0.1),
    Function(
        "optim.lion",
        ("lion", "scale_by_lion"),
        steps,
        we_move(optim.lion(lr=0.1, weight_decay=0.1)),
        by_lion,
        "Chen et al. 2023, written with torch.lerp",
    ),
    Function(
        "optim.newton_schulz",
        ("newton_schulz",),
        normal((4, 6)),
        optim.newton_schulz,
        polynomial,
        "the polynomial of torch.linalg.svd",
        times=10,
    ),
    Function(
        "optim.muon",
        ("muon", "scale_by_muon"),
        normal(*[(4, 6)] * (1 + STEPS)),
        we_move(optim.muon(lr=0.1)),
        by_muon,
        "the polynomial of torch.linalg.svd",
        times=10,
    ),
    Function(
        "optim.clip_grad_norm",
        ("clip_grad_norm",),
        steps,
        we_move(chain(optim.clip_grad_norm(0.5), optim.sgd(lr=0.1))),
        clipped(by_grad_norm, 0.5),
        "torch.nn.utils.clip_grad_norm_",
    ),
    Function(
        "optim.clip_grad_value",
        ("clip_grad_value",),
        steps,
        we_move(chain(optim.clip_grad_value(0.5), optim.sgd(lr=0.1))),
        clipped(by_grad_value, 0.5),
        "torch.nn.utils.clip_grad_value_",
    ),
    Function(
        "optim.ema",
        ("ema",),
        pairs,
        lambda average, new: optim.ema({"w": average}, {"w": new}, 0.9),
        lambda average, new: torch.lerp(new, average, 0.9),
        "torch.lerp",
    ),
]


# Linear models


def regression(rng, n):
    "Features (n, m) and targets (n,)."
    X = rng.standard_normal((n, 256 if n > 100 else 3))
    return X, rng.standard_normal(n)


def orthogonal(rng, n):
    "Features with orthonormal columns times sqrt(n), so that each coefficient is found alone."
    return np.linalg.qr(rng.standard_normal((n, 3)))[0] * sqrt(n), rng.standard_normal(n)


ALPHA = 0.3


def by_normal_equations(X, y, alpha=ALPHA):
    return torch.linalg.solve(X.T @ X + alpha * torch.eye(X.shape[1], dtype=X.dtype, device=X.device), X.T @ y)


def by_hat_matrix(X, y, alphas=(0.1, ALPHA)):
    "Coefficients, trace of the hat matrix and errors without row i, for each alpha."
    found = []
    for alpha in alphas:
        w = by_normal_equations(X, y, alpha)
        hat = X @ by_normal_equations(X, torch.eye(len(X), dtype=X.dtype, device=X.device), alpha)
        found.append((w, torch.trace(hat), (y - X @ w) / (1 - torch.diagonal(hat))))
    return [torch.stack(part, dim=-1) for part in zip(*found, strict=True)]


def by_softshrink(X, y, alpha=ALPHA / 10):
    return F.softshrink(X.T @ y / len(y), alpha)


def gap_at_0(X, y):
    "Of w = 0 at half of alpha_max, where the dual point is y / 2."
    return linear.duality_gap(X, y, torch.zeros_like(X[0]), linear.alpha_max(X, y) / 2)


def ridge(solver: str, rows: int = 0) -> Function:
    "A solver of ridge regression."
    solve, against = partial(linear.ridge_solve, alpha=ALPHA, solver=solver), "torch.linalg.solve"
    name = f"linear.ridge_solve, {solver}"
    return Function(name, ("ridge_solve",), regression, solve, by_normal_equations, against, rows, times=10)


def proximal(name: str) -> Function:
    "A proximal solver where the closed form is known."
    ours = lambda X, y: getattr(linear, name)(X, y, ALPHA / 10, tol=1e-13 if X.dtype == torch.float64 else 1e-6).coef  # noqa: E731
    against = "torch's softshrink, exact for orthonormal columns"
    return Function(f"linear.{name}", (name, "Solution"), orthogonal, ours, by_softshrink, against, times=30)


LINEAR = [
    ridge("auto", 2**16),
    *(ridge(solver) for solver in ("normal", "cholesky", "dual", "svd")),
    Function(
        "linear.ridge_path",
        ("ridge_path", "RidgePath"),
        regression,
        lambda X, y: list(linear.ridge_path(X, y, [0.1, ALPHA]))[1:],
        by_hat_matrix,
        "torch.linalg.solve and the hat matrix",
        times=30,
    ),
    Function(
        "linear.soft_threshold",
        ("soft_threshold",),
        normal(("n", "m")),
        lambda x: linear.soft_threshold(x, 0.5),
        lambda x: F.softshrink(x, 0.5),
        "torch.nn.functional.softshrink",
        ROWS,
    ),
    Function(
        "linear.alpha_max",
        ("alpha_max",),
        regression,
        linear.alpha_max,
        lambda X, y: torch.linalg.vector_norm(X.T @ y, torch.inf) / len(y),
        "torch.linalg.vector_norm",
    ),
    Function(
        "linear.duality_gap",
        ("duality_gap",),
        regression,
        gap_at_0,
        lambda X, y: F.mse_loss(y / 2, y) / 2,
        "its closed form at 0, by torch's mse_loss",
        times=10,
    ),
    proximal("ista"),
    proximal("fista"),
]


# Regularization


def penalty(name: str, of_number: Callable, near: Callable, **options) -> Function:
    "Value, gradient and proximal map."
    value, grad, prox = (getattr(regularize, name + form) for form in ("", "_grad", "_prox"))

    def ours(w):
        return [value(w, **options), grad(w, **options), prox(w, **options, step=0.5)]

    def theirs(w):
        leaf = w.detach().requires_grad_()
        y = of_number(leaf).sum()
        return [y.detach(), *torch.autograd.grad(y, leaf), near(w)]

    covers = (name, f"{name}_grad", f"{name}_prox")
    make, against = normal(("n", "m")), "torch's abs, square, softshrink; autograd"
    return Function(f"regularize.{name}", covers, make, ours, theirs, against, ROWS)


def noisy(name: str, reference: Callable, against: str) -> Function:
    "Output and gradient where the random numbers are NumPy's."

    def ours(x, dy):
        y, pullback = getattr(regularize, name)(x, 0.3, np.random.default_rng(1))
        return [y, pullback(dy)]

    return Function(f"regularize.{name}", (name,), pairs, ours, with_grads(reference), against)


def drop(x):
    "What torch's dropout does to what it keeps, on the mask that our generator draws."
    kept = torch.from_numpy(np.random.default_rng(1).random(tuple(x.shape)) >= 0.3).to(x.device)
    return torch.where(kept, x / 0.7, torch.zeros_like(x))


def add_normals(x):
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal(tuple(x.shape)))
    return x + 0.3 * noise.to(x.device, x.dtype)


def our_smoothing(x, labels):
    dtype = {torch.float64: np.float64, torch.float32: np.float32}[x.dtype]
    return regularize.label_smoothing_targets(labels, x.shape[1], 0.1, dtype)


def by_one_hot(x, labels):
    return 0.9 * F.one_hot(labels, x.shape[1]).to(x.dtype) + 0.1 / x.shape[1]


def by_norm(w):
    return w * torch.clamp(1.5 / torch.linalg.vector_norm(w, dim=1, keepdim=True), max=1.0)


A, L1 = 0.3, 0.4  # strength, share of the L1 norm
REGULARIZE = [
    penalty("l2_penalty", lambda w: A / 2 * w**2, lambda w: w / (1 + 0.5 * A), alpha=A),
    penalty("l1_penalty", lambda w: A * w.abs(), lambda w: F.softshrink(w, 0.5 * A), alpha=A),
    penalty(
        "elastic_net_penalty",
        lambda w: A * L1 * w.abs() + A * (1 - L1) / 2 * w**2,
        lambda w: F.softshrink(w, 0.5 * A * L1) / (1 + 0.5 * A * (1 - L1)),
        alpha=A,
        l1_ratio=L1,
    ),
    noisy("dropout", drop, "torch.where, autograd"),
    noisy("gaussian_noise", add_normals, "torch's addition, autograd"),
    Function(
        "regularize.label_smoothing_targets",
        ("label_smoothing_targets",),
        with_labels("classes"),
        our_smoothing,
        by_one_hot,
        "torch.nn.functional.one_hot",
    ),
    Function(
        "regularize.max_norm",
        ("max_norm",),
        normal(("n", "m")),
        lambda w: regularize.max_norm(w, 1.5),
        by_norm,
        "torch.linalg.vector_norm",
        ROWS,
    ),
]


# Augmentation: images are (n, height, width, channels)

SIDE = 8  # of the images that are compared; those that are timed have 64


def images(rng, n):
    "Colour images from 0 to 1."
    side = 64 if n > 100 else SIDE
    return [rng.random((n, side, side + (n <= 100), 3))]


def with_matrix(rng, n):
    "Images, and a matrix that turns, shears and shifts a little."
    return [*images(rng, n), np.array([[1.1, 0.2, -0.7], [-0.3, 0.9, 1.2], [0.0, 0.0, 1.0]])]


def by_grid_sample(x, matrix):
    "torch's interpolation at the places where a matrix sends the pixels; outside is the nearest pixel."
    n, h, w, _ = x.shape
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    places = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1).to(x.device, x.dtype) @ matrix.T.to(x)
    unit = 2 * places[..., :2] / torch.tensor([w - 1, h - 1]).to(x) - 1
    grid = unit.expand(n, h, w, 2)
    moved = F.grid_sample(x.permute(0, 3, 1, 2), grid, padding_mode="border", align_corners=True)
    return moved.permute(0, 2, 3, 1)


def about_centre(x, turn: list, shift: tuple = (0.0, 0.0)):
    "torch's interpolation at turn (p - centre - shift) + centre, for every pixel p = (x, y)."
    h, w = x.shape[1:3]
    centre, turn = np.array([(w - 1) / 2, (h - 1) / 2]), np.array(turn, dtype=float)
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = turn, centre - turn @ (centre + shift)
    return by_grid_sample(x, torch.from_numpy(matrix))


def picture(name: str, ours: Callable, theirs: Callable, against: str, rows: int = 0, **options) -> Function:
    "A function of images."
    options = {"make": images, "covers": (name,)} | options
    return Function(name=f"augment.{name}", ours=ours, theirs=theirs, against=against, rows=rows, **options)


def channels_first(f: Callable) -> Callable:
    "A function of (n, c, h, w) as one of (n, h, w, c)."
    return lambda x: f(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def torchvision(name: str, *values, rows: int = 0) -> Function:
    "A function that torchvision has, where that is installed."

    def theirs(x):
        try:
            from benchmarks.peers import torchvision_v2

            function = getattr(torchvision_v2().functional, name)
        except ImportError:
            raise Missing("torchvision is not installed") from None
        return channels_first(lambda y: function(y, *values))(x)

    ours = lambda x: getattr(augment, name)(x, *values)  # noqa: E731
    return picture(name, ours, theirs, "torchvision.transforms.v2.functional", rows)


def on_numpy(name: str, *values, make: Callable = images, covers: tuple = (), **options) -> Function:
    "A function that torch lacks, against itself on NumPy arrays; random numbers are drawn by NumPy in both."

    def ours(*tensors):
        return getattr(augment, name)(*tensors, *[v() if callable(v) else v for v in values], **options)

    def theirs(*tensors):
        found = ours(*[to_numpy(t) for t in tensors])
        return [torch.from_numpy(np.array(x)) for x in _listed(found)]

    return picture(name, ours, theirs, INTERNAL, make=make, covers=(name, *covers))


def grey(x):
    return (x @ torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype, device=x.device))[..., None]


def hue_turned(x, shift=0.1):
    "By the definition of hue, saturation and value; no two channels of a pixel are equal here."
    value, low = x.amax(-1), x.amin(-1)
    red, green, blue = x.unbind(-1)
    apart = torch.stack([green - blue, blue - red, red - green], dim=-1) / (value - low)[..., None]
    sextant = (apart + torch.tensor([0, 2, 4]).to(x)).gather(-1, x.argmax(-1, keepdim=True))
    k = (torch.tensor([5, 3, 1]).to(x) + sextant + 6 * shift) % 6
    return value[..., None] - (value - low)[..., None] * torch.minimum(k, 4 - k).clamp(0, 1)


def resized(x):
    return F.interpolate(x, (5, 11), mode="bilinear", antialias=True, align_corners=False)


def interpolated(x):
    return F.interpolate(x, (32, 32), mode="bilinear", antialias=True, align_corners=False)


def points(rng, n):
    return [rng.random((n, 2)) * SIDE]


def boxes(rng, n):
    low = rng.random((n, 2)) * SIDE / 2
    return [np.concatenate([low, low + 1 + rng.random((n, 2)) * 2], axis=1)]


def with_classes(rng, n):
    return [*images(rng, n), rng.integers(0, 3, n)]


def masks(rng, n):
    return [rng.random((n, SIDE, SIDE)) * 0, rng.integers(0, 5, (n, SIDE, SIDE))]


def our_masks(_, classes):
    return augment.warp_masks(classes, MATRIX)


def masks_on_numpy(_, classes):
    return torch.from_numpy(augment.warp_masks(to_numpy(classes), MATRIX))


def generator():
    return np.random.default_rng(2)


def turned(degrees):
    a = radians(degrees)
    return [[cos(a), -sin(a)], [sin(a), cos(a)]]


MATRIX = np.array([[1.1, 0.2, -0.7], [-0.3, 0.9, 1.2], [0.0, 0.0, 1.0]])
IMAGES = 2**11  # of 64 x 64 x 3 numbers: 96 MiB in float32
AUGMENT = [
    picture(
        "warp",
        lambda x, m: augment.warp(x, to_numpy(m).astype(float)),
        by_grid_sample,
        "torch.nn.functional.grid_sample",
        make=with_matrix,
    ),
    picture(
        "rotate",
        lambda x: augment.rotate(x, 20),
        lambda x: about_centre(x, turned(20)),
        "torch.nn.functional.grid_sample",
        IMAGES,
        covers=("rotate", "warp", "affine_matrix"),
    ),
    picture(
        "shift",
        lambda x: augment.shift(x, 1.25, -0.5),
        lambda x: about_centre(x, np.eye(2), (1.25, -0.5)),
        "torch.nn.functional.grid_sample",
    ),
    picture(
        "zoom",
        lambda x: augment.zoom(x, 1.3),
        lambda x: about_centre(x, np.eye(2) / 1.3),
        "torch.nn.functional.grid_sample",
    ),
    picture(
        "shear",
        lambda x: augment.shear(x, 15),
        lambda x: about_centre(x, [[1, tan(15 * pi / 180)], [0, 1]]),
        "torch.nn.functional.grid_sample",
    ),
    picture(
        "resize",
        lambda x: augment.resize(x, (5, 11)),
        channels_first(resized),
        "torch.nn.functional.interpolate",
    ),
    picture(
        "resize",
        lambda x: augment.resize(x, (32, 32)),
        channels_first(interpolated),
        "torch.nn.functional.interpolate",
        IMAGES,
    ),
    picture("hflip", augment.hflip, lambda x: torch.flip(x, [2]), "torch.flip", IMAGES),
    picture("vflip", augment.vflip, lambda x: torch.flip(x, [1]), "torch.flip"),
    picture("crop", lambda x: augment.crop(x, 1, 2, 3, 4), lambda x: x[:, 1:4, 2:6], "torch's slices"),
    picture("to_nchw", augment.to_nchw, lambda x: x.permute(0, 3, 1, 2), "torch.permute"),
    picture("to_nhwc", augment.to_nhwc, lambda x: x.permute(0, 2, 3, 1), "torch.permute"),
    picture(
        "adjust_brightness",
        lambda x: augment.adjust_brightness(x, 1.4),
        lambda x: torch.clamp(1.4 * x, 0, 1),
        "torch.clamp",
        IMAGES,
    ),
    picture(
        "adjust_contrast",
        lambda x: augment.adjust_contrast(x, 1.4),
        lambda x: torch.clamp(torch.lerp(grey(x).mean((1, 2, 3), keepdim=True), x, 1.4), 0, 1),
        "torch.lerp and the brightness of ITU-R BT.601",
        IMAGES,
    ),
    picture(
        "adjust_saturation",
        lambda x: augment.adjust_saturation(x, 1.4),
        lambda x: torch.clamp(torch.lerp(grey(x).expand(x.shape), x, 1.4), 0, 1),
        "torch.lerp and the brightness of ITU-R BT.601",
    ),
    picture(
        "grayscale",
        lambda x: augment.grayscale(x, channels=1),
        grey,
        "torch's product with the weights of ITU-R BT.601",
        IMAGES,
    ),
    picture(
        "channel_shift", lambda x: augment.channel_shift(x, 0.2), lambda x: torch.clamp(x + 0.2, 0, 1), "torch.clamp"
    ),
    picture("solarize", lambda x: augment.solarize(x, 0.4), lambda x: torch.where(x >= 0.4, 1 - x, x), "torch.where"),
    picture("adjust_hue", lambda x: augment.adjust_hue(x, 0.1), hue_turned, "the definition of HSV, written in torch"),
    torchvision("adjust_sharpness", 1.7, rows=IMAGES),
    torchvision("posterize", 3),
    torchvision("autocontrast"),
    on_numpy("equalize"),
    on_numpy("add_noise", 0.1, generator),
    on_numpy("random_crop", (5, 6), generator, padding=2),
    on_numpy("random_resized_crop", (4, 3), generator),
    on_numpy("random_erasing", generator, probability=1.0),
    on_numpy("cutout", generator, 3),
    on_numpy("mixup", generator, make=with_classes, classes=3),
    on_numpy("cutmix", generator, make=with_classes, classes=3),
    on_numpy("rand_augment", generator, covers=("draw_rand_augment", "apply_operations", "Operations")),
    on_numpy("trivial_augment", generator, covers=("draw_trivial_augment",)),
    on_numpy("transform_points", lambda: MATRIX, make=points),
    on_numpy("transform_boxes", lambda: MATRIX, (SIDE, SIDE), make=boxes),
    picture("warp_masks", our_masks, masks_on_numpy, INTERNAL, make=masks),
]

FUNCTIONS = LOSSES + LAYERS + RULES + LINEAR + REGULARIZE + AUGMENT
LEFT_OUT = {  # what else these modules export, and why it is not here
    "layers": dict.fromkeys(
        ("conv2d", "max_pool2d", "avg_pool2d", "rnn", "lstm", "gru", "embedding", "CNN", "RNN"), "NumPy only"
    )
    | {"fit": "a loop over the functions above", "History": "holds floats"},
    "linear": dict.fromkeys(
        (
            "Ridge",
            "RidgeCV",
            "Lasso",
            "LassoCV",
            "ElasticNet",
            "ElasticNetCV",
            "lasso_solve",
            "lasso_path",
            "enet_path",
        ),
        "NumPy only",
    ),
    "regularize": {"EarlyStopping": "compares floats and keeps copies"},
    "augment": dict.fromkeys(("from_keras", "to_keras", "from_torchvision", "to_torchvision"), "matrices of NumPy")
    | dict.fromkeys(
        ("ImageDataGenerator", "NumpyArrayIterator", "DirectoryIterator", "AugmentedDataset", "SampleStreams"),
        "a generator of NumPy arrays",
    ),
}
