"""How tables lie on paper and in a window: no lone rows at a page's end or start, and whole names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import kvbench
from kvbench.report import html, read_result
from tests.builders.results import Case, build

if TYPE_CHECKING:
    from collections.abc import Iterator

STYLE = (Path(kvbench.__file__).parent / "report" / "templates" / "report.css").read_text()


def rows_of_each_piece(above_pt: int, rows: int, kind: str) -> list[int]:
    """Lay a heading and a table out below an empty space; count the rows that each page has of the table."""
    import weasyprint  # noqa: PLC0415

    body = "".join(f"<tr><td>{number}</td></tr>" for number in range(rows))
    table = f"<div class='{kind}'><table><thead><tr><th>head</th></tr></thead><tbody>{body}</tbody></table></div>"
    page = f"<style>{STYLE}</style><main><div style='height: {above_pt}pt'></div><h2>Proof</h2>{table}</main>"
    laid_out: Any = weasyprint.HTML(string=page).render()
    counts = [sum(name == "TableCellBox td" for name in boxes(one._page_box)) for one in laid_out.pages]
    return [count for count in counts if count]


def boxes(box: Any) -> Iterator[str]:
    yield f"{type(box).__name__} {box.element_tag}"
    for child in getattr(box, "children", ()):
        yield from boxes(child)


@pytest.mark.parametrize("above_pt", [560, 600, 615, 630, 645, 660])
def test_no_page_holds_a_lone_row_of_a_long_table(above_pt: int) -> None:
    pieces = rows_of_each_piece(above_pt, 12, "scroll")
    assert sum(pieces) == 12
    assert min(pieces) >= 3


def test_a_short_table_stays_on_one_page() -> None:
    assert rows_of_each_piece(600, 8, "scroll short") == [8]
    assert len(rows_of_each_piece(600, 8, "scroll")) == 2


def test_names_break_at_underscores_alone_and_only_on_paper(tmp_path: Path) -> None:
    treatments = {"recompute": {"cache": "off"}, "recompute_again_<b>": {"cache": "off"}}
    case = Case(name="names", treatments=treatments, published=None, lengths=["10k"], repeats=1)
    page = html.render(read_result.read(build(case, tmp_path)))
    assert "recompute_<wbr>again_<wbr>&lt;b&gt;" in page
    assert re.search(r"td\.name \{[^}]*overflow-wrap: break-word", STYLE)
    assert "td.name wbr { display: none; }" in STYLE
