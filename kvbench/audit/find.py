"""Finds what to audit by its name: a published document, a claims file, or a result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.analysis import dataset, summary
from kvbench.audit.result_claims import lay_out
from kvbench.errors import ResultError
from kvbench.publications import claims_file, index, library
from kvbench.result.find import find_result

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvbench.publications.claims_file import Document


def find(what: str, results: Path, tell: Callable[[str], object] | None = None) -> Document:
    """Read what a person named: a published document goes before a file, and a file before a result.

    `tell` gets a line where a newer result is passed over.

    Raises:
        ResultError: there is none of the three, or it cannot be read.

    """
    if what in index.names():
        return library.document(what)
    path = Path(what)
    if path.is_file():
        return claims_file.load(path)
    if not path.exists() and path.suffix in (".yaml", ".yml"):
        raise ResultError(f"there is no file {what}", "Name a claims file; docs/claims.md says how to write one.")
    try:
        return read_result(find_result(what, results, tell))
    except ResultError as fault:
        known = ", ".join(index.names())
        raise ResultError(f"{fault.message}", f"{fault.remedy} Published documents are {known}.") from None


def read_result(folder: Path) -> Document:
    """Read a result folder as claims.

    Raises:
        ResultError: the folder is not a result, or no run of it is sealed.

    """
    result = dataset.read(folder)
    return lay_out(result, summary.summary_of(result))
