"""The command line: each command parses, calls one function, prints, and sets the exit code.

Exit codes: 0 fine; 1 an error of ours, told in one sentence with a remedy; 2 usage; 3 finished, but a run is invalid or
suspect; 4 a gate that the user asked for failed; 130 interrupted. Imports are late, so that a run's first request does
not wait for what only a report needs.
"""

from __future__ import annotations

import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvbench import __version__, cli_compare
from kvbench.errors import Interrupted, KvbenchError

if TYPE_CHECKING:
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
ResultsDir = Annotated[Path, typer.Option("--results", metavar="DIR", help="Where results are kept.")]
_RESULTS = Path("results")


class Severity(StrEnum):
    """What `audit --fail-on` takes."""

    CONFLICT = "conflict"
    UNSUPPORTED = "unsupported"
    MISSING = "missing"
    NOTE = "note"


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
    driver: Annotated[str | None, typer.Option(help="Load driver: native or aiperf.")] = None,
    results: ResultsDir = _RESULTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,  # noqa: FBT002
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not go on with an unfinished result.")] = False,  # noqa: FBT002
) -> None:
    """Run a scenario; goes on by itself where an earlier run of the same scenario was interrupted."""
    from kvbench import store, testbed  # noqa: PLC0415

    changes = [*(overrides or []), *([f"load.driver={driver}"] if driver else [])]
    asked = _load(scenario_file, changes, endpoint)
    if dry_run:
        _print_plan(asked)
        return
    try:
        with testbed.stand_up(asked) as bed:
            result = store.open_result(results, asked.name, asked.fingerprint, fresh=fresh)
            with store.locked(result.path, "the result"):
                plan = _lay_out(asked, bed, result, scenario_file, changes)
                _execute(asked, plan, bed, result)
    except KeyboardInterrupt:
        raise Interrupted("interrupted before the first run began", "Nothing was measured; run it again.") from None
    sys.exit(_finish(result))


def _load(file: Path, changes: list[str], endpoint: str | None) -> Scenario:
    """Read a scenario, and refuse at once a publication that is not known."""
    from kvbench import published, scenario_file  # noqa: PLC0415

    asked = scenario_file.load(file, tuple(changes), endpoint)
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

    console = _console(stderr=True)
    if result.resumed:
        console.print(f"going on with {result.path}", highlight=False)
    try:
        with live.watch_for(plan, console) as watch:
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
    from kvbench.report import audit_section, tables  # noqa: PLC0415

    summed = summary.summarise(result.path)
    result.write_json("summary.json", summed)
    tables.print_summary(summed, _console())
    audit_section.print_findings(rules.examine(own.read(result.path)), _console())
    typer.echo(str(result.path))
    return 0 if summed["verdict"] == "valid" else 3


@app.command()
def check(scenario_file: ScenarioFile, overrides: Overrides = None, endpoint: EndpointUrl = None) -> None:
    """Read a scenario and say whether it can be run here, without starting anything."""
    from kvbench import testbed  # noqa: PLC0415

    asked = _load(scenario_file, overrides or [], endpoint)
    with testbed.stand_up(asked) as bed:
        for limit in bed.limits():
            typer.echo(f"note: {limit}")
    typer.echo(f"{scenario_file} is fine: {len(asked.treatments)} treatments, {asked.repeats} rounds")


@app.command()
def plan(scenario_file: ScenarioFile, overrides: Overrides = None, endpoint: EndpointUrl = None) -> None:
    """Show the runs in their order, and whether the working set fits the tiers."""
    _print_plan(_load(scenario_file, overrides or [], endpoint))


def _print_plan(asked: Scenario) -> None:
    from kvbench import plan  # noqa: PLC0415
    from kvbench.report import tables  # noqa: PLC0415

    tables.print_plan(plan.expand(asked), asked, _console())


