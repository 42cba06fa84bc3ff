"""What the node records of who did what: one patient each, valid against the Standard's schema."""

from __future__ import annotations

import base64
import getpass
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.filereader import read_dataset

from ich_node.audit import open_trail
from ich_node.audit.stored import audit_files
from ich_node.cli import main
from ich_node.config import parse_config
from ich_node.database import SeriesRow
from ich_node.housekeeping import delete_expired
from ich_node.pacs import SmallPacs
from ich_node.pacs_askers import CountAsker
from ich_node.records import Destination
from tests.auditing import Recorded, messages_in, recorded_in
from tests.ct_series import STUDY, ct_slice
from tests.integration.receiving import CT, Running, association, encoded, running, send, store_bytes
from tests.running import NodeProcesses, as_toml, free_port, leaks_a_socket, settings, wait_for
from tests.unit.queueing import change

TRANSFERRED, BEGIN, ALERT = "DICOM Instances Transferred", "Begin Transferring DICOM Instances", "Security Alert"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as node:
        yield node


def transferred(state: Path, count: int) -> list[Recorded]:
    """Messages of ended transfers, once that many are there."""
    return wait_for(lambda: len(found := recorded_in(state, TRANSFERRED)) >= count and found, "they are recorded", 30)


# --------------------------------------------------------------------------------------------- receiving


def test_two_patients_in_one_association_make_a_message_each(node: Running) -> None:
    slices = [ct_slice(number) for number in (1, 2, 3)]
    others = [ct_slice(4, PatientID="PID0002", StudyInstanceUID="2.25.7", SeriesInstanceUID="2.25.7.1",
                       SOPInstanceUID="2.25.7.1.1")]  # fmt: skip
    assert send(node.port, *slices, *others) == [0] * 4
    said = {one.patients[0]: one for one in transferred(node.state, 2)}
    assert {patient: one.counts for patient, one in said.items()} == {"PID0001": {CT: 3}, "PID0002": {CT: 1}}
    assert (said["PID0001"].studies, said["PID0002"].studies) == ([STUDY], ["2.25.7"])
    assert {(one.action, one.outcome) for one in said.values()} == {("C", "0")}
    source, destination = said["PID0001"].participant("110153"), said["PID0001"].participant("110152")
    assert (source["AlternativeUserID"], source["NetworkAccessPointID"]) == ("AETITLES=TEST", "127.0.0.1")
    assert destination["AlternativeUserID"] == "AETITLES=ICH_NODE"


def test_the_beginning_is_recorded_before_the_first_success(node: Running) -> None:
    with association(node.port) as to:
        assert store_bytes(to, encoded(ct_slice(1))) == 0
        (begun,) = recorded_in(node.state)
        assert (begun.event, begun.patients, begun.studies) == (BEGIN, ["PID0001"], [STUDY])
        assert store_bytes(to, encoded(ct_slice(2)), instance_uid=str(ct_slice(2).SOPInstanceUID)) == 0
        assert len(recorded_in(node.state)) == 1, "once a study"


def test_what_was_held_before_is_a_read(node: Running) -> None:
    send(node.port, ct_slice(1))
    transferred(node.state, 1)
    send(node.port, ct_slice(1))
    assert [one.action for one in transferred(node.state, 2)] == ["C", "R"]


def test_an_object_that_is_refused_is_recorded_with_the_reason_and_of_nobody(node: Running) -> None:
    whole = encoded(ct_slice(1))
    with association(node.port) as to:
        assert store_bytes(to, whole[:-10]) != 0
        assert store_bytes(to, whole) == 0
    said = {one.outcome: one for one in transferred(node.state, 2)}
    assert said["8"].counts == said["0"].counts == {CT: 1}
    assert said["8"].patients == ["(none)"]
    assert "ends" in said["8"].why


def test_patient_numbers_beyond_ascii_are_told_apart(node: Running) -> None:
    for number, patient in enumerate(("Müller1", "Möller1"), start=1):
        study = f"2.25.{number}"
        uids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "SOPInstanceUID": f"{study}.1.1"}
        assert send(node.port, ct_slice(number, PatientID=patient, **uids)) == [0]
    assert sorted(one.patients[0] for one in transferred(node.state, 2)) == ["Möller1", "Müller1"]


