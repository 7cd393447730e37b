"""A result of our own as a claims document, so that it is held against the same rules as what others publish.

A figure of a result has as many digits as it is shown with here, so its interval is narrow. A cell is a treatment at
one prompt length, or a treatment with all its lengths, which is where durations and byte counts belong.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from kvbench import claims_file, store, summary
from kvbench.claims import Claims, Condition, Experiment, Quantity, Source
from kvbench.metrics import sum_of_all
from kvbench.percentile import needed_n

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvbench.claims import Statistic, What
    from kvbench.claims_file import Document
    from kvbench.records import Row

_EXPERIMENT = "runs"
_STATES = {"off": "off", "cold": "empty"}
_SPREAD = "95 % intervals, of percentiles over requests and of ratios over rounds"
_PERCENTILES: dict[Statistic, int] = {"p90": 90, "p95": 95, "p99": 99}

Rows = dict[str, list["Row"]]


def read(result: Path) -> Document:
    """Read a result folder as claims.

    Raises:
        ResultError: the folder is not a result, or no run of it is sealed.

    """
    summed = summary.summarise(result)
    rows = {run["run_id"]: store.read_rows(result / "runs" / run["run_id"]) for run in summed["runs"]}
    first = store.read_json(result / "runs" / summed["runs"][0]["run_id"] / "run.json")
    return lay_out(summed, rows, (first["blocks"] or {}).get("kv_bytes_per_token"))


def lay_out(summed: dict[str, Any], rows: Rows, kv_bytes_per_token: float | None) -> Document:
    """Turn a summary and its rows into claims; invalid runs are left out, as everywhere."""
    conditions: list[Condition] = []
    quantities: list[Quantity] = []
    if kv_bytes_per_token:
        value = f"{kv_bytes_per_token:.0f}"
        quantities.append(_quantity("token-bytes", "kv_bytes_per_token", value, "B", condition=None))
    for name, treatment in summed["treatments"].items():
        runs = [run for run in summed["runs"] if run["treatment"] == name and run["word"] != "invalid"]
        measured = [[row for row in rows[run["run_id"]] if row.phase == "measure"] for run in runs]
        if not runs or not any(measured):
            continue
        whole = _whole_condition(name, treatment, measured, summed["concurrencies"][name])
        conditions.append(whole)
        quantities += _whole_figures(whole, runs, measured, treatment["metrics"])
        good = [row for run in measured for row in run if row.status == "ok"]
        lengths = [row["isl"] for row in summed["lengths"] if row["isl"] is not None]
        if not lengths:
            quantities += _length_figures(whole, good, latency=False)
        for tokens in lengths:
            own = [row for row in good if row.length == tokens]
            cell = whole.model_copy(
                update={"id": f"{name}-{tokens}", "prompt_tokens": tokens, "requests": len(own), "draw": None}
            )
            conditions.append(cell)
            quantities += _length_figures(cell, own)
    return claims_file.lay_out(_document(summed, conditions, quantities))


def _document(summed: dict[str, Any], conditions: list[Condition], quantities: list[Quantity]) -> Claims:
    experiment = Experiment(
        id=_EXPERIMENT,
        section=summed["result"],
        concurrency=summed["concurrency"],
        output_tokens=summed["output_tokens"],
        repeats=min((item["runs_used"] for item in summed["treatments"].values() if item["runs_used"]), default=None),
        spread=_SPREAD if _has_interval(summed) else None,
    )
    return Claims(
        schema_version=claims_file.SCHEMA_VERSION,
        name=summed["scenario"],
        title=summed["question"],
        source=Source(publisher="kvbench", date=summed["result"]),
        experiments=(experiment,),
        conditions=tuple(conditions),
        quantities=tuple(quantities),
    )


def _has_interval(summed: dict[str, Any]) -> bool:
    """Tell whether any figure of a treatment, or any ratio to its baseline, has an interval with two ends."""
    items = summed["treatments"].values()
    found = [one for item in items for part in ("metrics", "comparisons") for one in item[part].values()]
    return any(one is not None and one["low"] is not None for one in found)


def _whole_condition(
    name: str, treatment: dict[str, Any], measured: list[list[Row]], concurrency: int | None
) -> Condition:
    """Make the condition of a treatment as a whole; counts are of one run, since each run starts from its state."""
    state = str(treatment["cache_state"])
    warm = state.startswith("warm(")
    return Condition.model_validate(
        {
            "id": name,
            "experiment": _EXPERIMENT,
            "treatment": name,
            "concurrency": concurrency,
            "cache": "warm" if warm else _STATES.get(state, "on"),
            "tiers": (state.removeprefix("warm(").removesuffix(")"),) if warm else (),
            "requests": max(len(run) for run in measured),
            "distinct_prompts": max(len({row.prompt_id for row in run}) for run in measured),
            "draw": "each",
        }
    )


def _quantity(
    name: str, what: What, value: str, unit: str, *, condition: Condition | None, statistic: Statistic | None = None
) -> Quantity:
    where = condition.name if condition else None
    return Quantity(
        id=f"{where}.{name}" if where else name,
        what=what,
        value=value,
        unit=unit,
        section="result",
        statistic=statistic,
        condition=where,
    )


def _whole_figures(
    cell: Condition, runs: list[dict[str, Any]], measured: list[list[Row]], told: dict[str, Any]
) -> Iterator[Quantity]:
    """Yield the rate of a run, or its duration, the mean latency, and the books of all runs together.

    Rate and hit rate are those of the treatment's metrics: what was divided here would agree with its own parts. A run
    that was sent one by one has a duration and no rate, since its rate is made of the latencies that Little's law would
    hold against it.
    """
    if all(row.status == "ok" for run in measured for row in run):
        rate, duration = (told[name]["value"] for name in ("requests_per_s", "total_time"))
        if duration is not None and any(run["sent_one_by_one"] for run in runs):
            yield _quantity("duration", "duration", f"{duration:.6f}", "s", condition=cell)
        elif rate is not None:
            yield _quantity("rate", "request_rate", f"{rate:.6f}", "req/s", condition=cell)
    latencies = [row.latency_s for run in measured for row in run if row.latency_s is not None]
    if latencies:
        mean = f"{statistics.mean(latencies):.6f}"
        yield _quantity("latency", "latency", mean, "s", condition=cell, statistic="mean")
    ledgers = [run["ledger"] for run in runs]
    yield from _books(cell, ledgers, told["hit_rate"]["value"])
    counters = sum(sum((ledger["read_bytes"] or {}).values()) for ledger in ledgers)
    counted = counters or sum_of_all(ledger["process_read_bytes"] for ledger in ledgers)
    if counted:
        yield _quantity("read", "read_bytes", f"{counted:.0f}", "B", condition=cell)


def _books(cell: Condition, ledgers: list[dict[str, Any]], hit_rate: float | None) -> Iterator[Quantity]:
    """Yield the tokens of the ledgers, and the hit rate that the rows gave where it must be their quotient.

    That is a mean over rounds, so it is the quotient of the sums only where every round asked for as many tokens.
    """
    hits, prompts = (sum_of_all(ledger[key] for ledger in ledgers) for key in ("cached_tokens", "prompt_tokens"))
    if hits is None or not prompts:
        return
    yield _quantity("hits", "hit_tokens", str(hits), "tokens", condition=cell)
    yield _quantity("asked", "queried_tokens", str(prompts), "tokens", condition=cell)
    if hit_rate is not None and len({ledger["prompt_tokens"] for ledger in ledgers}) == 1:
        yield _quantity("hit-rate", "hit_rate", f"{100 * hit_rate:.4f}", "%", condition=cell)


def _length_figures(cell: Condition, good: list[Row], *, latency: bool = True) -> Iterator[Quantity]:
    """Yield TTFT, latency and bytes of one length; percentiles only where there are enough requests for an interval."""
    for what, values in (
        ("ttft", sorted(row.ttft_s for row in good if row.ttft_s is not None)),
        ("latency", sorted(row.latency_s for row in good if row.latency_s is not None and latency)),
    ):
        if not values:
            continue
        found: dict[Statistic, float] = {"mean": statistics.mean(values), "p50": statistics.median(values)}
        for name, percentile in _PERCENTILES.items():
            if len(values) >= needed_n(percentile):
                found[name] = statistics.quantiles(values, n=100, method="inclusive")[percentile - 1]
        kind: What = "ttft" if what == "ttft" else "latency"
        for which, value in found.items():
            yield _quantity(f"{what}-{which}", kind, f"{value:.6f}", "s", condition=cell, statistic=which)
    reads = [(row.server_read_bytes, row.server_storage_s) for row in good]
    known = [(size, time) for size, time in reads if size and time]
    if len(known) == len(good) and good:
        yield _quantity("read", "read_bytes", f"{statistics.mean(size for size, _ in known):.0f}", "B", condition=cell)
        # What a request saw: all bytes over all waits, so that mean bytes over this rate are the mean wait.
        rate = sum(size for size, _ in known) / sum(time for _, time in known)
        yield _quantity("storage", "storage_read", f"{rate / 1e6:.3f}", "MB/s", condition=cell)
