"""Simulates how often the intervals of `analysis.stats` contain the truth, in comparison with common mistakes.

Percentiles: independent lognormal and bimodal (hit or miss) times, n = 60, 300, 1000; goal at least 93 %. What n
cannot support is shown as refused, a bound on one side as such. Ratios: five requests an arm and round, lognormal
noise, a drift that both arms of a round share, 3, 5, 10 and 20 rounds; goal 93 to 97 %. Beside them the percentile
bootstrap over rounds, arms that share no round, one arm run after the other, and 20 rounds with a long tail. Two
results (no pairs, no drift between them, B three times as noisy as A): Welch's interval; goal 93 to 97 %.
Equivalence: how often arms that differ by the margin are called equivalent; goal at most 5 %. Means and medians of
autocorrelated times: 40 conversations of 10 turns; the naive interval over requests against the one by conversation;
goal for the latter 93 to 97 %. Ranks: the interval of P(a < b), and how often the exact test of two equal arms errs;
goal at most 5 %. A goal is missed by more than three Monte Carlo errors.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from kvbench.analysis.stats import intervals, rank_test, ratios

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

TRIALS = 2000
SEED = 20261121
MISSES = 0.3  # of the bimodal times; the rest are hits
CONVERSATIONS, TURNS = 40, 10
ALLOWANCE = 3.0  # Monte Carlo errors that a goal is missed by before it counts as missed


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a share of trials, its Monte Carlo error, and the goal, if it has one."""

    what: str
    how: str
    share: float | None
    error: float | None
    least: float | None = None
    most: float | None = None
    note: str = ""

    @property
    def missed(self) -> bool:
        """Say whether the share is outside the goal by more than chance."""
        if self.share is None or self.error is None:
            return False
        slack, most = ALLOWANCE * self.error, 1.0 if self.most is None else self.most
        return self.share < (self.least or 0.0) - slack or self.share > most + slack


def main() -> int:
    """Print the table, and JSON if asked; return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    started, lines = time.perf_counter(), []
    for part in (percentiles, paired_ratios, two_samples, skewed_rounds, equivalence, autocorrelated, rank_tests):
        for line in part(options.trials):
            print(render(line), flush=True)
            lines.append(line)
    wall_s = time.perf_counter() - started
    missed = [line for line in lines if line.missed]
    outcome = f"{len(missed)} goals missed" if missed else "all goals met"
    print(f"{options.trials} trials a line, {wall_s:.0f} s: {outcome}")
    if options.json:
        content = {
            "trials": options.trials,
            "seed": SEED,
            "wall_s": wall_s,
            "lines": [{**asdict(line), "missed": line.missed} for line in lines],
        }
        options.json.write_text(json.dumps(content) + "\n")
    return 1 if missed else 0


def render(line: Line) -> str:
    """Return the line as text."""
    text = f"{line.what:38} {line.how:38} "
    if line.share is None or line.error is None:
        return text + line.note
    text += f"{100 * line.share:5.1f} +- {100 * line.error:.1f} %"
    ends = [f"{100 * end:.0f}" for end in (line.least, line.most) if end is not None]
    if not ends:
        return text
    word = "at least " if line.most is None else "at most " if line.least is None else ""
    return f"{text}  goal {word}{' to '.join(ends)} %{': missed' if line.missed else ''}"


def counted(what: str, how: str, inside: list[bool], goal: tuple[float | None, float | None] = (None, None)) -> Line:
    """Return a line of the share of trials that are true; its error is at least that of one trial."""
    n = len(inside)
    share = sum(inside) / n
    return Line(what, how, share, math.sqrt(max(share * (1 - share), 1 / n) / n), *goal)


def lognormal(random: np.random.Generator, n: int) -> Array:
    """Draw times as of one kind of request."""
    return random.lognormal(0.0, 0.5, n)


def lognormal_quantile(p: float) -> float:
    """Return the true percentile of `lognormal`."""
    return math.exp(0.5 * NormalDist().inv_cdf(p))


def bimodal(random: np.random.Generator, n: int) -> Array:
    """Draw times of hits, and of misses that take some twelve times as long."""
    missed = random.random(n) < MISSES
    return np.exp(np.where(missed, random.normal(0.0, 0.2, n), random.normal(-2.5, 0.3, n)))


def bimodal_quantile(p: float) -> float:
    """Return the true percentile of `bimodal`, by bisection over its distribution function."""
    hit, miss = NormalDist(-2.5, 0.3), NormalDist(0.0, 0.2)
    low, high = -10.0, 10.0
    for _ in range(100):
        middle = (low + high) / 2
        below = (1 - MISSES) * hit.cdf(middle) + MISSES * miss.cdf(middle) < p
        low, high = (middle, high) if below else (low, middle)
    return math.exp(low)


def percentiles(trials: int) -> Iterator[Line]:
    """Cover the percentile intervals, two-sided where n allows it, else one bound, else refused."""
    shapes: dict[str, tuple[Callable[[np.random.Generator, int], Array], Callable[[float], float]]] = {
        "lognormal": (lognormal, lognormal_quantile),
        "bimodal": (bimodal, bimodal_quantile),
    }
    random = np.random.default_rng(SEED)
    for name, (draw, quantile) in shapes.items():
        for percentile in (50, 95, 99):
            truth = quantile(percentile / 100)
            for n in (60, 300, 1000):
                figures = [intervals.percentile_interval(draw(random, n).tolist(), percentile) for _ in range(trials)]
                what, bound = f"P{percentile} of {n} independent {name}", figures[0].bound
                if bound == "none":
                    yield Line(what, "order statistics", None, None, note=f"refused: {figures[0].refusal}")
                    continue
                inside = [
                    (figure.low is None or figure.low <= truth) and (figure.high is None or truth <= figure.high)
                    for figure in figures
                ]
                yield counted(what, f"order statistics, {bound}", inside, (0.93, None))


def paired_ratios(trials: int) -> Iterator[Line]:
    """Cover the ratio's interval under drift, beside the percentile bootstrap and arms that are not paired."""
    random, truth = np.random.default_rng(SEED + 1), math.log(1.3)
    for rounds in (3, 5, 10, 20):
        what, method = f"ratio over {rounds} rounds with drift", ""
        paired, bootstrap, in_turn, wider = [], [], [], []
        for trial in range(trials):
            baseline, treatment = drifting_arms(random, rounds, truth)
            figure = ratios.ratio_by_round(by_round(baseline[:rounds]), by_round(treatment[:rounds]), seed=trial)
            method, low, high = figure.method, math.log(figure.low or math.nan), math.log(figure.high or math.nan)
            paired.append(low <= truth <= high)
            bootstrap.append(percentile_bootstrap(random, figure.logs, truth))
            low_apart, high_apart = unpaired(baseline[:rounds], treatment[:rounds])
            wider.append((high_apart - low_apart) / (high - low))
            low_late, high_late = unpaired(baseline[:rounds], treatment[rounds:])
            in_turn.append(low_late <= truth <= high_late)
        yield counted(what, f"paired by round, {method}", paired, (0.93, 0.97))
        yield counted(what, "percentile bootstrap over rounds", bootstrap)
        yield counted(what, "one arm after the other, two-sample t", in_turn)
        yield Line(what, "not paired, two-sample t", None, None, note=f"{np.median(wider):.1f}x as wide as paired")


