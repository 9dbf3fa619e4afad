"""Taking the phantoms out of the archive again."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from model.errors import AqcfError

from ..pacs.find import count_instances, web_timeout_of
from ..pacs.http import web
from ..phantoms import PATIENT_ID
from ..settings import Settings
from ..site import DicomWebNode
from .way import Way
from .write import PATIENT_NAME

HOW = (
    f"Delete the patient {PATIENT_ID} ({PATIENT_NAME}), or these studies, with the archive's own "
    "tools"
)


def clean(settings: Settings, way: Way, studies: Iterable[str]) -> str:
    """Delete the studies where the archive lets us: DICOMweb's DELETE, or Orthanc's own. Says what
    became of them."""
    uids = tuple(studies)
    if way.node.dicomweb is not None:
        for uid in uids:
            _delete(way.node.dicomweb, uid, way)
    left = [uid for uid in uids if _is_there(settings, way, uid)]
    if not left:
        return f"nothing; {_count(uids)} deleted"
    return f"{_count(left)}, which the archive does not let us delete. {HOW}."


def kept(studies: Iterable[str]) -> str:
    """What to say where nobody asked to delete."""
    return f"{_count(tuple(studies))}. {HOW}; or run the test with --clean."


def _count(studies: Sequence[str]) -> str:
    return "1 study" if len(studies) == 1 else f"{len(studies)} studies"


def _delete(node: DicomWebNode, study: str, way: Way) -> None:
    with suppress(AqcfError), web(node, web_timeout_of(way.node)) as client:
        client.request("DELETE", f"/studies/{study}")
        return
    with suppress(AqcfError, ValueError, LookupError):  # who answers may be no Orthanc
        _delete_in_orthanc(node, study, way)


def _delete_in_orthanc(node: DicomWebNode, study: str, way: Way) -> None:
    """Its DICOMweb has no DELETE in older versions; its own interface lies above it."""
    above = node.model_copy(update={"url": node.url.rstrip("/").rpartition("/")[0]})
    with web(above, web_timeout_of(way.node)) as client:
        found = client.request("POST", "/tools/lookup", content=study.encode()).json()
        for one in found if isinstance(found, list) else ():
            if isinstance(one, dict) and one.get("Type") == "Study":
                client.request("DELETE", f"/studies/{one['ID']}")


def _is_there(settings: Settings, way: Way, study: str) -> bool:
    try:
        return bool(count_instances(way.node, study, calling=settings.ae_title))
    except AqcfError:
        return True
