"""Audit messages: valid against the Standard's schema, one patient each, whatever the values."""

from __future__ import annotations

import pytest
from lxml import etree

from ich_node.audit import codes, events
from ich_node.audit.events import Peer, Transfer
from ich_node.audit.message import Action, AuditMessage, Outcome, Participant, Subject, resource
from ich_node.audit.syslog import format_message
from tests.auditing import parse, schema, xml_of_syslog

AT = 1_767_225_600.25
PROCESS = Participant("ich-node receive 12", alternative_user_id="AETITLES=ICH_NODE", address="node7")
PERSON = Participant("jane@node7", is_requestor=True, address="node7")
SCANNER = Peer("SCANNER1", "10.1.2.3").as_participant(codes.SOURCE_ROLE, is_requestor=True)
CT, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.22"
TRANSFER = Transfer(SCANNER, PROCESS, "PID0001", {"2.25.1": {CT: 32, SR: 1}, "2.25.2": {CT: 1}})
SUBJECT = Subject("PID0001", "2.25.1")
HOSTILE = "a\0b\x1b[31m\r\n\u2028\ud800<AuditMessage x=\"'&]]>\x85\uffff\u202eé" * 40

MESSAGES = {
    "start": events.application(True, PROCESS, "root"),
    "stop": events.application(False, PROCESS, "root"),
    "log used": events.log_used(PROCESS, PERSON, "file:///var/lib/ich-node/audit", "show"),
    "begin": events.begin_transferring(TRANSFER),
    "transferred": events.instances_transferred(TRANSFER, Action.CREATE, Outcome.SUCCESS),
    "refused": events.instances_transferred(TRANSFER, Action.CREATE, Outcome.SERIOUS, "cut short"),
    "accessed": events.instances_accessed(Action.READ, (PERSON, PROCESS), SUBJECT, Alert="A1"),
    "deleted": events.study_deleted(PROCESS, {"2.25.1": {CT: 3}}, "PID0001"),
    "some deleted": events.instances_deleted(PROCESS, {"2.25.1": {SR: 1}}, "PID0001"),
    "exported": events.exported((PROCESS,), "ris.example:2575", codes.URI_MEDIUM, {"PID0001": ["2.25.1"]}, Alert="A1"),
    "query": events.queried(PROCESS, SCANNER, "1.2.840.10008.5.1.4.1.2.2.1", b"\x08\0\x52\0CS", "1.2.840.10008.1.2.1"),
    "procedure": events.procedure_updated((PERSON, PROCESS), SUBJECT, Alert="A1"),
    "security": events.security_alert(
        codes.NODE_AUTHENTICATION, (PROCESS,), SCANNER, events.node("10.1.2.3"), Outcome.SERIOUS
    ),
    "configuration": events.security_alert(
        codes.SOFTWARE_CONFIGURATION, (PROCESS,), None, resource("ich-node:x", Keys="a")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_is_valid_against_the_schema_of_the_standard(name: str) -> None:
    parse(MESSAGES[name].to_xml("ICH_NODE", AT))


def test_the_schema_refuses_what_is_no_audit_message() -> None:
    root = etree.fromstring(MESSAGES["transferred"].to_xml("ICH_NODE", AT))
    for spoiled in ("EventDateTime", "EventOutcomeIndicator"):
        copy = etree.fromstring(etree.tostring(root))
        del copy.find("EventIdentification").attrib[spoiled]
        assert not schema().validate(copy)
    root.remove(root.find("AuditSourceIdentification"))
    assert not schema().validate(root)


def test_a_transfer_says_who_sent_what_to_whom() -> None:
    said = parse(MESSAGES["transferred"].to_xml("ICH_NODE", AT))
    assert (said.event, said.action, said.outcome) == ("DICOM Instances Transferred", "C", "0")
    assert said.patients == ["PID0001"]
    assert said.studies == ["2.25.1", "2.25.2"]
    assert said.counts == {CT: 33, SR: 1}
    source = said.participant("110153")
    assert source["AlternativeUserID"] == "AETITLES=SCANNER1"
    assert (source["NetworkAccessPointID"], source["NetworkAccessPointTypeCode"]) == ("10.1.2.3", "2")
    assert said.users == ["SCANNER1", "ich-node receive 12"]
    assert said.root.find("EventIdentification").get("EventDateTime") == "2026-01-01T00:00:00.250000Z"


def test_the_name_of_the_patient_is_in_no_message() -> None:
    for message in MESSAGES.values():
        root = etree.fromstring(message.to_xml("ICH_NODE", AT))
        assert {one.text for one in root.iter("ParticipantObjectName")} <= {None, events.LOG_NAME}


def hostile_messages() -> list[AuditMessage]:
    peer = Peer(HOSTILE, HOSTILE).as_participant(codes.SOURCE_ROLE, is_requestor=True)
    transfer = Transfer(peer, PROCESS, HOSTILE, {HOSTILE: {HOSTILE: 1}})
    return [
        events.instances_transferred(transfer, Action.CREATE, Outcome.SERIOUS, HOSTILE),
        events.security_alert(codes.NODE_AUTHENTICATION, (PROCESS,), peer, events.node(HOSTILE, a=HOSTILE)),
        events.queried(peer, peer, HOSTILE, HOSTILE.encode("utf-8", "replace"), HOSTILE),
    ]


@pytest.mark.parametrize("number", range(3))
def test_hostile_values_stay_values_and_the_message_one_line(number: int) -> None:
    xml = hostile_messages()[number].to_xml("ICH_NODE", AT)
    said = parse(xml)
    assert len(said.root.findall(".//AuditMessage")) == 0
    assert len(xml.decode().splitlines()) == 1
    assert all(character.isprintable() for character in xml.decode().replace("\xa0", " "))
    assert len(xml) < 32_768, "what every syslog server takes (PS3.15 A.6)"


def test_a_syslog_message_has_the_head_that_the_standard_asks_for() -> None:
    xml = MESSAGES["start"].to_xml("ICH_NODE", AT)
    message = format_message(xml, AT, "node 7\n", "receive.12")
    assert message.startswith(
        b"<85>1 2026-01-01T00:00:00.250000Z node-7- ich-node receive.12 DICOM+RFC3881 - \xef\xbb\xbf"
    )
    assert xml_of_syslog(message) == xml
    assert format_message(xml, AT, "node7", "receive.12", failed=True).startswith(b"<84>1 ")


def test_a_message_of_many_studies_is_short_enough_for_every_server() -> None:
    uid = "1.2.840.113619.2.55.3.604688119.868.1234567890.12345678901234567"[:64]
    studies = {f"{uid[:60]}{number:04d}": {f"{uid[:60]}0000": 100} for number in range(50)}
    xml = events.instances_transferred(
        Transfer(SCANNER, PROCESS, "P" * 64, studies), Action.CREATE, Outcome.SUCCESS
    ).to_xml("ICH_NODE", AT)
    assert len(xml) < 32_768
