"""The crew of nobody: every verb of `Crew`, and nothing happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from kvbench.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kvbench.neighbor_spec import Target
    from kvbench.neighbors.trial import Calibration, Lost, Trial
    from kvbench.neighbors.verdict import Window


class Nobody:
    """No side clients: a run that nobody disturbs, and of which nobody claims so."""

    on_lost: Callable[[Lost], None] | None = None
    calibration: Calibration | None = None
    trial: Trial | None = None

    def __init__(self) -> None:
        """Nobody can be lost."""
        self.lost: list[Lost] = []

    def __enter__(self) -> Self:
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def keep_in(self, folder: Path) -> None:
        """Do nothing."""

    def confine(self, add: Callable[[int], None]) -> list[int]:
        """Return that there is nobody."""
        del add
        return []

    def calibrate(self) -> Calibration:
        """Refuse: nobody reaches nothing.

        Raises:
            HostError: always.

        """
        raise HostError("there are no side clients to calibrate", "Name a hosts file.")

    def start(self, target: Target) -> Trial:
        """Refuse: nobody can start.

        Raises:
            HostError: always.

        """
        raise HostError(f"there are no side clients to deliver {target}", "Name a hosts file.")

    def stop(self) -> None:
        """Do nothing."""

    def quiet(self) -> None:
        """Do nothing."""

    def report(self, window: Window, reference_bytes_per_s: float | None = None) -> dict[str, Any]:
        """Return that nobody was there and nothing was watched."""
        del reference_bytes_per_s
        return {
            "generator": None,
            "target": "quiet",
            "asked_bytes_per_s": None,
            "calibrated_bytes_per_s": None,
            "delivered_bytes_per_s": 0.0,
            "delivered_over_asked": None,
            "label": "quiet",
            "window": {"start_ns": window[0], "end_ns": window[1]},
            "trial": None,
            "hosts": {},
            "lost": [],
            "verdict": {"word": "valid", "reasons": []},
        }

    def restore(self, within_s: float = 15.0) -> None:
        """Do nothing."""
