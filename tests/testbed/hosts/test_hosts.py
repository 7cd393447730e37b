"""Hosts: the file that names them, and how each kind is reached or refused."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.errors import HostError
from kvbench.testbed.hosts.event_loop import HostThread
from kvbench.testbed.hosts.file import Reach, SshReach, load
from kvbench.testbed.hosts.local import LocalHost
from kvbench.testbed.hosts.open_host import open_host
from kvbench.testbed.hosts.ssh import SshHost
from tests.builders.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

GOOD = """\
ssh: {known_hosts: /etc/kvbench/known_hosts, user: bench}
side_clients:
  c1: {ssh: {host: c1.example, port: 2222}, directory: /mnt/g4/bench, interface: eth1, weight: 2}
  c2: {netns: lab-c2, directory: /srv/bench}
  c3: {local: true}
iperf3: {address: 192.0.2.11, ports: [5201, 5202, 5203], server: {ssh: {host: storage.example, user: root}}}
"""


@pytest.fixture
def thread() -> Iterator[HostThread]:
    with HostThread() as running:
        yield running


def call(work: Coroutine[Any, Any, Any]) -> Any:
    with HostThread() as running:
        return running.call(work, PATIENCE_S)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "hosts.yaml"
    path.write_text(text)
    return path


def test_a_hosts_file(tmp_path: Path) -> None:
    hosts = load(written(tmp_path, GOOD))
    c1, c2, c3 = hosts.side_clients.values()
    assert c1.ssh is not None
    assert (c1.ssh.host, c1.ssh.port, c1.ssh.user, str(c1.ssh.known_hosts)) == (
        *("c1.example", 2222, "bench"),
        "/etc/kvbench/known_hosts",
    )
    assert (str(c1.directory), c1.interface, c1.weight) == ("/mnt/g4/bench", "eth1", 2.0)
    assert (c2.netns, c3.local, c3.directory) == ("lab-c2", True, None)
    assert hosts.iperf3 is not None
    assert hosts.iperf3.server is not None
    assert hosts.iperf3.server.ssh is not None
    assert hosts.iperf3.server.ssh.user == "root", "an entry's own word goes before what all share"


@pytest.mark.parametrize(
    ("old", "new", "line", "sentence"),
    [
        ("interface: eth1", "interfaces: eth1", 3, "unknown key `interfaces`"),
        ("netns: lab-c2, ", "netns: lab-c2, local: true, ", 4, "exactly one of"),
        ("{local: true}", "{directory: /srv}", 5, "exactly one of"),
        ("directory: /srv/bench", "directory: srv/bench", 4, "absolute path"),
        ("directory: /srv/bench", 'directory: "/srv/a:b"', 4, "without a colon"),
        ("netns: lab-c2", "netns: ../escape", 4, "should match"),
        ("ports: [5201, 5202, 5203]", "ports: [5201, 5202]", 1, "as many iperf3 ports"),
        ("ports: [5201, 5202, 5203]", "ports: [5201, 5201, 5203]", 6, "may stand here once"),
        ("address: 192.0.2.11", "address: -x", 6, "should match"),
        ("weight: 2", "weight: 0", 3, "greater than 0"),
        ("host: c1.example, port: 2222", "port: 2222", 3, "is missing"),
        ("c3: {local: true}", "c3: {local: true", 6, "not YAML"),
    ],
)
def test_a_wrong_hosts_file_is_one_sentence_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, sentence: str
) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(HostError) as caught:
        load(path)
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.remedy


def test_a_missing_or_empty_hosts_file(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot read it: no such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(HostError, match=r"hosts\.yaml:1: "):
        load(written(tmp_path, ""))


def test_each_entry_opens_its_kind_of_host() -> None:
    assert isinstance(open_host("a", Reach(local=True)), LocalHost)
    assert isinstance(open_host("a", Reach(ssh=SshReach(host="x"))), SshHost)
    netns = open_host("a", Reach(netns="lab"))
    assert netns.describe(["python3", "-c", "a b"]) == "nsenter --net=/run/netns/lab python3 -c 'a b'"
    ssh = SshHost("a", SshReach(host="x.example", user="bench", port=2222))
    assert ssh.describe(["python3", "-V"]) == "ssh -p 2222 bench@x.example 'python3 -V'"


def test_a_local_program_is_talked_to() -> None:
    async def talk() -> tuple[bytes, bytes, str]:
        host = LocalHost("here")
        script = "import sys; print(input().upper(), flush=True); sys.stderr.write('last words'); sys.stdin.read()"
        process = await host.run([sys.executable, "-c", script])
        await process.send(b"hello\n")
        return (
            await process.line(),
            await asyncio.wait_for(_second_line(process), PATIENCE_S),
            await process.end(PATIENCE_S),
        )

    async def _second_line(process: Any) -> bytes:
        await asyncio.sleep(0)
        process._process.stdin.close()
        return bytes(await process.line())

    assert call(talk()) == (b"HELLO\n", b"", "last words")


def test_a_program_that_does_not_end_is_cut_off() -> None:
    async def stubborn() -> int | None:
        process: Any = await LocalHost("here").run(["sleep", "60"])
        await process.end(0.1)
        code: int | None = process._process.returncode
        return code

    assert call(stubborn()) == -9


def test_a_missing_program_is_one_sentence() -> None:
    with pytest.raises(HostError, match="here: cannot start no-such-program"):
        call(LocalHost("here").run(["no-such-program"]))


def test_a_missing_namespace_is_one_sentence() -> None:
    with pytest.raises(HostError, match="there is no network namespace kvb-none"):
        call(LocalHost("c1", "kvb-none").connect())


def test_what_fails_in_the_thread_fails_here(thread: HostThread) -> None:
    async def fail() -> None:
        raise HostError("no", "Yes.")

    with pytest.raises(HostError, match="no"):
        thread.call(fail())
    with pytest.raises(TimeoutError):
        thread.call(asyncio.sleep(30), 0.05)


def test_leaving_the_thread_cancels_what_is_left() -> None:
    ended = threading.Event()

    async def linger() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def begin() -> asyncio.Task[None]:
        return asyncio.create_task(linger())

    with HostThread() as running:
        running.call(begin())
        running.call(asyncio.sleep(0))
    assert ended.is_set()


def refused(reach: SshReach) -> str:
    pytest.importorskip("asyncssh")
    with pytest.raises(HostError) as caught:
        call(SshHost("c1", reach).connect())
    assert "\n" not in caught.value.message
    assert caught.value.remedy
    return caught.value.message


def test_nobody_listening_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    (tmp_path / "known_hosts").touch()
    reach = SshReach(host="127.0.0.1", port=port, known_hosts=tmp_path / "known_hosts", config=tmp_path / "none")
    assert refused(reach).startswith("c1: cannot reach 127.0.0.1: ")


@pytest.fixture
def ssh_server(tmp_path: Path) -> Iterator[tuple[int, Any]]:
    """An SSH server of asyncssh's own on the loopback, which lets in whoever shows the right key."""
    asyncssh = pytest.importorskip("asyncssh")
    host_key, client_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    client_key.write_private_key(tmp_path / "client")
    (tmp_path / "authorized").write_bytes(client_key.export_public_key())
    (tmp_path / "none").touch()

    async def serve() -> Any:
        return await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[host_key], authorized_client_keys=str(tmp_path / "authorized")
        )

    async def stop(server: Any) -> None:
        server.close()
        await server.wait_closed()

    with HostThread() as running:
        server = running.call(serve(), PATIENCE_S)
        yield server.get_port(), host_key
        running.call(stop(server), PATIENCE_S)


