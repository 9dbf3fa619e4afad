from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from model.checkpoint import load_network
from model.errors import ConfigError
from model.network import AQCFNet
from model.types import Modality
from training.board import BOARD
from training.config import OptimiserConfig, TrainConfig
from training.data import Batches, Case, list_cases, load_samples, split
from training.evaluate import CaseScore
from training.loop import (
    BEST,
    STATE,
    WEIGHTS,
    DivergedError,
    _groups,
    _open,
    _recompute,
    _step,
    check_samples,
    fit,
)
from training.progress import Progress
from training.records import read_csv
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


def test_in_bf16_too(config: TrainConfig, samples: list[Sample], tmp_path: Path) -> None:
    """A patch of 16 slices has maps of depth 2, on which bf16 is not to be trusted."""
    low = config.model_copy(update={"precision": "bf16-mixed"})
    fit(low, samples, [], tmp_path / "whole", Watcher())
    with pytest.raises(Killed):
        fit(low, samples, [], tmp_path / "killed", Watcher(at_step=5))
    fit(low, samples, [], tmp_path / "killed", Watcher())
    found, expected = state(tmp_path / "killed"), state(tmp_path / "whole")
    torch.testing.assert_close(dict(found["net"]), dict(expected["net"]), rtol=0, atol=0)
    assert found["skipped"] == expected["skipped"] == 0


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
    assert [int(row["step"]) for row in read_csv(run / "steps.csv")] == list(range(1, 10))
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


def test_a_step_of_two_batches_has_the_mean_of_their_gradients(
    config: TrainConfig, samples: list[Sample], tmp_path: Path
) -> None:
    """The Dice is taken per batch: so it is not quite a step with a batch twice as large."""
    batches = [Batches(samples, config)[n] for n in (0, 1)]
    found = []
    for group in ([batches[0]], [batches[1]], batches):
        session = _open(config.model_copy(update={"optimiser": OptimiserConfig()}), tmp_path)
        values = _step(session, group)
        named = session.state.net.named_parameters()
        found.append((values, {n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                               for n, p in named}))  # fmt: skip
    (first, a), (second, b), (both, c) = found
    mean = {name: (a[name] + b[name]) / 2 for name in a}
    torch.testing.assert_close(c, mean, rtol=1e-4, atol=1e-6)
    assert both == pytest.approx({name: (first[name] + second[name]) / 2 for name in first})


def test_steps_of_several_batches_draw_them_in_turn_and_resume_exactly(
    config: TrainConfig, samples: list[Sample], tmp_path: Path
) -> None:
    """Step n has the batches 2n and 2n + 1."""
    double = config.model_copy(update={"accumulate": 2, "epochs": 2})
    groups = list(_groups(Batches(samples, double), 4, double))
    assert len(groups) == 2
    for batch, number in zip(groups[0], (8, 9), strict=True):
        assert torch.equal(batch.images["ct"], Batches(samples, config)[number].images["ct"])
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for run in (whole, broken):
        run.mkdir()
    fit(double, samples, [], whole, Watcher())
    with pytest.raises(Killed):
        fit(double, samples, [], broken, Watcher(at_step=5))
    fit(double, samples, [], broken, Watcher())
    found, expected = state(broken), state(whole)
    torch.testing.assert_close(dict(found["net"]), dict(expected["net"]), rtol=0, atol=0)
    assert found["step"] == expected["step"] == 6
    assert found["seconds"] > 0


def with_scaler() -> Fabric:
    """fp16 with a loss scaler, which a CPU can do too, though Fabric does not offer it."""
    fabric = Fabric(accelerator="cpu", plugins=[MixedPrecision("16-mixed", "cpu")])
    fabric.launch()
    return fabric


def test_a_loss_scaler_is_part_of_what_is_resumed(
    config: TrainConfig, samples: list[Sample], tmp_path: Path
) -> None:
    """The first scales overflow; what the scaler learns from it is kept."""
    short = config.model_copy(update={"epochs": 1, "accumulate": 2})
    fit(short, samples, [], tmp_path, Watcher(), with_scaler())
    saved = state(tmp_path)
    assert saved["scaler"]["_growth_tracker"] + saved["skipped"] > 0
    again = with_scaler()
    session = _open(short, tmp_path, again)
    assert again.strategy.precision.state_dict() == saved["scaler"]
    assert session.state.skipped == saved["skipped"]


def test_samples_that_cannot_be_trained_with_are_refused(
    config: TrainConfig, samples: list[Sample], make_config: ConfigMaker
) -> None:
    with pytest.raises(ConfigError, match="no mr case is left to train on"):
        check_samples([s for s in samples if s.modality == "ct"], config)
    large = config.modalities["ct"].model_copy(update={"patch": (16, 16, 512)})
    huge = config.model_copy(update={"modalities": {**config.modalities, "ct": large}})
    with pytest.raises(ConfigError, match=r"ct patch \(16, 16, 512\) is more than twice .*, 48\)"):
        check_samples(samples, huge)
    other = config.modalities["mr"].model_copy(update={"patch": (16, 32, 32)})
    uneven = config.model_copy(update={"modalities": {**config.modalities, "mr": other}})
    with pytest.raises(ConfigError, match=r"\(16, 16, 32\) and mr \(16, 32, 32\) must be one"):
        check_samples(samples, uneven)


def test_recomputing_is_asked_of_the_network_and_refused_where_it_cannot(
    config: TrainConfig, tmp_path: Path
) -> None:
    careful = config.model_copy(update={"checkpoint_activations": True})
    assert _open(careful, tmp_path).state.net.recompute is True
    with pytest.raises(ConfigError, match="checkpoint_activations: method 'aqcf' cannot"):
        _recompute(torch.nn.Conv3d(1, 1, 1), careful)


class Coupled(AQCFNet):
    """Distils the mean of one stream into the other."""

    def extra_loss(self, logits: dict[Modality, Tensor], labels: dict[Modality, Tensor]) -> Tensor:
        return labels["ct"].float().mean() * (logits["ct"].mean() - logits["mr"].mean()).square()


def test_the_term_of_a_method_that_distils_is_added_and_logged(
    config: TrainConfig, samples: list[Sample], tmp_path: Path
) -> None:
    batch = Batches(samples, config)[0]
    plain, coupled = (_open(config, tmp_path) for _ in range(2))
    assert "extra" not in _step(plain, [batch])
    coupled.state.net.__class__ = Coupled
    assert _step(coupled, [batch])["extra"] > 0
    grads = [s.state.net.decoders["ct"].head.bias.grad for s in (plain, coupled)]  # type: ignore[union-attr]
    assert not torch.equal(*grads)


def test_tensorboard_shows_every_step_once_after_a_resumption(
    config: TrainConfig, samples: list[Sample], validation: list[Case], tmp_path: Path
) -> None:
    """Step 6 was logged and validated, not yet saved: it comes again."""
    with pytest.raises(Killed):
        fit(config, samples, validation, tmp_path, Watcher(at_validation=6))
    fit(config, samples, validation, tmp_path, Watcher())
    shown = EventAccumulator(str(tmp_path / BOARD)).Reload()
    rows = read_csv(tmp_path / "steps.csv")
    for name in ("ct", "mr", "dice_ct", "dice_mr", "lr"):
        points = [(e.step, e.value) for e in shown.Scalars(f"train/{name}")]
        assert [step for step, _ in points] == [int(row["step"]) for row in rows]
        assert [v for _, v in points] == pytest.approx([float(row[name]) for row in rows])
    assert [e.step for e in shown.Scalars("liver_dice/ct/b")] == [3, 6, 9]
