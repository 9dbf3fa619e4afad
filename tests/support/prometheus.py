"""A real Prometheus that watches roles as ``docker/metrics`` says."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from servers import free_port, wait_until

PROGRAM = Path("/usr/bin/prometheus")
METRICS = Path(__file__).resolve().parents[2] / "docker" / "metrics"


@dataclass
class PrometheusServer:
    """``targets``: the metrics port of each service that the configuration names. Names are told
    instead of looked up, and scraping is quicker; the rest is the configuration's."""

    folder: Path
    targets: Mapping[str, int]
    port: int = field(default_factory=free_port)
    _process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Ready when this returns."""
        if not PROGRAM.is_file():
            raise FileNotFoundError("apt-get install -y prometheus")
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config()))
        options = [f"--config.file={config}", f"--storage.tsdb.path={self.folder / 'data'}"]
        options.append(f"--web.listen-address=127.0.0.1:{self.port}")
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen([PROGRAM, *options], stdout=log, stderr=log)
        wait_until(self._ready, "Prometheus is not ready", 30)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def get(self, path: str, **params: str) -> Any:
        """What the API answers, such as ``targets`` or ``rules``."""
        answer = httpx.get(f"http://127.0.0.1:{self.port}/api/v1/{path}", params=params)
        return answer.raise_for_status().json()["data"]

    def ask(self, expression: str) -> dict[str, float]:
        """Now, by labels as JSON."""
        found = self.get("query", query=expression)["result"]
        return {json.dumps(one["metric"], sort_keys=True): float(one["value"][1]) for one in found}

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load((METRICS / "prometheus.yml").read_text())
        config["global"] |= {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        config["rule_files"] = [str(METRICS / Path(file).name) for file in config["rule_files"]]
        (job,) = config["scrape_configs"]
        names = [name for one in job.pop("dns_sd_configs") for name in one["names"]]
        job["static_configs"] = [
            {
                "targets": [f"127.0.0.1:{self.targets[name]}"],
                "labels": {"__meta_dns_name": name},
            }
            for name in names
        ]
        return config

    def _ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"Prometheus ended: {(self.folder / 'log').read_text()[-2000:]}")
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/-/ready").is_success
        except httpx.TransportError:
            return False
