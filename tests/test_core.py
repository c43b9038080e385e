"""The rules by which everything else is judged: comparison, finite differences, claims, checks, blocks, settings."""

import json
import math
import os
import subprocess
import sys
import threading
import time
import types
from functools import partial
from pathlib import Path

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from IPython.utils.capture import capture_output

from dlopt_course import core
from dlopt_course.core import (
    CLAIM_MIME,
    CheckFailed,
    Claim,
    assert_close,
    check,
    check_count,
    check_dtype,
    check_finite,
    check_floats,
    check_in,
    check_number,
    check_rng,
    check_same_shape,
    claim,
    claim_bound,
    differences,
    expect,
    in_phases,
    num_threads,
    numerical_grad,
    on_host,
    over_blocks,
    settings,
    to_numpy,
    write_atomic,
)

BACKENDS = {
    "numpy": np.asarray,
    "torch": torch.asarray,
    "torch with a gradient": lambda x: torch.asarray(x).requires_grad_(),
    "strict": lambda x: array_api_strict.asarray(x),
}
backends = pytest.mark.parametrize("array", BACKENDS.values(), ids=BACKENDS)


# to_numpy, differences


@backends
def test_to_numpy_keeps_values_dtype_and_shape(array):
    for dtype in (np.float32, np.float64):
        values = np.arange(6, dtype=dtype).reshape(2, 3)
        made = to_numpy(array(values))
        assert type(made) is np.ndarray
        assert made.dtype == dtype
        np.testing.assert_array_equal(made, values)


def test_to_numpy_takes_numbers_and_lists():
    assert to_numpy(2.5).shape == ()
    assert to_numpy([[1, 2]]).shape == (1, 2)


def test_to_numpy_does_not_copy_what_is_on_the_cpu():
    x, t = np.zeros(3), torch.zeros(3)
    assert to_numpy(x) is x
    assert np.shares_memory(to_numpy(t), t.numpy())


@backends
def test_differences_are_the_largest_absolute_one_and_its_ratio_to_the_largest_reference(array):
    found = differences(array(np.array([1.0, 2.5, -4.0])), array(np.array([1.0, 2.0, -5.0])))
    assert found == (1.0, 0.2)


@pytest.mark.parametrize(
    ("ours", "reference", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], (0.0, 0.0)),
        ([0.0], [0.0], (0.0, 0.0)),
        ([0.5], [0.0], (0.5, math.inf)),
        ([math.inf, 1.0], [math.inf, 1.0], (0.0, 0.0)),
        ([math.inf], [-math.inf], (math.inf, math.nan)),
        ([1.0], [math.inf], (math.inf, math.nan)),
        ([math.nan], [1.0], (math.nan, math.nan)),
        ([math.nan], [math.nan], (math.nan, math.nan)),
        (3.0, 2.0, (1.0, 0.5)),
        ([True, False], [True, True], (1.0, 1.0)),
        (np.array([0, 255], np.uint8), np.array([255, 255], np.uint8), (255.0, 1.0)),
    ],
)
def test_differences_of_special_values(ours, reference, expected):
    np.testing.assert_equal(differences(ours, reference), expected)


# assert_close


@backends
def test_equal_arrays_are_close(array):
    for shape in ((), (1,), (3,), (2, 3, 4)):
        values = np.random.default_rng(0).normal(size=shape)
        assert_close(array(values), array(values.copy()), rtol=0)


@backends
def test_the_worst_element_is_named(array):
    ours, reference = np.ones((2, 3)), np.ones((2, 3))
    ours[0, 1], ours[1, 2] = 1.001, 1.5
    with pytest.raises(
        AssertionError, match=r"loss: 2 of 6 .* loss\[1, 2\] = 1.5, should be 1.0 \(rtol 1e-07, atol 0\)"
    ):
        assert_close(array(ours), array(reference), name="loss")


def test_worst_is_what_exceeds_its_tolerance_most_not_what_differs_most():
    with pytest.raises(AssertionError, match=r"ours\[1\] = 2\.0"):
        assert_close([1000.5, 2.0], [1000.0, 1.6], rtol=1e-3)


@pytest.mark.parametrize(
    ("ours", "reference", "message"),
    [
        (np.ones(3), np.ones((1, 3)), r"shape is \(3,\), should be \(1, 3\)"),
        (np.ones(()), np.ones(1), r"shape is \(\), should be \(1,\)"),
        (np.ones(2, np.float32), np.ones(2), "dtype is float32, should be float64"),
        (np.ones(2, int), np.ones(2), "dtype is int64, should be float64"),
    ],
)
def test_nothing_is_broadcast_or_converted(ours, reference, message):
    with pytest.raises(AssertionError, match=message):
        assert_close(ours, reference, rtol=1, atol=1)


