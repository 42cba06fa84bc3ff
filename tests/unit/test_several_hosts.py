"""Hosts that share a database and a folder: what one does at a time, what is another's, and whose clock counts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from ich_node.config.load import parse_config
from ich_node.database import (
    AlertRow,
    Database,
    DeliveryRow,
    InstanceRow,
    StudyRow,
    TurnRow,
    open_database,
    prepare_database,
    read_installation,
)
from ich_node.database import installation as installation_module
from ich_node.errors import ConfigError
from ich_node.job_queue import Turn, claim_deliveries, is_still_ours, mark_delivered, new_owner, renew_deliveries, turns
from ich_node.job_queue.alert_outbox import claim_alert
from ich_node.job_queue.turns import take_turn
from ich_node.receive.spool import Spool
from ich_node.records import AlertKind, AlertState, Delivery, Reception
from ich_node.stored_files import LocalFiles
from ich_node.supervisor import roles_of
from tests.outbox import Outbox, outbox
from tests.running import free_port
from tests.unit.queueing import change, open_queue, receive, received, rows

POSTGRESQL = "postgresql+psycopg://node@db/ich"
AN_HOUR_S = 3600.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_queue(tmp_path)
    yield database
    database.close()


# --------------------------------------------------------------------------------------------- turns


def test_a_turn_is_one_owners_until_it_runs_out(database: Database) -> None:
    assert take_turn(database, "housekeeping", "one", lease_s=60)
    assert not take_turn(database, "housekeeping", "two", lease_s=60)
    assert take_turn(database, "self-test", "two", lease_s=60)
    assert take_turn(database, "housekeeping", "one", lease_s=60)
    change(database, TurnRow, expires_at=time.time() - 1)
    assert take_turn(database, "housekeeping", "two", lease_s=60)
    assert not take_turn(database, "housekeeping", "one", lease_s=60)


def test_a_turn_is_renewed_before_it_runs_out_and_not_at_every_question(database: Database) -> None:
    take_turn(database, "housekeeping", "one", lease_s=60)
    (first,) = rows(database, TurnRow)
    take_turn(database, "housekeeping", "one", lease_s=60)
    assert rows(database, TurnRow)[0].expires_at == first.expires_at
    change(database, TurnRow, expires_at=time.time() + 30)
    take_turn(database, "housekeeping", "one", lease_s=60)
    assert rows(database, TurnRow)[0].expires_at > time.time() + 50


def test_a_turn_that_was_given_back_is_anothers_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "new_owner", iter(["one", "two"]).__next__)
    monkeypatch.setattr(turns, "_ASKED_EVERY_S", 0.0)
    mine, theirs = Turn(database, "housekeeping"), Turn(database, "housekeeping")
    assert (mine.is_mine(), theirs.is_mine()) == (True, False)
    mine.give_back()
    assert (theirs.is_mine(), mine.is_mine()) == (True, False)


# ------------------------------------------------------------------------------------------- outboxes


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Outbox]:
    with outbox(tmp_path / "state", free_port()) as box:
        yield box


def claim(box: Outbox, owner: str, lease_s: float = 60.0) -> list[Delivery]:
    return claim_deliveries(box.database, owner, box.config.state_directory, lease_s=lease_s, limit=1)


def test_revisions_of_a_study_wait_for_the_deliverer_that_sends_one_and_other_studies_do_not(box: Outbox) -> None:
    uid = box.add_study()
    (first,) = claim(box, "one")
    box.add_study(uid, revision=2)
    assert [row.state for row in rows(box.database, DeliveryRow)] == ["SUPERSEDED", "PENDING"]
    assert claim(box, "two") == []  # the first is on its way yet
    box.add_study()
    (other,) = claim(box, "two")
    assert other.study_instance_uid != uid
    mark_delivered(box.database, first, "one", first.objects[0].sop_instance_uid, 0)
    (second,) = claim(box, "two")
    assert (second.study_instance_uid, second.revision) == (uid, 2)


def test_a_revision_that_was_outrun_before_it_was_sent_is_let_go(box: Outbox) -> None:
    uid = box.add_study()
    (outrun,) = claim(box, "one")
    box.add_study(uid, revision=2)
    assert not is_still_ours(box.database, outrun, "one")
    assert [one.revision for one in claim(box, "two")] == [2]


def test_what_a_deliverer_that_is_gone_was_sending_is_sent_when_its_lease_is_over(box: Outbox) -> None:
    box.add_study()
    (lost,) = claim(box, "one", lease_s=-1.0)
    assert is_still_ours(box.database, lost, "one")
    assert [one.id for one in claim(box, "two")] == [lost.id]
    assert not is_still_ours(box.database, lost, "one")


def test_a_deliverer_that_lives_keeps_what_it_sends_however_long_that_takes(box: Outbox) -> None:
    box.add_study()
    (held,) = claim(box, "one", lease_s=-1.0)
    renew_deliveries(box.database, "one", lease_s=60)
    assert claim(box, "two") == []
    assert is_still_ours(box.database, held, "one")


def test_alerts_of_a_study_wait_for_the_alerter_that_tells_one_and_others_do_not(box: Outbox) -> None:
    box.add_study()
    box.add_study()
    first_study, second_study = (row.id for row in rows(box.database, StudyRow))
    enter_alert(box.database, first_study, "A", revision=1)
    enter_alert(box.database, first_study, "B", revision=2)
    for study_id, identifier in ((second_study, "C"), (None, "D"), (None, "E")):
        enter_alert(box.database, study_id, identifier)

    def told_by(owner: str) -> str | None:
        alert = claim_alert(box.database, owner, lease_s=60, busy=(), most_per_minute={"ris": 10})
        return None if alert is None else alert.identifier

    assert told_by("one") == "A"
    assert [told_by("two"), told_by("three"), told_by("four"), told_by("five")] == ["C", "D", "E", None]
    with box.database.writing() as connection:
        gone = update(AlertRow).where(AlertRow.identifier == "A")
        connection.execute(gone.values(lease_expires_at=time.time() - 1))
    assert told_by("five") == "A"


def enter_alert(database: Database, study_id: int | None, identifier: str, revision: int = 0) -> None:
    now = time.time()
    row = {"study_id": study_id, "revision": revision, "kind": AlertKind.FINAL, "outcome": "x", "told_before": "",
           "channel": "ris", "channel_kind": "webhook", "step": 0, "state": AlertState.PENDING,
           "next_attempt_at": now - 1, "created_at": now, "identifier": identifier}  # fmt: skip
    with database.writing() as connection:
        connection.execute(insert(AlertRow).values(row))


# ---------------------------------------------------------------------------------------------- spool


def test_a_receiver_that_starts_leaves_alone_what_another_host_is_writing(tmp_path: Path) -> None:
    mine, theirs = (Spool(LocalFiles(tmp_path, mark), 0, mark) for mark in ("-aa", "-bb"))
    mine.prepare()
    half = [tmp_path / "spool/00" / name for name in ("1-aa.part", "2-bb.part")]
    for path in half:
        path.write_bytes(b"half")
    mine.prepare()
    assert [path.exists() for path in half] == [False, True]
    left = theirs.write((b"whole",))
    (young,) = theirs.files()
    assert theirs.is_left_over(young)
    assert not mine.is_left_over(young), "its host is about to enter it"
    os.utime(tmp_path / left, (time.time() - 2 * AN_HOUR_S,) * 2)
    (old,) = mine.files()
    assert mine.is_left_over(old), "its host is gone"


def test_of_one_host_every_file_is_its_own(tmp_path: Path) -> None:
    spool = Spool(LocalFiles(tmp_path), 0)
    spool.prepare()
    Spool(LocalFiles(tmp_path, "-aa"), 0, "-aa").write((b"x",))
    assert all(spool.is_left_over(one) for one in spool.files())


def test_an_object_that_another_receiver_adopted_keeps_its_file(database: Database) -> None:
    """Both have entered the same file: who is second must not delete it as a duplicate."""
    instance = received(1)
    assert receive(database, instance) is Reception.NEW
    assert receive(database, instance) is Reception.NEW
    assert [row.path for row in rows(database, InstanceRow)] == [instance.path]
    assert receive(database, received(1)) is Reception.DUPLICATE


# -------------------------------------------------------------------------------------- configuration


def configured(node: dict[str, object], **sections: dict[str, object]) -> dict[str, object]:
    return {"node": node, "receiver": {"allow_any": True}, **sections}


def test_a_node_of_one_host_has_one_folder_and_every_role(tmp_path: Path) -> None:
    config = parse_config(configured({"state_directory": str(tmp_path)}))
    assert not config.has_several_hosts
    assert config.host_directory == config.state_directory == tmp_path
    assert roles_of(config) == ("receive", "work", "deliver")


def test_a_host_of_several_has_a_folder_of_its_own_and_its_roles(tmp_path: Path) -> None:
    node = {"state_directory": "/mnt/node", "host_directory": str(tmp_path), "roles": ["work"]}
    config = parse_config(configured(node, database={"url": POSTGRESQL}))
    assert config.has_several_hosts
    assert (config.state_directory, config.host_directory) == (Path("/mnt/node"), tmp_path)
    assert roles_of(config) == ("work",)


@pytest.mark.parametrize(
    ("node", "sections", "says"),
    [
        ({"host_directory": "own"}, {}, "set database.url to PostgreSQL"),
        ({"host_directory": "var"}, {"database": {"url": POSTGRESQL}}, "is this host's alone"),
        ({"roles": []}, {}, "this host would do nothing"),
    ],
)
def test_what_cannot_be_shared_is_a_fault(
    node: dict[str, object], sections: dict[str, dict[str, object]], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config(configured(node, **sections))


def test_a_host_that_only_shows_pages_has_no_other_role() -> None:
    config = parse_config(configured({"roles": []}, web={"enabled": True}))
    assert roles_of(config) == ("web",)


# ---------------------------------------------------------------------------------------- installation


def test_machines_that_share_the_folder_are_one_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, uids = tmp_path / "shared", []
    for machine in ("one", "two"):
        (tmp_path / machine).mkdir()
        (tmp_path / machine / "machine-id").write_text(machine)
        monkeypatch.setattr(installation_module, "_MACHINE_ID", tmp_path / machine / "machine-id")
        database = open_database(f"sqlite:///{tmp_path / 'node.sqlite'}")
        uids.append(prepare_database(database, shared, host_directory=tmp_path / machine / "own"))
        database.close()
    assert uids[0] == uids[1]
    filed = read_installation(shared)
    assert filed is not None
    assert (filed.machine, filed.directory) == ("", str(shared))
    assert {path.name for path in (tmp_path / "two/own").iterdir()} == {"migrate.lock"}


def test_an_owner_names_its_host() -> None:
    assert new_owner().split(":")[0] == os.uname().nodename
