"""Results on their way to the site's destinations: owed with a job's success, sent until there.

A destination has one sender per process at most, and its own waits: a slow one holds up nothing
else. Objects have UIDs that derive from the job's content, so that sending again makes nothing
twice.
"""

from .attempt import hear
from .run import enqueue, measure, run_destination, run_once, tidy
from .senders import delivering

__all__ = ["delivering", "enqueue", "hear", "measure", "run_destination", "run_once", "tidy"]
