"""What is made of engines' answers: the asker on stand-ins of engines, the caller on askers that fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mtpbench.parsers import Verdict, ask_ladders
from mtpbench.parsers.asking import (
    ClusterLauncher,
    Launch,
    NotHere,
    Program,
    asker_text,
    launch_here,
    program_of,
)
from mtpbench.plan import ladders_of
from mtpbench.reaper import is_alive, reap
from mtpbench.records import Process
from mtpbench.slurm.client import Slurm
from mtpbench.slurm.cluster_profile import ClusterProfile
from mtpbench.sweep import load_sweep

ENGINES = Path(__file__).resolve().parents[1] / "fixtures" / "parsers"
SWEEP = """
sweep: asked
question: Would the engine take it?
model: {{path: "{model}", served_name: m, precision: fp4}}
hardware: gb200-nvl72
engine: {{name: {engine}, flags: {{all: {flags}}}}}
workload: {{isl: 64, osl: 64, chat_template: true}}
arms: {{off: }}
topologies: [{{{topology}, concurrency: [1]}}]
"""
SGLANG, ONE = "sglang, router: sglang, version: 0.5.12.post1", "aggregated: 1xTP4"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}", "utf-8")
    return folder


def launch(limit_s: float = 60.0, code: str | None = None, **variables: str) -> Any:
    """A launcher that runs the stand-ins, or a program of the test's, in this Python."""
    environment = {**os.environ, "PYTHONPATH": str(ENGINES), "STAND_IN_GPU": "1", **variables}
    made = Launch(
        argv=(sys.executable,),
        environment={name: value for name, value in environment.items() if value},
        limit_s=limit_s,
        code=code or asker_text(),
    )
    return lambda program: made


def ask(
    model: Path, flags: str = "{}", topology: str = ONE, launcher: Any = None, engine: str = SGLANG
) -> dict[str, Verdict]:
    """The verdicts on a sweep with these options, by process."""
    path = model.parent / "sweep.yaml"
    path.write_text(SWEEP.format(model=model, flags=flags, topology=topology, engine=engine), "utf-8")
    verdicts = ask_ladders(ladders_of(load_sweep(path).points), launcher or launch(), os.environ)
    return {verdict.process.name: verdict for verdict in verdicts}


def only(verdicts: dict[str, Verdict]) -> Verdict:
    (verdict,) = verdicts.values()
    return verdict


def said(verdict: Verdict) -> list[tuple[str, str, str]]:
    return [(finding.kind, finding.stage, finding.message) for finding in verdict.findings]


def test_a_line_that_an_engine_takes_is_accepted_to_its_last_stage(model: Path) -> None:
    verdict = only(ask(model))
    assert (verdict.state, verdict.findings, verdict.left_out) == ("accepted", (), {})
    assert verdict.stages == ("parser", "config", "checks", "ports")


def test_a_parser_s_refusal_is_in_its_own_words(model: Path) -> None:
    verdict = only(ask(model, "{cuda-graph-m: 8}"))
    assert verdict.state == "refused"
    ambiguous = "could match --cuda-graph-max-bs-decode, --cuda-graph-max-bs-prefill"
    assert said(verdict) == [("refused", "parser", f"ambiguous option: --cuda-graph-m {ambiguous}")]
    assert verdict.stages == ()


def test_every_unknown_option_is_named_and_the_line_goes_on(model: Path) -> None:
    verdict = only(ask(model, "{no-such: 1, nor-this: true}"))
    assert verdict.state == "refused"
    assert [(f.kind, f.option) for f in verdict.findings] == [
        ("unknown_option", "--no-such"),
        ("unknown_option", "--nor-this"),
    ]
    assert "checks" in verdict.stages


def test_an_option_that_matches_only_by_its_beginning_is_a_warning(model: Path) -> None:
    verdict = only(ask(model, "{page-siz: 4}"))
    assert verdict.state == "accepted"
    assert [(f.kind, f.option) for f in verdict.findings] == [("by_prefix", "--page-siz")]


def test_a_deprecation_is_what_the_engine_says_of_an_option_of_the_line(model: Path) -> None:
    verdict = only(ask(model, "{enable-dp-attention: true}"))
    assert verdict.state == "accepted"
    assert said(verdict) == [("deprecated", "config", "'--enable-dp-attention' is deprecated.")]


def test_a_spelling_that_a_parser_s_help_calls_deprecated_is_told(model: Path) -> None:
    """Dynamo takes some old names without a word."""
    assert only(ask(model, "{log-level: info}")).findings == ()
    ((kind, _, message),) = said(only(ask(model, "{verbosity: info}")))
    assert (kind, message) == (
        "deprecated",
        "--verbosity is deprecated: how much. deprecating flag: --verbosity",
    )


