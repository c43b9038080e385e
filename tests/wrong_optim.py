"""Wrong answers to the exercises of lesson 2, and what the learner is told."""

import math

import numpy as np

from dlopt_course.optim import Rule, add_decayed_weights, chain, scale_by_learning_rate, scale_by_momentum, sgd


def rate_of(k):
    return (k - 1) / (k + 1)


def kappa(c):
    return np.max(c) / np.min(c)


def factor(c):
    return rate_of(kappa(c))


def rate(c):
    return 2 / (np.min(c) + np.max(c))


def sorting(c):
    c.sort()
    return rate(c), factor(c)


def steps(plain=rate_of, momentum=rate_of, log=np.log, whole=math.ceil, root=math.sqrt, half=1):
    "Steps of both methods, from their rates."
    return lambda k, s: tuple(whole(half * log(s) / -np.log(r)) for r in (plain(k), momentum(root(k))))


def rounded_up_twice(k, s):
    plain, momentum = steps()(k, s)
    return plain, momentum + 1


def look_ahead(look=None, lr_factor=1.0, more=0, returned="theta", start=0.0, twice=0, keep=True):
    "Nesterov's method with a mistake."

    def answer(slope, theta, lr, beta, steps):
        theta, v = theta.copy() if keep else theta, start * theta
        for _ in range(steps + more):
            old, v = v, beta * v - lr_factor * lr * slope(theta + (beta if look is None else look) * v)
            theta += v + twice * beta * old
        return {"theta": theta, "v": v, "ahead": theta + beta * v, "number": theta[0]}[returned]

    return answer


def descent(slope, theta, lr, beta, steps):
    for _ in range(steps):
        theta = theta - lr * slope(theta)
    return theta


def looking_back(slope, theta, lr, beta, steps):
    v = 0 * theta
    for _ in range(steps):
        v = beta * v + lr * slope(theta + beta * v)
        theta = theta - v
    return theta


def square_root(m, v, eps):
    return m / (np.sqrt(v) + eps)


