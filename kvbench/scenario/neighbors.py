"""The keys of neighbours as strict models: a generator, how much load, and how a trial goes.

A noun without I/O. A scenario may hold it, and `neighbor_loads.side_clients_of` takes it. Rates are bytes per second.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from kvbench import units
from kvbench.strict_yaml import Strict

Size = Annotated[int, BeforeValidator(units.parse_size), Field(gt=0)]
Rate = Annotated[float, BeforeValidator(units.parse_rate), Field(gt=0)]
Duration = Annotated[float, BeforeValidator(units.parse_duration), Field(gt=0)]
Whole = Annotated[int, Field(gt=0)]
# Options of fio's that shape a load. All others are refused: some of them name files or start programs.
FIO_OPTIONS = frozenset(
    {
        *("bssplit", "bsrange", "blockalign", "cpus_allowed", "cpus_allowed_policy", "fadvise_hint", "fallocate"),
        *("fdatasync", "fsync", "invalidate", "iodepth_batch", "iodepth_batch_complete_min", "iodepth_low"),
        *("log_avg_msec", "nice", "norandommap", "nrfiles", "percentage_random", "prio", "prioclass"),
        *("random_distribution", "random_generator", "randrepeat", "randseed", "rate_process", "refill_buffers"),
        *("buffer_compress_percentage", "dedupe_percentage", "scramble_buffers", "zero_buffers", "thinktime"),
        *("thinktime_blocks", "hipri", "registerfiles", "fixedbufs", "sqthread_poll", "latency_target"),
    }
)


class FioJob(Strict):
    """Reads or writes by fio in each side client's directory; `size` is per job.

    `read_share` is the share of reads of `rw` and `randrw`; `ionice` is the class in which a disk's scheduler serves it
    (`realtime` needs root); `options` are further fio options that shape the load.
    """

    rw: Literal["read", "write", "randread", "randwrite", "rw", "randrw"] = "read"
    block_size: Size = 128 * 1024
    iodepth: Whole = 32
    numjobs: Whole = 4
    size: Size = 1_000_000_000
    direct: bool = True
    engine: Literal["libaio", "io_uring", "psync", "pvsync2", "posixaio", "sync"] = "libaio"
    read_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    ionice: Literal["idle", "best-effort", "realtime"] | None = None
    options: dict[str, str | int | float] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _known(cls, options: dict[str, str | int | float]) -> dict[str, str | int | float]:
        for name, value in options.items():
            if name not in FIO_OPTIONS:
                raise ValueError(f"`{name}` is not one of the fio options that only shape a load")
            if not re.fullmatch(r"[\w.,:%+-]+", str(value)):
                raise ValueError(f"`{name}: {value}` holds characters that no such option needs")
        return options

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.size < self.block_size:
            raise ValueError("`size` is smaller than one block")
        if self.ionice is not None and "prioclass" in self.options:
            raise ValueError("give `ionice` or fio's `prioclass`, not both")
        return self

    @property
    def writes(self) -> bool:
        """Whether anything is written."""
        return self.rw not in ("read", "randread")

    @property
    def layout_bytes(self) -> int:
        """The bytes of all files of one side client."""
        return self.size * self.numjobs


class Iperf3Flow(Strict):
    """TCP streams by iperf3; `reverse` goes from the server to the side clients, as reads do."""

    reverse: bool = True
    parallel: Annotated[int, Field(ge=1, le=128)] = 1
    congestion: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")] = "cubic"


class Target(Strict):
    """How much: `aggregate` of all side clients, a `fraction` of what they reach alone, or neither: unlimited."""

    aggregate: Rate | None = None
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        return {} if value == "unlimited" else value

    @model_validator(mode="after")
    def _aggregate_or_fraction(self) -> Self:
        if self.aggregate is not None and self.fraction is not None:
            raise ValueError("give `aggregate` or `fraction`, not both")
        return self

    @property
    def unlimited(self) -> bool:
        """Whether nothing holds the generators back."""
        return self.aggregate is None and self.fraction is None

    def __str__(self) -> str:
        """Say it as a table does: "200 GB/s", "63 %", "unlimited"."""
        if self.aggregate is not None:
            return units.format_rate(self.aggregate)
        return "unlimited" if self.fraction is None else f"{self.fraction * 100:g} %"


class NeighborSpec(Strict):
    """One generator and the course of its trials; `scenario.model_with` adds a key for each further generator.

    `clients` names the side clients that take part, all where it is missing. `ramp` is the least time before a window,
    `ramp_limit` the most that is waited for a steady aggregate. `calibration` is how long the neighbours run alone.
    `max_runtime` ends a generator even if nobody tells it to.
    """

    fio: FioJob | None = None
    iperf3: Iperf3Flow | None = None
    clients: tuple[str, ...] | None = None
    ramp: Duration = 3.0
    ramp_limit: Duration = 15.0
    calibration: Duration = 5.0
    settle_limit: Duration = 10.0
    max_runtime: Annotated[Duration, Field(ge=1, le=86400)] = 900.0
    lost_host: Literal["retry", "continue"] = "retry"
    sample: Annotated[Duration, Field(ge=0.1, le=0.5)] = 0.2

    @model_validator(mode="after")
    def _one_generator(self) -> Self:
        if len(self._given()) != 1:
            *others, last = (f"`{name}`" for name in self._generators())
            raise ValueError(f"give exactly one generator, {', '.join(others)} or {last}")
        if self.ramp_limit < self.ramp:
            raise ValueError("`ramp_limit` is shorter than `ramp`")
        return self

    @classmethod
    def _generators(cls) -> list[str]:
        return ["fio", "iperf3", *(name for name in cls.model_fields if name not in NeighborSpec.model_fields)]

    def _given(self) -> list[str]:
        return [name for name in self._generators() if getattr(self, name) is not None]

    @model_serializer(mode="wrap")
    def _leave_out_further_generators(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A result asked the same question before there was a generator that it does not use."""
        first = NeighborSpec.model_fields
        return {name: value for name, value in dump(self).items() if name in first or value is not None}

    @property
    def generator(self) -> str:
        """The key of the generator that makes the load."""
        return self._given()[0]

    @property
    def keys(self) -> Strict:
        """The keys of the generator that makes the load."""
        keys: Strict = getattr(self, self.generator)
        return keys


