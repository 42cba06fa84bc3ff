"""Which workers run, with what: they note it themselves, now and then, while they live."""

from __future__ import annotations

import dataclasses
import time

from sqlalchemy import delete, insert, or_

from ich_node.database import Database, WorkerRow
from ich_node.records import WORKER_GONE_S, RunningWorker


def note_worker(database: Database, owner: str, worker: RunningWorker) -> None:
    """Note what a worker computes with; those that have gone without a word are forgotten."""
    now = time.time()
    values = dataclasses.asdict(worker) | {"owner": owner, "seen_at": now}
    gone = or_(
        WorkerRow.owner == owner, WorkerRow.seen_at < now - WORKER_GONE_S, WorkerRow.seen_at > now + WORKER_GONE_S
    )
    with database.writing() as connection:
        connection.execute(delete(WorkerRow).where(gone))
        connection.execute(insert(WorkerRow).values(values))


def forget_worker(database: Database, owner: str) -> None:
    """Note that a worker ends."""
    with database.writing() as connection:
        connection.execute(delete(WorkerRow).where(WorkerRow.owner == owner))
