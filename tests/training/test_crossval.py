"""A study of two folds on phantoms, run by the functions that the command uses."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from model.errors import ConfigError
from training import cli
from training.config import TrainConfig
from training.crossval import (
    RunFailedError,
    Study,
    check_protocol,
    crossval,
    is_whole,
    open_study,
    read_study,
    run_fold,
)
from training.data import list_cases, split
from training.variants import changed

ConfigMaker = Callable[..., TrainConfig]
PROTOCOL = {"folds": 2, "validation": "fold", "weights": "last", "variants": ["no_gate"]}
TRAPEZOID = {"schedule": "trapezoid", "lr": 1e-3}


@pytest.fixture(scope="module")
def config(root: Path, make_config: ConfigMaker) -> TrainConfig:
    external = {"other": {"root": root, "cases": ["ct/d"], "title": "Other scanner"}}
    return make_config(
        data={"root": root}, protocol={**PROTOCOL, "external": external}, optimiser=TRAPEZOID,
        epochs=1, steps_per_epoch=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def study(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    return crossval(config, folder, launch=run_fold)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_every_case_is_scored_once_by_a_network_that_never_saw_its_patient(study: Study) -> None:
    cases = {case.name: case for case in list_cases(study.config.data)}
    for variant in ("full", "no_gate"):
        scored = []
        for fold, names in enumerate(study.folds):
            found = [row["case"] for row in rows(study.run(variant, fold) / "scores.csv")]
            assert sorted(found) == sorted(names)
            data = study.config_of(variant, fold).data
            trained = {c.patient for c in split(list_cases(data), data)[0]}
            assert not trained & {cases[name].patient for name in (*names, "ct/d")}
            scored += found
        assert sorted(scored) == ["ct/a", "ct/b", "ct/c", "mr/a", "mr/b", "mr/c"]


def test_a_run_says_what_made_it(study: Study) -> None:
    record = json.loads((study.run("no_gate", 1) / "run.json").read_text())
    assert record["name"] == "tiny-no_gate-fold_1"
    assert record["steps"] == 2
    assert record["parameters"] > 1000
    assert record["device"].startswith("CPU")


def test_other_data_sets_are_scored_without_having_been_trained_on(study: Study) -> None:
    for fold in range(2):
        assert [r["case"] for r in rows(study.run("full", fold) / "external_other.csv")] == ["ct/d"]


def test_gates_and_masks_are_kept(study: Study) -> None:
    run = study.run("full", 0)
    assert {row["stage"] for row in rows(run / "gates.csv")} == {"1", "2", "3", "4"}
    for row in rows(run / "scores.csv"):
        assert (run / "masks" / f"{row['case'].replace('/', '_')}.nii.gz").is_file()


def test_what_is_whole_is_not_made_again(study: Study) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a whole run was launched again")

    crossval(study.config, study.folder, launch=refuse)


def test_a_run_cut_short_is_made_whole(study: Study) -> None:
    launched: list[tuple[str, int]] = []

    def launch(study: Study, variant: str, fold: int, threads: int | None) -> None:
        launched.append((variant, fold))
        run_fold(study, variant, fold, threads)

    (study.run("no_gate", 0) / "scores.csv").unlink()
    assert not is_whole(study, "no_gate", 0)
    crossval(study.config, study.folder, launch=launch)
    assert launched == [("no_gate", 0)]
    assert is_whole(study, "no_gate", 0)


def test_only_the_folds_asked_for(config: TrainConfig, tmp_path: Path) -> None:
    launched: list[tuple[str, int]] = []
    crossval(config, tmp_path, folds=[1], launch=lambda _, v, f, __: launched.append((v, f)))
    assert launched == [("full", 1), ("no_gate", 1)]
    with pytest.raises(ConfigError, match="the study has folds 0 to 1"):
        crossval(config, tmp_path, folds=[2], launch=lambda *_: None)


def test_variants_may_join_but_the_rest_must_stay(config: TrainConfig, tmp_path: Path) -> None:
    open_study(config, tmp_path)
    open_study(changed(config, {"protocol": {"variants": ["dynunet"]}}), tmp_path)
    listed = json.loads((tmp_path / "study.json").read_text())
    assert [v["name"] for v in listed["variants"]] == ["full", "no_gate", "dynunet"]
    assert listed["external"] == {"other": "Other scanner"}
    assert len(listed["commands"]) == 1, "the same command is told of once"
    with pytest.raises(ConfigError, match="begun with another configuration"):
        open_study(changed(config, {"seed": 9}), tmp_path)


@pytest.mark.parametrize("changes", [{"weights": "best"}, {}])
def test_the_test_fold_chooses_nothing(make_config: ConfigMaker, changes: dict[str, Any]) -> None:
    """``best`` weights and the plateau schedule look at validation."""
    rule = TRAPEZOID if changes else {"schedule": "plateau"}
    with pytest.raises(ConfigError, match="would let the test fold choose"):
        check_protocol(make_config(protocol={**PROTOCOL, **changes}, optimiser=rule))


@pytest.fixture(scope="module")
def names_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten patients per modality whose files are empty: enough to plan with."""
    root, rows = tmp_path_factory.mktemp("names"), []
    for name in [f"{modality}/{n}" for modality in ("ct", "mr") for n in range(10)]:
        (root / name).mkdir(parents=True)
        for file in ("image.nii.gz", "label.nii.gz"):
            (root / name / file).touch()
        rows.append({"case": name, "modality": name[:2], "patient": name, "labels": "full",
                     "licence": "CC0"})  # fmt: skip
    (root / "cases.json").write_text(json.dumps(rows))
    return root


def test_inner_validation_is_apart_from_the_fold(
    names_only: Path, make_config: ConfigMaker, tmp_path: Path
) -> None:
    config = make_config(data={"root": names_only}, protocol={"inner_share": 0.25})
    study = open_study(config, tmp_path)
    for fold, names in enumerate(study.folds):
        data = study.config_of("full", fold).data
        train, validate = split(list_cases(data), data)
        assert data.test_cases == names
        assert {c.modality for c in validate} == {"ct", "mr"}
        assert len(validate) == 4
        apart = [set(names), {c.name for c in train}, {c.name for c in validate}]
        assert sum(len(part) for part in apart) == len(set.union(*apart)) == 20


def test_too_few_patients_for_inner_validation(
    names_only: Path, make_config: ConfigMaker, tmp_path: Path
) -> None:
    few = [f"{modality}/{n}" for modality in ("ct", "mr") for n in range(2, 10)]
    config = make_config(data={"root": names_only, "exclude": few}, protocol={"folds": 2})
    with pytest.raises(ConfigError, match="fold 0 leaves too few patients"):
        open_study(config, tmp_path).config_of("full", 0)


def test_no_study(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a study"):
        read_study(tmp_path)


def test_a_run_that_dies_is_named(config: TrainConfig, tmp_path: Path, data_dir: Path) -> None:
    """A process of its own, which finds its study damaged."""
    study = open_study(config, tmp_path / "whole")
    (study.folder / "cache").write_text("in the way")
    with pytest.raises(RunFailedError, match="full, fold 0 ended with exit code"):
        crossval(config, study.folder, folds=[0])


def test_the_command_takes_variants_and_folds(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("name: x\n")
    result = CliRunner().invoke(cli.app, ["crossval", str(path), "--folds", "a"])
    assert isinstance(result.exception, ConfigError)
