"""The books of a whole run: what must agree, and what they say of requests that ran side by side. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvbench.proof import (
    BYTES_TOLERANCE,
    device_disagrees,
    file_bytes,
    judge_memory,
    moved_by_tier,
    tier_of,
    told_by_kernel,
)
from kvbench.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvbench.plan import Draw
    from kvbench.proof import Blocks, Manifest
    from kvbench.records import Response, Tier
    from kvbench.servers.endpoint import Counters


@dataclass(frozen=True, slots=True)
class Ledger:
    """The books of a run's measured requests: what the answers claim, what the counters say, what should have been.

    All in tokens and bytes; None where there is no source. `closes` is the verdict on tokens and bytes together.
    `memory_tokens` are the hits that read no file: those in G1 and in host memory. `process_read_bytes` is without
    `moved_bytes`, which were read to move files to a slower tier. `bad_files` and `write_errors` are the server's own
    counts of tier files that were not as written, or could not be written.
    """

    requests: int
    prompt_tokens: int
    cached_tokens: int | None
    expected_cached_tokens: int
    counter_hits: float | None
    counter_computed: float | None
    read_bytes: dict[str, float]
    process_read_bytes: int | None
    expected_read_bytes: int | None
    hit_efficiency: float | None
    closes: bool
    gap: str | None
    memory_tokens: float | None = None
    moved_bytes: float | None = None
    bad_files: float | None = None
    write_errors: float | None = None
    counter_tier_tokens: dict[str, float] = field(default_factory=dict)
    told_tier_tokens: dict[str, int] = field(default_factory=dict)

    @property
    def splits_close(self) -> bool:
        """Whether what the answers say of their tiers adds up to what the counters say, tier by tier."""
        counted = {tier: count for tier, count in self.counter_tier_tokens.items() if count}
        return self.closes and bool(counted) and counted == self.told_tier_tokens


def close_ledger(
    blocks: Blocks,
    responses: Iterable[tuple[Draw, Response]],
    delta: Counters,
    manifest: Manifest | None,
    *,
    warm: bool,
) -> Ledger:
    """Add up a run: hit tokens of all answers = counters, bytes read = files of the prompts that were asked for."""
    pairs = [(draw, response) for draw, response in responses if response.status == "ok"]
    reported = [response.cached_tokens for _, response in pairs]
    cached = None if any(value is None for value in reported) else sum(value or 0 for value in reported)
    expected = sum(blocks.expected(draw.isl_target, one.cached_tokens) for draw, one in pairs) if warm else 0
    hits = None if delta.local_hits is None else delta.local_hits + (delta.external_hits or 0)
    memory = None if delta.local_hits is None else delta.local_hits + (delta.host_tokens or 0)
    wanted = [file_bytes(manifest, draw) for draw, _ in pairs] if warm else [0]
    expected_bytes = None if any(size is None for size in wanted) else sum(size or 0 for size in wanted)
    others = {"g3", "g4"} - {blocks.path_tier}
    promoted = bool(memory) or bool(others & set(moved_by_tier(blocks, delta, len(pairs))))
    known_bytes = expected_bytes if cached == expected and not promoted else None
    gap = _ledger_gap(blocks, [one for _, one in pairs], delta, known_bytes)
    return Ledger(
        requests=len(pairs),
        prompt_tokens=sum(response.isl or 0 for _, response in pairs),
        cached_tokens=cached,
        expected_cached_tokens=expected,
        counter_hits=hits,
        counter_computed=delta.computed_tokens,
        read_bytes=delta.read_bytes,
        process_read_bytes=_served_by_devices(delta),
        expected_read_bytes=expected_bytes,
        hit_efficiency=cached / expected if cached is not None and expected else None,
        closes=gap is None,
        gap=gap,
        memory_tokens=memory,
        moved_bytes=delta.moved_bytes,
        bad_files=delta.bad_files,
        write_errors=delta.write_errors,
        counter_tier_tokens=delta.tier_tokens,
        told_tier_tokens=_told_tier_tokens([one for _, one in pairs]),
    )


def _served_by_devices(delta: Counters) -> int | None:
    read = delta.process_read_bytes
    return None if read is None else max(0, read - int(delta.moved_bytes or 0))


def _told_tier_tokens(responses: list[Response]) -> dict[str, int]:
    """Add up what the answers say of where their cached tokens came from; only kvbench's emulator tells it."""
    told: dict[str, int] = {}
    for response in responses:
        for tier, tokens in (response.server.get("tier_tokens") or {}).items():
            told[tier] = told.get(tier, 0) + tokens
    return told


