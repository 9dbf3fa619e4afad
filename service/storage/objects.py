"""The artifact store in S3, for several hosts.

    manifests/inputs/<content hash>.json    inputs/<content hash>/<sha256 of a file>
    manifests/jobs/<job id>.json            jobs/<job id>/<sha256 of a file>

Files are uploaded first and their manifest last; readers believe only the manifest. A kill before
that leaves objects that nobody sees, which the sweep removes some hours later.
"""

import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ..domain import Artifact, ArtifactName
from ..settings import Settings
from .bucket import Bucket, open_bucket
from .cache import LocalCache
from .manifest import Manifest, StoredFile, damaged, describe, parse
from .parallel import in_parallel
from .store import KEY, ArtifactStore, checked, no_artifact, no_input

ABANDONED_S: Final = 6 * 3600.0
SEARCH_S: Final = 600.0  # between two looks at every key of the bucket
CACHE: Final = "cache"


class Shelf:
    """Sets of files by id, below one folder of the bucket."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket, self._name = bucket, name

    def manifest(self, key: str) -> Manifest | None:
        data = self._bucket.get(self._manifest_key(key))
        return None if data is None else parse(data)

    def upload(self, key: str, files: dict[StoredFile, Path]) -> None:
        """Bring up what is not there already; nobody sees it yet."""
        there = {(found.key, found.size) for found in self._bucket.objects(self._folder(key))}
        wanted = {file.sha256: (file, path) for file, path in files.items()}
        in_parallel(
            lambda pair: self._bucket.put(self._file_key(key, pair[0]), pair[1]),
            [
                (file, path)
                for file, path in wanted.values()
                if (self._file_key(key, file), file.size) not in there
            ],
        )

    def publish(self, key: str, manifest: Manifest) -> None:
        """Make a set visible, or replace it."""
        self._bucket.put(self._manifest_key(key), manifest.to_bytes())

    def read(self, key: str, file: StoredFile) -> Iterator[bytes]:
        """Raises ``DamagedArtifactError`` for a file that the manifest promises and is gone."""
        try:
            yield from self._bucket.read(self._file_key(key, file))
        except FileNotFoundError as error:
            raise damaged() from error

    def delete(self, key: str) -> None:
        """The manifest goes first: readers see all or nothing."""
        self._bucket.delete([self._manifest_key(key)])
        self._bucket.delete([found.key for found in self._bucket.objects(self._folder(key))])

    def keys(self) -> tuple[str, ...]:
        """Sets that are visible, and what killed uploads left hours ago."""
        names = (Path(found.key).stem for found in self._bucket.objects(f"manifests/{self._name}"))
        visible = {name for name in names if KEY.fullmatch(name)}
        hidden = {name for name in self._bucket.folders(self._name) if KEY.fullmatch(name)}
        left = {key for key in hidden - visible if self._abandoned(key)}
        return tuple(sorted(visible | left))

    def _abandoned(self, key: str) -> bool:
        newest = max(
            (found.at.timestamp() for found in self._bucket.objects(self._folder(key))), default=0.0
        )
        return time.time() - newest > ABANDONED_S

    def _folder(self, key: str) -> str:
        return f"{self._name}/{checked(key)}"

    def _file_key(self, key: str, file: StoredFile) -> str:
        return f"{self._folder(key)}/{file.sha256}"

    def _manifest_key(self, key: str) -> str:
        return f"manifests/{self._name}/{checked(key)}.json"


class ObjectStore(ArtifactStore):
    """Results and inputs in a bucket, with a cache of local copies in ``staging``."""

    def __init__(self, bucket: Bucket, staging: Path, cache_bytes: int) -> None:
        super().__init__(staging)
        self._bucket = bucket
        self._inputs, self._jobs = Shelf(bucket, "inputs"), Shelf(bucket, "jobs")
        self._cache = LocalCache(staging / CACHE, cache_bytes)
        self._searched_at: float | None = None

    def place_input(self, staged: Path, key: str) -> None:
        """What ``staged_input`` uploaded may have been purged since: it is looked for again."""
        if self._inputs.manifest(key) is None:
            manifest = self._upload_input(staged, key)
            self._inputs.publish(key, manifest)

    def input_files(self, key: str) -> tuple[Path, ...]:
        manifest = self._inputs.manifest(key)
        if manifest is None:
            self._cache.drop(f"inputs-{key}")
            raise no_input()
        return self._cache.fetch(
            f"inputs-{key}", manifest, lambda file: self._inputs.read(key, file)
        )

    def put(self, job_id: str, folder: Path) -> tuple[Artifact, ...]:
        """Two attempts at the same time do not mix: each publishes its own list."""
        files = _described(folder / name.value for name in ArtifactName)
        self._jobs.upload(job_id, files)
        before = self._jobs.manifest(job_id) or Manifest()
        self._jobs.publish(job_id, before.replaced(files))
        return tuple(Artifact(ArtifactName(f.name), f.size, f.sha256) for f in files)

    def path(self, job_id: str, name: ArtifactName) -> Path:
        manifest = self._jobs.manifest(job_id)
        file = None if manifest is None else manifest.find(name.value)
        if file is None:
            raise no_artifact(name)
        entry = f"jobs-{job_id}-{file.sha256}"
        found = self._cache.fetch(
            entry, Manifest((file,)), lambda wanted: self._jobs.read(job_id, wanted)
        )
        return found[0]

    def delete(self, job_id: str) -> None:
        self._cache.drop_all(f"jobs-{checked(job_id)}-")
        self._jobs.delete(job_id)

    def delete_input(self, key: str) -> None:
        self._cache.drop(f"inputs-{checked(key)}")
        self._inputs.delete(key)

    def input_keys(self) -> tuple[str, ...]:
        return self._inputs.keys()

    def job_ids(self) -> tuple[str, ...]:
        return self._jobs.keys()

    def free_bytes(self) -> int:
        """Of the local disk: S3 has no end that could be asked for."""
        return shutil.disk_usage(self.staging).free

    def search_due(self) -> bool:
        """Lists of a bucket cost time and money, each time."""
        now = time.monotonic()
        due = self._searched_at is None or now - self._searched_at > SEARCH_S
        self._searched_at = now if due else self._searched_at
        return due

    def require_room(self, min_free_bytes: int, incoming_bytes: int = 0) -> None:
        """The cache makes way for uploads."""
        missing = min_free_bytes + incoming_bytes - self.free_bytes()
        if missing > 0:
            self._cache.shrink(missing, max_bytes=self._cache.size())
        super().require_room(min_free_bytes, incoming_bytes)

    def purge_helps(self, watermark: int) -> bool:  # noqa: ARG002
        """Never: what is purged from S3 gives no room on this disk."""
        return False

    def ping(self) -> None:
        self._bucket.ping()

    def tidy(self) -> None:
        self._cache.tidy()

    def clear_staging(self) -> None:
        """The cache stays: its files are checked at each use."""
        for left in self.staging.iterdir():
            if left.name != CACHE:
                shutil.rmtree(left, ignore_errors=True)
        self._cache.tidy()

    def _prepare(self, staged: Path, key: str) -> None:
        """Before anybody waits for a lock."""
        if self._inputs.manifest(key) is None:
            self._upload_input(staged, key)

    def _upload_input(self, staged: Path, key: str) -> Manifest:
        files = _described(sorted(staged.iterdir()))
        self._inputs.upload(key, files)
        return Manifest(tuple(files))


def open_objects(settings: Settings, bucket: str, prefix: str) -> ObjectStore:
    """The store in this bucket; raises ``ConfigError``."""
    opened = open_bucket(settings, bucket, prefix)
    return ObjectStore(opened, settings.staging_dir, settings.cache_bytes)


def _described(paths: Iterable[Path]) -> dict[StoredFile, Path]:
    present = [path for path in paths if path.is_file()]
    return dict(zip(in_parallel(describe, present), present, strict=True))
