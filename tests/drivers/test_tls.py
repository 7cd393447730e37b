"""TLS on a connection whose reads are cut by hand: which stamp the first token has, and every way it can end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from kvbench.drivers.tls import Tls, TlsError
from kvbench.this_host import tls_trust
from tests.builders.fault_server import DONE, FINISH, HEAD, NORMAL, chunk, request, text_event
from tests.builders.patience import PATIENCE_S
from tests.builders.tls_peer import Peer, ca_file, server_context

if TYPE_CHECKING:
    from kvbench.result.records import Response

A, B = chunk(text_event("a")), chunk(text_event("b"))
Records = Callable[[bytes], bytes]
Script = Callable[[Peer], list[bytes]]


def limited_to(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = server_context()
    context.minimum_version = context.maximum_version = version
    return context


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


def respond(script: Script, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Response:
    """Answer one request with what `script` makes of the peer: one read for each item."""

    async def run() -> Response:
        async with Peer(limited_to(version)) as peer:
            peer.give(await peer.shake_hands())
            assert peer.ask(b"POST / HTTP/1.1\r\n\r\n") == b"POST / HTTP/1.1\r\n\r\n"
            peer.give(*script(peer))
            return peer.connection.answer.respond(request(), 1, 2)

    return asyncio.run(run())


def in_two_reads(record: bytes) -> list[bytes]:
    return [record[:9], record[9:]]


# Each script seals in the order in which the records go on the wire; `s` seals one record, reads are list items.
@VERSIONS
@pytest.mark.parametrize(
    ("script", "first_token_ns", "bound"),
    [
        (lambda s: [s(HEAD), s(A), s(B)], 200, "exact"),
        (lambda s: [s(HEAD) + s(A), s(B)], 100, "exact"),
        (lambda s: [s(HEAD), *in_two_reads(s(A)), s(B)], 300, "exact"),
        (lambda s: [s(HEAD), s(A) + s(B)], 200, "upper"),
        (lambda s: [s(HEAD), *cut(s(A), s(B), 1)], 200, "upper"),  # one byte of the next record's header
        (lambda s: [s(HEAD), *cut(s(A), s(B), 5)], 200, "upper"),
        (lambda s: [s(HEAD), *cut(s(A), s(B), -1)], 200, "upper"),  # all of it but its last byte
        (lambda s: [s(HEAD), *cut(s(A), s(A[-2:]), 3)], 200, "upper"),  # nobody knows yet what this record holds
        (lambda s: [s(HEAD), s(A[:-2]) + s(A[-2:]), s(B)], 200, "exact"),  # the token's own line break
        (lambda s: [s(HEAD), s(A[:-2]) + s(A[-2:-1]) + s(A[-1:]), s(B)], 200, "exact"),
        (lambda s: [s(HEAD), s(A[:-2]) + s(A[-2:]) + s(B)], 200, "upper"),
        (lambda s: [s(HEAD), s(A[:-2]), s(A[-2:]) + s(B)], 200, "exact"),
        (lambda s: [s(HEAD), s(A) + s(B[:1])], 200, "upper"),  # half a size line
        (lambda s: [s(HEAD), s(A) + s(B[:3])], 200, "upper"),  # to within its line break
        (lambda s: [s(HEAD), s(A[:-2]) + s(A[-2:] + B[:1])], 200, "upper"),
        (lambda s: [s(HEAD), s(A[:9]) + s(A[9:]), s(B)], 200, "exact"),  # a token in two records
        (lambda s: [s(HEAD), s(A[:9]), s(A[9:]) + s(B)[:4]], 300, "upper"),
        (lambda s: [s(HEAD), s(A + B), s(B)], 200, "exact"),  # a record comes as a whole
        (lambda s: [s(HEAD + A + B)], 100, "exact"),
        (lambda s: [s(HEAD), s(A + B) + s(B)], 200, "upper"),
        (lambda s: [s(HEAD), s(A + B[:-2]) + s(B[-2:])], 200, "upper"),  # the line break of another chunk
        (lambda s: [s(HEAD), s(chunk(text_event("")) + A)], 200, "exact"),
        (lambda s: [s(HEAD)], None, None),
    ],
)
def test_first_token(
    script: Callable[[Records], list[bytes]], first_token_ns: int | None, bound: str | None, version: ssl.TLSVersion
) -> None:
    response = respond(lambda peer: script(peer.seal), version)
    assert (response.first_token_ns, response.ttft_bound) == (first_token_ns, bound)


def cut(first: bytes, second: bytes, at: int) -> list[bytes]:
    """One record and the beginning of another in one read, the rest in the next."""
    return [first + second[:at], second[at:]]


# -- what else comes in records ----------------------------------------------------------------------------------------


def respond_with_tickets(script: Callable[[bytes, Records], list[bytes]]) -> Response:
    """The same, where the server's session tickets come when the script says."""

    async def run() -> Response:
        async with Peer() as peer:
            tickets = await peer.shake_hands()
            assert len(tickets) > 100
            peer.ask(b"POST / HTTP/1.1\r\n\r\n")
            peer.give(*script(tickets, peer.seal))
            return peer.connection.answer.respond(request(), 1, 2)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("script", "first_token_ns", "bound"),
    [
        (lambda tickets, s: [tickets + s(HEAD) + s(A), s(B)], 100, "exact"),
        (lambda tickets, s: [tickets[:40], tickets[40:] + s(HEAD) + s(A), s(B)], 200, "exact"),
        (lambda tickets, s: [tickets, s(HEAD), s(A)], 300, "exact"),
    ],
)
def test_tickets_before_the_token_do_not_blur_its_time(
    script: Callable[[bytes, Records], list[bytes]], first_token_ns: int, bound: str
) -> None:
    response = respond_with_tickets(script)
    assert (response.first_token_ns, response.ttft_bound) == (first_token_ns, bound)


