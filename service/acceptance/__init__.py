"""``aqcf acceptance``: phantoms through the site's archive and back, and a report of it.

`phantoms`, `shape`, `stack` and `write` make them; `way` finds the systems; `send`, `follow` and
`fetch` go there and back; `judge` and `measured` compare; `report` and `pictures` show.
"""

from .records import Plan, Report, Through, Verdict
from .report import write_report
from .run import accept

__all__ = ["Plan", "Report", "Through", "Verdict", "accept", "write_report"]
