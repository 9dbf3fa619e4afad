"""What a job needs at its peak, stage by stage, beside what ``service.admission`` predicts.

    python benchmarks/memory.py [--slices 100 400 1000] [--side 512] [--engine openvino]
                                [--batch 4] [--mask body] [--json memory.json]

Every size runs in a process of its own, through the steps of a job, on a synthetic body that fills
the field of view. The kernel's high-water mark (VmHWM) is reset at the start of each stage, so this
needs Linux. ``--mask body`` calls every voxel of the body liver, which is the most that postprocess
and SEG can have to do; ``--mask model`` takes what the network says.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

ROOT = "1.2.826.0.1.3680043.8.498.79"
MIB = 1024**2
THICKNESS_MM, PIXEL_MM = 1.0, 0.78


def main() -> None:
    options = arguments()
    if options.child is not None:
        print(json.dumps(measured(options)))
        return
    from rich.console import Console  # noqa: PLC0415  (a child must stay lean)

    rows = []
    with Console().status("starting") as status:
        for slices in options.slices:
            status.update(f"{slices} slices")
            with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
                write_series(Path(folder), slices, options.side, options.modality)
                rows.append({"slices": slices, "side": options.side} | in_a_child(folder))
    report(rows, options)


def in_a_child(folder: str) -> dict[str, object]:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def measured(options: argparse.Namespace) -> dict[str, object]:
    """MiB above the process at rest, per stage; and the seconds of each."""
    from model.backends import open_backend  # noqa: PLC0415
    from service.admission import expected  # noqa: PLC0415
    from service.cases import examine, load_case, settings_key  # noqa: PLC0415
    from service.produce import Recipe, produce  # noqa: PLC0415
    from service.registry import ModelRegistry, profile_of  # noqa: PLC0415
    from service.settings import Settings  # noqa: PLC0415
    from service.uploads import Upload, open_upload  # noqa: PLC0415

    settings = Settings()
    folder = ModelRegistry(options.models, options.model).find(options.model, options.modality)
    profile = profile_of(folder, options.profile)
    case_folder = Path(options.child)
    opened = open_upload(Upload((case_folder,)), case_folder, settings)
    case = examine(opened, options.modality, "auto", settings)
    precision = folder.spec.profiles[profile].precision
    marks = Marks()
    loaded = load_case(case.kind, case.files, case.modality, settings, case.content)
    marks.stage("load_model")
    backend = open_backend(folder, options.modality, options.engine, precision)
    engine = Everything(backend, folder.spec.network.classes) if options.mask == "body" else backend
    recipe = Recipe(folder, profile, settings_key(case, folder.sha256, profile), options.batch)
    with tempfile.TemporaryDirectory() as out:
        finding = produce(
            loaded, recipe, engine, Path(out), lambda stage, _fraction: marks.stage(stage.value)
        )
    peaks = marks.end()
    need = expected(case.grid, folder.spec, options.modality, profile, options.batch)
    return {
        "engine": finding.engine,
        "base_mib": round(marks.base / MIB),
        "mib": {name: round(peak / MIB) for name, peak in peaks.items()},
        "most_mib": round(max(peaks.values()) / MIB),
        "predicted_mib": round(need.bytes / MIB),
        "seconds": {name: round(value, 2) for name, value in finding.seconds.items()},
        "predicted_s": round(need.seconds, 1),
        "windows": need.windows,
        "native_voxels": int(np.prod(loaded.volume.shape)),
    }


class Everything:
    """The real engine, whose answer is replaced: liver wherever there is body."""

    def __init__(self, backend: object, classes: int) -> None:
        self._backend = backend
        self._classes = classes
        self.name = f"{backend.name}, all liver"  # type: ignore[attr-defined]
        self.engine, self.precision = "stub", "f32"

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = self._backend.logits(batch)  # type: ignore[attr-defined]
        answer[:, 1] = answer[:, 0] + np.where(batch[:, 0] > 0, 10, -10)
        answer[:, 2] = answer[:, 0] + np.where(batch[:, 0] > 0.8, 20, -20)
        return answer


class Marks:
    """The high-water mark of each stage of this process, in bytes above ``base``."""

    def __init__(self) -> None:
        self.base = resident("VmRSS")
        self.peaks: dict[str, int] = {}
        self._stage = "read"
        self._reset()

    def stage(self, name: str) -> None:
        if name != self._stage:
            self._note()
            self._stage = name
            self._reset()

    def end(self) -> dict[str, int]:
        self._note()
        return self.peaks

    def _note(self) -> None:
        peak = resident("VmHWM") - self.base
        self.peaks[self._stage] = max(peak, self.peaks.get(self._stage, 0))

    @staticmethod
    def _reset() -> None:
        Path("/proc/self/clear_refs").write_text("5")


def resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"the kernel tells no {field}")


def write_series(folder: Path, slices: int, side: int, modality: str) -> None:
    """A body with noise in it, 5 mm of air around."""
    rng = np.random.default_rng(0)
    noise = rng.integers(-30, 30, (side, side), np.int16)
    body = np.full((side, side), -1000, np.int16)
    body[6:-6, 6:-6] = 90
    for index in range(slices):
        plane = np.where(body > 0, body + np.roll(noise, index, 1), body)
        plane[side // 3 : side // 2, side // 3 : side // 2] += 60 * (index % 7 == 0)
        dataset = header(index, side, modality)
        dataset.PixelData = (plane + 1024 * (modality == "mr")).astype("<i2").tobytes()
        dataset.save_as(folder / f"{index:05d}.dcm", enforce_file_format=True)


def header(index: int, side: int, modality: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage if modality == "ct" else MRImageStorage
    dataset.SOPInstanceUID = f"{ROOT}.9.{index + 1}"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{ROOT}.1", f"{ROOT}.2"
    dataset.FrameOfReferenceUID, dataset.Modality = f"{ROOT}.3", modality.upper()
    dataset.PatientName, dataset.PatientID = "Memory", "M"
    dataset.PatientBirthDate, dataset.PatientSex = "", ""
    dataset.AccessionNumber, dataset.StudyID = "", ""
    dataset.StudyDate, dataset.StudyTime, dataset.ReferringPhysicianName = "", "", ""
    dataset.SeriesNumber, dataset.InstanceNumber = 1, index + 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0, 0, index * THICKNESS_MM]
    dataset.PixelSpacing, dataset.SliceThickness = [PIXEL_MM, PIXEL_MM], THICKNESS_MM
    dataset.Rows = dataset.Columns = side
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    if modality == "ct":
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    return dataset


def report(rows: list[dict[str, object]], options: argparse.Namespace) -> None:
    from table import show, write_json  # noqa: PLC0415

    stages = list(rows[0]["mib"])  # type: ignore[call-overload]
    show(
        f"MiB at the peak of each stage, {options.profile}, batch {options.batch}",
        ["slices", "engine", *stages, "most", "predicted", "seconds", "predicted s"],
        [
            [
                str(row["slices"]),
                str(row["engine"]),
                *(str(row["mib"].get(stage, "")) for stage in stages),  # type: ignore[attr-defined]
                str(row["most_mib"]),
                str(row["predicted_mib"]),
                f"{sum(row['seconds'].values()):.1f}",  # type: ignore[attr-defined]
                str(row["predicted_s"]),
            ]
            for row in rows
        ],
    )
    if options.json:
        write_json(options.json, {"at": time.strftime("%Y-%m-%d"), "rows": rows})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slices", type=int, nargs="+", default=[100, 400, 1000])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--modality", choices=("ct", "mr"), default="ct")
    parser.add_argument("--models", type=Path, default=Path("model/zoo"))
    parser.add_argument("--model", default="small")
    parser.add_argument("--profile", default="balanced")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--mask", choices=("body", "model"), default="body")
    parser.add_argument("--scratch", type=Path, default=None, help="folder for the images")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
