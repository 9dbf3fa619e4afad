"""Made images: tumours in real livers, whole phantoms."""

from .tumours import add_tumours

__all__ = ["add_tumours"]
