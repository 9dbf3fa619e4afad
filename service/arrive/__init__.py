"""Images on their way in: instances into arrivals, complete studies through the rules into jobs."""

from .complete import complete, measure, resume, tidy
from .errors import InstanceError, MismatchedInstanceError
from .files import ArrivalFiles
from .reception import Claim, Reception, flush_s

__all__ = [
    "ArrivalFiles",
    "Claim",
    "InstanceError",
    "MismatchedInstanceError",
    "Reception",
    "complete",
    "flush_s",
    "measure",
    "resume",
    "tidy",
]
