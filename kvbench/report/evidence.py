"""The evidence behind the figures: proof of tiers, steps to the cache states, all runs, and the client's own health."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING, Any

from kvbench.checks.client import overrun_shares
from kvbench.checks.treatment import gather_reasons
from kvbench.report.grid import (
    NOTHING,
    SPACE,
    Cell,
    Column,
    Grid,
    Line,
    difference,
    line,
    moment,
    percent,
    served_cell,
    shown,
)
from kvbench.units import format_duration, format_rate, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvbench.records import Row
    from kvbench.report.material import Material

_FINE = ("proven", "done")
_FIGURES = re.compile(r"[\d.,]+")


def reasons(material: Material) -> list[dict[str, Any]]:
    """Give each kind of reason once, worst first, with the runs and treatments that it holds for."""
    found = []
    for reason, (first, *others) in grouped_reasons(material.summary):
        likewise = f"; likewise, with figures of their own: {', '.join(others)}" if others else ""
        found.append({**reason, "runs": f"{first}{likewise}"})
    return found


def grouped_reasons(summary: dict[str, Any]) -> list[tuple[dict[str, str], list[str]]]:
    """Join reasons that differ in nothing but their figures: the list of all runs has each with its own."""
    found: dict[str, tuple[dict[str, str], list[str]]] = {}
    for reason, owners in gather_reasons(summary):
        kind = _FIGURES.sub("", f"{reason['level']} {reason['rule']} {reason['text']}")
        known = found.setdefault(kind, (reason, []))[1]
        known += [owner for owner in owners if owner not in known]
    return list(found.values())


# -- proof ------------------------------------------------------------------------------------------------------------


def proof_grid(material: Material) -> Grid:
    """Give one row for each treatment: what served it, and the bytes by three independent sources."""
    rates = any(item["storage_bytes_per_s"] is not None for item in material.summary["treatments"].values())
    columns = (
        Column("Treatment", "name"),
        Column("Runs used / made"),
        Column("Served from", "text"),
        Column("Cached tokens"),
        Column("Hit efficiency"),
        Column("Tier's count"),
        Column("Kernel's count"),
        Column("Manifest"),
        *((Column("Storage rate"),) if rates else ()),
        Column("Ledger", "text"),
    )
    names = material.summary["treatments"]
    return Grid(columns, tuple(_proof_line(material, name, with_rate=rates) for name in names))


def _proof_line(material: Material, name: str, *, with_rate: bool) -> Line:
    item = material.summary["treatments"][name]
    treatment = Cell(name, item["cache_state"] or "no run is done yet", "key")
    used = Cell(f"{item['runs_used']} / {item['runs']}", mark="" if item["runs_used"] == item["runs"] else "suspect")
    cached, expected = item["cached_tokens"], item["expected_cached_tokens"]
    tokens = Cell(shown(cached, "{:,}".format, "not reported"), shown(expected or None, "of {:,}".format, ""))
    moved, kernel, manifest = item["read_bytes"], item["process_read_bytes"], item["expected_read_bytes"]
    if not item["runs_used"]:
        return line(treatment, used, Cell("no valid run", mark="invalid"), *[NOTHING] * (6 + with_rate))
    return line(
        treatment,
        used,
        served_cell(item["tiers"]),
        tokens,
        shown(item["hit_efficiency"], lambda share: f"{share:.4f}", "none expected"),
        _bytes_cell(moved),
        _compared_bytes(kernel, moved, "not readable"),
        _compared_bytes(manifest, moved, "no manifest"),
        *([_rate_cell(item, material.summary["scale"])] if with_rate else []),
        _ledger_cell(material, name),
    )


def _bytes_cell(count: float | None) -> Cell:
    if count is None:
        return Cell("no counter", mark="quiet")
    return Cell(format_size(count), f"{count:,.0f}{SPACE}B" if count >= 1000 else "")


def _compared_bytes(value: float | None, counters: float | None, missing: str) -> Cell:
    """Show a byte count and, below it, by how much it differs from the tier's own counters where there are any."""
    if value is None:
        return Cell(missing, mark="quiet")
    return Cell(format_size(value), difference(value, counters) if counters else "")


def _rate_cell(item: dict[str, Any], scale: dict[str, Any] | None) -> Cell:
    rate = item["storage_bytes_per_s"]
    if rate is None:
        return Cell(NOTHING if item["read_bytes"] else "nothing read")
    full = f"{format_rate(rate * scale['bytes'] / scale['time'])} at full scale" if scale else ""
    return Cell(format_rate(rate).replace(" ", SPACE), full)


def _ledger_cell(material: Material, name: str) -> Cell:
    """Say in how many runs the books close; the first gap where they do not."""
    ledgers = [run["ledger"] for run in material.runs_of(name)]
    gaps = [ledger["gap"] for ledger in ledgers if ledger["gap"]]
    if gaps:
        return Cell(f"open in {len(gaps)} of {len(ledgers)} runs", gaps[0], "suspect")
    return Cell("closes", f"all{SPACE}{len(ledgers)}{SPACE}runs")


# -- steps ------------------------------------------------------------------------------------------------------------


