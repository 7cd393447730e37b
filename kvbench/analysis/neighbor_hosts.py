"""What side clients did in a noisy-neighbour experiment: what each delivered, who was lost, which tries broke off."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING

from kvbench.analysis.neighbor_types import BrokenTry, LostSideClient, SideClientSummary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kvbench.analysis.measured_result import Dataset, SealedRun
    from kvbench.result.run_record import NeighborRecord, SideClientRecord
    from kvbench.typed_json import JsonObject


def side_clients(name: str, runs: Sequence[SealedRun]) -> Iterator[SideClientSummary]:
    """Yield what each side client did in a treatment, over all its used runs."""
    hosts_by_run = [record.hosts for record in with_neighbors(runs).values()]
    for host in sorted({host for hosts in hosts_by_run for host in hosts}):
        yield _side_client(name, host, [hosts[host] for hosts in hosts_by_run if host in hosts])


def _side_client(name: str, host: str, records: Sequence[SideClientRecord]) -> SideClientSummary:
    first = records[0]
    facts = first.facts
    scheduler = object_of(facts.get("queue")).get("scheduler")
    return SideClientSummary(
        treatment=name,
        host=host,
        runs=len(records),
        delivered_bytes_per_s=mean_of(record.delivered_bytes_per_s for record in records),
        coverage=min(known_of(record.coverage for record in records), default=None),
        clock_error_s=max(max(one.clock_error_s or 0.0, abs(one.clock_drift_s or 0.0)) for one in records),
        device=first.device,
        device_bytes_per_s=mean_of(known_of(record.device_bytes_per_s for record in records)),
        device_shared_with_server=first.device_shared_with_server,
        direct=_text(facts.get("direct")),
        scheduler=_scheduler(_text(scheduler)),
        file_system=_text(facts.get("file_system")),
        version=_text(facts.get("version")),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _scheduler(setting: str | None) -> str | None:
    """Return the scheduler that is in use, of "none [mq-deadline] kyber"."""
    active = re.search(r"\[(.+?)\]", setting or "")
    return active[1] if active else setting


def lost_side_clients(dataset: Dataset) -> Iterator[LostSideClient]:
    """Yield the side clients that were lost, by run."""
    for run in dataset.runs:
        if run.record.neighbors is not None:
            for lost in run.record.neighbors.lost:
                yield LostSideClient(run.run_id, lost.host, lost.why, run.used)


def broken_tries(dataset: Dataset) -> Iterator[BrokenTry]:
    """Yield the tries of runs that were broken off because a host was lost."""
    for run in dataset.runs:
        if run.record.neighbors is not None:
            for number, attempt in enumerate(run.record.neighbors.attempts, 1):
                yield BrokenTry(run.run_id, number, attempt.why)


def with_neighbors(runs: Sequence[SealedRun]) -> dict[int, NeighborRecord]:
    """Return what the runs say of their neighbours, by round."""
    return {run.repeat: run.record.neighbors for run in runs if run.record.neighbors is not None}


def object_of(value: object) -> JsonObject:
    """Return a part of somebody's own words; nothing where it is not an object."""
    return value if isinstance(value, dict) else {}


def known_of(values: Iterable[float | None]) -> list[float]:
    """Return the values that are known."""
    return [value for value in values if value is not None]


def mean_of(values: Iterable[float]) -> float | None:
    """Return the mean; None of no value."""
    known = list(values)
    return statistics.fmean(known) if known else None
