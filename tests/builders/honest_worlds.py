"""Honest scenarios drawn by a seed: small ones of every shape that the emulator can serve.

What is drawn could be asked of any honest server: each treatment can reach its cache state, and nothing is asked twice
of a tier that could not hold it. Tiers may be far too small where a treatment starts empty.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvbench.analysis import summary
from kvbench.experiment import run
from kvbench.result.folder import open_result
from kvbench.result.record_files import write_plan
from kvbench.scenario import plan
from kvbench.scenario.scenario import Scenario
from kvbench.testbed import testbed
from tests.builders.busy_host import HOST_AND_CLIENT_RULES

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.analysis.summary_types import Summary
    from kvbench.result.records import Row
    from kvbench.scenario.plan import RunSpec

# Reasons that an honest server may be given: those of a busy machine, and two that the scenario itself asks for.
EXCUSED = {
    *HOST_AND_CLIENT_RULES,
    "promoted",  # a note on what the scenario itself does: it repeats prompts below a faster tier
    "held at the cap",  # what the scenario itself asks: a rate above what its few slots can send
}
MOST_BYTES = 24_000_000  # of one treatment's prompts, so that a scenario takes a second or two
_TIERS = ("g1", "g2", "g3", "g4")
_PROFILES = {"gpt-oss-120b_rtx-pro-6000": (73_728, (512, 256, 128)), "llama-3-70b_4x-h100": (327_680, (2048, 1024))}


@dataclass(frozen=True)
class Shape:
    """What the parts of one scenario are drawn from; `kv_bytes` are those of a token, after the scale."""

    chance: random.Random
    kv_bytes: int
    lengths: tuple[int, ...]
    per_length: int
    output_tokens: int
    turns: int
    new_tokens: int
    api: str

    @property
    def total_bytes(self) -> int:
        """KV of all prompts at their longest, with the answers, and of as many canaries as kvbench sends."""
        more = (self.turns - 1) * (self.new_tokens + self.output_tokens) + self.output_tokens
        tokens = sum(length + more + 32 for length in self.lengths) * self.per_length + 8 * min(self.lengths)
        return tokens * self.kv_bytes


def scenario_of(seed: int, folder: Path) -> Scenario:
    """Draw a scenario; the same seed gives the same one, but for its folder."""
    chance = random.Random(f"honest/{seed}")  # noqa: S311 - a draw, no secret
    profile = chance.choice(sorted(_PROFILES))
    per_token, scales = _PROFILES[profile]
    scale = chance.choice(scales)
    shape = _shape(chance, per_token // scale)
    kinds = _kinds(shape)
    emulator = {
        "profile": profile,
        "scale": {"time": chance.choice((24, 32, 48)), "bytes": scale},
        "instances": 1 if "g1" in kinds else chance.choice((1, 1, 2, 3, 4)),
        "io_threads": chance.choice((1, 2, 8)),
        "write_policy": "back" if not set(kinds) & set(_TIERS) and chance.random() < 0.5 else "through",
        "admit_after_hits": chance.choice((1, 1, 2, 3, 5)),
        "write_delay": chance.choice(("0s", "0s", "20ms", "100ms")),
    }
    treatments = {f"{kind}_{number}": _treatment(kind, number, shape, folder) for number, kind in enumerate(kinds)}
    return Scenario.model_validate(
        {
            "name": f"honest-{seed}",
            "question": "Is an honest server believed?",
            "server": {"emulator": emulator},
            "prompts": _prompts(shape),
            "load": _load(shape),
            "treatments": treatments,
            "baseline": next(iter(treatments)),
            "repeats": 1,
            "check_answers": "off" in kinds and "cold" not in kinds and chance.random() < 0.7,
        }
    )


def _shape(chance: random.Random, kv_bytes: int) -> Shape:
    """Draw lengths: multiples of a block, one more, one less, and anything."""
    lengths: set[int] = set()
    for _ in range(chance.choice((1, 1, 2, 3))):
        blocks = chance.randint(2, 200)
        lengths.add(blocks * 16 + chance.choice((0, 1, -1, chance.randint(0, 15))))
    turns = chance.choice((1, 1, 1, 2, 3))
    shape = Shape(
        chance,
        kv_bytes,
        tuple(sorted(lengths)),
        chance.randint(1, 5),
        chance.choice((1, 2, 4, 8, 20)),
        turns,
        chance.randint(20, 300),
        chance.choice(("completions", "completions", "chat")),
    )
    return shape if shape.total_bytes < MOST_BYTES else _shape(chance, kv_bytes)


def _kinds(shape: Shape) -> list[str]:
    """Draw one or two cache states: off, cold, or a warm tier; conversations fill their tiers themselves."""
    choices = ["off", "cold", "cold"] if shape.turns > 1 else ["off", "cold", "cold", "g1", "g2", "g3", "g4", "g4"]
    return [shape.chance.choice(choices) for _ in range(shape.chance.choice((1, 2)))]


def _treatment(kind: str, number: int, shape: Shape, folder: Path) -> dict[str, Any]:
    chance = shape.chance
    present = {name for name in _TIERS if chance.random() < 0.5}
    if not present and kind == "cold":
        present = {chance.choice(_TIERS)}
    present |= {kind} & set(_TIERS)
    tiers: dict[str, Any] = {}
    for name in sorted(present):
        # A tier that must hold everything has room to spare; others may be far too small, but take a whole prompt.
        least = 1.5 if kind in _TIERS and name >= kind else 0.0
        most_tokens = max(shape.lengths) + (shape.turns - 1) * (shape.new_tokens + shape.output_tokens)
        floor = (most_tokens + 64) * shape.kv_bytes + 65_536
        size = round(max(floor, shape.total_bytes * max(least, chance.choice((0.1, 0.4, 0.8, 2.0))) + 262_144))
        directory = {"path": str(folder / f"{name}-{number}"), "capacity": size + 4_000_000 * (least > 0)}
        tiers[name] = directory if name in ("g3", "g4") else size
    cache: Any = {"warm": kind} if kind in _TIERS else kind
    return {"cache": cache, "tiers": tiers, "concurrency": chance.choice((1, 1, 2, 4, 8, 16))}


def _prompts(shape: Shape) -> dict[str, Any]:
    form: dict[str, Any] = {
        "lengths": list(shape.lengths),
        "per_length": shape.per_length,
        "output_tokens": shape.output_tokens,
        "seed": shape.chance.randint(1, 1000),
    }
    if shape.turns == 1 and shape.api == "completions" and shape.chance.random() < 0.2:
        form["form"] = "token_ids"
    if shape.turns > 1:
        history = shape.chance.choice(("recorded", "live"))
        form["turns"] = {"count": shape.turns, "new_tokens": shape.new_tokens, "history": history}
    return form


def _load(shape: Shape) -> dict[str, Any]:
    """Draw how it is sent: each prompt once, a drawn list, or an open loop."""
    chance, count = shape.chance, len(shape.lengths) * shape.per_length
    load: dict[str, Any] = {"api": shape.api}
    if shape.turns > 1:
        return load
    if chance.random() < 0.6:
        load["draw"] = chance.choice(("with_replacement", "without_replacement", "zipf", "round_robin"))
        load["requests"] = chance.randint(1, count if load["draw"] == "without_replacement" else 20)
    if chance.random() < 0.2:
        load |= {"request_rate": chance.choice((20.0, 60.0, 200.0)), "arrival": chance.choice(("constant", "poisson"))}
    return load


class Silent:
    """A watch that nobody looks at."""

    def run_starts(self, spec: RunSpec, number: int, total: int) -> None:
        """A run begins."""

    def run_kept(self, spec: RunSpec) -> None:
        """A run of an earlier session is sealed."""

    def step(self, text: str) -> None:
        """The next step."""

    def request_done(self, row: Row) -> None:
        """A request ended."""

    def run_ends(self, spec: RunSpec) -> None:
        """The run is sealed."""


def run_through(scenario: Scenario, folder: Path) -> Summary:
    """Run a scenario through the real driver and the emulator's own process; return its summary."""
    laid_out = plan.expand(scenario)
    with testbed.stand_up(scenario) as bed:
        result = open_result(folder / "results", scenario.name, scenario.fingerprint)
        write_plan(result.path, laid_out.record())
        result.write_json("facts.json", {})
        run.execute(scenario, laid_out, bed, result, Silent())
    return summary.summarise(result.path)


def complaints(summed: Summary) -> list[str]:
    """Return every reason that says more than that the machine was busy, with the run or treatment that it is of."""
    owners = [(one.run_id, one.reasons) for one in summed.runs]
    owners += [(name, one.reasons) for name, one in summed.treatments.items()]
    return [
        f"{owner}: {reason.level}, {reason.rule}: {reason.text}"
        for owner, reasons in owners
        for reason in reasons
        if reason.rule not in EXCUSED
    ]
