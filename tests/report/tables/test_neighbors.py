from __future__ import annotations

from kvbench.report.tables.neighbor_load import neighbor_load
from kvbench.report.tables.neighbors import neighbors, rate_cell
from kvbench.report.tables.published_neighbors import nearest, published_neighbors, sentence
from kvbench.report.tables.side_clients import side_clients
from tests.builders import summaries
from tests.builders.report_inputs import report_input
from tests.report.tables.shown import cells, texts

ONE = summaries.summary(
    treatments={"warm": summaries.treatment(), "noisy": summaries.treatment()},
    neighbors=summaries.neighbor_impact(),
)


def test_a_result_without_neighbours_has_none_of_these() -> None:
    for make in (neighbors, neighbor_load, side_clients, published_neighbors):
        assert make(report_input()) is None


def test_a_loss_and_an_increase_are_two_numbers() -> None:
    quiet, noisy = cells(neighbors(report_input(ONE)))
    assert quiet["throughput_loss"].value is None
    assert (noisy["throughput_loss"].value, noisy["time_increase"].value) == (0.39, 0.64)
    assert noisy["expected_share"].mark == "suspect"
    told = texts(neighbors(report_input(ONE)))[1]
    assert noisy["expected_share"].below == "differs"
    assert told["ttft_p95_increase"] == "n/a (no quiet partner)"
    assert told["ttft_p50_increase"] == "+70.0 %"


def test_what_was_delivered_is_held_against_what_was_asked() -> None:
    short = summaries.neighbor_level(delivered_over_asked=0.9)
    one = summaries.summary(neighbors=summaries.neighbor_impact(levels=(short,)))
    noisy = cells(neighbor_load(report_input(one)))[1]
    assert noisy["of_asked"].mark == "suspect"
    unlimited = summaries.neighbor_level(unlimited=True, asked_bytes_per_s=None)
    one = summaries.summary(neighbors=summaries.neighbor_impact(levels=(unlimited,)))
    assert texts(neighbor_load(report_input(one)))[1]["asked_bytes_per_s"] == "unlimited"


def test_a_range_has_its_unit_once() -> None:
    assert rate_cell(summaries.extent(1e9)).below.replace("\N{NO-BREAK SPACE}", " ") == "990 MB/s\N{EN DASH}1.01 GB/s"
    assert rate_cell(summaries.extent(2e9)).below.replace("\N{NO-BREAK SPACE}", " ") == "1.98\N{EN DASH}2.02 GB/s"
    assert rate_cell(summaries.extent(None)).value is None


def test_the_published_experiment_stands_beside_the_nearest_level() -> None:
    """200 / 315 = 0.635; 1 - 3.6 / 4.26 = 0.155; 55.56 / 46.94 - 1 = 0.184."""
    far = summaries.neighbor_level("storage_10", of_capacity=0.1)
    none = summaries.neighbor_level("storage_63", of_capacity=0.63, throughput_loss=summaries.change(None))
    impact = summaries.neighbor_impact(levels=(far, none, summaries.neighbor_level()))
    assert [level.treatment for level in nearest(impact)] == ["noisy"]
    printed, noisy = cells(published_neighbors(report_input(ONE)))
    assert printed["delivered_bytes_per_s"].value == 200e9
    assert round(printed["throughput_loss"].value, 3) == 0.155  # type: ignore[arg-type]
    assert round(printed["time_increase"].value, 3) == 0.184  # type: ignore[arg-type]
    assert noisy["throughput_loss"].value == 0.39
    text = sentence().replace("\N{NO-BREAK SPACE}", " ")
    assert "200 GB/s of neighbours, 63.5 % of the 315 GB/s" in text
    assert "a reduction in throughput of 18 % is the time increase" in text


def test_side_clients_with_what_is_not_known() -> None:
    client = summaries.side_client(direct=None, device_shared_with_server=True)
    one = summaries.summary(neighbors=summaries.neighbor_impact(hosts=(client,)))
    (row,) = texts(side_clients(report_input(one)))
    assert row["direct"] == "not known"
    assert row["device"] == "disk, shared"
