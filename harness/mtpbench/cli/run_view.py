"""What a run shows while it runs: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from mtpbench.load.client import LoadProgress
from mtpbench.records import Deployment, Point, PointResult

PLAIN_EVERY_S = 10.0


class RunView:
    """Shows a run: which deployment, which point, how far, tokens per second, time left.

    Args:
        console: where to.
        total: points to run.
    """

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.finished, self.invalid = console, total, 0, 0
        self._live = console.is_terminal
        self._begun = time.monotonic()
        self._last_plain = 0.0
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[rate]}"),
            _TimeLeft(self),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=1.0, rate="")

    def __enter__(self) -> RunView:
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._bar.stop()

    def ladder_started(self, deployment: Deployment | None, points: Sequence[Point]) -> None:
        """Say what is being started."""
        first = points[0]
        if deployment is None:
            self._say(f"{len(points)} points on the virtual clock")
        else:
            processes = f"{len(deployment.processes)} process" + (
                "es" if len(deployment.processes) > 1 else ""
            )
            rungs = ", ".join(dict.fromkeys(str(point.concurrency) for point in points))
            self._say(
                f"{first.arm.name} on {first.topology.name}: starting {processes} for concurrency {rungs}"
            )
        self._describe("waiting for the servers" if deployment else "simulating")

    def point_started(self, point: Point) -> None:
        """Reset the bar."""
        self._describe(_name(point))

    def point_progress(self, point: Point, progress: LoadProgress) -> None:
        """Move the bar; elsewhere than on a terminal, a line every ten seconds."""
        share = progress.ended / max(1, progress.total)
        output_tps = progress.output_tokens / progress.elapsed_s if progress.elapsed_s > 0 else 0.0
        rate = f"{output_tps:,.0f} output tok/s, {progress.in_flight} in flight"
        if self._live:
            self._bar.update(self._task, completed=share, rate=rate)
        elif time.monotonic() - self._last_plain > PLAIN_EVERY_S:
            self._last_plain = time.monotonic()
            ended = f"{progress.ended}/{progress.total} requests"
            self.console.print(f"  {_name(point)}: {ended}, {rate}", highlight=False)

    def point_finished(self, point: Point, result: PointResult) -> None:
        """One line for each point, with its reasons if it is invalid."""
        self.finished += 1
        self.invalid += not result.valid
        self._describe("")
        self._say(f"[{self.finished}/{self.total}] {_name(point)}: {summary(result)}")
        for reason in result.reasons:
            self._say(f"    invalid, {reason.code}: {reason.detail.splitlines()[0]}", style="red")

    def trouble(self, message: str) -> None:
        """Something that the run survives."""
        self._say(f"  trouble: {message}", style="yellow")

    def seconds_left(self) -> float | None:
        """The time left, if the rest goes as fast as what is finished; None before the first point."""
        if not self.finished:
            return None
        return (time.monotonic() - self._begun) / self.finished * (self.total - self.finished)

    def _describe(self, text: str) -> None:
        self._bar.update(self._task, description=text, completed=0.0, rate="")

    def _say(self, text: str, style: str | None = None) -> None:
        self.console.print(text, style=style, highlight=False, markup=False)


class _TimeLeft(ProgressColumn):
    def __init__(self, run: RunView) -> None:
        super().__init__()
        self._run = run

    def render(self, task: Task) -> Text:
        """The column's text."""
        del task
        left = self._run.seconds_left()
        done = f"{self._run.finished}/{self._run.total} points"
        return Text(done if left is None else f"{done}, about {left:.0f} s left", style="dim")


def _name(point: Point) -> str:
    repeat = f" repeat {point.repeat}" if point.repeat else ""
    return f"{point.arm.name} {point.topology.name} c{point.concurrency}{repeat}"


def summary(result: PointResult) -> str:
    """The figures of a point in one line."""
    rates = result.steady or result.whole
    if rates is None or result.interactivity_tps is None:
        return "no figures"
    figures = [f"{rates.tput_tps_per_gpu:,.1f} tok/s/GPU", f"{result.interactivity_tps:.1f} tok/s/user"]
    if result.ttft_s:
        figures.append(f"TTFT {result.ttft_s.p50:.2f} s")
    if result.acceptance.length is not None:
        figures.append(f"AL {result.acceptance.length:.2f}")
    return ", ".join(figures) + (" SIMULATED" if result.simulated else "")
