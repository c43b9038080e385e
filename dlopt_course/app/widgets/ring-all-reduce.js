// <ring-all-reduce workers numbers step>: the sum of every worker's vector, step by step, with the bytes of each.

const WORKERS = { min: 2, max: 6, step: 1, value: 4 };
const NUMBERS = { min: 1, max: 64, step: 1, value: 32 };
const STEP = { min: 0, max: 2 * (WORKERS.max - 1), step: 1, value: 0 };
const BYTES = 8; // of a float64
const range = (n) => Array.from({ length: n }, (_, i) => i);
const modulo = (a, n) => ((a % n) + n) % n;

// Consecutive, nearly equal parts [start, stop] of n numbers: the first n % parts are one longer.
const partition = (n, parts) => {
  const start = (i) => i * Math.floor(n / parts) + Math.min(i, n % parts);
  return range(parts).map((i) => [start(i), start(i + 1)]);
};

// The chunk that a worker sends in a step, counted from 1: first those that are not its own, the own one last, with
// what was added on the way; from step P on the sums go round.
const sends = (worker, step, workers) => modulo(worker - (step < workers ? step : step - workers), workers);

// held[r][c] are the workers whose numbers are in chunk c of worker r after so many steps.
const after = (steps, workers) => {
  let held = range(workers).map((r) => range(workers).map(() => [r]));
  for (let step = 1; step <= steps; step++) {
    const old = held;
    held = old.map((chunks) => [...chunks]);
    for (const r of range(workers)) {
      const [next, c] = [(r + 1) % workers, sends(r, step, workers)];
      held[next][c] = step < workers ? [...old[r][c], ...old[next][c]].sort() : old[r][c];
    }
  }
  return held;
};

// Numbers that a worker has sent after so many steps.
const sent = (worker, steps, numbers, workers) => {
  const sizes = partition(numbers, workers).map(([start, stop]) => stop - start);
  return range(steps).reduce((sum, i) => sum + sizes[sends(worker, i + 1, workers)], 0);
};

// Numbers that the busiest worker has sent after so many whole rounds. Naive and tree: each worker sends one vector up,
// then worker 0 sends one in every round.
const down = (rounds, up) => Math.max(Math.min(rounds, 1), Math.min(rounds, 2 * up) - up);
const BUSIEST = {
  ring: (rounds, numbers, workers) => Math.max(...range(workers).map((r) => sent(r, rounds, numbers, workers))),
  naive: (rounds, numbers, workers) => numbers * down(rounds, workers - 1),
  tree: (rounds, numbers, workers) => numbers * down(rounds, Math.ceil(Math.log2(workers))),
};

const NOTE = `Each row is a worker, each column a chunk of its vector of float64 numbers; a cell names the workers whose
numbers are added up in it, and is filled when it holds the sum of all. Arrows are the messages of the step: every worker
sends to the next one, the last to the first. The curves are the bytes that the busiest worker has sent: in the ring all
are equally busy; in the naive way worker 0 collects all vectors and sends the sum to each; in the tree the sum goes down
by pairs.`;

class RingAllReduce extends Figure {
  build() {
    const controls = [
      this.slider("workers", "Workers P", WORKERS),
      this.slider("numbers", "Numbers in the vector", NUMBERS),
      this.slider("step", "Step", STEP),
    ];
    const pictures = [
      this.picture("For each worker and chunk, the workers whose numbers are in it, and the messages of this step"),
      this.handle("step", "Bytes sent by the busiest worker, by the number of rounds, for three algorithms"),
    ];
    return [
      html("div", { class: "controls" }, ...controls, this.buttons()),
      html("p", { id: "outcome", "aria-live": "polite" }),
      html("div", { class: "plots" }, ...pictures),
      this.table(),
      html("p", {}, html("small", {}, NOTE)),
    ];
  }

  buttons() {
    const button = (name, by) => {
      const made = html("button", { type: "button" }, name);
      made.addEventListener("click", () => this.set("step", this.values.step + by));
      return made;
    };
    return html("div", { class: "notes" }, button("Back", -1), button("Next step", 1));
  }

  table() {
    const rows = range(WORKERS.max).map((worker) => {
      const head = html("th", { scope: "row" }, html("b", {}, `${worker}`));
      const cells = ["", "number"].map((name) => html("td", { class: name }));
      return html("tr", { id: `worker${worker}`, "aria-atomic": "true" }, head, ...cells);
    });
    const titles = { Worker: "", "Sends now": "", "Bytes so far": "number" };
    const head = Object.entries(titles).map(([text, name]) => html("th", { scope: "col", class: name }, text));
    const top = html("thead", {}, html("tr", {}, ...head));
    return html("table", { class: "plain" }, top, html("tbody", { "aria-live": "polite" }, ...rows));
  }

