"""Orthanc says how many instances of a series it holds, and the node closes the series by it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.uid import generate_uid
from sqlalchemy import update

from ich_node.association import Patience
from ich_node.config import parse_config
from ich_node.database import SeriesRow
from ich_node.deliverer import Asker
from ich_node.pacs import send_study
from ich_node.phantom import PhantomSettings, write_series
from ich_node.query_retrieve import count_instances
from ich_node.records import Destination
from tests.acceptance.conftest import Orthanc
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
    assert Asker(parse_config(settings(tmp_path, Path("no-model"))), queue, archive).step()
    (row,) = rows(queue, SeriesRow)
    queue.close()
    assert row.expected_instances == expected
    assert (row.due_at <= time.time()) is due
