"""Computes what neighbours delivered in a window, and judges whether it is what was asked for.

`valid`: every client covered 95 % of the window at 90 % of its target. `suspect`: less was delivered, but all went on
through the window or the aggregate reached 90 %; or something about the proof is weak. `invalid`: a client stood still,
ended or was lost. The label is always the rate that was delivered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench import units
from kvbench.result.run_record import LostHost, NeighborRecord, SideClientRecord, TrialRecord, Window
from kvbench.result.verdict import Reason, Verdict, verdict_of
from kvbench.testbed.neighbors.counter_series import Delivered, delivered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kvbench.result.verdict import Level
    from kvbench.testbed.neighbors.trial import Evidence, Trial

LEAST_COVERAGE = 0.95
LEAST_RATE = 0.9
MOST_FOREIGN = 0.02
_COUNTED = 0.95  # of what the generators say must have passed the device
_MOST_CLOCK_ERROR = 0.02  # of the window

WindowNs = tuple[int, int]


def report(evidence: Evidence, window: WindowNs) -> NeighborRecord:
    """Return what run.json keeps of the neighbours; `window` is (first send, last byte) in ns."""
    trial = evidence.trial
    asked = trial.asked if trial is not None else {}
    shares = {
        name: delivered(member.series, window, asked.get(name), by_disk=member.by_disk)
        for name, member in evidence.members.items()
    }
    total = sum(share.bytes_per_s for share in shares.values())
    target = trial.asked_bytes_per_s if trial is not None else None
    reasons = _noisy(evidence, shares, window) if trial is not None else _quiet(evidence, shares)
    return NeighborRecord(
        load=None,
        generator=evidence.generator if trial is not None else None,
        target=str(trial.target) if trial is not None else "quiet",
        delivered_bytes_per_s=total,
        label=units.format_rate(total) if trial is not None else "quiet",
        window=Window(*window),
        verdict=verdict_of(reasons),
        asked_bytes_per_s=target,
        calibrated_bytes_per_s=trial.calibration.bytes_per_s if trial and trial.calibration else None,
        delivered_over_asked=total / target if target else None,
        trial=_trial_record(trial, window) if trial is not None else None,
        hosts={name: _host(evidence, name, share) for name, share in shares.items()},
        lost=tuple(LostHost(one.name, one.why, one.noticed_ns) for one in evidence.lost),
        passes=evidence.passes if trial is not None else None,
    )


def _trial_record(trial: Trial, window: WindowNs) -> TrialRecord:
    return TrialRecord(
        at_ns=trial.at_ns,
        start_skew_s=trial.skew_s,
        ramp_s=(trial.ready_ns - trial.at_ns) / 1e9,
        steady=trial.steady,
        lead_s=(window[0] - trial.at_ns) / 1e9,
        stop_asked_ns=trial.stop_asked_ns,
        stop_s=trial.stop_s,
    )


def _host(evidence: Evidence, name: str, share: Delivered) -> SideClientRecord:
    member, trial = evidence.members[name], evidence.trial
    return SideClientRecord(
        delivered_bytes_per_s=share.bytes_per_s,
        device="disk" if member.by_disk else "interface",
        asked_bytes_per_s=share.target_bytes_per_s,
        coverage=share.coverage if trial is not None else None,
        moving=share.moving if trial is not None else None,
        device_bytes_per_s=share.device_bytes_per_s,
        device_shared_with_server=member.shared,
        clock_error_s=member.clock_error_s,
        clock_drift_s=member.drift_s,
        started_ns=trial.started_ns.get(name) if trial is not None else None,
        ended_ns=trial.ended_ns.get(name) if trial is not None else None,
        outcome=evidence.outcomes.get(name),
        host={**share.host},
        facts=member.facts,
    )


def _noisy(evidence: Evidence, shares: dict[str, Delivered], window: WindowNs) -> Iterator[Reason]:
    trial = evidence.trial
    assert trial is not None  # noqa: S101 - its caller asks
    losses = list(_losses(evidence, window))
    yield from losses
    if any(loss.level == "invalid" for loss in losses):
        return  # the others were stopped for it: the rest follows from that
    yield from _ends(evidence, trial, window)
    yield from _rates(evidence, shares)
    if not trial.steady:
        text = "the neighbours' aggregate was not steady within 10 % when the window began"
        yield Reason("suspect", "neighbour ramp", text, "Raise `ramp_limit`, or ask for less than the bottleneck.")
    if window[0] < trial.ready_ns:
        text = "the window began before the neighbours were ready"
        yield Reason("invalid", "neighbour ramp", text, "Start the load after `start` has returned.")
    yield from _proofs(evidence, shares, window)


def _losses(evidence: Evidence, window: WindowNs) -> Iterator[Reason]:
    for one in evidence.lost:
        if one.noticed_ns <= window[1] + 4_000_000_000:
            level: Level = "invalid" if evidence.lost_host == "retry" else "suspect"
            text = f"{one.name} was lost: {one.why}"
            yield Reason(level, "neighbour lost", text, "Repeat the run once that host is back.")


def _ends(evidence: Evidence, trial: Trial, window: WindowNs) -> Iterator[Reason]:
    for name, outcome in evidence.outcomes.items():
        if outcome["error"] is not None:
            remedy = "See neighbors/ in the run's folder for all it said."
            yield Reason("invalid", "neighbour failed", f"{name}: {outcome['error']}", remedy)
        elif trial.ended_ns[name] < window[1]:
            text = f"{name} was stopped before the last byte of the load"
            yield Reason("invalid", "neighbour ended", text, "Stop neighbours only after the load has ended.")


def _rates(evidence: Evidence, shares: dict[str, Delivered]) -> Iterator[Reason]:
    gone = {one.name for one in evidence.lost} if evidence.lost_host == "continue" else set()
    here = {name: share for name, share in shares.items() if name not in gone}
    short = [name for name, share in here.items() if share.coverage < LEAST_COVERAGE]
    if not short:
        return
    total = sum(share.bytes_per_s for share in here.values())
    target = sum(share.target_bytes_per_s or 0.0 for share in here.values())
    went_on = all(here[name].moving >= LEAST_COVERAGE for name in short)
    level: Level = "suspect" if went_on or (target and total >= LEAST_RATE * target) else "invalid"
    worst = min(short, key=lambda name: here[name].coverage)
    of = f" of {units.format_rate(target)} asked" if target else ""
    text = (
        f"{', '.join(short)} covered less than 95 % of the window ({worst}: {here[worst].coverage * 100:.0f} %); "
        f"delivered {units.format_rate(total)}{of}"
    )
    yield Reason(level, "neighbour short", text, "Ask for a rate that the path can carry; the label says what it was.")


def _proofs(evidence: Evidence, shares: dict[str, Delivered], window: WindowNs) -> Iterator[Reason]:
    for device in sorted({member.device for member in evidence.members.values()}):
        names = [name for name, member in evidence.members.items() if member.device == device]
        said = sum(shares[name].bytes_per_s for name in names)
        counted = shares[names[0]].device_bytes_per_s
        if counted is not None and counted < _COUNTED * said:
            what = "disk" if evidence.members[names[0]].by_disk else "interface"
            text = (
                f"{', '.join(names)} say {units.format_rate(said)}, but their {what} counted "
                f"{units.format_rate(counted)}"
            )
            remedy = "Use `direct: true`, or name the interface that the load goes through."
            yield Reason("suspect", "neighbour counters", text, remedy)
    for name, member in evidence.members.items():
        error_s = max(member.clock_error_s, abs(member.drift_s))
        if error_s * 1e9 > _MOST_CLOCK_ERROR * (window[1] - window[0]):
            text = f"the clock of {name} is known only within {units.format_duration(error_s)}"
            yield Reason("suspect", "neighbour clock", text, "Measure longer, or over a faster way to that host.")


def _quiet(evidence: Evidence, shares: dict[str, Delivered]) -> Iterator[Reason]:
    """Hold a quiet window to its name: the negative control."""
    for one in evidence.lost:
        text = f"{one.name} was lost, so nobody knows what it did in the quiet window"
        yield Reason("suspect", "neighbour lost", text, "Repeat the run once that host is back.")
    for name, share in shares.items():
        if share.bytes_per_s > 0:
            text = f"{name} delivered {units.format_rate(share.bytes_per_s)} in a quiet window"
            yield Reason("invalid", "neighbour noise", text, "Stop the neighbours before a quiet run.")
    reference = evidence.reference_bytes_per_s
    alone = {name: share for name, share in shares.items() if not evidence.members[name].shared}
    foreign = sum(share.device_bytes_per_s or 0.0 for share in alone.values())
    if reference and foreign > MOST_FOREIGN * reference:
        text = (
            f"the side clients moved {units.format_rate(foreign)} in a quiet window, "
            f"{foreign / reference * 100:.1f} % of {units.format_rate(reference)}"
        )
        yield Reason("suspect", "neighbour noise", text, "Find out who else uses them, or wait longer between runs.")


def joined(verdicts: Iterable[Verdict]) -> Verdict:
    """Return one verdict of several on the same window, each reason once."""
    reasons = dict.fromkeys(reason for verdict in verdicts for reason in verdict.reasons)
    return verdict_of(reasons)
