"""Coverage-guided runs of ``fuzz_targets``: a program that loads our modules with counters in
their bytecode once, and forks a libFuzzer for each target.

``python fuzz_harness.py SECONDS SIDE_BY_SIDE FOLDER TARGET...``: below FOLDER each target has its
``corpus``, its ``words``, and afterwards its ``log`` and the inputs that it failed on. ``fast`` is
for scratch.
"""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import atheris

COUNTED = ["service", "model", "fuzz_targets", "pydicom", "python_multipart", "yaml"]
TABLES = ["pydicom._dicom_dict", "pydicom._private_dict", "pydicom._uid_dict",
          "pydicom.sr._snomed_dict", "pydicom.sr._concepts_dict", "pydicom.sr._cid_dict",
          "pydicom.sr.codedict", "pydicom.sr.coding", "pydicom.filewriter", "pydicom.examples",
          "pydicom.pixels.processing", "pydicom.pixels.encoders.base",
          "pydicom.pixel_data_handlers.rle_handler", "pydicom.waveforms.numpy_handler",
          "yaml.emitter", "yaml.representer", "service.storage.tables"]  # fmt: skip
"""Counting these takes long and tells nothing."""
INPUT_S, INPUT_MIB, INPUT_BYTES = 10, 2048, 16384

with atheris.instrument_imports(include=COUNTED, exclude=TABLES):
    import fuzz_targets


def main(seconds: int, side_by_side: int, folder: Path, names: Sequence[str]) -> None:
    """One process for each target, so many at a time."""
    waiting, running = list(names), set[int]()
    while waiting or running:
        while waiting and len(running) < side_by_side:
            running.add(_fork(waiting.pop(0), seconds, folder))
        pid, status = os.wait()
        running.discard(pid)
        (folder / f"{pid}.status").write_text(f"{os.waitstatus_to_exitcode(status)}\n")


def _fork(name: str, seconds: int, folder: Path) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            _fuzz(name, seconds, folder / name)
        finally:
            os._exit(1)
    return pid


def _fuzz(name: str, seconds: int, folder: Path) -> None:
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    work = Path(tempfile.mkdtemp(dir=folder.parent / "fast"))
    arguments = [
        f"-max_total_time={seconds}", f"-timeout={INPUT_S}", f"-rss_limit_mb={INPUT_MIB}",
        f"-max_len={INPUT_BYTES}", f"-dict={folder / 'words'}",
        f"-artifact_prefix={folder}/failed-", "-print_final_stats=1", "-seed=20260101",
        str(folder / "corpus"),
    ]  # fmt: skip
    atheris.Setup([name, *arguments], fuzz_targets.once(name, work))
    atheris.Fuzz()


if __name__ == "__main__":
    _, given_seconds, given_number, given_folder, *given_names = sys.argv
    main(int(given_seconds), int(given_number), Path(given_folder), given_names)
