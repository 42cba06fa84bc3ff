"""The channels of alerts against real listeners in other processes: taken, refused, hanging, dropping."""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_string, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import hl7
import pytest
import trustme

from ich_node.alert import AlertMessage, ChannelPatience, HL7Channel, MailChannel, WebhookChannel, check_template
from ich_node.alert.message import ClassFinding, PersonNameParts
from ich_node.alert.templates import HL7_TEMPLATE
from ich_node.errors import AlertRefused, ChannelUnavailable
from tests.alert_peers import https_server, listener, mail_server
from tests.running import free_port

PATIENCE = ChannelPatience(2.0, 1.0)
SECRET = b"0123456789abcdef"
MESSAGE = AlertMessage(
    identifier="ABCDEFGHIJKLMNOPQRST", kind="final", result_status="F", outcome="positive", told_before="",
    headline="Suspected intracranial hemorrhage", urgent=True, revision=1,
    first_identifier="ABCDEFGHIJKLMNOPQRST",
    created_at=datetime(2026, 11, 25, 8, tzinfo=UTC),
    findings=(
        ClassFinding("any", "any intracranial hemorrhage", "present", 0.97),
        ClassFinding("subdural", "subdural hemorrhage", "absent", 0.02),
    ),
    study_instance_uid="1.2.3", accession_number="A|1^2", patient_id="P&7~\\", issuer_of_patient_id="HOSPITAL",
    patient_name=PersonNameParts("Müller\r\nOBX|9", "Zoë"), patient_birth_date="19500102", patient_sex="F",
    study_date="20261125", study_time="075900",
)  # fmt: skip


def mllp(port: int, **more: Any) -> HL7Channel:
    return HL7Channel("127.0.0.1", port, PATIENCE, **more)


def webhook(port: int, **more: Any) -> WebhookChannel:
    return WebhookChannel(f"http://127.0.0.1:{port}/alerts", SECRET, PATIENCE, **more)


def mail(port: int, **more: Any) -> MailChannel:
    given = {"starttls": False} | more
    return MailChannel("127.0.0.1", port, "node@hospital.example", ("ct@hospital.example",), PATIENCE, **given)


# ------------------------------------------------------------------------------------------------- HL7


def test_a_stock_parser_reads_the_message(tmp_path: Path) -> None:
    with listener("mllp", tmp_path, "AA") as ris:
        assert mllp(ris.port).tell(MESSAGE) == "ACK AA: as asked"
    message = hl7.parse(ris.heard[0]["text"])
    assert [str(one[0]) for one in message] == ["MSH", "PID", "ORC", "OBR", "TQ1", *["OBX"] * 7]
    header = message.segment("MSH")
    assert [str(header(number)) for number in (9, 10, 11, 12, 18)] == [
        "ORU^R01^ORU_R01", MESSAGE.identifier, "P", "2.5.1", "UNICODE UTF-8"
    ]  # fmt: skip
    assert message["PID.F3.R1.C1"] == MESSAGE.patient_id
    assert message["PID.F3.R1.C4"] == "HOSPITAL"
    assert message["PID.F5.R1.C1"] == "Müller OBX|9", "a value never makes a segment of its own"
    assert message["PID.F5.R1.C2"] == "Zoë"
    assert message["OBR.F18"] == message["OBR.F3"] == MESSAGE.accession_number
    assert message["OBR.F7"] == "20261125075900"
    assert (message["OBR.F25"], message["OBR.F27.R1.C6"], message["TQ1.F9"]) == ("F", "S", "S")
    observations = {str(one(3)[0][0]): one for one in message.segments("OBX")}
    assert [str(one(1)) for one in message.segments("OBX")] == [str(number) for number in range(1, 8)]
    assert (str(observations["ICH.ANY"](5)[0][0]), str(observations["ICH.ANY"](8))) == ("present", "AA")
    assert (str(observations["ICH.SUBDURAL"](5)[0][0]), str(observations["ICH.SUBDURAL"](8))) == ("absent", "N")
    assert str(observations["ICH.ANY.PROBABILITY"](5)) == "0.970"
    assert {str(one(11)) for one in message.segments("OBX")} == {"F"}


@pytest.mark.parametrize(("kind", "status"), [("correction", "C"), ("withdrawn", "W")])
def test_what_is_not_urgent_asks_for_no_priority(kind: str, status: str) -> None:
    changed = replace(
        MESSAGE, kind=kind, result_status=status, outcome="negative", urgent=False, told_before="positive", findings=()
    )
    message = hl7.parse(mllp(1).text(changed))
    assert message["OBR.F25"] == status
    assert "TQ1" not in [str(one[0]) for one in message]
    assert len(message.segment("OBR")) <= 27 or str(message.segment("OBR")(27)) == ""
    assert {str(one(11)) for one in message.segments("OBX")} == {status}
    assert any("Told before: positive" in str(one(5)) for one in message.segments("OBX"))


