"""Is a study complete? Pure: what has arrived, what the archive has, how long nothing came."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

MAX_SETTLE_S = 2.0
PATIENCE = 15  # times the quiet time, for instances that the archive has and nobody sends


@dataclass(frozen=True)
class Verdict:
    """``ready``: the study is to be evaluated now. ``lacking``: UIDs of series that it is not
    worth waiting for any longer, though the archive has more of them."""

    ready: bool
    lacking: frozenset[str] = frozenset()


def settle_s(quiet_s: float) -> float:
    """Seconds without an instance before anything is asked: a burst is not over between two."""
    return min(MAX_SETTLE_S, quiet_s / 4)


def judge(
    have: Mapping[str, int],
    archive: Mapping[str, int] | None,
    *,
    idle_s: float,
    quiet_s: float,
    done: Collection[str] = (),
) -> Verdict:
    """``have``: instances by series UID; ``archive``: the same there, ``None`` where it is not
    known; ``done``: UIDs of series that were evaluated before. ``idle_s``: since the last instance,
    or since its sender was last seen.

    All that the archive has is here: ready at once. A series of it has not begun to arrive: ready
    after the quiet time, because not everything is sent to everybody. A series that did begin
    lacks instances: not ready, until patience ends.
    """
    if idle_s < settle_s(quiet_s):
        return Verdict(False)
    if archive is None:
        return Verdict(idle_s >= quiet_s)
    lacking = frozenset(uid for uid, count in have.items() if count < archive.get(uid, 0))
    if lacking:
        return Verdict(idle_s >= PATIENCE * quiet_s, lacking)
    return Verdict(archive.keys() <= {*have, *done} or idle_s >= quiet_s)
