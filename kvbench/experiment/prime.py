"""Primes a tier: sends all prompts in rounds until the tier holds what the block arithmetic says.

A sweep and no random draws: to touch each of 100 prompts by chance takes about 520 draws. Rounds, because some systems
take a block in only when it was asked for several times. A canary before and one after, since the oldest is evicted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvbench.errors import StorageError
from kvbench.experiment.server_control import quiesce
from kvbench.experiment.tier_proof import Manifest
from kvbench.scenario.plan import CANARY_FIRST, CANARY_LAST, Draw, Plan
from kvbench.testbed.servers import tier_directory
from kvbench.units import format_size

if TYPE_CHECKING:
    from pathlib import Path

    from kvbench.experiment.server_control import Primer, ServerControl
    from kvbench.result.records import Response
    from kvbench.scenario.models import CacheTier
    from kvbench.testbed.servers.counters import Counters

_ROUNDS = 3  # without any progress
_MOST_ROUNDS = 12  # however much progress each one makes


@dataclass
class _Filling:
    """What priming has brought so far: by text the bytes of its files, and how many of its tokens hit last.

    `answers` are those to prompts that were computed, by text.
    """

    text_bytes: dict[str, int] = field(default_factory=dict)
    hit_tokens: dict[str, float] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    rounds: int = 0

    @property
    def progress(self) -> float:
        """A number that grows with whatever was gained."""
        return sum(self.text_bytes.values()) + sum(self.hit_tokens.values())


def prime(control: ServerControl, primer: Primer, tier: CacheTier, plan: Plan) -> Manifest | None:
    """Sweep over all prompts, a canary before and one after, until the tier holds what the block arithmetic says."""
    draws = [plan.canary(CANARY_FIRST), *plan.pool, plan.canary(CANARY_LAST)]
    filling, least_rounds = _Filling(), max(_ROUNDS, control.admit_after_hits + 1)
    own, other = control.server.scrape(), primer.server.scrape()
    unmet, gains = draws, True
    while unmet and (filling.rounds < least_rounds or (gains and filling.rounds < _MOST_ROUNDS)):
        before = filling.progress
        filling.rounds += 1
        if filling.rounds == 1:
            batches = _batches(control, tier, unmet)
            unmet = [draw for batch in batches for draw in _prime_all(control, primer, tier, batch, filling)]
        else:
            unmet = [draw for draw in unmet if not _prime_one(control, primer, tier, draw, filling)]
        gains = filling.progress > before
    _note_primed(control, draws, unmet, filling)
    if control.another is not None:
        _note_another(control, control.server.scrape().since(own), primer.server.scrape().since(other))
    path = control.path_of(tier)
    if path is None:
        return None
    canaries = {plan.canary(name).text_key for name in (CANARY_FIRST, CANARY_LAST)}
    answers = {key: told for key, told in filling.answers.items() if key in canaries}
    return Manifest(tier, tier_directory.listing(path), filling.text_bytes, control.primed_by, answers)


def _note_primed(control: ServerControl, draws: list[Draw], unmet: list[Draw], filling: _Filling) -> None:
    tokens, rounds = sum(draw.isl_target for draw in draws), filling.rounds
    after = f"in {rounds} round{'s' if rounds > 1 else ''}"
    if unmet:
        short = ", ".join(draw.prompt_id for draw in unmet[:3])
        text = f"{len(unmet)} of {len(draws)} prompts are not held in full {after}: {short}"
        control.note("prime", "failed", text)
    elif len(filling.text_bytes) == len(draws):
        held = format_size(sum(filling.text_bytes.values()))
        control.note("prime", "proven", f"{len(draws)} prompts, {tokens:,} tokens, {held} of files, {after}")
    else:
        control.note("prime", "done", f"{len(draws)} prompts, {tokens:,} tokens, until each one hit, {after}")


def _note_another(control: ServerControl, measured: Counters, other: Counters) -> None:
    """Say who wrote what is in the tier now: the other server, and nothing of it the one that is measured."""
    wrote, others = sum(measured.write_bytes.values()), sum(other.write_bytes.values())
    if wrote:
        text = f"the server that is measured wrote {format_size(wrote)} itself while another was to prime"
        control.note("primed by another", "failed", text)
    elif measured.write_bytes and others:
        text = f"another server wrote {format_size(others)}, the one that is measured nothing"
        control.note("primed by another", "proven", text)
    else:
        control.note("primed by another", "done", "every prompt was sent to another server; no counters tell who wrote")


def _batches(control: ServerControl, tier: CacheTier, draws: list[Draw]) -> list[list[Draw]]:
    """Return the draws in order, those of one length together as far as the server takes them in at once.

    The files that a batch leaves are the prompts' in equal parts, which can only be told of prompts of one length.
    """
    most = control.primed_at_once if control.path_of(tier) is not None and control.blocks.kv_bytes_per_token else 1
    batches: list[list[Draw]] = []
    for draw in draws:
        is_canary = draw.prompt_id in (CANARY_FIRST, CANARY_LAST)
        last = batches[-1] if batches and not is_canary else []
        if last and len(last) < most and last[0].isl_target == draw.isl_target and last[0].prompt_id != CANARY_FIRST:
            last.append(draw)
        else:
            batches.append([draw])
    return batches


def _prime_all(
    control: ServerControl, primer: Primer, tier: CacheTier, draws: list[Draw], filling: _Filling
) -> list[Draw]:
    """Send prompts of one length at once; return those of which the tier does not hold all that it should."""
    if len(draws) == 1 or control.send_all is None:
        return [draw for draw in draws if not _prime_one(control, primer, tier, draw, filling)]
    path = control.path_of(tier)
    assert path is not None  # noqa: S101 - else they would be alone
    before, started = tier_directory.listing(path), primer.server.scrape()
    control.send_all(draws, "prime")
    quiesce(control, primer.server)
    _refuse_full_tier(path, primer.server.scrape().since(started))
    gained = sum(size for name, size in tier_directory.listing(path).items() if name not in before)
    each, rest = divmod(gained, len(draws))
    wanted = control.blocks.cacheable(draws[0].isl_target) * (control.blocks.kv_bytes_per_token or 0.0)
    if rest or each < wanted:
        return draws
    filling.text_bytes |= {draw.text_key: each for draw in draws}
    return []


def _prime_one(control: ServerControl, primer: Primer, tier: CacheTier, draw: Draw, filling: _Filling) -> bool:
    """Send a prompt so that the tier takes it in; tell whether it now holds all of its cacheable blocks."""
    path, per_token = control.path_of(tier), control.blocks.kv_bytes_per_token
    before = tier_directory.listing(path) if path is not None else {}
    started = primer.server.scrape()
    response = primer.send(draw, "prime")
    quiesce(control, primer.server)
    delta = primer.server.scrape().since(started)
    _refuse_full_tier(path, delta)
    wanted = control.blocks.cacheable(draw.isl_target)
    if response.cached_tokens == 0 and response.status == "ok":
        filling.answers.setdefault(draw.text_key, response.text)
    filling.hit_tokens[draw.text_key] = hits = _hits_of(tier, response, delta)
    if path is not None and per_token is not None:
        gained = sum(size for name, size in tier_directory.listing(path).items() if name not in before)
        held = filling.text_bytes.get(draw.text_key, 0) + gained
        if held:
            filling.text_bytes[draw.text_key] = held
            return held >= wanted * per_token
    written = delta.write_bytes.get(tier, sum(delta.write_bytes.values()))
    if written and per_token is not None and tier in ("g3", "g4"):
        return written >= wanted * per_token
    return hits >= wanted and filling.rounds >= control.admit_after_hits


def _hits_of(tier: CacheTier, response: Response, delta: Counters) -> float:
    """Return how many tokens of a prompt a tier served; of memory tiers, how many came from any."""
    if tier in ("g3", "g4") and tier in delta.tier_tokens:
        return delta.tier_tokens[tier]
    if tier in ("g3", "g4") and delta.external_hits is not None:
        return delta.external_hits - (delta.host_tokens or 0)
    return response.cached_tokens or 0


def _refuse_full_tier(path: Path | None, delta: Counters) -> None:
    """Stop at the first block that the tier could not take in: what would follow is another experiment."""
    if lost := (delta.write_errors or 0) + (delta.refused_files or 0):
        where = "" if path is None else f" {path}"
        raise StorageError(
            f"the server could not write {lost:.0f} files into its tier{where}",
            "Free some space there, then run the same command again: it resumes and loses nothing.",
        )
