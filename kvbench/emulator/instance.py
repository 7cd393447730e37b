"""One GPU: continuous batching with chunked prefill, on a schedule that is computed and not observed.

A step begins where the step before it ended *on the model's clock*, however late the timer woke us, so lateness never
adds up. Each step gives one token to every decoding sequence and spends the rest of the token budget on prefill, first
come first served. Onboardings share the modelled path serially: one transfer at a time, in the order of arrival.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from kvbench.emulator.blocks import BLOCK_TOKENS, answer_word, extend_chain
from kvbench.emulator.counts import InstanceCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kvbench.emulator.blocks import Prompt
    from kvbench.emulator.gpu import Gpu
    from kvbench.emulator.hierarchy import Hierarchy, Hit, Onboarded
    from kvbench.emulator.memory import MemoryTier


class Clock(Protocol):
    """What an asyncio loop is to the engine, and a virtual clock too."""

    def time(self) -> float:
        """Return the time in seconds."""

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> object:
        """Call back at `when`, or at once if that has passed."""


@dataclass(slots=True, eq=False)
class Generation:
    """One request on its way: `on_token` is called for each token with the modelled instant at which it is due."""

    prompt: Prompt
    output_tokens: int
    arrived_s: float
    on_token: Callable[[Generation, float], None]
    finish_reason: str = "length"
    other_model: bool = False
    instance: int = 0
    local_tokens: int = 0
    tier_tokens: dict[str, int] = field(default_factory=dict)
    computed_tokens: int = 0
    generated_tokens: int = 0
    ready_s: float = 0.0
    first_token_s: float | None = None
    path_s: float = 0.0
    storage_s: float = 0.0
    read_bytes: int = 0
    wrong_kv: bool = False
    scheduled: bool = False
    taken_bytes: int = 0
    aborted: bool = False

    @property
    def external_tokens(self) -> int:
        """Prompt tokens from the tiers below G1."""
        return sum(self.tier_tokens.values())

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were not computed."""
        return self.local_tokens + self.external_tokens

    @property
    def finished(self) -> bool:
        """Whether the last token is out."""
        return self.generated_tokens >= self.output_tokens

    def word(self, index: int) -> str:
        """Return the `index`-th token of the answer; KV that is not the prompt's makes other words."""
        digest = self.prompt.digest[::-1] if self.wrong_kv or self.other_model else self.prompt.digest
        return answer_word(digest, index)

    def sequence(self) -> bytes:
        """Return the chain of the prompt and the answer; the last token is never computed, so it has no KV."""
        words = [self.word(index) for index in range(self.generated_tokens - 1)]
        return extend_chain(self.prompt, words)


