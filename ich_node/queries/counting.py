"""Counts that several questions share, within their transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from ich_node.database import LegalHoldRow


def counts(connection: Connection, column: Any) -> dict[str, int]:
    """Count the rows by what a column says."""
    rows = connection.execute(select(column, func.count()).group_by(column))
    return {str(value): count for value, count in rows}


def counts_of_patients(connection: Connection, column: Any, of_ours: ColumnElement[bool]) -> dict[str, int]:
    """Count the rows by what a column says, without those of the node's own test.

    An index of the column counts all, and the few of the test are taken off: one by one, all rows would be read.

    Args:
        of_ours: tells the rows of the test.
    """
    found = counts(connection, column)
    tested = connection.execute(select(column, func.count()).where(of_ours).group_by(column)).all()
    for value, count in tested:
        found[str(value)] -= count
    return {value: count for value, count in found.items() if count}


def count_holds(connection: Connection) -> int:
    """Count the legal holds that are not lifted."""
    held = select(func.count()).select_from(LegalHoldRow).where(LegalHoldRow.lifted_at.is_(None))
    return connection.execute(held).scalar_one()
