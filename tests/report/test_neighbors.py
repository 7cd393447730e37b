"""What readers see of neighbours: sentences, tables that fit, plots, and the page's section."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.analysis import summary
from kvbench.report import answer, read_result
from kvbench.report.html import render
from kvbench.report.neighbors import answers, setting, troubles
from kvbench.report.tables import neighbors as neighbors_table
from kvbench.report.tables.neighbor_load import neighbor_load
from kvbench.report.tables.published_neighbors import sentence
from kvbench.report.text import SPACE, percent
from tests.builders import report_inputs
from tests.builders import results as synthetic
from tests.builders.made_up_doses import Dose, build
from tests.builders.screens import shown_table
from tests.report.test_html import read, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.analysis.neighbor_types import NeighborImpact
    from kvbench.analysis.summary_types import Summary

FULL = Dose(lost=("r02-storage_25",), gone=("r03-storage_50",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(FULL, tmp_path_factory.mktemp("dose"))


@pytest.fixture(scope="module")
def summed(folder: Path) -> Summary:
    return summary.summarise(folder)


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return render(read_result.read(folder))


def plain(texts: list[str]) -> list[str]:
    return [text.replace(SPACE, " ") for text in texts]


def shown(summed: Summary, width: int) -> str:
    return shown_table(neighbors_table.neighbors(report_inputs.report_input(summed)), width)


def impact_of(summed: Summary) -> NeighborImpact:
    assert summed.neighbors is not None
    return summed.neighbors


def small(folder: Path, **changes: Any) -> Summary:
    return summary.summarise(build(Dose(**{"repeats": 3, **changes}), folder))


def test_answers_with_the_dose_the_loss_and_the_increase(summed: Summary) -> None:
    storage, fabric, recompute = plain(answer.answers(summed))[:3]
    assert re.fullmatch(
        r"At 60 % of the bottleneck's capacity delivered by neighbours, throughput fell by (59|60)\.\d %, "
        r"i\.e\. the same work took 1[45]\d % longer \(1\d\d MB/s; 95 % intervals 59\.\d to 60\.\d % "
        r"and 14\d\.\d to 15\d\.\d %; 5 rounds of storage_63, fio on 4 side clients\)\.",
        storage,
    )
    assert fabric.startswith(
        "With 200 MB/s delivered by neighbours, throughput is equivalent within 5 % to that of qui"
    )
    assert "recomputed" in recompute
    assert len(answer.answers(summed)) == 3  # one for each load, and one for what has no neighbours


def test_one_round_is_told_without_an_interval(tmp_path: Path) -> None:
    storage, fabric = plain(answers(small(tmp_path, repeats=1)))
    assert "interval" not in storage
    assert "one round of storage_63" in storage
    assert re.search(r"throughput differs by 0\.\d+ % from that of quiet, too little for so few rounds", fabric)


def test_says_what_the_bottleneck_is_and_that_it_stands_for_no_product(summed: Summary) -> None:
    text = " ".join(plain(setting(impact_of(summed))))
    assert "disk reads of this machine limited to 300 MB/s (cgroup v1 blkio). It stands for no product" in text
    assert re.search(r"quiet drew 9\d\.\d % of it undisturbed, so storage bound the load", text)


def test_says_that_levels_cannot_be_told_apart_without_a_bottleneck(tmp_path: Path) -> None:
    text = " ".join(plain(setting(impact_of(small(tmp_path, made=False)))))
    assert "No bottleneck of 300 MB/s could be made: no read limit could be made (cgroup v1 blkio: permiss" in text
    assert "the levels cannot be told apart" in text


def test_says_that_the_experiment_was_not_bound_by_storage(tmp_path: Path) -> None:
    text = " ".join(plain(setting(impact_of(small(tmp_path, draw=0.7)))))
    assert "the experiment was not bound by storage, and shares are not judged" in text


def test_says_that_a_quiet_run_was_too_short_for_its_limit(tmp_path: Path) -> None:
    text = " ".join(plain(setting(impact_of(small(tmp_path, draw=1.1)))))
    assert re.search(r"quiet drew 1(09|10) % of it undisturbed in 6\.\d\d s: .* are not judged\. Send more", text)


def test_says_where_no_bottleneck_was_asked_for(tmp_path: Path) -> None:
    summed = small(tmp_path, asked=False)
    assert "No bottleneck was made" in setting(impact_of(summed))[0]
    assert "of what they reach alone delivered by neighbours" in plain(answers(summed))[0]


@pytest.mark.parametrize("width", [80, 120, 160])
def test_the_table_fits_the_terminal_and_cuts_nothing(summed: Summary, width: int) -> None:
    text = shown(summed, width)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert all(len(line) <= width for line in text.splitlines())
    for level in impact_of(summed).levels:
        assert re.search(rf"^ *{level.treatment} ", text, re.MULTILINE)
        for change in (level.kv_share, level.time_increase):
            assert percent(change.value or 0.0).replace(SPACE, " ") in text


def test_lost_hosts_and_broken_tries_are_told(summed: Summary) -> None:
    assert troubles(impact_of(summed)) == [
        "r02-storage_25, try 1 broken off: c3 was lost: its agent ended",
        "r03-storage_50: c2 was lost (no word for 3 s); the run is left out",
    ]
    assert "1 invalid" in shown_table(neighbor_load(report_inputs.report_input(summed)), 100)


def test_published_percentages_are_told_apart() -> None:
    """200 / 315 = 0.635; 1 - 3.6 / 4.26 = 0.155; 55.56 / 46.94 - 1 = 0.184."""
    told = sentence().replace(SPACE, " ")
    assert "200 GB/s of neighbours, 63.5 % of the 315 GB/s" in told
    assert "a throughput loss of 15.5 %" in told
    assert "a time increase of 18.4 %" in told
    assert "a reduction in throughput of 18 % is the time increase" in told


def test_a_scenario_that_names_the_publication_gets_its_rows_once(tmp_path: Path) -> None:
    dose_asked = Dose(repeats=1, published="ibm-storage-scale/benchmark-3")
    text = text_of(render(read_result.read(build(dose_asked, tmp_path))))
    assert "published: G4 with neighbours" in text
    assert "-15.5 %" in text.replace("\N{MINUS SIGN}", "-")
    assert "+18.4 %" in text
    assert "Throughput loss (1 - noisy / quiet)" not in text


def test_the_page_holds_every_level_and_every_side_client(page: str, summed: Summary) -> None:
    text = text_of(page)
    for level in impact_of(summed).levels:
        assert text.count(level.treatment) >= 3
        assert percent(level.throughput_loss.value or 0.0).replace(SPACE, " ") in text
    for words in (
        "within 10 %",
        "nothing paces it",
        "enforced",
        "mq-deadline",
        "disk, shared",
        "try 1 broken",
    ):
        assert words in text
    assert "a throughput loss of 15.5 %" in text


def test_the_page_stands_alone_with_these_plots_too(page: str) -> None:
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))
    assert [one for one in read(page).references if not one.startswith("#")] == []
    section = page[page.index('<section id="neighbors">') : page.index('<section id="curves">')]
    assert section.count("<svg viewBox=") == 2  # the response, and runs over time


def test_a_page_without_neighbours_has_no_such_section(tmp_path: Path) -> None:
    html = render(read_result.read(synthetic.build(synthetic.Case(repeats=1, lengths=["10k"]), tmp_path)))
    assert "Neighbours" not in text_of(html)


def test_says_which_levels_have_no_place_in_the_plot(page: str) -> None:
    assert "or no KV rate: fabric." in text_of(page)
