"""The receiver as a process: killed in the middle, started again, and how much it carries."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydicom import Dataset
from sqlalchemy import update

from ich_node.database import InstanceRow, open_database
from ich_node.receive.spool import file_head
from tests.ct_series import ct_slice
from tests.integration.receiving import (
    CT,
    association,
    data_set_of,
    encoded,
    files_in,
    running,
    send,
    sha256,
    store_bytes,
)
from tests.running import NodeProcesses, settings, wait_for
from tests.unit.queueing import rows

CANARY = "Canary^Jane"


def big_slice(number: int, **changes: object) -> Dataset:
    pixels = bytes([number % 256, 0]) * (512 * 512)
    return ct_slice(number, Rows=512, Columns=512, PixelData=pixels, **changes)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcesses]:
    with NodeProcesses(tmp_path, settings(tmp_path / "state", tmp_path), roles=("receive",)) as node:
        yield node


def test_a_role_starts_in_an_empty_folder_that_was_made_by_hand(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    with NodeProcesses(tmp_path, settings(tmp_path / "state", tmp_path), roles=("receive",)):
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def stored_hashes(node: NodeProcesses) -> list[str]:
    return sorted(sha256(data_set_of(path)) for path in files_in(node.config.state_directory))


def rows_of(node: NodeProcesses) -> list[tuple[str, str]]:
    database = open_database(node.config.database_url)
    found = sorted((row.sop_instance_uid, row.sha256) for row in rows(database, InstanceRow))
    database.close()
    return found


@pytest.mark.parametrize(
    "answers", [pytest.param(1, marks=pytest.mark.slow), 11, pytest.param(23, marks=pytest.mark.slow)]
)
def test_a_receiver_killed_in_the_middle_of_a_series_has_what_it_answered(node: NodeProcesses, answers: int) -> None:
    slices = [big_slice(number) for number in range(1, 31)]
    hashes = {str(ds.SOPInstanceUID): sha256(encoded(ds)) for ds in slices}
    answered: list[str] = []

    def transfer() -> None:
        with association(node.port) as to:
            for ds in slices:
                if store_bytes(to, encoded(ds), instance_uid=ds.SOPInstanceUID) != 0:
                    return
                answered.append(str(ds.SOPInstanceUID))

    sender = threading.Thread(target=transfer)
    sender.start()
    wait_for(lambda: len(answered) >= answers, "some slices are answered")
    node.kill("receive")
    sender.join(60)
    assert answers <= len(answered) < 30
    kept = {sha256(data_set_of(path)) for path in files_in(node.config.state_directory) if path.suffix == ".dcm"}
    assert {hashes[uid] for uid in answered} <= kept

    node.restart("receive")
    assert set(rows_of(node)) >= {(uid, hashes[uid]) for uid in answered}
    assert set(send(node.port, *slices)) == {0}
    assert rows_of(node) == sorted(hashes.items())
    assert stored_hashes(node) == sorted(hashes.values())


def test_a_file_that_a_crash_left_without_a_row_is_adopted_and_a_half_written_one_goes(tmp_path: Path) -> None:
    ds = ct_slice(1)
    with running(tmp_path):
        pass
    head = file_head(CT, ds.SOPInstanceUID, "1.2.840.10008.1.2.1", "CT1")
    (tmp_path / "spool/ab/orphan.dcm").write_bytes(head + encoded(ds))
    (tmp_path / "spool/ab/half.part").write_bytes(head)
    with running(tmp_path) as node:
        assert [path.name for path in node.files()] == ["orphan.dcm"]
        (row,) = node.instances()
        assert (row.sop_instance_uid, row.path, row.state) == (ds.SOPInstanceUID, "spool/ab/orphan.dcm", "RECEIVED")
        assert send(node.port, ds) == [0]
        assert len(node.files()) == len(node.instances()) == 1


def test_a_file_without_a_row_of_an_object_that_was_sent_again_goes(tmp_path: Path) -> None:
    ds = ct_slice(1)
    with running(tmp_path) as node:
        send(node.port, ds)
    head = file_head(CT, ds.SOPInstanceUID, "1.2.840.10008.1.2.1", "CT1")
    (tmp_path / "spool/ab/orphan.dcm").write_bytes(head + encoded(ds))
    with running(tmp_path) as node:
        assert len(node.files()) == len(node.instances()) == 1


def test_a_file_whose_deletion_a_power_cut_took_back_goes_and_does_not_stay_for_another_term(tmp_path: Path) -> None:
    with running(tmp_path) as node:
        send(node.port, ct_slice(1))
        with node.database.writing() as connection:  # forgotten and noted as deleted; the unlinking was never synced
            connection.execute(update(InstanceRow).values(path=None))
    with running(tmp_path) as node:
        assert node.files() == []
        assert [one.path for one in node.instances()] == [None]


def test_two_hundred_images_fit_into_two_hundred_mebibytes(node: NodeProcesses) -> None:
    process = psutil.Process(node.processes["receive"].pid)
    threads = [
        threading.Thread(target=lambda start=start: send(node.port, *map(big_slice, range(start, start + 50))))
        for start in (0, 50, 100, 150)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows_of(node)) == 200
    assert process.memory_info().rss < 200 * 2**20


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # pydicom's, on our side
def test_no_patient_data_reaches_the_log(node: NodeProcesses) -> None:
    odd = {
        "PatientName": f"{CANARY}\\{CANARY}", "PatientID": CANARY, "PatientBirthDate": CANARY, "StudyDate": CANARY,
        "Modality": CANARY, "SpecificCharacterSet": CANARY, "StudyDescription": CANARY * 20,
    }  # fmt: skip
    ds = ct_slice(1, **odd)
    whole = encoded(ds)
    with association(node.port) as to:
        assert store_bytes(to, whole) == 0
        for content in (whole[:-50], whole[:400], encoded(ct_slice(1, **odd, SOPInstanceUID=CANARY))):
            assert store_bytes(to, content) in (0xA900, 0xC000)
        assert store_bytes(to, whole, instance_uid=CANARY) == 0xA900
    node.processes["receive"].terminate()
    assert node.processes["receive"].wait(30) == 0
    text = node.log("receive").read_text()
    assert CANARY.split("^")[0] not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert {"receiver ready", "object received", "object refused"} <= {line["event"] for line in lines}


def test_the_process_loads_no_network_library(node: NodeProcesses) -> None:
    mapped = {Path(one.path).name for one in psutil.Process(node.processes["receive"].pid).memory_maps()}
    assert not [name for name in mapped if name.startswith(("libtorch", "libopenvino", "libc10"))]
