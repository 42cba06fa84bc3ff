"""What is deleted when, and that deleting loses no answer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from sqlalchemy import update

from ich_node import housekeeping
from ich_node.database import DeliveryRow, InstanceRow, ResultRow, SeriesRow
from ich_node.decode import DecoderPool
from ich_node.errors import SpoolFull
from ich_node.housekeeping import (
    delete_expired,
    remove_strays,
    rescue_leases,
    start_housekeeping,
    wake_housekeeping,
    watch_disk,
    watch_retention,
    watch_silence,
)
from ich_node.job_queue import requeue
from ich_node.pacs import SmallPacs, send_study
from ich_node.phantom import PhantomSettings, write_series
from ich_node.pipeline import Model
from ich_node.receive import Receiver
from ich_node.stored_files import LocalFiles
from tests.running import PartsOfANode, parts_of_a_node, settings, wait_for
from tests.unit.queueing import rows

DAY = 86400.0


@pytest.fixture
def node(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> Iterator[PartsOfANode]:
    with SmallPacs(tmp_path / "pacs") as pacs:
        values = settings(tmp_path / "state", Path("unused"), destinations=[("pacs", pacs.port)])
        with parts_of_a_node(values, tiny_model, decoder) as one:
            yield one


@pytest.fixture
def head(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "head", PhantomSettings(lesion="subdural", slices=12, rows=64, slice_spacing_mm=11))


@pytest.fixture
def localizer(tmp_path: Path) -> list[Path]:
    """One slice that no report is expected for."""
    (path,) = write_series(tmp_path / "other", PhantomSettings(slices=1, rows=64))
    header = dcmread(path)
    header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    header.save_as(path)
    return [path]


def test_images_of_a_head_go_after_14_days_and_the_answer_stays(node: PartsOfANode, head: list[Path]) -> None:
    before = analyse(node, head)
    age(node, 13.9)
    assert delete_expired(node.config, node.database) == 0
    assert len(images(node)) == 12

    age(node, 14.1)
    assert delete_expired(node.config, node.database) == 12

    assert not images(node)
    assert len(results(node)) == 3, "reports stay for a year"
    after = node.status().studies[0]
    assert (after.triage, after.outcome) == (before.triage, before.outcome)
    assert node.status().instances == {"DECODED": 12}, "rows with UIDs and hashes stay"
    assert delete_expired(node.config, node.database) == 0


def test_a_kill_before_files_are_unlinked_leaves_them_to_the_next_run(
    node: PartsOfANode, head: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    analyse(node, head)
    age(node, 14.1)
    with monkeypatch.context() as patch:
        patch.setattr(housekeeping, "_delete", killed)
        with pytest.raises(KeyboardInterrupt):
            delete_expired(node.config, node.database)
    assert len(images(node)) == 12

    Receiver(node.config, node.database).prepare()
    assert {row.path for row in rows(node.database, InstanceRow)} == {None}, "no start of the receiver takes them back"

    assert delete_expired(node.config, node.database) == 12
    assert not images(node)
    (deletion,) = node.status(uid(node)).studies[0].deletions
    assert (deletion.what, deletion.files, deletion.rule) == ("images", 12, "images_days = 14")


def test_a_file_that_cannot_be_unlinked_holds_up_no_other_for_ever(
    node: PartsOfANode, head: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    analyse(node, head)
    age(node, 14.1)
    stubborn = images(node)[0]
    stubborn.unlink()
    stubborn.mkdir()  # nobody, root neither, unlinks a folder
    assert delete_expired(node.config, node.database) == 11
    assert "a file that is to go cannot be deleted; it is tried again" in caplog.text
    stubborn.rmdir()
    assert delete_expired(node.config, node.database) == 1
    assert not images(node)


def test_what_there_is_no_room_to_record_waits_on_its_list(
    node: PartsOfANode, head: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file in a bucket is read from a copy before it goes, and the disk of this machine may be full."""

    def full(_files: LocalFiles, _names: Iterable[str]) -> Iterator[Path]:
        raise SpoolFull("no space left on the disk")

    analyse(node, head)
    age(node, 14.1)
    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "paths", full)
        assert delete_expired(node.config, node.database) == 0
    assert "a file that is to go cannot be deleted; it is tried again" in caplog.text
    assert delete_expired(node.config, node.database) == 12


