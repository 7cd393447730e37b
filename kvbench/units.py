"""Text with units to plain numbers and back; inside kvbench all numbers are SI: bytes, seconds, bytes per second.

Decimal prefixes (k, M, G, T) are powers of 1000 and binary ones (Ki, Mi, Gi, Ti) powers of 1024, for every unit.
fio reads `50g` as binary; kvbench never does, and passes plain bytes to fio.
"""

from __future__ import annotations

import re

_PREFIX = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 1024,
    "mi": 1024**2,
    "gi": 1024**3,
    "ti": 1024**4,
}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_NUMBER = r"(\d+(?:\.\d+)?)"


def parse_count(text: str | int) -> int:
    """Read a number of tokens or requests: 512, "10k" (10,000), "1.5M", "4Ki" (4,096).

    Raises:
        ValueError: not a number with an optional prefix, or not a whole number.

    """
    match = re.fullmatch(_NUMBER + r"\s*(k|M|G|T|Ki|Mi|Gi|Ti|)", str(text).strip())
    if not match:
        raise ValueError(f"{text!r} is not a count such as 512, 10k or 4Ki")
    return _whole(text, float(match[1]) * _PREFIX[match[2].lower()])


def parse_size(text: str | int) -> int:
    """Read a size in bytes: 4096, "64KiB", "20GB" (20,000,000,000).

    Raises:
        ValueError: not a size, or not a whole number of bytes.

    """
    match = re.fullmatch(_NUMBER + r"\s*([kKmMgGtT]i?|)B?", str(text).strip())
    if not match:
        raise ValueError(f"{text!r} is not a size such as 64KiB or 20GB")
    return _whole(text, float(match[1]) * _PREFIX[match[2].lower()])


def parse_duration(text: str | float) -> float:
    """Read a duration in seconds: 30, "30s", "250ms", "10us", "2m", "1h".

    Raises:
        ValueError: not a duration.

    """
    match = re.fullmatch(_NUMBER + r"\s*(ns|us|ms|s|min|m|h|)", str(text).strip())
    if not match:
        raise ValueError(f"{text!r} is not a duration such as 30s, 250ms or 2m")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def parse_rate(text: str | int) -> float:
    """Read a rate in bytes per second: 1000000, "23.5GB/s", "10Gbit" (1.25e9), "10Gbit/s".

    Raises:
        ValueError: not a rate.

    """
    match = re.fullmatch(_NUMBER + r"\s*([kKmMgGtT]i?|)(B/s|bit/s|bit|B|)", str(text).strip())
    if not match:
        raise ValueError(f"{text!r} is not a rate such as 23.5GB/s or 10Gbit")
    value = float(match[1]) * _PREFIX[match[2].lower()]
    return value / 8 if match[3].startswith("bit") else value


def _whole(text: str | int, value: float) -> int:
    rounded = round(value)
    if abs(value - rounded) > 1e-6 * max(1.0, abs(value)):
        raise ValueError(f"{text!r} is not a whole number")
    return rounded


def format_count(value: int) -> str:
    """Shorten whole thousands: 130000 to "130k", 512 to "512"."""
    return f"{value // 1000}k" if value >= 1000 and value % 1000 == 0 else f"{value:,}"


def format_size(value: float) -> str:
    """Write bytes with a decimal prefix and three significant digits: 18874368 to "18.9 MB"."""
    for prefix, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= 0.9995 * factor:  # what rounds to 1000 of a prefix is 1 of the next
            return f"{value / factor:.3g} {prefix}" if abs(value) < 999.5 * factor else f"{value / factor:.0f} {prefix}"
    return f"{value:.0f} B"


def format_rate(value: float) -> str:
    """Write bytes per second with a decimal prefix: 2.35e10 to "23.5 GB/s"."""
    return f"{format_size(value)}/s"


def format_duration(seconds: float) -> str:
    """Write seconds as a person reads them: 0.0242 to "24.2 ms", 4.0 to "4.00 s", 83 to "1 min 23 s"."""
    if seconds >= 60:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    if seconds == 0:
        return "0 s"
    # What rounds to 1000 of a unit is 1 of the next.
    unit, factor = ("s", 1.0) if seconds >= 0.9995 else ("ms", 1e-3) if seconds >= 0.9995e-3 else ("us", 1e-6)
    return f"{seconds / factor:#.3g} {unit}".replace(". ", " ")
