"""The releases that are asked, each with the sweeps whose lines go to it, and how its Python is started."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from mtpbench import hardware, plan
from mtpbench.engines import engine_of, release_for
from mtpbench.errors import UnsupportedError
from mtpbench.parsers import Verdict, ask_ladders
from mtpbench.parsers.asking import Launch, Launcher, NotHere, Program, asker_text
from mtpbench.plan import Ladder
from mtpbench.records import Point, Process
from mtpbench.sweep import load_sweep

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MADE_UP = HERE / "gb200.py"
LIMIT_S = 900.0
SHIPPED = sorted((ROOT / "sweeps").glob("*.yaml"))
TESTED = [*sorted((ROOT / "tests").glob("*/sweeps/*.yaml")), ROOT / "tests" / "gpu" / "vllm.yaml"]
SWEEPS = [
    path
    for path in (*SHIPPED, *TESTED)
    if load_sweep(path).points[0].engine.name not in ("simulated", "llamacpp")
]
"""Every sweep of an engine that has a parser in Python; llama.cpp's server is run by `make test-engines`."""
DYNAMO = ("ai-dynamo==1.6.1", "ai-dynamo-runtime==1.6.1")


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release of an engine, and which processes it is asked about.

    Args:
        engine: whose sweeps' lines it gets.
        version: the engine's, as a sweep names it.
        packages: the folders of wheels that lie on the environment.
        python: the variable that holds the environment's interpreter.
        asks: the program that is asked; Dynamo's frontend is, beside a worker of Dynamo's.
        wants: whether it gets a sweep: one that names it, or all, or those with Dynamo's router.
        direct: whether what Dynamo's workers are given goes to the engine's own server instead.
        made_up: whether the node is a made-up GB200; else it is this machine.
    """

    engine: str
    version: str
    packages: tuple[str, ...] = ()
    python: str
    asks: str
    wants: Callable[[Path], bool] = lambda path: True
    direct: bool = False
    made_up: bool = True

    def __str__(self) -> str:
        return f"{self.asks} {self.version}{'' if self.made_up else ' (CPU)'}"

    @property
    def programs(self) -> tuple[str, ...]:
        """The programs that are asked."""
        return (self.asks, "dynamo.frontend") if self.asks.startswith("dynamo.") else (self.asks,)

    @property
    def sweeps(self) -> list[Path]:
        """The sweeps of which it gets lines."""
        chosen = (path for path in SWEEPS if load_sweep(path).points[0].engine.name == self.engine)
        return [path for path in chosen if self.wants(path)]


def own_version(path: Path) -> str | None:
    """The release that a sweep's lines are written for: the one that its version or its image names."""
    made = release_for(load_sweep(path).points[0])
    return made.version if made is not None else None


Wants = Callable[[Path], bool]


def names(version: str) -> Wants:
    return lambda path: own_version(path) == version


def behind(router: str) -> Wants:
    return lambda path: load_sweep(path).points[0].engine.router == router


def on_cpu(path: Path) -> bool:
    return load_sweep(path).points[0].hardware == "cpu"


def both(first: Wants, second: Wants) -> Wants:
    return lambda path: first(path) and second(path)


def neither(wants: Wants) -> Wants:
    return lambda path: not wants(path)


VLLM = partial(Release, engine="vllm", python="MTPBENCH_VLLM_PYTHON")
SGLANG = partial(Release, engine="sglang", python="MTPBENCH_SGLANG_PACKAGES_PYTHON")
SGLANG_CPU = partial(
    Release, engine="sglang", python="MTPBENCH_SGLANG_PYTHON", version="0.5.23", made_up=False
)
BESIDE = partial(Release, python="MTPBENCH_SGLANG_PACKAGES_PYTHON")
ON_GPU, ON_CPU = neither(on_cpu), on_cpu
THROUGH_DYNAMO, THROUGH_ROUTER = behind("dynamo"), behind("sglang")
RELEASES = (
    # The releases that sweeps name themselves.
    VLLM(version="0.25.1", packages=("vllm==0.25.1",), asks="vllm", wants=names("0.25.1"), direct=True),
    VLLM(version="0.32.0", asks="vllm", wants=names("0.32.0"), made_up=False),
    SGLANG(
        version="0.5.12.post1",
        packages=("sglang==0.5.12.post1",),
        asks="sglang",
        wants=names("0.5.12.post1"),
        direct=True,
    ),
    # The releases that the newest Dynamo is made for.
    VLLM(version="0.31.0", packages=("vllm==0.31.0", *DYNAMO), asks="dynamo.vllm", wants=THROUGH_DYNAMO),
    SGLANG(
        version="0.5.21",
        packages=("sglang==0.5.21", *DYNAMO),
        asks="dynamo.sglang",
        wants=both(THROUGH_DYNAMO, ON_GPU),
    ),
    BESIDE(engine="trtllm", version="1.3.0rc29", packages=DYNAMO, asks="dynamo.trtllm", wants=THROUGH_DYNAMO),
    BESIDE(engine="mocker", version="ai-dynamo 1.6.1", packages=DYNAMO, asks="dynamo.mocker"),
    SGLANG_CPU(packages=DYNAMO, asks="dynamo.sglang", wants=both(THROUGH_DYNAMO, ON_CPU)),
    # The newest releases.
    VLLM(version="0.33.0", packages=("vllm==0.33.0",), asks="vllm", direct=True),
    SGLANG(version="0.5.23", packages=("sglang==0.5.23",), asks="sglang", wants=ON_GPU, direct=True),
    SGLANG_CPU(asks="sglang", wants=both(neither(THROUGH_DYNAMO), ON_CPU)),
    SGLANG(version="0.5.23", asks="sglang_router", wants=THROUGH_ROUTER),
    SGLANG(version="0.5.23", asks="smg", wants=THROUGH_ROUTER),
)


