"""Verdicts on treatments: what runs say together that none of them says alone."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from kvbench import checks, store, summary
from kvbench.checks.treatment import empty_starts, gather_reasons, judge_treatment, most_gain
from kvbench.checks.verdict import same_pairs
from kvbench.report import typed_summary
from tests.builders.screens import shown_summary
from tests.made_up_runs import Shape, honest_run
from tests.test_run import FakeTestbed, execute
from tests.worlds import make_scenario

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kvbench.checks import Verdict
    from kvbench.records import Row
    from tests.made_up_runs import MadeUpRun

TREATMENTS = {
    "recompute": Shape(state="off", treatment="recompute", touches=2),
    "again": Shape(state="off", treatment="again", touches=2),
    "empty": Shape(state="cold", treatment="empty", touches=2),
    "g4": Shape(treatment="g4", touches=2),
}
ROUNDS = 5
ASKED: dict[str, Any] = {
    "treatments": list(TREATMENTS),
    "baseline": "recompute",
    "repeats": ROUNDS,
    "concurrency": 1,
    "definitions": {
        "recompute": {"cache": "off", "against": None},
        "again": {"cache": "off", "against": "g4"},
        "empty": {"cache": "cold", "against": None},
        "g4": {"cache": {"warm": "g4"}, "against": None},
    },
}


@dataclass
class Judged:
    """A made-up run with its verdict, as `sealed.SealedRun` has it."""

    record: dict[str, Any]
    rows: list[Row]
    verdict: Verdict

    @property
    def measured(self) -> list[Row]:
        return [row for row in self.rows if row.phase == "measure"]


def judged(run: MadeUpRun) -> Judged:
    return Judged(run.record, run.rows, run.verdict)


def honest_result(seed: int, rounds: int = ROUNDS) -> list[Judged]:
    """Make all rounds of all treatments; a round's drift is common to its treatments."""
    found = []
    for repeat in range(1, rounds + 1):
        drift = 1 + 0.1 * math.sin(seed + repeat)
        shapes = (replace(shape, repeat=repeat, drift=drift) for shape in TREATMENTS.values())
        found += [judged(honest_run(seed, shape)) for shape in shapes]
    return found


