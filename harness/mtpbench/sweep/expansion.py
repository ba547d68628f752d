"""Expands a checked sweep file to points: base + arm overlay × topology × concurrency × repeat."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mtpbench import hardware
from mtpbench.engines import EMBEDDED, ENGINES, engine_of
from mtpbench.errors import InputError, SweepError
from mtpbench.load.pacer import RequestCounts
from mtpbench.records import (
    DEMONSTRATION,
    Arm,
    Engine,
    Fault,
    Flags,
    Hardware,
    Load,
    Measurement,
    Model,
    Point,
    Reference,
    ReferenceRow,
    Simulation,
    SweepInfo,
    Topology,
    WorkerGroup,
    Workload,
    digest,
)
from mtpbench.redaction import bare_secret
from mtpbench.simengine.drafting import drafting_of
from mtpbench.simengine.profile import default_profile, load_profile, profile_of
from mtpbench.sweep.arm_confounds import ArmConfound, find_confounds, find_stand_ins
from mtpbench.sweep.arm_schema import ArmSpec
from mtpbench.sweep.arms import ArmError, make_arm, with_rates
from mtpbench.sweep.engine_schema import MOST_SECONDS
from mtpbench.sweep.schema import SweepFile, TopologySpec
from mtpbench.workload.prompts import refuse_token_ids
from mtpbench.yaml_files import KeyPath, LinedYaml, dotted, read_yaml

MOST_POINTS = 10_000
MOST_REQUESTS = 10_000_000
"""Of one point."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A sweep holds its points in the order in which they run, and what the tables need to know."""

    path: Path
    info: SweepInfo
    points: tuple[Point, ...]
    left_out: tuple[str, ...] = ()
    """Why the virtual clock does not play an arm of the file, a sentence for each such arm."""


def load_sweep(path: Path) -> Sweep:
    """Reads the sweep in a YAML file.

    Raises:
        SweepError: something in the file is wrong; names file, line and key, and what would be right.
    """
    document = read_yaml(path, as_written=_is_option)
    if secret := bare_secret(document.data):
        # Points keep what a sweep says, word for word: their ids are made of it.
        where, problem = secret
        raise SweepError(problem, path=path, line=document.line(where), key=dotted(where))
    return _expand(document.checked(SweepFile), document)


def _is_option(where: KeyPath) -> bool:
    """Returns whether a value is an engine's option, which the engine reads for itself."""
    return where[:2] == ("engine", "flags") or (where[:1] == ("arms",) and where[2:3] == ("forces",))


def simulate(sweep: Sweep) -> Sweep:
    """Returns the same sweep on the embedded engine's virtual clock, under a name of its own.

    Simulated points never share a results folder with measured ones. An arm that the embedded engine can't
    draft for, such as one whose acceptance only a model could tell, is left out, and `left_out` says why; and
    that the hardware's own step costs are not known, where they are not.

    Raises:
        SweepError: the virtual clock does not play the sweep's load, or any of its arms.
    """
    if any(point.load.pacing == "trace" for point in sweep.points):
        raise SweepError(
            "the virtual clock draws its requests and reads no dataset, so it has no trace's timestamps; "
            "run the sweep on the embedded engine's servers (engine: simulated)",
            path=sweep.path,
            key="load.pacing",
        )
    simulated, unplayed = [], dict[str, SweepError]()
    for point in sweep.points:
        try:
            simulated.append(_simulated(point, sweep.path))
        except SweepError as error:
            unplayed.setdefault(point.arm.name, error)
    points = tuple(point for point in simulated if point.arm.name not in unplayed)
    if not points:
        raise next(iter(unplayed.values()))
    arms = tuple(name for name in sweep.info.arms if name not in unplayed)
    planned = map(ArmConfound, sweep.info.confound_arms, sweep.info.confounds)
    confounds = dict.fromkeys((*(each for each in planned if each.arm in arms), *find_stand_ins(points)))
    info = dataclasses.replace(
        sweep.info,
        name=f"{sweep.info.name}.simulated",
        arms=arms,
        baseline=sweep.info.baseline if sweep.info.baseline in arms else arms[0],
        planned=tuple(point.id for point in points),
        confounds=tuple(each.text for each in confounds),
        confound_arms=tuple(each.arm for each in confounds),
    )
    left_out = tuple(f"{name} is not played: {error.problem}" for name, error in unplayed.items())
    asked = sweep.points[0]
    if asked.simulation is None and profile_of(asked.hardware) is None:
        left_out += (
            f"no step costs of {asked.hardware} are known: those of {default_profile()} are played in their "
            f"place, and no figure predicts {asked.model.served_name} on {asked.hardware}",
        )
    return Sweep(path=sweep.path, info=info, points=points, left_out=left_out)


def with_simulated(sweep: Sweep) -> tuple[Sweep, ...]:
    """Returns the sweep and its simulation, whose names results may have; the latter where there is one."""
    try:
        return (sweep, simulate(sweep))
    except SweepError:
        return (sweep,)


