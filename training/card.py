"""The model card: what a model was trained on, how it scores on cases it never saw, its limits."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.spec import ModelSpec

from .data import Case
from .records import CURVES

CARD = "README.md"
_HEAD = """# {id} {version}

**Research use only. Not a medical device; not for diagnosis or treatment.**

A-QCF-Net with widths {widths} and a bottleneck of {bottleneck} quaternion channels, trained on
unpaired CT and MR; deployed on either alone through the exact one-stream graph.

Weights: {licence}
"""
_SCORES = """
## Scores on cases it never saw

Held-out patients, through the deployed path (native grid, one modality, the other absent). The
liver counts tumour in. `pseudo` labels are TotalSegmentator's output, so that row is agreement with
another model, not accuracy. Made by `aqcf-train evaluate`.

| case | labels | liver Dice | HD95 mm | mean surface mm | tumour Dice | liver ml | reference ml |
|---|---|---|---|---|---|---|---|
"""
_SHOWABLE = ("CC0-1.0", "MIT", "Apache-2.0", "CC-BY-4.0")
_COLUMNS = (
    "case", "quality", "liver_dice", "liver_hd95_mm", "liver_msd_mm", "tumour_dice", "liver_ml",
    "reference_ml",
)  # fmt: skip


def weights_licence(cases: Sequence[Case]) -> str:
    """What the training data's licences leave for the weights."""
    licences = sorted({case.licence for case in cases})
    free = not any("NC" in licence or "ND" in licence for licence in licences)
    terms = "as the data's licences say" if free else "non-commercial research only"
    return f"{terms}; trained on data under {', '.join(licences)}"


def may_be_shown(case: Case) -> bool:
    """Whether its licence lets slices of the case be published in the card."""
    return case.licence in _SHOWABLE


def write_card(
    folder: Path,
    spec: ModelSpec,
    cases: Sequence[Case],
    scores: Sequence[Mapping[str, str]],
    notes: str,
    pictures: Sequence[Path],
    run: Path,
    validated: str = "",
) -> None:
    """Write ``README.md`` and its pictures into the model folder. ``validated``: the section of
    cross-validated scores."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    curves = [run / CURVES] if (run / CURVES).is_file() else []
    for picture in (*pictures, *curves):
        shutil.copyfile(picture, images / picture.name)
    network = spec.network
    parts = [
        _HEAD.format(
            id=spec.id, version=spec.version, widths=", ".join(map(str, network.widths)),
            bottleneck=network.bottleneck, licence=spec.licence,
        ),
        validated,
        _scores(scores),
        *(f"\n![{p.stem}: the result on a case it never saw](images/{p.name})\n" for p in pictures),
        _training(spec, cases),
        *(f"\n![Learning curves](images/{p.name})\n" for p in curves),
        _export(spec),
        f"\n{notes.strip()}\n" if notes.strip() else "",
    ]  # fmt: skip
    (folder / CARD).write_text("".join(parts), encoding="utf-8")


def _scores(scores: Sequence[Mapping[str, str]]) -> str:
    if not scores:
        return "\n## Scores\n\nNone measured yet: run `aqcf-train evaluate`.\n"
    rows = [" | ".join(row[name] or "-" for name in _COLUMNS) for row in scores]
    return _SCORES + "".join(f"| {row} |\n" for row in rows)


def _training(spec: ModelSpec, cases: Sequence[Case]) -> str:
    rows = "".join(
        f"| {c.name} | {c.patient} | {c.quality} | {c.licence} |\n"
        for c in sorted(cases, key=lambda c: c.name)
    )
    return (
        f"\n## Training\n\n{spec.training['steps']} steps, seed {spec.training['seed']}, "
        f"{spec.training['phantoms_per_modality']} phantoms of abdomens and "
        f"{spec.training['heads_per_modality']} of heads per modality besides:\n\n"
        f"| case | patient | labels | licence |\n|---|---|---|---|\n{rows}"
    )


def _export(spec: ModelSpec) -> str:
    reached = spec.export["reached"]
    rows = "".join(f"| {name} | {value:.1e} |\n" for name, value in reached.items())
    return (
        "\n## Export\n\nLargest difference from the zero-filled two-stream network, relative to "
        f"the largest logit (refused above {spec.export['tolerance']:.0e}):\n\n"
        f"| graph | difference |\n|---|---|\n{rows}"
    )
