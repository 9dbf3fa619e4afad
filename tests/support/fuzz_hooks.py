"""What schemathesis cannot know: DICOM as a body, and the names and ids that exist here. Loaded by
``SCHEMATHESIS_HOOKS``."""

import io
import os
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.generation import GenerationMode

JOB = os.environ["FUZZ_JOB"]
IMAGES = [path.read_bytes() for path in sorted(Path(os.environ["FUZZ_IMAGES"]).iterdir())]
OFTEN = 0.6
RELATED = 'multipart/related; type="application/dicom"'
KNOWN = {"segmentation_id": JOB}
STUDIES = {"study_uid": "1.2.826.0.1.3680043.8.498.77.1"}
BODIES = {"node": "pacs", "destinations": ["archive"], "model": "tiny"}
chance = random.Random(1)  # noqa: S311


def _body(context: Any, value: Any, right: bytes) -> bytes:
    """``right`` for most requests that are meant to be right, else what was made up."""
    if _is_right(context.case) and chance.random() < OFTEN:
        return right
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


def _is_right(case: Any) -> bool:
    return bool(case.meta.generation.mode is GenerationMode.POSITIVE)


@schemathesis.serializer("application/dicom")
def dicom(context: Any, value: Any) -> bytes:
    return _body(context, value, chance.choice(IMAGES))


@schemathesis.serializer(RELATED)
def related(context: Any, value: Any) -> bytes:
    head = b"--X\r\nContent-Type: application/dicom\r\n\r\n"
    return head + _body(context, value, chance.choice(IMAGES)) + b"\r\n--X--\r\n"


@schemathesis.serializer("application/zip")
def archive(context: Any, value: Any) -> bytes:
    return _body(context, value, _zipped())


def _zipped() -> bytes:
    packer = io.BytesIO()
    with zipfile.ZipFile(packer, "w") as opened:
        for number, image in enumerate(IMAGES):
            opened.writestr(f"{number}.dcm", image)
    return packer.getvalue()


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """Requests that are meant to be right mostly name what exists."""
    if case.media_type == RELATED and chance.random() < OFTEN:
        case.headers = {**(case.headers or {}), "Content-Type": f"{RELATED}; boundary=X"}
    if not _is_right(case) or chance.random() > OFTEN:
        return
    _use(case.path_parameters, KNOWN if case.method.upper() == "GET" else STUDIES)
    _use(case.body, BODIES)


def _use(given: Any, known: Mapping[str, Any]) -> None:
    """Put what is known where something is given."""
    if isinstance(given, dict):
        given.update({name: value for name, value in known.items() if name in given})
