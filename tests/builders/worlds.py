"""A world made up for tests: a server with one or two directory tiers, which can lie and keeps a log."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

from kvbench.result.records import Conversation, Request, Response
from kvbench.result.run_record import DriverRecord, Pressure
from kvbench.scenario.scenario import Scenario
from kvbench.testbed.servers import tier_directory
from kvbench.testbed.servers.counters import Counters
from kvbench.this_host import pressure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from kvbench.result.records import Phase
    from kvbench.scenario.plan import Draw

BLOCK = 16
KV_BYTES = 144
HEADER = 4096


def make_scenario(**changes: Any) -> Scenario:
    """A small scenario; keyword arguments replace whole keys."""
    given: dict[str, Any] = {
        "name": "made-up",
        "question": "Does it hold?",
        "server": {"emulator": {"scale": {"time": 8, "bytes": 512}}},
        "tiers": {"g4": {"path": "kvcache", "capacity": "1GB"}},
        "prompts": {"lengths": [1000, 2000]},
        "treatments": {"recompute": {"cache": "off"}, "g4": {"cache": {"warm": "g4"}}},
        "baseline": "recompute",
        "repeats": 2,
    }
    return Scenario.model_validate({**given, **changes})


@contextlib.contextmanager
def quiet_host() -> Iterator[None]:
    """This machine as if nobody else used it: its own load is no part of a made-up world."""
    with mock.patch.object(pressure, "pressure", return_value=Pressure(window_s=1.0)):
        yield


@dataclass
class FakeServer:
    """Holds texts in g1 (if `g1`), in `fast_path` as g3 (if given), and in a directory as g4; every lie is a flag.

    A text enters every tier with the `admit_after`-th request for it; the server tells that if `tells_admission`.
    """

    tier_path: Path | None
    ours: bool = True
    fast_path: Path | None = None
    admit_after: int = 1
    tells_admission: bool = True
    cache_on: bool = True
    g1: bool = False
    info: dict[str, Any] = field(
        default_factory=lambda: {
            "tiers": {"g4": {"direct": "enforced", "access": "direct"}},
            "block_tokens": BLOCK,
            "kv_bytes_per_token": KV_BYTES,
        }
    )
    url: str = "http://127.0.0.1:9/v1"
    model: str = "gpt-oss-120b"
    counts_words: bool = True
    keeps_blocks: bool = False
    frozen: bool = False
    hides_cached_tokens: bool = False
    says_no: int = 0
    wrong_from_tokens: int = 10**9
    forgets: set[str] = field(default_factory=set)
    page_cache: bool = False
    keeps_index: bool = False
    write_delay: int = 0
    log: list[str] = field(default_factory=list)
    g1_texts: set[str] = field(default_factory=set)
    g2_texts: set[str] = field(default_factory=set)
    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("local", "external", "computed"), 0.0))
    read: dict[str, int] = field(default_factory=lambda: {"g4": 0})
    written: dict[str, int] = field(default_factory=lambda: {"g4": 0})
    asked: dict[str, int] = field(default_factory=dict)
    bad_files: int = 0
    indexed: set[str] = field(default_factory=set)
    pending: list[tuple[int, Path, bytes]] = field(default_factory=list)
    device_read: int = 0
    free_ns: list[int] = field(default_factory=lambda: [2_000_000])

    def __post_init__(self) -> None:
        for tier, path in self.tier_paths.items():
            path.mkdir(exist_ok=True)
            (path / tier_directory.MARKER).write_text("{}")
            self.read[tier] = self.written[tier] = 0
        if self.tells_admission:
            self.info = {**self.info, "store": {"admit_after_hits": self.admit_after}}
        self._frozen_at = self._counters()

    @property
    def tier_paths(self) -> dict[str, Path]:
        """Its directories by name, the fastest first."""
        named = {"g3": self.fast_path, "g4": self.tier_path}
        return {tier: path for tier, path in named.items() if path is not None}

    def _counters(self) -> Counters:
        return Counters(
            local_hits=self.counts["local"],
            external_hits=self.counts["external"],
            computed_tokens=self.counts["computed"],
            pending_writes=len(self.pending),
            bad_files=self.bad_files,
            process_read_bytes=self.device_read,
            read_bytes={tier: float(count) for tier, count in self.read.items()},
            write_bytes={tier: float(count) for tier, count in self.written.items()},
            block_tokens=BLOCK,
        )

    def learn(self, text: str) -> None:
        """Hash nothing."""

    def scrape(self) -> Counters:
        """Counters now; write-back goes on a little with every look."""
        self.pending = [(left - 1, path, content) for left, path, content in self.pending]
        for left, path, content in self.pending:
            if left <= 0:
                path.write_bytes(content)
                self.written["g3" if path.parent == self.fast_path else "g4"] += len(content)
        self.pending = [one for one in self.pending if one[0] > 0]
        return self._frozen_at if self.frozen else self._counters()

    def reset(self, *, external: bool) -> bool | None:
        self.log.append("reset external" if external else "reset")
        if self.says_no:
            self.says_no -= 1
            return False
        if not self.keeps_blocks:
            self.g1_texts.clear()
            if external:
                self.g2_texts.clear()
        return True

    def answer(self, key: str, tokens: int) -> Response:
        """Serve a text: from g1, from its file, or by computing it."""
        cached = 0
        whole = (tokens - 1) // BLOCK * BLOCK
        name = f"{key.replace('/', '_')}.kv"
        files = {tier: path / name for tier, path in self.tier_paths.items()}
        self.asked[key] = self.asked.get(key, 0) + 1
        found = next((tier for tier, file in files.items() if self.cache_on and file.exists()), None)
        if self.cache_on and key in self.g1_texts:
            cached = whole
            self.counts["local"] += whole
        elif self.cache_on and key in self.g2_texts:
            cached = whole
            self.counts["external"] += whole
        elif found is not None:
            cached = whole
            size = files[found].stat().st_size
            self.counts["external"] += whole
            self.read[found] += size
            self.device_read += 0 if self.page_cache else size
        elif self.cache_on and files:
            self.bad_files += self.keeps_index and key in self.indexed
            self.indexed.add(key)
        if self.cache_on and self.asked[key] >= self.admit_after and key not in self.forgets:
            content = bytes(HEADER + whole * KV_BYTES)
            waiting = {path for _, path, _ in self.pending}
            missing = [file for file in files.values() if file not in waiting and not file.exists()]
            self.pending += [(self.write_delay, file, content) for file in missing]
        if self.g1 and self.cache_on:
            self.g1_texts.add(key)
        if self.keeps_blocks:
            self.g2_texts.add(key)
        self.counts["computed"] += tokens - cached
        free_ns = min(self.free_ns)  # a slot sends as soon as its last answer is over
        sent_ns = free_ns + 5_000
        first_ns = sent_ns + (1_000_000 if cached else tokens * 10_000)
        last_ns = first_ns + 7_000_000
        self.free_ns[self.free_ns.index(free_ns)] = last_ns
        return Response(
            request_id="",
            status="ok",
            scheduled_ns=free_ns,
            sent_ns=sent_ns,
            first_token_ns=first_ns,
            last_token_ns=last_ns,
            ttft_bound="exact",
            receive_lag_s=1e-5,
            isl=tokens,
            osl=8,
            cached_tokens=None if self.hides_cached_tokens else cached,
            http_status=200,
            text="other words" if cached and tokens >= self.wrong_from_tokens else f"words about {key}",
            model="gpt-oss-120b",
        )

    def send(self, draw: Draw, phase: Phase) -> Response:
        """What `server_control.Send` asks for."""
        self.log.append(f"{phase} {draw.prompt_id}")
        return self.answer(draw.text_key, draw.isl_target)


@dataclass
class FakeDriver:
    """Hands requests to a `FakeServer`; the text is its own key."""

    server: FakeServer
    name: str = "native"
    fails: dict[str, Response] = field(default_factory=dict)
    own_requests: tuple[Response, ...] = ()

    def drive(
        self, requests: Iterable[Request], concurrency: int, on_response: Callable[[Response], None]
    ) -> list[Response]:
        self.open_slots(concurrency)
        done = []
        for request in requests:
            prompt = json.loads(request.body)["prompt"]
            seen = self.server.answer(prompt[:40].strip(), request.isl_target)
            self.server.log.append(f"{request.phase} {request.prompt_id}")
            fields = {name: getattr(seen, name) for name in Response.__dataclass_fields__ if name != "request_id"}
            done.append(self.fails.get(request.prompt_id) or Response(request_id=request.request_id, **fields))
            on_response(done[-1])
        return done

    def converse(
        self, conversations: Iterable[Conversation], concurrency: int, on_response: Callable[[Response], None]
    ) -> None:
        done: list[Response] = []
        slots = [max(self.server.free_ns)] * concurrency
        for conversation in conversations:
            slot = slots.index(min(slots))
            self.server.free_ns = [slots[slot]]
            request: Request | None = next(conversation)
            while request is not None:
                done += self.drive([request], 1, on_response)
                try:
                    request = conversation.send(done[-1]) if done[-1].status == "ok" else None
                except StopIteration:
                    request = None
            slots[slot] = max(self.server.free_ns)
        self.server.free_ns = [max(slots)]

    def open_slots(self, concurrency: int) -> None:
        """Let so many requests be out at once from now on; none is, yet."""
        assert concurrency >= 1
        self.server.free_ns = [max(self.server.free_ns)] * concurrency

    def health(self) -> DriverRecord:
        return DriverRecord(self.name, stamps="kernel", client_cpu_s=0.1, wall_s=1.0, clock_step_s=0.0)
