// The table at equal interactivity: computed again whenever a target is typed.

/** Returns cells and ratios of every typed target; null where the text is no interactivity. */
function readTargets(comparison, view) {
  return view.targets.map((text) => {
    const target = parseTarget(text);
    if (target === null) return { text, target, cells: null };
    const cells = comparison.curves.map((curve) => readCell(curve, target, comparison.max_gap));
    const ratios = cells.slice(1).map((cell) => readRatio(cell, cells[0], comparison.max_gap));
    const exact = comparison.intervals[comparison.targets.indexOf(target)];
    cells.forEach((cell, i) => Object.assign(cell, intervalOf(comparison.curves[i], cell, exact && exact.cells[i])));
    cells.forEach((cell, i) => { cell.joules = exact ? exact.joules[i] : null; });
    ratios.forEach((ratio, i) => { ratio.interval = ratio.value === null || !exact ? null : exact.ratios[i]; });
    return { text, target, cells, ratios };
  });
}

/** Returns a cell's interval: Python's at the report's targets, else read off the band (`offBand`). */
function intervalOf(curve, cell, exact) {
  if (exact) return { interval: exact, offBand: false };
  const between = cell.state === "interpolated";
  const sure = cell.tput !== null && (between || cell.knots.every((knot) => curve.sure[curve.points.indexOf(knot)]));
  const at = cell.runsAt;
  const right = sure && curve.band ? curve.band.findIndex((place) => place[0] >= at - SAME * at) : -1;
  if (right < 0) return { interval: null, offBand: false };
  const b = curve.band[right], a = curve.band[Math.max(0, right - 1)];
  const way = b[0] === a[0] ? 1 : Math.min(1, Math.max(0, (at - a[0]) / (b[0] - a[0])));
  return { interval: [a[1] + (b[1] - a[1]) * way, a[2] + (b[2] - a[2]) * way], offBand: true };
}

function showThroughput(cell) {
  if (cell.state === "not_reached") return ["not reached:", `ends at ${speed(cell.knots[0].x)}`];
  if (cell.range) {
    const [lower, upper] = cell.knots;
    return [showSpan(cell.range, rate), `over a wide gap, between knots ${speed(lower.x)} and ${speed(upper.x)}`];
  }
  let value = rate(cell.tput);
  if (cell.interval) value += ` ${cell.offBand ? "≈ " : ""}${spread(cell.interval, rate)}`;
  if (cell.state === "measured") return [value, "measured"];
  if (cell.state === "at_least") return [`≥ ${value}`, `runs at ${speed(cell.runsAt)}`];
  const [lower, upper] = cell.knots;
  return [`${value} interpolated,`, `knots ${speed(lower.x)} and ${speed(upper.x)}`];
}

const describeGap = ({ knotRatio, maxGap }) => `knots ${knotRatio.toFixed(1)}× apart in throughput (limit ${significant(maxGap, 6)}×)`;

/** Returns why there is no ratio, or null where there is one. */
function explainNoRatio(ratio) {
  if (ratio.value !== null) return null;
  return ratio.withheld ? `withheld: ${describeGap(ratio.withheld)}` : "not reached";
}

function showRatio(ratio) {
  if (ratio.value === null) {
    if (!ratio.withheld) return [MISSING];
    return ["withheld:", `${describeGap(ratio.withheld)}, so ${times(ratio.envelope[0])}× to ${times(ratio.envelope[1])}×`];
  }
  const sign = { at_least: "≥ ", at_most: "≤ " }[ratio.bound] || "";
  const interval = ratio.interval ? ` ${spread(ratio.interval, times)}` : "";
  const note = ratio.bound === "best_points" ? " (best points)" : "";
  return [`${sign}${times(ratio.value)}×${interval},`, `${describeCost(ratio)}${note}`];
}

const layoutOf = (p) => [p.topology, p.gpus === null ? null : p.gpus === 1 ? "1 GPU" : `${p.gpus} GPUs`]
  .filter((part) => part).join(", ");
/** Whether a point's load is a concurrency and nothing else. */
const isPlain = (p) => p.load_mark === `c${p.concurrency}`;

function recipesOf(cell) {
  if (cell.state === "not_reached") return [MISSING];
  const { knots } = cell;
  if (knots.length === 2 && layoutOf(knots[0]) === layoutOf(knots[1])) {
    return [`${knots[0].load_short} and ${knots.every(isPlain) ? knots[1].concurrency : knots[1].load_short}`, layoutOf(knots[0])];
  }
  const texts = knots.map((p) => [p.load_short, layoutOf(p)].filter((part) => part).join(", "));
  return [texts[0], texts.slice(1).map((text) => `and ${text}`).join(" ")];
}

