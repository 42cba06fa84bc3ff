"""A PACS that sends everything on, our own reports included, gets one report and starts no loop."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.uid import generate_uid

from ich_node.decode import DecoderPool
from ich_node.pacs import SmallPacs, send_study
from ich_node.phantom import PhantomSettings, write_series
from ich_node.pipeline import Model
from tests.ct_series import as_file, ct_slice
from tests.running import free_port, parts_of_a_node, settings, wait_for

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"


def test_a_pacs_that_returns_every_object_and_forwards_whole_days_gets_one_report(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool
) -> None:
    node_port = free_port()
    with SmallPacs(tmp_path / "pacs", forward_to=("127.0.0.1", node_port, "ICH_NODE")) as pacs:
        values = settings(tmp_path / "state", Path("unused"), destinations=[("pacs", pacs.port)])
        values["node"]["port"] = node_port
        with parts_of_a_node(values, tiny_model, decoder) as node:
            head = PhantomSettings(lesion="subdural", slices=12, rows=64, slice_spacing_mm=11)
            files = write_series(tmp_path / "head", head) + fifty_other_studies(tmp_path / "others")
            assert send_study(files, "127.0.0.1", pacs.port, "PACS", "SCANNER1") == len(files)
            wait_for(lambda: sum(pacs.forwarded.values()) == len(files), "the PACS has sent all of it on")
            node.settle()
            wait_for(lambda: node.status().own_objects_returned, "the report came back")
            node.settle()
            status = node.status()

    assert status.series == {"CONCLUDED": 1, "NOT_ANALYSED": 50}
    assert status.deliveries == {"DELIVERED": 1}
    assert status.own_objects_returned == 1
    reports = [path for path in (tmp_path / "pacs").glob("*/*.dcm") if dcmread(path).Modality == "SR"]
    assert len(reports) == 1
    assert pacs.received[reports[0].stem] == pacs.forwarded[reports[0].stem] == 1
    assert len(status.studies) == 51, "no study was made of our own object"


def fifty_other_studies(folder: Path) -> list[Path]:
    """25 MR studies of the head and 25 CT studies of the chest, three small images each."""
    folder.mkdir()
    paths = []
    mr = {"SOPClassUID": MR_IMAGE_STORAGE, "Modality": "MR", "StudyDescription": "MR HEAD", "RescaleType": None}
    chest = {"BodyPartExamined": "CHEST", "StudyDescription": "CT CHEST", "SeriesDescription": "LUNG"}
    for study in range(50):
        uid = str(generate_uid())
        for number in (1, 2, 3):
            identity = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1"[:64]}
            one = ct_slice(number, SOPInstanceUID=str(generate_uid()), **identity, **(mr if study % 2 else chest))
            paths.append(folder / f"{study:02d}-{number}.dcm")
            paths[-1].write_bytes(as_file(one))
    return paths
