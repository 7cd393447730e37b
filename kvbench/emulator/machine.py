"""Settings made into parts that fit together: profile, GPU, tier directory, engine, faults."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kvbench import __version__
from kvbench.emulator import blocks
from kvbench.emulator.direct_io import ALIGN_BYTES, Access
from kvbench.emulator.engine import Engine, EngineLimits
from kvbench.emulator.faults import Faults
from kvbench.emulator.file_io import ThreadedFiles, claim, mark
from kvbench.emulator.files import Geometry
from kvbench.emulator.gpu import Gpu
from kvbench.emulator.pace import FixedPace
from kvbench.emulator.settings import load_profile
from kvbench.emulator.tiers import FileTier
from kvbench.errors import ServerError, StorageError
from kvbench.shapes import shape_of

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.emulator.direct_io import Probe
    from kvbench.emulator.file_io import Scan
    from kvbench.emulator.settings import EmulatorSettings, Profile

DRAIN_S = 5.0


@dataclass(frozen=True)
class TierDirectory:
    """The file tier with the directory that it lives in."""

    path: Path
    probe: Probe
    access: Access
    io: ThreadedFiles
    tier: FileTier


@dataclass(frozen=True)
class Machine:
    """One emulator, ready to be served; `scheduler` is the engine, or a fixed timetable in its place."""

    settings: EmulatorSettings
    profile: Profile
    model: str
    max_model_len: int
    kv_bytes_per_token: int
    gpu: Gpu
    geometry: Geometry
    engine: Engine
    scheduler: Engine | FixedPace
    directory: TierDirectory | None
    faults: Faults
    root: bytes

    @property
    def token_gap_s(self) -> float:
        """Seconds between two tokens of a request that is alone."""
        fixed = self.settings.fixed_latency_s is not None
        return self.settings.token_gap_s if fixed else self.gpu.decode_s(1)

    async def drain(self) -> bool:
        """Wait until all tier writes are done; False if that takes longer than `DRAIN_S`."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + DRAIN_S
        while self.directory and self.directory.tier.pending_writes:
            if loop.time() > end_s:
                return False
            await asyncio.sleep(0.005)
        return True

    async def reset(self, *, external: bool) -> bool:
        """Drop G1, and with `external` build the index of G4 again from its directory, as vLLM does.

        Files stay: whoever wants an empty G4 empties the directory first. False while requests hold blocks.
        """
        if "reset_keeps_blocks" in self.faults:
            return True
        if not self.engine.drop_memory():
            return False
        if external and self.directory:
            if not await self.drain():
                return False
            mark(self.directory.path)
            _adopt(self.directory.tier, await asyncio.to_thread(self.directory.io.scan))
        return True

    def info(self) -> dict[str, Any]:
        """Describe this emulator for `GET /kvbench/info`."""
        figures, geometry = self.gpu.figures, self.geometry
        return {
            "version": __version__,
            "pid": os.getpid(),
            "model": self.model,
            "cache": "on" if self.settings.cache else "off",
            "profile": self.profile.name,
            "scale": {"time": self.settings.time_scale, "bytes": self.settings.byte_scale},
            "block_tokens": blocks.BLOCK_TOKENS,
            "kv_bytes_per_token": self.kv_bytes_per_token,
            "max_model_len": self.max_model_len,
            "max_batched_tokens": self.settings.max_batched_tokens,
            "instances": self.settings.instances,
            "chat": {
                "tokens_per_message": blocks.CHAT_TOKENS_PER_MESSAGE,
                "tokens_per_prompt": blocks.CHAT_TOKENS_PER_PROMPT,
            },
            "file": {
                "blocks_per_file": geometry.blocks_per_file,
                "payload_bytes": geometry.blocks_per_file * geometry.block_bytes,
                "header_bytes": geometry.header_bytes(geometry.blocks_per_file),
                "file_bytes": geometry.max_file_bytes,
                "align_bytes": ALIGN_BYTES,
            },
            "gpu": {
                "a": figures.prefill_s_per_token,
                "b": figures.prefill_s_per_token2,
                "fixed_s": figures.onboard_fixed_s,
                "path_bandwidth": figures.path_bytes_per_s,
                "decode_base_s": figures.decode_base_s,
                "decode_per_sequence_s": figures.decode_per_sequence_s,
            },
            "fixed_latency_s": self.settings.fixed_latency_s,
            "token_gap_s": self.settings.token_gap_s,
            "tiers": self._tiers(),
            "faults": sorted(self.faults.names),
            "fault_every": self.faults.every,
        }

    def _tiers(self) -> dict[str, Any]:
        capacity_bytes = self.settings.g1_bytes * self.settings.instances
        tiers: dict[str, Any] = {"g1": {"capacity_bytes": capacity_bytes, "used_bytes": self.engine.g1_used_bytes}}
        if self.directory:
            tier, found = self.directory.tier, asdict(self.directory.probe)
            tiers["g4"] = {
                "path": str(self.directory.path),
                "capacity_bytes": tier.capacity_bytes,
                "used_bytes": tier.used_bytes,
                "files": tier.file_count,
                "pending_writes": tier.pending_writes,
                "direct": found.pop("status"),
                **found,
                "access": self.directory.access.value,
                "io_threads": self.settings.io_threads,
            }
        return tiers


