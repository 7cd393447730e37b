"""The word on a treatment: what its runs say together, beside what each says alone.

A run can be in order while the treatment is not: too few rounds, another tier in another round, an arm that differs
from its equal, or a speed-up that no cache can give.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from kvbench.checks.physics import load_floor_s, served_by
from kvbench.checks.verdict import (
    Reason,
    Verdict,
    baseline_of,
    ceilings_of,
    concurrency_of,
    named_tier,
    same_pairs,
    verdict_of,
)
from kvbench.plan import most_speed_up
from kvbench.ratios import ratio_by_round
from kvbench.records import repeats

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kvbench.checks.verdict import Ceiling
    from kvbench.ratios import RatioFigure
    from kvbench.records import Row


class JudgedRun(Protocol):
    """What is needed of a sealed run; `sealed.SealedRun` is one."""

    @property
    def record(self) -> dict[str, Any]:
        """The content of its `run.json`."""

    @property
    def rows(self) -> list[Row]:
        """All its rows."""

    @property
    def verdict(self) -> Verdict:
        """The verdict on it."""


MOST_EFFICIENCY_SPREAD = 0.01
PAIR_MARGIN = 0.02
PAIR_CONFIDENCE = 0.99  # equal arms differ by chance in one of twenty results at 95 %
BOUND_SLACK = 0.05


def judge_treatment(name: str, runs: Sequence[JudgedRun], asked: Mapping[str, Any]) -> Verdict:
    """Judge one treatment by all runs of a result that are sealed; `asked` is what `plan.json` says was asked for."""
    own = [run for run in runs if run.record["run"]["treatment"] == name]
    words = [run.verdict.word for run in own]
    if asked.get("imported"):
        return verdict_of((), words)
    used = [run for run in own if run.verdict.word != "invalid"]
    reasons = [
        *_check_rounds(own, asked["repeats"]),
        *_check_served(used),
        *_check_efficiency(used),
        *_check_pair(name, runs, asked),
        *_check_bound(name, runs, asked),
    ]
    return verdict_of(reasons, words)


def gather_reasons(summary: Mapping[str, Any]) -> list[tuple[dict[str, str], list[str]]]:
    """Return each distinct reason of a summary once, worst first, with the runs and treatments that it holds for."""
    found: dict[tuple[str, ...], tuple[dict[str, str], list[str]]] = {}
    owners = [(run["run_id"], run["reasons"]) for run in summary["runs"]]
    owners += [(name, item.get("reasons", ())) for name, item in summary["treatments"].items()]
    for owner, reasons in owners:
        for reason in reasons:
            if reason["rule"] != "suspect rounds":  # the rounds' own reasons stand beside it
                found.setdefault(tuple(reason.values()), (reason, []))[1].append(owner)
    return sorted(found.values(), key=lambda item: ("invalid", "suspect", "note").index(item[0]["level"]))


def _measured(run: JudgedRun) -> list[Row]:
    return [row for row in run.rows if row.phase == "measure" and row.status == "ok" and row.ttft_s]


def _check_rounds(own: list[JudgedRun], planned: int) -> Iterator[Reason]:
    """Say which rounds give no figure, and which give one that is not shown to be right."""
    by_word = {
        word: [run.record["run"]["run_id"] for run in own if run.verdict.word == word]
        for word in ("valid", "suspect", "invalid")
    }
    used, missing = len(own) - len(by_word["invalid"]), planned - len(own)
    if used < planned:
        gone = [f"{', '.join(by_word['invalid'])} invalid"] if by_word["invalid"] else []
        gone += [f"{missing} not made"] if missing else []
        text = f"{used} of {planned} planned rounds give a figure: {'; '.join(gone)}"
        remedy = "See the reasons of these runs, and run the scenario again."
        yield Reason("suspect" if used else "invalid", "fewer rounds", text, remedy)
    if by_word["suspect"]:
        text = f"{len(by_word['suspect'])} of {used} rounds are suspect: {', '.join(by_word['suspect'])}"
        yield Reason("suspect", "suspect rounds", text, "See the reasons of these runs.")


def _check_served(used: list[JudgedRun]) -> Iterator[Reason]:
    """Every round of a treatment must have been served alike, as far as the cache state names the tier."""
    served = Counter("+".join(sorted({row.tier or "unproven" for row in _bound_rows(run)})) for run in used)
    if len(served) > 1:
        told = ", ".join(f"{tiers} in {count}" for tiers, count in served.most_common())
        text = f"tiers differ over the rounds: {told}"
        yield Reason("suspect", "tiers over rounds", text, "Look at the cache steps of the rounds that differ.")


def _bound_rows(run: JudgedRun) -> list[Row]:
    """Return the rows whose tier follows from the cache state.

    Repeats of a prompt and later turns of a conversation may be served by whatever the run itself has filled.
    """
    rows = _measured(run)
    if run.record["cache"]["state"] == "off":
        return rows
    known = repeats(rows)
    return [row for row in rows if row.request_id not in known and not row.turn] or rows


def _check_efficiency(used: list[JudgedRun]) -> Iterator[Reason]:
    told = [run.record["ledger"].get("hit_efficiency") for run in used]
    shares = [share for share in told if share is not None]
    if shares and max(shares) - min(shares) > MOST_EFFICIENCY_SPREAD:
        text = f"hit efficiency differs over the rounds, {min(shares):.3f} to {max(shares):.3f}"
        remedy = "Look for evictions: the tier may be too small, or shared with others."
        yield Reason("suspect", "efficiency over rounds", text, remedy)


# -- equal arms -------------------------------------------------------------------------------------------------------


def _check_pair(name: str, runs: Sequence[JudgedRun], asked: Mapping[str, Any]) -> Iterator[Reason]:
    """Two treatments with equal definitions are one treatment measured twice, and must not differ."""
    states = {run.record["run"]["treatment"]: run.record["cache"]["state"] for run in reversed(runs)}
    for other in (one for one, later in same_pairs(asked, states) if later == name):
        figure = ratio_by_round(_times(other, runs), _times(name, runs), centre="geometric", confidence=PAIR_CONFIDENCE)
        if _differs(figure):
            interval = f"{PAIR_CONFIDENCE:.0%} interval {figure.low:.3f} to {figure.high:.3f}, {figure.rounds} rounds"
            text = f"{other} and {name} are defined alike and differ: {other} over {name} is {figure.ratio:.3f}"
            remedy = "Find what favours one of them (order, position on the disk, other load) before any other figure."
            yield Reason("suspect", "A/A pair", f"{text} ({interval})", remedy)


def _times(name: str, runs: Sequence[JudgedRun]) -> dict[int, list[float]]:
    return {
        run.record["run"]["repeat"]: [row.ttft_s for row in _measured(run) if row.ttft_s and row.tier != "unproven"]
        for run in runs
        if run.record["run"]["treatment"] == name and run.verdict.word != "invalid"
    }


def _differs(figure: RatioFigure) -> bool:
    if figure.ratio is None or figure.low is None or figure.high is None:
        return False
    return (figure.low > 1 or figure.high < 1) and abs(math.log(figure.ratio)) > math.log1p(PAIR_MARGIN)


# -- bounds of a speed-up ---------------------------------------------------------------------------------------------


def _check_bound(name: str, runs: Sequence[JudgedRun], asked: Mapping[str, Any]) -> Iterator[Reason]:
    """Hold the speed-up over a baseline that recomputes against the most that the treatment's cache can give."""
    baseline = baseline_of(asked, name)
    good = [run for run in runs if run.verdict.word != "invalid" and _measured(run)]
    base = [run for run in good if run.record["run"]["treatment"] == baseline and run.record["cache"]["state"] == "off"]
    own = [run for run in good if run.record["run"]["treatment"] == name]
    if not base or not own:
        return
    state = own[0].record["cache"]["state"]
    if state == "cold":
        yield from _check_empty_start(base, own, concurrency_of(asked, name))
    elif state.startswith("warm"):
        yield from _check_load_time(base, own, ceilings_of(asked, name).get(named_tier(state)))


