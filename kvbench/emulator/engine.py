"""The core: GPU instances over the tiers that they share. It takes its clock and its I/O as arguments and never waits.

    engine = Engine(clock, gpu, Hierarchy(clock, tiers), EngineLimits(instances=4, g1_bytes=0))
    engine.submit(Generation(prompt, output_tokens, arrived_s=clock.time(), on_token=...))

A request goes to the instance with the fewest unfinished requests. G1 belongs to an instance, the tiers below
to all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvbench.emulator.instance import Clock, Generation, Instance
from kvbench.emulator.memory import MemoryTier

if TYPE_CHECKING:
    from kvbench.emulator.gpu import Gpu
    from kvbench.emulator.hierarchy import Hierarchy

__all__ = ["Clock", "Engine", "EngineLimits", "Generation"]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How many GPUs, how many tokens a step takes, what each may keep; `cache` False reuses and stores nothing."""

    block_bytes: int
    instances: int = 1
    max_batched_tokens: int = 8192
    g1_bytes: int = 0
    cache: bool = True


class Engine:
    """All instances, as one server shows them."""

    def __init__(self, clock: Clock, gpu: Gpu, below: Hierarchy, limits: EngineLimits) -> None:
        """Start idle and empty."""
        self.limits = limits
        self.below = below
        evicted = below.evicted if below.writes_back and below.tiers else None
        self.instances = [
            Instance(
                clock,
                gpu,
                limits.max_batched_tokens,
                MemoryTier("g1", limits.g1_bytes, limits.block_bytes, evicted) if limits.cache else None,
                below if limits.cache else None,
            )
            for _ in range(limits.instances)
        ]

    @property
    def unfinished(self) -> int:
        """Requests that hold blocks or will."""
        return sum(len(instance.unfinished) for instance in self.instances)

    @property
    def g1_used_bytes(self) -> int:
        """Bytes kept in the memory of all instances."""
        return sum(instance.g1.used_bytes for instance in self.instances if instance.g1)

    def submit(self, generation: Generation) -> None:
        """Take a request whose prompt is hashed; its time counts from `generation.arrived_s`."""
        loads = [len(instance.unfinished) for instance in self.instances]
        generation.instance = loads.index(min(loads))
        self.instances[generation.instance].admit(generation)

    def abort(self, generation: Generation) -> None:
        """Drop a request whose client is gone."""
        self.instances[generation.instance].abort(generation)

    def drop_memory(self) -> bool:
        """Empty G1, or refuse with False while requests hold blocks."""
        if self.unfinished:
            return False
        for instance in self.instances:
            if instance.g1:
                instance.g1.drop()
        return True
