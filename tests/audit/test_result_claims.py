"""Results of our own under the same rules, the report's section, and the command from end to end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kvbench.analysis import dataset, summary
from kvbench.analysis.measured_result import SealedRun
from kvbench.audit import find, result_claims
from kvbench.audit.findings import SEVERITIES
from kvbench.audit.rules import examine
from kvbench.errors import ResultError
from kvbench.publications import claims_file, index, library
from kvbench.report import html, read_result
from kvbench.report.audit import section
from tests.builders.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvbench.analysis.measured_result import Dataset
    from kvbench.analysis.summary_types import Summary, TreatmentSummary
    from kvbench.publications.claims_file import Document
    from kvbench.result.run_record import RunRecord

EXAMPLE = next(Path("results/examples/vllm-gpu-fs").iterdir())


@pytest.fixture(scope="module")
def measured() -> tuple[Dataset, Summary]:
    read = dataset.read(EXAMPLE)
    return read, summary.summary_of(read)


def test_a_real_result_has_no_finding(measured: tuple[Dataset, Summary]) -> None:
    audit = examine(find.read_result(EXAMPLE))
    assert not audit.findings
    assert audit.held["Little's law"] == 2
    assert audit.held["hits against bytes read"] == 1
    assert audit.held["rates, totals and shares"] == 2  # hit rates of the rows against tokens of the ledgers
    assert examine(result_claims.lay_out(*measured)).checks == audit.checks


def with_metric(summed: Summary, name: str, factor: float) -> Summary:
    """Multiply one metric of every treatment."""

    def changed(item: TreatmentSummary) -> TreatmentSummary:
        figure = item.metrics[name]
        return replace(item, metrics={**item.metrics, name: replace(figure, value=(figure.value or 0.0) * factor)})

    return replace(summed, treatments={name: changed(item) for name, item in summed.treatments.items()})


def test_a_hit_rate_that_the_ledgers_do_not_give_is_found(measured: tuple[Dataset, Summary]) -> None:
    read, summed = measured
    audit = examine(result_claims.lay_out(read, with_metric(summed, "hit_rate", 0.9)))
    assert {check.rule for check in audit.findings} == {"rates, totals and shares"}


def test_rounds_that_asked_for_different_tokens_have_no_hit_rate_to_hold(measured: tuple[Dataset, Summary]) -> None:
    read, summed = measured
    first = next(run for run in read.runs if run.treatment == "g3")
    ledger = replace(first.record.ledger, prompt_tokens=(first.record.ledger.prompt_tokens or 0) + 16)
    other = replace(first, record=replace(first.record, ledger=ledger))
    changed = replace(read, runs=[other if run is first else run for run in read.runs])
    assert "g3.hit-rate" not in names(result_claims.lay_out(changed, summed))


def names(document: Document) -> set[str]:
    """Name all quantities."""
    return {one.id for one in document.claims.quantities}


def with_records(read: Dataset, change: Callable[[RunRecord], RunRecord]) -> Dataset:
    """Change the record of every run."""
    return replace(read, runs=[replace(run, record=change(run.record)) for run in read.runs])


def test_no_figure_is_stated_beside_what_it_was_divided_from(measured: tuple[Dataset, Summary]) -> None:
    read, summed = measured
    stated = names(result_claims.lay_out(read, summed))
    assert "g3.rate" in stated
    assert "g3.duration" not in stated
    alone = with_records(read, lambda record: replace(record, sent_one_by_one=True))
    stated = names(result_claims.lay_out(alone, summed))
    assert "g3.rate" not in stated
    assert "g3.duration" in stated


def test_rounds_and_intervals_are_told_only_as_far_as_there_are_any(measured: tuple[Dataset, Summary]) -> None:
    read, summed = measured
    (experiment,) = result_claims.lay_out(read, summed).claims.experiments
    assert (experiment.repeats, experiment.spread is not None) == (summed.repeats, True)

    def without_intervals(name: str, item: TreatmentSummary) -> TreatmentSummary:
        metrics = {metric: replace(figure, low=None) for metric, figure in item.metrics.items()}
        return replace(item, runs_used=1 if name == "g3" else item.runs_used, comparisons={}, metrics=metrics)

    treatments = {name: without_intervals(name, item) for name, item in summed.treatments.items()}
    (experiment,) = result_claims.lay_out(read, replace(summed, treatments=treatments)).claims.experiments
    assert (experiment.repeats, experiment.spread) == (1, None)


def test_times_that_cannot_be_are_found(measured: tuple[Dataset, Summary]) -> None:
    read, summed = measured
    quick = with_metric(summed, "requests_per_s", 3)
    rules = {check.rule for check in examine(result_claims.lay_out(read, quick)).findings}
    assert rules == {"Little's law"}


def test_hits_without_bytes_are_found(measured: tuple[Dataset, Summary]) -> None:
    read, summed = measured
    treatments = {name: replace(item, process_read_bytes=3 * 4096) for name, item in summed.treatments.items()}
    found = examine(result_claims.lay_out(read, replace(summed, treatments=treatments))).findings
    assert {check.rule for check in found} == {"hits against bytes read"}


def test_a_cold_run_that_is_too_fast_is_found(measured: tuple[Dataset, Summary]) -> None:
    read, summed = measured
    treatments = {**summed.treatments, "g3": replace(summed.treatments["g3"], cache_state="cold")}
    audit = examine(result_claims.lay_out(read, replace(summed, treatments=treatments)))
    assert {check.rule for check in audit.findings} == {"distinct draws"}


def test_failed_requests_give_no_rate_and_no_false_finding(measured: tuple[Dataset, Summary]) -> None:
    read, summed = measured
    first = read.runs[0]
    failed = first.measured.assign(status="timeout", ttft_s=None, latency_s=None)
    frame = failed.astype(first.measured.dtypes)
    changed = replace(read, runs=[SealedRun(first.record, frame, first.verdict), *read.runs[1:]])
    audit = examine(result_claims.lay_out(changed, summed))
    assert not audit.findings
    assert audit.held["Little's law"] == 1


def test_a_result_without_ledgers_or_lengths_is_audited_too(measured: tuple[Dataset, Summary]) -> None:
    read, summed = measured

    def bare(record: RunRecord) -> RunRecord:
        ledger = replace(record.ledger, cached_tokens=None, prompt_tokens=None, read_bytes={}, process_read_bytes=None)
        return replace(record, ledger=ledger, load_s=None, blocks=None)

    items = summed.treatments.items()
    silent = {name: replace(item, read_bytes=None, process_read_bytes=None) for name, item in items}
    lengths = (replace(summed.lengths[0], isl=None),)
    changed = replace(summed, treatments=silent, concurrency=None, lengths=lengths)
    audit = examine(result_claims.lay_out(with_records(read, bare), changed))
    assert not audit.findings
    assert audit.held["feasible summaries"] == 2


def test_the_report_has_a_section(tmp_path: Path) -> None:
    folder = tmp_path / EXAMPLE.name
    shutil.copytree(EXAMPLE, folder)
    one = read_result.read(folder)
    shown = section(one)
    assert shown is not None
    assert shown.findings == ()
    assert shown.sentence.endswith("0 findings")
    page = html.render(one)
    assert 'id="audit"' in page
    assert shown.sentence in page


def test_what_a_person_names_is_found_in_order(tmp_path: Path) -> None:
    assert find.find("lmcache-gke", tmp_path).claims.name == "lmcache-gke"
    assert find.find(str(EXAMPLE), tmp_path).claims.name == "vllm-gpu-fs"
    with pytest.raises(ResultError, match=r"there is no file none\.yaml"):
        find.find("none.yaml", tmp_path)
    with pytest.raises(ResultError) as fault:
        find.find("nothing", tmp_path)
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
    assert told["schema_version"] == 2
    assert told["findings"] == told["by_severity"]["conflict"] + told["by_severity"]["unsupported"] == 7
    assert all(check["arithmetic"] for check in told["checks"])
    assert sum(told["held_by_rule"].values()) + told["findings"] <= told["evaluated"] + len(told["checks"])


def test_the_example_of_the_documentation_has_the_findings_that_it_names() -> None:
    text = Path("docs/claims.md").read_text()
    example = text.split("```yaml\n")[1].split("```")[0]
    audit = examine(claims_file.parse(example, "example"))
    assert [check.rule for check in audit.findings] == ["percentiles against n", "rows promised"]
    told = {check.rule for name in index.names() for check in examine(library.document(name)).checks}
    assert not {rule for rule in told if rule not in text}


def test_the_hand_review_has_the_counts_of_every_document() -> None:
    text = Path("docs/audits.md").read_text()
    for name in index.names():
        audit = examine(library.document(name))
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
