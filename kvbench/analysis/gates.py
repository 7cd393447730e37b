"""Parses the expressions of `kvbench compare --fail-if` and tells whether a comparison passes them.

    NAME[@TREATMENT][/LENGTH] OP NUMBER        ttft_p50@g4/130k > 1.05

NAME is a metric, and its value is the ratio B / A. Without @TREATMENT all treatments are meant. Without /LENGTH a time
of requests is meant at every prompt length, and a figure of a run over all of them, which /all says too.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvbench.analysis.comparison_types import GateOutcome
from kvbench.analysis.metrics import METRICS
from kvbench.analysis.stats.ratios import FEWEST_ROUNDS
from kvbench.errors import OptionError
from kvbench.percentile import needed_n
from kvbench.units import format_count, parse_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvbench.analysis.comparison_types import ComparedFigure

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
        near = difflib.get_close_matches(name, METRICS, n=1)
        known = f"did you mean {near[0]}?" if near else f"known are {', '.join(METRICS)}"
        raise ValueError(f"{name} is not a metric; {known}")
    of_run = METRICS[name].of_run is not None
    if of_run and length not in (None, "all"):
        raise ValueError(f"{name} is a figure of a whole run and has no prompt length")
    tokens = None if length in (None, "all") else parse_count(length)
    every = length is None and not of_run
    return Gate(expression.strip(), name, treatment, tokens, every, sign, float(number))


def check(gate: Gate, treatments: Sequence[str], lengths: Sequence[int]) -> None:
    """Refuse a gate on what two results do not both have: these are the treatments and lengths that both have.

    Raises:
        OptionError: the treatment or the prompt length is not among them.

    """
    if gate.treatment is not None and gate.treatment not in treatments:
        near = difflib.get_close_matches(gate.treatment, treatments, n=1)
        remedy = f"Did you mean @{near[0]}?" if near else f"Both have {', '.join(treatments)}."
        raise OptionError(f"--fail-if '{gate.expression}': not both results have a treatment {gate.treatment}", remedy)
    if gate.length is not None and gate.length not in lengths:
        told = f"not both results have prompts of {format_count(gate.length)} tokens"
        known = ", ".join(map(format_count, lengths))
        remedy = f"Both have {known}." if lengths else "Leave out /LENGTH: their prompt lengths are not known."
        raise OptionError(f"--fail-if '{gate.expression}': {told}", remedy)


def judge(gate: Gate, figures: Sequence[ComparedFigure]) -> GateOutcome:
    """Hold a gate against the figures of a comparison.

    It trips where the ratio passes the threshold and a difference is shown: an interval without 1, beyond the noise
    floor. The margin of equivalence plays no part, the threshold takes its place. A figure that is missing or has no
    interval cannot be judged; one that is 0 in both results cannot differ.
    """
    meant = [figure for figure in figures if _is_meant(gate, figure)]
    if not meant:
        reason = f"neither result has a figure for {METRICS[gate.metric].label}"
        return _outcome(gate.expression, "cannot be judged", reason, _remedy(gate, []))
    passes, meant = _OPERATORS[gate.sign], [one for one in meant if not one.is_zero]
    if not meant:
        return _outcome(gate.expression, "passed", "it is 0 in both results")
    tripped = [one for one in meant if one.low is not None and passes(_ratio(one), gate.threshold) and one.differs]
    if tripped:
        return _outcome(gate.expression, "tripped", "; ".join(_figure_text(one) for one in tripped))
    if unjudged := [one for one in meant if one.low is None]:
        reason = "; ".join(f"{_place(one)}: {one.reason}" for one in unjudged)
        return _outcome(gate.expression, "cannot be judged", reason, _remedy(gate, unjudged))
    close = [one for one in meant if passes(_ratio(one), gate.threshold)]
    if close:
        told = "; ".join(f"{_figure_text(one)}, but no difference is shown" for one in close)
        return _outcome(gate.expression, "passed", told)
    worst = max(meant, key=lambda figure: _ratio(figure) if ">" in gate.sign else -_ratio(figure))
    return _outcome(gate.expression, "passed", f"nearest is {_figure_text(worst)}")


def _outcome(expression: str, word: str, reason: str, remedy: str = "") -> GateOutcome:
    return GateOutcome(expression, word, reason, remedy, failed=word != "passed")


def _ratio(figure: ComparedFigure) -> float:
    """Return the ratio of a figure that has an interval."""
    return math.nan if figure.ratio is None else figure.ratio


def _remedy(gate: Gate, unjudged: Sequence[ComparedFigure]) -> str:
    """Say what would make a gate one that can be judged."""
    metric = METRICS[gate.metric]
    if metric.needs_slo:
        return "Give both scenarios the same slo."
    percent = {"p95": 95.0, "p99": 99.0}.get(metric.statistic)
    if percent is not None:
        least, other = needed_n(percent, two_sided=False), metric.name.replace(metric.statistic, "p50")
        return f"{metric.label} needs n >= {least} in every round: gate on {other}, or send more requests a run."
    if any(min(one.rounds) < FEWEST_ROUNDS for one in unjudged):
        return f"Run both with repeats: {FEWEST_ROUNDS} or more."
    return "Gate on a figure that both results have; kvbench compare without --fail-if lists them."


def _is_meant(gate: Gate, figure: ComparedFigure) -> bool:
    if figure.metric != gate.metric or gate.treatment not in (None, figure.treatment):
        return False
    if gate.every_length:
        return figure.is_length
    return figure.length == gate.length


def _place(figure: ComparedFigure) -> str:
    length = "" if figure.length is None else f"/{format_count(figure.length)}"
    return f"{figure.metric}@{figure.treatment}{length}"


def _figure_text(figure: ComparedFigure) -> str:
    return f"{_place(figure)} is {figure.ratio:.3f} ({figure.low:.3f} to {figure.high:.3f})"
