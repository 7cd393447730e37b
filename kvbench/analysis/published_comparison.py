"""Hands treatments to `kvbench.beside`, which still takes dictionaries; to be replaced by the comparison itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from kvbench import beside
from kvbench.analysis.summary_types import PublishedTable
from kvbench.typed_json import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvbench.analysis.summary_types import TreatmentSummary
    from kvbench.published import Publication
    from kvbench.result.plan_record import Design


def compare(
    publication: Publication, design: Design, treatments: Mapping[str, TreatmentSummary]
) -> PublishedTable | None:
    """Return a document's rows beside our treatments; None where the document has no rows."""
    plain = {name: to_json(one) for name, one in treatments.items()}
    found = beside.account(publication, asdict(design), plain)
    return from_json(PublishedTable, found, publication.title) if found is not None else None
