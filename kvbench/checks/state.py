"""Was it what was asked for: the cache state and its proof, every request, its length, its tier, its answer."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from kvbench.checks.repeated_prompts import not_first_touches
from kvbench.checks.verdict import Reason, named_tier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.checks.verdict import Asked, Level
    from kvbench.records import Row

MOST_LIVE_GROWTH, TEMPLATE_TOKENS = 0.05, 16
_ASIDE = ("prove cold", "reset, external tiers too")


def check_state(run: dict[str, Any], measured: list[Row], asked: Asked) -> Iterator[Reason]:
    """Hold a run against what it should have been."""
    answered = [row for row in measured if row.status == "ok"]
    yield from _check_steps(run["cache"])
    yield from _check_failures(measured, asked)
    yield from _check_lengths(answered, asked)
    yield from _check_tiers(run, answered, not_first_touches(measured))
    yield from _check_ledger(run)
    yield from _check_tier_files(run["ledger"])
    if asked.check_answers:
        yield from _check_answers(answered)
    yield from _check_model(run["server"]["model"], measured)


def _check_steps(cache: dict[str, Any]) -> Iterator[Reason]:
    """A failed step means another state than the one asked for."""
    for step in cache["steps"]:
        told = f"{step['name']}: {step['evidence']}"
        if step["outcome"] == "failed":
            remedy = "Find out why the server did not reach the state; its log is in the run's folder."
            yield Reason("invalid", "cache state", told, remedy)
        elif step["outcome"] == "not established":
            # A warm tier need not have been empty before: its canaries and the new texts show what it holds now.
            level: Level = "note" if cache["state"].startswith("warm") and step["name"] in _ASIDE else "suspect"
            remedy = "Give kvbench the metrics URL, the pid and the tier's path, so that it can be shown."
            yield Reason(level, "cache state", told, remedy)


def _check_failures(measured: list[Row], asked: Asked) -> Iterator[Reason]:
    """Failures never enter latency figures and are never hidden."""
    if len(measured) != asked.requests:
        text = f"{len(measured)} requests were measured, {asked.requests} were planned"
        yield Reason("invalid", "requests missing", text, "Run the scenario again.")
    causes = Counter(row.status for row in measured if row.status != "ok")
    if causes.total():
        counted = ", ".join(f"{count} {status}" for status, count in causes.most_common())
        level: Level = "invalid" if causes.total() > asked.max_fail else "note"
        text = f"{causes.total()} of {len(measured)} requests failed: {counted}"
        yield Reason(level, "failures", text, "Look at the server's log.")


def _check_lengths(answered: list[Row], asked: Asked) -> Iterator[Reason]:
    """The server's own count of tokens is held against the length that was asked for."""
    silent = sum(row.ttft_s is None for row in answered)
    if silent:
        text = f"{silent} of {len(answered)} answers held no token, so they have no TTFT"
        yield Reason("suspect", "no token", text, "Use a model and a prompt that give an answer.")
    unknown = sum(row.isl is None for row in answered)
    if unknown:
        text = f"the server reported no prompt tokens for {unknown} of {len(answered)} requests"
        yield Reason("suspect", "prompt length", text, "Use a server that honours stream_options.include_usage.")
    wrong = [row for row in answered if _has_wrong_length(row, asked)]
    if wrong:
        text = f"{len(wrong)} prompts had another length than planned, such as {wrong[0].isl} for {wrong[0].isl_target}"
        remedy = "Use prompts.form: token_ids, or a server with a /tokenize route."
        yield Reason("invalid", "prompt length", text, remedy)
    short = [row for row in answered if row.osl is not None and row.osl != asked.output_tokens]
    if short:
        text = f"{len(short)} answers had another length than the {asked.output_tokens} tokens that were asked for"
        yield Reason("suspect", "answer length", text, "Use a server that honours ignore_eos.")


def _has_wrong_length(row: Row, asked: Asked) -> bool:
    """Tell whether a prompt was longer or shorter than planned.

    A live answer comes back as other tokens than it went, and in a template: later turns have some room for that.
    """
    if row.isl is None or row.isl == row.isl_target:
        return False
    planned = row.isl_target or 0
    spare = max(MOST_LIVE_GROWTH * planned, TEMPLATE_TOKENS * row.turn) if asked.has_live_history else 0
    return abs(row.isl - planned) > spare * bool(row.turn)


def faster_tiers(run: dict[str, Any]) -> set[str]:
    """Return the tiers into which a request's blocks are promoted from the warm one: what the server has above it.

    A server that does not tell its tiers may have any of them, and has GPU memory.
    """
    told, wanted = (run["server"].get("info") or {}).get("tiers"), named_tier(run["cache"]["state"])
    names = [name for name in ("g1", "g2", "g3", "g4") if name < wanted] if wanted != "recompute" else []
    return {name for name in names if told is None or (told.get(name) or {}).get("capacity_bytes")}


