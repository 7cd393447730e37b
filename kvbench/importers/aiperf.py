"""AIPerf's export per request: `profile_export.jsonl`, and `profile_export_raw.jsonl` with every chunk.

The raw export wins, because only it shows what was streamed: AIPerf counts an answer as a success although an error
came inside the stream, and keeps no time of a stream that broke. Its records are read and judged by the reader of the
load driver (`load/aiperf_export`). Metrics of the same request fill what the chunks do not tell. Each phase is a
treatment; the requests of a warmup phase go to the next measured one as `warmup`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kvbench.errors import ResultError
from kvbench.importers.source import (
    REMEDIES,
    Part,
    Seen,
    Source,
    kind_of,
    misplaced,
    read_bytes,
    read_lines,
    shared,
    wrong_kind,
)
from kvbench.lenient_json import at, items, number, parse, text, whole
from kvbench.load.aiperf_export import read_answer, read_own_word

if TYPE_CHECKING:
    from pathlib import Path


RECORDS, RAW, AGGREGATES = "profile_export.jsonl", "profile_export_raw.jsonl", "profile_export_aiperf.json"
_BLIND = (
    "Errors inside a stream (HTTP 200): AIPerf counts such an answer as a success, and only profile_export_raw.jsonl "
    "shows them."
)
_IN_FLIGHT = "Requests that were in flight when a phase ended: AIPerf leaves them out of its export."
_TOKENIZER = "The server's count of prompt tokens: {count} requests were counted by AIPerf's own tokenizer."


@dataclass(frozen=True, slots=True)
class _Line:
    """One record with what decides to which run it belongs."""

    phase: str
    is_warmup: bool
    seen: Seen
    end_ns: int | None
    counted_by_client: bool


def read(path: Path) -> Source:
    """Read an artifact folder or one export file.

    Raises:
        ResultError: the file is something else, or a line of it is not a record.

    """
    main, beside = _choose(path)
    told = _metrics(beside) if beside is not None else {}
    lines, is_raw, agent = [], False, None
    for line_number, record in read_lines(main, "aiperf"):
        if not isinstance(record.get("metadata"), dict):
            if kind_of(record) not in (None, "aiperf"):
                raise wrong_kind(main, "aiperf", record)
            raise misplaced(main, line_number, "has no metadata of a request")
        is_raw = is_raw or _has_chunks(record)
        agent = agent or text(at(record, "request_headers", "User-Agent"))
        metrics = record.get("metrics") or told.get(_key(record))
        lines.append(_read_record(record, metrics if isinstance(metrics, dict) else {}))
    if not lines:
        raise ResultError(f"{main} holds no request", REMEDIES["aiperf"])
    aggregates = main.parent / AGGREGATES
    about = parse(read_bytes(aggregates)) if aggregates.exists() else None
    missing = [] if is_raw else [_BLIND]
    client = sum(line.counted_by_client for line in lines)
    missing += [_IN_FLIGHT, *([_TOKENIZER.format(count=client)] if client else [])]
    return Source(
        tool="aiperf",
        version=_version(about, agent),
        files=tuple(file for file in (main, beside, aggregates) if file is not None and file.exists()),
        parts=_parts(lines, about),
        missing=tuple(missing),
        model=shared([name for line in lines if (name := line.seen.model)]) or _named_model(about),
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


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    """Tell which request a record is of, in both exports."""
    told = record.get("metadata")
    return tuple(text(at(told, name)) for name in ("x_request_id", "phase_name"))


def _metrics(path: Path) -> dict[tuple[Any, ...], Any]:
    return {_key(record): record.get("metrics") for _, record in read_lines(path, "aiperf")}


def _version(about: Any, agent: str | None) -> str | None:
    return text(at(about, "aiperf_version")) or (
        agent.removeprefix("aiperf/") if agent is not None and agent.startswith("aiperf/") else None
    )


def _named_model(about: Any) -> str | None:
    models = items(at(about, "input_config", "models", "items"))
    return text(at(models[0], "name")) if len(models) == 1 else None


# -- one request -------------------------------------------------------------------------------------------------------


def _read_record(record: dict[str, Any], metrics: dict[str, Any]) -> _Line:
    told = record["metadata"]
    answer = read_answer(record) if _has_chunks(record) else read_own_word(record)
    transcript, (status, error) = answer.transcript, answer.outcome
    usage = transcript.said.get("usage")
    sent_ns, scheduled_ns = whole(told.get("request_start_ns")), whole(told.get("credit_issued_ns"))
    by_server = _first_whole(at(usage, "prompt_tokens"), _metric(metrics, "usage_prompt_tokens"))
    isl = by_server if by_server is not None else whole(_metric(metrics, "input_sequence_length"))
    latency_s = _since(record, transcript.last_token_ns) or _seconds(metrics, "request_latency")
    seen = Seen(
        request_id=text(told.get("x_request_id")),
        status=status,
        error=text(error),
        http_status=answer.http_status,
        conversation_id=text(told.get("conversation_id")),
        turn=whole(told.get("turn_index")) or 0,
        isl=isl,
        osl=_first_whole(
            at(usage, "completion_tokens"),
            _metric(metrics, "usage_completion_tokens"),
            _metric(metrics, "output_sequence_length"),
        ),
        cached_tokens=_first_whole(
            at(usage, "prompt_tokens_details", "cached_tokens"),
            _metric(metrics, "usage_prompt_cache_read_tokens"),
        ),
        scheduled_ns=scheduled_ns,
        sent_ns=sent_ns,
        ttft_s=_since(record, transcript.first_token_ns) or _seconds(metrics, "time_to_first_token"),
        ttft_content_s=_since(record, transcript.first_content_ns) or _seconds(metrics, "time_to_first_output_token"),
        latency_s=latency_s if status == "ok" else None,
        send_lag_s=max(sent_ns - scheduled_ns, 0) / 1e9 if sent_ns is not None and scheduled_ns is not None else None,
        model=text(transcript.said.get("model")),
    )
    phase = text(told.get("phase_name")) or text(told.get("benchmark_phase")) or "profiling"
    is_warmup = "warmup" in (told.get("phase_kind"), told.get("benchmark_phase"))
    return _Line(phase, is_warmup, seen, whole(told.get("request_end_ns")), isl is not None and by_server is None)


def _has_chunks(record: dict[str, Any]) -> bool:
    """Tell a record of the raw export."""
    return "start_perf_ns" in record or "responses" in record


def _metric(metrics: dict[str, Any], name: str) -> Any:
    return at(metrics, name, "value")


def _seconds(metrics: dict[str, Any], name: str) -> float | None:
    """Return a metric in seconds; AIPerf writes milliseconds and says so."""
    value = number(_metric(metrics, name))
    factor = {"ms": 1e-3, "sec": 1.0, "s": 1.0}.get(str(at(metrics, name, "unit")))
    return value * factor if value is not None and factor is not None else None


def _first_whole(*values: Any) -> int | None:
    return next((known for value in values if (known := whole(value)) is not None), None)


def _since(record: dict[str, Any], moment_ns: int | None) -> float | None:
    """Return the time from the start of the request, by the performance counter of AIPerf's worker."""
    start_ns = whole(record.get("start_perf_ns"))
    if start_ns is None or moment_ns is None or moment_ns < start_ns:
        return None
    return (moment_ns - start_ns) / 1e9


