"""Deleting phantoms in an archive that understands nothing of it."""

import pytest
from web_peers import Answer, answering

from service.acceptance.clean import clean
from service.acceptance.way import Way
from service.rehearse import Sender
from service.settings import Settings
from service.site import DicomWebNode, Node, OutputProfile


@pytest.mark.parametrize(
    "body", [b"<html>Welcome</html>", b'{"a": 1}', b'["a", {"Type": "Study"}]'], ids=str
)
def test_what_cannot_be_deleted_is_told(body: bytes) -> None:
    """The test has been made by then; its report must not be lost."""
    with answering(Answer(200, body)) as (url, asked):
        node = Node(dicomweb=DicomWebNode(url=f"{url}/dicom-web"))
        way = Way("pacs", node, "archive", OutputProfile(), by_rules=False, sender=Sender())
        said = clean(Settings(), way, ["1.2.3"])
    assert said.startswith("1 study, which the archive does not let us delete")
    assert [one.path for one in asked if one.method == "POST"] == ["/tools/lookup"]
