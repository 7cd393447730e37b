"""Reconciles a run's answers with the server's counters and bytes. Reads and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvbench.experiment.tier_proof import (
    BYTES_TOLERANCE,
    device_disagrees,
    file_bytes,
    judge_memory,
    kernel_reads_text,
    moved_by_tier,
    tier_of,
)
from kvbench.lenient_json import at
from kvbench.result.run_record import Ledger
from kvbench.result.run_time import load_window_ns
from kvbench.units import format_size

if TYPE_CHECKING:
    from kvbench.experiment.tier_proof import Blocks, Manifest
    from kvbench.result.records import Response, Row, Tier
    from kvbench.scenario.plan import Draw
    from kvbench.testbed.servers.counters import Counters


@dataclass
class RunSums:
    """Adds up the measured requests of a run as they end, so that none of them has to be kept.

    `manifest` tells the file bytes of a primed text, `warm` whether requests are to be served from a tier. Times are
    those of all requests, tokens and bytes those of the answered ones.
    """

    blocks: Blocks
    manifest: Manifest | None
    warm: bool
    requests: int = 0
    prompt_tokens: int = 0
    known_cached_tokens: int = 0
    unreported: int = 0
    expected_cached_tokens: int = 0
    expected_read_bytes: int | None = 0
    answer_tier_tokens: dict[str, int] = field(default_factory=dict)
    first_send_ns: int | None = None
    last_send_ns: int | None = None
    last_token_ns: int | None = None

    def add(self, draw: Draw, response: Response) -> None:
        """Take a request into the sums."""
        self.first_send_ns = min(_known(self.first_send_ns, response.sent_ns), default=None)
        self.last_send_ns = max(_known(self.last_send_ns, response.sent_ns), default=None)
        self.last_token_ns = max(_known(self.last_token_ns, response.last_token_ns), default=None)
        if response.status != "ok":
            return
        self.requests += 1
        self.prompt_tokens += response.isl or 0
        self.known_cached_tokens += response.cached_tokens or 0
        self.unreported += response.cached_tokens is None
        for tier, tokens in answer_tier_tokens(response).items():
            self.answer_tier_tokens[tier] = self.answer_tier_tokens.get(tier, 0) + tokens
        if self.warm:
            self.expected_cached_tokens += self.blocks.expected(draw.isl_target, response.cached_tokens)
            held, known = file_bytes(self.manifest, draw), self.expected_read_bytes
            self.expected_read_bytes = None if held is None or known is None else known + held

    @property
    def cached_tokens(self) -> int | None:
        """The cached tokens of all answers, None if one of them does not report any."""
        return None if self.unreported else self.known_cached_tokens

    @property
    def window_ns(self) -> tuple[int, int] | None:
        """The load window, of which `kvbench.result.run_time` has the definition; None where nothing was sent."""
        return load_window_ns(((self.first_send_ns, self.last_token_ns), (self.last_send_ns, None)))


def _known(*times_ns: int | None) -> list[int]:
    return [one for one in times_ns if one is not None]


def close_ledger(sums: RunSums, delta: Counters) -> Ledger:
    """Reconcile a run: hit tokens of all answers = counters, bytes read = files of the prompts that were asked for."""
    blocks, cached, expected = sums.blocks, sums.cached_tokens, sums.expected_cached_tokens
    hits = None if delta.local_hits is None else delta.local_hits + (delta.external_hits or 0)
    memory = None if delta.local_hits is None else delta.local_hits + (delta.host_tokens or 0)
    others = {"g3", "g4"} - {blocks.path_tier}
    promoted = bool(memory) or bool(others & set(moved_by_tier(blocks, delta, sums.requests)))
    known_bytes = sums.expected_read_bytes if cached == expected and not promoted else None
    gap = _ledger_gap(sums, delta, known_bytes)
    return Ledger(
        requests=sums.requests,
        prompt_tokens=sums.prompt_tokens,
        cached_tokens=cached,
        expected_cached_tokens=expected,
        counter_hits=hits,
        counter_computed=delta.computed_tokens,
        read_bytes=delta.read_bytes,
        process_read_bytes=_served_by_devices(delta),
        expected_read_bytes=sums.expected_read_bytes,
        hit_efficiency=cached / expected if cached is not None and expected else None,
        closes=gap is None,
        gap=gap,
        memory_tokens=memory,
        moved_bytes=delta.moved_bytes,
        bad_files=delta.bad_files,
        write_errors=delta.write_errors,
        counter_tier_tokens=delta.tier_tokens,
        answer_tier_tokens=sums.answer_tier_tokens,
    )


def answer_tier_tokens(response: Response) -> dict[str, int]:
    """Return what an answer says of where its cached tokens came from; only kvbench's emulator tells it."""
    told: dict[str, int] = at(response.server, "tier_tokens") or {}
    return told


