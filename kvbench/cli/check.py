"""The command `kvbench check`: says whether a scenario can be run here, and starts nothing."""

from __future__ import annotations

import typer

from kvbench.cli.load_scenario import load_scenario
from kvbench.cli.options import DriverName, EndpointUrl, Overrides, ScenarioFile  # noqa: TC001 - typer reads annotations
from kvbench.testbed import testbed


def check(
    scenario_file: ScenarioFile,
    overrides: Overrides = None,
    endpoint: EndpointUrl = None,
    driver: DriverName = None,
) -> None:
    """Read a scenario and say whether it can be run here; no server or load starts, but side clients are reached."""
    asked = load_scenario(scenario_file, overrides, endpoint, driver)
    with testbed.stand_up(asked) as bed:
        for limit in bed.limits():
            typer.echo(f"note: {limit}")
    typer.echo(
        f"{scenario_file} is fine: {_counted(len(asked.treatments), 'treatment')}, {_counted(asked.repeats, 'round')}"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
