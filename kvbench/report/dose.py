"""What neighbours cost, for readers: sentences, the terminal's tables, and the page's tables.

A throughput loss and a time increase are always named, because they are different numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.doses import MOST_DRAW
from kvbench.report import published_dose
from kvbench.report.grid import NOTHING, SPACE, Cell, Column, Grid, Line, line, shown, three_digits
from kvbench.report.published_dose import share
from kvbench.units import format_duration, format_rate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    Doses = dict[str, Any]

_WIDE = 114  # characters that the whole table takes
_TOLD = 0.05  # a change of one or two rounds that is smaller is not told as one
_PACED = 0.97  # of what was asked; less is marked
_DASH = "\N{EN DASH}"
_UNITS = (("GB/s", 1e9), ("MB/s", 1e6), ("kB/s", 1e3))


# -- sentences ---------------------------------------------------------------------------------------------------------


def answers(summary: dict[str, Any]) -> list[str]:
    """Return for each load what it cost, at the level nearest to the published dose; nothing without neighbours."""
    levels = nearest(summary["doses"]) if summary["doses"] else []
    return [_answer(one, _word(summary, one["treatment"])) for one in levels]


def _word(summary: dict[str, Any], treatment: str) -> str:
    """Return what may be said of a treatment's request rate, all comparisons of the result corrected for together."""
    found = summary["treatments"][treatment]["comparisons"].get("requests_per_s")
    return str(found["word"]) if found else ""


def nearest(doses: Doses) -> list[dict[str, Any]]:
    """Return of each load the level with a figure whose delivered share is nearest to the published dose."""
    found = []
    for load in dict.fromkeys(one["load"] for one in doses["levels"]):
        own = [one for one in doses["levels"] if one["load"] == load and one["throughput_loss"]["value"] is not None]
        paced = [one for one in own if not one["unlimited"]] or own
        if paced:
            found.append(min(paced, key=lambda one: abs((one["of_capacity"] or 0.0) - published_dose.the_dose())))
    return found


def _answer(level: dict[str, Any], word: str) -> str:
    rate = format_rate(level["delivered_bytes_per_s"]["mean"] or 0.0)
    loss, time = level["throughput_loss"], level["time_increase"]
    start, facts = f"With {rate} delivered by neighbours", []
    if level["of_capacity"] is not None:
        of = "what they reach alone" if level["capacity"]["source"] == "calibrated" else "the bottleneck's capacity"
        start, facts = f"At {100 * level['of_capacity']:.0f}{SPACE}% of {of} delivered by neighbours", [rate]
    rounds = f"{loss['rounds']} rounds" if loss["rounds"] > 1 else "one round"
    who = f"{rounds} of {level['treatment']}, {level['generator']} on {level['hosts']} side clients"
    if loss["low"] is not None and word not in ("slower", "faster"):
        is_same = word.startswith("equivalent")
        said = f"throughput is {word} to that of" if is_same else "no difference in throughput is shown from that of"
        facts += [f"95{SPACE}% interval of the loss {_between(loss)}", who]
        return f"{start}, {said} {level['quiet']} ({'; '.join(facts)})."
    if loss["low"] is None and abs(loss["value"]) < _TOLD:
        said = f"throughput differs by {_absolute(loss['value'])} from that of {level['quiet']}"
        return f"{start}, {said}, too little for so few rounds ({'; '.join([*facts, who])})."
    verb, longer = ("fell", "longer") if loss["value"] >= 0 else ("rose", "less long")
    took = f", i.e. the same work took {_absolute(time['value'])} {longer}" if time["value"] is not None else ""
    if loss["low"] is not None:
        ends = f" and {_between(time, _sign(time))}" if time["low"] is not None else ""
        facts.append(f"95{SPACE}% intervals {_between(loss, _sign(loss))}{ends}")
    return f"{start}, throughput {verb} by {_absolute(loss['value'])}{took} ({'; '.join([*facts, who])})."


def _absolute(value: float) -> str:
    return share(abs(value))


def _sign(figure: dict[str, Any]) -> int:
    return 1 if figure["value"] >= 0 else -1


def _between(figure: dict[str, Any], sign: int = 1) -> str:
    ends = sorted((sign * figure["low"], sign * figure["high"]))
    return f"{100 * ends[0] + 0.0:.1f} to {100 * ends[1] + 0.0:.1f}{SPACE}%"


