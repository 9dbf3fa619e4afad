"""Which series an upload holds, what is wrong with each, and which one to use."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from model.types import Modality

from .concatenation import lacking_parts, whole_image
from .errors import DicomInputError, input_error
from .geometry import MIN_SLICES, GateError, NativeGrid, build_grid, sort_planes
from .header import FileRecord, SeriesFacts, read_record
from .phases import phase_of
from .planes import Plane
from .quiet import quiet
from .ranking import rank
from .receipt import ReceiptLine, ReceiptStatus
from .refusals import REASONS, made_up, refused_lines
from .split import Part, merge_kinds, split_by_kind, split_duplicates

DEFAULT_MAX_VOXELS = 1024**3 // 2


class Limits(Protocol):
    """Any settings object that says how many voxels a series may declare."""

    @property
    def max_voxels(self) -> int: ...


@dataclass(frozen=True)
class ScanLimits:
    max_voxels: int = DEFAULT_MAX_VOXELS


@dataclass(frozen=True, eq=False)
class Series:
    """Images that could be one volume. ``key`` is short, stable, and holds no UID. ``instances``
    ascend along the slice normal; ``code`` is ``None`` for a usable series, which has a
    ``grid``."""

    key: str
    modality: Modality
    facts: SeriesFacts
    instances: tuple[Plane, ...]
    grid: NativeGrid | None
    line: ReceiptLine

    @property
    def code(self) -> str | None:
        return self.line.code

    @property
    def notes(self) -> tuple[str, ...]:
        return self.line.notes

    def usable_grid(self) -> NativeGrid:
        """The grid; raises ``DicomInputError`` with the series' own code where it has none."""
        if self.grid is None or self.code is not None:
            raise input_error(self.line.reason or "unusable series", self.code)
        return self.grid


@dataclass(frozen=True)
class SeriesSet:
    """Everything found in one upload."""

    series: tuple[Series, ...]
    receipt: tuple[ReceiptLine, ...]


def scan(paths: Sequence[Path], modality: Modality, limits: Limits | None = None) -> SeriesSet:
    """Read every file's header once and sort the images into series.

    Nothing in a file makes this raise: what cannot be used has a line in the receipt that says
    why. Raises ``OSError`` when a file cannot be opened.
    """
    max_voxels = (limits or ScanLimits()).max_voxels
    with quiet():
        records = [read_record(path, max_voxels) for path in paths]
        found = _series(records, modality, max_voxels)
    lines = (*(series.line for series in found), *refused_lines(records))
    return SeriesSet(found, lines)


def choose(found: SeriesSet, key: str = "auto") -> tuple[Series, tuple[ReceiptLine, ...]]:
    """The series to segment, and the receipt with its line marked ``chosen``.

    ``auto`` takes the best by ``ranking``; another ``key`` that very series. Raises
    ``DicomInputError`` with the receipt: ``unknown_series``; the series' own code when it cannot
    be used; with ``auto``, the one code that explains the whole upload, or ``no_usable_series``.
    """
    chosen = _best(found) if key == "auto" else _by_key(found, key)
    line = replace(chosen.line, status="chosen")
    return chosen, tuple(line if other is chosen.line else other for other in found.receipt)


def _best(found: SeriesSet) -> Series:
    usable = [series for series in found.series if series.code is None]
    if not usable:
        raise _nothing_usable(found)
    return max(usable, key=_preference)


def _by_key(found: SeriesSet, key: str) -> Series:
    series = next((series for series in found.series if series.key == key), None)
    if series is None:
        raise DicomInputError(
            "no series of this upload has the key asked for",
            code="unknown_series",
            receipt=found.receipt,
        )
    if series.code is not None:
        raise input_error(_sentence(series.line), series.code, found.receipt)
    return series


def _nothing_usable(found: SeriesSet) -> DicomInputError:
    """The most specific code: one reason for everything, else that several differ."""
    if not found.receipt:
        return DicomInputError("no files to look at", code="empty_upload")
    looked_at = [line for line in found.receipt if line.key.startswith("s")]
    telling = [line for line in looked_at if line.status == "rejected"] or looked_at
    telling = telling or list(found.receipt)
    codes = {line.code for line in telling}
    if codes == {"localizer"}:
        message = "the upload holds localizers only"
        return DicomInputError(message, code="localizer_only", receipt=found.receipt)
    if len(codes) == 1:
        line = telling[0]
        return input_error(_sentence(line), line.code, found.receipt)
    return DicomInputError(
        f"none of the {len(telling)} series can be used; the receipt says why for each",
        receipt=found.receipt,
    )


def _sentence(line: ReceiptLine) -> str:
    return line.reason or f"the images cannot be used ({line.code})"


def _preference(series: Series) -> tuple[object, ...]:
    grid = series.usable_grid()
    return rank(series.facts, series.instances, grid)


def _series(
    records: Sequence[FileRecord], modality: Modality, max_voxels: int
) -> tuple[Series, ...]:
    groups: dict[tuple[object, ...], list[FileRecord]] = {}
    for record in records:
        if record.facts is not None and record.problem != "not_an_image":
            groups.setdefault(_identity(record.facts), []).append(record)
    gate = _Gate(modality, max_voxels)
    return tuple(
        series
        for number, identity in enumerate(sorted(groups), start=1)
        for series in gate.series(f"s{number}", groups[identity])
    )


def _identity(facts: SeriesFacts) -> tuple[object, ...]:
    """What makes two images one series; sorts the receipt as well. The study too: who takes names
    away may give the series of two patients one UID, or none."""
    fallback = "" if facts.uid else facts.description
    return facts.number, facts.uid, fallback, facts.modality, facts.study_uid


