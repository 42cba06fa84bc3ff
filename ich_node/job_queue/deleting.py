"""A person deletes the images and results of one study. Rows with UIDs and hashes stay, as after `retention`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, func, select, update

from ich_node.database import Database, DeliveryRow, InstanceRow, ResultRow, SeriesRow, StudyRow
from ich_node.job_queue.quarantine import reject_quarantined_of, supersede_unsent
from ich_node.job_queue.retention import SETTLED, UNFINISHED, Deletion, forget_images, is_held, record_deletion
from ich_node.records import OPEN_SERIES, DeliveryState, NotAnalysedReason, SeriesState

_AT_ONCE: Final = 500
_FREE: Final = {"lease_owner": None, "lease_expires_at": None}


class Refusal(StrEnum):
    """Why nothing of a study was deleted."""

    UNKNOWN = "unknown"
    HELD = "held"
    """It is under legal hold."""
    UNFINISHED = "unfinished"
    """Something of it is open or undelivered, and nobody said that it may go all the same."""
    NOTHING_LEFT = "nothing left"


@dataclass(frozen=True, slots=True)
class StudyDeletion:
    """What was deleted of a study, or why nothing was."""

    gone: tuple[Deletion, ...] = ()
    refusal: Refusal | None = None
    open_series: int = 0
    undelivered: int = 0

    @property
    def files(self) -> int:
        return sum(one.files for one in self.gone)


def forget_study(
    database: Database, study_instance_uid: str, rule: str, size_of: Callable[[str], int], *, confirmed: bool
) -> StudyDeletion:
    """Forget images and results of a study and list their files in `files_to_delete`.

    What was open ends without a result, what is quarantined is rejected, and what was not sent is not sent any more.

    Args:
        rule: who says so, and why.
        size_of: gives the bytes of a file by its path; it is asked before anything is written, since it may take long.
        confirmed: what is open or undelivered may go, too.
    """
    sizes: dict[str, int] = {}
    while True:
        sizes |= {path: size_of(path) for path in _results_of(database, study_instance_uid) if path not in sizes}
        if (done := _forget_study(database, study_instance_uid, rule, sizes, confirmed=confirmed)) is not None:
            return done


def _results_of(database: Database, study_instance_uid: str) -> Sequence[str]:
    mine = select(StudyRow.id).where(StudyRow.study_instance_uid == study_instance_uid).scalar_subquery()
    with database.reading() as connection:
        return _paths_of_results(connection, mine)


def _paths_of_results(connection: Connection, study_id: Any) -> Sequence[Any]:
    wanted = select(ResultRow.path).where(ResultRow.study_id == study_id, ResultRow.path.is_not(None))
    return connection.execute(wanted).scalars().all()


def _forget_study(
    database: Database, study_instance_uid: str, rule: str, sizes: Mapping[str, int], *, confirmed: bool
) -> StudyDeletion | None:
    """Forget a study; None, and nothing is forgotten, where a result has come of which the size is not known."""
    now = time.time()
    with database.writing() as connection:
        known = select(StudyRow.id, is_held(StudyRow.id).label("held"))
        study = connection.execute(known.where(StudyRow.study_instance_uid == study_instance_uid)).first()
        if study is None:
            return StudyDeletion(refusal=Refusal.UNKNOWN)
        if study.held:
            return StudyDeletion(refusal=Refusal.HELD)
        open_series, undelivered = _unfinished(connection, study.id)
        if (open_series or undelivered) and not confirmed:
            return StudyDeletion((), Refusal.UNFINISHED, open_series, undelivered)
        results = _paths_of_results(connection, study.id)
        if any(path not in sizes for path in results):
            return None
        reports = [(study.id, rule, path, sizes[path]) for path in results]
        gone = _forget_files(connection, study.id, rule, reports, now)
        if not gone:
            return StudyDeletion(refusal=Refusal.NOTHING_LEFT)
        _settle(connection, study.id)
        return StudyDeletion(tuple(gone), None, open_series, undelivered)


def _unfinished(connection: Connection, study_id: int) -> tuple[int, int]:
    """Count the series that are not settled, and the deliveries that wait."""
    series = select(func.count()).where(SeriesRow.study_id == study_id, SeriesRow.state.not_in(SETTLED))
    deliveries = select(func.count()).where(DeliveryRow.study_id == study_id, UNFINISHED)
    return connection.execute(series).scalar_one(), connection.execute(deliveries).scalar_one()


def _forget_files(
    connection: Connection, study_id: int, rule: str, reports: Sequence[tuple[int, str, str, int]], now: float
) -> list[Deletion]:
    images = connection.execute(
        select(InstanceRow.id, InstanceRow.path, InstanceRow.size_bytes)
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(SeriesRow.study_id == study_id, InstanceRow.path.is_not(None))
    ).all()
    for first in range(0, len(images), _AT_ONCE):
        forget_images(connection, [row.id for row in images[first : first + _AT_ONCE]], now)
    gone = record_deletion(connection, "images", [(study_id, rule, row.path, row.size_bytes) for row in images], now)
    connection.execute(update(ResultRow).where(ResultRow.study_id == study_id).values(path=None))
    return gone + record_deletion(connection, "reports", reports, now)


def _settle(connection: Connection, study_id: int) -> None:
    """Let nobody work on what is not there any more, nor send it, nor ask whether it was committed."""
    reject_quarantined_of(connection, study_id)  # first: it may open another series again
    opened = (SeriesRow.study_id == study_id, SeriesRow.state.in_(OPEN_SERIES))
    concluded = update(SeriesRow).where(*opened, SeriesRow.concluded_at.is_not(None))
    connection.execute(concluded.values({"state": SeriesState.CONCLUDED, "planes_waiting": 0} | _FREE))
    ended = {"state": SeriesState.NOT_ANALYSED, "reason": NotAnalysedReason.IMAGES_DELETED.name, "detail": None,
             "planes_waiting": 0}  # fmt: skip
    connection.execute(update(SeriesRow).where(*opened).values(ended | _FREE))
    supersede_unsent(connection, study_id)
    asked = update(DeliveryRow).where(
        DeliveryRow.study_id == study_id, DeliveryRow.state == DeliveryState.DELIVERED,
        DeliveryRow.commitment_ask_at.is_not(None),
    )  # fmt: skip
    connection.execute(asked.values(commitment_ask_at=None, commitment_error=None))
