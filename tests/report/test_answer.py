"""The sentences that answer a scenario's question: which figure answers it, and in which words."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.analysis import summary
from kvbench.analysis.stats.ratios import TOO_FEW
from kvbench.analysis.summary_types import EmptyStart
from kvbench.report import answer
from kvbench.report.remarks import comparison_sentences
from kvbench.report.tables.ttft_full_scale import has_load_ratio
from kvbench.report.text import ratio
from kvbench.result.record_files import read_run, write_run
from kvbench.result.verdict import Reason
from kvbench.scenario import plan
from tests.builders import summaries
from tests.builders.report_inputs import report_input
from tests.builders.results import Case, build
from tests.builders.screens import shown_summary

if TYPE_CHECKING:
    from pathlib import Path


def test_the_baseline_over_again_is_no_answer_and_a_floor_of_one_round_says_so(tmp_path: Path) -> None:
    treatments = {"recompute": {"cache": "off"}, "again": {"cache": "off"}, "g4": {"cache": {"warm": "g4"}}}
    case = Case(treatments=treatments, lengths=["10k"], repeats=1, published=None)
    summed = summary.summarise(build(case, tmp_path))
    (sentence,) = answer.answers(summed)
    assert "when KV is read back from G4 than when it is recomputed" in sentence
    told = " ".join(comparison_sentences(summed))
    assert "(A/A, again against recompute; the most seen in 1 round)" in told
    assert "by rank" not in told


def test_a_drawn_list_is_answered_by_its_rate_and_its_bound(tmp_path: Path) -> None:
    """Six requests of three prompts: half of them must be computed, so an empty start can at most double the rate."""
    treatments = {"recompute": {"cache": "off"}, "g4": {"cache": {"warm": "g4"}}}
    load = {"concurrency": 4, "requests": 6, "draw": "round_robin"}
    case = Case(treatments=treatments, lengths=["10k", "30k", "50k"], load=load, published=None, per_length=1)
    summed = summary.summarise(build(case, tmp_path))
    assert summed.headline == "requests_per_s"
    sentence, marked = answer.answers(summed)
    assert marked.startswith("Suspect: ")  # the client of made-up runs is idle between requests
    assert sentence.startswith("Throughput of g4 and recompute is equivalent within 5 % (")  # they are made 5 s apart
    assert "requests/s, n = 30 requests each; 95\u00a0% interval" in sentence
    assert all(item.storage_bytes_per_s is None for item in summed.treatments.values())  # they wait for others
    assert not has_load_ratio(summed)


def test_a_suspect_treatment_is_named_beside_its_sentences_and_marked_in_the_tables(tmp_path: Path) -> None:
    summed = summary.summarise(build(Case(lengths=["10k"]), tmp_path))
    assert not any("Suspect" in sentence for sentence in answer.answers(summed))
    doubted = [one.run_id for one in summed.runs if one.treatment == "g4"][:1]
    reason = Reason("suspect", "overrun", "x", "y")
    runs = tuple(replace(one, reasons=(reason,)) if one.run_id in doubted else one for one in summed.runs)
    g4 = replace(summed.treatments["g4"], verdict="suspect")
    summed = replace(summed, runs=runs, treatments={**summed.treatments, "g4": g4})
    assert answer.answers(summed)[-1] == "Suspect: g4 (overrun). Read the verdict before these figures are used."
    text = shown_summary(report_input(summed), 100)
    assert text.count(" g4 (!)") >= 2
    assert "recompute (!)" not in text
    assert "(!) suspect: the verdict says why." in " ".join(text.split())
    imported = replace(summed, imported={"export": "AIPerf", "file": "x", "tool_version": None})
    assert not any(sentence.startswith("Suspect") for sentence in answer.answers(imported))


@pytest.mark.parametrize("draw", ["round_robin", "with_replacement"])
def test_the_bound_of_an_empty_start_stands_beside_the_counts_that_give_it(draw: str, tmp_path: Path) -> None:
    treatments = {"recompute": {"cache": "off"}, "empty": {"cache": "cold"}}
    load = {"concurrency": 4, "requests": 24, "draw": draw}
    case = Case(treatments=treatments, lengths=["10k"], load=load, published=None, per_length=12)
    path = build(case, tmp_path)
    for run in path.glob("runs/*-empty/run.json"):
        record = read_run(run.parent)
        write_run(run.parent, replace(record, cache=replace(record.cache, state="cold")))
    summed = summary.summarise(path)
    item = summed.treatments["empty"]
    runs = [run for run in plan.expand(case.scenario()).runs if run.treatment == "empty"]
    lists = [[one.prompt_id for one in run.draws] for run in runs]
    assert [(one.requests, one.prompts) for one in item.empty_starts] == [(24, len({*one})) for one in lists]
    assert [one.most_gain for one in item.empty_starts] == pytest.approx([24 / len({*one}) for one in lists])
    assert item.most_gain == pytest.approx(statistics.geometric_mean(24 / len({*one}) for one in lists))
    assert summed.treatments["recompute"].most_gain is None
    assert item.most_gain is not None
    told = answer.answers(summed)[0]
    counts = sorted(len({*one}) for one in lists)
    some = f"{counts[0]} to {counts[-1]}" if draw == "with_replacement" else "12"
    assert (
        f" An empty start cannot give more than {ratio(item.most_gain)} the throughput of recomputing: in each"
        f" of 5 rounds {some} of 24 requests are the first of their prompt and must be computed"
    ) in told
    span = f", which bounds a round at {ratio(24 / counts[-1])} to {ratio(24 / counts[0])}."
    assert told.endswith(span) is (draw == "with_replacement")


def test_prompts_of_several_lengths_are_weighed_by_their_tokens() -> None:
    start = EmptyStart(repeat=1, requests=3, prompts=2, most_gain=1.9)
    told = answer._bound(summaries.treatment(most_gain=1.9, empty_starts=(start,)))
    assert told.endswith(
        "1.90x the throughput of recomputing: 2 of 3 requests are the first of their prompt and must be computed;"
        " their lengths differ, so they are weighed by tokens."
    )


def test_what_starts_a_group_at_another_concurrency_is_no_answer(tmp_path: Path) -> None:
    treatments = {
        "base_1": {"cache": "off", "concurrency": 1},
        "g4_1": {"cache": {"warm": "g4"}, "concurrency": 1, "against": "base_1"},
        "base_4": {"cache": "off", "concurrency": 4},
        "g4_4": {"cache": {"warm": "g4"}, "concurrency": 4, "against": "base_4"},
    }
    case = Case(treatments=treatments, baseline="base_1", lengths=["10k"], repeats=3, published=None)
    told = " ".join(answer.answers(summary.summarise(build(case, tmp_path))))
    assert "base_4 as under base_1" not in told
    assert "base_4 and base_1" not in told
    assert "under g4_1 as under base_1" in told
    assert "g4_4" in told


def test_tiers_are_told_in_short_where_they_are_several() -> None:
    tiers = {"g1": 5, "recompute": 2, "mixed": 1, "unproven": 2}
    assert answer._served(tiers).replace("\u00a0", " ") == (
        "proven of those requests: 50 % from G1, 20 % computed, 10 % from several tiers, and for 20 % of those requests"
        " (2 of 10) it is not proven which tier served them"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ratio": 1.72, "word": "faster"}, "Throughput is 1.72x as high under a as under b ("),
        ({"ratio": 0.845, "word": "slower"}, "Throughput is 15.5\u00a0% lower under a than under b ("),
        ({"ratio": 1.3, "low": None, "word": TOO_FEW}, "Throughput is 30\u00a0% higher under a than under b ("),
        ({"ratio": 1.004, "low": None, "word": TOO_FEW}, "Throughput under a differs from that under b by 0.4"),
        ({"word": "no difference shown"}, "No difference in throughput is shown between a and b ("),
        ({"word": "equivalent within 5 %"}, "Throughput of a and b is equivalent within 5 % ("),
    ],
)
def test_rates_are_told_in_words(changes: dict[str, Any], words: str) -> None:
    judged = summaries.judged_ratio(1.0, low=0.9, high=1.1, reason="the 95 % interval contains 1")
    item = summaries.treatment(
        cache_state="off",
        tiers={"recompute": 4},
        metrics=summaries.metrics(requests_per_s=2.0, ttft_p50=0.5),
        comparisons={"requests_per_s": replace(judged, **changes)},
    )
    one = summaries.summary(
        treatments={"a": item, "b": item}, baselines={"a": "b", "b": None}, headline="requests_per_s"
    )
    (sentence,) = answer.answers(one)
    assert sentence.startswith(words)