@leaks_a_socket
def test_who_is_not_let_in_is_recorded_and_a_flood_of_them_counted(tmp_path: Path) -> None:
    peers = [{"ae_title": "SCANNER1", "address": "127.0.0.1"}]
    with running(tmp_path, receiver={"allow_any": False}, peer=peers) as node:
        for _ in range(20):
            with association(node.port, calling="EVIL") as to:
                assert to.is_rejected
        with association(node.port, calling="SCANNER1", called="SOMEBODY") as to:
            assert to.is_rejected
    node.receiver.end_trail()
    refused = recorded_in(tmp_path, ALERT)
    assert [one.types for one in refused] == [["Node Authentication"]] * 3
    assert [one.details["Calling AE title"] for one in refused] == ["EVIL", "SCANNER1", "EVIL"]
    assert [one.details["Times"] for one in refused] == ["1", "1", "19"]
    assert refused[1].details["Called AE title"] == "SOMEBODY"
    assert {one.outcome for one in refused} == {"8"}


def test_receiving_goes_on_where_the_trail_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path) as node:
        (tmp_path / "audit").write_bytes(b"")
        assert send(node.port, ct_slice(1), ct_slice(2)) == [0, 0]
        assert "cannot be written" in caplog.text
        (tmp_path / "audit").unlink()
        assert len(transferred(tmp_path, 1)) == 1
        assert [one.event for one in recorded_in(tmp_path)] == [BEGIN, TRANSFERRED]


def test_a_trail_that_is_switched_off_is_none(tmp_path: Path) -> None:
    with running(tmp_path, audit={"enabled": False}) as node:
        assert send(node.port, ct_slice(1)) == [0]
        assert main_of(tmp_path, node, "requeue", STUDY) == 0
    assert not (tmp_path / "audit").exists()


# ----------------------------------------------------------------------------------------------- querying


def test_a_query_is_recorded_with_what_was_asked(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs", ae_title="PACS") as pacs, running(tmp_path / "state") as node:
        assert send(node.port, ct_slice(1)) == [0]
        asker = CountAsker(node.config, node.database, Destination("query", "PACS", "127.0.0.1", pacs.port))
        wait_for(asker.step, "there is a series to ask about", 30)
    said = recorded_in(tmp_path / "state", "Query")[0]
    assert said.participant("110152")["AlternativeUserID"] == "AETITLES=PACS"
    assert said.details == {"TransferSyntax": "1.2.840.10008.1.2.1"}
    query = said.root.findtext(".//ParticipantObjectQuery")
    asked = read_dataset(BytesIO(base64.b64decode(query)), is_implicit_VR=False, is_little_endian=True)
    assert asked.StudyInstanceUID == STUDY
    assert asked.QueryRetrieveLevel == "SERIES"


# ------------------------------------------------------------------------------------------------ commands


def main_of(folder: Path, node: Running, *words: str) -> int:
    path = folder / "command.toml"
    values = node.config.model_dump(mode="json", include={"node", "receiver", "audit"})
    path.write_text(as_toml(values))
    return main([*words, "--config", str(path)])


@pytest.mark.parametrize("words", [("requeue", STUDY), ("release", STUDY), ("reject", STUDY), ("resend", STUDY)])
def test_a_command_is_recorded_with_who_gave_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    with running(tmp_path) as node:
        send(node.port, ct_slice(1))
        main_of(tmp_path, node, *words)
        (said,) = recorded_in(tmp_path, ALERT)
    assert said.types == ["Use of Restricted Function"]
    assert said.users[1].startswith(f"{getpass.getuser()}@")
    assert [one.get("ParticipantObjectID") for one in said.root.findall("ParticipantObjectIdentification")] == [
        f"ich-node:{words[0]}"
    ]
    assert [one.get("UID") for one in said.root.iter("StudyIDs")] == [STUDY]


COMMANDS = {
    "legal-hold-set": ("legal-hold", "set", STUDY, "--reason", "a court asks for it"),
    "legal-hold-lift": ("legal-hold", "lift", STUDY),
    "requeue": ("requeue", STUDY),
    "release": ("release", STUDY),
    "reject": ("reject", STUDY),
    "resend": ("resend", STUDY),
    "installation-here": ("installation", "--here"),
    "installation-new": ("installation", "--new"),
    "rebuild": ("rebuild",),
}


def test_commands_of_every_kind_leave_a_trail_that_verifies_under_names_without_spaces(tmp_path: Path) -> None:
    with running(tmp_path) as node:
        assert send(node.port, ct_slice(1)) == [0]
    for name, words in COMMANDS.items():
        if name == "rebuild":
            for path in tmp_path.glob("ich-node.sqlite*"):
                path.unlink()
        main_of(tmp_path, node, *words)
    assert main_of(tmp_path, node, "audit", "verify") == 0
    given = [one.root.xpath("string(ParticipantObjectIdentification/@ParticipantObjectID)")
             for one in recorded_in(tmp_path, ALERT)]  # fmt: skip
    assert given == [f"ich-node:{name}" for name in COMMANDS]
    processes = {message.split(b" ")[4].partition(b".")[0].decode() for message in messages_in(tmp_path)}
    assert processes == {"receive", *COMMANDS}
    assert not [path.name for path in audit_files(tmp_path / "audit") if " " in path.name]


def test_the_trail_can_be_shown_and_that_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path) as node:
        send(node.port, ct_slice(1))
        transferred(tmp_path, 1)
        assert main_of(tmp_path, node, "audit", "show") == 0
        shown = capsys.readouterr().out.splitlines()
        assert ["Patient Number PID0001" in line for line in shown] == [True, True, False]
        assert "Audit Log Used" in shown[-1]
        assert main_of(tmp_path, node, "audit", "show", "--json", "--since", "2999-01-01") == 0
        assert capsys.readouterr().out == ""
        assert main_of(tmp_path, node, "audit", "export", str(tmp_path / "trail")) == 0
        assert (tmp_path / "trail").stat().st_mode & 0o777 == 0o600
        assert len((tmp_path / "trail").read_bytes().splitlines()) == 5
        assert main_of(tmp_path, node, "audit", "export", str(tmp_path / "trail")) == 2, "never over a file"
        assert main_of(tmp_path, node, "audit", "verify") == 0
        audit_files(tmp_path / "audit")[0].write_bytes(b"nothing\n")
        assert main_of(tmp_path, node, "audit", "verify") == 1
    assert len(recorded_in_others(tmp_path)) == 3


