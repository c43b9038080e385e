// <augmentation-explorer rotation shift_x shift_y zoom shear flip rule border order x y>: move an image and its matrix.

const [W, H] = [24, 16]; // pixels of the image
const DEGREES = { min: -180, max: 180, step: 1, value: 25 };
const SHIFT = { min: -12, max: 12, step: 0.25, value: 0 };
const ZOOM = { min: 0.5, max: 2, step: 0.05, value: 1 };
const SHEAR = { min: -45, max: 45, step: 1, value: 0 };
const AT_REST = { rotation: 0, shift_x: 0, shift_y: 0, zoom: 1, shear: 0, flip: "none" };

// The image: gradients, a letter that no turn and no flip leaves as it is, and one red pixel.
const LETTER = [[7, 3, 9, 13], [9, 3, 16, 5], [9, 7, 14, 9]]; // rectangles, as left, top and what is just beyond them
const RED = [17, 12];
const colour = (x, y) => {
  if (x === RED[0] && y === RED[1]) return [255, 40, 40];
  const isInk = LETTER.some(([left, top, right, bottom]) => x >= left && x < right && y >= top && y < bottom);
  if (isInk) return [255, 240, 170];
  return [30 + 5 * x, 60 + 6 * y, 150 - 3 * x + 4 * y];
};
const IMAGE = Array.from({ length: H }, (_, y) => Array.from({ length: W }, (_, x) => colour(x, y)));

const product = (a, b) => a.map((row) => b[0].map((_, j) => row.reduce((sum, v, k) => sum + v * b[k][j], 0)));
const move = (x, y) => [[1, 0, x], [0, 1, y], [0, 0, 1]];
// A half turn, rounded to 1e-9, puts pixels on pixels.
const transform = (m, x, y) => product(m.slice(0, 2), [[x], [y], [1]]).map(([v]) => Math.round(v * 1e9) / 1e9);

// What is done about the shift and the centre.
const RULES = {
  ours: {
    centre: [(W - 1) / 2, (H - 1) / 2],
    shift: (x, y) => [x, y],
    says: "The content is flipped, zoomed, sheared and turned about the centre (11.5, 7.5), then shifted.",
  },
  "Keras’s shift": {
    centre: [(W - 1) / 2, (H - 1) / 2],
    shift: (x, y) => [-y, -x],
    says: "Keras hands the width’s shift to the rows and the height’s to the columns, both with the other sign.",
  },
  "centre n/2": {
    centre: [W / 2, H / 2],
    shift: (x, y) => [x, y],
    says: "The centre is taken for (12, 8), half a pixel off: a half turn puts every pixel one to the right and down.",
  },
};

// From output to input: F Z^-1 Sh^-1 R^-1 about the centre, after the shift has been taken back.
const matrixOf = ({ rotation, shift_x: dx, shift_y: dy, zoom, shear, flip, rule }) => {
  const { centre: [cx, cy], shift } = RULES[rule];
  const [turn, lean] = [rotation, shear].map((angle) => (angle * Math.PI) / 180);
  const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
  const [sx, sy] = shift(dx, dy);
  return [
    flip === "horizontal" ? [[-1, 0, W - 1], [0, 1, 0], [0, 0, 1]] : move(0, 0),
    flip === "vertical" ? [[1, 0, 0], [0, -1, H - 1], [0, 0, 1]] : move(0, 0),
    move(cx, cy),
    [[1 / zoom, 0, 0], [0, 1 / zoom, 0], [0, 0, 1]],
    [[1, Math.tan(lean), 0], [0, 1, 0], [0, 0, 1]],
    [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]],
    move(-cx - sx, -cy - sy),
  ].reduce(product);
};

// Which pixel of a line of n stands at the place i, inside or outside; undefined where there is none.
const modulo = (i, n) => ((i % n) + n) % n;
const BORDERS = {
  nearest: (i, n) => Math.max(0, Math.min(i, n - 1)),
  reflect: (i, n) => (modulo(i, 2 * n) < n ? modulo(i, 2 * n) : 2 * n - 1 - modulo(i, 2 * n)),
  "grid-wrap": modulo,
  constant: (i, n) => (i === modulo(i, n) ? i : undefined),
};
const BLACK = [0, 0, 0];

const pixel = (x, y, border) => IMAGE[BORDERS[border](y, H)]?.[BORDERS[border](x, W)] ?? BLACK;

const isInside = ([x, y]) => x >= 0 && x <= W - 1 && y >= 0 && y <= H - 1;

// The pixels that a place between pixels is read from, as [x, y, share].
const taps = ([x, y], order) => {
  if (order === "0") return [[Math.floor(x + 0.5), Math.floor(y + 0.5), 1]];
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [along, down] = [[1 - (x - left), x - left], [1 - (y - top), y - top]];
  return [0, 1].flatMap((j) => [0, 1].map((i) => [left + i, top + j, along[i] * down[j]]));
};

