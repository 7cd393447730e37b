"""The terminal's tables: what `run` ends with and `show` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.checks.treatment import gather_reasons
from kvbench.plan import most_speed_up, working_set_bytes
from kvbench.report import client_error, imported, matrix, metric_tables
from kvbench.report.length_table import length_table, or_dash, seconds
from kvbench.report.setting import load_text
from kvbench.units import format_count, format_duration, format_rate, format_size

if TYPE_CHECKING:
    from rich.console import Console

    from kvbench.plan import Plan
    from kvbench.records import Row
    from kvbench.scenario import Scenario

_STYLES = {"valid": "green", "suspect": "yellow", "invalid": "red"}
_MOST_REASONS = 8
_WIDE = 100  # characters of a terminal that has room for every column


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """Print the result: one row for each length, the proof for each treatment, and what is wrong if anything is."""
    console.print(Text(summary["question"], style="bold"))
    console.print(_setting(summary), style="dim", highlight=False)
    console.print(length_table(summary, narrow=console.width < _WIDE))
    if matrix.has_matrix(summary):
        console.print(matrix.matrix_table(summary))
    for table in metric_tables.metric_tables(summary, console.width):
        console.print(table)
    for text in metric_tables.comparison_lines(summary):
        console.print(Text(text, style="dim"))
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
    parts.append(load_text(summary))
    if summary["scale"]:
        time, size = summary["scale"]["time"], summary["scale"]["bytes"]
        parts.append(f"scale model: GPU time / {time:g}, KV bytes / {size}")
    return ", ".join(parts)


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
        "hit efficiency": [or_dash(item["hit_efficiency"], lambda x: f"{x:.4f}") for item in items],
        "bytes read, tier counters": [or_dash(item["read_bytes"], format_size) for item in items],
        "bytes read, /proc/PID/io": [or_dash(item["process_read_bytes"], format_size) for item in items],
        "bytes of the prompts' files": [or_dash(item["expected_read_bytes"], format_size) for item in items],
        "storage rate, median": [or_dash(item["storage_bytes_per_s"], format_rate) for item in items],
    }
    if scale:
        factor = scale["bytes"] / scale["time"]
        rates = [item["storage_bytes_per_s"] for item in items]
        lines["  which stands for"] = ["-" if rate is None else format_rate(rate * factor) for rate in rates]
        lines["emulator ran over, of TTFT"] = [or_dash(item["overrun_share"], lambda x: f"{x:.2%}") for item in items]
    if any(item["answers_match"] is not None for item in items):
        lines["answers as recomputed"] = [or_dash(item["answers_match"], lambda x: f"{x:.0%}") for item in items]
    if (limit := summary["slo"].get("ttft")) is not None:
        where = " at full scale" if scale else ""
        shares = [or_dash(item["slo_attainment"], lambda x: f"{x:.0%}") for item in items]
        lines[f"TTFT within {format_duration(limit)}{where}"] = shares
    ratios = [summary["lengths"][-1]["cells"][name]["recompute_over_load"] for name in summary["treatments"]]
    if any(ratio is not None for ratio in ratios):
        longest = format_count(summary["lengths"][-1]["isl"])
        lines[f"recompute / load time at {longest}"] = [or_dash(ratio, lambda x: f"{x:.3g}") for ratio in ratios]
    for label, cells in lines.items():
        table.add_row(label, *cells)
    table.add_row("verdict", *[Text(item["verdict"], style=_STYLES[item["verdict"]]) for item in items])
    return table


def _served(tiers: dict[str, int]) -> str:
    total = sum(tiers.values())
    return ", ".join(f"{tier} {count / total:.0%}" for tier, count in tiers.items()) or "nothing"


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
    worst_first = gather_reasons(summary)
    for reason, runs in worst_first[:_MOST_REASONS]:
        level, text, remedy = reason["level"], reason["text"], reason["remedy"]
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
    if scenario.load.draw is not None and scenario.prompts.turns is None:
        _print_bounds(plan, console)
    need = working_set_bytes(scenario)
    if need is None:
        console.print("working set: not known, the server's KV bytes per token are not in the scenario")
        return
    what = "conversations at their ends" if scenario.prompts.turns is not None else "prompts"
    console.print(f"working set: {format_size(need)} for {len(plan.pool)} {what}")
    shown: dict[str, list[str]] = {}
    for treatment in scenario.treatments:
        shown.setdefault(scenario.tiers_of(treatment).model_dump_json(), []).append(treatment)
    for names in shown.values():
        _print_tiers(scenario, names, need, console)
    if scenario.prompts.turns is not None:
        _print_at_a_time(scenario, need / len(plan.pool), console)


def _print_bounds(plan: Plan, console: Console) -> None:
    """Say how much an empty start can gain on each round's list, whatever the storage."""
    for spec in {spec.repeat: spec for spec in plan.runs}.values():
        draws = [(draw.prompt_id, draw.isl_target) for draw in spec.draws]
        bound = f"at most {most_speed_up(draws):.2f} times as fast as recomputing from an empty start"
        console.print(f"round {spec.repeat}: {len(draws)} requests, {len(set(draws))} distinct prompts: {bound}")


def _print_at_a_time(scenario: Scenario, each_bytes: float, console: Console) -> None:
    """Say whether the conversations held at a time overflow GPU memory: what has ended is asked for no more."""
    for concurrency in sorted({scenario.concurrency_of(name) for name in scenario.treatments}):
        names = [name for name in scenario.treatments if scenario.concurrency_of(name) == concurrency]
        held = concurrency * each_bytes
        fits = [name for name in names if scenario.tiers_of(name).g1 >= held]
        what = f"{concurrency} conversations at a time take up to {format_size(round(held))}"
        if fits:
            style = "yellow"
            told = f"g1 holds all of it in {', '.join(fits)}: nothing overflows, a slower tier is only written"
        else:
            style, told = "", "more than g1 holds, so slower tiers are read"
        console.print(f"{what}: {told}", style=style)


def _print_tiers(scenario: Scenario, treatments: list[str], need: float, console: Console) -> None:
    """Print the capacity of every tier of some treatments beside the working set."""
    tiers = scenario.tiers_of(treatments[0])
    if tiers != scenario.tiers:
        console.print(f"  {', '.join(treatments)}:")
    for name in ("g1", "g2", "g3", "g4"):
        tier = getattr(tiers, name)
        capacity = tier if isinstance(tier, int) else tier.capacity if tier is not None else 0
        if capacity:
            fits = "holds all of it" if capacity >= need else f"holds {capacity / need:.0%} of it"
            console.print(f"  {name}: {format_size(capacity)}, {fits}")
    if tiers.g1 >= need:
        console.print("  the working set fits g1: this cannot show what offloading does", style="yellow")


def print_requests(rows: dict[str, list[Row]], console: Console) -> None:
    """Print every measured request of every run: what it was, how long it took, and which tier served it, by what."""
    for run_id, found in rows.items():
        console.print(Text(run_id, style="bold"))
        for row in found:
            if row.phase != "measure":
                continue
            ttft = "none" if row.ttft_s is None else f"{seconds(row.ttft_s)} s"
            ttft += "" if row.status == "ok" else f" ({row.status})"
            answer = {None: "", True: ", answer as recomputed", False: ", answer differs"}[row.answers_match]
            length = "length not known" if row.length is None else f"{format_count(row.length)} tokens"
            line = f"  {length}, TTFT {ttft}, {row.tier or 'unproven'}: {row.tier_evidence}{answer}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
