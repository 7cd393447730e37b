"""What stands in place of the proof for a result of another tool."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Row, Table, row
from kvbench.report.text import failures_text
from kvbench.result.records import sum_of_all

if TYPE_CHECKING:
    from kvbench.analysis.summary_types import Summary
    from kvbench.report.report_input import ReportInput


def imported(given: ReportInput) -> Table | None:
    """Return for each treatment what was answered, what failed and why, and what the server says that it reused.

    None for a result of our own.
    """
    if given.summary.imported is None:
        return None
    columns = (
        Column("treatment", "Treatment", kind="name", is_key=True),
        Column("runs", "Runs", "count"),
        Column("answered", "Answered", "count", "higher"),
        Column("failed", "Failed", kind="text"),
        Column("prompt_tokens", "Prompt tokens", "tokens"),
        Column("cached_tokens", "Cached tokens", "tokens"),
        Column("hit_rate", "Hit rate", "share", "higher"),
    )
    rows = tuple(_row(given, name) for name in given.summary.treatments)
    title = "Imported: no cache state was controlled, no tier is proven"
    return Table("imported", title, columns, rows, ("Failed requests are in no figure.",))


def _row(given: ReportInput, name: str) -> Row:
    runs = given.runs_of(name)
    causes: Counter[str] = Counter()
    for run in runs:
        causes.update(run.failures)
    failed = failures_text(dict(causes.most_common()))
    prompt = sum_of_all(run.ledger.prompt_tokens for run in runs)
    cached = sum_of_all(run.ledger.cached_tokens for run in runs)
    rate = cached / prompt if cached is not None and prompt else None
    return row(
        Cell(name, mark="key"),
        len(runs),
        sum(run.ok for run in runs),
        Cell(failed, mark="" if failed == "0" else "suspect"),
        Cell(prompt, refusal="not reported" if prompt is None else None),
        Cell(cached, refusal="not reported" if cached is None else None),
        Cell(rate, refusal="not known" if rate is None else None),
    )


def origin(summary: Summary) -> str:
    """Name the export that a result was made from."""
    about = summary.imported or {}
    version = f" {about['tool_version']}" if about.get("tool_version") else ", version not known"
    return f"{about['export']}{version}, {about['file']}"


def missing(summary: Summary) -> list[str]:
    """Return what an export lacks, a sentence each."""
    found = (summary.imported or {}).get("missing")
    return [str(one) for one in found] if isinstance(found, list) else []
