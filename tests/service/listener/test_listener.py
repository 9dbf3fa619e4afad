"""Senders against the real listener: what is taken, and in which encodings."""

import io
import logging
import socket
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_phantoms import Grid, Recipe, body, write_enhanced
from dicom_phantoms import write_series as write_phantom
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import build_context, build_role
from servers import wait_until

from service.dicom.series import scan
from service.domain import ArrivalState, Origin
from service.listener import IMAGE_SYNTAXES, is_storage
from service.observability import configure_logging

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
OTHERS = {
    "a private class": "1.3.12.2.1107.5.9.1",
    "a report": "1.2.840.10008.5.1.4.1.1.88.22",
    "a presentation state": "1.2.840.10008.5.1.4.1.1.11.1",
    "a segmentation": "1.2.840.10008.5.1.4.1.1.66.4",
    "a dose": "1.2.840.10008.5.1.4.1.1.481.2",
}
ENCODINGS = {
    "-x=": ExplicitVRLittleEndian,
    "-xi": ImplicitVRLittleEndian,
    "-xb": ExplicitVRBigEndian,
    "-xd": DeflatedExplicitVRLittleEndian,
    "-xr": RLELossless,
}
IMAGES = (CT, f"{CT}.1", f"{CT}.2", MR, f"{MR}.1", f"{MR}.3", f"{MR}.4")


def inputs(listener: Any, number: int = 0) -> list[Path]:
    job = listener.jobs()[number]
    return list(listener.container.artifacts.input_files(job.input_key))


def test_echo(listener: Any) -> None:
    assert listener.dcmtk("echoscu").returncode == 0


def test_a_series_of_dcmtk_becomes_a_job(listener: Any) -> None:
    files = listener.series()
    listener.store(files, "-aet", "SCANNER")
    listener.wait_for(1)
    (arrival,) = listener.arrivals()
    assert (arrival.origin, arrival.caller) == (Origin.DIMSE, "SCANNER")
    assert arrival.instances == len(files)
    sent = sorted(dcmread(file).PixelData for file in files)
    assert sorted(dcmread(file).PixelData for file in inputs(listener)) == sent
    assert listener.stored() == 0


@pytest.mark.parametrize("sop_class", IMAGES)
def test_images_are_taken_in_every_syntax_that_is_decoded(listener: Any, sop_class: str) -> None:
    contexts = [build_context(sop_class, syntax) for syntax in IMAGE_SYNTAXES]
    contexts.append(build_context(sop_class, "1.2.840.10008.1.2.4.94"))  # pixels elsewhere
    with listener.associated(contexts) as made:
        accepted = {context.transfer_syntax[0] for context in made.accepted_contexts}
    assert accepted == set(IMAGE_SYNTAXES)


def test_the_syntaxes_are_those_of_the_conformance_statement() -> None:
    page = (Path(__file__).parents[3] / "docs" / "conformance.md").read_text()
    table = page.partition("### Transfer syntaxes")[2].partition("\n### ")[0]
    for syntax in IMAGE_SYNTAXES:
        assert f".{syntax.rpartition('.')[2]}" in table, syntax


def test_encodings_arrive_as_they_are_sent(listener: Any, tmp_path: Path) -> None:
    """Each as a study of its own, so that none waits for another."""
    grid = Grid((6, 40, 48))
    for number, (option, syntax) in enumerate(ENCODINGS.items()):

        def place(dataset: Dataset, index: int, number: int = number) -> None:
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.3.{number}", f"1.4.{number}"
            dataset.SOPInstanceUID = f"1.5.{number}.{index}"

        folder = tmp_path / str(number)
        files = write_phantom(folder, body(grid), grid, Recipe(syntax=syntax, edit=place))
        listener.store(files, option)
    listener.wait_for(len(ENCODINGS))
    found = {}
    for number in range(len(ENCODINGS)):
        stored = inputs(listener, number)
        (syntax,) = {dcmread(file).file_meta.TransferSyntaxUID for file in stored}
        found[syntax] = [one.code for one in scan(stored, "ct").series]
    assert found == {syntax: [None] for syntax in ENCODINGS.values()}


def test_jpeg_ls(listener: Any, tmp_path: Path) -> None:
    files = []
    for file in listener.series():
        target = tmp_path / file.name
        subprocess.run(["/usr/bin/dcmcjpls", file, target], check=True, capture_output=True)
        files.append(target)
    listener.store(files, "-xt")
    listener.wait_for(1)
    stored = inputs(listener)
    assert {dcmread(file).file_meta.TransferSyntaxUID for file in stored} == {JPEGLSLossless}
    assert len(stored) == len(files)