@dataclass(frozen=True)
class _Found:
    """Images that get one line in the receipt, before it has a key."""

    facts: SeriesFacts
    images: int
    size: tuple[int, int] | None
    planes: tuple[Plane, ...] = ()
    grid: NativeGrid | None = None
    code: str | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Gate:
    modality: Modality
    max_voxels: int

    def series(self, key: str, records: list[FileRecord]) -> list[Series]:
        """Everything that shares one SeriesInstanceUID; ``key`` with a letter where it splits."""
        found = self._found(records)
        suffixes = [""] if len(found) == 1 else [letters(i) for i in range(len(found))]
        return [
            self._named(key + suffix, each) for suffix, each in zip(suffixes, found, strict=True)
        ]

    def _named(self, key: str, found: _Found) -> Series:
        line = ReceiptLine(
            key=key,
            modality=found.facts.modality,
            images=found.images,
            rows=found.size[0] if found.size else None,
            columns=found.size[1] if found.size else None,
            spacing_mm=_rounded(found.grid),
            description=found.facts.description,
            status=_status(found),
            code=found.code,
            reason=found.reason,
            notes=found.notes,
        )
        return Series(key, self.modality, found.facts, found.planes, found.grid, line)

    def _found(self, records: list[FileRecord]) -> list[_Found]:
        facts = next(record.facts for record in records if record.facts is not None)
        if facts.modality not in ("", self.modality.upper()):
            return [_refused(facts, records, "wrong_modality", self.modality.upper())]
        scouts = [record for record in records if record.localizer]
        coloured = [r for r in records if r.problem == "colour_image" and not r.localizer]
        images = [r for r in records if not r.localizer and r.problem != "colour_image"]
        found = self._images(facts, images) if images else []
        found += [_refused(facts, coloured, "colour_image")] if coloured else []
        found += [_refused(facts, scouts, "localizer")] if scouts else []
        return found

    def _images(self, facts: SeriesFacts, records: list[FileRecord]) -> list[_Found]:
        problems = sorted({record.problem for record in records if record.problem})
        if problems:
            return [_refused(facts, records, problems[0])]
        if lacking := lacking_parts(records):
            return [_refused(facts, records, "incomplete_concatenation", lacking=lacking)]
        planes = [plane for record in records for plane in record.planes]
        if sum(plane.file.rows * plane.file.columns for plane in planes) > self.max_voxels:
            return [_refused(facts, records, "input_too_large")]
        planes.sort(key=lambda plane: plane.number)
        try:
            parts = merge_kinds(split_by_kind(planes))
        except GateError as error:
            return [_rejected(facts, Part(tuple(planes)), error)]
        told = whole_image(records)
        found = [piece for part in parts for piece in self._part(facts, part.noting(*told))]
        return _phased(found, records)

    def _part(self, facts: SeriesFacts, part: Part) -> list[_Found]:
        try:
            pieces = split_duplicates(part)
        except GateError as error:
            return [_rejected(facts, part, error)]
        return [self._gated(facts, piece) for piece in pieces]

    def _gated(self, facts: SeriesFacts, part: Part) -> _Found:
        try:
            groups = sort_planes(part.planes)
            _check_positions(groups)
            grid, notes = build_grid([group[0] for group in groups])
        except GateError as error:
            return _rejected(facts, part, error)
        size = (grid.rows, grid.columns)
        notes = (*part.notes, *notes, *made_up(facts, part.planes))
        return _Found(facts, len(part.planes), size, part.planes, grid, notes=notes)


def _phased(found: list[_Found], records: Sequence[FileRecord]) -> list[_Found]:
    """Each with the description of its own images, and the contrast phase that headers name.

    One description for several stacks of different times names no phase of any.
    """
    facts = {record.file.path: record.facts for record in records if record.file and record.facts}
    own = [facts[each.planes[0].file.path] for each in found]
    telling = len(found) == 1 or len({each.description for each in own}) > 1
    return [
        replace(
            each,
            facts=replace(each.facts, description=mine.description, phase=phase),
            notes=(*each.notes, f"{phase} phase by its header") if phase else each.notes,
        )
        for each, mine in zip(found, own, strict=True)
        for phase in [phase_of(each.planes[0], mine.description if telling else "")]
    ]


def _check_positions(groups: list[list[Plane]]) -> None:
    if len(groups) >= MIN_SLICES and max(map(len, groups)) > 1:
        raise GateError(
            "duplicate_positions", "several different images lie at one position, untellable apart"
        )
    if len(groups) < MIN_SLICES:
        raise GateError(
            "too_few_slices", f"{len(groups)} slice positions; a volume needs {MIN_SLICES}"
        )


def _status(found: _Found) -> ReceiptStatus:
    if found.code is None:
        return "usable"
    return "set_aside" if found.code == "localizer" else "rejected"


def _rejected(facts: SeriesFacts, part: Part, error: GateError) -> _Found:
    file = part.planes[0].file
    size = (file.rows, file.columns)
    return _Found(
        facts,
        len(part.planes),
        size,
        part.planes,
        code=error.code,
        reason=error.reason,
        notes=part.notes,
    )


def _refused(
    facts: SeriesFacts, records: list[FileRecord], code: str, wanted: str = "", lacking: str = ""
) -> _Found:
    files = [record.file for record in records if record.file is not None]
    size = (files[0].rows, files[0].columns) if files and files[0].rows else None
    reason = REASONS[code] + (f", not {wanted} as asked" if wanted else lacking)
    images = sum(max(len(record.planes), 1) for record in records)
    return _Found(facts, images, size, code=code, reason=reason)


def _rounded(grid: NativeGrid | None) -> tuple[float, float, float] | None:
    if grid is None:
        return None
    z, y, x = grid.spacing_mm
    return round(z, 4), round(y, 4), round(x, 4)


def letters(index: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    return (letters(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)
