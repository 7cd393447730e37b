"""Reads the sealed runs of a result with their verdicts; every figure, summary and comparison starts from them.

A run that is not sealed has a journal and no `run.json`; it is not here, because its cache state died with it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kvbench.analysis.checks.expected import Expected
from kvbench.analysis.checks.judge import judge_imported, judge_run
from kvbench.analysis.measured_result import Dataset, SealedRun
from kvbench.errors import ResultError
from kvbench.result import calibration
from kvbench.result.files import read_json
from kvbench.result.parquet_file import schema_of
from kvbench.result.record_files import RUN, read_plan, read_run
from kvbench.result.rows import ROWS, row_kinds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kvbench.result.calibration_record import CalibrationExcerpt
    from kvbench.result.plan_record import Design, PlannedRun
    from kvbench.result.run_record import RunRecord

_SCHEMA = schema_of(row_kinds())
COLUMNS = (
    *("request_id", "prompt_id", "conversation_id", "turn", "isl_target", "isl", "osl", "cached_tokens"),
    *("scheduled_ns", "sent_ns", "first_token_ns", "last_token_ns"),
    *("ttft_s", "ttft_content_s", "ttft_bound", "tpot_s", "latency_s", "send_lag_s", "receive_lag_s"),
    *("status", "http_status", "tier", "answers_match", "model"),
    *("server_overrun_s", "server_storage_s", "server_path_s", "server_read_bytes", "server_first_chunk_ns"),
)
"""What figures and verdicts are made of; long texts such as `tier_evidence` are read only where they are shown."""


def read(folder: Path) -> Dataset:
    """Read a result folder.

    Raises:
        ResultError: the folder is not a result, or no run of it is sealed.

    """
    plan = read_plan(folder)
    runs = [run for planned in plan.runs for run in _read_run(folder, planned, plan.design)]
    if not runs:
        raise ResultError(f"{folder} has no finished run yet", "Run the scenario again: it goes on where it stopped.")
    attached = calibration_of(folder, plan.design, runs[0].record)
    return Dataset(folder, plan, read_json(folder / "facts.json"), runs, attached)


def read_requests(run_folder: Path, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Read the measured requests of a sealed run, with these fields of `records.Row` and `length` of each request.

    `length` is the prompt length that a request's figures stand under: the planned one, the counted one where nobody
    planned. A field that the version which wrote the result did not have is null.
    """
    path = run_folder / ROWS
    try:
        known = set(pq.read_schema(path).names)
        named = [name for name in dict.fromkeys((*columns, "isl_target", "isl")) if name in known]
        table = pq.read_table(path, columns=named, filters=[("phase", "==", "measure")])
    except (OSError, pa.ArrowInvalid) as fault:
        raise ResultError(f"cannot read {path}: {fault}", "Name a result folder that `kvbench run` wrote.") from None
    return requests_frame(table, columns)


def requests_frame(table: Any, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Return a table of measured requests as a DataFrame with pyarrow-backed columns, `length` among them."""
    table = table.combine_chunks()
    length = pc.coalesce(table["isl_target"], table["isl"])
    for name in columns:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), _SCHEMA.field(name).type))
    frame: pd.DataFrame = (
        table.select(list(columns)).append_column("length", length).to_pandas(types_mapper=pd.ArrowDtype)
    )
    return frame


def calibration_of(
    folder: Path, design: Design, record: RunRecord, treatment: str | None = None
) -> CalibrationExcerpt | None:
    """Return what the attached calibration says of the driver, at one treatment's concurrency or at all of them."""
    if design.imported or record.started is None:
        return None
    counts = [design.concurrency_of(name) for name in design.treatments if treatment in (None, name)]
    known = [count for count in counts if count is not None]
    return calibration.excerpt(folder, record.driver.name, known, design.lengths, record.started)


def _read_run(result: Path, planned: PlannedRun, design: Design) -> Iterator[SealedRun]:
    """Read a run of the plan, if it is sealed."""
    folder = result / "runs" / planned.run_id
    if not (folder / RUN).exists():
        return
    record, measured = read_run(folder), read_requests(folder)
    if design.imported:
        yield SealedRun(record, measured, judge_imported(design.imported, measured))
        return
    excerpt = calibration_of(result, design, record, planned.treatment)
    error_s = calibration.worst_error_s(excerpt)[0] if excerpt is not None else None
    expected = Expected.of_plan(design, planned, error_s)
    yield SealedRun(record, measured, judge_run(record, measured, expected, partial(tier_evidence, folder)))


def tier_evidence(run_folder: Path, request_id: str) -> str | None:
    """Return why a measured request of a sealed run has its tier."""
    only = [("phase", "==", "measure"), ("request_id", "==", request_id)]
    rows = pq.read_table(run_folder / ROWS, columns=["tier_evidence"], filters=only)
    evidence: str | None = rows["tier_evidence"][0].as_py() if len(rows) else None
    return evidence
