"""The request table and its records."""

from __future__ import annotations

import numpy as np

from measured import make_request
from mtpbench.metrics.request_table import UNKNOWN, RequestTable

RECORDS = [
    make_request(0, 1, 0.0, [0.5, 1.0], chunk_tokens=(1, 4), output_tokens=4, cached_prompt_tokens=64),
    make_request(
        1,
        0,
        0.1,
        [],
        error="http_503",
        error_detail="busy",
        chunk_tokens=None,
        output_tokens=None,
        prompt_tokens=None,
        finish_reason=None,
        end_s=0.2,
    ),
    make_request(2, 0, 0.25, [0.75], chunk_tokens=None, warmup=True),
]


def test_records_come_back_from_the_table_unchanged_and_in_order():
    back = list(RequestTable.from_records(reversed(RECORDS)).records())
    assert [record.index for record in back] == [0, 1, 2]
    assert back[0] == RECORDS[0]
    assert back[2] == RECORDS[2]
    assert (back[1].error, back[1].output_tokens, back[1].chunk_times_s) == ("http_503", None, ())


def test_unknown_counts_and_missing_chunks_are_marked():
    table = RequestTable.from_records(RECORDS)
    assert table.output_tokens.tolist() == [4, UNKNOWN, 1]
    assert table.chunk_tokens.tolist() == [1, 4, UNKNOWN]
    assert table.chunk_counts.tolist() == [2, 0, 1]
    assert table.chunk_rows.tolist() == [0, 0, 2]
    assert table.ok.tolist() == [True, False, True]
    assert np.isnan(table.first_chunk_s[1])
    assert table.first_chunk_s[[0, 2]].tolist() == [0.5, 0.75]
    assert table.last_chunk_s[[0, 2]].tolist() == [1.0, 0.75]


def test_an_empty_table_has_no_rows():
    table = RequestTable.from_records([])
    assert len(table) == 0
    assert list(table.records()) == []
    assert table.first_chunk_s.tolist() == []
