"""Runs every run of a plan: the one module that knows the order of steps.

In this order: server up -> warmup -> cache into its state, proven -> neighbours until they are steady -> measure ->
neighbours stop -> close the ledger -> seal. Every request is in the journal before the next step. What the requests
mean is not decided here but read from the files later.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from kvbench.drivers.network_floor import network_floor_s
from kvbench.errors import EndpointError, HostError
from kvbench.experiment import cache_state
from kvbench.experiment.run_client import RunClient
from kvbench.experiment.run_ledger import RunSums, close_ledger, judge_by_ledger
from kvbench.experiment.server_control import ServerControl
from kvbench.experiment.tier_proof import Blocks, Manifest, file_bytes, judge
from kvbench.lenient_json import at, whole
from kvbench.result import answers
from kvbench.result.files import read_json, write_json
from kvbench.result.record_files import read_plan
from kvbench.result.run_record import (
    Attempt,
    BlockRecord,
    CacheRecord,
    DriverRecord,
    RunRecord,
    ServerRecord,
)
from kvbench.result.run_time import length_s
from kvbench.scenario.plan import WARMUP, Draw, Plan
from kvbench.this_host import pressure
from kvbench.typed_json import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kvbench.experiment.progress import Watch
    from kvbench.result.folder import Judge, ResultFolder, RunFolder
    from kvbench.result.records import Response, Row, Tier
    from kvbench.result.run_record import Ledger
    from kvbench.scenario.models import Treatment
    from kvbench.scenario.plan import RunSpec
    from kvbench.scenario.prompts import Fitting
    from kvbench.scenario.scenario import Scenario
    from kvbench.testbed.neighbors.neighbor_loads import Loads
    from kvbench.testbed.servers.counters import Counters
    from kvbench.testbed.servers.endpoint import Endpoint
    from kvbench.testbed.testbed import Testbed

_WARMUP_REQUESTS = 2
_DEFAULT_BLOCK_TOKENS = 16  # vLLM's, where the server does not tell
_NO_WINDOW_NS = (0, 0)  # where nothing was sent: neighbours are told all the same, so that a lost one is


def execute(scenario: Scenario, plan: Plan, testbed: Testbed, result: ResultFolder, watch: Watch) -> None:
    """Make every run of the plan that is not sealed yet.

    Raises:
        HostError: a side client was lost and stays away, or was lost again in the last try before a load began.

    """
    stage = _RunContext(scenario, plan, testbed, result, watch)
    if testbed.loads is not None and not all(result.is_sealed(spec.run_id) for spec in plan.runs):
        used = [one.disturbance for one in scenario.treatments.values() if one.disturbance is not None]
        testbed.loads.calibrate(result.path, sorted({load for load, target in used if target.fraction is not None}))
    for number, spec in enumerate(plan.runs, 1):
        if result.is_sealed(spec.run_id):
            watch.run_kept(spec)
            continue
        watch.run_starts(spec, number, len(plan.runs))
        while not _try_run(stage, spec):
            watch.step("again, because a side client was lost")
        watch.run_ends(spec)
    compare_answers(scenario, result)


def compare_answers(scenario: Scenario, result: ResultFolder) -> None:
    """Compare the answers of all runs, if the scenario asks for it; doing it again changes nothing."""
    if scenario.check_answers:
        runs = read_plan(result.path).runs
        off = [planned.run_id for planned in runs if scenario.treatments[planned.treatment].cache == "off"]
        answers.settle_answers(result.path / "runs", off)


@dataclass(frozen=True)
class _RunContext:
    """What all runs of a result have in common; `fitted` are texts of exact length that were found by asking."""

    scenario: Scenario
    plan: Plan
    testbed: Testbed
    result: ResultFolder
    watch: Watch
    fitted: dict[str, Fitting] = field(default_factory=dict)


def _try_run(context: _RunContext, spec: RunSpec) -> bool:
    """Make a run; tell whether it is sealed, and not broken off because a side client was lost.

    What a broken try has left is kept as `attempt-N`, with the reason in `broken.json`.
    """
    folder, loads = context.result.open_run(spec.run_id), context.testbed.loads
    treatment = context.scenario.treatments[spec.treatment]
    earlier = [
        from_json(Attempt, read_json(path), str(path)) for path in sorted(folder.path.glob("attempt-*/broken.json"))
    ]
    is_last = loads is None or len(earlier) + 1 >= loads.tries
    if loads is not None and loads.lost:
        loads.restore()
    made = None
    try:
        with (
            context.testbed.serving(treatment, folder.path) as (endpoint, driver, measuring),
            contextlib.closing(folder.open_journal()) as journal,
        ):
            how = (endpoint, driver, measuring, journal, context.watch, context.fitted)
            another = partial(context.testbed.another, treatment, folder.path) if treatment.primed_by_another else None
            client = RunClient(context.scenario, context.plan, spec, folder.attempt, *how, another=another)
            made = make_run(client, treatment, folder, context.result, loads)
    except HostError as fault:
        if loads is None or loads.breaks_off is None or is_last:
            raise
        why = fault.message
    else:
        lost = loads.breaks_off if loads is not None else None
        if lost is None or is_last:
            neighbors = made.record.neighbors
            with_tries = replace(neighbors, attempts=tuple(earlier)) if neighbors is not None else None
            folder.seal(replace(made.record, neighbors=with_tries, bottleneck=context.testbed.bottleneck), made.judge)
            return True
        why = f"{lost.name} was lost: {lost.why}"
    write_json(folder.path / "broken.json", {"why": why, **(to_json(made.record) if made is not None else {})})
    return False


@dataclass(frozen=True)
class MeasuredRun:
    """What a run leaves: what `run.json` keeps of it, and who judges its rows, None if the journal has the tiers."""

    record: RunRecord
    judge: Judge | None


def make_run(
    client: RunClient, treatment: Treatment, folder: RunFolder, result: ResultFolder, loads: Loads | None = None
) -> MeasuredRun:
    """Make one run on a server that is up.

    Raises:
        EndpointError: the server cannot be measured.
        HostError: a neighbour did not start, or was lost before the load began.

    """
    started, host = datetime.now(UTC), pressure.HostObservation(paths_of(client, folder))
    blocks = blocks_of(client.scenario, client.spec.treatment, client.endpoint)
    another = client.primer if client.another is not None else None
    control = ServerControl(client.endpoint, client.send, blocks, another, send_all=client.send_all)
    client.watch.step("warmup")
    warm_up(client)
    if not (result.path / "prompts.jsonl.zst").exists():
        result.write_prompts(client.all_texts())
    elif client.has_new_texts:
        result.add_prompts(client.new_texts())
    client.make_texts()
    client.watch.step(f"cache {'off' if treatment.cache == 'off' else 'into its state'}")
    proof = cache_state.prepare(control, treatment, client.plan, read_manifest(result))
    if proof.manifest is not None:
        result.write_json("manifest.json", {"manifest": asdict(proof.manifest)})
    floor_s = network_floor_s(client.endpoint.url)
    sums = RunSums(blocks, proof.manifest, warm=treatment.warm_tier is not None)
    with disturbed(client, treatment, folder, loads):
        client.watch.step("measure")
        host.begin()
        health_before, before = client.measuring.health(), client.endpoint.scrape()
        measure(client, control, sums)
        after, health = client.endpoint.scrape(), client.measuring.health()
        host.end()
    delta = without(after.since(before), client.measuring.own_requests)
    folder.keep_text("metrics/before.prom", before.text)
    folder.keep_text("metrics/after.prom", after.text)
    ledger, window_ns = close_ledger(sums, delta), sums.window_ns
    record = RunRecord(
        run_id=client.spec.run_id,
        treatment=client.spec.treatment,
        repeat=client.spec.repeat,
        started=started.isoformat(),
        load_s=length_s(window_ns),
        cache=CacheRecord(proof.state, proof.steps),
        ledger=ledger,
        blocks=BlockRecord(blocks.tokens, blocks.kv_bytes_per_token, blocks.path_tier),
        driver=measured_health(health_before, health),
        server=ServerRecord(client.endpoint.url, client.endpoint.model, client.endpoint.info),
        sent_one_by_one=client.sends_one_by_one,
        network_floor_s=floor_s,
        host=host.record(),
        load_1min=round(os.getloadavg()[0], 2),
        neighbors=loads.record_of_run(window_ns or _NO_WINDOW_NS) if loads is not None else None,
    )
    return MeasuredRun(record, None if client.sends_one_by_one else judge_of(blocks, ledger, delta))


def paths_of(client: RunClient, folder: RunFolder) -> dict[str, Path]:
    """Return the folders whose file systems decide a run, by role."""
    tiers = client.scenario.tiers_of(client.spec.treatment).directories
    seen: dict[str, Path] = {"results": folder.path}
    seen |= {name: tier.path for name, tier in tiers.items()}
    if client.endpoint.tier_path is not None and len(seen) == 1:
        seen["tier"] = client.endpoint.tier_path
    return seen


def measured_health(before: DriverRecord, after: DriverRecord) -> DriverRecord:
    """Return the client's health during the measured phase alone: numbers are differences, words the newer ones."""
    grown = {}
    for one in fields(DriverRecord):
        was, value = getattr(before, one.name), getattr(after, one.name)
        if isinstance(value, int | float) and isinstance(was, int | float):
            grown[one.name] = value - was
    return from_json(DriverRecord, {**to_json(after), **grown}, "the driver")


