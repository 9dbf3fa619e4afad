"""``aqcf-train``: train, score, export."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from model.errors import AqcfError, ConfigError, InputError

app = typer.Typer(
    help="Train A-QCF-Net on unpaired CT and MR cohorts, score it, export a model folder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
ConfigArgument = Annotated[
    Path, typer.Argument(help="YAML file, such as training/configs/small.yaml")
]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/small")]


@app.command()
def fit(
    config: ConfigArgument,
    run: Annotated[Path | None, typer.Option(help="Folder of the run [runs/NAME]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Train up to this many epochs instead")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
) -> None:
    """Train, or go on from the run's last checkpoint; the same weights either way."""
    from .config import load_config  # noqa: PLC0415  torch takes seconds to import
    from .run import train  # noqa: PLC0415

    settings = load_config(config, {"epochs": epochs} if epochs else None)
    train(settings, run or Path("runs") / settings.name, threads=threads)


@app.command()
def crossval(
    config: ConfigArgument,
    study: Annotated[Path | None, typer.Option(help="Folder of the study [studies/NAME]")] = None,
    variants: Annotated[
        str | None, typer.Option(help="Comma-separated, or all, instead of protocol.variants")
    ] = None,
    folds: Annotated[str | None, typer.Option(help="Only these folds, such as 0,2")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
) -> None:
    """Train and score every variant on every fold, or go on where it stopped."""
    from .config import load_config  # noqa: PLC0415
    from .crossval import crossval as run_study  # noqa: PLC0415
    from .variants import changed  # noqa: PLC0415

    settings = load_config(config)
    if variants:
        settings = changed(settings, {"protocol": {"variants": _words(variants)}})
    folder = study or Path("studies") / settings.name
    run_study(settings, folder, folds=_numbers(folds), threads=threads)


@app.command(hidden=True)
def fold(
    study: Path, variant: str, number: int,
    threads: Annotated[int | None, typer.Option()] = None,
) -> None:  # fmt: skip
    """One run of a study; ``crossval`` calls it."""
    from .crossval import read_study, run_fold  # noqa: PLC0415

    run_fold(read_study(study), variant, number, threads)


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
    weights: Annotated[str, typer.Option(help="best or last")] = "best",
    profile: Annotated[str | None, typer.Option(help="Sliding-window profile")] = None,
) -> None:
    """Score held-out and test cases through the deployed pipeline; writes scores.csv, pictures."""
    from .run import score_run  # noqa: PLC0415

    score_run(run, weights=weights, profile=profile)


@app.command()
def export(
    run: RunArgument,
    to: Annotated[Path, typer.Option(help="Model folder to write, such as model/zoo/small")],
    weights: Annotated[str, typer.Option(help="best or last")] = "best",
    version: Annotated[str, typer.Option(help="Version of the model")] = "1.0.0",
    notes: Annotated[Path | None, typer.Option(help="Markdown that ends the model card")] = None,
    torchscript: Annotated[bool, typer.Option(help="Write ct.ts and mr.ts too")] = False,
) -> None:
    """Write a model folder (weights, ONNX, manifest, card); refused when parity fails."""
    from .run import export_run  # noqa: PLC0415

    export_run(run, to, weights=weights, version=version, notes=notes, torchscript=torchscript)


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