def test_a_real_ct_in_jpeg_2000(listener: Any, tmp_path: Path, data_dir: Path) -> None:
    """Its headers name neither SOP class nor study nor series."""
    with zipfile.ZipFile(data_dir / "dicom" / "ct_totalsegmentator_20slices_j2k.zip") as packed:
        packed.extractall(tmp_path / "real")
    files = [file for file in (tmp_path / "real").rglob("*") if file.is_file()]
    with listener.associated([build_context(CT, JPEG2000Lossless)]) as made:
        for file in files:
            dataset = dcmread(file)
            dataset.SOPClassUID, dataset.SOPInstanceUID = CT, dataset.file_meta[0x20003].value
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
            assert made.send_c_store(dataset).Status == 0
    listener.wait_for(1)
    stored = inputs(listener)
    assert len(stored) == len(files)
    assert {dcmread(file).file_meta.TransferSyntaxUID for file in stored} == {JPEG2000Lossless}


def test_enhanced_multi_frame_instances(listener: Any, tmp_path: Path) -> None:
    grid = Grid((8, 40, 48))
    for number, modality in enumerate(("CT", "MR")):
        recipe = Recipe(modality, intercept=0, edit=in_study(f"1.3.{number}"))
        listener.store([write_enhanced(tmp_path / modality, [body(grid)], grid, recipe)])
    listener.wait_for(2)
    assert {job.modality for job in listener.jobs()} == {"ct", "mr"}


def in_study(study_uid: str) -> Callable[[Dataset, int], None]:
    def edit(dataset: Dataset, _index: int) -> None:
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, f"{study_uid}.1"
        dataset.SOPInstanceUID = f"{study_uid}.1.1"

    return edit


def test_what_lies_beside_the_images_is_taken_and_set_aside(listener: Any) -> None:
    file, *_ = listener.series()
    for number, sop_class in enumerate(OTHERS.values()):
        uids = {"SeriesInstanceUID": f"1.4.{number}", "SOPInstanceUID": f"1.5.{number}"}
        assert listener.status(file, SOPClassUID=sop_class, Modality="OT", **uids) == 0
    listener.wait_for(len(OTHERS), "set_aside")
    assert listener.jobs() == []


def test_what_is_no_storage_is_not_offered() -> None:
    assert is_storage(OTHERS["a private class"])
    assert not is_storage("1.2.840.10008.5.1.4.1.2.2.1")  # Study Root FIND


def test_two_studies_at_once_from_two_senders(listener: Any) -> None:
    studies = [listener.series(2, study=study, seed=study, slices=20) for study in (1, 2)]
    senders = [
        threading.Thread(target=listener.store, args=(files, "-aet", f"SCANNER{number}"))
        for number, files in enumerate(studies)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    listener.wait_for(2)
    assert len(listener.jobs()) == 2
    assert {one.instances for one in listener.arrivals()} == {20}
    assert {one.caller for one in listener.arrivals()} == {"SCANNER0", "SCANNER1"}


def test_two_interleaved_studies_in_one_association(listen: Callable[..., Any]) -> None:
    listener = listen(quiet_s=3.0)
    first = listener.series(2, study=1)
    second = listener.series(2, study=2, seed=1)
    mixed = [file for pair in zip(first, second, strict=True) for file in pair]
    listener.store(mixed)
    listener.wait_for(2)
    assert {one.instances for one in listener.arrivals()} == {12}


def test_a_study_is_not_judged_while_its_sender_is_there(listener: Any) -> None:
    files = listener.series()
    with listener.associated([build_context(CT, ExplicitVRLittleEndian)]) as made:
        for file in files[:6]:
            assert made.send_c_store(dcmread(file)).Status == 0
        time.sleep(2.5)  # three quiet times
        assert listener.jobs() == []
        for file in files[6:]:
            assert made.send_c_store(dcmread(file)).Status == 0
    listener.wait_for(1)
    assert len(inputs(listener)) == len(files)


def test_a_sender_that_breaks_off_and_comes_again_makes_one_series(
    listen: Callable[..., Any],
) -> None:
    listener = listen(quiet_s=3.0)
    files = listener.series()
    with listener.associated([build_context(CT, ExplicitVRLittleEndian)]) as made:
        for file in files[:5]:
            made.send_c_store(dcmread(file))
        made.abort()
    listener.store(files)
    listener.wait_for(1)
    assert len(inputs(listener)) == len(files)


def test_the_same_instance_twice_is_taken_twice_and_counted_once(listener: Any) -> None:
    files = listener.series()
    listener.store([*files, *files])
    listener.wait_for(1)
    assert listener.arrivals()[0].instances == len(files)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"SOPClassUID": MR}, 0xA900),
        ({"SOPInstanceUID": "1.2.3.4"}, 0xA900),
        ({"SeriesInstanceUID": ""}, 0xC000),
    ],
)
def test_what_is_not_what_was_said_is_refused(
    listener: Any, changes: dict[str, str], status: int
) -> None:
    file, *_ = listener.series()
    dataset = dcmread(file)
    with listener.associated([build_context(CT, ExplicitVRLittleEndian)]) as made:
        data = dataset
        original = dataset.SOPClassUID, dataset.SOPInstanceUID
        assert made.send_c_store(data).Status == 0
        answer = _store_as(made, dataset, original, changes)
    assert answer == status


