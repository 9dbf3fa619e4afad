from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model.checkpoint import load_network
from model.network import AQCFNet
from model.types import Modality
from training.config import OptimiserConfig, TrainConfig
from training.data import Batches, Case, list_cases, load_samples, split
from training.evaluate import CaseScore
from training.loop import BEST, STATE, WEIGHTS, DivergedError, _open, _step, fit, trapezoid
from training.progress import Progress
from training.report import append_csv, draw_curves, forget_after, read_csv
from training.sample import Sample

ConfigMaker = Callable[..., TrainConfig]
STEPS = 9  # three epochs of three; a checkpoint every second step and at each epoch's end


def nothing(done: int, total: int) -> None:
    pass


class Killed(Exception):  # noqa: N818
    pass


class Watcher(Progress):
    """Remembers what it is shown; kills the run at a step or after a validation."""

    def __init__(self, *, at_step: int = 0, at_validation: int = 0) -> None:
        super().__init__(STEPS)
        self.losses: dict[int, dict[str, float]] = {}
        self.validations: list[int] = []
        self._at_step, self._at_validation = at_step, at_validation

    def step(self, step: int, losses: dict[str, float]) -> None:
        self.losses[step] = losses
        if step == self._at_step:
            raise Killed

    def validated(self, step: int, scores: list[CaseScore]) -> None:
        super().validated(step, scores)
        self.validations.append(step)
        if step == self._at_validation:
            raise Killed


@pytest.fixture(scope="module")
def config(root: Path, make_config: ConfigMaker) -> TrainConfig:
    return make_config(
        data={"root": root, "validate_cases": ("ct/b",)},
        epochs=3,
        steps_per_epoch=3,
        checkpoint_every=2,
        optimiser={"lr": 1e-2, "schedule": "plateau", "patience": 0, "ema": 0.9, "clip_norm": 1.0},
        exchange_dropout=0.5,
    )


