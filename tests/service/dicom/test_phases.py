"""Several scans under one SeriesInstanceUID, as scanners of four makers write them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from dicom_phantoms import Grid, Recipe, body, write_series
from pydicom.dataset import Dataset

from service.dicom.phases import contrast_phase, split_note
from service.dicom.pixels import load
from service.dicom.series import SeriesSet, choose, scan

GRID = Grid(shape=(8, 24, 28))
VALUES = body(GRID)
SLICES = len(VALUES)

Edit = Callable[[Dataset, int, int], None]
"""Changes slice ``index`` of phase ``phase``: ``edit(dataset, phase, index)``."""


def scanned(
    folder: Path,
    count: int,
    edit: Edit,
    modality: str = "MR",
    shifts: Sequence[float] | None = None,
    slices: Sequence[range] | None = None,
) -> list[Path]:
    """``count`` scans of one object under one series UID; the k-th is brighter by k. ``shifts``:
    mm along z; ``slices``: which of the grid's each scan has."""
    paths = []
    for phase in range(count):

        def change(dataset: Dataset, index: int, phase: int = phase) -> None:
            dataset.SOPInstanceUID += f".{phase + 1}"
            dataset.InstanceNumber = phase * SLICES + index + 1
            edit(dataset, phase, index)

        kept = range(SLICES) if slices is None else slices[phase]
        recipe = Recipe(
            modality=modality,
            intercept=0 if modality == "MR" else -1024,
            prefix=chr(ord("A") + phase),
            edit=change,
            skip=frozenset(range(SLICES)).difference(kept),
            positions=None if shifts is None else [5.0 * k + shifts[phase] for k in range(SLICES)],
        )
        paths += write_series(folder, VALUES + phase, GRID, recipe)
    return paths


def brightness(found: SeriesSet) -> list[set[int]]:
    """By series, the scans that its slices come from: one each, or they are mixed."""
    return [
        {int(v) - 100 for v in np.unique(load(series).volume.array) if v >= 100}
        for series in found.series
    ]


def separate(paths: list[Path], count: int, modality: str = "mr") -> SeriesSet:
    """The upload, in which every scan is a series of its own, complete and unmixed."""
    found = scan(paths[::-1], modality)  # type: ignore[arg-type]
    assert [series.code for series in found.series] == [None] * count
    assert brightness(found) == [{k} for k in range(count)]
    return found


def notes(found: SeriesSet) -> list[tuple[str, ...]]:
    return [series.notes for series in found.series]


def seconds(start: str, after: float) -> str:
    """A DICOM time so many seconds after ``HHMMSS``."""
    total = int(start[:2]) * 3600 + int(start[2:4]) * 60 + int(start[4:]) + after
    return f"{int(total // 3600):02d}{int(total // 60 % 60):02d}{total % 60:09.6f}"


# Dynamic contrast MR: four phases.


def siemens_dynamic(dataset: Dataset, phase: int, index: int) -> None:
    """VIBE: one acquisition number and time per phase, content times image by image."""
    dataset.Manufacturer = "SIEMENS"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]
    dataset.AcquisitionNumber = phase + 1
    dataset.AcquisitionTime = seconds("101500", 22.5 * phase)
    dataset.ContentTime = seconds("102000", 30 * phase + 0.01 * index)


def ge_dynamic(dataset: Dataset, phase: int, index: int) -> None:
    """LAVA: temporal positions; trigger times in ms; one acquisition time for all."""
    dataset.Manufacturer = "GE MEDICAL SYSTEMS"
    dataset.TemporalPositionIdentifier = phase + 1
    dataset.NumberOfTemporalPositions = 4
    dataset.TriggerTime = 18000 * phase
    dataset.AcquisitionTime, dataset.AcquisitionNumber = "101500", 1


def philips_dynamic(dataset: Dataset, phase: int, index: int) -> None:
    """THRIVE: temporal positions, instance numbers slice by slice in no useful order."""
    dataset.Manufacturer = "Philips Medical Systems"
    dataset.TemporalPositionIdentifier = phase + 1
    dataset.AcquisitionNumber, dataset.AcquisitionTime = 6, "101500.00"
    dataset.InstanceNumber = (index * 7 + phase * 3) % 32 + 1


