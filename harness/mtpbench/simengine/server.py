"""The server of the embedded engine: one worker, or the router in front of several, over OpenAI's HTTP API.

    python -m mtpbench.simengine.server --role aggregated --profile dsv4-gb200 --tp 8 --port 8000 --model m
    python -m mtpbench.simengine.server --role router --prefill URL,… --decode URL,… --port 8000 --model m

SIGTERM and SIGINT end it at once.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from mtpbench.errors import InputError, MtpbenchError
from mtpbench.simengine.connection import Intake
from mtpbench.simengine.faults import FaultPlan
from mtpbench.simengine.router import RouterApp
from mtpbench.simengine.service import MAX_BODY_BYTES, HealthCheck, Options, parse_arguments
from mtpbench.simengine.step_loop import Clock
from mtpbench.simengine.worker_app import WorkerApp

_SHUTDOWN_S = 0.01
"""Seconds that streams in flight get to end; 0 would mean to wait for them for ever."""
_BACKLOG = 16_384
"""Connections that may wait to be accepted; the system's net.core.somaxconn can cut it."""
_FILES = 65_536
"""Open files that the server asks the system for, one per connection."""
_GC = (100_000, 50, 1_000)
"""Thresholds that make garbage collections rare: streams free themselves, and a pause makes steps late."""


@asynccontextmanager
async def listening(options: Options, clock: Clock) -> AsyncIterator[int]:
    """Serves while the context lasts, and yields the port, which the system chooses for port 0.

    Raises:
        InputError: the options don't fit together.
        OSError: the port can't be bound.
    """
    plan = FaultPlan(options.faults, options.seed)
    health = HealthCheck(plan, clock)
    make_front = RouterApp if options.role == "router" else WorkerApp
    front = make_front(options, plan, clock, health)
    runner = web.AppRunner(
        front.app(), access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S
    )
    await runner.setup()
    others = runner.server
    assert others is not None, "set up just now"
    intake = Intake(front.handlers(), others, MAX_BODY_BYTES)
    try:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(intake.connect, options.host, options.port, backlog=_BACKLOG)
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            intake.close()
    finally:
        await runner.cleanup()


async def serve(options: Options) -> None:
    """Listens until a signal ends it.

    Raises:
        OSError: the port can't be bound.
    """
    clock = Clock(options.speed)
    plan = FaultPlan(options.faults, options.seed)
    if fault := plan.find("exit_before_bind"):
        _log(f"{options.name}: exits before it binds its port, as planned")
        raise SystemExit(int(fault.value or 1))
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    ignored = plan.find("sigterm_ignored") is not None
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if ignored else stop.set)
    async with listening(options, clock):
        _log(f"{options.name}: simulated {options.role} on {options.host}:{options.port}")
        if (fault := plan.find("exit_after_bind")) and fault.at_request is None:
            loop.call_later((fault.at_s or 0.0) / options.speed, os._exit, int(fault.value or 1))
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC)
        await stop.wait()


def _new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """Returns a new event loop: uvloop's where it is installed and not ruled out."""
    if kind != "asyncio":
        try:
            import uvloop

            return uvloop.new_event_loop()
        except ImportError:
            if kind == "uvloop":
                raise InputError("--loop uvloop: uvloop is not installed; leave the option out") from None
    return asyncio.new_event_loop()


def _allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _log(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server; the exit status is 0 after a signal, 2 for wrong options, 3 for a port in use."""
    try:
        options = parse_arguments(arguments)
        _allow_files()
        with asyncio.Runner(loop_factory=lambda: _new_loop(options.loop)) as runner:
            runner.run(serve(options))
    except InputError as error:
        _log(f"error: {error}")
        return error.exit_code
    except OSError as error:
        _log(f"error: {options.host}:{options.port}: {error.strerror}")
        return 3
    except MtpbenchError as error:
        _log(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