def without(delta: Counters, own_requests: Sequence[Response]) -> Counters:
    """Take what the driver sent on its own account out of the counters; it is too short for any cache to hold."""
    if delta.computed_tokens is None:
        return delta
    own_tokens = sum((one.isl or 0) - (one.cached_tokens or 0) for one in own_requests)
    return replace(delta, computed_tokens=delta.computed_tokens - own_tokens)


@contextlib.contextmanager
def disturbed(client: RunClient, treatment: Treatment, folder: RunFolder, loads: Loads | None) -> Iterator[None]:
    """Have a treatment's neighbours at work, and steady, while the context is open; they stop only after it."""
    if loads is None:
        yield
        return
    if treatment.disturbance is not None:
        client.watch.step(f"neighbours: {treatment.disturbance[0]}, {treatment.disturbance[1]}")
    loads.begin(folder.path, treatment.disturbance)
    try:
        yield
    finally:
        loads.end()


def blocks_of(scenario: Scenario, treatment: str, endpoint: Endpoint) -> Blocks:
    """Read the block arithmetic from what the server or the scenario tells, else from vLLM's configuration metric."""
    tokens = whole(endpoint.info.get("block_tokens")) or endpoint.scrape().block_tokens or _DEFAULT_BLOCK_TOKENS
    external = scenario.server.external
    per_token = (external.kv_bytes_per_token if external else None) or at(endpoint.info, "kv_bytes_per_token")
    return Blocks(tokens, float(per_token) if per_token else None, scenario.path_tier_of(treatment))


