"""Which reasons of a verdict speak of the load of this machine: a test that measures for real must allow them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvbench.result.verdict import Reason, Verdict

# Rules on what the client, the emulator's processor time or the host did, and on comparing times.
HOST_AND_CLIENT_RULES = frozenset(
    {
        *("overrun", "send lag", "receive lag", "client CPU", "receiver CPU"),
        *("upper bounds", "one piece", "token rate"),
        *("starved loop", "clock step", "reconnects", "retries", "client error", "user clock"),
        *("steal", "CPU pressure", "memory pressure", "swapping", "I/O pressure", "changed in mid-run"),
        *("A/A pair", "suspect rounds"),
    }
)
# Rules on what neighbours did: a busy machine delays what they say, and slows them down. What they moved, who was lost
# and who ended is not among them, nor is anything that makes a run invalid.
NEIGHBOUR_RULES = frozenset({"neighbour clock", "neighbour counters", "neighbour ramp", "neighbour short"})


def but_for_load(verdict: Verdict) -> list[Reason]:
    """Return the reasons of a verdict on neighbours that a busy machine does not explain."""
    return [reason for reason in verdict.reasons if reason.level == "invalid" or reason.rule not in NEIGHBOUR_RULES]
