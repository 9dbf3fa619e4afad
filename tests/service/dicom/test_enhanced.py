"""Enhanced multi-frame CT and MR, legacy converted ones, and concatenations."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_peers import dcmqi_mask
from dicom_phantoms import ROOT, Grid, Recipe, body, labels, write_enhanced
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.spec import LIVER_LABEL, TUMOUR_LABEL
from service.dicom.errors import DicomInputError
from service.dicom.pixels import LoadedSeries, load
from service.dicom.proof import prove
from service.dicom.seg import Algorithm, build_seg, to_bytes
from service.dicom.series import choose, scan

GRID = Grid()
VALUES = body(GRID)
MR = Recipe(modality="MR", intercept=0)
CT = Recipe(modality="CT")
LABELS = (LIVER_LABEL, TUMOUR_LABEL)


def loaded(paths: Sequence[Path], modality: str) -> LoadedSeries:
    return load(choose(scan(paths, modality))[0])  # type: ignore[arg-type]


def seg_of(case: LoadedSeries) -> Dataset:
    """The SEG of what the phantom stands for, proved."""
    mask = case.mask_to_native(labels(case.volume.array))
    seg = build_seg(case.series, mask, LABELS, Algorithm("a", "1"), "key")
    prove(to_bytes(seg), case.series, mask)
    return seg


def named(seg: Dataset) -> list[tuple[str, int]]:
    """Instance and frame number that each frame of a SEG refers to."""
    sources = [
        frame.DerivationImageSequence[0].SourceImageSequence[0]
        for frame in seg.PerFrameFunctionalGroupsSequence
    ]
    return [(str(s.ReferencedSOPInstanceUID), int(s.ReferencedFrameNumber)) for s in sources]


@pytest.mark.parametrize(("recipe", "modality"), [(CT, "ct"), (MR, "mr")])
@pytest.mark.parametrize("tilt", [0.0, 18.0])
def test_one_image_of_many_frames(
    tmp_path: Path, recipe: Recipe, modality: str, tilt: float
) -> None:
    grid = replace(GRID, tilt=tilt)
    path = write_enhanced(tmp_path / "a", [VALUES], grid, recipe)
    case = loaded([path], modality)
    assert np.array_equal(case.volume.array, VALUES)
    assert np.allclose(case.volume.affine, grid.affine)
    seg = seg_of(case)
    assert {frame for _, frame in named(seg)} == {
        k + 1 for k in np.flatnonzero((VALUES > 0).any(axis=(1, 2)))
    }


@pytest.mark.parametrize(
    "sop_class", ["1.2.840.10008.5.1.4.1.1.2.2", "1.2.840.10008.5.1.4.1.1.4.4"]
)
def test_legacy_converted_keeps_its_attributes_per_frame(tmp_path: Path, sop_class: str) -> None:
    """What tells its stacks apart is among the unassigned attributes of each frame."""
    ct = ".2.2" in sop_class
    recipe = CT if ct else MR

    def unassigned(item: Dataset, stack: int, index: int) -> None:
        del item.FrameContentSequence
        item.UnassignedPerFrameConvertedAttributesSequence = [Dataset()]
        item.UnassignedPerFrameConvertedAttributesSequence[0].AcquisitionNumber = stack + 4

    def legacy(dataset: Dataset, index: int) -> None:
        dataset.SOPClassUID = sop_class

    path = write_enhanced(
        tmp_path / "a", [VALUES, VALUES + 1], GRID, replace(recipe, edit=legacy), unassigned
    )
    found = scan([path], "ct" if ct else "mr")
    assert [series.notes for series in found.series] == [
        ("split by acquisition number: 1 of 2",),
        ("split by acquisition number: 2 of 2",),
    ]
    assert [int(load(series).volume.array.max()) for series in found.series] == [100, 101]


def test_the_seg_of_one_phase_names_the_frames_of_that_phase(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "a", [VALUES, VALUES + 1, VALUES], GRID)
    found = scan([path], "mr")
    assert [series.notes[0] for series in found.series] == [
        f"split by temporal position: {k} of 3" for k in (1, 2, 3)
    ]
    third = load(found.series[2])
    held = np.flatnonzero((VALUES > 0).any(axis=(1, 2)))
    assert {frame for _, frame in named(seg_of(third))} == {3 * k + 3 for k in held}


def effective_echo(item: Dataset, stack: int) -> None:
    item.MREchoSequence = [Dataset()]
    item.MREchoSequence[0].EffectiveEchoTime = 2.3 * (stack + 1)


def b_value(item: Dataset, stack: int) -> None:
    item.MRDiffusionSequence = [Dataset()]
    item.MRDiffusionSequence[0].DiffusionBValue = 400.0 * stack


def inversion(item: Dataset, stack: int) -> None:
    item.MRModifierSequence = [Dataset()]
    item.MRModifierSequence[0].InversionTimes = 100.0 * (stack + 1)


def offset_in_time(item: Dataset, stack: int) -> None:
    item.TemporalPositionSequence = [Dataset()]
    item.TemporalPositionSequence[0].TemporalPositionTimeOffset = 20.0 * stack


def contrast(item: Dataset, stack: int) -> None:
    item.ContrastBolusUsageSequence = [Dataset()]
    item.ContrastBolusUsageSequence[0].ContrastBolusAgentPhase = ("ARTERIAL", "PORTAL_VENOUS")[
        stack
    ]


def frame_type(item: Dataset, stack: int) -> None:
    item.MRImageFrameTypeSequence = [Dataset()]
    item.MRImageFrameTypeSequence[0].FrameType = [
        "DERIVED", "PRIMARY", "DIXON", ("FAT", "WATER")[stack],
    ]  # fmt: skip


def dimension(item: Dataset, stack: int) -> None:
    item.FrameContentSequence = [Dataset()]
    item.FrameContentSequence[0].DimensionIndexValues = [stack + 1, 1]


@pytest.mark.parametrize(
    ("differ", "note"),
    [
        (effective_echo, "split by echo time: 4.6 ms, 2 of 2"),
        (b_value, "split by b-value: 400 s/mm2, 2 of 2"),
        (inversion, "split by inversion time: 200 ms, 2 of 2"),
        (offset_in_time, "split by temporal position: 20 s, 2 of 2"),
        (contrast, "split by contrast phase: portal venous, 2 of 2"),
        (frame_type, "split by image type: water"),
        (dimension, "split by dimension 1: 2 of 2"),
    ],
)
def test_what_differs_lies_in_the_functional_groups(
    tmp_path: Path, differ: Callable[[Dataset, int], None], note: str
) -> None:
    def edit(item: Dataset, stack: int, index: int) -> None:
        del item.FrameContentSequence
        differ(item, stack)

    path = write_enhanced(tmp_path / "a", [VALUES, VALUES + 1], GRID, MR, edit)
    found = scan([path], "mr")
    assert [int(load(series).volume.array.max()) for series in found.series] == [100, 101]
    assert found.series[1].notes[0] == note


@pytest.mark.parametrize("gap", [62.0, 20.0])
def test_two_stacks_of_one_orientation(tmp_path: Path, gap: float) -> None:
    """Two slabs, apart or overlapping by half a slice: stacks, not a stack with a hole."""
    paths = []
    for stack, shift in enumerate((0.0, gap + 2.4)):
        grid = replace(GRID, centre=(0.0, 0.0, shift))

        def edit(item: Dataset, _: int, index: int, stack: int = stack) -> None:
            item.FrameContentSequence[0].StackID = str(stack + 1)

        def own(dataset: Dataset, index: int, stack: int = stack) -> None:
            dataset.SOPInstanceUID += f".{stack}"

        recipe = replace(MR, edit=own)
        paths.append(write_enhanced(tmp_path / str(stack), [VALUES + stack], grid, recipe, edit))
    found = scan(paths, "mr")
    assert [(s.code, s.notes[0]) for s in found.series] == [
        (None, "split by stack: 1 of 2"),
        (None, "split by stack: 2 of 2"),
    ]
    assert [int(load(series).volume.array.max()) for series in found.series] == [100, 101]


def test_stacks_that_turn_are_split_by_orientation(tmp_path: Path) -> None:
    paths = []
    for stack, orientation in enumerate(((1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1))):
        grid = replace(GRID, orientation=orientation)

        def own(dataset: Dataset, index: int, stack: int = stack) -> None:
            dataset.SOPInstanceUID += f".{stack}"

        path = tmp_path / str(stack)
        paths.append(write_enhanced(path, [body(grid)], grid, replace(MR, edit=own)))
    found = scan(paths, "mr")
    assert {series.notes for series in found.series} == {("split by orientation",)}
    assert abs(choose(found)[0].usable_grid().axes[2, 2]) == pytest.approx(1.0)


def test_instances_that_are_stacks_of_their_own(tmp_path: Path) -> None:
    """A multi-frame instance per phase, and nothing in them that tells the phases apart."""
    paths = []
    for phase in range(3):

        def own(dataset: Dataset, index: int, phase: int = phase) -> None:
            dataset.SOPInstanceUID += f".{phase}"
            dataset.InstanceNumber = phase + 1

        recipe = replace(CT, edit=own)
        paths.append(write_enhanced(tmp_path / str(phase), [VALUES + phase], GRID, recipe))
    found = scan(paths[::-1], "ct")
    assert [int(load(series).volume.array.max()) for series in found.series] == [100, 101, 102]
    assert found.series[0].notes == ("split by multi-frame instance: 1 of 3",)


def test_rescale_differs_from_frame_to_frame(tmp_path: Path) -> None:
    def edit(item: Dataset, stack: int, index: int) -> None:
        transformation = item.PixelValueTransformationSequence[0]
        transformation.RescaleSlope, transformation.RescaleIntercept = index + 1, -10 * index

    path = write_enhanced(tmp_path / "a", [VALUES], GRID, MR, edit)
    array = loaded([path], "mr").volume.array
    factors = np.arange(len(VALUES)).reshape(-1, 1, 1)
    assert np.array_equal(array, VALUES * (factors + 1) - 10 * factors)


def test_optional_macros_may_lack(tmp_path: Path) -> None:
    """No frame content, no pixel value transformation, no thickness: the image is there."""

    def edit(item: Dataset, stack: int, index: int) -> None:
        del item.FrameContentSequence, item.PixelValueTransformationSequence

    def bare(dataset: Dataset, index: int) -> None:
        del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness
        del dataset.ImageType

    path = write_enhanced(tmp_path / "a", [VALUES], GRID, replace(MR, edit=bare), edit)
    case = loaded([path], "mr")
    assert np.array_equal(case.volume.array, VALUES)
    assert case.series.notes == ()
    seg = seg_of(case)
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SpacingBetweenSlices == pytest.approx(5.0)


# Concatenations.


def in_parts(
    folder: Path, sizes: Sequence[int], recipe: Recipe, drop: Sequence[str] = ()
) -> list[Path]:
    """One multi-frame image cut into several instances, frames in their order. ``drop``: optional
    attributes to leave out."""
    folder.mkdir(exist_ok=True)
    whole = dcmread(write_enhanced(folder / "whole", [VALUES], GRID, recipe))
    (folder / "whole").unlink()
    items = list(whole.PerFrameFunctionalGroupsSequence)
    frame_bytes = len(whole.PixelData) // len(items)
    paths, start = [], 0
    for number, size in enumerate(sizes, start=1):
        part = deepcopy(whole)
        part.SOPInstanceUID = part.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.77.{number}"
        part.ConcatenationUID = f"{ROOT}.77"
        part.InConcatenationNumber, part.InConcatenationTotalNumber = number, len(sizes)
        part.ConcatenationFrameOffsetNumber = start
        part.SOPInstanceUIDOfConcatenationSource = whole.SOPInstanceUID
        part.NumberOfFrames = size
        part.PerFrameFunctionalGroupsSequence = items[start : start + size]
        part.PixelData = whole.PixelData[start * frame_bytes : (start + size) * frame_bytes]
        for keyword in drop:
            del part[keyword]
        path = folder / f"part{number}"
        part.save_as(path, enforce_file_format=True)
        paths.append(path)
        start += size
    return paths


@pytest.mark.parametrize(("recipe", "modality"), [(CT, "ct"), (MR, "mr")])
@pytest.mark.parametrize("sizes", [(3, 3, 2), (7, 1)])
def test_a_concatenation_is_put_together(
    tmp_path: Path, recipe: Recipe, modality: str, sizes: tuple[int, ...]
) -> None:
    paths = in_parts(tmp_path / "in", sizes, recipe)
    case = loaded(paths[::-1], modality)
    assert np.array_equal(case.volume.array, VALUES)
    assert case.series.notes == (f"a multi-frame image put together from {len(sizes)} parts",)
    seg = seg_of(case)
    # A part is an instance of its own: frames are counted within it.
    ends = np.cumsum(sizes)
    expected = set()
    for k in np.flatnonzero((VALUES > 0).any(axis=(1, 2))):
        part = int(np.searchsorted(ends, k, side="right"))
        expected.add((f"{ROOT}.77.{part + 1}", int(k - (ends[part] - sizes[part]) + 1)))
    assert set(named(seg)) == expected
    (tmp_path / "seg.dcm").write_bytes(to_bytes(seg))
    theirs = dcmqi_mask(tmp_path / "seg.dcm", tmp_path / "out", case.native)
    assert np.array_equal(theirs, labels(VALUES))


def test_a_part_sent_twice_does_no_harm(tmp_path: Path) -> None:
    paths = in_parts(tmp_path / "in", (4, 4), MR)
    again = tmp_path / "again"
    again.write_bytes(paths[1].read_bytes())
    case = loaded([*paths, again], "mr")
    assert np.array_equal(case.volume.array, VALUES)
    assert any("4 images sent twice" in note for note in case.series.notes)


@pytest.mark.parametrize("drop", [(), ("InConcatenationTotalNumber",)])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lacking_part_is_told(tmp_path: Path, lost: int, drop: tuple[str, ...]) -> None:
    paths = in_parts(tmp_path / "in", (3, 2, 3), MR, drop)
    del paths[lost]
    if lost == 2 and drop:  # nothing in the headers says that there was one more
        assert loaded(paths, "mr").native.slices == 5
        return
    with pytest.raises(DicomInputError) as caught:
        choose(scan(paths, "mr"))
    assert caught.value.code == "incomplete_concatenation"
    if not drop:
        assert caught.value.message.endswith("2 of 3 are here")
