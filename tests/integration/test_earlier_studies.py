"""Earlier studies of a patient: what people are told of them, which rules they decide, and what the PACS is asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import hl7
import pytest
from pydicom import Dataset
from sqlalchemy import select

from ich_node.alert_channels import make_channels
from ich_node.alerter import Alerter
from ich_node.cli import main
from ich_node.config import parse_config
from ich_node.database import Database, StudyRow
from ich_node.decode import DecoderPool
from ich_node.deliverer import start_asking
from ich_node.job_queue import save_read, waiting_instances
from ich_node.pacs_askers import HistoryAsker
from ich_node.patient_history import history_of
from ich_node.phantom import write_series
from ich_node.pipeline import Model
from ich_node.records import Destination, EarlierStudies, InstanceState, PatientMarks, ReadInstance, Triage
from tests.alert_peers import Peer, listener
from tests.alerting import FINDING, QUICK, AlertingSite, alerting_site, ris, site_with_every_channel
from tests.earlier import of_patient
from tests.integration.test_early_alerts import enter_early
from tests.integration.test_viewer_objects_sent import with_thresholds
from tests.integration.test_worker import HEAD, open_site
from tests.running import as_toml, free_port, leaks_a_socket, settings, wait_for
from tests.unit.queueing import claim, open_queue, receive, received
from tests.unit.test_query_retrieve import PENDING, answering

NOW = datetime.now().astimezone()
YESTERDAY = NOW - timedelta(hours=20)


@contextmanager
def two_channels(folder: Path) -> Iterator[tuple[dict[str, Any], Peer, Peer]]:
    """New bleeds go to one channel, follow-ups of known ones to another; give the sections and both listeners."""
    for name in ("a", "b"):
        (folder / name).mkdir()
    with listener("mllp", folder / "a", "AA") as new, listener("mllp", folder / "b", "AA") as follow_up:
        rules = [{"tell": ["new"], "known_bleed": False}, {"tell": ["follow-up"], "known_bleed": True}]
        channels = [ris(new.port, "new"), ris(follow_up.port, "follow-up")]
        yield {"alert_hl7": channels, "alert_rule": rules}, new, follow_up


@contextmanager
def site_with_two_channels(folder: Path) -> Iterator[AlertingSite]:
    with two_channels(folder) as (sections, _, _), alerting_site(folder / "state", **sections) as site:
        yield site


def add(site: AlertingSite, patient_id: str, at: datetime, triage: Triage = Triage.POSITIVE) -> str:
    uid = site.box.add_study(finding=FINDING, acquired_at=at.timestamp(), triage=triage)
    of_patient(site, uid, patient_id)
    return uid


def told(site: AlertingSite, uid: str) -> list[str]:
    return [alert.channel for alert in site.alerts(uid)]


def test_a_rule_tells_the_follow_up_of_a_known_bleed_from_a_new_one(tmp_path: Path) -> None:
    with site_with_two_channels(tmp_path) as site:
        first = add(site, "4711", YESTERDAY)
        site.tell()
        again, other = add(site, "4711", NOW), add(site, "4712", NOW)
        unknown = site.box.add_study(finding=FINDING, acquired_at=NOW.timestamp())
        site.tell()
        assert [told(site, uid) for uid in (first, again, other, unknown)] == [["new"], ["follow-up"], ["new"], ["new"]]


@pytest.mark.parametrize(("patient_id", "channel"), [("4711", "follow-up"), ("4712", "new")])
def test_what_is_told_early_follows_the_same_rules(tmp_path: Path, patient_id: str, channel: str) -> None:
    with site_with_two_channels(tmp_path) as site:
        add(site, "4711", YESTERDAY)
        uid = enter_early(site, tmp_path / "images")
        of_patient(site, uid, patient_id)
        site.tell(lambda: site.alerts(uid))
        assert [(one.kind, one.channel) for one in site.alerts(uid)] == [("preliminary", channel)]


@pytest.mark.parametrize("phi", [True, False])
def test_every_channel_says_what_is_known_and_dates_only_to_who_gets_patient_data(tmp_path: Path, phi: bool) -> None:
    rule = {"tell": ["ris", "service", "mail"], "known_bleed": True}
    with site_with_every_channel(tmp_path, phi=phi, alert_rule=[rule]) as (site, worklist, service, mailbox):
        add(site, "4711", YESTERDAY)
        uid = add(site, "4711", NOW)
        site.tell()
        words = site.box.status(uid).studies[0].prior
        assert words.startswith(f"hemorrhage was reported on {NOW:%Y-%m-%d}")
        message = hl7.parse(worklist.heard[0]["text"])
        observed = {str(one(3)[0][0]): str(one(5)) for one in message.segments("OBX")}
        assert observed["ICH.PRIOR"] == words
        assert [int(str(one(1))) for one in message.segments("OBX")] == list(range(1, len(observed) + 1))
        body = json.loads(service.heard[0]["body"])
        assert (body["known_bleed"], body["prior"]) == (True, words if phi else "hemorrhage was reported before")
        assert f"Earlier: {body['prior']}." in mailbox.heard[0]["text"].replace("=\n", "")


def test_status_shows_what_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with alerting_site(tmp_path / "state", alert_rule=[]) as site:
        uid = add(site, "4711", NOW)
        values = {name: one for name, one in site.box.config.model_dump(mode="json", exclude_none=True).items() if one}
        (tmp_path / "node.toml").write_text(as_toml(values))
        assert main(["status", uid, "--config", str(tmp_path / "node.toml")]) == 0
        assert "earlier studies: first study known here\n" in capsys.readouterr().out


def test_two_head_ct_of_one_patient_through_the_node(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> None:
    model = with_thresholds(tiny_model, 1e-6, 2e-6)
    manifest = model.bundle.manifest.model_copy(update={"trained": True})
    model = replace(model, bundle=replace(model.bundle, manifest=manifest))
    with two_channels(tmp_path) as (sections, new, follow_up):
        with open_site(tmp_path, model, decoder, alert=QUICK | {"early": False}, **sections) as site:
            for patient_id, at in [("A1", YESTERDAY), ("A1", NOW), ("B2", NOW)]:
                uid, files = site.head(patient_id=patient_id, acquired_at=at)
                site.send(files)
                assert site.settled(uid).triage == "positive"
            alerter, stop = Alerter(site.node.config, site.node.database, make_channels(site.node.config)), Event()
            (thread := threading.Thread(target=alerter.run, args=(stop,))).start()
            try:
                wait_for(lambda: len(new.heard) + len(follow_up.heard) == 3, "all are told", 20)
            finally:
                stop.set()
                thread.join()
        heard = [patients_of(new), patients_of(follow_up)]
    assert heard == [["A1", "B2"], ["A1"]], "the first of each patient, and the follow-up"


def patients_of(peer: Peer) -> list[str]:
    return sorted(str(hl7.parse(one["text"]).segment("PID")(3)) for one in peer.heard)


# ------------------------------------------------------------------------------------------- asking the PACS


class Arriving:
    """A queue with one study that is arriving, and who asks the PACS about it."""

    def __init__(self, folder: Path, port: int) -> None:
        (image, *_) = write_series(folder / "series", replace(HEAD, study_instance_uid="1.2.1", slices=1))
        self.database = open_queue(folder)
        receive(self.database, received(1, path=str(image.relative_to(folder))))
        self.config = parse_config(
            settings(folder, Path("no-model"), delivery={"connect_timeout_s": 1.0, "response_timeout_s": 0.5})
        )
        self.asker = HistoryAsker(self.config, self.database, Destination("query", "PACS", "127.0.0.1", port))

    def read(self, patient_mark: str = "abc") -> None:
        (job,) = claim(self.database, "me")
        (one,) = waiting_instances(self.database, job.id, 9)
        marks = PatientMarks(patient_id=patient_mark, patient_birth_date="def" if patient_mark else "")
        read = [ReadInstance(one.id, InstanceState.DECODED, marks=marks)]
        assert save_read(self.database, job, "me", read, lease_s=60.0)

    def known(self) -> tuple[EarlierStudies | None, str]:
        with self.database.reading() as connection:
            history = history_of(connection, connection.execute(select(StudyRow)).one())
        return history.at_pacs, history.in_words()


@contextmanager
def arriving(folder: Path, port: int) -> Iterator[Arriving]:
    one = Arriving(folder, port)
    try:
        yield one
    finally:
        one.database.close()


def earlier_study(**changes: str) -> Dataset:
    match = Dataset()
    values = {"PatientID": HEAD.patient_id, "StudyInstanceUID": "1.2.0", "StudyDate": "20260105",
              "ModalitiesInStudy": "CT"}  # fmt: skip
    for keyword, value in (values | changes).items():
        setattr(match, keyword, value)
    return match


def test_the_pacs_is_asked_once_while_the_study_arrives_and_its_answer_is_kept(tmp_path: Path) -> None:
    asked: list[Dataset] = []

    def answer(identifier: Dataset) -> Iterator[tuple[int, Dataset]]:
        asked.append(identifier)
        yield PENDING, earlier_study()

    with answering(answer) as port, arriving(tmp_path, port) as study:
        assert not study.asker.step(), "whose study it is is not known before an image was read"
        study.read()
        assert study.asker.step()
        assert not study.asker.step()
        (identifier,) = asked
        assert (identifier.QueryRetrieveLevel, identifier.PatientID) == ("STUDY", HEAD.patient_id)
        known, words = study.known()
        assert known == EarlierStudies(1, "20260105")
        assert words == "first study known here; 1 earlier CT study at the PACS, of 2026-01-05"


def test_without_a_patient_id_the_pacs_is_not_asked(tmp_path: Path) -> None:
    with arriving(tmp_path, free_port()) as study:
        study.read("")
        assert not study.asker.step()


@leaks_a_socket
@pytest.mark.parametrize("how", ["hangs", "refuses", "is gone", "is another's"])
def test_what_the_pacs_does_not_say_is_not_known(tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str) -> None:
    hanging = threading.Event()

    def answer(_: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        if how == "hangs":
            hanging.wait(30)
        elif how == "refuses":
            yield 0xA900, None
        else:
            yield PENDING, earlier_study(PatientID="SOMEBODY")

    with answering(answer) as port, arriving(tmp_path, free_port() if how == "is gone" else port) as study:
        study.read()
        try:
            assert study.asker.step()
        finally:
            hanging.set()
        assert study.known() == (None, "first study known here; earlier studies at the PACS not known")
    warned = [one.message for one in caplog.records if one.levelname == "WARNING" and one.name == "ich_node.deliver"]
    assert warned == ([] if how == "is another's" else ["the PACS does not say which earlier studies there are"])


@leaks_a_socket
def test_a_pacs_that_hangs_changes_no_result(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        query = {"ae_title": "PACS", "host": "127.0.0.1", "port": deaf.getsockname()[1]}
        more = {"query": query, "history": {"query": True}, "delivery": {"response_timeout_s": 2.0}}
        with open_site(tmp_path, tiny_model, decoder, **more) as site:
            stop = threading.Event()
            start_asking(site.node.config, site.node.database, stop)
            uid, files = site.head()
            site.send(files)
            study = site.settled(uid)
            stop.set()
            asking = [one for one in threading.enumerate() if one.name in ("ask", "ask-history")]
            assert {one.name for one in asking} == {"ask", "ask-history"}
            assert all(one.daemon for one in asking)
            for thread in asking:
                thread.join(60)
            assert (study.triage, len(site.reports(uid))) != (None, 0)
            assert study.prior.startswith("first study known here")


def test_the_pacs_is_asked_only_where_history_says_so(tmp_path: Path, database: Database) -> None:
    query = {"ae_title": "PACS", "host": "127.0.0.1", "port": free_port()}
    stop = threading.Event()
    stop.set()
    start_asking(parse_config(settings(tmp_path, Path("no-model"), query=query)), database, stop)
    assert "ask-history" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_queue(tmp_path)
    yield database
    database.close()
