"""Lays out what another tool measured as a result folder, of the same contract as one that `kvbench run` makes.

Everything is read and judged before anything is written. The files that were read are copied into `source/`, byte for
byte unless they hold a secret. There is no scenario: nobody asked for anything, so nothing is compared with a plan.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kvbench import __version__, store
from kvbench.errors import OptionError, ResultError
from kvbench.importers import aiperf, guidellm, vllm
from kvbench.importers.source import EXPORTS, Source, parse, shared
from kvbench.records import Row, sum_of_all
from kvbench.redact import without_named_secrets
from kvbench.result.plan_record import Design, PlannedRun, PlanRecord
from kvbench.result.record_files import write_plan
from kvbench.result.run_record import CacheRecord, DriverRecord, Ledger, RunRecord, ServerRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kvbench.importers.source import Part, Seen

READERS: dict[str, Callable[[Path], Source]] = {"aiperf": aiperf.read, "guidellm": guidellm.read, "vllm": vllm.read}
UNKNOWN_STATE = "unknown"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NO_BOOKS = "no books: another tool's export holds no counters of a cache"
_NO_TIER = "imported: no source tells which tier served it"
_ALWAYS = (
    "The cache's state: none was set or proven, so which tier served a request is not known.",
    "The server's settings, its host and its storage.",
    "Kernel time stamps: all times are those of the tool's own clock.",
)
_COLUMNS = (
    ("isl", "Prompt tokens"),
    ("osl", "Output tokens"),
    ("cached_tokens", "Cached tokens"),
    ("ttft_s", "TTFT"),
    ("latency_s", "Latency"),
    ("sent_ns", "Wall-clock times"),
)


def import_result(tool: str, path: Path, results: Path, name: str | None = None) -> Path:
    """Read an export of another tool and write it as a result folder; return the folder.

    Raises:
        ResultError: the tool is not known, or the file is not its export.
        OptionError: the name cannot be one of a folder.
        StorageError: the folder cannot be written.

    """
    if tool not in READERS:
        raise ResultError(f"{tool} is not a tool that can be imported from", f"Use --from {', '.join(READERS)}.")
    named = name if name is not None else _name_of(tool, path)
    if _NAME.fullmatch(named) is None:
        remedy = "Use letters, digits, dots, hyphens and underscores, with --name NAME."
        raise OptionError(f"{named!r} cannot be the name of a result", remedy)
    source = READERS[tool](path)
    if not any(seen.phase == "measure" for part in source.parts for seen in part.seen):
        raise ResultError(f"{path} holds no measured request", "Give the file of a run that measured something.")
    return _write(source, named, results)


def _name_of(tool: str, path: Path) -> str:
    """Name a result by its file; by its folder where the tool gives every file the same name."""
    path = path.absolute()
    own = path.name if path.is_dir() else path.stem if not path.stem.startswith("profile_export") else path.parent.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{tool}-{own}").strip("-.")


def _write(source: Source, name: str, results: Path) -> Path:
    fingerprint = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in source.files))
    folder = store.open_result(results, name, fingerprint.hexdigest(), fresh=True)
    runs = _runs(source)
    hidden = sum(_copy(file, folder.path / "source" / file.name) for file in source.files)
    folder.write_json("facts.json", {"imported": _about(source, hidden), "software": {"kvbench": __version__}})
    write_plan(folder.path, _plan(source, name, fingerprint.hexdigest(), runs))
    for run, part in runs:
        _seal(folder, source, run, part)
    return folder.path


def _runs(source: Source) -> list[tuple[PlannedRun, Part]]:
    """Number the parts: what bears the same name is another round of the same treatment."""
    rounds: dict[str, int] = {}
    runs = []
    for part in source.parts:
        rounds[part.treatment] = repeat = rounds.get(part.treatment, 0) + 1
        runs.append((PlannedRun(f"r{repeat:02d}-{part.treatment}", part.treatment, repeat), part))
    return runs


def _about(source: Source, hidden: int) -> dict[str, Any]:
    """Say where a result comes from and what it lacks."""
    seen = [one for part in source.parts for one in part.seen if one.phase == "measure" and one.status == "ok"]
    return {
        "from": source.tool,
        "export": EXPORTS[source.tool],
        "tool_version": source.version,
        "file": source.files[0].name,
        "missing": [*_ALWAYS, *source.missing, *_absent(seen)],
        "secrets_hidden": hidden,
        "imported_at": datetime.now(UTC).isoformat(),
    }


def _absent(answered: list[Seen]) -> list[str]:
    """Name the columns that are empty, in all answered requests or in some."""
    sentences = []
    for column, label in _COLUMNS:
        count = sum(getattr(seen, column) is None for seen in answered)
        if count:
            where = f"all {count}" if count == len(answered) else f"{count} of {len(answered)}"
            sentences.append(f"{label} of {where} answered requests.")
    return sentences


def _plan(source: Source, name: str, fingerprint: str, runs: list[tuple[PlannedRun, Part]]) -> PlanRecord:
    """Write down what is there in the form of a plan; what nobody planned is null or empty."""
    design = Design(
        question=f"What did {source.tool} measure, as far as its export tells?",
        server="external",
        treatments=tuple(dict.fromkeys(part.treatment for part in source.parts)),
        repeats=max(run.repeat for run, _ in runs),
        concurrency=shared([part.concurrency for part in source.parts]),
        imported=source.tool,
    )
    return PlanRecord(name, fingerprint, "", 0, tuple(run for run, _ in runs), design)


def _seal(folder: store.ResultFolder, source: Source, run: PlannedRun, part: Part) -> None:
    opened = folder.open_run(run.run_id)
    journal = opened.open_journal()
    rows = [_row(source.tool, run, place, seen) for place, seen in enumerate(part.seen)]
    for row in rows:
        journal.append(row)
    journal.close()
    opened.seal(_record(source, run, part, rows))


def _row(tool: str, run: PlannedRun, place: int, seen: Seen) -> Row:
    own_id = seen.request_id or "request"
    return Row(
        run_id=run.run_id,
        treatment=run.treatment,
        repeat=run.repeat,
        attempt=1,
        phase=seen.phase,
        request_id=f"{run.run_id}/{place:03d}-{own_id}",
        prompt_id=seen.conversation_id or f"{place:03d}",
        conversation_id=seen.conversation_id,
        turn=seen.turn,
        isl_target=None,
        isl=seen.isl,
        osl=seen.osl,
        cached_tokens=seen.cached_tokens,
        scheduled_ns=seen.scheduled_ns,
        sent_ns=seen.sent_ns,
        first_token_ns=_after(seen.sent_ns, seen.ttft_s),
        last_token_ns=_after(seen.sent_ns, seen.latency_s),
        ttft_s=seen.ttft_s,
        ttft_content_s=seen.ttft_content_s,
        ttft_bound=None,
        tpot_s=_tpot_s(seen),
        latency_s=seen.latency_s,
        send_lag_s=seen.send_lag_s,
        receive_lag_s=None,
        status=seen.status,
        error=without_named_secrets(seen.error),
        http_status=seen.http_status,
        tier=None,
        driver=tool,
        tier_evidence=_NO_TIER,
        model=without_named_secrets(seen.model),
    )


def _after(sent_ns: int | None, seconds: float | None) -> int | None:
    moment_ns = None if sent_ns is None or seconds is None else sent_ns + round(seconds * 1e9)
    return moment_ns if moment_ns is not None and moment_ns < 2**63 else None


def _tpot_s(seen: Seen) -> float | None:
    """Formula: (latency - TTFT) / (OSL - 1), as for requests of our own."""
    if seen.latency_s is None or seen.ttft_s is None or not seen.osl or seen.osl < 2 or seen.latency_s < seen.ttft_s:
        return None
    return (seen.latency_s - seen.ttft_s) / (seen.osl - 1)


def _record(source: Source, run: PlannedRun, part: Part, rows: list[Row]) -> RunRecord:
    """Write the `run.json` of an imported run: what its requests tell, and null for the rest."""
    good = [row for row in rows if row.phase == "measure" and row.status == "ok"]
    sent = [row.sent_ns for row in rows if row.phase == "measure" and row.sent_ns is not None]
    lengths, cached = [row.isl for row in good], [row.cached_tokens for row in good]
    return RunRecord(
        run_id=run.run_id,
        treatment=run.treatment,
        repeat=run.repeat,
        started=datetime.fromtimestamp(min(sent) / 1e9, UTC).isoformat() if sent else None,
        load_s=part.load_s,
        cache=CacheRecord(UNKNOWN_STATE),
        ledger=Ledger(
            requests=len(good),
            prompt_tokens=sum_of_all(lengths),
            cached_tokens=sum_of_all(cached),
            expected_cached_tokens=None,
            counter_hits=None,
            counter_computed=None,
            read_bytes={},
            process_read_bytes=None,
            expected_read_bytes=None,
            hit_efficiency=None,
            closes=False,
            gap=_NO_BOOKS,
        ),
        blocks=None,
        driver=DriverRecord(source.tool, stamps="the tool's own clock", version=source.version),
        server=ServerRecord(without_named_secrets(source.url), source.model),
        imported=source.tool,
    )


def _copy(file: Path, target: Path) -> int:
    """Copy a file without its secrets, line by line where each is JSON; return how many lines held one."""
    content = file.read_bytes()
    document = parse(content)
    if document is not None:
        clean = without_named_secrets(document)
        store.write_atomic(target, content if clean == document else json.dumps(clean, indent=1).encode() + b"\n")
        return int(clean != document)
    lines, hidden = [], 0
    for line in content.splitlines(keepends=True):
        value = parse(line)
        clean = without_named_secrets(value)
        hidden += clean != value
        lines.append(line if clean == value else json.dumps(clean).encode() + b"\n")
    store.write_atomic(target, b"".join(lines))
    return hidden
