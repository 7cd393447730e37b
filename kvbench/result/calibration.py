"""A calibration: the error of a driver's first-token times on this host, against a server of known timing.

    results/calibrations/<UTC time>/  calibration.json  rows.jsonl  logs/

`kvbench.experiment.calibrate` makes one. Here is its arithmetic, how it is kept, and which one belongs to a result: the
newest of the same host, kernel and driver, copied into the result's folder, so that the result needs nothing else to be
read. Each cell is one driver at one number of connections with one prompt length. Every answered request is in its
figures.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from kvbench.errors import ResultError
from kvbench.lenient_json import whole
from kvbench.percentile import needed_n, percentile_of
from kvbench.result.calibration_record import CalibrationCell, CalibrationExcerpt, CalibrationRecord, Spread
from kvbench.result.files import read_json, write_atomic
from kvbench.result.run_time import length_s, load_window_ns
from kvbench.typed_json import from_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from kvbench.result.records import Response

FOLDER = "calibrations"
FILE = "calibration.json"
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}


@dataclass(frozen=True, slots=True)
class CellKey:
    """One cell: a driver at a number of connections, with prompts of one length, on an idle or a busy machine."""

    driver: str
    connections: int
    prompt_tokens: int
    machine: str = "idle"


@dataclass(frozen=True, slots=True)
class Effort:
    """What one call of a driver cost: processor time of both sides, and the wall time until its first request left."""

    client_cpu_s: float
    server_cpu_s: float | None
    start_s: float | None


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """One request of a calibration, a line of `rows.jsonl`: the stamps of both sides in ns, and no figure yet."""

    driver: str
    connections: int
    prompt_tokens: int
    machine: str
    round: int
    request_id: str
    status: str
    error: str | None
    sent_ns: int | None
    first_token_ns: int | None
    last_token_ns: int | None
    ttft_bound: str | None
    receive_lag_s: float | None
    osl: int | None
    server_arrived_ns: int | None
    server_first_chunk_ns: int | None


@dataclass(frozen=True, slots=True)
class _Stamps:
    """The stamps of an answered request, all of which are known."""

    sent_ns: int
    first_token_ns: int
    server_arrived_ns: int
    server_first_chunk_ns: int
    receive_lag_s: float | None
    osl: int

    @property
    def error_s(self) -> float:
        """The driver's first token minus the server's stamp as its first chunk left."""
        return (self.first_token_ns - self.server_first_chunk_ns) / 1e9

    @property
    def server_s(self) -> float:
        """The server's own time from the last byte of the request to that stamp."""
        return (self.server_first_chunk_ns - self.server_arrived_ns) / 1e9


def make_row(key: CellKey, number: int, response: Response) -> CalibrationRow:
    """Return one request of a calibration as a row."""
    return CalibrationRow(
        driver=key.driver,
        connections=key.connections,
        prompt_tokens=key.prompt_tokens,
        machine=key.machine,
        round=number,
        request_id=response.request_id,
        status=response.status,
        error=response.error,
        sent_ns=response.sent_ns,
        first_token_ns=response.first_token_ns,
        last_token_ns=response.last_token_ns,
        ttft_bound=response.ttft_bound,
        receive_lag_s=response.receive_lag_s,
        osl=response.osl,
        server_arrived_ns=whole(response.server.get("arrived_ns")),
        server_first_chunk_ns=whole(response.server.get("first_chunk_sent_ns")),
    )


