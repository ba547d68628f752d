"""Command lines for the release that a sweep names: options, ports, load balancing, room for tokens."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import pytest

from mtpbench import hardware
from mtpbench.engines import dynamo, engine_of, sglang, vllm
from mtpbench.engines.about import (
    About,
    Pinned,
    Renaming,
    canonical,
    option_notices,
    release_of,
    spelled,
    version_in_image,
)
from mtpbench.errors import UnsupportedError
from mtpbench.executors import choose_ports
from mtpbench.records import Deployment, Engine, Point, Process, Topology, WorkerGroup
from mtpbench.sweep import load_sweep

RACK = hardware.lookup("gb200-nvl72")
SWEEPS = Path(__file__).resolve().parents[3] / "sweeps"
DATED = About(
    title="x", package="x", releases={"1.0": "2026-01-01", "1.1": "2026-02-01", "1.10": "2026-03-01"}
)
NAMED = Renaming(old="batch", new="batch-decode", since="1.1", deprecated="1.1", removed="1.10")
KEYED = Renaming(old="json.flag", new="json.kind", since="1.1", values={True: "small"})


def engine(**fields: str) -> Engine:
    return Engine(name="x", **fields)  # type: ignore[arg-type]


@functools.cache
def points_of(sweep: str) -> tuple[Point, ...]:
    return tuple(load_sweep(SWEEPS / f"dsv4-gb200-{sweep}.yaml").points)


def point_of(sweep: str, arm: str, topology: str, **fields: str | None) -> Point:
    point = next(p for p in points_of(sweep) if (p.arm.name, p.topology.name) == (arm, topology))
    return dataclasses.replace(point, engine=dataclasses.replace(point.engine, **fields))


def deployed(point: Point) -> Deployment:
    return engine_of(point).deploy(point, RACK)


def process(of: Deployment, name: str) -> Process:
    return next(p for p in of.processes if p.name == name)


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.25.1", "0.25.1"),
        ("lmsysorg/sglang:v0.5.12.post1-cu130", "0.5.12.post1"),
        ("nvcr.io#nvidia/tensorrt-llm/release:1.3.0rc24", "1.3.0rc24"),
        ("/images/vllm-openai+v0.21.0-ubuntu2404.sqsh", "0.21.0"),
        ("vllm/vllm-openai:nightly-dev-arm64-cu13.0.1-426e59f", None),
        ("registry:5000/sglang:latest", None),
        ("registry:5000/sglang@sha256:1.2.3abc", None),
        ("x:cuda-13.0-v0.25.1", "0.25.1"),
        ("x:ubuntu-22.04-0.25.1", "0.25.1"),
        ("nvcr.io/nvidia/vllm:25.11-py3", None),
        ("x:v0.25.1arm64", None),
        ("x:v0.33.0-rc1", "0.33.0-rc1"),
    ],
)
def test_the_release_in_an_images_name(image: str, version: str | None) -> None:
    assert version_in_image(image, ["0.25.1", "1.2.1"]) == version


@pytest.mark.parametrize(
    ("fields", "pinned", "release"),
    [
        ({"version": "1.1 (CPU), with a remark", "image": "x:v1.0.0"}, None, ("1.1", "version")),
        ({"version": "x 1.1"}, None, ("1.1", "version")),
        ({"version": "my branch", "image": "x:v1.0.0"}, None, ("1.0.0", "image")),
        ({"image": "x:nightly-dev-20260215-0abe6a85"}, None, ("1.1", "image_day")),
        ({"image": "x:nightly-0abe6a85"}, None, ("1.10", "nothing")),
        ({"image": "x:nightly-2026-02-15"}, None, ("1.1", "image_day")),
        ({"image": "x:nightly-20260230"}, None, ("1.10", "nothing")),
        ({"version": "x==1.1"}, None, ("1.1", "version")),
        ({"version": "V1.1"}, None, ("1.1", "version")),
        ({"version": "\u0661.\u0661"}, None, ("1.10", "nothing")),
        ({"version": "1.0"}, "1.1", ("1.0", "version")),
        ({"image": "x:v1.0.0"}, "1.1", ("1.0.0", "image")),
        ({}, "1.1", ("1.1", "router")),
        ({}, None, ("1.10", "nothing")),
    ],
)
def test_what_names_the_release(fields: dict[str, str], pinned: str | None, release: tuple[str, str]) -> None:
    found = release_of(engine(**fields), DATED, Pinned(version=pinned, named=True) if pinned else None)
    assert found is not None
    assert (found.version, found.named_by) == release


OWN = "nvcr.io#nvidia/ai-dynamo/vllm-runtime"


@pytest.mark.parametrize(
    ("fields", "release"),
    [
        ({"router": "dynamo"}, ("0.31.0", "newest_router")),
        ({"router": "dynamo", "router_version": "1.4.2"}, ("0.26.0", "router")),
        ({"router": "dynamo", "router_version": "ai-dynamo 1.6"}, ("0.31.0", "router")),
        ({"router": "dynamo", "router_version": "v1.5.0"}, ("0.28.0", "router")),
        ({"router": "dynamo", "router_version": "1.6.1.post1"}, ("0.31.0", "router")),
        ({"router": "dynamo", "router_version": "1.7.0"}, ("0.33.0", "nothing")),
        ({"router": "dynamo", "image": f"{OWN}:1.6.1"}, ("0.31.0", "router")),
        ({"router": "dynamo", "image": f"{OWN}:1.1.0"}, ("0.19.0", "router")),
        ({"router": "dynamo", "image": f"{OWN}:1.7.0"}, ("0.33.0", "nothing")),
        ({"image": f"{OWN}:1.6.1"}, ("0.31.0", "router")),
        ({"router": "dynamo", "image": "vllm/vllm-openai:v0.25.1"}, ("0.25.1", "image")),
        ({}, ("0.33.0", "nothing")),
    ],
)
def test_dynamo_pins_the_engines_release(fields: dict[str, str], release: tuple[str, str]) -> None:
    found = dynamo.release_for(Engine(name="vllm", **fields), vllm.ABOUT)  # type: ignore[arg-type]
    assert found is not None
    assert (found.version, found.named_by) == release


@pytest.mark.parametrize(
    ("version", "flags", "written"),
    [
        ("1.0", {"a": 1, "batch-decode": 2}, {"a": 1, "batch": 2}),
        ("1.1", {"batch": 2, "a": 1}, {"batch-decode": 2, "a": 1}),
        ("1.1", {"batch": None}, {"batch-decode": None}),
        ("1.0", {"json": {"kind": "small", "b": 1}}, {"json": {"flag": True, "b": 1}}),
        ("1.1", {"json": {"flag": True}}, {"json": {"kind": "small"}}),
        ("1.1", {"json": '{"flag": true}'}, {"json": {"kind": "small"}}),
        ("1.1", {"json": "no json"}, {"json": "no json"}),
        ("1.1", {"json": {"flag": False, "b": 1}}, {"json": {"b": 1}}),
        ("1.1", {"json": {"flag": None}}, {"json": None}),
        ("1.1", {"a_b": 1}, {"a-b": 1}),
    ],
)
def test_options_get_the_names_of_the_release(
    version: str, flags: dict[str, object], written: dict[str, object]
) -> None:
    release = release_of(engine(version=version), DATED)
    assert spelled(canonical(flags, (NAMED, KEYED)), (NAMED, KEYED), release) == written


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"batch": 2, "batch-decode": 3}, "batch and batch-decode are two names of one option"),
        ({"a_b": 1, "a-b": 2}, "a-b is given twice"),
        ({"json": {"flag": [1]}}, r"json\.flag is true or false, not \[1\]"),
        ({"json": {"flag": "true"}}, r"json\.flag is true or false, not 'true'"),
        ({"json": {"flag": True, "kind": "large"}}, "two names of one option"),
    ],
)
def test_what_has_no_one_meaning_is_refused(flags: dict[str, object], said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        canonical(flags, (NAMED, KEYED))


@pytest.mark.parametrize(
    ("base", "forces", "written"),
    [
        ({"cuda-graph-max-bs": 1024}, {"cuda-graph-max-bs-decode": 128}, "128"),
        ({"cuda-graph-max-bs-decode": 1024}, {"cuda_graph_max_bs": 128}, "128"),
        ({"cuda-graph-max-bs": 1024}, {"cuda-graph-max-bs-decode": None}, None),
    ],
)
@pytest.mark.parametrize("version", ["0.5.12.post1", "0.5.23"])
def test_what_an_arm_forces_wins_under_whichever_name(
    version: str, base: dict[str, object], forces: dict[str, object], written: str | None
) -> None:
    point = point_of("sglang", "mtp", "6xDEP8-1xDEP16", version=version)
    flags = {
        "decode": {**{n: v for n, v in point.engine.flags["decode"].items() if "graph" not in n}, **base}
    }
    point = dataclasses.replace(
        point,
        engine=dataclasses.replace(point.engine, flags={**point.engine.flags, **flags}),
        arm=dataclasses.replace(point.arm, forces={"decode": forces}),
    )
    argv = process(deployed(point), "decode-0.r0").argv
    said = [argv[i + 1] for i, word in enumerate(argv) if word.startswith("--cuda-graph-max-bs")]
    assert said == ([] if written is None else [written])


def test_a_value_that_the_release_has_no_name_for_is_refused() -> None:
    release = release_of(engine(version="1.0"), DATED)
    with pytest.raises(
        UnsupportedError, match=r"json\.kind with 'large' exists since 1\.1, .* for 1\.0; name a later"
    ):
        spelled({"json": {"kind": "large"}}, (KEYED,), release)


def test_notices_of_names_that_change_and_of_those_that_go() -> None:
    def notices(version: str, *renamings: Renaming, **flags: object) -> list[tuple[str, str]]:
        release = release_of(engine(version=version), DATED)
        return [(n.used, n.written) for n in option_notices([flags], renamings, release)]  # type: ignore[list-item]

    going = dataclasses.replace(NAMED, goes_after="2026-12-31", removed=None)
    assert notices("1.0", NAMED, batch=1) == []
    assert notices("1.10", NAMED, batch=1) == [("batch", "batch-decode")]
    assert notices("1.0", NAMED, **{"batch-decode": 1}) == [("batch-decode", "batch")]
    assert notices("1.10", NAMED, **{"batch-decode": 1}) == []
    assert notices("1.0", going, batch=1) == [("batch", "batch")]
    assert notices("1.0", going, other=1) == []
    kept = dataclasses.replace(NAMED, written_as="batch", removed=None)
    assert notices("1.10", kept, **{"batch-decode": 1}) == [], "who uses the new name keeps it"


# --- SGLang ---


@pytest.mark.parametrize(
    ("version", "option"),
    [
        ("0.5.13", "--cuda-graph-max-bs"),
        ("0.5.14", "--cuda-graph-max-bs-decode"),
        ("0.5.23", "--cuda-graph-max-bs-decode"),
    ],
)
def test_sglangs_largest_graph_has_the_name_of_the_release(version: str, option: str) -> None:
    made = deployed(point_of("sglang", "off", "1xDEP8-1xDEP16", version=version))
    argv = process(made, "decode-0.r0").argv
    assert [word for word in argv if word.startswith("--cuda-graph")] == [option]
    assert argv[argv.index(option) + 1] == "1024"


def test_sglangs_attention_dp_has_the_name_of_the_release() -> None:
    def argv(version: str) -> tuple[str, ...]:
        made = deployed(point_of("sglang", "off", "1xDEP8-1xDEP16", version=version))
        return process(made, "decode-0.r0").argv

    old, new = argv("0.5.21"), argv("0.5.22")
    assert "--enable-dp-attention" in old
    assert old[old.index("--data-parallel-size") + 1] == "16"
    assert not {"--enable-dp-attention", "--data-parallel-size"} & set(new)
    assert new[new.index("--attn-dp-size") + 1] == "16"


@pytest.mark.parametrize("version", ["0.5.21", "0.5.23"])
def test_a_sweeps_own_attn_dp_size_is_that_of_the_topology(version: str) -> None:
    point = point_of("sglang", "off", "1xDEP8-1xDEP16", version=version)

    def given(**options: object) -> Point:
        kept = {n: v for n, v in point.engine.flags["decode"].items() if n != "enable-dp-attention"}
        flags = {**point.engine.flags, "decode": {**kept, **options}}
        return dataclasses.replace(point, engine=dataclasses.replace(point.engine, flags=flags))

    usual = process(deployed(point), "decode-0.r0").argv
    own = process(deployed(given(**{"attn-dp-size": 16})), "decode-0.r0").argv
    assert sorted(own) == sorted(usual)
    with pytest.raises(UnsupportedError, match="attn-dp-size is 8, and the topology has 16 ranks"):
        deployed(given(**{"attn-dp-size": 8}))


def test_the_ports_that_sglang_derives_meet_no_other_port() -> None:
    """SGLang's PortArgs takes dist + 1 to dist + 6 under attention DP, also on one node."""
    base = point_of("sglang", "mtp", "6xDEP8-1xDEP16")
    decode = WorkerGroup(role="aggregated", workers=2, tp=1, dp=2, ep=2)
    one_node = dataclasses.replace(base, topology=Topology(groups=(decode,)))
    for point in (base, one_node):
        made = deployed(point)
        heads = {p.name for p in made.processes if "dist" in p.ports}
        assert len(heads) == (7 if point is base else 2)
        assert all(p.port_spans == {"dist": 7} for p in made.processes if p.name in heads)
        ports = choose_ports(made, {p.name: "127.0.0.1" for p in made.processes})
        given = [number + i for (_, name), number in ports.items() for i in range(7 if name == "dist" else 1)]
        assert len(given) == len(set(given))


