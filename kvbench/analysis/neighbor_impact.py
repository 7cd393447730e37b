"""Says that a result has no neighbours; to be replaced by the impact of those that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvbench.analysis.dataset import Dataset
    from kvbench.analysis.neighbor_types import NeighborImpact


def impact(dataset: Dataset) -> NeighborImpact | None:
    """Return None for a result without neighbours."""
    if any(one.get("neighbors") for one in dataset.design.definitions.values()):
        raise NotImplementedError("the impact of neighbours is in `kvbench.doses` only")
    return None
