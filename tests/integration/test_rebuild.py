"""The database is gone or damaged: a new one from the spool and the saved results."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from sqlalchemy import update

from ich_node.cli import main
from ich_node.config import parse_config
from ich_node.database import (
    AlertRow,
    DeliveryRow,
    InstanceRow,
    LegalHoldRow,
    ResultRow,
    SeriesRow,
    StudyRow,
    open_database,
)
from ich_node.errors import AlreadyRunning, ConfigError, StartError
from ich_node.job_queue.legal_holds import place_hold, save_holds
from ich_node.job_queue.retention import forget_expired_images
from ich_node.job_queue.self_tests import ask_self_test, next_self_test
from ich_node.pacs import SmallPacs, send_study
from ich_node.phantom import PhantomSettings, write_series
from ich_node.rebuild import rebuild
from ich_node.role_lock import holding_role
from ich_node.self_test import order, sending
from tests.integration.test_who_and_when import rejection_note
from tests.running import PartsOfANode, as_toml, parts_of_a_node, settings, wait_for
from tests.self_testing import working
from tests.unit.queueing import change, rows

HEAD = PhantomSettings(lesion="subdural", slices=12, rows=64, slice_spacing_mm=11.0)
ALL = ["report", "summary", "key_slices", "key_objects", "presentation"]


@dataclass
class Site:
    """A state folder whose node is started and stopped, and its PACS."""

    values: dict[str, Any]
    folder: Path
    model: Any
    decoder: Any
    pacs: SmallPacs

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def database(self) -> Path:
        return self.state / "ich-node.sqlite"

    def head(self, **changes: Any) -> tuple[str, list[Path]]:
        uid = changes.pop("study_instance_uid", None) or str(generate_uid())
        head = replace(HEAD, study_instance_uid=uid, **changes)
        return uid, write_series(self.folder / str(generate_uid()), head)

    def node(self) -> Any:
        return parts_of_a_node(self.values, self.model, self.decoder)

    def rows(self, table: Any, **where: Any) -> list[Any]:
        database = open_database(f"sqlite:///{self.database}")
        try:
            return rows(database, table, **where)
        finally:
            database.close()

    def report_and_lose(self, **of_sender: str) -> tuple[str, list[Path]]:
        """Have a head reported, then lose the database; give the study's UID and its files."""
        uid, files = self.head()
        with self.node() as node:
            send(node, files, **of_sender)
            node.settle()
        self.lose_the_database()
        return uid, files

    def lose_the_database(self) -> None:
        for path in self.state.glob("ich-node.sqlite*"):
            path.unlink()

    def rebuild(self, **options: Any) -> Any:
        return rebuild(parse_config(self.values), **options)


def send(node: PartsOfANode, files: list[Path], calling_ae_title: str = "SCANNER1") -> None:
    assert send_study(files, "127.0.0.1", node.receiver.port, "ICH_NODE", calling_ae_title) == len(files)


@pytest.fixture
def site(tmp_path: Path, tiny_model: Any, decoder: Any) -> Iterator[Site]:
    with SmallPacs(tmp_path / "pacs") as pacs:
        values = settings(tmp_path / "state", tmp_path, destinations=[("pacs", pacs.port)])
        values["destination"][0]["objects"] = ALL
        yield Site(values, tmp_path, tiny_model, decoder, pacs)


def test_what_was_reported_is_known_again_and_sent_under_the_same_uids(site: Site) -> None:
    uid, files = site.head()
    with site.node() as node:
        send(node, files)
        node.settle()
    before = {(row.sop_instance_uid, row.kind, row.encoding, row.preference, row.revision, row.sha256, row.path)
              for row in site.rows(ResultRow)}  # fmt: skip
    answer = site.rows(StudyRow)[0].triage
    sent = sorted(site.pacs.directory.rglob("*.dcm"))
    assert len(before) > 5
    site.lose_the_database()
    done = site.rebuild()
    assert (done.images, done.results, done.series, done.same_installation) == (12, len(before), {"CONCLUDED": 1}, True)
    after = {(row.sop_instance_uid, row.kind, row.encoding, row.preference, row.revision, row.sha256, row.path)
             for row in site.rows(ResultRow)}  # fmt: skip
    assert after == before
    (study,) = site.rows(StudyRow)
    assert (study.study_instance_uid, study.revision, study.triage) == (uid, 1, answer)
    with site.node() as node:
        status = node.settle()
        assert {one.state for one in status.studies[0].deliveries} == {"DELIVERED"}
        assert status.studies[0].revision == 1  # nothing was analysed again
    assert sorted(site.pacs.directory.rglob("*.dcm")) == sent  # each again under its own UID


def test_a_late_slice_after_a_rebuild_makes_the_next_revision(site: Site) -> None:
    uid, files = site.head()
    with site.node() as node:
        send(node, files[:-1])
        node.settle()
    first = {row.sop_instance_uid for row in site.rows(ResultRow, kind="SR")}
    site.lose_the_database()
    site.rebuild()
    with site.node() as node:
        send(node, files[-1:])
        study = node.settle().studies[0]
        assert (study.study_instance_uid, study.revision) == (uid, 2)
    assert first < {row.sop_instance_uid for row in site.rows(ResultRow, kind="SR")}


