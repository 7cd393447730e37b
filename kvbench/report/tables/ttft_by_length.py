"""The tables of TTFT by prompt length: measured, at full scale, and published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Row, Table, figure_cell, ratio_cell, row
from kvbench.report.text import (
    bare_refusal,
    counted,
    mark_note,
    marked,
    ratio,
    short_word,
    tiers_text,
    turn_text,
)
from kvbench.result.run_record import named_tier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.analysis.summary_types import Figure, JudgedRatio, LengthCell, LengthRow, Summary
    from kvbench.report.report_input import ReportInput
    from kvbench.report.table import RowMark


_COMPARED = (
    Column("speed_up", "Speed-up", "ratio", "higher"),
    Column("difference", "Difference", kind="text"),
)


def ttft_by_length(given: ReportInput) -> Table:
    """Return one row for each length and treatment; a cell without a figure says why there is none."""
    summary = given.summary
    compared = is_compared(summary)
    columns = (
        *key_columns(summary),
        Column("n", "n", "count"),
        Column("ttft_p50", "Median TTFT", "s", "lower", interval_priority=3),
        Column("ttft_min", "Minimum", "s", "lower", priority=5),
        Column("ttft_max", "Maximum", "s", "lower", priority=4),
        Column("ttft_p95", "P95", "s", "lower", priority=5),
        Column("ttft_p99", "P99", "s", "lower", priority=5),
        Column("served_from", "Served from", kind="text", priority=3),
        *((Column("as_named", "As named", "share", priority=6),) if summary.imported is None else ()),
        *(
            (Column("speed_up", "Speed-up", "ratio", "higher"), Column("difference", "Difference", kind="text"))
            if compared
            else ()
        ),
    )
    rows = tuple(_row(given, length, name) for length, name in places(summary))
    return Table("ttft_by_length", "TTFT by prompt length", columns, rows, tuple(_notes(summary)))


def is_compared(summary: Summary) -> bool:
    """Tell whether any treatment has a baseline."""
    return any(base is not None for base in summary.baselines.values())


def places(summary: Summary) -> Iterator[tuple[LengthRow, str]]:
    """Yield each length with each treatment."""
    for length in summary.lengths:
        for name in length.cells:
            yield length, name


def key_columns(summary: Summary) -> tuple[Column, ...]:
    """Return the columns that say what a row is."""
    turn = (Column("turn", "Turn", "count", is_key=True),) if summary.turns else ()
    length = Column("prompt_tokens", "Tokens", "length", is_key=True)
    return (length, *turn, Column("treatment", "Treatment", kind="name", is_key=True))


def key_cells(summary: Summary, length: LengthRow, treatment: str) -> tuple[tuple[Cell, ...], RowMark]:
    """Return the cells that say what a row is, and the row's mark: the length stands out where it is a new one."""
    is_first = treatment == next(iter(length.cells))
    isl = Cell(length.isl, text="all" if length.isl is None else None, mark="key" if is_first else "repeated")
    number = None if length.turn is None else length.turn + 1
    turn = Cell(number, text=turn_text(length.turn), mark="quiet" if is_first else "repeated")
    name = Cell(treatment, text=marked(treatment, summary))
    return (isl, *((turn,) if summary.turns else ()), name), "begin" if is_first else ""


def _row(given: ReportInput, length: LengthRow, name: str) -> Row:
    summary, cell = given.summary, length.cells[name]
    keys, mark = key_cells(summary, length, name)
    if cell.median_s is None:
        reason = Cell(refusal="not proven" if cell.unproven else _why_empty(given, name), mark="invalid")
        figures = [reason, *[Cell()] * 5]
    else:
        figures = [
            figure_cell(cell.ttft["p50"], value=cell.median_s, mark="key"),
            Cell(cell.min_s),
            Cell(cell.max_s),
            _tail(cell.ttft["p95"]),
            _tail(cell.ttft["p99"]),
            _served_cell(cell),
        ]
    if summary.imported is None:
        figures.append(_as_named(summary, cell, name))
    if is_compared(summary):
        figures += _speed_up(cell, is_baseline=summary.baselines[name] is None)
    return row(*keys, _count(given, length, name), *figures, mark=mark)


