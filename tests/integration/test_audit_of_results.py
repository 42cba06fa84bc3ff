"""What is recorded of results that leave the node: alerts, pages, acknowledgements, deliveries, files."""

from __future__ import annotations

import getpass
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pynetdicom import evt

from ich_node.alert_answerer import taking_answers
from ich_node.alert_links import open_links
from ich_node.cli import main
from ich_node.pacs import SmallPacs
from ich_node.phantom import PhantomSettings, write_series
from tests.alert_peers import listener
from tests.alerting import FINDING, QUICK, AlertingSite, alerting_site, ris, site_with_every_channel
from tests.auditing import Recorded, recorded_in
from tests.integration.test_alert_answers import Told, answers, message
from tests.integration.test_alert_links import PUBLIC_URL, sections_of, web
from tests.outbox import outbox, peer
from tests.running import NodeProcesses, as_toml, free_port, settings

TRANSFERRED, BEGIN, ALERT = "DICOM Instances Transferred", "Begin Transferring DICOM Instances", "Security Alert"
EXPORT, ACCESSED, PROCEDURE = "Export", "DICOM Instances Accessed", "Procedure Record"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"


# ------------------------------------------------------------------------------------------------- alerts


def test_who_was_told_is_recorded_for_every_channel_with_the_patient_and_the_alert(tmp_path: Path) -> None:
    with site_with_every_channel(tmp_path) as (site, worklist, service, _):
        uid = site.box.add_study(finding=FINDING)
        site.tell()
        said = {one.details["Channel"]: one for one in recorded_in(tmp_path / "state", EXPORT)}
        assert {name: one.participant("110154")["UserID"] for name, one in said.items()} == {
            "ris": f"127.0.0.1:{worklist.port}",
            "service": f"127.0.0.1:{service.port}",
            "mail": f"127.0.0.1:{site.box.config.alert_mail[0].port}",
        }
        assert {(*one.patients, *one.studies, one.outcome) for one in said.values()} == {("PID0001", uid, "0")}
        assert {one.details["Alert"] for one in said.values()} == {one.identifier for one in site.alerts()}
    assert len(recorded_in(tmp_path / "state")) == 3


def test_an_alert_that_could_not_be_told_is_recorded_at_every_try_with_the_reason(tmp_path: Path) -> None:
    tries = QUICK | {"refused_tries": 2}
    with (
        listener("mllp", tmp_path, "AR") as worklist,
        alerting_site(tmp_path / "state", alert_hl7=[ris(worklist.port)], alert=tries) as site,
    ):
        site.box.add_study(finding=FINDING)
        site.tell()
        assert site.alerts()[0].state == "DEAD"
    said = recorded_in(tmp_path / "state", EXPORT)
    assert [(one.outcome, one.why, one.patients) for one in said] == [("4", "NAK AR: as asked", ["PID0001"])] * 2


# ------------------------------------------------------------------------------ pages and acknowledgements


@pytest.fixture
def told(tmp_path: Path) -> Iterator[AlertingSite]:
    """A site that has told its RIS of a study, with pages and an ear for answers."""
    with (
        listener("mllp", tmp_path, "AA") as worklist,
        alerting_site(
            tmp_path / "state", web=web(), alert_answers=answers(), alert_hl7=[ris(worklist.port)]
        ) as site,
    ):  # fmt: skip
        site.box.add_study(finding=FINDING)
        site.tell()
        yield site


def the_acknowledgement(site: AlertingSite) -> Recorded:
    """The one that was recorded; of the patient and the study."""
    (said,) = recorded_in(site.box.config.state_directory, PROCEDURE)
    (study,) = site.box.status().studies
    assert (said.action, said.patients, said.studies) == ("U", ["PID0001"], [study.study_instance_uid])
    assert said.details["Alert"] == site.alerts()[0].identifier
    return said


def test_who_looked_at_a_page_and_who_acknowledged_it_is_recorded(told: AlertingSite, tmp_path: Path) -> None:
    (alert,) = told.alerts()
    links = open_links(told.box.config)
    assert links is not None
    path = links.url(alert.identifier).removeprefix(PUBLIC_URL)
    with (
        NodeProcesses(tmp_path, sections_of(told), ["web"]),
        httpx.Client(base_url=f"http://127.0.0.1:{told.box.config.web.port}", timeout=20) as browser,
    ):
        assert [browser.get(path).status_code for _ in range(3)] == [200] * 3
        (looked,) = recorded_in(tmp_path / "state", ACCESSED)
        assert (looked.action, looked.patients, looked.details["Alert"]) == ("R", ["PID0001"], alert.identifier)
        assert looked.users[0] == "somebody with the link"
        assert browser.post(path, data={"name": "Dr. Ada"}).status_code == 200
        assert browser.post(path, data={"name": "Dr. Bob"}).status_code == 200
        said = the_acknowledgement(told)
        assert (said.users[0], said.details["Acknowledged by way of"]) == ("Dr. Ada", "link")
        assert said.root.find("ActiveParticipant").get("NetworkAccessPointID") == "127.0.0.1"
        assert browser.get(path[:-1] + "_").status_code == browser.get("/alerts/" + "A" * 20).status_code == 404
    refused = recorded_in(tmp_path / "state", ALERT)
    why = "page refused: no true link of an alert"
    assert [one.why for one in refused if one.types == ["Node Authentication"]] == [why] * 2, "one, and then the rest"


