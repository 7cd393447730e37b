"""Writes the answer to the scenario's question in sentences, from the figures alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report import neighbors
from kvbench.report.text import SPACE, counted, percent, ratio, shown, three_digits
from kvbench.result.run_record import named_tier
from kvbench.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvbench.analysis.summary_types import JudgedRatio, Summary, TreatmentSummary

_MULTIPLE = 1.5  # from here on a gain is easier to read as a multiple
_MARGIN = 0.05  # a ratio of one or two rounds that is nearer to 1 is not told as a difference
_RATES = {"requests_per_s": ("Throughput", "requests/s"), "goodput_per_s": ("Goodput", "requests/s within the SLO")}


def answers(summary: Summary) -> list[str]:
    """Give one sentence for each treatment beside its baseline, or for each treatment where there is no baseline.

    A treatment that is its baseline over again (A/A) answers nothing, so it has no sentence where others have one.
    Treatments with neighbours share one sentence for each load.
    """
    costs = neighbors.answers(summary)
    noisy = (
        {level.treatment for level in summary.neighbors.levels} if costs and summary.neighbors is not None else set()
    )
    same = {frozenset(pair) for pair in summary.same_pairs}
    others = [(name, base) for name, base in summary.baselines.items() if base is not None and name not in noisy]
    real = [pair for pair in others if frozenset(pair) not in same] or others
    rate = summary.headline
    if rate == "ttft_p50":
        sentences = costs + [_compared(name, base, summary) for name, base in real]
        sentences = sentences or [_alone(name, summary) for name in summary.treatments]
    else:
        sentences = costs + [_rate_compared(name, base, rate, summary) for name, base in real]
        sentences = sentences or [_rate_alone(name, rate, summary) for name in summary.treatments]
    sentences += _answers_compared(summary)
    sentences += _suspects(summary)
    if summary.complete:
        return sentences
    return [f"So far, after {len(summary.runs)} of {summary.runs_planned} runs: {text}" for text in sentences]


def _suspects(summary: Summary) -> list[str]:
    """Name the treatments that are suspect, and by which rules; every import is, and says so elsewhere."""
    told = []
    for name, item in summary.treatments.items() if not summary.imported else ():
        if item.verdict == "suspect":
            own = [reason for run in summary.runs if run.treatment == name for reason in run.reasons]
            found = [one.rule for one in (*item.reasons, *own) if one.level == "suspect"]
            rules = [rule for rule in dict.fromkeys(found) if rule != "suspect rounds"]
            told.append(f"{name} ({', '.join(rules)})" if rules else name)
    return [f"Suspect: {'; '.join(told)}. Read the verdict before these figures are used."] if told else []


def _answers_compared(summary: Summary) -> list[str]:
    """Say whether the answers were the recomputed ones, where that was checked."""
    shares = {name: item.answers_match for name, item in summary.treatments.items()}
    checked = {name: share for name, share in shares.items() if share is not None}
    if not checked:
        return []
    told = ", ".join(f"{name} {percent(share)}" for name, share in checked.items())
    return [f"Answers equal to the recomputed ones, token by token: {told}."]


def _compared(name: str, baseline: str, summary: Summary) -> str:
    """Compare TTFT at the longest prompt that has both sides."""
    rows = ((row, row.cells[name].comparison) for row in reversed(summary.lengths))
    row, judged = next(((row, one) for row, one in rows if one is not None), (None, None))
    if row is None or judged is None or judged.ratio is None:
        return _not_compared(name, baseline, summary)
    cell, reference = row.cells[name], row.cells[baseline]
    counts = f"n = {cell.n} each" if cell.n == reference.n else f"n = {cell.n} and {reference.n}"
    ours, theirs = (shown(one.median_s, format_duration, "no figure") for one in (cell, reference))
    medians = f"{ours} against {theirs} at the median"
    start = f"At {format_count(row.isl)} tokens" if row.isl is not None else "Over all prompts"
    ending = f"{_served(cell.tiers)}."
    if judged.low is not None and judged.word not in ("faster", "slower"):
        same = _no_difference("TTFT", name, baseline, judged)
        return f"{start} {same} ({medians}, {counts}; {_interval(judged)}); {ending}"
    tiers = {one: row.cells[one].tiers for one in (name, baseline)}
    here, there = _both_phrases(name, baseline, tiers, summary)
    longer = judged.ratio < 1
    size = f"{ratio(1 / judged.ratio if longer else judged.ratio)} {'longer' if longer else 'shorter'}"
    spread = _interval(judged, inverse=longer)
    return f"{start} TTFT is {size} {here} than {there} ({medians}, {counts}; {spread}); {ending}"


def _not_compared(name: str, baseline: str, summary: Summary) -> str:
    if unproven := [side for side in (name, baseline) if _unproven(side, summary)]:
        sides = " and ".join(unproven)
        return f"{name} cannot be compared with {baseline}: which tier served the requests of {sides} was not proven."
    return f"{name} cannot be compared with {baseline}: no round has a usable run of both."


def _no_difference(what: str, name: str, baseline: str, judged: JudgedRatio) -> str:
    """Say that a difference is not shown, or that it is shown not to matter."""
    if judged.word.startswith("equivalent"):
        return f"{what} of {name} and {baseline} is {judged.word}"
    return f"no difference in {what} is shown between {name} and {baseline}"


def _interval(judged: JudgedRatio | None, *, inverse: bool = False) -> str:
    """Write the interval of a ratio; with too few rounds for one, the range that was seen."""
    if judged is None:
        return "no interval"
    if judged.rounds == 1:
        return "one round, so no spread is known"
    has_interval = judged.low is not None
    ends = (judged.low, judged.high) if has_interval else (judged.least, judged.most)
    low, high = sorted(1 / end if inverse else end for end in ends if end is not None)
    span = f"{ratio(low)} to {ratio(high)} over {judged.rounds} rounds"
    if not has_interval:
        return f"{span}, too few for an interval"
    if judged.word == "no difference shown" and "contains 1" not in judged.reason:
        return f"95{SPACE}% interval {span}, but {judged.reason}"
    return f"95{SPACE}% interval {span}"


def _alone(name: str, summary: Summary) -> str:
    row = next((row for row in reversed(summary.lengths) if row.cells[name].median_s is not None), None)
    if row is None and _unproven(name, summary):
        return f"No figure is given for {name}: which tier served its requests was not proven."
    if row is None:
        return f"No figure can be given for {name}: it has no usable run."
    cell = row.cells[name]
    spread = f"{shown(cell.min_s, format_duration)} to {shown(cell.max_s, format_duration)}"
    where = "Over all prompts" if row.isl is None else f"At {format_count(row.isl)} tokens"
    reason = "" if summary.baseline or summary.imported else " No baseline is named, so no speed-up is given."
    median = f"the median TTFT {_phrase(name, cell.tiers, summary)} is {shown(cell.median_s, format_duration)}"
    return f"{where} {median} (n = {cell.n}, {spread}); {_served(cell.tiers)}.{reason}"


def _unproven(name: str, summary: Summary) -> int:
    return sum(row.cells[name].unproven for row in summary.lengths)


def _both_phrases(
    name: str, baseline: str, tiers: Mapping[str, Mapping[str, int]], summary: Summary
) -> tuple[str, str]:
    """Describe a treatment and what it is compared with, in one sentence."""
    there = _phrase(baseline, tiers[baseline], summary)
    here = _phrase(name, tiers[name], summary)
    return here, there.replace("when KV", "when it") if "KV" in here else there


def _phrase(name: str, tiers: Mapping[str, int], summary: Summary) -> str:
    """Describe a treatment by its cache state, by its name where two share a state; an unproven state is `meant`."""
    again = [later for _, later in summary.same_pairs]
    states = [item.cache_state for one, item in summary.treatments.items() if one not in again or one == name]
    state = summary.treatments[name].cache_state
    if state is None or states.count(state) > 1 or state == "unknown":
        return f"under {name}"
    warm = state.startswith("warm")
    tier = named_tier(state)
    word = "is" if set(tiers) == {tier} else "is meant to be"
    if warm:
        return f"when KV {word} read back from {tier.upper()}"
    return f"when KV {word} recomputed" if state == "off" else "when the cache starts empty"


# -- rates -------------------------------------------------------------------------------------------------------------


def _rate_compared(name: str, baseline: str, metric: str, summary: Summary) -> str:
    """Compare throughput, or goodput; from an empty start, say how much of a gain is possible at all."""
    items = summary.treatments
    item, reference = items[name], items[baseline]
    judged = item.comparisons.get(metric)
    ours, theirs = item.metrics[metric].value, reference.metrics[metric].value
    if ours is None or theirs is None:
        return _not_compared(name, baseline, summary)
    what, unit = _RATES[metric]
    tiers = {one: items[one].tiers for one in (name, baseline)}
    here, there = _both_phrases(name, baseline, tiers, summary)
    rates = f"{three_digits(ours)} against {three_digits(theirs)}"
    facts = f"{rates} {unit}, {_counts(item, reference)}; {_interval(judged)}; {_ttfts(item, reference)}"
    if judged is None or judged.ratio is None:
        text = f"{what} {here} has no ratio to that {there}, because one of them is 0 in some round"
    elif judged.low is not None and judged.word not in ("faster", "slower"):
        text = _no_difference(what.lower(), name, baseline, judged)
    elif judged.low is None and abs(judged.ratio - 1) < _MARGIN:
        text = f"{what} {here} differs from that {there} by {_apart(judged.ratio)}, too little for so few rounds"
    else:
        text = f"{what} is {_than(judged.ratio, here, there)}"
    return f"{text[0].upper()}{text[1:]} ({facts}); {_served(item.tiers)}.{_bound(item)}"


def _than(factor: float, here: str, there: str) -> str:
    """Write a ratio of rates as people say it: a loss or a gain in percent of the baseline's rate, or a multiple."""
    if factor >= _MULTIPLE:
        return f"{ratio(factor)} as high {here} as {there}"
    return f"{_apart(factor)} {'lower' if factor < 1 else 'higher'} {here} than {there}"