def _tail(figure: Figure) -> Cell:
    """Show a percentile, or in few words why n supports none."""
    if figure.value is None and figure.refusal is not None:
        return figure_cell(figure, text=bare_refusal(figure.refusal))
    return figure_cell(figure)


def _count(given: ReportInput, length: LengthRow, name: str) -> Cell:
    """Show n, and beside it the planned number where some requests are missing, failed, or of an invalid run."""
    n, planned = length.cells[name].n, _planned(given, name, length.isl)
    return Cell(n) if n == planned else Cell(n, text=f"{n} of {planned}", mark="suspect")


def _planned(given: ReportInput, name: str, isl: int | None) -> int:
    """Return how many requests of one length were planned; of an import, how many runs that are used sent."""
    if given.summary.imported is None:
        runs = [run for run in given.plan.runs if run.treatment == name]
        return sum(run.requests if isl is None else run.requests_by_length.get(isl, 0) for run in runs)
    used = [run for run in given.runs_of(name) if run.verdict != "invalid"]
    if isl is None:
        return sum(run.requests for run in used)
    found = given.requests.frame(["run_id", "length"])
    return int(((found["length"] == isl) & found["run_id"].isin([run.run_id for run in used])).sum())


def _why_empty(given: ReportInput, name: str) -> str:
    runs = given.runs_of(name)
    if not runs:
        return "no run is done yet"
    return "no valid run" if all(run.verdict == "invalid" for run in runs) else "no request answered"


def _served_cell(cell: LengthCell) -> Cell:
    """Show the share of each tier; marked where anything is unproven or mixed, with the counts below."""
    total = sum(cell.tiers.values())
    several = [f"{tier} {count} of {total}" for tier, count in cell.tiers.items()] if len(cell.tiers) > 1 else []
    odd = {"unproven", "mixed"} & set(cell.tiers)
    return Cell(tiers_text(cell.tiers) or None, below=", ".join(several), mark="suspect" if odd else "")


def _as_named(summary: Summary, cell: LengthCell, name: str) -> Cell:
    """Show the share that was served from the tier, or computed, as the treatment says."""
    total = sum(cell.tiers.values())
    tier = named_tier(summary.treatments[name].cache_state)
    return Cell(cell.tiers.get(tier, 0) / total if total and cell.median_s is not None else None)


def _speed_up(cell: LengthCell, *, is_baseline: bool) -> list[Cell]:
    """Show a speed-up and what may be said of it; below, the rounds, and what they span where there is no interval."""
    judged = cell.comparison
    if is_baseline or judged is None or judged.ratio is None:
        return [
            Cell(refusal="baseline" if is_baseline else "no shared round", mark="quiet"),
            Cell(mark="quiet", text=""),
        ]
    return [ratio_cell(judged, below=_seen(judged)), Cell(judged.word, text=short_word(judged.word))]


def _seen(judged: JudgedRatio) -> str:
    rounds = counted(judged.rounds, "round")
    if judged.low is None and judged.least is not None and judged.most is not None and judged.rounds > 1:
        return f"{ratio(judged.least)} to {ratio(judged.most)} seen in {rounds}"
    return rounds


def _notes(summary: Summary) -> Iterator[str]:
    if summary.imported is not None:
        yield "Figures are those of the tool that measured. Failed requests are in no figure."
    else:
        yield "Invalid runs and failed requests are in no figure: where they were left out, n is less than was planned."
        yield "As named: share served from the tier, or computed, as the treatment says."
    yield from mark_note(summary)
    if any(cell.ttft["p50"].high is not None for length in summary.lengths for cell in length.cells.values()):
        yield "Intervals of 95 %: of TTFT over requests, \N{LESS-THAN OR EQUAL TO} is an upper bound alone."
    if is_compared(summary):
        yield "Speed-up: over rounds. Difference: what may be said of it, with Holm's correction."
        others = {name: base for name, base in summary.baselines.items() if base not in (None, summary.baseline)}
        if others:
            yield f"Speed-up of {', '.join(f'{name} over {base}' for name, base in others.items())}."
