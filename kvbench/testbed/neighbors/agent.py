"""The agent on a side client: starts one generator, counts its bytes, and stops it whatever happens.

One file for Python 3.8 or newer with the standard library alone: it is piped into `python3 -c` on somebody else's
machine, and nothing is installed or left there. Orders arrive as JSON lines on stdin, events leave as JSON lines on
stdout:

    ping -> pong        prepare -> ready        go (at a clock reading) -> started ... final        stop -> final
    sweep -> swept      bye -> gone             whatever cannot be done -> error, with a remedy     sample, always

The dead man's switch: at the end of stdin, after 5 s without an order, at `max_runtime_s` and on a signal the
generator's process group is stopped (SIGINT, then SIGKILL) and what was laid out is removed. It writes in
`<directory>/.kvbench/<run>/` alone, where `owner.json` says whose the files are.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from kvbench.testbed.neighbors.agent_host import (  # not sent: there both are one text
    Owner,
    Refusal,
    boot_id,
    check_directory,
    counters,
    direct_io,
    disk_of,
    file_system_of,
    hello,
    listens,
    make_folder,
    process_bytes,
    queue_of,
    remove_folder,
    starting_time,
    sweep,
)

SILENCE_S = 5.0
GRACE_S = 2.0  # between SIGINT and SIGKILL
_DOCUMENT = re.compile(r"^\{", re.MULTILINE)
_MOST_BUFFERED = 4_000_000
_MOST_UNSENT = 1_000_000


class Order(TypedDict, total=False):
    """An order from the controller; which fields it has depends on `order`. `{folder}` in commands is our folder."""

    order: str
    number: int
    run: str
    sample_s: float
    max_runtime_s: float
    interface: str | None
    directory: str
    need_bytes: int
    direct: bool
    layout: list[str]
    command: list[str]
    count: str  # where the generator's bytes are counted
    at_ns: int
    listens: int


class Final(TypedDict):
    """How a generator ended: who ended it, and the last that it said."""

    code: int | None
    why: str
    stop_s: float | None
    moved: list[int] | None
    document: dict[str, Any] | None
    output: str


class Ready(TypedDict, total=False):
    """Where the files were laid out; empty where no directory is needed."""

    folder: str
    disk: str | None
    file_system: str | None
    queue: dict[str, str]
    direct: str


class Documents:
    """The JSON documents in what a generator prints, between lines that are not JSON (fio says its errors there)."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self.noise = ""
        self._text = ""

    def feed(self, text: str) -> list[dict[str, Any]]:
        """Take more output; return the documents that are complete now."""
        self._text += text
        found, done = [], 0
        for match in _DOCUMENT.finditer(self._text):
            if match.start() < done:
                continue
            try:
                document, end = json.JSONDecoder().raw_decode(self._text, match.start())
            except ValueError:
                continue  # broken off, or not yet complete
            self.noise = (self.noise + self._text[done : match.start()])[-2000:]
            found.append(document)
            done = end
        self._text = self._text[done:] if len(self._text) < _MOST_BUFFERED else ""
        return found

    def rest(self) -> str:
        """Return the end of what was no document."""
        return (self.noise + self._text)[-2000:]


def fio_bytes(document: dict[str, Any]) -> int:
    """Return what all jobs of a fio document have moved since they started."""
    return sum(job[way]["io_bytes"] for job in document["jobs"] for way in ("read", "write"))


