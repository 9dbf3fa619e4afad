"""Made images: tumours in real livers, whole phantoms."""

from .phantom import head_phantom, phantom
from .tumours import add_tumours

__all__ = ["add_tumours", "head_phantom", "phantom"]
