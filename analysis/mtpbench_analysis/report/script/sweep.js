// Plots of a whole comparison: acceptance by concurrency and by position, and power run by run.
const MANY_POINTS = 80;

function buildSweep(comparison) {
  const holder = make("div", { class: "sweep" });
  const marked = comparison.mark ? ` (${comparison.mark})` : "";
  for (const [name, title, fill] of [["acceptance", "Acceptance by concurrency and by position", acceptanceOverSweep], ["power", "Power over the sweep", powerOverSweep]]) {
    const hasContent = fill(comparison, 0);
    if (!hasContent) continue;
    const count = comparison.curves.reduce((sum, curve) => sum + curve.points.length, 0);
    const details = make("details", { class: name, open: count <= MANY_POINTS }, make("summary", {}, title + marked));
    let drawn = false;
    // The plots are drawn when the part is first open and has a width: a closed part costs nothing.
    const open = () => {
      if (drawn || !details.open || !details.clientWidth) return;
      drawn = true;
      details.append(...fill(comparison, Math.floor(details.clientWidth)));
    };
    details.addEventListener("toggle", open);
    holder.append(details);
    parts.later.push(open);
  }
  return holder;
}

// ---------------------------------------------------------------------------------------------- acceptance
/** Compares loads: by rate where there is one, then by concurrency. */
const byLoad = (a, b) => (a.rate_rps || 0) - (b.rate_rps || 0) || (a.concurrency || 0) - (b.concurrency || 0);

/** Returns plots over the loads in equal steps, so that 1, 4, 16, 64 lie apart; null if no acceptance was recorded. */
function acceptanceOverSweep(comparison, width) {
  const arms = comparison.curves.map((curve) => ({
    curve, points: curve.points.filter((point) => isKnown(point.acceptance_length) && point.load_mark).sort(byLoad),
  })).filter(({ points }) => points.length);
  if (!arms.length) return null;
  if (!width) return [];
  const half = width >= 620 ? Math.floor((width - 20) / 2) : width, mark = comparison.mark;
  const loads = [...new Set(arms.flatMap(({ points }) => points).sort(byLoad).map((point) => point.load_mark))].map((mark) => [mark, mark]);
  const lengths = arms.map(({ curve, points }) => ({ curve, label: "", points: points.map((point) => [point.load_mark, point.acceptance_length, point.topology]) }));
  const shares = arms.flatMap(({ curve, points }) => {
    const positions = Math.max(0, ...points.map((point) => (point.acceptance_per_position || []).length));
    return Array.from({ length: positions }, (_, i) => ({
      curve, label: String(i + 1),
      points: points.filter((point) => (point.acceptance_per_position || []).length > i).map((point) => [point.load_mark, point.acceptance_per_position[i] * 100, point.topology]),
    }));
  });
  const plots = [loadPlot({ width: half, mark, loads, series: lengths, low: 1, label: "tokens per step", name: "Acceptance length by concurrency" })];
  if (shares.length) plots.push(loadPlot({ width: half, mark, loads, series: shares, low: 0, high: 100, label: "% accepted at position", name: "Accepted share by position and concurrency" }));
  const positions = Math.max(0, ...arms.flatMap(({ points }) => points.map((point) => (point.acceptance_per_position || []).length)));
  const rows = arms.flatMap(({ curve, points }) => points.map((point) => [curve.label, point.recipe, point.acceptance_mode || "unknown", fixed(point.acceptance_length, 2),
    ...Array.from({ length: positions }, (_, i) => ((point.acceptance_per_position || []).length > i ? percent(point.acceptance_per_position[i]) : MISSING))]));
  const pinned = arms.some(({ points }) => points.some((point) => point.acceptance_mode === "golden"));
  const notes = "Acceptance length: tokens per verification step, the bonus token included. The number at a line is the position of the draft."
    + (pinned ? " Golden: pinned to a fixed mean, not measured on these prompts." : "");
  return [armLegend(arms.map(({ curve }) => curve)), make("div", { class: "plots" }, ...plots), make("p", { class: "dim" }, notes), make("details", {}, make("summary", {}, "As a table"),
    textTable(["", "recipe", "mode", "length", ...Array.from({ length: positions }, (_, i) => `position ${i + 1}`)], rows, 3))];
}

function loadPlot({ width, mark, loads, series, low, high, label, name }) {
  const values = series.flatMap(({ points }) => points.map((point) => point[1]));
  const { svg, ys, box } = makePlot({ width, mark, ticks: true, label: `${name}; the figures stand in the table below.`, x: { label: "concurrency" }, y: { low, high: high || Math.max(...values), label } });
  const room = (width - box.left - box.right - 18) / loads.length, index = new Map(loads.map(([load], i) => [load, i]));
  const at = ([load, value]) => [roundPixels(box.left + room * (index.get(load) + 0.5)), ys.at(value)];
  const every = Math.max(1, Math.ceil(34 / room));
  loads.forEach(([, text], i) => { if (i % every === 0) svg.append(drawText(roundPixels(box.left + room * (i + 0.5)), box.height - box.bottom + 17, text, { class: "axis", "text-anchor": "middle" })); });
  for (const { curve, label: end, points } of series) {
    const tone = `tone${toneOf(curve)}`;
    // A line joins the loads of one topology only: between two topologies it would mean nothing.
    const lines = [...new Set(points.map((point) => point[2]))].map((topology) => points.filter((point) => point[2] === topology));
    for (const line of lines) if (line.length > 1) svg.append(draw("path", { class: `line thin ${tone}`, d: lineThrough(line.map(at)) }));
    for (const point of points) svg.append(draw("path", { class: `dot ${tone}`, d: shapeOf(curve), transform: `translate(${at(point).join(" ")}) scale(0.8)` }));
    if (end && points.length) {
      const [x, y] = at(points[points.length - 1]);
      svg.append(drawText(x + 9, y + 4, end, { class: "axis" }));
    }
  }
  return svg;
}

