"""The page's example is a site file, and does what the page says of it."""

import re
from pathlib import Path

import pytest

from service.domain import Origin
from service.site import SeriesFacts, Site, When, decide, load_site
from service.site.config import (
    Destination,
    DicomWebNode,
    DimseNode,
    Node,
    OutputProfile,
    Then,
    Tls,
)

PAGE = Path(__file__).parents[3] / "docs" / "site.md"
TEXT = PAGE.read_text(encoding="utf-8")
RECORDS = (Node, DimseNode, DicomWebNode, Tls, Destination, OutputProfile, When, Then, Site)


@pytest.fixture
def example(tmp_path: Path) -> Site:
    found = re.search(r"<!-- example -->\n```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert found
    file = tmp_path / "site.yaml"
    file.write_text(found[1], encoding="utf-8")
    return load_site(file)


@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        (SeriesFacts("CT", "Topogram 0.6", images=2), "localizers-and-reports"),
        (SeriesFacts("SR", "Dose Report"), "localizers-and-reports"),
        (SeriesFacts("CT", "Abd PV 3.0", "ABDOMEN", 3.0, 90, "ER_CT", "axial"), "emergency"),
        (SeriesFacts("CT", "Abd PV 3.0", "ABDOMEN", 3.0, 90, "CT1", "axial"), "portal-venous"),
        (SeriesFacts("CT", "portalvenös", "LIVER", 5.0, 90, "CT1", "axial"), "portal-venous"),
        (SeriesFacts("CT", "portal coronal", "LIVER", 5.0, 90, "CT1", "axial"), None),
        (SeriesFacts("CT", "portal", "LIVER", 7.5, 90, "CT1", "axial"), None),
        (SeriesFacts("CT", "portal", "CHEST", 3.0, 90, "CT1", "axial"), None),
        (SeriesFacts("MR", "T1 VIBE DIXON tra in", images=60), "t1-in-phase"),
        (SeriesFacts("MR", "t1_fl2d_in-phase", images=60), "t1-in-phase"),
        (SeriesFacts("MR", "t1 in/opp phase", images=60), None),
    ],
)
def test_the_example_takes_what_the_page_says(
    example: Site, facts: SeriesFacts, rule: str | None
) -> None:
    assert decide(example, facts, Origin.DIMSE).rule == rule


def test_every_word_of_the_file_is_on_the_page() -> None:
    words = {name for record in RECORDS for name in record.model_fields}
    missing = {word for word in words if not re.search(rf"\b{word}\b", TEXT)}
    assert not missing
