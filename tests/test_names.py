"""Names in `kvbench/` say what a thing is: words that meant several things, or nothing by themselves, are not used."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import kvbench

if TYPE_CHECKING:
    from collections.abc import Iterator

# No name of a module, class, function, field or parameter has one of these words.
WORDS = {
    *("course", "courses", "beside", "told", "lane", "lanes", "dose", "doses", "touches", "likeness", "lookup"),
    *("crew", "crews", "surroundings", "roster", "books", "leash", "stage"),
}
# No such name is one of these words alone.
WHOLE_NAMES = {"found", "one", "own", "said", "bench"}


def test_no_name_is_a_word_that_says_too_little() -> None:
    package = Path(kvbench.__file__).parent
    names = [(place, name) for path in sorted(package.rglob("*.py")) for place, name in _names(path, package)]
    assert [f"{place}: {name}" for place, name in names if _says_too_little(name)] == []


def _says_too_little(name: str) -> bool:
    words = [word.lower() for part in name.split("_") for word in (part, *re.findall("[A-Z][a-z]+", part))]
    return not WORDS.isdisjoint(words) or name.strip("_").lower() in WHOLE_NAMES


def _names(path: Path, package: Path) -> Iterator[tuple[str, str]]:
    place = str(path.relative_to(package))
    yield place, path.stem
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield f"{place}:{node.lineno}", node.name
        elif isinstance(node, ast.arg):
            yield f"{place}:{node.lineno}", node.arg
        if isinstance(node, ast.ClassDef):
            fields = [item.target for item in node.body if isinstance(item, ast.AnnAssign)]
            yield from ((f"{place}:{node.lineno}", field.id) for field in fields if isinstance(field, ast.Name))
