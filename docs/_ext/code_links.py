"""Links code to the reference: prepares cells for sphinx-codeautolink, and links names in prose itself."""

import importlib
import re

from docutils import nodes
from IPython.core.inputtransformer2 import TransformerManager

DEFINITION = re.compile(r"^(def|class) (\w+)", re.MULTILINE)


def setup(app):
    """Called by Sphinx."""
    app.connect("doctree-resolved", link_prose)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def without_definitions(source: str) -> tuple[str, str]:
    """The code as shown, and as the linker reads it: top-level definitions are renamed at equal length.

    A lesson that defines `mse` uses the same `mse` that it exports. Left as it is, the definition would hide the
    library's name, and no use of it in the lesson would become a link.
    """
    renamed = DEFINITION.sub(lambda m: f"{m[1]} {'_' * len(m[2])}", source)
    return source, TransformerManager().transform_cell(renamed)


def preface(module: str) -> str:
    """Tells the linker, in Markdown, which names a lesson exports."""
    names = importlib.import_module(f"dlopt_course.{module}").__all__
    return f"```{{autolink-preface}} from dlopt_course.{module} import {', '.join(names)}\n:level: file\n```"


def link_prose(app, doctree, docname):
    """Make `mse` or `dlopt_course.losses.mse` in a lesson's prose a link to the reference."""
    objects = app.env.domains["py"].objects
    module = app.env.metadata[docname].get("exports")
    for literal in [n for n in doctree.findall(nodes.literal) if not inside_link(n)]:
        text = literal.astext().removesuffix("()")
        if found := objects.get(text) or objects.get(f"dlopt_course.{module}.{text}"):
            uri = f"{app.builder.get_relative_uri(docname, found.docname)}#{found.node_id}"
            link = nodes.reference("", "", internal=True, refuri=uri, classes=["prose-link"])
            literal.replace_self(link)
            link += literal


def inside_link(node) -> bool:
    """Whether a node is in a link or a heading already."""
    while node := node.parent:
        if isinstance(node, (nodes.reference, nodes.title)):
            return True
    return False
