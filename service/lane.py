"""A lane: what running jobs share, and wait for when others have it. There are two.

The lane to the device lets one job at a time infer, while others read, resample, encode and write:
two inferences at once only take turns on a GPU, with the memory of both; on a CPU their threads
fight. The other lane is the memory, of which each job takes what it is predicted to need. The next
one in is the most urgent that waits, and among equals the one that came first; one that needs much
is not overtaken by those that need little.
"""

import heapq
import itertools
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Final

from model.errors import CancelledError

from .domain import Priority

LOOK_UP_S: Final = 0.2  # how often a waiting job looks whether it shall stop
RANKS: Final = {Priority.URGENT: 0, Priority.ROUTINE: 1}
WHOLE: Final = Fraction(1)


class Lane:
    """``width``: how many may be inside together, where none takes more than its place."""

    def __init__(self, width: int = 1) -> None:
        self.place = Fraction(1, width)
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int]] = []
        self._inside: dict[int, Fraction] = {}
        self._closed = False

    def enter(
        self, priority: Priority, still: Callable[[], None], share: Fraction | None = None
    ) -> int:
        """Wait for a place; the ticket that ``leave`` takes back.

        ``still`` is called now and then while it waits, and may raise to stop. ``share``: of the
        whole lane, one place when None; who asks for more than the whole goes in alone. Raises
        ``CancelledError`` once the lane is closed.
        """
        taken = min(WHOLE, self.place if share is None else share)
        ticket = self._line_up(priority)
        try:
            while not self._let_in(ticket, taken):
                still()
        except BaseException:
            self.leave(ticket)
            raise
        return ticket

    def leave(self, ticket: int) -> None:
        """Give the place, or the place in the line, to others; doing it twice changes nothing."""
        with self._changed:
            self._inside.pop(ticket, None)
            self._waiting = [place for place in self._waiting if place[1] != ticket]
            heapq.heapify(self._waiting)
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more: the device is broken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def waiting(self) -> int:
        """Jobs in the line."""
        return len(self._waiting)

    @property
    def busy(self) -> int:
        """Jobs inside."""
        return len(self._inside)

    def _line_up(self, priority: Priority) -> int:
        with self._changed:
            ticket = next(self._numbers)
            heapq.heappush(self._waiting, (RANKS[priority], ticket))
            return ticket

    def _let_in(self, ticket: int, share: Fraction) -> bool:
        """Whether it is inside now; waits a moment for its turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._is_next(ticket, share), LOOK_UP_S)
            if self._closed:
                raise CancelledError("the device is broken; the job waits for another worker")
            if not self._is_next(ticket, share):
                return False
            heapq.heappop(self._waiting)
            self._inside[ticket] = share
            self._changed.notify_all()
            return True

    def _is_next(self, ticket: int, share: Fraction) -> bool:
        fits = sum(self._inside.values(), share) <= WHOLE
        return fits and self._waiting[0][1] == ticket