def canon_dynamic(dataset: Dataset, phase: int, index: int) -> None:
    """Quick 3D: acquisition times per phase alone."""
    dataset.Manufacturer = "TOSHIBA"
    dataset.AcquisitionTime = seconds("095959", 20 * phase)


def content_times(dataset: Dataset, phase: int, index: int) -> None:
    """Nothing but content times, and those image by image."""
    dataset.ContentTime = seconds("101500", 40 * phase + index)


def trigger_times(dataset: Dataset, phase: int, index: int) -> None:
    dataset.TriggerTime = 1000.0 * phase


DYNAMIC = {
    "Siemens": (siemens_dynamic, "split by acquisition number: 2 of 4"),
    "GE": (ge_dynamic, "split by temporal position: 2 of 4"),
    "Philips": (philips_dynamic, "split by temporal position: 2 of 4"),
    "Canon": (canon_dynamic, "split by acquisition time: 20 s after the first, 2 of 4"),
    "content times": (content_times, "split by order of content time: 2 of 4"),
    "trigger times": (trigger_times, "split by trigger time: 1000 ms, 2 of 4"),
}


@pytest.mark.parametrize("name", DYNAMIC)
def test_dynamic_contrast_mr(tmp_path: Path, name: str) -> None:
    edit, second = DYNAMIC[name]
    found = separate(scanned(tmp_path, 4, edit), 4)
    assert found.series[1].notes == (second,)
    assert choose(found)[0].key == "s1a"  # nothing tells them apart but the order


def test_one_description_names_no_phase_of_several(tmp_path: Path) -> None:
    def edit(dataset: Dataset, phase: int, index: int) -> None:
        ge_dynamic(dataset, phase, index)
        dataset.SeriesDescription = "Ax LAVA arterial"

    found = separate(scanned(tmp_path, 4, edit), 4)
    assert not any("arterial" in note for each in notes(found) for note in each)


# Dixon, echoes, diffusion.

KINDS = ("out of phase", "in phase", "water", "fat")


def siemens_dixon(dataset: Dataset, phase: int, index: int) -> None:
    kind = ("OPP_PHASE", "IN_PHASE", "WATER", "FAT")[phase]
    dataset.ImageType = ["DERIVED" if phase > 1 else "ORIGINAL", "PRIMARY", "M", "DIXON", kind]
    dataset.EchoTime = (1.3, 2.5, 2.5, 2.5)[phase]


def ge_dixon(dataset: Dataset, phase: int, index: int) -> None:
    kind = ("OUT_PHASE", "IN_PHASE", "WATER", "FAT")[phase]
    dataset.ImageType = ["DERIVED", "PRIMARY", "DIXON", kind]


def philips_dixon(dataset: Dataset, phase: int, index: int) -> None:
    kind = ("OP", "IP", "W", "F")[phase]
    dataset.ImageType = ["DERIVED" if phase > 1 else "ORIGINAL", "PRIMARY", kind, kind, "DERIVED"]


@pytest.mark.parametrize("edit", [siemens_dixon, ge_dixon, philips_dixon])
def test_dixon(tmp_path: Path, edit: Edit) -> None:
    found = scan(scanned(tmp_path, 4, edit), "mr")
    told = {note: brightness(SeriesSet((s,), ()))[0] for s in found.series for note in s.notes}
    assert told == {f"split by image type: {kind}": {k} for k, kind in enumerate(KINDS)}
    assert brightness(SeriesSet((choose(found)[0],), ())) == [{1}]


def test_water_is_taken_before_fat_and_out_of_phase(tmp_path: Path) -> None:
    def edit(dataset: Dataset, phase: int, index: int) -> None:
        siemens_dixon(dataset, (0, 3, 2)[phase], index)

    found = scan(scanned(tmp_path, 3, edit), "mr")
    assert choose(found)[0].notes == ("split by image type: water",)