def reach_of(tmp_path: Path, port: int, known: str, key: str = "client") -> SshReach:
    (tmp_path / "known_hosts").write_text(known)
    return SshReach(
        host="127.0.0.1",
        port=port,
        user="bench",
        key=tmp_path / key,
        known_hosts=tmp_path / "known_hosts",
        config=tmp_path / "none",
    )


def line_for(port: int, key: Any) -> str:
    return f"[127.0.0.1]:{port} {key.export_public_key().decode()}"


def test_a_known_host_is_let_in(tmp_path: Path, ssh_server: tuple[int, Any]) -> None:
    port, key = ssh_server

    async def visit() -> None:
        host = SshHost("c1", reach_of(tmp_path, port, line_for(port, key)))
        await host.connect()
        await host.close()

    call(visit())


def test_an_unknown_host_is_refused_with_the_way_to_know_it(tmp_path: Path, ssh_server: tuple[int, Any]) -> None:
    port, _ = ssh_server
    assert "is not in" in refused(reach_of(tmp_path, port, ""))


def test_a_wrong_host_key_is_refused_as_such(tmp_path: Path, ssh_server: tuple[int, Any]) -> None:
    import asyncssh  # noqa: PLC0415 - an optional extra

    port, _ = ssh_server
    other = asyncssh.generate_private_key("ssh-ed25519")
    assert "another host key" in refused(reach_of(tmp_path, port, line_for(port, other)))


def test_a_wrong_client_key_is_refused(tmp_path: Path, ssh_server: tuple[int, Any]) -> None:
    import asyncssh  # noqa: PLC0415 - an optional extra

    port, key = ssh_server
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(tmp_path / "stranger")
    assert "does not let us in" in refused(reach_of(tmp_path, port, line_for(port, key), key="stranger"))


def test_a_missing_namespace_to_start_from_is_told(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to enter a network namespace")
    (tmp_path / "known_hosts").touch()
    reach = SshReach(host="192.0.2.1", known_hosts=tmp_path / "known_hosts", from_netns="kvb-none")
    assert "cannot reach 192.0.2.1" in refused(reach)
