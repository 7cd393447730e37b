"""A printed number as the interval of values that round to it.

"34.39" stands for 34.385 to 34.395, "24 million" for 23.5 to 24.5 million, "over 95 %" for 95 % and more. Two printed
figures contradict one another only if no numbers inside their intervals fit together. Inside, all values are SI; a size
in GB may have been meant in GiB, so a figure also gives its other reading.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import Literal

Words = Literal["exactly", "about", "over", "at least", "up to", "at most", "nearly"]
Dimension = Literal["time", "bytes", "bandwidth", "tokens", "count", "rate", "token rate", "ratio"]

_PART_OF_ABOUT = 0.05  # "about 180" is taken as 171 to 189, and never narrower than its digits
_PART_OF_NEARLY = 0.1
_SHOWN: dict[Dimension, tuple[tuple[float, str], ...]] = {
    "time": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")),
    "bytes": ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    "bandwidth": ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1.0, "B/s")),
}


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as documents write it: its dimension, its size in SI, and its size where binary was meant."""

    dimension: Dimension
    factor: float
    binary: float | None = None


UNITS: dict[str, Unit] = {
    "": Unit("count", 1),
    "%": Unit("ratio", 0.01),
    "points": Unit("ratio", 0.01),
    "x": Unit("ratio", 1),
    "us": Unit("time", 1e-6),
    "ms": Unit("time", 1e-3),
    "s": Unit("time", 1),
    "min": Unit("time", 60),
    "tokens": Unit("tokens", 1),
    "k tokens": Unit("tokens", 1e3),
    "million tokens": Unit("tokens", 1e6),
    "billion": Unit("count", 1e9),
    "RPS": Unit("rate", 1),
    "req/s": Unit("rate", 1),
    "tokens/s": Unit("token rate", 1),
    "B": Unit("bytes", 1),
    "KB": Unit("bytes", 1e3, 2**10),
    "MB": Unit("bytes", 1e6, 2**20),
    "GB": Unit("bytes", 1e9, 2**30),
    "TB": Unit("bytes", 1e12, 2**40),
    "KiB": Unit("bytes", 2**10),
    "MiB": Unit("bytes", 2**20),
    "GiB": Unit("bytes", 2**30),
    "TiB": Unit("bytes", 2**40),
    "MB/s": Unit("bandwidth", 1e6),
    "GB/s": Unit("bandwidth", 1e9),
    "TB/s": Unit("bandwidth", 1e12),
    "Gbit/s": Unit("bandwidth", 1e9 / 8),
    "GbE": Unit("bandwidth", 1e9 / 8),
}


