"""Drives load with AIPerf as a subprocess, with files in and files out; it is never imported.

It gets the drawn requests as an exact input file, a session for each, or for each conversation, in their order, and
sends each body as it is.
Its raw export is then read by `aiperf_export`. Its start takes 3 to 16 s, so one process sends all requests of a run.
Before them it sends as many one-token requests as there are connections: what opening them and warming up AIPerf's own
code costs is not the server's. They are below one KV block, so no cache knows of them.

What AIPerf writes stays in `folder` as it is. Its tokenizer is loaded whatever one asks for; it gets one of two words,
laid out as the hub's cache on disk, and no network: all token counts are the server's.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ruamel.yaml import YAML

from kvbench.drivers.aiperf_export import missing, read_raw, translate
from kvbench.drivers.process_cpu import CpuWatch
from kvbench.errors import DriverError
from kvbench.lenient_json import at, items
from kvbench.result.records import alone
from kvbench.result.run_record import DriverRecord
from kvbench.this_host.process import last_line, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from kvbench.drivers.target import Target
    from kvbench.result.records import Conversation, Request, Response
    from kvbench.typed_json import JsonObject

_KEY_VARIABLE = "KVBENCH_AIPERF_API_KEY"
_START_BOUND_S = 180.0
_STOP_S = 5.0
_SAMPLE_S = 0.25
_WARMUP = "warmup"
_SCRATCH = "kvbench-aiperf-"  # in the system's folder: AIPerf puts sockets there, whose paths must be short
_WORKER = re.compile(r"\bworker_[0-9a-f]+$")  # the title of its process, as AIPerf sets it
_REVISION = "0" * 40
_TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "word": 1}, "unk_token": "<unk>"},
}
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "NO_PROXY": "*",
    "AIPERF_TOKENIZER_SKIP_PRELOAD": "1",
    "AIPERF_SERVER_METRICS_COLLECTION_FLUSH_PERIOD": "0",
    "AIPERF_HTTP_X_SESSION_AFFINITY_FROM_CORRELATION_ID": "false",  # a router might act on it
}


def find() -> Path:
    """Return the program: named by `KVBENCH_AIPERF`, beside the running Python, or on PATH.

    Raises:
        DriverError: it is nowhere.

    """
    named = os.environ.get("KVBENCH_AIPERF")
    beside = Path(sys.executable).with_name("aiperf")
    found = shutil.which(named) if named else str(beside) if os.access(beside, os.X_OK) else shutil.which("aiperf")
    if found is None and named:
        remedy = "Set KVBENCH_AIPERF to the program's path, or unset it to use the one beside kvbench or on PATH."
        raise DriverError(f"KVBENCH_AIPERF names {named}, which is no program", remedy)
    if found is None:
        remedy = "Install it with `pip install 'kvbench[aiperf]'`, or use --driver native."
        raise DriverError("AIPerf is not installed here", remedy)
    return Path(found)


def sweep_scratch() -> list[Path]:
    """Remove the scratch folders of this user's runs that were killed, and return them; each holds all prompts."""
    left = []
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*-*")):
        pid = folder.name.removeprefix(_SCRATCH).partition("-")[0]
        is_ours = not folder.is_symlink() and folder.is_dir() and folder.stat().st_uid == os.getuid()
        if is_ours and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)
            left.append(folder)
    return left


