"""``aqcf site check`` and ``aqcf rules test``: of files, and of a real PACS."""

import json
from pathlib import Path
from typing import Any

import pytest
from dicom_phantoms import ROOT, Grid, Recipe, body, write_series
from pydicom import Dataset
from pydicom.config import disable_value_validation
from servers import OrthancServer
from typer.testing import CliRunner

from service.cli import app

GRID = Grid(shape=(24, 60, 60), spacing=(4.0, 5.0, 5.0))
RULES = """
rules:
  - name: scouts
    when: {description: scout}
    then: {ignore: true}
  - name: venous
    when: {modality: ct, description: venous, thickness_mm: [1, 5]}
  - name: any-mr
    when: {modality: mr}
    then: {series: every, priority: urgent}
"""


def aqcf(*arguments: object) -> Any:
    words = [str(argument) for argument in arguments]
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, words)


def described(words: str, study: int) -> Any:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.SeriesDescription = words
        dataset.StudyInstanceUID = f"{ROOT}.90{study}"

    return edit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies: a scout, two venous series and an arterial one; an MR series."""
    made = tmp_path_factory.mktemp("studies")
    for number, (modality, words, study, slices) in enumerate(
        [
            ("CT", "Scout", 1, 2),
            ("CT", "Venous short", 1, 6),
            ("CT", "Venous", 1, 24),
            ("CT", "Arterial", 1, 6),
            ("MR", "T1", 2, 6),
        ],
        start=1,
    ):
        recipe = Recipe(modality=modality, series=number, edit=described(words, study))
        write_series(made, body(GRID)[:slices], GRID, recipe)
    return made


@pytest.fixture
def site(tmp_path: Path) -> Path:
    file = tmp_path / "site.yaml"
    file.write_text(RULES)
    return file


@pytest.fixture
def node_site(tmp_path: Path, orthanc: OrthancServer, folder: Path) -> Path:
    orthanc.load(sorted(folder.iterdir()))
    file = tmp_path / "site.yaml"
    node = f"""
nodes:
  pacs:
    dicomweb:
      url: {orthanc.dicomweb_url}
      username: {orthanc.username}
      password_file: {orthanc.password_file}
    dimse: {{host: 127.0.0.1, port: {orthanc.dicom_port}, ae_title: {orthanc.ae_title}}}
