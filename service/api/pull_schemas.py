"""The resource ``/v1/pulls`` as clients see it."""

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.types import Modality

from ..domain import PullState
from .schemas import Schema

PULLS: Final = "/v1/pulls"
BY_RULES: Final = ("model", "profile", "destinations", "priority")

Uid = Annotated[str, Field(max_length=64, pattern=r"^[0-9]+(\.[0-9]+)*$")]
Name = Annotated[str, Field(min_length=1, max_length=64)]


class PullRequest(BaseModel):
    """What to fetch, and what to do with it: either `modality`, with what may go with it, or
    `rules`, which then say everything else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study_instance_uid: Uid
    node: Name = Field(description="The name of a node of the site file.")
    series_instance_uid: Uid | None = Field(None, description="Only this series.")
    modality: Modality | None = Field(None, description="The best series of this modality.")
    rules: bool = Field(False, description="Let the rules of the site file decide.")
    model: Name | None = None
    profile: Name | None = None
    destinations: list[Name] = Field(default_factory=list, max_length=16)
    priority: Literal["routine", "urgent"] = "routine"

    @model_validator(mode="after")
    def _modality_or_rules(self) -> Self:
        if (self.modality is not None) is self.rules:
            raise ValueError("either modality or rules: true")
        given = sorted(self.model_fields_set.intersection(BY_RULES))
        if self.rules and given:
            raise ValueError(f"with rules: true the rules say {' and '.join(given)}")
        return self


class PullStatus(Schema):
    """A pull. `code`: why it failed, or why it waits for another try."""

    id: str
    state: PullState
    node: str
    modality: Modality | None
    rules: bool
    instances: int = Field(description="Fetched so far.")
    expected: int | None = Field(description="What the node says there are.")
    attempts: int
    code: str | None
    segmentation: str | None = Field(description="Its id, where a modality was given.")
    created_at: datetime
    updated_at: datetime
    links: dict[str, str]
