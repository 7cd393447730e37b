"""Formats figures as text: a value in its unit, its interval, or the word that stands in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from kvbench.units import format_count, format_duration, format_rate, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kvbench.analysis.summary_types import Summary
    from kvbench.report.table import Cell, Unit

_T = TypeVar("_T")

NOTHING = "\N{EN DASH}"
DASH = "\N{EN DASH}"
SPACE = "\N{NO-BREAK SPACE}"

_SHORT_WORDS = {"no difference shown": "none shown", "too few rounds": "too few", "cannot be compared": "not compared"}


# -- numbers -----------------------------------------------------------------------------------------------------------


def three_digits(value: float) -> str:
    """Write a number with three significant digits, zeros at the end too, and without an exponent: 1 to "1.00"."""
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"


def ratio(value: float) -> str:
    """Write a ratio with three significant digits: 55.93 to "55.9x"; with three decimals just above 1: "1.049x"."""
    return f"{value:.3f}x" if 1 < value < 1.1995 else f"{three_digits(value)}x"


def percent(share: float) -> str:
    """Write a share with three significant digits: 0.6249 to "62.5 %"; only what is all of it is "100 %"."""
    for digits in range(3, 9):
        text = f"{float(f'{share * 100:.{digits}g}'):.{digits}g}"
        if text != "100" or share == 1:
            break
    return f"{text}{SPACE}%"


def signed_percent(change: float) -> str:
    """Write a change with its sign and one decimal: 0.1694 to "+16.9 %"; what rounds to nothing has a plus."""
    return f"{round(change * 100, 1) + 0.0:+.1f}{SPACE}%"


def duration(seconds: float) -> str:
    """Write seconds as a person reads them; a difference of two clocks may be below zero."""
    return f"-{format_duration(-seconds)}" if seconds < 0 else format_duration(seconds)


def difference(value: float, reference: float) -> str:
    """Write by how much a value lies above a reference, in percent of the reference."""
    if value == reference:
        return "equal"
    return f"{(value / reference - 1) * 100:+.2f}{SPACE}%" if reference else "reference is 0"


def shown(value: _T | None, form: Callable[[_T], str], missing: str = NOTHING) -> str:
    """Write a figure, or say that there is none."""
    return missing if value is None else form(value)


def _plain(value: float) -> str:
    """Write a rate with three digits, thousands and millions shortened: 12345 to "12.3k"."""
    for size, prefix in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{three_digits(value / (1e3 if prefix == 'k' else size))}{prefix}"
    return three_digits(value) if value else "0"


_FORMS: dict[Unit, Callable[[float], str]] = {
    "s": duration,
    "1/s": _plain,
    "tokens/s": _plain,
    "bytes/s": format_rate,
    "bytes": format_size,
    "share": percent,
    "change": signed_percent,
    "ratio": ratio,
    "number": three_digits,
    "fraction": "{:.4f}".format,
    "count": "{:,}".format,
    "tokens": "{:,}".format,
    "length": lambda value: format_count(int(value)),
}


def value_text(unit: Unit, value: float | str | None) -> str:
    """Write a value in its unit: 0.0242 s to "24.2 ms", a share to "62.5 %", a rate to three digits."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return moment(value) if unit == "moment" else value
    return _FORMS[unit](value) if unit in _FORMS else str(value)


# -- cells -------------------------------------------------------------------------------------------------------------


def cell_text(unit: Unit, cell: Cell) -> str:
    """Write a cell without its interval: its own words, its value, or why there is none."""
    if cell.text is not None:
        return cell.text
    return value_text(unit, cell.value) if cell.value is not None else cell.refusal or NOTHING


def interval_text(unit: Unit, cell: Cell) -> str:
    """Write a cell's interval, its upper bound alone, or why its value has none: "n=4 < 5", "prompts repeat".

    Nothing where rounds are too few: their number stands at the head of a table, once.
    """
    if cell.value is None or isinstance(cell.value, str):
        return ""
    if cell.high is None:
        reason = bare_refusal(cell.refusal or "")
        return "" if reason.startswith("rounds=") else reason.rpartition(", ")[2]
    high = _end_text(unit, cell.high)
    if cell.low is None:
        return f"\N{LESS-THAN OR EQUAL TO} {high}"
    if cell.low == cell.high:
        return "no spread"
    number, name = _without_unit(_end_text(unit, cell.low))
    if name and not high.endswith(name):
        number += name
    return f"{number.removesuffix('x') if high.endswith('x') else number}{DASH}{high}"


