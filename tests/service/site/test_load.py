"""A site file is read as it is meant, or refused with the place and the way out."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.site import Site, SiteError, load_site

Load = Callable[[str], Site]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str) -> Site:
        file = tmp_path / "site.yaml"
        file.write_text(text, encoding="utf-8")
        return load_site(file)

    return load


def test_no_file_is_a_site_that_takes_nothing() -> None:
    assert load_site(None) == Site()


def test_an_empty_file_too(load: Load) -> None:
    assert load("# nothing yet\n") == Site()


def test_paths_are_relative_to_the_file(load: Load, tmp_path: Path) -> None:
    site = load(
        """
        nodes:
          pacs:
            dicomweb:
              url: https://pacs/dicom-web
              username: aqcf
              password_file: secrets/pacs
              ca: /etc/ca.pem
        """
    )
    web = site.nodes["pacs"].dicomweb
    assert web is not None
    assert web.password_file == tmp_path / "secrets" / "pacs"
    assert web.ca == Path("/etc/ca.pem")


RULE = "rules:\n  - name: one\n  - name: two\n    "


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- 1", ["dictionary"]),
        ("nodes: 3", ["line 1", "nodes", "3", "dictionary"]),
        ("nodez: {}", ["line 1", "nodez", "'nodes' is meant", "rules"]),
        (RULE + "when: {description: '('}", ["line 4", "rules.2.when.description", "'('", "RE2"]),
        (RULE + r"when: {description: '(?!a)b'}", ["rules.2.when.description", "(?!"]),
        (RULE + "when: {modality: us}", ["rules.2.when.modality", "'us'", "'ct' or 'mr'"]),
        (RULE + "when: {thickness_mm: [5, 1]}", ["rules.2.when.thickness_mm", "smaller one"]),
        (RULE + "when: {ae_title: ER}", ["rules.2.when.ae_title", "'ER'", "a list", "[ ]"]),
        (RULE + "when: {thickness_mm: 3}", ["rules.2.when.thickness_mm", "3", "a list"]),
        (RULE + "\twhen: {}", ["line 4", "indent with spaces"]),
        (RULE + "when: {images: 5}", ["rules.2.when.images", "unknown word", "min_images"]),
        (RULE + "then: {ignore: true, model: m}", ["rules.2.then", "does not go with model"]),
        (RULE + "then: {destinations: [pacs]}", ["line 4", "rules.2.then", "'pacs'", "none"]),
        ("rules: [{name: a}, {name: a}]", ["rules.1.name", "'a'", "two rules"]),
        ("rules: [{when: {}}]", ["rules.1.name", "missing"]),
        ("archive: pacs", ["line 1", "archive", "'pacs'"]),
        ("nodes: {a: {}}", ["nodes.a", "dimse, dicomweb, or both"]),
        ("nodes: {a: {dimse: {host: h, port: 0, ae_title: A}}}", ["nodes.a.dimse.port", "0"]),
        ("callers: [{ae_title: 123}]", ["callers.1.ae_title", "123", "in quotes"]),
        ("callers: [{ae_title: 'A '}]", ["callers.1.ae_title", "'A '"]),
        ("nodes: {a: {dicomweb: {url: 'http://pacs:80a/d'}}}", ["a.dicomweb.url", "the port"]),
        ("nodes: {a: {dicomweb: {url: 'http://[::1/d'}}}", ["a.dicomweb.url", "the port"]),
        ("nodes: {a: {dicomweb: {url: 'http:///d'}}}", ["a.dicomweb.url", "no host"]),
        ("nodes: {a: {dicomweb: {url: 'http://pa cs/d'}}}", ["a.dicomweb.url", "pattern"]),
        ("nodes: {a: {dicomweb: {url: 'http://pacs..org/d'}}}", ["a.dicomweb.url", "no host"]),
        (
            "nodes: {a: {dimse: {host: pacs..org, port: 104, ae_title: A}}}",
            ["a.dimse.host", "no host"],
        ),
        (
            "nodes: {a: {dicomweb: {url: 'https://me:secret@pacs'}}}",
            ["nodes.a.dicomweb.url", "pattern"],
        ),
        (
            "nodes: {a: {dimse: {host: h, port: 4242, ae_title: A}, retrieve: wado}}",
            ["nodes.a", "retrieve: wado needs dicomweb"],
        ),
        ("a: 1\na: 2", ["line 2", "'a' comes twice"]),
        ("a: &x {}\nb: *x", ["line 2", "aliases"]),
        ("a: [", ["line 1"]),
        ("a: !!python/object/apply:os.getcwd []", ["line 1", "tag"]),
        ("archive: !!bool x", ["line 1", "tags"]),
        ("archive: !!timestamp x", ["line 1", "tags"]),
        ("archive: " + "1:" * 400 + "1.0", ["no YAML"]),  # sexagesimal, beyond every float
        ("\x00", ["no YAML"]),
        ("[" * 100_000, ["no YAML"]),
        ("? [1, 2]\n: 3", ["unhashable"]),
        ("a: 2001-99-99", ["no YAML"]),
    ],
)
def test_mistakes_are_told_with_their_place(load: Load, text: str, told: list[str]) -> None:
    with pytest.raises(SiteError) as caught:
        load(text)
    assert caught.value.code == "invalid_site"
    assert "site.yaml" in caught.value.message
    for words in told:
        assert words in caught.value.message


def test_the_first_mistakes_are_told_and_the_rest_counted(load: Load) -> None:
    with pytest.raises(SiteError) as caught:
        load("\n".join(f"word{number}: 1" for number in range(9)))
    lines = caught.value.message.splitlines()
    assert len(lines) == 6
    assert lines[-1] == "and 4 more"


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.yaml"):
        with pytest.raises(SiteError) as caught:
            load_site(path)
        assert path.name in caught.value.message


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    with file.open("wb") as stream:
        stream.truncate(1024**3)
    started = time.monotonic()
    with pytest.raises(SiteError, match="larger than"):
        load_site(file)
    assert time.monotonic() - started < 1
