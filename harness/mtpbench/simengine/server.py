"""One worker of the embedded engine, or the router in front of several, as an OpenAI HTTP server.

    python -m mtpbench.simengine.server --role aggregated --profile dsv4-gb200 --tp 8 --port 8000 --model m
    python -m mtpbench.simengine.server --role router --prefill URL,… --decode URL,… --port 8000 --model m

SIGTERM and SIGINT end it at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from aiohttp import web

from mtpbench.errors import InputError, MtpbenchError
from mtpbench.simengine.arguments import Options, parse_arguments
from mtpbench.simengine.faults import FaultPlan
from mtpbench.simengine.pump import Clock
from mtpbench.simengine.router import router_app
from mtpbench.simengine.service import Health
from mtpbench.simengine.worker_app import worker_app

_SHUTDOWN_S = 0.01
"""Streams in flight get no time to end; 0 would mean to wait for them for ever."""


def make_app(options: Options, clock: Clock) -> web.Application:
    """The application of a worker or of the router.

    Raises:
        InputError: the options don't fit together.
    """
    plan = FaultPlan(options.faults, options.seed)
    health = Health(plan, clock)
    if options.role == "router":
        return router_app(options, plan, clock, health)
    return worker_app(options, plan, clock, health)


async def serve(options: Options) -> None:
    """Listen until a signal asks to stop.

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
    app = make_app(options, clock)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port, backlog=4096).start()
        _log(f"{options.name}: simulated {options.role} on {options.host}:{options.port}")
        if (fault := plan.find("exit_after_bind")) and fault.at_request is None:
            loop.call_later((fault.at_s or 0.0) / options.speed, os._exit, int(fault.value or 1))
        await stop.wait()
    finally:
        await runner.cleanup()


def _log(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server; the exit status is 0 after a signal, 2 for wrong options, 3 for a port in use."""
    try:
        options = parse_arguments(arguments)
        asyncio.run(serve(options))
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
