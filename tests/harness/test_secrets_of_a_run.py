"""Nothing that a run stores or shows holds a secret, whatever servers and commands repeat of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtpbench.metrics.request_table import RequestTable
from mtpbench.provenance import Started, bare_secrets, collect, kept, without_secrets
from mtpbench.records import (
    Answers,
    Deployment,
    Evaluation,
    Process,
    Reason,
    RequestRecord,
    RunFacts,
    to_json,
)
from mtpbench.redaction import REDACTED, Secrets
from mtpbench.store import RawPoint, read_point
from mtpbench.sweep import load_sweep

SERVER = '''
"""Repeats all that it was given: on its output, in its file, and in every answer."""
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
words = sys.argv[1:]
option = lambda name: words[words.index(name) + 1]
known = {name: value for name, value in os.environ.items() if name != "VLLM_SETTING"}
print(words, known, flush=True)
folder = os.path.dirname(os.readlink("/proc/self/fd/1"))
open(os.path.join(folder, "own.txt"), "w").write(str(known))
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.say(200, {"data": [{"id": "m"}]})
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        said = f"{words} {self.headers.get('authorization')} {os.environ['H_URL']} {os.environ['H_ENV']}"
        self.say(401, {"error": "x" * 280 + self.headers.get("authorization", "") + said})
    def say(self, status, body):
        self.send_response(status)
        text = json.dumps(body).encode()
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *_): pass
ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()
'''
SWEEP = """
sweep: sec
question: q?
model: {{path: m, served_name: m, precision: fp4}}
hardware: gb200-nvl72
engine:
  name: vllm
  command: [{python!r}, {server!r}]
  flags: {{all: {{hf-overrides: "@{{env:H_FLAG}}", api-key: "@{{env:H_APIKEY}}"}}}}
  env:
    all: {{MY_SETTING: "@{{env:H_ENV}}", HF_TOKEN: "@{{env:HF_TOKEN}}", PROXY: "http://u:@{{env:H_URL}}@proxy:80"}}
workload: {{isl: 16, osl: 12}}
load: {{workers: 1, api_key_env: H_KEY}}
measurement:
  {{warmup_per_slot: 1, requests_per_slot: 2, min_requests: 2, idle_s: 0, greedy_prompts: 1,
   max_error_rate: 1, request_timeout_s: 4, point_timeout_s: 12, ready_timeout_s: 30,
   evaluate: "echo leak $H_FLAG; exit 3"}}
