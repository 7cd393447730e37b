"""Turns a result of kvbench into a claims document, so that the same rules apply to it.

A figure of a result has as many digits as it is shown with here, so its interval is narrow. A cell is a treatment at
one prompt length, or a treatment with all its lengths, which is where durations and byte counts belong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvbench.analysis.measured import as_floats
from kvbench.percentile import needed_n
from kvbench.publications import claims_file
from kvbench.publications.claims import Claims, Condition, Experiment, Quantity, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from kvbench.analysis.measured_result import Dataset, SealedRun
    from kvbench.analysis.summary_types import Summary, TreatmentSummary
    from kvbench.publications.claims import Statistic, What
    from kvbench.publications.claims_file import Document
    from kvbench.result.run_record import Ledger

    Array = NDArray[np.float64]

_EXPERIMENT = "runs"
_STATES = {"off": "off", "cold": "empty"}
_SPREAD = "95 % intervals, of percentiles over requests and of ratios over rounds"
_PERCENTILES: dict[Statistic, int] = {"p90": 90, "p95": 95, "p99": 99}


def lay_out(measured: Dataset, summed: Summary) -> Document:
    """Turn a result and its summary into claims; invalid runs are left out, as everywhere."""
    conditions: list[Condition] = []
    quantities: list[Quantity] = []
    blocks = measured.runs[0].record.blocks
    if blocks is not None and blocks.kv_bytes_per_token:
        value = f"{blocks.kv_bytes_per_token:.0f}"
        quantities.append(_quantity("token-bytes", "kv_bytes_per_token", value, "B", condition=None))
    for name, treatment in summed.treatments.items():
        runs = measured.of(name)
        if not any(len(run.measured) for run in runs):
            continue
        whole = _whole_condition(name, treatment, runs, summed.concurrencies[name])
        conditions.append(whole)
        quantities += _whole_figures(whole, runs, treatment)
        lengths = [row.isl for row in summed.lengths if row.isl is not None]
        if not lengths:
            quantities += _length_figures(whole, runs, None, has_latency=False)
        for tokens in lengths:
            answered = sum(int((run.answered["length"] == tokens).sum()) for run in runs)
            cell = whole.model_copy(
                update={"id": f"{name}-{tokens}", "prompt_tokens": tokens, "requests": answered, "draw": None}
            )
            conditions.append(cell)
            quantities += _length_figures(cell, runs, tokens)
    return claims_file.lay_out(_document(summed, conditions, quantities))


def _document(summed: Summary, conditions: list[Condition], quantities: list[Quantity]) -> Claims:
    used = [item.runs_used for item in summed.treatments.values() if item.runs_used]
    experiment = Experiment(
        id=_EXPERIMENT,
        section=summed.result,
        concurrency=summed.concurrency,
        output_tokens=summed.output_tokens,
        repeats=min(used, default=None),
        spread=_SPREAD if _has_interval(summed) else None,
    )
    return Claims(
        schema_version=claims_file.SCHEMA_VERSION,
        name=summed.scenario,
        title=summed.question,
        source=Source(publisher="kvbench", date=summed.result),
        experiments=(experiment,),
        conditions=tuple(conditions),
        quantities=tuple(quantities),
    )


def _has_interval(summed: Summary) -> bool:
    """Tell whether any figure of a treatment, or any ratio to its baseline, has an interval with two ends."""
    items = summed.treatments.values()
    figures = any(figure.low is not None for item in items for figure in item.metrics.values())
    return figures or any(ratio and ratio.low is not None for item in items for ratio in item.comparisons.values())


def _whole_condition(
    name: str, treatment: TreatmentSummary, runs: Sequence[SealedRun], concurrency: int | None
) -> Condition:
    """Make the condition of a treatment as a whole; counts are of one run, since each run starts from its state."""
    state = str(treatment.cache_state)
    warm = state.startswith("warm(")
    return Condition.model_validate(
        {
            "id": name,
            "experiment": _EXPERIMENT,
            "treatment": name,
            "concurrency": concurrency,
            "cache": "warm" if warm else _STATES.get(state, "on"),
            "tiers": (state.removeprefix("warm(").removesuffix(")"),) if warm else (),
            "requests": max(len(run.measured) for run in runs),
            "distinct_prompts": max(run.measured["prompt_id"].nunique() for run in runs),
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


def _whole_figures(cell: Condition, runs: Sequence[SealedRun], treatment: TreatmentSummary) -> Iterator[Quantity]:
    """Yield the rate of a run, or its duration, the mean latency, and the ledgers of all runs together.

    Rate and hit rate are those of the treatment's metrics: what was divided here would agree with its own parts. A run
    that was sent one by one has a duration and no rate, since its rate is made of the latencies that Little's law would
    hold against it.
    """
    if all(len(run.answered) == len(run.measured) for run in runs):
        rate, duration = (treatment.metrics[name].value for name in ("requests_per_s", "total_time"))
        if duration is not None and any(run.record.sent_one_by_one for run in runs):
            yield _quantity("duration", "duration", f"{duration:.6f}", "s", condition=cell)
        elif rate is not None:
            yield _quantity("rate", "request_rate", f"{rate:.6f}", "req/s", condition=cell)
    latencies = _known(run.measured["latency_s"] for run in runs)
    if len(latencies):
        yield _quantity("latency", "latency", f"{latencies.mean():.6f}", "s", condition=cell, statistic="mean")
    ledgers = [run.record.ledger for run in runs]
    yield from _tokens(cell, ledgers, treatment.metrics["hit_rate"].value)
    counted = treatment.process_read_bytes if treatment.read_bytes is None else treatment.read_bytes
    if counted:
        yield _quantity("read", "read_bytes", f"{counted:.0f}", "B", condition=cell)


def _tokens(cell: Condition, ledgers: Sequence[Ledger], hit_rate: float | None) -> Iterator[Quantity]:
    """Yield the tokens of the ledgers, and the hit rate that the requests gave where it must be their quotient.

    That is a mean over rounds, so it is the quotient of the sums only where every round asked for as many tokens.
    """
    hits = [ledger.cached_tokens for ledger in ledgers if ledger.cached_tokens is not None]
    prompts = [ledger.prompt_tokens for ledger in ledgers if ledger.prompt_tokens is not None]
    if len(hits) < len(ledgers) or len(prompts) < len(ledgers) or not sum(prompts):
        return
    yield _quantity("hits", "hit_tokens", str(sum(hits)), "tokens", condition=cell)
    yield _quantity("asked", "queried_tokens", str(sum(prompts)), "tokens", condition=cell)
    if hit_rate is not None and len(set(prompts)) == 1:
        yield _quantity("hit-rate", "hit_rate", f"{100 * hit_rate:.4f}", "%", condition=cell)


def _length_figures(
    cell: Condition, runs: Sequence[SealedRun], tokens: int | None, *, has_latency: bool = True
) -> Iterator[Quantity]:
    """Yield TTFT, latency and bytes of one length, or of all; percentiles only where n gives them an interval."""
    columns = ("length", "ttft_s", "latency_s", "server_read_bytes", "server_storage_s")
    answered = [run.answered[list(columns)] for run in runs]
    chosen = [frame if tokens is None else frame[(frame["length"] == tokens).fillna(value=False)] for frame in answered]
    kinds: tuple[What, ...] = ("ttft", "latency") if has_latency else ("ttft",)
    for kind in kinds:
        values = _known(frame[f"{kind}_s"] for frame in chosen)
        if not len(values):
            continue
        figures: dict[Statistic, float] = {"mean": float(values.mean()), "p50": float(np.median(values))}
        for name, percentile in _PERCENTILES.items():
            if len(values) >= needed_n(percentile):
                figures[name] = float(np.percentile(values, percentile))
        for statistic, value in figures.items():
            yield _quantity(f"{kind}-{statistic}", kind, f"{value:.6f}", "s", condition=cell, statistic=statistic)
    yield from _read_figures(cell, chosen)


def _read_figures(cell: Condition, chosen: Sequence[pd.DataFrame]) -> Iterator[Quantity]:
    """Yield the bytes that a request read, and the rate that it saw, where every request tells both."""
    sizes, waits = (
        np.concatenate([as_floats(frame[name]) for frame in chosen])
        for name in ("server_read_bytes", "server_storage_s")
    )
    if not len(sizes) or not bool((np.nan_to_num(sizes) * np.nan_to_num(waits)).all()):
        return
    yield _quantity("read", "read_bytes", f"{sizes.mean():.0f}", "B", condition=cell)
    # What a request saw: all bytes over all waits, so that mean bytes over this rate are the mean wait.
    yield _quantity("storage", "storage_read", f"{sizes.sum() / waits.sum() / 1e6:.3f}", "MB/s", condition=cell)


def _known(columns: Iterable[pd.Series]) -> Array:
    """Return the values of several columns that are known, as plain floats."""
    values: Array = np.concatenate([as_floats(column) for column in columns])
    known: Array = values[~np.isnan(values)]
    return known
