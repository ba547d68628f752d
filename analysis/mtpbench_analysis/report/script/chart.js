// The chart as SVG. Colours come from CSS classes, so that light, dark and paper need no new drawing.
const SVG = document.querySelector("svg").namespaceURI;
const SHAPES = page.shapes;
/** Returns the number of a curve's colour and mark. */
const toneOf = (curve) => curve.number % SHAPES.length;
/** Returns the path of a curve's mark; where colours repeat, it is another one. */
const shapeOf = (curve) => SHAPES[(curve.number + Math.floor(curve.number / SHAPES.length)) % SHAPES.length];
const STEPS = 20;

function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const drawText = (x, y, text, attributes = {}) => draw("text", { x, y, ...attributes }, text);
const roundPixels = (value) => Math.round(value * 100) / 100;

/** Returns an axis: round ticks from 0 to the first that is not below the highest value, or 1, 2, 5 × 10ⁿ (log). */
function makeScale(values, from, to, log) {
  if (log) {
    const low = Math.min(...values), high = Math.max(...values), ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const factor of [1, 2, 5]) ticks.push(Number(`${factor}e${power}`));
    }
    const bottom = ticks.filter((tick) => tick <= low).pop() ?? low;
    const top = ticks.find((tick) => tick >= high && tick > bottom) ?? high;
    const span = Math.log(top / bottom);
    let visible = ticks.filter((tick) => tick >= bottom && tick <= top);
    if (visible.length > 12) visible = visible.filter((tick) => /^(0\.0*)?10*$/.test(String(tick)));
    return { ticks: visible, at: (value) => roundPixels(from + Math.log(value / bottom) / span * (to - from)) };
  }
  const high = Math.max(...values) || 1, rough = high / Math.max(3, Math.min(7, Math.abs(to - from) / 60));
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * magnitude).find((candidate) => candidate >= rough * (1 - 1e-9));
  const count = Math.ceil(high / step - 1e-9);
  const ticks = Array.from({ length: count + 1 }, (_, i) => Number((i * step).toPrecision(12)));
  return { ticks, at: (value) => roundPixels(from + value / (count * step) * (to - from)) };
}

function tickText(value, dollar) {
  const text = value >= 1e6 ? `${significant(value / 1e6, 6)}M` : value >= 1000 ? fixed(value, 0) : significant(value, 6);
  return dollar ? `$${text}` : text;
}

/** Returns a curve's pieces between its knots: [[x, y], …], `wide` where the knots lie too far apart to be sure. */
function curvePieces(curve, metric, comparison) {
  const pieces = [];
  for (let i = 0; i + 1 < curve.front.length; i++) {
    const [lower, upper] = [curve.front[i], curve.front[i + 1]], points = [];
    for (let step = 0; step <= STEPS; step++) {
      const x = step === STEPS ? upper.x : lower.x + (upper.x - lower.x) * step / STEPS;
      const value = atCell(metric, readCell(curve, x, comparison.max_gap));
      if (isKnown(value)) points.push([x, value]);
    }
    pieces.push({ points, wide: lower.y / upper.y > comparison.max_gap });
  }
  return pieces;
}

function gainPieces(curve, base, comparison) {
  const low = Math.max(curve.front[0].x, base.front[0].x);
  const high = Math.min(curve.front[curve.front.length - 1].x, base.front[base.front.length - 1].x);
  if (low >= high) return [];
  const inside = [...curve.front, ...base.front].map((knot) => knot.x).filter((x) => x > low && x < high);
  const edges = [...new Set([low, ...inside, high])].sort((a, b) => a - b);
  return edges.slice(1).map((right, i) => {
    const left = edges[i], middle = (left + right) / 2, points = [];
    for (let step = 0; step <= STEPS; step++) {
      const x = step === STEPS ? right : left + (right - left) * step / STEPS;
      points.push([x, curve.spline(x) / base.spline(x)]);
    }
    const wide = [curve, base].some((side) => readCell(side, middle, comparison.max_gap).wide);
    return { points, wide };
  });
}