def points_of(path: Path, version: str) -> list[Point]:
    """The points of a sweep for a release, whatever the sweep names itself."""
    points = load_sweep(path).points
    return [replace(point, engine=replace(point.engine, version=version, image=None)) for point in points]


def refused_by_mtpbench(point: Point) -> str | None:
    """Why mtpbench writes no lines of a point for its release; None where it does."""
    try:
        engine_of(point).check(point, hardware.lookup(point.hardware))
    except UnsupportedError as error:
        return str(error)
    return None


def ladders_of(path: Path, version: str) -> tuple[Ladder, ...]:
    """The ladders of a sweep as they are written for a release; points that mtpbench refuses have none."""
    return plan.ladders_of(point for point in points_of(path, version) if refused_by_mtpbench(point) is None)


OWN_WORDS = {"dynamo.vllm": {"--disaggregation-mode": 2}}
"""Words of Dynamo's workers that are not their engine's: how many of them there are."""
SERVERS = {"dynamo.vllm": "vllm.entrypoints.openai.api_server", "dynamo.sglang": "sglang.launch_server"}


def as_server(process: Process) -> Process:
    """A worker of Dynamo's as its engine's own server: what Dynamo hands on."""
    argv = process.argv
    module = argv[argv.index("-m") + 1] if "-m" in argv else ""
    if module not in SERVERS:
        return process
    at = argv.index("-m") + 2
    return replace(
        process, argv=(*argv[: at - 1], SERVERS[module], *without(argv[at:], OWN_WORDS.get(module, {})))
    )


def without(words: Sequence[str], own: Mapping[str, int]) -> list[str]:
    """Words without those options and their values."""
    kept: list[str] = []
    left = list(words)
    while left:
        count = own.get(left[0], 0)
        kept += [] if count else left[:1]
        left = left[max(1, count) :]
    return kept


def launcher_of(release: Release) -> Launcher:
    """Starts the Python of a release, on a made-up node where it is to."""
    folder = Path(os.environ["MTPBENCH_PARSERS"])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(folder / package) for package in release.packages),
    }
    code = "\n".join([MADE_UP.read_text("utf-8")] * release.made_up + [asker_text()])

    def launch(program: Program) -> Launch:
        if program.name not in release.programs:
            raise NotHere(f"{release} is not asked about {program.name}")
        return Launch(
            argv=("nice", os.environ[release.python]), environment=environment, limit_s=LIMIT_S, code=code
        )

    return launch


@cache
def verdicts_of(release: Release) -> Mapping[Path, tuple[Verdict, ...]]:
    """What a release says of each of its sweeps, all asked at once: an engine takes long to load."""
    ladders = {path: ladders_of(path, release.version) for path in release.sweeps}
    said: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in ask(release, [ladder for group in ladders.values() for ladder in group]):
        said[replace(verdict.point, launch=0).deployment_key].append(verdict)
    return {
        path: tuple(
            one for key in dict.fromkeys(ladder.unlaunched_key for ladder in group) for one in said[key]
        )
        for path, group in ladders.items()
    }


def ask(release: Release, ladders: Iterable[Ladder]) -> list[Verdict]:
    """What a release says of the processes that it is asked about."""
    asked = [written(ladder, release) for ladder in ladders]
    verdicts = ask_ladders(asked, launcher_of(release), {**variables(), **os.environ})
    return [one for one in verdicts if one.program is not None and one.program.name in release.programs]


def variables() -> Mapping[str, str]:
    """What sweeps of other tiers ask of the environment; a parser needs none of it."""
    model = Path(os.environ["MTPBENCH_PARSERS_MODELS"]) / "deepseek-ai" / "DeepSeek-V4-Pro"
    pythons = ("MTPBENCH_DYNAMO_PYTHON", "MTPBENCH_DYNAMO_VLLM_PYTHON", "MTPBENCH_DYNAMO_SGLANG_PYTHON")
    return {**dict.fromkeys(pythons, "python3"), "MTPBENCH_DYNAMO_MODEL": str(model)}


def written(ladder: Ladder, release: Release) -> Ladder:
    """A ladder with its processes in the form that a release takes them."""
    processes = ladder.deployment.processes
    if release.direct:
        processes = tuple(map(as_server, processes))
    if release.asks == "smg":
        processes = tuple(map(as_smg, processes))
    return replace(ladder, deployment=replace(ladder.deployment, processes=processes))


def as_smg(process: Process) -> Process:
    """SGLang's router under the name of its successor, which takes the same words."""
    words = ("smg.launch_router" if word == "sglang_router.launch_router" else word for word in process.argv)
    return replace(process, argv=tuple(words))
