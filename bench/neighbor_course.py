"""How exactly neighbours start and stop: 20 trials on this host, and 20 through sshd in four network namespaces.

Start skew: how far apart the first and the last generator of a trial started, on one clock. Stop time: from the order
to the end of the last generator. Four side clients each; fio on this host, `iperf3 -R` through a capped link between
the namespaces. Then a trial that asks for three times what the link carries: it must be labelled with what it
delivered, and not be valid. Goal: every stop within 0.5 s.

Without root, a capped link or the generators the part that needs them is left out, and says why.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kvbench import units
from kvbench.errors import HostError
from kvbench.scenario.neighbors import NeighborSpec, Target
from kvbench.testbed import lab
from kvbench.testbed.hosts import file as hosts_file
from kvbench.testbed.hosts.file import HostsFile
from kvbench.testbed.neighbors.neighbor_loads import side_clients_of
from kvbench.testbed.neighbors.side_clients import SideClients
from kvbench.typed_json import to_json

TRIALS = 20
WINDOW_S = 0.3
STOP_GOAL_S = 0.5
LINK = 125e6
PREFIX = f"kvb-b{os.getpid()}-"
COURSE = {"ramp": 0.5, "ramp_limit": 4, "settle_limit": 0.2}
FILES = {"fio": {"size": "4MB", "numjobs": 1, "iodepth": 4}, **COURSE}
FLOWS = {"iperf3": {}, **COURSE}


def main() -> int:
    """Print the tables, and JSON if asked; return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: list[dict[str, Any]] = []
    raw: dict[str, Any] = {}
    for name, part in (("on this host, fio", on_this_host), ("sshd in four namespaces, iperf3 -R", through_sshd)):
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            try:
                raw[name] = part(Path(folder), options.trials)
            except HostError as fault:
                print(f"{name}: left out: {fault.message}")
                continue
        figures += figures_of(name, raw[name])
    if options.json:
        options.json.write_text(json.dumps({"figures": figures, "trials": raw}) + "\n")
    return 1 if any(figure["met"] is False for figure in figures) else 0


def on_this_host(folder: Path, trials: int) -> list[dict[str, Any]]:
    """Make the trials with four side clients that are processes of this host."""
    need("fio")
    entries = {}
    for number in range(1, 5):
        (folder / f"c{number}").mkdir()
        entries[f"c{number}"] = {"local": True, "directory": str(folder / f"c{number}")}
    with side_clients_in(FILES, HostsFile.model_validate({"side_clients": entries}), folder) as crew:
        return course(crew, Target(aggregate=20e6), trials)


def through_sshd(folder: Path, trials: int) -> list[dict[str, Any]]:
    """Make the trials through sshd in four namespaces, and one more that asks for more than the link carries."""
    need("iperf3")
    standing = lab.standing(folder / "lab", rate_bytes_per_s=LINK, prefix=PREFIX)
    with standing as file, side_clients_in(FLOWS, hosts_file.load(file), folder) as crew:
        made = course(crew, Target(aggregate=0.5 * LINK), trials)
        return [*made, trial(crew, Target(aggregate=3 * LINK))]


def need(program: str) -> None:
    """Refuse to begin without a generator.

    Raises:
        HostError: it is missing.

    """
    if shutil.which(program) is None:
        raise HostError(f"{program} is not installed", f"Install it: apt-get install {program}")


def side_clients_in(spec: dict[str, Any], asked: HostsFile, folder: Path) -> SideClients:
    """Return the side clients of a hosts file with a generator."""
    crew = side_clients_of(NeighborSpec.model_validate(spec), asked, folder)
    assert isinstance(crew, SideClients)  # noqa: S101 - it was given a spec and hosts
    return crew


def course(crew: SideClients, target: Target, trials: int) -> list[dict[str, Any]]:
    """Make so many trials one after another."""
    return [trial(crew, target) for _ in range(trials)]


def trial(crew: SideClients, target: Target) -> dict[str, Any]:
    """Start, wait for a short window, stop; return what the report says of it."""
    crew.start(target)
    window = (time.time_ns(), time.time_ns() + int(WINDOW_S * 1e9))
    time.sleep(WINDOW_S)
    crew.stop()
    kept = crew.report(window)
    words = ("label", "asked_bytes_per_s", "delivered_bytes_per_s", "verdict", "trial")
    told = {word: value for word, value in to_json(kept).items() if word in words}
    course: Any = told.pop("trial")
    return {**told, **course}


def figures_of(name: str, made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print the lines of one part and return them as figures against goals."""
    over = [one for one in made if one["asked_bytes_per_s"] > LINK]
    paced = [one for one in made if one["asked_bytes_per_s"] <= LINK]
    skew, stop = ([one[key] for one in paced] for key in ("start_skew_s", "stop_s"))
    figures = [
        figure(f"start skew of four neighbours, {name}", spread(skew), None, met=None),
        figure(
            f"stop of four neighbours, {name}", spread(stop), f"max <= {STOP_GOAL_S} s", met=max(stop) <= STOP_GOAL_S
        ),
    ]
    for one in over:
        asked, word = units.format_rate(one["asked_bytes_per_s"]), one["verdict"]["word"]
        said = f"labelled {one['label']}, {word}"
        met = word != "valid" and one["delivered_bytes_per_s"] <= 1.05 * LINK
        figures.append(
            figure(f"{asked} asked of a {units.format_rate(LINK)} link", said, "what was delivered", met=met)
        )
        print("  " + "; ".join(reason["text"] for reason in one["verdict"]["reasons"]))
    return figures


def figure(what: str, measured: str, goal: str | None, *, met: bool | None) -> dict[str, Any]:
    """Print one figure and return it as `run_all.py` reads it."""
    print(f"{what}: {measured}{f'   (goal: {goal})' if goal else ''}")
    return {"figure": what, "measured": measured, "goal": goal, "met": met}


def spread(values: list[float]) -> str:
    """Return the median and the maximum in milliseconds."""
    middle, most = statistics.median(values) * 1e3, max(values) * 1e3
    return f"median {middle:.1f} ms, max {most:.1f} ms, n = {len(values)}"


if __name__ == "__main__":
    sys.exit(main())