@dataclass(frozen=True, slots=True)
class Interval:
    """All values from `low` to `high`; arithmetic on intervals gives all values that the operation can have."""

    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Interval:
        """Make the interval of one value."""
        return cls(value, value)

    @property
    def middle(self) -> float:
        """The value in the middle; the finite end where the other one is not."""
        if self.high == inf:
            return self.low
        return self.high if self.low == -inf else (self.low + self.high) / 2

    def meets(self, other: Interval) -> bool:
        """Whether some value lies in both; ends that touch within floating-point error count."""
        slack = 1e-9 * max((abs(end) for end in (*self.ends, *other.ends) if abs(end) != inf), default=0.0)
        return self.low <= other.high + slack and other.low <= self.high + slack

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends."""
        return self.low, self.high

    def __add__(self, other: Interval) -> Interval:
        """Return all sums."""
        return Interval(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Interval) -> Interval:
        """Return all differences."""
        return Interval(self.low - other.high, self.high - other.low)

    def __mul__(self, other: Interval) -> Interval:
        """Return all products; nothing times an open end is nothing."""
        products = [a * b if a and b else 0.0 for a in self.ends for b in other.ends]
        return Interval(min(products), max(products))

    def __truediv__(self, other: Interval) -> Interval:
        """Return all quotients: any value, if the divisor may be zero."""
        if other.low <= 0 <= other.high:
            return Interval(-inf, inf)
        quotients = [a / b for a in self.ends for b in other.ends]
        return Interval(min(quotients), max(quotients))


@dataclass(frozen=True, slots=True)
class Printed:
    """A figure as it stands in a document: digits, unit and the word before it, with the interval that they mean."""

    text: str
    unit: str
    words: Words
    interval: Interval
    rounded: Interval
    binary: Interval | None

    @property
    def dimension(self) -> Dimension:
        """What kind of thing the unit measures."""
        return UNITS[self.unit].dimension

    def __str__(self) -> str:
        """Write it as the document does: "over 95 %"."""
        unit = f" {self.unit}" if self.unit not in ("", "x") else self.unit
        return f"{'' if self.words == 'exactly' else self.words + ' '}{self.text}{unit}"


def read(text: str, unit: str, words: Words = "exactly", *, times: int = 1) -> Printed:
    """Read a printed figure; "10 to 50" is a range, and `times` is for "dual 100 GbE".

    Raises:
        ValueError: not a number or a range, or a unit that is not known.

    """
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r} is not known; known are {', '.join(filter(None, UNITS))}")
    known = UNITS[unit]
    ends = [_rounded(part, exact=known.dimension == "count") for part in re.split(r"\s+to\s+", text.strip())]
    plain = Interval(ends[0].low, ends[-1].high)
    if len(ends) > 2 or plain.low > plain.high:
        raise ValueError(f"{text!r} is not a number or a range such as 10 to 50")
    meant, size = _with_words(plain, words), Interval.exact(known.factor * times)
    binary = meant * Interval.exact(known.binary * times) if known.binary else None
    shown = f"{times} x {text}" if times != 1 else text
    return Printed(shown, unit, words, meant * size, plain * size, binary)


def _rounded(text: str, *, exact: bool) -> Interval:
    """Return what is rounded to these digits; counts are exact, and "32k" is rounded to a thousand."""
    match = re.fullmatch(r"([+-]?)(\d+|\d{1,3}(?:,\d{3})+)(?:\.(\d+))?([kM]?)", text.replace("\N{MINUS SIGN}", "-"))
    if not match:
        raise ValueError(f"{text!r} is not a number such as 0.57 or 1,048.56")
    size = {"": 1.0, "k": 1e3, "M": 1e6}[match[4]]
    value = float(f"{match[1]}{match[2].replace(',', '')}.{match[3] or 0}") * size
    half = 0.0 if exact else 0.5 * 10.0 ** -len(match[3] or "") * size
    return Interval(value - half, value + half)


def _with_words(plain: Interval, words: Words) -> Interval:
    value = plain.middle
    if words in ("over", "at least"):
        return Interval(value, inf)
    if words in ("up to", "at most"):
        return Interval(-inf, plain.high)
    if words == "about":
        spare = max(abs(value) * _PART_OF_ABOUT, plain.high - value)
        return Interval(value - spare, value + spare)
    return Interval(value - abs(value) * _PART_OF_NEARLY, plain.high) if words == "nearly" else plain


def show(value: float, dimension: Dimension) -> str:
    """Write a value for the arithmetic of a finding: 4.694e1 s to "46.9 s", 23.5e9 B/s to "23.5 GB/s"."""
    if dimension == "ratio":
        return f"{value:.4g}"
    for size, name in _SHOWN.get(dimension, ()):
        if abs(value) >= size:
            return f"{value / size:.4g} {name}"
    names = {"rate": " requests/s", "token rate": " tokens/s", "tokens": " tokens", "count": ""}
    plain = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{plain}{names.get(dimension, ' s' if dimension == 'time' else ' B')}"


def show_interval(interval: Interval, dimension: Dimension, *, percent: bool = False) -> str:
    """Write an interval: "14.2 % to 16.8 %"; one value where both ends are shown alike."""
    ends = [f"{end * 100:.3g} %" if percent else show(end, dimension) for end in interval.ends]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