def told(name: str, runs: list[Judged], asked: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    return [(one.rule, one.level) for one in judge_treatment(name, runs, asked or ASKED).reasons]


def of(name: str, runs: list[Judged]) -> list[Judged]:
    return [run for run in runs if run.record["run"]["treatment"] == name]


def faster(runs: list[Judged], share: float) -> None:
    """Let all these runs have taken a share of their time; the server's clock is left as it is."""
    for run in runs:
        run.record["load_s"] *= share
        run.rows[:] = [
            replace(row, ttft_s=share * (row.ttft_s or 0.0), latency_s=share * (row.latency_s or 0.0))
            for row in run.rows
        ]


def test_honest_treatments_are_never_called_suspect() -> None:
    for seed in range(20):
        runs = honest_result(seed)
        assert {run.verdict.word for run in runs} == {"valid"}
        for name in TREATMENTS:
            assert judge_treatment(name, runs, ASKED) == checks.Verdict("valid", ()), (seed, name)


def test_fewer_rounds_than_planned() -> None:
    runs = honest_result(1)
    runs.remove(of("g4", runs)[-1])
    of("g4", runs)[0].verdict = checks.Verdict("invalid", ())
    verdict = judge_treatment("g4", runs, ASKED)
    assert verdict.word == "invalid"  # a run of it is
    assert [(one.rule, one.level) for one in verdict.reasons] == [("fewer rounds", "suspect")]
    assert verdict.reasons[0].text == "3 of 5 planned rounds give a figure: r01-g4 invalid; 1 not made yet"


def test_no_round_gives_a_figure() -> None:
    runs = honest_result(1)
    for run in of("g4", runs):
        run.verdict = checks.Verdict("invalid", ())
    assert told("g4", runs) == [("fewer rounds", "invalid")]


def test_rounds_that_are_not_made_yet_are_not_wrong_and_going_on_makes_them() -> None:
    runs = honest_result(1, 2)
    for made in (runs, []):
        verdict = judge_treatment("g4", made, ASKED)
        (reason,) = verdict.reasons
        assert (verdict.word, reason.rule) == ("suspect", "fewer rounds")
        assert reason.text == "not all 5 planned rounds are made: the result is not finished"
        assert reason.remedy.startswith("Run the same command again")


def test_suspect_rounds_are_named() -> None:
    runs = honest_result(1)
    of("g4", runs)[2].verdict = checks.Verdict("suspect", ())
    verdict = judge_treatment("g4", runs, ASKED)
    assert (verdict.word, verdict.reasons[0].text) == ("suspect", "1 of 5 rounds are suspect: r03-g4")


def test_tiers_that_differ_over_the_rounds() -> None:
    runs = honest_result(1)
    run = of("g4", runs)[2]
    run.rows[:] = [replace(row, tier="unproven") for row in run.rows]
    assert ("tiers over rounds", "suspect") in told("g4", runs)
    for other in of("g4", runs):
        other.rows[:] = [replace(row, tier="g3") for row in other.rows]
    assert not told("g4", runs)


def test_later_turns_may_be_served_from_elsewhere_in_each_round() -> None:
    runs = honest_result(1)
    run = of("g4", runs)[2]
    run.rows[1] = replace(run.rows[1], tier="g2")
    assert ("tiers over rounds", "suspect") in told("g4", runs)
    run.rows[1] = replace(run.rows[1], turn=1)
    assert ("tiers over rounds", "suspect") not in told("g4", runs)


@pytest.mark.parametrize(("spread", "found"), [(0.0101, [("efficiency over rounds", "suspect")]), (0.0099, [])])
def test_hit_efficiency_that_differs_over_the_rounds(spread: float, found: list[tuple[str, str]]) -> None:
    runs = honest_result(1)
    of("g4", runs)[1].record["ledger"]["hit_efficiency"] = 1 - spread
    assert told("g4", runs) == found


@pytest.mark.parametrize(("share", "found"), [(0.93, [("A/A pair", "suspect")]), (0.985, [])])
def test_equal_treatments_must_not_differ(share: float, found: list[tuple[str, str]]) -> None:
    runs = honest_result(1)
    for one, other in zip(of("recompute", runs), of("again", runs), strict=True):
        other.rows[:] = one.rows
    faster(of("again", runs), share)
    assert told("again", runs) == found
    assert not told("recompute", runs)  # said once, of the later one


def test_an_older_plan_without_definitions_knows_equal_treatments_by_their_state() -> None:
    runs = honest_result(1)
    faster(of("again", runs), 0.8)
    bare = {key: value for key, value in ASKED.items() if key != "definitions"}
    assert told("again", runs, bare) == [("A/A pair", "suspect")]
    other = {**ASKED, "definitions": {**ASKED["definitions"], "again": {"cache": "off", "concurrency": 4}}}
    assert not told("again", runs, other)


def gain(runs: list[Judged], factors: Sequence[float]) -> None:
    """Let the empty start of each round have gained so much over recomputing."""
    for base, own, factor in zip(of("recompute", runs), of("empty", runs), factors, strict=True):
        totals = [sum(row.latency_s or 0.0 for row in run.rows) for run in (base, own)]
        faster([own], totals[0] / totals[1] / factor)


@pytest.mark.parametrize("rounds", [3, ROUNDS])
@pytest.mark.parametrize(("beyond", "found"), [(1.12, [("speed-up bound", "suspect")]), (0.97, [])])
def test_an_empty_start_faster_than_its_bound(rounds: int, beyond: float, found: list[tuple[str, str]]) -> None:
    runs = honest_result(1, rounds)
    asked = {**ASKED, "repeats": rounds}
    assert not told("empty", runs, asked)
    gain(runs, [2 * beyond] * rounds)  # every prompt is sent twice: at most 2
    assert told("empty", runs, asked) == found


@pytest.mark.parametrize("rounds", [1, 2])
def test_one_or_two_rounds_show_nothing_of_a_bound(rounds: int) -> None:
    """A stall of the baseline does as much; where there is no interval nobody is accused."""
    runs = honest_result(1, rounds)
    gain(runs, [2.3] * rounds)
    assert not told("empty", runs, {**ASKED, "repeats": rounds})


def with_touches(touches: Sequence[int], beyond: float) -> list[Judged]:
    """Let prompts be sent so many times in each round, and the empty start gain so much over that round's bound."""
    runs = []
    for repeat, count in enumerate(touches, 1):
        shapes = (replace(shape, repeat=repeat, touches=count) for shape in TREATMENTS.values())
        runs += [judged(honest_run(1, shape)) for shape in shapes]
    gain(runs, [count * beyond for count in touches])
    return runs


def test_each_round_is_held_against_the_bound_of_its_own_list() -> None:
    touches = (2, 4, 2, 4, 2)
    runs = with_touches(touches, 1.12)
    starts = empty_starts(of("empty", runs))
    assert [(one.requests, one.prompts, one.most_gain) for one in starts] == [(8 * n, 8, n) for n in touches]
    assert most_gain(starts) == pytest.approx((2**3 * 4**2) ** 0.2)
    (reason,) = judge_treatment("empty", runs, ASKED).reasons
    assert reason.text == (
        "throughput is 2.96 times the baseline's over 5 rounds; from an empty start at most 2.64 is possible (95 %"
        " interval of their quotient 1.12 to 1.12)"
    )
    assert not told("empty", with_touches(touches, 1.04))


def test_a_busy_machine_makes_no_bound_of_an_honest_server_suspect() -> None:
    """Rounds whose total times vary by 20 %, of empty starts that gain all that they can."""
    chance = random.Random(1)  # noqa: S311 - noise, no secret
    for rounds in (1, 2, 3, ROUNDS):
        found = 0
        for _ in range(40):
            runs = honest_result(1, rounds)
            gain(runs, [2 * chance.lognormvariate(0, 0.28) for _ in range(rounds)])
            found += told("empty", runs, {**ASKED, "repeats": rounds}) != []
        assert found <= 2, rounds  # 2.5 % of them, and fewer for the slack


def test_rounds_with_failures_and_other_loads_are_held_against_no_bound() -> None:
    runs = honest_result(1)
    gain(runs, [2.4] * ROUNDS)
    asked = {**ASKED, "concurrencies": {**dict.fromkeys(TREATMENTS, 1), "recompute": 4}}
    assert not told("empty", runs, asked)  # four at a time are another baseline
    rate = {"request_rate": 2.0, "arrival": "constant"}
    assert not told("empty", runs, {**ASKED, "open_loops": {"recompute": rate, "empty": {**rate, "request_rate": 4.8}}})
    assert told("empty", runs, {**ASKED, "open_loops": {"recompute": rate, "empty": rate}})
    for run in of("empty", runs)[:3]:
        run.rows[0] = replace(run.rows[0], status="cut", latency_s=None)
    assert not told("empty", runs)  # two whole rounds are left


def test_a_failed_first_touch_leaves_the_tiers_of_the_rounds_alike() -> None:
    runs = honest_result(1)
    run = of("empty", runs)[2]
    first = min(row.sent_ns or 0 for row in run.rows if row.prompt_id == "p3")
    run.rows[:] = [
        replace(row, status="cut", latency_s=None, tier="unproven") if row.sent_ns == first else row for row in run.rows
    ]
    assert not told("empty", runs)


@pytest.mark.parametrize("name", ["recompute", "empty"])
def test_runs_whose_answers_have_no_token_are_left_out_of_the_bound(name: str) -> None:
    runs = honest_result(1)
    for run in of(name, runs)[:2]:
        run.rows[:] = [replace(row, ttft_s=None, latency_s=None) for row in run.rows]
    assert ("speed-up bound", "suspect") not in told("empty", runs)
    for run in of(name, runs):
        run.rows[:] = [replace(row, ttft_s=None, latency_s=None) for row in run.rows]
    assert not told("empty", runs)


def test_the_arm_that_is_not_the_baseline_is_told_of_an_equal_pair() -> None:
    runs = honest_result(1)
    faster(of("recompute", runs), 0.8)
    asked = {**ASKED, "treatments": ["again", "recompute", "empty", "g4"]}
    assert same_pairs(asked, {}) == [("recompute", "again")]
    assert told("again", runs, asked) == [("A/A pair", "suspect")]
    assert ("A/A pair", "suspect") not in told("recompute", runs, asked)


def test_a_warm_tier_faster_than_its_reads_is_told_by_the_run_alone() -> None:
    """The baseline has no part in it, so no treatment is needed to say it."""
    runs = honest_result(1)
    for run in of("g4", runs):
        run.rows[:] = [replace(row, ttft_s=(row.server_storage_s or 0.0) / 1.07) for row in run.rows]
    assert not told("g4", runs)
    made = honest_run(1)
    made.edit_all(server_storage_s=1.07)
    assert [reason.rule for reason in made.verdict.reasons] == ["storage clock"]


def test_an_import_is_judged_by_its_runs_alone() -> None:
    runs = honest_result(1)[:2]
    assert judge_treatment("recompute", runs, {**ASKED, "imported": "aiperf"}) == checks.Verdict("valid", ())


def test_a_treatments_reason_is_in_the_summary_and_on_the_screen(tmp_path: Path) -> None:
    result = execute(make_scenario(), FakeTestbed(tmp_path / "tier"), tmp_path)
    path = result.path / "runs" / "r02-g4" / "run.json"
    record = store.read_json(path)
    record["ledger"]["hit_efficiency"] = 0.98
    store.write_json(path, record)
    summed = summary.summarise(result.path)
    assert [run["word"] for run in summed["runs"]] == ["valid"] * 4
    assert (summed["verdict"], summed["treatments"]["g4"]["verdict"]) == ("suspect", "suspect")
    assert summed["treatments"]["recompute"]["reasons"] == []
    assert [one["rule"] for one in summed["treatments"]["g4"]["reasons"]] == ["efficiency over rounds"]
    text = " ".join(shown_summary(typed_summary.read(result.path), 100).split())
    assert "suspect, g4: hit efficiency differs over the rounds, 0.980 to 1.000" in text


def test_reasons_are_gathered_worst_first_with_all_that_they_hold_for() -> None:
    note, bad = checks.Reason("note", "a", "x", "y."), checks.Reason("invalid", "b", "x", "y.")
    counted = checks.Reason("suspect", "suspect rounds", "1 of 2", "z.")
    runs = [
        {"run_id": "r1", **checks.Verdict("valid", (note,)).to_json()},
        {"run_id": "r2", **checks.Verdict("invalid", (note, bad)).to_json()},
    ]
    treatments = {"g4": {"reasons": checks.Verdict("suspect", (counted, bad)).to_json()["reasons"]}, "old": {}}
    found = gather_reasons({"runs": runs, "treatments": treatments})
    assert [(reason["rule"], where) for reason, where in found] == [("b", ["r2", "g4"]), ("a", ["r1", "r2"])]
