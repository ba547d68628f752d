"""What every server process of the embedded engine answers alike: health, models, errors, request faults."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from mtpbench.errors import InputError
from mtpbench.records import Fault
from mtpbench.simengine.connection import Connection
from mtpbench.simengine.faults import STATUSES, FaultPlan
from mtpbench.simengine.openai import HEADERS, RequestError, bad_request, models_body
from mtpbench.simengine.pump import Clock
from mtpbench.simengine.telemetry import Timings, parse_since

MAX_BODY_BYTES = 256 * 2**20


class Health:
    """Whether /health may say yes, by the plan of faults."""

    def __init__(self, plan: FaultPlan, clock: Clock) -> None:
        self._plan, self._clock = plan, clock

    @property
    def ok(self) -> bool:
        """False for ever when never healthy, and for the first seconds of a slow start."""
        if self._plan.find("never_healthy"):
            return False
        slow = self._plan.find("slow_start")
        return slow is None or self._clock.now_s() >= (5.0 if slow.value is None else slow.value)


def json_response(body: bytes, status: int = 200) -> web.Response:
    """A JSON answer that says it is simulated."""
    return web.Response(body=body, status=status, content_type="application/json", headers=HEADERS)


def error_response(error: RequestError) -> web.Response:
    """An error in OpenAI's form."""
    return json_response(error.body, error.status)


def models_route(model: str, max_model_len: int) -> web.RouteDef:
    """GET /v1/models."""
    started = int(time.time())

    async def models(request: web.Request) -> web.Response:
        del request
        return json_response(models_body(model, max_model_len, started))

    return web.get("/v1/models", models)


def plain_app(routes: Sequence[web.AbstractRouteDef]) -> web.Application:
    """An application for all but the hot calls.

    Each of its answers closes the connection: aiohttp keeps what it was handed, and knows no hot call.
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
    """GET /internal/timings?since=N and POST /internal/timings/reset.

    Args:
        timings: the process's own.
        more: what else to say there.
        reset: called besides.
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


def play_early(connection: Connection, struck: Mapping[str, Fault]) -> bool:
    """Play what strikes before anything is computed: exits, error statuses, a closed connection.

    Answers whether the request ended with it.
    """
    if fault := struck.get("exit_after_bind"):
        os._exit(int(fault.value or 1))
    for kind, status in STATUSES.items():
        if kind in struck:
            names = {429: "RateLimitError", 500: "InternalServerError", 503: "ServiceUnavailableError"}
            connection.fail(RequestError(status, names[status], f"{kind}: a fault that was asked for"))
            return True
    if "disconnect_before_stream" in struck:
        connection.hang_up()
        return True
    return False
