"""``aqcf segment``."""

# ruff: noqa: PLC0415

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from .common import app, settings_of, told_errors

if TYPE_CHECKING:
    from ..forms import Form


Inputs: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT…",
        help="A folder or files of DICOM, one .zip of them, or one .nii or .nii.gz.",
        exists=True,
    ),
]
What: TypeAlias = Annotated[Literal["ct", "mr"], typer.Option(help="What the images are.")]
Out: TypeAlias = Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False)]
ModelId: TypeAlias = Annotated[str | None, typer.Option(help="Model id; see `aqcf models`.")]
Profile: TypeAlias = Annotated[
    str | None, typer.Option(help="fast, balanced or paper; the model's default.")
]
Engine: TypeAlias = Annotated[
    Literal["auto", "openvino", "onnxruntime", "torch"] | None,
    typer.Option(help="Inference engine (AQCF_ENGINE; auto)."),
]
Chosen: TypeAlias = Annotated[str, typer.Option(help="Key of a series from the receipt, or auto.")]
Also: TypeAlias = Annotated[
    str,
    typer.Option(
        help="Other forms of a DICOM result, by commas: "
        "capture, rtstruct, labelmap, deflated, viewer.",
    ),
]


@app.command()
def segment(
    inputs: Inputs,
    modality: What,
    out: Out,
    *,
    model: ModelId = None,
    profile: Profile = None,
    engine: Engine = None,
    series: Chosen = "auto",
    also: Also = "",
) -> None:
    """Segment one series.

    Writes mask.nii.gz, measurements.json and preview.png, and seg.dcm and sr.dcm for DICOM input;
    with --also capture.zip, rtstruct.dcm, seg_labelmap.dcm, seg_deflated.dcm, sr_viewer.dcm.
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
        forms = _forms(also)
        with _quiet_libraries(), console.progress_bar() as report:
            upload = Upload(tuple(inputs))
            shot = segment_into(
                settings,
                upload,
                options,
                out=out,
                open_backend=backends,
                report=report,
                also=forms,
            )
        console.show_result(shot, str(out))


def _forms(also: str) -> "tuple[Form, ...]":
    from ..forms import Form

    named = {
        "capture": Form.CAPTURE,
        "rtstruct": Form.RTSTRUCT,
        "labelmap": Form.SEG_LABELMAP,
        "deflated": Form.SEG_DEFLATED,
        "viewer": Form.SR_VIEWER,
    }
    words = [word.strip() for word in also.split(",") if word.strip()]
    if unknown := [word for word in words if word not in named]:
        raise typer.BadParameter(f"--also knows {', '.join(named)}, not {unknown[0]!r}")
    return tuple(dict.fromkeys(named[word] for word in words))


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
