"""A whole deployment that is given canaries, and everything that it writes, shows and sends."""

import gzip
import io
import json
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
from canary import DESCRIPTION, DIGITS, ROOT, SENT, Evidence
from collector import Collector, collecting
from dimse_peers import ALL_CLASSES, store_scp
from issuer import AUDIENCE, Issuer, SigningKey
from object_store import S3Server
from roles import START_S, Deployment, Role
from servers import OrthancServer, PostgresServer, RedisServer, free_port, wait_until
from web_peers import Answer, Asked, answering

ADMIN_KEY = f"aqcf_{DIGITS[:8]}_{SENT['secret of a key']}"
WORDS = SENT["words of a node"]
HEADERS = {
    "User-Agent": f"{SENT['user agent']}/1.0",
    "Cookie": f"name={SENT['cookie']}",
    "X-Request-ID": SENT["request id"],
    "traceparent": f"00-{DIGITS}{'a' * 21}-{'c' * 16}-01",
    "tracestate": f"who={SENT['traced'].lower()}",
    "baggage": f"patient={SENT['traced']}",
}
SITE = """
nodes:
  pacs:
    dimse: {{host: 127.0.0.1, port: {pacs.dicom_port}, ae_title: {pacs.ae_title}}}
    dicomweb:
      url: {pacs.dicomweb_url}
      username: {pacs.username}
      password_file: {pacs.password_file}
  mocking: {{dicomweb: {{url: '{mocking}'}}}}
  refusing: {{dimse: {{host: 127.0.0.1, port: {refusing}, ae_title: PEER}}}}
  gone: {{dicomweb: {{url: 'http://127.0.0.1:{gone}'}}, timeout_s: 2}}
archive: pacs
destinations:
  archive: {{node: pacs, by: dicomweb}}
  mocking: {{node: mocking, by: dicomweb, confirm: none}}
  refusing: {{node: refusing, by: dimse, confirm: none}}
  gone: {{node: gone, by: dicomweb}}
rules:
  - {{name: liver-ct, when: {{modality: ct}}, then: {{destinations: [archive]}}}}
"""
CT_SERIES = {
    "0020000E": {"vr": "UI", "Value": [f"{ROOT}.2.903.1"]},
    "00080060": {"vr": "CS", "Value": ["CT"]},
    "0008103E": {"vr": "LO", "Value": [DESCRIPTION]},
    "00100020": {"vr": "LO", "Value": [WORDS]},
    "00201209": {"vr": "IS", "Value": [WORDS]},
}
STATE, LEDGER = "AQCF_STATE_DIR", "AQCF_DATABASE_URL"
ALONE = dict.fromkeys((LEDGER, "AQCF_REDIS_URL", "AQCF_ARTIFACTS_URL", "AQCF_SITE_FILE"), "")
"""What makes a process independent of all servers."""
BUCKET, DICOM_JSON = "canary", "application/dicom+json"
DICOM_AT, DICOM = 128, b"DICM"


def mock(asked: Asked) -> Answer:
    """A node whose answers are wrong in every way, and full of names. What it says of a study goes
    by the last number of its UID."""
    said = f"{WORDS}: no {ROOT}.1 of Zwitscherbein^Klothildegunde, born 19170314".encode()
    if asked.method == "POST":
        failed = {"00081150": {"vr": "UI", "Value": [WORDS]},
                  "00081155": {"vr": "UI", "Value": [f"{ROOT}.7"]},
                  "00081197": {"vr": "US", "Value": [0xC000]}}  # fmt: skip
        body = {"00081198": {"vr": "SQ", "Value": [failed]}, "00000902": {"Value": [str(said)]}}
        return Answer(409, json.dumps(body).encode())
    if ".1.902/" in asked.path:
        return Answer(200, said)
    if ".1.903/" in asked.path and "/series/" not in asked.path:
        return Answer(200, json.dumps([CT_SERIES]).encode())
    return Answer(500, said, {"Warning": f'299 - "{WORDS}"'})


