from __future__ import annotations

from dataclasses import replace

from kvbench.report.tables.client_error import calibration_table, client_error, sentence
from tests.builders import summaries
from tests.builders.report_inputs import report_input
from tests.report.tables.shown import cells, texts


def test_without_a_calibration_there_is_a_sentence_alone() -> None:
    assert client_error(report_input()) is None
    assert "run kvbench calibrate --driver native" in sentence(summaries.summary())


def test_a_percentile_that_n_does_not_support_is_refused() -> None:
    one = summaries.summary(calibration=summaries.calibration())
    (row,), (told,) = cells(client_error(report_input(one))), texts(client_error(report_input(one)))
    assert row["error_p50"].value == 12e-6
    assert told["error_p50"] == "12.0 us"
    assert told["error_p99"] == "n/a (n=100 < 299)"
    assert row["client_cpu"].value == 0.04
    assert row["of_offered"].value == 0.99
    assert sentence(one) == "client error (calibrated 2026-04-30, native, 1 connection): max 0.06 ms; n = 100"


def test_a_busy_machine_and_a_start_have_columns() -> None:
    (cell,) = summaries.calibration().cells
    names = [column.name for column in calibration_table([cell]).columns]
    assert "machine" not in names
    assert "start" not in names
    names = [column.name for column in calibration_table([replace(cell, machine="busy", start_s=0.4)]).columns]
    assert "machine" in names
    assert "start" in names
