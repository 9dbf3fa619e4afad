"""What this configuration does on a DICOM network, read from the code that does it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from highdicom.sr import CodedConcept
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, AllStoragePresentationContexts
from pynetdicom.presentation import PresentationContext, build_context

from ..api.app import bare_app
from ..dicom import codes
from ..doctor import missing_codec
from ..forms import Form
from ..listener import IMAGE_SYNTAXES, contexts_for, offered
from ..listener.transport import MAX_PDU_BYTES
from ..pacs.association import Context
from ..pacs.commitment import CONTEXTS as COMMITMENT
from ..pacs.find import FIND_CONTEXTS
from ..pacs.retrieve import MOVE_CONTEXTS, get_contexts, result_contexts
from ..pacs.send import contexts_of
from ..registry import ModelRegistry
from ..settings import Settings
from ..site import Destination, Node, Site
from ..sitecheck import ECHO_CONTEXTS

SEG, LABELMAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
FORM_KINDS: Final[Mapping[Form, tuple[str, str]]] = {
    Form.SEG: (SEG, ExplicitVRLittleEndian),
    Form.SEG_DEFLATED: (SEG, DeflatedExplicitVRLittleEndian),
    Form.SEG_LABELMAP: (LABELMAP, ExplicitVRLittleEndian),
    Form.SEG_LABELMAP_DEFLATED: (LABELMAP, DeflatedExplicitVRLittleEndian),
    Form.SR: (COMPREHENSIVE_3D_SR, ExplicitVRLittleEndian),
    Form.SR_LABELMAP: (COMPREHENSIVE_3D_SR, ExplicitVRLittleEndian),
    Form.SR_VIEWER: ("1.2.840.10008.5.1.4.1.1.88.33", ExplicitVRLittleEndian),
    Form.CAPTURE: ("1.2.840.10008.5.1.4.1.1.7", ExplicitVRLittleEndian),
    Form.RTSTRUCT: ("1.2.840.10008.5.1.4.1.1.481.3", ImplicitVRLittleEndian),
}
"""SOP class and transfer syntax of each form of a result; a test makes every one and looks."""

VERIFICATION = "1.2.840.10008.1.1"
PRIVATE = "private"  # in the place of a SOP class: any that is not DICOM's
PRIVATE_EXAMPLE = "1.2.826.0.1.3680043.9.9999.1"


@dataclass(frozen=True)
class Offer:
    """A presentation context. ``role``: ours. ``sop_class``: a UID, or ``PRIVATE``."""

    service: str
    sop_class: str
    name: str
    role: str
    syntaxes: tuple[str, ...]


@dataclass(frozen=True)
class Route:
    """A DICOMweb transaction (PS3.18). ``role``: ``origin server`` or ``user agent``."""

    service: str
    role: str
    what: str


@dataclass(frozen=True)
class Codec:
    """A transfer syntax of images; ``missing``: what this machine lacks to decode it."""

    syntax: str
    name: str
    missing: str


@dataclass(frozen=True)
class Coded:
    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Statement:
    """``addresses``: whether hosts, ports, titles and URLs of the site's systems are told.

    Times in seconds, sizes in bytes."""

    version: str
    ae_title: str
    port: int
    host: str | None
    max_associations: int
    max_pdu: int
    proposed_max_pdu: int
    implementation_uid: str
    implementation_version: str
    tls: str
    callers: tuple[str, ...]
    accepted: tuple[Offer, ...]
    proposed: tuple[Offer, ...]
    web: tuple[Route, ...]
    codecs: tuple[Codec, ...]
    codes: tuple[Coded, ...]
    settings: Mapping[str, str]
    nodes: tuple[str, ...]
    destinations: tuple[str, ...]
    addresses: bool


def collect(settings: Settings, site: Site, *, addresses: bool = False) -> Statement:
    """The facts of this configuration; no connection is made, no secret is read."""
    entity = AE(settings.ae_title)
    return Statement(
        version=_version(),
        ae_title=settings.ae_title,
        port=settings.listen_port,
        host=settings.listen_host if addresses else None,
        max_associations=settings.max_associations,
        max_pdu=MAX_PDU_BYTES,
        proposed_max_pdu=entity.maximum_pdu_size,
        implementation_uid=str(entity.implementation_class_uid),
        implementation_version=str(entity.implementation_version_name),
        tls=_tls(settings),
        callers=tuple(_callers(site, addresses)),
        accepted=tuple(_accepted(settings)),
        proposed=tuple(_proposed()),
        web=(*_served(), *_asked()),
        codecs=tuple(Codec(uid, UID(uid).name, missing_codec(UID(uid))) for uid in IMAGE_SYNTAXES),
        codes=tuple(_codes(settings)),
        settings=_told(settings),
        nodes=tuple(_nodes(site, addresses)),
        destinations=tuple(_destinations(site, addresses)),
        addresses=addresses,
    )


def _version() -> str:
    try:
        return version("a-qcf-net")
    except PackageNotFoundError:
        return "0"


def _accepted(settings: Settings) -> Iterator[Offer]:
    for context in offered(settings):
        if context.abstract_syntax == VERIFICATION:
            yield _offer("Verification", context)
        else:  # reports of nodes that were asked, on associations of theirs
            yield _offer("Storage Commitment", context, role="SCU")
    storage = contexts_for(AllStoragePresentationContexts)
    for context in sorted(storage, key=lambda one: UID(one.abstract_syntax or "").name):
        yield _offer("Storage", context)
    for context in contexts_for([build_context(UID(PRIVATE_EXAMPLE))]):
        syntaxes = tuple(map(str, context.transfer_syntax))
        yield Offer("Storage", PRIVATE, "any private SOP class", "SCP", syntaxes)


def _offer(service: str, context: PresentationContext, role: str = "SCP") -> Offer:
    uid = UID(context.abstract_syntax or "")
    return Offer(service, uid, uid.name, role, tuple(map(str, context.transfer_syntax)))


def _proposed() -> Iterator[Offer]:
    question, *images = get_contexts()
    _, *results = result_contexts()
    yield from _merged("Verification", "SCU", ECHO_CONTEXTS)
    yield from _merged("Query", "SCU", FIND_CONTEXTS)
    yield from _merged("Retrieve (C-GET)", "SCU", [question])
    yield from _merged("Storage, during C-GET", "SCP", [*images, *results])
    yield from _merged("Retrieve (C-MOVE)", "SCU", MOVE_CONTEXTS)
    yield from _merged("Storage", "SCU", contexts_of(FORM_KINDS.values()))
    yield from _merged("Storage Commitment", "SCU", COMMITMENT)


def _merged(service: str, role: str, contexts: Iterable[Context]) -> Iterator[Offer]:
    """One line for each SOP class, whatever the number of its contexts."""
    found: dict[str, list[str]] = {}
    for sop_class, syntaxes in contexts:
        found.setdefault(str(sop_class), []).extend(map(str, syntaxes))
    for uid, syntaxes in found.items():
        yield Offer(service, uid, UID(uid).name, role, tuple(dict.fromkeys(syntaxes)))


def _served() -> Iterator[Route]:
    """What the API has of DICOMweb."""
    for path, methods in bare_app().openapi()["paths"].items():
        if path.startswith("/dicomweb/"):
            for method in methods:
                yield Route("STOW-RS", "origin server", f"{method.upper()} {path}")


def _asked() -> Iterator[Route]:
    yield Route("QIDO-RS", "user agent", "studies, series of a study, instances of a series")
    yield Route("WADO-RS", "user agent", "series, as stored (transfer-syntax=*); instance metadata")
    yield Route("STOW-RS", "user agent", "results, one SOP class and transfer syntax a request")


def _codes(settings: Settings) -> Iterator[Coded]:
    known = {value for value in vars(codes).values() if isinstance(value, CodedConcept)}
    found = {Coded(one.value, one.scheme_designator, one.meaning) for one in known}
    for folder in ModelRegistry(settings.models_dir, settings.default_model).all():
        for label in folder.spec.labels:
            parts = (label.category, label.type, label.region)
            found |= {Coded(one.value, one.scheme, one.meaning) for one in parts if one}
    yield from sorted(found, key=lambda one: (one.scheme, one.value))


def _tls(settings: Settings) -> str:
    if settings.listen_tls_cert is None:
        return "none: associations are in clear"
    checked = "certificates of callers are checked" if settings.listen_tls_ca else "of callers none"
    return f"TLS 1.2 or newer, nothing in clear; {checked}"


def _callers(site: Site, addresses: bool) -> Iterator[str]:
    for caller in site.callers:
        where = f" from {caller.host}" if caller.host else " from anywhere"
        yield f"{caller.ae_title}{where}" if addresses else "an AE title of the site file"


def _told(settings: Settings) -> dict[str, str]:
    names = ("ae_title", "listen_port", "max_associations", "quiet_s", "max_upload_bytes")
    return {f"AQCF_{name.upper()}": str(getattr(settings, name)) for name in names}


def _nodes(site: Site, addresses: bool) -> Iterator[str]:
    for number, (name, node) in enumerate(site.nodes.items(), start=1):
        shown = name if addresses else f"node {number}"
        yield f"{shown}: {'; '.join(_interfaces(site, name, node, addresses))}"


def _interfaces(site: Site, name: str, node: Node, addresses: bool) -> Iterator[str]:
    if name == site.archive:
        yield "asked whether a study is complete"
    if node.dimse is not None:
        secured = " over TLS" if node.dimse.tls else ""
        where = f" {node.dimse.ae_title} at {node.dimse.host}:{node.dimse.port}"
        yield f"DIMSE{secured}{where if addresses else ''}"
    if node.dicomweb is not None:
        yield f"DICOMweb{f' at {node.dicomweb.url}' if addresses else ''}"
    yield f"retrieve {node.retrieve}"


def _destinations(site: Site, addresses: bool) -> Iterator[str]:
    for number, (name, one) in enumerate(site.destinations.items(), start=1):
        shown = name if addresses else f"destination {number}"
        yield f"{shown}: {_words(site, one, addresses)}"


def _words(site: Site, one: Destination, addresses: bool) -> str:
    number = list(site.nodes).index(one.node) + 1
    profile = site.all_profiles[one.profile]
    told = ", ".join(f"{key} {_word(value)}" for key, value in profile.model_dump().items())
    to = one.node if addresses else f"node {number}"
    by = "C-STORE" if one.by == "dimse" else "STOW-RS"
    return f"{by} to {to}; confirmed by {one.confirm}; {told}"


def _word(value: object) -> object:
    return value if isinstance(value, str) else "yes" if value else "no"
