"""Bodies of requests: what every one of them asks for."""

from __future__ import annotations

import json

from kvbench.scenario.request_body import request_body


def test_bodies_ask_for_a_stream_with_usage_and_an_exact_answer() -> None:
    body = json.loads(request_body("m", "completions", [1, 2], 8))
    assert body["prompt"] == [1, 2]
    assert (body["max_tokens"], body["ignore_eos"], body["temperature"]) == (8, True, 0)
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    chat = json.loads(request_body("m", "chat", "hello", 8))
    assert chat["messages"] == [{"role": "user", "content": "hello"}]
    assert chat["max_completion_tokens"] == 8
