"""Lays out all runs of a scenario in the order in which they will be made.

Pure: the same scenario gives the same plan.

One round holds each treatment once, in seeded random order, so that slow drift hits all treatments alike; a treatment's
number of runs is the number of rounds. Within a run the prompts come in seeded random order as well, each once or as
drawn.
"""

from __future__ import annotations

import functools
import itertools
import random
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from kvbench.result.plan_record import Design, OpenLoop, PlannedRun, PlanRecord, Scale, Slo, Turns
from kvbench.typed_json import from_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.result.draw_file import DrawRow
    from kvbench.scenario.models import DrawKind
    from kvbench.scenario.scenario import Scenario
    from kvbench.typed_json import JsonObject

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
class Pool(Sequence[Draw]):
    """The prompts of a scenario, each once, in the order in which a tier is primed; each is made when asked for."""

    lengths: tuple[int, ...]
    per_length: int
    salt: str = ""

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.lengths) * self.per_length

    @overload
    def __getitem__(self, place: int) -> Draw: ...
    @overload
    def __getitem__(self, place: slice) -> list[Draw]: ...
    def __getitem__(self, place: int | slice) -> Draw | list[Draw]:
        """Return one prompt, or several."""
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        group, index = divmod(range(len(self))[place], self.per_length)
        name = f"p{self.lengths[group]}-{index}"
        return Draw(name, name, self.lengths[group], self.salt)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When the requests of an open loop are due: `rate` a second, with equal gaps or ones drawn by `seed`."""

    rate: float
    constant: bool
    seed: str


@dataclass(frozen=True, slots=True)
class Draws(Sequence[Draw]):
    """The requests of one run in the order in which they are sent.

    It holds how they are drawn and none of them: there may be a million, and each is made when it is asked for.
    `requests` prompts are drawn from `pool`, or each is sent once where `kind` is None. `turns` has the prompt tokens
    of every turn, by the length of the first; without conversations it is empty.
    """

    run_id: str
    pool: Pool
    kind: DrawKind | None
    requests: int
    seed: str
    turns: tuple[tuple[int, tuple[int, ...]], ...] = ()
    salt: str = ""
    arrivals: Arrivals | None = None

    def __len__(self) -> int:
        """Return the number of requests."""
        return self.requests * self._turn_count

    @overload
    def __getitem__(self, place: int) -> Draw: ...
    @overload
    def __getitem__(self, place: slice) -> list[Draw]: ...
    def __getitem__(self, place: int | slice) -> Draw | list[Draw]:
        """Return one request, or several."""
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        order = _order(self.kind, len(self.pool), self.requests, self.seed)
        due_s = next(itertools.islice(self._due_times(), number, None))
        return self._draw(number, order[number // self._turn_count], dict(self.turns), due_s)

    def __iter__(self) -> Iterator[Draw]:
        """Make one request after another."""
        turns, count = dict(self.turns), self._turn_count
        order = _order(self.kind, len(self.pool), self.requests, self.seed)
        places = (place for place in order for _ in range(count))
        for number, (place, due_s) in enumerate(zip(places, self._due_times(), strict=False)):
            yield self._draw(number, place, turns, due_s)

    @property
    def by_length(self) -> dict[int, int]:
        """How many requests there are of each prompt length."""
        order = _order(self.kind, len(self.pool), self.requests, self.seed)
        groups = Counter(place // self.pool.per_length for place in order)
        counts: Counter[int] = Counter()
        for group, count in sorted(groups.items()):
            first = self.pool.lengths[group]
            for length in dict(self.turns).get(first, (first,)):
                counts[length] += count
        return dict(counts)

    @property
    def _turn_count(self) -> int:
        return len(self.turns[0][1]) if self.turns else 1

    def _draw(self, number: int, place: int, turns: dict[int, tuple[int, ...]], due_s: float | None) -> Draw:
        prompt = self.pool[place]
        name, length = prompt.prompt_id, prompt.isl_target
        if not turns:
            return Draw(f"{self.run_id}/{number:03d}-{name}", name, length, self.salt, due_s=due_s)
        turn = number % self._turn_count
        request_id = f"{self.run_id}/{number:03d}-{name}.{turn}"
        return Draw(request_id, name, turns[length][turn], self.salt, name, turn, due_s)

    def _due_times(self) -> Iterator[float | None]:
        """Give the moment at which each request is due; None in a closed loop."""
        asked = self.arrivals
        if asked is None:
            return itertools.repeat(None)
        chance = random.Random(asked.seed)  # noqa: S311 - a schedule, no secret
        gaps = (1 / asked.rate if asked.constant else chance.expovariate(asked.rate) for _ in itertools.count())
        return itertools.accumulate(gaps, initial=0.0)


@functools.lru_cache(maxsize=2)
def _order(kind: DrawKind | None, prompts: int, requests: int, seed: str) -> array[int]:
    """Return which prompt of the pool each request sends; the newest lists are kept, because they are asked for again.

    A drawn list belongs to its round: every treatment of the round sends the same prompts in the same order.
    """
    chance, places = random.Random(seed), range(prompts)  # noqa: S311 - an order, no secret
    match kind:
        case None:
            order = list(places)
            chance.shuffle(order)
        case "without_replacement":
            order = chance.sample(places, requests)
        case "round_robin":
            order = [number % prompts for number in range(requests)]
        case "zipf":
            order = chance.choices(places, [1 / (place + 1) for place in places], k=requests)
        case _:
            order = chance.choices(places, k=requests)
    return array("Q", order)


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One execution of one treatment, as planned."""

    run_id: str
    treatment: str
    repeat: int
    draws: Draws


