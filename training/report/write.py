"""The report of a study, from its folder."""

import json
from pathlib import Path

from .as_html import to_html
from .as_markdown import to_markdown
from .blocks import Document
from .figures import box_figure, curve_figures, forget_figures, overlay_figures
from .head import cases_table, head, runs_table
from .numbers import numbers
from .statistics import statistics
from .study import Study, read_study
from .tables import ablation_table, comparison_tables, external_tables, gate_table

REPORT, PICTURES = "report", "pictures"
HTML, MARKDOWN, NUMBERS = "index.html", "report.md", "report.json"


def write_report(study: Path, to: Path | None = None, *, publishable: bool = False) -> Path:
    """Lay a study out as the paper's tables 2 to 7 with figures 4 to 6; returns the HTML page.

    Writes ``index.html``, ``report.md``, ``report.json`` (every number) and ``pictures/`` into
    ``to``, by default ``STUDY/report``. Whatever the study does not hold yet is named with the
    command that makes it. ``publishable``: pictures only of cases whose licence allows it.

    Raises ``ConfigError`` when ``study`` holds no study, ``InputError`` for a file that cannot be
    read.
    """
    found = read_study(study)
    folder = to or study / REPORT
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    forget_figures(folder / PICTURES)
    document = compose(found, folder / PICTURES, publishable=publishable)
    (folder / MARKDOWN).write_text(to_markdown(document), encoding="utf-8")
    text = json.dumps(numbers(found), indent=1, ensure_ascii=False)
    (folder / NUMBERS).write_text(text + "\n", encoding="utf-8")
    (folder / HTML).write_text(to_html(document), encoding="utf-8")
    return folder / HTML


def compose(study: Study, pictures: Path, *, publishable: bool) -> Document:
    """The report from top to bottom; figures are drawn into ``pictures``."""
    blocks = (
        *head(study),
        *comparison_tables(study),
        *box_figure(study, pictures),
        *statistics(study),
        *external_tables(study),
        *overlay_figures(study, pictures, publishable=publishable),
        *gate_table(study),
        *ablation_table(study),
        *curve_figures(study, pictures),
        *runs_table(study),
        *cases_table(study),
    )
    return Document(f"Study {study.plan.name}", blocks)
