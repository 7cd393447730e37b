"""The plan: all runs of a scenario in the order in which they will be made.

Pure: the same scenario gives the same plan.

One round holds each treatment once, in seeded random order, so that slow drift hits all treatments alike; a treatment's
number of runs is the number of rounds. Within a run the prompts come in seeded random order as well, each once or as
drawn.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from kvbench.records import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvbench.scenario import Scenario

CANARY_COLD, CANARY_FIRST, CANARY_LAST, WARMUP = "canary-cold", "canary-first", "canary-last", "warmup"


@dataclass(frozen=True, slots=True)
class Draw:
    """One prompt to send: its text follows from `prompt_id`, `salt` and the scenario's seed alone.

    In a conversation `turn` counts from 0, and the text is the whole history up to this turn's question. In an open
    loop the request is due `due_s` after the first.
    """

    request_id: str
    prompt_id: str
    isl_target: int
    salt: str = ""
    conversation_id: str | None = None
    turn: int = 0
    due_s: float | None = None

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
        "lengths": sorted({isl for turns in scenario.prompts.isl_by_turn.values() for isl in turns}),
        "output_tokens": scenario.prompts.output_tokens,
        "concurrency": scenario.load.concurrency,
        "turns": scenario.prompts.turns.model_dump() if scenario.prompts.turns is not None else None,
        "concurrencies": {name: scenario.concurrency_of(name) for name in scenario.treatments},
        "open_loops": {
            name: {"request_rate": scenario.rate_of(name), "arrival": scenario.arrival_of(name)}
            for name in scenario.treatments
            if scenario.rate_of(name) is not None
        },
        "baselines": {name: scenario.baseline_of(name) for name in scenario.treatments},
        "treatments": list(scenario.treatments),
        "baseline": scenario.baseline,
        "repeats": scenario.repeats,
        "max_fail": scenario.max_fail,
        "check_answers": scenario.check_answers,
        "slo": scenario.slo.model_dump(),
        "published": scenario.published,
        "definitions": {name: one.model_dump(mode="json") for name, one in scenario.treatments.items()},
        "setting": _setting(scenario),
    }


def _setting(scenario: Scenario) -> dict[str, Any]:
    """Return the values that the question was put with, for whoever compares two results; no environment in it."""
    server = scenario.server
    return {
        "server": {
            **server.keys.model_dump(mode="json", exclude={"env", "api_key_env", "pid"}),
            **({"profile_digest": server.keys.digest} if server.keys.digest else {}),
        },
        "tiers": scenario.tiers.model_dump(mode="json"),
        "prompts": scenario.prompts.model_dump(mode="json", exclude={"lengths", "output_tokens"}),
        "load": scenario.load.model_dump(mode="json", exclude={"concurrency"}),
        "bottleneck": scenario.bottleneck.model_dump(mode="json") if scenario.bottleneck is not None else None,
        "neighbors": scenario.neighbors.model_dump(mode="json") if scenario.neighbors is not None else None,
    }


def _run(scenario: Scenario, pool: tuple[Draw, ...], treatment: str, repeat: int, salt: str) -> RunSpec:
    run_id = f"r{repeat:02d}-{treatment}"
    own = needs_own_texts(scenario, treatment)
    drawn = [turn for draw in _drawn(scenario, pool, run_id, repeat) for turn in _turns_of(scenario, draw)]
    own_salt = f"{salt}{run_id}" if own else salt
    due_times = _due_times(scenario, treatment, len(drawn), repeat)
    draws = tuple(
        replace(draw, request_id=f"{run_id}/{number:03d}-{draw.request_id}", salt=own_salt, due_s=due_s)
        for number, (draw, due_s) in enumerate(zip(drawn, due_times, strict=True))
    )
    return RunSpec(run_id, treatment, repeat, draws)


def _due_times(scenario: Scenario, treatment: str, count: int, repeat: int) -> list[float | None]:
    """Return when each request of an open loop is due; None if closed.

    Treatments of one round have the same gaps, up to the ratio of their rates.
    """
    rate, constant = scenario.rate_of(treatment), scenario.arrival_of(treatment) == "constant"
    if rate is None:
        return [None] * count
    chance = random.Random(f"{scenario.prompts.seed}/arrivals/{repeat}")  # noqa: S311
    gaps = [1 / rate if constant else chance.expovariate(rate) for _ in range(count - 1)]
    return [0.0, *itertools.accumulate(gaps)]


def _turns_of(scenario: Scenario, draw: Draw) -> list[Draw]:
    """Return the turns of the conversation that a prompt begins; the prompt itself where there are none."""
    if scenario.prompts.turns is None:
        return [draw]
    lengths = scenario.prompts.isl_by_turn[draw.isl_target]
    name = draw.prompt_id
    return [
        replace(draw, request_id=f"{name}.{turn}", isl_target=length, conversation_id=name, turn=turn)
        for turn, length in enumerate(lengths)
    ]


def _drawn(scenario: Scenario, pool: tuple[Draw, ...], run_id: str, repeat: int) -> list[Draw]:
    """Return the prompts of a run in the order in which they are sent.

    A drawn list belongs to its round: every treatment of the round sends the same prompts in the same order.
    """
    load, seed = scenario.load, scenario.prompts.seed
    if load.requests is None:
        order = list(pool)
        random.Random(f"{seed}/draws/{run_id}").shuffle(order)  # noqa: S311
        return order
    chance = random.Random(f"{seed}/draws/{repeat}")  # noqa: S311
    match load.draw:
        case "without_replacement":
            return chance.sample(pool, load.requests)
        case "round_robin":
            return [pool[number % len(pool)] for number in range(load.requests)]
        case "zipf":
            return chance.choices(pool, [1 / rank for rank in range(1, len(pool) + 1)], k=load.requests)
        case _:
            return chance.choices(pool, k=load.requests)


def most_speed_up(draws: Iterable[tuple[str, int]]) -> float:
    """Return the most that a cache can gain over recomputing all of these (prompt, tokens) from an empty start.

    Each distinct prompt must be computed once. Formula: max over p in 0, 1, 2 of sum(tokens^p over all requests) /
    sum(tokens^p over distinct prompts); for p = 0, or prompts of one length, that is N / D. A prefill costs a + b n +
    c n^2 with no term below 0, and the ratio of two such sums is at most the largest ratio of one kind of term.
    Prompts that share beginnings, such as turns of a conversation, may gain more.
    """
    listed = list(draws)
    distinct = dict(listed)
    if not listed:
        return 1.0
    return max(sum(n**p for _, n in listed) / sum(n**p for n in distinct.values()) for p in (0, 1, 2))


def needs_own_texts(scenario: Scenario, treatment: str) -> bool:
    """Tell whether each run of this treatment must send texts that no run before it has sent."""
    cache = scenario.treatments[treatment].cache
    return cache == "cold" or (cache == "off" and not scenario.server.keys.is_started)


def working_set_bytes(scenario: Scenario) -> float | None:
    """Return the KV bytes of all prompts, after the scale; None where the scenario does not tell those of a token.

    Of a conversation these are the bytes at its end, when memory holds its last answer too.
    """
    per_token, prompts = scenario.server.keys.bytes_per_token, scenario.prompts
    answer = prompts.output_tokens if prompts.turns is not None else 0
    tokens = sum(turns[-1] + answer for turns in prompts.isl_by_turn.values()) * prompts.per_length
    return tokens * per_token if per_token is not None else None
