"""The dated hardware constants, `data/hardware.yaml` or a file of the same form, as `Hardware` records.

A parameter `constants` is None (the newest built-in constants), a date of the built-in ones (`2026-05`), or
the path of a file. A file stands alone: hardware that it lacks has no constants.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NoReturn

import yaml

from mtpbench.errors import InputError
from mtpbench.input_files import MOST_YAML_BYTES, clean_text, compose_yaml, read_input_text, scalar_value
from mtpbench.records import GpuCondition, Hardware, PowerSource

_DATE = re.compile(r"\d{4}-\d{2}(-\d{2})?")
_BUILT_IN = "mtpbench/data/hardware.yaml"
_MOST = 1_000_000_000
"""More than any count, price or power: their products stay finite."""
_KINDS = ("gpu", "gpus_per_node", "nodes_per_domain", "constants", "source", "board_limit_w")
_Caveats = Mapping[str, str]
"""What a source says of its figures, by what it is said of: `power`, `price` (of all tiers) or a tier."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Priced:
    """The priced constants are those of one date."""

    power_kw_per_gpu: float | None
    usd_per_gpu_h: Mapping[str, float | None]
    caveats: _Caveats


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """A kind of hardware has constants by date."""

    gpu: str
    gpus_per_node: int
    nodes_per_domain: int
    source: str
    board_limit_w: float | None
    dated: Mapping[str, _Priced]


def names(constants: str | None = None) -> tuple[str, ...]:
    """Returns the names of the hardware that constants exist for.

    Raises:
        InputError: `constants` is a file that can't be used.
    """
    return tuple(_kinds(constants))


def lookup(name: str, constants: str | None = None) -> Hardware:
    """Returns the constants of one kind of hardware: the newest, those of a date, or the newest in a file.

    Raises:
        InputError: the name or the date is unknown, the message lists the known ones; or the file can't be
            used, the message names its line and key.
    """
    kinds, file = _kinds(constants), constants_file(constants)
    where = f"{file} has no constants of" if file else "unknown hardware"
    if name not in kinds:
        raise InputError(f"{where} {name!r}; known: {', '.join(kinds)}")
    kind = kinds[name]
    chosen = max(kind.dated) if file or constants is None else constants
    if chosen not in kind.dated:
        raise InputError(
            f"{name} has no constants of {chosen!r}; known dates: {', '.join(sorted(kind.dated))}"
        )
    return Hardware(
        name=name,
        gpu=kind.gpu,
        gpus_per_node=kind.gpus_per_node,
        nodes_per_domain=kind.nodes_per_domain,
        power_kw_per_gpu=kind.dated[chosen].power_kw_per_gpu,
        usd_per_gpu_h=kind.dated[chosen].usd_per_gpu_h,
        constants_date=chosen,
        source=f"{kind.source} ({file})" if file else kind.source,
        caveats=kind.dated[chosen].caveats,
    )


def with_caveats(stored: Hardware) -> Hardware:
    """Returns constants that a sweep stored with what is said of them today, where they are built-in ones."""
    kind = _built_in().get(stored.name)
    priced = None if kind is None else kind.dated.get(stored.constants_date)
    if stored.caveats or kind is None or priced is None or kind.source != stored.source:
        return stored
    return replace(stored, caveats=priced.caveats)


def power_limits_w(
    gpus: Sequence[GpuCondition], source: PowerSource | None, rack: str | None = None
) -> dict[str, float]:
    """Returns by name the most that each metered GPU may draw for long, where it is known.

    It is the highest limit that was enforced on it, else that of its board: by the model that its driver
    names, or, where it names none, by the rack. The limits are those of GPUs alone, so there is none where a
    module is metered, nor where power is simulated.

    Args:
        gpus: the conditions of the GPUs.
        source: what they are metered by.
        rack: the name of the hardware, such as `gb200-nvl72`; None where it is not known.
    """
    if source is None or source.scope != "gpu":
        return {}
    limits = {gpu.name: gpu.power_cap_max_w or _board_limit_w(gpu.model, rack) for gpu in gpus}
    return {name: limit_w for name, limit_w in limits.items() if limit_w is not None}


def _board_limit_w(model: str | None, rack: str | None) -> float | None:
    kinds = _built_in()
    if not model:
        return kinds[rack].board_limit_w if rack is not None and rack in kinds else None
    of_model = (kind for kind in kinds.values() if kind.gpu in model.split())
    return next((kind.board_limit_w for kind in of_model), None)


def constants_file(constants: str | None) -> str | None:
    """Returns the file that `constants` names, or None where it is a date or nothing.

    Raises:
        InputError: it is neither a date nor a file that is there.
    """
    if constants is None or _DATE.fullmatch(constants):
        return None
    if not os.path.lexists(constants):
        raise InputError(
            f"hardware constants {constants!r}: neither a date such as 2026-05 nor a file that is there; a "
            "YAML file of the form of mtpbench's data/hardware.yaml is needed"
        )
    return constants


def _kinds(constants: str | None) -> Mapping[str, _Kind]:
    file = constants_file(constants)
    if file is None:
        return _built_in()
    return _read(read_input_text(Path(file), MOST_YAML_BYTES), file)


@cache
def _built_in() -> Mapping[str, _Kind]:
    return _read(resources.files("mtpbench").joinpath("data/hardware.yaml").read_text("utf-8"), _BUILT_IN)


