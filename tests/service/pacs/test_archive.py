"""The archive is asked seldom, and a silent one is left alone."""

from datetime import UTC, datetime, timedelta

from service.pacs.archive import Archive

STUDY = "1.2.3"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Counter:
    """An archive of ours, with a clock of its own."""

    def __init__(self) -> None:
        self.seconds, self.asked, self.silent = 0.0, 0, False
        self.counts = {"1.2.3.1": 40}
        self.archive = Archive(self.answer, lambda: self.seconds)

    def answer(self, _study_uid: str) -> dict[str, int]:
        self.asked += 1
        if self.silent:
            raise TimeoutError
        return dict(self.counts)

    def questions(self, seconds: int, changed_at: datetime = NOW) -> int:
        """How often it is asked by a sweep that runs every second."""
        before = self.asked
        for _ in range(seconds):
            self.archive.counts(STUDY, changed_at)
            self.seconds += 1
        return self.asked - before


def test_the_answer_is_what_the_archive_has() -> None:
    peer = Counter()
    assert peer.archive.counts(STUDY, NOW) == {"1.2.3.1": 40}


def test_a_study_that_does_not_change_is_asked_ever_more_seldom() -> None:
    peer = Counter()
    assert peer.questions(10) == 2
    assert peer.questions(3600) < 20
    assert peer.archive.counts(STUDY, NOW) == {"1.2.3.1": 40}


def test_a_change_asks_again_at_once() -> None:
    peer = Counter()
    peer.archive.counts(STUDY, NOW)
    peer.counts["1.2.3.2"] = 3
    assert peer.archive.counts(STUDY, NOW) == {"1.2.3.1": 40}
    later = NOW + timedelta(seconds=1)
    assert peer.archive.counts(STUDY, later) == {"1.2.3.1": 40, "1.2.3.2": 3}


def test_an_unknown_study_and_a_silent_archive_give_nothing() -> None:
    peer = Counter()
    peer.counts = {}
    assert peer.archive.counts(STUDY, NOW) is None
    peer.silent = True
    assert peer.archive.counts("1.2.4", NOW) is None


def test_a_silent_archive_is_left_alone_whatever_the_study() -> None:
    peer = Counter()
    peer.silent = True
    for number in range(100):
        peer.archive.counts(f"1.2.{number}", NOW)
    assert peer.asked == 1
    assert peer.questions(600) < 9
    peer.silent = False
    peer.seconds += 300
    assert peer.archive.counts(STUDY, NOW) == {"1.2.3.1": 40}
