"""The command line: each command parses, calls one function, prints, and sets the exit code.

Exit codes: 0 fine; 1 an error of ours, told in one sentence with a remedy; 2 usage, a bad value of an option too; 3
finished, but a run is invalid or suspect; 4 a gate that the user asked for failed; 130 interrupted. Imports are late,
so that a run's first request does not wait for what only a report needs.
"""

from __future__ import annotations

import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvbench import __version__, cli_compare, cli_lab, cli_show
from kvbench.errors import Interrupted, KvbenchError, ResultError
from kvbench.terminal import RESULTS, ResultsDir, console, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvbench.plan import Plan
    from kvbench.scenario import Scenario
    from kvbench.store import ResultFolder
    from kvbench.testbed import Testbed

app = typer.Typer(
    help="Measures where the KV cache of an LLM service should live, and proves which tier served each request.",
    epilog="Add --debug to any command to see the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ScenarioFile = Annotated[Path, typer.Argument(metavar="SCENARIO.yaml", help="The scenario file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a value of the scenario; may be repeated.")
]
EndpointUrl = Annotated[
    str | None, typer.Option("--endpoint", metavar="URL", help="Drive this server instead of the scenario's.")
]


class Driver(StrEnum):
    """What `--driver` takes."""

    NATIVE = "native"
    AIPERF = "aiperf"


class Tool(StrEnum):
    """What `import --from` takes."""

    AIPERF = "aiperf"
    GUIDELLM = "guidellm"
    VLLM = "vllm"


DriverName = Annotated[Driver | None, typer.Option("--driver", help="Load driver, in place of the scenario's.")]
_SERVE_PORT = 8000  # where scenarios/ttft_sweep_endpoint.yaml looks


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"kvbench {__version__}")
        raise typer.Exit


