"""Verdicts: is a run to be believed, and if not, why not and what to do.

Reads only what a run left in its folder. Each reason carries a remedy. `invalid`: what was measured is not what was
asked for. `suspect`: it may be, but that was not shown. `note`: worth knowing, changes nothing.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.records import Row

Level = Literal["note", "suspect", "invalid"]
VerdictWord = Literal["valid", "suspect", "invalid"]

MOST_UPPER_BOUNDS = 0.01
MOST_OVERRUN = 0.02
MOST_CLIENT_CPU = 0.8
MOST_SEND_LAG = 0.05
MOST_CLOCK_STEP_S = 0.01
MOST_CLIENT_ERROR = 0.05


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that was found, and what to do about it."""

    level: Level
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The word on a run, with its reasons."""

    word: VerdictWord
    reasons: tuple[Reason, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain JSON values."""
        return {"word": self.word, "reasons": [asdict(reason) for reason in self.reasons]}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run should have been: taken from the plan and the scenario.

    `client_error_s` is the p99 of the driver's calibrated error, or its maximum; None without a calibration.
    """

    requests: int
    output_tokens: int
    max_fail: int
    check_answers: bool = False
    client_error_s: float | None = None


def judge_run(run: dict[str, Any], rows: list[Row], asked: Asked) -> Verdict:
    """Judge one sealed run by its `run.json` and its rows."""
    measured = [row for row in rows if row.phase == "measure"]
    reasons = [
        *_check_state(run["cache"]),
        *_check_failures(measured, asked),
        *_check_lengths(measured, asked),
        *_check_tiers(run["cache"]["state"], measured),
        *_check_ledger(run),
        *_check_clock(run["driver"], measured),
        *_check_client_error(measured, asked.client_error_s),
        *_check_emulator(measured),
        *(_check_answers(measured) if asked.check_answers else ()),
        *_check_model(run["server"]["model"], measured),
    ]
    levels = {reason.level for reason in reasons}
    word: VerdictWord = "invalid" if "invalid" in levels else "suspect" if "suspect" in levels else "valid"
    return Verdict(word, tuple(reasons))


def judge_imported(tool: str, rows: list[Row]) -> Verdict:
    """Judge a run that another tool made: never `valid`; never `invalid`, because there is no plan to hold it to."""
    measured = [row for row in rows if row.phase == "measure"]
    text = f"measured by {tool} and imported: no cache state was controlled and no tier is proven"
    reasons = [Reason("suspect", text, "Run the load as a scenario of kvbench, which sets and proves the cache state.")]
    causes = Counter(row.status for row in measured if row.status != "ok")
    if causes.total():
        counted = ", ".join(f"{count} {status}" for status, count in causes.most_common())
        text = f"{causes.total()} of {len(measured)} requests failed: {counted}; nobody said how many may"
        reasons.append(Reason("suspect", text, "Look at the errors in source/ and at the server's log."))
    answered = [row for row in measured if row.status == "ok"]
    if silent := sum(row.ttft_s is None for row in answered):
        text = f"{silent} of {len(answered)} answers have no TTFT, so they enter no figure"
        reasons.append(Reason("suspect", text, "Export the result with streaming, and with every detail."))
    return Verdict("suspect", tuple(reasons))


def named_tier(state: str | None) -> str:
    """Return the tier that must serve a request in a cache state: the warm tier, else `recompute`."""
    words = str(state)
    return words.removeprefix("warm(").removesuffix(")") if words.startswith("warm(") else "recompute"


def worst(words: list[VerdictWord]) -> VerdictWord:
    """Return the worst of several verdicts; no run at all is invalid."""
    order: list[VerdictWord] = ["valid", "suspect", "invalid"]
    return max(words, key=order.index) if words else "invalid"


def _check_state(cache: dict[str, Any]) -> Iterator[Reason]:
    """A failed step means another state than the one asked for."""
    for step in cache["steps"]:
        told = f"{step['name']}: {step['evidence']}"
        if step["outcome"] == "failed":
            yield Reason(
                "invalid", told, "Find out why the server did not reach the state; its log is in the run's folder."
            )
        elif step["outcome"] == "not established":
            # A warm tier need not have been empty before: its canaries and the new texts show what it holds now.
            aside = cache["state"].startswith("warm") and step["name"] in ("prove cold", "reset, external tiers too")
            level: Level = "note" if aside else "suspect"
            yield Reason(
                level, told, "Give kvbench the metrics URL, the pid and the tier's path, so that it can be shown."
            )


def _check_failures(measured: list[Row], asked: Asked) -> Iterator[Reason]:
    """Failures never enter latency figures and are never hidden."""
    if len(measured) != asked.requests:
        text = f"{len(measured)} requests were measured, {asked.requests} were planned"
        yield Reason("invalid", text, "Run the scenario again.")
    causes = Counter(row.status for row in measured if row.status != "ok")
    if causes.total():
        counted = ", ".join(f"{count} {status}" for status, count in causes.most_common())
        level: Level = "invalid" if causes.total() > asked.max_fail else "note"
        yield Reason(
            level, f"{causes.total()} of {len(measured)} requests failed: {counted}", "Look at the server's log."
        )


def _check_lengths(measured: list[Row], asked: Asked) -> Iterator[Reason]:
    """The server's own count of tokens is held against the length that was asked for."""
    answered = [row for row in measured if row.status == "ok"]
    silent = sum(row.ttft_s is None for row in answered)
    if silent:
        text = f"{silent} of {len(answered)} answers held no token, so they have no TTFT"
        yield Reason("suspect", text, "Use a model and a prompt that give an answer.")
    unknown = sum(row.isl is None for row in answered)
    if unknown:
        text = f"the server reported no prompt tokens for {unknown} of {len(answered)} requests"
        yield Reason("suspect", text, "Use a server that honours stream_options.include_usage.")
    wrong = [row for row in answered if row.isl not in (None, row.isl_target)]
    if wrong:
        text = f"{len(wrong)} prompts had another length than planned, such as {wrong[0].isl} for {wrong[0].isl_target}"
        yield Reason("invalid", text, "Use prompts.form: token_ids, or a server with a /tokenize route.")
    short = [row for row in answered if row.osl is not None and row.osl != asked.output_tokens]
    if short:
        text = f"{len(short)} answers had another length than the {asked.output_tokens} tokens that were asked for"
        yield Reason("suspect", text, "Use a server that honours ignore_eos.")


