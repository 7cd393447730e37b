"""A server's counters of tokens and bytes by tier, read from its metrics page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# The parser strips `_total` from the family's name but not from the sample's; samples are what is read here.
_TOTALS = {
    "vllm:prefix_cache_queries_total": "prefix_queries",
    "vllm:prefix_cache_hits_total": "local_hits",
    "vllm:external_prefix_cache_hits_total": "external_hits",
    "kvbench:tier_bad_files_total": "bad_files",
    "kvbench:tier_pending_writes": "pending_writes",
    "kvbench:tier_write_errors_total": "write_errors",
}
_READ_BYTES = ("kvbench:tier_read_bytes_total", "vllm:kv_offload_tiering_read_bytes_total")
_WRITE_BYTES = (
    "kvbench:tier_write_bytes_total",
    "vllm:kv_offload_tiering_write_bytes_total",  # from 0.32
    "vllm:kv_offload_store_bytes_total",  # into host memory, the first step towards a file
)
_MOVES = ("kvbench:tier_moved_bytes_total", "kvbench:tier_moving_bytes")
_TIER_TOKENS = "kvbench:tier_hit_tokens_total"
_BY_TIER = (*_READ_BYTES, *_WRITE_BYTES, *_MOVES, _TIER_TOKENS)


@dataclass(frozen=True, slots=True)
class Counters:
    """What a server says it has done since it started, in tokens and bytes.

    `read_bytes` and `write_bytes` are per tier as the server labels them; empty where it does not count them.
    `host_tokens` are cached tokens that came from host memory (vLLM from 0.32), `tier_tokens` those of each tier below
    G1 where a server counts them so; `bad_files` counts tier files that were missing, cut or corrupt.
    `moved_bytes` are those of tier files that were read to move them to a slower tier, `moving_bytes` those of files on
    their way, at both ends of a difference; None where no tier on a device moves anything. `write_errors` are files
    that storage did not take, `refused_files` those for which the slowest tier's budget had no room.
    `process_read_bytes` is what the kernel says the server's process has read from block devices (/proc/PID/io), which
    page-cache hits do not move; None where the process is not ours to look at.
    """

    prefix_queries: float | None = None
    local_hits: float | None = None
    external_hits: float | None = None
    computed_tokens: float | None = None
    host_tokens: float | None = None
    bad_files: float | None = None
    pending_writes: float | None = None
    write_errors: float | None = None
    refused_files: float | None = None
    moved_bytes: float | None = None
    moving_bytes: float | None = None
    process_read_bytes: int | None = None
    read_bytes: dict[str, float] = field(default_factory=dict)
    write_bytes: dict[str, float] = field(default_factory=dict)
    tier_tokens: dict[str, float] = field(default_factory=dict)
    block_tokens: int | None = None
    text: str = ""

    def since(self, before: Counters) -> Counters:
        """Return what was added between two scrapes of the same server; gauges keep their newer value."""
        return Counters(
            prefix_queries=_minus(self.prefix_queries, before.prefix_queries),
            local_hits=_minus(self.local_hits, before.local_hits),
            external_hits=_minus(self.external_hits, before.external_hits),
            computed_tokens=_minus(self.computed_tokens, before.computed_tokens),
            host_tokens=_minus(self.host_tokens, before.host_tokens),
            bad_files=_minus(self.bad_files, before.bad_files),
            pending_writes=self.pending_writes,
            write_errors=_minus(self.write_errors, before.write_errors),
            refused_files=_minus(self.refused_files, before.refused_files),
            moved_bytes=_minus(self.moved_bytes, before.moved_bytes),
            moving_bytes=None if self.moving_bytes is None else self.moving_bytes + (before.moving_bytes or 0),
            process_read_bytes=_minus_int(self.process_read_bytes, before.process_read_bytes),
            read_bytes={tier: value - before.read_bytes.get(tier, 0) for tier, value in self.read_bytes.items()},
            write_bytes={tier: value - before.write_bytes.get(tier, 0) for tier, value in self.write_bytes.items()},
            tier_tokens={tier: value - before.tier_tokens.get(tier, 0) for tier, value in self.tier_tokens.items()},
            block_tokens=self.block_tokens,
        )

    def device_bytes(self) -> tuple[float, float] | None:
        """Return the least and the most that the process has read from devices for requests; None if it is not seen.

        Between two scrapes, files that move down are read too. What had moved is known; a file on its way at either
        scrape may have been read on this or on that side of it.
        """
        if self.process_read_bytes is None:
            return None
        served, moving = self.process_read_bytes - (self.moved_bytes or 0), self.moving_bytes or 0
        return served - moving, served + moving


def _minus(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _minus_int(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def parse_counters(text: str, process_read_bytes: int | None = None) -> Counters:
    """Read a page of Prometheus metrics; samples of several engines are added up.

    Raises:
        ValueError: the text is not in Prometheus format.

    """
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - brings a web server along

    sums: dict[str, float] = {}
    tiers: dict[str, dict[str, float]] = {name: {} for name in _BY_TIER}
    block_tokens: int | None = None
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name, labels, value = sample.name, sample.labels, sample.value
            if total := _total_of(name, labels):
                sums[total] = sums.get(total, 0) + value
            elif name in tiers:
                tiers[name][labels.get("tier", "")] = tiers[name].get(labels.get("tier", ""), 0) + value
            elif name == "vllm:cache_config_info" and labels.get("block_size", "").isdigit():
                block_tokens = int(labels["block_size"])
    on_device = tiers["kvbench:tier_read_bytes_total"]  # what moves out of host memory is read from no device
    moved, moving = ([size for tier, size in tiers[name].items() if tier in on_device] for name in _MOVES)
    return Counters(
        **sums,
        moved_bytes=sum(moved) if moved else None,
        moving_bytes=sum(moving) if moving else None,
        process_read_bytes=process_read_bytes,
        read_bytes=next((tiers[name] for name in _READ_BYTES if tiers[name]), {}),
        write_bytes=next((tiers[name] for name in _WRITE_BYTES if tiers[name]), {}),
        tier_tokens=tiers[_TIER_TOKENS],
        block_tokens=block_tokens,
        text=text,
    )


def _total_of(name: str, labels: Mapping[str, str]) -> str | None:
    """Return the total that a sample belongs to; of some metrics only one label's samples do."""
    if name == "kvbench:tier_write_errors_total" and labels.get("reason") == "capacity":
        return "refused_files"
    if name == "vllm:prompt_tokens_by_source_total" and labels.get("source") == "local_compute":
        return "computed_tokens"
    if name == "vllm:prompt_tokens_cached_by_source_total" and labels.get("source") == "host":
        return "host_tokens"
    return _TOTALS.get(name)