def test_the_end_of_tls_behind_the_token_blurs_its_time() -> None:
    response = respond(lambda peer: [peer.seal(HEAD), peer.seal(A) + peer.end()])
    assert (response.first_token_ns, response.ttft_bound) == (200, "upper")


@VERSIONS
def test_boundaries_at_every_byte(version: ssl.TLSVersion) -> None:
    def by_byte(peer: Peer) -> list[bytes]:
        wire = b"".join(peer.seal(NORMAL[at : at + 50]) for at in range(0, len(NORMAL), 50))
        return [wire[at : at + 1] for at in range(len(wire))]

    whole, split = respond(lambda peer: [peer.seal(NORMAL)], version), respond(by_byte, version)
    assert (whole.status, whole.text, whole.ttft_bound) == ("ok", "Hello world", "exact")
    assert (split.status, split.text, split.ttft_bound) == ("ok", "Hello world", "exact")


def test_a_handshake_in_reads_of_one_byte() -> None:
    class Dribbling(Peer):
        def give(self, *reads: bytes) -> None:
            super().give(*(data[at : at + 1] for data in reads for at in range(len(data))))

    async def run() -> bytes:
        async with Dribbling() as peer:
            peer.give(await peer.shake_hands())
            return peer.ask(b"POST")

    assert asyncio.run(run()) == b"POST"


# -- ends --------------------------------------------------------------------------------------------------------------

OPEN_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CUT = "the connection ended before the answer was complete"