def _ledger_gap(blocks: Blocks, responses: list[Response], delta: Counters, expected_bytes: int | None) -> str | None:
    """Name the first place where the books of a run do not agree; None if they do."""
    cached = sum(one.cached_tokens or 0 for one in responses)
    computed = sum(one.isl or 0 for one in responses) - cached
    moved = sum(moved_by_tier(blocks, delta, len(responses)).values())
    needed = ((delta.external_hits or 0) - (delta.host_tokens or 0)) * (blocks.kv_bytes_per_token or 0)
    if any(one.cached_tokens is None for one in responses):
        return "answers do not report cached tokens"
    if delta.local_hits is None:
        return "the server has no hit counters"
    if delta.local_hits + (delta.external_hits or 0) != cached:
        counted = delta.local_hits + (delta.external_hits or 0)
        return f"answers claim {cached:,} cached tokens, counters {counted:,.0f}"
    if delta.computed_tokens is not None and delta.computed_tokens != computed:
        return f"{computed:,} tokens were to be computed, the counter says {delta.computed_tokens:,.0f}"
    if moved and not delta.external_hits:
        return f"no hit below g1, yet tiers read {format_size(moved)}"
    if moved and moved < needed * (1 - BYTES_TOLERANCE):
        return f"tiers read {format_size(moved)}, the hits need {format_size(needed)}"
    if moved and device_disagrees(delta, moved):
        return f"tiers count {format_size(moved)} read, {told_by_kernel(delta)}"
    if expected_bytes and moved:
        least, most = blocks.readable(expected_bytes, len(responses))
        if not least <= moved <= most:
            return f"tiers read {format_size(moved)}, the prompts' files are {format_size(expected_bytes)}"
    return None


def judge_by_ledger(blocks: Blocks, response: Response, ledger: Ledger, delta: Counters) -> tuple[Tier, str]:
    """Say which tier served one of many concurrent requests.

    A tier is named only if exactly one tier's counters moved in the run and the run's ledger closes. Hits that moved no
    bytes came from host memory, if that can be told from files in the page cache. Where several tiers served hits, an
    answer's own word on its tiers is taken if all answers' words add up to the counters, tier by tier.
    """
    if response.status != "ok":
        return "unproven", f"the request ended as {response.status}"
    if response.cached_tokens is None or not ledger.closes:
        return "unproven", ledger.gap or "usage does not report cached tokens"
    if response.cached_tokens == 0:
        return "recompute", "0 cached tokens, and the run's ledger closes"
    moved = list(moved_by_tier(blocks, delta, ledger.requests))
    if moved and blocks.kv_bytes_per_token is None and not ledger.expected_read_bytes:
        return "unproven", "how many bytes a token takes is not known"
    if delta.local_hits and not delta.external_hits and not moved:
        return "g1", f"{response.cached_tokens} cached tokens; only g1 served hits in this run"
    if not delta.local_hits and not delta.host_tokens and len(moved) == 1:
        tier = tier_of(moved[0], blocks.path_tier)
        if tier is not None:
            return tier, f"{response.cached_tokens} cached tokens; only {tier} was read in this run"
    if not delta.local_hits and not moved and ledger.cached_tokens:
        tier, evidence = judge_memory(blocks, delta, ledger.cached_tokens)
        return tier, f"{response.cached_tokens} cached tokens; in the whole run {evidence}"
    return _judge_by_split(response, ledger)


def _judge_by_split(response: Response, ledger: Ledger) -> tuple[Tier, str]:
    """Take an answer's own word on its tiers, if the words of all answers add up to the counters of each tier."""
    split: dict[str, int] = response.server.get("tier_tokens") or {}
    if not ledger.splits_close or sum(split.values()) != response.cached_tokens:
        return "unproven", f"{response.cached_tokens} cached tokens, but several tiers served hits in this run"
    sums = ", ".join(f"{tier} {tokens:,}" for tier, tokens in sorted(ledger.told_tier_tokens.items()))
    own = " and ".join(f"{tokens:,} tokens from {tier}" for tier, tokens in sorted(split.items()))
    tier = tier_of(next(iter(split)), None) if len(split) == 1 and "g1" not in split else None
    found: Tier = "mixed" if len(split) > 1 else "g1" if "g1" in split else tier or "unproven"
    return found, f"{own}; all answers' words add up to the counters of each tier: {sums}"
