"""All that is here of the series of a study, whichever arrival brought it."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..container import Container
from ..dicom.heads import UnreadableHeadError, read_head
from ..domain import Arrival, ArrivalState
from ..errors import NotFoundError
from .files import ArrivalFiles, link, link_all

KEPT = (ArrivalState.FAILED, ArrivalState.SET_ASIDE)
WITH_FILES = (ArrivalState.RECEIVING, *KEPT)


@dataclass(frozen=True)
class Part:
    """A series that is evaluated. ``received``: instances that its own arrival brought.
    ``joined``: ids of arrivals that came to nothing, whose instances are among ``files``."""

    arrival: Arrival
    files: tuple[Path, ...]
    received: int
    joined: tuple[str, ...] = ()


def parts_of(
    container: Container, closed: Iterable[Arrival], earlier: Sequence[Arrival], folder: Path
) -> list[Part]:
    """One part for each closed arrival: its own files and, where some of the series came earlier,
    those too, linked into a folder below ``folder``."""
    return [_part(container, one, _of_series(one, earlier), folder / one.id) for one in closed]


def names_of(container: Container, arrival: Arrival, earlier: Iterable[Arrival]) -> set[str]:
    """One name for each instance of the series that ``parts_of`` would find."""
    files = ArrivalFiles(container.settings.arrivals_dir)
    before = _of_series(arrival, earlier)
    kept = [files.of(one.id) for one in (arrival, *before) if one.state in WITH_FILES]
    names = {file.name for found in kept for file in found}
    return names | {name for _, name in _named(_last_input(container, before))}


def rivals_of(
    container: Container, closed: Iterable[Arrival], earlier: Iterable[Arrival]
) -> dict[str, tuple[Path, ...]]:
    """The stored input of every other series of the study that was submitted, by arrival id."""
    mine = {one.series_uid for one in closed}
    others = {one.series_uid: one for one in earlier if one.series_uid not in mine}
    stored = {one.id: _stored_input(container, one) for one in others.values()}
    return {arrival_id: files for arrival_id, files in stored.items() if files}


def _of_series(arrival: Arrival, earlier: Iterable[Arrival]) -> list[Arrival]:
    return [one for one in earlier if one.series_uid == arrival.series_uid]


def _part(container: Container, arrival: Arrival, before: list[Arrival], folder: Path) -> Part:
    files = ArrivalFiles(container.settings.arrivals_dir)
    own = files.of(arrival.id)
    kept = {one.id: files.of(one.id) for one in before if one.state in KEPT}
    stored = _last_input(container, before)
    if not own or not (stored or any(kept.values())):
        return Part(arrival, own, len(own))
    folder.mkdir(mode=0o700)
    link_all(own, folder)
    for file, name in (*_kept(kept.values()), *_named(stored)):
        if not (folder / name).exists():
            link(file, folder / name)
    return Part(arrival, tuple(sorted(folder.iterdir())), len(own), tuple(kept))


def _kept(folders: Iterable[tuple[Path, ...]]) -> Iterator[tuple[Path, str]]:
    return ((file, file.name) for files in folders for file in files)


def _named(stored: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Files of a job's input under the names that they had as instances."""
    for file in stored:
        try:
            uid = read_head(file).sop_instance_uid
        except UnreadableHeadError:
            continue
        yield file, f"{hashlib.sha256(uid.encode()).hexdigest()}.dcm"


def _last_input(container: Container, before: Iterable[Arrival]) -> tuple[Path, ...]:
    submitted = next((one for one in before if one.job_id), None)
    return _stored_input(container, submitted) if submitted else ()


def _stored_input(container: Container, arrival: Arrival) -> tuple[Path, ...]:
    job = container.jobs.get(arrival.job_id) if arrival.job_id else None
    if job is None:
        return ()
    try:
        return container.artifacts.input_files(job.input_key)
    except NotFoundError:
        return ()
