// Metered energy at a target, the same as in metered.py: power lies between the knots' power and is not interpolated.
const metersOf = (cell) => new Set(cell.knots.map((knot) => knot.power_source ?? null));

/** Returns [lowest, highest] metered power of one GPU; null where a knot has none, or meters differ. */
function meteredPower(cell) {
  const powers = cell.knots.map((knot) => knot.power_w_per_gpu);
  if (cell.envelope === null || !powers.length || !powers.every(isKnown) || metersOf(cell).size > 1) return null;
  return [Math.min(...powers), Math.max(...powers)];
}

/** Returns [lowest, highest] joules for a token: Python's at the report's targets, else over the interval's throughputs. */
function tokenJoules(cell) {
  if (cell.joules) return cell.joules;
  const power = meteredPower(cell), tputs = cell.range || cell.interval || [cell.tput, cell.tput];
  return power && [power[0] / tputs[1], power[1] / tputs[0]];
}

/** Returns [lowest, highest] joules for an output token; output tokens carry all energy. */
function outputJoules(cell) {
  const joules = tokenJoules(cell), shares = cell.wide ? knotShares(cell) : [cell.outputShare];
  if (!joules || !shares || !shares.every((share) => share)) return null;
  return [joules[0] / Math.max(...shares), joules[1] / Math.min(...shares)];
}

/** Returns [lowest, highest] joules for an output token over the baseline's; null where a side is unknown or has a wide gap. */
function energyRatio(cell, base) {
  const ours = outputJoules(cell), theirs = outputJoules(base);
  if (!ours || !theirs || cell.wide || base.wide) return null;
  const [mine, its] = [metersOf(cell), metersOf(base)];
  if (mine.size !== its.size || [...mine].some((meter) => !its.has(meter))) return null;
  return [ours[0] / theirs[1], ours[1] / theirs[0]];
}

/** Returns `2.10 to 2.31`; one number where both have the same text. */
function showSpan(span, show) {
  if (!span) return MISSING;
  const [low, high] = span.map(show);
  return low === high ? low : `${low} to ${high}`;
}

/** Returns `52.9% to 60.4% less energy`, as sentences.py does; `bound` is that of the throughput's ratio. */
function describeEnergy(span, bound) {
  const change = (ratio) => [percent(Math.abs(1 - ratio)), ratio <= 1 ? "less" : "more"];
  const [most, more] = change(span[1]), [least, less] = change(span[0]);
  if (bound === "at_least") return `${more === "less" ? "at least" : "at most"} ${most} ${more} energy`;
  if (bound === "at_most") return `${less === "less" ? "at most" : "at least"} ${least} ${less} energy`;
  if (most === "0.0%" && least === "0.0%") return "the same energy";
  if (more === less) {
    const [near, far] = more === "less" ? [most, least] : [least, most];
    return `${near === far ? near : `${near} to ${far}`} ${more} energy`;
  }
  return `${least} less to ${most} more energy`;
}

function showEnergyRatio(span, bound) {
  if (!span) return [MISSING];
  const value = { at_least: `≤ ${times(span[1])}×`, at_most: `≥ ${times(span[0])}×` }[bound] || showSpan(span, (ratio) => `${times(ratio)}×`);
  return [`${value},`, describeEnergy(span, bound) + (bound === "best_points" ? " (best points)" : "")];
}

/** Returns a target's sentence about energy after a space; an empty text where a side was not metered. */
function energySentence(other, cell, base, baseCell, bound, kind) {
  const span = energyRatio(cell, baseCell);
  if (!span) return "";
  const joules = (side) => (side.state === "at_least" ? "at most " : "") + showSpan(outputJoules(side), energy);
  const best = bound === "best_points" ? ", best point against best point" : "";
  return ` By ${kind} power of the GPUs an output token takes ${joules(cell)} J with ${other.label} and `
    + `${joules(baseCell)} J with ${base.label}: ${describeEnergy(span, bound)}${best}.`;
}
