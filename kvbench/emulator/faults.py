"""Ways in which a server lies or breaks, on request, so that a harness can show that it notices.

A fault of a request applies to each generation request, or to every N-th; one of files to each file written, or to
every N-th; the others hold for the whole server.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvbench.emulator_faults import LATE_HITS, LATE_S

if TYPE_CHECKING:
    from kvbench.emulator.hierarchy import StoreRules


@dataclass(slots=True)
class Faults:
    """The faults asked for; `every` = N spares all generation requests but each N-th."""

    names: frozenset[str] = frozenset()
    every: int = 1
    _requests: int = 0

    def __contains__(self, name: str) -> bool:
        """Tell whether the whole server has this fault."""
        return name in self.names

    def of_next_request(self) -> frozenset[str]:
        """Count a generation request and return the faults that it meets."""
        self._requests += 1
        return self.names if self._requests % self.every == 0 else frozenset()


def store_rules(rules: StoreRules, faults: Faults) -> StoreRules:
    """Return the rules of storing that these faults leave."""
    if "admit_after_9" in faults:
        rules = replace(rules, admit_after_hits=LATE_HITS)
    if "late_write_back" in faults:
        rules = replace(rules, delay_s=LATE_S, delay_shown=False)
    return rules
