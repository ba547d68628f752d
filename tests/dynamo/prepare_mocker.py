"""Sets up Dynamo's frontend and mocker for `make test-dynamo`, then runs a command that finds them.

    python tests/dynamo/prepare_mocker.py [-- COMMAND …]

Everything lands in `$MTPBENCH_CACHE` (by default `mtpbench` in the user's cache folder) and is made once.
COMMAND finds it by these variables; without a COMMAND they are printed.

    MTPBENCH_DYNAMO_PYTHON  interpreter of an environment with ai-dynamo
    MTPBENCH_DYNAMO_MODEL   folder of a tokenizer for the mocker to serve

COMMAND also gets what keeps Dynamo off the network (`OFFLINE`).
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mocker_tokenizer import write_model

from engines.setup import vocabulary
from engines.setup.cache import BuildError, cache_root, cached, call, make_environment

HERE = Path(__file__).resolve().parent
LOCK = HERE.parents[1] / "requirements" / "dynamo.lock"
OFFLINE = {"HF_HUB_OFFLINE": "1", "DYN_TCP_RESPONSE_STREAM_HOST": "lo"}
"""Nothing is looked up on the hub; answers come back over the loopback interface (a name, not an address)."""


def install_dynamo() -> Path:
    """The interpreter of an environment with ai-dynamo, made now (1 to 2 minutes) unless it is there.

    Raises:
        BuildError: a step failed; with the end of its log.
    """
    python = f"{platform.python_version()} {platform.system()} {platform.machine()}"
    return cached("dynamo", [LOCK.read_bytes(), python], _install) / "bin" / "python"


def craft_model() -> Path:
    """The folder of the tokenizer, written in a second unless it is there."""
    sources = (HERE / "mocker_tokenizer.py", Path(vocabulary.__file__))
    return cached("dynamo-model", [source.read_bytes() for source in sources], write_model)


def _install(folder: Path) -> None:
    log = folder / "install.log"
    python = make_environment(folder, log)
    call((python, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "-r", LOCK), log)
    call((python, "-c", "import dynamo.frontend, dynamo.mocker"), log)


def main(words: Sequence[str]) -> None:
    """Prepare, then become the command."""
    if words and words[0] != "--":
        sys.exit(f"unknown word {words[0]!r}; usage: prepare_mocker.py [-- COMMAND …]")
    print(f"setting up ai-dynamo in {cache_root()}, unless it is there", file=sys.stderr, flush=True)
    began = time.monotonic()
    try:
        found = {
            "MTPBENCH_DYNAMO_PYTHON": str(install_dynamo()),
            "MTPBENCH_DYNAMO_MODEL": str(craft_model()),
            **OFFLINE,
        }
    except BuildError as error:
        sys.exit(f"error: {error}")
    print(f"  ready after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if command := list(words[1:]):
        os.execvpe(command[0], command, {**os.environ, **found})
    print("\n".join(f"{name}={value}" for name, value in found.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
