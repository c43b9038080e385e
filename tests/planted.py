"""Planting errors: small changes to a function's source, each of which the checks of a lesson must notice.

    from planted import survivors
    assert survivors(losses, "mse", battery) == set()

`battery(module)` runs a lesson's reference checks on a module and raises where one fails.
"""

import ast
import copy
import functools
import inspect
import itertools
import types
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

SWAPPED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.Gt,
    ast.Gt: ast.Lt,
    ast.LtE: ast.GtE,
    ast.GtE: ast.LtE,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
REST = "NumPy takes any negative number for the length that is left over"  # why -1 -> -2 changes nothing there
RENAMED = {"min": "max", "max": "min", "maximum": "minimum", "sum": "mean", "any": "all", "all": "any"}


class Mutant(NamedTuple):
    "A definition with one planted error, and what the error is."

    what: str  # "2 * (prediction - target)  ->  prediction - target", numbered where it occurs again
    definition: ast.FunctionDef | ast.ClassDef


def mutants(source: str, name: str) -> Iterator[Mutant]:
    "The function or class called `name` of a module's source, with one small error each."
    definition = next(x for x in ast.parse(source).body if getattr(x, "name", None) == name)
    seen: dict[str, int] = {}
    for place, (node, parent) in enumerate(_computations(definition)):
        for wrong in _wrong_forms(node):
            what = f"{ast.unparse(node)}  ->  {ast.unparse(wrong)}"
            what += f"  in  {ast.unparse(parent)}" * isinstance(node, ast.Constant)
            seen[what] = seen.get(what, 0) + 1
            yield Mutant(what + f"  ({seen[what]})" * (seen[what] > 1), _replaced(definition, place, wrong))


def definitions(module: types.ModuleType) -> list[str]:
    "The functions and classes that a module defines, private ones too."
    here = {name: x for name, x in vars(module).items() if getattr(x, "__module__", None) == module.__name__}
    return sorted(name for name, x in here.items() if callable(x))


def survivors(module: types.ModuleType, name: str, battery: Callable) -> set[str]:
    "What was planted in the function or class and not noticed by `battery`."
    return {m.what for m in mutants(inspect.getsource(module), name) if not _noticed(m, module, battery)}


def load(module: types.ModuleType, mutant: Mutant | None = None) -> types.ModuleType:
    "A fresh module with the code of `module`, one definition replaced, under another name."
    made = types.ModuleType(f"{module.__name__}_planted")
    made.__package__ = module.__package__
    for name, code in _compiled(inspect.getsource(module)):
        planted = mutant is not None and name == mutant.definition.name
        exec(_compile(mutant.definition) if planted else code, made.__dict__)
    return made


@functools.cache
def _compiled(source: str) -> list[tuple[str | None, types.CodeType]]:
    "Name and code of each statement of a module, compiled once: a mutant replaces one of them."
    return [(getattr(x, "name", None), _compile(x)) for x in ast.parse(source).body]


def _compile(statement: ast.stmt) -> types.CodeType:
    return compile(ast.Module([statement], []), "<planted>", "exec")


def _noticed(mutant: Mutant, module: types.ModuleType, battery: Callable) -> bool:
    "Whether the battery fails; a planted error may also crash, or fail while the module is loaded."
    try:
        battery(load(module, mutant))
    except (Exception, pytest.fail.Exception):
        return True
    return False


def _computations(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """The nodes below with their parents, in a fixed order.

    Annotations, the messages of errors and zip's `strict`, a guard of lists that have one length, compute nothing.
    """
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if (
                isinstance(child, ast.AST)
                and not isinstance(child, ast.Raise)
                and getattr(child, "arg", None) != "strict"
                and field not in ("annotation", "returns")
            ):
                yield child, node
                yield from _computations(child)


def _replaced(definition: ast.stmt, place: int, wrong: ast.AST) -> ast.stmt:
    "A copy of the definition in which the node at `place` is `wrong`."
    fresh = copy.deepcopy(definition)
    target, _ = next(itertools.islice(_computations(fresh), place, None))

    class Replace(ast.NodeTransformer):
        def visit(self, node):
            return wrong if node is target else self.generic_visit(node)

    return ast.fix_missing_locations(Replace().visit(fresh))


def _wrong_forms(node: ast.AST) -> Iterator[ast.AST]:
    "The node with a swapped operator, a dropped factor, another constant, without a limit, or with swapped branches."
    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in SWAPPED:
        yield _with(node, op=SWAPPED[type(node.op)]())
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div, ast.Pow)):
        yield node.left
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        yield node.right
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        yield node.operand
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
        yield _with(node, ops=[SWAPPED[type(node.ops[0])](), *node.ops[1:]])
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    if isinstance(node, ast.Call):
        yield from _wrong_calls(node)


def _wrong_calls(node: ast.Call) -> Iterator[ast.AST]:
    "A call of the opposite function, without what it does (abs, clip, …), or with the branches of `where` swapped."
    name = getattr(node.func, "attr", "")
    if name in RENAMED:
        yield _with(node, func=_with(node.func, attr=RENAMED[name]))
    if name in ("abs", "clip", "sign", "exp", "log", "log1p", "sqrt") and node.args:
        yield node.args[0]
    if name == "where":
        yield _with(node, args=[node.args[0], node.args[2], node.args[1]])


def _with(node: ast.AST, **changes) -> ast.AST:
    "A copy of the node with some fields replaced."
    return type(node)(**{name: getattr(node, name) for name in node._fields if hasattr(node, name)} | changes)
