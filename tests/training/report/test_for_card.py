from pathlib import Path

import pytest

from model.errors import ConfigError
from training.report.for_card import cross_validation


def test_the_card_has_the_folds_mean_and_every_case(folder: Path) -> None:
    """CT: folds of 0.85 (a 0.9, b 0.8), 0.95 and 0.9, so 0.900 +- 0.050; median of four 0.9."""
    text = cross_validation(folder)
    row = next(line for line in text.splitlines() if line.startswith("| CT |"))
    assert row.startswith("| CT | 4 | 0.900 ± 0.050 | 6.0 ± 1.0 |")
    assert row.endswith("| 0.600 ± 0.141 | 0.900 |")
    assert "| MR | 3 | 0.820 ± 0.020 | 9.0 ± 1.0 | 2.25 ± 0.25 | - | 0.820 |" in text
    assert "| ct/a | 0 | 0.900 | 4.0 | 1.00 | 0.500 |" in text
    assert "| mr/c | 2 | 0.840 | 10.0 | 2.50 | - |" in text


def test_a_study_that_is_not_whole_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text((folder / "study.json").read_text())
    with pytest.raises(ConfigError, match=r"folds \[0, 1, 2\] are not scored"):
        cross_validation(tmp_path)
