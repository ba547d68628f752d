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
        .superseded/            attempts that a newer one replaced, damaged ones among them

An attempt is written under .attempts/, synced to disk, and renamed into place. A kill between the two
renames of a replacement leaves the old attempt in .superseded/, marked; the next writer puts it back.

A point is damaged where one of its three records can't be read, does not belong there, or holds numbers that
nothing can have (`records` says which); `read_place` is the only judge. It is listed with the reason and left
out of everything, and the next run measures it anew. What was in its place is never deleted: it moves to
.superseded/, or, where we may not enter it, beside its place as `.<point id>~0000`.
"""

from mtpbench.store.columns import read_power
from mtpbench.store.files import exclusive, is_there, replace_file
from mtpbench.store.migration import figures_moved
from mtpbench.store.reading import (
    RawPoint,
    StoredPoint,
    StoredSweep,
    read_place,
    read_point,
    read_raw,
    read_sweep,
)
from mtpbench.store.writing import OpenAttempt, SweepStore, json_text

__all__ = [
    "OpenAttempt",
    "RawPoint",
    "StoredPoint",
    "StoredSweep",
    "SweepStore",
    "exclusive",
    "figures_moved",
    "is_there",
    "json_text",
    "read_place",
    "read_point",
    "read_power",
    "read_raw",
    "read_sweep",
    "replace_file",
]
