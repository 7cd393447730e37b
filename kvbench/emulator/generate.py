"""One generation request from its last byte to its last chunk."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from kvbench.emulator.answers import DONE, Timing, Usage, Writing, error_event
from kvbench.emulator.blocks import BLOCK_TOKENS, Prompt, count_only, hash_steps, token_ids
from kvbench.emulator.bodies import ApiError, Ask, read_ask, read_json
from kvbench.emulator.instance import Generation

if TYPE_CHECKING:
    from kvbench.emulator.counts import InstanceCounts
    from kvbench.emulator.machine import Machine


OTHER_MODEL = "another-model"


class TokenFeed:
    """Tokens that are due and not yet sent; the engine puts them in, the response takes them out."""

    def __init__(self) -> None:
        """Start with none."""
        self._due = 0
        self._event = asyncio.Event()

    def put(self, _generation: Generation, _due_s: float) -> None:
        """Add one token."""
        self._due += 1
        self._event.set()

    async def take(self) -> int:
        """Wait for at least one token and return how many there are."""
        await self._event.wait()
        self._event.clear()
        due, self._due = self._due, 0
        return due


@dataclass
class Answer:
    """One request being answered."""

    machine: Machine
    request: web.Request
    ask: Ask
    generation: Generation
    feed: TokenFeed
    faults: frozenset[str]
    arrived_ns: int
    claimed_tokens: int
    writing: Writing = field(init=False)
    first_sent_ns: int = 0
    overrun_s: float = 0.0

    def __post_init__(self) -> None:
        """Give the answer its id."""
        model = OTHER_MODEL if self.generation.other_model else self.machine.model
        self.writing = Writing(model, chat=self.ask.chat)

    @property
    def _counts(self) -> InstanceCounts:
        return self.machine.engine.instances[self.generation.instance].counts

    @property
    def _modelled_ttft_s(self) -> float:
        due_s = self.generation.first_token_s
        return 0.0 if due_s is None else due_s - self.generation.arrived_s

    def _stamp_first(self) -> None:
        """Note when the first chunk with a token leaves, right before it does."""
        ttft_s = asyncio.get_running_loop().time() - self.generation.arrived_s
        self.overrun_s = ttft_s - self._modelled_ttft_s
        self._counts.ttft_s.observe(ttft_s)
        self._counts.overrun_s.observe(self.overrun_s)
        self.first_sent_ns = time.time_ns()

    def _stamp_last(self) -> None:
        self._counts.latency_s.observe(asyncio.get_running_loop().time() - self.generation.arrived_s)

    def _usage(self) -> Usage:
        generation = self.generation
        cached: int | None = generation.cached_tokens
        if "cached_tokens_high" in self.faults:
            cached = generation.prompt.blocks * BLOCK_TOKENS
        if "cached_tokens_low" in self.faults:
            cached = generation.cached_tokens // 2
        if "cached_tokens_zero" in self.faults:
            cached = 0
        if "cached_tokens_missing" in self.faults:
            cached = None
        return Usage(self.claimed_tokens, generation.generated_tokens, cached)

    def _timing(self) -> Timing:
        generation = self.generation
        return Timing(
            arrived_ns=self.arrived_ns,
            first_chunk_sent_ns=self.first_sent_ns,
            modelled_ttft_s=self._modelled_ttft_s,
            overrun_s=self.overrun_s,
            storage_s=generation.storage_s,
            path_s=generation.path_s,
            tier_read_bytes=generation.read_bytes,
            tier_tokens={
                **({"g1": generation.local_tokens} if generation.local_tokens else {}),
                **generation.tier_tokens,
            },
        )

    async def stream(self) -> web.StreamResponse:
        """Send server-sent events, one chunk a token; tokens that are due together leave in one write.

        The second write keeps a token's distance from the first even when the first was late: no GPU gives two tokens
        at once, and a client could not tell when the first one came.
        """
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(self.request)
        if "hang" in self.faults:
            await asyncio.Event().wait()
        if "first_chunk_empty" in self.faults:
            await response.write(self.writing.word(""))
        if self._role_first:
            await response.write(self.writing.role(alone=True))
        sent, second_s = 0, 0.0
        while sent < self.generation.output_tokens:
            due = await self.feed.take()
            events = self._words(sent, due)
            if not sent:
                self._stamp_first()
                second_s = asyncio.get_running_loop().time() + self.machine.token_gap_s
            else:
                await asyncio.sleep(max(0.0, second_s - asyncio.get_running_loop().time()))
            sent += due
            if faulty := self.faults & {"cut_stream", "error_chunk"}:
                await response.write(events)
                return await self._break(response, faulty)
            if sent == self.generation.output_tokens:
                self._stamp_last()
                events += self._ending()
            await response.write(events)
        await response.write_eof()
        return response

    @property
    def _role_first(self) -> bool:
        return self.ask.chat and "role_only_first_chunk" in self.faults

    def _words(self, sent: int, due: int) -> bytes:
        """Return the chunks of the next `due` tokens; vLLM sends the role in one write with the first."""
        last = self.generation.output_tokens - 1
        events = [self.writing.role()] if self.ask.chat and not sent and not self._role_first else []
        for index in range(sent, sent + due):
            text = self._text(index)
            token_id = token_ids(text)[0] if self.ask.with_ids else None
            finish_reason = self.generation.finish_reason if index == last else None
            events.append(self.writing.word(text, finish_reason, token_id))
        return b"".join(events)

    def _text(self, index: int) -> str:
        """Return a token's text; a completion goes on after a space, so that prompt and answer join as they are."""
        return f"{' ' if index or not self.ask.chat else ''}{self.generation.word(index)}"

    def _ending(self) -> bytes:
        wanted = self.ask.include_usage and "no_usage" not in self.faults
        usage = self.writing.usage(self._usage(), self._timing()) if wanted else b""
        return usage if "no_done" in self.faults else usage + DONE

    async def _break(self, response: web.StreamResponse, faulty: frozenset[str]) -> web.StreamResponse:
        if "error_chunk" in faulty:
            await response.write(error_event(ApiError(500, "the engine died, as it was told to").body) + DONE)
            await response.write_eof()
        elif self.request.transport is not None:
            self.request.transport.close()
        return response

    async def whole(self) -> web.StreamResponse:
        """Send one JSON body when the last token is there."""
        if "hang" in self.faults:
            await asyncio.Event().wait()
        due = 0
        while due < self.generation.output_tokens:
            due += await self.feed.take()
            if not self.first_sent_ns:
                self._stamp_first()
        self._stamp_last()
        text = "".join(self._text(index) for index in range(self.generation.output_tokens))
        ids = token_ids(text) if self.ask.with_ids else None
        body = self.writing.whole(text, self.generation.finish_reason, ids)
        if "no_usage" not in self.faults:
            self.first_sent_ns = time.time_ns()
            body |= {"usage": self._usage().to_json(), "kvbench": asdict(self._timing())}
        return web.json_response(body)


