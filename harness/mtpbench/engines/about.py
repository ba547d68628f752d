"""Pure: what an engine says about itself: packages, deaths, releases, and its options' names in them.

Engines rename and drop options every few weeks. A sweep may use any of an option's names: the engine's module
writes the one that the release of the sweep knows, and `plan` says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from packaging.version import Version

from mtpbench.errors import UnsupportedError
from mtpbench.records import Engine, Flags


@dataclass(frozen=True, kw_only=True, slots=True)
class Renaming:
    """A renaming says in which releases an option has which name, or that it goes.

    A key of an option that is JSON follows a dot: `attention-config.use_fp4_indexer_cache`.

    Args:
        old: the name until then.
        new: the name that takes its place; None where nothing does.
        since: the first release that knows the new name.
        deprecated: the first release that warns of the old name; None where none does.
        removed: the first release that refuses the old name; None while all accept it.
        goes_after: the day (ISO 8601) after which the engine's own source says that the old name goes.
        values: the old name's values and what they are under the new one; empty where they stay.
        written_as: what the engine's module writes since then, where more changes than a name.
    """

    old: str
    new: str | None
    since: str
    deprecated: str | None = None
    removed: str | None = None
    goes_after: str | None = None
    values: Mapping[Any, Any] = field(default_factory=dict)
    written_as: str | None = None


def renamed(old: str, new: str | None, *, since: str, **more: Any) -> Renaming:
    """Builds a renaming whose old name is warned of from the first release that knows the new one."""
    return Renaming(**{"old": old, "new": new, "since": since, "deprecated": since, **more})


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """An engine's module says here what generic code needs to know besides what the engine does.

    Args:
        title: its name in `mtpbench doctor`; None for the engine that comes with the harness.
        package: the Python distribution whose version goes into provenance; None where there is none.
        modules: Python modules that an installation has, its own first.
        extra: the extra of mtpbench that installs it; None where there is none.
        programs: programs or modules that start its command lines, its own first.
        environment: prefixes of the variables that steer it, whose names go into provenance (`VLLM` for
            `VLLM_…`).
        kept: those of them whose values go there too, whatever they are.
        speculation: further parts of option names that mean speculation, in lower case.
        deaths: patterns, by code of `ADVICE`, of lines that it prints before it dies.
        simulates: whether the figures come from a model of an engine.
        interval_of_steps: whether its stream interval counts decode steps, not tokens.
        releases: the day (ISO 8601) on which each release came out, oldest first; empty where lines don't
            depend on it.
        renamings: what became of its options.
    """

    title: str | None
    package: str | None = None
    modules: tuple[str, ...] = ()
    extra: str | None = None
    programs: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    speculation: tuple[str, ...] = ()
    deaths: Mapping[str, str] = field(default_factory=dict)
    simulates: bool = False
    interval_of_steps: bool = False
    releases: Mapping[str, str] = field(default_factory=dict)
    renamings: tuple[Renaming, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A release is the one that a sweep's command lines are written for, and what names it.

    `named_by` is the sweep's `version`, the `image`'s tag, the day in an image's tag (`image_day`: the last
    release before it), the release of the `router` that pins it, or `nothing`: then it is the newest known.
    """

    version: str
    named_by: Literal["version", "image", "image_day", "router", "nothing"]

    def since(self, version: str) -> bool:
        """Returns whether this is that release or a later one."""
        return Version(self.version) >= Version(version)


_VERSION = r"v?(\d+\.\d+(?:\.\d+)?(?:\.?(?:a|b|rc|post|dev)\d+)*)"
_IN_TAG = re.compile(rf"(?<![A-Za-z0-9.]){_VERSION}(?![A-Za-z0-9])")
_DAY_IN_TAG = re.compile(r"(?<!\d)(20\d\d)(\d\d)(\d\d)(?!\d)")


def version_at_start(text: str | None, package: str | None = None) -> str | None:
    """Returns the release number that a sweep's `version` begins with; None where it begins with none.

    The name of the package may stand before it, and a remark after it: `0.33.0 (CPU)`, `ai-dynamo 1.6.1`.
    """
    name = f"(?:{re.escape(package)} )?" if package else ""
    found = re.match(rf"{name}{_VERSION}(?![A-Za-z0-9.])", text or "")
    return found[1] if found else None


def version_in_image(image: str | None) -> str | None:
    """Returns the release number in the last part of an image's name; None where there is none."""
    found = _IN_TAG.findall((image or "").rpartition("/")[2])
    return found[0] if found else None


