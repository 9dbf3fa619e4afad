"""The audit over HTTP."""

from datetime import datetime

from pydantic import Field

from .schemas import Schema


class AuditLine(Schema):
    """Who did what, and when. Ids only, no names."""

    at: datetime
    actor: str = Field(
        description="An API key's id, `oidc:` and a hash, the name of a process, or `unknown`."
    )
    action: str = Field(examples=["download:seg.dcm", "denied:403:get_seg"])
    segmentation: str | None = Field(None, description="The id of the segmentation it was about.")


class AuditList(Schema):
    """Newest first."""

    items: list[AuditLine]
    next: str | None = Field(None, description="The `cursor` of the page after; null on the last.")