/** Returns the chart in values: points, curves and bands of each arm; no pixels. */
function chartContent(comparison, view) {
  const [yMetric, xMetric] = ["y", "x"].map((axis) => metricsIn(comparison, axis).find(({ key }) => key === view[axis]));
  const bySpeed = xMetric.id === "interactivity_tps", gain = yMetric.of === "ratio", missing = [];
  const yOf = (point, curve) => (gain ? gainAt(point, curve, comparison) : atPoint(yMetric, point));
  const series = comparison.curves.filter((curve) => !view.hidden.includes(curve.number) && isOfMethod(curve, view)).map((curve) => {
    const valued = curve.points.map((point) => ({ point, x: atPoint(xMetric, point), y: yOf(point, curve) }));
    const complete = valued.filter((dot) => isKnown(dot.x) && isKnown(dot.y));
    // An arm without drafts has no acceptance to record.
    const expected = yMetric.id === "acceptance_length" ? valued.filter((dot) => dot.point.acceptance_mode !== "off") : valued;
    if (complete.length < expected.length) missing.push(`${expected.length - complete.length} of ${expected.length} points of ${curve.label}`);
    const dots = complete.filter((dot) => !view.front || dot.point.onFront);
    let pieces = [], guide = [];
    if (bySpeed && gain) pieces = curve.number ? gainPieces(curve, comparison.curves[0], comparison) : [];
    else if (bySpeed && yMetric.of === "cell") pieces = curvePieces(curve, yMetric, comparison);
    else guide = complete.filter((dot) => dot.point.onFront).map((dot) => [dot.x, dot.y]);
    let band = [];
    if (view.bands && bySpeed && gain) band = curve.gain_band || [];
    else if (view.bands && bySpeed && followsThroughput(yMetric) && curve.band) {
      band = curve.band.map(([x, ...edges]) => [x, ...edges.map((total) => quotient(yMetric, { total }))]);
    }
    return { curve, dots, pieces, guide, band };
  });
  const invalid = view.front ? [] : comparison.invalid
    .map((point) => ({ point, arm: comparison.curves[point.curve] || null }))
    .filter(({ arm }) => !arm || (!view.hidden.includes(arm.number) && isOfMethod(arm, view)))
    .map(({ point, arm }) => ({ point, arm, x: atPoint(xMetric, point), y: yOf(point, null) }))
    .filter((dot) => isKnown(dot.x) && isKnown(dot.y));
  const marked = bySpeed && (yMetric.id === "tput_tps_per_gpu" || gain);
  const crossed = marked ? comparison.crossed.filter(([i]) => ![0, i].some((number) => view.hidden.includes(number)) && isOfMethod(comparison.curves[i], view))
    .map(([i, x, y]) => ({ curve: comparison.curves[i], x, y: gain ? 1 : y })) : [];
  return { yMetric, xMetric, bySpeed, gain, series, invalid, crossed, missing };
}

