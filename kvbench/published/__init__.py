"""Published figures as data: each with the document and the section that it came from."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

from ruamel.yaml import YAML

from kvbench.errors import ResultError


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
        fit = self.derived
        value = fit.get("constant", 0.0) + fit.get("linear", 0.0) * tokens + fit.get("quadratic", 0.0) * tokens**2
        return float(value), "derived"


@dataclass(frozen=True)
class Publication:
    """The part of a document that a scenario reproduces."""

    title: str
    section: str
    curves: dict[str, PublishedCurve]
    speed_up: dict[int, float]


def load(reference: str) -> Publication:
    """Read `document/section`, for example `ibm-storage-scale/benchmark-1`.

    Raises:
        ResultError: there is no such document or section; the message lists what there is.

    """
    name, _, section = reference.partition("/")
    folder = resources.files(__package__)
    known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    if name not in known:
        raise ResultError(f"no published document {name}", f"Known are {', '.join(known)}.")
    document = YAML(typ="safe").load((folder / f"{name}.yaml").read_text())
    if section not in document:
        sections = [key for key, value in document.items() if isinstance(value, dict)]
        raise ResultError(f"{name} has no section {section}", f"It has {', '.join(sections)}.")
    content = document[section]
    curves = {
        treatment: PublishedCurve(treatment, dict(figures["printed"]), dict(figures.get("derived", {})))
        for treatment, figures in content["treatments"].items()
    }
    return Publication(document["title"], content["section"], curves, dict(content.get("speed_up", {})))
