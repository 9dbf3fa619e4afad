"""Tables 2 to 7, laid out as the paper's."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from model.types import MODALITIES, Modality

from ..records import read_csv
from .blocks import Block, Cell, Column, Details, Heading, Notes, Row, Table, Text
from .study import GATES_CSV, Score, Study, Variant
from .summary import (
    DICE,
    METRICS,
    Change,
    GateSpread,
    Spread,
    change,
    fold_means,
    gate_spreads,
    mean_dsc,
    over_cases,
    over_folds,
)
from .wording import (
    METRIC_NAMES,
    MODALITY_NAMES,
    NONE,
    counted,
    crossval,
    fold_list,
    is_dice,
    listed,
    mean_sd,
    missing,
    number,
)

_GROUPS = ("Dice (%) ↑", "HD95 (mm) ↓", "MSD (mm) ↓")
COLUMNS = (
    Column("Model"),
    *(Column(name, group) for group in _GROUPS for name in ("Liver", "Tumour")),
)
FUSION = ("no_gate", "no_cross_fusion")  # the paper's two parts of table 7
_STAGES = {1: "Stage 1 (low-level features)", 4: "Stage 4 (high-level semantics)"}
_HOW = (
    "Mean ± SD across the folds: first the mean over the cases of a fold, then mean and sample "
    "standard deviation of these. The liver counts tumour in. A tumour is measured where the "
    "reference has one; an empty prediction there has Dice 0 and, for distances, the diagonal of "
    "the volume. Bold: the best of the methods that were scored on the same folds as the first row."
)

Over: TypeAlias = Callable[[Iterable[Score], str], Spread | None]


@dataclass(frozen=True)
class Method:
    """A row of tables 2 to 5."""

    variant: Variant
    scores: Sequence[Score]


def comparison_tables(study: Study) -> list[Block]:
    """Tables 2 (CT) and 3 (MR), and the same over cases."""
    blocks: list[Block] = [Heading("Comparison on the held-out folds (tables 2 and 3)"), Text(_HOW)]
    for label, modality in zip(("Table 2", "Table 3"), MODALITIES, strict=True):
        name = MODALITY_NAMES[modality]
        methods = [Method(v, study.scores(v, modality)) for v in study.methods]
        blocks += _comparison(f"{label}. {name} of {study.plan.name}", methods, study)
    return blocks


def external_tables(study: Study) -> list[Block]:
    """Tables 4 (CT) and 5 (MR): further data sets, without fine-tuning; several get letters."""
    blocks: list[Block] = [Heading("Generalisation to further data sets (tables 4 and 5)")]
    if not study.plan.external:
        sentence = "The study names no further data set. Set protocol.external in its configuration"
        return [*blocks, *missing(f"{sentence}, then go on with it:", crossval(study))]
    blocks.append(Text("The model of every fold is tested on all cases, without fine-tuning."))
    for label, modality in zip(("Table 4", "Table 5"), MODALITIES, strict=True):
        blocks += _external(study, label, modality)
    waiting = [title for name, title in study.plan.external.items() if not _tested(study, name)]
    if waiting:
        blocks += missing(f"Not scored yet: {listed(waiting)}. To score:", crossval(study))
    return blocks


def external_sets(study: Study, modality: Modality) -> list[tuple[str, list[Method]]]:
    """Titles and rows of the data sets that have scores of a modality."""
    found = []
    for name, title in study.plan.external.items():
        methods = [Method(v, study.external(v, name, modality)) for v in study.methods]
        if any(method.scores for method in methods):
            found.append((title or name, methods))
    return found


def gate_table(study: Study) -> list[Block]:
    """Table 6: median and quartiles of the gates of the main variant's folds."""
    head = Heading("Fusion gates (table 6)")
    spreads = main_gates(study)
    if not spreads:
        sentence = f"No fold of {study.main.title} has a {GATES_CSV} yet. To measure its gates:"
        return [head, *missing(sentence, crossval(study))]
    columns = (Column("Encoder stage"), Column("MR → CT gate λ"), Column("CT → MR gate λ"))
    pairs = listed(sorted({counted(s.count, "pair") for s in spreads}))
    caption = (
        f"Table 6. Median [interquartile range] of the gates of {study.main.title}, all folds "
        f"together: {pairs} of an unpaired CT and MR patch per stage"
    )
    return [head, Table(caption, columns, tuple(_gate_row(s) for s in spreads))]


