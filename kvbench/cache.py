"""Cache states: how a server is brought into one, and how that is proven. Nothing here is believed without evidence.

    off         nothing is reused or stored
    cold        the cache is on and empty
    warm(tier)  the blocks are in that tier and in none faster

The order is fixed: warmup, reset, prove cold, prime, quiesce, drop faster tiers, prove warm. Each step leaves a `Step`
with its outcome and the numbers that show it; `checks` makes verdicts of them. The proofs use canaries, prompts of
their own that are never measured: a canary is first shown to be resident, so that its later absence means something,
and a warm tier is proven by a canary primed before and one primed after all others, since eviction takes the oldest.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from kvbench.errors import StorageError
from kvbench.plan import CANARY_COLD, CANARY_FIRST, CANARY_LAST, Draw, Plan
from kvbench.proof import Blocks, Manifest, Served, file_bytes, judge
from kvbench.servers import tier_directory
from kvbench.units import format_size

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.records import Phase, Response, Tier
    from kvbench.scenario_models import CacheTier, Treatment
    from kvbench.servers.endpoint import Counters

Outcome = Literal["proven", "failed", "not established", "done"]

_PRIME_ROUNDS = 3
_RESET_TRIES = 25
_RESET_PAUSE_S = 0.2
_QUIET_BOUND_S = 60.0
_QUIET_BOUND_AGAIN_S = 2.0


class ControlledServer(Protocol):
    """What the cache steps need of a server; `servers.endpoint.Endpoint` is one."""

    @property
    def tier_path(self) -> Path | None:
        """The directory of the slowest tier, None where it is not on this host."""

    @property
    def ours(self) -> bool:
        """Whether we started it and may empty its tier."""

    @property
    def info(self) -> dict[str, Any]:
        """What kvbench's emulator says about itself; empty for others."""

    def scrape(self) -> Counters:
        """Read all counters."""

    def reset(self, *, external: bool) -> bool | None:
        """Ask it to forget; its own word, None without such a route."""


class Send(Protocol):
    """Sends one prompt, keeps its row in the journal, and returns what was seen."""

    def __call__(self, draw: Draw, phase: Phase) -> Response:
        """Send and wait."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done or shown on the way to a cache state."""

    name: str
    outcome: Outcome
    evidence: str


@dataclass(frozen=True, slots=True)
class CacheProof:
    """How a state was reached, and the evidence that it holds; `manifest` is None where a tier has no files to list."""

    state: str
    steps: tuple[Step, ...]
    manifest: Manifest | None = None


@dataclass(frozen=True)
class Bench:
    """A server together with the means to send to it and the arithmetic of its blocks."""

    server: ControlledServer
    send: Send
    blocks: Blocks
    steps: list[Step] = field(default_factory=list)

    def note(self, name: str, outcome: Outcome, evidence: str) -> None:
        """Keep a step."""
        self.steps.append(Step(name, outcome, evidence))

    def serve(self, draw: Draw, phase: Phase) -> Served:
        """Send one prompt between two scrapes."""
        before = self.server.scrape()
        response = self.send(draw, phase)
        return Served(response, self.server.scrape().since(before))


def prepare(bench: Bench, treatment: Treatment, plan: Plan, known: Manifest | None) -> CacheProof:
    """Bring the server into the treatment's cache state and show that it is there.

    `known` is the manifest of an earlier run of this result: a tier that still holds it need not be primed again.
    """
    if treatment.cache == "off":
        _prove_off(bench, plan)
        return CacheProof("off", tuple(bench.steps))
    tier = treatment.warm_tier
    if tier is None:
        _make_cold(bench, plan)
        return CacheProof("cold", tuple(bench.steps))
    manifest = known if known is not None and known.tier == tier and _still_held(bench, known) else None
    if manifest is None:
        _make_cold(bench, plan)
        manifest = _prime(bench, tier, plan)
    _drop_faster_tiers(bench, tier)
    _prove_warm(bench, tier, plan, manifest)
    return CacheProof(f"warm({tier})", tuple(bench.steps), manifest)


# -- off and cold -----------------------------------------------------------------------------------------------------


def _send_twice(bench: Bench, canary: Draw) -> tuple[Tier, str]:
    """Send a canary, let write-back end, send it again; return what served the second sending."""
    bench.serve(canary, "probe")
    _quiesce(bench)
    return judge(bench.blocks, bench.serve(canary, "probe"), None)


