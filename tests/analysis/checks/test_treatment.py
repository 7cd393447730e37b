"""Verdicts on treatments: what runs say together that none of them says alone."""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.analysis import dataset, metrics, summary
from kvbench.analysis.checks.empty_start import empty_starts, most_gain
from kvbench.analysis.checks.treatment import gather_reasons, judge_treatment
from kvbench.analysis.measured_result import SealedRun
from kvbench.result.plan_record import Design, OpenLoop
from kvbench.result.record_files import read_run, write_run
from kvbench.result.verdict import Reason, Verdict
from tests.builders.made_up_runs import Shape, honest_run
from tests.builders.requests import frame_of
from tests.builders.results import Case, build

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from kvbench.result.records import Row
    from kvbench.result.run_record import RunRecord

TREATMENTS = {
    "recompute": Shape(state="off", treatment="recompute", touches=2),
    "again": Shape(state="off", treatment="again", touches=2),
    "empty": Shape(state="cold", treatment="empty", touches=2),
    "g4": Shape(treatment="g4", touches=2),
}
ROUNDS = 5
DESIGN = Design(
    question="q",
    server="emulator",
    treatments=tuple(TREATMENTS),
    baseline="recompute",
    repeats=ROUNDS,
    concurrency=1,
    definitions={
        "recompute": {"cache": "off", "against": None},
        "again": {"cache": "off", "against": "g4"},
        "empty": {"cache": "cold", "against": None},
        "g4": {"cache": {"warm": "g4"}, "against": None},
    },
)


@dataclass
class Judged:
    """A made-up run with its verdict, as `dataset.SealedRun` has it."""

    record: RunRecord
    rows: list[Row]
    verdict: Verdict
    frame: tuple[list[Row], pd.DataFrame] | None = None

    @property
    def measured(self) -> pd.DataFrame:
        if self.frame is None or self.frame[0] != self.rows:  # made again where a row was changed
            self.frame = (list(self.rows), frame_of(self.rows))
        return self.frame[1]

    def edit(self, number: int, **fields: Any) -> None:
        self.rows[number] = replace(self.rows[number], **fields)

    def edit_all(self, **fields: Any) -> None:
        self.rows[:] = [replace(row, **fields) for row in self.rows]


@functools.cache
def _honest(seed: int, shape: Shape) -> Judged:
    made = honest_run(seed, shape)
    return Judged(made.record, made.rows, made.verdict, (list(made.rows), made.measured))


def judged(seed: int, shape: Shape) -> Judged:
    made = _honest(seed, shape)
    return replace(made, rows=list(made.rows))


def honest_result(seed: int, rounds: int = ROUNDS) -> list[Judged]:
    """Make all rounds of all treatments; a round's drift is common to its treatments."""
    runs = []
    for repeat in range(1, rounds + 1):
        drift = 1 + 0.1 * math.sin(seed + repeat)
        runs += [judged(seed, replace(shape, repeat=repeat, drift=drift)) for shape in TREATMENTS.values()]
    return runs


def rules(name: str, runs: list[Judged], design: Design = DESIGN) -> list[tuple[str, str]]:
    return [(one.rule, one.level) for one in judge_treatment(name, runs, design).reasons]


def of(name: str, runs: list[Judged]) -> list[Judged]:
    return [run for run in runs if run.record.treatment == name]


def faster(runs: list[Judged], share: float) -> None:
    """Let all these runs have taken a share of their time; the server's clock is left as it is."""
    for run in runs:
        run.record = replace(run.record, load_s=(run.record.load_s or 0.0) * share)
        run.rows[:] = [
            replace(row, ttft_s=share * (row.ttft_s or 0.0), latency_s=share * (row.latency_s or 0.0))
            for row in run.rows
        ]


def test_honest_treatments_are_never_called_suspect() -> None:
    for seed in range(4):
        runs = honest_result(seed)
        assert {run.verdict.word for run in runs} == {"valid"}
        for name in TREATMENTS:
            assert judge_treatment(name, runs, DESIGN) == Verdict("valid", ()), (seed, name)


def test_fewer_rounds_than_planned() -> None:
    runs = honest_result(1)
    runs.remove(of("g4", runs)[-1])
    of("g4", runs)[0].verdict = Verdict("invalid", ())
    verdict = judge_treatment("g4", runs, DESIGN)
    assert verdict.word == "invalid"  # a run of it is
    assert [(one.rule, one.level) for one in verdict.reasons] == [("fewer rounds", "suspect")]
    assert verdict.reasons[0].text == "3 of 5 planned rounds give a figure: r01-g4 invalid; 1 not made yet"


