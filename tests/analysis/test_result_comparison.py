"""Two results side by side: planted slowdowns, one result twice, facts, and questions that differ."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.analysis import gates
from kvbench.analysis.result_comparison import compare
from kvbench.errors import ResultError
from kvbench.importers import write_result as imports
from kvbench.result.record_files import read_plan, write_plan
from kvbench.typed_json import to_json
from tests.builders.results import FACTS, Case, build

if TYPE_CHECKING:
    from kvbench.analysis.comparison_types import ComparedFigure, ResultComparison

LENGTHS = ["10k", "130k"]
BASE = Case(lengths=LENGTHS)
EXPORT = Path("tests/data/vllm_bench/concurrency_2.json")


def later(**changes: Any) -> Case:
    """Another result of the same scenario: its requests spread in another order."""
    return Case(**{"lengths": LENGTHS, "shift": 4, "folder": "20251122T200000Z", **changes})


def compared(tmp_path: Path, other: Case, base: Case = BASE, **options: Any) -> ResultComparison:
    return compare(build(base, tmp_path), build(other, tmp_path), **options)


def figure(found: ResultComparison, metric: str, treatment: str, length: int | None = None) -> ComparedFigure:
    (one,) = [one for one in found.figures if (one.metric, one.treatment, one.length) == (metric, treatment, length)]
    return one


def interval(one: ComparedFigure) -> tuple[float, float, float]:
    """Return the lower end, the ratio and the upper end of a figure that has an interval."""
    assert one.low is not None
    assert one.ratio is not None
    assert one.high is not None
    return one.low, one.ratio, one.high


@pytest.mark.parametrize(
    ("slower", "margin", "word"),
    [
        (1.0, 0.05, "equivalent within 5 %"),
        (1.03, 0.05, "equivalent within 5 %"),
        (1.03, 0.01, "slower"),
        (1.10, 0.05, "slower"),
        (1.50, 0.05, "slower"),
        (0.80, 0.05, "faster"),
    ],
)
def test_a_planted_slowdown_is_found_with_its_size(slower: float, margin: float, word: str, tmp_path: Path) -> None:
    found = compared(tmp_path, later(slower={"g4": slower}), margin=margin)
    for length in (10_000, 130_000):
        one = figure(found, "ttft_p50", "g4", length)
        low, ratio, high = interval(one)
        assert low < slower < high
        assert ratio == pytest.approx(slower, rel=0.005)
        assert one.word == word, one.reason
        assert figure(found, "ttft_p50", "recompute", length).word == f"equivalent within {100 * margin:g} %"
    assert found.facts == ()


def test_a_rate_falls_where_a_time_grows(tmp_path: Path) -> None:
    found = compared(tmp_path, later(slower={"g4": 1.5}))
    rate, time = figure(found, "user_rate_mean", "g4"), figure(found, "latency_p50", "g4", 130_000)
    assert (rate.word, time.word) == ("slower", "slower")
    assert interval(rate)[2] < 1 < interval(time)[0]


def test_a_total_time_and_its_rate_change_alike(tmp_path: Path) -> None:
    """One request a run, so that the whole load is its latency."""
    found = compared(tmp_path, later(lengths=["130k"], slower={"recompute": 1.5}), Case(lengths=["130k"]))
    rate, time = (figure(found, name, "recompute") for name in ("requests_per_s", "total_time"))
    longer = interval(time)[1]
    assert longer == pytest.approx(1.5, rel=0.01)
    assert rate.ratio == pytest.approx(1 / longer)
    assert (rate.word, time.word) == ("slower", "slower")


def test_the_means_over_rounds_divide_to_the_ratio(tmp_path: Path) -> None:
    """Medians over all rounds need not: the ratio is of the rounds' own medians."""
    found = compared(tmp_path, later(jitter=0.3, slower={"g4": 1.3}), Case(lengths=LENGTHS, jitter=0.3))
    shown = [one for one in found.figures if one.ratio is not None]
    assert len(shown) > 10
    for one in shown:
        assert one.over_rounds is not None
        base, other = one.over_rounds
        assert base is not None
        assert other is not None
        assert other / base == pytest.approx(one.ratio)
    one = figure(found, "ttft_p50", "g4", 130_000)
    assert one.other.value is not None
    assert one.base.value is not None
    assert one.other.value / one.base.value != pytest.approx(one.ratio, rel=1e-4)


def test_noise_shows_no_difference(tmp_path: Path) -> None:
    found = compared(tmp_path, later(jitter=0.3, slower={"g4": 1.03}), Case(lengths=LENGTHS, jitter=0.3))
    one = figure(found, "ttft_p50", "g4", 130_000)
    assert (one.word, one.reason) == ("no difference shown", "the 95 % interval contains 1")


def test_the_larger_noise_floor_of_both_counts(tmp_path: Path) -> None:
    treatments = {"recompute": {"cache": "off"}, "again": {"cache": "off"}, "g4": {"cache": {"warm": "g4"}}}
    base = Case(lengths=LENGTHS, treatments=treatments)
    drifting = later(treatments=treatments, slower={"again": 1.2, "g4": 1.1})
    found = compared(tmp_path, drifting, base)
    one = figure(found, "ttft_p50", "g4", 130_000)
    assert one.noise_floor is not None
    assert one.noise_floor > 1.19
    assert interval(one)[0] > 1
    assert one.word == "no difference shown"
    assert one.reason.startswith("the baseline differs from itself by up to 1.2")
    assert found.base.same_pairs == found.other.same_pairs == (("recompute", "again"),)
    assert found.base.same_pair_rounds == 5


