"""Two results side by side as typed values: what differed around them, and what changed in their figures.

A is the base, and every ratio is B / A of what was measured. What is not known is None, never 0.
"""

from dataclasses import dataclass

from pydantic import JsonValue

from kvbench.analysis.summary_types import Figure, RankComparison
from kvbench.result.verdict import VerdictWord


@dataclass(frozen=True, slots=True)
class ComparedResult:
    """One of the two results."""

    scenario: str  # The scenario's name
    result: str  # The name of the result folder
    verdict: VerdictWord  # The worst verdict of a treatment; invalid while runs are missing
    complete: bool  # Whether every planned run is sealed
    runs: int  # Sealed runs
    runs_used: int  # Those of them that are not invalid
    facts_changed: tuple[str, ...]  # Facts of the host that changed between sessions
    imported: str | None  # The tool that measured it; None for a result of our own
    same_pairs: tuple[tuple[str, str], ...]  # Treatments of one definition (A/A pairs)
    same_pair_rounds: int | None  # Rounds that its noise floor is from


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact or a part of the question that the two results do not share."""

    name: str  # Its path, such as `host.kernel`
    base: JsonValue  # What A says; None where A does not say
    other: JsonValue  # What B says


@dataclass(frozen=True, slots=True)
class ComparedFigure:
    """One metric of one treatment, at one prompt length or over all of them, in both results."""

    metric: str  # The metric's name
    treatment: str  # The treatment
    length: int | None  # Prompt tokens; None for all lengths together
    is_length: bool  # Whether it is one of those that stand for every prompt length
    base: Figure  # The figure of A
    other: Figure  # The figure of B
    over_rounds: tuple[float | None, float | None] | None  # Geometric means over rounds, whose quotient is the ratio
    ratio: float | None  # B / A
    low: float | None  # Lower end of its 95 % interval
    high: float | None  # Upper end of its 95 % interval
    rounds: tuple[int, int]  # Rounds of A and of B
    p_value: float | None  # Of Welch's t test that there is no difference
    p_holm: float | None  # The same with Holm's correction over the places of one metric
    noise_floor: float | None  # The larger one of the two results; None where neither has an A/A pair
    word: str  # What may be said of it, such as `faster`, `no difference shown` or `cannot be compared`
    reason: str  # Why this word
    is_zero: bool  # Whether it is 0 in both
    differs: bool  # Whether a difference is shown, however small
    rank: RankComparison | None  # The same by rank, where there are too few rounds


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """What became of a gate, why, and what to do where it cannot be judged."""

    expression: str  # The gate as the user wrote it
    word: str  # `passed`, `tripped` or `cannot be judged`
    reason: str  # Why this word
    remedy: str  # What would make it one that can be judged; empty where it was
    failed: bool  # Whether the command must fail: also where nothing could be judged, since silence is no pass


@dataclass(frozen=True, slots=True)
class ResultComparison:
    """Result B compared with result A."""

    base: ComparedResult  # A
    other: ComparedResult  # B
    same_result: bool  # Whether both are one result, or one a copy of the other
    question: tuple[Difference, ...]  # Where they were asked different questions
    facts: tuple[Difference, ...]  # Where the facts around them differ
    margin: float  # The relative difference that does not matter
    figures: tuple[ComparedFigure, ...]  # Every metric at every place that both have
    gates: tuple[GateOutcome, ...]  # What became of the gates
