"""The folders and who may import whom: enforced over the imports; the longest chain and the median file are printed."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path("kvbench")
# Modules without a folder, which every folder may import.
ROOT_MODULES = {
    "errors",
    "units",
    "strict_yaml",
    "model_shapes",
    "emulator_faults",
    "lenient_json",
    "emulator_profile",
    "percentile",
    "typed_json",
}
# What a folder may import besides itself and the root modules; docs/design.md draws it.
MAY_IMPORT: dict[str, set[str]] = {
    "result": set(),
    "this_host": {"result"},
    "scenario": {"result"},
    "publications": set(),
    "drivers": {"result", "this_host"},
    "testbed": {"scenario", "drivers", "result", "this_host"},
    "experiment": {"scenario", "drivers", "result", "this_host", "testbed"},
    "analysis": {"result", "publications"},
    "importers": {"result", "analysis", "drivers"},
    "audit": {"analysis", "publications", "result"},
    "report": {"analysis", "audit", "publications", "result", "scenario"},
    "cli": set(),  # all of them; see test_who_imports_whom
    "emulator": set(),
}
# Importers share the readers of `drivers`, and nothing that opens a connection or starts a process.
CONNECTS = {"native", "aiperf", "connection", "receiver_link", "target", "tls", "network_floor"}
# A result is read once, by `analysis.dataset`; these compute from what they are given.
TAKE_WHAT_THEY_ARE_GIVEN = ("metrics", "aggregate", "first_touch", "open_loop", "time_series")
# What computes and shows figures; loaded after the last run is sealed, or by commands that read results.
COMPUTES = {"analysis", "audit", "report", "importers"}
# What writes and reads Parquet files: pyarrow without its compute functions, which no command needs for itself.
PARQUET = {"kvbench.result.draw_file", "kvbench.result.parquet_file", "kvbench.result.rows"}
LONGEST_CHAIN = 13
MOST_LINES = 400


@functools.cache
def modules() -> dict[str, Path]:
    return {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(ROOT.rglob("*.py"))
        if path.name != "__main__.py"
    }


@functools.cache
def imports_of(name: str) -> frozenset[str]:
    """Modules of kvbench that a module imports, at whatever depth, type checking included."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return frozenset(found & set(modules()) - {"kvbench"})


def top(name: str) -> str:
    """Return the folder of a module, or the name of a root module."""
    return name.split(".")[1]


def test_every_module_has_its_folder() -> None:
    assert {top(name) for name in modules() if name != "kvbench"} == ROOT_MODULES | set(MAY_IMPORT)
    assert {path.stem for path in ROOT.glob("*.py")} == ROOT_MODULES | {"__init__", "__main__"}


def test_who_imports_whom() -> None:
    wrong = []
    for name in modules():
        if name == "kvbench":  # exposes the public interface on demand
            continue
        for other in imports_of(name):
            if top(other) in ROOT_MODULES | {top(name)}:
                continue
            if top(name) in ROOT_MODULES or (top(name) != "cli" and top(other) not in MAY_IMPORT[top(name)]):
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_importers_share_only_the_readers_of_drivers() -> None:
    for name in modules():
        if name.startswith("kvbench.importers"):
            assert not imports_of(name) & {f"kvbench.drivers.{other}" for other in CONNECTS}, name


def test_the_receiver_imports_nothing_of_ours() -> None:
    assert not imports_of("kvbench.drivers.receiver")


def test_what_keeps_the_chain_short() -> None:
    assert not imports_of("kvbench.testbed.hosts")
    for name in TAKE_WHAT_THEY_ARE_GIVEN:
        assert "kvbench.analysis.dataset" not in imports_of(f"kvbench.analysis.{name}"), name


def test_no_cycle_and_no_long_chain() -> None:
    @functools.cache
    def depth(name: str, above: tuple[str, ...] = ()) -> int:
        assert name not in above, f"cycle: {' -> '.join((*above, name))}"
        return 1 + max((depth(other, (*above, name)) for other in imports_of(name)), default=0)

    longest = max(modules(), key=depth)
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
        if path != ROOT / "cli" / "app.py":
            assert "except Exception" not in text, path
    print(f"median file: {sorted(sizes.values())[len(sizes) // 2]} lines")  # noqa: T201


def test_heavy_imports_wait_until_they_are_needed() -> None:
    """What runs load, and the command line, must not wait for what only figures need."""
    heavy = {"pandas", "matplotlib", "scipy", "pyarrow", "weasyprint", "jinja2"}
    for name, path in modules().items():
        if name != "kvbench" and top(name) in COMPUTES:
            continue
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if name in PARQUET:
                names = [
                    imported for imported in names if imported not in {"pyarrow", "pyarrow.json", "pyarrow.parquet"}
                ]
            assert not {imported.split(".")[0] for imported in names} & heavy, name