def test_a_check_s_refusal_says_where_in_the_engine(model: Path) -> None:
    verdict = only(ask(model, "{page-size: 3}"))
    ((kind, stage, message),) = said(verdict)
    assert (kind, stage, verdict.state) == ("config_refused", "checks", "refused")
    assert message.startswith("ValueError: page_size must be a power of two (")
    assert "server_args.py:" in message


def test_a_port_that_the_engine_opens_by_itself_is_held_against_those_of_its_node(model: Path) -> None:
    """The stand-in opens a port beside that of --dist-init-addr: the one before it is another's."""
    layout = "prefill: 1xTP8, decode: 1xTP8"
    assert {verdict.state for verdict in ask(model, topology=layout).values()} == {"accepted"}
    verdicts = ask(model, '{rpc-offset: "-1"}', layout)
    clashes = {name: verdict.findings for name, verdict in verdicts.items() if verdict.state == "refused"}
    assert clashes.keys() == {"prefill-0.r0", "decode-0.r0"}
    for name, (finding,) in clashes.items():
        assert (finding.kind, finding.stage) == ("port_twice", "ports")
        assert f"of {name} too" in finding.message


BALANCES_ITSELF = """
import json, sys
print(json.dumps({"asker": "ready", "versions": {"vllm": "9"}}))
for line in map(json.loads, sys.stdin):
    facts = {"balances_itself": BALANCES, "headless": "--headless" in line["words"]}
    answer = {"stages": ["parser"], "findings": [], "left_out": {}, "ports": {}, "facts": facts}
    print(json.dumps({"asker": "answer", "number": line["number"], **answer}))
"""


def ask_vllm(folder: Path, topology: str, *, balances_itself: bool) -> list[Verdict]:
    """The verdicts on data-parallel vLLM workers that balance their load in one way or the other."""
    launcher = launch(code=BALANCES_ITSELF.replace("BALANCES", repr(balances_itself)))
    verdicts = ask(folder / "m", topology=topology, launcher=launcher, engine="vllm, router: dynamo")
    return [verdict for verdict in verdicts.values() if verdict.process.role != "router"]


def test_a_node_that_its_worker_s_first_node_would_turn_away_is_refused(tmp_path: Path) -> None:
    """Its lines are those of a release behind Dynamo: no node is headless."""
    layout = "aggregated: 1xDEP8"
    assert [v.findings for v in ask_vllm(tmp_path, layout, balances_itself=True)] == [(), ()]
    first, second = ask_vllm(tmp_path, layout, balances_itself=False)
    ((kind, stage, message),) = said(second)
    assert (first.findings, kind, stage) == ((), "config_refused", "worker")
    assert "must use --headless" in message
    assert "aggregated-0.r0 is its first node" in message


@pytest.mark.parametrize("topology", ["aggregated: 2xDEP4", "prefill: 1xDEP2, decode: 1xDEP2"])
def test_workers_of_one_node_turn_nobody_away(tmp_path: Path, topology: str) -> None:
    """Each is its own first node, though all of them have the engine's usual address and port."""
    assert [v.state for v in ask_vllm(tmp_path, topology, balances_itself=False)] == ["accepted"] * 2


ANSWER: dict[str, Any] = {"asker": "answer", "number": 0, "stages": ["parser"], "findings": []}
ANSWER.update(left_out={}, ports={}, facts=None)
FINDING = {"kind": "refused", "stage": "parser", "message": "no", "option": None}
READY: dict[str, Any] = {"asker": "ready", "versions": {"sglang": "9"}}


def says(*messages: dict[str, Any]) -> Any:
    """A launcher of an asker that says this."""
    lines = "".join(json.dumps(message) + "\n" for message in messages)
    return launch(code=f"import sys; sys.stdin.read(); print({lines!r})")


@pytest.mark.parametrize(
    "messages",
    [
        [{"asker": "answer"}],
        [{"asker": "ready"}],
        [{"asker": "ready", "versions": ["sglang"]}, ANSWER],
        [{"asker": "not_asked"}],
        [READY, {name: ANSWER[name] for name in ANSWER if name != "ports"}],
        [READY, {**ANSWER, "number": [0]}],
        [READY, {**ANSWER, "stages": 3}],
        [READY, {**ANSWER, "ports": {"rpc": "many"}}],
        [READY, {**ANSWER, "facts": {"headless": True}}],
        [READY, {**ANSWER, "findings": [{**FINDING, "severity": 1}]}],
        [READY, {**ANSWER, "findings": [{**FINDING, "kind": "odd"}]}],
        [READY, {**ANSWER, "stages": []}],  # nothing was passed, and nothing refused
    ],
)
def test_an_answer_that_is_none_has_accepted_nothing(model: Path, messages: list[dict[str, Any]]) -> None:
    assert only(ask(model, launcher=says(READY, ANSWER))).state == "accepted"
    verdict = only(ask(model, launcher=says(*messages)))
    assert (verdict.state, verdict.stages) == ("not_asked", ())
    assert verdict.not_asked == f"{sys.executable}: its answer is not readable"


