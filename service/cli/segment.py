"""``aqcf segment``."""

# ruff: noqa: PLC0415

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from .common import app, settings_of, told_errors


@app.command()
def segment(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT…",
            help="A folder or files of DICOM, one .zip of them, or one .nii or .nii.gz.",
            exists=True,
        ),
    ],
    modality: Annotated[Literal["ct", "mr"], typer.Option(help="What the images are.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False)],
    *,
    model: Annotated[str | None, typer.Option(help="Model id; see `aqcf models`.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="fast, balanced or paper; the model's default.")
    ] = None,
    engine: Annotated[
        Literal["auto", "openvino", "onnxruntime", "torch"] | None,
        typer.Option(help="Inference engine (AQCF_ENGINE; auto)."),
    ] = None,
    series: Annotated[
        str, typer.Option(help="Key of a series from the receipt, or auto.")
    ] = "auto",
) -> None:
    """Segment one series.

    Writes mask.nii.gz, measurements.json and preview.png, and seg.dcm and sr.dcm for DICOM input.
    Exits with 0 when done, 2 for input that cannot be used (its code is on stderr), 1 on failure.
    """
    with told_errors():
        from .. import console
        from ..domain import SubmitOptions
        from ..oneshot import segment_into
        from ..uploads import Upload
        from ..wiring import BackendCache

        settings = settings_of(engine=engine)
        options = SubmitOptions(modality, model, profile, series)
        backends = BackendCache(settings.engine, settings.threads)
        with _quiet_libraries(), console.progress_bar() as report:
            upload = Upload(tuple(inputs))
            shot = segment_into(
                settings, upload, options, out=out, open_backend=backends, report=report
            )
        console.show_result(shot, str(out))


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """DICOM libraries warn by quoting header values: keep them off the terminal."""
    import logging
    import warnings

    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
