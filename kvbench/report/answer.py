"""The answer to the scenario's question, in sentences built from the figures and nothing else."""

from __future__ import annotations

from typing import Any

from kvbench.checks import named_tier
from kvbench.report import dose
from kvbench.report.grid import SPACE, percent, ratio, shown, three_digits
from kvbench.units import format_count, format_duration

_MULTIPLE = 1.5  # from here on a gain is easier to read as a multiple
_MARGIN = 0.05  # a ratio of one or two rounds that is nearer to 1 is not told as a difference
_RATES = {"requests_per_s": ("Throughput", "requests/s"), "goodput_per_s": ("Goodput", "requests/s within the SLO")}


def answers(summary: dict[str, Any]) -> list[str]:
    """Give one sentence for each treatment beside its baseline, or for each treatment where there is no baseline.

    A treatment that is its baseline over again (A/A) answers nothing, so it has no sentence where others have one.
    Treatments with neighbours share one sentence for each load.
    """
    costs = dose.answers(summary)
    noisy = {level["treatment"] for level in summary["doses"]["levels"]} if costs else set()
    same = {frozenset(pair) for pair in summary["same_pairs"]}
    others = [(name, base) for name, base in summary["baselines"].items() if base is not None and name not in noisy]
    real = [pair for pair in others if frozenset(pair) not in same] or others
    rate = summary["headline"]
    if rate == "ttft_p50":
        sentences = costs + [_compared(name, base, summary) for name, base in real]
        sentences = sentences or [_alone(name, summary) for name in summary["treatments"]]
    else:
        sentences = costs + [_rate_compared(name, base, rate, summary) for name, base in real]
        sentences = sentences or [_rate_alone(name, rate, summary) for name in summary["treatments"]]
    sentences += _answers_compared(summary)
    sentences += _suspects(summary)
    if summary["complete"]:
        return sentences
    return [f"So far, after {len(summary['runs'])} of {summary['runs_planned']} runs: {text}" for text in sentences]


def _suspects(summary: dict[str, Any]) -> list[str]:
    """Name the treatments that are suspect, and by which rules; every import is, and says so elsewhere."""
    told = []
    for name, item in summary["treatments"].items() if not summary.get("imported") else ():
        if item["verdict"] == "suspect":
            own = [reason for run in summary["runs"] if run["treatment"] == name for reason in run["reasons"]]
            found = [one["rule"] for one in (*item["reasons"], *own) if one["level"] == "suspect"]
            rules = [rule for rule in dict.fromkeys(found) if rule != "suspect rounds"]
            told.append(f"{name} ({', '.join(rules)})" if rules else name)
    return [f"Suspect: {'; '.join(told)}. Read the verdict before these figures are used."] if told else []


def _answers_compared(summary: dict[str, Any]) -> list[str]:
    """Say whether the answers were the recomputed ones, where that was checked."""
    shares = {name: item.get("answers_match") for name, item in summary["treatments"].items()}
    checked = {name: share for name, share in shares.items() if share is not None}
    if not checked:
        return []
    told = ", ".join(f"{name} {percent(share)}" for name, share in checked.items())
    return [f"Answers equal to the recomputed ones, token by token: {told}."]


def _compared(name: str, baseline: str, summary: dict[str, Any]) -> str:
    """Compare TTFT at the longest prompt that has both sides."""
    row = next((row for row in reversed(summary["lengths"]) if row["cells"][name]["speed_up"] is not None), None)
    if row is None:
        return _not_compared(name, baseline, summary)
    cell, reference = row["cells"][name], row["cells"][baseline]
    factor = cell["speed_up"]
    counts = f"n = {cell['n']} each" if cell["n"] == reference["n"] else f"n = {cell['n']} and {reference['n']}"
    medians = f"{format_duration(cell['median_s'])} against {format_duration(reference['median_s'])} at the median"
    start = f"At {format_count(row['isl'])} tokens" if row["isl"] is not None else "Over all prompts"
    word, ending = cell["comparison"]["word"], f"{_served(cell)}."
    if cell["speed_up_low"] is not None and word not in ("faster", "slower"):
        said = _no_difference("TTFT", name, baseline, cell["comparison"])
        return f"{start} {said} ({medians}, {counts}; {_interval(cell['comparison'])}); {ending}"
    here, there = _both_phrases(name, baseline, row["cells"], summary)
    longer = factor < 1
    size = f"{ratio(1 / factor if longer else factor)} {'longer' if longer else 'shorter'}"
    spread = _interval(cell["comparison"], inverse=longer)
    return f"{start} TTFT is {size} {here} than {there} ({medians}, {counts}; {spread}); {ending}"


