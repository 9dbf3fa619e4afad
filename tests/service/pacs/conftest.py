"""Certificates for peers on this machine."""

import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``cert`` and ``key`` of ``localhost``, and the ``ca`` that trusts it: itself."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        [*command, "-nodes", "-days", "2", "-keyout", key, "-out", cert, *names],
        check=True,
        capture_output=True,
    )
    return {"ca": cert, "cert": cert, "key": key}