// --------------------------------------------------------------------------------------------------- power
/** Returns a strip of power for each arm: a cell for each run, in the order of measurement. */
function powerOverSweep(comparison, width) {
  const arms = comparison.curves.map((curve) => ({
    curve, traces: parts.runs.filter((run) => run.curve === curve).sort((a, b) => a.number - b.number).map((run) => ({ run, trace: traceAt(run.number) })),
  })).filter(({ traces }) => traces.length);
  if (!arms.some(({ traces }) => traces.some(({ trace }) => trace.power_w.length > 1))) return null;
  if (!width) return [];
  const perGpu = (trace) => trace.power_w.map((watts) => watts / trace.power_gpus);
  const highest = Math.max(...arms.flatMap(({ traces }) => traces.flatMap(({ trace }) => perGpu(trace))));
  const strips = arms.map(({ curve, traces }) => make("div", { class: "scroll" }, powerStrip(curve, traces, highest, width, comparison.mark, perGpu)));
  const rows = arms.flatMap(({ curve, traces }) => traces.map(({ run, trace }) => [curve.label, run.text, trace.window ? `${significant(trace.window[1] - trace.window[0], 4)} s` : "none",
    rate(trace.energy.mean_power_w_per_gpu), trace.power_w.length ? `${rate(Math.min(...perGpu(trace)))} to ${rate(Math.max(...perGpu(trace)))}` : MISSING,
    isKnown(trace.energy.energy_j) ? joules(trace.energy.energy_j) : `unknown: ${trace.power_reason}`, energy(trace.energy.joules_per_token)]));
  const what = comparison.mark ? "Simulated power" : "Metered power";
  return [...strips, make("p", { class: "dim" }, `${what} of one GPU, on average over all GPUs of the deployment. A cell is one run, as long as its load lasted (seconds below it); shaded: its `
    + "steady-state window; the dashed line: the mean over that window, from the energy of the result. Runs stand in the order in which they were measured."),
  make("details", {}, make("summary", {}, "As a table"), textTable(["", "recipe", "window", "W per GPU in it", "W per GPU, lowest to highest", "energy in it", "J/token"], rows, 2))];
}

function powerStrip(curve, traces, highest, width, mark, perGpu) {
  const room = 80, cell = Math.max(30, (width - room) / traces.length), whole = Math.round(room + cell * traces.length);
  const { svg, ys, box } = makePlot({
    width: whole, height: 168, mark, ticks: true, label: `Power of ${curve.label} over its ${traces.length} runs; the figures stand in the table below.`,
    x: { label: "" }, y: { low: 0, high: highest, label: "W per GPU" },
  });
  const floor = box.height - box.bottom, { left } = box;
  svg.append(drawText(left, 10, curve.label, { class: "heading small" }));
  traces.forEach(({ run, trace }, i) => {
    const from = left + cell * i, { power_times_s: times, window } = trace, watts = perGpu(trace), middle = roundPixels(from + cell / 2);
    svg.append(draw("path", { class: "grid", d: `M${roundPixels(from)},${box.top}V${floor + 6}` }));
    if (cell >= 34) svg.append(drawText(middle, floor + 17, run.point.load_mark, { class: "axis", "text-anchor": "middle" }));
    if (times.length < 2) {
      svg.append(drawText(middle, (box.top + floor) / 2, "unknown", { class: "axis", "text-anchor": "middle" }));
      return;
    }
    const first = Math.min(times[0], window ? window[0] : times[0]), last = Math.max(times[times.length - 1], window ? window[1] : 0);
    const at = (time) => roundPixels(from + 2 + (time - first) / (last - first) * (cell - 4));
    if (window) svg.append(shade(at(window[0]), at(window[1]), box.top, floor));
    svg.append(draw("path", { class: `line thin tone${toneOf(curve)}`, d: lineThrough(times.map((time, k) => [at(time), ys.at(watts[k])])) }));
    if (window && isKnown(trace.energy.mean_power_w_per_gpu)) {
      svg.append(draw("path", { class: "mean", d: `M${at(window[0])},${ys.at(trace.energy.mean_power_w_per_gpu)}H${at(window[1])}` }));
    }
    if (cell >= 46) svg.append(drawText(middle, floor + 32, `${significant(last - first, 3)} s`, { class: "axis", "text-anchor": "middle" }));
  });
  return svg;
}
