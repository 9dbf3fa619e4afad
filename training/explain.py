"""Section 4.3 for a trained network: saliency of the tumour on cases it never saw, how well it
meets the reference, and pictures in the manner of figures 7 and 8.

Each case runs through its modality's one-stream network on the prepared grid, as in deployment. The
saliency map is resampled to the native grid and measured there. The paper states neither layer,
region nor threshold; the defaults here are:

* layer: the last one, in running order, with more channels than classes: the maps that the head
  reads, as in Grad-CAM's paper; of A-QCF-Net the last decoder level. Only a linear head follows, so
  the map is near to the logit itself; a deeper layer asks more, and its map is coarser.
* region: where the network predicts the class, so the reference is not looked at. A network that
  predicts none of it has an empty map and scores 0.
* salient: at least half of the map's maximum.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from model.checkpoint import load_network
from model.errors import ConfigError, InputError
from model.explain import (
    Method,
    Target,
    band_coverage,
    explain_volume,
    layers,
    normalised,
    pointing_hit,
    predicted_region,
    saliency_iou,
)
from model.network import OneStreamNet
from model.nifti import write_nifti
from model.preprocess import Prepared, prepare, resample_label
from model.resample import resample
from model.spec import MANIFEST, ModalitySpec, load_model_folder
from model.types import LIVER, TUMOUR, ImageArray, MaskArray, Modality, ShapeZYX
from model.volume import Volume

from .config import DataConfig
from .data import Case, list_cases, read_case
from .evaluate import picture_name
from .loop import BEST, WEIGHTS
from .methods import Method as Trained
from .methods import load_method
from .records import append_csv
from .run import CONFIG, read_config, unseen_cases
from .saliency_pictures import feature_panel, saliency_overlay
from .stats import summary

EXPLAIN_CSV, SUMMARY = "explain.csv", "summary.md"
Region: TypeAlias = Literal["predicted", "reference", "volume"]
TargetName: TypeAlias = Literal["tumour", "liver"]

_CLASSES: dict[TargetName, int] = {"tumour": TUMOUR, "liver": LIVER}
_AQCF_FEATURES = ("encoder.stem", "fuse.1", "bottleneck")  # early, middle, shared bottleneck


@dataclass(frozen=True)
class Options:
    """What is explained and how it is measured; the module's docstring gives the defaults' reasons.

    ``layer``, ``features``: names of ``model.explain.layers``; without ``features`` only
    A-QCF-Net has the picture of figure 8. ``region``: whose logits are summed. ``threshold``: a
    share of the map's maximum. ``overlap`` of the windows.
    """

    target: TargetName = "tumour"
    method: Method = "gradcam++"
    layer: str | None = None
    region: Region = "predicted"
    threshold: float = 0.5
    tolerance_mm: float = 0.0
    overlap: float = 0.5
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explained:
    """One case. ``reference_ml``: the target's volume in the label (of the liver with tumour).
    ``region_voxels``: of the prepared grid, whose logits were summed. ``band_coverage`` is absent
    where the voxels are too large for a band of 3 mm."""

    case: str
    modality: Modality
    reference_ml: float
    layer: str
    region_voxels: int
    saliency_iou: float
    band_coverage: float | None
    pointing: bool
    seconds: float

    def row(self) -> dict[str, object]:
        values = {**self.__dict__, "pointing": int(self.pointing)}
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}


@dataclass(frozen=True)
class Subject:
    """A trained network and the cases to explain it on."""

    net: nn.Module
    specs: dict[Modality, ModalitySpec]
    classes: int
    cases: tuple[Case, ...]

    def stream(self, modality: Modality) -> nn.Module:
        """The deployed network of one modality, on CUDA where there is one."""
        if not isinstance(self.net, Trained):
            raise TypeError(f"{type(self.net).__name__} has no part for one modality")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return self.net.one_stream(modality).eval().to(device)


def explain_run(
    source: Path, to: Path, *, cases: Sequence[str] | None = None, root: Path | None = None,
    weights: str = "best", options: Options = Options(),
) -> list[Explained]:  # fmt: skip
    """Explain a run (or a model folder, with ``root`` naming its data) on the cases it never saw,
    or on those named.

    Writes ``explain.csv``, ``summary.md``, and per case ``saliency/*.nii.gz`` (native grid, [0,
    1]), ``overlays/*.png``, ``features/*.png``. A case whose label cannot show the target is left
    out with the reason printed. Raises ``ConfigError`` for a folder that is neither, a case, layer,
    method or weights that are not there; and what reading a case raises.
    """
    subject = open_subject(source, cases, root, weights)
    streams = {m: subject.stream(m) for m in sorted({c.modality for c in subject.cases})}
    found, left_out = [], []
    with Console().status("explaining") as status:
        for case in subject.cases:
            status.update(f"explaining {case.name}")
            volume, label = read_case(case)
            reason = _why_not(case, label, options.target)
            if reason:
                left_out.append(f"{case.name}: left out, {reason}")
                continue
            spec, net = subject.specs[case.modality], streams[case.modality]
            found.append(_explain(case, volume, label, net, spec, subject.classes, options, to))
    _report(found, left_out, options, to)
    return found


def open_subject(
    source: Path, cases: Sequence[str] | None, root: Path | None, weights: str
) -> Subject:
    """Load a run's folder or a model folder."""
    if (source / CONFIG).is_file():
        config = read_config(source)
        files = {"best": BEST, "last": WEIGHTS}
        if weights not in files:
            raise ConfigError(f"weights {weights!r}: choose best or last")
        net = load_method(source / files[weights], config)
        data = config.data if root is None else DataConfig(root=root)
        chosen = unseen_cases(config) if cases is None else _named(cases, data)
        return Subject(net, config.modalities, config.network.classes, tuple(chosen))
    if not (source / MANIFEST).is_file():
        raise ConfigError(f"{source} is no run and no model: neither {CONFIG} nor {MANIFEST}")
    if root is None:
        raise ConfigError(f"{source} is a model folder; name the root of the data to explain it on")
    spec = load_model_folder(source).spec
    names = list(spec.scores) if cases is None else cases
    chosen = _named(names, DataConfig(root=root))
    network = load_network(source / "weights.safetensors")
    return Subject(network, spec.modalities, spec.network.classes, tuple(chosen))


def default_layer(net: nn.Module, patch: ShapeZYX, classes: int) -> str:
    """The layer that is explained where none is named; see the module's docstring."""
    wide = [name for name, shape in layers(net, patch).items() if shape[0] > classes]
    if not wide:
        raise ConfigError(f"no layer has more than {classes} channels; name a layer")
    return wide[-1]


def _named(names: Sequence[str], data: DataConfig) -> list[Case]:
    by_name = {case.name: case for case in list_cases(data)}
    for name in names:
        if name not in by_name:
            raise ConfigError(f"case {name!r} is not in {data.root}")
    return [by_name[name] for name in names]


def _why_not(case: Case, label: MaskArray, target: TargetName) -> str:
    """Why the label cannot show the target; empty when it can."""
    if case.quality == "pseudo":
        return "its label is another model's"
    if target == "liver":
        return "" if label.any() else "its label shows no liver"
    if case.quality == "merged":
        return "its label does not tell tumour from liver; the target 'liver' can be explained"
    return "" if (label == TUMOUR).any() else "its label shows no tumour"


def _explain(
    case: Case, volume: Volume, label: MaskArray, net: nn.Module, spec: ModalitySpec, classes: int,
    options: Options, to: Path,
) -> Explained:  # fmt: skip
    start = time.perf_counter()
    layer = options.layer or default_layer(net, spec.patch, classes)
    target = Target(_CLASSES[options.target], layer, options.method)
    mask = label == TUMOUR if options.target == "tumour" else label > 0
    prepared = prepare(volume, spec)
    wanted = resample_label(mask.astype(np.uint8), volume.affine, prepared) > 0
    region = _region(net, prepared.array, wanted, target, spec, classes, options)
    saliency = native_saliency(net, volume, prepared, region, target, spec, options.overlap)
    known = _measured(saliency, mask, volume, options)
    voxels = wanted.size if region is None else int(np.count_nonzero(region))
    explained = Explained(
        case.name, case.modality, float(mask.sum()) * volume.voxel_ml, layer, voxels, *known,
        seconds=time.perf_counter() - start,
    )  # fmt: skip
    _write(case, explained, volume, mask, saliency, to)
    features = options.features or (_AQCF_FEATURES if isinstance(net, OneStreamNet) else ())
    if features:
        picture = _file(to / "features", case, ".png")
        feature_panel(picture, net, prepared, wanted, spec.patch, features, case.name)
    return explained


def native_saliency(
    net: nn.Module, volume: Volume, prepared: Prepared, region: NDArray[np.bool_] | None,
    target: Target, spec: ModalitySpec, overlap: float,
) -> ImageArray:  # fmt: skip
    """``explain_volume`` on the grid of ``volume``, normalised to [0, 1]; 0 outside the body."""
    coarse = explain_volume(
        net, prepared.array, region, target, patch=spec.patch, overlap=overlap
    )  # fmt: skip
    return normalised(resample(coarse, prepared.affine, volume.affine, volume.shape))


def _region(
    net: nn.Module, array: ImageArray, wanted: NDArray[np.bool_], target: Target,
    spec: ModalitySpec, classes: int, options: Options,
) -> NDArray[np.bool_] | None:  # fmt: skip
    if options.region == "volume":
        return None
    if options.region == "reference":
        return wanted
    if options.region != "predicted":
        raise ConfigError(f"region {options.region!r}: choose predicted, reference or volume")
    return predicted_region(
        net, array, target.class_index, patch=spec.patch, overlap=options.overlap, classes=classes
    )


def _measured(
    saliency: ImageArray, mask: NDArray[np.bool_], volume: Volume, options: Options
) -> tuple[float, float | None, bool]:
    return (
        saliency_iou(saliency, mask, options.threshold),
        _coverage(saliency, mask, volume, options.threshold),
        pointing_hit(saliency, mask, volume.spacing_mm, options.tolerance_mm),
    )


def _coverage(
    saliency: ImageArray, mask: NDArray[np.bool_], volume: Volume, threshold: float
) -> float | None:
    try:
        return band_coverage(saliency, mask, volume.spacing_mm, threshold=threshold)
    except InputError as error:
        if error.code == "no_band":
            return None
        raise


def _write(
    case: Case, found: Explained, volume: Volume, mask: NDArray[np.bool_], saliency: ImageArray,
    to: Path,
) -> None:  # fmt: skip
    write_nifti(_file(to / "saliency", case, ".nii.gz"), saliency, volume.affine)
    covered = "-" if found.band_coverage is None else f"{100 * found.band_coverage:.0f} %"
    title = (
        f"{case.name}: saliency IoU {found.saliency_iou:.2f}, 3 mm band {covered}, "
        f"peak {'inside' if found.pointing else 'outside'}"
    )
    saliency_overlay(_file(to / "overlays", case, ".png"), volume, mask, saliency, title)


def _file(folder: Path, case: Case, suffix: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / (picture_name(case).removesuffix(".png") + suffix)


def _report(found: list[Explained], left_out: list[str], options: Options, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    (to / EXPLAIN_CSV).unlink(missing_ok=True)
    append_csv(to / EXPLAIN_CSV, [item.row() for item in found])
    text = summary_table(found, options) + "".join(f"\n- {line}" for line in left_out)
    (to / SUMMARY).write_text(text + "\n", encoding="utf-8")
    Console().print(text, markup=False)


def summary_table(found: Sequence[Explained], options: Options) -> str:
    """Mean ± SD over the cases, per modality and together, as Markdown."""
    lines = [
        f"Saliency of the {options.target} ({options.method}, region: {options.region}, salient "
        f"from {options.threshold:g} of the maximum), mean ± SD over cases.",
        "",
        "| | Cases | Saliency-IoU | 3 mm band covered, % | Pointing game |",
        "| --- | --- | --- | --- | --- |",
    ]
    names = sorted({item.modality for item in found})
    groups = {name.upper(): [i for i in found if i.modality == name] for name in names}
    if len(groups) > 1:
        groups["Both"] = list(found)
    for name, items in groups.items():
        iou = _mean_sd([item.saliency_iou for item in items], 2)
        known = [item.band_coverage for item in items if item.band_coverage is not None]
        band = _mean_sd([100 * share for share in known], 0)
        hits = sum(item.pointing for item in items)
        share = f"{100 * hits / len(items):.0f} % ({hits}/{len(items)})"
        lines.append(f"| {name} | {len(items)} | {iou} | {band} | {share} |")
    return "\n".join([*lines, ""])


def _mean_sd(values: Sequence[float], digits: int) -> str:
    """A single value has no SD; none is a dash."""
    if len(values) > 1:
        return summary(values).mean_sd(digits)
    return f"{values[0]:.{digits}f}" if values else "–"
