"""Names the published documents that come with kvbench, and the sections of them that scenarios may reproduce.

A scenario is checked against these names alone, which takes a tenth of the time that reading a whole document takes.
"""

from __future__ import annotations

from importlib import resources

from ruamel.yaml import YAML

from kvbench.errors import ResultError

_DOCUMENTS = resources.files("kvbench.publications") / "documents"


def names() -> list[str]:
    """Return the names of all published documents that kvbench knows."""
    entries = _DOCUMENTS.iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))


def text_of(name: str) -> str:
    """Return the text of a published document.

    Raises:
        ResultError: there is no such document; the message lists what there is.

    """
    known = names()
    if name not in known:
        raise ResultError(f"no published document {name}", f"Known are {', '.join(known)}.")
    return (_DOCUMENTS / f"{name}.yaml").read_text()


def check(reference: str) -> tuple[str, str]:
    """Return the document and the section of a reference such as `ibm-storage-scale/benchmark-1`.

    Raises:
        ResultError: there is no such document or section; the message lists what there is.

    """
    name, _, section = reference.partition("/")
    content = YAML(typ="safe").load(text_of(name))
    sections = [*content.get("curves", {}), *content.get("scenario_rows", {})]
    if section in sections:
        return name, section
    known = [f"{name}/{one}" for one in sections]
    has = f"It has {', '.join(known)}." if known else "It has nothing to reproduce."
    raise ResultError(f"{name} has no section {section}" if section else f"{name} names no section of it", has)