@app.callback()
def top_level(
    version: Annotated[  # noqa: FBT002 - its callback does the work
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Measures where the KV cache of an LLM service should live, and proves which tier served each request."""


def main() -> None:
    """Run the command line, and turn every error into a sentence and an exit code."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app()
    except KvbenchError as error:
        if debug:
            raise
        typer.echo(f"kvbench: {error.message}", err=True)
        typer.echo(f"  {error.remedy}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        typer.echo(f"kvbench: unexpected {type(error).__name__}: {error}", err=True)
        typer.echo("  This is a bug: run the same command with --debug and report what it prints.", err=True)
        sys.exit(1)


@app.command()
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
    from kvbench import store, testbed  # noqa: PLC0415

    asked = _load(scenario_file, overrides, endpoint, driver)
    if dry_run:
        _print_plan(asked)
        for line in testbed.remote_commands(asked):
            typer.echo(line)
        return
    result = None
    try:
        with testbed.stand_up(asked) as bed:
            result = store.open_result(results, asked.name, asked.fingerprint, fresh=fresh)
            with store.locked(result.path, "the result"):
                changes = [*(overrides or []), *([f"load.driver={driver}"] if driver else [])]
                plan = _lay_out(asked, bed, result, scenario_file, changes)
                _execute(asked, plan, bed, result)
    except KeyboardInterrupt:
        if result is not None:
            raise Interrupted(f"interrupted; what is done is kept in {result.path}", "Run it again.") from None
        raise Interrupted("interrupted before the first run began", "Nothing was measured; run it again.") from None
    sys.exit(_finish(result))


def _load(file: Path, changes: list[str] | None, endpoint: str | None, driver: Driver | None) -> Scenario:
    """Read a scenario, and refuse at once a publication that is not known."""
    from kvbench import published, scenario_file  # noqa: PLC0415

    asked = scenario_file.load(file, tuple(changes or ()), endpoint, driver.value if driver is not None else None)
    if asked.published is not None:
        published.load(asked.published)
    return asked


def _lay_out(asked: Scenario, bed: Testbed, result: ResultFolder, file: Path, changes: list[str]) -> Plan:
    """Write down what will be done and on what, before anything is done; a resumed result has it already."""
    from kvbench import calibration, facts, likeness, plan, store  # noqa: PLC0415

    attached = bed.attached
    salt = f"{result.path.name}/" if attached is not None else ""
    laid_out = plan.expand(asked, salt, attached.info.get("scale") if attached is not None else None)
    tiers: dict[str, Path] = {name: tier.path for name, tier in asked.directories.items()}
    if attached is not None and attached.tier_path is not None:
        tiers["g4"] = attached.tier_path
    gathered = facts.gather({"results": result.path, **tiers}, Path(__file__).parent)
    given: dict[str, Any] = {"file": str(file), "overrides": changes, "fingerprint": asked.fingerprint}
    if attached is not None:
        given["endpoint"] = attached.url
    if result.resumed:
        before = result.read_json("facts.json")
        changed = sorted({*before.get("changed_on_resume", []), *likeness.differences(before, gathered)})
        result.write_json("facts.json", {**before, "changed_on_resume": changed})
    else:
        result.write_json("facts.json", {**gathered, "scenario": given})
        store.write_atomic(result.path / "scenario.yaml", file.read_bytes())
        result.write_json("plan.json", laid_out.to_json())
        calibration.attach(result.path.parent.parent, result.path, facts.host_identity(gathered), asked.load.driver)
    return laid_out


def _execute(asked: Scenario, plan: Plan, bed: Testbed, result: ResultFolder) -> None:
    from kvbench import run as act  # noqa: PLC0415
    from kvbench.report import live  # noqa: PLC0415

    terminal = console(stderr=True)
    if result.resumed:
        terminal.print(f"going on with {result.path}", highlight=False)
    try:
        with live.watch_for(plan, terminal) as watch:
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
    from kvbench import summary  # noqa: PLC0415
    from kvbench.audit import own, rules  # noqa: PLC0415
    from kvbench.report import audit_section, terminal, typed_summary  # noqa: PLC0415

    summed = summary.summarise(result.path)
    result.write_json("summary.json", summed)
    terminal.print_summary(typed_summary.read(result.path), console())
    audit_section.print_findings(rules.examine(own.read(result.path)), console())
    typer.echo(str(result.path))
    return 0 if summed["verdict"] == "valid" else 3


@app.command()
def check(
    scenario_file: ScenarioFile,
    overrides: Overrides = None,
    endpoint: EndpointUrl = None,
    driver: DriverName = None,
) -> None:
    """Read a scenario and say whether it can be run here; no server or load starts, but side clients are reached."""
    from kvbench import testbed  # noqa: PLC0415

    asked = _load(scenario_file, overrides, endpoint, driver)
    with testbed.stand_up(asked) as bed:
        for limit in bed.limits():
            typer.echo(f"note: {limit}")
    typer.echo(
        f"{scenario_file} is fine: {_counted(len(asked.treatments), 'treatment')}, {_counted(asked.repeats, 'round')}"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@app.command()
def plan(
    scenario_file: ScenarioFile,
    overrides: Overrides = None,
    endpoint: EndpointUrl = None,
    driver: DriverName = None,
) -> None:
    """Show the runs in their order, and whether the working set fits the tiers."""
    _print_plan(_load(scenario_file, overrides, endpoint, driver))


def _print_plan(asked: Scenario) -> None:
    from kvbench import plan  # noqa: PLC0415
    from kvbench.report import terminal  # noqa: PLC0415

    terminal.print_plan(plan.expand(asked), asked, console())


app.command()(cli_show.show)


@app.command()
def report(
    result: Annotated[list[str], typer.Argument(metavar="RESULT...", help="Result folders or scenario names.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where reports are written.")] = Path("reports"),
    html: Annotated[bool, typer.Option("--html", help="Write HTML only, unless --pdf is given too.")] = False,  # noqa: FBT002
    pdf: Annotated[bool, typer.Option("--pdf", help="Write PDF only, unless --html is given too.")] = False,  # noqa: FBT002
    results: ResultsDir = RESULTS,
) -> None:
    """Write a report that opens offline: one HTML file and one PDF for each result; none if a name is wrong."""
    from kvbench import store  # noqa: PLC0415
    from kvbench.report import document  # noqa: PLC0415

    found = _summaries(result, results)
    for folder, summed in found:
        store.write_json(folder / "summary.json", summed)
    both = html == pdf
    folders = [folder for folder, _ in found]
    for path in document.write_report(folders, out, html=html or both, pdf=pdf or both):
        typer.echo(str(path))


def _summaries(names: Sequence[str], results: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Find and summarise every result that was named, each once, before anything is written.

    Raises:
        ResultError: some of them cannot be; the message tells all of these.

    """
    from kvbench import lookup, summary  # noqa: PLC0415

    found: dict[Path, dict[str, Any]] = {}
    faults: list[KvbenchError] = []
    for name in names:
        try:
            folder = lookup.find_result(name, results, tell)
            found[folder] = summary.summarise(folder)
        except ResultError as fault:
            faults.append(fault)
    if faults:
        wrong = "; ".join(fault.message for fault in faults)
        spared = f"; no report was written for the other {len(names) - len(faults)}" if len(names) > len(faults) else ""
        raise ResultError(wrong + spared, faults[0].remedy)
    return list(found.items())


app.command()(cli_compare.compare)
app.command()(cli_show.audit)


@app.command(name="import")
def import_result(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file, or AIPerf's artifact folder.")],
    tool: Annotated[Tool, typer.Option("--from", help="The tool that wrote it.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the result; by default from the path.")] = None,
    results: ResultsDir = RESULTS,
) -> None:
    """Make a result of what another tool measured, so that show and report can read it; nothing of it is proven."""
    from kvbench import store, summary  # noqa: PLC0415
    from kvbench.importers import result as imports  # noqa: PLC0415
    from kvbench.report import terminal, typed_summary  # noqa: PLC0415

    folder = imports.import_result(tool.value, path, results, name)
    summed = summary.summarise(folder)
    store.write_json(folder / "summary.json", summed)
    terminal.print_summary(typed_summary.read(folder), console())
    typer.echo(str(folder))


@app.command()
def calibrate(
    driver: Annotated[
        list[Driver] | None, typer.Option("--driver", help="Load driver, native by default; may be repeated.")
    ] = None,
    connections: Annotated[str, typer.Option(metavar="N,N", help="Numbers of connections.")] = "1,28,100",
    prompt_tokens: Annotated[str, typer.Option(metavar="N,N", help="Prompt lengths in tokens.")] = "500,130000",
    rounds: Annotated[int, typer.Option(min=1, help="How often each cell takes its turn.")] = 3,
    results: ResultsDir = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,  # noqa: FBT002
) -> None:
    """Measure the load driver's own timing error on this host; results made after it carry the newest one."""
    import json  # noqa: PLC0415

    from kvbench import calibrate as act  # noqa: PLC0415
    from kvbench import calibration, store  # noqa: PLC0415
    from kvbench.report import terminal  # noqa: PLC0415
    from kvbench.result.calibration_record import CalibrationCell  # noqa: PLC0415
    from kvbench.typed_json import from_json  # noqa: PLC0415

    settings = act.Settings(_counts(connections, "--connections"), _counts(prompt_tokens, "--prompt-tokens"), rounds)
    try:
        folder = act.calibrate([one.value for one in driver or [Driver.NATIVE]], settings, results, tell)
    except KeyboardInterrupt:
        raise Interrupted("the calibration was interrupted, so it is attached to no result", "Run it again.") from None
    made = store.read_json(folder / calibration.FILE)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **made}, indent=1))
    else:
        cells = [from_json(CalibrationCell, cell, calibration.FILE) for cell in made["cells"]]
        terminal.print_calibration(cells, console())
        typer.echo(str(folder))
    sys.exit(3 if any(cell["failed"] for cell in made["cells"]) else 0)


def _counts(text: str, option: str) -> tuple[int, ...]:
    """Read a list of counts such as 1,28,100 or 500,130k."""
    from kvbench.units import parse_count  # noqa: PLC0415

    try:
        return tuple(dict.fromkeys(parse_count(part) for part in text.split(",")))
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint=option) from None


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(context: typer.Context) -> None:
    """Start the emulator: an OpenAI-compatible server with modelled GPU time and real storage I/O."""
    from kvbench.emulator import api, settings  # noqa: PLC0415

    sys.exit(api.serve(settings.parse_arguments(context.args, program="kvbench serve", port=_SERVE_PORT)))


app.command()(cli_lab.clean)
app.add_typer(cli_lab.app, name="lab")