def main_gates(study: Study) -> list[GateSpread]:
    runs = study.runs_of(study.main)
    return gate_spreads([row for run in runs for row in read_csv(run.folder / GATES_CSV)])


def ablation_table(study: Study) -> list[Block]:
    """Table 7: every ablation and option against the full model, on the same folds."""
    head = Heading("Ablations (table 7)")
    full = mean_dsc(study.scores(study.main))
    if full is None:
        sentence = f"{study.main.title} has no scores yet. To train and score it:"
        return [head, *missing(sentence, crossval(study))]
    parts = ablation_parts(study)
    notes = Notes()
    rows = [_full_row(study, full, notes)]
    for title, variants in parts:
        rows.append(Row((Cell(title),), part=True))
        rows += [_ablation_row(study, variant, notes) for variant in variants]
    caption = (
        "Table 7. Mean DSC: Dice averaged over the liver and tumour classes that a fold knows, "
        "then over CT and MR; mean ± SD across the folds. Change: against the full model, relative"
    )
    columns = (Column("Model configuration"), Column("Mean DSC (± SD)"), Column("% change"))
    blocks: list[Block] = [head, Table(caption, columns, tuple(rows), notes.listed())]
    if not parts:
        blocks += missing(
            "The study has no ablation. Name some in protocol.variants of its configuration, or "
            "all, then go on with it:",
            crossval(study),
        )
    return blocks


def ablation_parts(study: Study) -> list[tuple[str, list[Variant]]]:
    """The parts of table 7 that have rows."""
    ablations = study.others("ablation")
    parts = [
        ("Fusion block ablations", [v for v in ablations if v.name in FUSION]),
        ("Architecture backbone ablations", [v for v in ablations if v.name not in FUSION]),
        ("Options", study.others("option")),
    ]
    return [(title, variants) for title, variants in parts if variants]


def _comparison(caption: str, methods: Sequence[Method], study: Study) -> list[Block]:
    if not any(method.scores for method in methods):
        return missing(f"{caption}: nothing is scored yet. To train and score:", crossval(study))
    by_case = "The same by case: mean ± SD over all cases"
    return [
        _score_table(caption, methods, over_folds),
        Details(by_case, (_score_table(f"{caption}, by case", methods, over_cases),)),
    ]


def _external(study: Study, label: str, modality: Modality) -> list[Block]:
    sets = external_sets(study, modality)
    if not sets:
        sentence = f"{label}: no {MODALITY_NAMES[modality]} data set has been scored."
        return [Text(sentence, "missing")]
    blocks: list[Block] = []
    for number_, (title, methods) in enumerate(sets):
        letter = chr(ord("a") + number_) if len(sets) > 1 else ""
        caption = f"{label}{letter}. {MODALITY_NAMES[modality]} of {title}"
        blocks += _comparison(caption, methods, study)
    return blocks


def _tested(study: Study, name: str) -> bool:
    return any(study.external(v, name, m) for v in study.methods for m in MODALITIES)


def _score_table(caption: str, methods: Sequence[Method], over: Over) -> Table:
    notes = Notes()
    best = {metric: _best(methods, metric, over) for metric in METRICS}
    rows = [
        Row((
            Cell(method.variant.title, marks=(notes.mark(_extent(method.scores)),)),
            *(_score_cell(method, metric, over, best[metric], notes) for metric in METRICS),
        ))
        for method in methods
    ]  # fmt: skip
    return Table(caption, COLUMNS, tuple(rows), notes.listed())


def _extent(scores: Sequence[Score]) -> str:
    if not scores:
        return "not scored yet"
    folds, cases = {s.fold for s in scores}, {s.case for s in scores}
    tumours = {s.case for s in scores if "tumour_dice" in s.values}
    return (
        f"{counted(len(folds), 'fold')}, {counted(len(cases), 'case')}, of which {len(tumours)} "
        "with a tumour in the reference"
    )