def setting(doses: Doses) -> list[str]:
    """Return what stands beside the figures: the bottleneck, and whether the quiet load was bound by it."""
    made = doses["bottleneck"]
    if made is None:
        told = ["No bottleneck was made: shares of capacity are of what the neighbours reach alone."]
        return [*told, "Without a bottleneck of known capacity no share can be expected."]
    rate = format_rate(made["bytes_per_s"])
    if made["how"] is None:
        lead = f"No bottleneck of {rate} could be made: {made['reason']}."
        return [f"{lead} On the bare storage the levels cannot be told apart, and no share can be expected."]
    payload = doses["limit_bytes_per_s"]
    headers = f", {format_rate(payload)} of it payload" if payload != made["bytes_per_s"] else ""
    kind = {"disk": "disk reads", "link": "the link"}[made["kind"]]
    lead = f"The bottleneck is emulated: {kind} of this machine limited to {rate}{headers} ({made['how']})."
    lead += " It stands for no product; shares may carry over, rates do not."
    return [lead, *(_quiet_sentence(name, one) for name, one in doses["quiet"].items()), *_passed(doses)]


def _quiet_sentence(name: str, quiet: dict[str, Any]) -> str:
    if quiet["of_limit"] is None:
        return f"{name} has no KV rate, so it is not known whether storage bound it."
    drew = f"{name} drew {share(quiet['of_limit'])} of it undisturbed"
    if quiet["of_limit"] > MOST_DRAW:
        length = (
            f"{drew} in {format_duration(quiet['window_s'])}: what a limit lets pass at once weighs in so short a time"
        )
        return f"{length}, and shares are not judged. Send more requests."
    if quiet["storage_bound"]:
        return f"{drew}, so storage bound the load."
    return f"{drew}, less than 95{SPACE}%: the experiment was not bound by storage, and shares are not judged."


def _passed(doses: Doses) -> Iterator[str]:
    found = [one["passed_over_limit"] for one in doses["levels"] if one["passed_over_limit"] is not None]
    if found:
        ends = " to ".join(dict.fromkeys((share(min(found)), share(max(found)))))
        yield f"KV and neighbours together passed {ends} of the limit; capacity is the larger of limit and quiet draw."


def troubles(doses: Doses) -> list[str]:
    """Return the hosts that were lost, and the tries that were broken off for it."""
    told = [f"{one['run_id']}, try {one['try']} broken off: {one['why']}" for one in doses["attempts"]]
    for one in doses["lost"]:
        ending = "the run counts" if one["used"] else "the run is left out"
        told.append(f"{one['run_id']}: {one['host']} was lost ({one['why']}); {ending}")
    return told


def agreement(level: dict[str, Any]) -> str:
    """Say in few words whether the measured share is the expected one."""
    words = {"shown": "within 10 %", "mean": "mean within 10 %", "no": "differs"}
    return words.get(level["agreement"], "not judged")


# -- the terminal ------------------------------------------------------------------------------------------------------


def dose_tables(summary: dict[str, Any], width: int) -> Iterator[Table]:
    """Yield one row for each level: in one table, or in two where the terminal is narrow."""
    doses = summary["doses"]
    unit, scale = _unit(doses)
    delivered = ["asked", "de-\nlivered", "of\nasked", "of ca-\npacity"]
    effect = ["req/s", "through-\nput lost", "time\nmore", "KV", "KV of quiet\n[95 % interval]", "expec-\nted"]
    ends = ["verdicts", "n"]
    halves = ([*delivered, *ends], effect)
    rows = list(_rows(doses, scale))
    title = f"Neighbours: what they delivered, and what it cost (rates in {unit}, shares and changes in %)"
    if width >= _WIDE:
        yield _table(title, [*delivered, *effect, *ends], [(name, [*a, *b, *c]) for name, a, b, c in rows])
        return
    yield _table(title, halves[0], [(name, [*a, *c]) for name, a, _, c in rows])
    yield _table(f"Neighbours: the load against its quiet partner (rates in {unit}, rest in %)", halves[1],
                 [(name, b) for name, _, b, _ in rows])  # fmt: skip


def print_doses(summary: dict[str, Any], console: Console) -> None:
    """Print the tables and the sentences that belong to them."""
    for table in dose_tables(summary, console.width):
        console.print(table)
    for text in (*setting(summary["doses"]), *troubles(summary["doses"])):
        console.print(Text(text.replace(SPACE, " "), style="dim"))
    console.print()


