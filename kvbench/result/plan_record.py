"""Reads from plan.json what a result is judged by: concurrency, open loops, baselines, ceilings.

What each run sends, one request a row, is in `draws.parquet` beside it, because a list may hold a million requests.
"""

from dataclasses import dataclass, field
from typing import Literal

from kvbench.typed_json import JsonObject

Arrival = Literal["constant", "poisson"]


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale model: GPU time is divided by `time`, KV bytes by `bytes`."""

    time: float = 1.0
    bytes: float = 1.0


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Requests on a schedule: `request_rate` of them a second, with equal or exponential gaps."""

    request_rate: float
    arrival: Arrival


@dataclass(frozen=True, slots=True)
class Turns:
    """Conversations: the number of turns, the user's new tokens a turn, and whose answers the history repeats."""

    count: int
    new_tokens: int
    history: Literal["recorded", "live"]


@dataclass(frozen=True, slots=True)
class Slo:
    """Limits that a request must meet: `ttft` in seconds at full scale, None where there is no limit."""

    ttft: float | None = None


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that a tier can deliver, in real bytes per second, and who says so."""

    bytes_per_s: float
    source: str


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run as planned: `requests` is how many it measures, `requests_by_length` how many of each prompt length."""

    run_id: str
    treatment: str
    repeat: int
    requests: int = 0
    requests_by_length: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Design:
    """What a result must be judged by: the treatments, what each is compared with, the load, and the limits.

    `imported` names the tool that measured the result, None for one of our own; an import has no lengths, no baseline
    and no definitions. `turn_of_length` says which turn, from 0, has a prompt of which length. `definitions` and
    `setting` are the scenario's own words, for whoever compares two results.
    """

    question: str
    server: str
    treatments: tuple[str, ...]
    repeats: int
    baseline: str | None = None
    scale: Scale | None = None
    lengths: tuple[int, ...] = ()
    turn_of_length: dict[int, int] = field(default_factory=dict)
    output_tokens: int | None = None
    concurrency: int | None = None
    concurrencies: dict[str, int | None] = field(default_factory=dict)
    open_loops: dict[str, OpenLoop] = field(default_factory=dict)
    baselines: dict[str, str | None] = field(default_factory=dict)
    turns: Turns | None = None
    max_fail: int = 0
    check_answers: bool = False
    slo: Slo = Slo()
    published: str | None = None
    definitions: dict[str, JsonObject] = field(default_factory=dict)
    setting: JsonObject = field(default_factory=dict)
    imported: str | None = None

    @property
    def time_scale(self) -> float:
        """What a measured time must be multiplied by to be one at full scale; 1 where nothing is a scale model."""
        return self.scale.time if self.scale is not None else 1.0

    def concurrency_of(self, treatment: str) -> int | None:
        """Return how many requests of a treatment are out at once, None where the plan does not say."""
        return self.concurrencies.get(treatment, self.concurrency)

    def open_loop_of(self, treatment: str) -> OpenLoop | None:
        """Return rate and arrival of a treatment's requests, None in a closed loop."""
        return self.open_loops.get(treatment)

    def baseline_of(self, treatment: str) -> str | None:
        """Return the treatment that another is compared with; None for one that is its own baseline."""
        base = self.baselines.get(treatment, self.baseline)
        return base if base != treatment else None

    def same_pairs(self, cache_states: dict[str, str | None]) -> list[tuple[str, str]]:
        """Return the pairs of treatments of one definition (A/A pairs); the baseline comes first in its own.

        `cache_states` are those that the treatments' runs had. They stand in for definitions where a plan has none: an
        older plan could hold nothing else. An import has neither, so it has no pair.
        """
        if self.imported:
            return []
        names = sorted(self.treatments, key=lambda name: name != self.baseline)
        kinds: dict[str, object] = {name: cache_states.get(name) for name in names}
        for name, definition in self.definitions.items():
            kinds[name] = {key: value for key, value in definition.items() if key != "against"}
        return [
            (one, other)
            for place, one in enumerate(names)
            for other in names[place + 1 :]
            if kinds[one] == kinds[other] and kinds[one] is not None
        ]

    def ceilings_of(self, treatment: str) -> dict[str, Ceiling]:
        """Return by tier what the scenario says that the tiers of a treatment can deliver."""
        tiers = self.definitions.get(treatment, {}).get("tiers") or self.setting.get("tiers")
        if not isinstance(tiers, dict):
            return {}
        bandwidths = {name: tier.get("bandwidth") for name, tier in tiers.items() if isinstance(tier, dict)}
        return {
            name: Ceiling(float(bandwidth), f"tiers.{name}.bandwidth of the scenario")
            for name, bandwidth in bandwidths.items()
            if isinstance(bandwidth, int | float) and bandwidth
        }


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """The content of `plan.json`; `fingerprint` tells one scenario from another, `salt` goes into every prompt."""

    scenario: str
    fingerprint: str
    salt: str
    canary_tokens: int
    runs: tuple[PlannedRun, ...]
    design: Design
