"""The index names what the documents hold, as reading them whole does."""

from __future__ import annotations

import pytest

from kvbench.errors import ResultError
from kvbench.publications import index, library


@pytest.mark.parametrize("name", index.names())
def test_every_section_can_be_looked_up_and_read(name: str) -> None:
    claims = library.document(name).claims
    for section in (*claims.curves, *claims.scenario_rows):
        assert index.check(f"{name}/{section}") == (name, section)
        assert library.load(f"{name}/{section}").title == claims.title


@pytest.mark.parametrize(
    ("reference", "message", "remedy"),
    [
        ("ibm", "no published document ibm", "ibm-storage-scale"),
        ("ibm-storage-scale", "names no section of it", "ibm-storage-scale/benchmark-1"),
        ("ibm-storage-scale/benchmark-9", "has no section benchmark-9", "ibm-storage-scale/benchmark-1"),
    ],
)
def test_what_is_not_there_is_refused_with_what_there_is(reference: str, message: str, remedy: str) -> None:
    with pytest.raises(ResultError, match=message) as fault:
        index.check(reference)
    assert remedy in fault.value.remedy
