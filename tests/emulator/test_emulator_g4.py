"""The file tier behind a real server: what is cached, what survives, and what the kernel says about it."""

from __future__ import annotations

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from kvbench.emulator.direct_io import probe
from tests.builders.emulator_server import MODEL, failure, g4, launch, running
from tests.builders.patience import PATIENCE_S, wait_until
from tests.builders.virtual_world import words
from tests.emulator.test_emulator_faults import storage_bytes

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = words(2000)
CACHED = 1984  # 125 blocks; the last is always computed


def files_in(path: Path) -> list[Path]:
    return sorted(path.glob("*.kv"))


def test_the_second_request_is_served_from_files(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t")) as server:
        cold = server.complete(PROMPT)
        server.settle()
        warm = server.complete(PROMPT)
        assert warm["choices"][0]["text"] == cold["choices"][0]["text"]
        assert warm["usage"]["prompt_tokens_details"] == {"cached_tokens": CACHED}
        assert cold["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
        timing, found = warm["kvbench"], server.metrics()
        size_bytes = sum(path.stat().st_size for path in files_in(tmp_path / "t"))
        assert timing["storage_s"] > 0
        assert timing["tier_read_bytes"] == found["kvbench:tier_read_bytes_total{tier=g4}"] == size_bytes
        assert found["kvbench:tier_write_bytes_total{tier=g4}"] == size_bytes
        assert found["kvbench:tier_used_bytes{tier=g4}"] == size_bytes
        assert found["kvbench:tier_read_files_total{tier=g4}"] == len(files_in(tmp_path / "t")) == 5
        assert found["vllm:external_prefix_cache_hits_total"] == CACHED
        assert found["vllm:prompt_tokens_by_source_total{source=external_kv_transfer}"] == CACHED
        assert found["vllm:kv_offload_load_bytes_total"] == CACHED * 144
        assert found["vllm:kv_offload_tiering_read_bytes_total{tier=g4}"] == CACHED * 144
        assert found["vllm:kv_offload_store_bytes_total"] == 2000 * 144
        info = server.get("/kvbench/info").json()["tiers"]["g4"]
        assert (info["files"], info["used_bytes"]) == (5, size_bytes)


def test_off_touches_no_file(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t"), "--cache", "off") as server:
        assert [server.cached(PROMPT) for _ in range(2)] == [0, 0]
        found = server.metrics()
        assert found["vllm:prefix_cache_queries_total"] == found["vllm:prompt_tokens_total"] == 4000
        assert not files_in(tmp_path / "t")


def test_a_longer_prompt_reuses_the_files_and_adds_its_own(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t")) as server:
        server.cached(words(1000))
        before = {path.name for path in files_in(tmp_path / "t")}
        assert server.cached(PROMPT) == 992
        written = server.metrics()["vllm:kv_offload_store_bytes_total"]
        assert written == 2000 * 144  # 62 blocks, then 63
        assert before < {path.name for path in files_in(tmp_path / "t")}
        assert server.cached(PROMPT) == CACHED


def test_a_restart_finds_the_files(tmp_path: Path) -> None:
    for expected in (0, CACHED, CACHED):
        with running(*g4(tmp_path / "t")) as server:
            assert server.metrics()["kvbench:tier_read_bytes_total{tier=g4}"] == 0
            assert server.cached(PROMPT) == expected


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: os.truncate(path, 4096), "truncated"),
        (lambda path: path.write_bytes(path.read_bytes()[:9000] + b"zz" + path.read_bytes()[9002:]), "checksum"),
    ],
)
def test_a_spoilt_file_is_a_miss_and_is_written_again(tmp_path: Path, spoil: Any, reason: str) -> None:
    with running(*g4(tmp_path / "t")) as server:
        answer = server.complete(PROMPT)["choices"][0]["text"]
        server.settle()
        hashes = [path.read_bytes()[64:80] for path in files_in(tmp_path / "t")]
        spoil(files_in(tmp_path / "t")[0])
        again = server.complete(PROMPT)
        server.settle()
        assert again["choices"][0]["text"] == answer
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] in range(0, CACHED, 28 * 16)
        found = server.metrics()
        assert found[f"kvbench:tier_bad_files_total{{reason={reason},tier=g4}}"] == 1
        assert found["vllm:external_prefix_cache_hits_total"] < CACHED
        assert [path.read_bytes()[64:80] for path in files_in(tmp_path / "t")] == hashes
        assert server.cached(PROMPT) == CACHED


