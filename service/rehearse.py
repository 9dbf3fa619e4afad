"""What the rules of a site would do with series, without doing it: files, a study of a node, or a
day of a node's studies, of which no pixels are fetched."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from model.errors import InputError

from .arrive.facts import candidate_of, ranked
from .dicom.heads import UnreadableHeadError, read_head
from .domain import Origin
from .pacs.find import FoundSeries, find_series, find_studies
from .settings import Settings
from .site import Candidate, Choice, Node, Site, choose, decide
from .uploads import Upload, open_upload

NOTHING = "(no rule)"


@dataclass(frozen=True)
class Rehearsed:
    """One study and what would become of each of its series. ``Choice.key`` is the series' UID."""

    study_uid: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Taking:
    """What one rule, or none, takes: how many series match it first, how many of them would be
    segmented, of how many studies."""

    rule: str
    series: int
    segmented: int
    studies: int


@dataclass(frozen=True)
class Sender:
    """How the series are taken to come."""

    origin: Origin = Origin.DIMSE
    ae_title: str = ""


def of_files(
    settings: Settings, site: Site, paths: Sequence[Path], sender: Sender
) -> tuple[Rehearsed, ...]:
    """Of DICOM files, folders of them, or one zip; ranked as they would be. Raises ``InputError``
    for what holds no DICOM."""
    with tempfile.TemporaryDirectory(prefix="aqcf-") as name:
        opened = open_upload(Upload(tuple(paths)), Path(name), settings)
        if opened.kind != "dicom":
            raise InputError("rules are for DICOM; this is NIfTI", code="not_dicom")
        studies = _sorted(opened.files)
        if not studies:
            raise InputError("none of the files has a readable DICOM header", code="not_dicom")
        return tuple(
            _of_series(settings, site, uid, series, sender) for uid, series in studies.items()
        )


def of_study(
    settings: Settings, site: Site, node: str, study_uid: str, sender: Sender
) -> tuple[Rehearsed, ...]:
    """Of a study that a node has. Raises ``InputError`` (``unknown_node``, ``invalid_uid``,
    ``nothing_to_pull``), ``PacsUnavailableError``, ``PacsRefusedError``."""
    found = find_series(node_of(site, node), study_uid, calling=settings.ae_title)
    if not found:
        raise InputError(f"{node} has no such study", code="nothing_to_pull")
    return (_of_found(site, study_uid, found, sender),)


def of_days(
    settings: Settings,
    site: Site,
    node: str,
    date: str,
    sender: Sender,
    modality: str | None = None,
) -> tuple[Rehearsed, ...]:
    """Of all studies of a day or of some days (``YYYYMMDD-YYYYMMDD``) of a node. Raises as
    ``of_study``, and ``InputError`` (``invalid_date``)."""
    place, calling = node_of(site, node), settings.ae_title
    studies = find_studies(place, date, modality, calling=calling)
    return tuple(
        _of_found(site, uid, find_series(place, uid, calling=calling), sender) for uid in studies
    )


def summary(site: Site, studies: Iterable[Rehearsed]) -> tuple[Taking, ...]:
    """A line for every rule of the site, in its order, and one for what no rule takes."""
    series, segmented, of_studies = Counter[str](), Counter[str](), Counter[str]()
    for study in studies:
        names = [choice.decision.rule or NOTHING for choice in study.choices]
        series.update(names)
        of_studies.update(set(names))
        segmented.update(
            name for name, choice in zip(names, study.choices, strict=True) if choice.chosen
        )
    rules = [*(rule.name for rule in site.rules), NOTHING]
    return tuple(Taking(name, series[name], segmented[name], of_studies[name]) for name in rules)


def as_json(site: Site, studies: Sequence[Rehearsed], *, show_uids: bool = False) -> dict[str, Any]:
    """Everything as JSON types; UIDs as ``shortened`` unless ``show_uids``."""
    shown = str if show_uids else shortened
    return {
        "studies": [
            {
                "study": shown(study.study_uid),
                "series": [_choice_json(choice, shown(choice.key)) for choice in study.choices],
            }
            for study in studies
        ],
        "summary": [asdict(line) for line in summary(site, studies)],
    }


def shortened(uid: str) -> str:
    """Tells series of one table apart, and is no UID."""
    return hashlib.sha256(uid.encode()).hexdigest()[:8]


def node_of(site: Site, name: str) -> Node:
    """Raises ``InputError`` (``unknown_node``)."""
    if name not in site.nodes:
        known = ", ".join(site.nodes) or "none"
        raise InputError(
            f"{name!r} is no node of the site file; there are: {known}", code="unknown_node"
        )
    return site.nodes[name]


def _sorted(files: Iterable[Path]) -> dict[str, dict[str, list[Path]]]:
    """Files by study and series UID; what has no readable header is left out."""
    studies: dict[str, dict[str, list[Path]]] = {}
    for file in files:
        try:
            head = read_head(file)
        except UnreadableHeadError:
            continue
        studies.setdefault(head.study_uid, {}).setdefault(head.series_uid, []).append(file)
    return studies


def _of_series(
    settings: Settings,
    site: Site,
    study_uid: str,
    series: Mapping[str, list[Path]],
    sender: Sender,
) -> Rehearsed:
    candidates = []
    for uid, files in series.items():
        one = candidate_of(uid, files, sender.ae_title, settings)
        taken = decide(site, one.facts, sender.origin).taken and one.problem is None
        candidates.append(ranked(one, files, settings) if taken else one)
    return Rehearsed(study_uid, choose(site, candidates, sender.origin))


def _of_found(
    site: Site, study_uid: str, found: Sequence[FoundSeries], sender: Sender
) -> Rehearsed:
    candidates = [Candidate(one.uid, replace(one.facts, ae_title=sender.ae_title)) for one in found]
    return Rehearsed(study_uid, choose(site, candidates, sender.origin))


def _choice_json(choice: Choice, shown: str) -> dict[str, Any]:
    return {
        "series": shown,
        "facts": asdict(choice.facts),
        "rule": choice.decision.rule,
        "chosen": choice.chosen,
        "why": choice.why,
        "considered": [one._asdict() for one in choice.decision.considered],
    }