def test_no_round_gives_a_figure() -> None:
    runs = honest_result(1)
    for run in of("g4", runs):
        run.verdict = Verdict("invalid", ())
    assert rules("g4", runs) == [("fewer rounds", "invalid")]


def test_rounds_that_are_not_made_yet_are_not_wrong_and_going_on_makes_them() -> None:
    runs = honest_result(1, 2)
    for made in (runs, []):
        verdict = judge_treatment("g4", made, DESIGN)
        (reason,) = verdict.reasons
        assert (verdict.word, reason.rule) == ("suspect", "fewer rounds")
        assert reason.text == "not all 5 planned rounds are made: the result is not finished"
        assert reason.remedy.startswith("Run the same command again")


def test_suspect_rounds_are_named() -> None:
    runs = honest_result(1)
    of("g4", runs)[2].verdict = Verdict("suspect", ())
    verdict = judge_treatment("g4", runs, DESIGN)
    assert (verdict.word, verdict.reasons[0].text) == ("suspect", "1 of 5 rounds are suspect: r03-g4")


def test_tiers_that_differ_over_the_rounds() -> None:
    runs = honest_result(1)
    run = of("g4", runs)[2]
    run.edit_all(tier="unproven")
    assert ("tiers over rounds", "suspect") in rules("g4", runs)
    for other in of("g4", runs):
        other.edit_all(tier="g3")
    assert not rules("g4", runs)


def test_later_turns_may_be_served_from_elsewhere_in_each_round() -> None:
    runs = honest_result(1)
    run = of("g4", runs)[2]
    run.edit(1, tier="g2")
    assert ("tiers over rounds", "suspect") in rules("g4", runs)
    run.edit(1, turn=1)
    assert ("tiers over rounds", "suspect") not in rules("g4", runs)


@pytest.mark.parametrize(("spread", "found"), [(0.0101, [("efficiency over rounds", "suspect")]), (0.0099, [])])
def test_hit_efficiency_that_differs_over_the_rounds(spread: float, found: list[tuple[str, str]]) -> None:
    runs = honest_result(1)
    run = of("g4", runs)[1]
    run.record = replace(run.record, ledger=replace(run.record.ledger, hit_efficiency=1 - spread))
    assert rules("g4", runs) == found


@pytest.mark.parametrize(("share", "found"), [(0.93, [("A/A pair", "suspect")]), (0.985, [])])
def test_equal_treatments_must_not_differ(share: float, found: list[tuple[str, str]]) -> None:
    runs = honest_result(1)
    for one, other in zip(of("recompute", runs), of("again", runs), strict=True):
        other.rows[:] = one.rows
    faster(of("again", runs), share)
    assert rules("again", runs) == found
    assert not rules("recompute", runs)  # said once, of the later one


def test_an_older_plan_without_definitions_knows_equal_treatments_by_their_state() -> None:
    runs = honest_result(1)
    faster(of("again", runs), 0.8)
    bare = replace(DESIGN, definitions={})
    assert rules("again", runs, bare) == [("A/A pair", "suspect")]
    other = replace(DESIGN, definitions={**DESIGN.definitions, "again": {"cache": "off", "concurrency": 4}})
    assert not rules("again", runs, other)


def gain(runs: list[Judged], factors: Sequence[float]) -> None:
    """Let the empty start of each round have gained so much over recomputing."""
    for base, own, factor in zip(of("recompute", runs), of("empty", runs), factors, strict=True):
        totals = [sum(row.latency_s or 0.0 for row in run.rows) for run in (base, own)]
        faster([own], totals[0] / totals[1] / factor)


@pytest.mark.parametrize("rounds", [3, ROUNDS])
@pytest.mark.parametrize(("beyond", "found"), [(1.12, [("speed-up bound", "suspect")]), (0.97, [])])
def test_an_empty_start_faster_than_its_bound(rounds: int, beyond: float, found: list[tuple[str, str]]) -> None:
    runs = honest_result(1, rounds)
    design = replace(DESIGN, repeats=rounds)
    assert not rules("empty", runs, design)
    gain(runs, [2 * beyond] * rounds)  # every prompt is sent twice: at most 2
    assert rules("empty", runs, design) == found