@app.command()
def show(
    result: Annotated[str, typer.Argument(metavar="RESULT", help="A result folder, or a scenario's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,  # noqa: FBT002
    requests: Annotated[  # noqa: FBT002
        bool, typer.Option("--requests", help="Print every measured request with its tier and the evidence for it.")
    ] = False,
    results: ResultsDir = _RESULTS,
) -> None:
    """Show a result: its tables, the same as JSON, or every request."""
    import json  # noqa: PLC0415

    from kvbench import records, store, summary  # noqa: PLC0415
    from kvbench.report import tables  # noqa: PLC0415

    folder = store.find_result(result, results)
    summed = summary.summarise(folder)
    if requests:
        rows = {run["run_id"]: store.read_rows(folder / "runs" / run["run_id"]) for run in summed["runs"]}
        tables.print_requests(rows, _console())
    elif as_json:
        typer.echo(json.dumps({"schema_version": records.SCHEMA_VERSION, **summed}, indent=1))
    else:
        tables.print_summary(summed, _console())


@app.command()
def report(
    result: Annotated[list[str], typer.Argument(metavar="RESULT...", help="Result folders or scenario names.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where reports are written.")] = Path("reports"),
    html: Annotated[bool, typer.Option("--html", help="Write HTML only, unless --pdf is given too.")] = False,  # noqa: FBT002
    pdf: Annotated[bool, typer.Option("--pdf", help="Write PDF only, unless --html is given too.")] = False,  # noqa: FBT002
    results: ResultsDir = _RESULTS,
) -> None:
    """Write a report that opens offline: one HTML file and one PDF for each result."""
    from kvbench import store, summary  # noqa: PLC0415
    from kvbench.report import document  # noqa: PLC0415

    folders = [store.find_result(name, results) for name in result]
    for folder in folders:
        store.write_json(folder / "summary.json", summary.summarise(folder))
    both = html == pdf
    for path in document.write_report(folders, out, html=html or both, pdf=pdf or both):
        typer.echo(str(path))


app.command()(cli_compare.compare)


@app.command()
def audit(
    source: Annotated[
        str, typer.Argument(metavar="NAME|FILE|RESULT", help="A published document, a claims file, or a result.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,  # noqa: FBT002
    fail_on: Annotated[
        Severity | None, typer.Option("--fail-on", help="Exit with 4 if there is something as bad as this, or worse.")
    ] = None,
    results: ResultsDir = _RESULTS,
) -> None:
    """Hold printed figures against arithmetic: each finding with its calculation, and what would have to be true."""
    import json  # noqa: PLC0415

    from kvbench import records  # noqa: PLC0415
    from kvbench.audit import rules, sources  # noqa: PLC0415
    from kvbench.report import audit_section  # noqa: PLC0415

    done = rules.examine(sources.find(source, results))
    if as_json:
        typer.echo(json.dumps({"schema_version": records.SCHEMA_VERSION, **done.to_json()}, indent=1))
    else:
        audit_section.print_audit(done, _console())
    sys.exit(4 if fail_on and done.reaches(fail_on.value) else 0)


@app.command(name="import")
def import_result(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file, or AIPerf's artifact folder.")],
    tool: Annotated[str, typer.Option("--from", metavar="aiperf|guidellm|vllm", help="The tool that wrote it.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the result; by default from the path.")] = None,
    results: ResultsDir = _RESULTS,
) -> None:
    """Make a result of what another tool measured, so that show and report can read it; nothing of it is proven."""
    from kvbench import store, summary  # noqa: PLC0415
    from kvbench.importers import result as imports  # noqa: PLC0415
    from kvbench.report import tables  # noqa: PLC0415

    folder = imports.import_result(tool, path, results, name)
    summed = summary.summarise(folder)
    store.write_json(folder / "summary.json", summed)
    tables.print_summary(summed, _console())
    typer.echo(str(folder))


@app.command()
def calibrate(
    driver: Annotated[
        list[str] | None, typer.Option("--driver", help="Load driver: native or aiperf; may be repeated.")
    ] = None,
    connections: Annotated[str, typer.Option(metavar="N,N", help="Numbers of connections.")] = "1,28,100",
    prompt_tokens: Annotated[str, typer.Option(metavar="N,N", help="Prompt lengths in tokens.")] = "500,130000",
    rounds: Annotated[int, typer.Option(min=1, help="How often each cell takes its turn.")] = 3,
    results: ResultsDir = _RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,  # noqa: FBT002
) -> None:
    """Measure the load driver's own timing error on this host; results made after it carry the newest one."""
    import json  # noqa: PLC0415

    from kvbench import calibrate as act  # noqa: PLC0415
    from kvbench import calibration, store  # noqa: PLC0415
    from kvbench.report import client_error  # noqa: PLC0415

    settings = act.Settings(_counts(connections, "--connections"), _counts(prompt_tokens, "--prompt-tokens"), rounds)
    try:
        folder = act.calibrate(driver or ["native"], settings, results, lambda text: typer.echo(text, err=True))
    except KeyboardInterrupt:
        raise Interrupted("the calibration was interrupted, so it is attached to no result", "Run it again.") from None
    made = store.read_json(folder / calibration.FILE)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **made}, indent=1))
    else:
        client_error.print_calibration(made, _console())
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

    port = [] if "--port" in context.args else ["--port", str(_SERVE_PORT)]
    sys.exit(api.serve(settings.parse_arguments([*context.args, *port], program="kvbench serve")))


@app.command()
def clean(
    path: Annotated[list[Path], typer.Argument(metavar="TIER...", help="Tier directories that kvbench made.")],
) -> None:
    """Delete the tier files in directories that carry kvbench's marker; other directories are refused."""
    from kvbench import store  # noqa: PLC0415
    from kvbench.servers import tier_directory  # noqa: PLC0415

    for root in path:
        tier_directory.check_marker(root)
        with store.locked(root, "the tier"):
            typer.echo(f"{root}: {tier_directory.wipe(root)} files deleted")


def _console(*, stderr: bool = False) -> Any:
    from rich.console import Console  # noqa: PLC0415

    return Console(stderr=stderr)
