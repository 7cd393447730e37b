"""Waits until a server that was just started answers, or says why it does not."""

from __future__ import annotations

import contextlib
import socket
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from kvbench.errors import EndpointError, ServerError
from kvbench.testbed.servers.endpoint import call
from kvbench.this_host.process import last_line

if TYPE_CHECKING:
    from kvbench.this_host.process import Started

_POLL_S = 0.25


def free_port() -> int:
    """Return a port of this host that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until_healthy(server: Started, root: str, timeout_s: float, setting: str) -> None:
    """Wait until `root/health` answers with 200; `setting` is the key that holds the timeout.

    Raises:
        ServerError: it died meanwhile, with its own last line, or was not ready in time.

    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            said = last_line(server.log)
            raise ServerError(f"{server.name} died while it was waited for: {said}", f"Its whole log is {server.log}")
        with contextlib.suppress(EndpointError):
            if call("GET", f"{root}/health", None).status_code == HTTPStatus.OK:
                return
        time.sleep(_POLL_S)
    raise ServerError(
        f"{server.name} was not ready after {timeout_s:.0f} s; it said last: {last_line(server.log)}",
        f"Raise {setting}, or see its log: {server.log}",
    )
