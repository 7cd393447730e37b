"""The HTTP surface of a real server, without a tier."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from tests.builders.emulator_server import MODEL, Server, failure, running
from tests.builders.virtual_world import words

if TYPE_CHECKING:
    from collections.abc import Iterator

USAGE = {"stream_options": {"include_usage": True}}
MESSAGES = [{"role": "user", "content": words(20)}]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("--g1", "1GB") as started:
        yield started


def test_completion(server: Server) -> None:
    value = server.complete(words(100), tokens=3)
    (choice,) = value["choices"]
    assert (value["object"], value["model"], choice["finish_reason"]) == ("text_completion", MODEL, "length")
    assert len(choice["text"].split()) == 3
    usage = value["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (100, 3, 103)
    timing = value["kvbench"]
    assert timing["arrived_ns"] < timing["first_chunk_sent_ns"]
    assert timing["tier_read_bytes"] == timing["storage_s"] == timing["path_s"] == 0


def test_completion_stream(server: Server) -> None:
    events = server.stream("/v1/completions", {"prompt": words(100), "max_tokens": 3, **USAGE})
    assert events[-1] == "[DONE]"
    *chunks, last = [json.loads(event) for event in events[:-1]]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "length"]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3
    assert set(last["kvbench"]) == {
        *("arrived_ns", "first_chunk_sent_ns", "modelled_ttft_s", "overrun_s"),
        *("storage_s", "path_s", "tier_read_bytes", "tier_tokens"),
    }
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert text == server.complete(words(100), tokens=3)["choices"][0]["text"]


def test_chat_stream_opens_with_a_role(server: Server) -> None:
    events = server.stream("/v1/chat/completions", {"messages": MESSAGES, "max_completion_tokens": 2})
    assert events[-1] == "[DONE]"
    first, *content = [json.loads(event)["choices"][0] for event in events[:-1]]
    assert first["delta"] == {"role": "assistant", "content": ""}
    assert len(content) == 2
    assert content[-1]["finish_reason"] == "length"
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 2}
    whole = server.post("/v1/chat/completions", body).json()
    assert whole["choices"][0]["message"]["content"] == "".join(choice["delta"]["content"] for choice in content)


def test_chat_without_a_length_ends_by_itself(server: Server) -> None:
    value = server.post("/v1/chat/completions", {"messages": MESSAGES}).json()
    assert value["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("prompt", [words(32), [words(32)], list(range(32)), [list(range(32))]])
def test_forms_of_a_prompt(server: Server, prompt: Any) -> None:
    assert server.complete(prompt)["usage"]["prompt_tokens"] == 32


def test_tokenize_agrees_with_usage(server: Server) -> None:
    for body in ({"prompt": words(50)}, {"messages": MESSAGES}):
        counted = server.post("/tokenize", body).json()
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        usage = server.post(path, {**body, "max_tokens": 1}).json()["usage"]
        assert counted["count"] == len(counted["tokens"]) == usage["prompt_tokens"]
        assert counted["max_model_len"] == 131_072


def test_a_text_may_be_hashed_beforehand_and_that_asks_for_no_block(server: Server) -> None:
    before = server.complete(words(50, "o"))["usage"]
    assert server.post("/kvbench/learn", {"prompt": words(50, "l")}).json() == {"count": 50}
    first = server.complete(words(50, "l"))["usage"]
    assert first["prompt_tokens"] == before["prompt_tokens"] == 50
    assert (first.get("prompt_tokens_details") or {}).get("cached_tokens", 0) == 0


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("completions", {"model": "gpt-2", "prompt": "a"}, 404, "model"),
        ("completions", {"prompt": words(20), "max_tokens": 131_060}, 400, "prompt"),
        ("completions", {"prompt": ""}, 400, "prompt"),
        ("completions", {"prompt": [1, "a"]}, 400, "prompt"),
        ("completions", {"prompt": ["a", "b"]}, 400, "prompt"),
        ("completions", {}, 400, "prompt"),
        ("completions", {"prompt": "a", "max_tokens": 0}, 400, "max_tokens"),
        ("completions", {"prompt": "a", "n": 2}, 400, "n"),
        ("completions", {"prompt": "a", "stream_options": 1}, 400, "stream_options"),
        ("chat/completions", {"messages": []}, 400, "messages"),
        ("chat/completions", {"messages": [{"role": 1}]}, 400, "messages"),
        ("chat/completions", {"messages": [{"role": "user", "content": 1}]}, 400, "messages"),
        ("completions", [], 400, None),
    ],
)
def test_what_cannot_be_served(server: Server, path: str, body: Any, status: int, param: str | None) -> None:
    answer = server.post(f"/v1/{path}", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, status, param)
    assert error["message"]
    assert error["type"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_bad_json(server: Server, body: bytes) -> None:
    assert server.http.post(f"{server.root}/v1/completions", content=body).status_code == 400


def test_models_health_info(server: Server) -> None:
    assert [model["id"] for model in server.get("/v1/models").json()["data"]] == [MODEL]
    assert server.get("/health").status_code == 200
    info = server.get("/kvbench/info").json()
    assert (info["pid"], info["model"], info["cache"], info["block_tokens"]) == (server.pid, MODEL, "on", 16)
    assert info["scale"] == {"time": 1000.0, "bytes": 512}
    assert info["kv_bytes_per_token"] == 144
    assert info["gpu"]["a"] == 4.136e-5
    assert info["tiers"]["g1"]["capacity_bytes"] == 10**9
    assert info["faults"] == []
    assert info["counts_words"] is True


def test_g1_serves_the_second_request_until_it_is_reset(server: Server) -> None:
    prompt = words(160, "g")
    assert [server.cached(prompt) for _ in range(2)] == [0, 144]
    assert server.reset()
    assert server.cached(prompt) == 0


def test_large_bodies_and_many_at_once(server: Server) -> None:
    def ask(index: int) -> int:
        prompt = words(100_000, "xyz"[index % 3]) + " " * 3_000_000
        count: int = server.complete(prompt, tokens=1)["usage"]["prompt_tokens"]
        return count

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, range(6))) == [100_000] * 6


def test_metrics_have_vllms_names_and_start_at_0() -> None:
    with running() as fresh:
        found = fresh.metrics()
        expected = [
            "vllm:prefix_cache_queries_total",
            "vllm:prefix_cache_hits_total",
            "vllm:external_prefix_cache_queries_total",
            "vllm:external_prefix_cache_hits_total",
            "vllm:prompt_tokens_total",
            "vllm:prompt_tokens_by_source_total{source=local_compute}",
            "vllm:prompt_tokens_by_source_total{source=local_cache_hit}",
            "vllm:prompt_tokens_by_source_total{source=external_kv_transfer}",
            "vllm:prompt_tokens_cached_total",
            "vllm:generation_tokens_total",
            "vllm:request_success_total{finished_reason=length}",
            "vllm:num_requests_running",
            "vllm:num_requests_waiting",
            "vllm:kv_offload_load_bytes_total",
            "vllm:time_to_first_token_seconds_count",
            "vllm:e2e_request_latency_seconds_count",
            "kvbench:emulator_overrun_seconds_count",
            "kvbench:tier_used_bytes{tier=g1}",
        ]
        assert {name: found[name] for name in expected} == dict.fromkeys(expected, 0)
        assert found["vllm:cache_config_info{block_size=16,enable_prefix_caching=True}"] == 1
        fresh.complete(words(40), tokens=5)
        after = fresh.metrics()
        assert after["vllm:prompt_tokens_total"] == after["vllm:prefix_cache_queries_total"] == 40
        assert after["vllm:generation_tokens_total"] == 5
        assert after["vllm:request_success_total{finished_reason=length}"] == 1
        assert after["vllm:e2e_request_latency_seconds_count"] == 1


def test_a_client_that_leaves_frees_its_place() -> None:
    with running("--time", "1") as slow:
        body = {"prompt": words(30_000), "max_tokens": 1000, "stream": True}
        with slow.http.stream("POST", f"{slow.root}/v1/completions", json=body):
            assert not slow.reset()
        with httpx.Client() as other:
            while "vllm:num_requests_running" in other.get(f"{slow.root}/metrics").text and not slow.reset():
                pass
        assert slow.metrics()["vllm:request_success_total{finished_reason=abort}"] == 1


def test_api_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMULATOR_KEY", "open-sesame")
    with running("--api-key-env", "EMULATOR_KEY") as locked:
        assert locked.post("/v1/completions", {"prompt": "a"}).status_code == 401
        assert locked.get("/v1/models").status_code == 401
        assert locked.get("/health").status_code == 200
        locked.http.headers["Authorization"] = "Bearer open-sesame"
        assert locked.complete("a b")["usage"]["prompt_tokens"] == 2


def test_fixed_latency() -> None:
    with running("--fixed-latency-ms", "30", "--token-gap-ms", "5") as paced:
        value = paced.complete(words(1000), tokens=4)
        assert value["kvbench"]["modelled_ttft_s"] == pytest.approx(0.03)
        assert value["kvbench"]["overrun_s"] >= 0
        assert value["usage"]["prompt_tokens"] == 1000
        assert paced.metrics()["vllm:e2e_request_latency_seconds_sum"] >= 0.045


def test_several_instances_are_several_engines() -> None:
    with running("--instances", "2") as pair, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: pair.complete(words(5000, name)), "ab"))
        assert 'vllm:prompt_tokens_total{engine="1",model_name="gpt-oss-120b"}' in pair.get("/metrics").text


def test_the_official_client_streams(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.root}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": words(64)}],
            max_tokens=4,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        usage = chunks[-1].usage
        assert usage is not None
        assert usage.completion_tokens == 4
        assert usage.prompt_tokens_details is not None
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="gpt-2", prompt="a")
        assert client.completions.create(model=MODEL, prompt="a b", max_tokens=2).usage is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--profile", "none"), "no profile"),
        (("--model", "gpt-2"), "not a model whose shape is known"),
        (("--g2", "100TB"), "of memory that is available"),
        (("--bytes", "1000"), "does not divide"),
        (("--g4-path", "/dev/null", "--g4-capacity", "1GB"), "cannot be used as a tier"),
        (("--api-key-env", "NO_SUCH_NAME"), "holds no key"),
        (("--host", "192.0.2.1"), "cannot be used"),
    ],
)
def test_a_start_that_fails_says_why_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    assert message in failure(*arguments)["message"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--g3-path", "x"), "G3 has a path and no capacity"),
        (("--g4-capacity", "1GB"), "G4 has a capacity and no path"),
        (("--g4-shared",), "no G4 to share"),
        (("--g3-path", "x", "--g3-capacity", "1GB", "--g4-path", "x", "--g4-capacity", "1GB"), "the same directory"),
        (("--admit-after-hits", "0"), "at least 1"),
        (("--write-delay-ms", "-1"), "cannot be negative"),
        (("--time", "0"), "scale"),
        (("--g4-path", "x"), "no capacity"),
        (("--g4-path", "x", "--g4-capacity", "1GB", "--g4-payload", "4KiB"), "too small"),
        (("--fault-every", "0"), "at least 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_told_the_same_way_with_exit_code_2(
    arguments: tuple[str, ...], message: str
) -> None:
    assert message in failure(*arguments, exit_code=2)["message"]


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "is in use" in failure("--port", str(taken.getsockname()[1]))["message"]
