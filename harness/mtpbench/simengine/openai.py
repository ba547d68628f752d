"""OpenAI's request and response forms, as vLLM answers them: pure parsing, and text ready to be sent.

Every response says `"system_fingerprint": "mtpbench-simulated"`. There is no end-of-sequence token: a
request always gets exactly its `max_tokens`, whatever `ignore_eos` says.
"""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson

FINGERPRINT = "mtpbench-simulated"
HEADERS = {"X-Simulated": FINGERPRINT}
_DEFAULT_MAX_TOKENS = 16
_WORDS = ("at", "hest", "le", "sein", "or", "era", "thest", "on")
_FILLER = tuple("".join(" " + w for w in itertools.islice(itertools.cycle(_WORDS), n)) for n in range(65))
_TEXT = (',"choices":[{"index":0,"text":"', '",')
_CHAT_TEXT = (',"choices":[{"index":0,"delta":{"content":"', '"},')
_TAIL = f',"system_fingerprint":"{FINGERPRINT}"}}\n\n'
_IDS = itertools.count()
_RUN = secrets.token_hex(4)


class RequestError(Exception):
    """A request error is answered with an error body."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.param = status, kind, message, param

    @property
    def body(self) -> bytes:
        """Returns the JSON body that OpenAI's clients expect."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}
        return json.dumps({"error": error}).encode()


def bad_request(message: str, param: str | None = None) -> RequestError:
    """Returns an error of status 400."""
    return RequestError(400, "BadRequestError", message, param)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionRequest:
    """A completion request says how many tokens the prompt has, how many to generate, and how to answer."""

    chat: bool
    prompt_tokens: int
    max_tokens: int
    stream: bool
    include_usage: bool
    continuous_usage: bool


def parse_request(raw: bytes, *, chat: bool, model: str, max_model_len: int) -> CompletionRequest:
    """Parses the body of a completion request.

    Raises:
        RequestError: the JSON, the model, a field or the length is wrong.
    """
    try:
        body = orjson.loads(raw)
    except ValueError as error:
        raise bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise bad_request("the body is not a JSON object")
    if body.get("model", model) != model:
        message = f"The model `{body['model']}` does not exist. Valid aliases: {model}."
        raise RequestError(404, "NotFoundError", message, "model")
    prompt_tokens = _count_messages(body) if chat else _count_prompt(body)
    max_tokens = _max_tokens(body)
    if prompt_tokens + max_tokens > max_model_len:
        raise bad_request(
            f"{prompt_tokens} prompt tokens and max_tokens={max_tokens} are more than "
            f"max_model_len={max_model_len}. Please shorten the prompt or request fewer output tokens.",
            "max_tokens",
        )
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise bad_request("stream_options is not an object", "stream_options")
    return CompletionRequest(
        chat=chat,
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        stream=bool(body.get("stream", False)),
        include_usage=bool(options.get("include_usage", False)),
        continuous_usage=bool(options.get("continuous_usage_stats", False)),
    )


def _max_tokens(body: Mapping[str, Any]) -> int:
    value = body.get("max_completion_tokens") or body.get("max_tokens", _DEFAULT_MAX_TOKENS)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise bad_request(f"max_tokens must be a whole number of at least 1, not {value!r}", "max_tokens")
    return value


def _count_prompt(body: Mapping[str, Any]) -> int:
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        count = len(prompt.split())
    elif isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
        count = len(prompt)
    elif isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        return _count_prompt({"prompt": prompt[0]})
    elif isinstance(prompt, list) and prompt and all(isinstance(text, str) for text in prompt):
        count = sum(len(text.split()) for text in prompt)
    else:
        raise bad_request("prompt must be a string, a list of strings or a list of token ids", "prompt")
    if not count:
        raise bad_request("the prompt is empty", "prompt")
    return count


def _count_messages(body: Mapping[str, Any]) -> int:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages must be a list with at least one message", "messages")
    count = 0
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if not isinstance(content, str):
            raise bad_request("a message needs a content, a string or a list of text parts", "messages")
        count += len(content.split())
    if not count:
        raise bad_request("the messages are empty", "messages")
    return count


