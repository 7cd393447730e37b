"""One record of AIPerf's raw export gives the same figures and the same status to the driver and to the importer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvbench.drivers.aiperf_export import translate
from kvbench.importers import aiperf as importer
from kvbench.importers.export import Seen

SENT_NS, START_NS = 1_795_305_029_000_000_000, 10_000_000_000
FIXTURES = Path(__file__).parents[1] / "data" / "aiperf"


def delta(finish: str | None = None, **channels: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": channels, "finish_reason": finish}]}


ROLE, REFUSAL, CONTENT, STOP = delta(role="assistant"), delta(refusal="no"), delta(content="a"), delta("stop")
USAGE = {
    "choices": [],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}},
}
DONE = "[DONE]"


def record(*messages: Any, step_s: float = 0.1, **more: Any) -> dict[str, Any]:
    """A record whose messages came `step_s` apart, the first one `step_s` after the start."""
    told = {"conversation_id": "c", "turn_index": 0, "request_start_ns": SENT_NS, "credit_issued_ns": SENT_NS}
    texts = [one if isinstance(one, str) else json.dumps(one) for one in messages]
    responses = [
        {"perf_ns": START_NS + round(place * step_s * 1e9), "packets": [{"name": "data", "value": text}]}
        for place, text in enumerate(texts, 1)
    ]
    made = {"metadata": told, "start_perf_ns": START_NS, "status": 200, "responses": responses, **more}
    return made | {"metadata": told | more.get("metadata", {})}


def imported(one: dict[str, Any], tmp_path: Path) -> Seen:
    file = tmp_path / "profile_export_raw.jsonl"
    file.write_text(json.dumps(one) + "\n")
    (part,) = importer.read(file).parts
    (request,) = part.requests.to_pylist()
    return Seen(**request)


def test_a_refusal_is_a_first_token_for_both(tmp_path: Path) -> None:
    one = record(ROLE, REFUSAL, CONTENT, STOP, USAGE, DONE)
    assert translate(one, "r").ttft_s == pytest.approx(0.2)
    assert imported(one, tmp_path).ttft_s == pytest.approx(0.2)


def test_a_stream_without_done_is_cut_for_both(tmp_path: Path) -> None:
    one = record(ROLE, CONTENT, STOP, USAGE)
    assert translate(one, "r").status == "cut"
    assert imported(one, tmp_path).status == "cut"


def failed(kind: str, *causes: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "message": f"{kind}()", "cause_chain": [kind, *causes], **more}


CASES: dict[str, dict[str, Any]] = {
    "good": record(ROLE, CONTENT, STOP, USAGE, DONE),
    "reasoning first": record(ROLE, delta(reasoning_content="hm"), CONTENT, STOP, USAGE, DONE),
    "reasoning by its other name": record(ROLE, delta(reasoning="hm"), CONTENT, STOP, USAGE, DONE),
    "a tool call": record(ROLE, delta(tool_calls=[{"function": {"name": "f"}}]), delta("tool_calls"), USAGE, DONE),
    "empty chunks": record(delta(role="assistant", content=""), delta(content=""), CONTENT, STOP, USAGE, DONE),
    "two choices": record({"choices": [{"delta": {}}, {"delta": {"content": "b"}}]}, CONTENT, STOP, USAGE, DONE),
    "no finish reason": record(CONTENT, USAGE, DONE),
    "nothing came": record(),
    "given up": record(CONTENT, delta("abort"), USAGE, DONE),
    "an error inside": record(CONTENT, {"error": {"message": "out of memory"}}, CONTENT, STOP, USAGE, DONE),
    "an error of the old style": record(CONTENT, {"object": "error", "message": "out of memory"}, DONE),
    "not JSON": record(CONTENT, "{oops", STOP, USAGE, DONE),
    "after the end": record(CONTENT, STOP, DONE, USAGE, CONTENT),
    "no usage": record(CONTENT, STOP, DONE),
    "usage that is nonsense": record(
        CONTENT, STOP, {"choices": [], "usage": {"prompt_tokens": -1, "prompt_tokens_details": "x"}}, DONE
    ),
    "500": record(status=500, error={"code": 500, "message": '{"error": {"message": "boom"}}'}),
    "429 with a body": record(status=429, error={"code": 429, "type": "Too Many Requests", "message": "slow down"}),
    "cut": record(CONTENT, error=failed("ClientPayloadError", "TransferEncodingError")),
    "disconnected": record(status=None, error=failed("ServerDisconnectedError")),
    "refused": record(status=None, error=failed("ClientConnectorError", "ConnectionRefusedError")),
    "no connection in time": record(status=None, error=failed("ConnectionTimeoutError")),
    "timeout": record(CONTENT, error=failed("TimeoutError", "CancelledError")),
    "timeout before headers": record(status=None, error=failed("SocketTimeoutError")),
    "cancelled": record(CONTENT, error=failed("RequestCancellationError", code=499), status=None),
    "cancelled by its mark": record(CONTENT, metadata={"was_cancelled": True}),
    "cancelled after it was complete": record(CONTENT, STOP, USAGE, DONE, metadata={"was_cancelled": True}),
    "a complaint about a complete answer": record(CONTENT, STOP, DONE, error=failed("InvalidInferenceResultError")),
    "broken off after it was complete": record(CONTENT, STOP, DONE, error=failed("ServerDisconnectedError")),
    "the second turn": record(CONTENT, STOP, USAGE, DONE, metadata={"turn_index": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_driver_and_importer_say_the_same(name: str, tmp_path: Path) -> None:
    one = CASES[name]
    ours, theirs = translate(one, "r"), imported(one, tmp_path)
    for column in ("status", "error", "http_status", "isl", "osl", "cached_tokens", "model"):
        assert getattr(ours, column) == getattr(theirs, column), column
    for column in ("ttft_s", "ttft_content_s", "latency_s", "send_lag_s"):
        assert getattr(ours, column) == pytest.approx(getattr(theirs, column)), column


@pytest.mark.parametrize(
    ("name", "status", "ttft_s"),
    [
        ("reasoning first", "ok", 0.2),
        ("empty chunks", "ok", 0.3),
        ("two choices", "ok", 0.1),
        ("no finish reason", "cut", 0.1),
        ("an error inside", "stream_error", 0.1),
        ("no connection in time", "refused", None),
        ("timeout", "timeout", 0.1),
        ("cancelled", "cancelled", 0.1),
        ("cancelled after it was complete", "ok", 0.1),
        ("a complaint about a complete answer", "ok", 0.1),
    ],
)
def test_what_both_say(name: str, status: str, ttft_s: float | None, tmp_path: Path) -> None:
    seen = imported(CASES[name], tmp_path)
    assert seen.status == status
    assert seen.ttft_s == pytest.approx(ttft_s)


def test_a_body_that_nobody_asked_to_stream_is_a_good_answer_without_a_first_token(tmp_path: Path) -> None:
    whole = {"model": "m", "choices": [{"text": "a b", "finish_reason": "stop"}], "usage": USAGE["usage"]}
    one = record() | {"responses": [{"perf_ns": START_NS + 500_000_000, "text": json.dumps(whole)}]}
    seen = imported(one, tmp_path)
    assert (seen.status, seen.ttft_s, seen.latency_s, seen.isl) == ("ok", None, 0.5, 7)
    asked = imported(one | {"payload": {"stream": True}}, tmp_path)
    assert (asked.status, asked.error) == ("stream_error", "answered without streaming")


def test_a_stream_of_another_api_is_judged_by_the_word_of_aiperf(tmp_path: Path) -> None:
    events = [{"type": "response.output_text.delta", "delta": "a"}, {"type": "response.completed"}]
    metrics = {"time_to_first_token": {"value": 100.0, "unit": "ms"}}
    seen = imported(record(*events, metrics=metrics), tmp_path)
    assert (seen.status, seen.ttft_s) == ("ok", 0.1)


def test_a_time_that_cannot_be_read_may_be_that_of_the_first_token(tmp_path: Path) -> None:
    one = record(ROLE, CONTENT, STOP, USAGE, DONE)
    one["responses"][1]["perf_ns"] = "soon"
    assert imported(one, tmp_path).ttft_s is None
    one = record(ROLE, CONTENT, STOP, USAGE, DONE)
    one["responses"][0]["perf_ns"] = "soon"
    assert imported(one, tmp_path).ttft_s == pytest.approx(0.2)
