"""``python -m training`` is ``aqcf-train``."""

from .cli import main

main()