arms: {{off: }}
topologies: [{{aggregated: 1xTP1, concurrency: [1]}}]
"""
VARIABLES = {
    "H_FLAG": "SECRET-flag",
    "H_APIKEY": "SECRET-apikeyflag",
    "H_ENV": "SECRET-env",
    "H_URL": "SECRET-url",
    "H_KEY": "SECRET-loadkey-0123456789-abcdef",
    "SLURM_JWT": "SECRET-slurmjwt",
    "HF_ENDPOINT": "https://u:SECRET-endpoint@mirror",
    "DYN_ETCD": "http://u:SECRET-etcd@e",
    "VLLM_API_KEY": "SECRET-vllmkey",
    "VLLM_SETTING": "SECRET-that-no-name-tells",
    "HF_TOKEN": "SECRET-hftoken",
    "NCCL_IB_DISABLE": "1",
    "NCCL_DEBUG": "WARN",
}


def test_a_run_against_a_server_that_repeats_everything_leaves_no_secret(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    sweep = tmp_path / "sec.yaml"
    sweep.write_text(SWEEP.format(python=sys.executable, server=str(tmp_path / "server.py")))
    done = subprocess.run(
        [sys.executable, "-m", "mtpbench", "run", str(sweep), "--results", "r"],
        cwd=tmp_path,
        env={**os.environ, **VARIABLES, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 3, said
    assert "401" in said
    assert "the value of H_APIKEY stands in the command line of aggregated-0" in said
    assert "SECRET" not in said
    files = [path for path in (tmp_path / "r").rglob("*") if path.is_file()]
    assert {"own.txt", "report.html", "raw.json", "aggregated-0.log"} <= {path.name for path in files}
    assert [str(path) for path in files if b"SECRET" in path.read_bytes()] == []
    (place,) = (path.parent for path in files if path.name == "provenance.json")
    provenance = read_point(place).provenance
    words = provenance.command_lines["aggregated-0"]
    assert words[words.index("--hf-overrides") + 1] == "@{env:H_FLAG}"
    assert words[words.index("--api-key") + 1] == "@{env:H_APIKEY}"
    kept_values = {
        name: provenance.environment[name] for name in ("NCCL_IB_DISABLE", "NCCL_DEBUG", "HF_ENDPOINT")
    }
    assert kept_values == {"NCCL_IB_DISABLE": "1", "NCCL_DEBUG": "WARN", "HF_ENDPOINT": "https://***@mirror"}
    assert provenance.environment["VLLM_SETTING"] == REDACTED
    assert provenance.environment["aggregated-0:MY_SETTING"] == "@{env:H_ENV}"
    assert provenance.environment["aggregated-0:PROXY"] == "http://u:@{env:H_URL}@proxy:80"
    raw = json.loads((place / "raw.json").read_text())
    assert raw["facts"]["evaluation"]["reason"] == "exit code 3: leak @{env:H_FLAG}"


@given(
    st.dictionaries(
        st.builds(
            "{}{}".format,
            st.sampled_from(["SLURM_", "VLLM_", "DYN_", "HF_", "NCCL_", "X_"]),
            st.text("ABJT_", max_size=6),
        ),
        st.builds("SECRET-{}".format, st.text("abc/:@%", max_size=12)),
    )
)
def test_a_value_that_nobody_put_on_a_list_is_never_kept(environment: dict[str, str]) -> None:
    assert "SECRET" not in repr(kept(environment, Secrets()))


def test_an_older_provenance_is_shown_without_its_secrets(write_sweep, tmp_path: Path) -> None:
    """What version 0.1 stored holds tokens of Slurm and passwords in URLs."""
    from mtpbench.store import SweepStore
    from stored_sweep import provenance, store_result

    sweep = load_sweep(write_sweep())
    old = replace(
        provenance(),
        environment={"SLURM_JWT": "SECRET", "A": "http://u:SECRET@h", "a:HF_TOKEN": "@{env:HF_TOKEN}"},
        command_lines={"a": ("x", "--proxy", "http://u:SECRET@h")},
    )
    store = SweepStore(tmp_path, sweep.info)
    store.open()
    point = sweep.points[0]
    raw = RawPoint(requests=RequestTable.from_records([]))
    place = store.write(point, store_result(point, 1.0, 1.0), old, raw, {})
    assert b"SECRET" in (place / "provenance.json").read_bytes()
    found = read_point(place).provenance
    assert "SECRET" not in repr(found)
    assert found.environment["a:HF_TOKEN"] == "@{env:HF_TOKEN}"


def test_every_text_of_the_records_loses_its_secrets() -> None:
    """A field that is added is a text that may quote a server: it is found here by being filled."""
    secrets = Secrets.known({"K": "SECRET-0123456789"}, ["K"])
    text = "he said SECRET-0123456789"
    facts = RunFacts(
        start_failed=text,
        server_died=text,
        client_failed=text,
        power_reason=Reason(code="nothing_ran", detail=text),
        answers=Answers(texts=(text,), reason=text),
        evaluation=Evaluation(command="x", score=None, reason=text),
        notes=(text,),
    )
    record = RequestRecord(
        index=0,
        slot=0,
        warmup=False,
        scheduled_s=0.0,
        sent_s=0.0,
        end_s=1.0,
        asked_prompt_tokens=1,
        asked_output_tokens=1,
        finish_reason=text,
        error="http_401",
        error_detail=text,
    )
    raw = RawPoint(requests=RequestTable.from_records([record]), facts=facts)
    hidden = without_secrets(raw, secrets)
    assert "SECRET" not in json.dumps(to_json(hidden.facts))
    assert json.dumps(to_json(hidden.facts)).count("@{env:K}") == json.dumps(to_json(facts)).count("SECRET")
    columns = hidden.requests.row_columns()
    assert "SECRET" not in repr({name: np.asarray(column).tolist() for name, column in columns.items()})


def deployment(*argv: str) -> Deployment:
    process = Process(name="a", role="aggregated", argv=argv)
    return Deployment(
        key="k", processes=(process,), front="a", front_port="http", model_name="m", gpus=1, nodes=1
    )


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("x", "--api-key", "@{env:MINE}"), "MINE"),
        (("x", "--header", "Bearer @{env:MY_TOKEN}"), "MY_TOKEN"),
        (("x", "--model", "@{env:MODELS}/m"), None),
        (("x", "--api-key", "EMPTY"), None),
    ],
)
def test_a_secret_in_a_command_line_is_said(argv: tuple[str, ...], named: str | None) -> None:
    said = bare_secrets(deployment(*argv))
    assert (said is None) == (named is None)
    assert named is None or f"the value of {named} stands in" in str(said)


def test_collecting_needs_no_start(write_sweep) -> None:
    point = load_sweep(write_sweep()).points[0]
    assert collect(point, Started(executor="x"), "", "").command_lines == {}
