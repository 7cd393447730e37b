"""Counts what makes code hard to follow: untyped dictionaries, reads by string key, late imports, lines.

    python bench/structure.py [FOLDER]...     one column for each checkout, such as one before a change and one after

`dict[str, Any]` is counted as text in `kvbench/`. A read by string key is `x["name"]` or `x.get("name")` in
`kvbench/report/`, where figures are shown. A late import is one inside a function.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

UNTYPED = "dict[str, Any]"


def counts(checkout: Path) -> dict[str, int]:
    """Return the counts of one checkout by their names."""
    package = checkout / "kvbench"
    files = sorted(package.rglob("*.py"))
    trees = {path: ast.parse(path.read_text()) for path in files}
    return {
        f"uses of {UNTYPED}": sum(path.read_text().count(UNTYPED) for path in files),
        "reads by string key in report/": sum(
            map(_is_key_read, (node for path in files if _is_report(path, package) for node in ast.walk(trees[path])))
        ),
        "late imports": sum(_late_imports(tree) for tree in trees.values()),
        "modules": len(files),
        "modules in no folder": len(list(package.glob("*.py"))),
        "lines in kvbench/": _lines(files),
        "lines in tests/": _lines(sorted((checkout / "tests").rglob("*.py"))),
        "lines in bench/": _lines(sorted((checkout / "bench").rglob("*.py"))),
    }


def _is_report(path: Path, package: Path) -> bool:
    return path.relative_to(package).parts[0] == "report"


def _is_key_read(node: ast.AST) -> bool:
    if isinstance(node, ast.Subscript):
        is_key = isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)
        return is_key and isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
        return isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    return False


def _late_imports(tree: ast.Module) -> int:
    """Count import statements inside functions, each statement once."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    statements = {
        id(node) for one in functions for node in ast.walk(one) if isinstance(node, ast.Import | ast.ImportFrom)
    }
    return len(statements)


def _lines(files: list[Path]) -> int:
    return sum(len(path.read_text().splitlines()) for path in files)


def main() -> None:
    """Print the counts of the checkouts that are named, else of this one, side by side."""
    checkouts = [Path(argument) for argument in sys.argv[1:]] or [Path()]
    found = [counts(checkout) for checkout in checkouts]
    width = max(map(len, found[0]))
    print(" " * width, *(f"{checkout.resolve().name:>10}" for checkout in checkouts))
    for name in found[0]:
        print(f"{name:{width}}", *(f"{one[name]:>10,}" for one in found))


if __name__ == "__main__":
    main()