@dataclass(frozen=True, slots=True)
class Plan:
    """All runs in order; `pool` holds each prompt of the scenario once, in the order in which a tier is primed."""

    scenario: str
    fingerprint: str
    salt: str
    canary_tokens: int
    pool: Pool
    runs: tuple[RunSpec, ...]
    design: Design

    def canary(self, name: str) -> Draw:
        """Make a prompt whose only aim is to show the state of a tier; it is never measured."""
        return Draw(name, name, self.canary_tokens, self.salt)

    def record(self) -> PlanRecord:
        """Return what `plan.json` keeps: all but the draws, of which it has the counts."""
        runs = tuple(
            PlannedRun(spec.run_id, spec.treatment, spec.repeat, len(spec.draws), spec.draws.by_length)
            for spec in self.runs
        )
        return PlanRecord(self.scenario, self.fingerprint, self.salt, self.canary_tokens, runs, self.design)

    def draw_rows(self) -> Iterator[DrawRow]:
        """Give what `draws.parquet` keeps: the requests of all runs in order, each made when it is asked for."""
        for spec in self.runs:
            for draw in spec.draws:
                where = (draw.conversation_id, draw.turn, draw.due_s)
                yield spec.run_id, draw.request_id, draw.prompt_id, draw.isl_target, draw.salt, *where


def expand(scenario: Scenario, salt: str = "", scale: JsonObject | None = None) -> Plan:
    """Lay out all runs.

    `scale` is what an external server says of itself if it is a scale model; the scenario tells it of our own.

    `salt` goes into every prompt: a tier that cannot be wiped remembers earlier results, so each result folder there
    has its own texts. Where a cache must miss but cannot be switched off or emptied, each run has its own texts too.
    """
    pool = Pool(scenario.prompts.lengths, scenario.prompts.per_length, salt)
    runs = []
    for repeat in range(1, scenario.repeats + 1):
        treatments = list(scenario.treatments)
        random.Random(f"{scenario.prompts.seed}/round/{repeat}").shuffle(treatments)  # noqa: S311 - an order, no secret
        runs += [_run(scenario, pool, treatment, repeat) for treatment in treatments]
    return Plan(
        scenario=scenario.name,
        fingerprint=scenario.fingerprint,
        salt=salt,
        canary_tokens=min(scenario.prompts.lengths),
        pool=pool,
        runs=tuple(runs),
        design=_design(scenario, scale),
    )


def _design(scenario: Scenario, scale: JsonObject | None) -> Design:
    """Return what whoever judges the result later must know of the scenario, so that the plan is enough to read it."""
    emulator, names = scenario.server.emulator, tuple(scenario.treatments)
    own_scale = Scale(emulator.scale.time, emulator.scale.bytes) if emulator is not None else None
    told = from_json(Scale, scale, "the server") if scale is not None else None
    rates = {name: scenario.rate_of(name) for name in names}
    turns = scenario.prompts.turns
    return Design(
        question=scenario.question,
        server=scenario.server.kind,
        treatments=names,
        repeats=scenario.repeats,
        baseline=scenario.baseline,
        scale=own_scale or told,
        lengths=tuple(sorted({isl for turns in scenario.prompts.isl_by_turn.values() for isl in turns})),
        turn_of_length=_turn_of_length(scenario) if turns is not None else {},
        output_tokens=scenario.prompts.output_tokens,
        concurrency=scenario.load.concurrency,
        concurrencies={name: scenario.concurrency_of(name) for name in names},
        open_loops={
            name: OpenLoop(rate, scenario.arrival_of(name)) for name, rate in rates.items() if rate is not None
        },
        baselines={name: scenario.baseline_of(name) for name in names},
        turns=Turns(turns.count, turns.new_tokens, turns.history) if turns is not None else None,
        max_fail=scenario.max_fail,
        check_answers=scenario.check_answers,
        slo=Slo(scenario.slo.ttft),
        published=scenario.published,
        definitions={name: one.model_dump(mode="json") for name, one in scenario.treatments.items()},
        setting=_setting(scenario),
    )


def _turn_of_length(scenario: Scenario) -> dict[int, int]:
    """Return which turn, from 0, has a prompt of which length; without lengths that two turns have."""
    turns: dict[int, set[int]] = {}
    for lengths in scenario.prompts.isl_by_turn.values():
        for turn, length in enumerate(lengths):
            turns.setdefault(length, set()).add(turn)
    return {length: min(known) for length, known in turns.items() if len(known) == 1}


def _setting(scenario: Scenario) -> JsonObject:
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


def _run(scenario: Scenario, pool: Pool, treatment: str, repeat: int) -> RunSpec:
    """Lay out one run; the treatments of a round have the same drawn list, and the same gaps up to their rates' ratio.

    Without a drawn list each run sends every prompt once, in an order of its own.
    """
    run_id, load, seed = f"r{repeat:02d}-{treatment}", scenario.load, scenario.prompts.seed
    rate = scenario.rate_of(treatment)
    draws = Draws(
        run_id=run_id,
        pool=pool,
        kind=load.draw,
        requests=load.requests if load.requests is not None else len(pool),
        seed=f"{seed}/draws/{run_id if load.requests is None else repeat}",
        turns=tuple(scenario.prompts.isl_by_turn.items()) if scenario.prompts.turns is not None else (),
        salt=f"{pool.salt}{run_id}" if needs_own_texts(scenario, treatment) else pool.salt,
        arrivals=Arrivals(rate, scenario.arrival_of(treatment) == "constant", f"{seed}/arrivals/{repeat}")
        if rate is not None
        else None,
    )
    return RunSpec(run_id, treatment, repeat, draws)


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