/** Draws the chart into `svg`; returns its values and the points' elements, in the order of the arrow keys. */
function drawChart(svg, comparison, view, width) {
  const content = chartContent(comparison, view), { series, invalid, yMetric, xMetric } = content;
  const small = width < 560, height = Math.round(Math.min(480, Math.max(300, width * 0.52)));
  const left = small ? 58 : 74, right = 14, top = 26, bottom = 46;
  const all = [...series.flatMap((drawn) => [
    ...drawn.dots.map((dot) => [dot.x, dot.y]), ...drawn.guide, ...drawn.pieces.flatMap((piece) => piece.points),
    ...drawn.band.flatMap(([x, low, high]) => [[x, low], [x, high]])]), ...invalid.map((dot) => [dot.x, dot.y])];
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("width", width);
  svg.setAttribute("height", height);
  if (!all.length) {
    svg.append(drawText(width / 2, height / 2, "nothing to show: no arm is chosen, or nothing of this was recorded", { class: "axis", "text-anchor": "middle" }));
    return { content, points: [] };
  }
  const targets = content.bySpeed ? view.targets.map(parseTarget).filter((value) => value !== null) : [];
  const reach = Math.max(...all.map((place) => place[0]));
  const near = targets.filter((value) => value <= reach * 1.3);
  const logX = view.scale === "logxy" && all.every((place) => place[0] > 0);
  const logY = view.scale !== "linear" && all.every((place) => place[1] > 0);
  const xs = makeScale([...all.map((place) => place[0]), ...near], left, width - right, logX);
  const ys = makeScale([...all.map((place) => place[1]), ...(content.gain ? [1] : [])], height - bottom, top, logY);
  const at = ([x, y]) => `${xs.at(x)},${ys.at(y)}`, path = (points) => `M${points.map(at).join("L")}`;
  drawAxes(svg, { xs, ys, left, right, top, bottom, width, height, xMetric, yMetric });
  if (comparison.mark) {
    svg.append(drawText((left + width - right) / 2, (top + height - bottom) / 2, comparison.mark,
      { class: `mark-simulated${small ? " small" : ""}`, "text-anchor": "middle" }));
  }
  if (content.gain) svg.append(draw("path", { class: "target", d: `M${left},${ys.at(1)}H${width - right}` }));
  for (const target of near) {
    const x = xs.at(target);
    if (x < left) continue;
    svg.append(draw("path", { class: "target", d: `M${x},${top}V${height - bottom}` }));
    svg.append(drawText(x, top - 6, showTarget(target), { class: "axis", "text-anchor": "middle" }));
  }
  for (const { curve, pieces, guide, band } of series) {
    const colour = `c${toneOf(curve)}`;
    if (band.length > 1) {
      const back = band.map(([x, low]) => [x, low]).reverse();
      svg.append(draw("path", { class: `band ${colour}`, d: `${path(band.map(([x, , high]) => [x, high]))}L${back.map(at).join("L")}Z` }));
    }
    for (const piece of pieces) {
      if (piece.points.length > 1) svg.append(draw("path", { class: `curve ${colour}${piece.wide ? " wide" : ""}`, d: path(piece.points) }));
    }
    if (guide.length > 1) svg.append(draw("path", { class: `guide ${colour}`, d: path(guide) }));
  }
  for (const { curve, x, y } of content.crossed) {
    svg.append(draw("path", { class: "crossing", d: SHAPES[0], transform: `translate(${xs.at(x)} ${ys.at(y)}) scale(2)` },
      draw("title", {}, `${curve.label} and ${comparison.curves[0].label} serve the same at ${speed(x)} tok/s/user`)));
  }
  const points = [];
  for (const { curve, dots } of series) {
    for (const dot of dots) points.push(drawPoint(svg, dot, curve, `${xs.at(dot.x)} ${ys.at(dot.y)}`, content));
  }
  for (const dot of invalid) points.push(drawPoint(svg, dot, null, `${xs.at(dot.x)} ${ys.at(dot.y)}`, content));
  if (view.labels) drawLabels(svg, series, xs, ys, width - right);
  return { content, points };
}

function drawAxes(svg, { xs, ys, left, right, top, bottom, width, height, xMetric, yMetric }) {
  const dollar = yMetric.show === "dollars";
  for (const tick of ys.ticks) {
    svg.append(draw("path", { class: "grid", d: `M${left},${ys.at(tick)}H${width - right}` }));
    svg.append(drawText(left - 8, ys.at(tick) + 4, tickText(tick, dollar), { class: "axis", "text-anchor": "end" }));
  }
  let free = -Infinity;
  for (const tick of xs.ticks) {
    svg.append(draw("path", { class: "grid", d: `M${xs.at(tick)},${height - bottom}v5` }));
    const text = tickText(tick, false), half = text.length * 3.6 + 3, x = xs.at(tick);
    if (x - half < free) continue;
    free = x + half;
    svg.append(drawText(x, height - bottom + 19, text, { class: "axis", "text-anchor": x + half > width ? "end" : "middle" }));
  }
  svg.append(drawText((left + width - right) / 2, height - 8, xMetric.label, { class: "axis", "text-anchor": "middle" }));
  const middle = (top + height - bottom) / 2;
  svg.append(draw("text", { class: "axis", "text-anchor": "middle", transform: `translate(13 ${middle}) rotate(-90)` }, yMetric.label));
}