def test_a_single_number_is_named_without_an_index():
    with pytest.raises(AssertionError, match=r"the worst is ours = 1\.5, should be 1\.0"):
        assert_close(1.5, 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_passes_for_a_number(bad):
    for ours, reference in (([1.0, bad], [1.0, 2.0]), ([1.0, 2.0], [1.0, bad])):
        with pytest.raises(AssertionError, match=r"1 of 2 elements differ; the worst is ours\[1\]"):
            assert_close(ours, reference, rtol=1e9, atol=1e9)


def test_nan_is_not_equal_to_nan():
    with pytest.raises(AssertionError, match="nan, should be nan"):
        assert_close([math.nan], [math.nan])


def test_equal_infinities_are_equal():
    assert_close([math.inf, -math.inf, 1.0], [math.inf, -math.inf, 1.0])


def test_opposite_infinities_differ():
    with pytest.raises(AssertionError, match="inf, should be -inf"):
        assert_close([math.inf], [-math.inf], rtol=1e300, atol=1e300)


def test_equal_infinities_need_no_tolerance():
    assert_close([math.inf], [math.inf], rtol=0)


def test_tolerances_are_relative_to_the_reference_and_add_up():
    assert_close([110.0], [100.0], rtol=0.1, atol=0)
    assert_close([110.1], [100.0], rtol=0.1, atol=0.11)
    with pytest.raises(AssertionError):
        assert_close([110.1], [100.0], rtol=0.1)
    with pytest.raises(AssertionError):
        assert_close([100.0], [89.0], rtol=0.1)  # 10% of ours, more of the reference


def test_atol_may_differ_by_element():
    assert_close([1.0, 2.5], [1.0, 2.0], rtol=0, atol=np.array([0.0, 0.5]))
    with pytest.raises(AssertionError, match=r"ours\[1\] = 2.5.*atol 0.5"):
        assert_close([1.0, 2.5], [1.0, 2.0], rtol=0, atol=np.array([0.5, 0.0]))


def test_atol_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="atol"):
        assert_close([1.0], [1.0], atol=np.ones(3))


def test_nothing_to_compare_is_no_agreement():
    with pytest.raises(AssertionError, match="nothing to compare"):
        assert_close(np.zeros((0, 3)), np.zeros((0, 3)))


def test_booleans_are_compared():
    assert_close([True, False], [True, False])
    with pytest.raises(AssertionError, match=r"ours\[1\] = False, should be True"):
        assert_close([True, False], [True, True])


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (np.array([2**62]), np.array([-(2**62)])),
        (np.array([0], np.uint8), np.array([255], np.uint8)),
        (np.array([-128], np.int8), np.array([127], np.int8)),
    ],
)
def test_integers_do_not_wrap_around_into_agreement(ours, reference):
    with pytest.raises(AssertionError, match="differ"):
        assert_close(ours, reference, atol=1)


