"""Loads every page of the site in a browser, light, dark and on a phone, for what a reader would stumble over."""

import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from dlopt_course.app.site import make_server
from dlopt_course.losses import binary_cross_entropy_with_logits, binary_cross_entropy_with_logits_grad

pytestmark = pytest.mark.site

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
MODES = {
    "light": {"viewport": DESKTOP, "color_scheme": "light"},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light"},
}
AXE = {"resultTypes": ["violations"], "preload": False}  # it would look for imported style sheets in the wrong folder

# Text outside of code that looks like TeX, equations that MathJax has not set or could not set.
EQUATIONS = r"""async () => {
  if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
  const unset = [...document.querySelectorAll(".math")].filter((e) => !e.querySelector("mjx-container"));
  const found = unset.map((e) => e.textContent);
  found.push(...[...document.querySelectorAll("mjx-merror")].map((e) => "error in " + e.textContent));
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const inside = walk.currentNode.parentElement.closest("code, pre, script, style, template, mjx-container");
    if (!inside && /\$|\\\(|\\\[|\\begin\{/.test(walk.currentNode.data)) found.push(walk.currentNode.data.trim());
  }
  return found;
}"""
OVERFLOW = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - innerWidth"
WITHOUT_ALT = r"""[...document.querySelectorAll("main img")]
    .filter((e) => !e.alt.trim() || /\.(png|svg|jpe?g)$/.test(e.alt)).map((e) => e.outerHTML.slice(0, 200))"""
# A lesson has thousands of tokens of code in a few colours, and as many pieces of equations. axe would look at each of
# them, which takes seconds: so the colours are checked here, and axe sees code as plain text, equations as boxes.
PALE_CODE = r"""() => {
  const numbers = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = (color) => {
    const linear = (c) => (c <= 10.31 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = numbers(color).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    const color = getComputedStyle(e).backgroundColor;
    if (numbers(color)[3] !== 0) return color;
    return e.parentElement ? behind(e.parentElement) : "rgb(255, 255, 255)";
  };
  const samples = new Map();
  for (const e of document.querySelectorAll(".highlight pre *")) {
    const [front, back] = [getComputedStyle(e).color, behind(e)];
    if (e.textContent.trim()) samples.set(front + " on " + back, [front, back, e.textContent]);
  }
  return [...samples].filter(([, [front, back]]) => {
    const [dark, light] = [luminance(front), luminance(back)].sort((x, y) => x - y);
    return (light + 0.05) / (dark + 0.05) < 4.5;
  }).map(([pair, [, , text]]) => `${text}: ${pair}`);
}"""
SIMPLIFY = """document.querySelectorAll(".highlight pre").forEach((e) => { e.textContent = e.textContent; });
    document.querySelectorAll("mjx-math, mjx-assistive-mml").forEach((e) => { e.replaceChildren(); });"""
OPEN_ALL = """document.querySelectorAll("details").forEach((e) => { e.open = true; });
    document.getAnimations().forEach((a) => { a.finish(); });"""


