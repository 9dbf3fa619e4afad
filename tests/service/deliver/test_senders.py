"""The sending threads: one per destination, through a PACS that is killed, and to their end."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dimse_peers import store_scp
from servers import OrthancServer, wait_until

from service.container import Container
from service.deliver.senders import delivering
from service.domain import DeliveryState

DELIVERED = DeliveryState.DELIVERED

NewScene = Callable[..., Any]


@pytest.fixture
def own_orthanc(tmp_path: Path) -> Iterator[OrthancServer]:
    """A PACS that a test may kill."""
    server = OrthancServer(tmp_path / "orthanc")
    server.start()
    yield server
    server.kill()


def series_of(orthanc: OrthancServer) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    with orthanc.http() as http:
        for name in http.get("/series").json():
            series = http.get(f"/series/{name}").json()
            kind = series["MainDicomTags"]["Modality"]
            found.setdefault(kind, []).append(len(series["Instances"]))
    return found


@pytest.mark.parametrize("by", ["dimse", "dicomweb"])
def test_a_pacs_killed_in_the_middle_has_everything_once(
    own_orthanc: OrthancServer, scene: NewScene, tools: Any, by: str
) -> None:
    node = tools.dimse(own_orthanc.dicom_port) | tools.web(own_orthanc)
    here = scene(node, profile={"capture": "always"}, policy=tools.forgiving, by=by)
    with delivering(here.container, look_s=0.02):
        if by == "dimse":
            wait_until(lambda: own_orthanc.count() > 4, "nothing arrives", 30)
        else:
            wait_until(lambda: here.found.state is not DeliveryState.PENDING, "no start", 30)
        own_orthanc.kill()
        wait_until(lambda: here.found.code == "pacs_unavailable", "the loss is not noticed", 30)
        assert here.found.state is not DELIVERED
        own_orthanc.start()
        wait_until(lambda: here.found.state is DELIVERED, "it is not delivered", 60)
    found = here.found
    pictures = next(item["objects"] for item in found.sent if item["form"] == "capture")
    assert pictures > 5
    assert series_of(own_orthanc) == {"SEG": [1], "SR": [1], "OT": [pictures]}
    assert found.attempts > 1


def together(first: Any, second: Any) -> Container:
    """A container whose site has the destinations of both."""
    of_first, of_second = first.container.site, second.container.site
    one, other = of_first.destinations[first.name], of_second.destinations[second.name]
    changes = {
        "nodes": {"a": of_first.nodes["pacs"], "b": of_second.nodes["pacs"]},
        "destinations": {
            first.name: one.model_copy(update={"node": "a"}),
            second.name: other.model_copy(update={"node": "b"}),
        },
    }
    return replace(first.container, site=of_first.model_copy(update=changes))


def test_a_slow_destination_holds_up_no_other(scene: NewScene, tools: Any) -> None:
    gate = threading.Event()
    with store_scp(wait=gate) as slow, store_scp() as quick:
        first = scene(tools.dimse(slow.port), confirm="none")
        second = scene(tools.dimse(quick.port), confirm="none")
        both = together(first, second)
        with delivering(both, look_s=0.02):
            wait_until(lambda: len(slow.got) == 1, "the slow one gets nothing", 20)
            wait_until(lambda: second.found.state is DELIVERED, "the quick one waits", 20)
            assert first.found.state is DeliveryState.SENDING
            gate.set()
            wait_until(lambda: first.found.state is DELIVERED, "the slow one never ends", 20)
    assert slow.associations == quick.associations == 1


def test_what_is_not_finished_goes_back_when_the_process_ends(scene: NewScene, tools: Any) -> None:
    gate = threading.Event()
    with store_scp(wait=gate) as peer:
        here = scene(tools.dimse(peer.port), confirm="none")
        opener = threading.Timer(0.5, gate.set)
        with delivering(here.container, look_s=0.02):
            wait_until(lambda: len(peer.got) == 1, "nothing is sent", 20)
            opener.start()
        assert here.found.state is DeliveryState.PENDING
        assert len(peer.got) == 1, "it stops between objects"
        here.until(DELIVERED)


def test_destinations_that_hang_hold_up_the_end_once_not_each(scene: NewScene, tools: Any) -> None:
    gate = threading.Event()
    with store_scp(wait=gate) as one, store_scp(wait=gate) as other:
        first = scene(tools.dimse(one.port), confirm="none")
        second = scene(tools.dimse(other.port), confirm="none")
        with delivering(together(first, second), look_s=0.02, leave_s=3.0):
            wait_until(lambda: one.got and other.got, "nothing is sent", 20)
            began = time.monotonic()
        took = time.monotonic() - began
        states = {first.found.state, second.found.state}
        gate.set()
    assert 3.0 <= took < 5.5
    assert states == {DeliveryState.PENDING}
