"""The ledger of a run: books that close or name their gap, and what they say of requests that ran side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.experiment.run_ledger import RunSums, answer_tier_tokens, close_ledger, judge_by_ledger
from kvbench.experiment.tier_proof import Blocks, Manifest
from kvbench.result.records import Response, Tier
from kvbench.scenario.plan import Draw
from kvbench.testbed.servers.counters import Counters

if TYPE_CHECKING:
    from kvbench.result.run_record import Ledger

BLOCKS = Blocks(tokens=16, kv_bytes_per_token=144.0, path_tier="g4")
ISL, CACHED = 10_000, 9_984  # 9,999 // 16 * 16
FILES = CACHED * 144 + 8192

DRAWS = [Draw("r/0", "p", ISL), Draw("r/1", "p", ISL)]
MANIFEST = Manifest("g4", {"a": FILES}, {"p": FILES})


def ledger_of(responses: list[Response], *, warm: bool = True, **delta: Any) -> Ledger:
    counters: dict[str, Any] = {
        "local_hits": 0.0,
        "external_hits": 2.0 * CACHED,
        "computed_tokens": 2.0 * (ISL - CACHED),
        "read_bytes": {"g4": 2.0 * FILES},
    }
    delta_counters = Counters(**{**counters, **delta})
    return close_ledger(sums_of(responses, MANIFEST, warm=warm), delta_counters)


def sums_of(responses: list[Response], manifest: Manifest | None, *, warm: bool) -> RunSums:
    sums = RunSums(BLOCKS, manifest, warm)
    for draw, response in zip(DRAWS, responses, strict=False):
        sums.add(draw, response)
    return sums


def judged(response: Response, books: Ledger, delta: Counters) -> tuple[Tier, str]:
    return judge_by_ledger(BLOCKS, response, answer_tier_tokens(response), books, delta)


HIT = Response("r", "ok", 0, isl=ISL, cached_tokens=CACHED)
MISS = Response("r", "ok", 0, isl=ISL, cached_tokens=0)


def test_a_ledger_that_closes() -> None:
    books = ledger_of([HIT, HIT])
    assert books.closes
    assert books.hit_efficiency == 1.0
    assert books.expected_read_bytes == 2 * FILES


@pytest.mark.parametrize(
    ("responses", "delta", "words"),
    [
        ([HIT, HIT], {"external_hits": 1.0 * CACHED}, "answers claim 19,968"),
        ([HIT, HIT], {"read_bytes": {"g4": 1.0 * FILES}}, "the hits need"),
        ([HIT, HIT], {"read_bytes": {"g4": 3.0 * FILES}}, "files are"),
        ([HIT, HIT], {"process_read_bytes": 0}, "the process read 0 B"),
        ([HIT, HIT], {"computed_tokens": 0.0}, "32 tokens were to be computed"),
        ([MISS, MISS], {"external_hits": 0.0, "computed_tokens": 2.0 * ISL}, "no hit below g1, yet"),
        ([HIT, replace(HIT, cached_tokens=None)], {}, "do not report"),
        ([HIT, HIT], {"local_hits": None}, "no hit counters"),
    ],
)
def test_a_ledger_with_a_gap(responses: list[Response], delta: dict[str, Any], words: str) -> None:
    books = ledger_of(responses, **delta)
    assert not books.closes
    assert words in str(books.gap)


def test_a_miss_lowers_the_hit_efficiency() -> None:
    books = ledger_of([HIT, MISS], external_hits=1.0 * CACHED, read_bytes={"g4": 1.0 * FILES})
    assert books.hit_efficiency == 0.5


def test_failed_requests_are_not_in_the_books() -> None:
    delta: dict[str, Any] = {"external_hits": 1.0 * CACHED, "computed_tokens": 16.0, "read_bytes": {"g4": 1.0 * FILES}}
    books = ledger_of([HIT, replace(HIT, status="cut")], **delta)
    assert books.requests == 1
    assert books.closes


def test_concurrent_requests_get_a_tier_only_if_one_tier_moved_and_the_books_close() -> None:
    delta = Counters(local_hits=0.0, external_hits=2.0 * CACHED, read_bytes={"g4": 2.0 * FILES})
    good = ledger_of([HIT, HIT])
    assert judged(HIT, good, delta)[0] == "g4"
    assert judged(MISS, good, delta)[0] == "recompute"
    two = replace(delta, read_bytes={"g3": 1.0, "g4": 2.0 * FILES})
    assert judged(HIT, good, two)[0] == "unproven"
    gap = ledger_of([HIT, HIT], external_hits=0.0)
    tier, evidence = judged(HIT, gap, delta)
    assert tier == "unproven"
    assert "answers claim" in evidence
    g1 = Counters(local_hits=2.0 * CACHED, external_hits=0.0, read_bytes={"g4": 0.0})
    closed = ledger_of([HIT, HIT], local_hits=2.0 * CACHED, external_hits=0.0, read_bytes={})
    assert judged(HIT, closed, g1)[0] == "g1"


def test_a_whole_run_from_host_memory_is_named_by_its_second_witness() -> None:
    silent: dict[str, Any] = {"external_hits": 2.0 * CACHED, "read_bytes": {}, "process_read_bytes": 0}
    books = ledger_of([HIT, HIT], **silent)
    delta = Counters(local_hits=0.0, **silent)
    assert judged(HIT, books, delta)[0] == "unproven"  # or from files in the page cache
    witnessed = replace(delta, host_tokens=2.0 * CACHED)
    tier, evidence = judged(HIT, books, witnessed)
    assert (tier, f"{2 * CACHED} cached tokens = external hits = tokens from host memory" in evidence) == ("g2", True)


def test_an_engine_without_read_counters_is_judged_by_what_its_process_read() -> None:
    read = 2 * FILES
    whole: dict[str, Any] = {"external_hits": 2.0 * CACHED, "read_bytes": {}, "process_read_bytes": read}
    delta = Counters(local_hits=0.0, **whole)
    assert judged(HIT, ledger_of([HIT, HIT], **whole), delta)[0] == "g4"
    half = {**whole, "process_read_bytes": read // 2}
    books = ledger_of([HIT, HIT], **half)
    assert not books.closes
    assert judged(HIT, books, replace(delta, process_read_bytes=read // 2))[0] == "unproven"


def split_run(*splits: dict[str, int], **delta: Any) -> tuple[list[Response], Ledger, Counters]:
    """A closed run in which several tiers served hits; each answer tells its own split."""
    responses = [replace(HIT, cached_tokens=sum(one.values()), server={"tier_tokens": {**one}}) for one in splits]
    told: dict[str, float] = {}
    for one in splits:
        for tier, tokens in one.items():
            told[tier] = told.get(tier, 0.0) + tokens
    below = {tier: tokens for tier, tokens in told.items() if tier != "g1"}
    counters: dict[str, Any] = {
        "local_hits": told.get("g1", 0.0),
        "external_hits": sum(below.values()),
        "host_tokens": told.get("g2", 0.0),
        "computed_tokens": sum(ISL - (one.cached_tokens or 0) for one in responses),
        "read_bytes": {"g4": told.get("g4", 0.0) * 144},
        "tier_tokens": told,
        **delta,
    }
    found = Counters(**counters)
    return responses, close_ledger(sums_of(responses, None, warm=False), found), found


def test_the_window_is_from_the_first_send_to_the_last_token_of_all_requests() -> None:
    failed = replace(HIT, status="cut", sent_ns=5, last_token_ns=900)
    sums = sums_of([replace(HIT, sent_ns=0, last_token_ns=700), failed], MANIFEST, warm=True)
    assert (sums.window_ns, sums.requests) == ((0, 900), 1)
    assert sums_of([replace(failed, last_token_ns=None)], MANIFEST, warm=True).window_ns == (5, 5)
    assert sums_of([HIT], MANIFEST, warm=True).window_ns is None


def test_answers_own_words_count_if_they_add_up_to_the_counters_of_each_tier() -> None:
    (first, second), books, delta = split_run({"g1": 4000, "g2": 1600}, {"g4": 1600})
    assert books.closes
    assert judged(first, books, delta)[0] == "mixed"
    tier, evidence = judged(second, books, delta)
    assert (tier, "g1 4,000, g2 1,600, g4 1,600" in evidence) == ("g4", True)


def test_words_that_do_not_add_up_prove_nothing() -> None:
    (first, _), books, delta = split_run(
        {"g1": 4000, "g2": 1600}, {"g4": 1600}, tier_tokens={"g1": 4000.0, "g2": 1584.0, "g4": 1616.0}
    )
    assert books.closes
    assert judged(first, books, delta)[0] == "unproven"


def test_what_was_read_to_move_files_down_is_taken_off() -> None:
    moved: dict[str, Any] = {"process_read_bytes": 2 * FILES + 5_000_000, "moved_bytes": 5_000_000.0}
    books = ledger_of([HIT, HIT], **moved)
    assert books.closes
    assert (books.process_read_bytes, books.moved_bytes) == (2 * FILES, 5_000_000.0)
    assert not ledger_of([HIT, HIT], **{**moved, "moved_bytes": 0.0}).closes
    gap = str(ledger_of([HIT, HIT], **{**moved, "process_read_bytes": 5_000_000}).gap)
    assert "the process read 5 MB from devices, 5 MB of it to move files down" in gap


@pytest.mark.parametrize("early", [True, False])
def test_files_on_their_way_may_be_on_this_or_on_that_side_of_a_scrape(early: bool) -> None:  # noqa: FBT001
    read = 2 * FILES + (-3_000_000 if early else 3_000_000)
    moves: dict[str, Any] = {"moved_bytes": 0.0, "process_read_bytes": read}
    assert ledger_of([HIT, HIT], **moves, moving_bytes=3_000_000.0).closes
    assert not ledger_of([HIT, HIT], **moves, moving_bytes=1_000_000.0).closes


def test_lost_files_are_in_the_books() -> None:
    books = ledger_of([HIT, HIT], bad_files=2.0, write_errors=1.0)
    assert (books.bad_files, books.write_errors, books.closes) == (2.0, 1.0, True)