"""
    file.write_text(RULES + node)
    return file


def outcomes(found: dict[str, Any]) -> dict[str, tuple[str | None, bool]]:
    return {
        one["facts"]["description"]: (one["rule"], one["chosen"])
        for study in found["studies"]
        for one in study["series"]
    }


EXPECTED = {
    "Scout": ("scouts", False),
    "Venous short": ("venous", False),
    "Venous": ("venous", True),
    "Arterial": (None, False),
    "T1": ("any-mr", True),
}
SUMMARY = [("scouts", 1, 0, 1), ("venous", 2, 1, 1), ("any-mr", 1, 1, 1), ("(no rule)", 1, 0, 1)]


def lines(found: dict[str, Any]) -> list[tuple[object, ...]]:
    return [tuple(line.values()) for line in found["summary"]]


def test_files_are_decided_on_as_they_would_be(folder: Path, site: Path) -> None:
    result = aqcf("rules", "test", "--site", site, "--study", folder, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert outcomes(found) == EXPECTED
    assert lines(found) == SUMMARY
    arterial = next(
        one for study in found["studies"] for one in study["series"]
        if one["facts"]["description"] == "Arterial"
    )  # fmt: skip
    assert [one["rule"] for one in arterial["considered"]] == ["scouts", "venous", "any-mr"]
    assert "does not hold 'venous'" in arterial["considered"][1]["reason"]
    assert ROOT not in result.output


def test_a_day_of_a_node_is_decided_on_without_pixels(node_site: Path) -> None:
    ask = ("rules", "test", "--site", node_site, "--node", "pacs", "--date", "20200101")
    found = json.loads(aqcf(*ask, "--json").stdout)
    assert outcomes(found) == EXPECTED
    assert lines(found) == SUMMARY
    of_ct = json.loads(aqcf(*ask, "--modality", "CT", "--json").stdout)
    assert len(of_ct["studies"]) == 1
    nothing = aqcf(*ask[:-1], "19990101")
    assert nothing.exit_code == 0
    assert "0 studies" in nothing.stdout


def test_one_study_as_a_table(node_site: Path) -> None:
    ask = ("rules", "test", "--site", node_site, "--node", "pacs", "--study-uid", f"{ROOT}.901")
    result = aqcf(*ask)
    assert result.exit_code == 0, result.output
    for words in (
        "CT, 24 images, 4 mm, axial, Venous",
        "segments the best of these series",
        "no: modality is CT, not MR",
        "set aside: venous takes the best series of a study, and another is better",
        "(no rule)",
    ):
        assert words in result.stdout
    assert ROOT not in result.output
    assert f"{ROOT}.901" in aqcf(*ask, "--show-uids").stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--node", "elsewhere", "--date", "20200101"], "unknown_node"),
        (["--node", "pacs", "--date", "yesterday"], "invalid_date"),
        (["--node", "pacs", "--study-uid", "*"], "invalid_uid"),
        (["--node", "pacs", "--study-uid", "1.2.3"], "nothing_to_pull"),
        (["--node", "pacs"], "Invalid value"),
        ([], "Invalid value"),
    ],
)
def test_bad_questions_end_with_2(node_site: Path, arguments: list[str], code: str) -> None:
    result = aqcf("rules", "test", "--site", node_site, *arguments)
    assert result.exit_code == 2, result.output
    assert code in result.stderr


def test_a_node_that_does_not_answer_ends_with_1(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("nodes: {pacs: {dimse: {host: 127.0.0.1, port: 9, ae_title: A}}}")
    result = aqcf("rules", "test", "--site", file, "--node", "pacs", "--date", "20200101")
    assert result.exit_code == 1
    assert "pacs_unavailable" in result.stderr
    check = aqcf("site", "check", file, "--connect")
    assert check.exit_code == 1
    assert "FAIL nodes.pacs.dimse" in check.stdout


def test_headers_are_no_markup(site: Path, tmp_path: Path) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.StudyInstanceUID = "1.2[/study]"
        dataset.SeriesInstanceUID = "1.2.3[/series]"
        dataset.Modality = "[/RED]"

    study = tmp_path / "odd"
    with disable_value_validation():
        write_series(study, body(GRID)[:6], GRID, Recipe(edit=edit))
    shown = aqcf("rules", "test", "--site", site, "--study", study, "--show-uids")
    assert shown.exit_code == 0, shown.output
    assert "[/study]" in shown.stdout
    refused = aqcf("segment", study, "--modality", "ct", "--out", tmp_path / "out")
    assert refused.exit_code == 2, refused.output
    assert "[/RED]" in refused.stderr


def test_files_that_are_no_dicom_end_with_2(site: Path, tmp_path: Path, made: Any) -> None:
    for file in (made.nifti(tmp_path / "a.nii"), site):
        result = aqcf("rules", "test", "--site", site, "--study", file)
        assert result.exit_code == 2, result.output


def test_a_site_is_checked(
    node_site: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQCF_MODELS_DIR", str(models_dir))
    monkeypatch.setenv("AQCF_DEFAULT_MODEL", "tiny")
    result = aqcf("site", "check", node_site, "--connect")
    assert result.exit_code == 0, result.output
    assert "1 nodes, 0 destinations, 3 rules" in result.stdout
    for line in ("answers C-ECHO", "answers QIDO-RS", "rules.2 venous (ct)", "password_file"):
        assert line in result.stdout
    node_site.write_text(node_site.read_text().replace("password\n", "absent\n") + "\nrules2: []\n")
    broken = aqcf("site", "check", node_site)
    assert broken.exit_code == 2
    assert "rules2: unknown word" in broken.stderr


def test_what_a_site_names_and_is_not_there_is_told(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQCF_MODELS_DIR", str(models_dir))
    monkeypatch.setenv("AQCF_DEFAULT_MODEL", "tiny")
    file = tmp_path / "site.yaml"
    file.write_text(
        "nodes: {web: {dicomweb: {url: 'http://pacs', token_file: absent}}}\n"
        "callers: [{ae_title: CT1}]\n"
        "rules:\n  - name: mine\n    when: {ae_title: [CT1, CT2]}\n"
        "  - name: all\n  - name: later\n    then: {model: none}\n"
    )
    result = aqcf("site", "check", file)
    assert result.exit_code == 1
    assert "cannot read" in result.stdout
    assert "never reached" in result.stdout
    assert "unknown_model" in result.stdout
    assert "CT2: not under callers" in result.stdout
    assert "CT1" not in result.stdout
