"""Reads a YAML file into plain values and remembers the line of each.

    text -> Tree (values, and the line of each key) -> model of pydantic's

All files that a person writes are read here: scenarios, hosts files, claims, profiles of the emulator. A front end
turns a `Fault` into the error of its own kind of file. YAML is 1.2, so `off` is a word and not false.
"""

from __future__ import annotations

import difflib
import functools
import re
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pydantic import JsonValue
    from pydantic_core import ErrorDetails


Where = tuple[str | int, ...]
_PLAIN = {  # pydantic's words for what a person who writes YAML has done
    "too_short": "this list needs at least one item",
    "tuple_type": "this must be a list, such as [10k, 130k]",
    "model_type": "this must be a mapping of keys",
    "model_attributes_type": "this must be a mapping of keys",
    "dict_type": "this must be a mapping of keys",
    "bool_type": "this must be true or false",
    "bool_parsing": "this must be true or false",
    "int_type": "this must be a whole number",
    "int_parsing": "this must be a whole number",
    "int_from_float": "this must be a whole number",
    "float_type": "this must be a number",
    "float_parsing": "this must be a number",
    "string_type": "this must be text; a number or a date is text in quotes",
}


class Strict(BaseModel):
    """Unknown keys are errors, and a value does not change once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


M = TypeVar("M", bound=BaseModel)


class Contradiction(ValueError):  # noqa: N818 - never seen by a user; `where` is the path of the key to blame
    """Two values that cannot both be meant."""

    def __init__(self, message: str, where: Where, remedy: str | None = None) -> None:
        """Keep the key's path beside the sentence, and a remedy where there is a better one than to mend the value."""
        super().__init__(message)
        self.where, self.remedy = where, remedy


class UnknownName(ValueError):  # noqa: N818 - never seen by a user, who gets its sentence and its remedy
    """A name that is none of those which are known."""

    def __init__(self, message: str, name: str, known: Iterable[str], more: str = "") -> None:
        """Say what is wrong; the remedy is the name that comes nearest, else all of them and `more`."""
        super().__init__(message)
        self.remedy = nearest(name, known, more)


def nearest(name: str, known: Iterable[str], more: str = "") -> str:
    """Return the remedy for a name that is not known: the one that comes nearest, else all of them and `more`."""
    names = list(known)
    begun = [one for one in names if name and one.startswith(name)]
    near = begun or difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(names)}{more}."


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of YAML file: what messages call it, where to start from, and the page that lists its keys.

    With `as_text` every value stays the text that was written, so that 30.00 is not 30.
    """

    noun: str
    start: str
    page: str
    as_text: bool = False


class Fault(Exception):  # noqa: N818 - each front end turns it into an error of its own
    """What is wrong with a file: one sentence, a remedy, and the line and the key to blame."""

    def __init__(self, sentence: str, remedy: str, file: str, line: int | None = None, where: Where = ()) -> None:
        """Keep the parts; `line` is None where no line of the file can be blamed."""
        super().__init__(sentence)
        self.sentence, self.remedy, self.file, self.line, self.where = sentence, remedy, file, line, where

    @property
    def message(self) -> str:
        """The sentence behind `file:line:`, or `file:` where there is no line."""
        return f"{self.file}:{self.line}: {self.sentence}" if self.line else f"{self.file}: {self.sentence}"


@dataclass(frozen=True)
class Tree:
    """A YAML file that was read: its values, and by `nodes` the line of each key; `nodes` may be changed."""

    file: str
    kind: Kind
    text: str

    @functools.cached_property
    def nodes(self) -> CommentedMap:
        """The mapping of the file, whose keys know their lines."""
        nodes: CommentedMap = YAML(typ="rt").load(self.text)
        return nodes

    @property
    def values(self) -> dict[str, JsonValue]:
        """The values without their lines, for pydantic."""
        values = YAML(typ="base").load(self.text) if self.kind.as_text else self.nodes
        return dict(plain(values))

    def fault(self, where: Where, sentence: str, remedy: str) -> Fault:
        """Return the fault of the value at a key."""
        return Fault(sentence, remedy, self.file, locate(self.nodes, where)[0], where)


def load(path: Path, kind: Kind, model: type[M]) -> M:
    """Read a file into a model.

    Raises:
        Fault: unreadable, not YAML, an unknown or missing key, or a value that its model refuses.

    """
    return check(parse(read(path, kind), str(path), kind), model)


def read(path: Path, kind: Kind) -> str:
    """Return the text of a file.

    Raises:
        Fault: it cannot be read.

    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        reason = (fault.strerror or str(fault)).lower() if isinstance(fault, OSError) else "it is not UTF-8 text"
        raise Fault(f"cannot read it: {reason}", kind.start, str(path)) from None


