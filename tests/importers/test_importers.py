"""Imports of real exports: figures by hand, our words for failures, what is missing, and files that are not exports."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvbench.analysis import summary
from kvbench.errors import ResultError
from kvbench.importers import aiperf, columns, guidellm, rows, vllm, write_result
from kvbench.importers.export import Part, Seen, Source
from kvbench.importers.export_kind import status_of
from kvbench.lenient_json import number, whole
from kvbench.report import html, read_result
from kvbench.result.plan_record import PlannedRun
from kvbench.result.rows import read_rows, write_batches
from kvbench.typed_json import to_json

DATA = Path(__file__).parents[1] / "data"
AIPERF, GUIDELLM, VLLM = DATA / "aiperf", DATA / "guidellm", DATA / "vllm_bench"


def seen_of(part: Part) -> list[Seen]:
    return [Seen(**request) for request in part.requests.to_pylist()]


def row_of(tool: str, part: Part, place: int = 0) -> dict[str, Any]:
    (batch,) = rows.rows_of(tool, PlannedRun("r", "t", 1), part.requests)
    row: dict[str, Any] = batch.to_pylist()[place]
    return row


def measured(source: Source) -> list[Seen]:
    return [seen for part in source.parts for seen in seen_of(part) if seen.phase == "measure"]


def statuses(source: Source) -> list[str]:
    return [seen.status for seen in measured(source)]


# -- AIPerf ------------------------------------------------------------------------------------------------------------


def test_aiperf_phases_are_treatments_and_warmup_belongs_to_the_next_one() -> None:
    source = aiperf.read(AIPERF / "two_phases")
    assert source.version == "0.13.0"
    assert source.model == "gpt-oss-120b"
    assert [path.name for path in source.files] == [aiperf.RAW, aiperf.RECORDS, aiperf.AGGREGATES]
    assert [part.treatment for part in source.parts] == ["cold", "warm"]
    assert [part.concurrency for part in source.parts] == [2, 2]
    assert [seen.phase for seen in seen_of(source.parts[0])] == ["warmup"] * 2 + ["measure"] * 4
    assert [seen.phase for seen in seen_of(source.parts[1])] == ["measure"] * 4


def test_aiperf_times_come_from_the_chunks() -> None:
    first = seen_of(aiperf.read(AIPERF / "two_phases").parts[0])[2]
    # By the worker's counter: sent 10911355121884, first token 10911456638890, last token 10911526574814.
    assert first.ttft_s == 0.101517006
    assert first.latency_s == 0.171452930
    assert (first.isl, first.osl, first.cached_tokens, first.http_status) == (106, 8, 0, 200)
    assert first.sent_ns is not None
    assert first.scheduled_ns is not None
    assert first.send_lag_s == (first.sent_ns - first.scheduled_ns) / 1e9
    assert 0 < first.send_lag_s < 0.01


def test_aiperf_without_chunks_gives_the_same_figures_from_its_metrics() -> None:
    raw = measured(aiperf.read(AIPERF / "two_phases"))
    told = measured(aiperf.read(AIPERF / "two_phases" / aiperf.RECORDS))
    for one, other in zip(raw, told, strict=True):
        assert one.request_id == other.request_id
        assert one.ttft_s == pytest.approx(other.ttft_s, abs=1e-9)
        assert one.latency_s == pytest.approx(other.latency_s, abs=1e-9)
        assert (one.isl, one.osl, one.cached_tokens) == (other.isl, other.osl, other.cached_tokens)


def test_an_error_inside_a_stream_is_seen_only_in_the_raw_export() -> None:
    raw = aiperf.read(AIPERF / "stream_error")
    told = aiperf.read(AIPERF / "stream_error" / aiperf.RECORDS)
    assert statuses(raw) == ["ok", "stream_error", "ok"]
    failed = measured(raw)[1]
    assert failed.error == "the engine died, as it was told to"
    assert failed.ttft_s == 0.103255415
    assert failed.latency_s is None
    assert statuses(told) == ["ok"] * 3
    assert any("profile_export_raw.jsonl" in sentence for sentence in told.missing)
    assert not any("profile_export_raw.jsonl" in sentence for sentence in raw.missing)


def test_aiperf_failures_have_our_words() -> None:
    http = aiperf.read(AIPERF / "http_500")
    assert sorted(statuses(http)) == ["http_error", "ok"]
    assert [seen.http_status for seen in measured(http)] == [200, 500]
    cut = next(seen for seen in measured(aiperf.read(AIPERF / "cut")) if seen.status == "cut")
    assert cut.ttft_s == 0.102801628  # first token 10926723401830, sent 10926620600202
    assert cut.latency_s is None
    assert statuses(aiperf.read(AIPERF / "refused.jsonl")) == ["refused"]
    assert statuses(aiperf.read(AIPERF / "hang.jsonl")) == ["timeout"]


FAILURES_BY_NAME = [
    ({"metadata": {"was_cancelled": True}}, "cancelled"),
    ({"error": {"code": 499, "type": "RequestCancellationError", "message": "x"}}, "cancelled"),
    ({"error": {"code": 429, "type": "Too Many Requests", "message": "x"}, "status": 429}, "http_error"),
    ({"error": {"type": "ClientConnectorDNSError"}, "status": None, "responses": []}, "refused"),
    ({"error": {"type": "ServerDisconnectedError"}}, "cut"),
    ({"error": {"type": "SocketTimeoutError"}}, "timeout"),
    ({"status": 503}, "http_error"),
]


@pytest.mark.parametrize(("change", "status"), FAILURES_BY_NAME)
def test_aiperf_errors_by_their_names(change: dict[str, Any], status: str, tmp_path: Path) -> None:
    record = json.loads((AIPERF / "two_phases" / aiperf.RAW).read_text().splitlines()[2])
    record["responses"] = record["responses"][:3]
    record |= {**change, "metadata": record["metadata"] | change.get("metadata", {})}
    (tmp_path / "x.jsonl").write_text(json.dumps(record))
    assert statuses(aiperf.read(tmp_path / "x.jsonl")) == [status]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        *FAILURES_BY_NAME[:6],
        ({"error": {"type": "InvalidInferenceResultError"}}, "stream_error"),
        ({"error": {}}, "ok"),
    ],
)
def test_aiperf_errors_by_their_names_without_chunks(change: dict[str, Any], status: str, tmp_path: Path) -> None:
    record = json.loads((AIPERF / "two_phases" / aiperf.RECORDS).read_text().splitlines()[2])
    told = {name: value for name, value in change.items() if name == "error"}
    record |= {**told, "metadata": record["metadata"] | change.get("metadata", {})}
    (tmp_path / "x.jsonl").write_text(json.dumps(record))
    assert statuses(aiperf.read(tmp_path / "x.jsonl")) == [status]


@pytest.mark.parametrize(("reason", "status"), [(None, "cut"), ("abort", "stream_error"), ("length", "ok")])
def test_aiperf_counts_a_stream_without_an_end_as_success_and_we_do_not(
    reason: str | None, status: str, tmp_path: Path
) -> None:
    record = json.loads((AIPERF / "two_phases" / aiperf.RAW).read_text().splitlines()[2])
    for response in record["responses"]:
        for packet in response["packets"]:
            if packet["value"] != "[DONE]":
                chunk = json.loads(packet["value"])
                for choice in chunk["choices"]:
                    choice["finish_reason"] = reason if choice["finish_reason"] else None
                packet["value"] = json.dumps(chunk)
    (tmp_path / "x.jsonl").write_text(json.dumps(record))
    assert statuses(aiperf.read(tmp_path / "x.jsonl")) == [status]


def test_aiperf_conversations_keep_their_turns() -> None:
    first, third = measured(aiperf.read(AIPERF / "multi_turn.jsonl"))
    assert (first.conversation_id, first.turn, third.turn) == ("conv-A", 0, 2)
    assert (first.isl, first.osl, first.cached_tokens) == (1234, 3, 1000)
    assert third.ttft_s == pytest.approx(0.00493922)
    assert third.latency_s == pytest.approx(0.005899327)


def test_tokens_counted_by_the_client_are_named(tmp_path: Path) -> None:
    lines = []
    for line in (AIPERF / "multi_turn.jsonl").read_text().splitlines():
        record = json.loads(line)
        record["metrics"] = {name: value for name, value in record["metrics"].items() if not name.startswith("usage_")}
        lines.append(json.dumps(record))
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    source = aiperf.read(tmp_path / "x.jsonl")
    assert [seen.isl for seen in measured(source)] == [1234, 1234]
    assert any("2 requests were counted by AIPerf's own tokenizer" in sentence for sentence in source.missing)


# -- GuideLLM ----------------------------------------------------------------------------------------------------------


def test_guidellm_benchmarks_are_treatments_with_figures_by_hand() -> None:
    source = guidellm.read(GUIDELLM / "two_rates.json")
    assert (source.version, source.model) == ("0.8.1", "gpt-oss-120b")
    assert [part.treatment for part in source.parts] == ["concurrent-2", "concurrent-4"]
    first = seen_of(source.parts[0])[0]
    assert first.ttft_s == pytest.approx(0.10141611099)
    # last token 1795304994.2326336 - sent 1795304993.9813125; sent - targeted 1795304993.9783802
    assert first.latency_s == pytest.approx(0.2513211, abs=1e-6)
    assert first.send_lag_s == pytest.approx(0.0029323, abs=1e-6)
    assert first.sent_ns == pytest.approx(1795304993981312500, abs=1000)
    assert (first.isl, first.osl, first.cached_tokens) == (100, 16, 0)
    assert row_of("guidellm", source.parts[0])["tpot_s"] == pytest.approx(
        0.009993664, abs=1e-7
    )  # GuideLLM's inter_token_latency_ms


def test_guidellm_failures_have_our_words() -> None:
    source = guidellm.read(GUIDELLM / "constant_8.json")
    assert source.parts[0].treatment == "constant-8"
    assert sorted(statuses(source)) == ["cancelled"] + ["ok"] * 5 + ["stream_error"] * 2
    failed = next(seen for seen in measured(source) if seen.status == "stream_error")
    assert failed.error == "ValueError('Streaming response returned an error: the engine died, as it was told to')"
    assert failed.latency_s is None
    assert failed.ttft_s is not None
    http = next(seen for seen in measured(guidellm.read(GUIDELLM / "http_500.json")) if seen.status != "ok")
    assert (http.status, http.http_status) == ("http_error", 500)
    assert sorted(statuses(guidellm.read(GUIDELLM / "cut.json"))) == ["cut", "ok"]


def test_guidellm_keeps_its_warmup_in_the_list_and_out_of_the_figures() -> None:
    """GuideLLM's own total of this report is 4 of its 8 requests: those that end after 1795306615.3984077."""
    path = GUIDELLM / "warmup.json"
    totals = json.loads(path.read_text())["benchmarks"][0]["metrics"]["request_totals"]
    (part,) = guidellm.read(path).parts
    assert [seen.phase for seen in seen_of(part)] == ["warmup"] * 4 + ["measure"] * 4
    assert totals["successful"] == 4


