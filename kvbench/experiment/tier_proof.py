"""Decides which tier served a request, from its answer and the server's counters. Reads and writes nothing.

Sources are `usage.prompt_tokens_details.cached_tokens`, the hit and compute counters, the bytes that each tier says it
read, and the bytes that the kernel says the process read. Sources that disagree, or are missing, give `unproven`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvbench.units import format_size

if TYPE_CHECKING:
    from kvbench.result.records import Response, Tier
    from kvbench.scenario.models import CacheTier
    from kvbench.scenario.plan import Draw
    from kvbench.testbed.servers.counters import Counters

BYTES_TOLERANCE = 0.01
_FILE_OVERHEAD_BYTES = 16 * 1024  # header and padding of a file that holds one block
_STRAY_READ_BYTES = 512 * 1024  # a process may page in code and directory blocks of its own


@dataclass(frozen=True, slots=True)
class Blocks:
    """The block arithmetic of a server: tokens per hash block, KV bytes per token, and its directory tier's name.

    `kv_bytes_per_token` is None where the server does not tell it; then bytes are only seen to move. `path_tier` is the
    directory tier that is warm, else the slowest one: the one whose manifest is known.
    """

    tokens: int
    kv_bytes_per_token: float | None
    path_tier: CacheTier | None

    def cacheable(self, tokens: int) -> int:
        """Return how many of a prompt's tokens can come from a cache: whole blocks, and at least one is computed."""
        return (tokens - 1) // self.tokens * self.tokens

    def readable(self, held_bytes: int, prompts: int = 1) -> tuple[float, float]:
        """Return the least and the most bytes that a full hit reads of files of `held_bytes`, for so many prompts."""
        last_block = prompts * (self.tokens * (self.kv_bytes_per_token or 0) + _FILE_OVERHEAD_BYTES)
        return held_bytes * (1 - BYTES_TOLERANCE) - last_block, held_bytes * (1 + BYTES_TOLERANCE)

    def expected(self, tokens: int, reported: int | None) -> int:
        """Return how many cached tokens a full hit shows.

        An engine that loads all blocks of a block-aligned prompt and then computes its last token once more reports
        the whole prompt as cached (vLLM's offloading does); that is a full hit, not more than one.
        """
        return tokens if reported == tokens and tokens % self.tokens == 0 else self.cacheable(tokens)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a primed tier holds: its files by name, and the file bytes that belong to each text.

    `primed_by` is "itself" where the server that is measured wrote them, else "another". `answers` are the
    canaries' computed answers, by text: one token each.
    """

    tier: str
    files: dict[str, int]
    text_bytes: dict[str, int]
    primed_by: str = "itself"
    answers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Served:
    """A response and what the server's counters did meanwhile."""

    response: Response
    delta: Counters


def file_bytes(manifest: Manifest | None, draw: Draw) -> int | None:
    """Return the file bytes that a tier holds for a draw's text, None where no manifest tells."""
    return None if manifest is None else manifest.text_bytes.get(draw.text_key)


def judge(blocks: Blocks, served: Served, held_bytes: int | None) -> tuple[Tier, str]:
    """Say which tier served a request that ran alone between two scrapes, and by what evidence.

    `held_bytes` is what the tier's manifest holds for this text. Sources: `usage`, the hit and compute counters, bytes
    read by the tier, bytes read by the process. Sources that disagree, or are missing, give `unproven`.
    """
    response, delta = served.response, served.delta
    cached = response.cached_tokens
    if response.status != "ok":
        return "unproven", f"the request ended as {response.status}"
    if cached is None:
        return "unproven", "usage does not report cached tokens"
    if delta.local_hits is None:
        return "unproven", "the server has no hit counters"
    hits = delta.local_hits + (delta.external_hits or 0)
    if hits != cached:
        return "unproven", f"usage says {cached} cached tokens, the counters say {hits:.0f}"
    if (
        response.isl is not None
        and delta.computed_tokens is not None
        and delta.computed_tokens != response.isl - cached
    ):
        return (
            "unproven",
            f"{response.isl - cached} tokens were to be computed, the counter says {delta.computed_tokens:.0f}",
        )
    if delta.computed_tokens is None and delta.prefix_queries is not None and not delta.prefix_queries:
        return "unproven", "the look-up counter did not move"
    if cached == 0:
        return _judge_miss(blocks, served)
    if delta.local_hits == cached:
        return _judge_g1(delta, cached)
    if delta.local_hits:
        return "mixed", f"{delta.local_hits:.0f} tokens from g1 and {delta.external_hits:.0f} from slower tiers"
    return _judge_offloaded(blocks, served, cached, held_bytes)


def _judge_miss(blocks: Blocks, served: Served) -> tuple[Tier, str]:
    moved = sum(served.delta.read_bytes.values())
    if moved:
        return "unproven", f"no hit, yet tiers read {format_size(moved)}"
    device = served.delta.device_bytes()
    stray = None if device is None else device[0]
    half = (served.response.isl or 0) * (blocks.kv_bytes_per_token or 0) / 2
    if stray is not None and stray > min(_STRAY_READ_BYTES, half or _STRAY_READ_BYTES):
        return "unproven", f"no hit, yet the process read {format_size(stray)}"
    return "recompute", "0 cached tokens, 0 hits, 0 bytes read"


def _judge_g1(delta: Counters, cached: int) -> tuple[Tier, str]:
    moved = sum(delta.read_bytes.values())
    if moved:
        return "unproven", f"all {cached} tokens hit in g1, yet tiers read {format_size(moved)}"
    return "g1", f"{cached} cached tokens = g1 hits, 0 bytes read"