class Instance:
    """One GPU with a memory tier of its own and a share of the tiers below.

    `g1` and `below` are None where the cache is off: then nothing is looked up and nothing kept.
    """

    def __init__(
        self, clock: Clock, gpu: Gpu, budget_tokens: int, g1: MemoryTier | None, below: Hierarchy | None
    ) -> None:
        """Start idle."""
        self.counts = InstanceCounts()
        self.g1 = g1
        self.below = below
        self.unfinished: set[Generation] = set()
        self._clock = clock
        self._gpu = gpu
        self._budget_tokens = budget_tokens
        self._waiting: deque[Generation] = deque()
        self._decoding: list[Generation] = []
        self._stepping = False
        self._step_end_s = 0.0
        self._path_free_s = 0.0

    @property
    def running(self) -> int:
        """Requests that have been in a step."""
        return sum(g.scheduled for g in self.unfinished)

    @property
    def waiting(self) -> int:
        """Requests that wait for their blocks or for their first step."""
        return sum(not g.scheduled for g in self.unfinished)

    def admit(self, generation: Generation) -> None:
        """Look up what is cached, begin to load it, and queue the request for when it is there."""
        self.unfinished.add(generation)
        prompt, counts = generation.prompt, self.counts
        counts.local_queries += prompt.tokens
        local = self.g1.covered(prompt.chain, 0, prompt.reusable_blocks) if self.g1 else 0
        generation.local_tokens = generation.computed_tokens = local * BLOCK_TOKENS
        counts.local_hits += generation.local_tokens
        if self.g1:  # at once: what others take until its first step must not drop what is counted as found
            self.g1.hold(prompt.chain, local)
        if self.below and self.below.tiers:
            self.below.ask(prompt.chain)
            counts.external_queries += prompt.tokens - generation.local_tokens
            self.below.find(prompt.chain, local, prompt.reusable_blocks, partial(self._load_hits, generation))
        else:
            self._ready_at(generation, generation.arrived_s)

    def _load_hits(self, generation: Generation, hits: list[Hit], looked_s: float) -> None:
        """Put what was found on the path and begin to load it; what is not there has cost no modelled time."""
        if not hits or generation.aborted or not self.below:
            self._ready_at(generation, generation.arrived_s)
            return
        generation.storage_s = looked_s
        fixed_s = self._fixed_s([hit.tier.name for hit in hits])
        transfer_s = sum(self._gpu.path_s((hit.stop - hit.start) * BLOCK_TOKENS, hit.tier.name) for hit in hits)
        self._path_free_s = max(generation.arrived_s + fixed_s, self._path_free_s) + transfer_s
        generation.path_s = self._path_free_s - generation.arrived_s - fixed_s
        self.below.load(generation.prompt.chain, hits, partial(self._loaded, generation))

    def _fixed_s(self, tiers: Iterable[str]) -> float:
        return max(self._gpu.onboard_fixed_s(tier) for tier in tiers)

    def _loaded(self, generation: Generation, onboarded: Onboarded) -> None:
        """Take what storage brought: ready = arrival + fixed + max(path, storage)."""
        generation.tier_tokens = {tier: blocks * BLOCK_TOKENS for tier, blocks in onboarded.blocks.items() if blocks}
        generation.computed_tokens = generation.cached_tokens
        generation.read_bytes, generation.wrong_kv = onboarded.read_bytes, onboarded.wrong
        generation.storage_s += onboarded.storage_s
        self.counts.external_hits += generation.external_tokens
        self.counts.load_bytes += self._kv_bytes(generation.external_tokens)
        onboard_s = generation.storage_s
        if generation.tier_tokens:
            onboard_s = self._fixed_s(generation.tier_tokens) + max(generation.path_s, generation.storage_s)
        self._ready_at(generation, generation.arrived_s + onboard_s)

    def _kv_bytes(self, tokens: int) -> int:
        return tokens // BLOCK_TOKENS * self.below.tiers[0].block_bytes if self.below and tokens else 0

    def _ready_at(self, generation: Generation, ready_s: float) -> None:
        generation.ready_s = ready_s
        if ready_s <= self._clock.time():
            self._ready(generation)
        else:
            self._clock.call_at(ready_s, self._ready, generation)

    def _ready(self, generation: Generation) -> None:
        if generation.aborted:
            return
        self._waiting.append(generation)
        if not self._stepping:
            self._begin_step(self._step_end_s)

    def _begin_step(self, start_s: float) -> None:
        """Fill a step that starts at `start_s`, or later if nothing is ready by then."""
        if not self._decoding and not self._waiting:
            return
        if not self._decoding:
            start_s = max(start_s, min(g.ready_s for g in self._waiting))
        decoding = self._decoding[: self._budget_tokens]
        budget, duration_s = self._budget_tokens - len(decoding), self._gpu.decode_s(len(decoding))
        chunks: list[tuple[Generation, int]] = []
        for generation in self._waiting:
            if budget and generation.ready_s <= start_s:
                stop = min(generation.prompt.tokens, generation.computed_tokens + budget)
                budget -= stop - generation.computed_tokens
                duration_s += self._gpu.prefill_s(generation.computed_tokens, stop)
                chunks.append((generation, stop))
                self._take_memory(generation)
        self._stepping = True
        self._step_end_s = start_s + duration_s
        self._clock.call_at(self._step_end_s, self._end_step, decoding, chunks)

    def _take_memory(self, generation: Generation) -> None:
        """Have a request take its room in G1 with its first step; what it found there it holds already."""
        if self.g1 and not generation.scheduled:
            new_tokens = generation.prompt.tokens + generation.output_tokens - generation.local_tokens
            generation.taken_bytes = self.g1.take(new_tokens)
        generation.scheduled = True

    def _end_step(self, decoding: list[Generation], chunks: list[tuple[Generation, int]]) -> None:
        end_s = self._step_end_s
        for generation in decoding:
            self._give_token(generation, end_s)
        for generation, stop in chunks:
            generation.computed_tokens = stop
            if stop == generation.prompt.tokens and not generation.aborted:
                self._prefilled(generation, end_s)
        self._stepping = False
        self._begin_step(end_s)

    def _prefilled(self, generation: Generation, end_s: float) -> None:
        """The prompt is computed: count it, give the first token, and then offload its new blocks."""
        prompt, counts = generation.prompt, self.counts
        self._waiting.remove(generation)
        self._decoding.append(generation)
        generation.first_token_s = end_s
        counts.prompt_tokens += prompt.tokens
        counts.computed_tokens += prompt.tokens - generation.cached_tokens
        counts.local_tokens += generation.local_tokens
        for tier, tokens in generation.tier_tokens.items():
            counts.tier_tokens[tier] += tokens
        self._give_token(generation, end_s)
        if self.below:  # in a turn of its own: finding the new blocks must not delay the token
            self._clock.call_at(end_s, self.below.store, prompt.chain)

    def _give_token(self, generation: Generation, due_s: float) -> None:
        if generation.aborted:
            return
        generation.generated_tokens += 1
        self.counts.generation_tokens += 1
        if generation.finished:
            self._decoding.remove(generation)
            self._release(generation, generation.finish_reason)
        generation.on_token(generation, due_s)

    def _release(self, generation: Generation, reason: str) -> None:
        self.unfinished.discard(generation)
        self.counts.finished[reason] += 1
        if self.g1:
            held = generation.local_tokens // BLOCK_TOKENS
            self.g1.give_back(generation.prompt.chain, held, generation.taken_bytes)
        if self.g1 and generation.first_token_s is not None:
            self._clock.call_at(self._step_end_s, self._keep_sequence, generation)

    def _keep_sequence(self, generation: Generation) -> None:
        """Keep the prompt and the full blocks of its answer, which the next turn of a conversation repeats."""
        chain, prompt = generation.sequence(), generation.prompt
        if self.below and len(chain) > len(prompt.chain):
            self.below.ask(chain, prompt.blocks)
            self.below.store(chain)
        if self.g1:
            self.g1.keep(chain)

    def abort(self, generation: Generation) -> None:
        """Drop a request whose client is gone; one that has finished stays finished."""
        if generation not in self.unfinished:
            return
        generation.aborted = True
        for queue in (self._waiting, self._decoding):
            if generation in queue:
                queue.remove(generation)
        self._release(generation, "abort")
