"""Redaction: no text holds a secret, whole, cut, spelled otherwise or in a URL; and other texts stay."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtpbench.redaction import LEAST_PART, Secrets, bare_secret, looks_secret, without_credentials

KEY = "sk-0123456789-abcdefghij-THE-REST"
WORDS = st.text(st.characters(codec="utf-8", exclude_characters=KEY + "*/@:"), max_size=40)


def secrets(**more: str) -> Secrets:
    return Secrets.known(
        {"KEY_OF_MINE": KEY, "MODELS": "/models", "N": "8", **more}, ["KEY_OF_MINE", "MODELS", "N"]
    )


@given(WORDS, WORDS, st.integers(0, len(KEY)), st.integers(0, len(KEY)))
def test_no_part_of_a_key_that_tells_something_stays(before: str, after: str, first: int, last: int) -> None:
    """Its beginning or its end anywhere, and shorter parts at the edges of a text."""
    hidden = secrets().hide(f"{before}{KEY[:first]}{after}")
    assert KEY[:LEAST_PART] not in hidden
    hidden = secrets().hide(f"{before}{KEY[last:]}{after}")
    assert KEY[-LEAST_PART:] not in hidden
    if first >= 3:
        assert not secrets().hide(before + KEY[:first]).endswith(KEY[:3])


@given(st.text(st.characters(codec="utf-8"), min_size=4, max_size=30), WORDS, WORDS)
def test_a_key_of_any_characters_is_found_in_every_spelling(key: str, before: str, after: str) -> None:
    known = Secrets.known({"ANY": key + "x1"}, ["ANY"])
    for spelling in (key + "x1", quote(key + "x1", safe=""), json.dumps(key + "x1")[1:-1]):
        assert spelling not in known.hide(f"{before} {spelling} {after}").replace("@{env:ANY}", "").replace(
            "***", ""
        )


@given(st.text(st.sampled_from("sk-0123* \\n"), max_size=60))
def test_hiding_ends_and_twice_is_once(text: str) -> None:
    known = Secrets.known({"K": "sk-0123sk-0123", "L": "********************"}, ["K", "L"])
    once = known.hide(text)
    assert len(once) <= 4 * len(text) + 40
    assert "sk-0123sk" not in known.hide(once)


def test_a_named_path_gives_its_placeholder_and_leaves_its_neighbours_alone() -> None:
    known = secrets()
    assert known.hide("no /models/dsv4 here, /modern is") == "no @{env:MODELS}/dsv4 here, /modern is"
    assert known.hide("8 of 88") == "8 of 88"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("http://user:p@ss@host:80/x", "http://***@host:80/x"),
        ("redis://:pw@h", "redis://***@h"),
        ("https://token@github.com/x", "https://***@github.com/x"),
        ("http://host:80/a@b?c=d@e", "http://host:80/a@b?c=d@e"),
        ("mail me@here.org", "mail me@here.org"),
        ("a=http://u:p@h,b=http://v:q@i", "a=http://***@h,b=http://***@i"),
    ],
)
def test_urls_lose_user_and_password(text: str, left: str) -> None:
    assert without_credentials(text) == left


def test_the_password_of_a_proxy_is_a_secret_of_its_own() -> None:
    known = Secrets.known({"HTTPS_PROXY": "http://me:hunter%212222@proxy:80"})
    assert known.hide("407 for hunter!2222, hunter%212222") == "407 for ***, ***"


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "SLURM_JWT", "VLLM_API_KEY", "api-key", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "MYTOKEN"],
)
def test_names_that_look_secret(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "KEYBOARD", "max-num-batched-tokens", "AUTHOR", "PWD"]
)
def test_names_that_do_not(name: str) -> None:
    assert not looks_secret(name)


def test_the_path_of_a_key_is_no_secret() -> None:
    """A log that can't name files any more helps nobody."""
    known = Secrets.known({"SSH_AUTH_SOCK": "/tmp/agent.12", "CREDENTIALS_FILE": "/home/me/credentials.json"})
    assert known.hide("/tmp/agent.12 /home/me/credentials.json") == "/tmp/agent.12 /home/me/credentials.json"


def test_bytes_that_are_no_text_stay_as_they_are() -> None:
    assert secrets().hide_bytes(b"\xff\x80 " + KEY.encode() + b" \xfe") == b"\xff\x80 @{env:KEY_OF_MINE} \xfe"


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"engine": {"env": {"all": {"HF_TOKEN": "hf_abcdefgh"}}}}, ("engine", "env", "all", "HF_TOKEN")),
        ({"flags": {"api-key": "sk-0123456789"}}, ("flags", "api-key")),
        ({"flags": {"a": {"AWS_SECRET_ACCESS_KEY": "wJalrX"}}}, ("flags", "a", "AWS_SECRET_ACCESS_KEY")),
        ({"command": ["docker", "-e", "MY_PASSWORD=hunter2"]}, ("command", 2)),
        ({"command": ["serve", "--api-key", "sk-0123"]}, ("command", 2)),
        ({"command": ["serve", "--api-key=sk-0123"]}, ("command", 1)),
        ({"env": {"https_proxy": "http://me:12345@proxy:80"}}, ("env", "https_proxy")),
        ({"evaluate": "score --url=http://me:pw@host/v1"}, ("evaluate",)),
    ],
)
def test_a_secret_in_a_file_is_found_where_it_stands(data: dict[str, object], where: tuple[str]) -> None:
    found = bare_secret(data)
    assert found is not None
    assert found[0] == where
    assert "@{env:" in found[1]


@pytest.mark.parametrize(
    "data",
    [
        {"HF_TOKEN": "@{env:HF_TOKEN}", "api-key": "@{env:K}", "P": "http://u:@{env:P}@proxy:80"},
        {"OPENAI_API_KEY": "EMPTY", "api-key": "dummy", "API_KEY": "", "password": None},
        {"api_key_env": "NAME", "SSL_KEYFILE": "/k.pem", "api-key-file": "/run/k", "PRIVATE_KEY_PATH": "/k"},
        {"eos-token": "<|im_end|>", "image-token": "<image>", "tokenizer": "a/b", "auth-type": "basic"},
        {"hash-key": "sha256", "routing-key": "prefix", "max-num-batched-tokens": "8192", "key": "text"},
        {"session": "two", "secret-sharing": "on", "image": "ghcr.io/a/b@sha256:0123", "at": "a@b:c"},
        {"repository": "ssh://git@github.com/a/b", "bucket": "s3://b/k@v", "time": "http://h/a:b@c"},
        {"command": ["serve", "password", "--api-key-file", "/k", "--served-model-name", "secret"]},
    ],
)
def test_what_is_surely_no_secret_stands_in_a_file(data: dict[str, object]) -> None:
    assert bare_secret(data) is None