@pytest.mark.parametrize(
    ("version", "arm", "role", "room"),
    [
        ("0.5.12.post1", "mtp", "decode-0.r0", "8192"),
        ("0.5.12.post1", "off", "decode-0.r0", "8192"),
        ("0.5.12.post1", "mtp", "prefill-0.r0", "8192"),
        ("0.5.18", "mtp", "decode-0.r0", None),
    ],
)
def test_megamoe_has_room_for_a_step_of_every_role(
    version: str, arm: str, role: str, room: str | None
) -> None:
    topology = {"mtp": "6xDEP8-1xDEP16", "off": "1xDEP8-1xDEP16"}[arm]
    made = deployed(point_of("sglang", arm, topology, version=version))
    assert process(made, role).env.get(sglang.MEGA_MOE_TOKENS) == room


def test_too_little_room_for_megamoe_is_refused_and_a_sweeps_own_room_stays() -> None:
    point = point_of("sglang", "mtp", "6xDEP8-1xDEP16")

    def given(room: str) -> Point:
        env = {**point.engine.env, "decode": {**point.engine.env["decode"], sglang.MEGA_MOE_TOKENS: room}}
        return dataclasses.replace(point, engine=dataclasses.replace(point.engine, env=env))

    sglang.check(given("4096"), RACK)
    assert process(deployed(given("4096")), "decode-0.r0").env[sglang.MEGA_MOE_TOKENS] == "4096"
    with pytest.raises(UnsupportedError, match=r"takes 4096 tokens a rank \(1024 sequences × 4\)"):
        sglang.check(given("1024"), RACK)


