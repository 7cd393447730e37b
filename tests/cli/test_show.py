"""`kvbench show` in its forms, of the example that is in the repository."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kvbench.cli.app import app

EXAMPLE = str(Path(__file__).parents[2] / "results" / "examples" / "vllm-gpu-fs" / "20261121T224531Z")


def show(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["show", EXAMPLE, *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_json_is_the_whole_summary_unless_a_table_is_named() -> None:
    assert json.loads(show("--json")) == json.loads(show("--format", "json"))
    assert json.loads(show("--json"))["scenario"] == "vllm-gpu-fs"
    table = json.loads(show("--json", "--table", "metrics"))
    assert table["name"] == "metrics"
    assert [row["treatment"]["value"] for row in table["rows"]] == ["recompute", "g3"]


def test_csv_and_json_hold_the_same_values() -> None:
    table = json.loads(show("--format", "json", "--table", "ttft_by_length"))
    rows = list(csv.DictReader(io.StringIO(show("--format", "csv", "--table", "ttft_by_length"))))
    assert len(rows) == len(table["rows"]) == 10
    for row, typed in zip(rows, table["rows"], strict=True):
        assert float(row["ttft_p50 (s)"]) == typed["ttft_p50"]["value"]
        assert row["ttft_p99 (s)"] == ""
        assert row["ttft_p99 refusal"] == typed["ttft_p99"]["refusal"]


def test_markdown_and_latex_hold_every_table_of_the_terminal() -> None:
    assert show("--format", "md").count("**") == 2 * 3
    assert show("--format", "latex").count("\\begin{table}") == 3


def test_one_table_in_the_terminal() -> None:
    text = show("--table", "steps")
    assert "Steps to the cache states" in text
    assert "TTFT by prompt length" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--format", "csv"), "a CSV file holds one table"),
        (("--table", "nothing"), "there is no table nothing"),
        (("--table", "neighbors"), "vllm-gpu-fs has nothing for the table neighbors"),
    ],
)
def test_a_table_must_be_named_and_be_there(arguments: tuple[str, ...], words: str) -> None:
    done = CliRunner().invoke(app, ["show", EXAMPLE, *arguments])
    assert words in str(done.exception)
