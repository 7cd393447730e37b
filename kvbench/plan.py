"""The plan: all runs of a scenario in the order in which they will be made.

Pure: the same scenario gives the same plan.

One round holds each treatment once, in seeded random order, so that slow drift hits all treatments alike; a treatment's
number of runs is the number of rounds. Within a run the prompts come in seeded random order as well.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kvbench.records import SCHEMA_VERSION
from kvbench.shapes import shape_of

if TYPE_CHECKING:
    from kvbench.scenario import Scenario

CANARY_COLD, CANARY_FIRST, CANARY_LAST, WARMUP = "canary-cold", "canary-first", "canary-last", "warmup"


@dataclass(frozen=True, slots=True)
class Draw:
    """One prompt to send: its text follows from `prompt_id`, `salt` and the scenario's seed alone."""

    request_id: str
    prompt_id: str
    isl_target: int
    salt: str = ""

    @property
    def text_key(self) -> str:
        """What tells one text from another; two draws with equal keys send the same tokens."""
        return f"{self.prompt_id}@{self.salt}" if self.salt else self.prompt_id


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One execution of one treatment, as planned."""

    run_id: str
    treatment: str
    repeat: int
    draws: tuple[Draw, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All runs in order; `pool` holds each prompt of the scenario once, in the order in which a tier is primed."""

    scenario: str
    fingerprint: str
    salt: str
    canary_tokens: int
    pool: tuple[Draw, ...]
    runs: tuple[RunSpec, ...]
    asked: dict[str, Any]

    def canary(self, name: str) -> Draw:
        """Make a prompt whose only aim is to show the state of a tier; it is never measured."""
        return Draw(name, name, self.canary_tokens, self.salt)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def expand(scenario: Scenario, salt: str = "", scale: dict[str, Any] | None = None) -> Plan:
    """Lay out all runs.

    `scale` is what an external server says of itself if it is a scale model; the scenario tells it of our own.

    `salt` goes into every prompt: a tier that cannot be wiped remembers earlier results, so each result folder there
    has its own texts. Where a cache must miss but cannot be switched off or emptied, each run has its own texts too.
    """
    pool = tuple(
        Draw(f"p{length}-{index}", f"p{length}-{index}", length, salt)
        for length in scenario.prompts.lengths
        for index in range(scenario.prompts.per_length)
    )
    runs = []
    for repeat in range(1, scenario.repeats + 1):
        treatments = list(scenario.treatments)
        random.Random(f"{scenario.prompts.seed}/round/{repeat}").shuffle(treatments)  # noqa: S311 - an order, no secret
        runs += [_run(scenario, pool, treatment, repeat, salt) for treatment in treatments]
    return Plan(
        scenario=scenario.name,
        fingerprint=scenario.fingerprint,
        salt=salt,
        canary_tokens=min(scenario.prompts.lengths),
        pool=pool,
        runs=tuple(runs),
        asked=_asked(scenario, scale),
    )


def _asked(scenario: Scenario, scale: dict[str, Any] | None) -> dict[str, Any]:
    """Return what whoever judges the result later must know of the scenario, so that the plan is enough to read it."""
    emulator = scenario.server.emulator
    return {
        "question": scenario.question,
        "server": scenario.server.kind,
        "scale": emulator.scale.model_dump() if emulator is not None else scale,
        "lengths": sorted(set(scenario.prompts.lengths)),
        "output_tokens": scenario.prompts.output_tokens,
        "concurrency": scenario.load.concurrency,
        "treatments": list(scenario.treatments),
        "baseline": scenario.baseline,
        "repeats": scenario.repeats,
        "max_fail": scenario.max_fail,
        "check_answers": scenario.check_answers,
        "slo": scenario.slo.model_dump(),
        "published": scenario.published,
    }


def _run(scenario: Scenario, pool: tuple[Draw, ...], treatment: str, repeat: int, salt: str) -> RunSpec:
    run_id = f"r{repeat:02d}-{treatment}"
    order = list(pool)
    random.Random(f"{scenario.prompts.seed}/draws/{run_id}").shuffle(order)  # noqa: S311
    own = needs_own_texts(scenario, treatment)
    draws = tuple(
        Draw(
            request_id=f"{run_id}/{number:03d}-{draw.prompt_id}",
            prompt_id=draw.prompt_id,
            isl_target=draw.isl_target,
            salt=f"{salt}{run_id}" if own else salt,
        )
        for number, draw in enumerate(order)
    )
    return RunSpec(run_id, treatment, repeat, draws)


def needs_own_texts(scenario: Scenario, treatment: str) -> bool:
    """Tell whether each run of this treatment must send texts that no run before it has sent."""
    cache = scenario.treatments[treatment].cache
    return cache == "cold" or (cache == "off" and scenario.server.external is not None)


def working_set_bytes(scenario: Scenario) -> float | None:
    """Return the KV bytes of all prompts, after the scale; None for a server whose model is not in the scenario."""
    emulator = scenario.server.emulator
    if emulator is None:
        return None
    tokens = sum(scenario.prompts.lengths) * scenario.prompts.per_length
    return tokens * shape_of(emulator.model).kv_bytes_per_token / emulator.scale.bytes