def _simulated(point: Point, path: Path) -> Point:
    simulation = point.simulation or Simulation(profile=default_profile())
    arm = point.arm
    try:
        if arm.speculation:
            arm = dataclasses.replace(arm, speculation=with_rates(arm.speculation, point.checkpoint))
        point = dataclasses.replace(
            point,
            sweep=f"{point.sweep}.simulated",
            arm=arm,
            simulation=dataclasses.replace(simulation, clock="virtual", speed=1.0, faults=()),
        )
        drafting_of(point)
        return _with_step_costs(point)
    except InputError as error:
        raise SweepError(str(error), path=path, key=f"arms.{arm.name}") from None


def _with_step_costs(point: Point) -> Point:
    """Returns the point with MTP's step costs where its profile has none of its arm's method."""
    speculation, simulation = point.arm.speculation, point.simulation
    if simulation is None or speculation is None:
        return point
    costs = load_profile(simulation.profile).step_costs(point.topology, speculation.method)
    if costs == speculation.method:
        return point
    return dataclasses.replace(point, simulation=dataclasses.replace(simulation, step_costs=costs))


# ------------------------------------------------------------------------------------------------ expansion


def _expand(spec: SweepFile, document: LinedYaml) -> Sweep:
    def fail(message: str, where: KeyPath) -> SweepError:
        return SweepError(message, path=document.path, line=document.line(where), key=dotted(where))

    try:
        rack = hardware.lookup(spec.hardware)
    except InputError as error:
        raise fail(str(error), ("hardware",)) from None
    arms: dict[str, Arm] = {}
    for name, arm_spec in spec.arms.items():
        try:
            arms[name] = make_arm(
                name,
                arm_spec,
                spec.model.path,
                draws=spec.engine.name == EMBEDDED,
                template_arguments=spec.workload.chat_template_kwargs,
            )
        except ArmError as error:
            raise fail(str(error), ("arms", name, *error.keys)) from None
    _check_size(spec, fail)
    points = []
    for name, arm_spec in spec.arms.items():
        for i, topology_spec in enumerate(spec.topologies):
            ladder = _ladder_points(spec, document.path, arms[name], arm_spec, topology_spec)
            try:
                ladder = [_with_step_costs(point) for point in ladder]
                for point in ladder[:1]:
                    engine = engine_of(point)
                    engine.check(point, rack)
                    roles = {process.role for process in engine.deploy(point, rack).processes}
                    if "router" in roles and point.engine.router in engine.ABOUT.text_routers:
                        refuse_token_ids(point.workload)
            except InputError as error:
                raise fail(str(error), ("topologies", i)) from None
            points += ladder
    if not points:
        raise fail("no point is left: no arm has a ladder in any topology", ("topologies",))
    points = _in_rounds(points)
    info = _info(spec, rack, tuple(points))
    return Sweep(path=document.path, info=info, points=tuple(points))


def _check_size(spec: SweepFile, fail: Callable[[str, KeyPath], SweepError]) -> None:
    """Refuses more points than a sweep can have, and points of more requests or hours than one can take."""
    points, rules = 0, Measurement(**spec.measurement.model_dump())
    for i, topology in enumerate(spec.topologies):
        where = ("topologies", i, "concurrency")
        ladders, rates = topology.concurrency, topology.rate_rps or [math.inf]
        rungs = sum(len(ladders.get(name, ladders.get("*", []))) for name in spec.arms)
        points += rungs * len(rates) * spec.repeats
        if points > MOST_POINTS:
            raise fail(f"more than {MOST_POINTS:,} points: ladders × arms × rates × repeats", where)
        requests = RequestCounts.of(max(map(max, ladders.values()), default=1), rules).total
        if requests > MOST_REQUESTS:
            raise fail(
                f"{requests:,} requests for one point, and at most {MOST_REQUESTS:,} are possible: fewer "
                "slots, or smaller `measurement.requests_per_slot`, `warmup_per_slot` or `min_requests`",
                where,
            )
        if requests / min(rates) > MOST_SECONDS:
            message = f"{requests:,} requests at {min(rates):g} a second take years"
            raise fail(message, ("topologies", i, "rate_rps"))


