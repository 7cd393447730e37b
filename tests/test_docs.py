"""The docs name modules, files and links that exist, and their Python runs."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

from tests import test_architecture

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path("kvbench")
PAGES = sorted([Path("README.md"), *Path("docs").glob("*.md")])  # decisions say what was true on their day
NOTEBOOK = Path("docs/notebooks/ttft_by_tier.ipynb")
EXAMPLE = Path("results/examples/vllm-gpu-fs/20261121T224531Z")
FOLDERS = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
OF_THE_REPOSITORY = re.compile(r"\b(?:kvbench|tests|bench|scenarios|docs)/[\w./-]*\w\.(?:py|md|yaml|ipynb|svg|png)\b")
OF_THE_PACKAGE = re.compile(rf"(?<![\w/.-])(?:{'|'.join(sorted(FOLDERS))})/[\w/]*\w\.py\b")
MODULES = re.compile(r"(?<![\w/.-])kvbench(?:\.[A-Za-z_]\w*)+")
LINKS = re.compile(r"\]\(([^)#:]+)\)")
IN_CODE = re.compile(r"`([^`\n]+)`")


def docstrings() -> Iterator[tuple[Path, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, ast.get_docstring(node) or ""


def texts() -> Iterator[tuple[Path, str]]:
    yield from ((path, path.read_text()) for path in PAGES)
    yield from docstrings()


def has_name(module: Path, name: str) -> bool:
    """Tell whether a module defines, assigns or imports a name at its top level."""
    names: set[str] = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {one.id for one in targets if isinstance(one, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {one.asname or one.name for one in node.names}
    return name in names


def module_exists(dotted: str) -> bool:
    """Tell whether `kvbench.x.y` is a module, or a name of one; `kvbench.load` is found by the package itself."""
    place, rest = PACKAGE, dotted.split(".")[1:]
    if rest == ["load"]:
        return True
    while rest:
        name = rest.pop(0)
        if (place / name).is_dir():
            place = place / name
        elif (place / f"{name}.py").exists():
            return not rest or has_name(place / f"{name}.py", rest[0])
        else:
            return not rest and has_name(place / "__init__.py", name)
    return True


def test_every_file_that_is_named_exists() -> None:
    missing = set()
    for page, text in texts():
        missing |= {f"{page}: {name}" for name in OF_THE_REPOSITORY.findall(text) if not Path(name).exists()}
        missing |= {f"{page}: {name}" for name in OF_THE_PACKAGE.findall(text) if not (PACKAGE / name).exists()}
    assert not missing


def test_every_module_that_is_named_exists() -> None:
    missing = {f"{page}: {name}" for page, text in texts() for name in MODULES.findall(text) if not module_exists(name)}
    assert not missing


def test_every_name_that_a_page_imports_exists() -> None:
    missing = set()
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            imports = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
            names = {f"{node.module}.{one.name}" for node in imports for one in node.names}
            missing |= {f"{page}: {name}" for name in names if name.startswith("kvbench") and not module_exists(name)}
    assert not missing


def test_every_link_leads_to_a_file() -> None:
    pages = [*PAGES, *Path("docs/decisions").glob("*.md")]
    missing = {
        f"{page}: {target}"
        for page in pages
        for target in LINKS.findall(page.read_text())
        if not (page.parent / target).exists()
    }
    assert not missing


def test_every_folder_is_in_the_design() -> None:
    text = Path("docs/design.md").read_text()
    assert not {name for name in FOLDERS if f"`{name}/`" not in text}
    rooms = [path.relative_to(PACKAGE) for path in PACKAGE.glob("*/*/__init__.py")]
    assert not {room for room in rooms if f"{room.parent.name}/" not in text}


def test_the_design_says_who_may_import_whom() -> None:
    rows = re.findall(r"^\| `(\w+)/` \| .* \| (.*) \|$", Path("docs/design.md").read_text(), re.MULTILINE)
    drawn = {folder: set(IN_CODE.findall(others)) for folder, others in rows}
    assert drawn == test_architecture.MAY_IMPORT


def test_the_tree_of_the_design_is_the_tree() -> None:
    drawing = Path("docs/design.md").read_text().split("## The tree")[1].split("```")[1]
    place, wrong = PACKAGE, []
    for line in drawing.splitlines()[2:]:
        if folder := re.match(r"( {2}| {4})(\w+)/", line):
            place = (PACKAGE if len(folder[1]) == 2 else PACKAGE / place.relative_to(PACKAGE).parts[0]) / folder[2]
            line = line[folder.end() :]  # noqa: PLW2901
        words = [] if "the " in line else line.split(",")[0].removesuffix("modules without a folder").split()
        names = [word.strip("/") for word in words if word != "..."]
        wrong += [f"{place}/{name}" for name in names if not list(place.glob(f"{name}*"))]
    assert not wrong


def test_a_name_that_does_not_exist_is_noticed() -> None:
    assert module_exists("kvbench.result.records.Row")
    assert not module_exists("kvbench.result.records.Line")
    assert not module_exists("kvbench.records")
    assert OF_THE_PACKAGE.findall("see `report/html.py` and `kvbench/report/html.py`") == ["report/html.py"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty current folder that holds the example alone."""
    shutil.copytree(EXAMPLE, tmp_path / EXAMPLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [Path("README.md"), Path("docs/python.md")], ids=str)
def test_the_python_of_a_page_runs(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / page).read_text(), re.DOTALL)
    assert blocks
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)  # noqa: S102 - our own page
    printed = capsys.readouterr().out
    assert "128000" in printed
    for said in re.findall(r"# (n/a .*)", "".join(blocks)):
        assert said in printed


def test_the_columns_of_the_page_are_those_of_the_result() -> None:
    import kvbench  # noqa: PLC0415

    result = kvbench.load(EXAMPLE)
    named = set(IN_CODE.findall(Path("docs/python.md").read_text()))
    assert not set(result.requests) - named
    assert not set(result.runs) - named - set(kvbench.analysis.metrics.METRICS)


def test_the_notebook_draws_ttft_by_tier(folder: Path) -> None:
    cells = json.loads((Path(__file__).parents[1] / NOTEBOOK).read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs), "it is committed as executed"
    assert not [output for output in outputs if output["output_type"] == "error"]
    mpl.use("Agg")
    names: dict[str, Any] = {}
    try:
        for cell in cells:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)  # noqa: S102 - our own notebook
        assert [axes.get_title() for axes in plt.gcf().axes] == ["TTFT by tier"]
        assert {line.get_label() for line in plt.gcf().axes[0].lines} >= {"g3", "recompute"}
    finally:
        plt.close("all")
