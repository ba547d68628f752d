"""The engines' own parsers, asked whether they would take a sweep's command lines, before anything starts.

    ask_ladders(ladders, launch_here, os.environ)     by engines that are installed here
    ask_ladders(ladders, ClusterLauncher(profile=…), variables)    on one node of a cluster, in their images

The placeholders of every process are filled as an executor does, with ports that it would choose. Equal
lines are asked once. What an engine says comes back as a `Finding`; a line that could not be asked is never
accepted.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mtpbench.engines.parts import Placement, resolve
from mtpbench.errors import InputError
from mtpbench.executors import FREE_PORTS, HOST, choose_ports
from mtpbench.parsers.asking import (
    REFUSALS,
    Answer,
    Answers,
    Finding,
    Launcher,
    NotHere,
    Program,
    program_of,
    run_asker,
    shown,
)
from mtpbench.plan import Ladder
from mtpbench.records import Deployment, Point, Process
from mtpbench.redaction import Secrets

UNTRIED = ("trtllm-serve", "dynamo.trtllm")
"""What is asked by code that was written from its sources and has never met it."""
__all__ = ["REFUSALS", "UNTRIED", "Finding", "State", "Verdict", "ask_ladders"]
State = Literal["accepted", "refused", "not_asked"]
DIRECTORY = "/mtpbench-attempt"
"""Stands for the attempt's folder, which the asker makes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A verdict is an engine's answer about one process.

    Args:
        point: the first point of the process's deployment.
        process: with its placeholders as they are in the plan.
        program: what was asked; None where nothing of this process can be asked.
        versions: of the packages that answered.
        stages: how far the engine took the line.
        findings: what it said.
        left_out: why a stage was not reached, by stage.
        not_asked: why the engine said nothing at all; None where it did.
    """

    point: Point
    process: Process
    program: Program | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    not_asked: str | None = None

    @property
    def state(self) -> State:
        """Returns what the engine makes of the line; one with a deprecated option is accepted."""
        if any(finding.kind in REFUSALS for finding in self.findings):
            return "refused"
        return "accepted" if self.not_asked is None else "not_asked"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Question:
    """A question is a process as an executor would start it, and what was answered about it."""

    point: Point
    process: Process
    filled: Process
    program: Program
    words: tuple[str, ...]
    ports: Mapping[str, int]

    def line(self, number: int) -> dict[str, Any]:
        """Returns the asker's question."""
        files = [{"path": file.path, "text": file.text} for file in self.filled.files]
        return {
            "number": number,
            "words": self.words,
            "environment": dict(self.filled.env),
            "files": files,
            "directory": DIRECTORY,
            "on_cpu": self.point.hardware == "cpu",
        }


def ask_ladders(
    ladders: Iterable[Ladder], launcher: Launcher, variables: Mapping[str, str]
) -> tuple[Verdict, ...]:
    """Returns a verdict for every process of every deployment; starts of the same deployment count once.

    Args:
        ladders: of a sweep. The embedded engine is no engine to ask: it comes with mtpbench.
        launcher: says where an engine's Python is.
        variables: what `@{env:NAME}` stands for.
    """
    deployments = {ladder.unlaunched_key: ladder for ladder in ladders if ladder.first.simulation is None}
    prepared = [_prepare(ladder, variables) for ladder in deployments.values()]
    answers = _ask([one for group in prepared for one in group if isinstance(one, _Question)], launcher)
    return tuple(
        verdict
        for ladder, group in zip(deployments.values(), prepared, strict=True)
        for verdict in _verdicts(ladder, group, answers, Secrets.of(ladder.first, variables))
    )


def _prepare(ladder: Ladder, variables: Mapping[str, str]) -> list[_Question | Verdict]:
    """Returns the question about each process of a deployment, or the verdict that there is none."""
    deployment = ladder.deployment
    hosts = {process.name: HOST for process in deployment.processes}
    # From the same port on in every deployment: equal lines are equal then.
    ports = choose_ports(deployment, hosts, block=FREE_PORTS[:1])
    placement = Placement(
        hosts=hosts, ports=ports, directory=DIRECTORY, python=sys.executable, environment=variables
    )
    return [_question(ladder.first, process, placement) for process in deployment.processes]


def _question(point: Point, process: Process, placement: Placement) -> _Question | Verdict:
    try:
        filled = resolve(process, placement)
    except InputError as error:
        return Verdict(point=point, process=process, not_asked=str(error))
    found = program_of(filled)
    if found is None:
        reason = f"{point.engine.name} has no parser that could be asked"
        return Verdict(point=point, process=process, not_asked=reason)
    program, words = found
    ports = {name: placement.ports[process.name, name] for name in process.ports}
    return _Question(point=point, process=process, filled=filled, program=program, words=words, ports=ports)


