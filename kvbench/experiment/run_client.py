"""Builds and sends the requests of one run, and keeps a row of each at once."""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from kvbench.experiment.request_builder import answer_key, turn_key
from kvbench.experiment.run_ledger import answer_tier_tokens
from kvbench.experiment.server_control import Primer
from kvbench.lenient_json import at
from kvbench.result.records import Conversation, Phase, Request, Response, Row, alone
from kvbench.scenario import prompts
from kvbench.scenario.plan import (
    CANARY_COLD,
    CANARY_FIRST,
    CANARY_LAST,
    WARMUP,
    Draw,
    Draws,
    Plan,
    RunSpec,
    needs_own_texts,
)
from kvbench.scenario.request_body import request_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from kvbench.drivers.driver import Driver
    from kvbench.experiment.progress import Watch
    from kvbench.result.rows import Journal
    from kvbench.scenario.scenario import Scenario
    from kvbench.testbed.servers.endpoint import Endpoint

_NEVER_SENT = "never sent: the turn before it failed"
_ID_RANGE = (1_000, 30_000)  # ordinary tokens in every vocabulary of 32k or more


@dataclass
class RunClient:
    """One run's way to its server: makes requests of draws, sends them, and keeps a row of each.

    `measuring` sends what is measured, `driver` all else; most often they are the same. `another` opens a second
    server, with a driver to it, where that one primes the tier. `fitted` are the texts of exact length that were found
    by asking. Nothing here grows with the number of requests.
    """

    scenario: Scenario
    plan: Plan
    spec: RunSpec
    attempt: int
    endpoint: Endpoint
    driver: Driver
    measuring: Driver
    journal: Journal
    watch: Watch
    fitted: dict[str, prompts.Fitting] = field(default_factory=dict)
    another: Callable[[], AbstractContextManager[tuple[Endpoint, Driver]]] | None = None
    sent: int = 0

    def __post_init__(self) -> None:
        """Choose how texts are made for this server."""
        tokenizer = self.scenario.prompts.tokenizer
        self._count_here = prompts.local_counter(tokenizer) if tokenizer is not None else None
        self._phases: dict[str, tuple[Draw, Phase]] = {}
        self._unasked: dict[str, Sequence[Draw]] = {}

    def send(self, draw: Draw, phase: Phase) -> Response:
        """Send one prompt and wait for its end."""
        return self._send_by(self.driver, draw, phase)

    def send_all(self, draws: Sequence[Draw], phase: Phase) -> Sequence[Response]:
        """Send prompts at once and wait for the end of all."""
        requests = [self.request(draw, phase) for draw in draws]
        return self.driver.drive(requests, len(requests), self._keep_of(self.driver.name))

    def _send_by(self, driver: Driver, draw: Draw, phase: Phase) -> Response:
        return driver.drive([self.request(draw, phase)], 1, self._keep_of(driver.name))[0]

    @contextlib.contextmanager
    def primer(self) -> Iterator[Primer]:
        """Give what fills the tier: another server where there is one, else the one that is measured."""
        if self.another is None:
            yield Primer(self.endpoint, self.send)
            return
        with self.another() as (endpoint, driver):
            yield Primer(endpoint, partial(self._send_by, driver))

    def measure(self, seen: Callable[[Draw, Response], None]) -> None:
        """Send what is measured; each is in the journal, and then goes to `seen`, as soon as the driver hands it over.

        What the driver sent on its own account has rows too, as warm-up, and so have turns that were never asked for
        because the one before them failed.
        """
        keep = self._keep_of(self.measuring.name, seen)
        if self.scenario.prompts.turns is None:
            conversations: Iterable[Conversation] = (alone(self.request(draw, "measure")) for draw in self.draws)
        else:
            groups = itertools.groupby(self.draws, key=lambda draw: draw.conversation_id)
            conversations = (self.conversation(list(draws)) for _, draws in groups)
        self.measuring.converse(conversations, self.concurrency, keep)
        self._keep_own_requests(keep)

    def _keep_own_requests(self, keep: Callable[[Response], None]) -> None:
        for own in self.measuring.own_requests:
            draw = Draw(f"{self.spec.run_id}/{self.measuring.name}-{own.request_id}", WARMUP, own.isl or 1)
            self._phases[draw.request_id] = (draw, "warmup")
            keep(replace(own, request_id=draw.request_id))

    def conversation(self, draws: Sequence[Draw]) -> Conversation:
        """Give the requests of one conversation, each with all that was said before it."""
        said = list[str]()
        for place, draw in enumerate(draws):
            said.append(self._question(draw))
            self._unasked[draw.request_id] = draws[place + 1 :]
            response = yield self.request(draw, "measure", tuple(said))
            if self._is_live and response is not None:
                self.journal.keep_answer(draw.request_id, response.text.strip())
                said.append(response.text.strip())
            else:
                self._unasked.pop(draw.request_id, None)  # the next turn is asked for already
                said.append(self._recorded_answer(draw))

    @property
    def _is_live(self) -> bool:
        turns = self.scenario.prompts.turns
        return turns is not None and turns.history == "live"

    def _question(self, draw: Draw) -> str:
        """Return what the user says in this turn.

        With recorded answers its length makes the whole history as long as planned, template included. Live answers are
        not known beforehand, so there the question alone has its planned number of words.
        """
        form = self.scenario.prompts
        if draw.turn and form.turns is not None:
            if self._is_live or self._words_are_tokens:
                return prompts.words_text(form.seed, turn_key(draw), form.turns.new_tokens)
            return self._fit(turn_key(draw), draw.isl_target, self._history(draw))
        opening = self.text(draw)
        assert isinstance(opening, str)  # noqa: S101 - the scenario refuses token ids in conversations
        return opening

    def _history(self, draw: Draw) -> tuple[str, ...]:
        """Return all that was said before this turn, with recorded answers."""
        form = self.scenario.prompts
        assert form.turns is not None  # noqa: S101 - only then are there turns
        first = draw.isl_target - draw.turn * (form.turns.new_tokens + form.output_tokens)
        turns = [
            replace(draw, turn=turn, isl_target=isl) for turn, isl in enumerate(form.isl_by_turn[first][: draw.turn])
        ]
        return tuple(text for turn in turns for text in (self._question(turn), self._recorded_answer(turn)))

    def _recorded_answer(self, draw: Draw) -> str:
        """Return what stands for the model's answer in later turns."""
        form = self.scenario.prompts
        return prompts.words_text(form.seed, answer_key(draw), form.output_tokens)

    def _texts_of(self, draws: Iterable[Draw]) -> Iterator[tuple[str, str | list[int]]]:
        """Give what is sent for these draws, each text once by its key, recorded answers too."""
        turns, known = self.scenario.prompts.turns, set[str]()
        for draw in draws:
            key, answer = turn_key(draw), answer_key(draw)
            if key not in known:
                yield key, self._question(draw) if draw.turn else self.text(draw)
            has_next = draw.conversation_id is not None and turns is not None and draw.turn + 1 < turns.count
            if has_next and not self._is_live and answer not in known:
                yield answer, self._recorded_answer(draw)
                known.add(answer)
            known.add(key)

    @property
    def concurrency(self) -> int:
        """How many requests are out at once."""
        return self.scenario.concurrency_of(self.spec.treatment)

    @property
    def sends_one_by_one(self) -> bool:
        """Whether each measured request stands alone between two scrapes of its own.

        AIPerf takes the whole list at once, an open loop waits for nobody, and a conversation goes on by itself: those
        are judged by the run's ledger at any concurrency.
        """
        by_itself = self.scenario.prompts.turns is not None or self.scenario.rate_of(self.spec.treatment) is not None
        return self.concurrency == 1 and self.measuring is self.driver and not by_itself

    def request(self, draw: Draw, phase: Phase, conversation: tuple[str, ...] | None = None) -> Request:
        """Make the request of a draw; requests that are not measured get identifiers of their own.

        `conversation` is the conversation so far, this turn's question last.
        """
        if phase != "measure":
            self.sent += 1
            draw = replace(draw, request_id=f"{self.spec.run_id}/{phase}-{self.sent:03d}-{draw.prompt_id}")
        self._phases[draw.request_id] = (draw, phase)
        form, load = self.scenario.prompts, self.scenario.load
        with_ids = self.scenario.check_answers and self.scenario.server.keys.returns_token_ids
        body = request_body(
            self.endpoint.model,
            load.api,
            conversation or self.text(draw),
            1 if phase == "prime" else form.output_tokens,  # an answer's blocks would be counted as the prompt's
            form.temperature if phase == "measure" else 0,
            with_ids=with_ids,
        )
        where = (draw.conversation_id, draw.turn, draw.due_s)
        return Request(draw.request_id, draw.prompt_id, phase, draw.isl_target, body, *where)

    def text(self, draw: Draw) -> str | list[int]:
        """Return a draw's prompt, of exactly its length for this server's tokenizer."""
        form, key = self.scenario.prompts, draw.text_key
        if form.form == "token_ids":
            return prompts.token_ids(form.seed, key, draw.isl_target, _ID_RANGE)
        if self._words_are_tokens:
            return prompts.words_text(form.seed, key, draw.isl_target)
        return self._fit(key, draw.isl_target)

    @property
    def _words_are_tokens(self) -> bool:
        return self.endpoint.counts_words and self.scenario.load.api == "completions"

    def _fit(self, key: str, tokens: int, before: tuple[str, ...] = ()) -> str:
        """Return the text that makes a prompt of exactly so many tokens, after what was said before."""
        seed = self.scenario.prompts.seed
        if key not in self.fitted:
            self.fitted[key] = prompts.fit(
                seed, key, tokens, lambda text: self._count((*before, text) if before else text)
            )
        return self.fitted[key].text(seed, key)

    def _count(self, prompt: str | tuple[str, ...]) -> int:
        if self._count_here is not None:
            return self._count_here(prompt if isinstance(prompt, str) else " ".join(prompt))
        return self.endpoint.count_tokens(prompt, self.scenario.load.api)

    @property
    def draws(self) -> Draws:
        """The run's draws; an attempt after the first sends new texts where the texts must be unknown to the server."""
        if self.attempt == 1 or not needs_own_texts(self.scenario, self.spec.treatment):
            return self.spec.draws
        return replace(self.spec.draws, salt=f"{self.spec.draws.salt}/attempt-{self.attempt}")

    def make_texts(self) -> None:
        """Make the texts that are about to be measured: finding an exact length asks the server, and takes time.

        The emulator hashes them now: its tokenizer shares the processors with all else, and no engine's GPU waits so.
        """
        known = set[str]()
        for draw in self.draws:
            key = turn_key(draw)
            if key in known or (draw.turn and self._words_are_tokens):
                continue
            known.add(key)
            text = self._question(draw) if draw.turn else self.text(draw)
            if self._words_are_tokens and isinstance(text, str):
                self.endpoint.learn(text)

    @property
    def has_new_texts(self) -> bool:
        """Whether this attempt sends texts that the plan does not know."""
        return self.draws != self.spec.draws

    def new_texts(self) -> Iterator[tuple[str, str | list[int]]]:
        """Give the texts of this attempt."""
        return self._texts_of(self.draws)

    def all_texts(self) -> Iterator[tuple[str, str | list[int]]]:
        """Give each text of the plan once, by its key: prompts, and what later turns and recorded answers add."""
        plan = self.plan
        canaries = [plan.canary(name) for name in (WARMUP, CANARY_COLD, CANARY_FIRST, CANARY_LAST)]
        return self._texts_of(itertools.chain(canaries, plan.pool, *(spec.draws for spec in plan.runs)))

    def _keep_of(self, driver: str, seen: Callable[[Draw, Response], None] | None = None) -> Callable[[Response], None]:
        def keep(response: Response) -> None:
            draw, phase = self._phases.pop(response.request_id)
            row = make_row(self.spec, self.attempt, draw, phase, response, driver)
            self.journal.append(row, answer_tier_tokens(response))
            self.watch.request_done(row)
            if phase == "measure" and seen is not None:
                seen(draw, response)
            unasked = self._unasked.pop(response.request_id, ())
            for turn in unasked if response.status != "ok" else ():
                self._phases[turn.request_id] = (turn, "measure")
                keep(Response(turn.request_id, "cancelled", time.time_ns(), error=_NEVER_SENT))

        return keep


