"""Where there is no driver there is no list and no source; more of a driver's faults: test_power_faults."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mtpbench.power.log import MeterReading, Unread
from mtpbench.power.nvml import NvmlSource, list_gpus


class NoDriver:
    """The module `pynvml` where the driver is missing."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:  # noqa: N802
        raise self.NVMLError("Library not found")


def test_without_a_driver_there_is_no_list_and_no_source() -> None:
    with pytest.raises(Unread, match="nvmlInit: Library not found"):
        list_gpus(NoDriver())
    assert str(NvmlSource((), NoDriver()).probe().reason) == "no_nvml: nvmlInit: Library not found"


class Odd:
    """The module `pynvml` of a driver that answers `OK` with values that stand for none."""

    class NVMLError(Exception):
        pass

    def __init__(self, energy: int = 7_500, power: int = 500_000, rest: object = None) -> None:
        self.energy, self.power, self.rest = energy, power, rest

    def __getattr__(self, name: str) -> object:
        answers: dict[str, object] = {
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetName": "NVIDIA H200",
            "nvmlDeviceGetUUID": "GPU-a",
            "nvmlDeviceGetHandleByIndex": 17,
            "nvmlDeviceGetHandleByUUID": 17,
            "nvmlDeviceGetPowerUsage": self.power,
            "nvmlDeviceGetMigMode": [0, 0],
        }
        return lambda *_: answers.get(name, self.rest)

    def nvmlDeviceGetFieldValues(self, handle: object, fields: list[object]) -> list[object]:  # noqa: N802
        numbers = [field[0] if isinstance(field, tuple) else field for field in fields]
        value = SimpleNamespace(ullVal=self.energy, uiVal=self.power)
        return [SimpleNamespace(nvmlReturn=0, fieldId=number, value=value) for number in numbers]


@pytest.mark.parametrize("blank", [2**32 - 1, 2**31 - 1, 2**63 - 1, 2**64 - 1, 0x7FFFFFF0, -1])
def test_what_stands_for_no_value_is_no_reading_though_the_driver_says_ok(blank: int) -> None:
    library = Odd()
    source = NvmlSource((), library)
    assert str(source.probe().source) == "nvml energy counter, instant power, GPU scope"
    library.energy = library.power = blank
    library.rest = blank
    (reading,) = source.read()
    assert (reading.power_w, reading.energy_j) == (None, None)
    (state,) = source.states()
    assert (state.limit_w, state.temperature_c, state.other_scope_w) == (None, None, None)
    assert str(NvmlSource((), Odd(energy=blank)).probe().source) == "nvml, instant power, GPU scope"
    nothing = NvmlSource((), Odd(energy=blank, power=blank, rest=blank)).probe()
    assert str(nothing.reason) == "no_meter: GPU 0 has neither an energy counter nor power"


def test_milliwatts_and_millijoules_are_watts_and_joules() -> None:
    source = NvmlSource((), Odd())
    source.probe()
    (reading,) = source.read()
    assert isinstance(reading, MeterReading)
    assert (reading.power_w, reading.energy_j) == (500.0, 7.5)


def test_a_count_of_gpus_that_is_none_is_no_memory_full_of_names() -> None:
    library = Odd()
    library.nvmlDeviceGetCount = lambda: 2**32 - 1  # type: ignore[attr-defined]
    assert str(NvmlSource((), library).probe().reason) == "no_gpu: NVML sees no GPU"