/** Draws each knot's load beside its mark, where one of four places is free. */
function drawLabels(svg, series, xs, ys, edge) {
  const taken = series.flatMap(({ dots }) => dots.map((dot) => [xs.at(dot.x) - 5, ys.at(dot.y) - 5, xs.at(dot.x) + 5, ys.at(dot.y) + 5]));
  for (const { dots } of series) {
    for (const { point, x, y } of dots) {
      const text = point.load_mark;
      if (!text || !point.onFront) continue;
      const [px, py, wide] = [xs.at(x), ys.at(y), text.length * 7.2];
      const places = [[px + 8, py - 7], [px + 8, py + 16], [px - 8 - wide, py + 16], [px - 8 - wide, py - 7]];
      const free = places.map(([left, base]) => [left, base - 10, left + wide, base + 2]).find((box) => box[2] <= edge
        && taken.every((other) => box[2] < other[0] || box[0] > other[2] || box[3] < other[1] || box[1] > other[3]));
      if (!free) continue;
      taken.push(free);
      svg.append(drawText(free[0], free[3] - 2, text, { class: "axis load" }));
    }
  }
}

function drawPoint(svg, dot, curve, where, content) {
  const { point } = dot;
  const tone = curve || dot.arm;
  const kind = (tone ? `c${toneOf(tone)}` : "lone") + (curve ? (point.onFront ? "" : " below") : " invalid");
  const element = draw("g", { class: `point ${kind}`, transform: `translate(${where})`, tabindex: "-1", role: "img" });
  element.append(draw("path", { class: "hit", d: "M-11,0a11,11 0 1,0 22,0a11,11 0 1,0 -22,0z" }));
  element.append(draw("path", { class: "shape", d: curve ? shapeOf(curve) : page.cross }));
  const name = curve ? curve.label : `invalid, ${dot.arm ? dot.arm.label : point.arm}`;
  element.setAttribute("aria-label", `${name}: ${content.yMetric.of === "ratio" ? write(content.yMetric, dot.y) : writeAt(content.yMetric, point)} ${content.yMetric.label} at `
    + `${write(content.xMetric, dot.x)} ${content.xMetric.label}, ${point.recipe}`);
  svg.append(element);
  return { element, point, curve, arm: tone };
}

const nameOf = ({ point, curve, arm }) => (curve ? curve.label : `${arm ? arm.label : point.arm}, invalid`);

// ---------------------------------------------------------------------------------- a point's card
/** Return what a point's TTFT and its acceptance are, with their intervals. */
const ttftOf = (point) => (v) => `${withEnds("ttft_p50_s", v, seconds, point)} s median`
  + (isKnown(point.ttft_p99_s) ? `, ${withEnds("ttft_p99_s", point.ttft_p99_s, seconds, point)} s p99` : "");
const lengthOf = (point) => (v) => `length ${withEnds("acceptance_length", v, FORMATS.hundredths, point)}, ${point.acceptance_mode || "mode unknown"}`;

/** Returns the main facts of a point as [name, text]; related facts share a line. */
function cardFacts(point, curve, comparison) {
  const facts = [], absent = [];
  const add = (name, entries) => {
    const texts = entries.filter(([what, text]) => {
      if (text === null) absent.push(what);
      return text;
    }).map(([, text]) => text);
    if (texts.length) facts.push([name, texts.join(", ")]);
  };
  const textOf = (value, show) => (value === null || value === undefined || value === "" ? null : show(value));
  const spec = point.acceptance_mode !== "off";
  if (point.valid) facts.push(["valid", `yes, ${curve && point.onFront ? "on" : "below"} the front`]);
  else facts.push(["INVALID", point.reasons || "marked invalid"]);
  facts.push(["serves", `${speed(point.x)} tok/s/user, ${rate(point.y)} tok/s/GPU`]);
  add("engine", [["engine", textOf(point.engine, (v) => (point.version ? `${v} ${point.version}` : v))], ["image", textOf(point.image, String)]]);
  const roles = isKnown(point.prefill_gpus) ? ` (${point.prefill_gpus} prefill, ${point.decode_gpus} decode)` : "";
  add("recipe", [["topology", textOf(point.topology, String)], ["GPUs", textOf(point.gpus, (v) => `${v} GPU${v === 1 ? "" : "s"}${roles}`)],
    ["concurrency", textOf(point.load_mark, () => (isPlain(point) ? `concurrency ${point.concurrency}` : point.load_short))], ["rate", isKnown(point.sent_rps) ? `${speed(point.sent_rps)} requests/s sent` : ""]]);
  add("TTFT", [["TTFT", textOf(point.ttft_p50_s, ttftOf(point))]]);
  if (spec) {
    add("acceptance", [["acceptance", textOf(point.acceptance_length, lengthOf(point))],
      ["by position", textOf(point.acceptance_per_position, FORMATS.hundredths_list)]]);
  }
  add("power", [["power", textOf(point.power_w_per_gpu, (v) => `${rate(v)} W per GPU ${comparison.mark ? comparison.kind : "metered"}`)]]);
  add("date", [["date", textOf(point.date, (v) => v + (point.runs > 1 ? `, mean of ${point.runs} runs` : ""))]]);
  if (absent.length) facts.push(["not recorded", absent.join(", ")]);
  return facts;
}

