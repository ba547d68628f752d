"""What every server process of the embedded engine answers alike: health, models, errors, request faults."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from aiohttp import web

from mtpbench.records import Fault
from mtpbench.simengine.faults import STATUSES, FaultPlan
from mtpbench.simengine.openai import HEADERS, RequestError, models_body
from mtpbench.simengine.pump import Clock

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


def play_early(request: web.Request, struck: Mapping[str, Fault]) -> web.Response | None:
    """Play what strikes before anything is computed: exits, error statuses, a closed connection."""
    if fault := struck.get("exit_after_bind"):
        os._exit(int(fault.value or 1))
    for kind, status in STATUSES.items():
        if kind in struck:
            names = {429: "RateLimitError", 500: "InternalServerError", 503: "ServiceUnavailableError"}
            return error_response(RequestError(status, names[status], f"{kind}: a fault that was asked for"))
    if "disconnect_before_stream" in struck:
        if request.transport is not None:
            request.transport.close()
        return web.Response(status=500)
    return None
