"""A real PostgreSQL server, started by tests in a folder of its own; skipped, by name, where Debian's is not installed.

Where ``ICH_NODE_TEST_POSTGRESQL`` names one, whatever opens a database in a folder by ``database_url`` gets one there.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

VARIABLE = "ICH_NODE_TEST_POSTGRESQL"
MIGRATED = "migrated"


def programs() -> Path | None:
    """The folder with initdb and pg_ctl, of the newest version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


@dataclass(frozen=True)
class Server:
    """A server that listens on a socket in its folder, and where it is told to."""

    folder: Path
    bin: Path
    listen: str = ""
    """An address of the network namespace that the server runs in."""
    namespace: str = ""

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='{self.listen}' -c max_connections=200 -c shared_buffers=64MB"
        self._run(
            "pg_ctl", "-D", str(self.folder / "data"), "-o", options, "-l", str(self.folder / "log"), "-w", "start"
        )

    def stop(self, how: str = "fast") -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", how, "-w", "stop")

    def make(self, *, flushed: bool) -> None:
        """Make the empty cluster. Without ``flushed`` nothing survives a power cut: for tests of logic."""
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "postgres", "--locale=C", "--encoding=UTF8", "-N")
        if not flushed:
            with (self.folder / "data" / "postgresql.conf").open("a") as settings:
                settings.write("fsync = off\nfull_page_writes = off\n")
        if self.listen:
            with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet trust\n")

    def create(self, name: str, template: str = "template0") -> str:
        """Make a database, empty or like another; give its URL."""
        import psycopg

        with closing(
            psycopg.connect(f"host={self.folder} user=postgres dbname=postgres", autocommit=True)
        ) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return self.url(name)

    def _run(self, program: str, *arguments: str) -> None:
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        environment = {**os.environ, "LC_ALL": "C"}
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        command = [*inside, *as_user, str(self.bin / program), *arguments]
        done = subprocess.run(
            command, env=environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@contextmanager
def running_server(*, flushed: bool = False, listen: str = "", namespace: str = "") -> Iterator[Server]:
    """A server for as long as it is needed."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="ich-pg-", dir="/tmp"))  # a socket's path has 107 bytes at most
    try:
        if os.geteuid() == 0:
            os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
        server = Server(folder, found, listen, namespace)
        server.make(flushed=flushed)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_wanted() -> bool:
    """Whether databases of tests are to be on a server."""
    return bool(os.environ.get(VARIABLE))


def migrate_template(server: Server) -> None:
    """Make what the databases of tests are copied from: each migration takes a second."""
    from ich_node.database import open_database, prepare_database

    database = open_database(server.create(MIGRATED))
    with tempfile.TemporaryDirectory() as folder:
        prepare_database(database, Path(folder))
    database.close()


def database_url(folder: Path, template: str = "template0") -> str:
    """The URL of the database of a folder: a file in it, or one of its own on the server, made where it is missing."""
    named = os.environ.get(VARIABLE)
    if not named:
        return f"sqlite:///{folder / 'ich-node.sqlite'}"
    import psycopg

    server = Server(Path(named), Path())
    # the same folder is the same database
    name = f"t{hashlib.sha256(str(folder).encode()).hexdigest()[:24]}"
    try:
        return server.create(name, template)
    except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):  # the latter of one made this moment
        return server.url(name)


on_sqlite = pytest.mark.skipif(is_wanted(), reason="about SQLite's file alone")
on_postgresql = pytest.mark.skipif(not is_wanted(), reason="about PostgreSQL alone")
