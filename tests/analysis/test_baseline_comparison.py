"""Ratios against the baseline of a result: by round, and by rank where rounds are too few."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvbench.analysis import baseline_comparison
from kvbench.analysis.baseline_comparison import Place
from kvbench.analysis.measured_result import Dataset, SealedRun
from kvbench.analysis.metrics import METRICS
from kvbench.analysis.stats.ratios import ratio_by_round
from kvbench.result.plan_record import Design, PlanRecord
from tests.builders.requests import FOUR, request, run_of


def test_ranks_speak_where_rounds_are_too_few() -> None:
    arms = (run_of(FOUR), run_of([request(number, 1.0 + number) for number in range(16)]))
    found = baseline_comparison.ranks_between(([arms[0]], [arms[1]]), Place(METRICS["ttft_p50"]), ("g4", "recompute"))
    assert found is not None
    assert found.sentence == "all 4 of g4 are below all 16 of recompute"
    assert found.p_value < 0.001
    assert baseline_comparison.ranks_between(([], [arms[1]]), Place(METRICS["ttft_p50"]), ("a", "b")) is None
    assert baseline_comparison.ranks_between(([arms[0]], [arms[1]]), Place(METRICS["hit_rate"]), ("a", "b")) is None


def dataset_of(*runs: SealedRun) -> Dataset:
    design = Design("q", "emulator", ("recompute", "g4"), 2, baseline="recompute")
    plan = PlanRecord("s", "f", "s", 1, (), design)
    return Dataset(Path("result"), plan, {}, list(runs), None)


def test_a_zero_has_no_ratio() -> None:
    none_cached = run_of([request(1, 0.1, cached_tokens=0)])
    rounds = baseline_comparison.rounds_of(dataset_of(none_cached), Place(METRICS["hit_rate"]))
    assert "g4" not in rounds
    assert baseline_comparison.ratio_between(rounds, "recompute", "g4", "rate").ratio is None


def test_ratios_are_those_of_the_rounds_that_both_have() -> None:
    """Rounds 1 to 3 of the baseline, 2 to 4 of the other: 0.4 / 0.1 and 0.8 / 0.1; the figure is the one by round."""
    times = {"recompute": {1: 0.2, 2: 0.4, 3: 0.8}, "g4": {2: 0.1, 3: 0.1, 4: 0.1}}
    runs = [
        run_of([request(1, time)], repeat=repeat, treatment=name)
        for name in times
        for repeat, time in times[name].items()
    ]
    rounds = baseline_comparison.rounds_of(dataset_of(*runs), Place(METRICS["ttft_p50"]))
    found = baseline_comparison.ratio_between(rounds, "recompute", "g4", "time")
    assert found.ratio == pytest.approx(32**0.5)
    assert (found.rounds, found.left_out) == (2, (1, 4))
    arms = [{n: [time] for n, time in times[name].items()} for name in ("recompute", "g4")]
    expected = ratio_by_round(arms[0], arms[1])
    assert found.logs == pytest.approx(expected.logs)
    assert baseline_comparison.ratio_between(rounds, "g4", "recompute", "rate").ratio == pytest.approx(found.ratio)
