"""Pure: what an engine says about itself: packages, deaths, releases, and its options' names in them.

Engines rename and drop options every few weeks. A sweep may use any of an option's names: the engine's module
writes the one that the release of the sweep knows, and `plan` says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from packaging.version import Version

from mtpbench.errors import UnsupportedError
from mtpbench.records import Engine, Flags, Point, WorkerRole


@dataclass(frozen=True, kw_only=True, slots=True)
class Renaming:
    """A renaming says in which releases an option has which name, or that it goes.

    A key of an option that is JSON follows a dot: `attention-config.use_fp4_indexer_cache`.

    Args:
        old: the name until then.
        new: the name that takes its place; None where nothing does.
        since: the first release that knows the new name, or warns of the old one where there is no new one.
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
        text_routers: its routers that take no token ids as a prompt.
        deaths: patterns, by code of `ADVICE`, of lines that it prints before it dies.
        simulates: whether the figures come from a model of an engine.
        interval_of_steps: whether its stream interval counts decode steps, not tokens.
        releases: the day (ISO 8601) on which each release came out, oldest first; empty where lines don't
            depend on it.
        renamings: what became of its options.
        step_room: returns the sequences that a step of a role has room for, with the drafts that the arm
            declares, by the option that bounds them; None where no option counts drafts.
    """

    title: str | None
    package: str | None = None
    modules: tuple[str, ...] = ()
    extra: str | None = None
    programs: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    speculation: tuple[str, ...] = ()
    text_routers: tuple[str, ...] = ()
    deaths: Mapping[str, str] = field(default_factory=dict)
    simulates: bool = False
    interval_of_steps: bool = False
    releases: Mapping[str, str] = field(default_factory=dict)
    renamings: tuple[Renaming, ...] = ()
    step_room: Callable[[Point, WorkerRole], Mapping[str, int]] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A release is the one that a sweep's command lines are written for, and what names it.

    `named_by` is the sweep's `version`, the `image`'s tag, the day in an image's tag (`image_day`: the last
    release before it), the release of the `router` that pins it (`newest_router`: of the newest known), or
    `nothing`: then it is the newest known.
    """

    version: str
    named_by: Literal["version", "image", "image_day", "router", "newest_router", "nothing"]

    def since(self, version: str) -> bool:
        """Returns whether this is that release or a later one."""
        return Version(self.version) >= Version(version)

    def equals(self, version: str) -> bool:
        """Returns whether this is that release, however it is written: 0.33 is 0.33.0."""
        return Version(self.version) == Version(version)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pinned:
    """A router is made for one release of an engine; `named` says whether the sweep names the router's."""

    version: str
    named: bool


_NUMBER = r"([0-9]+\.[0-9]+(?:\.[0-9]+)?(?:[.-]?(?:a|b|rc|post|dev)[0-9]+)*)"
_ENDS = r"(?![A-Za-z0-9]|\.[0-9])"
_IN_TAG = re.compile(rf"(?<![A-Za-z0-9.])([vV]?){_NUMBER}{_ENDS}")
_DAY_IN_TAG = re.compile(r"(?<![0-9])(20[0-9]{2})-?([0-9]{2})-?([0-9]{2})(?![0-9])")


def version_at_start(text: str | None, package: str | None = None) -> str | None:
    """Returns the release number that a sweep's `version` begins with; None where it begins with none.

    The name of the package may stand before it, and a remark after it: `0.33.0 (CPU)`, `ai-dynamo 1.6.1`.
    """
    name = f"(?:{re.escape(package)}(?: |==))?" if package else ""
    found = re.match(rf"{name}[vV]?{_NUMBER}{_ENDS}", text or "")
    return found[1] if found else None


def version_in_image(image: str | None, known: Iterable[str] = ()) -> str | None:
    """Returns the release number in the last part of an image's name; None where there is none.

    A number with a `v` comes before others, and of those only one whose first part some known release has: an
    image's name may also hold the version of CUDA, or of its system.
    """
    found = _IN_TAG.findall((image or "").rpartition("/")[2])
    majors = {Version(version).major for version in known}
    plain = [number for v, number in found if not v and (not majors or Version(number).major in majors)]
    return next(iter([number for v, number in found if v] + plain), None)


def release_of(
    engine: Engine, about: About, pinned: Pinned | None = None, *, own_image: bool = True
) -> Release | None:
    """Returns the release that the command lines of a sweep are written for; None for an engine without any.

    Args:
        engine: the engine of the sweep's base.
        about: what that engine says about itself.
        pinned: the release that the router of the sweep is made for, where that is known.
        own_image: whether the image's tag is the engine's release; False for an image of the router's.
    """
    if not about.releases:
        return None
    if version := version_at_start(engine.version, about.package):
        return Release(version=version, named_by="version")
    image = engine.image if own_image else None
    if version := version_in_image(image, about.releases):
        return Release(version=version, named_by="image")
    if version := _release_by_day(image, about.releases):
        return Release(version=version, named_by="image_day")
    if pinned is not None and image is None:
        return Release(version=pinned.version, named_by="router" if pinned.named else "newest_router")
    return Release(version=newest(about.releases), named_by="nothing")


