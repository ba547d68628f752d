"""The constants of a curve's shape are what public rows give."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from mtpbench_analysis.curves import shape

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from shape_errors import fit, log_likelihood, most_allowed, read_rows


def test_the_constants_are_the_most_that_public_rows_allow() -> None:
    in_use = (shape.CURVATURE, shape.KINK, shape.ROUGHNESS)
    assert in_use == pytest.approx(most_allowed(read_rows()), rel=0.03)


def test_the_rows_allow_the_curves_to_differ_that_much() -> None:
    """Within what a likelihood can't tell (1.92, a chi-squared of 95%)."""
    rows = read_rows()
    best = max(log_likelihood(rows, fit(rows, df), df) for df in (6.0, 12.0, 24.0))
    assert log_likelihood(rows, fit(rows), shape.CURVES_DF) > best - 1.92


def test_public_rows_miss_by_what_was_found_before() -> None:
    rows = read_rows()
    near = abs(rows.residual[(rows.log_ratio > 0.6931) & (rows.log_ratio < 1.0986)])
    assert len(near) == 30
    assert float(np.median(near)) == pytest.approx(0.067, abs=0.001)
