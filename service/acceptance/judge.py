"""A SEG that came back against the phantom that was sent: frame by frame, voxel by voxel.

Nothing here asks the code that wrote it: places come from the frames' own geometry, as a viewer
takes them.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from model.types import MaskArray

from ..dicom.algorithm import TEST
from ..dicom.errors import SegMismatchError
from ..dicom.segread import SegFrame, seg_frames
from ..domain import Outcome
from ..phantoms import PATIENT_ID
from .records import Trial
from .write import Source, Written

NEAR_MM = 1e-3
NEAR_COSINE = 1e-4
AXES = ("from slice to slice", "down the rows", "along the columns")


def judge_seg(trial: Trial, segs: Sequence[Dataset]) -> Dataset | None:
    """Every check of a trial's SEG; gives the one SEG, if it is one. Sets ``trial.returned``."""
    trial.check("one SEG", len(segs) == 1, _count(len(segs), "SEG"), "1 SEG")
    if not segs:
        return None
    seg, written = segs[0], trial.written
    _check_identity(trial, seg)
    _check_grid(trial, seg)
    try:
        frames = list(seg_frames(seg))
    except (SegMismatchError, ValueError, AttributeError, IndexError) as error:
        trial.check("decodes", False, f"the SEG cannot be decoded ({type(error).__name__})")
        return seg
    placed = _check_places(trial, frames)
    if all(frame.pixels.shape == written.phantom.stack.shape[1:] for frame in frames):
        trial.returned = _mask(written, placed)
        _check_mask(trial, trial.returned)
    return seg


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number else f"no {what} in the archive"


def _check_identity(trial: Trial, seg: Dataset) -> None:
    """Patient, study, source series, space, and that it says what it is."""
    written = trial.written
    said = str(seg.get("SeriesDescription", ""))
    trial.check("says that it is a test", said.startswith(TEST), said or "nothing", TEST.strip())
    references = seg.get("ReferencedSeriesSequence", ())
    same = {
        "patient": PATIENT_ID in str(seg.get("PatientID", "")),
        "study": seg.get("StudyInstanceUID") == written.study,
        "series": [str(one.SeriesInstanceUID) for one in references] == [written.series],
        "frame of reference": seg.get("FrameOfReferenceUID") == written.frame_of_reference,
    }
    odd = [name for name, ok in same.items() if not ok]
    trial.check("belongs to the phantom", not odd, f"another {', '.join(odd)}" if odd else "yes",
                "same patient, study, series and frame of reference")  # fmt: skip


