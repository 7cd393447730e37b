"""The plots of neighbours: what each dose leaves of the KV rate, and the requests of a run while neighbours load.

Loads differ in marker, not in colour alone; the time in which neighbours are at work is shaded, their ramp lighter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench.report import canvas

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes

    from kvbench.dose_courses import Course

    Doses = dict[str, Any]
    Level = dict[str, Any]

GREY = "#4d4d4d"
_LOOKS = (("#0072b2", "s"), ("#d55e00", "^"), ("#009e73", "D"), ("#aa4499", "v"))
_DASHES = (0, (4, 3))
_RAMP, _LOADED, _RULE = "#f1f1f1", "#dedede", "#d9d9d9"
_WIDTH_IN, _CELL_IN = 7.2, 1.62
_MOST_STRETCH = 4.0  # between the shortest and the longest run on one scale of time


def response_plot(doses: Doses) -> str | None:
    """Draw the KV rate over that of the quiet partner against what neighbours delivered; None without any figure."""
    import matplotlib as mpl  # noqa: PLC0415 - heavy, and only a report needs it
    from matplotlib.figure import Figure  # noqa: PLC0415

    levels = drawn(doses)
    if not levels:
        return None
    with mpl.rc_context(canvas.STYLE):
        figure = Figure(figsize=(_WIDTH_IN, 2.4))
        axes = figure.add_axes((0.09, 0.185, 0.885, 0.69))
        loads = list(dict.fromkeys(one["load"] for one in levels))
        _prepare_shares(axes, levels)
        if doses["limit_bytes_per_s"] is not None:
            axes.plot([0, 1], [1, 0], color=GREY, linewidth=1.0, linestyle=_DASHES, zorder=1)
        axes.plot([0], [1], "o", color=GREY, markersize=6, zorder=4)
        for one in levels:
            _draw_level(axes, one, loads.index(one["load"]))
        _explain(axes, loads, levels, with_line=doses["limit_bytes_per_s"] is not None)
        return canvas.as_svg(figure, "doses")


def drawn(doses: Doses) -> list[Level]:
    """Return the levels that have a place in the plot: a share of a capacity, and a KV rate on both sides."""
    return [one for one in doses["levels"] if one["of_capacity"] is not None and one["kv_share"]["value"] is not None]


def _prepare_shares(axes: Axes, levels: Sequence[Level]) -> None:
    """Set both scales in percent from zero."""
    right = max(1.0, *(one["delivered_bytes_per_s"]["most"] / one["capacity"]["bytes_per_s"] for one in levels))
    top = max(1.0, *(one["kv_share"]["high"] or one["kv_share"]["value"] for one in levels))
    axes.set_xlim(-0.03, right + 0.05)
    axes.set_ylim(0, top * 1.1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("delivered by neighbours, share of capacity")
    axes.set_ylabel("KV rate, share of quiet")


def _draw_level(axes: Axes, one: Level, place: int) -> None:
    """Draw one level with the range of its dose and the interval of its effect; unlimited ones are hollow."""
    colour, marker = _LOOKS[place % len(_LOOKS)]
    x, y, capacity = one["of_capacity"], one["kv_share"], one["capacity"]["bytes_per_s"]
    ends = [one["delivered_bytes_per_s"][key] / capacity for key in ("least", "most")]
    axes.hlines([y["value"]], *ends, color=colour, linewidth=1.0, zorder=2)
    if y["low"] is not None:
        axes.vlines([x], y["low"], y["high"], color=colour, linewidth=1.2, zorder=2)
        axes.plot([x, x], [y["low"], y["high"]], "_", color=colour, markersize=6, zorder=2)
    face = "white" if one["unlimited"] else colour
    axes.plot([x], [y["value"]], marker, color=colour, markerfacecolor=face, markersize=6, zorder=4)
    shift, side = ((6, 5), "left") if place % 2 == 0 and not one["unlimited"] else ((-6, -10), "right")
    text = "unlimited" if one["unlimited"] else str(one["target"])
    axes.annotate(text, (x, y["value"]), shift, textcoords="offset points", ha=side, color=colour, fontsize=7.5)


def _explain(axes: Axes, loads: Sequence[str], levels: Sequence[Level], *, with_line: bool) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    marks = [Line2D([], [], marker="o", color=GREY, linestyle="", label="quiet")]
    for place, load in enumerate(loads):
        colour, marker = _LOOKS[place % len(_LOOKS)]
        generator = next(one["generator"] for one in levels if one["load"] == load)
        marks.append(Line2D([], [], marker=marker, color=colour, linestyle="", label=f"{load} ({generator})"))
    if any(one["unlimited"] for one in levels):
        ink = canvas.INK
        marks.append(Line2D([], [], marker="s", color=ink, markerfacecolor="white", linestyle="", label="unlimited"))
    if with_line:
        marks.append(Line2D([], [], color=GREY, linewidth=1.0, linestyle=_DASHES, label="1 - x: what is left"))
    axes.legend(
        handles=marks, loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=len(marks), frameon=False, fontsize=8,
        columnspacing=1.2, handletextpad=0.3,
    )  # fmt: skip


# -- over time ---------------------------------------------------------------------------------------------------------


def course_plots(courses: Sequence[Course], doses: Doses) -> Iterator[tuple[str, str]]:
    """Yield for each load its name and a plot of its levels over time, one run of each, the quiet partner first."""
    quiet = [one for one in courses if one.treatment in doses["quiet"]]
    for place, load in enumerate(dict.fromkeys(one["load"] for one in doses["levels"])):
        names = {one["treatment"] for one in doses["levels"] if one["load"] == load}
        own = [one for one in courses if one.treatment in names]
        if own:
            yield load, _course_plot([*quiet, *own], doses, f"course{place}", _LOOKS[place % len(_LOOKS)][0])


def _course_plot(courses: Sequence[Course], doses: Doses, name: str, colour: str) -> str:
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    count = (len(courses) + 1) // 2
    height = count * _CELL_IN + 0.3
    scales = _Scales(courses, doses["limit_bytes_per_s"])
    with mpl.rc_context(canvas.STYLE):
        figure = Figure(figsize=(_WIDTH_IN, height))
        for number, one in enumerate(courses):
            row, column = divmod(number, 2)
            bottom = (height - (row + 1) * _CELL_IN + 0.05) / height
            left = 0.105 + 0.48 * column
            upper = figure.add_axes((left, bottom + 0.66 / height, 0.405, 0.62 / height))
            lower = figure.add_axes((left, bottom + 0.16 / height, 0.405, 0.42 / height))
            _draw_requests(upper, one, scales)
            _draw_rates(lower, one, scales, colour)
            if column == 0:
                upper.set_ylabel("TTFT")
                lower.set_ylabel(scales.unit)
                figure.align_ylabels([upper, lower])
            if number >= len(courses) - 2:
                lower.set_xlabel("s after the first send", labelpad=1)
        return canvas.as_svg(figure, name)


class _Scales:
    """The scales that all runs of a plot share, so that they can be read against one another."""

    def __init__(self, courses: Sequence[Course], limit: float | None) -> None:
        times = [ttft for one in courses for _, ttft in one.requests]
        rates = [rate for one in courses for _, rate in one.rates]
        most = max([*rates, limit or 0.0, 1.0])
        self.ttft = (min(times, default=0.1), max(times, default=1.0))
        self.unit, self.bytes = ("GB/s", 1e9) if most >= 2e9 else ("MB/s", 1e6)
        self.most, self.limit = 1.18 * most / self.bytes, limit
        self.spans = {one.run_id: (min(one.start_s or 0.0, 0.0) - 0.5, _end_s(one) + 0.5) for one in courses}
        lengths = [end - start for start, end in self.spans.values()]
        if max(lengths) <= _MOST_STRETCH * min(lengths):
            whole = (min(start for start, _ in self.spans.values()), max(end for _, end in self.spans.values()))
            self.spans = dict.fromkeys(self.spans, whole)


def _end_s(one: Course) -> float:
    return max(one.end_s, one.ended_s or 0.0)


def _draw_requests(axes: Axes, one: Course, scales: _Scales) -> None:
    canvas.prepare_seconds(axes, *scales.ttft)
    axes.yaxis.set_ticks(list(axes.get_yticks())[:: 1 + len(axes.get_yticks()) // 5])  # the panel is low
    _shade(axes, one, scales)
    if one.requests:
        sent, ttft = zip(*one.requests, strict=True)
        axes.plot(sent, ttft, "o", color=canvas.INK, markersize=1.9, markeredgewidth=0, alpha=0.75)
    axes.tick_params(labelbottom=False, labelsize=7.5)
    axes.grid(axis="y", color="white" if one.rates else _RULE, linewidth=0.6)
    axes.set_title(f"{one.treatment}, {one.run_id}"[:52], loc="left", fontsize=8, pad=2.5)


def _draw_rates(axes: Axes, one: Course, scales: _Scales, colour: str) -> None:
    _shade(axes, one, scales)
    axes.set_ylim(0, scales.most)
    if scales.limit is not None:
        axes.axhline(scales.limit / scales.bytes, color=GREY, linewidth=0.8, linestyle=_DASHES)
    if one.rates:
        times, rates = zip(*one.rates, strict=True)
        axes.plot(times, [rate / scales.bytes for rate in rates], color=colour, linewidth=1.2, drawstyle="steps-mid")
    else:
        axes.text(0.5, 0.4, "no neighbours", transform=axes.transAxes, ha="center", fontsize=7.5, color=GREY)
    axes.tick_params(labelsize=7.5)


def _shade(axes: Axes, one: Course, scales: _Scales) -> None:
    """Shade the time in which neighbours are at work, and mark the end of the load."""
    axes.set_xlim(*scales.spans[one.run_id])
    if one.start_s is not None and one.ready_s is not None:
        axes.axvspan(one.start_s, one.ready_s, color=_RAMP, linewidth=0, zorder=0)
        axes.axvspan(one.ready_s, one.ended_s or scales.spans[one.run_id][1], color=_LOADED, linewidth=0, zorder=0)
    axes.axvline(one.end_s, color=canvas.INK, linewidth=0.7, linestyle=(0, (1, 2)))
