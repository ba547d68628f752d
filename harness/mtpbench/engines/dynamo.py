"""Dynamo's frontend in front of workers of any engine, with file discovery (no etcd, no NATS).

Source: a run of the frontend with Dynamo's own mocker (1.4.2); the engine workers were read, not run.
"""

from __future__ import annotations

from collections.abc import Mapping

from mtpbench.records import Container, Point, Probe, Process

FRONT = "router"


def environment(point: Point) -> Mapping[str, str]:
    """What every process of a Dynamo deployment shares; @{dir} must be seen by all its nodes."""
    del point
    return {
        "DYN_DISCOVERY_BACKEND": "file",
        "DYN_FILE_KV": "@{dir}/dynamo",
        "DYN_REQUEST_PLANE": "tcp",
        # The last line of a log becomes the reason of a failed point.
        "DYN_SDK_DISABLE_ANSI_LOGGING": "1",
    }


def frontend(point: Point) -> Process:
    """The process that takes requests and sends them through prefill and decode workers."""
    return Process(
        name=FRONT,
        role="router",
        argv=(*_python(point), "-m", "dynamo.frontend", "--http-port", f"@{{port:{FRONT}/http}}"),
        env=environment(point),
        ports=("http",),
        ready=Probe(port="http", path="/health", model=point.model.served_name),
        container=container(point),
    )


def _python(point: Point) -> tuple[str, ...]:
    """The words that run a module of Dynamo: those before `-m` where the sweep says how workers start."""
    command = point.engine.command or ()
    return command[: command.index("-m")] if "-m" in command else ("python3",)


def container(point: Point) -> Container | None:
    """The engine's image, where the sweep names one."""
    return Container(image=point.engine.image) if point.engine.image else None