def _check_grid(trial: Trial, seg: Dataset) -> None:
    """Rows, columns, orientation, pixel spacing: the source's, not recomputed ones."""
    stack = trial.written.phantom.stack
    shared = seg.SharedFunctionalGroupsSequence[0]
    size = (int(seg.Rows), int(seg.Columns))
    cosines = _shared(shared, "PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = _shared(shared, "PixelMeasuresSequence", "PixelSpacing")
    off = _off(cosines, stack.orientation)
    ok = size == stack.shape[1:] and off < NEAR_COSINE
    ok = ok and _off(spacing, stack.spacing_mm[1:]) < NEAR_MM
    found = f"{size[0]} x {size[1]}, {_numbers(spacing)} mm, directions off by {off:.1g}"
    expected = f"{stack.shape[1]} x {stack.shape[2]}, {_numbers(stack.spacing_mm[1:])} mm"
    trial.check("lies on the phantom's grid", ok, found, expected)


def _shared(shared: Dataset, sequence: str, keyword: str) -> tuple[float, ...]:
    items = shared.get(sequence)
    values: Any = items[0].get(keyword) if items else None
    return tuple(float(value) for value in values or ())


def _off(found: Sequence[float], expected: Sequence[float]) -> float:
    if len(found) != len(expected):
        return float("inf")
    return float(np.abs(np.subtract(found, expected, dtype=np.float64)).max())


def _numbers(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values) or "none"


def _check_places(trial: Trial, frames: Sequence[SegFrame]) -> list[tuple[int, SegFrame]]:
    """Where each frame lies, and whether it names the slice that lies there."""
    sources = trial.written.sources
    places = np.array([source.position for source in sources])
    placed: list[tuple[int, SegFrame]] = []
    named = 0
    for frame in frames:
        position = _shared(frame.item, "PlanePositionSequence", "ImagePositionPatient")
        distance = np.abs(places - position).max(axis=1) if len(position) == 3 else np.ones(1)
        if distance.min() < NEAR_MM:
            index = int(distance.argmin())
            placed.append((index, frame))
            named += _names(frame.item, sources[index])
    count = len(frames)
    trial.check("frames lie on slices", len(placed) == count, f"{len(placed)} of {count}",
                f"{count} of {count}")  # fmt: skip
    trial.check("frames name their slice", named == count, f"{named} of {count}",
                f"{count} of {count}")  # fmt: skip
    return placed


def _names(item: Dataset, source: Source) -> bool:
    """DerivationImageSequence > SourceImageSequence (PS3.3 C.7.6.16.2.6)."""
    derivations = item.get("DerivationImageSequence", ())
    named = [(str(one.ReferencedSOPInstanceUID), one.get("ReferencedFrameNumber"))
             for each in derivations for one in each.get("SourceImageSequence", ())]  # fmt: skip
    return named == [(source.instance, source.frame)]


def _mask(written: Written, placed: Sequence[tuple[int, SegFrame]]) -> MaskArray:
    mask: MaskArray = np.zeros(written.phantom.stack.shape, np.uint8)
    for index, frame in placed:
        mask[index][frame.pixels] = frame.number
    return mask


def _check_mask(trial: Trial, found: MaskArray) -> None:
    phantom = trial.written.phantom
    expected = phantom.scene.mask
    if phantom.outcome is Outcome.NOT_EVALUABLE:
        expected = np.zeros_like(expected)
    compared = phantom.scene.edge >= phantom.edge_mm
    wrong = (found != expected) & compared
    count, total = int(wrong.sum()), int(compared.sum())
    left = int((~compared).sum())
    text = f"{count} of {total} voxels differ"
    if count:
        slices = int(wrong.any(axis=(1, 2)).sum())
        text += f", in {slices} of {len(wrong)} slices{_diagnosis(found, expected)}"
    edge = f"; {left} within {phantom.edge_mm:g} mm of a surface are not compared" if left else ""
    trial.check("mask", count == 0, text + edge, "0 differ")
    _check_voxels(trial, found, expected)


def _check_voxels(trial: Trial, found: MaskArray, expected: MaskArray) -> None:
    """Volumes of both segments, from the voxels that came back."""
    phantom = trial.written.phantom
    voxel_ml, scene = phantom.stack.voxel_ml, phantom.scene
    surfaces = (("liver", 1, scene.liver_edge), ("tumour", 2, scene.tumour_edge))
    for name, least, edge in surfaces:
        got, wanted = (volume_ml(mask >= least, voxel_ml) for mask in (found, expected))
        room = tolerance_ml(wanted, volume_ml(edge < phantom.edge_mm, voxel_ml))
        trial.check(f"{name} in the SEG", abs(got - wanted) <= room, f"{got:.2f} ml",
                    f"{wanted:.2f} ml ± {room:.2f}")  # fmt: skip


def volume_ml(mask: NDArray[np.bool_], voxel_ml: NDArray[np.float64]) -> float:
    return float(mask.sum(axis=(1, 2)) @ voxel_ml)


def tolerance_ml(volume: float, near: float) -> float:
    """Rounding, and all that lies nearer to a surface than resampling is exact, on one side."""
    return 0.001 * volume + near / 2


def _diagnosis(found: MaskArray, expected: MaskArray) -> str:
    """What would make it right, where that is a flip or a shift of a few voxels."""
    best = min(_candidates(found), key=lambda one: int((one[1] != expected).sum()))
    before, after = ((mask != expected).sum() for mask in (found, best[1]))
    return f"; it looks {best[0]}" if best[0] and after < before / 4 else ""


def _candidates(found: MaskArray) -> Iterator[tuple[str, MaskArray]]:
    for flips in product((False, True), repeat=3):
        axes = [axis for axis in range(3) if flips[axis]]
        names = " and ".join(AXES[axis] for axis in axes)
        yield (f"mirrored {names}" if axes else ""), np.flip(found, tuple(axes))
    for axis, step in product(range(3), (-3, -2, -1, 1, 2, 3)):
        moved = np.roll(found, -step, axis)
        yield f"shifted by {step:+d} {AXES[axis]}", moved
