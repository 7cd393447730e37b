"""The terminal's tables: what `run` ends with and `show` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.checks import named_tier
from kvbench.plan import working_set_bytes
from kvbench.report import client_error, imported
from kvbench.report.grid import length_text
from kvbench.units import format_count, format_duration, format_rate, format_size

if TYPE_CHECKING:
    from rich.console import Console

    from kvbench.plan import Plan
    from kvbench.records import Row
    from kvbench.scenario import Scenario

_STYLES = {"valid": "green", "suspect": "yellow", "invalid": "red"}
_MOST_REASONS = 8


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """Print the result: one row for each length, the proof for each treatment, and what is wrong if anything is."""
    console.print(Text(summary["question"], style="bold"))
    console.print(_setting(summary), style="dim", highlight=False)
    console.print(length_table(summary))
    if summary["imported"]:
        imported.print_imported(summary, console)
    else:
        console.print(proof_table(summary))
        console.print(client_error.sentence(summary), style="dim", highlight=False)
    _print_verdict(summary, console)


def _setting(summary: dict[str, Any]) -> str:
    if summary["imported"]:
        return f"{summary['model'] or 'model not told'}, driver {summary['driver']}, {imported.load(summary)}"
    parts = [summary["model"], f"{summary['server']}", f"driver {summary['driver']}"]
    parts.append(f"concurrency {summary['concurrency']}")
    if summary["scale"]:
        time, size = summary["scale"]["time"], summary["scale"]["bytes"]
        parts.append(f"scale model: GPU time / {time:g}, KV bytes / {size}")
    return ", ".join(parts)


def length_table(summary: dict[str, Any]) -> Table:
    """Return one row for each length and treatment: measured TTFT, what served it, and what was published for it."""
    table = Table(
        title="TTFT by prompt length", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("treatment", no_wrap=True)
    named = () if summary["imported"] else ("as\nnamed",)
    for heading in ("median\ns", "min to max\ns", "n", *named):
        table.add_column(heading, justify="right", no_wrap=True)
    if summary["baseline"]:
        heading = "speed-up\n(publ.)" if summary["published"] else "speed-\nup"
        table.add_column(heading, justify="right", style="bold", no_wrap=True)
    if summary["scale"]:
        table.add_column("at full\nscale s", justify="right", style="cyan", no_wrap=True)
    if summary["published"]:
        table.add_column("pub-\nlished", justify="right", style="magenta", no_wrap=True)
    for row in summary["lengths"]:
        for number, name in enumerate(summary["treatments"]):
            first = length_text(row["isl"]) if number == 0 else ""
            table.add_row(first, name, *_length_cells(row, name, summary))
    notes = [] if named else ["Failed requests are in no figure."]
    notes += ["as named: share served from the tier (or computed) as the treatment says."] if named else []
    if summary["scale"]:
        notes.append("At full scale: measured times the time scale.")
    if summary["published"]:
        notes.append("Published: ~ is derived from the printed ends.")
    table.caption, table.caption_justify = " ".join(notes), "left"
    return table


def _length_cells(row: dict[str, Any], name: str, summary: dict[str, Any]) -> list[str]:
    cell = row["cells"][name]
    if cell["median_s"] is None:
        absent = "none answered" if summary["imported"] else "no valid run"
        cells = ["-", "not proven" if cell["unproven"] else absent, "0", "-"]
    else:
        spread = f"{_seconds(cell['min_s'])}\N{EN DASH}{_seconds(cell['max_s'])}"
        share = cell["tiers"].get(named_tier(summary["treatments"][name]["cache_state"]), 0) / max(
            sum(cell["tiers"].values()), 1
        )
        cells = [_seconds(cell["median_s"]), spread, str(cell["n"]), f"{share:.0%}"]
    cells = cells[:3] if summary["imported"] else cells
    if summary["baseline"]:
        beside = f"\n({row['published_speed_up']:g}x)" if row["published_speed_up"] else ""
        speed_up = _or_dash(cell["speed_up"], lambda x: f"{_seconds(x) if x >= 1 else f'{x:.3f}'}x") + beside
        cells.append(speed_up if name != summary["baseline"] else "")
    if summary["scale"]:
        cells.append(_or_dash(cell["full_scale_median_s"], _seconds))
    if summary["published"]:
        mark = "~" if cell["published_kind"] == "derived" else ""
        cells.append(mark + _or_dash(cell["published_s"], _seconds))
    return cells


def _seconds(value: float) -> str:
    return f"{value:#.3g}".rstrip(".") if value >= 1 else f"{value:.4f}" if value < 0.1 else f"{value:.3f}"


def proof_table(summary: dict[str, Any]) -> Table:
    """Return for each treatment which tiers served it and by what evidence."""
    table = Table(title="Proof", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", style="dim")
    for name in summary["treatments"]:
        table.add_column(name, justify="right")
    items, scale = list(summary["treatments"].values()), summary["scale"]
    lines: dict[str, list[str]] = {
        "cache state": [item["cache_state"] or "-" for item in items],
        "runs used": [f"{item['runs_used']} of {item['runs']}" for item in items],
        "served from": [_served(item["tiers"]) for item in items],
        "hit efficiency": [_or_dash(item["hit_efficiency"], lambda x: f"{x:.4f}") for item in items],
        "bytes read, tier counters": [_or_dash(item["read_bytes"], format_size) for item in items],
        "bytes read, /proc/PID/io": [_or_dash(item["process_read_bytes"], format_size) for item in items],
        "bytes of the prompts' files": [_or_dash(item["expected_read_bytes"], format_size) for item in items],
        "storage rate, median": [_or_dash(item["storage_bytes_per_s"], format_rate) for item in items],
    }
    if scale:
        factor = scale["bytes"] / scale["time"]
        rates = [item["storage_bytes_per_s"] for item in items]
        lines["  which stands for"] = ["-" if rate is None else format_rate(rate * factor) for rate in rates]
        lines["emulator ran over, of TTFT"] = [_or_dash(item["overrun_share"], lambda x: f"{x:.2%}") for item in items]
    if any(item["answers_match"] is not None for item in items):
        lines["answers as recomputed"] = [_or_dash(item["answers_match"], lambda x: f"{x:.0%}") for item in items]
    if (limit := summary["slo"].get("ttft")) is not None:
        where = " at full scale" if scale else ""
        shares = [_or_dash(item["slo_attainment"], lambda x: f"{x:.0%}") for item in items]
        lines[f"TTFT within {format_duration(limit)}{where}"] = shares
    ratios = [summary["lengths"][-1]["cells"][name]["recompute_over_load"] for name in summary["treatments"]]
    if any(ratio is not None for ratio in ratios):
        longest = format_count(summary["lengths"][-1]["isl"])
        lines[f"recompute / load time at {longest}"] = [_or_dash(ratio, lambda x: f"{x:.3g}") for ratio in ratios]
    for label, cells in lines.items():
        table.add_row(label, *cells)
    table.add_row("verdict", *[Text(item["verdict"], style=_STYLES[item["verdict"]]) for item in items])
    return table


def _served(tiers: dict[str, int]) -> str:
    total = sum(tiers.values())
    return ", ".join(f"{tier} {count / total:.0%}" for tier, count in tiers.items()) or "nothing"


def _or_dash(value: Any, form: Any) -> str:
    return "-" if value is None else str(form(value))


def _print_verdict(summary: dict[str, Any], console: Console) -> None:
    word = summary["verdict"]
    if summary["complete"]:
        console.print(Text("verdict: ").append(word, style=f"bold {_STYLES[word]}"))
    else:
        done = len(summary["runs"])
        console.print(Text("verdict: ").append("not finished", style="bold yellow"))
        console.print(f"  {done} of {summary['runs_planned']} runs are done; run the same command again to go on")
    if summary["facts_changed"]:
        console.print(
            Text(f"  suspect: facts changed between sessions: {', '.join(summary['facts_changed'])}", "yellow")
        )
    seen: dict[tuple[str, str, str], list[str]] = {}
    for run in summary["runs"]:
        for reason in run["reasons"]:
            seen.setdefault((reason["level"], reason["text"], reason["remedy"]), []).append(run["run_id"])
    worst_first = sorted(seen.items(), key=lambda item: ("invalid", "suspect", "note").index(item[0][0]))
    for (level, text, remedy), runs in worst_first[:_MOST_REASONS]:
        where = runs[0] if len(runs) == 1 else f"{runs[0]} and {len(runs) - 1} more"
        console.print(Text(f"  {level}, {where}: {text}", style=_STYLES.get(level, "dim")))
        if level != "note":
            console.print(Text(f"    {remedy}", style="dim"))
    if len(worst_first) > _MOST_REASONS:
        console.print(f"  and {len(worst_first) - _MOST_REASONS} more; see summary.json")


def print_plan(plan: Plan, scenario: Scenario, console: Console) -> None:
    """Print the runs in their order, and the working set beside the capacity of every tier."""
    table = Table(title=f"{plan.scenario}: {len(plan.runs)} runs", title_justify="left", header_style="bold")
    for heading in ("run", "treatment", "round", "requests", "prompt tokens"):
        table.add_column(heading, justify="left" if heading in ("run", "treatment") else "right")
    for spec in plan.runs:
        tokens = sum(draw.isl_target for draw in spec.draws)
        table.add_row(spec.run_id, spec.treatment, str(spec.repeat), str(len(spec.draws)), f"{tokens:,}")
    console.print(table)
    need = working_set_bytes(scenario)
    if need is None:
        console.print("working set: not known, the server's KV bytes per token are not in the scenario")
        return
    console.print(f"working set: {format_size(need)} for {len(plan.pool)} prompts")
    for name in ("g1", "g2", "g3", "g4"):
        tier = getattr(scenario.tiers, name)
        capacity = tier if isinstance(tier, int) else tier.capacity if tier is not None else 0
        if capacity:
            fits = "holds all of it" if capacity >= need else f"holds {capacity / need:.0%} of it"
            console.print(f"  {name}: {format_size(capacity)}, {fits}")
    if scenario.tiers.g1 >= need:
        console.print("  the working set fits g1: this scenario cannot show what offloading does", style="yellow")


def print_requests(rows: dict[str, list[Row]], console: Console) -> None:
    """Print every measured request of every run: what it was, how long it took, and which tier served it, by what."""
    for run_id, found in rows.items():
        console.print(Text(run_id, style="bold"))
        for row in found:
            if row.phase != "measure":
                continue
            ttft = "none" if row.ttft_s is None else f"{_seconds(row.ttft_s)} s"
            ttft += "" if row.status == "ok" else f" ({row.status})"
            answer = {None: "", True: ", answer as recomputed", False: ", answer differs"}[row.answers_match]
            length = "length not known" if row.length is None else f"{format_count(row.length)} tokens"
            line = f"  {length}, TTFT {ttft}, {row.tier or 'unproven'}: {row.tier_evidence}{answer}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
