"""Every command line that mtpbench writes, put to the parsers and checks of the engines' releases."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtpbench import plan
from mtpbench.cli import main
from mtpbench.engines.about import newest
from mtpbench.engines.releases import PINS, SGLANG, VLLM
from mtpbench.parsers import REFUSALS, Finding, Verdict
from mtpbench.plan import Ladder
from mtpbench.records import (
    AcceptancePolicy,
    Deployment,
    DepthRange,
    DepthRule,
    Method,
    Process,
    Speculation,
)
from parsers.releases import RELEASES, Release, ask, ladders_of, points_of, refused_by_mtpbench, verdicts_of

pytestmark = pytest.mark.parsers
CASES = [
    pytest.param(release, path, id=f"{release}-{path.stem}")
    for release in RELEASES
    for path in release.sweeps
]
NEVER_HERE = {"config": "TensorRT-LLM is not here"}
"""Its packages hold nothing; `test_trtllm_options.py` holds what it is given against a table."""


def where(verdict: Verdict) -> str:
    """Which processes a finding is about, by what tells them apart."""
    return f"{verdict.point.arm.name} {verdict.process.role}"


def counted(verdicts: tuple[Verdict, ...], finding_kinds: frozenset[str]) -> dict[str, int]:
    """How many processes each finding of some kinds is about."""
    found = [
        f"{where(verdict)}: {finding.kind}: {finding.message}"
        for verdict in verdicts
        for finding in verdict.findings
        if finding.kind in finding_kinds
    ]
    return dict(Counter(found))


@pytest.mark.parametrize(("release", "path"), CASES)
def test_a_release_is_asked_about_every_line_to_the_last_stage(release: Release, path: Path) -> None:
    verdicts = verdicts_of(release)[path]
    assert verdicts
    assert {f"{where(one)}: {one.not_asked}" for one in verdicts if one.not_asked} == set()
    assert set(map(refused_by_mtpbench, points_of(path, release.version))) == {None}
    expected = NEVER_HERE if release.asks == "dynamo.trtllm" else {}
    assert {stage: why for one in verdicts for stage, why in one.left_out.items()} in ({}, expected)


@pytest.mark.parametrize(("release", "path"), CASES)
def test_a_release_takes_every_line(release: Release, path: Path) -> None:
    """Nothing unknown, nothing that is only the beginning of an option, no port twice, no refusal."""
    verdicts = verdicts_of(release)[path]
    assert counted(verdicts, frozenset({*REFUSALS, "by_prefix"})) == {}


@pytest.mark.parametrize(("release", "path"), CASES)
def test_the_plan_mentions_what_a_release_calls_deprecated(
    release: Release,
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verdicts = verdicts_of(release)[path]
    deprecated = {found for one in verdicts for found in one.findings if found.kind == "deprecated"}
    if deprecated:
        plan = plan_of(path, release, tmp_path, monkeypatch, capsys)
        assert {
            unmentioned.message for unmentioned in deprecated if not is_mentioned(unmentioned, plan)
        } == set()


def is_mentioned(finding: Finding, plan: str) -> bool:
    return finding.option is not None and finding.option in plan


def plan_of(
    path: Path,
    release: Release,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """What `mtpbench plan` says of a sweep for a release, without the command lines."""
    sweep = yaml.safe_load(path.read_text("utf-8"))
    sweep["engine"] = {**sweep["engine"], "version": release.version}
    sweep["engine"].pop("image", None)
    copy = folder / path.name
    copy.write_text(yaml.safe_dump(sweep, sort_keys=False), "utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["mtpbench", "plan", str(copy), "--no-commands"])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert not end.value.code, err
    return out


def with_first_rank(deployment: Deployment) -> Deployment:
    """The deployment as it was written once: a data-parallel worker's first node names its rank, too."""
    rank = "--data-parallel-start-rank"

    def named(process: Process) -> Process:
        is_first = "--data-parallel-address" in process.argv and rank not in process.argv
        return replace(process, argv=(*process.argv, rank, "0")) if is_first else process

    return replace(deployment, processes=tuple(map(named, deployment.processes)))


