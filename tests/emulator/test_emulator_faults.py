"""Each fault does what `faults.FAULTS` says, and nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest

from kvbench.emulator.faults import FAULTS, Faults
from tests.emulator.emulator_server import MODEL, Server, g4, running
from tests.emulator.virtual_world import words

if TYPE_CHECKING:
    from pathlib import Path

BODY = {"prompt": words(160), "max_tokens": 3, "stream_options": {"include_usage": True}}


def events_of(*arguments: str) -> list[str]:
    with running(*arguments) as server:
        return server.stream("/v1/completions", BODY)


def open_stream(server: Server, timeout_s: float = 30.0) -> list[str]:
    """Return the events up to where the connection breaks."""
    found = []
    body = {"model": MODEL, "stream": True, **BODY}
    try:
        with server.http.stream("POST", f"{server.root}/v1/completions", json=body, timeout=timeout_s) as answer:
            assert answer.status_code == 200
            for line in filter(None, answer.iter_lines()):
                found.append(line[6:])  # noqa: PERF401 - what came before the break counts
    except (httpx.RemoteProtocolError, httpx.ReadTimeout) as error:
        found.append(type(error).__name__)
    return found


def test_reset_keeps_blocks(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t"), "--g1", "1GB", "--fault", "reset_keeps_blocks") as server:
        server.cached(words(160))
        assert server.reset(external=True)
        assert server.cached(words(160)) == 144
        assert server.metrics()["vllm:prefix_cache_hits_total"] == 144


def test_counters_frozen() -> None:
    with running("--fault", "counters_frozen") as server:
        before = server.get("/metrics").text
        server.complete(words(160))
        assert server.get("/metrics").text == before


@pytest.mark.parametrize(("fault", "details"), [("cached_tokens_missing", None), ("cached_tokens_zero", 0)])
def test_cached_tokens(fault: str, details: int | None) -> None:
    with running("--g1", "1GB", "--fault", fault) as server:
        usages = [server.complete(words(160))["usage"] for _ in range(2)]
        assert server.metrics()["vllm:prefix_cache_hits_total"] == 144
    expected = None if details is None else {"cached_tokens": details}
    assert [usage.get("prompt_tokens_details") for usage in usages] == [expected, expected]


def test_no_streaming() -> None:
    with running("--fault", "no_streaming") as server:
        answer = server.post("/v1/completions", {"model": MODEL, "stream": True, **BODY})
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.json()["usage"]["completion_tokens"] == 3


def test_no_usage() -> None:
    events = events_of("--fault", "no_usage")
    assert events[-1] == "[DONE]"
    assert not any("usage" in event for event in events)


def test_error_chunk() -> None:
    first, error, done = events_of("--fault", "error_chunk")
    assert json.loads(first)["choices"][0]["text"]
    assert json.loads(error)["error"]["code"] == 500
    assert done == "[DONE]"


def test_cut_stream() -> None:
    with running("--fault", "cut_stream") as server:
        first, error = open_stream(server)
        assert json.loads(first)["choices"][0]["text"]
        assert error == "RemoteProtocolError"
        assert server.reset()  # its blocks are free


def test_no_done() -> None:
    events = events_of("--fault", "no_done")
    assert json.loads(events[-1])["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("status", [500, 429])
def test_http_errors(status: int) -> None:
    with running("--fault", f"http_{status}") as server:
        answer = server.post("/v1/completions", {"model": MODEL, **BODY})
        assert answer.status_code == answer.json()["error"]["code"] == status


def test_hang_sends_headers_and_then_nothing_and_still_stops() -> None:
    with running("--fault", "hang") as server:
        assert open_stream(server, timeout_s=0.5) == ["ReadTimeout"]


def test_first_chunk_empty() -> None:
    first, second, *_ = [json.loads(event) for event in events_of("--fault", "first_chunk_empty")[:-1]]
    assert first["choices"][0]["text"] == ""
    assert second["choices"][0]["text"]


def test_page_cache_serves_from_memory(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t"), "--fault", "page_cache") as server:
        prompt = words(20_000)
        server.cached(prompt)
        server.cached(prompt)
        before = storage_bytes(server.pid)
        assert server.cached(prompt) == 19_984
        assert storage_bytes(server.pid) - before < 500_000
        assert server.metrics()["kvbench:tier_read_bytes_total{tier=g4}"] > 5_000_000
        assert server.get("/kvbench/info").json()["tiers"]["g4"]["access"] == "buffered"


def storage_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/io") as file:  # noqa: PTH123 - short-lived and not a path of ours
        return int(next(line.split()[1] for line in file if line.startswith("read_bytes")))


def test_every_second_request() -> None:
    with running("--fault", "http_500", "--fault-every", "2") as server:
        assert [server.post("/v1/completions", BODY).status_code for _ in range(4)] == [200, 500, 200, 500]


def test_faults_of_the_server_hold_beside_those_of_requests() -> None:
    faults = Faults(frozenset({"hang", "counters_frozen"}), every=3)
    assert [bool(faults.of_next_request()) for _ in range(6)] == [False, False, True] * 2
    assert "counters_frozen" in faults
    assert all(FAULTS.values())
