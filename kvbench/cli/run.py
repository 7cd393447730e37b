"""The commands `kvbench run`, `check` and `plan`, which start from a scenario file."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from kvbench.cli.options import (
    RESULTS,
    Driver,
    DriverName,
    EndpointUrl,
    Overrides,
    ResultsDir,
    ScenarioFile,
    console,
    tell,
    write_summary,
)
from kvbench.errors import Interrupted
from kvbench.experiment.result_setup import lay_out

if TYPE_CHECKING:
    from pathlib import Path

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
    from kvbench.result import folder  # noqa: PLC0415
    from kvbench.result.files import locked  # noqa: PLC0415
    from kvbench.testbed import testbed  # noqa: PLC0415

    asked = _load(scenario_file, overrides, endpoint, driver)
    if dry_run:
        _print_plan(asked)
        for line in testbed.remote_commands(asked):
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
    from kvbench.experiment import run as act  # noqa: PLC0415
    from kvbench.result.files import locked  # noqa: PLC0415

    tell(f"all runs of {result.path} are done already; its summary is written now")
    with locked(result.path, "the result"):
        act.compare_answers(asked, result)


def _load(file: Path, changes: list[str] | None, endpoint: str | None, driver: Driver | None) -> Scenario:
    """Read a scenario, and refuse at once a publication that is not known."""
    from kvbench.publications import library  # noqa: PLC0415
    from kvbench.scenario import file as scenario_file  # noqa: PLC0415
    from kvbench.scenario import scenario  # noqa: PLC0415
    from kvbench.testbed.neighbors import registry as generators  # noqa: PLC0415
    from kvbench.testbed.servers import registry as servers  # noqa: PLC0415

    model = scenario.model_with(servers.models(), generators.models())
    driven_by = driver.value if driver is not None else None
    asked = scenario_file.load(file, tuple(changes or ()), endpoint, driven_by, model)
    if asked.published is not None:
        library.load(asked.published)
    return asked


def _execute(asked: Scenario, plan: Plan, bed: Testbed, result: ResultFolder) -> None:
    from kvbench.experiment import run as act  # noqa: PLC0415
    from kvbench.report import progress_view  # noqa: PLC0415

    terminal = console(stderr=True)
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
    from kvbench.audit import result_claims, rules  # noqa: PLC0415
    from kvbench.report import audit, terminal  # noqa: PLC0415

    given = write_summary(result.path)
    terminal.print_summary(given, console())
    assert given.result is not None  # noqa: S101 - it was read from the folder
    audit.print_findings(rules.examine(result_claims.lay_out(given.result, given.summary)), console())
    typer.echo(str(result.path))
    return 0 if given.summary.verdict == "valid" else 3


def check(
    scenario_file: ScenarioFile,
    overrides: Overrides = None,
    endpoint: EndpointUrl = None,
    driver: DriverName = None,
) -> None:
    """Read a scenario and say whether it can be run here; no server or load starts, but side clients are reached."""
    from kvbench.testbed import testbed  # noqa: PLC0415

    asked = _load(scenario_file, overrides, endpoint, driver)
    with testbed.stand_up(asked) as bed:
        for limit in bed.limits():
            typer.echo(f"note: {limit}")
    typer.echo(
        f"{scenario_file} is fine: {_counted(len(asked.treatments), 'treatment')}, {_counted(asked.repeats, 'round')}"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def plan(
    scenario_file: ScenarioFile,
    overrides: Overrides = None,
    endpoint: EndpointUrl = None,
    driver: DriverName = None,
) -> None:
    """Show the runs in their order, and whether the working set fits the tiers."""
    _print_plan(_load(scenario_file, overrides, endpoint, driver))


def _print_plan(asked: Scenario) -> None:
    from kvbench.report import terminal  # noqa: PLC0415
    from kvbench.scenario import plan  # noqa: PLC0415

    terminal.print_plan(plan.expand(asked), asked, console())
