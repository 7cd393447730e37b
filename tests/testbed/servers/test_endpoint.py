"""The control plane: real pages of metrics, and servers that answer oddly."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kvbench.errors import EndpointError
from kvbench.scenario.server_spec import ExternalSpec
from kvbench.testbed.servers.counters import Counters, parse_counters
from kvbench.testbed.servers.endpoint import Endpoint
from kvbench.testbed.servers.external import attach
from kvbench.this_host import process
from tests.builders.tls_peer import ca_file, expired_context, server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

REAL_0_26 = Path("tests/data/vllm/metrics_0.26_fs_tier.prom")
FROM_0_32 = """\
# TYPE vllm:kv_offload_tiering_read_bytes_total counter
vllm:kv_offload_tiering_read_bytes_total{engine="0",model_name="m",tier="1:fs"} 4.194304e+07
vllm:kv_offload_tiering_write_bytes_total{engine="0",model_name="m",tier="1:fs"} 5.8720256e+07
vllm:kv_offload_store_bytes_total{engine="0",model_name="m"} 9.9e+09
vllm:prompt_tokens_cached_by_source_total{engine="0",model_name="m",source="host"} 5248.0
vllm:prompt_tokens_cached_by_source_total{engine="0",model_name="m",source="disk"} 5120.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 10.0
vllm:prefix_cache_hits_total{engine="1",model_name="m"} 5.0
"""


def test_a_real_page_of_vllm_0_26() -> None:
    counters = parse_counters(REAL_0_26.read_text())
    assert counters.external_hits == 1_505_280
    assert counters.local_hits == 0
    assert counters.computed_tokens == 256_880
    assert counters.block_tokens == 16
    assert counters.read_bytes == {}  # it has no counter for bytes read from files: nothing, not zero
    assert counters.write_bytes == {"": 8_416_919_552}
    assert counters.host_tokens is None
    assert counters.pending_writes is None


def test_what_0_32_adds() -> None:
    counters = parse_counters(FROM_0_32)
    assert counters.read_bytes == {"1:fs": 41_943_040}
    assert counters.write_bytes == {"1:fs": 58_720_256}  # into files, not the copy into host memory
    assert counters.host_tokens == 5248
    assert counters.local_hits == 15  # of two engines


def test_differences_keep_unknown_unknown() -> None:
    before, after = Counters(local_hits=5, read_bytes={"g4": 10.0}), Counters(local_hits=9, read_bytes={"g4": 30.0})
    delta = after.since(before)
    assert (delta.local_hits, delta.external_hits, delta.read_bytes) == (4, None, {"g4": 20.0})
    assert Counters(local_hits=1).since(Counters()).local_hits is None


def test_a_tier_that_appears_later_counts_from_zero() -> None:
    assert Counters(read_bytes={"1:fs": 7.0}).since(Counters()).read_bytes == {"1:fs": 7.0}


@contextmanager
def answering(
    pages: dict[str, tuple[int, str]], context: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server with fixed pages; gives its root and the headers of every request."""
    seen: list[dict[str, str]] = []

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            status, text = pages.get(self.path, (404, ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_arguments: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "text", "word"),
    [
        (200, '{"success": true}', True),
        (200, '{"success": false}', False),  # vLLM says so while blocks are held, with status 200
        (200, "", True),  # older versions: an empty body whatever happened
        (404, "", None),
        (500, "no", None),
    ],
)
def test_the_word_of_a_reset_is_read_from_its_body(status: int, text: str, word: object) -> None:
    with answering({"/reset_prefix_cache?reset_external=true": (status, text)}) as (root, _):
        one = Endpoint(f"{root}/v1", "m", f"{root}/metrics")
        assert one.reset(external=True) is word


def test_an_endpoint_without_metrics_has_no_counters_instead_of_zeroes() -> None:
    with answering({}) as (root, _):
        assert Endpoint(f"{root}/v1", "m", f"{root}/metrics").scrape().local_hits is None
    with answering({"/metrics": (200, "<html>not metrics</html>")}) as (root, _):
        assert Endpoint(f"{root}/v1", "m", f"{root}/metrics").scrape().local_hits is None


def test_the_version_is_told_where_the_server_has_one() -> None:
    pages = {"/v1/models": (200, '{"data": [{"id": "m"}]}')}
    for page, info in (
        ((200, '{"version": "0.26.1.dev7+g0123abcd"}'), {"version": "0.26.1.dev7+g0123abcd"}),
        ((200, "plain words"), {}),
        ((200, '{"version": 3}'), {}),
        ((404, ""), {}),
    ):
        with answering({**pages, "/version": page}) as (root, _):
            assert attach(ExternalSpec(url=root)).info == info


def test_a_refused_key_says_where_to_put_it() -> None:
    with answering({"/metrics": (401, "")}) as (root, _), pytest.raises(EndpointError) as error:
        Endpoint(f"{root}/v1", "m", f"{root}/metrics").scrape()
    assert "api_key_env" in error.value.remedy