@pytest.mark.parametrize(("encoding", "written"), [("utf-8", "Müller"), ("latin-1", "Müller"), ("ascii", "M?ller")])
def test_the_character_set_is_the_one_announced(tmp_path: Path, encoding: str, written: str) -> None:
    channel = mllp(1, encoding=encoding)
    raw = channel.text(MESSAGE).encode(encoding, "replace")
    assert written in raw.decode(encoding)
    announced = {"utf-8": "UNICODE UTF-8", "latin-1": "8859/1", "ascii": ""}[encoding]
    assert str(hl7.parse(channel.text(MESSAGE)).segment("MSH")(18)) == announced


@pytest.mark.parametrize(
    ("behaviour", "error", "says"),
    [
        ("AE", ChannelUnavailable, "NAK AE: as asked"),
        ("CE", ChannelUnavailable, "NAK CE: as asked"),
        ("AR", AlertRefused, "NAK AR: as asked"),
        ("CR", AlertRefused, "NAK CR: as asked"),
        ("hang", ChannelUnavailable, "in time"),
        ("drop", ChannelUnavailable, "no ACK"),
        ("other", ChannelUnavailable, "of another message"),
    ],
)
def test_an_ack_that_is_none(tmp_path: Path, behaviour: str, error: type[Exception], says: str) -> None:
    with listener("mllp", tmp_path, behaviour) as ris, pytest.raises(error, match=says):
        mllp(ris.port).tell(MESSAGE)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Unknown patient 4711", "NAK AE: Unknown patient ####"),
        ("no such patient: ZOË", "NAK AE: (its text names the patient and is not kept)"),
        ("", "NAK AE"),
    ],
)
def test_what_a_receiver_says_is_kept_without_the_patient(tmp_path: Path, text: str, kept: str) -> None:
    with listener("mllp", tmp_path, f"AE:{text}") as ris, pytest.raises(ChannelUnavailable) as failed:
        mllp(ris.port).tell(MESSAGE)
    assert str(failed.value) == kept


def test_no_line_break_of_any_kind_ends_a_segment() -> None:
    name = PersonNameParts("Do\u2028e\u2029\x85\x0b", "J")
    lines = mllp(1).text(replace(MESSAGE, patient_name=name)).splitlines()
    assert all(line[:4] in ("MSH|", "PID|", "ORC|", "OBR|", "TQ1|", "OBX|") for line in lines)


def test_nobody_listens() -> None:
    port = free_port()
    for channel in (mllp(port), webhook(port), mail(port)):
        with pytest.raises(ChannelUnavailable):
            channel.tell(MESSAGE)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("MSH|{{ nothing_of_that_name }}", "nothing_of_that_name"),
        ("MSH|{{ patient_id", "line 1"),
        ("MSH|{{ ''.__class__.__mro__ }}", "unsafe"),
        ("MSH|{{ patient_name.nickname }}", "nickname"),
        ("MSH|{{ {}[issuer_of_patient_id] }}", "attribute"),
        ("MSH|{{ 1 // (findings | length - 1) }}", "division"),
    ],
)
def test_a_template_with_a_fault_is_named_when_it_is_checked_and_quotes_nobody_when_it_is_used(
    tmp_path: Path, template: str, says: str
) -> None:
    file = tmp_path / "own.j2"
    file.write_text(template)
    assert says in check_template(file, HL7_TEMPLATE, "hl7", mllp(1).names)
    with pytest.raises(AlertRefused, match=r"own\.j2.*(Error|Undefined)") as refused:
        mllp(1, template=file).text(replace(MESSAGE, findings=MESSAGE.findings[:1]))
    assert "HOSPITAL" not in str(refused.value)


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.j2"
    file.write_text("MSH|^~\\&|{{ sending_application }}\nZZZ|{{ patient_id }}\n")
    assert mllp(1, template=file, sending_application="US").text(MESSAGE) == "MSH|^~\\&|US\rZZZ|P\\T\\7\\R\\\\E\\\r"


# --------------------------------------------------------------------------------------------- webhook


def test_a_webhook_is_signed_and_holds_no_patient(tmp_path: Path) -> None:
    with listener("web", tmp_path, "204") as service:
        assert webhook(service.port).tell(MESSAGE) == "HTTP 204"
    heard = service.heard[0]
    headers = {name.lower(): value for name, value in heard["headers"].items()}
    signed = f"{headers['x-ich-timestamp']}.{heard['body']}".encode()
    assert headers["x-ich-signature"] == "sha256=" + hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
    assert headers["idempotency-key"] == MESSAGE.identifier
    body = json.loads(heard["body"])
    assert body["outcome"] == "positive"
    assert body["findings"]["any"] == {"presence": "present", "probability": 0.97}
    for secret in ("ller", "P&7", "A|1^2", "1.2.3", "1950", "20261125"):
        assert secret not in heard["body"].replace(body["created_at"], "")


