"""The database: durable, one writer at a time without lock errors, migrated once, refused when damaged or newer."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from ich_node.database import Base, Database, InstallationRow, PlaneRow, SeriesRow, open_database, prepare_database
from ich_node.database.tables import SCHEMA
from ich_node.errors import DatabaseBusy, SpoolFull, StartError
from ich_node.job_queue import close_series, plan_report, waiting_instances
from ich_node.records import Triage
from tests.postgresql import database_url, on_sqlite
from tests.unit.queueing import claim, open_queue, receive, received, rows, score

ROOT = Path(__file__).parents[2]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_queue(tmp_path)
    yield database
    database.close()


def pragma(database: Database, name: str) -> object:
    with database.reading() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def write(database: Database, *statements: str) -> None:
    with database.writing() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def run_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# -------------------------------------------------------------------------------------------- durable


@on_sqlite
def test_a_commit_survives_a_power_cut(database: Database) -> None:
    assert pragma(database, "journal_mode") == "wal"
    assert pragma(database, "synchronous") == 2  # FULL: the log is synced at every commit
    assert pragma(database, "foreign_keys") == 1


@on_sqlite
def test_a_writer_takes_the_lock_before_it_reads(database: Database, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "ich-node.sqlite", timeout=0, isolation_level=None)
    with database.writing(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()


def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.writing():
        assert rows(database, SeriesRow) == []


@on_sqlite
def test_a_reader_cannot_write_past_a_writer(database: Database) -> None:
    with database.reading() as reading, database.writing():
        reading.exec_driver_sql("PRAGMA busy_timeout=0")
        with pytest.raises(OperationalError, match="locked"):
            reading.exec_driver_sql("DELETE FROM series")


def test_connections_that_one_moment_needed_are_left_alone(database: Database) -> None:
    """Each fills with pages as it is used: what two can do, five must not do in turn."""
    with database.reading(), database.reading(), database.reading():
        pass
    used = set()
    for _ in range(6):
        with database.reading() as connection:
            used.add(id(connection.connection.driver_connection))
    assert len(used) == 1


@pytest.mark.parametrize("kept", [1, 2, 5])
def test_no_more_connections_are_kept_than_asked_for(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "ich-node.sqlite"
    database = open_database(f"sqlite:///{file}", connections_kept=kept)
    with ExitStack() as together:
        for _ in range(7):
            together.enter_context(database.reading()).exec_driver_sql("SELECT count(*) FROM sqlite_schema")
        assert opened(file) == 7, "more are opened where needed"
    assert opened(file) == kept
    database.close()
    assert opened(file) == 0


def test_idle_connections_are_let_go_and_others_come(tmp_path: Path) -> None:
    file = tmp_path / "ich-node.sqlite"
    database = open_database(f"sqlite:///{file}")
    with database.reading() as in_use:
        with database.reading() as idle:
            idle.exec_driver_sql("SELECT count(*) FROM sqlite_schema")
        in_use.exec_driver_sql("SELECT count(*) FROM sqlite_schema")
        assert opened(file) == 2
        database.let_idle_connections_go()
        assert opened(file) == 1
        in_use.exec_driver_sql("SELECT count(*) FROM sqlite_schema")
    with database.reading() as another:
        another.exec_driver_sql("SELECT count(*) FROM sqlite_schema")
    database.close()


def opened(file: Path) -> int:
    """Count connections by their descriptors of the log: SQLite keeps those of the file itself for the next."""
    log = file.with_name(f"{file.name}-wal")
    return [one.readlink() for one in Path("/proc/self/fd").iterdir() if one.is_symlink()].count(log)


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    insert = "INSERT INTO study (study_instance_uid, revision, created_at) VALUES ('1', 0, 0)"
    with pytest.raises(IntegrityError):
        write(database, insert, insert)
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM study").scalar() == 0


def test_an_error_does_not_quote_values(database: Database) -> None:
    with pytest.raises(IntegrityError) as caught, database.writing() as connection:
        connection.execute(text("INSERT INTO study (study_instance_uid) VALUES (:uid)"), {"uid": "Canary^Jane"})
    assert "Canary" not in str(caught.value)


# -------------------------------------------------------------------------------------- many at once


def test_eight_threads_claim_each_series_once_without_a_lock_error(tmp_path: Path) -> None:
    database = open_queue(tmp_path)
    receive(database, *(received(1, study=study) for study in range(100)))
    claimed: list[int] = []

    def work(number: int) -> None:
        own = open_database(database_url(tmp_path))
        # An owner of its own each time: a worker is handed what it already holds.
        while jobs := claim(own, f"owner {number}, {len(claimed)} claimed", limit=1):
            claimed.extend(job.id for job in jobs)
        own.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert sorted(claimed) == sorted(row.id for row in rows(database, SeriesRow))
    database.close()


_CLAIM_AND_RECEIVE = """
    import sys
    from pathlib import Path
    from tests.unit.queueing import claim, open_queue, receive, received
    number = int(sys.argv[2])
    database = open_queue(Path(sys.argv[1]))
    claimed = []
    for study in range(15):
        receive(database, received(1, study=1000 * number + study))
        claimed += [job.id for job in claim(database, f"process {number}, {study}", limit=3)]
    print(*claimed)