# --- vLLM ---


def vllm_options(version: str | None, router: str | None, name: str) -> dict[str, str]:
    base = point_of("vllm", "off", "1xDEP8-1xDEP8", version=version, image=None, router=router)
    group = WorkerGroup(role="aggregated", workers=1, tp=1, dp=8, ep=8)
    made = deployed(dataclasses.replace(base, topology=Topology(groups=(group,))))
    argv = process(made, name).argv
    return {
        word: argv[i + 1] if i + 1 < len(argv) and not argv[i + 1].startswith("--") else ""
        for i, word in enumerate(argv)
        if word.startswith(("--data-parallel", "--headless"))
    }


def test_behind_dynamo_each_node_of_a_data_parallel_vllm_serves_its_own_ranks_since_0_28() -> None:
    for rank in (0, 1):
        said = vllm_options("0.31.0", "dynamo", f"aggregated-0.r{rank}")
        assert "--headless" not in said
        assert "--data-parallel-hybrid-lb" in said
        assert (said["--data-parallel-size-local"], said["--data-parallel-start-rank"]) == (
            "4",
            str(4 * rank),
        )
    point = point_of("vllm", "off", "1xDEP8-1xDEP8", version="0.31.0", image=None)
    served = [p for p in deployed(point).processes if p.role == "decode"]
    assert [(p.ready is not None, p.metrics) for p in served] == [(True, ("http", "/metrics"))] * 2


