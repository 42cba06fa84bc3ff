"""What readers say of a study's answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import insert, select

from ich_node.database import Database, FeedbackRow, StudyRow
from ich_node.records import HEMORRHAGE_CLASSES, SliceKey, Triage

LONGEST_NOTE: Final = 500
MOST_SLICES_SAID: Final = 50
"""That one reader points at."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """One reader's word on one revision."""

    reader: str
    revision: int
    triage: str
    """What the study said then."""
    agrees: bool
    hemorrhage: bool
    """What the reader says: is there any."""
    classes: tuple[str, ...]
    slices: tuple[SliceKey, ...]
    note: str
    given_at: float


def give_feedback(
    database: Database, study_instance_uid: str, reader: str, *, agrees: bool, revision: int | None = None,
    classes: Sequence[str] = (), slices: Sequence[SliceKey] = (), note: str = "",
) -> Feedback | None:  # fmt: skip
    """Note what a reader says of a study; None where it has no result to speak of, or another by now.

    Args:
        revision: that the reader saw; None for whatever there is now.
        classes: which the reader who disagrees sees, of HEMORRHAGE_CLASSES; none: no hemorrhage.

    Raises:
        ValueError: a class is none.
    """
    if unknown := [one for one in classes if one not in HEMORRHAGE_CLASSES]:
        raise ValueError(f"no class of hemorrhage: {unknown[0]}")
    with database.writing() as connection:
        mine = select(StudyRow.id, StudyRow.revision, StudyRow.triage)
        study = connection.execute(mine.where(StudyRow.study_instance_uid == study_instance_uid)).first()
        if study is None or study.triage is None or revision not in (None, study.revision):
            return None
        hemorrhage = study.triage == Triage.POSITIVE if agrees else bool(classes)
        values: dict[str, Any] = {
            "study_id": study.id, "revision": study.revision, "triage": study.triage, "reader": reader,
            "agrees": agrees, "hemorrhage": hemorrhage, "classes": list(classes),
            "slices": [list(one) for one in slices], "note": note, "given_at": time.time(),
        }  # fmt: skip
        connection.execute(insert(FeedbackRow).values(values))
        return _feedback(connection.execute(
            select(FeedbackRow).where(FeedbackRow.study_id == study.id).order_by(FeedbackRow.id.desc())
        ).first())  # fmt: skip


def feedback_of(database: Database, study_instance_uid: str) -> tuple[Feedback, ...]:
    """List what readers said of a study, the oldest first."""
    wanted = (
        select(FeedbackRow)
        .join(StudyRow, StudyRow.id == FeedbackRow.study_id)
        .where(StudyRow.study_instance_uid == study_instance_uid)
        .order_by(FeedbackRow.id)
    )
    with database.reading() as connection:
        return tuple(_feedback(row) for row in connection.execute(wanted).all())


def _feedback(row: Any) -> Feedback:
    slices = tuple((str(uid), frame) for uid, frame in row.slices)
    return Feedback(
        row.reader, row.revision, row.triage, row.agrees, row.hemorrhage, tuple(row.classes), slices, row.note,
        row.given_at,
    )  # fmt: skip
