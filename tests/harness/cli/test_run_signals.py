"""Signals end a run and a job in order: the first one asks, and what hangs then is cancelled."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from mtpbench.cli.options import ending_signals
from mtpbench.cli.run import run_until_signalled
from mtpbench.progress import in_background

HOUR_S = 3600.0


class Work:
    """Work that ends when `stop` is set, or hangs until it is cancelled; counts what it is told."""

    def __init__(self, *, hangs: bool) -> None:
        self.hangs, self.stop = hangs, asyncio.Event()
        self.announced = self.later_signals = 0

    def announce(self) -> None:
        self.announced += 1

    def count_later(self) -> None:
        self.later_signals += 1

    async def run(self) -> str:
        try:
            await (asyncio.sleep(HOUR_S) if self.hangs else self.stop.wait())
        except asyncio.CancelledError:
            return "cancelled"
        return "ended"


async def drive(work: Work, *numbers: signal.Signals, patience_s: float, signalled: bool = False) -> str:
    loop = asyncio.get_running_loop()
    for delay, number in enumerate(numbers, 1):
        loop.call_later(0.05 * delay, os.kill, os.getpid(), number)
    return await run_until_signalled(
        work.run(), work.stop, work.announce, patience_s, on_second=work.count_later, signalled=signalled
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_the_work_to_end(number: signal.Signals) -> None:
    work = Work(hangs=False)
    assert asyncio.run(drive(work, number, patience_s=HOUR_S)) == "ended"
    assert (work.announced, work.later_signals) == (1, 0)


def test_what_hangs_is_cancelled_and_later_signals_are_told_apart() -> None:
    work = Work(hangs=True)
    assert asyncio.run(drive(work, signal.SIGTERM, signal.SIGINT, patience_s=0.5)) == "cancelled"
    assert (work.announced, work.later_signals) == (1, 1)


def test_a_signal_that_came_before_the_work_counts_as_the_first() -> None:
    work = Work(hangs=False)
    assert asyncio.run(drive(work, patience_s=HOUR_S, signalled=True)) == "ended"
    assert (work.announced, work.stop.is_set()) == (1, True)


def test_a_hang_up_that_nohup_has_ignored_stays_ignored() -> None:
    assert signal.SIGHUP in ending_signals()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in ending_signals()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_fault_of_a_background_task_is_raised_at_the_end_of_the_block() -> None:
    async def fail() -> None:
        raise RuntimeError("the guard is gone")

    async def main(*, fault: bool) -> None:
        async with in_background(asyncio.create_task(fail() if fault else asyncio.sleep(HOUR_S))):
            await asyncio.sleep(0)

    asyncio.run(main(fault=False))
    with pytest.raises(RuntimeError, match="the guard is gone"):
        asyncio.run(main(fault=True))


def test_the_fault_of_the_block_goes_before_that_of_its_background_task() -> None:
    async def fail() -> None:
        raise RuntimeError("the guard is gone")

    async def main() -> None:
        async with in_background(asyncio.create_task(fail())):
            await asyncio.sleep(0)
            raise OSError("the block's own")

    with pytest.raises(OSError, match="the block's own"):
        asyncio.run(main())
