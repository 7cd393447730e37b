"""The page's section on neighbours: sentences, plots and tables.

The tables are in `tables/neighbors.py` and beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.analysis.neighbor_impact import MOST_DRAW
from kvbench.report.tables.published_neighbors import nearest
from kvbench.report.text import SPACE, percent
from kvbench.units import format_duration, format_rate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.analysis.neighbor_types import Change, NeighborImpact, NeighborLevel, QuietArm
    from kvbench.analysis.summary_types import Summary

_LEAST_CHANGE = 0.05  # a change of one or two rounds that is smaller is not called one


def answers(summary: Summary) -> list[str]:
    """Return for each load what it cost, at the level nearest to the published share; nothing without neighbours."""
    levels = nearest(summary.neighbors) if summary.neighbors is not None else []
    return [_answer(level, _word(summary, level.treatment)) for level in levels]


def _word(summary: Summary, treatment: str) -> str:
    """Return what may be said of a treatment's request rate, all comparisons of the result corrected for together."""
    judged = summary.treatments[treatment].comparisons.get("requests_per_s")
    return judged.word if judged else ""


def _answer(level: NeighborLevel, word: str) -> str:
    loss, time = level.throughput_loss, level.time_increase
    assert loss.value is not None  # noqa: S101 - `nearest` gives levels with a figure alone
    start, facts = _start(level)
    who = f"{_rounds(loss.rounds)} of {level.treatment}, {level.generator} on {level.hosts} side clients"
    if loss.low is not None and word not in ("slower", "faster"):
        is_same = word.startswith("equivalent")
        same = f"throughput is {word} to that of" if is_same else "no difference in throughput is shown from that of"
        facts += [f"95{SPACE}% interval of the loss {_between(loss)}", who]
        return f"{start}, {same} {level.quiet} ({'; '.join(facts)})."
    if loss.low is None and abs(loss.value) < _LEAST_CHANGE:
        away = f"throughput differs by {percent(abs(loss.value))} from that of {level.quiet}"
        return f"{start}, {away}, too little for so few rounds ({'; '.join([*facts, who])})."
    verb, longer = ("fell", "longer") if loss.value >= 0 else ("rose", "less long")
    took = f", i.e. the same work took {percent(abs(time.value))} {longer}" if time.value is not None else ""
    if loss.low is not None:
        ends = f" and {_between(time, _sign(time))}" if time.low is not None else ""
        facts.append(f"95{SPACE}% intervals {_between(loss, _sign(loss))}{ends}")
    return f"{start}, throughput {verb} by {percent(abs(loss.value))}{took} ({'; '.join([*facts, who])})."


def _start(level: NeighborLevel) -> tuple[str, list[str]]:
    """Return what neighbours delivered, and the facts that are told in brackets."""
    rate = format_rate(level.delivered_bytes_per_s.mean or 0.0)
    if level.of_capacity is None or level.capacity is None:
        return f"With {rate} delivered by neighbours", []
    of = "what they reach alone" if level.capacity.source == "calibrated" else "the bottleneck's capacity"
    return f"At {100 * level.of_capacity:.0f}{SPACE}% of {of} delivered by neighbours", [rate]


def _rounds(count: int) -> str:
    return f"{count} rounds" if count > 1 else "one round"


def _sign(change: Change) -> int:
    return 1 if (change.value or 0.0) >= 0 else -1


def _between(change: Change, sign: int = 1) -> str:
    ends = sorted(sign * end for end in (change.low, change.high) if end is not None)
    return f"{' to '.join(f'{100 * end + 0.0:.1f}' for end in ends)}{SPACE}%"


def setting(impact: NeighborImpact) -> list[str]:
    """Return what stands beside the figures: the bottleneck, and whether the quiet load was bound by it."""
    made = impact.bottleneck
    if made is None:
        return [
            "No bottleneck was made: shares of capacity are of what the neighbours reach alone.",
            "Without a bottleneck of known capacity no share can be expected.",
        ]
    rate = format_rate(made.bytes_per_s or 0.0)
    if made.how is None:
        lead = f"No bottleneck of {rate} could be made: {made.reason}."
        return [f"{lead} On the bare storage the levels cannot be told apart, and no share can be expected."]
    payload = impact.limit_bytes_per_s
    headers = f", {format_rate(payload)} of it payload" if payload and payload != made.bytes_per_s else ""
    kind = {"disk": "disk reads", "link": "the link"}[made.kind]
    lead = f"The bottleneck is emulated: {kind} of this machine limited to {rate}{headers} ({made.how})."
    lead += " It stands for no product; shares may carry over, rates do not."
    return [lead, *(_quiet_sentence(name, arm) for name, arm in impact.quiet.items()), *_passed(impact)]


def _quiet_sentence(name: str, arm: QuietArm) -> str:
    if arm.of_limit is None:
        return f"{name} has no KV rate, so it is not known whether storage bound it."
    drew = f"{name} drew {percent(arm.of_limit)} of it undisturbed"
    if arm.of_limit > MOST_DRAW:
        window = format_duration(arm.window_s) if arm.window_s is not None else "a short time"
        return (
            f"{drew} in {window}: what a limit lets pass at once weighs in so short a time, and shares are not judged."
            " Send more requests."
        )
    if arm.storage_bound:
        return f"{drew}, so storage bound the load."
    return f"{drew}, less than 95{SPACE}%: the experiment was not bound by storage, and shares are not judged."


def _passed(impact: NeighborImpact) -> Iterator[str]:
    shares = [level.passed_over_limit for level in impact.levels if level.passed_over_limit is not None]
    if shares:
        ends = " to ".join(dict.fromkeys((percent(min(shares)), percent(max(shares)))))
        yield f"KV and neighbours together passed {ends} of the limit; capacity is the larger of limit and quiet draw."


def troubles(impact: NeighborImpact) -> list[str]:
    """Return the side clients that were lost, and the tries that were broken off for it."""
    sentences = [f"{one.run_id}, try {one.number} broken off: {one.why}" for one in impact.attempts]
    for one in impact.lost:
        ending = "the run counts" if one.used else "the run is left out"
        sentences.append(f"{one.run_id}: {one.host} was lost ({one.why}); {ending}")
    return sentences
