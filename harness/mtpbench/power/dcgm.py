"""Power and energy of GPUs from a DCGM exporter that runs already.

The exporter collects every 30 s by default (`-c`), and answers every scrape with the values it collected
last. A reading therefore counts only when it is new: by the sample's own timestamp where the page has one,
else by a value that moved. A frozen exporter gives no readings, and the energy rules find the gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mtpbench.power import joules, watts
from mtpbench.power.log import (
    MOST_METERS,
    MOST_SECONDS,
    MeterReading,
    MeterState,
    SourceProbe,
    unread,
)
from mtpbench.records import PowerSource, known
from mtpbench.redaction import without_credentials
from mtpbench.served import Metric, Reader, Unserved, metrics

POWER = ("DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_BOARD_POWER_WATTS")
"""The exporter's name of the metric, and DCGM's newer name of the field (155); in watts."""
ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
"""Energy in mJ since the driver was loaded (field 156)."""
LIMITS = ("DCGM_FI_DEV_POWER_MGMT_LIMIT", "DCGM_FI_DEV_ENFORCED_POWER_LIMIT")
"""Limits in watts (fields 160 and 164), where the exporter was told to show them; the later one counts."""
TIMEOUT_S = 1.0
ONE_GPU_PER_MODULE = ("GH200",)
"""Names of modules that are one board of Grace and GPU together."""

Fetch = Callable[[], str]


def readings(text: str) -> dict[str, MeterReading]:
    """Parses a metrics page: returns each GPU's reading by UUID; `meter` is the exporter's own GPU number.

    Raises:
        ValueError: a MIG slice, a GPU without UUID or number, two metrics of one GPU with different times, or
            a torn line.
    """
    power: dict[str, float | None] = {}
    energy: dict[str, float | None] = {}
    number: dict[str, int] = {}
    times: dict[str, set[float | None]] = {}
    for metric in _metrics(text):
        if metric.labels.get("GPU_I_ID"):
            raise ValueError(
                f"GPU {metric.labels.get('gpu')} is divided by MIG; a slice has no meter of its own"
            )
        uuid = metric.labels.get("UUID")
        if not uuid:
            raise ValueError(f"{metric.name} names no UUID of its GPU")
        number[uuid] = metric.whole("gpu", MOST_METERS - 1)
        times.setdefault(uuid, set()).add(_time(metric))
        if metric.name == ENERGY:
            energy[uuid] = joules(metric.value, 1e3)
        else:
            power[uuid] = watts(metric.value)
    if any(len(stamps) > 1 for stamps in times.values()):
        raise ValueError("power and energy of one GPU carry different times")
    by_uuid = {}
    for uuid, gpu in sorted(number.items(), key=lambda item: item[1]):
        (stamp,) = times[uuid]
        by_uuid[uuid] = MeterReading(
            meter=gpu, power_w=power.get(uuid), energy_j=energy.get(uuid), unix_s=stamp
        )
    return by_uuid


def _metrics(text: str) -> list[Metric]:
    return [metric for metric in metrics(text, (*POWER, ENERGY)) if metric.name in (*POWER, ENERGY)]


def _time(metric: Metric) -> float | None:
    if metric.unix_s is None:
        return None
    if (unix_s := known(metric.unix_s, 0.0, MOST_SECONDS)) is None:
        raise ValueError(f"{metric.name} carries the time {metric.unix_s}")
    return unix_s


def _names(text: str) -> tuple[dict[str, str], str | None]:
    """Returns the model of each GPU by UUID, and the driver's version, from the labels of a metrics page."""
    models: dict[str, str] = {}
    driver = None
    for metric in _metrics(text):
        models[metric.labels.get("UUID", "")] = metric.labels.get("modelName", "")
        driver = metric.labels.get("DCGM_FI_DRIVER_VERSION", driver)
    return models, driver


def _limits_w(text: str) -> dict[str, float]:
    """Returns the power limit of each GPU by UUID, where a metrics page has one that can be read."""
    try:
        shown = [
            (metric.name, metric.labels.get("UUID", ""), metric.value) for metric in metrics(text, LIMITS)
        ]
    except ValueError:
        return {}
    limits = {(name, uuid): watts(value) for name, uuid, value in shown}
    return {
        uuid: limit_w for of in LIMITS for (name, uuid), limit_w in limits.items() if name == of and limit_w
    }