def test_images_of_a_study_whose_report_is_dead_stay_and_people_are_told(
    node: PartsOfANode, head: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    analyse(node, head)
    age(node, 15)
    assert watch_retention(node.config, node.database) == 0
    with node.database.writing() as connection:
        connection.execute(update(DeliveryRow).values(state="DEAD"))
    assert delete_expired(node.config, node.database) == 0
    assert watch_retention(node.config, node.database) == 1
    assert "a person should look" in caplog.text


def test_what_is_no_head_goes_after_a_day(node: PartsOfANode, localizer: list[Path]) -> None:
    send(node, localizer)
    node.settle()
    age(node, 0.9)
    assert delete_expired(node.config, node.database) == 0
    age(node, 1.1)
    assert delete_expired(node.config, node.database) == 1
    assert not images(node)


def test_images_stay_as_long_as_a_report_waits_to_be_sent(node: PartsOfANode, head: list[Path]) -> None:
    analyse(node, head)
    with node.database.writing() as connection:
        connection.execute(update(DeliveryRow).values(state="PENDING"))
    age(node, 15)
    assert delete_expired(node.config, node.database) == 0


def test_images_of_an_open_series_stay(node: PartsOfANode, head: list[Path]) -> None:
    send(node, head)
    age(node, 400)
    assert delete_expired(node.config, node.database) == 0


def test_reports_go_after_a_year(node: PartsOfANode, head: list[Path]) -> None:
    analyse(node, head)
    age(node, 364)
    delete_expired(node.config, node.database)
    assert len(results(node)) == 3
    age(node, 366)
    assert delete_expired(node.config, node.database) == 3
    assert not results(node)


def test_a_study_sent_again_after_its_days_starts_nothing_until_it_is_queued(
    node: PartsOfANode, head: list[Path]
) -> None:
    analyse(node, head)
    age(node, 15)
    delete_expired(node.config, node.database)
    assert requeue(node.database, uid=uid(node)) == 0, "there is nothing to analyse"

    send(node, head)
    assert not node.worker.step(), "nothing starts"
    assert len(images(node)) == 12, "and everything is stored"
    assert delete_expired(node.config, node.database) == 0, "and kept for 14 days of its own"
    assert node.status().studies[0].revision == 1

    assert requeue(node.database, uid=uid(node)) == 1
    node.settle()
    study = node.status().studies[0]
    assert (study.revision, study.series[0].state, study.series[0].slices) == (2, "CONCLUDED", 12)
    assert {one.state for one in study.deliveries} == {"DELIVERED"}


def test_new_slices_of_a_study_past_its_days_start_nothing_either(
    node: PartsOfANode, head: list[Path], tmp_path: Path
) -> None:
    analyse(node, head)
    age(node, 15)
    delete_expired(node.config, node.database)

    (series,) = node.status().studies[0].series
    again = PhantomSettings(
        slices=12, rows=64, study_instance_uid=uid(node), series_instance_uid=series.series_instance_uid
    )
    send(node, write_series(tmp_path / "more", again))

    assert not node.worker.step()
    assert node.status().studies[0].revision == 1


def test_a_better_series_of_a_study_past_its_days_is_analysed(
    node: PartsOfANode, head: list[Path], tmp_path: Path
) -> None:
    analyse(node, head)
    age(node, 15)
    delete_expired(node.config, node.database)

    fresh = PhantomSettings(
        slices=26, rows=64, study_instance_uid=uid(node), series_instance_uid=str(generate_uid()), slice_spacing_mm=5
    )
    send(node, write_series(tmp_path / "more", fresh))
    node.settle()

    assert [one.state for one in node.status().studies[0].series] == ["CONCLUDED", "CONCLUDED"]


def test_connections_go_after_a_deletion_with_what_it_left_in_them(
    node: PartsOfANode, head: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    analyse(node, head)
    gone: list[str] = []
    monkeypatch.setattr(node.database, "let_idle_connections_go", lambda: gone.append("gone"))
    age(node, 14.1)
    assert delete_expired(node.config, node.database) > 0
    assert delete_expired(node.config, node.database) == 0
    assert gone == ["gone"]


def test_strays_are_half_written_files_and_reports_without_a_row(
    node: PartsOfANode, head: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_NAMES_AT_ONCE", 2)  # they are looked up in pieces
    analyse(node, head)
    state, elsewhere = node.config.state_directory, tmp_path / "another disk"
    elsewhere.mkdir()
    (state / "linked").symlink_to(elsewhere)
    old, young, far = state / "spool" / "a.dcm.part", state / "spool" / "b.dcm.part", elsewhere / "c.dcm.part"
    unknown = state / "results" / "unknown.dcm"
    for path in (old, young, far, unknown):
        path.write_bytes(b"x")
    for path in (old, far, unknown, *results(node)):
        os.utime(path, (time.time() - 7200,) * 2)

    assert remove_strays(node.config, node.database) == 3
    assert not far.exists()

    assert young.exists(), "somebody may be writing it"
    assert not old.exists()
    assert not unknown.exists()
    assert len(results(node)) == 3
    assert len(images(node)) == 12


def test_leases_that_ran_out_are_free_again(node: PartsOfANode, head: list[Path]) -> None:
    analyse(node, head)
    with node.database.writing() as connection:
        elsewhere = {"state": "SENDING", "lease_owner": "other-host:1:0.00"}
        connection.execute(update(DeliveryRow).values(elsewhere | {"lease_expires_at": time.time() + 60}))
    assert rescue_leases(node.config, node.database) == 0
    with node.database.writing() as connection:
        connection.execute(update(DeliveryRow).values(lease_expires_at=time.time() - 1))
    assert rescue_leases(node.config, node.database) == 1
    assert node.status().deliveries == {"PENDING": 1}


def test_the_disk_is_watched(
    node: PartsOfANode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = os.statvfs(node.config.state_directory)
    free_mib = disk.f_bavail * disk.f_frsize // 2**20
    for reserve_mib, event in ((1, None), (free_mib * 3 // 4, "nearly"), (free_mib * 2, "senders get 0xA700")):
        caplog.clear()
        receiver = replace_field(node.config.receiver, reserve_mib=reserve_mib)
        watch_disk(replace_field(node.config, receiver=receiver), node.database)
        logged = [record.getMessage() for record in caplog.records]
        assert [event in one for one in logged] == ([True] if event else []), logged


def test_studies_that_wait_without_a_worker_are_told(
    node: PartsOfANode, head: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    send(node, head)
    assert watch_silence(node.config, node.database) == 0
    age(node, 0.02)
    assert watch_silence(node.config, node.database) == 1
    assert "studies wait without a result; is `ich-node work` running?" in caplog.text


def test_the_jobs_run_on_their_own(
    node: PartsOfANode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with start_housekeeping(node.config, node.database) as scheduler:
        assert {job.id for job in scheduler.get_jobs()} == {
            "rescue_leases", "watch_disk", "watch_silence", "watch_certificate", "delete_expired", "watch_retention",
            "remove_strays", "delete_old_audit", "watch_drift",
        }  # fmt: skip

        def fail() -> None:
            raise OSError("no such disk")

        scheduler.add_job(fail, id="fail")
        wait_for(lambda: "housekeeping failed" in caplog.text, "a failing job is told")
    assert housekeeping.log is not None


def test_a_host_whose_turn_it_is_not_keeps_its_own_house_alone(
    node: PartsOfANode, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, rescued, deleted = threading.Semaphore(0), threading.Event(), threading.Event()
    monkeypatch.setattr(housekeeping, "free_leases_of_the_dead", lambda _database: rescued.set() or 0)
    monkeypatch.setattr(housekeeping, "forget_expired_images", lambda *_: deleted.set() or [])

    def is_our_turn() -> bool:
        asked.release()
        return False

    with start_housekeeping(node.config, node.database, is_our_turn) as scheduler:
        wake_housekeeping(scheduler)
        assert all(asked.acquire(timeout=30) for _ in range(6))
        assert rescued.wait(30)
    assert not deleted.is_set()


def test_every_job_runs_soon_after_the_start_whatever_its_interval(node: PartsOfANode) -> None:
    began = datetime.now(UTC)
    with start_housekeeping(node.config, node.database) as scheduler:
        soon = {job.id: (job.next_run_time - began).total_seconds() for job in scheduler.get_jobs()}
    assert len(soon) == 9
    assert max(soon.values()) < 150


def test_a_run_that_was_missed_is_told(node: PartsOfANode, caplog: pytest.LogCaptureFixture) -> None:
    with start_housekeeping(node.config, node.database) as scheduler:
        late = datetime.now(UTC) - timedelta(hours=3)
        scheduler.add_job(lambda: None, "date", run_date=late, misfire_grace_time=1, id="late")
        wait_for(lambda: "housekeeping missed" in caplog.text, "a missed run is told")


def test_a_clock_that_is_set_back_does_not_stop_the_housekeeping(node: PartsOfANode) -> None:
    """The scheduler waits by the clock: it would do nothing until the old time has come again."""
    with start_housekeeping(node.config, node.database) as scheduler:
        far = datetime.now(UTC) + timedelta(hours=12)  # the rarest job runs every six
        for job in scheduler.get_jobs():
            job.modify(next_run_time=far)
        wake_housekeeping(scheduler)
        wait_for(lambda: all(job.next_run_time < far for job in scheduler.get_jobs()), "every job is due soon")


def analyse(node: PartsOfANode, files: list[Path]):
    send(node, files)
    (study,) = node.settle().studies
    assert study.series[0].state == "CONCLUDED"
    assert node.status().deliveries == {"DELIVERED": 1}
    return study


def send(node: PartsOfANode, files: list[Path]) -> None:
    assert send_study(files, "127.0.0.1", node.receiver.port, "ICH_NODE") == len(files)


def uid(node: PartsOfANode) -> str:
    return node.status().studies[0].study_instance_uid


def age(node: PartsOfANode, days: float) -> None:
    """Make everything in the database this old."""
    then = time.time() - days * DAY
    with node.database.writing() as connection:
        connection.execute(update(InstanceRow).values(received_at=then))
        connection.execute(update(SeriesRow).values(first_received_at=then, last_received_at=then))
        connection.execute(update(ResultRow).values(created_at=then))


def images(node: PartsOfANode) -> list[Path]:
    return list((node.config.state_directory / "spool").rglob("*.dcm"))


def results(node: PartsOfANode) -> list[Path]:
    return list((node.config.state_directory / "results").rglob("*.dcm"))


def replace_field(section, **changes):
    return section.model_copy(update=changes)
