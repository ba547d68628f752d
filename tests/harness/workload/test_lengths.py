"""Lengths are uniform, seeded, and do not depend on how many are drawn."""

from __future__ import annotations

import numpy as np

from mtpbench.records import Workload
from mtpbench.workload import draw_lengths

RANDOM = Workload(isl=64, osl=8, range_ratio=0.5)


def test_lengths_lie_in_their_range_and_do_not_depend_on_how_many_are_drawn():
    few, many = draw_lengths(RANDOM, 10, 1), draw_lengths(RANDOM, 1000, 1)
    assert (many.prompt_tokens.min(), many.prompt_tokens.max()) == (32, 64)
    assert (many.output_tokens.min(), many.output_tokens.max()) == (4, 8)
    assert np.array_equal(few.prompt_tokens, many.prompt_tokens[:10])
    assert np.array_equal(few.output_tokens, many.output_tokens[:10])
    assert not np.array_equal(many.prompt_tokens, draw_lengths(RANDOM, 1000, 2).prompt_tokens)


def test_the_numbers_stay_what_they_were():
    """Old results stay comparable: these are the lengths of version 0.1."""
    drawn = draw_lengths(Workload(isl=8192, osl=1024, range_ratio=0.8), 4, 7)
    assert drawn.prompt_tokens.tolist() == [7980, 7816, 7989, 6737]
    assert drawn.output_tokens.tolist() == [877, 876, 851, 911]