def test_old_files_make_room(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t", capacity="500kB")) as server:  # seven files of 69,632 bytes
        for name in "abc":
            server.cached(words(1400, name))  # 87 blocks, four files
        found = server.metrics()
        assert found["kvbench:tier_used_bytes{tier=g4}"] <= 500_000
        assert found["kvbench:tier_evicted_files_total{tier=g4}"] > 0
        assert (
            sum(path.stat().st_size for path in files_in(tmp_path / "t")) == found["kvbench:tier_used_bytes{tier=g4}"]
        )
        assert server.cached(words(1400, "c")) == 1392
        assert server.cached(words(1400, "a")) == 0


def test_reset_leaves_the_files_as_vllm_does_and_believes_the_directory(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t"), "--g1", "1GB") as server:
        server.cached(PROMPT)
        assert server.reset()
        assert server.cached(PROMPT) == CACHED
        assert server.metrics()["vllm:external_prefix_cache_hits_total"] == CACHED
        assert server.reset(external=True)
        assert server.cached(PROMPT) == CACHED
        for path in files_in(tmp_path / "t"):
            path.unlink()
        assert server.reset(external=True)
        assert server.metrics()["kvbench:tier_used_bytes{tier=g4}"] == 0
        assert server.cached(PROMPT) == 0
        shutil.rmtree(tmp_path / "t")
        assert server.reset(external=True)
        assert [server.cached(PROMPT) for _ in range(2)] == [0, CACHED]
        assert server.metrics()["vllm:prefix_cache_hits_total"] == CACHED


def test_the_kernel_counts_the_same_bytes(tmp_path: Path) -> None:
    if probe(tmp_path).status != "enforced":
        pytest.skip(f"O_DIRECT is {probe(tmp_path).status} on this file system")
    with running("--g4-path", str(tmp_path / "t"), "--g4-capacity", "1GB") as server:
        prompts = [words(60_000, name) for name in "ab"]
        for prompt in prompts:
            server.cached(prompt)
        before = (storage_bytes(server.pid), server.metrics()["kvbench:tier_read_bytes_total{tier=g4}"])
        for prompt in prompts:
            assert server.cached(prompt) == 59_984
        kernel = storage_bytes(server.pid) - before[0]
        counted = server.metrics()["kvbench:tier_read_bytes_total{tier=g4}"] - before[1]
        assert counted > 17_000_000
        assert kernel == pytest.approx(counted, rel=0.01)


def test_pending_writes_are_finished_on_sigterm(tmp_path: Path) -> None:
    process, line = launch("--time", "1000", *g4(tmp_path / "t"))
    with process:
        httpx.post(f"{line['url']}/completions", json={"prompt": words(30_000), "max_tokens": 1}, timeout=PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    assert len(files_in(tmp_path / "t")) == 67  # 1,875 blocks
    assert not list((tmp_path / "t").glob("*.tmp"))


def test_concurrent_requests_of_one_prompt_agree(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t"), "--instances", "2") as server:
        server.cached(PROMPT)

        def ask(_index: int) -> tuple[str, int]:
            value = server.complete(PROMPT)
            return value["choices"][0]["text"], value["usage"]["prompt_tokens_details"]["cached_tokens"]

        with ThreadPoolExecutor(8) as pool:
            answers = set(pool.map(ask, range(32)))
        assert len(answers) == 1
        assert answers.pop()[1] == CACHED
        wait_until(lambda: server.metrics()["vllm:num_requests_running"] == 0, "no request is running")


def test_a_directory_of_others_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("\\end")
    told = failure(*g4(tmp_path))
    assert "is not empty" in told["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_files_of_another_scale_are_refused(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t")) as server:
        server.cached(PROMPT)
    assert "another model, scale" in failure(*g4(tmp_path / "t"), "--bytes", "256")["message"]
    assert files_in(tmp_path / "t")


def test_chat_turns_extend_each_other(tmp_path: Path) -> None:
    with running(*g4(tmp_path / "t")) as server:

        def turn(messages: list[dict[str, str]]) -> tuple[str, int]:
            value = server.post("/v1/chat/completions", {"model": MODEL, "messages": messages, "max_tokens": 8}).json()
            server.settle()
            return value["choices"][0]["message"]["content"], value["usage"]["prompt_tokens_details"]["cached_tokens"]

        messages = [{"role": "user", "content": words(1000)}]
        answer, _ = turn(messages)
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": words(100, "b")}]
        assert turn(messages)[1] == 1008  # of 1,006 and 7 tokens 63 blocks were full; the last token has no KV
        assert turn(messages)[1] == (1006 + 8 + 2 + 104 + 2 - 1) // 16 * 16