def summarise_cell(
    key: CellKey, rows: Sequence[CalibrationRow], efforts: Sequence[Effort], token_gap_s: float
) -> CalibrationCell:
    """Reduce the rows of one cell; only failed requests are left out, and they are counted by cause.

    `error_s`            the driver's first token - the server's stamp as its first chunk left.
    `over_server_s`      TTFT - the server's own time from the last byte of the request to that stamp: all that the
                         client's side adds, sending and connecting too where the driver counts them in.
    `sending_s`          the server's arrival of the whole request - the driver's send time.
    `user_clock_s`       the error that the driver's own clock would have had; none where it has no other clock.
    `offered_rps`        connections / the server's own time for one request; what a client without cost would reach.
    `measured_s`         the load windows of the calls together: the pauses between them belong to other cells.
    `achieved_rps`       answered requests / `measured_s`.
    """
    good = [row for row in rows if _is_good(row)]
    causes = Counter("no token" if row.status == "ok" else row.status for row in rows if not _is_good(row))
    stamped = [stamps for row in good if (stamps := _stamps(row)) is not None]
    upper = sum(row.ttft_bound == "upper" for row in good)
    server_s = [stamps.server_s + max(0, stamps.osl - 1) * token_gap_s for stamps in stamped]
    measured_s = _measured_s(rows)
    server_cpu = [effort.server_cpu_s for effort in efforts if effort.server_cpu_s is not None]
    starts = [effort.start_s for effort in efforts if effort.start_s is not None]
    return CalibrationCell(
        driver=key.driver,
        connections=key.connections,
        prompt_tokens=key.prompt_tokens,
        machine=key.machine,
        n=len(stamped),
        failed=len(rows) - len(good),
        failures=dict(causes),
        without_server_stamp=len(good) - len(stamped),
        upper_bounds=upper,
        upper_share=upper / len(good) if good else None,
        error_s=spread(stamps.error_s for stamps in stamped),
        over_server_s=spread((stamps.first_token_ns - stamps.sent_ns) / 1e9 - stamps.server_s for stamps in stamped),
        sending_s=spread((stamps.server_arrived_ns - stamps.sent_ns) / 1e9 for stamps in stamped),
        user_clock_s=_user_clock(stamped),
        offered_rps=key.connections / statistics.fmean(server_s) if server_s and sum(server_s) else None,
        achieved_rps=len(good) / measured_s if measured_s else None,
        measured_s=measured_s,
        client_cpu_s=sum(effort.client_cpu_s for effort in efforts),
        server_cpu_s=sum(server_cpu) if len(server_cpu) == len(efforts) else None,
        start_s=statistics.median(starts) if starts else None,
        calls=len(efforts),
    )


def _is_good(row: CalibrationRow) -> bool:
    return row.status == "ok" and row.first_token_ns is not None


def _stamps(row: CalibrationRow) -> _Stamps | None:
    """Return the stamps of both sides, None where one of them is missing."""
    sent_ns, token_ns = row.sent_ns, row.first_token_ns
    arrived_ns, chunk_ns = row.server_arrived_ns, row.server_first_chunk_ns
    if sent_ns is None or token_ns is None or arrived_ns is None or chunk_ns is None:
        return None
    return _Stamps(sent_ns, token_ns, arrived_ns, chunk_ns, row.receive_lag_s, row.osl or 1)


def _user_clock(stamped: list[_Stamps]) -> Spread | None:
    errors_s = [stamps.error_s + stamps.receive_lag_s for stamps in stamped if stamps.receive_lag_s is not None]
    return spread(errors_s) if errors_s else None


def _measured_s(rows: Sequence[CalibrationRow]) -> float:
    calls: dict[int, list[tuple[int | None, int | None]]] = {}
    for row in rows:
        calls.setdefault(row.round, []).append((row.sent_ns, row.last_token_ns))
    return sum(length_s(load_window_ns(call)) or 0.0 for call in calls.values())


def spread(values: Iterable[float]) -> Spread:
    """Return n, order statistics and the mean of seconds.

    Below `least_n` values a percentile is refused (None): there the maximum is what can be told.
    """
    ordered = sorted(values)
    n = len(ordered)
    percentiles = {
        name: percentile_of(ordered, percent) if n >= least_n(name) else None for name, percent in PERCENTILES.items()
    }
    return Spread(
        n=n,
        min=ordered[0] if n else None,
        **percentiles,
        max=ordered[-1] if n else None,
        mean=statistics.fmean(ordered) if n else None,
    )


