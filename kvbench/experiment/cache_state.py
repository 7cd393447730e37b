"""Brings a server into a cache state and proves that it is in it.

    off         nothing is reused or stored
    cold        the cache is on and empty
    warm(tier)  the blocks are in that tier and in none faster

The order is fixed: warmup, reset, prove cold, prime, quiesce, drop faster tiers, prove warm. Each step leaves a `Step`
with its outcome and the numbers that show it; `checks` makes verdicts of them. The proofs use canaries, prompts of
their own that are never measured: a canary is first shown to be resident, so that its later absence means something,
and a warm tier is proven by a canary primed before and one primed after all others, since eviction takes the oldest.

The server that is measured fills the tier itself, or another one that shares the tier does (`Primer`).
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvbench.experiment.prime import prime
from kvbench.experiment.server_control import Primer, quiesce
from kvbench.experiment.tier_proof import Manifest, file_bytes, judge
from kvbench.lenient_json import at
from kvbench.scenario.plan import CANARY_COLD, CANARY_FIRST, CANARY_LAST, Draw, Plan
from kvbench.testbed.servers import tier_directory
from kvbench.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kvbench.experiment.server_control import ServerControl
    from kvbench.experiment.tier_proof import Served
    from kvbench.result.records import Tier
    from kvbench.result.run_record import Outcome, Step
    from kvbench.scenario.models import CacheTier, Treatment

_RESET_TRIES = 25
_RESET_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class CacheProof:
    """How a state was reached, and the evidence that it holds; `manifest` is None where a tier has no files to list."""

    state: str
    steps: tuple[Step, ...]
    manifest: Manifest | None = None


def prepare(control: ServerControl, treatment: Treatment, plan: Plan, known: Manifest | None) -> CacheProof:
    """Bring the server into the treatment's cache state and show that it is there.

    `known` is the manifest of an earlier run of this result: a tier that still holds it need not be primed again.
    """
    if treatment.cache == "off":
        _prove_off(control, plan)
        return CacheProof("off", tuple(control.steps))
    tier = treatment.warm_tier
    if tier is None:
        _make_cold(control, plan)
        return CacheProof("cold", tuple(control.steps))
    wanted = known is not None and (known.tier, known.primed_by) == (tier, control.primed_by)
    manifest = known if known is not None and wanted and _still_held(control, tier, known) else None
    if manifest is None:
        _make_cold(control, plan)
        with (
            control.another()
            if control.another is not None
            else nullcontext(Primer(control.server, control.send)) as primer
        ):
            manifest = prime(control, primer, tier, plan)
    _drop_faster_tiers(control, tier)
    _prove_warm(control, tier, plan, manifest)
    return CacheProof(f"warm({tier})", tuple(control.steps), manifest)


# -- off and cold -----------------------------------------------------------------------------------------------------


def _send_twice(control: ServerControl, canary: Draw) -> tuple[Tier, str]:
    """Send a canary, let write-back end, send it again; return what served the second sending.

    Where a tier takes in what was asked for several times, the first sending is several.
    """
    first, *_ = [control.serve(canary, "probe").response for _ in range(control.admit_after_hits)]
    quiesce(control, control.server)
    served = control.serve(canary, "probe")
    _compare_answers(control, canary, first.text, served)
    return judge(control.blocks, served, None)


def _compare_answers(control: ServerControl, canary: Draw, computed: str | None, served: Served) -> None:
    """Hold the answer to a canary that came from a cache against its computed one: other KV would make other words.

    On an engine rounding alone may change an answer, so there a difference is told and does not judge the state;
    `check_answers` does, where the user knows that answers repeat.
    """
    if not computed or served.response.status != "ok" or not served.response.cached_tokens:
        return
    name = f"answer, {canary.prompt_id}"
    if served.response.text.startswith(computed):  # a prompt that is primed is answered with one token
        control.note(name, "proven", "the answer from the cache is the computed one")
    elif control.server.info:
        control.note(name, "failed", "the answer from the cache is not the computed one: the cache holds wrong KV")
    else:
        control.note(name, "done", "the answer from the cache is not the computed one, by rounding or by wrong KV")


def _prove_off(control: ServerControl, plan: Plan) -> None:
    """Send a canary twice: on a server that is really off the second misses, while its counters count the tokens."""
    tier, evidence = _send_twice(control, plan.canary(CANARY_COLD))
    if tier == "recompute":
        control.note("prove off", "proven", f"a canary sent twice was computed twice: {evidence}")
    elif control.server.ours:
        control.note("prove off", "failed", f"a canary sent twice was not computed twice: {evidence}")
    elif tier == "unproven":
        control.note("prove off", "not established", evidence)
    else:
        text = f"the cache is on ({evidence}); every request carries a text of its own, and write-back goes on"
        control.note("prove off", "done", text)


def _make_cold(control: ServerControl, plan: Plan) -> None:
    """Reset, and prove by a canary that was resident before and is gone after."""
    canary = plan.canary(CANARY_COLD)
    tier, evidence = _send_twice(control, canary)
    if tier not in ("recompute", "unproven"):
        control.note("canary resident", "proven", f"second sending served from {tier}: {evidence}")
    else:
        text = f"the second sending of a canary did not hit: {evidence}"
        control.note("canary resident", _unproven_outcome(control, tier), text)
    quiesce(
        control, control.server
    )  # a late write of the second sending would come back after the directory is emptied
    emptied = _reset_everything(control)
    served = control.serve(canary, "probe")
    tier, evidence = judge(control.blocks, served, None)
    quiesce(control, control.server)  # the canary goes into the tier again: not to be taken for what is primed next
    if served.delta.bad_files:
        text = f"after the reset the server still looked for {served.delta.bad_files:.0f} files that are gone"
        control.note("prove cold", "failed", text)
    elif tier == "recompute":
        control.note("prove cold", "proven", f"the canary was gone after the reset: {evidence}")
    elif emptied:
        control.note("prove cold", "failed", f"the canary was still there after the reset: {evidence}")
    else:
        text = "this tier cannot be emptied from outside; every text is new to it instead"
        control.note("prove cold", "not established", text)


def _unproven_outcome(control: ServerControl, tier: Tier) -> Outcome:
    """A server of ours that cannot be read has failed; one of somebody else's may just not show what is needed."""
    return "not established" if tier == "unproven" and not control.server.ours else "failed"