@pytest.mark.parametrize(
    ("asks", "version", "written_for", "expected"),
    [
        (
            "sglang",
            "0.5.23",
            "0.5.12.post1",
            {("refused", "ambiguous option: --cuda-graph-max-bs"), ("deprecated", "'--enable-dp-attention'")},
        ),
        (
            "vllm",
            "0.33.0",
            "0.25.1",
            {
                ("refused", "argument --attention-config/-ac: 1 validation error"),
                ("config_refused", "Remote engine must not use --headless"),
            },
        ),
    ],
)
def test_lines_of_half_a_year_ago_are_refused_by_the_newest_release(
    asks: str, version: str, written_for: str, expected: set[tuple[str, str]]
) -> None:
    """Each of these ended real starts: what the tier holds would be found."""
    release = next(r for r in RELEASES if (r.asks, r.version, r.made_up) == (asks, version, True))
    (path,) = (path for path in release.sweeps if path.stem == f"dsv4-gb200-{asks}")
    layouts = {"sglang": "1xDEP8-1xDEP16", "vllm": "1xDEP8-1xDEP8"}
    ladders = [one for one in ladders_of(path, written_for) if one.first.topology.name == layouts[asks]]
    ladders = [replace(one, deployment=with_first_rank(one.deployment)) for one in ladders]
    found = {(f.kind, f.message) for verdict in ask(release, ladders) for f in verdict.findings}
    for kind, start in expected:
        assert any(of == kind and message.startswith(start) for of, message in found), (kind, start, found)


TABLE = DepthRule(
    kind="by_batch",
    ranges=(
        DepthRange(first=1, last=16, draft_tokens=3),
        DepthRange(first=17, last=256, draft_tokens=1),
    ),
)


def arm(method: Method, **more: Any) -> Speculation:
    return Speculation(method=method, draft_tokens=3, acceptance=AcceptancePolicy(mode="measured"), **more)


def unchecked(path: Path, release: Release, change: Mapping[str, Any]) -> Ladder:
    """The lines of a point that mtpbench refuses."""
    points = [point for point in points_of(path, release.version) if point.topology.name == change["layout"]]
    point = next(point for point in points if point.arm.name == change.get("like", "off"))
    flags = {role: {**flags, **change.get("flags", {})} for role, flags in point.engine.flags.items()}
    env = {role: change.get("env", {}) for role in point.engine.flags}
    point = replace(
        point,
        engine=replace(point.engine, flags=flags, env=env),
        arm=replace(point.arm, speculation=change["arm"]),
    )
    assert refused_by_mtpbench(point) is not None
    (ladder,) = plan.ladders_of([point])
    return ladder


MISFITS: dict[str, list[tuple[Mapping[str, Any], str]]] = {
    "vllm": [
        ({"layout": "1xDEP8", "arm": arm("mtp", depth=TABLE)}, "vLLM drops num_speculative_tokens_per_batch"),
        (
            {
                "layout": "1xTP8",
                "like": "dspark5",
                "arm": arm("dspark", depth=DepthRule(kind="adaptive")),
                "flags": {"enforce-eager": True},
            },
            "Adaptive verification requires full CUDA graphs",
        ),
        (
            {
                "layout": "1xTP8",
                "like": "dspark5",
                "arm": arm("dspark"),
                "env": {"VLLM_USE_V2_MODEL_RUNNER": "0"},
            },
            "dspark speculative decoding",
        ),
    ],
    "sglang": [
        (
            {"layout": "1xDEP8-1xDEP16", "arm": arm("mtp", depth=TABLE)},
            "SGLang drops --speculative-adaptive",
        ),
        (
            {
                "layout": "1xDEP8-1xDEP16",
                "like": "dspark5",
                "arm": arm("dspark"),
                "flags": {"enable-dp-lm-head": False},
            },
            "requires --enable-dp-lm-head",
        ),
    ],
}
"""What mtpbench refuses, by the program that is asked, and what the newest release says of it."""


@pytest.mark.parametrize("asks", MISFITS)
def test_what_mtpbench_refuses_an_engine_refuses_or_ignores(asks: str) -> None:
    release = next(r for r in reversed(RELEASES) if r.asks == asks and r.direct and r.made_up)
    path = next(path for path in release.sweeps if path.stem == f"dsv4-gb200-arms-{asks}")
    ladders = [unchecked(path, release, change) for change, _ in MISFITS[asks]]
    verdicts = ask(release, ladders)
    for ladder, (_, expected) in zip(ladders, MISFITS[asks], strict=True):
        said = {
            finding.message
            for verdict in verdicts
            if verdict.point == ladder.first
            for finding in verdict.findings
            if finding.kind in REFUSALS
        }
        assert any(expected in message for message in said), (expected, said)


def test_the_releases_are_there() -> None:
    """The tier does not pass by skipping."""
    for variable in (
        "MTPBENCH_PARSERS",
        "MTPBENCH_VLLM_PYTHON",
        "MTPBENCH_SGLANG_PYTHON",
        "MTPBENCH_CRAFTED",
    ):
        assert variable in os.environ, (
            f"{variable} is not set: run `make test-parsers`, which sets the engines up"
        )


def test_the_newest_releases_that_mtpbench_knows_are_asked() -> None:
    asked = {(release.engine, release.version) for release in RELEASES}
    pins = PINS[newest(PINS)]
    wanted = {
        ("vllm", newest(VLLM)),
        ("vllm", pins["vllm"]),
        ("sglang", newest(SGLANG)),
        ("sglang", pins["sglang"]),
    }
    assert wanted <= asked
