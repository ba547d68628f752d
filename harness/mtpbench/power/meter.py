"""Which source meters a point's GPUs: the embedded engine, NVML, or none with the reason."""

from __future__ import annotations

import os

from mtpbench.power.nvml import NvmlSampler, NvmlUnavailable
from mtpbench.records import Deployment, Point, PowerSample

INTERVAL_S = 0.1
SIMULATED = "simulated"


class Meter:
    """Meters one point after the other; sources are probed for each and never mixed.

    `source` and `reason` go into the point's facts: exactly one of them says something.
    """

    def __init__(self) -> None:
        self.source = "none"
        self.reason: str | None = "nothing was metered yet"
        self._nvml: NvmlSampler | None = None

    def start(self, deployment: Deployment, point: Point) -> None:
        """Begin to read the deployment's GPUs, where they can be read."""
        self._nvml = None
        if point.simulation is not None:
            # The embedded engine tells its power with its counters, which the sampler scrapes anyway.
            self.source, self.reason = SIMULATED, None
            return
        try:
            self._nvml = NvmlSampler(local_gpus(deployment), INTERVAL_S).__enter__()
        except NvmlUnavailable as why:
            self.source, self.reason = "none", str(why)
        else:
            self.source, self.reason = self._nvml.source, None

    def stop(self) -> None:
        """Read once more and end."""
        if self._nvml:
            self._nvml.__exit__()

    def samples(self, origin: float) -> list[PowerSample]:
        """What was read, in seconds since `origin`; empty where nothing was."""
        return self._nvml.samples(origin) if self._nvml else []


def local_gpus(deployment: Deployment) -> tuple[int, ...]:
    """NVML indices of the GPUs that a deployment on this node holds, through CUDA_VISIBLE_DEVICES.

    Raises:
        NvmlUnavailable: the variable names GPUs otherwise than by index, or fewer than are needed.
    """
    wanted = sorted({gpu for process in deployment.processes for gpu in process.gpus})
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(wanted)
    words = [word.strip() for word in visible.split(",")]
    if not all(word.isdigit() for word in words) or len(words) <= max(wanted, default=-1):
        raise NvmlUnavailable(f"CUDA_VISIBLE_DEVICES={visible}: {len(wanted)} GPU indices are needed")
    return tuple(int(words[gpu]) for gpu in wanted)
