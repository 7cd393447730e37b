"""The tables of the tier proof: which tiers served each treatment, and the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Row, Table, row
from kvbench.report.text import SPACE, counted, difference, tiers_text
from kvbench.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.analysis.summary_types import Summary, TreatmentSummary
    from kvbench.report.report_input import ReportInput


def proof(given: ReportInput) -> Table | None:
    """Return one row for each treatment; columns that say nothing of any of them are left out. None for an import."""
    summary = given.summary
    if summary.imported is not None:
        return None
    cells = [dict(_cells(given, name, item)) for name, item in summary.treatments.items()]
    columns = [column for column in _columns(summary) if any(not _is_empty(own[column.name]) for own in cells)]
    rows = tuple(_row(own, columns) for own in cells)
    return Table("proof", "Proof: which tier served the requests", tuple(columns), rows, _NOTES, is_turned=True)


_NOTES = (
    "Every source that is there must agree, or a request is unproven.",
    "Without cached tokens or hit counters it always is.",
    "The kernel's count needs the server's process on this host; the prompts' files, those of the primed tier, a path.",
    "Percentages are differences from the tier's own count. Totals over all runs that are used.",
)


def _columns(summary: Summary) -> Iterator[Column]:
    yield Column("treatment", "Treatment", kind="name", is_key=True)
    yield Column("cache_state", "Cache state", kind="text")
    yield Column("runs_used", "Runs used", "count")
    yield Column("served_from", "Served from", kind="text")
    yield Column("cached_tokens", "Cached tokens", "tokens")
    yield Column("expected_cached_tokens", "Expected cached tokens", "tokens")
    yield Column("hit_efficiency", "Hit efficiency", "fraction")
    yield Column("read_bytes", "Bytes read, tier's count", "bytes")
    yield Column("process_read_bytes", "Bytes read, kernel's count", "bytes")
    yield Column("manifest_bytes", "Bytes of the prompts' files", "bytes")
    yield Column("storage_bytes_per_s", "Storage rate, median", "bytes/s", "higher")
    yield Column("full_scale_bytes_per_s", "Storage rate at full scale", "bytes/s", "higher")
    yield Column("ledger", "Ledger", kind="text")
    yield Column("overrun", "Emulator ran over, of TTFT", "share", "lower")
    yield Column("answers_match", "Answers as recomputed", "share", "higher")
    if summary.slo.ttft is not None:
        scaled = " at full scale" if summary.scale else ""
        yield Column("slo_attainment", f"TTFT within {format_duration(summary.slo.ttft)}{scaled}", "share", "higher")
    longest = summary.lengths[-1].isl
    if longest is not None:
        yield Column("recompute_over_load", f"Recompute / load at {format_count(longest)}", "number")
    yield Column("verdict", "Verdict", kind="text")


def _cells(given: ReportInput, name: str, item: TreatmentSummary) -> Iterator[tuple[str, Cell]]:
    summary, rate = given.summary, item.storage_bytes_per_s
    scale = summary.scale.bytes / summary.scale.time if summary.scale else None
    all_used = item.runs_used == item.runs
    yield "treatment", Cell(name, mark="key")
    yield "cache_state", Cell(item.cache_state, refusal="no run is done yet" if item.cache_state is None else None)
    used = f"{item.runs_used} of {item.runs}"
    yield "runs_used", Cell(item.runs_used, text=used, mark="" if all_used else "suspect")
    yield "served_from", _served(item)
    yield "cached_tokens", Cell(item.cached_tokens, refusal="not reported" if item.cached_tokens is None else None)
    yield "expected_cached_tokens", Cell(item.expected_cached_tokens or None)
    yield "hit_efficiency", Cell(item.hit_efficiency)
    yield "read_bytes", _tier_count(item)
    yield "process_read_bytes", _compared(item.process_read_bytes, item.read_bytes, "not readable")
    yield "manifest_bytes", _compared(item.expected_read_bytes, item.read_bytes, "no manifest")
    yield "storage_bytes_per_s", Cell(rate)
    yield "full_scale_bytes_per_s", Cell(rate * scale if rate is not None and scale is not None else None)
    yield "ledger", _ledger(given, name)
    yield "overrun", Cell(item.overrun_share)
    yield "answers_match", Cell(item.answers_match)
    yield "slo_attainment", Cell(item.slo_attainment)
    yield "recompute_over_load", Cell(summary.lengths[-1].cells[name].recompute_over_load)
    yield "verdict", Cell(item.verdict, mark=item.verdict)


def _is_empty(cell: Cell) -> bool:
    return cell.value is None and cell.refusal is None and not cell.text


def _row(cells: dict[str, Cell], columns: list[Column]) -> Row:
    return row(*(cells[column.name] for column in columns))


def _served(item: TreatmentSummary) -> Cell:
    if not item.runs_used:
        return Cell(refusal="no valid run", mark="invalid")
    odd = {"unproven", "mixed"} & set(item.tiers)
    return Cell(tiers_text(item.tiers) or "nothing", mark="suspect" if odd else "")


def _tier_count(item: TreatmentSummary) -> Cell:
    if item.read_bytes is None:
        return Cell(refusal="no counter", mark="quiet")
    return Cell(item.read_bytes, below=f"{item.read_bytes:,.0f}{SPACE}B" if item.read_bytes >= 1000 else "")


def _compared(count: float | None, tier_count: float | None, missing: str) -> Cell:
    """Show a byte count and, below it, by how much it differs from the tier's own count where there is one."""
    if count is None:
        return Cell(refusal=missing, mark="quiet")
    return Cell(count, below=difference(count, tier_count) if tier_count else "")


def _ledger(given: ReportInput, name: str) -> Cell:
    """Say in how many runs answers, counters and bytes agree; below, the first gap where they do not."""
    ledgers = [run.ledger for run in given.runs_of(name)]
    gaps = [ledger.gap for ledger in ledgers if ledger.gap]
    if gaps:
        return Cell(f"open in {len(gaps)} of {len(ledgers)} runs", below=gaps[0], mark="suspect")
    return Cell(f"closes in {counted(len(ledgers), 'run')}") if ledgers else Cell()
