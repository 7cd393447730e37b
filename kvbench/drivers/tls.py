"""Decrypts TLS records after the receiver has time-stamped them.

`ssl.SSLObject` works on memory alone, so that the raw socket stays with the receiver and every read keeps its stamp.

**The first-token rule under TLS.** A record can be opened only when its last byte has come. So the time of a token is
that of the last byte of its record, and what else the record holds is no later. Any byte behind that record in the same
read is: another record, a part of one that cannot be opened yet, a session ticket, an alert. Only the line break that
closes the token's own HTTP chunk does not count, as without TLS (`answer`); `unread_bytes` is for what no record that
could be opened accounts for.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

from kvbench.this_host.tls_trust import explain

if TYPE_CHECKING:
    from collections.abc import Iterator

_RECORD_BYTES = 1 << 14  # no record holds more, and one call never returns bytes of two


class TlsError(OSError):
    """TLS could not begin or go on; the text says why."""


class Tls:
    """The client's end of one TLS connection, which neither reads nor writes a socket."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        """Expect a certificate for `host`, a name or an address."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.is_ready = False
        self.is_over = False
        self.unread_bytes = 0

    def take(self, data: bytes) -> None:
        """Take bytes of the handshake."""
        self._incoming.write(data)

    def shake_hands(self) -> bool:
        """Go on with the handshake as far as the bytes reach; True when it is done.

        Raises:
            TlsError: it failed, or the certificate is not accepted.

        """
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise TlsError(explain(error)) from None
        self.is_ready = True
        return True

    def open(self, data: bytes) -> Iterator[bytes]:
        """Take bytes and yield the content of each record that they complete.

        Afterwards `unread_bytes` tells how many of the bytes lie behind the last content, and `is_over` whether the
        server has ended TLS in good order.

        Raises:
            TlsError: an alert, or bytes that are no record.

        """
        self._incoming.write(data)
        while self._incoming.pending:
            try:
                content = self._object.read(_RECORD_BYTES)
            except ssl.SSLWantReadError:  # the beginning of a record, which OpenSSL has taken in, or none with content
                return
            except ssl.SSLError as error:
                raise TlsError(explain(error)) from None
            if not content:
                self.is_over = True
                return
            self.unread_bytes = self._incoming.pending
            yield content

    def seal(self, message: bytes) -> bytes:
        """Return what goes on the wire for `message`, after what TLS itself has to say."""
        rest = memoryview(message)
        while rest:
            rest = rest[self._object.write(rest) :]
        return self.outgoing()

    def outgoing(self) -> bytes:
        """Return what TLS itself has to say: its part of the handshake, answers, alerts."""
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """Return the end of the stream, which tells the server that nothing was cut off."""
        with contextlib.suppress(ssl.SSLError):  # the server's own end is not waited for
            self._object.unwrap()
        return self.outgoing()
