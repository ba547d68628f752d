// Small plots with axes that need not begin at 0. Colours are CSS classes.
function spanScale(low, high, from, to) {
  const span = high - low || Math.abs(high) || 1, rough = span / Math.max(2, Math.min(6, Math.abs(to - from) / 62));
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * magnitude).find((candidate) => candidate >= rough * (1 - 1e-9));
  const first = Math.floor(low / step + 1e-9), last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
  return { ticks, at: (value) => roundPixels(from + (value - first * step) / ((last - first) * step) * (to - from)) };
}

/** Returns an empty plot with its axes; `mark`, that of a simulation, stands across it. Screen readers read the label. */
function makePlot({ width, height = 210, label, x, y, mark, ticks }) {
  const svg = draw("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  const box = { left: 0, right: 12, top: 14, bottom: 44, width, height };
  const ys = spanScale(y.low, y.high, height - box.bottom, box.top);
  box.left = 30 + 7 * Math.max(...ys.ticks.map((tick) => tickText(tick, false).length));
  const xs = ticks ? null : spanScale(x.low, x.high, box.left, width - box.right);
  drawAxes(svg, { xs: xs || { ticks: [], at: () => 0 }, ys, ...box, xMetric: { label: x.label }, yMetric: { label: y.label } });
  if (mark) {
    svg.append(drawText((box.left + width - box.right) / 2, (box.top + height - box.bottom) / 2 + 8, mark, { class: "mark-simulated faint", "text-anchor": "middle" }));
  }
  return { svg, xs, ys, box };
}

const lineThrough = (points) => `M${points.map(([x, y]) => `${x},${y}`).join("L")}`;

const MARKS = [["p50", 0.5], ["p90", 0.9], ["p99", 0.99]];

/** Of fewer requests, even the slowest is faster than the true p99 in more than 5% of runs: 0.99²⁹⁸ = 5.0%. */
const FEW_REQUESTS = 299;

/** Returns each mark's text, with enough digits to distinguish different values; equal values share a text. */
function markTexts(marks, count) {
  const p99 = count < FEW_REQUESTS ? `p99 of ${fixed(count, 0)} requests` : "p99";
  const kinds = (digits) => new Set(marks.map(([, value]) => significant(value, digits))).size;
  const digits = [3, 4, 5, 6].find((digits) => kinds(digits) === kinds(6));
  const texts = new Map();
  for (const [id, value] of marks) {
    const text = significant(value, digits);
    texts.set(text, [...(texts.get(text) || []), id]);
  }
  return marks.map(([id, value]) => {
    const equal = texts.get(significant(value, digits));
    if (equal[equal.length - 1] !== id) return "";
    return `${equal.map((id) => (id === "p99" ? p99 : id)).join(", ")} ${significant(value, digits)}`;
  });
}

/** Returns a plot of a latency's distribution with its marks. Values and figures are in seconds. */
function latencyPlot({ name, values, figures, factor, unit, width, tone, mark }) {
  const last = Math.max(1, values.length - 1);
  const points = values.map((value, i) => [value * factor, i / last]);
  const marks = MARKS.map(([id, share]) => [id, figures[id] * factor, share]);
  // The marks are exact, and a coarse curve passes through them.
  const curvePoints = [...points, ...marks.map(([, value, share]) => [value, share])].sort((a, b) => a[1] - b[1] || a[0] - b[0]);
  const summary = marks.map(([id, value]) => `${id} ${significant(value, 4)} ${unit}`).join(", ");
  const { svg, xs, ys, box } = makePlot({
    width, mark, label: `${name} of ${figures.count} requests: ${summary}`,
    x: { low: curvePoints[0][0], high: curvePoints[curvePoints.length - 1][0], label: `${name}, ${unit}` },
    y: { low: 0, high: 100, label: "% of requests" },
  });
  const at = ([value, share]) => [xs.at(value), ys.at(share * 100)];
  svg.append(draw("path", { class: `line ${tone}`, d: lineThrough(curvePoints.map(at)) }));
  const texts = markTexts(marks, figures.count);
  marks.forEach(([, value, share], i) => {
    const [px, py] = at([value, share]), text = texts[i], wide = text.length * 6.8;
    svg.append(draw("path", { class: "target", d: `M${px},${py}V${box.height - box.bottom}` }));
    svg.append(draw("path", { class: `dot ${tone}`, d: SHAPES[0], transform: `translate(${px} ${py})` }));
    // Above and left of a rising curve there is room; at the left edge the label goes below it.
    const fits = px - 8 - wide > box.left;
    if (text) svg.append(drawText(fits ? px - 5 : px + 8, fits ? py - 5 : py + 14, text, { class: "axis", "text-anchor": fits ? "end" : "start" }));
  });
  return svg;
}

/** Returns a plot of the power of all GPUs together during the load, with the window shaded. */
function powerPlot(trace, width, tone, mark) {
  const { power_times_s: times, power_w: watts, window, energy: figures } = trace;
  const mean = isKnown(figures.mean_power_w_per_gpu) ? `; in the window ${rate(figures.mean_power_w_per_gpu)} W per GPU on average` : "";
  const { svg, xs, ys, box } = makePlot({
    width, mark, label: `Power of ${trace.power_gpus} GPUs over ${significant(times[times.length - 1], 4)} s, ${rate(Math.min(...watts))} to ${rate(Math.max(...watts))} W${mean}`,
    x: { low: Math.min(times[0], window ? window[0] : times[0]), high: Math.max(times[times.length - 1], window ? window[1] : 0), label: "seconds of the load" },
    y: { low: 0, high: Math.max(...watts), label: `W, all ${trace.power_gpus} GPUs` },
  });
  if (window) svg.append(shade(xs.at(window[0]), xs.at(window[1]), box.top, box.height - box.bottom));
  svg.append(draw("path", { class: `line ${tone}`, d: lineThrough(times.map((time, i) => [xs.at(time), ys.at(watts[i])])) }));
  if (window) svg.append(drawText((xs.at(window[0]) + xs.at(window[1])) / 2, box.top - 3, "window", { class: "axis", "text-anchor": "middle" }));
  return svg;
}

/** Returns the legend of arms for small plots. */
const armLegend = (curves) => make("div", { class: "legend" }, ...curves.map((curve) => make("span", { class: "tick" },
  draw("svg", { viewBox: "-8 -8 16 16", width: 16, height: 16, "aria-hidden": "true", class: "plot" },
    draw("path", { class: `dot tone${toneOf(curve)}`, d: shapeOf(curve) })), curve.label)));

const shade = (from, to, top, bottom) => draw("path", { class: "window", d: `M${from},${top}H${to}V${bottom}H${from}Z` });

function positionPlot(shares, width, tone, mark) {
  const { svg, ys, box } = makePlot({
    width, mark, ticks: true, label: `Accepted by position: ${shares.map((share, i) => `${i + 1}: ${percent(share)}`).join(", ")}`,
    x: { label: "position of the draft" }, y: { low: 0, high: 100, label: "% accepted" },
  });
  const room = (width - box.left - box.right) / shares.length, bar = Math.min(64, room * 0.7), floor = box.height - box.bottom;
  shares.forEach((share, i) => {
    const middle = roundPixels(box.left + room * (i + 0.5)), top = ys.at(share * 100), from = roundPixels(middle - bar / 2);
    svg.append(draw("path", { class: `block ${tone}`, d: `M${from},${floor}V${top}H${roundPixels(from + bar)}V${floor}Z` }));
    svg.append(drawText(middle, top < box.top + 16 ? top + 14 : top - 5, percent(share), { class: "axis", "text-anchor": "middle" }));
    svg.append(drawText(middle, floor + 17, String(i + 1), { class: "axis", "text-anchor": "middle" }));
  });
  return svg;
}
