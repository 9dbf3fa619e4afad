"""Parts of a deployment, killed, emptied, filled, restarted at moments that a seed chooses."""

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import httpx
from roles import Deployment, Role
from servers import wait_until

HOLD_S = 0.05
RECOVER_S = 90.0


@dataclass(frozen=True)
class Fault:
    """One way in which ``target`` breaks, for at most ``longest_s`` seconds. ``hold`` is called
    again and again as long as it lasts; ``well`` says whether the target works again."""

    kind: str
    target: str
    strike: Callable[[], None]
    heal: Callable[[], None]
    well: Callable[[], bool]
    hold: Callable[[], None] = lambda: None
    longest_s: float = 1.5


@dataclass(frozen=True)
class Step:
    """``gap_s`` after the step before, for ``lasts_s`` seconds."""

    fault: Fault
    gap_s: float
    lasts_s: float


def plan(faults: Sequence[Fault], seed: int, gap_s: tuple[float, float]) -> Iterator[Step]:
    """Without end. Every fault once in each round, in an order, after gaps and for times that
    follow from the seed."""
    chance = random.Random(seed)  # noqa: S311
    while True:
        for fault in chance.sample(faults, len(faults)):
            lasts_s = chance.uniform(0.0, fault.longest_s)
            yield Step(fault, chance.uniform(*gap_s), lasts_s)


@dataclass
class Storm:
    """Carries out a plan: ``least`` blows, and more as long as ``wanted``. Faults of several
    targets overlap; one target breaks again only when it was well. ``recovery_s``: by kind,
    seconds from each blow until it was."""

    steps: Iterator[Step]
    least: int
    most: int
    recovery_s: dict[str, list[float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _busy: dict[str, threading.Thread] = field(default_factory=dict)

    def run(self, wanted: Callable[[], bool]) -> None:
        """Until everything is well again."""
        for number, step in enumerate(self.steps):
            if number >= self.most or (number >= self.least and not wanted()):
                break
            time.sleep(step.gap_s)
            target = step.fault.target
            if target in self._busy:
                self._busy[target].join()
            self._busy[target] = threading.Thread(target=self._break, args=(step,))
            self._busy[target].start()
        for thread in self._busy.values():
            thread.join()

    def _break(self, step: Step) -> None:
        fault, start = step.fault, time.monotonic()
        try:
            fault.strike()
            while time.monotonic() < start + step.lasts_s:
                fault.hold()
                time.sleep(HOLD_S)
            fault.heal()
            wait_until(fault.well, f"{fault.target} is not well", RECOVER_S)
        except Exception as error:
            self.problems.append(f"{fault.kind}: {error!r}")
        self.recovery_s.setdefault(fault.kind, []).append(time.monotonic() - start)


class Slot:
    """A role that somebody starts again whenever it has died, as container engines do. ``ready``:
    what it says when it can work."""

    def __init__(self, deployment: Deployment, ready: str, *arguments: str) -> None:
        self._deployment, self._ready, self._arguments = deployment, ready, arguments
        self.role: Role | None = None
        self.starts = 0

    def start(self) -> None:
        self.starts += 1
        self.role = self._deployment.start(*self._arguments)

    def kill(self) -> None:
        if self.role is not None:
            self.role.kill()

    def well(self) -> bool:
        if self.role is None or self.role.process.poll() is not None:
            self.start()
            return False
        return self.role.says(self._ready)

    def fault(self, name: str) -> Fault:
        return Fault(f"{self._arguments[0]} killed", name, self.kill, self.start, self.well)


class Tally:
    """Counts what senders were told, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def add(self, word: str) -> None:
        with self._lock:
            self._counts[word] = self._counts.get(word, 0) + 1

    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(sorted(self._counts.items()))


def each_in_a_thread(
    works: Iterable[Callable[[], None]],
) -> tuple[list[threading.Thread], list[str]]:
    """The running threads, and what goes wrong in them."""
    problems: list[str] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            problems.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    return threads, problems


def answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/healthz", timeout=5).is_success
    return False