def _apart(factor: float) -> str:
    away = abs(factor - 1)
    return percent(float(f"{away:.3g}" if away >= _MARGIN else f"{away:.2g}"))


def _counts(item: TreatmentSummary, reference: TreatmentSummary) -> str:
    ours, theirs = item.requests, reference.requests
    return f"n = {ours} requests each" if ours == theirs else f"n = {ours} and {theirs} requests"


def _ttfts(item: TreatmentSummary, reference: TreatmentSummary) -> str:
    medians = [one.metrics["ttft_p50"].value for one in (item, reference)]
    return f"median TTFT {' against '.join(shown(one, format_duration, 'not known') for one in medians)}"


def _bound(item: TreatmentSummary) -> str:
    """Say how much of a gain an empty start permits, with the counts that give it: those of single rounds."""
    if item.most_gain is None:
        return ""
    starts = item.empty_starts
    prompts, requests = [start.prompts for start in starts], [start.requests for start in starts]
    bounds = [start.most_gain for start in starts]
    why = f"{_range(prompts)} of {_range(requests)} requests are the first of their prompt and must be computed"
    if len(starts) > 1:
        why = f"in each of {len(starts)} rounds {why}"
    if min(bounds) != max(bounds):
        why += f", which bounds a round at {ratio(min(bounds))} to {ratio(max(bounds))}"
    if any(start.most_gain > start.requests / start.prompts * (1 + 1e-9) for start in starts):
        why += "; their lengths differ, so they are weighed by tokens"
    return f" An empty start cannot give more than {ratio(item.most_gain)} the throughput of recomputing: {why}."


