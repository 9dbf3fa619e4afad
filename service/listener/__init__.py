"""The DICOM listener: a storage SCP that writes instances to disk and lets the sweep judge them.

pynetdicom would log what it is sent; its own loggers say nothing here.
"""

from .callers import check_listen_address
from .contexts import IMAGE_SYNTAXES, contexts_for, is_storage
from .process import serve
from .server import listening, offered

__all__ = [
    "IMAGE_SYNTAXES",
    "check_listen_address",
    "contexts_for",
    "is_storage",
    "listening",
    "offered",
    "serve",
]
