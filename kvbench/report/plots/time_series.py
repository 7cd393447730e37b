"""Plots runs over time: answers per second, hit rate and distinct prompts so far, one column for each treatment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.figure import Figure

from kvbench.report.plots import canvas
from kvbench.report.plots.series import look

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from kvbench.analysis.summary_types import Summary, TimeSeries
    from kvbench.report.report_input import ReportInput

    ByTreatment = Mapping[str, Sequence[TimeSeries]]

_ABREAST = 4
_LEFT_IN, _GAP_IN, _RIGHT_IN = 0.62, 0.42, 0.1
_PANEL_IN, _BETWEEN_IN, _ABOVE_IN, _BELOW_IN = 0.74, 0.12, 0.24, 0.42
_MOST_STRETCH = 4.0  # beyond this between the least and the largest, a treatment has a scale of its own


class Scales(NamedTuple):
    """The right end of the time of each treatment, the top of its rate, and the top of all distinct prompts."""

    time_s: dict[str, float]
    rate: dict[str, float]
    prompts: float


def time_series(given: ReportInput) -> str | None:
    """Draw one line a round: how many requests a second were answered, and what hit rate and prompts had come to.

    None where no run has a time series, and with neighbours, whose runs have a plot over time of another kind.
    """
    by_treatment = drawn(given.summary)
    if not by_treatment:
        return None
    panels = 3 if any(series.hit_rate for runs in by_treatment.values() for series in runs) else 2
    block_in = _ABOVE_IN + panels * _PANEL_IN + (panels - 1) * _BETWEEN_IN + _BELOW_IN
    blocks = -(-len(by_treatment) // _ABREAST)
    abreast = -(-len(by_treatment) // blocks)  # as alike as can be: 3 and 2, not 4 and 1
    height_in = block_in * blocks
    scales = scales_of(by_treatment)
    with canvas.style():
        figure = Figure(figsize=(canvas.WIDTH_IN, height_in))
        for place, (name, runs) in enumerate(by_treatment.items()):
            row, column = divmod(place, abreast)
            top_in = height_in - row * block_in - _ABOVE_IN
            axes = _column(figure, (top_in, height_in), column, abreast, panels)
            _draw(axes, name, runs, scales, look(name, given.summary)[0])
            _label(figure, axes, is_first=column == 0)
        return canvas.svg_for_page(figure, "time-series")


def caption(_: ReportInput) -> str:
    """Explain lines, slices and scales."""
    return (
        "Measured, over the time of a run; each line is one round. Answers per second: in slices of equal time, at most"
        " 24 a run and at least about ten answers in each on average. Hit rate: of all that was answered until then."
        " Prompts: distinct ones sent until then. Where treatments lie far apart, each has its own scale of time and of"
        " answers per second."
    )


def drawn(summary: Summary) -> dict[str, tuple[TimeSeries, ...]]:
    """Return the time series of each treatment that has any."""
    if summary.neighbors is not None:
        return {}
    return {name: item.time_series for name, item in summary.treatments.items() if item.time_series}


def scales_of(by_treatment: ByTreatment) -> Scales:
    """Give all treatments one scale where they can be read on it, else each its own."""
    times = {name: max(run.slice_s * len(run.answered) for run in runs) for name, runs in by_treatment.items()}
    rates = {name: max(max(run.answered_per_s) for run in runs) for name, runs in by_treatment.items()}
    prompts = max(run.distinct_prompts[-1] for runs in by_treatment.values() for run in runs)
    return Scales(_shared(times), _shared(rates), float(prompts))


def _shared(ends: dict[str, float]) -> dict[str, float]:
    most = max(ends.values())
    return dict.fromkeys(ends, most) if most <= _MOST_STRETCH * min(ends.values()) else ends


def _column(figure: Figure, height: tuple[float, float], column: int, columns: int, panels: int) -> list[Axes]:
    """Lay out the panels of one treatment, the first on top."""
    top_in, height_in = height
    width_in = (canvas.WIDTH_IN - _LEFT_IN - _RIGHT_IN - (columns - 1) * _GAP_IN) / columns
    left = (_LEFT_IN + column * (width_in + _GAP_IN)) / canvas.WIDTH_IN
    bottoms = [top_in - (place + 1) * _PANEL_IN - place * _BETWEEN_IN for place in range(panels)]
    return [
        figure.add_axes((left, bottom / height_in, width_in / canvas.WIDTH_IN, _PANEL_IN / height_in))
        for bottom in bottoms
    ]


def _draw(axes: Sequence[Axes], name: str, runs: Sequence[TimeSeries], scales: Scales, colour: str) -> None:
    rate, prompts = axes[0], axes[-1]
    for run in runs:
        ends = [run.slice_s * (place + 1) for place in range(len(run.answered))]
        style: dict[str, Any] = {"color": colour, "linewidth": 1.1, "alpha": 0.45 if len(runs) > 1 else 1.0}
        rate.stairs(run.answered_per_s, [0.0, *ends], baseline=None, **style)
        prompts.plot([0.0, *ends], [0, *run.distinct_prompts], **style)
        if len(axes) > 2 and run.hit_rate:
            axes[1].plot(ends, [float("nan") if hits is None else hits for hits in run.hit_rate], **style)
    rate.set_ylim(0, 1.12 * scales.rate[name])
    prompts.set_ylim(0, 1.12 * scales.prompts)
    if len(axes) > 2:
        axes[1].set_ylim(-0.04, 1.06)
        axes[1].set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    for panel in axes:
        panel.set_xlim(0, 1.02 * scales.time_s[name])
        panel.tick_params(labelsize=7, labelbottom=panel is prompts)
        panel.grid(axis="y", color=canvas.RULE, linewidth=0.6)
        panel.set_axisbelow(True)
        panel.locator_params(axis="x", nbins=4)
    for panel in (rate, prompts):
        panel.locator_params(axis="y", nbins=3)
    rate.set_title(name if len(name) <= 22 else f"{name[:21]}…", loc="left", fontsize=8, pad=3, color=colour)
    prompts.set_xlabel("s after the first send", fontsize=7.5, labelpad=1)


def _label(figure: Figure, axes: Sequence[Axes], *, is_first: bool) -> None:
    """Name the panels at the left; the others need numbers only where their scale is another one."""
    if not is_first:
        for panel in axes[1:]:
            panel.tick_params(labelleft=False)
        return
    words = ("answers/s", "hit rate", "prompts") if len(axes) > 2 else ("answers/s", "prompts")
    for panel, word in zip(axes, words, strict=True):
        panel.set_ylabel(word, fontsize=7.5)
    figure.align_ylabels(list(axes))