def test_dynamic_dixon_is_split_by_both(tmp_path: Path) -> None:
    def edit(dataset: Dataset, phase: int, index: int) -> None:
        dataset.ImageType = ["DERIVED", "PRIMARY", "DIXON", ("WATER", "FAT")[phase % 2]]
        dataset.TemporalPositionIdentifier = phase // 2 + 1

    found = scan(scanned(tmp_path, 4, edit), "mr")
    assert notes(found) == [
        (f"split by image type: {kind}", f"split by temporal position: {k} of 2")
        for kind in ("fat", "water")
        for k in (1, 2)
    ]
    assert brightness(found) == [{1}, {3}, {0}, {2}]


def test_many_echoes(tmp_path: Path) -> None:
    def edit(dataset: Dataset, phase: int, index: int) -> None:
        dataset.EchoTime = 1.15 + 1.15 * phase
        dataset.ScanningSequence, dataset.MagneticFieldStrength = "GR", 1.5

    found = separate(scanned(tmp_path, 6, edit), 6)
    assert found.series[1].notes == ("split by echo time: 2.3 ms, 2 of 6",)
    assert choose(found)[0].key == "s1d"  # 4.6 ms: in phase at 1.5 T


def standard_b(dataset: Dataset, b: int) -> None:
    dataset.DiffusionBValue = float(b)


def siemens_b(dataset: Dataset, b: int) -> None:
    dataset.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
    dataset.add_new(0x0019100C, "IS", str(b))
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "ND"]


def siemens_b_of_unknown_vr(dataset: Dataset, b: int) -> None:
    dataset.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
    dataset.add_new(0x0019100C, "UN", str(b).encode())


def ge_b(dataset: Dataset, b: int) -> None:
    dataset.add_new(0x00430010, "LO", "GEMS_PARM_01")
    dataset.add_new(0x00431039, "IS", [str(1_000_000_000 + b), "8", "0", "0"])


@pytest.mark.parametrize("write", [standard_b, siemens_b, siemens_b_of_unknown_vr, ge_b])
def test_diffusion(tmp_path: Path, write: Callable[[Dataset, int], None]) -> None:
    def edit(dataset: Dataset, phase: int, index: int) -> None:
        write(dataset, (0, 50, 800)[phase])

    found = separate(scanned(tmp_path, 3, edit), 3)
    assert [each[0] for each in notes(found)] == [
        f"split by b-value: {b} s/mm2, {k} of 3" for k, b in enumerate((0, 50, 800), start=1)
    ]
    assert choose(found)[0].key == "s1a"


def test_directions_of_one_b_value(tmp_path: Path) -> None:
    def edit(dataset: Dataset, phase: int, index: int) -> None:
        dataset.DiffusionBValue = 0.0 if phase == 0 else 800.0
        dataset.DiffusionGradientOrientation = np.eye(4)[phase, 1:].tolist()

    found = scan(scanned(tmp_path, 4, edit), "mr")
    assert sorted(map(min, brightness(found))) == [0, 1, 2, 3]
    assert all(len(each) == 1 for each in brightness(found))


# CT in phases.


def test_phases_with_descriptions_are_named_and_the_portal_one_is_taken(tmp_path: Path) -> None:
    def edit(dataset: Dataset, phase: int, index: int) -> None:
        dataset.SeriesDescription = ("Abd nativ", "Abd ART 1.0", "Abd PV 5.0", "Abd delayed")[phase]
        dataset.AcquisitionNumber = phase + 1

    found = separate(scanned(tmp_path, 4, edit, "CT"), 4, "ct")
    assert [each[-1] for each in notes(found)] == [
        f"{phase} phase by its header"
        for phase in ("without contrast", "arterial", "portal venous", "delayed")
    ]
    chosen, receipt = choose(found)
    assert chosen.key == "s1c"
    assert [line.description for line in receipt][2] == "Abd PV 5.0"


def test_a_phase_by_the_standard_attribute(tmp_path: Path) -> None:
    def edit(dataset: Dataset, phase: int, index: int) -> None:
        dataset.ContrastBolusAgentPhase = ("ARTERIAL", "PORTAL_VENOUS")[phase]

    found = separate(scanned(tmp_path, 2, edit, "CT"), 2, "ct")
    assert found.series[1].notes == (
        "split by contrast phase: portal venous, 2 of 2",
        "portal venous phase by its header",
    )


def numbered(dataset: Dataset, phase: int, index: int) -> None:
    dataset.AcquisitionNumber = phase + 2


