"""The scenario: one question, and everything needed to ask a server.

`scenario_models` has the keys. What single keys cannot see, two values that cannot both be meant, is refused here with
the key to blame. `scenario.file.load` reads a scenario from YAML.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field, create_model, field_validator, model_validator

from kvbench import model_shapes, units
from kvbench.scenario.models import (
    CacheTier,
    Load,
    PathTier,
    Prompts,
    Slo,
    Tiers,
    Treatment,
)
from kvbench.scenario.neighbors import Bottleneck, Neighbors, NeighborSpec
from kvbench.scenario.server_spec import EmulatorSpec, ServerSpec
from kvbench.strict_yaml import Contradiction, Strict, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kvbench.result.plan_record import Arrival
    from kvbench.scenario.server_spec import ServerKeys

M = TypeVar("M", bound=Strict)
Found = tuple[tuple[str | int, ...], str]
_BLOCK_TOKENS = 16  # of the emulator
_OF_A_NAME = "a name has letters, digits, dots, dashes and underscores only, and begins with a letter or a digit"
_CANARIES = 4  # with the warmup prompt


class Scenario(Strict):
    """One question, and everything that is needed to put it to a server."""

    name: str
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
    bottleneck: Bottleneck | None = None
    neighbors: Neighbors | None = None

    @property
    def fingerprint(self) -> str:
        """A short hash of the content: the same question asked in the same way has the same fingerprint."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True) + (self.server.keys.digest or "")
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def tiers_of(self, treatment: str) -> Tiers:
        """Return the tiers that a treatment runs with."""
        return self.treatments[treatment].tiers or self.tiers

    def concurrency_of(self, treatment: str) -> int:
        """Return how many requests a treatment has out at once."""
        return self.treatments[treatment].concurrency or self.load.concurrency

    def rate_of(self, treatment: str) -> float | None:
        """Return the requests per second at which a treatment's are due, None in a closed loop."""
        return self.treatments[treatment].request_rate or self.load.request_rate

    def arrival_of(self, treatment: str) -> Arrival:
        """Return how a treatment's requests follow one another in an open loop."""
        return self.treatments[treatment].arrival or self.load.arrival

    def baseline_of(self, treatment: str) -> str | None:
        """Return the treatment that this one is compared with."""
        return self.treatments[treatment].against or self.baseline

    @property
    def directories(self) -> dict[CacheTier, PathTier]:
        """Every directory tier of any treatment, by name."""
        found: dict[CacheTier, PathTier] = {}
        for name in self.treatments:
            found |= self.tiers_of(name).directories
        return found

    def path_tier_of(self, treatment: str) -> CacheTier | None:
        """Return the directory tier that a treatment's requests are read from: the warm one, else the slowest."""
        warm = self.treatments[treatment].warm_tier
        if warm in ("g3", "g4"):
            return warm
        external = self.server.external
        elsewhere: CacheTier | None = "g4" if external is not None and external.tier_path is not None else None
        return next(reversed(self.tiers_of(treatment).directories), elsewhere)

    @property
    def shares_g4(self) -> bool:
        """Whether two servers use the directory of g4, one of which primes it."""
        return any(treatment.primed_by_another for treatment in self.treatments.values())

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError(f"{value!r} names no folder of results: {_OF_A_NAME}")
        return value

    @model_validator(mode="after")
    def _make_sense_together(self) -> Scenario:
        for where, problem, remedy in _unknown_names(self):
            raise Contradiction(problem, where, remedy)
        for where, problem in contradictions(self):
            raise Contradiction(problem, where)
        return self


def model_with(servers: Mapping[str, type[ServerKeys]], generators: Mapping[str, type[Strict]]) -> type[Scenario]:
    """Return the model of a scenario whose `server:` and whose loads of neighbours take these further keys."""
    server = _with_keys(ServerSpec, servers)
    load = _with_keys(NeighborSpec, generators)
    if (server, load) == (ServerSpec, NeighborSpec):
        return Scenario
    loads = Annotated[dict[str, load], Field(min_length=1)]  # type: ignore[valid-type]
    neighbors = create_model("Neighbors", __base__=Neighbors, loads=(loads, ...))
    return create_model("Scenario", __base__=Scenario, server=(server, ...), neighbors=(neighbors | None, None))


def _with_keys(model: type[M], further: Mapping[str, type[Strict]]) -> type[M]:
    """Return the model, or one that has a key more for each name that it does not have."""
    keys: Any = {name: (keys | None, None) for name, keys in further.items() if name not in model.model_fields}
    return create_model(model.__name__, __base__=model, **keys) if keys else model


