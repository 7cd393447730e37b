"""An audit's checks: findings first, then notes, what is not stated, and how often each rule held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Row, Table, row

if TYPE_CHECKING:
    from kvbench.audit.findings import Audit, Check
    from kvbench.report.table import Mark

_MARKS: dict[str, Mark] = {"conflict": "invalid", "unsupported": "suspect"}


def audit_findings(audit: Audit) -> Table | None:
    """Return one row for each finding, numbered as they are told; None where there is none."""
    if not audit.findings:
        return None
    columns = (
        Column("number", "", "count", is_key=True),
        Column("severity", "Severity", kind="text"),
        Column("rule", "Rule", kind="text"),
        Column("claim", "Claim", kind="long"),
    )
    rows = tuple(_row(number, check) for number, check in enumerate(audit.findings, 1))
    return Table("audit_findings", "Findings", columns, rows)


def _row(number: int, check: Check) -> Row:
    severity = check.severity or ""
    return row(number, Cell(severity, mark=_MARKS.get(severity, "")), check.rule, check.claim)


def audit_rules(audit: Audit) -> Table:
    """Return one row for each rule that was evaluated: how often it held, and how often it did not."""
    columns = (
        Column("rule", "Rule", kind="name", is_key=True),
        Column("held", "Held", "count", "higher"),
        Column("findings", "Findings", "count", "lower"),
    )
    found = {rule: sum(check.rule == rule for check in audit.findings) for rule in audit.held}
    rows = tuple(
        row(rule, count, Cell(found[rule], text=None if found[rule] else "-"))
        for rule, count in audit.held.items()
        if count or found[rule]
    )
    return Table("audit_rules", "Checks that hold", columns, rows)
