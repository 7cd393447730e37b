"""Writes what another tool measured as a result folder of the same form as `kvbench run` writes.

Everything is read and judged before anything is written. The files that were read are copied into `source/`, without
their secrets, and compressed if they are large. There is no scenario: nobody asked for anything, so nothing is compared
with a plan.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from kvbench import __version__
from kvbench.errors import OptionError, ResultError
from kvbench.importers.export_kind import shared
from kvbench.importers.registry import IMPORTERS
from kvbench.importers.rows import rows_of
from kvbench.importers.source_copy import copy_without_secrets
from kvbench.result.folder import ResultFolder, open_result
from kvbench.result.plan_record import Design, PlannedRun, PlanRecord
from kvbench.result.record_files import write_plan
from kvbench.result.redact import without_named_secrets
from kvbench.result.run_record import CacheRecord, DriverRecord, Ledger, RunRecord, ServerRecord
from kvbench.strict_yaml import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

    from kvbench.importers.export import Part, Source
    from kvbench.importers.source_copy import Copied
    from kvbench.typed_json import JsonObject

UNKNOWN_STATE = "unknown"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NO_BOOKS = "no books: another tool's export holds no counters of a cache"
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
        ResultError: the file is not an export of this tool.
        OptionError: the tool is not known, or the name cannot be one of a folder.
        StorageError: the folder cannot be written.

    """
    if tool not in IMPORTERS:
        raise OptionError(f"{tool} is not a tool that can be imported from", nearest(tool, IMPORTERS))
    named = name if name is not None else _name_of(tool, path)
    if _NAME.fullmatch(named) is None:
        remedy = "Use letters, digits, dots, hyphens and underscores, with --name NAME."
        raise OptionError(f"{named!r} cannot be the name of a result", remedy)
    source = IMPORTERS[tool].read(path)
    if not any(_is_measured(part.requests).true_count for part in source.parts):
        raise ResultError(f"{path} holds no measured request", "Give the file of a run that measured something.")
    return _write(source, named, results)


def _name_of(tool: str, path: Path) -> str:
    """Name a result by its file; by its folder where the tool gives every file the same name."""
    path = path.absolute()
    own = path.name if path.is_dir() else path.stem if not path.stem.startswith("profile_export") else path.parent.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{tool}-{own}").strip("-.")


def _write(source: Source, name: str, results: Path) -> Path:
    folder = open_result(results, name, "", fresh=True)
    runs = _runs(source)
    copies = [copy_without_secrets(file, folder.path / "source") for file in source.files]
    fingerprint = hashlib.sha256(b"".join(copy.sha256 for copy in copies)).hexdigest()
    folder.write_json("facts.json", {"imported": _about(source, copies), "software": {"kvbench": __version__}})
    write_plan(folder.path, _plan(source, name, fingerprint, runs))
    for run, part in runs:
        _seal(folder, source, run, part)
    return folder.path


def _is_measured(requests: pa.Table) -> pa.Array:
    return pc.equal(requests["phase"], "measure").combine_chunks()


def _answered(requests: pa.Table, columns: list[str]) -> pa.Table:
    """Return some columns of the measured requests that were answered."""
    is_answered = pc.and_(pc.equal(requests["phase"], "measure"), pc.equal(requests["status"], "ok"))
    return requests.select(columns).filter(is_answered)


def _runs(source: Source) -> list[tuple[PlannedRun, Part]]:
    """Number the parts: what bears the same name is another round of the same treatment."""
    rounds: dict[str, int] = {}
    runs = []
    for part in source.parts:
        rounds[part.treatment] = repeat = rounds.get(part.treatment, 0) + 1
        runs.append((PlannedRun(f"r{repeat:02d}-{part.treatment}", part.treatment, repeat), part))
    return runs


def _about(source: Source, copies: Sequence[Copied]) -> JsonObject:
    """Say where a result comes from and what it lacks."""
    return {
        "from": source.tool,
        "export": IMPORTERS[source.tool].export,
        "tool_version": source.version,
        "file": copies[0].name,
        "missing": [*_ALWAYS, *source.missing, *_absent(source)],
        "secrets_hidden": sum(copy.hidden for copy in copies),
        "imported_at": datetime.now(UTC).isoformat(),
    }


def _absent(source: Source) -> list[str]:
    """Name the columns that are empty, in all answered requests or in some."""
    answered = [_answered(part.requests, [column for column, _ in _COLUMNS]) for part in source.parts]
    total = sum(len(requests) for requests in answered)
    sentences = []
    for column, label in _COLUMNS:
        count = sum(requests[column].null_count for requests in answered)
        if count:
            where = f"all {count}" if count == total else f"{count} of {total}"
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


def _seal(folder: ResultFolder, source: Source, run: PlannedRun, part: Part) -> None:
    opened = folder.open_run(run.run_id)
    opened.seal_batches(_record(source, run, part), rows_of(source.tool, run, part.requests))


def _record(source: Source, run: PlannedRun, part: Part) -> RunRecord:
    """Write the `run.json` of an imported run: what its requests tell, and null for the rest."""
    good = _answered(part.requests, ["isl", "cached_tokens"])
    first_ns = pc.min(part.requests["sent_ns"].filter(_is_measured(part.requests))).as_py()
    return RunRecord(
        run_id=run.run_id,
        treatment=run.treatment,
        repeat=run.repeat,
        started=datetime.fromtimestamp(first_ns / 1e9, UTC).isoformat() if first_ns is not None else None,
        load_s=part.load_s,
        cache=CacheRecord(UNKNOWN_STATE),
        ledger=Ledger(
            requests=len(good),
            prompt_tokens=_sum_of_all(good["isl"]),
            cached_tokens=_sum_of_all(good["cached_tokens"]),
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


def _sum_of_all(column: pa.ChunkedArray) -> int | None:
    """Return the sum; None where a value is missing or there is none: a sum of some would pass for that of all."""
    total: int | None = pc.sum(column, skip_nulls=False).as_py()
    return total
