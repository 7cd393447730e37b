"""What an import leaves: its folder, its figures, no secrets; and the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvbench.analysis import summary
from kvbench.errors import OptionError, ResultError
from kvbench.importers import aiperf, write_result
from kvbench.report import html, read_result
from kvbench.result import redact
from kvbench.result.files import read_json
from kvbench.result.record_files import read_plan, write_plan
from kvbench.result.rows import read_rows
from tests.builders.patience import PATIENCE_S
from tests.builders.results import Case, build
from tests.importers.test_importers import AIPERF, DATA, GUIDELLM, VLLM


def test_the_result_folder_keeps_its_contract(tmp_path: Path) -> None:
    folder = write_result.import_result("aiperf", AIPERF / "two_phases", tmp_path, "mine")
    assert folder.parent == tmp_path / "mine"
    assert {path.name for path in folder.iterdir()} == {"plan.json", "facts.json", "runs", "source"}
    for name in (aiperf.RAW, aiperf.RECORDS, aiperf.AGGREGATES):
        assert (folder / "source" / name).read_bytes() == (AIPERF / "two_phases" / name).read_bytes()
    for path in (*folder.glob("*.json"), *folder.glob("runs/*/run.json")):
        assert json.loads(path.read_text())["schema_version"] == 2
    rows = read_rows(folder / "runs" / "r01-cold")
    assert [row.phase for row in rows] == ["warmup", "warmup", *["measure"] * 4]
    first = rows[2]
    assert (first.isl_target, first.isl, first.length, first.tier) == (None, 106, 106, None)
    assert first.sent_ns is not None
    assert first.first_token_ns == first.sent_ns + 101_517_006
    assert first.tpot_s == pytest.approx((0.171452930 - 0.101517006) / 7)
    design = read_plan(folder).design
    assert (design.lengths, design.baseline, design.scale) == ((), None, None)


def test_figures_are_shown_and_the_verdict_is_suspect(tmp_path: Path) -> None:
    summed = summary.summarise(write_result.import_result("aiperf", AIPERF / "two_phases", tmp_path))
    assert summed.verdict == "suspect"
    assert summed.imported is not None
    assert summed.imported["from"] == "aiperf"
    assert summed.imported["tool_version"] == "0.13.0"
    assert summed.imported["file"] == aiperf.RAW
    assert [row.isl for row in summed.lengths] == [106, 206]
    cell = summed.lengths[0].cells["cold"]
    # requests 0 and 2 of the phase: 101.517006 and 101.821345 ms
    assert cell.n == 2
    assert cell.median_s == pytest.approx((0.101517006 + 0.101821345) / 2)
    assert cell.min_s == 0.101517006
    (reason,) = summed.runs[0].reasons
    assert "no cache state was controlled and no tier is proven" in reason.text


def test_failures_are_counted_and_in_no_figure(tmp_path: Path) -> None:
    summed = summary.summarise(write_result.import_result("guidellm", GUIDELLM / "constant_8.json", tmp_path))
    assert summed.runs[0].failures == {"stream_error": 2, "cancelled": 1}
    assert sum(row.cells["constant-8"].n for row in summed.lengths) == 5
    texts = [reason.text for reason in summed.runs[0].reasons]
    assert "3 of 8 requests failed: 2 stream_error, 1 cancelled; nobody said how many may" in texts


def test_an_import_has_no_time_series_because_nobody_told_which_prompts_were_the_same(tmp_path: Path) -> None:
    load = {"concurrency": 4, "requests": 60, "draw": "round_robin"}
    case = Case(repeats=1, lengths=["10k"], per_length=20, load=load, published=None)
    folder = build(case, tmp_path)
    assert len(summary.summarise(folder).treatments["g4"].time_series) == 1
    plan = read_plan(folder)
    other = write_result.import_result("aiperf", AIPERF / "two_phases", tmp_path, "other")
    imported = read_plan(other).design.imported
    write_plan(folder, replace(plan, design=replace(plan.design, imported=imported)))
    assert summary.summarise(folder).treatments["g4"].time_series == ()


@pytest.mark.parametrize(("count", "rows"), [(12, 12), (13, 1)])
def test_many_lengths_have_one_row(count: int, rows: int, tmp_path: Path) -> None:
    value = json.loads((VLLM / "concurrency_2.json").read_text())
    for name in ("ttfts", "output_lens", "itls", "latencies", "queue_times", "errors"):
        value[name] = [value[name][0]] * count
    value["input_lens"] = [100 + place for place in range(count)]
    (tmp_path / "x.json").write_text(json.dumps(value | {"completed": count}))
    folder = write_result.import_result("vllm", tmp_path / "x.json", tmp_path)
    lengths = summary.summarise(folder).lengths
    assert len(lengths) == rows
    assert sum(row.cells["concurrency-2"].n for row in lengths) == count
    page = html.render(read_result.read(folder))
    if rows == 1:
        assert lengths[0].isl is None
        assert "Plot: TTFT against prompt length" not in page
        assert "Plot: Rate of each treatment" in page  # two in flight: the rate is the headline


def test_the_same_load_twice_is_two_rounds(tmp_path: Path) -> None:
    text = (VLLM / "concurrency_2.json").read_text()
    (tmp_path / "x.json").write_text(text + text)
    summed = summary.summarise(write_result.import_result("vllm", tmp_path / "x.json", tmp_path))
    assert [run.run_id for run in summed.runs] == ["r01-concurrency-2", "r02-concurrency-2"]
    assert summed.repeats == 2


def test_secrets_are_not_copied(tmp_path: Path) -> None:
    lines = (AIPERF / "cut" / aiperf.RAW).read_text().splitlines()
    record = json.loads(lines[0])
    record["request_headers"] |= {"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": "k-1"}
    (tmp_path / "x.jsonl").write_text("\n".join([json.dumps(record), *lines[1:]]) + "\n")
    folder = write_result.import_result("aiperf", tmp_path / "x.jsonl", tmp_path / "results")
    copied = (folder / "source" / "x.jsonl").read_text().splitlines()
    headers = json.loads(copied[0])["request_headers"]
    assert (headers["Authorization"], headers["X-API-Key"]) == ("[hidden]", "[hidden]")
    assert copied[1:] == lines[1:]
    assert read_json(folder / "facts.json")["imported"]["secrets_hidden"] == 1


@pytest.mark.parametrize(
    ("value", "clean"),
    [
        ({"api_key": "abc"}, {"api_key": "[hidden]"}),
        (
            {"api_key": "**********", "Authorization": "<redacted>"},
            {"api_key": "**********", "Authorization": "<redacted>"},
        ),
        ({"api_key": None, "token": "word"}, {"api_key": None, "token": "word"}),
        (
            {"args": '{"headers": {"authorization": "Bearer abcdefgh1"}}'},
            {"args": '{"headers": {"authorization": "[hidden]"}}'},
        ),
        (["aiperf --api-key abc --x 1"], ["aiperf --api-key [hidden] --x 1"]),
        (["Authorization: Basic dXNlcg=="], ["Authorization: Basic [hidden]"]),
        (["http://u:p@host/v1?key=abc&x=1"], ["http://[hidden]@host/v1?key=[hidden]&x=1"]),
    ],
)
def test_secrets_are_found_by_name_and_by_shape(value: Any, clean: Any) -> None:
    assert redact.without_named_secrets(value) == clean
    assert redact.without_named_secrets(clean) == clean


def kvbench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kvbench", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment)


@pytest.mark.parametrize(
    ("tool", "path", "n"),
    [
        ("aiperf", AIPERF / "two_phases", 8),
        ("guidellm", GUIDELLM / "two_rates.json", 6),
        ("vllm", VLLM / "appended.json", 8),
    ],
)
def test_import_show_and_report(tool: str, path: Path, n: int, tmp_path: Path) -> None:
    done = kvbench("import", "--from", tool, path, "--results", tmp_path, "--name", "theirs")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    assert (folder / "summary.json").exists()
    assert f"imported from the {'' if tool != 'aiperf' else 'per-request export of AIPerf 0.13.0'}" in done.stdout
    assert "it lacks:" in done.stdout
    assert "verdict: suspect" in done.stdout

    shown = json.loads(kvbench("show", "theirs", "--json", "--results", tmp_path).stdout)
    assert sum(cell["n"] for row in shown["lengths"] for cell in row["cells"].values()) == n
    assert shown["imported"]["missing"]
    every = kvbench("show", folder, "--requests").stdout
    assert every.count("unproven: imported: no source tells which tier served it") == n

    written = kvbench("report", "theirs", "--results", tmp_path, "--out", tmp_path / "reports")
    assert written.returncode == 0, written.stderr
    page = (tmp_path / "reports" / "theirs.html").read_text()
    for sentence in shown["imported"]["missing"]:
        assert sentence.split("'")[0] in page
    assert "kvbench proves nothing about them" in page
    assert "<h2>Proof</h2>" not in page
    assert (tmp_path / "reports" / "theirs.pdf").read_bytes().startswith(b"%PDF")


def test_a_tool_that_is_not_known_has_its_nearest_name(tmp_path: Path) -> None:
    for given, remedy in (("wrk", "Use one of aiperf, guidellm, vllm."), ("guidelm", "Did you mean guidellm?")):
        with pytest.raises(OptionError, match=f"{given} is not a tool") as caught:
            write_result.import_result(given, AIPERF, tmp_path / "results")
        assert caught.value.remedy == remedy


def test_bad_input_is_one_sentence_and_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    shutil.copy(AIPERF / "refused.jsonl", tmp_path / "half.jsonl")
    with (tmp_path / "half.jsonl").open("a") as file:
        file.write('{"metadata": {')
    cases: list[tuple[str, Path, str, str]] = [
        ("aiperf", AIPERF / "two_phases" / aiperf.AGGREGATES, "holds AIPerf's aggregates", "profile_export.jsonl"),
        ("aiperf", VLLM / "cut.json", "is a detailed result of `vllm bench serve`", "Use --from vllm."),
        ("guidellm", VLLM / "cut.json", "not a benchmark report of GuideLLM", "Use --from vllm."),
        ("vllm", GUIDELLM / "cut.json", "is a benchmark report of GuideLLM", "Use --from guidellm."),
        ("guidellm", AIPERF / "refused.jsonl", "is a per-request export of AIPerf", "Use --from aiperf."),
        ("vllm", VLLM / "without_detail.json", "holds totals and no requests", "--save-detailed"),
        ("aiperf", DATA, "holds neither", "Import its trials one by one"),
        ("aiperf", tmp_path / "empty.jsonl", "is empty", "holds requests"),
        ("vllm", tmp_path / "empty.jsonl", "is empty", "holds requests"),
        ("guidellm", tmp_path / "nowhere", "no such file", "other tool wrote"),
        ("aiperf", tmp_path / "half.jsonl", "half.jsonl:2 is not a JSON object", "Take the line out"),
    ]
    for tool, path, wrong, remedy in cases:
        with pytest.raises(ResultError) as caught:
            write_result.import_result(tool, path, tmp_path / "results")
        assert wrong in caught.value.message
        assert remedy in caught.value.remedy
    assert not (tmp_path / "results").exists()
    done = kvbench("import", "--from", "aiperf", tmp_path / "nowhere", "--results", tmp_path / "results")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert kvbench("import", AIPERF).returncode == 2


def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be the name of a result"):
        write_result.import_result("vllm", VLLM / "cut.json", tmp_path, "../up")
