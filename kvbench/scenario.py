"""The scenario: one question, and everything that is needed to put it to a server, as strict models.

They reject what they do not know. Sizes and lengths may carry units ("20GB", "130k"). `scenario_file.load` reads them
from YAML.

Capacities under `tiers` are real bytes on this machine, after the emulator's scale has been applied: `capacity: 20GB`
never puts more than 20 GB on the disk.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from kvbench import shapes, units

Count = Annotated[int, BeforeValidator(units.parse_count), Field(gt=0)]
Size = Annotated[int, BeforeValidator(units.parse_size), Field(ge=0)]
Duration = Annotated[float, BeforeValidator(units.parse_duration), Field(gt=0)]
CacheTier = Literal["g1", "g2", "g3", "g4"]
DrawKind = Literal["with_replacement", "without_replacement", "zipf", "round_robin"]
_BLOCK_TOKENS = 16  # of the emulator
_CANARIES = 4  # with the warmup prompt


class Strict(BaseModel):
    """Unknown keys are errors, and a value does not change once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
    faults: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The model that the profile is for: the one in its file; a shipped profile is named `<model>_<gpu>`."""
        return _read_profile(self.profile)[0] if self.has_profile_file else self.profile.split("_", 1)[0]

    @property
    def has_profile_file(self) -> bool:
        """Whether the profile is a YAML file of the user's own."""
        return self.profile.endswith((".yaml", ".yml"))

    @property
    def profile_digest(self) -> str | None:
        """A short hash of the profile's file, None for a shipped profile."""
        return _read_profile(self.profile)[1] if self.has_profile_file else None


@functools.cache
def _read_profile(path: str) -> tuple[str, str]:
    """Return the model of a profile file and a short hash of its content.

    Raises:
        KeyError: it cannot be read, or names no model; its argument is the sentence for the user.

    """
    try:
        content = Path(path).read_bytes()
        model = YAML(typ="safe").load(content)["model"]
    except OSError as fault:
        raise KeyError(f"cannot read the profile {path}: {(fault.strerror or str(fault)).lower()}") from None
    except (YAMLError, KeyError, TypeError):
        raise KeyError(f"{path} is not a profile: compare it with one that is shipped") from None
    return str(model), hashlib.sha256(content).hexdigest()[:16]


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

    @field_validator("url")
    @classmethod
    def _plain_base_url(cls, value: str) -> str:
        if not re.match(r"^https?://[^@/\s]+(/|$)", value):
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
    env: dict[str, str] = {}
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
    """A tier that is a directory: where it is and how many bytes it may hold."""

    path: Path
    capacity: Size


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

    @property
    def directory(self) -> PathTier | None:
        """The fastest tier that is a directory: the one that an engine with a single file tier uses."""
        return next(iter(self.directories.values()), None)


class Prompts(Strict):
    """What is sent: `per_length` prompts of each length, of exactly so many tokens."""

    lengths: Annotated[tuple[Count, ...], Field(min_length=1)]
    per_length: Annotated[int, Field(gt=0)] = 1
    output_tokens: Annotated[int, Field(gt=0)] = 8
    seed: int = 1
    form: Literal["text", "token_ids"] = "text"
    tokenizer: Path | None = None

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
    """Blocks are in this tier and in none faster."""

    warm: CacheTier


class Treatment(Strict):
    """One combination of factors; the cache state in which its requests are measured."""

    cache: Literal["off", "cold"] | Warm

    @field_validator("cache", mode="before")
    @classmethod
    def _known_state(cls, value: Any) -> Any:
        known = value in ("off", "cold") or (isinstance(value, dict) and value.get("warm") in get_args(CacheTier))
        if not known and not isinstance(value, Warm):
            raise ValueError(f"{value!r} is no cache state; write off, cold, or {{warm: g1|g2|g3|g4}}")
        return value

    @property
    def warm_tier(self) -> CacheTier | None:
        """The tier that must serve the requests, None for `off` and `cold`."""
        return self.cache.warm if isinstance(self.cache, Warm) else None


class Slo(Strict):
    """Limits that a request must meet to count as good."""

    ttft: Duration | None = None


class Scenario(Strict):
    """One question, and everything that is needed to put it to a server."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    question: str
    server: ServerSpec
    tiers: Tiers = Tiers()
    prompts: Prompts
    load: Load = Load()
    treatments: Annotated[dict[str, Treatment], Field(min_length=1)]
    baseline: str | None = None
    repeats: Annotated[int, Field(gt=0)] = 5
    slo: Slo = Slo()
    check_answers: bool = False
    max_fail: Annotated[int, Field(ge=0)] = 0
    published: str | None = None

    @property
    def fingerprint(self) -> str:
        """A short hash of the content: the same question asked in the same way has the same fingerprint."""
        profile = self.server.emulator.profile_digest if self.server.emulator is not None else None
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True) + (profile or "")
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def warm_path_tier(self) -> CacheTier | None:
        """The directory tier that this scenario fills, None where there is none."""
        external = self.server.external
        elsewhere: CacheTier | None = "g4" if external is not None and external.tier_path is not None else None
        return next(iter(self.tiers.directories), elsewhere)

    @model_validator(mode="after")
    def _make_sense_together(self) -> Scenario:
        for where, problem in _contradictions(self):
            raise Contradiction(problem, where)
        return self


class Contradiction(ValueError):  # noqa: N818 - never seen by a user; `where` is the path of the key to blame
    """Two values of a scenario that cannot both be meant."""

    def __init__(self, message: str, where: tuple[str | int, ...]) -> None:
        """Keep the key's path beside the sentence."""
        super().__init__(message)
        self.where = where


