"""Statements that run for every image: SQLAlchemy makes their text, and SQLite's driver is given it as it is.

SQLAlchemy takes 35 us for a statement, SQLite three. To a server everything goes by SQLAlchemy: there the way is longer
than both, and it knows what to do where a connection is lost.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, Delete, Dialect, Insert, Select, Update
from sqlalchemy.exc import DBAPIError

from ich_node.database.new_row import new_id

Statement = Select[*tuple[Any, ...]] | Insert | Update | Delete
Values = Mapping[str, Any]
_Convert = Callable[[Any], Any]


class Prepared:
    """A statement without lists of values, that always gets values for the same names; its text is made once."""

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self._text: _Text | None = None

    def first(self, connection: Connection, values: Values) -> Any | None:
        """Give the first row, with its columns as attributes; None where there is none."""
        if (driver := _sqlite(connection)) is None:
            return connection.execute(self._statement, dict(values)).first()
        text = self._prepared(connection, values)
        row = text.run(driver, values).fetchone()
        return None if row is None else text.row(row)

    def all(self, connection: Connection, values: Values) -> Sequence[Any]:
        """Give all rows."""
        if (driver := _sqlite(connection)) is None:
            return connection.execute(self._statement, dict(values)).all()
        text = self._prepared(connection, values)
        return [text.row(row) for row in text.run(driver, values).fetchall()]

    def change(self, connection: Connection, values: Values) -> int:
        """Run it; give the number of rows that were changed, deleted or entered."""
        if (driver := _sqlite(connection)) is None:
            return connection.execute(self._statement, dict(values)).rowcount
        return self._prepared(connection, values).run(driver, values).rowcount

    def enter(self, connection: Connection, values: Values) -> int:
        """Enter one row; give its number."""
        if (driver := _sqlite(connection)) is None:
            return new_id(connection.execute(self._statement, dict(values)))
        return int(self._prepared(connection, values).run(driver, values).lastrowid or 0)

    def _prepared(self, connection: Connection, values: Values) -> _Text:
        if self._text is None:
            self._text = _Text(self._statement, connection.dialect, values)
        return self._text


def _sqlite(connection: Connection) -> sqlite3.Connection | None:
    driver = connection.connection.driver_connection
    return driver if isinstance(driver, sqlite3.Connection) else None


class _Text:
    """A statement as SQLite's driver takes it."""

    def __init__(self, statement: Statement, dialect: Dialect, values: Values) -> None:
        compiled = statement.compile(
            dialect=dialect, column_keys=list(values) if isinstance(statement, Insert) else None
        )
        self._sql = str(compiled)
        self._places: tuple[str, ...] = tuple(compiled.positiontup or ())
        self._usual = {name: value for name, value in compiled.params.items() if name not in values}
        for column in getattr(compiled, "insert_prefetch", ()):
            self._usual[column.key] = column.default.arg  # a value: our tables have no other defaults
        self._from: dict[str, _Convert] = {}
        for name, bound in compiled.binds.items():
            if (convert := bound.type.dialect_impl(dialect).bind_processor(dialect)) is not None:
                self._from[name] = convert
        self._usual = {
            name: self._from[name](value) if name in self._from else value for name, value in self._usual.items()
        }
        selected = list(statement.selected_columns) if isinstance(statement, Select) else []
        self._names = [str(column.key) for column in selected]
        self._to: list[tuple[str, _Convert]] = []
        for name, column in zip(self._names, selected, strict=True):
            if (convert := column.type.dialect_impl(dialect).result_processor(dialect, None)) is not None:
                self._to.append((name, convert))

    def run(self, driver: sqlite3.Connection, values: Values) -> sqlite3.Cursor:
        """Run it.

        Raises:
            DBAPIError: as SQLAlchemy does.
        """
        given = {**self._usual, **values}
        for name, convert in self._from.items():
            if name in values:
                given[name] = convert(values[name])
        try:
            return driver.execute(self._sql, [given[name] for name in self._places])
        except sqlite3.Error as error:
            raise DBAPIError.instance(self._sql, None, error, sqlite3.Error, hide_parameters=True) from error

    def row(self, values: tuple[Any, ...]) -> Any:
        """Give a row's columns by their names."""
        row = dict(zip(self._names, values, strict=True))
        for name, convert in self._to:
            row[name] = convert(row[name])
        return SimpleNamespace(**row)