def _reset_everything(control: ServerControl) -> bool:
    """Empty the directories if they are ours, then reset the rest; return whether every tier should be empty now."""
    _empty(control, control.server.tier_paths)
    _reset(control, external=True)
    return control.server.ours


def _empty(control: ServerControl, paths: Mapping[str, Path]) -> None:
    """Delete all files of these tiers, if they are ours."""
    for tier, path in paths.items() if control.server.ours else ():
        count = tier_directory.wipe(path)
        left = tier_directory.listing(path)
        control.note(
            "empty directory", "failed" if left else "proven", f"{tier}: {count} files deleted, {len(left)} left"
        )


def _reset(control: ServerControl, *, external: bool) -> None:
    """Ask until the server says yes; its word is only a step, never a proof."""
    attempt = 1
    while (word := control.server.reset(external=external)) is False and attempt < _RESET_TRIES:
        time.sleep(_RESET_PAUSE_S)
        attempt += 1
    name = "reset, external tiers too" if external else "reset"
    if word is None:
        control.note(name, "not established", "the server has no reset route")
    elif word:
        control.note(name, "done", f"the server says it succeeded, at attempt {attempt}")
    else:
        control.note(name, "failed", f"the server refused {attempt} times: it holds blocks of running requests")


# -- warm -------------------------------------------------------------------------------------------------------------


def _still_held(control: ServerControl, tier: CacheTier, known: Manifest) -> bool:
    """Check that each file of an earlier manifest is there with its size."""
    path = control.path_of(tier)
    if path is None:
        return False
    files = tier_directory.listing(path)
    missing = [name for name, size in known.files.items() if files.get(name) != size]
    if missing:
        control.note("manifest", "done", f"{len(missing)} of {len(known.files)} files are gone: priming again")
        return False
    total = format_size(sum(known.files.values()))
    control.note("manifest", "proven", f"all {len(known.files)} files of the earlier priming are there, {total}")
    return True


def _drop_faster_tiers(control: ServerControl, tier: CacheTier) -> None:
    """Empty every tier faster than the wanted one, and the page cache under a directory tier."""
    if tier == "g1":
        return
    _empty(control, control.faster_paths(tier))
    _reset(control, external=tier in ("g3", "g4"))
    if tier in ("g3", "g4"):
        _drop_page_cache(control, tier)


def _drop_page_cache(control: ServerControl, tier: CacheTier) -> None:
    """Show that the tier is not read from memory: by a word on O_DIRECT only where the server is ours."""
    path = control.path_of(tier)
    info = at(control.server.info, "tiers", tier)
    direct = at(info, "direct") == "enforced" and at(info, "access") == "direct"
    if direct and control.server.ours:
        control.note("page cache", "proven", "the tier is read with O_DIRECT, which its file system enforces")
    elif path is not None:
        resident = tier_directory.drop_page_cache(path)
        outcome: Outcome = "proven" if resident == 0 else "failed"
        control.note("page cache", outcome, f"{format_size(resident)} of the tier's files still resident")
    elif direct and control.server.scrape().process_read_bytes is not None:
        text = "the server says that it reads the tier with O_DIRECT; all it reads is held against /proc/PID/io"
        control.note("page cache", "done", text)
    elif direct:
        text = "only the server says that it reads the tier with O_DIRECT: neither its pid nor the tier's path is given"
        control.note("page cache", "not established", text)
    else:
        control.note("page cache", "not established", "the tier's host cannot be seen from here")


def _prove_warm(control: ServerControl, tier: CacheTier, plan: Plan, manifest: Manifest | None) -> None:
    """Show that the canaries primed first and last are both served from the wanted tier."""
    for name in (CANARY_FIRST, CANARY_LAST):
        draw = plan.canary(name)
        served = control.serve(draw, "probe")
        found, evidence = judge(control.blocks, served, file_bytes(manifest, draw))
        outcome: Outcome = "proven" if found == tier else _unproven_outcome(control, found)
        _compare_answers(control, draw, manifest.answers.get(draw.text_key) if manifest else None, served)
        control.note(f"prove warm, {name}", outcome, f"served from {found}: {evidence}")
    if control.faster_paths(tier):
        quiesce(control, control.server)  # the canaries go into the faster tiers now; that is not to be measured