def tie_to_parent() -> None:
    """Ask the kernel to kill this process when the agent dies (prctl PR_SET_PDEATHSIG)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))


class Agent:
    """One conversation: orders in, events out, at most one generator at a time."""

    def __init__(self) -> None:
        """Start the clock: wall time, carried on by the monotonic clock, so that it never steps."""
        self._anchor_ns = time.time_ns() - time.monotonic_ns()
        self._unread, self._unsent, self._documents = b"", b"", Documents()
        self._child: Any = None  # the generator, or the program that lays out its files
        self._go: Order | None = None  # the start that is waited for
        self._last: dict[str, Any] | None = None  # document
        self._go_order: Order = {}
        self._ready: Ready = {}
        self._final: Final | None = None  # how the last generator ended
        self._output, self._announced, self._began_ns = -1, False, 0
        self._folder: Path | None = None
        self._disk: str | None = None
        self._interface: str | None = None
        self._purpose, self._why, self._leaving = "", "itself", ""
        self._bytes = self._bytes_ns = self._ends_ns = self._asked_ns = self._next_sample_ns = 0
        self._sample_s, self._max_runtime_s, self._heard_ns = 0.5, 900.0, self.clock_ns()
        self._wake, wake_write = os.pipe()
        for fd in (0, 1, self._wake, wake_write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._leave("signal"))

    def clock_ns(self) -> int:
        """Return this agent's clock."""
        return self._anchor_ns + time.monotonic_ns()

    def converse(self) -> None:
        """Carry out orders until told to leave, or until nobody is heard any more."""
        self._say("hello", **hello())
        while not self._leaving or self._child is not None:
            reads = [self._wake] + ([] if self._leaving else [0]) + ([self._output] if self._output >= 0 else [])
            for fd in select.select(reads, [1] if self._unsent else [], [], self._wait_s())[0]:
                self._read(fd)
            self._watch()
            self._send()
        self._say("gone", why=self._leaving, left=remove_folder(self._folder) if self._folder else [])
        deadline_ns = time.monotonic_ns() + 10**9
        while self._unsent and self._leaving != "eof" and time.monotonic_ns() < deadline_ns:
            select.select([], [1], [], 0.1)
            self._send()

    def _obey(self, order: Order) -> None:
        """Carry out one order; what is refused is answered by an error event."""
        self._heard_ns = time.monotonic_ns()
        name = order["order"]
        try:
            if name == "ping":
                self._say("pong", number=order["number"])
            elif name == "prepare":
                self._prepare(order)
            elif name == "go":
                self._accept(order)
            elif name == "stop":
                self._stop("stop")
            elif name == "sweep":
                self._say("swept", **sweep(Path(order["directory"])))
            elif name == "bye":
                self._leave("bye")
        except Refusal as refusal:
            message, remedy = refusal.args
            self._say("error", message=message, remedy=remedy)

    def _prepare(self, order: Order) -> None:
        """Check the target, make the marked folder and lay out the files; `ready` follows."""
        self._interface, self._sample_s = order.get("interface"), order["sample_s"]
        self._max_runtime_s, directory = order["max_runtime_s"], order.get("directory")
        self._ready = {}
        if directory is not None:
            path = check_directory(directory, order["need_bytes"])
            owner: Owner = {
                "made_by": "kvbench",
                "run": order["run"],
                "boot_id": boot_id(),
                "pid": os.getpid(),
                "pid_start": starting_time(os.getpid()),
                "expires_ns": time.time_ns() + int((order["max_runtime_s"] + 86400) * 1e9),
            }
            self._folder, self._disk = make_folder(path, order["run"], owner), disk_of(path)
            self._ready = {"folder": str(self._folder), "disk": self._disk, "file_system": file_system_of(path)}
            self._ready["queue"], self._ready["direct"] = queue_of(self._disk), direct_io(self._folder)
            if order.get("direct") and self._ready["direct"] == "refused":
                raise Refusal(f"the target {directory} refuses O_DIRECT", "Set `direct: false`, or choose another.")
        if order.get("layout"):
            self._launch({"command": order["layout"], "count": ""}, "layout")
        else:
            self._say("ready", **self._ready)

    def _accept(self, order: Order) -> None:
        if self._child is not None:
            raise Refusal("a generator runs already on this host", "Stop it before the next start.")
        self._go = order

    def _launch(self, go: Order, purpose: str) -> None:
        """Start a program in a process group of its own; `{folder}` in its arguments is the marked folder."""
        command = [word.replace("{folder}", str(self._folder)) for word in go["command"]]
        self._documents, self._purpose, self._why = Documents(), purpose, "itself"
        self._last, self._bytes, self._go_order, self._announced = None, 0, go, False
        began_ns = self.clock_ns()
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._folder or "/",
                start_new_session=True,
                preexec_fn=tie_to_parent,  # noqa: PLW1509 - this process has one thread
            )
        except OSError as fault:
            raise Refusal(f"cannot start {command[0]}: {fault.strerror}", f"Install {command[0]}.") from None
        self._output = self._child.stdout.fileno()
        os.set_blocking(self._output, False)
        self._began_ns = self._bytes_ns = began_ns
        self._ends_ns = time.monotonic_ns() + int(self._max_runtime_s * 1e9)

    def _watch(self) -> None:
        """Do what the time asks for: start, announce, sample, notice the end, and stop what nobody minds."""
        now_ns = time.monotonic_ns()
        if self._go is not None and self.clock_ns() >= self._go["at_ns"] - 2_000_000:
            go, self._go = self._go, None
            while self.clock_ns() < go["at_ns"]:
                pass  # the last 2 ms of the barrier
            try:
                self._launch(go, "generator")
            except Refusal as refusal:
                self._say("error", message=refusal.args[0], remedy=refusal.args[1])
        if self._child is not None:
            self._announce()
            if self._child.poll() is not None:
                self._finish()
            elif now_ns > self._ends_ns:
                self._stop("max_runtime")
            elif self._asked_ns and now_ns > self._asked_ns + GRACE_S * 1e9:
                self._signal(signal.SIGKILL)
        if now_ns - self._heard_ns > SILENCE_S * 1e9:
            self._leave("silence")
        if now_ns >= self._next_sample_ns:
            self._next_sample_ns = now_ns + int(self._sample_s * 1e9)
            self._sample()

    def _announce(self) -> None:
        """Say `started`, of a server only once it listens."""
        port = self._go_order.get("listens")
        if not self._announced and self._purpose == "generator" and (port is None or listens(port)):
            self._announced = True
            self._say("started", pid=self._child.pid, at_ns=self._began_ns)

    def _sample(self) -> None:
        """Send what has been moved so far, and this host's counters."""
        if self._child is not None and self._go_order["count"] in ("rchar", "wchar"):
            with suppress(OSError, KeyError, ValueError):  # it may have just ended
                self._bytes = process_bytes(self._child.pid)[self._go_order["count"]]
                self._bytes_ns = self.clock_ns()
        running = self._child is not None and self._purpose == "generator"
        moved = [self._bytes_ns, self._bytes] if running else None
        if len(self._unsent) < _MOST_UNSENT:
            self._say("sample", moved=moved, **counters(self._disk, self._interface))

    def _take(self, chunk: bytes) -> None:
        """Read what the generator printed: fio says every 200 ms what it has moved since its start."""
        for document in self._documents.feed(chunk.decode(errors="replace")):
            if "event" in document:  # iperf3 --json-stream says in pieces what --json says in one
                document = dict(self._last or {}, **{document["event"]: document.get("data")})  # noqa: PLW2901
            self._last = document
            if self._go_order["count"] == "printed" and "bytes" in document:
                self._bytes, self._bytes_ns = int(document["bytes"]), self.clock_ns()
            if self._go_order["count"] == "fio" and "jobs" in document:
                self._bytes = fio_bytes(document)
                self._bytes_ns = max(self._began_ns, min(self.clock_ns(), int(document["timestamp_ms"]) * 10**6))

    def _finish(self) -> None:
        """Say how the program ended, with the last that it said."""
        self._signal(signal.SIGKILL)  # what may be left of its group
        while self._read(self._output):
            pass
        took_s = (time.monotonic_ns() - self._asked_ns) / 1e9 if self._asked_ns else None
        code, said = self._child.returncode, self._documents.rest()
        self._child.stdout.close()
        self._child, self._output, self._asked_ns = None, -1, 0
        if self._purpose == "generator":
            moved = [self._bytes_ns, self._bytes]
            self._final = Final(code=code, why=self._why, stop_s=took_s, moved=moved, document=self._last, output=said)
            self._say("final", **self._final)
        elif code == 0:
            self._say("ready", **self._ready)
        else:
            full = "No space left" in said or ((self._last or {}).get("jobs") or [{}])[0].get("error") == 28
            text = "the target is full" if full else f"cannot lay out the files: {said.strip()[-300:]}"
            self._say("error", message=text, remedy="Lower `size` or make room." if full else "See what fio says.")

    def _stop(self, why: str) -> None:
        """Interrupt the generator; what is not gone after the grace is killed."""
        if self._go is not None:
            self._go = None
            self._final = {"code": None, "why": why, "stop_s": 0.0, "moved": None, "document": None, "output": ""}
            self._say("final", **self._final)
        elif self._child is None and why == "stop" and self._final is not None:
            self._say("final", **self._final)  # it had ended before it was told to
        if self._child is not None and not self._asked_ns:
            self._why, self._asked_ns = why, time.monotonic_ns()
            self._signal(signal.SIGINT)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)

    def _leave(self, why: str) -> None:
        self._leaving = self._leaving or why
        self._stop(why)

    def _read(self, fd: int) -> bool:
        """Take what is there on a descriptor; tell whether anything was."""
        try:
            chunk = os.read(fd, 1 << 16)
        except OSError:  # nothing there now, or the other side broke off
            return False
        if fd == self._output:
            self._output = fd if chunk else -1
            self._take(chunk)
        elif fd == 0 and not chunk:
            self._leave("eof")
        elif fd == 0:
            *lines, self._unread = (self._unread + chunk).split(b"\n")
            for line in lines:
                self._obey(json.loads(line))
        return bool(chunk)

    def _say(self, event: str, **fields: Any) -> None:
        line = json.dumps(dict(fields, event=event, clock_ns=self.clock_ns()))
        self._unsent += line.encode() + b"\n"

    def _send(self) -> None:
        """Write without ever waiting: a controller that reads no more must not keep the generator alive."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(1, self._unsent[: 1 << 16]) :]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = b""
            self._leave("eof")

    def _wait_s(self) -> float:
        """Return how long nothing will be due."""
        now_ns = time.monotonic_ns()
        due_ns = self._next_sample_ns
        if self._go is not None:
            due_ns = min(due_ns, self._go["at_ns"] - 2_000_000 - self._anchor_ns)
        if self._child is not None and not self._announced and self._purpose == "generator":
            due_ns = min(due_ns, now_ns + 5_000_000)
        return max(0.0, (due_ns - now_ns) / 1e9)


if __name__ == "__main__":
    Agent().converse()