def _contradictions(scenario: Scenario) -> list[tuple[tuple[str | int, ...], str]]:
    """List what single fields cannot see, each with the key to blame."""
    found: list[tuple[tuple[str | int, ...], str]] = []
    if scenario.baseline is not None and scenario.baseline not in scenario.treatments:
        found.append((("baseline",), f"baseline {scenario.baseline} is not one of the treatments"))
    for name, treatment in scenario.treatments.items():
        tier = treatment.warm_tier
        if tier is not None and not _has_tier(scenario, tier):
            found.append(
                (("treatments", name), f"warm: {tier} asks for a tier that `tiers` does not give any capacity")
            )
    off = [name for name, treatment in scenario.treatments.items() if treatment.cache == "off"]
    if scenario.check_answers and not off:
        found.append((("check_answers",), "answers are compared with those of a treatment with cache: off; add one"))
    if scenario.check_answers and any(treatment.cache == "cold" for treatment in scenario.treatments.values()):
        problem = "cold runs have texts of their own, so their answers cannot be compared with recomputed ones"
        found.append((("check_answers",), problem))
    if scenario.check_answers and scenario.server.external is not None:
        problem = "on a server that cannot be switched off, recomputed and warm requests have other texts"
        found.append((("check_answers",), problem))
    found += _load_contradictions(scenario)
    if scenario.load.api == "chat" and scenario.prompts.form == "token_ids":
        found.append((("prompts", "form"), "token_ids can only be sent with load.api: completions"))
    if scenario.load.api == "chat" and scenario.prompts.tokenizer is not None:
        found.append((("prompts", "tokenizer"), "a local tokenizer knows no chat template: use load.api: completions"))
    if scenario.server.emulator is not None:
        found += _emulator_contradictions(scenario, scenario.server.emulator)
    return found


def _load_contradictions(scenario: Scenario) -> list[tuple[tuple[str | int, ...], str]]:
    load, prompts = scenario.load, len(scenario.prompts.lengths) * scenario.prompts.per_length
    found: list[tuple[tuple[str | int, ...], str]] = []
    if (load.requests is None) != (load.draw is None):
        missing = "draw" if load.draw is None else "requests"
        found.append((("load",), f"a drawn list needs both load.requests and load.draw; load.{missing} is missing"))
    if load.draw == "without_replacement" and load.requests is not None and load.requests > prompts:
        problem = f"{load.requests} requests cannot be drawn without replacement from {prompts} prompts"
        found.append((("load", "requests"), problem))
    if load.request_rate is not None and load.driver == "aiperf":
        found.append((("load", "request_rate"), "an open loop is driven by the native driver only"))
    return found


def _has_tier(scenario: Scenario, tier: CacheTier) -> bool:
    if scenario.server.external is not None:
        return True  # its operator knows; the proof will tell
    return bool(getattr(scenario.tiers, tier))


def _emulator_contradictions(scenario: Scenario, emulator: EmulatorSpec) -> list[tuple[tuple[str | int, ...], str]]:
    found: list[tuple[tuple[str | int, ...], str]] = []
    try:
        shape = shapes.shape_of(emulator.model)
    except KeyError as unknown:
        return [(("server", "emulator", "profile"), str(unknown.args[0]))]
    if shape.kv_bytes_per_token % emulator.scale.bytes:
        problem = f"{emulator.scale.bytes} does not divide the model's {shape.kv_bytes_per_token:,} KV bytes per token"
        found.append((("server", "emulator", "scale"), problem))
    limit = shape.max_context - scenario.prompts.output_tokens
    for index, length in enumerate(scenario.prompts.lengths):
        if length > limit:
            problem = f"a prompt of {length:,} tokens does not fit the model's context of {shape.max_context:,}"
            found.append((("prompts", "lengths", index), problem))
    if scenario.tiers.g2 or scenario.tiers.g3 is not None:
        key = "g2" if scenario.tiers.g2 else "g3"
        found.append((("tiers", key), f"the emulator has no {key} yet; leave it out and use g1 and g4"))
    per_token = shape.kv_bytes_per_token / emulator.scale.bytes
    longest = round(max(scenario.prompts.lengths) * per_token)
    if scenario.tiers.g4 is not None and scenario.tiers.g4.capacity < longest:
        have, need = units.format_size(scenario.tiers.g4.capacity), units.format_size(longest)
        found.append((("tiers", "g4", "capacity"), f"capacity {have} is below one prompt, which takes {need}"))
    found += _tier_contradictions(scenario, per_token)
    return found


def _tier_contradictions(scenario: Scenario, per_token: float) -> list[tuple[tuple[str | int, ...], str]]:
    """List what keeps a tier from ever being warm: too small for all prompts, or prompts below one block."""
    warm = {treatment.warm_tier for treatment in scenario.treatments.values()} - {None}
    found: list[tuple[tuple[str | int, ...], str]] = []
    if warm and min(scenario.prompts.lengths) <= _BLOCK_TOKENS:
        problem = f"a prompt of at most {_BLOCK_TOKENS} tokens has no block that a cache could hold"
        found.append((("prompts", "lengths"), problem))
    need = round(
        (sum(scenario.prompts.lengths) * scenario.prompts.per_length + _CANARIES * min(scenario.prompts.lengths))
        * per_token
    )
    for name in sorted(tier for tier in warm if tier):
        tier = getattr(scenario.tiers, name)
        capacity = tier.capacity if isinstance(tier, PathTier) else tier or 0
        if 0 < capacity < need:
            have, want = units.format_size(capacity), units.format_size(need)
            problem = f"{name} cannot be warm: its capacity of {have} is below the {want} of all prompts and canaries"
            found.append((("tiers", name), problem))
    return found
