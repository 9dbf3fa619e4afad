"""The head of a report: what was done, with what, and what its numbers can and cannot show."""

from collections.abc import Iterable, Sequence

from model.types import MODALITIES, Modality

from ..records import STEPS_CSV, read_csv
from .blocks import (
    Block,
    Bullets,
    Command,
    Details,
    Facts,
    Heading,
    Row,
    Table,
    Text,
    plain_columns,
    plain_row,
)
from .compare import ALPHA, smallest_p
from .study import Run, Score, Study, Variant
from .wording import (
    MODALITY_NAMES,
    NONE,
    counted,
    crossval,
    fold_list,
    listed,
    missing,
    without_places,
)

FEW = 20  # cases with a tumour, below which figures on tumours are anecdotes


def head(study: Study) -> list[Block]:
    """What it is, how far it is, its folds, its limits."""
    return [
        Text(_what(study)),
        Facts(tuple(_facts(study))),
        *_commands(study),
        *_waiting(study),
        _variants(study),
        Heading("Folds"),
        Text("By patient; stratified by modality and tumour presence. Each case is tested once."),
        _folds(study),
        Details("The cases of each fold", (Bullets(tuple(_names(study))),)),
        Heading("What these numbers can and cannot show"),
        Bullets(tuple(limits(study))),
    ]


def runs_table(study: Study) -> list[Block]:
    """Every run: hours, steps, parameters, last losses."""
    columns = plain_columns(
        "Variant", "Fold", "Seed", "Steps", "Parameters", "Hours", "Last loss CT", "Last loss MR",
        "Cases scored",
    )  # fmt: skip
    titles = {v.name: v.title for v in study.plan.variants}
    rows = (
        plain_row(
            titles[run.variant], str(run.fold),
            *(_number(run.facts.get(key)) for key in ("seed", "steps", "parameters", "hours")),
            *_last_losses(run), str(len(run.scores)),
        )
        for run in study.runs
    )  # fmt: skip
    return [Heading("Runs"), Details("All runs", (Table("Runs", columns, tuple(rows)),))]


def cases_table(study: Study) -> list[Block]:
    """Every case of the main variant."""
    head_ = Heading(f"Cases of {study.main.title}")
    scores = study.scores(study.main)
    if not scores:
        return [head_, *missing("No case is scored yet. To train and score:", crossval(study))]
    columns = plain_columns(
        "Case", "Fold", "Labels", "Liver Dice (%)", "Tumour Dice (%)", "Liver HD95 (mm)",
        "Tumour HD95 (mm)", "Liver MSD (mm)", "Tumour MSD (mm)", "Liver (ml)", "Reference (ml)",
        "Seconds",
    )  # fmt: skip
    rows = tuple(_case_row(s) for s in sorted(scores, key=lambda s: (s.modality, s.case)))
    return [
        head_,
        Details("All cases", (Table("Cases, each by the fold it is in", columns, rows),)),
    ]


def limits(study: Study) -> list[str]:
    """Facts that are computed from the study."""
    scores = study.scores(study.main)
    return [
        *(_limit_of(study, modality) for modality in MODALITIES),
        *_limit_of_labels(scores),
        _limit_of_folds(study, scores),
        *_limit_of_seeds(study),
        _limit_of_validation(study),
        "Every score is of the deployed path: the native grid, one modality, the other absent.",
    ]


def _what(study: Study) -> str:
    config = study.plan.config
    groups = [
        counted(len(study.others(group)), group)
        for group in ("baseline", "ablation", "option")
    ]  # fmt: skip
    return (
        f"{study.main.title}, {len(study.plan.folds)}-fold cross-validation with the configuration "
        f"{config.name!r}, beside {listed(groups)}. Laid out as tables 2 to 7 of the paper. "
        "Research use only; not a medical device."
    )


def _facts(study: Study) -> Iterable[tuple[str, str]]:
    config, facts = study.plan.config, [run.facts for run in study.runs if run.facts]
    for name, key in (
        ("Device", "device"), ("Threads", "threads"), ("Precision", "precision"),
        ("PyTorch", "torch"), ("Seeds", "seed"), ("Steps of a run", "steps"),
    ):  # fmt: skip
        values = {str(f[key]) for f in facts if f.get(key) is not None}
        yield name, listed(sorted(values)) or "not known yet"
    hours = sum(_float(f.get("hours")) for f in facts)
    yield "Hours, all runs", f"{hours:.1f} in {counted(len(facts), 'run')}"
    dates = sorted({run.scored_on for run in study.runs if run.scored_on})
    yield "Scored", listed(dict.fromkeys((dates[0], dates[-1]))) if dates else "not yet"
    yield "Patch, CT and MR (z, y, x)", _patches(study)
    yield "Batch", f"{config.batch_size} CT + {config.batch_size} MR"
    yield "Optimiser", f"AdamW, {config.optimiser.lr:g}, {config.optimiser.schedule}"


def _commands(study: Study) -> list[Block]:
    if not study.plan.commands:
        return []
    return [Text("Made with:"), *(Command(without_places(c)) for c in study.plan.commands)]


def _patches(study: Study) -> str:
    patches = {m: spec.patch for m, spec in study.plan.config.modalities.items()}
    return listed(" x ".join(map(str, patches[m])) for m in MODALITIES)


def _waiting(study: Study) -> list[Block]:
    """Runs that have no scores."""
    waiting = {v: [r.fold for r in study.runs_of(v) if not r.scores] for v in study.plan.variants}
    texts = [f"{v.title} ({fold_list(folds)})" for v, folds in waiting.items() if folds]
    if not texts:
        return []
    return missing(f"Not scored yet: {'; '.join(texts)}. To go on:", crossval(study))


