"""What is done to a deployment with canaries: every way in, every refusal, every failure."""

import gzip
import io
import os
import subprocess
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from canary import DATES, ROOT, SENT, plant, study_uid
from canary_scene import ADMIN_KEY, Scene
from dimse_senders import associated
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import build_context
from roles import COMMAND, QUICK
from servers import OrthancServer, wait_until
from typer.testing import CliRunner

from service.cli import app

RELATED = 'multipart/related; type="application/dicom"; boundary=EDGE'
PULLED, RULED = 801, 802
JOBS, ZIP = "/v1/segmentations", {"Content-Type": "application/zip"}
RESULTS = ("seg", "sr", "capture", "seg?form=labelmap")
BESIDE = ("mask.nii.gz", "image.nii.gz", "measurements", "preview.png", "slices", "slices/3.png",
          "slices/3.png?plane=coronal&overlay=false", "deliveries", "events")  # fmt: skip


def zipped(files: list[Path], name: str = "{}") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, file in enumerate(files):
            inside = name.format(
                f"{SENT['name in a zip']}/{DATES['PatientBirthDate']}-{number}.dcm"
            )
            archive.writestr(inside, file.read_bytes())
    return packed.getvalue()


def nifti(made: Any, folder: Path) -> bytes:
    """With words in every text field, and gzip's own name field."""
    file = made.nifti(folder / "image.nii")
    content = bytearray(file.read_bytes())
    content[148 : 148 + 15] = SENT["nifti description"].encode()
    content[228 : 228 + 13] = SENT["nifti file"].encode()
    packed = io.BytesIO()
    with gzip.GzipFile(f"{SENT['gzip name']}.nii", "wb", fileobj=packed) as stream:
        stream.write(content)
    return packed.getvalue()


class Series:
    """Series full of canaries; each with UIDs and pixels of its own."""

    def __init__(self, made: Any, folder: Path) -> None:
        self._made, self._folder = made, folder
        self.studies = 0

    def write(
        self,
        names: str = "latin",
        modality: str = "CT",
        shape: tuple[int, int, int] = (12, 40, 40),
        edit: Callable[[Dataset, int], None] = lambda _dataset, _index: None,
    ) -> list[Path]:
        self.studies += 1
        planting = plant(self.studies, 1, names)

        def both(dataset: Dataset, index: int) -> None:
            planting(dataset, index)
            edit(dataset, index)

        array = self._made.phantom(shape, seed=self.studies)
        folder = self._folder / SENT["folder"] / str(self.studies)
        files: list[Path] = self._made.series(folder, array, modality=modality, edit=both)
        return files


def broken_pixels(dataset: Dataset, index: int) -> None:
    """The headers are fine, the codec is not."""
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51" + SENT["body"].encode() * 40])
    dataset["PixelData"].is_undefined_length = True


# --- what is done to the deployment ---


def submitted(scene: Scene, series: Series, made: Any) -> dict[str, str]:
    """Jobs of every kind, while there is no worker; ids by what will become of them."""
    key = {"Idempotency-Key": SENT["idempotency key"]}
    everywhere = {"destination": ["archive", "mocking", "refusing", "gone"]}
    content = zipped(series.write("japanese"))
    jobs = {"delivered": scene.submit(content, params=everywhere, headers=key)}
    scene.submit(content, headers=key)
    parts = [
        ("files", (f"{SENT['name of a part']}-{n}.dcm", file.read_bytes(), "application/dicom"))
        for n, file in enumerate(series.write("cyrillic", "MR"))
    ]
    answer = scene.ask("POST", f"{JOBS}?modality=mr", files=parts)
    jobs["multipart"] = str(answer.json()["id"])
    name = {"Content-Disposition": f"attachment; filename={SENT['name of a part']}.nii.gz"}
    jobs["nifti"] = scene.submit(nifti(made, scene.folder), headers=name)
    jobs["cancelled"] = scene.submit(zipped(series.write("utf-8")))
    jobs["broken"] = scene.submit(zipped(series.write(edit=broken_pixels)))
    jobs["deleted"] = scene.submit(zipped(series.write()))
    scene.ask("POST", f"{JOBS}/{jobs['cancelled']}/cancel")
    scene.evidence.add("Redis", scene.broker.content())
    return jobs


