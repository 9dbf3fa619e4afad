"""From a download to prepared cases and to the cache."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from downloads import grid, lits_case, outline, write_pair
from numpy.testing import assert_array_equal
from rich.console import Console

from model.errors import ConfigError, InputError
from model.nifti import read_nifti, write_nifti
from training.config import DataConfig, TrainConfig
from training.data import list_cases, load_samples, may_be_tested, read_case
from training.prepare import check_and_cache, prepare

BIG = outline((20, 40, 36))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def download(tmp_path: Path) -> Path:
    """LiTS 1, 2 and 28; 28 has lost its spacing."""
    folder = tmp_path / "lits"
    lits_case(folder, 1, mask=outline((20, 40, 30)))
    lits_case(folder, 2, mask=outline((20, 30, 36), tumours=False))
    lits_case(folder, 28, mask=BIG, affine=np.eye(4))
    return folder


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rows(root: Path) -> dict[str, dict[str, Any]]:
    return {row["case"]: row for row in json.loads((root / "cases.json").read_text())}


def files(root: Path) -> dict[str, bytes]:
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


def test_cases_are_what_training_reads(download: Path, tmp_path: Path) -> None:
    root, console = tmp_path / "root", quiet()
    report = prepare("lits", download, root, console=console)
    cases = {case.name: case for case in list_cases(DataConfig(root=root))}
    assert list(cases) == ["ct/lits_001", "ct/lits_002", "ct/lits_028"]
    volume, label = read_case(cases["ct/lits_001"])
    original = read_nifti(download / "volume-1.nii", "ct")
    assert_array_equal(volume.array, original.array)
    assert_array_equal(volume.affine, original.affine)
    assert volume.array.dtype == np.int16
    assert_array_equal(label, outline((20, 40, 30)))
    assert [cases[n].has_tumour for n in cases] == [True, False, True]
    assert [may_be_tested(cases[n]) for n in cases] == [True, True, False]
    assert cases["ct/lits_028"].patient == "ircadb_01"
    row = rows(root)["ct/lits_028"]
    assert (row["overlaps"], row["spacing_known"]) == ("3D-IRCADb-1", False)
    assert [r.case for r in report.rows] == list(cases)
    assert "1 cases are 3D-IRCADb-1's too (ct/lits_028 ..)" in said(console)
    assert "spacing_suspect" in said(console)


def test_roles_are_kept_per_source(download: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    prepare("lits", download, root, role="test", console=quiet())
    atlas = tmp_path / "atlas"
    write_pair(atlas / "im0.nii.gz", atlas / "lb0.nii.gz", 9, outline(), grid())
    prepare("atlas", atlas, root, console=quiet())
    roles = {name: row["role"] for name, row in rows(root).items()}
    assert roles == {"ct/lits_001": "test", "ct/lits_002": "test", "ct/lits_028": "test",
                     "mr/atlas_00": "develop"}  # fmt: skip


def test_processes_write_what_one_would(download: Path, tmp_path: Path) -> None:
    prepare("lits", download, tmp_path / "one", console=quiet())
    prepare("lits", download, tmp_path / "two", workers=2, console=quiet())
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_only_what_changed_is_written_again(download: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    prepare("lits", download, root, console=quiet())
    before = {name: (root / name / "image.nii.gz").stat().st_ino for name in rows(root)}
    mask = outline((20, 40, 30))
    mask[5, 5, 5] = 2
    write_nifti(download / "segmentation-1.nii", mask, grid())
    (root / "ct/lits_002/label.nii.gz").unlink()
    prepare("lits", download, root, console=quiet())
    after = {name: (root / name / "image.nii.gz").stat().st_ino for name in rows(root)}
    assert {name for name in before if before[name] == after[name]} == {"ct/lits_028"}
    assert_array_equal(read_nifti(root / "ct/lits_001/label.nii.gz", "ct").array, mask)


PROGRAM = """
import sys
from pathlib import Path
from training.prepare import prepare
prepare("lits", Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_run_is_finished_by_the_next(tmp_path: Path) -> None:
    folder, root = tmp_path / "lits", tmp_path / "root"
    for number in range(12):
        lits_case(folder, number, mask=outline((40, 90, 80 + number)))
    command = [sys.executable, "-c", PROGRAM, str(folder), str(root)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as run:
        while not (root / "ct/lits_000/case.json").exists():
            assert run.poll() is None
            time.sleep(0.002)
        os.kill(run.pid, signal.SIGKILL)
    assert not (root / "cases.json").exists()
    done = {file: file.stat().st_mtime_ns for file in root.rglob("case.json")}
    prepare("lits", folder, root, console=quiet())
    prepare("lits", folder, tmp_path / "whole", console=quiet())
    assert files(root) == files(tmp_path / "whole")
    visible = {file for file in done if not file.parent.name.startswith(".")}
    assert all(file.stat().st_mtime_ns == done[file] for file in visible)


def test_a_half_written_case_of_a_killed_run_is_made_anew(download: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    half = root / "ct/.lits_001.partial"
    half.mkdir(parents=True)
    (half / "image.nii.gz").write_bytes(b"half")
    prepare("lits", download, root, console=quiet())
    prepare("lits", download, tmp_path / "whole", console=quiet())
    assert files(root) == files(tmp_path / "whole")


def test_a_broken_case_stops_or_is_skipped(download: Path, tmp_path: Path) -> None:
    mask = np.full((20, 30, 36), 7, np.uint8)
    write_nifti(download / "segmentation-2.nii", mask, grid())
    root, console = tmp_path / "root", quiet()
    for workers in (1, 2):
        with pytest.raises(InputError, match=r"ct/lits_002: .*values \[7\]") as caught:
            prepare("lits", download, root, workers=workers, console=console)
        assert caught.value.code == "label_values"
        assert not (root / "cases.json").exists()
    report = prepare("lits", download, root, skip_broken=True, console=console)
    assert [(b.name, b.code) for b in report.broken] == [("ct/lits_002", "label_values")]
    assert rows(root).keys() == {"ct/lits_001", "ct/lits_028"}
    assert "skipped: ct/lits_002: label_values" in said(console)


def test_a_case_that_broke_since_leaves_the_index(download: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    prepare("lits", download, root, console=quiet())
    write_nifti(download / "segmentation-2.nii", np.zeros((20, 30, 36), np.uint8), grid())
    prepare("lits", download, root, skip_broken=True, console=quiet())
    assert rows(root).keys() == {"ct/lits_001", "ct/lits_028"}


def test_the_known_overlap_is_left_out_without_the_other_at_hand(
    download: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    report = prepare("lits", download, root, leave_out_duplicates=True, console=quiet())
    assert rows(root).keys() == {"ct/lits_001", "ct/lits_002"}
    assert report.left_out == ["ct/lits_028"]
    assert not (root / "ct/lits_028").exists()


@pytest.mark.parametrize("bare", [False, True])
def test_duplicates_in_another_root_are_found(download: Path, tmp_path: Path, bare: bool) -> None:
    """A flipped copy under another number, with a spacing; the other root's index may be one that
    ``prepare`` did not write."""
    other, root, console = tmp_path / "other", tmp_path / "root", quiet()
    prepare("lits", download, other, console=console)
    if bare:
        index = [{k: row[k] for k in ("case", "modality", "patient", "labels", "licence")}
                 for row in rows(other).values()]  # fmt: skip
        (other / "cases.json").write_text(json.dumps(index))
    copy = tmp_path / "copy"
    lits_case(copy, 77, mask=BIG[::-1, :, ::-1].transpose(0, 2, 1))
    lits_case(copy, 78, mask=outline((24, 40, 33)))
    report = prepare("lits", copy, root, against=[other], console=console)
    assert [(d.case, d.of, d.by) for d in report.duplicates] == [
        ("ct/lits_077", "ct/lits_028", "mask")
    ]
    assert f"ct/lits_077 has the mask of ct/lits_028 {other}" in said(console)
    assert rows(root).keys() == {"ct/lits_077", "ct/lits_078"}
    prepare("lits", copy, root, against=[other], leave_out_duplicates=True, console=console)
    assert rows(root).keys() == {"ct/lits_078"}


def test_duplicates_of_what_is_in_the_root_are_found(download: Path, tmp_path: Path) -> None:
    root, task = tmp_path / "root", tmp_path / "Task03_Liver"
    prepare("lits", download, root, console=quiet())
    names = (task / "imagesTr/liver_1.nii.gz", task / "labelsTr/liver_1.nii.gz")
    write_pair(*names, 1, outline((20, 40, 30)), grid())
    report = prepare("msd", tmp_path, root, leave_out_duplicates=True, console=quiet())
    assert report.left_out == ["ct/msd_liver_001"]
    assert rows(root).keys() == {"ct/lits_001", "ct/lits_002", "ct/lits_028"}


def test_roots_to_compare_with_must_be_prepared(download: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a prepared root"):
        prepare("lits", download, tmp_path / "root", against=[tmp_path], console=quiet())
    (download / "cases.json").write_text("[3]")
    with pytest.raises(ConfigError, match="is not an index"):
        prepare("lits", download, tmp_path / "root", against=[download], console=quiet())


@pytest.fixture
def config_file(tmp_path: Path, values: dict[str, Any], root: Path) -> Path:
    """A configuration over the eight phantom cases, CT lent to MR, a phantom of each modality."""
    data = {"root": str(root), "phantoms": 1}
    file = tmp_path / "tiny.yaml"
    plain = json.loads(json.dumps({**values, "data": data, "augment": {"borrow_ct": 0.5}}))
    file.write_text(yaml.safe_dump(plain))
    return file


def test_the_cache_holds_all_that_a_run_reads(
    config_file: Path, tmp_path: Path, root: Path, make_config: Callable[..., TrainConfig]
) -> None:
    cache, console = tmp_path / "cache", quiet()
    checked = check_and_cache(config_file, cache=cache, workers=2, console=console)
    assert [c.case for c in checked] == [f"{m}/{n}" for m in ("ct", "mr") for n in "abcd"]
    before = {file.name: file.stat().st_mtime_ns for file in cache.iterdir()}
    config = make_config(data={"root": root, "phantoms": 1}, augment={"borrow_ct": 0.5})
    samples = load_samples(list_cases(config.data), config, cache, lambda *_: None)
    assert len(samples) == 8 + 4 + 2
    again = check_and_cache(config_file, cache=cache, console=quiet())
    assert [c.facts for c in again] == [c.facts for c in checked]
    assert {file.name: file.stat().st_mtime_ns for file in cache.iterdir()} == before
    line = next(line for line in said(console).splitlines() if "mr/c" in line)
    facts = next(c.facts for c in checked if c.case == "mr/c")
    for text in ("merged", "10.00 8.00 8.00", "20 40 48", facts.orientation, str(facts.lesions)):
        assert text in line
    # The phantom cases are one label, moved; a and c are one patient.
    assert "warning: ct/b has the mask of ct/a" in said(console)
    assert "ct/c has the mask of ct/a" not in said(console)


def test_broken_cases_of_a_configuration_are_named_or_skipped(
    download: Path, tmp_path: Path, config_file: Path
) -> None:
    root = tmp_path / "prepared"
    prepare("lits", download, root, console=quiet())
    label = root / "ct/lits_002/label.nii.gz"
    write_nifti(label, np.zeros((20, 30, 36), np.uint8), grid())
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match="ct/lits_002: the label is empty") as caught:
        check_and_cache(config_file, root=root, cache=cache, console=quiet())
    assert caught.value.code == "empty_label"
    checked = check_and_cache(
        config_file, root=root, cache=cache, skip_broken=True, console=quiet()
    )
    assert [c.case for c in checked] == ["ct/lits_001", "ct/lits_028"]