def test_a_webhook_names_the_patient_where_that_is_switched_on() -> None:
    said = webhook(1, phi=True).content(MESSAGE)
    assert (said["patient_id"], said["accession_number"]) == (MESSAGE.patient_id, MESSAGE.accession_number)
    assert said["patient_name"]["given"] == "Zoë"


@pytest.mark.parametrize(
    ("behaviour", "error", "says"),
    [
        ("500", ChannelUnavailable, "HTTP 500"),
        ("503", ChannelUnavailable, "HTTP 503"),
        ("429", ChannelUnavailable, "HTTP 429"),
        ("401", AlertRefused, "HTTP 401"),
        ("404", AlertRefused, "HTTP 404"),
        ("302", AlertRefused, "HTTP 302"),
        ("hang", ChannelUnavailable, "no answer"),
    ],
)
def test_a_webhook_that_does_not_take_it(tmp_path: Path, behaviour: str, error: type[Exception], says: str) -> None:
    with listener("web", tmp_path, behaviour) as service, pytest.raises(error, match=says):
        webhook(service.port).tell(MESSAGE)
    assert len(service.heard) == 1, "a redirection is not followed"


def test_a_webhook_with_mutual_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = authority.issue_cert("node.hospital.example")
    own.private_key_and_cert_chain_pem.write_to_path(tmp_path / "node.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    known = {"client_certificate": tmp_path / "node.pem", "client_key": tmp_path / "node.pem"}

    with https_server(context) as port:
        channel = replace(webhook(port, ca_file=tmp_path / "ca.pem"), url=f"https://127.0.0.1:{port}/")
        assert replace(channel, **known).tell(MESSAGE) == "HTTP 204"
        with pytest.raises(ChannelUnavailable):
            channel.tell(MESSAGE)
        with pytest.raises(ChannelUnavailable):  # a service whose certificate comes from somebody unknown
            replace(channel, ca_file=None, **known).tell(MESSAGE)


# ------------------------------------------------------------------------------------------------ mail


def test_a_correction_names_the_alert_that_it_is_about() -> None:
    correction = replace(MESSAGE, kind="correction", told_before="positive", first_identifier="B" * 20)
    assert "the study of alert BBBBBBBBBBBBBBBBBBBB" in mail(1).mail(correction).get_content()
    assert webhook(1).content(correction)["first_identifier"] == "B" * 20


def read(text: str) -> EmailMessage:
    return message_from_string(text, EmailMessage, policy=policy.default)


def test_mail_names_no_patient() -> None:
    with mail_server() as (port, mailbox):
        assert mail(port).tell(MESSAGE) == "taken"
    message = read(mailbox.heard[0]["text"])
    assert message["Subject"] == "ICH node: a study is positive"
    assert message["Message-ID"] == f"<{MESSAGE.identifier}@hospital.example>"
    text = str(message.get_content())
    assert "any intracranial hemorrhage" in text
    assert f"ich-node ack {MESSAGE.identifier}" in text
    for secret in ("ller", "P&7", "A|1^2", "1.2.3"):
        assert secret not in mailbox.heard[0]["text"]


def test_mail_names_the_patient_where_that_is_switched_on_but_not_in_the_subject() -> None:
    message = mail(1, phi=True).mail(MESSAGE)
    assert "Zoë" in message.get_content()
    assert "Zo" not in str(message["Subject"])


def test_mail_over_starttls_with_a_login(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    secure = {"starttls": True, "ca_file": tmp_path / "ca.pem", "user": "node"}
    with mail_server(context) as (port, mailbox):
        assert mail(port, password="secret", **secure).tell(MESSAGE) == "taken"
        with pytest.raises(AlertRefused, match="SMTP 535"):
            mail(port, password="wrong", **secure).tell(MESSAGE)
        with pytest.raises(ChannelUnavailable, match="no answer"):  # a certificate of somebody unknown
            mail(port, password="secret", **secure | {"ca_file": None}).tell(MESSAGE)
    assert [one["user"] for one in mailbox.heard] == ["node"]


@pytest.mark.parametrize(("answer", "error"), [("451 later", ChannelUnavailable), ("554 never", AlertRefused)])
def test_mail_that_is_not_taken(answer: str, error: type[Exception]) -> None:
    with mail_server() as (port, mailbox):
        mailbox.answer = answer
        with pytest.raises(error, match=f"SMTP {answer[:3]}"):
            mail(port).tell(MESSAGE)