def _check_tiers(run: dict[str, Any], answered: list[Row], known: set[str]) -> Iterator[Reason]:
    """Each request must have been served by the tier that the treatment names.

    What a run has put into a cache itself may be served from anywhere: from an empty start prompts that it sent before
    (`known`), and the beginnings of later turns. Where the warm tier has faster ones above it, a prompt's first request
    promotes its blocks into them, so later ones may be served from there.
    """
    state, faster = run["cache"]["state"], faster_tiers(run)
    wanted = named_tier(state)
    promoted = [row for row in answered if row.request_id in known and row.tier in {*faster, "mixed"} and faster]
    free = {row.request_id for row in promoted}
    if state == "cold":
        free |= {row.request_id for row in answered if row.request_id in known}
    if state != "off":
        free |= {row.request_id for row in answered if row.turn}
    free -= {row.request_id for row in answered if row.tier in (None, "unproven")}
    if promoted:
        counted = ", ".join(f"{count} {tier}" for tier, count in Counter(row.tier for row in promoted).most_common())
        text = f"{len(promoted)} of {len(answered)} requests repeated a prompt and found it promoted: {counted}"
        yield Reason(
            "note", "promoted", text, f"Give {', '.join(sorted(faster))} no capacity, or send each prompt once."
        )
    others = Counter(row.tier or "unproven" for row in answered if row.tier != wanted and row.request_id not in free)
    for tier, count in others.items():
        bound = [row for row in answered if row.request_id not in free]
        example = next(row for row in bound if (row.tier or "unproven") == tier)
        text = f"{count} of {len(answered)} requests were {tier}, not {wanted}: {example.tier_evidence}"
        if tier == "unproven":
            remedy = "Find the source that disagrees or is missing; docs/protocol.md lists them."
            yield Reason("suspect", "tier unproven", text, remedy)
        else:
            remedy = "The cache was not in its state: look at the steps in run.json."
            yield Reason("invalid", "another tier", text, remedy)


def _check_ledger(run: dict[str, Any]) -> Iterator[Reason]:
    """The books of a run must close, and a warm tier must have served all that the block arithmetic allows."""
    ledger = run["ledger"]
    if ledger["gap"]:
        text = f"the ledger does not close: {ledger['gap']}"
        yield Reason("suspect", "ledger", text, "Nobody else may use the server meanwhile.")
    expected, cached = ledger["expected_cached_tokens"], ledger["cached_tokens"]
    slack = run["blocks"]["tokens"] * ledger["requests"]
    if expected and cached is not None and cached < expected - slack:
        text = f"hit efficiency {cached / expected:.3f}: {cached:,} of {expected:,} tokens came from the cache"
        remedy = "Raise the tier's capacity, or look for evictions and bad files in metrics/after.prom."
        yield Reason("invalid", "hit efficiency", text, remedy)


def _check_tier_files(ledger: dict[str, Any]) -> Iterator[Reason]:
    """A tier that loses what it is given is not the tier that was asked for, however few requests show it.

    In a run from an empty cache no hit is expected, so a missing one tells nothing: only the server's own counts do.
    """
    if bad := ledger.get("bad_files"):
        text = f"{bad:.0f} tier files that the server looked for were missing or not as written"
        yield Reason(
            "suspect", "tier files", text, "Look at the storage, and for somebody else who deletes files there."
        )
    if lost := ledger.get("write_errors"):
        text = f"{lost:.0f} files could not be written into a tier"
        yield Reason("suspect", "tier files", text, "Free some space there, or look at the storage; then run it again.")


def _check_answers(answered: list[Row]) -> Iterator[Reason]:
    """A wrong KV cache may be as fast as a right one: only the answers tell."""
    wrong = [row for row in answered if row.answers_match is False]
    if wrong:
        text = f"{len(wrong)} of {len(answered)} answers differ from the recomputed ones, first {wrong[0].prompt_id}"
        yield Reason("invalid", "answers", text, "The KV cache holds wrong values: look for corrupt tier files.")
    unknown = sum(row.answers_match is None for row in answered)
    if unknown:
        text = f"{unknown} of {len(answered)} answers have no recomputed answer to be compared with"
        yield Reason("suspect", "answers", text, "Let the treatment with cache: off run too.")


def _check_model(model: str, measured: list[Row]) -> Iterator[Reason]:
    others = {row.model for row in measured if row.model not in (None, model)}
    if others:
        text = f"{', '.join(sorted(map(str, others)))} answered instead of {model}"
        remedy = "Name the model that the endpoint serves, in server.external.model."
        yield Reason("invalid", "another model", text, remedy)
