import pytest

from model.types import Modality
from training.evaluate import CaseScore
from training.progress import Progress


def test_progress_speaks_on_and_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    modality: Modality = "ct"
    score = CaseScore(
        "ct/a", modality, "full", 0.5, 10.0, 2.0, None, None, None, 1000.0, 900.0, 1.0
    )
    with Progress(100) as progress:
        progress.loading(2, 2)
        progress.step(49, {"ct": 1.0, "mr": 2.0})
        progress.step(50, {"ct": 1.0, "mr": 2.0})
        progress.validating("ct/a")
        progress.validated(50, [score])
    shown = capsys.readouterr().out
    assert "2 cases prepared" in shown
    assert "step 50  loss ct 1.000  mr 2.000" in shown
    assert "step 49" not in shown
    assert "0.500" in shown
