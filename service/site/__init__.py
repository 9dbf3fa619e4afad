"""What a site says about its network in one YAML file: nodes, destinations, rules."""

from .config import (
    Caller,
    Destination,
    DicomWebNode,
    DimseNode,
    Node,
    Orientation,
    OutputProfile,
    Rule,
    Site,
    Then,
    Tls,
    When,
)
from .load import SiteError, load_site
from .rules import (
    Candidate,
    Choice,
    Considered,
    Decision,
    SeriesFacts,
    choose,
    contenders,
    decide,
    submit_options,
)

__all__ = [
    "Caller",
    "Candidate",
    "Choice",
    "Considered",
    "Decision",
    "Destination",
    "DicomWebNode",
    "DimseNode",
    "Node",
    "Orientation",
    "OutputProfile",
    "Rule",
    "SeriesFacts",
    "Site",
    "SiteError",
    "Then",
    "Tls",
    "When",
    "choose",
    "contenders",
    "decide",
    "load_site",
    "submit_options",
]
