"""What a site says about its network in one YAML file: nodes, destinations, rules."""

from .config import (
    Caller,
    Destination,
    DicomWebNode,
    DimseNode,
    Node,
    OutputProfile,
    Rule,
    Site,
    Then,
    Tls,
    When,
)

__all__ = [
    "Caller",
    "Destination",
    "DicomWebNode",
    "DimseNode",
    "Node",
    "OutputProfile",
    "Rule",
    "Site",
    "Then",
    "Tls",
    "When",
]
