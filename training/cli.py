"""``aqcf-train``: prepare, train, score, compare, explain, export."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from model.errors import AqcfError, ConfigError, InputError

app = typer.Typer(
    help="Train A-QCF-Net on unpaired CT and MR cohorts, compare it, export a model folder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
ConfigArgument = Annotated[
    Path, typer.Argument(help="YAML file, such as training/configs/small.yaml")
]
CACHE = Path("runs") / "cache"
CacheOption = Annotated[Path, typer.Option(help="Folder of preprocessed cases")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a field, such as optimiser.lr=1e-3; may be repeated"),
]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads")]
WeightsOption = Annotated[str, typer.Option(help="best or last")]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/small")]


@app.command()
def prepare(
    source: Annotated[
        str | None, typer.Argument(help="lits, msd, atlas, ircadb, liverhccseg or chaos")
    ] = None,
    folder: Annotated[Path | None, typer.Argument(help="The unpacked download")] = None,
    to: Annotated[Path | None, typer.Option(help="Root to write the cases to")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Check the cases of this YAML file and fill the cache")
    ] = None,
    cache: CacheOption = CACHE,
    against: Annotated[
        list[Path] | None, typer.Option(help="Prepared root to look for duplicates in")
    ] = None,
    leave_out_overlap: Annotated[
        bool, typer.Option(help="Leave out what another data set holds, as LiTS 28-47")
    ] = False,
    skip_broken: Annotated[bool, typer.Option(help="Name broken cases and go on")] = False,
    role: Annotated[str, typer.Option(help="develop, or test: never trained on")] = "develop",
    workers: Annotated[int, typer.Option(help="Processes [CPUs]")] = os.cpu_count() or 1,
) -> None:
    """Turn a download into checked cases, or check a configuration's cases and fill the cache."""
    from . import prepare as work  # noqa: PLC0415

    if (source is None or folder is None or to is None) and config is None:
        raise ConfigError("give SOURCE, FOLDER and --to ROOT, or --config FILE, or all of them")
    if source and folder and to:
        work.prepare(
            source, folder, to, workers=workers, skip_broken=skip_broken,
            leave_out_duplicates=leave_out_overlap, against=against or (), role=role,
        )  # fmt: skip
    if config:
        work.check_and_cache(config, workers=workers, cache=cache, skip_broken=skip_broken)


@app.command()
def fit(
    config: ConfigArgument,
    run: Annotated[Path | None, typer.Option(help="Folder of the run [runs/NAME]")] = None,
    change: SetOption = None,
    cache: CacheOption = CACHE,
    threads: ThreadsOption = None,
) -> None:
    """Train, or go on from the run's last checkpoint; the same weights either way."""
    from .config import load_config  # noqa: PLC0415  torch takes seconds to import
    from .run import train  # noqa: PLC0415

    settings = load_config(config, change or ())
    train(settings, run or Path("runs") / settings.name, cache=cache, threads=threads)


@app.command()
def crossval(
    config: ConfigArgument,
    study: Annotated[Path | None, typer.Option(help="Folder of the study [studies/NAME]")] = None,
    variants: Annotated[
        str | None, typer.Option(help="Comma-separated, or all, instead of protocol.variants")
    ] = None,
    folds: Annotated[str | None, typer.Option(help="Only these folds, such as 0,2")] = None,
    change: SetOption = None,
    cache: CacheOption = CACHE,
    threads: ThreadsOption = None,
) -> None:
    """Train and score every variant on every fold, or go on where it stopped."""
    from .config import load_config  # noqa: PLC0415
    from .crossval import crossval as run_study  # noqa: PLC0415
    from .variants import changed  # noqa: PLC0415

    settings = load_config(config, change or ())
    if variants:
        settings = changed(settings, {"protocol": {"variants": _words(variants)}})
    folder = study or Path("studies") / settings.name
    run_study(settings, folder, cache=cache, folds=_numbers(folds), threads=threads)


@app.command(hidden=True)
def fold(
    study: Path, variant: str, number: int, cache: CacheOption, threads: ThreadsOption = None
) -> None:
    """One run of a study; ``crossval`` calls it."""
    from .crossval import read_study, run_fold  # noqa: PLC0415

    run_fold(read_study(study, cache), variant, number, threads)


@app.command()
def report(
    study: Annotated[Path, typer.Argument(help="Folder of a study, such as studies/paper")],
    to: Annotated[Path | None, typer.Option(help="Folder to write [STUDY/report]")] = None,
    publishable: Annotated[
        bool, typer.Option(help="Draw only cases whose licence lets them be shown")
    ] = False,
) -> None:
    """Lay a study out as the paper's tables 2 to 7, with curves and overlays: HTML, Markdown."""
    from .report import write_report  # noqa: PLC0415

    write_report(study, to, publishable=publishable)


