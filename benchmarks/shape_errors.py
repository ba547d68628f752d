"""How far public curves run from the spline between their knots: the constants of `curves/shape.py`.

Each inner knot of a public curve is left out in turn and read off the curve through the others. Rows of such
errors lie in `shape_rows.csv`. Without arguments the constants are fitted to them again by maximum
likelihood: each curve is rougher or smoother than others by a factor of its own, whose square is scaled
inverse chi-squared, so that the errors of a curve are a multivariate t.

.venv/bin/python benchmarks/shape_errors.py                 # fits the constants to the rows
.venv/bin/python benchmarks/shape_errors.py FILE...         # makes the rows anew, from files of public points

The rows came from the 435 public InferenceX rows of docs/public-rows.md and from two public curves under
tests/fixtures (`dsv4_gb200_off_8k1k.csv`, `glm5_b200_mtp_off_8k1k.csv`), all of them single runs. That a
point is off by `POINT_NOISE` of its own, in both coordinates together, is assumed, and no part of the shape.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import optimize, special  # type: ignore[import-untyped]

from mtpbench_analysis.curves.curve import build_curves
from mtpbench_analysis.curves.errors import START_NOISE
from mtpbench_analysis.curves.noise import CurveNoise, StartNoise
from mtpbench_analysis.curves.shape import CURVATURE, CURVES_DF, KINK, ROUGHNESS, leave_one_out
from mtpbench_analysis.importers import read_sources

ROWS = Path(__file__).with_name("shape_rows.csv")
POINT_NOISE = START_NOISE
ALLOWED_FALL = 1.92
"""Of the log likelihood, half of what a chi-squared of one degree of freedom reaches in 5%."""
MOST_APART = 10.0
"""Knots further apart than this factor tell of cliffs and not of curves: a ratio is withheld long before."""
COLUMNS = ("curve", "knot_ratio", "position", "mixed", "residual", "variance")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ShapeRows:
    """The rows hold what leaving out a knot gave: (n,) each, and (n,) the number of the curve."""

    curve: npt.NDArray[np.intp]
    log_ratio: Floats
    position: Floats
    mixed: Floats
    residual: Floats
    variance: Floats


def read_rows(path: Path = ROWS) -> ShapeRows:
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if float(line["knot_ratio"]) < MOST_APART]
    labels = sorted({line["curve"] for line in lines})
    numbers = {name: np.array([float(line[name]) for line in lines]) for name in COLUMNS[1:]}
    return ShapeRows(
        curve=np.array([labels.index(line["curve"]) for line in lines]),
        log_ratio=np.log(numbers["knot_ratio"]),
        position=numbers["position"],
        mixed=numbers["mixed"],
        residual=numbers["residual"],
        variance=numbers["variance"],
    )


def make_rows(paths: list[Path]) -> list[dict[str, str]]:
    lines = []
    for path in paths:
        for number, curve in enumerate(build_curves(read_sources([path]).points)):
            count = len(curve.measured)
            alone = StartNoise(membership=np.eye(count), sd=POINT_NOISE, df=math.inf, basis="assumed")
            left_out = leave_one_out(curve, CurveNoise(runs=(None,) * count, starts=alone))
            if left_out is None:
                continue
            columns = (
                np.exp(left_out.log_ratio),
                left_out.position,
                left_out.is_mixed.astype(float),
                left_out.residual,
                left_out.variance,
            )
            for values in zip(*columns, strict=True):
                texts = (f"{value:.6g}" for value in values)
                lines.append(dict(zip(COLUMNS, (f"{path.stem} {number}", *texts), strict=True)))
    return lines


def log_likelihood(rows: ShapeRows, constants: Sequence[float] | Floats, df: float) -> float:
    """Returns the logarithm of the likelihood of all rows, a multivariate t for each curve."""
    curvature, kink, roughness = constants
    flat_top = 1 - (2 * rows.position - 1) ** 4
    smooth = ((curvature * rows.log_ratio**2) ** 2 + roughness**2) * flat_top**2
    spread = smooth + (kink * rows.log_ratio * rows.mixed) ** 2 + rows.variance
    count = np.bincount(rows.curve)
    distance = np.bincount(rows.curve, rows.residual**2 / spread)
    size = np.bincount(rows.curve, np.log(spread)) / 2
    whole = special.gammaln((df + count) / 2) - special.gammaln(df / 2) - count / 2 * np.log(df * np.pi)
    return float((whole - (df + count) / 2 * np.log1p(distance / df) - size).sum())


def fit(rows: ShapeRows, df: float = CURVES_DF) -> tuple[float, float, float]:
    """Returns curvature, kink and roughness for the degrees of freedom that the curves have in common."""

    def loss(logs: Floats) -> float:
        return -log_likelihood(rows, np.exp(logs), df)

    start = np.log([CURVATURE, KINK, ROUGHNESS])
    found = optimize.minimize(loss, start, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-4})
    curvature, kink, roughness = np.exp(found.x)
    return float(curvature), float(kink), float(roughness)


def most_allowed(rows: ShapeRows) -> tuple[float, float, float]:
    """Returns the constants times the largest factor that the rows allow (95% by their likelihood ratio)."""
    fitted = fit(rows)
    best = log_likelihood(rows, fitted, CURVES_DF)

    def fall(factor: float) -> float:
        scaled = [factor * value for value in fitted]
        return best - log_likelihood(rows, scaled, CURVES_DF) - ALLOWED_FALL

    factor = float(optimize.brentq(fall, 1.0, 3.0))
    curvature, kink, roughness = (factor * value for value in fitted)
    return curvature, kink, roughness


def main() -> None:
    paths = [Path(text) for text in sys.argv[1:]]
    if paths:
        lines = make_rows(paths)
        with ROWS.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
        print(f"{ROWS}: {len(lines)} rows")
    rows = read_rows()
    print(
        f"{len(rows.residual)} knots of {len(set(rows.curve))} curves, {int(rows.mixed.sum())} of them mixed"
    )
    for low, high in ((1, 1.5), (1.5, 2), (2, 3), (3, 5), (5, 10)):
        inside = (rows.log_ratio >= math.log(low)) & (rows.log_ratio < math.log(high))
        sizes = np.abs(rows.residual[inside])
        print(
            f"  knots {low}x to {high}x apart: {len(sizes)}, median {np.median(sizes):.1%}, "
            f"95% {np.quantile(sizes, 0.95):.1%}"
        )
    for df in (2.0, CURVES_DF, 8.0, 12.0, 30.0):
        print(f"  degrees of freedom {df:g}: log likelihood {log_likelihood(rows, fit(rows, df), df):.2f}")
    names = ("CURVATURE", "KINK", "ROUGHNESS")
    constants = zip(names, fit(rows), most_allowed(rows), (CURVATURE, KINK, ROUGHNESS), strict=True)
    print(f"with {CURVES_DF:g} degrees of freedom:")
    for name, fitted, most, used in constants:
        print(f"  {name}: fitted {fitted:.4g}, at most {most:.4g}, in use {used:.4g}")


if __name__ == "__main__":
    main()
