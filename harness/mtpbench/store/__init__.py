"""The store reads and writes results/, and nothing else does: a point is written whole or not at all.

    results/<sweep>/
        sweep.json              what the tables need to know of the sweep (SweepInfo)
        <point id>/             one finished attempt, taken over by one atomic rename
            point.json          what was measured (Point)
            provenance.json     where it came from (Provenance)
            result.json         everything derived (PointResult); rebuilt by `mtpbench recompute`
            raw.json            what the request table can't tell (ClientHealth, RunFacts)
            requests.parquet    the raw truth: one row per request, chunk times and token counts as lists
            counters.parquet    speculation counters by time and process
            power.parquet       power and energy by time, process and GPU
            logs/               what each process printed while the point ran
        servers/                files and whole logs of each start of a deployment
        progress.json           what a run on this folder is doing now; removed at its end
        comparison.*, points.csv, report.html   the tables, rewritten by every run
        .attempts/              being written; leftovers of dead writers are removed
        .superseded/            attempts that a newer one replaced

An attempt is written under .attempts/, synced to disk, and renamed into place. A kill between the two
renames of a replacement leaves the old attempt in .superseded/, marked; the next writer puts it back.
"""

from mtpbench.store.columns import read_power
from mtpbench.store.migration import figures_moved
from mtpbench.store.reading import (
    RawPoint,
    StoredPoint,
    StoredSweep,
    is_complete,
    is_valid,
    read_point,
    read_raw,
    read_sweep,
)
from mtpbench.store.writing import SweepStore, exclusive, json_text, replace_file, rewrite_result

__all__ = [
    "RawPoint",
    "StoredPoint",
    "StoredSweep",
    "SweepStore",
    "exclusive",
    "figures_moved",
    "is_complete",
    "is_valid",
    "json_text",
    "read_point",
    "read_power",
    "read_raw",
    "read_sweep",
    "replace_file",
    "rewrite_result",
]
