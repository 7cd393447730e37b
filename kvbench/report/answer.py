"""The answer to the scenario's question, in sentences built from the figures and nothing else."""

from __future__ import annotations

from typing import Any

from kvbench.checks import named_tier
from kvbench.report.grid import SPACE, percent, ratio
from kvbench.units import format_count, format_duration


def answers(summary: dict[str, Any]) -> list[str]:
    """Give one sentence for each treatment beside the baseline, or for each treatment where there is no baseline."""
    baselines = summary["baselines"]
    sentences = [_compared(name, base, summary) for name, base in baselines.items() if base is not None]
    sentences = sentences or [_alone(name, summary) for name in summary["treatments"]]
    sentences += _answers_compared(summary)
    if summary["complete"]:
        return sentences
    return [f"So far, after {len(summary['runs'])} of {summary['runs_planned']} runs: {text}" for text in sentences]


def _answers_compared(summary: dict[str, Any]) -> list[str]:
    """Say whether the answers were the recomputed ones, where that was checked."""
    shares = {name: item.get("answers_match") for name, item in summary["treatments"].items()}
    checked = {name: share for name, share in shares.items() if share is not None}
    if not checked:
        return []
    told = ", ".join(f"{name} {percent(share)}" for name, share in checked.items())
    return [f"Answers equal to the recomputed ones, token by token: {told}."]


def _compared(name: str, baseline: str, summary: dict[str, Any]) -> str:
    """Compare at the longest prompt that has both sides."""
    row = next((row for row in reversed(summary["lengths"]) if row["cells"][name]["speed_up"] is not None), None)
    if row is None and (unproven := [side for side in (name, baseline) if _unproven(side, summary)]):
        sides = " and ".join(unproven)
        return f"{name} cannot be compared with {baseline}: which tier served the requests of {sides} was not proven."
    if row is None:
        return f"{name} cannot be compared with {baseline}: no round has a usable run of both."
    cell, reference = row["cells"][name], row["cells"][baseline]
    factor = cell["speed_up"]
    counts = f"n = {cell['n']} each" if cell["n"] == reference["n"] else f"n = {cell['n']} and {reference['n']}"
    medians = f"{format_duration(cell['median_s'])} against {format_duration(reference['median_s'])} at the median"
    start = f"At {format_count(row['isl'])} tokens" if row["isl"] is not None else "Over all prompts"
    word, ending = cell["comparison"]["word"], f"{_served(cell)}."
    if cell["speed_up_low"] is not None and word not in ("faster", "slower"):
        said = _no_difference(name, baseline, cell["comparison"])
        return f"{start} {said} ({medians}, {counts}; {_interval(cell)}); {ending}"
    here, there = _phrase(name, row, summary), _phrase(baseline, row, summary).replace("when KV", "when it")
    longer = factor < 1
    size = f"{ratio(1 / factor if longer else factor)} {'longer' if longer else 'shorter'}"
    return f"{start} TTFT is {size} {here} than {there} ({medians}, {counts}; {_interval(cell, longer)}); {ending}"


def _no_difference(name: str, baseline: str, found: dict[str, Any]) -> str:
    """Say that a difference is not shown, or that it is shown not to matter."""
    if found["word"].startswith("equivalent"):
        return f"TTFT of {name} and {baseline} is {found['word']}"
    told = f"no difference in TTFT is shown between {name} and {baseline}"
    return told if "contains 1" in found["reason"] else f"{told}, because {found['reason']}"


def _interval(cell: dict[str, Any], inverse: bool = False) -> str:  # noqa: FBT001, FBT002
    """Write the interval of a ratio; with too few rounds for one, the range that was seen."""
    found, rounds = cell["comparison"], cell["speed_up_rounds"]
    if rounds == 1:
        return "one round, so no spread is known"
    interval = found["low"] is not None
    ends = [found["low"], found["high"]] if interval else [found["least"], found["most"]]
    low, high = sorted(1 / end if inverse else end for end in ends)
    if interval:
        return f"95{SPACE}% interval {ratio(low)} to {ratio(high)} over {rounds} rounds"
    return f"{ratio(low)} to {ratio(high)} over {rounds} rounds, too few for an interval"


def _alone(name: str, summary: dict[str, Any]) -> str:
    row = next((row for row in reversed(summary["lengths"]) if row["cells"][name]["median_s"] is not None), None)
    if row is None and _unproven(name, summary):
        return f"No figure is given for {name}: which tier served its requests was not proven."
    if row is None:
        return f"No figure can be given for {name}: it has no usable run."
    cell = row["cells"][name]
    spread = f"{format_duration(cell['min_s'])} to {format_duration(cell['max_s'])}"
    where = "Over all prompts" if row["isl"] is None else f"At {format_count(row['isl'])} tokens"
    text = f"{where} the median TTFT {_phrase(name, row, summary)} is"
    reason = "" if summary["baseline"] or summary.get("imported") else " No baseline is named, so no speed-up is given."
    return f"{text} {format_duration(cell['median_s'])} (n = {cell['n']}, {spread}); {_served(cell)}.{reason}"


def _unproven(name: str, summary: dict[str, Any]) -> int:
    return sum(row["cells"][name]["unproven"] for row in summary["lengths"])


def _phrase(name: str, row: dict[str, Any], summary: dict[str, Any]) -> str:
    """Describe a treatment by its cache state, by its name where two share a state; an unproven state is `meant`."""
    states = [item["cache_state"] for item in summary["treatments"].values()]
    state = summary["treatments"][name]["cache_state"]
    if states.count(state) > 1 or state in (None, "unknown"):
        return f"under {name}"
    warm = state.startswith("warm")
    tier = named_tier(state)
    word = "is" if set(row["cells"][name]["tiers"]) == {tier} else "is meant to be"
    if warm:
        return f"when KV {word} read back from {tier.upper()}"
    return f"when KV {word} recomputed" if state == "off" else "when the cache starts empty"


def _served(cell: dict[str, Any]) -> str:
    """Say which tiers were proven for these requests."""
    total = sum(cell["tiers"].values())
    parts = []
    for tier, count in sorted(cell["tiers"].items(), key=lambda item: -item[1]):
        share = percent(count / total)
        if tier == "unproven":
            parts.append(f"for {share} of those requests ({count} of {total}) it is not proven which tier served them")
        elif tier == "mixed":
            parts.append(f"{share} of those requests were served from several tiers")
        elif tier == "recompute":
            parts.append(f"{share} of those requests were proven to be computed, not read")
        else:
            parts.append(f"{share} of those requests were proven to be served from {tier.upper()}")
    return ", and ".join(parts)
