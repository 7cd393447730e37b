"""The keys under which the texts of a conversation's turns are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvbench.scenario.plan import Draw


def turn_key(draw: Draw) -> str:
    """Return the key of what the user says in a turn; the first turn is the prompt itself."""
    return f"{draw.text_key}/turn-{draw.turn}" if draw.turn else draw.text_key


def answer_key(draw: Draw) -> str:
    """Return the key of the recorded answer to a turn."""
    return f"{draw.text_key}/turn-{draw.turn}/answer"