def least_n(name: str) -> int:
    """Return how many values a percentile of `PERCENTILES` needs for an upper bound; the middle of few is told too."""
    return 1 if name == "p50" else needed_n(PERCENTILES[name], two_sided=False)


def in_turns(cells: Sequence[CellKey], rounds: int) -> list[tuple[int, CellKey]]:
    """Give every cell once in each round; each round begins further down the list, so that no cell is always first."""
    ordered = []
    for number in range(rounds):
        start = number * len(cells) // rounds
        ordered += [(number + 1, key) for key in (*cells[start:], *cells[:start])]
    return ordered


# -- which calibration belongs to a result ----------------------------------------------------------------------------


def attach(results: Path, result: Path, host_identity: str, driver: str) -> bool:
    """Copy the newest calibration of this host and driver into a result's folder; tell whether there was one."""
    found = newest(results, host_identity, driver)
    if found is None:
        return False
    write_atomic(result / FILE, (found / FILE).read_bytes())
    return True


def newest(results: Path, host_identity: str, driver: str) -> Path | None:
    """Return the folder of the newest whole calibration of this host, kernel and driver.

    One that another version of kvbench wrote, or that cannot be read, is passed over: a run must not end for it.
    """
    for path in sorted((results / FOLDER).glob(f"*Z*/{FILE}"), reverse=True):
        if (path.parent / "plan.json").exists():
            continue  # a result of a scenario of that name, with a calibration attached
        try:
            made = _read(path)
        except ResultError:
            continue
        if made.host_identity == host_identity and any(cell.driver == driver for cell in made.cells):
            return path.parent
    return None


def _read(path: Path) -> CalibrationRecord:
    return from_json(CalibrationRecord, read_json(path), str(path))


def excerpt(
    result: Path, driver: str, concurrencies: Iterable[int], lengths: Sequence[int], started: str
) -> CalibrationExcerpt | None:
    """Return what a result's summary says of its calibration; None where none is attached.

    `cells` are those of the driver that come nearest: for each concurrency by the ratio of connections, then for each
    prompt length by the ratio of tokens.
    """
    if not (result / FILE).exists():
        return None
    made = _read(result / FILE)
    own = [cell for cell in made.cells if cell.driver == driver and cell.machine == "idle" and cell.n]
    if not own:
        return None
    near = [cell for wanted in sorted(set(concurrencies)) for cell in _nearest_cells(own, wanted, lengths)]
    cells = tuple({(cell.connections, cell.prompt_tokens): cell for cell in near}.values())
    age = datetime.fromisoformat(started) - datetime.fromisoformat(made.made)
    return CalibrationExcerpt(made.made, driver, cells, age.total_seconds())


def _nearest_cells(cells: list[CalibrationCell], concurrency: int, lengths: Sequence[int]) -> list[CalibrationCell]:
    """Return the cells at the nearest number of connections and at the prompt lengths nearest to these, by length."""
    connections = min((cell.connections for cell in cells), key=lambda have: _distance(have, concurrency))
    at = [cell for cell in cells if cell.connections == connections]
    tokens = {min((cell.prompt_tokens for cell in at), key=lambda have: _distance(have, isl)) for isl in lengths}
    return sorted((cell for cell in at if cell.prompt_tokens in tokens), key=lambda cell: cell.prompt_tokens)


def _distance(have: int, wanted: int) -> tuple[float, int]:
    """How far apart two counts are as a ratio; of two that are equally far the larger load comes first."""
    return abs(math.log(have / wanted)), -have


def worst_error_s(excerpt: CalibrationExcerpt) -> tuple[float, str]:
    """Return the largest p99 of an excerpt's cells and what it is; the largest maximum where a p99 is refused."""
    p99s = [cell.error_s.p99 for cell in excerpt.cells]
    known = [p99 for p99 in p99s if p99 is not None]
    if len(known) == len(p99s):
        return max(map(abs, known)), "p99"
    return max(abs(cell.error_s.max) for cell in excerpt.cells if cell.error_s.max is not None), "max"