  update() {
    const slider = this.shadowRoot.querySelector("[name=step]");
    const last = 2 * (this.values.workers - 1);
    if (+slider.max !== last) {
      slider.max = last; // fewer workers, fewer steps: the browser moves the slider, its label has to be told
      slider.dispatchEvent(new Event("input"));
    }
    const { workers, numbers, step } = this.values;
    const [left, right] = this.shadowRoot.querySelectorAll(".plot");
    left.replaceChildren(...this.chunks(workers, step));
    right.replaceChildren(...this.bytes(workers, numbers, step));
    range(WORKERS.max).forEach((worker) => this.tell(worker));
    this.say(workers, step);
  }

  say(workers, step) {
    const what = step < workers ? "reduce-scatter: the receiver adds what comes" : "all-gather: the receiver keeps the sum";
    const begin = `Before the first of ${2 * (workers - 1)} steps, each worker has its own numbers only.`;
    const end = step === 2 * (workers - 1) ? " Every worker now holds the whole sum." : "";
    const words = step ? `Step ${step} of ${2 * (workers - 1)}, ${what}.${end}` : begin;
    const said = this.shadowRoot.querySelector("#outcome");
    if (said.textContent !== words) said.replaceChildren(words);
  }

  // A grid of workers and chunks after the step, with the messages that led there.
  chunks(workers, step) {
    const [left, top, width, height] = [34, 40, 274, 166];
    const [w, h] = [width / workers, height / workers];
    const held = after(step, workers);
    const cell = (r, c) => {
      const full = held[r][c].length === workers;
      const came = step && sends(modulo(r - 1, workers), step, workers) === c;
      const box = { x: left + c * w + 2, y: top + r * h + 5, width: w - 4, height: h - 10, rx: 3, "data-held": held[r][c] };
      const paint = { stroke: "currentColor", "stroke-width": came ? 2.5 : 1, fill: "currentColor" };
      const rect = svg("rect", { ...box, ...paint, "fill-opacity": full ? 0.3 : 0.04 });
      const name = svg("text", { x: left + (c + 0.5) * w, y: top + (r + 0.5) * h + 4, "text-anchor": "middle" });
      name.append(held[r][c].join(""));
      name.style.fontSize = "11px";
      return [svg("g", { class: came ? "accent c1" : full ? "accent c2" : "" }, rect), name];
    };
    const arrow = (r) => {
      const x = left + (sends(r, step, workers) + 0.5) * w;
      const down = (y) => svg("path", { class: "mark", d: `M${x} ${y - 6}v10m-3 -4l3 4l3 -4` });
      return [down(top + (r + 1) * h), ...(r === workers - 1 ? [down(top)] : [])];
    };
    const row = (r) => svg("text", { x: left - 6, y: top + (r + 0.5) * h + 4, "text-anchor": "end" }, `${r}`);
    const column = (c) => svg("text", { x: left + (c + 0.5) * w, y: 30, "text-anchor": "middle" }, `${c}`);
    const title = svg("text", { class: "title", x: left, y: 14 }, "Workers (down) and chunks (across)");
    const cells = range(workers).flatMap((r) => range(workers).flatMap((c) => cell(r, c)));
    const arrows = svg("g", { class: "accent c1" }, ...(step ? range(workers).flatMap(arrow) : []));
    return [title, ...range(workers).map(row), ...range(workers).map(column), ...cells, arrows];
  }

  // Bytes of the busiest worker by rounds.
  bytes(workers, numbers, step) {
    const vector = numbers * BYTES;
    const last = 2 * (workers - 1);
    const x = { title: "rounds", min: 0, max: last, ticks: range(last + 1).filter((v) => v % 2 === 0) };
    const most = Math.max(workers - 1, 2) * vector;
    const y = { min: 0, max: most, ticks: [0, vector, most].filter((v, i, all) => all.indexOf(v) === i) };
    const plot = new Plot({ x, y, side: "right" });
    const curve = (f) => {
      const whole = range(last + 2).map((rounds) => BYTES * f(rounds, numbers, workers));
      return (v) => whole[Math.floor(v)] + (v % 1) * (whole[Math.floor(v) + 1] - whole[Math.floor(v)]);
    };
    const curves = Object.entries(BUSIEST).map(([name, f]) => ({ name, f: curve(f) }));
    return plot.show("Bytes sent by the busiest worker", curves, step);
  }

  // What a worker sends in this step, and its bytes up to now; the data attributes hold the numbers alone.
  tell(worker) {
    const { workers, numbers, step } = this.values;
    const row = this.shadowRoot.getElementById(`worker${worker}`);
    row.hidden = worker >= workers;
    const [chunk, target] = [sends(worker, step, workers), (worker + 1) % workers];
    const [start, stop] = partition(numbers, workers)[chunk];
    const total = sent(worker, step, numbers, workers) * BYTES;
    Object.assign(row.dataset, { target, start, stop, total });
    const now = step ? `chunk ${chunk} to ${target}: ${BYTES * (stop - start)} bytes` : "nothing yet";
    [now, total].forEach((text, i) => row.querySelectorAll("td")[i].replaceChildren(text));
  }
}

customElements.define("ring-all-reduce", RingAllReduce);
