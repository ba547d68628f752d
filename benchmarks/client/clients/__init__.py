"""The clients that are compared, and those that can't be, with the reason."""

from __future__ import annotations

from clients import aiperf, guidellm, own, plain_aiohttp, vllm

CLIENTS = {module.CLIENT.name: module.CLIENT for module in (own, plain_aiohttp, vllm, aiperf, guidellm)}
NOT_AVAILABLE = {
    "SGLang's Rust client": "not on PyPI as a client that runs by itself",
    "InferenceX": "not on PyPI as a client that runs by itself",
}
