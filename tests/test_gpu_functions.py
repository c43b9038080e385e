"""The course's functions against torch's on one device: the registry in benchmarks is complete and right."""

import importlib
import sys

import pytest
import torch
from backends import no_gpu

from benchmarks import gpu_functions
from benchmarks.gpu_functions import FUNCTIONS, LEFT_OUT, Missing, difference

MODULES = ("losses", "optim", "layers", "linear", "regularize", "augment")
CPU, DOUBLE, SINGLE = torch.device("cpu"), torch.float64, torch.float32
each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=no_gpu)])
each_dtype = pytest.mark.parametrize("dtype", [DOUBLE, SINGLE], ids=str)
pytestmark = pytest.mark.usefixtures("one_torch_thread")
BY_NAME = {f.name: f for f in FUNCTIONS}


@each_dtype
@each_device
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.name)
def test_equals_torch(function, device, dtype):
    assert difference(function, torch.device(device), dtype) <= gpu_functions.RTOL[dtype] * function.times


@pytest.mark.parametrize("module", MODULES)
def test_every_function_is_compared_or_left_out_with_a_reason(module):
    compared = {name for f in FUNCTIONS if f.name.startswith(f"{module}.") for name in f.covers}
    left_out = set(LEFT_OUT.get(module, {}))
    assert not compared & left_out
    assert compared | left_out == set(importlib.import_module(f"dlopt_course.{module}").__all__)


def test_what_has_no_counterpart_is_named_internal():
    "Only where torch and torchvision have nothing: random numbers drawn by NumPy, and boxes, masks and points."
    internal = {f.name.split(".")[1] for f in FUNCTIONS if f.against == gpu_functions.INTERNAL}
    drawn = {"add_noise", "random_crop", "random_resized_crop", "random_erasing", "cutout", "mixup", "cutmix"}
    assert internal <= drawn | {"rand_augment", "trivial_augment", "equalize"} | {
        "transform_points",
        "transform_boxes",
        "warp_masks",
    }


@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f.rows], ids=lambda f: f.name)
def test_what_is_timed_does_the_same_work(function):
    "As many results as torch's, or fewer where the comparison looks at a second form; and the values are equal."
    given = function.given(CPU, DOUBLE)
    ours = gpu_functions._listed((function.timed or function.ours)(*given))
    theirs = gpu_functions._listed(function.theirs(*given))
    assert len(ours) == len(theirs) - function.name.startswith("losses.") * (function.timed is not None)
    for a, b in zip(ours, theirs, strict=False):
        torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-9, atol=1e-12)


def test_inputs_are_as_asked_for():
    function = BY_NAME["losses.cross_entropy"]
    scores, classes = function.given(CPU, SINGLE)
    assert (scores.dtype, tuple(scores.shape), classes.dtype) == (SINGLE, (6, 5), torch.int64)
    scores, classes = function.given(CPU, DOUBLE, 200)
    assert (scores.dtype, tuple(scores.shape), tuple(classes.shape)) == (DOUBLE, (200, 1024), (200,))


def spoiled(results):
    first, *rest = gpu_functions._listed(results)
    return [first * 1.001, *rest]


WRONG = {
    "a value": (spoiled, AssertionError, "losses.mse, result 0"),
    "a gradient": (lambda r: [r[0], -r[1], r[2]], AssertionError, "losses.mse, result 1"),
    "the dtype": (lambda r: [r[0].float(), *r[1:]], AssertionError, "is torch.float32"),
    "the device": (lambda r: [r[0].to("meta"), *r[1:]], AssertionError, "on meta"),
    "one result too few": (lambda r: r[:2], ValueError, "longer than"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_result_is_noticed(what):
    right, (change, error, message) = BY_NAME["losses.mse"], WRONG[what]
    wrong = right._replace(ours=lambda *given: change(right.ours(*given)))
    with pytest.raises(error, match=message):
        difference(wrong, CPU, DOUBLE)


def test_a_changed_input_is_noticed():
    right = BY_NAME["losses.mse"]

    def ours(prediction, target):
        found = right.ours(prediction, target)
        target += 1
        return found

    copying = right._replace(ours=ours, theirs=lambda p, t: right.theirs(p, t - 1))
    with pytest.raises(AssertionError, match="an input was changed"):
        difference(copying, CPU, DOUBLE)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "benchmarks.peers", None)
    with pytest.raises(Missing, match="torchvision is not installed"):
        difference(BY_NAME["augment.posterize"], CPU, DOUBLE)
