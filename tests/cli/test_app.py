"""Every command is found by its name, and listed with the help that it has when it is called."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from kvbench.cli.app import COMMANDS, app


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_shows_each_command_with_its_own_help(name: str) -> None:
    listed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "300"}, catch_exceptions=False)
    first_line = COMMANDS[name].help().splitlines()[0]
    assert first_line
    assert any(name in line and first_line in line for line in listed.output.splitlines())
    loaded = COMMANDS[name].load(name)
    assert loaded.name == name
    assert loaded.help.splitlines()[0] == first_line


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"serve"}))
def test_each_command_explains_itself(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "300"}, catch_exceptions=False)
    assert shown.exit_code == 0
    assert COMMANDS[name].help().splitlines()[0] in shown.output


def test_a_command_that_is_not_there_names_what_is_like_it() -> None:
    shown = CliRunner().invoke(app, ["chekc"])
    assert shown.exit_code == 2
    assert "Did you mean 'check'?" in shown.output
