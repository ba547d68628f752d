"""What several commands share: the sweep, the points, the site of servers; and streams that never fail."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select as selecting
import signal
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Annotated, Any, TextIO

import typer

from mtpbench.deployment import Site
from mtpbench.errors import InputError
from mtpbench.executors import refuse_taken
from mtpbench.executors.local import LocalSite
from mtpbench.records import Point
from mtpbench.slurm.allocation import allocation_here
from mtpbench.slurm.cluster_profile import load_cluster
from mtpbench.slurm.executor import SlurmSite
from mtpbench.slurm.job_steps import StepOptions

RESULTS = Path("results")
INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended."""

SweepArgument = Annotated[Path, typer.Argument(help="a sweep file")]
ResultsOption = Annotated[Path, typer.Option("--results", help="the results folder")]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", help="only points whose id contains this, or matches it as a pattern; repeatable"),
]
AgainOption = Annotated[bool, typer.Option(help="measure points that are valid already again")]


def ending_signals() -> tuple[signal.Signals, ...]:
    """Returns the signals that end a run in order; SIGHUP is none where `nohup` has it ignored."""
    hung_up = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hung_up else []))


def select(points: tuple[Point, ...], patterns: list[str] | tuple[str, ...]) -> tuple[Point, ...]:
    """Returns the points whose id contains a pattern or matches it; all if there are no patterns.

    Raises:
        InputError: a pattern matches no point; the message shows some ids.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        ids = {p.id for p in points if is_chosen(p.id, pattern)}
        ids = ids or {p.id for p in points if pattern in p.id}
        if not ids:
            examples = "\n  ".join(p.id for p in points[:5])
            raise InputError(f"--only {pattern!r} matches no point; ids look like\n  {examples}")
        chosen |= ids
    return tuple(point for point in points if not patterns or point.id in chosen)


def is_chosen(point_id: str, pattern: str) -> bool:
    """Whether a pattern matches whole parts of an id: `c1` is not c16, `mtp*c64` matches any repeat.

    The hash at its end counts as a whole only: `mtp*c2` is not every point whose hash ends in c2.
    """
    parts, _, digest = point_id.rpartition("_")
    if f"_{pattern}_" in f"_{point_id}_" or (pattern.endswith(digest) and fnmatchcase(point_id, pattern)):
        return True
    return any(fnmatchcase(parts, form) for form in (pattern, f"{pattern}_*"))


def site_of(executor: str, cluster: str | None, port: int | None) -> Site:
    """Returns the site that runs the servers.

    Raises:
        InputError: the executor is unknown, or `slurm` is asked for outside an allocation.
        PortInUse: the port is taken.
    """
    if executor == "local":
        if cluster is not None:
            raise InputError("--cluster is for --executor slurm; the local executor needs none")
        if port is not None:
            refuse_taken(port)
        return LocalSite(port)
    if executor == "slurm":
        profile = load_cluster(cluster) if cluster is not None else None
        return SlurmSite(allocation_here(os.environ), StepOptions.of(profile), port)
    raise InputError(f"unknown executor {executor!r}; known: local, slurm")


_PLAIN = {
    "≥": ">=",
    "≤": "<=",
    "≈": "~",
    "×": "x",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "•": "*",
    "·": "|",
    "→": "->",
    "µ": "u",
}
"""What stands for the project's own signs where the encoding does not have them; `?` for any other."""


def _as_plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


_HANDLER = "mtpbench.plain"
codecs.register_error(_HANDLER, _as_plain)


class Sink(io.RawIOBase):
    """A sink writes to a descriptor, and goes on as if nothing were wrong when that fails.

    A measurement of hours does not end because its reader did. The first error is kept.

    Args:
        number: the descriptor.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Writes bytes, all of them, unless an earlier write failed."""
        left = memoryview(data).cast("B")
        total = len(left)
        while left and self.error is None:
            try:
                left = left[os.write(self._number, left) :]
            except BlockingIOError:
                selecting.select([], [self._number], [])
            except OSError as error:
                self.error = error
        return total

    def writable(self) -> bool:
        """Returns whether it takes bytes: always."""
        return True

    def fileno(self) -> int:
        """Returns the descriptor."""
        return self._number

    def isatty(self) -> bool:
        """Returns whether it is a terminal."""
        return os.isatty(self._number)


@contextlib.contextmanager
def safe_output() -> Iterator[Sink | None]:
    """Makes standard output and standard error take any text and never fail while the block runs.

    Closed descriptors lead nowhere from then on, so that no file is opened in their place.

    Returns:
        The sink of standard output; None where that is no descriptor.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    before = sys.stdout, sys.stderr
    out, sink = _safe(sys.stdout, 1)
    err, _ = _safe(sys.stderr, 2)
    sys.stdout, sys.stderr = out, err
    try:
        yield sink
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def _safe(stream: TextIO | None, number: int) -> tuple[TextIO, Sink | None]:
    """Returns a stream for a standard one, and its sink; a stream that a program put there stays."""
    encoding = "utf-8" if stream is None else stream.encoding
    if stream is not None and _descriptor(stream) != number:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)
        return stream, None
    sink = Sink(number)
    buffered: IO[bytes] = io.BufferedWriter(sink)
    return io.TextIOWrapper(buffered, encoding, _HANDLER, line_buffering=sink.isatty() or number == 2), sink


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def output_ended() -> bool:
    """Returns whether nobody reads standard output any more."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, Sink) and raw.error is not None