def _prove_off(bench: Bench, plan: Plan) -> None:
    """Send a canary twice: on a server that is really off the second misses, while its counters count the tokens."""
    tier, evidence = _send_twice(bench, plan.canary(CANARY_COLD))
    if tier == "recompute":
        bench.note("prove off", "proven", f"a canary sent twice was computed twice: {evidence}")
    elif bench.server.ours:
        bench.note("prove off", "failed", f"a canary sent twice was not computed twice: {evidence}")
    elif tier == "unproven":
        bench.note("prove off", "not established", evidence)
    else:
        text = f"the cache is on ({evidence}); every request carries a text of its own, and write-back goes on"
        bench.note("prove off", "done", text)


def _make_cold(bench: Bench, plan: Plan) -> None:
    """Reset, and prove by a canary that was resident before and is gone after."""
    canary = plan.canary(CANARY_COLD)
    tier, evidence = _send_twice(bench, canary)
    if tier not in ("recompute", "unproven"):
        bench.note("canary resident", "proven", f"second sending served from {tier}: {evidence}")
    else:
        text = f"the second sending of a canary did not hit: {evidence}"
        bench.note("canary resident", _unproven_outcome(bench, tier), text)
    emptied = _reset_everything(bench)
    served = bench.serve(canary, "probe")
    tier, evidence = judge(bench.blocks, served, None)
    _quiesce(bench)  # the canary goes into the tier again, and must not be taken for what is primed next
    if served.delta.bad_files:
        text = f"after the reset the server still looked for {served.delta.bad_files:.0f} files that are gone"
        bench.note("prove cold", "failed", text)
    elif tier == "recompute":
        bench.note("prove cold", "proven", f"the canary was gone after the reset: {evidence}")
    elif emptied:
        bench.note("prove cold", "failed", f"the canary was still there after the reset: {evidence}")
    else:
        text = "this tier cannot be emptied from outside; every text is new to it instead"
        bench.note("prove cold", "not established", text)


def _unproven_outcome(bench: Bench, tier: Tier) -> Outcome:
    """A server of ours that cannot be read has failed; one of somebody else's may just not show what is needed."""
    return "not established" if tier == "unproven" and not bench.server.ours else "failed"


def _reset_everything(bench: Bench) -> bool:
    """Empty the directory tier if it is ours, then reset the rest; return whether every tier should be empty now."""
    path = bench.server.tier_path
    wiped = path is None
    if path is not None and bench.server.ours:
        wiped = True
        count = tier_directory.wipe(path)
        left = tier_directory.listing(path)
        outcome: Outcome = "failed" if left else "proven"
        bench.note("empty directory", outcome, f"{count} files deleted, {len(left)} left")
    _reset(bench, external=True)
    return wiped and bench.server.ours


def _reset(bench: Bench, *, external: bool) -> None:
    """Ask until the server says yes; its word is only a step, never a proof."""
    attempt = 1
    while (word := bench.server.reset(external=external)) is False and attempt < _RESET_TRIES:
        time.sleep(_RESET_PAUSE_S)
        attempt += 1
    name = "reset, external tiers too" if external else "reset"
    if word is None:
        bench.note(name, "not established", "the server has no reset route")
    elif word:
        bench.note(name, "done", f"the server says it succeeded, at attempt {attempt}")
    else:
        bench.note(name, "failed", f"the server refused {attempt} times: it holds blocks of running requests")


# -- warm -------------------------------------------------------------------------------------------------------------


def _still_held(bench: Bench, known: Manifest) -> bool:
    """Check that each file of an earlier manifest is there with its size."""
    path = bench.server.tier_path
    if path is None:
        return False
    files = tier_directory.listing(path)
    missing = [name for name, size in known.files.items() if files.get(name) != size]
    if missing:
        bench.note("manifest", "done", f"{len(missing)} of {len(known.files)} files are gone: priming again")
        return False
    total = format_size(sum(known.files.values()))
    bench.note("manifest", "proven", f"all {len(known.files)} files of the earlier priming are there, {total}")
    return True


def _prime(bench: Bench, tier: CacheTier, plan: Plan) -> Manifest | None:
    """Sweep over all prompts, a canary before and one after, until the tier holds what the block arithmetic says."""
    draws = [plan.canary(CANARY_FIRST), *plan.pool, plan.canary(CANARY_LAST)]
    text_bytes: dict[str, int] = {}
    unmet, rounds = draws, 0
    while unmet and rounds < _PRIME_ROUNDS:
        rounds += 1
        unmet = [draw for draw in unmet if not _prime_one(bench, tier, draw, text_bytes)]
    tokens = sum(draw.isl_target for draw in draws)
    path = bench.server.tier_path if tier in ("g3", "g4") else None
    if unmet:
        short = ", ".join(draw.prompt_id for draw in unmet[:3])
        text = f"after {rounds} rounds {len(unmet)} of {len(draws)} prompts are not held in full: {short}"
        bench.note("prime", "failed", text)
    elif len(text_bytes) == len(draws):
        held = format_size(sum(text_bytes.values()))
        bench.note("prime", "proven", f"{len(draws)} prompts, {tokens:,} tokens, {held} of files, in {rounds} rounds")
    else:
        bench.note("prime", "done", f"{len(draws)} prompts, {tokens:,} tokens, until each one hit, in {rounds} rounds")
    return Manifest(tier, tier_directory.listing(path), text_bytes) if path is not None else None


