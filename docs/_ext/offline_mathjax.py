"""Serves equations from the site itself: the part of the package sphinx-mathjax-offline that a page can ask for."""

import importlib.util
import shutil
from pathlib import Path

NEEDED = ["tex-chtml.js", "input/tex/extensions", "output/chtml/fonts/woff-v2"]


def setup(app):
    """Called by Sphinx."""
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.config.mathjax3_config = {
        # The menu's accessibility add-ons are loaded on demand from folders that are not copied.
        "options": {"menuOptions": {"settings": {"explorer": False}}},
        # An unknown command is an error, which the tests look for, not red text.
        "tex": {"packages": {"[-]": ["noundefined"]}},
    }
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True}


def copy_mathjax(app, exception):
    """Copy about 2 MB of the package's 24."""
    # The package's folder has hyphens in its name, so that it can be found but not imported by a statement.
    source = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static/mathjax"
    target = Path(app.outdir, "_static/mathjax")
    if exception is None and app.builder.format == "html":
        for name in NEEDED:
            copy = shutil.copytree if (source / name).is_dir() else shutil.copyfile
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            copy(source / name, target / name)
