"""Rules on what was asked for: the cache state and its proof, every request, its length, its tier, its answer."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from kvbench.analysis.checks.expected import count, first
from kvbench.analysis.measured import counts
from kvbench.result.run_record import named_tier
from kvbench.result.verdict import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from kvbench.analysis.checks.expected import RunToJudge
    from kvbench.analysis.measured import Mask
    from kvbench.result.run_record import CacheRecord, Ledger, RunRecord
    from kvbench.result.verdict import Level

MOST_LIVE_GROWTH, TEMPLATE_TOKENS = 0.05, 16
_TIERS = ("g1", "g2", "g3", "g4")  # the fastest first
_NOT_NEEDED_WHEN_WARM = ("prove cold", "reset, external tiers too")


def check_cache_state(run: RunToJudge) -> Iterator[Reason]:
    """Hold a run against what it should have been."""
    yield from _check_steps(run.record.cache)
    yield from _check_failures(run)
    yield from _check_lengths(run)
    yield from _check_tiers(run)
    yield from _check_ledger(run.record)
    yield from _check_tier_files(run.record.ledger)
    if run.expected.check_answers:
        yield from _check_answers(run)
    yield from _check_model(run)


def _check_steps(cache: CacheRecord) -> Iterator[Reason]:
    """A failed step means another state than the one asked for."""
    for step in cache.steps:
        text = f"{step.name}: {step.evidence}"
        if step.outcome == "failed":
            remedy = "Find out why the server did not reach the state; its log is in the run's folder."
            yield Reason("invalid", "cache state", text, remedy)
        elif step.outcome == "not established":
            # A warm tier need not have been empty before: its canaries and the new texts show what it holds now.
            is_minor = cache.state.startswith("warm") and step.name in _NOT_NEEDED_WHEN_WARM
            remedy = "Give kvbench the metrics URL, the pid and the tier's path, so that it can be shown."
            yield Reason("note" if is_minor else "suspect", "cache state", text, remedy)


def _check_failures(run: RunToJudge) -> Iterator[Reason]:
    """Failures never enter latency figures and are never hidden."""
    measured, expected = run.measured, run.expected
    if len(measured) != expected.requests:
        text = f"{len(measured)} requests were measured, {expected.requests} were planned"
        yield Reason("invalid", "requests missing", text, "Run the scenario again.")
    causes = Counter(counts([measured["status"]]))
    del causes["ok"]
    if causes:
        by_cause = ", ".join(f"{number} {status}" for status, number in causes.most_common())
        level: Level = "invalid" if causes.total() > expected.max_fail else "note"
        text = f"{causes.total()} of {len(measured)} requests failed: {by_cause}"
        yield Reason(level, "failures", text, "Look at the server's log.")


def _check_lengths(run: RunToJudge) -> Iterator[Reason]:
    """The server's own count of tokens is held against the length that was asked for."""
    answered, wanted = count(run.is_answered), run.expected.output_tokens
    if silent := count(run.is_answered & np.isnan(run.ttft_s)):
        text = f"{silent} of {answered} answers held no token, so they have no TTFT"
        yield Reason("suspect", "no token", text, "Use a model and a prompt that give an answer.")
    if unknown := count(run.is_answered & ~run.is_known("isl")):
        text = f"the server reported no prompt tokens for {unknown} of {answered} requests"
        yield Reason("suspect", "prompt length", text, "Use a server that honours stream_options.include_usage.")
    is_wrong = run.is_answered & _has_wrong_length(run)
    if is_wrong.any():
        example = run.measured[["isl", "isl_target"]].iloc[first(is_wrong)]
        text = f"{count(is_wrong)} prompts had another length than planned, such as {example.iloc[0]}"
        remedy = "Use prompts.form: token_ids, or a server with a /tokenize route."
        yield Reason("invalid", "prompt length", f"{text} for {example.iloc[1]}", remedy)
    output_tokens = run.floats("osl")
    is_short = run.is_answered & ~np.isnan(output_tokens) & (output_tokens != wanted)
    if wanted is not None and is_short.any():
        text = f"{count(is_short)} answers had another length than the {wanted} tokens that were asked for"
        yield Reason("suspect", "answer length", text, "Use a server that honours ignore_eos.")


def _has_wrong_length(run: RunToJudge) -> Mask:
    """Tell which prompts were longer or shorter than planned.

    A live answer comes back as other tokens than it went, and in a template: later turns have some room for that.
    """
    tokens, planned = run.floats("isl"), np.nan_to_num(run.floats("isl_target"))
    difference = np.abs(tokens - planned)  # NaN, which is above nothing, where the server reported none
    if not run.expected.has_live_history:
        return difference > 0
    turn = np.nan_to_num(run.floats("turn"))
    spare = np.where(turn > 0, np.maximum(MOST_LIVE_GROWTH * planned, TEMPLATE_TOKENS * turn), 0.0)
    return difference > spare


