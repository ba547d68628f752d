"""Request tables as Parquet: compact, and the same to the bit."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from measured import make_request
from mtpbench.requests import RequestTable
from mtpbench.store.columns import read_requests, write_requests


@given(st.data())
def test_any_table_of_whole_microseconds_comes_back_to_the_bit(data) -> None:
    records = []
    for index in range(data.draw(st.integers(0, 6))):
        sent = data.draw(st.floats(0, 1e5))
        times = sorted(data.draw(st.lists(st.floats(sent, 2e5), max_size=5)))
        counts = tuple(itertools.accumulate(data.draw(st.integers(0, 4)) for _ in times))
        counted = data.draw(st.booleans())
        more = {"chunk_tokens": counts if counted else None}
        records.append(make_request(index, index, sent, times, **more))
    table = RequestTable.from_records(records).rounded()
    with tempfile.TemporaryDirectory() as folder:
        write_requests(table, Path(folder) / "requests.parquet")
        again = read_requests(Path(folder) / "requests.parquet")
    for field in dataclasses.fields(RequestTable):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(table, field.name))
