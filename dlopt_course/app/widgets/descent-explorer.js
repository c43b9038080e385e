// <descent-explorer eta beta kappa form>: minimise a valley by gradient descent, see the path and its rate.

const START = [-3, 1]; // of the path in f = (mu x^2 + L y^2) / 2
const L = 1;
const [DRAWN, STEPS] = [80, 4000];
const ETA = { min: 0, max: 4, step: 0.01, value: 1.8 };
const BETA = { min: 0, max: 0.99, step: 0.01, value: 0 };
const KAPPA = { min: 1, max: 100, step: 1, value: 25 };

// Along a direction of curvature lambda, a step multiplies by the roots r of r^2 - trace r + det = 0. From `edge` on,
// the rate is 1 or more.
const FORMS = {
  "heavy ball": {
    direction: (gradient, buffer) => buffer,
    trace: (shrink, beta) => shrink + beta,
    det: (shrink, beta) => beta,
    edge: (beta) => (2 * (1 + beta)) / L,
    formula: "2(1 + β)/L",
  },
  Nesterov: {
    direction: (gradient, buffer, beta) => gradient + beta * buffer,
    trace: (shrink, beta) => (1 + beta) * shrink,
    det: (shrink, beta) => beta * shrink,
    edge: (beta) => (2 * (1 + beta)) / (1 + 2 * beta) / L,
    formula: "2(1 + β)/((1 + 2β)L)",
  },
};

// A list whose lines break only between its terms.
const unbroken = (terms) => terms.map((term) => term.replaceAll(" ", "\u00a0")).join(", ");

const curvatures = ({ kappa }) => [L / kappa, L];

// The roots along one direction: middle ± spread, or middle ± spread i; rounding must not make a double root complex.
const roots = (lambda, { eta, beta, form }) => {
  const shrink = 1 - eta * lambda;
  const [middle, det] = [FORMS[form].trace(shrink, beta) / 2, FORMS[form].det(shrink, beta)];
  const square = middle * middle - det;
  const [complex, spread] = [square < -1e-12, Math.sqrt(Math.abs(square))];
  const rate = complex ? Math.sqrt(det) : Math.abs(middle) + spread;
  return { middle, spread, complex, rate, rings: complex || (middle < 0 && rate > 1e-9) };
};

// What becomes of the path, by the roots that it follows in the end.
const outcome = (all) => {
  const rate = Math.max(...all.map((one) => one.rate));
  if (Math.abs(rate - 1) < 1e-9) return "never arrives";
  if (rate > 1) return "diverges";
  return all.some((one) => one.rings && one.rate > rate - 1e-9) ? "rings" : "converges";
};

// The places on the path, each times exp(log): they outgrow any number, or vanish, so the scale is kept apart.
const walk = ({ eta, beta, kappa, form }) => {
  const lambda = curvatures({ kappa });
  let [place, buffer, log] = [START, [0, 0], 0];
  const path = [{ place, log }];
  while (path.length <= STEPS) {
    const gradient = place.map((v, i) => lambda[i] * v);
    buffer = buffer.map((b, i) => beta * b + gradient[i]);
    place = place.map((v, i) => v - eta * FORMS[form].direction(gradient[i], buffer[i], beta));
    const size = Math.hypot(...place, ...buffer) || 1;
    [place, buffer] = [place, buffer].map((pair) => pair.map((v) => v / size));
    log += Math.log(size);
    path.push({ place, log });
  }
  return path;
};

// The logarithm of the distance to the minimum, -Infinity in it.
const height = ({ place, log }) => log + Math.log(Math.hypot(...place));

const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

// The factor by which a step changes the distance in the end: the slope of the line through the later half of the
// logarithms, by least squares, for a ratio of two distances depends on where in its swing a path is. Distances of 0
// have no logarithm; a path that stays there has the rate 0.
const fitted = (heights) => {
  const points = heights.map((v, t) => [t, v]).filter(([t, v]) => t > STEPS / 2 && v > -Infinity);
  if (points.length < 2) return 0;
  const [t0, v0] = [0, 1].map((i) => mean(points.map((point) => point[i])));
  const [rise, run] = [mean(points.map(([t, v]) => (t - t0) * (v - v0))), mean(points.map(([t]) => (t - t0) ** 2))];
  return Math.exp(rise / run);
};

