"""`/metrics`: vLLM's names and labels, and kvbench's own for what vLLM does not say.

Every series exists from the start, at 0. Hits count blocks that were really loaded, after their checksum, and
`kvbench:tier_read_bytes` counts bytes of files, which with O_DIRECT is what the kernel counts for this process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from kvbench.emulator.blocks import BLOCK_TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from kvbench.emulator.counts import Histogram, InstanceCounts
    from kvbench.emulator.engine import Engine
    from kvbench.emulator.instance import Instance
    from kvbench.emulator.tiers import FileTier

_ENGINE_LABELS = ["engine", "model_name"]

_COUNTERS: tuple[tuple[str, str, Callable[[InstanceCounts], int]], ...] = (
    ("prefix_cache_queries", "Prompt tokens looked up in G1.", lambda c: c.local_queries),
    ("prefix_cache_hits", "Prompt tokens found in G1.", lambda c: c.local_hits),
    ("external_prefix_cache_queries", "Prompt tokens looked up in the tiers below G1.", lambda c: c.external_queries),
    ("external_prefix_cache_hits", "Prompt tokens loaded from the tiers below G1.", lambda c: c.external_hits),
    ("prompt_tokens", "Prompt tokens of requests whose prefill ended.", lambda c: c.prompt_tokens),
    ("prompt_tokens_cached", "Prompt tokens that were not computed.", lambda c: c.local_tokens + c.external_tokens),
    ("generation_tokens", "Tokens generated.", lambda c: c.generation_tokens),
    ("kv_offload_load_bytes", "KV bytes of blocks loaded into G1.", lambda c: c.load_bytes),
)
_SOURCES: tuple[tuple[str, Callable[[InstanceCounts], int]], ...] = (
    ("local_compute", lambda c: c.computed_tokens),
    ("local_cache_hit", lambda c: c.local_tokens),
    ("external_kv_transfer", lambda c: c.external_tokens),
)
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

    def __init__(self, engine: Engine, model: str) -> None:
        """Show this engine under the name that it serves."""
        self._engine = engine
        self._model = model

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield from self._instance_metrics()
        yield from self._histograms()
        yield from _tier_levels(self._engine)
        if self._engine.g4:
            yield from _file_tier_metrics(self._engine.g4)
            yield from self._offload_metrics(self._engine.g4)

    def _labels(self, index: int) -> list[str]:
        return [str(index), self._model]

    def _instance_metrics(self) -> Iterator[Metric]:
        instances = self._engine.instances
        for name, text, read in _COUNTERS:
            counter = CounterMetricFamily(f"vllm:{name}", text, labels=_ENGINE_LABELS)
            for index, instance in enumerate(instances):
                counter.add_metric(self._labels(index), read(instance.counts))
            yield counter
        source = CounterMetricFamily(
            "vllm:prompt_tokens_by_source", "Prompt tokens by source.", labels=[*_ENGINE_LABELS, "source"]
        )
        success = CounterMetricFamily(
            "vllm:request_success", "Requests by how they ended.", labels=[*_ENGINE_LABELS, "finished_reason"]
        )
        for index, instance in enumerate(instances):
            for label, read in _SOURCES:
                source.add_metric([*self._labels(index), label], read(instance.counts))
            for reason, count in instance.counts.finished.items():
                success.add_metric([*self._labels(index), reason], count)
        yield from (source, success)
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

    def _offload_metrics(self, g4: FileTier) -> Iterator[Metric]:
        load_bytes = sum(instance.counts.load_bytes for instance in self._engine.instances)
        read = CounterMetricFamily(
            "vllm:kv_offload_tiering_read_bytes",
            "KV bytes of blocks loaded from a tier, without header and padding.",
            labels=[*_ENGINE_LABELS, "tier"],
        )
        read.add_metric([*self._labels(0), g4.name], load_bytes)
        store = CounterMetricFamily(
            "vllm:kv_offload_store_bytes", "KV bytes of blocks written to tiers.", labels=_ENGINE_LABELS
        )
        store.add_metric(self._labels(0), g4.counts.kv_write_bytes)
        yield from (read, store)


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
    used.add_metric(["g1"], engine.g1_used_bytes)
    capacity.add_metric(["g1"], engine.limits.g1_bytes * engine.limits.instances)
    if engine.g4:
        used.add_metric([engine.g4.name], engine.g4.used_bytes)
        capacity.add_metric([engine.g4.name], engine.g4.capacity_bytes)
    yield from (used, capacity)


def _file_tier_metrics(tier: FileTier) -> Iterator[Metric]:
    counts = tier.counts
    for name, text, value in (
        ("tier_read_bytes", "File bytes read to serve requests, with header and padding.", counts.read_bytes),
        ("tier_read_files", "Files read and found good.", counts.read_files),
        ("tier_write_bytes", "File bytes written, with header and padding.", counts.write_bytes),
        ("tier_write_files", "Files written.", counts.write_files),
        ("tier_scan_bytes", "Header bytes read to rebuild the index.", counts.scan_bytes),
        ("tier_evicted_files", "Files deleted to make room.", counts.evicted_files),
    ):
        counter = CounterMetricFamily(f"kvbench:{name}", text, labels=["tier"])
        counter.add_metric([tier.name], value)
        yield counter
    for name, text, by_reason in (
        ("tier_bad_files", "Files that were missing or not as written; each is a miss.", counts.bad_files),
        ("tier_write_errors", "Files that could not be written.", counts.write_errors),
    ):
        counter = CounterMetricFamily(f"kvbench:{name}", text, labels=["tier", "reason"])
        for reason, count in by_reason.items():
            counter.add_metric([tier.name, reason], count)
        yield counter
    pending = GaugeMetricFamily("kvbench:tier_pending_writes", "Files waiting to be written.", labels=["tier"])
    pending.add_metric([tier.name], tier.pending_writes)
    yield pending


def render(engine: Engine, model: str) -> bytes:
    """Return all metrics in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(EngineMetrics(engine, model))
    return generate_latest(registry)
