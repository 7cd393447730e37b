"""What the emulator counts: plain numbers that only the event loop changes and that `metrics.py` prints."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

TTFT_BOUNDS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
E2E_BOUNDS_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
OVERRUN_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
FINISH_REASONS = ("stop", "length", "abort", "error")
BAD_FILE_REASONS = ("missing", "truncated", "magic", "header", "hashes", "checksum", "io_error")
WRITE_ERROR_REASONS = ("no_space", "capacity", "io_error", "bad_source")
LOWER_TIERS = ("g2", "g3", "g4")


@dataclass(slots=True)
class Histogram:
    """Observations counted by upper bound; the last count is of those above all bounds."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        """Start every bucket at 0."""
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class InstanceCounts:
    """One GPU instance, under vLLM's names."""

    local_queries: int = 0
    local_hits: int = 0
    external_queries: int = 0
    external_hits: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    local_tokens: int = 0
    tier_tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LOWER_TIERS, 0))
    generation_tokens: int = 0
    load_bytes: int = 0
    finished: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FINISH_REASONS, 0))
    ttft_s: Histogram = field(default_factory=lambda: Histogram(TTFT_BOUNDS_S))
    latency_s: Histogram = field(default_factory=lambda: Histogram(E2E_BOUNDS_S))
    overrun_s: Histogram = field(default_factory=lambda: Histogram(OVERRUN_BOUNDS_S))


@dataclass(slots=True)
class TierCounts:
    """One tier of files. Bytes are those of the files, with header and padding; `kv_*` are those of the blocks.

    `moved_bytes` were read to bring evicted files to the tier below; `moving_bytes` are on their way, and may have been
    read already. `skipped_files` found no room in a tier that has a slower one beside it.
    """

    read_bytes: int = 0
    read_files: int = 0
    write_bytes: int = 0
    write_files: int = 0
    kv_write_bytes: int = 0
    scan_bytes: int = 0
    evicted_files: int = 0
    moved_bytes: int = 0
    moving_bytes: int = 0
    skipped_files: int = 0
    bad_files: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BAD_FILE_REASONS, 0))
    write_errors: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WRITE_ERROR_REASONS, 0))
