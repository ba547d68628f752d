"""A load is how the requests of a point are sent, and what that is called wherever it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mtpbench.records.codec import AboveZero


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The load says how requests are sent: by which pacing, by which transport, and by how many processes.

    Args:
        pacing: `closed` (each slot sends its next request when the last one ended), or an open loop, where
            requests start when their time has come: `poisson`, `gamma`, `constant`, or `trace` (the
            dataset's own timestamps). The point's concurrency is then the most that are in flight.
        rate_rps: mean requests per engine second of an open loop; None for `closed` and `trace`.
        burstiness: shape of `gamma`'s intervals: 1 is Poisson, below 1 burstier, above 1 more even.
        ramp_s: engine seconds over which load rises from nothing; 0 starts with a burst.
        transport: `fast` (our own HTTP/1.1 client, kernel receive stamps), `aiohttp` (TLS, proxies, odd
            servers), or `auto`: fast wherever the address allows.
        workers: client processes, or None for as many as the load needs.
        chunks: whether every chunk time is kept, or only summaries (which can't be recomputed).
        stall_s: a gap between two chunks of one request longer than this (engine seconds) is a stall.
        api_key_env: environment variable that holds the server's key; its value is never stored.
    """

    pacing: Literal["closed", "poisson", "gamma", "constant", "trace"] = "closed"
    rate_rps: AboveZero | None = None
    burstiness: float = 1.0
    ramp_s: float = 0.0
    transport: Literal["auto", "fast", "aiohttp"] = "auto"
    workers: int | None = None
    chunks: Literal["kept", "summarised"] = "kept"
    stall_s: float = 1.0
    api_key_env: str | None = None

    @property
    def open(self) -> bool:
        """Returns whether requests start by the clock, not by the end of others."""
        return self.pacing != "closed"

    @property
    def arrivals(self) -> str | None:
        """Returns how requests of an open loop arrive: `poisson`, `gamma 0.5`, …; None in a closed one."""
        if not self.open:
            return None
        return f"gamma {_exact(self.burstiness)}" if self.pacing == "gamma" else self.pacing


LoadForm = Literal["long", "short", "mark"]
_CLOSED: Mapping[LoadForm, str] = {"long": "concurrency ", "short": "conc. ", "mark": "c"}


def load_label(
    concurrency: int | None,
    rate_rps: float | None = None,
    arrivals: str | None = None,
    ramp_s: float | None = None,
    form: LoadForm = "long",
) -> str:
    """Returns what a point's load is called, wherever it is shown; loads that differ have other labels.

    `concurrency 64` (`conc. 64`, `c64`), or, in an open loop, `8 req/s, cap 2` (`8/s cap 2` as a mark), with
    the arrivals where they are not Poisson's, and with the ramp. What it takes is as in `Load`, or None.
    """
    if rate_rps is None and arrivals is None:
        parts = [f"{_CLOSED[form]}{'unknown' if concurrency is None else concurrency}"]
    else:
        unit = "/s" if form == "mark" else " req/s"
        rate = [] if rate_rps is None else [f"{_exact(rate_rps)}{unit}"]
        parts = [
            " ".join([*rate, *([arrivals] if arrivals and not (rate and arrivals == "poisson") else [])])
        ]
        parts += [] if concurrency is None else [f"cap {concurrency}"]
    parts += [f"ramp {_exact(ramp_s)} s"] if ramp_s else []
    return (" " if form == "mark" else ", ").join(parts)


def _exact(number: float) -> str:
    """Returns a number as short as it can be read back."""
    text = f"{number:g}"
    return text if float(text) == number else repr(number)