"""


def test_four_processes_start_at_once_migrate_once_and_never_claim_the_same(tmp_path: Path) -> None:
    processes = [run_python(_CLAIM_AND_RECEIVE, str(tmp_path), str(number)) for number in range(4)]
    ended = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, ended
    claimed = [int(word) for out, _ in ended for word in out.split()]
    assert len(claimed) == len(set(claimed))
    database = open_database(database_url(tmp_path))
    assert len(rows(database, SeriesRow)) == 60
    assert len(rows(database, InstallationRow)) == 1
    assert {row.lease_owner is not None for row in rows(database, SeriesRow) if row.id in claimed} == {True}
    database.close()


# ----------------------------------------------------------------------------------------------- locked


@on_sqlite
def test_a_database_locked_for_longer_than_we_may_wait_is_busy(tmp_path: Path) -> None:
    database = open_queue(tmp_path, busy_timeout_s=0.2)
    other = sqlite3.connect(tmp_path / "ich-node.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusy):
        receive(database, received(1))
    other.execute("ROLLBACK")
    receive(database, received(1))
    other.close()
    database.close()


def test_threads_that_wait_too_long_for_their_turn_are_told_busy(tmp_path: Path) -> None:
    database = open_queue(tmp_path, busy_timeout_s=0.2)
    caught: list[Exception] = []

    def write() -> None:
        try:
            receive(database, received(1))
        except DatabaseBusy as error:
            caught.append(error)

    with database.writing():
        (thread := threading.Thread(target=write)).start()
        thread.join()
    assert len(caught) == 1
    database.close()


@on_sqlite
def test_a_database_that_may_not_grow_says_that_there_is_no_room(database: Database) -> None:
    pages = pragma(database, "page_count")
    with pytest.raises(SpoolFull):
        write(database, f"PRAGMA max_page_count={pages}", "CREATE TABLE more AS SELECT randomblob(100000)")
    assert rows(database, SeriesRow) == []


# ------------------------------------------------------------------------------------------- migrations


def test_the_tables_are_what_the_migrations_make(database: Database) -> None:
    with database.reading() as connection:
        # Alembic cannot compare an index with DESC in it: the next test does, and another sees that the claim uses it
        options = {"compare_type": True, "include_object": lambda _one, name, *_about: name != "series_to_claim"}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


@on_sqlite
def test_the_index_for_claims_is_what_the_migrations_make(database: Database, tmp_path: Path) -> None:
    made = open_database(f"sqlite:///{tmp_path / 'made.sqlite'}")
    Base.metadata.create_all(made.engine)
    assert index_for_claims(made) == index_for_claims(database)
    made.close()


def index_for_claims(database: Database) -> str:
    with database.reading() as connection:
        found = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'series_to_claim'").scalar_one()
    return " ".join(str(found).split())


def test_the_schema_is_the_newest_migration() -> None:
    script = ScriptDirectory(ROOT / "ich_node/database/migrations")
    assert script.get_heads() == [SCHEMA]


def first_schema(folder: Path) -> Database:
    """A database as version 0001 left it: a concluded series, and one that was arriving and half scored."""
    database = open_database(f"sqlite:///{folder / 'ich-node.sqlite'}")
    migrate(database, "0001")
    write(database, *_ROWS_OF_THE_FIRST_SCHEMA)
    return database


def migrate(database: Database, schema: str) -> None:
    settings = AlembicConfig()
    settings.set_main_option("script_location", "ich_node.database:migrations")
    with database.writing() as connection:
        settings.attributes["connection"] = connection
        command.upgrade(settings, schema)


_SERIES = """INSERT INTO series (id, study_id, series_instance_uid, modality, state, head_expected, triage, attempts,
    not_before, due_at, first_received_at, last_received_at, closed_at, calling_ae_title, remote_address)
    VALUES ({0}, {0}, '1.2.{0}.1', 'CT', '{1}', 1, {2}, 0, 0, 100, 50, 90, {3}, 'CT1', '10.0.0.1')"""
_INSTANCE = """INSERT INTO instance (id, series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, sha256,
    size_bytes, path, state, current, received_at, facts) VALUES ({0}, {0}, '1.2.{0}.1.1', '1.2.840.10008.5.1.4.1.1.2',
    '1.2.840.10008.1.2.1', 'x', 10, 'spool/{0}.dcm', 'DECODED', 1, 90, '{{"slices": []}}')"""
_PLANE = """INSERT INTO plane (id, series_id, instance_id, position_mm, logits, embedding, model_sha256)
    VALUES ({0}, {0}, {0}, 0, '[0, 0, 0, 0, 0, 0]', x'0000', 'abc')"""
_ROWS_OF_THE_FIRST_SCHEMA = (
    "INSERT INTO study (id, study_instance_uid, revision, triage, rests_on_series_id, created_at, reported_at)"
    " VALUES (1, '1.2.1', 1, 'positive', 1, 50, 120), (2, '1.2.2', 0, NULL, NULL, 50, NULL)",
    _SERIES.format(1, "CONCLUDED", "'positive'", 110),
    _SERIES.format(2, "RECEIVING", "NULL", "NULL"),
    *(form.format(number) for form in (_INSTANCE, _PLANE) for number in (1, 2)),
    """INSERT INTO result (study_id, revision, kind, encoding, preference, sop_class_uid, sop_instance_uid, sha256,
    path, created_at, returned_count)
    VALUES (1, 1, 'SR', 'x', 0, '1.2', '2.25.1', 'x', 'results/2.25.1.dcm', 120, 0)""",
)


@on_sqlite
def test_a_database_of_the_first_schema_is_upgraded_and_works_on(tmp_path: Path) -> None:
    database = first_schema(tmp_path)
    prepare_database(database, tmp_path)
    concluded, arriving = rows(database, SeriesRow)
    assert (concluded.concluded_at, arriving.concluded_at) == (110, None)
    assert rows(database, PlaneRow) == []
    (job,) = claim(database, "me")
    assert job.series_instance_uid == "1.2.2.1"
    assert score(database, job, "me")  # its slices are read and scored anew
    assert [row.members[0][0] for row in rows(database, PlaneRow)] == ["1.2.2.1.1"]
    assert close_series(database, job, "me", lease_s=60)
    database.close()


@on_sqlite
def test_a_late_slice_after_the_upgrade_makes_a_new_revision(tmp_path: Path) -> None:
    database = first_schema(tmp_path)
    prepare_database(database, tmp_path)
    receive(database, received(2))
    (job,) = [one for one in claim(database, "me") if one.series_instance_uid == "1.2.1.1"]
    assert [one.sop_instance_uid for one in waiting_instances(database, job.id, 9)] == ["1.2.1.1.1", "1.2.1.1.2"]
    plan = plan_report(database, job, Triage.NEGATIVE, None, "other")
    assert (plan.revision, plan.triage, plan.rests_on_series_id) == (2, Triage.NEGATIVE, job.id)
    database.close()


@on_sqlite
def test_after_the_upgrade_a_series_is_of_the_patient_whom_its_newest_image_named_before(tmp_path: Path) -> None:
    database = first_schema(tmp_path)
    migrate(database, "0003")
    for number, patient_id, birth_date in ((3, "old", "b"), (4, "new", ""), (5, "", "")):
        marks = json.dumps({"patient_id": patient_id, "patient_name": "", "patient_birth_date": birth_date})
        instance = _INSTANCE.format(number).replace(f"({number}, {number},", f"({number}, 1,")
        write(database, instance, f"UPDATE instance SET marks = '{marks}' WHERE id = {number}")
    prepare_database(database, tmp_path)
    concluded, arriving = rows(database, SeriesRow)
    assert (concluded.patient_mark, concluded.birth_mark) == ("new", None)
    assert (arriving.patient_mark, arriving.birth_mark) == (None, None)
    database.close()


def test_a_newer_schema_is_refused(database: Database, tmp_path: Path) -> None:
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StartError, match="schema 9999, which is newer than this program"):
        prepare_database(database, tmp_path)


def test_preparing_again_changes_nothing(database: Database, tmp_path: Path) -> None:
    uid = prepare_database(database, tmp_path)
    assert uid == prepare_database(database, tmp_path)
    assert uid.startswith("2.25.")
    assert len(uid) <= 64


def test_a_database_that_is_as_it_should_be_needs_no_alembic(database: Database, tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from tests.unit.queueing import open_queue
        open_queue(Path(sys.argv[1]))
        print("alembic" in sys.modules)
    """
    assert run_python(code, str(tmp_path)).communicate(timeout=60)[0] == "False\n"


# --------------------------------------------------------------------------------------------- damaged


@on_sqlite
def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ich-node.sqlite").write_bytes(b"not a database at all, but long enough to be one" * 100)
    with pytest.raises(StartError, match="file is not a database"):
        open_queue(tmp_path)


@on_sqlite
def test_a_database_damaged_inside_is_refused(tmp_path: Path) -> None:
    database = open_queue(tmp_path)
    receive(database, *(received(number) for number in range(300)))
    with database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar() == 0
    database.close()
    path = tmp_path / "ich-node.sqlite"
    content = bytearray(path.read_bytes())
    for page in range(8 * 4096, len(content), 4096):
        content[page : page + 200] = b"\xa5" * 200
    path.write_bytes(content)
    with pytest.raises(StartError, match="damaged"):
        open_queue(tmp_path)


@on_sqlite
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = tmp_path / "file" / "state"
    with pytest.raises(StartError, match=f"the state folder {state} cannot be written: Not a directory"):
        prepare_database(open_database(f"sqlite:///{state / 'x.sqlite'}"), state)


@on_sqlite
def test_a_database_in_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="unable to open database file"):
        prepare_database(open_database(f"sqlite:///{tmp_path / 'absent' / 'x.sqlite'}"), tmp_path)
