"""Each fault does what `emulator_faults.FAULTS` says, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from kvbench.emulator.faults import Faults
from kvbench.emulator_faults import FAULTS
from tests.builders.emulator_server import MODEL, Server, g4, running
from tests.builders.patience import PATIENCE_S, wait_until
from tests.builders.virtual_world import words

BODY = {"prompt": words(160), "max_tokens": 3, "stream_options": {"include_usage": True}}


def events_of(*arguments: str) -> list[str]:
    with running(*arguments) as server:
        return server.stream("/v1/completions", BODY)


def open_stream(server: Server, silence_s: float = PATIENCE_S) -> list[str]:
    """Return the events up to where the connection breaks."""
    found = []
    body = {"model": MODEL, "stream": True, **BODY}
    timeout = httpx.Timeout(PATIENCE_S, read=silence_s)
    try:
        with server.http.stream("POST", f"{server.root}/v1/completions", json=body, timeout=timeout) as answer:
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
        assert open_stream(server, silence_s=0.5) == ["ReadTimeout"]


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


def test_reset_keeps_offload(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t"), "--g1", "1GB", "--g2", "1GB", "--fault", "reset_keeps_offload") as server:
        server.cached(words(160))
        assert server.reset(external=True)
        assert server.complete(words(160))["kvbench"]["tier_tokens"] == {"g2": 144}


def test_counters_of_another_worker_move_without_requests() -> None:
    with running("--fault", "counters_other_worker") as server:
        before = server.metrics()
        server.complete(words(160))
        name = "vllm:prefix_cache_hits_total"
        wait_until(lambda: server.metrics()[name] > before[name], "its counters move")
        after = server.metrics()
        assert after.keys() == before.keys()
        assert all(after[name] >= before[name] for name in before if name.endswith("_total"))
        assert after["vllm:prompt_tokens_total"] - before["vllm:prompt_tokens_total"] != 160
        assert after["vllm:cache_config_info{block_size=16,enable_prefix_caching=True}"] == 1


def test_lookups_as_hits(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t"), "--fault", "lookups_as_hits") as server:
        assert server.cached(words(160)) == 0
        found = server.metrics()
        assert found["vllm:prefix_cache_hits_total"] == found["vllm:external_prefix_cache_hits_total"] == 160


@pytest.mark.parametrize(("fault", "told"), [("cached_tokens_high", [160, 160]), ("cached_tokens_low", [0, 80])])
def test_cached_tokens_that_are_not_so(fault: str, told: list[int]) -> None:
    with running("--g1", "1GB", "--fault", fault) as server:
        assert [server.cached(words(170)) for _ in range(2)] == told
        assert server.metrics()["vllm:prefix_cache_hits_total"] == 160


def test_role_only_first_chunk() -> None:
    messages = [{"role": "user", "content": words(160)}]
    with running("--fault", "role_only_first_chunk") as server:
        events = server.stream("/v1/chat/completions", {"messages": messages, "max_tokens": 2})
    first, *content = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert first == {"role": "assistant"}
    assert all(delta["content"] for delta in content)
    assert len(content) == 2


@pytest.mark.parametrize(("fault", "told"), [("truncated_prompt", 80), ("truncated_prompt_hidden", 160)])
@pytest.mark.parametrize("prompt", [words(160), list(range(160))], ids=["text", "ids"])
def test_truncated_prompt(fault: str, told: int, prompt: object) -> None:
    with running("--fault", fault) as server, running() as honest:
        value = server.complete(prompt)
        assert value["usage"]["prompt_tokens"] == told
        assert server.metrics()["vllm:prompt_tokens_total"] == 80
        half = words(160).split()[:80] if isinstance(prompt, str) else list(range(80))
        seen = honest.complete(" ".join(map(str, half)) if isinstance(prompt, str) else half)
        assert value["choices"] == seen["choices"]


def test_other_model() -> None:
    with running("--fault", "other_model") as server, running() as honest:
        values = [one.complete(words(160)) for one in (server, honest)]
        assert [value["model"] for value in values] == ["another-model", MODEL]
        assert values[0]["choices"][0]["text"] != values[1]["choices"][0]["text"]
        event = server.stream("/v1/completions", BODY)[0]
        assert json.loads(event)["model"] == "another-model"


def test_admit_after_9(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t"), "--fault", "admit_after_9") as server:
        assert [server.cached(words(160)) for _ in range(10)] == [0] * 9 + [144]
        assert server.get("/kvbench/info").json()["store"]["admit_after_hits"] == 1  # as it was set


def test_late_write_back_is_nowhere_to_be_seen(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t"), "--fault", "late_write_back") as server:
        assert [server.cached(words(160)) for _ in range(2)] == [0, 0]  # both settle at once
        assert server.reset(external=True)
        assert server.get("/kvbench/info").json()["store"]["delay_s"] == 0.0  # as it was set
        assert not list((tmp_path / "t").glob("*.kv"))


def test_a_corrupt_file_is_found_and_one_that_nobody_checks_turns_the_answer_wrong(tmp_path: Path) -> None:
    for fault in ("corrupt_file", "corrupt_file_served"):
        with running(*g4(tmp_path / fault), "--fault", fault) as server:
            cold = server.complete(words(160))["choices"][0]["text"]
            server.settle()
            warm = server.complete(words(160))
            found = server.metrics()
            served = fault == "corrupt_file_served"
            assert warm["usage"]["prompt_tokens_details"]["cached_tokens"] == (144 if served else 0)
            assert (warm["choices"][0]["text"] != cold) == served
            assert found["kvbench:tier_bad_files_total{reason=checksum,tier=g4}"] == (0 if served else 1)


def test_every_second_file_is_corrupt(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t"), "--fault", "corrupt_file", "--fault-every", "2", "--io-threads", "1") as server:
        server.cached(words(2000))  # five files
        server.cached(words(2000))
        assert server.metrics()["kvbench:tier_bad_files_total{reason=checksum,tier=g4}"] == 2


def test_tier_full(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t"), "--g2", "1GB", "--fault", "tier_full") as server:
        assert server.cached(words(160)) == 0
        assert server.metrics()["kvbench:tier_write_errors_total{reason=no_space,tier=g4}"] == 1
        assert not list((tmp_path / "t").glob("*.kv"))
        assert server.complete(words(160))["kvbench"]["tier_tokens"] == {"g2": 144}  # memory is not a disk


def test_help_and_documentation_name_every_fault() -> None:
    told = Path("docs/emulator.md").read_text()
    assert [name for name in FAULTS if f"`{name}`" not in told] == []