def with_interval(text: str, interval: str) -> str:
    """Write value and interval in one line, the unit once where they share it: "72.4 ms (72.0-73.1)"."""
    name = "x" if text.endswith("x") else _without_unit(text)[1]
    if name and interval.count(name) == 1 and interval.endswith(name):
        low, dash, _ = interval.partition(DASH)
        if not dash or " " not in low:
            interval = interval.removesuffix(name)
    return f"{text} ({interval})" if interval else text


def _without_unit(text: str) -> tuple[str, str]:
    """Part "72.4 ms" into "72.4" and " ms"; what is no number with one unit has none."""
    place = max(text.find(" "), text.find(SPACE))
    name = text[place:] if place > 0 else ""
    return (text[:place], name) if name and " " not in name[1:] else (text, "")


def _end_text(unit: Unit, value: float) -> str:
    """Write an end of an interval: as a value, but minutes in seconds, where "1 min 27 s" would hide the spread."""
    return f"{three_digits(value)} s" if unit == "s" and value >= 60 else value_text(unit, value)


def bare_refusal(refusal: str) -> str:
    """Take the brackets off a refusal, for a place that is in brackets or small print itself."""
    return refusal.removeprefix("n/a (").removesuffix(")") if refusal.startswith("n/a (") else refusal


# -- words -------------------------------------------------------------------------------------------------------------


def short_word(word: str) -> str:
    """Shorten what may be said for a narrow column: "within 5 %", "none shown" for no difference, "too few" rounds."""
    if word.startswith("equivalent "):
        return word.removeprefix("equivalent ")
    return _SHORT_WORDS.get(word, word)


def length_text(isl: int | None) -> str:
    """Write a prompt length; an import with too many or unknown lengths has one row for all of them."""
    return "all" if isl is None else format_count(isl)


def turn_text(turn: int | None) -> str:
    """Write a turn counted from 1; an older scenario may have given one length to several."""
    return "several" if turn is None else str(turn + 1)


def moment(text: str | None) -> str:
    """Shorten an ISO moment to whole seconds: "2025-11-21 20:14:05"; imports may lack it."""
    return "not told" if text is None else text[:19].replace("T", " ")


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: 1 to "1 round", 3 to "3 rounds"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def failures_text(failures: Mapping[str, int]) -> str:
    """Write failed requests by cause: "2 timeout, 1 refused"; "0" where none failed."""
    return ", ".join(f"{count} {cause}" for cause, count in failures.items()) or "0"


def tiers_text(tiers: Mapping[str, int]) -> str:
    """Write the share of each tier, the largest first; a tier and its share stay on one line."""
    total = sum(tiers.values())
    ordered = sorted(tiers.items(), key=lambda item: -item[1])
    return ", ".join(f"{tier}{SPACE}{percent(count / total)}" for tier, count in ordered)


def marked(name: str, summary: Summary) -> str:
    """Return a treatment's name, with "(!)" if its own verdict is suspect; all of an import is, and has no marks."""
    is_suspect = summary.imported is None and summary.treatments[name].verdict == "suspect"
    return f"{name} (!)" if is_suspect else name


def mark_note(summary: Summary) -> tuple[str, ...]:
    """Explain the mark of `marked`; nothing where no treatment has it."""
    is_used = any(marked(name, summary) != name for name in summary.treatments)
    return ("(!) suspect: the verdict says why.",) if is_used else ()


def scale_note(summary: Summary) -> tuple[str, ...]:
    """Say what times and rates are, where a scale model was measured."""
    return ("Times and rates are those of the scale model.",) if summary.scale else ()


def word_mark(word: str) -> str:
    """Return the sign for what may be said of a change: none where it is shown to be one."""
    marks = {"no difference shown": "?", "too few rounds": "\N{DAGGER}", "faster": "", "slower": ""}
    return marks.get(word, "=")
