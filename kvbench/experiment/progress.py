"""What is told of a run while it goes on; the terminal view and the tests implement it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kvbench.result.records import Row
    from kvbench.scenario.plan import RunSpec


class Watch(Protocol):
    """Is told what happens while it happens; `report.progress_view` shows it, tests record it."""

    def run_starts(self, spec: RunSpec, number: int, total: int) -> None:
        """A run begins."""

    def run_kept(self, spec: RunSpec) -> None:
        """A run of an earlier session is sealed and is not done again."""

    def step(self, text: str) -> None:
        """The next step of the current run."""

    def request_done(self, row: Row) -> None:
        """A request ended, of whatever phase."""

    def run_ends(self, spec: RunSpec) -> None:
        """The run is sealed."""
