"""Health of the client: for each run how well the instrument itself did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Row, Table, row
from kvbench.report.text import percent

if TYPE_CHECKING:
    import pandas as pd

    from kvbench.analysis.summary_types import RunSummary
    from kvbench.report.report_input import ReportInput

_NEEDED = ("run_id", "status", "ttft_s", "ttft_bound", "send_lag_s", "receive_lag_s", "server_overrun_s")
_NOTES = (
    "Send lag: how much later than scheduled the first byte was handed to the kernel.",
    "Receive lag: how much later than the kernel the program saw the first token; kernel stamps leave it out of TTFT.",
    "Client CPU: share of one core.",
    "Emulator overrun: its processor time beyond what it models, as a share of TTFT, mean over requests.",
)


def client(given: ReportInput) -> Table:
    """Return one row for each sealed run, over its answered requests."""
    columns = (
        Column("run", "Run", kind="name", is_key=True),
        Column("stamps", "Stamps", kind="text"),
        Column("upper_bounds", "Upper bounds", "share", "lower"),
        Column("send_lag_median", "Send lag, median", "s", "lower"),
        Column("send_lag_max", "Send lag, maximum", "s", "lower"),
        Column("receive_lag_median", "Receive lag, median", "s", "lower"),
        Column("receive_lag_max", "Receive lag, maximum", "s", "lower"),
        Column("client_cpu", "Client CPU", "share", "lower"),
        Column("clock_step", "Clock step", "s"),
        Column("overrun", "Emulator overrun", "share", "lower"),
    )
    measured = given.requests.frame(_NEEDED)
    answered = measured[measured["status"] == "ok"]
    by_run = dict(iter(answered.groupby("run_id", sort=False)))
    rows = tuple(_row(run, by_run.get(run.run_id, answered.iloc[:0])) for run in given.summary.runs)
    return Table("client", "Health of the client", columns, rows, _NOTES)


def _row(run: RunSummary, answered: pd.DataFrame) -> Row:
    client = run.client
    cpu = client.client_cpu_s / client.wall_s if client.client_cpu_s is not None and client.wall_s else None
    bounds = answered["ttft_bound"].dropna()
    upper, timed = int((bounds == "upper").sum()), len(bounds)
    send, receive = answered["send_lag_s"].dropna(), answered["receive_lag_s"].dropna()
    known = answered.dropna(subset=["server_overrun_s", "ttft_s"])
    over = (known["server_overrun_s"] / known["ttft_s"])[known["ttft_s"] != 0]
    return row(
        Cell(run.run_id, mark="key"),
        Cell(client.stamps, refusal="not known" if client.stamps is None else None),
        Cell(upper / timed, text=f"{percent(upper / timed)} ({upper} of {timed})") if timed else Cell(),
        *_median_and_most(send),
        *_median_and_most(receive),
        Cell(cpu),
        Cell(client.clock_step_s),
        Cell(float(over.mean())) if len(over) else Cell(refusal="not reported"),
        mark="struck" if run.verdict == "invalid" else "",
    )


def _median_and_most(values: pd.Series[float]) -> tuple[Cell, Cell]:
    if not len(values):
        return Cell(refusal="not known"), Cell(refusal="not known")
    return Cell(float(values.median())), Cell(float(values.max()))
