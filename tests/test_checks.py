"""Verdicts: what makes a run suspect or invalid, each with a remedy."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from kvbench import checks
from kvbench.records import Row
from tests.test_store import row

if TYPE_CHECKING:
    from collections.abc import Callable

ASKED = checks.Asked(requests=2, output_tokens=8, max_fail=0)
RUN: dict[str, Any] = {
    "cache": {
        "state": "warm(g4)",
        "steps": [{"name": "prove warm, canary-last", "outcome": "proven", "evidence": "all of it"}],
    },
    "ledger": {"gap": None, "expected_cached_tokens": 1984, "cached_tokens": 1984, "requests": 2},
    "blocks": {"tokens": 16},
    "driver": {"stamps": "kernel", "clock_step_s": 0.0, "client_cpu_s": 0.1, "wall_s": 1.0},
    "server": {"model": "m"},
}


def good_rows() -> list[Row]:
    return [row(n, tier="g4", tier_evidence="bytes", model="m", isl_target=1000, cached_tokens=992) for n in (0, 1)]


def judge(change: Callable[[dict[str, Any], list[Row]], None]) -> checks.Verdict:
    run, rows = copy.deepcopy(RUN), good_rows()
    change(run, rows)
    return checks.judge_run(run, rows, ASKED)


def changed(**fields: Any) -> Callable[[dict[str, Any], list[Row]], None]:
    def change(_run: dict[str, Any], rows: list[Row]) -> None:
        rows[1] = Row.from_json({**rows[1].to_json(), **fields})

    return change


def in_run(part: str, **fields: Any) -> Callable[[dict[str, Any], list[Row]], None]:
    return lambda run, _rows: run[part].update(fields)


def step(outcome: str, name: str = "prove warm, canary-last") -> Callable[[dict[str, Any], list[Row]], None]:
    return lambda run, _rows: run["cache"]["steps"].append({"name": name, "outcome": outcome, "evidence": "seen"})


def test_a_good_run_is_valid_without_a_word() -> None:
    assert judge(lambda _run, _rows: None) == checks.Verdict("valid", ())


def drop_one(_run: dict[str, Any], rows: list[Row]) -> None:
    rows.pop()


def cold(run: dict[str, Any], rows: list[Row]) -> None:
    run["cache"]["state"] = "cold"
    run["ledger"].update(expected_cached_tokens=0, cached_tokens=0)
    rows[:] = [Row.from_json({**one.to_json(), "tier": "recompute", "cached_tokens": 0}) for one in rows]
    run["cache"]["steps"] = [{"name": "prove cold", "outcome": "not established", "evidence": "seen"}]


def late(_run: dict[str, Any], rows: list[Row]) -> None:
    rows[:] = [Row.from_json({**one.to_json(), "send_lag_s": 1.0, "ttft_s": 1.0}) for one in rows]


CASES: list[tuple[str, Callable[[dict[str, Any], list[Row]], None], str, str]] = [
    ("a step failed", step("failed"), "invalid", "seen"),
    ("a request failed", changed(status="cut"), "invalid", "1 cut"),
    ("a request is missing", drop_one, "invalid", "2 were planned"),
    ("another length", changed(isl=1001), "invalid", "1001 for 1000"),
    ("no prompt count", changed(isl=None), "suspect", "no prompt tokens"),
    ("a short answer", changed(osl=3), "suspect", "another length than the 8"),
    ("another tier", changed(tier="g1"), "invalid", "were g1, not g4"),
    ("an unproven tier", changed(tier="unproven"), "suspect", "were unproven, not g4"),
    ("an open ledger", in_run("ledger", gap="the books"), "suspect", "does not close"),
    ("hits missing", in_run("ledger", cached_tokens=992), "invalid", "hit efficiency 0.500"),
    ("an upper bound", changed(ttft_bound="upper"), "suspect", "only an upper bound"),
    ("a clock step", in_run("driver", clock_step_s=-0.5), "suspect", "-0.500 s"),
    ("a busy client", in_run("driver", client_cpu_s=0.95), "suspect", "95% of a core"),
    ("a late emulator", changed(server_overrun_s=1.0, ttft_s=1.0), "suspect", "ran over"),
    ("another model", changed(model="n"), "invalid", "n answered instead of m"),
    ("nothing to see the cold tier by", cold, "suspect", "seen"),
    ("the user clock", in_run("driver", stamps="user"), "valid", "user clock"),
    ("a side condition not shown", step("not established", "prove cold"), "valid", "seen"),
    ("a page cache that may have helped", step("not established", "page cache"), "suspect", "seen"),
    ("an answer without a token", changed(ttft_s=None), "suspect", "held no token"),
    ("requests that left late", late, "suspect", "left later"),
]


@pytest.mark.parametrize(("case", "change", "word", "text"), CASES, ids=[case[0] for case in CASES])
def test_every_reason(case: str, change: Callable[[dict[str, Any], list[Row]], None], word: str, text: str) -> None:
    verdict = judge(change)
    assert verdict.word == word, case
    assert len(verdict.reasons) == 1
    assert text in verdict.reasons[0].text
    assert verdict.reasons[0].remedy.endswith(".")


def test_a_long_request_does_not_hide_what_happened_to_a_short_one() -> None:
    run, rows = copy.deepcopy(RUN), good_rows()
    rows[0] = Row.from_json({**rows[0].to_json(), "ttft_s": 0.15, "server_overrun_s": 0.078})
    rows[1] = Row.from_json({**rows[1].to_json(), "ttft_s": 4.0, "server_overrun_s": 0.0})
    assert checks.judge_run(run, rows, ASKED).word == "suspect"


def test_failures_within_the_limit_are_counted_but_do_not_condemn() -> None:
    run, rows = copy.deepcopy(RUN), good_rows()
    changed(status="timeout")(run, rows)
    verdict = checks.judge_run(run, rows, checks.Asked(2, 8, max_fail=1))
    assert verdict.word == "valid"
    assert "1 timeout" in verdict.reasons[0].text


def test_warmup_and_priming_are_not_judged() -> None:
    run, rows = copy.deepcopy(RUN), good_rows()
    rows.append(row(2, phase="prime", status="cut"))
    assert checks.judge_run(run, rows, ASKED).word == "valid"


def test_the_worst_word_wins() -> None:
    assert checks.worst(["valid", "suspect"]) == "suspect"
    assert checks.worst(["suspect", "invalid", "valid"]) == "invalid"
    assert checks.worst([]) == "invalid"