def assemble(settings: EmulatorSettings, loop: asyncio.AbstractEventLoop) -> Machine:
    """Build everything that a server needs, and index what the tier directory already holds.

    Raises:
        ServerError: a setting, a profile or a model cannot be used.
        StorageError: the tier directory cannot be used.

    """
    settings.check()
    profile = load_profile(settings.profile)
    model = settings.model or profile.model
    try:
        shape = shape_of(model)
    except KeyError as error:
        raise ServerError(str(error.args[0]), "name a model whose KV shape is known with --model") from None
    kv_bytes, rest = divmod(shape.kv_bytes_per_token, settings.byte_scale)
    if rest or not kv_bytes:
        raise ServerError(
            f"--bytes {settings.byte_scale} does not divide the {shape.kv_bytes_per_token} KV bytes of a token",
            "use a power of two, e.g. 512",
        )
    gpu = Gpu(profile.figures, shape.kv_bytes_per_token, settings.time_scale)
    geometry = Geometry.for_payload(kv_bytes * blocks.BLOCK_TOKENS, settings.g4_payload_bytes)
    faults = Faults(frozenset(settings.faults), settings.fault_every)
    directory = _open_directory(settings, geometry, faults, loop)
    limits = EngineLimits(
        block_bytes=geometry.block_bytes,
        instances=settings.instances,
        max_batched_tokens=settings.max_batched_tokens,
        g1_bytes=settings.g1_bytes,
        cache=settings.cache,
    )
    engine = Engine(loop, gpu, directory.tier if directory else None, limits)
    scheduler: Engine | FixedPace = engine
    if settings.fixed_latency_s is not None:
        scheduler = FixedPace(loop, engine.instances[0], settings.fixed_latency_s, settings.token_gap_s)
    return Machine(
        settings=settings,
        profile=profile,
        model=model,
        max_model_len=settings.max_model_len or shape.max_context,
        kv_bytes_per_token=kv_bytes,
        gpu=gpu,
        geometry=geometry,
        engine=engine,
        scheduler=scheduler,
        directory=directory,
        faults=faults,
        root=blocks.chain_root(model, kv_bytes),
    )


def _open_directory(
    settings: EmulatorSettings, geometry: Geometry, faults: Faults, loop: asyncio.AbstractEventLoop
) -> TierDirectory | None:
    if settings.g4_path is None or settings.g4_capacity_bytes is None:
        return None
    found = claim(settings.g4_path, allow_tmpfs=settings.allow_tmpfs)
    path = settings.g4_path.resolve()
    access = Access.DROPPED if found.status == "refused" else Access.DIRECT
    if "page_cache" in faults:
        access = Access.CACHED
    io = ThreadedFiles(path, geometry, access, loop.call_soon_threadsafe, settings.io_threads)
    tier = FileTier(io, geometry, settings.g4_capacity_bytes)
    try:
        scan = io.scan()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}", "check its owner and mode") from error
    if "header" in scan.bad:
        raise StorageError(
            f"{path} holds files of another model, scale or file size",
            "start with the same --model, --bytes and --g4-payload, or empty the directory",
        )
    _adopt(tier, scan)
    return TierDirectory(path, found, access, io, tier)


def _adopt(tier: FileTier, scan: Scan) -> None:
    tier.adopt(scan.files)
    tier.counts.scan_bytes += scan.read_bytes
    for reason in scan.bad:
        tier.counts.bad_files[reason] += 1