@pytest.mark.slow
def test_a_series_of_which_the_report_does_not_hold_every_image_is_analysed_again(site: Site) -> None:
    _, files = site.head()
    with site.node() as node:
        send(node, files[:-1])
        node.settle()
        send(node, files[-1:])  # received, and not looked at any more
    site.lose_the_database()
    assert site.rebuild().series == {"RECEIVING": 1}
    with site.node() as node:
        assert node.settle().studies[0].revision == 2


@pytest.mark.slow
def test_images_without_a_report_are_analysed_and_know_when_and_from_whom_they_came(site: Site) -> None:
    _, files = site.head()
    with site.node() as node:
        send(node, files)
    for number, path in enumerate(sorted(site.state.glob("spool/*/*.dcm"))):
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    site.lose_the_database()
    assert site.rebuild().series == {"RECEIVING": 1}
    (series,) = site.rows(SeriesRow)
    assert (series.calling_ae_title, series.first_received_at, series.last_received_at) == (
        "SCANNER1", 1_700_000_000.0, 1_700_000_011.0)  # fmt: skip
    with site.node() as node:
        assert node.settle().studies[0].revision == 1


@pytest.mark.slow
def test_a_second_series_after_a_rebuild_has_the_first_analysed_again_to_speak_of_it(site: Site) -> None:
    uid, _ = site.report_and_lose()
    site.rebuild()
    _, second = site.head(study_instance_uid=uid, lesion=None, seed=7)
    with site.node() as node:
        for table in (SeriesRow, StudyRow):  # as a trained network says it: the second series says something else
            change(node.database, table, triage="positive")
        send(node, second)
        status = node.settle()
        assert status.studies[0].series[0].state == "CONCLUDED"
        assert status.studies[0].series[1].state in ("CONCLUDED", "NOT_ANALYSED")
        assert status.studies[0].revision > 1
    assert site.rows(SeriesRow)[0].finding, "which no report holds"
    assert not site.rows(SeriesRow, state="FAILED")


