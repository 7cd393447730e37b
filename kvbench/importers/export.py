"""The values that every importer returns: an export with its parts and their requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from kvbench.result.records import Phase, Status


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as another tool saw it; its fields are the columns of `Part.requests`."""

    request_id: str | None
    status: Status
    phase: Phase = "measure"
    error: str | None = None
    http_status: int | None = None
    conversation_id: str | None = None
    turn: int = 0
    isl: int | None = None
    osl: int | None = None
    cached_tokens: int | None = None
    scheduled_ns: int | None = None
    sent_ns: int | None = None
    ttft_s: float | None = None
    ttft_content_s: float | None = None
    latency_s: float | None = None
    send_lag_s: float | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One run of the source: a phase of AIPerf, a benchmark of GuideLLM, a result of vLLM.

    `requests` has the columns of `Seen`, in the order of sending where it is known.
    """

    treatment: str
    requests: pa.Table
    load_s: float | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A whole export; `missing` says in sentences what this tool cannot tell, beside what the columns show."""

    tool: str
    version: str | None
    files: tuple[Path, ...]
    parts: tuple[Part, ...]
    missing: tuple[str, ...] = ()
    model: str | None = None
    url: str | None = None