class LocalClients(Strict):
    """Side clients that are processes on this machine, each with a folder of its own under `directory`.

    For a machine that stands alone; `directory` is made if it is missing, on the same disk as the tier.
    """

    clients: Annotated[int, Field(ge=1, le=16)] = 4
    directory: Path = Path("kvneighbors")


class Neighbors(Strict):
    """Who disturbs: the loads by a name of the user's, and where their side clients are.

    `hosts` is a hosts file; `local` makes side clients on this machine. With a bottleneck of kind `link` neither is
    given: the side clients are then the namespaces behind that link. A run whose host was lost is tried again, up to
    `tries` times in all.
    """

    hosts: Path | None = None
    local: LocalClients | None = None
    loads: Annotated[dict[str, NeighborSpec], Field(min_length=1)]
    tries: Annotated[int, Field(ge=1, le=10)] = 3

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.hosts is not None and self.local is not None:
            raise ValueError("give `hosts` or `local`, not both")
        return self


class Bottleneck(Strict):
    """A shared resource of known capacity that kvbench makes on one machine: an emulation that stands for no product.

    `disk`: reads from the disk under the tier, by a control group around the server and the generators. `link`: a
    token-bucket link to a storage host, in network namespaces under `folder` that are made and removed.
    """

    disk: Rate | None = None
    link: Rate | None = None
    folder: Path = Path("kvlab")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.disk is None) == (self.link is None):
            raise ValueError("give exactly one of `disk` and `link`, as a rate such as 300MB/s")
        if self.link is None and "folder" in self.model_fields_set:
            raise ValueError("`folder` belongs to `link`: a disk's limit needs none")
        return self