def _check_empty_start(base: list[JudgedRun], own: list[JudgedRun], concurrency: int | None) -> Iterator[Reason]:
    """From an empty start every distinct prompt is computed once; the interval's lower end is held against that.

    Turns of a conversation share their beginnings, so that there is no such bound for them.
    """
    if any(row.conversation_id for run in own for row in _measured(run)):
        return
    bound = max(most_speed_up((row.prompt_id, row.length or 1) for row in _measured(run)) for run in own)
    totals = [{run.record["run"]["repeat"]: [_total_s(run, concurrency)] for run in arm} for arm in (base, own)]
    figure = ratio_by_round(*totals, centre="mean")
    low = figure.low if figure.low is not None else math.exp(min(figure.logs, default=0.0))
    if low > bound * (1 + BOUND_SLACK):
        text = (
            f"throughput is {figure.ratio:.2f} times the baseline's (at least {low:.2f}); from an empty start at most"
            f" {bound:.2f} is possible"
        )
        remedy = "Look for blocks that were there before, or prompts that share a beginning."
        yield Reason("suspect", "speed-up bound", text, remedy)


def _total_s(run: JudgedRun, concurrency: int | None) -> float:
    """Return how long the run's requests took: alone, without the pauses in which counters are read."""
    if concurrency == 1 or not run.record.get("load_s"):
        return sum(row.latency_s or row.ttft_s or 0.0 for row in _measured(run))
    return float(run.record["load_s"])


def _check_load_time(base: list[JudgedRun], own: list[JudgedRun], ceiling: Ceiling | None) -> Iterator[Reason]:
    """No prompt is served sooner than its blocks are loaded, so the speed-up is at most recompute over load time."""
    times: dict[int | None, list[float]] = {}
    floors: dict[int | None, list[float]] = {}
    for run in own:
        for row in served_by(named_tier(run.record["cache"]["state"]), _measured(run)):
            times.setdefault(row.length, []).append(row.ttft_s or 0.0)
            if (floor_s := load_floor_s(run.record, row, ceiling)) is not None:
                floors.setdefault(row.length, []).append(floor_s)
    recomputed: dict[int | None, list[float]] = {}
    for row in (row for run in base for row in _measured(run)):
        recomputed.setdefault(row.length, []).append(row.ttft_s or 0.0)
    for length in floors.keys() & recomputed.keys():
        base_s, floor_s = statistics.median(recomputed[length]), statistics.median(floors[length])
        if floor_s <= 0:  # nothing was read, so nothing bounds it
            continue
        ratio, bound = base_s / statistics.median(times[length]), base_s / floor_s
        if ratio > bound * (1 + BOUND_SLACK):
            text = f"at {length} tokens the speed-up is {ratio:.2f}, recompute over load time is {bound:.2f}"
            remedy = "Find out where the bytes came from, and by which clock they were timed."
            yield Reason("suspect", "speed-up bound", text, remedy)
