"""The control plane of a server that speaks vLLM's routes: models, tokens, counters, reset. Never the load itself.

Counters are cumulative, so every figure is the difference of two scrapes (`Counters.since`). What a server does not
export is None, never 0: a missing counter proves nothing. Metric names are vLLM's (0.26 to 0.32, `docs/protocol.md`),
and kvbench's own where vLLM has none. Look-up counters such as vLLM's `chunk_hits` are not read on purpose: they rise
even when the load fails.
"""

from __future__ import annotations

import functools
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from kvbench import facts
from kvbench.errors import EndpointError
from kvbench.prompts import prompt_fields
from kvbench.servers import trust

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvbench.servers.process import Started

_CONTROL_TIMEOUT_S = 30.0
# The parser strips `_total` from the family's name but not from the sample's; samples are what is read here.
_TOTALS = {
    "vllm:prefix_cache_queries_total": "prefix_queries",
    "vllm:prefix_cache_hits_total": "local_hits",
    "vllm:external_prefix_cache_hits_total": "external_hits",
    "kvbench:tier_bad_files_total": "bad_files",
    "kvbench:tier_pending_writes": "pending_writes",
    "kvbench:tier_write_errors_total": "write_errors",
}
_READ_BYTES = ("kvbench:tier_read_bytes_total", "vllm:kv_offload_tiering_read_bytes_total")
_WRITE_BYTES = (
    "kvbench:tier_write_bytes_total",
    "vllm:kv_offload_tiering_write_bytes_total",  # from 0.32
    "vllm:kv_offload_store_bytes_total",  # into host memory, the first step towards a file
)
_MOVES = ("kvbench:tier_moved_bytes_total", "kvbench:tier_moving_bytes")
_TIER_TOKENS = "kvbench:tier_hit_tokens_total"
_BY_TIER = (*_READ_BYTES, *_WRITE_BYTES, *_MOVES, _TIER_TOKENS)


@dataclass(frozen=True, slots=True)
class Counters:
    """What a server says it has done since it started, in tokens and bytes.

    `read_bytes` and `write_bytes` are per tier as the server labels them; empty where it does not count them.
    `host_tokens` are cached tokens that came from host memory (vLLM from 0.32), `tier_tokens` those of each tier below
    G1 where a server counts them so; `bad_files` counts tier files that were missing, cut or corrupt.
    `moved_bytes` are those of tier files that were read to move them to a slower tier, `moving_bytes` those of files on
    their way, at both ends of a difference; None where no tier on a device moves anything. `write_errors` are files
    that storage did not take, `refused_files` those for which the slowest tier's budget had no room.
    `process_read_bytes` is what the kernel says the server's process has read from block devices (/proc/PID/io), which
    page-cache hits do not move; None where the process is not ours to look at.
    """

    prefix_queries: float | None = None
    local_hits: float | None = None
    external_hits: float | None = None
    computed_tokens: float | None = None
    host_tokens: float | None = None
    bad_files: float | None = None
    pending_writes: float | None = None
    write_errors: float | None = None
    refused_files: float | None = None
    moved_bytes: float | None = None
    moving_bytes: float | None = None
    process_read_bytes: int | None = None
    read_bytes: dict[str, float] = field(default_factory=dict)
    write_bytes: dict[str, float] = field(default_factory=dict)
    tier_tokens: dict[str, float] = field(default_factory=dict)
    block_tokens: int | None = None
    text: str = ""

    def since(self, before: Counters) -> Counters:
        """Return what was added between two scrapes of the same server; gauges keep their newer value."""
        return Counters(
            prefix_queries=_minus(self.prefix_queries, before.prefix_queries),
            local_hits=_minus(self.local_hits, before.local_hits),
            external_hits=_minus(self.external_hits, before.external_hits),
            computed_tokens=_minus(self.computed_tokens, before.computed_tokens),
            host_tokens=_minus(self.host_tokens, before.host_tokens),
            bad_files=_minus(self.bad_files, before.bad_files),
            pending_writes=self.pending_writes,
            write_errors=_minus(self.write_errors, before.write_errors),
            refused_files=_minus(self.refused_files, before.refused_files),
            moved_bytes=_minus(self.moved_bytes, before.moved_bytes),
            moving_bytes=None if self.moving_bytes is None else self.moving_bytes + (before.moving_bytes or 0),
            process_read_bytes=_minus_int(self.process_read_bytes, before.process_read_bytes),
            read_bytes={tier: value - before.read_bytes.get(tier, 0) for tier, value in self.read_bytes.items()},
            write_bytes={tier: value - before.write_bytes.get(tier, 0) for tier, value in self.write_bytes.items()},
            tier_tokens={tier: value - before.tier_tokens.get(tier, 0) for tier, value in self.tier_tokens.items()},
            block_tokens=self.block_tokens,
        )

    def device_bytes(self) -> tuple[float, float] | None:
        """Return the least and the most that the process has read from devices for requests; None if it is not seen.

        Between two scrapes, files that move down are read too. What had moved is known; a file on its way at either
        scrape may have been read on this or on that side of it.
        """
        if self.process_read_bytes is None:
            return None
        served, moving = self.process_read_bytes - (self.moved_bytes or 0), self.moving_bytes or 0
        return served - moving, served + moving


