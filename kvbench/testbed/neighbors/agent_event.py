"""An event of a side client's agent, as it arrives: one JSON line."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from kvbench.typed_json import JsonObject


class AgentEvent(TypedDict, total=False):
    """What an agent says; which fields it has depends on `event`. Clocks are the agent's, in ns.

    `moved` is when a generator had moved how many bytes; `disk` and `nic` are bytes in and out. Of a `final`, `why` is
    who ended the generator (`itself`, `stop`, ...), `document` the last JSON it printed, `output` its other output.
    """

    event: str
    clock_ns: int
    number: int
    why: str
    message: str
    remedy: str
    at_ns: int
    moved: list[int] | None
    disk: list[int] | None
    nic: list[int]
    cpu: dict[str, int] | None
    psi: dict[str, int]
    code: int | None
    output: str
    document: JsonObject | None
    left: list[str]
    removed: list[str]
    kept: list[str]
