"""The whole way on a real series: seconds per stage for each profile, beside MONAI.

    python benchmarks/volume.py SERIES --modality ct [--models model/zoo] [--model small]
                                [--json volume.json] [--record]

Each profile runs through the code of ``aqcf segment``: series in, SEG, SR, mask, measurements and
preview out. The reference is MONAI's ``sliding_window_inference`` around the two-stream PyTorch
network with the absent stream zero-filled, overlap 0.8, on the same prepared volume. Dice is
against the mask of ``paper``. ``--record`` writes agreement and speed-up into the manifest.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from rich.console import Console
from table import show, write_json

from model.checkpoint import load_network
from model.export import zero_filled
from model.metrics import dice
from model.nifti import read_nifti
from model.postprocess import postprocess
from model.preprocess import prepare, to_native
from model.spec import MANIFEST, WEIGHTS, ModelFolder, Profile
from model.types import LIVER, MaskArray
from model.volume import Volume
from service.cases import examine, load_case
from service.domain import SubmitOptions
from service.oneshot import OneShot, segment_into
from service.registry import ModelRegistry
from service.settings import Settings
from service.uploads import Upload, open_upload
from service.wiring import BackendCache

T = TypeVar("T")
REFERENCE = "monai"
FIGURES = {
    "total_s": "total s",
    "secondary_s": "read, resample, SEG, SR s",
    "times_faster_than_paper": "times faster than paper",
    "inference_times_faster": "... inference alone",
    "dice_liver": "Dice with paper, liver",
    "dice_tumour": "Dice with paper, tumour",
}
SECONDARY = ("read", "prepare", "restore", "seg", "sr")


@dataclass(frozen=True)
class Row:
    """One way through the series."""

    name: str
    engine: str
    seconds: dict[str, float]
    mask: MaskArray

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def main() -> None:
    options = arguments()
    settings = Settings(models_dir=options.models, default_model=options.model)
    folder = ModelRegistry(settings.models_dir, options.model).find(options.model, options.modality)
    rows: dict[str, Row] = {}
    backends = BackendCache(settings.engine, settings.threads)
    with Console().status("starting") as status:
        for name in folder.spec.profiles:
            status.update(f"profile {name}")
            rows[name] = with_profile(name, settings, backends, options)
        if not options.without_reference:
            status.update("MONAI around the two-stream network")
            rows[REFERENCE] = with_monai(folder, settings, options)
    table = [described(row, rows) for row in rows.values()]
    report(table, folder, options)
    if options.record:
        record(folder, table)


def with_profile(
    name: str, settings: Settings, backends: BackendCache, options: argparse.Namespace
) -> Row:
    """Run once to warm the engine, then the fastest of ``--rounds`` by its total."""
    best: Row | None = None
    for _ in range(options.rounds + (name not in {"paper"})):
        with tempfile.TemporaryDirectory() as out:
            shot: OneShot = segment_into(
                settings,
                Upload((options.series,)),
                SubmitOptions(options.modality, options.model, name),
                out=Path(out),
                open_backend=backends,
                report=lambda _stage, _fraction: None,
            )
            mask = read_nifti(Path(out) / "mask.nii.gz", options.modality).array
        row = Row(name, shot.finding.engine, dict(shot.finding.seconds), mask.astype(np.uint8))
        best = row if best is None or row.total < best.total else best
    if best is None:
        raise SystemExit("--rounds must be at least 1")
    return best


def with_monai(folder: ModelFolder, settings: Settings, options: argparse.Namespace) -> Row:
    """The published way: eager PyTorch, both streams, MONAI's window."""
    spec = folder.spec.modalities[options.modality]
    seconds: dict[str, float] = {}
    volume = timed(seconds, "read", lambda: read(settings, options))
    prepared = timed(seconds, "prepare", lambda: prepare(volume, spec))
    run = zero_filled(load_network(folder.file(WEIGHTS)), options.modality)
    image = torch.from_numpy(prepared.array)[None, None]

    def infer() -> np.ndarray:
        logits = sliding_window_inference(
            image,
            spec.patch,
            sw_batch_size=1,
            predictor=lambda x: torch.from_numpy(run(x.numpy())),
            overlap=0.8,
            mode="gaussian",
        )
        return torch.as_tensor(logits)[0].numpy()

    scores = timed(seconds, "inference", infer)
    raw = timed(seconds, "restore", lambda: to_native(scores, prepared))
    rules = folder.spec.postprocess[options.modality]
    mask = timed(seconds, "postprocess", lambda: postprocess(raw, rules, volume.voxel_ml)[0])
    return Row(REFERENCE, "torch f32, two streams", seconds, mask)


