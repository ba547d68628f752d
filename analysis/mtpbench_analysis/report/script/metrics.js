// Metrics as Python declares them (metric_table.py): label, format, better direction, and quotient. This file computes
// their values at points, and at targets, which a reader may type.
const FORMATS = {
  rate, speed, dollars, seconds, energy, times,
  hundredths: (v) => (isKnown(v) ? fixed(v, 2) : MISSING),
  hundredths_list: (values) => (values && values.length ? values.map((v) => fixed(v, 2)).join(" / ") : MISSING),
  whole: (v) => (isKnown(v) ? fixed(v, 0) : MISSING),
  text: (v) => v || MISSING,
};

/** Returns the metrics of a view in its order: {id, key, label, show, better, of, over, under, factor, tier}. */
const metricsIn = (comparison, view) => comparison.views[view].map((i) => page.metrics[i]);
const write = (metric, value) => FORMATS[metric.show](value);

/** Returns the cost of all tokens at a tier's price; undefined for hardware without constants. */
const costAt = (comparison, tier) => metricsIn(comparison, "matched").find((metric) => metric.tier && metric.tier === tier);
const metricNamed = (comparison, id) => metricsIn(comparison, "more").find((metric) => metric.id === id);

/** Returns factor × over / under, of rates per GPU: `total`, `output`, `input` (tok/s) and metered `power` (W). */
function quotient({ factor, over, under }, rates) {
  const above = over ? rates[over] : 1, below = under ? rates[under] : 1;
  return isKnown(factor) && isKnown(above) && isKnown(below) && below !== 0 ? factor * above / below : null;
}

/** Returns whether a metric follows from the throughput of all tokens alone; then its band does, too. */
const followsThroughput = ({ of, over, under }) => of === "cell" && [over, under].every((rate) => !rate || rate === "total");

/** Returns a metric at a measured point; null where it was not recorded. */
function atPoint(metric, point) {
  if (!("factor" in metric)) return point[metric.id] ?? null;
  return quotient(metric, { total: point.y, output: point.output_tps_per_gpu, input: point.input_tps_per_gpu, power: point.power_w_per_gpu });
}

/** Returns a point's value of a metric as text, with its interval: `0.52 (0.49–0.57)`; `≥ 0.49` where it is only known to lie above. */
function withEnds(id, value, show, point) {
  const ends = endsOf(id, value, point);
  if (!ends) return show(value);
  const [low, high] = ends;
  if (!isKnown(low) || !isKnown(high)) return isKnown(low) ? `≥ ${show(low)}` : `≤ ${show(high)}`;
  return `${show(value)} ${spread(ends, show)}`;
}

/** Returns [low, high] of a metric's interval at a point, one of them null for a bound; null where none is known. */
function endsOf(id, value, point) {
  const ends = point.ends[id], reach = point.reaches[page.reaches[id]];
  if (ends) return ends.some(isKnown) ? ends : null;
  return isKnown(reach) && isKnown(value) ? [value / reach, value * reach] : null;
}
const writeAt = (metric, point) => withEnds(metric.id, atPoint(metric, point), FORMATS[metric.show], point);

/** Returns a metric at a target: its value, or [lowest, highest] where it follows from power or over a wide gap; null if unknown. */
function atCell(metric, cell) {
  if (metric.of !== "span") return derived(cell, (total, share) => quotient(metric, ratesAt(cell, total, share)));
  // Joules for a token are the power at one token a second: what else follows from power follows from them.
  const isPower = metric.over === "power" && !metric.under;
  const watts = isPower ? meteredPower(cell) : tokenJoules(cell);
  const shares = cell.wide ? knotShares(cell) || [null] : [cell.outputShare];
  const values = watts && watts.flatMap((power) => shares.map((share) => quotient(metric, { ...ratesAt(cell, 1, share), power })));
  return values && values.every(isKnown) ? [Math.min(...values), Math.max(...values)] : null;
}

/** Returns [lowest, highest] of a metric over a cell's interval; null where it has none. */
function atInterval(metric, cell) {
  if (!cell.interval || metric.of !== "cell") return null;
  const ends = cell.interval.map((total) => quotient(metric, ratesAt(cell, total)));
  return ends.every(isKnown) ? ends.sort((a, b) => a - b) : null;
}

/** Returns throughput over the baseline's curve at a knot's interactivity; null for other points, outside of that curve and in a wide gap of it. */
const gainAt = (point, curve, comparison) => {
  const base = comparison.curves[0];
  const within = curve && curve.number && point.onFront && base.spline(point.x) !== null;
  const below = within ? readCell(base, point.x, comparison.max_gap).tput : null;
  return below ? point.y / below : null;
};
