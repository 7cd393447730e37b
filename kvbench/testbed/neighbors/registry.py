"""The generators that a load of neighbours may name; one line for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.testbed.neighbors import fio, iperf3

if TYPE_CHECKING:
    from kvbench.scenario.neighbors import NeighborSpec
    from kvbench.strict_yaml import Strict
    from kvbench.testbed.neighbors.generator import Generator

GENERATORS: dict[str, Generator] = {
    one.key: one
    for one in (
        fio.GENERATOR,
        iperf3.GENERATOR,
    )
}


def models() -> dict[str, type[Strict]]:
    """Return the model of each generator's keys, for whoever reads a scenario."""
    return {key: generator.keys for key, generator in GENERATORS.items()}


def generator_of(spec: NeighborSpec) -> Generator:
    """Return the generator that a load names."""
    return GENERATORS[spec.generator]
