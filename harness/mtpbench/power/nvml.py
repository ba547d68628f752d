"""Power and energy of NVIDIA GPUs on this node, through NVML, while a point runs.

Source: nvidia-ml-py. The energy counter (mJ since the driver was loaded) is read first and is what energy is
made of; power is the instant reading where the driver has it, else the one-second average. A MIG slice has
no meter of its own and is refused.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Sequence
from typing import Any, Self

from mtpbench.load.clock import PointClock
from mtpbench.records import PowerSample

FIELD_POWER_INSTANT = 186
SOURCE_INSTANT = "nvml energy counter, instant power"
SOURCE_AVERAGE = "nvml energy counter, power averaged over 1 s"
NODE = "nvml"
"""Stands for the node in the samples: NVML knows GPUs, not the processes on them."""


class NvmlUnavailable(Exception):
    """NVML can't be read here; the message is the reason that the result carries."""


def list_gpus(library: Any = None) -> list[str]:
    """The names of this node's GPUs.

    Raises:
        NvmlUnavailable: NVML can't be read here.
    """
    library = library or _load()
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        raise NvmlUnavailable(f"nvmlInit: {error}") from error
    try:
        handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(library.nvmlDeviceGetCount())]
        return [str(library.nvmlDeviceGetName(handle)) for handle in handles]
    except library.NVMLError as error:
        raise NvmlUnavailable(str(error)) from error
    finally:
        library.nvmlShutdown()


class NvmlSampler:
    """A context: a thread reads every GPU at an interval, and once more at the end.

    Args:
        gpus: NVML indices.
        interval_s: seconds between two readings.
        library: the module `pynvml`, or a stand-in.

    Raises:
        NvmlUnavailable: from entering the context; there is no driver, no such GPU, MIG is on, or a GPU has
            no energy counter.
    """

    def __init__(self, gpus: Sequence[int], interval_s: float, library: Any = None) -> None:
        self._gpus, self._interval_s, self._library = tuple(gpus), interval_s, library
        self._readings: list[tuple[float, int, float | None, float | None]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nvml", daemon=True)
        self.source = SOURCE_INSTANT

    def __enter__(self) -> Self:
        self._library = self._library or _load()
        library = self._library
        try:
            library.nvmlInit()
        except library.NVMLError as error:
            raise NvmlUnavailable(f"nvmlInit: {error}") from error
        try:
            self._handles = {gpu: self._check(gpu) for gpu in self._gpus}
        except BaseException:
            library.nvmlShutdown()
            raise
        self._read_all()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._read_all()
        self._library.nvmlShutdown()

    def samples(self, origin: float) -> list[PowerSample]:
        """Every reading, in seconds since `origin` (a `time.perf_counter()` value)."""
        clock = PointClock(1.0, origin)
        return [
            PowerSample(time_s=clock.at(stamp), process=NODE, gpu=gpu, power_w=watts, energy_j=joules)
            for stamp, gpu, watts, joules in self._readings
        ]

    def _check(self, gpu: int) -> Any:
        """The handle of a GPU that can be metered."""
        library = self._library
        try:
            handle = library.nvmlDeviceGetHandleByIndex(gpu)
        except library.NVMLError as error:
            raise NvmlUnavailable(f"GPU {gpu}: {error}") from error
        try:
            if library.nvmlDeviceGetMigMode(handle)[0]:
                raise NvmlUnavailable(f"GPU {gpu}: MIG is on, and a slice has no meter of its own")
        except library.NVMLError:
            pass  # GPUs that know no MIG answer "not supported"
        try:
            library.nvmlDeviceGetTotalEnergyConsumption(handle)
        except library.NVMLError as error:
            raise NvmlUnavailable(f"GPU {gpu}: no energy counter ({error})") from error
        if self._instant_w(handle) is None:
            self.source = SOURCE_AVERAGE
        return handle

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._read_all()

    def _read_all(self) -> None:
        for gpu, handle in self._handles.items():
            before = time.perf_counter()
            joules = self._energy_j(handle)
            watts = self._instant_w(handle) if self.source == SOURCE_INSTANT else self._average_w(handle)
            self._readings.append(((before + time.perf_counter()) / 2, gpu, watts, joules))

    def _energy_j(self, handle: Any) -> float | None:
        try:
            return float(self._library.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        except self._library.NVMLError:
            return None

    def _average_w(self, handle: Any) -> float | None:
        try:
            return float(self._library.nvmlDeviceGetPowerUsage(handle)) / 1e3
        except self._library.NVMLError:
            return None

    def _instant_w(self, handle: Any) -> float | None:
        try:
            (value,) = self._library.nvmlDeviceGetFieldValues(handle, [FIELD_POWER_INSTANT])
        except self._library.NVMLError:
            return None
        # Each entry carries its own return code; the value of a failed one is garbage.
        return None if value.nvmlReturn else float(value.value.uiVal) / 1e3


def _load() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        raise NvmlUnavailable("nvidia-ml-py is not installed (pip install 'mtpbench[power]')") from None
