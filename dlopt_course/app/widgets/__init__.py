"""Interactive figures that need no kernel and no network: small web components, shown by `widget`.

Each is one file, `<name>.js`, with a subclass of `Figure` from base.js; its first line names the attributes it takes.
The output holds all that it needs, so it works on the site, in JupyterLab and in a notebook that is sent to somebody.
"""

import re
from html import escape
from pathlib import Path

from IPython.display import HTML

HERE = Path(__file__).parent
NEEDS = "An interactive figure belongs here. It needs JavaScript; in Jupyter, run this cell to trust it."


def widget(
    name: str,  # the figure, such as "loss-explorer"
    **attributes: object,  # how its controls are set at first, such as delta=2
) -> HTML:  # the element and its script, which may be shown any number of times
    """An interactive figure. Raises ValueError for a figure or an attribute that does not exist."""
    known = sorted(path.stem for path in HERE.glob("*-*.js"))  # an element's name has a hyphen, base.js has none
    if name not in known:
        raise ValueError(f"name must be one of {', '.join(known)}, got {name!r}")
    script = read(f"{name}.js")
    opening = " ".join([name, *(_attribute(name, script, key, value) for key, value in attributes.items())])
    return HTML(f"<{opening}>{NEEDS}</{name}>\n<script>\n{define_once(name, script)}\n</script>")


def read(file: str) -> str:
    """The text of a file of this folder."""
    return (HERE / file).read_text(encoding="utf-8").strip()


def define_once(name: str, script: str) -> str:
    """The script after what all widgets share, in a scope of its own; it does nothing where the element is known."""
    guard = f'if (customElements.get("{name}")) return;'
    parts = ['(() => {\n"use strict";', guard, f"const STYLE = `{read('base.css')}`;", read("base.js"), script, "})();"]
    return "\n".join(parts)


def _attribute(name: str, script: str, key: str, value: object) -> str:
    """One attribute as HTML, if the widget takes it."""
    known = re.match(rf"// <{name}([\w -]*)>", script)[1].split()
    if key not in known:
        raise ValueError(f"{name} takes {', '.join(known)}, got {key!r}")
    return f'{key}="{escape(str(value))}"'