@pytest.mark.parametrize("rounds", [1, 2])
def test_one_or_two_rounds_show_nothing_of_a_bound(rounds: int) -> None:
    """A stall of the baseline does as much; where there is no interval nobody is accused."""
    runs = honest_result(1, rounds)
    gain(runs, [2.3] * rounds)
    assert not rules("empty", runs, replace(DESIGN, repeats=rounds))


def test_the_bound_judges_the_rate_that_the_table_prints() -> None:
    """AIPerf at concurrency 1 sends its list in one go, so its pauses are in the rate, whatever the latencies say."""
    runs = honest_result(1)
    for run in runs:
        load_s = 48.0 if run.record.cache.state == "off" else 20.0
        run.record = replace(run.record, sent_one_by_one=False, load_s=load_s)
    (reason,) = judge_treatment("empty", runs, DESIGN).reasons
    printed = [
        metrics.requests_per_s(SealedRun(run.record, run.measured, run.verdict))
        for run in (of("empty", runs)[0], of("recompute", runs)[0])
    ]
    assert printed == [pytest.approx(16 / 20), pytest.approx(16 / 48)]
    assert reason.text.startswith("throughput is 2.40 times the baseline's over 5 rounds")


def with_touches(touches: Sequence[int], beyond: float) -> list[Judged]:
    """Let prompts be sent so many times in each round, and the empty start gain so much over that round's bound."""
    runs = []
    for repeat, count in enumerate(touches, 1):
        shapes = (replace(shape, repeat=repeat, touches=count) for shape in TREATMENTS.values())
        runs += [judged(1, shape) for shape in shapes]
    gain(runs, [count * beyond for count in touches])
    return runs


def test_each_round_is_held_against_the_bound_of_its_own_list() -> None:
    touches = (2, 4, 2, 4, 2)
    runs = with_touches(touches, 1.12)
    starts = empty_starts(of("empty", runs))
    assert [(one.requests, one.prompts, one.most_gain) for one in starts] == [(8 * n, 8, n) for n in touches]
    assert most_gain(starts) == pytest.approx((2**3 * 4**2) ** 0.2)
    (reason,) = judge_treatment("empty", runs, DESIGN).reasons
    assert reason.text == (
        "throughput is 2.96 times the baseline's over 5 rounds; from an empty start at most 2.64 is possible (95 %"
        " interval of their quotient 1.12 to 1.12)"
    )
    assert not rules("empty", with_touches(touches, 1.04))


def test_a_busy_machine_makes_no_bound_of_an_honest_server_suspect() -> None:
    """Rounds whose total times vary by 20 %, of empty starts that gain all that they can."""
    chance = random.Random(1)  # noqa: S311 - noise, no secret
    for rounds in (3, ROUNDS):
        accused = 0
        for _ in range(20):
            runs = honest_result(1, rounds)
            gain(runs, [2 * chance.lognormvariate(0, 0.28) for _ in range(rounds)])
            pair = of("recompute", runs) + of("empty", runs)
            accused += rules("empty", pair, replace(DESIGN, repeats=rounds)) != []
        assert accused <= 1, rounds  # 2.5 % of them, and fewer for the slack


def test_rounds_with_failures_and_other_loads_are_held_against_no_bound() -> None:
    runs = honest_result(1)
    gain(runs, [2.4] * ROUNDS)
    other = replace(DESIGN, concurrencies={**dict.fromkeys(TREATMENTS, 1), "recompute": 4})
    assert not rules("empty", runs, other)  # four at a time are another baseline
    slow, fast = OpenLoop(2.0, "constant"), OpenLoop(4.8, "constant")
    assert not rules("empty", runs, replace(DESIGN, open_loops={"recompute": slow, "empty": fast}))
    assert rules("empty", runs, replace(DESIGN, open_loops={"recompute": slow, "empty": slow}))
    for run in of("empty", runs)[:3]:
        run.edit(0, status="cut", latency_s=None)
    assert not rules("empty", runs)  # two whole rounds are left


def test_a_failed_first_touch_leaves_the_tiers_of_the_rounds_alike() -> None:
    runs = honest_result(1)
    run = of("empty", runs)[2]
    first = min(row.sent_ns or 0 for row in run.rows if row.prompt_id == "p3")
    run.rows[:] = [
        replace(row, status="cut", latency_s=None, tier="unproven") if row.sent_ns == first else row for row in run.rows
    ]
    assert not rules("empty", runs)


