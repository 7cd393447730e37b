"""A YAML file as a tree that remembers its lines: its plain values, and where a value stands."""

from __future__ import annotations

from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq


def plain(node: Any) -> Any:
    """Return the values without their places, for pydantic; keys become text."""
    if isinstance(node, dict):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(value) for value in node]
    return node


def locate(tree: Any, where: tuple[str | int, ...]) -> tuple[int | None, str]:
    """Follow a location as far as the file goes; return its 1-based line and the path that was followed.

    The line is None for a key that was put into the tree and stands in no file; the path is empty for the whole file.
    """
    node: Any = tree
    line: int | None = 1
    trail: list[str] = []
    for key in where:
        if isinstance(node, CommentedMap) and key in node:
            line = node.lc.key(key)[0] + 1 if key in (node.lc.data or {}) else None
        elif isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node):
            line = node.lc.item(key)[0] + 1
        else:
            break
        trail.append(str(key))
        node = node[key]
    return line, ".".join(trail)
