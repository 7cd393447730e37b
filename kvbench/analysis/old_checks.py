"""Hands typed records and DataFrames to the rules in `kvbench.checks`, which still take dictionaries and rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kvbench import checks
from kvbench.analysis.summary_types import EmptyStart
from kvbench.checks import treatment
from kvbench.records import ROW_FIELDS, Row
from kvbench.result.verdict import Reason, Verdict
from kvbench.typed_json import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from kvbench.analysis.measured import Columns, MeasuredRun
    from kvbench.result.plan_record import Design
    from kvbench.result.run_record import RunRecord


@dataclass(frozen=True, slots=True)
class Expected:
    """What a run should have been: its treatment's design, its number of requests, and the client's error."""

    design: Design
    treatment: str
    requests: int
    client_error_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    record: dict[str, Any]
    measured: list[Row]
    verdict: checks.Verdict


def judge_run(record: RunRecord, measured: pd.DataFrame, expected: Expected) -> Verdict:
    """Judge one sealed run by its record and its measured requests."""
    asked = checks.Asked.of_plan(
        asdict(expected.design), expected.treatment, expected.requests, expected.client_error_s
    )
    return _typed(checks.judge_run(_record(record), _rows(record, measured), asked))


def judge_imported(tool: str, measured: pd.DataFrame) -> Verdict:
    """Judge a run that another tool made."""
    return _typed(checks.judge_imported(tool, _rows(None, measured)))


def judge_treatment(name: str, runs: Sequence[MeasuredRun], design: Design) -> Verdict:
    """Judge one treatment by all runs of a result that are sealed."""
    return _typed(treatment.judge_treatment(name, [_run(run) for run in runs], asdict(design)))


def empty_starts(runs: Sequence[MeasuredRun]) -> tuple[EmptyStart, ...]:
    """Return for each round the most that its empty start can gain over recomputing."""
    return tuple(EmptyStart(**one.to_json()) for one in treatment.empty_starts([_run(run) for run in runs]))


def most_gain(starts: Sequence[EmptyStart]) -> float | None:
    """Return the bound over rounds."""
    return treatment.most_gain([treatment.EmptyStart(**asdict(one)) for one in starts])


def overrun_shares(requests: Columns) -> pd.Series:
    """Return for each request the emulator's overrun as a share of its TTFT, without those that tell none."""
    times = requests["ttft_s"]
    return (requests["server_overrun_s"] / times.where(times != 0)).dropna()


def _run(run: MeasuredRun) -> _Run:
    verdict = checks.Verdict(run.verdict.word, tuple(checks.Reason(**asdict(reason)) for reason in run.verdict.reasons))
    return _Run(_record(run.record), _rows(run.record, run.measured), verdict)


def _record(record: RunRecord) -> dict[str, Any]:
    value: dict[str, Any] = to_json(record)
    names = ("run_id", "treatment", "repeat")
    host = value["host"] and {**value["host"], "pressure": _known(value["host"]["pressure"])}
    return {
        **value,
        "run": {name: value[name] for name in names},
        "driver": _known(value["driver"]),
        "world": host,
    }


def _known(value: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in value.items() if one is not None}


def _rows(record: RunRecord | None, measured: pd.DataFrame) -> list[Row]:
    names = [name for name in ROW_FIELDS if name in measured]
    given: dict[str, Any] = dict.fromkeys(ROW_FIELDS) | {"phase": "measure", "driver": ""}
    if record is not None:
        given |= {"run_id": record.run_id, "treatment": record.treatment, "repeat": record.repeat}
    columns = [measured[name].array.__arrow_array__().to_pylist() for name in names]
    return [Row(**{**given, **dict(zip(names, values, strict=True))}) for values in zip(*columns, strict=True)]


def _typed(verdict: checks.Verdict) -> Verdict:
    return Verdict(verdict.word, tuple(Reason(**asdict(reason)) for reason in verdict.reasons))
