"""The data that the plots draw: for each treatment its style and three columns of figures.

Colours are those of Okabe and Ito, safe for the colour-blind; the baseline is grey.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvbench.analysis.neighbor_types import NeighborImpact
    from kvbench.analysis.summary_types import LengthCell, Summary

    ValueAndInterval = tuple[float | None, float | None, float | None]

GREY = "#4d4d4d"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#56b4e9", "#e69f00")
_MARKERS = ("s", "^", "D", "v", "P", "X")
_MOST_LOADS = 4  # loads of neighbours that differ in their looks


@dataclass(frozen=True, slots=True)
class Series:
    """A figure of one treatment at each prompt length; an end of an interval that n does not support is None."""

    name: str
    colour: str
    marker: str
    lengths: tuple[int, ...]
    medians: tuple[float, ...]
    lows: tuple[float | None, ...]
    highs: tuple[float | None, ...]

    @property
    def label(self) -> str:
        """A name that fits beside the end of a line."""
        return self.name if len(self.name) <= 15 else f"{self.name[:14]}…"


def ttft_series(summary: Summary) -> list[Series]:
    """Return for each treatment with any figure its medians with their intervals."""
    return _series(summary, lambda cell: (cell.median_s, cell.ttft["p50"].low, cell.ttft["p50"].high))


def speed_up_series(summary: Summary) -> list[Series]:
    """Return for each compared treatment its speed-up with its interval over rounds."""
    return _series(summary, _speed_up)


def _speed_up(cell: LengthCell) -> ValueAndInterval:
    judged = cell.comparison
    return (judged.ratio, judged.low, judged.high) if judged is not None else (None, None, None)


def _series(summary: Summary, pick: Callable[[LengthCell], ValueAndInterval]) -> list[Series]:
    """Return a figure and the ends of its interval, as far as there are any, for each treatment that has one."""
    all_series = []
    for name in summary.treatments:
        cells = [(row.isl, pick(row.cells[name])) for row in summary.lengths]
        known = [(isl, value, low, high) for isl, (value, low, high) in cells if isl is not None and value is not None]
        if known:
            lengths, medians, lows, highs = zip(*known, strict=True)
            all_series.append(Series(name, *look(name, summary), lengths, medians, lows, highs))
    return all_series


def reach(all_series: Sequence[Series]) -> tuple[float, float]:
    """Return the least and the largest value that is drawn of any of them."""
    values = [
        value for series in all_series for value in (*series.medians, *series.lows, *series.highs) if value is not None
    ]
    return min(values), max(values)


def look(name: str, summary: Summary) -> tuple[str, str]:
    """Return colour and marker of a treatment, the same in all plots."""
    if name == summary.baseline:
        return GREY, "o"
    others = [other for other in summary.treatments if other != summary.baseline]
    place = others.index(name)
    return _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]


def load_look(load_name: str, impact: NeighborImpact) -> tuple[str, str]:
    """Return colour and marker of a load of neighbours."""
    place = place_of_load(load_name, impact) % _MOST_LOADS
    return _COLOURS[place], _MARKERS[place]


def place_of_load(load_name: str, impact: NeighborImpact) -> int:
    """Return the place of a load among all of them, in the scenario's order."""
    return list(dict.fromkeys(level.load_name for level in impact.levels)).index(load_name)