def _ladder_points(
    spec: SweepFile, path: Path, arm: Arm, arm_spec: ArmSpec, topology_spec: TopologySpec
) -> list[Point]:
    topology = _topology(topology_spec)
    ladder = topology_spec.concurrency.get(arm.name, topology_spec.concurrency.get("*", []))
    rates: tuple[float | None, ...] = tuple(topology_spec.rate_rps or (None,))
    forced = dataclasses.replace(
        arm,
        forces=_layered(arm_spec.forces, topology),
        forces_env=cast(Mapping[str, Mapping[str, str]], _layered(arm_spec.forces_env, topology)),
    )
    return [
        Point(
            sweep=spec.sweep,
            model=_model(spec),
            hardware=spec.hardware,
            engine=_engine(spec, topology),
            arm=forced,
            topology=topology,
            concurrency=concurrency,
            repeat=repeat,
            launch=repeat if spec.restart else 0,
            # The seed does not depend on the arm: the requests are the same in every arm.
            seed=int(digest([spec.seed, topology.name, concurrency, repeat])[:8], 16),
            workload=_workload(spec, path),
            load=Load(**spec.load.model_dump(), rate_rps=rate),
            measurement=Measurement(**spec.measurement.model_dump()),
            simulation=_simulation(spec),
        )
        for repeat in range(spec.repeats)
        for concurrency in ladder
        for rate in rates
    ]


def _in_rounds(points: Sequence[Point]) -> list[Point]:
    """Returns points round by round: every deployment is started once before one is started again.

    Every second round goes backwards, so that what drifts over the sweep meets all deployments alike.
    """
    rounds: dict[int, dict[str, list[Point]]] = {}
    for point in points:
        rounds.setdefault(point.launch, {}).setdefault(point.deployment_key, []).append(point)
    if len(rounds) == 1:
        return list(points)
    return [
        point
        for launch, ladders in sorted(rounds.items())
        for ladder in (reversed(ladders.values()) if launch % 2 else ladders.values())
        for point in ladder
    ]


def _topology(spec: TopologySpec) -> Topology:
    groups: list[WorkerGroup] = []
    if spec.aggregated:
        groups.append(spec.aggregated.group("aggregated"))
    if spec.prefill and spec.decode:
        groups += [spec.prefill.group("prefill"), spec.decode.group("decode")]
    return Topology(groups=tuple(groups))


def _layered(layers: Mapping[str, Mapping[str, Any]], topology: Topology) -> Mapping[str, Flags]:
    """Returns the flags of each role, merged from layers: all, then layout (tp, tep, dep), then role."""
    merged: dict[str, Flags] = {}
    for group in topology.groups:
        kind = "dep" if group.attention_dp else "tep" if group.ep > 1 else "tp"
        flags = {**layers.get("all", {}), **layers.get(kind, {}), **layers.get(group.role, {})}
        if flags:
            merged[group.role] = flags
    return merged


def _engine(spec: SweepFile, topology: Topology) -> Engine:
    return Engine(
        name=spec.engine.name,
        router=spec.engine.router,
        router_version=spec.engine.router_version,
        version=spec.engine.version,
        image=spec.engine.image,
        command=tuple(spec.engine.command) if spec.engine.command else None,
        flags=_layered(spec.engine.flags, topology),
        env=cast(Mapping[str, Mapping[str, str]], _layered(spec.engine.env, topology)),
        simulates=ENGINES[spec.engine.name].ABOUT.simulates,
    )


def _model(spec: SweepFile) -> Model:
    model = spec.model
    return Model(path=model.path, served_name=model.served_name or model.path, precision=model.precision)


def _workload(spec: SweepFile, path: Path) -> Workload:
    fields = spec.workload.model_dump()
    dataset, tokenizer = fields.pop("dataset"), fields.pop("tokenizer")

    def beside(name: str | None) -> str | None:
        # Not Path.resolve, which ends at links that lead to each other.
        return os.path.realpath(path.parent / name) if name else None

    place = dataset if dataset == DEMONSTRATION else beside(dataset)
    return Workload(**fields, dataset_path=place, tokenizer=beside(tokenizer))


def _simulation(spec: SweepFile) -> Simulation | None:
    engine = spec.engine
    if engine.name != EMBEDDED:
        return None
    return Simulation(
        profile=engine.profile or default_profile(),
        clock=engine.clock,
        speed=engine.speed,
        faults=tuple(Fault(**fault.model_dump()) for fault in engine.faults),
        acceptance_shape=engine.acceptance_shape,
        acceptance_spread=engine.acceptance_spread,
    )


def _info(spec: SweepFile, rack: Hardware, points: tuple[Point, ...]) -> SweepInfo:
    plain = [name for name, arm in spec.arms.items() if not arm.speculates]
    baseline = spec.baseline or (plain or list(spec.arms))[0]
    reference = None
    if spec.reference:
        rows = tuple(ReferenceRow(**row.model_dump()) for row in spec.reference.rows)
        reference = Reference(source=spec.reference.source, rows=rows)
    confounds = find_confounds(points, baseline, rack)
    return SweepInfo(
        name=spec.sweep,
        question=spec.question,
        arms=tuple(spec.arms),
        baseline=baseline,
        hardware=rack,
        targets_tps=tuple(spec.targets),
        reference=reference,
        confounds=tuple(each.text for each in confounds),
        confound_arms=tuple(each.arm for each in confounds),
        planned=tuple(point.id for point in points),
    )
