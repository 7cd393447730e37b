"""The reasons of all verdicts, each kind once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvbench.analysis.summary_types import Summary
    from kvbench.result.verdict import Reason

_FIGURES = re.compile(r"[\d.,]+")
_ORDER = ("invalid", "suspect", "note")


def grouped_reasons(summary: Summary) -> list[tuple[Reason, list[str]]]:
    """Return each kind of reason once, worst first, with the runs and treatments that it holds for.

    Reasons that differ in nothing but their figures are of one kind: the list of all runs has each with its own.
    """
    owners = [(run.run_id, run.reasons) for run in summary.runs]
    owners += [(name, item.reasons) for name, item in summary.treatments.items()]
    found: dict[str, tuple[Reason, list[str]]] = {}
    for owner, reasons in owners:
        for reason in reasons:
            if reason.rule != "suspect rounds":  # the rounds' own reasons stand beside it
                kind = _FIGURES.sub("", f"{reason.level} {reason.rule} {reason.text}")
                known = found.setdefault(kind, (reason, []))[1]
                known += [owner] if owner not in known else []
    return sorted(found.values(), key=lambda listed: _ORDER.index(listed[0].level))


def owners_text(owners: list[str]) -> str:
    """Name the first run that a reason holds for, and those for which it holds with figures of their own."""
    first, *others = owners
    return f"{first}; likewise, with figures of their own: {', '.join(others)}" if others else first
