"""Arrivals and stored instances as clients see them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from pydantic import Field

from ..domain import Arrival, ArrivalState, Origin
from .schemas import BASE, EXAMPLE_ID, Schema

ARRIVALS: Final = "/v1/arrivals"
STUDIES: Final = "/dicomweb/studies"


class ArrivalStatus(Schema):
    """One series that came from a PACS, a modality or by DICOMweb, without its UIDs."""

    id: str = Field(examples=[EXAMPLE_ID])
    origin: Origin
    caller: str = Field(description="AE title, or the id of an API key.", examples=["CT_SCANNER"])
    state: ArrivalState
    instances: int = Field(description="Received so far.")
    expected: int | None = Field(None, description="What the archive has, where it says so.")
    rule: str | None = Field(None, description="The rule of the site that decided.")
    code: str | None = Field(None, description="Why nothing was submitted.")
    segmentation: str | None = Field(None, description="Id of what was submitted.")
    first_at: datetime
    last_at: datetime
    links: dict[str, str]


class ArrivalList(Schema):
    """Newest first."""

    items: list[ArrivalStatus]
    next: str | None = Field(None, description="Pass it as `cursor=`; null on the last page.")


def shown(arrival: Arrival) -> ArrivalStatus:
    """Without its UIDs."""
    links = {}
    if arrival.job_id is not None:
        links["segmentation"] = f"{BASE}/{arrival.job_id}"
    return ArrivalStatus(
        id=arrival.id,
        origin=arrival.origin,
        caller=arrival.caller,
        state=arrival.state,
        instances=arrival.instances,
        expected=arrival.expected,
        rule=arrival.rule,
        code=arrival.code,
        segmentation=arrival.job_id,
        first_at=arrival.first_at,
        last_at=arrival.last_at,
        links=links,
    )


def store_response(
    stored: Iterable[tuple[str, str]],
    failed: Iterable[tuple[str, str, int]],
    unreadable: Iterable[int],
) -> dict[str, Any]:
    """A Store Instances Response Module (PS3.18 10.5.3, PS3.3 C.36) as DICOM JSON.

    ``stored``: SOP class and instance UID; ``failed``: the same with a failure reason;
    ``unreadable``: reasons for what has no UID.
    """
    body: dict[str, Any] = {"00081190": {"vr": "UR"}}
    sequences = {
        "00081198": [_reference(*pair) | _reason(reason) for *pair, reason in failed],
        "00081199": [_reference(*pair) | {"00081190": {"vr": "UR"}} for pair in stored],
        "0008119A": [_reason(reason) for reason in unreadable],
    }
    return body | {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}


def _reference(sop_class_uid: str, sop_instance_uid: str) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [sop_instance_uid]},
    }


def _reason(reason: int) -> dict[str, Any]:
    return {"00081197": {"vr": "US", "Value": [reason]}}
