"""The endpoint that requests go to: its URL in parts, and the HTTP head that all requests share."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from kvbench.errors import EndpointError
from kvbench.this_host import tls_trust

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

Address = tuple[socket.AddressFamily, tuple[Any, ...]]

_PORTS = {"http": 80, "https": 443}
_PATHS = {"completions": "/completions", "chat": "/chat/completions"}


@dataclass(frozen=True, slots=True)
class Target:
    """An OpenAI-compatible endpoint; `url` is what OpenAI clients call the base URL, `/v1` where it has no path.

    `ca_file` names the authorities that an https endpoint's certificate may come from, instead of the system's; `tls`
    is made of it, None for http.
    The key never appears in messages, in the representation, or anywhere but in the header.
    """

    url: str
    api: Literal["completions", "chat"] = "completions"
    api_key: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    host: str = field(init=False)
    port: int = field(init=False)
    tls: ssl.SSLContext | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be driven before anything is started."""
        parts = urlsplit(self.url)
        try:
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            port = 0
        if parts.scheme not in _PORTS or not parts.hostname or not port:
            raise EndpointError(f"not a URL of an endpoint: {self.url!r}", "Write it as http://HOST:PORT/v1.")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise EndpointError("the API key holds characters that no header can carry", "Check where it is read from.")
        object.__setattr__(self, "host", parts.hostname)
        object.__setattr__(self, "port", port)
        object.__setattr__(self, "tls", tls_trust.context_for(self.ca_file) if parts.scheme == "https" else None)

    @property
    def path(self) -> str:
        """Where requests go on the server."""
        return (urlsplit(self.url).path.rstrip("/") or "/v1") + _PATHS[self.api]

    @property
    def request_url(self) -> str:
        """The whole URL that requests go to."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{self.path}"

    def head(self, body_bytes: int) -> bytes:
        """Return the request line and the headers for a body of that length."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"Host: {host}:{self.port}",
            "User-Agent: kvbench",
            "Content-Type: application/json",
            f"Content-Length: {body_bytes}",
            "Accept: text/event-stream",
            "Connection: keep-alive",
        ]
        if self.api_key:
            lines.append(f"Authorization: Bearer {self.api_key}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def redact(self, text: str) -> str:
        """Return `text` without the key: some servers repeat it in their refusal."""
        return text.replace(self.api_key, "***") if self.api_key else text