def test_a_damaged_database_is_put_aside_and_a_sound_one_left_alone(site: Site) -> None:
    _, files = site.head()
    with site.node() as node:
        send(node, files)
        node.settle()
    with pytest.raises(StartError, match="is sound"):
        site.rebuild()
    content = bytearray(site.database.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    site.database.write_bytes(content)
    done = site.rebuild()
    assert done.put_aside is not None
    assert done.put_aside.read_bytes() == content
    assert (done.images, done.series) == (12, {"CONCLUDED": 1})
    assert len(site.rows(InstanceRow)) == 12


def test_a_node_does_not_start_on_what_its_database_knew_once(site: Site) -> None:
    with site.node() as node:
        send(node, site.head()[1])
    site.lose_the_database()
    with pytest.raises(ConfigError, match=r"the database is empty.*ich-node rebuild"), site.node():
        pass
    site.rebuild()
    with site.node() as node:
        assert node.settle()


def test_nothing_is_rebuilt_under_a_node_that_runs(site: Site) -> None:
    with (
        holding_role(site.state, "work", alone=False),
        pytest.raises(AlreadyRunning, match="the node runs on it: stop it first"),
    ):
        site.rebuild()


@pytest.mark.slow
def test_images_that_were_taken_back_stay_so(site: Site) -> None:
    uid, files = site.head()
    with site.node() as node:
        send(node, files)
        node.settle()
        send(node, [rejection_note(site.folder, "113001", uid, files)])
        node.settle()
        assert node.status().studies[0].withdrawn
    site.lose_the_database()
    assert site.rebuild().series.get("REJECTED") == 1
    with site.node() as node:
        study = node.settle().studies[0]
        assert (study.triage, study.withdrawn, study.revision) == (None, True, 2)


@pytest.mark.slow
def test_damaged_files_are_kept_and_named(site: Site) -> None:
    site.report_and_lose()
    image = next(site.state.glob("spool/*/*.dcm"))
    image.write_bytes(image.read_bytes()[:500])
    result = next(site.state.glob("results/*.dcm"))
    result.write_bytes(b"nonsense")
    done = site.rebuild()
    assert sorted(done.unreadable) == sorted(
        [str(image.relative_to(site.state)), str(result.relative_to(site.state)).replace(".dcm", ".unreadable")]
    )
    assert all((site.state / path).exists() for path in done.unreadable)


@pytest.mark.slow
def test_people_are_told_again_of_recent_results_and_not_of_old_ones(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.report_and_lose()
    site.rebuild()
    (study,) = site.rows(StudyRow)
    assert (study.revision, study.alerted_revision) == (1, 0)
    site.lose_the_database()
    monkeypatch.setattr("ich_node.rebuild._ALERT_AGAIN_S", -1.0)  # every report is older than that
    site.rebuild()
    (study,) = site.rows(StudyRow)
    assert (study.revision, study.alerted_revision) == (1, 1)
    assert not site.rows(AlertRow)


def test_what_is_held_by_law_and_what_nobody_knows_to_have_arrived_is_not_deleted_after_a_rebuild(site: Site) -> None:
    uid, files = site.head()
    with site.node() as node:
        send(node, files)
        node.settle()
        assert place_hold(node.database, uid, "a court asks for it", "somebody")
        save_holds(node.database, site.state)
    site.lose_the_database()
    assert site.rebuild(hold=True).holds == 1
    (kept,) = site.rows(LegalHoldRow)
    assert (kept.reason, kept.placed_by, kept.lifted_at) == ("a court asks for it", "somebody", None)

    database = open_database(f"sqlite:///{site.database}")
    with database.writing() as connection:
        long_ago = {"first_received_at": 0.0, "last_received_at": 0.0, "state": "CONCLUDED"}
        connection.execute(update(SeriesRow).values(long_ago))
        connection.execute(update(LegalHoldRow).values(lifted_at=1.0))
    rules = parse_config(site.values).retention_rules
    assert not forget_expired_images(database, rules), "a person has to resend first"
    with database.writing() as connection:
        connection.execute(update(DeliveryRow).values(state="DELIVERED"))
        connection.execute(update(LegalHoldRow).values(lifted_at=None))
    assert not forget_expired_images(database, rules), "it is held"
    with database.writing() as connection:
        connection.execute(update(LegalHoldRow).values(lifted_at=1.0))
    assert forget_expired_images(database, rules)
    database.close()


@pytest.mark.slow
def test_deliveries_wait_where_they_are_to_be_held(site: Site) -> None:
    site.report_and_lose()
    done = site.rebuild(hold=True)
    assert {row.state for row in site.rows(DeliveryRow)} == {"HELD"}
    assert done.deliveries == len(site.rows(DeliveryRow))


@pytest.mark.slow
def test_results_of_a_sender_with_rules_of_its_own_wait_where_nobody_knows_it(site: Site) -> None:
    """A trial scanner in shadow mode: what it sent leaves the node after a rebuild as little as before."""
    site.report_and_lose(calling_ae_title="TRIAL")
    site.values["peer"] = [{"ae_title": "TRIAL", "address": "127.0.0.0/8", "mode": "shadow"}]
    site.rebuild()
    assert {(row.state, row.error) for row in site.rows(DeliveryRow)} == {
        ("HELD", "shadow mode: nothing leaves the node")
    }


def test_the_command_prints_what_it_found_and_what_it_could_not_restore(site: Site, capsys: Any) -> None:
    site.report_and_lose()
    configuration = site.folder / "ich-node.toml"
    configuration.write_text(as_toml(site.values))
    assert main(["rebuild", "--config", str(configuration)]) == 0
    printed = capsys.readouterr().out
    assert "images      12 entered" in printed
    assert "not restored" in printed
    assert main(["rebuild", "--config", str(configuration)]) == 1
    assert "is sound" in capsys.readouterr().err


@pytest.mark.slow
def test_a_rebuild_enters_two_thousand_files(site: Site) -> None:
    with site.node() as node:
        send(node, site.head(slices=20, rows=512, slice_spacing_mm=6.8)[1])
    multiply(site.state / "spool", 100)
    site.lose_the_database()
    done = site.rebuild()
    rate = done.images / done.seconds
    sys.stdout.write(f"\nrebuild: {done.images} images of 512 KiB in {done.seconds:.2f} s: {rate:.0f}/s\n")
    assert done.images == 2000


def multiply(spool: Path, times: int) -> None:
    """Write each image of a spool again, under UIDs of the same length, so that its offsets stay."""
    for path in list(spool.glob("*/*.dcm")):
        uid = dcmread(path, stop_before_pixels=True).SOPInstanceUID.encode()
        part10 = path.read_bytes()
        for number in range(1, times):
            other = uid[:-5] + b"%05d" % (number + 10000)
            name = uuid.uuid4().hex
            (spool / name[:2] / f"{name}.dcm").write_bytes(part10.replace(uid, other))


def test_what_a_self_test_left_is_deleted_and_never_taken_for_a_patient(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "ROWS", 64)
    uid, files = site.head()
    with site.node() as node:
        send(node, files)
        node.settle()
        ask_self_test(node.database, "tests")
        test = next_self_test(node.database)
        assert test is not None
        what = order.sending_order(node.config, test)
        assert sending.send(what, sending.draw(what)) == ""
        with working(node):
            wait_for(lambda: site.rows(StudyRow)[-1].revision, "the test has its report")
    of_both = len(site.rows(ResultRow))
    of_patient = len(site.rows(ResultRow, study_id=1))
    assert of_both > of_patient
    site.lose_the_database()

    done = site.rebuild()

    assert (done.images, done.results, done.unreadable) == (12, of_patient, [])
    assert done.of_self_tests == 14 + of_both - of_patient
    assert [row.study_instance_uid for row in site.rows(StudyRow)] == [uid]
    left = [path for name in ("spool", "results") for path in (site.state / name).rglob("*.dcm")]
    assert len(left) == 12 + of_patient
