"""Splits the records of AIPerf into runs, one for each measured phase, without a second copy of the rows."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kvbench.importers.columns import schema
from kvbench.importers.export import Part
from kvbench.lenient_json import at, items, text, whole


def split(columns: pa.Table, about: Any) -> tuple[Part, ...]:
    """Make one run of each measured phase, in the order in which they began; a warmup goes to the run after it."""
    phases, columns = _in_order(columns)
    asked = {text(at(phase, "name")): phase for phase in items(at(about, "input_config", "phases"))}
    requests = _requests(columns)
    parts: list[Part] = []
    begin, waiting = 0, 0
    for name, count in phases:
        place, begin = (begin, count), begin + count
        if columns["is_warmup"][place[0]].as_py():
            waiting += count
            continue
        treatment = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "profiling"
        parts.append(
            Part(
                treatment,
                _with_warmup(requests.slice(place[0] - waiting, waiting + count), waiting),
                load_s=_load_s(columns["sent_ns"].slice(*place), columns["end_ns"].slice(*place)),
                concurrency=whole(at(asked.get(name), "concurrency")) or None,
            )
        )
        waiting = 0
    return tuple(parts)


def _in_order(columns: pa.Table) -> tuple[list[tuple[str, int]], pa.Table]:
    """Return the phases in the order in which they began, with their sizes, and the rows by phase and time of sending.

    Columns are moved one after another, so that only one of them is there twice.
    """
    own_phase = columns["own_phase"].combine_chunks().dictionary_encode()
    codes = own_phase.indices.to_numpy()
    sent_ns = pc.fill_null(columns["sent_ns"], 0).to_numpy()
    began = _first_places(codes, np.argsort(sent_ns, kind="stable"), len(own_phase.dictionary))
    rank = np.argsort(np.argsort(began))
    order = np.lexsort((sent_ns, rank[codes]))
    sizes = np.bincount(codes, minlength=len(began))
    names = own_phase.dictionary.to_pylist()
    phases = [(names[code], int(sizes[code])) for code in np.argsort(began)]
    if (np.diff(order) == 1).all():
        return phases, columns
    place, moved = pa.array(order), {}
    for name in columns.column_names:
        column = columns[name].combine_chunks()
        columns = columns.drop_columns([name])
        moved[name] = column.take(place)
    return phases, pa.table(moved)


def _first_places(codes: np.ndarray[Any, Any], order: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """Return where in the order each phase first comes."""
    places = np.empty(count, dtype=np.int64)
    seen, first = np.unique(codes[order], return_index=True)
    places[seen] = first
    return places


def _requests(columns: pa.Table) -> pa.Table:
    """Return the columns of `Seen`: an answer that is not whole has no latency."""
    is_ok = pc.equal(columns["status"], "ok")
    latency_s = pc.if_else(is_ok, columns["latency_s"], pa.scalar(None, pa.float64()))
    columns = columns.set_column(columns.column_names.index("latency_s"), "latency_s", latency_s)
    return columns.append_column("phase", pa.repeat(pa.scalar("measure"), len(columns))).select(schema().names)


def _with_warmup(requests: pa.Table, count: int) -> pa.Table:
    """Mark the first `count` requests as warmup."""
    if not count:
        return requests
    phases = [pa.repeat(pa.scalar("warmup"), count), pa.repeat(pa.scalar("measure"), len(requests) - count)]
    return requests.set_column(requests.column_names.index("phase"), "phase", pa.chunked_array(phases))


def _load_s(sent_ns: pa.ChunkedArray, ended_ns: pa.ChunkedArray) -> float | None:
    """Return the time from the first send to the last end, where every record tells both."""
    first, last = pc.min(sent_ns).as_py(), pc.max(ended_ns).as_py()
    if sent_ns.null_count or ended_ns.null_count or not first or not pc.min(ended_ns).as_py():
        return None
    return float(max(last - first, 0) / 1e9)