def end_of(script: Script, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[str, str | None]:
    """Let the server's side of TCP end after the script; return the outcome."""

    async def run() -> tuple[str, str | None]:
        async with Peer(limited_to(version)) as peer:
            peer.give(await peer.shake_hands())
            peer.ask(b"POST")
            peer.give(*script(peer))
            peer.connection.lose(None)
            await asyncio.wait_for(peer.connection.wait(), PATIENCE_S)
            assert not peer.connection.is_open
            assert not peer.connection.is_reusable
            response = peer.connection.answer.respond(request(), 1, 2)
            return response.status, response.error

    return asyncio.run(run())


@VERSIONS
@pytest.mark.parametrize(
    ("script", "status", "error"),
    [
        (lambda p: [p.seal(NORMAL), p.end()], "ok", None),
        (lambda p: [p.seal(NORMAL)], "ok", None),  # complete by HTTP's own word
        (lambda p: [p.seal(OPEN_LENGTH + text_event("a") + FINISH + DONE) + p.end()], "ok", None),
        (
            lambda p: [p.seal(OPEN_LENGTH + text_event("a") + FINISH)],
            "cut",
            f"{CUT} (closed by the server without the end of TLS)",
        ),
        (lambda p: [p.seal(HEAD + A)], "cut", f"{CUT} (closed by the server without the end of TLS)"),
        (lambda p: [p.seal(HEAD + A), p.seal(B)[:-1]], "cut", f"{CUT} (closed by the server without the end of TLS)"),
        (lambda p: [p.seal(HEAD + A), p.end()], "cut", f"{CUT} (closed by the server)"),
        (lambda _: [], "cut", f"{CUT} (closed by the server without the end of TLS)"),
    ],
)
def test_the_end_of_the_connection(script: Script, status: str, error: str | None, version: ssl.TLSVersion) -> None:
    assert end_of(script, version) == (status, error)


@VERSIONS
@pytest.mark.parametrize(
    ("script", "why"),
    [
        (lambda p: [p.seal(HEAD + A), p.alert()], "alert"),
        (lambda p: [p.seal(HEAD + A), b"HTTP/1.1 200 OK in the clear"], "TLS failed: "),
        (lambda p: [p.seal(HEAD + A), p.seal(B)[:-1] + b"x"], "mac"),
        (lambda p: [p.seal(HEAD + A), [p.seal(B), p.seal(B)][1]], "mac"),  # a record is missing
    ],
)
def test_an_alert_or_a_broken_record_cuts_the_answer(script: Script, why: str, version: ssl.TLSVersion) -> None:
    status, error = end_of(script, version)
    assert status == "cut"
    assert error is not None
    assert error.startswith(f"{CUT} (TLS failed: ")
    assert why in error
    assert "_ssl.c" not in error


def test_a_token_before_an_alert_in_one_read_is_kept_as_an_upper_bound() -> None:
    response = respond(lambda peer: [peer.seal(HEAD), peer.seal(A) + peer.alert()])
    assert (response.status, response.first_token_ns, response.ttft_bound) == ("cut", 200, "upper")


def test_closing_tells_the_server_that_nothing_was_cut_off() -> None:
    async def run() -> bytes:
        async with Peer() as peer:
            await peer.shake_hands()
            peer.connection.close()
            peer.hear()
            return peer.tls.read(1)

    assert asyncio.run(run()) == b""  # an end without it would raise


@pytest.mark.parametrize("came", [b"", b"\x15\x03\x03\x00\x02\x02\x28"])  # nothing; the alert handshake_failure
def test_a_server_that_goes_away_in_the_handshake(came: bytes) -> None:
    async def run() -> None:
        async with Peer() as peer:
            adopting = asyncio.create_task(peer.connection.adopt())
            await asyncio.sleep(0)
            peer.give(came)
            peer.connection.lose(None)
            await adopting

    with pytest.raises(TlsError, match="alert handshake failure" if came else "closed by the server"):
        asyncio.run(run())


def test_a_large_message_is_sealed_whole() -> None:
    async def run() -> tuple[int, bool]:
        async with Peer() as peer:
            peer.give(await peer.shake_hands())
            peer.connection.send(b"x" * 3_000_000)
            received = 0
            while received < 3_000_000:
                await asyncio.sleep(0)
                peer.hear()
                while (content := read_some(peer.tls)) is not None:
                    received += len(content)
            return received, not peer.connection._rest

    assert asyncio.run(run()) == (3_000_000, True)


def read_some(tls: ssl.SSLObject) -> bytes | None:
    try:
        return tls.read(1 << 16)
    except ssl.SSLWantReadError:
        return None


def test_only_http_1_1_is_offered() -> None:
    async def run() -> str | None:
        async with Peer() as peer:
            await peer.shake_hands()
            return peer.tls.selected_alpn_protocol()

    assert asyncio.run(run()) == "http/1.1"


def test_old_versions_are_not_spoken() -> None:
    context = tls_trust.context_for(ca_file())
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not Tls(context, "localhost").is_ready