@cache
def _read(text: str, file: str) -> Mapping[str, _Kind]:
    node = compose_yaml(text, Path(file))
    if node is None:
        raise InputError(f"{file}: empty; `source:` and `hardware:` are needed")
    top = _Place(node, file).mapping(("source", "hardware", "caveats"), optional=("caveats",))
    source = top["source"].text()
    caveats = (
        {date: place.texts() for date, place in _dated(top["caveats"]).items()} if "caveats" in top else {}
    )
    return {
        name: _kind(place, source, caveats)
        for name, place in top["hardware"].entries("a name such as b200").items()
    }


def _dated(place: _Place) -> dict[str, _Place]:
    dated = place.entries("a date such as 2026-05")
    for date, of_date in dated.items():
        if not _DATE.fullmatch(date):
            of_date.refuse("is not a date such as 2026-05")
    return dated


def _kind(place: _Place, source: str, caveats: Mapping[str, _Caveats]) -> _Kind:
    fields = place.mapping(_KINDS, optional=("source", "board_limit_w"))
    limit = None
    if "board_limit_w" in fields and not fields["board_limit_w"].is_null:
        limited = fields["board_limit_w"].mapping(("watts", "source"))
        limited["source"].text()
        limit = limited["watts"].number()
    dated = _dated(fields["constants"])
    return _Kind(
        gpu=fields["gpu"].text(),
        gpus_per_node=fields["gpus_per_node"].count(),
        nodes_per_domain=fields["nodes_per_domain"].count(),
        source=fields["source"].text() if "source" in fields else source,
        board_limit_w=limit,
        dated={date: _priced(priced, caveats.get(date, {})) for date, priced in dated.items()},
    )


def _priced(place: _Place, caveats: _Caveats) -> _Priced:
    fields = place.mapping(("power_kw_per_gpu", "usd_per_gpu_h", "caveats"), optional=("caveats",))
    prices = {
        tier: price.number_or_none()
        for tier, price in fields["usd_per_gpu_h"].entries("a tier", empty=True).items()
    }
    own = fields["caveats"].texts(("power", "price", *prices)) if "caveats" in fields else {}
    joined = {
        about: "; ".join(filter(None, (own.get(about), caveats.get(about))))
        for about in dict.fromkeys((*caveats, *own))
    }
    return _Priced(
        power_kw_per_gpu=fields["power_kw_per_gpu"].number_or_none(), usd_per_gpu_h=prices, caveats=joined
    )


@dataclass(frozen=True)
class _Place:
    """A place is a node of a constants file with its line and key, which error messages name."""

    node: yaml.Node
    file: str
    key: str = ""
    line: int = 1

    def refuse(self, message: str) -> NoReturn:
        key = f"{self.key}: " if self.key else ""
        raise InputError(f"{self.file}:{self.line}: {key}{message}")

    @property
    def is_null(self) -> bool:
        return self.node.tag == "tag:yaml.org,2002:null"

    def entries(self, of: str, empty: bool = False) -> dict[str, _Place]:
        """Returns the values of a mapping by key, whatever the keys are."""
        if not isinstance(self.node, yaml.MappingNode):
            self.refuse(f"a mapping by {of} is needed")
        places: dict[str, _Place] = {}
        for key_node, value in self.node.value:
            name = self._written(key_node)
            key = f"{self.key}.{name}" if self.key else name
            place = _Place(value, self.file, key, key_node.start_mark.line + 1)
            if name in places:
                place.refuse("is given twice")
            places[name] = place
        if not places and not empty:
            self.refuse(f"is empty; at least {of} is needed")
        return places

    def mapping(self, keys: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, _Place]:
        """Returns the values of a mapping that has these keys and no others."""
        places = self.entries(", ".join(name for name in keys if name not in optional))
        for name, place in places.items():
            if name not in keys:
                place.refuse(f"unknown key; valid: {', '.join(keys)}")
        if missing := [name for name in keys if name not in places and name not in optional]:
            self.refuse(f"{' and '.join(missing)} missing; needed: {', '.join(keys)}")
        return places

    def texts(self, keys: tuple[str, ...] = ()) -> dict[str, str]:
        """Returns the texts of a mapping by key; where keys are given, it has no others."""
        places = self.mapping(keys, keys) if keys else self.entries("power, price or a tier")
        return {key: place.text() for key, place in places.items()}

    def text(self) -> str:
        """Returns a scalar as it is written."""
        if not isinstance(self.node, yaml.ScalarNode) or self.is_null or not self.node.value.strip():
            self.refuse("a text is needed")
        return self._written(self.node)

    def _written(self, node: yaml.Node) -> str:
        """Returns the text of a scalar as it stands in the file."""
        if not isinstance(node, yaml.ScalarNode):
            self.refuse("a key is a text, not a list or a mapping")
        try:
            return clean_text(node.value)
        except ValueError as error:
            self.refuse(str(error))

    def number(self) -> float:
        """Returns a number above 0."""
        text = self.text()
        assert isinstance(self.node, yaml.ScalarNode)
        try:
            value = scalar_value(self.node)
        except ValueError:
            value = None
        if not isinstance(value, int | float) or not 0 < value < _MOST:
            self.refuse(f"{text[:40]} is not a number above 0 and below {_MOST:,}")
        return float(value)

    def number_or_none(self) -> float | None:
        """Returns a number above 0, or None where nothing stands there."""
        return None if self.is_null else self.number()

    def count(self) -> int:
        """Returns a whole number above 0."""
        value = self.number()
        if value != int(value):
            self.refuse(f"{self.text()} is not a whole number above 0")
        return int(value)