def _table(title: str, headings: list[str], rows: list[tuple[str, list[str]]]) -> Table:
    room = 0 if len(headings) > 8 else 1
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, room, 0, 0), pad_edge=False)
    table.add_column("treatment", overflow="fold", min_width=min(17, max(len(name) for name, _ in rows)))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, cells in rows:
        table.add_row(Text(name), *map(Text, cells))
    return table


def _unit(doses: Doses) -> tuple[str, float]:
    """Return one unit for all rates of a table, so that they can be read against one another."""
    rates = [one["delivered_bytes_per_s"]["mean"] or 0.0 for one in doses["levels"]]
    rates += [one["kv_bytes_per_s"]["mean"] or 0.0 for one in doses["quiet"].values()]
    return next((unit for unit in _UNITS if max(rates) >= 2 * unit[1]), _UNITS[-1])


def _rows(doses: Doses, scale: float) -> Iterator[tuple[str, list[str], list[str], list[str]]]:
    def rate(value: float | None) -> str:
        return shown(value, lambda known: three_digits(known / scale) if known else "0", "-")

    for name, one in doses["quiet"].items():
        effect = [_count(one["requests_per_s"]["mean"]), "", "", rate(one["kv_bytes_per_s"]["mean"]), "100", ""]
        yield name, ["-", "0", "", ""], effect, [_verdicts(one, "\n"), str(one["requests_per_s"]["n"])]
    for one in doses["levels"]:
        asked = "unlimited" if one["unlimited"] else rate(one["asked_bytes_per_s"])
        delivered = [asked, rate(one["delivered_bytes_per_s"]["mean"]), *map(_percent, _doses_of(one))]
        effect = [
            _count(one["requests_per_s"]["mean"]),
            _percent(one["throughput_loss"]["value"]),
            _percent(one["time_increase"]["value"]),
            rate(one["kv_bytes_per_s"]["mean"]),
            _with_interval(one["kv_share"]),
            _percent(one["expected_share"]),
        ]
        yield one["treatment"], delivered, effect, [_verdicts(one, "\n"), str(one["throughput_loss"]["rounds"])]


def _doses_of(level: dict[str, Any]) -> tuple[float | None, float | None]:
    return level["delivered_over_asked"], level["of_capacity"]


def _count(value: float | None) -> str:
    return shown(value, three_digits, "-")


def _percent(value: float | None) -> str:
    return shown(value, lambda known: f"{100 * known + 0.0:.1f}", "-")


