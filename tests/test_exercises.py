"""Every solution passes its check, every stub fails it; likely wrong answers (wrong_*.py) are told what is wrong."""

import re
from importlib import import_module
from pathlib import Path

import pytest
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
    module = import_module(f"dlopt_course.{name.partition('-')[0]}")
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


WRONG = [row for path in sorted(Path(__file__).parent.glob("wrong_*.py")) for row in import_module(path.stem).WRONG]


@pytest.mark.parametrize(("name", "wrong", "message"), WRONG, ids=[f"{w[0]}-{i}" for i, w in enumerate(WRONG)])
def test_wrong_answer_is_told_what_is_wrong(name, wrong, message):
    with pytest.raises(CheckFailed, match=message):
        check(name, wrong)


def test_every_exercise_has_two_wrong_answers_with_their_own_messages():
    for name, *_ in EXERCISES:
        messages = {m for n, _, m in WRONG if n == name}
        assert len(messages) >= 2, name