def _score_cell(method: Method, metric: str, over: Over, best: str | None, notes: Notes) -> Cell:
    spread = over(method.scores, metric)
    if spread is None:
        return Cell(NONE, marks=(notes.mark(_why_unknown(method.scores, metric)),))
    text = mean_sd(metric, spread)
    marks = []
    folds = fold_means(method.scores, metric)
    if len(folds) < len({s.fold for s in method.scores}):
        marks.append(notes.mark(f"known in {fold_list(list(folds))} only"))
    if spread.sd is None:
        marks.append(notes.mark("a single value: no SD"))
    return Cell(text, number(metric, spread.mean) == best, tuple(marks))


def _why_unknown(scores: Sequence[Score], metric: str) -> str:
    if not scores:
        return "not scored yet"
    if metric.startswith("tumour") and not any("tumour_dice" in s.values for s in scores):
        return "no case has a tumour in the reference"
    return "not in the files of scores"


def _best(methods: Sequence[Method], metric: str, over: Over) -> str | None:
    """The best mean as it is printed, among the methods on the folds of the first; none where
    nothing is better than another."""
    folds = fold_means(methods[0].scores, metric).keys()
    means = [
        spread.mean
        for method in methods
        if (spread := over(method.scores, metric))
        and fold_means(method.scores, metric).keys() == folds
    ]
    printed = {number(metric, mean) for mean in means}
    if len(printed) < 2:
        return None
    return number(metric, max(means) if is_dice(metric) else min(means))


def _gate_row(spread: GateSpread) -> Row:
    name = _STAGES.get(spread.stage, f"Stage {spread.stage}")
    directions = (spread.mr_to_ct, spread.ct_to_mr)
    cells = (Cell(f"{mid:.2f} [{low:.2f}, {high:.2f}]") for low, mid, high in directions)
    return Row((Cell(name), *cells))


def _full_row(study: Study, full: Spread, notes: Notes) -> Row:
    marks = (notes.mark(_classes(study.scores(study.main))),)
    title = f"{study.main.title} (full model)"
    return Row((Cell(title, best=True, marks=marks), Cell(_dsc(full), best=True), Cell("—")))


def _classes(scores: Sequence[Score]) -> str:
    """Which classes the mean is of: with few tumours it differs between the folds."""
    known = []
    for modality in MODALITIES:
        own = [s for s in scores if s.modality == modality]
        for metric in DICE:
            folds = fold_means(own, metric)
            name = f"{MODALITY_NAMES[modality]} {METRIC_NAMES[metric].split()[0].lower()}"
            known.append(f"{name} in {counted(len(folds), 'fold')}")
    return f"{counted(len({s.fold for s in scores}), 'fold')}; {listed(known)}"


def _ablation_row(study: Study, variant: Variant, notes: Notes) -> Row:
    own, main = study.scores(variant), study.scores(study.main)
    found, name = change(own, main), f"– {variant.title}"
    if found is None:
        why = "no fold in common with the full model" if own else "not scored yet"
        return Row((Cell(name), Cell(NONE, marks=(notes.mark(why),)), Cell(NONE)))
    less = found.cases < len({(s.fold, s.case) for s in main})
    marks = (notes.mark(_restriction(found)),) if less else ()
    percent = NONE if found.percent is None else f"{found.percent:+.1f}%"
    return Row((Cell(name, marks=marks), Cell(_dsc(found.own)), Cell(percent)))


def _restriction(found: Change) -> str:
    folds = fold_list(list(found.own.values))
    return (
        f"{folds} only, {counted(found.cases, 'case')}; there the full model has {_dsc(found.main)}"
    )


def _dsc(spread: Spread) -> str:
    return f"{spread.mean:.3f}" + ("" if spread.sd is None else f" ± {spread.sd:.3f}")


__all__ = [
    "Method", "ablation_parts", "ablation_table", "comparison_tables", "external_sets",
    "external_tables", "gate_table", "main_gates",
]  # fmt: skip
