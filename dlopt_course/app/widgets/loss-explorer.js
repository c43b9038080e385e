// <loss-explorer task prediction delta logit label gamma>: drag a prediction, see every loss and its slope.

const softplus = (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))); // log(1 + exp(z)) without overflow
const sigmoid = (z) => Math.exp(-softplus(-z));

// A loss is a function of one number u. In regression that is the error, prediction - target; in classification the
// margin, the logit for label 1 and its negative for label 0. `slope` is the derivative with respect to u.
const TASKS = {
  regression: {
    by: "prediction",
    x: { title: "prediction (the target is 0)", min: -4, max: 4, ticks: [-4, -2, 0, 2, 4] },
    view: () => ({
      sign: 1,
      side: "right",
      loss: { min: 0, max: 16, ticks: [0, 4, 8, 12, 16] },
      slope: { min: -8, max: 8, ticks: [-8, -4, 0, 4, 8] },
    }),
    losses: [
      { id: "mse", name: "MSE", formula: "e², e the error", value: (u) => u * u, slope: (u) => 2 * u },
      { id: "mae", name: "MAE", formula: "|e|", value: Math.abs, slope: Math.sign, jump: 0 },
      {
        id: "huber",
        name: "Huber",
        formula: "e²/2 up to δ, then a line",
        value: (u, { delta }) => (Math.abs(u) < delta ? (u * u) / 2 : delta * (Math.abs(u) - delta / 2)),
        slope: (u, { delta }) => Math.max(-delta, Math.min(u, delta)),
      },
    ],
  },
  classification: {
    by: "logit",
    x: { title: "logit z", min: -8, max: 8, ticks: [-8, -4, 0, 4, 8] },
    view: ({ label }) => {
      const [sign, side, slope] = label === "1" ? [1, "left", [-1.5, -1, -0.5, 0]] : [-1, "right", [0, 0.5, 1, 1.5]];
      const loss = { min: 0, max: 9, ticks: [0, 3, 6, 9] };
      return { sign, side, loss, slope: { min: slope[0], max: slope[3], ticks: slope } };
    },
    losses: [
      {
        id: "squared",
        name: "MSE",
        formula: "(1 − p)², p the true label’s probability",
        value: (u) => sigmoid(-u) ** 2,
        slope: (u) => -2 * sigmoid(-u) ** 2 * sigmoid(u),
      },
      { id: "bce", name: "BCE", formula: "−log p", value: (u) => softplus(-u), slope: (u) => -sigmoid(-u) },
      {
        id: "hinge",
        name: "hinge",
        formula: "max(0, 1 − margin)",
        value: (u) => Math.max(0, 1 - u),
        slope: (u) => (u < 1 ? -1 : 0),
        jump: 1,
      },
      {
        id: "focal",
        name: "focal",
        formula: "−(1 − p)^γ log p",
        value: (u, { gamma }) => sigmoid(-u) ** gamma * softplus(-u),
        slope: (u, { gamma }) => -(sigmoid(-u) ** gamma) * (sigmoid(-u) + gamma * sigmoid(u) * softplus(-u)),
      },
    ],
  },
};

class LossExplorer extends Figure {
  build() {
    const controls = {
      regression: [
        this.slider("prediction", "Prediction", { min: -4, max: 4, step: 0.05, value: 1.5 }),
        this.slider("delta", "Huber’s δ", { min: 0.1, max: 4, step: 0.1, value: 1 }),
      ],
      classification: [
        this.slider("logit", "Logit z", { min: -8, max: 8, step: 0.1, value: -2 }),
        this.slider("gamma", "Focal loss’s γ", { min: 0, max: 5, step: 0.1, value: 2 }),
        this.choice("label", "True label", ["1", "0"]),
      ],
    };
    const panels = Object.keys(TASKS).map((task) => this.panel(task, controls[task]));
    return [html("div", { class: "controls" }, this.choice("task", "Task", Object.keys(TASKS))), ...panels];
  }

  panel(task, controls) {
    const { by, losses } = TASKS[task];
    const pictures = ["Losses", "Slopes"].map((what) => this.handle(by, `${what} by ${by}, as numbers in the table`));
    const parts = [html("div", { class: "controls" }, ...controls), html("div", { class: "plots" }, ...pictures)];
    return html("div", { id: task }, ...parts, this.table(losses));
  }

  table(losses) {
    const number = () => html("td", { class: "number" });
    const head = ["Value", "Slope"].map((text) => html("th", { scope: "col", class: "number" }, text));
    const rows = losses.map(({ id, name, formula }, i) => {
      const title = html("th", { scope: "row" }, swatch(i), html("b", {}, name), html("small", {}, formula));
      return html("tr", { id, "aria-atomic": "true" }, title, number(), number()); // a change reads out the row
    });
    const top = html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "Loss"), ...head));
    return html("table", {}, top, html("tbody", { "aria-live": "polite" }, ...rows));
  }

  update() {
    const values = this.values;
    for (const task of Object.keys(TASKS)) this.shadowRoot.getElementById(task).hidden = task !== values.task;
    const { by, x, view, losses } = TASKS[values.task];
    const { sign, side, loss, slope } = view(values);
    const curves = losses.map((one) => ({
      ...one,
      value: (v) => one.value(sign * v, values),
      slope: (v) => sign * one.slope(sign * v, values),
      jump: sign * one.jump,
    }));
    const [left, right] = this.shadowRoot.querySelectorAll(`#${values.task} .plot`);
    const tangents = curves.map(({ name, value, slope }) => ({ name, f: value, slope }));
    const slopes = curves.map(({ name, slope, jump }) => ({ name, f: slope, jump }));
    left.replaceChildren(...new Plot({ x, y: loss, side }).show("Loss", tangents, values[by]));
    right.replaceChildren(...new Plot({ x, y: slope, side }).show("Slope", slopes, values[by]));
    for (const { id, value, slope } of curves) this.tell(id, value(values[by]), slope(values[by]));
  }

  // The numbers of a row; its data attributes hold them unrounded.
  tell(id, ...numbers) {
    const row = this.shadowRoot.getElementById(id);
    [row.dataset.value, row.dataset.slope] = numbers;
    row.querySelectorAll("td").forEach((cell, i) => cell.replaceChildren(digits(numbers[i])));
  }
}

customElements.define("loss-explorer", LossExplorer);
