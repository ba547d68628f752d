"""A DCGM exporter as the source: both names, its own time, and what happens when it is frozen."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from measured import SIMULATED_POWER
from mtpbench.metrics.energy import measure_energy
from mtpbench.metrics.window import Window
from mtpbench.power.dcgm import DcgmSource, readings
from mtpbench.power.log import head_line, parse, samples, tick_line

UUIDS = ("GPU-aaaa", "GPU-bbbb")


def line(name: str, gpu: int, value: float | str, stamp_ms: int | None = None, more: str = "") -> str:
    stamp = "" if stamp_ms is None else f" {stamp_ms}"
    labels = f'gpu="{gpu}",UUID="{UUIDS[gpu]}",device="nvidia{gpu}",modelName="NVIDIA H200"{more}'
    return f"{name}{{{labels}}} {value}{stamp}\n"


def page(joules: float, *, power: str = "DCGM_FI_DEV_POWER_USAGE", stamp_ms: int | None = None) -> str:
    text = f"# HELP {power} Power draw (in W).\n# TYPE {power} gauge\n"
    for gpu in range(2):
        text += line(power, gpu, 500.0 + gpu, stamp_ms)
        text += line("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", gpu, joules * 1e3, stamp_ms)
    return text + line("DCGM_FI_DEV_POWER_USAGE_INSTANT", 0, 9999.0) + 'DCGM_FI_DEV_GPU_TEMP{gpu="0"} 40\n'


@pytest.mark.parametrize("name", ["DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_BOARD_POWER_WATTS"])
def test_power_has_two_names(name: str) -> None:
    found = readings(page(2000.0, power=name))
    assert [(u, r.meter, r.power_w, r.energy_j, r.unix_s) for u, r in found.items()] == [
        ("GPU-aaaa", 0, 500.0, 2000.0, None),
        ("GPU-bbbb", 1, 501.0, 2000.0, None),
    ]


def test_the_samples_own_time_is_read() -> None:
    assert readings(page(1.0, stamp_ms=1_700_000_000_500))["GPU-aaaa"].unix_s == 1_700_000_000.5


def test_mig_slices_and_damaged_lines_are_refused() -> None:
    with pytest.raises(ValueError, match="divided by MIG"):
        readings(line("DCGM_FI_DEV_POWER_USAGE", 0, 1.0, more=',GPU_I_ID="3"'))
    with pytest.raises(ValueError, match="unreadable metrics"):
        readings("DCGM_FI_DEV_POWER_USAGE{gpu=")
    with pytest.raises(ValueError, match="different times"):
        readings(
            line("DCGM_FI_DEV_POWER_USAGE", 0, 1.0, 1000)
            + line("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 0, 1.0, 2000)
        )


@pytest.mark.parametrize(
    "blank",
    [
        *(
            "2147483632",
            "2147483633",
            "2147483634",
            "2147483635",
            "9223372036854775792",
            "9223372036854775795",
        ),
        *("140737488355328", "140737488355331.000000", "1.40737488355328e+14", "9.223372036854775807e+18"),
        *("NaN", "+Inf", "-1", "N/A", "[N/A]", "[Not Supported]", "18446744073709551615", "1e999"),
    ],
)
@pytest.mark.parametrize("name", ["DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"])
def test_a_blank_of_one_gpu_is_none_and_the_other_is_read(name: str, blank: str) -> None:
    """DCGM's blanks by type (dcgm_structs.h): not found, not supported, not permissioned, or just blank."""
    odd, other = readings(line(name, 0, blank) + line(name, 1, 3000.0)).values()
    assert (odd.power_w, odd.energy_j) == (None, None)
    assert {other.power_w, other.energy_j} == {None, 3.0 if name.endswith("CONSUMPTION") else 3000.0}


