"""Totals that never fall, labels that are bounded, and what is looked at for readiness."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert, update

from ich_node.config import WebSettings, parse_config
from ich_node.database import AlertRow, Database, DeliveryRow, ResultRow, SeriesRow, StudyRow
from ich_node.job_queue.workers import note_worker
from ich_node.queries import Mark, happenings_since
from ich_node.records import RunningWorker
from ich_node.role_lock import holding_role, role_is_held
from ich_node.stored_files import LocalFiles
from ich_node.web.exposition import Exposition
from ich_node.web.folder_sizes import FolderSize, FolderSizes
from ich_node.web.readiness import Readiness
from ich_node.web.totals import FILE, Sums, Totals
from tests.postgresql import database_url
from tests.unit.queueing import change, open_queue, receive, received

NOW = 1_700_000_000.0
STEPS = {
    "first slice received": NOW, "last slice received": NOW + 8, "series closed": NOW + 11, "analysed": NOW + 12,
    "report saved": NOW + 12.5,
}  # fmt: skip


@pytest.fixture
def database(tmp_path: Path) -> Any:
    opened = open_queue(tmp_path)
    yield opened
    opened.close()


def totals(database: Database, folder: Path) -> Totals:
    return Totals(folder, lambda mark: happenings_since(database, mark, most=2))


def sums(database: Database, folder: Path) -> Sums:
    """What a process says that begins now."""
    found = totals(database, folder).now()
    assert found is not None
    return found


def report(database: Database, study: int, revision: int, at: float = NOW + 12.6, **steps: float) -> None:
    """Save a report of three encodings on the first series of a study."""
    with database.writing() as connection:
        for preference in range(3):
            uid = f"2.25.{study}.{revision}.{preference}"
            values = {"study_id": study, "revision": revision, "kind": "SR", "encoding": str(preference),
                      "preference": preference, "sop_class_uid": "1.2", "sop_instance_uid": uid, "sha256": "x",
                      "created_at": at}  # fmt: skip
            connection.execute(insert(ResultRow).values(values))
        said = {"revision": revision, "triage": "positive", "rests_on_series_id": study}
        connection.execute(update(StudyRow).where(StudyRow.id == study).values(said))
        connection.execute(update(SeriesRow).where(SeriesRow.id == study).values(steps=STEPS | steps))


def deliver(database: Database, study: int, at: float, state: str = "DELIVERED", destination: str = "pacs") -> None:
    values = {"study_id": study, "revision": 1, "kind": "SR", "destination": destination, "ae_title": "PACS",
              "host": "10.0.0.1", "port": 104, "state": state, "next_attempt_at": NOW, "created_at": NOW + 12.6,
              "finished_at": None if state == "PENDING" else at}  # fmt: skip
    with database.writing() as connection:
        connection.execute(insert(DeliveryRow).values(values))


def tell(database: Database, study: int, **values: Any) -> None:
    values = {"identifier": f"A{study}", "study_id": study, "revision": 1, "kind": "final", "outcome": "positive",
              "channel": "ris", "channel_kind": "hl7", "step": 0, "state": "SENT", "next_attempt_at": NOW,
              "created_at": NOW + 13, "sent_at": NOW + 14.6} | values  # fmt: skip
    with database.writing() as connection:
        connection.execute(insert(AlertRow).values(values))


# ---------------------------------------------------------------------------------------------- happenings


def test_each_step_of_a_study_is_measured_once(database: Database, tmp_path: Path) -> None:
    receive(database, received(1), received(2))
    report(database, 1, 1)
    deliver(database, 1, NOW + 14.6)
    tell(database, 1, acknowledged_at=NOW + 74.6)
    found = happenings_since(database, Mark())
    assert sorted((step, round(seconds, 3)) for step, seconds in found.seconds) == [
        ("acknowledging", 60.0), ("alerting", 2.0), ("analysing", 1.0), ("answering", 4.5), ("closing", 3.0),
        ("delivering", 2.0), ("receiving", 8.0), ("reporting", 0.5),
    ]  # fmt: skip
    assert found.counts == {
        ("studies",): 1, ("series",): 1, ("instances", "ct"): 2, ("bytes",): 2000, ("reports", "positive"): 1,
        ("delivered", "pacs"): 1, ("told", "ris", "final"): 1,
    }  # fmt: skip
    again = happenings_since(database, found.mark)
    assert (again.mark, again.seconds, +again.counts) == (found.mark, (), {})


def test_a_second_report_on_the_same_analysis_took_no_step_again(database: Database) -> None:
    receive(database, received(1))
    report(database, 1, 1)
    first = happenings_since(database, Mark())
    assert len(first.seconds) == 5
    report(database, 1, 2, at=NOW + 500)
    second = happenings_since(database, first.mark)
    assert second.seconds == ()
    assert +second.counts == {("reports", "positive"): 1}


def test_a_series_that_is_analysed_again_counts_again(database: Database) -> None:
    receive(database, received(1))
    report(database, 1, 1)
    first = happenings_since(database, Mark())
    report(database, 1, 2, at=NOW + 500, **{"analysed": NOW + 490, "report saved": NOW + 499})
    assert dict(happenings_since(database, first.mark).seconds)["reporting"] == 9.0


def test_a_delivery_that_waited_while_later_ones_arrived_is_counted_when_it_arrives(database: Database) -> None:
    receive(database, received(1))
    for number, state in enumerate(("PENDING", "DELIVERED", "DEAD")):
        deliver(database, 1, NOW + 20 + number, state, destination=f"d{number}")
    first = happenings_since(database, Mark())
    assert first.counts["delivered", "d1"] == 1
    assert ("delivered", "d0") not in first.counts
    assert ("delivered", "d2") not in first.counts
    with database.writing() as connection:
        waits = update(DeliveryRow).where(DeliveryRow.destination == "d0")
        connection.execute(waits.values(state="DELIVERED", finished_at=NOW + 90))
    second = happenings_since(database, first.mark)
    assert +second.counts == {("delivered", "d0"): 1}
    assert happenings_since(database, second.mark).mark == second.mark


# -------------------------------------------------------------------------------------------------- totals


def test_a_new_process_goes_on_where_the_last_one_was(database: Database, tmp_path: Path) -> None:
    receive(database, received(1))
    report(database, 1, 1)
    before = sums(database, tmp_path)
    change(database, SeriesRow, steps={}, state="RECEIVING")
    change(database, StudyRow, triage=None, rests_on_series_id=None)
    after = sums(database, tmp_path)
    assert (after.counts, after.steps) == (before.counts, before.steps)
    receive(database, received(1, study=2))
    assert sums(database, tmp_path).counts["studies",] == 2


def test_a_database_that_was_made_anew_takes_nothing_from_the_totals(tmp_path: Path) -> None:
    old, new = open_queue(tmp_path), None
    try:
        receive(old, *(received(1, study=number) for number in (1, 2, 3)))
        assert sums(old, tmp_path).counts["studies",] == 3
        (tmp_path / "rebuilt").mkdir()
        new = open_queue(tmp_path / "rebuilt")
        receive(new, received(1, study=1))
        assert sums(new, tmp_path).counts["studies",] == 3
        receive(new, received(1, study=9))
        assert sums(new, tmp_path).counts["studies",] == 4
    finally:
        old.close()
        if new is not None:
            new.close()


def test_a_long_past_is_counted_bit_by_bit_and_nothing_is_said_before_its_end(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(database, *(received(1, study=number) for number in range(1, 6)))
    for number in range(1, 6):
        report(database, number, 1)
    monkeypatch.setattr("ich_node.web.totals._LONGEST_S", 1e-9)
    counting, looks = totals(database, tmp_path), 1
    while (found := counting.now()) is None:
        looks += 1
    assert looks == 8, "15 results, two at a time"
    assert found.counts["reports", "positive"] == 5


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"mark": {}, "counts": [], "bounds_s": [1], "steps": {}}'])
def test_a_damaged_file_is_counted_anew(database: Database, tmp_path: Path, content: bytes) -> None:
    receive(database, received(1))
    (tmp_path / FILE).write_bytes(content)
    assert sums(database, tmp_path).counts["studies",] == 1


# ---------------------------------------------------------------------------------------------- exposition


def test_labels_are_names_of_the_configuration_and_everything_else_is_other(database: Database, tmp_path: Path) -> None:
    receive(database, received(1))
    deliver(database, 1, NOW + 20)
    deliver(database, 1, NOW + 20, destination="sender-CT1-10.0.0.1")
    tell(database, 1, channel="gone")
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "10.0.0.1", "port": 104}
    config = parse_config(
        {"node": {"state_directory": str(tmp_path)}, "receiver": {"allow_any": True}, "destination": [pacs]}
    )
    text = Exposition(config, database, FolderSizes(LocalFiles(config.state_directory))).text().decode()
    assert "10.0.0.1" not in text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    by_name = {(one.name, *one.labels.values()): one.value for one in samples}
    assert by_name["ich_node_delivered_total", "pacs"] == by_name["ich_node_delivered_total", "other"] == 1
    assert by_name["ich_node_deliveries", "other", "DELIVERED"] == 1
    assert by_name["ich_node_alerts_told_total", "other", "final"] == 1
    assert not [key for key in by_name if "gone" in key]
    buckets = [one.value for one in samples if one.name == "ich_node_step_seconds_bucket"
               and one.labels["step"] == "delivering"]  # fmt: skip
    assert buckets == sorted(buckets)
    assert buckets[-1] == by_name["ich_node_step_seconds_count", "delivering"] == 2


def test_what_computes_is_told_whether_or_not_one_looks_for_drift(database: Database, tmp_path: Path) -> None:
    receive(database, received(1))
    change(database, SeriesRow, model={"name": "ich", "version": "2", "sha256": "ab"})
    change(database, StudyRow, rests_on_series_id=1)
    for engine, device in (("cuda", "GPU"), ("torch", "CPU")):
        for number in range(2):
            note_worker(database, f"{engine} {number}", RunningWorker(engine, device, 3, 16, "ich", "2", "ab"))
    values = {"node": {"state_directory": str(tmp_path)}, "receiver": {"allow_any": True}}
    told = []
    for is_on in (True, False):
        config = parse_config(values | {"drift": {"enabled": is_on}})
        text = Exposition(config, database, FolderSizes(LocalFiles(config.state_directory))).text().decode()
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        told.append({(one.name, *one.labels.values()): one.value for one in samples})
    for one in told:
        assert one["ich_node_model_info", "ich", "ab", "2"] == 1
        assert one["ich_node_workers", "GPU", "2"] == one["ich_node_workers", "CPU", "2"] == 2
        assert one["ich_node_device_memory_bytes", "GPU", "used"] == 3, "both tell of the same"
        assert one["ich_node_device_memory_bytes", "CPU", "used"] == 6
        assert one["ich_node_device_memory_bytes", "CPU", "total"] == 16
    assert [("ich_node_drift_found",) in one for one in told] == [True, False]


@pytest.mark.parametrize(
    ("address", "may"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False), ("", False), ("x", False)],
)
def test_by_default_this_machine_alone_reads_without_a_token(address: str, may: bool) -> None:
    assert WebSettings().lets_measure(address) is may


def test_what_lies_in_folders_is_counted(tmp_path: Path) -> None:
    (tmp_path / "spool/00").mkdir(parents=True)
    (tmp_path / "spool/00/a.dcm").write_bytes(b"12345")
    sizes = FolderSizes(LocalFiles(tmp_path))
    sizes.look()
    assert sizes.known() == {"spool": FolderSize(1, 5), "results": FolderSize(0, 0)}


# ----------------------------------------------------------------------------------------------- readiness


def test_a_role_counts_as_there_while_its_process_holds_the_lock(tmp_path: Path) -> None:
    assert not role_is_held(tmp_path, "work")
    with holding_role(tmp_path, "work", alone=False):
        assert role_is_held(tmp_path, "work")
        with holding_role(tmp_path, "receive", wait_s=0.0):
            assert role_is_held(tmp_path, "receive")
    assert not role_is_held(tmp_path, "work")
    assert not role_is_held(tmp_path, "receive")


def test_a_disk_below_the_reserve_and_roles_that_are_not_there_are_named(database: Database, tmp_path: Path) -> None:
    values = {
        "node": {"state_directory": str(tmp_path)}, "receiver": {"allow_any": True, "reserve_mib": 10**9},
        "database": {"url": database_url(tmp_path)},
    }  # fmt: skip
    with closing(Readiness(parse_config(values))) as readiness:
        found = readiness.look()
    assert [name for name, is_well in found.items() if is_well] == ["database_readable", "database_writable"]