def two_samples(trials: int) -> Iterator[Line]:
    """Cover the ratio of two results, whose rounds are not pairs, with equal and unequal numbers of rounds."""
    random, truth = np.random.default_rng(SEED + 6), 1.3
    for rounds in ((3, 3), (5, 5), (10, 10), (10, 3)):
        inside = []
        for _ in range(trials):
            logs = [random.normal(0.0, spread, count) for count, spread in zip(rounds, (0.03, 0.09), strict=True)]
            arms = [{number: [math.exp(log)] for number, log in enumerate(arm)} for arm in logs]
            figure = ratios.ratio_of_samples(arms[0], {number: [one[0] / truth] for number, one in arms[1].items()})
            inside.append((figure.low or math.inf) <= truth <= (figure.high or 0.0))
        yield counted(f"two results, {rounds[0]} and {rounds[1]} rounds", "two samples, Welch", inside, (0.93, 0.97))


def skewed_rounds(trials: int) -> Iterator[Line]:
    """Cover 20 rounds whose log ratios have a long tail, by the method of kvbench and by two others."""
    random, rounds = np.random.default_rng(SEED + 4), 20
    chosen, plain, bootstrap = [], [], []
    for trial in range(trials):
        logs = tuple(random.exponential(0.1, rounds).tolist())
        low, high, _ = ratios.log_interval(logs, seed=trial)
        chosen.append(low <= 0.1 <= high)
        error = float(np.std(logs, ddof=1)) / math.sqrt(rounds)
        plain.append(abs(float(np.mean(logs)) - 0.1) <= intervals.t_quantile(rounds - 1, 0.95) * error)
        bootstrap.append(percentile_bootstrap(random, logs, 0.1))
    what = f"ratio over {rounds} skewed rounds"
    yield counted(what, "bootstrap-t", chosen, (0.93, 0.97))
    yield counted(what, "t", plain)
    yield counted(what, "percentile bootstrap over rounds", bootstrap)


def equivalence(trials: int) -> Iterator[Line]:
    """Count how often "equivalent within 5 %" is said of arms that differ by exactly 5 %."""
    random = np.random.default_rng(SEED + 5)
    for rounds in (3, 5, 10, 20):
        logs = random.normal(math.log(1.05), 0.02, (trials, rounds)).tolist()
        said = [ratios.equivalent(ratios.figure_of(one)).shown for one in logs]
        yield counted(f"5 % apart, {rounds} rounds", "called equivalent within 5 %", said, (None, 0.05))


