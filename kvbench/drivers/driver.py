"""The protocol that every load driver implements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kvbench.result.records import Conversation, Request, Response
    from kvbench.result.run_record import DriverRecord


class Driver(Protocol):
    """What a load driver must do."""

    name: str

    @property
    def own_requests(self) -> Sequence[Response]:
        """What it sent on its own account in its last call of `drive`, such as a warm-up."""

    def drive(
        self, requests: Iterable[Request], concurrency: int, on_response: Callable[[Response], None]
    ) -> Sequence[Response]:
        """Send the requests in order, hand each response over as it ends, return all."""

    def converse(
        self, conversations: Iterable[Conversation], concurrency: int, on_response: Callable[[Response], None]
    ) -> None:
        """Hold the conversations, turn by turn; hand each response over as it ends, and keep none."""

    def health(self) -> DriverRecord:
        """Say how the client itself was doing."""