def _store_as(made: Any, dataset: Any, said: tuple[str, str], changes: dict[str, str]) -> int:
    """Send a changed data set under the command of the original."""
    from pynetdicom.dimse_primitives import C_STORE  # noqa: PLC0415
    from pynetdicom.dsutils import encode  # noqa: PLC0415

    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = said
    request.Priority = 2
    request.DataSet = io.BytesIO(encode(dataset, False, True))
    context = made.accepted_contexts[0].context_id
    made._reactor_checkpoint.clear()
    while not made._is_paused:
        time.sleep(0.01)
    made.dimse.send_msg(request, context)
    _, answer = made.dimse.get_msg(block=True)
    made._reactor_checkpoint.set()
    status: int = answer.Status
    return status


def test_a_full_disk_says_so_and_takes_again_when_there_is_room(
    listen: Callable[..., Any], listener: Any
) -> None:
    full = listen(min_free_bytes=2**60)
    file, *_ = full.series()
    assert full.status(file) == 0xA700
    assert full.arrivals() == []
    assert listener.status(file) == 0
    incoming = full.container.settings.arrivals_dir / "incoming"
    wait_until(lambda: not list(incoming.iterdir()), "half an instance is left")


def test_an_instance_beyond_the_limit_is_refused(listen: Callable[..., Any]) -> None:
    small = listen(max_upload_bytes=2000)
    file, *_ = small.series()
    assert small.status(file) == 0xA700
    assert small.stored() == 0


def test_own_results_come_back_without_a_loop(listener: Any) -> None:
    from service import execute  # noqa: PLC0415
    from service.domain import ArtifactName  # noqa: PLC0415

    listener.store(listener.series(slices=24))
    listener.wait_for(1)
    (job,) = listener.jobs()
    execute.run(listener.container, job.id)
    listener.store([listener.container.artifacts.path(job.id, ArtifactName.SEG)])
    listener.wait_for(1, ArrivalState.SET_ASIDE)
    assert listener.arrivals()[-1].code == "own_result"
    assert len(listener.jobs()) == 1


def test_storage_commitment_is_heard(listener: Any) -> None:
    """As an archive reports it, on an association of its own."""
    deliveries = listener.container.deliveries
    deliveries.enqueue("0198f1d2-c0de-7a41-b6f0-a2c4e8d01357", ["archive"])
    claimed = deliveries.claim("archive", "sender")
    deliveries.await_commitment(claimed.id, "sender", "1.2.3.77")
    report = Dataset()
    report.TransactionUID = "1.2.3.77"
    model, instance = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
    archive = build_role(model, scp_role=True)
    with listener.associated([build_context(model)], roles=[archive]) as made:
        status, _ = made.send_n_event_report(report, 1, model, instance)
    assert status.Status == 0
    assert deliveries.require(claimed.id).committed is True


def test_garbage_and_silence_do_not_stop_it(listener: Any) -> None:
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\xff\xff\xff\xff" + bytes(100), b"\x04"):
        with socket.create_connection(("127.0.0.1", listener.port)) as connection:
            connection.sendall(garbage)
    silent = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(4)]
    assert listener.dcmtk("echoscu").returncode == 0
    for connection in silent:
        connection.close()


def test_a_large_data_set_is_not_held_in_memory(listener: Any, tmp_path: Path) -> None:
    grid = Grid((4, 40, 48))
    recipe = Recipe("MR", intercept=0)
    file = write_enhanced(tmp_path / "one", [body(grid)], grid, recipe)
    dataset = dcmread(file)
    dataset.PixelData = np.zeros(96 * 2**20, np.uint8).tobytes()
    dataset.save_as(file, enforce_file_format=True)
    peak = _memory_peak(lambda: listener.store([file]))
    assert peak < 40 * 2**20


def _memory_peak(work: Callable[[], object]) -> int:
    import tracemalloc  # noqa: PLC0415

    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_nothing_of_a_patient_is_logged(listener: Any) -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers, root.level
    configure_logging("debug", stream)
    try:
        files = listener.series()
        listener.store(files, "-aet", "SCANNER")
        listener.status(files[0], SOPInstanceUID="1.2.3.4", PatientName="Zwitscherbein")
        with listener.associated([build_context(CT)], calling="Zwitscherbein") as made:
            made.abort()
        listener.wait_for(1)
    finally:
        root.handlers, level = before
        root.setLevel(level)
    written = stream.getvalue()
    assert '"event": "association"' in written
    for secret in ("Zwitscherbein", "1.2.3", "Canary", "127.0.0.1"):
        assert secret not in written


def test_metrics(listener: Any) -> None:
    listener.store(listener.series())
    listener.wait_for(1)
    value = listener.container.metrics.registry.get_sample_value
    wait_until(
        lambda: value("aqcf_associations_total", {"outcome": "released"}) == 1, "not counted"
    )
    assert value("aqcf_instances_total", {"origin": "dimse"}) == 12
