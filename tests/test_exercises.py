"""Every solution passes its check, every stub fails it, and likely wrong answers are told what is wrong with them."""

import importlib
import re

import numpy as np
import pytest
import scipy.special
from lessons import NOTEBOOKS, read, tagged

from dlopt_course.core import CheckFailed, check

CALL = re.compile(r'check\("([\w-]+)", (\w+)\)')


def exercises() -> list[tuple]:
    "(name, the lesson's imports, stub, solution, function's name) of every exercise of every lesson."
    found = []
    for notebook in map(read, NOTEBOOKS):
        calls = [call for c in notebook.cells if c.cell_type == "code" for call in CALL.findall(c.source)]
        cells = zip(calls, tagged(notebook, "stub"), tagged(notebook, "solution"), strict=True)
        found += [(name, answer, notebook, stub.source, solution.source) for (name, answer), stub, solution in cells]
    return found


EXERCISES = exercises()
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e[0])


def answer_of(exercise: tuple, source: str):
    "The function that a stub or a solution defines, with the lesson's own imports and module at hand."
    name, answer, notebook, *_ = exercise
    module = importlib.import_module(f"dlopt_course.{name.partition('-')[0]}")
    space = dict(vars(module))
    for cell in tagged(notebook, "imports"):
        exec(cell.source, space)
    exec(source, space)
    return space[answer]


@each_exercise
def test_solution_passes(exercise):
    check(exercise[0], answer_of(exercise, exercise[4]))


@each_exercise
def test_stub_fails_and_says_so(exercise):
    with pytest.raises(CheckFailed, match=r"\w{3}"):
        check(exercise[0], answer_of(exercise, exercise[3]))


@each_exercise
def test_the_learner_gets_a_prompt_a_hint_and_a_folded_solution(exercise):
    notebook, stub, solution = exercise[2:]
    ids = [c.id for c in notebook.cells]
    at = next(i for i, c in enumerate(notebook.cells) if c.source == stub)
    assert "### Exercise" in notebook.cells[at - 1].source
    assert "{dropdown} Hint" in notebook.cells[at + 1].source
    folded = notebook.cells[at + 2]
    assert folded.source == solution, ids[at]
    assert folded.metadata.jupyter.source_hidden


def test_each_lesson_has_at_least_five_exercises():
    taught = [p for p in NOTEBOOKS if re.match(r"(0[1-9]|1[0-2])_", p.stem)]
    for path in taught:
        assert len(tagged(read(path), "solution")) >= 5, path.stem


def naive_lse(x):
    return np.log(np.sum(np.exp(x)))


def naive_softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def one_lse(x):
    return np.max(x) + np.log(np.sum(np.exp(x - np.max(x))))


def softplus(z):
    return np.logaddexp(0, z)


def smoothed(z, y, target, rows=1.0):
    return (scipy.special.softmax(z, axis=1) - target) / rows


def nll(z, y):
    return -scipy.special.log_softmax(z, axis=1)[np.arange(len(y)), y]


def naive_nll(z, y):
    return -np.log(naive_softmax(z)[np.arange(len(y)), y])


def onehot(z, y, epsilon=0.0):
    return (1 - epsilon) * np.eye(z.shape[1])[y] + epsilon / z.shape[1]


def stingy(z, y, epsilon):
    return np.where(onehot(z, y) == 1, 1 - epsilon, epsilon / (z.shape[1] - 1))


def inside(e, d):
    return np.abs(e) <= d


