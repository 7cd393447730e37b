"""What neighbours cost, as typed values of the summary: what they delivered, and what that did to the load.

Rates are real bytes or requests per second, times seconds. What is not known is None, never 0.
"""

from dataclasses import dataclass

from kvbench.result.run_record import BottleneckRecord


@dataclass(frozen=True, slots=True)
class Extent:
    """Mean, smallest and largest of n values, one a round."""

    mean: float | None  # None where n is 0
    least: float | None  # Smallest
    most: float | None  # Largest
    n: int  # Rounds


@dataclass(frozen=True, slots=True)
class Change:
    """A ratio, a loss or an increase against the quiet partner, with its 95 % interval over rounds."""

    value: float | None  # None where there is no partner or no shared round
    low: float | None  # Lower end
    high: float | None  # Upper end
    rounds: int  # Rounds that both have
    refusal: str | None  # Why there is no value, or no interval


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """What a treatment of a noisy-neighbour experiment did."""

    requests_per_s: Extent  # Answered requests a second
    kv_bytes_per_s: Extent  # KV that caches delivered
    runs: int  # Sealed runs
    runs_used: int  # Those that are not invalid
    verdicts: dict[str, int]  # Runs by verdict
    typical_run: str | None  # The run of median request rate, which stands for it in plots over time


@dataclass(frozen=True, slots=True)
class QuietArm:
    """A treatment without neighbours that others are held against."""

    load: LoadFigures  # What it did
    window_s: float | None  # Mean total time
    of_limit: float | None  # Its KV rate as a share of the bottleneck
    storage_bound: bool | None  # Whether the bottleneck bound it; None without one


@dataclass(frozen=True, slots=True)
class Capacity:
    """What shares are of: the larger of the limit and the quiet draw, or what neighbours reach alone."""

    bytes_per_s: float  # The rate
    source: str  # `limit`, `quiet draw` or `calibrated`


@dataclass(frozen=True, slots=True)
class TrialExtremes:
    """The extremes of how the trials of a level went."""

    ramp_s: float | None  # Longest ramp
    start_skew_s: float | None  # Largest distance between the first and the last start
    stop_s: float | None  # Longest stop
    steady: int  # Trials that were steady
    trials: int  # All of them


@dataclass(frozen=True, slots=True)
class NeighborLevel:
    """One treatment with neighbours: what they delivered, and what that did to the load."""

    treatment: str  # Its name
    quiet: str | None  # Its partner without neighbours; None where it is held against another level
    load_name: str  # The scenario's name of the neighbours' load
    generator: str | None  # `fio`, `iperf3` or another generator
    hosts: int  # Side clients
    target: str | None  # What was asked for, in words
    unlimited: bool  # Whether nothing paced them
    asked_bytes_per_s: float | None  # What was asked for
    calibrated_bytes_per_s: float | None  # What they reach alone
    delivered_bytes_per_s: Extent  # What they delivered in the load window
    delivered_over_asked: float | None  # Mean share of what was asked for
    capacity: Capacity | None  # What shares are of; None where nothing tells
    of_capacity: float | None  # What they delivered as a share of it
    trials: TrialExtremes  # How their trials went
    load: LoadFigures  # What the measured load did
    # What the load and its neighbours moved together; None where they share no bottleneck
    passed_bytes_per_s: float | None
    passed_over_limit: float | None  # The same over the limit
    requests_share: Change  # Request rate over the quiet one
    throughput_loss: Change  # 1 - request rate over the quiet one
    time_increase: Change  # Total time over the quiet one, minus 1
    kv_share: Change  # KV rate over the quiet one
    ttft_p50_increase: Change  # Median TTFT over the quiet one, minus 1
    ttft_p95_increase: Change  # P95 of TTFT over the quiet one, minus 1
    requests_over_recompute: Change  # Request rate over that of recomputing
    expected_share: float | None  # The share of the KV rate that arithmetic leaves
    over_expected: Change  # Measured over expected share
    agreement: str | None  # `shown`, `mean` or `no`; None where it is not judged
    unjudged: str | None  # Why it is not judged


@dataclass(frozen=True, slots=True)
class SideClientSummary:
    """What one side client did in one treatment, over all runs that are used."""

    treatment: str  # The treatment
    host: str  # The side client
    runs: int  # Runs that it took part in
    delivered_bytes_per_s: float | None  # Mean over runs
    coverage: float | None  # The smallest share of a window that it covered at 90 % of its target
    clock_error_s: float  # How well its clock is known, at worst
    device: str  # `disk` or `interface`
    device_bytes_per_s: float | None  # What that counted; mean over runs
    device_shared_with_server: bool  # Whether the counter may hold the server's bytes too
    direct: str | None  # Whether it read past the page cache: `enforced`, or what the file system makes of it
    scheduler: str | None  # Its disk's I/O scheduler
    file_system: str | None  # Where its file lay
    version: str | None  # The generator's version


@dataclass(frozen=True, slots=True)
class LostSideClient:
    """A side client that was lost in a run."""

    run_id: str  # The run
    host: str  # The side client
    why: str  # What happened
    used: bool  # Whether the run still gives figures


@dataclass(frozen=True, slots=True)
class BrokenTry:
    """A try of a run that was broken off, because a side client was lost."""

    run_id: str  # The run
    number: int  # Which try, from 1
    why: str  # What happened


@dataclass(frozen=True, slots=True)
class NeighborImpact:
    """What neighbours did to each treatment that has them."""

    bottleneck: BottleneckRecord | None  # The shared resource of known capacity, or why it could not be made
    limit_bytes_per_s: float | None  # The payload that it lets pass
    quiet: dict[str, QuietArm]  # Treatments without neighbours that others are held against
    levels: tuple[NeighborLevel, ...]  # Treatments with neighbours
    hosts: tuple[SideClientSummary, ...]  # Side clients by treatment
    lost: tuple[LostSideClient, ...]  # Side clients that were lost
    attempts: tuple[BrokenTry, ...]  # Tries that were broken off