// The colour at a place; "constant" ends at the centres of the outermost pixels, as SciPy's.
const sample = (place, { border, order }) => {
  if (border === "constant" && !isInside(place)) return BLACK;
  const parts = taps(place, order).map(([i, j, share]) => pixel(i, j, border).map((v) => v * share));
  return [0, 1, 2].map((c) => parts.reduce((sum, part) => sum + part[c], 0));
};

// A picture of pixels with marks upon it, which shows `width` x `height` of them from (left, top) on.
class Screen {
  constructor(name, description, { left, top, width, height }) {
    Object.assign(this, { left, top, width, height });
    this.canvas = html("canvas", { width, height, "aria-hidden": "true" });
    const viewBox = `${left - 0.5} ${top - 0.5} ${width} ${height}`; // a pixel's centre is at whole numbers
    this.marks = svg("svg", { viewBox, role: "img", "aria-label": description });
    this.element = html("div", {}, html("b", {}, name), html("div", { class: "screen" }, this.canvas, this.marks));
  }

  // at(x, y) -> [r, g, b, opacity], the last from 0 to 1.
  draw(at, ...marks) {
    const pen = this.canvas.getContext("2d");
    const pixels = pen.createImageData(this.width, this.height);
    for (let i = 0; i < this.width * this.height; i++) {
      const [r, g, b, opacity] = at(this.left + (i % this.width), this.top + Math.floor(i / this.width));
      pixels.data.set([r, g, b, 255 * opacity].map(Math.round), 4 * i);
    }
    pen.putImageData(pixels, 0, 0);
    this.marks.replaceChildren(...marks.flatMap((mark) => [mark("under"), mark("over")]));
  }
}

// Marks: twice, dark and broad under light and fine, so that they stand out from any pixel.
const outline = (points) => (layer) => svg("path", { class: layer, d: `M${points.join("L")}Z` });
const square = (x, y) => outline([[x - 0.5, y - 0.5], [x + 0.5, y - 0.5], [x + 0.5, y + 0.5], [x - 0.5, y + 0.5]]);
const dot = (cx, cy) => (layer) => svg("circle", { class: layer, cx, cy, r: 0.3 });

const FRAME = [[-0.5, -0.5], [W - 0.5, -0.5], [W - 0.5, H - 0.5], [-0.5, H - 0.5]];
const OUTPUT = { left: 0, top: 0, width: W, height: H };
const INPUT = { left: -W / 2, top: -H / 2, width: 2 * W, height: 2 * H };
const ROWS = ["x′", "y′", "1"]; // of the product: input position = matrix · output pixel

const point = (...xy) => `(${xy.map((v) => signed(+v.toFixed(2) || 0)).join(", ")})`;

// Where the marked pixel's colour is from, in words.
const source = (place, { x, y, border, order }) => {
  const from = `Output pixel ${point(x, y)} is taken from input position ${point(...place)}`;
  if (border === "constant" && !isInside(place)) return `${from}, which is outside: it is black.`;
  const near = order === "0" ? "the nearest pixel" : "the pixels around it";
  if (isInside(place)) return `${from}: from ${near}.`;
  const [i, j] = taps(place, "0")[0];
  const copied = point(BORDERS[border](i, W), BORDERS[border](j, H));
  return `${from}, which is outside: “${border}” puts a copy of the pixel ${copied} there.`;
};

// Settings that show what is wrong with a rule.
const PRESETS = {
  "Keras’s shift": { ...AT_REST, shift_x: 5, rule: "Keras’s shift" },
  "Centre off by half": { ...AT_REST, rotation: 180, rule: "centre n/2" },
  "At rest": { ...AT_REST, rule: "ours" },
};

const NOTE = `Points are (x, y), column and row; (0, 0) is the centre of the top left pixel, and y points down. Angles
are counter-clockwise as seen; shifts are to the right and down. The matrix goes backwards: it says from where in the input
an output pixel is taken. On the right, the frame is what the output looks at, the dot in its corner is the output’s top
left, and around the image is the border. Order 1 mixes four pixels, order 0 takes the nearest one. Point at a pixel of
the output, or move its sliders.`;