@pytest.mark.parametrize(
    "text",
    [
        'DCGM_FI_DEV_POWER_USAGE{gpu="0"} 500\n',
        'DCGM_FI_DEV_POWER_USAGE{gpu="",UUID="a"} 500\n',
        'DCGM_FI_DEV_POWER_USAGE{gpu="99999999999999999999",UUID="a"} 500\n',
        'DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="a"} 500 -5\n',
        'DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="a"} 500 1e300\n',
        'DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="a"} 500 NaN\n',
        "DCGM_FI_DEV_POWER_USAGE 500\n",
    ],
)
def test_a_page_that_says_of_no_gpu_or_no_time_is_refused(text: str) -> None:
    assert str(DcgmSource("u", (), lambda: text).probe().reason).startswith("no_dcgm: u: ")


class Exporter:
    """Pages one after the other; the last one again and again."""

    def __init__(self, *pages: str) -> None:
        self.pages = list(pages)

    def __call__(self) -> str:
        return self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]


def test_only_what_is_new_is_a_reading() -> None:
    source = DcgmSource("http://x", ("0", "GPU-bbbb"), Exporter(page(1), page(1), page(1), page(2), page(2)))
    probe = source.probe()
    assert str(probe.source) == "dcgm exporter energy counter, power, times at which its values moved"
    assert probe.meters == ((0, "GPU-aaaa"), (1, "GPU-bbbb"))
    assert [len(source.read()) for _ in range(4)] == [2, 0, 2, 0]
    assert [s.uuid for s in source.states()] == ["GPU-aaaa", "GPU-bbbb"]


def test_power_limits_are_taken_where_the_page_shows_them() -> None:
    enforced, asked = "DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "DCGM_FI_DEV_POWER_MGMT_LIMIT"
    limits = line(asked, 0, 700) + line(enforced, 0, 600) + line(asked, 1, 700) + line(f"{asked}_MAX", 1, 900)
    source = DcgmSource(
        "http://x", (), Exporter(page(1), page(2) + limits, page(3) + line(enforced, 0, "x y"))
    )
    source.probe()
    assert [state.limit_w for state in source.states()] == [None, None]
    source.read()
    assert [state.limit_w for state in source.states()] == [600.0, 700.0]
    assert len(source.read()) == 2, "a limit that can't be read harms no reading"
    assert [state.limit_w for state in source.states()] == [None, None]


def test_a_new_time_is_new_though_nothing_moved() -> None:
    source = DcgmSource("http://x", (), Exporter(*(page(1, stamp_ms=t) for t in (1000, 1000, 2000, 2000))))
    assert source.probe().source.stamped
    assert [len(source.read()) for _ in range(3)] == [2, 2, 0]


def test_a_gpu_that_is_gone_is_a_failed_read_and_a_silent_exporter_none() -> None:
    both = page(1)
    one = "".join(row + "\n" for row in page(2).splitlines() if "bbbb" not in row)
    source = DcgmSource("http://x", (), Exporter(both, one, "DCGM_FI_DEV_POWER_USAGE{"))
    source.probe()
    first, second = source.read()
    assert (first.energy_j, second.energy_j, second.power_w) == (2.0, None, None)
    assert source.read() == []


def test_an_exporter_without_the_gpu_is_refused() -> None:
    assert str(DcgmSource("u", ("7",), Exporter(page(1))).probe().reason) == "no_gpu: u does not show GPU 7"
    refused = DcgmSource("http://me:word@127.0.0.1:9/metrics").probe().reason
    assert refused is not None
    assert str(refused).startswith("no_dcgm: http://***@127.0.0.1:9/metrics: ")


