"""Gates: what `kvbench compare --fail-if` takes, and whether a comparison passes it.

    NAME[@TREATMENT][/LENGTH] OP NUMBER        ttft_p50@g4/130k > 1.05

NAME is a metric, and its value is the ratio B / A. Without @TREATMENT all treatments are meant. Without /LENGTH a time
of requests is meant at every prompt length, and a figure of a run over all of them, which /all says too.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvbench.metrics import METRICS
from kvbench.units import format_count, parse_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_SHAPE = re.compile(r"([a-z0-9_]+)(?:@(.+?))?(?:/(all|\d[\w.]*))?\s*(>=|<=|>|<)\s*(\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition under which a comparison fails; `length` is None for "all", `every_length` for none given."""

    expression: str
    metric: str
    treatment: str | None
    length: int | None
    every_length: bool
    sign: str
    threshold: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a gate: `passed`, `tripped` or `cannot be judged`, and the sentence that says why."""

    expression: str
    word: str
    reason: str

    @property
    def failed(self) -> bool:
        """Whether the command must fail: also where nothing could be judged, since silence is no pass."""
        return self.word != "passed"


def parse(expression: str) -> Gate:
    """Read one expression.

    Raises:
        ValueError: it is not of the form NAME[@TREATMENT][/LENGTH] OP NUMBER, or NAME is no metric.

    """
    match = _SHAPE.fullmatch(expression.strip())
    if match is None:
        raise ValueError(f"{expression!r} is not NAME[@TREATMENT][/LENGTH] OP NUMBER, such as 'ttft_p50 > 1.05'")
    name, treatment, length, sign, number = match.groups()
    if name not in METRICS:
        raise ValueError(f"{name} is not a metric; known are {', '.join(METRICS)}")
    of_run = METRICS[name].of_run is not None
    if of_run and length not in (None, "all"):
        raise ValueError(f"{name} is a figure of a whole run and has no prompt length")
    tokens = None if length in (None, "all") else parse_count(length)
    every = length is None and not of_run
    return Gate(expression.strip(), name, treatment, tokens, every, sign, float(number))


def judge(gate: Gate, figures: Sequence[dict[str, Any]]) -> Outcome:
    """Hold a gate against the figures of a comparison.

    It trips where the ratio passes the threshold and a difference is shown: an interval without 1, beyond the noise
    floor. The margin of equivalence plays no part, the threshold takes its place. A figure that is missing or has no
    interval cannot be judged; one that is 0 in both results cannot differ.
    """
    meant = [figure for figure in figures if _is_meant(gate, figure)]
    if not meant:
        return Outcome(gate.expression, "cannot be judged", "no figure of both results is meant by it")
    passes, meant = _OPERATORS[gate.sign], [one for one in meant if not one["is_zero"]]
    if not meant:
        return Outcome(gate.expression, "passed", "it is 0 in both results")
    tripped = [
        one for one in meant if one["low"] is not None and passes(one["ratio"], gate.threshold) and one["differs"]
    ]
    if tripped:
        return Outcome(gate.expression, "tripped", "; ".join(_told(one) for one in tripped))
    if unjudged := [one for one in meant if one["low"] is None]:
        reason = "; ".join(f"{_place(one)}: {one['reason']}" for one in unjudged)
        return Outcome(gate.expression, "cannot be judged", reason)
    close = [one for one in meant if passes(one["ratio"], gate.threshold)]
    if close:
        told = "; ".join(f"{_told(one)}, but no difference is shown" for one in close)
        return Outcome(gate.expression, "passed", told)
    worst = max(meant, key=lambda one: one["ratio"] if ">" in gate.sign else -one["ratio"])
    return Outcome(gate.expression, "passed", f"nearest is {_told(worst)}")


def _is_meant(gate: Gate, figure: dict[str, Any]) -> bool:
    if figure["metric"] != gate.metric or gate.treatment not in (None, figure["treatment"]):
        return False
    if gate.every_length:
        return bool(figure["is_length"])
    return bool(figure["length"] == gate.length)


def _place(figure: dict[str, Any]) -> str:
    length = "" if figure["length"] is None else f"/{format_count(figure['length'])}"
    return f"{figure['metric']}@{figure['treatment']}{length}"


def _told(figure: dict[str, Any]) -> str:
    return f"{_place(figure)} is {figure['ratio']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"
