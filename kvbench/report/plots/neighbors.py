"""Plots of neighbours: the KV rate at each level of load, and the requests of a run while neighbours load.

Loads differ in marker, not in colour alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.report.plots import canvas
from kvbench.report.plots.series import GREY, load_look, place_of_load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from kvbench.analysis.neighbor_types import NeighborImpact, NeighborLevel
    from kvbench.report.report_input import ReportInput


class Point(NamedTuple):
    """One level in the plot: `share` of a capacity was delivered, and `kv_share` is left of the KV rate."""

    level: NeighborLevel
    look: tuple[str, str]
    load_place: int
    share: float
    least: float
    most: float
    kv_share: float


def neighbors(given: ReportInput) -> str | None:
    """Draw the KV rate over that of the quiet partner against what neighbours delivered; None without any figure."""
    impact = given.summary.neighbors
    points = points_of(impact) if impact is not None else []
    if impact is None or not points:
        return None
    with canvas.style():
        figure = Figure(figsize=(canvas.WIDTH_IN, 2.4))
        axes = figure.add_axes((0.09, 0.185, 0.885, 0.69))
        _prepare_shares(axes, points)
        if impact.limit_bytes_per_s is not None:
            axes.plot([0, 1], [1, 0], color=GREY, linewidth=1.0, linestyle=canvas.DASHES, zorder=1)
        axes.plot([0], [1], "o", color=GREY, markersize=6, zorder=4)
        for point in points:
            _draw_point(axes, point)
        _explain(axes, points, with_line=impact.limit_bytes_per_s is not None)
        return canvas.svg_for_page(figure, "neighbors")


def caption(given: ReportInput) -> str:
    """Explain the marks, and name the levels that have no place in the plot."""
    impact = given.summary.neighbors
    text = (
        "Each mark is one level: across, what was delivered in the window of the load, with its range over rounds; up,"
        " the KV rate over that of its quiet partner, with its 95 % interval."
    )
    if impact is None:
        return text
    if impact.limit_bytes_per_s is not None:
        text += " Dashed: what is left of the capacity."
    placed = [point.level.treatment for point in points_of(impact)]
    if rest := [level.treatment for level in impact.levels if level.treatment not in placed]:
        text += f" Not drawn, because there is no capacity to be a share of, or no KV rate: {', '.join(rest)}."
    return text


def points_of(impact: NeighborImpact) -> list[Point]:
    """Return the levels that have a place in the plot: a share of a capacity, and a KV rate on both sides."""
    points = []
    for level in impact.levels:
        share, kv_share, delivered = level.of_capacity, level.kv_share.value, level.delivered_bytes_per_s
        if share is None or kv_share is None or level.capacity is None:
            continue
        ends = [end / level.capacity.bytes_per_s for end in (delivered.least, delivered.most) if end is not None]
        look, place = load_look(level.load_name, impact), place_of_load(level.load_name, impact)
        points.append(Point(level, look, place, share, min(ends, default=share), max(ends, default=share), kv_share))
    return points


def _prepare_shares(axes: Axes, points: Sequence[Point]) -> None:
    """Set both scales in percent from zero."""
    right = max(1.0, *(point.most for point in points))
    top = max(1.0, *(point.level.kv_share.high or point.kv_share for point in points))
    axes.set_xlim(-0.03, right + 0.05)
    axes.set_ylim(0, top * 1.1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.grid(axis="y", color=canvas.RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("delivered by neighbours, share of capacity")
    axes.set_ylabel("KV rate, share of quiet")


def _draw_point(axes: Axes, point: Point) -> None:
    """Draw one level with the range of what was delivered and the interval of its effect; unlimited ones are hollow."""
    colour, marker = point.look
    unlimited, low, high = point.level.unlimited, point.level.kv_share.low, point.level.kv_share.high
    axes.hlines([point.kv_share], point.least, point.most, color=colour, linewidth=1.0, zorder=2)
    if low is not None and high is not None:
        axes.vlines([point.share], low, high, color=colour, linewidth=1.2, zorder=2)
        axes.plot([point.share, point.share], [low, high], "_", color=colour, markersize=6, zorder=2)
    face = "white" if unlimited else colour
    axes.plot([point.share], [point.kv_share], marker, color=colour, markerfacecolor=face, markersize=6, zorder=4)
    shift, side = ((6, 5), "left") if point.load_place % 2 == 0 and not unlimited else ((-6, -10), "right")
    text = "unlimited" if unlimited else str(point.level.target)
    at = (point.share, point.kv_share)
    axes.annotate(text, at, shift, textcoords="offset points", ha=side, color=colour, fontsize=7.5)


def _explain(axes: Axes, points: Sequence[Point], *, with_line: bool) -> None:
    grey, ink = GREY, canvas.INK
    marks = [Line2D([], [], marker="o", color=grey, linestyle="", label="quiet")]
    first_points: dict[str, Point] = {}
    for point in points:
        first_points.setdefault(point.level.load_name, point)
    for load_name, point in first_points.items():
        colour, marker = point.look
        label = f"{load_name} ({point.level.generator})"
        marks.append(Line2D([], [], marker=marker, color=colour, linestyle="", label=label))
    if any(point.level.unlimited for point in points):
        marks.append(Line2D([], [], marker="s", color=ink, markerfacecolor="white", linestyle="", label="unlimited"))
    if with_line:
        marks.append(Line2D([], [], color=grey, linewidth=1.0, linestyle=canvas.DASHES, label="1 - x: what is left"))
    axes.legend(
        handles=marks, loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=len(marks), frameon=False, fontsize=8,
        columnspacing=1.2, handletextpad=0.3,
    )  # fmt: skip