def _variants(study: Study) -> Table:
    columns = plain_columns("Variant", "Group", "Parameters", "Steps", "Folds scored", "Hours")
    rows = tuple(_variant_row(study, variant) for variant in study.plan.variants)
    return Table("What was trained", columns, rows)


def _variant_row(study: Study, variant: Variant) -> Row:
    runs = study.runs_of(variant)
    parameters, steps = (
        listed(dict.fromkeys(_number(r.facts[key]) for r in runs if key in r.facts)) or NONE
        for key in ("parameters", "steps")
    )
    scored = sum(bool(run.scores) for run in runs)
    hours = sum(_float(run.facts.get("hours")) for run in runs)
    return plain_row(
        variant.title, variant.group, parameters, steps,
        f"{scored} of {len(runs)}", f"{hours:.2f}",
    )  # fmt: skip


def _folds(study: Study) -> Table:
    """Tumours are counted in the cases whose scores know one, of whichever variant."""
    tumours = _with_tumour(score for run in study.runs for score in run.scores)
    names = [MODALITY_NAMES[m] for m in MODALITIES]
    columns = plain_columns(
        "Fold", *(f"{n} cases" for n in names), *(f"{n} with a tumour reference" for n in names)
    )
    rows = [
        plain_row(str(k), *_counts(fold, None), *_counts(fold, tumours))
        for k, fold in enumerate(study.plan.folds)
    ]
    everything = [case for fold in study.plan.folds for case in fold]
    rows.append(plain_row("All", *_counts(everything, None), *_counts(everything, tumours)))
    return Table("Test cases of each fold", columns, tuple(rows))


def _counts(cases: Sequence[str], among: set[str] | None) -> list[str]:
    own = [case for case in cases if among is None or case in among]
    return [str(sum(_is(case, m) for case in own)) for m in MODALITIES]


def _names(study: Study) -> Iterable[str]:
    return (f"Fold {k}: {listed(sorted(fold))}" for k, fold in enumerate(study.plan.folds))


def _limit_of(study: Study, modality: Modality) -> str:
    name = MODALITY_NAMES[modality]
    cases = [c for fold in study.plan.folds for c in fold if _is(c, modality)]
    scores = study.scores(study.main, modality)
    tumours = len(_with_tumour(scores))
    said = f"{name}: {counted(len(cases), 'case')} in {len(study.plan.folds)} folds"
    if not scores:
        return f"{said}; none is scored yet, so nothing is known."
    if not tumours:
        return f"{said}, none with a tumour in the reference: nothing is known about tumours."
    few = f": figures on {name} tumours are anecdotal" if tumours < FEW else ""
    return f"{said}, {tumours} with a tumour in the reference{few}."


def _limit_of_labels(scores: Sequence[Score]) -> list[str]:
    kinds = {kind: {s.case for s in scores if s.quality == kind} for kind in _qualities(scores)}
    if not kinds:
        return []
    counts = listed(f"{kind} {len(cases)}" for kind, cases in kinds.items())
    return [
        f"Labels of the test cases: {counts} (merged: tumour counted as liver, not told apart)."
    ]


def _qualities(scores: Sequence[Score]) -> list[str]:
    return sorted({s.quality for s in scores if s.quality})


def _limit_of_folds(study: Study, scores: Sequence[Score]) -> str:
    done, asked = len({s.fold for s in scores}), len(study.plan.folds)
    if not done:
        return f"No fold of {study.main.title} is scored yet."
    least = smallest_p(done)
    ending = f"A test on {counted(done, 'fold')} cannot give p below {least:.4g}"
    if least > ALPHA:
        ending += f", so it cannot reach {ALPHA}"
    return f"{done} of {asked} folds of {study.main.title} are scored. {ending}."


def _limit_of_seeds(study: Study) -> list[str]:
    seeds = {run.facts.get("seed") for run in study.runs if run.facts}
    if len(seeds) != 1:
        return []
    return ["One seed: how much another seed would change the figures is not in the SD."]


def _limit_of_validation(study: Study) -> str:
    rules = study.plan.config.protocol
    if rules.validation == "fold":
        return (
            "Learning curves are drawn on the test fold itself; it chose nothing, the "
            f"{rules.weights} weights are scored."
        )
    return (
        f"A share of {rules.inner_share:g} of the training patients chose weights and schedule "
        f"({rules.weights} weights are scored); the test fold chose nothing."
    )


def _case_row(score: Score) -> Row:
    def cell(key: str, scale: float = 1, digits: int = 2) -> str:
        value = score.values.get(key)
        return NONE if value is None else f"{scale * value:.{digits}f}"

    return plain_row(
        score.case, str(score.fold), score.quality or NONE,
        *(cell(f"{kind}_dice", 100, 1) for kind in ("liver", "tumour")),
        *(cell(f"{kind}_hd95_mm") for kind in ("liver", "tumour")),
        *(cell(f"{kind}_msd_mm") for kind in ("liver", "tumour")),
        *(cell(key, digits=0) for key in ("liver_ml", "reference_ml")),
        cell("seconds", digits=1),
    )  # fmt: skip


def _last_losses(run: Run) -> list[str]:
    rows = read_csv(run.folder / STEPS_CSV)
    return [f"{float(rows[-1][m]):.3f}" if rows else NONE for m in MODALITIES]


def _with_tumour(scores: Iterable[Score]) -> set[str]:
    return {s.case for s in scores if "tumour_dice" in s.values}


def _is(case: str, modality: Modality) -> bool:
    return case.partition("/")[0] == modality


def _number(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ")
    return NONE if value is None else str(value)


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
