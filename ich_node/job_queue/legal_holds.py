"""Legal holds: of these studies nothing is deleted until a person lifts the hold. Who held what, and why, stays."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock
from sqlalchemy import insert, select, update

from ich_node.database import Database, LegalHoldRow, StudyRow
from ich_node.durable import replace_durably
from ich_node.log import EventLog

HOLDS: Final = "legal-holds.json"
"""Beside the database, for when that is lost: what is held must not be deleted after a rebuild."""

log = EventLog("queue")


@dataclass(frozen=True, slots=True)
class LegalHold:
    """A hold as a person reads it."""

    study_instance_uid: str
    reason: str
    placed_by: str
    placed_at: float
    lifted_by: str | None
    lifted_at: float | None


def place_hold(database: Database, study_instance_uid: str, reason: str, by: str) -> bool:
    """Hold a study. False: there is no such study here, or it is held already."""
    with database.writing() as connection:
        known = select(StudyRow.id).where(StudyRow.study_instance_uid == study_instance_uid)
        study_id = connection.execute(known).scalar()
        held = select(LegalHoldRow.id).where(LegalHoldRow.study_id == study_id, LegalHoldRow.lifted_at.is_(None))
        if study_id is None or connection.execute(held).first() is not None:
            return False
        values = {"study_id": study_id, "reason": reason, "placed_by": by, "placed_at": time.time()}
        connection.execute(insert(LegalHoldRow).values(values))
        return True


def lift_hold(database: Database, study_instance_uid: str, by: str) -> bool:
    """Lift the hold of a study. False: it is not held."""
    study = select(StudyRow.id).where(StudyRow.study_instance_uid == study_instance_uid).scalar_subquery()
    with database.writing() as connection:
        lifted = (
            update(LegalHoldRow)
            .where(LegalHoldRow.study_id == study, LegalHoldRow.lifted_at.is_(None))
            .values(lifted_by=by, lifted_at=time.time())
        )
        return connection.execute(lifted).rowcount > 0


def list_holds(database: Database, *, lifted_too: bool = False) -> list[LegalHold]:
    """List the holds, the oldest first."""
    holds = (
        select(StudyRow.study_instance_uid, LegalHoldRow)
        .join(StudyRow, StudyRow.id == LegalHoldRow.study_id)
        .order_by(LegalHoldRow.id)
    )
    if not lifted_too:
        holds = holds.where(LegalHoldRow.lifted_at.is_(None))
    with database.reading() as connection:
        rows = connection.execute(holds).all()
    return [
        LegalHold(row.study_instance_uid, row.reason, row.placed_by, row.placed_at, row.lifted_by, row.lifted_at)
        for row in rows
    ]


def save_holds(database: Database, state_directory: Path) -> bool:
    """Write the holds beside the database, where they differ from what is there; True where they did.

    Holds of the file whose studies are not known here stay in it: a database that was made anew knows no study of
    which nothing was left, and the study may come again. Then it is held again.

    Raises:
        OSError: the file cannot be read.
        StorageUnavailable: nothing can be written.
    """
    path = state_directory / HOLDS
    with FileLock(state_directory / "legal-holds.lock"):  # pages, commands and housekeeping write it
        written = _read_or_put_aside(path)
        _enter(database, written)
        held = list_holds(database, lifted_too=True)
        known = {hold.study_instance_uid for hold in held}
        holds = [*(hold for hold in written if hold.study_instance_uid not in known), *held]
        if holds == written:
            return False
        replace_durably(path, [json.dumps([asdict(hold) for hold in holds], indent=1).encode() + b"\n"])
        return True


def restore_holds(database: Database, state_directory: Path) -> int:
    """Enter the holds that lie beside a database that was made anew; return how many.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged; so of TypeError.
    """
    return _enter(database, _read(state_directory / HOLDS))


def _read_or_put_aside(path: Path) -> list[LegalHold]:
    try:
        return _read(path)
    except (ValueError, TypeError) as error:
        aside = path.with_suffix(".damaged")
        path.replace(aside)
        log.error("the holds beside the database are damaged, and written anew from it", error, kept_as=aside.name)
        return []


def _read(path: Path) -> list[LegalHold]:
    return [LegalHold(**one) for one in json.loads(path.read_bytes())] if path.exists() else []


def _enter(database: Database, holds: Sequence[LegalHold]) -> int:
    """Enter the holds of known studies that are not there."""
    there = {(hold.study_instance_uid, hold.placed_at) for hold in list_holds(database, lifted_too=True)}
    missing = [hold for hold in holds if (hold.study_instance_uid, hold.placed_at) not in there]
    if not missing:
        return 0
    count = 0
    with database.writing() as connection:
        for hold in missing:
            known = select(StudyRow.id).where(StudyRow.study_instance_uid == hold.study_instance_uid)
            if (study_id := connection.execute(known).scalar()) is not None:
                values = asdict(hold) | {"study_id": study_id}
                del values["study_instance_uid"]
                connection.execute(insert(LegalHoldRow).values(values))
                count += 1
    return count