def _range(counts: list[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _rate_alone(name: str, metric: str, summary: Summary) -> str:
    item, (what, unit) = summary.treatments[name], _RATES[metric]
    figure = item.metrics[metric]
    if figure.value is None:
        return _alone(name, summary)
    ends = [three_digits(end) for end in (figure.low, figure.high) if end is not None]
    spread = f"95{SPACE}% interval {' to '.join(ends)}" if ends else "no interval"
    rounds = counted(figure.rounds, "round")
    here, ttft = _phrase(name, item.tiers, summary), item.metrics["ttft_p50"].value
    facts = f"n = {item.requests} requests in {rounds}, {spread}; median TTFT {shown(ttft, format_duration)}"
    return f"{what} {here} is {three_digits(figure.value)} {unit} ({facts}); {_served(item.tiers)}."


def _served(tiers: Mapping[str, int]) -> str:
    """Say which tiers were proven for the requests of a cell, or of a treatment."""
    total, ordered = sum(tiers.values()), sorted(tiers.items(), key=lambda item: -item[1])
    shares = {tier: percent(count / total) for tier, count in ordered}
    known = [tier for tier, _ in ordered if tier not in ("unproven", "mixed")]
    parts = []
    if len(ordered) == 1 and known:
        where = "computed, not read" if known == ["recompute"] else f"served from {known[0].upper()}"
        parts.append(f"{shares[known[0]]} of those requests were proven to be {where}")
    elif known or "mixed" in shares:
        words = {"recompute": "computed", "mixed": "from several tiers"}
        places = [
            f"{shares[tier]} {words.get(tier, f'from {tier.upper()}')}" for tier, _ in ordered if tier != "unproven"
        ]
        parts.append(f"proven of those requests: {', '.join(places)}")
    if count := tiers.get("unproven"):
        parts.append(
            f"for {shares['unproven']} of those requests ({count} of {total}) it is not proven which tier served them"
        )
    return ", and ".join(parts)