def _with_interval(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "-"
    value = f"{100 * figure['value']:.1f}"
    return value if figure["low"] is None else f"{value} [{100 * figure['low']:.1f}{_DASH}{100 * figure['high']:.1f}]"


def _verdicts(one: dict[str, Any], between: str = ", ") -> str:
    return between.join(f"{count} {word}" for word, count in one["verdicts"].items()) or "no run yet"


# -- the page ----------------------------------------------------------------------------------------------------------


def doses_grid(doses: Doses) -> Grid:
    """Give one row for each level: what was asked, and what was delivered, with its range below."""
    headings = ("Asked", "Delivered", "Of asked", "Of capacity", "Passed together", "Of the limit")
    columns = (Column("Treatment", "text"), *map(Column, headings), Column("Starts within"), Column("Stops within"))
    columns += (Column("Runs", "text"),)
    lines = []
    for name, one in doses["quiet"].items():
        drew = [_rate_text(one["kv_bytes_per_s"]["mean"]), shown(one["of_limit"], share)]
        cells = ["nothing", "0", NOTHING, NOTHING, *drew, NOTHING, NOTHING, _verdicts(one)]
        lines.append(line(Cell(name, "quiet", "key"), *cells))
    return Grid(columns, (*lines, *map(_dose_line, doses["levels"])))


def _dose_line(one: dict[str, Any]) -> Line:
    asked = "unlimited" if one["unlimited"] else _rate_text(one["asked_bytes_per_s"])
    short = one["delivered_over_asked"] is not None and one["delivered_over_asked"] < _PACED
    target = f"{one['target']} of alone" if one["calibrated_bytes_per_s"] and not one["unlimited"] else ""
    return line(
        Cell(one["treatment"], f"{one['load']}: {one['generator'] or 'no used run'}", "key"),
        Cell(asked, target),
        _rate_cell(one["delivered_bytes_per_s"]),
        Cell(shown(one["delivered_over_asked"], share), mark="suspect" if short else ""),
        Cell(shown(one["of_capacity"], share), f"of {one['capacity']['source']}" if one["capacity"] else "", "key"),
        _rate_text(one["passed_bytes_per_s"]),
        shown(one["passed_over_limit"], share),
        shown(one["course"]["start_skew_s"], format_duration),
        shown(one["course"]["stop_s"], format_duration),
        Cell(_verdicts(one), mark="" if one["runs_used"] else "invalid"),
    )


def effects_grid(doses: Doses) -> Grid:
    """Give one row for each level: what it cost against the quiet partner, below each change its interval."""
    headings = ("Requests/s", "Throughput loss", "Time increase", "KV delivered", "KV share of quiet", "Expected share")
    columns = (Column("Treatment", "text"), *map(Column, headings), Column("TTFT P50"), Column("TTFT P95"))
    lines = []
    for name, one in doses["quiet"].items():
        rate, draw = _count(one["requests_per_s"]["mean"]), _rate_cell(one["kv_bytes_per_s"])
        lines.append(line(Cell(name, mark="key"), rate, NOTHING, NOTHING, draw, f"100{SPACE}%", *[NOTHING] * 3))
    return Grid(columns, (*lines, *map(_effect_line, doses["levels"])))


def _effect_line(one: dict[str, Any]) -> Line:
    expected = Cell(NOTHING, one["unjudged"] or "", "quiet")
    if one["expected_share"] is not None:
        mark = "suspect" if one["agreement"] == "no" else ""
        expected = Cell(share(one["expected_share"]), one["unjudged"] or agreement(one), mark)
    rounds = one["throughput_loss"]["rounds"]
    return line(
        Cell(one["treatment"], f"{rounds} round{'' if rounds == 1 else 's'}", "key"),
        _count(one["requests_per_s"]["mean"]),
        _change_cell(one["throughput_loss"]),
        _change_cell(one["time_increase"]),
        _rate_cell(one["kv_bytes_per_s"]),
        _change_cell(one["kv_share"]),
        expected,
        _change_cell(one["ttft_p50_increase"], signed=True),
        _change_cell(one["ttft_p95_increase"], signed=True),
    )


def _rate_text(value: float | None) -> str:
    return shown(value, format_rate)


def _rate_cell(figure: dict[str, Any]) -> Cell:
    """Show a mean over rounds with its range below, the unit once where both ends share it."""
    if figure["mean"] is None:
        return Cell(NOTHING)
    low, high = (format_rate(figure[key]) for key in ("least", "most"))
    if low.split(" ")[1] == high.split(" ")[1]:
        low = low.split(" ")[0]
    below = f"{low}{_DASH}{high}" if low != high.split(" ")[0] else ""
    return Cell(format_rate(figure["mean"]), below.replace(" ", SPACE))


def _change_cell(figure: dict[str, Any], *, signed: bool = False) -> Cell:
    if figure["value"] is None:
        return Cell(NOTHING, (figure["refusal"] or "").removeprefix("n/a (").removesuffix(")"), "quiet")
    text = share(figure["value"])
    interval = _between(figure) if figure["low"] is not None else "no interval"
    interval = interval if interval.startswith("-") else interval.replace(" to ", _DASH)
    return Cell(f"+{text}" if signed and figure["value"] > 0 else text, interval, "key")


def hosts_grid(doses: Doses) -> Grid:
    """Give one row for each side client of each level, over all used runs."""
    headings = ("Runs", "Delivered", "Least coverage", "Clock error", "Its device counted")
    columns = (Column("Treatment", "text"), Column("Side client"), *map(Column, headings))
    columns += (
        Column("Device", "text"),
        Column("O_DIRECT", "text"),
        Column("Scheduler", "text"),
        Column("Generator", "text"),
    )
    lines, before = [], None
    for one in doses["hosts"]:
        first, before = one["treatment"] != before, one["treatment"]
        known = [str(one[key] or "not known") for key in ("direct", "scheduler", "version")]
        lines.append(
            line(
                Cell(one["treatment"], mark="key") if first else Cell(""),
                one["host"],
                str(one["runs"]),
                shown(one["delivered_bytes_per_s"], format_rate),
                shown(one["coverage"], share),
                shown(one["clock_error_s"], format_duration),
                _rate_text(one["device_bytes_per_s"]),
                one["device"] + (", shared" if one["device_shared_with_server"] else ""),
                *known,
                mark="begin" if first else "",
            )
        )
    return Grid(columns, tuple(lines))
