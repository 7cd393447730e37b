from __future__ import annotations

from kvbench.report.plots.series import GREY, load_look, look, reach, ttft_series
from tests.builders import summaries


def test_a_treatment_looks_the_same_in_all_plots_and_the_baseline_is_grey() -> None:
    names = ("recompute", "warm", "g1", "g2")
    summary = summaries.summary(treatments=dict.fromkeys(names, summaries.treatment()))
    looks = {name: look(name, summary) for name in names}
    assert looks["recompute"] == (GREY, "o")
    assert len(set(looks.values())) == len(names)
    assert {series.name: (series.colour, series.marker) for series in ttft_series(summary)} == looks


def test_lengths_without_a_figure_are_left_out() -> None:
    cells = {"recompute": summaries.length_cell(), "warm": summaries.length_cell(None)}
    empty = summaries.length_row(50_000, cells)
    summary = summaries.summary(lengths=(summaries.length_row(), empty, summaries.length_row(None)))
    recompute, warm = ttft_series(summary)
    assert (recompute.lengths, warm.lengths) == ((10_000, 50_000), (10_000,))
    assert reach([warm]) == (0.98 * 0.0242, 1.02 * 0.0242)


def test_loads_of_neighbours_differ_in_colour_and_marker() -> None:
    levels = [summaries.neighbor_level(name, load_name=name) for name in ("a", "b", "a", "c")]
    impact = summaries.neighbor_impact(levels=tuple(levels))
    colours, markers = zip(*(load_look(name, impact) for name in "abc"), strict=True)
    assert (len(set(colours)), len(set(markers))) == (3, 3)