def test_guidellm_says_when_it_kept_only_a_sample(tmp_path: Path) -> None:
    report = json.loads((GUIDELLM / "cut.json").read_text())
    report["benchmarks"][0]["scheduler_metrics"]["requests_made"]["total"] = 50
    (tmp_path / "x.json").write_text(json.dumps(report))
    assert any("holds 2 of 50, a sample" in sentence for sentence in guidellm.read(tmp_path / "x.json").missing)


# -- vLLM --------------------------------------------------------------------------------------------------------------


def test_vllm_lists_become_requests_with_figures_by_hand() -> None:
    source = vllm.read(VLLM / "concurrency_2.json")
    (part,) = source.parts
    assert (part.treatment, part.concurrency, source.model) == ("concurrency-2", 2, "gpt-oss-120b")
    first = seen_of(part)[0]
    assert (first.isl, first.osl, first.cached_tokens, first.sent_ns) == (200, 8, None, None)
    assert first.ttft_s == 0.10265552000055322
    assert first.latency_s == 0.17285926700060372
    assert first.send_lag_s is None  # in a closed loop a request waits for its turn
    assert row_of("vllm", part)["tpot_s"] == pytest.approx((0.17285926700060372 - 0.10265552000055322) / 7)


def test_vllm_appended_results_are_runs_of_their_own() -> None:
    source = vllm.read(VLLM / "appended.json")
    assert [part.treatment for part in source.parts] == ["concurrency-2", "rate-20"]
    assert seen_of(source.parts[1])[0].send_lag_s == 0.00013149600090400781


