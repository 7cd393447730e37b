"""Reads the scenario of a command line, for the commands that start from a scenario file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.publications import index
from kvbench.scenario import file as scenario_file
from kvbench.scenario import scenario
from kvbench.testbed.neighbors import registry as generators
from kvbench.testbed.servers import registry as servers

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.cli.options import Driver
    from kvbench.scenario.scenario import Scenario


def load_scenario(file: Path, changes: list[str] | None, endpoint: str | None, driver: Driver | None) -> Scenario:
    """Read a scenario, and refuse at once a publication that is not known."""
    model = scenario.model_with(servers.models(), generators.models())
    driven_by = driver.value if driver is not None else None
    asked = scenario_file.load(file, tuple(changes or ()), endpoint, driven_by, model)
    if asked.published is not None:
        index.check(asked.published)
    return asked
