"""The command lines of the real engines on the public GB200 points."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from mtpbench import hardware
from mtpbench.engines import engine_of, parts, trtllm, vllm
from mtpbench.engines.parts import Placement, place, resolve
from mtpbench.errors import SweepError, UnsupportedError
from mtpbench.records import Deployment, Point, Process, Topology, WorkerGroup
from mtpbench.sweep import load_sweep
from mtpbench.sweep.arm_confounds import compare_processes

RACK = hardware.lookup("gb200-nvl72")
SWEEPS = Path(__file__).resolve().parents[3] / "sweeps"


def deployment(sweep: str, arm: str, topology: str) -> tuple[Point, Deployment]:
    points = load_sweep(SWEEPS / f"dsv4-gb200-{sweep}.yaml").points
    point = next(p for p in points if (p.arm.name, p.topology.name) == (arm, topology))
    return point, engine_of(point).deploy(point, RACK)


def process(of: Deployment, name: str) -> Process:
    return next(p for p in of.processes if p.name == name)


def options(of: Process) -> dict[str, str]:
    words = list(of.argv)
    return {
        word: (words[i + 1] if i + 1 < len(words) and not words[i + 1].startswith("--") else "")
        for i, word in enumerate(words)
        if word.startswith("--")
    }


def test_the_headline_point_has_sixty_four_gpus_on_sixteen_nodes() -> None:
    _, made = deployment("sglang", "mtp", "6xDEP8-1xDEP16")
    assert (made.gpus, made.nodes) == (64, 16)
    assert [p.name for p in made.processes if p.role == "decode"] == [f"decode-0.r{i}" for i in range(4)]
    held = [(p.node, gpu) for p in made.processes for gpu in p.gpus]
    assert len(held) == len(set(held)) == 64


def test_sglang_speculates_on_decode_workers_only() -> None:
    _, made = deployment("sglang", "mtp", "6xDEP8-1xDEP16")
    decode, prefill = options(process(made, "decode-0.r0")), options(process(made, "prefill-0.r0"))
    expected = {
        "--speculative-algorithm": "EAGLE",
        "--speculative-num-steps": "3",
        "--speculative-eagle-topk": "1",
        "--speculative-num-draft-tokens": "4",
        "--tensor-parallel-size": "16",
        "--data-parallel-size": "16",
        "--expert-parallel-size": "16",
        "--disaggregation-mode": "decode",
        "--max-running-requests": "21504",
        "--nnodes": "4",
        "--node-rank": "0",
    }
    assert {name: decode.get(name) for name in expected} == expected
    assert not [name for name in prefill if "speculative" in name]
    assert prefill["--chunked-prefill-size"] == "65536"


def test_vllm_speculates_on_both_roles() -> None:
    _, made = deployment("vllm", "mtp", "1xDEP8-1xDEP8")
    for name in ("prefill-0.r0", "decode-0.r1"):
        config = json.loads(options(process(made, name))["--speculative-config"])
        assert config == {"method": "mtp", "num_speculative_tokens": 2}
    second = options(process(made, "decode-0.r1"))
    assert (second["--data-parallel-size-local"], second["--data-parallel-start-rank"]) == ("4", "4")
    assert "--headless" in second
    assert "--headless" not in options(process(made, "decode-0.r0"))


def test_trtllm_makes_room_for_drafts_and_writes_its_configuration() -> None:
    _, off = deployment("trtllm", "off", "1xDEP8")
    _, mtp = deployment("trtllm", "mtp-k3", "1xDEP8")
    assert options(process(off, "aggregated-0.r0"))["--max_num_tokens"] == str(8192 + 256)
    assert options(process(mtp, "aggregated-0.r0"))["--max_num_tokens"] == str(8192 + 256 + 4 * 1024)
    config = yaml.safe_load(process(mtp, "aggregated-0.r0").files[0].text)
    assert config["speculative_config"]["max_draft_len"] == 3
    assert config["enable_lm_head_tp_in_adp"] is True
    assert config["enable_attention_dp"] is True
    assert "speculative_config" not in yaml.safe_load(process(off, "aggregated-0.r0").files[0].text)
    assert process(mtp, "aggregated-0.r1").mpi_tasks == 4


@pytest.mark.parametrize(
    ("sweep", "arm", "topology", "differences"),
    [
        ("sglang", "mtp", "1xDEP8-1xDEP16", set()),
        ("vllm", "mtp", "1xDEP8-1xDEP8", {"--attention-config"}),
        ("trtllm", "mtp-k3", "1xDEP8", {"--max_num_tokens", "file enable_lm_head_tp_in_adp"}),
        ("trtllm", "mtp-k3", "1xTP8", {"--max_num_tokens"}),
    ],
)
def test_off_and_mtp_differ_in_exactly_the_declared_settings(
    sweep: str, arm: str, topology: str, differences: set[str]
) -> None:
    _, off = deployment(sweep, "off", topology)
    _, mtp = deployment(sweep, arm, topology)
    found = {
        sentence.split(" is ")[0]
        for mine, theirs in zip(off.processes, mtp.processes, strict=True)
        for sentence in compare_processes(mine, theirs)
    }
    assert found == differences


def test_a_golden_length_pins_vllm_to_synthetic_acceptance(write_sweep) -> None:
    path = write_sweep(
        ("  name: simulated\n  clock: scaled\n  speed: 5\n", "  name: vllm\n"),
        ("  flags: {all: {stream-interval: 4}}\n", ""),
    )
    point = load_sweep(path).points[-1]
    config = vllm.speculation_flags(point, "aggregated")["speculative-config"]
    assert config["rejection_sample_method"] == "synthetic"
    assert config["synthetic_acceptance_length"] == 2.49


def test_several_vllm_workers_need_a_router(write_sweep) -> None:
    path = write_sweep(
        ("  name: simulated\n  clock: scaled\n  speed: 5\n", "  name: vllm\n"),
        ("  flags: {all: {stream-interval: 4}}\n", ""),
        ("aggregated: 1xTP4", "aggregated: 2xTP4"),
    )
    with pytest.raises(SweepError, match=r"vllm on 2xTP4 needs `engine.router: dynamo`, not None"):
        load_sweep(path)


def test_small_workers_share_a_node_and_large_ones_span_whole_nodes() -> None:
    topology = Topology(
        groups=(
            WorkerGroup(role="prefill", workers=3, tp=2),
            WorkerGroup(role="decode", workers=1, tp=1, dp=8, ep=8),
        )
    )
    placed = place(topology, 4)
    assert [(w.name, [(s.node, s.gpus) for s in w.shares]) for w in placed] == [
        ("prefill-0", [(0, (0, 1))]),
        ("prefill-1", [(0, (2, 3))]),
        ("prefill-2", [(1, (0, 1))]),
        ("decode-0", [(2, (0, 1, 2, 3)), (3, (0, 1, 2, 3))]),
    ]


def test_gpus_that_do_not_divide_are_refused() -> None:
    topology = Topology(groups=(WorkerGroup(role="aggregated", workers=1, tp=6),))
    with pytest.raises(UnsupportedError, match="TP6 needs 6 GPUs"):
        place(topology, 4)


def test_flags_become_argv() -> None:
    assert parts.as_argv({"a": True, "b": False, "c": None, "d": 1.5, "e": {"x": [1]}}) == (
        "--a",
        "--d",
        "1.5",
        "--e",
        '{"x":[1]}',
    )


TRTLLM = (
    ("  name: simulated\n  clock: scaled\n  speed: 5\n", "  name: trtllm\n  router: ROUTER\n"),
    ("  flags: {all: {stream-interval: 4}}\n", "  flags: {all: {max_batch_size: 64}}\n"),
    ("acceptance: golden", "acceptance: measured"),
    ("- {aggregated: 1xTP4, concurrency: [1, 2]}", "- {prefill: 2xDEP4, decode: 1xDEP8, concurrency: [8]}"),
)


def trtllm_deployment(write_sweep, router: str) -> Deployment:  # type: ignore[no-untyped-def]
    path = write_sweep(*((old, new.replace("ROUTER", router)) for old, new in TRTLLM))
    return engine_of(load_sweep(path).points[-1]).deploy(load_sweep(path).points[-1], RACK)


def test_trtllm_routes_context_and_generation_servers_by_itself(write_sweep) -> None:
    made = trtllm_deployment(write_sweep, "trtllm")
    router = process(made, "router")
    assert router.argv[:4] == ("trtllm-serve", "disaggregated", "-c", "@{dir}/router.yaml")
    ports = {(p.name, name): 20000 + i for i, p in enumerate(made.processes) for name in p.ports}
    placement = Placement(
        hosts={p.name: f"n{p.node}" for p in made.processes}, ports=ports, directory="/d", python="p"
    )
    config = yaml.safe_load(resolve(router, placement).files[0].text)
    assert config["port"] == ports["router", "http"]
    assert config["context_servers"] == {
        "num_instances": 2,
        "urls": [f"n0:{ports['prefill-0', 'http']}", f"n1:{ports['prefill-1', 'http']}"],
    }
    assert config["generation_servers"]["urls"] == [f"n2:{ports['decode-0.r0', 'http']}"]
    decode = yaml.safe_load(process(made, "decode-0.r0").files[0].text)
    assert decode["cache_transceiver_config"] == {"backend": "DEFAULT"}
    assert decode["speculative_config"]["max_draft_len"] == 3
    prefill = yaml.safe_load(process(made, "prefill-0").files[0].text)
    assert prefill["disable_overlap_scheduler"] is True
    assert prefill["speculative_config"]["max_draft_len"] == 3
    assert options(process(made, "decode-0.r0"))["--max_num_tokens"] == str(4 * 64)
    assert process(made, "decode-0.r1").mpi_tasks == 4


def test_trtllm_workers_stand_behind_dynamo_too(write_sweep) -> None:
    made = trtllm_deployment(write_sweep, "dynamo")
    assert made.front == "router"
    assert "dynamo.frontend" in process(made, "router").argv
    prefill, decode = process(made, "prefill-0"), process(made, "decode-0.r0")
    assert prefill.argv[:3] == ("python3", "-m", "dynamo.trtllm")
    assert options(prefill)["--disaggregation-mode"] == "prefill"
    assert decode.argv[0] == "trtllm-llmapi-launch"
    config = yaml.safe_load(decode.files[0].text)
    assert (config["tensor_parallel_size"], config["moe_expert_parallel_size"]) == (8, 8)
    assert config["max_batch_size"] == 64
    assert config["enable_lm_head_tp_in_adp"] is True


def test_sglang_workers_stand_behind_their_own_router(write_sweep) -> None:
    path = write_sweep(
        (TRTLLM[0][0], "  name: sglang\n  router: sglang\n"),
        ("  flags: {all: {stream-interval: 4}}\n", "  command: [/opt/python, -m, sglang.launch_server]\n"),
        ("acceptance: golden", "acceptance: {length: 2.5}"),
        (TRTLLM[3][0], "- {prefill: 1xTP4, decode: 2xTP4, concurrency: [8]}"),
    )
    text = path.read_text("utf-8")
    with pytest.raises(SweepError, match=r"take no token ids .* set `workload\.chat_template: true`"):
        load_sweep(path)
    lines = path.with_name("lines.jsonl")
    given = "workload: {prompts: dataset, dataset: lines.jsonl, "
    path.write_text(text.replace("workload: {", given), "utf-8")
    for line, refused in (
        ('{"prompt_token_ids": [5, 6, 7], "output_tokens": 4}', True),
        ('{"input_length": 8, "output_length": 4, "hash_ids": [0]}', True),
        ('{"prompt": "one two", "output_tokens": 4}', False),
    ):
        lines.write_text(line + "\n", "utf-8")
        with pytest.raises(SweepError, match="take no token ids") if refused else contextlib.nullcontext():
            load_sweep(path)
    path.write_text(text.replace("workload: {", "workload: {chat_template: true, "), "utf-8")
    point = load_sweep(path).points[-1]
    made = engine_of(point).deploy(point, RACK)
    words = process(made, "router").argv
    assert words[:5] == ("/opt/python", "-m", "sglang_router.launch_router", "--policy", "round_robin")
    assert words[words.index("--request-timeout-secs") + 1] == f"{point.measurement.request_timeout_s:.0f}"
    assert (
        words[words.index("--worker-startup-timeout-secs") + 1] == f"{point.measurement.ready_timeout_s:.0f}"
    )
    assert "--pd-disaggregation" in words
    at = words.index("--prefill")
    assert words[at + 1 : at + 3] == (
        "http://@{host:prefill-0}:@{port:prefill-0/http}",
        "@{port:prefill-0/bootstrap}",
    )
    assert words.count("--decode") == 2
    decode, prefill = process(made, "decode-1"), process(made, "prefill-0")
    assert decode.env["SGLANG_SIMULATE_ACC_LEN"] == "2.5"
    assert "SGLANG_SIMULATE_ACC_LEN" not in prefill.env
    assert options(prefill)["--disaggregation-bootstrap-port"] == "@{port:prefill-0/bootstrap}"


@pytest.mark.parametrize(
    ("engine", "option"), [("vllm", "--enable-prompt-tokens-details"), ("sglang", "--enable-cache-report")]
)
def test_engines_are_asked_to_say_which_prompt_tokens_were_cached(
    write_sweep, engine: str, option: str
) -> None:
    """Dynamo's frontend says it anyhow, and its vLLM workers refuse the option of vLLM's own server."""
    changes = (
        (TRTLLM[0][0], f"  name: {engine}\n"),
        ("  flags: {all: {stream-interval: 4}}\n", ""),
        ("acceptance: golden", "acceptance: measured"),
    )
    point = load_sweep(write_sweep(*changes)).points[-1]
    assert option in process(engine_of(point).deploy(point, RACK), "aggregated-0").argv
    behind = dataclasses.replace(point, engine=dataclasses.replace(point.engine, router="dynamo"))
    workers = [p for p in engine_of(behind).deploy(behind, RACK).processes if p.role == "aggregated"]
    assert workers
    assert not [p for p in workers if option in p.argv]
    off = {"aggregated": {option[2:]: False}}
    unsaid = dataclasses.replace(point, engine=dataclasses.replace(point.engine, flags=off))
    assert option not in process(engine_of(unsaid).deploy(unsaid, RACK), "aggregated-0").argv


def test_gpus_are_numbered_as_their_meters_number_them_unless_the_sweep_says_otherwise() -> None:
    """CUDA numbers the fastest first by default, NVML by bus; who holds no GPU numbers none."""
    placement = Placement(hosts={}, ports={}, directory="/d", python="python")
    holds = Process(name="decode-0", role="decode", argv=("x",), gpus=(0,), env={"A": "1"})
    assert resolve(holds, placement).env == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "A": "1"}
    assert resolve(Process(name="router", role="router", argv=("x",)), placement).env == {}
    otherwise = Process(
        name="decode-0", role="decode", argv=("x",), gpus=(0,), env={"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    )
    assert resolve(otherwise, placement).env == {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llamacpp"])
def test_an_option_that_a_sweep_leaves_out_is_the_engines_usual_one(engine: str) -> None:
    """`false` leaves an option out of the command line, and of what the limits follow from."""
    names = ("max-num-seqs", "max-num-batched-tokens", "stream-interval", "max-running-requests")
    flags = dict.fromkeys((*names, "chunked-prefill-size", "parallel", "batch-size"), False)
    point, _ = deployment("sglang", "mtp", "6xDEP8-1xDEP16")

    def limits(of: dict[str, object]) -> object:
        base = dataclasses.replace(point.engine, name=engine, flags={"decode": of, "prefill": of})
        bare = dataclasses.replace(point.arm, forces={})
        return engine_of(made := dataclasses.replace(point, engine=base, arm=bare)).limits(made)

    assert limits(flags) == limits({})


def test_tensorrt_llms_tokens_of_a_step_may_be_left_out() -> None:
    point, _ = deployment("sglang", "mtp", "6xDEP8-1xDEP16")
    for role in ("prefill", "decode"):
        given = point.engine.flags.get(role, {})
        numbers = []
        for flags in (
            {**given, "max_num_tokens": False},
            {k: v for k, v in given.items() if k != "max_num_tokens"},
        ):
            engine = dataclasses.replace(point.engine, flags={role: flags})
            bare = dataclasses.replace(point.arm, forces={})
            numbers.append(trtllm.max_num_tokens(dataclasses.replace(point, engine=engine, arm=bare), role))
        assert numbers[0] == numbers[1] > 0
