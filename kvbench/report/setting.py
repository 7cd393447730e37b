"""The setting of a result: what was asked, on which machine, with which versions, on which storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench.likeness import VOLATILE
from kvbench.redact import without_secrets
from kvbench.report import imported
from kvbench.report.grid import length_text, moment, percent
from kvbench.units import format_size

if TYPE_CHECKING:
    from kvbench.report.material import Material

Facts = list[tuple[str, str]]


def asked(material: Material) -> Facts:
    """Give what was asked, in short."""
    summary = material.summary
    if summary.get("imported"):
        return imported.asked(summary)
    started = sorted(run["started"] for run in summary["runs"])
    facts = [
        ("Model", str(summary["model"])),
        ("Server", "emulator, storage I/O real" if summary["server"] == "emulator" else str(summary["server"])),
        ("Load", f"{summary['driver']} driver, {load_text(summary)}"),
        ("Output", f"{summary['output_tokens']} tokens"),
        ("Rounds", f"{summary['repeats']}, treatments in random order in each"),
        ("Measured", f"{moment(started[0])} UTC"),
    ]
    if summary["scale"]:
        facts.append(("Scale", f"GPU time / {summary['scale']['time']:g}, KV bytes / {summary['scale']['bytes']:,}"))
    if summary["published"]:
        facts.append(("Beside", str(material.plan["asked"]["published"]).replace("/", ", ")))
    return facts


def load_text(summary: dict[str, Any]) -> str:
    """Say how many requests may be out at once, in each treatment, and when they are due if not by what ends."""
    counts = sorted(set(summary["concurrencies"].values()))
    told = f"concurrency {', '.join(map(str, counts))}"
    loops = summary["open_loops"]
    if not loops:
        return told
    kinds = sorted({(one["request_rate"], one["arrival"]) for one in loops.values()})
    rates = ", ".join(f"{rate:g}/s {arrival}" for rate, arrival in kinds)
    of_all = "" if len(loops) == len(summary["treatments"]) else f" for {', '.join(loops)}"
    return f"open loop, requests due at {rates}{of_all}, at most {told}"


def groups(material: Material) -> list[tuple[str, Facts]]:
    """Give all facts in groups: the result, the software, the server, the host, and each path."""
    facts, plan = material.facts, material.plan
    software, host = facts.get("software", {}), facts.get("host", {})
    git, first = software.get("git") or {}, material.summary["runs"][0]["run_id"]
    found = [
        (
            "Result",
            [
                ("scenario", str(plan["scenario"])),
                ("fingerprint", str(plan["fingerprint"])),
                ("result folder", str(material.summary["result"])),
                ("prompt salt", str(plan.get("salt") or "none")),
                ("lengths", ", ".join(length_text(row["isl"]) for row in material.summary["lengths"])),
            ],
        ),
        (
            "Software",
            [
                *((name, _text(value)) for name, value in software.items() if name not in ("git", "packages")),
                *((name, _text(value)) for name, value in software.get("packages", {}).items()),
                ("git commit", _text(git.get("commit"))),
                ("working tree", _tree_text(git.get("dirty"))),
            ],
        ),
        (f"Server of run {first}", _flat({"url": material.server["url"], **_as_set(material.server.get("info", {}))})),
        ("Host", _flat(host)),
        *_paths(facts.get("paths", {})),
    ]
    return [(title, items) for title, items in found if items]


def _paths(paths: dict[str, dict[str, Any]]) -> list[tuple[str, Facts]]:
    """Give each file system once, with all paths that lie on it."""
    found: dict[str, tuple[list[str], Facts, Facts]] = {}
    for role, path in paths.items():
        rest = _flat({name: value for name, value in path.items() if name != "path"})
        roles, places, _ = found.setdefault(str(rest), ([], [], rest))
        roles.append(role)
        places.append((f"path of {role}", _text(path.get("path"))))
    return [(f"Storage of {', '.join(roles)}", [*places, *rest]) for roles, places, rest in found.values()]


def _as_set(info: dict[str, Any]) -> dict[str, Any]:
    """What a server tells of itself is known; a setting without a value is not set."""
    return {name: "not set" if value is None else value for name, value in info.items()}


def _tree_text(dirty: Any) -> str:
    if dirty is None:
        return "not known"
    return "changed since the commit" if dirty else "as committed"


def _flat(value: dict[str, Any], prefix: str = "") -> Facts:
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


def _value(name: str, value: Any) -> str:
    if name.endswith("_bytes") and isinstance(value, int | float):
        return f"{format_size(value)} ({value:,} B)" if value >= 1000 else format_size(value)
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value) or "none"
    return _text(value)


def _text(value: Any) -> str:
    return "not known" if value is None else str(value)


def complete_text(material: Material) -> str:
    """Say how much of the plan is done."""
    done, planned = len(material.summary["runs"]), material.summary["runs_planned"]
    return f"{done} of {planned} runs ({percent(round(done / planned, 4))})"


def reproduction(material: Material) -> dict[str, str]:
    """Say by which command the result was made: the file, and what was changed on the command line."""
    if about := material.summary.get("imported"):
        name = material.summary["scenario"]
        command = f"kvbench import --from {about['from']} source/{about['file']} --name {name}"
        return {"scenario_file": "", "command": command, "overrides": ""}
    given = material.facts.get("scenario", {})
    file = str(given.get("file", f"{material.summary['scenario']}.yaml"))
    changes = [without_secrets(change) for change in given.get("overrides", [])]
    endpoint = [without_secrets(given["endpoint"])] if given.get("endpoint") else []
    options = [f"--set '{change}'" for change in changes] + [f"--endpoint {url}" for url in endpoint]
    return {
        "scenario_file": file,
        "command": " ".join(["kvbench run", file, *options]),
        "overrides": ", ".join([*changes, *(f"endpoint {url}" for url in endpoint)]),
    }
