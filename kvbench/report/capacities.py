"""Before a run: what the conversations held at a time take, beside the capacities of each treatment's tiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.units import format_size

if TYPE_CHECKING:
    from kvbench.scenario import Scenario


def gpus(scenario: Scenario) -> int:
    """Return how many GPUs have a G1 of their own: those of our emulator; what others do with theirs is not known."""
    return scenario.server.keys.gpus


def capacity_table(scenario: Scenario, each_bytes: float) -> Table:
    """Return one row for each treatment; `each_bytes` is the KV of one conversation at its end.

    What has ended is asked for no more, so only the conversations that are held at a time count.
    """
    title = f"Held at a time, {format_size(round(each_bytes))} a conversation at its end"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("treatment", no_wrap=True)
    sizes = {name: scenario.tiers_of(name).capacities for name in scenario.treatments}
    present = sorted({tier for found in sizes.values() for tier in found})
    names = [f"{tier}\na GPU" if tier == "g1" and gpus(scenario) > 1 else tier for tier in present]
    for heading in ("conver-\nsations\nheld", "take\nup to", *names):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("expected")
    for name, treatment in scenario.treatments.items():
        held = scenario.concurrency_of(name) * each_bytes
        told, style = _expectation(scenario, name, held) if treatment.cache != "off" else ("the cache is off", "")
        own = [format_size(sizes[name][tier]) if tier in sizes[name] else "-" for tier in present]
        cells = [name, str(scenario.concurrency_of(name)), format_size(round(held)), *own]
        table.add_row(*map(Text, cells), Text(told, style))
    if gpus(scenario) > 1 and "g1" in present:
        table.caption, table.caption_justify = _routing(gpus(scenario)), "left"
    return table


def _routing(count: int) -> str:
    return (
        f"Each of {count} GPUs has a g1 of its own, and a turn goes to the one that has least to do: where that is not"
        " the one of the turn before, its history is read from a slower tier, or recomputed."
    )


def _expectation(scenario: Scenario, treatment: str, held: float) -> tuple[str, str]:
    """Say whether GPU memory overflows, and what becomes of what does; with the style to say it in.

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
        return f"nothing overflows{only}", "yellow"
    return f"{format_size(round(held - memory))} overflow, {after}", ""
