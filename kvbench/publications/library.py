"""The published documents that come with kvbench, and the curves and rows of them that scenarios reproduce."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

from kvbench.errors import ResultError
from kvbench.publications import claims_file

if TYPE_CHECKING:
    from kvbench.publications.claims_file import Document
    from kvbench.publications.printed_figure import Printed


_DOCUMENTS = resources.files("kvbench.publications") / "documents"


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


_DOCUMENTS = resources.files("kvbench.publications") / "documents"


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


_DOCUMENTS = resources.files("kvbench.publications") / "documents"


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


def names() -> list[str]:
    """Return the names of all published documents that kvbench knows."""
    entries = _DOCUMENTS.iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))


def document(name: str) -> Document:
    """Read a published document.

    Raises:
        ResultError: there is no such document; the message lists what there is.

    """
    known = names()
    if name not in known:
        raise ResultError(f"no published document {name}", f"Known are {', '.join(known)}.")
    return claims_file.parse((_DOCUMENTS / f"{name}.yaml").read_text(), name)


def load(reference: str) -> Publication:
    """Read `document/section`, for example `ibm-storage-scale/benchmark-1`.

    Raises:
        ResultError: there is no such document or section; the message lists what there is.

    """
    name, _, section = reference.partition("/")
    found = document(name)
    if section in found.claims.curves:
        return _with_curves(found, section)
    if section in found.claims.scenario_rows:
        return _with_rows(found, section)
    known = [f"{name}/{one}" for one in (*found.claims.curves, *found.claims.scenario_rows)]
    has = f"It has {', '.join(known)}." if known else "It has nothing to reproduce."
    raise ResultError(f"{name} has no section {section}" if section else f"{name} names no section of it", has)


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
