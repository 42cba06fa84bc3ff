"""Orthanc says how many instances a series has, by which the node closes it, and which studies a patient had before."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from pydicom.uid import generate_uid
from sqlalchemy import update

from ich_node.association import Patience
from ich_node.config import parse_config
from ich_node.database import SeriesRow
from ich_node.pacs import send_study
from ich_node.pacs_askers import CountAsker
from ich_node.phantom import PhantomSettings, write_series
from ich_node.query_retrieve import count_instances, find_earlier_studies, read_study_of_patient
from ich_node.records import Destination, EarlierStudies
from tests.orthanc import Orthanc
from tests.running import settings
from tests.unit.queueing import open_queue, receive, received, rows


@pytest.fixture
def archive(orthanc: Orthanc | None) -> Destination:
    if orthanc is None:
        pytest.skip("Orthanc is not installed")
    return Destination("query", "PACS", "127.0.0.1", orthanc.dicom_port)


def test_orthanc_counts_the_instances_of_a_series(archive: Destination, tmp_path: Path) -> None:
    study, series = generate_uid(), generate_uid()
    drawn = PhantomSettings(slices=5, rows=32, study_instance_uid=study, series_instance_uid=series)
    other = replace(drawn, slices=2, series_instance_uid=generate_uid())

    def count(series_instance_uid: str = series) -> int | None:
        return count_instances(archive, "ICH_NODE", study, series_instance_uid, Patience())

    assert count() is None
    paths = write_series(tmp_path / "series", drawn)
    send_study(paths[:3], archive.host, archive.port, archive.ae_title)
    assert count() == 3
    send_study([*paths[3:], *write_series(tmp_path / "other", other)], archive.host, archive.port, archive.ae_title)
    assert count() == 5
    assert count(generate_uid()) is None


@pytest.mark.parametrize(("held", "expected", "due"), [(12, 12, True), (15, 15, False)])
def test_a_series_is_due_when_orthanc_holds_no_more_than_came_here(
    archive: Destination, tmp_path: Path, held: int, expected: int, due: bool
) -> None:
    study, series = generate_uid(), generate_uid()
    drawn = PhantomSettings(slices=held, rows=32, study_instance_uid=study, series_instance_uid=series)
    send_study(write_series(tmp_path / "series", drawn), archive.host, archive.port, archive.ae_title)
    queue = open_queue(tmp_path)
    uids = {"study_instance_uid": study, "series_instance_uid": series}
    receive(queue, *(received(number, **uids) for number in range(1, 13)))
    with queue.writing() as connection:
        connection.execute(update(SeriesRow).values(last_received_at=time.time() - 1.0))
    assert CountAsker(parse_config(settings(tmp_path, Path("no-model"))), queue, archive).step()
    (row,) = rows(queue, SeriesRow)
    queue.close()
    assert row.expected_instances == expected
    assert (row.due_at <= time.time()) is due


def test_orthanc_says_which_ct_studies_a_patient_had_before(archive: Destination, tmp_path: Path) -> None:
    mine = f"P{time.time_ns()}"

    def send(patient_id: str, day: int) -> Path:
        drawn = PhantomSettings(
            slices=1, rows=32, patient_id=patient_id, study_instance_uid=generate_uid(),
            acquired_at=datetime(2026, 3, day, 12).astimezone(),
        )  # fmt: skip
        (image,) = write_series(tmp_path / str(generate_uid()), drawn)
        send_study([image], archive.host, archive.port, archive.ae_title)
        return image

    def earlier(image: Path) -> EarlierStudies | None:
        study = read_study_of_patient(image)
        assert study is not None
        return find_earlier_studies(archive, "ICH_NODE", study, Patience())

    first, second, third = (send(mine, day) for day in (1, 2, 3))
    send(f"{mine}9", 1)
    assert earlier(first) == EarlierStudies(0)
    assert earlier(second) == EarlierStudies(1, "20260301")
    assert earlier(third) == EarlierStudies(2, "20260302")
