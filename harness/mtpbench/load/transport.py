"""What every transport is and is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mtpbench.load.client_health import SelfWatch
from mtpbench.load.scheduler import Scheduler

DRAIN_S = 1.0
"""How long an answer that has said all may take to end: its connection can be kept then."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TransportOptions:
    """One process's share of a load, and who is told of it.

    Args:
        scheduler: what to send, and where its ends are recorded.
        watch: what this process notes of itself.
        path: the path of every request.
        control: a descriptor that becomes readable when `hear` has something to do, or None.
        hear: reads it.
    """

    scheduler: Scheduler
    watch: SelfWatch
    path: str
    control: int | None = None
    hear: Callable[[], None] | None = None


class Transport(Protocol):
    """A transport drives one process's share of a load: opened, run once, closed."""

    def open(self, connections: int) -> None:
        """Get ready before the clock starts, with so many connections where they can be made beforehand.

        Raises:
            RunError: the server's host has no address.
        """

    def run(self) -> None:
        """Send and receive until the share is done or cut off."""

    def close(self) -> None:
        """Close every connection."""