def test_vllm_without_latencies_adds_up_its_gaps(tmp_path: Path) -> None:
    value = json.loads((VLLM / "concurrency_2.json").read_text())
    told = value.pop("latencies")
    (tmp_path / "x.json").write_text(json.dumps(value))
    found = [seen.latency_s for seen in measured(vllm.read(tmp_path / "x.json"))]
    assert found == pytest.approx(told)


def test_vllm_failures_have_our_words() -> None:
    cut = measured(vllm.read(VLLM / "cut.json"))
    assert [seen.status for seen in cut] == ["cut", "ok", "ok", "ok"]
    assert (cut[0].ttft_s, cut[0].isl, cut[0].latency_s) == (0.10311224999895785, None, None)
    assert cut[0].error is not None
    assert cut[0].error.startswith("aiohttp.client_exceptions.ClientPayloadError: ")
    http = measured(vllm.read(VLLM / "http_500.json"))[1]
    assert (http.status, http.http_status, http.ttft_s) == ("http_error", 500, None)
    assert statuses(vllm.read(VLLM / "refused.json")) == ["refused"] * 4


def test_vllm_hides_errors_inside_a_stream_and_the_result_says_so() -> None:
    source = vllm.read(VLLM / "stream_error.json")
    assert statuses(source) == ["ok"] * 4
    assert any(sentence.startswith("Errors inside a stream") for sentence in source.missing)