class AugmentationExplorer extends Figure {
  build() {
    const seen = "The input image in its border, what the output looks at, and where the marked pixel is from";
    this.output = new Screen("Output", "The output image with a marked pixel", OUTPUT);
    this.input = new Screen("Input", seen, INPUT);
    this.follow(this.output.marks);
    const controls = (...all) => html("div", { class: "controls" }, ...all);
    return [
      controls(...this.sliders()),
      controls(...this.choices()),
      this.presets(),
      html("p", { id: "rule", "aria-live": "polite" }),
      html("div", { class: "plots" }, this.output.element, this.input.element),
      controls(
        this.slider("x", "Output pixel x", { min: 0, max: W - 1, step: 1, value: 16 }),
        this.slider("y", "Output pixel y", { min: 0, max: H - 1, step: 1, value: 4 }),
      ),
      html("p", { id: "source" }),
      this.table(),
      html("p", {}, html("small", {}, NOTE)),
    ];
  }

  sliders() {
    return [
      this.slider("rotation", "Rotation (°)", DEGREES),
      this.slider("shift_x", "Shift to the right", SHIFT),
      this.slider("shift_y", "Shift down", SHIFT),
      this.slider("zoom", "Zoom", ZOOM),
      this.slider("shear", "Shear (°)", SHEAR),
    ];
  }

  choices() {
    return [
      this.choice("flip", "Flip", ["none", "horizontal", "vertical"]),
      this.choice("order", "Order", ["1", "0"]),
      this.choice("border", "Border", Object.keys(BORDERS)),
      this.choice("rule", "Rule", Object.keys(RULES)),
    ];
  }

  presets() {
    const buttons = Object.entries(PRESETS).map(([title, settings]) => {
      const button = html("button", { type: "button" }, title);
      button.addEventListener("click", () => this.go(settings));
      return button;
    });
    return html("div", { class: "notes" }, ...buttons);
  }

  go({ flip, rule, ...numbers }) {
    for (const value of [flip, rule]) this.shadowRoot.querySelector(`[value="${value}"]`).checked = true;
    for (const [name, value] of Object.entries(numbers)) this.set(name, value);
  }

  // The pixel under the pointer, or under the finger, is marked.
  follow(picture) {
    const mark = (event) => {
      const { left, top, width, height } = picture.getBoundingClientRect();
      this.set("x", Math.floor(((event.clientX - left) / width) * W));
      this.set("y", Math.floor(((event.clientY - top) / height) * H));
    };
    picture.classList.add("handle");
    for (const type of ["pointerdown", "pointermove"]) picture.addEventListener(type, mark);
  }

  table() {
    const rows = ROWS.map((name, i) => {
      const cells = ["number", "entry", "entry", "entry", "number short"].map((kind) => html("td", { class: kind }));
      return html("tr", { id: `row${i + 1}`, "aria-atomic": "true" }, html("th", { scope: "row" }, name), ...cells);
    });
    const head = { "Input =": "number", "Matrix ·": "entry", Output: "number short" };
    const titles = Object.entries(head).map(([text, name]) =>
      html("th", { scope: "colgroup", class: name, colspan: name === "entry" ? 3 : 1 }, text));
    const top = html("thead", {}, html("tr", {}, html("td", { class: "name" }), ...titles));
    return html("table", { class: "product" }, top, html("tbody", { "aria-live": "polite" }, ...rows));
  }

  update() {
    const values = this.values;
    const [matrix, { x, y }] = [matrixOf(values), values];
    const from = transform(matrix, x, y);
    const looked = FRAME.map(([i, j]) => transform(matrix, i, j));
    const read = taps(from, values.order).map(([i, j]) => square(i, j));
    const opacity = (i, j) => (i === modulo(i, W) && j === modulo(j, H) ? 1 : 0.4);
    this.output.draw((i, j) => [...sample(transform(matrix, i, j), values), 1], square(x, y));
    this.input.draw(
      (i, j) => [...pixel(i, j, values.border), opacity(i, j)],
      outline(looked), dot(...transform(matrix, 0, 0)), ...read, dot(...from),
    );
    ROWS.forEach((_, i) => this.tell(i, [[...from, 1][i], ...matrix[i], [x, y, 1][i]]));
    for (const [id, text] of [["rule", RULES[values.rule].says], ["source", source(from, values)]]) this.say(id, text);
  }

  // A text, which is read out only when it changes.
  say(id, words) {
    const place = this.shadowRoot.getElementById(id);
    if (place.textContent !== words) place.replaceChildren(words);
  }

  // The numbers of a row; its data attributes hold them unrounded.
  tell(i, numbers) {
    const row = this.shadowRoot.getElementById(`row${i + 1}`);
    row.dataset.numbers = numbers.join(" ");
    const text = (v, j) => (i === 2 || j === 4 ? `${v}` : fixed(v)); // the last row and the pixel are whole numbers
    row.querySelectorAll("td").forEach((cell, j) => cell.replaceChildren(text(numbers[j], j)));
  }
}

customElements.define("augmentation-explorer", AugmentationExplorer);
