"""The interactive figures in a browser: their numbers against the library, looks, access by keyboard and by touch."""

import itertools
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from scipy.ndimage import affine_transform
from sklearn.linear_model import ElasticNet, Ridge

from benchmarks.peers import keras_image
from dlopt_course import losses
from dlopt_course.app.widgets import HERE, widget
from dlopt_course.augment import affine_matrix
from dlopt_course.gpu import DEVICES, cost_of, predict_seconds, roofline
from dlopt_course.parallel import partition, rounds

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


# ---------------------------------------------------------------- losses


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


# ---------------------------------------------------------------- descent

FORMS = ["heavy ball", "Nesterov"]
EXPLORE = """(host, settings) => settings.map(setting => {
    const find = query => host.shadowRoot.querySelector(query);
    for (const name of ["eta", "beta", "kappa"]) find(`[name=${name}]`).value = setting[name];
    find(`[value="${setting.form}"]`).checked = true;
    find("[name=eta]").dispatchEvent(new Event("input", { bubbles: true }));
    const pictures = [...host.shadowRoot.querySelectorAll(".plot")].map(plot => plot.innerHTML).join();
    return [(READ)(host), pictures];
})""".replace("READ", READ)


def explore(host, settings):
    """The rows of the table and the pictures' SVG at each of the settings (eta, beta, kappa, form)."""
    return host.evaluate(EXPLORE, [dict(zip(["eta", "beta", "kappa", "form"], s, strict=True)) for s in settings])


def steps(eta, beta, kappa, form):
    """What a step does to (theta, b), along x and along y: two matrices."""
    curvature = np.array([1 / kappa, 1.0])
    g, b = np.array([[1.0, 0.0]]) * curvature[:, None], np.array([[0.0, 1.0]])
    new = beta * b + g
    direction = g + beta * new if form == "Nesterov" else new
    return np.stack([np.array([1.0, 0.0]) - eta * direction, new], axis=1)


