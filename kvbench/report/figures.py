"""The figures by prompt length: what was measured, and what stands beside it at full scale and in print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvbench.report.figure_text import bare_refusal, interval_text
from kvbench.report.grid import (
    NOTHING,
    SPACE,
    Cell,
    Column,
    Grid,
    Line,
    length_text,
    line,
    ratio,
    served_cell,
    shown,
    three_digits,
)
from kvbench.report.length_table import turn_text
from kvbench.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvbench.report.material import Material


def measured_grid(material: Material) -> Grid:
    """Give one row for each length and treatment; a cell without a figure says why there is none."""
    compared = _has_comparison(material.summary)
    columns = [
        *_start_columns(material.summary),
        Column("n"),
        Column("Median TTFT"),
        Column("Min to max"),
        Column("P95"),
        Column("P99"),
        Column("Served from", "text"),
    ]
    columns += [Column("Speed-up, and what may be said")] if compared else []
    lines = [_measured_line(material, row, name, compared=compared) for row, name in _places(material)]
    return Grid(tuple(columns), tuple(lines))


def _has_comparison(summary: dict[str, Any]) -> bool:
    return any(base is not None for base in summary["baselines"].values())


def _places(material: Material) -> Iterator[tuple[dict[str, Any], str]]:
    for row in material.summary["lengths"]:
        for name in row["cells"]:
            yield row, name


def _start_columns(summary: dict[str, Any]) -> list[Column]:
    turn = [Column("Turn")] if summary["turns"] else []
    return [Column("Prompt tokens"), *turn, Column("Treatment", "name")]


def _start(row: dict[str, Any], name: str, summary: dict[str, Any]) -> tuple[list[Cell | str], str]:
    """Give the first cells of a row, the length stronger where a new one begins, and the row's mark."""
    first = name == next(iter(row["cells"]))
    turn = [Cell(turn_text(row["turn"]), mark="quiet")] if summary["turns"] else []
    length = Cell(length_text(row["isl"]), mark="key" if first else "quiet")
    return [length, *turn, name], "begin" if first else ""


def _measured_line(material: Material, row: dict[str, Any], name: str, *, compared: bool) -> Line:
    cell = row["cells"][name]
    start, mark = _start(row, name, material.summary)
    if cell["median_s"] is None:
        reason = Cell("nothing proven" if cell["unproven"] else _why_empty(material, name), mark="invalid")
        figures: list[Cell | str] = [reason, NOTHING, NOTHING, NOTHING, NOTHING]
    else:
        spread = f"{format_duration(cell['min_s'])} to {format_duration(cell['max_s'])}"
        median = Cell(format_duration(cell["median_s"]), _interval(cell["ttft"]["p50"]), "key")
        tails = [_tail_cell(cell["ttft"][name]) for name in ("p95", "p99")]
        figures = [median, spread, *tails, served_cell(cell["tiers"])]
    if compared:
        figures.append(_speed_up_cell(cell, is_baseline=material.summary["baselines"][name] is None))
    return line(*start, _count_cell(material, row, name), *figures, mark=mark)


def _count_cell(material: Material, row: dict[str, Any], name: str) -> Cell:
    """Show n, and beside it the planned number where some requests are missing, failed, or of an invalid run."""
    n, planned = row["cells"][name]["n"], material.planned(name, row["isl"])
    return Cell(str(n)) if n == planned else Cell(f"{n} of {planned}", mark="suspect")


def _why_empty(material: Material, name: str) -> str:
    runs = material.runs_of(name)
    if not runs:
        return "no run is done yet"
    return "no valid run" if all(run["word"] == "invalid" for run in runs) else "no request answered"


def _tail_cell(figure: dict[str, Any]) -> Cell:
    """Show a percentile with its interval, or why n supports none."""
    if figure["value"] is None:
        return Cell(bare_refusal(figure["refusal"] or NOTHING).replace(" ", SPACE), mark="quiet")
    return Cell(format_duration(figure["value"]), _interval(figure))


def _interval(figure: dict[str, Any]) -> str:
    return interval_text("s", figure).replace(" ", SPACE)


def _speed_up_cell(cell: dict[str, Any], *, is_baseline: bool) -> Cell:
    """Show a speed-up, below it its interval or the range that was seen, and what may be said of it."""
    found, rounds = cell["comparison"], cell["speed_up_rounds"]
    if is_baseline or found is None:
        return Cell("baseline" if is_baseline else "no shared round", mark="quiet")
    ends, seen = (found["low"], found["high"]), ""
    if found["low"] is None:
        ends, seen = (found["least"], found["most"]), " seen"
    span = f"{ratio(ends[0])} to {ratio(ends[1])}{seen}\n" if not seen or rounds > 1 else ""
    return Cell(ratio(found["ratio"]), f"{span}{found['word']}, {rounds} round{'s' if rounds > 1 else ''}", "key")


# -- beside the published figures -------------------------------------------------------------------------------------


def published_grid(material: Material) -> Grid | None:
    """Put full-scale equivalents and published figures beside the measured ones; None where there is neither."""
    summary = material.summary
    scale, publication = summary["scale"], summary["published"]
    if not scale and not publication:
        return None
    columns = [*_start_columns(summary), Column("Measured median")]
    columns += [Column(f"Full-scale equivalent (x {scale['time']:g})")] if scale else []
    columns += [Column("Published"), Column("", "text"), Column("Measured / published")] if publication else []
    if _has_comparison(summary):
        columns += [Column("Speed-up, measured")]
        columns += [Column("Speed-up, printed")] if publication else []
        columns += [Column("Recompute / load")] if has_load_ratio(summary) else []
    lines = [_published_line(row, name, summary) for row, name in _places(material)]
    return Grid(tuple(columns), tuple(lines))


def has_load_ratio(summary: dict[str, Any]) -> bool:
    """Tell whether recompute over load is known anywhere: only where requests were out one at a time."""
    return any(cell["recompute_over_load"] for row in summary["lengths"] for cell in row["cells"].values())


def _published_line(row: dict[str, Any], name: str, summary: dict[str, Any]) -> Line:
    cell = row["cells"][name]
    start, mark = _start(row, name, summary)
    values: list[Cell | str] = [shown(cell["median_s"], format_duration, "no figure")]
    if summary["scale"]:
        values.append(Cell(shown(cell["full_scale_median_s"], format_duration), mark="scaled"))
    if summary["published"]:
        values.append(Cell(shown(cell["published_s"], format_duration), mark="published"))
        values.append(Cell(cell["published_kind"] or "none", mark="quiet"))
        values.append(shown(cell["published_ratio"], three_digits))
    if _has_comparison(summary):
        values += _compared_cells(row, name, summary)
    return line(*start, *values, mark=mark)


def _compared_cells(row: dict[str, Any], name: str, summary: dict[str, Any]) -> list[Cell | str]:
    cell = row["cells"][name]
    values: list[Cell | str] = [shown(cell["speed_up"], ratio)]
    if summary["published"]:
        other = summary["baselines"][name] is None or cell["published_s"] is None
        printed = None if other else row["published_speed_up"]
        values.append(Cell(shown(printed, "{:g}x".format), mark="published"))
    return [*values, shown(cell["recompute_over_load"], three_digits)] if has_load_ratio(summary) else values
