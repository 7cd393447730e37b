"""Settings made into parts that fit together: profile, GPU, tiers, engine, faults."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from kvbench import __version__
from kvbench.emulator import blocks
from kvbench.emulator.blocks import KnownPrompts
from kvbench.emulator.direct_io import ALIGN_BYTES
from kvbench.emulator.directories import open_directories, open_host_memory
from kvbench.emulator.engine import Engine, EngineLimits
from kvbench.emulator.faults import Faults, store_rules
from kvbench.emulator.files import Geometry
from kvbench.emulator.gpu import Gpu
from kvbench.emulator.hierarchy import Hierarchy, StoreRules
from kvbench.emulator.pace import FixedPace
from kvbench.emulator.settings import load_profile
from kvbench.errors import ServerError
from kvbench.model_shapes import shape_of

if TYPE_CHECKING:
    from kvbench.emulator.directories import HostMemory, TierDirectory
    from kvbench.emulator.settings import EmulatorSettings, Profile
    from kvbench.typed_json import JsonObject

DRAIN_S = 5.0


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
    host: HostMemory | None
    directories: list[TierDirectory]
    faults: Faults
    root: bytes
    known_prompts: KnownPrompts = field(default_factory=KnownPrompts)

    @property
    def token_gap_s(self) -> float:
        """Seconds between two tokens of a request that is alone."""
        fixed = self.settings.fixed_latency_s is not None
        return self.settings.token_gap_s if fixed else self.gpu.decode_s(1)

    async def drain(self) -> bool:
        """Wait until all tier writes are done; False if that takes longer than `DRAIN_S`."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + DRAIN_S
        while self.engine.below.pending_writes:
            if loop.time() > end_s:
                return False
            await asyncio.sleep(0.005)
        return True

    async def reset(self, *, external: bool) -> bool:
        """Drop G1; with `external` G2 too, and build the index of G3 and G4 again from their directories, as vLLM does.

        Files stay: whoever wants an empty directory empties it first. False while requests hold blocks.
        """
        if "reset_keeps_blocks" in self.faults:
            return True
        if not self.engine.drop_memory():
            return False
        if not external or "reset_keeps_offload" in self.faults:
            return True
        if not await self.drain():
            return False
        if self.host:
            self.host.tier.drop()
        for directory in self.directories:
            directory.adopt(await asyncio.to_thread(directory.scan))
        return True

    def close(self) -> None:
        """Wait for what the tiers' threads still do, and end them."""
        if self.host:
            self.host.io.close()
        for directory in self.directories:
            directory.io.close()

    def info(self) -> JsonObject:
        """Describe this emulator for `GET /kvbench/info`."""
        figures, geometry = self.gpu.figures, self.geometry
        return {
            "version": __version__,
            "pid": os.getpid(),
            "model": self.model,
            "counts_words": True,
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
                "host_fixed_s": figures.host_fixed_s,
                "host_path_bandwidth": figures.host_path_bytes_per_s,
                "g3_path_bandwidth": figures.g3_path_bytes_per_s,
                "decode_base_s": figures.decode_base_s,
                "decode_per_sequence_s": figures.decode_per_sequence_s,
            },
            "fixed_latency_s": self.settings.fixed_latency_s,
            "token_gap_s": self.settings.token_gap_s,
            "tiers": self._tiers(),
            "store": asdict(rules_of(self.settings)),  # what was set: a fault that changes it does not say so
            "faults": [*sorted(self.faults.names)],
            "fault_every": self.faults.every,
        }

    def _tiers(self) -> JsonObject:
        capacity_bytes = self.settings.g1_bytes * self.settings.instances
        tiers: JsonObject = {"g1": {"capacity_bytes": capacity_bytes, "used_bytes": self.engine.g1_used_bytes}}
        if self.host:
            tiers["g2"] = self.host.info()
        for directory in self.directories:
            tiers[directory.tier.name] = {**directory.info(), "io_threads": self.settings.io_threads}
        return tiers


def rules_of(settings: EmulatorSettings) -> StoreRules:
    """Return the rules of storing that were set."""
    return StoreRules(settings.write_policy, settings.admit_after_hits, settings.write_delay_s)


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
        raise ServerError(str(error.args[0]), "Name a model whose KV shape is known with --model.") from None
    kv_bytes = _scaled_bytes(shape.kv_bytes_per_token, settings.byte_scale)
    gpu = Gpu(profile.figures, shape.kv_bytes_per_token, settings.time_scale)
    geometry = Geometry.for_payload(kv_bytes * blocks.BLOCK_TOKENS, settings.g4_payload_bytes)
    faults = Faults(frozenset(settings.faults), settings.fault_every)
    host, directories = open_host_memory(settings, geometry, loop), open_directories(settings, geometry, faults, loop)
    tiers = ([host.tier] if host else []) + [directory.tier for directory in directories]
    rules = store_rules(rules_of(settings), faults)
    limits = EngineLimits(
        block_bytes=geometry.block_bytes,
        instances=settings.instances,
        max_batched_tokens=settings.max_batched_tokens,
        g1_bytes=settings.g1_bytes,
        cache=settings.cache,
    )
    engine = Engine(loop, gpu, Hierarchy(loop, tiers, rules), limits)
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
        host=host,
        directories=directories,
        faults=faults,
        root=blocks.chain_root(model, kv_bytes),
    )


def _scaled_bytes(kv_bytes_per_token: int, scale: int) -> int:
    kv_bytes, rest = divmod(kv_bytes_per_token, scale)
    if rest or not kv_bytes:
        raise ServerError(
            f"--bytes {scale} does not divide the {kv_bytes_per_token} KV bytes of a token",
            "Use a power of two, e.g. 512.",
        )
    return kv_bytes
