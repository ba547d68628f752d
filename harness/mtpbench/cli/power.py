"""`mtpbench system-power`: provisioned power in the form that MLPerf Endpoints asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtpbench.errors import InputError
from mtpbench.power import provisioned
from mtpbench.yaml_files import read_yaml


def system_power(
    system: Annotated[Path, typer.Argument(help="YAML with the keys of the form; docs/howto/power.md.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the form goes.")] = Path(
        "system_power.json"
    ),
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs of the system, to also say its kW per GPU.")
    ] = None,
) -> None:
    """Write system_power.json: what a system is built to draw, checked, with its source; no measurement."""
    power = provisioned.system_power(read_yaml(system))
    try:
        output.write_text(provisioned.render(power), "utf-8")
    except OSError as error:
        raise InputError(f"{output}: can't be written ({error.strerror})") from error
    total_kw = provisioned.total_w(power) / 1000
    typer.echo(f"{output}: {total_kw:,.3f} kW provisioned")
    if gpus is not None:
        each = total_kw / gpus
        typer.echo(f"{each:.3f} kW per GPU of {gpus}: `mtpbench compare … --kw-per-gpu {each:.4g}`")
