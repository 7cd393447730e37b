"""An audit as people read it: findings first, each with its arithmetic, then what was held and what is not stated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kvbench.audit import result_claims, rules
from kvbench.audit.outcome import MEANINGS, SEVERITIES

if TYPE_CHECKING:
    from rich.console import Console

    from kvbench.audit.outcome import Audit, Check, Severity
    from kvbench.report.report_input import ReportInput

_STYLES = {"conflict": "bold red", "unsupported": "bold yellow", "missing": "bold cyan", "note": "bold"}
_QUIET: tuple[Severity, ...] = ("missing", "note")  # told in one line each, after the findings


def sentence(one: Audit) -> str:
    """Say in one line how many checks there were, what they found, and what stands beside the findings."""
    conflicts, unsupported, missing, notes = (len(one.of(severity)) for severity in SEVERITIES)
    kinds = [_count(conflicts, "conflict"), _count(unsupported, "unsupported claim")]
    found = _count(len(one.findings), "finding") or "0 findings"
    found += f" ({' and '.join(filter(None, kinds))})" if one.findings else ""
    beside = " and ".join(filter(None, [f"{missing} not stated" if missing else "", _count(notes, "note")]))
    said = f"{_count(one.evaluated, 'check')}, {found}" if one.evaluated else "nothing could be checked"
    return f"{said}; {beside}" if beside else said


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}" if number else ""


def print_audit(one: Audit, console: Console) -> None:
    """Print findings with their arithmetic, then notes, what is not stated, and which rules were held."""
    console.print(Text(one.title, style="bold"))
    console.print(Text(sentence(one)))
    if one.findings:
        console.print(_overview(one))
    for number, check in enumerate(one.findings, 1):
        _print_finding(number, check, console)
    for severity in _QUIET:
        if checks := [check for check in one.checks if check.severity == severity]:
            console.print()
            console.print(Text.assemble((severity, _STYLES[severity]), f": {MEANINGS[severity]}"))
            for check in checks:
                console.print(Padding(Text(f"{check.claim}: {_in_short(check)}"), (0, 0, 0, 2)), highlight=False)
    console.print()
    console.print(_held(one))


def print_findings(one: Audit, console: Console) -> None:
    """Print one line for an audit, and the findings if there are any: what `run` ends with."""
    console.print(Text(f"audit: {sentence(one)}", style="dim" if not one.findings else ""))
    for number, check in enumerate(one.findings, 1):
        _print_finding(number, check, console)


def _overview(one: Audit) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("", "severity", "rule", "claim"):
        table.add_column(heading, justify="right" if not heading else "left", overflow="fold")
    for number, check in enumerate(one.findings, 1):
        severity = check.severity or ""
        table.add_row(str(number), Text(severity, style=_STYLES.get(severity, "")), check.rule, Text(check.claim))
    return table


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


def _held(one: Audit) -> Table:
    table = Table(title="checks that hold", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("rule")
    table.add_column("held", justify="right")
    table.add_column("findings", justify="right")
    found = {rule: sum(check.rule == rule for check in one.findings) for rule in one.held}
    for rule, count in one.held.items():
        if count or found[rule]:
            table.add_row(rule, str(count), str(found[rule]) if found[rule] else "-")
    return table


def section(given: ReportInput) -> dict[str, Any] | None:
    """Audit the result of a report by the rules for published figures; what the template shows of it."""
    if given.result is None:
        return None
    one = rules.examine(result_claims.lay_out(given.result, given.summary))
    return {
        "sentence": sentence(one),
        "findings": one.findings,
        "notes": [check for check in one.checks if check.severity in _QUIET],
        "held": [(rule, count) for rule, count in one.held.items() if count],
    }
