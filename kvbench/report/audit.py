"""Shows an audit: findings first, each with its arithmetic, then what was checked and what is not stated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from kvbench.audit import result_claims, rules
from kvbench.audit.findings import MEANINGS, SEVERITIES
from kvbench.report.render.to_rich import print_table
from kvbench.report.tables.audit import audit_findings, audit_rules

if TYPE_CHECKING:
    from rich.console import Console

    from kvbench.audit.findings import Audit, Check, Severity
    from kvbench.report.report_input import ReportInput

_STYLES = {"conflict": "bold red", "unsupported": "bold yellow", "missing": "bold cyan", "note": "bold"}
_QUIET: tuple[Severity, ...] = ("missing", "note")  # told in one line each, after the findings


def sentence(audit: Audit) -> str:
    """Say in one line how many checks there were, what they found, and what stands beside the findings."""
    conflicts, unsupported, missing, notes = (len(audit.of(severity)) for severity in SEVERITIES)
    kinds = [_count(conflicts, "conflict"), _count(unsupported, "unsupported claim")]
    found = _count(len(audit.findings), "finding") or "0 findings"
    found += f" ({' and '.join(filter(None, kinds))})" if audit.findings else ""
    beside = " and ".join(filter(None, [f"{missing} not stated" if missing else "", _count(notes, "note")]))
    said = f"{_count(audit.evaluated, 'check')}, {found}" if audit.evaluated else "nothing could be checked"
    return f"{said}; {beside}" if beside else said


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}" if number else ""


def print_audit(audit: Audit, console: Console) -> None:
    """Print findings with their arithmetic, then notes, what is not stated, and which rules were held."""
    console.print(Text(audit.title, style="bold"))
    console.print(Text(sentence(audit)))
    if (findings := audit_findings(audit)) is not None:
        print_table(findings, console)
    for number, check in enumerate(audit.findings, 1):
        _print_finding(number, check, console)
    for severity in _QUIET:
        if checks := [check for check in audit.checks if check.severity == severity]:
            console.print()
            console.print(Text.assemble((severity, _STYLES[severity]), f": {MEANINGS[severity]}"))
            for check in checks:
                console.print(Padding(Text(f"{check.claim}: {_in_short(check)}"), (0, 0, 0, 2)), highlight=False)
    console.print()
    print_table(audit_rules(audit), console)


def print_findings(audit: Audit, console: Console) -> None:
    """Print one line for an audit, and the findings if there are any: what `run` ends with."""
    console.print(Text(f"audit: {sentence(audit)}", style="dim" if not audit.findings else ""))
    for number, check in enumerate(audit.findings, 1):
        _print_finding(number, check, console)


def _print_finding(number: int, check: Check, console: Console) -> None:
    console.print()
    severity = check.severity or ""
    console.print(Text.assemble(f"{number} ", (severity, _STYLES.get(severity, "")), f"  {check.claim}"))
    console.print(Padding(Text(f"in: {'; '.join(check.where)}", style="dim"), (0, 0, 0, 2)))
    for line in check.arithmetic:
        console.print(Padding(Text(line), (0, 0, 0, 4)))
    console.print(Padding(Text.assemble(("instead: ", "bold"), check.instead), (0, 0, 0, 2)))


def _in_short(check: Check) -> str:
    """Return the last line of the arithmetic that computes something, and what follows from it."""
    computed = [line for line in check.arithmetic if not line.startswith("printed")]
    return computed[-1] if check.severity == "missing" else f"{computed[-1]}; {check.instead}"


@dataclass(frozen=True, slots=True)
class AuditSection:
    """What the page shows of an audit: its sentence, findings, notes, and how often each rule held."""

    sentence: str
    findings: tuple[Check, ...]
    notes: tuple[Check, ...]
    held: dict[str, int]


def section(given: ReportInput) -> AuditSection | None:
    """Audit the result of a report by the rules for published figures; None where only its summary is known."""
    if given.result is None:
        return None
    one = rules.examine(result_claims.lay_out(given.result, given.summary))
    return AuditSection(
        sentence=sentence(one),
        findings=tuple(one.findings),
        notes=tuple(check for check in one.checks if check.severity in _QUIET),
        held={rule: count for rule, count in one.held.items() if count},
    )
