"""The statement as Markdown, in the order of PS3.2."""

from collections.abc import Iterable, Iterator, Sequence

from pydicom.uid import UID

from .facts import PRIVATE, Offer, Statement

TITLE = "DICOM conformance statement: A-QCF-Net"


def as_markdown(statement: Statement) -> str:
    """The whole page. The same configuration gives the same text."""
    sets = _syntax_sets((*statement.accepted, *statement.proposed))
    parts = [
        f"# {TITLE} {statement.version}",
        "Made by `aqcf conformance` from the configuration that it was started with. Research use "
        "only; not a medical device.",
        *_overview(statement),
        *_model(statement),
        *_entity(statement, sets),
        *_syntaxes(statement, sets),
        *_configuration(statement),
        *_rest(statement),
    ]
    return "\n\n".join(parts) + "\n"


def _overview(statement: Statement) -> Iterator[str]:
    yield "## 1 Overview"
    yield (
        "The service segments liver and liver tumour in CT and MR series and writes segmentations "
        "and reports. This page says how it speaks to other systems. It promises no clinical "
        "fitness, and does not replace a test between the systems concerned."
    )
    offers = (*statement.accepted, *statement.proposed)
    services = dict.fromkeys((offer.service, offer.role) for offer in offers)
    yield _table(("network service", "our role"), services)
    yield _table(
        ("DICOMweb service", "our role", "what"),
        ((route.service, route.role, route.what) for route in statement.web),
    )
    yield "Media: none. Files are taken over HTTP and on the command line."


def _model(statement: Statement) -> Iterator[str]:
    yield "## 2 Implementation model"
    yield (
        f"One application entity, `{statement.ae_title}`. As an SCP it stores instances until "
        "their study is complete: the archive has no more of them, or none came for "
        "`AQCF_QUIET_S` seconds. Then the rules of the site file choose series, which are "
        "segmented. As an SCU it finds and fetches images, sends results to destinations, and "
        "asks whether they have them; what fails for a while is tried again, and nothing is "
        "reported as delivered before it is confirmed, where the site file asks for that."
    )
    yield _list("Systems of the site", statement.nodes)
    yield _list("Destinations of results", statement.destinations)


def _entity(statement: Statement, sets: dict[tuple[str, ...], str]) -> Iterator[str]:
    yield "## 3 Application entity"
    yield _table(("", ""), _associations(statement))
    yield "### 3.1 Associations that are accepted"
    yield (
        "A caller has to use our AE title. An instance is answered with success (0000) when it is "
        "safe on disk. A700: no room, or the ledger is away; try again. A900: the instance is not "
        "the one that was announced. C000: it cannot be understood. There is no storage commitment "
        "as SCP."
    )
    if any(offer.service == "Storage Commitment" for offer in statement.accepted):
        yield "Storage commitment reports (N-EVENT-REPORT) are taken on associations of the node."
    yield _offers(statement.accepted, sets)
    yield "### 3.2 Associations that are initiated"
    yield (
        "One activity each: a question (C-FIND, study root), a fetch (C-GET, C-MOVE, study root, "
        "series level), a delivery (C-STORE), a request for commitment (N-ACTION; its report is "
        "taken on the same association or on one that the node opens). Each transfer syntax is "
        "proposed in a context of its own where the peer's choice matters. In C-GET "
        "the SCP role is negotiated for the images. `aqcf site check` asks with C-ECHO. `aqcf "
        "acceptance` stores CT, MR and enhanced CT images of phantoms, and fetches their results. "
        "No relational queries, no fuzzy matching. An "
        "object whose class or transfer syntax is not "
        "accepted is replaced as the destination's profile says."
    )
    yield _offers(statement.proposed, sets)


