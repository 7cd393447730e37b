"""The command line: finds the command that was asked for, and turns every error into a sentence and an exit code.

Exit codes: 0 fine; 1 an error of ours, told in one sentence with a remedy; 2 usage, a bad value of an option too; 3
finished, but a run is invalid or suspect; 4 a gate that the user asked for failed; 130 interrupted.

Each command is a module of its own, imported when it is called: `kvbench check` does not wait for what `report` needs.
"""

from __future__ import annotations

import ast
import importlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from kvbench import __version__
from kvbench.errors import KvbenchError


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command is: its module in this folder, its function there, and how typer is to treat it.

    The first paragraph of the function's docstring is the command's help. A module that holds several commands has a
    `typer.Typer` named `app`, and the function is its callback.
    """

    module: str
    function: str
    settings: dict[str, Any] = field(default_factory=dict)

    def help(self) -> str:
        """Read the docstring of the function from the module's source, so that nothing need be imported for it."""
        tree = ast.parse(Path(__file__).with_name(f"{self.module}.py").read_text())
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        return ast.get_docstring(functions[self.function]) or ""

    def load(self, name: str) -> Any:
        """Import the module and return the command, or the group of commands, as typer runs it."""
        module = importlib.import_module(f"kvbench.cli.{self.module}")
        alone = getattr(module, "app", None)
        if alone is None:
            alone = typer.Typer(add_completion=False)
            alone.command(**self.settings)(getattr(module, self.function))
        command = typer.main.get_command(alone)
        command.name = name
        return command


COMMANDS = {
    "run": Command("run", "run"),
    "check": Command("check", "check"),
    "plan": Command("plan", "plan"),
    "show": Command("show", "show"),
    "report": Command("report", "report"),
    "compare": Command("compare", "compare"),
    "audit": Command("audit", "audit"),
    "import": Command("import_result", "import_result"),
    "calibrate": Command("calibrate", "calibrate"),
    "serve": Command(
        "serve",
        "serve",
        {
            "add_help_option": False,
            "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
        },
    ),
    "clean": Command("clean", "clean"),
    "lab": Command("lab", "lab"),
}
"""Every command by its name, in the order in which `kvbench --help` lists them."""


class _LateCommands(TyperGroup):
    """Knows its commands by name and help; the module of one is imported when that one is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name) for name in COMMANDS}

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:  # noqa: ARG002 - typer calls it so
        """Return what a list of commands shows of one."""
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name].help()) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that was called, and import it."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed if name is None else COMMANDS[name].load(name), rest


app = typer.Typer(
    cls=_LateCommands,
    help="Measures where the KV cache of an LLM service should live, and proves which tier served each request.",
    epilog="Add --debug to any command to see the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
