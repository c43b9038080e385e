// <penalty-explorer log_alpha l1_ratio correlation>: pull two coefficients towards 0, see how and when they vanish.

const LEAST_SQUARES = [2, 0.8]; // where the loss (w - w0)' G (w - w0) / 2 is least; G has ones and the correlation
const NAMES = ["w₁", "w₂"];
const LOG_ALPHA = { min: -2, max: 2, step: 0.01, value: -0.5 };
const RATIO = { min: 0, max: 1, step: 0.01, value: 1 };
const CORRELATION = { min: 0, max: 0.9, step: 0.05, value: 0.5 };
const CIRCLE = Array.from({ length: 241 }, (_, i) => [Math.cos, Math.sin].map((f) => f((i * Math.PI) / 120)));

const threshold = (x, t) => Math.sign(x) * Math.max(Math.abs(x) - t, 0);

// X'y / n, which is G w0.
const slopes = ({ correlation: r }) => [0, 1].map((i) => LEAST_SQUARES[i] + r * LEAST_SQUARES[1 - i]);

// The minimum of loss + alpha (l1_ratio |w|_1 + (1 - l1_ratio) |w|^2 / 2) by coordinate descent.
const solve = (alpha, settings) => {
  const { l1_ratio: ratio, correlation } = settings;
  const [w, c] = [[0, 0], slopes(settings)];
  for (let sweep = 0, moved = 1; moved > 1e-15 && sweep < 1000; sweep++) {
    const before = [...w];
    for (const i of [0, 1]) {
      w[i] = threshold(c[i] - correlation * w[1 - i], alpha * ratio) / (1 + alpha * (1 - ratio));
    }
    moved = Math.max(...w.map((v, i) => Math.abs(v - before[i])));
  }
  return w;
};

// The alphas from which on a coefficient is 0. That of w1 is alpha_max. With w2 = 0, w1 is known, and w2 stays 0 while
// a alpha^2 + b alpha >= d: the optimality condition, multiplied by 1 + alpha (1 - l1_ratio).
const vanishing = (settings) => {
  const { l1_ratio: ratio, correlation } = settings;
  const c = slopes(settings);
  if (ratio === 0) return [Infinity, Infinity];
  const [a, b] = [ratio * (1 - ratio), ratio * (1 - correlation) - (1 - ratio) * c[1]];
  const [d, root] = [c[1] - correlation * c[0], (d) => Math.sqrt(b * b + 4 * a * d)];
  return [c[0] / ratio, b > 0 ? (2 * d) / (b + root(d)) : (root(d) - b) / (2 * a)];
};

// What the penalty is, but for alpha.
const penalty = (w, { l1_ratio: ratio }) =>
  w.reduce((sum, v) => sum + ratio * Math.abs(v) + ((1 - ratio) * v * v) / 2, 0);

// The points whose penalty is that of w: in each direction, the root of a quadratic equation for the distance.
const ball = (w, settings) => {
  const [size, rest] = [penalty(w, settings), 1 - settings.l1_ratio];
  return CIRCLE.map(([x, y]) => {
    const b = settings.l1_ratio * (Math.abs(x) + Math.abs(y));
    const distance = (2 * size) / (b + Math.sqrt(b * b + 2 * rest * size) || 1);
    return [x * distance, y * distance];
  });
};

// The points whose loss is radius^2 / 2: a circle, stretched along the two diagonals.
const contour = (radius, { correlation }) =>
  CIRCLE.map(([x, y]) => {
    const [along, across] = [x / Math.sqrt(1 + correlation), y / Math.sqrt(1 - correlation)];
    return [along - across, along + across].map((v, i) => LEAST_SQUARES[i] + (radius * v) / Math.SQRT2);
  });

// sqrt(2 loss), so that contour(distance(w)) goes through w.
const distance = (w, { correlation }) => {
  const [x, y] = w.map((v, i) => v - LEAST_SQUARES[i]);
  return Math.sqrt(Math.max(x * x + y * y + 2 * correlation * x * y, 0));
};

// What the solution says, in words.
const outcome = (w, { l1_ratio: ratio }) => {
  if (ratio === 0) return "Nothing vanishes: the ball has no corners, so both coefficients only shrink.";
  if (w[0] === 0) return "Both coefficients have vanished: α is alpha_max or more.";
  if (w[1] === 0) return "w₂ has vanished: the contour touches the ball at a corner, and w₁ is left.";
  return "Both coefficients are left: the contour touches the ball between its corners.";
};

const NOTE = `Two features of mean square 1 with the chosen correlation. Minimised is the loss |y − Xw|² / (2n) plus
α (r |w|₁ + (1 − r) |w|² / 2), r being the L1 ratio, by coordinate descent. Left: contours of the loss around the least
squares solution, the one through the penalised solution (dot) drawn out; the ball of all w with no larger penalty; and
the solution’s path as α grows. Right: the coefficients, with a ring where one vanishes.`;

class PenaltyExplorer extends Figure {
  build() {
    const controls = [
      this.slider("log_alpha", "Strength log₁₀ α", LOG_ALPHA),
      this.slider("l1_ratio", "L1 ratio", RATIO),
      this.slider("correlation", "Correlation", CORRELATION),
    ];
    const pictures = [
      this.picture("Contours of the loss, the ball of the penalty, and the solution where they touch, as in the table"),
      this.handle("log_alpha", "Both coefficients by the logarithm of alpha, as numbers in the table"),
    ];
    return [
      html("div", { class: "controls" }, ...controls),
      html("p", {}, html("span", { id: "alpha" }), html("span", { id: "outcome", "aria-live": "polite" })),
      html("div", { class: "plots" }, ...pictures),
      this.table(),
      html("p", {}, html("small", {}, NOTE)),
    ];
  }

