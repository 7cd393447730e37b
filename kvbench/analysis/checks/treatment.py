"""Judges a treatment by all its runs together.

A run can be in order while the treatment is not: too few rounds, another tier in another round, an arm that differs
from its equal, or a speed-up that no cache can give.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kvbench.analysis.checks.empty_start import empty_starts
from kvbench.analysis.checks.repeated_prompts import may_repeat_prompt
from kvbench.analysis.measured import SelectedRequests, as_floats, is_true, total_time_s
from kvbench.analysis.stats.ratios import figure_of
from kvbench.result.verdict import Reason, verdict_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvbench.analysis.measured import JudgedRun, Mask
    from kvbench.analysis.stats.ratios import RatioFigure
    from kvbench.analysis.summary_types import Summary
    from kvbench.result.plan_record import Design, OpenLoop
    from kvbench.result.verdict import Verdict

MOST_EFFICIENCY_SPREAD = 0.01
PAIR_MARGIN = 0.02
PAIR_CONFIDENCE = 0.99  # equal arms differ by chance in one of twenty results at 95 %
BOUND_SLACK = 0.05


def judge_treatment(name: str, runs: Sequence[JudgedRun], design: Design) -> Verdict:
    """Judge one treatment by all runs of a result that are sealed."""
    of_treatment = [run for run in runs if run.record.treatment == name]
    words = [run.verdict.word for run in of_treatment]
    if design.imported:
        return verdict_of((), words)
    used = [run for run in of_treatment if run.verdict.word != "invalid"]
    reasons = [
        *_check_rounds(of_treatment, design.repeats),
        *_check_served(used),
        *_check_efficiency(used),
        *_check_pair(name, runs, design),
        *_check_bound(name, runs, design),
    ]
    return verdict_of(reasons, words or ["suspect"])  # with no run yet nothing is wrong, and nothing is shown


def gather_reasons(summary: Summary) -> list[tuple[Reason, list[str]]]:
    """Return each distinct reason of a summary once, worst first, with the runs and treatments that it holds for."""
    owners: dict[Reason, list[str]] = {}
    by_owner = [(run.run_id, run.reasons) for run in summary.runs]
    by_owner += [(name, treatment.reasons) for name, treatment in summary.treatments.items()]
    for owner, reasons in by_owner:
        for reason in reasons:
            if reason.rule != "suspect rounds":  # the rounds' own reasons stand beside it
                owners.setdefault(reason, []).append(owner)
    return sorted(owners.items(), key=lambda item: ("invalid", "suspect", "note").index(item[0].level))


def _check_rounds(runs: Sequence[JudgedRun], planned: int) -> Iterator[Reason]:
    """Say which rounds give no figure, and which give one that is not shown to be right.

    Rounds are missing only while a result is not finished: nothing is wrong with those, and going on makes them.
    """
    invalid, suspect = (
        [run.record.run_id for run in runs if run.verdict.word == word] for word in ("invalid", "suspect")
    )
    used, missing = len(runs) - len(invalid), planned - len(runs)
    if invalid:
        yet = f"; {missing} not made yet" if missing else ""
        text = f"{used} of {planned} planned rounds give a figure: {', '.join(invalid)} invalid{yet}"
        remedy = "See the reasons of these runs, and run the scenario again."
        yield Reason("suspect" if used else "invalid", "fewer rounds", text, remedy)
    elif missing:
        text = f"not all {planned} planned rounds are made: the result is not finished"
        remedy = "Run the same command again: it goes on with the rounds that are missing."
        yield Reason("suspect", "fewer rounds", text, remedy)
    if suspect:
        text = f"{len(suspect)} of {used} rounds are suspect: {', '.join(suspect)}"
        yield Reason("suspect", "suspect rounds", text, "See the reasons of these runs.")


def _check_served(used: Sequence[JudgedRun]) -> Iterator[Reason]:
    """Every round of a treatment must have been served alike, as far as the cache state names the tier."""
    served = Counter("+".join(_bound_tiers(run)) for run in used)
    if len(served) > 1:
        by_tiers = ", ".join(f"{tiers} in {count}" for tiers, count in served.most_common())
        text = f"tiers differ over the rounds: {by_tiers}"
        yield Reason("suspect", "tiers over rounds", text, "Look at the cache steps of the rounds that differ.")


def _bound_tiers(run: JudgedRun) -> list[str]:
    """Return the tiers of a run's answered requests whose tier follows from the cache state.

    Repeats of a prompt and later turns of a conversation may be served by whatever the run itself has filled.
    """
    is_answered = _is_answered(run)
    tiers = _tiers(run, is_answered)
    if run.record.cache.state == "off" or len(tiers) < 2:
        return tiers
    is_first = is_answered & ~may_repeat_prompt(run.measured) & ~is_true(run.measured["turn"] > 0)
    return _tiers(run, is_first) or tiers


def _tiers(run: JudgedRun, where: Mask) -> list[str]:
    """Return the tiers that served some of a run's requests, each once."""
    tiers = SelectedRequests(run.measured[["tier"]], pd.Series(where))["tier"]
    return sorted(map(str, tiers.fillna("unproven").unique()))


def _is_answered(run: JudgedRun) -> Mask:
    return is_true(run.measured["status"] == "ok")


