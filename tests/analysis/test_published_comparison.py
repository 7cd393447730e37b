"""Published rows beside our own figures: which row stands beside which treatment, ratios, and full scale."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kvbench.analysis.published_comparison import compare
from kvbench.errors import ResultError
from kvbench.publications import claims_file, library
from kvbench.report.tables.published import published as published_rows
from kvbench.result.plan_record import Design, Scale
from kvbench.scenario import file as scenario_file
from tests.builders import summaries
from tests.builders.report_inputs import report_input
from tests.builders.screens import shown_table
from tests.report.tables.shown import cells, texts

if TYPE_CHECKING:
    from kvbench.analysis.summary_types import PublishedTable, TreatmentSummary
    from kvbench.report.table import Table

METRICS = ("requests_per_s", "total_time", "user_rate_mean", "ttft_mean", "ttft_p95", "ttft_p99")


def design(time: float = 16.0) -> Design:
    return Design("?", "emulator", (), 1, scale=Scale(time=time, bytes=512))


def treatment(
    ratios: dict[str, float] | None = None, most_gain: float | None = None, **values: float
) -> TreatmentSummary:
    """What the summary says of one treatment, as far as these tables read it."""
    figures = {name: summaries.figure(values.get(name), n=48, refusal=None) for name in METRICS}
    compared = {
        name: summaries.judged_ratio(ratio, low=ratio * 0.99, high=ratio * 1.01)
        for name, ratio in (ratios or {}).items()
    }
    return summaries.treatment(metrics=figures, comparisons=compared, most_gain=most_gain, failures={}, sent=48)


def throughput() -> PublishedTable:
    items = {
        "recompute": treatment(requests_per_s=2.4, total_time=83.0),
        "empty_start": treatment({"requests_per_s": 2.2, "total_time": 2.2}, 2.3, requests_per_s=5.28, total_time=37.7),
        "prewarmed": treatment({"requests_per_s": 21.0, "total_time": 21.0}, requests_per_s=50.4, total_time=3.95),
        "recompute_again": treatment(
            {"requests_per_s": 1.001, "total_time": 1.001}, requests_per_s=2.4, total_time=83.0
        ),
    }
    told = compare(library.load("ibm-storage-scale/benchmark-2"), design(), items)
    assert told is not None
    return told


def test_the_published_throughput_stands_beside_both_arms() -> None:
    told = throughput()
    rows = {row.treatment or row.published_as: row for row in told.rows}
    assert list(rows) == ["recompute", "empty_start", "prewarmed", "recompute_again", "G4, noisy (benchmark 3)"]
    assert rows["recompute"].cells["requests_per_s"].published == 0.19
    assert rows["recompute"].cells["requests_per_s"].full_scale == pytest.approx(2.4 / 16)
    assert rows["recompute"].cells["total_time"].full_scale == pytest.approx(83.0 * 16)
    assert rows["recompute"].cells["total_time"].published == pytest.approx(1048.56)
    for arm in ("empty_start", "prewarmed"):
        assert rows[arm].published_as == 'G4, "started empty"'
        assert rows[arm].cells["requests_per_s"].published_ratio == pytest.approx(4.26 / 0.19)
        assert rows[arm].cells["total_time"].published_ratio == pytest.approx(1048.56 / 46.94)
    assert rows["empty_start"].most_gain == 2.3
    assert rows["recompute_again"].published_as is None
    assert rows["recompute_again"].cells["requests_per_s"].published is None
    assert rows["G4, noisy (benchmark 3)"].cells["requests_per_s"].value is None
    assert any("0.144 requests/s" in remark for remark in told.remarks)


@pytest.mark.parametrize(
    ("name", "measured", "full_scale"),
    [
        ("ttft_mean", 2.0, 32.0),
        ("requests_per_s", 2.4, 0.15),
        ("kv_bytes_per_s", 1e9, 32e9),  # 1 GB/s x 512 / 16
        ("hit_rate", 0.5, 0.5),
    ],
)
def test_full_scale_takes_time_and_bytes_into_account(name: str, measured: float, full_scale: float) -> None:
    printed = library.load("ibm-storage-scale/benchmark-2").rows[0].printed["requests_per_s"]
    row = library.PublishedRow("all", ("arm",), {name: printed}, None)
    item = summaries.treatment(metrics={name: summaries.figure(measured)}, comparisons={})
    told = compare(library.Publication("Title", "section", rows=(row,)), design(), {"arm": item})
    assert told is not None
    assert told.rows[0].cells[name].full_scale == pytest.approx(full_scale)


def table_of(told: PublishedTable) -> Table:
    table = published_rows(report_input(summaries.summary(published_table=told)))
    assert table is not None
    return table


def test_ratios_come_first() -> None:
    table = table_of(throughput())
    text = shown_table(table, 100)
    own = next(line for line in text.splitlines() if line.startswith("empty_start"))
    assert [word for word in own.split() if "(" not in word] == [
        *("empty_start", "measured", "2.20x", "2.20x", "2.30x", "0.330", "603", "s")
    ]
    printed = text.splitlines()[text.splitlines().index(own) + 1]
    assert "published: G4," in printed
    assert printed.split()[-5:] == ["22.4x", "22.3x", "4.26", "46.94", "s"]
    assert [column.name for column in table.columns][:5] == [
        *("treatment", "source", "requests_per_s_gain", "total_time_gain", "most_gain")
    ]
    empty = next(row for row in cells(table) if row["treatment"].value == "empty_start")
    assert empty["requests_per_s_gain"].low == pytest.approx(2.18, abs=0.005)
    assert empty["requests_per_s_gain"].high == pytest.approx(2.22, abs=0.005)


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_breaks_names_and_cuts_no_figure(width: int) -> None:
    text = shown_table(table_of(throughput()), width)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "1,048.56 s" in text
    assert max(map(len, text.splitlines())) <= width


def test_the_published_matrix_is_compared_by_changes() -> None:
    items = {
        "baseline_4": treatment(user_rate_mean=275.0, ttft_mean=0.08),
        "local_ssd_4": treatment({"user_rate_mean": 0.99, "ttft_mean": 1 / 1.1}, user_rate_mean=272.0, ttft_mean=0.088),
        "baseline_16": treatment(user_rate_mean=200.0, ttft_mean=0.3),
    }
    told = compare(library.load("wd-data24/matrix"), design(time=8.0), items)
    assert told is not None
    lines = [" ".join(row.values()) for row in texts(table_of(told))]
    assert "local_ssd_4 measured -1.0 % +10.0 % 34.0 0.704 s n/a n/a 0 %" in lines
    assert ("local_ssd_4 published: local SSD, 4 -1.3 % +15.4 % 33.94 0.793 s 4.567 s 6.787 s 0 %") in lines
    assert "baseline_16 not published" in [line.strip() for line in lines]  # promised there, and no row is printed
    assert "not run here published: NVMe-oF, 8 -1.8 % +4.5 % 30.00 0.577 s 2.020 s 6.364 s 0 %" in lines


def test_what_has_no_rows_has_no_table() -> None:
    assert compare(library.load("ibm-storage-scale/benchmark-1"), design(), {}) is None


@pytest.mark.parametrize("file", ["throughput", "throughput_quick", "multi_turn", "multi_turn_pressure"])
def test_shipped_scenarios_have_treatments_for_their_rows(file: str) -> None:
    scenario = scenario_file.load(Path(f"scenarios/{file}.yaml"))
    assert scenario.published is not None
    rows = library.load(scenario.published).rows
    assert {name for row in rows for name in row.treatments if "noisy" not in name} <= set(scenario.treatments)


@pytest.mark.parametrize(
    ("reference", "told", "remedy"),
    [
        ("ibm-storage-scale/benchmark-7", "no section benchmark-7", "ibm-storage-scale/benchmark-2"),
        ("wd-data24", "names no section", "wd-data24/matrix"),
        ("wd-data25/matrix", "no published document", "wd-data24"),
    ],
)
def test_unknown_names_are_refused(reference: str, told: str, remedy: str) -> None:
    with pytest.raises(ResultError, match=told) as fault:
        library.load(reference)
    assert remedy in fault.value.remedy


ROWS = """\
schema_version: 1
name: example
title: Example
source: {publisher: nobody}
quantities:
- {id: slow, what: request_rate, value: "1.0", unit: RPS, section: s}
scenario_rows:
  all:
    section: s
    ratios: times
    rows:
      one: {treatments: [a], figures: {requests_per_s: slow}}
      two: {treatments: [b], against: one, figures: {requests_per_s: slow}}
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("against: one", "against: three", "row two is against three"),
        ("figures: {requests_per_s: slow}", "figures: {speed: slow}", "speed is no figure that rows can have"),
        ("requests_per_s: slow", "requests_per_s: fast", "refers to a figure fast"),
    ],
)
def test_rows_that_refer_to_nothing_are_refused(old: str, new: str, told: str) -> None:
    assert len(claims_file.parse(ROWS, "example").claims.scenario_rows["all"].rows) == 2
    with pytest.raises(ResultError, match=told):
        claims_file.parse(ROWS.replace(old, new), "example")
