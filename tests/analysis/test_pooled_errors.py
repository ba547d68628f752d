"""How an error of few data and what was known before go together."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mtpbench_analysis.curves.errors import inflation, pooled


def test_what_was_known_before_counts_as_its_degrees_of_freedom() -> None:
    assert pooled(4.0, 6, 1.0, 3) == pytest.approx((3.0, 9))
    assert pooled(math.nan, 0, 1.0, 3) == (1.0, 3)
    assert pooled(4.0, 6, 1.0, 0) == (4.0, 6)
    assert pooled(4.0, 6, 1.0, math.inf) == (1.0, math.inf)


def test_a_drawn_error_is_a_t_of_its_degrees_of_freedom() -> None:
    random = np.random.default_rng(1)
    errors = random.standard_normal(400_000) * inflation(random, 3, 400_000)
    assert np.quantile(errors, 0.975) == pytest.approx(3.182, rel=0.03)
    assert (inflation(random, math.inf, 5) == 1).all()