def _served_by_devices(delta: Counters) -> int | None:
    read = delta.process_read_bytes
    return None if read is None else max(0, read - int(delta.moved_bytes or 0))


def _ledger_gap(sums: RunSums, delta: Counters, expected_bytes: int | None) -> str | None:
    """Name the first place where the sums of a run do not agree; None if they do."""
    blocks, cached = sums.blocks, sums.known_cached_tokens
    computed = sums.prompt_tokens - cached
    moved = sum(moved_by_tier(blocks, delta, sums.requests).values())
    needed = ((delta.external_hits or 0) - (delta.host_tokens or 0)) * (blocks.kv_bytes_per_token or 0)
    if sums.unreported:
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
        return f"tiers count {format_size(moved)} read, {kernel_reads_text(delta)}"
    if expected_bytes and moved:
        least, most = blocks.readable(expected_bytes, sums.requests)
        if not least <= moved <= most:
            return f"tiers read {format_size(moved)}, the prompts' files are {format_size(expected_bytes)}"
    return None


def judge_by_ledger(
    blocks: Blocks, answer: Row | Response, tier_tokens: dict[str, int], ledger: Ledger, delta: Counters
) -> tuple[Tier, str]:
    """Say which tier served one of many concurrent requests.

    A tier is named only if exactly one tier's counters moved in the run and the run's ledger closes. Hits that moved no
    bytes came from host memory, if that can be told from files in the page cache. Where several tiers served hits, an
    answer's own word on its tiers, `tier_tokens`, is taken if all answers' words add up to the counters, tier by tier.
    """
    if answer.status != "ok":
        return "unproven", f"the request ended as {answer.status}"
    if answer.cached_tokens is None or not ledger.closes:
        return "unproven", ledger.gap or "usage does not report cached tokens"
    if answer.cached_tokens == 0:
        return "recompute", "0 cached tokens, and the run's ledger closes"
    moved = list(moved_by_tier(blocks, delta, ledger.requests))
    if moved and blocks.kv_bytes_per_token is None and not ledger.expected_read_bytes:
        return "unproven", "how many bytes a token takes is not known"
    if delta.local_hits and not delta.external_hits and not moved:
        return "g1", f"{answer.cached_tokens} cached tokens; only g1 served hits in this run"
    if not delta.local_hits and not delta.host_tokens and len(moved) == 1:
        tier = tier_of(moved[0], blocks.path_tier)
        if tier is not None:
            return tier, f"{answer.cached_tokens} cached tokens; only {tier} was read in this run"
    if not delta.local_hits and not moved and ledger.cached_tokens:
        tier, evidence = judge_memory(blocks, delta, ledger.cached_tokens)
        return tier, f"{answer.cached_tokens} cached tokens; in the whole run {evidence}"
    return _judge_by_split(answer, tier_tokens, ledger)


def _judge_by_split(answer: Row | Response, split: dict[str, int], ledger: Ledger) -> tuple[Tier, str]:
    """Take an answer's own word on its tiers, if the words of all answers add up to the counters of each tier."""
    if not ledger.splits_close or sum(split.values()) != answer.cached_tokens:
        return "unproven", f"{answer.cached_tokens} cached tokens, but several tiers served hits in this run"
    sums = ", ".join(f"{tier} {tokens:,}" for tier, tokens in sorted(ledger.answer_tier_tokens.items()))
    own = " and ".join(f"{tokens:,} tokens from {tier}" for tier, tokens in sorted(split.items()))
    tier = tier_of(next(iter(split)), None) if len(split) == 1 and "g1" not in split else None
    found: Tier = "mixed" if len(split) > 1 else "g1" if "g1" in split else tier or "unproven"
    return found, f"{own}; all answers' words add up to the counters of each tier: {sums}"
