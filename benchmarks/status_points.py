"""How `mtpbench status` grows with the points of a sweep, against the way that it once went.

    python benchmarks/status_points.py [--points 200 400 2000]

Stored points of a made-up sweep are laid out in a temporary folder, their files in the page cache. Timed in
one run: our reading of the folder and its table; and, where it ends in bearable time, the former way to the
same table, which looked for each planned point through the ids of all stored ones, and hashed each id anew
(an id is a SHA-256 of the point's JSON).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from load_points import SWEEP, lay_out
from rich import box
from rich.console import Console
from rich.table import Table

from mtpbench.cli.status import render
from mtpbench.snapshot import Snapshot
from mtpbench.snapshot.reader import SnapshotReader
from mtpbench.store.reading import SWEEP_FILE
from mtpbench.sweep import Sweep, load_sweep

MOST_FORMER = 400
"""Points that the former way is tried with: it takes minutes for 2,000."""


def sweep_of(count: int) -> Sweep:
    """The sweep's points, repeated until there are so many."""
    sweep = load_sweep(SWEEP)
    points = tuple(
        replace(sweep.points[number % len(sweep.points)], repeat=number // len(sweep.points))
        for number in range(count)
    )
    return replace(sweep, points=points)


def our_way(sweep: Sweep, folder: Path, console: Console) -> float:
    began = time.perf_counter()
    reader = SnapshotReader(folder)
    snapshot = reader.read()
    assert snapshot is not None
    with console.capture():
        console.print(render(sweep, snapshot, reader.journal))
    return time.perf_counter() - began


def former_way(sweep: Sweep, snapshot: Snapshot) -> float:
    """The look-up alone, without reading a file and without the table."""
    began = time.perf_counter()
    for planned in sweep.points:
        by_id = {replace(seen.stored.point).id: seen for seen in snapshot.points if seen.stored is not None}
        assert replace(planned).id in by_id
    return time.perf_counter() - began


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--points", type=int, nargs="+", default=[200, 400, 2000])
    shown = Table(box=box.SIMPLE_HEAD, title="mtpbench status", title_justify="left")
    for heading in ("points", "this, s", "ms/point", "former look-up, s", "former / this"):
        shown.add_column(heading, justify="right", no_wrap=True)
    quiet = Console(width=140)
    for count in words.parse_args().points:
        with tempfile.TemporaryDirectory() as folder:
            sweep = sweep_of(count)
            lay_out(Path(folder), load_sweep(SWEEP), count)
            assert (Path(folder) / SWEEP_FILE).exists()
            ours_s = our_way(sweep, Path(folder), quiet)
            snapshot = SnapshotReader(Path(folder)).read()
            assert snapshot is not None
            former_s = former_way(sweep, snapshot) if count <= MOST_FORMER else None
        shown.add_row(
            f"{count:,}",
            f"{ours_s:.2f}",
            f"{1000 * ours_s / count:.1f}",
            "—" if former_s is None else f"{former_s:.1f}",
            "—" if former_s is None else f"{former_s / ours_s:.0f}x",
        )
    Console(width=110).print(shown)


if __name__ == "__main__":
    main()
