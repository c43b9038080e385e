// <roofline-explorer device precision log_rows log_width>: what limits an operation, and how long it takes at least.

const DEVICES = { // bytes a second, operations a second by precision (dense), as in dlopt_course.gpu.DEVICES
  "H100 SXM": { bandwidth: 3.35e12, float32: 66.9e12, float16: 989.4e12 },
  "A100 SXM": { bandwidth: 2.039e12, float32: 19.5e12, float16: 312e12 },
  T4: { bandwidth: 0.32e12, float32: 8.1e12, float16: 65e12 },
};
const LAUNCH = 5e-6; // seconds from one launch of a kernel to the next, roughly
const ROWS = { min: 0, max: 14, step: 1, value: 6 };
const WIDTH = { min: 7, max: 14, step: 1, value: 12 };

// Operations, and numbers read and written, for n rows of d numbers (of Adam: for the d x d weights of the layer).
const OPERATIONS = {
  linear: (n, d) => [2 * n * d * d + n * d, 2 * n * d + d * d + d],
  norm: (n, d) => [7 * n * d, 2 * n * d + 2 * d + 2 * n],
  GELU: (n, d) => [2 * n * d, 2 * n * d],
  Adam: (n, d) => [12 * d * d, 7 * d * d],
};
const NAMES = Object.keys(OPERATIONS);

// What an operation needs, and the two times of which the longer one counts.
const cost = (name, { device, precision, log_rows: rows, log_width: width }) => {
  const [operations, numbers] = OPERATIONS[name](2 ** rows, 2 ** width);
  const bytes = numbers * (precision === "float32" ? 4 : 2);
  const { [precision]: peak, bandwidth } = DEVICES[device];
  const [computing, moving] = [operations / peak, bytes / bandwidth];
  return { operations, bytes, intensity: operations / bytes, computing, moving, seconds: Math.max(computing, moving) };
};

const limit = ({ computing, moving, seconds }) => {
  if (seconds < LAUNCH) return "launch";
  return computing > moving ? "compute" : "memory";
};

const UNITS = [["s", 1], ["ms", 1e-3], ["µs", 1e-6], ["ns", 0]];
const duration = (seconds) => {
  const [unit, size] = UNITS.find(([, least]) => seconds >= least);
  return `${(seconds / (size || 1e-9)).toPrecision(3).replace(/e.*/, "")} ${unit}`;
};

const NOTE = `n rows of d numbers go through a linear layer of d units, a layer norm and a GELU; Adam updates the d × d
weights. Counted are the operations, and each input read and each output written once (cost_of in dlopt_course.gpu);
peaks are dense and from data sheets. Left: the roof is the smaller of peak and intensity × bandwidth; a dot is an
operation at its intensity, operations for each byte. Right: the least time by the number of rows, and the time of one launch, about 5 µs.`;

class RooflineExplorer extends Figure {
  build() {
    const controls = [
      this.choice("device", "GPU", Object.keys(DEVICES)),
      this.choice("precision", "Precision", ["float32", "float16"]),
      this.slider("log_rows", "Rows log₂ n", ROWS),
      this.slider("log_width", "Width log₂ d", WIDTH),
    ];
    const pictures = [
      this.picture("Operations a second by operations for each byte: the roof, and a dot for each row of the table"),
      this.handle("log_rows", "The least time of each operation by the number of rows"),
    ];
    return [
      html("div", { class: "controls" }, ...controls),
      html("p", { id: "outcome", "aria-live": "polite" }),
      html("div", { class: "plots" }, ...pictures),
      this.table(),
      html("p", {}, html("small", {}, NOTE)),
    ];
  }

  table() {
    const rows = NAMES.map((name, i) => {
      const head = html("th", { scope: "row" }, swatch(i), html("b", {}, name));
      const cells = ["number", "number", "number"].map((kind) => html("td", { class: `${kind} short` }));
      return html("tr", { id: name, "aria-atomic": "true" }, head, ...cells);
    });
    const titles = [["Operation", ""], ["Intensity", "number short"], ["Time", "number short"]];
    const head = [...titles, ["Limited by", "number short"]].map(([text, kind]) =>
      html("th", { scope: "col", class: kind }, text));
    const top = html("thead", {}, html("tr", {}, ...head));
    return html("table", {}, top, html("tbody", { "aria-live": "polite" }, ...rows));
  }

  update() {
    const { values } = this;
    const [left, right] = this.shadowRoot.querySelectorAll(".plot");
    left.replaceChildren(...this.roof(values));
    right.replaceChildren(...this.times(values));
    NAMES.forEach((name) => this.tell(name, cost(name, values)));
    this.say(values);
  }

  say({ device, precision, log_rows: rows, log_width: width }) {
    const { [precision]: peak, bandwidth } = DEVICES[device];
    const ridge = Math.round(peak / bandwidth);
    const words = `n = ${2 ** rows}, d = ${2 ** width}. With ${ridge} or more operations for each byte, the ${device}
      reaches its peak of ${peak / 1e12} TFLOP/s in ${precision}; with fewer it waits for its memory.`;
    const said = this.shadowRoot.querySelector("#outcome");
    if (said.textContent !== words) said.replaceChildren(words);
  }

  // Both axes logarithmic: the roof, and the operations under it.
  roof(values) {
    const { [values.precision]: peak, bandwidth } = DEVICES[values.device];
    const x = { title: "log₁₀ operations for each byte", min: -1, max: 4, ticks: [-1, 0, 1, 2, 3, 4] };
    const plot = new Plot({ x, y: { min: 10, max: 15.2, ticks: [10, 11, 12, 13, 14, 15] }, side: "none" });
    const height = (v) => Math.log10(Math.min(peak, 10 ** v * bandwidth));
    const line = svg("path", { class: "path", "stroke-width": 2, d: plot.trace(height) });
    const dot = (name, i) => {
      const at = Math.log10(cost(name, values).intensity);
      const mark = svg("circle", { cx: plot.across(at), cy: plot.up(height(at)), r: 4.5 });
      return svg("g", { class: `accent c${i}` }, mark, plot.text(plot.across(at) + 7, plot.up(height(at)) + 13, "start", name));
    };
    return [...plot.axes("log₁₀ operations a second"), line, ...NAMES.map(dot)];
  }

  // The least time by the number of rows.
  times(values) {
    const x = { title: "log₂ n", min: ROWS.min, max: ROWS.max, ticks: [0, 2, 4, 6, 8, 10, 12, 14] };
    const plot = new Plot({ x, y: { min: -3, max: 6, ticks: [-3, 0, 3, 6] }, side: "right" });
    const micro = (name) => (v) => Math.log10(cost(name, { ...values, log_rows: v }).seconds * 1e6);
    const curves = NAMES.map((name) => ({ name, f: micro(name) }));
    const launch = plot.up(Math.log10(LAUNCH * 1e6));
    const floor = svg("path", { class: "here", d: `M${plot.left} ${launch}H${plot.right}` });
    const name = plot.text(plot.right - 4, launch + 14, "end", "one launch");
    return [floor, name, ...plot.show("log₁₀ of the least time in µs", curves, values.log_rows)];
  }

  // The numbers of a row; its data attributes hold them unrounded.
  tell(name, found) {
    const row = this.shadowRoot.getElementById(name);
    const { operations, bytes, seconds } = found;
    Object.assign(row.dataset, { operations, bytes, seconds });
    const shown = [digits(found.intensity), duration(Math.max(seconds, LAUNCH)), limit(found)];
    row.querySelectorAll("td").forEach((cell, i) => cell.replaceChildren(shown[i]));
  }
}

customElements.define("roofline-explorer", RooflineExplorer);