@pytest.mark.parametrize(("version", "router"), [("0.27.1", "dynamo"), ("0.33.0", None), ("0.25.1", None)])
def test_elsewhere_the_first_node_serves_all_ranks_and_names_no_start_rank(
    version: str, router: str | None
) -> None:
    head, second = (vllm_options(version, router, f"aggregated-0.r{rank}") for rank in (0, 1))
    assert not {"--headless", "--data-parallel-start-rank", "--data-parallel-hybrid-lb"} & set(head)
    assert second["--data-parallel-start-rank"] == "4"
    assert "--headless" in second


@pytest.mark.parametrize(
    ("version", "written"),
    [
        ("0.25.1", {"use_fp4_indexer_cache": True}),
        ("0.28.0", {"indexer_kv_dtype": "mxfp4"}),
        ("0.33.0", {"indexer_kv_dtype": "mxfp4"}),
    ],
)
def test_vllms_indexer_cache_has_the_name_of_the_release(version: str, written: dict[str, object]) -> None:
    made = deployed(point_of("vllm", "mtp", "1xDEP8-1xDEP8", version=version, image=None))
    argv = process(made, "decode-0.r0").argv
    assert json.loads(argv[argv.index("--attention-config") + 1]) == written


def test_two_nixl_workers_of_a_node_listen_on_ports_of_their_own() -> None:
    point = point_of("vllm", "off", "1xDEP8-1xDEP8")
    groups = tuple(WorkerGroup(role=role, workers=1, tp=2) for role in ("prefill", "decode"))  # type: ignore[arg-type]
    made = deployed(dataclasses.replace(point, topology=Topology(groups=groups)))
    names = ("prefill-0", "decode-0")
    assert {process(made, name).node for name in names} == {0}
    assert [process(made, name).env["VLLM_NIXL_SIDE_CHANNEL_PORT"] for name in names] == [
        f"@{{port:{name}/nixl}}" for name in names
    ]
    wide = deployed(point)
    assert all(p.port_spans == {"nixl": 8} for p in wide.processes if p.role == "decode")


