"""A calibration as `calibration.json` keeps it: for each cell how wrong a driver's first-token times are."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Order statistics and the mean of n values in seconds; a percentile that n does not support is None."""

    n: int
    min: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None
    mean: float | None


@dataclass(frozen=True, slots=True)
class CalibrationCell:
    """One driver at one number of connections with one prompt length; `kvbench calibrate` makes it.

    `n` counts the answered requests that carry the server's stamp, `machine` is `idle` or `busy`. `achieved_rps` and
    `offered_rps` are requests per second.
    """

    driver: str
    connections: int
    prompt_tokens: int
    machine: str
    n: int
    failed: int
    failures: dict[str, int]
    without_server_stamp: int
    upper_bounds: int
    upper_share: float | None
    error_s: Spread
    over_server_s: Spread
    sending_s: Spread
    user_clock_s: Spread | None
    offered_rps: float | None
    achieved_rps: float | None
    measured_s: float
    client_cpu_s: float
    server_cpu_s: float | None
    start_s: float | None
    calls: int


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """A calibration: when it was made (ISO, UTC), on which host, and its cells."""

    made: str
    host_identity: str
    cells: tuple[CalibrationCell, ...]


@dataclass(frozen=True, slots=True)
class CalibrationExcerpt:
    """What a result's summary says of the calibration that is attached to it.

    `cells` are those of the result's driver that come nearest to its load; `age_s` is how old the calibration was when
    the result began.
    """

    made: str
    driver: str
    cells: tuple[CalibrationCell, ...]
    age_s: float