def _associations(statement: Statement) -> Iterator[tuple[str, str]]:
    port = f"{statement.port}" if statement.port else "a free one"
    yield "AE title", f"`{statement.ae_title}`"
    yield "port", f"{statement.host}, {port}" if statement.host else port
    yield "implementation class UID", statement.implementation_uid
    yield "implementation version name", statement.implementation_version
    yield "associations at the same time, as SCP", str(statement.max_associations)
    yield "largest PDU that we accept, as SCP", f"{statement.max_pdu} bytes"
    yield "largest PDU that we accept, as SCU", f"{statement.proposed_max_pdu} bytes"
    yield "asynchronous operations", "not supported"
    yield "extended negotiation", "SCP/SCU role selection (C-GET); no user identity"
    callers = "; ".join(dict.fromkeys(statement.callers))
    many = f"{len(statement.callers)}: {callers}" if statement.callers else "everybody"
    yield "callers that are accepted", many
    yield "transport security, as SCP", statement.tls


def _offers(offers: Sequence[Offer], sets: dict[tuple[str, ...], str]) -> str:
    rows = (
        (
            offer.service,
            offer.name,
            "any outside 1.2.840.10008" if offer.sop_class == PRIVATE else offer.sop_class,
            offer.role,
            sets[offer.syntaxes],
        )
        for offer in offers
    )
    return _table(("service", "SOP class", "UID", "our role", "transfer syntaxes"), rows)


def _syntax_sets(offers: Iterable[Offer]) -> dict[tuple[str, ...], str]:
    found = dict.fromkeys(offer.syntaxes for offer in offers)
    return {syntaxes: f"T{number}" for number, syntaxes in enumerate(found, start=1)}


def _syntaxes(statement: Statement, sets: dict[tuple[str, ...], str]) -> Iterator[str]:
    yield "### 3.3 Transfer syntaxes"
    yield (
        "The sets of the tables above. As SCP the first of a set that the caller proposes in a "
        "context is accepted."
    )
    rows = ((uid, UID(uid).name, _in(sets, uid)) for uid in _every(sets))
    yield _table(("UID", "name", "sets"), rows)
    yield "What this machine decodes of images:"
    codecs = ((one.name, one.syntax, one.missing or "yes") for one in statement.codecs)
    yield _table(("transfer syntax", "UID", "decoded, or what is missing"), codecs)


def _every(sets: dict[tuple[str, ...], str]) -> list[str]:
    return list(dict.fromkeys(uid for syntaxes in sets for uid in syntaxes))


def _in(sets: dict[tuple[str, ...], str], uid: str) -> str:
    return ", ".join(name for syntaxes, name in sets.items() if uid in syntaxes)


def _configuration(statement: Statement) -> Iterator[str]:
    yield "## 4 Configuration"
    yield (
        "Environment variables and one YAML file for nodes, destinations, callers and rules. "
        "TCP/IP over IPv4 and IPv6."
    )
    yield _table(("parameter", "value"), statement.settings.items())


def _rest(statement: Statement) -> Iterator[str]:
    yield "## 5 Character sets"
    yield (
        "All of pydicom's are read, those with code extensions too. Results are written in UTF-8 "
        "(ISO_IR 192)."
    )
    yield "## 6 Security"
    yield (
        f"As SCP: {statement.tls}; AE titles and addresses are checked against the site file where "
        "it names callers. As SCU: TLS 1.2 or newer where the node has `tls`, with the node's CA "
        "alone and, where it is given, a certificate of ours. DICOMweb: HTTPS, basic "
        "authentication or bearer tokens; as origin server API keys or bearer tokens of an OpenID "
        "issuer. No identifier is encrypted or removed by this service."
    )
    yield "## 7 Annexes"
    yield (
        "Written objects, attribute by attribute: `docs/conformance.md`. Standard extended, "
        "specialised and private SOP classes that are written: the secondary capture series "
        "carries orientation, position and frame of reference (standard extended); else none. "
        "Private attributes that are written: none. Private transfer syntaxes: none. Private "
        "attributes that are read: the b-value of older Siemens and GE MR images."
    )
    yield "### Coded terms"
    codes = ((one.value, one.scheme, one.meaning) for one in statement.codes)
    yield _table(("value", "scheme", "meaning"), codes)


def _list(title: str, lines: Sequence[str]) -> str:
    return f"{title}: none." if not lines else "\n".join([f"{title}:", "", *_bullets(lines)])


def _bullets(lines: Iterable[str]) -> Iterator[str]:
    return (f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [_row(head), "|" + "---|" * len(head), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