def recorded_in_others(state: Path) -> list[Recorded]:
    """What was recorded, without the file that the test spoiled."""
    audit_files(state / "audit")[0].unlink()
    return recorded_in(state, "Audit Log Used")


# ------------------------------------------------------------------------------------ life, configuration


def test_what_was_changed_in_the_configuration_is_recorded_once_by_key_and_not_by_value(tmp_path: Path) -> None:
    secret = tmp_path / "secret-file"
    secret.write_text("secret-content-of-sixteen-and-more")
    secret.chmod(0o600)
    hook = {"name": "hook", "url": "https://alerts.example/secret-path", "secret_file": str(secret)}
    values = settings(tmp_path, Path("no-model"), alert_webhook=[hook])
    for url in ("https://alerts.example/secret-path", "https://elsewhere.example/"):
        values["alert_webhook"][0]["url"] = url
        for role in ("receive", "deliver"):
            trail = open_trail(parse_config(values), role)
            trail.started(parse_config(values))
            trail.stopped()
    said = recorded_in(tmp_path)
    changes = [one.details for one in said if one.types == ["Software Configuration"]]
    assert [one["Keys"] for one in changes] == ["(first start)", "alert_webhook.0.url"]
    assert changes[1]["Before"] == changes[0]["After"] != changes[1]["After"]
    assert not any(b"secret-" in path.read_bytes() for path in audit_files(tmp_path / "audit"))
    assert not any("secret-" in text for one in said for text in one.details.values())
    life = [one.types[0] for one in said if one.event == "Application Activity"]
    assert life == ["Application Start", "Application Stop"] * 4
    assert [one.event for one in said][:3] == [ALERT, "Application Activity", "Application Activity"]


@pytest.mark.slow
def test_a_node_records_that_it_starts_and_stops_and_what_was_changed(tmp_path: Path) -> None:
    values = settings(tmp_path / "state", Path("no-model"))
    for port in (free_port(), free_port()):
        values["node"]["port"] = port
        with NodeProcesses(tmp_path, values, roles=("receive", "deliver")):
            pass
    said = recorded_in(tmp_path / "state")
    life = [(one.types, one.users[0].split()[1]) for one in said if one.event == "Application Activity"]
    assert sorted(life[:2]) == [(["Application Start"], "deliver"), (["Application Start"], "receive")]
    assert sorted(role for kinds, role in life if kinds == ["Application Stop"]) == ["deliver"] * 2 + ["receive"] * 2
    changes = [one.details["Keys"] for one in said if one.types == ["Software Configuration"]]
    assert changes == ["(first start)", "node.port"], "once, whoever sees it first"


# ------------------------------------------------------------------------------------------------ deletion


def test_what_retention_deletes_is_recorded_study_by_study(tmp_path: Path) -> None:
    with running(tmp_path, retention={"not_head_days": 1e-9, "images_days": 1e-9}) as node:
        mr = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR"}
        assert send(node.port, ct_slice(1, **mr), ct_slice(2, **mr)) == [0, 0]
        change(node.database, SeriesRow, state="NOT_ANALYSED")
        wait_for(lambda: delete_expired(node.config, node.database), "they are deleted", 30)
    (said,) = recorded_in(tmp_path, "DICOM Study Deleted")
    assert (said.patients, said.studies, said.action) == (["PID0001"], [STUDY], "D")
    assert said.counts == {"1.2.840.10008.5.1.4.1.1.4": 2}
