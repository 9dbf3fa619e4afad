"""A study's folder with numbers that can be checked by hand, and its images."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.nifti import write_nifti
from training.report.blocks import Block, Details, Table

NAME = "tiny <b>&"
EVIL = "<script>window.hurt = 1</script> | *x* $y$"
FOLDS = (("ct/a", "ct/b", "mr/a"), ("ct/c", "mr/b"), ("ct/d", "mr/c"))
TUMOURS = ("ct/a", "ct/c")
LICENCES = {"ct/a": "CC0-1.0", "ct/b": "CC-BY-NC-ND-4.0", "mr/a": "CC-BY-4.0"}
VARIANTS = (
    ("full", "A-QCF-Net", "main"),
    ("no_gate", "No adaptive gate", "ablation"),
    ("no_quaternions", "No quaternions", "ablation"),
    ("exchange_dropout", "Exchange dropout", "option"),
    ("dynunet", "nnU-Net", "baseline"),
    ("unetr", EVIL, "baseline"),
)
LIVER = {"ct/a": 0.9, "ct/b": 0.8, "ct/c": 0.95, "ct/d": 0.9,
         "mr/a": 0.8, "mr/b": 0.82, "mr/c": 0.84}  # fmt: skip
LIVER_MM = {"ct/a": 4, "ct/b": 6, "ct/c": 7, "ct/d": 6, "mr/a": 8, "mr/b": 9, "mr/c": 10}
TUMOUR = {"ct/a": 0.5, "ct/c": 0.7}
TUMOUR_MM = {"ct/a": 10, "ct/c": 20}
FULL: dict[str, dict[str, Any]] = {
    case: {
        "liver_dice": LIVER[case], "liver_hd95_mm": LIVER_MM[case],
        "liver_msd_mm": LIVER_MM[case] / 4,
        "tumour_dice": TUMOUR.get(case, ""), "tumour_hd95_mm": TUMOUR_MM.get(case, ""),
        "tumour_msd_mm": TUMOUR_MM[case] / 5 if case in TUMOUR_MM else "",
    }
    for case in LIVER
}  # fmt: skip
Values = Mapping[str, Mapping[str, Any]]
SHAPE = (6, 20, 24)
SPACING = (5.0, 2.0, 2.0)


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_scores(file: Path, values: Values, cases: Iterable[str]) -> None:
    rest = {"quality": "full", "liver_ml": 1500.0, "reference_ml": 1490.0, "seconds": 1.5}
    rows = [{"case": c, "modality": c[:2], **rest, **values[c]} for c in cases]
    write_rows(file, rows)


def scaled(factor: float) -> Values:
    """``FULL`` with every Dice multiplied."""
    return {
        case: {
            name: value * factor if name.endswith("_dice") and value != "" else value
            for name, value in values.items()
        }
        for case, values in FULL.items()
    }


def tables(blocks: Iterable[Block]) -> list[Table]:
    """All tables, folded ones too."""
    found: list[Table] = []
    for block in blocks:
        if isinstance(block, Table):
            found.append(block)
        if isinstance(block, Details):
            found += tables(block.blocks)
    return found


def one_table(blocks: Iterable[Block], start: str) -> Table:
    return next(t for t in tables(blocks) if t.caption.startswith(start))


def texts(table: Table) -> list[list[str]]:
    """A cell's text, a star on the best, its footnotes' texts in brackets."""
    notes = dict(table.notes)
    return [
        [
            cell.text + "*" * cell.best + "".join(f" ({notes[mark]})" for mark in cell.marks)
            for cell in row.cells
        ]
        for row in table.rows
    ]


def label_of(case: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    label = np.zeros(SHAPE, np.uint8)
    label[1:5, 5:15, 4:16] = 1
    if case in TUMOURS:
        label[3, 8:12, 6:10] = 2
    return label


def write_run(run: Path, variant: str, values: Values, fold: int) -> None:
    write_scores(run / "scores.csv", values, FOLDS[fold])
    shift = 0.1 * fold
    external = {
        "ct/x": {"liver_dice": 0.9 - shift, "liver_hd95_mm": 5, "liver_msd_mm": 1},
        "ct/y": {"liver_dice": 0.7 - shift, "liver_hd95_mm": 7, "liver_msd_mm": 2},
        "mr/z": {"liver_dice": 0.6, "tumour_dice": 0.4},
    }
    if variant in ("full", "dynunet"):
        write_scores(run / "external_ircadb.csv", external, ("ct/x", "ct/y"))
        write_scores(run / "external_hcc.csv", external, ("mr/z",))
    facts = {
        "name": variant, "method": "aqcf", "variant": variant, "fold": fold, "seed": 7, "steps": 40,
        "parameters": 12345, "device": "CPU", "threads": 2, "precision": "32-true", "hours": 0.5,
        "command": "aqcf-train fold runs/tiny full 0", "torch": "2.13.0",
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps(facts))
    steps = [
        {
            "step": s,
            "lr": 0.001,
            "ct": 2 / s + shift,
            "mr": 3 / s,
            "dice_ct": 0.1 * s,
            "dice_mr": "",
        }
        for s in (1, 2, 4)
    ]
    write_rows(run / "steps.csv", steps)
    validation = [
        {"step": s, "case": c, "modality": c[:2], "liver_dice": d - shift, "tumour_dice": ""}
        for s in (2, 4)
        for c, d in (("ct/p", 0.4 + 0.1 * s), ("ct/q", 0.2 + 0.1 * s), ("mr/p", 0.5))
    ]
    write_rows(run / "validation.csv", validation)
    if variant == "full":
        rows = [
            {"pair": "ct/a mr/a", "stage": k, "mr_to_ct": 0.2 * (fold + 1), "ct_to_mr": k / 10}
            for k in (1, 2, 3, 4)
        ]
        write_rows(run / "gates.csv", rows)


def write_masks(study: Path) -> None:
    """Of all cases by the main variant; of one by a baseline, and by another on a wrong grid."""
    affine = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])
    wanted = [("full", fold, case) for fold, cases in enumerate(FOLDS) for case in cases]
    for variant, fold, case in (*wanted, ("dynunet", 0, "ct/a")):
        masks = study / variant / f"fold_{fold}" / "masks"
        masks.mkdir(parents=True, exist_ok=True)
        mask = np.roll(label_of(case), 1, 2)
        write_nifti(masks / f"{case.replace('/', '_')}.nii.gz", mask, affine)
    wrong = study / "unetr" / "fold_0" / "masks"
    wrong.mkdir(parents=True)
    write_nifti(wrong / "ct_a.nii.gz", label_of("ct/a")[:3], affine)


def write_images(root: Path) -> Path:
    """A block of liver in each case, brighter; a tumour in it where ``TUMOURS`` says so."""
    rows = []
    affine = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])
    for case in FULL:
        label = label_of(case)
        array = (np.random.default_rng(0).normal(0, 10, SHAPE) + 60 * label).astype(np.int16)
        (root / case).mkdir(parents=True)
        write_nifti(root / case / "image.nii.gz", array, affine)
        write_nifti(root / case / "label.nii.gz", label, affine)
        rows.append(
            {"case": case, "modality": case[:2], "patient": case, "labels": "full",
             "licence": LICENCES.get(case, "CC-BY-SA-4.0")}
        )  # fmt: skip
    (root / "cases.json").write_text(json.dumps(rows))
    return root


def write_plan(folder: Path, config: Mapping[str, Any], /, **changes: object) -> Path:
    """``study.json``; returns the folder."""
    variants = [{"name": n, "title": t, "group": g} for n, t, g in VARIANTS]
    values = {
        "name": NAME, "config": config, "folds": FOLDS, "variants": variants,
        "external": {"ircadb": "3D-IRCADb", "hcc": "LiverHccSeg"},
        "commands": ["aqcf-train crossval /home/me/tiny.yaml --study runs/tiny"], **changes,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(values), "utf-8")
    return folder


def write_study(folder: Path) -> Path:
    """The main variant and two others whole; an ablation and a baseline on one fold only; an option
    that was not begun. Returns the folder."""
    lower: dict[str, dict[str, Any]] = {
        case: {**values, "liver_dice": values["liver_dice"] - 0.05} for case, values in FULL.items()
    }
    for name, value in TUMOUR.items():
        lower[name]["tumour_dice"] = value + 0.1
    for variant, values, folds in (
        ("full", FULL, (0, 1, 2)),
        ("no_gate", scaled(0.9), (0, 1, 2)),
        ("no_quaternions", scaled(0.5), (1,)),
        ("dynunet", lower, (0, 1, 2)),
        ("unetr", scaled(1.02), (0,)),
    ):
        for fold in folds:
            write_run(folder / variant / f"fold_{fold}", variant, values, fold)
    write_masks(folder)
    return folder
