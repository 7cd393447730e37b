"""Builds result folders that are true to the schema, with modelled times instead of measured ones."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from ruamel.yaml import YAML

from kvbench.result.files import write_json
from kvbench.result.record_files import write_plan, write_run
from kvbench.result.records import Row
from kvbench.result.run_record import (
    BlockRecord,
    CacheRecord,
    DriverRecord,
    Ledger,
    RunRecord,
    ServerRecord,
    Step,
)
from kvbench.scenario import plan
from kvbench.scenario.scenario import Scenario
from tests.builders.requests import table_of

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.result.records import Status, Tier
    from kvbench.scenario.plan import RunSpec

STARTED_NS = 1_763_755_200_000_000_000
LENGTHS = ["10k", "30k", "50k", "70k", "90k", "110k", "130k"]
FACTS: dict[str, Any] = {
    "host": {
        "cpu": "Example CPU <8 cores>",
        "cores": 8,
        "cores_usable": 2,
        "memory_bytes": 16_777_216_000,
        "kernel": "6.12.0",
        "system": "Linux",
        "governor": "performance",
        "clock_source": "tsc",
        "congestion_control": "cubic",
        "load_1min": 0.12,
    },
    "software": {"kvbench": "0.1.0", "python": "3.11.9", "git": {"commit": "0123456789abcdef" * 2, "dirty": True}},
    "paths": {
        "g4": {
            "path": "/data/kvcache",
            "file_system": "ext4",
            "mount_point": "/data",
            "mount_options": "rw,relatime,noatime,errors=remount-ro",
            "source": "/dev/nvme0n1p1",
            "free_bytes": 21_000_000_000,
            "queue": {"scheduler": "[none] mq-deadline", "rotational": "0", "nr_requests": "1023"},
        }
    },
}


@dataclass
class Case:
    """What a synthetic result should be like."""

    name: str = "ttft-sweep"
    question: str = "How does TTFT grow with prompt length when KV is recomputed, and when it is read back from G4?"
    lengths: list[Any] = field(default_factory=lambda: list(LENGTHS))
    treatments: dict[str, Any] = field(
        default_factory=lambda: {"recompute": {"cache": "off"}, "g4": {"cache": {"warm": "g4"}}}
    )
    baseline: str | None = "recompute"
    repeats: int = 5
    scale: dict[str, Any] | None = field(default_factory=lambda: {"time": 8, "bytes": 512})
    published: str | None = "ibm-storage-scale/benchmark-1"
    load: dict[str, Any] = field(default_factory=dict)
    per_length: int | None = None
    turns: dict[str, Any] | None = None
    url: str = "http://127.0.0.1:8000/v1"
    unproven: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    slower: dict[str, float] = field(default_factory=dict)
    shift: int = 0  # another result's requests spread in another order
    jitter: float = 0.004
    folder: str = "20251121T200000Z"
    facts: dict[str, Any] = field(default_factory=lambda: FACTS)

    def scenario(self) -> Scenario:
        """Make the scenario of this case."""
        return Scenario.model_validate(self.mapping())

    def mapping(self) -> dict[str, Any]:
        """Return the scenario as it stands in its file."""
        scaled = {"emulator": {"profile": "gpt-oss-120b_rtx-pro-6000", "scale": self.scale}}
        external = {"external": {"url": self.url, "model": "gpt-oss-120b", "api_key_env": "KEY_NAME"}}
        return {
            "name": self.name,
            "question": self.question,
            "server": scaled if self.scale else external,
            "tiers": {"g1": "20GB", "g4": {"path": "kvcache", "capacity": "20GB"}},
            "prompts": {
                "lengths": self.lengths,
                "output_tokens": 8,
                "seed": 1,
                **({"per_length": self.per_length} if self.per_length else {}),
                **({"turns": self.turns} if self.turns else {}),
            },
            **({"load": self.load} if self.load else {}),
            "treatments": self.treatments,
            "repeats": self.repeats,
            **({"baseline": self.baseline} if self.baseline else {}),
            **({"published": self.published} if self.published else {}),
        }


def build(case: Case, results: Path) -> Path:
    """Write a whole result folder, but for its summary, and return its path."""
    scenario = case.scenario()
    plan_ = plan.expand(scenario)
    folder = results / case.name / case.folder
    folder.mkdir(parents=True)
    text = io.StringIO()
    YAML().dump(case.mapping(), text)
    (folder / "scenario.yaml").write_text(text.getvalue())
    write_plan(folder, plan_.record())
    write_json(folder / "facts.json", case.facts)
    for number, spec in enumerate(plan_.runs):
        if spec.run_id not in case.missing:
            _seal_run(case, scenario, spec, folder / "runs" / spec.run_id, number)
    return folder


def write_requests(run_folder: Path, rows: list[Row]) -> None:
    """Write the requests of a run, or write them again."""
    run_folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table_of(rows), run_folder / "requests.parquet")


def _seal_run(case: Case, scenario: Scenario, spec: RunSpec, folder: Path, number: int) -> None:
    warm = scenario.treatments[spec.treatment].warm_tier
    blocks = BlockRecord(16, 73_728 / (case.scale["bytes"] if case.scale else 1), "g4")
    rows = [make_row(case, spec, number, place, warm) for place in range(len(spec.draws))]
    unproven = spec.run_id in case.unproven
    tier: Tier = "unproven" if unproven else warm or "recompute"
    evidence = "the server has no hit counters" if unproven else "counters and bytes agree"
    rows = [replace(row, tier=tier, tier_evidence=evidence) for row in rows]
    write_requests(folder, rows)
    write_run(folder, record_of(case, spec, rows, blocks, warm))


def make_row(case: Case, spec: RunSpec, number: int, place: int, warm: str | None) -> Row:
    """Model one request: the published curves over the time scale, with a small spread that repeats exactly."""
    draw = spec.draws[place]
    n = draw.isl_target
    warm_s = {"g1": 0.05 + 1e-7 * n, "g4": 0.1616 + 3.1417e-6 * n}.get(warm or "", 4.136e-5 * n + 1.5836e-9 * n * n)
    jitter = 1 + case.jitter * (((number * 7 + place * 3 + case.shift) % 11) - 5) / 5
    time_scale = case.scale["time"] if case.scale else 1
    ttft = warm_s * jitter * case.slower.get(spec.treatment, 1.0) / time_scale
    failed = spec.run_id in case.failing and place == 0
    sent = STARTED_NS + number * 600_000_000_000 + place * (5_000_000_000 if case.scale else 50_000_000_000)
    cached = (n - 1) // 16 * 16 if warm else 0
    status: Status = "cut" if failed else "ok"
    return Row(
        run_id=spec.run_id,
        attempt=1,
        treatment=spec.treatment,
        repeat=spec.repeat,
        phase="measure",
        request_id=draw.request_id,
        prompt_id=draw.prompt_id,
        conversation_id=draw.conversation_id,
        turn=draw.turn,
        isl_target=n,
        isl=n,
        osl=8,
        cached_tokens=cached,
        scheduled_ns=sent - 42_000,
        sent_ns=sent,
        first_token_ns=sent + round(ttft * 1e9),
        last_token_ns=sent + round(ttft * 1e9) + 8_000_000,
        ttft_s=ttft,
        ttft_content_s=ttft,
        ttft_bound="upper" if (number, place) == (3, 2) else "exact",
        tpot_s=0.001,
        latency_s=None if failed else ttft + 0.008,
        send_lag_s=42e-6 + 1e-6 * place,
        receive_lag_s=85e-6 + 2e-6 * place,
        status=status,
        error="connection closed" if failed else None,
        http_status=200,
        tier=None,
        driver="native",
        model="gpt-oss-120b",
        server_overrun_s=0.0004 if case.scale else None,
        server_storage_s=cached * 144 / 2e9 if case.scale and warm == "g4" else None,
        server_path_s=cached * 73_728 / 23.5e9 / time_scale if case.scale and warm == "g4" else None,
        server_read_bytes=cached * 144 if case.scale and warm == "g4" else None,
    )


def record_of(case: Case, spec: RunSpec, rows: list[Row], blocks: BlockRecord, warm: str | None) -> RunRecord:
    """Return what `run.json` keeps of a run."""
    good = [row for row in rows if row.status == "ok"]
    cached = sum(row.cached_tokens or 0 for row in good)
    moved = cached * (blocks.kv_bytes_per_token or 0) if warm == "g4" else 0
    ledger = Ledger(
        requests=len(good),
        prompt_tokens=sum(row.isl_target or 0 for row in good),
        cached_tokens=cached,
        expected_cached_tokens=sum(((row.isl_target or 1) - 1) // 16 * 16 for row in good) if warm else 0,
        counter_hits=float(cached),
        counter_computed=None,
        read_bytes={"g4": moved},
        process_read_bytes=None if not case.scale else round(moved * 1.002),
        expected_read_bytes=None if not case.scale else round(moved),
        hit_efficiency=1.0 if warm else None,
        closes=spec.run_id not in case.unproven,
        gap="the server has no hit counters" if spec.run_id in case.unproven else None,
    )
    return RunRecord(
        run_id=spec.run_id,
        treatment=spec.treatment,
        repeat=spec.repeat,
        started=f"2025-11-21T20:{spec.repeat:02d}:07.123456+00:00",
        load_s=(max(row.last_token_ns or 0 for row in rows) - min(row.sent_ns or 0 for row in rows)) / 1e9,
        cache=CacheRecord(
            f"warm({warm})" if warm else "off", tuple(_steps(warm, unproven=spec.run_id in case.unproven))
        ),
        ledger=ledger,
        blocks=blocks,
        driver=DriverRecord(
            "native", "kernel", receiver_priority="0", client_cpu_s=0.41, wall_s=30.2, clock_step_s=1.2e-5
        ),
        server=ServerRecord(case.url, "gpt-oss-120b", {"block_tokens": 16, "tiers": {"g4": {}}}),
        requests=len(rows),
        load_1min=0.4,
    )


def _steps(warm: str | None, *, unproven: bool) -> list[Step]:
    if warm is None:
        text = "a canary sent twice was computed twice: 0 cached tokens, 0 hits, 0 bytes read"
        return [Step("prove off", "not established" if unproven else "proven", text)]
    told = f"served from {warm}: 9,984 cached tokens = external hits, 1,441,792 bytes read by {warm} = 1,441,792 by "
    return [
        Step("canary resident", "proven", f"second sending {told}/proc/PID/io"),
        Step("empty directory", "proven", "3 files deleted, 0 left"),
        Step("reset, external tiers too", "done", "it says it succeeded, at attempt 1"),
        Step("prime", "proven", "9 prompts, 510,000 tokens, 73.4 MB of files, in 1 rounds"),
        Step("page cache", "proven", "the tier is read with O_DIRECT, which is enforced"),
        Step("prove warm, canary-first", "proven", f"{told}/proc/PID/io"),
    ]