def filler(count: int) -> str:
    """Returns text of `count` words, about one per token."""
    return _FILLER[count] if count < len(_FILLER) else _FILLER[1] * count


class EventWriter:
    """An event writer makes the server-sent events of one request, from pieces that are made once.

    Args:
        request: the request to answer.
        model: the served model's name.
        usage: False leaves every usage out (a fault).
        done: False leaves [DONE] out (a fault).
    """

    __slots__ = (
        "_after_text",
        "_close",
        "_continuous",
        "_done",
        "_include",
        "_open",
        "_request",
        "_sent",
        "_start",
    )

    def __init__(
        self, request: CompletionRequest, model: str, *, usage: bool = True, done: bool = True
    ) -> None:
        self._request, self._done = request, done
        self._continuous = request.continuous_usage and usage
        self._include = request.include_usage and usage
        kind, prefix = ("chat.completion.chunk", "chatcmpl") if request.chat else ("text_completion", "cmpl")
        self._start = (
            f'data: {{"id":"{prefix}-{_RUN}{next(_IDS):08x}","object":"{kind}",'
            f'"created":{int(time.time())},"model":{_quote(model)}'
        )
        opening, self._close = _CHAT_TEXT if request.chat else _TEXT
        self._open = self._start + opening
        self._after_text = self._close + '"logprobs":null,"finish_reason":null}]'
        self._sent = 0

    def tokens(self, cumulative: int, *, last: bool) -> bytes:
        """Returns the event that brings the request to `cumulative` tokens; the last one ends the stream."""
        first = self._request.chat and not self._sent
        text, self._sent = filler(cumulative - self._sent), cumulative
        usage = self._usage(cumulative) if self._continuous else ""
        if not last and not first:
            return f"{self._open}{text}{self._after_text}{usage}{_TAIL}".encode()
        finish = '"length"' if last else "null"
        event = f'{self._open}{text}{self._close}"logprobs":null,"finish_reason":{finish}}}]{usage}{_TAIL}'
        if first:
            event = self._role_event() + event
        return (event + self._end(cumulative)).encode() if last else event.encode()

    def _usage(self, tokens: int) -> str:
        prompt = self._request.prompt_tokens
        total = prompt + tokens
        return f',"usage":{{"prompt_tokens":{prompt},"total_tokens":{total},"completion_tokens":{tokens}}}'

    def _role_event(self) -> str:
        choices = ',"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
        usage = self._usage(0) if self._continuous else ""
        return f'{self._start}{choices}"finish_reason":null}}]{usage}{_TAIL}'

    def _end(self, tokens: int) -> str:
        tail = f'{self._start},"choices":[]{self._usage(tokens)}{_TAIL}' if self._include else ""
        return tail + ("data: [DONE]\n\n" if self._done else "")


@cache
def _quote(text: str) -> str:
    return json.dumps(text)


def whole_body(request: CompletionRequest, model: str, *, usage: bool = True) -> bytes:
    """Returns the answer of a request that does not stream."""
    text, n = filler(request.max_tokens), request.max_tokens
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": "length"}
    choice |= {"message": {"role": "assistant", "content": text}} if request.chat else {"text": text}
    body: dict[str, Any] = {
        "id": f"{'chatcmpl' if request.chat else 'cmpl'}-{_RUN}{next(_IDS):08x}",
        "object": "chat.completion" if request.chat else "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "system_fingerprint": FINGERPRINT,
    }
    if usage:
        p = request.prompt_tokens
        body["usage"] = {"prompt_tokens": p, "total_tokens": p + n, "completion_tokens": n}
    return json.dumps(body).encode()


def models_body(model: str, max_model_len: int, started: int) -> bytes:
    """Returns the answer of /v1/models."""
    entry = {"id": model, "object": "model", "created": started, "owned_by": FINGERPRINT, "root": model}
    return json.dumps({"object": "list", "data": [{**entry, "max_model_len": max_model_len}]}).encode()
