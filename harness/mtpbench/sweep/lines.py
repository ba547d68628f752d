"""YAML that remembers its lines, so that every message about a sweep can say where.

YAML 1.2 booleans only (`true`, `false`): under PyYAML's 1.1 rules an arm called `off` would be False.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mtpbench.errors import SweepError

KeyPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    pass


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


class LinedYaml:
    """A YAML document as plain data, with the line of every key.

    Args:
        data: mappings, lists and scalars.
        lines: 1-based line by key path; a list item's path ends in its index.
        path: the file it came from.
    """

    def __init__(self, data: Mapping[str, Any], lines: Mapping[KeyPath, int], path: Path) -> None:
        self.data, self.lines, self.path = data, lines, path

    def line(self, where: KeyPath) -> int | None:
        """The line of a key path, or of the nearest thing that encloses it."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where)


def read_yaml(path: Path) -> LinedYaml:
    """The document in `path`, which must be a mapping.

    Raises:
        SweepError: the file is missing, is not YAML, repeats a key, or is not a mapping.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise SweepError("there is no such file", path=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"can't be read ({error})", path=path) from error
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        data = _construct(node, loader, (), lines, path) if node is not None else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise SweepError(f"not YAML: {error.problem}", path=path, line=line) from error
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        raise SweepError(
            "a sweep is a mapping of keys such as `sweep:`, `engine:`, `arms:`", path=path, line=1
        )
    return LinedYaml(data, lines, path)


def _construct(
    node: yaml.Node, loader: _Loader, where: KeyPath, lines: dict[KeyPath, int], path: Path
) -> Any:
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in mapping:
                raise SweepError(f"the key {key!r} is given twice", path=path, line=line, key=dotted(where))
            lines[(*where, key)] = line
            mapping[key] = _construct(value_node, loader, (*where, key), lines, path)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, loader, (*where, i), lines, path) for i, item in enumerate(node.value)]
    return loader.construct_object(node)


def dotted(where: KeyPath) -> str:
    """A key path for people: `topologies[2].concurrency`."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")