// --------------------------------------------------------------------------------------- the whole recipe
/** Metrics that stand in another metric's line. */
const IN_OTHER_LINES = new Set(["ttft_p99_s", "e2el_p50_s", "acceptance_per_position"]);

/** Returns all facts of a point as [name, text]; the last line names the facts that were not recorded. */
function pointFacts(point, curve, comparison, view) {
  const facts = [], absent = [];
  const add = (name, value, show = String) => {
    if (value === null || value === undefined || value === "") absent.push(name);
    else facts.push([name, show(value)]);
  };
  const cost = costAt(comparison, view.tier);
  if (point.valid) facts.push(["valid", curve && point.onFront ? "yes, on the front" : "yes, below the front"]);
  else facts.push(["INVALID", point.reasons || "marked invalid"]);
  if (comparison.mark) facts.push([comparison.mark, "a model of the engine, not hardware"]);
  add("interactivity", point.x, (v) => `${speed(v)} tok/s/user`);
  add("throughput", point.y, (v) => `${rate(v)} tok/s/GPU`);
  add("output / input", isKnown(point.output_tps_per_gpu) ? point.output_tps_per_gpu : null,
    (v) => `${rate(v)} / ${rate(point.input_tps_per_gpu)} tok/s/GPU`);
  if (cost && isKnown(cost.factor)) facts.push(["cost", `${dollars(atPoint(cost, point))} per M tokens (${view.tier})`]);
  add("engine", point.engine, (v) => (point.version ? `${v} ${point.version}` : v));
  add("image", point.image);
  add("serving", point.serving);
  add("topology", point.topology);
  add("GPUs", point.gpus, (v) => (isKnown(point.prefill_gpus) ? `${v} (${point.prefill_gpus} prefill, ${point.decode_gpus} decode)` : String(v)));
  if (isKnown(point.sent_rps)) facts.push(["rate", `${speed(point.sent_rps)} requests/s sent`]);
  if (point.load_mark && !isPlain(point)) facts.push(["load", point.load_short]);
  else add("concurrency", point.concurrency);
  add("draft tokens", point.draft_tokens);
  const spec = point.acceptance_mode !== "off";
  if (spec) {
    add("acceptance", point.acceptance_length, lengthOf(point));
    add("by position", point.acceptance_per_position, FORMATS.hundredths_list);
  }
  add("TTFT", point.ttft_p50_s, ttftOf(point));
  add("E2EL", point.e2el_p50_s, (v) => `${withEnds("e2el_p50_s", v, seconds, point)} s median`);
  add("power", point.power_w_per_gpu, (v) => `${withEnds("power_w_per_gpu", v, rate, point)} W per GPU ${comparison.mark ? comparison.kind : "metered"}, ${writeAt(metricNamed(comparison, "metered_joules_per_token"), point)} J/token`);
  for (const metric of metricsIn(comparison, "more")) {
    if (metric.of !== "knots" || IN_OTHER_LINES.has(metric.id)) continue;
    const value = atPoint(metric, point);
    if (isKnown(value)) facts.push([metric.label, writeAt(metric, point)]);
  }
  add("requests", point.workload);
  add("settings", point.settings);
  add("date", point.date);
  facts.push(["runs", String(point.runs)]);
  add("source", point.source);
  if (absent.length) facts.push(["not recorded", absent.join(", ")]);
  return facts;
}