def _check_efficiency(used: Sequence[JudgedRun]) -> Iterator[Reason]:
    shares = [share for run in used if (share := run.record.ledger.hit_efficiency) is not None]
    if shares and max(shares) - min(shares) > MOST_EFFICIENCY_SPREAD:
        text = f"hit efficiency differs over the rounds, {min(shares):.3f} to {max(shares):.3f}"
        remedy = "Look for evictions: the tier may be too small, or shared with others."
        yield Reason("suspect", "efficiency over rounds", text, remedy)


# -- equal arms -------------------------------------------------------------------------------------------------------


def _check_pair(name: str, runs: Sequence[JudgedRun], design: Design) -> Iterator[Reason]:
    """Two treatments with equal definitions are one treatment measured twice, and must not differ."""
    states: dict[str, str | None] = {run.record.treatment: run.record.cache.state for run in reversed(runs)}
    for other in (one for one, later in design.same_pairs(states) if later == name):
        logs, other_logs = _mean_log_times(name, runs), _mean_log_times(other, runs)
        both = sorted(logs.keys() & other_logs.keys())
        figure = figure_of([other_logs[repeat] - logs[repeat] for repeat in both], confidence=PAIR_CONFIDENCE)
        if _differs(figure):
            interval = f"{PAIR_CONFIDENCE:.0%} interval {figure.low:.3f} to {figure.high:.3f}, {figure.rounds} rounds"
            text = f"{other} and {name} are defined alike and differ: {other} over {name} is {figure.ratio:.3f}"
            remedy = "Find what favours one of them (order, position on the disk, other load) before any other figure."
            yield Reason("suspect", "A/A pair", f"{text} ({interval})", remedy)


def _mean_log_times(name: str, runs: Sequence[JudgedRun]) -> dict[int, float]:
    """Return by round the mean log TTFT of a treatment's answered requests that have one and whose tier is proven."""
    means = {}
    for run in runs:
        if run.record.treatment != name or run.verdict.word == "invalid":
            continue
        ttft_s = as_floats(run.measured["ttft_s"])
        ttft_s = ttft_s[_is_answered(run) & (ttft_s > 0) & ~is_true(run.measured["tier"] == "unproven")]
        if len(ttft_s):
            means[run.record.repeat] = float(np.log(ttft_s).mean())
    return means


def _differs(figure: RatioFigure) -> bool:
    if figure.ratio is None or figure.low is None or figure.high is None:
        return False
    return (figure.low > 1 or figure.high < 1) and abs(math.log(figure.ratio)) > math.log1p(PAIR_MARGIN)


# -- the bound of an empty start --------------------------------------------------------------------------------------


def _check_bound(name: str, runs: Sequence[JudgedRun], design: Design) -> Iterator[Reason]:
    """Hold an empty start's throughput over a baseline that recomputes against the most that it can gain.

    Each round's ratio is held against the bound of its own list, and the interval of their quotient over rounds must
    lie beyond the slack before anything is said. Below three rounds there is no interval, and one round of a busy
    machine shows nothing; a round in which a request failed is no whole list.
    """
    baseline = design.baseline_of(name)
    if baseline is None or _load_of(design, baseline) != _load_of(design, name):
        return
    base = _whole_runs(baseline, "off", runs)
    cold = _whole_runs(name, "cold", runs)
    bounds = {one.repeat: one.most_gain for one in empty_starts(cold)} if base and cold else {}
    base_s, cold_s = _totals_s(base), _totals_s(cold)
    rounds = sorted(bounds.keys() & base_s.keys() & cold_s.keys())
    gains = {repeat: base_s[repeat] / cold_s[repeat] for repeat in rounds}
    beyond = figure_of([math.log(gains[repeat] / bounds[repeat]) for repeat in rounds])
    if beyond.low is not None and beyond.low > 1 + BOUND_SLACK:
        gain = statistics.geometric_mean(gains.values())
        bound = statistics.geometric_mean(bounds[repeat] for repeat in rounds)
        text = (
            f"throughput is {gain:.2f} times the baseline's over {beyond.rounds} rounds; from an empty start at most"
            f" {bound:.2f} is possible (95 % interval of their quotient {beyond.low:.2f} to {beyond.high:.2f})"
        )
        remedy = "Look for blocks that were there before, or prompts that share a beginning."
        yield Reason("suspect", "speed-up bound", text, remedy)


def _load_of(design: Design, name: str) -> tuple[int | None, OpenLoop | None]:
    """Return how the requests of a treatment are sent: with another load its throughput is another for that alone."""
    return design.concurrency_of(name), design.open_loop_of(name)


def _whole_runs(name: str, cache_state: str, runs: Sequence[JudgedRun]) -> list[JudgedRun]:
    """Return the runs of a treatment in a cache state that count and whose requests were all answered with a token."""
    return [
        run
        for run in runs
        if run.record.treatment == name
        and run.record.cache.state == cache_state
        and run.verdict.word != "invalid"
        and len(run.measured)
        and _is_answered(run).all()
        and run.measured["ttft_s"].notna().all()
    ]


def _totals_s(runs: Sequence[JudgedRun]) -> dict[int, float]:
    """Return by round how long runs took, of those that tell."""
    totals = {run.record.repeat: total_time_s(run.record, run.measured) for run in runs}
    return {repeat: total_s for repeat, total_s in totals.items() if total_s is not None}
