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
    from .run import train  # noqa: PLC0415  torch takes seconds to import

    train(config, run, epochs=epochs, threads=threads)


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


def main() -> None:
    """Entry point: exit 2 for bad input or configuration, 1 for a failure."""
    try:
        app(standalone_mode=True)
    except AqcfError as error:
        sys.stderr.write(f"{error.code}: {error.message}\n")
        sys.exit(2 if isinstance(error, ConfigError | InputError) else 1)


if __name__ == "__main__":
    main()
