"""What a deployment needs of the place where it runs: this machine (`local`), or a job (`slurm.executor`)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from mtpbench.placeholders import Placement
from mtpbench.power.meter import MeteredNode
from mtpbench.records import Deployment, Point, Process
from mtpbench.remote import Host


class Handle(Protocol):
    """A running process, whatever executor runs it."""

    process: Process
    log: Path

    def ended(self) -> str | None:
        """How it ended, or None while it runs."""

    def owns_port(self, port: int) -> bool | None:
        """Whether it is the one that listens on a port; None where that can't be told."""

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log."""


class Executor(Protocol):
    """Where processes run."""

    name: str

    def place(self, deployment: Deployment) -> Placement:
        """Hosts and ports for every process."""

    def start(self, process: Process, placement: Placement) -> Handle:
        """Start one process."""

    def stop(self) -> None:
        """End every process started."""


class Site(Protocol):
    """A place where deployments run, one after the other: this machine, or a Slurm allocation."""

    name: str

    def executor(self, directory: Path) -> Executor:
        """What runs one start of a deployment, with its files and logs in a directory of its own."""

    def obstacle(self, deployment: Deployment, point: Point) -> str | None:
        """Why a deployment can't run here, and what can be done instead; None where it can."""

    def metered(self, deployment: Deployment, directory: Path) -> tuple[MeteredNode, ...]:
        """The nodes whose GPUs a deployment holds, to be read by samplers that write into a directory.

        Raises:
            RunError: a node does not answer.
            Unread: the GPUs can't be told apart.
        """

    def client_hosts(self, directory: Path) -> tuple[Host, ...]:
        """Other hosts that the load client runs on, which see the directory; none for this one."""

    def notes(self) -> tuple[str, ...]:
        """Where this is, for the record; nothing where the host's name says it all."""
