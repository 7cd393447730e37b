"""Before a run: what the conversations held at a time take, beside the capacities of each treatment's tiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.units import format_size

if TYPE_CHECKING:
    from kvbench.scenario import Scenario

_TIERS = ("g1", "g2", "g3", "g4")


def capacity_table(scenario: Scenario, each_bytes: float) -> Table:
    """Return one row for each treatment; `each_bytes` is the KV of one conversation at its end.

    What has ended is asked for no more, so only the conversations that are held at a time count.
    """
    title = f"Held at a time, {format_size(round(each_bytes))} a conversation at its end"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("treatment", no_wrap=True)
    present = [tier for tier in _TIERS if any(_capacity(scenario, name, tier) for name in scenario.treatments)]
    for heading in ("conv.", "take up to", *present):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("so")
    for name, treatment in scenario.treatments.items():
        held = scenario.concurrency_of(name) * each_bytes
        sizes = [_size(_capacity(scenario, name, tier)) for tier in present]
        told, style = _expectation(scenario, name, held) if treatment.cache != "off" else ("the cache is off", "")
        cells = [name, str(scenario.concurrency_of(name)), format_size(round(held)), *sizes]
        table.add_row(*map(Text, cells), Text(told, style))
    return table


def _expectation(scenario: Scenario, treatment: str, held: float) -> tuple[str, str]:
    """Say whether GPU memory overflows, and what becomes of what does; with the style to say it in."""
    memory = _capacity(scenario, treatment, "g1")
    slower = [tier for tier in _TIERS[1:] if _capacity(scenario, treatment, tier)]
    if memory >= held:
        only = f": {', '.join(slower)} {'is' if len(slower) == 1 else 'are'} only written" if slower else ""
        return f"nothing overflows{only}", "yellow"
    spilled = f"{format_size(round(held - memory))} overflow" if memory else "nothing stays in GPU memory"
    return (f"{spilled}, read from {' or '.join(slower)}", "") if slower else (f"{spilled}, recomputed", "")


def _capacity(scenario: Scenario, treatment: str, tier: str) -> int:
    """Return a tier's bytes; G1 belongs to a GPU, and conversations are spread over all of them."""
    found = getattr(scenario.tiers_of(treatment), tier)
    size: int = found if isinstance(found, int) else found.capacity if found is not None else 0
    emulator = scenario.server.emulator
    return size * emulator.instances if tier == "g1" and emulator is not None else size


def _size(capacity: int) -> str:
    return format_size(capacity) if capacity else "-"
