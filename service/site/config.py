"""The records of a site file. Unknown words are refused, so that a misspelt one cannot be lost."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias
from urllib.parse import urlsplit

import re2
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from model.types import Modality

from ..domain import Origin, Priority

Form: TypeAlias = Literal["always", "fallback", "never"]
Orientation: TypeAlias = Literal["axial", "coronal", "sagittal"]

MATCHING = re2.Options()
MATCHING.case_sensitive = False
MATCHING.log_errors = False  # they quote the pattern on stderr


def _compiles(text: str) -> str:
    try:
        re2.compile(text, MATCHING)
    except re2.error as error:
        raise ValueError(f"no regular expression of RE2's syntax: {_told(error)}") from error
    return text


def _told(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def _host(name: str) -> str:
    """The system's own look-up would raise, long after the file was read."""
    try:
        name.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{name!r} can be no host: a part of it is empty or too long") from error
    return name


def _web_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("the host or the port cannot be read; http://HOST:PORT/PATH") from error
    if not host:
        raise ValueError("there is no host in it; http://HOST:PORT/PATH")
    _host(host)
    return url


def _placed(path: Path, info: ValidationInfo) -> Path:
    """Relative to the file that names it."""
    return Path(info.context["folder"]) / path if info.context else path


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _in_order(span: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= span[0] <= span[1]:
        raise ValueError("two lengths in mm, the smaller one first")
    return span


AeTitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[\x21-\x5b\x5d-\x7e]"
                               r"([\x20-\x5b\x5d-\x7e]*[\x21-\x5b\x5d-\x7e])?$")]  # fmt: skip
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
Host = Annotated[str, Field(min_length=1, pattern=r"^\S+$"), AfterValidator(_host)]
WebAddress = Annotated[str, Field(pattern=r"^https?://[^@\s]+$"), AfterValidator(_web_address)]
Port = Annotated[int, Field(ge=1, le=65535)]
Pattern = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_compiles)]
LocalFile = Annotated[Path, AfterValidator(_placed)]
Span = Annotated[tuple[float, float], AfterValidator(_in_order)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=600)]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tls(Record):
    """PEM files. ``ca``: who is trusted; ``cert`` and ``key``: who we are, where that is asked."""

    ca: LocalFile
    cert: LocalFile | None = None
    key: LocalFile | None = None

    @model_validator(mode="after")
    def _key_goes_with_certificate(self) -> Self:
        if (self.cert is None) is not (self.key is None):
            raise ValueError("cert and key go together")
        return self


class DimseNode(Record):
    """A DICOM application entity. ``calling``: our title towards it, the service's own without."""

    host: Host
    port: Port
    ae_title: AeTitle
    calling: AeTitle | None = None
    tls: Tls | None = None


class DicomWebNode(Record):
    """Base URL of a DICOMweb server. Secrets lie in files of their own."""

    url: WebAddress
    username: str | None = None
    password_file: LocalFile | None = None
    token_file: LocalFile | None = None
    ca: LocalFile | None = None

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        if (self.username is None) is not (self.password_file is None):
            raise ValueError("username and password_file go together")
        if self.username is not None and self.token_file is not None:
            raise ValueError("either username and password_file or token_file")
        return self


class Node(Record):
    """A system of the site, by one or both of its interfaces.

    ``retrieve``: how images are fetched from it; ``auto`` takes WADO-RS where it has ``dicomweb``,
    else C-GET. ``timeout_s``: silence after which it counts as unavailable.
    """

    dimse: DimseNode | None = None
    dicomweb: DicomWebNode | None = None
    retrieve: Literal["auto", "wado", "get", "move"] = "auto"
    timeout_s: Seconds = 30.0

    @model_validator(mode="after")
    def _has_an_interface(self) -> Self:
        if self.dimse is None and self.dicomweb is None:
            raise ValueError("a node needs dimse, dicomweb, or both")
        if self.retrieve == "wado" and self.dicomweb is None:
            raise ValueError("retrieve: wado needs dicomweb")
        if self.retrieve in ("get", "move") and self.dimse is None:
            raise ValueError(f"retrieve: {self.retrieve} needs dimse")
        return self


class OutputProfile(Record):
    """Which objects a destination gets. ``sr``: about the SEG that the destination took, be it
    BINARY or LABELMAP. ``sr_viewer``: lesions as lines on images, for OHIF. ``capture``, a
    secondary-capture series with the mask burnt in: ``fallback`` sends it where the destination
    refuses Segmentation Storage."""

    seg: Literal["binary", "labelmap", "none"] = "binary"
    deflate: bool = False
    sr: bool = True
    sr_viewer: bool = False
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
    """All that is given has to hold for a series. Patterns (RE2) are searched for, without regard
    to case; ``thickness_mm``: from, to, both included; ``ae_title``: of the sender, one of
    these; ``origin``: how the series came, one of these."""

    modality: Annotated[Modality | None, BeforeValidator(_lower)] = None
    description: Pattern | None = None
    not_description: Pattern | None = None
    body_part: Pattern | None = None
    thickness_mm: Span | None = None
    orientation: Orientation | None = None
    min_images: Count | None = None
    max_images: Count | None = None
    ae_title: tuple[AeTitle, ...] = ()
    origin: tuple[Origin, ...] = ()


class Then(Record):
    """``series``: the best-ranked of a study's matching series, or every one of them. ``ignore``:
    matching series are set aside."""

    model: str | None = None
    profile: str | None = None
    destinations: tuple[Name, ...] = ()
    priority: Priority = Priority.ROUTINE
    series: Literal["best", "every"] = "best"
    ignore: bool = False

    @model_validator(mode="after")
    def _ignoring_is_all(self) -> Self:
        if self.ignore and self.model_fields_set != {"ignore"}:
            others = ", ".join(sorted(self.model_fields_set - {"ignore"}))
            raise ValueError(f"ignore sets series aside; it does not go with {others}")
        return self


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
                    f"destinations.{name}.by: node {destination.node!r} has no {destination.by}"
                )
        return self

    @model_validator(mode="after")
    def _rules_can_be_told_apart(self) -> Self:
        names = Counter(rule.name for rule in self.rules)
        for number, rule in enumerate(self.rules, start=1):
            if names[rule.name] > 1:
                raise ValueError(f"rules.{number}.name: {rule.name!r} is the name of two rules")
            where = f"rules.{number}.then.destinations"
            _known(where, rule.then.destinations, self.destinations)
        return self

    @property
    def all_profiles(self) -> dict[str, OutputProfile]:
        """Those of the file over the built-in one."""
        return {"standard": OutputProfile(), **self.profiles}


def _known(where: str, names: Iterable[str], among: Mapping[str, object]) -> None:
    for name in names:
        if name not in among:
            raise ValueError(f"{where}: {name!r} is not there; there are: {_list(among)}")


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
