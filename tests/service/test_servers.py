"""The PACS that other tests talk to."""

from pathlib import Path
from typing import Any

from servers import OrthancServer


def test_a_pacs_takes_keeps_and_forgets(orthanc: OrthancServer, made: Any, tmp_path: Path) -> None:
    files = made.series(tmp_path / "series", made.phantom((4, 16, 16)))
    orthanc.load(files)
    assert (orthanc.count(), orthanc.count("series")) == (4, 1)
    orthanc.kill()
    orthanc.start()
    assert orthanc.count() == 4
    orthanc.clear()
    assert orthanc.count() == 0