def make_row(spec: RunSpec, attempt: int, draw: Draw, phase: Phase, response: Response, driver: str) -> Row:
    """Put a response in its place in the plan; its tier is decided later, from the counters around it."""
    return Row(
        run_id=spec.run_id,
        attempt=attempt,
        treatment=spec.treatment,
        repeat=spec.repeat,
        phase=phase,
        request_id=draw.request_id,
        prompt_id=draw.prompt_id,
        conversation_id=draw.conversation_id,
        turn=draw.turn,
        isl_target=draw.isl_target,
        isl=response.isl,
        osl=response.osl,
        cached_tokens=response.cached_tokens,
        scheduled_ns=response.scheduled_ns,
        sent_ns=response.sent_ns,
        first_token_ns=response.first_token_ns,
        last_token_ns=response.last_token_ns,
        ttft_s=response.ttft_s,
        ttft_content_s=response.ttft_content_s,
        ttft_bound=response.ttft_bound,
        tpot_s=response.tpot_s,
        latency_s=response.latency_s,
        send_lag_s=response.send_lag_s,
        receive_lag_s=response.receive_lag_s,
        status=response.status,
        error=response.error,
        http_status=response.http_status,
        tier=None,
        driver=driver,
        model=response.model,
        answer_hash=response.answer_hash,
        server_overrun_s=at(response.server, "overrun_s"),
        server_storage_s=at(response.server, "storage_s"),
        server_path_s=at(response.server, "path_s"),
        server_read_bytes=at(response.server, "tier_read_bytes"),
        server_first_chunk_ns=at(response.server, "first_chunk_sent_ns"),
    )
