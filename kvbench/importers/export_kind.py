"""What an export of another tool holds, in our words, and how a file of unknown quality is read.

A reader turns a file into a `Source`. What the file does not tell is None, never a guess; what cannot be read at all is
a `ResultError` that names the file and the place in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kvbench.errors import ResultError
from kvbench.lenient_json import parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kvbench.result.records import Status
    from kvbench.typed_json import JsonObject

EXPORTS = {
    "aiperf": "per-request export of AIPerf",
    "guidellm": "benchmark report of GuideLLM",
    "vllm": "detailed result of `vllm bench serve`",
}
REMEDIES = {
    "aiperf": "Give profile_export.jsonl, profile_export_raw.jsonl, or the artifact folder that holds them.",
    "guidellm": "Give the JSON that GuideLLM writes with --output kind=json,path=FILE.",
    "vllm": "Give the JSON that `vllm bench serve --save-result --save-detailed` writes.",
}
_AGGREGATE = "aggregate"


def span_s(start: float | None, end: float | None) -> float | None:
    """Return the seconds between two moments in seconds; None where one is missing or they are in the wrong order."""
    return end - start if start is not None and end is not None and end >= start else None


# -- failures ----------------------------------------------------------------------------------------------------------

# Names of exceptions of aiohttp, httpx and Python; the first that fits decides.
_FAILURES: tuple[tuple[re.Pattern[str], Status], ...] = (
    (re.compile(r"[Ss]treaming response returned an error|Never received a valid chunk"), "stream_error"),
    (re.compile(r"\w*TimeoutError|(Read|Write|Connect|Pool)Timeout|TimeoutException"), "timeout"),
    (re.compile(r"ClientConnector\w*Error|ConnectError\b|ConnectionRefusedError|Cannot connect to host"), "refused"),
    (re.compile(r"Cancel"), "cancelled"),
    (
        re.compile(
            r"ClientPayloadError|TransferEncodingError|ServerDisconnected|ClientOSError|ConnectionReset|BrokenPipe"
            r"|RemoteProtocolError|ReadError|WriteError|IncompleteRead"
        ),
        "cut",
    ),
)


def status_of(failure: str) -> Status:
    """Find our word for a failure that a tool tells by the name of an exception; `stream_error` where none fits."""
    return next((status for pattern, status in _FAILURES if pattern.search(failure)), "stream_error")


# -- files -------------------------------------------------------------------------------------------------------------


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        ResultError: it is not there, may not be read, or holds nothing.

    """
    try:
        content = path.read_bytes()
    except OSError as fault:
        reason = (fault.strerror or str(fault)).lower()
        raise ResultError(f"cannot read {path}: {reason}", "Give the file that the other tool wrote.") from None
    if not content.strip():
        raise ResultError(f"{path} is empty", "Give a file that holds requests; the other tool may have been killed.")
    return content


def read_lines(path: Path, tool: str) -> Iterator[tuple[int, JsonObject]]:
    """Give each line's number and the JSON object on it.

    Raises:
        ResultError: a line is no JSON object.

    """
    try:
        with path.open("rb") as lines:
            for line_number, line in enumerate(lines, 1):
                if line.strip():
                    yield line_number, one_line(path, line_number, line, tool)
    except OSError as fault:
        reason = (fault.strerror or str(fault)).lower()
        raise ResultError(f"cannot read {path}: {reason}", REMEDIES[tool]) from None


def one_line(path: Path, line_number: int, line: bytes, tool: str) -> JsonObject:
    """Return the JSON object on a line.

    Raises:
        ResultError: it is none.

    """
    value = parse(line)
    if isinstance(value, dict):
        return value
    if line_number == 1 and isinstance(document := parse(read_bytes(path)), dict):  # one object over many lines
        raise wrong_kind(path, tool, document)
    remedy = "Take the line out to import the rest; the other tool may have been killed while it wrote."
    raise ResultError(f"{path}:{line_number} is not a JSON object", remedy if line_number > 1 else REMEDIES[tool])


def kind_of(value: JsonObject) -> str | None:
    """Recognise by its names which tool's file an object comes from; None for a stranger."""
    if isinstance(value.get("benchmarks"), list):
        return "guidellm"
    if "ttfts" in value or {"backend", "request_throughput"} <= value.keys():
        return "vllm"
    if "metadata" in value and value.keys() & {"metrics", "responses", "start_perf_ns"}:
        return "aiperf"
    return _AGGREGATE if "aiperf_version" in value or "time_to_first_token" in value else None


def wrong_kind(path: Path, tool: str, value: JsonObject) -> ResultError:
    """Say what a file is instead of what was expected."""
    kind = kind_of(value)
    if kind == _AGGREGATE:
        return ResultError(f"{path} holds AIPerf's aggregates and no requests", REMEDIES["aiperf"])
    if kind is not None and kind != tool:
        return ResultError(f"{path} is a {EXPORTS[kind]}, not a {EXPORTS[tool]}", f"Use --from {kind}.")
    return ResultError(f"{path} is not a {EXPORTS[tool]}", REMEDIES[tool])


def misplaced(path: Path, place: str | int, what: str) -> ResultError:
    """Say that something at a line or a place in a file cannot be understood."""
    return ResultError(f"{path}:{place} {what}", "Take it out to import the rest, or export the result again.")


def shared(values: Sequence[Any]) -> Any:
    """Return the one value that all share; None where they differ."""
    return values[0] if values and all(value == values[0] for value in values) else None