/** Returns a function that shows a metric of the knots; it is never interpolated. */
const showKnots = (metric) => (cell) => {
  if (cell.state === "not_reached") return [MISSING];
  const texts = [...new Set(cell.knots.map((knot) => writeAt(metric, knot)))];
  const bare = cell.knots.every((knot) => !endsOf(metric.id, atPoint(metric, knot), knot));
  return bare ? [texts.join(" and ")] : texts.map((text, i) => (i ? `and ${text}` : text));
};

function showBounded(metric) {
  const sign = metric.better === "lower" ? "≤" : "≥";
  return (cell) => {
    let text = showAt(metric, cell);
    if (text === MISSING) return [cell.state === "not_reached" ? MISSING : "unknown"];
    const interval = atInterval(metric, cell);
    if (interval) text += ` ${cell.offBand ? "≈ " : ""}${spread(interval, FORMATS[metric.show])}`;
    return [cell.state === "at_least" ? `${sign} ${text}` : text];
  };
}

/** Returns a metric at a target in words: one value, or the two that it lies between. */
function showAt(metric, cell) {
  const value = atCell(metric, cell);
  return Array.isArray(value) ? showSpan(value, FORMATS[metric.show]) : write(metric, value);
}

const showPlain = (metric) => (cell) => [showAt(metric, cell)];

/** Returns the rows of the short table: [metric, cell → [line, second line]], some with a third item, (ratio, cell,
 * the baseline's cell) → [line, second line]. Costs are at the chosen price. */
function shortRows(comparison, view, metered) {
  const metrics = metricsIn(comparison, "matched").filter(({ needs, tier }) => (needs !== "meter" || metered) && (!tier || tier === view.tier));
  const ratios = { metered_joules_per_output_token: (ratio, cell, base) => showEnergyRatio(energyRatio(cell, base), ratio.bound) };
  return [
    ...metrics.map((metric) => {
      if (metric.id === "tput_tps_per_gpu") return [metric, showThroughput, showRatio];
      return [metric, metric.of === "knots" ? showKnots(metric) : showBounded(metric), ratios[metric.id]];
    }),
    [{ label: "recipes at the knots" }, recipesOf],
  ];
}

/** Returns the rows of the long table: every other metric, and metered figures at the knots. */
function longRows(comparison, view) {
  const short = new Set(metricsIn(comparison, "matched").filter(({ tier }) => !tier || tier === view.tier).map(({ id }) => id));
  return metricsIn(comparison, "more").filter(({ id, of }) => of === "span" || !short.has(id))
    .map((metric) => [metric, metric.of === "cell" ? showPlain(metric) : showKnots(metric)]);
}

/** Returns the body's rows: {metric, who, texts, section, more}; the baseline comes last. */
function tableRows(comparison, view, read) {
  const others = comparison.curves.slice(1).filter((curve) => isOfMethod(curve, view));
  const order = [...others.map((curve) => curve.number), 0], rows = [];
  const base = comparison.curves[0].label;
  const push = (metric, who, texts, first, more) => rows.push({ metric: first ? metric : "", name: metric, who, texts, section: first, more });
  const metered = read.some((entry) => entry.cells && entry.cells.some((cell) => outputJoules(cell)));
  const add = ([metric, show, showRatioOf], more) => {
    const body = order.map((i) => read.map((entry) => (entry.cells ? show(entry.cells[i]) : [MISSING])));
    if (more && body.every((texts) => texts.every((lines) => lines[0] === MISSING))) return;
    order.forEach((i, place) => push(metric.label, comparison.curves[i].label, body[place], place === 0, more));
    if (!showRatioOf) return;
    const ratioOf = (entry, i) => (entry.cells ? showRatioOf(entry.ratios[i], entry.cells[i + 1], entry.cells[0]) : [MISSING]);
    others.forEach((curve) =>
      push(metric.label, `${curve.label} / ${base}${curve.checkpoint_note ? "†" : ""}`, read.map((entry) => ratioOf(entry, curve.number - 1)), false, false));
  };
  for (const row of shortRows(comparison, view, metered)) add(row, false);
  for (const row of longRows(comparison, view)) add(row, true);
  return rows;
}

function fillBody(body, rows) {
  body.replaceChildren(...rows.map((row) => {
    const line = make("tr", { class: row.section ? "section" : null });
    line.append(make(row.metric ? "th" : "td", { class: "word", scope: row.metric ? "row" : null }, row.metric));
    line.append(make("th", { class: "word who", scope: "row" }, row.who));
    for (const [first, rest] of row.texts) {
      const cell = make("td", {}, make("span", { class: first.length < 24 ? "whole" : null }, first));
      if (rest) cell.append(make("span", { class: "rest" }, rest));
      line.append(cell);
    }
    return line;
  }));
}

