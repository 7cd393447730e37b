"""The tools whose results can be imported, by the name that `kvbench import --from` takes; one line for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvbench.importers import aiperf, guidellm, vllm
from kvbench.importers.export_kind import EXPORTS, REMEDIES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kvbench.importers.export import Source


@dataclass(frozen=True, slots=True)
class Importer:
    """One tool: what its export is called, which file to give, and the function that reads it."""

    name: str
    export: str
    remedy: str
    read: Callable[[Path], Source]


IMPORTERS: dict[str, Importer] = {
    one.name: one
    for one in (
        Importer("aiperf", EXPORTS["aiperf"], REMEDIES["aiperf"], aiperf.read),
        Importer("guidellm", EXPORTS["guidellm"], REMEDIES["guidellm"], guidellm.read),
        Importer("vllm", EXPORTS["vllm"], REMEDIES["vllm"], vllm.read),
    )
}
