"""Requests over time, and what neighbours delivered meanwhile: the typical run of each level, the quiet ones first.

The time in which neighbours are at work is shaded, their ramp lighter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from kvbench.report.plots import canvas
from kvbench.report.plots.series import GREY, load_look
from kvbench.report.plots.thinning import MOST_DOTS, chosen_over_time, drawn_text, rule_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from kvbench.analysis.neighbor_time_series import NeighborTimeSeries
    from kvbench.report.report_input import ReportInput

_RAMP, _LOADED = "#f1f1f1", "#dedede"
_CELL_IN, _MOST_HEIGHT_IN = 1.62, 9.4  # of one run; of all of them, so that they fit on a page of paper
_TWO_ABREAST = 12  # runs up to which two stand beside each other, and three from there on
_TITLE_LETTERS = {2: 48, 3: 32}  # by how many runs stand beside one another
_MOST_STRETCH = 4.0  # between the shortest and the longest run on one scale of time


def neighbor_time_series(given: ReportInput) -> str | None:
    """Draw the requests of each typical run with the rate of its neighbours below; None without neighbours."""
    impact = given.summary.neighbors
    runs = given.read_neighbor_runs() if impact is not None else ()
    if impact is None or not runs:
        return None
    abreast = 2 if len(runs) <= _TWO_ABREAST else 3
    rows = -(-len(runs) // abreast)
    height_in = min(rows * _CELL_IN + 0.3, _MOST_HEIGHT_IN)
    scales = _Scales(runs, impact.limit_bytes_per_s)
    chosen = _chosen(runs)
    with canvas.style():
        figure = Figure(figsize=(canvas.WIDTH_IN, height_in))
        for number, run in enumerate(runs):
            upper, lower = _panels(figure, number, rows, abreast)
            colour = GREY if run.load is None else load_look(run.load, impact)[0]
            _draw_requests(upper, run, chosen[number], scales)
            _draw_rates(lower, run, scales, colour)
            title = _title(run, len(chosen[number]), _TITLE_LETTERS[abreast])
            upper.set_title(title, loc="left", fontsize=8, pad=2.5)
            if number % abreast == 0:
                upper.set_ylabel("TTFT")
                lower.set_ylabel(scales.unit)
                figure.align_ylabels([upper, lower])
            if number >= len(runs) - abreast:
                lower.set_xlabel("s after the first send", labelpad=1)
        return canvas.svg_for_page(figure, "neighbor-time-series")


def caption(given: ReportInput) -> str:
    """Explain dots, lines and shades."""
    impact = given.summary.neighbors
    text = (
        "Of each level the run at the median of requests/s, the quiet ones first; each load has its colour. Above, each"
        " dot is one request, at its send; below, what all side clients delivered, in slices of half a second. Shaded:"
        " neighbours at work, lighter while they ramp; dotted: the last token of the load."
    )
    if impact is not None and impact.limit_bytes_per_s is not None:
        text += " Dashed: the limit."
    rule = "evenly spaced in order of their sends, and the fastest and the slowest of each of many equal slices of time"
    return text + rule_text(given.summary, rule)


def _panels(figure: Figure, number: int, rows: int, abreast: int) -> tuple[Axes, Axes]:
    """Lay out the two panels of one run: requests above, rates below."""
    row, column = divmod(number, abreast)
    height_in = figure.get_figheight()
    cell_in = (height_in - 0.3) / rows
    bottom_in, step = height_in - (row + 1) * cell_in + 0.05, 0.96 / abreast
    left, width = 0.105 + step * column, step - 0.075
    upper = (left, (bottom_in + 0.41 * cell_in) / height_in, width, 0.38 * cell_in / height_in)
    lower = (left, (bottom_in + 0.1 * cell_in) / height_in, width, 0.26 * cell_in / height_in)
    return figure.add_axes(upper), figure.add_axes(lower)


def _title(run: NeighborTimeSeries, drawn: int, letters: int) -> str:
    """Name the run in so many letters, and say how many of its requests are drawn where these are not all."""
    count = drawn_text(drawn, len(run.ttft_s)).removesuffix(" requests are drawn")
    ending = f"; {count}" if count else ""
    name, room = f"{run.treatment}, {run.run_id}", letters - len(ending)
    return (name if len(name) <= room else f"{name[: room - 1]}…") + ending


def _chosen(runs: Sequence[NeighborTimeSeries]) -> list[NDArray[np.intp]]:
    """Return the requests to draw of each run: all where there are few enough, else some of each slice of time."""
    if sum(len(run.ttft_s) for run in runs) <= MOST_DOTS:
        return [np.arange(len(run.ttft_s)) for run in runs]
    most = MOST_DOTS // len(runs)
    return [chosen_over_time(run.sent_s, run.ttft_s, most) for run in runs]


class _Scales:
    """The scales that all runs of a plot share, so that they can be read against one another."""

    def __init__(self, runs: Sequence[NeighborTimeSeries], limit: float | None) -> None:
        times = [end for run in runs if len(run.ttft_s) for end in (run.ttft_s.min(), run.ttft_s.max())]
        rates = [float(run.bytes_per_s.max()) for run in runs if len(run.bytes_per_s)]
        most = max([*rates, limit or 0.0, 1.0])
        self.ttft = (min(times, default=0.1), max(times, default=1.0))
        self.unit, self.bytes = ("GB/s", 1e9) if most >= 2e9 else ("MB/s", 1e6)
        self.most, self.limit = 1.18 * most / self.bytes, limit
        self.spans = {run.run_id: (min(run.start_s or 0.0, 0.0) - 0.5, _end_s(run) + 0.5) for run in runs}
        lengths = [end - start for start, end in self.spans.values()]
        if max(lengths) <= _MOST_STRETCH * min(lengths):
            whole = (min(start for start, _ in self.spans.values()), max(end for _, end in self.spans.values()))
            self.spans = dict.fromkeys(self.spans, whole)


def _end_s(run: NeighborTimeSeries) -> float:
    return max(run.end_s, run.ended_s or 0.0)


def _draw_requests(axes: Axes, run: NeighborTimeSeries, chosen: NDArray[np.intp], scales: _Scales) -> None:
    canvas.prepare_seconds(axes, *scales.ttft)
    axes.yaxis.set_ticks(list(axes.get_yticks())[:: 1 + len(axes.get_yticks()) // 5])  # the panel is low
    _shade(axes, run, scales)
    dots = (run.sent_s[chosen], run.ttft_s[chosen])
    axes.plot(*dots, "o", color=canvas.INK, markersize=1.9, markeredgewidth=0, alpha=0.75)
    axes.tick_params(labelbottom=False, labelsize=7.5)
    axes.grid(axis="y", color="white" if len(run.bytes_per_s) else canvas.RULE, linewidth=0.6)


def _draw_rates(axes: Axes, run: NeighborTimeSeries, scales: _Scales, colour: str) -> None:
    _shade(axes, run, scales)
    axes.set_ylim(0, scales.most)
    if scales.limit is not None:
        axes.axhline(scales.limit / scales.bytes, color=GREY, linewidth=0.8, linestyle=canvas.DASHES)
    if len(run.bytes_per_s):
        rates = run.bytes_per_s / scales.bytes
        axes.plot(run.rate_at_s, rates, color=colour, linewidth=1.2, drawstyle="steps-mid")
    else:
        axes.text(0.5, 0.4, "no neighbours", transform=axes.transAxes, ha="center", fontsize=7.5, color=GREY)
    axes.tick_params(labelsize=7.5)


def _shade(axes: Axes, run: NeighborTimeSeries, scales: _Scales) -> None:
    """Shade the time in which neighbours are at work, and mark the end of the load."""
    start, end = scales.spans[run.run_id]
    axes.set_xlim(start, end)
    if run.start_s is not None and run.ready_s is not None:
        axes.axvspan(run.start_s, run.ready_s, color=_RAMP, linewidth=0, zorder=0)
        axes.axvspan(run.ready_s, run.ended_s or end, color=_LOADED, linewidth=0, zorder=0)
    axes.axvline(run.end_s, color=canvas.INK, linewidth=0.7, linestyle=(0, (1, 2)))