def test_a_result_is_no_different_from_itself(tmp_path: Path) -> None:
    base = build(BASE, tmp_path)
    found = compare(base, base, gates=[gates.parse("ttft_p50 > 1.0")])
    assert found.same_result
    assert {one.word for one in found.figures} == {"no difference shown"}
    assert {one.ratio for one in found.figures} == {1.0, None}
    assert [gate.word for gate in found.gates] == ["passed"]


def test_a_copy_is_the_same_result_and_another_with_equal_facts_is_not(tmp_path: Path) -> None:
    base, copied = build(BASE, tmp_path / "one"), build(BASE, tmp_path / "two")
    assert compare(base, copied).same_result
    assert not compared(tmp_path, later()).same_result


def test_facts_that_differ_are_named(tmp_path: Path) -> None:
    facts = copy.deepcopy(FACTS)
    facts["host"]["kernel"], facts["host"]["load_1min"] = "6.14.2", 7.7
    facts["paths"]["g4"]["mount_options"] = "rw,relatime,nobarrier"
    facts["paths"]["g4"]["queue"]["scheduler"] = "none [mq-deadline]"
    found = compared(tmp_path, later(facts=facts, repeats=4))
    named = ["host.kernel", "paths.g4.mount_options", "paths.g4.queue.scheduler", "repeats"]
    assert [one.name for one in found.facts] == named
    assert (found.facts[-1].base, found.facts[-1].other) == (5, 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lengths": ["10k", "90k"]}, "lengths 10000, 130000 against 10000, 90000"),
        ({"treatments": {"recompute": {"cache": "off"}, "g4": {"cache": "off"}}}, "cache state of g4 warm(g4) against"),
        ({"treatments": {"recompute": {"cache": "off"}}}, "treatments g4, recompute against recompute"),
        ({"scale": {"time": 4, "bytes": 512}}, "scale"),
        ({"scale": None}, "server emulator against external"),
    ],
)
def test_other_questions_are_refused_unless_asked_for(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="asked different questions") as refused:
        compared(tmp_path, later(**changes))
    assert words in refused.value.message
    assert "--anyway" in refused.value.remedy
    found = compared(tmp_path / "again", later(**changes), anyway=True)
    assert found.question
    assert figure(found, "ttft_p50", "recompute", 10_000).ratio is not None


def test_a_closed_loop_against_an_open_one_is_refused_in_words(tmp_path: Path) -> None:
    base, other = build(BASE, tmp_path), build(later(), tmp_path)
    made = read_plan(other)
    load = {**made.design.setting["load"], "request_rate": 3.0}  # type: ignore[dict-item]
    write_plan(other, replace(made, design=replace(made.design, setting={**made.design.setting, "load": load})))
    with pytest.raises(ResultError, match=r"load: request_rate none against 3\.0"):
        compare(base, other)


def test_results_without_a_treatment_in_common_are_refused(tmp_path: Path) -> None:
    other = later(treatments={"another": {"cache": "off"}}, baseline=None)
    with pytest.raises(ResultError, match="no treatment in common"):
        compared(tmp_path, other, anyway=True)


def test_two_rounds_have_no_interval_but_ranks(tmp_path: Path) -> None:
    found = compared(tmp_path, later(repeats=2, slower={"g4": 1.5}), Case(lengths=LENGTHS, repeats=8))
    one = figure(found, "ttft_p50", "g4", 130_000)
    assert one.ratio == pytest.approx(1.5, rel=0.01)
    assert (one.low, one.word, one.reason) == (None, "too few rounds", "fewer than 3 rounds (8 and 2)")
    assert one.rank is not None
    assert one.rank.sentence.startswith("all 2 of B are above all 8 of A")


def test_a_treatment_without_a_valid_run_cannot_be_compared(tmp_path: Path) -> None:
    broken = later(failing=tuple(f"r{number:02d}-g4" for number in range(1, 6)))
    found = compared(tmp_path, broken, gates=[gates.parse("ttft_p50@g4 > 1.05")])
    one = figure(found, "ttft_p50", "g4", 130_000)
    assert (one.ratio, one.word, one.reason) == (None, "cannot be compared", "B has no figure")
    assert found.gates[0].word == "cannot be judged"
    assert figure(found, "ttft_p50", "recompute", 130_000).word == "equivalent within 5 %"


def test_imported_results_are_compared_with_what_they_have(tmp_path: Path) -> None:
    made = [imports.import_result("vllm", EXPORT, tmp_path, f"import-{number}") for number in (1, 2)]
    found = compare(made[0], made[1])
    assert found.question == ()
    ttft = [one for one in found.figures if one.metric == "ttft_p50"]
    assert all(one.length is None and one.is_length for one in ttft)
    assert all(one.ratio == pytest.approx(1.0) for one in ttft)
    json.dumps(to_json(found))
