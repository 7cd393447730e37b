"""Makes a result folder of kvbench's own kind with very many requests, whose times are drawn instead of measured."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from kvbench.result.draw_file import write_draws
from kvbench.result.files import write_json
from kvbench.result.parquet_file import schema_of
from kvbench.result.record_files import write_plan, write_run
from kvbench.result.rows import ROWS, row_kinds
from kvbench.result.run_record import BlockRecord, CacheRecord, DriverRecord, Ledger, RunRecord, ServerRecord, Step
from kvbench.scenario import plan
from kvbench.scenario.scenario import Scenario

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.scenario.plan import RunSpec

RUNS, LENGTHS = 6, [1000, 4000, 10_000, 30_000]
BLOCK_TOKENS, BYTES_PER_TOKEN, TIME_SCALE = 16, 73_728 / 512, 8
STARTED_NS, STEP_NS = 1_763_755_200_000_000_000, 5_000_000


def make_result(results: Path, name: str, rows: int) -> Path:
    """Write a finished result of 2 treatments in 3 rounds and 4 prompt lengths, with so many requests in all."""
    told = {
        "name": name,
        "question": "Is a large result shown fast?",
        "server": {"emulator": {"scale": {"time": TIME_SCALE, "bytes": 512}}},
        "tiers": {"g1": "1GB", "g4": {"path": "kvcache", "capacity": "20GB"}},
        "prompts": {"lengths": LENGTHS, "per_length": 250},
        "load": {"requests": -(-rows // RUNS), "draw": "zipf", "concurrency": 28},
        "treatments": {"recompute": {"cache": "off"}, "g4": {"cache": {"warm": "g4"}}},
        "baseline": "recompute",
        "repeats": RUNS // 2,
    }
    made = plan.expand(Scenario.model_validate(told))
    folder = results / name / "20251121T200000Z"
    folder.mkdir(parents=True)
    text = io.StringIO()
    YAML().dump(told, text)
    (folder / "scenario.yaml").write_text(text.getvalue())
    write_draws(folder, made.draw_rows())
    write_plan(folder, made.record())
    write_json(folder / "facts.json", {"host": {}, "software": {}, "paths": {}})
    for number, spec in enumerate(made.runs):
        _seal(folder / "runs" / spec.run_id, spec, number)
    return folder


def _seal(folder: Path, spec: RunSpec, number: int) -> None:
    """Write the rows and the record of one run."""
    folder.mkdir(parents=True)
    columns = _columns(spec, number)
    schema = schema_of(row_kinds())
    count = len(columns["isl"])
    arrays = [_array(columns.get(field.name), field.type, count) for field in schema]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), folder / ROWS, row_group_size=50_000)
    write_run(folder, _record(spec, columns))


def _array(values: Any, kind: pa.DataType, count: int) -> pa.Array:
    if values is None or isinstance(values, str | int):
        return pa.repeat(pa.scalar(values, kind), count)
    return pa.array(values, kind)


def _columns(spec: RunSpec, number: int) -> dict[str, Any]:
    """Draw the requests of a run: TTFT grows with the length, and has a long tail."""
    draw = np.random.default_rng(number)
    draws = list(spec.draws)
    isl = np.array([one.isl_target for one in draws])
    is_warm = spec.treatment == "g4"
    base_s = 0.1616 + 3.1417e-6 * isl if is_warm else 4.136e-5 * isl + 1.5836e-9 * isl * isl
    ttft_s = np.rint(base_s / TIME_SCALE * draw.lognormal(0.05, 0.2, len(isl)) * 1e9) / 1e9
    sent_ns = STARTED_NS + number * 10**13 + np.arange(len(isl)) * STEP_NS + draw.integers(0, STEP_NS, len(isl))
    lag_ns = draw.integers(20_000, 60_000, len(isl))
    ttft_ns = np.rint(ttft_s * 1e9).astype(np.int64)
    cached = (isl - 1) // BLOCK_TOKENS * BLOCK_TOKENS * is_warm
    same = {
        "run_id": spec.run_id,
        "attempt": 1,
        "treatment": spec.treatment,
        "repeat": spec.repeat,
        "phase": "measure",
        "turn": 0,
        "osl": 8,
        "status": "ok",
        "http_status": 200,
        "ttft_bound": "exact",
        "tier": "g4" if is_warm else "recompute",
        "tier_evidence": "counters and bytes agree",
        "driver": "native",
        "model": "gpt-oss-120b",
    }
    return same | {
        "request_id": [one.request_id for one in draws],
        "prompt_id": [one.prompt_id for one in draws],
        "isl_target": isl,
        "isl": isl,
        "cached_tokens": cached,
        "scheduled_ns": sent_ns - lag_ns,
        "sent_ns": sent_ns,
        "first_token_ns": sent_ns + ttft_ns,
        "last_token_ns": sent_ns + ttft_ns + 8_000_000,
        "ttft_s": ttft_s,
        "ttft_content_s": ttft_s,
        "tpot_s": np.full(len(isl), 0.008 / 7),
        "latency_s": ttft_s + 0.008,
        "send_lag_s": lag_ns / 1e9,
        "receive_lag_s": draw.uniform(5e-5, 1e-4, len(isl)),
        "server_overrun_s": draw.uniform(0, 4e-4, len(isl)),
        "server_storage_s": cached * BYTES_PER_TOKEN / 2e9,
        "server_path_s": cached * 73_728 / 23.5e9 / TIME_SCALE,
        "server_read_bytes": np.rint(cached * BYTES_PER_TOKEN).astype(np.int64),
    }


def _record(spec: RunSpec, columns: dict[str, Any]) -> RunRecord:
    """Return a record whose ledger closes."""
    is_warm = spec.treatment == "g4"
    cached, count = int(columns["cached_tokens"].sum()), len(columns["isl"])
    read_bytes = round(cached * BYTES_PER_TOKEN)
    ledger = Ledger(
        requests=count,
        prompt_tokens=int(columns["isl"].sum()),
        cached_tokens=cached,
        expected_cached_tokens=cached,
        counter_hits=float(cached),
        counter_computed=None,
        read_bytes={"g4": read_bytes},
        process_read_bytes=read_bytes,
        expected_read_bytes=read_bytes,
        hit_efficiency=1.0 if is_warm else None,
        closes=True,
        gap=None,
    )
    return RunRecord(
        run_id=spec.run_id,
        treatment=spec.treatment,
        repeat=spec.repeat,
        started="2025-11-21T20:00:00+00:00",
        load_s=float(columns["last_token_ns"].max() - columns["sent_ns"].min()) / 1e9,
        cache=CacheRecord("warm(g4)" if is_warm else "off", (Step("prove", "proven", "made up"),)),
        ledger=ledger,
        blocks=BlockRecord(BLOCK_TOKENS, BYTES_PER_TOKEN, "g4"),
        driver=DriverRecord("native", "kernel", client_cpu_s=0.4, wall_s=count * STEP_NS / 1e9, clock_step_s=1e-5),
        server=ServerRecord("http://127.0.0.1:8000/v1", "gpt-oss-120b", {"block_tokens": 16, "tiers": {"g4": {}}}),
        requests=count,
        load_1min=0.4,
    )