def adam(of_m="beta1", of_v="beta2", direction=square_root, returned="param m v", late=0):
    "Adam with a mistake."

    def answer(param, grad, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
        betas = {"beta1": beta1, "beta2": beta2, "none": 0.0}
        m, v = beta1 * m + (1 - beta1) * grad, beta2 * v + (1 - beta2) * grad**2
        m_hat, v_hat = (x / (1 - betas[beta] ** (t + late)) for x, beta in ((m, of_m), (v, of_v)))
        found = {"param": param - lr * direction(m_hat, v_hat, eps), "m": m, "v": v, "m_hat": m_hat, "v_hat": v_hat}
        return tuple(found[name] for name in returned.split())

    return answer


def eps_inside(m, v, eps):
    return m / np.sqrt(v + eps)


def eps_before(param, grad, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v = beta1 * m + (1 - beta1) * grad, beta2 * v + (1 - beta2) * grad**2
    return param - lr * np.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (np.sqrt(v) + eps), m, v


def adam_in_place(param, grad, m, v, t):
    m *= 0.9
    m += 0.1 * grad
    return param, m, v


def param_in_place(param, grad, m, v, t):
    moved, m, v = adam()(param, grad, m, v, t)
    param[:] = moved
    return param, m, v


def always_first(param, grad, m, v, t, **options):
    return adam()(param, grad, m, v, 1, **options)


def deaf(param, grad, m, v, t, **options):
    return adam()(param, grad, m, v, t)


def batch(size, whole=math.ceil):
    "A batch size, from the floor of one example and all arguments."
    return lambda lr, c, s2, target: whole(size(lr * s2 / (c * (2 - lr * c)), lr, c, s2, target))


def norm(grads):
    return math.sqrt(sum(np.sum(g**2) for g in grads.values()))


def clip(length=norm, least=0.0, largest=1.0, wanted=None):
    "Clips all arrays by one factor, with a mistake."

    def answer(grads, max_norm):
        below = length(grads) + least
        shrink = min(largest, (wanted or max_norm) / below) if below else 1.0
        return {name: shrink * g for name, g in grads.items()}

    return answer


def each(grads, max_norm):
    return {name: g * min(1, max_norm / max(np.linalg.norm(g), 1e-300)) for name, g in grads.items()}


def dividing(grads, max_norm):
    return {name: g / np.float64(norm(grads)) * min(norm(grads), max_norm) for name, g in grads.items()}


def dividing_in_python(grads, max_norm):
    return {name: g * min(1.0, max_norm / norm(grads)) for name, g in grads.items()}


def directions(grads, max_norm):
    moved = clip()(grads, max_norm)
    sizes = {name: np.float64(np.linalg.norm(g)) for name, g in grads.items()}
    return {name: g / sizes[name] * sizes[name] if norm(grads) else g for name, g in moved.items()}


def one_at_zero(grads, max_norm):
    return {name: g + (norm(grads) == 0) for name, g in clip()(grads, max_norm).items()}


def clip_in_place(grads, max_norm):
    shrink = min(1.0, max_norm / max(norm(grads), 1e-300))
    for g in grads.values():
        g *= shrink
    return dict(grads)


def same_dict(grads, max_norm):
    grads.update(clip()(grads, max_norm))
    return grads


def without_zeros(grads, max_norm):
    return {name: g for name, g in clip()(grads, max_norm).items() if np.any(g)}


def plane(grads, max_norm):
    return {name: g.ravel() for name, g in clip()(grads, max_norm).items()}


def added(grads):
    return sum(np.linalg.norm(g) for g in grads.values())


def first_two(grads):
    return norm(dict(list(grads.items())[:2]))


def link(direction):
    return Rule(lambda param: {}, lambda grad, state, param: (direction(grad), state))


def signum(names="momentum sign decay rate", sign=np.sign, **settings):
    "A chain of the named links."

    def answer(lr, momentum, weight_decay):
        links = {
            "momentum": scale_by_momentum(settings.get("momentum", momentum)),
            "nesterov": scale_by_momentum(momentum, nesterov=momentum > 0),
            "sign": sign if isinstance(sign, Rule) else link(sign),
            "minus": link(lambda grad: -grad),
            "decay": add_decayed_weights(settings.get("decay", weight_decay)),
            "rate": scale_by_learning_rate(lr),
        }
        return chain(*map(links.get, names.split()))

    return answer


def kept_in_the_rule(lr, momentum, weight_decay):
    velocity = {}

    def update(grad, state, param):
        velocity[grad.shape] = momentum * velocity.get(grad.shape, 0.0) + grad
        return -lr * (np.sign(velocity[grad.shape]) + weight_decay * param), state

    return Rule(lambda param: {}, update)


def one_thing(grad, state, param):
    return np.sign(grad)


WRONG = [
    ("optim-best", lambda c: (1 / np.max(c), factor(c)), "safe step of the descent lemma"),
    ("optim-best", lambda c: (2 / np.max(c), factor(c)), "the edge"),
    ("optim-best", lambda c: (1 / np.mean(c), factor(c)), "mean of all curvatures"),
    ("optim-best", lambda c: (2 / (c[0] + c[-1]), rate_of(c[-1] / c[0])), "need not be in order"),
    ("optim-best", lambda c: (rate(c) / 2, factor(c)), "half of the best"),
    ("optim-best", lambda c: ((rate(np.sqrt(c))) ** 2, rate_of(kappa(c) ** 0.5)), "best rate of momentum"),
    ("optim-best", lambda c: (factor(c), rate(c)), "other way round"),
    ("optim-best", lambda c: (rate(c), -factor(c)), "a size, so not negative"),
    ("optim-best", lambda c: (rate(c), 1 - 1 / kappa(c)), "factor of the rate 1 / L"),
    ("optim-best", lambda c: (rate(c), rate_of(kappa(c) ** 0.5)), "factor of the best momentum"),
    ("optim-best", lambda c: (rate(c), factor(c) ** 2), "factor of the loss"),
    ("optim-best", lambda c: (rate(c), kappa(c)), "not the condition number"),
    ("optim-best", lambda c: (rate(c), max(0.0, 1 - 2 / kappa(c))), "factor is 0.875, should be 0.882353"),
    ("optim-best", lambda c: (2.1 * rate(c) / 2, factor(c)), "rate is 0.247059, should be 0.235294"),
    ("optim-best", lambda c: (rate(c), factor(c) if len(c) > 1 else math.nan), "factor should be one finite number"),
    ("optim-best", sorting, "was changed"),
    ("optim-best", rate, "return 2 numbers"),
    ("optim-best", lambda c: (2 / c, factor(c)), "the rate should be one finite number"),
    ("optim-steps", steps(whole=math.floor), "rounded down"),
    ("optim-steps", steps(whole=round), "rounded to the nearest"),
    ("optim-steps", steps(whole=float), "a whole number, got 30.9566; round it up"),
    ("optim-steps", steps(root=lambda k: k), "momentum has the square root of kappa"),
    ("optim-steps", lambda k, s: steps()(math.sqrt(k), s), "gradient descent has kappa itself"),
    ("optim-steps", lambda k, s: steps()(k, s)[::-1], "other way round"),
    ("optim-steps", steps(log=np.log10), "log10"),
    ("optim-steps", steps(lambda k: 1 - 1 / k), "gradient descent: 1 - 1/k is not the best rate"),
    ("optim-steps", steps(momentum=lambda k: 1 - 1 / k), "momentum: 1 - 1/k is not the best rate"),
    ("optim-steps", steps(lambda k: np.exp(-2 / k), lambda k: np.exp(-2 / k)), "approximation for large k"),
    ("optim-steps", steps(half=0.5), "square of the rate"),
    ("optim-steps", rounded_up_twice, "steps of momentum, for kappa = 9 and shrink = 1000: got 11, should be 10"),
    ("optim-steps", lambda k, s: steps()(k, s)[0], "return 2 numbers"),
    ("optim-steps", lambda k, s: (math.inf, 1), "one finite number"),
    ("optim-nesterov", look_ahead(look=0), "which is the heavy ball"),
    ("optim-nesterov", look_ahead(look=1), r"taken at theta \+ v"),
    ("optim-nesterov", looking_back, "looks back"),
    ("optim-nesterov", look_ahead(keep=False), "that came in was changed"),
    ("optim-nesterov", look_ahead(returned="ahead"), "which libraries keep"),
    ("optim-nesterov", look_ahead(returned="v"), "this is the velocity"),
    ("optim-nesterov", look_ahead(returned="number"), "should be an array of shape"),
    ("optim-nesterov", look_ahead(lr_factor=-1), "uphill"),
    ("optim-nesterov", look_ahead(lr_factor=1 - 0.8), "average form"),
    ("optim-nesterov", look_ahead(more=1), "one step too many"),
    ("optim-nesterov", look_ahead(start=1.0), "without velocity the first step"),
    ("optim-nesterov", look_ahead(twice=1), "coasts twice"),
    ("optim-nesterov", look_ahead(look=0.5), "after seven steps got"),
    ("optim-nesterov", descent, "velocity is forgotten"),
    ("optim-nesterov", lambda *args: None, "should be an array of shape"),
    ("optim-bug", adam(of_v="beta1", direction=eps_inside), "both mistakes are there"),
    ("optim-bug", adam(direction=eps_inside), "eps is still inside the root"),
    ("optim-bug", adam(of_v="beta1"), "still corrected by beta1"),
    ("optim-bug", adam(of_m="beta2"), "m is corrected by beta2 now"),
    ("optim-bug", adam(of_m="none"), "^m is not corrected"),
    ("optim-bug", adam(of_v="none"), "^v is not corrected"),
    ("optim-bug", adam(of_m="none", of_v="none"), "neither m nor v"),
    ("optim-bug", adam(late=1), "counted from 1 already"),
    ("optim-bug", eps_before, "the correction enlarges it"),
    ("optim-bug", adam_in_place, "the m that came in was changed"),
    ("optim-bug", param_in_place, "the param that came in was changed"),
    ("optim-bug", adam(direction=lambda m, v, eps: -square_root(m, v, eps)), "uphill"),
    ("optim-bug", adam(direction=lambda m, v, eps: m / np.sqrt(v)), "where the gradient is 0"),
    ("optim-bug", adam(direction=lambda m, v, eps: m / (v + eps)), "root of v_hat is missing"),
    ("optim-bug", adam(direction=lambda m, v, eps: square_root(m, v, eps**2)), "param is wrong after step 1"),
    ("optim-bug", adam(returned="param m_hat v_hat"), "m_hat and v_hat are for this step alone"),
    ("optim-bug", adam(returned="param v m"), "m is wrong after step 1"),
    ("optim-bug", adam(returned="param"), "return three things"),
    ("optim-bug", always_first, "param is wrong after step 2 with the defaults"),
    ("optim-bug", deaf, "param is wrong after step 1 with {'lr': 0.1"),
    ("optim-batch", batch(lambda one, lr, c, s2, v: lr * s2 / (2 * c) / v), "approximation for small rates"),
    ("optim-batch", batch(lambda one, lr, c, s2, v: lr * s2 / (c * (1 - lr * c)) / v), "not 1 - lr curvature"),
    ("optim-batch", batch(lambda one, lr, c, s2, v: one * c / v), "divided by the curvature, too"),
    ("optim-batch", batch(lambda one, lr, c, s2, v: one * c / 2 / v), "not the loss"),
    ("optim-batch", batch(lambda one, lr, c, s2, v: one / v**2), "do not square it"),
    ("optim-batch", batch(lambda one, lr, c, s2, v: one**0.5 / v), "root of the floor"),
    ("optim-batch", batch(lambda one, lr, c, s2, v: one * s2 / v), "variance is s"),
    ("optim-batch", batch(lambda one, lr, c, s2, v: one / v, math.floor), "rounded down"),
    ("optim-batch", batch(lambda one, lr, c, s2, v: one / v, round), "rounded to the nearest"),
    ("optim-batch", batch(lambda one, lr, c, s2, v: one / v, float), "whole number, got 25.86"),
    ("optim-batch", batch(lambda one, lr, c, s2, v: one / v), "got 0, but a batch has at least one"),
    ("optim-batch", batch(lambda one, lr, c, s2, v: one / v + 1, math.floor), "got 9, where the error settles at 0.44"),
    ("optim-batch", batch(lambda one, lr, c, s2, v: max(2, one / v)), "got 2, .* smallest batch that does it is 1"),
    ("optim-batch", batch(lambda one, lr, c, s2, v: v / one), "got 1, .* smallest batch that does it is 26"),
    ("optim-clip", each, "clipped by itself"),
    ("optim-clip", lambda grads, c: {k: g.clip(-c, c) for k, g in grads.items()}, "cut by itself"),
    ("optim-clip", lambda grads, c: dict(grads), "nothing was clipped"),
    ("optim-clip", clip(lambda grads: norm(grads) ** 2), "root is missing"),
    ("optim-clip", clip(added), "norms of the arrays were added"),
    ("optim-clip", clip(lambda grads: sum(np.abs(g).sum() for g in grads.values())), "sum of the sizes"),
    ("optim-clip", clip(lambda grads: max(np.abs(g).max() for g in grads.values())), "largest number"),
    ("optim-clip", clip(lambda grads: norm(grads) / sum(g.size for g in grads.values()) ** 0.5), "mean of the squares"),
    ("optim-clip", clip(wanted=1.0), "the norm became 1"),
    ("optim-clip", clip(least=1e-6), "leave out the 1e-6"),
    ("optim-clip", clip(largest=math.inf), "made longer"),
    ("optim-clip", lambda grads, c: clip(least=1.0 * (c > 10))(grads, c), "stay as they are at max_norm 13.0"),
    ("optim-clip", lambda grads, c: clip()(grads, c / 2), "should be .0.75, 0.0, "),
    ("optim-clip", dividing, "their norm is 0, do not divide"),
    ("optim-clip", dividing_in_python, "their norm is 0, do not divide"),
    ("optim-clip", one_at_zero, "all 0 should stay so"),
    ("optim-clip", directions, "one array is 0 and others are not"),
    ("optim-clip", clip(first_two), "not equal to torch's"),
    ("optim-clip", clip_in_place, "that came in were changed"),
    ("optim-clip", same_dict, "return a new dict"),
    ("optim-clip", without_zeros, "keep the names"),
    ("optim-clip", plane, "should be an array of shape"),
    ("optim-clip", lambda grads, c: list(clip()(grads, c).values()), "return a dict"),
    ("optim-signum", signum("sign momentum decay rate"), "sign comes before the momentum"),
    ("optim-signum", signum("momentum decay sign rate"), "swallows the decay"),
    ("optim-signum", signum("decay momentum sign rate"), "an L2 penalty"),
    ("optim-signum", signum("momentum sign rate"), "not decayed"),
    ("optim-signum", signum("momentum sign rate decay"), "after the learning rate"),
    ("optim-signum", signum("sign decay rate"), "momentum is missing"),
    ("optim-signum", signum("momentum decay rate"), "sign is missing"),
    ("optim-signum", signum("momentum sign decay rate minus"), "uphill: the move"),
    ("optim-signum", signum(sign=lambda grad: -np.sign(grad)), "uphill: the last link"),
    ("optim-signum", signum("momentum sign decay minus"), "learning rate is missing"),
    ("optim-signum", signum("nesterov sign decay rate"), "looks ahead as Nesterov does"),
    ("optim-signum", signum(sign=lambda grad: np.where(grad > 0, 1.0, -1.0)), "the sign of 0 is 0"),
    ("optim-signum", signum(sign=lambda grad: np.sign(grad, out=grad)), "changed the gradient"),
    ("optim-signum", signum(sign=lambda grad: np.sign(grad.sum())), "update returns should be an array"),
    ("optim-signum", signum(sign=Rule(lambda param: None, lambda grad, state, param: (grad, state))), "return a dict"),
    ("optim-signum", signum(sign=Rule(lambda param: {}, one_thing)), "should return two things"),
    ("optim-signum", signum(momentum=0.9), "for lr = 0.2, momentum = 0, weight_decay = 0 the weights after step"),
    ("optim-signum", signum(decay=0.25), "for lr = 0.1, momentum = 0.9, .* after step 1 are wrong"),
    ("optim-signum", kept_in_the_rule, "second time it moves otherwise"),
    ("optim-signum", lambda lr, momentum, weight_decay: sgd(lr, momentum).update, "return a Rule"),
]  # fmt: skip