/** Returns notes about typed targets: texts that are no numbers, and targets outside of a front. */
function explainTargets(comparison, read) {
  const notes = [];
  for (const { text, target, cells } of read) {
    if (!cells) {
      notes.push(`“${text}” is no interactivity: a number above 0 is needed, with a point for decimals.`);
      continue;
    }
    cells.forEach((cell, i) => {
      const { label } = comparison.curves[i], at = showTarget(target);
      if (cell.state === "not_reached") {
        const end = cell.lower;
        notes.push(`${at} tok/s/user is above what ${label} reaches: its fastest point runs at ${speed(end.x)} `
          + `(${end.recipe}). Nothing beyond it was measured and nothing is extrapolated, so there is no number.`);
      } else if (cell.state === "at_least") {
        notes.push(`${at} tok/s/user is below the front of ${label}: its best point serves ${rate(cell.tput)} tok/s/GPU `
          + `at ${speed(cell.runsAt)} tok/s/user, faster than asked. A slower recipe may serve more: hence ≥.`);
      }
    });
  }
  return notes;
}

function captionOf(comparison, view, read) {
  const { economics } = comparison;
  const constants = economics ? `${economics.labels[view.tier]}.` : "";
  const checkpoints = comparison.checkpoints_note;
  if (view.targets.join() === comparison.targets.map(String).join()) return constants + comparison.caption + checkpoints;
  const cells = read.flatMap((entry) => entry.cells || []);
  let intervals = " Throughput of single runs: no interval.";
  if (cells.some((cell) => cell.interval)) {
    intervals = ` In brackets: ${percent(comparison.confidence).replace(".0%", "%")} intervals; those with ≈ are read off the `
      + "band between the places at which it was computed.";
  } else if (comparison.curves.some((curve) => curve.band)) {
    intervals = " No interval is known here.";
  }
  const recorded = comparison.recorded_note ? ` ${comparison.recorded_note}` : "";
  return `${constants || comparison.no_constants} Targets: as typed.${intervals}${recorded}${checkpoints}`;
}

// ----------------------------------------------------------------------------------------------------- CSV
function tableCsv(comparison, view, read) {
  const costs = metricsIn(comparison, "more").filter(({ of, needs }) => of === "cell" && needs === "constants");
  const number = (value) => (Array.isArray(value) ? null : value);
  const knot = (side) => ["interactivity_tps", "tput_tps_per_gpu", "recipe", "runs"].map((name) => `${side}_${name}`);
  const lines = [["comparison", "simulated", "target_tps", "curve", "state", "tput_tps_per_gpu", "runs_at_tps",
    "interval_low", "interval_high", "output_tps_per_gpu", "input_tps_per_gpu", ...costs.map(({ id }) => id),
    "wide_gap", "tput_range_low", "tput_range_high", ...knot("lower"), ...knot("upper"), "tput_ratio", "ratio_bound", "no_ratio_because", "envelope_low",
    "envelope_high"]];
  for (const { target, cells, ratios } of read) {
    if (!cells) continue;
    cells.forEach((cell, i) => {
      const { output, input } = ratesAt(cell, cell.tput), isOne = cell.tput !== null;
      const ratio = i ? ratios[i - 1] : null, side = (k) => (k ? [k.x, k.y, k.recipe, k.runs] : ["", "", "", ""]);
      lines.push([comparison.title, comparison.mark !== null, target, comparison.curves[i].label, cell.state, cell.tput,
        cell.runsAt, ...(cell.interval || ["", ""]), isOne ? output : null, isOne ? input : null,
        ...costs.map((metric) => number(atCell(metric, cell))), cell.wide, ...(cell.range || ["", ""]), ...side(cell.lower), ...side(cell.upper),
        ratio && ratio.value, ratio && ratio.value !== null ? ratio.bound : "", ratio && explainNoRatio(ratio),
        ...((ratio && ratio.envelope) || ["", ""])]);
    });
  }
  return toCsv(lines);
}

/** Returns the points as a CSV that mtpbench imports; the importer lists columns that it does not know. */
function pointsCsv(comparison) {
  const { sequence, ...facets } = comparison.facets;
  const shared = { ...facets, isl: comparison.isl, osl: comparison.osl, simulated: comparison.mark !== null };
  const names = Object.keys(shared).filter((name) => !page.columns.includes(name));
  const lines = [["curve", "on_front", ...names, ...page.columns, ...Object.values(page.ends).flat()]];
  const push = (label, point) => lines.push([label, Boolean(point.onFront), ...names.map((name) => shared[name]), ...page.columns.map((name) => point[name]), ...Object.values(point.ends).flat()]);
  for (const curve of comparison.curves) for (const point of curve.points) push(curve.label, point);
  for (const point of comparison.invalid) push((comparison.curves[point.curve] || { label: point.arm }).label, point);
  return toCsv(lines);
}