def test_who_acknowledged_by_hl7_is_recorded(told: AlertingSite) -> None:
    stop = threading.Event()
    with taking_answers(told.box.config, told.box.database, stop):
        text = message("ORA^R33", f"MSA|AA|{told.alerts()[0].identifier}")
        assert Told(told).say(text)[0] == Told(told).say(text)[0] == "AA"
    said = the_acknowledgement(told)
    assert (said.users[0], said.details["Acknowledged by way of"]) == ("RIS HOSPITAL", "HL7")


def test_who_acknowledged_by_command_is_recorded_with_who_gave_it(told: AlertingSite, tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(as_toml(sections_of(told)))
    words = ["ack", told.alerts()[0].identifier, "--by", "Dr. Ada", "--config", str(config)]
    assert [main(words), main(words)] == [0, 1]
    said = the_acknowledgement(told)
    assert said.users[0] == "Dr. Ada"
    assert said.details["Acknowledged by way of"].startswith(f"command of {getpass.getuser()}@")


# ---------------------------------------------------------------------------------------------- deliveries


def test_a_delivery_is_recorded_before_it_begins_and_when_it_is_over(tmp_path: Path) -> None:
    state, before = tmp_path / "state", []

    def take(_: evt.Event) -> int:
        before.extend(recorded_in(state))
        return 0x0000

    with peer(take) as port, outbox(state, port) as box:
        uid = box.add_study()
        box.deliver_until_state("DELIVERED")
    (begun,) = before
    assert (begun.event, begun.patients, begun.studies) == (BEGIN, ["PID0001"], [uid])
    (said,) = recorded_in(state, TRANSFERRED)
    assert (said.patients, said.studies, said.outcome) == (["PID0001"], [uid], "0")
    assert said.counts == {COMPREHENSIVE_3D_SR: 1}
    there, here = said.participant("110152"), said.participant("110153")
    assert (there["AlternativeUserID"], there["NetworkAccessPointID"]) == ("AETITLES=PACS", "127.0.0.1")
    assert (here["AlternativeUserID"], here["UserIsRequestor"]) == ("AETITLES=ICH_NODE", "true")


@pytest.mark.parametrize(("status", "outcome"), [(0xA700, "4"), (0x0122, "8")], ids=["may pass", "refused"])
def test_a_delivery_that_was_not_taken_is_recorded_with_the_status(tmp_path: Path, status: int, outcome: str) -> None:
    with SmallPacs(tmp_path / "pacs", store_status=status) as pacs, outbox(tmp_path / "state", pacs.port) as box:
        box.add_study()
        box.deliver_until(lambda: box.deliveries()[0].attempts == 1, "one attempt")
    (said,) = recorded_in(tmp_path / "state", TRANSFERRED)
    assert (said.outcome, said.why, said.patients) == (outcome, f"status 0x{status:04X}", ["PID0001"])


# --------------------------------------------------------------------------------------------------- files


def test_files_that_score_writes_are_recorded_patient_by_patient_where_there_is_a_node(
    tmp_path: Path, tiny_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        look = PhantomSettings(slices=8, rows=64, slice_spacing_mm=16, patient_id=f"P{number}")
        write_series(tmp_path / "in" / str(number), look)
    config = tmp_path / "node.toml"
    (tmp_path / "state").mkdir()
    config.write_text(as_toml(settings(tmp_path / "state", tiny_bundle, node={"port": free_port()})))
    words = ["score", str(tmp_path / "in"), "--json", "--output", str(tmp_path / "out"), "--engine", "torch",
             "--test-model", "--config", str(config)]  # fmt: skip
    assert main(words) == 0, capfd.readouterr().err
    said = recorded_in(tmp_path / "state")
    assert [one.event for one in said] == [EXPORT] * 2
    assert sorted(patient for one in said for patient in one.patients) == ["P1", "P2"]
    assert all(len(one.studies) == 1 for one in said)
    assert {one.participant("110154")["UserID"] for one in said} == {(tmp_path / "out").as_uri()}
    assert all(one.users[0].startswith(f"{getpass.getuser()}@") for one in said)
