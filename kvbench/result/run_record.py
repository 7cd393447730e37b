"""One run as `run.json` keeps it: what it was, how its cache state was reached, its ledger, and what stood around it.

All `*_ns` are wall-clock nanoseconds, all `*_s` seconds, all `*_bytes_per_s` real bytes. What had no source is None,
never 0.
"""

from dataclasses import dataclass, field
from typing import Literal

from kvbench.result.verdict import Verdict
from kvbench.typed_json import JsonObject

Outcome = Literal["proven", "failed", "not established", "done"]
Resource = Literal["disk", "link"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done or shown on the way to a cache state."""

    name: str
    outcome: Outcome
    evidence: str


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """The cache state that the run was brought into, such as `off`, `cold` or `warm(g4)`, and the steps to it."""

    state: str
    steps: tuple[Step, ...] = ()


def named_tier(cache_state: str | None) -> str:
    """Return the tier that must serve a request in a cache state: the warm tier, else `recompute`."""
    state = str(cache_state)
    return state.removeprefix("warm(").removesuffix(")") if state.startswith("warm(") else "recompute"


@dataclass(frozen=True, slots=True)
class Ledger:
    """The sums of a run's measured requests: what the answers say, what the counters say, what should have been.

    All in tokens and bytes; None where there is no source. `closes` is the verdict on tokens and bytes together, `gap`
    the first place where they do not agree. `memory_tokens` are the hits that read no file: those in G1 and in host
    memory. `process_read_bytes` is without `moved_bytes`, which were read to move files to a slower tier. `bad_files`
    and `write_errors` are the server's own counts of tier files that were not as written, or could not be written.
    """

    requests: int
    prompt_tokens: int | None
    cached_tokens: int | None
    expected_cached_tokens: int | None
    counter_hits: float | None
    counter_computed: float | None
    read_bytes: dict[str, float]
    process_read_bytes: int | None
    expected_read_bytes: int | None
    hit_efficiency: float | None
    closes: bool
    gap: str | None
    memory_tokens: float | None = None
    moved_bytes: float | None = None
    bad_files: float | None = None
    write_errors: float | None = None
    counter_tier_tokens: dict[str, float] = field(default_factory=dict)
    answer_tier_tokens: dict[str, int] = field(default_factory=dict)

    @property
    def splits_close(self) -> bool:
        """Whether what the answers say of their tiers adds up to what the counters say, tier by tier."""
        counted = {tier: count for tier, count in self.counter_tier_tokens.items() if count}
        return self.closes and bool(counted) and counted == self.answer_tier_tokens

    @property
    def counted_bytes(self) -> float | None:
        """The bytes that all tier counters together say were read; None where the server has no such counter."""
        return sum(self.read_bytes.values()) if self.read_bytes else None

    @property
    def counted_or_kernel_bytes(self) -> float | None:
        """The counted bytes, 0 too; what the kernel says that the server read where it has no counter."""
        return self.process_read_bytes if self.counted_bytes is None else self.counted_bytes


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """The block arithmetic of the server: tokens per hash block, KV bytes per token, and its directory tier's name."""

    tokens: int
    kv_bytes_per_token: float | None
    path_tier: str | None


@dataclass(frozen=True, slots=True)
class DriverRecord:
    """Which driver sent the requests, and how well the client itself did while they were measured.

    `stamps` is `kernel` or `user`, or in an import the tool's own words. `client_cpu_s` is the processor time of the
    client in `wall_s`, `worker_cpu_s` that of AIPerf's busiest worker, `start_s` how long AIPerf took to its first
    request. `clock_step_s` is by how much the wall clock moved against the monotonic one. The counts are of requests.
    """

    name: str
    stamps: str | None = None
    version: str | None = None
    receiver_priority: str | None = None
    client_cpu_s: float | None = None
    receiver_cpu_s: float | None = None
    worker_cpu_s: float | None = None
    wall_s: float | None = None
    start_s: float | None = None
    clock_step_s: float | None = None
    retries: int | None = None
    first_tokens: int | None = None
    upper_bounds: int | None = None
    user_stamps: int | None = None
    connections_opened: int | None = None
    out_of_order: int | None = None
    missing: int | None = None


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """The server that answered: its URL without secrets, its model, and what it says of itself."""

    url: str | None
    model: str | None
    info: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pressure:
    """What the host's meters counted in the measured phase, as shares of its time; None where there is no meter.

    `clock_step_s` is by how much the wall clock moved against the monotonic one, `swapped_bytes` what went to swap.
    """

    window_s: float | None = None
    clock_step_s: float | None = None
    cpu_some_share: float | None = None
    cpu_full_share: float | None = None
    memory_some_share: float | None = None
    memory_full_share: float | None = None
    io_some_share: float | None = None
    io_full_share: float | None = None
    steal_share: float | None = None
    swapped_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class HostRecord:
    """This host during the run: settings before and after, which of them changed, and the pressure on it."""

    before: JsonObject = field(default_factory=dict)
    after: JsonObject = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    pressure: Pressure = Pressure()


@dataclass(frozen=True, slots=True)
class Window:
    """The load window: the first send and the last token."""

    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """How the neighbours of a run went: when they started, when they were steady, and how long they took to stop."""

    at_ns: int
    start_skew_s: float | None
    ramp_s: float
    steady: bool
    lead_s: float
    stop_asked_ns: int | None
    stop_s: float | None


@dataclass(frozen=True, slots=True)
class SideClientRecord:
    """What one side client delivered in the load window, and what is known of it.

    `coverage` is the share of the window at 90 % of its target or more, `moving` at any rate; None in a quiet run.
    `device_bytes_per_s` is what its disk or interface counted. `host` and `facts` are as the agent there wrote them.
    """

    delivered_bytes_per_s: float
    device: Literal["disk", "interface"]
    asked_bytes_per_s: float | None = None
    coverage: float | None = None
    moving: float | None = None
    device_bytes_per_s: float | None = None
    device_shared_with_server: bool = False
    clock_error_s: float | None = None
    clock_drift_s: float | None = None
    started_ns: int | None = None
    ended_ns: int | None = None
    outcome: JsonObject | None = None
    host: JsonObject = field(default_factory=dict)
    facts: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LostHost:
    """A side client that was lost: why, and when that was noticed."""

    host: str
    why: str
    noticed_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try of this run that was broken off, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class NeighborRecord:
    """The neighbours of a run: what was asked for, what was delivered in the load window, and the verdict on that.

    `load` is None in a quiet run, whose side clients are there and must be silent. `passes` is what its bytes share
    with the server's reads: a read limit of the `disk`, a `link` in the direction of reads; None where nothing says so
    (older records).
    """

    load: str | None
    generator: str | None
    target: str
    delivered_bytes_per_s: float
    label: str
    window: Window
    verdict: Verdict
    asked_bytes_per_s: float | None = None
    calibrated_bytes_per_s: float | None = None
    delivered_over_asked: float | None = None
    trial: TrialRecord | None = None
    hosts: dict[str, SideClientRecord] = field(default_factory=dict)
    lost: tuple[LostHost, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    passes: tuple[Resource, ...] | None = None


@dataclass(frozen=True, slots=True)
class BottleneckRecord:
    """The shared resource of known capacity that was made, or why it could not be: then `how` is None."""

    kind: Resource
    bytes_per_s: float | None
    how: str | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The content of `run.json`, which marks a run as done.

    `started` is an ISO moment in UTC. `sent_one_by_one` says that each measured request stood alone between two scrapes
    of its own. `load_s` is the length of the load window. `requests` counts all rows of the run, of every phase.
    """

    run_id: str
    treatment: str
    repeat: int
    started: str | None
    load_s: float | None
    cache: CacheRecord
    ledger: Ledger
    blocks: BlockRecord | None
    driver: DriverRecord
    server: ServerRecord
    attempt: int = 1
    requests: int = 0
    sent_one_by_one: bool = False
    network_floor_s: float | None = None
    host: HostRecord | None = None
    load_1min: float | None = None
    neighbors: NeighborRecord | None = None
    bottleneck: BottleneckRecord | None = None
    imported: str | None = None
