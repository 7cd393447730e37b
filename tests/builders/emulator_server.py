"""A real emulator in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.builders.patience import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = "gpt-oss-120b"
FAST = ("--time", "1000")


@dataclass
class Server:
    """What a test does with a running emulator."""

    process: subprocess.Popen[str]
    root: str
    http: httpx.Client

    @property
    def pid(self) -> int:
        return self.process.pid

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return self.http.post(self.root + path, json=body)

    def get(self, path: str) -> httpx.Response:
        return self.http.get(self.root + path)

    def complete(self, prompt: Any, tokens: int = 4, **extra: Any) -> dict[str, Any]:
        answer = self.post("/v1/completions", {"model": MODEL, "prompt": prompt, "max_tokens": tokens, **extra})
        assert answer.status_code == 200, answer.text
        value: dict[str, Any] = answer.json()
        return value

    def cached(self, prompt: Any) -> int:
        """Send a prompt, wait until its blocks are written, and return its cached tokens."""
        value: int = self.complete(prompt)["usage"]["prompt_tokens_details"]["cached_tokens"]
        self.settle()
        return value

    def stream(self, path: str, body: dict[str, Any]) -> list[str]:
        """Return the data of each event."""
        with self.http.stream("POST", self.root + path, json={"model": MODEL, "stream": True, **body}) as answer:
            assert answer.status_code == 200
            return [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]

    def metrics(self) -> dict[str, float]:
        """Return every sample by its name and its labels but engine and model, e.g. `kvbench:x_total{tier=g4}`."""
        found = {}
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                labels = {k: v for k, v in sample.labels.items() if k not in ("engine", "model_name")}
                shown = ",".join(f"{k}={v}" for k, v in sorted(labels.items()))
                found[f"{sample.name}{{{shown}}}" if shown else sample.name] = sample.value
        return found

    def settle(self) -> None:
        """Wait until no tier write is pending."""
        names = [f"kvbench:tier_pending_writes{{tier={tier}}}" for tier in ("g2", "g3", "g4")]
        wait_until(lambda: not any(map(self.metrics().get, names)), "no tier write is pending")

    def reset(self, *, external: bool = False) -> bool:
        answer = self.http.post(self.root + "/reset_prefix_cache", params={"reset_external": external})
        assert answer.status_code == 200
        value: bool = answer.json()["success"]
        return value


def launch(*arguments: str, **options: Any) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """Start an emulator and return it with the one line that it prints."""
    command = [sys.executable, "-m", "kvbench.emulator", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return process, line


def failure(*arguments: str, exit_code: int = 1, **options: Any) -> dict[str, Any]:
    """Start an emulator that cannot start, and return what it says."""
    process, line = launch(*arguments, **options)
    with process:
        if line["event"] == "ready":
            process.kill()  # else leaving the context waits for ever
        assert process.wait(PATIENCE_S) == exit_code
        assert process.stdout is not None
        assert process.stdout.read() == ""
    assert line["event"] == "failed"
    assert line["message"]
    assert line["remedy"]
    return line


@contextmanager
def running(*arguments: str, **options: Any) -> Iterator[Server]:
    """Run an emulator with these arguments and stop it with SIGTERM, which must end it with code 0."""
    process, line = launch(*FAST, *arguments, **options)
    assert line["event"] == "ready", line
    assert line["pid"] == process.pid
    with process, httpx.Client(timeout=PATIENCE_S) as http:
        try:
            yield Server(process, line["url"].removesuffix("/v1"), http)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
            assert process.stdout is not None
            assert process.stdout.read() == ""


def g4(path: Path, capacity: str = "1GB") -> tuple[str, ...]:
    """Return the arguments of a file tier of small files (28 blocks) on a real path."""
    return ("--g4-path", str(path), "--g4-capacity", capacity, "--g4-payload", "64KiB")