def read_manifest(result: ResultFolder) -> Manifest | None:
    """Return what an earlier run of this result has put into the tier."""
    if not (result.path / "manifest.json").exists():
        return None
    return Manifest(**at(result.read_json("manifest.json"), "manifest"))


def warm_up(client: RunClient) -> None:
    """Send requests that are thrown away, and refuse an endpoint that cannot be measured.

    Raises:
        EndpointError: no stream, wrong model, refused key, or any other failure of the very first request.

    """
    for _ in range(_WARMUP_REQUESTS):
        response = client.send(Draw(WARMUP, WARMUP, client.plan.canary_tokens, client.plan.salt), "warmup")
        if response.status != "ok":
            raise EndpointError(_first_failure(client.endpoint.url, response), _first_remedy(response))


def _first_failure(url: str, response: Response) -> str:
    status = f" ({response.http_status})" if response.http_status not in (None, 200) else ""
    return f"the first request to {url} ended as {response.status}{status}: {response.error or 'no reason given'}"


def _first_remedy(response: Response) -> str:
    if response.http_status in (401, 403):
        return "Put a valid key into an environment variable and name it in server.external.api_key_env."
    if response.http_status == 404:
        return "Check server.external.model and the URL, which ends in /v1."
    if response.error and "stream" in response.error:
        return "kvbench times the first token of a stream: use an endpoint that honours stream: true."
    if response.status == "timeout":
        return "Raise load.timeout, or check that the server is not busy."
    return "Look at the server's log."


def measure(client: RunClient, control: ServerControl, sums: RunSums) -> None:
    """Send the run's draws; each alone between two scrapes, with its tier judged at once, or all in one load."""
    if not client.sends_one_by_one:
        client.measure(sums.add)
        return
    for draw in client.draws:
        served = control.serve(draw, "measure")
        sums.add(draw, served.response)
        tier, evidence = judge(control.blocks, served, file_bytes(sums.manifest, draw))
        client.journal.keep_tier(draw.request_id, tier, evidence)


def judge_of(blocks: Blocks, ledger: Ledger, delta: Counters) -> Judge:
    """Return who says of each of many requests which tier served it, by the run's ledger and its counters."""

    def tier_of(row: Row, tier_tokens: dict[str, int]) -> tuple[Tier, str]:
        return judge_by_ledger(blocks, row, tier_tokens, ledger, delta)

    return tier_of
