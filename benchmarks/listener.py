"""Milliseconds for an instance of CT (512x512) by C-STORE, answered when it is safe on disk.

    python benchmarks/listener.py [--images 200] [--senders 1 4] [--folder .] [--json listener.json]

The listener runs in a process of its own, senders are dcmtk's storescu; what the disk needs for a
write that survives a power cut (fsync) is measured beside it, because every instance waits for one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from rich.console import Console
from table import show, write_json

from service import wiring
from service.listener import listening
from service.observability import configure_logging
from service.settings import Settings

ROOT = "1.2.826.0.1.3680043.8.498.88"
STORESCU = "/usr/bin/storescu"
SIDE = 512


def main() -> None:
    options = arguments()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, Console().status("measuring"):
        root = Path(folder)
        fsync_ms = disk_ms(root)
        for senders in options.senders:
            rows.append(measure(root / str(senders), senders, options.images))
    title = f"C-STORE of {SIDE}x{SIDE} CT; the disk's fsync takes {fsync_ms:.1f} ms"
    show(
        title,
        ["senders", "images", "ms per image and sender", "images per second"],
        [
            [
                str(row["senders"]),
                str(row["images"]),
                f"{row['ms']:.1f}",
                f"{row['per_second']:.0f}",
            ]
            for row in rows
        ],
    )
    write_json(options.json, {"title": title, "fsync_ms": fsync_ms, "rows": rows})


def measure(folder: Path, senders: int, images: int) -> dict[str, Any]:
    studies = [series(folder / f"in{number}", number, images) for number in range(senders)]
    with listener(folder / "state") as port, ThreadPoolExecutor(senders) as pool:
        start = time.perf_counter()
        list(pool.map(lambda files: send(port, files), studies))
        seconds = time.perf_counter() - start
    return {
        "senders": senders,
        "images": images,
        "ms": seconds / images * 1000,
        "per_second": senders * images / seconds,
    }


@contextmanager
def listener(state: Path) -> Iterator[int]:
    """In a process of its own, as ``aqcf listen`` but without a queue."""
    command = [sys.executable, __file__, "--listen", str(state)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline() if process.stdout else 0)
    finally:
        process.terminate()
        process.wait()


def listen(state: Path) -> None:
    configure_logging("error")
    settings = Settings(state_dir=state, listen_port=0, quiet_s=600.0, min_free_bytes=0)
    with listening(wiring.build(settings)) as (_, port):
        print(port, flush=True)
        time.sleep(3600)


def send(port: int, files: Sequence[Path]) -> None:
    where = ["127.0.0.1", str(port)]
    command = [STORESCU, "-R", "-aec", "AQCF", *where, *map(str, files)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"TCP_NODELAY": "1"})


def series(folder: Path, number: int, images: int) -> list[Path]:
    """A study of random pixels: nothing on the way can be cheap because they repeat."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(number).integers(-1000, 1000, (SIDE, SIDE), np.int16)
    return [write(folder, pixels, number, index) for index in range(images)]


def write(folder: Path, pixels: np.ndarray[Any, Any], number: int, index: int) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"{ROOT}.{number}.1.{index}"
    dataset.StudyInstanceUID = f"{ROOT}.{number}"
    dataset.SeriesInstanceUID = f"{ROOT}.{number}.1"
    dataset.Modality = "CT"
    dataset.Rows = dataset.Columns = SIDE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.PixelData = pixels.tobytes()
    path = folder / f"{index:05d}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def disk_ms(folder: Path, rounds: int = 30) -> float:
    """Of a new file of an image's size."""
    data, seconds = bytes(2 * SIDE * SIDE), []
    for number in range(rounds):
        start = time.perf_counter()
        with (folder / f"probe{number}").open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        seconds.append(time.perf_counter() - start)
    return median(seconds) * 1000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--senders", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure")
    parser.add_argument("--json", type=Path, default=Path("listener.json"))
    parser.add_argument("--listen", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.listen is not None:
        listen(options.listen)
    return options


if __name__ == "__main__":
    main()
