"""Runs one event loop in its own thread, so that the code of a run stays synchronous."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

_Result = TypeVar("_Result")


class HostThread:
    """Awaits coroutines for those who cannot; a context manager."""

    def __init__(self) -> None:
        """Make the loop; it runs from `__enter__` on."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kvbench-hosts", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def call(self, work: Coroutine[Any, Any, _Result], within_s: float | None = None) -> _Result:
        """Await something in the thread and return its result; Ctrl-C cancels it.

        Raises:
            TimeoutError: it took longer than `within_s`.

        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(within_s)
        except BaseException:
            future.cancel()
            raise

    def __exit__(self, *_: object) -> None:
        """Cancel what is left, stop the loop and join the thread."""
        with contextlib.suppress(TimeoutError):
            self.call(_cancel_all(), 5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        if not self._thread.is_alive():
            self._loop.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
