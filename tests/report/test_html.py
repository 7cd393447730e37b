"""The page as a whole: all figures, nothing from outside, the same bytes each time, and the same content as PDF."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.analysis import summary
from kvbench.analysis.metrics import METRICS
from kvbench.errors import ResultError, StorageError
from kvbench.report import material
from kvbench.report.html import render, write_report
from kvbench.report.reasons import grouped_reasons
from kvbench.report.tables.metrics import SHOWN
from kvbench.report.text import bare_refusal, ratio, short_word, three_digits, value_text
from kvbench.result.redact import without_secrets
from kvbench.result.verdict import Reason
from kvbench.units import format_duration, format_size
from tests.builders import summaries
from tests.builders.results import Case, build

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.analysis.summary_types import JudgedRatio, Summary

ALL_RUNS = tuple(f"r{number:02d}-{name}" for number in (1, 2, 3) for name in ("recompute", "g4"))
CASES = {
    "full": Case(name="full", repeats=3),
    "external": Case(name="external", scale=None, published=None, repeats=3, unproven=ALL_RUNS),
    "no-baseline": Case(name="no-baseline", baseline=None, repeats=2, lengths=["10k", "130k"]),
    "one-treatment": Case(
        name="one-treatment", treatments={"g4": {"cache": {"warm": "g4"}}}, baseline=None, published=None, repeats=2
    ),
    "single-point": Case(name="single-point", lengths=["130k"], repeats=1),
    "one-invalid": Case(name="one-invalid", repeats=3, failing=("r02-g4",), lengths=["10k", "130k"]),
    "no-valid-run": Case(name="no-valid-run", repeats=2, failing=("r01-g4", "r02-g4"), lengths=["10k", "130k"]),
    "incomplete": Case(name="incomplete", repeats=3, missing=("r03-g4", "r03-recompute"), lengths=["10k", "130k"]),
    "three": Case(
        name="three",
        treatments={"recompute": {"cache": "off"}, "g4": {"cache": {"warm": "g4"}}, "g1": {"cache": {"warm": "g1"}}},
        repeats=2,
        lengths=["10k", "130k"],
    ),
}


class Shelf:
    """Holds each synthetic result and its page, made when they are first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, Path] = {}
        self._pages: dict[str, str] = {}

    def folder(self, name: str) -> Path:
        if name not in self._folders:
            self._folders[name] = build(CASES[name], self._root)
        return self._folders[name]

    def page(self, name: str) -> str:
        if name not in self._pages:
            self._pages[name] = render(material.read(self.folder(name)))
        return self._pages[name]

    def text(self, name: str) -> str:
        return text_of(self.page(name))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("results"))


