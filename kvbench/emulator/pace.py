"""Tokens on a fixed timetable and no model at all: a server whose first byte leaves at a known instant.

It exists to measure a client: what the client sees beyond the timetable is the client's own error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvbench.emulator.instance import Clock, Generation, Instance


@dataclass(frozen=True, slots=True)
class FixedPace:
    """Gives the first token `latency_s` after arrival and each further one `gap_s` after the one before."""

    clock: Clock
    instance: Instance
    latency_s: float
    gap_s: float
    _running: set[Generation] = field(default_factory=set)

    def submit(self, generation: Generation) -> None:
        """Take a request; its time counts from `generation.arrived_s`."""
        self._running.add(generation)
        counts = self.instance.counts
        counts.local_queries += generation.prompt.tokens
        counts.prompt_tokens += generation.prompt.tokens
        counts.computed_tokens += generation.prompt.tokens
        generation.first_token_s = generation.arrived_s + self.latency_s
        self.clock.call_at(generation.first_token_s, self._tick, generation, generation.first_token_s)

    def _tick(self, generation: Generation, due_s: float) -> None:
        if generation not in self._running:
            return
        generation.generated_tokens += 1
        self.instance.counts.generation_tokens += 1
        if generation.finished:
            self._running.discard(generation)
            self.instance.counts.finished[generation.finish_reason] += 1
        else:
            self.clock.call_at(due_s + self.gap_s, self._tick, generation, due_s + self.gap_s)
        generation.on_token(generation, due_s)

    def abort(self, generation: Generation) -> None:
        """Drop a request whose client is gone."""
        if generation in self._running:
            self._running.discard(generation)
            self.instance.counts.finished["abort"] += 1
