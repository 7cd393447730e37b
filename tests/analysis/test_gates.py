"""Gates of a comparison: what trips them, what cannot be judged and what would change that, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvbench.analysis import gates
from kvbench.errors import OptionError
from tests.analysis.test_result_comparison import compared, later

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("expression", "slower", "word"),
    [
        ("ttft_p50 > 1.05", 1.10, "tripped"),
        ("ttft_p50@g4/130k >= 1.05", 1.10, "tripped"),
        ("ttft_p50@recompute > 1.05", 1.10, "passed"),
        ("ttft_p50/10k > 1.2", 1.10, "passed"),
        ("ttft_p50 > 1.02", 1.03, "tripped"),  # the margin of equivalence plays no part
        ("ttft_p50/all > 1.05", 1.10, "tripped"),
        ("requests_per_s < 0.9", 1.50, "passed"),  # the synthetic load hardly depends on g4's TTFT
        ("total_time@recompute > 1.3", 1.50, "passed"),
        ("hit_rate < 0.98", 1.0, "passed"),  # 0 in both for recompute
        ("ttft_p99 > 1.05", 1.50, "cannot be judged"),
        ("goodput_per_s < 0.9", 1.50, "cannot be judged"),
    ],
)
def test_gates(expression: str, slower: float, word: str, tmp_path: Path) -> None:
    found = compared(tmp_path, later(slower={"g4": slower}), gates=[gates.parse(expression)])
    (gate,) = found.gates
    assert gate.word == word, gate
    assert gate.failed == (word != "passed")
    assert gate.reason
    assert bool(gate.remedy) == (word == "cannot be judged")


@pytest.mark.parametrize(
    ("expression", "told", "remedy"),
    [
        ("ttft_p50@recompte > 1.05", "not both results have a treatment recompte", "Did you mean @recompute?"),
        ("ttft_p50@nobody > 1.05", "not both results have a treatment nobody", "Both have recompute, g4."),
        ("ttft_p50/70k > 1.05", "not both results have prompts of 70k tokens", "Both have 10k, 130k."),
    ],
)
def test_a_gate_on_what_not_both_have_is_refused(expression: str, told: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as error:
        compared(tmp_path, later(), gates=[gates.parse(expression)])
    assert f"--fail-if '{expression}': {told}" in error.value.message
    assert error.value.remedy == remedy


def test_a_gate_that_cannot_be_judged_says_what_would_make_it_one(tmp_path: Path) -> None:
    asked = [gates.parse(text) for text in ("ttft_p99@g4 > 1.05", "goodput_per_s < 0.9")]
    refused, no_slo = (gate.remedy for gate in compared(tmp_path, later(), gates=asked).gates)
    assert refused.startswith("TTFT P99 needs n >= 299 in every round: gate on ttft_p50")
    assert no_slo == "Give both scenarios the same slo."


@pytest.mark.parametrize(
    "expression",
    ["ttft_p50", "ttft_p50 = 1", "ttft > 1.05", "hit_rate/130k < 1", "ttft_p50 > -1", "ttft_p50/x > 1", ""],
)
def test_bad_expressions_are_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"is not|no prompt length"):
        gates.parse(expression)


def test_gates_read_treatments_with_odd_names() -> None:
    gate = gates.parse(" ttft_p50@warm g4 @8/10k>=1.05 ")
    assert (gate.treatment, gate.length, gate.sign, gate.threshold) == ("warm g4 @8", 10_000, ">=", 1.05)
    assert gates.parse("ttft_p50@g4 > 1").every_length
    assert not gates.parse("ttft_p50@g4/all > 1").every_length
