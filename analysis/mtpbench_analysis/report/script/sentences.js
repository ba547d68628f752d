// The sentences about the table, the same as in sentences.py.
const anyLeast = (cell) => (cell.state === "at_least" ? "at least " : "");
const figureText = (cell) => (cell.range ? `somewhere from ${showSpan(cell.range, rate)}` : `${anyLeast(cell)}${rate(cell.tput)}`);
const figureOf = (curve, cell) => `${curve.label} ${figureText(cell)}`;
const servesText = (curve, cell) => `${curve.label} serves ${figureText(cell)} tok/s/GPU`;
const endOf = (curve, cell) => `${curve.label} ends at ${speed(cell.knots[0].x)}`;

/** Returns whether a cost differs by nothing that is shown; a bound leaves that open. */
const costsTheSame = (ratio) => !["at_least", "at_most"].includes(ratio.bound)
  && percent(Math.abs(lowerCost(ratio))) === percent(0);

/** Returns what a ratio saves: `58.6% lower cost`, `21.9% higher cost` or `the same cost`. */
function describeCost(ratio) {
  const saved = lowerCost(ratio);
  const lower = { at_least: "at least ", at_most: "at most " }[ratio.bound] || "";
  const higher = { at_least: "at most ", at_most: "at least " }[ratio.bound] || "";
  if (costsTheSame(ratio)) return "the same cost";
  if (percent(Math.abs(saved)) === percent(0)) return `${lower}0.0% lower cost`;
  return saved > 0 ? `${lower}${percent(saved)} lower cost` : `${higher}${percent(-saved)} higher cost`;
}

function runsText(cells) {
  const counts = cells.flatMap((cell) => cell.knots.map((knot) => knot.runs));
  const low = Math.min(...counts), high = Math.max(...counts);
  if (high === 1) return "each point is a single run";
  return `each point is the mean of ${low === high ? low : `${low} to ${high}`} runs`;
}

function clauseOf(curve, cell, kind) {
  if (cell.state === "at_least") {
    return `The best ${curve.label} point does better than asked: it runs at ${speed(cell.runsAt)} tok/s/user`;
  }
  let how = `was ${kind} at that speed`;
  if (cell.state === "interpolated") how = `lies between ${kind} points`;
  if (cell.wide) how += ` ${fixed(cell.knotRatio, 1)} times apart in throughput, so nothing but that range is known`;
  return `The ${curve.label} value ${how}`;
}

function basisOf(other, cell, base, baseCell, kind) {
  const runs = runsText([cell, baseCell]);
  if (cell.state === "interpolated" && baseCell.state === "interpolated") {
    return `Both values lie between ${kind} points; ${runs}.`;
  }
  if (cell.state === "measured" && baseCell.state === "measured") return `Both values were ${kind} at that speed; ${runs}.`;
  return `${clauseOf(other, cell, kind)}. ${clauseOf(base, baseCell, kind)}; ${runs}.`;
}

function verdictOf(ratio, cell, baseCell, other, base, kind, cost) {
  if (ratio.value === null) {
    const [curve, wide] = cell.wide ? [other, cell] : [base, baseCell];
    const [lower, upper] = wide.knots;
    return `no ratio, because the ${curve.label} value lies between two points ${fixed(wide.knotRatio || 0, 1)} times apart `
      + `in throughput (${rate(lower.y)} at ${speed(lower.x)} tok/s/user and ${rate(upper.y)} at ${speed(upper.x)})`;
  }
  const bound = { at_least: "at least ", at_most: "at most " }[ratio.bound] || "";
  const equal = costsTheSame(ratio) ? "equal, " : "";
  const interval = ratio.interval ? ` ${spread(ratio.interval, times)}` : "";
  let text = `${equal}${bound}${times(ratio.value)}${interval} times the throughput, ${describeCost(ratio)} per token`;
  const [usd, baseUsd] = [cell, baseCell].map((side) => (cost ? atCell(cost, side) : null));
  if (typeof usd === "number" && typeof baseUsd === "number") text += ` (${money(usd)} against ${money(baseUsd)} per million)`;
  if (ratio.bound === "best_points") text += `, best ${kind} point against best ${kind} point`;
  return text;
}

/** Curves beside the baseline that all have their sentences; of more only the one that serves the most. */
const MOST_IN_WORDS = 4;

/** Returns which of the curves have a sentence at a target. */
function inWords(curves, cells) {
  if (curves.length <= MOST_IN_WORDS) return curves;
  const least = ({ number }) => cells[number].tput || (cells[number].range ? cells[number].range[0] : 0);
  return [curves.reduce((best, curve) => (least(curve) > least(best) ? curve : best))];
}

/** Returns of which curves the sentences are, where not of all. */
const noteWords = (curves) => (curves.length <= MOST_IN_WORDS ? []
  : [`Of ${curves.length} arms only that which serves the most at a target is put in words; the table has all.`]);

/** Returns the sentence of one target about a curve and the baseline. */
function sentenceOf(other, cell, base, baseCell, ratio, kind, cost) {
  const at = showTarget(cell.target);
  const short = [cell, baseCell].map((side) => side.state === "not_reached");
  if (short[0] && short[1]) {
    return `Neither ${other.label} nor ${base.label} reaches ${at} tok/s/user: ${endOf(other, cell)}, ${endOf(base, baseCell)}.`;
  }
  if (short[0] || short[1]) {
    let [reached, ends] = [[other, cell], [base, baseCell]];
    if (short[0]) [reached, ends] = [ends, reached];
    return `At ${at} tok/s/user ${servesText(...reached)}; ${ends[0].label} does not reach it (${endOf(...ends)}), `
      + `so there is no ratio. ${clauseOf(...reached, kind)}; ${runsText([reached[1]])}.`;
  }
  return `At ${at} tok/s/user ${servesText(other, cell)} and ${figureOf(base, baseCell)}: `
    + `${verdictOf(ratio, cell, baseCell, other, base, kind, cost)}. ${basisOf(other, cell, base, baseCell, kind)}`
    + energySentence(other, cell, base, baseCell, ratio.bound, kind) + (other.checkpoint_note ? ` ${other.checkpoint_note}.` : "");
}
