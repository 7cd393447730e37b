from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kvbench.report import html
from kvbench.report import read_result as inputs
from kvbench.report.tables.ttft_by_length import ttft_by_length
from kvbench.report.tables.ttft_full_scale import ttft_full_scale
from kvbench.result.plan_record import Scale
from tests.builders import summaries
from tests.builders.report_inputs import report_input, request
from tests.builders.results import Case, build
from tests.report.tables.shown import cells, texts

if TYPE_CHECKING:
    from pathlib import Path


def test_a_row_for_each_length_and_treatment_with_values_as_measured() -> None:
    table = ttft_by_length(report_input())
    rows = cells(table)
    assert [(row["prompt_tokens"].value, row["treatment"].value) for row in rows] == [
        *((10_000, "recompute"), (10_000, "warm")),
        *((50_000, "recompute"), (50_000, "warm")),
    ]
    warm = rows[1]
    assert warm["ttft_p50"].value == 0.0242
    assert warm["ttft_p95"].low is None
    assert warm["ttft_p95"].high is not None
    assert warm["speed_up"].value == 3.93
    assert texts(table)[1]["difference"] == "faster"
    assert texts(table)[1]["ttft_p99"] == "n=60 < 299"
    assert texts(table)[0]["speed_up"] == "baseline"
    assert rows[0]["speed_up"].value is None


def test_missing_requests_stand_beside_n() -> None:
    rows = (summaries.length_row(cells={"warm": summaries.length_cell(n=58)}),)
    one = summaries.summary(lengths=rows, baselines={"warm": None})
    row = cells(ttft_by_length(report_input(one)))[0]
    assert (row["n"].value, row["n"].text, row["n"].mark) == (58, "58 of 60", "suspect")


def test_a_cell_without_a_figure_says_why_and_is_never_0() -> None:
    empty = summaries.length_cell(None)
    rows = (summaries.length_row(cells={"warm": empty, "recompute": replace(empty, unproven=3)}),)
    runs = (summaries.run(verdict="invalid"), summaries.run("r1-recompute", "recompute"))
    told = texts(ttft_by_length(report_input(summaries.summary(lengths=rows, runs=runs))))
    assert [row["ttft_p50"] for row in told] == ["no valid run", "not proven"]
    assert [row["ttft_min"] for row in told] == ["\N{EN DASH}"] * 2
    assert cells(ttft_by_length(report_input(summaries.summary(lengths=rows, runs=()))))[0]["as_named"].value is None


def test_a_ratio_of_too_few_rounds_has_its_range_below() -> None:
    judged = summaries.judged_ratio(
        low=None, high=None, rounds=2, word="too few rounds", refusal="n/a (rounds=2 < 3)", least=3.8, most=4.1
    )
    rows = (summaries.length_row(cells={"warm": summaries.length_cell(comparison=judged)}),)
    row = cells(ttft_by_length(report_input(summaries.summary(lengths=rows))))[0]
    assert row["speed_up"].below == "3.80x to 4.10x seen in 2 rounds"
    assert row["difference"].text == "too few"


def test_an_import_counts_what_was_sent_and_names_no_tier() -> None:
    rows = (summaries.length_row(cells={"warm": summaries.length_cell(n=1)}),)
    one = summaries.summary(imported={"export": "aiperf"}, lengths=rows, baselines={"warm": None})
    table = ttft_by_length(report_input(one, [request(), request(status="timeout")]))
    (row,) = cells(table)
    assert row["n"].text == "1 of 2"
    assert "as_named" not in row
    assert "speed_up" not in row


def test_lengths_that_nobody_knows_are_one_row() -> None:
    told = texts(ttft_by_length(report_input(summaries.summary(lengths=(summaries.length_row(None),)))))
    assert told[0]["prompt_tokens"] == "all"


def test_full_scale_only_where_there_is_a_scale_or_a_publication() -> None:
    assert ttft_full_scale(report_input()) is None
    cell = summaries.length_cell(full_scale_median_s=2.42)
    rows = (summaries.length_row(cells={"warm": cell, "recompute": cell}),)
    row = cells(ttft_full_scale(report_input(summaries.summary(scale=Scale(100, 100), lengths=rows))))[0]
    assert row["full_scale"].value == 2.42
    assert "published" not in row


def test_turns_stand_beside_their_lengths(tmp_path: Path) -> None:
    treatments = {"recompute": {"cache": "off"}, "again": {"cache": "off"}}
    turns = {"count": 3, "new_tokens": 2000}
    case = Case(treatments=treatments, lengths=["10k"], per_length=2, turns=turns, repeats=3, published=None)
    given = inputs.read(build(case, tmp_path))
    for table in (ttft_by_length(given), ttft_full_scale(given)):
        rows = [list(row.values())[:3] for row in texts(table)]
        assert rows[::2] == [["10k", "1", "recompute"], ["12,008", "2", "recompute"], ["14,016", "3", "recompute"]]
    assert "Measured, over the time of a run" not in html.render(given)  # turns share their beginnings


def test_a_length_without_turns_has_no_column_for_them() -> None:
    table = ttft_by_length(report_input())
    assert table is not None
    assert "turn" not in [column.name for column in table.columns]