def step_grids(material: Material) -> list[dict[str, Any]]:
    """Give the steps of each treatment's first run that is used, else of its first; those that are alike once."""
    found: dict[str, dict[str, Any]] = {}
    columns = (Column("Step", "text"), Column("Outcome", "text"), Column("Evidence", "long"))
    for name in material.summary["treatments"]:
        runs = material.runs_of(name)
        run = next((run for run in runs if run["word"] != "invalid"), runs[0] if runs else None)
        if run is None:
            continue
        alike = str((run["cache_state"], [(step["name"], step["outcome"]) for step in run["cache_steps"]]))
        lines = tuple(line(step["name"], _outcome(step), step["evidence"]) for step in run["cache_steps"])
        first = {"treatments": [], "state": run["cache_state"], "run_id": run["run_id"], "grid": Grid(columns, lines)}
        found.setdefault(alike, first)["treatments"].append(name)
    return list(found.values())


def odd_steps_grid(material: Material) -> Grid | None:
    """List each step of any run that was neither proven nor done; None where there is none."""
    columns = (Column("Run", "name"), Column("Step", "text"), Column("Outcome", "text"), Column("Evidence", "long"))
    lines = tuple(
        line(run["run_id"], step["name"], _outcome(step), step["evidence"])
        for run in material.summary["runs"]
        for step in run["cache_steps"]
        if step["outcome"] not in _FINE
    )
    return Grid(columns, lines) if lines else None


def _outcome(step: dict[str, Any]) -> Cell:
    outcome = step["outcome"]
    mark = {"proven": "valid", "done": "", "failed": "invalid"}.get(outcome, "suspect")
    return Cell(outcome, mark=mark)


# -- runs -------------------------------------------------------------------------------------------------------------


def runs_grid(material: Material) -> Grid:
    """Show every planned run in its order: verdict, attempt, requests, tiers, reasons."""
    columns = (
        Column("Run", "name"),
        Column("Started (UTC)", "text"),
        Column("Verdict", "text"),
        Column("Attempt"),
        Column("Answered"),
        Column("Served from", "text"),
        Column("Load phase"),
        Column("Reasons", "long"),
    )
    sealed = {run["run_id"]: run for run in material.summary["runs"]}
    lines = [_run_line(sealed.get(spec["run_id"]), spec["run_id"]) for spec in material.plan["runs"]]
    return Grid(columns, tuple(lines))


def _run_line(run: dict[str, Any] | None, run_id: str) -> Line:
    if run is None:
        return line(run_id, NOTHING, Cell("not done", mark="quiet"), *[NOTHING] * 4, "planned, not done yet")
    invalid = run["word"] == "invalid"
    told = "; ".join(f"{reason['level']}: {reason['text']}" for reason in run["reasons"])
    if invalid:
        told = f"left out of all figures. {told}"
    elif not told:
        told = "none"
    return line(
        Cell(run_id, mark="key"),
        moment(run["started"]),
        Cell(run["word"], mark=run["word"]),
        str(run["attempt"]),
        f"{run['ok']} of {run['requests']}",
        ", ".join(f"{tier}{SPACE}{count}" for tier, count in sorted(run["tiers"].items())) or NOTHING,
        shown(run["load_s"], format_duration, "not told"),
        told,
        mark="struck" if invalid else "",
    )


# -- the client -------------------------------------------------------------------------------------------------------


def client_grid(material: Material) -> Grid:
    """Show for each run how well the instrument itself did."""
    columns = (
        Column("Run", "name"),
        Column("Stamps", "text"),
        Column("Upper bounds"),
        Column("Send lag, median / max"),
        Column("Receive lag, median / max"),
        Column("Client CPU"),
        Column("Clock step"),
        Column("Emulator overrun"),
    )
    return Grid(columns, tuple(_client_line(run, material) for run in material.summary["runs"]))


def _client_line(run: dict[str, Any], material: Material) -> Line:
    rows = [row for row in material.rows[run["run_id"]] if row.phase == "measure" and row.status == "ok"]
    client = run["client"]
    timed = [row for row in rows if row.ttft_bound is not None]
    upper = sum(row.ttft_bound == "upper" for row in timed)
    cpu, wall, step = client.get("client_cpu_s"), client.get("wall_s"), client.get("clock_step_s")
    return line(
        Cell(run["run_id"], mark="key"),
        str(client.get("stamps") or "not told"),
        f"{percent(upper / len(timed))} ({upper} of {len(timed)})" if timed else NOTHING,
        _median_and_most(row.send_lag_s for row in rows),
        _median_and_most(row.receive_lag_s for row in rows),
        percent(round(cpu / wall, 4)) if cpu is not None and wall else NOTHING,
        f"{step * 1e6:+,.0f} us" if step is not None else NOTHING,
        _overrun(rows),
        mark="struck" if run["word"] == "invalid" else "",
    )


def _median_and_most(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "not known"
    return f"{format_duration(statistics.median(known))} / {format_duration(max(known))}"


def _overrun(rows: list[Row]) -> str:
    shares = overrun_shares(rows)
    return f"{statistics.fmean(shares):.3%}".replace("%", " %") if shares else "not reported"
