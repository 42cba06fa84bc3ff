"""A positive study through the node: what a real PACS has beside its images, and what validators say of all of it."""

from __future__ import annotations

import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from ich_node.decode import DecoderPool
from ich_node.pacs import send_study
from ich_node.phantom import write_series
from ich_node.pipeline import Model
from tests.acceptance.test_report_validators import errors, need
from tests.integration.test_viewer_objects_sent import EVERYTHING, says_positive  # noqa: F401 - a fixture
from tests.integration.test_worker import HEAD
from tests.orthanc import Orthanc
from tests.running import parts_of_a_node, settings

SERIES = {"CT": 12, "SR": 1, "OT": 6, "KO": 1, "PR": 1}
"""Instances by modality: two series of OT, the summary and five key slices."""


def fetched(orthanc: Orthanc, study_instance_uid: str, folder: Path) -> list[Path]:
    """Fetch every object of a study as the PACS would give it away."""
    folder.mkdir()
    paths = []
    for name in orthanc.ask("/instances"):
        with urllib.request.urlopen(f"http://127.0.0.1:{orthanc.http_port}/instances/{name}/file", timeout=10) as file:
            path = folder / f"{name}.dcm"
            path.write_bytes(file.read())
        if dcmread(path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID == study_instance_uid:
            paths.append(path)
    return sorted(paths)


def test_a_positive_study_has_everything_in_orthanc_beside_its_images_and_all_is_valid(
    tmp_path: Path,
    orthanc: Orthanc | None,
    says_positive: Model,  # noqa: F811 - the fixture
    decoder: DecoderPool,
) -> None:
    if orthanc is None:
        pytest.skip("Orthanc is not installed")
    need("dciodvfy")
    need("dcentvfy")
    place: dict[str, Any] = {"name": "orthanc", "ae_title": "PACS", "host": "127.0.0.1", "port": orthanc.dicom_port}
    values = settings(tmp_path / "state", Path("unused")) | {"destination": [place | {"objects": EVERYTHING}]}
    files = write_series(tmp_path / "head", HEAD)
    assert send_study(files, "127.0.0.1", orthanc.dicom_port, "PACS") == len(files)
    with parts_of_a_node(values, says_positive, decoder) as node:
        assert send_study(files, "127.0.0.1", node.receiver.port, "ICH_NODE") == len(files)
        (study,) = node.settle().studies
    assert {one.state for one in study.deliveries} == {"DELIVERED"}

    paths = fetched(orthanc, study.study_instance_uid, tmp_path / "fetched")
    by_modality: dict[str, list[Dataset]] = defaultdict(list)
    for path in paths:
        one = dcmread(path)
        by_modality[one.Modality].append(one)
        if one.Modality != "CT":
            assert not errors("dciodvfy", "-new", path), f"{one.Modality} {one.SeriesDescription}"
    assert {modality: len(some) for modality, some in by_modality.items()} == SERIES
    assert len({one.SeriesInstanceUID for one in by_modality["OT"]}) == 2
    images = [path for path in paths if dcmread(path, specific_tags=["Modality"]).Modality == "CT"]
    assert not errors("dcentvfy", *paths) - errors("dcentvfy", *images)
    flagged = {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in by_modality["KO"][0].ContentSequence
               if item.ValueType == "IMAGE"}  # fmt: skip
    assert flagged
    assert flagged <= {one.SOPInstanceUID for one in by_modality["CT"]}