const BEST = {
  plain: {
    title: "Best without momentum",
    terms: ({ eta, rate }) => [`η = 2/(L + μ) = ${eta.toFixed(3)}`, `rate (κ − 1)/(κ + 1) = ${rate.toFixed(4)}`],
    at: (kappa) => ({ eta: 2 / (L + L / kappa), beta: 0, rate: (kappa - 1) / (kappa + 1) }),
    near: () => 0,
  },
  momentum: {
    title: "Best with momentum",
    terms: ({ eta, beta, rate }) => [
      `η = 4/(√L + √μ)² = ${eta.toFixed(3)}`,
      `β = rate² = ${beta.toFixed(3)}`,
      `rate (√κ − 1)/(√κ + 1) = ${rate.toFixed(4)}`,
    ],
    at: (kappa) => {
      const rate = (Math.sqrt(kappa) - 1) / (Math.sqrt(kappa) + 1);
      return { eta: 4 / (Math.sqrt(L) + Math.sqrt(L / kappa)) ** 2, beta: rate ** 2, rate };
    },
    // The least momentum for an eta of the slider with which no root is real; of two real roots, one is large.
    near: (eta, kappa) => Math.max(...curvatures({ kappa }).map((lambda) => (1 - Math.sqrt(eta * lambda)) ** 2)),
  },
};

const NOTE = `The rate is the factor of the distance per step. Predicted is the largest absolute value of the roots, the
slope of the dashed line. Measured is fitted to steps ${STEPS / 2 + 1} to ${STEPS}; the pictures show ${DRAWN}. Near a
double root the distance takes long to follow its rate, so the two differ a little. A path rings when it swings about
the minimum on its way there.`;

class DescentExplorer extends Figure {
  build() {
    const controls = [
      this.slider("eta", "Learning rate η", ETA),
      this.slider("beta", "Momentum β", BETA),
      this.slider("kappa", "Condition number κ", KAPPA),
    ];
    controls[0].classList.add("edged");
    const form = this.choice("form", "Form", Object.keys(FORMS));
    const pictures = [
      "The path on the contours of f, from its start to the minimum",
      "The logarithm of the distance to the minimum by step, with the predicted line, as rates in the table",
    ].map((description) => this.picture(description));
    return [
      html("div", { class: "controls" }, ...controls),
      html("div", { class: "controls" }, form, html("small", { id: "edge" })),
      ...Object.keys(BEST).map((name) => this.best(name)),
      html("div", { class: "plots" }, ...pictures),
      this.table(),
      html("p", {}, html("small", {}, NOTE)),
    ];
  }

  // The best setting for this kappa, and a button for going there.
  best(name) {
    const button = html("button", { type: "button" }, BEST[name].title);
    button.addEventListener("click", () => this.go(name));
    return html("div", { class: "notes" }, button, html("span", { id: name }));
  }

  // To the best setting that the sliders can be put to.
  go(name) {
    const { kappa } = this.values;
    this.shadowRoot.querySelector(`[value="heavy ball"]`).checked = true;
    this.set("eta", BEST[name].at(kappa).eta);
    const beta = BEST[name].near(this.values.eta, kappa);
    this.set("beta", Math.ceil(beta / BETA.step - 1e-9) * BETA.step); // below it, the rate grows much faster than above
  }

  table() {
    const rows = [
      ["x", "along\u00a0x", ""],
      ["y", "along\u00a0y", ""],
      ["predicted", "predicted", "the larger of the two", swatch(1)],
      ["measured", "measured", "in the long run", swatch(0)],
    ].map(([id, title, text, line = ""]) => {
      const head = html("th", { scope: "row" }, line, html("b", {}, title), html("small", {}, text));
      const [rate, word] = ["number short", "number"].map((name) => html("td", { class: name }));
      return html("tr", { id, "aria-atomic": "true" }, head, rate, word);
    });
    rows[2].lastChild.rowSpan = 2; // one outcome for both
    rows[3].lastChild.remove();
    const titles = { Path: "", Rate: "number short", Outcome: "number" };
    const head = Object.entries(titles).map(([text, name]) => html("th", { scope: "col", class: name }, text));
    const top = html("thead", {}, html("tr", {}, ...head));
    return html("table", {}, top, html("tbody", { "aria-live": "polite" }, ...rows));
  }

