"""llama.cpp's server, built from the pinned source distribution of llama-cpp-python, which carries it."""

from __future__ import annotations

import os
import platform
import shutil
import tarfile
from pathlib import Path

from engines.setup.cache import cached, call, make_environment

REQUIREMENTS = Path(__file__).resolve().parents[3] / "requirements"
TOOLS, SOURCE = REQUIREMENTS / "llama-build.lock", REQUIREMENTS / "llama-cpp.lock"

OPTIONS = (
    "CMAKE_BUILD_TYPE=Release",
    # The kernels (C) decide the speed of a model this small; the rest of the server need not be fast.
    "CMAKE_C_FLAGS_RELEASE=-O2 -DNDEBUG",
    "CMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG",
    "BUILD_SHARED_LIBS=OFF",
    # A cache may be shared by machines with other processors.
    "GGML_NATIVE=OFF",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
    "LLAMA_BUILD_APP=OFF",
    "LLAMA_BUILD_UI=OFF",
    "LLAMA_USE_PREBUILT_UI=OFF",
    "LLAMA_OPENSSL=OFF",
    "LLAMA_ALL_WARNINGS=OFF",
    # Without these cmake asks git, and finds the revision of whatever holds the cache.
    "LLAMA_BUILD_NUMBER=1",
    "LLAMA_BUILD_COMMIT=sdist",
)


def build_llama_server() -> Path:
    """The program `llama-server`, built now (5 to 10 minutes on 2 cores) unless it was before.

    Needs a C++ compiler; cmake and ninja come from the package index.

    Raises:
        BuildError: a step failed; with the end of its log.
    """
    machine = f"{platform.system()} {platform.machine()}"
    ingredients: list[str | bytes] = [TOOLS.read_bytes(), SOURCE.read_bytes(), machine, *OPTIONS]
    return cached("llama-server", ingredients, _build) / "llama-server"


def _build(folder: Path) -> None:
    log, work = folder / "build.log", folder / "work"
    work.mkdir()
    python = make_environment(work / "tools", log)
    call((python, "-m", "pip", "install", "-q", "--require-hashes", "-r", TOOLS), log)
    # pip wants to see a source distribution's metadata even to download it: hence the build backend in TOOLS.
    alone = ("--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--require-hashes")
    call((python, "-m", "pip", "download", "-q", *alone, "-r", SOURCE, "-d", work), log)
    (archive,) = work.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(work, filter="data")
    tools = python.parent
    path = {"PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"}
    source = work / archive.name.removesuffix(".tar.gz") / "vendor" / "llama.cpp"
    options = [f"-D{option}" for option in OPTIONS]
    call((tools / "cmake", "-S", source, "-B", work / "build", "-G", "Ninja", *options), log, path)
    call((tools / "ninja", "-C", work / "build", "llama-server"), log, path)
    shutil.move(work / "build" / "bin" / "llama-server", folder / "llama-server")
    shutil.rmtree(work)