class _Text(HTMLParser):
    """Collects the text of a page without its plots and style, and every reference that it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.references: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("svg", "style")
        self.references += [value or "" for key, value in attrs if key in ("src", "href", "xlink:href", "data")]

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("svg", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def read(html: str) -> _Text:
    parser = _Text()
    parser.feed(html)
    return parser


def text_of(html: str) -> str:
    return " ".join(" ".join(read(html).words).split())  # no-break spaces become plain ones


@pytest.mark.parametrize("name", CASES)
def test_refers_to_nothing_outside(shelf: Shelf, name: str) -> None:
    html = shelf.page(name)
    assert [reference for reference in read(html).references if not reference.startswith("#")] == []
    assert re.findall(r"url\((?!#)[^)]*\)", html) == []
    assert re.findall(r"@import|<script|<link|<iframe", html) == []


@pytest.mark.parametrize("name", CASES)
def test_every_reference_in_a_plot_has_its_target(shelf: Shelf, name: str) -> None:
    html = shelf.page(name)
    identifiers = re.findall(r'\bid="([^"]+)"', html)
    assert len(identifiers) == len(set(identifiers))
    targets = {reference.removeprefix("#") for reference in read(html).references} | set(
        re.findall(r"url\(#([^)]+)\)", html)
    )
    assert targets <= set(identifiers)


@pytest.mark.parametrize("name", CASES)
def test_holds_every_figure_of_the_summary(shelf: Shelf, name: str) -> None:
    text = shelf.text(name)
    for figure in _figures(summary.summarise(shelf.folder(name))):
        assert figure in text


def _figures(summed: Summary) -> list[str]:
    wanted = [run.run_id for run in summed.runs]
    for row in summed.lengths:
        for cell in row.cells.values():
            times = (cell.median_s, cell.min_s, cell.max_s, cell.full_scale_median_s, cell.published_s)
            wanted += [format_duration(value) for value in times if value is not None]
            wanted += [
                three_digits(value) for value in (cell.published_ratio, cell.recompute_over_load) if value is not None
            ]
            wanted += _ratio(cell.comparison) if cell.comparison is not None else []
            wanted += [bare_refusal(figure.refusal) for figure in cell.ttft.values() if figure.refusal and figure.n]
    for item in summed.treatments.values():
        known = {name: item.metrics[name].value for name in SHOWN}
        texts = [value_text(METRICS[name].unit, value) for name, value in known.items() if value is not None]
        wanted += [text.replace("\N{NO-BREAK SPACE}", " ") for text in texts]
        if item.runs_used:
            wanted += [f"{item.runs_used} of {item.runs}"]
            wanted += [format_size(item.read_bytes)] if item.read_bytes is not None else []
            wanted += [f"{item.hit_efficiency:.4f}"] if item.hit_efficiency is not None else []
    return wanted


def _ratio(judged: JudgedRatio) -> list[str]:
    wanted = [ratio(judged.ratio)] if judged.ratio is not None else []
    if judged.low is not None and judged.high is not None:
        low, high = ratio(judged.low), ratio(judged.high)
        wanted += [f"{low.removesuffix('x')}\N{EN DASH}{high}", short_word(judged.word)]
    return wanted


def test_is_the_same_each_time_and_in_each_place(shelf: Shelf, tmp_path: Path) -> None:
    again = build(CASES["full"], tmp_path)
    assert render(material.read(again)) == shelf.page("full")


def test_answers_with_figures_and_proof(shelf: Shelf) -> None:
    text = shelf.text("full")
    assert "At 130k tokens TTFT is 56.5x shorter when KV is read back from G4 than when it is recomputed" in text
    assert "n = 3 each; 95 % interval 55.9x to 57.0x over 3 rounds" in text
    assert "100 % of those requests were proven to be served from G4." in text


def test_does_not_claim_a_tier_that_was_not_proven(shelf: Shelf) -> None:
    text = shelf.text("external")
    assert "which tier served the requests of g4 and recompute was not proven" in text
    assert "not proven" in text
    assert "prove off" in text.split("neither proven nor done")[1]


def _again(**changes: Any) -> Case:
    treatments = {"recompute": {"cache": "off"}, "again": {"cache": "off"}}
    return Case(name="equal", treatments=treatments, scale=None, published=None, lengths=["10k"], **changes)


def test_says_that_no_difference_is_shown(tmp_path: Path) -> None:
    text = text_of(render(material.read(build(_again(jitter=0.2), tmp_path))))
    assert "no difference in TTFT is shown between again and recompute" in text
    assert re.search(
        r"noise floor of TTFT P50 \(A/A, again against recompute; 5 rounds\): 1\.[34]\d\dx; no smaller difference", text
    )


def test_says_that_treatments_are_equivalent(tmp_path: Path) -> None:
    text = text_of(render(material.read(build(_again(), tmp_path))))
    assert "At 10k tokens TTFT of again and recompute is equivalent within 5 %" in text


def test_two_rounds_have_a_range_and_no_interval(shelf: Shelf) -> None:
    text = shelf.text("one-invalid")
    assert "56.1x to 56.7x over 2 rounds, too few for an interval" in text
    assert "56.1x to 56.7x seen in 2 rounds" in text


def test_says_when_a_treatment_is_slower(tmp_path: Path) -> None:
    case = Case(name="slower", slower={"g4": 8.0}, lengths=["10k"], published=None)
    text = text_of(render(material.read(build(case, tmp_path))))
    assert re.search(r"TTFT is 2\.\d+x longer when KV is read back from G4", text)


def test_marks_invalid_runs_and_leaves_them_out(shelf: Shelf) -> None:
    html = shelf.page("one-invalid")
    assert html.count('<tr class="struck">') == 2  # in the list of runs and under the client's health
    text = text_of(html)
    assert "left out of all figures. invalid: 1 of 2 requests failed: 1 cut" in text
    assert "2 of 3" in text  # n at each length
    assert "What to do: Look at the server's log." in text


def test_reasons_of_one_kind_are_told_once() -> None:
    reasons = [Reason("suspect", "overrun", f"ran over by {number}.5%", "Wait.") for number in (1, 2, 3)]
    reasons.append(Reason("suspect", "overrun", "was silent", "Wait."))
    runs = tuple(summaries.run(f"r{number}", reasons=(reason,)) for number, reason in enumerate(reasons, 1))
    told = grouped_reasons(summaries.summary(runs=runs))
    assert [(reason.text, owners) for reason, owners in told] == [
        ("ran over by 1.5%", ["r1", "r2", "r3"]),
        ("was silent", ["r4"]),
    ]


def test_a_cell_without_a_figure_says_why(shelf: Shelf) -> None:
    text = shelf.text("no-valid-run")
    assert "g4 cannot be compared with recompute: no round has a usable run of both." in text
    assert text.count("no valid run") >= 3  # at both lengths and in the proof


def test_says_that_a_result_is_not_complete(shelf: Shelf) -> None:
    text = shelf.text("incomplete")
    assert "The result is not complete: 4 of 6 runs (66.7 %) are done." in text
    assert "So far, after 4 of 6 runs:" in text
    assert text.count("planned, not done yet") == 2


def test_steps_that_were_not_established_are_told_where_all_runs_are_called_what_was_asked_for(shelf: Shelf) -> None:
    one = material.read(shelf.folder("full"))
    summed = replace(one.summary, verdict="valid")
    assert "each of them is what was asked for." in text_of(render(replace(one, summary=summed)))
    first, *others = summed.runs
    steps = (replace(first.cache_steps[0], outcome="not established"), *first.cache_steps[1:])
    summed = replace(summed, runs=(replace(first, cache_steps=steps), *others))
    text = text_of(render(replace(one, summary=summed)))
    assert "each of them is what was asked for; steps that could not be established on the way" in text


def test_the_proof_says_what_a_missing_source_does(shelf: Shelf) -> None:
    text = shelf.text("external")
    assert "Every source that is there must agree, or a request is unproven." in text
    assert "Without cached tokens or hit counters it always is." in text


def test_says_that_no_calibration_is_attached(shelf: Shelf) -> None:
    assert "No calibration is attached to this result" in shelf.text("full")


def test_a_scale_model_keeps_full_scale_apart(shelf: Shelf) -> None:
    assert "At full scale: the measured median times 8" in shelf.text("full")
    assert "At full scale" not in shelf.text("external")


def test_escapes_what_the_scenario_says(tmp_path: Path) -> None:
    question = "Is <script>alert('x')</script> & \"quoted\" text escaped?"
    treatments = {"recompute": {"cache": "off"}, "g4": {"cache": {"warm": "g4"}}}
    html = render(material.read(build(Case(question=question, treatments=treatments, lengths=["10k"]), tmp_path)))
    assert "<script" not in html
    assert "&lt;script&gt;alert(" in html
    assert question in text_of(html)
    assert "Example CPU &lt;8 cores&gt;" in html


def test_shows_no_credentials(tmp_path: Path) -> None:
    case = Case(question="Why http://me:pa55@host/v1?api_key=abcd1234&x=1 and Bearer abcdef123456?", lengths=["10k"])
    html = render(material.read(build(case, tmp_path)))
    assert not re.search("pa55|abcd1234|abcdef123456", html)
    assert "http://[hidden]@host/v1?api_key=[hidden]" in html


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host:8000/v1", "https://host:8000/v1"),
        ("https://u:p%40w@host:8000/v1", "https://[hidden]@host:8000/v1"),
        ("u@host and a path /a@b", "u@host and a path /a@b"),
        ("key sk-abcdefghijklmnop1234 end", "key [hidden] end"),
    ],
)
def test_takes_credentials_out_of_text(text: str, shown: str) -> None:
    assert without_secrets({"a": [text, 1, None]}) == {"a": [shown, 1, None]}


def test_writes_html_and_pdf_with_the_same_content(shelf: Shelf, tmp_path: Path) -> None:
    written = write_report([report_input.read(shelf.folder("one-invalid"))], tmp_path / "out", html=True, pdf=True)
    assert [path.name for path in written] == ["one-invalid.html", "one-invalid.pdf"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one-invalid.html", "one-invalid.pdf"]
    assert written[0].read_text() == shelf.page("one-invalid")
    assert written[1].read_bytes().startswith(b"%PDF")
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not on PATH, so the PDF's text cannot be read")
    done = subprocess.run(["pdftotext", "-layout", written[1], "-"], capture_output=True, text=True, check=True)
    assert "one-invalid" in done.stdout
    assert "page 1 of " in done.stdout
    medians = [
        cell.median_s for row in summary.summarise(shelf.folder("one-invalid")).lengths for cell in row.cells.values()
    ]
    assert len(medians) == 4
    for median_s in medians:
        assert median_s is not None
        assert format_duration(median_s) in done.stdout
    assert "left out of all figures" in " ".join(done.stdout.split())


def test_writes_only_what_was_asked_for(shelf: Shelf, tmp_path: Path) -> None:
    assert [path.name for path in write_report([report_input.read(shelf.folder("full"))], tmp_path, html=True, pdf=False)] == ["full.html"]


def test_two_results_of_one_scenario_get_names_of_their_own(tmp_path: Path) -> None:
    first = build(Case(name="twice", repeats=1, lengths=["10k"]), tmp_path / "a")
    second = first.with_name("20251122T080000Z")
    shutil.copytree(first, second)
    inputs = [report_input.read(folder) for folder in (first, second, first)]
    written = write_report(inputs, tmp_path / "out", html=True, pdf=False)
    names = ["twice-20251121T200000Z.html", "twice-20251122T080000Z.html", "twice-20251121T200000Z-2.html"]
    assert [path.name for path in written] == names


def test_a_folder_that_cannot_be_written_is_an_error_with_a_remedy(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write") as caught:
        write_report([report_input.read(shelf.folder("full"))], tmp_path / "file" / "out", html=True, pdf=False)
    assert "--out" in caught.value.remedy


def test_a_folder_that_is_no_result_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultError):
        render(material.read(tmp_path))