def read(settings: Settings, options: argparse.Namespace) -> Volume:
    with tempfile.TemporaryDirectory() as folder:
        opened = open_upload(Upload((options.series,)), Path(folder), settings)
        case = examine(opened, options.modality, "auto", settings)
        return load_case(case.kind, case.files, case.modality, settings, case.content).volume


def timed(into: dict[str, float], name: str, work: Callable[[], T]) -> T:
    start = time.perf_counter()
    result = work()
    into[name] = time.perf_counter() - start
    return result


def described(row: Row, rows: dict[str, Row]) -> dict[str, object]:
    paper = rows["paper"]
    return {
        "way": row.name,
        "engine": row.engine,
        "seconds": {name: round(value, 3) for name, value in row.seconds.items()},
        "total_s": round(row.total, 3),
        "secondary_s": round(sum(row.seconds.get(name, 0.0) for name in SECONDARY), 3),
        "times_faster_than_paper": round(paper.total / row.total, 2),
        "inference_times_faster": round(paper.seconds["inference"] / row.seconds["inference"], 2),
        "dice_liver": round(dice(row.mask >= LIVER, paper.mask >= LIVER), 5),
        "dice_tumour": round(dice(row.mask > LIVER, paper.mask > LIVER), 5),
    }


def report(
    table: list[dict[str, object]], folder: ModelFolder, options: argparse.Namespace
) -> None:
    """A column for each way, a row for each stage and figure."""
    stages = list(dict.fromkeys(s for row in table for s in row["seconds"]))  # type: ignore[attr-defined]
    rows = [
        [f"{stage} s", *(f"{row['seconds'].get(stage, 0):.2f}" for row in table)]  # type: ignore[attr-defined]
        for stage in stages
    ]
    rows += [[text, *(f"{row[name]:.4g}" for row in table)] for name, text in FIGURES.items()]
    title = f"{folder.spec.id} {folder.spec.version} on {options.series.name} ({options.modality})"
    show(title, ["", *(f"{row['way']}\n{row['engine']}" for row in table)], rows)
    write_json(options.json, {"title": title, "rows": table})


def record(folder: ModelFolder, table: list[dict[str, object]]) -> None:
    """Put what was measured beside each profile of the manifest."""
    measured = {str(row["way"]): row for row in table}
    profiles = {
        name: Profile.model_validate(
            profile.model_dump()
            | {
                "agreement": measured[name]["dice_liver"],
                "speedup": measured[name]["times_faster_than_paper"],
            }
        )
        for name, profile in folder.spec.profiles.items()
    }
    spec = folder.spec.model_copy(update={"profiles": profiles})
    (folder.path / MANIFEST).write_text(spec.model_dump_json(indent=2) + "\n", "utf-8")
    Console().print(f"recorded in {folder.path / MANIFEST}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("series", type=Path, help="DICOM folder, .zip, or NIfTI")
    parser.add_argument("--modality", choices=("ct", "mr"), required=True)
    parser.add_argument("--models", type=Path, default=Path("model/zoo"))
    parser.add_argument("--model", default="small")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("volume.json"))
    parser.add_argument("--record", action="store_true", help="write the figures to the manifest")
    parser.add_argument("--without-reference", action="store_true", help="leave MONAI out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
