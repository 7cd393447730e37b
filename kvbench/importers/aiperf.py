"""Reads AIPerf's export per request: `profile_export.jsonl`, and `profile_export_raw.jsonl` with every chunk.

The raw export wins, because only it shows what was streamed: AIPerf counts an answer as a success although an error
came inside the stream, and keeps no time of a stream that broke. Its records are read and judged by the reader of the
load driver (`load/aiperf_export`). Metrics of the same request fill what the chunks do not tell. Each phase is a
treatment; the requests of a warmup phase go to the next measured one as `warmup`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from kvbench.drivers.aiperf_export import read_answer, read_own_word
from kvbench.errors import ResultError
from kvbench.importers.aiperf_phases import split
from kvbench.importers.columns import numbers, seconds, texts, wholes
from kvbench.importers.export import Source
from kvbench.importers.export_kind import REMEDIES, kind_of, misplaced, one_line, read_bytes, shared, wrong_kind
from kvbench.importers.line_ranges import map_ranges
from kvbench.lenient_json import at, items, parse, text, whole

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.typed_json import JsonObject

RECORDS, RAW, AGGREGATES = "profile_export.jsonl", "profile_export_raw.jsonl", "profile_export_aiperf.json"
_BLIND = (
    "Errors inside a stream (HTTP 200): AIPerf counts such an answer as a success, and only profile_export_raw.jsonl "
    "shows them."
)
_IN_FLIGHT = "Requests that were in flight when a phase ended: AIPerf leaves them out of its export."
_TOKENIZER = "The server's count of prompt tokens: {count} requests were counted by AIPerf's own tokenizer."


_METRICS = (  # of one request, each with its unit
    "usage_prompt_tokens",
    "input_sequence_length",
    "usage_completion_tokens",
    "output_sequence_length",
    "usage_prompt_cache_read_tokens",
    "time_to_first_token",
    "time_to_first_output_token",
    "request_latency",
)
_FROM_METRICS = ("isl", "counted_by_client", "osl", "cached_tokens", "ttft_s", "ttft_content_s", "latency_s")
_NOTHING = (None,) * 8


@dataclass(frozen=True, slots=True)
class _Batch:
    """The records of one range of a file; `broken` is the number and the text of a line that is no record."""

    lines: int
    columns: pa.RecordBatch | None
    broken: tuple[int, bytes] | None
    has_chunks: bool
    agent: str | None


@dataclass(frozen=True, slots=True)
class _Records:
    """All records of a file as columns."""

    columns: pa.Table
    has_chunks: bool
    agent: str | None


def read(path: Path) -> Source:
    """Read an artifact folder or one export file.

    Raises:
        ResultError: the file is something else, or a line of it is not a record.

    """
    main, beside = _choose(path)
    records = _read_file(main)
    columns = records.columns
    if beside is not None and beside.stat().st_size > 0:
        columns = _filled(columns, _read_file(beside).columns)
    aggregates = main.parent / AGGREGATES
    about = parse(read_bytes(aggregates)) if aggregates.exists() else None
    missing = [] if records.has_chunks else [_BLIND]
    client = pc.sum(columns["counted_by_client"]).as_py() or 0
    missing += [_IN_FLIGHT, *([_TOKENIZER.format(count=client)] if client else [])]
    return Source(
        tool="aiperf",
        version=_version(about, records.agent),
        files=tuple(file for file in (main, beside, aggregates) if file is not None and file.exists()),
        parts=split(columns, about),
        missing=tuple(missing),
        model=shared(pc.unique(columns["model"]).drop_null().to_pylist()) or _named_model(about),
        url=text(next(iter(items(at(about, "input_config", "endpoint", "urls"))), None)),
    )


def _choose(path: Path) -> tuple[Path, Path | None]:
    """Return the export to read, and the one beside it whose metrics may fill gaps."""
    if not path.is_dir():
        if not path.exists() or path.stat().st_size == 0:
            read_bytes(path)  # says which of the two it is
        return path, None
    raw, records = path / RAW, path / RECORDS
    if raw.exists():
        return raw, records if records.exists() else None
    if records.exists():
        return records, None
    trials = sorted(path.glob(f"**/{RECORDS}"))
    remedy = f"Import its trials one by one, such as {trials[0].parent}." if trials else REMEDIES["aiperf"]
    raise ResultError(f"{path} holds neither {RAW} nor {RECORDS}", remedy)


def _version(about: Any, agent: str | None) -> str | None:
    return text(at(about, "aiperf_version")) or (
        agent.removeprefix("aiperf/") if agent is not None and agent.startswith("aiperf/") else None
    )


def _named_model(about: Any) -> str | None:
    models = items(at(about, "input_config", "models", "items"))
    return text(at(models[0], "name")) if len(models) == 1 else None


# -- a file of records -------------------------------------------------------------------------------------------------


def _read_file(path: Path) -> _Records:
    """Read all records of a file, range by range."""
    batches, lines, has_chunks, agent = [], 0, False, None
    try:
        for _, batch in map_ranges(_read_block, path):
            if batch.broken is not None:
                raise _fault(path, lines + batch.broken[0], batch.broken[1])
            lines += batch.lines
            batches += [batch.columns] if batch.columns is not None else []
            has_chunks, agent = has_chunks or batch.has_chunks, agent or batch.agent
    except OSError as fault:
        reason = (fault.strerror or str(fault)).lower()
        raise ResultError(f"cannot read {path}: {reason}", REMEDIES["aiperf"]) from None
    if not batches:
        raise ResultError(f"{path} holds no request", REMEDIES["aiperf"])
    return _Records(pa.Table.from_batches(batches), has_chunks, agent)


def _fault(path: Path, line_number: int, line: bytes) -> ResultError:
    """Say what is wrong with a line that is no record."""
    record = one_line(path, line_number, line, "aiperf")
    if kind_of(record) not in (None, "aiperf"):
        return wrong_kind(path, "aiperf", record)
    return misplaced(path, line_number, "has no metadata of a request")


def _read_block(block: bytes) -> _Batch:
    """Read the lines of one range."""
    rows, has_chunks, agent = [], False, None
    lines = block.split(b"\n")
    for place, line in enumerate(lines, 1):
        if not line or line.isspace():
            continue
        record = parse(line)
        if not isinstance(record, dict) or not isinstance(record.get("metadata"), dict):
            return _Batch(0, None, (place, line), has_chunks=False, agent=None)
        if "start_perf_ns" in record or "responses" in record:
            has_chunks = True
            agent = agent or text(at(record, "request_headers", "User-Agent"))
            rows.append(
                (*_metadata_values(record["metadata"]), *_metrics(record.get("metrics")), *_from_chunks(record))
            )
        else:
            rows.append(
                (*_metadata_values(record["metadata"]), *_metrics(record.get("metrics")), *_from_own_word(record))
            )
    columns = _columns(list(zip(*rows, strict=True))) if rows else None
    return _Batch(len(lines) - 1, columns, None, has_chunks=has_chunks, agent=agent)


def _metadata_values(metadata: JsonObject) -> tuple[Any, ...]:
    """Pick what the metadata say, as they say it; `_columns` knows the order."""
    told = metadata.get
    kind, benchmark_phase = told("phase_kind"), told("benchmark_phase")
    return (
        told("x_request_id"),
        told("conversation_id"),
        told("turn_index"),
        told("credit_issued_ns"),
        told("request_start_ns"),
        told("request_end_ns"),
        told("phase_name"),
        benchmark_phase,
        "warmup" in (kind, benchmark_phase),
    )


def _metrics(metrics: Any) -> tuple[Any, ...]:
    """Pick the value of each metric, then the units of the times, then whether there are metrics."""
    if not isinstance(metrics, dict):
        return (*_NOTHING, None, None, None, bool(metrics))
    found = [one if isinstance(one := metrics.get(name), dict) else {} for name in _METRICS]
    return (*[one.get("value") for one in found], *[one.get("unit") for one in found[5:]], bool(metrics))


def _from_own_word(record: JsonObject) -> tuple[Any, ...]:
    """Return status, error and HTTP status, and nothing that only chunks tell."""
    if not record.get("error") and "status" not in record and at(record, "metadata", "was_cancelled") is not True:
        return ("ok", None, None, *_NOTHING[:7])
    answer = read_own_word(record)
    return (*answer.outcome, answer.http_status, *_NOTHING[:7])


def _from_chunks(record: JsonObject) -> tuple[Any, ...]:
    """Return status, error and HTTP status, token counts, times in seconds and the model, as the chunks tell them."""
    answer = read_answer(record)
    transcript = answer.transcript
    usage = transcript.reported.get("usage")
    start_ns = whole(record.get("start_perf_ns"))
    return (
        *answer.outcome,
        answer.http_status,
        at(usage, "prompt_tokens"),
        at(usage, "completion_tokens"),
        at(usage, "prompt_tokens_details", "cached_tokens"),
        _since(start_ns, transcript.first_token_ns),
        _since(start_ns, transcript.first_content_ns),
        _since(start_ns, transcript.last_token_ns),
        transcript.reported.get("model"),
    )


def _since(start_ns: int | None, moment_ns: int | None) -> float | None:
    """Return the time from the start of the request, by the performance counter of AIPerf's worker; None for 0."""
    if start_ns is None or moment_ns is None or moment_ns <= start_ns:
        return None
    return (moment_ns - start_ns) / 1e9