def _minus(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _minus_int(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def parse_counters(text: str, process_read_bytes: int | None = None) -> Counters:
    """Read a page of Prometheus metrics; samples of several engines are added up.

    Raises:
        ValueError: the text is not in Prometheus format.

    """
    sums: dict[str, float] = {}
    tiers: dict[str, dict[str, float]] = {name: {} for name in _BY_TIER}
    block_tokens: int | None = None
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name, labels, value = sample.name, sample.labels, sample.value
            if total := _total_of(name, labels):
                sums[total] = sums.get(total, 0) + value
            elif name in tiers:
                tiers[name][labels.get("tier", "")] = tiers[name].get(labels.get("tier", ""), 0) + value
            elif name == "vllm:cache_config_info" and labels.get("block_size", "").isdigit():
                block_tokens = int(labels["block_size"])
    on_device = tiers["kvbench:tier_read_bytes_total"]  # what moves out of host memory is read from no device
    moved, moving = ([size for tier, size in tiers[name].items() if tier in on_device] for name in _MOVES)
    return Counters(
        **sums,
        moved_bytes=sum(moved) if moved else None,
        moving_bytes=sum(moving) if moving else None,
        process_read_bytes=process_read_bytes,
        read_bytes=next((tiers[name] for name in _READ_BYTES if tiers[name]), {}),
        write_bytes=next((tiers[name] for name in _WRITE_BYTES if tiers[name]), {}),
        tier_tokens=tiers[_TIER_TOKENS],
        block_tokens=block_tokens,
        text=text,
    )


def _total_of(name: str, labels: Mapping[str, str]) -> str | None:
    """Return the total that a sample belongs to; of some metrics only one label's samples do."""
    if name == "kvbench:tier_write_errors_total" and labels.get("reason") == "capacity":
        return "refused_files"
    if name == "vllm:prompt_tokens_by_source_total" and labels.get("source") == "local_compute":
        return "computed_tokens"
    if name == "vllm:prompt_tokens_cached_by_source_total" and labels.get("source") == "host":
        return "host_tokens"
    return _TOTALS.get(name)


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
    info: dict[str, Any] = field(default_factory=dict)
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
        """Whether one word of a completion is one token, as in kvbench's emulator."""
        return "profile" in self.info

    @property
    def root(self) -> str:
        """The URL without its /v1, where vLLM keeps its other routes."""
        return root_of(self.url)

    def scrape(self) -> Counters:
        """Read all counters now; an endpoint without metrics gives counters that are all None."""
        asked, own = httpx.URL(self.metrics_url), httpx.URL(self.url)
        is_own = (asked.scheme, asked.netloc) == (own.scheme, own.netloc)  # else the key would leave it, or leave TLS
        answer = call("GET", self.metrics_url, self.api_key if is_own else None, ca_file=self.ca_file)
        by_fuse = any(_goes_by_fuse(path) for path in self.tier_paths.values())
        read_bytes = process_read_bytes(self.pid) if self.pid and not by_fuse else None
        if answer.status_code != httpx.codes.OK:
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
        if answer.status_code != httpx.codes.OK:
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
        body: dict[str, Any] = {"model": self.model}
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


def process_read_bytes(pid: int) -> int | None:
    """Return what a process and its descendants have read from block devices, None where that cannot be seen.

    Engines read their tiers in processes of their own (vLLM: the engine core, a child of the API server).
    """
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        tasks = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return None
    own = next((int(line.split()[1]) for line in lines if line.startswith("read_bytes:")), 0)
    return own + sum(process_read_bytes(int(child)) or 0 for children in tasks for child in children)


def call(
    method: str, url: str, api_key: str | None, body: dict[str, Any] | None = None, *, ca_file: Path | None = None
) -> httpx.Response:
    """Make one control-plane request.

    Raises:
        EndpointError: nobody answers, TLS fails, or the key is refused.

    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = _client(ca_file).request(method, url, headers=headers, json=body)
    except (httpx.HTTPError, httpx.InvalidURL) as fault:
        if (cause := _tls_fault(fault)) is not None:
            said = f"cannot speak TLS with {plain_url(url)}: {trust.explain(cause)}"
            raise EndpointError(said, trust.remedy_for(cause)) from None
        raise EndpointError(
            f"no server answers at {plain_url(url)}: {fault or type(fault).__name__}",
            "Start the server, or check the URL and the port (`kvbench serve` starts an emulator).",
        ) from None
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise EndpointError(
            f"{plain_url(url)} refuses the API key ({answer.status_code})",
            "Put a valid key into an environment variable and name it in server.external.api_key_env.",
        )
    return answer


@functools.cache
def _client(ca_file: Path | None) -> httpx.Client:
    """Return one client for the life of the process, so that control requests reuse their connections."""
    return httpx.Client(timeout=_CONTROL_TIMEOUT_S, trust_env=False, verify=trust.context_for(ca_file))


def _tls_fault(fault: BaseException) -> ssl.SSLError | None:
    """Return what OpenSSL said, where it is the cause: httpx wraps it twice."""
    cause: BaseException | None = fault
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause


def root_of(url: str) -> str:
    """Return a base URL without its trailing /v1."""
    return url.rstrip("/").removesuffix("/v1")


def plain_url(url: str) -> str:
    """Return a URL without user name and password, fit for results and messages."""
    parsed = httpx.URL(url)
    return str(parsed.copy_with(username=None, password=None)) if parsed.userinfo else url
