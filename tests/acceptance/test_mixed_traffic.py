"""A folder's worth of mixed traffic: all real data at once, in random order, twice."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE

from ich_node.pacs import SmallPacs
from ich_node.queries import NodeStatus
from tests.running import NodeProcesses, is_dicom, settings, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore:Invalid value for VR")]


@pytest.fixture(scope="module")
def traffic(
    tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, shared_data: Path
) -> Iterator[tuple[NodeProcesses, SmallPacs, list[Path]]]:
    folder = tmp_path_factory.mktemp("mixed")
    files = [
        path
        for path in sorted(shared_data.rglob("*"))
        if path.is_file() and "training" not in path.parts and is_dicom(path)
    ]
    dice = random.Random(11)
    with SmallPacs(folder / "pacs") as pacs:
        values = settings(folder / "state", tiny_bundle, destinations=[("pacs", pacs.port)],
                          series={"quiet_s": 1.0, "max_wait_s": 6.0})  # fmt: skip
        with NodeProcesses(folder, values) as node:
            for _ in range(2):
                dice.shuffle(files)
                for start in range(0, len(files), 60):
                    _send(files[start : start + 60], node.port)
            wait_for(lambda: _is_settled(node.status()), "everything is settled", 600)
            yield node, pacs, files


_STUDIES_TOLD_OF = 13


def _send(files: list[Path], port: int) -> None:
    """Send files of many kinds in one association each time, as they are; what is not negotiated stays away."""
    metas = {path: read_file_meta_info(path) for path in files}
    kinds = {(str(one.MediaStorageSOPClassUID), str(one.TransferSyntaxUID)) for one in metas.values()}
    entity = AE(ae_title="MIXED")
    for sop_class_uid, syntax in sorted(kinds):
        entity.add_requested_context(sop_class_uid, syntax)
    association = entity.associate("127.0.0.1", port, ae_title="ICH_NODE")
    accepted = {(str(one.abstract_syntax), str(one.transfer_syntax[0])) for one in association.accepted_contexts}
    for path, meta in metas.items():
        if (str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)) in accepted:
            association.send_c_store(path)
    association.release()


def _is_settled(status: NodeStatus) -> bool:
    open_series = status.series.get("RECEIVING", 0) + status.series.get("COMPLETE", 0)
    unsent = status.deliveries.get("PENDING", 0) + status.deliveries.get("SENDING", 0)
    told = sum(one.revision > 0 for one in status.studies)
    return not open_series and not unsent and told >= _STUDIES_TOLD_OF


def test_nothing_is_sent_to_the_pacs_twice(traffic: tuple[NodeProcesses, SmallPacs, list[Path]]) -> None:
    node, pacs, _ = traffic
    assert pacs.received
    assert set(pacs.received.values()) == {1}
    assert Counter(one.state for study in node.status().studies for one in study.deliveries).keys() <= {
        "DELIVERED",
        "SUPERSEDED",
    }


def test_each_head_ends_as_one_current_answer(traffic: tuple[NodeProcesses, SmallPacs, list[Path]]) -> None:
    node, _, _ = traffic
    studies = {one.study_instance_uid: one for one in node.status().studies}
    heads = [one for one in studies.values() if one.triage is not None]

    assert len(heads) == 8, "seven of CQ500 and one of GE"
    for study in heads:
        assert sum(one.state == "CONCLUDED" for one in study.series) == 1
        current = [one for one in study.deliveries if one.revision == study.revision]
        assert [one.state for one in current] == ["DELIVERED"]
    for study in studies.values():
        assert study.outcome
        for series in study.series:
            assert series.state in ("CONCLUDED", "NOT_ANALYSED", "QUARANTINED"), (series.state, series.why)
            assert series.state == "CONCLUDED" or series.why


def test_no_head_is_called_negative_that_was_not_whole(
    traffic: tuple[NodeProcesses, SmallPacs, list[Path]],
) -> None:
    node, _, _ = traffic
    for study in node.status().studies:
        if any(one.complete is False for one in study.series):
            assert study.triage != "negative"


def test_the_status_can_be_read(traffic: tuple[NodeProcesses, SmallPacs, list[Path]]) -> None:
    node, _, _ = traffic
    command = [sys.executable, "-m", "ich_node", "status", "--limit", "100", "--config", str(node.config_path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    sys.stdout.write(answer.stdout)
    assert "not analysed" in answer.stdout
