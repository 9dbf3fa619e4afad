"""The request headers that shape an answer: ``Prefer`` (RFC 7240) and ``Accept``."""

import re
from typing import Final

from starlette.datastructures import Headers

WAIT: Final = re.compile(r"\s*wait\s*=\s*\"?(\d{1,6})\"?\s*", re.IGNORECASE)
MAX_WAIT_S: Final = 300
DICOM: Final = "application/dicom"


def wait_seconds(headers: Headers) -> int:
    """Seconds of ``Prefer: wait=N``, 300 at most; 0 without one. As the RFC asks, what cannot be
    understood is ignored."""
    for value in headers.getlist("prefer"):
        for preference in value.split(","):
            found = WAIT.fullmatch(preference.partition(";")[0])
            if found:
                return min(int(found[1]), MAX_WAIT_S)
    return 0


def wants_dicom(headers: Headers) -> bool:
    """Whether ``Accept`` names ``application/dicom``: the SEG itself rather than the resource."""
    accepted = ",".join(headers.getlist("accept")).split(",")
    return any(kind.partition(";")[0].strip().lower() == DICOM for kind in accepted)
