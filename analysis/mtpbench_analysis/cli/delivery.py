"""Texts and tables to where the reader wants them: the terminal, standard output, a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import typer
from rich.console import Console, RenderableType

from mtpbench.errors import InputError

Writers = Mapping[str, Callable[[], RenderableType | str | bytes]]
"""By format, what makes it; only the one that is asked for is made."""


def deliver(writers: Writers, output_format: str, output: Path | None) -> None:
    """Make one format and hand it over.

    Raises:
        InputError: the file can't be written, or the format is not for a terminal.
    """
    made = writers[output_format]()
    if isinstance(made, bytes):
        if output is None and sys.stdout.isatty():
            raise InputError(f"--format {output_format} is not text: name a file with --output")
        _hand_over(made, output)
    elif isinstance(made, str):
        _hand_over(made.encode("utf-8"), output)
    elif output is None:
        Console(highlight=False).print(made)
    else:
        _hand_over(_plain(made).encode("utf-8"), output)


def write_text(path: Path, text: str) -> None:
    """Write a file, and say so on standard error.

    Raises:
        InputError: it can't be written.
    """
    _hand_over(text.encode("utf-8"), path)


def _hand_over(data: bytes, output: Path | None) -> None:
    if output is None:
        typer.echo(data, nl=False)
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise InputError(f"{output}: can't be written ({error.strerror})") from error
    typer.echo(f"written: {output}", err=True)


def _plain(renderable: RenderableType) -> str:
    console = Console(width=100, highlight=False, no_color=True)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()
