"""GuideLLM's benchmark report: each benchmark, a strategy at one rate, is a run, and a treatment by its name.

GuideLLM's own latency runs to the end of the request; here it ends at the last token, as everywhere in kvbench. Its
`inter_token_latency_ms` is TPOT, its `time_per_output_token_ms` is latency over OSL and is not read.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kvbench.errors import ResultError
from kvbench.importers.columns import table_of_rows
from kvbench.importers.source import (
    REMEDIES,
    Part,
    Seen,
    Source,
    misplaced,
    read_bytes,
    shared,
    span_s,
    status_of,
    wrong_kind,
)
from kvbench.lenient_json import at, items, number, parse, shortened, text, whole

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.records import Status

_HTTP_STATUS = re.compile(r"\b(?:error|status|code)\W{0,3}'?([1-5]\d\d)\b", re.IGNORECASE)
_COUNTED = (
    "Who counted prompt and output tokens: GuideLLM takes the server's usage, or its own tokenizer's count without it."
)
_MOST_SECONDS = 9_000_000_000.0  # the year 2255; wall-clock nanoseconds beyond it would not fit 64 bits


def read(path: Path) -> Source:
    """Read a report in JSON.

    Raises:
        ResultError: the file is something else, or a part of it is not what it should be.

    """
    content = read_bytes(path)
    report = parse(content)
    if not isinstance(report, dict):
        raise ResultError(f"{path} is not JSON", REMEDIES["guidellm"])
    benchmarks = report.get("benchmarks")
    if not isinstance(benchmarks, list):
        raise wrong_kind(path, "guidellm", report)
    if not benchmarks:
        raise ResultError(f"{path} holds no benchmark", REMEDIES["guidellm"])
    missing = [_COUNTED]
    parts = []
    for place, benchmark in enumerate(benchmarks):
        if not isinstance(at(benchmark, "requests"), dict):
            raise misplaced(path, f"benchmarks[{place}]", "has no requests")
        parts.append(_read_benchmark(path, place, benchmark))
        missing += _left_out(parts[-1], benchmark)
    backends = [at(benchmark, "config", "backend") for benchmark in benchmarks]
    return Source(
        tool="guidellm",
        version=text(at(report, "metadata", "guidellm_version")),
        files=(path,),
        parts=tuple(parts),
        missing=tuple(missing),
        model=text(shared([at(backend, "model") for backend in backends])),
        url=text(shared([at(backend, "target") for backend in backends])),
    )


def _read_benchmark(path: Path, place: int, benchmark: dict[str, Any]) -> Part:
    seen, window = [], _window(benchmark)
    for outcome in ("successful", "errored", "incomplete"):
        for number_, request in enumerate(items(benchmark["requests"].get(outcome))):
            if not isinstance(request, dict):
                raise misplaced(path, f"benchmarks[{place}].requests.{outcome}[{number_}]", "is not a request")
            one = _read_request(request, outcome)
            seen.append(one if _is_inside(request, window) else replace(one, phase="warmup"))
    strategy = at(benchmark, "config", "strategy")
    return Part(
        _treatment(strategy, place),
        table_of_rows(sorted(seen, key=lambda one: one.sent_ns or 0)),
        load_s=span_s(number(benchmark.get("start_time")), number(benchmark.get("end_time"))),
        concurrency=whole(at(strategy, "streams")) or None,
    )


def _window(benchmark: dict[str, Any]) -> tuple[float | None, float | None]:
    """Return from when to when GuideLLM measured, where warmup or cooldown was asked for; None for no bound."""
    asked, metrics = at(benchmark, "config"), at(benchmark, "scheduler_metrics")
    start, end = number(at(metrics, "measure_start_time")), number(at(metrics, "measure_end_time"))
    has_warmup, has_cooldown = (
        any(number(at(asked, name, key)) for key in ("percent", "value")) for name in ("warmup", "cooldown")
    )
    return start if has_warmup else None, end if has_cooldown else None


def _is_inside(request: dict[str, Any], window: tuple[float | None, float | None]) -> bool:
    """Tell whether a request overlaps the window: the rule by which GuideLLM itself chooses those of its figures."""
    timings = at(request, "info", "timings")
    start = number(at(timings, "request_start"))
    end = number(at(timings, "request_end")) or number(at(timings, "resolve_end"))
    began_too_late = window[1] is not None and start is not None and start >= window[1]
    ended_too_early = window[0] is not None and end is not None and end <= window[0]
    return not began_too_late and not ended_too_early


def _treatment(strategy: Any, place: int) -> str:
    """Name a benchmark by its strategy and what was set for it: `concurrent-4`, `constant-2.5`."""
    kind = text(at(strategy, "type_"))
    if kind is None:
        return f"benchmark-{place + 1}"
    level = number(at(strategy, "streams"))
    level = number(at(strategy, "rate")) if level is None else level
    name = kind if level is None else f"{kind}-{level:g}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or f"benchmark-{place + 1}"


def _left_out(part: Part, benchmark: dict[str, Any]) -> list[str]:
    """Say how many requests the report counts but does not hold: it may keep only a sample."""
    made = whole(at(benchmark, "scheduler_metrics", "requests_made", "total"))
    if made is None or made <= len(part.requests):
        return []
    return [f"Requests of {part.treatment}: the report holds {len(part.requests)} of {made}, a sample."]


def _read_request(request: dict[str, Any], outcome: str) -> Seen:
    info = request.get("info")
    scheduled, sent, first, first_content, last = (
        _moment(at(info, "timings", name))
        for name in (
            "targeted_start",
            "request_start",
            "first_token_iteration",
            "first_output_token_iteration",
            "last_token_iteration",
        )
    )
    status, error, http_status = _judge(request, outcome)
    latency_s = span_s(sent, last)
    ok = status == "ok"
    return Seen(
        request_id=text(request.get("request_id")),
        status=status,
        error=error,
        http_status=http_status,
        conversation_id=text(at(info, "conversation_id")),
        turn=whole(at(info, "turn_index")) or 0,
        isl=whole(request.get("prompt_tokens")) if ok else None,
        osl=whole(request.get("output_tokens")) if ok else None,
        cached_tokens=whole(request.get("cached_tokens")) if ok else None,
        scheduled_ns=_wall_ns(scheduled),
        sent_ns=_wall_ns(sent),
        ttft_s=_milliseconds(request, "time_to_first_token_ms") or span_s(sent, first),
        ttft_content_s=_milliseconds(request, "time_to_first_output_token_ms") or span_s(sent, first_content),
        latency_s=(number(request.get("request_latency")) if latency_s is None else latency_s) if ok else None,
        send_lag_s=span_s(scheduled, sent),
    )


def _moment(value: Any) -> float | None:
    seconds = number(value)
    return seconds if seconds is not None and 0 < seconds < _MOST_SECONDS else None


def _wall_ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)


def _milliseconds(request: dict[str, Any], name: str) -> float | None:
    value = number(request.get(name))
    return value / 1e3 if value else None


def _judge(request: dict[str, Any], outcome: str) -> tuple[Status, str | None, int | None]:
    """Return our status, the reason, and the HTTP status where the reason names it."""
    if outcome == "successful":
        return "ok", None, None
    message = text(at(request, "info", "error"))
    told = shortened(message)
    if outcome == "incomplete" or at(request, "info", "status") == "cancelled":
        return "cancelled", told or "cancelled by GuideLLM", None
    if message is not None and "HTTPStatusError" in message:
        found = _HTTP_STATUS.search(message)
        return "http_error", told, int(found.group(1)) if found else None
    return status_of(message or ""), told or "failed, and GuideLLM does not say how", None
