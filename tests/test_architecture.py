"""The layout is one straight line: enforced over the imports, and the budgets are printed."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path("kvbench")
# The parts of docs/design.md in order; a module may import from its own part and from earlier ones.
PARTS: list[tuple[str, ...]] = [
    (
        "errors",
        "units",
        "shapes",
        "fault_names",
        "scenario_models",
        "scenario",
        "scenario_file",
        "prompts",
        "plan",
        "records",
        "redact",
        "neighbor_spec",
        "yaml_tree",
    ),
    ("store", "calibration", "lookup", "likeness"),
    ("facts", "servers", "hosts"),
    ("neighbors",),
    ("load",),
    ("testbed", "lab"),
    ("proof", "ledger", "bench", "prime", "cache", "lane", "run", "calibrate"),
    (
        "printed",
        "claims",
        "claims_file",
        "published",
        "checks",
        "stats",
        "ratios",
        "ranks",
        "sealed",
        "pooled",
        "metrics",
        "touches",
        "arrivals",
        "beside",
        "speed_ups",
        "doses",
        "courses",
        "dose_courses",
        "summary",
        "gates",
        "compare",
        "importers",
        "audit",
    ),
    ("report",),
    ("terminal", "cli_show", "cli_compare", "cli_lab", "cli"),
]
WORLD, MEANING = slice(2, 7), slice(7, 9)  # what touches hosts and servers; what reads files and shows them
EMULATOR_MAY_IMPORT = {"errors", "units", "shapes", "fault_names", "emulator"}
LONGEST_CHAIN = 13
MOST_LINES = 400


def modules() -> dict[str, Path]:
    return {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(ROOT.rglob("*.py"))
        if path.name != "__main__.py"
    }


def imports_of(path: Path) -> set[str]:
    """Modules of ours that a file imports, at whatever depth, type checking included."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in found if name in known} - {"kvbench"}


def part_of(module: str) -> int:
    top = module.split(".")[1]
    return next(number for number, names in enumerate(PARTS) if top in names)


def test_every_module_has_its_place() -> None:
    placed = {name for names in PARTS for name in names} | {"emulator"}
    assert {name.split(".")[1] for name in modules() if name != "kvbench"} <= placed


def test_nobody_imports_from_a_later_part() -> None:
    wrong = []
    for name, path in modules().items():
        if name == "kvbench" or name.startswith("kvbench.emulator"):
            continue
        for other in imports_of(path):
            pair = (name.split(".")[1], other.split(".")[1])
            if pair[1] == "emulator":
                if pair[0] != "cli":  # `kvbench serve`
                    wrong.append(f"{name} imports {other}")
            elif part_of(other) > part_of(name):
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_meaning_and_showing_never_touch_the_world() -> None:
    world = {name for names in PARTS[WORLD] for name in names}
    meaning = {name for names in PARTS[MEANING] for name in names}
    assert {"servers", "lane", "calibrate"} <= world
    assert {"sealed", "summary", "report"} <= meaning
    for name, path in modules().items():
        if name != "kvbench" and name.split(".")[1] in meaning:
            assert not {other.split(".")[1] for other in imports_of(path)} & world, name


def test_the_emulator_stands_alone() -> None:
    for name, path in modules().items():
        if name.startswith("kvbench.emulator"):
            assert {other.split(".")[1] for other in imports_of(path)} <= EMULATOR_MAY_IMPORT, name


def test_the_receiver_imports_nothing_of_ours() -> None:
    assert not imports_of(ROOT / "load" / "receiver.py")


def test_no_cycle_and_no_long_chain() -> None:
    graph = {name: imports_of(path) for name, path in modules().items()}

    @functools.cache
    def depth(name: str, above: tuple[str, ...] = ()) -> int:
        assert name not in above, f"cycle: {' -> '.join((*above, name))}"
        return 1 + max((depth(other, (*above, name)) for other in graph[name]), default=0)

    longest = max(graph, key=depth)
    print(f"longest import chain: {depth(longest)} modules, from {longest}")  # noqa: T201
    assert depth(longest) <= LONGEST_CHAIN


def test_files_stay_small_and_names_say_what_they_are() -> None:
    banned = ("Manager", "Factory", "Mixin", "Base", "Service", "Handler", "Helper", "Util")
    sizes = {}
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        sizes[path] = text.count("\n")
        assert sizes[path] <= MOST_LINES, path
        classes = [node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
        assert not [name for name in classes if name.endswith(banned)], path
        assert path.name not in ("utils.py", "common.py", "helpers.py"), path
        if path != ROOT / "cli.py":
            assert "except Exception" not in text, path
    print(f"median file: {sorted(sizes.values())[len(sizes) // 2]} lines")  # noqa: T201


def test_heavy_imports_wait_until_they_are_needed() -> None:
    """A run's first request must not wait for what only a report needs."""
    heavy = {"pandas", "matplotlib", "scipy", "pyarrow", "weasyprint", "jinja2"}
    late = ("kvbench.report.plots",)  # only the page imports plots, and commands import the page when they write it
    for name, path in modules().items():
        for node in ast.parse(path.read_text()).body if not name.startswith(late) else []:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {imported.split(".")[0] for imported in names} & heavy, name