  update() {
    const values = this.values;
    const [path, both] = [walk(values), curvatures(values).map((lambda) => roots(lambda, values))];
    const [heights, predicted] = [path.map(height), Math.max(...both.map(({ rate }) => rate))];
    const [left, right] = this.shadowRoot.querySelectorAll(".plot");
    left.replaceChildren(...this.valley(values, path));
    right.replaceChildren(...this.distances(heights, predicted));
    both.forEach((one, i) => this.tell("xy"[i], one.rate, outcome([one])));
    this.tell("predicted", predicted, outcome(both));
    this.tell("measured", fitted(heights));
    this.explain(values, both);
  }

  // The contours and the path in them; a step is as long in the picture along x as along y.
  valley({ kappa }, path) {
    const title = `x, of curvature μ = ${+(L / kappa).toPrecision(3)}`;
    const x = { title, min: -3.605, max: 3.605, ticks: [-3, -2, -1, 0, 1, 2, 3] };
    const plot = new Plot({ x, y: { min: -2, max: 2, ticks: [-2, -1, 0, 1, 2] }, side: "none" });
    const [cx, cy, unit] = [plot.across(0), plot.up(0), plot.across(1) - plot.across(0)];
    const contours = Array.from({ length: 9 }, (_, i) => (i + 1) * 0.4 * unit).map((ry) =>
      svg("ellipse", { class: "contour", cx, cy, rx: ry * Math.sqrt(kappa / L), ry }));
    const minimum = svg("path", { class: "mark", d: `M${cx - 5} ${cy}h10m-5 -5v10` });
    const points = path.slice(0, DRAWN + 1).map(({ place, log }) => place.map((v) => v * Math.exp(log)));
    const near = points.filter((point) => Math.hypot(...point) < 1e3); // the others are far out of the picture
    const dots = near.map(([x, y], i) => svg("circle", { cx: plot.across(x), cy: plot.up(y), r: i ? 2 : 4.5 }));
    const line = svg("path", { class: "path", d: plot.line(near) });
    const run = svg("g", { class: "accent c0" }, line, ...dots);
    return [...plot.axes(`y, of curvature L = ${L}`), plot.inside(...contours, minimum, run)];
  }

  // What is measured and, from the same start, what is predicted.
  distances(heights, rate) {
    const x = { title: "step", min: 0, max: DRAWN, ticks: [0, 20, 40, 60, 80] };
    const plot = new Plot({ x, y: { min: -8, max: 2, ticks: [-8, -6, -4, -2, 0, 2] }, side: "none" });
    const measured = heights.slice(0, DRAWN + 1).map((v, t) => v > -Infinity && [t, v / Math.LN10]);
    const [, start] = measured[0];
    const end = start + DRAWN * Math.log10(Math.max(rate, 1e-9));
    const lines = [measured, [[0, start], [DRAWN, end]]].map((points, i) =>
      svg("g", { class: `accent c${i}` }, svg("path", { class: "curve", d: plot.line(points) })));
    return [...plot.axes("log₁₀ of the distance to the minimum"), plot.inside(...lines)];
  }

  // The numbers of a row; its data attribute holds the rate unrounded.
  tell(id, rate, ...words) {
    const row = this.shadowRoot.getElementById(id);
    row.dataset.rate = rate;
    row.querySelectorAll("td").forEach((cell, i) => cell.replaceChildren([rate.toFixed(4), ...words][i]));
  }

  // The formulas with their numbers: the edge, the best settings, the roots.
  explain({ eta, beta, kappa, form }, both) {
    const write = (query, text) => this.shadowRoot.querySelector(query).replaceChildren(text);
    const { edge, formula } = FORMS[form];
    this.shadowRoot.querySelector("[name=eta]").style.setProperty("--edge", edge(beta) / ETA.max);
    const beyond = "beyond it, where the slider is dashed, the path diverges.";
    write("#edge", `The edge of stability is η = ${formula} = ${edge(beta).toFixed(2)}: ${beyond}`);
    for (const [name, { at, terms }] of Object.entries(BEST)) write(`#${name}`, unbroken(terms(at(kappa))));
    both.forEach(({ middle, spread, complex }, i) => {
      const [a, b] = complex ? [middle, spread] : [middle + spread, middle - spread];
      const [first, second] = [a, b].map(fixed);
      write(`#${"xy"[i]} small`, complex ? `roots ${first} ± ${second}i` : `roots ${first} and ${second}`);
    });
  }
}

customElements.define("descent-explorer", DescentExplorer);
