"""Rules on the host during a run: what changed meanwhile, and what else used its processors, memory and disks.

I/O pressure is not judged where a tier is read: waiting for storage is then what is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.result.verdict import Reason
from kvbench.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.result.run_record import Pressure, RunRecord

NOTED_STEAL, MOST_STEAL = 0.01, 0.05
NOTED_MEMORY_SOME, MOST_MEMORY_FULL = 0.05, 0.01
NOTED_CPU_SOME = 0.5
NOTED_IO_FULL = 0.1
MOST_SWAPPED_BYTES = 1 << 20


def check_host(record: RunRecord) -> Iterator[Reason]:
    """Judge what `run.json` says of the host; results made before it did have nothing to judge."""
    if record.host is None:
        return
    if record.host.changed:
        text = f"facts changed in mid-run: {'; '.join(record.host.changed)}"
        yield Reason("suspect", "changed in mid-run", text, "Leave the host alone meanwhile, and run it again.")
    pressure = record.host.pressure
    yield from _check_processors(pressure)
    yield from _check_memory(pressure)
    if record.cache.state == "off" and (waited := pressure.io_full_share or 0.0) > NOTED_IO_FULL:
        text = f"all that ran waited for storage for {waited:.0%} of the time, and no tier was in use"
        yield Reason("note", "I/O pressure", text, "Find out who else uses the disk.")


def _check_processors(pressure: Pressure) -> Iterator[Reason]:
    if (steal := pressure.steal_share or 0.0) > NOTED_STEAL:
        text = f"the hypervisor took {steal:.1%} of the processors' time"
        remedy = "Use a host, or an instance, with processors of its own."
        yield Reason("suspect" if steal > MOST_STEAL else "note", "steal", text, remedy)
    if (waited := pressure.cpu_some_share or 0.0) > NOTED_CPU_SOME:
        text = f"some process waited for a processor for {waited:.0%} of the time"
        yield Reason("note", "CPU pressure", text, "Leave the host to the server and the client, or use more cores.")


def _check_memory(pressure: Pressure) -> Iterator[Reason]:
    some, full = pressure.memory_some_share or 0.0, pressure.memory_full_share or 0.0
    remedy = "Free memory, or use a smaller tier in memory."
    if full > MOST_MEMORY_FULL:
        text = f"all that ran waited for memory for {full:.1%} of the time"
        yield Reason("suspect", "memory pressure", text, remedy)
    elif some > NOTED_MEMORY_SOME:
        yield Reason("note", "memory pressure", f"some process waited for memory for {some:.0%} of the time", remedy)
    if (swapped := pressure.swapped_bytes or 0.0) > MOST_SWAPPED_BYTES:
        yield Reason("suspect", "swapping", f"{format_size(swapped)} were swapped in or out", remedy)
