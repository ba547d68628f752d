import dataclasses

import pytest

from harness.simengine.simulated_points import aggregated, make_point, split
from mtpbench import hardware
from mtpbench.engines import simulated
from mtpbench.errors import UnsupportedError
from mtpbench.records import EngineLimits, Fault
from mtpbench.simengine.drafting import drafting_of
from mtpbench.simengine.service import parse_arguments

GB200 = hardware.lookup("gb200-nvl72")


def test_one_aggregated_worker_answers_by_itself():
    deployment = simulated.deploy(make_point(aggregated(1, "TP8"), 4, 3, speed=5.0), GB200)
    (process,) = deployment.processes
    assert process.argv[:3] == ("@{python}", "-m", "mtpbench.simengine.server")
    assert (deployment.front, process.name, process.role) == ("aggregated-0", "aggregated-0", "aggregated")
    assert deployment.time_scale == 5.0
    assert (deployment.gpus, deployment.nodes) == (8, 2)
    assert process.ready.model == "m"
    assert process.metrics == ("http", "/metrics")


def test_prefill_and_decode_workers_stand_behind_a_router_on_their_own_gpus():
    deployment = simulated.deploy(make_point(split((2, "TP8"), (1, "DEP16")), 4, 3), GB200)
    names = [process.name for process in deployment.processes]
    assert names == ["router", "prefill-0", "prefill-1", "decode-0"]
    assert [process.node for process in deployment.processes[1:]] == [0, 2, 4]
    assert deployment.nodes == 8
    router = deployment.processes[0]
    assert "http://@{host:prefill-0}:@{port:prefill-0/http},http://@{host:prefill-1}" in " ".join(router.argv)
    assert deployment.time_scale == 1.0


def test_only_workers_that_decode_draft():
    deployment = simulated.deploy(make_point(split((1, "TP8"), (1, "TP8")), 4, 3), GB200)
    drafting = [process.name for process in deployment.processes if "--acceptance-rates" in process.argv]
    assert drafting == ["decode-0"]


def test_the_servers_own_parser_reads_every_command_line_back():
    point = make_point(
        split((1, "DEP8"), (1, "TP8")),
        4,
        3,
        speed=4.0,
        faults=(Fault(kind="stall", at_request=2), Fault(kind="http_503", role="decode", probability=0.5)),
        flags={"decode": {"kv-tokens": 5000, "stream-interval": 3}},
    )
    read = {}
    for process in simulated.deploy(point, GB200).processes:
        words = [word.replace("@{port:", "").replace("/http}", "") for word in process.argv[3:]]
        words[words.index("--port") + 1] = "1"
        read[process.name] = parse_arguments(words)
    assert read["decode-0"].limits == simulated.limits(point)["decode"]
    assert read["decode-0"].limits.kv_tokens == 5000
    assert read["decode-0"].drafting == drafting_of(point)
    assert [fault.kind for fault in read["router"].faults] == ["stall"]
    assert [fault.kind for fault in read["decode-0"].faults] == ["http_503"]
    assert read["prefill-0"].group == dataclasses.replace(point.topology.groups[0], workers=1)


def test_points_of_one_deployment_key_share_their_deployment():
    one, other = (make_point(split((1, "TP8"), (1, "TP8")), c, 3, seed=s) for c, s in ((4, 1), (64, 2)))
    assert one.deployment_key == other.deployment_key
    assert simulated.deploy(one, GB200) == simulated.deploy(other, GB200)


def test_limits_default_per_rank():
    limits = simulated.limits(make_point(split((1, "DEP8"), (1, "TP8")), 4, 0))
    assert limits["prefill"] == EngineLimits(max_running=8192, prefill_chunk_tokens=65536)
    assert limits["decode"] == EngineLimits(max_running=1024, prefill_chunk_tokens=8192)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flags": {"decode": {"max-num-seqs": 5}}}, "no option max-num-seqs .decode.; valid: max-running"),
        ({"flags": {"decode": {"max-running": 0}}}, "max-running .decode. is a whole number above 0, not 0"),
        ({"speed": 11.0}, "speed 11: the scaled clock runs at most 10 times"),
        ({"faults": (Fault(kind="explode"),)}, "unknown fault 'explode'; valid: exit_before_bind"),
    ],
)
def test_what_the_engine_cannot_do_is_refused(change, message):
    point = make_point(split((1, "TP8"), (1, "TP8")), 4, 3, **change)
    with pytest.raises(UnsupportedError, match=message):
        simulated.check(point, GB200)


def test_missing_acceptance_rates_are_refused():
    point = make_point(aggregated(1, "TP8"), 4, 3)
    policy = dataclasses.replace(point.arm.speculation.acceptance, rates=None)
    spec = dataclasses.replace(point.arm.speculation, acceptance=policy)
    broken = dataclasses.replace(point, arm=dataclasses.replace(point.arm, speculation=spec))
    with pytest.raises(UnsupportedError, match="needs 3 acceptance rates"):
        simulated.check(broken, GB200)


def test_a_possible_point_passes_the_check():
    simulated.check(make_point(split((1, "DEP8"), (1, "DEP12")), 4, 3), GB200)
