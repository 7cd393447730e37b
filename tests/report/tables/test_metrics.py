from __future__ import annotations

from kvbench.report.render.to_csv import to_csv
from kvbench.report.tables.metrics import metrics
from kvbench.report.tables.treatments import treatments
from tests.builders import summaries
from tests.builders.report_inputs import report_input
from tests.report.tables.shown import cells, texts


def test_a_column_for_each_metric_that_says_something() -> None:
    table = metrics(report_input())
    names = [column.name for column in table.columns]
    assert names == [
        *("treatment", "requests", "rounds", "served_from", "ttft_p50", "ttft_p95", "total_time"),
        *("requests_per_s", "hit_rate", "failed"),
    ]
    better = {column.name: column.better for column in table.columns}
    assert (better["ttft_p50"], better["requests_per_s"]) == ("lower", "higher")
    assert cells(table)[1]["ttft_p50"].below.replace("\N{NO-BREAK SPACE}", " ") == "3.93x (3.81\N{EN DASH}4.05x) faster"
    assert to_csv(table).splitlines()[0].startswith("treatment,requests,rounds,served_from,ttft_p50 (s),ttft_p50 low")


def test_failures_and_suspects_are_marked() -> None:
    item = summaries.treatment(failures={"timeout": 2}, verdict="suspect")
    table = metrics(report_input(summaries.summary(treatments={"warm": item})))
    assert texts(table)[0]["failed"] == "2 timeout"
    assert texts(table)[0]["treatment"] == "warm (!)"
    assert cells(table)[0]["treatment"].value == "warm"
    assert any(note.startswith("(!) suspect") for note in table.notes)


def test_words_in_place_of_an_interval_are_explained() -> None:
    figure = summaries.figure(low=None, high=None, refusal="no interval: 9 requests of 3 prompts, prompts repeat")
    item = summaries.treatment(metrics={**summaries.metrics(), "ttft_p95": figure})
    notes = " ".join(metrics(report_input(summaries.summary(treatments={"warm": item}))).notes)
    assert "Prompts repeat: requests of one prompt" in notes


def test_treatments_side_by_side_only_at_several_concurrencies() -> None:
    assert treatments(report_input()) is None
    judged = summaries.judged_ratio(0.8, low=0.75, high=0.85, word="slower")
    few = summaries.judged_ratio(1.1, low=None, high=None, word="too few rounds", refusal="n/a (rounds=1 < 3)")
    figures = summaries.metrics(ttft_mean=0.03, user_rate_mean=40.0)
    item = summaries.treatment(metrics=figures, comparisons={"ttft_mean": judged, "user_rate_mean": few})
    one = summaries.summary(treatments={"warm": item}, concurrencies={"warm": 8, "recompute": 1})
    row, told = cells(treatments(report_input(one)))[0], texts(treatments(report_input(one)))[0]
    assert told["ttft_change"] == "+25.0 %"
    assert row["ttft_change"].value == 1 / 0.8 - 1
    assert row["ttft_change"].low == 1 / 0.85 - 1
    assert told["user_rate_change"] == "+10.0 %\N{DAGGER}"
    assert told["concurrency"] == "8"
