"""How answers are judged: what the checks of all lessons share."""

import math
import warnings

import numpy as np

from dlopt_course.core import expect


def close(a, b, tolerance=1e-9) -> bool:
    "Whether two results agree in shape and in every value."
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))


def quietly(answer, *args, **options):
    "The answer's result; what is not finite is judged by the value, not by NumPy's warning."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return answer(*args, **options)


def rule_out(got, mistakes: dict, tolerance=1e-9) -> None:
    "Known mistakes by the message that names them: none may give what the answer gave."
    for message, value in mistakes.items():
        expect(not close(got, value, tolerance), message)


def number(value, what: str) -> float:
    "The value as a float, if it is one finite real number."
    good = isinstance(value, (int, float, np.number)) or (isinstance(value, np.ndarray) and value.ndim == 0)
    expect(good and np.isreal(value) and math.isfinite(value), f"{what} should be one finite number, got {value!r:.60}")
    return float(value)


def array(value, shape: tuple, what: str) -> np.ndarray:
    "The value as one of floats, if it is an array of that shape."
    good = getattr(value, "shape", None) == shape
    expect(good, f"{what} should be an array of shape {shape}, got {value!r:.60}")
    return np.asarray(value, dtype=float)
