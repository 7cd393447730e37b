"""Writes the report as one HTML page without outside files, and as PDF.

    result folder -> report input -> answer, tables, plots -> template -> HTML -> PDF

Everything shown comes from the result folder; the same folder gives the same HTML, byte for byte.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from kvbench import __version__
from kvbench.errors import StorageError
from kvbench.report import answer, audit, neighbors, reasons, remarks
from kvbench.report.plots.registry import PLOT_SECTIONS, plots_of
from kvbench.report.render.to_html import to_html
from kvbench.report.tables import client_error, imported, open_loop, setup, steps
from kvbench.report.tables.registry import SECTIONS, tables_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kvbench.report.plots.registry import DrawnPlot
    from kvbench.report.report_input import ReportInput
    from kvbench.report.table import Table


def write_report(inputs: Sequence[ReportInput], out: Path, *, html: bool, pdf: bool) -> list[Path]:
    """Write `<scenario>.html` and `<scenario>.pdf` for each result, both from the same page; return what was written.

    Raises:
        StorageError: the folder `out` cannot be made or written.

    """
    written = []
    for name, one in zip(_file_names(inputs), inputs, strict=True):
        page = render(one)
        if html:
            written.append(_write(out / f"{name}.html", page.encode()))
        if pdf:
            written.append(_write(out / f"{name}.pdf", to_pdf(page)))
    return written


def render(given: ReportInput) -> str:
    """Fill the template."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kvbench.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2").render(**_content(given))


def _content(given: ReportInput) -> dict[str, Any]:
    """Return what the template shows, section by section."""
    summary = given.summary
    file, command, overrides = setup.reproduction(given)
    return {
        "version": __version__,
        "summary": summary,
        "answers": answer.answers(summary),
        "asked": setup.asked(given),
        "done": setup.complete_text(summary),
        "reasons": reasons.grouped_reasons(summary),
        "owners_text": reasons.owners_text,
        "tables": {section: [_shown(table) for table in tables_of(given, section=section)] for section in SECTIONS},
        "plots": {section: [_drawn(plot) for plot in plots_of(given, section)] for section in PLOT_SECTIONS},
        "remarks": [*remarks.comparison_sentences(summary), *open_loop.sentences(summary)],
        "odd_steps": steps.has_odd_steps(summary),
        "client_error": client_error.sentence(summary),
        "audit": audit.section(given),
        "neighbor_setting": neighbors.setting(summary.neighbors) if summary.neighbors else [],
        "neighbor_troubles": neighbors.troubles(summary.neighbors) if summary.neighbors else [],
        "fact_groups": setup.groups(given),
        "origin": imported.origin(summary) if summary.imported is not None else None,
        "missing": imported.missing(summary),
        "scenario_text": given.scenario_text,
        "scenario_file": file,
        "command": command,
        "overrides": overrides,
    }


def _drawn(plot: DrawnPlot) -> dict[str, Any]:
    """Return a plot as the template shows it."""
    return {"title": plot.title, "caption": plot.caption, "svg": Markup(plot.svg)}  # noqa: S704 - our own SVG


def _shown(table: Table) -> dict[str, Any]:
    """Return a table as the template shows it."""
    return {"title": table.title, "notes": " ".join(table.notes), "html": Markup(to_html(table))}  # noqa: S704 - escaped


def to_pdf(page: str) -> bytes:
    """Lay the page out on A4."""
    import weasyprint  # noqa: PLC0415 - heavy, and only a PDF needs it

    content: bytes = weasyprint.HTML(string=page, url_fetcher=_refuse_url).write_pdf()
    return content


def _refuse_url(url: str) -> dict[str, Any]:
    raise ValueError(f"a report refers to nothing outside itself, not to {url}")


def _file_names(read: Sequence[ReportInput]) -> list[str]:
    """Name each file by its scenario, by its result folder too where that is not enough."""
    scenarios = Counter(one.summary.scenario for one in read)
    names: list[str] = []
    for one in read:
        scenario, folder = one.summary.scenario, one.summary.result
        name = scenario if scenarios[scenario] == 1 else f"{scenario}-{folder}"
        again = names.count(name)
        names.append(name if not again else f"{name}-{again + 1}")
    return names


def _write(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as fault:
        reason = (fault.strerror or str(fault)).lower()
        raise StorageError(
            f"cannot write {path}: {reason}", "Choose a folder that you may write, with --out DIR."
        ) from (fault)
    return path
