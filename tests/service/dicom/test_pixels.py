"""Voxel values: every syntax and every way of storing them gives the same HU or signal."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_peers import Real
from dicom_phantoms import Grid, Recipe, body, without_meta, write_enhanced, write_series
from pydicom import dcmread
from pydicom.dataset import Dataset

from service.dicom.errors import DicomInputError
from service.dicom.hashing import content_key
from service.dicom.pixels import LoadedSeries, load
from service.dicom.rawpixels import UndecodableError, decoding, stored_plane
from service.dicom.series import choose, scan

GRID = Grid()
VALUES = body(GRID)
SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big endian": "1.2.840.10008.1.2.2",
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
}


def loaded(paths: list[Path], modality: str = "ct") -> LoadedSeries:
    return load(choose(scan(paths, modality))[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES.keys())
@pytest.mark.parametrize("signed", [False, True])
def test_every_transfer_syntax(tmp_path: Path, syntax: str, signed: bool) -> None:
    recipe = Recipe(syntax=syntax, signed=signed, intercept=0 if signed else -1024)
    result = loaded(write_series(tmp_path, VALUES, GRID, recipe))
    assert result.volume.array.dtype == np.int16
    assert np.array_equal(result.volume.array, VALUES)


@pytest.mark.parametrize("name", ["implicit", "explicit", "big endian"])
def test_without_preamble_and_meta(tmp_path: Path, name: str) -> None:
    paths = write_series(tmp_path, VALUES, GRID, Recipe(syntax=SYNTAXES[name]))
    for path in paths:
        without_meta(path)
    assert np.array_equal(loaded(paths).volume.array, VALUES)


def test_rescale_differs_slice_by_slice(tmp_path: Path) -> None:
    def edit(dataset: Dataset, index: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1 + index, -index

    mr = Recipe(modality="MR", intercept=0, edit=edit)
    result = loaded(write_series(tmp_path, VALUES, GRID, mr), "mr")
    expected = VALUES * (1 + np.arange(8))[:, None, None] - np.arange(8)[:, None, None]
    assert result.volume.array.dtype == np.int16
    assert np.array_equal(result.volume.array, expected)


def test_fractional_rescale_gives_float32(tmp_path: Path) -> None:
    recipe = Recipe(modality="MR", intercept=0, slope=0.25)
    result = loaded(write_series(tmp_path, VALUES, GRID, recipe), "mr")
    assert result.volume.array.dtype == np.float32
    assert np.array_equal(result.volume.array, VALUES)


def test_mr_without_rescale_keeps_its_integers(tmp_path: Path) -> None:
    def edit(dataset: Dataset, index: int) -> None:
        del dataset.RescaleSlope, dataset.RescaleIntercept

    recipe = Recipe(modality="MR", intercept=0, edit=edit)
    result = loaded(write_series(tmp_path, VALUES * 600, GRID, recipe), "mr")
    assert result.volume.array.dtype == np.uint16
    assert result.volume.array.max() == 60000


def test_values_beyond_int16_are_not_wrapped(tmp_path: Path) -> None:
    result = loaded(write_series(tmp_path, VALUES.astype(np.int32) * 600, GRID))
    assert result.volume.array.max() == 60000


@pytest.mark.parametrize(("bits", "high"), [(12, 11), (12, 13), (13, 12)])
@pytest.mark.parametrize("signed", [False, True])
def test_unused_bits_are_ignored(tmp_path: Path, bits: int, high: int, signed: bool) -> None:
    intercept = 0 if signed else -1024
    values = VALUES - 60 if signed else VALUES

    def edit(dataset: Dataset, index: int) -> None:
        pixels = np.frombuffer(dataset.PixelData, np.uint16)
        used = (pixels & (2**bits - 1)) << (high - bits + 1)
        garbage = np.uint16(~((2**bits - 1) << (high - bits + 1)) & 0xFFFF)
        dataset.PixelData = (used | garbage).astype(np.uint16).tobytes()
        dataset.BitsStored, dataset.HighBit = bits, high

    recipe = Recipe(signed=signed, intercept=intercept, edit=edit)
    assert np.array_equal(loaded(write_series(tmp_path, values, GRID, recipe)).volume.array, values)


def test_padding_becomes_air(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[:, :3] = -3024

    def declared(dataset: Dataset, index: int) -> None:
        dataset.add_new("PixelPaddingValue", "US", 63536)
        pixels = np.frombuffer(dataset.PixelData, np.int16).copy()
        pixels[pixels == -3024] = -2000
        dataset.PixelData = pixels.tobytes()

    for name, edit in (("declared", declared), ("silent", None)):
        recipe = Recipe(signed=True, intercept=0, edit=edit)
        result = loaded(write_series(tmp_path / name, values, GRID, recipe))
        assert (result.volume.array[:, :3] == -1024).all()
        assert np.array_equal(result.volume.array[:, 3:], VALUES[:, 3:])


def test_a_high_padding_value_becomes_air_and_a_tissue_one_is_ignored(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[:, :3] = 32767

    def pad(value: int):
        def edit(dataset: Dataset, index: int) -> None:
            dataset.add_new("PixelPaddingValue", "SS", value)

        return edit

    recipe = Recipe(signed=True, intercept=0)
    high = loaded(write_series(tmp_path / "a", values, GRID, replace(recipe, edit=pad(32767))))
    assert (high.volume.array[:, :3] == -1024).all()
    tissue = loaded(write_series(tmp_path / "b", VALUES, GRID, replace(recipe, edit=pad(100))))
    assert np.array_equal(tissue.volume.array, VALUES)
    assert tissue.notes


def test_enhanced_frames_have_their_own_rescale(tmp_path: Path) -> None:
    def scale(item: Dataset, stack: int, index: int) -> None:
        item.PixelValueTransformationSequence[0].RescaleSlope = 1 + index % 2

    path = write_enhanced(tmp_path / "e", [VALUES], GRID, edit_frame=scale)
    result = loaded([path], "mr")
    assert np.array_equal(result.volume.array, VALUES * (1 + np.arange(8) % 2)[:, None, None])


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"])
def test_enhanced_packed(tmp_path: Path, syntax: str) -> None:
    recipe = Recipe(modality="MR", intercept=0, syntax=syntax)
    result = loaded([write_enhanced(tmp_path / "e", [VALUES], GRID, recipe)], "mr")
    assert np.array_equal(result.volume.array, VALUES)


def test_an_undecodable_stream_is_a_typed_error(tmp_path: Path) -> None:
    paths = write_series(tmp_path, VALUES, GRID, Recipe(syntax=SYNTAXES["JPEG 2000"]))
    data = bytearray(paths[2].read_bytes())
    at = data.index(b"\xff\x4f\xff\x51") + 60
    data[at : at + 80] = b"\xff" * 80
    paths[2].write_bytes(data)
    with pytest.raises(DicomInputError) as caught:
        loaded(paths)
    assert caught.value.code == "undecodable_pixel_data"


def test_a_stream_larger_than_declared_is_refused_before_decoding(tmp_path: Path) -> None:
    paths = write_series(tmp_path, VALUES, GRID, Recipe(syntax=SYNTAXES["JPEG 2000"]))
    data = bytearray(paths[2].read_bytes())
    at = data.index(b"\xff\x4f\xff\x51") + 8
    data[at : at + 8] = (100_000).to_bytes(4, "big") * 2
    paths[2].write_bytes(data)
    with pytest.raises(DicomInputError) as caught:
        loaded(paths)
    assert caught.value.code == "undecodable_pixel_data"


REAL = [
    ("ct_msd_liver0", "ct"),
    ("ct_totalsegmentator_20slices_j2k", "ct"),
    ("mr_chaos_t1dual_10", "mr"),
    ("edge_dicom2nifti_compressed", "mr"),
    ("edge_dicom2nifti_failing", "ct"),
    ("edge_enhanced_multiframe", "mr"),
    ("seg_by_others_dcmqi", "ct"),
]


@pytest.mark.parametrize(("name", "modality"), REAL)
def test_real_series_have_the_pixels_that_pydicom_reads(
    real: Real, name: str, modality: str
) -> None:
    found = scan(real(name), modality)  # type: ignore[arg-type]
    for series in (series for series in found.series if series.code is None):
        load(series)
        for plane in (series.instances[0], series.instances[-1]):
            theirs = dcmread(plane.file.path).pixel_array
            theirs = theirs if plane.frame is None else theirs[plane.frame - 1]
            assert np.array_equal(stored_plane(plane), theirs)


def test_the_same_series_in_five_codecs_has_the_same_voxels(real: Real) -> None:
    files = real("edge_dicom2nifti_compressed")
    names = ("compressed", "compressed_rle", "compressed_jpeg", "compressed_jpegls")
    groups = [[p for p in files if p.parent.parent.name == name] for name in names]
    arrays = [loaded(group, "mr").volume.array for group in groups]
    assert all(np.array_equal(arrays[0], array) for array in arrays[1:])
    assert len({content_key(choose(scan(group, "mr"))[0]) for group in groups}) == len(groups)


class PanicException(BaseException):
    """What a codec in Rust raises: no ``Exception``."""


@pytest.mark.parametrize("kind", [PanicException, ValueError])
def test_a_codec_that_fails_in_any_way_is_told_apart_from_a_stop(kind: type) -> None:
    with pytest.raises(UndecodableError), decoding():
        raise kind
    with pytest.raises(KeyboardInterrupt), decoding():
        raise KeyboardInterrupt
