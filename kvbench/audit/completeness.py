"""Rules on what a document promises and leaves out: missing rows, contradictions, missing conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.audit.findings import Check, listed, sections
from kvbench.publications.printed_figure import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.publications.claims import Experiment, Neighbour, Promise
    from kvbench.publications.claims_file import Cell, Document

_RESULTS = ("ttft", "latency", "output_rate", "input_rate", "total_rate", "request_rate", "duration", "change")


def check_promises(document: Document) -> Iterator[Check]:
    """A condition that is said to have been tested must have a figure."""
    for promise in document.claims.promises:
        rows = [cell for cell in document.cells if _answers(promise, cell) and _has_result(cell, document)]
        asked = {"concurrency": promise.concurrency, "treatment": promise.treatment, "length": promise.prompt_tokens}
        named = ", ".join(f"{key} {value}" for key, value in asked.items() if value)
        if rows:
            yield Check("rows promised", promise.text, (promise.section,), (f"{named}: {len(rows)} rows",))
            continue
        known = sorted({cell.load.concurrency for cell in document.cells if cell.load.concurrency})
        told = [f"no figure for {named}"]
        told += [f"there are figures for concurrency {listed(map(str, known))}"] if known else []
        instead = "a row of results for it"
        yield Check("rows promised", promise.text, (promise.section,), tuple(told), "unsupported", instead)


def _answers(promise: Promise, cell: Cell) -> bool:
    asked = (promise.concurrency, promise.treatment, promise.prompt_tokens)
    has = (cell.load.concurrency, cell.treatment, cell.load.prompt_tokens)
    return all(want is None or want == got for want, got in zip(asked, has, strict=True))


def _has_result(cell: Cell, document: Document) -> bool:
    return any(one.cell == cell and one.what in _RESULTS for one in document.figures)


def check_features(document: Document) -> Iterator[Check]:
    """The same thing cannot be used and absent."""
    features = document.claims.features
    for name in dict.fromkeys(one.name for one in features):
        own = {one.stance: one for one in features if one.name == name}
        if len(own) < 2:
            continue
        pair = own["used"], own["absent"]
        lines = tuple(f"{one.stance}: {one.text} ({one.section})" for one in pair)
        where = tuple(one.section for one in pair)
        instead = f"either there are {name}, or what is said to use them does not"
        yield Check("things used and absent", name, where, lines, "conflict", instead)


# -- neighbours -------------------------------------------------------------------------------------------------------


def check_neighbours(document: Document) -> Iterator[Check]:
    """Give the dose of a disturbing load, and list what is not said of it."""
    for one in document.claims.neighbours:
        rate, most = document.figure(one.rate), document.figure(one.capability) if one.capability else None
        claim, rule = f"neighbours load it with {rate.printed}", "dose of neighbours"
        if most and most.interval.low > 0:
            dose = rate.interval.middle / most.interval.middle
            told = (f"{rate.printed} of {most.printed} = {100 * dose:.0f} %",)
            where = sections(rate, most)
            if rate.interval.low > most.interval.high:
                yield Check(rule, claim, where, told, "conflict", "the capability is larger, or less was delivered")
            else:
                text = f"the load is {_size_of(dose)}, and other doses were not tried"
                yield Check(rule, claim, where, told, "note", text)
        lacking = _unsaid(one, document)
        if lacking:
            text = f"{listed(lacking)} would have to be stated"
            yield Check(rule, claim, (one.section,), (f"not stated: {listed(lacking)}",), "missing", text)


def _size_of(load_share: float) -> str:
    return "light" if load_share < 0.4 else "medium" if load_share < 0.8 else "heavy"


def _unsaid(neighbour: Neighbour, document: Document) -> list[str]:
    said = {
        "the generator": neighbour.generator,
        "reads or writes": neighbour.direction,
        "the rate that was delivered meanwhile": neighbour.delivered,
    }
    noisy = [cell for cell in document.cells if cell.experiment == neighbour.experiment and cell.load.neighbour]
    repeats = any(cell.load.repeats for cell in noisy)
    return [name for name, value in said.items() if not value] + ([] if repeats else ["repeats"])


# -- what is left out -------------------------------------------------------------------------------------------------


def check_left_out(document: Document) -> Iterator[Check]:
    """List what a comparison of treatments needs and the document does not state."""
    for experiment in document.claims.experiments:
        cells = [cell for cell in document.cells if cell.experiment == experiment.id]
        if len({cell.treatment for cell in cells}) < 2:
            continue
        lacking = list(_lacking(experiment, cells, document))
        if lacking:
            text = f"{listed(lacking)} would have to be stated"
            lines = (f"not stated: {listed(lacking)}",)
            claim = f"comparison of treatments in {experiment.id}"
            yield Check("what a comparison needs", claim, (experiment.section,), lines, "missing", text)
        repeats = [cell.load.repeats for cell in cells if cell.load.repeats]
        if repeats and min(repeats) < 3:
            told = (f"repeats of a cell: {min(repeats)}, so no interval between runs can be given",)
            claim = f"comparison of treatments in {experiment.id}"
            text = "at least 3 repeats; small differences are not shown"
            yield Check("what a comparison needs", claim, (experiment.section,), told, "note", text)


def _lacking(experiment: Experiment, cells: list[Cell], document: Document) -> Iterator[str]:
    """Name each thing that some claim of this experiment needs."""
    if not any(cell.load.repeats for cell in cells):
        yield "repeats"
    if not any(cell.load.spread for cell in cells):
        yield "spread or intervals"
    cached = any(cell.load.cache not in (None, "off") for cell in cells)
    hits = [one for what in ("hit_rate", "hit_tokens") for one in document.find(what) if _is_of(one.cell, experiment)]
    if cached and not hits:
        yield "hit rates"
    has = {one.what for one in document.figures if _is_of(one.cell, experiment)}
    if has & {"ttft", "latency"} and not any(cell.values or cell.load.runs_for_s for cell in cells):
        yield "the number of requests"
    whole = any(one.experiment == experiment.id for one in document.find("workload_tokens"))
    if not whole and not any(cell.load.prompt_tokens for cell in cells):
        yield "prompt lengths"


def _is_of(cell: Cell | None, experiment: Experiment) -> bool:
    return cell is not None and cell.experiment == experiment.id


def check_failures(document: Document) -> Iterator[Check]:
    """Failed requests must not be left out of latencies in silence."""
    for figure in document.find("failure_share"):
        line = f"{show(100 * figure.interval.middle, 'count')} % failed"
        if figure.interval.middle <= 0:
            yield Check("failures", str(figure), sections(figure), (line,))
        else:
            text = "latencies are of the requests that did not fail"
            yield Check("failures", str(figure), sections(figure), (line,), "note", text)
