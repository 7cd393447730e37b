"""The terminal's table of TTFT by prompt length: what was measured, what it is worth, and what was published for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.checks import named_tier
from kvbench.report.figure_text import bare_refusal, mark_note, marked, short_word
from kvbench.report.grid import length_text

if TYPE_CHECKING:
    from collections.abc import Callable


def length_table(summary: dict[str, Any], *, narrow: bool = False) -> Table:
    """Return one row for each length and treatment: measured TTFT, what served it, and what was published for it.

    A narrow one leaves the interval of the median, and the share served as named, to JSON and the report.
    """
    crowded = summary["published"] is not None and summary["scale"] is not None
    table = Table(
        title="TTFT by prompt length",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0 if crowded or narrow else 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("tokens", justify="right", no_wrap=True)
    if summary["turns"]:
        table.add_column("turn", justify="right", no_wrap=True)
    table.add_column("treatment", no_wrap=True)
    named = () if summary["imported"] else ("as\nnamed",)
    narrow = narrow and bool(named) and _is_compared(summary)
    for heading in ("median\ns", "n") if narrow else ("median\ns", _spread_heading(summary), "n", *named):
        table.add_column(heading, justify="right", no_wrap=True)
    if _is_compared(summary):
        heading = "speed-\nup" if not summary["published"] else "speed-up\n(publ.)"
        table.add_column(heading, justify="right", style="bold", no_wrap=True)
        table.add_column("95 %\ninterval", justify="right", no_wrap=True)
        table.add_column("said", no_wrap=True)
    if summary["scale"]:
        table.add_column("at full\nscale s", justify="right", style="cyan", no_wrap=True)
    if summary["published"]:
        table.add_column("pub-\nlished", justify="right", style="magenta", no_wrap=True)
    for row in summary["lengths"]:
        for number, name in enumerate(summary["treatments"]):
            first = [length_text(row["isl"]), *_turn_cell(row, summary)]
            median, spread, *cells = _length_cells(row, name, summary)
            figures = (
                [spread if median == "-" else median, cells[0], *cells[2:]] if narrow else [median, spread, *cells]
            )
            table.add_row(*(first if number == 0 else [""] * len(first)), Text(marked(name, summary)), *figures)
    table.caption, table.caption_justify = _notes(summary, narrow=narrow), "left"
    return table


def _turn_cell(row: dict[str, Any], summary: dict[str, Any]) -> list[str]:
    """Write which turn of a conversation has this length; no cell where there are no conversations."""
    return [turn_text(row["turn"])] if summary["turns"] else []


def turn_text(turn: int | None) -> str:
    """Write a turn counted from 1; an older scenario may have given one length to several."""
    return "several" if turn is None else str(turn + 1)


def _notes(summary: dict[str, Any], *, narrow: bool) -> str:
    """Say below the table what its columns are."""
    notes = []
    if summary["imported"]:
        notes.append("Failed requests are in no figure.")
    notes += filter(None, [mark_note(summary)])
    if _is_compared(summary):
        notes.append("said: of the speed-up, with Holm's correction; none shown: no difference.")
        notes += _other_baselines(summary)
    if not summary["imported"] and not narrow:
        notes.append("as named: share served from the tier (or computed) as the treatment says.")
    if summary["scale"]:
        notes.append("At full scale: measured times the time scale.")
    if summary["published"]:
        notes.append("Published: ~ is derived from the printed ends.")
    if _has_intervals(summary) and not narrow:
        notes.append("Interval of the median over requests; \u2264 is an upper bound alone.")
    return " ".join(notes)


def _other_baselines(summary: dict[str, Any]) -> list[str]:
    """Say which speed-ups are over something else than the baseline of most."""
    own = {name: base for name, base in summary["baselines"].items() if base not in (None, summary["baseline"])}
    return [f"Speed-up of {', '.join(f'{name} over {base}' for name, base in own.items())}."] if own else []


def _length_cells(row: dict[str, Any], name: str, summary: dict[str, Any]) -> list[str]:
    cell = row["cells"][name]
    if cell["median_s"] is None:
        absent = "none answered" if summary["imported"] else "no valid run"
        cells = ["-", "not proven" if cell["unproven"] else absent, "0", "-"]
    else:
        spread = _spread(cell, summary)
        share = cell["tiers"].get(named_tier(summary["treatments"][name]["cache_state"]), 0) / max(
            sum(cell["tiers"].values()), 1
        )
        cells = [seconds(cell["median_s"]), spread, str(cell["n"]), f"{share:.0%}"]
    cells = cells[:3] if summary["imported"] else cells
    if _is_compared(summary):
        cells += _speed_up_cells(row, name, summary)
    if summary["scale"]:
        cells.append(or_dash(cell["full_scale_median_s"], seconds))
    if summary["published"]:
        mark = "~" if cell["published_kind"] == "derived" else ""
        cells.append(mark + or_dash(cell["published_s"], seconds))
    return cells


def _is_compared(summary: dict[str, Any]) -> bool:
    return any(base is not None for base in summary["baselines"].values())


def _has_intervals(summary: dict[str, Any]) -> bool:
    """Tell whether any median has an interval or a bound; with fewer requests the whole spread is what can be shown."""
    return any(cell["ttft"]["p50"]["high"] is not None for row in summary["lengths"] for cell in row["cells"].values())


def _spread_heading(summary: dict[str, Any]) -> str:
    return "95 %\ninterval s" if _has_intervals(summary) else "min to max\ns"


def _spread(cell: dict[str, Any], summary: dict[str, Any]) -> str:
    """Write the interval of the median where the table has any, else the smallest and the largest value."""
    if not _has_intervals(summary):
        return f"{seconds(cell['min_s'])}\N{EN DASH}{seconds(cell['max_s'])}"
    figure = cell["ttft"]["p50"]
    if figure["high"] is None:
        return str(figure["refusal"])
    if figure["low"] is None:
        return f"\u2264{seconds(figure['high'])}"
    return f"{seconds(figure['low'])}\N{EN DASH}{seconds(figure['high'])}"


def _speed_up_cells(row: dict[str, Any], name: str, summary: dict[str, Any]) -> list[str]:
    """Write the speed-up, its interval or why there is none, and what may be said."""
    found = row["cells"][name]["comparison"]
    if found is None:
        return ["", "", ""] if summary["baselines"][name] is None else ["-", "-", "-"]
    beside = f"\n({row['published_speed_up']:g}x)" if row["published_speed_up"] else ""
    if found["low"] is None:
        return [f"{_factor(found['ratio'])}{beside}", bare_refusal(found["refusal"]), short_word(found["word"])]
    interval = f"{_factor(found['low'])[:-1]}\N{EN DASH}{_factor(found['high'])}"
    return [f"{_factor(found['ratio'])}{beside}", interval, short_word(found["word"])]


def _factor(value: float) -> str:
    return f"{seconds(value) if value >= 1.2 else f'{value:.3f}'}x"


def seconds(value: float) -> str:
    """Write seconds with three digits, or four decimals below a tenth."""
    return f"{value:#.3g}".rstrip(".") if value >= 1 else f"{value:.4f}" if value < 0.1 else f"{value:.3f}"


def or_dash(value: Any, form: Callable[[Any], object]) -> str:
    """Write a figure, or a dash where there is none."""
    return "-" if value is None else str(form(value))
