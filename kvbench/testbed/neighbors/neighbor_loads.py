"""All neighbour loads of a scenario, each with its side clients, and the read limit that they share.

    with Loads(asked, cap, hosts, tier_paths) as loads:     # every host reached, checked, its files laid out
        loads.calibrate(result_folder)
        loads.begin(run_folder, ("storage", Target(fraction=0.5)))
        ...                                                  # the load; the window is first send to last byte
        loads.end()
        kept = loads.record_of_run(window)

A quiet run is watched as well: what the side clients moved in its window is the negative control.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from kvbench.errors import HostError
from kvbench.scenario.neighbors import Target
from kvbench.testbed.hosts.file import Entry, Fabric, HostsFile, Reach
from kvbench.testbed.hosts.open_host import open_host
from kvbench.testbed.neighbors.delivery import WindowNs, joined
from kvbench.testbed.neighbors.placement import commands, placement_of
from kvbench.testbed.neighbors.side_clients import SideClients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from kvbench.result.run_record import NeighborRecord
    from kvbench.scenario.neighbors import LocalClients, Neighbors, NeighborSpec, Target
    from kvbench.testbed.hosts.protocol import Host
    from kvbench.testbed.neighbors.read_limit import Cap
    from kvbench.testbed.neighbors.trial import Lost


class Loads:
    """The side clients of each load of a scenario; a context manager, used from synchronous code."""

    def __init__(
        self,
        asked: Neighbors,
        hosts: HostsFile,
        cap: Cap | None = None,
        link_bytes_per_s: float | None = None,
        tier_paths: Iterable[Path] = (),
        reach: Callable[[str, Reach], Host] = open_host,
    ) -> None:
        """Put loads and hosts together; nothing is connected yet. `reach` makes hosts of entries, which tests replace.

        Raises:
            HostError: they do not fit together.

        """
        paths = list(tier_paths)
        self.tries = asked.tries
        self.side_clients = {
            name: side_clients_of(spec, hosts, None, paths, reach) for name, spec in asked.loads.items()
        }
        self._cap = cap
        self._reference = cap.bytes_per_s if cap is not None and cap.made else link_bytes_per_s
        self._now: str | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Reach all side clients, check them, lay out their files, and put those of this machine under the limit.

        Raises:
            HostError: one of them cannot be used.

        """
        with contextlib.ExitStack() as stack:
            for clients in self.side_clients.values():
                stack.enter_context(clients)
            self._confine()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what runs, remove all files, let go of all hosts."""
        self._stack.close()

    def calibrate(self, folder: Path, loads: Iterable[str]) -> None:
        """Let each of these loads run alone and unlimited: what it reaches is what its fractions are of.

        Raises:
            HostError: a generator did not start, or a host was lost.

        """
        for name in loads:
            self.side_clients[name].keep_in(folder / "calibration" / name)
            self.side_clients[name].calibrate()

    def begin(self, folder: Path, disturbance: tuple[str, Target] | None) -> None:
        """Start the load of a run and wait until it is steady; with None see that all are quiet.

        Raises:
            HostError: a generator did not start, or a host was lost.

        """
        self._now = disturbance[0] if disturbance is not None else None
        for name, clients in self.side_clients.items():
            clients.keep_in(folder if name == (self._now or next(iter(self.side_clients))) else folder / "idle" / name)
            clients.quiet()
        if disturbance is not None:
            self.side_clients[disturbance[0]].start(disturbance[1])

    def end(self) -> None:
        """Stop what runs, after the last byte of the load, and wait until the side clients fall silent."""
        if self._now is not None:
            self.side_clients[self._now].stop()

    def record_of_run(self, window: WindowNs) -> NeighborRecord:
        """Return what `run.json` keeps of the neighbours of this run.

        Of a quiet run it tells the side clients of the first load, with the reasons against those of any.
        """
        first = next(iter(self.side_clients))
        record = self.side_clients[self._now or first].report(window, self._reference)
        if self._now is not None:
            return replace(record, load=self._now)
        others = [
            clients.report(window, self._reference) for name, clients in self.side_clients.items() if name != first
        ]
        return replace(record, verdict=joined([record.verdict, *(other.verdict for other in others)]))

    @property
    def lost(self) -> list[Lost]:
        """The hosts that were lost and are not back."""
        return [lost for clients in self.side_clients.values() for lost in clients.lost]

    @property
    def breaks_off(self) -> Lost | None:
        """The lost host for which the run is to be done again, None where all goes on."""
        lost = [clients for clients in self.side_clients.values() if clients.spec.lost_host == "retry" and clients.lost]
        return lost[0].lost[-1] if lost else None

    def restore(self) -> None:
        """Bring lost hosts back for another try.

        Raises:
            HostError: one of them stays away.

        """
        for clients in self.side_clients.values():
            clients.restore()
        self._confine()

    def _confine(self) -> None:
        """Put all side clients under the read limit.

        Raises:
            HostError: the limit does not hold one of them, so that no share of it could be told.

        """
        if self._cap is None or not self._cap.made:
            return
        for clients in self.side_clients.values():
            clients.confine(self._cap.add)
            if clients.elsewhere:
                text = f"the read limit cannot hold {', '.join(clients.elsewhere)}, not being on this machine"
                raise HostError(text, "Leave out bottleneck.disk, or name side clients on this machine.")
            if others := clients.disks - {self._cap.disk}:
                text = f"the side clients load {', '.join(sorted(others))}, the tier is on {self._cap.disk}"
                raise HostError(text, "Give them directories on the tier's disk, or leave out bottleneck.disk.")


def hosts_of_this_machine(local: LocalClients) -> HostsFile:
    """Return side clients that are processes here, each with a folder of its own, and an iperf3 end on the loopback.

    Raises:
        HostError: their folder cannot be a target of fio's.

    """
    root = local.directory.absolute()
    if ":" in str(root):
        raise HostError(f"{root} holds a colon, which fio takes for two names", "Set neighbors.local.directory.")
    names = [f"c{number}" for number in range(1, local.clients + 1)]
    entries = {name: Entry(local=True, directory=root / name, interface="lo") for name in names}
    far = Fabric(address="127.0.0.1", ports=_free_ports(len(names)), server=Reach(local=True))
    return HostsFile(side_clients=entries, iperf3=far)


@contextlib.contextmanager
def folders_of(local: LocalClients) -> Iterator[None]:
    """Have the folders of side clients on this machine while the context is open; what is empty then is removed.

    Raises:
        HostError: they cannot be made.

    """
    root = local.directory.absolute()
    folders = [root / f"c{number}" for number in range(1, local.clients + 1)]
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        reason = (fault.strerror or str(fault)).lower()
        remedy = "Set neighbors.local.directory to a folder that you may write."
        raise HostError(f"cannot make {root} for the side clients: {reason}", remedy) from None
    try:
        yield
    finally:
        for folder in [*(folder / ".kvbench" for folder in folders), *folders, root]:
            with contextlib.suppress(OSError):  # not empty, so something else is in it
                folder.rmdir()


def commands_of(asked: Neighbors, hosts: HostsFile, tier_paths: Iterable[Path] = ()) -> list[str]:
    """Return every line that would be run on a side client, by load, for a dry run; nothing is connected.

    Raises:
        HostError: loads and hosts do not fit together.

    """
    lines = []
    for name, spec in asked.loads.items():
        lines += [f"{name}:", *(f"  {line}" for line in commands(placement_of(spec, hosts, tier_paths)))]
    return lines


def _free_ports(count: int) -> tuple[int, ...]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        listening = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return tuple(one.getsockname()[1] for one in listening)


def side_clients_of(
    spec: NeighborSpec,
    hosts: HostsFile,
    folder: Path | None = None,
    tier_paths: Iterable[Path] = (),
    reach: Callable[[str, Reach], Host] = open_host,
) -> SideClients:
    """Return the side clients of a hosts file with a spec's generator; `folder` is a run's.

    `tier_paths` are the server's own directories, which are refused as targets. `reach` makes hosts of entries, which
    tests replace.

    Raises:
        HostError: they do not fit together; nothing has been connected yet.

    """
    return SideClients(placement_of(spec, hosts, tier_paths), folder, reach)
