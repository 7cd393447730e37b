from __future__ import annotations

from kvbench.report.tables.proof import proof
from kvbench.report.tables.steps import has_odd_steps, steps
from kvbench.result.plan_record import Scale, Slo
from kvbench.result.run_record import Step
from tests.builders import summaries
from tests.builders.report_inputs import report_input
from tests.report.tables.shown import cells, texts


def test_sources_stand_beside_one_another_and_empty_columns_are_left_out() -> None:
    table = proof(report_input())
    off, warm = texts(table)
    assert warm["read_bytes"] == "5.4 GB"
    assert off["read_bytes"] == "no counter"
    assert cells(table)[1]["process_read_bytes"].below == "equal"
    assert warm["ledger"] == "closes in 1 run"
    assert "answers_match" not in warm
    assert "slo_attainment" not in warm


def test_a_limit_and_a_scale_have_columns() -> None:
    item = summaries.treatment(slo_attainment=0.95)
    one = summaries.summary(treatments={"warm": item}, slo=Slo(0.5), scale=Scale(10, 100))
    (row,) = cells(proof(report_input(one)))
    assert row["slo_attainment"].value == 0.95
    assert row["full_scale_bytes_per_s"].value == 2.1e10


def test_a_gap_and_a_kernel_count_that_is_not_there_are_told() -> None:
    gap = summaries.ledger(gap="tokens: 3 hits less than cached")
    item = summaries.treatment(process_read_bytes=None, runs_used=2)
    one = summaries.summary(treatments={"warm": item}, runs=(summaries.run(ledger=gap),))
    (row,), (told,) = cells(proof(report_input(one))), texts(proof(report_input(one)))
    assert told["ledger"] == "open in 1 of 1 runs"
    assert row["ledger"].below == "tokens: 3 hits less than cached"
    assert told["process_read_bytes"] == "not readable"
    assert told["runs_used"] == "2 of 3"
    assert row["runs_used"].value == 2


def test_nothing_is_proven_without_a_used_run_or_of_an_import() -> None:
    one = summaries.summary(treatments={"warm": summaries.treatment(runs_used=0)})
    assert texts(proof(report_input(one)))[0]["served_from"] == "no valid run"
    assert proof(report_input(summaries.summary(imported={"export": "aiperf"}))) is None


def test_steps_of_one_run_stand_for_each_treatment_and_odd_ones_are_all_there() -> None:
    odd = summaries.run("r2-warm", cache_steps=(Step("reset", "not established", "no word"), Step("x", "done", "y")))
    one = summaries.summary(runs=(summaries.run(), summaries.run("r1-b", "recompute", cache_state="off"), odd))
    rows = texts(steps(report_input(one)))
    assert [(row["run"], row["treatments"], row["step"]) for row in rows] == [
        ("r1-warm", "warm", "reset"),
        ("r1-warm", "warm", "canary"),
        ("r1-b", "recompute", "reset"),
        ("r1-b", "recompute", "canary"),
        ("r2-warm", "warm", "reset"),
    ]
    assert rows[-1]["outcome"] == "not established"
    assert has_odd_steps(one)
    assert not has_odd_steps(summaries.summary())


def test_treatments_with_the_same_steps_stand_together() -> None:
    one = summaries.summary(runs=(summaries.run(), summaries.run("r1-b", "recompute")))
    rows = texts(steps(report_input(one)))
    assert {row["treatments"] for row in rows} == {"recompute, warm"}
    assert len(rows) == 2
