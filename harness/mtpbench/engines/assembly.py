"""Pure: the processes of a point put together as its deployment."""

from __future__ import annotations

from collections.abc import Sequence

from mtpbench.records import Deployment, Point, Process


def assemble(point: Point, processes: Sequence[Process], nodes: int) -> Deployment:
    """The deployment of some processes; requests go to its router, else to the first of them."""
    router = next((process.name for process in processes if process.role == "router"), None)
    return Deployment(
        key=point.deployment_key,
        processes=tuple(processes),
        front=router or processes[0].name,
        front_port="http",
        model_name=point.model.served_name,
        gpus=point.topology.gpus,
        nodes=nodes,
    )
