"""What is refused before anything runs, in one sentence each, through the same door as a run: load, crew_for, enter."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kvbench.errors import HostError
from kvbench.scenario.neighbors import NeighborSpec
from kvbench.testbed.hosts import file as hosts_file
from kvbench.testbed.hosts.event_loop import HostThread
from kvbench.testbed.neighbors import agent_host
from kvbench.testbed.neighbors.neighbor_loads import side_clients_of
from tests.builders.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written
FIO: dict[str, Any] = {"fio": {"size": "1MB", "numjobs": 1}}
IPERF3: dict[str, Any] = {"iperf3": {}}
DOCUMENT = Path(__file__).parents[3] / "docs" / "neighbors.md"
LOCAL = "side_clients:\n  c1: {local: true, directory: DIR}\n"
FAR = "iperf3: {address: 127.0.0.1, ports: [5201]}\n"
BEHIND_SSH = (
    "side_clients:\n  c1: {ssh: {host: 127.0.0.1, port: PORT, user: bench, key: HERE/client, config: HERE/none, "
    "known_hosts: HERE/known_hosts}, directory: DIR}\n"
)
# What is wrong; the sentence, where FREE and NEED are sizes; the hosts file; the load; which generators are there.
CASES: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...]]] = {
    "fio missing": ("c1: fio is missing there", LOCAL, FIO, ()),
    "iperf3 missing": ("c1: iperf3 is missing there", LOCAL + FAR, IPERF3, ("fio",)),
    "target full": (
        "c1: the target DIR is too full: FREE are free, NEED are needed",
        LOCAL,
        {"fio": {"size": 10**17, "numjobs": 1}},
        ("fio",),
    ),
    "target in memory": ("c1: the target DIR is in memory, not on storage", LOCAL, FIO, ("fio",)),
    "target a block device": ("c1: the target DIR is a device, which is never written", LOCAL, FIO, ("fio",)),
    "target with a colon": (
        "HOSTS:2: `side_clients.c1.directory`: a target is an absolute path without a colon",
        LOCAL,
        FIO,
        ("fio",),
    ),
    "wrong host key": (
        "c1: 127.0.0.1 shows another host key than the one in KNOWN_HOSTS",
        BEHIND_SSH,
        FIO,
        ("fio",),
    ),
    "unknown host key": ("c1: the host key of 127.0.0.1 is not in KNOWN_HOSTS", BEHIND_SSH, FIO, ("fio",)),
}


def target_of(case: str, here: Path) -> Path:
    """The directory that the hosts file names."""
    if case == "target in memory":
        if agent_host.file_system_of(MEMORY) != "tmpfs":
            pytest.skip("there is no tmpfs here")
        return MEMORY
    if case == "target a block device":
        return block_device(here)
    target = here / ("a:b" if case == "target with a colon" else "target")
    target.mkdir()
    return target


def block_device(here: Path) -> Path:
    for path in sorted(Path("/dev").iterdir()):
        if stat.S_ISBLK(path.lstat().st_mode):
            return path
    try:
        os.mknod(here / "node", 0o660 | stat.S_IFBLK, os.makedev(7, 250))
    except OSError as fault:
        pytest.skip(f"no block device here: {fault}")
    return here / "node"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """An SSH server on the loopback, of which the files in the test's folder know nothing yet."""
    asyncssh = pytest.importorskip("asyncssh")
    key, client = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    client.write_private_key(tmp_path / "client")
    (tmp_path / "authorized").write_bytes(client.export_public_key())
    (tmp_path / "none").touch()

    async def serve() -> Any:
        authorized = str(tmp_path / "authorized")
        return await asyncssh.listen("127.0.0.1", 0, server_host_keys=[key], authorized_client_keys=authorized)

    async def stop(server: Any) -> None:
        server.close()
        await server.wait_closed()

    with HostThread() as running:
        server = running.call(serve(), PATIENCE_S)
        yield server.get_port()
        running.call(stop(server), PATIENCE_S)


def provide(programs: tuple[str, ...], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the agent find a Python and these generators, which only say their version: none of them may be started."""
    folder = here / "bin"
    folder.mkdir()
    python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
    (folder / "python3").symlink_to(python)
    for name in programs:
        log = here / "calls"
        (folder / name).write_text(f'#!/bin/sh\necho "$@" >> {log}\necho fio-3.33\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def known_hosts(case: str, port: int) -> str:
    if case == "unknown host key":
        return ""
    asyncssh = pytest.importorskip("asyncssh")
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    return f"[127.0.0.1]:{port} {other}"


@pytest.mark.parametrize("case", CASES)
def test_each_is_one_sentence_before_anything_runs(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    expected, text, load, programs = CASES[case]
    target, file = target_of(case, tmp_path), tmp_path / "hosts.yaml"
    number = request.getfixturevalue("port") if "PORT" in text else 0
    (tmp_path / "known_hosts").write_text(known_hosts(case, number) if number else "")
    quoted = f'"{target}"'
    file.write_text(text.replace("DIR", quoted).replace("HERE", str(tmp_path)).replace("PORT", str(number)))
    provide(programs, tmp_path, monkeypatch)
    spec = NeighborSpec.model_validate(load)
    with pytest.raises(HostError) as caught, side_clients_of(spec, hosts_file.load(file), tmp_path / "run"):
        pass
    said = caught.value.message
    print(f"{case}: {said}\n  {caught.value.remedy}")  # noqa: T201 - pytest -s shows the eight sentences
    for path, word in ((tmp_path / "known_hosts", "KNOWN_HOSTS"), (file, "HOSTS"), (target, "DIR")):
        said = said.replace(str(path), word)
    said = re.sub(r"\d+ MB are free, \d+ MB", "FREE are free, NEED", said)
    assert said == expected
    assert "\n" not in caught.value.message + caught.value.remedy
    assert f"| {case} | {expected} |" in DOCUMENT.read_text(), "the document shows the sentence"
    calls = (tmp_path / "calls").read_text().split("\n") if (tmp_path / "calls").exists() else []
    assert set(calls) <= {"--version", ""}, "a generator was asked for its version at most"
    if target.is_dir() and target != MEMORY:
        assert list(target.iterdir()) == []