@pytest.mark.parametrize("name", ["recompute", "empty"])
def test_runs_whose_answers_have_no_token_are_left_out_of_the_bound(name: str) -> None:
    runs = honest_result(1)
    for run in of(name, runs)[:2]:
        run.edit_all(ttft_s=None, latency_s=None)
    assert ("speed-up bound", "suspect") not in rules("empty", runs)
    for run in of(name, runs):
        run.edit_all(ttft_s=None, latency_s=None)
    assert not rules("empty", runs)


def test_the_arm_that_is_not_the_baseline_is_told_of_an_equal_pair() -> None:
    runs = honest_result(1)
    faster(of("recompute", runs), 0.8)
    design = replace(DESIGN, treatments=("again", "recompute", "empty", "g4"))
    assert design.same_pairs({}) == [("recompute", "again")]
    assert rules("again", runs, design) == [("A/A pair", "suspect")]
    assert ("A/A pair", "suspect") not in rules("recompute", runs, design)


def test_a_warm_tier_faster_than_its_reads_is_told_by_the_run_alone() -> None:
    """The baseline has no part in it, so no treatment is needed to say it."""
    runs = honest_result(1)
    for run in of("g4", runs):
        run.rows[:] = [replace(row, ttft_s=(row.server_storage_s or 0.0) / 1.07) for row in run.rows]
    assert not rules("g4", runs)
    made = honest_run(1)
    made.edit_all(server_storage_s=1.07)
    assert [reason.rule for reason in made.verdict.reasons] == ["storage clock"]


def test_an_import_is_judged_by_its_runs_alone() -> None:
    runs = honest_result(1)[:2]
    assert judge_treatment("recompute", runs, replace(DESIGN, imported="aiperf")) == Verdict("valid", ())


def test_a_treatments_reason_is_in_the_summary(tmp_path: Path) -> None:
    folder = build(
        Case(repeats=2, published=None, baseline=None, treatments={"g4": {"cache": {"warm": "g4"}}}), tmp_path
    )
    run_folder = folder / "runs" / "r02-g4"
    record = read_run(run_folder)
    write_run(run_folder, replace(record, ledger=replace(record.ledger, hit_efficiency=0.98)))
    summed = summary.summarise(folder)
    assert {run.verdict for run in summed.runs} == {"valid"}
    assert (summed.verdict, summed.treatments["g4"].verdict) == ("suspect", "suspect")
    assert [reason.rule for reason in summed.treatments["g4"].reasons] == ["efficiency over rounds"]
    gathered = [(reason.rule, owners) for reason, owners in gather_reasons(summed)]
    assert gathered[0] == ("efficiency over rounds", ["g4"])


def test_the_evidence_of_a_request_that_a_reason_names_is_read_from_its_run(tmp_path: Path) -> None:
    case = Case(repeats=1, published=None, baseline=None, treatments={"g4": {"cache": {"warm": "g4"}}})
    folder = build(replace(case, unproven=("r01-g4",)), tmp_path)
    (run,) = dataset.read(folder).runs
    (reason,) = (one for one in run.verdict.reasons if one.rule == "tier unproven")
    assert reason.text == "7 of 7 requests were unproven, not g4: the server has no hit counters"
    assert dataset.tier_evidence(folder / "runs" / "r01-g4", "nobody") is None


def test_reasons_are_gathered_worst_first_with_all_that_they_hold_for(tmp_path: Path) -> None:
    note, bad = Reason("note", "a", "x", "y."), Reason("invalid", "b", "x", "y.")
    counted = Reason("suspect", "suspect rounds", "1 of 2", "z.")
    summed = summary.summarise(build(Case(repeats=1), tmp_path))
    one, other = summed.runs
    runs = (replace(one, run_id="r1", reasons=(note,)), replace(other, run_id="r2", reasons=(note, bad)))
    treatments = {
        "g4": replace(summed.treatments["g4"], reasons=(counted, bad)),
        "recompute": replace(summed.treatments["recompute"], reasons=()),
    }
    gathered = gather_reasons(replace(summed, runs=runs, treatments=treatments))
    assert gathered == [(bad, ["r2", "g4"]), (note, ["r1", "r2"])]
