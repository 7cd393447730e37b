"""Claims files: what is read, what is inherited, and that every fault is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvbench import model_shapes
from kvbench.errors import ResultError
from kvbench.publications import claims_file, library
from tests.cli.test_cli import kvbench

HEAD = """\
schema_version: 1
name: example
title: An example
source: {publisher: nobody}
experiments:
- {id: one, section: Results, requests: 100, concurrency: 8, cache: on}
"""
TABLE = """\
tables:
- experiment: one
  section: Table 1
  columns:
    ttft: {what: ttft, statistic: mean, unit: s}
    change: {change_of: ttft, versus: off, unit: "%"}
  rows:
  - {treatment: off, cache: off, figures: {ttft: "1.00"}}
  - {treatment: disk, requests: 50, tiers: [g3], figures: {ttft: "0.50", change: "-50"}}
"""


def test_digits_stay_as_they_were_printed() -> None:
    document = claims_file.parse(HEAD + TABLE, "example")
    assert [figure.printed.text for figure in document.figures] == ["1.00", "0.50", "-50"]
    assert document.figure("off.ttft").interval.ends == pytest.approx((0.995, 1.005))


def test_a_condition_inherits_from_its_experiment_and_may_say_it_differently() -> None:
    cells = {cell.treatment: cell for cell in claims_file.parse(HEAD + TABLE, "example").cells}
    assert (cells["off"].load.requests, cells["off"].load.cache, cells["off"].load.concurrency) == (100, "off", 8)
    assert (cells["disk"].load.requests, cells["disk"].load.cache, cells["disk"].load.tiers) == (50, "on", ("g3",))
    assert cells["off"].place == cells["disk"].place


def test_a_column_of_changes_becomes_derived_claims() -> None:
    (claim,) = claims_file.parse(HEAD + TABLE, "example").derived
    assert (claim.of, claim.over, claim.form, claim.value) == ("disk.ttft", "off.ttft", "change", "-50")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("schema_version: [", "not YAML"),
        (HEAD + "quantity: []\n", "example:7: unknown key `quantity`"),
        (HEAD.replace("source: {publisher: nobody}\n", ""), "`source` is missing"),
        (HEAD.replace("schema_version: 1", "schema_version: 7"), "has schema_version 7, not 1"),
        (HEAD + "quantities:\n- {id: a, what: ttft, value: x, unit: s, section: s}\n", "example:8: `quantities.0`"),
        (HEAD + "quantities:\n- {id: a, what: ttft, value: '1', unit: GB, section: s}\n", "ttft is measured in time"),
        (
            HEAD + "quantities:\n- {id: a, what: ttft, value: '1', unit: s, section: s, condition: b}\n",
            "names a condition b",
        ),
        (HEAD + "derived:\n- {text: t, section: s, form: ratio, value: '2', of: a, over: b}\n", "refers to a figure a"),
        (HEAD + "derived:\n- {text: t, section: s, form: sum, value: '2', of: a, over: b}\n", "has `parts`"),
        (HEAD + TABLE + "  - {treatment: off, figures: {ttft: '2'}}\n", "two things of the id off"),
        (HEAD + TABLE.replace('ttft: "0.50"', 'tttf: "0.50"'), "which is no column"),
        (HEAD + TABLE.replace('ttft: "0.50"', 'ttft: "fast"'), "'fast' is not a number"),
        (HEAD + TABLE.replace("versus: off", "versus: ssd"), "has no row of ssd"),
        (HEAD + TABLE.replace("experiment: one", "experiment: two"), "is of no experiment"),
        (HEAD + "model: {shape: gpt-9, section: s}\n", "gpt-9 is not a model whose shape is known"),
        (HEAD.replace("concurrency: 8", "concurrency: many"), "'many' is not a count"),
    ],
)
def test_every_fault_is_one_sentence_with_a_remedy(text: str, told: str) -> None:
    with pytest.raises(ResultError) as fault:
        claims_file.parse(text, "example")
    assert told in fault.value.message
    assert fault.value.remedy


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (HEAD + "quantitys: []\n", "Did you mean `quantities`?"),
        (HEAD + TABLE.replace("what: ttft", "waht: ttft"), "Did you mean `what`?"),
        (HEAD + TABLE.replace("what: ttft", "what: tftt"), "Did you mean ttft?"),
        (HEAD + "model: {shape: llama-3-80b, section: s}\n", "Did you mean llama-3-8b?"),
        (HEAD.replace("cache: on", "cache: of"), "Did you mean off?"),
    ],
)
def test_a_slip_has_its_nearest_word(text: str, remedy: str) -> None:
    with pytest.raises(ResultError) as fault:
        claims_file.parse(text, "example")
    assert fault.value.remedy == remedy


def test_thousands_may_be_written_as_people_write_them() -> None:
    document = claims_file.parse(
        HEAD.replace("concurrency: 8", "concurrency: 8, prompt_tokens: 32k") + TABLE, "example"
    )
    assert document.cells[0].load.prompt_tokens == 32_000
    tokens = "quantities:\n- {id: a, what: kv_tokens, value: 32k, unit: tokens, section: s}\n"
    (figure,) = claims_file.parse(HEAD + tokens, "example").figures
    assert figure.printed.interval.ends == (31_500, 32_500)


def test_a_file_with_nothing_to_check_is_no_success(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(HEAD + 'quantities:\n- {id: a, what: ttft, value: "1.0", unit: s, section: s}\n')
    done = kvbench("audit", path)
    assert done.returncode == 1
    assert "nothing could be checked" in done.stdout
    assert f"nothing in {path} could be checked" in done.stderr
    assert "0 findings" not in done.stdout


FIGURES = """\
- {id: noisy, section: slide 7}
quantities:
- {id: working-set, what: kv_tokens, value: "32k", unit: tokens, section: slide 5}
- {id: load, what: neighbour_rate, value: "20", unit: GB/s, section: slide 7}
- {id: storage, what: storage_read, value: "40", unit: GB/s, section: slide 7}
curves: {sweep: {section: slide 3, quantity: TTFT, experiment: one, treatments: {recompute: {printed: {10k: "0.57"}}}}}
"""


def test_the_documented_entry_of_every_list_is_one() -> None:
    rows = [line for line in Path("docs/claims.md").read_text().splitlines() if line.startswith("| `")]
    entries = {row.split("`")[1]: row.split("`")[-2] for row in rows if row.split("`")[-2].startswith("{")}
    assert set(entries) == {"growth", "fits", "promises", "features", "neighbours"}
    lists = "".join(f"{name}: [{entry}]\n" for name, entry in entries.items())
    claims = claims_file.parse(HEAD + FIGURES + lists, "docs/claims.md").claims
    assert all(len(getattr(claims, name)) == 1 for name in entries)


def test_every_known_shape_is_documented() -> None:
    text = Path("docs/claims.md").read_text()
    assert all(f"`{name}`" in text for name in model_shapes.KNOWN_SHAPES)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="cannot read"):
        claims_file.load(tmp_path / "none.yaml")


def test_published_curves_still_serve_scenarios() -> None:
    publication = library.load("ibm-storage-scale/benchmark-1")
    assert publication.curves["recompute"].at(130000) == (32.14, "printed")
    value, kind = publication.curves["g4"].at(1000)
    assert value == pytest.approx(0.1616 + 3.1417e-6 * 1000)
    assert kind == "derived"
    assert publication.speed_up == {130000: 56}
    with pytest.raises(ResultError, match="no section benchmark-9") as fault:
        library.load("ibm-storage-scale/benchmark-9")
    assert "benchmark-1" in fault.value.remedy


@pytest.mark.parametrize("name", library.names())
def test_every_published_figure_has_a_section(name: str) -> None:
    document = library.document(name)
    assert all(figure.section for figure in document.figures)
    assert len(document.figures) > 20
    assert document.claims.source.publisher


@pytest.mark.parametrize("key", ["scenario_rows", "beside"])
def test_rows_for_a_scenario_are_read_under_their_older_name_too(key: str) -> None:
    row = "{treatments: [g4], figures: {ttft_mean: off.ttft}}"
    rows = f"{key}:\n  all: {{section: s, ratios: times, rows: {{a: {row}}}}}\n"
    (table,) = claims_file.parse(HEAD + TABLE + rows, "example").claims.scenario_rows.values()
    assert table.rows["a"].treatments == ("g4",)


def test_a_fault_in_rows_under_their_older_name_is_told_with_its_line() -> None:
    rows = "beside:\n  all:\n    section: s\n    ratios: times\n    rows: {}\n    rosw: 1\n"
    with pytest.raises(ResultError, match="unknown key `rosw`") as fault:
        claims_file.parse(HEAD + rows, "example")
    assert fault.value.message.startswith("example:12:")
