"""The DICOM conformance statement of this very configuration (PS3.2).

What is accepted and proposed is read from where it is done: the listener's and ``service.pacs``'s
own lists, the site file, the settings, the codecs of this machine.
"""

from .facts import FORM_KINDS, Codec, Coded, Offer, Route, Statement, collect
from .page import as_markdown

__all__ = [
    "FORM_KINDS",
    "Codec",
    "Coded",
    "Offer",
    "Route",
    "Statement",
    "as_markdown",
    "collect",
]
