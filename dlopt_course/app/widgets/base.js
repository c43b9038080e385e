// What the widgets share: elements, controls and plots. STYLE is base.css.

const maker = (space) => (tag, attributes = {}, ...children) => {
  const element = document.createElementNS(`http://www.w3.org/${space}`, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const html = maker("1999/xhtml");
const svg = maker("2000/svg");

const signed = (number) => `${number}`.replaceAll("-", "−");

// Four digits, with an exponent where they would need many zeros; -0 is 0.
const digits = (number) => {
  if (Math.abs(number) >= 1e-3) return signed(number.toPrecision(4));
  return number ? signed(number.toExponential(3)) : "0";
};

// Three decimals, and no -0.
const fixed = (number) => signed((Math.round(1000 * number) / 1000 || 0).toFixed(3));

const swatch = (i) => {
  const line = svg("path", { class: "curve", d: "M0 4H32" });
  return svg("svg", { class: `swatch accent c${i}`, viewBox: "0 0 32 8", "aria-hidden": "true" }, line);
};

// Heights at least a line apart, as near as may be to those given and none below the last.
const spread = (heights, line, last) => {
  const order = heights.map((_, i) => i).sort((i, j) => heights[i] - heights[j]);
  const moved = [...heights];
  order.forEach((i, k) => (moved[i] = Math.max(moved[i], k ? moved[order[k - 1]] + line : 0)));
  order.reverse().forEach((i, k) => (moved[i] = Math.min(moved[i], k ? moved[order[k - 1]] - line : last)));
  return moved;
};

// The coordinates of a picture, 320 x 216. The names of the curves stand at `side`, "left" or "right", preferably that
// where the curves end apart; the numbers of y are opposite. On the side "none", the frame has the place of the names.
class Plot {
  constructor({ x, y, side = "right" }) {
    const [left, right] = { right: [34, 270], left: [50, 282], none: [34, 308] }[side];
    Object.assign(this, { x, y, side, left, right, top: 26, bottom: 178 });
  }

  across(v) {
    return this.left + ((v - this.x.min) / (this.x.max - this.x.min)) * (this.right - this.left);
  }

  up(v) {
    return this.bottom - ((v - this.y.min) / (this.y.max - this.y.min)) * (this.bottom - this.top);
  }

  text(x, y, anchor, content) {
    return svg("text", { x, y, "text-anchor": anchor }, content);
  }

  beside(side, y, content) {
    const [x, anchor] = side === "left" ? [this.left - 6, "end"] : [this.right + 6, "start"];
    return this.text(x, y + 4, anchor, content);
  }

  axes(title) {
    const { x, y, left, right, top, bottom } = this;
    return [
      svg("text", { class: "title", x: left, y: 14 }, title),
      ...y.ticks.map((v) => svg("path", { class: "grid", d: `M${left} ${this.up(v)}H${right}` })),
      ...y.ticks.map((v) => this.beside(this.side === "left" ? "right" : "left", this.up(v), signed(v))),
      ...x.ticks.map((v) => this.text(this.across(v), bottom + 17, "middle", signed(v))),
      this.text((left + right) / 2, bottom + 34, "middle", x.title),
      svg("rect", { class: "frame", x: left, y: top, width: right - left, height: bottom - top }),
    ];
  }

  // All that a plot shows: curves {name, f, slope?, jump?}, each with a dot at `here`, and a tangent if it has a slope.
  show(title, curves, here) {
    const end = this.side === "left" ? this.x.min : this.x.max;
    const heights = spread(curves.map(({ f }) => this.up(f(end))), 14, this.bottom);
    const marks = ({ f, slope, jump }) => [
      ...(slope ? [this.tangent(here, f(here), slope(here))] : []),
      svg("path", { class: "curve", d: this.trace(f, jump) }),
      svg("circle", { cx: this.across(here), cy: this.up(f(here)), r: 4.5 }),
    ];
    const guide = svg("path", { class: "here", d: `M${this.across(here)} ${this.top}V${this.bottom}` });
    const groups = curves.map((curve, i) =>
      svg("g", { class: `accent c${i}` }, ...marks(curve), this.beside(this.side, heights[i], curve.name)));
    return [...this.axes(title), guide, ...groups];
  }

  // The line of f, broken where it jumps.
  trace(f, jump) {
    const samples = Array.from({ length: 321 }, (_, i) => this.x.min + ((this.x.max - this.x.min) * i) / 320);
    return this.line(samples.map((v) => v !== jump && [v, f(v)]));
  }

  // The line through points, broken where there is none.
  line(points) {
    const point = ([x, y], i) => `${points[i - 1] ? "L" : "M"}${this.across(x)} ${this.up(y)}`;
    return points.map((xy, i) => (xy ? point(xy, i) : "")).join("");
  }

  // A part of the picture that is cut off at the frame.
  inside(...marks) {
    const [width, height] = [this.right - this.left, this.bottom - this.top];
    const place = { x: this.left, y: this.top, width, height, viewBox: `${this.left} ${this.top} ${width} ${height}` };
    return svg("svg", place, ...marks);
  }

  tangent(v, height, slope) {
    const [run, rise] = [this.across(1) - this.across(0), (this.up(1) - this.up(0)) * slope];
    const [h, w] = [run, rise].map((d) => (24 * d) / Math.hypot(run, rise));
    return svg("path", { class: "tangent", d: `M${this.across(v) - h} ${this.up(height) - w}l${2 * h} ${2 * w}` });
  }
}

// A widget lists what it shows in build() and brings that up to date in update().
class Figure extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return; // it was only moved within the page
    this.dataset.lmSuppressShortcuts = "true"; // the arrow keys are the sliders', not JupyterLab's
    const root = this.attachShadow({ mode: "open" });
    root.append(html("style", {}, STYLE), ...this.build());
    root.addEventListener("input", () => this.update());
    root.addEventListener("keydown", (event) => event.stopPropagation()); // nor the site's
    this.update();
  }

  // What every control is set to, by name.
  get values() {
    const inputs = [...this.shadowRoot.querySelectorAll("[type=range], :checked")];
    return Object.fromEntries(inputs.map((input) => [input.name, input.type === "range" ? +input.value : input.value]));
  }

  // Moves a slider as a hand would.
  set(name, value) {
    const slider = this.shadowRoot.querySelector(`[name=${name}]`);
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  }

  slider(name, title, { min, max, step, value }) {
    const input = html("input", { type: "range", name, min, max, step, value: this.getAttribute(name) ?? value });
    const now = html("span", { class: "number", "aria-hidden": "true" }); // the slider itself says its value
    const tell = () => now.replaceChildren(signed(input.value));
    input.addEventListener("input", tell);
    tell();
    return html("label", { class: "slider" }, html("span", {}, title), now, input);
  }

  choice(name, title, options) {
    const wanted = options.includes(this.getAttribute(name)) ? this.getAttribute(name) : options[0];
    const radio = (value) => html("input", { type: "radio", name, value, ...(value === wanted && { checked: "" }) });
    const labels = options.map((value) => html("label", {}, radio(value), value));
    const group = { class: "choice", role: "radiogroup", "aria-label": title };
    return html("div", group, html("span", {}, title), html("div", { class: "options" }, ...labels));
  }

  picture(description) {
    return svg("svg", { class: "plot", viewBox: "0 0 320 216", role: "img", "aria-label": description });
  }

  // A picture on which one may drag too: it moves the slider of that name.
  handle(name, description) {
    const picture = this.picture(description);
    const drag = (event) => {
      if (!event.buttons) return;
      const { min, max } = this.shadowRoot.querySelector(`[name=${name}]`);
      const { left, width } = picture.querySelector(".frame").getBoundingClientRect();
      this.set(name, +min + ((event.clientX - left) / width) * (max - min));
    };
    picture.classList.add("handle");
    picture.addEventListener("pointerdown", (event) => picture.setPointerCapture(event.pointerId));
    for (const type of ["pointerdown", "pointermove"]) picture.addEventListener(type, drag);
    return picture;
  }
}
