"""The table of `kvbench plan`: what concurrent conversations take, and the capacity of each treatment's tiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Row, Table, row
from kvbench.units import format_size

if TYPE_CHECKING:
    from kvbench.report.table import Mark
    from kvbench.scenario.models import CacheTier
    from kvbench.scenario.scenario import Scenario


def gpus(scenario: Scenario) -> int:
    """Return how many GPUs have a G1 of their own: those of our emulator; what others do with theirs is not known."""
    return scenario.server.keys.gpus


def capacity(scenario: Scenario, each_bytes: float) -> Table:
    """Return one row for each treatment; `each_bytes` is the KV of one conversation at its end.

    What has ended is asked for no more, so only the conversations that are held at a time count.
    """
    found = {tier for name in scenario.treatments for tier in scenario.tiers_of(name).capacities}
    several = gpus(scenario) > 1
    tiers = sorted(found)
    columns = (
        Column("treatment", "treatment", kind="name", is_key=True),
        Column("conversations", "held", "count"),
        Column("bytes_held", "take up to", "bytes"),
        *(Column(tier, f"{tier} a GPU" if tier == "g1" and several else tier, "bytes") for tier in tiers),
        Column("expected", "expected", kind="long"),
    )
    rows = tuple(_row(scenario, name, each_bytes, tiers) for name in scenario.treatments)
    title = f"Held at a time, {format_size(round(each_bytes))} a conversation at its end"
    notes = (_routing(gpus(scenario)),) if several and "g1" in found else ()
    return Table("capacity", title, columns, rows, notes)


def _row(scenario: Scenario, name: str, each_bytes: float, tiers: list[CacheTier]) -> Row:
    held, sizes = scenario.concurrency_of(name) * each_bytes, scenario.tiers_of(name).capacities
    is_off = scenario.treatments[name].cache == "off"
    text, mark = _expectation(scenario, name, held)
    expected = Cell("the cache is off") if is_off else Cell(text, mark=mark)
    own = [Cell(sizes.get(tier)) for tier in tiers]
    return row(name, scenario.concurrency_of(name), round(held), *own, expected)


def _routing(count: int) -> str:
    return (
        f"Each of {count} GPUs has a g1 of its own, and a turn goes to the one that has least to do: where that is not"
        " the one of the turn before, its history is read from a slower tier, or recomputed."
    )


def _expectation(scenario: Scenario, treatment: str, held: float) -> tuple[str, Mark]:
    """Say whether GPU memory overflows, and what becomes of what does; with the mark to say it with.

    With several GPUs a turn goes to the one that has least to do, which may not be the one that holds its history: then
    nothing is promised.
    """
    count, tiers = gpus(scenario), scenario.tiers_of(treatment)
    memory, slower = tiers.capacity_of("g1"), [tier for tier in tiers.capacities if tier != "g1"]
    after = f"read from {' or '.join(slower)}" if slower else "recomputed"
    if not memory:
        return f"nothing stays in GPU memory, {after}", ""
    if count > 1:
        spilled = held - count * memory
        return f"at least {format_size(round(spilled))} overflow, {after}" if spilled > 0 else "not known", ""
    if memory >= held:
        only = f": {', '.join(slower)} {'is' if len(slower) == 1 else 'are'} only written" if slower else ""
        return f"nothing overflows{only}", "suspect"
    return f"{format_size(round(held - memory))} overflow, {after}", ""
