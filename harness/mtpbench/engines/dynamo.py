"""Pure: Dynamo, in front of workers of several engines: its frontend, environment, and what it pins.

Source: ai-dynamo's packages (the extras of each release pin one release of each engine) and its frontend and
workers, which were run on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping

from packaging.version import Version

from mtpbench.engines.about import (
    About,
    Pinned,
    Release,
    newest,
    release_of,
    version_at_start,
    version_in_image,
)
from mtpbench.engines.parts import container_of, python_of
from mtpbench.engines.releases import PINS
from mtpbench.records import Engine, Point, Probe, Process

PACKAGE = "ai-dynamo"
ROUTER = "dynamo"
DEATHS = {"other_release": r"cannot import name '\w+' from '(?:vllm|sglang|tensorrt_llm)\b"}
"""Patterns, by code of `ADVICE`, of what a worker of Dynamo's prints before it dies."""
FRONT = "router"


def release(engine: Engine) -> str:
    """Returns the release of Dynamo that a sweep names; where it names none, the newest known."""
    return named_release(engine) or newest(PINS)


def named_release(engine: Engine) -> str | None:
    """Returns the release of Dynamo that a sweep names, by `router_version` or by an image of Dynamo's.

    None where it names none.
    """
    given = version_at_start(engine.router_version, PACKAGE)
    return given or (version_in_image(engine.image) if is_own(engine.image) else None)


def pins_of(version: str) -> Mapping[str, str]:
    """Returns the engines that a release of Dynamo is made for; those of its series where it is not known.

    Nothing where the series is not known either.
    """
    wanted = Version(version)
    series = [known for known in PINS if Version(known).release[:2] == wanted.release[:2]]
    known = next((known for known in series if Version(known) == wanted), None)
    return PINS[known or newest(series)] if series else {}


def release_for(engine: Engine, about: About) -> Release | None:
    """Returns the release of an engine that the command lines of a sweep are written for.

    An image of Dynamo's holds the engine that its release pins: its tag is not the engine's release.
    """
    own = is_own(engine.image)
    named = named_release(engine)
    pins = {PACKAGE: release(engine), **pins_of(release(engine))}
    pin = pins.get(about.package or "") if engine.router == ROUTER or own else None
    pinned = Pinned(version=pin, named=named is not None) if pin is not None else None
    return release_of(engine, about, pinned, own_image=not own)


def written_for(point: Point, about: About) -> Release:
    """Returns the release that the command lines of a point are written for, of an engine that has a list."""
    made = release_for(point.engine, about)
    assert made is not None, f"{about.title} has no list of releases"
    return made


def is_own(image: str | None) -> bool:
    """Returns whether an image is one of Dynamo's, whose tag is Dynamo's release."""
    return "ai-dynamo" in (image or "") or "dynamo" in (image or "").rpartition("/")[2]


def environment() -> Mapping[str, str]:
    """Returns the environment that all processes of a Dynamo deployment share; all nodes must see @{dir}."""
    return {
        "DYN_DISCOVERY_BACKEND": "file",
        "DYN_FILE_KV": "@{dir}/dynamo",
        "DYN_REQUEST_PLANE": "tcp",
        # The last line of a log becomes the reason of a failed point: without colours.
        "DYN_SDK_DISABLE_ANSI_LOGGING": "1",
    }


def frontend(point: Point) -> Process:
    """Returns the process that takes requests and sends them through prefill and decode workers."""
    return Process(
        name=FRONT,
        role="router",
        argv=(
            *python_of(point),
            "-m",
            "dynamo.frontend",
            "--http-port",
            f"@{{port:{FRONT}/http}}",
        ),
        env=environment(),
        ports=("http",),
        ready=Probe(port="http", path="/health", model=point.model.served_name),
        container=container_of(point),
    )
