"""Models and `fit`: against torch's modules and its training loop, resumed bit for bit, bad input refused."""

import json
import math
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import FrozenInstanceError, asdict, dataclass, field
from functools import partial
from gc import collect
from itertools import cycle, islice, repeat
from pathlib import Path
from types import SimpleNamespace
from weakref import ref

import array_api_strict
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backends import no_gpu
from jupyter_client.manager import start_new_kernel

from dlopt_course import layers
from dlopt_course.core import assert_close, to_numpy
from dlopt_course.data import Dataset, load_digits
from dlopt_course.layers import (
    CNN,
    MLP,
    RNN,
    History,
    batch_norm,
    fit,
    gelu,
    leaky_relu,
    linear,
    relu,
    sequential,
    tanh,
)
from dlopt_course.losses import binary_cross_entropy_with_logits, cross_entropy, mae, mse, value_and_grad
from dlopt_course.optim import Optimizer, adam, adamw, chain, clip_grad_norm, sgd
from dlopt_course.regularize import EarlyStopping, dropout
from dlopt_course.schedules import cosine_annealing_lr

STEPS = 100


# The same networks in torch


class Recurrent(torch.nn.Module):
    "A recurrent layer whose last output goes into a linear one."

    def __init__(self, model: RNN):
        super().__init__()
        kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[model.cell]
        self.rnn = kind(model.inputs, model.hidden, batch_first=True)
        self.linear = torch.nn.Linear(model.hidden, model.outputs)

    def forward(self, x):
        return self.linear(self.rnn(x)[0][:, -1])