def test_vllm_failure_without_a_reason_is_still_a_failure(tmp_path: Path) -> None:
    value = json.loads((VLLM / "http_500.json").read_text())
    value["errors"][1] = ""
    (tmp_path / "x.json").write_text(json.dumps(value))
    source = vllm.read(tmp_path / "x.json")
    assert statuses(source) == ["ok", "stream_error", "ok", "ok"]
    assert not any("vLLM counts" in sentence and "its lists show" in sentence for sentence in source.missing)


def test_vllm_counts_that_disagree_are_named(tmp_path: Path) -> None:
    value = json.loads((VLLM / "concurrency_2.json").read_text()) | {"completed": 3}
    (tmp_path / "x.json").write_text(json.dumps(value))
    assert any("vLLM counts 3 answered requests, its lists show 4" in s for s in vllm.read(tmp_path / "x.json").missing)


# -- values that may be anything ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, True, "1", -1, float("nan"), float("inf"), 10**400, 2**64, [], {}])
def test_what_is_no_figure_is_null(value: Any) -> None:
    assert number(value) is None
    assert whole(value) is None


def test_whole_numbers_are_whole() -> None:
    assert (whole(3), whole(3.0), whole(3.5), whole(2**63 - 1)) == (3, 3, None, 2**63 - 1)


def test_an_unknown_failure_is_an_error_of_the_stream() -> None:
    assert status_of("SomethingNew: x") == "stream_error"


READERS = {"aiperf": aiperf.read, "guidellm": guidellm.read, "vllm": vllm.read}
SAMPLES = [
    ("aiperf", AIPERF / "two_phases" / aiperf.RAW),
    ("aiperf", AIPERF / "two_phases" / aiperf.RECORDS),
    ("aiperf", AIPERF / "cut" / aiperf.RAW),
    ("guidellm", GUIDELLM / "two_rates.json"),
    ("guidellm", GUIDELLM / "http_500.json"),
    ("vllm", VLLM / "concurrency_2.json"),
    ("vllm", VLLM / "cut.json"),
]
ABSENT = object()
WRONG = [ABSENT, None, "x", "\ud800", -1, 0, 10**300, float("nan"), True, [], {}, [None], {"a": []}, 1.5e300]


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a document, inner ones too."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [one for key, item in inner for one in places(item, (*path, key))]


def broken(document_: Any, path: tuple[str | int, ...], wrong: Any) -> Any:
    changed = copy.deepcopy(document_)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if wrong is ABSENT:
        del inner[path[-1]]
    else:
        inner[path[-1]] = wrong
    return changed


@pytest.mark.parametrize("unit", [one for one in WRONG if one is not ABSENT and one is not None])
def test_a_unit_that_is_no_known_unit_makes_the_value_null(unit: object) -> None:
    assert columns.seconds([5.0, 5.0], [unit, "ms"]).to_pylist() == [None, 0.005]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_broken_field_is_null_or_an_error_with_its_file(data: st.DataObject, tmp_path: Path) -> None:
    tool, sample = data.draw(st.sampled_from(SAMPLES))
    lines = sample.read_text().splitlines() if sample.suffix == ".jsonl" else [sample.read_text()]
    which = data.draw(st.integers(0, len(lines) - 1))
    whole_line = json.loads(lines[which])
    path = data.draw(st.sampled_from(places(whole_line)))
    lines[which] = json.dumps(broken(whole_line, path, data.draw(st.sampled_from(WRONG))))
    file = tmp_path / "export.jsonl"
    file.write_text("\n".join(lines))
    try:
        source = READERS[tool](file)
    except ResultError as error:
        told = error.message
    else:
        told = ""
    if told:
        assert str(file) in told
        return
    for run, part in write_result._runs(source):
        write_batches(tmp_path / "requests.parquet", rows.rows_of(tool, run, part.requests))
        written = read_rows(tmp_path)
        assert [row.status for row in written] == [seen.status for seen in seen_of(part)]
        assert json.dumps(to_json(write_result._record(source, run, part)), ensure_ascii=False).encode()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_broken_field_leaves_a_result_that_can_be_read(data: st.DataObject, tmp_path: Path) -> None:
    tool, sample = data.draw(st.sampled_from([SAMPLES[2], SAMPLES[4], SAMPLES[6]]))
    lines = sample.read_text().splitlines() if sample.suffix == ".jsonl" else [sample.read_text()]
    whole_line = json.loads(lines[0])
    path = data.draw(st.sampled_from(places(whole_line)))
    lines[0] = json.dumps(broken(whole_line, path, data.draw(st.sampled_from(WRONG))))
    file = tmp_path / "export.jsonl"
    file.write_text("\n".join(lines))
    try:
        folder = write_result.import_result(tool, file, tmp_path / "results")
    except ResultError as error:
        told = error.message
    else:
        told = ""
    if told:
        assert str(file) in told
        return
    summed = summary.summarise(folder)
    assert summed.verdict == "suspect"
    assert "Imported: what is known" in html.render(read_result.read(folder))
