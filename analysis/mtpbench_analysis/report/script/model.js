// The page's data, and the reader's view of it, which the address's fragment holds.
const page = JSON.parse(document.getElementById("data").textContent);
const isText = new Set(page.texts);

function decodePoint(row) {
  const point = {};
  page.columns.forEach((name, i) => {
    point[name] = isText.has(name) && row[i] !== null ? page.words[row[i]] : row[i];
  });
  for (const name of page.unrecorded) point[name] = null;
  const ends = row[page.columns.length] || [], ids = Object.keys(page.ends);
  point.ends = Object.fromEntries(ids.map((id, i) => [id, [ends[2 * i] ?? null, ends[2 * i + 1] ?? null]]));
  point.reaches = ends.slice(2 * ids.length);
  point.x = point.interactivity_tps;
  point.y = point.tput_tps_per_gpu;
  return point;
}

const decoded = new Map();

/** Returns a comparison with its points as objects; it is decoded when it is first shown. */
function comparisonAt(index) {
  if (!decoded.has(index)) {
    const raw = page.comparisons[index];
    const curves = raw.curves.map((curve, number) => {
      const points = curve.points.map(decodePoint);
      points.forEach((point, i) => { point.traces = raw.traces[number][i]; });
      const front = curve.front.map((i) => points[i]);
      for (const knot of front) knot.onFront = true;
      const spline = makeSpline(front.map((k) => k.x), front.map((k) => k.y));
      return { ...curve, number, points, front, spline };
    });
    const invalid = raw.invalid.map((row, i) => ({ ...decodePoint(row), curve: raw.invalid_curves[i], traces: raw.invalid_traces[i] }));
    decoded.set(index, { ...raw, index, curves, invalid });
  }
  return decoded.get(index);
}

const SCALES = ["linear", "logy", "logxy"];
const state = {};

function defaultState(index) {
  const economics = page.comparisons[index].economics;
  return {
    c: index, targets: page.comparisons[index].targets.map(String), y: "tput:total", x: "interactivity",
    scale: "linear", front: false, labels: false, bands: true, hidden: [], method: "", tier: economics ? economics.tier : null,
    point: null,
  };
}

/** Returns the methods of speculation among a comparison's curves. */
const methodsOf = (comparison) => [...new Set(comparison.curves.flatMap((curve) => curve.methods))].filter((method) => method !== "off");

/** Returns whether a choice of a method shows a curve: the baseline and arms without speculation stay. */
const isOfMethod = (curve, view) => !view.method || curve.number === 0 || curve.methods.some((method) => ["off", view.method].includes(method));

/** The most targets of a link and of the table; a report with more targets keeps them all. */
const MOST_TARGETS = 12;
const mostTargets = (comparison) => Math.max(MOST_TARGETS, comparison.targets.length);

/** Returns the view of a fragment, with defaults for missing and wrong values; wrong ones are added to `complaints`. */
function readFragment(fragment, complaints = []) {
  const parameters = new URLSearchParams(fragment.replace(/^#/, ""));
  const runs = page.traces ? page.traces.points.length : 0, point = parameters.get("p");
  // A number that is no run of this page opens nothing.
  const run = /^\d+$/.test(point || "") && Number(point) < runs ? Number(point) : null;
  if (point && run === null) complaints.push(`point “${point}”`);
  if (!page.comparisons.length) return { point: run };
  const requested = parameters.get("c"), exists = /^\d{1,6}$/.test(requested || "") && Number(requested) < page.comparisons.length;
  const index = exists ? Number(requested) : page.opening;
  const view = defaultState(index);
  const comparison = comparisonAt(index);
  if (requested && !exists) complaints.push(`comparison “${requested}” (there ${page.comparisons.length === 1 ? "is one, 0" : `are ${page.comparisons.length}, from 0`})`);
  const take = (name, what, has) => {
    const value = parameters.get(name);
    if (!value) return;
    if (has(value)) view[name] = value; else complaints.push(`${what} “${value}”`);
  };
  if (parameters.get("t")) {
    const targets = parameters.get("t").split(",");
    view.targets = targets.slice(0, mostTargets(comparison));
    if (targets.length > view.targets.length) complaints.push(`more than ${view.targets.length} targets`);
  }
  take("tier", "price", (value) => comparison.economics && comparison.economics.tiers.includes(value));
  take("y", "vertical metric", (value) => metricsIn(comparison, "y").some((metric) => metric.key === value));
  take("x", "horizontal metric", (value) => metricsIn(comparison, "x").some((metric) => metric.key === value));
  take("scale", "scale", (value) => SCALES.includes(value));
  take("method", "method", (value) => methodsOf(comparison).includes(value));
  view.point = run;
  view.front = parameters.get("front") === "1";
  view.labels = parameters.get("labels") === "1";
  view.bands = parameters.get("bands") !== "0";
  view.hidden = (parameters.get("hide") || "").split(",").filter((text) => /^\d+$/.test(text)).map(Number)
    .filter((number) => number < comparison.curves.length);
  return view;
}

/** Returns the fragment of a view: its values that differ from the defaults. */
function writeFragment(view) {
  if (!page.comparisons.length) return view.point === null ? "" : `p=${view.point}`;
  const usual = defaultState(view.c), parameters = new URLSearchParams();
  if (view.c !== page.opening) parameters.set("c", view.c);
  if (view.targets.join() !== usual.targets.join()) parameters.set("t", view.targets.map((text) => text.replaceAll(",", " ")).join());
  for (const name of ["y", "x", "scale", "tier", "method"]) if (view[name] !== usual[name]) parameters.set(name, view[name]);
  if (view.front) parameters.set("front", "1");
  if (view.labels) parameters.set("labels", "1");
  if (!view.bands) parameters.set("bands", "0");
  if (view.hidden.length) parameters.set("hide", view.hidden.join());
  if (view.point !== null) parameters.set("p", view.point);
  return parameters.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
}

/** Returns a typed target as a number, or null. Only plain decimals count: `0x10` and `1e3` do not. */
function parseTarget(text) {
  const value = /^(\d+(\.\d*)?|\.\d+)$/.test(text.trim()) ? Number(text) : NaN;
  return Number.isFinite(value) && value > 0 ? value : null;
}

// ------------------------------------------------------------------------------------------- small helpers
/** Returns a new element; its children are text or elements, never markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function save(name, type, content) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = make("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

const FORMULA = "=+@\\-\uff0b\uff0d\uff1d\uff20";
const MARKED = new RegExp(`^'(?=[${FORMULA}'\\\\])`);
const ODD_CELL = new RegExp(`^[${FORMULA}\\s]|${MARKED.source}|\\n|\\s$`);

/** Returns the cell of a CSV for a text, as Python's to_cell does: no spreadsheet takes it for a formula. */
function toCell(text) {
  if (!ODD_CELL.test(text)) return text;
  const escape = (sign) => (sign === "\\" ? "\\\\" : `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const marked = `'${text.replace(/^\s|\s$|[\n\\]/g, escape)}`;
  return MARKED.test(marked) ? marked : `'\\&${marked.slice(1)}`;
}

function toCsv(lines) {
  const quote = (value) => {
    const plain = value === null || value === undefined ? "" : Array.isArray(value) ? value.join("; ") : value;
    const text = typeof plain === "string" ? toCell(plain) : String(plain);
    // An importer would read a line that begins with # as a comment.
    return /^#|[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return lines.map((line) => line.map(quote).join(",")).join("\n") + "\n";
}