_Answered = Mapping[tuple[Program, str], tuple[Answers, Answer | None]]
"""By program and question: all that the program's asker said, and its answer to this one."""


def _ask(questions: Sequence[_Question], launcher: Launcher) -> _Answered:
    """Asks each program its lines, equal ones once."""
    lines: dict[Program, dict[str, _Question]] = defaultdict(dict)
    for question in questions:
        lines[question.program].setdefault(_key(question), question)
    answered: dict[tuple[Program, str], tuple[Answers, Answer | None]] = {}
    for program, distinct in lines.items():
        asked = [question.line(number) for number, question in enumerate(distinct.values())]
        try:
            answers = run_asker(launcher(program), program.name, asked)
        except NotHere as why:
            answers = Answers(versions={}, by_number={}, reason=str(why))
        for number, key in enumerate(distinct):
            answered[program, key] = answers, answers.by_number.get(number)
    return answered


def _key(question: _Question) -> str:
    return json.dumps(question.line(0), sort_keys=True)


def _verdicts(
    ladder: Ladder, group: Sequence[_Question | Verdict], answered: _Answered, secrets: Secrets
) -> list[Verdict]:
    """Returns the verdicts on a deployment, with what only its processes together show."""
    answers = {
        one.process.name: answer
        for one in group
        if isinstance(one, _Question) and (answer := answered[one.program, _key(one)][1]) is not None
    }
    together = _port_clashes(ladder.deployment, group, answers)
    for name, finding in _misfits(ladder.deployment, answers):
        together[name].append(finding)
    made = []
    for one in group:
        verdict = one if isinstance(one, Verdict) else _verdict(one, *answered[one.program, _key(one)])
        findings = (*verdict.findings, *together[verdict.process.name])
        told = tuple(dataclasses.replace(each, message=shown(each.message, secrets)) for each in findings)
        reason = verdict.not_asked and shown(verdict.not_asked, secrets)
        left_out = {stage: shown(why, secrets) for stage, why in verdict.left_out.items()}
        made.append(dataclasses.replace(verdict, findings=told, not_asked=reason, left_out=left_out))
    return made


def _verdict(question: _Question, answers: Answers, answer: Answer | None) -> Verdict:
    verdict = Verdict(
        point=question.point, process=question.process, program=question.program, versions=answers.versions
    )
    if answer is None:
        return dataclasses.replace(verdict, not_asked=answers.reason)
    return dataclasses.replace(
        verdict,
        stages=tuple(dict.fromkeys(answer.stages)),
        findings=answer.findings,
        left_out=answer.left_out,
    )


# --- what only several processes together show ---


def _port_clashes(
    deployment: Deployment,
    group: Sequence[_Question | Verdict],
    answers: Mapping[str, Answer],
) -> dict[str, list[Finding]]:
    """Returns the ports that an engine opens by itself where another of the node has them, by process."""
    nodes = {process.name: process.node for process in deployment.processes}
    taken: dict[tuple[int, int], str] = {}
    for one in group:
        for name, port in one.ports.items() if isinstance(one, _Question) else ():
            taken[nodes[one.process.name], port] = f"the port {name!r} of {one.process.name}"
    found: dict[str, list[Finding]] = defaultdict(list)
    for process, answer in answers.items():
        for name, port in answer.ports.items():
            place = nodes[process], port
            if place in taken:
                text = f"{name}: the engine opens port {port} by itself, which is {taken[place]} too"
                found[process].append(Finding(kind="port_twice", stage="ports", message=text))
            taken[place] = f"{name} of {process}"
    return found


def _misfits(deployment: Deployment, answers: Mapping[str, Answer]) -> Iterable[tuple[str, Finding]]:
    """Yields the nodes of data-parallel vLLM workers that a worker's first node would turn away.

    Source: vLLM's v1/engine/utils.py, `wait_for_engine_startup`; a first node of 0.31 was seen to do so.
    """
    heads: dict[str, str] = {}
    for process in deployment.processes:
        head = heads.setdefault(process.worker or process.name, process.name)
        if not {head, process.name} <= answers.keys():
            continue
        first, node = answers[head].facts, answers[process.name].facts
        if head != process.name and first and node and node.headless == first.balances_itself:
            must = "must not use --headless in" if node.headless else "must use --headless unless in"
            text = f"Remote engine {must} external or hybrid dp lb mode; {head} is its first node"
            yield (
                process.name,
                Finding(kind="config_refused", stage="worker", message=text, option="--headless"),
            )
