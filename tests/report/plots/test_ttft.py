from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kvbench.report.plots import ttft
from kvbench.report.plots.series import speed_up_series, ttft_series
from tests.builders import summaries
from tests.builders.report_inputs import report_input, request

if TYPE_CHECKING:
    import pytest


def requests(number: int, run_id: str, **fields: Any) -> list[dict[str, Any]]:
    return [request(run_id, ttft_s=0.02 + place / 1e5, **fields) for place in range(number)]


def test_every_answered_request_of_a_valid_run_is_a_dot() -> None:
    runs = (
        summaries.run("r1-recompute", "recompute"),
        summaries.run(),
        summaries.run("r2-warm", verdict="invalid"),
    )
    rows = [
        *requests(3, "r1-recompute", length=50_000),
        *requests(2, "r1-warm"),
        *requests(7, "r2-warm"),
        *requests(1, "r1-warm", status="timeout"),
        *requests(1, "r1-warm", length=None),
        *requests(1, "r1-warm", length=12_345),  # of no row of the tables
        request(ttft_s=None),
    ]
    given = report_input(summaries.summary(runs=runs), rows)
    drawn = ttft.dots(given, ttft_series(given.summary))
    assert drawn.series.tolist() == [0, 0, 0, 1, 1]
    assert drawn.lengths.tolist() == [50_000.0] * 3 + [10_000.0] * 2
    assert drawn.requests == 5
    assert ttft.ttft(given) is not None


def test_very_many_requests_are_thinned_and_their_extremes_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ttft, "MOST_DOTS", 100)
    rows = requests(900, "r1-warm") + requests(900, "r1-recompute", length=50_000)
    given = report_input(summaries.summary(), rows)
    drawn = ttft.dots(given, ttft_series(given.summary))
    assert (len(drawn.ttft_s), drawn.requests) == (100, 1_800)
    assert (drawn.ttft_s.min(), drawn.ttft_s.max()) == (rows[0]["ttft_s"], rows[899]["ttft_s"])
    svg = ttft.ttft(given) or ""
    dots = re.findall(r'<path d="([^"]*)"[^>]*stroke-width: 2\.6[^>]*stroke-linecap: round', svg)
    assert sum(path.count("M ") for path in dots) == 100


def test_one_length_is_no_curve_where_a_rate_answers_and_nothing_is_drawn_without_lengths() -> None:
    single = summaries.summary(lengths=(summaries.length_row(),), headline="requests_per_s")
    assert ttft.ttft(report_input(single)) is None
    unknown = summaries.summary(lengths=(summaries.length_row(None),))
    assert ttft.ttft(report_input(unknown)) is None


def test_a_result_without_a_single_request_row_still_has_its_curve() -> None:
    assert ttft.ttft(report_input(requests=[])) is not None


def test_speed_ups_are_those_of_compared_treatments() -> None:
    summary = summaries.summary()
    assert [series.name for series in speed_up_series(summary)] == ["warm"]
    assert len({series.colour for series in ttft_series(summary)}) == 2
    single = summaries.length_row(cells={"warm": summaries.length_cell()})
    alone = summaries.summary(treatments={"warm": summaries.treatment()}, lengths=(single,))
    assert "Speed-up" in ttft.caption(report_input())
    assert "Speed-up" not in ttft.caption(report_input(alone))


def test_a_published_gain_has_a_star_of_its_own() -> None:
    lengths = (summaries.length_row(published_speed_up=4.2), summaries.length_row(50_000))
    plain, starred = ttft.ttft(report_input()), ttft.ttft(report_input(summaries.summary(lengths=lengths)))
    assert plain is not None
    assert starred is not None
    assert len(starred) > len(plain)