@pytest.fixture(scope="module")
def samples(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    train, _ = split(list_cases(config.data), config.data)
    return load_samples(train, config, tmp_path_factory.mktemp("cache"), nothing)


@pytest.fixture(scope="module")
def validation(config: TrainConfig) -> list[Case]:
    return split(list_cases(config.data), config.data)[1]


@pytest.fixture(scope="module")
def whole(
    config: TrainConfig,
    samples: list[Sample],
    validation: list[Case],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Watcher]:
    """An unbroken run."""
    run, watcher = tmp_path_factory.mktemp("whole"), Watcher()
    fit(config, samples, validation, run, watcher)
    return run, watcher


def state(run: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(run / STATE, weights_only=True)
    return saved


@pytest.mark.parametrize("kill", [{"at_step": 8}, {"at_validation": 6}])
def test_a_killed_run_resumes_to_the_same_weights(
    config: TrainConfig,
    samples: list[Sample],
    validation: list[Case],
    whole: tuple[Path, Watcher],
    tmp_path: Path,
    kill: dict[str, int],
) -> None:
    """Weights, averaged weights, moments, learning rate, schedule, best score, logs."""
    with pytest.raises(Killed):
        fit(config, samples, validation, tmp_path, Watcher(**kill))
    net = fit(config, samples, validation, tmp_path, Watcher())
    found, expected = state(tmp_path), state(whole[0])
    for part in ("net", "average"):
        torch.testing.assert_close(dict(found[part]), dict(expected[part]), rtol=0, atol=0)
    moments = found["optimiser"]["state"], expected["optimiser"]["state"]
    torch.testing.assert_close(*moments, rtol=0, atol=0)
    assert found["optimiser"]["param_groups"] == expected["optimiser"]["param_groups"]
    for part in ("plateau", "step", "best", "skipped"):
        assert found[part] == expected[part]
    torch.testing.assert_close(dict(net.state_dict()), dict(expected["average"]), rtol=0, atol=0)
    assert (tmp_path / "steps.csv").read_text() == (whole[0] / "steps.csv").read_text()
    rows = [[{**row, "seconds": ""} for row in read_csv(r / "validation.csv")]
            for r in (tmp_path, whole[0])]  # fmt: skip
    assert rows[0] == rows[1]


def test_the_unbroken_run_moved(config: TrainConfig, whole: tuple[Path, Watcher]) -> None:
    """Or the comparison above would say nothing."""
    saved = state(whole[0])
    torch.manual_seed(config.seed)
    start = AQCFNet(config.network).state_dict()
    for name in ("net", "average"):
        assert not [n for n, t in saved[name].items() if torch.equal(t, start[n])]
    assert not [n for n, t in saved["net"].items() if torch.equal(t, saved["average"][n])]
    assert saved["optimiser"]["param_groups"][0]["lr"] < 1e-2, "the plateau was reached"
    assert saved["step"] == STEPS


def test_checkpoints_and_epochs_keep_their_own_rhythm(whole: tuple[Path, Watcher]) -> None:
    run, watcher = whole
    assert watcher.validations == [3, 6, 9]
    assert [int(row["step"]) for row in read_csv(run / "steps.csv")] == [2, 3, 4, 6, 8, 9]
    assert [row["case"] for row in read_csv(run / "validation.csv")] == ["ct/b"] * 3
    for name in (STATE, WEIGHTS, BEST, "curves.png"):
        assert (run / name).is_file()
    assert not list(run.glob("*.partial"))


def test_averaged_weights_are_what_is_kept(whole: tuple[Path, Watcher]) -> None:
    run, _ = whole
    last = load_network(run / WEIGHTS).state_dict()
    torch.testing.assert_close(dict(last), dict(state(run)["average"]), rtol=0, atol=0)


def test_a_finished_run_stays_as_it_is(
    config: TrainConfig, samples: list[Sample], whole: tuple[Path, Watcher]
) -> None:
    watcher, before = Watcher(), (whole[0] / STATE).read_bytes()
    fit(config, samples, [], whole[0], watcher)
    assert watcher.losses == {}
    assert (whole[0] / STATE).read_bytes() == before


def test_states_without_a_scaler_still_load(
    config: TrainConfig, whole: tuple[Path, Watcher], tmp_path: Path
) -> None:
    saved = state(whole[0])
    del saved["scaler"]
    torch.save(saved, tmp_path / STATE)
    assert _open(config, tmp_path).state.step == STEPS


def test_without_held_out_cases_the_last_weights_are_the_best(
    config: TrainConfig, samples: list[Sample], tmp_path: Path
) -> None:
    """And a plateau cannot be told: the learning rate stays."""
    plain = config.model_copy(update={"optimiser": OptimiserConfig(lr=1e-2, patience=0)})
    fit(plain, samples, [], tmp_path, Watcher())
    saved = state(tmp_path)
    assert saved["optimiser"]["param_groups"][0]["lr"] == 1e-2
    assert saved["average"] is None
    best = load_network(tmp_path / BEST).state_dict()
    torch.testing.assert_close(dict(best), dict(saved["net"]), rtol=0, atol=0)


def poisoned(samples: list[Sample]) -> list[Sample]:
    for sample in samples:
        sample.image[:] = np.nan
    return samples


def test_a_loss_that_is_not_finite_names_the_cases(
    config: TrainConfig, root: Path, tmp_path: Path
) -> None:
    cases = [case for case in list_cases(config.data) if case.name in ("ct/a", "mr/c")]
    bad = poisoned(load_samples(cases, config, tmp_path / "cache", nothing))
    with pytest.raises(DivergedError, match=r"step 0, cases .*'ct/a'.*'mr/c'.*: the loss is nan"):
        fit(config, bad, [], tmp_path, Watcher())
    assert DivergedError.code == "diverged"


def test_a_gradient_that_is_not_finite_changes_no_weight_and_is_counted(
    config: TrainConfig, samples: list[Sample], tmp_path: Path
) -> None:
    session = _open(config, tmp_path)
    batch = Batches(samples, config)[0]
    head = session.state.net.decoders["ct"].head.bias  # type: ignore[union-attr]
    hook = head.register_hook(lambda gradient: gradient * torch.inf)  # type: ignore[operator, union-attr]
    before = {n: t.clone() for n, t in session.state.net.state_dict().items()}
    _step(session, [batch])
    assert session.state.skipped == 1
    torch.testing.assert_close(dict(session.state.net.state_dict()), before, rtol=0, atol=0)
    session.state.skipped = 100
    with pytest.raises(DivergedError, match="101 gradients were not finite"):
        _step(session, [batch])
    hook.remove()
    session.state.skipped = 0
    _step(session, [batch])
    assert session.state.skipped == 0
    assert not torch.equal(head, before["decoders.ct.head.bias"])  # type: ignore[arg-type]


def test_gradients_are_clipped_to_the_norm(
    config: TrainConfig, samples: list[Sample], tmp_path: Path
) -> None:
    rule = config.optimiser.model_copy(update={"clip_norm": 1e-3})
    session = _open(config.model_copy(update={"optimiser": rule}), tmp_path)
    _step(session, [Batches(samples, config)[0]])
    gradients = [p.grad for p in session.state.net.parameters() if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]))
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_some_steps_lower_the_loss(
    config: TrainConfig, samples: list[Sample], tmp_path: Path
) -> None:
    session = _open(config, tmp_path)
    batch = Batches(samples, config)[1]
    losses = []
    for _ in range(12):
        values = _step(session, [batch])
        losses.append(values["ct"] + values["mr"])
    assert losses[-1] < 0.9 * losses[0]