def energy(every_s: float, frozen_at_s: float = 1e9, *, timed: bool = False):
    """12 s of scrapes every 0.1 s of an exporter that collects every so often; 500 W and 501 W."""
    now = 0.0
    collected = lambda: min(now, frozen_at_s) // every_s * every_s  # noqa: E731

    def fetch() -> str:
        at = collected()
        stamp = round((1000 + at) * 1e3) if timed else None
        text = ""
        for gpu in range(2):
            text += line("DCGM_FI_DEV_POWER_USAGE", gpu, 500.0 + gpu, stamp)
            text += line("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", gpu, (500 + gpu) * at * 1e3, stamp)
        return text

    source = DcgmSource("u", (), fetch)
    text = head_line([source.probe()], 0.1)
    for step in range(121):
        now = step / 10
        if found := source.read():
            text += tick_line(50 + now, 1000 + now, "gpu", found)
    found = samples(parse(text), 50.0, {0: "decode-0", 1: "decode-0"})
    return measure_energy(found, Window(start_s=2.0, end_s=10.0), 2, 9.0, 5.0, SIMULATED_POWER)


@pytest.mark.parametrize("timed", [False, True])
def test_an_exporter_that_collects_every_second_can_be_used(timed: bool) -> None:
    assert energy(1.0, timed=timed).energy_j == pytest.approx(1001 * 8, rel=0.01)


@pytest.mark.parametrize("timed", [False, True])
def test_a_frozen_exporter_and_its_default_interval_do_not_pass(timed: bool) -> None:
    assert energy(1.0, frozen_at_s=5.0, timed=timed).reason.code == "power_not_covered"
    assert energy(30.0, timed=timed).reason.code == "power_not_covered"
    assert energy(4.0, timed=timed).reason.code == "power_gap"


@pytest.fixture
def exporter_url() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page(5.0).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_sampler_reads_an_exporter_where_nvml_is_not_there(
    exporter_url: str, start_sampler, tmp_path
) -> None:
    process = start_sampler(tmp_path / "log", "gpus 0", "--dcgm", exporter_url, "--gpus", "0,1")
    assert process.stdout.readline() == b'{"ready": true}\n'
    process.communicate(timeout=20)
    log = parse((tmp_path / "log").read_text())
    assert [(p.kind, p.reason and p.reason.code) for p in log.probes] == [
        ("nvml", "no_gpu"),
        ("dcgm", None),
        ("grace", "no_grace"),
    ]
    assert log.ticks[0].readings[1].power_w == 501.0


def test_two_sources_of_one_gpu_are_never_read_together(exporter_url: str, start_sampler, tmp_path) -> None:
    process = start_sampler(tmp_path / "log", "", "--dcgm", exporter_url)
    assert process.stdout.readline() == b'{"ready": true}\n'
    process.communicate(timeout=20)
    log = parse((tmp_path / "log").read_text())
    assert [(p.kind, p.reason and str(p.reason)) for p in log.probes][:2] == [
        ("nvml", None),
        ("dcgm", "not_needed: NVML reads these GPUs"),
    ]


def test_a_grace_hopper_module_is_one_meter_whatever_reads_it() -> None:
    text = page(5.0).replace("NVIDIA H200", "NVIDIA GH200 480GB")
    probe = DcgmSource("http://x", ("0",), Exporter(text)).probe()
    assert probe.source.scope == "module"
    assert str(probe.source).endswith("module scope (GPU and its Grace)")
    assert probe.models == ("NVIDIA GH200 480GB",)
    mixed = page(5.0).replace(
        'gpu="0",UUID="GPU-aaaa",device="nvidia0",modelName="NVIDIA H200"',
        'gpu="0",UUID="GPU-aaaa",modelName="GH200"',
    )
    assert str(DcgmSource("http://x", (), Exporter(mixed)).probe().reason).startswith("mixed_scopes: ")
    assert DcgmSource("http://x", ("0",), Exporter(page(5.0))).probe().models == ("NVIDIA H200",)


def test_what_is_no_number_is_no_reading() -> None:
    text = line("DCGM_FI_DEV_POWER_USAGE", 0, float("nan")) + line("DCGM_FI_DEV_POWER_USAGE", 1, 500.0)
    assert [reading.power_w for reading in readings(text).values()] == [None, 500.0]
