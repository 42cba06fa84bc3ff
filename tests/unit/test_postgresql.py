"""A real PostgreSQL server: the tests of the queue run on it too, and it fails in its own ways."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError

from ich_node.config.load import parse_config
from ich_node.database import ChangeWatch, Database, DestinationRow, SeriesRow, open_database, prepare_database
from ich_node.errors import ClockDisagrees, ConfigError, DatabaseAway, DatabaseBusy, StartError, StorageFailed
from ich_node.job_queue import claim_series, shared_clock
from ich_node.job_queue.shared_clock import SharedClock
from tests.postgresql import MIGRATED, VARIABLE, Server, is_wanted, migrate_template, running_server
from tests.unit.queueing import claim, receive, received, rows

ROOT = Path(__file__).parents[2]
_QUICK = ("test_database", "test_job_queue_work", "test_job_queue_results", "test_leases")
_ALL = (
    "test_job_queue_reception", "test_job_queue_waiting", "test_job_queue_trust", "test_job_queue_plans",
    "test_alert_queue", "test_accounts", "test_retention", "test_metrics", "test_worklist", "test_patient_history",
    "test_concordance", "test_viewable", "test_clock", "test_drift_measures", "test_live", "test_label_table",
    "test_write_together", "test_job_queue_habits", "test_several_hosts", "test_prepared",
)  # fmt: skip

pytestmark = pytest.mark.skipif(is_wanted(), reason="this runs the others on PostgreSQL")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        migrate_template(server)
        yield server


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    return server.create(f"own_{abs(hash(request.node.name))}", MIGRATED)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with closing(open_database(url, busy_timeout_s=0.5)) as database:
        yield database


# ------------------------------------------------------------------------- the same tests on PostgreSQL


def run_on(server: Server, files: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow"]
    paths = [f"tests/unit/{file}.py" for file in files]
    done = subprocess.run(
        [*command, *paths], cwd=ROOT, env={**os.environ, VARIABLE: str(server.folder)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:]


def test_the_queue_works_on_postgresql(server: Server) -> None:
    run_on(server, _QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("file", _ALL)
def test_all_that_reads_and_writes_works_on_postgresql(server: Server, file: str) -> None:
    run_on(server, (file,))


# --------------------------------------------------------------------------------------- side by side


def test_a_claim_leaves_what_another_is_about_to_take_and_does_not_wait(database: Database, url: str) -> None:
    receive(database, received(1, study=1), received(1, study=2))
    with closing(open_database(url, busy_timeout_s=0.5)) as other, other.claiming() as connection:
        first = text("SELECT id FROM series ORDER BY id LIMIT 1 FOR NO KEY UPDATE")
        held = connection.execute(first).scalar_one()
        assert [job.id for job in claim(database, "me")] == [one.id for one in rows(database, SeriesRow)][1:]
    assert [job.id for job in claim(database, "you")] == [held]


def test_a_claim_does_not_wait_for_a_writer(database: Database, url: str) -> None:
    receive(database, received(1))
    with closing(open_database(url)) as other, other.writing():
        assert len(claim(database, "me")) == 1


def test_a_writer_waits_for_the_writer_before_it_and_is_busy_in_the_end(database: Database, url: str) -> None:
    with closing(open_database(url)) as other, other.writing(), pytest.raises(DatabaseBusy):
        receive(database, received(1))
    receive(database, received(1))


def test_a_reader_sees_one_state_whatever_is_written_meanwhile(database: Database, url: str) -> None:
    count = text("SELECT count(*) FROM series")
    with closing(open_database(url)) as other, database.reading() as connection:
        assert connection.execute(count).scalar_one() == 0
        receive(other, received(1))
        assert connection.execute(count).scalar_one() == 0


def test_a_series_that_died_with_its_worker_too_often_fails(database: Database) -> None:
    receive(database, received(1))
    for owner in ("one", "two", "three"):
        assert claim(database, owner, lease_s=-1.0)
    assert claim_series(database, "four", lease_s=60, max_wait_s=20, limit=8) == []
    assert rows(database, SeriesRow)[0].state == "FAILED"


def test_a_change_of_another_is_seen_and_nothing_else_is(database: Database, url: str) -> None:
    watch = ChangeWatch(database)
    assert watch.changed()
    assert not watch.changed()
    with closing(open_database(url)) as other:
        receive(other, received(1))
    assert watch.changed()
    assert not watch.changed()
    watch.close()


# -------------------------------------------------------------------------------------- shared clocks


class HostAgainstServer:
    """A shared clock, and a server whose clock is another than ours."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.steps: list[float] = []
        self.differences: list[float] = []
        self.clock = SharedClock(database, self.steps.append, self.differences.append)

    def put_the_server(self, behind_s: float) -> None:
        asks = f"SELECT extract(epoch FROM clock_timestamp())::float8 - {behind_s}"
        self._database.kind = replace(self._database.kind, server_time=asks)


def test_a_host_whose_clock_is_the_servers_works(database: Database) -> None:
    host = HostAgainstServer(database)
    host.clock.look()
    assert abs(database.ahead_of_server_s()) < 2
    assert (host.steps, host.differences) == ([], [])