def test_unsigned_integers_one_apart_are_within_one():
    assert_close(np.array([0, 1], np.uint8), np.array([1, 0], np.uint8), atol=1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_largest_numbers_can_be_told_apart(dtype):
    top = np.finfo(dtype).max
    with pytest.raises(AssertionError, match="1 of 1 elements differ"):
        assert_close(np.array([top]), np.array([-top]))


def test_complex_numbers_are_compared_in_both_parts():
    assert_close([1 + 2j], [1 + 2j])
    with pytest.raises(AssertionError, match="differ"):
        assert_close([1 + 2j], [1 + 3j])
    assert differences([1 + 2j], [1 + 3j])[0] == 1


@examples(deadline=None)
@given(st.lists(st.floats(1e-100, 1e100), min_size=1), st.floats(1e-14, 1e-3))
def test_what_is_within_the_tolerance_passes_and_twice_as_far_fails(values, rtol):
    for b in (np.array(values), -np.array(values)):
        assert_close(b * (1 + rtol / 2), b, rtol=rtol)
        with pytest.raises(AssertionError):
            assert_close(b * (1 + 2 * rtol), b, rtol=rtol)


# numerical_grad

CURVES = {  # function, derivative; both of a number near 1
    "exp": (np.exp, np.exp),
    "sin": (np.sin, np.cos),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "log": (np.log, lambda x: 1 / x),
    "sqrt": (np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    "cube": (lambda x: x**3, lambda x: 3 * x**2),
    "reciprocal": (lambda x: 1 / x, lambda x: -1 / x**2),
    "line": (lambda x: 2 * x + 1, lambda x: 2.0 + 0 * x),
    "constant": (lambda x: 3.0 + 0 * x, lambda x: 0.0 * x),
    "softplus": (lambda x: np.logaddexp(0, x), lambda x: 1 / (1 + np.exp(-x))),
    "bell": (lambda x: np.exp(-x * x), lambda x: -2 * x * np.exp(-x * x)),
    "power": (lambda x: x**7 - x**2, lambda x: 7 * x**6 - 2 * x),
    "spike": (lambda x: 1 / (1 + 25 * x * x), lambda x: -50 * x / (1 + 25 * x * x) ** 2),
    "wave": (lambda x: np.sin(8 * np.pi * x), lambda x: 8 * np.pi * np.cos(8 * np.pi * x)),
    "fast wave": (lambda x: np.sin(100 * x), lambda x: 100 * np.cos(100 * x)),
}


@pytest.mark.parametrize("scale", 10.0 ** np.arange(-8, 9, 2))
@pytest.mark.parametrize(("f", "slope"), CURVES.values(), ids=CURVES)
def test_a_derivative_is_exact_to_ten_digits_and_its_error_honest_at_every_scale(f, slope, scale):
    for x in (0.5, 1.0, 2.0, *np.random.default_rng(0).uniform(0.3, 3, 20)):
        (found,), (error,) = numerical_grad(lambda z: f(z[0] / scale), np.array([x * scale]))
        exact = slope(x) / scale
        steepest = max(abs(exact), 1 / scale)  # at a flat place the error is relative to the slopes around it
        assert abs(found - exact) <= 1e-10 * steepest
        assert abs(found - exact) <= 10 * error + np.finfo(float).tiny
        assert error <= 1e-8 * steepest


@examples(deadline=None)
@given(st.floats(0.01, 100), st.floats(-3, 3), st.integers(-3, 7))
def test_a_wave_in_step_with_the_differences_is_not_mistaken_for_a_flat_line(frequency, x, power):
    for k in (frequency, np.pi * 2.0**power):
        (found,), (error,) = numerical_grad(lambda z, k=k: np.sin(k * z[0]), np.array([x]), scale=1.0)
        assert abs(found - k * np.cos(k * x)) <= 10 * error + 1e-300


def test_a_gradient_has_the_shape_of_its_argument():
    for shape in ((), (1,), (3,), (2, 3)):
        x = np.random.default_rng(0).normal(size=shape)
        grad, error = numerical_grad(lambda x: float((x**2).sum()), x)
        assert grad.shape == error.shape == shape
        np.testing.assert_allclose(grad, 2 * x, rtol=1e-11)


def test_the_gradient_agrees_with_autograd():
    x = np.random.default_rng(0).normal(size=(3, 4))
    t = torch.asarray(x).requires_grad_()
    torch.logsumexp(t.sin() @ t.mT, 0).sum().backward()

    def f(x):
        t = torch.asarray(x)
        return torch.logsumexp(t.sin() @ t.mT, 0).sum()

    assert_close(numerical_grad(f, x).grad, t.grad, rtol=1e-10, atol=1e-12)


def test_the_argument_is_not_changed_even_by_a_function_that_writes_to_it():
    x = np.array([1.0, 2.0])
    grad, _ = numerical_grad(lambda z: z.__imul__(2).sum(), x)
    np.testing.assert_array_equal(x, [1.0, 2.0])
    np.testing.assert_allclose(grad, [2.0, 2.0])


def test_float32_and_integers_are_differentiated_in_float64():
    for x in (np.array([1, 2]), np.array([1, 2], np.float32), [1.0, 2.0]):
        grad, _ = numerical_grad(lambda z: float(z @ z), x)
        assert_close(grad, np.array([2.0, 4.0]), rtol=1e-12)


def test_a_given_scale_keeps_the_steps_inside_the_domain():
    probed = []

    def f(z):
        probed.append(z[0])
        return math.log(z[0])

    (found,), _ = numerical_grad(f, np.array([1e-3]), scale=1e-3)
    assert found == pytest.approx(1e3, rel=1e-10)
    assert min(probed) >= 0.75e-3 * (1 - 1e-12)
    assert max(probed) <= 1.25e-3 * (1 + 1e-12)


def test_steps_outside_the_domain_cost_accuracy_not_truth():
    def f(z):
        return math.log(z[0]) if z[0] > 0 else math.nan

    (found, _), (error, _) = numerical_grad(f, np.array([0.05, 1.0]))
    assert abs(found - 20) <= 10 * error
    assert error < 1e-4


def test_a_jump_is_reported_by_its_error():
    (_,), (error,) = numerical_grad(lambda z: float(z[0] > 1), np.array([1.0]))
    assert error > 0.1


def test_a_function_that_is_no_number_anywhere_has_no_derivative():
    grad, error = numerical_grad(lambda z: math.nan, np.array([1.0]))
    assert np.isnan(grad).all()
    assert np.isinf(error).all()


@pytest.mark.parametrize("place", [1.0, 0.9])
def test_infinite_values_raise_no_warning(place):
    (_,), (error,) = numerical_grad(lambda z: math.inf if z[0] > 1 else float(z[0]), np.array([place]))
    assert error > 0.1 or place < 1


def test_a_result_that_is_no_scalar_is_an_error():
    with pytest.raises(TypeError):
        numerical_grad(lambda z: z, np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    ("wrong", "names"), [({"levels": 1}, "levels"), ({"scale": -1.0}, "scale"), ({"scale": math.nan}, "scale")]
)
def test_impossible_options_are_named(wrong, names):
    with pytest.raises(ValueError, match=names):
        numerical_grad(lambda z: float(z @ z), np.ones(2), **wrong)


# claims


def shown(make, *args, **kwargs) -> Claim:
    "The claim that a call shows."
    with capture_output() as captured:
        make(*args, **kwargs)
    (output,) = captured.outputs or [None]
    return output.data if output else captured.stdout


def test_a_claim_shows_one_line_with_its_label():
    line = shown(claim, "eq-a", [1.0, 2.0], [1.0, 2.0], against="torch")
    assert str(line).count("eq-a") >= 1
    assert "✓" in str(line)


def test_a_claim_records_both_differences(monkeypatch):
    made = []
    monkeypatch.setattr(core, "_show", made.append)
    claim("eq-a", [1.0, 2.0], [1.0, 2.0 + 2e-8], against="torch.nn", rtol=1e-7, atol=1e-12)
    (c,) = made
    assert (c.label, c.against, c.kind, c.tolerance) == ("eq-a", "torch.nn", "equal", "rtol 1e-07 + atol 1e-12")
    assert c.max_abs == pytest.approx(2e-8)
    assert c.max_rel == pytest.approx(1e-8)


def test_an_exact_claim_says_so(monkeypatch):
    made = []
    monkeypatch.setattr(core, "_show", made.append)
    claim("eq-a", [1.0], [1.0], against="torch", rtol=0)
    assert made[0].tolerance == "exact"


@pytest.mark.parametrize(
    ("ours", "reference"),
    [([1.0], [1.1]), ([1.0], [[1.0]]), (np.ones(1, np.float32), np.ones(1)), ([math.nan], [1.0]), ([-1.0], [1.0])],
)
def test_a_false_claim_fails_shows_nothing_and_names_its_label(ours, reference, monkeypatch):
    made = []
    monkeypatch.setattr(core, "_show", made.append)
    with pytest.raises(AssertionError, match="eq-false: "):
        claim("eq-false", ours, reference, against="torch")
    assert not made


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5, np.float32(0.5), torch.tensor(0.5)])
def test_a_bound_holds_at_its_ends_and_between(value, monkeypatch):
    made = []
    monkeypatch.setattr(core, "_show", made.append)
    claim_bound("eq-b", value, 0.0, 1.0, against="Hoeffding's inequality", error_rate=1e-6)
    (c,) = made
    assert (c.kind, c.max_abs) == ("bound", float(value))
    assert c.tolerance == "in [0, 1], fails by chance 1e-06"


