"""A head CT with hostile text in every attribute that has room for text, through the whole node."""

from __future__ import annotations

import re
from pathlib import Path

import pydicom
import pytest
from pydicom import DataElement, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag
from rich.console import Console
from sqlalchemy import text

from ich_node.alert.templates import hl7_value
from ich_node.cli.operate import show_status
from ich_node.decode import DecoderPool
from ich_node.pipeline import Model
from tests.corruption import NASTY
from tests.integration.test_worker import open_site

KEYWORDS = (
    "PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID", "StudyDescription",
    "SeriesDescription", "ProtocolName", "StationName", "InstitutionName", "InstitutionAddress",
    "ReferringPhysicianName", "PatientComments", "ImageComments", "Manufacturer", "ManufacturerModelName",
    "ConvolutionKernel", "AdditionalPatientHistory", "RequestedProcedureDescription", "PatientAddress",
    "DeviceSerialNumber", "SoftwareVersions", "OperatorsName", "RetrieveAETitle", "PatientSex",
)  # fmt: skip
LONGEST = {"SH": 16, "LO": 64, "CS": 16, "AE": 16, "PN": 64, "ST": 1024, "LT": 10240, "UT": 10240, "AS": 4}


def with_nasty_text(path: Path, nasty: str) -> None:
    ds = dcmread(path)
    ds.SpecificCharacterSet = "ISO_IR 192"
    for keyword in KEYWORDS:
        tag = Tag(keyword)
        vr = dictionary_VR(tag)
        value = nasty[: LONGEST[vr]].replace("\\", "/") if keyword == "SeriesDescription" else nasty[: LONGEST[vr]]
        ds[tag] = DataElement(tag, vr, value, validation_mode=pydicom.config.IGNORE)
    ds.save_as(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("number", range(0, len(NASTY), 6))
def test_hostile_text_stays_text(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_site(tmp_path, tiny_model, decoder) as site:
        uid, files = site.head()
        for path in files:
            with_nasty_text(path, NASTY[number])
        outside = _outside(tmp_path)
        site.send(files)
        study = site.settled(uid)
        assert len(study.series) == 1, "no text splits a study"
        assert study.deliveries[-1].state in ("DELIVERED", "PENDING", "SENDING")
        (report,) = site.reports(uid)
        assert str(report.PatientID).strip() == str(dcmread(files[0]).PatientID).strip()
        show_status(site.node.status(uid), Console(width=200), full=True)
        with site.node.database.reading() as connection:
            assert connection.execute(text("select count(*) from instance")).scalar() == len(files)
        assert _outside(tmp_path) == outside
    shown = capsys.readouterr()
    assert not [one for one in shown.out + shown.err if not one.isprintable() and one != "\n"]


def _outside(folder: Path) -> set[Path]:
    """Every file but those of the node's own folders and of the small PACS."""
    ours = {"spool", "results", "cache", "pacs", "ich-node.sqlite", "ich-node.sqlite-wal", "ich-node.sqlite-shm"}
    return {path for path in folder.rglob("*") if not ours & set(path.relative_to(folder).parts)}


@pytest.mark.parametrize("nasty", NASTY)
def test_hostile_text_makes_no_segment_or_field_of_hl7(nasty: str) -> None:
    written = hl7_value(nasty)
    assert not set(written) & set("\r\n|^&~\x0b\x1c\x1b")
    assert not re.sub(r"\\[EFSTR]\\", "", written).count("\\")