def test_trapezoid_rises_holds_and_falls() -> None:
    rule = OptimiserConfig(lr=2.0, schedule="trapezoid", warmup=10, cooldown=20)
    rates = [trapezoid(rule, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert (np.diff(rates[:10]) > 0).all()
    assert rates[9:81] == [2.0] * 72
    assert (np.diff(rates[80:]) < 0).all()
    assert rates[-1] == pytest.approx(0.1)


def test_trapezoid_can_be_made_longer_while_it_holds() -> None:
    rule = OptimiserConfig(lr=1.0, schedule="trapezoid", warmup=5, cooldown=10)
    short, long = ([trapezoid(rule, s, n) for s in range(40)] for n in (50, 500))
    assert short == long


def test_trapezoid_without_ramps_is_flat() -> None:
    rule = OptimiserConfig(lr=1.0, schedule="trapezoid")
    assert {trapezoid(rule, step, 9) for step in range(9)} == {1.0}


def log(run: Path, steps: int) -> None:
    for step in range(1, steps + 1):
        append_csv(run / "steps.csv", [{"step": step, "lr": 1, "ct": 2 / step, "mr": 3 / step}])
        dice = {"step": step, "case": "ct/a", "liver_dice": 1 - 1 / step}
        append_csv(run / "validation.csv", [dice])


def test_rows_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    log(tmp_path, 5)
    forget_after(tmp_path / "steps.csv", 3)
    forget_after(tmp_path / "absent.csv", 3)
    assert [row["step"] for row in read_csv(tmp_path / "steps.csv")] == ["1", "2", "3"]
    forget_after(tmp_path / "steps.csv", 0)
    assert read_csv(tmp_path / "steps.csv") == []


def test_curves_show_the_run(tmp_path: Path) -> None:
    """More is drawn the longer it ran, and in colour."""
    pictures = []
    for name, steps in (("empty", 0), ("long", 30)):
        run = tmp_path / name
        run.mkdir()
        log(run, steps)
        pictures.append(np.asarray(Image.open(draw_curves(run)).convert("RGB"), int))
    empty, drawn = pictures
    assert drawn.shape[1] > 800
    coloured = [(np.ptp(picture, axis=-1) > 60).sum() for picture in (empty, drawn)]
    assert coloured[1] > coloured[0] + 500


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