WRONG = [
    ("losses-logsumexp", naive_lse, "1000: subtract the maximum"),
    ("losses-logsumexp", one_lse, r"\(inf - inf is NaN\)"),
    ("losses-logsumexp", lambda x: np.log(np.sum(np.exp(x - x.max()))), "wrong for ordinary logits"),
    ("losses-logsumexp", lambda x: np.sum(np.exp(x)), "logarithm is missing"),
    ("losses-logsumexp", lambda x: x, "one number"),
    ("losses-bce", lambda z, y: y * np.log(1 + np.exp(-z)) + (1 - y) * np.log(1 + np.exp(z)), "not finite"),
    ("losses-bce", lambda z, y: y * z - softplus(z), "sign is wrong"),
    ("losses-bce", lambda z, y: np.maximum(z, 0) - z * y + np.log(1 + np.exp(-np.abs(z))), "log1p"),
    ("losses-bce", lambda z, y: np.mean(softplus(z) - y * z), "one loss for each logit"),
    ("losses-bce", lambda z, y: softplus(z), "ordinary logits"),
    ("losses-smoothed", lambda z, y, e: smoothed(z, y, onehot(z, y, e)), "gradient of the sum"),
    ("losses-smoothed", lambda z, y, e: smoothed(z, y, onehot(z, y), len(y)), "not smoothed"),
    ("losses-smoothed", lambda z, y, e: smoothed(z, y, onehot(z, y) + e / 4, len(y)), "sum to 0"),
    ("losses-smoothed", lambda z, y, e: (naive_softmax(z) - onehot(z, y, e)) / len(y), "stable softmax"),
    ("losses-smoothed", lambda z, y, e: -smoothed(z, y, onehot(z, y, e), len(y)), "sign"),
    ("losses-smoothed", lambda z, y, e: smoothed(z, y, onehot(z, y, e), z.size), "over the rows"),
    ("losses-smoothed", lambda z, y, e: smoothed(z, y, stingy(z, y, e), len(y)), "true one too"),
    ("losses-weighted", lambda z, y, w: np.sum(w[y] * naive_nll(z, y)) / w[y].sum(), "stable log-softmax"),
    ("losses-weighted", lambda z, y, w: np.mean(w[y] / w.mean() * nll(z, y)), "mean 1"),
    ("losses-weighted", lambda z, y, w: np.mean(w[y] * nll(z, y)), "number of rows"),
    ("losses-weighted", lambda z, y, w: np.sum(w[y] * nll(z, y)) / w.sum(), "all classes"),
    ("losses-weighted", lambda z, y, w: np.mean(nll(z, y)), "no effect"),
    ("losses-counts", lambda z, y: (np.exp(z) - y * z, y - np.exp(z)), "log-likelihood"),
    ("losses-counts", lambda z, y: (np.exp(z) - y * z, 1 - y / np.exp(z)), "not by lambda"),
    ("losses-counts", lambda z, y: (z - y * np.log(z), 1 - y / z), r"lambda = exp\(z\)"),
    ("losses-counts", lambda z, y: np.exp(z) - y * z, "return two things"),
    ("losses-huber", lambda e, d: np.where(inside(e, d), e**2 / 2, d * np.abs(e)), "as given"),
    ("losses-huber", lambda e, d: np.where(inside(e, d), e**2 / 2, d * np.abs(e) - 1), "jumps"),
    ("losses-huber", lambda e, d: np.where(inside(e, d), e**2 / 2, d * (e - d / 2)), "never negative"),
    ("losses-huber", lambda e, d: np.where(inside(e, d), e**2, d * (2 * np.abs(e) - d)), r"e\*\*2 / 2"),
    ("losses-huber", lambda e, d: np.where(inside(e, d), e**2 / 2, np.abs(e) + d**2 / 2 - d), "slope"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "wrong", "message"), WRONG, ids=[f"{w[0]}-{i}" for i, w in enumerate(WRONG)])
def test_wrong_answer_is_told_what_is_wrong(name, wrong, message):
    with pytest.raises(CheckFailed, match=message):
        check(name, wrong)


def test_every_exercise_has_two_wrong_answers_with_their_own_messages():
    for name, *_ in EXERCISES:
        messages = {m for n, _, m in WRONG if n == name}
        assert len(messages) >= 2, name
