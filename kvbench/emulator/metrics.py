"""`/metrics`: vLLM's names and labels, and kvbench's own for what vLLM does not say.

Every series exists from the start, at 0. Hits count blocks that were really loaded, after their checksum, and
`kvbench:tier_read_bytes` counts bytes of files, which with O_DIRECT is what the kernel counts for this process. Bytes
copied from and to host memory (G2) therefore have names of their own, `kvbench:memory_*`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from kvbench.emulator.blocks import BLOCK_TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from kvbench.emulator.counts import Histogram, InstanceCounts, TierCounts
    from kvbench.emulator.engine import Engine
    from kvbench.emulator.hierarchy import Hierarchy
    from kvbench.emulator.instance import Instance
    from kvbench.emulator.tiers import FileTier

_ENGINE_LABELS = ["engine", "model_name"]

_COUNTERS: tuple[tuple[str, str, Callable[[InstanceCounts], int]], ...] = (
    ("prefix_cache_queries", "Prompt tokens looked up in G1.", lambda c: c.local_queries),
    ("prefix_cache_hits", "Prompt tokens found in G1.", lambda c: c.local_hits),
    ("external_prefix_cache_queries", "Prompt tokens looked up in the tiers below G1.", lambda c: c.external_queries),
    ("external_prefix_cache_hits", "Prompt tokens loaded from the tiers below G1.", lambda c: c.external_hits),
    ("prompt_tokens", "Prompt tokens of requests whose prefill ended.", lambda c: c.prompt_tokens),
    (
        "prompt_tokens_cached",
        "Prompt tokens that were not computed.",
        lambda c: c.local_tokens + sum(c.tier_tokens.values()),
    ),
    ("generation_tokens", "Tokens generated.", lambda c: c.generation_tokens),
    ("kv_offload_load_bytes", "KV bytes of blocks loaded into G1.", lambda c: c.load_bytes),
)
_SOURCES: tuple[tuple[str, Callable[[InstanceCounts], int]], ...] = (
    ("local_compute", lambda c: c.computed_tokens),
    ("local_cache_hit", lambda c: c.local_tokens),
    ("external_kv_transfer", lambda c: sum(c.tier_tokens.values())),
)
_CACHED_SOURCES: tuple[tuple[str, Callable[[InstanceCounts], int]], ...] = (
    ("host", lambda c: c.tier_tokens["g2"]),
    ("disk", lambda c: c.tier_tokens["g3"] + c.tier_tokens["g4"]),
)
_LOOKED_UP = {
    "prefix_cache_hits": "prefix_cache_queries",
    "external_prefix_cache_hits": "external_prefix_cache_queries",
}
_GAUGES: tuple[tuple[str, str, Callable[[Instance], int]], ...] = (
    ("num_requests_running", "Requests that have been in a step.", lambda i: i.running),
    ("num_requests_waiting", "Requests that wait for their blocks or for a step.", lambda i: i.waiting),
)
_HISTOGRAMS: tuple[tuple[str, str, Callable[[InstanceCounts], Histogram]], ...] = (
    ("vllm:time_to_first_token_seconds", "Arrival to first token sent.", lambda c: c.ttft_s),
    ("vllm:e2e_request_latency_seconds", "Arrival to last token sent.", lambda c: c.latency_s),
    ("kvbench:emulator_overrun_seconds", "First token sent minus its modelled instant.", lambda c: c.overrun_s),
)


class EngineMetrics(Collector):
    """Reads the counts at each scrape; nothing is updated in between."""

    def __init__(self, engine: Engine, model: str, *, lookups_as_hits: bool = False) -> None:
        """Show this engine under the name that it serves; `lookups_as_hits` lies about what was found."""
        self._engine = engine
        self._model = model
        self._lookups_as_hits = lookups_as_hits

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield from self._instance_metrics()
        yield from self._histograms()
        yield from _tier_levels(self._engine)
        files = [tier for tier in self._engine.below.tiers if not tier.in_memory]
        if files:
            yield from _file_tier_metrics(files)
        yield from _all_tier_metrics(self._engine.below)
        yield from self._offload_metrics(files)

    def _labels(self, index: int) -> list[str]:
        return [str(index), self._model]

    def _instance_metrics(self) -> Iterator[Metric]:
        instances = self._engine.instances
        shown = {name: read for name, _, read in _COUNTERS}
        if self._lookups_as_hits:
            shown |= {hits: shown[queries] for hits, queries in _LOOKED_UP.items()}
        for name, text, _ in _COUNTERS:
            counter = CounterMetricFamily(f"vllm:{name}", text, labels=_ENGINE_LABELS)
            for index, instance in enumerate(instances):
                counter.add_metric(self._labels(index), shown[name](instance.counts))
            yield counter
        source = CounterMetricFamily(
            "vllm:prompt_tokens_by_source", "Prompt tokens by source.", labels=[*_ENGINE_LABELS, "source"]
        )
        cached = CounterMetricFamily(
            "vllm:prompt_tokens_cached_by_source",
            "Prompt tokens from the tiers below G1, by kind of tier.",
            labels=[*_ENGINE_LABELS, "source"],
        )
        success = CounterMetricFamily(
            "vllm:request_success", "Requests by how they ended.", labels=[*_ENGINE_LABELS, "finished_reason"]
        )
        for index, instance in enumerate(instances):
            for label, read in _SOURCES:
                source.add_metric([*self._labels(index), label], read(instance.counts))
            for label, read in _CACHED_SOURCES:
                cached.add_metric([*self._labels(index), label], read(instance.counts))
            for reason, count in instance.counts.finished.items():
                success.add_metric([*self._labels(index), reason], count)
        yield from (source, cached, success)
        for name, text, level in _GAUGES:
            gauge = GaugeMetricFamily(f"vllm:{name}", text, labels=_ENGINE_LABELS)
            for index, instance in enumerate(instances):
                gauge.add_metric(self._labels(index), level(instance))
            yield gauge
        yield self._cache_config()

    def _cache_config(self) -> Metric:
        labels = ["block_size", "enable_prefix_caching", *_ENGINE_LABELS]
        gauge = GaugeMetricFamily("vllm:cache_config_info", "How the cache is set up.", labels=labels)
        for index in range(len(self._engine.instances)):
            gauge.add_metric([str(BLOCK_TOKENS), str(self._engine.limits.cache), *self._labels(index)], 1)
        return gauge

    def _histograms(self) -> Iterator[Metric]:
        for name, text, read in _HISTOGRAMS:
            family = HistogramMetricFamily(name, text, labels=_ENGINE_LABELS)
            for index, instance in enumerate(self._engine.instances):
                histogram = read(instance.counts)
                family.add_metric(self._labels(index), _buckets(histogram), histogram.total)
            yield family

    def _offload_metrics(self, files: list[FileTier]) -> Iterator[Metric]:
        instances, below = self._engine.instances, self._engine.below
        if files:
            read = CounterMetricFamily(
                "vllm:kv_offload_tiering_read_bytes",
                "KV bytes of blocks loaded from a tier, without header and padding.",
                labels=[*_ENGINE_LABELS, "tier"],
            )
            for tier in files:
                tokens = sum(instance.counts.tier_tokens[tier.name] for instance in instances)
                read.add_metric([*self._labels(0), tier.name], tokens // BLOCK_TOKENS * tier.block_bytes)
            yield read
        if below.tiers:
            store = CounterMetricFamily(
                "vllm:kv_offload_store_bytes", "KV bytes of blocks written to tiers.", labels=_ENGINE_LABELS
            )
            store.add_metric(self._labels(0), sum(tier.counts.kv_write_bytes for tier in below.tiers))
            yield store


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return cumulative counts, as the format wants them."""
    bounds, total, buckets = [*map(str, histogram.bounds), "+Inf"], 0, []
    for bound, count in zip(bounds, histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


def _tier_levels(engine: Engine) -> Iterator[Metric]:
    used = GaugeMetricFamily("kvbench:tier_used_bytes", "Bytes held by a tier.", labels=["tier"])
    capacity = GaugeMetricFamily("kvbench:tier_capacity_bytes", "Bytes a tier may hold.", labels=["tier"])
    hits = CounterMetricFamily("kvbench:tier_hit_tokens", "Prompt tokens served by a tier.", labels=["tier"])
    used.add_metric(["g1"], engine.g1_used_bytes)
    capacity.add_metric(["g1"], engine.limits.g1_bytes * engine.limits.instances)
    hits.add_metric(["g1"], sum(instance.counts.local_tokens for instance in engine.instances))
    for tier in engine.below.tiers:
        used.add_metric([tier.name], tier.used_bytes)
        capacity.add_metric([tier.name], tier.capacity_bytes)
        hits.add_metric([tier.name], sum(instance.counts.tier_tokens[tier.name] for instance in engine.instances))
    yield from (used, capacity, hits)


_FILE_COUNTERS: tuple[tuple[str, str, Callable[[TierCounts], int]], ...] = (
    ("tier_read_bytes", "File bytes read to serve requests, with header and padding.", lambda c: c.read_bytes),
    ("tier_read_files", "Files read and found good.", lambda c: c.read_files),
    ("tier_write_bytes", "File bytes written, with header and padding.", lambda c: c.write_bytes),
    ("tier_write_files", "Files written.", lambda c: c.write_files),
    ("tier_scan_bytes", "Header bytes read to rebuild the index.", lambda c: c.scan_bytes),
)
_MEMORY_COUNTERS: tuple[tuple[str, str, Callable[[TierCounts], int]], ...] = (
    ("memory_read_bytes", "KV bytes copied out of host memory to serve requests.", lambda c: c.read_bytes),
    ("memory_write_bytes", "KV bytes copied into host memory.", lambda c: c.write_bytes),
)
_ALL_COUNTERS: tuple[tuple[str, str, Callable[[TierCounts], int]], ...] = (
    ("tier_evicted_files", "Files that made room: deleted, or moved to the tier below.", lambda c: c.evicted_files),
    ("tier_moved_bytes", "Bytes of evicted files that were read to move them down.", lambda c: c.moved_bytes),
    ("tier_skipped_files", "Files that found no room and went to slower tiers only.", lambda c: c.skipped_files),
)


def _counters(
    rows: Sequence[tuple[str, str, Callable[[TierCounts], int]]], tiers: Sequence[FileTier]
) -> Iterator[Metric]:
    for name, text, read in rows if tiers else ():
        counter = CounterMetricFamily(f"kvbench:{name}", text, labels=["tier"])
        for tier in tiers:
            counter.add_metric([tier.name], read(tier.counts))
        yield counter


def _file_tier_metrics(tiers: list[FileTier]) -> Iterator[Metric]:
    yield from _counters(_FILE_COUNTERS, tiers)
    for name, text, by_reason in (
        ("tier_bad_files", "Files that were missing or not as written; each is a miss.", "bad_files"),
        ("tier_write_errors", "Files that could not be written.", "write_errors"),
    ):
        counter = CounterMetricFamily(f"kvbench:{name}", text, labels=["tier", "reason"])
        for tier in tiers:
            for reason, count in getattr(tier.counts, by_reason).items():
                counter.add_metric([tier.name, reason], count)
        yield counter


def _all_tier_metrics(below: Hierarchy) -> Iterator[Metric]:
    yield from _counters(_MEMORY_COUNTERS, [tier for tier in below.tiers if tier.in_memory])
    yield from _counters(_ALL_COUNTERS, below.tiers)
    if below.tiers:
        pending = GaugeMetricFamily("kvbench:tier_pending_writes", "Files waiting to be written.", labels=["tier"])
        for tier in below.tiers:
            pending.add_metric([tier.name], tier.pending_writes + below.delayed_writes)
        yield pending
        moving = GaugeMetricFamily(
            "kvbench:tier_moving_bytes", "Bytes of evicted files on their way to the tier below.", labels=["tier"]
        )
        for tier in below.tiers:
            moving.add_metric([tier.name], tier.counts.moving_bytes)
        yield moving


def render(engine: Engine, model: str, *, lookups_as_hits: bool = False) -> bytes:
    """Return all metrics in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(EngineMetrics(engine, model, lookups_as_hits=lookups_as_hits))
    return generate_latest(registry)


def another_worker(page: bytes, elapsed_s: float) -> bytes:
    """Return a page of metrics as a worker with a traffic of its own would show it after so many seconds.

    Every counter of vLLM and every tier's bytes start somewhere and rise with time alone, by 1 to 1,000 a second.
    """
    return b"".join(_foreign(line, elapsed_s) for line in page.splitlines(keepends=True))


def _foreign(line: bytes, elapsed_s: float) -> bytes:
    series, _, _ = line.rpartition(b" ")
    name = series.partition(b"{")[0]
    moves = name.endswith(b"_total") and (name.startswith(b"vllm:") or name.endswith(b"_bytes_total"))
    if line.startswith(b"#") or not moves:
        return line
    seed = crc32(series)
    return series + f" {float(seed % 100_000 + int(elapsed_s * (seed % 1000 + 1)))}\n".encode()
