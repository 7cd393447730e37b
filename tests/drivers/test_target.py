"""Which URLs are endpoints, and what goes before a body."""

from __future__ import annotations

import pytest

from kvbench.drivers.target import Target
from kvbench.errors import EndpointError


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("host:8000", "not a URL of an endpoint"),
        ("http://", "not a URL of an endpoint"),
        ("http://host:99999/v1", "not a URL of an endpoint"),
        ("ftp://host/", "not a URL of an endpoint"),
    ],
)
def test_bad_targets(url: str, words: str) -> None:
    with pytest.raises(EndpointError, match=words):
        Target(url)


def test_key_that_no_header_can_carry() -> None:
    with pytest.raises(EndpointError, match="API key"):
        Target("http://host", api_key="a\nb")


@pytest.mark.parametrize(
    ("url", "line", "host"),
    [
        ("http://h", b"POST /v1/completions HTTP/1.1", b"Host: h:80"),
        ("http://h:8/", b"POST /v1/completions HTTP/1.1", b"Host: h:8"),
        ("http://h:8/a/v1/", b"POST /a/v1/completions HTTP/1.1", b"Host: h:8"),
        ("https://h", b"POST /v1/completions HTTP/1.1", b"Host: h:443"),
        ("https://h:8/v1", b"POST /v1/completions HTTP/1.1", b"Host: h:8"),
        ("http://[::1]:8/v1", b"POST /v1/completions HTTP/1.1", b"Host: [::1]:8"),
    ],
)
def test_head(url: str, line: bytes, host: bytes) -> None:
    lines = Target(url).head(7).split(b"\r\n")
    assert lines[:2] == [line, host]
    assert b"Content-Length: 7" in lines


def test_only_https_has_tls() -> None:
    assert Target("http://h").tls is None
    assert Target("https://h").tls is not None
