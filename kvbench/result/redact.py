"""Removes secrets from what is shown in a report or copied into a result folder.

Text is searched for the shapes that keys have; JSON also for the names that they stand under, such as `Authorization`.
What a tool has masked itself stays as it is.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvbench.typed_json import JsonObject


HIDDEN = "[hidden]"
_SHAPES = (
    (re.compile(r"(?<=://)[^\s/?#\"'<>]*@"), f"{HIDDEN}@"),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(?<=[?&])((?:api[_-]?)?key|token|access_token|secret|password)=[^\s&#\"'<>]+"), rf"\1={HIDDEN}"),
    (re.compile(r"\b(?:sk|hf|nvapi|ghp)[-_][\w-]{16,}"), HIDDEN),
)
_SPOKEN = (
    (re.compile(r"(?i)(--api-key[ =]+['\"]?)[^\s'\"[<]+"), rf"\1{HIDDEN}"),
    (
        re.compile(
            r"(?i)\b((?:authorization|x-api-key|cookie)\s*[:=]\s*(?:(?:basic|token|bearer)\s+)?)"
            r"(?!(?:basic|token|bearer)\s)[^\s'\",;[<]+"
        ),
        rf"\1{HIDDEN}",
    ),
)
_NAMES = re.compile(
    r"(?i)((proxy-)?authorization|.*api[-_]?key|(set-)?cookie|passw(or)?d|.*secret.*"
    r"|(access|refresh|auth|bearer|hf|x-auth|session|id)[-_]?token)"  # a bare "token" is a word of an answer
)
_PAIR = ({"name", "value"}, {"key", "value"})  # how some tools write a header
_MASKED = re.compile(r"\**|<redacted>|\[hidden\]", re.IGNORECASE)


def without_secrets(value: Any) -> Any:
    """Return JSON or text without URL userinfo, bearer tokens and keys in URLs."""
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return _replace(value, _SHAPES) if isinstance(value, str) else value


def without_named_secrets(value: Any) -> Any:
    """Return JSON without what `without_secrets` hides and without what stands under the name of a secret.

    A string that is JSON itself, such as a request kept as text, is searched as well.
    """
    if isinstance(value, dict):
        return _without_named_secrets_of(value)
    if isinstance(value, list):
        if len(value) == 2 and isinstance(value[0], str) and _is_secret(value[0], value[1]):
            return [value[0], HIDDEN]
        return [without_named_secrets(item) for item in value]
    if not isinstance(value, str):
        return value
    if value[:1] in ("{", "["):
        try:
            inner = json.loads(value)
        except (ValueError, RecursionError):
            pass
        else:
            clean = without_named_secrets(inner)
            return value if clean == inner else json.dumps(clean)
    return _replace(value, (*_SHAPES, *_SPOKEN))


def _without_named_secrets_of(value: JsonObject) -> JsonObject:
    if value.keys() in _PAIR:
        name = value.get("name", value.get("key"))
        if isinstance(name, str) and _is_secret(name, value["value"]):
            return {**value, "value": HIDDEN}
    return {key: HIDDEN if _is_secret(key, item) else without_named_secrets(item) for key, item in value.items()}


def _is_secret(name: str, value: Any) -> bool:
    """Tell whether a value is a key that its name gives away, alone or in a list; numbers and masks are none."""
    if _NAMES.fullmatch(name) is None:
        return False
    values = value if isinstance(value, list) else [value]
    return any(isinstance(one, str) and _MASKED.fullmatch(one) is None for one in values)


def _replace(text: str, patterns: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, instead in patterns:
        text = pattern.sub(instead, text)
    return text