def _not_compared(name: str, baseline: str, summary: dict[str, Any]) -> str:
    if unproven := [side for side in (name, baseline) if _unproven(side, summary)]:
        sides = " and ".join(unproven)
        return f"{name} cannot be compared with {baseline}: which tier served the requests of {sides} was not proven."
    return f"{name} cannot be compared with {baseline}: no round has a usable run of both."


def _no_difference(what: str, name: str, baseline: str, found: dict[str, Any]) -> str:
    """Say that a difference is not shown, or that it is shown not to matter."""
    if found["word"].startswith("equivalent"):
        return f"{what} of {name} and {baseline} is {found['word']}"
    return f"no difference in {what} is shown between {name} and {baseline}"


def _interval(found: dict[str, Any] | None, *, inverse: bool = False) -> str:
    """Write the interval of a ratio; with too few rounds for one, the range that was seen."""
    if found is None:
        return "no interval"
    rounds = found["rounds"]
    if rounds == 1:
        return "one round, so no spread is known"
    interval = found["low"] is not None
    ends = [found["low"], found["high"]] if interval else [found["least"], found["most"]]
    low, high = sorted(1 / end if inverse else end for end in ends)
    if interval and found["word"] == "no difference shown" and "contains 1" not in found["reason"]:
        return f"95{SPACE}% interval {ratio(low)} to {ratio(high)} over {rounds} rounds, but {found['reason']}"
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
    text = f"{where} the median TTFT {_phrase(name, cell['tiers'], summary)} is"
    reason = "" if summary["baseline"] or summary.get("imported") else " No baseline is named, so no speed-up is given."
    return f"{text} {format_duration(cell['median_s'])} (n = {cell['n']}, {spread}); {_served(cell)}.{reason}"


def _unproven(name: str, summary: dict[str, Any]) -> int:
    return sum(row["cells"][name]["unproven"] for row in summary["lengths"])


def _both_phrases(name: str, baseline: str, cells: dict[str, Any], summary: dict[str, Any]) -> tuple[str, str]:
    """Describe a treatment and what it is compared with, in one sentence."""
    there = _phrase(baseline, cells[baseline]["tiers"], summary)
    here = _phrase(name, cells[name]["tiers"], summary)
    return here, there.replace("when KV", "when it") if "KV" in here else there


def _phrase(name: str, tiers: dict[str, int], summary: dict[str, Any]) -> str:
    """Describe a treatment by its cache state, by its name where two share a state; an unproven state is `meant`."""
    again = [later for _, later in summary["same_pairs"]]
    states = [item["cache_state"] for one, item in summary["treatments"].items() if one not in again or one == name]
    state = summary["treatments"][name]["cache_state"]
    if states.count(state) > 1 or state in (None, "unknown"):
        return f"under {name}"
    warm = state.startswith("warm")
    tier = named_tier(state)
    word = "is" if set(tiers) == {tier} else "is meant to be"
    if warm:
        return f"when KV {word} read back from {tier.upper()}"
    return f"when KV {word} recomputed" if state == "off" else "when the cache starts empty"


# -- rates -------------------------------------------------------------------------------------------------------------


def _rate_compared(name: str, baseline: str, metric: str, summary: dict[str, Any]) -> str:
    """Compare throughput, or goodput; from an empty start, say how much of a gain is possible at all."""
    items = summary["treatments"]
    item, reference = items[name], items[baseline]
    found = item["comparisons"].get(metric)
    if any(one["metrics"][metric]["value"] is None for one in (item, reference)):
        return _not_compared(name, baseline, summary)
    what, unit = _RATES[metric]
    here, there = _both_phrases(name, baseline, items, summary)
    rates = " against ".join(three_digits(one["metrics"][metric]["value"]) for one in (item, reference))
    facts = f"{rates} {unit}, {_counts(item, reference)}; {_interval(found)}; {_ttfts(item, reference)}"
    if found is None:
        said = f"{what} {here} has no ratio to that {there}, because one of them is 0 in some round"
    elif found["low"] is not None and found["word"] not in ("faster", "slower"):
        said = _no_difference(what.lower(), name, baseline, found)
    elif found["low"] is None and abs(found["ratio"] - 1) < _MARGIN:
        said = f"{what} {here} differs from that {there} by {_apart(found['ratio'])}, too little for so few rounds"
    else:
        said = f"{what} is {_than(found['ratio'], here, there)}"
    return f"{said[0].upper()}{said[1:]} ({facts}); {_served(item)}.{_bound(item)}"