def contradictions(scenario: Scenario) -> Iterator[Found]:
    """Give each contradiction: the path of the key to blame, and what is wrong."""
    yield from _treatments(scenario)
    yield from _primers(scenario)
    if scenario.check_answers:
        yield from _answers(scenario)
    yield from _load(scenario)
    if scenario.prompts.turns is not None:
        yield from _conversations(scenario)
    if scenario.server.emulator is not None:
        yield from _emulator(scenario, scenario.server.emulator)
    if scenario.server.vllm is not None:
        yield from _vllm(scenario)
    yield from _neighbors(scenario)
    if scenario.bottleneck is not None:
        yield from _bottleneck(scenario, scenario.bottleneck)


def _unknown_names(scenario: Scenario) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Give each name of a treatment or a load that there is not: its key, what is wrong, and what it might be."""
    known, base = scenario.treatments, scenario.baseline
    if base is not None and base not in known:
        yield ("baseline",), f"baseline {base} is not one of the treatments", nearest(base, known)
    loads = scenario.neighbors.loads if scenario.neighbors is not None else {}
    for name, treatment in known.items():
        against, load = treatment.against, treatment.disturbance[0] if treatment.disturbance is not None else None
        if against is not None and against not in known:
            where = ("treatments", name, "against")
            yield where, f"{against} is not one of the treatments", nearest(against, known)
        if load is not None and loads and load not in loads:
            where = ("treatments", name, "neighbors")
            yield where, f"{load} is not one of the loads of `neighbors`", nearest(load, loads)


def _treatments(scenario: Scenario) -> Iterator[Found]:
    for name, treatment in scenario.treatments.items():
        tier, where = treatment.warm_tier, ("treatments", name)
        if treatment.tiers is not None and not scenario.server.keys.is_started:
            yield where, "the tiers of a server that somebody else runs cannot be changed for a treatment"
        if tier is not None and scenario.server.keys.is_started and not getattr(scenario.tiers_of(name), tier):
            yield where, f"warm: {tier} asks for a tier that `tiers` does not give any capacity"


def _primers(scenario: Scenario) -> Iterator[Found]:
    """Give tiers that another server is to fill and cannot, and the address of one that nobody asks."""
    external = scenario.server.external
    for name, treatment in scenario.treatments.items():
        where = ("treatments", name)
        if treatment.primed_by_another and treatment.warm_tier != "g4":
            yield where, f"{treatment.warm_tier} belongs to one server alone: primed_by: another is for g4"
        if treatment.primed_by_another and scenario.server.keys.is_started and not scenario.server.keys.shares_g4:
            remedy = "start both yourself, and give server.external with a primer_url"
            yield where, f"kvbench starts one {scenario.server.keys.name}: {remedy}"
        if treatment.primed_by_another and external is not None and external.primer_url is None:
            yield where, "primed_by: another needs server.external.primer_url, the server that fills the tier"
    if external is not None and external.primer_url is not None and not scenario.shares_g4:
        yield ("server", "external", "primer_url"), "no treatment is primed_by: another, so nobody would ask it"


def _answers(scenario: Scenario) -> Iterator[Found]:
    caches = {name: treatment.cache for name, treatment in scenario.treatments.items()}
    if "off" not in caches.values():
        yield ("check_answers",), "answers are compared with those of a treatment with cache: off; add one"
    if "cold" in caches.values():
        problem = "cold runs have texts of their own, so their answers cannot be compared with recomputed ones"
        yield ("check_answers",), problem
    if scenario.prompts.temperature > 0:
        yield ("prompts", "temperature"), "answers are drawn by chance above temperature 0: leave out check_answers"
    if not scenario.server.keys.is_started:
        problem = "on a server that cannot be switched off, recomputed and warm requests have other texts"
        yield ("check_answers",), problem


def _load(scenario: Scenario) -> Iterator[Found]:
    load, prompts = scenario.load, len(scenario.prompts.lengths) * scenario.prompts.per_length
    if (load.requests is None) != (load.draw is None):
        missing = "draw" if load.draw is None else "requests"
        yield ("load",), f"a drawn list needs both load.requests and load.draw; load.{missing} is missing"
    if load.draw == "without_replacement" and load.requests is not None and load.requests > prompts:
        problem = f"{load.requests} requests cannot be drawn without replacement from {prompts} prompts"
        yield ("load", "requests"), problem
    for name, treatment in scenario.treatments.items():
        if scenario.rate_of(name) is not None and load.driver == "aiperf":
            yield _where_rate(scenario, name), "an open loop is driven by the native driver only"
        if treatment.arrival is not None and scenario.rate_of(name) is None:
            problem = "arrival says how requests of an open loop follow one another: give a request_rate too"
            yield ("treatments", name, "arrival"), problem
    if load.api == "chat" and scenario.prompts.form == "token_ids":
        yield ("prompts", "form"), "token_ids can only be sent with load.api: completions"
    if load.api == "chat" and scenario.prompts.tokenizer is not None:
        yield ("prompts", "tokenizer"), "a local tokenizer knows no chat template: use load.api: completions"


def _where_rate(scenario: Scenario, treatment: str) -> tuple[str, ...]:
    own = scenario.treatments[treatment].request_rate is not None
    return ("treatments", treatment, "request_rate") if own else ("load", "request_rate")


def _conversations(scenario: Scenario) -> Iterator[Found]:
    load = scenario.load
    if load.draw is not None:
        yield ("load", "draw"), "conversations are sent once each: leave out load.draw and load.requests"
    for name in scenario.treatments:
        if scenario.rate_of(name) is not None:
            problem = "a turn follows the answer to the one before it: leave out request_rate"
            yield _where_rate(scenario, name), problem
    if scenario.prompts.form == "token_ids":
        yield ("prompts", "form"), "the history of a conversation is text: use prompts.form: text"
    if scenario.prompts.turns is not None and scenario.prompts.turns.history == "live" and load.driver == "aiperf":
        problem = "AIPerf gets whole conversations beforehand: use history: recorded, or load.driver: native"
        yield ("prompts", "turns"), problem
    yield from _turns_of_one_length(scenario)
    for name, treatment in scenario.treatments.items():
        if treatment.warm_tier is not None:
            problem = "conversations fill their tiers themselves: use cache: off or cold with prompts.turns"
            yield ("treatments", name), problem


def _turns_of_one_length(scenario: Scenario) -> Iterator[Found]:
    """Give lengths whose later turns are as long as an earlier turn of others: figures stand under lengths."""
    seen: dict[int, tuple[int, int]] = {}
    for index, (length, lengths) in enumerate(scenario.prompts.isl_by_turn.items()):
        for turn, isl in enumerate(lengths, start=1):
            other, before = seen.setdefault(isl, (turn, length))
            if other != turn:
                problem = (
                    f"turn {turn} of {length:,} tokens and turn {other} of {before:,} are both {isl:,} tokens long,"
                    " so their figures could not be told apart: choose another length"
                )
                yield ("prompts", "lengths", index), problem
                return


def _neighbors(scenario: Scenario) -> Iterator[Found]:
    neighbors, used = scenario.neighbors, set[str]()
    for name, treatment in scenario.treatments.items():
        where = ("treatments", name, "neighbors")
        if treatment.disturbance is None:
            continue
        load, _ = treatment.disturbance
        used.add(load)
        if neighbors is None:
            yield where, "there is no `neighbors` block that says who disturbs"
    if neighbors is None:
        return
    for load in neighbors.loads:
        if load not in used:
            yield ("neighbors", "loads", load), f"no treatment uses the load {load}"
    has_link = scenario.bottleneck is not None and scenario.bottleneck.link is not None
    if not has_link and neighbors.hosts is None and neighbors.local is None:
        yield ("neighbors",), "nobody says where the side clients are: give `hosts` or `local`"
    if has_link and (neighbors.hosts is not None or neighbors.local is not None):
        yield ("neighbors",), "behind a bottleneck of kind link the side clients are its own: leave out hosts and local"


def _bottleneck(scenario: Scenario, bottleneck: Bottleneck) -> Iterator[Found]:
    if not scenario.server.keys.can_be_limited:
        yield ("bottleneck",), "a bottleneck is made around the emulator only, never around a server of somebody else's"
    if not scenario.directories:
        yield ("bottleneck",), "a bottleneck lies under a directory tier: give `tiers` a g3 or g4"
    if bottleneck.link is None:
        return
    mount = (bottleneck.folder / "g4" / "gpu").absolute()
    for name, tier in scenario.directories.items():
        if mount not in tier.path.absolute().parents:
            text = (
                f"behind the link the tier lies on the lab's shared storage: use a path in {bottleneck.folder}/g4/gpu"
            )
            yield ("tiers", name, "path"), text


def _emulator(scenario: Scenario, emulator: EmulatorSpec) -> Iterator[Found]:
    try:
        shape = model_shapes.shape_of(emulator.model)
    except KeyError as unknown:
        yield ("server", "emulator", "profile"), str(unknown.args[0])
        return
    if shape.kv_bytes_per_token % emulator.scale.bytes:
        problem = f"{emulator.scale.bytes} does not divide the model's {shape.kv_bytes_per_token:,} KV bytes per token"
        yield ("server", "emulator", "scale"), problem
    limit = shape.max_context - scenario.prompts.output_tokens
    for index, length in enumerate(scenario.prompts.lengths):
        last = scenario.prompts.isl_by_turn[length][-1]
        if last > limit:
            turn = " in its last turn" if last > length else ""
            problem = f"a prompt of {last:,} tokens{turn} does not fit the model's context of {shape.max_context:,}"
            yield ("prompts", "lengths", index), problem
    yield from _tiers(scenario, shape.kv_bytes_per_token / emulator.scale.bytes)
    for name, treatment in scenario.treatments.items():
        if treatment.cache == "cold" and not any(scenario.tiers_of(name).model_dump().values()):
            problem = "cache: cold asks for a cache that is on and empty, and no tier has any capacity"
            yield ("treatments", name), problem
        if treatment.warm_tier == "g1" and emulator.instances > 1 and scenario.concurrency_of(name) > 1:
            problem = (
                f"priming one prompt at a time fills the g1 of one GPU, and requests side by side go to all"
                f" {emulator.instances}: warm g1 with instances: 1, or with concurrency: 1"
            )
            yield ("treatments", name), problem
    if emulator.write_policy == "back":
        yield from _write_back(scenario)
    if emulator.fault_every > 1 and not emulator.faults:
        problem = f"there is no fault that every {emulator.fault_every} could have: give faults, or leave it out"
        yield ("server", "emulator", "fault_every"), problem


def _write_back(scenario: Scenario) -> Iterator[Found]:
    """Give warm tiers that nothing would ever be put into: under write-back blocks come down only by eviction."""
    for name, treatment in scenario.treatments.items():
        tiers = scenario.tiers_of(name)
        present = list(tiers.capacities)
        if treatment.warm_tier in present[1:]:
            problem = f"{treatment.warm_tier} fills only when {present[0]} evicts, under write_policy: back"
            yield ("treatments", name), problem


def _tiers(scenario: Scenario, per_token: float) -> Iterator[Found]:
    """Give what keeps a tier from ever serving: too small for a prompt, or for all; prompts below one block."""
    prompts = scenario.prompts
    warm = [name for name, treatment in scenario.treatments.items() if treatment.warm_tier is not None]
    if warm and min(prompts.lengths) <= _BLOCK_TOKENS:
        problem = f"a prompt of at most {_BLOCK_TOKENS} tokens has no block that a cache could hold"
        yield ("prompts", "lengths"), problem
    longest = round(prompts.longest * per_token)
    for where, tiers in _tier_sets(scenario):
        for name, tier in tiers.directories.items():
            if tier.capacity < longest:
                have, need = units.format_size(tier.capacity), units.format_size(longest)
                yield (*where, name, "capacity"), f"capacity {have} is below one prompt, which takes {need}"
        if tiers.g3 is not None and tiers.g4 is not None and tiers.g3.path.absolute() == tiers.g4.path.absolute():
            yield (*where, "g4", "path"), "g3 and g4 are the same directory; give each one of its own"
    tokens = sum(prompts.lengths) * prompts.per_length + _CANARIES * min(prompts.lengths)
    need_bytes = round(tokens * per_token)
    for treatment in warm:
        tier_name = scenario.treatments[treatment].warm_tier
        tiers = scenario.tiers_of(treatment)
        capacity = tiers.capacity_of(tier_name) if tier_name is not None else 0
        if 0 < capacity < need_bytes:
            have, want = units.format_size(capacity), units.format_size(need_bytes)
            where = ("tiers",) if scenario.treatments[treatment].tiers is None else ("treatments", treatment, "tiers")
            problem = (
                f"{tier_name} cannot be warm: its capacity of {have} is below the {want} of all prompts and canaries"
            )
            yield (*where, str(tier_name)), problem


def _vllm(scenario: Scenario) -> Iterator[Found]:
    for where, tiers in _tier_sets(scenario):
        if len(tiers.directories) > 1:
            yield (*where, "g4"), "kvbench starts vLLM with one file tier: give g3 or g4, not both"


def _tier_sets(scenario: Scenario) -> Iterator[tuple[tuple[str, ...], Tiers]]:
    """Give the scenario's own tiers and each treatment's, with the path of their key."""
    yield ("tiers",), scenario.tiers
    for name, treatment in scenario.treatments.items():
        if treatment.tiers is not None:
            yield ("treatments", name, "tiers"), treatment.tiers
