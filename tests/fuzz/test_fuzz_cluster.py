"""Cluster files: whatever a time limit is given as."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from mtpbench.slurm.cluster_profile import seconds_of


@given(st.text(string.digits + ":- \n", max_size=20))
def test_a_time_is_seconds_or_stays_what_it_was(text: str) -> None:
    seconds = seconds_of(text)
    assert seconds == text or isinstance(seconds, int)