@pytest.mark.parametrize("value", [-1e-9, 1.0000001, math.nan, math.inf])
def test_a_value_outside_its_bounds_fails(value):
    with pytest.raises(AssertionError, match=r"eq-b: .* is outside \[0, 1\]"):
        claim_bound("eq-b", value, 0.0, 1.0, against="closed form")


def test_one_bound_is_enough_and_none_claims_nothing():
    claim_bound("eq-b", 2.0, lower=1.0, against="closed form")
    with pytest.raises(ValueError, match="lower"):
        claim_bound("eq-b", 2.0, against="closed form")


@pytest.mark.parametrize("number", [1e-12, 0.0, math.nan, math.inf, -math.inf])
def test_a_claim_travels_as_json_whatever_its_numbers_are(number):
    bundle = Claim("eq-a", "torch <1>", "equal", number, number, "rtol 1e-07")._repr_mimebundle_()
    data = json.loads(json.dumps(bundle[CLAIM_MIME], allow_nan=False))
    assert data["label"] == "eq-a"
    assert data["max_abs"] == (number if math.isfinite(number) else None)
    assert "torch &lt;1&gt;" in bundle["text/html"]
    assert bundle["text/plain"].startswith("✓ eq-a · torch <1> · ")


def test_a_claim_in_a_notebook_is_an_output_of_its_cell():
    from IPython.core.interactiveshell import InteractiveShell

    try:
        shell = InteractiveShell.instance()
        with capture_output() as captured:
            shell.run_cell("from dlopt_course.core import claim; claim('eq-a', [1.0], [1.0], against='closed form')")
    finally:
        InteractiveShell.clear_instance()
    (output,) = captured.outputs
    assert output.data[CLAIM_MIME]["label"] == "eq-a"


# check


@pytest.fixture
def exercise(monkeypatch):
    "A lesson `toy` with one exercise: return 4."

    def examine(answer):
        expect(answer() == 4, "2 + 2 is not 5")

    module = types.ModuleType("dlopt_course.app.exercises.toy")
    module.CHECKS = {"sum": examine, "two-words": examine}
    monkeypatch.setitem(sys.modules, "dlopt_course.app.exercises", types.ModuleType("dlopt_course.app.exercises"))
    monkeypatch.setitem(sys.modules, "dlopt_course.app.exercises.toy", module)


