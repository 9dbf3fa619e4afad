"""The records of a site file. Unknown words are refused, so that a misspelt one cannot be lost."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from model.types import Modality

from ..domain import Priority

AeTitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[\x20-\x5b\x5d-\x7e]+$")]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Form = Literal["always", "fallback", "never"]


def _compiles(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


Pattern = Annotated[str, Field(max_length=200), AfterValidator(_compiles)]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tls(Record):
    """PEM files. ``ca``: who is trusted; ``cert`` and ``key``: who we are, where that is asked."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None


class DimseNode(Record):
    """A DICOM application entity."""

    host: str
    port: Port
    ae_title: AeTitle
    tls: Tls | None = None


class DicomWebNode(Record):
    """Base URL of a DICOMweb server. Secrets lie in files of their own."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    username: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    ca: Path | None = None


class Node(Record):
    """A system of the site, by one or both of its interfaces."""

    dimse: DimseNode | None = None
    dicomweb: DicomWebNode | None = None

    @model_validator(mode="after")
    def _has_an_interface(self) -> Self:
        if self.dimse is None and self.dicomweb is None:
            raise ValueError("a node needs dimse, dicomweb, or both")
        return self


class OutputProfile(Record):
    """Which objects a destination gets. ``capture``, a secondary-capture series with the mask burnt
    in: ``fallback`` sends it where the destination refuses Segmentation Storage."""

    seg: Literal["binary", "labelmap", "none"] = "binary"
    deflate: bool = False
    sr: bool = True
    capture: Form = "fallback"
    rtstruct: Form = "never"


class Destination(Record):
    """``confirm``: how it is asked whether it has the objects; ``auto`` asks in the way of
    ``by``: QIDO-RS, or C-FIND and, where that is not supported, storage commitment."""

    node: Name
    by: Literal["dimse", "dicomweb"]
    profile: Name = "standard"
    confirm: Literal["auto", "qido", "find", "commitment", "none"] = "auto"


class Caller(Record):
    """Who may send to the listener; ``host`` an address, where that is checked too."""

    ae_title: AeTitle
    host: str | None = None


class When(Record):
    """All that is given has to hold for a series. Patterns are searched for, without regard to
    case; ``thickness_mm``: from, to, both included."""

    modality: Modality | None = None
    description: Pattern | None = None
    body_part: Pattern | None = None
    thickness_mm: tuple[float, float] | None = None
    min_images: int | None = None
    ae_title: tuple[AeTitle, ...] = ()


class Then(Record):
    """``series``: the best-ranked of a study's matching series, or every one of them. ``ignore``:
    matching series are set aside."""

    model: str | None = None
    profile: str | None = None
    destinations: tuple[Name, ...] = ()
    priority: Priority = Priority.ROUTINE
    series: Literal["best", "every"] = "best"
    ignore: bool = False


class Rule(Record):
    name: Name
    when: When = When()
    then: Then = Then()


class Site(Record):
    """The first rule that matches a series decides; what no rule matches is set aside.

    ``archive``: the node that is asked whether a study is complete. ``callers``: empty lets
    everybody send who can reach the listener.
    """

    nodes: dict[Name, Node] = {}
    destinations: dict[Name, Destination] = {}
    profiles: dict[Name, OutputProfile] = {}
    callers: tuple[Caller, ...] = ()
    archive: Name | None = None
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        _known("archive", [self.archive] if self.archive else [], self.nodes)
        for name, destination in self.destinations.items():
            _known(f"destinations.{name}.node", [destination.node], self.nodes)
            _known(f"destinations.{name}.profile", [destination.profile], self.all_profiles)
            if getattr(self.nodes[destination.node], destination.by) is None:
                raise ValueError(
                    f"destinations.{name}: node {destination.node} has no {destination.by}"
                )
        for rule in self.rules:
            _known(f"rules.{rule.name}", rule.then.destinations, self.destinations)
        return self

    @property
    def all_profiles(self) -> dict[str, OutputProfile]:
        """Those of the file over the built-in one."""
        return {"standard": OutputProfile(), **self.profiles}


def _known(where: str, names: Iterable[str], among: Mapping[str, object]) -> None:
    for name in names:
        if name not in among:
            raise ValueError(f"{where} names {name!r}; there are: {', '.join(among) or 'none'}")