def timed(dataset: Dataset, phase: int, index: int) -> None:
    """Only acquisition times, image by image."""
    dataset.AcquisitionTime = seconds("101500", 40 * phase + 0.5 * index)


def counted(dataset: Dataset, phase: int, index: int) -> None:
    """Times were removed; instance numbers run on from phase to phase."""


@pytest.mark.parametrize("edit", [numbered, timed, counted])
def test_overlapping_ranges_on_the_same_positions(tmp_path: Path, edit: Edit) -> None:
    paths = scanned(tmp_path, 2, edit, "CT", slices=[range(6), range(3, SLICES)])
    found = separate(paths, 2, "ct")
    assert [len(series.instances) for series in found.series] == [6, 5]


@pytest.mark.parametrize("shift", [0.4, 1.3, 2.5])
def test_overlapping_ranges_on_other_positions_are_not_mixed(tmp_path: Path, shift: float) -> None:
    """Without a shared position nothing is double: spacing alone would pass as uneven."""
    paths = scanned(tmp_path, 2, numbered, "CT", [0.0, shift], [range(6), range(2, SLICES)])
    found = separate(paths, 2, "ct")
    assert [series.usable_grid().uniform for series in found.series] == [True, True]


def test_blocks_that_follow_each_other_stay_one_series(tmp_path: Path) -> None:
    paths = scanned(tmp_path, 2, numbered, "CT", slices=[range(4), range(4, SLICES)])
    found = scan(paths, "ct")
    assert [(s.code, len(s.instances), s.notes) for s in found.series] == [(None, SLICES, ())]


def test_an_interleaved_scan_stays_one_series(tmp_path: Path) -> None:
    """Odd slices first, then even ones, and one is missing: no two phases."""

    def edit(dataset: Dataset, phase: int, index: int) -> None:
        dataset.AcquisitionNumber = index % 2 + 1

    kept = [k for k in range(SLICES) if k != 3]
    paths = scanned(tmp_path, 1, edit, "CT", slices=[kept])  # type: ignore[list-item]
    found = scan(paths, "ct")
    assert [(s.code, len(s.instances)) for s in found.series] == [(None, SLICES - 1)]


def test_scans_that_only_a_shuffled_number_tells_apart_are_refused(tmp_path: Path) -> None:
    def edit(dataset: Dataset, phase: int, index: int) -> None:
        dataset.InstanceNumber = (index * 11 + phase * 5) % 37 + 1

    found = scan(scanned(tmp_path, 2, edit, "CT"), "ct")
    assert [series.code for series in found.series] == ["duplicate_positions"]


def test_no_time_of_day_is_told(tmp_path: Path) -> None:
    found = separate(scanned(tmp_path, 4, siemens_dynamic), 4)
    told = " ".join(note for each in notes(found) for note in each)
    assert not any(digits in told for digits in ("1015", "1020"))


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ("Abdomen arteriell 3.0", "arterial"),
        ("LIVER HAP", "arterial"),
        ("late arterial", "late arterial"),
        ("Leber spätarteriell", "late arterial"),
        ("Abd portal venous 5mm", "portal venous"),
        ("ABD_PV_B30f", "portal venous"),
        ("Leber PV", "portal venous"),
        ("temps portal", "portal venous"),
        ("venous phase", "portal venous"),
        ("t1_vibe_fs_tra_20min HBP", "hepatobiliary"),
        ("delayed 5 min", "delayed"),
        ("Nativ", "without contrast"),
        ("CT NON-CONTRAST", "without contrast"),
        ("art and portal", None),
        ("in-phase and out-phase", None),
        ("Thorax/Abdomen", None),
        ("heart", None),
        ("parties molles", None),
        ("", None),
    ],
)
def test_words_for_contrast_phases(text: str, phase: str | None) -> None:
    assert contrast_phase(text) == phase


def test_times_across_midnight_are_left_out() -> None:
    day = [(20200101235950.0, ""), (20200102000010.0, "")]
    assert split_note("AcquisitionDateTime", day, 1) == "split by acquisition time: 2 of 2"
    same = [(20200101110059.0, ""), (20200101110110.5, "")]
    assert split_note("AcquisitionDateTime", same, 1).startswith(
        "split by acquisition time: 12 s after the first"
    )
