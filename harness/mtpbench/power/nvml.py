"""Power and energy of NVIDIA GPUs on this node, through NVML.

Source: nvidia-ml-py. The energy counter (mJ since the driver was loaded) is read first, and energy is
computed from it. Power is the instant reading where the driver has it, else the one-second average. Counter
and power cover the same scope, or there is no power. A MIG slice has no meter of its own and is refused.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mtpbench.power import joules, watts
from mtpbench.power.log import (
    MOST_METERS,
    TEMPERATURES_C,
    MeterReading,
    MeterState,
    SourceProbe,
    Unread,
)
from mtpbench.records import PowerSource, Scope, known

FIELD_ENERGY = 83
FIELD_POWER_INSTANT = 186
SCOPE_NUMBERS: dict[Scope, int] = {"gpu": 0, "module": 1}
ONE_GPU_PER_MODULE = ("GH200",)
"""Names of modules whose energy counter covers Grace and one GPU together, so that nothing counts twice."""
CELSIUS_OF_GPU = 0


def list_gpus(library: Any = None) -> list[str]:
    """Returns the names of this node's GPUs.

    Raises:
        Unread: NVML can't be read here.
    """
    library = library or _load()
    _init(library)
    try:
        handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(library.nvmlDeviceGetCount())]
        return [str(library.nvmlDeviceGetName(handle)) for handle in handles]
    except (library.NVMLError, UnicodeError) as error:
        raise Unread("no_nvml", str(error)) from error
    finally:
        library.nvmlShutdown()


class NvmlSource:
    """The NVML source reads the chosen GPUs; it is a `Source`.

    Args:
        gpus: NVML indices, or UUIDs (`GPU-…`); none for all GPUs. A meter's index is its GPU's place in here.
        library: the module `pynvml`, or a stand-in.
        spares: further GPUs, which are read too where they have the same scope; their meters follow.
    """

    def __init__(self, gpus: Sequence[str] = (), library: Any = None, spares: Sequence[str] = ()) -> None:
        self._gpus, self._library, self._spares = tuple(gpus), library, tuple(spares)
        self._handles: list[Any] = []
        self._fields: list[tuple[int, int]] = []
        self._counter = self._average = False
        self._scope: Scope = "gpu"

    def probe(self) -> SourceProbe:
        """Returns what NVML reads of these GPUs, or why it reads nothing (codes: docs/validity.md)."""
        try:
            self._library = self._library or _load()
            _init(self._library)
        except Unread as why:
            return SourceProbe(kind="nvml", reason=why.reason)
        try:
            return self._describe()
        except Unread as why:
            self.close()
            return SourceProbe(kind="nvml", reason=why.reason)

    def read(self) -> list[MeterReading]:
        """Returns counter and power of every GPU: one call for each, stamped with the middle of that call."""
        readings = []
        for meter, handle in enumerate(self._handles):
            before = time.monotonic()
            reading = self._read(meter, handle)
            took_s = time.monotonic() - before
            readings.append(replace(reading, at_s=before + took_s / 2, took_s=took_s))
        return readings

    def states(self) -> list[MeterState]:
        """Returns UUID, temperature, power cap and clock reasons of every GPU.

        The UUID is looked up by index each time: a handle stays with its GPU when the order changes.
        """
        other: Scope = "module" if self._scope == "gpu" else "gpu"
        meter_states = []
        for meter, handle in enumerate(self._handles):
            meter_states.append(
                MeterState(
                    meter=meter,
                    uuid=self._uuid(meter),
                    temperature_c=self._temperature(handle),
                    limit_w=watts(
                        self._first("EnforcedPowerLimit", "PowerManagementDefaultLimit", handle), 1e3
                    ),
                    clock_reasons=self._first(
                        "CurrentClocksEventReasons", "CurrentClocksThrottleReasons", handle
                    ),
                    other_scope_w=self._instant_w(handle, other),
                )
            )
        return meter_states

    def close(self) -> None:
        """Shuts NVML down, once for each start."""
        self._handles = []
        self._ask(self._library.nvmlShutdown)

    def _describe(self) -> SourceProbe:
        library = self._library
        gpus = self._gpus or tuple(
            str(i) for i in range(int(known(self._ask(library.nvmlDeviceGetCount), 0, MOST_METERS) or 0))
        )
        if not gpus:
            raise Unread("no_gpu", "NVML sees no GPU")
        self._gpus = gpus
        self._handles = [self._find(gpu) for gpu in gpus]
        self._scope = self._choose_scope()
        first = self._handles[0]
        fields = library.nvmlDeviceGetFieldValues
        energy = self._ask(fields, first, [FIELD_ENERGY])
        self._counter = bool(
            energy and not energy[0].nvmlReturn and joules(energy[0].value.ullVal, 1e3) is not None
        )
        instant = self._instant_w(first, self._scope) is not None
        # The scope of NVML's plain power is unknown on a module, so it can't be compared with the counter.
        self._average = not instant and self._scope == "gpu" and self._average_w(first) is not None
        self._fields = [(FIELD_ENERGY, 0)] if self._counter else []
        self._fields += [(FIELD_POWER_INSTANT, SCOPE_NUMBERS[self._scope])] if instant else []
        if not (self._counter or instant or self._average):
            raise Unread("no_meter", f"GPU {gpus[0]} has neither an energy counter nor power")
        self._add_spares()
        return SourceProbe(
            kind="nvml",
            source=PowerSource(
                meter="nvml",
                counter=self._counter,
                power="instant" if instant else "averaged" if self._average else None,
                scope=self._scope,
            ),
            meters=tuple((meter, self._uuid(meter) or "unknown") for meter in range(len(self._handles))),
            models=tuple(str(self._ask(library.nvmlDeviceGetName, handle)) for handle in self._handles),
            driver=None if (driver := self._ask(library.nvmlSystemGetDriverVersion)) is None else str(driver),
        )

    def _add_spares(self) -> None:
        """Adds the unused GPUs that can be read; one that can't is left out and harms no other."""
        for gpu in self._spares:
            try:
                handle = self._find(gpu)
                alike = self._scope_of(handle) == self._scope
            except Unread:
                continue
            if alike:
                self._handles.append(handle)
                self._gpus = (*self._gpus, gpu)

    def _find(self, gpu: str) -> Any:
        """Returns the handle of a GPU that can be metered."""
        library = self._library
        if gpu.startswith("MIG-"):
            raise Unread("mig", f"{gpu} is a MIG slice, which has no meter of its own")
        handle = self._handle(gpu)
        if isinstance(handle, str):
            raise Unread("no_gpu", f"GPU {gpu}: {handle}")
        mode = self._ask(library.nvmlDeviceGetMigMode, handle)  # GPUs that know no MIG say "not supported"
        if mode and mode[0]:
            raise Unread("mig", f"GPU {gpu}: MIG is on, and a slice has no meter of its own")
        return handle

    def _handle(self, gpu: str) -> Any:
        library = self._library
        try:
            if gpu.isdigit():
                return library.nvmlDeviceGetHandleByIndex(int(gpu))
            return library.nvmlDeviceGetHandleByUUID(gpu)
        except library.NVMLError as error:
            return str(error)

    def _choose_scope(self) -> Scope:
        """Returns the scope of the energy counter, which NVML does not name, by the GPUs' names and powers.

        Raises:
            Unread: a module's reading would be counted for each of its GPUs, or GPUs differ.
        """
        scopes = {self._scope_of(handle) for handle in self._handles}
        if len(scopes) > 1:
            raise Unread("mixed_scopes", "some GPUs are metered alone and others with their module")
        return scopes.pop()

    def _scope_of(self, handle: Any) -> Scope:
        name = str(self._ask(self._library.nvmlDeviceGetName, handle))
        if any(module in name for module in ONE_GPU_PER_MODULE):
            return "module"
        alone, module = self._instant_w(handle, "gpu"), self._instant_w(handle, "module")
        if alone is None and module is not None:
            raise Unread(
                "shared_module",
                f"{name} tells its module's power only; how many GPUs share one is unknown",
            )
        return "gpu"

    def _read(self, meter: int, handle: Any) -> MeterReading:
        energy_j = power_w = None
        values = self._ask(self._library.nvmlDeviceGetFieldValues, handle, self._fields) or ()
        for value in values:
            # Each entry carries its own return code; the value of a failed one is garbage.
            if value.nvmlReturn:
                continue
            if value.fieldId == FIELD_ENERGY:
                energy_j = joules(value.value.ullVal, 1e3)
            else:
                power_w = watts(value.value.uiVal, 1e3)
        if self._average:
            power_w = self._average_w(handle)
        return MeterReading(meter=meter, power_w=power_w, energy_j=energy_j)

    def _average_w(self, handle: Any) -> float | None:
        return watts(self._ask(self._library.nvmlDeviceGetPowerUsage, handle), 1e3)

    def _instant_w(self, handle: Any, scope: Scope) -> float | None:
        values = self._ask(
            self._library.nvmlDeviceGetFieldValues, handle, [(FIELD_POWER_INSTANT, SCOPE_NUMBERS[scope])]
        )
        return None if not values or values[0].nvmlReturn else watts(values[0].value.uiVal, 1e3)

    def _temperature(self, handle: Any) -> int | None:
        value = known(self._first("TemperatureV", "Temperature", handle, CELSIUS_OF_GPU), *TEMPERATURES_C)
        return None if value is None else int(value)

    def _first(self, newer: str, older: str, *arguments: Any) -> Any:
        """Returns the answer of an NVML function, or of the one that stands in for it."""
        for name in (newer, older):
            function = getattr(self._library, f"nvmlDeviceGet{name}", None)
            value = None if function is None else self._ask(function, *arguments)
            if value is not None:
                return value
        return None

    def _uuid(self, meter: int) -> str | None:
        handle = self._handle(self._gpus[meter])
        uuid = None if isinstance(handle, str) else self._ask(self._library.nvmlDeviceGetUUID, handle)
        return None if uuid is None else str(uuid)

    def _ask(self, function: Any, *arguments: Any) -> Any:
        """Returns the answer of an NVML function; None where NVML refuses."""
        try:
            return function(*arguments)
        except (self._library.NVMLError, UnicodeError):
            return None


def _init(library: Any) -> None:
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        raise Unread("no_nvml", f"nvmlInit: {error}") from error


def _load() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        raise Unread("no_nvml", "nvidia-ml-py is not installed (pip install 'mtpbench[power]')") from None
