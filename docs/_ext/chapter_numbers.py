"""Numbers chapters, their equations and figures by the lessons' files: 03_schedules is chapter 3 wherever it stands."""

import re

from docutils import nodes


def setup(app):
    """Called by Sphinx."""
    app.connect("env-check-consistency", renumber)  # Sphinx has counted by then, and has written nothing yet
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def renumber(app, env):
    """Replace the first part of every number in a lesson, which Sphinx counts, by the number of its file."""
    for name, sections in env.toc_secnumbers.items():
        if chapter := re.match(r"\d+(?=_)", name):
            number = int(chapter[0])
            env.toc_secnumbers[name] = {anchor: (number, *old[1:]) if old else old for anchor, old in sections.items()}
            for figures in env.toc_fignumbers.get(name, {}).values():
                figures.update({anchor: (number, *old[1:]) for anchor, old in figures.items()})
            shown = [env.titles[name], *env.tocs[name].findall(nodes.reference)]
            for node in (n for n in shown if n.get("secnumber")):
                node["secnumber"] = [number, *node["secnumber"][1:]]
