"""The DICOMweb client against Orthanc, and against a server that answers as it is told."""

from pathlib import Path

import httpx
import pytest
from servers import OrthancServer, free_port
from web_peers import Answer, answering

from service.pacs.errors import PacsDeniedError, PacsRefusedError, PacsUnavailableError
from service.pacs.http import web
from service.site import DicomWebNode

SHORT = httpx.Timeout(0.5)


@pytest.fixture
def node(orthanc: OrthancServer) -> DicomWebNode:
    return DicomWebNode(
        url=orthanc.dicomweb_url, username=orthanc.username, password_file=orthanc.password_file
    )


def test_an_empty_archive(node: DicomWebNode) -> None:
    with web(node) as client:
        assert client.json("/studies", [("PatientID", "none")]) == []


def test_wrong_credentials(node: DicomWebNode, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("guess")
    with (
        web(node.model_copy(update={"password_file": wrong})) as client,
        pytest.raises(PacsDeniedError, match="401"),
    ):
        client.json("/studies")


def test_a_missing_password_file(node: DicomWebNode, tmp_path: Path) -> None:
    lost = node.model_copy(update={"password_file": tmp_path / "lost"})
    with pytest.raises(PacsDeniedError, match="password_file"), web(lost):
        pass


def test_nobody_there() -> None:
    node = DicomWebNode(url=f"http://127.0.0.1:{free_port()}")
    with web(node) as client, pytest.raises(PacsUnavailableError, match="not reached"):
        client.json("/studies")


def test_a_token_goes_out_and_nowhere_else(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("abc\n")
    with (
        answering(Answer(200, b"[]")) as (url, asked),
        web(DicomWebNode(url=url, token_file=token)) as client,
    ):
        assert client.json("/studies") == []
    assert asked[0].headers["authorization"] == "Bearer abc"


def test_redirects_are_not_followed() -> None:
    with answering(Answer(200, b"[]")) as (elsewhere, asked):
        moved = Answer(307, b"", {"Location": f"{elsewhere}/studies"})
        with (
            answering(moved) as (url, _),
            web(DicomWebNode(url=url)) as client,
            pytest.raises(PacsDeniedError, match="redirects"),
        ):
            client.json("/studies")
        assert asked == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, PacsRefusedError),
        (415, PacsRefusedError),
        (401, PacsDeniedError),
        (403, PacsDeniedError),
        (404, PacsDeniedError),
        (408, PacsUnavailableError),
        (429, PacsUnavailableError),
        (500, PacsUnavailableError),
        (503, PacsUnavailableError),
    ],
)
def test_what_an_answer_means(status: int, kind: type[Exception]) -> None:
    with (
        answering(Answer(status, b"Doe^Jane is not allowed")) as (url, _),
        web(DicomWebNode(url=url)) as client,
        pytest.raises(kind) as caught,
    ):
        client.json("/studies")
    assert type(caught.value) is kind
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[1]"])
def test_an_answer_that_is_no_dicom_json(body: bytes) -> None:
    with (
        answering(Answer(200, body)) as (url, _),
        web(DicomWebNode(url=url)) as client,
        pytest.raises(PacsUnavailableError, match="JSON"),
    ):
        client.json("/studies")


def test_a_server_that_says_nothing() -> None:
    with (
        answering(Answer(200, b"[]", delay_s=2.0)) as (url, _),
        web(DicomWebNode(url=url), SHORT) as client,
        pytest.raises(PacsUnavailableError, match="ReadTimeout"),
    ):
        client.json("/studies")
