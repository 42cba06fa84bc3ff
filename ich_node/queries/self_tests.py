"""How the node's own tests went."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, select

from ich_node.database import Database, SelfTestRow
from ich_node.records.self_tests import SelfTestStatus

SHOWN: Final = 8


def newest_self_tests(database: Database, limit: int = SHOWN) -> tuple[SelfTestStatus, ...]:
    """Read the newest tests, the newest first, with those that wait or run."""
    with database.reading() as connection:
        rows = connection.execute(select(SelfTestRow).order_by(SelfTestRow.id.desc()).limit(limit)).all()
    return tuple(map(_status, rows))


def last_self_test(database: Database) -> SelfTestStatus | None:
    """Read the test that ended last; None where none has."""
    with database.reading() as connection:
        return last_within(connection)


def last_within(connection: Connection) -> SelfTestStatus | None:
    """Read it within a transaction."""
    ended = select(SelfTestRow).where(SelfTestRow.finished_at.is_not(None), SelfTestRow.passed.is_not(None))
    row = connection.execute(ended.order_by(SelfTestRow.id.desc()).limit(1)).first()
    return None if row is None else _status(row)


def self_test_of(database: Database, test_id: int) -> SelfTestStatus | None:
    """Read one test; None where it was stopped, and forgotten."""
    with database.reading() as connection:
        row = connection.execute(select(SelfTestRow).where(SelfTestRow.id == test_id)).first()
    return None if row is None else _status(row)


def _status(row: Any) -> SelfTestStatus:
    return SelfTestStatus(
        id=row.id, asked_at=row.asked_at, asked_by=row.asked_by, started_at=row.started_at,
        finished_at=row.finished_at, passed=row.passed, fault=row.fault or "", seconds=row.seconds,
        steps=row.steps or {}, triage=row.triage, probability=row.probability, model_sha256=row.model_sha256,
    )  # fmt: skip