def _prime_one(bench: Bench, tier: CacheTier, draw: Draw, text_bytes: dict[str, int]) -> bool:
    """Send a prompt so that the tier takes it in; tell whether it now holds all of its cacheable blocks."""
    path = bench.server.tier_path if tier in ("g3", "g4") else None
    before = tier_directory.listing(path) if path is not None else {}
    started = bench.server.scrape()
    response = bench.send(draw, "prime")
    _quiesce(bench)
    delta = bench.server.scrape().since(started)
    _refuse_full_tier(bench, delta)
    moved = sum(delta.write_bytes.values())
    wanted = bench.blocks.cacheable(draw.isl_target)
    if path is not None and bench.blocks.kv_bytes_per_token is not None:
        gained = sum(size for name, size in tier_directory.listing(path).items() if name not in before)
        held = text_bytes.get(draw.text_key, 0) + gained
        if held:
            text_bytes[draw.text_key] = held
            return held >= wanted * bench.blocks.kv_bytes_per_token
    if moved and bench.blocks.kv_bytes_per_token is not None and tier in ("g3", "g4"):
        return moved >= wanted * bench.blocks.kv_bytes_per_token
    return (response.cached_tokens or 0) >= wanted


def _refuse_full_tier(bench: Bench, delta: Counters) -> None:
    """Stop at the first block that the tier could not take in: what would follow is another experiment."""
    if delta.write_errors:
        where = f" {bench.server.tier_path}" if bench.server.tier_path is not None else ""
        raise StorageError(
            f"the server could not write {delta.write_errors:.0f} files into its tier{where}",
            "Free some space there, then run the same command again: it resumes and loses nothing.",
        )


def _quiesce(bench: Bench) -> None:
    """Wait until write counters and the directory stand still; not as long again where they never did before."""
    has_failed = any(step.name == "quiesce" and step.outcome == "failed" for step in bench.steps)
    bound_s = _QUIET_BOUND_AGAIN_S if has_failed else _QUIET_BOUND_S
    path, started = bench.server.tier_path, time.monotonic()
    before = bench.server.scrape()
    knows = before.pending_writes is not None
    pause_s, wanted, quiet, held = (0.01, 3, 0, -1) if knows else (0.1, 5, 0, -1)
    while quiet < wanted:
        time.sleep(pause_s)
        now = bench.server.scrape()
        size = sum(tier_directory.listing(path).values()) if path is not None else 0
        still = now.write_bytes == before.write_bytes and size == held and not now.pending_writes
        quiet = quiet + 1 if still else 0
        before, held = now, size
        if time.monotonic() - started > bound_s:
            bench.note("quiesce", "failed", f"still writing after {bound_s:.0f} s")
            break


def _drop_faster_tiers(bench: Bench, tier: CacheTier) -> None:
    """Empty every tier faster than the wanted one, and the page cache under a directory tier."""
    if tier == "g1":
        return
    _reset(bench, external=tier in ("g3", "g4"))
    path = bench.server.tier_path
    if tier not in ("g3", "g4"):
        return
    told = bench.server.info.get("tiers", {}).get(tier, {})
    if told.get("direct") == "enforced" and told.get("access") == "direct":
        bench.note("page cache", "proven", "the tier is read with O_DIRECT, which its file system enforces")
    elif path is not None:
        resident = tier_directory.drop_page_cache(path)
        outcome: Outcome = "proven" if resident == 0 else "failed"
        bench.note("page cache", outcome, f"{format_size(resident)} of the tier's files still resident")
    else:
        bench.note("page cache", "not established", "the tier's host cannot be seen from here")


def _prove_warm(bench: Bench, tier: CacheTier, plan: Plan, manifest: Manifest | None) -> None:
    """Show that the canaries primed first and last are both served from the wanted tier."""
    for name in (CANARY_FIRST, CANARY_LAST):
        draw = plan.canary(name)
        served = bench.serve(draw, "probe")
        found, evidence = judge(bench.blocks, served, file_bytes(manifest, draw))
        outcome: Outcome = "proven" if found == tier else _unproven_outcome(bench, found)
        bench.note(f"prove warm, {name}", outcome, f"served from {found}: {evidence}")