def newest(releases: Iterable[str]) -> str:
    """Returns the newest of some releases."""
    return max(releases, key=Version)


def _release_by_day(image: str | None, releases: Mapping[str, str]) -> str | None:
    """Returns the last release before the day that a nightly image's tag holds; None where it holds none."""
    found = _DAY_IN_TAG.search((image or "").rpartition("/")[2])
    if found is None:
        return None
    try:
        day = date(*map(int, found.groups()))
    except ValueError:
        return None
    before = [version for version, released in releases.items() if date.fromisoformat(released) <= day]
    return max(before, key=Version) if before else None


# --- the names of options ---


def canonical(flags: Flags, renamings: Sequence[Renaming]) -> Flags:
    """Returns the options of a layer under their newest names, with dashes; None stays, for it removes.

    So layers that use different names of one option can be merged.

    Raises:
        UnsupportedError: an option is given under two names, or a renamed switch is neither on nor off.
    """
    named: dict[str, Any] = {}
    for name, value in flags.items():
        if (dashed := name.replace("_", "-")) in named:
            raise UnsupportedError(f"the option {dashed} is given twice; leave one of them")
        named[dashed] = value
    flags = named
    for renaming in renamings:
        if renaming.new is not None and renaming.written_as is None and has_option(flags, renaming.old):
            flags = _to_new(flags, renaming, renaming.new)
    return flags


def _to_new(flags: Flags, renaming: Renaming, new: str) -> Flags:
    old, value = renaming.old, option_value(flags, renaming.old)
    if has_option(flags, new):
        raise UnsupportedError(f"{old} and {new} are two names of one option; leave one of them")
    if renaming.values and value not in (None, False):
        if not isinstance(value, Hashable) or value not in renaming.values:
            known = " or ".join("true" if v is True else repr(v) for v in renaming.values)
            raise UnsupportedError(f"the option {old} is {known} or false, not {value!r}")
        value = renaming.values[value]
    elif renaming.values:
        value = None
    return _replaced(flags, old, new, value)


def spelled(flags: Flags, renamings: Sequence[Renaming], release: Release | None) -> Flags:
    """Returns options with their newest names under the names that a release knows.

    A renaming with `written_as` is left to the engine's module.

    Raises:
        UnsupportedError: the release has no name for an option, or for a value of it.
    """
    if release is None:
        return flags
    for renaming in renamings:
        if renaming.written_as is None:
            flags = _to_release(flags, renaming, release)
    for renaming in renamings:
        _refuse_later(flags, renaming, release)
    return flags


def _to_release(flags: Flags, renaming: Renaming, release: Release) -> Flags:
    """Returns the options with the old name of one, where the release knows only that."""
    old, new = renaming.old, renaming.new
    if new is None:
        gone = renaming.removed is not None and release.since(renaming.removed)
        if gone and option_value(flags, old) not in (None, False):
            raise UnsupportedError(f"the option {old} is gone since {renaming.removed}; take it away")
        return flags
    if release.since(renaming.since) or (value := option_value(flags, new)) is None:
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
    return as_mapping(value).get(key) if key else value


def _dashed(name: str) -> str:
    option, dot, key = name.partition(".")
    return f"{option.replace('_', '-')}{dot}{key}"


def has_option(flags: Flags, name: str) -> bool:
    """Returns whether an option, or a key inside one, is there, with whatever value."""
    option, _, key = name.partition(".")
    return key in as_mapping(flags.get(option)) if key else option in flags


def _replaced(flags: Flags, name: str, by: str, value: Any) -> Flags:
    """Returns the options with one, or a key inside one, under another name, in its old place.

    A key whose value is None is left out.
    """
    option, _, key = name.partition(".")
    if not key:
        return {by if n == option else n: value if n == option else v for n, v in flags.items()}
    keys = {
        by.partition(".")[2] if k == key else k: value if k == key else v
        for k, v in as_mapping(flags[option]).items()
    }
    kept = {k: v for k, v in keys.items() if v is not None}
    return {**flags, option: kept or None}


def as_mapping(value: Any) -> Mapping[str, Any]:
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
    layers = [{name.replace("_", "-"): value for name, value in flags.items()} for flags in layers]
    for renaming in renamings:
        names = [renaming.old] if renaming.new is None else [renaming.old, renaming.new]
        known = ((n, option_value(flags, _dashed(n))) for n in names for flags in layers)
        used = next((name for name, value in known if value not in (None, False)), None)
        if used is None or release is None:
            continue
        is_new = renaming.new is not None and release.since(renaming.since)
        new = used if used == renaming.new else renaming.written_as or renaming.new or used
        written = new if is_new else renaming.old
        warned = renaming.deprecated is not None and release.since(renaming.deprecated)
        is_old = used == renaming.old
        if written != used or (is_old and (renaming.goes_after is not None or warned)):
            yield OptionNotice(renaming=renaming, used=used, written=written)