@pytest.mark.parametrize("behind_s", [3600.0, -3600.0], ids=["ahead", "behind"])
def test_a_host_whose_clock_is_another_does_nothing_until_they_agree(database: Database, behind_s: float) -> None:
    host = HostAgainstServer(database)
    receive(database, received(1))
    due_at = rows(database, SeriesRow)[0].due_at
    database.before_transaction = host.clock.look
    host.put_the_server(behind_s)
    for _ in range(2):
        with pytest.raises(ClockDisagrees, match=r"the clock of this host is 3600 s (ahead of|behind) the database"):
            claim(database, "me")
    assert host.differences == [pytest.approx(behind_s, abs=2)] * 2
    host.put_the_server(5.0)
    assert len(claim(database, "me")) == 1
    assert host.differences[-1] == pytest.approx(5.0, abs=2)
    assert rows(database, SeriesRow)[0].due_at == due_at, "others wrote it, whose clocks were right"


def test_a_clock_that_is_set_is_compared_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    host = HostAgainstServer(database)
    host.clock.look()
    host.put_the_server(3600.0)
    host.clock.look()  # not compared again yet
    monkeypatch.setattr(shared_clock, "_offset_s", lambda: time.time() - time.monotonic() + 3600.0)
    with pytest.raises(ClockDisagrees):
        host.clock.look()
    host.put_the_server(0.0)
    host.clock.look()
    assert host.steps == [pytest.approx(3600.0, abs=2)]


# ------------------------------------------------------------------------------------------- troubles


def end_connections(server: Server, url: str) -> None:
    with closing(open_database(server.url("postgres"))) as postgres, postgres.reading() as connection:
        name = url.split("/")[3].split("?")[0]
        of_it = text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :name")
        assert connection.execute(of_it, {"name": name}).all()


def test_a_server_that_is_away_is_waited_for(server: Server, database: Database) -> None:
    receive(database, received(1))
    server.stop()
    try:
        with pytest.raises(DatabaseAway):
            receive(database, received(2))
        with pytest.raises(DatabaseAway):
            rows(database, SeriesRow)
    finally:
        server.start()
    receive(database, received(2))
    assert not database.failed


def test_a_transaction_whose_connection_is_lost_wrote_nothing(server: Server, database: Database, url: str) -> None:
    def write() -> None:
        with database.writing() as connection:
            connection.execute(text("INSERT INTO destination VALUES ('pacs', 0, 0, '')"))
            end_connections(server, url)
            connection.execute(text("SELECT 1"))

    with pytest.raises(DatabaseAway):
        write()
    assert rows(database, DestinationRow) == []
    assert not database.failed


def test_a_commit_of_which_nobody_knows_whether_it_came_through_ends_the_process(
    server: Server, database: Database, url: str
) -> None:
    with pytest.raises(StorageFailed, match="during a commit"), database.writing():
        end_connections(server, url)
    assert database.failed  # the receiver would else delete a file that a row may speak of


def test_an_error_quotes_no_row(database: Database) -> None:
    with pytest.raises(IntegrityError) as caught, database.writing() as connection:
        connection.execute(text("INSERT INTO study (study_instance_uid) VALUES (:uid)"), {"uid": "Canary^Jane"})
    assert "Canary" not in f"{caught.value} {caught.value.orig} {caught.value.__cause__}"


def test_a_text_is_as_long_as_it_comes_and_may_hold_what_the_server_does_not(database: Database) -> None:
    receive(database, received(1))
    hostile = "Neuro\0" + "x" * 500
    with database.writing() as connection:
        connection.execute(update(SeriesRow).values(station_name=hostile))
    assert rows(database, SeriesRow)[0].station_name == hostile.replace("\0", "\N{REPLACEMENT CHARACTER}")


def test_a_database_of_another_encoding_is_refused(server: Server, tmp_path: Path) -> None:
    made = "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1'"
    with closing(open_database(server.url("postgres"))) as postgres, postgres.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(made)
    refused = pytest.raises(StartError, match="its encoding is LATIN1, it must be UTF8")
    with closing(open_database(server.url("latin"))) as database, refused:
        prepare_database(database, tmp_path)


# -------------------------------------------------------------------------------------- configuration


def settings(**database: str) -> str:
    return parse_config({"receiver": {"allow_any": True}, "database": database}).database_url


def test_the_password_is_read_from_its_file_at_each_connection(server: Server, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "password").chmod(0o600)
    plain = server.url(MIGRATED)
    url = settings(url=plain, password_file=str(tmp_path / "password"))
    assert "secret" not in url
    with closing(open_database(url)) as database:
        assert rows(database, SeriesRow) == []
    (tmp_path / "password").chmod(0o644)
    with closing(open_database(url)) as database, pytest.raises(StartError, match="others can read or change it"):
        rows(database, SeriesRow)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("mysql://host/name", r"must be empty .*postgresql\+psycopg://USER@HOST:PORT/DATABASE"),
        ("postgresql+psycopg://me:secret@host/name", "must hold no password"),
        ("postgresql+psycopg://me@host/name?password=secret", "must hold no password"),
        ("postgresql+psycopg://me@host", "must name a database"),
    ],
)
def test_a_url_that_is_none_is_refused_and_never_shows_a_password(given: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        settings(url=given)
    assert "secret" not in str(caught.value)


def test_a_password_file_without_a_server_is_refused() -> None:
    with pytest.raises(ConfigError, match="password_file needs a url of PostgreSQL"):
        settings(password_file="/etc/ich-node/password")
