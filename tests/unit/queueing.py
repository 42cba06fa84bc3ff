"""A queue on a real database, SQLite or a PostgreSQL server, and what is put into it."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select, update

from ich_node.database import Base, Database, PlaneRow, SeriesRow, open_database, prepare_database
from ich_node.job_queue import (
    SendingAssociation,
    claim_series,
    register_instance,
    save_planes,
    save_read,
    waiting_instances,
)
from ich_node.records import (
    CT_IMAGE_STORAGE,
    Destination,
    InstanceState,
    PlaneMember,
    PlaneScore,
    ReadInstance,
    ReceivedInstance,
    Reception,
    SeriesJob,
)
from tests.postgresql import MIGRATED, database_url, is_wanted

MODEL = "ab" * 32
PACS = Destination("pacs", "PACS", "127.0.0.1", 104)
_numbers = itertools.count(1)


def open_queue(folder: Path, busy_timeout_s: float = 30.0) -> Database:
    """A migrated database in a folder."""
    database = open_database(database_url(folder, MIGRATED), busy_timeout_s)
    prepare_database(database, folder)
    return database


def copied_queue(migrated_database: Path, folder: Path) -> Database:
    """The same, by copying one."""
    if is_wanted():
        return open_queue(folder)
    shutil.copy(migrated_database, folder / "ich-node.sqlite")
    return open_database(f"sqlite:///{folder / 'ich-node.sqlite'}")


def received(number: int, *, study: int = 1, series: int = 1, version: int = 1, **changes: Any) -> ReceivedInstance:
    """One slice whose bytes are safe; ``version`` stands for its bytes."""
    uid = f"1.2.{study}.{series}.{number}"
    values: dict[str, Any] = {
        "study_instance_uid": f"1.2.{study}",
        "series_instance_uid": f"1.2.{study}.{series}",
        "sop_instance_uid": uid,
        "sop_class_uid": CT_IMAGE_STORAGE,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "modality": "CT",
        "sha256": f"{uid} {version}",
        "size_bytes": 1000,
        "path": f"spool/00/{next(_numbers)}.dcm",
        "calling_ae_title": "CT1",
        "remote_address": "10.0.0.1",
    }
    return ReceivedInstance(**values | changes)


def receive(
    database: Database,
    *instances: ReceivedInstance,
    analysed: bool = True,
    wait_s: float = 20.0,
    association: SendingAssociation | None = None,
) -> Reception:
    """Enter instances; give what the last one meant."""
    meant = [
        register_instance(database, one, max_wait_s=wait_s, analysed=analysed, association=association)[0]
        for one in instances
    ]
    return meant[-1]


def claim(database: Database, owner: str, *, lease_s: float = 60.0, limit: int = 8) -> list[SeriesJob]:
    return claim_series(database, owner, lease_s=lease_s, max_wait_s=20.0, limit=limit)


def plane(sop_instance_uid: str, position_mm: float = 0.0) -> PlaneScore:
    members = (PlaneMember(sop_instance_uid, None, position_mm),)
    return PlaneScore(sop_instance_uid, None, position_mm, (0.0,) * 6, np.zeros(4, np.float16), members)


def score(database: Database, job: SeriesJob, owner: str) -> bool:
    """Read and score whatever waits in a series, each slice as a plane of its own; older planes of it go."""
    waiting = waiting_instances(database, job.id, 1000)
    done = [ReadInstance(one.id, InstanceState.DECODED) for one in waiting]
    if not save_read(database, job, owner, done, lease_s=60.0):
        return False
    uids = {one.sop_instance_uid for one in waiting}
    stale = [row.id for row in rows(database, PlaneRow, series_id=job.id) if row.members[0][0] in uids]
    planes = [plane(one.sop_instance_uid, one.id) for one in waiting]
    return keep_planes(database, job, owner, planes, stale=stale)


def keep_planes(
    database: Database,
    job: SeriesJob,
    owner: str,
    planes: Sequence[PlaneScore],
    *,
    stale: Sequence[int] = (),
    waiting: int = 0,
) -> bool:
    return save_planes(database, job, owner, planes, stale=stale, waiting=waiting, model_sha256=MODEL, lease_s=60.0)


def rows(database: Database, table: type[Base], **where: Any) -> list[Any]:
    conditions = [getattr(table, key) == value for key, value in where.items()]
    with database.reading() as connection:
        return list(connection.execute(select(table).where(*conditions).order_by(*table.__table__.primary_key)))


def change(database: Database, table: type[Base], **values: Any) -> None:
    """Set columns of every row, as time or a fault would."""
    with database.writing() as connection:
        connection.execute(update(table).values(values))


def make_due(database: Database) -> None:
    """Let the quiet time of every series pass."""
    change(database, SeriesRow, due_at=time.time() - 1, not_before=0.0)
