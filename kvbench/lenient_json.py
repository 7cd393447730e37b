"""Reads values out of JSON of unknown quality: what is not of the expected kind is None, never an error or a guess."""

from __future__ import annotations

import json
from typing import Any

import orjson

MOST_WHOLE = 2**63 - 1
_LONGEST_ERROR = 300


def parse(content: bytes) -> Any:
    """Parse JSON; None where it is none. Python's own parser takes what orjson refuses, such as NaN."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def at(value: Any, *path: str) -> Any:
    """Follow names into nested objects; None where one is missing or is no object."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def number(value: Any) -> float | None:
    """Return a number from 0 to what fits 64 bits; None for anything else."""
    if type(value) is float:  # nearly always
        return value if 0 <= value <= MOST_WHOLE else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= MOST_WHOLE else None  # no NaN passes a comparison


def whole(value: Any) -> int | None:
    """Return a whole number that is not negative and fits 64 bits; None for anything else."""
    if type(value) is int:
        return value if 0 <= value <= MOST_WHOLE else None
    known = number(value)
    return min(int(value), MOST_WHOLE) if known is not None and known == int(known) else None


def text(value: Any) -> str | None:
    """Return a text that is not empty; None for anything else. Half a surrogate pair cannot be stored."""
    return value.encode(errors="replace").decode() if isinstance(value, str) and value else None


def items(value: Any) -> list[Any]:
    """Return a list; an empty one for anything else."""
    return value if isinstance(value, list) else []


def shortened(message: str | None) -> str | None:
    """Bring what a tool says of a failure to one short line: the last one of a traceback."""
    lines = (message or "").strip().splitlines()
    return lines[-1].strip()[:_LONGEST_ERROR] if lines else None