def simulated(matrices, count=4000):
    """The rates of paths, each with two matrices: the slope of log distance over the later half."""
    state, scale, heights = np.zeros((len(matrices), 2, 2)), np.zeros(len(matrices)), []
    state[:, :, 0] = [-3.0, 1.0]
    for _ in range(count):
        state = np.einsum("ndij,ndj->ndi", matrices, state)
        size = np.linalg.norm(state, axis=(1, 2))
        state, scale = state / size[:, None, None], scale + np.log(size)
        heights.append(scale + np.log(np.linalg.norm(state[:, :, 0], axis=1)))
    return np.exp(np.polyfit(np.arange(count // 2), np.array(heights)[count // 2 :], 1)[0])


def word(roots):
    """What roots do, by the largest of them."""
    rate = np.abs(roots).max()
    if rate == pytest.approx(1, abs=1e-9):
        return "never arrives"
    largest = roots[np.abs(roots) > rate - 1e-9]
    rings = np.any((np.abs(largest.imag) > 1e-9) | (largest.real < 0))
    return "diverges" if rate > 1 else "rings" if rings else "converges"


GRID = list(itertools.product([0.01, 0.5, 1.3, 1.85, 2.15, 2.75, 4], [0, 0.1, 0.45, 0.9, 0.99], [1, 3, 25, 100], FORMS))


@pytest.fixture(scope="module")
def grid():
    """The matrices of the grid and their roots, each by setting and direction."""
    matrices = np.array([steps(*setting) for setting in GRID])
    return matrices, np.linalg.eigvals(matrices)


def test_rates_equal_numpy(show, grid):
    matrices, roots = grid
    rates = np.abs(roots).max(axis=2)
    gap = np.abs(roots[..., 0] - roots[..., 1]).min(axis=1)  # between the roots of a direction
    found = explore(show(widget("descent-explorer")).locator("descent-explorer"), GRID)
    for (rows, _), rate, path, apart, setting in zip(found, rates, simulated(matrices), gap, GRID, strict=True):
        exact = {name: float(cells[0]) for name, cells in rows.items()}
        assert [exact["x"], exact["y"]] == pytest.approx(rate, abs=1e-7), setting
        assert exact["predicted"] == max(exact["x"], exact["y"])
        assert exact["measured"] == pytest.approx(path, rel=1e-5), setting
        assert exact["measured"] == pytest.approx(max(rate), rel=5e-4 if apart > 0.05 else 0.01), setting
        assert all(float(cells[1]) == pytest.approx(exact[name], abs=5.1e-5) for name, cells in rows.items())


def test_outcomes(show, grid):
    host = show(widget("descent-explorer")).locator("descent-explorer")
    for (rows, _), roots, setting in zip(explore(host, GRID), grid[1], GRID, strict=True):
        expected = [word(roots[0]), word(roots[1]), word(roots.ravel())]
        assert [rows[name][2] for name in ("x", "y", "predicted")] == expected, setting
    special = {
        (0, 0, 25, "heavy ball"): "never arrives",
        (2, 0, 25, "heavy ball"): "never arrives",
        (3, 0.5, 25, "heavy ball"): "never arrives",
        (1, 0, 1, "heavy ball"): "converges",  # both roots are 0
        (0.5, 0.9, 25, "Nesterov"): "rings",
        (0.25, 0.25, 1, "heavy ball"): "converges",  # a double root
        (2.25, 0.25, 1, "heavy ball"): "rings",  # a negative double root
    }
    assert [rows["predicted"][2] for rows, _ in explore(host, special)] == list(special.values())


def test_path_of_no_length_left(show):
    """From the start into the minimum in one step: there is no distance to take a logarithm of."""
    [(rows, _)] = explore(show(widget("descent-explorer")).locator("descent-explorer"), [(1, 0, 1, "heavy ball")])
    assert [float(rows[name][0]) for name in ("predicted", "measured")] == [0, 0]


def pytorch_path(eta, beta, kappa, form, count):
    """The first steps of torch.optim.SGD from the figure's start."""
    theta, curvature = torch.tensor([[-3.0, 1.0], [1 / kappa, 1.0]], dtype=torch.float64)
    optimizer, path = torch.optim.SGD([theta], lr=eta, momentum=beta, nesterov=form == "Nesterov"), [theta.tolist()]
    for _ in range(count):
        theta.grad = curvature * theta
        optimizer.step()
        path.append(theta.tolist())
    return np.array(path)


@pytest.mark.parametrize("setting", [(1.9, 0.3, 25, "heavy ball"), (1.2, 0.9, 10, "Nesterov"), (2.5, 0.7, 2, FORMS[0])])
def test_path_equals_pytorch(show, setting):
    """The dots in the picture, in its own units."""
    host = show(widget("descent-explorer", **dict(zip(["eta", "beta", "kappa", "form"], setting, strict=True))))
    centres = "all => all.map(dot => [dot.cx.baseVal.value, dot.cy.baseVal.value])"
    dots = host.locator("circle").evaluate_all(centres)
    path = pytorch_path(*setting, 80)
    unit = 152 / 4  # pixels per 1, the same along x and y
    np.testing.assert_allclose(np.array(dots), [171, 102] + path * [1, -1] * [274 / 7.21, unit], atol=1e-4)
    assert unit == pytest.approx(274 / 7.21, rel=1e-3)


def test_nothing_is_drawn_outside_the_frame(show):
    """A path that diverges, and numbers from the largest to none at all."""
    page = show(widget("descent-explorer", eta=0))
    host = page.locator("descent-explorer")

    def around():
        """What is seen above, to the right of and below the frames."""
        shots = []
        for box in (frame.bounding_box() for frame in host.locator(".frame").all()):
            right, below = box["x"] + box["width"] + 2, box["y"] + box["height"] + 2
            beside = {"x": right, "y": box["y"] - 20, "width": 10, "height": box["height"] + 40}
            under, over = ({"x": box["x"], "y": y, "width": box["width"], "height": 4} for y in (below, box["y"] - 6))
            shots += [page.screenshot(clip=clip) for clip in (beside, under, over)]
        return shots

    before = around()
    extremes = list(itertools.product([0, 0.01, 1, 2.1, 4], [0, 0.5, 0.99], [1, 100], FORMS))
    for (_, pictures), setting in zip(explore(host, extremes), extremes, strict=True):
        assert not any(bad in pictures for bad in ("NaN", "Infinity", "undefined", "e+")), setting
    for setting in [(2.1, 0, 25, "heavy ball"), (4, 0.99, 100, "Nesterov")]:
        explore(host, [setting])
        assert around() == before


def test_best_settings(show):
    """The buttons go to the settings of the text, as near as the sliders' steps allow."""
    host = show(widget("descent-explorer", eta=0.3, beta=0.6, form="Nesterov")).locator("descent-explorer")
    for kappa in (1, 2, 10, 25, 60, 100):
        host.get_by_role("slider", name="Condition number κ").fill(str(kappa))
        root = np.sqrt(kappa)
        without, with_momentum = (kappa - 1) / (kappa + 1), (root - 1) / (root + 1)
        for button, name, eta, beta, rate in [
            ("Best without momentum", "plain", 2 / (1 + 1 / kappa), 0, without),
            ("Best with momentum", "momentum", (2 / (1 + 1 / root)) ** 2, with_momentum**2, with_momentum),
        ]:
            text = host.locator(f"#{name}").text_content()
            assert f"= {eta:.3f}" in text.replace("\N{NO-BREAK SPACE}", " ")
            assert text.endswith(f"{rate:.4f}")
            host.get_by_role("button", name=button).click()
            assert float(host.get_by_role("slider", name="η").input_value()) == pytest.approx(eta, abs=0.0051)
            assert float(host.get_by_role("slider", name="β").input_value()) == pytest.approx(beta, abs=0.015)
            assert host.get_by_role("radio", name="heavy ball").is_checked()
            assert rate - 1e-9 <= float(host.evaluate(READ)["predicted"][0]) <= rate + 0.01


@pytest.mark.parametrize(("form", "beta"), list(itertools.product(FORMS, [0, 0.5, 0.9])))
def test_edge_of_stability(show, form, beta):
    """The path converges a step of the slider below the edge and diverges one above it."""
    host = show(widget("descent-explorer", beta=beta, form=form)).locator("descent-explorer")
    edge = float(host.locator("#edge").text_content().split("= ")[2].split(":")[0])
    near = explore(host, [(edge - 0.01, beta, 25, form), (edge + 0.01, beta, 25, form)])
    assert [float(rows["y"][0]) < 1 for rows, _ in near] == [True, False]
    at = host.get_by_role("slider", name="η").evaluate("input => +input.style.getPropertyValue('--edge')")
    assert at == pytest.approx(edge / 4, abs=0.0013)


def test_descent_attributes(show):
    page = show(
        widget("descent-explorer", eta=0.5, beta=0.25, kappa=7, form="Nesterov"),
        widget("descent-explorer", eta="nonsense", kappa=1e9, form="nonsense"),
    )
    hosts = page.locator("descent-explorer")
    for host, setting in zip(hosts.all(), [(0.5, 0.25, 7, "Nesterov"), (2, 0, 100, "heavy ball")], strict=True):
        rates = np.abs(np.linalg.eigvals(steps(*setting))).max(axis=1)
        assert [float(host.evaluate(READ)[name][0]) for name in "xy"] == pytest.approx(rates, abs=1e-7)


def test_two_paths_on_one_page_are_independent(show):
    hosts = show(widget("descent-explorer", eta=1), widget("descent-explorer", eta=1.5)).locator("descent-explorer")
    before = hosts.nth(1).evaluate(READ)
    hosts.nth(0).get_by_role("slider", name="η").fill("0.5")
    hosts.nth(0).get_by_role("radio", name="Nesterov").check()
    assert hosts.nth(1).evaluate(READ) == before
    assert hosts.nth(1).get_by_role("radio", name="heavy ball").is_checked()
    hosts.nth(1).get_by_role("button", name="Best with momentum").click()
    assert float(hosts.nth(0).evaluate(READ)["y"][0]) == pytest.approx(0.5)


def test_descent_by_keyboard(show):
    page = show(widget("descent-explorer", eta=1.4, beta=0))
    page.evaluate("document.addEventListener('keydown', event => console.error('the page saw ' + event.key))")
    host = page.locator("descent-explorer")
    host.get_by_role("slider", name="η").focus()
    page.keyboard.press("ArrowRight")
    assert float(host.evaluate(READ)["y"][0]) == pytest.approx(0.41)
    page.keyboard.press("End")
    assert float(host.evaluate(READ)["y"][0]) == pytest.approx(3)
    for _ in range(3):
        page.keyboard.press("Tab")  # momentum, condition number, form
    page.keyboard.press("ArrowRight")
    assert host.get_by_role("radio", name="Nesterov").is_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # best without momentum
    assert float(host.evaluate(READ)["predicted"][0]) == pytest.approx(24 / 26, abs=1e-3)


# ---------------------------------------------------------------- penalty

LEAST_SQUARES = np.array([2, 0.8])
EXPLORE_PENALTY = """(host, settings) => settings.map(setting => {
    const find = query => host.shadowRoot.querySelector(query);
    for (const name of ["log_alpha", "l1_ratio", "correlation"]) find(`[name=${name}]`).value = setting[name];
    find("[name=l1_ratio]").dispatchEvent(new Event("input", { bubbles: true }));
    const pictures = [...host.shadowRoot.querySelectorAll(".plot")].map(plot => plot.innerHTML).join();
    return [(READ)(host), find("#outcome").textContent, pictures];
})""".replace("READ", READ)
PENALTY_GRID = list(itertools.product([-2, -0.7, -0.13, 0, 0.3, 0.7, 2], [0, 0.01, 0.5, 0.93, 1], [0, 0.5, 0.9]))


def explore_penalty(host, settings):
    """The rows of the table, the outcome and the pictures' SVG at each of (log_alpha, l1_ratio, correlation)."""
    names = ["log_alpha", "l1_ratio", "correlation"]
    return host.evaluate(EXPLORE_PENALTY, [dict(zip(names, s, strict=True)) for s in settings])


def coefficients(alpha, l1_ratio, correlation):
    """scikit-learn's, on two samples with X'X / n = [[1, r], [r, 1]] and the least squares solution of the figure."""
    x = np.sqrt(2) * np.linalg.cholesky([[1, correlation], [correlation, 1]]).T
    if l1_ratio == 0:  # ElasticNet warns that it is not made for this
        return Ridge(2 * alpha, fit_intercept=False).fit(x, x @ LEAST_SQUARES).coef_
    options = {"l1_ratio": l1_ratio, "fit_intercept": False, "tol": 1e-15, "max_iter": 100_000}
    return ElasticNet(alpha, **options).fit(x, x @ LEAST_SQUARES).coef_


def test_penalised_solution_equals_scikit_learn(show):
    host = show(widget("penalty-explorer")).locator("penalty-explorer")
    for (rows, words, _), setting in zip(explore_penalty(host, PENALTY_GRID), PENALTY_GRID, strict=True):
        expected = coefficients(10 ** setting[0], *setting[1:])
        for row, reference in zip((rows["w1"], rows["w2"]), expected, strict=True):
            assert float(row[0]) == pytest.approx(reference, rel=1e-9, abs=1e-12), setting
            assert number(row[2]) == pytest.approx(reference, rel=5.1e-4, abs=1e-12), setting
            assert (row[2] == "0") == (float(row[0]) == 0)
        left = sum(abs(expected) > 1e-12)
        start = {0: "Both coefficients have vanished", 1: "w₂ has vanished", 2: "Both coefficients are left"}[left]
        assert words.startswith(start if setting[1] else "Nothing vanishes"), setting


@pytest.mark.parametrize("correlation", [0, 0.35, 0.9])
@pytest.mark.parametrize("l1_ratio", [0.01, 0.1, 0.4, 0.8, 0.99, 1])
def test_coefficients_vanish_where_the_figure_says(show, correlation, l1_ratio):
    """Just before, scikit-learn's coefficient is not 0, just after it is."""
    host = show(widget("penalty-explorer", l1_ratio=l1_ratio, correlation=correlation)).locator("penalty-explorer")
    rows = host.evaluate(READ)
    for i, name in enumerate(("w1", "w2")):
        end = float(rows[name][1])
        assert number(rows[name][3]) == pytest.approx(end, rel=5.1e-4)
        before, after = (coefficients(end * (1 + side * 1e-5), l1_ratio, correlation)[i] for side in (-1, 1))
        assert before > 1e-9
        assert abs(after) < 1e-12


def test_without_l1_nothing_vanishes(show):
    host = show(widget("penalty-explorer", l1_ratio=0, log_alpha=2)).locator("penalty-explorer")
    assert [row[3] for row in host.evaluate(READ).values()] == ["never", "never"]
    assert host.locator("circle.mark").count() == 0


def points(path):
    """The points of an SVG path of straight lines."""
    pairs = path.get_attribute("d").strip("MZ").replace("M", "L").split("L")
    return np.array([[float(v) for v in pair.split()] for pair in pairs])


@pytest.mark.parametrize("setting", [(-0.5, 1, 0.5), (0.2, 1, 0.5), (0, 0.5, 0.9), (0.3, 0, 0), (0, 0.25, 0.3)])
def test_the_ball_and_the_contour_touch_at_the_solution(show, setting):
    """In the picture: on the ball the penalty is that of the solution, on the contour the loss is, and no point of the
    ball has a smaller loss."""
    names = ["log_alpha", "l1_ratio", "correlation"]
    host = show(widget("penalty-explorer", **dict(zip(names, setting, strict=True)))).locator("penalty-explorer")
    alpha, ratio, correlation = 10 ** setting[0], *setting[1:]
    unit = 274 / 5.41
    number_of = lambda path: (points(path) - [34 + 2.205 * unit, 178 - 1.2 * 152 / 3]) / [unit, -152 / 3]  # noqa: E731
    gram = np.array([[1, correlation], [correlation, 1]])
    loss = lambda w: np.einsum("...i,ij,...j->...", w - LEAST_SQUARES, gram, w - LEAST_SQUARES) / 2  # noqa: E731
    penalty = lambda w: ratio * abs(w).sum(-1) + (1 - ratio) / 2 * (w**2).sum(-1)  # noqa: E731
    w = coefficients(alpha, ratio, correlation)
    plane = host.locator(".plot").first
    ball, contour = number_of(plane.locator(".c2 path")), number_of(plane.locator("path.mark").first)
    assert len(ball) == len(contour) == 241
    np.testing.assert_allclose(penalty(ball), penalty(w), rtol=1e-6)
    np.testing.assert_allclose(loss(contour), loss(w), rtol=1e-6, atol=1e-9)
    assert loss(ball).min() >= loss(w) - 1e-6
    path = number_of(plane.locator(".c3 path"))
    np.testing.assert_allclose(path[0], LEAST_SQUARES, atol=1e-6)
    np.testing.assert_allclose(path[101], coefficients(1.0, ratio, correlation), atol=1e-6)
    dot = plane.locator("circle").evaluate("dot => [dot.cx.baseVal.value, dot.cy.baseVal.value]")
    np.testing.assert_allclose((np.array(dot) - [34 + 2.205 * unit, 117.2]) / [unit, -152 / 3], w, atol=1e-5)


def test_numbers_are_drawn_at_every_setting(show):
    host = show(widget("penalty-explorer")).locator("penalty-explorer")
    for (_, _, pictures), setting in zip(explore_penalty(host, PENALTY_GRID), PENALTY_GRID, strict=True):
        assert not any(bad in pictures for bad in ("NaN", "Infinity", "undefined")), setting


def test_penalty_attributes_and_independence(show):
    page = show(
        widget("penalty-explorer", log_alpha=0.11, l1_ratio=0.35, correlation=0.85),
        widget("penalty-explorer", log_alpha=1e9, l1_ratio="nonsense", correlation=-3),
    )
    first, second = page.locator("penalty-explorer").all()
    for host, setting in ((first, (0.11, 0.35, 0.85)), (second, (2, 0.5, 0))):  # as a slider takes what it cannot use
        expected = coefficients(10 ** setting[0], *setting[1:])
        assert [float(row[0]) for row in host.evaluate(READ).values()] == pytest.approx(expected, abs=1e-9)
    before = second.evaluate(READ)
    first.get_by_role("slider", name="L1 ratio").fill("0.9")
    assert second.evaluate(READ) == before


def test_penalty_by_keyboard(show):
    page = show(widget("penalty-explorer", log_alpha=0.07, correlation=0.5))
    page.evaluate("document.addEventListener('keydown', event => console.error('the page saw ' + event.key))")
    host = page.locator("penalty-explorer")
    slider, outcome = host.get_by_role("slider", name="Strength"), host.locator("#outcome")
    assert outcome.text_content().startswith("Both coefficients are left")
    slider.focus()
    page.keyboard.press("ArrowRight")  # from alpha 1.17 over 1.2, where w2 vanishes
    assert outcome.text_content().startswith("w₂ has vanished")
    assert slider.get_attribute("aria-valuetext") == "0.08, α = 1.20"
    assert host.locator("#alpha").text_content() == "α = 1.20. "
    page.keyboard.press("End")
    assert outcome.text_content().startswith("Both coefficients have vanished")
    page.keyboard.press("Tab")
    page.keyboard.press("Home")
    assert outcome.text_content().startswith("Nothing vanishes")


def test_dragging_among_the_coefficients_moves_alpha(show):
    page = show(widget("penalty-explorer"))
    host = page.locator("penalty-explorer")
    frame = host.locator(".frame").nth(1).bounding_box()
    page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + 30)
    page.mouse.down()
    assert float(host.get_by_role("slider", name="Strength").input_value()) == pytest.approx(0, abs=0.011)
    page.mouse.move(frame["x"] + frame["width"] + 50, frame["y"] + 30)
    assert host.get_by_role("slider", name="Strength").input_value() == "2"
    page.mouse.up()


# ---------------------------------------------------------------- augmentation

SIZE = (16, 24)
NEUTRAL = {"rotation": 0, "shift_x": 0, "shift_y": 0, "zoom": 1, "shear": 0, "flip": "none", "rule": "ours", "x": 16}
NEUTRAL |= {"y": 4, "border": "nearest", "order": 1}
NAMES = ["rotation", "shift_x", "shift_y", "zoom", "shear", "flip", "x", "y"]
EXPLORE_WARP = """(host, settings) => settings.map(setting => {
    const find = query => host.shadowRoot.querySelector(query);
    for (const [name, value] of Object.entries(setting)) {
        const slider = find(`[name=${name}][type=range]`);
        if (slider) slider.value = value;
        else find(`[name=${name}][value="${value}"]`).checked = true;
    }
    find("[name=zoom]").dispatchEvent(new Event("input", { bubbles: true }));
    const pixels = canvas => {  // by way of a canvas that is made for being read: reading another one is warned of
        const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
        const pen = copy.getContext("2d", { willReadFrequently: true });
        pen.drawImage(canvas, 0, 0);
        return btoa(String.fromCharCode(...pen.getImageData(0, 0, canvas.width, canvas.height).data));
    };
    return [(READ)(host), [...host.shadowRoot.querySelectorAll("canvas")].map(pixels), find("#source").textContent];
})""".replace("READ", READ)
MOVES = [
    *itertools.product([-180, -90, -37, 20, 180], [0, 3.25], [0, -5], [0.5, 1.3], [-20, 45], ["none"], [16], [4]),
    *itertools.product([0, 30, 90], [0, -2.5], [4], [1, 0.8], [0, 10], ["horizontal", "vertical"], [0, 23], [15]),
]


def explore_warp(host, settings):
    """The numbers of the table, what its cells show, output and input as (h, w, 3) and the words, at each setting."""
    for rows, screens, words in host.evaluate(EXPLORE_WARP, [NEUTRAL | s for s in settings]):
        numbers = np.array([[float(v) for v in row[0].split()] for row in rows.values()])
        pixels = [np.frombuffer(b64decode(screen), np.uint8).astype(int) for screen in screens]
        output, around = pixels[0].reshape(16, 24, 4), pixels[1].reshape(32, 48, 4)
        assert (output[..., 3] == 255).all()
        yield numbers, [row[1:] for row in rows.values()], output[..., :3], around[8:24, 12:36, :3], words


def expected_matrix(rotation, shift_x, shift_y, zoom, shear, flip):
    """The library's, and before it the flip of the input, which NumPy does by an index."""
    flips = np.array([-1 if flip == "horizontal" else 1, -1 if flip == "vertical" else 1, 1])
    to_centre = np.array([[1, 0, -11.5], [0, 1, -7.5], [0, 0, 1]])
    shown = affine_matrix(SIZE, rotation=rotation, shift=(shift_x, shift_y), zoom=zoom, shear=shear)
    return np.linalg.inv(to_centre) @ np.diag(flips) @ to_centre @ shown


def test_matrix_equals_the_library(show):
    host = show(widget("augmentation-explorer")).locator("augmentation-explorer")
    settings = [dict(zip(NAMES, move, strict=True)) for move in MOVES]
    for (numbers, cells, *_), move in zip(explore_warp(host, settings), MOVES, strict=True):
        matrix, pixel = expected_matrix(*move[:6]), np.array([*move[6:], 1])
        np.testing.assert_allclose(numbers[:, 1:4], matrix, rtol=1e-12, atol=1e-12, err_msg=str(move))
        np.testing.assert_array_equal(numbers[:, 4], pixel)
        np.testing.assert_allclose(numbers[:, 0], matrix @ pixel, rtol=0, atol=1e-9, err_msg=str(move))
        shown = np.array([[number(cell) for cell in row] for row in cells])
        np.testing.assert_allclose(shown, numbers, rtol=0, atol=5.1e-4)
        assert "−0.000" not in sum(cells, [])


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("border", ["nearest", "reflect", "grid-wrap", "constant"])
def test_image_equals_scipy(show, border, order):
    """The pixels of the output, from those of the input and SciPy's own coordinates: row before column."""
    host = show(widget("augmentation-explorer")).locator("augmentation-explorer")
    moves = [move for move in MOVES if move[0] % 90][::4]  # a quarter turn puts pixels on an edge, or beyond by 1e-15
    settings = [dict(zip(NAMES, move, strict=True)) | {"border": border, "order": order} for move in moves]
    for (_, _, output, image, _), move in zip(explore_warp(host, settings), moves, strict=True):
        matrix = expected_matrix(*move[:6])[[1, 0, 2]][:, [1, 0, 2]]
        for c in range(3):
            expected = affine_transform(image[..., c].astype(float), matrix, order=order, mode=border)
            np.testing.assert_allclose(output[..., c], expected, rtol=0, atol=0.5 + 1e-6, err_msg=str(move))


def test_the_border_is_that_of_numpy(show):
    """Around the input, and paler; the browser keeps pale colours a little rounded."""
    host = show(widget("augmentation-explorer")).locator("augmentation-explorer")
    modes = {"nearest": "edge", "reflect": "symmetric", "grid-wrap": "wrap", "constant": "constant"}
    found = host.evaluate(EXPLORE_WARP, [NEUTRAL | {"border": border} for border in modes])
    for (_, screens, _), mode in zip(found, modes.values(), strict=True):
        around = np.frombuffer(b64decode(screens[1]), np.uint8).reshape(32, 48, 4).astype(int)
        image = around[8:24, 12:36]
        expected = np.pad(image[..., :3], ((8, 8), (12, 12), (0, 0)), mode)
        np.testing.assert_allclose(around[..., :3], expected, atol=2)
        assert (image[..., 3] == 255).all()
        assert (around[..., 3] == 102).sum() == 32 * 48 - 16 * 24


def test_image_is_unlike_its_mirror_images(show):
    [(*_, output, image, _)] = explore_warp(
        show(widget("augmentation-explorer")).locator("augmentation-explorer"), [{}]
    )
    np.testing.assert_array_equal(output, image)  # at rest
    for other in (image[:, ::-1], image[::-1], image[::-1, ::-1]):
        assert (other != image).any(axis=2).mean() > 0.9


def test_exact_turns_move_whole_pixels(show):
    host = show(widget("augmentation-explorer")).locator("augmentation-explorer")
    settings = [{"rotation": 180, "border": "constant"}, {"flip": "horizontal"}, {"flip": "vertical"}]
    half, horizontal, vertical = explore_warp(host, settings)
    np.testing.assert_array_equal(half[2], half[3][::-1, ::-1])
    np.testing.assert_array_equal(horizontal[2], half[3][:, ::-1])
    np.testing.assert_array_equal(vertical[2], half[3][::-1])


@pytest.mark.filterwarnings("ignore:Please import .* from the `scipy.ndimage` namespace:DeprecationWarning")  # Keras
@pytest.mark.parametrize("what", ["width_shift_range", "height_shift_range"])
def test_shift_of_keras_is_that_of_keras(show, what):
    """Its generator, told to move by 5 pixels along one axis, and the figure under its rule."""
    keras = keras_image()
    setting = {"shift_x" if what.startswith("width") else "shift_y": 5, "rule": "Keras’s shift"}
    host = show(widget("augmentation-explorer")).locator("augmentation-explorer")
    [(*_, output, image, _)] = explore_warp(host, [setting])
    generator = keras.ImageDataGenerator(**{what: [5]})
    seeds = {
        generator.get_random_transform(image.shape, seed)["tx" if "height" in what else "ty"]: seed for seed in range(9)
    }
    moved = generator.random_transform(image.astype(np.float32), seeds[5])
    np.testing.assert_allclose(output, moved, rtol=0, atol=1e-3)
    assert (output != image).any()


def test_centre_off_by_half(show):
    """About (12, 8), where the rule puts the centre; a half turn is one pixel off."""
    host = show(widget("augmentation-explorer")).locator("augmentation-explorer")
    turns = [{"rotation": angle, "zoom": 1.3, "rule": "centre n/2"} for angle in (-50, 20)]
    half = {"rotation": 180, "rule": "centre n/2"}
    *found, (_, _, output, image, _) = explore_warp(host, [*turns, half])
    move = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    for (numbers, *_), setting in zip(found, turns, strict=True):
        ours = affine_matrix(SIZE, rotation=setting["rotation"], zoom=1.3)
        np.testing.assert_allclose(numbers[:, 1:4], move @ ours @ np.linalg.inv(move), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(output[1:, 1:], image[:0:-1, :0:-1])


@pytest.mark.parametrize(
    ("setting", "ending"),
    [
        ({"x": 3, "y": 2}, "input position (3, 2): from the pixels around it."),
        ({"x": 3, "y": 2, "order": 0}, "input position (3, 2): from the nearest pixel."),
        ({"x": 1, "y": 2, "shift_x": 4}, "(−3, 2), which is outside: “nearest” puts a copy of the pixel (0, 2) there."),
        ({"x": 1, "y": 2, "shift_x": 4, "border": "reflect"}, "a copy of the pixel (2, 2) there."),
        ({"x": 1, "y": 14, "shift_y": -3, "border": "grid-wrap"}, "a copy of the pixel (1, 1) there."),
        ({"x": 1, "y": 2, "shift_x": 1.25, "border": "constant"}, "(−0.25, 2), which is outside: it is black."),
    ],
)
def test_source_in_words(show, setting, ending):
    host = show(widget("augmentation-explorer")).locator("augmentation-explorer")
    [(*_, words)] = explore_warp(host, [setting])
    assert words.startswith(f"Output pixel ({setting['x']}, {setting['y']}) is taken from input position (")
    assert words.endswith(ending)


def matrix_of(host):
    """The numbers of the table, as an array of three rows."""
    return np.array([[float(v) for v in row[0].split()] for row in host.evaluate(READ).values()])


def test_marks_are_where_the_numbers_say(show):
    host = show(widget("augmentation-explorer", rotation=40, shift_x=2)).locator("augmentation-explorer")
    numbers = matrix_of(host)
    assert (
        host.locator("svg").nth(0).locator("path").first.get_attribute("d") == "M15.5,3.5L16.5,3.5L16.5,4.5L15.5,4.5Z"
    )
    marks = host.locator("svg").nth(1)
    place = "dot => [dot.cx.baseVal.value, dot.cy.baseVal.value]"
    np.testing.assert_allclose(marks.locator("circle").last.evaluate(place), numbers[:2, 0], atol=1e-5)
    np.testing.assert_allclose(marks.locator("circle").first.evaluate(place), numbers[:2, 3], atol=1e-5)
    frame = np.array(
        [[float(v) for v in p.split(",")] for p in marks.locator("path").first.get_attribute("d")[1:-1].split("L")]
    )
    corners = np.array([[-0.5, -0.5, 1], [23.5, -0.5, 1], [23.5, 15.5, 1], [-0.5, 15.5, 1]])
    np.testing.assert_allclose(frame, corners @ numbers[:2, 1:4].T, atol=1e-8)


def test_the_pixel_under_the_pointer_is_marked(show):
    page = show(widget("augmentation-explorer", rotation=20))
    host = page.locator("augmentation-explorer")
    box = host.locator("svg").first.bounding_box()
    assert box["width"] / box["height"] == pytest.approx(24 / 16, rel=0.01)
    for x, y in [(0, 0), (23, 15), (7, 9)]:
        page.mouse.move(box["x"] + (x + 0.5) * box["width"] / 24, box["y"] + (y + 0.5) * box["height"] / 16)
        np.testing.assert_array_equal(matrix_of(host)[:, 4], [x, y, 1])
        assert host.get_by_role("slider", name="Output pixel x").input_value() == str(x)


def test_augmentation_attributes_and_independence(show):
    set_up = {
        "rotation": -30,
        "shift_x": 2.25,
        "shift_y": -1,
        "zoom": 1.5,
        "shear": 10,
        "flip": "vertical",
        "x": 3,
        "y": 9,
    }
    page = show(
        widget("augmentation-explorer", **set_up, border="reflect", order=0, rule="centre n/2"),
        widget("augmentation-explorer", rotation="nonsense", zoom=99, flip="nonsense", border="wrap", x=-4),
    )
    first, second = page.locator("augmentation-explorer").all()
    for name in ("vertical", "reflect", "0", "centre n/2"):
        assert first.get_by_role("radio", name=name, exact=True).is_checked()
    assert [matrix_of(first)[i, 4] for i in range(2)] == [3, 9]
    first.get_by_role("radio", name="ours").check()
    np.testing.assert_allclose(matrix_of(first)[:, 1:4], expected_matrix(*list(set_up.values())[:6]), atol=1e-12)
    np.testing.assert_allclose(matrix_of(second)[:, 1:4], expected_matrix(0, 0, 0, 2, 0, "none"), atol=1e-12)
    assert matrix_of(second)[0, 4] == 0
    before = second.evaluate(READ)
    first.get_by_role("slider", name="Zoom").fill("0.5")
    assert second.evaluate(READ) == before


def test_augmentation_by_keyboard(show):
    page = show(widget("augmentation-explorer", rotation=89))
    page.evaluate("document.addEventListener('keydown', event => console.error('the page saw ' + event.key))")
    host = page.locator("augmentation-explorer")
    host.get_by_role("slider", name="Rotation").focus()
    page.keyboard.press("ArrowRight")
    np.testing.assert_allclose(matrix_of(host)[:2, 1:3], [[0, -1], [1, 0]], atol=1e-15)
    for _ in range(5):
        page.keyboard.press("Tab")  # both shifts, zoom, shear, flip
    page.keyboard.press("ArrowRight")
    assert host.get_by_role("radio", name="horizontal").is_checked()
    for _ in range(4):
        page.keyboard.press("Tab")  # order, border, rule, the first button
    page.keyboard.press("Enter")
    np.testing.assert_allclose(matrix_of(host)[:, 1:4], [[1, 0, 0], [0, 1, 5], [0, 0, 1]], atol=1e-15)
    assert host.locator("#rule").text_content().startswith("Keras hands the width’s shift to the rows")


def test_presets_show_the_rules(show):
    host = show(widget("augmentation-explorer", flip="vertical", shear=20)).locator("augmentation-explorer")
    host.get_by_role("button", name="Centre off by half").click()
    np.testing.assert_allclose(matrix_of(host)[:, 1:4], [[-1, 0, 24], [0, -1, 16], [0, 0, 1]], atol=1e-14)
    host.get_by_role("button", name="At rest").click()
    np.testing.assert_array_equal(matrix_of(host)[:, 1:4], np.eye(3))
    assert host.get_by_role("radio", name="ours").is_checked()


# ---------------------------------------------------------------- ring all-reduce


def explore_ring(host, workers, numbers):
    """The rows, the cells and the curves' heights in bytes after every step."""
    collect = """(host, [workers, numbers, steps]) => Array.from({ length: steps + 1 }, (_, step) => {
        for (const [name, value] of Object.entries({ workers, numbers, step })) host.set(name, value);
        const rows = [...host.shadowRoot.querySelectorAll("tr[id]")].filter(row => !row.hidden);
        const held = [...host.shadowRoot.querySelectorAll("[data-held]")].map(cell => cell.dataset.held.split(","));
        const words = host.shadowRoot.querySelector("#outcome").textContent;
        const dots = [...host.shadowRoot.querySelectorAll("circle")].map(dot => +dot.getAttribute("cy"));
        const numbersOf = row => ["start", "stop", "target", "total"].map(name => +row.dataset[name]);
        return [rows.map(numbersOf), held, words, dots];
    })"""
    return host.evaluate(collect, [workers, numbers, 2 * (workers - 1)])


def applied(algorithm, workers, numbers):
    """After every round of the library: the messages, the bytes sent so far, and the ranks whose numbers are where."""
    held = np.zeros((workers, numbers, workers), bool)
    held[np.arange(workers), :, np.arange(workers)] = True
    total = np.zeros(workers, int)
    for step in rounds(algorithm, workers, numbers):
        before = held.copy()
        for source, target, start, stop in zip(step.source, step.target, step.start, step.stop, strict=True):
            part = slice(start, stop)
            held[target, part] = before[source, part] | (before[target, part] if step.add else False)
            total[source] += 8 * (stop - start)
        yield step, total.copy(), held.copy()


@pytest.mark.parametrize(("workers", "numbers"), [(2, 2), (3, 7), (4, 32), (5, 64), (6, 13)])
def test_ring_is_that_of_the_library(show, workers, numbers):
    host = show(widget("ring-all-reduce")).locator("ring-all-reduce")
    shown = explore_ring(host, workers, numbers)
    assert shown[0][2].startswith("Before the first")
    chunks = [c.start for c in partition(numbers, workers)]
    for (rows, cells, words, _), (step, total, held) in zip(shown[1:], applied("ring", workers, numbers), strict=True):
        order = np.argsort(step.source)
        expected = np.stack([step.start, step.stop, step.target], axis=1)[order]
        np.testing.assert_array_equal(np.array(rows)[:, :3], expected)
        np.testing.assert_array_equal(np.array(rows)[:, 3], total)
        assert ("the receiver adds" in words) == step.add
        found = np.array([[str(r) in cell for r in range(workers)] for cell in cells])
        np.testing.assert_array_equal(found, held[:, chunks].reshape(-1, workers))
    assert "Every worker now holds the whole sum" in shown[-1][2]


@pytest.mark.parametrize("workers", [2, 4, 5])
def test_curves_are_the_bytes_of_the_busiest(show, workers):
    host = show(widget("ring-all-reduce")).locator("ring-all-reduce")
    shown = explore_ring(host, workers, 20)
    pixels = (178 - 26) / (max(workers - 1, 2) * 20 * 8)
    for place, algorithm in enumerate(("ring", "naive", "tree")):
        totals = [total.max() for _, total, _ in applied(algorithm, workers, 20)]
        for i, bytes_sent in enumerate(totals, 1):
            assert shown[i][3][place] == pytest.approx(178 - pixels * bytes_sent, abs=1e-9), (algorithm, i)


def test_ring_attributes_and_buttons(show):
    page = show(
        widget("ring-all-reduce", workers=3, numbers=7, step=1), widget("ring-all-reduce", workers=99, step="x")
    )
    first, second = page.locator("ring-all-reduce").all()
    assert [first.get_by_role("slider").nth(i).input_value() for i in range(3)] == ["3", "7", "1"]
    assert [second.get_by_role("slider").nth(i).input_value() for i in range(3)] == ["6", "32", "5"]
    for _ in range(9):
        first.get_by_role("button", name="Next step").click()
    assert first.get_by_role("slider", name="Step").input_value() == "4"
    assert "Step 4 of 4, all-gather" in first.locator("#outcome").text_content()
    first.get_by_role("button", name="Back").click()
    assert first.get_by_role("slider", name="Step").input_value() == "3"
    assert first.locator("label:has([name=step]) .number").text_content() == "3"
    assert second.get_by_role("slider", name="Step").input_value() == "5"


def test_fewer_workers_have_fewer_steps(show):
    host = show(widget("ring-all-reduce", workers=6, step=10)).locator("ring-all-reduce")
    host.get_by_role("slider", name="Workers P").fill("2")
    assert host.get_by_role("slider", name="Step").input_value() == "2"
    assert host.locator("label:has([name=step]) .number").text_content() == "2"
    assert host.locator("tr[id]:visible").count() == 2


# ---------------------------------------------------------------- roofline

GPUS = {"H100 SXM": "NVIDIA H100 80GB HBM3", "A100 SXM": "NVIDIA A100-SXM4-80GB", "T4": "Tesla T4"}


def counted(n, d, itemsize):
    """The library's cost of each operation for n rows of d numbers."""
    rows = [("linear", (n, d), (d, d), (d,)), ("layer_norm", (n, d), (d,), (d,)), ("gelu", (n, d)), ("adam", (d, d))]
    return {
        name: cost_of(*row, itemsize=itemsize)
        for name, row in zip(("linear", "norm", "GELU", "Adam"), rows, strict=True)
    }


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_roofline_equals_the_library(show, device, precision):
    host = show(widget("roofline-explorer", device=device, precision=precision)).locator("roofline-explorer")
    gpu, limits = DEVICES[GPUS[device]], set()
    for log_rows, log_width in itertools.product([0, 6, 11, 14], [7, 11, 14]):
        host.evaluate(
            "(host, set) => Object.entries(set).forEach(([k, v]) => host.set(k, v))",
            {"log_rows": log_rows, "log_width": log_width},
        )
        rows = host.evaluate(READ)
        for name, cost in counted(2**log_rows, 2**log_width, 4 if precision == "float32" else 2).items():
            operations, size, seconds, intensity, _, limited = rows[name]
            assert (int(operations), int(size)) == (cost.operations, cost.bytes)
            assert max(float(seconds), gpu.launch) == pytest.approx(predict_seconds(cost, gpu, precision), rel=1e-12)
            assert number(intensity) == pytest.approx(cost.intensity, rel=5e-4)
            bound = "compute" if cost.intensity > gpu.peaks[precision] / gpu.bandwidth else "memory"
            assert limited == ("launch" if float(seconds) < gpu.launch else bound)
            limits.add(limited)
    assert limits == {"compute", "memory", "launch"}
    assert f"{gpu.peaks[precision] / 1e12:g} TFLOP/s" in host.locator("#outcome").text_content()


def test_dots_lie_on_the_roof(show):
    host = show(widget("roofline-explorer", log_rows=10)).locator("roofline-explorer")
    dots = (
        host.locator(".plot")
        .first.locator("circle")
        .evaluate_all("all => all.map(dot => [+dot.getAttribute('cx'), +dot.getAttribute('cy')])")
    )
    gpu = DEVICES[GPUS["H100 SXM"]]
    for (x, y), cost in zip(dots, counted(2**10, 2**12, 4).values(), strict=True):
        height = np.log10(roofline(cost.intensity, gpu.peaks["float32"], gpu.bandwidth))
        assert x == pytest.approx(34 + (np.log10(cost.intensity) + 1) / 5 * (308 - 34))
        assert y == pytest.approx(178 - (height - 10) / 5.2 * (178 - 26))


def test_roofline_attributes_and_dragging(show):
    page = show(widget("roofline-explorer", device="T4", log_rows=3), widget("roofline-explorer", precision="int7"))
    first, second = page.locator("roofline-explorer").all()
    assert first.get_by_role("radio", name="T4").is_checked()
    assert second.get_by_role("radio", name="float32").is_checked()
    box = first.locator(".plot").last.locator(".frame").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.up()
    assert first.get_by_role("slider", name="Rows").input_value() == "7"
    assert second.get_by_role("slider", name="Rows").input_value() == "6"


# ---------------------------------------------------------------- all figures

EXAMPLES = {  # a setting of each figure, and a slider to move
    "loss-explorer": ({"prediction": -2, "delta": 0.5}, "Prediction"),
    "descent-explorer": ({"eta": 1.5, "beta": 0.5, "form": "Nesterov"}, "Learning rate η"),
    "penalty-explorer": ({"log_alpha": -0.2, "l1_ratio": 0.5}, "Strength"),
    "augmentation-explorer": ({"rotation": 40, "flip": "vertical", "border": "reflect"}, "Rotation"),
    "ring-all-reduce": ({"workers": 4, "step": 5}, "Step"),
    "roofline-explorer": ({"device": "T4", "log_width": 9}, "Rows"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_shown_by_jupyter(show, name):
    """Jupyter inserts the HTML first and then runs a copy of the script; cells are moved, and run again."""
    example = widget(name, **EXAMPLES[name][0])
    expected = show(example).locator(name).evaluate(READ)
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
        page.evaluate(insert, example.data)
    assert page.locator(name).count() == 2
    for host in page.locator(name).all():
        assert host.evaluate(READ) == expected
        assert host.get_by_role("table").count() == 1


@pytest.mark.parametrize("name", EXAMPLES)
def test_changes_are_announced(show, name):
    options, slider = EXAMPLES[name]
    host = show(widget(name, **options)).locator(name)
    assert host.locator("tbody:visible").get_attribute("aria-live") == "polite"
    host.locator("tbody:visible").evaluate("body => { body.before = [...body.rows] }")
    before = host.evaluate(READ)
    host.get_by_role("slider", name=slider).fill("2")
    assert host.evaluate(READ) != before
    kept = "body => body.before.every((row, i) => row === body.rows[i])"  # a new row would be read out as an addition
    assert host.locator("tbody:visible").evaluate(kept)


LOSSES = [widget("loss-explorer"), widget("loss-explorer", task="classification")]
PATHS = [widget("descent-explorer"), widget("descent-explorer", eta=2, beta=0.5, kappa=2, form="Nesterov")]
BALLS = [widget("penalty-explorer"), widget("penalty-explorer", log_alpha=2, l1_ratio=0, correlation=0.9)]
FAR = {"rotation": -120, "shear": 45, "zoom": 0.5, "shift_x": -12, "shift_y": -12, "x": 23, "y": 15}
WARPS = [widget("augmentation-explorer"), widget("augmentation-explorer", border="grid-wrap", **FAR)]
ROOFS = [widget("roofline-explorer"), widget("roofline-explorer", device="T4", precision="float16", log_rows=14)]
RINGS = [widget("ring-all-reduce"), widget("ring-all-reduce", workers=6, step=7)]


@pytest.mark.parametrize("theme", THEMES)
def test_accessible(show, theme):
    found = Axe().run(show(*LOSSES, *PATHS, *BALLS, *WARPS, *RINGS, *ROOFS, theme=theme)).response["violations"]
    assert [(f["id"], f["nodes"][0]["html"]) for f in found if f["impact"] in ("serious", "critical")] == []


def luminance(rgb):
    """Relative luminance as WCAG 2 defines it."""
    s = np.array(rgb[:3]) / 255
    return np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize(("figure", "count"), [(LOSSES[1], 4), (PATHS[0], 2), (BALLS[0], 4)])
@pytest.mark.parametrize("theme", THEMES)
def test_accents_stand_out(show, theme, figure, count):
    """Axe does not look at text in pictures."""
    page = show(figure, theme=theme)
    accents = page.locator("g.accent:visible").evaluate_all("all => all.map(g => getComputedStyle(g).color)")
    assert len(set(accents)) == count
    background = luminance(page.evaluate(RGB, THEMES[theme][0]))
    for accent in accents:
        dark, light = sorted([background, luminance(page.evaluate(RGB, accent))])
        assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize("width", [320, 390, 800, 1600])
def test_nothing_overflows(show, width):
    wide = widget("loss-explorer", task="classification", logit=8, gamma=5)
    page = show(*LOSSES, *PATHS, *BALLS, *WARPS, wide, widget("descent-explorer", eta=0, beta=0.99), width=width)
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
