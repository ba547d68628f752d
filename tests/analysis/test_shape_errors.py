"""The constants of a curve's shape are what public rows give."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from mtpbench_analysis.curves import shape

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from shape_errors import fit, read_rows


def test_the_constants_are_those_that_public_rows_give() -> None:
    in_use = (shape.CURVATURE, shape.KINK, shape.ROUGHNESS, shape.CURVES_DF)
    assert in_use == pytest.approx(fit(read_rows()), rel=0.03)


def test_public_rows_miss_by_what_was_found_before() -> None:
    rows = read_rows()
    near = abs(rows.residual[(rows.log_ratio > 0.6931) & (rows.log_ratio < 1.0986)])
    assert len(near) == 30
    assert float(np.median(near)) == pytest.approx(0.067, abs=0.001)