def _columns(picked: list[tuple[Any, ...]]) -> pa.RecordBatch:
    """Make columns of what was picked: the chunks are asked first, then the metrics."""
    request_id, conversation_id, turn, issued, started, ended, name, benchmark_phase, is_warmup = picked[:9]
    usage_prompt, own_isl, usage_completion, own_osl, own_cached, own_ttft, own_content, own_latency = picked[9:17]
    units, has_metrics, status, error, http_status = picked[17:20], *picked[20:24]
    prompt, completion, cached, ttft, content, latency, model = picked[24:]
    scheduled_ns, sent_ns, phase_name = wholes(issued), wholes(started), texts(name)
    by_server = pc.coalesce(wholes(prompt), wholes(usage_prompt))
    isl = pc.coalesce(by_server, wholes(own_isl))
    lag_ns = pc.max_element_wise(pc.subtract(sent_ns, scheduled_ns), 0, skip_nulls=False)
    return pa.RecordBatch.from_pydict(
        {
            "request_id": texts(request_id),
            "status": pa.array(status, pa.string()),
            "error": texts(error),
            "http_status": pa.array(http_status, pa.int64()),
            "conversation_id": texts(conversation_id),
            "turn": pc.fill_null(wholes(turn), 0),
            "isl": isl,
            "osl": pc.coalesce(wholes(completion), wholes(usage_completion), wholes(own_osl)),
            "cached_tokens": pc.coalesce(wholes(cached), wholes(own_cached)),
            "scheduled_ns": scheduled_ns,
            "sent_ns": sent_ns,
            "ttft_s": pc.coalesce(numbers(ttft), seconds(own_ttft, units[0])),
            "ttft_content_s": pc.coalesce(numbers(content), seconds(own_content, units[1])),
            "latency_s": pc.coalesce(numbers(latency), seconds(own_latency, units[2])),
            "send_lag_s": pc.divide(pc.cast(lag_ns, pa.float64(), safe=False), 1e9),
            "model": texts(model),
            "phase_name": phase_name,
            "own_phase": pc.coalesce(phase_name, texts(benchmark_phase), pa.scalar("profiling")),
            "is_warmup": pa.array(is_warmup, pa.bool_()),
            "end_ns": wholes(ended),
            "counted_by_client": pc.and_(pc.is_valid(isl), pc.is_null(by_server)),
            "has_metrics": pa.array(has_metrics, pa.bool_()),
        }
    )


def _filled(columns: pa.Table, metrics: pa.Table) -> pa.Table:
    """Fill what the raw export does not tell with the metrics of the same request in the export beside it."""
    metrics = metrics.take(
        pa.array(range(len(metrics) - 1, -1, -1))
    )  # of two records of one request the last one counts
    place = pc.index_in(_key(columns), value_set=_key(metrics).combine_chunks())
    place = pc.if_else(columns["has_metrics"], pa.scalar(None, pa.int32()), place)
    is_unknown = pc.is_null(columns["isl"])
    for name in _FROM_METRICS:
        found, own = metrics[name].take(place), columns[name]
        filled = pc.if_else(is_unknown, pc.fill_null(found, False), own) if name == "counted_by_client" else None  # noqa: FBT003
        filled = pc.coalesce(own, found) if filled is None else filled
        columns = columns.set_column(columns.column_names.index(name), name, filled)
    return columns


def _key(columns: pa.Table) -> pa.ChunkedArray:
    """Tell which request a record is of, in both exports."""
    named = [pc.fill_null(columns[name], "") for name in ("request_id", "phase_name")]
    return pc.binary_join_element_wise(*named, "\0")
