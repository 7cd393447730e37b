"""Which requests of a run are the first touch of their prompt, and which may find what the run itself has stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvbench.records import Row

Touch = Literal["first", "overlapping", "repeat"]


def touches_by_request(measured: Sequence[Row]) -> dict[str, Touch]:
    """Return what each request that was sent is to its prompt; all measured rows of the run are needed.

    The earliest request of a prompt is its first touch, and later ones are repeat touches. Those that were sent before
    the earliest one's first token, and then the earliest itself too, are `overlapping`: the server may have taken any
    of them first, so they are neither. A request that failed may have left its blocks in a cache, so it touches its
    prompt all the same; one without any token overlaps with none, since nobody knows when it ended.
    """
    by_prompt: dict[str, list[Row]] = {}
    for row in measured:
        if row.sent_ns is not None:
            by_prompt.setdefault(row.prompt_id, []).append(row)
    found: dict[str, Touch] = {}
    for rows in by_prompt.values():
        earliest, *later = sorted(rows, key=lambda row: row.sent_ns or 0)
        until_ns = earliest.first_token_ns or 0
        overlapping = [row for row in later if (row.sent_ns or 0) < until_ns]
        found[earliest.request_id] = "overlapping" if overlapping else "first"
        found |= {row.request_id: "repeat" for row in later}
        found |= {row.request_id: "overlapping" for row in overlapping}
    return found


def not_first_touches(measured: Sequence[Row]) -> set[str]:
    """Return the requests that may find what the run itself has put into a cache: all that are no sure first touch."""
    return {request_id for request_id, touch in touches_by_request(measured).items() if touch != "first"}
