"""Read a site file. What is wrong in it is told with its line, its place and what is allowed."""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias, get_args

import yaml
from pydantic import BaseModel, ValidationError

from model.errors import ConfigError

from .config import Site

MAX_BYTES = 1024**2
MAX_TOLD = 5
MAX_VALUE = 60
OWN = "Value error, "
TAB = r"found character '\t'"
IN_QUOTES = ("Input should be a valid string", "Keys should be strings")
Place: TypeAlias = tuple[str | int, ...]


class SiteError(ConfigError):
    """The site file cannot be read or used; the message says where and what is allowed."""

    code = "invalid_site"


def load_site(path: Path | None) -> Site:
    """The site that a file describes; without a file one that knows nobody and takes nothing.

    Relative paths in the file are relative to it. Raises ``SiteError``.
    """
    if path is None:
        return Site()
    read = _read(path)
    try:
        return Site.model_validate(read.content, context={"folder": path.absolute().parent})
    except ValidationError as error:
        raise SiteError(_complaint(path, error, read.lines)) from error


@dataclass(frozen=True)
class _Read:
    """What is in a file, and the line of each place in it."""

    content: object
    lines: Mapping[Place, int] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """YAML's plain types. A key that comes twice is refused, and so are aliases, with which a
    small file can stand for a huge one, and tags, which PyYAML believes without a look."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        alias = isinstance(event, yaml.AliasEvent)
        if alias or event.tag is not None:
            problem = f"{'aliases (*)' if alias else 'tags (!)'} are not taken"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                problem = f"{key.value!r} comes twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _read(path: Path) -> _Read:
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise SiteError(f"{path}: cannot be read ({error.strerror})") from error
    if len(text) > MAX_BYTES:
        raise SiteError(f"{path}: larger than {MAX_BYTES // 1024} KiB; no site file is")
    try:
        return _parsed(text)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        hint = "; indent with spaces, not with tabs" if TAB in str(error.problem) else ""
        raise SiteError(f"{path}: {line}{error.problem}{hint}") from error
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as error:
        raise SiteError(f"{path}: no YAML file") from error


def _parsed(text: bytes) -> _Read:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return _Read({})
        return _Read(loader.construct_document(node), dict(_lines(node, ())))
    finally:
        loader.dispose()


def _lines(node: yaml.Node, place: Place) -> Iterator[tuple[Place, int]]:
    yield place, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _lines(value, (*place, str(key.value)))
            yield (*place, str(key.value)), key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _lines(value, (*place, number))


def _complaint(path: Path, error: ValidationError, lines: Mapping[Place, int]) -> str:
    found = error.errors(include_url=False)
    told = [f"{path}: {_line_of(_place(one), lines)}{_sentence(one)}" for one in found[:MAX_TOLD]]
    more = [f"and {len(found) - MAX_TOLD} more"] if len(found) > MAX_TOLD else []
    return "\n".join([*told, *more])


def _place(error: Mapping[str, Any]) -> Place:
    """Where; a sentence about the file as a whole begins with its place."""
    if error["loc"]:
        return tuple(error["loc"])
    named = error["msg"].removeprefix(OWN).partition(":")[0].split(".")
    return tuple(int(part) - 1 if part.isdecimal() else part for part in named)


def _line_of(place: Place, lines: Mapping[Place, int]) -> str:
    """The line of a place, or of what it should be in."""
    for length in range(len(place), 0, -1):
        if line := lines.get(place[:length]):
            return f"line {line}: "
    return ""


def _sentence(error: Mapping[str, Any]) -> str:
    place: Place = error["loc"]
    message = str(error["msg"]).removeprefix(OWN)
    if not place:
        return message
    if error["type"] == "extra_forbidden":
        return f"{_named(place)}: unknown word; {_known_words(place)}"
    if error["type"] == "missing":
        return f"{_named(place)}: is missing"
    if error["type"] == "tuple_type":
        message = "a list is meant, in [ ] or with a - before each"
    quotes = " (put it in quotes)" if message in IN_QUOTES else ""
    return f"{_named(place)}: {_shown(error['input'])}: {message}{quotes}"


def _named(place: Place) -> str:
    """``rules.2.when.description``: places in a list are counted from 1."""
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in place)


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "this"
    text = repr(value)
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"


def _known_words(place: Place) -> str:
    words = sorted(_record_at(place[:-1]).model_fields)
    near = get_close_matches(str(place[-1]), words, n=1)
    hint = f"{near[0]!r} is meant? " if near else ""
    return f"{hint}Here are known: {', '.join(words)}"


def _record_at(place: Place) -> type[BaseModel]:
    """The record that holds what is at a place."""
    record: type[BaseModel] = Site
    for part in place:
        if isinstance(part, str) and part in record.model_fields:
            record = next(_records_in(record.model_fields[part].annotation), record)
    return record


def _records_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _records_in(inner)
