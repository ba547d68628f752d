"""What several commands take, and where they write to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtpbench_analysis.curves import CURVE_FIELDS, SPLITTABLE, Grouping

SourcesArgument = Annotated[
    list[Path],
    typer.Argument(
        help="Folders results/<sweep>, CSVs of points, results of other tools.", metavar="SOURCES..."
    ),
]
TargetsOption = Annotated[str, typer.Option(help="Interactivities in tok/s/user, such as 32,46,61.")]
BaselineOption = Annotated[str | None, typer.Option(help="The arm to compare with. [default: off]")]
MaxGapOption = Annotated[
    float, typer.Option(help="No ratio across knots whose throughputs differ by more than this factor.")
]
ConfidenceOption = Annotated[float, typer.Option(help="Of every interval.")]
PoolOption = Annotated[str, typer.Option(help="Let one curve mix these: " + ", ".join(CURVE_FIELDS) + ".")]
SplitOption = Annotated[
    str, typer.Option(help="Make curves of their own of these: " + ", ".join(SPLITTABLE) + ".")
]
ConstantsOption = Annotated[
    str | None, typer.Option(help="Date of the price and power constants, such as 2026-05, or a YAML file.")
]
PriceOption = Annotated[float | None, typer.Option(help="What if a GPU-hour cost so many $?")]
PowerOption = Annotated[float | None, typer.Option(help="What if a GPU were provisioned with so many kW?")]
TierOption = Annotated[str, typer.Option(help="Whose price: hyperscaler, neocloud or rental_3y.")]
HardwareOption = Annotated[
    str | None, typer.Option(help="Only this hardware; names it where the source does not.")
]
PrecisionOption = Annotated[str | None, typer.Option(help="Only this precision.")]
IslOption = Annotated[int | None, typer.Option(help="Only this input length.")]
OslOption = Annotated[int | None, typer.Option(help="Only this output length.")]
EngineOption = Annotated[str | None, typer.Option("--engine", "--framework", help="Only this engine.")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")]


def grouping_of(pool: str, split: str) -> Grouping:
    """`--pool` and `--split` as names."""
    names = [tuple(name.strip() for name in text.split(",") if name.strip()) for text in (pool, split)]
    return Grouping(pool=names[0], split=names[1])
