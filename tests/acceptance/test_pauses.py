"""Pauses of five seconds, as real scanners make them: dcmtk's storescu sends to a running node."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import generate_uid
from pynetdicom import AE

from ich_node.pacs import SmallPacs
from ich_node.phantom import PhantomSettings, write_series
from ich_node.queries import StudyStatus
from tests.running import STORESCU, NodeProcesses, settings, storescu

PAUSE_S = 5.0
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not Path(STORESCU).exists(), reason="dcmtk's storescu is not installed"),
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallPacs]:
    with SmallPacs(tmp_path_factory.mktemp("pauses") / "pacs") as one:
        yield one


@pytest.fixture(scope="module")
def patient_node(
    tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, archive: SmallPacs
) -> Iterator[NodeProcesses]:
    """A node that waits as long as one does at a site."""
    folder = tmp_path_factory.mktemp("node")
    values = settings(
        folder / "state", tiny_bundle, destinations=[("pacs", archive.port)], series={"quiet_s": 3, "max_wait_s": 20}
    )
    with NodeProcesses(folder, values) as node:
        yield node


def head(folder: Path) -> tuple[str, list[Path]]:
    uid = str(generate_uid())
    return uid, write_series(folder, PhantomSettings(slices=30, rows=64, study_instance_uid=uid))


def assert_is_one_whole_report(study: StudyStatus, archive: SmallPacs) -> None:
    (series,) = study.series
    assert (study.revision, series.state, series.slices, series.complete) == (1, "CONCLUDED", 30, True)
    reports = list((archive.directory / study.study_instance_uid).glob("*.dcm"))
    assert len(reports) == 1
    assert archive.received[reports[0].stem] == 1


def test_a_pause_of_5_s_between_two_associations_makes_one_report(
    patient_node: NodeProcesses, archive: SmallPacs, tmp_path: Path
) -> None:
    uid, files = head(tmp_path)
    for part in (files[:15], files[15:]):
        assert storescu(part, patient_node.port).returncode == 0
        time.sleep(PAUSE_S)

    assert_is_one_whole_report(patient_node.wait_settled(uid), archive)


def test_a_pause_of_5_s_inside_an_association_makes_one_report(
    patient_node: NodeProcesses, archive: SmallPacs, tmp_path: Path
) -> None:
    uid, files = head(tmp_path)
    entity = AE(ae_title="SCANNER1")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", patient_node.port, ae_title="ICH_NODE")
    for index, path in enumerate(files):
        time.sleep(PAUSE_S if index == 15 else 0.0)
        assert association.send_c_store(path).Status == 0x0000
    association.release()

    assert_is_one_whole_report(patient_node.wait_settled(uid), archive)


def test_thirty_slices_at_one_per_5_s_in_associations_of_their_own_make_one_report(
    patient_node: NodeProcesses, archive: SmallPacs, tmp_path: Path
) -> None:
    uid, files = head(tmp_path)
    for path in files:
        assert storescu([path], patient_node.port).returncode == 0
        time.sleep(PAUSE_S)

    assert_is_one_whole_report(patient_node.wait_settled(uid), archive)
