"""The parts of pynetdicom that it promises to nobody and that we build on, by name.

A version without one of them would fail in an association, or not at all and lose what the part is
for: a delay, a limit, a message. Here it fails before.
"""

import ast
import inspect
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.transport import AssociationServer, AssociationSocket, ThreadedAssociationServer

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("pacs", "listener")
ATTRIBUTES: dict[str, type] = {  # read or set
    "_accepted_cx": Association,
    "_handlers": AssociationServer,
    "_is_paused": Association,
    "_reactor_checkpoint": Association,
    "_server": Association,
}
OVERRIDDEN: dict[str, tuple[type, list[str]]] = {  # with the names of their parameters
    "_create_socket": (AE, ["self", "assoc", "address", "tls_args"]),
    "_serve_request": (Association, ["self", "msg", "context_id"]),
    "_shutdown_socket": (AssociationSocket, ["self"]),
    "receive_primitive": (DIMSEServiceProvider, ["self", "primitive"]),
    "recv": (AssociationSocket, ["self", "nr_bytes"]),
    "run_reactor": (Association, ["self"]),
}


def test_the_next_major_version_is_not_taken_unseen() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [wanted] = [
        each for each in map(Requirement, project["dependencies"]) if each.name == "pynetdicom"
    ]
    assert wanted.specifier.contains("3.0.4")
    assert not wanted.specifier.contains("4.0.0")


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_is_there_and_used(name: str) -> None:
    owner = ATTRIBUTES[name]
    assert f"self.{name}" in inspect.getsource(owner)
    if owner is Association:
        assert hasattr(Association(AE(), "acceptor"), name)


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_a_method_is_there_and_takes_what_ours_takes(name: str) -> None:
    owner, parameters = OVERRIDDEN[name]
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


def test_the_reactor_waits_at_the_checkpoint_and_says_so() -> None:
    """``_Checkpoint`` stands in for the event and clears ``_is_paused`` itself."""
    source = inspect.getsource(Association)
    waiting = source.index("self._reactor_checkpoint.wait()")
    assert "self._is_paused = True" in source[:waiting].splitlines()[-2]
    assert "while not self._is_paused:" in source
    assert Association(AE(), "requestor")._reactor_checkpoint.is_set()


def test_a_message_is_written_where_we_put_a_file() -> None:
    assert hasattr(DIMSEMessage(), "data_set")
    assert "self.data_set).write(" in inspect.getsource(DIMSEMessage.decode_msg)
    assert "if self.message is None:" in inspect.getsource(DIMSEServiceProvider.receive_primitive)


def test_the_server_is_made_as_ours_makes_it() -> None:
    wanted = ["self", "ae", "address", "ae_title", "contexts", "ssl_context", "evt_handlers"]
    given = list(inspect.signature(ThreadedAssociationServer.__init__).parameters)
    assert given[: len(wanted)] == wanted
    assert given[len(wanted)] == "request_handler"
    assert _config.LOG_HANDLER_LEVEL in ("none", "standard")


def test_no_other_private_name_is_used() -> None:
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in sources()]
    made = {name for tree in trees for name in made_by_us(tree)}
    used = {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_private(node.attr)
    }
    overridden = {name for name in OVERRIDDEN if is_private(name)}
    assert used - (made - set(ATTRIBUTES)) - overridden == set(ATTRIBUTES)


def sources() -> Iterator[Path]:
    for room in ROOMS:
        for file in (ROOT / "service" / room).rglob("*.py"):
            if "pynetdicom" in file.read_text(encoding="utf-8"):
                yield file


def made_by_us(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        targets: list[Any] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(part, ast.Attribute) and getattr(part.value, "id", "") == "self":
                    yield part.attr


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