class Tap:
    """Everything that Redis is told, as its MONITOR repeats it."""

    def __init__(self, server: RedisServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._heard = bytearray()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._socket.sendall(b"MONITOR\r\n")
        self._thread.start()
        wait_until(lambda: b"+OK" in self._heard, "Redis does not monitor")

    def close(self) -> bytes:
        """What was heard."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()
        return bytes(self._heard)

    def _listen(self) -> None:
        with suppress(OSError):
            while data := self._socket.recv(2**16):
                self._heard += data


class Names:
    """Names of files and folders below ``folders``, of command lines, threads and open files of
    ``roles``, also of those that are there for a moment only."""

    def __init__(self, folders: Iterable[Path], roles: list[Role]) -> None:
        self._folders, self._roles = tuple(folders), roles
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> str:
        """All that were seen, in lines."""
        self._stop.set()
        self._thread.join(10)
        self._look()
        return "\n".join(sorted(self._seen))

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self._look()

    def _look(self) -> None:
        for folder in self._folders:
            with suppress(OSError):  # it went while we looked
                self._seen |= {str(found.relative_to(folder)) for found in folder.rglob("*")}
        for role in list(self._roles):
            with suppress(OSError):
                self._seen |= set(_told_by_the_system(role.pid))


def _told_by_the_system(pid: int) -> Iterator[str]:
    process = Path(f"/proc/{pid}")
    yield (process / "cmdline").read_text().replace("\0", " ")
    yield from {(task / "comm").read_text() for task in (process / "task").iterdir()}
    for opened in (process / "fd").iterdir():
        with suppress(OSError):
            yield str(opened.readlink())


@dataclass
class Scene:
    """``evidence`` grows with every answer; ``collect`` adds what lies about at the end."""

    folder: Path
    deployment: Deployment
    collector: Collector
    broker: RedisServer
    postgres: PostgresServer
    store: S3Server
    token: str
    evidence: Evidence = field(default_factory=Evidence)
    metrics: dict[str, int] = field(default_factory=dict)
    second_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self._http = httpx.Client(timeout=90)
        self._tap = Tap(self.broker)
        self.roots = [self.folder / name for name in ("state", "alone", "temporary")]
        self.roots.append(self.store.objects / BUCKET)
        self._names = Names(self.roots, self.deployment.roles)

    def close(self) -> None:
        """Look no more at Redis and at names; what was seen is evidence. More than once does no
        harm."""
        self._http.close()
        self.evidence.add("Redis", self._tap.close())
        self.evidence.add("name", self._names.close())

    def role(self, kind: str, **more: str) -> Role:
        """A process with metrics of its own and ``more`` settings, that shares all else."""
        self.metrics[kind] = free_port()
        own = {"AQCF_METRICS_PORT": str(self.metrics[kind]), **more}
        started = replace(self.deployment, environment={**self.deployment.environment, **own})
        return started.start(kind)

    def alone(self) -> Role:
        """The whole service in one process, over a folder and SQLite."""
        own = {**ALONE, STATE: str(self.folder / "alone"), "AQCF_PORT": str(self.second_port)}
        environment = {**self.deployment.environment, **own}
        return replace(self.deployment, environment=environment).start("serve")

    def stop(self) -> None:
        """Tell all processes to end in order."""
        for role in self.deployment.living():
            role.process.terminate()
        for role in self.deployment.living():
            role.process.wait(60)

    def wait_for(self, role: Role, word: str) -> None:
        """Until it says so on its log."""
        wait_until(lambda: role.says(word), f"the {role.kind} does not say {word!r}", START_S)

    def ask(self, method: str, path: str, what: str = "answer", **more: Any) -> httpx.Response:
        """A request full of canaries; its answer is evidence, under ``what`` and the status where
        it is none of success."""
        headers = {"Authorization": f"Bearer {ADMIN_KEY}", **HEADERS, **more.pop("headers", {})}
        url = path if "://" in path else f"{self.deployment.url}{path}"
        answer = self._http.request(method, url, headers=headers, **more)
        self.evidence.add("answer headers", repr(answer.headers.raw))
        told = answer.is_success or answer.headers.get("Content-Type") == DICOM_JSON
        place = what if told else "error"
        for name, content in _apart(place, answer.content):
            self.evidence.add(name, content)
        return answer

    def submit(self, content: bytes, modality: str = "ct", **more: Any) -> str:
        """The id of a new job."""
        params = {"modality": modality, "note": SENT["query"], **more.pop("params", {})}
        headers = {"Content-Type": "application/zip", **more.pop("headers", {})}
        answer = self.ask("POST", "/v1/segmentations", params=params, content=content,
                          headers=headers, **more)  # fmt: skip
        if answer.status_code != httpx.codes.ACCEPTED:
            raise RuntimeError(answer.text)
        return str(answer.json()["id"])

    def look(self, path: str) -> dict[str, Any]:
        """What is answered, which is no evidence: for whoever waits."""
        time.sleep(0.1)
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        answer = self._http.get(f"{self.deployment.url}{path}", headers=headers)
        found: dict[str, Any] = answer.json()
        return found

    def finished(self, *job_ids: str, seconds: float = 90.0) -> None:
        """Until they have ended, however."""

        def ended() -> bool:
            listed = self.look("/v1/segmentations?limit=200")["items"]
            open_ones = [one["id"] for one in listed if one["status"] in ("queued", "running")]
            return not set(job_ids) & set(open_ones)

        wait_until(ended, "a job does not end", seconds)
        for job_id in job_ids:
            self.ask("GET", f"/v1/segmentations/{job_id}")

    def show_metrics(self) -> None:
        """Of each process; also what their ports say to wrong requests."""
        for port in self.metrics.values():
            url = f"http://127.0.0.1:{port}"
            self.evidence.add("metrics", self._http.get(f"{url}/metrics").content)
            strange = self._http.request(SENT["method"], f"{url}/{SENT['path']}")
            self.evidence.add("metrics", strange.content, repr(strange.headers.raw))

    def collect(self) -> None:
        """Everything that lies about; call it when the processes have ended."""
        for role in self.deployment.roles:
            self.evidence.add(f"log of {role.kind}", role.log.read_bytes())
        for server in (self.postgres, self.store):
            self.evidence.add("log of a server", (server.folder / "log").read_bytes())
        self.evidence.add("trace", *self.collector.bodies)
        for table, column, value in _cells(self.deployment.environment[LEDGER]):
            for name, content in _apart(f"ledger {table}.{column}", value):
                self.evidence.add(name, content)
        for root in self.roots:
            for file in filter(Path.is_file, root.rglob("*")):
                self.evidence.add(_kind_of(file, root), plain(file.read_bytes()))


@contextmanager
def staged(
    folder: Path, models: Path, pacs: OrthancServer, broker: RedisServer,
    postgres: PostgresServer, store: S3Server,
) -> Iterator[Scene]:  # fmt: skip
    """The peers of a deployment, and what its processes have in common; none runs yet."""
    with ExitStack() as stack:
        collector = stack.enter_context(collecting())
        issuer, key = Issuer(), SigningKey("k1")
        stack.callback(issuer.close)
        issuer.keys.append(key)
        refusing = stack.enter_context(store_scp(statuses=dict.fromkeys(ALL_CLASSES, 0xC000)))
        url, _ = stack.enter_context(answering(mock))
        site = SITE.format(pacs=pacs, mocking=url, refusing=refusing.port, gone=free_port())
        (folder / "site.yaml").write_text(site)
        (folder / "temporary").mkdir()
        environment = {
            "AQCF_STATE_DIR": str(folder / "state"),
            "AQCF_MODELS_DIR": str(models),
            "AQCF_LOG_LEVEL": "debug",
            "AQCF_REDIS_URL": broker.url,
            LEDGER: postgres.new_database(),
            "AQCF_SITE_FILE": str(folder / "site.yaml"),
            "AQCF_LISTEN_PORT": str(free_port()),
            "AQCF_QUIET_S": "1.5",
            "AQCF_ADMIN_KEY": ADMIN_KEY,
            "AQCF_OIDC_ISSUER": issuer.url,
            "AQCF_OIDC_AUDIENCE": AUDIENCE,
            "AQCF_OTLP_ENDPOINT": collector.url,
            "AQCF_ARTIFACTS_URL": f"s3://{store.bucket}/{BUCKET}",
            "AQCF_S3_ENDPOINT": store.url,
            "AQCF_S3_ACCESS_KEY": store.access_key,
            "AQCF_S3_SECRET_KEY": store.secret_key,
            "TMPDIR": str(folder / "temporary"),
        }
        deployment = Deployment(folder, environment)
        environment["AQCF_PORT"] = str(deployment.port)
        stack.callback(deployment.close)
        who = {"sub": SENT["subject"], "name": SENT["person of a token"], "email": "x@y.example"}
        token = issuer.token(key, **who)
        yield Scene(folder, deployment, collector, broker, postgres, store, token)


def plain(content: bytes) -> bytes:
    """Without gzip."""
    if content[:2] != b"\x1f\x8b":
        return content
    with suppress(OSError, EOFError, zlib.error):
        return gzip.decompress(content)
    return content


def _kind_of(file: Path, root: Path) -> str:
    """Inputs, results in DICOM, and everything else."""
    content = plain(file.read_bytes())
    parts = file.relative_to(root).parts
    if "arrivals" in parts or any(re.fullmatch("inputs?|input-.*", part) for part in parts):
        return "stored image" if _is_image(content) else "stored file"
    if file.name.startswith("ledger.sqlite3"):
        return "ledger file"
    return "stored result" if _is_image(content) else "stored file"


def _is_image(content: bytes) -> bool:
    zipped = content[:4] == b"PK\x03\x04"
    return zipped or content[DICOM_AT : DICOM_AT + 4] == DICOM or content[344:347] == b"n+1"


def _apart(place: str, content: bytes) -> Iterator[tuple[str, str | bytes]]:
    """A JSON text without its receipts, and these under a name of their own."""
    try:
        told = json.loads(content)
    except ValueError:
        yield place, plain(content)
        return
    receipts: list[Any] = []
    yield place, json.dumps(_without_receipts(told, receipts), ensure_ascii=False)
    yield "receipt", json.dumps(receipts, ensure_ascii=False)


def _without_receipts(told: Any, receipts: list[Any]) -> Any:
    if isinstance(told, list):
        return [_without_receipts(one, receipts) for one in told]
    if not isinstance(told, Mapping):
        return told
    receipts += [told["receipt"]] if "receipt" in told else []
    rest = {key: value for key, value in told.items() if key != "receipt"}
    return {key: _without_receipts(value, receipts) for key, value in rest.items()}


def _cells(url: str) -> Iterator[tuple[str, str, bytes]]:
    """Every column of every table of the ledger."""
    with psycopg.connect(url.replace("+psycopg", "")) as ledger:
        tables = ledger.execute(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = 'public' ORDER BY 1, 2"
        ).fetchall()
        for table, column in tables:
            held = io.StringIO()
            for (value,) in ledger.execute(f'SELECT "{column}"::text FROM "{table}"'):  # type: ignore[call-overload]  # noqa: S608
                held.write(f"{value}\n")
            yield table, column, held.getvalue().encode()
