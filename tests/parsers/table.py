"""Prints what the releases say of the shipped sweeps' command lines, as a table in Markdown.

    python tests/parsers/prepare.py -- python tests/parsers/table.py [--all]

`--all` prints the sweeps of the tests too. Lines are counted as often as a sweep starts them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mtpbench.parsers import Verdict
from parsers.releases import RELEASES, SHIPPED, SWEEPS, Release, own_version, verdicts_of

HEADINGS = ("sweep", "release", "asked", "lines", "accepted", "refused", "not asked", "deprecated, by prefix")
READ = "tensorrt-llm: read, not run (tests/parsers/trtllm_options.yaml)"


def main(words: Sequence[str]) -> None:
    """Ask all releases, and print a row for each sweep and release."""
    if unknown := [word for word in words if word != "--all"]:
        sys.exit(f"unknown word {unknown[0]!r}; usage: table.py [--all]")
    shown = SWEEPS if words else SHIPPED
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * 3}{'---:|' * 5}")
    for path in (path for path in SWEEPS if path in shown):
        releases = [release for release in RELEASES if path in release.sweeps]
        if not releases:
            print(f"| `{path.stem}` | {READ} |{' – |' * 6}")
        for release in releases:
            print(f"| {' | '.join(row(path, release, verdicts_of(release)[path]))} |")


def row(path: Path, release: Release, verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """One row of the table."""
    states = Counter(verdict.state for verdict in verdicts)
    warned = sum(any(f.kind in ("deprecated", "by_prefix") for f in verdict.findings) for verdict in verdicts)
    versions = dict(item for verdict in verdicts for item in verdict.versions.items())
    own = " (its own)" if own_version(path) == release.version else ""
    return (
        f"`{path.stem}`",
        ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + own,
        " → ".join(max((verdict.stages for verdict in verdicts), key=len)),
        str(len(verdicts)),
        *(str(states[state]) for state in ("accepted", "refused", "not_asked")),
        str(warned),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
