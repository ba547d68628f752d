"""Pure: folders of the machine that made a page, which whoever it is forwarded to need not know."""

from __future__ import annotations

import re

_PATH = re.compile(r"(?<![\w.:/@~+<-])~?/(?!(?:dev|sys|proc|v\d+)/)(?:[\w.@+%=-]+/)+([\w.@+%=-]+)")


def shorten_paths(text: str) -> str:
    """The text with `…/result.json` in place of `/home/me/results/sweep/result.json`.

    Addresses (`http://…`, `/v1/completions`) and what is the same on every machine (`/dev`, `/proc`, `/sys`)
    stay as they are.
    """
    return _PATH.sub(r"…/\1", text)


def name_source(source: str) -> str:
    """The last component of a source's path."""
    return source.rstrip("/").rsplit("/", 1)[-1] or source