@pytest.mark.parametrize("name", ["toy-sum", "toy-two-words"])
def test_a_right_answer_is_told_so(exercise, name, capsys):
    check(name, lambda: 4)
    assert capsys.readouterr().out == f"✓ {name}: correct\n"


def test_a_wrong_answer_is_told_what_is_wrong(exercise):
    with pytest.raises(CheckFailed, match=r"^2 \+ 2 is not 5$"):
        check("toy-sum", lambda: 5)


def test_a_stub_is_told_what_to_do(exercise):
    def stub():
        raise NotImplementedError

    with pytest.raises(CheckFailed, match="toy-sum: nothing to check yet. Replace") as caught:
        check("toy-sum", stub)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_answer_that_breaks_shows_its_own_error(exercise):
    with pytest.raises(ZeroDivisionError):
        check("toy-sum", lambda: 1 / 0)


@pytest.mark.parametrize("name", ["toy-product", "toy", "", "nolesson-sum", "-", "toy.-sum"])
def test_an_unknown_exercise_is_named(exercise, name):
    with pytest.raises(ValueError, match=f"no exercise is called {name!r}"):
        check(name, lambda: 4)


def test_an_error_in_the_checks_own_code_is_not_taken_for_an_unknown_exercise(exercise, monkeypatch):
    def broken(answer):
        return {}["missing"]

    monkeypatch.setitem(sys.modules["dlopt_course.app.exercises.toy"].CHECKS, "sum", broken)
    with pytest.raises(KeyError):
        check("toy-sum", lambda: 4)


def test_a_failed_check_is_shown_without_a_traceback():
    from IPython.core.interactiveshell import InteractiveShell

    assert CheckFailed("add 1")._render_traceback_() == ["✗ add 1"]
    try:
        shell = InteractiveShell.instance()
        with capture_output() as captured:
            shell.run_cell("from dlopt_course.core import expect; expect(False, 'add 1')")
    finally:
        InteractiveShell.clear_instance()
    assert "✗ add 1" in captured.stdout
    assert "Traceback" not in captured.stdout + captured.stderr


def test_expect_is_silent_when_it_holds():
    expect(True, "never shown")
    with pytest.raises(CheckFailed, match="shown"):
        expect(False, "shown")


# arguments


@backends
def test_floating_arrays_give_their_namespace(array):
    xp = check_floats(a=array(np.ones(2)), b=array(np.ones(3)))
    assert hasattr(xp, "exp")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_floating_dtype_is_allowed(dtype):
    check_floats(a=np.ones(2, dtype))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([1.0], TypeError, r"target must be an array \(NumPy, torch, …\), got list"),
        (1.0, TypeError, "target must be an array .* got float"),
        (None, TypeError, "target must be an array .* got NoneType"),
        (np.ones(2, int), TypeError, "target must be floating point, got int64; convert it first"),
        (np.ones(2, bool), TypeError, "target must be floating point, got bool"),
        (np.ones(2, complex), TypeError, "target must be floating point, got complex128"),
        (torch.ones(2, dtype=torch.int32), TypeError, "target must be floating point, got torch.int32"),
        (np.ones((0,)), ValueError, r"target must not be empty, got shape \(0,\)"),
        (np.ones((3, 0)), ValueError, r"target must not be empty, got shape \(3, 0\)"),
        (torch.ones(0), ValueError, "target must not be empty"),
    ],
)
def test_what_is_no_floating_array_is_named(value, error, message):
    with pytest.raises(error, match=message):
        check_floats(target=value)


def test_arrays_of_two_libraries_are_an_error():
    with pytest.raises(TypeError):
        check_floats(prediction=np.ones(2), target=torch.ones(2, dtype=torch.float64))


def test_shapes_that_differ_are_an_error_that_names_both():
    check_same_shape(a=np.ones((2, 3)), b=torch.ones(2, 3), c=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"target must have the shape of prediction, \(3,\), got \(3, 1\)"):
        check_same_shape(prediction=np.ones(3), target=np.ones((3, 1)))


def test_a_value_that_is_not_allowed_is_named_with_those_that_are():
    check_in("reduction", "mean", ("mean", "sum"))
    for value in ("avg", None, 3):
        with pytest.raises(ValueError, match=f"reduction must be one of 'mean', 'sum', got {value!r}"):
            check_in("reduction", value, ("mean", "sum"))


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int64(3), np.float64(2)])
def test_a_number_comes_back_as_a_float(value):
    found = check_number("delta", value, lambda v: v > 0, "greater than 0")
    assert type(found) is float
    assert found == value


@pytest.mark.parametrize("value", ["1", None, True, np.True_, 1j, [1.0], np.ones(1), torch.ones(())])
def test_what_is_no_number_is_named(value):
    with pytest.raises(TypeError, match=f"delta must be a number, got {type(value).__name__}"):
        check_number("delta", value, lambda v: True, "any")


@pytest.mark.parametrize("value", [0, -1.5, math.nan, math.inf, -math.inf, np.float32("nan")])
def test_an_impossible_number_is_named(value):
    with pytest.raises(ValueError, match="delta must be greater than 0, got"):
        check_number("delta", value, lambda v: v > 0, "greater than 0")


