"""Reads and writes JSON as typed values: a dataclass is checked when it is read, and plain JSON values are written.

`null` stays None; a missing field takes the default of its dataclass; unknown fields are left out, so that a result of
a later version with more fields can still be read.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError

from kvbench.errors import ResultError

JsonObject = dict[str, JsonValue]
"""An object whose fields only other programs define: what a server says of itself, or a driver of its own health."""

_T = TypeVar("_T")
_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def from_json(kind: type[_T], value: object, source: str) -> _T:
    """Return `value`, which came from a JSON file, as a value of `kind`.

    Raises:
        ResultError: a field is missing or of another type; `source` is the file that the message names.

    """
    try:
        checked: _T = _adapter(kind).validate_python(value)
    except ValidationError as fault:
        first = fault.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ResultError(
            f"{source}: {place}: {first['msg'].lower()}", "Use the kvbench version that wrote the result."
        ) from None
    return checked


def to_json(value: Any) -> JsonObject:
    """Return a dataclass as plain JSON values."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"{value!r} is not a dataclass")
    plain: JsonObject = dataclasses.asdict(value)
    return plain


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Return what checks a type; it is made once, because that takes milliseconds."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
