"""What several commands take, and where they write to."""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from mtpbench.errors import InputError, StoreError
from mtpbench.records import METHOD_NAMES
from mtpbench.store import replace_file
from mtpbench_analysis.comparisons import Filter, Question
from mtpbench_analysis.curves.cells import DEFAULT_MAX_GAP
from mtpbench_analysis.curves.cost import DEFAULT_TIER
from mtpbench_analysis.curves.curve import CURVE_FIELDS, SPLITTABLE, Grouping
from mtpbench_analysis.curves.curve_reader import DEFAULT_CONFIDENCE
from mtpbench_analysis.curves.errors import START_NOISE
from mtpbench_analysis.document import visible

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
StartNoiseOption = Annotated[
    float,
    typer.Option(
        help="How far two starts of one server may differ, in percent; starts that were repeated tell."
    ),
]
PoolOption = Annotated[str, typer.Option(help="Let one curve mix these: " + ", ".join(CURVE_FIELDS) + ".")]
SplitOption = Annotated[
    str, typer.Option(help="Make curves of their own of these: " + ", ".join(SPLITTABLE) + ".")
]
ConstantsOption = Annotated[
    str | None, typer.Option(help="Date of the price and power constants, such as 2026-05, or a YAML file.")
]
PriceOption = Annotated[float | None, typer.Option(help="What if a GPU-hour cost so many $?")]
PowerOption = Annotated[float | None, typer.Option(help="What if a GPU were provisioned with so many kW?")]
TierOption = Annotated[
    str, typer.Option(help="Whose price: hyperscaler, rental_3y, or (up to 2026-07) neocloud.")
]
HardwareOption = Annotated[
    str | None, typer.Option(help="Only this hardware; names it where the source does not.")
]
PrecisionOption = Annotated[str | None, typer.Option(help="Only this precision.")]
IslOption = Annotated[int | None, typer.Option(help="Only this input length.")]
OslOption = Annotated[int | None, typer.Option(help="Only this output length.")]
EngineOption = Annotated[str | None, typer.Option("--engine", "--framework", help="Only this engine.")]
SpeculationOption = Annotated[
    str,
    typer.Option(
        help="Only arms that draft so, such as mtp,dspark, and those without speculation: "
        + ", ".join(METHOD_NAMES)
        + "."
    ),
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class PointOptions:
    """The options of every command that reads curves: which points, whose constants, how points make
    curves.
    """

    hardware: HardwareOption = None
    precision: PrecisionOption = None
    isl: IslOption = None
    osl: OslOption = None
    engine: EngineOption = None
    speculation: SpeculationOption = ""
    hardware_constants: ConstantsOption = None
    tier: TierOption = DEFAULT_TIER
    usd_per_gpu_h: PriceOption = None
    kw_per_gpu: PowerOption = None
    pool: PoolOption = ""
    split: SplitOption = ""

    @property
    def filter(self) -> Filter:
        """Returns which points are compared."""
        return Filter(
            hardware=self.hardware,
            precision=self.precision,
            isl=self.isl,
            osl=self.osl,
            engine=self.engine,
            methods=_names(self.speculation),
        )

    @property
    def question(self) -> Question:
        """Returns how the curves are read."""
        return Question(
            constants=self.hardware_constants,
            usd_per_gpu_h=self.usd_per_gpu_h,
            kw_per_gpu=self.kw_per_gpu,
            tier=self.tier,
            grouping=Grouping(pool=_names(self.pool), split=_names(self.split)),
        )


def _names(text: str) -> tuple[str, ...]:
    """Returns the names of a list with commas between."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonOptions(PointOptions):
    """The options of every command that compares curves with a baseline."""

    targets: TargetsOption = ""
    baseline: BaselineOption = None
    max_gap: MaxGapOption = DEFAULT_MAX_GAP
    confidence: ConfidenceOption = DEFAULT_CONFIDENCE
    start_noise: StartNoiseOption = START_NOISE * 100

    @property
    def comparison_question(self) -> Question:
        """Returns how the curves are compared.

        Raises:
            InputError: a target is not a positive number.
        """
        return replace(
            self.question,
            targets_tps=parse_targets(self.targets),
            baseline=self.baseline,
            max_gap=self.max_gap,
            confidence=self.confidence,
            start_noise=self.start_noise / 100,
        )


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Returns the command with a parameter for each field of a group of options, in place of the group.

    Args:
        command: takes one or several groups, each a dataclass of options.
    """
    hints = get_type_hints(command, include_extras=True)
    own, shared, groups = [], [], {}
    for name, parameter in inspect.signature(command).parameters.items():
        if not is_dataclass(hints[name]):
            own.append(parameter.replace(annotation=hints[name]))
            continue
        groups[name] = hints[name]
        kinds = get_type_hints(hints[name], include_extras=True)
        shared += [
            parameter.replace(name=option.name, default=option.default, annotation=kinds[option.name])
            for option in fields(hints[name])
        ]

    @wraps(command)
    def run(**values: Any) -> None:
        options = {
            name: group(**{option.name: values.pop(option.name) for option in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **options)

    run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    return run


def parse_targets(text: str) -> tuple[float, ...]:
    """Parses targets such as `32,46,61`.

    Raises:
        InputError: a target is not a positive number; the message says which.
    """
    return _numbers("--targets", text, 0, "a positive number; interactivities in tok/s/user such as 32,46,61")


def parse_lengths(texts: Sequence[str]) -> tuple[float, ...]:
    """Parses acceptance lengths such as `2.0,2.5`, from an option that may be repeated.

    Raises:
        InputError: a length is no number of at least 1; the message says which.
    """
    needed = "a number of at least 1; acceptance lengths such as 2.0,2.5 (the bonus token included)"
    lengths = [_numbers("--what-if-acceptance", text, 1, needed) for text in texts]
    return tuple(dict.fromkeys(length for some in lengths for length in some))


def _numbers(option: str, text: str, least: float, needed: str) -> tuple[float, ...]:
    """Returns the numbers of a list, each once; they lie above 0, and at or above the least."""
    numbers = []
    for part in (part.strip() for part in text.split(",")) if text.strip() else ():
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value <= 0 or value < least:
            raise InputError(f"{option} {text}: {part!r} is not {needed} are needed")
        numbers.append(value)
    return tuple(dict.fromkeys(numbers))


class _Visible(Console):
    """A console that shows text as it stands: no markup, no emoji codes, no control characters."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yields the segments of a renderable; those that steer the terminal are Rich's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def make_console(**settings: Any) -> Console:
    """Returns the console of a command, by Rich's settings; strings are no markup."""
    return _Visible(**{"markup": False, "emoji": False, "highlight": False, **settings})


def echo(text: str, *, err: bool = False) -> None:
    """Prints plain text that is neither folded nor styled, for copying and for grep; tabs stay."""
    stream = sys.stderr if err else sys.stdout
    stream.write("\t".join(map(visible, text.split("\t"))) + "\n")
    stream.flush()


Writers = Mapping[str, Callable[[], RenderableType | str | bytes]]
"""By format, the function that makes it; only the chosen format is made."""


def deliver(writers: Writers, output_format: str, output: Path | None) -> None:
    """Makes one format, and prints it or writes it to a file.

    Raises:
        InputError: the file can't be written, or the format is not for a terminal.
    """
    content = writers[output_format]()
    if isinstance(content, bytes):
        if output is None and sys.stdout.isatty():
            raise InputError(f"--format {output_format} is not text: name a file with --output")
        _hand_over(content, output)
    elif isinstance(content, str):
        _hand_over(content.encode("utf-8", "backslashreplace"), output)
    elif output is None:
        make_console().print(content)
    else:
        _hand_over(_plain(content).encode("utf-8"), output)


def write_text(path: Path, text: str) -> None:
    """Writes a file, and names it on standard error.

    Raises:
        InputError: it can't be written.
    """
    _hand_over(text.encode("utf-8", "backslashreplace"), path)


def write_output(output: Path, data: bytes) -> None:
    """Writes a file that was asked for; it is there whole or as it was before.

    A link is followed. What is no file (a pipe, `/dev/stdout`) is written to as it is, and so is a file whose
    folder takes no other.

    Raises:
        InputError: it can't be written.
    """
    try:
        target = Path(os.path.realpath(output))
        is_file = target.is_file() or not target.exists()
        if is_file and os.access(target.parent, os.W_OK):
            replace_file(target, data, sync=False)
        else:
            output.write_bytes(data)
    except OSError as error:
        raise InputError(f"{output}: can't be written ({error.strerror})") from error
    except StoreError as error:
        raise InputError(f"{output}: can't be written ({error.reason})") from error
    except ValueError as error:  # a NUL byte
        raise InputError(f"{str(output)!r}: is no path of a file ({error})") from error


def _hand_over(data: bytes, output: Path | None) -> None:
    if output is None:
        typer.echo(data, nl=False)
        return
    write_output(output, data)
    echo(f"written: {output}", err=True)


def _plain(renderable: RenderableType) -> str:
    console = make_console(width=100, no_color=True)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()
