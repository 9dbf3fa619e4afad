"""Where inputs and results are kept: the interface and the choice of an implementation."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from model.errors import ConfigError

from ..settings import Settings
from .folder import FolderStore
from .store import ArtifactStore, full_disk_told

__all__ = ["ArtifactStore", "FolderStore", "full_disk_told", "open_store"]


def open_store(settings: Settings) -> ArtifactStore:
    """The store of ``settings.artifacts_url``: ``s3://bucket/prefix``, ``file:///folder``, or
    without one a folder of the state folder.

    Nothing far away is asked yet. An S3 client's threads do not survive a fork: open the store in
    the process that uses it. Raises ``ConfigError`` for another URL.
    """
    if settings.artifacts_url is None:
        return FolderStore(settings.artifacts_dir, settings.staging_dir)
    url = urlsplit(settings.artifacts_url)
    if url.scheme == "file" and not url.netloc and url.path.strip("/"):
        return FolderStore(Path(unquote(url.path)), settings.staging_dir)
    if url.scheme == "s3" and url.netloc:
        from .objects import open_objects  # noqa: PLC0415  (most installations never need S3)

        return open_objects(settings, url.netloc, url.path.strip("/"))
    raise ConfigError("AQCF_ARTIFACTS_URL has to be s3://bucket/prefix or file:///folder")
