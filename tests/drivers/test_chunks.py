"""What counts as a token, and how failures inside a stream are read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.drivers.chunks import error_message, read_chunk
from kvbench.drivers.sse import Event


def read(value: Any, name: str = "") -> Any:
    return read_chunk(Event(name, value if isinstance(value, bytes) else json.dumps(value).encode(), 0))


@pytest.mark.parametrize(
    ("choice", "has_token", "content"),
    [
        ({"text": "a"}, True, "a"),
        ({"text": "\n"}, True, "\n"),
        ({"text": ""}, False, ""),
        ({"delta": {"role": "assistant"}}, False, ""),
        ({"delta": {"role": "assistant", "content": ""}}, False, ""),
        ({"delta": {"role": "assistant", "content": None}}, False, ""),
        ({"delta": {"content": "a"}}, True, "a"),
        ({"delta": {"reasoning_content": "hm"}}, True, ""),
        ({"delta": {"reasoning": "hm"}}, True, ""),
        ({"delta": {"reasoning_content": ""}}, False, ""),
        ({"delta": {"tool_calls": [{"function": {"name": "f"}}]}}, True, ""),
        ({"delta": {"tool_calls": []}}, False, ""),
        ({"delta": {}, "finish_reason": "stop"}, False, ""),
        ({"delta": None}, False, ""),
    ],
)
def test_tokens(choice: dict[str, Any], has_token: bool, content: str) -> None:  # noqa: FBT001 - a table's column
    chunk = read({"choices": [choice]})
    assert (chunk.has_token, chunk.content) == (has_token, content)


def test_usage_chunk() -> None:
    chunk = read({"model": "m", "choices": [], "usage": {"prompt_tokens": 3}, "kvbench": {"overrun_s": 0.1}})
    assert (chunk.usage, chunk.server, chunk.model) == ({"prompt_tokens": 3}, {"overrun_s": 0.1}, "m")
    assert not chunk.has_token


def test_done() -> None:
    assert read(b"[DONE]").is_done


@pytest.mark.parametrize(
    ("value", "name", "message"),
    [
        ({"error": {"message": "out of memory", "code": 500}}, "", "out of memory"),
        ({"error": "busy"}, "", "busy"),
        ({"object": "error", "message": "old style"}, "", "old style"),
        ({"detail": "by name"}, "error", "by name"),
        (b"plain words", "error", "plain words"),
        (b"{broken", "", "malformed JSON in the stream: {broken"),
        (b"\xff\xfe", "", "malformed JSON in the stream: \ufffd\ufffd"),
        (b"[1]", "", "malformed JSON in the stream: [1]"),
    ],
)
def test_errors(value: Any, name: str, message: str) -> None:
    assert read(value, name).error == message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "text", "error", "message", "usage", "object", "finish_reason"]), inner
        )
    ),
)


@settings(deadline=None)
@given(JSON, st.sampled_from(["", "error"]))
def test_nothing_that_a_server_says_is_a_traceback(value: Any, name: str) -> None:
    chunk = read(value, name)
    assert chunk.error is None or isinstance(chunk.error, str)


def test_bottomless_nesting_is_malformed() -> None:
    assert read(b"[" * 100_000).error.startswith("malformed JSON")


def test_lone_surrogates() -> None:
    assert read(b'{"error": "\\ud800"}').error == "\ud800"


def test_null_error_is_none() -> None:
    assert read({"error": None, "choices": [{"text": "a"}]}).error is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no such model"}}', "no such model"),
        (b'{"detail": [{"msg": "missing"}]}', '[{"msg": "missing"}]'),
        (b"<html>\n  <b>Bad Gateway</b>", "<html> <b>Bad Gateway</b>"),
        (b"x" * 1000, "x" * 297 + "..."),
        (b"", ""),
    ],
)
def test_error_message(body: bytes, message: str) -> None:
    assert error_message(body) == message
