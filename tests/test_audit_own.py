"""Results of our own under the same rules, the report's section, and the command from end to end."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kvbench import claims_file, published, store, summary
from kvbench.audit import own, sources
from kvbench.audit.outcome import SEVERITIES
from kvbench.audit.rules import examine
from kvbench.errors import ResultError
from kvbench.report import audit_section, document, material
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from kvbench.claims_file import Document
    from kvbench.records import Row

EXAMPLE = next(Path("results/examples/vllm-gpu-fs").iterdir())
Rows = dict[str, list["Row"]]


@pytest.fixture(scope="module")
def measured() -> tuple[dict[str, Any], Rows]:
    summed = summary.summarise(EXAMPLE)
    return summed, {run["run_id"]: store.read_rows(EXAMPLE / "runs" / run["run_id"]) for run in summed["runs"]}


def test_a_real_result_has_no_finding(measured: tuple[dict[str, Any], Rows]) -> None:
    audit = examine(own.read(EXAMPLE))
    assert not audit.findings
    assert audit.held["Little's law"] == 2
    assert audit.held["hits against bytes read"] == 1
    assert audit.held["rates, totals and shares"] == 2  # hit rates of the rows against tokens of the ledgers
    assert examine(own.lay_out(*measured, 32768)).checks == audit.checks


def with_metric(summed: dict[str, Any], name: str, factor: float) -> dict[str, Any]:
    """Multiply one metric of every treatment."""
    changed = copy.deepcopy(summed)
    for item in changed["treatments"].values():
        item["metrics"][name]["value"] *= factor
    return changed


def test_a_hit_rate_that_the_ledgers_do_not_give_is_found(measured: tuple[dict[str, Any], Rows]) -> None:
    summed, rows = measured
    audit = examine(own.lay_out(with_metric(summed, "hit_rate", 0.9), rows, 32768))
    assert {check.rule for check in audit.findings} == {"rates, totals and shares"}


def test_rounds_that_asked_for_different_tokens_have_no_hit_rate_to_hold(measured: tuple[dict[str, Any], Rows]) -> None:
    changed, rows = copy.deepcopy(measured)
    run = next(run for run in changed["runs"] if run["treatment"] == "g3")
    run["ledger"]["prompt_tokens"] += 16
    assert "g3.hit-rate" not in names(own.lay_out(changed, rows, 32768))


def names(document: Document) -> set[str]:
    """Name all quantities."""
    return {one.id for one in document.claims.quantities}


def test_no_figure_is_stated_beside_what_it_was_divided_from(measured: tuple[dict[str, Any], Rows]) -> None:
    summed, rows = measured
    found = names(own.lay_out(summed, rows, 32768))
    assert "g3.rate" in found
    assert "g3.duration" not in found
    alone = {**summed, "runs": [{**run, "sent_one_by_one": True} for run in summed["runs"]]}
    found = names(own.lay_out(alone, rows, 32768))
    assert "g3.rate" not in found
    assert "g3.duration" in found


def test_rounds_and_intervals_are_told_only_as_far_as_there_are_any(measured: tuple[dict[str, Any], Rows]) -> None:
    changed, rows = copy.deepcopy(measured)
    (told,) = own.lay_out(changed, rows, None).claims.experiments
    assert (told.repeats, told.spread is not None) == (changed["repeats"], True)
    changed["treatments"]["g3"]["runs_used"] = 1
    for item in changed["treatments"].values():
        item["comparisons"] = {}
        for figure in item["metrics"].values():
            figure["low"] = None
    (told,) = own.lay_out(changed, rows, None).claims.experiments
    assert (told.repeats, told.spread) == (1, None)


def test_times_that_cannot_be_are_found(measured: tuple[dict[str, Any], Rows]) -> None:
    summed, rows = measured
    quick = with_metric(summed, "requests_per_s", 3)
    rules = {check.rule for check in examine(own.lay_out(quick, rows, 32768)).findings}
    assert rules == {"Little's law"}


def test_hits_without_bytes_are_found(measured: tuple[dict[str, Any], Rows]) -> None:
    summed, rows = measured
    runs = [{**run, "ledger": {**run["ledger"], "process_read_bytes": 4096}} for run in summed["runs"]]
    rules = {check.rule for check in examine(own.lay_out({**summed, "runs": runs}, rows, 32768)).findings}
    assert rules == {"hits against bytes read"}


def test_a_cold_run_that_is_too_fast_is_found(measured: tuple[dict[str, Any], Rows]) -> None:
    summed, rows = measured
    treatments = {**summed["treatments"], "g3": {**summed["treatments"]["g3"], "cache_state": "cold"}}
    audit = examine(own.lay_out({**summed, "treatments": treatments}, rows, 32768))
    assert {check.rule for check in audit.findings} == {"distinct draws"}


def test_failed_requests_give_no_rate_and_no_false_finding(measured: tuple[dict[str, Any], Rows]) -> None:
    summed, rows = measured
    name = next(iter(rows))
    broken = {**rows, name: [replace(row, status="timeout", ttft_s=None, latency_s=None) for row in rows[name]]}
    audit = examine(own.lay_out(summed, broken, 32768))
    assert not audit.findings
    assert audit.held["Little's law"] == 1


def test_a_result_without_books_or_lengths_is_audited_too(measured: tuple[dict[str, Any], Rows]) -> None:
    summed, rows = measured
    bare: dict[str, Any] = {"cached_tokens": None, "prompt_tokens": None, "read_bytes": {}, "process_read_bytes": None}
    runs = [{**run, "ledger": bare, "load_s": None} for run in summed["runs"]]
    told = {**summed, "runs": runs, "concurrency": None, "lengths": [{**summed["lengths"][0], "isl": None}]}
    audit = examine(own.lay_out(told, rows, None))
    assert not audit.findings
    assert audit.held["feasible summaries"] == 2


def test_the_report_has_a_section(tmp_path: Path) -> None:
    folder = tmp_path / EXAMPLE.name
    shutil.copytree(EXAMPLE, folder)
    one = material.read(folder)
    shown = audit_section.section(one)
    assert shown["findings"] == []
    assert shown["sentence"].endswith("0 findings")
    page = document.render(one)
    assert 'id="audit"' in page
    assert shown["sentence"] in page


def test_what_a_person_names_is_found_in_order(tmp_path: Path) -> None:
    assert sources.find("lmcache-gke", tmp_path).claims.name == "lmcache-gke"
    assert sources.find(str(EXAMPLE), tmp_path).claims.name == "vllm-gpu-fs"
    with pytest.raises(ResultError, match=r"there is no file none\.yaml"):
        sources.find("none.yaml", tmp_path)
    with pytest.raises(ResultError) as fault:
        sources.find("nothing", tmp_path)
    assert "wd-data24" in fault.value.remedy


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    called = [sys.executable, "-m", "kvbench", "audit", *arguments]
    return subprocess.run(called, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_the_command_tells_findings_and_fails_only_if_asked() -> None:
    done = command("wd-data24")
    assert done.returncode == 0, done.stderr
    assert "13 findings" in done.stdout
    assert "instead: " in done.stdout
    assert command("wd-data24", "--fail-on", "unsupported").returncode == 4
    assert command("lmcache-gke", "--fail-on", "unsupported").returncode == 0
    assert command("lmcache-gke", "--fail-on", "missing").returncode == 4
    assert command("lmcache-gke", "--fail-on", "nonsense").returncode == 2


def test_json_holds_every_check_with_its_arithmetic() -> None:
    told = json.loads(command("ibm-storage-scale", "--json").stdout)
    assert told["schema_version"] == 1
    assert told["findings"] == told["by_severity"]["conflict"] + told["by_severity"]["unsupported"] == 7
    assert all(check["arithmetic"] for check in told["checks"])
    assert sum(told["held_by_rule"].values()) + told["findings"] <= told["evaluated"] + len(told["checks"])


def test_the_example_of_the_documentation_has_the_findings_that_it_names() -> None:
    text = Path("docs/claims.md").read_text()
    example = text.split("```yaml\n")[1].split("```")[0]
    audit = examine(claims_file.parse(example, "example"))
    assert [check.rule for check in audit.findings] == ["percentiles against n", "rows promised"]
    told = {check.rule for name in published.names() for check in examine(published.document(name)).checks}
    assert not {rule for rule in told if rule not in text}


def test_the_hand_review_has_the_counts_of_every_document() -> None:
    text = Path("docs/audits.md").read_text()
    for name in published.names():
        audit = examine(published.document(name))
        counts = " | ".join(str(len(audit.of(severity))) for severity in SEVERITIES)
        assert f"| `{name}` | {audit.evaluated} | {counts} |" in text
        assert f"## {name}" in text


def test_a_broken_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("schema_version: 1\nnam: x\n")
    done = command(str(path))
    assert done.returncode == 1
    assert "mine.yaml:2: unknown key `nam`" in done.stderr
    assert "Did you mean `name`?" in done.stderr