def test_what_an_engine_prints_is_shown_without_what_steers_a_terminal_and_in_short(model: Path) -> None:
    def reason(errors: str) -> str | None:
        code = f"import sys; sys.stdin.read(); sys.stderr.write({errors!r}); sys.exit(3)"
        return only(ask(model, launcher=launch(code=code))).not_asked

    start = f"{sys.executable}: ended with exit code 3"
    assert reason("\0" * 5000) == f"{start}: no message"
    assert reason("no \x1b[1;31mkernel\x1b[0m\a image\n\x1b[0m\0\n") == f"{start}: no kernel image"
    assert len(reason("x" * 4000) or "") == 601
    found = {**FINDING, "message": "a\0b\x1b[2J" + "c" * 9000}
    verdict = only(ask(model, launcher=says(READY, {**ANSWER, "findings": [found]})))
    assert [message[:4] + message[600:] for _, _, message in said(verdict)] == ["abcc…"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_the_engine_too(model: Path, tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "sweep.yaml"
    engine = f"sglang, version: 0.5.12.post1, command: [{sys.executable}, -m, sglang.launch_server]"
    path.write_text(SWEEP.format(model=model, flags="{pause-s: 600}", topology=ONE, engine=engine), "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ENGINES), "STAND_IN_GPU": "1", "TMPDIR": str(tmp_path)}
    words = (sys.executable, "-m", "mtpbench", "doctor", path, "--parsers")
    with subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) as command:
        deadline = time.monotonic() + 60
        # The asker makes its folder when the engine is ready.
        while not any(tmp_path.glob("mtpbench-parsers-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text("utf-8")
        (engine_group,) = map(int, children.split())
        command.send_signal(number)
        code = command.wait(30)
    try:
        assert code == (-number if number == signal.SIGKILL else 130)
        while (lives := is_alive(engine_group)) and number == signal.SIGKILL and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not lives
    finally:
        reap({engine_group})


def test_what_this_machine_lacks_is_left_out_and_said(model: Path) -> None:
    without_gpu = only(ask(model, launcher=launch(STAND_IN_GPU="")))
    assert (without_gpu.state, without_gpu.stages) == ("accepted", ("parser",))
    assert without_gpu.left_out == {"config": "SGLang finds no GPU here"}
    (model / "config.json").unlink()
    assert only(ask(model)).left_out == {"config": f"there is no {model}/config.json"}


def test_a_router_that_ends_the_process_is_quoted(model: Path) -> None:
    verdict = ask(model, topology="aggregated: 2xTP4", launcher=launch(STAND_IN_POLICIES="other"))["router"]
    assert verdict.program is not None
    assert verdict.program.name == "sglang_router"
    assert said(verdict) == [("refused", "parser", "no such policy")]


def test_equal_lines_are_asked_once(model: Path) -> None:
    code = "import sys; print(sum(1 for _ in sys.stdin), file=sys.stderr)"
    verdicts = ask(model, topology="aggregated: 2xTP4", launcher=launch(code=code))
    counts = {name: verdict.not_asked for name, verdict in verdicts.items()}
    assert counts["aggregated-0"] == counts["aggregated-1"] == f"{sys.executable}: ended with exit code 0: 2"
    assert counts["router"] == f"{sys.executable}: ended with exit code 0: 1"


def test_an_engine_that_is_not_there_was_not_asked(model: Path) -> None:
    verdict = only(ask(model, launcher=launch(PYTHONPATH="")))
    assert verdict.state == "not_asked"
    assert "No module named 'sglang'" in (verdict.not_asked or "")


def test_an_asker_that_dies_has_accepted_nothing(model: Path) -> None:
    verdict = only(ask(model, "{exit-code: 7}"))
    assert (verdict.state, verdict.findings) == ("not_asked", ())
    assert "exit code 7" in (verdict.not_asked or "")


def test_an_asker_that_is_too_slow_is_ended(model: Path) -> None:
    verdict = only(ask(model, "{pause-s: 600}", launcher=launch(limit_s=2, TMPDIR=str(model))))
    assert verdict.state == "not_asked"
    assert not list(model.glob("mtpbench-parsers-*")), "its files may hold secrets"
    assert "no answer within 2 s" in (verdict.not_asked or "")


def test_a_python_that_can_t_be_run_says_so(model: Path) -> None:
    gone = Launch(argv=("/no/such/python",), environment={})
    verdict = only(ask(model, launcher=lambda program: gone))
    assert "can't be run: No such file or directory" in (verdict.not_asked or "")


def test_a_variable_that_is_not_set_leaves_the_process_unasked(model: Path) -> None:
    verdict = only(ask(model, '{page-size: "@{env:NOT_SET_ANYWHERE}"}'))
    assert verdict.state == "not_asked"
    assert "NOT_SET_ANYWHERE" in (verdict.not_asked or "")


def test_a_secret_in_an_engine_s_words_is_hidden(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    verdict = only(ask(model, '{page-size: "3", no-such: "@{env:HF_TOKEN}"}'))
    assert verdict.state == "refused"
    assert "hf_abcdefghijklmnop" not in "".join(message for _, _, message in said(verdict))


@pytest.mark.parametrize(
    ("argv", "program", "words"),
    [
        (("python3", "-m", "dynamo.vllm", "--a"), Program(name="dynamo.vllm", python="python3"), ("--a",)),
        (
            ("nice", "-n", "10", "/v/python", "-m", "vllm.entrypoints.openai.api_server", "--a"),
            Program(name="vllm", python="/v/python"),
            ("--a",),
        ),
        (("/v/bin/vllm", "serve", "model"), Program(name="vllm", command="/v/bin/vllm"), ("model",)),
        (
            ("trtllm-llmapi-launch", "trtllm-serve", "m", "--a"),
            Program(name="trtllm-serve", command="trtllm-serve"),
            ("m", "--a"),
        ),
    ],
)
def test_the_program_of_a_command_line_is_found(
    argv: tuple[str, ...], program: Program, words: tuple[str, ...]
) -> None:
    assert program_of(Process(name="p", role="decode", argv=argv)) == (program, words)


def test_a_program_without_a_parser_of_python_s_is_not_asked() -> None:
    for argv in (("llama-server", "-m", "model.gguf"), ("python3", "-m", "some.module")):
        assert program_of(Process(name="p", role="decode", argv=argv)) is None


def test_the_python_behind_a_program_is_read_off_its_first_lines(tmp_path: Path) -> None:
    short, long = tmp_path / "short", tmp_path / "long"
    short.write_text("#!/v/bin/python3.11\nimport vllm\n", "utf-8")
    # What pip writes where the path is longer than a first line may be.
    long.write_text("#!/bin/sh\n'''exec' /v/bin/python3 \"$0\" \"$@\"\n' '''\n", "utf-8")
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\nexec server\n", "utf-8")
    for script in (short, long, other):
        script.chmod(0o755)
    argv = [launch_here(Program(name="vllm", command=str(script))).argv for script in (short, long)]
    assert argv == [("/v/bin/python3.11",), ("/v/bin/python3",)]
    with pytest.raises(NotHere, match="no program of Python's"):
        launch_here(Program(name="vllm", command=str(other)))
    with pytest.raises(NotHere, match="no no-such-engine on this machine"):
        launch_here(Program(name="vllm", command="no-such-engine"))


def test_what_is_no_program_is_called_so(tmp_path: Path) -> None:
    for program in (Program(name="vllm", python=str(tmp_path)), Program(name="vllm", command=str(tmp_path))):
        with pytest.raises(NotHere, match=f"{tmp_path} is no program"):
            launch_here(program)
    with pytest.raises(NotHere, match="no /no/such/python on this machine"):
        launch_here(Program(name="vllm", python="/no/such/python"))


def test_a_cluster_is_asked_on_one_node_in_the_engine_s_image(tmp_path: Path) -> None:
    for name in ("sbatch", "squeue", "scontrol", "scancel", "sinfo", "srun"):
        (tmp_path / name).write_text("#!/bin/sh\n", "utf-8")
        (tmp_path / name).chmod(0o755)
    profile = ClusterProfile.model_validate(
        {
            "partition": "gb200",
            "time_limit": "4:00:00",
            "container": {"mounts": ["/models:/models:ro"], "flags": ["--container-writable"]},
            "environment": {"MODELS": "/models"},
            "directives": ["--exclusive"],
        }
    )
    slurm = Slurm({"PATH": str(tmp_path)})
    made = ClusterLauncher(profile=profile, slurm=slurm)(Program(name="vllm", command="vllm", image="v:1"))
    words = list(made.argv)
    assert (words[0], words[-1]) == ("srun", "python3")
    assert {"--nodes=1", "--ntasks=1", "--partition=gb200", "--time=0-00:15:00", "--exclusive"} <= set(words)
    assert words[-4:-1] == [
        "--container-image=v:1",
        "--container-mounts=/models:/models:ro",
        "--container-writable",
    ]
    assert not any(word.startswith(("--gres", "--gpus")) for word in words)
    assert made.environment["MODELS"] == "/models"
    with pytest.raises(NotHere, match="Slurm's programs are not on PATH"):
        ClusterLauncher(profile=profile, slurm=Slurm({"PATH": ""}))(Program(name="vllm"))