@pytest.mark.parametrize(
    ("version", "flags", "written"),
    [
        ("0.5.13", {"disable-piecewise-cuda-graph": True}, {"disable-piecewise-cuda-graph": True}),
        ("0.5.21", {"disable-piecewise-cuda-graph": True}, {"cuda-graph-backend-prefill": "disabled"}),
        ("0.5.13", {"cuda-graph-backend-prefill": "breakable"}, {"enable-breakable-cuda-graph": True}),
        ("0.5.23", {"nsa-decode-backend": "x"}, {"dsa-decode-backend": "x"}),
        ("0.5.23", {"disable-cuda-graph": True}, {"disable-cuda-graph": True}),
    ],
)
def test_sglangs_options_are_written_in_both_directions(
    version: str, flags: dict[str, object], written: dict[str, object]
) -> None:
    release = release_of(Engine(name="sglang", version=version), sglang.ABOUT)
    known = sglang.ABOUT.renamings
    assert spelled(canonical(flags, known), known, release) == written


def test_an_option_that_is_gone_without_another_in_its_place_is_refused() -> None:
    release = release_of(Engine(name="sglang", version="0.5.23"), sglang.ABOUT)
    with pytest.raises(
        UnsupportedError, match=r"prefill-round-robin-balance is gone since 0\.5\.20; take it away"
    ):
        spelled({"prefill-round-robin-balance": True}, sglang.ABOUT.renamings, release)
