"""Hostile text in every attribute that has room for text, through the whole node; on a page; in a mail."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from email import message_from_string, policy
from pathlib import Path
from urllib.parse import quote

import httpx
import pydicom
import pytest
from lxml import html
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from rich.console import Console
from sqlalchemy import text

from ich_node.alert.templates import hl7_value
from ich_node.alert_links import open_links
from ich_node.cli.status import show_status
from ich_node.decode import DecoderPool
from ich_node.log import _JsonLines
from ich_node.pipeline import Model
from tests.alert_peers import mail_server
from tests.alerting import FINDING, AlertingSite, alerting_site, mail
from tests.corruption import NASTY
from tests.integration.test_alert_links import PUBLIC_URL, sections_of, web
from tests.integration.test_worker import open_site
from tests.running import NodeProcesses

KEYWORDS = (
    "PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID", "StudyDescription",
    "SeriesDescription", "ProtocolName", "StationName", "InstitutionName", "InstitutionAddress",
    "ReferringPhysicianName", "PatientComments", "ImageComments", "Manufacturer", "ManufacturerModelName",
    "ConvolutionKernel", "AdditionalPatientHistory", "RequestedProcedureDescription", "PatientAddress",
    "DeviceSerialNumber", "SoftwareVersions", "OperatorsName", "RetrieveAETitle", "PatientSex",
    "PatientAge", "PatientBirthDate", "StudyDate", "StudyTime", "AcquisitionDateTime", "AcquisitionNumber", "KVP",
    "PatientWeight", "RetrieveURL", "LongCodeValue", "TextValue",
)  # fmt: skip
"""Of each VR that is text, but UI (tests/integration/test_hostile_objects.py)."""
LONGEST = {"SH": 16, "LO": 64, "CS": 16, "AE": 16, "PN": 64, "ST": 1024}
"""Of the others the whole text stands there, whatever PS3.5 6.2 allows."""


def with_nasty_texts(path: Path, turn: int) -> Dataset:
    """Put another text into each attribute; over all turns each of them comes to hold each text."""
    ds = dcmread(path)
    ds.SpecificCharacterSet = "ISO_IR 192"
    for number, keyword in enumerate(KEYWORDS):
        nasty, tag = NASTY[(number + turn) % len(NASTY)], Tag(keyword)
        vr = dictionary_VR(tag)
        value = (
            nasty[: LONGEST.get(vr)].replace("\\", "/") if keyword == "SeriesDescription" else nasty[: LONGEST.get(vr)]
        )
        if vr in ("DS", "IS"):  # pydicom writes nothing there that is no number
            ds[tag] = RawDataElement(tag, vr, len(raw := value.encode()), raw, 0, False, True)
            continue
        if vr in ("AE", "AS", "CS", "DA", "TM", "DT", "UR"):  # of the default repertoire, whatever the character set
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


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[AlertingSite, list[dict[str, str]]]]:
    """A site that has told of a study for each text, by mail with the patient in it; and the mails."""
    with (
        mail_server() as (port, mailbox),
        alerting_site(
            tmp_path / "state", web=web(), alert_hl7=[], alert_mail=[mail(port) | {"phi": True}],
            alert_rule=[{"tell": ["mail"]}],
        ) as site,
    ):  # fmt: skip
        for turn in range(len(NASTY)):
            uid = site.box.add_study(finding=FINDING)
            for path in (tmp_path / "state/results").glob("*.dcm"):
                if dcmread(path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID == uid:
                    with_nasty_texts(path, turn)
        site.tell(seconds=120)
        yield site, mailbox.heard


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_hostile_text_of_a_study_makes_no_header_and_no_recipient_of_a_mail(
    told: tuple[AlertingSite, list[dict[str, str]]],
) -> None:
    site, heard = told
    assert {one.state for one in site.alerts()} == {"SENT"}
    mails = [message_from_string(one["text"], policy=policy.default) for one in heard]
    assert len(mails) == len(NASTY)
    for one, received in zip(mails, heard, strict=True):
        assert received["to"] == "ct@hospital.example"
        assert sorted(one.keys()) == sorted(
            ["Subject", "From", "To", "Date", "Message-ID", "Importance", "Auto-Submitted", "Content-Type",
             "Content-Transfer-Encoding", "MIME-Version"]
        )  # fmt: skip
        assert one["Subject"] == "ICH node: a study is positive"
        assert one.get_content_type() == "text/plain"
    bodies = "".join(str(one.get_content()) for one in mails)
    assert "Bcc: x@example.org" in bodies, "it was really there"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_hostile_text_in_a_link_a_name_or_a_study_makes_no_markup_of_a_page(
    told: tuple[AlertingSite, list[dict[str, str]]], tmp_path: Path
) -> None:
    site, _ = told
    links = open_links(site.box.config)
    assert links is not None
    with (
        NodeProcesses(tmp_path, sections_of(site), ["web"]),
        httpx.Client(base_url=f"http://127.0.0.1:{site.box.config.web.port}", timeout=30) as browser,
    ):
        nothing = browser.get("/alerts/X").text
        for nasty, alert in zip(NASTY, site.alerts(), strict=True):
            asked = quote(nasty.encode(), safe="")
            unknown = browser.get(f"/alerts/{asked}?token={asked}")
            assert (unknown.status_code, unknown.text) == (404, nothing), "whatever was asked for is not repeated"
            path = links.url(alert.identifier).removeprefix(PUBLIC_URL)
            plain = html.fromstring(browser.get(path).text)
            assert not [one for one in plain.itertext() if nasty[:8] in one], "of the study it shows no text"
            page = html.fromstring(browser.post(path, data={"name": nasty}).text)
            assert {one.tag for one in page.iter()} <= {one.tag for one in plain.iter()} | {"section", "strong"}
            assert not [name for one in page.iter() for name in one.attrib if name.startswith("on")]
            (by,) = (str(one.text) for one in page.iter("strong"))
            (noted,) = (one for one in site.alerts() if one.identifier == alert.identifier)
            assert by == noted.acknowledged_by, "read by a browser it is what was noted"
            assert by.isprintable()
            assert len(by) <= 64


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
