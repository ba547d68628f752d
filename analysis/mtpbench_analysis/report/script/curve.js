// The comparison's algorithm, the same as in interpolate.py, cells.py and compare.py (tests compare them).
const SAME = 1e-9;

/** Returns Steffen's slope at each knot, with d3's ends; two knots make a straight line, one a constant. */
function slopes(xs, ys) {
  const n = xs.length;
  if (n < 2) return xs.map(() => 0);
  const step = [], secant = [];
  for (let i = 0; i + 1 < n; i++) {
    step.push(xs[i + 1] - xs[i]);
    secant.push((ys[i + 1] - ys[i]) / step[i]);
  }
  if (n === 2) return [secant[0], secant[0]];
  const slope = new Array(n).fill(0);
  const sign = (s) => (s < 0 ? -1 : 1);
  for (let i = 1; i + 1 < n; i++) {
    const s0 = secant[i - 1], s1 = secant[i];
    const mean = (s0 * step[i] + s1 * step[i - 1]) / (step[i - 1] + step[i]);
    slope[i] = (sign(s0) + sign(s1)) * Math.min(Math.abs(s0), Math.abs(s1), Math.abs(mean) / 2);
  }
  slope[0] = (3 * secant[0] - slope[1]) / 2;
  slope[n - 1] = (3 * secant[n - 2] - slope[n - 2]) / 2;
  return slope;
}

/** Returns the curve through knots as a function of a place; null outside of them (nothing is extrapolated). */
function makeSpline(xs, ys) {
  const slope = slopes(xs, ys), last = xs.length - 1;
  return (x) => {
    if (!(x >= xs[0] && x <= xs[last])) return null;
    if (last === 0) return ys[0];
    let low = 0, high = last;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] <= x) low = middle; else high = middle;
    }
    const h = xs[high] - xs[low], t = (x - xs[low]) / h, r = 1 - t;
    if (last === 1) return ys[0] + (ys[1] - ys[0]) * t;
    const value = ys[low] * (1 + 2 * t) * r * r + slope[low] * h * t * r * r
      + ys[high] * t * t * (3 - 2 * t) - slope[high] * h * t * t * r;
    return Math.min(Math.max(value, Math.min(ys[low], ys[high])), Math.max(ys[low], ys[high]));
  };
}

/** Returns the cell of a curve at an interactivity: state, throughput and its knots. */
function readCell(curve, target, maxGap) {
  const front = curve.front, first = front[0], last = front[front.length - 1];
  const cell = { target, state: "", tput: null, range: null, runsAt: null, lower: null, upper: null, wide: false };
  const knot = front.find((candidate) => Math.abs(candidate.x - target) <= SAME * target);
  if (knot) {
    Object.assign(cell, { state: "measured", tput: knot.y, runsAt: knot.x, lower: knot, upper: knot });
  } else if (target < first.x) {
    Object.assign(cell, { state: "at_least", tput: first.y, runsAt: first.x, upper: first });
  } else if (target > last.x) {
    Object.assign(cell, { state: "not_reached", lower: last });
  } else {
    const right = front.findIndex((candidate) => candidate.x > target);
    Object.assign(cell, {
      state: "interpolated", tput: curve.spline(target), runsAt: target, lower: front[right - 1], upper: front[right],
    });
    cell.wide = cell.lower.y / cell.upper.y > maxGap;
    // Across a wide gap nothing is known but the throughputs of its knots.
    if (cell.wide) Object.assign(cell, { tput: null, range: [cell.upper.y, cell.lower.y] });
  }
  const between = cell.state === "interpolated";
  cell.knots = [cell.lower, cell.upper].filter((candidate, i) => candidate && !(i === 1 && candidate === cell.lower));
  cell.gap = between ? cell.upper.x - cell.lower.x : null;
  cell.knotRatio = between ? cell.lower.y / cell.upper.y : null;
  cell.envelope = between ? [cell.upper.y, cell.lower.y] : cell.tput === null ? null : [cell.tput, cell.tput];
  cell.outputShare = outputShare(cell);
  return cell;
}

/** Returns the rates of one GPU at a throughput of a cell: `total`, `output` and `input`, null where unknown. */
function ratesAt(cell, total, share = cell.outputShare) {
  return { total, output: share === null ? null : total * share, input: share === null ? null : total * (1 - share) };
}

/** Returns what follows from a cell's throughput; across a wide gap [lowest, highest]; null where it is unknown. */
function derived(cell, derive) {
  if (cell.range === null) return cell.tput === null ? null : derive(cell.tput, cell.outputShare);
  const shares = knotShares(cell), ends = cell.knots.map((knot, i) => derive(knot.y, shares ? shares[i] : null));
  return ends.every(isKnown) ? ends.sort((a, b) => a - b) : null;
}

/** Returns the output tokens / all tokens of each knot; null where one is unknown. */
function knotShares(cell) {
  const shares = cell.knots.map((knot) => (isKnown(knot.output_tps_per_gpu) ? knot.output_tps_per_gpu / knot.y : null));
  return !shares.length || shares.includes(null) ? null : shares;
}

/** Returns the output tokens / all tokens at a target; null over a wide gap, where each knot has its own. */
function outputShare(cell) {
  const shares = knotShares(cell);
  if (cell.tput === null || !shares) return null;
  if (shares.length === 1) return shares[0];
  return shares[0] + (shares[1] - shares[0]) * ((cell.target - cell.lower.x) / cell.gap);
}

/** Returns a curve's throughput over the baseline's, with its bound, or the gap for which it is withheld; neither where a side is not reached. */
function readRatio(cell, base, maxGap) {
  if (cell.state === "not_reached" || base.state === "not_reached") return { value: null, withheld: null, envelope: null };
  const envelope = [cell.envelope[0] / base.envelope[1], cell.envelope[1] / base.envelope[0]];
  for (const side of [cell, base]) {
    if (side.wide) return { value: null, withheld: { knotRatio: side.knotRatio, maxGap }, envelope };
  }
  const isLeast = cell.state === "at_least", isMost = base.state === "at_least";
  const bound = isLeast && isMost ? "best_points" : isLeast ? "at_least" : isMost ? "at_most" : "exact";
  return { value: cell.tput / base.tput, bound, envelope };
}

const lowerCost = (ratio) => 1 - 1 / ratio.value;