def release_of(engine: Engine, about: About, pinned: str | None = None) -> Release | None:
    """Returns the release that the command lines of a sweep are written for; None for an engine without any.

    Args:
        engine: the engine of the sweep's base.
        about: what that engine says about itself.
        pinned: the release that the router of the sweep is made for, where one is.
    """
    if not about.releases:
        return None
    if version := version_at_start(engine.version, about.package):
        return Release(version=version, named_by="version")
    if pinned is None and (version := version_in_image(engine.image)):
        return Release(version=version, named_by="image")
    if pinned is None and (version := _release_by_day(engine.image, about.releases)):
        return Release(version=version, named_by="image_day")
    if pinned is not None:
        return Release(version=pinned, named_by="router")
    return Release(version=newest(about.releases), named_by="nothing")


def newest(releases: Iterable[str]) -> str:
    """Returns the newest of some releases."""
    return max(releases, key=Version)


def _release_by_day(image: str | None, releases: Mapping[str, str]) -> str | None:
    """Returns the last release before the day that a nightly image's tag holds; None where it holds none."""
    found = _DAY_IN_TAG.search((image or "").rpartition("/")[2])
    if found is None:
        return None
    day = "-".join(found.groups())
    before = [version for version, released in releases.items() if released <= day]
    return max(before, key=Version) if before else None


# --- the names of options ---


def spelled(flags: Flags, renamings: Sequence[Renaming], release: Release | None) -> Flags:
    """Returns the options under the names that a release knows.

    A renaming with `written_as` is left to the engine's module.

    Raises:
        UnsupportedError: the release has no name for an option, or for a value of it.
    """
    if release is None:
        return flags
    for renaming in renamings:
        if renaming.written_as is None:
            flags = _renamed(flags, renaming, release)
    for renaming in renamings:
        _refuse_later(flags, renaming, release)
    return flags


def _renamed(flags: Flags, renaming: Renaming, release: Release) -> Flags:
    old, new = renaming.old, renaming.new
    if release.since(renaming.since):
        if (value := option_value(flags, old)) is None:
            return flags
        if new is None:
            if renaming.removed is None or not release.since(renaming.removed):
                return flags
            raise UnsupportedError(f"the option {old} is gone since {renaming.removed}; take it away")
        return _replaced(flags, old, new, renaming.values.get(value, value) if renaming.values else value)
    if new is None or (value := option_value(flags, new)) is None:
        return flags
    if not renaming.values:
        return _replaced(flags, new, old, value)
    before = next((before for before, after in renaming.values.items() if after == value), None)
    return flags if before is None else _replaced(flags, new, old, before)


def _refuse_later(flags: Flags, renaming: Renaming, release: Release) -> None:
    """Refuses what only a later release has a name for: an option that no older one could be written for."""
    new = renaming.new
    if new is None or release.since(renaming.since) or (value := option_value(flags, new)) is None:
        return
    raise UnsupportedError(
        f"the option {new} with {value!r} exists since {renaming.since}, and the sweep is for "
        f"{release.version}; name a later `engine.version` or `engine.image`, or take it away"
    )


def option_value(flags: Flags, name: str) -> Any:
    """Returns the value of an option, or of a key inside one; None where it is not there."""
    option, _, key = name.partition(".")
    value = flags.get(option)
    return _mapping(value).get(key) if key else value


def _replaced(flags: Flags, name: str, by: str, value: Any) -> Flags:
    """Returns the options with one, or a key inside one, under another name, in its old place."""
    option, _, key = name.partition(".")
    if not key:
        return {by if n == option else n: value if n == option else v for n, v in flags.items() if n != by}
    inside = by.partition(".")[2]
    keys = _mapping(flags[option])
    changed = {inside if k == key else k: value if k == key else v for k, v in keys.items() if k != inside}
    return {**flags, option: changed}


def _mapping(value: Any) -> Mapping[str, Any]:
    """Returns an option's keys, where it is JSON, given as a mapping or as text."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionNotice:
    """A notice says that an option of a sweep is written under another name, or that it goes.

    `written` is the name in the command lines of the release.
    """

    renaming: Renaming
    used: str
    written: str


def option_notices(
    layers: Sequence[Flags], renamings: Sequence[Renaming], release: Release | None
) -> Iterator[OptionNotice]:
    """Yields a notice for each renamed option that a sweep uses: where it is written otherwise, or goes."""
    for renaming in renamings:
        names = [renaming.old] if renaming.new is None else [renaming.old, renaming.new]
        used = next((n for n in names for flags in layers if option_value(flags, n) is not None), None)
        if used is None or release is None:
            continue
        is_new = renaming.new is not None and release.since(renaming.since)
        written = (renaming.written_as or renaming.new or used) if is_new else renaming.old
        warned = renaming.deprecated is not None and release.since(renaming.deprecated)
        is_old = used == renaming.old
        if written != used or (is_old and (renaming.goes_after is not None or warned)):
            yield OptionNotice(renaming=renaming, used=used, written=written)
