"""The report: a page that needs nothing else, and the same as JSON."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Final

from .pictures import pictures
from .records import Check, Report, Trial, Verdict

PAGE: Final = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """``acceptance-DATE-TIME.html`` and ``.json`` in ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"acceptance-{report.at:%Y%m%d-%H%M%S}"
    page, data = folder / f"{stem}.html", folder / f"{stem}.json"
    page.write_text(as_page(report), encoding="utf-8")
    data.write_text(json.dumps(as_json(report), indent=2) + "\n", encoding="utf-8")
    return page, data


def as_json(report: Report) -> dict[str, Any]:
    """JSON types. UIDs are of phantoms only."""
    return {
        "passed": report.passed,
        "at": report.at.isoformat(timespec="seconds"),
        "seconds": round(report.seconds, 3),
        "facts": dict(report.facts),
        "checks": [asdict(check) for check in report.checks],
        "phantoms": [_trial_json(trial) for trial in report.trials],
        "studies": list(report.studies),
        "remains": report.remains,
    }


def as_page(report: Report) -> str:
    """HTML without scripts and without anything from elsewhere."""
    verdict = Verdict.PASS if report.passed else Verdict.FAIL
    return PAGE.substitute(
        verdict=verdict,
        badge=_badge(verdict),
        at=f"{report.at:%Y-%m-%d %H:%M:%S %z}",
        summary=escape(_summary(report)),
        facts="".join(_row(name, value) for name, value in _facts(report)),
        overview="".join(map(_line, report.trials)),
        checks=_checks(report.checks),
        cases="".join(map(_case, report.trials)),
    )


def _summary(report: Report) -> str:
    count = {one: sum(trial.verdict is one for trial in report.trials) for one in Verdict}
    odd = sum(not check.ok for check in report.checks)
    words = [f"{count[Verdict.PASS]} phantoms passed", f"{count[Verdict.FAIL]} failed"]
    words += [f"{count[Verdict.SKIPPED]} skipped"] if count[Verdict.SKIPPED] else []
    words += [f"{odd} of the other checks failed"] if odd else []
    return ", ".join(words) + f"; {report.seconds:.0f} s"


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    yield from report.facts
    yield "what lies in the archive now", report.remains
    yield "studies", ", ".join(report.studies)


def _row(name: str, value: str) -> str:
    return f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>\n"


def _line(trial: Trial) -> str:
    failed = [check.name for check in trial.checks if not check.ok]
    why = trial.skipped or ", ".join(failed)
    total = sum(trial.seconds.values()) - trial.seconds.get("all results fetched", 0.0)
    cells = (
        f'<a href="#{trial.name}">{trial.name}</a>',
        escape(trial.written.phantom.what),
        _badge(trial.verdict),
        escape(why),
        f"{total:.1f}",
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"


def _case(trial: Trial) -> str:
    phantom = trial.written.phantom
    images = "".join(
        f'<img src="{uri}" alt="{phantom.name}, {where}">'
        for uri, where in zip(pictures(trial), ("one slice", "across the slices"), strict=True)
    )
    if trial.skipped:
        body = f"<p>Not tried: {escape(trial.skipped)}</p>"
    else:
        notes = "".join(f"<p>{escape(note)}</p>" for note in trial.notes)
        times = ", ".join(f"{name} {value:.2f}" for name, value in trial.seconds.items())
        body = f"{notes}{_checks(trial.checks)}<p>Seconds: {escape(times)}</p>"
    return (
        f'<section id="{phantom.name}"><h2>{phantom.name} {_badge(trial.verdict)}</h2>'
        f"<p>{escape(phantom.what)}; {_geometry(trial)}</p>"
        f'<div class="case"><div class="pictures">{images}</div><div>{body}</div></div></section>\n'
    )


def _geometry(trial: Trial) -> str:
    stack = trial.written.phantom.stack
    slices, rows, columns = stack.shape
    z, y, x = stack.spacing_mm
    return f"{slices} slices of {rows} x {columns}; {z:g} x {y:g} x {x:g} mm"


def _checks(checks: Iterable[Check]) -> str:
    rows = "".join(
        f"<tr><td>{_badge(Verdict.PASS if check.ok else Verdict.FAIL)}</td>"
        f"<td>{escape(check.name)}</td><td>{escape(check.found)}</td>"
        f"<td>{escape(check.expected)}</td></tr>\n"
        for check in checks
    )
    head = "<tr><th></th><th>check</th><th>found</th><th>expected</th></tr>"
    return f'<table class="checks">{head}{rows}</table>'


def _badge(verdict: Verdict) -> str:
    return f'<span class="{verdict.lower()}">{verdict}</span>'


def _trial_json(trial: Trial) -> dict[str, Any]:
    written = trial.written
    return {
        "name": trial.name,
        "what": written.phantom.what,
        "verdict": trial.verdict,
        "skipped": trial.skipped or None,
        "segmentation": trial.job.id if trial.job else None,
        "series": written.series,
        "seconds": {name: round(value, 3) for name, value in trial.seconds.items()},
        "notes": trial.notes,
        "checks": [asdict(check) for check in trial.checks],
    }
