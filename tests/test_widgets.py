"""The interactive figures in a browser: their numbers against the library, looks, access by keyboard and by touch."""

import itertools
from html.parser import HTMLParser

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from dlopt_course import losses
from dlopt_course.app.widgets import HERE, widget

THEMES = {  # background and text: Sphinx, JupyterLab and VS Code, light and dark
    "site light": ("#ffffff", "#222832"),
    "site dark": ("#14181e", "#ced6dd"),
    "lab light": ("#ffffff", "rgba(0, 0, 0, 0.87)"),
    "lab dark": ("#111111", "#ffffff"),
    "code light": ("#ffffff", "#3b3b3b"),
    "code dark": ("#1f1f1f", "#cccccc"),
}
READ = """host => Object.fromEntries([...host.shadowRoot.querySelectorAll("tr[id]")]
    .filter(row => row.checkVisibility())
    .map(row => [row.id, [...Object.values(row.dataset), ...[...row.cells].slice(1).map(cell => cell.textContent)]]))"""
RGB = """colour => {
    const pen = document.createElement("canvas").getContext("2d");
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
}"""


# ---------------------------------------------------------------- the output itself


class Elements(HTMLParser):
    """The elements of a piece of HTML with their attributes."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_attributes_are_escaped():
    nasty = "\"><script>alert('&')</script>"
    html = widget("loss-explorer", prediction=nasty, delta=2).data
    assert Elements(html).found == [("loss-explorer", {"prediction": nasty, "delta": "2"}), ("script", {})]


def test_unknown_widget_and_attribute():
    with pytest.raises(ValueError, match=r"name must be one of .*loss-explorer.*, got 'base'"):
        widget("base")
    with pytest.raises(ValueError, match="got '../secret-file'"):
        widget("../secret-file")
    with pytest.raises(ValueError, match="loss-explorer takes task, prediction, .*gamma, got 'predicton'"):
        widget("loss-explorer", predicton=1)


@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("*-*.js")))
def test_output_is_self_contained(name):
    html = widget(name).data
    assert "http" not in html.replace("http://www.w3.org/", "")  # the namespaces of HTML and SVG are no addresses
    assert html.count("</script>") == html.count("<script>") == 1
    assert not any(word in html for word in ("import ", "fetch(", "innerHTML", "eval("))


# ---------------------------------------------------------------- in a browser


@pytest.fixture
def show(browser):
    """A function that opens widgets on a page of some theme and width. Errors and requests fail the test in the end."""
    context, faults = browser.new_context(), []

    def open_page(*widgets, theme="site light", width=800):
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: faults.append(request.url))
        background, colour = THEMES[theme]
        page.set_content(
            f"""<!doctype html><html lang="en"><title>Widgets</title><meta name="viewport" content="width=device-width">
            <style>body {{ margin: 1rem; background: {background}; color: {colour}; }}</style>
            <main><h1>Widgets</h1>{"".join(w.data for w in widgets)}</main>"""
        )
        return page

    yield open_page
    context.close()
    assert faults == []


def number(text):
    return float(text.replace("−", "-"))


def check_numbers(host, expected):
    """The rows hold exactly these losses: unrounded to 1e-9, as shown to four digits."""
    rows = host.evaluate(READ)
    assert rows.keys() == expected.keys()
    for name, pair in expected.items():
        for exact, shown, reference in zip(rows[name][:2], rows[name][2:], pair, strict=True):
            assert float(exact) == pytest.approx(reference.item(), rel=1e-9, abs=1e-300), name
            assert number(shown) == pytest.approx(reference.item(), rel=5.1e-4, abs=1e-300), name


def regression(prediction, delta):
    """What the library says about a prediction of the target 0: each loss with its slope."""
    pair, options = (np.array([prediction]), np.zeros(1)), {"reduction": "none"}
    return {
        "mse": (losses.mse(*pair, **options), losses.mse_grad(*pair, **options)),
        "mae": (losses.mae(*pair, **options), losses.mae_grad(*pair, **options)),
        "huber": (losses.huber(*pair, delta=delta, **options), losses.huber_grad(*pair, delta=delta, **options)),
    }


def classification(logit, label, gamma):
    """What the library says about a logit: each loss with its slope."""
    z, y, options = np.array([logit]), np.array([float(label)]), {"reduction": "none"}
    focal = {"alpha": None, "gamma": gamma} | options
    p = losses.softmax(np.array([[0.0, logit]]))[:, 1]
    return {
        "squared": (losses.mse(p, y, **options), losses.mse_grad(p, y, **options) * p * (1 - p)),
        "bce": (
            losses.binary_cross_entropy_with_logits(z, y, **options),
            losses.binary_cross_entropy_with_logits_grad(z, y, **options),
        ),
        "hinge": (losses.hinge(z, 2 * y - 1, **options), losses.hinge_grad(z, 2 * y - 1, **options)),
        "focal": (losses.focal_loss(z, y, **focal), losses.focal_loss_grad(z, y, **focal)),
    }


def test_regression_equals_the_library(show):
    host = show(widget("loss-explorer")).locator("loss-explorer")
    for prediction, delta in itertools.product([-4, -2.35, -1, -0.05, 0, 0.5, 1, 1.95, 4], [0.1, 1, 1.9, 4]):
        host.get_by_role("slider", name="Prediction").fill(str(prediction))
        host.get_by_role("slider", name="Huber’s δ").fill(str(delta))
        check_numbers(host, regression(float(prediction), delta))


def test_classification_equals_the_library(show):
    host = show(widget("loss-explorer", task="classification")).locator("loss-explorer")
    for label in (1, 0):
        host.get_by_role("radio", name=str(label)).check()
        for logit, gamma in itertools.product([-8, -3.3, -1, -0.1, 0, 0.4, 1, 2.7, 8], [0, 0.5, 2, 5]):
            host.get_by_role("slider", name="Logit z").fill(str(logit))
            host.get_by_role("slider", name="Focal loss’s γ").fill(str(gamma))
            check_numbers(host, classification(float(logit), label, gamma))


def test_attributes_set_the_controls(show):
    page = show(
        widget("loss-explorer", prediction=-3.05, delta=0.3),
        widget("loss-explorer", task="classification", logit=-3.5, label=0, gamma=4.9),
        widget("loss-explorer", task="nonsense", prediction="nonsense", delta=1e9),
    )
    hosts = page.locator("loss-explorer")
    check_numbers(hosts.nth(0), regression(-3.05, 0.3))
    check_numbers(hosts.nth(1), classification(-3.5, 0, 4.9))
    check_numbers(hosts.nth(2), regression(0.0, 4))  # as a slider takes what it cannot use


def test_two_on_one_page_are_independent(show):
    hosts = show(widget("loss-explorer", prediction=1), widget("loss-explorer", prediction=2)).locator("loss-explorer")
    hosts.nth(0).get_by_role("slider", name="Prediction").fill("3")
    hosts.nth(1).get_by_role("radio", name="classification").check()
    check_numbers(hosts.nth(0), regression(3.0, 1))
    check_numbers(hosts.nth(1), classification(-2.0, 1, 2))
    hosts.nth(1).get_by_role("radio", name="regression").check()
    check_numbers(hosts.nth(1), regression(2.0, 1))


def test_shown_by_jupyter(show):
    """Jupyter inserts the HTML first and then runs a copy of the script; cells are moved, and run again."""
    page = show()
    insert = """html => {
        const output = document.querySelector("main").appendChild(document.createElement("div"));
        output.innerHTML = html;
        for (const old of output.querySelectorAll("script")) {
            old.replaceWith(Object.assign(document.createElement("script"), { text: old.textContent }));
        }
        document.querySelector("main").prepend(output);
    }"""
    for _ in range(2):
        page.evaluate(insert, widget("loss-explorer", prediction=-2).data)
    for host in page.locator("loss-explorer").all():
        check_numbers(host, regression(-2.0, 1))
        assert host.get_by_role("table").count() == 1


def test_keyboard(show):
    page = show(widget("loss-explorer", prediction=0.5))
    page.evaluate("document.addEventListener('keydown', event => console.error('the page saw ' + event.key))")
    host = page.locator("loss-explorer")
    host.get_by_role("slider", name="Prediction").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    check_numbers(host, regression(0.6, 1))
    page.keyboard.press("Home")
    check_numbers(host, regression(-4.0, 1))
    host.get_by_role("radio", name="regression").focus()
    page.keyboard.press("ArrowRight")
    check_numbers(host, classification(-2.0, 1, 2))


def test_dragging_in_a_plot_moves_the_slider(show):
    page = show(widget("loss-explorer"))
    host = page.locator("loss-explorer")
    frame = host.locator(".frame").nth(1).bounding_box()  # that of the slopes
    middle, height = frame["x"] + frame["width"] / 2, frame["y"] + 50
    page.mouse.move(middle - 30, height)
    check_numbers(host, regression(1.5, 1))
    page.mouse.down()
    page.mouse.move(middle, height)
    check_numbers(host, regression(0.0, 1))
    page.mouse.move(frame["x"] + frame["width"] + 300, height)  # beyond the picture
    check_numbers(host, regression(4.0, 1))
    page.mouse.up()
    page.mouse.move(middle, height)
    check_numbers(host, regression(4.0, 1))
    dots = host.locator(".plot").nth(1).locator("circle:visible")
    assert dots.first.bounding_box()["x"] + 4.5 == pytest.approx(frame["x"] + frame["width"], abs=1)


def test_changes_are_announced(show):
    host = show(widget("loss-explorer")).locator("loss-explorer")
    assert host.locator("tbody:visible").get_attribute("aria-live") == "polite"
    host.locator("tbody:visible").evaluate("body => { body.before = [...body.rows] }")
    host.get_by_role("slider", name="Prediction").fill("2")
    kept = "body => body.before.every((row, i) => row === body.rows[i])"  # a new row would be read out as an addition
    assert host.locator("tbody:visible").evaluate(kept)


BOTH = [widget("loss-explorer"), widget("loss-explorer", task="classification")]


@pytest.mark.parametrize("theme", THEMES)
def test_accessible(show, theme):
    found = Axe().run(show(*BOTH, theme=theme)).response["violations"]
    assert [(f["id"], f["nodes"][0]["html"]) for f in found if f["impact"] in ("serious", "critical")] == []


def luminance(rgb):
    """Relative luminance as WCAG 2 defines it."""
    s = np.array(rgb[:3]) / 255
    return np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("theme", THEMES)
def test_accents_stand_out(show, theme):
    """Axe does not look at text in pictures."""
    page = show(BOTH[1], theme=theme)
    accents = page.locator("g.accent:visible").evaluate_all("all => all.map(g => getComputedStyle(g).color)")
    assert len(set(accents)) == 4
    background = luminance(page.evaluate(RGB, THEMES[theme][0]))
    for accent in accents:
        dark, light = sorted([background, luminance(page.evaluate(RGB, accent))])
        assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize("width", [320, 390, 800, 1600])
def test_nothing_overflows(show, width):
    page = show(*BOTH, widget("loss-explorer", task="classification", logit=8, gamma=5), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    fits = "cells => cells.every(cell => cell.scrollWidth <= cell.clientWidth)"
    assert page.locator("table :is(td, th):visible").evaluate_all(fits)
    for picture in page.locator(".plot:visible").all():
        box = picture.bounding_box()
        for text in picture.locator("text").all():
            inner = text.bounding_box()
            assert box["x"] <= inner["x"], text.text_content()
            assert inner["x"] + inner["width"] <= box["x"] + box["width"], text.text_content()


@pytest.mark.parametrize("options", [{"delta": 0.1}, {"delta": 4}, {"task": "classification", "label": 0, "gamma": 0}])
def test_names_do_not_overlap(show, options):
    page = show(widget("loss-explorer", **options))
    for picture in page.locator(".plot:visible").all():
        boxes = sorted((t.bounding_box() for t in picture.locator("g text").all()), key=lambda box: box["y"])
        assert len(boxes) >= 3
        assert all(b["y"] - a["y"] > 11 for a, b in itertools.pairwise(boxes))
