"""`mtpbench simulate`: the embedded engine served over HTTP, and its profiles calibrated."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from mtpbench.load.pacer import RequestCounts, Schedule
from mtpbench.records import Load, Workload
from mtpbench.simengine import server
from mtpbench.simengine.drafting import Drafting
from mtpbench.simengine.profile import Profile, default_profile, load_profile, read_data
from mtpbench.simengine.profile_fit import (
    Calibration,
    FitSetting,
    MeasuredPoint,
    SteadyRates,
    calibrate,
    measure_steady,
    read_points,
)
from mtpbench.simengine.virtual import Cluster, play_schedule
from mtpbench.workload import draw_lengths
from mtpbench_analysis.cli.options import make_console, write_output

app = typer.Typer(no_args_is_help=True)
_SEED = 1
_REQUESTS = 6000
"""Requests that one point of a calibration plays at most, beyond two rounds of its slots."""


@app.command("serve", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65535, help="port on 127.0.0.1")] = 8000,
    model: Annotated[str, typer.Option(help="the served model's name")] = "simulated",
    profile: Annotated[str, typer.Option(help="a shipped profile or a JSON file")] = default_profile(),
    speed: Annotated[float, typer.Option(help="engine seconds per real second, at most 10")] = 1.0,
) -> None:
    """Serve one worker, TP8 by default; other options are those of `python -m mtpbench.simengine.server`."""
    argv = ["--port", str(port), "--model", model, "--profile", profile, "--speed", str(speed)]
    raise typer.Exit(server.main([*argv, *context.args]))


@app.command("calibrate")
def calibrate_profile(
    points: Annotated[Path, typer.Argument(help="CSV of measured points")],
    profile: Annotated[str, typer.Option(help="whose tables to fit")] = default_profile(),
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="write the fitted profile here")
    ] = None,
    isl: Annotated[int, typer.Option(help="prompt tokens asked for")] = 8192,
    osl: Annotated[int, typer.Option(help="output tokens asked for")] = 1024,
    range_ratio: Annotated[float, typer.Option(help="lengths are uniform from ratio × L to L")] = 0.8,
) -> None:
    """Fit a profile's factors to measured points; print every residual, held-out ones too."""
    measured = read_points(points)
    setting = FitSetting(isl=isl, osl=osl, range_ratio=range_ratio)
    calibration = calibrate(measured, load_profile(profile), setting, play_measured)
    _print(calibration)
    if output is not None:
        _write(calibration, profile, points, output)


def play_measured(point: MeasuredPoint, profile: Profile, setting: FitSetting) -> SteadyRates:
    """Plays a measured point on the virtual clock, with as few requests as still give a steady state."""
    slots = point.concurrency
    measured = max(min(8 * slots, _REQUESTS), 2 * slots, 8)
    counts = RequestCounts(warmup=math.ceil(slots), measured=measured)
    schedule = Schedule.independent(Load(), counts, slots, _SEED)
    workload = Workload(isl=setting.isl, osl=setting.osl, range_ratio=setting.range_ratio)
    lengths = draw_lengths(workload, counts.total, _SEED)
    drafting = Drafting(rates=point.rates) if point.rates else None
    cluster = Cluster(point.topology, profile, setting.limits(point.topology), drafting, _SEED)
    run = play_schedule(cluster, schedule, lengths, 1.0)
    return measure_steady(run.requests, point.topology.gpus)


def _print(calibration: Calibration) -> None:
    table = Table(
        title="Measured, and model / measured - 1 in %; held out: fitted without the point",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    names = ("C", "topology", "tok/s/GPU", "model", "held out", "tok/s/user", "model", "held out")
    for name in names:
        table.add_column(name, justify="left" if name == "topology" else "right", no_wrap=True)
    for row in calibration.residuals:
        table.add_row(
            str(row.point.concurrency),
            row.point.topology.name,
            f"{row.point.tput_tps_per_gpu:.1f}",
            f"{row.tput:+.1f}",
            "-" if row.held_out_tput is None else f"{row.held_out_tput:+.1f}",
            f"{row.point.interactivity_tps:.2f}",
            f"{row.interactivity:+.1f}",
            "-" if row.held_out_interactivity is None else f"{row.held_out_interactivity:+.1f}",
        )
    console = make_console()
    console.print(table)
    factors = calibration.profile.factors
    for family, scale in factors.decode_scale.items():
        overhead_ms = factors.decode_overhead_ms.get(family, 0.0)
        console.print(f"decode {family}: table × {scale:.3f} + {overhead_ms:.2f} ms")
    console.print(f"prefill: table × {factors.prefill_scale:.3f}")


def _write(calibration: Calibration, base: str, points: Path, output: Path) -> None:
    data, factors = read_data(base), calibration.profile.factors
    data["name"] = output.stem
    data["factors"] = {
        "decode_scale": {name: round(value, 4) for name, value in factors.decode_scale.items()},
        "decode_overhead_ms": {name: round(value, 3) for name, value in factors.decode_overhead_ms.items()},
        "prefill_scale": round(factors.prefill_scale, 4),
    }
    note = f"Fitted to {len(calibration.residuals)} points of {points.name} by `mtpbench simulate calibrate`."
    data["notes"] = {**data.get("notes", {}), "factors": note}
    write_output(output, (json.dumps(data, indent=1) + "\n").encode())
