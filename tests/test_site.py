"""The site: what the reader makes of a lesson, the generated pages, the build. test_browser.py looks at the result."""

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import code_links
import docments_hook
import generated_pages
import nbdev_reader
import nbformat
import pytest
from bs4 import BeautifulSoup
from sphinx.errors import ExtensionError

from dlopt_course.app import site as site_module
from dlopt_course.core import CLAIM_MIME

ROOT = Path(__file__).parents[1]
CLAIM = {"label": "tiny-sum", "against": "fsum", "kind": "equal", "max_abs": 0.0, "max_rel": 0.0, "tolerance": "exact"}


def code(source: str, *outputs: dict, tags: tuple = ()) -> nbformat.NotebookNode:
    """A code cell as it is after a run."""
    shown = [nbformat.v4.new_output("display_data", data=data) for data in outputs]
    return nbformat.v4.new_code_cell(source, outputs=shown, metadata={"tags": list(tags)} if tags else {})


def prose(source: str, *tags: str) -> nbformat.NotebookNode:
    """A Markdown cell."""
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)} if tags else {})


def read(*cells: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells as the site shows them."""
    return nbdev_reader.read(nbformat.writes(nbformat.v4.new_notebook(cells=list(cells)))).cells


# The reader


@pytest.mark.parametrize(
    ("directive", "tag"),
    [
        ("echo: false", "remove-input"),
        ("output: false", "remove-output"),
        ("code-fold: true", "hide-input"),
        ("code-fold", "hide-input"),
    ],
)
def test_directive_becomes_a_tag_and_is_not_shown(directive, tag):
    (cell,) = read(code(f"#| {directive}\nx = 1\n#| stays"))
    assert cell.metadata["tags"] == [tag]
    assert cell.source == "x = 1\n#| stays"


@pytest.mark.parametrize("source", ["#| hide\nx = 1", "#| include: false\nx = 1", "#| eval: false", "# | hide\nx = 1"])
def test_cells_that_are_not_shown(source):
    assert read(code(source)) == []


def test_eval_false_shows_its_code():
    (cell,) = read(code("#| eval: false\nwhile True: pass"))
    assert cell.source == "while True: pass"


def test_exported_cell_is_marked_with_its_module():
    preface, exported, plain = read(code("#| default_exp core"), code("#|export\ndef f(): ..."), code("f()"))
    assert "from dlopt_course.core import CLAIM_MIME," in preface.source
    assert exported.metadata["tags"] == ["exported-core"]
    assert plain.metadata["tags"] == []


def test_solution_is_folded():
    cell, text = read(code("x = 1", tags=("solution",)), prose("Because.", "solution"))
    assert "hide-cell" in cell.metadata["tags"]
    assert cell.metadata["mystnb"]["code_prompt_show"] == "Solution"
    assert text.source == "`````{dropdown} Solution\nBecause.\n`````"


def test_figure_needs_alt_text(monkeypatch):
    warnings, image = [], {"image/png": "aGk="}
    monkeypatch.setattr(nbdev_reader.LOGGER, "warning", lambda *args: warnings.append(args))
    (cell,) = read(code('#| fig-alt: "A line that falls."\n#| fig-cap: It falls.\nplot()', image))
    assert cell.metadata["mystnb"] == {"image": {"alt": "A line that falls."}, "figure": {"caption": "It falls."}}
    assert not warnings
    read(code("plot()", image))
    assert "no alt text" in warnings[0][0]


def test_claim_is_one_line_that_leads_to_its_equation():
    shown = {CLAIM_MIME: CLAIM, "text/plain": "✓ tiny-sum · a < b", "text/html": "…"}
    _, cell = read(prose("$$x$$ (tiny-sum)"), code("claim()", shown))
    link = '<a href="#equation-tiny-sum">tiny-sum</a>'
    assert cell.outputs[0]["data"]["text/html"] == f'<p class="claim">✓ {link} · a &lt; b</p>'
    (cell,) = read(code("claim()", shown))
    assert "<a" not in cell.outputs[0]["data"]["text/html"]


# Links in code, docments


def test_definitions_do_not_hide_the_library():
    source, clean = code_links.without_definitions("def mse(x):\n    return mse\n\nmse(1)\n%time mse(2)")
    assert source.startswith("def mse")
    assert clean.startswith("def ___(x):\n    return mse\n\nmse(1)\n")
    compile(clean, "cell", "exec")


@pytest.mark.parametrize(
    ("text", "rst"),
    [
        ("max|a - b| of x_", r"max\|a - b\| of x\_"),
        ("`x` and *y*", r"`x` and \*y\*"),
        ("as in `$$ … $$ (label)`", "as in ``$$ … $$ (label)``"),
        ("the mean $\\frac{1}{n}$", "the mean :math:`\\frac{1}{n}`"),
    ],
)
def test_docstrings_are_plain_text(text, rst):
    assert docments_hook.as_rst(text) == rst


def test_docments_become_fields():
    def f(
        x: float,  # input, (n,)
        *more,  # others
        scale=1.0,
    ) -> float:  # the sum
        "Sum."

    assert docments_hook.field_list(f) == [
        ":param x: input, (n,)",
        ":type x: float",
        r":param \*more: others",
        ":param scale:",
        ":type scale: float",
        ":returns: *float* – the sum",
    ]


def test_comments_that_docments_overlooks():
    def f(
        x,  # input
        *more,  # others
        **options: int,  # the rest
    ):  # the sum
        return x  # not a parameter

    fields = docments_hook.field_list(f)
    assert fields[1:] == [
        r":param \*more: others",
        r":param \*\*options: the rest",
        r":type \*\*options: int",
        ":returns: the sum",
    ]


def test_nothing_to_say_about_parameters_says_nothing():
    assert docments_hook.field_list(lambda x, y: None) == []


# The generated pages


def lesson(**changes) -> generated_pages.Lesson:
    """A lesson with one labelled equation and one labelled section."""
    text = "$$\nx\n$$ (tiny-sum)\n\n(tiny-text)=\n## A section"
    tiny = generated_pages.Lesson("01_tiny", "Tiny: one", summary="", module=None, seconds=1.0, prose=text)
    return replace(tiny, **changes)


def test_ledger_counts_and_links():
    changes = [{}, {"against": "internal", "label": "tiny-text"}, {"kind": "bound", "max_abs": 0.25, "max_rel": None}]
    page = generated_pages.claims_page([lesson()], [{"lesson": "01_tiny"} | CLAIM | c for c in changes])
    assert "**2 claims**, and 1 *internal*" in page
    assert '{eq}`tiny-sum` <a href="01_tiny.html#equation-tiny-sum">tiny-sum</a> | fsum | 0 | 0 | exact |' in page
    assert "[tiny-text](#tiny-text) | internal, not counted" in page
    assert "| value 0.25 | – |" in page


def test_claim_without_equation_is_an_error():
    with pytest.raises(ExtensionError, match="01_tiny: gone"):
        generated_pages.claims_page([lesson()], [{"lesson": "01_tiny"} | CLAIM | {"label": "gone"}])


def test_chapters_are_the_numbers_of_the_lessons():
    names = ["00_core", "01_losses", "02_gradient_descent"]
    lessons, tools, reference = generated_pages.contents([lesson(name=n) for n in names]).split("\n\n```{toctree}")
    assert ":numbered: 1" in lessons
    assert "01_losses\n02_gradient_descent\n" in lessons
    assert ":numbered:" not in tools + reference
    assert "00_core" in tools


def test_benchmarks_show_their_origin_or_that_there_are_none():
    assert "No benchmark has been recorded" in generated_pages.benchmarks_page([])
    result = {
        "title": "Sums",
        "about": "Of *numbers*.",
        "columns": ["n", "ms"],
        "rows": [[1, "a|b"]],
        "notes": ["One."],
    }
    result |= {"command": "python sums.py", "date": "2026-01-02", "machine": "2 cores | x"}
    result |= {"versions": {"numpy": "2.4"}, "commit": "abcdef0123456"}
    page = generated_pages.benchmarks_page([result])
    for part in ("## Sums", "Of *numbers*.", "| 1 | a\\|b |", "- One."):
        assert part in page
    assert "`python sums.py`, 2026-01-02, 2 cores \\| x; numpy 2.4; commit abcdef0123456\n" in page


# The build


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A small course with its site."""
    root = tmp_path_factory.mktemp("course")
    shutil.copytree(ROOT / "docs", root / "docs")
    (root / "nbs").mkdir()
    (root / "_build/executed").mkdir(parents=True)
    (root / "_build/claims.json").write_text(json.dumps([{"lesson": "03_tiny"} | CLAIM]), encoding="utf-8")
    tiny = [prose("# Tiny: one\n\n> A small lesson.\n\n$$x + y$$ (tiny-sum)"), code("1 + 1", {"text/plain": "2"})]
    for name, cells in {"index": [prose("# A course\n\n<!-- lessons -->")], "03_tiny": tiny}.items():
        done = nbformat.v4.new_notebook(cells=cells)
        nbformat.write(done, root / f"_build/executed/{name}.ipynb")
        for cell in done.cells:
            cell.pop("outputs", None) if cell.cell_type == "markdown" else cell.update(outputs=[])
        nbformat.write(done, root / f"nbs/{name}.ipynb")
    assert site_module.build_site(root) == root / "_site"
    return root


def test_front_page_has_the_learning_path(small):
    page = (small / "_site/index.html").read_text(encoding="utf-8")
    assert "A small lesson." in page
    assert "1 claim" in page


def test_download_is_the_source_without_outputs(small):
    page = BeautifulSoup((small / "_site/03_tiny.html").read_text(encoding="utf-8"), "html.parser")
    (link,) = {a["href"] for a in page.select("a[href$='.ipynb'][download], a.btn-download-source-button")}
    notebook = nbformat.read(small / "_site" / link, 4)
    assert all(not c.outputs for c in notebook.cells if c.cell_type == "code")


def test_nothing_is_built_when_nothing_has_changed(small, monkeypatch):
    monkeypatch.setattr(site_module, "run_sphinx", lambda *args: pytest.fail("built again"))
    site_module.build_site(small)


@pytest.mark.parametrize("path", ["docs/a.md", "_build/executed/03_tiny.ipynb", "_build/claims.json", "CHANGELOG.md"])
def test_key_knows_every_input(small, path):
    before, file = site_module.site_key(small), small / path
    old = file.read_bytes() if file.exists() else None
    try:
        file.write_bytes((old or b"") + b" ")
        assert site_module.site_key(small) != before
    finally:
        file.write_bytes(old) if old is not None else file.unlink()
    assert site_module.site_key(small) == before


def test_warning_is_an_error_and_leaves_the_old_site(small):
    before = (small / "_site/index.html").stat().st_ino
    broken = small / "docs/conventions.md"
    text = broken.read_text(encoding="utf-8")
    try:
        broken.write_text(text + "\nSee {eq}`no-such-equation`.\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"built:\nconventions.md:.*no-such-equation"):
            site_module.build_site(small)
    finally:
        broken.write_text(text, encoding="utf-8")
    assert (small / "_site/index.html").stat().st_ino == before
    assert not list((small / "_build").glob("site-?*/html"))


def test_interrupted_swap_puts_the_old_site_back(tmp_path, monkeypatch):
    new, out, old = (tmp_path / name for name in ("new", "out", "old"))
    out.mkdir()

    def interrupted(source, target, move=shutil.move):
        if source == new:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(site_module.shutil, "move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        site_module.swap(new, out, old)
    assert out.is_dir()


def test_chapter_and_equation_have_the_number_of_the_file(small):
    page = BeautifulSoup((small / "_site/03_tiny.html").read_text(encoding="utf-8"), "html.parser")
    assert page.select_one("article h1").get_text().startswith("3. Tiny: one")
    assert page.select_one(".eqno").get_text().startswith("(3.1)")
    assert page.select_one("nav a.current").get_text(strip=True).startswith("3. Tiny: one")
    ledger = BeautifulSoup((small / "_site/claims.html").read_text(encoding="utf-8"), "html.parser")
    assert ledger.select_one("table.ledger tbody td:nth-child(2)").get_text() == "(3.1) tiny-sum"


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="installed wheel"):
        site_module.build_site(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/conf.py").touch()
    (tmp_path / "nbs").mkdir()
    with pytest.raises(FileNotFoundError, match=r"index\.ipynb"):
        site_module.build_site(tmp_path)
    (tmp_path / "nbs/index.ipynb").touch()
    with pytest.raises(FileNotFoundError, match="not run yet: index"):
        site_module.build_site(tmp_path)


def test_missing_tools_are_named(small, monkeypatch):
    monkeypatch.setattr(site_module, "TOOLS", ["sphinx", "no-such-tool"])
    with pytest.raises(FileNotFoundError, match="no-such-tool not installed"):
        site_module.build_site(small)


# The real site


def dead_links(folder: Path) -> list[str]:
    """Links to pages, files and anchors of the site that are not there."""
    pages = {p: BeautifulSoup(p.read_text(encoding="utf-8"), "html.parser") for p in folder.rglob("*.html")}
    ids = {p: {e.get("id") or e.get("name") for e in soup.select("[id], a[name]")} for p, soup in pages.items()}
    found = ((p, a["href"]) for p, soup in pages.items() for a in soup.select("a[href]"))
    return sorted({f"{p.relative_to(folder)}: {href}" for p, href in found if is_dead(p, href, ids)})


def is_dead(page: Path, href: str, ids: dict[Path, set[str]]) -> bool:
    """Whether a link of a page leads nowhere; links that leave the site are not followed."""
    target, anchor = urldefrag(urljoin(page.as_uri(), href))
    if not target.startswith("file:"):
        return False
    file = Path(unquote(target.removeprefix("file://").split("?")[0]))
    return not file.is_file() or bool(anchor and file in ids and unquote(anchor) not in ids[file])


def test_planted_dead_links_are_found(tmp_path):
    links = ["index.html", "#here", "a/other.html#there", "https://a.org/", "#gone", "none.html", "a/other.html#gone"]
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text("<p id=here>" + "".join(f"<a href={x}>x</a>" for x in links), encoding="utf-8")
    (tmp_path / "a/other.html").write_text("<p id=there><a href=../index.html?q=1#here>x</a>", encoding="utf-8")
    assert dead_links(tmp_path) == ["index.html: #gone", "index.html: a/other.html#gone", "index.html: none.html"]


@pytest.mark.site
def test_no_internal_link_is_dead(site):
    assert dead_links(site) == []


@pytest.mark.site
def test_every_public_name_is_in_the_reference(site):
    modules = [p.stem for p in (ROOT / "dlopt_course").glob("*.py") if not p.stem.startswith("_")]
    assert modules
    for name in modules:
        page = BeautifulSoup((site / f"api/{name}.html").read_text(encoding="utf-8"), "html.parser")
        entries = {dt["id"] for dt in page.select("dt[id]")}
        public = importlib.import_module(f"dlopt_course.{name}").__all__
        assert {f"dlopt_course.{name}.{x}" for x in public} <= entries


@pytest.mark.site
def test_every_claim_is_in_the_ledger(site):
    page = BeautifulSoup((site / "claims.html").read_text(encoding="utf-8"), "html.parser")
    rows = [[cell.get_text() for cell in row.select("td")] for row in page.select("table.ledger tbody tr")]
    claims = json.loads((ROOT / "_build/claims.json").read_text(encoding="utf-8"))
    assert [row[1].split()[-1] for row in rows] == [c["label"] for c in claims]
    assert [row[2].startswith("internal") for row in rows] == [c["against"] == "internal" for c in claims]


@pytest.mark.site
def test_serve_answers_on_localhost_only(site):
    with site_module.make_server(site) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_the_reference_does_not_take_the_type_of_none_for_a_parameters_type(site):
    assert "label_smoothing" in (page := (site / "api/losses.html").read_text(encoding="utf-8"))
    assert "NoneType" not in page