class DcgmSource:
    """The DCGM source reads the chosen GPUs from an exporter; it is a `Source`.

    Args:
        url: its metrics page, such as `http://localhost:9400/metrics`.
        gpus: GPU numbers or UUIDs; none for all. A meter's index is its GPU's place in here.
        fetch: returns the page's text in a test.
    """

    def __init__(self, url: str, gpus: Sequence[str] = (), fetch: Fetch | None = None) -> None:
        self._url, self._gpus = url, tuple(gpus)
        self._shown = without_credentials(url)
        self._fetch = fetch or self._get
        self._uuids: tuple[str, ...] = ()
        self._last: dict[str, MeterReading] = {}
        self._page = ""
        """The metrics page that was read last."""

    def probe(self) -> SourceProbe:
        """Returns what the exporter reads of the chosen GPUs, or why it can't be used."""
        try:
            text = self._fetch()
            by_uuid = readings(text)
        except (OSError, Unserved, ValueError) as error:
            return SourceProbe(
                kind="dcgm", reason=unread("no_dcgm", without_credentials(f"{self._shown}: {error}"))
            )
        by_number = {str(reading.meter): uuid for uuid, reading in by_uuid.items()}
        gpus = self._gpus or tuple(by_number)
        uuids = [by_number.get(gpu, gpu) for gpu in gpus]
        missing = [gpu for gpu, uuid in zip(gpus, uuids, strict=True) if uuid not in by_uuid]
        if missing or not uuids:
            detail = f"{self._shown} does not show GPU {', '.join(missing)}"
            return SourceProbe(kind="dcgm", reason=unread("no_gpu", detail))
        self._uuids = tuple(uuids)
        counted = all(by_uuid[uuid].energy_j is not None for uuid in uuids)
        timed = all(by_uuid[uuid].unix_s is not None for uuid in uuids)
        models, driver = _names(text)
        names = [models.get(uuid, "") for uuid in uuids]
        modules = {any(module in name for module in ONE_GPU_PER_MODULE) for name in names}
        if len(modules) > 1:
            return SourceProbe(
                kind="dcgm", reason=unread("mixed_scopes", "some GPUs are metered with their Grace")
            )
        return SourceProbe(
            kind="dcgm",
            source=PowerSource(
                meter="dcgm",
                counter=counted,
                power="exported",
                scope="module" if modules == {True} else "gpu",
                stamped=timed,
            ),
            meters=tuple(enumerate(self._uuids)),
            models=tuple(names) if all(names) else (),
            driver=driver,
        )

    def read(self) -> list[MeterReading]:
        """Returns the GPUs whose reading is new; a GPU that the exporter lost is a failed read."""
        try:
            page = self._fetch()
            by_uuid = readings(page)
        except (OSError, Unserved, ValueError):
            return []
        self._page = page
        new = []
        for meter, uuid in enumerate(self._uuids):
            now, before = by_uuid.get(uuid), self._last.get(uuid)
            if now is None:
                new.append(MeterReading(meter=meter, power_w=None, energy_j=None))
            elif before is None or self._moved(before, now):
                new.append(
                    MeterReading(meter=meter, power_w=now.power_w, energy_j=now.energy_j, unix_s=now.unix_s)
                )
                self._last[uuid] = now
        return new

    def states(self) -> list[MeterState]:
        """Returns UUIDs and power limits; the exporter is read by UUID, so GPUs can't be swapped."""
        limits_w = _limits_w(self._page)
        return [
            MeterState(meter=meter, uuid=uuid, limit_w=limits_w.get(uuid))
            for meter, uuid in enumerate(self._uuids)
        ]

    def close(self) -> None:
        """Does nothing: no resource is held."""

    def _get(self) -> str:
        return asyncio.run(_page(self._url))

    @staticmethod
    def _moved(before: MeterReading, now: MeterReading) -> bool:
        if now.unix_s is not None:
            return now.unix_s != before.unix_s
        # A counter of a GPU that is on always rises; one that stands still is an old value.
        return (now.energy_j, now.power_w) != (before.energy_j, before.power_w)


async def _page(url: str) -> str:
    async with Reader() as reader:
        return await reader.get(url, TIMEOUT_S)