def refused(scene: Scene, series: Series) -> None:
    """Everything that is wrong with an upload or a request, each with names in it."""
    files = series.write()
    good = zipped(files)
    for content, params in _bad_uploads(scene, series, files):
        scene.ask("POST", JOBS, params=params, content=content, headers=ZIP)
    _bad_bodies(scene)
    _bad_paths(scene)
    _bad_callers(scene, good)
    _bad_pulls(scene)


def _bad_uploads(
    scene: Scene, series: Series, files: list[Path]
) -> Iterator[tuple[bytes, dict[str, str]]]:
    good, word, ct = zipped(files), SENT["query"], {"modality": "ct"}
    cut, nested = scene.folder / "cut", scene.folder / "nested"
    cut.write_bytes(files[-1].read_bytes()[:-900])
    nested.write_bytes(good)
    yield zipped([*files[:-1], cut]), ct
    yield zipped(files[:2]), ct
    yield zipped(files[:6] + series.write("utf-8", "MR")[:2]), {"modality": "mr"}
    yield zipped(files, "../{}"), ct
    yield zipped([nested], "{}.zip"), ct
    yield zipped([scene.folder / "site.yaml"]), ct
    yield good[: len(good) // 2], ct
    yield SENT["body"].encode(), ct
    yield b"", ct
    yield good, {"modality": "mr"}
    yield good, {"modality": word}
    yield good, {**ct, "destination": word[:16]}
    for name in ("series", "model", "profile", "priority"):
        yield good, {**ct, name: word}


def _bad_bodies(scene: Scene) -> None:
    who, path = SENT["path"], f"{JOBS}?modality=ct"
    scene.ask("POST", path, files={SENT["name of a field"]: (who, b"x")})
    for kind in (f"text/{who}", f"multipart/form-data; name={who}",
                 f"multipart/form-data; boundary={who}"):  # fmt: skip
        scene.ask("POST", path, content=b"--x", headers={"Content-Type": kind})
    scene.ask("POST", path, headers={"Idempotency-Key": f"{who} {SENT['query']}"})


def _bad_paths(scene: Scene) -> None:
    word, who = SENT["query"], SENT["path"]
    for params in ({"status": word, "limit": word}, {"cursor": word}):
        scene.ask("GET", JOBS, params=params)
    scene.ask("GET", "/v1/audit", params={"since": word, "actor": word, "segmentation": word})
    scene.ask("GET", "/v1/arrivals", params={"state": word, "sender": word, "cursor": word})
    for path in (f"/{who}", f"{JOBS}/{who}", f"{JOBS}/{who}/seg", f"{JOBS}/{ROOT}/events",
                 f"/v1/pulls/{who}", f"/web/{who}", f"/v1/deliveries/{who}/retry"):  # fmt: skip
        scene.ask("GET", path)
        scene.ask(SENT["method"], path)


def _bad_callers(scene: Scene, good: bytes) -> None:
    """And one with a token that may read and nothing else."""
    word, host = SENT["query"], SENT["host"]
    keys = (f"Basic {word}", f"Bearer {word}", f"Bearer {ADMIN_KEY}x",
            f"Bearer {scene.token}x", f"Bearer {scene.token}")  # fmt: skip
    for headers in ({"Host": host}, {"Origin": f"http://{host}"},
                    *({"Authorization": key} for key in keys)):  # fmt: skip
        scene.ask("POST", f"{JOBS}?modality=ct", content=good, headers=headers)
        scene.ask("GET", JOBS, headers=headers)


def _bad_pulls(scene: Scene) -> None:
    word, who = SENT["query"], SENT["path"]
    asked = {"study_instance_uid": study_uid(1), "node": "pacs", "modality": "ct"}
    for changes in ({"node": who}, {"destinations": [who]}, {"model": who}, {who: word},
                    {"study_instance_uid": f"{study_uid(1)}.{word}"},
                    {"node": {who: word}}):  # fmt: skip
        scene.ask("POST", "/v1/pulls", json=asked | changes)
    scene.ask("POST", "/v1/pulls", content=f"{{{who}".encode())


def sent_by_network(scene: Scene, series: Series, pacs: OrthancServer) -> None:
    """C-STORE of the PACS and of a stranger, STOW-RS, and what is wrong with each."""
    pacs.load(series.write("japanese"))
    listener = int(scene.deployment.environment["AQCF_LISTEN_PORT"])
    pacs.know("AQCF", listener)
    with pacs.http() as http:
        found = http.get("/series").raise_for_status().json()
        body = {"Resources": found, "Synchronous": True}
        http.post("/modalities/AQCF/store", json=body).raise_for_status()
    strange = Dataset()
    strange.SOPClassUID, strange.SOPInstanceUID = CTImageStorage, f"{ROOT}.8"
    strange.PatientName = "Zwitscherbein^Klothildegunde"
    contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
    with associated(listener, contexts) as made:
        strange.file_meta = dcmread(series.write()[0]).file_meta
        made.send_c_store(strange)
    with associated(listener, contexts, title="FALSCH"):
        pass
    _stow(scene, series)


def _stow(scene: Scene, series: Series) -> None:
    files = [file.read_bytes() for file in series.write("utf-8")]
    path, own = "/dicomweb/studies", study_uid(series.studies)
    for place, body in (
        (f"{path}/{own}", related(files)),
        (f"{path}/{own}.1", related(files[:2])),
        (path, related([SENT["body"].encode() * 9])),
        (path, related(files[:1])[:-40]),
        (f"{path}/{SENT['path']}", related(files[:1])),
    ):
        scene.ask("POST", place, "STOW answer", content=body, headers={"Content-Type": RELATED},
                  params={"note": SENT["query"]})  # fmt: skip


def related(files: Iterable[bytes]) -> bytes:
    head = f"--EDGE\r\nContent-Type: application/dicom\r\nX-Note: {SENT['body']}\r\n\r\n"
    return b"".join(head.encode() + one + b"\r\n" for one in files) + b"--EDGE--\r\n"


def pulled(scene: Scene, made: Any, pacs: OrthancServer) -> None:
    """Studies of the PACS, by modality and by rules, and of nodes that are good for nothing."""
    for study, names in ((PULLED, "cyrillic"), (RULED, "utf-8")):
        edit, array = plant(study, 1, names), made.phantom((12, 40, 40), seed=study)
        pacs.load(made.series(scene.folder / "pulled" / str(study), array, edit=edit))
    for node, study, how in (
        ("pacs", PULLED, {"modality": "ct"}),
        ("pacs", RULED, {"rules": True}),
        ("pacs", 900, {"modality": "ct"}),
        ("mocking", 901, {"modality": "ct"}),
        ("mocking", 902, {"rules": True}),
        ("mocking", 903, {"modality": "ct"}),
        ("gone", 904, {"modality": "ct"}),
        ("refusing", 905, {"modality": "ct"}),
    ):
        asked = {"study_instance_uid": study_uid(study), "node": node, **how}
        answer = scene.ask("POST", "/v1/pulls", json=asked)
        path = answer.headers["Location"]
        wait_until(lambda one=path: settled(scene, one), "a pull is not tried", 60)  # type: ignore[misc]
        scene.ask("GET", path)


def settled(scene: Scene, path: str) -> bool:
    found = scene.look(path)
    return found["state"] in ("done", "failed") or found["code"] is not None


def looked_at(scene: Scene, jobs: dict[str, str]) -> None:
    """Every result of every kind, and every list."""
    for job_id in (jobs["delivered"], jobs["nifti"]):
        for name in RESULTS:
            scene.ask("GET", f"{JOBS}/{job_id}/{name}", "result")
        for name in BESIDE:
            scene.ask("GET", f"{JOBS}/{job_id}/{name}")
    for path in (JOBS, "/v1/arrivals", "/v1/audit?limit=1000", "/v1/models", "/readyz", "/healthz",
                 "/", "/openapi.json"):  # fmt: skip
        scene.ask("GET", path)
    scene.ask("DELETE", f"{JOBS}/{jobs['deleted']}")


def delivered(scene: Scene, job_id: str) -> None:
    """Until each destination has answered, and the good one has everything."""

    def tried() -> bool:
        found = scene.look(f"{JOBS}/{job_id}/deliveries")["items"]
        states = {one["destination"]: (one["state"], one["code"]) for one in found}
        good = states.pop("archive")[0] == "delivered"
        return good and all(code is not None for _, code in states.values())

    wait_until(tried, "a delivery is not tried", 90)
    for one in scene.ask("GET", f"{JOBS}/{job_id}/deliveries").json()["items"]:
        scene.ask("POST", f"/v1/deliveries/{one['id']}/retry")


def typed(scene: Scene, series: Series) -> None:
    """Commands of an administrator and of a user."""
    files = [str(file) for file in series.write("japanese")]
    folder, site = str(Path(files[0]).parent), str(scene.folder / "site.yaml")
    cut = str(scene.folder / "cut")
    environment = {**QUICK, **scene.deployment.environment, "COLUMNS": "300"}
    of_node = ("rules", "test", "--node")
    for what, *words in (
        ("audit", "audit", "export"),
        ("audit", "audit", "export", "--format", "jsonl"),
        ("deliveries", "deliveries", "list"),
        ("deliveries", "deliveries", "retry", "--destination", "mocking"),
        ("keys", "keys", "list"),
        ("site", "site", "check", site, "--connect"),
        ("rules", "rules", "test", "--study", folder),
        ("rules", "rules", "test", "--study", folder, "--json"),
        ("rules", *of_node, "pacs", "--date", DATES["StudyDate"]),
        ("rules", *of_node, "pacs", "--study-uid", study_uid(1), "--json"),
        *(("rules", *of_node, "mocking", "--study-uid", study_uid(n)) for n in (901, 902, 903)),
        ("segment", "segment", folder, "--modality", "ct"),
        ("segment", "segment", folder, "--modality", "mr"),
        ("segment", "segment", *files[:2], "--modality", "ct"),
        ("segment", "segment", *files[:-1], cut, "--modality", "ct"),
        ("segment", "segment", str(scene.folder / "image.nii"), "--modality", "ct"),
    ):
        out = ("--out", str(scene.folder / "out")) if what == "segment" else ()
        done = CliRunner(env=environment).invoke(app, [*words, *out])
        scene.evidence.add(f"terminal of {what}", done.stdout, done.stderr)
    whole = [*COMMAND, "segment", folder, "--modality", "mr", "--out", str(scene.folder / "out")]
    process = subprocess.run(whole, capture_output=True, check=False, env=os.environ | environment)
    scene.evidence.add("terminal of segment", process.stdout, process.stderr)


def alone(scene: Scene, series: Series) -> None:
    """An upload that is segmented, and one that is refused, by the service in one process."""
    url = f"http://127.0.0.1:{scene.second_port}/v1/segmentations"
    content, headers = zipped(series.write("japanese")), {**ZIP, "Prefer": "wait=60"}
    for modality in ("ct", "mr"):
        scene.ask("POST", url, params={"modality": modality}, content=content, headers=headers)


def broken_off(scene: Scene, series: Series, job_id: str) -> None:
    """The store, the ledger and Redis go away, each for a moment."""
    content = zipped(series.write("japanese"))

    def try_all() -> None:
        scene.ask("POST", f"{JOBS}?modality=ct", content=content, headers=ZIP)
        scene.ask("GET", f"{JOBS}/{job_id}/sr", "result")
        scene.ask("GET", "/readyz")

    scene.store.kill()
    try_all()
    scene.store.start()
    scene.postgres.stop()
    try_all()
    scene.postgres.start()
    scene.broker.kill()
    try_all()
    scene.broker.start()
