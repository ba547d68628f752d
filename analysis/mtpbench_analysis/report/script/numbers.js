// Numbers as text, the same as in numbers.py: halves of the decimal text are rounded up.
const MISSING = "–";
const LARGEST_FIXED = 1e15;

function fixed(value, decimals) {
  if (!(Math.abs(value) < LARGEST_FIXED)) return value.toExponential(2).replace(/\.?0+e/, "e");
  const [mantissa, exponent] = String(Math.abs(value)).split("e");
  const [whole, part = ""] = mantissa.split(".");
  let digits = BigInt(whole + part);
  const shift = part.length - Number(exponent || 0) - decimals;
  if (shift > 0) {
    const unit = 10n ** BigInt(shift);
    digits = (digits + unit / 2n) / unit;
  } else {
    digits *= 10n ** BigInt(-shift);
  }
  const text = digits.toString().padStart(decimals + 1, "0");
  const cut = text.length - decimals;
  const grouped = text.slice(0, cut).replace(/\B(?=(\d{3})+$)/g, ",");
  return (value < 0 ? "-" : "") + grouped + (decimals ? "." + text.slice(cut) : "");
}

const isKnown = (value) => value !== null && value !== undefined && Number.isFinite(value);
const significant = (value, digits) => String(Number(value.toPrecision(digits)));
const rate = (v) => (!isKnown(v) ? MISSING : fixed(v, v >= 200 ? 0 : v >= 10 ? 1 : 2));
const speed = (v) => (!isKnown(v) ? MISSING : fixed(v, Number.isInteger(v) ? 0 : v >= 1 ? 1 : 3));
const showTarget = (v) => significant(v, 6);
const dollars = (v) => (!isKnown(v) ? MISSING : "$" + (v >= 0.01 ? fixed(v, 3) : significant(v, 2)));
const money = (v) => "$" + (v >= 0.1 ? fixed(v, 2) : v >= 0.01 ? fixed(v, 3) : significant(v, 2));
const seconds = (v) => (!isKnown(v) ? MISSING : fixed(v, v < 10 ? 3 : 1));
const energy = (v) => (!isKnown(v) ? MISSING : fixed(v, v < 1 ? 3 : 2));
const times = (v) => fixed(v, v < 100 ? 2 : 0);
const percent = (share) => fixed(share * 100, 1) + "%";
const spread = (pair, show) => `(${show(pair[0])}–${show(pair[1])})`;