def parse(text: str, file: str, kind: Kind) -> Tree:
    """Read YAML whose outermost level is a mapping; `file` names it in messages.

    Raises:
        Fault: it is not YAML, or no mapping.

    """
    tree = Tree(file, kind, text)
    if older := re.search(r"^%YAML\s+1\.[01]\b", text, re.MULTILINE):
        sentence = "kvbench reads YAML 1.2, in which `off` is a word and not false"
        raise Fault(sentence, "Remove this line.", file, text[: older.start()].count("\n") + 1)
    try:
        found = YAML(typ="base").load(text) if kind.as_text else tree.nodes
    except MarkedYAMLError as fault:
        line = fault.problem_mark.line + 1 if fault.problem_mark else None
        raise Fault(f"not YAML: {_problem(fault)}", "Mend the syntax in this line.", file, line) from None
    except ReaderError as fault:
        line = text[: fault.position].count("\n") + 1
        character = fault.character if isinstance(fault.character, int) else ord(fault.character)
        sentence = f"not YAML: the character U+{character:04X} cannot stand in a file of text"
        raise Fault(sentence, "Remove it from this line.", file, line) from None
    except YAMLError as fault:
        raise Fault(f"not YAML: {fault}", "Mend its syntax.", file) from None
    if not isinstance(found, dict):
        raise Fault(f"{kind.noun} is a mapping of keys", kind.start, file, 1)
    return tree


def _problem(fault: MarkedYAMLError) -> str:
    """Return what the parser found; of a key that stands twice only the key, and not its values."""
    twice = re.match(r'found duplicate key "(.*?)" with value', str(fault.problem), re.DOTALL)
    return f"the key `{twice[1]}` stands twice" if twice else str(fault.problem)


def check(tree: Tree, model: type[M], values: dict[str, JsonValue] | None = None) -> M:
    """Make a model of a tree, or of `values` that were made from it.

    Raises:
        Fault: an unknown or missing key, or a value that the model refuses.

    """
    try:
        return model.model_validate(tree.values if values is None else values)
    except ValidationError as fault:
        raise _first(fault, tree, model) from None


# -- what pydantic found, as one sentence -----------------------------------------------------------------------------


def _first(fault: ValidationError, tree: Tree, model: type[BaseModel]) -> Fault:
    """Choose the error that explains the others: a key that is not known explains one that is missing."""
    errors = fault.errors()
    error = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    where, known = _follow(model, error["loc"])
    kind, page = error["type"], tree.kind.page
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(where[-1]), known, n=1)
        remedy = f"Did you mean `{near[0]}`?" if near else f"Remove the key, or look it up in {page}."
        return tree.fault(where, f"unknown key `{where[-1]}`", remedy)
    if kind == "missing":
        missing = ".".join(map(str, where))
        return tree.fault(where, f"`{missing}` is missing", f"Add `{missing}`; {page} says what it means.")
    cause = error.get("ctx", {}).get("error")
    where = getattr(cause, "where", where)
    remedy = getattr(cause, "remedy", None) or f"Mend this value; {page} lists what each key takes."
    if kind == "literal_error":
        remedy = nearest(str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    trail = locate(tree.nodes, where)[1]
    return tree.fault(where, (f"`{trail}`: " if trail else "") + _sentence(error, cause), remedy)


def _sentence(error: ErrorDetails, cause: Any) -> str:
    """Return what is wrong with a value, and the value where it is short; a check of our own says it itself."""
    if cause is not None:
        return str(cause)
    said = _PLAIN.get(error["type"], error["msg"][:1].lower() + error["msg"][1:])
    given = error.get("input")
    return said if isinstance(given, dict) else f"{said} (got {given!r})"


def _follow(model: type[BaseModel], loc: Where) -> tuple[Where, list[str]]:
    """Return the path of keys that an error is at, and the keys that are known beside the last of them.

    Pydantic puts the name of a union's member into the path, which stands in no file; it is left out.
    """
    here: list[Any] = [model]
    known: list[str] = []
    where: list[str | int] = []
    for number, key in enumerate(loc, start=1):
        members = [member for one in here for member in _members(one)]
        known = [name for one in members if _is_model(one) for name in _names(one)]
        below = [annotation for one in members for annotation in _below(one, key)]
        if below or number == len(loc) or len(members) == 1:
            where.append(key)
        here = below or here
    return tuple(where), known


def _members(annotation: Any) -> Iterator[Any]:
    """Give the members of a union, however deep, or the type itself."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for one in get_args(annotation):
            yield from _members(one)
    elif annotation is not types.NoneType:
        yield annotation


def _below(annotation: Any, key: str | int) -> Iterator[Any]:
    """Give the type of what stands under a key, where the annotation says so."""
    if _is_model(annotation):
        yield from (field.annotation for name, field in annotation.model_fields.items() if key in (name, field.alias))
    elif get_origin(annotation) is dict:
        yield get_args(annotation)[1]
    elif get_origin(annotation) in (tuple, list) and isinstance(key, int):
        yield get_args(annotation)[0]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


# -- lines ------------------------------------------------------------------------------------------------------------


def plain(node: Any) -> Any:
    """Return the values without their lines, for pydantic; keys become text."""
    if isinstance(node, dict):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(value) for value in node]
    return node


def locate(tree: Any, where: Where) -> tuple[int | None, str]:
    """Follow a location as far as the file goes; return its 1-based line and the path that was followed.

    The line is None for a key that was put into the tree and stands in no file; the path is empty for the whole file.
    """
    node: Any = tree
    line: int | None = 1
    trail: list[str] = []
    for key in where:
        if isinstance(node, CommentedMap):
            written = next((one for one in node if str(one) == str(key)), None)  # a key 4 is found by "4"
            if written is None:
                break
            line, node = node.lc.key(written)[0] + 1 if written in (node.lc.data or {}) else None, node[written]
        elif isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node):
            line, node = node.lc.item(key)[0] + 1, node[key]
        else:
            break
        trail.append(str(key))
    return line, ".".join(trail)