def test_the_key_goes_to_its_own_server_alone() -> None:
    with answering({"/metrics": (200, "")}) as (root, seen):
        Endpoint(f"{root}/v1", "m", f"{root}/metrics", api_key="sk-secret").scrape()
        assert seen[-1]["authorization"] == "Bearer sk-secret"
        Endpoint("http://127.0.0.1:9/v1", "m", f"{root}/metrics", api_key="sk-secret").scrape()
        assert "authorization" not in seen[-1]
    assert "sk-secret" not in repr(Endpoint("http://h/v1", "m", "http://h/metrics", api_key="sk-secret"))


def test_the_key_does_not_leave_tls() -> None:
    with answering({"/metrics": (200, "")}) as (root, seen):
        Endpoint(f"{root.replace('http', 'https')}/v1", "m", f"{root}/metrics", api_key="sk-secret").scrape()
        assert "authorization" not in seen[-1]


# -- https -------------------------------------------------------------------------------------------------------------

MODELS = {
    "/v1/models": (200, '{"data": [{"id": "m"}]}'),
    "/metrics": (200, "vllm:prefix_cache_hits_total 7.0\n"),
    "/tokenize": (200, '{"count": 3}'),
    "/reset_prefix_cache": (200, '{"success": true}'),
}


def test_every_route_is_asked_over_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "sk-secret")
    with answering(MODELS, server_context()) as (root, seen):
        spec = ExternalSpec(url=root, ca_file=ca_file(), api_key_env="THE_KEY")
        one = attach(spec)
        assert one.ca_file == ca_file()
        assert (one.model, one.scrape().local_hits, one.count_tokens("a b c", "completions")) == ("m", 7, 3)
        assert one.reset(external=False) is True
    assert len(seen) == 6  # with the emulator's own page, and the version where there is none
    assert {headers["authorization"] for headers in seen} == {"Bearer sk-secret"}


@pytest.mark.parametrize(
    ("context", "why"),
    [(expired_context, "certificate has expired"), (lambda: server_context("elsewhere.test"), "IP address mismatch")],
)
def test_a_certificate_that_is_not_accepted(context: Callable[[], ssl.SSLContext], why: str) -> None:
    with answering(MODELS, context()) as (root, seen), pytest.raises(EndpointError) as error:
        attach(ExternalSpec(url=root, ca_file=ca_file()))
    assert f"its certificate is not accepted: {why}".lower() in error.value.message.lower()
    assert "ca_file" in error.value.remedy
    assert not seen


def test_an_authority_that_is_not_the_systems_is_not_accepted() -> None:
    with answering(MODELS, server_context()) as (root, seen), pytest.raises(EndpointError, match="is not accepted"):
        attach(ExternalSpec(url=root))
    assert not seen


def test_a_server_without_tls_is_told_apart() -> None:
    with answering(MODELS) as (root, _), pytest.raises(EndpointError, match="TLS failed") as error:
        attach(ExternalSpec(url=root.replace("http", "https"), ca_file=ca_file()))
    assert "whether the server speaks TLS" in error.value.remedy


def test_what_a_process_and_its_children_read() -> None:
    own = process.process_read_bytes(os.getpid())
    if own is None:
        pytest.skip("/proc/PID/io cannot be read here")
    assert own >= 0
    assert process.process_read_bytes(2**22 + 1) is None


PAGE = """\
# TYPE kvbench:tier_read_bytes counter
kvbench:tier_read_bytes_total{tier="g3"} 1000.0
kvbench:tier_read_bytes_total{tier="g4"} 0.0
# TYPE kvbench:tier_moved_bytes counter
kvbench:tier_moved_bytes_total{tier="g2"} 70.0
kvbench:tier_moved_bytes_total{tier="g3"} MOVED
kvbench:tier_moved_bytes_total{tier="g4"} 0.0
# TYPE kvbench:tier_moving_bytes gauge
kvbench:tier_moving_bytes{tier="g2"} 8.0
kvbench:tier_moving_bytes{tier="g3"} MOVING
# TYPE kvbench:tier_write_errors counter
kvbench:tier_write_errors_total{tier="g3",reason="no_space"} 2.0
kvbench:tier_write_errors_total{tier="g4",reason="io_error"} 1.0
kvbench:tier_write_errors_total{tier="g4",reason="capacity"} 5.0
"""


def page(moved: int, moving: int) -> str:
    return PAGE.replace("MOVED", str(moved)).replace("MOVING", str(moving))


def test_what_moves_between_tiers_of_a_device_is_told_apart_from_what_serves() -> None:
    """What leaves host memory is read from no device; a file on its way may have been read before or after a scrape."""
    before, after = parse_counters(page(100, 30), 1_000), parse_counters(page(400, 20), 1_900)
    assert (before.moved_bytes, before.moving_bytes) == (100.0, 30.0)
    delta = after.since(before)
    assert (delta.moved_bytes, delta.moving_bytes, delta.process_read_bytes) == (300.0, 50.0, 900)
    assert delta.device_bytes() == (550.0, 650.0)
    assert parse_counters(page(100, 30)).device_bytes() is None
    assert parse_counters("# TYPE x counter\nx_total 1.0\n", 700).device_bytes() == (700.0, 700.0)


def test_what_storage_refused_is_told_apart_from_what_the_budget_refused() -> None:
    found = parse_counters(page(0, 0))
    assert (found.write_errors, found.refused_files) == (3.0, 5.0)
