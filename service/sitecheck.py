"""What of a site file can be checked here: that its secrets can be read, that its models are
installed, that its nodes answer."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from model.errors import AqcfError
from model.types import Modality

from .pacs.association import Context, association
from .pacs.errors import PacsRefusedError
from .pacs.find import UNCOMPRESSED, timeouts_of, web_timeout_of
from .pacs.http import web
from .registry import ModelRegistry, profile_of
from .settings import Settings
from .site import Node, Rule, Site

BOTH: tuple[Modality, ...] = ("ct", "mr")
ECHO_CONTEXTS: tuple[Context, ...] = ((Verification, UNCOMPRESSED),)


@dataclass(frozen=True)
class SiteCheck:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


def examine_site(settings: Settings, site: Site, *, connect: bool) -> Iterator[SiteCheck]:
    """Every check, one after the other; ``connect`` asks the nodes too (C-ECHO, QIDO-RS)."""
    for name, node in site.nodes.items():
        yield from _files(f"nodes.{name}", node)
        if connect:
            yield from _answers(settings, name, node)
    models = ModelRegistry(settings.models_dir, settings.default_model)
    for number, rule in enumerate(site.rules, start=1):
        yield from _rule(models, number, rule)
        yield from _senders(site, number, rule)
        if not rule.when.model_fields_set and number < len(site.rules):
            detail = "it matches everything; the rules after it are never reached"
            yield SiteCheck(f"rules.{number} {rule.name}", False, detail)


def _files(place: str, record: BaseModel) -> Iterator[SiteCheck]:
    for name in type(record).model_fields:
        value = getattr(record, name)
        if isinstance(value, BaseModel):
            yield from _files(f"{place}.{name}", value)
        elif isinstance(value, Path):
            ok = value.is_file() and os.access(value, os.R_OK)
            yield SiteCheck(f"{place}.{name}", ok, "readable" if ok else f"cannot read {value}")


def _answers(settings: Settings, name: str, node: Node) -> Iterator[SiteCheck]:
    if node.dimse is not None:
        yield _told(f"nodes.{name}.dimse", lambda: echo(settings, node), "answers C-ECHO")
    if node.dicomweb is not None:
        yield _told(f"nodes.{name}.dicomweb", lambda: query(node), "answers QIDO-RS")


def echo(settings: Settings, node: Node) -> None:
    """C-ECHO, where the node has ``dimse``. Raises ``PacsUnavailableError``,
    ``PacsRefusedError``."""
    if node.dimse is None:
        return
    calling = node.dimse.calling or settings.ae_title
    with association(node.dimse, ECHO_CONTEXTS, calling, timeouts=timeouts_of(node)) as opened:
        status = opened.send_c_echo().get("Status")
    if status != 0:
        raise PacsRefusedError("C-ECHO was not answered with success")


def query(node: Node) -> None:
    """QIDO-RS, where the node has ``dicomweb``. Raises as ``echo``."""
    if node.dicomweb is not None:
        with web(node.dicomweb, web_timeout_of(node)) as client:
            client.json("/studies", [("limit", "1")])


def _rule(models: ModelRegistry, number: int, rule: Rule) -> Iterator[SiteCheck]:
    if rule.then.ignore:
        return
    for modality in BOTH if rule.when.modality is None else (rule.when.modality,):
        yield _told(
            f"rules.{number} {rule.name} ({modality})",
            lambda modality=modality: profile_of(  # type: ignore[misc]
                models.find(rule.then.model, modality), rule.then.profile
            ),
            "model and profile are installed",
        )


def _senders(site: Site, number: int, rule: Rule) -> Iterator[SiteCheck]:
    """A title that the listener rejects makes a condition that never holds."""
    known = {one.ae_title.strip() for one in site.callers}
    strangers = [title for title in rule.when.ae_title if title.strip() not in known]
    if known and strangers:
        detail = f"{', '.join(strangers)}: not under callers, so nothing comes from there"
        yield SiteCheck(f"rules.{number} {rule.name} (ae_title)", False, detail)


def _told(name: str, check: Callable[[], object], done: str) -> SiteCheck:
    try:
        check()
    except AqcfError as error:
        return SiteCheck(name, False, f"{error.code}: {error.message}")
    return SiteCheck(name, True, done)
