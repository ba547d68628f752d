"""What a user sees: output, error messages, exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtpbench.cli.options import is_chosen
from mtpbench.records import SCHEMA_VERSION
from mtpbench.store import read_sweep
from mtpbench_analysis import comparisons

SCHEMA_4 = Path(__file__).parents[2] / "fixtures" / "results-schema-4" / "schema-4.simulated"


@pytest.mark.parametrize("name", ["demo", "dsv4-gb200-sglang", "dsv4-gb200-vllm", "dsv4-gb200-trtllm"])
def test_every_shipped_sweep_can_be_planned(cli, sweeps: Path, name: str) -> None:
    code, out, err = cli("plan", str(sweeps / f"{name}.yaml"))
    assert (code, err) == (0, "")
    assert "points on" in out
    assert "estimated:" in out
    assert "Beyond speculation the arms differ" in out


def test_the_plan_of_the_headline_sweep(cli, sweeps: Path) -> None:
    _, out, _ = cli("plan", str(sweeps / "dsv4-gb200-sglang.yaml"))
    assert "18 points on 16 deployments" in out
    assert "GPU-hours" in out
    assert "prices of 2026-09" in out
    assert "no price of neocloud: its source removed this tier in 2026-09" in " ".join(out.split())
    headline = [line for line in out.splitlines() if "6xDEP8-1xDEP16" in line and "16384" in line]
    assert headline
    assert " 64 " in headline[0]
    commands = [line for line in out.splitlines() if "--speculative-algorithm EAGLE" in line]
    assert commands
    assert all("--disaggregation-mode decode" in line for line in commands)


@pytest.mark.parametrize(
    ("sweep", "old", "new", "said"),
    [
        (
            "sglang",
            "",
            "",
            (
                "written for sglang 0.5.12.post1 (the last release before the day in the image's name)",
                "warning: --enable-dp-attention goes after 2026-12-31; from 0.5.22 on --attn-dp-size takes",
            ),
        ),
        (
            "sglang",
            "nightly-dev-cu13-20260528-0abe6a85",
            "v0.5.23-cu130",
            (
                "written for sglang 0.5.23 (named by the image)",
                "--cuda-graph-max-bs is written --cuda-graph-max-bs-decode for sglang 0.5.23",
                "--cuda-graph-max-bs is gone since 0.5.20",
                "--enable-dp-attention is written --attn-dp-size for sglang 0.5.23",
            ),
        ),
        (
            "vllm",
            "  version: 0.25.1\n  image: vllm/vllm-openai:v0.25.1\n",
            "",
            (
                "written for vllm 0.31.0 (which the newest router known here pins: the sweep names no",
                "--attention-config {use_fp4_indexer_cache} is written --attention-config {indexer_kv_dtype}",
            ),
        ),
        (
            "vllm",
            "  version: 0.25.1\n",
            "  version: 0.34.0\n  router_version: 1.6.1\n",
            (
                "written for vllm 0.34.0 (named by engine.version)",
                "warning: engine.version says 0.34.0, and the image's name 0.25.1",
                "warning: 0.34.0 is newer than 0.33.0, the newest that mtpbench knows",
                "warning: ai-dynamo 1.6.1 is made for vllm 0.31.0: its workers may not start with another",
            ),
        ),
        (
            "vllm",
            "  version: 0.25.1\n  image: vllm/vllm-openai:v0.25.1\n  flags:\n    all:\n",
            "  version: 0.33.0\n  flags:\n    all:\n      disable-cascade-attn: true\n",
            ("warning: --disable-cascade-attn is deprecated since 0.33.0",),
        ),
        (
            "vllm",
            "  version: 0.25.1\n  image: vllm/vllm-openai:v0.25.1\n",
            "  version: our branch\n  image: registry/vllm:latest\n",
            (
                "written for vllm 0.33.0 (the newest known here: neither engine.version nor the image names",
                "engine.version is 'our branch', which begins with no release number",
            ),
        ),
    ],
)
def test_the_plan_says_for_which_release_lines_are_written_and_what_goes(
    cli, sweeps: Path, tmp_path: Path, sweep: str, old: str, new: str, said: tuple[str, ...]
) -> None:
    text = (sweeps / f"dsv4-gb200-{sweep}.yaml").read_text("utf-8")
    assert old in text
    path = tmp_path / "sweep.yaml"
    path.write_text(text.replace(old, new), "utf-8")
    code, out, _ = cli("plan", str(path), "--no-commands")
    assert code == 0
    for sentence in said:
        assert sentence in " ".join(out.split())


def test_a_plan_warns_of_acceptance_that_is_not_that_of_real_use(cli, sweeps: Path, tmp_path: Path) -> None:
    """The public sweep measures it on random tokens with ignore_eos; pinned or by a dataset it is none."""
    text = (sweeps / "dsv4-gb200-vllm.yaml").read_text("utf-8")
    path = tmp_path / "sweep.yaml"
    path.write_text(text, "utf-8")
    _, out, _ = cli("plan", str(path), "--no-commands")
    random, endless = (line for line in out.splitlines() if line.startswith("  warning: acceptance of"))
    assert "is measured on random tokens, of which a model accepts far more or far fewer" in random
    assert "is measured with ignore_eos, past the end of answers" in endless
    code, _, error = cli("plan", str(path), "--no-commands", "--strict")
    assert code != 0
    assert "--strict: acceptance of " in error
    assert text.count("acceptance: measured")
    path.write_text(text.replace("acceptance: measured", "acceptance: golden"), "utf-8")
    code, out, _ = cli("plan", str(path), "--no-commands", "--strict")
    assert (code, "warning: acceptance" in out) == (0, False)


def test_the_plan_names_no_release_of_the_embedded_engine(cli, sweeps: Path) -> None:
    _, out, _ = cli("plan", str(sweeps / "demo.yaml"), "--no-commands")
    assert "written for" not in out


def test_the_plan_prices_the_starts_of_servers_with_and_without_restart(
    cli, sweeps: Path, tmp_path: Path
) -> None:
    """16 deployments of 652 GPUs start in 15 minutes each: 163 GPU-hours, for every repeat if asked."""
    text = (sweeps / "dsv4-gb200-sglang.yaml").read_text("utf-8")
    said = []
    for more in ("", "repeats: 3\n", "repeats: 3\nrestart: true\n"):
        path = tmp_path / "sweep.yaml"
        path.write_text(text + more, "utf-8")
        _, out, _ = cli("plan", str(path), "--no-commands")
        said.append(" ".join(out.split()))
    once, shared, restarted = said
    assert "servers start 16 times, for 163.0 of these GPU-hours" in once
    assert "restart" not in once
    assert "one start with `restart: true`: 48 starts, 489.0 of 1,111.6 GPU-hours" in shared
    assert "estimated: 785.6 GPU-hours" in shared
    assert "54 points on 16 deployments, 48 starts" in restarted
    assert "estimated: 1,111.6 GPU-hours" in restarted
    assert "servers start 48 times, for 489.0 of these GPU-hours" in restarted
    assert "without `restart`: 16 starts, 163.0 of 785.6 GPU-hours" in restarted


def test_the_plan_of_a_simulated_sweep_says_so_and_costs_nothing(cli, sweeps: Path) -> None:
    _, out, _ = cli("plan", str(sweeps / "demo.yaml"), "--no-commands")
    assert "SIMULATED: no GPU is used" in out
    assert "$" not in out


def test_a_simulated_run_ends_with_the_table_and_the_report(cli, write_sweep) -> None:
    path = str(write_sweep())
    code, out, _ = cli("run", path, "--simulate")
    assert code == 0
    assert "4 points to measure" in out
    assert "SIMULATED" in out
    assert "At equal interactivity" in out
    report = Path("results/tiny.simulated/report.html")
    assert str(report) in out
    assert "SIMULATED" in report.read_text()
    code, out, _ = cli("run", path, "--simulate")
    assert "0 points to measure, 4 valid already" in out
    code, out, _ = cli("status", path)
    assert "4 valid, 0 invalid, 0 missing" in out
    code, out, _ = cli("recompute", "results/tiny.simulated")
    assert (code, out) == (0, "4 results recomputed from raw records, 0 changed\n")
    code, out, _ = cli("run", path, "--simulate", "--again", "--only", "mtp*c2_*")
    assert "1 points to measure" in out


def test_recompute_counts_results_whose_figures_moved_not_those_of_an_older_schema(
    cli, tmp_path: Path
) -> None:
    shutil.copytree(SCHEMA_4, tmp_path / "old")
    code, out, _ = cli("recompute", str(tmp_path / "old"))
    assert (code, out) == (0, "6 results recomputed from raw records, 0 changed\n")
    assert {point.result.schema_version for point in read_sweep(tmp_path / "old").points} == {SCHEMA_VERSION}


def test_failed_points_have_an_exit_code_of_their_own_and_a_reason(cli, write_sweep) -> None:
    path = write_sweep(("speed: 5", "speed: 5\n  faults: [{kind: exit_before_bind, value: 3}]"))
    code, out, _ = cli("run", str(path), "--only", "off")
    assert code == 3
    assert "invalid, start_failed: aggregated-0: died before the deployment was ready (exit code 3)" in out
    assert "2 of 2 points are invalid" in out


def test_bad_input_exits_with_2_and_names_file_line_and_key(cli, write_sweep) -> None:
    path = write_sweep(("draft_tokens", "draft_tokns"))
    code, out, err = cli("run", str(path))
    assert (code, out) == (2, "")
    assert err.startswith(
        f"error: {path}:14: arms.mtp.draft_tokns: unknown key; did you mean 'draft_tokens'?"
    )


def test_a_pattern_that_matches_nothing_shows_some_ids(cli, write_sweep) -> None:
    code, _, err = cli("run", str(write_sweep()), "--only", "nothing")
    assert code == 2
    assert "--only 'nothing' matches no point; ids look like\n  off_1xTP4_c1_r0_" in err


def test_only_takes_whole_parts_of_an_id(cli, write_sweep) -> None:
    path = str(write_sweep(("concurrency: [1, 2]", "concurrency: [1, 10]")))
    cli("run", path, "--simulate")
    for pattern, count in (("c1", 2), ("mtp", 2), ("mtp*c10", 1), ("off_1xTP4_c1_r0", 1), ("1xTP", 4)):
        _, out, _ = cli("run", path, "--simulate", "--only", pattern)
        assert f"0 points to measure, {count} valid already" in out


def test_a_sweep_of_many_nodes_is_refused_before_anything_starts(cli, sweeps: Path) -> None:
    code, _, err = cli("run", str(sweeps / "dsv4-gb200-vllm.yaml"), "--only", "16384", "--only", "c1024")
    assert code == 2
    assert "matches no point" in err
    code, _, err = cli("run", str(sweeps / "dsv4-gb200-vllm.yaml"), "--only", "c1024")
    assert code == 2
    assert "needs 4 nodes of gb200-nvl72; the local executor has this one" in err


def test_an_engine_that_is_not_installed_is_refused_with_how_to_get_it(cli, write_sweep) -> None:
    path = write_sweep(
        (
            "  name: simulated\n  clock: scaled\n  speed: 5\n",
            "  name: vllm\n  command: [no-such-vllm, serve]\n",
        ),
        ("  flags: {all: {stream-interval: 4}}\n", ""),
    )
    code, _, err = cli("run", str(path))
    assert code == 2
    assert (
        "'no-such-vllm' is not installed on this machine; get it with `pip install 'mtpbench[vllm]'`" in err
    )
    code, out, _ = cli("plan", str(path), "--no-commands")
    assert code == 0
    assert "To run it here: 'no-such-vllm' is not installed" in out


def test_an_unknown_executor_and_a_taken_port_are_refused(cli, write_sweep) -> None:
    import socket

    code, _, err = cli("run", str(write_sweep()), "--executor", "cloud")
    assert (code, "unknown executor 'cloud'; known: local" in err) == (2, True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = cli("run", str(write_sweep()), "--port", str(port))
    assert (code, f"port {port} on 127.0.0.1 can't be had" in err) == (3, True)


def test_results_of_an_unknown_schema_are_refused(cli, write_sweep) -> None:
    path = str(write_sweep())
    cli("run", path, "--simulate", "--only", "off_1xTP4_c1_")
    (result,) = Path("results/tiny.simulated").glob("off*/result.json")
    result.write_text(json.dumps({**json.loads(result.read_text()), "schema_version": SCHEMA_VERSION + 1}))
    for command in (("run", path, "--simulate"), ("compare", "results/tiny.simulated"), ("status", path)):
        code, _, err = cli(*command)
        assert code == 2
        assert f"written under schema version {SCHEMA_VERSION + 1}; this version of mtpbench reads 2" in err


TOO_LONG = "y" * 300


@pytest.mark.parametrize("name", [TOO_LONG, "loop", "a-file/below"])
@pytest.mark.parametrize(
    "command",
    [
        ("plan", "{}"),
        ("plan", "{}.yaml"),
        ("run", "SWEEP", "--simulate", "--results", "{}"),
        ("status", "SWEEP", "--results", "{}"),
        ("cancel", "SWEEP", "--results", "{}"),
        ("submit", "SWEEP", "--cluster", "{}.yaml"),
        ("watch", "{}", "--once"),
        ("recompute", "{}"),
        ("compare", "{}"),
        ("compare", "points.csv", "--hardware", "b200", "--hardware-constants", "{}"),
        ("report", "points.csv", "-o", "{}/x.html"),
        ("plot", "points.csv", "-o", "{}/x.svg"),
        ("regress", "{}", "points.csv"),
        ("import", "auto", "{}"),
        ("import", "auto", "points.csv", "-o", "{}/x.csv"),
        ("system-power", "{}"),
    ],
    ids=" ".join,
)
def test_a_path_that_leads_nowhere_is_no_fault_of_ours(cli, write_sweep, command, name: str) -> None:
    sweep = str(write_sweep())
    Path("loop").symlink_to("loop")
    Path("a-file").write_text("")
    Path("points.csv").write_text("arm,interactivity_tps,tput_tps_per_gpu\noff,10,100\nmtp,20,100\n")
    code, _, err = cli(*(sweep if word == "SWEEP" else word.format(name) for word in command))
    assert code in (0, 2, 4), err


def test_internal_faults_say_that_they_are_ours(cli, write_sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("mtpbench.plan.plan_sweep", broken)
    code, _, err = cli("plan", str(write_sweep()))
    assert code == 70
    assert "internal fault: this is a bug in mtpbench" in err


@pytest.mark.parametrize("command", ["run", "tables"])
def test_a_command_compares_a_folder_once_and_writes_it_whole(
    cli, write_sweep, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    path, folder = str(write_sweep()), Path("results/tiny.simulated")
    cli("run", path, "--simulate")
    compared, written = [], []
    compare, write = comparisons.compare_points, Path.write_text

    def counting(*arguments: object) -> object:
        compared.append(arguments)
        return compare(*arguments)  # type: ignore[arg-type]

    def noting(self: Path, *arguments: object, **options: object) -> int:
        written.append(self.name)
        return write(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(comparisons, "compare_points", counting)
    monkeypatch.setattr(Path, "write_text", noting)
    code, out, _ = cli(*(("run", path, "--simulate") if command == "run" else ("tables", str(folder))))
    assert code == 0
    assert "report.html" in out
    assert len(compared) == 1
    assert "comparison.md" not in written, "beside its place, and renamed into it"


@pytest.mark.parametrize("name", ["journal/00001.json", "current/off_0.json"])
def test_status_goes_on_where_a_jobs_file_is_damaged(cli, write_sweep, name: str) -> None:
    path = str(write_sweep())
    cli("run", path, "--simulate")
    file = Path("results/tiny.simulated/.slurm") / name
    file.parent.mkdir(parents=True)
    file.write_text("{")
    code, out, err = cli("status", path)
    assert (code, err) == (0, "")
    assert "4 valid, 0 invalid, 0 missing" in out
    assert f"{name}:1: not JSON" in "".join(out.split("\n"))


def test_the_command_line_starts_without_what_one_command_needs() -> None:
    code = "import sys, mtpbench.cli; print([name for name in sys.argv[1:] if name in sys.modules])"
    heavy = ("pandas", "scipy", "matplotlib")
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("pattern", "is_meant"),
    [
        *(
            ("mtp*c1", True),
            ("c1", True),
            ("*_1bb7a0c2", True),
            ("1bb7a0c2", True),
            ("mtp_1xTP4_c1_r0", True),
        ),
        *(("mtp*c2", False), ("*c2", False), ("c2", False), ("a0c2", False)),
    ],
)
def test_the_hash_of_an_id_counts_as_a_whole_only(pattern: str, is_meant: bool) -> None:
    assert is_chosen("mtp_1xTP4_c1_r0_1bb7a0c2", pattern) == is_meant
