"""Rules on KV cache in bytes and tokens: bytes per token of the model, what fits where, and which unit is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbench.audit.findings import Check, assumption, sections, token_bytes
from kvbench.publications.printed_figure import Interval, show, show_interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.publications.claims import Fit
    from kvbench.publications.claims_file import Cell, Document, Figure

_GIB = 2**30
_RULE = "KV bytes of the model"


def check_bytes_per_token(document: Document) -> Iterator[Check]:
    """A printed size of a token's KV must be one that the model's shape gives."""
    for figure in document.find("kv_bytes_per_token"):
        if sizes := token_bytes(document):
            ways = [(line, Interval.exact(size)) for line, size in sizes]
            yield _fits_some(figure, ways, str(figure), (), sections(figure), document)


def check_workload_bytes(document: Document) -> Iterator[Check]:
    """So many tokens take so many bytes, in GB or in GiB."""
    for tokens in document.find("workload_tokens"):
        for size in document.find("workload_bytes"):
            if (size.experiment, size.cell, size.subject) != (tokens.experiment, tokens.cell, tokens.subject):
                continue
            ways = []
            for line, bytes_each in token_bytes(document):
                total = tokens.interval * Interval.exact(bytes_each)
                told = f"{line}; {tokens.printed} take {total.middle / 1e9:.0f} GB = {total.middle / _GIB:.0f} GiB"
                ways.append((told, total))
            if ways:
                claim = f"{tokens.printed} are {size.printed} of KV"
                yield _fits_some(size, ways, claim, (f"printed: {size.printed}",), sections(tokens, size), document)


def _fits_some(
    figure: Figure,
    ways: list[tuple[str, Interval]],
    claim: str,
    lines: tuple[str, ...],
    where: tuple[str, ...],
    document: Document,
) -> Check:
    """Hold a printed size against those that are possible: in its unit, then with a decimal unit read as binary."""
    told = (*assumption(document), *(line for line, _ in ways), *lines)
    if any(figure.interval.meets(size) for _, size in ways):
        return Check(_RULE, claim, where, told)
    binary = figure.printed.binary
    if binary is not None and any(binary.meets(size) for _, size in ways):
        unit = figure.printed.unit[0] + "iB"
        return Check(_RULE, claim, where, told, "note", f"the unit is {unit}, not {figure.printed.unit}")
    return Check(_RULE, claim, where, told, "conflict", "another data type, another model, or another number of tokens")


def check_context(document: Document) -> Iterator[Check]:
    """No prompt is longer than the context of the model or of the engine."""
    limit = document.first("context_limit")
    for tokens in document.find("workload_tokens") if limit else ():
        load = next((one for one in document.claims.experiments if one.id == tokens.experiment), None)
        if load is None or not tokens.per or limit is None:
            continue
        counts = {"distinct prompts": load.distinct_prompts, "requests": load.requests}
        count = counts.get(tokens.per)
        if not count:
            continue
        each = tokens.interval / Interval.exact(float(count))
        lines = [
            f"{tokens.printed} / {count} {tokens.per} = {each.middle:,.0f} tokens each; the limit is {limit.printed}"
        ]
        claim = f"{count} {tokens.per} hold {tokens.printed}"
        if each.low <= limit.interval.high:
            yield Check("tokens and context", claim, sections(tokens, limit), tuple(lines))
            continue
        instead = "there are more prompts, or fewer tokens"
        for name, other in counts.items():
            if other and name != tokens.per and tokens.interval.low / other <= limit.interval.high:
                fit = f"{tokens.interval.middle / other:,.0f} tokens each"
                lines.append(f"{tokens.printed} / {other} {name} = {fit}: fits")
                instead = f"the figure is the total of the {other} {name}, {fit}"
        yield Check("tokens and context", claim, sections(tokens, limit), tuple(lines), "conflict", instead)


def check_capacity(document: Document) -> Iterator[Check]:
    """So many bytes of a tier hold so many tokens."""
    for tokens in document.find("kv_tokens"):
        rooms = [one for one in document.find("kv_capacity", tier=tokens.tier) if one.subject == tokens.subject]
        if tokens.restates or not rooms or not (sizes := token_bytes(document)):
            continue
        room = rooms[0]
        each = room.interval / tokens.interval
        lines = [*assumption(document), *(line for line, _ in sizes)]
        lines.append(f"{room.printed} / {tokens.printed} = {each.middle:,.0f} bytes a token")
        claim, where = f"{room.printed} hold {tokens.printed}", sections(room, tokens)
        if any(each.meets(Interval.exact(size)) for _, size in sizes):
            yield Check("tokens in a capacity", claim, where, tuple(lines))
            continue
        lines.append(f"that is {each.middle / sizes[-1][1]:.3g} of the smallest possible figure")
        instead = " or ".join(_explanations(each, sizes, document)) or "one of the two figures is of something else"
        yield Check("tokens in a capacity", claim, where, tuple(lines), "conflict", instead)


def _explanations(each: Interval, sizes: list[tuple[str, float]], document: Document) -> Iterator[str]:
    """Look for a smaller data type, or several GPUs with one share each, that would explain the count of tokens."""
    model = document.claims.model
    stated = model.kv_dtype_bytes if model else 2.0
    named = [(line.partition(":")[0], size) for line, size in sizes]
    for layers, size in named:
        for gpus in document.find("count"):
            count = gpus.interval.middle
            if "GPU" in gpus.subject and count > 1 and (each * Interval.exact(count)).meets(Interval.exact(size)):
                yield f"the bytes are of one GPU and the tokens of all {count:.0f} ({layers})"
    for layers, size in named:
        for bits in (8, 4):
            if bits < 8 * stated and each.meets(Interval.exact(size * bits / (8 * stated))):
                yield f"KV is kept in {bits} bits ({layers})"


def check_weights(document: Document) -> Iterator[Check]:
    """Parameters take at most so many bytes each."""
    parameters, weights, model = document.first("parameters"), document.first("weights"), document.claims.model
    if not parameters or not weights or not model:
        return
    size = parameters.interval * Interval.exact(2.0)
    line = f"{parameters.printed} parameters x 2 bytes = {size.middle / 1e9:.0f} GB = {size.middle / _GIB:.0f} GiB"
    claim, where = f"{parameters.printed} parameters in 16 bits are {weights.printed}", sections(parameters, weights)
    if size.meets(weights.interval):
        yield Check("bytes of the weights", claim, where, (line,))
    elif weights.interval.meets(size * Interval.exact(_GIB / 1e9)):
        yield Check("bytes of the weights", claim, where, (line,), "note", "the unit is GB, not GiB")
    elif weights.interval.high > size.low:
        yield Check("bytes of the weights", claim, where, (line,), "note", "the figure holds more than the weights")
    else:
        yield Check("bytes of the weights", claim, where, (line,), "note", "the weights are kept in fewer bits")


# -- what fits where --------------------------------------------------------------------------------------------------


def check_fits(document: Document) -> Iterator[Check]:
    """A statement that KV fits into some tiers, or overflows them, must agree with their capacities."""
    for fit in document.claims.fits:
        kv = document.figure(fit.kv)
        rooms = [one for tier in fit.tiers for one in document.find("kv_capacity", tier=tier)]
        ways = [(f"{kv.printed}", kv.interval)]
        if kv.printed.dimension == "tokens":
            each = [(line, kv.interval * Interval.exact(size)) for line, size in token_bytes(document)]
            ways = [(f"{line}; {kv.printed} are {show_interval(size, 'bytes')}", size) for line, size in each]
        if ways and len(rooms) >= len(fit.tiers):
            yield _hold_fit(fit, ways, rooms)


def _hold_fit(fit: Fit, ways: list[tuple[str, Interval]], rooms: list[Figure]) -> Check:
    total = sum((one.interval for one in rooms), Interval.exact(0.0))
    sums = f"{' + '.join(str(one.printed) for one in rooms)} = {show(total.middle, 'bytes')}"
    possible = any(size.low <= total.high if fit.stance == "fits" else size.high >= total.low for _, size in ways)
    lines = (*(line for line, _ in ways), f"{', '.join(fit.tiers)}: {sums}")
    where = (fit.section, *sections(*rooms))
    if possible:
        return Check("KV against capacity", fit.text, where, lines)
    instead = f"the capacity is {'larger' if fit.stance == 'fits' else 'smaller'}, or the KV is"
    return Check("KV against capacity", fit.text, where, lines, "conflict", instead)


def check_working_set(document: Document) -> Iterator[Check]:
    """Cells that may use slower tiers show nothing of them if their working set fits into GPU memory."""
    rooms = document.find("kv_capacity", tier="g1")
    sets: dict[tuple[str, float, str], list[Cell]] = {}
    for cell in document.cells:
        if rooms and cell.load.tiers and (found := _working_set(cell, document)):
            sets.setdefault((cell.experiment, *found), []).append(cell)
    for (_, size, line), cells in sets.items():
        room = rooms[0]
        more = _promised_sets(document, cells[0], room) if size <= room.interval.high else ()
        lines = (*assumption(document), line, *more, f"GPU memory has room for {room.printed} of KV")
        names = ", ".join(cell.name for cell in cells)
        where = tuple(dict.fromkeys((cells[0].section, *sections(room))))
        claim = f"{names}: the working set is {show(size, 'bytes')} at most"
        if size > room.interval.high:
            yield Check("working set against GPU memory", claim, where, lines, cells=len(cells))
            continue
        instead = "GPU memory is smaller or the contexts larger; as it is, these cells differ by the write-back only"
        yield Check("working set against GPU memory", claim, where, lines, "unsupported", instead, len(cells))


def _working_set(cell: Cell, document: Document) -> tuple[float, str] | None:
    """Return the most KV that the contexts of a cell can take, and how it is computed."""
    for size in document.find("workload_bytes"):
        if size.experiment == cell.experiment or size.cell == cell:
            return size.interval.middle, f"the document says {size.printed}"
    load, sizes = cell.load, token_bytes(document)
    if not sizes:
        return None
    line, each = sizes[0]
    for tokens in document.find("workload_tokens"):
        if tokens.experiment == cell.experiment:
            total = tokens.interval.middle * each
            return total, f"{line}; {tokens.printed} = {total / 1e9:.0f} GB"
    contexts = load.distinct_prompts or load.conversations
    if not contexts or not load.prompt_tokens:
        return None
    total = contexts * load.prompt_tokens * each
    return total, f"{line}; {contexts} contexts x {load.prompt_tokens:,} tokens = {total / 1e9:.1f} GB at most"


def _promised_sets(document: Document, cell: Cell, room: Figure) -> tuple[str, ...]:
    """Say for promised concurrencies without a row whether they would have overflowed GPU memory."""
    tested = {one.load.concurrency for one in document.cells}
    lines, sizes = [], token_bytes(document)
    for count in {one.concurrency for one in document.claims.promises} - tested:
        if count and cell.load.prompt_tokens and sizes:
            total = count * cell.load.prompt_tokens * sizes[0][1]
            word = "overflows it" if total > room.interval.high else "fits too"
            lines.append(f"concurrency {count}, which has no row, would take {total / 1e9:.0f} GB and {word}")
    return tuple(lines)
