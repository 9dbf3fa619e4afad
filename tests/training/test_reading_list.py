"""Which cases the readers see: held out, balanced, in an order of their own."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.errors import ConfigError
from training.config import TrainConfig
from training.readers import read_ratings
from training.reading_list import Candidate, candidates, draw, held_out, write_reading_list

ConfigMaker = Callable[..., TrainConfig]


def pool(ct: int, mr: int) -> list[Candidate]:
    rng = np.random.default_rng(0)
    counts = (("ct", ct), ("mr", mr))
    return [
        Candidate(f"{m}/{n}", m, float(v))  # type: ignore[arg-type]
        for m, count in counts
        for n, v in enumerate(rng.lognormal(1, 1, count))
    ]


def test_the_papers_forty_are_twenty_a_modality_and_even_in_size() -> None:
    chosen = draw(pool(131, 60), 40, seed=1)
    assert len(chosen) == 40
    counts = Counter((c.modality, size) for c, size in chosen.items())
    assert {m: sum(n for (k, _), n in counts.items() if k == m) for m in ("ct", "mr")} == {
        "ct": 20,
        "mr": 20,
    }
    assert set(counts.values()) == {6, 7}


def test_sizes_are_the_tertiles_of_the_modality() -> None:
    everything = draw(pool(9, 9), 18, seed=0)
    for modality in ("ct", "mr"):
        own = sorted((c.lesion_ml, s) for c, s in everything.items() if c.modality == modality)
        assert [size for _, size in own] == ["small"] * 3 + ["medium"] * 3 + ["large"] * 3


def test_a_class_that_is_used_up_leaves_its_turns_to_the_others() -> None:
    assert len(draw(pool(4, 4), 7, seed=0)) == 7


def test_the_seed_decides() -> None:
    assert draw(pool(60, 60), 12, 3) == draw(pool(60, 60), 12, 3)
    assert draw(pool(60, 60), 12, 3) != draw(pool(60, 60), 12, 4)


def test_too_few_cases_are_refused_with_the_numbers() -> None:
    with pytest.raises(ConfigError, match=r"40 cases need 20 mr cases .* there are 7"):
        draw(pool(30, 7), 40, 0)


@pytest.fixture
def run(tmp_path: Path, root: Path, make_config: ConfigMaker) -> Path:
    """A run that held out the one full case of a patient, with a merged case of the same person."""
    config = make_config(data={"root": str(root), "validate_cases": ["ct/a", "mr/a"]})
    (tmp_path / "config.json").write_text(config.model_dump_json(), "utf-8")
    return tmp_path


def sheet_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_only_held_out_cases_with_a_known_tumour_are_candidates(run: Path) -> None:
    unseen = held_out(run)
    assert {c.name for c in unseen} == {"ct/a", "ct/c", "mr/a", "mr/c"}
    found = candidates(unseen)
    assert {c.case for c in found} == {"ct/a", "mr/a"}  # c's label is merged
    assert all(c.lesion_ml > 0 for c in found)


def test_the_sheet_of_a_run_waits_to_be_filled(run: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "out" / "sheet.csv"
    chosen = write_reading_list(run, sheet, count=2, readers=("R1", "R2", "R3"))
    rows = sheet_rows(sheet)
    assert {c.case for c in chosen} == {"ct/a", "mr/a"}
    assert [row["reader"] for row in rows] == ["R1"] * 2 + ["R2"] * 2 + ["R3"] * 2
    assert [row["order"] for row in rows] == ["1", "2"] * 3
    assert {row["score"] + row["acceptable"] for row in rows} == {""}
    for number, row in enumerate(rows):
        row.update(score=str(5 + number), acceptable="1")
    with sheet.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert sorted(read_ratings(sheet).modalities) == ["ct", "mr"]


def test_every_reader_has_an_order_of_their_own(
    tmp_path: Path, root: Path, make_config: ConfigMaker
) -> None:
    study = study_of(make_config(data={"root": str(root)}), tmp_path)
    sheets = []
    for name in ("one.csv", "two.csv"):
        write_reading_list(study, tmp_path / name, count=4, readers="ABCDEFGH", seed=5)
        sheets.append((tmp_path / name).read_bytes())
    assert sheets[0] == sheets[1]
    rows = sheet_rows(tmp_path / "one.csv")
    orders = {r: tuple(x["case"] for x in rows if x["reader"] == r) for r in "ABCDEFGH"}
    assert {tuple(sorted(order)) for order in orders.values()} == {("ct/a", "ct/b", "mr/a", "mr/b")}
    assert len(set(orders.values())) > 1


def study_of(config: TrainConfig, folder: Path) -> Path:
    folds = [["ct/a", "mr/b"], ["ct/b", "mr/a"]]
    study = {"name": "s", "config": config.model_dump(mode="json"), "folds": folds, "variants": []}
    (folder / "study.json").write_text(json.dumps(study), "utf-8")
    return folder


def test_a_folder_that_is_neither_and_a_reader_named_twice_are_refused(
    run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="is no run and no study"):
        held_out(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="name each reader once"):
        write_reading_list(run, tmp_path / "x.csv", readers=("R1", "R1"))