def drifting_arms(random: np.random.Generator, rounds: int, log_ratio: float) -> tuple[Array, Array]:
    """Draw five times for each arm and each of twice as many rounds; a random walk and a trend move both arms alike."""
    drift = np.cumsum(random.normal(0.0, 0.1, 2 * rounds)) + np.linspace(0.0, 0.5, 2 * rounds)
    own = random.normal(0.0, 0.05, (2, 2 * rounds))  # what a round does to one arm alone
    logs = random.normal(0.0, 0.2, (2, 2 * rounds, 5)) + (drift + own)[:, :, None]
    return np.exp(logs[0] + log_ratio), np.exp(logs[1])


def by_round(arm: Array) -> dict[int, list[float]]:
    """Return an arm as `ratio_by_round` takes it."""
    return dict(enumerate(arm.tolist()))


def percentile_bootstrap(random: np.random.Generator, logs: tuple[float, ...], truth: float) -> bool:
    """Say whether the common bootstrap interval over rounds contains the truth."""
    array = np.array(logs)
    means = array[random.integers(0, len(array), (999, len(array)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return bool(low <= truth <= high)


def unpaired(baseline: Array, treatment: Array) -> tuple[float, float]:
    """Return the two-sample t interval of the log ratio, from the medians of each arm's rounds."""
    logs = [np.log(np.median(arm, axis=1)) for arm in (baseline, treatment)]
    rounds, middle = len(logs[0]), float(logs[0].mean() - logs[1].mean())
    error = math.sqrt(sum(float(log.var(ddof=1)) for log in logs) / rounds)
    reach = intervals.t_quantile(2 * rounds - 2, 0.95) * error
    return middle - reach, middle + reach


def autocorrelated(trials: int) -> Iterator[Line]:
    """Cover means and medians of AR(1) times within conversations, with requests and with conversations as the unit."""
    random = np.random.default_rng(SEED + 2)
    units = np.repeat(np.arange(CONVERSATIONS), TURNS).tolist()
    for phi in (0.3, 0.6, 0.9):
        times = [1 + 0.2 * ar1(random, phi).ravel() for _ in range(trials)]
        what = f"{CONVERSATIONS} x {TURNS} turns, AR(1) {phi}"
        each = list(range(CONVERSATIONS * TURNS))
        naive = [intervals.mean_by_unit(values.tolist(), each) for values in times]
        yield counted(f"mean of {what}", "naive, requests independent", holds(naive))
        fair = [intervals.mean_by_unit(values.tolist(), units) for values in times]
        yield counted(f"mean of {what}", "by conversation", holds(fair), (0.93, 0.97))
        order = [intervals.percentile_interval(values.tolist(), 50) for values in times]
        yield counted(f"median of {what}", "naive, order statistics", holds(order))
        middle = [intervals.median_by_unit(values.tolist(), units) for values in times]
        yield counted(f"median of {what}", "by conversation", holds(middle), (0.93, 0.97))
        reduced = [intervals.percentile_interval(intervals.by_unit(values.tolist(), units), 50) for values in times]
        yield counted(f"median of {what}", "by_unit, then order statistics", holds(reduced), (0.93, None))


def ar1(random: np.random.Generator, phi: float) -> Array:
    """Draw conversations whose turns are each correlated with the one before; mean and median 0, variance 1."""
    turns = np.empty((CONVERSATIONS, TURNS))
    turns[:, 0] = random.normal(size=CONVERSATIONS)
    for turn in range(1, TURNS):
        turns[:, turn] = phi * turns[:, turn - 1] + math.sqrt(1 - phi**2) * random.normal(size=CONVERSATIONS)
    return turns


def holds(figures: list[intervals.CentreFigure] | list[intervals.PercentileFigure]) -> list[bool]:
    """Say for each interval whether it contains 1; none may be refused."""
    return [f.low is not None and f.high is not None and f.low <= 1 <= f.high for f in figures]


def rank_tests(trials: int) -> Iterator[Line]:
    """Cover P(a < b) of two normal arms, and count false alarms of the exact test."""
    random = np.random.default_rng(SEED + 3)
    for n in (5, 16):
        for shift in (0.0, 1.0, 2.5):
            truth = NormalDist().cdf(shift / math.sqrt(2))
            arms = [(random.normal(0, 1, n).tolist(), random.normal(shift, 1, n).tolist()) for _ in range(trials)]
            figures = [rank_test.rank_test(a, b) for a, b in arms]
            inside = [figure.low <= truth <= figure.high for figure in figures]
            yield counted(f"P(a < b) = {truth:.2f}, {n} and {n}", "ranks, Newcombe's method 5", inside, (0.93, None))
            if shift == 0:
                alarms = [figure.p_value <= 0.05 for figure in figures]
                yield counted(f"equal arms, {n} and {n}: p <= 0.05", "exact Mann-Whitney", alarms, (None, 0.05))


if __name__ == "__main__":
    sys.exit(main())
