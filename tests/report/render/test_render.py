from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from kvbench.report.render import FORMATS
from kvbench.report.render.to_csv import to_csv
from kvbench.report.render.to_html import to_html
from kvbench.report.render.to_json import to_json
from kvbench.report.render.to_latex import to_latex
from kvbench.report.render.to_markdown import to_markdown
from kvbench.report.render.to_rich import to_rich
from kvbench.report.table import Cell, Column, Table, row

COLUMNS = (
    Column("treatment", "Treatment", kind="name", is_key=True),
    Column("n", "n", "count"),
    Column("ttft_p50", "Median TTFT", "s", "lower", interval_priority=3),
    Column("hit_rate", "Hit rate", "share", "higher", priority=2),
    Column("reasons", "Reasons", kind="long", priority=4),
)
WARM = row("warm_<b>", 60, Cell(0.02421, low=0.0239, high=0.0246), 0.99956, "100 % of it & more", mark="begin")
COLD = row(
    "cold",
    Cell(4, text="4 of 60", mark="suspect"),
    Cell(None, refusal="n/a (n=4 < 5)", mark="quiet"),
    None,
    "a | b",
    mark="struck",
)
TABLE = Table("example", "An example", COLUMNS, (WARM, COLD), ("n: requests.",))


def in_terminal(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    for part in to_rich(table, width):
        console.print(part)
    written = console.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


def test_a_row_has_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="example: 5 columns, 1 cells"):
        Table("example", "An example", COLUMNS, (row("warm"),))


def test_a_wide_terminal_shows_everything() -> None:
    text = in_terminal(TABLE, 120)
    assert "24.2 ms (23.9\N{EN DASH}24.6)" in text
    assert "99.96 %" in text
    assert "n/a (n=4 < 5)" in text
    assert "Left out" not in text


def test_a_narrow_terminal_leaves_out_by_priority_and_says_so() -> None:
    text = in_terminal(TABLE, 62)
    assert "Left out at this width: Reasons." in text
    assert "24.2 ms (23.9\N{EN DASH}24.6)" in text
    text = in_terminal(TABLE, 32)
    assert "24.2 ms" in text
    assert "23.9" not in text
    assert max(map(len, text.splitlines())) <= 32


@pytest.mark.parametrize("width", [30, 40, 50, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, in_terminal(TABLE, width).splitlines())) <= width


def test_what_cannot_be_left_out_is_split_with_its_keys_repeated() -> None:
    columns = (COLUMNS[0], *(Column(f"c{number}", f"column {number}", "s") for number in range(6)))
    table = Table("wide", "Wide", columns, (row("warm", *[0.5 + number for number in range(6)]),))
    text = in_terminal(table, 40)
    assert text.count("warm") == 2
    assert "Wide, continued" in text
    assert all(value in text for value in ("500 ms", "1.50 s", "2.50 s", "3.50 s", "4.50 s", "5.50 s"))


def test_a_turned_table_has_a_column_for_each_row() -> None:
    table = Table("example", "An example", COLUMNS[:3], (row("warm", 60, 0.5), row("cold", 59, 0.7)), is_turned=True)
    lines = [line.split() for line in in_terminal(table, 80).splitlines()]
    assert ["warm", "cold"] in lines
    assert ["Median", "TTFT", "500", "ms", "700", "ms"] in lines
    assert to_csv(table).splitlines()[1] == "warm,60,0.5"


def test_the_page_splits_a_turned_table_evenly() -> None:
    rows = tuple(row(f"t{number}", number) for number in range(5))
    page = to_html(Table("example", "An example", COLUMNS[:2], rows, is_turned=True))
    assert [part.count("<th") for part in page.split("<table>")[1:]] == [5, 4]  # with the row of names, and thead


def test_html_escapes_and_marks() -> None:
    page = to_html(TABLE)
    assert 'class="name">warm_<wbr>&lt;b&gt;</td>' in page
    assert '<tr class="struck">' in page
    assert '<td class="number suspect">4 of 60</td>' in page
    assert '24.2 ms<span class="below">23.9\N{EN DASH}24.6\N{NO-BREAK SPACE}ms</span>' in page


def test_csv_has_all_digits_units_and_refusals_and_never_an_invented_zero() -> None:
    header, warm, cold = csv.reader(io.StringIO(to_csv(TABLE)))
    assert header == [
        *("treatment", "n", "ttft_p50 (s)", "ttft_p50 low (s)", "ttft_p50 high (s)", "ttft_p50 refusal"),
        *("hit_rate (share)", "reasons"),
    ]
    assert warm == ["warm_<b>", "60", "0.02421", "0.0239", "0.0246", "", "0.99956", "100 % of it & more"]
    assert cold == ["cold", "4", "", "", "", "n/a (n=4 < 5)", "", "a | b"]


def test_words_in_place_of_a_number_are_a_refusal_in_csv() -> None:
    table = Table("example", "An example", COLUMNS[:2], (row("warm", Cell(text="no run yet")),))
    assert to_csv(table) == "treatment,n,n refusal\nwarm,,no run yet\n"


def test_json_is_typed() -> None:
    read = json.loads(to_json(TABLE))
    assert read["columns"][2] == {"name": "ttft_p50", "heading": "Median TTFT", "unit": "s", "better": "lower"}
    assert read["rows"][0]["ttft_p50"] == {
        "value": 0.02421,
        "low": 0.0239,
        "high": 0.0246,
        "refusal": None,
        "text": "24.2 ms",
        "below": None,
    }
    assert read["rows"][1]["ttft_p50"]["value"] is None
    assert read["rows"][1]["ttft_p50"]["refusal"] == "n/a (n=4 < 5)"


def test_markdown_escapes_its_own_signs() -> None:
    text = to_markdown(TABLE)
    assert text.startswith("**An example**\n\n| Treatment | n |")
    assert "| :--- | ---: | ---: | ---: | :--- |" in text
    assert r"warm\_\<b>" in text
    assert r"a \| b" in text
    assert text.endswith("\nn: requests.\n")


def test_latex_escapes_its_own_signs() -> None:
    text = to_latex(TABLE)
    assert r"\begin{tabular}{lrrrl}" in text
    assert r"warm\_\textless{}b\textgreater{} & 60 & 24.2 ms (23.9--24.6) & 99.96~\% & 100 \% of it \& more \\" in text
    assert r"\toprule" in text
    assert r"\label{tab:example}" in text


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_shows_an_empty_table(name: str) -> None:
    assert FORMATS[name](Table("example", "An example", COLUMNS, ())).endswith("\n")
