"""All side clients of an experiment: connect -> prepare -> (start -> ramp -> load -> stop -> settle)* -> leave.

    with side_clients_of(spec, hosts, folder) as side_clients:
        side_clients.start(Target(fraction=0.5))
        ...                                   # the load; the window is its first send to its last byte
        side_clients.stop()
        kept = side_clients.report((start_ns, end_ns))

`start` returns once the aggregate is steady. Nothing is stopped by a guessed time. A lost host is noticed within 4 s;
with the policy `retry` all others are stopped at once, and `restore` brings all of them back for another try.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from typing import IO, TYPE_CHECKING, Any, Self

from kvbench.errors import HostError
from kvbench.lenient_json import at
from kvbench.scenario.neighbors import Target
from kvbench.testbed.hosts.event_loop import HostThread
from kvbench.testbed.hosts.open_host import open_host
from kvbench.testbed.neighbors import agent_host
from kvbench.testbed.neighbors.agent_client import SideClient, clock_ns
from kvbench.testbed.neighbors.counter_series import Series
from kvbench.testbed.neighbors.delivery import MOST_FOREIGN, WindowNs, report
from kvbench.testbed.neighbors.registry import generator_of
from kvbench.testbed.neighbors.trial import Calibration, Evidence, Lost, Member, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from pathlib import Path

    from kvbench.result.run_record import NeighborRecord
    from kvbench.testbed.hosts.file import Reach
    from kvbench.testbed.hosts.protocol import Host
    from kvbench.testbed.neighbors.agent_event import AgentEvent
    from kvbench.testbed.neighbors.placement import Place, Placement

_BARRIER_S = 0.5  # from the order to the start
_ANSWER_S = 10.0
_LAYOUT_S = 600.0
_HEAR_S = 1.0


class SideClients:
    """Side clients with one generator each; a context manager, used from synchronous code."""

    def __init__(self, plan: Placement, folder: Path | None, reach: Callable[[str, Reach], Host] = open_host) -> None:
        """Nothing is connected yet; without `folder` nothing that agents say is kept before `keep_in`."""
        self.spec = plan.spec
        self.calibration: Calibration | None = None
        self.lost: list[Lost] = []
        self.trial: Trial | None = None
        self._places = {place.name: place for place in plan.places}
        self._reach = reach
        self._clients: dict[str, SideClient] = {}
        self._series: dict[str, Series] = {place.name: Series() for place in plan.clients}
        self._run = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"
        self._tries = 0
        self._running: set[str] = set()
        self._folder = folder
        self._journals: dict[str, IO[str]] = {}
        self._stack = contextlib.ExitStack()
        self._stopping: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        """Connect all, check them, and lay out their files.

        Raises:
            HostError: one host cannot be reached or trusted, lacks the generator, or its target cannot be used.

        """
        with contextlib.ExitStack() as stack:
            self._thread = stack.enter_context(HostThread())
            stack.callback(self._close_journals)
            stack.callback(self._leave)
            self._thread.call(self._all(self._open(place) for place in self._places.values()))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what runs, remove all files, let go of all hosts."""
        self._stack.close()

    def keep_in(self, folder: Path) -> None:
        """Write what agents say from now on to another run's folder."""
        self._thread.call(self._switch(folder))

    def confine(self, add: Callable[[int], None]) -> list[int]:
        """Call `add` with the pid of each agent on this machine, whose generator inherits its control group."""
        mine = agent_host.boot_id()
        pids = [
            int(at(client.hello, "pid")) for client in self._clients.values() if client.hello.get("boot_id") == mine
        ]
        for pid in pids:
            add(pid)
        return pids

    @property
    def elsewhere(self) -> list[str]:
        """The side clients and far ends that are not on this machine."""
        mine = agent_host.boot_id()
        return [name for name, client in self._clients.items() if client.hello.get("boot_id") != mine]

    @property
    def disks(self) -> set[str]:
        """The disks under the targets, as far as there are any."""
        return {str(disk) for client in self._clients.values() if (disk := client.ready.get("disk")) is not None}

    def calibrate(self) -> Calibration:
        """Let the neighbours run alone and unlimited for a while; what they reach is what a `fraction` is of.

        Raises:
            HostError: a generator did not start, or a host was lost.

        """
        self.start(Target())
        window = (clock_ns(), clock_ns() + int(self.spec.calibration * 1e9))
        time.sleep(self.spec.calibration)
        self.stop()
        rates = {name: series.moved.rate(*window) for name, series in self._series.items()}
        if self.lost and self.spec.lost_host == "retry":
            raise HostError(f"{self.lost[-1].name} was lost while it was calibrated", "Bring that host back.")
        self.trial = None
        self.calibration = Calibration(sum(rates.values()), rates)
        return self.calibration

    def start(self, target: Target) -> Trial:
        """Start all generators at one instant and return once their aggregate is steady, or after `ramp_limit`.

        A `fraction` is calibrated first if that was not done before.

        Raises:
            HostError: a generator did not start, or a host was lost and the policy is `retry`.

        """
        if target.fraction is not None and self.calibration is None:
            self.calibrate()
        rates = self._split(target)
        self._thread.call(self._all(self._go(name, None, 0) for name in self._here(servers=True)), 30.0)
        at_ns = clock_ns() + int(_BARRIER_S * 1e9)
        self.trial = Trial(target, rates, self.calibration, at_ns)
        try:
            self._thread.call(self._all(self._go(name, rates[name], at_ns) for name in self._here()), 30.0)
            self._ramp(self.trial)
        except BaseException:
            self.stop()
            raise
        return self.trial

    def stop(self) -> None:
        """Stop all generators and wait until the side clients' devices fall silent, with a bound.

        Each generator is heard once more first: a window that has just ended then lies between two regular samples.
        """
        self._hear_all(clock_ns())
        if self.trial is not None and self.trial.stop_asked_ns is None:
            self.trial.stop_asked_ns = clock_ns()
        self._thread.call(self._halt(servers=False), 30.0)
        self._thread.call(self._halt(servers=True), 30.0)
        self._settle()

    def quiet(self) -> None:
        """Say that the next window is a quiet one: no trial belongs to it."""
        self.trial = None

    def report(self, window: WindowNs, reference_bytes_per_s: float | None = None) -> NeighborRecord:
        """Return what the neighbours did in a window of (first send, last byte) in wall-clock ns, with a verdict.

        In a quiet window what side clients moved is held against `reference_bytes_per_s`, or the calibrated rate.
        """
        finals = self.trial.finals if self.trial is not None else {}
        reference = reference_bytes_per_s or (self.calibration.bytes_per_s if self.calibration else None)
        evidence = Evidence(
            members={name: self._member(name) for name in self._series},
            trial=self.trial,
            outcomes={name: generator_of(self.spec).outcome(final) for name, final in finals.items()},
            lost=tuple(self.lost),
            lost_host=self.spec.lost_host,
            generator=self.spec.generator,
            reference_bytes_per_s=reference,
            passes=generator_of(self.spec).passes(self.spec.keys),
        )
        return report(evidence, window)

    def restore(self, within_s: float = 15.0) -> None:
        """Bring lost hosts back, for another try: connect and prepare them again.

        Under the policy `continue` each is tried once, and one that stays away stays lost.

        Raises:
            HostError: one of them stays away, and the policy is `retry`.

        """
        gone = [name for name, client in self._clients.items() if not client.there]
        goes_on = self.spec.lost_host == "continue"
        limit_ns = clock_ns() + (0 if goes_on else within_s * 1e9)
        for name in gone:
            while True:
                try:
                    self._thread.call(self._reopen(name), _LAYOUT_S)
                    break
                except HostError:
                    if clock_ns() > limit_ns and goes_on:
                        break
                    if clock_ns() > limit_ns:
                        raise
                    time.sleep(0.5)
        self.lost = [one for one in self.lost if not self._clients[one.name].there]

    # --- in the thread of the hosts

    async def _open(self, place: Place) -> None:
        client = SideClient(self._reach(place.name, place.reach), self._heard)
        self._clients[place.name] = client
        await client.connect()
        place.check(client.hello)
        await client.ask("prepare", "ready", _LAYOUT_S, **place.preparation(f"{self._run}.{place.name}.{self._tries}"))

    async def _reopen(self, name: str) -> None:
        await self._clients[name].leave()
        self._tries += 1
        if name in self._series:
            self._series[name].restart_host()
        await self._open(self._places[name])

    async def _go(self, name: str, rate_bytes_per_s: float | None, at_ns: int) -> None:
        client, place = self._clients[name], self._places[name]
        order = place.start(rate_bytes_per_s, client.hello)
        self._running.add(name)
        await client.ask("go", "started", _ANSWER_S, at_ns=(at_ns or clock_ns()) + client.offset_ns, **order)

    async def _halt(self, *, servers: bool) -> None:
        names = [name for name in self._running if self._places[name].is_server == servers]
        names = [name for name in names if self._clients[name].lost is None]
        await asyncio.gather(
            *(self._clients[name].ask("stop", "final", _ANSWER_S) for name in names), return_exceptions=True
        )
        self._running -= {name for name in self._running if self._places[name].is_server == servers}

    async def _all(self, works: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Do all at once; the first fault ends the others and is raised."""
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _switch(self, folder: Path) -> None:
        self._close_journals()
        self._folder = folder

    async def _goodbye(self) -> None:
        await self._halt(servers=False)
        await asyncio.gather(*(client.leave() for client in self._clients.values()), return_exceptions=True)

    def _heard(self, client: SideClient, event: AgentEvent, now_ns: int) -> None:
        """Take one event; called in the thread of the hosts."""
        name, kind, t_ns = client.name, event["event"], client.to_ours(event["clock_ns"])
        series, trial = self._series.get(name), self.trial
        if kind == "lost":
            self._lose(Lost(name, event["why"], now_ns))
        elif series is not None and kind == "started" and trial is not None:
            trial.started_ns[name] = client.to_ours(event["at_ns"])
            series.begin(trial.started_ns[name])
        elif series is not None and kind in ("sample", "final"):
            moved_ns = client.to_ours(moved[0]) if (moved := event["moved"]) is not None else None
            if kind == "sample":
                series.sample(t_ns, event, moved_ns)
            elif trial is not None and name not in trial.finals:
                trial.finals[name], trial.ended_ns[name] = event, t_ns
                series.finish(event, moved_ns)
        if kind != "pong" and self._folder is not None:
            self._journal(name, self._folder).write(json.dumps({"t_ns": t_ns, **event}) + "\n")

    def _lose(self, lost: Lost) -> None:
        self.lost.append(lost)
        if self.spec.lost_host == "retry":
            clients = {name for name in self._running if not self._places[name].is_server}
            for name in clients - {lost.name}:  # servers afterwards: a client without one fails
                task = asyncio.get_running_loop().create_task(self._clients[name].send("stop"))
                self._stopping.add(task)
                task.add_done_callback(self._stopping.discard)

    # --- beside it

    def _leave(self) -> None:
        self._thread.call(self._goodbye(), 60.0)

    def _here(self, *, servers: bool = False) -> list[str]:
        """Return who takes part in a start; a lost host only stays away under the policy `continue`."""
        gone = [name for name, client in self._clients.items() if not client.there]
        if gone and self.spec.lost_host == "retry":
            raise HostError(f"{gone[0]} was lost", "Bring that host back, then try again.")
        names = [name for name, place in self._places.items() if place.is_server == servers]
        return [name for name in names if name not in gone]

    def _split(self, target: Target) -> dict[str, float | None]:
        total = target.aggregate
        if target.fraction is not None and self.calibration is not None:
            total = target.fraction * self.calibration.bytes_per_s
        weights = {name: place.weight for name, place in self._places.items() if not place.is_server}
        return {n: None if total is None else total * w / sum(weights.values()) for n, w in weights.items()}

    def _ramp(self, trial: Trial) -> None:
        """Wait until two seconds in a row differ by at most 10 %; the last half second may still be under way.

        (Two halves of `ramp`, where that is shorter than two seconds.)
        """
        step_ns = int(min(1.0, self.spec.ramp / 2) * 1e9)
        while clock_ns() < trial.at_ns + self.spec.ramp_limit * 1e9 and not trial.steady:
            time.sleep(0.1)
            if self.lost and self.spec.lost_host == "retry":
                raise HostError(f"{self.lost[-1].name} was lost: {self.lost[-1].why}", "Bring that host back.")
            if trial.finals:
                name = min(trial.finals)
                raise HostError(
                    f"{name}: {generator_of(self.spec).outcome(trial.finals[name])['error']}", "See what it says."
                )
            now_ns = clock_ns() - 500_000_000
            if now_ns - trial.at_ns < max(self.spec.ramp * 1e9 - 500_000_000, 2 * step_ns):
                continue
            before, after = (self._rate(now_ns - back, now_ns - back + step_ns) for back in (2 * step_ns, step_ns))
            trial.steady = after > 0 and abs(after - before) <= 0.1 * max(after, before)
        trial.ready_ns = clock_ns()

    def _settle(self) -> None:
        """Wait until the side clients' own devices are silent against what they moved; shared ones tell nothing."""
        trial, limit_ns = self.trial, clock_ns() + self.spec.settle_limit * 1e9
        members = [member for member in map(self._member, self._series) if not member.shared]
        devices = [member.series.disk if member.by_disk else member.series.nic for member in members]
        if trial is None or trial.stop_asked_ns is None:
            return
        loaded = sum(device.rate(trial.at_ns, trial.stop_asked_ns) for device in devices)
        while clock_ns() < limit_ns:
            now_ns = clock_ns()
            if sum(device.rate(now_ns - 500_000_000, now_ns) for device in devices) <= MOST_FOREIGN * loaded:
                return
            time.sleep(0.1)

    def _rate(self, start_ns: int, end_ns: int) -> float:
        return sum(series.moved.rate(start_ns, end_ns) for series in self._series.values())

    def _hear_all(self, since_ns: int) -> None:
        """Wait until each running generator has said what it had moved at a later time than this, with a bound."""
        limit_ns = clock_ns() + int(_HEAR_S * 1e9)
        while clock_ns() < limit_ns and not self.lost and self._is_unheard(since_ns):
            time.sleep(0.02)

    def _is_unheard(self, since_ns: int) -> bool:
        """Tell whether a generator that has started and not ended has said nothing of a time since then."""
        if self.trial is None:
            return False
        running = self._running & self.trial.started_ns.keys() - self.trial.finals.keys()
        moved = [self._series[name].moved.times_ns for name in running & self._series.keys()]
        return any(not times_ns or times_ns[-1] < since_ns for times_ns in moved)

    def _member(self, name: str) -> Member:
        client = self._clients[name]
        by_disk = client.ready.get("disk") is not None
        same = client.hello.get("boot_id") == agent_host.boot_id()
        network = client.hello.get("network")
        device = client.ready.get("disk") if by_disk else f"{network} {self._places[name].interface}"
        facts = {k: client.hello.get(k) for k in ("host", "kernel", "cores", "python", "congestion_control")}
        facts |= {k: client.ready.get(k) for k in ("disk", "file_system", "direct", "queue")}
        return Member(
            series=self._series[name],
            device=f"{client.hello.get('boot_id')} {device}",
            by_disk=by_disk,
            shared=same and (by_disk or network == agent_host.network()),
            clock_error_s=client.offset_error_ns / 1e9,
            drift_s=client.drift_ns / 1e9,
            facts=facts | {"version": client.hello.get(self.spec.generator), "offset_ns": client.offset_ns},
        )

    def _journal(self, name: str, folder: Path) -> IO[str]:
        if name not in self._journals:
            path = folder / "neighbors" / f"{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._journals[name] = path.open("a", buffering=1)
        return self._journals[name]

    def _close_journals(self) -> None:
        journals, self._journals = self._journals, {}
        for journal in journals.values():
            journal.close()
