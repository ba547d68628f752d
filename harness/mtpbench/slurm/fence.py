"""Who owns a deployment: an attempt that does no longer must not put its points into their places."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from mtpbench.errors import StoreError
from mtpbench.records import Point, PointResult, Provenance
from mtpbench.slurm.client import Slurm
from mtpbench.slurm.journal import Attempt, JobFile, Journal
from mtpbench.store import RawPoint, SweepStore

OWNER_EVERY_S = 5.0
"""Between two looks at the file of the owner while load runs."""

Outcome = Literal["done", "stopped", "failed", "superseded"]


class Fence:
    """Whether an attempt still owns its deployment.

    `lost` says why not, `outcome` what the attempt's end is called then.
    """

    def __init__(self, journal: Journal, attempt: Attempt, slurm: Slurm) -> None:
        self._journal, self._attempt, self._slurm = journal, attempt, slurm
        self.lost: str | None = None
        self.outcome: Outcome = "superseded"

    def holds(self) -> bool:
        """Whether the file of the owner names this attempt; one that can't be read is no evidence."""
        if self.lost is None:
            with contextlib.suppress(StoreError):
                owner = self._journal.owner(self._attempt.key)
                if owner is not None and owner.name != self._attempt.name:
                    self.lost = f"attempt {owner.name} on {owner.host} has taken over"
        return self.lost is None

    def is_alive_to_slurm(self) -> bool:
        """Whether Slurm still runs this attempt, as far as it answers.

        Asked when something failed: the servers of a job that is being requeued or cancelled die first, and
        their deaths say nothing about them.
        """
        if not self.holds():
            return False
        result = self._slurm.query((), (self._attempt.job_id,))
        status = result.statuses.get(self._attempt.job_id) if result.answer == "ok" else None
        if status is None:
            return True
        if (status.restarts or 0) > self._attempt.restart or status.state in ("pending", "requeued"):
            self.lost = f"Slurm has requeued the job ({status.raw})"
        elif status.state not in ("running", "suspended", "unknown"):
            self.lost, self.outcome = f"Slurm is ending the job ({status.raw})", "stopped"
        return self.lost is None


class FencedStore(SweepStore):
    """The store of one attempt: once it owns its deployment no longer, its points take no place.

    Args:
        root: the results folder.
        job: what the attempt runs.
        fence: whether it owns it.
        stop: set when it does no longer.
    """

    def __init__(self, root: Path, job: JobFile, fence: Fence, stop: asyncio.Event) -> None:
        super().__init__(root, job.sweep)
        self._fence, self._stop = fence, stop

    def write(
        self,
        point: Point,
        result: PointResult,
        provenance: Provenance,
        raw: RawPoint,
        logs: Mapping[str, bytes],
        *,
        superseded: bool = False,
    ) -> Path:
        """Write a point, beside its place where another attempt owns that."""
        # A cut-off point of a run that was told to stop needs no further evidence.
        failed = not result.valid and not self._stop.is_set()
        held = self._fence.is_alive_to_slurm() if failed else self._fence.holds()
        if not held:
            self._stop.set()
        aside = superseded or not held
        return super().write(point, result, provenance, raw, logs, superseded=aside)
