"""Made-up requests and sealed runs, as the analysis reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from kvbench.analysis.dataset import requests_frame
from kvbench.analysis.measured_result import SealedRun
from kvbench.result.records import Row
from kvbench.result.run_record import BlockRecord, CacheRecord, DriverRecord, Ledger, RunRecord, ServerRecord
from kvbench.result.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from kvbench.result.verdict import VerdictWord

_KINDS = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
_SCHEMA = pa.schema([(name, _KINDS.get(kind.split(" ")[0], pa.string())) for name, kind in Row.__annotations__.items()])
LEDGER = Ledger(
    requests=0,
    prompt_tokens=None,
    cached_tokens=None,
    expected_cached_tokens=None,
    counter_hits=None,
    counter_computed=None,
    read_bytes={},
    process_read_bytes=None,
    expected_read_bytes=None,
    hit_efficiency=None,
    closes=True,
    gap=None,
)


def request(number: int, ttft_s: float | None, **changes: Any) -> Row:
    """One answered request: 1,000 prompt tokens of which 750 are cached, 11 output tokens, 10 ms each."""
    sent = number * 1_000_000_000
    latency = None if ttft_s is None else ttft_s + 0.1
    given: dict[str, Any] = {
        "run_id": "r01-g4",
        "attempt": 1,
        "treatment": "g4",
        "repeat": 1,
        "phase": "measure",
        "request_id": f"{number}",
        "prompt_id": f"p{number}",
        "conversation_id": None,
        "turn": 0,
        "isl_target": 1000,
        "isl": 1000,
        "osl": 11,
        "cached_tokens": 750,
        "scheduled_ns": sent - 500_000_000,
        "sent_ns": sent,
        "first_token_ns": None if ttft_s is None else sent + round(ttft_s * 1e9),
        "last_token_ns": None if latency is None else sent + round(latency * 1e9),
        "ttft_s": ttft_s,
        "ttft_content_s": ttft_s,
        "ttft_bound": "exact",
        "tpot_s": 0.01,
        "latency_s": latency,
        "send_lag_s": 0.5,
        "receive_lag_s": 0.0,
        "status": "ok",
        "error": None,
        "http_status": 200,
        "tier": "g4",
        "driver": "native",
    }
    return Row(**{**given, **changes})


def table_of(rows: Sequence[Row]) -> Any:
    """Return rows as the table that `requests.parquet` holds."""
    return pa.Table.from_pylist([row.to_json() for row in rows], schema=_SCHEMA)


def frame_of(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows as the DataFrame that is read from `requests.parquet`."""
    return requests_frame(table_of(rows))


def record_of(repeat: int = 1, load_s: float | None = 10.0, **changes: Any) -> RunRecord:
    """Return the record of a run whose requests were out beside one another, from a warm G4."""
    given: dict[str, Any] = {
        "run_id": f"r{repeat:02d}-g4",
        "treatment": "g4",
        "repeat": repeat,
        "started": None,
        "load_s": load_s,
        "cache": CacheRecord("warm(g4)"),
        "ledger": LEDGER,
        "blocks": BlockRecord(16, 100.0, "g4"),
        "driver": DriverRecord("native"),
        "server": ServerRecord(None, "m"),
    }
    return RunRecord(**{**given, **changes})


def run_of(
    rows: Sequence[Row], load_s: float | None = 10.0, repeat: int = 1, word: VerdictWord = "valid", **changes: Any
) -> SealedRun:
    """Return a sealed run of these requests; `changes` are those of its record."""
    return SealedRun(record_of(repeat, load_s, **changes), frame_of(rows), Verdict(word))


FOUR = [request(number, ttft) for number, ttft in enumerate([0.1, 0.2, 0.3, 0.4])]


def rows_of(run_folder: Path) -> list[Row]:
    """Return all rows of a sealed run."""
    return [Row.from_json(value) for value in pq.read_table(run_folder / "requests.parquet").to_pylist()]
