"""Which workers run, with what."""

from __future__ import annotations

import time

from sqlalchemy import Connection, select

from ich_node.database import Database, WorkerRow
from ich_node.records import WORKER_GONE_S, RunningWorker


def running_workers(database: Database) -> tuple[RunningWorker, ...]:
    """Read what the workers noted of themselves within the last minutes."""
    with database.reading() as connection:
        return running_workers_within(connection)


def running_workers_within(connection: Connection) -> tuple[RunningWorker, ...]:
    """Read it within a transaction."""
    recent = select(WorkerRow).where(WorkerRow.seen_at > time.time() - WORKER_GONE_S).order_by(WorkerRow.owner)
    return tuple(
        RunningWorker(
            row.engine, row.device, row.memory_used, row.memory_total, row.model_name, row.model_version,
            row.model_sha256, row.seen_at,
        )
        for row in connection.execute(recent).all()
    )  # fmt: skip
