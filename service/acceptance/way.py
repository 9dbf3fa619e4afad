"""From the names of a plan to the systems they stand for, and whether they are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from model.errors import InputError

from ..container import Container
from ..domain import Origin
from ..errors import StateLockedError
from ..pacs.retrieve import moves_only
from ..rehearse import Sender, node_of, of_files
from ..settings import Settings
from ..site import DimseNode, Node, OutputProfile, Site
from ..sitecheck import echo, query
from ..wiring import state_lock
from .records import Plan, Trial

CALLING: Final = "AQCF_ACCEPT"
RULE: Final = """put this rule first in the site file, and restart the service:
  - name: acceptance
    when: {{description: '^AQCF ACCEPTANCE'}}
    then: {{model: acceptance, series: every, destinations: [{destination}]}}"""


class AcceptanceInputError(InputError):
    """The test cannot be made as it is asked for: ``no_destination``, ``no_acceptance_rule``,
    ``nobody_serves``, ``invalid_listener``, ``no_way_back``."""

    code = "invalid_acceptance"


@dataclass(frozen=True)
class Way:
    """``destination``: name of the one by which results reach ``node``; ``profile``: what it asks
    for. ``listener``: where the phantoms go, in place of the node. ``by_rules``: the rules of the
    site decide on them, because nobody names a model and a destination."""

    name: str
    node: Node
    destination: str
    profile: OutputProfile
    by_rules: bool
    sender: Sender
    listener: DimseNode | None = None

    @property
    def reading(self) -> Node:
        """The node, asked in a way that brings objects here."""
        if self.node.retrieve == "move":
            return self.node.model_copy(update={"retrieve": "auto"})
        return self.node


def resolve(settings: Settings, site: Site, plan: Plan) -> Way:
    """Raises ``InputError``: ``unknown_node``, ``unknown_destination``, ``no_destination``,
    ``invalid_listener``, ``no_way_back``."""
    node = node_of(site, plan.node)
    by_rules = plan.through != "pacs" or moves_only(node)
    listener = _listener(settings, site, plan) if plan.through == "listener" else None
    destination = _destination(site, plan)
    return Way(
        plan.node,
        node,
        destination,
        site.all_profiles[site.destinations[destination].profile],
        by_rules,
        _sender(settings, node, plan, listener),
        listener,
    )


def require_answers(settings: Settings, way: Way) -> None:
    """Ask the node and the listener. Raises ``PacsUnavailableError``, ``PacsRefusedError``."""
    echo(settings, way.node)
    query(way.node)
    if way.listener is not None:
        echo(settings, Node(dimse=way.listener))


def require_service(container: Container) -> None:
    """Raises ``AcceptanceInputError`` (``nobody_serves``) when nothing would do the jobs."""
    settings = container.settings
    if settings.redis_url is not None:
        if not container.queue.alive():
            raise _nobody("no worker with a loaded model is alive; `aqcf worker`")
        return
    try:
        with state_lock(settings.state_dir):
            raise _nobody(
                f"no `aqcf serve` runs from {settings.state_dir}; --state, AQCF_REDIS_URL"
            )
    except StateLockedError:
        return


def require_rules(settings: Settings, site: Site, way: Way, trials: Sequence[Trial]) -> None:
    """Ask the rules, as they will be asked, whether every phantom's result reaches the node.

    Raises ``AcceptanceInputError`` (``no_acceptance_rule``), which has the rule that is missing.
    """
    names = {trial.written.series: trial.name for trial in trials}
    files = [file for trial in trials for file in trial.written.files]
    for study in of_files(settings, site, files, way.sender):
        for choice in study.choices:
            then = choice.decision.then
            sent = then is not None and way.name in [
                site.destinations[name].node for name in then.destinations
            ]
            if not (choice.chosen and sent):
                why = choice.why if not choice.chosen else f"its rule does not send to {way.name}"
                raise AcceptanceInputError(
                    f"the rules bring no result of {names[choice.key]} to {way.name} ({why}); "
                    + RULE.format(destination=way.destination),
                    code="no_acceptance_rule",
                )


def _nobody(what: str) -> AcceptanceInputError:
    return AcceptanceInputError(f"{what} has to run, with the same settings", code="nobody_serves")


def _destination(site: Site, plan: Plan) -> str:
    there = [name for name, one in site.destinations.items() if one.node == plan.node]
    if plan.destination is not None and plan.destination not in site.destinations:
        known = ", ".join(site.destinations) or "none"
        raise AcceptanceInputError(
            f"{plan.destination!r} is no destination of the site file; there are: {known}",
            code="unknown_destination",
        )
    wanted = [name for name in there if plan.destination in (None, name)]
    if len(wanted) != 1:
        raise AcceptanceInputError(
            f"results reach {plan.node} by {', '.join(there) or 'no destination'}; "
            "name one of them with --destination, or add one to the site file",
            code="no_destination",
        )
    if site.all_profiles[site.destinations[wanted[0]].profile].seg == "none":
        raise AcceptanceInputError(
            f"the profile of {wanted[0]} sends no SEG, so that nothing can come back",
            code="no_way_back",
        )
    return wanted[0]


def _listener(settings: Settings, site: Site, plan: Plan) -> DimseNode:
    """A node of the site file, or an address in clear."""
    where = plan.listener or f"127.0.0.1:{settings.listen_port}"
    known = site.nodes.get(where)
    if known is not None and known.dimse is not None:
        return known.dimse
    host, _, port = where.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise AcceptanceInputError(
            f"{where!r} is neither HOST:PORT nor a node with dimse", code="invalid_listener"
        )
    calling = plan.calling or (site.callers[0].ae_title if site.callers else CALLING)
    return DimseNode(host=host, port=int(port), ae_title=settings.ae_title, calling=calling)


def _sender(settings: Settings, node: Node, plan: Plan, listener: DimseNode | None) -> Sender:
    """As the rules will see who sent the phantoms."""
    if listener is not None:
        return Sender(Origin.DIMSE, listener.calling or settings.ae_title)
    title = node.dimse.ae_title if node.dimse is not None else ""
    return Sender(Origin.DIMSE if plan.through == "forward" else Origin.PULL, title)
