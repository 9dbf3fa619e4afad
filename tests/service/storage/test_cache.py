"""Local copies of files that are kept elsewhere."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import DamagedArtifactError
from service.storage.cache import TRIES, LocalCache
from service.storage.manifest import Manifest, StoredFile, damaged

CONTENT = b"what was stored"
FILE = StoredFile("seg.dcm", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Source:
    """Gives ``answers`` one after the other, the last one for ever; ``None`` is not there."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = list(answers)
        self.asked = 0

    def read(self, _: StoredFile) -> Iterator[bytes]:
        self.asked += 1
        answer = self._answers[min(self.asked, len(self._answers)) - 1]
        if answer is None:
            raise damaged()
        yield answer


@pytest.fixture
def cache(tmp_path: Path) -> LocalCache:
    return LocalCache(tmp_path, 1024**2)


@pytest.mark.parametrize("moment", [None, b"", CONTENT[:3], CONTENT + b"x"])
def test_a_file_that_is_being_replaced_is_read_again(
    cache: LocalCache, moment: bytes | None
) -> None:
    source = Source(moment, CONTENT)
    for _ in range(2):
        (path,) = cache.fetch("entry", Manifest((FILE,)), source.read)
        assert path.read_bytes() == CONTENT
    assert source.asked == 2


def test_a_file_that_stays_damaged_is_an_error_and_leaves_nothing(
    cache: LocalCache, tmp_path: Path
) -> None:
    source = Source(b"other")
    with pytest.raises(DamagedArtifactError):
        cache.fetch("entry", Manifest((FILE,)), source.read)
    assert source.asked == TRIES
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
