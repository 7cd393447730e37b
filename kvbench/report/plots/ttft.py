"""Plots TTFT by prompt length and its distribution, as SVG inside the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from kvbench.report.plots import canvas
from kvbench.report.plots.series import GREY, reach, speed_up_series, ttft_series
from kvbench.report.plots.thinning import MOST_DOTS, chosen_dots, drawn_text, rule_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from kvbench.analysis.summary_types import Summary
    from kvbench.report.plots.series import Series
    from kvbench.report.report_input import ReportInput

_FEWEST_LENGTHS = 2  # a curve over one length is a row of dots, and the tables hold them
_TIME = "ttft_p50"  # the metric that answers where no rate does
_COLUMNS = ("run_id", "length", "status", "ttft_s")


class Dots(NamedTuple):
    """Requests to draw: the place of each one's series, its prompt length and its TTFT; and how many there are."""

    series: NDArray[np.intp]
    lengths: NDArray[np.float64]
    ttft_s: NDArray[np.float64]
    requests: int


def ttft(given: ReportInput) -> str | None:
    """Draw TTFT and speed-up against prompt length; None without a curve."""
    summary = given.summary
    series, gains = ttft_series(summary), speed_up_series(summary)
    lengths = sorted({length for curve in series for length in curve.lengths})
    if not series or (len(lengths) < _FEWEST_LENGTHS and summary.headline != _TIME):
        return None
    with canvas.style():
        figure, upper, lower = canvas.panels(with_lower=bool(gains))
        for axes in filter(None, (upper, lower)):
            canvas.prepare_lengths(axes, lengths)
        _draw_ttft(upper, series, dots(given, series))
        if lower is not None:
            _draw_speed_up(lower, gains, _published_gains(summary))
            upper.tick_params(labelbottom=False)
            upper.set_xlabel("")
        return canvas.svg_for_page(figure, "ttft")


def caption(given: ReportInput) -> str:
    """Explain lines, dots and whiskers."""
    text = (
        "Measured. Lines run through medians; each dot beside them is one request. Whiskers: 95 % interval of the"
        " median, upwards only where n supports an upper bound alone, none where n is too small. The scale of TTFT is"
        " logarithmic."
    )
    if speed_up_series(given.summary):
        text += " Speed-up: over rounds, with its 95 % interval."
    rule = "of each treatment and length equally many, evenly spaced by rank, with both extremes"
    return text + rule_text(given.summary, rule)


def dots(given: ReportInput, series: Sequence[Series]) -> Dots:
    """Return the answered requests of all series, but those of invalid runs, at most about `MOST_DOTS` of them."""
    requests = given.requests.frame(_COLUMNS)
    places = {curve.name: place for place, curve in enumerate(series)}
    used = {run.run_id: places.get(run.treatment, -1) for run in given.summary.runs if run.verdict != "invalid"}
    codes, names = pd.factorize(requests["run_id"])
    place = np.array([used.get(name, -1) for name in names], dtype=np.intp)[codes]
    ttft_s = requests["ttft_s"].to_numpy(dtype=np.float64, na_value=np.nan)
    lengths = requests["length"].to_numpy(dtype=np.float64, na_value=np.nan)
    known = sorted({length for curve in series for length in curve.lengths})
    has_curve = np.array([[length in curve.lengths for length in known] for curve in series])
    column = np.searchsorted(known, lengths).clip(max=len(known) - 1)
    is_answered = (requests["status"] == "ok").to_numpy(dtype=bool, na_value=False)
    keep = is_answered & ~np.isnan(ttft_s) & (place >= 0) & (np.array(known)[column] == lengths)
    keep &= has_curve[place, column]
    place, column, lengths, ttft_s = place[keep], column[keep], lengths[keep], ttft_s[keep]
    chosen = chosen_dots(ttft_s, place * len(known) + column, MOST_DOTS)
    return Dots(place[chosen], lengths[chosen], ttft_s[chosen], len(ttft_s))


def _published_gains(summary: Summary) -> list[tuple[int, float]]:
    return [
        (row.isl, row.published_speed_up)
        for row in summary.lengths
        if row.isl is not None and row.published_speed_up is not None
    ]


def _draw_ttft(axes: Axes, series: Sequence[Series], drawn: Dots) -> None:
    times = np.append(drawn.ttft_s, reach(series))
    canvas.prepare_seconds(axes, times.min(), times.max())
    for place, curve in enumerate(series):
        shift = 3.0 * (place - (len(series) - 1) / 2)
        canvas.draw_series(axes, curve, shift)
        mine = drawn.series == place
        canvas.draw_dots(axes, drawn.lengths[mine], drawn.ttft_s[mine], curve.colour, shift + 3.5)
    canvas.label_ends(axes, [(curve.lengths[-1], curve.medians[-1], curve.label, curve.colour) for curve in series])
    title = ["TTFT, measured", drawn_text(len(drawn.ttft_s), drawn.requests)]
    axes.set_title("; ".join(filter(None, title)), loc="left", fontsize=9)


def _draw_speed_up(axes: Axes, gains: Sequence[Series], printed: Sequence[tuple[int, float]]) -> None:
    low, high = reach(gains)
    canvas.prepare_ratios(axes, low, max(high, *(value for _, value in printed), 1.0))
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle=canvas.DASHES)
    for place, curve in enumerate(gains):
        canvas.draw_series(axes, curve, 3.0 * (place - (len(gains) - 1) / 2))
        if len(gains) == 1:
            canvas.write_values(axes, curve)
    labels = [(curve.lengths[-1], curve.medians[-1], curve.label, curve.colour) for curve in gains]
    for length, value in printed:
        axes.plot([length], [value], "*", markersize=13, markerfacecolor="none", markeredgecolor=canvas.INK, zorder=5)
        labels.append((length, value, f"published {value:g}x", canvas.INK))
    canvas.label_ends(axes, [*labels, (int(axes.get_xlim()[1]), 1.0, "1x: equal", GREY)])
    axes.set_title("Speed-up over the baseline", loc="left", fontsize=9)