def _than(factor: float, here: str, there: str) -> str:
    """Write a ratio of rates as people say it: a loss or a gain in percent of the baseline's rate, or a multiple."""
    if factor >= _MULTIPLE:
        return f"{ratio(factor)} as high {here} as {there}"
    return f"{_apart(factor)} {'lower' if factor < 1 else 'higher'} {here} than {there}"


def _apart(factor: float) -> str:
    away = abs(factor - 1)
    return percent(float(f"{away:.3g}" if away >= _MARGIN else f"{away:.2g}"))


def _counts(item: dict[str, Any], reference: dict[str, Any]) -> str:
    ours, theirs = item["requests"], reference["requests"]
    return f"n = {ours} requests each" if ours == theirs else f"n = {ours} and {theirs} requests"


def _ttfts(item: dict[str, Any], reference: dict[str, Any]) -> str:
    medians = [one["metrics"]["ttft_p50"]["value"] for one in (item, reference)]
    return f"median TTFT {' against '.join(shown(one, format_duration, 'not known') for one in medians)}"


def _bound(item: dict[str, Any]) -> str:
    """Say how much of a gain an empty start permits, with the counts that give it: those of single rounds."""
    if item["most_gain"] is None:
        return ""
    starts = item["empty_starts"]
    prompts, requests, bounds = ([start[key] for start in starts] for key in ("prompts", "requests", "most_gain"))
    why = f"{_range(prompts)} of {_range(requests)} requests are the first of their prompt and must be computed"
    if len(starts) > 1:
        why = f"in each of {len(starts)} rounds {why}"
    if min(bounds) != max(bounds):
        why += f", which bounds a round at {ratio(min(bounds))} to {ratio(max(bounds))}"
    if any(start["most_gain"] > start["requests"] / start["prompts"] * (1 + 1e-9) for start in starts):
        why += "; their lengths differ, so they are weighed by tokens"
    return f" An empty start cannot give more than {ratio(item['most_gain'])} the throughput of recomputing: {why}."


def _range(counts: list[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _rate_alone(name: str, metric: str, summary: dict[str, Any]) -> str:
    item, (what, unit) = summary["treatments"][name], _RATES[metric]
    figure = item["metrics"][metric]
    if figure["value"] is None:
        return _alone(name, summary)
    ends = [three_digits(figure[end]) for end in ("low", "high") if figure[end] is not None]
    spread = f"95{SPACE}% interval {' to '.join(ends)}" if ends else "no interval"
    rounds = f"{figure['rounds']} round{'s' if figure['rounds'] > 1 else ''}"
    here, ttft = _phrase(name, item["tiers"], summary), item["metrics"]["ttft_p50"]["value"]
    facts = f"n = {item['requests']} requests in {rounds}, {spread}; median TTFT {shown(ttft, format_duration)}"
    return f"{what} {here} is {three_digits(figure['value'])} {unit} ({facts}); {_served(item)}."


def _served(cell: dict[str, Any]) -> str:
    """Say which tiers were proven for the requests of a cell, or of a treatment."""
    total, tiers = sum(cell["tiers"].values()), sorted(cell["tiers"].items(), key=lambda item: -item[1])
    shares = {tier: percent(float(f"{count / total:.3g}")) for tier, count in tiers}
    known = [tier for tier, _ in tiers if tier not in ("unproven", "mixed")]
    parts = []
    if len(tiers) == 1 and known:
        where = "computed, not read" if known == ["recompute"] else f"served from {known[0].upper()}"
        parts.append(f"{shares[known[0]]} of those requests were proven to be {where}")
    elif known or "mixed" in shares:
        places = {"recompute": "computed", "mixed": "from several tiers"}
        told = [f"{shares[tier]} {places.get(tier, f'from {tier.upper()}')}" for tier, _ in tiers if tier != "unproven"]
        parts.append(f"proven of those requests: {', '.join(told)}")
    if count := cell["tiers"].get("unproven"):
        parts.append(
            f"for {shares['unproven']} of those requests ({count} of {total}) it is not proven which tier served them"
        )
    return ", and ".join(parts)
