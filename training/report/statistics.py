"""Section 4.2.3: the tests of the main variant against the others."""

from itertools import groupby

from .blocks import Block, Cell, Column, Details, Heading, Row, Table, Text
from .compare import ALPHA, Comparison, Family, families, smallest_p
from .study import Study
from .wording import METRIC_NAMES, MODALITY_NAMES, counted, crossval, is_dice, missing, p_value

_COLUMNS = (
    Column("Metric"),
    Column("Difference"),
    Column("pairs", "Folds"),
    Column("p", "Folds"),
    Column("pairs", "Cases"),
    Column("p", "Cases"),
)


def statistics(study: Study) -> list[Block]:
    """The main variant against the baselines; folded away, against ablations and options."""
    head = Heading("Statistical analysis (section 4.2.3)")
    baselines = families(study, study.others("baseline"))
    rest = families(study, study.others("ablation", "option"))
    if not baselines and not rest:
        sentence = f"No other variant shares a scored fold with {study.main.title}. To score more:"
        return [head, *missing(sentence, crossval(study))]
    blocks: list[Block] = [head, Text(_how(study)), Text(_power(study), "warning")]
    blocks += [_table(family, study) for family in baselines]
    if rest:
        tables = tuple(_table(family, study) for family in rest)
        blocks.append(Details("Against ablations and options", tables))
    return blocks


def _how(study: Study) -> str:
    return (
        f"Two-sided Wilcoxon signed-rank tests of {study.main.title} against each other variant, "
        "on the means of the folds, as the paper does, and on the cases. Difference: "
        f"{study.main.title} less the other, mean over their folds; Dice in percentage "
        "points, where more is better; of distances less is. "
        f"Bonferroni: {ALPHA} divided by the number of comparisons of a table is the threshold; "
        "p in bold reaches it. Cases of one patient, and folds that share training cases, are not "
        "independent, so p may be too small."
    )


def _power(study: Study) -> str:
    folds = len({s.fold for s in study.scores(study.main)})
    least = smallest_p(folds)
    verdict = "cannot" if least >= ALPHA else "can"
    return (
        f"With {counted(folds, 'fold')} the fold-wise test gives no p below {least:.4g}: it "
        f"{verdict} reach {ALPHA}, however large the difference, even before the correction."
    )


def _table(family: Family, study: Study) -> Table:
    rows = []
    for title, group in groupby(family.comparisons, lambda c: c.variant.title):
        rows.append(Row((Cell(f"against {title}"),), part=True))
        rows += [_row(comparison) for comparison in group]
    caption = (
        f"{MODALITY_NAMES[family.modality]}: {study.main.title} against the others; "
        f"{counted(len(family.comparisons), 'comparison')}, threshold {family.threshold:.2g}"
    )
    return Table(caption, _COLUMNS, tuple(rows))


def _row(comparison: Comparison) -> Row:
    scale, digits = (100, 1) if is_dice(comparison.metric) else (1, 2)
    cells = [Cell(f"{scale * comparison.difference:+.{digits}f}")]
    for test in (comparison.folds, comparison.cases):
        cells += [Cell(str(test.count)), Cell(p_value(test.p), best=test.significant)]
    return Row((Cell(METRIC_NAMES[comparison.metric]), *cells))
