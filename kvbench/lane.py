"""One run's way to its server: draws become requests, requests are sent, and a row of each is kept at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from kvbench import prompts
from kvbench.plan import CANARY_COLD, CANARY_FIRST, CANARY_LAST, WARMUP, Draw, Plan, RunSpec, needs_own_texts
from kvbench.records import Phase, Request, Response, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kvbench.scenario import Scenario
    from kvbench.servers.endpoint import Endpoint
    from kvbench.store import Journal

_ID_RANGE = (1_000, 30_000)  # ordinary tokens in every vocabulary of 32k or more


class Driver(Protocol):
    """What a load driver must do."""

    name: str

    @property
    def own_requests(self) -> Sequence[Response]:
        """What it sent on its own account in its last call of `drive`, such as a warm-up."""

    def drive(
        self, requests: Iterable[Request], concurrency: int, on_response: Callable[[Response], None]
    ) -> Sequence[Response]:
        """Send the requests in order, hand each response over as it ends, return all."""

    def health(self) -> dict[str, Any]:
        """Say how the client itself was doing."""


class Watch(Protocol):
    """Is told what happens while it happens; `report.live` shows it, tests record it."""

    def run_starts(self, spec: RunSpec, number: int, total: int) -> None:
        """A run begins."""

    def run_kept(self, spec: RunSpec) -> None:
        """A run of an earlier session is sealed and is not done again."""

    def step(self, text: str) -> None:
        """The next step of the current run."""

    def request_done(self, row: Row) -> None:
        """A request ended, of whatever phase."""

    def run_ends(self, spec: RunSpec) -> None:
        """The run is sealed."""


@dataclass
class Lane:
    """One run's way to its server: makes requests of draws, sends them, and keeps a row of each.

    `measuring` sends what is measured, `driver` all else; most often they are the same.
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
    fitted: dict[str, str] = field(default_factory=dict)
    sent: int = 0

    def __post_init__(self) -> None:
        """Choose how texts are made for this server."""
        tokenizer = self.scenario.prompts.tokenizer
        self._count = prompts.local_counter(tokenizer) if tokenizer is not None else self._ask_for_count
        self._phases: dict[str, tuple[Draw, Phase]] = {}

    def send(self, draw: Draw, phase: Phase) -> Response:
        """Send one prompt and wait for its end."""
        return self.driver.drive([self.request(draw, phase)], 1, self._keep_of(self.driver.name))[0]

    def measure(self, requests: Iterable[Request], concurrency: int) -> Sequence[Response]:
        """Send what is measured; each is in the journal as soon as the driver hands it over.

        What the driver sent on its own account has rows too, as warm-up.
        """
        keep = self._keep_of(self.measuring.name)
        responses = self.measuring.drive(requests, concurrency, keep)
        for own in self.measuring.own_requests:
            draw = Draw(f"{self.spec.run_id}/{self.measuring.name}-{own.request_id}", WARMUP, own.isl or 1)
            self._phases[draw.request_id] = (draw, "warmup")
            keep(replace(own, request_id=draw.request_id))
        return responses

    @property
    def sends_one_by_one(self) -> bool:
        """Whether each measured request stands alone between two scrapes of its own.

        AIPerf takes the whole list at once, so its requests are judged by the run's ledger at any concurrency.
        """
        return self.scenario.load.concurrency == 1 and self.measuring is self.driver

    def request(self, draw: Draw, phase: Phase) -> Request:
        """Make the request of a draw; requests that are not measured get identifiers of their own."""
        if phase != "measure":
            self.sent += 1
            draw = replace(draw, request_id=f"{self.spec.run_id}/{phase}-{self.sent:03d}-{draw.prompt_id}")
        self._phases[draw.request_id] = (draw, phase)
        form, load = self.scenario.prompts, self.scenario.load
        with_ids = self.scenario.check_answers and self.scenario.server.vllm is not None
        text = self.text(draw)
        body = prompts.request_body(self.endpoint.model, load.api, text, form.output_tokens, with_ids=with_ids)
        return Request(draw.request_id, draw.prompt_id, phase, draw.isl_target, body)

    def text(self, draw: Draw) -> str | list[int]:
        """Return a draw's prompt, of exactly its length for this server's tokenizer."""
        form, key = self.scenario.prompts, draw.text_key
        if form.form == "token_ids":
            return prompts.token_ids(form.seed, key, draw.isl_target, _ID_RANGE)
        if self.endpoint.counts_words and self.scenario.load.api == "completions":
            return prompts.words_text(form.seed, key, draw.isl_target)
        if key not in self.fitted:
            self.fitted[key] = prompts.fit(form.seed, key, draw.isl_target, self._count)
        return self.fitted[key]

    @property
    def draws(self) -> tuple[Draw, ...]:
        """The run's draws; an attempt after the first sends new texts where the texts must be unknown to the server."""
        if self.attempt == 1 or not needs_own_texts(self.scenario, self.spec.treatment):
            return self.spec.draws
        return tuple(replace(draw, salt=f"{draw.salt}/attempt-{self.attempt}") for draw in self.spec.draws)

    def make_texts(self) -> None:
        """Make the texts that are about to be measured: finding an exact length asks the server, and takes time."""
        if not self.endpoint.counts_words:
            for draw in self.draws:
                self.text(draw)

    def new_texts(self) -> list[tuple[str, str | list[int]]]:
        """Give the texts of this attempt that the plan does not know."""
        return [(draw.text_key, self.text(draw)) for draw in self.draws] if self.draws != self.spec.draws else []

    def all_texts(self) -> Iterator[tuple[str, str | list[int]]]:
        """Give each text of the plan once, by its key."""
        plan = self.plan
        canaries = [plan.canary(name) for name in (WARMUP, CANARY_COLD, CANARY_FIRST, CANARY_LAST)]
        draws = [*canaries, *plan.pool, *(draw for spec in plan.runs for draw in spec.draws)]
        distinct = {draw.text_key: draw for draw in draws}
        return ((key, self.text(draw)) for key, draw in distinct.items())

    def _ask_for_count(self, text: str) -> int:
        return self.endpoint.count_tokens(text, self.scenario.load.api)

    def _keep_of(self, driver: str) -> Callable[[Response], None]:
        def keep(response: Response) -> None:
            draw, phase = self._phases.pop(response.request_id)
            row = make_row(self.spec, self.attempt, draw, phase, response, driver)
            self.journal.append(row)
            self.watch.request_done(row)

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
        conversation_id=None,
        turn=0,
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
        server_overrun_s=response.server.get("overrun_s"),
        server_storage_s=response.server.get("storage_s"),
        server_path_s=response.server.get("path_s"),
        server_read_bytes=response.server.get("tier_read_bytes"),
        server_first_chunk_ns=response.server.get("first_chunk_sent_ns"),
    )
