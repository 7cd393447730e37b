"""The result of `vllm bench serve --save-result --save-detailed`: lists with one entry for each request.

Times are of a performance counter without a date, so wall-clock times stay null. vLLM calls the gaps between chunks
`itls`; here they only serve to find the latency in files that do not hold it. A file that was written with
`--append-result` holds several results, each of them a run.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from kvbench.errors import ResultError
from kvbench.importers.source import (
    REMEDIES,
    Part,
    Seen,
    Source,
    misplaced,
    read_bytes,
    read_lines,
    shared,
    status_of,
    wrong_kind,
)
from kvbench.lenient_json import items, number, parse, shortened, text, whole

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.records import Status

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


def _check_lists(path: Path, line_number: int, result: dict[str, Any]) -> None:
    if "ttfts" not in result and "request_throughput" in result:
        raise ResultError(f"{path}:{line_number} holds totals and no requests", REMEDIES["vllm"])
    if not isinstance(result.get("ttfts"), list):
        if "ttfts" in result:
            raise misplaced(path, line_number, "`ttfts` is not a list")
        raise wrong_kind(path, "vllm", result)
    count = len(result["ttfts"])
    for name in _LISTS:
        if isinstance(result.get(name), list) and len(result[name]) != count:
            raise misplaced(path, line_number, f"`{name}` holds {len(result[name])} values for {count} requests")


def _disagreement(part: Part, result: dict[str, Any]) -> list[str]:
    """Say where vLLM's own count of answered requests is not what its lists show."""
    told, found = whole(result.get("completed")), sum(seen.status == "ok" for seen in part.seen)
    if told is None or told == found:
        return []
    return [f"Agreement on {part.treatment}: vLLM counts {told} answered requests, its lists show {found}."]


def _read_result(path: Path, line_number: int, result: dict[str, Any]) -> Part:
    rate = number(result.get("request_rate"))
    seen = []
    for place in range(len(result["ttfts"])):
        one = {name: items(result.get(name))[place] for name in _LISTS if items(result.get(name))}
        if not isinstance(one.get("errors", ""), str | None):
            raise misplaced(path, line_number, f"`errors[{place}]` is not a text")
        seen.append(_read_request(one, open_loop=rate is not None))
    concurrency = whole(result.get("max_concurrency")) or None
    return Part(
        _treatment(concurrency, rate), tuple(seen), load_s=number(result.get("duration")), concurrency=concurrency
    )


def _treatment(concurrency: int | None, rate: float | None) -> str:
    """Name a result by its load: `concurrency-2`, `rate-20`, both, or `unlimited`."""
    parts = [f"concurrency-{concurrency}"] if concurrency is not None else []
    parts += [f"rate-{rate:g}"] if rate is not None else []
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts)) or "unlimited"


def _read_request(one: dict[str, Any], *, open_loop: bool) -> Seen:
    ttft_s = number(one.get("ttfts")) or None
    osl = whole(one.get("output_lens"))
    failure = text(one.get("errors"))
    if failure is None and ttft_s is None and not osl:
        failure = "failed, and vLLM does not say how"
    if failure is not None:
        status, http_status = _judge(failure)
        return Seen(None, status, error=shortened(failure), http_status=http_status, ttft_s=ttft_s)
    return Seen(
        request_id=None,
        status="ok",
        isl=whole(one.get("input_lens")),
        osl=osl,
        ttft_s=ttft_s,
        latency_s=_latency_s(one, ttft_s),
        send_lag_s=number(one.get("queue_times")) if open_loop else None,  # in a closed loop it waits for its turn
    )


def _latency_s(one: dict[str, Any], ttft_s: float | None) -> float | None:
    """Return the time to the last token; where the file does not hold it, TTFT and the chunk gaps add up to it."""
    if "latencies" in one:
        return number(one["latencies"]) or None
    gaps = [number(gap) for gap in items(one.get("itls"))]
    known = [gap for gap in gaps if gap is not None]
    complete = isinstance(one.get("itls"), list) and len(known) == len(gaps)
    return ttft_s + sum(known) if complete and ttft_s is not None else None


def _judge(failure: str) -> tuple[Status, int | None]:
    """Read a failure: the reason phrase of an HTTP error, or a traceback."""
    if failure in _REASONS:
        return "http_error", _REASONS[failure]
    return status_of(failure), None