@pytest.mark.parametrize("value", [2, 3.0, np.int64(4), np.float32(5)])
def test_a_count_comes_back_as_an_int(value):
    found = check_count("steps", value, 2)
    assert type(found) is int
    assert found == value


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (1.5, ValueError), ("2", TypeError), (True, TypeError)])
def test_what_is_no_count_is_named(value, error):
    with pytest.raises(error, match="steps must be"):
        check_count("steps", value)
    with pytest.raises(ValueError, match="steps must be a whole number from 3, got 2"):
        check_count("steps", 2, 3)


def test_only_a_generator_is_a_source_of_random_numbers():
    check_rng(np.random.default_rng())
    for rng in (0, None, np.random, np.random.RandomState(0)):
        with pytest.raises(TypeError, match=f"rng must be a numpy.random.Generator, got {type(rng).__name__}"):
            check_rng(rng)


@pytest.mark.parametrize("dtype", ["float32", np.float64, np.dtype(np.float16)])
def test_a_floating_dtype_comes_back_as_one(dtype):
    assert check_dtype(dtype) == np.dtype(dtype)


@pytest.mark.parametrize("dtype", [None, int, complex, "float63", torch.float32])
def test_another_dtype_is_named(dtype):
    with pytest.raises(TypeError, match="dtype must be a floating-point type of NumPy, such as numpy.float64, got"):
        check_dtype(dtype)


@backends
def test_a_finite_result_is_handed_on(array):
    result = array(np.array([1.0, 2.0]))
    assert check_finite(result, x=array(np.array([1.0]))) is result


@backends
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_argument_behind_a_nan_is_named_with_its_place(array, bad):
    x, y = np.ones((2, 3)), np.ones((2, 3))
    y[1, 2] = bad
    result = np.where(np.isfinite(y), x, math.nan)
    with pytest.raises(ValueError, match=rf"target must be finite, got {bad} at index \[1, 2\]"):
        check_finite(array(result), prediction=array(x), target=array(y))
    with pytest.raises(ValueError, match="target must be finite"):
        check_finite(array(np.array(math.nan)), prediction=array(x), target=array(y))


@pytest.mark.parametrize("infinite", [math.inf, -math.inf])
def test_an_infinite_loss_is_a_result(infinite):
    x = np.array([infinite, 1.0])
    assert check_finite(x, x=x) is x


def test_opposite_infinities_are_found_without_a_warning():
    x = np.array([math.inf, -math.inf])
    with pytest.raises(ValueError, match=r"x must be finite, got inf at index \[0\]"):
        check_finite(x, x=x)


def test_a_result_that_overflows_from_finite_arguments_is_no_fault_of_theirs():
    x = np.array([1e308, 1.7e308])
    assert check_finite(x, x=x) is x


def test_device_arrays_are_not_looked_at():
    class OnDevice(np.ndarray):
        device = "cuda:0"

    x = np.array([math.nan]).view(OnDevice)
    assert not on_host(x)
    assert check_finite(x, x=x) is x


@backends
def test_arrays_in_memory_are_on_the_host(array):
    assert on_host(array(np.ones(1)))


# over_blocks


@examples(deadline=None)
@given(st.integers(0, 200), st.integers(1, 250))
def test_every_row_is_visited_once_and_in_order(rows, block):
    seen = over_blocks(lambda s: list(range(rows))[s], rows, block)
    assert [i for part in seen for i in part] == list(range(rows))
    assert all(0 < len(part) <= block for part in seen)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_an_error_in_a_block_reaches_the_caller(threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)

    def work(rows):
        if rows.start == 20:
            raise ZeroDivisionError("block 20")

    with pytest.raises(ZeroDivisionError, match="block 20"):
        over_blocks(work, 50, 10)


@pytest.mark.parametrize("block", [0, -1])
def test_an_impossible_block_is_an_error_not_an_empty_result(block):
    with pytest.raises(ValueError, match="block"):
        over_blocks(lambda s: s, 10, block)


