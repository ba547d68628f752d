// The controls of the page, and their effects: chart, table, sentences, address.
const sections = [...document.querySelectorAll("section[data-index]")];
let parts = {};
let shownComparison = null;

function labelled(text, control) {
  return make("label", {}, make("span", {}, text), control);
}

function dropdown(name, options, value, change) {
  const select = make("select", { name });
  for (const [id, text] of options) select.append(make("option", { value: id, selected: id === value }, text));
  select.value = value;
  select.addEventListener("change", () => change(select.value));
  return select;
}

function checkbox(name, checked, change) {
  const box = make("input", { type: "checkbox", name });
  box.checked = checked;
  box.addEventListener("change", () => change(box.checked));
  return box;
}

function button(text, action, attributes = {}) {
  const element = make("button", { type: "button", ...attributes }, text);
  element.addEventListener("click", action);
  return element;
}

// ------------------------------------------------------------------------------------ several comparisons
const FACETS = { hardware: "hardware", model: "model", precision: "precision", sequence: "ISL/OSL", engine: "engine", serving: "serving" };
const facets = {};

function buildPicker() {
  const picker = document.getElementById("picker");
  if (page.comparisons.length < 2) return;
  picker.hidden = false;
  const text = (value) => (value === null ? "not recorded" : String(value));
  const matches = () => page.comparisons.map((_, i) => i).filter((i) =>
    Object.entries(facets).every(([name, value]) => value === "" || text(page.comparisons[i].facets[name]) === value));
  const render = () => {
    const rows = [];
    for (const [name, title] of Object.entries(FACETS)) {
      const values = [...new Set(page.comparisons.map((comparison) => text(comparison.facets[name])))];
      if (values.length < 2) continue;
      const options = [["", "all"], ...values.map((value) => [value, value])];
      rows.push(labelled(title, dropdown(name, options, facets[name] || "", (value) => {
        facets[name] = value;
        const matching = matches();
        if (matching.length && !matching.includes(state.c)) switchTo(matching[0]);
        render();
        picker.querySelector(`[name="${name}"]`).focus();
      })));
    }
    const matching = matches();
    const options = matching.map((i) => [String(i), `${i + 1}. ${page.comparisons[i].title}`]);
    if (!matching.includes(state.c)) options.unshift([String(state.c), matching.length ? page.comparisons[state.c].title : "none fits all of these"]);
    const wide = labelled(`comparison (${matching.length} of ${page.comparisons.length})`,
      dropdown("comparison", options, String(state.c), (value) => { switchTo(Number(value)); }));
    wide.className = "wide";
    picker.replaceChildren(...rows, wide);
  };
  parts.renderPicker = render;
  render();
}

// ------------------------------------------------------------------------------------- names of saved files
const slug = (text, most) => text.toLowerCase().replace(/[^\p{L}\p{N}._]+/gu, "-").slice(0, most).replace(/^[-.]+|[-.]+$/g, "");

/** Returns a file name: the report's title and the comparison, with its number on a page with several. */
function fileName(comparison, ending) {
  const number = page.comparisons.length > 1 ? `${comparison.index}-` : "";
  return `${slug(page.title, 60) || "mtpbench"}.${number}${slug(comparison.title, 80)}.${ending}`;
}

// ------------------------------------------------------------------------------------- faults of a link
function showComplaints(complaints) {
  const note = document.getElementById("note");
  if (!complaints.length) {
    note.replaceChildren();
    return;
  }
  note.replaceChildren(make("p", {}, `The link asks for what this page does not have: ${complaints.join("; ")}. Instead of it the usual is shown. `,
    button("dismiss", () => note.replaceChildren(), { name: "dismiss-note" })));
}

function readAddress() {
  const complaints = [];
  Object.assign(state, readFragment(location.hash, complaints));
  showComplaints(complaints);
}

// ---------------------------------------------------------------------------------- overview of all comparisons
const overviewLinks = [...document.querySelectorAll(".overview a")];
overviewLinks.forEach((link, index) => link.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  switchTo(index);
  const heading = sections[index].querySelector("h2");
  heading.setAttribute("tabindex", "-1");
  heading.focus();
  heading.scrollIntoView();
}));

// -------------------------------------------------------------------------- row headers that stay while scrolling
/** The second column sticks at the end of the first, whose width only the browser knows. */
const firstColumns = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const table = target.closest("table"), second = target.nextElementSibling;
    const first = Math.floor(target.getBoundingClientRect().width);
    const both = first + (second && second.classList.contains("word") ? second.getBoundingClientRect().width : 0);
    table.style.setProperty("--first", `${first}px`);
    table.parentElement.style.setProperty("--both", `${Math.ceil(both)}px`);
  }
});

