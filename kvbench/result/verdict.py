"""What a verdict is made of: reasons, and the word that follows from them.

`invalid`: what was measured is not what was asked for, or cannot be true. `suspect`: it may be right, but that was not
shown. `note`: worth knowing, changes nothing. Every reason names its rule; `docs/protocol.md` has a row for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Level = Literal["note", "suspect", "invalid"]
VerdictWord = Literal["valid", "suspect", "invalid"]


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that was found, by which rule, and what to do about it."""

    level: Level
    rule: str
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The word on a run or a treatment, with its reasons."""

    word: VerdictWord
    reasons: tuple[Reason, ...] = ()


def verdict_of(reasons: Iterable[Reason], words: Sequence[VerdictWord] = ("valid",)) -> Verdict:
    """Return the verdict that follows from reasons, at best the worst of `words`."""
    found = tuple(reasons)
    levels = {reason.level for reason in found}
    own: VerdictWord = "invalid" if "invalid" in levels else "suspect" if "suspect" in levels else "valid"
    return Verdict(worst([own, worst(list(words))]), found)


def worst(words: Sequence[VerdictWord]) -> VerdictWord:
    """Return the worst of several verdicts; no run at all is invalid."""
    order: list[VerdictWord] = ["valid", "suspect", "invalid"]
    return max(words, key=order.index) if words else "invalid"
