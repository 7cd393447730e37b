"""A made-up result with neighbours: a closed loop that draws what the side clients leave of a bottleneck.

Nothing in it was measured. Rates follow from `Dose`, with a jitter that repeats exactly, so every figure can be worked
out by hand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kvbench.result.files import write_json
from kvbench.result.record_files import write_plan, write_run
from kvbench.result.run_record import (
    Attempt,
    BlockRecord,
    BottleneckRecord,
    LostHost,
    NeighborRecord,
    SideClientRecord,
    TrialRecord,
    Window,
)
from kvbench.result.verdict import Reason, Verdict
from kvbench.scenario import plan
from tests.builders import results as synthetic
from tests.builders.results import STARTED_NS, Case, make_row, write_requests

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from kvbench.result.records import Row, Tier
    from kvbench.scenario.plan import RunSpec
    from kvbench.typed_json import JsonObject

LIMIT = 300e6
ALONE = 290e6  # what the side clients reach together when nobody else reads
CLIENTS = ("c1", "c2", "c3", "c4")
SLOTS, TOKENS = 8, 30_000
LEVELS: dict[str, tuple[str, dict[str, float | None]]] = {
    **{f"storage_{percent}": ("storage", {"aggregate": None, "fraction": percent / 100}) for percent in (25, 50, 63)},
    "storage_unlimited": ("storage", {"aggregate": None, "fraction": None}),
    "fabric": ("fabric", {"aggregate": 200e6, "fraction": None}),
}
LOADS: dict[str, Any] = {"storage": {"fio": {"rw": "read"}}, "fabric": {"iperf3": {"reverse": True}}}


@dataclass
class Dose:
    """What the made-up result should be like.

    `draw` is what the quiet load draws of the limit, `greed` how many shares unlimited neighbours take to its one,
    `made` whether the bottleneck could be made, `lost` are runs whose first try was broken off, `gone` runs in which a
    host was lost for good.
    """

    repeats: int = 5
    levels: dict[str, tuple[str, dict[str, float | None]]] = field(default_factory=lambda: dict(LEVELS))
    draw: float = 0.99
    greed: float = 5.0
    made: bool = True
    kind: Literal["disk", "link"] = "disk"
    asked: bool = True
    lost: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    with_recompute: bool = True
    jitter: float = 0.01
    published: str | None = None
    loads: dict[str, Any] = field(default_factory=lambda: dict(LOADS))

    def case(self) -> Case:
        """Return the result without its neighbours."""
        treatments = {"quiet": {"cache": {"warm": "g4"}}} | {name: {"cache": {"warm": "g4"}} for name in self.levels}
        recompute = {"recompute": {"cache": "off"}} if self.with_recompute else {}
        return _Loop(
            name="noisy-neighbor",
            question="How much throughput does a G4 tier lose while neighbours load the same storage?",
            lengths=["30k"],
            treatments={**recompute, **treatments},
            baseline="quiet",
            repeats=self.repeats,
            scale={"time": 16, "bytes": 64},
            published=self.published,
        )

    def delivered(self, treatment: str, repeat: int) -> float:
        """Return what the neighbours of a run deliver."""
        load, target = self.levels.get(treatment, (None, None))
        if load is None or target is None:
            return 0.0
        wobble = 1 + self.jitter * ((repeat * 5 + len(treatment)) % 5 - 2) / 4
        if target["fraction"] is not None:
            return target["fraction"] * ALONE * 0.99 * wobble
        if target["aggregate"] is not None:
            return target["aggregate"] * wobble
        return LIMIT * self.greed / (1 + self.greed) * wobble

    def draws(self, treatment: str, repeat: int) -> float:
        """Return what the load draws of KV in a run: what is left where the neighbours share the bottleneck."""
        wobble = 1 + self.jitter * ((repeat * 3 + len(treatment)) % 7 - 3) / 3
        if treatment not in self.levels or self.levels[treatment][0] == "fabric":
            return self.draw * LIMIT * wobble
        return self.draw * (LIMIT - self.delivered(treatment, repeat)) * wobble


class _Loop(Case):
    """A throughput experiment: 60 requests of one length, eight at a time."""

    def mapping(self) -> dict[str, Any]:
        return {
            **super().mapping(),
            "prompts": {"lengths": self.lengths, "per_length": 30, "output_tokens": 8, "seed": 1},
            "load": {"driver": "native", "concurrency": SLOTS, "requests": 60, "draw": "with_replacement"},
        }


def build(dose: Dose, results: Path) -> Path:
    """Write a whole result folder and return its path."""
    case = dose.case()
    planned = plan.expand(case.scenario())
    folder = results / case.name / case.folder
    folder.mkdir(parents=True)
    (folder / "scenario.yaml").write_text(f"name: {case.name}\nquestion: {case.question}\n")
    record = planned.record()
    for name, definition in record.design.definitions.items():
        load, target = dose.levels.get(name, (None, None))
        definition["neighbors"] = {load: {**target}} if load is not None and target is not None else None
    record.design.setting["neighbors"] = {"loads": dose.loads}
    write_plan(folder, record)
    write_json(folder / "facts.json", case.facts)
    for number, spec in enumerate(planned.runs):
        _seal(dose, case, folder / "runs" / spec.run_id, number, spec)
    return folder


def _seal(dose: Dose, case: Case, folder: Path, number: int, spec: RunSpec) -> None:
    blocks, warm = BlockRecord(16, 73_728 / 64, "g4"), None if spec.treatment == "recompute" else "g4"
    tier: Tier = "g4" if warm else "recompute"
    rows = [
        replace(row, tier=tier, tier_evidence="counters and bytes agree")
        for row in _rows(dose, case, number, spec, blocks, warm)
    ]
    write_requests(folder, rows)
    window = (min(row.sent_ns or 0 for row in rows), max(row.last_token_ns or 0 for row in rows))
    record = synthetic.record_of(case, spec, rows, blocks, warm)
    write_run(folder, replace(record, neighbors=told(dose, spec, window), bottleneck=_bottleneck(dose)))
    _write_samples(dose, spec, window, folder / "neighbors")


def _bottleneck(dose: Dose) -> BottleneckRecord | None:
    if not dose.asked:
        return None
    if dose.made:
        return BottleneckRecord(dose.kind, LIMIT, "cgroup v1 blkio", "reads are limited")
    why = "no read limit could be made (cgroup v1 blkio: permission denied)"
    return BottleneckRecord(dose.kind, LIMIT, None, why)


def _rows(dose: Dose, case: Case, number: int, spec: RunSpec, blocks: BlockRecord, warm: str | None) -> list[Row]:
    """Let requests follow one another in a closed loop that draws at an even rate."""
    cached = (TOKENS - 1) // 16 * 16 if warm else 0
    bytes_each = cached * (blocks.kv_bytes_per_token or 0)
    each_s = bytes_each / dose.draws(spec.treatment, spec.repeat) if warm else 0.6
    began = STARTED_NS + number * 600_000_000_000
    rows = []
    for place in range(len(spec.draws)):
        sent_s, end_s = max(0, place - SLOTS + 1) * each_s, (place + 1) * each_s
        ttft_s = (end_s - sent_s) * (0.98 - 0.02 * (place % 3))
        sent = began + round(sent_s * 1e9)
        row = make_row(case, spec, number, place, warm)
        rows.append(
            replace(
                row,
                scheduled_ns=sent,
                sent_ns=sent,
                first_token_ns=sent + round(ttft_s * 1e9),
                last_token_ns=began + round(end_s * 1e9),
                ttft_s=ttft_s,
                ttft_content_s=ttft_s,
                ttft_bound="exact",
                latency_s=end_s - sent_s,
                tpot_s=(end_s - sent_s - ttft_s) / 7,
                send_lag_s=0.0,
                server_storage_s=ttft_s * 0.9 if warm else None,
                server_read_bytes=round(bytes_each) if warm else None,
            )
        )
    return rows


def told(dose: Dose, spec: RunSpec, window: tuple[int, int]) -> NeighborRecord:
    """Return what `run.json` keeps of the neighbours of one run."""
    load, target = dose.levels.get(spec.treatment, (None, None))
    total, noisy = dose.delivered(spec.treatment, spec.repeat), load is not None
    asked = None
    if target is not None:
        asked = target["aggregate"] or (ALONE * target["fraction"] if target["fraction"] else None)
    gone = spec.run_id in dose.gone
    reason = Reason("invalid", "neighbour lost", "c2 was lost: no word for 3 s", "Repeat.")
    return NeighborRecord(
        load=load,
        generator={"storage": "fio", "fabric": "iperf3"}.get(load or ""),
        target=_target_text(target) if target is not None else "quiet",
        delivered_bytes_per_s=total,
        label=f"{total / 1e6:.0f} MB/s" if noisy else "quiet",
        window=Window(*window),
        verdict=Verdict("invalid", (reason,)) if gone else Verdict("valid"),
        asked_bytes_per_s=asked,
        calibrated_bytes_per_s=ALONE if load == "storage" else None,
        delivered_over_asked=total / asked if asked else None,
        trial=_trial(window) if noisy else None,
        hosts={name: _host(total / 4, load, noisy=noisy) for name in CLIENTS},
        lost=(LostHost("c2", "no word for 3 s", window[0] + 1_000_000_000),) if gone else (),
        attempts=(Attempt("c3 was lost: its agent ended"),) if spec.run_id in dose.lost else (),
    )


def _target_text(target: dict[str, float | None]) -> str:
    if target["aggregate"] is not None:
        return f"{target['aggregate'] / 1e6:.0f} MB/s"
    return "unlimited" if target["fraction"] is None else f"{target['fraction'] * 100:g} %"


def _trial(window: tuple[int, int]) -> TrialRecord:
    return TrialRecord(
        at_ns=window[0] - 3_500_000_000,
        start_skew_s=0.004,
        ramp_s=3.1,
        steady=True,
        lead_s=3.5,
        stop_asked_ns=window[1] + 250_000_000,
        stop_s=0.12,
    )


def _host(rate: float, load: str | None, *, noisy: bool) -> SideClientRecord:
    disk = load != "fabric"
    facts: JsonObject = {
        "host": "made-up",
        "direct": "enforced",
        "queue": {"scheduler": "none [mq-deadline] kyber"},
        "file_system": "ext4",
    }
    fabric: JsonObject = {"host": "made-up", "direct": None, "queue": None, "file_system": None}
    return SideClientRecord(
        delivered_bytes_per_s=rate,
        device="disk" if disk else "interface",
        asked_bytes_per_s=rate,
        coverage=1.0 if noisy else None,
        moving=1.0 if noisy else None,
        device_bytes_per_s=4 * rate * 1.001 + 1e6,
        device_shared_with_server=disk,
        clock_error_s=0.00012,
        clock_drift_s=-0.00003,
        facts={**(facts if disk else fabric), "version": "fio-3.33" if disk else "iperf 3.12"},
    )


def _write_samples(dose: Dose, spec: RunSpec, window: tuple[int, int], folder: Path) -> None:
    """Write what agents would say: five samples a second of cumulative bytes, on a clock that is a second ahead."""
    rate, ahead = dose.delivered(spec.treatment, spec.repeat) / 4, 1_000_000_000
    folder.mkdir()
    trial = _trial(window)
    for client in CLIENTS:
        lines: list[dict[str, Any]] = [{"t_ns": trial.at_ns - 900_000_000, "event": "sample", "moved": None}]
        if rate:
            begin, end = trial.at_ns, (trial.stop_asked_ns or 0) + 120_000_000
            lines.append({"t_ns": begin + 5_000_000, "event": "started", "at_ns": begin + ahead, "pid": 1})
            for t_ns in range(begin + 200_000_000, end, 200_000_000):
                moved = [t_ns + ahead - 3_000_000, rate * (t_ns - 3_000_000 - begin) / 1e9]
                lines.append({"t_ns": t_ns, "event": "sample", "moved": moved})
            lines.append({"t_ns": end, "event": "final", "moved": [end + ahead, rate * (end - begin) / 1e9]})
        text = "".join(json.dumps({**line, "clock_ns": line["t_ns"] + ahead}) + "\n" for line in lines)
        (folder / f"{client}.jsonl").write_text(text)
