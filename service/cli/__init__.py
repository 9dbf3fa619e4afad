"""The command ``aqcf``. Commands import what they need when they run: ``--help`` stays quick."""

# ruff: noqa: F401, I001  (each registers its commands, in the order in which help shows them)

from .common import app
from . import segment, roles, deliveries, info, conformance, acceptance, keys, audit, site

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the ``aqcf`` script."""
    app()