def _check_tiers(state: str, measured: list[Row]) -> Iterator[Reason]:
    """Each request must have been served by the tier that the treatment names."""
    wanted = named_tier(state)
    answered = [row for row in measured if row.status == "ok"]
    others = Counter(row.tier or "unproven" for row in answered if row.tier != wanted)
    for tier, count in others.items():
        example = next(row for row in answered if (row.tier or "unproven") == tier)
        text = f"{count} of {len(answered)} requests were {tier}, not {wanted}: {example.tier_evidence}"
        if tier == "unproven":
            yield Reason("suspect", text, "Find the source that disagrees or is missing; docs/protocol.md lists them.")
        else:
            yield Reason("invalid", text, "The cache was not in its state: look at the steps in run.json.")


def _check_ledger(run: dict[str, Any]) -> Iterator[Reason]:
    """The books of a run must close, and a warm tier must have served all that the block arithmetic allows."""
    ledger = run["ledger"]
    if ledger["gap"]:
        yield Reason(
            "suspect", f"the ledger does not close: {ledger['gap']}", "Nobody else may use the server meanwhile."
        )
    expected, cached = ledger["expected_cached_tokens"], ledger["cached_tokens"]
    slack = run["blocks"]["tokens"] * ledger["requests"]
    if expected and cached is not None and cached < expected - slack:
        text = f"hit efficiency {cached / expected:.3f}: {cached:,} of {expected:,} tokens came from the cache"
        yield Reason(
            "invalid", text, "Raise the tier's capacity, or look for evictions and bad files in metrics/after.prom."
        )


