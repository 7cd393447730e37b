"""Reads the result of `vllm bench serve --save-result --save-detailed`: lists with one entry for each request.

Times are of a performance counter without a date, so wall-clock times stay null. vLLM calls the gaps between chunks
`itls`; here they only serve to find the latency in files that do not hold it. A file that was written with
`--append-result` holds several results, each of them a run.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from kvbench.errors import ResultError
from kvbench.importers.columns import numbers, table_of, texts, wholes, without_zero
from kvbench.importers.export import Part, Source
from kvbench.importers.export_kind import REMEDIES, misplaced, read_bytes, read_lines, shared, status_of, wrong_kind
from kvbench.lenient_json import items, number, parse, shortened, text, whole

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.result.records import Status
    from kvbench.typed_json import JsonObject

_LISTS = ("ttfts", "input_lens", "output_lens", "itls", "latencies", "queue_times", "errors")
_REASONS = {status.phrase: status.value for status in HTTPStatus if status.value >= 400}
_ALWAYS = (
    "vLLM's version, and the server's URL.",
    "Errors inside a stream (HTTP 200): vLLM counts such an answer as a success.",
    "Whether the first chunk held a token: vLLM counts an empty one as the first token.",
    "Who counted prompt tokens: vLLM takes the server's usage where there is one, otherwise its own count.",
    "Times of failed requests, apart from the first token of a stream that broke.",
)


def read(path: Path) -> Source:
    """Read one result, or several that were appended to one another.

    Raises:
        ResultError: the file is something else, has no lists of requests, or lists of different lengths.

    """
    whole_file = parse(read_bytes(path))
    results = [(1, whole_file)] if isinstance(whole_file, dict) else list(read_lines(path, "vllm"))
    parts, missing = [], list(_ALWAYS)
    for line_number, result in results:
        _check_lists(path, line_number, result)
        parts.append(_read_result(path, line_number, result))
        missing += _disagreement(parts[-1], result)
    return Source(
        tool="vllm",
        version=None,
        files=(path,),
        parts=tuple(parts),
        missing=tuple(missing),
        model=text(shared([result.get("model_id") for _, result in results])),
    )


def _check_lists(path: Path, line_number: int, result: JsonObject) -> None:
    if "ttfts" not in result and "request_throughput" in result:
        raise ResultError(f"{path}:{line_number} holds totals and no requests", REMEDIES["vllm"])
    if not isinstance(result.get("ttfts"), list):
        if "ttfts" in result:
            raise misplaced(path, line_number, "`ttfts` is not a list")
        raise wrong_kind(path, "vllm", result)
    count = len(items(result["ttfts"]))
    for name in _LISTS:
        values = result.get(name)
        if isinstance(values, list) and len(values) != count:
            raise misplaced(path, line_number, f"`{name}` holds {len(values)} values for {count} requests")


def _disagreement(part: Part, result: JsonObject) -> list[str]:
    """Say where vLLM's own count of answered requests is not what its lists show."""
    told, found = whole(result.get("completed")), pc.sum(pc.equal(part.requests["status"], "ok")).as_py() or 0
    if told is None or told == found:
        return []
    return [f"Agreement on {part.treatment}: vLLM counts {told} answered requests, its lists show {found}."]


def _read_result(path: Path, line_number: int, result: JsonObject) -> Part:
    rate = number(result.get("request_rate"))
    lists = {name: values for name in _LISTS if (values := items(result.get(name)))}
    for place, error in enumerate(lists.get("errors", ())):
        if error is not None and not isinstance(error, str):
            raise misplaced(path, line_number, f"`errors[{place}]` is not a text")
    concurrency = whole(result.get("max_concurrency")) or None
    return Part(
        _treatment(concurrency, rate),
        table_of([_columns(lists, open_loop=rate is not None)]),
        load_s=number(result.get("duration")),
        concurrency=concurrency,
    )


def _treatment(concurrency: int | None, rate: float | None) -> str:
    """Name a result by its load: `concurrency-2`, `rate-20`, both, or `unlimited`."""
    parts = [f"concurrency-{concurrency}"] if concurrency is not None else []
    parts += [f"rate-{rate:g}"] if rate is not None else []
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts)) or "unlimited"


def _columns(lists: dict[str, list[Any]], *, open_loop: bool) -> dict[str, pa.Array]:
    """Make columns of the lists; of a request that failed only the first token's time is known."""
    count = len(lists["ttfts"]) if "ttfts" in lists else 0
    ttft_s = without_zero(numbers(lists.get("ttfts", [])))
    osl = wholes(lists.get("output_lens", [None] * count))
    failures = texts(lists.get("errors", [None] * count))
    is_silent = pc.and_(pc.is_null(ttft_s), pc.equal(pc.fill_null(osl, 0), 0))
    failures = pc.if_else(pc.and_(pc.is_null(failures), is_silent), "failed, and vLLM does not say how", failures)
    is_ok = pc.is_null(failures)
    columns = {
        "isl": wholes(lists.get("input_lens", [None] * count)),
        "osl": osl,
        "latency_s": _latency_s(lists, ttft_s),
        # in a closed loop it waits for its turn
        "send_lag_s": numbers(lists.get("queue_times", [None] * count) if open_loop else [None] * count),
    }
    return {
        **{name: pc.if_else(is_ok, column, pa.scalar(None, column.type)) for name, column in columns.items()},
        **_judged(failures),
        "phase": pa.repeat(pa.scalar("measure"), count),
        "turn": pa.repeat(pa.scalar(0, pa.int64()), count),
        "ttft_s": ttft_s,
    }


def _latency_s(lists: dict[str, list[Any]], ttft_s: pa.Array) -> pa.Array:
    """Return the time to the last token; where the file does not hold it, TTFT and the chunk gaps add up to it."""
    if "latencies" in lists:
        return without_zero(numbers(lists["latencies"]))
    return pc.add(ttft_s, numbers([_total_s(gaps) for gaps in lists.get("itls", [None] * len(ttft_s))]))


def _total_s(gaps: Any) -> float | None:
    """Return the sum of gaps that are all known."""
    known = [number(gap) for gap in gaps] if isinstance(gaps, list) else [None]
    return None if None in known else sum(gap for gap in known if gap is not None)


def _judged(failures: pa.Array) -> dict[str, pa.Array]:
    """Make the columns that tell of failures; each different text is judged once."""
    found = pc.unique(failures).drop_null()
    judged = [_judge(failure) for failure in found.to_pylist()]
    place = pc.index_in(failures, value_set=found)
    return {
        "status": pc.fill_null(pa.array([status for status, _ in judged], pa.string()).take(place), "ok"),
        "error": pa.array(map(shortened, found.to_pylist()), pa.string()).take(place),
        "http_status": pa.array([code for _, code in judged], pa.int64()).take(place),
    }


def _judge(failure: str) -> tuple[Status, int | None]:
    """Read a failure: the reason phrase of an HTTP error, or a traceback."""
    if failure in _REASONS:
        return "http_error", _REASONS[failure]
    return status_of(failure), None
