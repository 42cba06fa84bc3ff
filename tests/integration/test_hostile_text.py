"""Hostile text in every attribute that has room for text, through the whole node."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pydicom
import pytest
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag
from rich.console import Console
from sqlalchemy import text

from ich_node.alert.templates import hl7_value
from ich_node.cli.operate import show_status
from ich_node.decode import DecoderPool
from ich_node.log import _JsonLines
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


def with_nasty_texts(path: Path, turn: int) -> Dataset:
    """Put another text into each attribute; over all turns each of them comes to hold each text."""
    ds = dcmread(path)
    ds.SpecificCharacterSet = "ISO_IR 192"
    for number, keyword in enumerate(KEYWORDS):
        nasty, tag = NASTY[(number + turn) % len(NASTY)], Tag(keyword)
        vr = dictionary_VR(tag)
        value = nasty[: LONGEST[vr]].replace("\\", "/") if keyword == "SeriesDescription" else nasty[: LONGEST[vr]]
        if vr in ("AE", "AS", "CS"):  # of the default repertoire, whatever the character set
            value = value.encode().decode("latin-1")
        ds[tag] = DataElement(tag, vr, value, validation_mode=pydicom.config.IGNORE)
    ds.save_as(path)
    return ds


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("turn", [0, *(pytest.param(turn, marks=pytest.mark.slow) for turn in range(1, len(NASTY)))])
def test_hostile_text_stays_text(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool, turn: int,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG, "ich_node")
    with open_site(tmp_path, tiny_model, decoder) as site:
        uid, files = site.head()
        for path in files:
            with_nasty_texts(path, turn)
        outside = _outside(tmp_path)
        site.send(files)
        study = site.settled(uid)
        assert len(study.series) == 1, "no text splits a study"
        assert study.deliveries[-1].state == "DELIVERED"
        (report,) = site.reports(uid)
        assert str(report.PatientID).strip() == str(dcmread(files[0]).PatientID).strip()
        show_status(site.node.status(uid), Console(width=200), full=True)
        with site.node.database.reading() as connection:
            assert connection.execute(text("select count(*) from instance")).scalar() == len(files)
        assert _outside(tmp_path) == outside
    shown = capsys.readouterr()
    assert not [one for one in shown.out + shown.err if not one.isprintable() and one != "\n"]
    lines = [_JsonLines("node").format(record) for record in caplog.records if record.name.startswith("ich_node")]
    assert lines
    assert not [line for line in lines if len(line) > 4096 or any(not 0x20 <= ord(one) < 0x7F for one in line)]


def _outside(folder: Path) -> set[Path]:
    """Every file but those of the node's own folders and of the small PACS."""
    ours = {
        "spool",
        "results",
        "cache",
        "audit",
        "pacs",
        "ich-node.sqlite",
        "ich-node.sqlite-wal",
        "ich-node.sqlite-shm",
    }
    return {path for path in folder.rglob("*") if not ours & set(path.relative_to(folder).parts)}


@pytest.mark.parametrize("nasty", NASTY)
def test_hostile_text_makes_no_segment_or_field_of_hl7(nasty: str) -> None:
    written = hl7_value(nasty)
    assert not set(written) & set("\r\n|^&~\x0b\x1c\x1b")
    assert not re.sub(r"\\[EFSTR]\\", "", written).count("\\")
