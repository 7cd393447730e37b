from __future__ import annotations

import pytest

from kvbench.report.tables.published import published
from tests.builders import summaries
from tests.builders.report_inputs import report_input
from tests.report.tables.shown import cells, texts


def test_ours_and_the_printed_row_stand_together_and_lone_ones_are_there() -> None:
    assert published(report_input()) is None
    table = published(report_input(summaries.summary(published_table=summaries.published_table())))
    assert [(row["treatment"], row["source"]) for row in texts(table)] == [
        ("warm", "measured"),
        ("warm", "published: LMCache"),
        ("warm_again", "measured"),
        ("warm_again", "not published"),
        ("not run here", "published: vLLM native"),
    ]
    own, printed, *_ = cells(table)
    assert (own["ttft_mean"].value, printed["ttft_mean"].value) == (2.42, 2.6)
    assert (own["ttft_mean_gain"].value, printed["ttft_mean_gain"].value) == (3.93, 3.5)
    assert texts(table)[1]["ttft_mean"] == "2.6 s"
    assert table is not None
    assert table.notes[-1] == "The paper does not name its model."


def test_a_change_of_a_time_is_that_of_the_time() -> None:
    document = summaries.published_table(ratios="change")
    table = published(report_input(summaries.summary(published_table=document)))
    own = cells(table)[0]["ttft_mean_change"]
    assert own.value == pytest.approx(1 / 3.93 - 1)
    assert own.low == pytest.approx(1 / 4.1 - 1)
    assert texts(table)[0]["ttft_mean_change"] == "-74.6 %"


def test_a_word_has_its_mark() -> None:
    cell = summaries.published_cell(word="too few rounds", low=None, high=None)
    line = summaries.published_table().rows[0]
    document = summaries.published_table(rows=(type(line)("warm", "LMCache", 2.0, {"ttft_mean": cell}),))
    table = published(report_input(summaries.summary(published_table=document)))
    assert texts(table)[0]["ttft_mean_gain"] == "3.93x\N{DAGGER}"
    assert texts(table)[0]["most_gain"] == "2.00x"
    assert table is not None
    assert "\N{DAGGER} too few rounds to say." in " ".join(table.notes)
