"""Reads GuideLLM's benchmark report: each benchmark becomes a run, and a treatment by its strategy and rate.

GuideLLM's own latency runs to the end of the request; here it ends at the last token, as everywhere in kvbench. Its
`inter_token_latency_ms` is TPOT, its `time_per_output_token_ms` is latency over OSL and is not read.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kvbench.errors import ResultError
from kvbench.importers.columns import numbers, table_of_rows
from kvbench.importers.export import Part, Seen, Source
from kvbench.importers.export_kind import REMEDIES, misplaced, read_bytes, shared, span_s, status_of, wrong_kind
from kvbench.importers.json_members import MemberReader, NotAnObjectError, Place
from kvbench.importers.line_ranges import Range, map_tasks
from kvbench.lenient_json import at, number, parse, shortened, text, whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvbench.result.records import Status
    from kvbench.typed_json import JsonObject

_OUTCOMES = ("successful", "errored", "incomplete")
_BATCH = 2048
_MOMENTS = (
    "targeted_start",
    "request_start",
    "first_token_iteration",
    "first_output_token_iteration",
    "last_token_iteration",
)
_HTTP_STATUS = re.compile(r"\b(?:error|status|code)\W{0,3}'?([1-5]\d\d)\b", re.IGNORECASE)
_COUNTED = (
    "Who counted prompt and output tokens: GuideLLM takes the server's usage, or its own tokenizer's count without it."
)
_MOST_SECONDS = 9_000_000_000.0  # the year 2255; wall-clock nanoseconds beyond it would not fit 64 bits


def read(path: Path) -> Source:
    """Read a report in JSON, its requests in batches.

    Raises:
        ResultError: the file is something else, or a part of it is not what it should be.

    """
    if path.is_dir() or not path.exists() or path.stat().st_size == 0:
        read_bytes(path)  # says which of the three it is
    reader = MemberReader("benchmarks", "requests", _OUTCOMES)
    lists = _read_requests(path, reader)
    report = reader.rest
    if not isinstance(report, dict):
        raise ResultError(f"{path} is not JSON", REMEDIES["guidellm"])
    benchmarks = report.get("benchmarks")
    if not isinstance(benchmarks, list):
        raise wrong_kind(path, "guidellm", report)
    if not benchmarks:
        raise ResultError(f"{path} holds no benchmark", REMEDIES["guidellm"])
    missing = [_COUNTED]
    parts = []
    for number_, benchmark in enumerate(benchmarks):
        if not isinstance(at(benchmark, "requests"), dict):
            raise misplaced(path, f"benchmarks[{number_}]", "has no requests")
        found = [batch for outcome in _OUTCOMES for batch in lists.get(Place(number_, outcome), [])]
        parts.append(_part(number_, benchmark, found))
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


def _read_requests(path: Path, reader: MemberReader) -> dict[Place, list[pa.Table]]:
    """Read the requests of every list, a batch at a time: here they are found, the workers read them."""
    lists: dict[Place, list[pa.Table]] = {}
    try:
        for (place, _), table in map_tasks(partial(_read_batch, path), _batches(path, reader), path.stat().st_size):
            if table is None:
                raise ResultError(f"{path} is not JSON", REMEDIES["guidellm"])
            lists.setdefault(place, []).append(table)
    except NotAnObjectError as found:
        where = f"benchmarks[{found.place.outer_place}].requests.{found.place.name}[{found.number}]"
        raise misplaced(path, where, "is not a request") from None
    return lists


def _batches(path: Path, reader: MemberReader) -> Iterator[tuple[Place, Range]]:
    """Give ranges of requests that stand one after another in one list."""
    current, first, end, count = None, 0, 0, 0
    for place, one in reader.members(path):
        if current is not None and (place != current or count >= _BATCH):
            yield current, Range(first, end - first)
            current = None
        if current is None:
            current, first, count = place, one.offset, 0
        end, count = one.offset + one.length, count + 1
    if current is not None:
        yield current, Range(first, end - first)


def _read_batch(path: Path, task: tuple[Place, Range]) -> pa.Table | None:
    """Make columns of some requests of one list; None where they are not JSON."""
    place, where = task
    with path.open("rb") as file:
        requests = parse(b"[" + where.read(file) + b"]")
    if requests is None:
        return None
    return _table([(_read_request(one, place.name), *_span(one)) for one in requests])


def _table(read: list[tuple[Seen, float | None, float | None]]) -> pa.Table:
    """Make columns of some requests, with the moments that tell whether they were measured."""
    table = table_of_rows(seen for seen, _, _ in read)
    table = table.append_column("start", numbers([start for _, start, _ in read]))
    return table.append_column("end", numbers([end for _, _, end in read]))


def _part(number_: int, benchmark: JsonObject, batches: list[pa.Table]) -> Part:
    """Make a run of a benchmark: its requests in the order of sending."""
    requests = pa.concat_tables([_table([]), *batches])
    phase = pc.if_else(_is_inside(requests, _window(benchmark)), "measure", "warmup")
    requests = requests.set_column(requests.column_names.index("phase"), "phase", phase)
    order = np.argsort(pc.fill_null(requests["sent_ns"], 0).to_numpy(), kind="stable")
    strategy = at(benchmark, "config", "strategy")
    return Part(
        _treatment(strategy, number_),
        requests.drop_columns(["start", "end"]).take(pa.array(order)),
        load_s=span_s(number(benchmark.get("start_time")), number(benchmark.get("end_time"))),
        concurrency=whole(at(strategy, "streams")) or None,
    )


def _window(benchmark: JsonObject) -> tuple[float | None, float | None]:
    """Return from when to when GuideLLM measured, where warmup or cooldown was asked for; None for no bound."""
    asked, metrics = at(benchmark, "config"), at(benchmark, "scheduler_metrics")
    start, end = number(at(metrics, "measure_start_time")), number(at(metrics, "measure_end_time"))
    has_warmup, has_cooldown = (
        any(number(at(asked, name, key)) for key in ("percent", "value")) for name in ("warmup", "cooldown")
    )
    return start if has_warmup else None, end if has_cooldown else None


def _span(request: JsonObject) -> tuple[float | None, float | None]:
    """Return when a request began and ended."""
    timings = at(request, "info", "timings")
    end = number(at(timings, "request_end")) or number(at(timings, "resolve_end"))
    return number(at(timings, "request_start")), end


def _is_inside(requests: pa.Table, window: tuple[float | None, float | None]) -> pa.ChunkedArray:
    """Tell which requests overlap the window: the rule by which GuideLLM itself chooses those of its figures."""
    begins, ends = (
        (float("-inf") if window[0] is None else window[0]),
        (float("inf") if window[1] is None else window[1]),
    )
    in_time = pc.fill_null(pc.less(requests["start"], ends), True)  # noqa: FBT003
    return pc.and_(in_time, pc.fill_null(pc.greater(requests["end"], begins), True))  # noqa: FBT003


def _treatment(strategy: Any, place: int) -> str:
    """Name a benchmark by its strategy and what was set for it: `concurrent-4`, `constant-2.5`."""
    kind = text(at(strategy, "type_"))
    if kind is None:
        return f"benchmark-{place + 1}"
    level = number(at(strategy, "streams"))
    level = number(at(strategy, "rate")) if level is None else level
    name = kind if level is None else f"{kind}-{level:g}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or f"benchmark-{place + 1}"


def _left_out(part: Part, benchmark: JsonObject) -> list[str]:
    """Say how many requests the report counts but does not hold: it may keep only a sample."""
    made = whole(at(benchmark, "scheduler_metrics", "requests_made", "total"))
    if made is None or made <= len(part.requests):
        return []
    return [f"Requests of {part.treatment}: the report holds {len(part.requests)} of {made}, a sample."]


def _read_request(request: JsonObject, outcome: str) -> Seen:
    info = request.get("info")
    timings = at(info, "timings")
    told = timings if isinstance(timings, dict) else {}
    scheduled, sent, first, first_content, last = map(_moment, map(told.get, _MOMENTS))
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


def _milliseconds(request: JsonObject, name: str) -> float | None:
    value = number(request.get(name))
    return value / 1e3 if value else None


def _judge(request: JsonObject, outcome: str) -> tuple[Status, str | None, int | None]:
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
