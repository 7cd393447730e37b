"""The keys of a scenario as strict models; `scenario.Scenario` puts them together.

They reject what they do not know. Sizes and lengths may carry units ("20GB", "130k"). `scenario_file.load` reads them
from YAML.

Capacities under `tiers` are real bytes on this machine, after the emulator's scale has been applied: `capacity: 20GB`
never puts more than 20 GB on the disk.
"""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from kvbench import emulator_profile, strict_yaml, units
from kvbench.fault_names import FAULTS
from kvbench.neighbor_spec import Target
from kvbench.strict_yaml import Strict, UnknownName


def _known_fault(name: str) -> str:
    if name not in FAULTS:
        more = "; docs/emulator.md says what each does"
        raise UnknownName(f"{name} is no fault that the emulator can have", name, FAULTS, more)
    return name


Count = Annotated[int, BeforeValidator(units.parse_count), Field(gt=0)]
Size = Annotated[int, BeforeValidator(units.parse_size), Field(ge=0)]
Rate = Annotated[float, BeforeValidator(units.parse_rate), Field(gt=0)]
Duration = Annotated[float, BeforeValidator(units.parse_duration), Field(gt=0)]
FaultName = Annotated[str, AfterValidator(_known_fault)]
CacheTier = Literal["g1", "g2", "g3", "g4"]
DrawKind = Literal["with_replacement", "without_replacement", "zipf", "round_robin"]


class Scale(Strict):
    """The emulator as a scale model: GPU time divided by `time`, KV bytes divided by `bytes`."""

    time: Annotated[float, Field(gt=0)] = 1.0
    bytes: Annotated[int, Field(gt=0)] = 1


class EmulatorSpec(Strict):
    """A server of our own: modelled GPU time, real HTTP and real storage I/O."""

    profile: str = "gpt-oss-120b_rtx-pro-6000"
    scale: Scale = Scale()
    instances: Annotated[int, Field(gt=0)] = 1
    io_threads: Annotated[int, Field(gt=0)] = 8
    write_policy: Literal["through", "back"] = "through"
    admit_after_hits: Annotated[int, Field(gt=0)] = 1
    write_delay: Annotated[float, BeforeValidator(units.parse_duration), Field(ge=0)] = 0.0
    faults: tuple[FaultName, ...] = ()
    fault_every: Annotated[int, Field(gt=0)] = 1

    @field_validator("profile")
    @classmethod
    def _known_profile(cls, value: str) -> str:
        known = emulator_profile.names()
        if not emulator_profile.is_file(value) and value not in known:
            raise UnknownName(f"the emulator has no profile {value}", value, known, ", or a YAML file")
        return value

    @property
    def model(self) -> str:
        """The model that the profile is for: the one in its file; a shipped profile is named `<model>_<gpu>`."""
        return _read_profile(self.profile)[0] if self.has_profile_file else self.profile.split("_", 1)[0]

    @property
    def has_profile_file(self) -> bool:
        """Whether the profile is a YAML file of the user's own."""
        return emulator_profile.is_file(self.profile)

    @property
    def profile_digest(self) -> str | None:
        """A short hash of the profile's file, None for a shipped profile."""
        return _read_profile(self.profile)[1] if self.has_profile_file else None


@functools.cache
def _read_profile(path: str) -> tuple[str, str]:
    """Return the model of a profile file and a short hash of its content.

    Raises:
        KeyError: it cannot be read, or is no profile; its argument is the sentence for the user.

    """
    try:
        text = strict_yaml.read(Path(path), emulator_profile.KIND)
        tree = strict_yaml.parse(text, path, emulator_profile.KIND)
        model = strict_yaml.check(tree, emulator_profile.ProfileFile).model
    except strict_yaml.Fault as fault:
        raise KeyError(f"not a profile: {fault.message}") from None
    return model, hashlib.sha256(text.encode()).hexdigest()[:16]


class ExternalSpec(Strict):
    """A server that somebody else runs; what is missing here is what cannot be proven."""

    url: str
    model: str | None = None
    metrics_url: str | None = None
    pid: int | None = None
    tier_path: Path | None = None
    kv_bytes_per_token: Size | None = None
    api_key_env: str | None = None
    ca_file: Path | None = None
    primer_url: str | None = None

    @field_validator("url", "primer_url")
    @classmethod
    def _plain_base_url(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"^https?://[^@/\s]+(/|$)", value):
            raise ValueError(f"{value!r} is not a URL such as http://host:8000/v1, without user name or password")
        return value


class OffloadingSpec(Strict):
    """A class of the scenario's own that vLLM loads for its offloading: its name, and the Python file it is in."""

    name: str
    file: Path


class VllmSpec(Strict):
    """A vLLM that kvbench starts and stops; what it offloads to follows from `tiers`."""

    python: Path
    model: str
    served_name: str = "model"
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    kv_dtype: str | None = None
    offloading_spec: OffloadingSpec | None = None
    start_timeout: Duration = 300.0


class ServerSpec(Strict):
    """Exactly one target."""

    emulator: EmulatorSpec | None = None
    vllm: VllmSpec | None = None
    external: ExternalSpec | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> ServerSpec:
        if sum(target is not None for target in (self.emulator, self.vllm, self.external)) != 1:
            raise ValueError("name exactly one server: emulator, vllm or external")
        return self

    @property
    def kind(self) -> str:
        """The name of the target that was given."""
        return "emulator" if self.emulator is not None else "vllm" if self.vllm is not None else "external"


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