# -- phases ------------------------------------------------------------------------------------------------------------


def _parts(lines: list[_Line], about: Any) -> tuple[Part, ...]:
    """Make one run of each measured phase, in the order in which they began."""
    phases: dict[str, list[_Line]] = {}
    for line in sorted(lines, key=lambda line: line.seen.sent_ns or 0):
        phases.setdefault(line.phase, []).append(line)
    asked = {text(at(phase, "name")): phase for phase in items(at(about, "input_config", "phases"))}
    parts: list[Part] = []
    waiting: list[Seen] = []
    for name, found in phases.items():
        if found[0].is_warmup:
            waiting += [_as_warmup(line.seen) for line in found]
            continue
        treatment = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "profiling"
        parts.append(
            Part(
                treatment,
                (*waiting, *(line.seen for line in found)),
                load_s=_load_s(found),
                concurrency=whole(at(asked.get(name), "concurrency")) or None,
            )
        )
        waiting = []
    return tuple(parts)


def _as_warmup(seen: Seen) -> Seen:
    return replace(seen, phase="warmup")


def _load_s(lines: list[_Line]) -> float | None:
    """Return the time from the first send to the last end, where every record tells both."""
    sent, ended = [line.seen.sent_ns for line in lines], [line.end_ns for line in lines]
    known_sent, known_ended = [one for one in sent if one], [one for one in ended if one]
    if len(known_sent) < len(lines) or len(known_ended) < len(lines):
        return None
    return max(max(known_ended) - min(known_sent), 0) / 1e9
