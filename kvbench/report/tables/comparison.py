"""The tables of a comparison: what differed between two results, and what changed in their figures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kvbench.analysis.metrics import METRICS
from kvbench.report.table import Cell, Column, Row, Table, row
from kvbench.report.tables.metrics import SHOWN
from kvbench.report.text import DASH, short_word, value_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvbench.analysis.comparison_types import ComparedFigure, Difference, ResultComparison
    from kvbench.report.table import Mark

_MARKS: dict[str, Mark] = {"slower": "invalid", "lower": "invalid", "faster": "valid", "higher": "valid"}
_LEFT_OUT = ("ttft_max",)  # in the JSON
_MOST_FACTS = 3  # of a group that are named; more would bury the others
_COMMIT = re.compile("[0-9a-f]{40}")
_MAY_BE_NONE = ("slo.", "calibration.", "setting.tiers.")  # where nothing is a setting too


def differing_questions(comparison: ResultComparison) -> Table | None:
    """Return one row for each part of the question that was asked differently; None where there is none."""
    title = "Asked differently: the figures below are not of one question"
    return _differences("differing_questions", title, comparison.question)


def differing_facts(comparison: ResultComparison) -> Table | None:
    """Return one row for each fact that both tell and that differs; None where there is none."""
    both = [one for one in comparison.facts if not is_one_sided(one)]
    return _differences("differing_facts", "What differed around them", both)


def is_one_sided(difference: Difference) -> bool:
    """Tell whether only one of the results tells this fact: an older one has less."""
    return None in (difference.base, difference.other) and not difference.name.startswith(_MAY_BE_NONE)


def _differences(name: str, title: str, differences: Sequence[Difference]) -> Table | None:
    if not differences:
        return None
    columns = (
        Column("name", "", kind="long", is_key=True),
        Column("base", "A", kind="long"),
        Column("other", "B", kind="long"),
    )
    return Table(name, title, columns, tuple(row(one.name, _fact(one.base), _fact(one.other)) for one in differences))


def _fact(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        short = ", ".join(f"{key} {item}" for key, item in value.items() if not isinstance(item, dict | list))
        return short if len(value) <= _MOST_FACTS else f"{len(value)} facts, in the JSON"
    return str(value)[:12] if _COMMIT.fullmatch(str(value)) else str(value)


def compared_figures(comparison: ResultComparison) -> Table:
    """Return one row for each figure that at least one side has; each value is in the unit of its metric."""
    columns = (
        Column("figure", "figure", kind="name", is_key=True),
        Column("treatment", "treatment", kind="name", is_key=True),
        Column("prompt_tokens", "tokens", "length", is_key=True),
        Column("base", "A", "number"),
        Column("other", "B", "number"),
        Column("ratio", "B / A", "number"),
        Column("interval", "95 % interval", "number"),
        Column("said", "said", kind="text"),
    )
    rows: list[Row] = []
    before = ""
    for one in shown_figures(comparison.figures):
        rows.append(_row(one, is_repeated=one.metric == before))
        before = one.metric
    return Table("compared_figures", "What changed: B over A", columns, tuple(rows))


def shown_figures(figures: Sequence[ComparedFigure]) -> list[ComparedFigure]:
    """Return what the table holds: TTFT at each length, other figures over all of them; none that no side has."""
    rows = []
    for name in (name for name in SHOWN if name not in _LEFT_OUT):
        own = [one for one in figures if one.metric == name]
        rows += [one for one in own if (one.is_length if name == "ttft_p50" else one.length is None)]
    return [one for one in rows if one.base.value or one.other.value]


def _row(figure: ComparedFigure, *, is_repeated: bool) -> Row:
    metric = METRICS[figure.metric]
    base, other = figure.over_rounds or (figure.base.value, figure.other.value)
    has_interval = figure.low is not None and figure.high is not None
    return row(
        Cell(metric.label, mark="repeated" if is_repeated else "key"),
        figure.treatment,
        Cell(figure.length, text="all" if figure.length is None else None),
        Cell(base, text=value_text(metric.unit, base)),
        Cell(other, text=value_text(metric.unit, other)),
        Cell(figure.ratio, text=None if figure.ratio is None else f"{figure.ratio:.3f}"),
        Cell(
            text=f"{figure.low:.3f}{DASH}{figure.high:.3f}" if has_interval else None, low=figure.low, high=figure.high
        ),
        Cell(figure.word, text=short_word(figure.word), mark=_MARKS.get(figure.word, "")),
    )
