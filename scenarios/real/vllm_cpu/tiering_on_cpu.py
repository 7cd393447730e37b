"""vLLM's own tiering manager and file tier on a host without a GPU.

vLLM refuses its offloading worker on CPUs. All that the worker does is to copy pages between the engine's KV cache and
the host tier, and on a CPU both are host memory. This spec brings its own worker for that copy and leaves everything
else, the manager, the file tier, their metrics and their decisions, to vLLM. Named in `kv_connector_extra_config` as
`spec_name: TieringOnCpu, spec_module_path: tiering_on_cpu`; written for vLLM 0.32. It runs inside vLLM and imports
nothing of kvbench.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.kv_offload.base import OffloadingWorker, TransferResult
from vllm.v1.kv_offload.cpu.shared_offload_region import SharedOffloadRegion
from vllm.v1.kv_offload.tiering.spec import TieringOffloadingSpec

if TYPE_CHECKING:
    import numpy as np


class PageCopies(OffloadingWorker):  # type: ignore[misc]  # vLLM is not there when types are checked
    """Copies pages at once, in the engine's own thread; one block of the engine is one chunk of the host tier."""

    def __init__(self, kv_caches: Any, region: SharedOffloadRegion) -> None:
        """Look at both sides of every tensor as rows of bytes, one row a block."""
        self._refs = kv_caches.group_data_refs
        self._region = region
        self._engine = [cache.tensor.view(torch.int8).view(-1, cache.page_size_bytes) for cache in kv_caches.tensors]
        self._host = [region.create_next_worker_view(cache.page_size_bytes) for cache in kv_caches.tensors]
        self._done: list[TransferResult] = []

    def submit_store(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        """Copy from the engine to the host tier."""
        return self._copy(job_id, src_spec, (self._engine, src_spec.block_ids), (self._host, dst_spec.block_ids))

    def submit_load(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        """Copy from the host tier to the engine."""
        return self._copy(job_id, dst_spec, (self._host, src_spec.block_ids), (self._engine, dst_spec.block_ids))

    def _copy(
        self,
        job_id: int,
        engine_spec: Any,
        source: tuple[list[torch.Tensor], np.ndarray[Any, Any]],
        target: tuple[list[torch.Tensor], np.ndarray[Any, Any]],
    ) -> bool:
        """Copy the blocks of every group; the block lists of all groups stand one after another."""
        started, moved, first = time.perf_counter(), 0, 0
        for group, count in enumerate(engine_spec.group_sizes):
            rows = slice(first, first + int(count))
            taken = torch.as_tensor(source[1][rows], dtype=torch.int64)
            put = torch.as_tensor(target[1][rows], dtype=torch.int64)
            for ref in self._refs[group] if count else ():
                page = ref.page_size_bytes
                target[0][ref.tensor_idx][put, :page] = source[0][ref.tensor_idx][taken, :page]
                moved += int(count) * page
            first += int(count)
        self._done.append(
            TransferResult(job_id, success=True, transfer_size=moved, transfer_time=time.perf_counter() - started)
        )
        return True

    def get_finished(self) -> list[TransferResult]:
        """Return the jobs that ended since the last call."""
        done, self._done = self._done, []
        return done

    def wait(self, job_ids: set[int]) -> None:
        """Return at once: a job is over when it was submitted."""

    def shutdown(self) -> None:
        """Let go of the host tier's memory."""
        self._engine.clear()
        self._host.clear()
        self._region.cleanup()


class TieringOnCpu(TieringOffloadingSpec):  # type: ignore[misc]
    """vLLM's tiering with a worker that a CPU can run."""

    def get_worker(self, kv_caches: Any) -> OffloadingWorker:
        """Return the one worker, made on first use."""
        if self._worker is None:
            if self.blocks_per_chunk != 1:
                raise ValueError("TieringOnCpu copies whole blocks: leave block_size out of kv_connector_extra_config")
            region = SharedOffloadRegion(
                engine_id=self._engine_id,
                num_chunks=self.num_chunks,
                rank=self.config.parallel.rank,
                kv_bytes_per_chunk=self.kv_bytes_per_chunk,
                cpu_page_size=self.cpu_page_size_per_worker,
            )
            self._worker = PageCopies(kv_caches, region)
        return self._worker
