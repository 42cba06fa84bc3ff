"""PostgreSQL: a server that several hosts share; SQLAlchemy speaks to it by psycopg.

Every writer takes one advisory lock as its transaction begins, and so sees what the writers before it have committed
and is seen by those after it, as with ``BEGIN IMMEDIATE`` of SQLite: whoever looks and then writes needs no more. The
one exception is claiming (``Database.claiming``), which locks the rows that it takes and leaves those that are locked.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from sqlalchemy import URL, Connection, String, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles

from ich_node.database.kind import Kind
from ich_node.errors import (
    DatabaseAway,
    DatabaseBusy,
    IchNodeError,
    SpoolFull,
    SpoolReadOnly,
    StartError,
    StorageFailed,
)
from ich_node.secret_files import read_secret

PASSWORD_FILE: Final = "password_file"  # noqa: S105 - the name of a parameter
_WRITERS: Final = 0x4943484E
"""The advisory lock: 'ICHN'. It is of one database, not of the server."""
_LONGEST_SILENCE_S: Final = 60
"""A host that hangs or is gone while it holds the lock loses its transaction after this time."""
_LOCKED: Final = ("55P03", "40P01", "40001", "53200", "53300", "57014")
_AWAY: Final = ("08", "57P", "25P03")
_FAILED: Final = ("58", "XX001", "XX002")
"""https://www.postgresql.org/docs/current/errcodes-appendix.html"""
_COLLATIONS: Final = ("C", "POSIX", "C.UTF-8", "C.utf8")
"""Texts are compared by their bytes: UIDs are looked for by their beginnings."""


def open_postgresql(url: URL, busy_timeout_s: float) -> Kind:
    """Open a database on a server. A commit has reached the server's disk when it returns.

    Raises:
        StartError: the driver is not installed.
    """
    password_file = url.query.get(PASSWORD_FILE)
    try:
        engine = create_engine(
            url.difference_update_query([PASSWORD_FILE]),
            connect_args=_patience(busy_timeout_s, str(url.query.get("options", ""))),
            pool_pre_ping=True,
            pool_use_lifo=True,
            pool_timeout=busy_timeout_s,
            hide_parameters=True,  # values must not reach a log by way of an error's text
        )
    except ModuleNotFoundError as error:
        raise StartError(f"PostgreSQL needs {error.name}: pip install 'psycopg[binary]'") from error
    if password_file is not None:
        event.listen(engine, "do_connect", _with_password(str(password_file)))
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", _leave_values_out)
    return Kind(
        engine=engine,
        readers=engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True),
        writers=engine.execution_options(ich_writer=True),
        claimers=engine,
        file=None,
        name_trouble=_name_trouble,
        faults=_faults,
        change_mark="SELECT pg_current_snapshot()::text",
        server_time="SELECT extract(epoch FROM clock_timestamp())::float8",
    )


def _patience(busy_timeout_s: float, options: str) -> dict[str, Any]:
    timeouts = {
        "lock_timeout": max(1, round(1000 * busy_timeout_s)),
        "idle_in_transaction_session_timeout": 1000 * _LONGEST_SILENCE_S,
        "synchronous_commit": "on",
    }
    return {
        "options": " ".join([options, *(f"-c {name}={value}" for name, value in timeouts.items())]).strip(),
        "connect_timeout": max(2, min(10, round(busy_timeout_s))),
        # a server or a line that is gone without a word is noticed
        "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
        "tcp_user_timeout": 1000 * _LONGEST_SILENCE_S,
    }  # fmt: skip


def _with_password(file: str) -> Any:
    def connect(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
        """Read it each time: one that was changed needs no restart."""
        parameters["password"] = read_secret(file).decode().rstrip("\r\n")

    return connect


@compiles(String, "postgresql")
def _of_any_length(_type: String, _compiler: Any, **_options: Any) -> str:
    """Take texts as long as they come, as SQLite does: a scanner may send longer ones than it should."""
    return "VARCHAR"


def _prepare_connection(connection: Any, _record: Any) -> None:
    connection.adapters.register_dumper(str, _text_dumper())


@cache
def _text_dumper() -> type[Any]:
    from psycopg.types.string import StrDumperUnknown

    class TextDumper(StrDumperUnknown):
        """A server's texts have no NUL, and headers may; whoever looks for one finds none."""

        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))

    return TextDumper


def _leave_values_out(context: ExceptionContext) -> None:
    """Keep the first line of what the server says: its details quote the row, and would reach a log."""
    for error in (context.original_exception, context.sqlalchemy_exception):
        if error is not None and error.args:
            error.args = (str(error.args[0]).partition("\n")[0], *error.args[1:])


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get("ich_writer", False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")


def _faults(connection: Connection) -> list[str]:
    wanted = "SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = current_database()"
    encoding, collation = connection.exec_driver_sql(wanted).one()
    faults = [f"its encoding is {encoding}, it must be UTF8"] if encoding != "UTF8" else []
    if collation not in _COLLATIONS:
        faults.append(f"its collation is {collation}, it must be C: createdb --template=template0 --locale=C")
    return faults


def _name_trouble(error: DBAPIError, committing: bool) -> IchNodeError | None:
    """Say what an error of the server, or of the line to it, means for whoever wrote."""
    code = getattr(error.orig, "sqlstate", None) or ""
    is_away = code.startswith(_AWAY) or (not code and _is_of_the_line(error))
    if is_away and committing:
        # Nobody can say whether it was committed: as after a failed fsync, what is in memory proves nothing.
        return StorageFailed("the database server was lost during a commit; it is looked at anew after a restart")
    if is_away:
        return DatabaseAway(f"the database server does not answer: {_first_line(error)}")
    if code.startswith(_LOCKED):
        return DatabaseBusy("the database stayed locked")
    if code == "53100":
        return SpoolFull("no space left for the database, on its server")
    if code == "25006":
        return SpoolReadOnly("the database cannot be written: its server is a standby, or read-only")
    if code.startswith(_FAILED):
        return StorageFailed(f"the database failed: {_first_line(error)}")
    return None


def _is_of_the_line(error: DBAPIError) -> bool:
    """Tell a connection that was refused or lost, for which there is no code of the server."""
    return error.connection_invalidated or type(error.orig).__name__ in ("OperationalError", "ConnectionTimeout")


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]
