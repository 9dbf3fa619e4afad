"""One finished job with DICOM results, and sites that want them."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from servers import OrthancServer
from sqlalchemy import update

from service import deliver, execute, intake, wiring
from service.container import Container
from service.domain import Delivery, DeliveryState, Job, SubmitOptions
from service.pacs.confirm import Patience
from service.settings import Settings
from service.site import Site
from service.storage.breakers import BreakerPolicy, BreakerStore
from service.storage.deliveries import DeliveryPolicy, DeliveryStore
from service.storage.tables import DeliveryRow
from service.uploads import Upload

PATIENT = DeliveryPolicy(
    first_s=600.0,
    lease_s=600.0,
    breaker=BreakerPolicy(failures=5, open_s=600.0, probe_s=600.0),
)
FORGIVING = replace(
    PATIENT,
    first_s=0.01,
    cap_s=0.02,
    breaker=BreakerPolicy(failures=5, open_s=0.1, cap_s=0.2, probe_s=20.0),
)
SHORT = Patience(pause_s=0.05, report_s=10.0, linger_s=0.5)
NUMBERS = itertools.count(1)


@dataclass
class Scene:
    """A job whose results are owed to the destination ``name`` of its own site."""

    container: Container
    job: Job
    name: str

    @property
    def found(self) -> Delivery:
        every = self.container.deliveries.of_job(self.job.id)
        return next(one for one in every if one.destination == self.name)

    @property
    def forms(self) -> dict[str, str]:
        return {item["form"]: item["state"] for item in self.found.sent}

    def run(self, patience: Patience = SHORT) -> Delivery:
        """One attempt, and what became of it."""
        deliver.run_destination(self.container, self.name, patience=patience)
        return self.found

    def claim(self) -> Delivery:
        claimed = self.container.deliveries.claim(self.name, self.container.worker_id)
        assert claimed is not None
        return claimed

    def lease_ends(self) -> None:
        """As if the claiming process had died a while ago."""
        self.container.deliveries.release(self.container.worker_id)

    def breaker_half_opens(self) -> None:
        """As if it had been open for long enough."""
        at_once = BreakerPolicy(failures=1, open_s=0.0)
        BreakerStore(self.container.database, at_once).failed(self.name)

    def wait_ends(self) -> None:
        """As if the wait after a failure were over."""
        statement = update(DeliveryRow).where(DeliveryRow.id == self.found.id)
        with self.container.database.writing() as session:
            session.execute(statement.values(next_at=datetime.now(UTC)))

    def until(self, state: DeliveryState, tries: int = 8) -> Delivery:
        for _ in range(tries):
            self.wait_ends()
            if self.run().state is state:
                return self.found
        raise AssertionError(f"{self.found.state} {self.found.code}, not {state}")

    def elsewhere(self, node: dict[str, Any], **destination: Any) -> "Scene":
        """The same delivery after the site file was changed."""
        return replace(self, container=with_site(self.container, self.name, node, destination))

    def sends(self) -> int:
        entries = self.container.audit.entries(self.job.id)
        return sum(entry.action == f"deliver:{self.name}" for entry in entries)


def with_site(
    container: Container,
    name: str,
    node: dict[str, Any],
    destination: dict[str, Any],
    profile: dict[str, Any] | None = None,
    policy: DeliveryPolicy = PATIENT,
) -> Container:
    """The same container with another site file, and quick waits."""
    by = "dimse" if "dimse" in node else "dicomweb"
    site = {
        "nodes": {"pacs": node},
        "profiles": {"own": profile or {}},
        "destinations": {name: {"node": "pacs", "by": by, "profile": "own"} | destination},
    }
    return replace(
        container,
        site=Site.model_validate(site),
        deliveries=DeliveryStore(container.database, policy),
    )


def dimse(port: int) -> dict[str, Any]:
    return {"dimse": {"host": "127.0.0.1", "port": port, "ae_title": "PEER"}, "timeout_s": 5}


def web(orthanc: OrthancServer) -> dict[str, Any]:
    login = {"username": orthanc.username, "password_file": str(orthanc.password_file)}
    return {"dicomweb": {"url": orthanc.dicomweb_url, **login}, "timeout_s": 5}


class Tools:
    """The makers of this file, for tests to ask for."""

    scene = Scene
    with_site = staticmethod(with_site)
    dimse = staticmethod(dimse)
    web = staticmethod(web)
    patience = SHORT
    forgiving = FORGIVING


@pytest.fixture(scope="session")
def tools() -> Tools:
    return Tools()


def finished(container: Container, files: list[Path]) -> Job:
    job = intake.submit(container, Upload(tuple(files)), SubmitOptions("ct"))
    execute.run(container, job.id)
    return container.jobs.require(job.id)


Finish: TypeAlias = Callable[..., Job]


@pytest.fixture(scope="module")
def ledger(
    made: Any, models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    """A container for all tests of a file; each uses a destination of its own."""
    settings = Settings(
        state_dir=tmp_path_factory.mktemp("state"),
        models_dir=models_dir,
        default_model="tiny",
        engine="onnxruntime",
        threads=1,
        min_free_bytes=0,
        purge_free_bytes=0,
    )
    built = wiring.build(settings)
    yield built
    built.database.close()


@pytest.fixture(scope="module")
def finish(ledger: Container, made: Any, tmp_path_factory: pytest.TempPathFactory) -> Finish:
    """Runs a job over a series of this image."""

    def run(image: Any) -> Job:
        return finished(ledger, made.series(tmp_path_factory.mktemp("series"), image))

    return run


@pytest.fixture(scope="module")
def job(finish: Finish, made: Any) -> Job:
    return finish(made.phantom())


@pytest.fixture
def scene(ledger: Container, job: Job) -> Callable[..., Scene]:
    """Owes a job's results to a new destination at ``node``."""

    def make(
        node: dict[str, Any],
        *,
        profile: dict[str, Any] | None = None,
        of: Job | None = None,
        policy: DeliveryPolicy = PATIENT,
        **destination: Any,
    ) -> Scene:
        name = f"pacs{next(NUMBERS)}"
        container = with_site(ledger, name, node, destination, profile, policy)
        made = Scene(container, of or job, name)
        assert container.deliveries.enqueue(made.job.id, [name]) == (name,)
        return made

    return make
