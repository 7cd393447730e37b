"""The steps to each cache state, with their evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Row, Table, row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.analysis.summary_types import RunSummary, Summary
    from kvbench.report.report_input import ReportInput
    from kvbench.report.table import Mark
    from kvbench.result.run_record import Step

_FINE = ("proven", "done")


def steps(given: ReportInput) -> Table | None:
    """Return the steps of a run that stands for each treatment, and every step that was neither proven nor done.

    Treatments whose runs took the same steps with the same outcomes stand together. None for an import.
    """
    if given.summary.imported is not None:
        return None
    columns = (
        Column("treatments", "Treatments", kind="name", is_key=True),
        Column("cache_state", "Cache state", kind="text", priority=2),
        Column("run", "Run", kind="name", priority=2),
        Column("step", "Step", kind="text"),
        Column("outcome", "Outcome", kind="text"),
        Column("evidence", "Evidence", kind="long"),
    )
    typical = {run.run_id: treatments for treatments, run in _typical_runs(given)}
    rows = [line for run in given.summary.runs if run.run_id in typical for line in _rows(run, typical[run.run_id])]
    for run in given.summary.runs:
        if run.run_id not in typical:
            rows += _rows(run, [run.treatment], only_odd=True)
    notes = (
        (
            "Of each treatment the first run that is used; of all others the steps that were neither proven nor done"
            f"{'' if has_odd_steps(given.summary) else ': there is none'}."
        ),
    )
    return Table("steps", "Steps to the cache states", columns, tuple(rows), notes)


def has_odd_steps(summary: Summary) -> bool:
    """Tell whether a step of any run was neither proven nor done."""
    return any(step.outcome not in _FINE for run in summary.runs for step in run.cache_steps)


def _typical_runs(given: ReportInput) -> Iterator[tuple[list[str], RunSummary]]:
    """Yield the run that stands for some treatments, with their names."""
    found: dict[tuple[object, ...], tuple[list[str], RunSummary]] = {}
    for name in given.summary.treatments:
        runs = given.runs_of(name)
        if runs:
            run = next((run for run in runs if run.verdict != "invalid"), runs[0])
            alike = (run.cache_state, tuple((step.name, step.outcome) for step in run.cache_steps))
            found.setdefault(alike, ([], run))[0].append(name)
    yield from found.values()


def _rows(run: RunSummary, treatments: list[str], *, only_odd: bool = False) -> Iterator[Row]:
    found = [step for step in run.cache_steps if not only_odd or step.outcome not in _FINE]
    for number, step in enumerate(found):
        mark: Mark = "repeated" if number else "key"
        keys = [Cell(", ".join(treatments), mark=mark), Cell(run.cache_state, mark="repeated" if number else "")]
        place = Cell(run.run_id, mark="repeated" if number else "")
        yield row(*keys, place, step.name, _outcome(step), step.evidence, mark="" if number else "begin")


def _outcome(step: Step) -> Cell:
    marks: dict[str, Mark] = {"proven": "valid", "done": "", "failed": "invalid"}
    return Cell(step.outcome, mark=marks.get(step.outcome, "suspect"))
