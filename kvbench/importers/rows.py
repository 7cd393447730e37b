"""Makes the rows of a result folder, with the columns of `records.Row`, from the columns that a reader found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kvbench.importers.columns import changed
from kvbench.result.parquet_file import schema_of
from kvbench.result.redact import without_named_secrets
from kvbench.result.rows import row_kinds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.result.plan_record import PlannedRun

_BATCH_ROWS = 65_536
_NO_TIER = "imported: no source tells which tier served it"


def rows_of(tool: str, run: PlannedRun, requests: pa.Table) -> Iterator[pa.RecordBatch]:
    """Give the rows of a run in batches."""
    schema = schema_of(row_kinds())
    for begin in range(0, len(requests), _BATCH_ROWS):
        yield from _rows(tool, run, requests.slice(begin, _BATCH_ROWS), begin, schema)


def _rows(tool: str, run: PlannedRun, seen: pa.Table, begin: int, schema: pa.Schema) -> list[pa.RecordBatch]:
    count = len(seen)
    place = pa.array([f"{number:03d}" for number in range(begin, begin + count)])
    own_id = pc.fill_null(seen["request_id"], "request")
    same = {
        "run_id": run.run_id,
        "treatment": run.treatment,
        "repeat": run.repeat,
        "attempt": 1,
        "driver": tool,
        "tier_evidence": _NO_TIER,
    }
    columns = {
        **{name: pa.repeat(pa.scalar(value, schema.field(name).type), count) for name, value in same.items()},
        **{name: seen[name] for name in seen.column_names if name in schema.names},
        "request_id": pc.binary_join_element_wise(f"{run.run_id}/", place, "-", own_id, ""),
        "prompt_id": pc.coalesce(seen["conversation_id"], place),
        "first_token_ns": _after(seen["sent_ns"], seen["ttft_s"]),
        "last_token_ns": _after(seen["sent_ns"], seen["latency_s"]),
        "tpot_s": _tpot_s(seen),
        "error": changed(seen["error"], without_named_secrets),
        "model": changed(seen["model"], without_named_secrets),
    }
    arrays = [columns.get(field.name, pa.nulls(count, field.type)) for field in schema]
    batches: list[pa.RecordBatch] = pa.Table.from_arrays(arrays, schema=schema).combine_chunks().to_batches()
    return batches


def _after(sent_ns: pa.ChunkedArray, seconds: pa.ChunkedArray) -> pa.Array:
    """Return the moment so long after the sending; null where it does not fit 64 bits."""
    is_known = pc.and_(pc.is_valid(sent_ns), pc.is_valid(seconds)).to_numpy()
    start = pc.fill_null(sent_ns, 0).to_numpy()
    span = np.rint(pc.fill_null(seconds, 0.0).to_numpy() * 1e9)
    fits = is_known & (span < 2.0**63 - start.astype(np.float64) - 1024)  # 1024: the step of floats near 2**63
    moment = start + np.where(fits, span, 0).astype(np.int64)
    return pa.array(moment, pa.int64(), mask=~fits)


def _tpot_s(seen: pa.Table) -> pa.ChunkedArray:
    """Formula: (latency - TTFT) / (OSL - 1), as for requests of our own."""
    span = pc.subtract(seen["latency_s"], seen["ttft_s"])
    gaps = pc.cast(pc.subtract(seen["osl"], 1), pa.float64(), safe=False)
    is_told = pc.and_(pc.greater_equal(span, 0.0), pc.greater_equal(gaps, 1.0))
    return pc.if_else(is_told, pc.divide(span, gaps), pa.scalar(None, pa.float64()))