class AiperfDriver:
    """Drives one endpoint with one AIPerf process for each call of `drive`; `folder` receives what it writes."""

    name = "aiperf"

    def __init__(self, target: Target, folder: Path, *, timeout_s: float = 600.0) -> None:
        """Find the program; nothing is started yet."""
        self._program = find()
        self._target = target
        self._folder = folder
        self._timeout_s = timeout_s
        self._health = dict.fromkeys(("client_cpu_s", "worker_cpu_s", "wall_s", "start_s"), 0.0)
        self.own_requests: tuple[Response, ...] = ()
        self._counts = {"first_tokens": 0, "upper_bounds": 0, "out_of_order": 0, "missing": 0}

    def __enter__(self) -> Self:
        """Return the driver itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is kept between calls."""

    def drive(
        self, requests: Iterable[Request], concurrency: int, on_response: Callable[[Response], None]
    ) -> list[Response]:
        """Send the requests in their order, at most `concurrency` at a time; return the responses in that order.

        The warm-up requests are in `own_requests` afterwards: the server counted them too. Each response goes to
        `on_response` after AIPerf has ended; until then its own files are the journal. On Ctrl-C
        AIPerf is stopped, what it left is handed over, and KeyboardInterrupt goes on.

        Raises:
            DriverError: AIPerf did not start, or sent something else than it was given.

        """
        responses: list[Response] = []

        def keep(response: Response) -> None:
            responses.append(response)
            on_response(response)

        self.converse(map(alone, requests), concurrency, keep)
        return responses

    def converse(
        self, conversations: Iterable[Conversation], concurrency: int, on_response: Callable[[Response], None]
    ) -> None:
        """Hold conversations whose turns are known beforehand: AIPerf gets each as one session of several requests."""
        sessions = [_all_turns(conversation) for conversation in conversations]
        asked = [request for session in sessions for request in session]
        if not asked:
            return
        started_ns = time.time_ns()
        sweep_scratch()
        with tempfile.TemporaryDirectory(prefix=f"{_SCRATCH}{os.getpid()}-") as scratch:
            _write_tokenizer(Path(scratch))
            self._write_input(Path(scratch), sessions, concurrency)
            watch = CpuWatch()
            try:
                code = self._run(Path(scratch), watch, self._bound_s(sessions, concurrency))
            finally:
                self._hide_key()
                responses = self._collect(sessions, started_ns)
                for response in responses:
                    on_response(response)
        if self._counts["missing"] == len(asked):
            said = last_line(self._folder / "console.log")
            message = f"AIPerf ended with code {code} and without a record of any request: {said}"
            raise DriverError(message, f"Look at {self._folder / 'console.log'}.")
        self._take_health(responses, watch, started_ns)

    def health(self) -> DriverRecord:
        """Return how well the client did, over all calls of `drive` so far.

        `client_cpu_s` is the processor time of all of AIPerf's processes between the first send and the last token, and
        `wall_s` the length of that time. It says little: in a closed loop AIPerf's timing manager polls for a free slot
        and so uses a whole core. `worker_cpu_s` is that of the busiest worker, which sends and reads, and tells whether
        the client was the bottleneck. `start_s` is how long AIPerf took to its first request, the warm-up included.
        `missing` counts the requests without a record.
        """
        return DriverRecord(
            name=self.name,
            stamps="user",
            client_cpu_s=self._health["client_cpu_s"],
            worker_cpu_s=self._health["worker_cpu_s"],
            wall_s=self._health["wall_s"],
            start_s=self._health["start_s"],
            first_tokens=self._counts["first_tokens"],
            upper_bounds=self._counts["upper_bounds"],
            out_of_order=self._counts["out_of_order"],
            missing=self._counts["missing"],
        )

    def _run(self, scratch: Path, watch: CpuWatch, bound_s: float) -> int | None:
        """Let AIPerf run to its end, at most `bound_s` seconds; return its code, which proves nothing."""
        command = [str(self._program), "profile", "--config", str(self._folder.absolute() / "aiperf.yaml")]
        secret = {_KEY_VARIABLE: self._target.api_key} if self._target.api_key else {}
        trust = {"SSL_CERT_FILE": str(self._target.ca_file.absolute())} if self._target.ca_file else {}
        env = {**_ENVIRONMENT, **secret, **trust, "HF_HOME": str(scratch / "hub"), "TMPDIR": str(scratch)}
        deadline_s = time.monotonic() + bound_s
        with running(command, self._folder / "console.log", stop_s=_STOP_S, env=env) as process:
            while time.monotonic() < deadline_s:
                watch.sample(process.pid)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(_SAMPLE_S)
        return None

    def _bound_s(self, sessions: list[list[Request]], concurrency: int) -> float:
        """Return when AIPerf must have ended even if every request of every slot timed out."""
        in_turn = math.ceil(len(sessions) / concurrency) * max(map(len, sessions)) + 1
        return _START_BOUND_S + in_turn * (self._timeout_s + 1)

    def _write_input(self, scratch: Path, sessions: list[list[Request]], concurrency: int) -> None:
        """Write the requests and the configuration; the requests are in AIPerf's raw export again, so they go."""
        first = json.loads(sessions[0][0].body)
        given = [
            {"session_id": f"{_WARMUP}-{number:03d}", "payloads": [one_token_body(first)]}
            for number in range(concurrency)
        ]
        given += [
            {"session_id": session[0].request_id, "payloads": [json.loads(request.body) for request in session]}
            for session in sessions
        ]
        (scratch / "inputs.json").write_text(json.dumps({"data": given}, separators=(",", ":")))
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._configuration(str(first["model"]), len(sessions), concurrency, scratch / "inputs.json")
        with (self._folder / "aiperf.yaml").open("w") as file:
            YAML().dump(config, file)

    def _configuration(self, model: str, count: int, concurrency: int, inputs: Path) -> JsonObject:
        """Return AIPerf's configuration (its schema 2.0); the key is only named, never written.

        Phases end by sessions: told a number of requests AIPerf begins sessions anew while others are under way.
        """
        target = self._target
        endpoint: JsonObject = {
            "url": target.request_url,
            "type": target.api,
            "streaming": True,
            "useServerTokenCount": True,
            "timeout": self._timeout_s,
        }
        if target.api_key:
            endpoint["apiKey"] = f"${{{_KEY_VARIABLE}}}"
        load: JsonObject = {"type": "concurrency", "concurrency": concurrency}
        return {
            "schemaVersion": "2.0",
            "randomSeed": 1,
            "benchmark": {
                "model": model,
                "endpoint": endpoint,
                "tokenizer": {"name": "local/words"},
                "dataset": {"type": "file", "format": "inputs_json", "sampling": "sequential", "path": str(inputs)},
                "phases": [
                    {"name": _WARMUP, "kind": "warmup", **load, "sessions": concurrency},
                    {"name": "measure", "kind": "profiling", **load, "sessions": count},
                ],
                "gpuTelemetry": {"enabled": False},
                "serverMetrics": {"enabled": False},
                "runtime": {"ui": "none"},
                "artifacts": {"dir": str(self._folder.absolute()), "raw": True},
            },
        }

    def _collect(self, sessions: list[list[Request]], started_ns: int) -> list[Response]:
        """Return a response for each request that was asked for, whatever AIPerf says of it."""
        wanted = {
            (session[0].request_id, turn): request for session in sessions for turn, request in enumerate(session)
        }
        seen: dict[tuple[str, int], Response] = {}
        own: list[Response] = []
        numbers: dict[str, int] = {}
        for record in read_raw(self._folder):
            metadata: Any = record["metadata"]
            place = (str(metadata["conversation_id"]), int(metadata.get("turn_index") or 0))
            if place in wanted:
                seen[place] = translate(record, wanted[place].request_id, wanted[place])
                numbers.setdefault(place[0], int(metadata["session_num"]))
            else:
                own.append(translate(record, place[0]))
        self.own_requests = tuple(own)
        in_order = sorted(numbers, key=numbers.__getitem__)
        expected = [session[0].request_id for session in sessions if session[0].request_id in numbers]
        self._counts["out_of_order"] += sum(one != other for one, other in zip(in_order, expected, strict=True))
        self._counts["missing"] += len(wanted) - len(seen)
        return [seen.get(place) or missing(request, started_ns) for place, request in wanted.items()]

    def _take_health(self, responses: list[Response], watch: CpuWatch, started_ns: int) -> None:
        """Add what the client used while the requests were out."""
        timed = [one for one in responses if one.first_token_ns is not None]
        self._counts["first_tokens"] += len(timed)
        self._counts["upper_bounds"] += sum(one.ttft_bound == "upper" for one in timed)
        sent = [one.sent_ns for one in responses if one.sent_ns is not None]
        ended = [one.last_token_ns for one in responses if one.last_token_ns is not None]
        if not sent or not ended:
            return
        used_s = watch.between(min(sent), max(ended))
        self._health["client_cpu_s"] += sum(seconds for _, seconds in used_s)
        self._health["worker_cpu_s"] += max((s for title, s in used_s if _WORKER.search(title)), default=0.0)
        self._health["wall_s"] += (max(ended) - min(sent)) / 1e9
        self._health["start_s"] += (min(sent) - started_ns) / 1e9

    def _hide_key(self) -> None:
        """Take the key out of whatever AIPerf wrote: it hides its own copy, but a server may repeat it in a refusal."""
        key = (self._target.api_key or "").encode()
        for path in self._folder.rglob("*") if key else ():
            if path.is_file() and key in (content := path.read_bytes()):
                path.write_bytes(content.replace(key, b"***"))


def _all_turns(conversation: Conversation) -> list[Request]:
    """Return the requests of a conversation that does not depend on its answers."""
    turns = [next(conversation)]
    with contextlib.suppress(StopIteration):
        while True:
            turns.append(conversation.send(None))
    return turns


def one_token_body(body: JsonObject) -> JsonObject:
    """Return a body of the same form with a prompt of one letter or one token id, answered by one token."""
    short = dict(body)
    if "messages" in short:
        message = items(short["messages"])[0]
        short["messages"] = [{**message, "content": message["content"][:1]}]
    else:
        short["prompt"] = at(short, "prompt")[:1]
    for limit in {"max_tokens", "max_completion_tokens"} & short.keys():
        short[limit] = 1
    return short


def _write_tokenizer(scratch: Path) -> None:
    """Lay the smallest tokenizer out as the hub's cache on disk, the one form that AIPerf takes without a network."""
    model = scratch / "hub" / "hub" / "models--local--words"
    snapshot = model / "snapshots" / _REVISION
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(_REVISION)
    (snapshot / "tokenizer.json").write_text(json.dumps(_TOKENIZER))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    (snapshot / "tokenizer_config.json").write_text(json.dumps(described))
