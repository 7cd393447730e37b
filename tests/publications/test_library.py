"""The library of published documents, as results are held against it."""

from __future__ import annotations

import pytest

from kvbench.errors import ResultError
from kvbench.publications import library


def test_the_published_ends_are_on_the_derived_curves() -> None:
    document = library.load("ibm-storage-scale/benchmark-1")
    for curve in document.curves.values():
        for tokens, value in curve.printed.items():
            derived = library.PublishedCurve("x", {}, curve.derived).at(tokens)[0]
            assert derived == pytest.approx(value, rel=0.002)
            assert curve.at(tokens) == (value, "printed")
    assert document.speed_up[130_000] == 56
    printed = document.curves["recompute"].at(130_000)[0] / document.curves["g4"].at(130_000)[0]
    assert printed == pytest.approx(56, abs=0.5)


@pytest.mark.parametrize("reference", ["nobody/benchmark-1", "ibm-storage-scale/benchmark-9"])
def test_unknown_publications_are_refused(reference: str) -> None:
    with pytest.raises(ResultError):
        library.load(reference)