def _judge_offloaded(blocks: Blocks, served: Served, cached: int, held_bytes: int | None) -> tuple[Tier, str]:
    """Tell g2, g3 and g4 apart by whose bytes moved, and hold the bytes against what the hits need."""
    delta = served.delta
    moved = moved_by_tier(blocks, delta)
    if len(moved) > 1:
        return "mixed", f"{cached} tokens, read from {', '.join(sorted(moved))}"
    if not moved:
        return judge_memory(blocks, delta, cached)
    if delta.host_tokens:
        return _judge_half_in_memory(blocks, delta, cached, sum(moved.values()))
    label, count = next(iter(moved.items()))
    tier = tier_of(label, blocks.path_tier)
    if tier is None:
        return "unproven", f"{cached} tokens read from a tier labelled {label!r}, which the scenario does not name"
    full = cached >= blocks.cacheable(served.response.isl or 0)
    known_bytes = held_bytes if tier == blocks.path_tier else None  # other tiers cut their files elsewhere
    problem = _bytes_problem(blocks, cached, count, known_bytes, full=full)
    if problem:
        return "unproven", problem
    if device_disagrees(delta, count):
        return "unproven", f"the tier counts {format_size(count)} read, {kernel_reads_text(delta)}"
    device = delta.process_read_bytes
    counted = f"{count:,.0f} bytes read by {tier}" + ("" if device is None else f" = {device:,.0f} by /proc/PID/io")
    counted += f" without {delta.moved_bytes:,.0f} moved between tiers" if delta.moved_bytes else ""
    read = counted if delta.read_bytes else f"{count:,.0f} bytes read by /proc/PID/io"
    evidence = f"{cached} cached tokens = external hits, {read}"
    if served.response.isl is not None and cached < blocks.cacheable(served.response.isl) - blocks.tokens:
        return "mixed", f"{evidence}; {served.response.isl - cached} tokens computed"
    return tier, evidence


def moved_by_tier(blocks: Blocks, delta: Counters, requests: int = 1) -> dict[str, float]:
    """Return the bytes that moved, by the label of their tier.

    For an engine without read counters, what its processes read from devices stands for them, with no label.
    """
    device = delta.process_read_bytes
    if delta.read_bytes or device is None or not blocks.kv_bytes_per_token:
        return {label: count for label, count in delta.read_bytes.items() if count}
    return {"": float(device)} if device > requests * _STRAY_READ_BYTES else {}


def device_disagrees(delta: Counters, count: float) -> bool:
    """Tell whether a process read less than its tier says (the page cache served it), or far more."""
    device = delta.device_bytes()
    if device is None:
        return False
    spare = BYTES_TOLERANCE * count
    return device[1] < count - spare or device[0] > count + max(spare, _STRAY_READ_BYTES)


def kernel_reads_text(delta: Counters) -> str:
    """Say what the kernel counts for the process, and how much of it moved files down."""
    moved = f", {format_size(delta.moved_bytes)} of it to move files down" if delta.moved_bytes else ""
    return f"the process read {format_size(delta.process_read_bytes or 0)} from devices{moved}"


def _judge_half_in_memory(blocks: Blocks, delta: Counters, cached: int, moved: float) -> tuple[Tier, str]:
    """Judge hits of which host memory served a part: files must have been read for the rest."""
    rest = cached - (delta.host_tokens or 0)
    if rest > 0 and moved < rest * (blocks.kv_bytes_per_token or 0) * (1 - BYTES_TOLERANCE):
        return "unproven", f"read {format_size(moved)}, the {rest:,.0f} tokens that are not from host memory need more"
    return "mixed", f"{delta.host_tokens:,.0f} tokens from host memory, {rest:,.0f} from files"


def judge_memory(blocks: Blocks, delta: Counters, cached: int) -> tuple[Tier, str]:
    """Judge hits below G1 that moved no bytes: host memory, if that can be told from files in the page cache."""
    device, seen_bytes = delta.process_read_bytes, delta.device_bytes()
    needed = cached * (blocks.kv_bytes_per_token or 0)
    silent = seen_bytes is not None and seen_bytes[0] <= min(_STRAY_READ_BYTES, needed / 2 or _STRAY_READ_BYTES)
    if delta.read_bytes and silent:
        return "g2", f"{cached} cached tokens = external hits, no tier read any byte, nor did the process"
    if delta.host_tokens == cached and (silent or device is None):
        seen = "" if device is None else f", {device:,.0f} bytes read by /proc/PID/io"
        return "g2", f"{cached} cached tokens = external hits = tokens from host memory{seen}"
    return "unproven", f"{cached} tokens hit below g1, and no counter tells from where"


def tier_of(label: str, path_tier: CacheTier | None) -> Tier | None:
    """Map a server's tier label to ours: kvbench's are the same words, vLLM's name is the scenario's directory tier."""
    if label == "g2":
        return "g2"
    if label == "g3":
        return "g3"
    if label == "g4":
        return "g4"
    return path_tier


def _bytes_problem(blocks: Blocks, cached: int, count: float, held_bytes: int | None, *, full: bool) -> str | None:
    """Hold bytes read against the tier's own files where the whole prompt hit, else against the block arithmetic.

    A prompt's last block is stored but never read when its length is a multiple of the block's: at least one token is
    computed.
    """
    if held_bytes is None and blocks.kv_bytes_per_token is None:
        return f"read {format_size(count)}, but how many bytes a token takes is not known"
    if held_bytes is not None and full:
        least, most = blocks.readable(held_bytes)
        if not least <= count <= most:
            return f"read {format_size(count)}, the files of this prompt are {format_size(held_bytes)}"
    needed = cached * (blocks.kv_bytes_per_token or 0)
    if count < needed * (1 - BYTES_TOLERANCE):
        return f"read {format_size(count)}, the hits need {format_size(needed)}"
    return None
