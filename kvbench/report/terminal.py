"""Prints the tables of `kvbench run`, `show` and `plan` to the terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.text import Text

from kvbench.analysis.checks.empty_start import most_speed_up
from kvbench.report import neighbors, remarks
from kvbench.report.answer import answers
from kvbench.report.reasons import grouped_reasons
from kvbench.report.render.to_rich import print_table
from kvbench.report.tables import client_error, imported, open_loop
from kvbench.report.tables.capacity import capacity, gpus
from kvbench.report.tables.planned_runs import planned_runs
from kvbench.report.tables.registry import tables_of
from kvbench.report.tables.setup import load_text
from kvbench.report.text import SPACE
from kvbench.scenario.plan import working_set_bytes
from kvbench.units import format_count, format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from kvbench.analysis.summary_types import Summary
    from kvbench.report.report_input import ReportInput
    from kvbench.result.calibration_record import CalibrationCell
    from kvbench.result.records import Row
    from kvbench.scenario.plan import Plan
    from kvbench.scenario.scenario import Scenario

_STYLES = {"valid": "green", "suspect": "yellow", "invalid": "red"}
_MOST_REASONS = 8


def print_summary(given: ReportInput, console: Console) -> None:
    """Print the answer, the tables, the sentences that belong to them, and the verdict."""
    summary = given.summary
    console.print(Text(summary.question, style="bold"))
    for sentence in answers(summary):
        answer, bracket, basis = sentence.partition(" (")
        console.print(Text(answer).append(bracket + basis, style="dim"))
    console.print(_setting(summary), style="dim", highlight=False)
    for table in tables_of(given, in_terminal=True):
        console.print()
        print_table(table, console)
    console.print()
    for sentence in _sentences(summary):
        console.print(Text(sentence.replace(SPACE, " "), style="dim"))
    for sentence in open_loop.sentences(summary):
        console.print(Text(sentence, style="yellow"))
    _print_verdict(summary, console)


def print_calibration(cells: Sequence[CalibrationCell], console: Console) -> None:
    """Print for each cell of a calibration its errors, what it cost, and what went wrong."""
    print_table(client_error.calibration_table(cells), console)
    for sentence in client_error.troubles(cells):
        console.print(Text(sentence, style="yellow"))


def _sentences(summary: Summary) -> Iterator[str]:
    if summary.neighbors is not None:
        yield from neighbors.setting(summary.neighbors)
        yield from neighbors.troubles(summary.neighbors)
    yield from remarks.comparison_sentences(summary)
    yield from remarks.time_series_sentences(summary)
    if summary.imported is None:
        yield client_error.sentence(summary)
    else:
        yield f"imported from the {imported.origin(summary)}; it lacks:"
        yield from (f"  {sentence}" for sentence in imported.missing(summary))


def _setting(summary: Summary) -> str:
    if summary.imported is not None:
        return f"{summary.model or 'model not known'}, driver {summary.driver}, {load_text(summary)}"
    parts = [str(summary.model), summary.server, f"driver {summary.driver}", load_text(summary)]
    if summary.scale:
        parts.append(f"scale model: GPU time / {summary.scale.time:g}, KV bytes / {summary.scale.bytes:g}")
    return ", ".join(parts)


def _print_verdict(summary: Summary, console: Console) -> None:
    word = summary.verdict
    if summary.complete:
        console.print(Text("verdict: ").append(word, style=f"bold {_STYLES[word]}"))
    else:
        done = len(summary.runs)
        console.print(Text("verdict: ").append("not finished", style="bold yellow"))
        console.print(f"  {done} of {summary.runs_planned} runs are done; run the same command again to go on")
    if summary.facts_changed:
        console.print(Text(f"  suspect: facts changed between sessions: {', '.join(summary.facts_changed)}", "yellow"))
    worst_first = grouped_reasons(summary)
    for reason, owners in worst_first[:_MOST_REASONS]:
        where = owners[0] if len(owners) == 1 else f"{owners[0]} and {len(owners) - 1} more"
        console.print(Text(f"  {reason.level}, {where}: {reason.text}", style=_STYLES.get(reason.level, "dim")))
        if reason.level != "note":
            console.print(Text(f"    {reason.remedy}", style="dim"))
    if len(worst_first) > _MOST_REASONS:
        console.print(f"  and {len(worst_first) - _MOST_REASONS} more; see summary.json")


def print_plan(plan: Plan, scenario: Scenario, console: Console) -> None:
    """Print the runs in their order, and the working set beside the capacity of every tier."""
    has_turns = scenario.prompts.turns is not None
    print_table(planned_runs(plan, has_turns=has_turns), console)
    if scenario.load.draw is not None and not has_turns:
        _print_bounds(plan, scenario, console)
    need = working_set_bytes(scenario)
    if need is None:
        console.print("working set: not known; the scenario does not tell the server's KV bytes per token")
        return
    if has_turns:
        console.print(f"working set: {format_size(need)} for {len(plan.pool)} conversations at their ends")
        print_table(capacity(scenario, need / len(plan.pool)), console)
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
        requests = Counter((draw.prompt_id, draw.isl_target) for draw in spec.draws)
        lengths, distinct = Counter[int](), Counter(tokens for _, tokens in requests)
        for (_, tokens), count in requests.items():
            lengths[tokens] += count
        most = most_speed_up(lengths, distinct)
        gain = f": from an empty start at most {most:.2f} times as fast as recomputing"
        told = f"round {spec.repeat}: {len(spec.draws)} requests, {len(requests)} distinct prompts"
        console.print(told + (gain if is_cold else ""))


def _print_tiers(scenario: Scenario, treatments: list[str], need: float, console: Console) -> None:
    """Print the capacity of every tier of some treatments beside the working set."""
    tiers = scenario.tiers_of(treatments[0])
    if tiers != scenario.tiers:
        console.print(f"  {', '.join(treatments)}:")
    count = gpus(scenario)
    for name, size in tiers.capacities.items():
        fits = "holds all of it" if size >= need else f"holds {size / need:.0%} of it"
        each = f" on each of {count} GPUs, one" if name == "g1" and count > 1 else ","
        console.print(f"  {name}: {format_size(size)}{each} {fits}")
    if count == 1 and tiers.g1 >= need:  # with several, a prompt may be asked for on one that does not hold it
        console.print("  the working set fits g1: this cannot show what offloading does", style="yellow")


def print_requests(rows: dict[str, list[Row]], console: Console) -> None:
    """Print every measured request of every run: what it was, how long it took, and which tier served it, by what."""
    for run_id, found in rows.items():
        console.print(Text(run_id, style="bold"))
        for row in found:
            if row.phase != "measure":
                continue
            ttft = "none" if row.ttft_s is None else format_duration(row.ttft_s)
            ttft += "" if row.status == "ok" else f" ({row.status})"
            answer = {None: "", True: ", answer as recomputed", False: ", answer differs"}[row.answers_match]
            length = "length not known" if row.length is None else f"{format_count(row.length)} tokens"
            turn = "" if row.conversation_id is None else f", turn {(row.turn or 0) + 1}"
            evidence = f"{row.tier or 'unproven'}: {row.tier_evidence}{answer}"
            line = f"  {row.prompt_id}{turn}, {length}, TTFT {ttft}, {evidence}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
