"""What the plots draw: for each treatment its look and three columns of figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench.report.canvas import Series

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvbench.report.material import Material

    Figures = tuple[float | None, float | None, float | None]

GREY = "#4d4d4d"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#56b4e9", "#e69f00")
_MARKERS = ("s", "^", "D", "v", "P", "X")


def ttft_series(material: Material) -> list[Series]:
    """Collect for each treatment with any figure its medians with their intervals."""
    return _series(material, lambda cell: (cell["median_s"], cell["ttft"]["p50"]["low"], cell["ttft"]["p50"]["high"]))


def speed_up_series(material: Material) -> list[Series]:
    """Collect for each compared treatment its speed-up with its interval over rounds."""
    return _series(material, lambda cell: (cell["speed_up"], cell["speed_up_low"], cell["speed_up_high"]))


def _series(material: Material, pick: Callable[[dict[str, Any]], Figures]) -> list[Series]:
    """Collect a figure and the ends of its interval, as far as there are any, for each treatment that has one."""
    found = []
    for name in material.summary["treatments"]:
        cells = [(row["isl"], pick(row["cells"][name])) for row in material.summary["lengths"]]
        known = [(isl, value, low, high) for isl, (value, low, high) in cells if isl is not None and value is not None]
        if known:
            lengths, medians, lows, highs = zip(*known, strict=True)
            found.append(Series(name, *look(name, material), lengths, medians, lows, highs))
    return found


def reach(series: Sequence[Series]) -> tuple[float, float]:
    """Return the least and the largest value that is drawn of any of them."""
    values = [value for one in series for value in (*one.medians, *one.lows, *one.highs) if value is not None]
    return min(values), max(values)


def look(name: str, material: Material) -> tuple[str, str]:
    """Return colour and marker of a treatment, the same in all plots."""
    baseline = material.summary["baseline"]
    if name == baseline:
        return GREY, "o"
    others = [other for other in material.summary["treatments"] if other != baseline]
    place = others.index(name)
    return _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]


def requests(material: Material, one: Series) -> list[tuple[int, float]]:
    """Return length and TTFT of each single request behind a series."""
    return [
        (isl, row.ttft_s)
        for isl in one.lengths
        for row in material.measured(one.name, isl)
        if row.status == "ok" and row.ttft_s is not None
    ]