def test_blocks_run_on_as_many_threads_as_allowed(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    together = threading.Barrier(3, timeout=30)  # passed only if three blocks are at work at once
    assert len(over_blocks(lambda s: together.wait(), 30, 10)) == 3


def test_one_thread_is_the_callers_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert set(over_blocks(lambda s: threading.get_ident(), 30, 10)) == {threading.get_ident()}


@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_phase_begins_when_the_one_before_is_done(threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    done = []

    def first(i):
        time.sleep(0.01 * (i == 0))  # who takes this one is late
        done.append(i)
        return i

    phases = [[partial(first, i) for i in range(5)], [lambda: len(done)] * 4, []]
    for _ in range(20):
        done.clear()
        assert in_phases(*phases) == [[0, 1, 2, 3, 4], [5, 5, 5, 5], []]
    assert in_phases() == []


@pytest.mark.parametrize("threads", ["1", "3"])
def test_after_an_error_no_later_phase_begins(threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    begun = []
    for place in range(4):
        tasks = [lambda: 1] * 4
        tasks[place] = lambda: 1 / 0
        with pytest.raises(ZeroDivisionError):
            in_phases(tasks, [lambda: begun.append(1)] * 4)
    assert begun == []


def test_threads_inside_threads_do_not_wait_for_each_other(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    sums = over_blocks(lambda s: sum(over_blocks(lambda t: t.stop - t.start, 10, 3)), 8, 1)
    assert sums == [10] * 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_threads_work_in_a_forked_child(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    code = """if True:
        import os, threading
        from dlopt_course.core import over_blocks
        over_blocks(lambda s: 1, 4, 1)
        child = os.fork()
        if child == 0:
            together = threading.Barrier(2, timeout=20)  # passed only if a second thread works
            os._exit(len(over_blocks(lambda s: together.wait(), 2, 1)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "2", run.stderr


@pytest.mark.parametrize("limit", ["", "0", "-2", "many"])
def test_without_a_usable_limit_the_threads_are_the_cores_of_this_process(limit, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert num_threads() == cores


def test_the_limit_of_openmp_is_respected(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert num_threads() == 7


# write_atomic


@pytest.mark.parametrize("data", [b"\x00\xff", "é", b"", ""])
def test_a_file_is_written_whole_with_its_folder(data, tmp_path):
    path = tmp_path / "a" / "b" / "file"
    for _ in range(2):
        write_atomic(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("interruption", [OSError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(interruption, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")

    def interrupt(*args):
        raise interruption

    monkeypatch.setattr(core.os, "replace", interrupt)
    with pytest.raises(interruption):
        write_atomic(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


# settings

GOOD = {
    "seed": "3",
    "device": "cpu",
    "dtype": "float32",
    "workers": "2",
    "data_folder": "sets",
    "time_budget": "30.5",
    "quick": "yes",
}


@pytest.fixture(autouse=True)
def no_overrides(monkeypatch):
    "The tests see no setting of the shell that runs them."
    for key in [k for k in os.environ if k.startswith("DLOPT_")]:
        monkeypatch.delenv(key)


def write_settings(folder: Path, section: str = "course", **changes) -> Path:
    "A settings.ini with some keys changed, or left out where the change is None."
    keys = {k: v for k, v in (GOOD | changes).items() if v is not None}
    file = folder / "settings.ini"
    file.write_text(f"[{section}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()), encoding="utf-8")
    return file


def test_settings_are_read_and_converted(tmp_path):
    write_settings(tmp_path)
    s = settings(tmp_path)
    assert (s.seed, s.device, s.dtype, s.workers, s.time_budget, s.quick) == (3, "cpu", "float32", 2, 30.5, True)
    assert s.data_folder == tmp_path / "sets"


def test_auto_is_resolved(tmp_path, monkeypatch):
    write_settings(tmp_path, device="auto", workers="auto")
    s = settings(tmp_path)
    assert s.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert s.workers == min(2, os.cpu_count())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert settings(tmp_path).device == "cuda"


BAD = {
    "seed": ["-1", "1.5", "one", "", "0 ; comment"],
    "device": ["gpu", "CPU", "cuda:1", ""],
    "dtype": ["float16", "double", ""],
    "workers": ["0", "-1", "2.5", "all", ""],
    "data_folder": [""],
    "time_budget": ["0", "-3", "nan", "inf", "1e999", "a minute", ""],
    "quick": ["maybe", "true", "1", ""],
}
bad = pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in BAD.items() for v in values])


@bad
def test_an_impossible_value_in_the_file_is_an_error_with_file_key_value_and_what_is_allowed(key, value, tmp_path):
    file = write_settings(tmp_path, **{key: value})
    with pytest.raises(ValueError, match=key) as caught:
        settings(tmp_path)
    assert str(caught.value) == f"{file}: {key} must be {core._RULES[key][1]}, got {value!r}"


@bad
def test_an_impossible_value_in_the_environment_is_an_error_that_names_the_variable(key, value, tmp_path, monkeypatch):
    write_settings(tmp_path)
    monkeypatch.setenv(f"DLOPT_{key.upper()}", value)
    with pytest.raises(
        ValueError, match=f"^environment variable DLOPT_{key.upper()}: {key} must be .*, got {value!r}$"
    ):
        settings(tmp_path)


def test_cuda_without_a_gpu_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    write_settings(tmp_path, device="cuda")
    with pytest.raises(ValueError, match="device must be auto, cpu, or cuda where torch finds a CUDA GPU, got 'cuda'"):
        settings(tmp_path)


def test_an_unknown_key_is_an_error_that_lists_the_keys(tmp_path, monkeypatch):
    write_settings(tmp_path, sead="1")
    with pytest.raises(ValueError, match="settings.ini: unknown setting 'sead'; the settings are seed, device, dtype"):
        settings(tmp_path)
    write_settings(tmp_path)
    monkeypatch.setenv("DLOPT_SEAD", "1")
    with pytest.raises(ValueError, match="environment variable DLOPT_SEAD: unknown setting 'sead'"):
        settings(tmp_path)


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_named(key, tmp_path):
    file = write_settings(tmp_path, **{key: None})
    with pytest.raises(ValueError, match=f"{key} missing") as caught:
        settings(tmp_path)
    assert str(file) in str(caught.value)


def test_the_environment_goes_before_the_file(tmp_path, monkeypatch):
    write_settings(tmp_path)
    for key, value in (("SEED", " 7 "), ("DTYPE", "float64"), ("QUICK", "no"), ("DATA_FOLDER", "elsewhere")):
        monkeypatch.setenv(f"DLOPT_{key}", value)
    s = settings(tmp_path)
    assert (s.seed, s.dtype, s.quick, s.workers) == (7, "float64", False, 2)
    assert s.data_folder == tmp_path / "elsewhere"


def test_a_variable_can_stand_in_for_a_missing_key(tmp_path, monkeypatch):
    write_settings(tmp_path, seed=None)
    monkeypatch.setenv("DLOPT_SEED", "7")
    assert settings(tmp_path).seed == 7


def test_the_nearest_file_upwards_is_taken(tmp_path):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    write_settings(tmp_path, seed="1")
    assert settings(deep).seed == 1
    write_settings(tmp_path / "a", seed="2")
    assert settings(deep).seed == 2
    assert settings(deep).data_folder == tmp_path / "a" / "sets"


def test_the_current_folder_is_where_it_starts(tmp_path, monkeypatch):
    write_settings(tmp_path, seed="5")
    monkeypatch.chdir(tmp_path)
    assert settings().seed == settings(".").seed == 5


def test_the_settings_of_another_program_are_passed_over(tmp_path):
    write_settings(tmp_path, seed="1")
    inner = tmp_path / "inner"
    inner.mkdir()
    write_settings(inner, section="DEFAULT")
    assert settings(inner).seed == 1


@pytest.mark.parametrize(
    "foreign", [b"key = value\n", b"\xff\xfe[x]\n", b"[x]\na = \xe9\n", b"[x]\na\n", b"[x]\na=1\na=2\n"]
)
def test_a_file_of_another_program_is_passed_over_even_where_it_cannot_be_read(foreign, tmp_path):
    write_settings(tmp_path, seed="1")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "settings.ini").write_bytes(foreign)
    assert settings(tmp_path / "inner").seed == 1


@pytest.mark.parametrize("line", ["seed = 4", "no equals sign"])
def test_a_damaged_file_is_an_error_that_names_it(line, tmp_path):
    file = write_settings(tmp_path)
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ValueError, match="settings.ini"):
        settings(tmp_path)


def test_a_mark_at_the_start_that_some_editors_write_does_no_harm(tmp_path):
    file = write_settings(tmp_path)
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert settings(tmp_path).seed == 3


def test_a_home_that_does_not_exist_is_an_impossible_folder(tmp_path):
    write_settings(tmp_path, data_folder="~nobody-has-this-name/data")
    with pytest.raises(ValueError, match="data_folder must be the path of a folder"):
        settings(tmp_path)


@pytest.mark.parametrize("value", ["/somewhere/else", "~/sets"])
def test_an_absolute_data_folder_is_taken_as_it_is(value, tmp_path):
    write_settings(tmp_path, data_folder=value)
    assert settings(tmp_path).data_folder == Path(value).expanduser()


def test_a_percent_sign_is_a_percent_sign(tmp_path):
    write_settings(tmp_path, data_folder="100%(sure)s")
    assert settings(tmp_path).data_folder == tmp_path / "100%(sure)s"


def test_the_packages_own_settings_serve_where_there_are_none(tmp_path):
    own = settings(Path(core.__file__).parents[1])
    assert settings(tmp_path).seed == own.seed


def test_an_installed_package_never_gets_data_written_into_it(tmp_path, monkeypatch):
    package, here = tmp_path / "site-packages" / "dlopt_course", tmp_path / "here"
    package.mkdir(parents=True)
    here.mkdir()
    write_settings(package, seed="9")
    monkeypatch.setattr(sys.modules["dlopt_course"], "__file__", str(package / "__init__.py"))
    assert settings(here).seed == 9
    assert settings(here).data_folder == here / "sets"


def test_the_courses_own_settings_are_valid_and_complete():
    s = settings(Path(core.__file__).parents[1])
    assert {f.name for f in core.fields(core.Settings)} == set(core._RULES)
    assert s.data_folder == Path(core.__file__).parents[1] / "data"


def test_core_is_imported_without_what_it_may_not_need():
    heavy = ("torch", "IPython", "matplotlib", "scipy")
    code = f"import sys, dlopt_course.core; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
