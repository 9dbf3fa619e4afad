"""What changes a deployment, from ``AQCF_*`` variables, built once and passed in."""

from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
PACKAGED_MODELS = Path(__file__).resolve().parent.parent / "model" / "zoo"
PHANTOM_MODEL = PACKAGED_MODELS.parent / "acceptance"
SECRETS = Path("/run/secrets")  # where container engines put them; a file ``aqcf_NAME`` each
MIB = 1024**2
GIB = 1024**3


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an address, is this machine only."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Settings(BaseSettings):
    """Defaults serve one user on loopback. Sizes in bytes, times in seconds unless named."""

    model_config = SettingsConfigDict(
        env_prefix="AQCF_",
        env_ignore_empty=True,  # compose files pass on what nobody set as an empty text
        secrets_dir=SECRETS if SECRETS.is_dir() else None,
        frozen=True,
        extra="ignore",
    )

    state_dir: Path = Path("state")
    database_url: str | None = Field(default=None, repr=False, pattern=r"^[a-z0-9+]+://")
    redis_url: str | None = Field(default=None, repr=False, pattern=r"^(rediss?|unix)://")
    artifacts_url: str | None = None
    s3_endpoint: str | None = None
    s3_region: str | None = None
    s3_access_key: str | None = Field(default=None, repr=False)
    s3_secret_key: str | None = Field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    models_dir: Path = PACKAGED_MODELS
    default_model: str = "small"
    engine: Literal["auto", "openvino", "onnxruntime", "torch"] = "auto"
    threads: int | None = Field(default=None, ge=1)

    workers: int = Field(default=1, ge=1)
    lanes: int = Field(default=1, ge=1)
    queue_limit: int = Field(default=64, ge=1)
    retry_after_s: int = Field(default=30, ge=1)

    job_soft_limit_s: float = Field(default=1800.0, gt=0)
    job_hard_limit_s: float = Field(default=2400.0, gt=0)
    visibility_timeout_s: float = Field(default=7200.0, gt=0)
    device_memory_bytes: int | None = Field(default=None, ge=1)

    site_file: Path | None = None
    ae_title: str = Field(default="AQCF", min_length=1, max_length=16)
    listen: bool = False
    listen_host: str = "127.0.0.1"
    listen_port: int = Field(default=11112, ge=0, le=65535)
    listen_tls_cert: Path | None = None
    listen_tls_key: Path | None = None
    listen_tls_ca: Path | None = None
    quiet_s: float = Field(default=20.0, gt=0)
    max_associations: int = Field(default=16, ge=1)

    admin_key: str | None = Field(default=None, repr=False)
    oidc_issuer: str | None = None
    oidc_audience: str | None = None
    oidc_scope_claim: str = "scope"
    oidc_ca: Path | None = None

    metrics_host: str = Field(default="127.0.0.1", min_length=1)
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    otlp_endpoint: str | None = None

    max_upload_bytes: int = 4 * GIB
    max_extracted_bytes: int = 8 * GIB
    max_files: int = 20_000
    max_ratio: float = 300.0  # of an archive over 100 MiB; deflate reaches 1032 on zeros
    max_voxels: int = 1024**3 // 2

    min_free_bytes: int = 2 * GIB  # below this, new uploads are refused
    purge_free_bytes: int = 4 * GIB  # below this, the oldest finished jobs are purged
    cache_bytes: int = Field(default=20 * GIB, ge=0)  # of local copies, where artifacts are in S3
    retention_days: float = Field(default=30.0, gt=0)

    heartbeat_s: float = Field(default=5.0, gt=0)
    heartbeat_timeout_s: float = Field(default=60.0, gt=0)
    stale_queued_s: float = Field(default=30.0, gt=0)
    sweep_s: float = Field(default=15.0, gt=0)
    max_deaths: int = Field(default=3, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: dict[str, object]) -> dict[str, object]:
        """Also a file of ``secrets_dir`` that nobody filled."""
        return {name: value for name, value in values.items() if value != ""}

    @model_validator(mode="after")
    def _limits_in_order(self) -> "Settings":
        """A job must have ended before the queue takes it for lost and hands it out again."""
        if not self.job_soft_limit_s <= self.job_hard_limit_s < self.visibility_timeout_s:
            raise ValueError(
                "AQCF_JOB_SOFT_LIMIT_S <= AQCF_JOB_HARD_LIMIT_S < AQCF_VISIBILITY_TIMEOUT_S"
            )
        return self

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy's URL: a database server, or a file in the state folder."""
        if self.database_url:
            return self.database_url
        return f"sqlite:///{self.state_dir / 'ledger.sqlite3'}"

    @property
    def artifacts_dir(self) -> Path:
        return self.state_dir / "artifacts"

    @property
    def arrivals_dir(self) -> Path:
        """Instances that wait until their study is complete. Listeners that may get parts of the
        same study, and whoever evaluates studies, share it."""
        return self.state_dir / "arrivals"

    @property
    def staging_dir(self) -> Path:
        return self.state_dir / "staging"