@app.command()
def evaluate(
    run: RunArgument,
    weights: WeightsOption = "best",
    profile: Annotated[str | None, typer.Option(help="Sliding-window profile")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Prepared root of another data set, for generalisation")
    ] = None,
) -> None:
    """Score held-out and test cases through the deployed pipeline, or all cases of another root:
    scores, masks, pictures."""
    from .config import ExternalConfig  # noqa: PLC0415
    from .run import score_external, score_run  # noqa: PLC0415

    if root is None:
        score_run(run, weights=weights, profile=profile)
    else:
        external = ExternalConfig(root=root)
        score_external(run, root.resolve().name, external, weights=weights, profile=profile)


@app.command()
def explain(
    source: Annotated[Path, typer.Argument(help="Folder of a run, or a model folder with --root")],
    to: Annotated[Path, typer.Option(help="Folder to write")],
    case: Annotated[list[str] | None, typer.Option(help="Only this case; may be repeated")] = None,
    root: Annotated[Path | None, typer.Option(help="Prepared root of the cases")] = None,
    weights: WeightsOption = "best",
    target: Annotated[str, typer.Option(help="tumour or liver")] = "tumour",
    method: Annotated[str, typer.Option(help="gradcam++ or gradcam")] = "gradcam++",
    layer: Annotated[str | None, typer.Option(help="Layer [the head's input]")] = None,
    region: Annotated[
        str, typer.Option(help="Whose logits count: predicted, reference or volume")
    ] = "predicted",
    threshold: Annotated[float, typer.Option(help="Share of the map's maximum")] = 0.5,
) -> None:
    """Saliency of cases a network never saw, measured against the label; feature maps."""
    from .explain import Options, explain_run  # noqa: PLC0415

    options = Options(
        target=_one_of("target", target, ("tumour", "liver")),
        method=_one_of("method", method, ("gradcam++", "gradcam")),
        region=_one_of("region", region, ("predicted", "reference", "volume")),
        layer=layer, threshold=threshold,
    )  # fmt: skip
    explain_run(source, to, cases=case, root=root, weights=weights, options=options)


@app.command("reading-list")
def reading_list(
    source: Annotated[Path, typer.Argument(help="Folder of a run or of a study")],
    to: Annotated[Path, typer.Option(help="CSV file to write")],
    count: Annotated[int, typer.Option(help="Cases")] = 40,
    reader: Annotated[list[str] | None, typer.Option(help="Reader [R1, R2]")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw and the orders")] = 0,
) -> None:
    """Draw the cases of a reader study, balanced by modality and lesion size: a sheet to fill."""
    from .reading_list import write_reading_list  # noqa: PLC0415

    write_reading_list(source, to, count=count, readers=reader or ("R1", "R2"), seed=seed)


@app.command()
def readers(
    sheet: Annotated[Path, typer.Argument(help="The filled sheet")],
    to: Annotated[Path | None, typer.Option(help="Markdown file to write")] = None,
) -> None:
    """Table 8 of a filled sheet: scores, acceptance, ICC with its interval, Cohen's kappa."""
    from .readers import report_readers  # noqa: PLC0415

    report_readers(sheet, to)


@app.command()
def export(
    run: RunArgument,
    to: Annotated[Path, typer.Option(help="Model folder to write, such as model/zoo/small")],
    weights: WeightsOption = "best",
    version: Annotated[str, typer.Option(help="Version of the model")] = "1.0.0",
    notes: Annotated[Path | None, typer.Option(help="Markdown that ends the model card")] = None,
    study: Annotated[
        Path | None, typer.Option(help="Study whose cross-validated scores the card tells")
    ] = None,
    torchscript: Annotated[bool, typer.Option(help="Write ct.ts and mr.ts too")] = False,
) -> None:
    """Write a model folder (weights, ONNX, manifest, card); refused when parity fails."""
    from .run import export_run  # noqa: PLC0415

    export_run(
        run, to, weights=weights, version=version, notes=notes, study=study, torchscript=torchscript
    )  # fmt: skip


def _one_of(name: str, value: str, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise ConfigError(f"{name} {value!r} is not one of {', '.join(known)}")
    return value


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not all(word.isdigit() for word in _words(text)):
        raise ConfigError(f"folds {text!r}: give numbers such as 0,2")
    return [int(word) for word in _words(text)]


def main() -> None:
    """Entry point: exit 2 for bad input or configuration, 1 for a failure."""
    try:
        app(standalone_mode=True)
    except AqcfError as error:
        sys.stderr.write(f"{error.code}: {error.message}\n")
        sys.exit(2 if isinstance(error, ConfigError | InputError) else 1)


if __name__ == "__main__":
    main()
