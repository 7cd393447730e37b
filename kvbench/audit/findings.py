"""The result of an audit: each check with its arithmetic, whether it holds, and what would have to be true instead."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvbench.publications.claims_file import Document, Figure

Severity = Literal["conflict", "unsupported", "missing", "note"]
SEVERITIES: tuple[Severity, ...] = ("conflict", "unsupported", "missing", "note")
MEANINGS: dict[Severity, str] = {
    "conflict": "printed figures that cannot all hold",
    "unsupported": "more than the number of values or the design can carry",
    "missing": "needed to judge a claim, and not stated",
    "note": "worth knowing, contradicts nothing",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One evaluation of a rule; `severity` is None where it holds.

    `arithmetic` is written out line by line with the numbers, `instead` says what would have to be true, and `cells` is
    how many cells of the document were evaluated together.
    """

    rule: str
    claim: str
    where: tuple[str, ...]
    arithmetic: tuple[str, ...]
    severity: Severity | None = None
    instead: str = ""
    cells: int = 1


@dataclass(frozen=True, slots=True)
class Audit:
    """All checks on one document. A finding is a conflict or something unsupported."""

    name: str
    title: str
    checks: tuple[Check, ...]

    def of(self, *severities: Severity) -> list[Check]:
        """Return the checks of these severities, worst first."""
        return [check for severity in severities for check in self.checks if check.severity == severity]

    @property
    def findings(self) -> list[Check]:
        """What speaks against the document."""
        return self.of("conflict", "unsupported")

    @property
    def evaluated(self) -> int:
        """How many evaluations there were, without what is only a list of what is missing."""
        return sum(check.cells for check in self.checks if check.severity != "missing")

    @property
    def held(self) -> Counter[str]:
        """How many evaluations of each rule spoke against nothing."""
        counted: Counter[str] = Counter()
        for check in self.checks:
            counted[check.rule] += check.cells if check.severity in (None, "note") else 0
        return counted

    def reaches(self, severity: Severity) -> bool:
        """Whether some check is of this severity or a worse one."""
        return bool(self.of(*SEVERITIES[: SEVERITIES.index(severity) + 1]))

    def to_json(self) -> dict[str, Any]:
        """Return the audit as plain JSON values."""
        counts = {severity: len(self.of(severity)) for severity in SEVERITIES}
        return {
            "name": self.name,
            "title": self.title,
            "evaluated": self.evaluated,
            "findings": len(self.findings),
            "by_severity": counts,
            "held_by_rule": {rule: count for rule, count in sorted(self.held.items()) if count},
            "checks": [asdict(check) for check in self.checks],
        }


def sections(*figures: Figure | None) -> tuple[str, ...]:
    """Return the sections that figures stand in, each once, in the order given."""
    return tuple(dict.fromkeys(figure.section for figure in figures if figure is not None and not figure.background))


def listed(names: Iterable[str]) -> str:
    """Join names for a sentence: "a, b and c"."""
    *most, last = dict.fromkeys(names)
    return f"{', '.join(most)} and {last}" if most else last


def assumption(document: Document) -> tuple[str, ...]:
    """Return why this shape of the model is taken, where the document does not name the model."""
    model = document.claims.model
    return (f"assumed: {model.assumed}",) if model and model.assumed else ()


def token_bytes(document: Document) -> list[tuple[str, float]]:
    """Return how many bytes of KV a token may take in the stated type, with the arithmetic; largest first."""
    shape, model = document.shape, document.claims.model
    if shape is None or model is None:
        return []
    per_layer = f"2 x {shape.kv_heads} heads x {shape.head_dim} x {model.kv_dtype_bytes:g} bytes"
    scale = model.kv_dtype_bytes / shape.dtype_bytes
    layers = shape.full_layers + shape.sliding_layers
    variants = [(f"all {layers} layers", layers, shape.kv_bytes_per_token * scale)]
    if shape.sliding_layers:
        full = shape.full_layers
        variants.append((f"the {full} full-attention layers", full, shape.kv_bytes_per_token_full_layers * scale))
    return [(f"{name}: {count} x {per_layer} = {size:,.0f} bytes a token", size) for name, count, size in variants]
