"""A study's folder and the images of its cases, as ``study_folder`` writes them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from study_folder import write_images, write_plan, write_study

from training.config import TrainConfig

PlanWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def make_plan(make_config: Callable[..., TrainConfig], images: Path) -> PlanWriter:
    """Writes ``study.json`` into a folder, with changes."""
    config = make_config(data={"root": str(images)}).model_dump(mode="json")

    def make(folder: Path, **changes: object) -> Path:
        return write_plan(folder, config, **changes)

    return make


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, make_plan: PlanWriter) -> Path:
    """A study in which not everything is done. Read only."""
    return write_study(make_plan(tmp_path_factory.mktemp("study") / "tiny"))
