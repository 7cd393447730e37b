"""The command line: registers all commands, and turns every error into a sentence and an exit code.

Exit codes: 0 fine; 1 an error of ours, told in one sentence with a remedy; 2 usage, a bad value of an option too; 3
finished, but a run is invalid or suspect; 4 a gate that the user asked for failed; 130 interrupted. Imports are late,
so that a run's first request does not wait for what only a report needs.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kvbench import __version__
from kvbench.cli import calibrate, clean, compare, lab, report, run, show
from kvbench.errors import KvbenchError

app = typer.Typer(
    help="Measures where the KV cache of an LLM service should live, and proves which tier served each request.",
    epilog="Add --debug to any command to see the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
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


app.command()(run.run)


app.command()(run.check)
app.command()(run.plan)
app.command()(show.show)
app.command()(report.report)
app.command()(compare.compare)
app.command()(show.audit)
app.command(name="import")(report.import_result)
app.command()(calibrate.calibrate)


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(context: typer.Context) -> None:
    """Start the emulator: an OpenAI-compatible server with modelled GPU time and real storage I/O."""
    from kvbench.emulator import api, settings  # noqa: PLC0415

    sys.exit(api.serve(settings.parse_arguments(context.args, program="kvbench serve", port=_SERVE_PORT)))


app.command()(clean.clean)
app.add_typer(lab.app, name="lab")
