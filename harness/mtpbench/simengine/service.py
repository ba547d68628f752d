"""What server processes of the embedded engine share: the command line, health, models, errors, faults."""

from __future__ import annotations

import argparse
import json
import os
import reprlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from aiohttp import web

from mtpbench.errors import InputError
from mtpbench.records import (
    MAX_SPEED,
    AcceptanceShape,
    DepthRange,
    DepthRule,
    EngineLimits,
    Fault,
    Method,
    WorkerGroup,
    from_json,
)
from mtpbench.simengine.connection import Connection
from mtpbench.simengine.drafting import Drafting
from mtpbench.simengine.faults import STATUSES, FaultPlan, parse_faults
from mtpbench.simengine.openai import HEADERS, RequestError, bad_request, models_body
from mtpbench.simengine.profile import default_profile
from mtpbench.simengine.step_loop import Clock
from mtpbench.simengine.telemetry import Timings, parse_since

MAX_BODY_BYTES = 256 * 2**20
_LOOPS = ("auto", "asyncio", "uvloop")
_ROLES = ("aggregated", "prefill", "decode", "router")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of a server process; `group` and `limits` are None for a router."""

    name: str
    role: str
    host: str
    port: int
    model: str
    profile: str
    speed: float
    seed: int
    loop: str = "auto"
    drafting: Drafting | None = None
    group: WorkerGroup | None = None
    limits: EngineLimits | None = None
    faults: tuple[Fault, ...] = ()
    prefill: tuple[str, ...] = ()
    decode: tuple[str, ...] = ()
    aggregated: tuple[str, ...] = ()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise InputError(f"{message}; see --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mtpbench.simengine.server", description="The embedded engine over HTTP.")
    add = parser.add_argument
    add("--name", default="simulated")
    add("--role", choices=_ROLES, default="aggregated")
    add("--host", default="127.0.0.1")
    add("--port", type=int, required=True)
    add("--model", required=True, help="the served model's name")
    add("--profile", default=default_profile(), help="a shipped profile or a JSON file")
    add("--speed", type=float, default=1.0, help=f"engine seconds per real second, at most {MAX_SPEED:g}")
    add("--seed", type=int, default=0)
    add("--loop", choices=_LOOPS, default="auto", help="the event loop; uvloop where installed if not given")
    add("--tp", type=int, default=8)
    add("--dp", type=int, default=1)
    add("--ep", type=int, default=1)
    add("--max-running", type=int, help="sequences at once; 1024 per attention-DP rank")
    add("--prefill-chunk-tokens", type=int, help="prompt tokens per step; 8192 per attention-DP rank")
    add("--stream-interval", type=int, default=1)
    add("--kv-tokens", type=int, help="KV-cache tokens of the worker; the profile's where not given")
    add(
        "--acceptance-rates",
        default="",
        help="unconditional acceptance rates, such as 0.79,0.48,0.22; empty is off",
    )
    add("--acceptance-shape", choices=get_args(AcceptanceShape), default="by_position")
    add("--acceptance-spread", type=float, default=0.0, help="relative, of requests' own lengths")
    add("--draft-depth", default="[]", help="JSON: [[first, last, drafts], ...] by requests of a step")
    add("--draft-costs", choices=get_args(Method), default="mtp", help="the method whose steps are played")
    add("--faults", default="[]", help="JSON list of faults")
    for role in ("prefill", "decode", "aggregated"):
        add(f"--{role}", default="", help=f"router: addresses of the {role} workers, comma-separated")
    return parser


def parse_arguments(arguments: Sequence[str] | None) -> Options:
    """Parses the options of a command line (`sys.argv` where None).

    Raises:
        InputError: an option is unknown, missing or impossible.
    """
    parsed = _parser().parse_args(arguments)
    _check_numbers(parsed)
    router = parsed.role == "router"
    return Options(
        name=parsed.name,
        role=parsed.role,
        host=parsed.host,
        port=parsed.port,
        model=parsed.model,
        profile=parsed.profile,
        speed=parsed.speed,
        seed=parsed.seed,
        loop=parsed.loop,
        drafting=_drafting(parsed),
        group=None
        if router
        else WorkerGroup(role=parsed.role, workers=1, tp=parsed.tp, dp=parsed.dp, ep=parsed.ep),
        limits=None if router else _limits(parsed),
        faults=parse_faults(parsed.faults),
        **_addresses(parsed),
    )


def _check_numbers(parsed: argparse.Namespace) -> None:
    if not 0 < parsed.speed <= MAX_SPEED:
        raise InputError(
            f"--speed {parsed.speed:g}: the scaled clock runs above 0 and at most {MAX_SPEED:g} times as "
            "fast as the real one, or the HTTP client would be what is measured"
        )
    for name in ("tp", "dp", "ep", "max_running", "prefill_chunk_tokens", "stream_interval", "kv_tokens"):
        if (value := getattr(parsed, name)) is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: a whole number above 0 is needed")


def _drafting(parsed: argparse.Namespace) -> Drafting | None:
    try:
        rates = tuple(float(rate) for rate in parsed.acceptance_rates.split(",") if rate)
    except ValueError as error:
        raise InputError(
            f"--acceptance-rates {parsed.acceptance_rates}: numbers between commas are needed"
        ) from error
    if not rates:
        return None
    ranges = _ranges(parsed.draft_depth)
    return Drafting(
        rates=rates,
        depth=DepthRule(kind="by_batch", ranges=ranges) if ranges else None,
        shape=parsed.acceptance_shape,
        spread=parsed.acceptance_spread,
        costs=parsed.draft_costs,
    )


def _ranges(text: str) -> tuple[DepthRange, ...]:
    names = ("first", "last", "draft_tokens")
    try:
        rows = [dict(zip(names, row, strict=True)) for row in json.loads(text)]
        return tuple(from_json(DepthRange, row) for row in rows)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"--draft-depth {reprlib.repr(text)}: JSON like [[1,16,3],[17,64,2]] is needed"
        ) from error


def _addresses(parsed: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """Returns the addresses of a router's workers by role."""
    addresses = {
        role: tuple(url.rstrip("/") for url in getattr(parsed, role).split(",") if url)
        for role in ("prefill", "decode", "aggregated")
    }
    router = parsed.role == "router"
    if router and bool(addresses["prefill"]) != bool(addresses["decode"]):
        raise InputError("a router needs --prefill and --decode together, or --aggregated")
    if router and bool(addresses["prefill"]) == bool(addresses["aggregated"]):
        raise InputError("a router needs the addresses of workers: --prefill and --decode, or --aggregated")
    return addresses