  table() {
    const rows = NAMES.map((name, i) => {
      const text = html("small", {}, `least squares: ${LEAST_SQUARES[i]}`);
      const head = html("th", { scope: "row" }, swatch(i), html("b", {}, name), text);
      const cells = [0, 1].map(() => html("td", { class: "number" }));
      return html("tr", { id: `w${i + 1}`, "aria-atomic": "true" }, head, ...cells);
    });
    const titles = { Coefficient: "", Value: "number", "Gone at α": "number" };
    const head = Object.entries(titles).map(([text, name]) => html("th", { scope: "col", class: name }, text));
    const top = html("thead", {}, html("tr", {}, ...head));
    return html("table", {}, top, html("tbody", { "aria-live": "polite" }, ...rows));
  }

  update() {
    const { log_alpha: here, ...settings } = this.values;
    const [w, ends] = [solve(10 ** here, settings), vanishing(settings)];
    const [left, right] = this.shadowRoot.querySelectorAll(".plot");
    left.replaceChildren(...this.plane(w, settings));
    right.replaceChildren(...this.coefficients(here, settings, ends));
    NAMES.forEach((_, i) => this.tell(`w${i + 1}`, w[i], ends[i]));
    this.say(here, outcome(w, settings));
  }

  // Alpha and the outcome in words, which are read out only when they change.
  say(here, words) {
    const [slider, alpha, said] = ["[name=log_alpha]", "#alpha", "#outcome"].map((query) =>
      this.shadowRoot.querySelector(query));
    const strength = `α = ${(10 ** here).toPrecision(3)}`;
    slider.setAttribute("aria-valuetext", `${signed(here)}, ${strength}`);
    alpha.replaceChildren(`${strength}. `);
    if (said.textContent !== words) said.replaceChildren(words);
  }

  // The loss and the penalty over both coefficients; a unit is as long along w1 as along w2.
  plane(w, settings) {
    const x = { title: NAMES[0], min: -2.205, max: 3.205, ticks: [-2, -1, 0, 1, 2, 3] };
    const plot = new Plot({ x, y: { min: -1.2, max: 1.8, ticks: [-1, 0, 1] }, side: "none" });
    const closed = (points, attributes) => svg("path", { d: `${plot.line(points)}Z`, ...attributes });
    const radii = Array.from({ length: 9 }, (_, i) => (i + 1) * 0.45);
    const contours = radii.map((radius) => closed(contour(radius, settings), { class: "contour" }));
    const zero = svg("path", { class: "here", d: `M${plot.left} ${plot.up(0)}H${plot.right}M${plot.across(0)} 0V216` });
    const [cx, cy] = [plot.across(LEAST_SQUARES[0]), plot.up(LEAST_SQUARES[1])];
    const least = svg("path", { class: "mark", d: `M${cx - 5} ${cy}h10m-5 -5v10` });
    const name = plot.text(cx, cy - 10, "middle", "least squares");
    const through = closed(contour(distance(w, settings), settings), { class: "mark" });
    const filled = { fill: "currentColor", "fill-opacity": 0.2, stroke: "currentColor", "stroke-width": 1.5 };
    const inside = svg("g", { class: "accent c2" }, closed(ball(w, settings), filled));
    const steps = Array.from({ length: 201 }, (_, i) => solve(10 ** (i / 50 - 2), settings));
    const path = svg("path", { class: "path", "stroke-width": 2, d: plot.line([LEAST_SQUARES, ...steps]) });
    const dot = svg("circle", { cx: plot.across(w[0]), cy: plot.up(w[1]), r: 4.5 });
    const solution = svg("g", { class: "accent c3" }, path, dot);
    return [...plot.axes(NAMES[1]), plot.inside(...contours, zero, inside, through, least, name, solution)];
  }

  // The coefficients by alpha, and a ring where one vanishes.
  coefficients(here, settings, ends) {
    const { min, max } = LOG_ALPHA;
    const x = { title: "log₁₀ α", min, max, ticks: [-2, -1, 0, 1, 2] };
    const plot = new Plot({ x, y: { min: -0.25, max: 2.25, ticks: [0, 0.5, 1, 1.5, 2] }, side: "left" });
    const curves = NAMES.map((name, i) => ({ name, f: (v) => solve(10 ** v, settings)[i] }));
    const rings = ends.map((alpha, i) => {
      const ring = { cx: plot.across(Math.log10(alpha)), cy: plot.up(0), r: 7, class: "mark" };
      return svg("g", { class: `accent c${i}` }, ...(alpha < 10 ** max ? [svg("circle", ring)] : []));
    });
    return [...plot.show("w₁ and w₂", curves, here), ...rings];
  }

  // The numbers of a row; its data attributes hold them unrounded.
  tell(id, ...numbers) {
    const row = this.shadowRoot.getElementById(id);
    [row.dataset.value, row.dataset.end] = numbers;
    const shown = [digits(numbers[0]), numbers[1] < Infinity ? digits(numbers[1]) : "never"];
    row.querySelectorAll("td").forEach((cell, i) => cell.replaceChildren(shown[i]));
  }
}

customElements.define("penalty-explorer", PenaltyExplorer);
