"""A running service beside a real archive."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from accepting import Scene
from roles import Deployment
from servers import OrthancServer, free_port, wait_until


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory,
    orthanc_server: OrthancServer,
    models_dir: Path,
) -> Iterator[Scene]:
    """`aqcf serve` with its listener, beside Orthanc."""
    folder = tmp_path_factory.mktemp("acceptance")
    port = free_port()
    environment = {
        "AQCF_STATE_DIR": str(folder / "state"),
        "AQCF_MODELS_DIR": str(models_dir),
        "AQCF_SITE_FILE": str(folder / "site.yaml"),
        "AQCF_LISTEN_PORT": str(port),
        "AQCF_QUIET_S": "2",
    }
    made = Scene(folder, orthanc_server, environment, port)
    made.site()
    deployment = Deployment(folder, environment)
    role = deployment.start("serve", "--listen", "--port", str(free_port()))
    wait_until(lambda: role.says("listening on"), "the service does not answer", 90)
    yield made
    deployment.close()


@pytest.fixture
def archive(orthanc: OrthancServer) -> OrthancServer:
    """Empty."""
    return orthanc
