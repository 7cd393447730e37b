"""The terminal's tables: what `run` ends with and `show` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from kvbench.plan import most_speed_up, working_set_bytes
from kvbench.report import (
    answer,
    beside,
    capacities,
    client_error,
    dose,
    evidence,
    imported,
    matrix,
    metric_tables,
    open_loop,
    proof_table,
)
from kvbench.report.length_table import length_table, seconds
from kvbench.report.setting import load_text
from kvbench.units import format_count, format_size

if TYPE_CHECKING:
    from rich.console import Console

    from kvbench.plan import Plan
    from kvbench.records import Row
    from kvbench.scenario import Scenario

_STYLES = {"valid": "green", "suspect": "yellow", "invalid": "red"}
_MOST_REASONS = 8
_LONG_NAME = 30  # characters of a treatment's name beyond which it is put on two lines
_WIDE = 100  # characters of a terminal that has room for every column


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """Print the result: one row for each length, the proof for each treatment, and what is wrong if anything is."""
    console.print(Text(summary["question"], style="bold"))
    for sentence in answer.answers(summary):
        said, bracket, basis = sentence.partition(" (")
        console.print(Text(said).append(bracket + basis, style="dim"))
    console.print(_setting(summary), style="dim", highlight=False)
    _print_figures(summary, console)
    for text in (*metric_tables.comparison_lines(summary), *metric_tables.course_lines(summary)):
        console.print(Text(text, style="dim"))
    if summary["imported"]:
        imported.print_imported(summary, console)
    else:
        for table in proof_table.proof_tables(summary, console.width):
            console.print(table)
        console.print(client_error.sentence(summary), style="dim", highlight=False)
    _print_verdict(summary, console)


def _print_figures(summary: dict[str, Any], console: Console) -> None:
    """Print the tables of what was measured, as many of them as the scenario has anything for."""
    narrow = console.width < _WIDE
    if summary["doses"]:
        dose.print_doses(summary, console)
    console.print(length_table(summary, narrow=narrow))
    if matrix.has_matrix(summary):
        for part in matrix.matrix_tables(summary, console.width):
            console.print(part)
    for part in metric_tables.metric_tables(summary, console.width):
        console.print(part)
    if summary["beside"]:
        console.print(beside.beside_table(summary["beside"], scaled=bool(summary["scale"])))
    if open_loop.has_open_loop(summary):
        console.print(open_loop.open_loop_table(summary))
        for text in open_loop.sentences(summary):
            console.print(Text(text, style="yellow"))


def _setting(summary: dict[str, Any]) -> str:
    if summary["imported"]:
        return f"{summary['model'] or 'model not told'}, driver {summary['driver']}, {imported.load(summary)}"
    parts = [summary["model"], f"{summary['server']}", f"driver {summary['driver']}"]
    parts.append(load_text(summary))
    if summary["scale"]:
        time, size = summary["scale"]["time"], summary["scale"]["bytes"]
        parts.append(f"scale model: GPU time / {time:g}, KV bytes / {size}")
    return ", ".join(parts)


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
    worst_first = evidence.grouped_reasons(summary)
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
    has_turns = scenario.prompts.turns is not None
    counted = ("conversations", "turns in all") if has_turns else ("requests",)
    longest = min(_LONG_NAME, max(map(len, scenario.treatments)))
    table.add_column("treatment", overflow="fold", min_width=longest)  # a name that is cut can be that of several
    for heading in ("round", *counted, "prompt tokens"):
        table.add_column(heading, justify="right", overflow="fold")
    for spec in plan.runs:
        tokens = sum(draw.isl_target for draw in spec.draws)
        held = [str(len({draw.conversation_id for draw in spec.draws}))] if has_turns else []
        table.add_row(spec.treatment, str(spec.repeat), *held, str(len(spec.draws)), f"{tokens:,}")
    if has_turns:
        table.caption, table.caption_justify = "Each turn sends its whole history: prompt tokens count it.", "left"
    console.print(table)
    if scenario.load.draw is not None and scenario.prompts.turns is None:
        _print_bounds(plan, scenario, console)
    need = working_set_bytes(scenario)
    if need is None:
        console.print("working set: not known; the scenario does not tell the server's KV bytes per token")
        return
    if has_turns:
        console.print(f"working set: {format_size(need)} for {len(plan.pool)} conversations at their ends")
        console.print(capacities.capacity_table(scenario, need / len(plan.pool)))
        return
    console.print(f"working set: {format_size(need)} for {len(plan.pool)} prompts")
    shown: dict[str, list[str]] = {}
    for treatment in scenario.treatments:
        shown.setdefault(scenario.tiers_of(treatment).model_dump_json(), []).append(treatment)
    for names in shown.values():
        _print_tiers(scenario, names, need, console)


def _print_bounds(plan: Plan, scenario: Scenario, console: Console) -> None:
    """Say what each round's list holds, and how much a start that is to be empty can gain on it at most."""
    is_cold = "cold" in (treatment.cache for treatment in scenario.treatments.values())
    for spec in {spec.repeat: spec for spec in plan.runs}.values():
        draws = [(draw.prompt_id, draw.isl_target) for draw in spec.draws]
        gain = f": from an empty start at most {most_speed_up(draws):.2f} times as fast as recomputing"
        told = f"round {spec.repeat}: {len(draws)} requests, {len(set(draws))} distinct prompts"
        console.print(told + (gain if is_cold else ""))


def _print_tiers(scenario: Scenario, treatments: list[str], need: float, console: Console) -> None:
    """Print the capacity of every tier of some treatments beside the working set."""
    tiers = scenario.tiers_of(treatments[0])
    if tiers != scenario.tiers:
        console.print(f"  {', '.join(treatments)}:")
    gpus = capacities.gpus(scenario)
    for name, capacity in tiers.capacities.items():
        fits = "holds all of it" if capacity >= need else f"holds {capacity / need:.0%} of it"
        each = f" on each of {gpus} GPUs, one" if name == "g1" and gpus > 1 else ","
        console.print(f"  {name}: {format_size(capacity)}{each} {fits}")
    if gpus == 1 and tiers.g1 >= need:  # with several, a prompt may be asked for on one that does not hold it
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
            turn = "" if row.conversation_id is None else f", turn {(row.turn or 0) + 1}"
            evidence = f"{row.tier or 'unproven'}: {row.tier_evidence}{answer}"
            line = f"  {row.prompt_id}{turn}, {length}, TTFT {ttft}, {evidence}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
