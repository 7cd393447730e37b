"""A whole run over TLS with a key: a real emulator behind a proxy that ends TLS and lets nobody in without the key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trustme

from kvbench.result.rows import read_rows
from tests.builders.patience import PATIENCE_S
from tests.builders.tls_peer import ca_file, server_context
from tests.cli.test_cli import kvbench, one_sentence_with_remedy, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "sk-this-must-stay-secret"
SCENARIO = """\
name: behind-tls
question: Does it go from end to end over TLS?
server:
  external:
    url: URL
    ca_file: CA
    api_key_env: THE_KEY
prompts: {lengths: [1k, 2k], output_tokens: 4}
treatments:
  recompute: {cache: off}
repeats: 2
"""


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes one way, as they come."""
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


class Proxy:
    """Ends TLS before a plain server; a connection whose first request lacks the key is refused with what it gave."""

    def __init__(self, url: str) -> None:
        self._port = urlsplit(url).port
        self.admitted = self.refused = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            given = re.search(rb"(?im)^authorization: *(.*?)\r$", head)
            if given is not None and given[1] == f"Bearer {KEY}".encode():
                self.admitted += 1
                back, forth = await asyncio.open_connection("127.0.0.1", self._port)
                forth.write(head)
                await asyncio.gather(pipe(reader, forth), pipe(back, writer))
            else:
                self.refused += 1
                said = b'{"error": {"message": "not with %b"}}' % (given[1] if given else b"nothing")
                writer.write(b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
                await writer.drain()
        writer.close()


@contextlib.contextmanager
def behind_tls(url: str) -> Iterator[tuple[str, Proxy]]:
    """Put a proxy before a server, in a thread of its own; gives its https URL."""
    proxy = Proxy(url)
    ready = threading.Event()
    ports: list[int] = []
    loop = asyncio.new_event_loop()
    stopped = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0, ssl=server_context(), limit=1 << 20)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stopped.wait()
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        yield f"https://localhost:{ports[0]}/v1", proxy
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(PATIENCE_S)
        loop.close()


def write(tmp_path: Path, url: str, authority: Path) -> Path:
    path = tmp_path / "behind-tls.yaml"
    path.write_text(SCENARIO.replace("URL", url).replace("CA", str(authority)))
    return path


def test_a_run_over_tls_has_figures_and_keeps_the_key_nowhere(tmp_path: Path) -> None:
    results, reports = tmp_path / "results", tmp_path / "reports"
    with serving("--cache", "off", "--api-key-env", "SERVER_KEY", SERVER_KEY=KEY) as plain:
        with behind_tls(plain) as (url, proxy):
            scenario = write(tmp_path, url, ca_file())
            checked = kvbench("check", scenario, THE_KEY=KEY)
            done = kvbench("run", scenario, "--results", results, THE_KEY=KEY)
        assert (proxy.admitted > 2, proxy.refused) == (True, 0)
    assert checked.returncode == 0, checked.stderr
    assert done.returncode in (0, 3), done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    shown = kvbench("show", folder, "--json")
    summed = json.loads(shown.stdout)
    assert summed["treatments"]["recompute"]["tiers"] == {"recompute": 4}  # from counters that came over TLS
    assert all(length["cells"]["recompute"]["median_s"] > 0 for length in summed["lengths"])
    rows = [row for run in (folder / "runs").iterdir() for row in read_rows(run)]
    assert len(rows) >= 4
    assert {row.status for row in rows} == {"ok"}
    assert all(row.isl == row.isl_target for row in rows)
    assert KEY not in repr(rows)
    reported = kvbench("report", folder, "--html", "--out", reports)
    assert reported.returncode == 0, reported.stderr
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"behind-tls.html", "facts.json", "requests.parquet"} <= {path.name for path in kept}
    assert not [path for path in kept if KEY.encode() in path.read_bytes()]
    for command in (checked, done, shown, reported):
        assert KEY not in command.stdout + command.stderr


def test_what_is_refused_is_told_in_one_sentence(tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    results = ["--results", str(tmp_path / "results")]
    with serving("--cache", "off") as plain, behind_tls(plain) as (url, proxy):
        wrong_key = kvbench("run", write(tmp_path, url, ca_file()), *results, THE_KEY="sk-also-a-secret")
        assert proxy.refused == 1
        wrong_authority = kvbench("run", write(tmp_path, url, other), *results, THE_KEY=KEY)
        no_file = kvbench("run", write(tmp_path, url, tmp_path / "missing.pem"), *results, THE_KEY=KEY)
        no_tls = kvbench("run", write(tmp_path, plain.replace("http", "https"), ca_file()), *results, THE_KEY=KEY)
        assert (proxy.admitted, proxy.refused) == (0, 1)  # the others were not told the key
    assert "refuses the API key (401)" in one_sentence_with_remedy(wrong_key)
    assert "its certificate is not accepted: " in one_sentence_with_remedy(wrong_authority)
    assert "server.external.ca_file" in wrong_authority.stderr
    assert f"behind-tls.yaml:6: `server.external.ca_file`: {tmp_path}/missing.pem" in one_sentence_with_remedy(no_file)
    assert "TLS failed: wrong version number" in one_sentence_with_remedy(no_tls)
    for command in (wrong_key, wrong_authority, no_file, no_tls):
        assert "secret" not in command.stdout + command.stderr
    assert not (tmp_path / "results").exists()
