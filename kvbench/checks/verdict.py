"""What a verdict is made of: reasons, the word that follows from them, and what a run is held against.

`invalid`: what was measured is not what was asked for, or cannot be true. `suspect`: it may be right, but that was not
shown. `note`: worth knowing, changes nothing. Every reason names its rule; `docs/protocol.md` has a row for each.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Level = Literal["note", "suspect", "invalid"]
VerdictWord = Literal["valid", "suspect", "invalid"]


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that was found, by which rule, and what to do about it."""

    level: Level
    rule: str
    text: str
    remedy: str

    @classmethod
    def of_json(cls, told: Mapping[str, Any]) -> Reason:
        """Take over a reason that was found where it was measured."""
        return cls(told["level"], told["rule"], told["text"], told["remedy"])


@dataclass(frozen=True, slots=True)
class Verdict:
    """The word on a run or a treatment, with its reasons."""

    word: VerdictWord
    reasons: tuple[Reason, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain JSON values."""
        return {"word": self.word, "reasons": [asdict(reason) for reason in self.reasons]}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that a tier can deliver, in real bytes per second, and who says so."""

    bytes_per_s: float
    source: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run should have been: taken from the plan and the scenario.

    `client_error_s` is the p99 of the driver's calibrated error, or its maximum; None without a calibration.
    `concurrency` is the number of slots, None where it is not known. `ceilings` are by tier.
    """

    requests: int
    output_tokens: int
    max_fail: int
    check_answers: bool = False
    client_error_s: float | None = None
    concurrency: int | None = None
    is_open_loop: bool = False
    has_live_history: bool = False
    time_scale: float = 1.0
    ceilings: Mapping[str, Ceiling] = field(default_factory=dict)

    @classmethod
    def of_plan(
        cls, asked: Mapping[str, Any], treatment: str, requests: int, client_error_s: float | None = None
    ) -> Asked:
        """Read it from the part of `plan.json` that says what the result must be judged by."""
        return cls(
            requests=requests,
            output_tokens=asked["output_tokens"],
            max_fail=asked["max_fail"],
            check_answers=asked.get("check_answers", False),
            client_error_s=client_error_s,
            concurrency=concurrency_of(asked, treatment),
            is_open_loop=open_loop_of(asked, treatment) is not None,
            has_live_history=(asked.get("turns") or {}).get("history") == "live",
            time_scale=time_scale_of(asked),
            ceilings=ceilings_of(asked, treatment),
        )


def time_scale_of(asked: Mapping[str, Any]) -> float:
    """Return what a measured time must be multiplied by to be one at full scale; 1 where nothing is a scale model."""
    scale = asked.get("scale")
    return float(scale["time"]) if scale else 1.0


def concurrency_of(asked: Mapping[str, Any], treatment: str) -> int | None:
    """Return the number of slots of a treatment, None where the plan does not tell."""
    told = (asked.get("concurrencies") or {}).get(treatment, asked.get("concurrency"))
    return None if told is None else int(told)


def open_loop_of(asked: Mapping[str, Any], treatment: str) -> dict[str, Any] | None:
    """Return rate and arrival of a treatment's requests, None in a closed loop; older plans have one rate for all."""
    told: dict[str, dict[str, Any]] | None = asked.get("open_loops")
    if told is not None:
        return told.get(treatment)
    load = (asked.get("setting") or {}).get("load") or {}
    return {key: load[key] for key in ("request_rate", "arrival")} if load.get("request_rate") is not None else None


def baseline_of(asked: Mapping[str, Any], treatment: str) -> str | None:
    """Return the treatment that another is compared with; None for a treatment that is its own baseline."""
    told: str | None = (asked.get("baselines") or {}).get(treatment, asked.get("baseline"))
    return told if told != treatment else None


def same_pairs(asked: Mapping[str, Any], states: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """Return the pairs of treatments of one definition (A/A pairs); the baseline comes first in its own.

    `states` are the cache states that their runs had, which tell where a plan keeps no definitions: a treatment could
    be nothing else then. An import has neither, so it has no pair.
    """
    if asked.get("imported"):
        return []
    names = sorted(asked["treatments"], key=lambda name: name != asked["baseline"])
    told: dict[str, Any] = {name: states.get(name) for name in names}
    for name, definition in (asked.get("definitions") or {}).items():
        told[name] = {key: value for key, value in definition.items() if key != "against"}
    return [
        (one, other)
        for place, one in enumerate(names)
        for other in names[place + 1 :]
        if told[one] == told[other] and told[one] is not None
    ]


def ceilings_of(asked: Mapping[str, Any], treatment: str) -> dict[str, Ceiling]:
    """Return what the scenario says that the tiers of a treatment can deliver."""
    own = ((asked.get("definitions") or {}).get(treatment) or {}).get("tiers")
    tiers = own or (asked.get("setting") or {}).get("tiers") or {}
    return {
        name: Ceiling(float(tier["bandwidth"]), f"tiers.{name}.bandwidth of the scenario")
        for name, tier in tiers.items()
        if isinstance(tier, dict) and tier.get("bandwidth")
    }


def verdict_of(reasons: Iterable[Reason], words: Sequence[VerdictWord] = ("valid",)) -> Verdict:
    """Return the verdict that follows from reasons, at best the worst of `words`."""
    found = tuple(reasons)
    levels = {reason.level for reason in found}
    own: VerdictWord = "invalid" if "invalid" in levels else "suspect" if "suspect" in levels else "valid"
    return Verdict(worst([own, worst(list(words))]), found)


def worst(words: list[VerdictWord]) -> VerdictWord:
    """Return the worst of several verdicts; no run at all is invalid."""
    order: list[VerdictWord] = ["valid", "suspect", "invalid"]
    return max(words, key=order.index) if words else "invalid"


def named_tier(state: str | None) -> str:
    """Return the tier that must serve a request in a cache state: the warm tier, else `recompute`."""
    words = str(state)
    return words.removeprefix("warm(").removesuffix(")") if words.startswith("warm(") else "recompute"
