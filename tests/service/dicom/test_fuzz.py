"""Random damage to real structure: nothing but a typed error ever comes out."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from dicom_phantoms import Grid, Recipe, body, write_enhanced, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.dicom.errors import DicomInputError
from service.dicom.hashing import content_key
from service.dicom.pixels import load
from service.dicom.series import ScanLimits, choose, scan

GRID = Grid(shape=(4, 10, 12))
VALUES = body(GRID)
KINDS = ("explicit", "implicit", "big endian", "deflated", "RLE", "enhanced")
SYNTAX = {
    "implicit": "1.2.840.10008.1.2",
    "big endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "RLE": "1.2.840.10008.1.2.5",
}

damage = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=6)),
    min_size=1,
    max_size=12,
)


class Originals(dict[str, list[bytes]]):
    """Undamaged files by kind; a short repr, because hypothesis prints it."""

    def __repr__(self) -> str:
        return "originals"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    folder = tmp_path_factory.mktemp("originals")
    found = Originals()
    for kind in KINDS:
        if kind == "enhanced":
            paths = [write_enhanced(folder / kind, [VALUES], GRID)]
        else:
            recipe = Recipe(modality="MR", intercept=0)
            if kind in SYNTAX:
                recipe = Recipe(modality="MR", intercept=0, syntax=SYNTAX[kind])
            paths = write_series(folder / kind, VALUES, GRID, recipe)
        found[kind] = [path.read_bytes() for path in paths]
    return found


def whole_way(paths: list[Path]) -> None:
    """Everything that looks at uploaded bytes; only a typed error may come out."""
    with contextlib.suppress(DicomInputError):
        series, _ = choose(scan(paths, "mr", ScanLimits(10**6)))
        content_key(series)
        loaded = load(series)
        assert loaded.volume.array.ndim == 3
        assert np.isfinite(loaded.volume.affine).all()


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kind=st.sampled_from(KINDS), hits=damage, cut=st.none() | st.floats(0, 1))
def test_damaged_files(
    tmp_path: Path,
    originals: Originals,
    kind: str,
    hits: list[tuple[float, bytes]],
    cut: float | None,
) -> None:
    paths = []
    for number, original in enumerate(originals[kind]):
        data = bytearray(original)
        if number == 0:
            for place, garbage in hits:
                at = int(place * len(data))
                data[at : at + len(garbage)] = garbage
            data = data[: int(cut * len(data))] if cut is not None else data
        paths.append(tmp_path / f"{number}")
        paths[-1].write_bytes(data)
    whole_way(paths)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kind=st.sampled_from(KINDS), hits=damage)
def test_the_same_damage_in_every_file(
    tmp_path: Path,
    originals: Originals,
    kind: str,
    hits: list[tuple[float, bytes]],
) -> None:
    paths = []
    for number, original in enumerate(originals[kind]):
        data = bytearray(original)
        for place, garbage in hits:
            at = 132 + int(place * 700)
            data[at : at + len(garbage)] = garbage
        paths.append(tmp_path / f"{number}")
        paths[-1].write_bytes(data)
    whole_way(paths)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=600), st.sampled_from([b"", bytes(128) + b"DICM"]))
def test_noise(tmp_path: Path, noise: bytes, head: bytes) -> None:
    path = tmp_path / "noise"
    path.write_bytes(head + noise)
    whole_way([path])
