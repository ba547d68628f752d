"""Request tables as Parquet: compact, and the same to the bit."""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from measured import make_request, power_samples, steady_load
from mtpbench.errors import StoreError
from mtpbench.metrics.request_table import RequestTable
from mtpbench.store import columns
from mtpbench.store.columns import read_packed, read_power, read_requests, write_power, write_requests


@given(st.data(), st.sampled_from([1, 3, 1 << 22]), st.sampled_from([1, 4, 1 << 18]))
def test_any_table_of_whole_microseconds_comes_back_to_the_bit(data, group: int, piece: int) -> None:
    """Whatever the row groups it was written in and the pieces it is read in."""
    records = []
    for index in range(data.draw(st.integers(0, 6))):
        sent = data.draw(st.floats(0, 1e5))
        times = sorted(data.draw(st.lists(st.floats(sent, 2e5), max_size=5)))
        counts = tuple(itertools.accumulate(data.draw(st.integers(0, 4)) for _ in times))
        counted = data.draw(st.booleans())
        more = {
            "chunk_tokens": counts if counted else None,
            "category": data.draw(st.sampled_from([None, "math", "coding"])),
            "drafts": data.draw(st.sampled_from([None, 0, 7])),
            "draft_tokens": data.draw(st.none() | st.integers(0, 99)),
        }
        records.append(make_request(index, index, sent, times, **more))
    table = RequestTable.from_records(records)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.multiple(columns, _GROUP_CHUNKS=group, BATCH_CHUNKS=piece),
    ):
        path = Path(folder) / "requests.parquet"
        write_requests(table, path)
        again, packed = read_requests(path), read_packed(path)
        write_requests(packed, path)
        np.testing.assert_array_equal(read_requests(path).chunk_times_s, table.chunk_times_s)
    for field in dataclasses.fields(RequestTable):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(table, field.name))


def test_times_that_older_schemas_hold_in_seconds_are_read_exactly(tmp_path: Path) -> None:
    table = RequestTable.from_records([make_request(i, i, 0.1 * i, [1e3 + 0.1 * i]) for i in range(50)])
    path = tmp_path / "requests.parquet"
    write_requests(table, path)
    stored = pq.read_table(path)
    for name in ("scheduled", "sent", "end"):
        at = stored.schema.get_field_index(f"{name}_us")
        stored = stored.set_column(at, f"{name}_s", pa.array(getattr(table, f"{name}_s")))
    pq.write_table(stored, path)
    again = read_requests(path)
    for field in dataclasses.fields(RequestTable):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(table, field.name))


def told_load(**more):
    records = steady_load()
    return [dataclasses.replace(record, drafts=3, accepted_draft_tokens=5, **more) for record in records]


def test_files_of_an_older_schema_tell_nothing_of_drafts_and_have_no_categories(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    write_requests(RequestTable.from_records(told_load(category="math")), path)
    assert set(read_requests(path).category) == {"math"}
    names = ("drafts", "draft_tokens", "accepted_draft_tokens", "category")
    pq.write_table(pq.read_table(path).drop_columns(names), path)
    assert [getattr(read_requests(path), name) for name in names] == [None] * 4


def test_a_file_with_more_categories_than_any_dataset_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    records = [dataclasses.replace(make_request(i, i, 0, [1]), category=f"kind {i}") for i in range(65)]
    write_requests(RequestTable.from_records(records), path)
    with pytest.raises(StoreError, match="65 kinds of text: no dataset has more than 64"):
        read_packed(path)


def test_chunks_are_packed_into_few_bytes(tmp_path: Path) -> None:
    write_requests(RequestTable.from_records(steady_load(rounds=50)), tmp_path / "requests.parquet")
    (batch,) = read_packed(tmp_path / "requests.parquet").chunks
    assert (batch.gaps_us.dtype, batch.brought.dtype) == (np.int32, np.int8)


def test_a_file_that_ends_early_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    write_requests(RequestTable.from_records(steady_load(rounds=50)), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes(200) + whole[300:])
    with pytest.raises(StoreError, match=r"requests\.parquet: can't be read"):
        read_packed(path)


@pytest.mark.parametrize("name", ["~", "~root", "a b", os.fsdecode(b"bad\xff")])
def test_a_folder_is_taken_by_its_name_whatever_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A relative path that begins with `~` is no home, and a name's bytes need be no UTF-8."""
    monkeypatch.chdir(tmp_path)
    folder = Path(name)
    folder.mkdir()
    table = RequestTable.from_records(steady_load())
    write_requests(table, folder / "requests.parquet")
    write_power(power_samples(), folder / "power.parquet")
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["power.parquet", "requests.parquet"]
    np.testing.assert_array_equal(read_requests(folder / "requests.parquet").end_us, table.end_us)
    assert list(read_power(folder / "power.parquet")) == power_samples()
