"""The command `kvbench run`: runs a scenario, or goes on where an earlier run of it was interrupted.

What only a summary needs is imported after the last run is sealed: it takes a second, and the runs would wait for it.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from kvbench.cli.load_scenario import load_scenario
from kvbench.cli.options import (
    RESULTS,
    DriverName,
    EndpointUrl,
    Overrides,
    ResultsDir,
    ScenarioFile,
    tell,
)
from kvbench.errors import Interrupted
from kvbench.experiment import run as act
from kvbench.experiment.result_setup import lay_out
from kvbench.report import progress_view
from kvbench.result import folder
from kvbench.result.files import locked
from kvbench.testbed import disturbance, testbed

if TYPE_CHECKING:
    from kvbench.result.folder import ResultFolder
    from kvbench.scenario.plan import Plan
    from kvbench.scenario.scenario import Scenario
    from kvbench.testbed.testbed import Testbed


def run(  # noqa: PLR0913, PLR0917 - these are the options of the command
    scenario_file: ScenarioFile,
    overrides: Overrides = None,
    endpoint: EndpointUrl = None,
    driver: DriverName = None,
    results: ResultsDir = RESULTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,  # noqa: FBT002
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not go on with an unfinished result.")] = False,  # noqa: FBT002
) -> None:
    """Run a scenario; goes on by itself where an earlier run of the same scenario was interrupted."""
    asked = load_scenario(scenario_file, overrides, endpoint, driver)
    if dry_run:
        from kvbench.cli.plan import print_plan  # noqa: PLC0415 - prints tables, which only a summary needs else

        print_plan(asked)
        for line in disturbance.remote_commands(asked):
            typer.echo(line)
        return
    result = None if fresh else folder.find_unfinished(results, asked.name, asked.fingerprint)
    try:
        if result is not None and result.is_measured:
            _compare_answers(asked, result)
        else:
            result = None
            with testbed.stand_up(asked) as bed:
                result = folder.open_result(results, asked.name, asked.fingerprint, fresh=fresh)
                with locked(result.path, "the result"):
                    changes = [*(overrides or []), *([f"load.driver={driver}"] if driver else [])]
                    plan = lay_out(asked, bed, result, scenario_file, changes)
                    _execute(asked, plan, bed, result)
        exit_code = _finish(result)
    except KeyboardInterrupt:
        if result is not None:
            raise Interrupted(f"interrupted; what is done is kept in {result.path}", "Run it again.") from None
        raise Interrupted("interrupted before the first run began", "Nothing was measured; run it again.") from None
    sys.exit(exit_code)


def _compare_answers(asked: Scenario, result: ResultFolder) -> None:
    """Do what a killed run has left undone although all its runs are sealed; no server is needed for it."""
    tell(f"all runs of {result.path} are done already; its summary is written now")
    with locked(result.path, "the result"):
        act.compare_answers(asked, result)


def _execute(asked: Scenario, plan: Plan, bed: Testbed, result: ResultFolder) -> None:
    terminal = Console(stderr=True)
    if result.resumed:
        terminal.print(f"going on with {result.path}", highlight=False)
    try:
        with progress_view.watch_for(plan, terminal) as watch:
            act.execute(asked, plan, bed, result, watch)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not hide what was kept
        done = sum(result.is_sealed(spec.run_id) for spec in plan.runs)
        raise Interrupted(
            f"interrupted: {done} of {len(plan.runs)} runs are kept in {result.path}",
            "Run the same command again: it goes on with the run that was broken off.",
        ) from None


def _finish(result: ResultFolder) -> int:
    """Summarise, print, and return the exit code."""
    from kvbench.cli.finish import finish  # noqa: PLC0415 - the runs do not wait for what only a summary needs

    return finish(result.path)
