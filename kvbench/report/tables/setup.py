"""The table of a result's setup: scenario, machine, versions and storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.report.table import Cell, Column, Table, row
from kvbench.report.tables.imported import origin
from kvbench.report.text import length_text, moment, percent
from kvbench.result.differences import VOLATILE
from kvbench.result.redact import without_secrets
from kvbench.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from kvbench.analysis.summary_types import Summary
    from kvbench.report.report_input import ReportInput

Facts = list[tuple[str, str]]


def setup(given: ReportInput) -> Table:
    """Return one row for each fact that must be equal for two results to be compared."""
    columns = (
        Column("group", "Group", kind="text", is_key=True),
        Column("fact", "Fact", kind="text", is_key=True),
        Column("value", "Value", kind="long"),
    )
    rows = tuple(
        row(Cell(title, mark="repeated" if number else "key"), name, value, mark="" if number else "begin")
        for title, facts in groups(given)
        for number, (name, value) in enumerate(facts)
    )
    return Table("setup", "Setup", columns, rows)


def asked(given: ReportInput) -> Facts:
    """Give what was asked for, in short; of an import what was measured."""
    summary = given.summary
    started = sorted(run.started for run in summary.runs if run.started is not None)
    measured = f"{moment(started[0])} UTC" if started else "not known"
    if summary.imported is not None:
        return [
            ("Imported from", origin(summary)),
            ("Model", summary.model or "not known"),
            ("Load", load_text(summary)),
            ("Cache", "state unknown, no tier proven"),
            ("Measured", measured),
        ]
    facts = [
        ("Model", str(summary.model)),
        ("Server", "emulator, storage I/O real" if summary.server == "emulator" else summary.server),
        ("Load", f"{summary.driver} driver, {load_text(summary)}"),
        ("Output", f"{summary.output_tokens} tokens"),
        ("Rounds", f"{summary.repeats}, treatments in random order in each"),
        ("Measured", measured),
    ]
    if summary.scale:
        facts.append(("Scale", f"GPU time / {summary.scale.time:g}, KV bytes / {summary.scale.bytes:,g}"))
    if given.plan.design.published:
        facts.append(("Published figures", given.plan.design.published.replace("/", ", ")))
    return facts


def load_text(summary: Summary) -> str:
    """Say how many requests may be out at once, in each treatment, and when they are due if not by what ends."""
    if summary.imported is not None:
        known = summary.concurrency
        return f"concurrency {known}" if known is not None else "concurrency not known, or not the same everywhere"
    counts = sorted({count for count in summary.concurrencies.values() if count is not None})
    concurrency = f"concurrency {', '.join(map(str, counts))}"
    loops = summary.open_loops
    if not loops:
        return concurrency
    kinds = sorted({(loop.request_rate, loop.arrival) for loop in loops.values()})
    rates = ", ".join(f"{rate:g}/s {arrival}" for rate, arrival in kinds)
    of_all = "" if len(loops) == len(summary.treatments) else f" for {', '.join(loops)}"
    return f"open loop, requests due at {rates}{of_all}, at most {concurrency}"


def groups(given: ReportInput) -> list[tuple[str, Facts]]:
    """Give all facts in groups: the result, the software, the server, the host, and each path."""
    facts, plan, summary = given.facts, given.plan, given.summary
    software = _object(facts.get("software"))
    git, packages = _object(software.get("git")), _object(software.get("packages"))
    server: dict[str, JsonValue] = {"url": given.server.url, **_as_set(given.server.info)}
    found = [
        (
            "Result",
            [
                ("scenario", plan.scenario),
                ("fingerprint", plan.fingerprint),
                ("result folder", summary.result),
                ("prompt salt", plan.salt or "none"),
                ("lengths", ", ".join(length_text(length.isl) for length in summary.lengths)),
            ],
        ),
        (
            "Software",
            [
                *((name, _text(value)) for name, value in software.items() if name not in ("git", "packages")),
                *((name, _text(value)) for name, value in packages.items()),
                ("git commit", _text(git.get("commit"))),
                ("working tree", _tree_text(git.get("dirty"))),
            ],
        ),
        (f"Server of run {summary.runs[0].run_id}", _flat(server)),
        ("Host", _flat(_object(facts.get("host")))),
        *_paths(_object(facts.get("paths"))),
    ]
    return [(title, items) for title, items in found if items]


def _object(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _paths(paths: Mapping[str, JsonValue]) -> list[tuple[str, Facts]]:
    """Give each file system once, with all paths that lie on it."""
    found: dict[str, tuple[list[str], Facts, Facts]] = {}
    for role, value in paths.items():
        path = _object(value)
        rest = _flat({name: fact for name, fact in path.items() if name != "path"})
        roles, places, _ = found.setdefault(str(rest), ([], [], rest))
        roles.append(role)
        places.append((f"path of {role}", _text(path.get("path"))))
    return [(f"Storage of {', '.join(roles)}", [*places, *rest]) for roles, places, rest in found.values()]


def _as_set(info: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Say of a server's setting without a value that it is not set: what a server says of itself is known."""
    return {name: "not set" if value is None else value for name, value in info.items()}


def _tree_text(dirty: JsonValue) -> str:
    if dirty is None:
        return "not known"
    return "changed since the commit" if dirty else "as committed"


def _flat(value: Mapping[str, JsonValue], prefix: str = "") -> Facts:
    """Lay out nested facts as one list, with joined names; what changes by itself is no fact."""
    items: Facts = []
    for name, item in value.items():
        if name in VOLATILE or name == "pid":
            continue
        if isinstance(item, dict):
            items += _flat(item, f"{prefix}{_label(name)}: ")
        else:
            items.append((prefix + _label(name), _value(name, item)))
    return items


def _label(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ")


def _value(name: str, value: JsonValue) -> str:
    if name.endswith("_bytes") and isinstance(value, int | float):
        return f"{format_size(value)} ({value:,} B)" if value >= 1000 else format_size(value)
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value) or "none"
    return _text(value)


def _text(value: JsonValue) -> str:
    return "not known" if value is None else str(value)


def complete_text(summary: Summary) -> str:
    """Say how much of the plan is done."""
    done, planned = len(summary.runs), summary.runs_planned
    return f"{done} of {planned} runs ({percent(done / planned)})"


def reproduction(given: ReportInput) -> tuple[str, str, str]:
    """Return the scenario's file, the command that made the result, and what was changed on the command line."""
    summary = given.summary
    if about := summary.imported:
        file = str(about["file"])
        unpack = f"zstd -d source/{file} && " if file.endswith(".zst") else ""
        command = f"kvbench import --from {about['from']} source/{file.removesuffix('.zst')} --name {summary.scenario}"
        return "", unpack + command, ""
    scenario = _object(given.facts.get("scenario"))
    file = str(scenario.get("file", f"{summary.scenario}.yaml"))
    overrides = scenario.get("overrides")
    changes = [str(without_secrets(one)) for one in overrides] if isinstance(overrides, list) else []
    endpoint = [str(without_secrets(scenario["endpoint"]))] if scenario.get("endpoint") else []
    options = [f"--set '{change}'" for change in changes] + [f"--endpoint {url}" for url in endpoint]
    changed = ", ".join([*changes, *(f"endpoint {url}" for url in endpoint)])
    return file, " ".join(["kvbench run", file, *options]), changed
