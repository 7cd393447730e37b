from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvbench.report.tables.comparison import compared_figures, differing_facts, differing_questions
from tests.analysis.test_result_comparison import compared, later
from tests.report.tables.shown import cells, texts

if TYPE_CHECKING:
    from pathlib import Path


def test_values_stand_as_measured_with_the_ends_of_their_interval(tmp_path: Path) -> None:
    found = compared(tmp_path, later(slower={"g4": 1.5}))
    assert differing_questions(found) is None
    assert differing_facts(found) is None
    table = compared_figures(found)
    row = next(one for one in cells(table) if (one["treatment"].value, one["prompt_tokens"].value) == ("g4", 10_000))
    base, other, ratio, interval = (row[name] for name in ("base", "other", "ratio", "interval"))
    assert isinstance(base.value, float)
    assert isinstance(other.value, float)
    assert ratio.value == pytest.approx(other.value / base.value)
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low < 1.5 < interval.high
    assert (row["said"].value, row["said"].mark) == ("slower", "invalid")
    assert texts(table)[0]["figure"] == "TTFT P50"


def test_questions_and_facts_have_a_row_each(tmp_path: Path) -> None:
    found = compared(tmp_path, later(lengths=["10k", "90k"], repeats=4), anyway=True)
    (question,) = texts(differing_questions(found))
    assert question == {"name": "lengths", "base": "10000, 130000", "other": "10000, 90000"}
    assert {"name": "repeats", "base": "5", "other": "4"} in texts(differing_facts(found))
