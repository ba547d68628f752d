"""Where there is no driver there is no list and no source; more of a driver's faults: test_power_faults."""

from __future__ import annotations

import pytest

from mtpbench.power.log import Unread
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
