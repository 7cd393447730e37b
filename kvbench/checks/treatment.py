"""The word on a treatment: what its runs say together, beside what each says alone.

A run can be in order while the treatment is not: too few rounds, another tier in another round, an arm that differs
from its equal, or a speed-up that no cache can give.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from kvbench.analysis.stats.ratios import figure_of, ratio_by_round
from kvbench.checks.verdict import (
    Reason,
    Verdict,
    baseline_of,
    concurrency_of,
    open_loop_of,
    same_pairs,
    verdict_of,
)
from kvbench.plan import most_speed_up
from kvbench.records import repeats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from kvbench.analysis.stats.ratios import RatioFigure
    from kvbench.records import Row


class JudgedRun(Protocol):
    """What is needed of a sealed run; `sealed.SealedRun` is one."""

    @property
    def record(self) -> dict[str, Any]:
        """The content of its `run.json`."""

    @property
    def measured(self) -> list[Row]:
        """Its measured rows, answered or not."""

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
    return verdict_of(reasons, words or ["suspect"])  # with no run yet nothing is wrong, and nothing is shown


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


def _answered(run: JudgedRun) -> list[Row]:
    return [row for row in run.measured if row.status == "ok" and row.ttft_s]


def _check_rounds(own: list[JudgedRun], planned: int) -> Iterator[Reason]:
    """Say which rounds give no figure, and which give one that is not shown to be right.

    Rounds are missing only while a result is not finished: nothing is wrong with those, and going on makes them.
    """
    by_word = {
        word: [run.record["run"]["run_id"] for run in own if run.verdict.word == word]
        for word in ("valid", "suspect", "invalid")
    }
    used, missing = len(own) - len(by_word["invalid"]), planned - len(own)
    if by_word["invalid"]:
        yet = f"; {missing} not made yet" if missing else ""
        text = f"{used} of {planned} planned rounds give a figure: {', '.join(by_word['invalid'])} invalid{yet}"
        remedy = "See the reasons of these runs, and run the scenario again."
        yield Reason("suspect" if used else "invalid", "fewer rounds", text, remedy)
    elif missing:
        text = f"not all {planned} planned rounds are made: the result is not finished"
        remedy = "Run the same command again: it goes on with the rounds that are missing."
        yield Reason("suspect", "fewer rounds", text, remedy)
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
    rows = _answered(run)
    if run.record["cache"]["state"] == "off":
        return rows
    known = repeats(run.measured)
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
        run.record["run"]["repeat"]: [row.ttft_s for row in _answered(run) if row.ttft_s and row.tier != "unproven"]
        for run in runs
        if run.record["run"]["treatment"] == name and run.verdict.word != "invalid"
    }


def _differs(figure: RatioFigure) -> bool:
    if figure.ratio is None or figure.low is None or figure.high is None:
        return False
    return (figure.low > 1 or figure.high < 1) and abs(math.log(figure.ratio)) > math.log1p(PAIR_MARGIN)


# -- the bound of an empty start --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EmptyStart:
    """What one round's list permits an empty start: each distinct prompt must be computed once."""

    repeat: int
    requests: int
    prompts: int
    most_gain: float

    def to_json(self) -> dict[str, Any]:
        """Return the bound with its counts as plain JSON values."""
        return asdict(self)


def empty_starts(runs: Iterable[JudgedRun]) -> list[EmptyStart]:
    """Return for each round the most that its empty start can gain over recomputing.

    Every request that was sent counts, answered or not. Nothing for conversations, whose turns share their beginnings.
    """
    found = []
    for run in runs:
        sent = [row for row in run.measured if row.sent_ns is not None]
        if not sent or any(row.conversation_id or not row.length for row in sent):
            return []
        most = most_speed_up((row.prompt_id, row.length or 1) for row in sent)
        prompts = len({row.prompt_id for row in sent})
        found.append(EmptyStart(run.record["run"]["repeat"], len(sent), prompts, most))
    return found


def most_gain(starts: Sequence[EmptyStart]) -> float | None:
    """Return the bound over rounds: their geometric mean, as the speed-up that is held against it is one."""
    return statistics.geometric_mean(one.most_gain for one in starts) if starts else None


def _check_bound(name: str, runs: Sequence[JudgedRun], asked: Mapping[str, Any]) -> Iterator[Reason]:
    """Hold an empty start's throughput over a baseline that recomputes against the most that it can gain.

    Each round's ratio is held against the bound of its own list, and the interval of their quotient over rounds must
    lie beyond the slack before anything is said. Below three rounds there is no interval, and one round of a busy
    machine shows nothing; a round in which a request failed is no whole list.
    """
    baseline, concurrency = baseline_of(asked, name), concurrency_of(asked, name)
    if baseline is None or _load_of(asked, baseline) != _load_of(asked, name):
        return
    whole = [run for run in runs if run.verdict.word != "invalid" and _is_whole(run)]
    base = _totals(baseline, "off", whole, concurrency)
    own = _totals(name, "cold", whole, concurrency)
    starts = empty_starts(run for run in whole if run.record["run"]["treatment"] == name)
    bounds = {one.repeat: one.most_gain for one in starts if one.repeat in base.keys() & own.keys()}
    gains = {repeat: base[repeat] / own[repeat] for repeat in bounds}
    beyond = figure_of([math.log(gains[repeat] / bounds[repeat]) for repeat in sorted(bounds)])
    if beyond.low is not None and beyond.low > 1 + BOUND_SLACK:
        gain, bound = (statistics.geometric_mean(told.values()) for told in (gains, bounds))
        text = (
            f"throughput is {gain:.2f} times the baseline's over {beyond.rounds} rounds; from an empty start at most"
            f" {bound:.2f} is possible (95 % interval of their quotient {beyond.low:.2f} to {beyond.high:.2f})"
        )
        remedy = "Look for blocks that were there before, or prompts that share a beginning."
        yield Reason("suspect", "speed-up bound", text, remedy)


def _load_of(asked: Mapping[str, Any], name: str) -> tuple[int | None, dict[str, Any] | None]:
    """Return how the requests of a treatment are sent: with another load its throughput is another for that alone."""
    return concurrency_of(asked, name), open_loop_of(asked, name)


def _is_whole(run: JudgedRun) -> bool:
    return bool(run.measured) and len(_answered(run)) == len(run.measured)


def _totals(name: str, state: str, runs: Sequence[JudgedRun], concurrency: int | None) -> dict[int, float]:
    """Return by round how long the runs of a treatment in this cache state took."""
    return {
        run.record["run"]["repeat"]: _total_s(run, concurrency)
        for run in runs
        if run.record["run"]["treatment"] == name and run.record["cache"]["state"] == state
    }


def _total_s(run: JudgedRun, concurrency: int | None) -> float:
    """Return how long the run's requests took: alone, without the pauses in which counters are read."""
    if concurrency == 1 or not run.record.get("load_s"):
        return sum(row.latency_s or row.ttft_s or 0.0 for row in _answered(run))
    return float(run.record["load_s"])