def in_torch(model) -> torch.nn.Module:
    "The network as somebody writes it who only knows torch."
    if isinstance(model, RNN):
        return Recurrent(model).double()
    if isinstance(model, MLP):
        parts = [torch.nn.Linear(*model.sizes[:2])]
        for i in range(1, len(model.sizes) - 1):
            parts += [torch.nn.ReLU(), torch.nn.Linear(*model.sizes[i : i + 2])]
        return torch.nn.Sequential(*parts).double()
    parts, (before, height, width) = [], model.image
    for after in model.channels:
        parts += [torch.nn.Conv2d(before, after, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        before, height, width = after, height // 2, width // 2
    parts += [torch.nn.Flatten(), torch.nn.Linear(before * height * width, model.classes)]
    return torch.nn.Sequential(*parts).double()


def with_params(model, params: dict) -> torch.nn.Module:
    "The torch network with our parameters, by their names."
    network = in_torch(model)
    network.load_state_dict({name: torch.tensor(p) for name, p in params.items()}, strict=True)
    return network


def made_models() -> dict[str, tuple]:
    "Models by name, each with the shape of a sample."
    return {
        "classic": (MLP((100, 64, 10)), (100,)),
        "digits": (MLP((64, 32, 10)), (64,)),
        "deep": (MLP([5, 4, 3, 6, 2]), (5,)),
        "linear": (MLP((7, 3)), (7,)),
        "cnn": (CNN((8, 16), 10, (1, 8, 8)), (1, 8, 8)),
        "odd image": (CNN((3,), 4, (2, 7, 5)), (2, 7, 5)),
        "one pixel": (CNN([2, 3, 4], 3, (1, 8, 9)), (1, 8, 9)),
        "lstm": (RNN(8, 16, 10), (8, 8)),
        "gru": (RNN(8, 16, 10, cell="gru"), (8, 8)),
        "rnn": (RNN(8, 16, 10, cell="rnn"), (8, 8)),
        "one step": (RNN(3, 1, 2), (1, 3)),
    }


MODELS = made_models()
each_model = pytest.mark.parametrize(("model", "shape"), MODELS.values(), ids=MODELS)


def outputs_of(model) -> int:
    "How many numbers it predicts."
    return model.sizes[-1] if isinstance(model, MLP) else model.classes if isinstance(model, CNN) else model.outputs


def batches(model, shape, number=STEPS, size=16, seed=0) -> list[tuple]:
    "Batches of random inputs, and classes that depend on them."
    rng = np.random.default_rng(seed)
    direction, k = rng.normal(size=(math.prod(shape), outputs_of(model))), outputs_of(model)
    xs = rng.normal(size=(number, size, *shape))
    return [(x, np.argmax(x.reshape(size, -1) @ direction, axis=1) % k) for x in xs]


@each_model
def test_outputs_and_gradients_are_torchs(model, shape):
    params = model.init(np.random.default_rng(0))
    network, x = with_params(model, params), np.random.default_rng(1).normal(size=(5, *shape))
    leaf = torch.tensor(x, requires_grad=True)
    theirs = network(leaf)
    y, pullback = model.apply(params, x)
    assert_close(y, theirs, rtol=1e-9, atol=1e-12)
    dy = np.random.default_rng(2).normal(size=y.shape)
    theirs.backward(torch.tensor(dy))
    grads, dx = pullback(dy)
    assert_close(dx, leaf.grad, rtol=1e-9, atol=1e-12)
    assert grads.keys() == params.keys()
    for name, p in network.named_parameters():
        assert_close(grads[name], p.grad, rtol=1e-9, atol=1e-12, name=name)


@each_model
def test_a_training_run_is_that_of_the_classic_torch_loop(model, shape):
    params, data = model.init(np.random.default_rng(0)), batches(model, shape)
    start = {name: p.copy() for name, p in params.items()}
    network, losses = with_params(model, params), []
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    for x, y in data:
        optimizer.zero_grad()
        loss = F.cross_entropy(network(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    history = fit(model, params, data, cross_entropy, adam(0.001), steps_per_epoch=STEPS)
    assert_close(np.array(history.step_loss), np.array(losses), rtol=1e-9)
    for name, p in network.state_dict().items():
        assert_close(params[name], p, rtol=1e-9, atol=1e-9, name=name)
    assert max(np.abs(params[name] - start[name]).max() for name in params) > 0.01


def test_digits_are_learned_as_in_torch():
    data, model = load_digits(scaled=True), MLP((64, 64, 10))
    params = model.init(np.random.default_rng(0))
    network, order = with_params(model, params), np.random.default_rng(5).permutation(len(data))
    history = fit(model, params, data, cross_entropy, adamw(0.01), batch_size=100, rng=np.random.default_rng(5))
    optimizer, losses = torch.optim.AdamW(network.parameters(), lr=0.01), []
    for i in range(0, len(data), 100):
        rows = order[i : i + 100]
        loss = F.cross_entropy(network(torch.tensor(data.x[rows])), torch.tensor(data.y[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert_close(np.array(history.step_loss), np.array(losses), rtol=1e-9)
    assert losses[-1] < 1 < 2 < losses[0]


@each_model
def test_a_pullback_may_be_called_again_and_changes_nothing(model, shape):
    params, x = model.init(np.random.default_rng(0)), np.random.default_rng(1).normal(size=(4, *shape))
    for array in (*params.values(), x):
        array.flags.writeable = False
    y, pullback = model.apply(params, x)
    dy = np.ones_like(y)
    dy.flags.writeable = False
    (first, dx), (second, dx_again) = pullback(dy), pullback(dy)
    np.testing.assert_array_equal(dx, dx_again)
    for name in params:
        np.testing.assert_array_equal(first[name], second[name])


@each_model
def test_float32_stays_float32(model, shape):
    params = model.init(np.random.default_rng(0), np.float32)
    x = np.random.default_rng(1).normal(size=(4, *shape)).astype(np.float32)
    y, pullback = model.apply(params, x)
    grads, dx = pullback(np.ones_like(y))
    assert {a.dtype for a in (y, dx, *params.values(), *grads.values())} == {np.dtype(np.float32)}


@pytest.mark.parametrize("activation", [tanh, gelu, leaky_relu])
def test_other_activations(activation):
    model, x = MLP((6, 5, 4, 3), activation), np.random.default_rng(1).normal(size=(4, 6))
    params = model.init(np.random.default_rng(0))
    hidden = torch.tensor(x)
    for i in (0, 2, 4):
        hidden = F.linear(hidden, torch.tensor(params[f"{i}.weight"]), torch.tensor(params[f"{i}.bias"]))
        of_torch = torch.tanh if activation is tanh else getattr(F, activation.__name__)
        hidden = of_torch(hidden) if i < 4 else hidden
    assert_close(model.apply(params, x)[0], hidden, rtol=1e-9, atol=1e-12)


# First parameters


@each_model
def test_init_has_torchs_names_shapes_and_bounds(model, shape):
    params, theirs = model.init(np.random.default_rng(0)), in_torch(model).state_dict()
    assert {name: p.shape for name, p in params.items()} == {name: tuple(p.shape) for name, p in theirs.items()}
    assert list(params) == list(theirs)
    for name, p in params.items():
        layer = name.rsplit(".", 1)[0]
        fan = model.hidden if isinstance(model, RNN) else math.prod(params[f"{layer}.weight"].shape[1:])
        assert p.dtype == np.float64
        assert p.flags.writeable
        assert np.abs(p).max() <= fan**-0.5
        if p.size >= 64:
            assert np.abs(p).max() > 0.8 * fan**-0.5  # by chance less in 0.8^64, one case in a million
            assert abs(p.mean()) < 6 * p.std() / p.size**0.5
            assert np.abs(to_numpy(theirs[name])).max() <= fan**-0.5


@each_model
def test_init_is_decided_by_the_generator(model, shape):
    first, again, other = (model.init(np.random.default_rng(seed)) for seed in (3, 3, 4))
    for name, p in first.items():
        np.testing.assert_array_equal(p, again[name])
        assert (p != other[name]).any()


def test_init_refuses_what_cannot_draw():
    for model, _ in MODELS.values():
        with pytest.raises(TypeError, match=r"rng must be a numpy.random.Generator, got int"):
            model.init(0)
        for dtype in (np.int64, torch.float32, "float33"):
            with pytest.raises(TypeError, match=rf"dtype must be a floating-point type of NumPy.*{dtype!r:.50}"):
                model.init(np.random.default_rng(0), dtype)


WRONG_MODELS = [
    (lambda: MLP((5,)), ValueError, "sizes"),
    (lambda: MLP(5), TypeError, "sizes"),
    (lambda: MLP((5, 0)), ValueError, r"sizes\[1\]"),
    (lambda: MLP((5, 2.5)), ValueError, r"sizes\[1\]"),
    (lambda: MLP((5, "2")), TypeError, r"sizes\[1\]"),
    (lambda: MLP((5, 2), "relu"), TypeError, "activation"),
    (lambda: CNN((), 10, (1, 8, 8)), ValueError, "channels"),
    (lambda: CNN(8, 10, (1, 8, 8)), TypeError, "channels"),
    (lambda: CNN((8,), 0, (1, 8, 8)), ValueError, "classes"),
    (lambda: CNN((8,), 10, (8, 8)), ValueError, "image"),
    (lambda: CNN((8, 8, 8, 8), 10, (1, 8, 8)), ValueError, "image must be 16 pixels"),
    (lambda: CNN((8, 8, 8), 10, (1, 7, 8)), ValueError, "image must be 8 pixels"),
    (lambda: CNN((8, 8, 8), 10, (1, 8, 7)), ValueError, "image must be 8 pixels"),
    (lambda: RNN(0, 3, 2), ValueError, "inputs"),
    (lambda: RNN(3, True, 2), TypeError, "hidden"),
    (lambda: RNN(3, 3, -1), ValueError, "outputs"),
    (lambda: RNN(3, 3, 2, "GRU"), ValueError, "cell must be one of 'lstm', 'gru', 'rnn'"),
]


@pytest.mark.parametrize(("make", "error", "says"), WRONG_MODELS)
def test_impossible_models(make, error, says):
    with pytest.raises(error, match=says):
        make()


@each_model
def test_models_say_which_parameters_they_need(model, shape):
    params, x = model.init(np.random.default_rng(0)), np.zeros((2, *shape))
    missing, more = dict(params), params | {"9.more": np.zeros(1)}
    del missing[list(params)[0]]
    for wrong in (missing, more):
        with pytest.raises(ValueError, match=r"params must .*\.(weight|bias)"):
            model.apply(wrong, x)
    with pytest.raises(TypeError, match="params must be a dict"):
        model.apply(list(params.values()), x)
    for name, p in params.items():
        for other in (np.concatenate([p, p]), p[:, None]):
            says = f"params['{name}'] must have shape {p.shape}, got {other.shape}"
            with pytest.raises(ValueError, match=re.escape(says)):
                model.apply(params | {name: other}, x)
    with pytest.raises((TypeError, ValueError), match="must be (arrays|an array|a NumPy array)"):
        model.apply(params | {name: "text"}, x)
    with pytest.raises(ValueError, match="must"):
        model.apply(params, x[..., :-1] if x.shape[-1] > 1 else x[..., :0])


def test_models_are_values():
    assert MLP((3, 2)) == MLP([3, 2])
    assert len({MLP((3, 2)), MLP((3, 2)), RNN(1, 2, 3), CNN((2,), 3, (1, 4, 4))}) == 3
    for model, name in ((MLP((3, 2)), "sizes"), (RNN(1, 2, 3), "hidden"), (CNN((2,), 3, (1, 4, 4)), "classes")):
        with pytest.raises(FrozenInstanceError):
            setattr(model, name, 5)


@each_model
def test_models_can_be_sent_to_another_process(model, shape):
    params, x = model.init(np.random.default_rng(0)), np.ones((2, *shape))
    y = model.apply(params, x)[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).apply(params, x)[0], y)


@each_model
def test_models_can_be_copied(model, shape):
    params, x = model.init(np.random.default_rng(0)), np.ones((2, *shape))
    y = model.apply(params, x)[0]
    for twin in (copy(model), deepcopy(model)):
        assert twin == model
        np.testing.assert_array_equal(twin.apply(params, x)[0], y)
        assert "_layers" not in vars(copy(model))  # a function without a name, which cannot be sent


class Negative:
    "An activation that cannot be hashed."

    __hash__ = None

    def __call__(self, x):
        return -x, lambda dy: -dy


def test_activations_that_cannot_be_hashed():
    model, x = MLP((4, 5, 3), Negative()), small().x
    params = model.init(np.random.default_rng(0))
    y = -(x @ params["0.weight"].T + params["0.bias"]) @ params["2.weight"].T + params["2.bias"]
    assert_close(model.apply(params, x)[0], y, rtol=1e-12)


def test_activations_are_not_kept_for_ever():
    activation = partial(leaky_relu, negative_slope=0.5)
    model, gone = MLP((4, 5, 3), activation), ref(activation)
    model.apply(model.init(np.random.default_rng(0)), small().x)
    del model, activation
    collect()
    assert gone() is None


# fit: what is trained on


def small(n=50, seed=0, k=3) -> Dataset:
    "Points in the plane of four numbers, in classes."
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    return Dataset(x, np.argmax(x[:, :k], axis=1))


@dataclass
class Training:
    "Everything that a call of `fit` takes, made anew."

    model: object = field(default_factory=lambda: MLP((4, 5, 3)))
    rule: object = field(default_factory=lambda: adam(0.01))
    seed: int = 1

    def __post_init__(self):
        self.params = self.model.init(np.random.default_rng(self.seed))
        self.optimizer = Optimizer(self.params, self.rule)
        self.rng = np.random.default_rng(self.seed + 1)

    def fit(self, data=None, loss=cross_entropy, model=None, **options) -> History:
        options = {"rng": self.rng, "epochs": 3, "batch_size": 16} | options
        data, model = small() if data is None else data, model or self.model
        return fit(model, self.params, data, loss, self.optimizer, **options)

    def all(self) -> dict:
        "Parameters, optimizer state and generator state."
        state = {"rng": np.array(json.dumps(self.rng.bit_generator.state, default=lambda x: x.tolist()))}
        return {name: p.copy() for name, p in self.params.items()} | self.optimizer.state_dict() | state


def assert_same(ours: dict, reference: dict):
    "Bit for bit."
    assert ours.keys() == reference.keys()
    for name, x in reference.items():
        np.testing.assert_array_equal(ours[name], x, err_msg=name, strict=True)


def test_history_is_what_happened():
    training, data, held, epochs = Training(), small(), small(40, 7), 3
    history = training.fit(data, validation=held, epochs=epochs)
    by_hand, losses = Training(), []
    both, rng = value_and_grad(cross_entropy), np.random.default_rng(2)
    for epoch in range(epochs):
        order = rng.permutation(50)
        for i in range(0, 50, 16):
            rows = order[i : i + 16]
            y, pullback = by_hand.model.apply(by_hand.params, data.x[rows])
            value, slope = both(y, data.y[rows])
            by_hand.optimizer.step(pullback(slope)[0])
            losses.append((value, len(rows)))
        y, _ = by_hand.model.apply(by_hand.params, held.x)
        assert history.validation_loss[epoch] == pytest.approx(cross_entropy(y, held.y), rel=1e-12)
        assert history.validation_accuracy[epoch] == np.mean(np.argmax(y, axis=1) == held.y)
    assert history.step_loss == [value for value, _ in losses]
    of_epochs = [losses[i : i + 4] for i in range(0, 12, 4)]
    means = [sum(v * n for v, n in e) / 50 for e in of_epochs]
    assert history.loss == pytest.approx(means, rel=1e-12)
    assert_same(training.params | training.optimizer.state_dict(), by_hand.params | by_hand.optimizer.state_dict())
    assert all(type(v) is float for values in asdict(history).values() for v in values)


def test_validation_in_several_blocks():
    history = Training().fit(validation=(held := small(700, 3)), epochs=1)
    training = Training()
    training.fit(epochs=1)
    y, _ = training.model.apply(training.params, held.x)
    assert history.validation_loss == [pytest.approx(cross_entropy(y, held.y), rel=1e-12)]
    assert history.validation_accuracy == [np.mean(np.argmax(y, axis=1) == held.y)]


def test_validation_does_not_touch_the_training():
    with_it, without = Training(), Training()
    history = with_it.fit(validation=small(20, 9))
    assert history.step_loss == without.fit().step_loss
    assert_same(with_it.all(), without.all())


def test_a_regression_has_no_accuracy():
    data = Dataset(small().x, small().x[:, :3] * 2)
    history = Training().fit(data, mse, validation=data, epochs=30)
    assert history.validation_accuracy == []
    assert len(history.validation_loss) == len(history.loss) == 30
    assert history.validation_loss[-1] < 0.5 * history.validation_loss[0]


def test_a_dataset_a_pair_and_a_list_are_the_same():
    found = []
    for data in (small(), (small().x, small().y), [small().x, small().y]):
        training = Training()
        found.append((training.fit(data), training.all()))
    for history, everything in found:
        assert history == found[0][0]
        assert_same(everything, found[0][1])


def stream(data: Dataset, batch_size: int, rng: np.random.Generator):
    "Batches without end, as people wrote them for fit_generator."
    while True:
        order = rng.permutation(len(data))
        for i in range(0, len(data), batch_size):
            yield data.x[order[i : i + batch_size]], data.y[order[i : i + batch_size]]


def test_a_generator_of_the_same_batches_is_the_same():
    arrays, generator = Training(), Training()
    history = arrays.fit(validation=small(20, 5))
    batches_of = stream(small(), 16, generator.rng)
    assert generator.fit(batches_of, steps_per_epoch=4, validation=small(20, 5)) == history
    assert_same(generator.all(), arrays.all())


def test_steps_per_epoch_and_epochs_say_how_many_batches_are_drawn():
    drawn = []

    def counted():
        for batch in stream(small(), 16, np.random.default_rng(0)):
            drawn.append(1)
            yield list(batch)

    history = Training().fit(counted(), steps_per_epoch=7, epochs=2, rng=None)
    assert len(drawn) == len(history.step_loss) == 14
    assert len(history.loss) == 2


def test_two_batches_in_a_list_are_batches():
    for kind in (tuple, list):
        batch = kind([small().x, small().y])
        assert len(Training().fit([batch, batch], steps_per_epoch=2, epochs=1).step_loss) == 2


@pytest.mark.parametrize("given", [0, 3, 5])
def test_a_generator_that_ends_early(given):
    training = Training()
    with pytest.raises(ValueError, match=f"data must give steps_per_epoch x epochs batches, but ended after {given}"):
        training.fit(islice(stream(small(), 16, training.rng), given), steps_per_epoch=3, epochs=2)
    assert (training.optimizer.state_dict()["0.bias/0.step"] == given).all()


@pytest.mark.parametrize("kind", [list, tuple])
def test_batches_in_a_list_begin_anew_when_they_end(kind):
    training, endless = Training(), Training()
    batches = [(small().x, small().y), (small(9).x, small(9).y), [small(7).x, small(7).y]]
    history = training.fit(kind(batches), steps_per_epoch=4, epochs=2)
    assert history == endless.fit(cycle(batches), steps_per_epoch=4, epochs=2)
    assert_same(training.all(), endless.all())


def test_a_data_loader():
    model, x, y = MLP((4, 5, 3)), torch.tensor(small().x), torch.tensor(small().y)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16)
    runs = []
    for data in (loader, cycle([(x[i : i + 16], y[i : i + 16]) for i in range(0, 50, 16)])):
        params = as_library(torch, model.init(np.random.default_rng(1)), small())[0]
        runs.append(fit(model, params, data, cross_entropy, adam(0.01), steps_per_epoch=4, epochs=3))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("given", [0, 1, 2])
def test_batches_that_do_not_begin_anew(given):
    class Once:
        "Gives the same iterator every time."

        batches = iter([(small().x, small().y)] * given)

        def __iter__(self):
            return self.batches

    with pytest.raises(ValueError, match=f"but ended after {given}"):
        Training().fit(Once(), steps_per_epoch=3, epochs=1)


def test_what_is_no_batch_is_not_the_end():
    for wrong in (None, 0, []):
        with pytest.raises(TypeError, match=r"epoch 1, step 2: data must give batches \(x, y\), got"):
            Training().fit(iter([(small().x, small().y), wrong]), steps_per_epoch=2, epochs=1)


def test_seeds_decide():
    runs = []
    for seed in (1, 1, 2):
        training = Training(seed=seed)
        runs.append((training.fit(), training.all()))
    assert runs[0][0] == runs[1][0] != runs[2][0]
    assert_same(runs[0][1], runs[1][1])


def test_nothing_but_the_parameters_is_changed():
    data, held = small(), small(20, 5)
    before = [a.copy() for a in (data.x, data.y, held.x, held.y)]
    for a in (data.x, data.y, held.x, held.y):
        a.flags.writeable = False
    state = np.random.mtrand._rand.get_state()[1].copy()
    Training().fit(data, validation=held)
    for a, b in zip((data.x, data.y, held.x, held.y), before, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.random.mtrand._rand.get_state()[1], state)


def test_a_rule_is_made_an_optimizer():
    training, by_rule = Training(), Training()
    history = training.fit()
    assert history == fit(
        by_rule.model, by_rule.params, small(), cross_entropy, adam(0.01), epochs=3, batch_size=16, rng=by_rule.rng
    )
    for name, p in training.params.items():
        np.testing.assert_array_equal(by_rule.params[name], p)


def test_without_options_there_is_one_epoch_of_batches_of_32():
    for n, steps in ((32, 1), (33, 2)):
        training = Training()
        history = fit(training.model, training.params, small(n), cross_entropy, adam(), rng=training.rng)
        assert (len(history.loss), len(history.step_loss)) == (1, steps)


def test_one_sample_and_large_batches():
    assert len(Training().fit(small(1), batch_size=1).step_loss) == 3
    assert len(Training().fit(small(50), batch_size=1000).step_loss) == 3


def test_any_model_with_apply():
    class Line:
        def apply(self, params, x):
            return x * params["a"], lambda dy: ({"a": np.sum(dy * x, axis=0)}, dy * params["a"])

    params, x = {"a": np.ones(2)}, np.random.default_rng(0).normal(size=(64, 2))
    fit(Line(), params, (x, x * [3.0, -1]), mse, sgd(0.2), epochs=40, rng=np.random.default_rng(0))
    assert_close(params["a"], np.array([3.0, -1]), rtol=1e-6)


def normalised(layers_of=sequential) -> tuple:
    "A network with batch norm, as a function, and its parameters."
    rng = np.random.default_rng(0)
    params = MLP((4, 5, 3)).init(rng)
    params = {name.replace("2", "3"): p for name, p in params.items()}
    return layers_of(linear, batch_norm, relu, linear), params | {"1.weight": np.ones(5), "1.bias": np.zeros(5)}


def test_batch_norm_and_a_function_as_model():
    apply, params = normalised()
    again, rng = SimpleNamespace(apply=apply), np.random.default_rng
    other = {name: p.copy() for name, p in params.items()}
    held = small(513, 3)
    history = fit(apply, params, small(48), cross_entropy, adam(0.01), epochs=20, validation=held, rng=rng(0))
    reference = fit(again, other, small(48), cross_entropy, adam(0.01), epochs=20, validation=held, rng=rng(0))
    assert history == reference
    assert history.validation_loss[-1] < 0.8 * history.validation_loss[0]
    blocks = [slice(0, 171), slice(171, 342), slice(342, 513)]
    losses = [cross_entropy(apply(params, held.x[rows])[0], held.y[rows]) for rows in blocks]
    assert history.validation_loss[-1] == pytest.approx(np.mean(losses), rel=1e-12)


@pytest.mark.parametrize("n", [*range(1, 6), *range(255, 260), 511, 512, 513, 5000])
def test_no_block_is_a_single_sample(n):
    seen = []

    def apply(params, x):
        seen.append(x[:, 0])
        return x * params["a"], lambda dy: ({"a": np.sum(dy * x, axis=0)}, None)

    x = np.arange(float(n))[:, None] / n
    data = (np.ones((4, 1)), np.ones((4, 1)))
    history = fit(
        apply, {"a": np.ones(1)}, data, mse, sgd(1e-9), batch_size=4, validation=(x, x), rng=np.random.default_rng(0)
    )
    assert len(history.validation_loss) == 1
    rehearsed, held_rehearsed, trained, *blocks = seen
    assert (len(rehearsed), len(held_rehearsed), len(trained)) == (2, min(n, 2), 4)
    np.testing.assert_array_equal(np.concatenate(blocks), x[:, 0])
    assert len(blocks) == math.ceil(n / 256)
    assert all(min(n, 2) <= len(rows) <= 256 for rows in blocks)


def test_a_loss_with_options():
    training, by_hand = Training(), Training()
    loss = partial(cross_entropy, label_smoothing=0.1, weight=np.array([1.0, 2, 3]))
    history = training.fit(loss=loss, epochs=1, batch_size=50, validation=small())
    y, pullback = by_hand.model.apply(by_hand.params, small().x)
    value, slope = value_and_grad(cross_entropy)(y, small().y, **loss.keywords)
    by_hand.optimizer.step(pullback(slope)[0])
    assert history.loss == [pytest.approx(value, rel=1e-12)]
    for name, p in by_hand.params.items():
        assert_close(training.params[name], p, rtol=1e-9, atol=1e-12)
    y, _ = training.model.apply(training.params, small().x)
    assert history.validation_loss == [pytest.approx(loss(y, small().y), rel=1e-12)]


def test_binary_targets():
    x = small(100).x
    history = fit(
        model := MLP((4, 8, 1)),
        model.init(np.random.default_rng(0)),
        (x, (x[:, :1] > 0).astype(float)),
        binary_cross_entropy_with_logits,
        adam(0.03),
        epochs=30,
        rng=np.random.default_rng(0),
    )
    assert history.loss[-1] < 0.2 * history.loss[0]


def as_library(xp, params, data, **where):
    "Parameters and data as arrays of another library."
    moved = {name: xp.asarray(p, **where) for name, p in params.items()}
    return moved, (xp.asarray(data.x, **where), xp.asarray(data.y, **where))


LIBRARIES = [
    pytest.param(array_api_strict, {}, id="array_api_strict"),
    pytest.param(torch, {"device": "cpu"}, id="torch"),
    pytest.param(torch, {"device": "cuda"}, id="cuda", marks=no_gpu),
]


@pytest.mark.parametrize(("xp", "where"), LIBRARIES)
def test_other_libraries(xp, where, tmp_path):
    training, model = Training(), MLP((4, 5, 3))
    history = training.fit(validation=small(30, 4))
    for epochs in (2, 3):  # the second call goes on
        params, data = as_library(xp, model.init(np.random.default_rng(1)), small(), **where)
        held = as_library(xp, {}, small(30, 4), **where)[1]
        options = {"rng": np.random.default_rng(2), "batch_size": 16, "checkpoint": tmp_path / "run.npz"}
        found = fit(model, params, data, cross_entropy, adam(0.01), epochs=epochs, validation=held, **options)
    for key, values in asdict(history).items():
        assert getattr(found, key) == pytest.approx(values, rel=1e-9)
    for name, p in training.params.items():
        assert type(params[name]) is type(xp.asarray([1.0]))
        assert_close(np.asarray(params[name].cpu() if xp is torch else params[name]), p, rtol=1e-9, atol=1e-12)


def test_torch_parameters_that_want_gradients():
    model = MLP((4, 5, 3))
    params, data = as_library(torch, model.init(np.random.default_rng(1)), small())
    start = {name: p.clone() for name, p in params.items()}
    for p in params.values():
        p.requires_grad_()
    fit(model, params, data, cross_entropy, Optimizer(params, adam(0.01)), rng=np.random.default_rng(2))
    assert all(p.requires_grad and p.grad is None and (p != start[name]).any() for name, p in params.items())


def test_torch_inputs_that_want_gradients():
    "The graphs of an epoch would be kept with its losses."
    model, runs = MLP((4, 5, 3)), []
    for wanted in (True, False):
        params, (x, y) = as_library(torch, model.init(np.random.default_rng(1)), small())
        x.requires_grad_(wanted)
        seen = []

        def apply(params, x, seen=seen):
            seen.append(x.requires_grad)
            return model.apply(params, x)

        options = {"rng": np.random.default_rng(2), "validation": (x, y)}
        runs.append(fit(apply, params, (x, y), cross_entropy, adam(0.01), **options))
        runs.append(fit(apply, params, [(x, y)], cross_entropy, adam(0.01), steps_per_epoch=2))
        assert not any(seen)
    assert runs[:2] == runs[2:]


# fit: going on from a checkpoint


class PowerCut(Exception):
    "What ends a run in the middle."


@dataclass
class Failing:
    "A model whose n-th backward pass, from 0, fails; it passes for the whole one."

    model: object
    at: int
    error: BaseException = field(default_factory=PowerCut)
    _shapes = None

    def __repr__(self):
        return repr(self.model)

    def init(self, *args):
        return self.model.init(*args)

    def apply(self, params, x):
        y, pullback = self.model.apply(params, x)

        def fails(dy):
            self.at -= 1
            if self.at == -1:
                raise self.error
            return pullback(dy)

        return y, fails


RULES = {
    "adam": lambda: adam(0.01),
    "schedule": lambda: adamw(lambda step: 0.01 * cosine_annealing_lr(12)(step)),
    "momentum": lambda: sgd(0.1, momentum=0.9),
    "clipped": lambda: chain(clip_grad_norm(0.1), sgd(0.1, momentum=0.5)),
}
DATA = {
    "arrays": lambda training: {},
    "generator": lambda training: {
        "data": stream(small(), 16, np.random.default_rng(8)),
        "steps_per_epoch": 4,
        "rng": None,
    },
    "generator with our rng": lambda training: {"data": stream(small(), 16, training.rng), "steps_per_epoch": 4},
}


@pytest.mark.parametrize("at", [0, 3, 4, 6, 11])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("rule", RULES)
def test_goes_on_bit_for_bit(rule, data, at, tmp_path):
    undisturbed = Training(rule=RULES[rule]())
    history = undisturbed.fit(validation=small(20, 5), **DATA[data](undisturbed))
    options = {"validation": small(20, 5), "checkpoint": tmp_path / "run.npz"}
    cut = Training(Failing(MLP((4, 5, 3)), at), RULES[rule]())
    with pytest.raises(PowerCut):
        cut.fit(**options, **DATA[data](cut))
    again = Training(rule=RULES[rule](), seed=1)  # as in a new process
    assert again.fit(**options, **DATA[data](again)) == history
    if data != "generator with our rng":  # it has drawn more than the steps
        assert_same(again.all(), undisturbed.all())
    for name, p in undisturbed.params.items():
        np.testing.assert_array_equal(again.params[name], p)


@pytest.mark.parametrize("at", [4, 5, 11])
def test_the_same_objects_can_be_given_again(at, tmp_path):
    undisturbed = Training()
    history = undisturbed.fit()
    cut = Training(Failing(MLP((4, 5, 3)), at))
    with pytest.raises(PowerCut):
        cut.fit(checkpoint=tmp_path / "run.npz")
    assert cut.fit(checkpoint=tmp_path / "run.npz") == history
    assert_same(cut.all(), undisturbed.all())


KILLED = """
import os, sys
import numpy as np
from dlopt_course.layers import MLP, fit
from dlopt_course.losses import cross_entropy
from dlopt_course.optim import adam

class Kills(MLP):
    left = int(sys.argv[2])
    def apply(self, params, x):
        Kills.left -= 1
        if not Kills.left:
            os._exit(9)
        return super().apply(params, x)

rng, model = np.random.default_rng(0), Kills((4, 5, 3))
x = rng.normal(size=(50, 4))
params = model.init(rng)
fit(model, params, (x, x[:, :3].argmax(1)), cross_entropy, adam(), epochs=5, rng=rng, checkpoint=sys.argv[1])
print(*(p.tobytes().hex() for p in params.values()))
"""


def test_a_killed_process_goes_on(tmp_path):
    def run(path, left):
        command = [sys.executable, "-c", KILLED, str(tmp_path / path), str(left)]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=env, cwd=Path(__file__).parents[1])

    assert run("cut.npz", 7).returncode == 9
    assert [p.name for p in tmp_path.iterdir()] == ["cut.npz"]
    again, undisturbed = run("cut.npz", -1), run("whole.npz", -1)
    assert again.returncode == undisturbed.returncode == 0, again.stderr
    assert again.stdout == undisturbed.stdout
    assert len(again.stdout) > 100


def test_no_checkpoint_before_the_first_epoch_is_done(tmp_path):
    path, diverging, undisturbed = tmp_path / "run.npz", Training(rule=sgd(1e200)), Training()
    with pytest.raises((FloatingPointError, ValueError), match="epoch 1, step"):
        diverging.fit(checkpoint=path)
    assert not [*tmp_path.iterdir()]
    another = Training()
    assert another.fit(checkpoint=path) == undisturbed.fit()


def test_what_a_killed_process_left_is_removed(tmp_path):
    path = tmp_path / "a[1].npz"
    mine, code = f".{path.name}.{'0123456789abcdef' * 2}.part", "0123456789abcdef" * 2
    kept = [f".a1.npz.{code}.part", f".{path.name}.b.{code}.part", f".{path.name}.{code}", f"{mine}s", f"x{mine}"]
    for epochs in (1, 2):
        for name in (mine, *kept, f".{path.name}.part"):
            (tmp_path / name).write_bytes(b"half")
        Training().fit(checkpoint=path, epochs=epochs)
        assert {p.name for p in tmp_path.iterdir()} == {*kept, f".{path.name}.part", path.name}


def test_going_on_in_another_process_with_any_activation(tmp_path):
    "The address of a function is another in each process."
    for slope in (0.1, 0.1, 0.2):
        training = Training(MLP((4, 5, 3), partial(lambda x, slope: leaky_relu(x, slope), slope=slope)))
        if slope == 0.2:
            with pytest.raises(ValueError, match="model is .*slope=0.1.*, should be .*slope=0.2"):
                training.fit(checkpoint=tmp_path / "run.npz", epochs=2)
        else:
            training.fit(checkpoint=tmp_path / "run.npz", epochs=2)


def test_batches_in_a_list_go_on(tmp_path):
    batches = [(small(n).x, small(n).y) for n in (20, 30, 40)]
    whole, parts = Training(), Training()
    history = whole.fit(batches, steps_per_epoch=2, epochs=4)
    parts.fit(batches, steps_per_epoch=2, epochs=2, checkpoint=tmp_path / "run.npz")
    parts = Training()
    assert parts.fit(batches, steps_per_epoch=2, epochs=4, checkpoint=tmp_path / "run.npz") == history
    assert_same(parts.all(), whole.all())


def test_more_epochs_can_be_asked_for(tmp_path):
    whole, parts = Training(), None
    history = whole.fit(epochs=5)
    for epochs in (2, 2, 5, 5):
        parts = Training()
        found = parts.fit(epochs=epochs, checkpoint=str(tmp_path / "new/folder/run.npz"))
        assert len(found.loss) == epochs
    assert found == history
    assert_same(parts.all(), whole.all())


def test_a_finished_run_draws_no_batch(tmp_path):
    options = {"steps_per_epoch": 4, "checkpoint": tmp_path / "run.npz", "rng": None}
    first, second = Training(), Training()
    history = first.fit(stream(small(), 16, np.random.default_rng(8)), **options)
    assert second.fit(iter(()), **options) == history
    assert_same(second.all(), first.all())


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_every_generator_goes_on(kind, tmp_path):
    def made():
        training = Training()
        training.rng = np.random.Generator(getattr(np.random, kind)(3))
        training.rng.integers(10, dtype=np.int32)  # half of a number is left over
        return training

    whole, parts = made(), made()
    history = whole.fit()
    parts.fit(epochs=1, checkpoint=tmp_path / "run.npz")
    parts = made()
    assert parts.fit(checkpoint=tmp_path / "run.npz") == history
    assert_same(parts.all(), whole.all())


def test_float32_goes_on_with_the_same_bits(tmp_path):
    data, model = (small().x.astype(np.float32), small().y), MLP((4, 5, 3))

    def run(epochs, **options):
        params = model.init(np.random.default_rng(0), np.float32)
        history = fit(
            model, params, data, cross_entropy, adam(), epochs=epochs, rng=np.random.default_rng(1), **options
        )
        return history, params

    run(2, checkpoint=tmp_path / "run.npz")
    (history, params), (reference, whole) = run(4, checkpoint=tmp_path / "run.npz"), run(4)
    assert history == reference
    assert_same(params, whole)


def test_a_checkpoint_holds_no_pickle(tmp_path):
    training = Training()
    history = training.fit(checkpoint=tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz", allow_pickle=False) as file:
        saved = dict(file)
    about = json.loads(saved.pop("about").tobytes())
    assert about["history"] == asdict(history)
    assert_same({k.removeprefix("params/"): x for k, x in saved.items() if k.startswith("params/")}, training.params)
    assert {k for k in saved if not k.startswith(("params/", "optimizer/"))} == set()


OTHER = {
    "names": ({"model": MLP((4, 5, 4, 3))}, {}, r"params/2\.weight is float64 of shape \(3, 5\)"),
    "shapes": ({"model": MLP((4, 6, 3))}, {}, r"0\.weight is float64 of shape \(5, 4\), should be .*\(6, 4\)"),
    "rule": ({"rule": sgd(0.1, momentum=0.9)}, {}, r"optimizer/0.weight/"),
    "fewer epochs": ({}, {"epochs": 1}, "epochs must be 2 or more"),
    "batch size": ({}, {"batch_size": 15}, "batch_size is 16, should be 15"),
    "samples": ({}, {"data": small(49)}, "samples is 50, should be 49"),
    "validation": ({}, {"validation": small(9)}, "validation samples is 0, should be 9"),
    "options of the loss": (
        {},
        {"loss": partial(cross_entropy, label_smoothing=0.1)},
        "loss is cross_entropy, should be cross_entropy, label_smoothing=0.1",
    ),
    "activation": ({"model": MLP((4, 5, 3), tanh)}, {}, "model is .*relu.*, should be .*tanh"),
    "own model": ({"model": MLP((4, 5, 3))}, {"model": MLP((4, 5, 3)).apply}, "model is MLP.*, should be None"),
    "x": ({}, {"data": Dataset(small().x[::-1], small().y)}, r"checksum of x is \d+, should be \d+"),
    "y": ({}, {"data": Dataset(small().x, small().y[::-1])}, r"checksum of y is \d+, should be \d+"),
    "generator": ({}, {"rng": np.random.Generator(np.random.MT19937(0))}, "rng is PCG64, should be MT19937"),
    "batches": (
        {},
        {"data": repeat((small().x, small().y)), "steps_per_epoch": 4},
        "steps_per_epoch is nothing, should be 4",
    ),
}


@pytest.mark.parametrize("case", OTHER)
def test_a_checkpoint_of_another_training(case, tmp_path):
    path = tmp_path / "run.npz"
    Training().fit(checkpoint=path, epochs=2)
    made, options, says = OTHER[case]
    training, content = Training(**made), path.read_bytes()
    before = training.all()
    with pytest.raises(ValueError, match=says):
        training.fit(**{"checkpoint": path, "epochs": 2} | options)
    assert_same(training.all(), before)
    assert path.read_bytes() == content


def test_a_checkpoint_of_another_loss(tmp_path):
    data = small().x, small().x[:, :3]
    Training().fit(data, mse, checkpoint=tmp_path / "run.npz", epochs=1)
    with pytest.raises(ValueError, match="loss is mse, should be mae"):
        Training().fit(data, mae, checkpoint=tmp_path / "run.npz")


def test_a_generator_that_is_too_short_to_go_on(tmp_path):
    options = {"checkpoint": tmp_path / "run.npz", "steps_per_epoch": 4, "rng": None}
    Training().fit(stream(small(), 16, np.random.default_rng(0)), epochs=2, **options)
    training = Training()
    before = training.all()
    with pytest.raises(ValueError, match="ended after 5"):
        training.fit(islice(stream(small(), 16, np.random.default_rng(0)), 5), epochs=3, **options)
    assert_same(training.all(), before)


SPOILED = {
    "empty": lambda content: b"",
    "text": lambda content: b"not a checkpoint",
    "half": lambda content: content[: len(content) // 2],
    "an array": lambda content: (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }".ljust(117)
        + b"\n"
        + bytes(8)
    ),
    "a number": lambda content: content.replace(b'"history": {"step_loss": [', b'"history": {"step_lost": ['),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_damaged_checkpoint(spoil, tmp_path):
    path = tmp_path / "run.npz"
    Training().fit(checkpoint=path, epochs=1)
    path.write_bytes(content := spoil(path.read_bytes()))
    training = Training()
    before = training.all()
    with pytest.raises(ValueError, match=r"checkpoint .*run\.npz is damaged .*delete it"):
        training.fit(checkpoint=path)
    assert_same(training.all(), before)
    assert path.read_bytes() == content


def test_a_byte_that_flips_is_seen_or_does_not_matter(tmp_path):
    path, whole = tmp_path / "run.npz", Training()
    Training().fit(checkpoint=path, epochs=1)
    history, content, rng = whole.fit(epochs=2), path.read_bytes(), np.random.default_rng(0)
    seen = 0
    for place in rng.choice(len(content), 150, replace=False):
        path.write_bytes(content[:place] + bytes([content[place] ^ int(rng.integers(1, 256))]) + content[place + 1 :])
        training = Training()
        before, error = training.all(), ""
        try:
            found = training.fit(checkpoint=path, epochs=2)
        except ValueError as raised:
            error = str(raised)
        seen += bool(error)
        assert "run.npz" in error or found == history
        assert_same(training.all(), before if error else whole.all())
    assert seen > 50


def test_a_foreign_generator_state_changes_nothing(tmp_path):
    path = tmp_path / "run.npz"
    Training().fit(checkpoint=path, epochs=1)
    with np.load(path) as file:
        saved = dict(file)
    about = json.loads(saved["about"].tobytes())
    about["generator"]["state"] = {"state": "none"}
    np.savez(path, **saved | {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)})
    training = Training()
    before = training.all()
    with pytest.raises(ValueError, match="damaged"):
        training.fit(checkpoint=path)
    assert_same(training.all(), before)


def test_pickled_objects_are_not_loaded(tmp_path):
    path, opened = tmp_path / "run.npz", tmp_path / "opened"
    Training().fit(checkpoint=path, epochs=1)
    with np.load(path) as file:
        saved = dict(file)
    np.savez(path, **saved | {"params/0.bias": np.array([Opens(str(opened))])})
    with pytest.raises(ValueError, match="damaged"):
        Training().fit(checkpoint=path)
    assert not opened.exists()


class Opens:
    "Makes a folder when it is unpickled."

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_checkpoint_that_cannot_be_written_stops_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    for name in ("file/run.npz", "x" * 230 + ".file"):
        training = Training()
        before = training.all()
        with pytest.raises(OSError, match="file"):
            training.fit(checkpoint=tmp_path / name)
        assert_same(training.all(), before)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# fit: in training otherwise than later; early stopping


def dropping(rng, p=0.5, **options) -> Callable:
    "A small network with dropout."
    return sequential(linear, relu, partial(dropout, p=p, rng=rng, **options), linear)


def training_with_dropout(**options) -> tuple:
    "A training of it, and its network."
    training = Training()
    network = dropping(training.rng, **options)
    training.params = {name.replace("2.", "3."): p for name, p in training.params.items()}
    training.optimizer = Optimizer(training.params, adam(0.01))
    return training, network


def test_dropout_is_for_training_only():
    held, seen = small(40, 7), []
    training, network = training_with_dropout()
    for _ in range(3):
        history = training.fit(model=network, epochs=1, validation=held)
        y, _ = network(training.params, held.x, training=False)
        seen.append((history.validation_loss[0], cross_entropy(y, held.y)))
    assert_close(*np.transpose(seen), rtol=1e-12)
    plain, without = Training(), training_with_dropout()[0]
    plain.fit(), without.fit(model=dropping(np.random.default_rng(0), p=0.0))
    for mine, theirs in zip(without.params.values(), plain.params.values(), strict=True):
        assert_close(mine, theirs, rtol=1e-12)
    assert np.abs(training.params["0.weight"] - plain.params["0.weight"]).max() > 1e-3


def test_any_function_with_a_training_argument_is_told():
    modes, training = [], Training()

    def apply(params, x, training="neither"):
        modes.append(training)
        return Training().model.apply(params, x)

    training.fit(model=apply, epochs=2, validation=small(20, 5))
    rehearsal, epoch = [False, False], [True] * 4 + [False]
    assert modes == rehearsal + 2 * epoch


class Watching(EarlyStopping):
    "Keeps what it is given."

    def __init__(self, *args):
        super().__init__(*args)
        self.seen = []

    def update(self, value, params):
        self.seen.append(value)
        return super().update(value, params)


def overfitting() -> dict:
    "Options of a training whose validation loss grows after a while."
    rng = np.random.default_rng(3)
    x = rng.normal(size=(20, 4))
    return {"data": (x, rng.integers(3, size=20)), "epochs": 60, "validation": small(30, 5)}


def test_training_stops_where_the_validation_loss_does_not_fall():
    stopping, training = Watching(3), Training(rule=adam(0.1))
    history = training.fit(**overfitting(), stopping=stopping)
    best = int(np.argmin(history.validation_loss))
    assert 3 < len(history.loss) < 60
    assert len(history.loss) == len(history.validation_loss) == best + 4
    assert stopping.seen == history.validation_loss
    assert (stopping.best, stopping.best_step) == (min(history.validation_loss), best)
    other = Training(rule=adam(0.1))
    other.fit(**overfitting() | {"epochs": best + 1})
    assert not np.array_equal(training.params["0.weight"], other.params["0.weight"])
    stopping.restore(training.params)
    assert_same(training.params, other.params)


@pytest.mark.parametrize("at", [3, 6])
def test_early_stopping_goes_on_from_a_checkpoint(at, tmp_path):
    stopping, undisturbed = EarlyStopping(3), Training(rule=adam(0.1))
    history = undisturbed.fit(**overfitting(), stopping=stopping)
    options = overfitting() | {"checkpoint": tmp_path / "run.npz"}
    cut = Training(Failing(MLP((4, 5, 3)), at), adam(0.1))
    with pytest.raises(PowerCut):
        cut.fit(**options, stopping=EarlyStopping(3))
    for _ in range(2):  # the second one finds that it has stopped
        again, new = Training(rule=adam(0.1), seed=5), EarlyStopping(3)
        assert again.fit(**options, stopping=new) == history
        assert_same(again.all(), undisturbed.all())
        assert_same(new.state_dict(), stopping.state_dict())
    assert new.stopped
    assert again.fit(**options, stopping=new) == history
    with pytest.raises(ValueError, match="stopping is EarlyStopping, should be None"):
        Training(rule=adam(0.1)).fit(**options)


def test_what_cannot_say_when_to_stop():
    stopped = EarlyStopping(1)
    for _ in range(2):
        stopped.update(1.0, {"w": np.ones(1)})
    for stopping, options, error, says in (
        (3, {"validation": small()}, TypeError, "stopping must be an EarlyStopping, got 3"),
        (EarlyStopping, {"validation": small()}, TypeError, "stopping must be an EarlyStopping, got <class"),
        (SimpleNamespace(update=abs), {"validation": small()}, TypeError, "stopping must be an EarlyStopping"),
        (SimpleNamespace(stopped=0, update=1), {"validation": small()}, TypeError, "stopping must be an EarlyStopping"),
        (EarlyStopping(1), {}, ValueError, "stopping is given the validation loss.*validation data, got None"),
        (stopped, {"validation": small()}, ValueError, "stopping must be one that has not stopped a training yet"),
    ):
        training = Training()
        before = training.all()
        with pytest.raises(error, match=says):
            training.fit(stopping=stopping, **options)
        assert_same(training.all(), before)


# fit: what goes wrong


NAN = np.where(np.arange(200).reshape(50, 4) == 77, np.nan, small().x)
WRONG = {
    "model": ({"model": None}, TypeError, "model must have apply"),
    "model class": ({"model": MLP}, TypeError, "model must have apply"),
    "params": ({"params": {"a": np.ones(2)}}, ValueError, "optimizer must be made of params"),
    "params list": ({"params": [np.ones(2)]}, ValueError, "optimizer must be made of params"),
    "params copied": ({"params": Training().params}, ValueError, "optimizer must be made of params"),
    "loss": ({"loss": "mse"}, TypeError, "loss must be a loss"),
    "losses": ({"loss": [mse]}, TypeError, "loss must be a loss"),
    "sum": ({"loss": partial(mse, reduction="sum")}, ValueError, "loss must be the mean"),
    "partial": ({"loss": partial(mse, small().x)}, ValueError, "loss must be the mean.*its options given by keyword"),
    "part of an own loss": ({"loss": partial(lambda y, t: 0.0)}, ValueError, "loss must be a loss"),
    "unknown option": ({"loss": partial(cross_entropy, smooth=1)}, TypeError, "data: .*smooth"),
    "own loss": ({"loss": lambda y, t: 0.0}, ValueError, "loss must be a loss"),
    "optimizer": ({"optimizer": "adam"}, TypeError, "optimizer must be an Optimizer or a Rule"),
    "optimizer not called": ({"optimizer": adam}, TypeError, "optimizer must be an Optimizer or a Rule"),
    "epochs": ({"epochs": 0}, ValueError, "epochs must be a whole number from 1"),
    "half an epoch": ({"epochs": 1.5}, ValueError, "epochs must be a whole number from 1"),
    "epochs in words": ({"epochs": "3"}, TypeError, "epochs must be a number"),
    "batch size": ({"batch_size": 0}, ValueError, "batch_size must be a whole number from 1"),
    "no rng": ({"rng": None}, TypeError, r"rng must be a numpy.random.Generator"),
    "seed": ({"rng": 0}, TypeError, r"rng must be a numpy.random.Generator, got int"),
    "steps of arrays": ({"steps_per_epoch": 3}, ValueError, "steps_per_epoch is for an iterator"),
    "no steps": ({"data": []}, TypeError, "steps_per_epoch.* must be a number, got NoneType"),
    "no step": ({"data": [], "steps_per_epoch": 0}, ValueError, "steps_per_epoch.* whole number from 1"),
    "seed for iterator": ({"data": [], "steps_per_epoch": 1, "rng": 5}, TypeError, "rng must be"),
    "no data": ({"data": None}, TypeError, "data must be a Dataset, a pair"),
    "model without a function": ({"model": SimpleNamespace(apply=3)}, TypeError, "model must have apply"),
    "inputs alone": ({"data": small().x}, TypeError, "data must be a Dataset, a pair"),
    "lists": ({"data": ([[1.0]], [0])}, TypeError, "x of data must be an array"),
    "two libraries": ({"data": (small().x, torch.tensor(small().y))}, TypeError, "y of data must be of the library"),
    "empty": ({"data": (small().x[:0], small().y[:0])}, ValueError, "data must hold as many x as y, at least 1"),
    "more x": ({"data": (small().x, small().y[:-1])}, ValueError, r"data must hold.*\(50, 4\) and \(49,\)"),
    "numbers": ({"data": (np.array(1.0), np.array(2))}, ValueError, "data must hold as many x as y"),
    "nan": ({"data": (NAN, small().y)}, ValueError, "x of data must hold finite numbers, got nan"),
    "wide": ({"data": (small().x[:, :3], small().y)}, ValueError, "data: weight must have shape"),
    "float32": (
        {"data": (small().x.astype(np.float32), small().y)},
        TypeError,
        "data: weight must have the dtype of x",
    ),
    "a class too many": (
        {"data": (small().x, small().y * 2)},
        ValueError,
        "data: target must hold classes from 0 to 2",
    ),
    "last class": (
        {"data": (np.ones((600, 4)), np.repeat([0, 7], [599, 1]))},
        ValueError,
        "data: target must hold classes from 0 to 2, got 7",
    ),
    "targets of mse": (
        {"loss": mse, "data": (small().x, small().x[:, 0])},
        ValueError,
        "data: target must have the shape",
    ),
    "validation": ({"validation": small().x}, TypeError, "validation must be a Dataset or a pair"),
    "validation nan": ({"validation": (NAN, small().y)}, ValueError, "x of validation must hold finite numbers"),
    "validation empty": ({"validation": (small().x[:0], small().y[:0])}, ValueError, "validation must hold"),
    "validation classes": ({"validation": (small().x, small().y - 1)}, ValueError, "validation: target must hold"),
    "validation width": ({"validation": (small().x[:, 1:], small().y)}, ValueError, "validation: weight must"),
    "checkpoint": ({"checkpoint": 5}, TypeError, "checkpoint must be the path of a file, got int 5"),
    "no name of a checkpoint": (
        {"checkpoint": ""},
        ValueError,
        "checkpoint must be the path of a file, got the folder",
    ),
    "folder": ({"checkpoint": Path(__file__).parent}, ValueError, "checkpoint must be .* got the folder '.*tests'"),
    "batch of one": ({"data": [small().x], "steps_per_epoch": 1}, TypeError, "data must give batches"),
    "batch of lists": ({"data": [([1.0], [2])], "steps_per_epoch": 1}, TypeError, "x must be an array"),
    "batch of a list": ({"data": [([1.0], np.zeros(1, int))], "steps_per_epoch": 1}, TypeError, "x must be an array"),
    "batch without y": ({"data": [(np.ones((1, 4)), None)], "steps_per_epoch": 1}, TypeError, "y must be an array"),
    "batch of three": (
        {"data": [(small().x, small().y, 1)], "steps_per_epoch": 1},
        TypeError,
        "data must give batches",
    ),
    "batch too wide": (
        {"data": [(np.ones((2, 5)), np.zeros(2, int))], "steps_per_epoch": 1},
        ValueError,
        "epoch 1, step 1: weight must have shape",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_arguments_change_nothing(case):
    wrong, error, says = WRONG[case]
    training = Training()
    before = training.all()
    given = {
        "model": training.model,
        "params": training.params,
        "data": small(),
        "loss": cross_entropy,
        "optimizer": training.optimizer,
        "rng": training.rng,
    } | wrong
    if wrong.keys() & {"data"} and not isinstance(given["data"], tuple) and "rng" not in wrong:
        given["rng"] = None
    with pytest.raises(error, match=says):
        fit(**given)
    assert_same(training.all(), before)


def test_a_loss_that_is_not_finite_names_its_step():
    training, data = Training(), small()
    inputs = [(data.x, data.y)] * 5 + [(np.copysign(1.7e308, data.x), data.y)]
    reference = Training()
    reference.fit(inputs[:5], steps_per_epoch=5, epochs=1)
    with pytest.raises((FloatingPointError, ValueError), match="epoch 2, step 3: .*(inf|nan)"):
        training.fit(inputs, steps_per_epoch=3, epochs=2)
    assert_same(training.all(), reference.all())


def test_an_infinite_loss_names_its_step():
    class Far:
        def apply(self, params, x):
            return x * params["a"], lambda dy: ({"a": np.sum(dy * x, axis=0)}, dy)

    x = np.array([[1e200, -1e200]])
    params = {"a": np.ones(2)}
    with pytest.raises(FloatingPointError, match="epoch 1, step 1: the loss must be finite, got inf"):
        fit(Far(), params, iter([(x, x * 0)]), mse, sgd(0.1), steps_per_epoch=1)
    np.testing.assert_array_equal(params["a"], [1.0, 1.0])


def test_a_training_that_diverges_says_when():
    training = Training(rule=sgd(1e200))
    with pytest.raises((FloatingPointError, ValueError), match=r"epoch 1, step [2-4]: "):
        training.fit()


@pytest.mark.parametrize("error", [PowerCut(), KeyboardInterrupt(), ValueError("bad")])
def test_what_stops_the_training_has_the_history(error):
    reference = Training().fit(validation=small(9))
    with pytest.raises(type(error)) as raised:
        Training(Failing(MLP((4, 5, 3)), 6, error)).fit(validation=small(9))
    assert raised.value.history.step_loss == reference.step_loss[:6]
    for name in ("loss", "validation_loss", "validation_accuracy"):
        assert getattr(raised.value.history, name) == getattr(reference, name)[:1]


def test_a_validation_that_fails_is_named():
    training = Training(rule=sgd(1e308))
    with pytest.raises((FloatingPointError, ValueError), match="epoch 1, validation: "):
        training.fit(validation=small(10, 3), batch_size=50)


def test_gradients_that_are_not_finite_move_nothing():
    class Broken(MLP):
        def apply(self, params, x):
            y, pullback = super().apply(params, x)
            return y, lambda dy: ({name: g * np.nan for name, g in pullback(dy)[0].items()}, None)

    training = Training(model=Broken((4, 5, 3)))
    before = training.all()
    with pytest.raises(ValueError, match=r"epoch 1, step 1: grads\['0.weight'\] must be finite"):
        training.fit(iter([(small().x, small().y)]), steps_per_epoch=1)
    assert_same(training.all(), before)


def test_many_targets_are_looked_at():
    for place in (0, 255, 256, 700):
        training, y = Training(), np.zeros(701, int)
        y[place] = 9
        before = training.all()
        with pytest.raises(ValueError, match="data: target must hold classes from 0 to 2, got 9"):
            training.fit((np.ones((701, 4)), y))
        assert_same(training.all(), before)


def test_an_error_of_the_users_generator_is_not_hidden():
    def broken():
        yield small().x, small().y
        raise KeyError("image 5")

    with pytest.raises(KeyError, match="image 5") as error:
        Training().fit(broken(), steps_per_epoch=2)
    assert error.value.__notes__ == ["in epoch 1, step 2"]


def test_errors_keep_their_class():
    class Spoiled(ValueError):
        def __init__(self, image, place):
            super().__init__(image, place)

    def broken(error):
        yield small().x, small().y
        raise error

    with pytest.raises(Spoiled) as found:
        Training().fit(broken(Spoiled(5, "b")), steps_per_epoch=2)
    assert (found.value.args, found.value.__notes__) == ((5, "b"), ["in epoch 1, step 2"])
    for kind in (ValueError, TypeError, FloatingPointError):
        with pytest.raises(kind, match="^epoch 1, step 2: disk") as found:
            Training().fit(broken(kind("disk")), steps_per_epoch=2)
        assert type(found.value) is kind


# fit: the progress bar


@pytest.fixture
def slow(monkeypatch):
    "A clock by which every look takes a second."
    clock = SimpleNamespace(now=0.0)

    def tick():
        clock.now += 1
        return clock.now

    monkeypatch.setattr(layers, "perf_counter", tick)


def test_nobody_watches(slow, capfd):
    Training().fit()
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def terminal(monkeypatch):
    "rich takes the error output for a terminal."
    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE", "FORCE_COLOR"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_shows_a_bar_and_takes_it_away(slow, terminal, capsys):
    Training().fit()
    out, shown = capsys.readouterr()
    assert out == ""
    assert "epoch 1 of 3, loss" in shown
    assert "epoch 3 of 3, loss" in shown
    assert shown.endswith("\x1b[2K")  # the line is erased


def test_progress_can_be_silenced(slow, terminal, capsys):
    Training().fit(progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_quick_training_shows_nothing(terminal, capsys, monkeypatch):
    monkeypatch.setattr(layers, "perf_counter", lambda: 0.0)
    Training().fit()
    assert capsys.readouterr() == ("", "")


def test_the_bar_goes_when_training_fails(slow, terminal, capsys):
    with pytest.raises(PowerCut):
        Training(Failing(MLP((4, 5, 3)), 5)).fit()
    assert capsys.readouterr().err.endswith("\x1b[2K")


IN_NOTEBOOK = """
import numpy as np
from itertools import count
from dlopt_course import layers
from dlopt_course.losses import cross_entropy
from dlopt_course.optim import adam
layers.perf_counter = count().__next__
model, rng = layers.MLP((4, 3)), np.random.default_rng(0)
data = rng.normal(size=(9, 4)), np.arange(9) % 3
layers.fit(model, model.init(rng), data, cross_entropy, adam(), epochs=2, rng=rng)
None
"""


def test_a_notebook_shows_a_bar_to_somebody_who_sits_at_it():
    manager, client = start_new_kernel(cwd=str(Path(__file__).parents[1]))
    try:
        for watched in (True, False):
            messages = []
            reply = client.execute_interactive(
                IN_NOTEBOOK, allow_stdin=watched, output_hook=messages.append, timeout=60
            )
            assert reply["content"]["status"] == "ok", reply["content"]
            texts = [m["content"].get("data", {}).get("text/plain") for m in messages if "display" in m["msg_type"]]
            assert bool(texts) == watched
            assert any("epoch 2 of 2, loss" in text for text in texts) == watched
            assert texts[-1:] == [""] * watched
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