@contextmanager
def served(folder: Path):
    """The address of a server for `folder`."""
    server = make_server(folder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def address(site):
    """The address of the site."""
    with served(site) as address:
        yield address


def pages(folder: Path) -> list[str]:
    """Every page, as a path in the site."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.html") if "_static" not in p.parts)


@contextmanager
def opened(browser: Browser, address: str, mode: str):
    """A tab in which nothing leaves localhost, and the list of faults that it notes by itself."""
    context, faults = browser.new_context(**MODES[mode]), []
    page = context.new_page()

    def watch(route, request):
        if request.url.startswith((address, "data:", "blob:")):
            return route.continue_()
        faults.append(f"request to {request.url}")
        return route.abort()

    page.route("**/*", watch)
    page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda e: faults.append(f"error: {e}"))
    page.on("response", lambda r: faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    yield page, faults
    context.close()


def look(page: Page) -> list[str]:
    """What is wrong with the page that is open."""
    faults = [f"unrendered equation: {text}" for text in page.evaluate(EQUATIONS)]
    page.evaluate(OPEN_ALL)
    if (over := page.evaluate(OVERFLOW)) > 0:
        faults.append(f"{over} pixels wider than the window")
    faults += [f"figure without alt text: {html}" for html in page.evaluate(WITHOUT_ALT)]
    faults += [f"pale code: {text}" for text in page.evaluate(PALE_CODE)]
    page.evaluate(SIMPLIFY)
    violations = Axe().run(page, options=AXE).response["violations"]
    serious = [v for v in violations if v["impact"] in ("serious", "critical")]
    return faults + [f"{v['impact']}: {v['help']}: {n['html'][:200]}" for v in serious for n in v["nodes"][:3]]


def visit(browser: Browser, folder: Path, address: str, mode: str) -> list[str]:
    """The faults of all pages in one mode."""
    with opened(browser, address, mode) as (page, faults):
        for name in pages(folder):
            before = len(faults)
            page.goto(address + name, wait_until="load")
            faults += look(page)
            faults[before:] = [f"{name}: {fault}" for fault in faults[before:]]
    return faults


@pytest.mark.parametrize("mode", MODES)
def test_every_page_is_sound(browser, site, address, mode):
    faults = visit(browser, site, address, mode)
    assert not faults, "\n".join(faults)


def test_search_finds_offline(browser, address):
    with opened(browser, address, "light") as (page, faults):
        page.goto(f"{address}search.html?q=claim")
        page.wait_for_selector("ul.search li a")
    assert not faults


def test_ledger_is_sorted_and_searched(browser, address):
    with opened(browser, address, "light") as (page, faults):
        page.goto(f"{address}claims.html")
        column = "all => all.map((td) => parseFloat(td.textContent)).filter((x) => !isNaN(x))"
        for direction in (1, -1):
            page.get_by_role("button", name="Largest absolute").click()
            values = page.eval_on_selector_all("table.ledger tr:not([hidden]) td:nth-child(4)", column)
            assert values == sorted(values, reverse=direction < 0)
        page.get_by_label("Search the ledger").fill("core-exp autograd")
        assert page.locator("table.ledger tbody tr:visible").count() == 1
        assert page.locator("#ledger-count").inner_text().startswith("1 of ")
    assert not faults


PAGE = """<!doctype html><html lang="en"><head><title>A page</title><meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,"></head><body><main><h1>A page</h1>{}</main></body></html>"""
PLANTED = {
    "nothing": ("<p>Fine, and <code>$x$</code> is code.</p>", ""),
    "a request that leaves": ('<img src="http://example.org/x.png" alt="A picture.">', "request to http://example.org"),
    "a missing file": ('<img src="x.png" alt="A picture.">', "404"),
    "a console error": ("<script>console.error('planted')</script>", "console: planted"),
    "an exception": ("<script>throw new Error('planted')</script>", "error: planted"),
    "an overflow": ("<p style='width: 3000px'>wide</p>", "pixels wider"),
    "an equation that is not set": ('<span class="math">x</span>', "unrendered equation: x"),
    "an equation that is wrong": ("<mjx-merror>Undefined control sequence</mjx-merror>", "error in Undefined"),
    "TeX in the text": ("<p>as $$x^2$$ shows</p>", "unrendered equation: as $$x^2$$ shows"),
    "a figure without alt text": ('<img src="data:," alt="_images/x.png">', "figure without alt text"),
    "low contrast": ("<p style='color: #ccc'>pale</p>", "serious: Elements must meet minimum color contrast"),
    "pale code": ("<div class='highlight'><pre><b style='color: #999'>x</b></pre></div>", "pale code: x: rgb(153"),
    "a field without a label": ("<input>", "critical: Form elements must have labels"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_fault_is_found(browser, tmp_path, fault):
    html, found = PLANTED[fault]
    (tmp_path / "index.html").write_text(PAGE.format(html), encoding="utf-8")
    with served(tmp_path) as address:
        faults = visit(browser, tmp_path, address, "light")
    assert bool(faults) == bool(found)
    assert found in "\n".join(faults)


def test_planted_unknown_command_is_found(browser, site, address):
    html = (site / "claims.html").read_text(encoding="utf-8").replace(r"\max", r"\nosuch", 1)
    with opened(browser, address, "light") as (page, _):
        page.route("**/claims.html", lambda route: route.fulfill(body=html, content_type="text/html"))
        page.goto(f"{address}claims.html")
        assert any("error in" in fault for fault in look(page))


def test_missing_mathjax_is_found(browser, address):
    with opened(browser, address, "light") as (page, faults):
        page.route("**/tex-chtml.js*", lambda route: route.abort())
        page.goto(f"{address}claims.html")
        assert any(r"unrendered equation: \(\max" in fault for fault in look(page))
    assert any("console" in fault for fault in faults)


def test_the_figure_on_the_page_shows_the_numbers_of_the_functions(browser, site, address):
    read = """host => Object.fromEntries([...host.shadowRoot.querySelectorAll("tr[id]")]
        .map(row => [row.id, [+row.dataset.value, +row.dataset.slope]]))"""
    with opened(browser, address, "light") as (page, faults):
        page.goto(address + "01_losses.html")
        shown = page.locator("loss-explorer").evaluate(read)
    logit, one = np.zeros(1), np.ones(1)
    exact = [binary_cross_entropy_with_logits(logit, one), binary_cross_entropy_with_logits_grad(logit, one)[0]]
    assert shown["bce"] == pytest.approx(exact, rel=1e-9)
    assert not faults
