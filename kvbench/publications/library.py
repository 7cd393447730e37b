"""Reads the published documents that come with kvbench, and the curves and rows of them that scenarios reproduce."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from kvbench.publications import claims_file, index

if TYPE_CHECKING:
    from kvbench.publications.claims_file import Document
    from kvbench.publications.printed_figure import Printed


@dataclass(frozen=True)
class PublishedCurve:
    """One published curve of TTFT against prompt length: printed points, and a formula fitted to them."""

    treatment: str
    printed: dict[int, float]
    derived: dict[str, Any]

    def at(self, tokens: int) -> tuple[float, str]:
        """Return the figure in seconds and where it is from: `printed`, or `derived` by the fitted formula."""
        if tokens in self.printed:
            return self.printed[tokens], "printed"
        constant, linear, quadratic = (float(self.derived.get(key, 0.0)) for key in ("constant", "linear", "quadratic"))
        return constant + linear * tokens + quadratic * tokens**2, "derived"


@dataclass(frozen=True)
class PublishedRow:
    """Printed figures for treatments of these names: by our metric what is printed, and its value.

    `against` is the row that the document compares it with.
    """

    name: str
    treatments: tuple[str, ...]
    printed: dict[str, Printed]
    against: str | None

    def value(self, metric: str) -> float | None:
        """Return a printed figure in SI units, None where none is printed."""
        return self.printed[metric].rounded.middle if metric in self.printed else None


@dataclass(frozen=True)
class Publication:
    """The part of a document that a scenario reproduces: curves over prompt length, or rows of figures.

    `ratios` tells how rows are compared, as `times` or as a `change` in percent; `remarks` are kvbench's own.
    """

    title: str
    section: str
    curves: dict[str, PublishedCurve] = field(default_factory=dict)
    speed_up: dict[int, float] = field(default_factory=dict)
    rows: tuple[PublishedRow, ...] = ()
    ratios: Literal["times", "change"] = "times"
    remarks: tuple[str, ...] = ()


def document(name: str) -> Document:
    """Read a published document.

    Raises:
        ResultError: there is no such document; the message lists what there is.

    """
    return claims_file.parse(index.text_of(name), name)


def load(reference: str) -> Publication:
    """Read `document/section`, for example `ibm-storage-scale/benchmark-1`.

    Raises:
        ResultError: there is no such document or section; the message lists what there is.

    """
    name, section = index.check(reference)
    found = document(name)
    return _with_curves(found, section) if section in found.claims.curves else _with_rows(found, section)


def _with_curves(source: Document, section: str) -> Publication:
    content = source.claims.curves[section]
    curves = {
        treatment: PublishedCurve(
            treatment,
            {at: float(text) for at, text in points.printed.items()},
            {key: value if key == "formula" else float(value) for key, value in points.derived.items()},
        )
        for treatment, points in content.treatments.items()
    }
    return Publication(source.claims.title, content.section, curves, content.speed_up)


def _with_rows(source: Document, section: str) -> Publication:
    content = source.claims.scenario_rows[section]
    rows = tuple(
        PublishedRow(
            name,
            row.treatments,
            {metric: source.figure(ref).printed for metric, ref in row.figures.items()},
            row.against or None,
        )
        for name, row in content.rows.items()
    )
    return Publication(source.claims.title, content.section, rows=rows, ratios=content.ratios, remarks=content.remarks)
