"""What the fusion gates do with both modalities present (section 4.4.2, table 6)."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.network import AQCFNet
from model.preprocess import prepare, resample_label
from model.types import MODALITIES, ImageArray, MaskArray, ShapeZYX

from .config import TrainConfig
from .data import Case, read_case
from .records import append_csv

GATES_CSV = "gates.csv"


@dataclass(frozen=True)
class GateRow:
    """The gates of one stage (1 is the shallowest) for one unpaired CT and MR patch."""

    pair: str
    stage: int
    mr_to_ct: float
    ct_to_mr: float


def measure_gates(net: AQCFNet, cases: Sequence[Case], config: TrainConfig) -> list[GateRow]:
    """Every CT case with every MR case, one patch of each, centred on its liver."""
    patches = {
        m: [(case.name, _patch(case, config)) for case in cases if case.modality == m]
        for m in MODALITIES
    }
    rows = []
    with torch.inference_mode():
        for (ct_name, ct), (mr_name, mr) in product(patches["ct"], patches["mr"]):
            rows += list(_rows(f"{ct_name} {mr_name}", net.eval().gates(ct, mr)))
    return rows


def write_gates(run: Path, rows: Sequence[GateRow]) -> None:
    """``gates.csv`` of a run, anew."""
    (run / GATES_CSV).unlink(missing_ok=True)
    append_csv(run / GATES_CSV, [asdict(row) for row in rows])


def _rows(pair: str, gates: Sequence[tuple[Tensor, Tensor]]) -> Iterator[GateRow]:
    for stage, (to_ct, to_mr) in enumerate(gates, start=1):
        yield GateRow(pair, stage, round(to_ct.item(), 5), round(to_mr.item(), 5))


def _patch(case: Case, config: TrainConfig) -> Tensor:
    spec = config.modalities[case.modality]
    volume, label = read_case(case)
    prepared = prepare(volume, spec)
    mask = resample_label(label, volume.affine, prepared)
    return torch.from_numpy(centred_patch(prepared.array, mask, spec.patch)[None, None])


def centred_patch(image: ImageArray, mask: MaskArray, patch: ShapeZYX) -> ImageArray:
    """The patch around the centroid of ``mask`` (of the image, where it is empty), inside the image
    and padded with zeros where the image is smaller. All ``(z, y, x)``."""
    found = np.argwhere(mask > 0)
    centre = found.mean(0) if len(found) else np.array(image.shape) / 2
    room = np.maximum(np.array(image.shape) - patch, 0)
    start = np.clip(np.rint(centre - np.array(patch) / 2), 0, room).astype(int)
    box = image[tuple(slice(a, a + p) for a, p in zip(start, patch, strict=True))]
    missing = [(0, p - n) for n, p in zip(box.shape, patch, strict=True)]
    return np.pad(box, missing).astype(np.float32)