async def generate(machine: Machine, request: web.Request, *, chat: bool) -> web.StreamResponse:
    """Answer a completion or a chat request.

    The modelled time counts from the arrival of the last byte, so parsing and hashing fall inside it.

    Raises:
        ApiError: the request cannot be served as it is.

    """
    body = await request.read()
    arrived_s, arrived_ns = asyncio.get_running_loop().time(), time.time_ns()
    ask = read_ask(read_json(body), chat=chat)
    check_model(machine, ask.model)
    faults = machine.faults.of_next_request()
    for status in (500, 429):
        if f"http_{status}" in faults:
            raise ApiError(status, f"answered with {status}, as it was told to")
    truncated = not faults.isdisjoint(("truncated_prompt", "truncated_prompt_hidden"))
    prompt = await hash_politely(machine, _first_half(ask.source) if truncated else ask.source)
    _check_length(machine, ask, prompt)
    feed = TokenFeed()
    generation = Generation(prompt, ask.answer_tokens, arrived_s, feed.put, ask.finish_reason, "other_model" in faults)
    claimed = len(token_ids(ask.source)) if "truncated_prompt_hidden" in faults else prompt.tokens
    answer = Answer(machine, request, ask, generation, feed, faults, arrived_ns, claimed)
    machine.scheduler.submit(generation)
    try:
        return await (answer.stream() if ask.stream and "no_streaming" not in faults else answer.whole())
    finally:
        machine.scheduler.abort(generation)


def check_model(machine: Machine, model: str | None) -> None:
    """Refuse a model that is not the one served; a request may leave it out.

    Raises:
        ApiError: 404.

    """
    if model is not None and model != machine.model:
        raise ApiError(404, f"The model `{model}` does not exist.", "model")


async def hash_politely(machine: Machine, source: str | list[int]) -> Prompt:
    """Hash a prompt, letting others run between the steps; a text that was hashed lately is known.

    Raises:
        ApiError: 400, the prompt is empty or a token id is none.

    """
    known = machine.known_prompts.find(source)
    if known is not None:
        return known
    try:
        if machine.settings.fixed_latency_s is not None:
            return _not_empty(count_only(source))
        steps = hash_steps(source, machine.root)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                prompt = _not_empty(end.value)
                machine.known_prompts.keep(source, prompt)
                return prompt
            await asyncio.sleep(0)
    except (TypeError, OverflowError):
        raise ApiError(400, "a token id is not an integer of 64 bits", "prompt") from None


def _first_half(source: str | list[int]) -> str | list[int]:
    """Return the first half of a prompt's tokens, at least one."""
    words = source.split() if isinstance(source, str) else source
    kept = words[: max(1, len(words) // 2)]
    return " ".join(map(str, kept)) if isinstance(source, str) else [token for token in kept if isinstance(token, int)]


def _not_empty(prompt: Prompt) -> Prompt:
    if not prompt.tokens:
        raise ApiError(400, "the prompt holds no token", "prompt")
    return prompt


def _check_length(machine: Machine, ask: Ask, prompt: Prompt) -> None:
    wanted = prompt.tokens + ask.answer_tokens
    if wanted > machine.max_model_len:
        raise ApiError(
            400,
            f"This model's maximum context length is {machine.max_model_len} tokens. However, you requested {wanted} "
            f"tokens ({prompt.tokens} in the prompt, {ask.answer_tokens} in the completion).",
            "messages" if ask.chat else "prompt",
        )