def faster_tiers(record: RunRecord) -> set[str]:
    """Return the tiers into which a request's blocks are promoted from the warm one: what the server has above it.

    A server that does not tell its tiers may have any of them, and has GPU memory.
    """
    wanted, tiers = named_tier(record.cache.state), record.server.info.get("tiers")
    names = [name for name in _TIERS if name < wanted] if wanted != "recompute" else []
    return {name for name in names if not isinstance(tiers, dict) or _has_room(tiers.get(name))}


def _has_room(tier: JsonValue) -> bool:
    return isinstance(tier, dict) and bool(tier.get("capacity_bytes"))


def _check_tiers(run: RunToJudge) -> Iterator[Reason]:
    """Each request must have been served by the tier that the treatment names.

    What a run has put into a cache itself may be served from anywhere: from an empty start prompts that it sent before,
    and the beginnings of later turns. Where the warm tier has faster ones above it, a prompt's first request promotes
    its blocks into them, so later ones may be served from there.
    """
    state, faster = run.record.cache.state, faster_tiers(run.record)
    wanted, answered = named_tier(state), count(run.is_answered)
    is_repeat = run.is_answered & run.may_repeat
    is_promoted = is_repeat & run.is_tier(*faster, "mixed") & bool(faster)
    if is_promoted.any():
        by_tier = ", ".join(f"{number} {tier}" for tier, number in Counter(run.tiers(is_promoted)).most_common())
        text = f"{count(is_promoted)} of {answered} requests repeated a prompt and found it promoted: {by_tier}"
        remedy = f"Give {', '.join(sorted(faster))} no capacity, or send each prompt once."
        yield Reason("note", "promoted", text, remedy)
    is_free = is_promoted | is_repeat if state == "cold" else is_promoted
    if state != "off":
        is_free = is_free | (run.is_answered & (run.floats("turn") > 0))
    is_wrong = run.is_answered & ~run.is_tier(wanted) & ~(is_free & ~run.is_tier("unproven"))
    for tier, number in run.tiers(is_wrong).items():
        example = str(run.measured["request_id"].iloc[first(is_wrong & run.is_tier(tier))])
        text = f"{number} of {answered} requests were {tier}, not {wanted}: {run.evidence_of(example)}"
        if tier == "unproven":
            remedy = "Find the source that disagrees or is missing; docs/protocol.md lists them."
            yield Reason("suspect", "tier unproven", text, remedy)
        else:
            remedy = "The cache was not in its state: look at the steps in run.json."
            yield Reason("invalid", "another tier", text, remedy)


def _check_ledger(record: RunRecord) -> Iterator[Reason]:
    """The sums of a run must agree, and a warm tier must have served all that the block arithmetic allows."""
    ledger = record.ledger
    if ledger.gap:
        text = f"the ledger does not close: {ledger.gap}"
        yield Reason("suspect", "ledger", text, "Nobody else may use the server meanwhile.")
    expected, cached = ledger.expected_cached_tokens, ledger.cached_tokens
    slack = record.blocks.tokens * ledger.requests if record.blocks is not None else 0
    if expected and cached is not None and cached < expected - slack:
        text = f"hit efficiency {cached / expected:.3f}: {cached:,} of {expected:,} tokens came from the cache"
        remedy = "Raise the tier's capacity, or look for evictions and bad files in metrics/after.prom."
        yield Reason("invalid", "hit efficiency", text, remedy)


def _check_tier_files(ledger: Ledger) -> Iterator[Reason]:
    """A tier that loses what it is given is not the tier that was asked for, however few requests show it.

    In a run from an empty cache no hit is expected, so a missing one tells nothing: only the server's own counts do.
    """
    if bad := ledger.bad_files:
        text = f"{bad:.0f} tier files that the server looked for were missing or not as written"
        remedy = "Look at the storage, and for somebody else who deletes files there."
        yield Reason("suspect", "tier files", text, remedy)
    if lost := ledger.write_errors:
        text = f"{lost:.0f} files could not be written into a tier"
        yield Reason("suspect", "tier files", text, "Free some space there, or look at the storage; then run it again.")


def _check_answers(run: RunToJudge) -> Iterator[Reason]:
    """A wrong KV cache may be as fast as a right one: only the answers tell."""
    answered, matches = count(run.is_answered), run.floats("answers_match")
    is_wrong = run.is_answered & (matches == 0)
    if is_wrong.any():
        prompt = run.measured["prompt_id"].iloc[first(is_wrong)]
        text = f"{count(is_wrong)} of {answered} answers differ from the recomputed ones, first {prompt}"
        yield Reason("invalid", "answers", text, "The KV cache holds wrong values: look for corrupt tier files.")
    if unknown := count(run.is_answered & np.isnan(matches)):
        text = f"{unknown} of {answered} answers have no recomputed answer to be compared with"
        yield Reason("suspect", "answers", text, "Let the treatment with cache: off run too.")


def _check_model(run: RunToJudge) -> Iterator[Reason]:
    model = run.record.server.model
    others = {str(name) for name in run.measured["model"].dropna().unique()} - {model}
    if others:
        text = f"{', '.join(sorted(others))} answered instead of {model}"
        remedy = "Name the model that the endpoint serves, in server.external.model."
        yield Reason("invalid", "another model", text, remedy)
