"""Lists every plot of a result: its name, what draws it, and where the page shows it; the page loops over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kvbench.report.plots import neighbor_time_series, neighbors, published, rate, time_series, ttft

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvbench.report.report_input import ReportInput

PlotSection = Literal["neighbors", "curves"]
PLOT_SECTIONS: tuple[PlotSection, ...] = ("neighbors", "curves")
"""The sections of the page that show plots."""


@dataclass(frozen=True, slots=True)
class PlotEntry:
    """One plot: its name, the function that draws it, its section, its title, and what its caption says.

    `draw` returns SVG, or None where a result has nothing for the plot; `canvas.svg_for_page` makes it.
    """

    name: str
    draw: Callable[[ReportInput], str | None]
    section: PlotSection
    title: str
    caption: Callable[[ReportInput], str]


@dataclass(frozen=True, slots=True)
class DrawnPlot:
    """One plot of a result as the page shows it."""

    name: str
    title: str
    svg: str
    caption: str


PLOTS: tuple[PlotEntry, ...] = (
    PlotEntry(
        "neighbors", neighbors.neighbors, "neighbors", "KV rate and what neighbours delivered", neighbors.caption
    ),
    PlotEntry(
        "neighbor_time_series",
        neighbor_time_series.neighbor_time_series,
        "neighbors",
        "Requests over time, and what neighbours delivered meanwhile",
        neighbor_time_series.caption,
    ),
    PlotEntry("rate", rate.rate, "curves", "Rate of each treatment", rate.caption),
    PlotEntry("time_series", time_series.time_series, "curves", "Runs over time", time_series.caption),
    PlotEntry("ttft", ttft.ttft, "curves", "TTFT against prompt length", ttft.caption),
    PlotEntry("published", published.published, "curves", "TTFT and what was published", published.caption),
)


def plots_of(given: ReportInput, section: PlotSection) -> Iterator[DrawnPlot]:
    """Yield the plots that a result has something for, in the order of the list."""
    for entry in PLOTS:
        if entry.section == section and (svg := entry.draw(given)) is not None:
            yield DrawnPlot(entry.name, entry.title, svg, entry.caption(given))
