"""The control plane of a server with vLLM's routes: models, tokens, counters, reset. Never the load.

Counters are cumulative, so every figure is the difference of two scrapes (`Counters.since`). What a server does not
export is None, never 0: a missing counter proves nothing. Metric names are vLLM's (0.26 to 0.32, `docs/protocol.md`),
and kvbench's own where vLLM has none. Look-up counters such as vLLM's `chunk_hits` are not read on purpose: they rise
even when the load fails.
"""

from __future__ import annotations

import functools
import ssl
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kvbench.errors import EndpointError
from kvbench.scenario.request_body import prompt_fields
from kvbench.testbed.servers.counters import Counters, parse_counters
from kvbench.this_host import facts, tls_trust
from kvbench.this_host.process import process_read_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from kvbench.this_host.process import Started
    from kvbench.typed_json import JsonObject

_CONTROL_TIMEOUT_S = 30.0
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Endpoint:
    """A server at a URL. `url` ends in /v1; `pid` and `tier_paths` are set only where they are on this host.

    `tier_paths` are the directories of its tiers by name, the fastest first; a server that somebody else runs has at
    most one. `ca_file` holds the authorities that may have signed its certificate, None for the system's. `started` is
    the process of a server that kvbench runs itself.
    """

    url: str
    model: str
    metrics_url: str
    api_key: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    pid: int | None = None
    tier_paths: dict[str, Path] = field(default_factory=dict)
    info: JsonObject = field(default_factory=dict)
    started: Started | None = field(default=None, repr=False)

    @property
    def ours(self) -> bool:
        """Whether kvbench has started it, and so may delete what it writes."""
        return self.started is not None

    @property
    def tier_path(self) -> Path | None:
        """The directory of the slowest tier, None where there is none on this host."""
        return next(reversed(self.tier_paths.values()), None)

    @property
    def counts_words(self) -> bool:
        """Whether one word of a completion is one token; the server says so, as kvbench's emulator does."""
        return self.info.get("counts_words") is True

    @property
    def root(self) -> str:
        """The URL without its /v1, where vLLM keeps its other routes."""
        return root_of(self.url)

    def scrape(self) -> Counters:
        """Read all counters now; an endpoint without metrics gives counters that are all None."""
        is_own = _origin(self.metrics_url) == _origin(self.url)  # else the key would leave it, or leave TLS
        answer = call("GET", self.metrics_url, self.api_key if is_own else None, ca_file=self.ca_file)
        by_fuse = any(_goes_by_fuse(path) for path in self.tier_paths.values())
        read_bytes = process_read_bytes(self.pid) if self.pid and not by_fuse else None
        if answer.status_code != HTTPStatus.OK:
            return Counters(process_read_bytes=read_bytes)
        try:
            return parse_counters(answer.text, read_bytes)
        except ValueError:
            return Counters(process_read_bytes=read_bytes)

    def reset(self, *, external: bool) -> bool | None:
        """Ask the server to forget; True or False is its own word, None means that it has no such route.

        vLLM answers 200 with `{"success": false}` while blocks are held, and older versions answer 200 with an empty
        body whatever happened; an empty body is therefore taken as the server's word True, and proof comes elsewhere.
        """
        url = f"{self.root}/reset_prefix_cache" + ("?reset_external=true" if external else "")
        answer = call("POST", url, self.api_key, ca_file=self.ca_file)
        if answer.status_code != HTTPStatus.OK:
            return None
        try:
            body = answer.json()
        except ValueError:
            return True
        return bool(body.get("success", True)) if isinstance(body, dict) else True

    def count_tokens(self, prompt: str | tuple[str, ...], api: str) -> int:
        """Ask the server how many prompt tokens a text, or a conversation so far, makes, template included.

        Raises:
            EndpointError: the server has no /tokenize route.

        """
        body: JsonObject = {"model": self.model}
        body |= prompt_fields(prompt, api)
        answer = call("POST", f"{self.root}/tokenize", self.api_key, body, ca_file=self.ca_file)
        try:
            return int(answer.json()["count"])
        except (ValueError, KeyError, TypeError):
            raise EndpointError(
                f"{self.root}/tokenize answered {answer.status_code}, so exact prompt lengths cannot be made",
                "Use load.api: completions with prompts.form: token_ids.",
            ) from None

    def learn(self, text: str) -> None:
        """Let kvbench's emulator hash a text beforehand; any other server is asked nothing."""
        if self.counts_words:
            call("POST", f"{self.root}/kvbench/learn", self.api_key, {"prompt": text}, ca_file=self.ca_file)


@functools.cache
def _goes_by_fuse(path: Path) -> bool:
    """Remember it: counters are scraped many times a second, and a mount stays as long as a server."""
    return facts.goes_by_fuse(path)


def call(
    method: str, url: str, api_key: str | None, body: JsonObject | None = None, *, ca_file: Path | None = None
) -> httpx.Response:
    """Make one control-plane request.

    Raises:
        EndpointError: nobody answers, TLS fails, or the key is refused.

    """
    import httpx  # noqa: PLC0415 - a scenario without a running server is checked in half the time without it

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = _client(ca_file).request(method, url, headers=headers, json=body)
    except (httpx.HTTPError, httpx.InvalidURL) as fault:
        if (cause := _tls_fault(fault)) is not None:
            said = f"cannot speak TLS with {plain_url(url)}: {tls_trust.explain(cause)}"
            raise EndpointError(said, tls_trust.remedy_for(cause)) from None
        raise EndpointError(
            f"no server answers at {plain_url(url)}: {fault or type(fault).__name__}",
            "Start the server, or check the URL and the port (`kvbench serve` starts an emulator).",
        ) from None
    if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise EndpointError(
            f"{plain_url(url)} refuses the API key ({answer.status_code})",
            "Put a valid key into an environment variable and name it in server.external.api_key_env.",
        )
    return answer


@functools.cache
def _client(ca_file: Path | None) -> httpx.Client:
    """Return one client for the life of the process, so that control requests reuse their connections."""
    import httpx  # noqa: PLC0415 - as above

    return httpx.Client(timeout=_CONTROL_TIMEOUT_S, trust_env=False, verify=tls_trust.context_for(ca_file))


def _tls_fault(fault: BaseException) -> ssl.SSLError | None:
    """Return what OpenSSL said, where it is the cause: httpx wraps it twice."""
    cause: BaseException | None = fault
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause


def root_of(url: str) -> str:
    """Return a base URL without its trailing /v1."""
    return url.rstrip("/").removesuffix("/v1")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return what two URLs of one server have in common: scheme, host and port."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def plain_url(url: str) -> str:
    """Return a URL without user name and password, fit for results and messages."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url
