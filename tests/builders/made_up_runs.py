"""Made-up runs: what an honest host, client and server would leave, drawn by a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kvbench.analysis.checks.expected import Expected
from kvbench.analysis.checks.judge import judge_run
from kvbench.analysis.measured_result import SealedRun
from kvbench.result.records import Row
from kvbench.result.run_record import (
    BlockRecord,
    CacheRecord,
    DriverRecord,
    HostRecord,
    Ledger,
    Pressure,
    RunRecord,
    ServerRecord,
    Step,
)
from kvbench.result.verdict import Verdict
from tests.builders.requests import frame_of

if TYPE_CHECKING:
    import pandas as pd

    from kvbench.result.records import Tier
    from kvbench.result.verdict import VerdictWord

BEGAN_NS = 1_763_755_200_000_000_000
BLOCK, KV_BYTES = 16, 144
STORAGE_BYTES_PER_S = 1e9
TOKENS = 8
LENGTHS = (10_000, 20_000, 40_000)


@dataclass(frozen=True)
class Shape:
    """What an honest run is like; `gap_s` is what the client needs between two requests of a slot."""

    state: str = "warm(g4)"
    concurrency: int = 1
    prompts: int = 8
    touches: int = 1
    gap_s: float = 1e-4
    treatment: str = "g4"
    repeat: int = 1
    drift: float = 1.0


@dataclass
class MadeUpRun:
    """A run as it would be read from its files, and what it should have been."""

    record: RunRecord
    rows: list[Row]
    expected: Expected

    @property
    def measured(self) -> pd.DataFrame:
        """Its measured requests."""
        return frame_of(self.rows)

    @property
    def verdict(self) -> Verdict:
        """The verdict on it."""
        evidence = {row.request_id: row.tier_evidence for row in self.rows}
        return judge_run(self.record, self.measured, self.expected, evidence.get)

    @property
    def rules(self) -> list[str]:
        """The rules that it breaks."""
        return [reason.rule for reason in self.verdict.reasons]

    def sealed(self, word: VerdictWord = "valid") -> SealedRun:
        """Return it with a verdict."""
        return SealedRun(self.record, self.measured, Verdict(word))

    def edit(self, number: int, **fields: Any) -> None:
        """Change one row."""
        self.rows[number] = replace(self.rows[number], **fields)

    def edit_all(self, **shares: float) -> None:
        """Set times of every row to shares of its TTFT."""
        for number, row in enumerate(self.rows):
            self.edit(number, **{name: share * (row.ttft_s or 0.0) for name, share in shares.items()})

    def edit_record(self, **fields: Any) -> None:
        """Change the record."""
        self.record = replace(self.record, **fields)

    def edit_ledger(self, **fields: Any) -> None:
        """Change the ledger."""
        self.edit_record(ledger=replace(self.record.ledger, **fields))

    def edit_driver(self, **fields: Any) -> None:
        """Change what the record says of the driver."""
        self.edit_record(driver=replace(self.record.driver, **fields))

    def edit_pressure(self, **fields: float) -> None:
        """Change the pressure on the host."""
        assert self.record.host is not None
        pressure = replace(self.record.host.pressure, **fields)
        self.edit_record(host=replace(self.record.host, pressure=pressure))

    def expect(self, **fields: Any) -> None:
        """Change what it should have been."""
        self.expected = replace(self.expected, **fields)


def honest_run(seed: int = 0, shape: Shape | None = None) -> MadeUpRun:
    """Let requests follow each other in a closed loop, with the noise and the stalls that real ones have."""
    like = shape or Shape()
    chance = random.Random(f"{seed}/{like}")  # noqa: S311 - noise, no secret
    order = [f"p{number}" for number in range(like.prompts) for _ in range(like.touches)]
    chance.shuffle(order)
    free_ns = [BEGAN_NS + like.repeat * 3_600_000_000_000] * like.concurrency
    seen: set[str] = set()
    rows: list[Row] = []
    for prompt in order:
        slot = free_ns.index(min(free_ns))
        hit = like.state.startswith("warm") or (like.state == "cold" and prompt in seen)
        rows.append(_row(like, chance, f"{like.treatment}/{len(rows)}-{prompt}", free_ns[slot], hit=hit))
        free_ns[slot] = rows[-1].last_token_ns or 0
        seen.add(prompt)
    expected = Expected(len(rows), TOKENS, concurrency=like.concurrency)
    return MadeUpRun(_record(like, chance, rows), rows, expected)


def _row(like: Shape, chance: random.Random, request_id: str, free_ns: int, *, hit: bool) -> Row:
    prompt = request_id.rpartition("-")[2]
    isl = LENGTHS[int(prompt[1:]) % len(LENGTHS)]
    cached = (isl - 1) // BLOCK * BLOCK if hit else 0
    storage_s = cached * KV_BYTES / (STORAGE_BYTES_PER_S * chance.uniform(0.7, 1.0))
    computed_s = 0.02 + 1e-6 * isl if hit else 4e-5 * isl + 1.6e-9 * isl * isl
    stall = chance.choices((1.0, 3.0), (0.97, 0.03))[0]
    ttft_ns = round((computed_s * like.drift * chance.lognormvariate(0, 0.03) * stall + storage_s) * 1e9)
    sent_ns = free_ns + round(like.gap_s * chance.uniform(0.5, 1.5) * 1e9)
    last_ns = sent_ns + ttft_ns + round((TOKENS - 1) * chance.uniform(0.008, 0.012) * 1e9)
    tier: Tier = "g4" if hit else "recompute"
    return Row(
        run_id=f"r{like.repeat:02d}-{like.treatment}",
        attempt=1,
        treatment=like.treatment,
        repeat=like.repeat,
        phase="measure",
        request_id=request_id,
        prompt_id=prompt,
        conversation_id=None,
        turn=0,
        isl_target=isl,
        isl=isl,
        osl=TOKENS,
        cached_tokens=cached,
        scheduled_ns=free_ns,
        sent_ns=sent_ns,
        first_token_ns=sent_ns + ttft_ns,
        last_token_ns=last_ns,
        ttft_s=ttft_ns / 1e9,
        ttft_content_s=ttft_ns / 1e9,
        ttft_bound="exact",
        tpot_s=(last_ns - sent_ns - ttft_ns) / 1e9 / (TOKENS - 1),
        latency_s=(last_ns - sent_ns) / 1e9,
        send_lag_s=(sent_ns - free_ns) / 1e9,
        receive_lag_s=chance.uniform(5e-5, 2e-4),
        status="ok",
        error=None,
        http_status=200,
        tier=tier,
        driver="native",
        tier_evidence="counters and bytes agree",
        model="m",
        server_overrun_s=1e-4,
        server_storage_s=storage_s,
        server_path_s=storage_s * 0.9,
        server_read_bytes=cached * KV_BYTES,
    )


def _record(like: Shape, chance: random.Random, rows: list[Row]) -> RunRecord:
    cached = sum(row.cached_tokens or 0 for row in rows)
    began, ended = min(row.sent_ns or 0 for row in rows), max(row.last_token_ns or 0 for row in rows)
    window_s = (ended - began) / 1e9
    is_warm = like.state.startswith("warm")
    return RunRecord(
        run_id=rows[0].run_id,
        treatment=like.treatment,
        repeat=like.repeat,
        started="2025-11-21T20:00:00+00:00",
        load_s=window_s,
        sent_one_by_one=like.concurrency == 1,
        cache=CacheRecord(like.state, (Step("prove warm, canary-last", "proven", "all of it"),)),
        ledger=Ledger(
            requests=len(rows),
            prompt_tokens=sum(row.isl or 0 for row in rows),
            cached_tokens=cached,
            expected_cached_tokens=cached if is_warm else 0,
            counter_hits=None,
            counter_computed=None,
            read_bytes={"g4": float(cached * KV_BYTES)},
            process_read_bytes=cached * KV_BYTES,
            expected_read_bytes=cached * KV_BYTES if is_warm else 0,
            hit_efficiency=1.0 if is_warm else None,
            closes=True,
            gap=None,
        ),
        blocks=BlockRecord(BLOCK, float(KV_BYTES), "g4"),
        driver=DriverRecord(
            name="native",
            stamps="kernel",
            clock_step_s=chance.gauss(0, 1e-6),
            client_cpu_s=window_s * chance.uniform(0.02, 0.4),
            receiver_cpu_s=window_s * chance.uniform(0.001, 0.02),
            wall_s=window_s,
            connections_opened=like.concurrency - 1,
            retries=0,
        ),
        server=ServerRecord(None, "m"),
        requests=len(rows),
        network_floor_s=chance.uniform(5e-6, 2e-3),
        host=_host(chance, window_s),
    )


def _host(chance: random.Random, window_s: float) -> HostRecord:
    return HostRecord(
        before={"governor": "performance", "paths": {"g4": {"mount_options": "rw,noatime"}}},
        after={"governor": "performance", "paths": {"g4": {"mount_options": "rw,noatime"}}},
        pressure=Pressure(
            window_s=window_s,
            clock_step_s=chance.gauss(0, 1e-6),
            cpu_some_share=chance.uniform(0.0, 0.3),
            memory_some_share=chance.uniform(0.0, 0.01),
            memory_full_share=chance.uniform(0.0, 0.005),
            io_some_share=chance.uniform(0.0, 0.3),
            io_full_share=chance.uniform(0.0, 0.05),
            steal_share=chance.uniform(0.0, 0.005),
            swapped_bytes=0,
        ),
    )
