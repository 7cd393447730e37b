"""G2, G3 and G4 behind a real server: buffers in memory, files in directories, and two servers on one directory."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.emulator.shared import SURVEY_S
from kvbench.lenient_json import at
from kvbench.scenario.models import Tiers
from kvbench.scenario.server_spec import EmulatorSpec
from kvbench.testbed.servers.counters import parse_counters
from kvbench.testbed.servers.emulator import serve
from tests.builders.emulator_server import MODEL, Server, failure, launch, running
from tests.builders.virtual_world import words
from tests.emulator.test_emulator_faults import storage_bytes

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = words(2000)
CACHED = 1984
BLOCK = 144 * 16
FILE = 4096 + 65_536  # of 28 blocks


def tiers(path: Path, **capacities: str) -> tuple[str, ...]:
    """Return the arguments of these tiers, with small files."""
    arguments = ["--g4-payload", "64KiB"]
    for name, size in capacities.items():
        if name in ("g1", "g2"):
            arguments += [f"--{name}", size]
        else:
            arguments += [f"--{name}-path", str(path / name), f"--{name}-capacity", size]
    return tuple(arguments)


def hits(server: Server, prompt: Any = PROMPT) -> dict[str, int]:
    """Send a prompt and return its cached tokens by tier, as the answer and as the counters tell them."""
    before = server.metrics()
    value = server.complete(prompt)
    server.settle()
    told: dict[str, int] = value["kvbench"]["tier_tokens"]
    names = [f"kvbench:tier_hit_tokens_total{{tier={tier}}}" for tier in ("g1", "g2", "g3", "g4")]
    moved = {name[-3:-1]: server.metrics().get(name, 0) - before.get(name, 0) for name in names}
    assert {tier: tokens for tier, tokens in moved.items() if tokens} == told
    assert value["usage"]["prompt_tokens_details"]["cached_tokens"] == sum(told.values())
    return told


def empty(path: Path) -> None:
    for file in path.glob("*.kv"):
        file.unlink()


def test_every_tier_serves_when_the_faster_ones_are_empty(tmp_path: Path) -> None:
    with running(*tiers(tmp_path, g1="1GB", g2="1GB", g3="1GB", g4="1GB")) as server:
        assert hits(server) == {}
        assert hits(server) == {"g1": CACHED}
        assert server.reset()
        assert hits(server) == {"g2": CACHED}
        assert server.reset(external=True)
        assert hits(server) == {"g3": CACHED}
        empty(tmp_path / "g3")
        assert server.reset(external=True)
        assert hits(server) == {"g4": CACHED}
        assert server.reset()
        assert hits(server) == {"g2": CACHED}  # what came from G4 is in every faster tier again
        found = server.metrics()
        assert found["vllm:prefix_cache_hits_total"] == CACHED
        assert found["vllm:external_prefix_cache_hits_total"] == 4 * CACHED
        assert found["vllm:prompt_tokens_cached_by_source_total{source=host}"] == 2 * CACHED
        assert found["vllm:prompt_tokens_cached_by_source_total{source=disk}"] == 2 * CACHED
        assert found["kvbench:memory_read_bytes_total{tier=g2}"] == 2 * 125 * BLOCK
        assert found["kvbench:tier_used_bytes{tier=g2}"] == 125 * BLOCK
        for tier in ("g3", "g4"):
            size_bytes = sum(file.stat().st_size for file in (tmp_path / tier).glob("*.kv"))
            assert found[f"kvbench:tier_used_bytes{{tier={tier}}}"] == size_bytes > 0
            assert found[f"kvbench:tier_read_bytes_total{{tier={tier}}}"] == size_bytes
            assert found[f"vllm:kv_offload_tiering_read_bytes_total{{tier={tier}}}"] == CACHED * 144


def test_a_hit_in_host_memory_moves_no_byte_that_kvbench_counts_as_read(tmp_path: Path) -> None:
    """The proof names g2 where hits below G1 moved no bytes: neither a tier's nor, for the kernel, the process's."""
    with running(*tiers(tmp_path, g2="1GB", g4="1GB")) as server:
        hits(server, words(20_000))
        before = (parse_counters(server.get("/metrics").text), storage_bytes(server.pid))
        assert hits(server, words(20_000)) == {"g2": 19_984}
        delta = parse_counters(server.get("/metrics").text).since(before[0])
        assert (delta.external_hits, delta.host_tokens, delta.read_bytes) == (19_984, 19_984, {"g4": 0})
        assert storage_bytes(server.pid) - before[1] < 500_000


def test_a_prompt_with_its_head_in_g2_and_its_tail_in_g4(tmp_path: Path) -> None:
    with running(*tiers(tmp_path, g2="1GB", g4="1GB")) as server:
        hits(server)
        assert server.reset(external=True)
        assert hits(server, words(1000)) == {"g4": 992}  # of 1,000 tokens; its 62 blocks enter G2
        value = server.complete(PROMPT)
        assert value["kvbench"]["tier_tokens"] == {"g2": 992, "g4": CACHED - 992}
        assert value["kvbench"]["tier_read_bytes"] > 0


def test_evicted_blocks_go_down_and_are_found_there(tmp_path: Path) -> None:
    """Write-back with room for one prompt in G1, G2 and G3 each: the oldest of four is in G4 alone."""
    one = 125 * BLOCK
    sizes = {"g1": f"{one}B", "g2": f"{one}B", "g3": f"{5 * FILE}B", "g4": "1GB"}
    with running(*tiers(tmp_path, **sizes), "--write-policy", "back") as server:
        for name in "abcd":
            assert hits(server, words(2000, name)) == {}
        found = server.metrics()
        assert found["kvbench:tier_used_bytes{tier=g1}"] == found["kvbench:tier_used_bytes{tier=g2}"] == one
        assert found["kvbench:tier_moved_bytes_total{tier=g2}"] == 2 * one
        assert found["kvbench:tier_moved_bytes_total{tier=g3}"] > one
        assert sum(found[f"kvbench:tier_write_errors_total{{reason=no_space,tier={t}}}"] for t in ("g3", "g4")) == 0
        assert hits(server, words(2000, "a")) == {"g4": CACHED}
        # that pushed everything down by one; what is left of "c" in G3 is read from there
        assert sum(hits(server, words(2000, "c")).values()) == CACHED
        assert found["kvbench:tier_bad_files_total{reason=checksum,tier=g3}"] == 0


def test_a_restart_finds_both_directories(tmp_path: Path) -> None:
    arguments = tiers(tmp_path, g2="1GB", g3="1GB", g4="1GB")
    with running(*arguments) as server:
        hits(server)
    with running(*arguments) as server:
        assert hits(server) == {"g3": CACHED}
    empty(tmp_path / "g3")
    with running(*arguments) as server:
        assert hits(server) == {"g4": CACHED}


def test_two_servers_serve_each_others_blocks_from_one_g4(tmp_path: Path) -> None:
    arguments = (*tiers(tmp_path, g1="1GB", g4="1GB"), "--g4-shared")
    with running(*arguments) as one, running(*arguments) as two:
        answer = one.complete(PROMPT)
        one.settle()
        value = two.complete(PROMPT)
        two.settle()
        assert value["choices"][0]["text"] == answer["choices"][0]["text"]
        assert value["kvbench"]["tier_tokens"] == {"g4": CACHED}
        assert two.metrics()["kvbench:tier_write_files_total{tier=g4}"] == 0
        assert hits(two, words(3000)) == {"g1": 2000}
        assert hits(one, words(3000)) == {"g1": 2000, "g4": 992}
        name = next((tmp_path / "g4").glob("*.kv"))
        name.write_bytes(name.read_bytes()[:8192] + b"zz" + name.read_bytes()[8194:])
        assert one.reset(external=True)
        assert two.reset(external=True)
        assert sum(hits(two, words(3000)).values()) < 2992
        assert two.metrics()["kvbench:tier_bad_files_total{reason=checksum,tier=g4}"] == 1
        assert one.complete(words(3000))["choices"] == two.complete(words(3000))["choices"]


def test_servers_that_share_keep_one_budget_and_the_files_used_last(tmp_path: Path) -> None:
    arguments = (*tiers(tmp_path, g4=f"{10 * FILE}B"), "--g4-shared")
    with running(*arguments) as one, running(*arguments) as two:
        hits(one, words(2000, "a"))  # five files each
        hits(two, words(2000, "b"))
        for file in (tmp_path / "g4").glob("*.kv"):
            os.utime(file, (1, 1))
        assert hits(two, words(2000, "a")) == {"g4": CACHED}  # marks them as used, for both servers
        time.sleep(1.1 * SURVEY_S)  # now the next write begins with a listing
        assert hits(one, words(2000, "c")) == {}
        assert sum(file.stat().st_size for file in (tmp_path / "g4").glob("*.kv")) <= 10 * FILE
        assert hits(two, words(2000, "a")) == {"g4": CACHED}
        assert hits(two, words(2000, "b")).get("g4", 0) < CACHED


def test_a_file_that_vanishes_under_a_server_is_a_miss(tmp_path: Path) -> None:
    arguments = (*tiers(tmp_path, g4="1GB"), "--g4-shared")
    with running(*arguments) as one, running(*arguments) as two:
        hits(one)
        assert hits(two) == {"g4": CACHED}
        empty(tmp_path / "g4")
        assert hits(two) == {}
        assert hits(two) == {"g4": CACHED}
        assert hits(one) == {"g4": CACHED}


def test_a_directory_is_shared_only_by_those_who_say_so(tmp_path: Path) -> None:
    arguments = tiers(tmp_path, g4="1GB")
    with running(*arguments):
        for more in ((), ("--g4-shared",)):
            assert "another server uses" in failure(*arguments, *more)["message"]
    with running(*arguments, "--g4-shared") as server:
        assert "another server uses" in failure(*arguments)["message"]
        assert server.get("/kvbench/info").json()["tiers"]["g4"]["shared"] is True


def test_a_killed_server_leaves_its_directory_to_the_next(tmp_path: Path) -> None:
    process, line = launch("--time", "1000", *tiers(tmp_path, g4="1GB"))
    assert line["event"] == "ready"
    with process:
        process.send_signal(signal.SIGKILL)
    with running(*tiers(tmp_path, g4="1GB")) as server:
        assert hits(server) == {}


def test_the_next_turn_hits_the_answer_in_both_forms(tmp_path: Path) -> None:
    with running(*tiers(tmp_path, g4="1GB")) as server:
        text = server.complete(words(1000), tokens=100)["choices"][0]["text"]
        server.settle()
        assert hits(server, words(1000) + text + " and so on")["g4"] == (1099 // 16) * 16
        ids = list(range(1000))
        answer = server.complete(ids, tokens=100, return_token_ids=True)["choices"][0]["token_ids"]
        server.settle()
        assert len(answer) == 100
        assert hits(server, [*ids, *answer, 1, 2])["g4"] == (1099 // 16) * 16
        messages, held = [{"role": "user", "content": words(500)}], 0
        for turn in range(3):
            body = {"model": MODEL, "messages": messages, "max_tokens": 50}
            value = server.post("/v1/chat/completions", body).json()
            server.settle()
            usage = value["usage"]
            assert usage["prompt_tokens_details"]["cached_tokens"] == held // 16 * 16
            held = usage["prompt_tokens"] + 49
            messages += [{"role": "assistant", "content": value["choices"][0]["message"]["content"]}]
            messages += [{"role": "user", "content": words(60, f"u{turn}")}]


@pytest.mark.parametrize("policy", ["through", "back"])
def test_admission_and_delay(tmp_path: Path, policy: str) -> None:
    arguments = ("--admit-after-hits", "2", "--write-delay-ms", "300", "--write-policy", policy)
    with running(*tiers(tmp_path, g4="1GB"), *arguments) as server:
        assert [hits(server) for _ in range(3)] == [{}, {}, {"g4": CACHED}]  # each settles: a delayed write is pending
        assert server.get("/kvbench/info").json()["store"] == {
            "policy": policy,
            "admit_after_hits": 2,
            "delay_s": 0.3,
            "delay_shown": True,
        }


def test_a_scenario_gives_the_server_its_tiers_and_rules(tmp_path: Path) -> None:
    spec = EmulatorSpec.model_validate(
        {
            "scale": {"time": 1000, "bytes": 512},
            "write_policy": "back",
            "admit_after_hits": 2,
            "write_delay": "50ms",
            "faults": ["cached_tokens_zero", "lookups_as_hits"],
            "fault_every": 3,
        }
    )
    paths = {name: {"path": str(tmp_path / name), "capacity": "1GB"} for name in ("g3", "g4")}
    given = Tiers.model_validate({"g1": "1MB", "g2": "2MB", **paths})
    with serve(spec, given, tmp_path / "log", cache_on=True) as endpoint:
        info = endpoint.info
        assert {name: at(tier, "capacity_bytes") for name, tier in at(info, "tiers").items()} == {
            "g1": 10**6,
            "g2": 2 * 10**6,
            "g3": 10**9,
            "g4": 10**9,
        }
        assert info["store"] == {"policy": "back", "admit_after_hits": 2, "delay_s": 0.05, "delay_shown": True}
        assert (info["faults"], info["fault_every"]) == (["cached_tokens_zero", "lookups_as_hits"], 3)
        assert endpoint.tier_path == tmp_path / "g4"
    only_g3 = Tiers.model_validate({"g3": paths["g3"]})
    with serve(spec, only_g3, tmp_path / "log", cache_on=True) as endpoint:
        assert endpoint.tier_path == tmp_path / "g3"
    with serve(spec, given, tmp_path / "log", cache_on=False) as endpoint:
        assert (set(at(endpoint.info, "tiers")), endpoint.tier_path) == ({"g1"}, None)
