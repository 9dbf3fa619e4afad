"""A site whose rules take CT and MR, and series of its studies."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydicom import Dataset

from service import arrive
from service.container import Container
from service.domain import Arrival, ArrivalState, Origin, Priority
from service.pacs.archive import Archive
from service.site import Rule, Site, Then, When
from service.storage.arrivals import ArrivalFilter

URGENT = Then(profile="paper", priority=Priority.URGENT)
RULES = Site(
    rules=(
        Rule(name="thick", when=When(description="thick"), then=Then(ignore=True)),
        Rule(name="liver-ct", when=When(modality="ct"), then=URGENT),
        Rule(name="every-mr", when=When(modality="mr"), then=Then(series="every")),
    )
)
QUIET_S = 0.2


@dataclass
class Arriving:
    """A container without workers that takes series from a sender of ours."""

    container: Container
    folder: Path
    made: Any

    def series(
        self, number: int = 2, study: int = 1, *, slices: int = 12, modality: str = "CT",
        seed: int = 0, edit: Callable[[Dataset, int], None] | None = None,
    ) -> list[Path]:  # fmt: skip
        """Files of a series of a study."""

        def place(dataset: Dataset, index: int) -> None:
            dataset.StudyInstanceUID = f"1.2.3.{study}"
            dataset.SeriesInstanceUID = f"1.2.3.{study}.{number}"
            dataset.SeriesNumber = number
            dataset.SOPInstanceUID = f"1.2.3.{study}.{number}.{index + 1}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            if edit is not None:
                edit(dataset, index)

        array = self.made.phantom((slices, 40, 40), seed=seed)
        folder = self.folder / f"{study}-{number}-{seed}"
        files: list[Path] = self.made.series(folder, array, modality=modality, edit=place)
        return files

    def send(self, files: Iterable[Path], origin: Origin = Origin.DIMSE) -> None:
        with arrive.Reception(self.container, origin, "MODALITY") as reception:
            for file in files:
                reception.take(file)

    def asking(self, archive: Archive) -> "Arriving":
        """The same with an archive."""
        return replace(self, container=replace(self.container, archive=archive))

    def with_settings(self, **changes: Any) -> "Arriving":
        settings = self.container.settings.model_copy(update=changes)
        return replace(self, container=replace(self.container, settings=settings))

    def complete(self) -> None:
        arrive.complete(self.container)

    def wait(self) -> None:
        """Until the quiet time has passed and the sweep has run."""
        time.sleep(QUIET_S)
        self.complete()

    def arrivals(self, state: ArrivalState | None = None) -> list[Arrival]:
        """Oldest first."""
        page = self.container.arrivals.page(ArrivalFilter(state=state), limit=200)
        return list(reversed(page.arrivals))

    def states(self) -> dict[str, tuple[str, str | None]]:
        """State and code by the last number of the series UID; of the newest arrival."""
        return {
            one.series_uid.rpartition(".")[2]: (one.state.value, one.code)
            for one in self.arrivals()
        }

    def jobs(self) -> list[Any]:
        return list(self.container.jobs.page().jobs)

    def stored(self) -> int:
        """Instances that wait in the folder of arrivals."""
        return len(list(self.container.settings.arrivals_dir.rglob("*.dcm")))
