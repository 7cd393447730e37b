"""The terminal's proof: for each treatment which tiers served it, and by what evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.report.length_table import or_dash
from kvbench.units import format_count, format_duration, format_rate, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

_STYLES = {"valid": "green", "suspect": "yellow", "invalid": "red"}
_LABELS, _COLUMN = 28, 17  # characters of the labels, and of a treatment beside them


def proof_tables(summary: dict[str, Any], width: int = 100) -> Iterator[Table]:
    """Yield tables of as many treatments as fit the width; a row that says nothing of any of them is left out."""
    names, lines = list(summary["treatments"]), _lines(summary)
    abreast = max(1, (width - _LABELS) // _COLUMN)
    for start in range(0, len(names), abreast):
        own = slice(start, start + abreast)
        title = "Proof, more treatments" if start else "Proof"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("", style="dim", no_wrap=True)
        for name in names[own]:
            table.add_column(Text(name), justify="right")
        for label, cells in lines.items():
            if set(cells) != {"-"}:
                table.add_row(label, *cells[own])
        words = [summary["treatments"][name]["verdict"] for name in names[own]]
        table.add_row("verdict", *(Text(word, style=_STYLES[word]) for word in words))
        yield table


def _lines(summary: dict[str, Any]) -> dict[str, list[str]]:
    """Return the rows by their label, a cell for each treatment."""
    items, scale = list(summary["treatments"].values()), summary["scale"]
    rates = [item["storage_bytes_per_s"] for item in items]
    factor = scale["bytes"] / scale["time"] if scale else 1.0
    lines: dict[str, list[str]] = {
        "cache state": [item["cache_state"] or "-" for item in items],
        "runs used": [f"{item['runs_used']} of {item['runs']}" for item in items],
        "served from": [_served(item["tiers"]) for item in items],
        "hit efficiency": [or_dash(item["hit_efficiency"], lambda x: f"{x:.4f}") for item in items],
        "bytes read, tier counters": [or_dash(item["read_bytes"], format_size) for item in items],
        "bytes read, /proc/PID/io": [_kernel_count(item) for item in items],
        "bytes of the prompts' files": [or_dash(item["expected_read_bytes"], format_size) for item in items],
        "storage rate, median": [or_dash(rate, format_rate) for rate in rates],
        "  which stands for": [or_dash(rate if scale else None, lambda x: format_rate(x * factor)) for rate in rates],
        "emulator ran over, of TTFT": [or_dash(item["overrun_share"], lambda x: f"{x:.2%}") for item in items],
        "answers as recomputed": [or_dash(item["answers_match"], lambda x: f"{x:.0%}") for item in items],
    }
    if (limit := summary["slo"].get("ttft")) is not None:
        label = f"TTFT within {format_duration(limit)}{' (full)' if scale else ''}"
        lines[label] = [or_dash(item["slo_attainment"], lambda x: f"{x:.0%}") for item in items]
    longest = summary["lengths"][-1]
    if longest["isl"] is not None:
        ratios = [longest["cells"][name]["recompute_over_load"] for name in summary["treatments"]]
        lines[f"recompute / load at {format_count(longest['isl'])}"] = [
            or_dash(x, lambda x: f"{x:.3g}") for x in ratios
        ]
    return lines


def _kernel_count(item: dict[str, Any]) -> str:
    """Write what the kernel counts; say that it could not be read where the tier's own count stands alone."""
    counted = or_dash(item["process_read_bytes"], format_size)
    return "not readable" if counted == "-" and item["read_bytes"] is not None else counted


def _served(tiers: dict[str, int]) -> str:
    total = sum(tiers.values())
    return ", ".join(f"{tier} {count / total:.0%}" for tier, count in tiers.items()) or "nothing"
