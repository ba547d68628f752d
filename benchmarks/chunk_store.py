"""How much room 60 million chunk times take on disk, against plain columns, and how long that takes.

    python benchmarks/chunk_store.py [MILLIONS]

Made-up but lifelike chunks: requests of about 370 events, gaps with the noise of real steps, 1 to 4 tokens
each. Printed: bytes per event and seconds of the store's own encoding, and of float64 times and int64 counts
with the same compression, written by the same library in the same run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from mtpbench.metrics.request_table import UNKNOWN, RequestTable, whole_us
from mtpbench.store.columns import read_requests, write_requests

EVENTS_PER_REQUEST = 366
GAP_S, NOISES_S = 0.060, (0.002, 0.010, 0.030)


def lifelike(events: int, noise_s: float) -> RequestTable:
    """Requests that start over time, each with a prefill and then noisy steps."""
    rng = np.random.default_rng(1)
    rows = events // EVENTS_PER_REQUEST
    gaps = rng.gamma((GAP_S / noise_s) ** 2, noise_s**2 / GAP_S, size=(rows, EVENTS_PER_REQUEST))
    gaps[:, 0] = rng.gamma(4.0, 1.2, size=rows)
    sent = np.sort(rng.uniform(0, 2700, size=rows))
    times = sent[:, None] + np.cumsum(gaps, axis=1)
    tokens = np.cumsum(
        rng.choice([1, 2, 3, 4], size=(rows, EVENTS_PER_REQUEST), p=[0.25, 0.3, 0.25, 0.2]), axis=1
    )
    counts = np.full(rows, EVENTS_PER_REQUEST)
    nothing = np.full(rows, None, object)
    return RequestTable(
        index=np.arange(rows),
        slot=np.arange(rows) % 16_384,
        warmup=np.zeros(rows, np.bool_),
        scheduled_us=whole_us(sent),
        sent_us=whole_us(sent),
        end_us=whole_us(times[:, -1]),
        asked_prompt_tokens=np.full(rows, 8192),
        asked_output_tokens=tokens[:, -1],
        prompt_tokens=np.full(rows, 8192),
        output_tokens=tokens[:, -1],
        cached_prompt_tokens=np.full(rows, UNKNOWN),
        reasoning_tokens=np.full(rows, UNKNOWN),
        finish_reason=np.full(rows, "length", object),
        error=nothing,
        error_detail=nothing,
        chunk_offsets=np.concatenate(([0], np.cumsum(counts))),
        chunk_times_us=whole_us(times.ravel()),
        chunk_tokens=tokens.ravel(),
    )


def write_plain(table: RequestTable, path: Path) -> None:
    """The straightforward way: the table's own columns."""
    offsets = pa.array(table.chunk_offsets, pa.int64())
    columns = {
        "chunk_times_s": pa.LargeListArray.from_arrays(offsets, pa.array(table.chunk_times_s)),
        "chunk_tokens": pa.LargeListArray.from_arrays(
            offsets, pa.array(table.chunk_tokens, mask=table.chunk_tokens == UNKNOWN)
        ),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def main(millions: float) -> None:
    shown = Table(box=box.SIMPLE_HEAD, title=f"{millions:g} million chunk times", title_justify="left")
    for heading in (
        "noise of a gap",
        "stored, MB",
        "B/event",
        "plain, MB",
        "B/event",
        "ratio",
        "write s",
        "read s",
    ):
        shown.add_column(heading, justify="right", no_wrap=True)
    for noise_s in NOISES_S:
        table = lifelike(int(millions * 1e6), noise_s)
        events = len(table.chunk_times_us)
        with tempfile.TemporaryDirectory() as folder:
            ours, plain = Path(folder) / "ours.parquet", Path(folder) / "plain.parquet"
            began = time.perf_counter()
            write_requests(table, ours)
            written = time.perf_counter()
            again = read_requests(ours)
            read = time.perf_counter()
            assert np.array_equal(again.chunk_times_us, table.chunk_times_us)
            assert np.array_equal(again.chunk_tokens, table.chunk_tokens)
            write_plain(table, plain)
            sizes = ours.stat().st_size, plain.stat().st_size
        shown.add_row(
            f"{noise_s * 1e3:g} ms",
            f"{sizes[0] / 1e6:.0f}",
            f"{sizes[0] / events:.2f}",
            f"{sizes[1] / 1e6:.0f}",
            f"{sizes[1] / events:.2f}",
            f"{sizes[1] / sizes[0]:.1f}x",
            f"{written - began:.1f}",
            f"{read - written:.1f}",
        )
    Console(width=110).print(shown)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