def _check_clock(driver: dict[str, Any], measured: list[Row]) -> Iterator[Reason]:
    """The instrument is measured too."""
    timed = [row for row in measured if row.ttft_bound is not None]
    upper = sum(row.ttft_bound == "upper" for row in timed)
    if upper > MOST_UPPER_BOUNDS * max(len(timed), 1):
        text = f"{upper} of {len(timed)} first tokens have only an upper bound"
        yield Reason("suspect", text, "Give the client more processor time, or a slower stream of tokens.")
    if driver.get("stamps") != "kernel":
        yield Reason("note", "times are from the user clock: no kernel stamps here", "Run the client on Linux.")
    if driver.get("out_of_order"):
        text = f"{driver['out_of_order']} requests left in another order than planned"
        yield Reason("suspect", text, "Use --driver native, or report the driver's version.")
    if abs(driver.get("clock_step_s", 0.0)) > MOST_CLOCK_STEP_S:
        text = f"the wall clock moved by {driver['clock_step_s']:.3f} s against the monotonic clock"
        yield Reason("suspect", text, "Stop stepping the clock during a run.")
    lags = sorted(row.send_lag_s / row.ttft_s for row in timed if row.send_lag_s is not None and row.ttft_s)
    if lags and (lag := lags[len(lags) // 2]) > MOST_SEND_LAG:
        text = f"half of the requests left later than scheduled by more than {lag:.1%} of their TTFT"
        yield Reason("suspect", text, "Give the client a core of its own, or lower the concurrency.")
    busy = driver.get("worker_cpu_s", driver.get("client_cpu_s", 0.0)) / max(driver.get("wall_s", 0.0), 1e-9)
    if busy > MOST_CLIENT_CPU:
        text = f"the client used {busy:.0%} of a core: it may have been the bottleneck"
        yield Reason("suspect", text, "Give the client a core of its own, or lower the concurrency.")


def _check_client_error(measured: list[Row], error_s: float | None) -> Iterator[Reason]:
    """The calibrated error is held against the smallest median TTFT of a prompt length.

    Only a note: the calibration was another load at another time, so it shows what the client can do to a figure, not
    what it did to this one.
    """
    times: dict[int | None, list[float]] = {}
    for row in measured:
        if row.status == "ok" and row.ttft_s is not None:
            times.setdefault(row.isl_target, []).append(row.ttft_s)
    if error_s is None or not times:
        return
    median_s = min(statistics.median(values) for values in times.values())
    if error_s > MOST_CLIENT_ERROR * median_s:
        text = f"the client's calibrated error, {error_s * 1e3:.3g} ms, is {error_s / median_s:.0%} of a median TTFT"
        yield Reason("note", text, "Use the native driver, or give the client a core of its own.")


def _check_emulator(measured: list[Row]) -> Iterator[Reason]:
    """Processor time of the emulator beyond what it models is not the storage's fault.

    The mean of each request's own share: a long recompute must not hide what happened to short requests.
    """
    shares = [row.server_overrun_s / row.ttft_s for row in measured if row.server_overrun_s is not None and row.ttft_s]
    if shares and (mean := sum(shares) / len(shares)) > MOST_OVERRUN:
        text = f"the emulator ran over by {mean:.1%} of TTFT, mean of {len(shares)} requests, at most {max(shares):.1%}"
        yield Reason("suspect", text, "Leave the machine alone meanwhile, or lower scale.time.")


def _check_answers(measured: list[Row]) -> Iterator[Reason]:
    """A wrong KV cache may be as fast as a right one: only the answers tell."""
    answered = [row for row in measured if row.status == "ok"]
    wrong = [row for row in answered if row.answers_match is False]
    if wrong:
        text = f"{len(wrong)} of {len(answered)} answers differ from the recomputed ones, first {wrong[0].prompt_id}"
        yield Reason("invalid", text, "The KV cache holds wrong values: look for corrupt tier files.")
    unknown = sum(row.answers_match is None for row in answered)
    if unknown:
        text = f"{unknown} of {len(answered)} answers have no recomputed answer to be compared with"
        yield Reason("suspect", text, "Let the treatment with cache: off run too.")


def _check_model(model: str, measured: list[Row]) -> Iterator[Reason]:
    others = {row.model for row in measured if row.model not in (None, model)}
    if others:
        text = f"{', '.join(sorted(map(str, others)))} answered instead of {model}"
        yield Reason("invalid", text, "Name the model that the endpoint serves, in server.external.model.")
