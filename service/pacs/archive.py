"""Asking the archive how many instances a study has, without pressing it."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from ..observability import get_logger

log = get_logger("service.pacs.archive")

CountInstances = Callable[[str], Mapping[str, int]]
"""Instances by series UID that the archive has of a study; empty where it knows no such study.
Raises where it does not answer."""

FIRST_S, LAST_S = 5.0, 300.0
REMEMBERED = 10_000


@dataclass(frozen=True)
class _Asked:
    changed_at: datetime
    again_at: float
    delay_s: float
    counts: Mapping[str, int]


class Archive:
    """Asks about a study once after each change on our side, then after 5, 10, 20, ... 300 s.

    An archive that does not answer is left alone for as long, whatever the study. ``clock`` counts
    seconds. One for each process; several threads may ask.
    """

    def __init__(
        self, count_instances: CountInstances, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count_instances = count_instances
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: dict[str, _Asked] = {}
        self._silent_until, self._silence_s = 0.0, FIRST_S

    def counts(self, study_uid: str, changed_at: datetime) -> Mapping[str, int] | None:
        """What the archive has, as of the last time it was asked; ``None`` while it does not
        answer or knows no such study. ``changed_at``: when an instance last arrived here."""
        with self._lock:
            known = self._asked.get(study_uid)
            current = known is not None and known.changed_at == changed_at
            if known is not None and current and self._clock() < known.again_at:
                return known.counts or None
            if self._clock() < self._silent_until:
                return None
            delay_s = min(known.delay_s * 2, LAST_S) if known and current else FIRST_S
            return self._ask(study_uid, changed_at, delay_s)

    def _ask(
        self, study_uid: str, changed_at: datetime, delay_s: float
    ) -> Mapping[str, int] | None:
        try:
            counts = self._count_instances(study_uid)
        except Exception as error:  # a study never waits for what is wrong with the archive
            log.warning("archive_silent", code=getattr(error, "code", None), exc_info=error)
            self._silent_until = self._clock() + self._silence_s
            self._silence_s = min(self._silence_s * 2, LAST_S)
            return None
        self._silence_s = FIRST_S
        self._remember(study_uid, _Asked(changed_at, self._clock() + delay_s, delay_s, counts))
        return counts or None

    def _remember(self, study_uid: str, asked: _Asked) -> None:
        self._asked.pop(study_uid, None)
        self._asked[study_uid] = asked
        if len(self._asked) > REMEMBERED:
            self._asked.pop(next(iter(self._asked)))
