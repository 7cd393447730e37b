"""The keys of a scenario as strict models; `scenario.Scenario` puts them together.

They reject what they do not know. Sizes and lengths may carry units ("20GB", "130k"). `scenario.file.load` reads them
from YAML.

Capacities under `tiers` are real bytes on this machine, after the emulator's scale has been applied: `capacity: 20GB`
never puts more than 20 GB on the disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from kvbench import units
from kvbench.scenario.neighbors import Target
from kvbench.strict_yaml import Strict

Count = Annotated[int, BeforeValidator(units.parse_count), Field(gt=0)]
Size = Annotated[int, BeforeValidator(units.parse_size), Field(ge=0)]
Rate = Annotated[float, BeforeValidator(units.parse_rate), Field(gt=0)]
Duration = Annotated[float, BeforeValidator(units.parse_duration), Field(gt=0)]
CacheTier = Literal["g1", "g2", "g3", "g4"]
DrawKind = Literal["with_replacement", "without_replacement", "zipf", "round_robin"]


class PathTier(Strict):
    """A tier that is a directory: where it is, how many bytes it may hold, and what it can deliver at most."""

    path: Path
    capacity: Size
    bandwidth: Rate | None = None


class Tiers(Strict):
    """Capacities of the tiers, in the order in which an engine looks them up."""

    g1: Size = 0
    g2: Size = 0
    g3: PathTier | None = None
    g4: PathTier | None = None

    @property
    def directories(self) -> dict[CacheTier, PathTier]:
        """The tiers that are directories, by name, the fastest first."""
        named: tuple[tuple[CacheTier, PathTier | None], ...] = (("g3", self.g3), ("g4", self.g4))
        return {name: tier for name, tier in named if tier is not None}

    def capacity_of(self, name: CacheTier) -> int:
        """Return the bytes that a tier may hold, 0 where it is not there; of g1 those of each GPU."""
        tier: int | PathTier | None = getattr(self, name)
        return tier if isinstance(tier, int) else tier.capacity if tier is not None else 0

    @property
    def capacities(self) -> dict[CacheTier, int]:
        """The tiers that may hold anything, by name, the fastest first; of g1 the bytes of each GPU."""
        return {name: size for name in get_args(CacheTier) if (size := self.capacity_of(name))}

    @property
    def directory(self) -> PathTier | None:
        """The fastest tier that is a directory: the one that an engine with a single file tier uses."""
        return next(iter(self.directories.values()), None)


class Turns(Strict):
    """Each prompt begins a conversation: so many turns, the history sent again with every turn.

    A turn after the first adds `new_tokens` of the user's. `recorded` history replays fixed answers, so that every
    treatment sees the same tokens; `live` appends the server's own.
    """

    count: Annotated[int, Field(gt=1)]
    new_tokens: Count
    history: Literal["recorded", "live"] = "recorded"


class Prompts(Strict):
    """What is sent: `per_length` prompts of each length, of exactly so many tokens.

    With `turns` these are the first turns of as many conversations.
    """

    lengths: Annotated[tuple[Count, ...], Field(min_length=1)]
    per_length: Annotated[int, Field(gt=0)] = 1
    output_tokens: Annotated[int, Field(gt=0)] = 8
    seed: int = 1
    form: Literal["text", "token_ids"] = "text"
    tokenizer: Path | None = None
    temperature: Annotated[float, Field(ge=0)] = 0.0
    turns: Turns | None = None

    @property
    def isl_by_turn(self) -> dict[int, tuple[int, ...]]:
        """The prompt tokens of every turn, by the length of the first."""
        more = self.turns.new_tokens + self.output_tokens if self.turns is not None else 0
        count = self.turns.count if self.turns is not None else 1
        return {length: tuple(length + turn * more for turn in range(count)) for length in self.lengths}

    @property
    def longest(self) -> int:
        """The longest prompt of any turn, in tokens."""
        return max(turns[-1] for turns in self.isl_by_turn.values())

    @field_validator("lengths")
    @classmethod
    def _each_length_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a length stands twice; use per_length for several prompts of one length")
        return value


class Load(Strict):
    """How it is sent.

    Without `draw` each prompt is sent once. With it `requests` prompts are drawn: `with_replacement` uniformly,
    `without_replacement`, `zipf` (the k-th prompt with weight 1/k) or `round_robin`. `request_rate` makes it an open
    loop: requests are due on a schedule, `concurrency` is then the most that may be out at once.
    """

    driver: Literal["native", "aiperf"] = "native"
    api: Literal["completions", "chat"] = "completions"
    concurrency: Annotated[int, Field(gt=0)] = 1
    requests: Count | None = None
    draw: DrawKind | None = None
    request_rate: Annotated[float, Field(gt=0)] | None = None
    arrival: Literal["constant", "poisson"] = "poisson"
    timeout: Duration = 600.0


class Warm(Strict):
    """Blocks are in this tier and in none faster; `another` server that shares the tier puts them there, or it does."""

    warm: CacheTier
    primed_by: Literal["itself", "another"] = "itself"

    @model_serializer(mode="wrap")
    def _leave_out_what_is_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Results made before there was a choice asked the same question."""
        told: dict[str, Any] = dump(self)
        return {name: value for name, value in told.items() if value != "itself"}


class Treatment(Strict):
    """One combination of factors; the cache state in which its requests are measured.

    `tiers`, `concurrency`, `request_rate` and `arrival` stand in for the scenario's own; `against` names the treatment
    that this one is compared with, where that is not the scenario's baseline. `neighbors` names one of the scenario's
    loads and how much of it.
    """

    cache: Literal["off", "cold"] | Warm
    tiers: Tiers | None = None
    concurrency: Annotated[int, Field(gt=0)] | None = None
    request_rate: Annotated[float, Field(gt=0)] | None = None
    arrival: Literal["constant", "poisson"] | None = None
    against: str | None = None
    neighbors: Annotated[dict[str, Target], Field(min_length=1, max_length=1)] | None = None

    @field_validator("cache", mode="before")
    @classmethod
    def _known_state(cls, value: Any) -> Any:
        known = value in ("off", "cold") or (isinstance(value, dict) and value.get("warm") in get_args(CacheTier))
        if not known and not isinstance(value, Warm):
            raise ValueError(f"{value!r} is no cache state; write off, cold, or {{warm: g1|g2|g3|g4}}")
        if isinstance(value, dict) and value.get("primed_by", "itself") not in ("itself", "another"):
            raise ValueError(f"primed_by is itself or another, and not {value['primed_by']!r}")
        return value

    @property
    def warm_tier(self) -> CacheTier | None:
        """The tier that must serve the requests, None for `off` and `cold`."""
        return self.cache.warm if isinstance(self.cache, Warm) else None

    @property
    def primed_by_another(self) -> bool:
        """Whether another server than the one that is measured fills the tier."""
        return isinstance(self.cache, Warm) and self.cache.primed_by == "another"

    @property
    def disturbance(self) -> tuple[str, Target] | None:
        """The load that disturbs this treatment and how much of it, None where it is quiet."""
        return next(iter(self.neighbors.items()), None) if self.neighbors is not None else None


class Slo(Strict):
    """Limits that a request must meet to count as good."""

    ttft: Duration | None = None
