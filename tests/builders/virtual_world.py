"""A clock that jumps and files that are only a formula: the engine on them is a simulator."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kvbench.emulator.blocks import HASH_BYTES, Prompt
from kvbench.emulator.engine import Engine, EngineLimits
from kvbench.emulator.files import Geometry
from kvbench.emulator.gpu import Gpu, GpuFigures
from kvbench.emulator.hierarchy import Hierarchy, StoreRules
from kvbench.emulator.instance import Generation
from kvbench.emulator.tier_file import FileRead, TierFile
from kvbench.emulator.tiers import FileTier
from tests.builders.hashing import hash_prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BLOCK_BYTES = 16 * 1000
ROUND_FIGURES = GpuFigures(
    prefill_s_per_token=1e-3,
    prefill_s_per_token2=0.0,
    onboard_fixed_s=0.5,
    path_bytes_per_s=1_000_000.0,  # with 1,000 bytes a token, 1 ms a token
    decode_base_s=0.1,
    decode_per_sequence_s=0.01,
    host_fixed_s=0.05,
    host_path_bytes_per_s=10_000_000.0,  # 0.1 ms a token
)


class VirtualClock:
    """Time is the instant of the call that is next due."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._order = itertools.count()
        self._calls: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []

    def time(self) -> float:
        return self._now_s

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        heapq.heappush(self._calls, (when, next(self._order), callback, args))

    def run(self) -> None:
        while self._calls:
            when, _, callback, args = heapq.heappop(self._calls)
            self._now_s = max(self._now_s, when)
            callback(*args)


class ModelledFiles:
    """Storage of one rate for reads, one file after another; `bad` files fail for the reason given.

    It holds what was written and says where somebody reads or moves what was not.
    """

    def __init__(self, clock: VirtualClock, bytes_per_s: float = 1e12, write_s: float = 0.0) -> None:
        self.clock = clock
        self.bytes_per_s = bytes_per_s
        self.write_s = write_s
        self.on_disk: dict[bytes, TierFile] = {}
        self.removed: list[TierFile] = []
        self.bad: dict[bytes, str] = {}
        self.read_files: list[TierFile] = []
        self.write_error: str | None = None
        self.never_written: list[TierFile] = []
        self.most_bytes = 0

    @property
    def used_bytes(self) -> int:
        return sum(file.size_bytes for file in self.on_disk.values())

    def read(self, files: Sequence[TierFile], done: Callable[[Sequence[FileRead]], None]) -> None:
        start_s = at_s = self.clock.time()
        reads = []
        for file in files:
            at_s += file.size_bytes / self.bytes_per_s
            self._must_hold(file)
            self.read_files.append(file)
            reads.append(FileRead(file, self.bad.get(file.key), file.size_bytes, start_s, at_s))
        self.clock.call_at(at_s, done, reads)

    def _must_hold(self, file: TierFile) -> None:
        held = self.on_disk.get(file.key)
        if held is None or held.hashes != file.hashes:
            self.never_written.append(file)

    def write(self, file: TierFile, done: Callable[[TierFile, str | None], None]) -> None:
        error = self.write_error
        if file.move:
            content = file.move.io.content(file.move.file)
            at = (file.start - file.move.file.start) * HASH_BYTES
            if isinstance(content, str):
                error = content
            else:
                assert bytes(content[at : at + len(file.hashes)]) == file.hashes
        self.clock.call_at(self.clock.time() + self.write_s, self._written, file, error, done)

    def _written(self, file: TierFile, error: str | None, done: Callable[[TierFile, str | None], None]) -> None:
        if error is None:
            self.on_disk[file.key] = file
            self.most_bytes = max(self.most_bytes, self.used_bytes)
        done(file, error)

    def remove(self, file: TierFile) -> None:
        self.removed.append(file)
        self.on_disk.pop(file.key, None)

    def content(self, file: TierFile) -> memoryview | str:
        self._must_hold(file)
        return memoryview(file.hashes) if file.key in self.on_disk else "missing"


class World:
    """An engine on virtual time, with what came out of it: for each generation the instants of its tokens."""

    def __init__(
        self,
        *,
        figures: GpuFigures = ROUND_FIGURES,
        storage_bytes_per_s: float = 1e12,
        capacity_bytes: int = 10**12,
        block_bytes: int = BLOCK_BYTES,
        faster: dict[str, int] | None = None,
        rules: StoreRules | None = None,
        write_s: float = 0.0,
        **limits: Any,
    ) -> None:
        """`faster` gives the bytes of g2 and g3, as far as they are there; G4 always is."""
        self.clock = VirtualClock()
        geometry = Geometry(block_bytes, blocks_per_file=4)
        self.io, self.tiers = {}, {}
        for name, size_bytes in {**(faster or {}), "g4": capacity_bytes}.items():
            in_memory = name == "g2"
            shape = replace(geometry, bare=in_memory)
            self.io[name] = ModelledFiles(self.clock, storage_bytes_per_s, write_s)
            self.tiers[name] = FileTier(name, self.io[name], shape, size_bytes, in_memory=in_memory)
        self.files, self.g4 = self.io["g4"], self.tiers["g4"]
        gpu = Gpu(figures, block_bytes // 16)
        self.below = Hierarchy(self.clock, list(self.tiers.values()), rules)
        self.engine = Engine(self.clock, gpu, self.below, EngineLimits(block_bytes=block_bytes, **limits))
        self.tokens: dict[Generation, list[float]] = {}

    def send(self, prompt: Prompt, output_tokens: int = 1, at_s: float = 0.0) -> Generation:
        generation = Generation(prompt, output_tokens, at_s, lambda g, due_s: self.tokens[g].append(due_s))
        self.tokens[generation] = []
        self.clock.call_at(at_s, self.engine.submit, generation)
        return generation

    def ttft_s(self, prompt: Prompt, output_tokens: int = 1) -> float:
        """Send one request to an idle engine and run until all is done."""
        start_s = self.clock.time()
        generation = self.send(prompt, output_tokens, start_s)
        self.clock.run()
        return self.tokens[generation][0] - start_s


def words(tokens: int, name: str = "a") -> str:
    """Return a text of so many five-letter words that shares no block with those of another name."""
    return " ".join(f"{name}{index:04d}"[-5:] if index else f"{name:x<5}" for index in range(tokens))


def prompt_of(tokens: int, name: str = "a") -> Prompt:
    return hash_prompt(words(tokens, name), b"root")
