"""Shows fastcore's docments, the comments after each parameter, in the reference."""

import inspect
import re
from types import NoneType

from fastcore.docments import docments

SIGNATURE = re.compile(
    r"(?s:.*?)def \w+\(\n(?P<parameters>(?s:.*?))^ *\)[^#\n]*:(?: *# *(?P<result>.*))?$", re.MULTILINE
)
STARRED = re.compile(r"^ *\*+(\w+)[^#\n]*# *(.*)$", re.MULTILINE)
CODE_OR_MATH = re.compile(r"(`+[^`]+`+|\$[^$\n]+\$)")


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", process_docstring)
    return {"parallel_read_safe": True}


def process_docstring(app, what, name, obj, options, lines):
    """Turn a docstring in plain words into reStructuredText, and add the parameters' table."""
    # A constant has no docstring of its own, autodoc shows that of its type.
    lines[:] = [] if what == "data" else [as_rst(line) for line in lines]
    if what in ("function", "method", "class", "exception"):
        lines += ["", *field_list(obj)]


def as_rst(text: str) -> str:
    """Plain text as reStructuredText: `code` and $math$ mean what they say, nothing else is markup."""
    parts = CODE_OR_MATH.split(text)
    return "".join(markup(part) if i % 2 else re.sub(r"([\\*|_])", r"\\\1", part) for i, part in enumerate(parts))


def markup(part: str) -> str:
    """One piece of code or math."""
    if part.startswith("$"):
        return f":math:`{part.strip('$')}`"
    inner = part.strip("`")
    return f"`{inner}`" if re.fullmatch(r"[\w.]+", inner) else f"``{inner}``"


def field_list(obj) -> list[str]:
    """Sphinx's fields for parameters and result."""
    found = docments(obj, full=True, returns=True)
    for name, comment in overlooked(obj).items():
        found[name]["docment"] = found[name]["docment"] or comment
    result = found.pop("return", None)
    if not any(p["docment"] for p in found.values()):
        found = {}
    fields = [line for name, p in found.items() if name != "self" for line in parameter(name, p)]
    return fields + (returned(result) if result and not inspect.isclass(obj) else [])


def overlooked(obj) -> dict[str, str]:
    """The comments that docments does not see: of `*args` and `**options`, and of a result without annotation."""
    if not inspect.isroutine(obj) or not (signature := SIGNATURE.match(inspect.getsource(obj))):
        return {}
    found = dict(STARRED.findall(signature["parameters"]))
    return found | ({"return": signature["result"]} if signature["result"] else {})


def returned(result: dict) -> list[str]:
    """The field of the result, none where nothing is known about it."""
    kind, text = type_name(result["anno"]), as_rst(result["docment"] or "")
    words = [f"*{as_rst(kind)}*" if kind else "", text]
    return [f":returns: {' – '.join(filter(None, words))}"] if any(words) else []


def parameter(name: str, p: dict) -> list[str]:
    """The fields of one parameter."""
    stars = {inspect.Parameter.VAR_POSITIONAL: r"\*", inspect.Parameter.VAR_KEYWORD: r"\*\*"}.get(p["kind"], "")
    text = " ".join((p["docment"] or "").split())
    lines = [f":param {stars}{name}: {as_rst(text)}".rstrip()]
    if kind := type_name(p["anno"]):
        lines.append(f":type {stars}{name}: {as_rst(kind)}")
    return lines


def type_name(annotation) -> str:
    """An annotation as it was written; docments takes the type of a default for one, and that of None says nothing."""
    if annotation in (None, inspect.Parameter.empty, NoneType):
        return ""
    return annotation.__name__ if type(annotation) is type else str(annotation).removeprefix("typing.")
