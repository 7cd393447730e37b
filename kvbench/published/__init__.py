"""Published documents as claims: each figure with the section that it came from; scenarios reproduce their curves."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from kvbench import claims_file
from kvbench.errors import ResultError

if TYPE_CHECKING:
    from kvbench.claims_file import Document


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
class Publication:
    """The part of a document that a scenario reproduces."""

    title: str
    section: str
    curves: dict[str, PublishedCurve]
    speed_up: dict[int, float]


def names() -> list[str]:
    """Return the names of all published documents that kvbench knows."""
    entries = resources.files(__package__).iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))


def document(name: str) -> Document:
    """Read a published document.

    Raises:
        ResultError: there is no such document; the message lists what there is.

    """
    known = names()
    if name not in known:
        raise ResultError(f"no published document {name}", f"Known are {', '.join(known)}.")
    return claims_file.parse((resources.files(__package__) / f"{name}.yaml").read_text(), name)


def load(reference: str) -> Publication:
    """Read `document/section`, for example `ibm-storage-scale/benchmark-1`.

    Raises:
        ResultError: there is no such document or section; the message lists what there is.

    """
    name, _, section = reference.partition("/")
    claims = document(name).claims
    if section not in claims.curves:
        has = f"It has {', '.join(claims.curves)}." if claims.curves else "It has no curve to reproduce."
        raise ResultError(f"{name} has no section {section}", has)
    content = claims.curves[section]
    curves = {
        treatment: PublishedCurve(
            treatment,
            {at: float(text) for at, text in points.printed.items()},
            {key: value if key == "formula" else float(value) for key, value in points.derived.items()},
        )
        for treatment, points in content.treatments.items()
    }
    return Publication(claims.title, content.section, curves, content.speed_up)