function holdColumns(root) {
  for (const head of root.querySelectorAll(".scroll thead tr > :first-child")) firstColumns.observe(head);
}

function switchTo(index) {
  const usual = defaultState(index), comparison = comparisonAt(index);
  const keep = { y: state.y, x: state.x, scale: state.scale, front: state.front, labels: state.labels, bands: state.bands };
  Object.assign(state, usual, keep);
  for (const axis of ["y", "x"]) if (!metricsIn(comparison, axis).some((metric) => metric.key === state[axis])) state[axis] = usual[axis];
  show();
}

// --------------------------------------------------------------------------------------------- the address
function writeAddress() {
  const fragment = writeFragment(state);
  if (fragment === location.hash.slice(1)) return;
  // The address is replaced, not assigned: typing must not fill the history. A sandboxed frame may refuse it.
  try { history.replaceState(null, "", fragment ? `#${fragment}` : location.pathname + location.search); } catch { location.hash = fragment; }
}

// --------------------------------------------------------------------------------------------------- parts
function show() {
  const index = state.c, comparison = comparisonAt(index);
  sections.forEach((section, i) => { section.hidden = i !== index; });
  const section = sections[index], live = section.querySelector(".live");
  for (const other of document.querySelectorAll(".live")) if (other !== live) other.replaceChildren();
  section.querySelectorAll(".static").forEach((element) => { element.hidden = true; });
  shownComparison = comparison;
  const renderPicker = parts.renderPicker;
  parts = { renderPicker, later: [] };
  live.replaceChildren(buildControls(comparison), buildChart(comparison), buildCloser(comparison), buildTable(comparison), buildSweep(comparison));
  if (renderPicker) renderPicker();
  update();
  renderCloser();
  for (const open of parts.later) open();
  overviewLinks.forEach((link, i) => (i === index ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
  holdColumns(section);
}

/** Shows a page without a comparison: the panel of its runs. */
function showAlone() {
  const live = document.getElementById("alone");
  parts = { points: [], later: [] };
  if (live) live.replaceChildren(buildCloser(null));
  renderCloser();
}

function buildControls(comparison) {
  const set = (name) => (value) => { state[name] = value; update(); };
  const bar = make("div", { class: "bar", role: "group", "aria-label": "What the chart shows" });
  for (const [axis, title] of [["y", "vertical"], ["x", "horizontal"]]) {
    bar.append(labelled(title, dropdown(axis, metricsIn(comparison, axis).map(({ key, label }) => [key, label]), state[axis], set(axis))));
  }
  bar.append(labelled("scale", dropdown("scale", [["linear", "linear"], ["logy", "log, vertical"], ["logxy", "log, both"]],
    state.scale, set("scale"))));
  const tiers = comparison.economics ? comparison.economics.tiers : [];
  if (tiers.length > 1) bar.append(labelled("price", dropdown("tier", tiers.map((name) => [name, name]), state.tier, set("tier"))));
  const methods = methodsOf(comparison);
  if (methods.length > 1) {
    const options = [["", "all"], ...methods.map((method) => [method, page.methods[method] || method])];
    bar.append(labelled("speculation", dropdown("method", options, state.method, set("method"))));
  }
  const boxes = make("div", { class: "boxes" });
  const box = (name, text) => boxes.append(make("label", { class: "tick" }, checkbox(name, state[name], set(name)), text));
  box("front", "only the front");
  box("labels", "labels");
  if (comparison.curves.some((curve) => curve.band)) box("bands", "confidence bands");
  bar.append(boxes);
  return bar;
}

function buildChart(comparison) {
  const svg = draw("svg", { class: "chart", role: "group", "aria-label": `Chart: ${comparison.title}. Arrow keys walk through the `
    + `points${page.traces ? ", Enter looks closer at one" : ""}. The same figures stand in the table All points.` });
  const holder = make("div", { class: "holder" }, svg);
  const card = make("div", { class: "card", hidden: true });
  holder.append(card);
  parts.legendOf = new Map();
  const legend = make("div", { class: "legend", role: "group", "aria-label": "Arms to show" });
  for (const curve of comparison.curves) {
    const box = checkbox(`arm-${curve.number}`, !state.hidden.includes(curve.number), (checked) => {
      state.hidden = checked ? state.hidden.filter((number) => number !== curve.number) : [...state.hidden, curve.number].sort();
      update();
    });
    const icon = draw("svg", { viewBox: "-14 -7 28 14", width: 28, height: 14, "aria-hidden": "true" });
    icon.append(draw("path", { class: `curve c${toneOf(curve)}`, d: "M-14,0H14" }));
    const mark = draw("g", { class: `point c${toneOf(curve)}` });
    mark.append(draw("path", { class: "shape", d: shapeOf(curve) }));
    icon.append(mark);
    const entry = make("label", { class: "tick" }, box, icon, curve.name);
    parts.legendOf.set(curve, entry);
    legend.append(entry);
  }
  const note = make("p", { class: "dim", "aria-live": "polite" });
  const fact = make("p", { class: "spoken", "aria-live": "polite" });
  const name = (ending) => fileName(comparison, ending);
  const tools = make("div", { class: "tools" },
    button("chart as SVG", () => save(name("svg"), "image/svg+xml", chartAsSvg(comparison, state)), { name: "save-svg" }),
    button("chart as PNG", async () => save(name("png"), "image/png", await chartAsPng(comparison, state)), { name: "save-png" }),
    button("table as CSV", () => save(name("table.csv"), "text/csv", tableCsv(comparison, state, readTargets(comparison, state))), { name: "save-table" }),
    button("points as CSV", () => save(name("points.csv"), "text/csv", pointsCsv(comparison)), { name: "save-points" }));
  Object.assign(parts, { svg, holder, card, note, fact, legend });
  svg.addEventListener("keydown", moveFocus);
  svg.addEventListener("pointerleave", () => { if (!svg.contains(document.activeElement)) hideCard(); });
  card.addEventListener("pointerleave", () => { if (!svg.contains(document.activeElement)) hideCard(); });
  return make("figure", {}, legend, holder, note, fact, tools);
}

// --------------------------------------------------------------------------------------------------- table
function buildTable(comparison) {
  const marked = comparison.mark ? ` (${comparison.mark})` : "";
  const makeHead = () => make("tr", {}, make("th", { class: "word", scope: "col" }, "tok/s/user"), make("th", { class: "word" }, ""));
  const head = makeHead(), body = make("tbody"), moreHead = makeHead(), moreBody = make("tbody");
  const caption = make("p", { class: "dim" });
  const notes = make("ul", { class: "notes", "aria-live": "polite" });
  const sentences = make("ul", { class: "sentences" });
  const full = make("span", { class: "dim", role: "status" });
  const add = button("add a target", () => {
    if (state.targets.length >= mostTargets(comparison)) return;
    const last = [...state.targets].reverse().map(parseTarget).find((value) => value !== null) || 10;
    state.targets.push(showTarget(Math.round(last * 1.25 * 10) / 10));
    renderHead(comparison);
    update();
    head.querySelector("th:last-child input").focus();
  }, { name: "add-target" });
  const reset = button("the report's own targets", () => {
    state.targets = comparison.targets.map(String);
    renderHead(comparison);
    update();
  }, { name: "reset-targets" });
  const tools = make("div", { class: "tools" }, add, reset, full);
  Object.assign(parts, { add, full, head, body, moreHead, moreBody, caption, notes, sentences });
  renderHead(comparison);
  const more = make("details", {}, make("summary", {}, "Every metric at equal interactivity" + marked),
    make("div", { class: "scroll" }, make("table", { class: "more" }, make("thead", {}, moreHead), moreBody)),
    make("p", { class: "dim" }, "Rates are over all GPUs of the deployment. A cost per output (input) token puts the whole cost on the "
      + "output (input) tokens. Latency, acceptance and metered energy are those of the two knots: they belong to recipes."));
  return make("div", {}, make("h3", {}, "At equal interactivity" + marked),
    make("p", { class: "dim screen" }, "The targets can be edited: everything below them follows as you type."),
    make("div", { class: "scroll" }, make("table", { class: "matched" }, make("thead", {}, head), body)),
    tools, notes, caption, make("h3", {}, "In words"), sentences, more);
}

function renderHead(comparison) {
  while (parts.head.children.length > 2) parts.head.lastChild.remove();
  state.targets.forEach((text, i) => {
    const input = make("input", { type: "text", inputmode: "decimal", size: 6, value: text, "aria-label": `target interactivity ${i + 1}, tok/s/user`, name: `target-${i}` });
    input.addEventListener("input", () => { state.targets[i] = input.value.trim(); update(); });
    const cell = make("th", { scope: "col" }, input);
    if (state.targets.length > 1) {
      cell.append(button("×", () => {
        state.targets.splice(i, 1);
        renderHead(comparison);
        update();
      }, { class: "remove", "aria-label": `remove target ${i + 1}` }));
    }
    parts.head.append(cell);
  });
}

// -------------------------------------------------------------------------------------------------- update
/** Renders everything that depends on the view, after a change of it. */
function update() {
  const comparison = shownComparison, read = readTargets(comparison, state);
  const rows = tableRows(comparison, state, read);
  fillBody(parts.body, rows.filter((row) => !row.more));
  fillBody(parts.moreBody, rows.filter((row) => row.more));
  while (parts.moreHead.children.length > 2) parts.moreHead.lastChild.remove();
  read.forEach((entry, i) => {
    parts.moreHead.append(make("th", { scope: "col" }, entry.target === null ? MISSING : showTarget(entry.target)));
    const input = parts.head.children[i + 2].querySelector("input");
    if (entry.target === null) input.setAttribute("aria-invalid", "true"); else input.removeAttribute("aria-invalid");
  });
  // Not `disabled`: the keyboard would lose its focus.
  const isFull = state.targets.length >= mostTargets(comparison);
  parts.add.setAttribute("aria-disabled", String(isFull));
  parts.full.textContent = isFull ? `A link keeps ${mostTargets(comparison)} targets, so there is no room for more.` : "";
  parts.caption.textContent = captionOf(comparison, state, read);
  parts.notes.replaceChildren(...explainTargets(comparison, read).map((text) => make("li", {}, text)));
  parts.sentences.replaceChildren(...sentencesOf(comparison, read).map((text) => make("li", {}, text)));
  redraw();
  writeAddress();
}

function sentencesOf(comparison, read) {
  const base = comparison.curves[0], cost = costAt(comparison, state.tier);
  const others = comparison.curves.slice(1).filter((curve) => isOfMethod(curve, state));
  const sentences = read.filter((entry) => entry.cells).flatMap(({ cells, ratios }) => inWords(others, cells).map((other) =>
    sentenceOf(other, cells[other.number], base, cells[0], ratios[other.number - 1], comparison.kind, cost)));
  return [...noteWords(others), ...sentences, ...comparison.crossings];
}

function redraw() {
  for (const [curve, entry] of parts.legendOf) entry.hidden = !isOfMethod(curve, state);
  const width = Math.max(280, Math.floor(parts.holder.clientWidth || 880));
  const { content, points } = drawChart(parts.svg, shownComparison, state, width);
  parts.points = points;
  parts.drawnWidth = width;
  parts.card.hidden = true;
  points.forEach(listenToPoint);
  if (points.length) points[0].element.setAttribute("tabindex", "0");
  const marks = ["Filled points are on the front, hollow ones below it"];
  if (content.invalid.length) marks.push("crosses, in their arm's colour, are invalid points, which enter no curve");
  if (content.bySpeed) marks.push("dashed verticals are the targets");
  const texts = [`${marks.join("; ")}.`];
  texts.push(parts.closer ? "A click, or Enter, looks closer at a point." : "A click, or Enter, shows the whole recipe of a point.");
  if (content.series.some((series) => series.pieces.some((piece) => piece.wide))) {
    texts.push(`Dashed curve: between knots more than ${significant(shownComparison.max_gap, 6)}× apart in throughput, hardly known.`);
  }
  if (content.series.some((series) => series.guide.length > 1)) {
    texts.push("Dotted lines only lead the eye along the front's points: this metric belongs to recipes and means nothing between them.");
  }
  if (content.series.some((series) => series.band.length)) texts.push(`Bands: ${percent(shownComparison.confidence).replace(".0%", "%")}: the noise of runs where it is known, server starts, and the shape between points.`);
  if (content.crossed.length) texts.push("Rings: both serve the same.");
  if (content.gain) texts.push("A point is a knot of the arm over the baseline's curve, within the range that both fronts span.");
  else if (content.missing.length) texts.push(`Not shown, as it was not recorded: ${content.missing.join(", ")}.`);
  parts.note.textContent = texts.join(" ");
}

// --------------------------------------------------------------------------------------------------- start
const showAll = page.comparisons.length ? show : showAlone;
readAddress();
document.documentElement.classList.add("scripted");
if (page.comparisons.length) buildPicker();
showAll();
holdColumns(document);
addEventListener("hashchange", () => {
  if (location.hash.slice(1) === writeFragment(state)) return;
  readAddress();
  showAll();
});
addEventListener("resize", () => { if (shownComparison && Math.floor(parts.holder.clientWidth) !== parts.drawnWidth) redraw(); });