def _limits(parsed: argparse.Namespace) -> EngineLimits:
    return EngineLimits(
        max_running=parsed.max_running or 1024 * parsed.dp,
        prefill_chunk_tokens=parsed.prefill_chunk_tokens or 8192 * parsed.dp,
        stream_interval=parsed.stream_interval,
        kv_tokens=parsed.kv_tokens,
    )


class HealthCheck:
    """The health check decides what /health answers, by the plan of faults."""

    def __init__(self, plan: FaultPlan, clock: Clock) -> None:
        self._plan, self._clock = plan, clock

    @property
    def ok(self) -> bool:
        """Returns False for ever when never healthy, and for the first seconds of a slow start."""
        if self._plan.find("never_healthy"):
            return False
        slow = self._plan.find("slow_start")
        return slow is None or self._clock.now_s() >= (5.0 if slow.value is None else slow.value)


def json_response(body: bytes, status: int = 200) -> web.Response:
    """Returns a JSON answer with the header that marks it as simulated."""
    return web.Response(body=body, status=status, content_type="application/json", headers=HEADERS)


def error_response(error: RequestError) -> web.Response:
    """Returns an error in OpenAI's form."""
    return json_response(error.body, error.status)


def models_route(model: str, max_model_len: int) -> web.RouteDef:
    """Returns the route of GET /v1/models."""
    started = int(time.time())

    async def models(request: web.Request) -> web.Response:
        del request
        return json_response(models_body(model, max_model_len, started))

    return web.get("/v1/models", models)


def plain_app(routes: Sequence[web.AbstractRouteDef]) -> web.Application:
    """Returns an application for all but the hot calls.

    Each answer closes its connection: aiohttp has the connection now, and does not know the hot calls.
    """

    async def close(request: web.Request, response: web.StreamResponse) -> None:
        del request
        response.headers["Connection"] = "close"
        response.force_close()

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.add_routes(routes)
    app.on_response_prepare.append(close)
    return app


def timings_routes(
    timings: Timings, more: Callable[[], Mapping[str, Any]], reset: Callable[[], None]
) -> list[web.RouteDef]:
    """Returns the routes of GET /internal/timings?since=N and POST /internal/timings/reset.

    Args:
        timings: of the process.
        more: returns further values for the answer.
        reset: is called at a reset, after the timings are reset.
    """

    async def answer(request: web.Request) -> web.Response:
        try:
            return json_response(timings.render(parse_since(request.query.get("since", "0")), more()))
        except InputError as error:
            return error_response(bad_request(str(error), "since"))

    async def forget(request: web.Request) -> web.Response:
        del request
        timings.reset()
        reset()
        return web.Response(headers=HEADERS)

    return [web.get("/internal/timings", answer), web.post("/internal/timings/reset", forget)]


def play_immediate_faults(connection: Connection, faults: Mapping[str, Fault]) -> bool:
    """Plays the faults that strike before anything is computed: exits, error statuses, a closed connection.

    Returns:
        Whether a fault ended the request.
    """
    if fault := faults.get("exit_after_bind"):
        os._exit(int(fault.value or 1))
    for kind, status in STATUSES.items():
        if kind in faults:
            names = {429: "RateLimitError", 500: "InternalServerError", 503: "ServiceUnavailableError"}
            connection.fail(RequestError(status, names[status], f"{kind}: a fault that was asked for"))
            return True
    if "disconnect_before_stream" in faults:
        connection.hang_up()
        return True
    return False
