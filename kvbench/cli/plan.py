"""The command `kvbench plan`: shows the runs of a scenario in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from kvbench.cli.load_scenario import load_scenario
from kvbench.cli.options import DriverName, EndpointUrl, Overrides, ScenarioFile  # noqa: TC001 - typer reads annotations
from kvbench.report import terminal
from kvbench.scenario.plan import expand

if TYPE_CHECKING:
    from kvbench.scenario.scenario import Scenario


def plan(
    scenario_file: ScenarioFile,
    overrides: Overrides = None,
    endpoint: EndpointUrl = None,
    driver: DriverName = None,
) -> None:
    """Show the runs in their order, and whether the working set fits the tiers."""
    print_plan(load_scenario(scenario_file, overrides, endpoint, driver))


def print_plan(asked: Scenario) -> None:
    """Print the runs of a scenario, and whether the working set fits the tiers."""
    terminal.print_plan(expand(asked), asked, Console())
